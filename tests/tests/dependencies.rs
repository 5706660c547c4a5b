//! What the crates are made of: the relay cannot decrypt because the code that could is not in it, the two ends do not know each
//! other, and the protocol crates need neither C nor a runtime nor an operating system.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "all of this is test code, also what is not marked as a test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use cargo_metadata::{CargoOpt, Metadata, MetadataCommand, PackageId};

/// Licences that ask for no more than being named.
const PERMISSIVE: [&str; 15] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    // Of data only: the roots of certificates.
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crates that build or find C code, or stand for it.
const C: [&str; 14] = [
    "aws-lc-rs",
    "aws-lc-sys",
    "bindgen",
    "cc",
    "cmake",
    "josekit",
    "nasm-rs",
    "openssl",
    "openssl-src",
    "openssl-sys",
    "pkg-config",
    "ring",
    "rustls",
    "vcpkg",
];
/// Crates that need an executor or a socket.
const RUNTIME: [&str; 8] = [
    "async-std",
    "futures-executor",
    "hyper",
    "mio",
    "smol",
    "socket2",
    "tokio",
    "tokio-tungstenite",
];
/// Crates that fetch randomness or the time by themselves.
const FETCHING: [&str; 6] = [
    "chrono",
    "fastrand",
    "getrandom",
    "rand",
    "time",
    "web-time",
];

#[test]
fn relay_reaches_no_code_that_could_decrypt() {
    assert!(!reach("sealwire-server").contains("sealwire-e2e"));
}

#[test]
fn relay_and_device_do_not_reach_each_other() {
    assert!(!reach("sealwire-server").contains("sealwire-client"));
    assert!(!reach("sealwire-client").contains("sealwire-server"));
}

#[test]
fn device_reaches_neither_josekit_nor_openssl() {
    let reached = reach("sealwire-client");
    for name in [
        "sealwire-jose",
        "josekit",
        "openssl",
        "openssl-sys",
        "openssl-src",
    ] {
        assert!(!reached.contains(name), "{name}");
    }
}

#[test]
fn protocol_reaches_no_other_crate_of_the_workspace() {
    assert_eq!(ours(&reach("sealwire-protocol")), ["sealwire-protocol"]);
    assert_eq!(
        ours(&reach("sealwire-e2e")),
        ["sealwire-e2e", "sealwire-protocol"]
    );
    assert_eq!(
        ours(&reach("sealwire-jose")),
        ["sealwire-jose", "sealwire-protocol"]
    );
}

/// What the tests above do not find has to be what they would find.
#[test]
fn edges_that_are_there_are_found() {
    assert!(reach("sealwire-client").contains("sealwire-e2e"));
    assert!(reach("sealwire-server").contains("sealwire-protocol"));
    assert!(
        reach("sealwire").contains("openssl-sys"),
        "through three crates"
    );
    assert!(
        reach("sealwire-server").contains("tempfile"),
        "a dev-dependency"
    );
    assert!(
        reach("sealwire-client").contains("cc"),
        "a build-dependency of a dependency"
    );
    assert!(tree("sealwire-server").contains("tokio"));
}

#[test]
fn protocol_crates_need_no_c_no_runtime_and_fetch_nothing() {
    for package in ["sealwire-protocol", "sealwire-e2e"] {
        let tree = tree(package);
        assert!(
            tree.contains("zeroize") && tree.contains(package),
            "the tree of {package} was read"
        );
        for name in C.iter().chain(&RUNTIME).chain(&FETCHING) {
            assert!(!tree.contains(*name), "{package} needs {name}");
        }
        for name in &tree {
            assert!(!name.ends_with("-sys"), "{package} needs {name}");
        }
    }
}

/// `cargo run` at the top builds the command with the features that any package of the workspace asks for.
#[test]
fn command_is_built_without_what_only_tests_may_have() {
    let with_features = |edges| {
        let lines = cargo_tree(&["--workspace", "--edges", edges, "--format", "{p} [{f}]"]);
        let ours = lines
            .lines()
            .filter(|line| line.starts_with("sealwire-"))
            .collect::<Vec<_>>()
            .join("\n");
        ["simulation", "audit"].map(|feature| ours.contains(feature))
    };
    assert_eq!(with_features("normal,build"), [false, false]);
    assert_eq!(with_features("normal,build,dev"), [true, true], "found");
}

#[test]
fn every_licence_is_permissive() {
    let metadata = metadata();
    assert!(metadata.packages.len() > 50);
    for package in &metadata.packages {
        let name = format!("{} {}", package.name, package.version);
        let licence = package.license.as_deref();
        let licence = licence.unwrap_or_else(|| panic!("{name} states no licence"));
        assert_eq!(permits(licence), Some(true), "{name} is under {licence:?}");
    }
}

#[test]
fn licence_that_asks_for_more_is_not_permissive() {
    for (expression, permissive) in [
        ("MIT", Some(true)),
        ("MIT/Apache-2.0", Some(true)),
        ("GPL-3.0-only OR MIT", Some(true)),
        ("(MIT OR GPL-2.0-only) AND ISC", Some(true)),
        ("Apache-2.0 WITH LLVM-exception OR GPL-3.0-only", Some(true)),
        ("GPL-3.0-only", Some(false)),
        ("MIT AND GPL-3.0-only", Some(false)),
        // AND binds closer than OR (SPDX 2.3, annex D.4).
        ("GPL-3.0-only AND MIT OR LGPL-2.1-only", Some(false)),
        ("MIT OR MPL-2.0 AND GPL-3.0-only", Some(true)),
        ("(MIT OR ISC) AND AGPL-3.0-only", Some(false)),
        ("GPL-3.0-only WITH LLVM-exception", Some(false)),
        ("MIT WITH Anything", Some(false)),
        ("LicenseRef-proprietary", Some(false)),
        ("", None),
        ("MIT OR", None),
        ("(MIT", None),
        ("MIT)", None),
        ("MIT ISC", None),
    ] {
        assert_eq!(permits(expression), permissive, "{expression:?}");
    }
}

#[test]
fn nothing_needs_a_newer_compiler_than_we_say() {
    let metadata = metadata();
    let ours = metadata.workspace_packages();
    let ours = ours
        .into_iter()
        .map(|package| package.rust_version.as_ref().expect("stated"))
        .min()
        .unwrap();
    for package in &metadata.packages {
        if let Some(theirs) = &package.rust_version {
            assert!(
                theirs <= ours,
                "{} {} needs Rust {theirs}",
                package.name,
                package.version
            );
        }
    }
}

/// Every package that `start` reaches by a normal, build or dev edge, on any platform, with all features of this workspace.
fn reach(start: &str) -> BTreeSet<String> {
    let metadata = metadata();
    let names: BTreeMap<&PackageId, &str> = metadata
        .packages
        .iter()
        .map(|package| (&package.id, package.name.as_str()))
        .collect();
    let nodes = &metadata.resolve.as_ref().expect("resolved").nodes;
    let edges: BTreeMap<&PackageId, Vec<&PackageId>> = nodes
        .iter()
        .map(|node| (&node.id, node.deps.iter().map(|dep| &dep.pkg).collect()))
        .collect();
    let mut waiting: Vec<&PackageId> = names
        .iter()
        .filter(|(_, name)| **name == start)
        .map(|(id, _)| *id)
        .collect();
    assert_eq!(waiting.len(), 1, "there is one {start}");
    let mut seen = BTreeSet::new();
    while let Some(id) = waiting.pop() {
        if seen.insert(id) {
            waiting.extend(edges.get(id).expect("every package is a node"));
        }
    }
    seen.into_iter()
        .map(|id| names.get(id).expect("every package has a name").to_string())
        .collect()
}

fn ours(reached: &BTreeSet<String>) -> Vec<&str> {
    reached
        .iter()
        .map(String::as_str)
        .filter(|name| name.starts_with("sealwire"))
        .collect()
}

/// Nothing is fetched that is there.
fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(WORKSPACE)
        .features(CargoOpt::AllFeatures)
        .other_options(vec!["--locked".to_owned()])
        .exec()
        .expect("cargo metadata --locked")
}

/// What `package` needs to be built by itself without default features, on any platform. `cargo metadata` would mix in the features that the
/// rest of the workspace asks for.
fn tree(package: &str) -> BTreeSet<String> {
    let arguments = ["--no-default-features", "--edges", "normal,build"];
    let target = ["--target", "all", "--format", "{p}", "--package", package];
    cargo_tree(&[&arguments[..], &target].concat())
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

fn cargo_tree(arguments: &[&str]) -> String {
    let always = ["tree", "--locked", "--prefix", "none"];
    let output = Command::new(env!("CARGO"))
        .args(always)
        .args(["--manifest-path", WORKSPACE])
        .args(arguments)
        .output()
        .expect("cargo tree");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

const WORKSPACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");

/// Whether a choice that an SPDX expression leaves is permissive; `None` for what is no expression.
fn permits(expression: &str) -> Option<bool> {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    let permissive = any_of(&mut rest)?;
    rest.is_empty().then_some(permissive)
}

fn any_of(rest: &mut &[&str]) -> Option<bool> {
    let mut permissive = all_of(rest)?;
    while take(rest, "OR") {
        permissive |= all_of(rest)?;
    }
    Some(permissive)
}

fn all_of(rest: &mut &[&str]) -> Option<bool> {
    let mut permissive = one(rest)?;
    while take(rest, "AND") {
        permissive &= one(rest)?;
    }
    Some(permissive)
}

fn one(rest: &mut &[&str]) -> Option<bool> {
    if take(rest, "(") {
        let permissive = any_of(rest)?;
        return take(rest, ")").then_some(permissive);
    }
    let (name, after) = rest.split_first()?;
    if ["AND", "OR", "WITH", ")"].contains(name) {
        return None;
    }
    *rest = after;
    if take(rest, "WITH") {
        let (exception, after) = rest.split_first()?;
        *rest = after;
        return Some(PERMISSIVE.contains(&format!("{name} WITH {exception}").as_str()));
    }
    Some(PERMISSIVE.contains(name))
}

fn take(rest: &mut &[&str], word: &str) -> bool {
    match rest.split_first() {
        Some((first, after)) if *first == word => {
            *rest = after;
            true
        }
        _ => false,
    }
}
