//! What holds for every input: no decoder panics, what one accepts is written back as it was, and the two forms of a
//! sealed message are one (docs/protocol.md §1.1, §9).
#![expect(
    clippy::unwrap_used,
    reason = "tests and what they call fail by panicking"
)]

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use sealwire_e2e::content::{Body, Content, Kind};
use sealwire_e2e::file::{ChunkPlace, FileKey, FileOffer};
use sealwire_e2e::inspect::inspect;
use sealwire_e2e::message::{
    self, First, Header, KEM_CIPHERTEXT_LEN, MessageKey, ProtectedHeader, SealedMessage,
};
use sealwire_e2e::padding;
use sealwire_e2e::safety::SafetyNumber;
use sealwire_protocol::crypto::Secret;

const KEY: [u8; 32] = [5; 32];

fn key() -> MessageKey {
    MessageKey::new(Secret::take(&mut { KEY }))
}

/// A sealed message and its content.
fn sealed() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let fields = (
        any::<[u8; 16]>(),
        any::<[u8; 32]>(),
        any::<u32>(),
        any::<u32>(),
        any::<[u8; 12]>(),
    );
    let first = (
        any::<[u8; 32]>(),
        any::<u32>(),
        option::of(any::<u32>()),
        "[A-Za-z0-9_.-]{1,90}",
        "[A-Za-z0-9_.-]{1,90}",
    );
    (fields, option::of(first), vec(any::<u8>(), 0..300)).prop_map(
        |((session, ratchet_key, pn, n, iv), first, content)| {
            let kem_ciphertext = first.as_ref().map_or([0; KEM_CIPHERTEXT_LEN], |first| {
                [first.0[0]; KEM_CIPHERTEXT_LEN]
            });
            let first =
                first
                    .as_ref()
                    .map(
                        |(device_key, generation, one_time, proof, attestation)| First {
                            device_key: *device_key,
                            ephemeral: *device_key,
                            kem_ciphertext: &kem_ciphertext,
                            generation: *generation,
                            one_time: *one_time,
                            proof,
                            attestation,
                        },
                    );
            let header = Header {
                session,
                ratchet_key,
                pn,
                n,
                first,
            };
            let bytes =
                message::seal(&header, key(), iv, &content, &mut ProtectedHeader::new()).unwrap();
            (bytes, content)
        },
    )
}

/// Changes to make to bytes: where, and what to put there.
fn changes() -> impl Strategy<Value = Vec<(prop::sample::Index, u8)>> {
    vec((any::<prop::sample::Index>(), any::<u8>()), 0..4)
}

fn changed(bytes: &[u8], changes: &[(prop::sample::Index, u8)]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (at, value) in changes {
        *at.get_mut(&mut bytes) = *value;
    }
    bytes
}

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in vec(any::<u8>(), 0..2_000)) {
        let _ = SealedMessage::decode(&bytes);
        let _ = Content::decode(&bytes);
        let _ = padding::unpad(&bytes);
        let _ = inspect(&bytes);
    }

    #[test]
    fn no_text_makes_a_decoder_panic(text in ".{0,400}") {
        let _ = message::from_jwe(&text);
        let _ = SafetyNumber::from_qr_text(&text);
        let _ = SafetyNumber::from_qr_text(&format!("sealwire-verify:1:{text}"));
        let _ = inspect(text.as_bytes());
    }

    /// docs/protocol.md §9.2
    #[test]
    fn binary_to_jwe_to_binary_loses_nothing((bytes, _) in sealed()) {
        let jwe = SealedMessage::decode(&bytes).unwrap().to_jwe();
        prop_assert_eq!(message::from_jwe(&jwe).unwrap(), bytes);
    }

    /// docs/protocol.md §9.2: also for messages that were never sealed by anybody.
    #[test]
    fn whatever_decodes_as_binary_has_a_jwe_that_turns_back((bytes, _) in sealed(), changes in changes()) {
        let bytes = changed(&bytes, &changes);
        if let Ok(message) = SealedMessage::decode(&bytes) {
            prop_assert_eq!(message::from_jwe(&message.to_jwe()).unwrap(), bytes);
        }
    }

    /// docs/protocol.md §9.2: a JWE that would not convert back to the same bytes is refused.
    #[test]
    fn whatever_is_accepted_as_jwe_turns_back((bytes, _) in sealed(), changes in changes()) {
        let jwe = SealedMessage::decode(&bytes).unwrap().to_jwe();
        let jwe = changed(jwe.as_bytes(), &changes);
        if let Ok(jwe) = std::str::from_utf8(&jwe) && let Ok(bytes) = message::from_jwe(jwe) {
            prop_assert_eq!(SealedMessage::decode(&bytes).unwrap().to_jwe(), jwe);
        }
    }

    /// docs/protocol.md §8.2, §9.2
    #[test]
    fn message_opens_only_as_it_was_sealed((bytes, content) in sealed(), changes in changes()) {
        let received = changed(&bytes, &changes);
        let mut protected = ProtectedHeader::new();
        let opened = SealedMessage::decode(&received).ok().and_then(|message| message::open(&message, &key(), &mut protected).ok());
        prop_assert_eq!(opened.map(|opened| opened.to_vec()), (received == bytes).then_some(content));
    }

    /// docs/protocol.md §9.3
    #[test]
    fn content_comes_back(
        id in any::<[u8; 16]>(),
        time in any::<u64>(),
        user in "[^\\p{Cc}]{1,60}",
        media_type in "[a-z0-9][a-z0-9.+-]{0,20}/[a-z0-9][a-z0-9.+-]{0,20}(;[ -~]{0,20})?",
        bytes in vec(any::<u8>(), 0..500),
    ) {
        let body = Body { media_type: &media_type, bytes: &bytes };
        let ids = [id, [7; 16]];
        let ids = ids.as_slice().into();
        for kind in [
            Kind::Message(body),
            Kind::Delivered(ids),
            Kind::Copy { user: &user, body },
            Kind::Empty,
            Kind::Read(ids),
            Kind::Resend(ids),
            Kind::Unavailable(ids),
            Kind::Name(&media_type),
        ] {
            let content = Content { id, time, kind };
            let bytes = content.encode().unwrap();
            prop_assert_eq!(Content::decode(&bytes), Ok(content));
        }
    }

    /// docs/protocol.md §1.1: one content has one encoding.
    #[test]
    fn whatever_decodes_as_content_is_written_back(changes in changes(), kind in 0_u8..8) {
        let body = Body { media_type: "text/plain", bytes: b"hello" };
        let ids = [[1; 16]; 3];
        let ids = ids.as_slice().into();
        let kind = match kind {
            0 => Kind::Message(body),
            1 => Kind::Delivered(ids),
            2 => Kind::Copy { user: "bob", body },
            3 => Kind::Read(ids),
            4 => Kind::Resend(ids),
            5 => Kind::Unavailable(ids),
            6 => Kind::Name("phone"),
            _ => Kind::Empty,
        };
        let bytes = changed(&Content { id: [0; 16], time: 0, kind }.encode().unwrap(), &changes);
        if let Ok(content) = Content::decode(&bytes) {
            prop_assert_eq!(content.encode().unwrap(), bytes);
        }
    }

    /// docs/protocol.md §1.1, §15.3: one offer has one encoding.
    #[test]
    fn whatever_decodes_as_an_offer_is_written_back(changes in changes(), size in any::<u64>(), bytes in vec(any::<u8>(), 0..300)) {
        if let Ok(offer) = FileOffer::decode(&bytes) {
            prop_assert_eq!(offer.encode(), Ok(bytes));
        }
        let (name, media_type) = ("photo.jpg", "image/jpeg");
        let offer = FileOffer { blob: [1; 32], key: FileKey::from_bytes(&KEY), size, sha256: [2; 32], name, media_type };
        if let Ok(bytes) = offer.encode() {
            let bytes = changed(&bytes, &changes);
            if let Ok(offer) = FileOffer::decode(&bytes) {
                prop_assert_eq!(offer.encode(), Ok(bytes));
            }
        }
    }

    /// docs/protocol.md §15.2
    #[test]
    fn chunk_opens_only_as_it_was_sealed(
        chunk in vec(any::<u8>(), 0..300),
        (blob, index, last, iv) in (any::<[u8; 32]>(), any::<u64>(), any::<bool>(), any::<[u8; 12]>()),
        changes in changes(),
    ) {
        let key = FileKey::from_bytes(&KEY);
        let place = ChunkPlace { blob: &blob, index, last };
        let sealed = key.seal_chunk(place, iv, &chunk).unwrap();
        let received = changed(&sealed, &changes);
        prop_assert_eq!(key.open_chunk(place, &received).ok(), (received == sealed).then_some(chunk));
    }

    /// docs/protocol.md §9.3: of all plaintexts of a content, one unpads.
    #[test]
    fn whatever_unpads_has_exactly_its_padding(content in vec(any::<u8>(), 0..400), zeros in 0_usize..64) {
        let mut plaintext = content;
        plaintext.push(0x80);
        plaintext.resize(plaintext.len() + zeros, 0);
        if let Some(content) = padding::unpad(&plaintext) {
            prop_assert_eq!(padding::padded_len(content.len()), Some(plaintext.len()));
        }
    }
}
