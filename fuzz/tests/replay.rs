//! Replays every seed and regression through the functions that libFuzzer drives.

use std::{fs, path::Path};

type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 5] = [
    ("frames", sealwire_fuzz::frames),
    ("jws", sealwire_fuzz::jws),
    ("sealed_message", sealwire_fuzz::sealed_message),
    ("link_handshake", sealwire_fuzz::link_handshake),
    ("ratchet", sealwire_fuzz::ratchet),
];

fn files(folder: &str, target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(folder)
        .join(target);
    let Ok(entries) = fs::read_dir(&folder) else {
        return Vec::new();
    };
    entries
        .map(|entry| entry.expect("a readable folder").path())
        .map(|path| {
            (
                path.display().to_string(),
                fs::read(&path).expect("a readable seed"),
            )
        })
        .collect()
}

#[test]
fn seeds_and_regressions_do_not_panic() {
    for (target, run) in TARGETS {
        let seeds = files("seeds", target);
        assert!(seeds.len() >= 3, "{target} has only {} seeds", seeds.len());
        for (path, data) in seeds.into_iter().chain(files("regressions", target)) {
            eprintln!("{path}");
            run(&data);
        }
    }
}

/// Every seed cut short, extended and with one byte flipped at up to 64 places: a small, repeatable fuzz run.
#[test]
fn damaged_seeds_do_not_panic() {
    for (target, run) in TARGETS {
        for (_, data) in files("seeds", target) {
            let step = (data.len() / 64).max(1);
            for at in (0..data.len()).step_by(step) {
                run(&data[..at]);
                let mut flipped = data.clone();
                flipped[at] ^= 0x41;
                run(&flipped);
            }
            let mut longer = data;
            longer.extend_from_slice(&[0; 3]);
            run(&longer);
        }
    }
}

/// Seeds of another world than the targets' are noise: after a change of what devices say, `make_seeds` has to run again.
#[test]
fn seeds_are_of_this_world() {
    let world = sealwire_fuzz::World::shared();
    for (path, data) in files("seeds", "ratchet") {
        assert!(world.was_sealed(&data), "{path} is out of date");
    }
    for (path, data) in files("seeds", "link_handshake") {
        if data[0] == sealwire_fuzz::AWAITS_FINISH_SECRET {
            assert_eq!(data[1..], world.finish_secret, "{path} is out of date");
        }
    }
}
