use futures_util::future::join_all;
use sealwire_protocol::key::Seed;
use sealwire_protocol::token::UnverifiedAttestation;

use super::*;
use crate::data_dir::{DataDir, InitOptions};
use crate::directory::{Directory, PREKEY_BYTES, PublishError, VerifiedCard, VerifiedPrekey};

const NOW: u64 = 1_800_000_000;
const HOUR: u64 = 3_600;

fn key(number: u8) -> SigningKey {
    SigningKey::from_seed(&Seed::new([number; 32]))
}

fn device(number: u8) -> PublicKey {
    *key(number).public()
}

fn user(name: &str) -> User {
    User::new(name).unwrap()
}

fn issuer_in(storage: &Storage) -> Issuer {
    Issuer::new(storage.clone(), key(0xee))
}

fn issuer() -> Issuer {
    issuer_in(&Storage::in_memory().unwrap())
}

async fn enrolled(issuer: &Issuer, name: &str, number: u8) -> Minted {
    let code = issuer.invite(&user(name), HOUR, NOW).await.unwrap();
    issuer
        .redeem(code.expose(), &device(number), NOW)
        .await
        .unwrap()
}

#[tokio::test]
async fn an_invitation_gives_a_token_that_names_user_and_device() {
    let issuer = issuer();
    let minted = enrolled(&issuer, "alice", 1).await;
    let claims = minted.verified.claims();
    assert_eq!(claims.user, user("alice"));
    assert_eq!(claims.device, device(1).thumbprint());
    assert_eq!(
        (claims.issued, claims.expires),
        (NOW, NOW + TOKEN_LIFETIME_SECONDS)
    );
    assert_eq!(
        claims.issuer.as_str(),
        format!("urn:sealwire:issuer:{}", key(0xee).thumbprint())
    );
    assert_eq!(
        claims.audience,
        [format!("urn:sealwire:relay-of:{}", key(0xee).thumbprint())]
    );
    assert!(claims.permissions.send && claims.permissions.receive && claims.permissions.publish);
    assert!(claims.id.is_some());
}

#[tokio::test]
async fn a_token_is_good_for_its_relay_and_time_only() {
    let issuer = issuer();
    let token = enrolled(&issuer, "alice", 1).await.token;
    let verify = |issuer_name: &IssuerName, audience: &str, by: &PublicKey, now| {
        let policy = AccessPolicy {
            issuer: issuer_name,
            audience,
            now,
        };
        UnverifiedAccessToken::parse(token.as_bytes())
            .unwrap()
            .verify(by, &policy)
            .is_ok()
    };
    let (name, audience, by) = (issuer.name(), issuer.audience(), issuer.public_key());
    assert!(verify(name, audience, by, NOW));
    assert!(!verify(
        &built_in_issuer(&key(0xff).thumbprint()),
        audience,
        by,
        NOW
    ));
    assert!(!verify(
        name,
        &built_in_audience(&key(0xff).thumbprint()),
        by,
        NOW
    ));
    assert!(
        !verify(name, audience, &device(0xff), NOW),
        "the relay's key does not sign tokens"
    );
    assert!(!verify(
        name,
        audience,
        by,
        NOW + TOKEN_LIFETIME_SECONDS + 61
    ));
    assert!(
        UnverifiedAttestation::parse(token.as_bytes()).is_ok(),
        "docs/protocol.md §2.3"
    );
}

#[tokio::test]
async fn a_user_with_quotes_and_any_script_is_named_as_it_is() {
    let issuer = issuer();
    let name = "Ål\"ice\\ 愛 🦭 \u{2028}";
    assert_eq!(
        enrolled(&issuer, name, 1)
            .await
            .verified
            .claims()
            .user
            .as_str(),
        name
    );
}

// docs/protocol.md §3.6: a lost answer can be retried
#[tokio::test]
async fn the_same_device_may_redeem_again() {
    let issuer = issuer();
    let code = issuer.invite(&user("alice"), HOUR, NOW).await.unwrap();
    for now in [NOW, NOW + 1, NOW + HOUR - 1] {
        let minted = issuer.redeem(code.expose(), &device(1), now).await.unwrap();
        assert_eq!(minted.verified.claims().user, user("alice"));
    }
    assert_eq!(issuer.devices(&user("alice")).unwrap().len(), 1);
}

// docs/protocol.md §3.6
#[tokio::test]
async fn another_device_does_not_redeem_a_used_invitation() {
    let issuer = issuer();
    let code = issuer.invite(&user("alice"), HOUR, NOW).await.unwrap();
    issuer.redeem(code.expose(), &device(1), NOW).await.unwrap();
    let refused = issuer
        .redeem(code.expose(), &device(2), NOW)
        .await
        .unwrap_err();
    assert_eq!(refused, IssuerError::InviteUsed);
    assert!(!refused.is_internal());
    assert_eq!(
        issuer.renew(&device(2), NOW).unwrap_err(),
        IssuerError::NotEnrolled
    );
}

// docs/protocol.md §3.6
#[tokio::test(flavor = "multi_thread")]
async fn of_many_devices_at_once_one_redeems_an_invitation() {
    let issuer = std::sync::Arc::new(issuer());
    let code = std::sync::Arc::new(issuer.invite(&user("alice"), HOUR, NOW).await.unwrap());
    let redeem = (1..=20).map(|number| {
        let (issuer, code) = (issuer.clone(), code.clone());
        tokio::spawn(async move {
            issuer
                .redeem(code.expose(), &device(number), NOW)
                .await
                .err()
        })
    });
    let refused = join_all(redeem)
        .await
        .into_iter()
        .filter_map(Result::unwrap)
        .collect::<Vec<_>>();
    assert_eq!(refused, [IssuerError::InviteUsed; 19]);
    assert_eq!(issuer.devices(&user("alice")).unwrap().len(), 1);
}

#[tokio::test]
async fn an_expired_invitation_is_refused_used_or_not() {
    let issuer = issuer();
    let unused = issuer.invite(&user("alice"), HOUR, NOW).await.unwrap();
    let used = issuer.invite(&user("alice"), HOUR, NOW).await.unwrap();
    issuer.redeem(used.expose(), &device(1), NOW).await.unwrap();
    for (code, number) in [(&unused, 2), (&used, 1)] {
        let refused = issuer
            .redeem(code.expose(), &device(number), NOW + HOUR)
            .await;
        assert_eq!(refused.unwrap_err(), IssuerError::InviteExpired);
    }
    // And after the next one has cleared it away:
    issuer.invite(&user("bob"), HOUR, NOW + HOUR).await.unwrap();
    let refused = issuer.redeem(unused.expose(), &device(2), NOW).await;
    assert_eq!(refused.unwrap_err(), IssuerError::UnknownInvite);
}

#[tokio::test]
async fn a_code_that_was_never_given_is_refused() {
    let issuer = issuer();
    let code = issuer.invite(&user("alice"), HOUR, NOW).await.unwrap();
    let mut wrong = code.expose().to_vec();
    wrong[31] ^= 1;
    for code in [&wrong[..], &code.expose()[..31], &[], &[0; 16], &[0; 65]] {
        let refused = issuer.redeem(code, &device(1), NOW).await;
        assert_eq!(refused.unwrap_err(), IssuerError::UnknownInvite);
    }
}

#[tokio::test]
async fn the_code_is_not_in_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Storage::open(dir.path(), &crate::storage::StorageOptions::default()).unwrap();
    let code = issuer_in(&storage)
        .invite(&user("alice"), HOUR, NOW)
        .await
        .unwrap();
    drop(storage);
    let stored = std::fs::read(dir.path().join(crate::storage::STORE_FILE)).unwrap();
    let contains = |needle: &[u8]| stored.windows(needle.len()).any(|window| window == needle);
    assert!(!contains(code.expose()) && !contains(base64url::encode(code.expose()).as_bytes()));
    assert!(
        contains(&Sha256::digest(code.expose())),
        "or this looked in the wrong place"
    );
}

#[tokio::test]
async fn a_device_of_one_user_is_not_enrolled_for_another() {
    let issuer = issuer();
    enrolled(&issuer, "alice", 1).await;
    let code = issuer.invite(&user("mallory"), HOUR, NOW).await.unwrap();
    let refused = issuer.redeem(code.expose(), &device(1), NOW).await;
    assert_eq!(refused.unwrap_err(), IssuerError::AnotherUser);
    // The invitation is still good for a device of its own.
    issuer.redeem(code.expose(), &device(2), NOW).await.unwrap();
}

// docs/protocol.md §3.8
#[tokio::test]
async fn a_device_that_another_issuer_brought_is_enrolled_for_its_user_only() {
    let storage = Storage::in_memory().unwrap();
    let issuer = issuer_in(&storage);
    let directory = Directory::new(storage);
    let (key, thumbprint) = (device(1), device(1).thumbprint());
    let card = VerifiedCard {
        id: 1,
        issued: NOW,
        attested: NOW,
        card: b"card".to_vec(),
    };
    let published = directory
        .publish_card(&user("alice"), &thumbprint, card)
        .await;
    published.unwrap();
    // Whose it is outlives its card.
    directory.withdraw_card(&thumbprint, 1).await.unwrap();
    assert_eq!(
        issuer.renew(&key, NOW).unwrap_err(),
        IssuerError::NotEnrolled
    );
    let code = issuer.invite(&user("mallory"), HOUR, NOW).await.unwrap();
    let refused = issuer.redeem(code.expose(), &key, NOW).await;
    assert_eq!(refused.unwrap_err(), IssuerError::AnotherUser);
    assert_eq!(issuer.devices(&user("alice")), Ok(vec![]));
    enrolled(&issuer, "alice", 1).await;
    issuer.renew(&key, NOW).unwrap();
    // And the reverse.
    enrolled(&issuer, "bob", 2).await;
    let card = VerifiedCard {
        id: 1,
        issued: NOW,
        attested: NOW,
        card: b"card".to_vec(),
    };
    let taken = directory
        .publish_card(&user("mallory"), &device(2).thumbprint(), card)
        .await;
    assert_eq!(taken, Err(PublishError::AnotherUser));
}

#[tokio::test]
async fn an_enrolled_device_gets_new_tokens() {
    let issuer = issuer();
    let first = enrolled(&issuer, "alice", 1).await;
    let second = issuer.renew(&device(1), NOW + 10 * HOUR).unwrap();
    assert_eq!(second.verified.claims().issued, NOW + 10 * HOUR);
    assert_eq!(second.verified.claims().user, user("alice"));
    assert_ne!(first.verified.claims().id, second.verified.claims().id);
}

#[tokio::test]
async fn a_device_that_is_not_enrolled_gets_no_token() {
    let issuer = issuer();
    enrolled(&issuer, "alice", 1).await;
    assert_eq!(
        issuer.renew(&device(2), NOW).unwrap_err(),
        IssuerError::NotEnrolled
    );
}

#[tokio::test]
async fn a_removed_device_gets_no_token_and_is_not_enrolled_again() {
    let storage = Storage::in_memory().unwrap();
    let (issuer, directory) = (issuer_in(&storage), Directory::new(storage));
    enrolled(&issuer, "alice", 1).await;
    let id = device(1).thumbprint();
    let card = VerifiedCard {
        id: 1,
        issued: NOW,
        attested: 100,
        card: b"card".to_vec(),
    };
    directory
        .publish_card(&user("alice"), &id, card)
        .await
        .unwrap();

    assert_eq!(directory.remove(&id, None).await, Ok(Some(user("alice"))));
    assert_eq!(directory.devices(&user("alice"), 100), Ok(vec![]));
    assert_eq!(
        issuer.renew(&device(1), NOW).unwrap_err(),
        IssuerError::Removed
    );
    let code = issuer.invite(&user("alice"), HOUR, NOW).await.unwrap();
    let refused = issuer.redeem(code.expose(), &device(1), NOW).await;
    assert_eq!(refused.unwrap_err(), IssuerError::Removed);
    let removed = EnrolledDevice {
        device: id,
        enrolled: NOW,
        removed: true,
    };
    assert_eq!(issuer.devices(&user("alice")), Ok(vec![removed]));
}

#[tokio::test]
async fn removing_a_device_that_is_not_enrolled_changes_nothing() {
    let storage = Storage::in_memory().unwrap();
    let (issuer, directory) = (issuer_in(&storage), Directory::new(storage));
    let id = device(1).thumbprint();
    assert_eq!(directory.remove(&id, None).await, Ok(None));
    enrolled(&issuer, "alice", 1).await;
    // Another user's.
    assert_eq!(directory.remove(&id, Some(&user("bob"))).await, Ok(None));
    issuer.renew(&device(1), NOW).unwrap();
    // Removed already.
    let alice = user("alice");
    assert_eq!(directory.remove(&id, Some(&alice)).await, Ok(Some(alice)));
    assert_eq!(directory.remove(&id, None).await, Ok(None));
}

#[tokio::test]
async fn a_time_that_no_token_can_have_is_an_error() {
    let issuer = issuer();
    enrolled(&issuer, "alice", 1).await;
    for now in [1 << 53, u64::MAX] {
        let refused = issuer.renew(&device(1), now).unwrap_err();
        assert_eq!(refused, IssuerError::Mint);
        assert!(refused.is_internal());
    }
}

#[tokio::test]
async fn a_token_is_not_in_debug() {
    let minted = enrolled(&issuer(), "alice", 1).await;
    let signature = minted.token.rsplit('.').next().unwrap();
    assert!(!format!("{minted:?}").contains(signature));
}

/// A data directory, an issuer that runs on it, and its store.
fn running() -> (tempfile::TempDir, DataDir, Issuer) {
    let dir = tempfile::tempdir().unwrap();
    let options = InitOptions {
        address: Some("wss://relay.example/v1".into()),
        hosts: vec![],
    };
    let data_dir = DataDir::init(dir.path(), &options).unwrap();
    let issuer = issuer().with_waiting_invites(data_dir.invites_path());
    (dir, data_dir, issuer)
}

fn waiting_files(data_dir: &DataDir) -> usize {
    std::fs::read_dir(data_dir.invites_path()).unwrap().count()
}

#[tokio::test]
async fn an_invitation_made_beside_a_running_relay_is_redeemed_once() {
    let (_dir, data_dir, issuer) = running();
    let invitation = data_dir.invite(&user("alice"), None, HOUR, NOW).unwrap();
    assert_eq!(waiting_files(&data_dir), 1);
    let code = invitation.code.expose();
    let minted = issuer.redeem(code, &device(1), NOW).await.unwrap();
    assert_eq!(minted.verified.claims().user, user("alice"));
    assert_eq!(waiting_files(&data_dir), 0);
    issuer.redeem(code, &device(1), NOW).await.unwrap();
    assert_eq!(
        issuer.redeem(code, &device(2), NOW).await.unwrap_err(),
        IssuerError::InviteUsed
    );
}

#[tokio::test]
async fn a_waiting_file_that_comes_back_does_not_make_the_invitation_new() {
    let (_dir, data_dir, issuer) = running();
    let invitation = data_dir.invite(&user("alice"), None, HOUR, NOW).unwrap();
    let file = std::fs::read_dir(data_dir.invites_path())
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let content = std::fs::read(&file).unwrap();
    issuer
        .redeem(invitation.code.expose(), &device(1), NOW)
        .await
        .unwrap();
    std::fs::write(&file, content).unwrap();
    let refused = issuer
        .redeem(invitation.code.expose(), &device(2), NOW)
        .await;
    assert_eq!(refused.unwrap_err(), IssuerError::InviteUsed);
}

#[tokio::test]
async fn a_waiting_invitation_that_expired_or_is_damaged_is_refused() {
    let (_dir, data_dir, issuer) = running();
    let invitation = data_dir.invite(&user("alice"), None, HOUR, NOW).unwrap();
    let code = invitation.code.expose();
    let refused = issuer.redeem(code, &device(1), NOW + HOUR).await;
    assert_eq!(refused.unwrap_err(), IssuerError::InviteExpired);
    let file = std::fs::read_dir(data_dir.invites_path())
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    for damaged in [
        "",
        "{}",
        r#"{"user":"alice"}"#,
        r#"{"user":"","expires":9999999999}"#,
        r#"{"user":"alice","expires":"9999999999"}"#,
        r#"{"user":"alice","user":"bob","expires":9999999999}"#,
        r#"{"user":"alice","expires":9999999999,"more":1}"#,
    ] {
        std::fs::write(&file, damaged).unwrap();
        let refused = issuer.redeem(code, &device(1), NOW).await;
        assert_eq!(
            refused.unwrap_err(),
            IssuerError::UnknownInvite,
            "{damaged}"
        );
    }
}

#[tokio::test]
async fn a_removed_device_publishes_nothing_more_even_on_a_link_that_is_still_open() {
    let storage = Storage::in_memory().unwrap();
    let (issuer, directory) = (issuer_in(&storage), Directory::new(storage));
    enrolled(&issuer, "alice", 1).await;
    let (id, alice) = (device(1).thumbprint(), user("alice"));
    let card = |id| VerifiedCard {
        id,
        issued: NOW,
        attested: NOW,
        card: vec![1],
    };
    let prekey = VerifiedPrekey {
        id: 0,
        prekey: vec![0; PREKEY_BYTES],
    };
    // What was enqueued just before the removal is stored just after it.
    let (removed, published, prekeys) = tokio::join!(
        biased;
        directory.remove(&id, None),
        directory.publish_card(&alice, &id, card(1)),
        directory.publish_prekeys(&id, vec![prekey]),
    );
    assert_eq!(removed, Ok(Some(alice.clone())));
    assert_eq!(published, Err(PublishError::Removed));
    assert_eq!(prekeys, Err(PublishError::Removed));
    assert_eq!(directory.devices(&alice, NOW), Ok(vec![]));
    assert_eq!(directory.published(&id).map(|state| state.prekeys), Ok(0));
}
