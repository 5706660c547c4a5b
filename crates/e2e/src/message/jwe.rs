//! The JWE form (docs/protocol.md §9.2): the protected header, which both forms authenticate, and conversion.

use alloc::{string::String, vec::Vec};
use core::fmt;

use sealwire_protocol::base64url::{self, encoded_len};
use sealwire_protocol::codec::Writer;
use sealwire_protocol::limits::{MAX_MESSAGE_CIPHERTEXT_BYTES, MAX_PROOF_BYTES, MAX_TOKEN_BYTES};

use super::binary::{KIND_FIRST, KIND_ORDINARY, VERSION};
use super::{First, Header, IV_LEN, KEM_CIPHERTEXT_LEN, SESSION_ID_LEN, SealedMessage, TAG_LEN};

/// Longest JWE form of a sealed message, in characters: what the limits of its fields add up to, rounded up.
pub const MAX_JWE_BYTES: usize = 131_072;

// The JSON of the header between its values, in order.
const SESSION: &str = r#"{"alg":"dir","enc":"A256GCM","typ":"sealwire+jwe","kid":""#;
const RATCHET_KEY: &str = r#"","epk":{"kty":"OKP","crv":"X25519","x":""#;
const PN: &str = r#""},"pn":"#;
const N: &str = r#","n":"#;
const DEVICE_KEY: &str = r#","first":{"key":""#;
const EPHEMERAL: &str = r#"","eph":""#;
const KEM_CIPHERTEXT: &str = r#"","kem":""#;
const GENERATION: &str = r#"","gen":"#;
const ONE_TIME: &str = r#","otk":"#;
const NO_ONE_TIME: &str = "null";
const PROOF: &str = r#","prf":""#;
const ATTESTATION: &str = r#"","att":""#;
const FIRST_END: &str = r#""}"#;
const END: &str = "}";

/// Room for the protected header of the JWE form in `b64u`: the additional authenticated data of every message
/// (docs/protocol.md §9.2). One value serves any number of messages, one after the other, and keeps its buffer, so
/// that sealing and opening allocate nothing for it after the first.
#[derive(Default)]
pub struct ProtectedHeader {
    /// The JSON, and after it its `b64u`.
    buffer: Vec<u8>,
}

impl ProtectedHeader {
    /// Empty; it allocates at first use.
    #[must_use]
    pub const fn new() -> Self {
        Self { buffer: Vec::new() }
    }

    /// `b64u` of the header's JSON. The texts in `header` have been checked to need no escape.
    pub(super) fn encode(&mut self, header: &Header<'_>) -> &str {
        self.buffer.clear();
        write_json(&mut self.buffer, header);
        let json_len = self.buffer.len();
        self.buffer.resize(json_len + encoded_len(json_len), 0);
        let (json, room) = self.buffer.split_at_mut(json_len);
        encode_exactly(json, room)
    }
}

impl fmt::Debug for ProtectedHeader {
    /// Without the header, which may hold a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProtectedHeader(..)")
    }
}

impl SealedMessage<'_> {
    /// The JWE form, in compact serialization (RFC 7516 §7.1).
    #[must_use]
    pub fn to_jwe(&self) -> String {
        let mut protected = ProtectedHeader::new();
        let header = protected.encode(&self.header);
        let mut jwe = String::with_capacity(header.len() + encoded_len(self.ciphertext.len()) + 64);
        jwe.push_str(header);
        jwe.push('.');
        // The encrypted key, which "dir" does not have (RFC 7518 §4.5).
        for part in [self.iv.as_slice(), self.ciphertext, self.tag] {
            jwe.push('.');
            jwe.push_str(&base64url::encode(part));
        }
        jwe
    }
}

/// Turns the JWE form into the compact binary form, without a key. What would not turn back into the same
/// characters is refused (docs/protocol.md §9.2).
///
/// # Errors
/// [`MalformedJwe`] names the part that is not as §9.2 has it.
pub fn from_jwe(jwe: &str) -> Result<Vec<u8>, MalformedJwe> {
    if jwe.len() > MAX_JWE_BYTES {
        return Err(MalformedJwe::TooLong);
    }
    let mut parts = jwe.split('.');
    let (Some(header), Some(encrypted_key), Some(iv), Some(ciphertext), Some(tag), None) = (
        parts.next(),
        parts.next(),
        parts.next(),
        parts.next(),
        parts.next(),
        parts.next(),
    ) else {
        return Err(MalformedJwe::Parts);
    };
    let header = base64url::decode(header.as_bytes()).map_err(|_| MalformedJwe::Base64url)?;
    if !encrypted_key.is_empty() {
        return Err(MalformedJwe::EncryptedKey);
    }
    let iv = fixed::<IV_LEN>(iv, MalformedJwe::Iv)?;
    let ciphertext =
        base64url::decode(ciphertext.as_bytes()).map_err(|_| MalformedJwe::Base64url)?;
    let tag = fixed::<TAG_LEN>(tag, MalformedJwe::Tag)?;

    let mut out = Vec::with_capacity(header.len() + ciphertext.len() + 64);
    let mut writer = Writer::new(&mut out);
    Scanner { rest: &header }
        .header(&mut writer)
        .ok_or(MalformedJwe::Header)?;
    writer
        .bytes(&iv)
        .vec24(&ciphertext, 1..=MAX_MESSAGE_CIPHERTEXT_BYTES)
        .map_err(|_| MalformedJwe::Ciphertext)?
        .bytes(&tag);

    // Every part has been read strictly; this proves it for the whole.
    let same = SealedMessage::decode(&out).is_ok_and(|message| message.to_jwe() == jwe);
    if same {
        Ok(out)
    } else {
        Err(MalformedJwe::Header)
    }
}

fn fixed<const LEN: usize>(
    text: &str,
    wrong_length: MalformedJwe,
) -> Result<[u8; LEN], MalformedJwe> {
    if text.len() != encoded_len(LEN) {
        return Err(wrong_length);
    }
    base64url::decode_array(text.as_bytes()).map_err(|_| MalformedJwe::Base64url)
}

/// Why a JWE is not a sealed message. Whoever made it is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MalformedJwe {
    /// Longer than [`MAX_JWE_BYTES`].
    #[error("the JWE is longer than a sealed message can be")]
    TooLong,
    /// Not five parts.
    #[error("not a JWE in compact serialization: it has five parts with a dot between")]
    Parts,
    /// A part is not canonical base64url (docs/protocol.md §1.2).
    #[error("a part of the JWE is not canonical base64url")]
    Base64url,
    /// The header is not exactly the JSON of docs/protocol.md §9.2.
    #[error("the JWE's header is not that of a sealed message")]
    Header,
    /// There is an encrypted key, which `dir` does not have (RFC 7518 §4.5).
    #[error("the JWE has an encrypted key, a sealed message has none")]
    EncryptedKey,
    /// The initialisation vector does not have 12 bytes.
    #[error("the JWE's initialisation vector does not have 12 bytes")]
    Iv,
    /// The ciphertext is empty or longer than 81,920 bytes.
    #[error("the JWE's ciphertext is empty or longer than 81,920 bytes")]
    Ciphertext,
    /// The tag does not have 16 bytes.
    #[error("the JWE's tag does not have 16 bytes")]
    Tag,
}

/// The header of docs/protocol.md §9.2: these members, in this order, without white space.
fn write_json(out: &mut Vec<u8>, header: &Header<'_>) {
    push(out, SESSION);
    push_b64u(out, &header.session);
    push(out, RATCHET_KEY);
    push_b64u(out, &header.ratchet_key);
    push(out, PN);
    push_decimal(out, header.pn);
    push(out, N);
    push_decimal(out, header.n);
    if let Some(first) = &header.first {
        write_first(out, first);
    }
    push(out, END);
}

fn write_first(out: &mut Vec<u8>, first: &First<'_>) {
    push(out, DEVICE_KEY);
    push_b64u(out, &first.device_key);
    push(out, EPHEMERAL);
    push_b64u(out, &first.ephemeral);
    push(out, KEM_CIPHERTEXT);
    push_b64u(out, first.kem_ciphertext);
    push(out, GENERATION);
    push_decimal(out, first.generation);
    push(out, ONE_TIME);
    match first.one_time {
        Some(id) => push_decimal(out, id),
        None => push(out, NO_ONE_TIME),
    }
    push(out, PROOF);
    push(out, first.proof);
    push(out, ATTESTATION);
    push(out, first.attestation);
    push(out, FIRST_END);
}

fn push(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

fn push_b64u(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len();
    out.resize(start + encoded_len(bytes.len()), 0);
    let (_, room) = out.split_at_mut(start);
    encode_exactly(bytes, room);
}

#[expect(
    clippy::expect_used,
    reason = "both callers make the room encoded_len long, the one thing that can be wrong"
)]
fn encode_exactly<'o>(bytes: &[u8], room: &'o mut [u8]) -> &'o str {
    base64url::encode_into(bytes, room).expect("room for exactly this text")
}

/// One level for each of at most ten digits.
fn push_decimal(out: &mut Vec<u8>, value: u32) {
    if value >= 10 {
        push_decimal(out, value / 10);
    }
    let [.., digit] = (value % 10).to_be_bytes();
    out.push(b'0' + digit);
}

/// Reads the JSON that [`write_json`] writes, and no other, into the fields of the binary form, which have the same
/// order. No JSON reader is needed: any other header is refused.
struct Scanner<'a> {
    rest: &'a [u8],
}

impl<'a> Scanner<'a> {
    fn header(mut self, out: &mut Writer<'_>) -> Option<()> {
        self.literal(SESSION)?;
        let session = self.b64u::<SESSION_ID_LEN>()?;
        self.literal(RATCHET_KEY)?;
        let ratchet_key = self.b64u::<32>()?;
        self.literal(PN)?;
        let pn = self.decimal()?;
        self.literal(N)?;
        let n = self.decimal()?;
        let has_first = self.literal(DEVICE_KEY).is_some();
        out.u8(VERSION)
            .u8(if has_first { KIND_FIRST } else { KIND_ORDINARY });
        out.bytes(&session).bytes(&ratchet_key).u32(pn).u32(n);
        if has_first {
            self.first(out)?;
        }
        self.literal(END)?;
        self.rest.is_empty().then_some(())
    }

    /// From after [`DEVICE_KEY`].
    fn first(&mut self, out: &mut Writer<'_>) -> Option<()> {
        out.bytes(&self.b64u::<32>()?);
        self.literal(EPHEMERAL)?;
        out.bytes(&self.b64u::<32>()?);
        self.literal(KEM_CIPHERTEXT)?;
        out.bytes(&self.b64u::<KEM_CIPHERTEXT_LEN>()?);
        self.literal(GENERATION)?;
        out.u32(self.decimal()?);
        self.literal(ONE_TIME)?;
        if self.literal(NO_ONE_TIME).is_some() {
            out.u8(0);
        } else {
            out.u8(1).u32(self.decimal()?);
        }
        self.literal(PROOF)?;
        out.vec16(self.until_quote()?, 1..=MAX_PROOF_BYTES).ok()?;
        self.literal(ATTESTATION)?;
        out.vec16(self.until_quote()?, 1..=MAX_TOKEN_BYTES).ok()?;
        self.literal(FIRST_END)
    }

    /// Moves on only if `text` comes next.
    fn literal(&mut self, text: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(text.as_bytes())?;
        Some(())
    }

    fn b64u<const LEN: usize>(&mut self) -> Option<[u8; LEN]> {
        let text = self.take(encoded_len(LEN))?;
        base64url::decode_array(text).ok()
    }

    /// A number up to 2^32 − 1 in decimal without leading zeros.
    fn decimal(&mut self) -> Option<u32> {
        let len = self
            .rest
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        let digits = self.take(len)?;
        if digits.len() > 1 && digits.first() == Some(&b'0') {
            return None;
        }
        core::str::from_utf8(digits).ok()?.parse().ok()
    }

    /// Up to a quotation mark; its characters are checked when the message is decoded.
    fn until_quote(&mut self) -> Option<&'a [u8]> {
        let len = self.rest.iter().position(|byte| *byte == b'"')?;
        self.take(len)
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }
}
