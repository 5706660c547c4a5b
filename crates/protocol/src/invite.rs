//! The invitation line: everything a device needs to join a relay with a built-in issuer (docs/protocol.md §14).
//!
//! ```text
//! operator ── Invitation::to_line ── "sealwire-invite:…", handed over out of band ── Invitation::parse ── device
//! ```
//!
//! Whoever has the line before the invited person can join in their place, so it is as secret as a password until it is used.
//! Connecting, and asking for the token, is left to the client; making and redeeming codes to the server.
use alloc::{format, string::String, vec::Vec};
use core::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{
    address::AddressError,
    codec::{DecodeError, Reader},
    introduction::{self, Introduction, IntroductionError, MAX_LINE_BYTES},
    key::{PublicKeyError, Thumbprint},
    limits,
    name::{Issuer, NameError, User},
};

/// What every line begins with.
const PREFIX: &str = "sealwire-invite:";

/// A one-time invite code: 16 to 64 secret bytes (docs/protocol.md §3.6). Erased when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct InviteCode(Vec<u8>);

impl InviteCode {
    /// Takes over 16 to 64 bytes.
    ///
    /// # Errors
    /// [`InviteError::Code`] for another length; the bytes are erased then as well.
    pub fn new(code: Vec<u8>) -> Result<Self, InviteError> {
        let code = Self(code);
        let fits = (limits::MIN_INVITE_BYTES..=limits::MAX_INVITE_BYTES).contains(&code.0.len());
        if fits {
            Ok(code)
        } else {
            Err(InviteError::Code)
        }
    }

    /// The secret bytes: the credential of the link's Finish.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for InviteCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InviteCode(secret)")
    }
}

/// What an invitation line says.
pub struct Invitation {
    /// Which relay, and whom to believe.
    pub relay: Introduction,
    /// Who is invited.
    pub user: User,
    /// The one-time code.
    pub code: InviteCode,
    /// Until when, in seconds since 1970. Parsing does not look at the clock.
    pub expires: u64,
}

/// Shows neither the code nor who is invited: it may be logged.
impl fmt::Debug for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invitation")
            .field("address", &self.relay.address)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// Why a text is not an invitation line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InviteError {
    /// It does not begin with `sealwire-invite:`.
    #[error("not an invitation; it begins with \"sealwire-invite:\"")]
    Prefix,
    /// Longer than any invitation.
    #[error("the invitation is longer than 2048 characters; paste just the one line")]
    TooLong,
    /// What follows the prefix is not canonical base64url.
    #[error("the invitation is damaged; copy the whole line, without spaces")]
    Encoding,
    /// Another version.
    #[error("the invitation is of another version; use a newer program")]
    Version,
    /// Fields missing, out of bounds or left over.
    #[error("the invitation is damaged: {0}; copy the whole line")]
    Decode(#[from] DecodeError),
    /// The address is not one of §3.1.
    #[error("the invitation's address cannot be used: {0}")]
    Address(#[from] AddressError),
    /// The issuer's key is not acceptable.
    #[error("the invitation's issuer key cannot be used: {0}; ask for a new one")]
    IssuerKey(#[from] PublicKeyError),
    /// The user is not one of §1.2.
    #[error("the invitation's user cannot be: {0}; ask for a new one")]
    User(#[from] NameError),
    /// The code does not have 16 to 64 bytes.
    #[error("the invitation's code does not have 16 to 64 bytes; ask for a new one")]
    Code,
}

impl From<IntroductionError> for InviteError {
    fn from(error: IntroductionError) -> Self {
        match error {
            IntroductionError::Prefix => Self::Prefix,
            IntroductionError::TooLong => Self::TooLong,
            IntroductionError::Encoding => Self::Encoding,
            IntroductionError::Version => Self::Version,
            IntroductionError::Decode(error) => Self::Decode(error),
            IntroductionError::Address(error) => Self::Address(error),
            IntroductionError::IssuerKey(error) => Self::IssuerKey(error),
        }
    }
}

impl Invitation {
    /// Reads a line, of which white space around it is no part.
    ///
    /// # Errors
    /// [`InviteError`].
    pub fn parse(line: &str) -> Result<Self, InviteError> {
        let bytes = introduction::open(line, PREFIX)?;
        let mut reader = Reader::new(&bytes);
        let relay = Introduction::read(&mut reader)?;
        let user = reader.vec8(1..=limits::MAX_NAME_BYTES)?;
        let code = reader.vec8(limits::MIN_INVITE_BYTES..=limits::MAX_INVITE_BYTES)?;
        let expires = reader.u64()?;
        reader.finish()?;
        Ok(Self {
            relay,
            user: User::from_bytes(user)?,
            code: InviteCode::new(code.to_vec())?,
            expires,
        })
    }

    /// The line. It is as secret as the code in it, and erased when dropped.
    #[must_use]
    pub fn to_line(&self) -> Zeroizing<String> {
        let (user, code) = (self.user.as_bytes(), self.code.expose());
        // The types keep every length within its field: a user has at most 255 bytes, a code 64.
        let user_length = u8::try_from(user.len()).unwrap_or(u8::MAX);
        let code_length = u8::try_from(code.len()).unwrap_or(u8::MAX);
        // With its full capacity from the start, so that no copy of the code is left behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_LINE_BYTES));
        self.relay.write(&mut bytes);
        bytes.push(user_length);
        bytes.extend_from_slice(user);
        bytes.push(code_length);
        bytes.extend_from_slice(code);
        bytes.extend_from_slice(&self.expires.to_be_bytes());
        introduction::close(PREFIX, &bytes)
    }
}

/// The `iss` of a built-in issuer, from the thumbprint of its key: `urn:sealwire:issuer:<thumbprint>` (§14).
#[must_use]
#[expect(
    clippy::expect_used,
    reason = "20 letters and colons and 43 characters of base64url are a name"
)]
pub fn built_in_issuer(key: &Thumbprint) -> Issuer {
    Issuer::new(&format!("urn:sealwire:issuer:{key}")).expect("short printable ASCII")
}

/// The audience of a built-in issuer's tokens, from the thumbprint of its key: `urn:sealwire:relay-of:<thumbprint>` (§14). It is not the relay's, whose
/// key may change.
#[must_use]
pub fn built_in_audience(key: &Thumbprint) -> String {
    format!("urn:sealwire:relay-of:{key}")
}

#[cfg(test)]
mod tests {
    use alloc::{string::ToString as _, vec};

    use super::*;
    use crate::base64url;
    use crate::introduction::{MAX_ADDRESS_BYTES, VERSION};
    use crate::key::{Seed, SigningKey};

    const EXPIRES: u64 = 1_800_000_000;

    fn thumbprint() -> Thumbprint {
        SigningKey::from_seed(&Seed::new([1; 32])).thumbprint()
    }

    fn invitation(certificate: Option<[u8; 32]>) -> Invitation {
        let relay = Introduction {
            address: format!("wss://relay.example:8443/v1#{}", thumbprint())
                .parse()
                .unwrap(),
            certificate,
            issuer_key: *SigningKey::from_seed(&Seed::new([2; 32])).public(),
        };
        Invitation {
            relay,
            user: User::new("alice").unwrap(),
            code: InviteCode::new(vec![7; 32]).unwrap(),
            expires: EXPIRES,
        }
    }

    /// The bytes inside a line, changed, and as a line again.
    fn changed(change: impl FnOnce(&mut Vec<u8>)) -> String {
        let line = invitation(Some([9; 32])).to_line();
        let mut bytes = base64url::decode(line[PREFIX.len()..].as_bytes()).unwrap();
        change(&mut bytes);
        format!("{PREFIX}{}", base64url::encode(&bytes))
    }

    fn with_address(address: &[u8]) -> Result<Invitation, InviteError> {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&u16::try_from(address.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(address);
        bytes.push(0);
        bytes.extend_from_slice(invitation(None).relay.issuer_key.as_bytes());
        bytes.extend_from_slice(b"\x05alice\x10");
        bytes.extend_from_slice(&[7; 16]);
        bytes.extend_from_slice(&EXPIRES.to_be_bytes());
        Invitation::parse(&format!("{PREFIX}{}", base64url::encode(&bytes)))
    }

    #[test]
    fn invitation_survives_the_line_with_and_without_certificate() {
        for certificate in [None, Some([9; 32])] {
            let original = invitation(certificate);
            let read = Invitation::parse(&original.to_line()).unwrap();
            assert_eq!(read.relay, original.relay);
            assert_eq!(read.user, original.user);
            assert_eq!(read.code.expose(), original.code.expose());
            assert_eq!(read.expires, EXPIRES);
        }
    }

    #[test]
    fn names_of_the_built_in_issuer_are_those_of_the_specification() {
        let expected = format!(
            "urn:sealwire:issuer:{}",
            invitation(None).relay.issuer_key.thumbprint()
        );
        let named = built_in_issuer(&invitation(None).relay.issuer_key.thumbprint());
        assert_eq!(named.as_str(), expected);
        assert_eq!(
            built_in_audience(&thumbprint()),
            format!("urn:sealwire:relay-of:{}", thumbprint())
        );
    }

    // docs/protocol.md §3.1, §14; every form is tried in `address`
    /// docs/protocol.md §14
    #[test]
    fn address_of_another_form_is_refused() {
        let print = thumbprint();
        for (address, error) in [
            (
                format!("wss://relay.example/v1#{print}x"),
                AddressError::Thumbprint,
            ),
            (
                "wss://relay.example/v1".to_string(),
                AddressError::NoThumbprint,
            ),
            (
                format!("ws://relay.example/v1#{print}"),
                AddressError::NotSecure,
            ),
            (
                format!("https://relay.example/v1#{print}"),
                AddressError::Scheme,
            ),
            (
                format!("wss://user@relay.example/v1#{print}"),
                AddressError::UserInfo,
            ),
            (
                format!("wss://relay.example/v2#{print}"),
                AddressError::Path,
            ),
        ] {
            assert_eq!(
                with_address(address.as_bytes()).unwrap_err(),
                InviteError::Address(error),
                "{address}"
            );
        }
        assert_eq!(
            with_address(&[0xff]).unwrap_err(),
            InviteError::Address(AddressError::Host)
        );
        assert!(with_address(invitation(None).relay.address.to_string().as_bytes()).is_ok());
    }

    /// docs/protocol.md §14
    #[test]
    fn address_without_bytes_or_with_too_many_is_refused() {
        for address in [vec![], vec![b'a'; MAX_ADDRESS_BYTES + 1]] {
            let refused = with_address(&address).unwrap_err();
            assert_eq!(refused, InviteError::Decode(DecodeError::LengthOutOfBounds));
        }
    }

    /// docs/protocol.md §14
    #[test]
    fn text_that_is_no_invitation_is_refused() {
        let line = invitation(None).to_line();
        assert_eq!(Invitation::parse("").unwrap_err(), InviteError::Prefix);
        assert_eq!(
            Invitation::parse(&format!(" {}", *line)).unwrap_err(),
            InviteError::Prefix
        );
        assert_eq!(
            Invitation::parse(&line.to_uppercase()).unwrap_err(),
            InviteError::Prefix
        );
        assert_eq!(
            Invitation::parse(PREFIX).unwrap_err(),
            InviteError::Decode(DecodeError::EndsEarly)
        );
        assert_eq!(
            Invitation::parse(&format!("{PREFIX}{}", "A".repeat(MAX_LINE_BYTES))).unwrap_err(),
            InviteError::TooLong
        );
    }

    // docs/protocol.md §1.2
    /// docs/protocol.md §14
    #[test]
    fn line_that_is_not_canonical_base64url_is_refused() {
        let line = invitation(None).to_line();
        for damaged in [
            format!("{}=", *line),
            format!("{}\n", *line),
            line.replace(':', ": "),
            format!("{}+", *line),
        ] {
            assert_eq!(
                Invitation::parse(&damaged).unwrap_err(),
                InviteError::Encoding,
                "{damaged}"
            );
        }
    }

    // docs/protocol.md §1.1
    /// docs/protocol.md §14
    #[test]
    fn line_that_ends_early_anywhere_is_refused() {
        let whole =
            base64url::decode(invitation(Some([9; 32])).to_line()[PREFIX.len()..].as_bytes())
                .unwrap();
        for length in 0..whole.len() {
            let cut = changed(|bytes| bytes.truncate(length));
            assert_eq!(
                Invitation::parse(&cut).unwrap_err(),
                InviteError::Decode(DecodeError::EndsEarly),
                "{length}"
            );
        }
    }

    // docs/protocol.md §1.1
    /// docs/protocol.md §14
    #[test]
    fn line_with_trailing_bytes_is_refused() {
        let longer = changed(|bytes| bytes.push(0));
        assert_eq!(
            Invitation::parse(&longer).unwrap_err(),
            InviteError::Decode(DecodeError::TrailingBytes)
        );
    }

    /// docs/protocol.md §14
    #[test]
    fn line_of_another_version_is_refused() {
        for version in [0, 2, 255] {
            assert_eq!(
                Invitation::parse(&changed(|bytes| bytes[0] = version)).unwrap_err(),
                InviteError::Version
            );
        }
    }

    /// docs/protocol.md §14
    #[test]
    fn boolean_other_than_0_and_1_is_refused() {
        let at = 3 + invitation(None).relay.address.to_string().len();
        let refused = Invitation::parse(&changed(|bytes| bytes[at] = 2)).unwrap_err();
        assert_eq!(refused, InviteError::Decode(DecodeError::UnknownValue));
    }

    // docs/protocol.md §1.3
    /// docs/protocol.md §14
    #[test]
    fn issuer_key_of_small_order_is_refused() {
        let at = 3 + invitation(None).relay.address.to_string().len() + 33;
        let mut identity = [0; 32];
        identity[0] = 1;
        let refused = Invitation::parse(&changed(|bytes| {
            bytes[at..at + 32].copy_from_slice(&identity)
        }))
        .unwrap_err();
        assert_eq!(refused, InviteError::IssuerKey(PublicKeyError::SmallOrder));
    }

    // docs/protocol.md §1.2
    /// docs/protocol.md §14
    #[test]
    fn user_with_a_control_character_is_refused() {
        let at = 3 + invitation(None).relay.address.to_string().len() + 33 + 32 + 1;
        let refused = Invitation::parse(&changed(|bytes| bytes[at] = 0)).unwrap_err();
        assert_eq!(refused, InviteError::User(NameError::ControlCharacter));
    }

    // docs/protocol.md §3.6
    /// docs/protocol.md §14
    #[test]
    fn code_of_15_or_65_bytes_is_refused() {
        assert_eq!(InviteCode::new(vec![7; 15]).unwrap_err(), InviteError::Code);
        assert_eq!(InviteCode::new(vec![7; 65]).unwrap_err(), InviteError::Code);
        let at = 3 + invitation(None).relay.address.to_string().len() + 33 + 32 + 6;
        for length in [15, 65] {
            let refused = Invitation::parse(&changed(|bytes| bytes[at] = length)).unwrap_err();
            assert_eq!(refused, InviteError::Decode(DecodeError::LengthOutOfBounds));
        }
    }

    #[test]
    fn neither_code_nor_user_is_in_debug() {
        let invitation = invitation(None);
        assert_eq!(
            format!("{invitation:?}"),
            format!(
                "Invitation {{ address: {:?}, expires: {}, .. }}",
                invitation.relay.address, invitation.expires
            )
        );
        assert_eq!(format!("{:?}", invitation.code), "InviteCode(secret)");
    }
}
