//! The commands that need no relay, run as a user runs them: results, exit codes, and what never shows up.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;

/// A directory of its own, which is also the working directory of the commands.
struct Shell {
    directory: tempfile::TempDir,
}

impl Shell {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn run_with(&self, input: &[u8], arguments: &[&str]) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sealwire"))
            .args(arguments)
            .current_dir(self.directory.path())
            .env("SEALWIRE_HOME", self.path("home"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that refuses its arguments does not read.
        let _ = child.stdin.take().unwrap().write_all(input);
        child.wait_with_output().unwrap()
    }

    /// Standard output of a command that has to succeed, without its last line break.
    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run_with(b"", arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let text = String::from_utf8(output.stdout).unwrap();
        text.strip_suffix('\n').unwrap_or(&text).to_owned()
    }

    fn save(&self, name: &str, arguments: &[&str]) {
        fs::write(self.path(name), self.ok(arguments)).unwrap();
    }

    /// The exit code and the one line on standard error of a command that has to fail and to print nothing.
    fn fails(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.run_with(b"", arguments);
        assert_eq!(output.stdout, b"", "{arguments:?}");
        let error = String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap(), error)
    }

    /// The same, where the error has to be one line.
    fn refused(&self, arguments: &[&str], code: i32, says: &str) {
        let (exit, error) = self.fails(arguments);
        assert_eq!(exit, code, "{arguments:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(
            error.starts_with("sealwire: ") && error.contains(says),
            "{error}"
        );
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A shell with an issuer's key and its key set, and the thumbprint of a device.
fn with_issuer() -> (Shell, String) {
    let shell = Shell::new();
    shell.ok(&["jwk", "new", "-o", "issuer.jwk"]);
    shell.save("jwks.json", &["jwk", "public", "--set", "issuer.jwk"]);
    let device = shell.ok(&["jwk", "thumbprint", "issuer.jwk"]);
    (shell, device)
}

fn mint(device: &str) -> Vec<&str> {
    vec![
        "token",
        "mint",
        "--key",
        "issuer.jwk",
        "--iss",
        "i",
        "--aud",
        "a",
        "--sub",
        "alice",
        "--device",
        device,
    ]
}

const VERIFY: [&str; 8] = [
    "token",
    "verify",
    "--keys",
    "jwks.json",
    "--iss",
    "i",
    "--aud",
    "a",
];

#[test]
fn token_is_minted_verified_and_inspected() {
    let (shell, device) = with_issuer();
    shell.save(
        "token.jwt",
        &[mint(&device), vec!["--scope", "sealwire:send"]].concat(),
    );
    let shown = json(&shell.ok(&[&VERIFY[..], &["--json", "token.jwt"]].concat()));
    assert_eq!(
        (
            &shown["valid"],
            &shown["sub"],
            &shown["permissions"]["send"]
        ),
        (&true.into(), &"alice".into(), &true.into())
    );
    assert_eq!(shown["device"], device.as_str());
    let inspected = json(&shell.ok(&["token", "inspect", "--json", "token.jwt"]));
    assert_eq!(
        (&inspected["verified"], &inspected["claims"]["cnf"]["jkt"]),
        (&false.into(), &device.as_str().into())
    );
    // From standard input, with the line break that a terminal adds.
    let token = [fs::read(shell.path("token.jwt")).unwrap(), b"\n".to_vec()].concat();
    assert!(shell.run_with(&token, &VERIFY).status.success());
}

#[test]
fn attestation_is_minted_and_verified_as_one() {
    let (shell, device) = with_issuer();
    shell.save("att.jwt", &[mint(&device), vec!["--attestation"]].concat());
    shell.ok(&[&VERIFY[..], &["--attestation", "att.jwt"]].concat());
    shell.refused(&[&VERIFY[..], &["att.jwt"]].concat(), 3, "another type");
}

/// One thumbprint in 64 looks like an option.
#[test]
fn thumbprint_that_begins_with_a_hyphen_is_taken() {
    let (shell, _) = with_issuer();
    let device = "-hASg94OXarpNasMragejFc7CjFY5azY5q5JkZGEDGs";
    shell.save("token.jwt", &mint(device));
    let shown = json(&shell.ok(&[&VERIFY[..], &["--json", "token.jwt"]].concat()));
    assert_eq!(shown["device"], device);
}

/// docs/protocol.md §2.2, and exit code 3 for every token that is not good.
#[test]
fn token_that_is_not_good_is_refused_with_exit_code_3() {
    let (shell, device) = with_issuer();
    shell.save("token.jwt", &mint(&device));
    let verify = |changes: [&'static str; 4]| {
        [
            &["token", "verify", "--keys", "jwks.json"][..],
            &changes,
            &["token.jwt"],
        ]
        .concat()
    };
    shell.refused(&verify(["--iss", "other", "--aud", "a"]), 3, "iss");
    shell.refused(&verify(["--iss", "i", "--aud", "other"]), 3, "aud");
    shell.refused(
        &[&VERIFY[..], &["--at", "4000000000", "token.jwt"]].concat(),
        3,
        "exp",
    );
    shell.refused(
        &[&VERIFY[..], &["--at", "1000000000", "token.jwt"]].concat(),
        3,
        "iat",
    );
    fs::write(shell.path("bad.jwt"), "a.b").unwrap();
    shell.refused(&[&VERIFY[..], &["bad.jwt"]].concat(), 3, "three parts");
    // Somebody else's key under the same name.
    shell.ok(&["jwk", "new", "--kid", device.as_str(), "-o", "other.jwk"]);
    shell.save("jwks.json", &["jwk", "public", "--set", "other.jwk"]);
    shell.refused(&[&VERIFY[..], &["token.jwt"]].concat(), 3, "signature");
}

#[test]
fn error_is_one_json_object_when_json_was_asked_for() {
    let (shell, device) = with_issuer();
    shell.save("token.jwt", &mint(&device));
    let cases: [(&[&str], i32, &str); 3] = [
        (
            &[
                "--json",
                "token",
                "verify",
                "--keys",
                "jwks.json",
                "--iss",
                "x",
                "--aud",
                "a",
                "token.jwt",
            ],
            3,
            "not_authorised",
        ),
        (&["--json", "jwk", "thumbprint", "missing"], 1, "failed"),
        (&["--json", "token", "verify"], 2, "usage"),
    ];
    for (arguments, exit, code) in cases {
        let (status, error) = shell.fails(arguments);
        assert_eq!((status, error.lines().count()), (exit, 1), "{error}");
        let error = json(&error);
        assert_eq!(error["error"]["code"], code);
        assert!(error["error"]["message"].as_str().unwrap().len() > 10);
    }
}

#[test]
fn every_algorithm_is_minted_and_verified() {
    let (shell, device) = with_issuer();
    for (kind, algorithm) in [
        ("ed25519", "EdDSA"),
        ("p256", "ES256"),
        ("p384", "ES384"),
        ("rsa2048", "PS256"),
        ("rsa2048", "RS256"),
        ("oct", "HS256"),
    ] {
        shell.ok(&[
            "jwk",
            "new",
            "--type",
            kind,
            "--alg",
            algorithm,
            "--force",
            "-o",
            "issuer.jwk",
        ]);
        shell.save("token.jwt", &mint(&device));
        let header = &json(&shell.ok(&["token", "inspect", "--json", "token.jwt"]))["header"];
        assert_eq!(header["alg"], algorithm);
        let verify = |keys: [&'static str; 2]| {
            [
                &["token", "verify", "--iss", "i", "--aud", "a"][..],
                &keys,
                &["token.jwt"],
            ]
            .concat()
        };
        if kind == "oct" {
            shell.ok(&verify(["--secret", "issuer.jwk"]));
            shell.refused(&verify(["--keys", "issuer.jwk"]), 1, "private key");
        } else {
            shell.save("jwks.json", &["jwk", "public", "issuer.jwk"]);
            shell.ok(&verify(["--keys", "jwks.json"]));
            shell.refused(
                &verify(["--secret", "issuer.jwk"]),
                1,
                "not for this algorithm",
            );
            // A key set that has nothing for what is allowed.
            let other = if algorithm == "ES256" {
                "EdDSA"
            } else {
                "ES256"
            };
            shell.refused(
                &[verify(["--keys", "jwks.json"]), vec!["--alg", other]].concat(),
                1,
                "allowed algorithms",
            );
        }
    }
}

#[test]
fn private_key_file_is_its_owner_s_and_is_not_replaced() {
    let shell = Shell::new();
    let shown = shell.ok(&["jwk", "new", "-o", "key.jwk"]);
    assert_eq!(mode(&shell.path("key.jwk")), 0o600);
    let key = fs::read_to_string(shell.path("key.jwk")).unwrap();
    let secret = json(&key)["d"].as_str().unwrap().to_owned();
    assert!(
        !shown.contains(&secret),
        "the result is about the key, not the key"
    );
    shell.refused(&["jwk", "new", "-o", "key.jwk"], 1, "--force");
    assert_eq!(fs::read_to_string(shell.path("key.jwk")).unwrap(), key);
    shell.ok(&["jwk", "new", "-o", "key.jwk", "--force"]);
    assert_ne!(fs::read_to_string(shell.path("key.jwk")).unwrap(), key);
    shell.refused(
        &["jwk", "new", "-o", "missing/key.jwk"],
        1,
        "missing/key.jwk",
    );
    let public = shell.ok(&["jwk", "public", "key.jwk"]);
    assert_eq!(json(&public).get("d"), None);
}

#[test]
fn key_goes_to_standard_output_only_when_asked() {
    let shell = Shell::new();
    let (code, _) = shell.fails(&["jwk", "new"]);
    assert_eq!(code, 2);
    let key = shell.ok(&["jwk", "new", "--type", "x25519", "-o", "-"]);
    assert_eq!(json(&key)["crv"], "X25519");
    assert!(json(&key)["d"].is_string());
}

#[test]
fn wrong_keys_are_refused_with_what_is_wrong() {
    let shell = Shell::new();
    shell.ok(&["jwk", "new", "--type", "oct", "-o", "secret.jwk"]);
    shell.refused(&["jwk", "public", "secret.jwk"], 1, "no public part");
    shell.refused(
        &["jwk", "new", "--type", "p256", "--alg", "ES384", "-o", "k"],
        2,
        "ES384",
    );
    fs::write(shell.path("junk"), "{").unwrap();
    shell.refused(&["jwk", "public", "junk"], 1, "junk");
    fs::write(shell.path("big"), vec![b' '; 70_000]).unwrap();
    shell.refused(&["jwk", "thumbprint", "big"], 1, "65536");
    shell.ok(&["jwk", "new", "--type", "x25519", "-o", "x.jwk"]);
    fs::write(shell.path("claims"), "{}").unwrap();
    shell.refused(
        &["token", "mint", "--key", "x.jwk", "--claims", "claims"],
        1,
        "x.jwk",
    );
    fs::write(shell.path("short"), "too short").unwrap();
    shell.refused(
        &[
            "token", "verify", "--secret", "short", "--iss", "i", "--aud", "a",
        ],
        1,
        "32",
    );
}

/// docs/protocol.md §2.1: whole seconds, and strict JSON.
#[test]
fn claims_that_cannot_be_signed_are_refused() {
    let (shell, device) = with_issuer();
    let claims = ["token", "mint", "--key", "issuer.jwk", "--claims", "claims"];
    for (text, says) in [
        ("[]", "object"),
        (r#"{"exp":1.5}"#, "exp"),
        (r#"{"a":1,"a":1}"#, "same name"),
    ] {
        fs::write(shell.path("claims"), text).unwrap();
        shell.refused(&claims, 1, says);
    }
    let mut long = mint(&device);
    let user = "u".repeat(256);
    long[9] = &user;
    shell.refused(&long, 1, "255");
    // From a file anything is signed, but not silently.
    fs::write(shell.path("claims"), r#"{"sub":"alice"}"#).unwrap();
    let output = shell.run_with(b"", &claims);
    assert!(output.status.success());
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("will refuse this token")
    );
}

/// docs/protocol.md §10
#[test]
fn jwe_is_sealed_and_opened() {
    let shell = Shell::new();
    shell.ok(&["jwk", "new", "--type", "x25519", "-o", "inbox.jwk"]);
    shell.save("inbox.pub", &["jwk", "public", "inbox.jwk"]);
    let plaintext = b"\x00raw \xff bytes\n";
    let sealed = shell.run_with(
        plaintext,
        &["jwe", "seal", "--to", "inbox.pub", "--cty", "x/y"],
    );
    fs::write(shell.path("m.jwe"), sealed.stdout).unwrap();
    let opened = shell.run_with(b"", &["jwe", "open", "--key", "inbox.jwk", "m.jwe"]);
    assert_eq!(opened.stdout, plaintext);
    let shown = json(&shell.ok(&["jwe", "open", "--json", "--key", "inbox.jwk", "m.jwe"]));
    assert_eq!(
        (&shown["base64url"], &shown["header"]["cty"]),
        (&"AHJhdyD_IGJ5dGVzCg".into(), &"x/y".into())
    );
    shell.ok(&["jwe", "open", "--key", "inbox.jwk", "-o", "out", "m.jwe"]);
    assert_eq!(
        (
            fs::read(shell.path("out")).unwrap().as_slice(),
            mode(&shell.path("out"))
        ),
        (&plaintext[..], 0o600)
    );
    let inspected = json(&shell.ok(&["inspect", "--json", "m.jwe"]));
    assert_eq!(
        (&inspected["form"], &inspected["header"]["alg"]),
        (&"jwe".into(), &"ECDH-ES+A256KW".into())
    );
}

#[test]
fn jwe_that_does_not_open_is_refused() {
    let shell = Shell::new();
    for name in ["inbox.jwk", "other.jwk"] {
        shell.ok(&["jwk", "new", "--type", "x25519", "-o", name]);
    }
    shell.ok(&["jwk", "new", "-o", "ed.jwk"]);
    let sealed = shell
        .run_with(b"hello", &["jwe", "seal", "--to", "inbox.jwk"])
        .stdout;
    fs::write(shell.path("m.jwe"), &sealed).unwrap();
    shell.refused(
        &["jwe", "open", "--key", "other.jwk", "m.jwe"],
        1,
        "does not open",
    );
    shell.refused(&["jwe", "open", "--key", "ed.jwk", "m.jwe"], 1, "X25519");
    // Not the tag's last character but one before it, so that the encoding stays canonical.
    let text = String::from_utf8(sealed).unwrap();
    fs::write(shell.path("short.jwe"), &text[..text.len() - 3]).unwrap();
    shell.refused(
        &["jwe", "open", "--key", "inbox.jwk", "short.jwe"],
        1,
        "16 bytes",
    );
    shell.refused(
        &["jwe", "seal", "--to", "ed.jwk", "m.jwe"],
        1,
        "does not fit",
    );
    // Without --key it is the device's own, and there is no device.
    shell.refused(&["jwe", "open", "m.jwe"], 3, "join");
}

#[test]
fn jwe_by_other_libraries_opens() {
    let shell = Shell::new();
    let vectors = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../jose/vectors/jwe_by_others.json"
    );
    for vector in json(&fs::read_to_string(vectors).unwrap())
        .as_array()
        .unwrap()
    {
        fs::write(shell.path("key.jwk"), vector["jwk"].to_string()).unwrap();
        fs::write(shell.path("m.jwe"), vector["jwe"].as_str().unwrap()).unwrap();
        assert_eq!(
            shell.ok(&["jwe", "open", "--key", "key.jwk", "m.jwe"]),
            vector["plaintext"].as_str().unwrap()
        );
    }
}

/// docs/protocol.md §9: each form of the same message shows the same.
#[test]
fn sealed_message_is_inspected_in_each_form() {
    use sealwire_e2e::message::{self, Header, MessageKey, ProtectedHeader, SealedMessage};
    use sealwire_protocol::{base64url, crypto::Secret};
    let shell = Shell::new();
    let header = Header {
        session: [6; 16],
        ratchet_key: [9; 32],
        pn: 8,
        n: 7,
        first: None,
    };
    let key = MessageKey::new(Secret::take(&mut [1; 32]));
    let binary = message::seal(
        &header,
        key,
        [2; 12],
        b"secret content",
        &mut ProtectedHeader::new(),
    )
    .unwrap();
    let jwe = SealedMessage::decode(&binary).unwrap().to_jwe();
    let text = base64url::encode(&binary);
    for (form, input) in [
        ("binary", binary.as_slice()),
        ("binary", text.as_bytes()),
        ("jwe", jwe.as_bytes()),
    ] {
        let output = shell.run_with(input, &["inspect", "--json"]);
        let shown = json(std::str::from_utf8(&output.stdout).unwrap());
        assert_eq!(
            (
                &shown["form"],
                &shown["given_as"],
                &shown["n"],
                &shown["pn"]
            ),
            (&"sealed".into(), &form.into(), &7.into(), &8.into())
        );
        assert_eq!(shown["session"], base64url::encode(&[6; 16]));
    }
}

#[test]
fn what_cannot_be_inspected_is_refused() {
    let shell = Shell::new();
    for (input, says) in [
        (&b""[..], "nothing"),
        (b"hello world", "neither"),
        (b"\x01\x00\x00", "ends"),
        (b"\x02", "version"),
        (b"a.b.c", "not a JWT"),
        (b"a.b.c.d.e", "JWE"),
        (b"e30.e30.AAA=", "base64url"),
    ] {
        let output = shell.run_with(input, &["inspect"]);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{input:?}");
        assert!(
            error.contains(says) && error.lines().count() == 1,
            "{input:?}: {error}"
        );
    }
}

/// What others wrote never commands the terminal it is shown on.
#[test]
fn control_characters_of_others_are_escaped() {
    let (shell, _) = with_issuer();
    fs::write(
        shell.path("claims"),
        "{\"sub\":\"\\u001b[2J\\u009b31m\\u202e\"}",
    )
    .unwrap();
    shell.save(
        "token.jwt",
        &["token", "mint", "--key", "issuer.jwk", "--claims", "claims"],
    );
    let shown = shell.ok(&["token", "inspect", "token.jwt"]);
    assert!(
        shown
            .chars()
            .all(|c| c == '\n' || !c.is_control() && c != '\u{202e}'),
        "{shown:?}"
    );
}
