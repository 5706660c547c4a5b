//! How mail gets from one device to another (docs/protocol.md §5.2).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking"
)]

mod support;

use sealwire_protocol::close::RefusalCode;
use sealwire_protocol::frame::{List, Part, Send as SendFrame, ToRelay, UndeliveredReason};
use sealwire_protocol::key::{SigningKey, Thumbprint};
use sealwire_server::Relay;
use serde_json::json;
use support::*;

/// Two devices of different users.
async fn alice_and_bob(relay: &Relay, issuer: &Issuer) -> (Device, Device) {
    (
        Device::join(relay, issuer, "alice").await,
        Device::join(relay, issuer, "bob").await,
    )
}

/// Hangs up.
fn leave(device: Device) -> (SigningKey, String, Thumbprint) {
    let id = device.id();
    let Device { key, token, .. } = device;
    (key, token, id)
}

#[tokio::test]
async fn message_reaches_a_device_that_is_connected() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let (mut alice, mut bob) = alice_and_bob(&relay, &issuer).await;
    assert_accepted(&alice.send("bob", 1, &[bob.id()], b"sealed").await);
    assert_eq!(bob.next().await, delivery(1, 1, &alice, "alice", b"sealed"));
}

#[tokio::test]
async fn message_waits_for_a_device_that_is_away_until_it_acknowledges() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let (mut alice, bob) = alice_and_bob(&relay, &issuer).await;
    let (key, token, id) = leave(bob);
    for message in 1..=3 {
        assert_accepted(&alice.send("bob", message, &[id], &[message]).await);
    }

    let (mut bob, ready) = Device::connect(&relay, key, token).await;
    assert_eq!(mailbox(&ready), (0, FIRST_START + 3, 3));
    for message in 1..=3 {
        assert_eq!(
            bob.next().await,
            delivery(message.into(), message, &alice, "alice", &[message])
        );
    }
    // Cumulative: 1 and 2 are done with, 3 is not.
    bob.ack(FIRST_START + 2).await;
    let (mut bob, ready) = bob.reconnect(&relay).await;
    assert_eq!(mailbox(&ready), (FIRST_START + 2, FIRST_START + 3, 1));
    assert_eq!(bob.next().await, delivery(3, 3, &alice, "alice", &[3]));
    bob.ack(FIRST_START + 3).await;
    let (mut bob, ready) = bob.reconnect(&relay).await;
    assert_eq!(mailbox(&ready), (FIRST_START + 3, FIRST_START + 3, 0));
    bob.nothing_waits().await;
}

// docs/protocol.md §5.2
#[tokio::test]
async fn acknowledgement_beyond_the_mailbox_is_a_violation() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    for (mail, beyond) in [(0, FIRST_START + 1), (1, FIRST_START + 2), (1, u64::MAX)] {
        let (mut alice, mut bob) = alice_and_bob(&relay, &issuer).await;
        for _ in 0..mail {
            let others = alice.send("bob", 1, &[bob.id()], b"x").await;
            // Those of earlier rounds are still bob's devices.
            assert!(matches!(others, Said::Accepted(_) | Said::Refused(..)));
        }
        bob.say(&ToRelay::Ack { position: beyond }).await;
        assert_eq!(bob.closed().await, code(4201, "violation"), "{beyond}");
        assert!(relay.remove_device(&bob.id()).await.unwrap());
    }
}

// docs/protocol.md §5.2: up to the head is no violation, also where nothing was delivered; twice and backwards neither
#[tokio::test]
async fn acknowledgement_within_the_mailbox_is_taken_whatever_its_order() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let (mut alice, mut bob) = alice_and_bob(&relay, &issuer).await;
    for position in [0, 1, FIRST_START] {
        bob.ack(position).await;
    }
    for id in 1..=3 {
        assert_accepted(&alice.send("bob", id, &[bob.id()], b"x").await);
        bob.next().await;
    }
    for position in [3, 1, 3, 2] {
        bob.ack(FIRST_START + position).await;
    }
    let (_, ready) = bob.reconnect(&relay).await;
    assert_eq!(mailbox(&ready), (FIRST_START + 3, FIRST_START + 3, 0));
}

// docs/protocol.md §5.2, Sequences
#[tokio::test]
async fn repeated_send_is_accepted_and_delivers_nothing_new() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let (mut alice, mut bob) = alice_and_bob(&relay, &issuer).await;
    let bob_id = [bob.id()];
    let post = Post::new(1, 1, "bob", &bob_id, b"once");
    assert_accepted(&alice.post(&post).await);
    let stranger = [new_key().thumbprint()];
    for again in [
        post.clone(),
        Post {
            id: 9,
            ..post.clone()
        },
        Post {
            message: b"other",
            ..post.clone()
        },
        Post {
            parts: &stranger,
            ..post.clone()
        },
        Post {
            user: "nobody",
            ..post.clone()
        },
        Post {
            whole: false,
            ..post.clone()
        },
        Post {
            copies: &stranger,
            ..post.clone()
        },
    ] {
        assert_accepted(&alice.post(&again).await);
    }
    assert_accepted(&alice.post(&Post::new(2, 2, "bob", &bob_id, b"next")).await);
    assert_eq!(bob.next().await, delivery(1, 1, &alice, "alice", b"once"));
    assert_eq!(bob.next().await, delivery(2, 2, &alice, "alice", b"next"));
}

// docs/protocol.md §5.2, Sequences
#[tokio::test]
async fn send_whose_answer_was_lost_is_repeated_on_the_next_link() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let (mut alice, mut bob) = alice_and_bob(&relay, &issuer).await;
    let bob_id = [bob.id()];
    alice.begin(&Post::new(1, 1, "bob", &bob_id, b"one")).await;
    // The answer is on its way, and is never read.
    assert_eq!(bob.next().await, delivery(1, 1, &alice, "alice", b"one"));
    bob.ack(FIRST_START + 1).await;
    let (mut alice, ready) = alice.reconnect(&relay).await;
    assert!(matches!(ready, Said::Ready { sent: 1, .. }));
    assert_accepted(&alice.post(&Post::new(1, 1, "bob", &bob_id, b"one")).await);
    bob.nothing_waits().await;
    // The id tells nobody apart: the same id under a new sequence is a new message.
    assert_accepted(&alice.post(&Post::new(2, 1, "bob", &bob_id, b"one")).await);
    assert_eq!(bob.next().await, delivery(2, 1, &alice, "alice", b"one"));
}

// docs/protocol.md §5.2, Sequences: a window of 64, as in RFC 4303 §3.4.3
#[tokio::test]
async fn sequence_is_known_to_63_below_the_highest_and_stale_at_64() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let (mut alice, mut bob) = alice_and_bob(&relay, &issuer).await;
    let bob_id = [bob.id()];
    let post = |sequence| Post::new(sequence, 1, "bob", &bob_id, b"m");
    assert_accepted(&alice.post(&post(100)).await);
    bob.next().await;
    for stale in [36, 35, 1] {
        assert_eq!(refused(alice.post(&post(stale)).await), RefusalCode::Stale);
    }
    bob.nothing_waits().await;
    // Not accepted before, and within: too late, whatever else is wrong.
    for late in [37, 99] {
        let refusal = refused(alice.post(&post(late)).await);
        assert_eq!(refusal, RefusalCode::Overtaken);
    }
    let nobody = [alice.id()];
    let wrong = Post::new(99, 1, "bob", &nobody, b"m");
    assert_eq!(refused(alice.post(&wrong).await), RefusalCode::Overtaken);
    assert_accepted(&alice.post(&post(100)).await);
    bob.nothing_waits().await;
    // One further: what was just within is not known any more.
    assert_accepted(&alice.post(&post(101)).await);
    bob.next().await;
    assert_eq!(refused(alice.post(&post(37)).await), RefusalCode::Stale);
    // Far further: everything before is forgotten, nothing repeated.
    assert_accepted(&alice.post(&post(u64::MAX)).await);
    bob.next().await;
    for stale in [100, 101, u64::MAX - 64] {
        assert_eq!(refused(alice.post(&post(stale)).await), RefusalCode::Stale);
    }
    let (_, ready) = alice.reconnect(&relay).await;
    assert!(matches!(ready, Said::Ready { sent: u64::MAX, .. }));
    bob.nothing_waits().await;
}

// docs/protocol.md §5.2, Sequences
#[tokio::test]
async fn refused_send_uses_up_no_sequence() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let (mut alice, mut bob) = alice_and_bob(&relay, &issuer).await;
    let (bob_id, stranger) = ([bob.id()], [new_key().thumbprint()]);
    assert_eq!(
        refused(alice.post(&Post::new(1, 1, "bob", &stranger, b"x")).await),
        RefusalCode::DevicesChanged
    );
    assert_accepted(&alice.post(&Post::new(1, 1, "bob", &bob_id, b"x")).await);
    assert_eq!(bob.next().await, delivery(1, 1, &alice, "alice", b"x"));
}

// docs/protocol.md §5.2, Sequences: of each device
#[tokio::test]
async fn sequences_of_two_devices_have_nothing_to_do_with_each_other() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let (mut alice, mut bob) = alice_and_bob(&relay, &issuer).await;
    let mut carol = Device::join(&relay, &issuer, "carol").await;
    let bob_id = [bob.id()];
    let post = Post::new(7, 1, "bob", &bob_id, b"x");
    assert_accepted(&alice.post(&post).await);
    assert_accepted(&carol.post(&post).await);
    assert_eq!(bob.next().await, delivery(1, 1, &alice, "alice", b"x"));
    assert_eq!(bob.next().await, delivery(2, 1, &carol, "carol", b"x"));
}

// docs/protocol.md §5.2
#[tokio::test]
async fn messages_of_one_record_arrive_in_its_order() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let (mut alice, mut bob) = alice_and_bob(&relay, &issuer).await;
    let bodies: Vec<[u8; 1]> = (1..=50).map(|body| [body]).collect();
    let parts: Vec<_> = bodies
        .iter()
        .map(|body| {
            [Part {
                device: bob.id(),
                message: body,
            }]
        })
        .collect();
    let frames: Vec<_> = parts
        .iter()
        .zip(1..)
        .map(|(parts, number)| {
            ToRelay::Send(SendFrame {
                request: 100 + u32::from(number),
                sequence: u64::from(number),
                id: [number; 16],
                user: "bob",
                whole: true,
                parts: List::from(parts.as_slice()),
                copies: List::empty(),
            })
        })
        .collect();
    alice.say_all(&frames).await;
    for number in 1..=50 {
        assert_eq!(
            bob.next().await,
            delivery(number.into(), number, &alice, "alice", &[number])
        );
    }
    for _ in 1..=50 {
        assert_accepted(&alice.next().await);
    }
}

// docs/protocol.md §5.3
#[tokio::test]
async fn recipient_that_is_not_permitted_looks_the_same_whether_or_not_it_exists() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let bob = Device::join(&relay, &issuer, "bob").await;
    let key = new_key();
    let token = issuer.token_limited("alice", &key, &json!({ "to": ["carol", "team-*"] }));
    let (mut alice, _) = Device::connect(&relay, key, token).await;
    for user in ["bob", "nobody", "caro", "carol2", "team"] {
        assert_eq!(
            refused(alice.send(user, 1, &[bob.id()], b"x").await),
            RefusalCode::NotPermitted,
            "{user}"
        );
        assert_eq!(
            refused(alice.fetch(user, true).await),
            RefusalCode::NotPermitted,
            "{user}"
        );
    }
    for user in ["carol", "team-1"] {
        assert_eq!(
            refused(alice.send(user, 1, &[bob.id()], b"x").await),
            RefusalCode::UnknownUser,
            "{user}"
        );
        assert_eq!(
            refused(alice.fetch(user, true).await),
            RefusalCode::UnknownUser,
            "{user}"
        );
    }
}

/// alice with two devices, bob with two; alice's first sends.
struct Four {
    alice: Device,
    tablet: Device,
    phone: Device,
    laptop: Device,
}

impl Four {
    async fn join(relay: &Relay, issuer: &Issuer) -> Self {
        let mut alice = Device::join(relay, issuer, "alice").await;
        let tablet = Device::join(relay, issuer, "alice").await;
        let mut phone = Device::join(relay, issuer, "bob").await;
        let laptop = Device::join(relay, issuer, "bob").await;
        assert_eq!(alice.next().await, Said::DeviceChanged("alice".into()));
        assert_eq!(phone.next().await, Said::DeviceChanged("bob".into()));
        Self {
            alice,
            tablet,
            phone,
            laptop,
        }
    }
}

// docs/protocol.md §5.2: whole = 1
#[tokio::test]
async fn send_that_is_not_for_exactly_the_recipients_devices_is_refused() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let mut four = Four::join(&relay, &issuer).await;
    let (own, phone, laptop) = (four.tablet.id(), four.phone.id(), four.laptop.id());
    let (alice, stranger) = (four.alice.id(), new_key().thumbprint());
    let both = [laptop, phone];
    let wrong_parts: [&[Thumbprint]; 7] = [
        &[phone],
        &[stranger],
        &[phone, laptop, stranger],
        &[phone, stranger],
        &[phone, phone],
        &[phone, laptop, laptop],
        &[phone, laptop, own],
    ];
    for parts in wrong_parts {
        let post = Post {
            copies: &[own],
            ..Post::new(1, 1, "bob", parts, b"x")
        };
        assert_eq!(
            refused(four.alice.post(&post).await),
            RefusalCode::DevicesChanged,
            "{parts:?}"
        );
    }
    let wrong_copies: [&[Thumbprint]; 6] = [
        &[],
        &[stranger],
        &[own, stranger],
        &[own, own],
        &[own, alice],
        &[alice],
    ];
    for copies in wrong_copies {
        let post = Post {
            copies,
            ..Post::new(1, 1, "bob", &both, b"x")
        };
        assert_eq!(
            refused(four.alice.post(&post).await),
            RefusalCode::OwnDevicesChanged,
            "{copies:?}"
        );
    }
    for device in [&mut four.phone, &mut four.laptop, &mut four.tablet] {
        device.nothing_waits().await;
    }
    let post = Post {
        copies: &[own],
        ..Post::new(1, 1, "bob", &both, b"x")
    };
    assert_accepted(&four.alice.post(&post).await);
    for device in [&mut four.phone, &mut four.laptop, &mut four.tablet] {
        let expected = delivery(1, 1, &four.alice, "alice", b"x");
        assert_eq!(device.next().await, expected);
    }
}

// docs/protocol.md §5.2: whole = 0
#[tokio::test]
async fn send_for_some_devices_is_for_distinct_ones_among_them_and_has_no_copies() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let mut four = Four::join(&relay, &issuer).await;
    let (own, phone, laptop) = (four.tablet.id(), four.phone.id(), four.laptop.id());
    let stranger = new_key().thumbprint();
    let wrong: [(&[Thumbprint], &[Thumbprint]); 6] = [
        (&[stranger], &[]),
        (&[phone, stranger], &[]),
        (&[phone, phone], &[]),
        (&[phone, own], &[]),
        (&[phone], &[own]),
        (&[phone, laptop], &[own]),
    ];
    for (parts, copies) in wrong {
        let post = Post {
            whole: false,
            copies,
            ..Post::new(1, 1, "bob", parts, b"x")
        };
        assert_eq!(
            refused(four.alice.post(&post).await),
            RefusalCode::DevicesChanged,
            "{parts:?} {copies:?}"
        );
    }
    let one = [laptop];
    let post = Post {
        whole: false,
        ..Post::new(1, 1, "bob", &one, b"x")
    };
    assert_accepted(&four.alice.post(&post).await);
    let expected = delivery(1, 1, &four.alice, "alice", b"x");
    assert_eq!(four.laptop.next().await, expected);
    for device in [&mut four.phone, &mut four.tablet] {
        device.nothing_waits().await;
    }
}

// docs/protocol.md §5.2: the own user
#[tokio::test]
async fn send_to_the_own_user_is_for_the_others_and_has_no_copies() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let mut four = Four::join(&relay, &issuer).await;
    let (alice, own, phone) = (four.alice.id(), four.tablet.id(), four.phone.id());
    for whole in [true, false] {
        let wrong: [(&[Thumbprint], &[Thumbprint]); 5] = [
            (&[alice], &[]),
            (&[own, alice], &[]),
            (&[phone], &[]),
            (&[own], &[own]),
            (&[own], &[phone]),
        ];
        for (parts, copies) in wrong {
            let post = Post {
                whole,
                copies,
                ..Post::new(1, 1, "alice", parts, b"x")
            };
            assert_eq!(
                refused(four.alice.post(&post).await),
                RefusalCode::DevicesChanged,
                "{whole} {parts:?} {copies:?}"
            );
        }
    }
    for (sequence, whole) in [(1, true), (2, false)] {
        let others = [own];
        let post = Post {
            whole,
            ..Post::new(sequence, 1, "alice", &others, b"x")
        };
        assert_accepted(&four.alice.post(&post).await);
        let expected = delivery(sequence, 1, &four.alice, "alice", b"x");
        assert_eq!(four.tablet.next().await, expected);
    }
    // Whoever has no other device has nobody to write to.
    let mut carol = Device::join(&relay, &issuer, "carol").await;
    let only = [carol.id()];
    assert_eq!(
        refused(carol.post(&Post::new(1, 1, "carol", &only, b"x")).await),
        RefusalCode::UnknownUser
    );
}

// docs/protocol.md §5.2: accepted or refused as a whole
#[tokio::test]
async fn send_that_one_mailbox_does_not_take_is_in_none() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let mut alice = Device::join(&relay, &issuer, "alice").await;
    let mut phone = Device::join(&relay, &issuer, "bob").await;
    let key = new_key();
    let token = issuer.token_limited("bob", &key, &json!({ "mailbox_messages": 1 }));
    let (mut small, _) = Device::connect(&relay, key, token).await;
    let card = small.card("bob", 1);
    assert_accepted(&small.publish_card(&card).await);
    assert_eq!(phone.next().await, Said::DeviceChanged("bob".into()));
    let both = [phone.id(), small.id()];
    assert_accepted(&alice.send("bob", 1, &both, b"x").await);
    assert_eq!(
        refused(alice.send("bob", 2, &both, b"y").await),
        RefusalCode::MailboxFull
    );
    phone.next().await;
    phone.nothing_waits().await;
    assert_eq!(small.next().await, delivery(1, 1, &alice, "alice", b"x"));
    small.ack(FIRST_START + 1).await;
    small.nothing_waits().await;
    assert_accepted(&alice.send("bob", 3, &both, b"z").await);
    assert_eq!(phone.next().await, delivery(2, 3, &alice, "alice", b"z"));
}

// docs/protocol.md §5.2: a device of the sender's own user keeps nobody from writing
#[tokio::test]
async fn own_device_without_room_is_left_out_and_its_user_is_told() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let mut alice = Device::join(&relay, &issuer, "alice").await;
    let mut bob = Device::join(&relay, &issuer, "bob").await;
    let key = new_key();
    let token = issuer.token_limited("alice", &key, &json!({ "mailbox_messages": 1 }));
    let (mut idle, _) = Device::connect(&relay, key, token).await;
    let card = idle.card("alice", 1);
    assert_accepted(&idle.publish_card(&card).await);
    assert_eq!(alice.next().await, Said::DeviceChanged("alice".into()));
    let (key, token, idle) = leave(idle);
    let (bob_id, own) = ([bob.id()], [idle]);
    let post = |number: u8| Post {
        copies: &own,
        ..Post::new(number.into(), number, "bob", &bob_id, b"x")
    };
    assert_accepted(&alice.post(&post(1)).await);
    bob.next().await;
    let undelivered = |position, id| Said::Undelivered {
        position: FIRST_START + position,
        id: [id; 16],
        user: "alice".into(),
        device: idle,
        reason: UndeliveredReason::MailboxFull,
    };
    for number in 2..=3 {
        assert_accepted(&alice.post(&post(number)).await);
        assert_eq!(
            bob.next().await,
            delivery(number.into(), number, &alice, "alice", b"x")
        );
        assert_eq!(
            alice.next().await,
            undelivered(u64::from(number) - 1, number)
        );
    }
    assert_accepted(&alice.post(&post(3)).await);
    alice.ack(FIRST_START + 2).await;
    alice.nothing_waits().await;
    // It is told to the device that sends, and the idle one has what had room.
    let (_, ready) = Device::connect(&relay, key, token).await;
    assert_eq!(mailbox(&ready).2, 1);
}

// docs/protocol.md §5.2: where nothing would be left, refused
#[tokio::test]
async fn message_to_oneself_is_refused_where_no_own_device_has_room() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let mut alice = Device::join(&relay, &issuer, "alice").await;
    let key = new_key();
    let token = issuer.token_limited("alice", &key, &json!({ "mailbox_messages": 1 }));
    let (mut idle, _) = Device::connect(&relay, key, token).await;
    let card = idle.card("alice", 1);
    assert_accepted(&idle.publish_card(&card).await);
    assert_eq!(alice.next().await, Said::DeviceChanged("alice".into()));
    let (_, _, idle) = leave(idle);
    assert_accepted(&alice.send("alice", 1, &[idle], b"x").await);
    assert_eq!(
        refused(alice.send("alice", 2, &[idle], b"x").await),
        RefusalCode::MailboxFull
    );
    alice.nothing_waits().await;
}

// docs/protocol.md §5.3: quota
#[tokio::test]
async fn user_that_fills_its_share_of_a_mailbox_keeps_nobody_else_out() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let mut alice = Device::join(&relay, &issuer, "alice").await;
    let mut carol = Device::join(&relay, &issuer, "carol").await;
    let key = new_key();
    let token = issuer.token_limited("bob", &key, &json!({ "mailbox_messages": 20 }));
    let (mut bob, _) = Device::connect(&relay, key, token).await;
    let card = bob.card("bob", 1);
    assert_accepted(&bob.publish_card(&card).await);
    let (key, token, id) = leave(bob);
    for message in 1..=16 {
        assert_accepted(&alice.send("bob", message, &[id], b"x").await);
    }
    assert_eq!(
        refused(alice.send("bob", 17, &[id], b"x").await),
        RefusalCode::Quota
    );
    assert_accepted(&carol.send("bob", 1, &[id], b"x").await);
    let (_, ready) = Device::connect(&relay, key, token).await;
    assert_eq!(mailbox(&ready).2, 17);
}

// docs/protocol.md §5.2, Undelivered and RemoveDevice
#[tokio::test]
async fn sender_is_told_of_what_was_in_the_mailbox_of_a_removed_device() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let mut four = Four::join(&relay, &issuer).await;
    let (own, phone, laptop) = (four.tablet.id(), four.phone.id(), four.laptop.id());
    drop(four.laptop);
    for sequence in 1..=2 {
        let both = [phone, laptop];
        let post = Post {
            copies: &[own],
            ..Post::new(sequence, 1, "bob", &both, b"x")
        };
        assert_accepted(&four.alice.post(&post).await);
        four.phone.next().await;
        four.tablet.next().await;
    }
    assert_accepted(&four.phone.remove(laptop).await);
    assert_eq!(four.phone.next().await, Said::DeviceChanged("bob".into()));
    let mut said = Vec::new();
    for _ in 0..3 {
        said.push(four.alice.next().await);
    }
    let undelivered = |position| Said::Undelivered {
        position: FIRST_START + position,
        id: [1; 16],
        user: "bob".into(),
        device: laptop,
        reason: UndeliveredReason::DeviceRemoved,
    };
    assert!(
        said.contains(&Said::DeviceChanged("bob".into())),
        "{said:?}"
    );
    said.retain(|said| *said != Said::DeviceChanged("bob".into()));
    assert_eq!(said, [undelivered(1), undelivered(2)]);
    // They wait until they are acknowledged, like mail.
    four.alice.ack(FIRST_START + 1).await;
    let (mut alice, ready) = four.alice.reconnect(&relay).await;
    assert_eq!(mailbox(&ready), (FIRST_START + 1, FIRST_START + 2, 1));
    assert_eq!(alice.next().await, undelivered(2));
    // Who did not send, and whose device acknowledged, hear nothing.
    for device in [&mut four.tablet, &mut four.phone] {
        device.nothing_waits().await;
    }
}

// docs/protocol.md §5.2: at most so much unacknowledged
#[tokio::test]
async fn device_that_acknowledges_nothing_gets_no_more_than_a_window() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let (mut alice, bob) = alice_and_bob(&relay, &issuer).await;
    let (key, token, id) = leave(bob);
    for message in 0..=255 {
        assert_accepted(&alice.send("bob", message, &[id], &[message]).await);
    }
    for _ in 0..4 {
        assert_accepted(&alice.send("bob", 7, &[id], b"more").await);
    }
    let (mut bob, _) = Device::connect(&relay, key, token).await;
    for _ in 0..256 {
        assert!(matches!(bob.next().await, Said::Deliver { .. }));
    }
    bob.nothing_waits().await;
    bob.ack(FIRST_START + 3).await;
    for position in 257..260 {
        assert_eq!(
            bob.next().await,
            delivery(position, 7, &alice, "alice", b"more")
        );
    }
    bob.nothing_waits().await;
}

// docs/protocol.md §5.2, Sequences
#[tokio::test]
async fn what_skips_a_sequence_is_delivered_once_it_is_durable_also_where_its_sender_has_gone() {
    let issuer = Issuer::new();
    let directory = tempfile::tempdir().unwrap();
    let builder = issuer.configure(Relay::builder(directory.path()));
    let relay = builder.bind("127.0.0.1:0").await.unwrap();
    let (mut alice, mut bob) = alice_and_bob(&relay, &issuer).await;
    let bob_id = [bob.id()];
    assert_accepted(&alice.post(&Post::new(2, 2, "bob", &bob_id, b"two")).await);
    assert_eq!(bob.next().await, delivery(1, 2, &alice, "alice", b"two"));
    alice.begin(&Post::new(4, 4, "bob", &bob_id, b"four")).await;
    let expected = delivery(2, 4, &alice, "alice", b"four");
    leave(alice);
    assert_eq!(bob.next().await, expected);
}

#[tokio::test]
async fn accepted_mail_outlives_the_relay_and_so_does_what_was_sent() {
    let issuer = Issuer::new();
    let directory = tempfile::tempdir().unwrap();
    let start = async || {
        issuer
            .configure(Relay::builder(directory.path()))
            .bind("127.0.0.1:0")
            .await
            .unwrap()
    };
    let relay = start().await;
    let identity = relay.thumbprint();
    let (mut alice, bob) = alice_and_bob(&relay, &issuer).await;
    let (key, token, id) = leave(bob);
    assert_accepted(&alice.send("bob", 1, &[id], b"durable").await);
    within(relay.shutdown()).await;

    let relay = start().await;
    assert_eq!(relay.thumbprint(), identity);
    let (mut alice, ready) = alice.reconnect(&relay).await;
    assert!(matches!(ready, Said::Ready { sent: 1, .. }), "{ready:?}");
    assert_accepted(&alice.post(&Post::new(1, 1, "bob", &[id], b"durable")).await);
    let (mut bob, ready) = Device::connect(&relay, key, token).await;
    // §5.2: the head is never below where this start begins.
    let (acknowledged, head, waiting) = mailbox(&ready);
    assert_eq!((acknowledged, waiting), (0, 1));
    assert!(head >= 2 * FIRST_START, "{head:x}");
    assert_eq!(
        bob.next().await,
        delivery(1, 1, &alice, "alice", b"durable")
    );
    // A position of this start is above all of earlier ones.
    assert_accepted(&alice.send("bob", 2, &[id], b"later").await);
    match bob.next().await {
        Said::Deliver { position, .. } => assert_eq!(position, 2 * FIRST_START + 1),
        other => panic!("{other:?}"),
    }
    // An acknowledgement of anything up to the head is in order.
    bob.ack(2 * FIRST_START + 1).await;
    bob.nothing_waits().await;
}

// docs/protocol.md §13: what was accepted is durable when the relay has stopped, and what was not has no answer
#[tokio::test]
async fn relay_that_stops_in_the_middle_of_sending_loses_nothing_that_it_accepted() {
    let issuer = Issuer::new();
    let directory = tempfile::tempdir().unwrap();
    let start = async || {
        issuer
            .configure(Relay::builder(directory.path()))
            .bind("127.0.0.1:0")
            .await
            .unwrap()
    };
    let relay = start().await;
    let (mut alice, bob) = alice_and_bob(&relay, &issuer).await;
    let (key, token, id) = leave(bob);
    for sequence in 1..=60 {
        let part = [id];
        alice
            .begin(&Post::new(sequence, 1, "bob", &part, b"x"))
            .await;
    }
    assert_accepted(&alice.next().await);
    let stopping = tokio::spawn(relay.shutdown());
    let accepted = 1 + alice.accepted_until_the_end().await;
    within(stopping).await.unwrap();

    let relay = start().await;
    let (_, ready) = alice.reconnect(&relay).await;
    let Said::Ready { sent, .. } = ready else {
        panic!("{ready:?}")
    };
    let (mut bob, ready) = Device::connect(&relay, key, token).await;
    let waiting = u64::from(mailbox(&ready).2);
    assert!(sent >= accepted, "{accepted} accepted, {sent} known");
    assert_eq!(waiting, sent, "neither lost nor doubled");
    for position in 1..=waiting {
        match bob.next().await {
            Said::Deliver { position: at, .. } => assert_eq!(at, FIRST_START + position),
            other => panic!("{other:?}"),
        }
    }
}

/// Changes one byte of a message that lies in a file of `directory`.
fn damage(directory: &std::path::Path, message: &[u8]) {
    let mut damaged = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        let found = bytes
            .windows(message.len())
            .position(|window| window == message);
        if let Some(at) = found {
            bytes[at] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            damaged += 1;
        }
    }
    assert_eq!(damaged, 1);
}

// docs/protocol.md §5.2, Damaged
#[tokio::test]
async fn message_that_the_disk_has_changed_is_told_of_and_never_served() {
    let issuer = Issuer::new();
    let directory = tempfile::tempdir().unwrap();
    let start = async || {
        issuer
            .configure(Relay::builder(directory.path()))
            .bind("127.0.0.1:0")
            .await
            .unwrap()
    };
    let relay = start().await;
    let (mut alice, bob) = alice_and_bob(&relay, &issuer).await;
    let (key, token, id) = leave(bob);
    assert_accepted(&alice.send("bob", 1, &[id], b"the one before").await);
    assert_accepted(&alice.send("bob", 2, &[id], b"one that is damaged").await);
    assert_accepted(&alice.send("bob", 3, &[id], b"the one after").await);
    within(relay.shutdown()).await;
    damage(&directory.path().join("mail"), b"one that is damaged");

    let relay = start().await;
    let (mut bob, ready) = Device::connect(&relay, key, token).await;
    assert_eq!(mailbox(&ready).2, 3);
    assert_eq!(
        bob.next().await,
        delivery(1, 1, &alice, "alice", b"the one before")
    );
    assert_eq!(bob.next().await, Said::Damaged(FIRST_START + 2));
    assert_eq!(
        bob.next().await,
        delivery(3, 3, &alice, "alice", b"the one after")
    );
    // It is acknowledged like any other, and then gone.
    bob.ack(FIRST_START + 2).await;
    let (mut bob, ready) = bob.reconnect(&relay).await;
    assert_eq!(mailbox(&ready).0, FIRST_START + 2);
    assert_eq!(
        bob.next().await,
        delivery(3, 3, &alice, "alice", b"the one after")
    );
}
