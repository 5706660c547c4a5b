use futures_util::future::join_all;

use super::*;
use crate::directory::{Directory, VerifiedCard};
use crate::storage::{STORE_FILE, StorageOptions};

const NOW: u64 = 1_800_000_000_000;
const DAY: u64 = 24 * 60 * 60 * 1_000;
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

fn device(number: u8) -> Thumbprint {
    Thumbprint::from_bytes([number; 32])
}

fn mailboxes() -> Mailboxes {
    Mailboxes::new(Storage::in_memory().unwrap())
}

fn posting(id: u8, parts: &[(Thumbprint, &[u8])]) -> Posting {
    Posting {
        from_user: User::new("alice").unwrap(),
        from_device: device(0xa1),
        id: [id; 16],
        parts: parts
            .iter()
            .map(|(device, message)| (*device, Bytes::copy_from_slice(message)))
            .collect(),
    }
}

/// Sends one message to one device and returns its position.
async fn send(
    mailboxes: &Mailboxes,
    id: u8,
    to: u8,
    message: &[u8],
    now: u64,
) -> Result<Option<u64>, PostError> {
    let posted = mailboxes
        .append(posting(id, &[(device(to), message)]), LIMITS, now)
        .await?;
    assert_eq!(posted.len(), 1);
    Ok(posted[0].position.map(NonZeroU64::get))
}

fn messages(mailboxes: &Mailboxes, of: u8) -> Vec<Bytes> {
    let batch = mailboxes
        .read(&device(of), 0, usize::MAX, usize::MAX)
        .unwrap();
    batch.mail.into_iter().map(|mail| mail.message).collect()
}

fn held(mailboxes: &Mailboxes, of: u8) -> (u64, u64) {
    let status = mailboxes.status(&device(of)).unwrap();
    (status.held_messages, status.held_bytes)
}

/// Damages a record in the store behind the mailboxes' back.
async fn tamper(
    mailboxes: &Mailboxes,
    of: u8,
    position: u64,
    change: impl FnOnce(&mut Vec<u8>) + Send + 'static,
) {
    let id = [of; 32];
    mailboxes
        .storage
        .write(0, move |tables| {
            let mut record = tables.mail.get((&id, position))?.unwrap().value().to_vec();
            change(&mut record);
            tables.mail.insert((&id, position), record.as_slice())?;
            Ok(())
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn mail_is_read_as_it_was_sent_and_in_order() {
    let mailboxes = mailboxes();
    for id in 1..=3 {
        assert_eq!(
            send(&mailboxes, id, 1, &[id; 10], NOW + u64::from(id)).await,
            Ok(Some(id.into()))
        );
    }
    let batch = mailboxes.read(&device(1), 1, 10, 1_000).unwrap();
    assert_eq!((batch.last, batch.damaged), (3, vec![]));
    assert_eq!(
        batch.mail[0],
        Mail {
            position: 2,
            id: [2; 16],
            from_user: User::new("alice").unwrap(),
            from_device: device(0xa1),
            time_millis: NOW + 2,
            message: Bytes::from_static(&[2; 10]),
        }
    );
    assert_eq!(batch.mail[1].position, 3);
    let status = mailboxes.status(&device(1)).unwrap();
    assert_eq!(
        (status.acknowledged, status.head, status.epoch),
        (0, 3, mailboxes.storage.epoch())
    );
    assert_eq!(held(&mailboxes, 1), (3, 30));
}

#[tokio::test]
async fn reading_stops_at_its_bounds_but_always_gets_on() {
    let mailboxes = mailboxes();
    for id in 1..=4 {
        send(&mailboxes, id, 1, &[id; 100], NOW).await.unwrap();
    }
    let read = |after, max_messages, max_bytes| {
        let batch = mailboxes
            .read(&device(1), after, max_messages, max_bytes)
            .unwrap();
        (batch.mail.len(), batch.last)
    };
    assert_eq!(read(0, 2, usize::MAX), (2, 2));
    assert_eq!(read(2, 0, usize::MAX), (1, 3));
    assert_eq!(read(0, 10, 1), (1, 1));
    assert_eq!(read(0, 10, 500), (2, 2));
    assert_eq!(read(4, 10, usize::MAX), (0, 4));
    assert_eq!(read(u64::MAX, 10, usize::MAX), (0, u64::MAX));
}

#[tokio::test]
async fn each_device_has_its_own_part_and_positions() {
    let mailboxes = mailboxes();
    send(&mailboxes, 1, 1, b"before", NOW).await.unwrap();
    let both = posting(2, &[(device(1), b"one"), (device(2), b"two")]);
    let posted = mailboxes.append(both, LIMITS, NOW).await.unwrap();
    let positions = posted
        .iter()
        .map(|part| (part.device, part.position.map(NonZeroU64::get)))
        .collect::<Vec<_>>();
    assert_eq!(positions, [(device(1), Some(2)), (device(2), Some(1))]);
    assert_eq!(
        (messages(&mailboxes, 1), messages(&mailboxes, 2)),
        (
            vec![Bytes::from_static(b"before"), Bytes::from_static(b"one")],
            vec![Bytes::from_static(b"two")]
        )
    );
    assert_eq!(messages(&mailboxes, 3), Vec::<Bytes>::new());
}

// docs/protocol.md §5.2
#[tokio::test]
async fn a_repetition_is_accepted_and_adds_nothing() {
    let mailboxes = mailboxes();
    assert_eq!(send(&mailboxes, 1, 1, b"once", NOW).await, Ok(Some(1)));
    assert_eq!(send(&mailboxes, 1, 1, b"once", NOW).await, Ok(None));
    assert_eq!(messages(&mailboxes, 1), ["once"]);
    // To a device that was added meanwhile it is new.
    let more = posting(1, &[(device(1), b"once"), (device(2), b"once")]);
    let posted = mailboxes.append(more, LIMITS, NOW).await.unwrap();
    assert_eq!(
        (posted[0].position, posted[1].position),
        (None, NonZeroU64::new(1))
    );
}

#[tokio::test]
async fn the_same_id_from_another_device_is_another_message() {
    let mailboxes = mailboxes();
    send(&mailboxes, 1, 1, b"alice", NOW).await.unwrap();
    let mut other = posting(1, &[(device(1), b"mallory")]);
    other.from_device = device(0xbb);
    let posted = mailboxes.append(other, LIMITS, NOW).await.unwrap();
    assert_eq!(posted[0].position, NonZeroU64::new(2));
}

// docs/protocol.md §5.2
#[tokio::test]
async fn a_repetition_within_24_hours_of_the_acknowledgement_adds_nothing() {
    let mailboxes = mailboxes();
    send(&mailboxes, 1, 1, b"once", NOW).await.unwrap();
    mailboxes.acknowledge(&device(1), 1, NOW).await.unwrap();
    mailboxes.sweep(NOW + DAY - 1).await.unwrap();
    assert_eq!(
        send(&mailboxes, 1, 1, b"once", NOW + DAY - 1).await,
        Ok(None)
    );
    assert_eq!(messages(&mailboxes, 1), Vec::<Bytes>::new());
    mailboxes.sweep(NOW + DAY).await.unwrap();
    assert_eq!(
        send(&mailboxes, 1, 1, b"once", NOW + DAY).await,
        Ok(Some(2))
    );
}

// docs/protocol.md §5.2
#[tokio::test]
async fn a_message_that_is_held_is_remembered_however_long() {
    let mailboxes = mailboxes();
    let long = MailboxLimits {
        retention_seconds: u64::MAX,
        ..LIMITS
    };
    let once = || posting(1, &[(device(1), b"once".as_slice())]);
    mailboxes.append(once(), long, NOW).await.unwrap();
    mailboxes.sweep(NOW + 1_000 * DAY).await.unwrap();
    let repeated = mailboxes
        .append(once(), long, NOW + 1_000 * DAY)
        .await
        .unwrap();
    assert_eq!(repeated[0].position, None);
    assert_eq!(messages(&mailboxes, 1), ["once"]);
}

#[tokio::test]
async fn positions_are_not_used_again_after_everything_was_erased() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Mailboxes::new(Storage::open(dir.path(), &StorageOptions::default()).unwrap());
    let mailboxes = open();
    for id in 1..=3 {
        send(&mailboxes, id, 1, b"x", NOW).await.unwrap();
    }
    assert_eq!(mailboxes.acknowledge(&device(1), 3, NOW).await, Ok(3));
    mailboxes.sweep(NOW + 10 * DAY).await.unwrap();
    assert_eq!(held(&mailboxes, 1), (0, 0));
    drop(mailboxes);
    let mailboxes = open();
    assert_eq!(send(&mailboxes, 9, 1, b"x", NOW).await, Ok(Some(4)));
    assert_eq!(mailboxes.status(&device(1)).unwrap().acknowledged, 3);
}

#[tokio::test]
async fn acknowledging_is_cumulative_and_erases() {
    let mailboxes = mailboxes();
    for id in 1..=3 {
        send(&mailboxes, id, 1, &[id], NOW).await.unwrap();
    }
    assert_eq!(mailboxes.acknowledge(&device(1), 2, NOW).await, Ok(2));
    assert_eq!(messages(&mailboxes, 1), [&[3_u8][..]]);
    assert_eq!(held(&mailboxes, 1), (1, 1));
}

#[tokio::test]
async fn acknowledging_backwards_changes_nothing() {
    let mailboxes = mailboxes();
    for id in 1..=3 {
        send(&mailboxes, id, 1, &[id], NOW).await.unwrap();
    }
    mailboxes.acknowledge(&device(1), 2, NOW).await.unwrap();
    assert_eq!(mailboxes.acknowledge(&device(1), 1, NOW).await, Ok(2));
    assert_eq!(mailboxes.acknowledge(&device(1), 0, NOW).await, Ok(2));
    assert_eq!(held(&mailboxes, 1), (1, 1));
}

#[tokio::test]
async fn acknowledging_beyond_the_head_does_not_erase_what_comes_later() {
    let mailboxes = mailboxes();
    send(&mailboxes, 1, 1, b"first", NOW).await.unwrap();
    assert_eq!(
        mailboxes.acknowledge(&device(1), u64::MAX, NOW).await,
        Ok(1)
    );
    send(&mailboxes, 2, 1, b"second", NOW).await.unwrap();
    assert_eq!(messages(&mailboxes, 1), ["second"]);
    assert_eq!(mailboxes.acknowledge(&device(2), 7, NOW).await, Ok(0));
    assert_eq!(send(&mailboxes, 3, 2, b"x", NOW).await, Ok(Some(1)));
}

#[tokio::test]
async fn acknowledging_does_not_touch_another_device() {
    let mailboxes = mailboxes();
    send(&mailboxes, 1, 1, b"one", NOW).await.unwrap();
    send(&mailboxes, 1, 2, b"two", NOW).await.unwrap();
    mailboxes.acknowledge(&device(1), 1, NOW).await.unwrap();
    assert_eq!(messages(&mailboxes, 2), ["two"]);
}

#[tokio::test]
async fn a_mailbox_with_its_number_of_messages_is_full() {
    let mailboxes = mailboxes();
    for id in 1..=5 {
        send(&mailboxes, id, 1, b"x", NOW).await.unwrap();
    }
    let full = PostError::Full { device: device(1) };
    assert_eq!(send(&mailboxes, 6, 1, b"x", NOW).await, Err(full));
    assert_eq!(full.refusal(), RefusalCode::MailboxFull);
    // The refused one is not remembered as sent, and no position is lost.
    mailboxes.acknowledge(&device(1), 1, NOW).await.unwrap();
    assert_eq!(send(&mailboxes, 6, 1, b"x", NOW).await, Ok(Some(6)));
}

#[tokio::test]
async fn a_mailbox_with_its_number_of_bytes_is_full() {
    let mailboxes = mailboxes();
    assert_eq!(
        send(&mailboxes, 1, 1, &[0; 1_001], NOW).await,
        Err(PostError::Full { device: device(1) })
    );
    send(&mailboxes, 2, 1, &[0; 1_000], NOW).await.unwrap();
    assert_eq!(
        send(&mailboxes, 3, 1, b"x", NOW).await,
        Err(PostError::Full { device: device(1) })
    );
}

// docs/protocol.md §5.5
#[tokio::test]
async fn the_device_s_own_limits_hold_while_it_is_away_and_never_raise_the_relay_s() {
    let mailboxes = mailboxes();
    let own = MailboxLimits {
        messages: 1,
        bytes: u64::MAX,
        retention_seconds: 60,
    };
    mailboxes.limit(&device(1), own).await.unwrap();
    assert_eq!(
        send(&mailboxes, 1, 1, &[0; 1_001], NOW).await,
        Err(PostError::Full { device: device(1) })
    );
    send(&mailboxes, 2, 1, b"x", NOW).await.unwrap();
    assert_eq!(
        send(&mailboxes, 3, 1, b"x", NOW).await,
        Err(PostError::Full { device: device(1) })
    );
    assert_eq!(
        mailboxes.sweep(NOW + 60_000).await.unwrap().expired,
        1,
        "after its own time"
    );
    mailboxes.limit(&device(1), PLENTY).await.unwrap();
    for id in 4..=8 {
        send(&mailboxes, id, 1, b"x", NOW).await.unwrap();
    }
    assert_eq!(
        send(&mailboxes, 9, 1, b"x", NOW).await,
        Err(PostError::Full { device: device(1) })
    );
}

// docs/protocol.md §5.2: accepted as a whole or refused as a whole
#[tokio::test]
async fn one_full_mailbox_refuses_every_part() {
    let mailboxes = mailboxes();
    for id in 1..=5 {
        send(&mailboxes, id, 2, b"x", NOW).await.unwrap();
    }
    let parts = posting(
        6,
        &[(device(1), b"x"), (device(2), b"x"), (device(3), b"x")],
    );
    assert_eq!(
        mailboxes.append(parts, LIMITS, NOW).await,
        Err(PostError::Full { device: device(2) })
    );
    assert_eq!((held(&mailboxes, 1), held(&mailboxes, 3)), ((0, 0), (0, 0)));
    assert_eq!(send(&mailboxes, 6, 1, b"x", NOW).await, Ok(Some(1)));
}

#[tokio::test]
async fn a_repetition_is_accepted_although_the_mailbox_is_full() {
    let mailboxes = mailboxes();
    for id in 1..=5 {
        send(&mailboxes, id, 1, b"x", NOW).await.unwrap();
    }
    assert_eq!(send(&mailboxes, 3, 1, b"x", NOW).await, Ok(None));
}

#[tokio::test]
async fn a_posting_out_of_form_is_refused() {
    let mailboxes = mailboxes();
    let many = (0..17)
        .map(|n| (device(n), b"x".as_slice()))
        .collect::<Vec<_>>();
    let large = vec![0; limits::MAX_SEALED_MESSAGE_BYTES + 1];
    for parts in [
        &[][..],
        &many,
        &[(device(1), b"x"), (device(1), b"y")],
        &[(device(1), b"x"), (device(2), b"")],
        &[(device(1), large.as_slice())],
    ] {
        assert_eq!(
            mailboxes.append(posting(1, parts), PLENTY, NOW).await,
            Err(PostError::Parts)
        );
    }
    assert_eq!(held(&mailboxes, 1), (0, 0));
}

#[tokio::test]
async fn mail_that_is_too_old_is_erased_and_still_remembered_as_sent() {
    let mailboxes = mailboxes();
    send(&mailboxes, 1, 1, b"old", NOW).await.unwrap();
    send(&mailboxes, 2, 1, b"new", NOW + 1).await.unwrap();
    let swept = mailboxes.sweep(NOW + 3_600_000).await.unwrap();
    assert_eq!(
        swept,
        Swept {
            expired: 1,
            more: false
        }
    );
    assert_eq!(messages(&mailboxes, 1), ["new"]);
    assert_eq!(held(&mailboxes, 1), (1, 3));
    assert_eq!(
        send(&mailboxes, 1, 1, b"old", NOW + 3_600_000).await,
        Ok(None)
    );
}

#[tokio::test]
async fn mail_is_not_erased_before_its_time() {
    let mailboxes = mailboxes();
    send(&mailboxes, 1, 1, b"x", NOW).await.unwrap();
    let swept = mailboxes.sweep(NOW + 3_600_000 - 1).await.unwrap();
    assert_eq!((swept.expired, held(&mailboxes, 1)), (0, (1, 1)));
}

#[tokio::test]
async fn sweeping_and_acknowledging_do_a_bounded_amount_at_a_time_and_finish() {
    let mailboxes = mailboxes();
    let count = MAX_ERASED_AT_ONCE + 1;
    let fill = |first: usize| {
        let mailboxes = mailboxes.clone();
        async move {
            let sends = (first..first + count).map(|number| {
                let mut posting = posting(0, &[(device(1), b"x")]);
                posting.id[..8].copy_from_slice(&(number as u64).to_be_bytes());
                mailboxes.append(posting, PLENTY, NOW)
            });
            for sent in join_all(sends).await {
                sent.unwrap();
            }
        }
    };
    fill(0).await;
    let later = NOW + 3_600_000;
    let first = mailboxes.sweep(later).await.unwrap();
    assert_eq!(
        first,
        Swept {
            expired: MAX_ERASED_AT_ONCE,
            more: true
        }
    );
    let second = mailboxes.sweep(later).await.unwrap();
    assert_eq!(
        second,
        Swept {
            expired: 1,
            more: false
        }
    );
    fill(count).await;
    let head = mailboxes.status(&device(1)).unwrap().head;
    mailboxes.acknowledge(&device(1), head, NOW).await.unwrap();
    assert_eq!(held(&mailboxes, 1), (0, 0));
}

#[tokio::test]
async fn every_flipped_byte_of_a_record_is_noticed() {
    let mailboxes = mailboxes();
    send(&mailboxes, 1, 1, b"hello", NOW).await.unwrap();
    send(&mailboxes, 2, 1, b"world", NOW).await.unwrap();
    for index in 0..83 {
        tamper(&mailboxes, 1, 1, move |record| record[index] ^= 0x10).await;
        let batch = mailboxes.read(&device(1), 0, 10, 10_000).unwrap();
        assert_eq!((batch.damaged, batch.last), (vec![1], 2), "byte {index}");
        assert_eq!(batch.mail[0].message, "world");
        tamper(&mailboxes, 1, 1, move |record| record[index] ^= 0x10).await;
    }
    assert_eq!(messages(&mailboxes, 1), ["hello", "world"]);
}

#[tokio::test]
async fn a_shortened_or_lengthened_record_is_not_served() {
    let mailboxes = mailboxes();
    send(&mailboxes, 1, 1, b"hello", NOW).await.unwrap();
    tamper(&mailboxes, 1, 1, |record| record.push(0)).await;
    assert_eq!(messages(&mailboxes, 1), Vec::<Bytes>::new());
    tamper(&mailboxes, 1, 1, |record| record.truncate(7)).await;
    let batch = mailboxes.read(&device(1), 0, 10, 10_000).unwrap();
    assert_eq!((batch.mail.len(), batch.damaged), (0, vec![1]));
}

#[tokio::test]
async fn a_record_moved_to_another_place_is_not_served() {
    let mailboxes = mailboxes();
    send(&mailboxes, 1, 1, b"for one", NOW).await.unwrap();
    send(&mailboxes, 2, 1, b"later", NOW).await.unwrap();
    send(&mailboxes, 3, 2, b"for two", NOW).await.unwrap();
    mailboxes
        .storage
        .write(0, |tables| {
            let record = tables.mail.get((&[1; 32], 1))?.unwrap().value().to_vec();
            tables.mail.insert((&[1; 32], 2), record.as_slice())?;
            tables.mail.insert((&[2; 32], 1), record.as_slice())?;
            Ok(())
        })
        .await
        .unwrap();
    assert_eq!(messages(&mailboxes, 1), ["for one"]);
    let batch = mailboxes.read(&device(2), 0, 10, 10_000).unwrap();
    assert_eq!((batch.mail.len(), batch.damaged), (0, vec![1]));
}

#[tokio::test]
async fn a_damaged_record_can_be_acknowledged_and_does_not_fill_the_mailbox_for_ever() {
    let mailboxes = mailboxes();
    send(&mailboxes, 1, 1, &[0; 900], NOW).await.unwrap();
    tamper(&mailboxes, 1, 1, |record| record[0] ^= 1).await;
    assert_eq!(mailboxes.acknowledge(&device(1), 1, NOW).await, Ok(1));
    assert_eq!(held(&mailboxes, 1), (0, 0));
    let swept = mailboxes.sweep(NOW + 3_600_000).await.unwrap();
    assert_eq!((swept.expired, swept.more), (1, false), "only its entry");
    send(&mailboxes, 2, 1, &[0; 900], NOW).await.unwrap();
}

#[tokio::test]
async fn a_byte_flipped_on_the_disk_is_not_served() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(STORE_FILE);
    let open = || Mailboxes::new(Storage::open(dir.path(), &StorageOptions::default()).unwrap());
    let mailboxes = open();
    send(&mailboxes, 1, 1, b"before", NOW).await.unwrap();
    send(&mailboxes, 2, 1, b"a needle in a haystack", NOW)
        .await
        .unwrap();
    drop(mailboxes);

    let mut bytes = std::fs::read(&path).unwrap();
    let mut flipped = 0;
    for start in 0..bytes.len() - 6 {
        if bytes[start..].starts_with(b"needle") {
            bytes[start] ^= 0x20;
            flipped += 1;
        }
    }
    assert!(flipped > 0);
    std::fs::write(&path, bytes).unwrap();

    let batch = open().read(&device(1), 0, 10, 10_000).unwrap();
    assert_eq!((batch.mail.len(), batch.damaged), (1, vec![2]));
    assert_eq!(batch.mail[0].message, "before");
}

#[tokio::test]
async fn a_posting_is_refused_when_a_device_joins_before_it_is_stored() {
    // docs/protocol.md §5.2: exactly the recipient's current devices.
    let storage = Storage::in_memory().unwrap();
    let (mailboxes, directory) = (Mailboxes::new(storage.clone()), Directory::new(storage));
    let bob = User::new("bob").unwrap();
    let card = VerifiedCard {
        id: 1,
        issued: NOW / 1_000,
        attested: NOW / 1_000,
        card: vec![1],
    };
    let send = async |id, parts: &[(Thumbprint, &[u8])]| {
        mailboxes
            .enqueue_for(bob.clone(), posting(id, parts), LIMITS, NOW)
            .await?
            .durable()
            .await
    };
    directory
        .publish_card(&bob, &device(1), card.clone())
        .await
        .unwrap();
    // The sender's snapshot has the first device only, and the second joins while the posting waits behind it.
    let to_first = [(device(1), &b"secret"[..])];
    let second = device(2);
    let (joined, sent) = tokio::join!(
        biased;
        directory.publish_card(&bob, &second, card),
        send(1, &to_first),
    );
    joined.unwrap();
    assert_eq!(sent.unwrap_err(), PostError::DevicesChanged);
    assert!(messages(&mailboxes, 1).is_empty());

    let to_both = [(device(2), &b"two"[..]), (device(1), &b"one"[..])];
    assert_eq!(send(2, &to_both).await.unwrap().len(), 2);

    // And one that is removed while it waits gets nothing.
    let (removed, sent) = tokio::join!(biased; directory.remove(&second, None), send(3, &to_both));
    assert!(removed.unwrap().is_some());
    assert_eq!(sent.unwrap_err(), PostError::DevicesChanged);
    assert_eq!(messages(&mailboxes, 2).len(), 1);
}

#[tokio::test]
async fn no_user_fills_more_than_a_share_of_a_mailbox() {
    let mailboxes = mailboxes();
    let limits = MailboxLimits {
        messages: SENDER_SHARE * 20,
        ..PLENTY
    };
    let send = async |from: &str, id| {
        let mut posting = posting(id, &[(device(1), b"message")]);
        posting.from_user = User::new(from).unwrap();
        // Another device of the same user has no share of its own.
        posting.from_device = device(id % 2);
        mailboxes.append(posting, limits, NOW).await
    };
    for id in 0..20 {
        send("mallory", id).await.unwrap();
    }
    let full = PostError::Full { device: device(1) };
    assert_eq!(send("mallory", 20).await.unwrap_err(), full);
    // A repetition adds nothing, and others still have room.
    send("mallory", 19).await.unwrap();
    send("alice", 21).await.unwrap();

    // What is erased, by an acknowledgement or by its age, makes room again.
    mailboxes.acknowledge(&device(1), 1, NOW).await.unwrap();
    send("mallory", 22).await.unwrap();
    assert_eq!(send("mallory", 23).await.unwrap_err(), full);
    mailboxes.sweep(NOW + 3_600_000).await.unwrap();
    for id in 30..50 {
        send("mallory", id).await.unwrap();
    }
    assert_eq!(send("mallory", 50).await.unwrap_err(), full);
}

#[tokio::test]
async fn no_user_fills_more_than_a_share_of_a_mailbox_in_bytes() {
    let mailboxes = mailboxes();
    let limits = MailboxLimits {
        bytes: SENDER_SHARE * 5 * limits::MAX_SEALED_MESSAGE_BYTES as u64,
        ..PLENTY
    };
    let large = [7; limits::MAX_SEALED_MESSAGE_BYTES];
    for id in 0..5 {
        let posting = posting(id, &[(device(1), &large)]);
        mailboxes.append(posting, limits, NOW).await.unwrap();
    }
    let one_more = posting(5, &[(device(1), b"x")]);
    let refused = mailboxes.append(one_more, limits, NOW).await;
    assert_eq!(refused.unwrap_err(), PostError::Full { device: device(1) });
}
