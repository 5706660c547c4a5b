//! A copy of the log, made while it goes on.
use super::*;

const DEVICES: [u8; 3] = [1, 2, 3];

/// What a copy on this disk has: of each device what it says of itself, what waits, and what it has sent.
fn found(mailboxes: &Mailboxes) -> Vec<(MailboxStatus, Vec<Delivery>, u64)> {
    let of = |number: &u8| {
        let device = device(*number);
        let batch = mailboxes.read(&device, 0, 10_000, usize::MAX, NOW).unwrap();
        let status = mailboxes.status(&device);
        (status, batch.deliveries, mailboxes.sent(&device))
    };
    DEVICES.iter().chain(&[ALICE]).map(of).collect()
}

/// What lasts, as a start has a head of its own: acknowledged, waiting, what waits, sent.
type Lasting = Vec<(u64, u64, Vec<Delivery>, u64)>;

fn lasting(found: Vec<(MailboxStatus, Vec<Delivery>, u64)>) -> Lasting {
    let lasting = found
        .into_iter()
        .map(|(status, deliveries, sent)| (status.acknowledged, status.waiting, deliveries, sent));
    lasting.collect()
}

fn copy(snapshot: &MailSnapshot) -> Arc<MemoryDisk> {
    let disk = MemoryDisk::new();
    for file in &snapshot.files {
        let mut bytes = vec![0; usize::try_from(file.bytes).unwrap()];
        file.read(0, &mut bytes).unwrap();
        disk.create(&file.name)
            .unwrap()
            .write_at(0, &bytes)
            .unwrap();
    }
    Arc::new(disk)
}

/// A log that has much behind it, and what a copy of it is to have.
fn log_with_a_copy(at: u64) -> (Arc<MemoryDisk>, Lasting) {
    let mailboxes = Mailboxes::open_stepped(Arc::new(MemoryDisk::new()), &options()).unwrap();
    let post = |sequence: u64| {
        let to = DEVICES[usize::try_from(sequence % 3).unwrap()];
        let mut message = vec![to; 300];
        message[..8].copy_from_slice(&sequence.to_be_bytes());
        post(&mailboxes, sequence, to, &message, PLENTY).unwrap();
    };
    let acknowledge = |number: u8, but: usize| {
        let batch = mailboxes
            .read(&device(number), 0, 10_000, usize::MAX, NOW)
            .unwrap();
        let last = batch.deliveries.len().checked_sub(but + 1);
        if let Some(last) = last.and_then(|last| batch.deliveries.get(last)) {
            mailboxes.acknowledge(&device(number), last.position());
        }
    };
    for sequence in 1..=at {
        post(sequence);
        if sequence % 40 == 0 {
            // One never fetches anything, so that what is left of old segments is copied.
            acknowledge(1, 2);
            acknowledge(2, 0);
        }
        while mailboxes.flush() {}
    }
    let expected = lasting(found(&mailboxes));
    let mut snapshot = mailboxes.snapshot();
    mailboxes.flush();
    let snapshot = snapshot.try_recv().unwrap().unwrap();
    // It goes on, and what the copy needs goes.
    for sequence in at + 1..=at + 200 {
        post(sequence);
        for number in DEVICES {
            acknowledge(number, 0);
        }
        while mailboxes.flush() {}
    }
    (copy(&snapshot), expected)
}

#[test]
fn a_copy_has_what_the_log_had_then_however_it_goes_on() {
    for at in [0, 1, 30, 100, 250, 600] {
        let (disk, expected) = log_with_a_copy(at);
        let copy = Mailboxes::open_stepped(disk, &options()).unwrap();
        assert_eq!(lasting(found(&copy)), expected, "{at}");
        let opened = copy.opened();
        assert_eq!((opened.damaged, opened.torn_bytes), (0, 0), "{at}");
        assert_eq!(opened.start, 2, "{at}");
    }
}

#[test]
fn a_copy_that_lacks_the_end_of_what_was_synced_is_damaged() {
    let (disk, _) = log_with_a_copy(100);
    let mut names = disk.list().unwrap();
    names.retain(|name| name.starts_with("mail-"));
    let last = disk.open(names.iter().max().unwrap()).unwrap();
    last.truncate(last.length().unwrap() - 1).unwrap();
    let copy = Mailboxes::open_stepped(disk, &options()).unwrap();
    assert!(copy.opened().damaged > 0, "{:?}", copy.opened());
}

/// docs/protocol.md §5.2
#[test]
fn a_new_history_has_what_waited_and_nothing_that_was_acknowledged_before() {
    for at in [0, 100, 600] {
        let (disk, expected) = log_with_a_copy(at);
        let before = Mailboxes::open_stepped(copy_of(&disk), &options()).unwrap();
        begin_history(Arc::clone(&disk) as Arc<dyn Disk>).unwrap();
        let damaged = copy_of(&disk);
        let newest = damaged.list().unwrap();
        let newest = newest.iter().filter(|name| name.starts_with("checkpoint"));
        let newest = damaged.open(newest.max().unwrap()).unwrap();
        newest.write_at(30, &[0xff; 4]).unwrap();
        // Also with the last checkpoint but one.
        for (disk, damage) in [(disk, 0), (damaged, 1)] {
            let after = Mailboxes::open_stepped(disk, &options()).unwrap();
            assert_eq!(after.opened().damaged, damage, "{at}");
            assert_ne!(after.epoch(), before.epoch());
            let found = found(&after);
            for (status, deliveries, _) in &found {
                assert!(
                    deliveries
                        .iter()
                        .all(|delivery| delivery.position() <= status.head)
                );
            }
            for ((acknowledged, waiting, deliveries, sent), expected) in
                lasting(found).into_iter().zip(&expected)
            {
                assert_eq!(acknowledged, 0, "{at}");
                assert_eq!(
                    (waiting, deliveries, sent),
                    (expected.1, expected.2.clone(), expected.3)
                );
            }
            // It takes more, behind what waits.
            post(&after, at + 1, 1, b"new", PLENTY).unwrap();
            while after.flush() {}
            let batch = after.read(&device(1), 0, 10_000, usize::MAX, NOW).unwrap();
            assert_eq!(batch.deliveries.len(), expected[0].2.len() + 1);
        }
    }
}

fn copy_of(disk: &MemoryDisk) -> Arc<MemoryDisk> {
    let copy = MemoryDisk::new();
    for name in disk.list().unwrap() {
        let from = disk.open(&name).unwrap();
        let mut bytes = vec![0; usize::try_from(from.length().unwrap()).unwrap()];
        from.read_at(0, &mut bytes).unwrap();
        copy.create(&name).unwrap().write_at(0, &bytes).unwrap();
    }
    Arc::new(copy)
}

#[test]
fn a_log_that_has_ended_gives_no_copy() {
    let mailboxes = Mailboxes::open_stepped(Arc::new(MemoryDisk::new()), &options()).unwrap();
    mailboxes.close();
    assert!(mailboxes.snapshot().try_recv().is_err());
}
