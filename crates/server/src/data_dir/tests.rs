use std::fs;

use super::*;

const NOW: u64 = 1_800_000_000;

fn options(address: &str) -> InitOptions {
    InitOptions {
        address: Some(address.to_owned()),
        hosts: vec!["other.example".to_owned(), "192.0.2.7".to_owned()],
    }
}

fn init(dir: &Path) -> DataDir {
    DataDir::init(dir, &options("wss://relay.example:8443/v1")).unwrap()
}

fn alice() -> User {
    User::new("alice").unwrap()
}

#[test]
fn what_was_initialised_is_opened_with_the_same_keys() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let made = init(&path);
    let opened = DataDir::open(&path).unwrap();
    assert_eq!(made.relay_key().public(), opened.relay_key().public());
    assert_eq!(made.issuer_key().public(), opened.issuer_key().public());
    assert_ne!(made.relay_key().public(), made.issuer_key().public());
    assert_eq!(
        DataDir::open_or_init(&path, &InitOptions::default())
            .unwrap()
            .relay_key()
            .public(),
        made.relay_key().public()
    );
}

#[test]
fn the_certificate_is_one_that_tls_takes_for_every_host() {
    let dir = tempfile::tempdir().unwrap();
    let made = init(dir.path());
    let pem = fs::read(made.certificate_path()).unwrap();
    let certificate = CertificateDer::from_pem_slice(&pem).unwrap();
    assert_eq!(
        made.certificate_sha256().unwrap(),
        <[u8; 32]>::from(Sha256::digest(&certificate))
    );
    let key = rustls_pki_types::PrivateKeyDer::from_pem_file(made.certificate_key_path()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    for name in ["localhost", "relay.example", "other.example"] {
        assert!(
            certificate
                .windows(name.len())
                .any(|window| window == name.as_bytes()),
            "{name}"
        );
    }
}

#[test]
fn an_invitation_says_all_that_a_device_needs() {
    let dir = tempfile::tempdir().unwrap();
    let made = init(dir.path());
    let invitation = made.invite(&alice(), None, 60, NOW).unwrap();
    let address = format!(
        "wss://relay.example:8443/v1#{}",
        made.relay_key().thumbprint()
    );
    assert_eq!(invitation.relay.address.to_string(), address);
    assert_eq!(
        invitation.relay.certificate,
        Some(made.certificate_sha256().unwrap())
    );
    assert_eq!(invitation.relay.issuer_key, *made.issuer_key().public());
    assert_eq!((invitation.user, invitation.expires), (alice(), NOW + 60));
}

#[test]
fn an_invitation_follows_what_the_running_relay_announced() {
    let dir = tempfile::tempdir().unwrap();
    let made = init(dir.path());
    let announced = format!("ws://127.0.0.1:4000/v1#{}", made.relay_key().thumbprint());
    made.announce(&announced.parse().unwrap(), false).unwrap();
    let invitation = made.invite(&alice(), None, 60, NOW).unwrap();
    assert_eq!(
        (
            invitation.relay.address.to_string(),
            invitation.relay.certificate
        ),
        (announced, None)
    );
    let invitation = made
        .invite(&alice(), Some("wss://said.example/v1"), 60, NOW)
        .unwrap();
    assert_eq!(invitation.relay.address.host(), "said.example");
}

#[test]
fn an_invitation_s_file_does_not_hold_the_code() {
    let dir = tempfile::tempdir().unwrap();
    let made = init(dir.path());
    let invitation = made.invite(&alice(), None, 60, NOW).unwrap();
    let file = fs::read_dir(made.invites_path())
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    let code = base64url::encode(invitation.code.expose());
    assert!(!file.file_name().to_string_lossy().contains(&code));
    assert!(!fs::read_to_string(file.path()).unwrap().contains(&code));
}

/// As an administrator's account invites at a relay that has one of its own.
#[cfg(unix)]
#[test]
fn an_invitation_s_file_is_its_relays_whoever_invites() {
    use std::os::unix::fs::{MetadataExt as _, chown};
    let dir = tempfile::tempdir().unwrap();
    let made = init(dir.path());
    // Only an administrator may do that, and for others there is nothing to see.
    if chown(made.invites_path(), Some(12_345), None).is_err() {
        return;
    }
    made.invite(&alice(), None, 60, NOW).unwrap();
    let entry = fs::read_dir(made.invites_path()).unwrap().next();
    assert_eq!(entry.unwrap().unwrap().metadata().unwrap().uid(), 12_345);
}

#[test]
fn expired_invitations_are_cleared_away_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let made = init(dir.path());
    for now in [NOW, NOW + 1, NOW + 60] {
        made.invite(&alice(), None, 60, now).unwrap();
    }
    assert_eq!(fs::read_dir(made.invites_path()).unwrap().count(), 2);
}

#[test]
fn a_directory_with_keys_is_not_initialised_again() {
    let dir = tempfile::tempdir().unwrap();
    let made = init(dir.path());
    for file in [
        RELAY_KEY,
        ISSUER_KEY,
        CERTIFICATE,
        CERTIFICATE_KEY,
        DESCRIPTION,
    ] {
        let before = fs::read(dir.path().join(file)).unwrap();
        let refused = DataDir::init(dir.path(), &InitOptions::default()).unwrap_err();
        assert!(
            matches!(refused, DataDirError::AlreadyInitialised { .. }),
            "{refused}"
        );
        assert_eq!(fs::read(dir.path().join(file)).unwrap(), before);
        // Any one of them is enough.
        if file != RELAY_KEY {
            fs::remove_file(dir.path().join(file)).unwrap();
        }
    }
    let refused = DataDir::init(dir.path(), &InitOptions::default()).unwrap_err();
    assert!(
        matches!(refused, DataDirError::AlreadyInitialised { .. }),
        "{refused}"
    );
    assert_eq!(
        read_key(&dir.path().join(RELAY_KEY)).unwrap().public(),
        made.relay_key().public()
    );
}

#[test]
fn a_directory_that_is_not_initialised_says_what_to_run() {
    let dir = tempfile::tempdir().unwrap();
    for path in [dir.path().to_owned(), dir.path().join("none")] {
        let refused = DataDir::open(&path).unwrap_err();
        assert!(matches!(refused, DataDirError::NotInitialised { .. }));
        let what_to_run = format!("run `sealwire relay init {}` first", path.display());
        assert!(refused.to_string().contains(&what_to_run), "{refused}");
    }
}

#[test]
fn an_interrupted_initialisation_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    fs::remove_file(dir.path().join(DESCRIPTION)).unwrap();
    for opened in [
        DataDir::open(dir.path()),
        DataDir::open_or_init(dir.path(), &InitOptions::default()),
    ] {
        assert!(matches!(opened, Err(DataDirError::Incomplete { .. })));
    }
}

#[test]
fn a_newer_layout_is_refused_whatever_else_it_says() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    fs::write(dir.path().join(DESCRIPTION), r#"{"version":2,"new":true}"#).unwrap();
    assert!(matches!(
        DataDir::open(dir.path()),
        Err(DataDirError::Newer { found: 2, .. })
    ));
}

#[test]
fn a_damaged_description_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    for damaged in [
        "",
        "[]",
        "{}",
        r#"{"version":"1"}"#,
        r#"{"version":1}"#,
        r#"{"version":1,"address":null,"self_signed":true,"x":1}"#,
    ] {
        fs::write(dir.path().join(DESCRIPTION), damaged).unwrap();
        assert!(
            matches!(DataDir::open(dir.path()), Err(DataDirError::Damaged { .. })),
            "{damaged}"
        );
    }
}

#[test]
fn a_damaged_key_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let path = dir.path().join(RELAY_KEY);
    let whole = fs::read_to_string(&path).unwrap();
    let other = init(&dir.path().join("other"))
        .relay_key()
        .public()
        .to_jwk();
    for damaged in [
        String::new(),
        other,
        whole.replace("OKP", "EC"),
        whole.replace("Ed25519", "X25519"),
        whole.replace("\"d\":\"", "\"d\":\"A"),
        whole.replace('}', ",\"kid\":\"x\"}"),
        whole.replacen("\"x\":\"", "\"x\":\"B", 1),
    ] {
        fs::write(&path, &damaged).unwrap();
        assert!(
            matches!(DataDir::open(dir.path()), Err(DataDirError::Damaged { path: damaged }) if damaged == path)
        );
    }
    fs::write(&path, " ".repeat(5_000)).unwrap();
    assert!(
        matches!(DataDir::open(dir.path()), Err(DataDirError::Io { .. })),
        "too large to be read"
    );
}

#[test]
fn a_missing_key_is_an_error_and_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    fs::remove_file(dir.path().join(ISSUER_KEY)).unwrap();
    for opened in [
        DataDir::open(dir.path()),
        DataDir::open_or_init(dir.path(), &InitOptions::default()),
    ] {
        assert!(matches!(opened, Err(DataDirError::Io { .. })));
    }
    assert!(!dir.path().join(ISSUER_KEY).exists());
}

#[cfg(unix)]
#[test]
fn nobody_else_can_read_the_files() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    init(&path).invite(&alice(), None, 60, NOW).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(&path.join(INVITES))), (0o700, 0o700));
    for file in [RELAY_KEY, ISSUER_KEY, CERTIFICATE_KEY, DESCRIPTION] {
        assert_eq!(mode(&path.join(file)), 0o600, "{file}");
    }
}

#[cfg(unix)]
#[test]
fn a_key_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    for file in [ISSUER_KEY, RELAY_KEY] {
        let path = dir.path().join(file);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let refused = DataDir::open(dir.path()).unwrap_err();
        assert!(matches!(&refused, DataDirError::Exposed { path: exposed } if *exposed == path));
        assert!(refused.to_string().contains("chmod 600"), "{refused}");
    }
}

#[test]
fn hosts_and_addresses_that_cannot_be_are_refused_before_anything_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    for host in [
        "",
        "a b",
        "wss://relay.example",
        "relay.example:443",
        "*.example",
        "ü.example",
        &"a".repeat(254),
    ] {
        let options = InitOptions {
            address: None,
            hosts: vec![host.to_owned()],
        };
        assert!(
            matches!(DataDir::init(&path, &options), Err(DataDirError::Host { host: refused }) if refused == host)
        );
    }
    let print = "#kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k";
    for address in [
        "relay.example",
        "ws://relay.example/v1",
        "wss://relay.example",
        &format!("wss://relay.example/v1{print}"),
    ] {
        assert!(
            matches!(
                DataDir::init(&path, &options(address)),
                Err(DataDirError::Address { .. })
            ),
            "{address}"
        );
    }
    assert!(!path.exists());
}

#[test]
fn an_invitation_without_a_known_address_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let made = DataDir::init(dir.path(), &InitOptions::default()).unwrap();
    assert!(matches!(
        made.invite(&alice(), None, 60, NOW),
        Err(DataDirError::NoAddress)
    ));
    let refused = made.invite(&alice(), Some("wss://relay.example"), 60, NOW);
    assert!(matches!(refused, Err(DataDirError::Address { .. })));
    assert_eq!(fs::read_dir(made.invites_path()).unwrap().count(), 0);
}

#[cfg(unix)]
#[test]
fn directory_that_was_there_keeps_its_mode_and_what_is_made_in_it_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let there = tempfile::tempdir().unwrap();
    std::fs::set_permissions(there.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let made = there.path().join("made");
    for path in [there.path(), &made] {
        DataDir::init(path, &InitOptions::default()).unwrap();
    }
    assert_eq!(mode(there.path()), 0o755);
    assert_eq!(mode(&made), 0o700);
    for entry in std::fs::read_dir(there.path()).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path) & 0o077, 0, "{}", path.display());
    }
}

// docs/protocol.md §3.9
#[test]
fn new_key_follows_the_old_one_and_what_an_interrupted_rotation_leaves_is_passed_over() {
    const NOW: u64 = 1_800_000_000;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("relay");
    let old = init(&path);
    let shown = |dir: &DataDir| dir.previous_keys(NOW).unwrap().as_str().to_owned();
    assert_eq!(shown(&old), "");
    let new = old.rotate_relay_key(60, NOW).unwrap();
    let rotated = DataDir::open(&path).unwrap();
    assert_eq!(rotated.relay_key().thumbprint(), new);
    assert_eq!(
        rotated.issuer_key().thumbprint(),
        old.issuer_key().thumbprint()
    );
    let step = Succession::verify(shown(&rotated).as_bytes(), NOW).unwrap();
    assert_eq!(
        (step.from, step.to),
        (old.relay_key().thumbprint(), new),
        "and not the other way round"
    );
    assert!(!files::is_exposed(&path.join(RELAY_KEY)).unwrap());

    // It stops after the statement, or after the next key.
    let key = std::fs::read(path.join(RELAY_KEY)).unwrap();
    rotated.rotate_relay_key(60, NOW).unwrap();
    std::fs::rename(path.join(RELAY_KEY), path.join(NEXT_RELAY_KEY)).unwrap();
    files::create(&path.join(RELAY_KEY), &key).unwrap();
    let interrupted = DataDir::open(&path).unwrap();
    assert_eq!(interrupted.relay_key().thumbprint(), new);
    assert_eq!(shown(&interrupted), shown(&rotated));
    let newest = interrupted.rotate_relay_key(60, NOW).unwrap();
    let after = DataDir::open(&path).unwrap();
    assert_eq!(after.relay_key().thumbprint(), newest);
    assert_eq!(shown(&after).split(' ').count(), 2);
    assert!(!path.join(NEXT_RELAY_KEY).exists());
    assert_eq!(after.previous_keys(NOW + 200).unwrap(), Successions::NONE);
}
