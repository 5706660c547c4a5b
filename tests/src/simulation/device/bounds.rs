//! What may be in an engine at most (docs/delivery.md, Bounds).

use sealwire_client::simulation::{Tables, Waiting};

/// Messages of the application that the relay has not accepted, and of those that are sealed again.
const OUTGOING: usize = 256;
const AGAIN: usize = 256;
/// Messages of the engine's own that the relay has not accepted.
const OWN: usize = 512;
/// Events; a few kinds that must not be lost may be added beyond it.
const EVENTS: usize = 3_000 + 512;
/// Messages that did not open, and of one device.
const LOST: usize = 256;
const LOST_OF_A_DEVICE: usize = 64;
/// Messages that are not confirmed, those of them with their content, and bytes of that.
const FOLLOWED: usize = 16_384;
const KEPT: usize = 2_048;
const KEPT_BYTES: usize = 8 << 20;
/// Receipts and repairs that are kept.
const DIRECT: usize = 256;
/// Devices that get messages again.
const RESENDING: usize = 128;
/// Messages that are known to have been shown.
const SEEN: usize = 4_096;
/// Users whose cards are wanted, beyond those that messages wait for.
const LOOKUPS: usize = 256;
/// Devices that are to be removed.
const REMOVALS: usize = 16;
/// Requests that the relay has not answered.
const REQUESTS: usize = 64;

/// Of what there is more than there may be.
pub(super) fn over(waiting: &Waiting, tables: &Tables) -> Option<&'static str> {
    let devices = OUTGOING + AGAIN + OWN + LOST;
    let bounds = [
        // What is sealed again is the application's too, and is counted with it.
        (waiting.outgoing, OUTGOING + AGAIN, "messages in the outbox"),
        (tables.again, AGAIN, "messages that are sealed again"),
        (waiting.own, OWN, "receipts and repairs in the outbox"),
        (waiting.events, EVENTS, "events"),
        (waiting.lost, LOST, "messages that did not open"),
        (
            tables.lost_of_a_device,
            LOST_OF_A_DEVICE,
            "messages of one device that did not open",
        ),
        (tables.followed, FOLLOWED, "messages that are not confirmed"),
        (
            tables.kept,
            KEPT,
            "contents of messages that are not confirmed",
        ),
        (tables.kept_bytes, KEPT_BYTES, "bytes of such contents"),
        (tables.direct, DIRECT, "receipts and repairs that are kept"),
        (
            tables.resending,
            RESENDING,
            "devices that get messages again",
        ),
        (tables.seen, SEEN, "messages that were shown"),
        (
            tables.lookups,
            LOOKUPS + devices,
            "users whose cards are wanted",
        ),
        (tables.restarts, devices, "sessions to be started"),
        (tables.removals, REMOVALS, "devices to be removed"),
        (tables.requests, REQUESTS, "requests"),
    ];
    let over = bounds.into_iter().find(|(count, most, _)| count > most);
    over.map(|(_, _, what)| what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_within_its_bounds_is_quiet_and_one_beyond_any_of_them_is_noticed() {
        let most = Waiting {
            outgoing: 512,
            own: 512,
            events: 3_512,
            lost: 256,
        };
        let full = Tables {
            followed: 16_384,
            kept: 2_048,
            kept_bytes: 8 << 20,
            direct: 256,
            resending: 128,
            again: 256,
            seen: 4_096,
            lost_of_a_device: 64,
            lookups: 256,
            restarts: 256,
            removals: 16,
            requests: 64,
        };
        assert_eq!(over(&most, &full), None);
        let more_seen = Tables {
            seen: 4_097,
            ..full
        };
        assert_eq!(over(&most, &more_seen), Some("messages that were shown"));
        let more_lost = Waiting { lost: 257, ..most };
        assert_eq!(over(&more_lost, &full), Some("messages that did not open"));
        let bytes = Tables {
            kept_bytes: (8 << 20) + 1,
            ..full
        };
        assert_eq!(over(&most, &bytes), Some("bytes of such contents"));
        let devices = Tables {
            resending: 129,
            ..full
        };
        let what = Some("devices that get messages again");
        assert_eq!(over(&most, &devices), what);
    }
}
