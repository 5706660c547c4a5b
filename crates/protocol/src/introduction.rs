//! The introduction line: what a device has to know of a relay with a built-in issuer, and nothing secret (docs/protocol.md §14).
//!
//! ```text
//! operator ── Introduction::to_line ── "sealwire-relay:…", for everybody to read ── Introduction::parse ── device with a provider's token
//! ```
//!
//! It is the first part of an invitation ([`crate::invite`]), without user and code: whoever joins with it presents a token that the relay exchanges. It says whom the device
//! will believe, so it has to come from the operator.
use alloc::{string::String, string::ToString as _, vec::Vec};

use zeroize::Zeroizing;

use crate::{
    address::{Address, AddressError},
    base64url,
    codec::{DecodeError, Reader},
    key::{PublicKey, PublicKeyError},
};

/// What every line begins with.
pub const PREFIX: &str = "sealwire-relay:";
/// The version of the format.
pub(crate) const VERSION: u8 = 1;
/// Bytes of a line, at most.
pub(crate) const MAX_LINE_BYTES: usize = 2_048;
/// Bytes of an address, at most.
pub(crate) const MAX_ADDRESS_BYTES: usize = 1_024;

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
        let bytes = open(line, PREFIX)?;
        let mut reader = Reader::new(&bytes);
        let introduction = Self::read(&mut reader)?;
        reader.finish()?;
        Ok(introduction)
    }

    /// The line.
    #[must_use]
    pub fn to_line(&self) -> String {
        let mut bytes = Vec::new();
        self.write(&mut bytes);
        close(PREFIX, &bytes).to_string()
    }

    /// Reads the version and what follows it.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, IntroductionError> {
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
        // What is not UTF-8 is no host name either.
        let address = core::str::from_utf8(address).map_err(|_| AddressError::Host)?;
        Ok(Self {
            address: address.parse()?,
            certificate,
            issuer_key: PublicKey::from_bytes(issuer_key)?,
        })
    }

    /// Writes the version and what follows it.
    pub(crate) fn write(&self, bytes: &mut Vec<u8>) {
        let address = self.address.to_string();
        // A host has at most 253 bytes.
        let length = u16::try_from(address.len()).unwrap_or(u16::MAX);
        bytes.push(VERSION);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(address.as_bytes());
        bytes.push(u8::from(self.certificate.is_some()));
        bytes.extend_from_slice(self.certificate.as_ref().map_or(&[], <[u8; 32]>::as_slice));
        bytes.extend_from_slice(self.issuer_key.as_bytes());
    }
}

/// What is in a line that begins with `prefix`. It is erased when dropped, as in an invitation's there is a code.
pub(crate) fn open(line: &str, prefix: &str) -> Result<Zeroizing<Vec<u8>>, IntroductionError> {
    if line.len() > MAX_LINE_BYTES {
        return Err(IntroductionError::TooLong);
    }
    let encoded = line.strip_prefix(prefix).ok_or(IntroductionError::Prefix)?;
    let bytes = base64url::decode(encoded.as_bytes());
    let bytes = bytes.map_err(|_| IntroductionError::Encoding)?;
    Ok(Zeroizing::new(bytes))
}

/// The line with these bytes in it, likewise.
pub(crate) fn close(prefix: &str, bytes: &[u8]) -> Zeroizing<String> {
    let encoded = Zeroizing::new(base64url::encode(bytes));
    let mut line = Zeroizing::new(String::with_capacity(MAX_LINE_BYTES));
    line.push_str(prefix);
    line.push_str(&encoded);
    line
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
