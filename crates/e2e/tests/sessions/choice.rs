//! Several sessions with one device, and which one seals (docs/protocol.md §7.5).

use proptest::{prelude::*, sample::Index};
use sealwire_e2e::{
    error::{Error, Gone, Misuse},
    message::SealedMessage,
    peer::Peer,
};

use crate::pair::{DAY, Device, World};

fn session_of(message: &[u8]) -> [u8; 16] {
    SealedMessage::decode(message).unwrap().header().session
}

#[test]
fn two_devices_that_start_at_once_converge_on_the_smaller_session_id() {
    for seed in 70..76 {
        let (mut world, mut alice, mut bob) = World::pair(seed);
        let ids = [
            world.start(&mut alice, &mut bob),
            world.start(&mut bob, &mut alice),
        ];
        let (from_alice, from_bob) = (world.seal(&mut alice, "a"), world.seal(&mut bob, "b"));
        let started = [
            world.open(&mut bob, &from_alice).unwrap(),
            world.open(&mut alice, &from_bob).unwrap(),
        ];
        let smaller = ids.into_iter().min();
        assert_eq!(
            started.map(|opened| opened.started.unwrap().seals),
            ids.map(|id| Some(id) == smaller)
        );
        assert_eq!(
            (alice.peer.sealing(), bob.peer.sealing()),
            (smaller, smaller)
        );
        for _ in 0..2 {
            assert_eq!(
                Some(world.send(&mut alice, &mut bob, "on").session),
                smaller
            );
            assert_eq!(
                Some(world.send(&mut bob, &mut alice, "on").session),
                smaller
            );
        }
    }
}

#[test]
fn messages_under_way_in_the_session_that_lost_still_open() {
    let (mut world, mut alice, mut bob) = World::pair(77);
    world.start(&mut alice, &mut bob);
    world.start(&mut bob, &mut alice);
    let from_alice: Vec<_> = (0..3)
        .map(|n| world.seal(&mut alice, &format!("a{n}")))
        .collect();
    let from_bob: Vec<_> = (0..3)
        .map(|n| world.seal(&mut bob, &format!("b{n}")))
        .collect();
    for n in 0..3 {
        world.open(&mut bob, &from_alice[n]).unwrap();
        world.open(&mut alice, &from_bob[n]).unwrap();
    }
    assert_eq!(alice.peer.sealing(), bob.peer.sealing());
}

/// docs/protocol.md §7.5: a new session takes over when its first message has been opened.
#[test]
fn a_session_of_a_peer_that_lost_its_state_takes_over() {
    let (mut world, mut alice, mut bob) = World::talking(78);
    bob.peer = Peer::new(alice.keys.thumbprint());
    world.now += 1;
    let unreadable = world.seal(&mut alice, "into the void");
    assert_eq!(
        world.open(&mut bob, &unreadable).unwrap_err(),
        Error::Gone(Gone::Session)
    );
    let id = world.start(&mut bob, &mut alice);
    let first = world.seal(&mut bob, "I am back");
    assert!(
        world
            .open(&mut alice, &first)
            .unwrap()
            .started
            .unwrap()
            .seals
    );
    assert_eq!(world.send(&mut alice, &mut bob, "welcome").session, id);
    world.send(&mut bob, &mut alice, "thanks");
}

/// docs/protocol.md §7.5: also over an unanswered session of the peer's earlier life.
#[test]
fn a_second_start_by_the_same_device_takes_over() {
    let (mut world, mut alice, mut bob) = World::pair(79);
    world.start(&mut alice, &mut bob);
    world.send(&mut alice, &mut bob, "first");
    let id = world.start(&mut alice, &mut bob);
    world.send(&mut alice, &mut bob, "second");
    assert_eq!(bob.peer.sealing(), Some(id));
}

/// docs/protocol.md §7.5: at most 4; the oldest that is not sealing is dropped for a fifth.
#[test]
fn the_oldest_session_that_does_not_seal_is_dropped_for_a_fifth() {
    let (mut world, mut alice, mut bob) = World::pair(80);
    let mut late = Vec::new();
    for n in 0..5 {
        bob.one_time = bob
            .prekeys
            .publish_one_time(&bob.keys, 1, &mut world.rng, world.now)
            .unwrap();
        world.start(&mut alice, &mut bob);
        late.push(world.seal(&mut alice, "late"));
        world.send(&mut alice, &mut bob, &format!("{n}"));
    }
    // The first session's message would start it again, but its prekey is gone.
    assert_eq!(
        world.open(&mut bob, &late[0]).unwrap_err(),
        Error::Gone(Gone::OneTimePrekey)
    );
    for message in &late[1..] {
        world.open(&mut bob, message).unwrap();
    }
}

/// docs/protocol.md §7.5: what seals is never dropped.
#[test]
fn sessions_that_lose_the_choice_never_push_out_the_one_that_seals() {
    let (mut world, mut alice, mut bob) = World::pair(81);
    // Bob keeps a session that is later than all of Alice's, by his clock.
    let (card, _) = world.fetch(&mut alice);
    let latest = bob
        .peer
        .start(
            &bob.keys,
            &bob.own,
            &card,
            None,
            &mut world.rng,
            world.now + 50,
        )
        .unwrap();
    for _ in 0..8 {
        bob.one_time = bob
            .prekeys
            .publish_one_time(&bob.keys, 1, &mut world.rng, world.now)
            .unwrap();
        world.start(&mut alice, &mut bob);
        let opened = world.send(&mut alice, &mut bob, "x");
        assert!(!opened.started.unwrap().seals);
        assert_eq!(bob.peer.sealing(), Some(latest));
    }
}

/// docs/protocol.md §7.5: a session that one device starts later takes over whatever its id.
#[test]
fn the_smaller_id_does_not_keep_an_earlier_session() {
    for seed in 82..88 {
        let (mut world, mut alice, mut bob) = World::talking(seed);
        let id = world.start(&mut bob, &mut alice);
        let first = world.seal(&mut bob, "new");
        assert!(
            world
                .open(&mut alice, &first)
                .unwrap()
                .started
                .unwrap()
                .seals
        );
        assert_eq!(session_of(&world.seal(&mut alice, "x")), id);
    }
}

/// docs/protocol.md §7.5: Bob opened Alice's session and lost it before he answered; hers is unanswered when his arrives.
#[test]
fn a_repair_wins_over_the_unanswered_session_that_was_lost() {
    for seed in 200..232 {
        let (mut world, mut alice, mut bob) = World::pair(seed);
        world.start(&mut alice, &mut bob);
        world.send(&mut alice, &mut bob, "one");
        bob.peer = Peer::new(alice.keys.thumbprint());
        let lost = world.seal(&mut alice, "two");
        assert_eq!(
            world.open(&mut bob, &lost).unwrap_err(),
            Error::Gone(Gone::OneTimePrekey)
        );
        world.now += 1;
        let id = world.start(&mut bob, &mut alice);
        world.send(&mut bob, &mut alice, "please use this one");
        world.now += 6 * DAY;
        assert_eq!(world.send(&mut alice, &mut bob, "yes").session, id);
    }
}

/// docs/protocol.md §7.5: the relay holds back a first message; when it comes the newer session stays.
#[test]
fn an_earlier_session_that_arrives_late_does_not_take_over() {
    let (mut world, mut alice, mut bob) = World::pair(91);
    world.start(&mut alice, &mut bob);
    let held_back = world.seal(&mut alice, "held back");
    let id = world.start(&mut alice, &mut bob);
    world.send(&mut alice, &mut bob, "on time");
    let late = world.open(&mut bob, &held_back).unwrap();
    assert!(!late.started.unwrap().seals);
    assert_eq!(bob.peer.sealing(), Some(id));
}

/// docs/protocol.md §7.5: a clock that was wrong once does not keep a session.
#[test]
fn a_session_from_the_future_gives_way() {
    let (mut world, mut alice, mut bob) = World::pair(92);
    let now = world.now;
    world.now += 10 * DAY;
    world.start(&mut alice, &mut bob);
    world.now = now;
    assert!(alice.peer.needs_session(now));
    let id = world.start(&mut bob, &mut alice);
    let opened = world.send(&mut bob, &mut alice, "x");
    assert!(opened.started.unwrap().seals);
    assert_eq!(alice.peer.sealing(), Some(id));
}

#[derive(Clone, Debug)]
enum Step {
    Start { by_alice: bool },
    Send { by_alice: bool },
    Deliver { to_alice: bool, which: Index },
    Second,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => any::<bool>().prop_map(|by_alice| Step::Start { by_alice }),
        2 => any::<bool>().prop_map(|by_alice| Step::Send { by_alice }),
        3 => any::<(bool, Index)>().prop_map(|(to_alice, which)| Step::Deliver { to_alice, which }),
        1 => Just(Step::Second),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// docs/protocol.md §7.5: whoever starts how many sessions, and in whatever order messages arrive, once all have arrived
    /// both devices seal in the same session.
    #[test]
    fn devices_converge_in_every_order(seed in any::<u64>(), steps in prop::collection::vec(step(), 1..40), rest in any::<Index>()) {
        let (mut world, mut alice, mut bob) = World::pair(seed);
        let (mut to_alice, mut to_bob) = (Vec::new(), Vec::new());
        let mut sessions = 0;
        for step in steps {
            match step {
                Step::Start { by_alice } if sessions < 4 => {
                    sessions += 1;
                    let (from, to, way) = if by_alice { (&mut alice, &mut bob, &mut to_bob) } else { (&mut bob, &mut alice, &mut to_alice) };
                    world.start(from, to);
                    way.push(world.seal(from, "first"));
                }
                Step::Start { .. } => {}
                Step::Send { by_alice } => {
                    let (from, way) = if by_alice { (&mut alice, &mut to_bob) } else { (&mut bob, &mut to_alice) };
                    if !from.peer.needs_session(world.now) {
                        way.push(world.seal(from, "more"));
                    }
                }
                Step::Deliver { to_alice: to, which } => {
                    let (at, way) = if to { (&mut alice, &mut to_alice) } else { (&mut bob, &mut to_bob) };
                    if !way.is_empty() {
                        world.open(at, &way.swap_remove(which.index(way.len()))).unwrap();
                    }
                }
                Step::Second => world.now += 1,
            }
        }
        while !to_alice.is_empty() {
            world.open(&mut alice, &to_alice.swap_remove(rest.index(to_alice.len()))).unwrap();
        }
        while !to_bob.is_empty() {
            world.open(&mut bob, &to_bob.swap_remove(rest.index(to_bob.len()))).unwrap();
        }
        prop_assert_eq!(alice.peer.sealing(), bob.peer.sealing());
    }
}

#[test]
fn sealing_without_a_session_is_refused() {
    let (mut world, mut alice, mut bob) = World::talking(88);
    assert!(!alice.peer.needs_session(world.now));
    alice.peer.forget_sessions();
    assert!(alice.peer.needs_session(world.now));
    assert_eq!(
        alice.peer.seal(b"x", &mut world.rng).unwrap_err(),
        Error::Misuse(Misuse::NoSession)
    );
    assert!(alice.peer.identity().is_some());
    let message = world.seal(&mut bob, "x");
    assert_eq!(
        world.open(&mut alice, &message).unwrap_err(),
        Error::Gone(Gone::Session)
    );
}

#[test]
fn a_session_unanswered_for_a_week_has_to_be_started_again() {
    let (mut world, mut alice, mut bob) = World::pair(89);
    world.start(&mut alice, &mut bob);
    assert!(!alice.peer.needs_session(world.now + 7 * DAY));
    assert!(alice.peer.needs_session(world.now + 7 * DAY + 1));
    world.send(&mut alice, &mut bob, "first");
    world.send(&mut bob, &mut alice, "answer");
    assert!(!alice.peer.needs_session(world.now + 365 * DAY));
}

/// A content that no message can carry is refused and the session goes on as if nothing had happened.
#[test]
fn content_that_is_too_long_changes_nothing() {
    let (mut world, mut alice, mut bob) = World::talking(90);
    for with_turn in [true, false] {
        let Device { peer, .. } = &mut alice;
        let before = peer.encode();
        let error = peer.seal(&vec![0; 100_000], &mut world.rng).unwrap_err();
        assert_eq!(
            error,
            Error::Misuse(Misuse::Seal(
                sealwire_e2e::message::SealError::ContentTooLong
            ))
        );
        assert!(before == peer.encode(), "{with_turn}");
        assert_eq!(world.send(&mut alice, &mut bob, "short").missing, 0);
    }
}
