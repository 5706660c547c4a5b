//! The invitation line: everything a device needs to join a relay with a built-in issuer (docs/protocol.md §14).
//!
//! ```text
//! operator ── Invitation::to_line ── "sealwire-invite:…", handed over out of band ── Invitation::parse ── device
//! ```
//!
//! Whoever has the line before the invited person can join in their place, so it is as secret as a password until it is used.
//! Connecting, and asking for the token, is left to the client; making and redeeming codes to the server.
use alloc::{borrow::ToOwned, format, string::String, vec::Vec};
use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr};

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{
    base64url,
    codec::{DecodeError, Reader},
    key::{PublicKey, PublicKeyError, Thumbprint},
    limits,
    name::{Issuer, NameError, User},
};

/// What every line begins with.
const PREFIX: &str = "sealwire-invite:";
/// The version of the format.
const VERSION: u8 = 1;
/// Bytes of a line, at most.
const MAX_LINE_BYTES: usize = 2_048;
/// Bytes of an address, at most.
const MAX_ADDRESS_BYTES: usize = 1_024;
/// Bytes of a host name, at most (RFC 1035 §2.3.4).
const MAX_HOST_BYTES: usize = 253;

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
#[derive(Debug)]
pub struct Invitation {
    /// The relay's address with its thumbprint: `wss://host[:port]/v1#<thumbprint>` (§3.1).
    pub address: String,
    /// SHA-256 of the relay's self-signed certificate (DER), if it has one: the only certificate to accept.
    pub certificate: Option<[u8; 32]>,
    /// The built-in issuer's key.
    pub issuer_key: PublicKey,
    /// Who is invited.
    pub user: User,
    /// The one-time code.
    pub code: InviteCode,
    /// Until when, in seconds since 1970. Parsing does not look at the clock.
    pub expires: u64,
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
    /// The address is not one of §3.1, or has no thumbprint.
    #[error(
        "the invitation's address is not of the form wss://host/v1#thumbprint; ask for a new one"
    )]
    Address,
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

impl Invitation {
    /// Reads a line, of which white space around it is no part.
    ///
    /// # Errors
    /// [`InviteError`].
    pub fn parse(line: &str) -> Result<Self, InviteError> {
        if line.len() > MAX_LINE_BYTES {
            return Err(InviteError::TooLong);
        }
        let encoded = line.strip_prefix(PREFIX).ok_or(InviteError::Prefix)?;
        let bytes = base64url::decode(encoded.as_bytes())
            .map(Zeroizing::new)
            .map_err(|_| InviteError::Encoding)?;
        let mut reader = Reader::new(&bytes);
        if reader.u8()? != VERSION {
            return Err(InviteError::Version);
        }
        let address = reader.vec16(1..=MAX_ADDRESS_BYTES)?;
        let certificate = if reader.bool()? {
            Some(*reader.array()?)
        } else {
            None
        };
        let issuer_key = reader.array()?;
        let user = reader.vec8(1..=limits::MAX_NAME_BYTES)?;
        let code = reader.vec8(limits::MIN_INVITE_BYTES..=limits::MAX_INVITE_BYTES)?;
        let expires = reader.u64()?;
        reader.finish()?;

        let address = core::str::from_utf8(address).map_err(|_| InviteError::Address)?;
        split_address(address).ok_or(InviteError::Address)?;
        Ok(Self {
            address: address.to_owned(),
            certificate,
            issuer_key: PublicKey::from_bytes(issuer_key)?,
            user: User::from_bytes(user)?,
            code: InviteCode::new(code.to_vec())?,
            expires,
        })
    }

    /// The line. It is as secret as the code in it, and erased when dropped.
    ///
    /// # Errors
    /// [`InviteError::Address`] if the address is not one of §3.1.
    pub fn to_line(&self) -> Result<Zeroizing<String>, InviteError> {
        split_address(&self.address).ok_or(InviteError::Address)?;
        let (user, code) = (self.user.as_bytes(), self.code.expose());
        // A length out of bounds cannot be here: the types and the check above keep them.
        let address_length = u16::try_from(self.address.len()).map_err(|_| InviteError::Address)?;
        let user_length = u8::try_from(user.len()).map_err(|_| NameError::TooLong)?;
        let code_length = u8::try_from(code.len()).map_err(|_| InviteError::Code)?;
        // With its full capacity from the start, so that no copy of the code is left behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_LINE_BYTES));
        bytes.push(VERSION);
        bytes.extend_from_slice(&address_length.to_be_bytes());
        bytes.extend_from_slice(self.address.as_bytes());
        bytes.push(u8::from(self.certificate.is_some()));
        bytes.extend_from_slice(self.certificate.as_ref().map_or(&[], <[u8; 32]>::as_slice));
        bytes.extend_from_slice(self.issuer_key.as_bytes());
        bytes.push(user_length);
        bytes.extend_from_slice(user);
        bytes.push(code_length);
        bytes.extend_from_slice(code);
        bytes.extend_from_slice(&self.expires.to_be_bytes());
        let encoded = Zeroizing::new(base64url::encode(&bytes));
        let mut line = Zeroizing::new(String::with_capacity(MAX_LINE_BYTES));
        line.push_str(PREFIX);
        line.push_str(&encoded);
        Ok(line)
    }

    /// The relay's thumbprint, from the address; `None` if the address is not one of §3.1, which no parsed invitation has.
    #[must_use]
    pub fn relay(&self) -> Option<Thumbprint> {
        split_address(&self.address).map(|(_, thumbprint)| thumbprint)
    }

    /// The `iss` of the tokens that joining gives.
    #[must_use]
    pub fn issuer(&self) -> Issuer {
        built_in_issuer(&self.issuer_key.thumbprint())
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

/// The audience of a built-in issuer's tokens, from its relay's thumbprint: `urn:sealwire:relay:<thumbprint>` (§14).
#[must_use]
pub fn built_in_audience(relay: &Thumbprint) -> String {
    format!("urn:sealwire:relay:{relay}")
}

/// The host in an address without its fragment, `wss://host[:port]/v1`: a name, or an IP address without brackets. `None` if it is
/// not such an address, or `ws://` with another host than this one (§3.1).
#[must_use]
pub fn relay_host(address: &str) -> Option<&str> {
    if address.len() > MAX_ADDRESS_BYTES {
        return None;
    }
    let (rest, is_plain) = match address.strip_prefix("wss://") {
        Some(rest) => (rest, false),
        None => (address.strip_prefix("ws://")?, true),
    };
    let authority = rest.strip_suffix("/v1")?;
    let (host, port) = match authority.strip_prefix('[') {
        Some(bracketed) => {
            let (host, port) = bracketed.split_once(']')?;
            host.parse::<Ipv6Addr>().ok()?;
            (host, port)
        }
        None => {
            let end = authority.find(':').unwrap_or(authority.len());
            let (host, port) = authority.split_at_checked(end)?;
            let is_name = host
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'));
            if host.is_empty() || host.len() > MAX_HOST_BYTES || !is_name {
                return None;
            }
            (host, port)
        }
    };
    let port_fits = port.is_empty()
        || port.strip_prefix(':').is_some_and(|port| {
            port.bytes().all(|byte| byte.is_ascii_digit())
                && !port.starts_with('0')
                && port.parse::<u16>().is_ok()
        });
    let is_loopback = host == "localhost"
        || host.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
        || host.parse::<Ipv6Addr>().is_ok_and(|ip| ip.is_loopback());
    (port_fits && (is_loopback || !is_plain)).then_some(host)
}

fn split_address(address: &str) -> Option<(&str, Thumbprint)> {
    if address.len() > MAX_ADDRESS_BYTES {
        return None;
    }
    let (base, thumbprint) = address.split_once('#')?;
    relay_host(base)?;
    Some((base, thumbprint.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use alloc::{string::ToString, vec};

    use super::*;
    use crate::key::{Seed, SigningKey};

    const EXPIRES: u64 = 1_800_000_000;

    fn thumbprint() -> Thumbprint {
        SigningKey::from_seed(&Seed::new([1; 32])).thumbprint()
    }

    fn invitation(certificate: Option<[u8; 32]>) -> Invitation {
        Invitation {
            address: format!("wss://relay.example:8443/v1#{}", thumbprint()),
            certificate,
            issuer_key: *SigningKey::from_seed(&Seed::new([2; 32])).public(),
            user: User::new("alice").unwrap(),
            code: InviteCode::new(vec![7; 32]).unwrap(),
            expires: EXPIRES,
        }
    }

    /// The bytes inside a line, changed, and as a line again.
    fn changed(change: impl FnOnce(&mut Vec<u8>)) -> String {
        let line = invitation(Some([9; 32])).to_line().unwrap();
        let mut bytes = base64url::decode(line[PREFIX.len()..].as_bytes()).unwrap();
        change(&mut bytes);
        format!("{PREFIX}{}", base64url::encode(&bytes))
    }

    fn with_address(address: &str) -> Result<Invitation, InviteError> {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&u16::try_from(address.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(address.as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(invitation(None).issuer_key.as_bytes());
        bytes.extend_from_slice(b"\x05alice\x10");
        bytes.extend_from_slice(&[7; 16]);
        bytes.extend_from_slice(&EXPIRES.to_be_bytes());
        Invitation::parse(&format!("{PREFIX}{}", base64url::encode(&bytes)))
    }

    #[test]
    fn invitation_survives_the_line_with_and_without_certificate() {
        for certificate in [None, Some([9; 32])] {
            let original = invitation(certificate);
            let read = Invitation::parse(&original.to_line().unwrap()).unwrap();
            assert_eq!(read.address, original.address);
            assert_eq!(read.certificate, certificate);
            assert_eq!(read.issuer_key, original.issuer_key);
            assert_eq!(read.user, original.user);
            assert_eq!(read.code.expose(), original.code.expose());
            assert_eq!(read.expires, EXPIRES);
            assert_eq!(read.relay(), Some(thumbprint()));
        }
    }

    #[test]
    fn names_of_the_built_in_issuer_are_those_of_the_specification() {
        let expected = format!(
            "urn:sealwire:issuer:{}",
            invitation(None).issuer_key.thumbprint()
        );
        assert_eq!(invitation(None).issuer().as_str(), expected);
        assert_eq!(
            built_in_audience(&thumbprint()),
            format!("urn:sealwire:relay:{}", thumbprint())
        );
    }

    #[test]
    fn addresses_of_the_specification_are_accepted() {
        for (address, host) in [
            ("wss://relay.example/v1", "relay.example"),
            ("wss://relay.example:443/v1", "relay.example"),
            ("wss://192.0.2.7:8443/v1", "192.0.2.7"),
            ("wss://[2001:db8::1]:8443/v1", "2001:db8::1"),
            ("ws://127.0.0.1:1/v1", "127.0.0.1"),
            ("ws://[::1]/v1", "::1"),
            ("ws://localhost:65535/v1", "localhost"),
        ] {
            assert_eq!(relay_host(address), Some(host), "{address}");
            assert_eq!(
                with_address(&format!("{address}#{}", thumbprint()))
                    .unwrap()
                    .relay(),
                Some(thumbprint())
            );
        }
    }

    // docs/protocol.md §3.1, §14
    #[test]
    fn address_of_another_form_is_refused() {
        let print = thumbprint();
        for address in [
            "https://relay.example/v1",
            "ws://relay.example/v1",
            "wss://relay.example",
            "wss://relay.example/v2",
            "wss://relay.example/v1/",
            "wss://relay.example/v1?x",
            "wss:///v1",
            "wss://:443/v1",
            "wss://relay.example:/v1",
            "wss://relay.example:0/v1",
            "wss://relay.example:065/v1",
            "wss://relay.example:65536/v1",
            "wss://relay.example:+1/v1",
            "wss://user@relay.example/v1",
            "wss://relay.example\\@evil.example/v1",
            "wss://relay.example /v1",
            "wss://réseau.example/v1",
            "wss://[::1/v1",
            "wss://[::g]/v1",
            "wss://[::1]x/v1",
            "WSS://relay.example/v1",
        ] {
            assert_eq!(relay_host(address), None, "{address}");
            assert_eq!(
                with_address(&format!("{address}#{print}")).unwrap_err(),
                InviteError::Address,
                "{address}"
            );
        }
        assert_eq!(relay_host(&format!("wss://{}/v1", "a".repeat(254))), None);
    }

    #[test]
    fn address_without_a_thumbprint_is_refused() {
        let print = thumbprint().to_string();
        for fragment in [
            "",
            "#",
            "#x",
            &format!("#{}", &print[1..]),
            &format!("#{print}="),
            &format!("#{print}#{print}"),
        ] {
            let address = format!("wss://relay.example/v1{fragment}");
            assert_eq!(
                with_address(&address).unwrap_err(),
                InviteError::Address,
                "{address}"
            );
        }
    }

    #[test]
    fn address_of_another_form_is_not_written() {
        let mut invitation = invitation(None);
        invitation.address = "wss://relay.example/v1".to_owned();
        assert_eq!(invitation.to_line().unwrap_err(), InviteError::Address);
        assert_eq!(invitation.relay(), None);
    }

    #[test]
    fn text_that_is_no_invitation_is_refused() {
        let line = invitation(None).to_line().unwrap();
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
    #[test]
    fn line_that_is_not_canonical_base64url_is_refused() {
        let line = invitation(None).to_line().unwrap();
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
    #[test]
    fn line_that_ends_early_anywhere_is_refused() {
        let whole = base64url::decode(
            invitation(Some([9; 32])).to_line().unwrap()[PREFIX.len()..].as_bytes(),
        )
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
    #[test]
    fn line_with_trailing_bytes_is_refused() {
        let longer = changed(|bytes| bytes.push(0));
        assert_eq!(
            Invitation::parse(&longer).unwrap_err(),
            InviteError::Decode(DecodeError::TrailingBytes)
        );
    }

    #[test]
    fn line_of_another_version_is_refused() {
        for version in [0, 2, 255] {
            assert_eq!(
                Invitation::parse(&changed(|bytes| bytes[0] = version)).unwrap_err(),
                InviteError::Version
            );
        }
    }

    #[test]
    fn boolean_other_than_0_and_1_is_refused() {
        let at = 3 + invitation(None).address.len();
        let refused = Invitation::parse(&changed(|bytes| bytes[at] = 2)).unwrap_err();
        assert_eq!(refused, InviteError::Decode(DecodeError::UnknownValue));
    }

    // docs/protocol.md §1.3
    #[test]
    fn issuer_key_of_small_order_is_refused() {
        let at = 3 + invitation(None).address.len() + 33;
        let mut identity = [0; 32];
        identity[0] = 1;
        let refused = Invitation::parse(&changed(|bytes| {
            bytes[at..at + 32].copy_from_slice(&identity)
        }))
        .unwrap_err();
        assert_eq!(refused, InviteError::IssuerKey(PublicKeyError::SmallOrder));
    }

    // docs/protocol.md §1.2
    #[test]
    fn user_with_a_control_character_is_refused() {
        let at = 3 + invitation(None).address.len() + 33 + 32 + 1;
        let refused = Invitation::parse(&changed(|bytes| bytes[at] = 0)).unwrap_err();
        assert_eq!(refused, InviteError::User(NameError::ControlCharacter));
    }

    // docs/protocol.md §3.6
    #[test]
    fn code_of_15_or_65_bytes_is_refused() {
        assert_eq!(InviteCode::new(vec![7; 15]).unwrap_err(), InviteError::Code);
        assert_eq!(InviteCode::new(vec![7; 65]).unwrap_err(), InviteError::Code);
        let at = 3 + invitation(None).address.len() + 33 + 32 + 6;
        for length in [15, 65] {
            let refused = Invitation::parse(&changed(|bytes| bytes[at] = length)).unwrap_err();
            assert_eq!(refused, InviteError::Decode(DecodeError::LengthOutOfBounds));
        }
    }

    #[test]
    fn code_is_not_in_debug() {
        let shown = format!("{:?}", invitation(None));
        assert!(shown.contains("InviteCode(secret)"), "{shown}");
        assert!(!shown.contains("7, 7"), "{shown}");
    }
}
