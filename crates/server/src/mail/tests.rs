#![allow(
    clippy::cast_possible_truncation,
    clippy::wildcard_enum_match_arm,
    reason = "numbers of a test are small, and what is not expected fails"
)]
mod crashes;
mod faults;
mod faulty;
mod model;
mod rules;
#[cfg(unix)]
mod snapshot;

use sealwire_protocol::limits as protocol_limits;

use super::*;

const NOW: u64 = 1_800_000_000_000;
const LIMITS: MailboxLimits = MailboxLimits {
    messages: 5,
    bytes: 1_000,
    retention_seconds: 3_600,
};
const PLENTY: MailboxLimits = MailboxLimits {
    messages: 100_000,
    bytes: 1 << 30,
    retention_seconds: 3_600,
};
/// The sending device of most tests.
const ALICE: u8 = 0xa1;

fn device(number: u8) -> Thumbprint {
    Thumbprint::from_bytes([number; 32])
}

fn user(name: &str) -> User {
    User::new(name).unwrap()
}

/// Small segments, and everything checked.
fn options() -> MailOptions {
    MailOptions {
        segment_bytes: 8 << 10,
        recent_bytes: 1 << 10,
        queue_bytes: 64 << 10,
        checkpoint_bytes: 24 << 10,
        identity: Some([7; 32]),
        ..MailOptions::default()
    }
}

fn stepped() -> Mailboxes {
    let options = MailOptions {
        segment_bytes: 4 << 20,
        queue_bytes: 4 << 20,
        ..options()
    };
    Mailboxes::open_stepped(Arc::new(MemoryDisk::new()), &options).unwrap()
}

fn parts(of: &[(u8, &[u8])]) -> Vec<(Thumbprint, Bytes)> {
    of.iter()
        .map(|(to, message)| (device(*to), Bytes::copy_from_slice(message)))
        .collect()
}

/// A posting of one message to one device of bob's, from Alice's.
fn post(
    mailboxes: &Mailboxes,
    sequence: u64,
    to: u8,
    message: &[u8],
    limits: MailboxLimits,
) -> Result<Appended, PostError> {
    post_parts(mailboxes, sequence, &[(to, message)], &[], limits)
}

fn post_parts(
    mailboxes: &Mailboxes,
    sequence: u64,
    to: &[(u8, &[u8])],
    copies: &[(u8, &[u8])],
    limits: MailboxLimits,
) -> Result<Appended, PostError> {
    let posting = Posting {
        from_user: &user("alice"),
        from_device: device(ALICE),
        sequence,
        id: id(sequence),
        to_user: &user("bob"),
        parts: parts(to),
        copies: parts(copies),
    };
    mailboxes.append(posting, limits, NOW)
}

fn id(sequence: u64) -> [u8; 16] {
    u128::from(sequence).to_be_bytes()
}

/// Sends one and returns the count of its position in this start of the relay.
fn send(mailboxes: &Mailboxes, sequence: u64, to: u8, message: &[u8]) -> Result<u64, PostError> {
    let appended = post(mailboxes, sequence, to, message, LIMITS)?;
    let (_, position) = appended.positions().next().unwrap();
    Ok(count(position))
}

fn count(position: u64) -> u64 {
    position & ((1 << index::COUNTER_BITS) - 1)
}

fn start_of(position: u64) -> u64 {
    position >> index::COUNTER_BITS
}

fn read_all(mailboxes: &Mailboxes, of: u8) -> Vec<Delivery> {
    mailboxes
        .read(&device(of), 0, usize::MAX, usize::MAX, NOW)
        .unwrap()
        .deliveries
}

fn messages(mailboxes: &Mailboxes, of: u8) -> Vec<Bytes> {
    read_all(mailboxes, of)
        .into_iter()
        .map(|delivery| match delivery {
            Delivery::Mail(mail) => mail.message,
            other => panic!("{other:?}"),
        })
        .collect()
}

fn held(mailboxes: &Mailboxes, of: u8) -> (u64, u64) {
    let status = mailboxes.status(&device(of));
    (status.held_messages, status.held_bytes)
}
