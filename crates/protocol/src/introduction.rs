//! The introduction line: what a device has to know of a relay with a built-in issuer, and nothing secret (docs/protocol.md §14).
//!
//! ```text
//! operator ── Introduction::to_line ── "sealwire-relay:…", for everybody to read ── Introduction::parse ── device with a provider's token
//! ```
//!
//! It is an invitation without user and code ([`crate::invite`]): whoever joins with it presents a token that the relay exchanges. It says whom the device
//! will believe, so it has to come from the operator.
use alloc::{string::String, string::ToString as _, vec::Vec};

use crate::{
    address::{Address, AddressError},
    base64url,
    codec::{DecodeError, Reader},
    key::{PublicKey, PublicKeyError},
};

/// What every line begins with.
pub const PREFIX: &str = "sealwire-relay:";
/// The version of the format.
const VERSION: u8 = 1;
/// Bytes of a line, at most.
const MAX_LINE_BYTES: usize = 2_048;
/// Bytes of an address, at most.
const MAX_ADDRESS_BYTES: usize = 1_024;

/// What an introduction line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduction {
    /// Where the relay is, and the thumbprint of its key.
    pub address: Address,
    /// SHA-256 of the relay's self-signed certificate (DER), if it has one: the only certificate to accept.
    pub certificate: Option<[u8; 32]>,
    /// The built-in issuer's key.
    pub issuer_key: PublicKey,
}

/// Why a text is not an introduction line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IntroductionError {
    /// It does not begin with `sealwire-relay:`.
    #[error("not a relay's line; it begins with \"sealwire-relay:\"")]
    Prefix,
    /// Longer than any.
    #[error("the relay's line is longer than 2048 characters; paste just the one line")]
    TooLong,
    /// What follows the prefix is not canonical base64url.
    #[error("the relay's line is damaged; copy the whole line, without spaces")]
    Encoding,
    /// Another version.
    #[error("the relay's line is of another version; use a newer program")]
    Version,
    /// Fields missing, out of bounds or left over.
    #[error("the relay's line is damaged: {0}; copy the whole line")]
    Decode(#[from] DecodeError),
    /// The address is not one of §3.1.
    #[error("the address in the relay's line cannot be used: {0}")]
    Address(#[from] AddressError),
    /// The issuer's key is not acceptable.
    #[error("the issuer key in the relay's line cannot be used: {0}")]
    IssuerKey(#[from] PublicKeyError),
}

impl Introduction {
    /// Reads a line, of which white space around it is no part.
    ///
    /// # Errors
    /// [`IntroductionError`].
    pub fn parse(line: &str) -> Result<Self, IntroductionError> {
        if line.len() > MAX_LINE_BYTES {
            return Err(IntroductionError::TooLong);
        }
        let encoded = line.strip_prefix(PREFIX).ok_or(IntroductionError::Prefix)?;
        let bytes =
            base64url::decode(encoded.as_bytes()).map_err(|_| IntroductionError::Encoding)?;
        let mut reader = Reader::new(&bytes);
        if reader.u8()? != VERSION {
            return Err(IntroductionError::Version);
        }
        let address = reader.vec16(1..=MAX_ADDRESS_BYTES)?;
        let certificate = if reader.bool()? {
            Some(*reader.array()?)
        } else {
            None
        };
        let issuer_key = reader.array()?;
        reader.finish()?;
        // What is not UTF-8 is no host name either.
        let address = core::str::from_utf8(address).map_err(|_| AddressError::Host)?;
        Ok(Self {
            address: address.parse()?,
            certificate,
            issuer_key: PublicKey::from_bytes(issuer_key)?,
        })
    }

    /// The line.
    #[must_use]
    pub fn to_line(&self) -> String {
        let address = self.address.to_string();
        // A host has at most 253 bytes.
        let length = u16::try_from(address.len()).unwrap_or(u16::MAX);
        let mut bytes = Vec::new();
        bytes.push(VERSION);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(address.as_bytes());
        bytes.push(u8::from(self.certificate.is_some()));
        bytes.extend_from_slice(self.certificate.as_ref().map_or(&[], <[u8; 32]>::as_slice));
        bytes.extend_from_slice(self.issuer_key.as_bytes());
        let mut line = String::from(PREFIX);
        line.push_str(&base64url::encode(&bytes));
        line
    }
}

#[cfg(test)]
mod tests {
    use alloc::{format, vec};

    use super::*;
    use crate::key::{Seed, SigningKey};

    fn introduction(certificate: Option<[u8; 32]>) -> Introduction {
        let relay = SigningKey::from_seed(&Seed::new([1; 32])).thumbprint();
        Introduction {
            address: format!("wss://relay.example:8443/v1#{relay}")
                .parse()
                .unwrap(),
            certificate,
            issuer_key: *SigningKey::from_seed(&Seed::new([2; 32])).public(),
        }
    }

    /// The bytes inside a line, changed, and as a line again.
    fn changed(change: impl FnOnce(&mut Vec<u8>)) -> Result<Introduction, IntroductionError> {
        let line = introduction(Some([9; 32])).to_line();
        let mut bytes = base64url::decode(&line.as_bytes()[PREFIX.len()..]).unwrap();
        change(&mut bytes);
        Introduction::parse(&format!("{PREFIX}{}", base64url::encode(&bytes)))
    }

    #[test]
    fn introduction_survives_the_line_with_and_without_certificate() {
        for certificate in [None, Some([9; 32])] {
            let original = introduction(certificate);
            assert_eq!(Introduction::parse(&original.to_line()), Ok(original));
        }
    }

    /// docs/protocol.md §14
    #[test]
    fn line_of_another_form_is_refused() {
        let line = introduction(None).to_line();
        for (text, error) in [
            (String::new(), IntroductionError::Prefix),
            (line.replace("relay:", "invite:"), IntroductionError::Prefix),
            (format!(" {line}"), IntroductionError::Prefix),
            (format!("{line}="), IntroductionError::Encoding),
            (format!("{line} "), IntroductionError::Encoding),
            (
                format!("{PREFIX}{}", "A".repeat(2_048)),
                IntroductionError::TooLong,
            ),
        ] {
            assert_eq!(Introduction::parse(&text), Err(error), "{text}");
        }
        assert_eq!(
            changed(|bytes| bytes[0] = 2),
            Err(IntroductionError::Version)
        );
        assert_eq!(
            changed(|bytes| bytes.push(0)),
            Err(DecodeError::TrailingBytes.into())
        );
        assert_eq!(
            changed(|bytes| bytes.truncate(bytes.len() - 1)),
            Err(DecodeError::EndsEarly.into())
        );
        assert_eq!(changed(Vec::clear), Err(DecodeError::EndsEarly.into()));
        // The first letter of the address.
        assert_eq!(
            changed(|bytes| bytes[3] = b'x'),
            Err(AddressError::Scheme.into())
        );
        assert_eq!(
            changed(|bytes| bytes[3] = 0xff),
            Err(AddressError::Host.into())
        );
        let no_key = |bytes: &mut Vec<u8>| {
            let at = bytes.len() - 32;
            bytes.splice(at.., vec![0; 32]);
        };
        assert!(matches!(
            changed(no_key),
            Err(IntroductionError::IssuerKey(_))
        ));
    }
}
