//! How a link ends and how a request is refused: the numbers, their names, and what to do next (docs/protocol.md §5.3, §13).
//!
//! Which error leads to which code is in [`crate::error`].

use core::fmt;

/// Why a link was closed: the code of the WebSocket close frame (docs/protocol.md §13).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseCode {
    /// 1000: closed on purpose.
    Normal,
    /// 4000: the relay stops or restarts.
    GoingAway,
    /// 4001: the device does not read fast enough.
    TooSlow,
    /// 4002: the relay sheds load.
    Overloaded,
    /// 4003: the handshake was not complete in time, or pings were not answered.
    Timeout,
    /// 4004: the same device opened a newer link.
    Replaced,
    /// 4005: a fault of the relay.
    Internal,
    /// 4100: the credential or the device proof is not accepted.
    NotAuthorised,
    /// 4101: the token expired and was not refreshed.
    TokenExpired,
    /// 4102: the token, device or user was revoked.
    Revoked,
    /// 4200: a message that does not have the form given in the specification.
    Malformed,
    /// 4201: out of order, does not open, or over a limit.
    Violation,
    /// 4202: another version of the protocol.
    Version,
}

/// When the same device may connect again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Retry {
    /// Not by itself.
    Never,
    /// After the usual back-off.
    BackOff,
    /// After a longer wait than usual: the relay is in trouble.
    Later,
    /// Only with another credential, or a new token.
    NewCredential,
}

impl CloseCode {
    /// Every code, in the order of docs/protocol.md §13.
    pub const ALL: [Self; 13] = [
        Self::Normal,
        Self::GoingAway,
        Self::TooSlow,
        Self::Overloaded,
        Self::Timeout,
        Self::Replaced,
        Self::Internal,
        Self::NotAuthorised,
        Self::TokenExpired,
        Self::Revoked,
        Self::Malformed,
        Self::Violation,
        Self::Version,
    ];

    /// The number in the close frame.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::Normal => 1000,
            Self::GoingAway => 4000,
            Self::TooSlow => 4001,
            Self::Overloaded => 4002,
            Self::Timeout => 4003,
            Self::Replaced => 4004,
            Self::Internal => 4005,
            Self::NotAuthorised => 4100,
            Self::TokenExpired => 4101,
            Self::Revoked => 4102,
            Self::Malformed => 4200,
            Self::Violation => 4201,
            Self::Version => 4202,
        }
    }

    /// The reason in the close frame, and nothing else goes there. Empty for a normal close.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Normal => "",
            Self::GoingAway => "going_away",
            Self::TooSlow => "too_slow",
            Self::Overloaded => "overloaded",
            Self::Timeout => "timeout",
            Self::Replaced => "replaced",
            Self::Internal => "internal",
            Self::NotAuthorised => "not_authorised",
            Self::TokenExpired => "token_expired",
            Self::Revoked => "revoked",
            Self::Malformed => "malformed",
            Self::Violation => "violation",
            Self::Version => "version",
        }
    }

    /// The code of a received close frame. `None` if it is not one of ours: see [`Retry::of_code`].
    #[must_use]
    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.code() == code)
    }

    /// When the same device may connect again.
    #[must_use]
    pub const fn retry(self) -> Retry {
        match self {
            Self::GoingAway | Self::TooSlow | Self::Timeout => Retry::BackOff,
            Self::Overloaded | Self::Internal => Retry::Later,
            Self::NotAuthorised | Self::TokenExpired | Self::Revoked => Retry::NewCredential,
            Self::Normal | Self::Replaced | Self::Malformed | Self::Violation | Self::Version => {
                Retry::Never
            }
        }
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code())?;
        if self.name().is_empty() {
            Ok(())
        } else {
            write!(f, " {}", self.name())
        }
    }
}

impl Retry {
    /// When to connect again after any close code, also one that a later relay may have added: the range decides
    /// (docs/protocol.md §13). Codes of the WebSocket layer, such as 1006, are faults of the connection.
    #[must_use]
    pub fn of_code(code: u16) -> Self {
        if let Some(known) = CloseCode::from_code(code) {
            return known.retry();
        }
        match code {
            4100..=4199 => Self::NewCredential,
            4200..=4299 => Self::Never,
            _ => Self::BackOff,
        }
    }
}

/// Why the relay refused one request (docs/protocol.md §5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalCode {
    /// 1: the token does not allow it, or the recipient may not be written to, whether or not it exists.
    NotPermitted,
    /// 2: permitted, but the user has no device with a card.
    UnknownUser,
    /// 3: the parts are not for exactly the recipient's devices.
    DevicesChanged,
    /// 4: a mailbox of the recipient is full, never one that only copies go to.
    MailboxFull,
    /// 5: larger than the token or the relay allows.
    TooLarge,
    /// 6: too many messages or card fetches.
    RateLimited,
    /// 7: the card or a prekey does not verify, or is not the device's own.
    InvalidCard,
    /// 8: too many devices or stored prekeys.
    TooMany,
    /// 9: the token in a Refresh is not good for this device.
    TokenRefused,
    /// 10: the relay cannot do it now.
    Unavailable,
    /// 11: the copies are not for exactly the sender's own other devices.
    OwnDevicesChanged,
    /// 12: what one user may have in a mailbox of the recipient is used up, never in one that only copies go to.
    Quota,
    /// 13: the sequence is too far below the highest accepted one to tell what became of it.
    Stale,
    /// 14: the user has no such device.
    UnknownDevice,
    /// 15: there is no such blob, or it is not this device's.
    UnknownBlob,
    /// 16: the offset or the size is not what the relay has of the blob.
    BlobConflict,
    /// 17: no room for blobs.
    StorageFull,
    /// 18: a Send that was refused before, repeated when a later one had been accepted: it would come too late.
    Overtaken,
    /// 19: there is no such service, or the token does not allow calling it.
    UnknownService,
    /// 20: the service was called and has failed.
    ServiceFailed,
    /// 21: the service has not answered in time; it may have been carried out.
    ServiceTimeout,
}

impl RefusalCode {
    /// Every code, in the order of docs/protocol.md §5.3.
    pub const ALL: [Self; 21] = [
        Self::NotPermitted,
        Self::UnknownUser,
        Self::DevicesChanged,
        Self::MailboxFull,
        Self::TooLarge,
        Self::RateLimited,
        Self::InvalidCard,
        Self::TooMany,
        Self::TokenRefused,
        Self::Unavailable,
        Self::OwnDevicesChanged,
        Self::Quota,
        Self::Stale,
        Self::UnknownDevice,
        Self::UnknownBlob,
        Self::BlobConflict,
        Self::StorageFull,
        Self::Overtaken,
        Self::UnknownService,
        Self::ServiceFailed,
        Self::ServiceTimeout,
    ];

    /// The number in the Refused frame.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::NotPermitted => 1,
            Self::UnknownUser => 2,
            Self::DevicesChanged => 3,
            Self::MailboxFull => 4,
            Self::TooLarge => 5,
            Self::RateLimited => 6,
            Self::InvalidCard => 7,
            Self::TooMany => 8,
            Self::TokenRefused => 9,
            Self::Unavailable => 10,
            Self::OwnDevicesChanged => 11,
            Self::Quota => 12,
            Self::Stale => 13,
            Self::UnknownDevice => 14,
            Self::UnknownBlob => 15,
            Self::BlobConflict => 16,
            Self::StorageFull => 17,
            Self::Overtaken => 18,
            Self::UnknownService => 19,
            Self::ServiceFailed => 20,
            Self::ServiceTimeout => 21,
        }
    }

    /// The stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotPermitted => "not_permitted",
            Self::UnknownUser => "unknown_user",
            Self::DevicesChanged => "devices_changed",
            Self::MailboxFull => "mailbox_full",
            Self::TooLarge => "too_large",
            Self::RateLimited => "rate_limited",
            Self::InvalidCard => "invalid_card",
            Self::TooMany => "too_many",
            Self::TokenRefused => "token_refused",
            Self::Unavailable => "unavailable",
            Self::OwnDevicesChanged => "own_devices_changed",
            Self::Quota => "quota",
            Self::Stale => "stale",
            Self::UnknownDevice => "unknown_device",
            Self::UnknownBlob => "unknown_blob",
            Self::BlobConflict => "blob_conflict",
            Self::StorageFull => "storage_full",
            Self::Overtaken => "overtaken",
            Self::UnknownService => "unknown_service",
            Self::ServiceFailed => "service_failed",
            Self::ServiceTimeout => "service_timeout",
        }
    }

    /// The refusal with this number, if there is one.
    #[must_use]
    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.code() == code)
    }

    /// Whether the same device can succeed by trying again: later, or for `devices_changed` and `own_devices_changed` at once after it
    /// has sealed the message for the new cards, and for `blob_conflict` after it has asked how much the relay has. `token_refused` needs another token first, so it is not retryable; whether a call that failed may be
    /// repeated is for who knows the service to say.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        match self {
            Self::UnknownUser
            | Self::DevicesChanged
            | Self::MailboxFull
            | Self::RateLimited
            | Self::Unavailable
            | Self::OwnDevicesChanged
            | Self::Quota
            | Self::BlobConflict
            | Self::StorageFull
            | Self::Overtaken => true,
            Self::NotPermitted
            | Self::TooLarge
            | Self::InvalidCard
            | Self::TooMany
            | Self::TokenRefused
            | Self::Stale
            | Self::UnknownDevice
            | Self::UnknownBlob
            | Self::UnknownService
            | Self::ServiceFailed
            | Self::ServiceTimeout => false,
        }
    }
}

impl fmt::Display for RefusalCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;

    /// docs/protocol.md §13
    #[test]
    fn every_close_code_comes_back_from_its_number_and_fits_a_close_frame() {
        for code in CloseCode::ALL {
            assert_eq!(CloseCode::from_code(code.code()), Some(code));
            assert!(code.name().len() <= 123, "RFC 6455 §5.5");
        }
        assert_eq!(CloseCode::Violation.to_string(), "4201 violation");
    }

    /// docs/protocol.md §13
    #[test]
    fn numbers_that_are_not_ours_are_no_close_code() {
        for code in [
            0,
            999,
            1001,
            1006,
            3999,
            4006,
            4099,
            4103,
            4199,
            4203,
            u16::MAX,
        ] {
            assert_eq!(CloseCode::from_code(code), None);
        }
    }

    /// docs/protocol.md §13
    #[test]
    fn range_of_an_unknown_code_decides_about_retry() {
        assert_eq!(Retry::of_code(4099), Retry::BackOff);
        assert_eq!(Retry::of_code(1006), Retry::BackOff);
        assert_eq!(Retry::of_code(4199), Retry::NewCredential);
        assert_eq!(Retry::of_code(4299), Retry::Never);
        assert_eq!(
            Retry::of_code(4004),
            Retry::Never,
            "the table comes before the range"
        );
        assert_eq!(Retry::of_code(1000), Retry::Never);
    }

    /// docs/protocol.md §5.3
    #[test]
    fn every_refusal_comes_back_from_its_number() {
        for (number, code) in (1..).zip(RefusalCode::ALL) {
            assert_eq!(code.code(), number);
            assert_eq!(RefusalCode::from_code(number), Some(code));
        }
    }

    /// docs/protocol.md §5.3
    #[test]
    fn refusals_that_no_repetition_cures_are_not_retryable() {
        for code in RefusalCode::ALL {
            let never = matches!(
                code.name(),
                "not_permitted"
                    | "too_large"
                    | "invalid_card"
                    | "too_many"
                    | "token_refused"
                    | "stale"
                    | "unknown_device"
                    | "unknown_blob"
                    | "unknown_service"
                    | "service_failed"
                    | "service_timeout"
            );
            assert_eq!(code.is_retryable(), !never, "{code}");
        }
    }

    /// docs/protocol.md §5.3
    #[test]
    fn numbers_without_a_refusal_are_none() {
        for code in [0, 22, u16::MAX] {
            assert_eq!(RefusalCode::from_code(code), None);
        }
    }
}
