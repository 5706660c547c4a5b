//! What a sealed message or a JWE says to anybody, without a key: what the relay can see of it.
//!
//! Nothing here is authentic, and text in a [`StandardJwe`]'s header comes from whoever made it: whoever shows it on
//! a terminal escapes it first.

use alloc::{borrow::ToOwned as _, string::String, vec::Vec};

use sealwire_protocol::base64url;
use sealwire_protocol::json::{JsonError, Object, Value};
use sealwire_protocol::key::{PublicKey, Thumbprint};
use sealwire_protocol::limits::MAX_JWS_HEADER_BYTES;

use crate::message::{
    self, Header, IV_LEN, MAX_JWE_BYTES, MalformedJwe, MalformedMessage, SESSION_ID_LEN,
    SealedMessage,
};

/// The `typ` of a sealed message's JWE form (docs/protocol.md §9.2).
const SEALED_TYP: &str = "sealwire+jwe";

/// What the bytes turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inspected {
    /// A sealed message, in either form.
    Sealed(SealedSummary),
    /// Another JWE in compact serialization, such as a standard JWE to a device (docs/protocol.md §10).
    Standard(StandardJwe),
}

/// In which form a sealed message was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The compact binary form (docs/protocol.md §9.1).
    Binary,
    /// The JWE form (docs/protocol.md §9.2).
    Jwe,
}

/// What a sealed message shows (docs/protocol.md §9.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedSummary {
    /// The form it was given in.
    pub form: Form,
    /// Its length in the compact binary form, in bytes.
    pub binary_len: usize,
    /// Session id.
    pub session: [u8; SESSION_ID_LEN],
    /// The sender's ratchet key, X25519.
    pub ratchet_key: [u8; 32],
    /// Length of the sender's previous chain, in messages.
    pub pn: u32,
    /// Number in its chain, from 0.
    pub n: u32,
    /// Initialisation vector.
    pub iv: [u8; IV_LEN],
    /// Length of the padded content, in bytes.
    pub ciphertext_len: usize,
    /// What a first message shows beside.
    pub first: Option<FirstSummary>,
}

/// What a first message shows of its session's start (docs/protocol.md §9.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstSummary {
    /// The initiator's device; `None` if the key is not an acceptable Ed25519 key.
    pub device: Option<Thumbprint>,
    /// Generation of the recipient's card.
    pub generation: u32,
    /// The one-time prekey that was used.
    pub one_time: Option<u32>,
    /// The initiator's proof, a compact JWS.
    pub proof: String,
    /// The initiator's attestation, a compact JWS.
    pub attestation: String,
}

/// What a JWE shows that is not a sealed message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandardJwe {
    /// Its protected header; `alg` and `enc` are there and are strings.
    pub header: Object,
    /// Length of the encrypted key, in bytes.
    pub encrypted_key_len: usize,
    /// Length of the initialisation vector, in bytes.
    pub iv_len: usize,
    /// Length of the ciphertext, in bytes.
    pub ciphertext_len: usize,
    /// Length of the tag, in bytes.
    pub tag_len: usize,
}

/// Describes `input`: a sealed message in its binary form, or any JWE in compact serialization as text, without
/// anything before or after it.
///
/// # Errors
/// [`InspectError`] says which form it was taken for, and why it is not of it.
pub fn inspect(input: &[u8]) -> Result<Inspected, InspectError> {
    // A JWE begins with base64url of `{`. Its first byte is never a version.
    match input.first() {
        None => Err(InspectError::Empty),
        Some(byte) if byte.is_ascii_graphic() => inspect_jwe(
            core::str::from_utf8(input).map_err(|_| InspectError::Jwe(MalformedJwe::Base64url))?,
        ),
        Some(_) => Ok(Inspected::Sealed(summary(Form::Binary, input)?)),
    }
}

fn inspect_jwe(jwe: &str) -> Result<Inspected, InspectError> {
    if jwe.len() > MAX_JWE_BYTES {
        return Err(MalformedJwe::TooLong.into());
    }
    let not_sealed = match message::from_jwe(jwe) {
        Ok(binary) => return Ok(Inspected::Sealed(summary(Form::Jwe, &binary)?)),
        Err(error) => error,
    };
    let mut parts = jwe.split('.');
    let (Some(header), Some(encrypted_key), Some(iv), Some(ciphertext), Some(tag), None) = (
        parts.next(),
        parts.next(),
        parts.next(),
        parts.next(),
        parts.next(),
        parts.next(),
    ) else {
        return Err(MalformedJwe::Parts.into());
    };
    let header = decode(header)?;
    // A first message's header is longer, but that has been read already.
    if header.len() > MAX_JWS_HEADER_BYTES {
        return Err(InspectError::HeaderTooLong);
    }
    let header = Object::parse(&header)?;
    let string = |name| match header.member(name) {
        Some(Value::String(value)) => Some(value.as_str()),
        _ => None,
    };
    if string("alg").is_none() || string("enc").is_none() {
        return Err(InspectError::NotAJwe);
    }
    if string("typ") == Some(SEALED_TYP) {
        return Err(not_sealed.into());
    }
    Ok(Inspected::Standard(StandardJwe {
        encrypted_key_len: decode(encrypted_key)?.len(),
        iv_len: decode(iv)?.len(),
        ciphertext_len: decode(ciphertext)?.len(),
        tag_len: decode(tag)?.len(),
        header,
    }))
}

fn decode(part: &str) -> Result<Vec<u8>, MalformedJwe> {
    base64url::decode(part.as_bytes()).map_err(|_| MalformedJwe::Base64url)
}

fn summary(form: Form, binary: &[u8]) -> Result<SealedSummary, MalformedMessage> {
    let message = SealedMessage::decode(binary)?;
    let Header {
        session,
        ratchet_key,
        pn,
        n,
        first,
    } = *message.header();
    let first = first.map(|first| FirstSummary {
        device: PublicKey::from_bytes(&first.device_key)
            .ok()
            .map(|key| key.thumbprint()),
        generation: first.generation,
        one_time: first.one_time,
        proof: first.proof.to_owned(),
        attestation: first.attestation.to_owned(),
    });
    Ok(SealedSummary {
        form,
        binary_len: binary.len(),
        session,
        ratchet_key,
        pn,
        n,
        iv: *message.iv(),
        ciphertext_len: message.ciphertext().len(),
        first,
    })
}

/// Why the bytes cannot be described.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InspectError {
    /// There are none.
    #[error("there is nothing to inspect: give a sealed message or a JWE")]
    Empty,
    /// Taken for the binary form.
    #[error(transparent)]
    Message(#[from] MalformedMessage),
    /// Taken for a JWE.
    #[error(transparent)]
    Jwe(#[from] MalformedJwe),
    /// The header is longer than 1,024 bytes.
    #[error("the JWE's header is longer than 1,024 bytes")]
    HeaderTooLong,
    /// The header is not acceptable JSON.
    #[error("the JWE's header: {0}")]
    Json(#[from] JsonError),
    /// The header lacks `alg` or `enc` (RFC 7516 §4.1).
    #[error("the header has no \"alg\" or no \"enc\": this is not a JWE")]
    NotAJwe,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{First, KEM_CIPHERTEXT_LEN, MessageKey, ProtectedHeader, seal};
    use alloc::format;
    use sealwire_protocol::crypto::Secret;
    use sealwire_protocol::key::{Seed, SigningKey};

    /// RFC 7516 A.1
    const RFC_7516: &str = "eyJhbGciOiJSU0EtT0FFUCIsImVuYyI6IkEyNTZHQ00ifQ.\
        OKOawDo13gRp2ojaHV7LFpZcgV7T6DVZKTyKOMTYUmKoTCVJRgckCL9kiMT03JGeipsEdY3mx_etLbbWSrFr05kLzcSr4qKAq7YN7e9jwQRb23nfa6c9d-\
        StnImGyFDbSv04uVuxIp5Zms1gNxKKK2Da14B8S4rzVRltdYwam_lDp5XnZAYpQdb76FdIKLaVmqgfwX7XWRxv2322i-vDxRfqNzo_tETKzpVLzfiwQyey\
        PGLBIO56YJ7eObdv0je81860ppamavo35UgoRdbYaBcoh9QcfylQr66oc6vFWXRcZ_ZT2LawVCWTIy3brGPi6UklfCpIMfIjf7iGdXKHzg.\
        48V1_ALb6US04U3b.\
        5eym8TW_c8SuK0ltJ3rpYIzOeDQz7TALvtu6UG9oMo4vpzs9tX_EFShS8iB7j6jiSdiwkIr3ajwQzaBtQD_A.\
        XFBoMYUZodetZdvTiFvSkQ";

    fn jwe(header: &str) -> String {
        format!(
            "{}..AAAAAAAAAAAAAAAA.AA.AAAAAAAAAAAAAAAAAAAAAA",
            base64url::encode(header.as_bytes())
        )
    }

    #[test]
    fn sealed_message_shows_the_same_in_both_forms() {
        let device = SigningKey::from_seed(&Seed::new([1; 32]));
        let kem_ciphertext = [2; KEM_CIPHERTEXT_LEN];
        let first = First {
            device_key: *device.public().as_bytes(),
            ephemeral: [3; 32],
            kem_ciphertext: &kem_ciphertext,
            generation: 4,
            one_time: Some(5),
            proof: "a.b.c",
            attestation: "d.e.f",
        };
        let header = Header {
            session: [6; SESSION_ID_LEN],
            ratchet_key: [7; 32],
            pn: 8,
            n: 9,
            first: Some(first),
        };
        let key = MessageKey::new(Secret::take(&mut [0; 32]));
        let binary = seal(
            &header,
            key,
            [10; IV_LEN],
            b"content",
            &mut ProtectedHeader::new(),
        )
        .unwrap();
        let expected = SealedSummary {
            form: Form::Binary,
            binary_len: binary.len(),
            session: [6; SESSION_ID_LEN],
            ratchet_key: [7; 32],
            pn: 8,
            n: 9,
            iv: [10; IV_LEN],
            ciphertext_len: 8,
            first: Some(FirstSummary {
                device: Some(device.thumbprint()),
                generation: 4,
                one_time: Some(5),
                proof: "a.b.c".to_owned(),
                attestation: "d.e.f".to_owned(),
            }),
        };
        assert_eq!(inspect(&binary), Ok(Inspected::Sealed(expected.clone())));
        let jwe = SealedMessage::decode(&binary).unwrap().to_jwe();
        assert_eq!(
            inspect(jwe.as_bytes()),
            Ok(Inspected::Sealed(SealedSummary {
                form: Form::Jwe,
                ..expected
            }))
        );
    }

    /// RFC 7516 A.1
    #[test]
    fn rfc_7516_example_is_described() {
        let Ok(Inspected::Standard(jwe)) = inspect(RFC_7516.as_bytes()) else {
            panic!()
        };
        assert_eq!(
            jwe.header.member("alg"),
            Some(&Value::String("RSA-OAEP".to_owned()))
        );
        assert_eq!(
            jwe.header.member("enc"),
            Some(&Value::String("A256GCM".to_owned()))
        );
        assert_eq!(
            (
                jwe.encrypted_key_len,
                jwe.iv_len,
                jwe.ciphertext_len,
                jwe.tag_len
            ),
            (256, 12, 63, 16)
        );
    }

    /// docs/protocol.md §9.2: what says it is a sealed message must be one.
    #[test]
    fn jwe_that_only_says_it_is_a_sealed_message_is_refused() {
        let text = jwe(r#"{"alg":"dir","enc":"A256GCM","typ":"sealwire+jwe"}"#);
        assert_eq!(
            inspect(text.as_bytes()),
            Err(InspectError::Jwe(MalformedJwe::Header))
        );
    }

    #[test]
    fn nothing_is_refused() {
        assert_eq!(inspect(b""), Err(InspectError::Empty));
    }

    /// docs/protocol.md §9.1
    #[test]
    fn bytes_of_another_version_are_refused() {
        assert_eq!(
            inspect(&[2, 0]),
            Err(InspectError::Message(MalformedMessage::Version))
        );
    }

    #[test]
    fn jws_is_no_jwe() {
        assert_eq!(
            inspect(b"e30.e30.AAAA"),
            Err(InspectError::Jwe(MalformedJwe::Parts))
        );
        // Five parts, but without what every JWE has (RFC 7516 §4.1).
        assert_eq!(inspect(jwe("{}").as_bytes()), Err(InspectError::NotAJwe));
        assert_eq!(
            inspect(jwe(r#"{"alg":"dir"}"#).as_bytes()),
            Err(InspectError::NotAJwe)
        );
        assert_eq!(
            inspect(jwe(r#"{"alg":1,"enc":"A256GCM"}"#).as_bytes()),
            Err(InspectError::NotAJwe)
        );
    }

    /// docs/protocol.md §1.2
    #[test]
    fn jwe_that_is_not_canonical_base64url_is_refused() {
        for text in [
            RFC_7516.replace("XFBoMYUZodetZdvTiFvSkQ", "XFBoMYUZodetZdvTiFvSkR"),
            format!("{RFC_7516}="),
            format!("{RFC_7516}\n"),
        ] {
            assert_eq!(
                inspect(text.as_bytes()),
                Err(InspectError::Jwe(MalformedJwe::Base64url))
            );
        }
        assert_eq!(
            inspect(b"e\xff"),
            Err(InspectError::Jwe(MalformedJwe::Base64url))
        );
    }

    /// docs/protocol.md §2.1, 3
    #[test]
    fn jwe_with_a_duplicate_header_member_is_refused() {
        let text = jwe(r#"{"alg":"dir","enc":"A256GCM","enc":"A128GCM"}"#);
        assert_eq!(
            inspect(text.as_bytes()),
            Err(InspectError::Json(JsonError::DuplicateMember))
        );
    }

    /// docs/protocol.md §12
    #[test]
    fn jwe_with_a_header_over_1024_bytes_is_refused() {
        let text = jwe(&format!(
            r#"{{"alg":"dir","enc":"A256GCM","kid":"{}"}}"#,
            "k".repeat(1_024)
        ));
        assert_eq!(inspect(text.as_bytes()), Err(InspectError::HeaderTooLong));
    }

    #[test]
    fn text_over_the_limit_is_refused_before_it_is_read() {
        let text = "e".repeat(MAX_JWE_BYTES + 1);
        assert_eq!(
            inspect(text.as_bytes()),
            Err(InspectError::Jwe(MalformedJwe::TooLong))
        );
    }
}
