use alloc::{format, vec};

use sealwire_protocol::limits::{
    MAX_BODY_BYTES, MAX_PROOF_BYTES, MAX_SEALED_MESSAGE_BYTES, MAX_TOKEN_BYTES,
};

use super::*;
use crate::content::{Body, Content, Kind};

const KEM: [u8; KEM_CIPHERTEXT_LEN] = [7; KEM_CIPHERTEXT_LEN];

fn key() -> MessageKey {
    MessageKey::new(Secret::take(&mut [0xab; 32]))
}

fn ordinary() -> Header<'static> {
    Header {
        session: [1; SESSION_ID_LEN],
        ratchet_key: [2; 32],
        pn: 3,
        n: 4,
        first: None,
    }
}

fn first<'a>(proof: &'a str, attestation: &'a str) -> Header<'a> {
    let first = First {
        device_key: [3; 32],
        ephemeral: [4; 32],
        kem_ciphertext: &KEM,
        generation: 5,
        one_time: Some(6),
        proof,
        attestation,
    };
    Header {
        first: Some(first),
        ..ordinary()
    }
}

fn sealed(header: &Header<'_>, content: &[u8]) -> Result<Vec<u8>, SealError> {
    seal(
        header,
        key(),
        [9; IV_LEN],
        content,
        &mut ProtectedHeader::new(),
    )
}

#[test]
fn sealed_message_opens_with_its_key() {
    for header in [ordinary(), first("a.b.c", "d.e.f")] {
        let bytes = sealed(&header, b"content").unwrap();
        let message = SealedMessage::decode(&bytes).unwrap();
        assert_eq!(message.header(), &header);
        assert_eq!(
            *open(&message, &key(), &mut ProtectedHeader::new()).unwrap(),
            b"content"
        );
    }
}

/// Growing would leave a copy of the content behind.
#[test]
fn sealed_message_is_allocated_once_and_in_its_size() {
    for header in [ordinary(), first("a.b.c", "d.e.f")] {
        let bytes = sealed(&header, &[1; 1_000]).unwrap();
        assert_eq!(bytes.capacity(), bytes.len());
    }
}

/// The buffer is kept between messages and must not let one header into the next.
#[test]
fn protected_header_of_one_message_leaves_no_trace_in_the_next() {
    let mut used = ProtectedHeader::new();
    let long = seal(
        &first("a.b.c", "d.e.f"),
        key(),
        [9; IV_LEN],
        b"content",
        &mut used,
    )
    .unwrap();
    let after = seal(&ordinary(), key(), [9; IV_LEN], b"content", &mut used).unwrap();
    assert_eq!(after, sealed(&ordinary(), b"content").unwrap());
    assert!(open(&SealedMessage::decode(&long).unwrap(), &key(), &mut used).is_ok());
}

/// docs/protocol.md §9.1, §9.2: every bit is authenticated or refused by the form.
#[test]
fn message_with_any_bit_changed_does_not_open() {
    // In the long first message one bit of each byte.
    for (header, step) in [(ordinary(), 1), (first("a.b.c", "d.e.f"), 7)] {
        let bytes = sealed(&header, b"content").unwrap();
        let mut protected = ProtectedHeader::new();
        for bit in (0..bytes.len() * 8).step_by(step) {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            if let Ok(message) = SealedMessage::decode(&changed) {
                assert_eq!(
                    open(&message, &key(), &mut protected),
                    Err(OpenError),
                    "bit {bit}"
                );
            }
        }
    }
}

/// docs/protocol.md §1.1
#[test]
fn message_cut_anywhere_is_refused() {
    let bytes = sealed(&first("a.b.c", "d.e.f"), b"content").unwrap();
    for len in 0..bytes.len() {
        assert_eq!(
            SealedMessage::decode(&bytes[..len]),
            Err(MalformedMessage::Encoding(DecodeError::EndsEarly)),
            "{len}"
        );
    }
}

/// docs/protocol.md §9.1
#[test]
fn message_over_98304_bytes_is_refused_before_it_is_read() {
    let bytes = vec![0xff; MAX_SEALED_MESSAGE_BYTES + 1];
    assert_eq!(
        SealedMessage::decode(&bytes),
        Err(MalformedMessage::TooLong)
    );
    assert_eq!(
        SealedMessage::decode(&bytes[1..]),
        Err(MalformedMessage::Version)
    );
}

/// docs/protocol.md §9.1, §12: the limits of the fields keep within the limits of both forms.
#[test]
fn largest_message_fits_both_forms() {
    let (proof, attestation) = ("p".repeat(MAX_PROOF_BYTES), "a".repeat(MAX_TOKEN_BYTES));
    let mut header = first(&proof, &attestation);
    (header.pn, header.n) = (u32::MAX, u32::MAX);
    let bytes = sealed(&header, &vec![1; MAX_MESSAGE_CIPHERTEXT_BYTES - 1]).unwrap();
    assert!(bytes.len() <= MAX_SEALED_MESSAGE_BYTES);
    let jwe = SealedMessage::decode(&bytes).unwrap().to_jwe();
    assert!(jwe.len() <= MAX_JWE_BYTES);
    assert_eq!(from_jwe(&jwe).unwrap(), bytes);
}

/// docs/protocol.md §9.3, §12
#[test]
fn largest_content_fits_a_message() {
    let (user, media_type) = ("u".repeat(255), format!("a/b;{}", "c".repeat(251)));
    let body = Body {
        media_type: &media_type,
        bytes: &[0; MAX_BODY_BYTES],
    };
    let content = Content {
        id: [0; 16],
        time: u64::MAX,
        kind: Kind::Copy { user: &user, body },
    };
    let encoded = content.encode().unwrap();
    let bytes = sealed(&ordinary(), &encoded).unwrap();
    let opened = open(
        &SealedMessage::decode(&bytes).unwrap(),
        &key(),
        &mut ProtectedHeader::new(),
    )
    .unwrap();
    assert_eq!(Content::decode(&opened), Ok(content));
}

/// docs/protocol.md §9.1
#[test]
fn seal_refuses_content_whose_padded_form_is_over_81920_bytes() {
    assert_eq!(
        sealed(&ordinary(), &vec![1; MAX_MESSAGE_CIPHERTEXT_BYTES]),
        Err(SealError::ContentTooLong)
    );
}

/// docs/protocol.md §9.1, §9.2
#[test]
fn seal_refuses_a_proof_that_no_receiver_accepts() {
    let long = "p".repeat(MAX_PROOF_BYTES + 1);
    for proof in [
        "", "a\"b", "a\\b", "a b", "a=", "a+b", "a/b", "é", "a\0b", "a\nb", &long,
    ] {
        assert_eq!(
            sealed(&first(proof, "d.e.f"), b""),
            Err(SealError::Proof),
            "{proof:?}"
        );
    }
}

/// docs/protocol.md §9.1, §9.2
#[test]
fn seal_refuses_an_attestation_that_no_receiver_accepts() {
    let long = "a".repeat(MAX_TOKEN_BYTES + 1);
    for attestation in [
        "", "a\"b", "a\\b", "a b", "a=", "a+b", "a/b", "é", "a\0b", "a\nb", &long,
    ] {
        assert_eq!(
            sealed(&first("a.b.c", attestation), b""),
            Err(SealError::Attestation),
            "{attestation:?}"
        );
    }
}

/// docs/protocol.md §9.2
#[test]
fn jwe_over_its_limit_is_refused_before_it_is_read() {
    assert_eq!(
        from_jwe(&".".repeat(MAX_JWE_BYTES + 1)),
        Err(MalformedJwe::TooLong)
    );
    assert_eq!(
        from_jwe(&".".repeat(MAX_JWE_BYTES)),
        Err(MalformedJwe::Parts)
    );
}

/// docs/protocol.md §9.1: what cannot be in the binary form cannot come from a JWE.
#[test]
fn jwe_with_ciphertext_over_81920_bytes_is_refused() {
    let bytes = sealed(&ordinary(), b"content").unwrap();
    let jwe = SealedMessage::decode(&bytes).unwrap().to_jwe();
    let ciphertext = base64url::encode(&vec![0; MAX_MESSAGE_CIPHERTEXT_BYTES + 1]);
    let mut parts: Vec<&str> = jwe.split('.').collect();
    parts[3] = &ciphertext;
    assert_eq!(from_jwe(&parts.join(".")), Err(MalformedJwe::Ciphertext));
}

/// docs/protocol.md §9.2: a proof that would need an escape is malformed in both forms.
#[test]
fn jwe_whose_proof_is_no_jws_is_refused() {
    let bytes = sealed(&first("a.b.c", "d.e.f"), b"content").unwrap();
    let jwe = SealedMessage::decode(&bytes).unwrap().to_jwe();
    let (header, rest) = jwe.split_once('.').unwrap();
    let json = String::from_utf8(base64url::decode(header.as_bytes()).unwrap()).unwrap();
    for proof in ["a b c", "a=", "é", "a+b"] {
        let changed = json.replace("a.b.c", proof);
        let changed = format!("{}.{rest}", base64url::encode(changed.as_bytes()));
        assert_eq!(from_jwe(&changed), Err(MalformedJwe::Header), "{proof}");
    }
}

#[test]
fn exported_key_is_a_jwk() {
    let jwk = MessageKey::new(Secret::take(&mut [0xff; 32])).export_secret_as_jwk();
    assert_eq!(
        *jwk,
        r#"{"kty":"oct","k":"__________________________________________8"}"#
    );
}

#[test]
fn debug_of_a_key_shows_nothing_secret() {
    assert_eq!(format!("{:?}", key()), "MessageKey(..)");
}

/// docs/protocol.md §13: one error, whatever the cause.
#[test]
fn open_error_has_no_detail() {
    assert_eq!(core::mem::size_of::<OpenError>(), 0);
    assert_eq!(format!("{OpenError}"), "the message does not open");
}
