//! `sealwire demo`, run as anybody would run it.
#![expect(
    clippy::unwrap_used,
    reason = "all of this is test code, also what is not marked as a test"
)]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

#[test]
fn demo_checks_everything_it_shows_and_leaves_nothing_behind() {
    let temporary = tempfile::tempdir().unwrap();
    let output = demo(&[], temporary.path());
    let (stdout, stderr) = text(&output);
    assert_eq!(output.status.code(), Some(0), "{stdout}\n{stderr}");
    let ticks = stdout.matches("✓ ").count();
    assert!(ticks >= 10, "{stdout}");
    assert!(
        stdout.ends_with(&format!("\n{ticks} of {ticks} checks held.\n")),
        "{stdout}"
    );
    assert!(!stdout.contains('✗'), "{stdout}");
    assert!(
        !stdout.contains("Ctrl-C"),
        "it ends where there is no terminal: {stdout}"
    );
    assert!(
        !stdout.contains('\u{1b}'),
        "no colours where there is no terminal"
    );
    // How long the directory's path is, is not ours to say.
    let narrow = |line: &str| line.chars().count() <= 80 || line.contains("sealwire-demo-");
    assert!(stdout.lines().all(narrow), "{stdout}");
    assert_eq!(stderr, "");
    assert_eq!(
        std::fs::read_dir(temporary.path()).unwrap().count(),
        0,
        "the directory is removed"
    );
}

#[test]
fn demo_says_each_step_in_json() {
    let temporary = tempfile::tempdir().unwrap();
    let output = demo(&["--json"], temporary.path());
    let (stdout, stderr) = text(&output);
    assert_eq!(output.status.code(), Some(0), "{stdout}\n{stderr}");
    let steps: Vec<Value> = stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let of = |kind: &str| {
        steps
            .iter()
            .filter(|step| step["step"] == kind)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (
            of("relay").len(),
            of("joined").len(),
            of("crash").len(),
            of("message").len(),
            of("end").len()
        ),
        (1, 2, 1, 3, 1)
    );
    let crash = of("crash")[0];
    for (member, count) in [
        ("written", 100),
        ("accepted", 100),
        ("received", 100),
        ("lost", 0),
        ("twice", 0),
    ] {
        assert_eq!(crash[member], count, "{member}");
    }
    for message in of("message") {
        assert_eq!(message["written"], message["read"]);
    }
    let held: Vec<_> = of("message")
        .into_iter()
        .filter(|message| !message["relay_held"].is_null())
        .collect();
    assert_eq!(
        held.len(),
        1,
        "one message was written to somebody who was away"
    );
    assert!(held[0]["relay_held"]["message"].as_str().unwrap().len() > 100);
    let checks = of("check");
    assert!(checks.iter().all(|check| check["ok"] == true), "{stdout}");
    let end = of("end")[0];
    assert_eq!(
        (&end["ok"], end["checks"].as_u64()),
        (&Value::Bool(true), Some(checks.len() as u64))
    );
    assert_eq!(
        steps.len(),
        1 + 2 + 1 + 3 + checks.len() + 1,
        "and nothing else"
    );
}

#[test]
fn demo_that_cannot_begin_fails() {
    let temporary = tempfile::tempdir().unwrap();
    let output = demo(&[], &temporary.path().join("missing"));
    let (stdout, stderr) = text(&output);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stdout, "");
    assert!(stderr.contains("set TMPDIR"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn demo_takes_no_arguments() {
    let temporary = tempfile::tempdir().unwrap();
    assert_eq!(demo(&["alice"], temporary.path()).status.code(), Some(2));
}

fn demo(arguments: &[&str], temporary: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sealwire"))
        .arg("demo")
        .args(arguments)
        .env_clear()
        .env("TMPDIR", temporary)
        // Of a relay that is somebody else's; a relay that saw it would refuse to run.
        .env("SEALWIRE_RELAY_NOT_A_SETTING", "1")
        .output()
        .unwrap()
}

fn text(output: &Output) -> (String, String) {
    let text = |bytes: &Vec<u8>| String::from_utf8(bytes.clone()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}
