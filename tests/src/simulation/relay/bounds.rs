//! What a relay may hold at most (docs/delivery.md, Bounds).

use sealwire_server::policy::Allowance;
use sealwire_server::simulation::{Load, MailLoad};

/// Notices that a mailbox holds at most.
const NOTICES: u64 = 1_024;
/// Users of whose devices a link hears at most.
const WATCHED_USERS: usize = 256;
/// Bytes of the largest posting with all that is around it, which is taken however little may wait.
const LARGEST_POSTING: usize = 31 * (96 << 10) + (1 << 20);

/// Of what there is more than there may be. With `began` it has begun.
pub(super) fn over(
    load: &Load,
    began: &MailLoad,
    allowance: &Allowance,
    links: usize,
) -> Option<&'static str> {
    let mail = &load.mail;
    // Of whose mailbox it is, nothing is said here; they may have most of it.
    let (limits, share) = (allowance.mailbox, allowance.mailbox.own_share());
    let bounds = [
        (
            mail.messages > limits.messages.max(began.messages),
            "messages in a mailbox",
        ),
        (
            mail.bytes > limits.bytes.max(began.bytes),
            "bytes in a mailbox",
        ),
        (
            mail.messages_of_a_user > share.messages.max(began.messages_of_a_user),
            "messages of one user in a mailbox",
        ),
        (
            mail.bytes_of_a_user > share.bytes.max(began.bytes_of_a_user),
            "bytes of one user in a mailbox",
        ),
        (mail.notices > NOTICES, "notices in a mailbox"),
        (
            mail.queued_bytes > mail.max_queued_bytes.saturating_mul(2).max(LARGEST_POSTING),
            "bytes that wait for the disk",
        ),
        (load.links > links, "links in the hub"),
        (
            load.watches > links.saturating_mul(WATCHED_USERS),
            "watches in the hub",
        ),
    ];
    let over = bounds.into_iter().find(|(is_over, _)| *is_over);
    over.map(|(_, what)| what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_within_its_bounds_is_quiet_and_one_beyond_any_of_them_is_noticed() {
        let mut allowance = Allowance::default();
        (allowance.mailbox.messages, allowance.mailbox.bytes) = (200, 8 << 20);
        let mail = MailLoad {
            entries: 5_000,
            messages: 200,
            bytes: 8 << 20,
            messages_of_a_user: 100,
            bytes_of_a_user: 4 << 20,
            notices: 1_024,
            queued_bytes: 8 << 20,
            max_queued_bytes: 4 << 20,
        };
        let full = Load {
            mail,
            links: 3,
            watches: 3 * 256,
        };
        let empty = MailLoad::default();
        let over = |load: &Load, began: &MailLoad| over(load, began, &allowance, 3);
        assert_eq!(over(&full, &empty), None);
        let with = |mail| Load { mail, ..full };
        let messages = with(MailLoad {
            messages: 201,
            ..mail
        });
        assert_eq!(over(&messages, &empty), Some("messages in a mailbox"));
        assert_eq!(over(&messages, &messages.mail), None);
        let queue = with(MailLoad {
            queued_bytes: (8 << 20) + 1,
            ..mail
        });
        assert_eq!(over(&queue, &empty), Some("bytes that wait for the disk"));
        let notices = with(MailLoad {
            notices: 1_025,
            ..mail
        });
        assert_eq!(over(&notices, &empty), Some("notices in a mailbox"));
        let links = Load { links: 4, ..full };
        assert_eq!(over(&links, &empty), Some("links in the hub"));
    }
}
