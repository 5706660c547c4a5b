//! Measures a large file through real processes: a relay, a sender and a receiver, each `sealwire` itself, with TLS on loopback and real disks.
//!
//! ```sh
//! cargo build --release -p sealwire
//! cargo run --release -p sealwire-tests --bin large_file -- --size 2GiB [--passphrase]
//! ```
//! It prints how long each step took and the most memory that each process had resident (`VmHWM` of Linux), until the file begins to move and from then
//! on, and ends with 1 if sender or receiver had 64 MiB or more, or the file did not arrive as it was. With --passphrase their stores are opened by
//! one, and what that takes by itself (64 MiB, for Argon2id) is shown and not judged. It needs three times the file's size on the disk of the
//! temporary directory, and leaves nothing there.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a measurement that cannot be made has failed"
)]

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

/// What sender and receiver may have resident.
const LIMIT_KIB: u64 = 64 << 10;
/// Bytes of the file written or compared at a time.
const PIECE: usize = 1 << 20;

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let all = arguments.len();
    arguments.retain(|argument| argument != "--passphrase");
    let passphrase = arguments.len() < all;
    let Some(size) = size(&arguments) else {
        eprintln!("usage: large_file [--size N | NMiB | NGiB] [--passphrase]");
        return ExitCode::from(2);
    };
    let folder = tempfile::tempdir().unwrap();
    let world = World {
        folder: folder.path().to_owned(),
        command: command(),
        passphrase,
    };
    let measured = world.measure(size);
    println!("| process | time | rate | most memory resident before the file moves | and then |");
    println!("| --- | --- | --- | --- | --- |");
    for step in &measured {
        println!(
            "| {} | {} | {} | {} | {:.1} MiB |",
            step.process,
            step.time
                .map_or("–".into(), |time| format!("{:.1} s", time.as_secs_f64())),
            step.time.map_or("–".into(), |time| rate(size, time)),
            step.opening_kib
                .map_or("–".into(), |kib| format!("{:.1} MiB", mib(kib << 10))),
            mib(step.resident_kib << 10)
        );
    }
    let judged = |step: &&Step| step.process != "relay";
    let within = measured.iter().filter(judged).all(|step| {
        let opening = step.opening_kib.filter(|_| !passphrase);
        step.resident_kib.max(opening.unwrap_or(0)) < LIMIT_KIB
    });
    println!(
        "\n{:.0} MiB; sender and receiver below 64 MiB: {}",
        mib(size),
        if within { "yes" } else { "no" }
    );
    if within {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// What one process did.
struct Step {
    process: &'static str,
    time: Option<Duration>,
    /// The most until the file began to move.
    opening_kib: Option<u64>,
    /// The most from then on, or ever.
    resident_kib: u64,
}

struct World {
    folder: PathBuf,
    command: PathBuf,
    passphrase: bool,
}

impl World {
    fn measure(&self, size: u64) -> Vec<Step> {
        write_file(&self.folder.join("large.bin"), size);
        fs::create_dir(self.folder.join("got")).unwrap();
        fs::write(self.folder.join("passphrase"), "four words by chance\n").unwrap();
        self.run(&["relay", "init", "relay"]);
        let mut relay = Process::start(&mut self.sealwire(&[
            "relay",
            "run",
            "--data",
            "relay",
            "--listen",
            "127.0.0.1:0",
            "--json",
        ]));
        relay.line();
        for user in ["alice", "bob"] {
            let line = self.run(&["invite", user, "--data", "relay"]);
            let mut joining = self.sealwire(&["join", "--home", user]);
            let mut joining = self
                .unlocked(&mut joining)
                .stdin(Stdio::piped())
                .spawn()
                .unwrap();
            joining
                .stdin
                .take()
                .unwrap()
                .write_all(line.as_bytes())
                .unwrap();
            assert!(joining.wait().unwrap().success());
        }
        let sender = self.step(
            "sender",
            &["--home", "alice", "send", "bob", "--file", "large.bin"],
        );
        let receiver = self.step(
            "receiver",
            &["--home", "bob", "listen", "--save", "got", "--count", "1"],
        );
        compare(
            &self.folder.join("large.bin"),
            &self.folder.join("got/large.bin"),
        );
        let resident_kib = relay.look();
        relay.child.kill().unwrap();
        relay.child.wait().unwrap();
        let relay = Step {
            process: "relay",
            time: None,
            opening_kib: None,
            resident_kib,
        };
        vec![sender, receiver, relay]
    }

    fn sealwire(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.command);
        command
            .args(arguments)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        command
    }

    /// With what opens the store.
    fn unlocked<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        match self.passphrase {
            true => command.args(["--passphrase-file", "passphrase"]),
            false => command,
        }
    }

    /// What a command prints.
    fn run(&self, arguments: &[&str]) -> String {
        let output = self.sealwire(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command and watches its memory.
    fn step(&self, process: &'static str, arguments: &[&str]) -> Step {
        let begun = Instant::now();
        let mut command = self.sealwire(&[arguments, &["--json"]].concat());
        let mut running = Process::start(self.unlocked(&mut command).stderr(Stdio::piped()));
        let moves = running.first_progress();
        let (mut opening_kib, mut resident_kib) = (None, 0);
        let status = loop {
            resident_kib = resident_kib.max(running.look());
            if moves.try_recv().is_ok() {
                opening_kib = Some(std::mem::take(&mut resident_kib));
                running.forget_peak();
            }
            match running.child.try_wait().unwrap() {
                Some(status) => break status,
                // Its peak is kept by the system: only what comes after the last look is missed.
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        assert!(status.success(), "{arguments:?}");
        Step {
            process,
            time: Some(begun.elapsed()),
            opening_kib,
            resident_kib,
        }
    }
}

struct Process {
    child: Child,
}

/// Nothing that was started here outlives it.
impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    fn start(command: &mut Command) -> Self {
        Self {
            child: command.spawn().unwrap(),
        }
    }

    /// Waits for a line of its output.
    fn line(&mut self) {
        let mut line = String::new();
        let mut output = BufReader::new(self.child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        // What it says later is thrown away, but has somewhere to go.
        std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
    }

    /// Says when a file begins to move.
    fn first_progress(&mut self) -> mpsc::Receiver<()> {
        let errors = BufReader::new(self.child.stderr.take().unwrap());
        let (says, moves) = mpsc::channel();
        std::thread::spawn(move || {
            let mut says = Some(says);
            for line in errors.lines().map_while(Result::ok) {
                if !line.contains(r#""event":"progress""#) {
                    eprintln!("{line}");
                } else if let Some(says) = says.take() {
                    // Nobody listens any more if it is over.
                    let _ = says.send(());
                }
            }
        });
        moves
    }

    /// Lets the system count its peak anew, from what it has resident now.
    fn forget_peak(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").unwrap();
    }

    /// The most memory it has had resident so far, in KiB; 0 if it is gone.
    fn look(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|peak| peak.trim().strip_suffix(" kB"));
        peak.map_or(0, |peak| peak.trim().parse().unwrap())
    }
}

/// The command, built beside this program.
fn command() -> PathBuf {
    let command = std::env::current_exe().unwrap().with_file_name("sealwire");
    assert!(
        command.exists(),
        "build the command first: cargo build --release -p sealwire"
    );
    command
}

/// From the arguments: 2 GiB unless they say otherwise.
fn size(arguments: &[String]) -> Option<u64> {
    let text = match arguments {
        [] => "2GiB",
        [name, size] if name == "--size" => size,
        _ => return None,
    };
    let (number, shift) = match (text.strip_suffix("GiB"), text.strip_suffix("MiB")) {
        (Some(number), _) => (number, 30),
        (_, Some(number)) => (number, 20),
        _ => (text, 0),
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

fn write_file(path: &Path, size: u64) {
    let mut rng = StdRng::seed_from_u64(size);
    let mut file = File::create(path).unwrap();
    let mut piece = vec![0; PIECE];
    let mut left = size;
    while left > 0 {
        let length = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        rng.fill_bytes(&mut piece[..length]);
        file.write_all(&piece[..length]).unwrap();
        left -= length as u64;
    }
}

fn compare(one: &Path, other: &Path) {
    let open = |path| BufReader::with_capacity(PIECE, File::open(path).unwrap());
    let (mut one, mut other) = (open(one), open(other));
    let (mut left, mut right) = (vec![0; PIECE], vec![0; PIECE]);
    loop {
        let read = one.read(&mut left).unwrap();
        if read == 0 {
            assert_eq!(other.read(&mut right).unwrap(), 0, "too long");
            return;
        }
        other.read_exact(&mut right[..read]).unwrap();
        if left[..read] != right[..read] {
            panic!("the file did not arrive as it was");
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "for a table")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn rate(bytes: u64, time: Duration) -> String {
    format!("{:.0} MiB/s", mib(bytes) / time.as_secs_f64())
}
