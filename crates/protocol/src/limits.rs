//! Every bound of the protocol, with its unit, in one place (docs/protocol.md §12).
//!
//! The code that enforces a limit cites the section; nothing else in the workspace repeats a number.

// Tokens and JOSE, §2

/// Bytes of an access token or an attestation.
pub const MAX_TOKEN_BYTES: usize = 8_192;
/// Bytes of a relay proof, a device proof or an initiator's proof.
pub const MAX_PROOF_BYTES: usize = 2_048;
/// Bytes of a statement that one relay key follows another.
pub const MAX_SUCCESSION_BYTES: usize = 512;
/// Such statements in a relay proof: as many as fit.
pub const MAX_SUCCESSIONS: usize = 2;
/// Bytes of a device card.
pub const MAX_CARD_BYTES: usize = 16_384;
/// Bytes of the message in a standard JWE: more does not fit into a message that a relay takes (§10.1).
pub const MAX_MESSAGE_JWT_BYTES: usize = MAX_SEALED_MESSAGE_BYTES / 4 * 3;
/// Bytes of a JWS header, decoded.
pub const MAX_JWS_HEADER_BYTES: usize = 1_024;
/// Bytes of a standard JWE (§10).
pub const MAX_STANDARD_JWE_BYTES: usize = 1_048_576;
/// Bytes of its header, decoded: room for `kid`, `typ`, `cty`, `apu` and `apv` at their largest.
pub const MAX_STANDARD_JWE_HEADER_BYTES: usize = 2_048;
/// Levels of nesting in JSON.
pub const MAX_JSON_DEPTH: usize = 8;
/// Members in one JSON object.
pub const MAX_JSON_MEMBERS: usize = 64;
/// Items in one JSON array.
pub const MAX_JSON_ITEMS: usize = 256;
/// Bytes of a user, an issuer, a `kid` or a `jti`.
pub const MAX_NAME_BYTES: usize = 255;
/// The largest time a token may state, in seconds since 1970: 2^53 − 1 (§2.1).
pub const MAX_TIME_SECONDS: u64 = (1 << 53) - 1;
/// Seconds by which two clocks may differ.
pub const CLOCK_TOLERANCE_SECONDS: u64 = 60;
/// Seconds an attestation stays good after its `iat`, unless the verifier's policy says otherwise (§2.3).
pub const MAX_ATTESTATION_AGE_SECONDS: u64 = 30 * 24 * 60 * 60;
/// Strings in the `to` of one `authorization_details` entry (§5.5).
pub const MAX_RECIPIENT_PATTERNS: usize = 64;
/// Bytes of a secret for HS256, at least (§2.2).
pub const MIN_HMAC_SECRET_BYTES: usize = 32;

// Link handshake, §3

/// Seconds a connection has to complete the handshake.
pub const HANDSHAKE_SECONDS: u64 = 5;
/// Bytes a connection may send before its handshake is complete.
pub const MAX_HANDSHAKE_BYTES: usize = 65_536;
/// Bytes of `Accept.sealed`, at least.
pub const MIN_ACCEPT_SEALED_BYTES: usize = 49;
/// Bytes of `Accept.sealed`, at most.
pub const MAX_ACCEPT_SEALED_BYTES: usize = 4_096;
/// Bytes of `Finish.sealed`, at least.
pub const MIN_FINISH_SEALED_BYTES: usize = 52;
/// Bytes of `Finish.sealed`, at most.
pub const MAX_FINISH_SEALED_BYTES: usize = 16_384;
/// Bytes of an invite code, at least (§3.6).
pub const MIN_INVITE_BYTES: usize = 16;
/// Bytes of an invite code, at most (§3.6).
pub const MAX_INVITE_BYTES: usize = 64;

// Records, §4

/// Frames in one record.
pub const MAX_RECORD_FRAMES: usize = 256;
/// Bytes of a record's plaintext: one frame of the largest size with its four bytes of header.
pub const MAX_RECORD_PLAINTEXT_BYTES: usize = MAX_FRAME_PAYLOAD_BYTES + 4;
/// Records under one key after which it is replaced.
pub const SOFT_KEY_RECORDS: u64 = 1 << 20;
/// Bytes of ciphertext and tags under one key after which it is replaced.
pub const SOFT_KEY_BYTES: u64 = 1 << 32;
/// Records that a key seals or opens at the very most.
pub const HARD_KEY_RECORDS: u64 = 1 << 21;
/// Bytes of ciphertext and tags that a key seals or opens at the very most.
pub const HARD_KEY_BYTES: u64 = 1 << 33;
/// Records in one direction of a link.
pub const MAX_LINK_RECORDS: u64 = 1 << 48;

// Frames, §5

/// Bytes of a frame's payload.
pub const MAX_FRAME_PAYLOAD_BYTES: usize = 3_145_728;
/// Seconds before a token's end at which the device is told that it ends (§5.4).
pub const EXPIRING_SECONDS: u64 = 60;
/// Requests a device may have open.
pub const MAX_OPEN_REQUESTS: usize = 64;
/// Recipient devices in one Send.
pub const MAX_SEND_PARTS: usize = 16;
/// Copies for the sender's own other devices in one Send.
pub const MAX_COPIES: usize = 15;
/// How many sequences up to the highest accepted one a relay tells apart, and how far below it an open Send may be (§5.2).
pub const SEND_WINDOW: u64 = 64;
/// One-time prekeys in one PublishPrekeys.
pub const MAX_PUBLISHED_PREKEYS: usize = 100;
/// Cards in one Cards frame.
pub const MAX_CARDS: usize = 16;
/// Hours for which the relay remembers a message it no longer holds, so that a repetition delivers nothing new (§5.2).
pub const SEND_MEMORY_HOURS: u64 = 24;

/// Bytes of the name of a service (§17.1).
pub const MAX_SERVICE_NAME_BYTES: usize = 255;
/// Bytes of what a Call, a Result or a Push carries (§17).
pub const MAX_SERVICE_PAYLOAD_BYTES: usize = 1 << 20;
/// Strings in the `services` of one `authorization_details` entry (§5.5).
pub const MAX_SERVICE_PATTERNS: usize = 64;

/// Users of whose devices one link is told that they have changed, beside its own (§5.2).
pub const MAX_WATCHED_USERS: usize = 256;
/// Bytes of a blob in one Upload or Blob frame.
pub const MAX_BLOB_CHUNK_BYTES: usize = 131_072;

// Devices, sessions and messages, §6 to §9

/// Devices of one user.
pub const MAX_DEVICES: usize = 16;
/// One-time prekeys a relay stores for one device.
pub const MAX_STORED_PREKEYS: usize = 100;
/// Card generations whose secrets a device keeps.
pub const MAX_CARD_GENERATIONS: usize = 8;
/// Days for which a device keeps the secrets of a card generation.
pub const MAX_CARD_GENERATION_DAYS: u64 = 30;
/// Days after which a device publishes a new card (§6.1).
pub const CARD_RENEWAL_DAYS: u64 = 7;
/// Replay entries that a device keeps for one card generation (§7.4).
pub const MAX_REPLAY_ENTRIES: usize = 4_096;
/// How many of these may be of one initiator (§7.4).
pub const MAX_REPLAY_ENTRIES_OF_A_DEVICE: usize = 64;
/// Sessions that a device keeps with one other device.
pub const MAX_SESSIONS: usize = 4;
/// Message keys skipped for one message.
pub const MAX_SKIPPED_AT_ONCE: u32 = 1_000;
/// Skipped message keys kept in one session.
pub const MAX_SKIPPED_KEPT: usize = 2_000;
/// Days for which a skipped message key is kept.
pub const MAX_SKIPPED_DAYS: u64 = 30;
/// Messages in one sending chain (§8.2).
pub const MAX_CHAIN_MESSAGES: u32 = 1 << 31;
/// Bytes of a message's body.
pub const MAX_BODY_BYTES: usize = 65_536;
/// Bytes of a sealed message.
pub const MAX_SEALED_MESSAGE_BYTES: usize = 98_304;
/// Bytes of ciphertext in a sealed message (§9.1).
pub const MAX_MESSAGE_CIPHERTEXT_BYTES: usize = 81_920;
/// Message ids in one receipt, resend or answer to it (§9.3).
pub const MAX_MESSAGE_IDS: usize = 256;
/// Bytes of a device's name (§9.3).
pub const MAX_DEVICE_NAME_BYTES: usize = 64;

// Large content, §15

/// Bytes of plaintext in one chunk of a sealed file.
pub const FILE_CHUNK_BYTES: usize = 65_536;
/// Bytes of one sealed chunk of a file: iv, ciphertext and tag.
pub const SEALED_FILE_CHUNK_BYTES: usize = FILE_CHUNK_BYTES + 12 + 16;
