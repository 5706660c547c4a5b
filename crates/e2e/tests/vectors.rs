//! The vectors in `crates/e2e/vectors`, which any implementation in any language can run.
//!
//! They were computed by `vectors/make.py`, which shares no code with the crate. Every name is listed below: a vector
//! that is missing fails, and so does one that nobody expects.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests and what they call fail by panicking"
)]

use std::collections::BTreeMap;
use std::path::Path;

use sealwire_e2e::content::{Body, Content, ContentError, Kind};
use sealwire_e2e::file::{self, ChunkPlace, FileError, FileKey, FileOffer};
use sealwire_e2e::message::{
    self, MalformedJwe, MalformedMessage, MessageKey, OpenError, ProtectedHeader, SealedMessage,
};
use sealwire_e2e::padding;
use sealwire_e2e::safety::{QrError, SafetyNumber, Side};
use sealwire_protocol::crypto::{AeadError, Secret};
use sealwire_protocol::key::Thumbprint;
use sealwire_protocol::name::{Issuer, User};
use serde_json::Value;

/// docs/protocol.md §9.1, §9.2
#[test]
fn sealed_messages_hold_or_are_refused_as_their_vectors_say() {
    for (name, vector) in load("message", MESSAGE) {
        let key = || MessageKey::new(Secret::from_slice(&hex(&vector["key"])).unwrap());
        let mut protected = ProtectedHeader::new();
        match (vector["error"].as_str(), vector["jwe"].as_str()) {
            (None, jwe) => {
                let (bytes, jwe) = (hex(&vector["message"]), jwe.unwrap());
                let sealed = SealedMessage::decode(&bytes).unwrap();
                assert_eq!(sealed.to_jwe(), jwe, "{name}");
                assert_eq!(message::from_jwe(jwe).unwrap(), bytes, "{name}");
                let content = message::open(&sealed, &key(), &mut protected).unwrap();
                assert_eq!(*content, hex(&vector["content"]), "{name}");
                let again = message::seal(
                    sealed.header(),
                    key(),
                    *sealed.iv(),
                    &content,
                    &mut protected,
                )
                .unwrap();
                assert_eq!(again, bytes, "{name}");
            }
            (Some(error), Some(jwe)) => assert_eq!(
                jwe_error(message::from_jwe(jwe).unwrap_err()),
                error,
                "{name}"
            ),
            (Some("decrypt"), None) => {
                let bytes = hex(&vector["message"]);
                let sealed = SealedMessage::decode(&bytes).unwrap();
                assert_eq!(
                    message::open(&sealed, &key(), &mut protected).unwrap_err(),
                    OpenError,
                    "{name}"
                );
            }
            (Some(error), None) => {
                let bytes = hex(&vector["message"]);
                assert_eq!(
                    message_error(SealedMessage::decode(&bytes).unwrap_err()),
                    error,
                    "{name}"
                );
            }
        }
    }
}

/// docs/protocol.md §9.3
#[test]
fn contents_hold_or_are_refused_as_their_vectors_say() {
    for (name, vector) in load("content", CONTENT) {
        let bytes = hex(&vector["content"]);
        let decoded = Content::decode(&bytes);
        if let Some(error) = vector["error"].as_str() {
            assert_eq!(content_error(decoded.unwrap_err()), error, "{name}");
            continue;
        }
        let body_bytes = hex(&vector["body"]);
        let body = Body {
            media_type: text(&vector["media_type"]),
            bytes: &body_bytes,
        };
        let (ids, rest) = body_bytes.as_chunks();
        let ids = ids.into();
        let kind = match text(&vector["kind"]) {
            "message" => Kind::Message(body),
            "delivered" if rest.is_empty() => Kind::Delivered(ids),
            "copy" => Kind::Copy {
                user: text(&vector["user"]),
                body,
            },
            "empty" => Kind::Empty,
            "read" if rest.is_empty() => Kind::Read(ids),
            "resend" if rest.is_empty() => Kind::Resend(ids),
            "unavailable" if rest.is_empty() => Kind::Unavailable(ids),
            "name" => Kind::Name(std::str::from_utf8(&body_bytes).unwrap()),
            other => panic!("{name}: {other}"),
        };
        let id = hex(&vector["id"]).try_into().unwrap();
        let content = Content {
            id,
            time: vector["time"].as_u64().unwrap(),
            kind,
        };
        assert_eq!(decoded, Ok(content), "{name}");
        assert_eq!(content.encode().unwrap(), bytes, "{name}");
    }
}

/// docs/protocol.md §15.2, §15.3
#[test]
fn files_hold_or_are_refused_as_their_vectors_say() {
    for (name, vector) in load("file", FILE) {
        if let Some(lengths) = vector["lengths"].as_array() {
            for of_a_size in lengths {
                let [size, padded, chunks, sealed] = [0, 1, 2, 3].map(|at| number(&of_a_size[at]));
                assert_eq!(file::padded_len(size), Some(padded), "{name}: {size}");
                assert_eq!(file::chunks(size), Some(chunks), "{name}: {size}");
                assert_eq!(file::sealed_len(size), Some(sealed), "{name}: {size}");
            }
        } else if vector["sealed"].is_string() {
            check_chunk(&name, &vector);
        } else {
            check_offer(&name, &vector);
        }
    }
}

fn check_chunk(name: &str, vector: &Value) {
    let key = FileKey::from_bytes(&array(&vector["key"]));
    let blob = array(&vector["blob"]);
    let place = ChunkPlace {
        blob: &blob,
        index: number(&vector["index"]),
        last: vector["last"].as_bool().unwrap(),
    };
    let sealed = hex(&vector["sealed"]);
    let opened = key.open_chunk(place, &sealed);
    if vector["error"].is_string() {
        assert_eq!(opened, Err(AeadError), "{name}");
        return;
    }
    let plaintext = hex(&vector["plaintext"]);
    let iv = *sealed.first_chunk().unwrap();
    assert_eq!(opened.as_ref(), Ok(&plaintext), "{name}");
    assert_eq!(key.seal_chunk(place, iv, &plaintext), Ok(sealed), "{name}");
}

fn check_offer(name: &str, vector: &Value) {
    let bytes = hex(&vector["offer"]);
    let decoded = FileOffer::decode(&bytes);
    if let Some(error) = vector["error"].as_str() {
        assert_eq!(file_error(decoded.unwrap_err()), error, "{name}");
        return;
    }
    let offer = FileOffer {
        blob: array(&vector["blob"]),
        key: FileKey::from_bytes(&array(&vector["key"])),
        size: number(&vector["size"]),
        sha256: array(&vector["sha256"]),
        name: text(&vector["name"]),
        media_type: text(&vector["media_type"]),
    };
    assert_eq!(offer.encode(), Ok(bytes.clone()), "{name}");
    assert_eq!(decoded, Ok(offer), "{name}");
}

/// docs/protocol.md §9.3
#[test]
fn paddings_hold_or_are_refused_as_their_vectors_say() {
    for (name, vector) in load("padding", PADDING) {
        if let Some(lengths) = vector["lengths"].as_array() {
            for pair in lengths {
                let [content, padded] =
                    [0, 1].map(|at| usize::try_from(pair[at].as_u64().unwrap()).unwrap());
                assert_eq!(
                    padding::padded_len(content),
                    Some(padded),
                    "{name}: {content}"
                );
            }
            continue;
        }
        let plaintext = hex(&vector["plaintext"]);
        if vector["error"].is_string() {
            assert_eq!(padding::unpad(&plaintext), None, "{name}");
            continue;
        }
        let content = hex(&vector["content"]);
        assert_eq!(
            padding::unpad(&plaintext),
            Some(content.as_slice()),
            "{name}"
        );
        assert_eq!(
            padding::padded_len(content.len()),
            Some(plaintext.len()),
            "{name}"
        );
    }
}

/// docs/protocol.md §11
#[test]
fn safety_numbers_hold_or_are_refused_as_their_vectors_say() {
    for (name, vector) in load("safety", SAFETY) {
        let number = SafetyNumber::new(side(&vector["ours"]), side(&vector["theirs"]));
        let qr = text(&vector["qr"]);
        if let Some(error) = vector["error"].as_str() {
            assert_eq!(qr_error(number.verify_qr(qr).unwrap_err()), error, "{name}");
            continue;
        }
        assert_eq!(number.to_string(), text(&vector["digits"]), "{name}");
        assert_eq!(number.qr_text(), qr, "{name}");
        assert_eq!(number.verify_qr(qr), Ok(()), "{name}");
    }
}

fn load(folder: &str, expected: &[&str]) -> BTreeMap<String, Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("vectors")
        .join(folder);
    let vectors: BTreeMap<String, Value> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            assert_eq!(path.extension().unwrap(), "json", "{path:?}");
            let vector = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            (
                path.file_stem().unwrap().to_str().unwrap().to_owned(),
                vector,
            )
        })
        .collect();
    let found: Vec<&str> = vectors.keys().map(String::as_str).collect();
    assert_eq!(found, expected, "in {folder:?}");
    assert!(
        vectors
            .values()
            .all(|vector| vector["section"].is_string() && vector["about"].is_string())
    );
    vectors
}

fn hex(value: &Value) -> Vec<u8> {
    let digits = text(value);
    assert_eq!(digits.len() % 2, 0);
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect()
}

fn array(value: &Value) -> [u8; 32] {
    hex(value).try_into().unwrap()
}

fn number(value: &Value) -> u64 {
    text(value).parse().unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn side(value: &Value) -> Side {
    let devices: Vec<Thumbprint> = value["devices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|device| Thumbprint::from_bytes(hex(device).try_into().unwrap()))
        .collect();
    Side::new(
        &Issuer::new(text(&value["issuer"])).unwrap(),
        &User::new(text(&value["user"])).unwrap(),
        &devices,
    )
    .unwrap()
}

fn message_error(error: MalformedMessage) -> &'static str {
    match error {
        MalformedMessage::TooLong => "too_long",
        MalformedMessage::Encoding(_) => "encoding",
        MalformedMessage::Version => "version",
        MalformedMessage::Kind => "kind",
        MalformedMessage::Proof => "proof",
        MalformedMessage::Attestation => "attestation",
        other => panic!("{other}"),
    }
}

fn jwe_error(error: MalformedJwe) -> &'static str {
    match error {
        MalformedJwe::TooLong => "jwe_too_long",
        MalformedJwe::Parts => "jwe_parts",
        MalformedJwe::Base64url => "jwe_base64url",
        MalformedJwe::Header => "jwe_header",
        MalformedJwe::EncryptedKey => "jwe_encrypted_key",
        MalformedJwe::Iv => "jwe_iv",
        MalformedJwe::Ciphertext => "jwe_ciphertext",
        MalformedJwe::Tag => "jwe_tag",
        other => panic!("{other}"),
    }
}

fn content_error(error: ContentError) -> &'static str {
    match error {
        ContentError::Encoding(_) => "encoding",
        ContentError::Version => "version",
        ContentError::Kind => "kind",
        ContentError::UnexpectedField => "unexpected_field",
        ContentError::User => "user",
        ContentError::MediaType => "media_type",
        ContentError::BodyTooLong => "body_too_long",
        ContentError::Ids => "ids",
        ContentError::Name => "name",
        other => panic!("{other}"),
    }
}

fn file_error(error: FileError) -> &'static str {
    match error {
        FileError::Encoding(_) => "encoding",
        FileError::Version => "version",
        FileError::Size => "size",
        FileError::Name => "name",
        FileError::MediaType => "media_type",
        other => panic!("{other}"),
    }
}

fn qr_error(error: QrError) -> &'static str {
    match error {
        QrError::Prefix => "prefix",
        QrError::Sides => "sides",
        QrError::Order => "order",
        QrError::Different => "different",
        other => panic!("{other}"),
    }
}

const MESSAGE: &[&str] = &[
    "jwe_alg_none",
    "jwe_alg_other",
    "jwe_ciphertext_empty",
    "jwe_ciphertext_white_space",
    "jwe_crv_other",
    "jwe_empty",
    "jwe_enc_other",
    "jwe_encrypted_key_present",
    "jwe_first_null",
    "jwe_first_otk_missing",
    "jwe_first_otk_string",
    "jwe_first_proof_empty",
    "jwe_first_proof_escape",
    "jwe_first_proof_over_limit",
    "jwe_four_parts",
    "jwe_header_crit",
    "jwe_header_duplicate",
    "jwe_header_empty_object",
    "jwe_header_escape",
    "jwe_header_not_base64",
    "jwe_header_order",
    "jwe_header_padded",
    "jwe_header_trailing_space",
    "jwe_header_unknown_member",
    "jwe_header_white_space",
    "jwe_header_zip",
    "jwe_iv_empty",
    "jwe_iv_long",
    "jwe_iv_short",
    "jwe_kid_short",
    "jwe_kid_unused_bits",
    "jwe_n_exponent",
    "jwe_n_fraction",
    "jwe_n_leading_zero",
    "jwe_n_missing",
    "jwe_n_negative",
    "jwe_n_string",
    "jwe_pn_over_limit",
    "jwe_ratchet_key_long",
    "jwe_six_parts",
    "jwe_tag_short",
    "jwe_tag_standard_alphabet",
    "jwe_tag_unused_bits",
    "jwe_trailing_newline",
    "jwe_typ_other",
    "message_aad_not_encoded",
    "message_attestation_backslash",
    "message_attestation_empty",
    "message_attestation_nul",
    "message_attestation_over_limit",
    "message_attestation_space",
    "message_ciphertext_changed",
    "message_ciphertext_empty",
    "message_ciphertext_over_limit",
    "message_ciphertext_past_end",
    "message_ciphertext_shortened",
    "message_counters_largest",
    "message_counters_zero",
    "message_first",
    "message_first_as_ordinary",
    "message_first_attestation_changed",
    "message_first_device_key_changed",
    "message_first_one_time_removed",
    "message_first_proof_changed",
    "message_first_truncated",
    "message_first_without_one_time",
    "message_iv_changed",
    "message_iv_truncated",
    "message_key_other",
    "message_kind_unknown",
    "message_n_changed",
    "message_one_time_count_two",
    "message_ordinary",
    "message_ordinary_as_first",
    "message_padding_all_zero",
    "message_padding_missing",
    "message_padding_too_long",
    "message_pn_changed",
    "message_proof_empty",
    "message_proof_not_ascii",
    "message_proof_over_limit",
    "message_proof_padded",
    "message_proof_quote",
    "message_proof_standard_alphabet",
    "message_ratchet_key_changed",
    "message_session_changed",
    "message_tag_changed",
    "message_tag_missing",
    "message_tag_truncated",
    "message_trailing_byte",
    "message_truncated",
    "message_version_unknown",
    "message_version_zero",
    "message_without_bytes",
];

const CONTENT: &[&str] = &[
    "content_body_length_past_end",
    "content_body_over_limit",
    "content_copy",
    "content_copy_user_c1_control_character",
    "content_copy_user_control_character",
    "content_copy_user_longest",
    "content_copy_user_not_utf8",
    "content_copy_without_user",
    "content_delivered",
    "content_delivered_256_ids",
    "content_delivered_257_ids",
    "content_delivered_id_trailing_byte",
    "content_delivered_id_truncated",
    "content_delivered_with_media_type",
    "content_delivered_with_user",
    "content_delivered_without_ids",
    "content_empty",
    "content_empty_with_body",
    "content_empty_with_media_type",
    "content_empty_with_user",
    "content_kind_largest",
    "content_kind_unknown",
    "content_media_type_control_character",
    "content_media_type_longest",
    "content_media_type_missing",
    "content_media_type_not_ascii",
    "content_media_type_parameter_control_character",
    "content_media_type_shortest",
    "content_media_type_two_bytes",
    "content_media_type_two_slashes",
    "content_media_type_without_slash",
    "content_media_type_without_type",
    "content_message",
    "content_message_with_parameter",
    "content_message_with_user",
    "content_message_without_body",
    "content_name",
    "content_name_65_bytes",
    "content_name_c1_control_character",
    "content_name_control_character",
    "content_name_empty",
    "content_name_longest",
    "content_name_not_utf8",
    "content_name_with_media_type",
    "content_name_with_user",
    "content_read",
    "content_read_257_ids",
    "content_read_id_trailing_byte",
    "content_read_id_truncated",
    "content_read_with_media_type",
    "content_read_with_user",
    "content_read_without_ids",
    "content_resend",
    "content_resend_257_ids",
    "content_resend_id_trailing_byte",
    "content_resend_id_truncated",
    "content_resend_with_media_type",
    "content_resend_with_user",
    "content_resend_without_ids",
    "content_time_truncated",
    "content_trailing_byte",
    "content_truncated",
    "content_unavailable",
    "content_unavailable_257_ids",
    "content_unavailable_id_trailing_byte",
    "content_unavailable_id_truncated",
    "content_unavailable_with_media_type",
    "content_unavailable_with_user",
    "content_unavailable_without_ids",
    "content_version_unknown",
    "content_version_zero",
    "content_without_bytes",
];

const PADDING: &[&str] = &[
    "padding_all_zero",
    "padding_empty",
    "padding_lengths",
    "padding_marker_missing",
    "padding_marker_other",
    "padding_missing",
    "padding_next_length",
    "padding_not_zero",
    "padding_of_0_bytes",
    "padding_of_100_bytes",
    "padding_of_1_bytes",
    "padding_of_250_bytes",
    "padding_of_31_bytes",
    "padding_of_8_bytes",
    "padding_of_9_bytes",
    "padding_of_content_that_looks_padded",
    "padding_too_long",
    "padding_too_short",
];

const SAFETY: &[&str] = &[
    "qr_empty",
    "qr_leading_space",
    "qr_long",
    "qr_of_another_device",
    "qr_padded",
    "qr_prefix_other",
    "qr_prefix_upper_case",
    "qr_short",
    "qr_sides_swapped",
    "qr_trailing_newline",
    "qr_unused_bits",
    "qr_version_other",
    "qr_without_sides",
    "safety_issuer_boundary",
    "safety_many_devices",
    "safety_own_devices",
    "safety_two_users",
    "safety_two_users_swapped",
];

const FILE: &[&str] = &[
    "chunk_27_bytes",
    "chunk_aad_missing",
    "chunk_ciphertext_changed",
    "chunk_empty",
    "chunk_first",
    "chunk_index_largest",
    "chunk_iv_changed",
    "chunk_last",
    "chunk_of_another_blob",
    "chunk_of_another_key",
    "chunk_of_another_place",
    "chunk_tag_changed",
    "chunk_taken_for_the_last",
    "chunk_trailing_byte",
    "chunk_truncated",
    "chunk_without_bytes",
    "chunk_without_tag",
    "file_lengths",
    "offer",
    "offer_hash_truncated",
    "offer_media_type_control_character",
    "offer_media_type_empty",
    "offer_media_type_longest",
    "offer_media_type_not_ascii",
    "offer_media_type_not_utf8",
    "offer_media_type_two_bytes",
    "offer_media_type_without_slash",
    "offer_name_c1_control_character",
    "offer_name_empty",
    "offer_name_length_past_end",
    "offer_name_longest",
    "offer_name_newline",
    "offer_name_not_utf8",
    "offer_name_nul",
    "offer_name_that_looks_like_a_path",
    "offer_of_an_empty_file",
    "offer_size_largest",
    "offer_size_largest_that_fits",
    "offer_size_padded_over_64_bits",
    "offer_trailing_byte",
    "offer_truncated",
    "offer_version_unknown",
    "offer_version_zero",
    "offer_without_bytes",
];
