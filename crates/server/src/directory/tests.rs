use std::collections::HashSet;

use futures_util::future::join_all;

use super::*;
use crate::storage::StorageOptions;

fn device(number: u8) -> Thumbprint {
    Thumbprint::from_bytes([number; 32])
}

fn user(name: &str) -> User {
    User::new(name).unwrap()
}

fn directory() -> Directory {
    Directory::new(Storage::in_memory().unwrap())
}

fn card(id: u32, issued: u64, card: &[u8]) -> VerifiedCard {
    VerifiedCard {
        id,
        issued,
        attested: issued,
        card: card.to_vec(),
    }
}

fn prekey(id: u32) -> VerifiedPrekey {
    let mut prekey = vec![0xcc; PREKEY_BYTES];
    prekey[..4].copy_from_slice(&id.to_be_bytes());
    VerifiedPrekey { id, prekey }
}

fn prekeys(ids: impl IntoIterator<Item = u32>) -> Vec<VerifiedPrekey> {
    ids.into_iter().map(prekey).collect()
}

async fn publish(directory: &Directory, name: &str, number: u8) {
    let published = directory
        .publish_card(&user(name), &device(number), card(1, 100, &[number]))
        .await;
    assert_eq!(published, Ok(Published { new_device: true }));
}

/// The ids of the one-time prekeys that one fetch hands out.
async fn take(directory: &Directory, name: &str) -> Vec<Option<u32>> {
    let entries = directory.cards(&user(name), true, None, 100).await.unwrap();
    let id = |prekey: Vec<u8>| u32::from_be_bytes(prekey[..4].try_into().unwrap());
    entries
        .into_iter()
        .map(|entry| entry.prekey.map(id))
        .collect()
}

#[tokio::test]
async fn cards_are_fetched_as_published_without_taking_prekeys() {
    let directory = directory();
    publish(&directory, "alice", 2).await;
    publish(&directory, "alice", 1).await;
    publish(&directory, "bob", 3).await;
    directory
        .publish_prekeys(&device(1), prekeys(1..=2))
        .await
        .unwrap();
    assert_eq!(
        directory.devices(&user("alice"), 100),
        Ok(vec![device(1), device(2)])
    );
    let entries = directory
        .cards(&user("alice"), false, None, 100)
        .await
        .unwrap();
    let expected = |number, prekeys_left| DeviceEntry {
        device: device(number),
        card: vec![number],
        prekey: None,
        prekeys_left,
    };
    assert_eq!(entries, [expected(1, 2), expected(2, 0)]);
    let state = PublishedState {
        has_card: true,
        prekeys: 2,
    };
    assert_eq!(directory.published(&device(1)), Ok(state));
}

#[tokio::test]
async fn a_newer_card_replaces_the_older() {
    let directory = directory();
    publish(&directory, "alice", 1).await;
    let published = directory
        .publish_card(&user("alice"), &device(1), card(2, 100, b"new"))
        .await;
    assert_eq!(published, Ok(Published { new_device: false }));
    let entries = directory
        .cards(&user("alice"), false, None, 100)
        .await
        .unwrap();
    assert_eq!(
        (entries.len(), entries[0].card.as_slice()),
        (1, &b"new"[..])
    );
}

#[tokio::test]
async fn the_same_card_is_accepted_again() {
    let directory = directory();
    publish(&directory, "alice", 1).await;
    let again = directory
        .publish_card(&user("alice"), &device(1), card(1, 100, &[1]))
        .await;
    assert_eq!(again, Ok(Published { new_device: false }));
}

// docs/protocol.md §6.1
#[tokio::test]
async fn a_card_is_not_rolled_back() {
    let directory = directory();
    let alice = user("alice");
    let last = card(5, 100, b"last");
    directory
        .publish_card(&alice, &device(1), last)
        .await
        .unwrap();
    for refused in [
        card(4, 200, b"lower id"),
        card(5, 200, b"same id"),
        card(6, 99, b"earlier iat"),
    ] {
        let published = directory.publish_card(&alice, &device(1), refused).await;
        assert_eq!(published, Err(PublishError::NotNewer));
    }
    assert_eq!(PublishError::NotNewer.refusal(), RefusalCode::InvalidCard);
    let entries = directory.cards(&alice, false, None, 100).await.unwrap();
    assert_eq!(entries[0].card, b"last");
}

#[tokio::test]
async fn a_device_of_one_user_is_not_taken_over_by_another() {
    let directory = directory();
    publish(&directory, "alice", 1).await;
    let taken = directory
        .publish_card(&user("mallory"), &device(1), card(9, 900, b"mine"))
        .await;
    assert_eq!(taken, Err(PublishError::AnotherUser));
    assert_eq!(directory.devices(&user("mallory"), 100), Ok(vec![]));
    // Nor when it has no card any more.
    directory.withdraw_card(&device(1), 1).await.unwrap();
    let taken = directory
        .publish_card(&user("mallory"), &device(1), card(9, 900, b"mine"))
        .await;
    assert_eq!(taken, Err(PublishError::AnotherUser));
    assert_eq!(
        directory.standing(&device(1), &user("mallory")),
        Ok(Standing::AnotherUsers)
    );
    assert_eq!(
        directory.standing(&device(1), &user("alice")),
        Ok(Standing::Good)
    );
}

// docs/protocol.md §12
#[tokio::test]
async fn a_seventeenth_device_is_refused() {
    let directory = directory();
    for number in 1..=16 {
        publish(&directory, "alice", number).await;
    }
    let refused = directory
        .publish_card(&user("alice"), &device(17), card(1, 100, b"x"))
        .await;
    assert_eq!(refused, Err(PublishError::TooManyDevices));
    assert_eq!(PublishError::TooManyDevices.refusal(), RefusalCode::TooMany);
    // One that is there may still renew its card, and a user with a longer name is somebody else.
    directory
        .publish_card(&user("alice"), &device(16), card(2, 100, b"x"))
        .await
        .unwrap();
    publish(&directory, "alice2", 17).await;
}

// docs/protocol.md §12
#[tokio::test]
async fn a_card_without_bytes_or_with_too_many_is_refused() {
    let directory = directory();
    for refused in [vec![], vec![0; limits::MAX_CARD_BYTES + 1]] {
        let published = directory
            .publish_card(&user("alice"), &device(1), card(1, 1, &refused))
            .await;
        assert_eq!(published, Err(PublishError::Form));
    }
}

// docs/protocol.md §6.2
#[tokio::test]
async fn an_id_of_a_prekey_is_not_used_twice() {
    let directory = directory();
    publish(&directory, "alice", 1).await;
    directory
        .publish_prekeys(&device(1), prekeys([5, 6]))
        .await
        .unwrap();
    assert_eq!(take(&directory, "alice").await, [Some(5)]);
    let mut changed = prekey(6);
    changed.prekey[40] ^= 1;
    for refused in [prekeys([5]), prekeys([3]), vec![changed], prekeys([5, 7])] {
        assert_eq!(
            directory.publish_prekeys(&device(1), refused).await,
            Err(PublishError::PrekeyIdUsed)
        );
    }
    assert_eq!(
        PublishError::PrekeyIdUsed.refusal(),
        RefusalCode::InvalidCard
    );
    // Nothing of the refused lists is stored.
    assert_eq!(take(&directory, "alice").await, [Some(6)]);
    assert_eq!(take(&directory, "alice").await, [None]);
}

#[tokio::test]
async fn the_highest_id_stays_used_when_its_prekey_is_gone() {
    let directory = directory();
    publish(&directory, "alice", 1).await;
    directory
        .publish_prekeys(&device(1), prekeys([7]))
        .await
        .unwrap();
    assert_eq!(take(&directory, "alice").await, [Some(7)]);
    assert_eq!(
        directory.publish_prekeys(&device(1), prekeys([7])).await,
        Err(PublishError::PrekeyIdUsed)
    );
}

#[tokio::test]
async fn a_prekey_that_is_still_held_is_accepted_again() {
    let directory = directory();
    for _ in 0..2 {
        directory
            .publish_prekeys(&device(1), prekeys(1..=100))
            .await
            .unwrap();
    }
    assert_eq!(directory.published(&device(1)).unwrap().prekeys, 100);
}

// docs/protocol.md §12
#[tokio::test]
async fn more_than_a_hundred_prekeys_are_refused() {
    let directory = directory();
    directory
        .publish_prekeys(&device(1), prekeys(1..=60))
        .await
        .unwrap();
    let refused = directory
        .publish_prekeys(&device(1), prekeys(61..=101))
        .await;
    assert_eq!(refused, Err(PublishError::TooManyPrekeys));
    assert_eq!(PublishError::TooManyPrekeys.refusal(), RefusalCode::TooMany);
    assert_eq!(directory.published(&device(1)).unwrap().prekeys, 60);
    directory
        .publish_prekeys(&device(1), prekeys(61..=100))
        .await
        .unwrap();
}

#[tokio::test]
async fn prekeys_out_of_form_are_refused() {
    let directory = directory();
    let mut short = prekey(1);
    short.prekey.pop();
    let mut other_id = prekey(1);
    other_id.id = 2;
    for refused in [
        vec![],
        prekeys(1..=101),
        prekeys([1, 2, 1]),
        vec![short],
        vec![other_id],
    ] {
        assert_eq!(
            directory.publish_prekeys(&device(1), refused).await,
            Err(PublishError::Form)
        );
    }
}

// docs/protocol.md §6.2
#[tokio::test(flavor = "multi_thread")]
async fn each_prekey_is_handed_out_once_however_many_fetch_at_once() {
    let directory = directory();
    publish(&directory, "alice", 1).await;
    directory
        .publish_prekeys(&device(1), prekeys(1..=20))
        .await
        .unwrap();
    let fetches = (0..50).map(|_| {
        let directory = directory.clone();
        tokio::spawn(async move { take(&directory, "alice").await })
    });
    let fetched = join_all(fetches)
        .await
        .into_iter()
        .map(|taken| taken.unwrap()[0])
        .collect::<Vec<_>>();
    let taken = fetched.iter().flatten().copied().collect::<Vec<_>>();
    assert_eq!(taken.len(), 20);
    assert_eq!(
        taken.into_iter().collect::<HashSet<_>>(),
        (1..=20).collect()
    );
    assert_eq!(fetched.iter().filter(|taken| taken.is_none()).count(), 30);
}

// docs/protocol.md §6.2
#[tokio::test]
async fn a_prekey_is_gone_from_the_disk_before_it_is_handed_out() {
    let dir = tempfile::tempdir().unwrap();
    let open = |dir: &std::path::Path| {
        Directory::new(Storage::open(dir, &StorageOptions::default()).unwrap())
    };
    let directory = open(dir.path());
    publish(&directory, "alice", 1).await;
    directory
        .publish_prekeys(&device(1), prekeys(1..=2))
        .await
        .unwrap();
    assert_eq!(take(&directory, "alice").await, [Some(1)]);
    // What a machine that stops here would find.
    let image = tempfile::tempdir().unwrap();
    let file = crate::storage::STORE_FILE;
    std::fs::copy(dir.path().join(file), image.path().join(file)).unwrap();
    assert_eq!(take(&open(image.path()), "alice").await, [Some(2)]);
}

#[tokio::test]
async fn the_excepted_device_gives_neither_card_nor_prekey() {
    let directory = directory();
    publish(&directory, "alice", 1).await;
    publish(&directory, "alice", 2).await;
    directory
        .publish_prekeys(&device(1), prekeys([1]))
        .await
        .unwrap();
    for take in [false, true] {
        let entries = directory
            .cards(&user("alice"), take, Some(&device(1)), 100)
            .await
            .unwrap();
        assert_eq!((entries.len(), entries[0].device), (1, device(2)));
    }
    assert_eq!(directory.published(&device(1)).unwrap().prekeys, 1);
}

#[tokio::test]
async fn an_unknown_user_has_no_devices() {
    let directory = directory();
    publish(&directory, "alice", 1).await;
    for name in ["alic", "alice ", "alicf", "b"] {
        assert_eq!(directory.devices(&user(name), 100), Ok(vec![]));
        for take in [false, true] {
            assert_eq!(
                directory.cards(&user(name), take, None, 100).await,
                Ok(vec![])
            );
        }
    }
}

#[tokio::test]
async fn a_removed_device_has_no_card_and_no_prekeys() {
    let directory = directory();
    publish(&directory, "alice", 1).await;
    directory
        .publish_prekeys(&device(1), prekeys([1]))
        .await
        .unwrap();
    assert_eq!(
        directory.remove(&device(1), None).await,
        Ok(Some(user("alice")))
    );
    let nothing = PublishedState {
        has_card: false,
        prekeys: 0,
    };
    assert_eq!(directory.published(&device(1)), Ok(nothing));
    assert_eq!(directory.devices(&user("alice"), 100), Ok(vec![]));
    assert_eq!(directory.remove(&device(1), None).await, Ok(None));
    assert_eq!(directory.removed(), Ok(vec![device(1)]));
    // docs/protocol.md §5.2: whoever enrols, it publishes nothing more.
    assert_eq!(
        directory
            .publish_card(&user("alice"), &device(1), card(2, 100, b"again"))
            .await,
        Err(PublishError::Removed)
    );
    assert_eq!(
        directory.publish_prekeys(&device(1), prekeys([7])).await,
        Err(PublishError::Removed)
    );
}

#[tokio::test]
async fn a_device_whose_attestation_is_too_old_does_not_keep_others_from_the_user() {
    // docs/protocol.md §2.3, §5.2
    let directory = directory();
    let (alice, month) = (user("alice"), limits::MAX_ATTESTATION_AGE_SECONDS);
    publish(&directory, "alice", 1).await;
    let later = card(1, 101, b"later");
    directory
        .publish_card(&alice, &device(2), later)
        .await
        .unwrap();

    assert_eq!(directory.devices(&alice, 100 + month).unwrap().len(), 2);
    assert_eq!(directory.devices(&alice, 101 + month), Ok(vec![device(2)]));
    let entries = directory
        .cards(&alice, true, None, 101 + month)
        .await
        .unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(directory.devices(&alice, 102 + month), Ok(vec![]));

    // It is back with its next card.
    let mut fresh = card(2, 200, b"fresh");
    fresh.attested = 102 + month;
    directory
        .publish_card(&alice, &device(1), fresh)
        .await
        .unwrap();
    assert_eq!(directory.devices(&alice, 102 + month), Ok(vec![device(1)]));
}

#[tokio::test]
async fn devices_that_have_been_away_too_long_do_not_count_among_the_16() {
    // docs/protocol.md §12
    let (directory, alice) = (directory(), user("alice"));
    for number in 1..=16 {
        publish(&directory, "alice", number).await;
    }
    let mut seventeenth = card(1, 100, b"17");
    let refused = directory
        .publish_card(&alice, &device(17), seventeenth.clone())
        .await;
    assert_eq!(refused, Err(PublishError::TooManyDevices));
    seventeenth.attested = 101 + limits::MAX_ATTESTATION_AGE_SECONDS;
    directory
        .publish_card(&alice, &device(17), seventeenth)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_device_that_comes_back_needs_one_of_the_16_places() {
    // docs/protocol.md §12
    let (directory, alice) = (directory(), user("alice"));
    for number in 1..=16 {
        publish(&directory, "alice", number).await;
    }
    let later = 101 + limits::MAX_ATTESTATION_AGE_SECONDS;
    for number in 101..=116 {
        directory
            .publish_card(&alice, &device(number), card(1, later, &[number]))
            .await
            .unwrap();
    }
    for number in 1..=16 {
        let back = directory
            .publish_card(&alice, &device(number), card(2, later, &[number, 2]))
            .await;
        assert_eq!(back, Err(PublishError::TooManyDevices));
    }
    let entries = directory.cards(&alice, false, None, later).await.unwrap();
    assert_eq!(entries.len(), 16);

    // Where there is a place again, it comes back, and the others are told.
    directory.remove(&device(116), None).await.unwrap();
    let back = directory
        .publish_card(&alice, &device(1), card(2, later, &[1, 2]))
        .await;
    assert_eq!(back, Ok(Published { new_device: true }));
}

#[tokio::test]
async fn no_more_than_16_devices_are_given_even_where_a_clock_ran_ahead() {
    let (directory, alice) = (directory(), user("alice"));
    for number in 1..=16 {
        publish(&directory, "alice", number).await;
    }
    // By its own attestation, the others have lapsed already.
    let ahead = 101 + limits::MAX_ATTESTATION_AGE_SECONDS;
    directory
        .publish_card(&alice, &device(17), card(1, ahead, b"17"))
        .await
        .unwrap();
    let now = ahead - 60;
    assert_eq!(directory.devices(&alice, now).unwrap().len(), 16);
    for take in [false, true] {
        let entries = directory.cards(&alice, take, None, now).await.unwrap();
        assert_eq!(entries.len(), 16);
    }
}

// docs/protocol.md §5.1, PublishPrekeys
#[tokio::test]
async fn replacing_prekeys_forgets_the_others_and_no_id() {
    let directory = directory();
    publish(&directory, "alice", 1).await;
    let held = async || directory.published(&device(1)).unwrap().prekeys;
    directory
        .publish_prekeys(&device(1), prekeys(1..=100))
        .await
        .unwrap();
    // The second time because the answer to the first was lost.
    for _ in 0..2 {
        directory
            .replace_prekeys(&device(1), prekeys(101..=103))
            .await
            .unwrap();
        assert_eq!(held().await, 3);
    }
    for used in [1, 100] {
        assert_eq!(
            directory.replace_prekeys(&device(1), prekeys([used])).await,
            Err(PublishError::PrekeyIdUsed)
        );
        assert_eq!(held().await, 3);
    }
    assert_eq!(take(&directory, "alice").await, [Some(101)]);
}

#[tokio::test]
async fn replacing_prekeys_leaves_those_of_other_devices_alone() {
    let directory = directory();
    for number in [1, 2, 3] {
        publish(&directory, "alice", number).await;
        directory
            .publish_prekeys(&device(number), prekeys([5]))
            .await
            .unwrap();
    }
    directory
        .replace_prekeys(&device(2), prekeys([6]))
        .await
        .unwrap();
    assert_eq!(take(&directory, "alice").await, [Some(5), Some(6), Some(5)]);
}

#[tokio::test]
async fn a_device_is_removed_by_its_own_user_only() {
    let directory = directory();
    publish(&directory, "alice", 1).await;
    assert_eq!(
        directory.remove(&device(1), Some(&user("bob"))).await,
        Ok(None)
    );
    assert_eq!(
        directory.remove(&device(2), Some(&user("alice"))).await,
        Ok(None)
    );
    assert_eq!(directory.devices(&user("alice"), 100), Ok(vec![device(1)]));
    let alice = user("alice");
    assert_eq!(directory.is_removed(&device(1)), Ok(false));
    assert_eq!(
        directory.remove(&device(1), Some(&alice)).await,
        Ok(Some(alice))
    );
    assert_eq!(directory.is_removed(&device(1)), Ok(true));
    assert_eq!(directory.is_removed(&device(2)), Ok(false));
}

#[tokio::test]
async fn card_that_was_withdrawn_is_gone_and_a_newer_one_is_taken() {
    let directory = directory();
    publish(&directory, "alice", 1).await;
    // It has been replaced since it was looked at.
    directory.withdraw_card(&device(1), 2).await.unwrap();
    let devices = || directory.devices(&user("alice"), 100).unwrap();
    assert_eq!(devices(), [device(1)]);
    directory.withdraw_card(&device(1), 1).await.unwrap();
    assert!(devices().is_empty());
    assert!(!directory.is_removed(&device(1)).unwrap());
    let published = directory
        .publish_card(&user("alice"), &device(1), card(2, 100, b"newer"))
        .await;
    assert_eq!(published, Ok(Published { new_device: true }));
}
