//! Damage, failed syncs, full disks: what is found, what is said, what it costs.
use std::collections::BTreeMap;

use super::faulty::{Crash, FaultyDisk};
use super::*;
use crate::mail::record::{Part, Place, Record};

fn open(disk: &impl Copyable) -> Result<Mailboxes, MailOpenError> {
    Mailboxes::open_stepped(disk.shared(), &options())
}

trait Copyable {
    fn shared(&self) -> Arc<dyn Disk>;
}

impl Copyable for MemoryDisk {
    fn shared(&self) -> Arc<dyn Disk> {
        Arc::new(self.clone())
    }
}

impl Copyable for FaultyDisk {
    fn shared(&self) -> Arc<dyn Disk> {
        Arc::new(self.clone())
    }
}

type Image = BTreeMap<String, Vec<u8>>;

fn image(disk: &dyn Disk) -> Image {
    disk.list()
        .unwrap()
        .into_iter()
        .map(|name| {
            let file = disk.open(&name).unwrap();
            let mut bytes = vec![0; file.length().unwrap() as usize];
            file.read_at(0, &mut bytes).unwrap();
            (name, bytes)
        })
        .collect()
}

fn disk_of(image: &Image) -> MemoryDisk {
    let disk = MemoryDisk::new();
    for (name, bytes) in image {
        disk.create(name).unwrap().write_at(0, bytes).unwrap();
    }
    disk
}

fn segment_names(image: &Image) -> Vec<String> {
    image
        .keys()
        .filter(|name| name.starts_with("mail-"))
        .cloned()
        .collect()
}

/// A log that was closed, with `count` messages for device 1.
fn closed(count: u64) -> Image {
    let disk = MemoryDisk::new();
    let mailboxes = open(&disk).unwrap();
    for sequence in 1..=count {
        send(&mailboxes, sequence, 1, &[sequence as u8; 50]).unwrap();
        mailboxes.flush();
    }
    mailboxes.close();
    image(&disk)
}

/// The same as a crash leaves it, without what makes a closed one certain.
fn crashed(count: u64) -> Image {
    let disk = MemoryDisk::new();
    let mailboxes = open(&disk).unwrap();
    for sequence in 1..=count {
        send(&mailboxes, sequence, 1, &[sequence as u8; 50]).unwrap();
        mailboxes.flush();
    }
    let mut image = image(&disk);
    // Where a disk has set room aside, it is zeros.
    let (_, first) = image.iter_mut().next().unwrap();
    first.resize(8 << 10, 0);
    image
}

/// The same as it is left where the system stops with the relay, and has kept only what was synced.
fn stopped(count: u64) -> Image {
    let mut image = crashed(count);
    image.remove(synced::NAME).unwrap();
    image
}

const RECORD: usize = record::MAIL_BYTES + 5 + 3 + 50;

fn record_at(number: usize) -> usize {
    segment::START as usize + number * RECORD
}

fn served(mailboxes: &Mailboxes) -> (Vec<u8>, Vec<u64>) {
    let mut mail = Vec::new();
    let mut damaged = Vec::new();
    for delivery in read_all(mailboxes, 1) {
        match delivery {
            Delivery::Mail(one) => {
                assert_eq!(one.message, vec![one.message[0]; 50]);
                assert_eq!(one.id, id(one.message[0].into()));
                assert_eq!(count(one.position), u64::from(one.message[0]));
                mail.push(one.message[0]);
            }
            Delivery::Damaged { position } => damaged.push(count(position)),
            Delivery::Undelivered(other) => panic!("{other:?}"),
        }
    }
    (mail, damaged)
}

#[test]
fn a_closed_log_opens_as_it_was() {
    let disk = disk_of(&closed(5));
    let mailboxes = open(&disk).unwrap();
    let opened = mailboxes.opened();
    assert_eq!(
        (opened.damaged, opened.torn_bytes, opened.replayed_bytes),
        (0, 0, 0)
    );
    assert_eq!(opened.start, 2);
    assert_eq!(served(&mailboxes), (vec![1, 2, 3, 4, 5], vec![]));
    assert_eq!(mailboxes.sent(&device(ALICE)), 5);
    assert!(
        post(&mailboxes, 3, 1, b"x", LIMITS)
            .unwrap()
            .is_repetition()
    );
    let full = PostError::Full { device: device(1) };
    assert_eq!(send(&mailboxes, 6, 1, b"x"), Err(full));
}

#[test]
fn every_flipped_bit_of_a_closed_log_is_found_and_never_served() {
    let good = closed(3);
    let mut tried = 0;
    for (name, bytes) in &good {
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut image = good.clone();
                image.get_mut(name).unwrap()[at] ^= 1 << bit;
                tried += 1;
                let Ok(mailboxes) = open(&disk_of(&image)) else {
                    continue;
                };
                assert!(mailboxes.opened().damaged > 0, "{name} {at} {bit}");
                assert_eq!(mailboxes.opened().torn_bytes, 0, "{name} {at} {bit}");
                let (mail, damaged) = served(&mailboxes);
                let mut all: Vec<u64> = mail.into_iter().map(u64::from).collect();
                all.extend(damaged);
                all.sort_unstable();
                assert_eq!(all, [1, 2, 3], "{name} {at} {bit}");
                assert_eq!(mailboxes.opened().start, 2);
            }
        }
    }
    assert!(tried > 8 * 1_900, "{tried}");
}

#[test]
fn every_flipped_bit_of_a_log_whose_process_was_killed_is_found_and_never_served() {
    let good = crashed(3);
    for (name, bytes) in &good {
        let is_segment = segment::parse_name(name).is_some();
        let end = if is_segment {
            record_at(3)
        } else {
            bytes.len()
        };
        for (at, bit) in (0..end).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut image = good.clone();
            image.get_mut(name).unwrap()[at] ^= 1 << bit;
            let mailboxes = open(&disk_of(&image)).unwrap();
            let opened = mailboxes.opened().clone();
            assert_eq!(
                (opened.damaged, opened.torn_bytes),
                (1, 0),
                "{name} {at} {bit}"
            );
            let (mail, damaged) = served(&mailboxes);
            let hit = at.checked_sub(record_at(0)).filter(|_| is_segment);
            let Some(hit) = hit.map(|hit| hit as u64 / RECORD as u64 + 1) else {
                assert_eq!((mail.len(), damaged), (3, vec![]), "{name} {at} {bit}");
                continue;
            };
            assert_eq!(mail.len(), 2, "{at} {bit}");
            assert!(!mail.contains(&(hit as u8)), "{at} {bit}");
            // Whose the last one was is known only if that is not what was hit.
            let is_known = hit < 3 || at >= record_at(3) - 50;
            let expected = if is_known { vec![hit] } else { vec![] };
            assert_eq!(damaged, expected, "{at} {bit}");
        }
    }
}

#[test]
fn every_flipped_bit_of_a_log_whose_system_stopped_is_cut_or_found_and_never_served() {
    let good = stopped(3);
    let name = segment_names(&good).remove(0);
    let bits = (0..record_at(3)).flat_map(|at| (0..8).map(move |bit| (at, bit)));
    for (at, bit) in bits {
        let mut image = good.clone();
        image.get_mut(&name).unwrap()[at] ^= 1 << bit;
        let mailboxes = open(&disk_of(&image)).unwrap();
        let opened = mailboxes.opened().clone();
        let (mail, damaged) = served(&mailboxes);
        if at < segment::START as usize {
            assert_eq!((opened.damaged, mail.len()), (1, 3), "{at} {bit}");
        } else if at < record_at(2) {
            // A later write proves that this one was complete.
            assert_eq!((opened.damaged, opened.torn_bytes), (1, 0), "{at} {bit}");
            assert_eq!(mail.len(), 2, "{at} {bit}");
            let hit = (at - segment::START as usize) / RECORD + 1;
            assert_eq!(damaged, [hit as u64], "{at} {bit}");
        } else {
            // The last write may not have been complete.
            assert_eq!((opened.damaged, mail.len()), (0, 2), "{at} {bit}");
            assert_eq!(opened.torn_bytes, RECORD as u64, "{at} {bit}");
            assert_eq!(damaged, [] as [u64; 0]);
        }
    }
}

#[test]
fn what_a_disk_has_lost_of_what_was_synced_is_damage() {
    let good = crashed(4);
    let name = segment_names(&good).remove(0);
    for cuts in [true, false] {
        for from in record_at(1)..record_at(4) {
            let mut image = good.clone();
            let bytes = image.get_mut(&name).unwrap();
            if cuts {
                bytes.truncate(from);
            } else {
                bytes[from..].fill(0);
            }
            let disk = disk_of(&image);
            for start in 2..4 {
                let mailboxes = open(&disk).unwrap();
                let opened = mailboxes.opened();
                assert_eq!((opened.torn_bytes, opened.start), (0, start), "{from}");
                assert!(opened.damaged > 0, "{from}");
                let whole = (from - segment::START as usize) / RECORD;
                let mail: Vec<u8> = (1..=whole as u8).collect();
                assert_eq!(served(&mailboxes).0, mail, "{from}");
            }
        }
    }
}

#[test]
fn a_log_that_was_cut_anywhere_is_cut_at_a_whole_record() {
    let good = stopped(4);
    let name = segment_names(&good).remove(0);
    for length in segment::START as usize..record_at(4) {
        let mut image = good.clone();
        image.get_mut(&name).unwrap().truncate(length);
        let mailboxes = open(&disk_of(&image)).unwrap();
        let whole = (length - segment::START as usize) / RECORD;
        let expected: Vec<u8> = (1..=whole as u8).collect();
        assert_eq!(served(&mailboxes), (expected, vec![]), "{length}");
        assert_eq!(mailboxes.opened().damaged, 0, "{length}");
        // Another start, and nothing is cut any more.
        mailboxes.close();
    }
}

#[test]
fn what_was_cut_stays_cut() {
    let mut image_before = stopped(3);
    let name = segment_names(&image_before).remove(0);
    image_before.get_mut(&name).unwrap()[record_at(2) + 30] ^= 1;
    let disk = disk_of(&image_before);
    for start in 2..5 {
        let mailboxes = open(&disk).unwrap();
        let opened = mailboxes.opened();
        assert_eq!(opened.torn_bytes > 0, start == 2);
        assert_eq!((opened.damaged, opened.start), (0, start));
        assert_eq!(served(&mailboxes).0, [1, 2]);
    }
}

#[test]
fn a_posting_of_which_a_part_was_torn_goes_whole() {
    let disk = MemoryDisk::new();
    let mailboxes = open(&disk).unwrap();
    send(&mailboxes, 1, 1, &[1; 50]).unwrap();
    mailboxes.flush();
    let three: &[(u8, &[u8])] = &[(1, &[2; 50]), (2, &[2; 50]), (3, &[2; 50])];
    post_parts(&mailboxes, 2, three, &[], LIMITS).unwrap();
    mailboxes.flush();
    let mut image = image(&disk);
    let name = segment_names(&image).remove(0);
    image.remove(synced::NAME).unwrap();
    // The last byte of the last part.
    image.get_mut(&name).unwrap()[record_at(4) - 1] ^= 1;
    let mailboxes = open(&disk_of(&image)).unwrap();
    assert_eq!(served(&mailboxes), (vec![1], vec![]));
    assert_eq!((held(&mailboxes, 2), held(&mailboxes, 3)), ((0, 0), (0, 0)));
    assert_eq!(mailboxes.sent(&device(ALICE)), 1);
    assert_eq!(mailboxes.opened().torn_bytes, 3 * RECORD as u64);
}

#[test]
fn damage_to_one_part_leaves_the_others() {
    let disk = MemoryDisk::new();
    let mailboxes = open(&disk).unwrap();
    let three: &[(u8, &[u8])] = &[(1, &[1; 50]), (2, &[1; 50]), (3, &[1; 50])];
    post_parts(&mailboxes, 1, three, &[], LIMITS).unwrap();
    mailboxes.flush();
    mailboxes.close();
    let mut image = image(&disk);
    let name = segment_names(&image).remove(0);
    image.get_mut(&name).unwrap()[record_at(1) - 1] ^= 1;
    let mailboxes = open(&disk_of(&image)).unwrap();
    assert_eq!(served(&mailboxes), (vec![], vec![1]));
    assert_eq!(messages(&mailboxes, 2), [&[1_u8; 50][..]]);
    assert_eq!(messages(&mailboxes, 3), [&[1_u8; 50][..]]);
}

#[test]
fn damage_while_the_relay_runs_is_found_by_reading() {
    let disk = MemoryDisk::new();
    let mailboxes = Mailboxes::open_stepped(
        Arc::new(disk.clone()),
        &MailOptions {
            recent_bytes: 0,
            ..options()
        },
    )
    .unwrap();
    for sequence in 1..=3 {
        send(&mailboxes, sequence, 1, &[sequence as u8; 50]).unwrap();
    }
    mailboxes.flush();
    assert_eq!(served(&mailboxes), (vec![1, 2, 3], vec![]));
    let name = disk.list().unwrap().remove(0);
    for (at, of) in [(40, 1), (RECORD + 120, 2)] {
        let file = disk.open(&name).unwrap();
        let mut byte = [0];
        file.read_at((record_at(0) + at) as u64, &mut byte).unwrap();
        byte[0] ^= 0x10;
        file.write_at((record_at(0) + at) as u64, &byte).unwrap();
        let expected: Vec<u64> = (1..=of).collect();
        assert_eq!(served(&mailboxes).1, expected);
    }
    assert_eq!(served(&mailboxes).0, [3]);
    // Its sender is told all the same.
    assert_eq!(mailboxes.sweep(NOW + 3_600_000).unwrap().undelivered, 3);
    assert_eq!(read_all(&mailboxes, ALICE).len(), 3);
}

#[test]
fn what_cannot_be_read_does_not_hide_what_lies_before() {
    let disk = FaultyDisk::new();
    let options = MailOptions {
        recent_bytes: 0,
        ..options()
    };
    let mailboxes = Mailboxes::open_stepped(disk.shared(), &options).unwrap();
    for sequence in 1..=4 {
        send(&mailboxes, sequence, 1, &[sequence as u8; 50]).unwrap();
    }
    mailboxes.flush();
    let read = |after| mailboxes.read(&device(1), after, usize::MAX, usize::MAX, NOW);
    let third = record_at(2) as u64;
    disk.fail_reads(third..u64::MAX, usize::MAX);
    let before = read(0).unwrap();
    let positions: Vec<_> = before.deliveries.iter().map(Delivery::position).collect();
    assert_eq!(
        positions.iter().map(|at| count(*at)).collect::<Vec<_>>(),
        [1, 2]
    );
    assert_eq!(before.last, positions[1]);
    assert_eq!(read(before.last).unwrap_err(), StorageError::Unreadable);
    // One failure is asked about again, and a disk that has recovered serves everything.
    disk.fail_reads(third..u64::MAX, 1);
    assert_eq!(served(&mailboxes).0, [1, 2, 3, 4]);
    disk.fail_reads(third..u64::MAX, 2);
    assert_eq!(read(0).unwrap().last, before.last);
    assert_eq!(read(before.last).unwrap().deliveries.len(), 2);
}

/// A mailbox of device 1 whose messages are on the disk only.
fn on_disk(messages: u64) -> (FaultyDisk, Mailboxes) {
    let disk = FaultyDisk::new();
    let options = MailOptions {
        recent_bytes: 0,
        ..options()
    };
    let mailboxes = Mailboxes::open_stepped(disk.shared(), &options).unwrap();
    for sequence in 1..=messages {
        post(&mailboxes, sequence, 1, &[sequence as u8; 50], PLENTY).unwrap();
    }
    mailboxes.flush();
    (disk, mailboxes)
}

/// What device 1 gets over one link: messages, and counts of damaged positions; then whether the link is closed because of the disk.
fn link(mailboxes: &Mailboxes, now_millis: u64) -> (Vec<u8>, Vec<u64>, bool) {
    let (mut mail, mut damaged, mut after) = (Vec::new(), Vec::new(), 0);
    loop {
        let read = mailboxes.read(&device(1), after, usize::MAX, usize::MAX, now_millis);
        // What the disk is asked to write meanwhile.
        mailboxes.flush();
        let batch = match read {
            Ok(batch) if batch.deliveries.is_empty() => return (mail, damaged, false),
            Ok(batch) => batch,
            Err(error) => {
                assert_eq!(error, StorageError::Unreadable);
                return (mail, damaged, true);
            }
        };
        after = batch.last;
        for delivery in batch.deliveries {
            match delivery {
                Delivery::Mail(one) => mail.push(one.message[0]),
                Delivery::Damaged { position } => damaged.push(count(position)),
                Delivery::Undelivered(other) => panic!("{other:?}"),
            }
        }
    }
}

const MINUTES: u64 = 60_000;

fn record(number: usize) -> std::ops::Range<u64> {
    record_at(number) as u64..record_at(number + 1) as u64
}

#[test]
fn mail_that_the_disk_does_not_give_keeps_back_what_follows_only_for_a_while() {
    let (disk, mailboxes) = on_disk(5);
    // Two records in one bad sector.
    disk.fail_reads(record(1).start..record(2).end, usize::MAX);
    let closed = (vec![1], vec![], true);
    for minute in [0, 1, 5, 9] {
        assert_eq!(link(&mailboxes, NOW + minute * MINUTES), closed);
    }
    let delivered = (vec![1, 4, 5], vec![2, 3], false);
    assert_eq!(link(&mailboxes, NOW + 10 * MINUTES), delivered);
    // It stays so, until it is acknowledged.
    assert_eq!(link(&mailboxes, NOW + 11 * MINUTES), delivered);
    let third = mailboxes.status(&device(1)).head - 2;
    mailboxes.acknowledge(&device(1), third);
    assert_eq!(link(&mailboxes, NOW + 12 * MINUTES).0, [4, 5]);
    // Its sender is not told: it was accepted, and its device has been told.
    assert!(read_all(&mailboxes, ALICE).is_empty());
}

#[test]
fn mail_that_the_disk_gives_again_is_delivered() {
    let (disk, mailboxes) = on_disk(3);
    let fails = || disk.fail_reads(record(1), usize::MAX);
    let works = || disk.fail_reads(record(1), 0);
    let (closed, whole) = ((vec![1], vec![], true), (vec![1, 2, 3], vec![], false));
    fails();
    for minute in [0, 5] {
        assert_eq!(link(&mailboxes, NOW + minute * MINUTES), closed);
    }
    works();
    assert_eq!(link(&mailboxes, NOW + 6 * MINUTES), whole);
    // It begins again.
    fails();
    for minute in [20, 25] {
        assert_eq!(link(&mailboxes, NOW + minute * MINUTES), closed);
    }
    let lost = (vec![1, 3], vec![2], false);
    assert_eq!(link(&mailboxes, NOW + 30 * MINUTES), lost);
    // Also when it had been given up.
    works();
    assert_eq!(link(&mailboxes, NOW + 31 * MINUTES), whole);
}

#[test]
fn a_disk_that_has_gone_as_a_whole_costs_no_mail() {
    let (disk, mailboxes) = on_disk(3);
    let nothing = (vec![], vec![], true);
    // Nothing can be read, although it seems to take what is written.
    disk.fail_reads(0..u64::MAX, usize::MAX);
    for minute in 0..100 {
        assert_eq!(link(&mailboxes, NOW + minute * MINUTES), nothing);
    }
    // Nothing is written; what the system had in memory could be read.
    disk.fail_reads(record(0), usize::MAX);
    disk.fail_syncs(true);
    for minute in 100..200 {
        assert_eq!(link(&mailboxes, NOW + minute * MINUTES), nothing);
    }
    assert!(!mailboxes.is_writable());
    disk.fail_reads(0..0, 0);
    assert_eq!(link(&mailboxes, NOW).0, [1, 2, 3]);
}

#[test]
fn nothing_is_given_up_before_something_was_written_again() {
    let (disk, mailboxes) = on_disk(2);
    disk.fail_reads(record(0), usize::MAX);
    let read = |minute: u64| {
        let now = NOW + minute * MINUTES;
        mailboxes.read(&device(1), 0, usize::MAX, usize::MAX, now)
    };
    for minute in 0..30 {
        assert_eq!(read(minute).unwrap_err(), StorageError::Unreadable);
    }
    // What the attempt itself has asked for.
    mailboxes.flush();
    assert_eq!(read(30).unwrap().deliveries.len(), 2);
}

#[test]
fn a_bad_sector_in_mail_that_need_not_be_replayed_keeps_no_log_closed() {
    let (disk, mailboxes) = on_disk(3);
    mailboxes.close();
    disk.fail_reads(record(1), usize::MAX);
    let mailboxes = open(&disk).unwrap();
    assert_eq!(mailboxes.opened().damaged, 1);
    assert_eq!(link(&mailboxes, NOW), (vec![1], vec![], true));
    // Where it has to be replayed, nobody knows what it says.
    let (disk, mailboxes) = on_disk(3);
    drop(mailboxes);
    disk.fail_reads(record(1), usize::MAX);
    assert!(matches!(open(&disk), Err(MailOpenError::Disk(_))));
}

#[test]
fn a_record_in_another_place_is_not_served() {
    let good = closed(3);
    let name = segment_names(&good).remove(0);
    let bytes = &good[&name];
    let (first, second) = (
        bytes[record_at(0)..record_at(1)].to_vec(),
        bytes[record_at(1)..record_at(2)].to_vec(),
    );
    let mut swapped = good.clone();
    let bytes = swapped.get_mut(&name).unwrap();
    bytes[record_at(0)..record_at(1)].copy_from_slice(&second);
    bytes[record_at(1)..record_at(2)].copy_from_slice(&first);
    let mailboxes = open(&disk_of(&swapped)).unwrap();
    assert!(mailboxes.opened().damaged > 0);
    assert_eq!(served(&mailboxes), (vec![3], vec![1, 2]));
}

#[test]
fn a_segment_of_another_log_is_refused() {
    let good = closed(3);
    let other = MemoryDisk::new();
    let options = MailOptions {
        identity: Some([8; 32]),
        ..options()
    };
    Mailboxes::open_stepped(Arc::new(other.clone()), &options)
        .unwrap()
        .close();
    let mut mixed = good;
    let name = segment_names(&mixed).remove(0);
    mixed.insert(name.clone(), image(&other)[&name].clone());
    assert!(matches!(
        open(&disk_of(&mixed)),
        Err(MailOpenError::Unusable("it is made of two logs"))
    ));
}

#[test]
fn no_message_passes_for_a_record() {
    let disk = MemoryDisk::new();
    let mailboxes = open(&disk).unwrap();
    // Who sends knows everything but the seed.
    let mut forged = Vec::new();
    for offset in 0..60_u32 {
        let place = Place {
            segment: 1,
            offset: segment::START + record::MAIL_BYTES as u32 + 8 + offset * 64,
        };
        let forgery = Record::Removed {
            device: &[1; 32],
            up_to: u64::MAX,
        };
        record::encode(&mut forged, &[0; 16], place, 0, Part::ONLY, &forgery);
    }
    post(&mailboxes, 1, 1, &forged, PLENTY).unwrap();
    mailboxes.flush();
    post(&mailboxes, 2, 1, b"later", PLENTY).unwrap();
    mailboxes.flush();
    let mut image = image(&disk);
    let name = segment_names(&image).remove(0);
    image.get_mut(&name).unwrap()[record_at(0) + 3] ^= 1;
    let mailboxes = open(&disk_of(&image)).unwrap();
    assert_eq!(mailboxes.opened().damaged, 1);
    assert_eq!(read_all(&mailboxes, 1).len(), 2);
}

#[test]
fn a_damaged_checkpoint_is_replaced_by_the_one_before() {
    let disk = MemoryDisk::new();
    for round in 0..3_u64 {
        let mailboxes = open(&disk).unwrap();
        for step in 1..=3 {
            post(&mailboxes, round * 3 + step, 1, &[step as u8; 50], PLENTY).unwrap();
            mailboxes.flush();
        }
        let first = mailboxes.read(&device(1), 0, 1, 1, NOW).unwrap().last;
        mailboxes.acknowledge(&device(1), first);
        mailboxes.close();
    }
    let good = image(&disk);
    let expected = read_all(&open(&disk_of(&good)).unwrap(), 1);
    assert_eq!(expected.len(), 6);
    let checkpoints: Vec<_> = good
        .keys()
        .filter(|name| name.starts_with("checkpoint-"))
        .collect();
    assert_eq!(checkpoints.len(), 2);
    for name in &checkpoints {
        let mut image = good.clone();
        let middle = image[*name].len() / 2;
        image.get_mut(*name).unwrap()[middle] ^= 1;
        let mailboxes = open(&disk_of(&image)).unwrap();
        assert_eq!(mailboxes.opened().damaged, 1);
        assert_eq!(read_all(&mailboxes, 1), expected);
        assert_eq!(mailboxes.sent(&device(ALICE)), 9);
        assert_eq!(mailboxes.opened().start, 4);
    }
    // Without any, what was acknowledged would come again.
    let mut none = good.clone();
    none.retain(|name, _| !name.starts_with("checkpoint-"));
    let first = segment_names(&none).remove(0);
    none.remove(&first);
    assert!(matches!(
        open(&disk_of(&none)),
        Err(MailOpenError::Unusable(_))
    ));
}

#[test]
fn a_missing_segment_is_damage_and_costs_only_itself() {
    let disk = MemoryDisk::new();
    let mailboxes = open(&disk).unwrap();
    for sequence in 1..=60 {
        post(&mailboxes, sequence, 1, &[sequence as u8; 400], PLENTY).unwrap();
        mailboxes.flush();
    }
    let mut image = image(&disk);
    let second = segment_names(&image).remove(1);
    image.remove(&second);
    let mailboxes = open(&disk_of(&image)).unwrap();
    assert!(mailboxes.opened().damaged > 0);
    let there = read_all(&mailboxes, 1);
    let mail = |delivery: &&Delivery| matches!(delivery, Delivery::Mail(_));
    assert!(there.iter().filter(mail).count() >= 40);
}

#[test]
fn a_newer_format_is_refused_and_left_as_it_is() {
    let good = closed(2);
    let name = segment_names(&good).remove(0);
    let mut newer = good.clone();
    let header = segment::decode_header(&good[&name]).header.unwrap();
    let new_header = segment::encode_header(&segment::Header {
        format: FORMAT_VERSION + 1,
        ..header
    });
    newer.get_mut(&name).unwrap()[..new_header.len()].copy_from_slice(&new_header);
    let disk = disk_of(&newer);
    let error = open(&disk).unwrap_err();
    assert!(matches!(error, MailOpenError::Newer { found: 2 }));
    assert!(error.to_string().contains("newer than this program"));
    assert_eq!(image(&disk), newer);
}

#[test]
fn a_failed_sync_ends_the_log() {
    fails(FaultyDisk::fail_syncs);
}

#[test]
fn a_failed_write_ends_the_log() {
    fails(FaultyDisk::fail_writes);
}

fn fails(fail: fn(&FaultyDisk, bool)) {
    let disk = FaultyDisk::new();
    let mailboxes = open(&disk).unwrap();
    let durable = post(&mailboxes, 1, 1, b"durable", LIMITS)
        .unwrap()
        .accepted();
    mailboxes.flush();
    let lost = post(&mailboxes, 2, 1, b"lost", LIMITS).unwrap().accepted();
    let fetched = post(&mailboxes, 3, 2, b"fetched", LIMITS)
        .unwrap()
        .accepted();
    mailboxes.acknowledge(&device(2), u64::MAX);
    fail(&disk, true);
    mailboxes.flush();
    fail(&disk, false);
    let unavailable = StorageError::Unavailable;
    assert_eq!(durable.outcome(), Some(Ok(())));
    assert_eq!(lost.outcome(), Some(Err(unavailable)));
    assert_eq!(fetched.outcome(), Some(Ok(())));
    assert!(!mailboxes.is_writable());
    // It never tries again, and what is there can still be read.
    let operations = disk.operations();
    assert!(!mailboxes.flush());
    for sequence in [2, 4] {
        assert_eq!(
            post(&mailboxes, sequence, 1, b"x", LIMITS).map(drop),
            Err(PostError::Storage(unavailable))
        );
    }
    assert_eq!(mailboxes.remove(&device(1), NOW), Err(unavailable.into()));
    assert_eq!(mailboxes.sweep(NOW + 3_600_000), Err(unavailable));
    mailboxes.close();
    assert_eq!(disk.operations(), operations);
    assert_eq!(messages(&mailboxes, 1), ["durable", "lost"]);
}

#[tokio::test]
async fn who_waits_is_told_of_a_failure() {
    let disk = FaultyDisk::new();
    let mailboxes = open(&disk).unwrap();
    let accepted = post(&mailboxes, 1, 1, b"x", LIMITS).unwrap().accepted();
    let waiting = tokio::spawn(accepted);
    tokio::task::yield_now().await;
    disk.fail_syncs(true);
    mailboxes.flush();
    assert_eq!(waiting.await.unwrap(), Err(StorageError::Unavailable));
    mailboxes.room().await;
}

/// Whoever waits for room is told that there is some, as nothing will change any more: told of a full queue then, they would ask again for ever.
#[test]
fn nobody_waits_for_room_in_the_queue_of_a_log_that_has_failed() {
    let disk = FaultyDisk::new();
    let options = MailOptions {
        segment_bytes: 4 << 20,
        ..options()
    };
    let mailboxes = Mailboxes::open_stepped(disk.shared(), &options).unwrap();
    let mut sequence = 1;
    while post(&mailboxes, sequence, 1, &[0; 10_000], PLENTY).is_ok() {
        sequence += 1;
    }
    let refused = post(&mailboxes, sequence, 1, &[0; 10_000], PLENTY).unwrap_err();
    assert_eq!(refused, PostError::Busy);
    while post(&mailboxes, sequence, 1, b"x", PLENTY).is_ok() {
        sequence += 1;
    }
    disk.fail_syncs(true);
    mailboxes.flush();
    let unavailable = PostError::Storage(StorageError::Unavailable);
    assert_eq!(mailboxes.remove(&device(1), NOW), Err(unavailable));
    let refused = post(&mailboxes, sequence, 1, b"x", PLENTY).unwrap_err();
    assert_eq!(refused, unavailable);
}

#[test]
fn a_full_disk_refuses_and_later_works() {
    refuses_and_later_works(FaultyDisk::fill);
}

/// Sends to so many devices until the disk is full; returns the next sequence.
fn fill_up(mailboxes: &Mailboxes, devices: u8, mut sequence: u64) -> u64 {
    loop {
        let to = (sequence % u64::from(devices)) as u8;
        match post(mailboxes, sequence, to, &[to; 500], PLENTY) {
            Ok(_) => sequence += 1,
            Err(PostError::DiskFull) => return sequence,
            Err(PostError::Busy) => {}
            Err(other) => panic!("{other}"),
        }
        mailboxes.flush();
    }
}

fn settle(mailboxes: &Mailboxes) {
    let spins = (0..2_000).take_while(|_| mailboxes.flush()).count();
    assert!(spins < 2_000, "it never has nothing to do");
}

#[test]
fn a_full_disk_heals_once_its_mail_is_acknowledged() {
    // Also where there are too many devices for what is kept for their states.
    for devices in [1, 3, 40] {
        let disk = FaultyDisk::new();
        disk.limit(160 << 10);
        let mailboxes = open(&disk).unwrap();
        let mut sequence = 1;
        for round in 0..4 {
            let first = sequence;
            sequence = fill_up(&mailboxes, devices, first);
            assert!(
                sequence - first > 60,
                "{devices} {round}: {first} to {sequence}"
            );
            settle(&mailboxes);
            // No segment fits, but a checkpoint of so few devices does.
            disk.limit(disk.used() + (7 << 10));
            let full = post(&mailboxes, sequence, 0, &[0; 500], PLENTY).map(drop);
            assert_eq!(full, Err(PostError::DiskFull), "{devices} {round}");
            settle(&mailboxes);
            for of in 0..devices {
                mailboxes.acknowledge(&device(of), u64::MAX);
            }
            settle(&mailboxes);
            // Nobody has asked again.
            let appended = post(&mailboxes, sequence, 0, &[0; 500], PLENTY)
                .unwrap_or_else(|error| panic!("{devices} {round}: {error}"));
            settle(&mailboxes);
            assert_eq!(appended.accepted().outcome(), Some(Ok(())));
            let again = open(&disk.after(Crash::LosesAll)).unwrap();
            assert_eq!(again.opened().damaged, 0, "{devices} {round}");
            assert_eq!(again.sent(&device(ALICE)), sequence);
            let there = messages(&again, 0);
            assert_eq!(there.last().unwrap()[..], [0; 500]);
            sequence += 1;
        }
    }
}

#[test]
fn a_crash_while_a_full_disk_heals_loses_nothing() {
    const KEEPS: u8 = 99;
    let fill = || {
        let disk = FaultyDisk::new();
        disk.limit(90 << 10);
        let mailboxes = open(&disk).unwrap();
        post(&mailboxes, 1, KEEPS, b"stays", PLENTY).unwrap();
        let next = fill_up(&mailboxes, 20, 2);
        settle(&mailboxes);
        disk.limit(disk.used() + (7 << 10));
        (disk, mailboxes, next)
    };
    let heal = |mailboxes: &Mailboxes| {
        for of in 0..20 {
            mailboxes.acknowledge(&device(of), u64::MAX);
        }
        settle(mailboxes);
    };
    let (disk, mailboxes, next) = fill();
    let begin = disk.operations();
    heal(&mailboxes);
    let end = disk.operations();
    post(&mailboxes, next, 0, b"x", PLENTY).unwrap();
    let tears = (0..3).map(Crash::Tears);
    let crashes: Vec<_> = [Crash::LosesAll, Crash::LosesNothing]
        .into_iter()
        .chain(tears)
        .collect();
    assert!(end - begin > 10, "{begin} to {end}");
    for operation in begin..end {
        let (disk, mailboxes, _) = fill();
        disk.crash_at(operation);
        heal(&mailboxes);
        for crash in &crashes {
            let context = format!("crash at {operation}, {crash:?}");
            // As full as it was, and where there is no room for a start either, with some.
            let disk_after = disk.after(*crash);
            disk_after.limit(disk_after.used() + 100);
            let again = match open(&disk_after) {
                Err(MailOpenError::Disk(_)) => {
                    disk_after.limit(usize::MAX);
                    open(&disk_after)
                }
                opened => opened,
            };
            let again = again.unwrap_or_else(|error| panic!("{context}: {error}"));
            assert_eq!(again.opened().damaged, 0, "{context}");
            assert_eq!(messages(&again, KEEPS), ["stays"], "{context}");
            assert_eq!(again.sent(&device(ALICE)), next - 1, "{context}");
            for of in 0..20 {
                let there = messages(&again, of);
                assert!(there.iter().all(|message| message[..] == [of; 500]));
            }
        }
    }
}

#[test]
fn what_was_acknowledged_on_a_full_disk_stays_acknowledged() {
    let disk = FaultyDisk::new();
    disk.limit(20 << 10);
    let mailboxes = open(&disk).unwrap();
    let mut sequence = fill_up(&mailboxes, 1, 1);
    // To the last byte that mail may take.
    for bytes in (1..500).rev() {
        let last = post(&mailboxes, sequence, 0, &vec![0; bytes], PLENTY);
        sequence += u64::from(last.is_ok());
        mailboxes.flush();
    }
    let second = mailboxes
        .read(&device(0), 0, 2, usize::MAX, NOW)
        .unwrap()
        .last;
    mailboxes.acknowledge(&device(0), second);
    settle(&mailboxes);
    let again = open(&disk.after(Crash::LosesAll)).unwrap();
    assert_eq!(again.status(&device(0)).acknowledged, second);
    assert_eq!(again.opened().damaged, 0);
}

#[test]
fn a_full_disk_opens_once_what_is_dead_has_gone() {
    for acknowledges in [false, true] {
        let disk = FaultyDisk::new();
        let mailboxes = open(&disk).unwrap();
        for sequence in 1..=120 {
            post(&mailboxes, sequence, 1, &[1; 500], PLENTY).unwrap();
            settle(&mailboxes);
        }
        if acknowledges {
            mailboxes.acknowledge(&device(1), u64::MAX);
            settle(&mailboxes);
        }
        let disk = disk.after(Crash::LosesAll);
        disk.limit(disk.used() + 100);
        let opened = open(&disk);
        if !acknowledges {
            let Err(MailOpenError::Disk(error)) = opened else {
                panic!("{opened:?}");
            };
            assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
            continue;
        }
        let mailboxes = opened.unwrap();
        assert_eq!(mailboxes.opened().damaged, 0);
        assert!(messages(&mailboxes, 1).is_empty());
        post(&mailboxes, 121, 1, b"later", PLENTY).unwrap();
        settle(&mailboxes);
        let again = open(&disk.after(Crash::LosesAll)).unwrap();
        assert_eq!(again.opened().damaged, 0);
        assert_eq!(messages(&again, 1), ["later"]);
    }
}

#[test]
#[cfg(unix)]
fn out_of_descriptors_refuses_and_later_works() {
    let [enfile, emfile, enomem] = [23, 24, 12];
    for code in [enfile, emfile, enomem] {
        refuses_and_later_works(|disk, refuse| disk.refuse_files(refuse.then_some(code)));
    }
}

#[test]
#[cfg(unix)]
fn a_checkpoint_without_a_descriptor_is_left_for_later() {
    let emfile = 24;
    let disk = FaultyDisk::new();
    let options = MailOptions {
        segment_bytes: 64 << 10,
        checkpoint_bytes: 2 << 10,
        ..options()
    };
    let mailboxes = Mailboxes::open_stepped(disk.shared(), &options).unwrap();
    let checkpoints = || {
        let names = disk.list().unwrap();
        let is_whole = |name: &&String| segment::parse_checkpoint_name(name).is_some();
        names.iter().filter(is_whole).count()
    };
    for (sequences, refuse) in [(1..=20, Some(emfile)), (21..=40, None)] {
        disk.refuse_files(refuse);
        for sequence in sequences {
            let appended = post(&mailboxes, sequence, 1, &[1; 500], PLENTY).unwrap();
            while mailboxes.flush() {}
            assert_eq!(appended.accepted().outcome(), Some(Ok(())));
        }
        assert_eq!(checkpoints() > 0, refuse.is_none());
    }
    let again = open(&disk.after(Crash::LosesAll)).unwrap();
    assert_eq!(messages(&again, 1).len(), 40);
}

fn refuses_and_later_works(fill: impl Fn(&FaultyDisk, bool)) {
    let disk = FaultyDisk::new();
    let mailboxes = open(&disk).unwrap();
    mailboxes.flush();
    fill(&disk, true);
    let mut accepted = Vec::new();
    let mut sequence = 0;
    let refused = loop {
        sequence += 1;
        match post(&mailboxes, sequence, 1, &[1; 500], PLENTY) {
            Ok(appended) => accepted.push(appended.accepted()),
            Err(error) => break error,
        }
        mailboxes.flush();
    };
    // The first that does not fit asks for room; then it is known that there is none.
    let refused = match refused {
        PostError::Busy => {
            mailboxes.flush();
            post(&mailboxes, sequence, 1, &[1; 500], PLENTY)
                .map(drop)
                .unwrap_err()
        }
        other => other,
    };
    assert_eq!(refused, PostError::DiskFull);
    assert!(accepted.len() > 5);
    assert!(
        accepted
            .iter()
            .all(|accepted| accepted.outcome() == Some(Ok(())))
    );
    // Acknowledging works, and does not spin.
    mailboxes.acknowledge(&device(1), u64::MAX);
    for _ in 0..100 {
        mailboxes.flush();
    }
    assert!(!mailboxes.flush(), "nothing to do while the disk is full");
    fill(&disk, false);
    assert_eq!(
        post(&mailboxes, sequence, 1, &[1; 500], PLENTY).map(drop),
        Err(PostError::DiskFull)
    );
    mailboxes.flush();
    post(&mailboxes, sequence, 1, &[1; 500], PLENTY).unwrap();
    mailboxes.flush();
    assert!(mailboxes.is_writable());
    mailboxes.close();
    let mailboxes = open(&disk).unwrap();
    assert_eq!(mailboxes.opened().damaged, 0);
    assert_eq!(messages(&mailboxes, 1).len(), 1);
}

#[test]
fn a_posting_larger_than_a_segment_is_never_taken() {
    let disk = MemoryDisk::new();
    let mailboxes = open(&disk).unwrap();
    for _ in 0..3 {
        let refused = post(&mailboxes, 1, 1, &[1; 8 << 10], PLENTY).map(drop);
        assert_eq!(refused, Err(PostError::Parts));
        mailboxes.flush();
    }
}

#[test]
fn dead_segments_go_and_the_rest_stays() {
    let disk = MemoryDisk::new();
    let mailboxes = open(&disk).unwrap();
    send(&mailboxes, 1, 2, b"stays").unwrap();
    let notice = MailboxLimits {
        retention_seconds: 0,
        ..LIMITS
    };
    post(&mailboxes, 2, 3, b"expires", notice).unwrap();
    mailboxes.flush();
    mailboxes.sweep(NOW).unwrap();
    let mut most = 0;
    for sequence in 3..=2_000 {
        post(&mailboxes, sequence, 1, &[7; 300], PLENTY).unwrap();
        mailboxes.acknowledge(&device(1), u64::MAX);
        while mailboxes.flush() {}
        let total: usize = image(&disk).values().map(Vec::len).sum();
        most = most.max(total);
    }
    // Over 800 KiB have been written.
    assert!(most < 160 << 10, "{most}");
    assert_eq!(messages(&mailboxes, 2), ["stays"]);
    for closes in [false, true] {
        if closes {
            mailboxes.close();
        }
        let again = open(&disk_of(&image(&disk))).unwrap();
        assert_eq!(again.opened().damaged, 0);
        assert_eq!(messages(&again, 2), ["stays"]);
        assert_eq!(read_all(&again, ALICE).len(), 1);
        assert_eq!(again.sent(&device(ALICE)), 2_000);
        assert!(
            post(&again, 1_990, 2, b"x", LIMITS)
                .unwrap()
                .is_repetition()
        );
        assert!(read_all(&again, 1).is_empty());
        assert!(again.opened().replayed_bytes < 80 << 10);
    }
}

#[test]
fn limits_removals_and_notices_survive_a_crash() {
    let disk = MemoryDisk::new();
    let mailboxes = open(&disk).unwrap();
    let one = MailboxLimits {
        messages: 1,
        ..LIMITS
    };
    mailboxes.limit(&device(1), one);
    send(&mailboxes, 1, 1, b"x").unwrap();
    send(&mailboxes, 2, 2, b"x").unwrap();
    mailboxes.flush();
    mailboxes.remove(&device(2), NOW).unwrap();
    mailboxes.flush();
    for _ in 0..3 {
        let again = open(&disk_of(&image(&disk))).unwrap();
        let full = PostError::Full { device: device(1) };
        assert_eq!(send(&again, 3, 1, b"x"), Err(full));
        assert!(read_all(&again, 2).is_empty());
        let told = read_all(&again, ALICE);
        assert_eq!(told.len(), 1);
        assert!(matches!(
            &told[0],
            Delivery::Undelivered(Undelivered {
                reason: UndeliveredReason::DeviceRemoved,
                ..
            })
        ));
        again.close();
    }
}

#[test]
fn a_removal_goes_on_after_a_crash() {
    let disk = MemoryDisk::new();
    let mailboxes = open(&disk).unwrap();
    let appended = send(&mailboxes, 1, 1, b"x");
    assert_eq!(appended, Ok(1));
    // Not durable yet, so the senders are not told yet.
    assert!(mailboxes.remove(&device(1), NOW).unwrap().more);
    mailboxes.flush();
    let again = open(&disk_of(&image(&disk))).unwrap();
    assert!(read_all(&again, 1).is_empty());
    assert_eq!(again.sweep(NOW).unwrap().undelivered, 1);
    assert_eq!(read_all(&again, ALICE).len(), 1);
}

#[test]
fn two_processes_cannot_use_one_directory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mail");
    let first = disk::DirectoryDisk::open(&path).unwrap();
    assert!(matches!(
        disk::DirectoryDisk::open(&path),
        Err(disk::DiskError::InUse(_))
    ));
    drop(first);
    disk::DirectoryDisk::open(&path).unwrap();
    assert!(matches!(
        disk::DirectoryDisk::open(&dir.path().join("no/mail")),
        Err(disk::DiskError::File { .. })
    ));
}

#[tokio::test]
async fn a_log_in_files_is_written_by_its_thread_and_closed_by_dropping() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mail");
    let open = || {
        let disk = Arc::new(disk::DirectoryDisk::open(&path).unwrap());
        Mailboxes::open(disk, &MailOptions::default()).unwrap()
    };
    let mailboxes = open();
    let epoch = mailboxes.epoch();
    let waiting: Vec<_> = (1..=50)
        .map(|sequence| post(&mailboxes, sequence, 1, &[1; 100], PLENTY).unwrap())
        .collect();
    for appended in waiting {
        assert_eq!(appended.accepted().await, Ok(()));
    }
    mailboxes.acknowledge(&device(1), mailboxes.status(&device(1)).head - 2);
    drop(mailboxes);
    let size: u64 = std::fs::read_dir(&path)
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(size < 64 << 10, "what was set aside is given back: {size}");
    let mailboxes = open();
    assert_eq!(mailboxes.epoch(), epoch);
    assert_eq!(mailboxes.opened().damaged, 0);
    assert_eq!(held(&mailboxes, 1).0, 2);
    #[cfg(unix)]
    for entry in std::fs::read_dir(&path).unwrap() {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = entry.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
