#!/usr/bin/env python3
"""Writes the test vectors beside it from docs/protocol.md §9, §11 and §15 alone, with PyPI `cryptography` for AES-256-GCM.

It shares no code with the crate, so that the two check each other. Each file is one vector, named noun first, then
defect. `section` is what it proves. A vector with `error` must be refused with that error; the others must hold.
Nothing runs this in a build: a vector changes only when somebody decides that it does.
"""

import base64
import hashlib
import json
import pathlib
import struct

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

HERE = pathlib.Path(__file__).parent


def some(name, length):
    """Bytes that look random and are the same each time."""
    return hashlib.shake_256(b"sealwire vectors " + name.encode()).digest(length)


def b64u(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def vec(width, data):
    return len(data).to_bytes(width, "big") + data


def write(folder, name, section, about, /, **fields):
    fields = {k: v.hex() if isinstance(v, bytes) else v for k, v in fields.items()}
    text = json.dumps({"section": section, "about": about, **fields}, indent=2)
    (HERE / folder / f"{name}.json").write_text(text + "\n")


# Padding, §9.3


def padme(length):
    """Nikitin et al., PETS 2019, §4, by its definition: E = floor(log2 L), S = floor(log2 E) + 1, clear the last E - S bits."""
    if length < 2:
        return length
    e = length.bit_length() - 1
    s = e.bit_length()
    step = 2 ** (e - s)
    return -(-length // step) * step


def pad(content):
    return (content + b"\x80").ljust(padme(len(content) + 1), b"\x00")


def padding():
    lengths = [*range(0, 40), 63, 64, 65, 127, 128, 129, 255, 256, 257, 511, 512, 1000, 1023, 1024, 4095, 4096, 10000, 65535, 65536, 66077, 79871]
    write("padding", "padding_lengths", "9.3", "length of a content and of its padded form",
          lengths=[[n, padme(n + 1)] for n in lengths])
    for size in (0, 1, 8, 9, 31, 100, 250):
        content = some("padding", size)
        write("padding", f"padding_of_{size}_bytes", "9.3", "a content and its padded form", content=content, plaintext=pad(content))
    content = b"\x80\x00"
    write("padding", "padding_of_content_that_looks_padded", "9.3", "only the last marker counts", content=content, plaintext=pad(content))
    content = some("padding", 100)
    good = pad(content)
    bad = {
        "padding_empty": ("a plaintext without a marker", b""),
        "padding_marker_missing": ("zeros to the end", content + bytes(4)),
        "padding_all_zero": ("nothing but zeros", bytes(104)),
        "padding_marker_other": ("0x81 for 0x80", good[:100] + b"\x81" + good[101:]),
        "padding_too_short": ("one zero fewer than Padmé gives", good[:-1]),
        "padding_too_long": ("one zero more than Padmé gives", good + b"\x00"),
        "padding_next_length": ("padded to the Padmé length after the right one", good.ljust(padme(len(good) + 1), b"\x00")),
        "padding_not_zero": ("a byte other than zero after the marker", good[:-1] + b"\x01"),
        "padding_missing": ("the content as it is", content),
    }
    for name, (about, plaintext) in bad.items():
        write("padding", name, "9.3", about, plaintext=plaintext, error="padding")


# Content, §9.3

ID = some("message id", 16)
TIME = 1_790_000_000_123


def content(kind, user=b"", media_type=b"", body=b"", version=1):
    return bytes([version, kind]) + ID + struct.pack(">Q", TIME) + vec(1, user) + vec(1, media_type) + vec(3, body)


TEXT = content(0, b"", b"text/plain", "Grüß Gott".encode())
KINDS = ("message", "delivered", "copy", "empty", "read", "resend", "unavailable", "name")


def ids(count):
    return b"".join(some(f"id {n}", 16) for n in range(count))


def contents():
    good = {
        "content_message": ("a message", 0, "", "text/plain", "Grüß Gott".encode()),
        "content_message_with_parameter": ("a media type with a parameter", 0, "", "text/plain;charset=utf-8", b"hello"),
        "content_message_without_body": ("an empty body is a body", 0, "", "application/vnd.example+json", b""),
        "content_media_type_shortest": ("three bytes", 0, "", "a/b", b"x"),
        "content_media_type_longest": ("255 bytes", 0, "", "text/plain;p=" + "v" * 242, b"x"),
        "content_delivered": ("a receipt", 1, "", "", ids(1)),
        "content_delivered_256_ids": ("a receipt for as many messages as one can be for", 1, "", "", ids(256)),
        "content_copy": ("a copy for the sender's own devices", 2, "bob@example.com", "text/plain", b"hello"),
        "content_copy_user_longest": ("255 bytes of user", 2, "é" * 127 + "x", "text/plain", b"hello"),
        "content_empty": ("turns the ratchet", 3, "", "", b""),
        "content_read": ("two messages have been read", 4, "", "", ids(2)),
        "content_resend": ("two messages are asked for again", 5, "", "", ids(2)),
        "content_resend_without_ids": ("whatever was not confirmed is asked for again", 5, "", "", b""),
        "content_unavailable": ("a message is not there any more", 6, "", "", ids(1)),
        "content_name": ("what a device is called", 7, "", "", "Ann’s phone".encode()),
        "content_name_longest": ("64 bytes", 7, "", "", ("é" * 32).encode()),
    }
    for name, (about, kind, user, media_type, body) in good.items():
        write("content", name, "9.3", about, id=ID, time=TIME, kind=KINDS[kind], user=user,
              media_type=media_type, body=body, content=content(kind, user.encode(), media_type.encode(), body))
    bad = {
        "content_without_bytes": ("1.1", "no byte at all", b"", "encoding"),
        "content_truncated": ("1.1", "ends inside the body", TEXT[:-1], "encoding"),
        "content_time_truncated": ("1.1", "ends inside the time", TEXT[:20], "encoding"),
        "content_trailing_byte": ("1.1", "goes on after the body", TEXT + b"\x00", "encoding"),
        "content_body_length_past_end": ("1.1", "the body's length says more than there is", TEXT[:40] + b"\x00\xff\xff" + TEXT[43:], "encoding"),
        "content_body_over_limit": ("9.3", "65,537 bytes announced", content(0, b"", b"text/plain")[:-3] + b"\x01\x00\x01", "encoding"),
        "content_version_unknown": ("9.3", "version 2", content(3, version=2), "version"),
        "content_version_zero": ("9.3", "version 0", content(3, version=0), "version"),
        "content_kind_unknown": ("9.3", "kind 8", content(8), "kind"),
        "content_kind_largest": ("9.3", "kind 255", content(255), "kind"),
        "content_message_with_user": ("9.3", "only a copy has a user", content(0, b"bob", b"text/plain", b"x"), "unexpected_field"),
        "content_empty_with_user": ("9.3", "only a copy has a user", content(3, b"bob"), "unexpected_field"),
        "content_empty_with_media_type": ("9.3", "an empty message has no media type", content(3, b"", b"text/plain"), "unexpected_field"),
        "content_empty_with_body": ("9.3", "an empty message has no body", content(3, b"", b"", b"x"), "unexpected_field"),
        "content_copy_without_user": ("9.3", "a copy names to whom it went", content(2, b"", b"text/plain", b"x"), "user"),
        "content_copy_user_control_character": ("1.2", "U+0007", content(2, b"bo\x07b", b"text/plain", b"x"), "user"),
        "content_copy_user_c1_control_character": ("1.2", "U+0085", content(2, "bo\u0085b".encode(), b"text/plain", b"x"), "user"),
        "content_copy_user_not_utf8": ("1.2", "a lone 0xff", content(2, b"bo\xffb", b"text/plain", b"x"), "user"),
        "content_media_type_missing": ("9.3", "a message says what it is", content(0, b"", b"", b"x"), "media_type"),
        "content_media_type_two_bytes": ("9.3", "shorter than three bytes", content(0, b"", b"a/", b"x"), "media_type"),
        "content_media_type_without_slash": ("9.3", "no subtype", content(0, b"", b"text", b"x"), "media_type"),
        "content_media_type_without_type": ("9.3", "no type", content(0, b"", b"/plain", b"x"), "media_type"),
        "content_media_type_not_ascii": ("9.3", "é", content(0, b"", "text/é".encode(), b"x"), "media_type"),
        "content_media_type_control_character": ("9.3", "a line feed", content(0, b"", b"text/plain\n", b"x"), "media_type"),
        "content_media_type_parameter_control_character": ("9.3", "an escape", content(0, b"", b"text/plain;a=\x1b[2J", b"x"), "media_type"),
        "content_media_type_two_slashes": ("9.3", "two slashes", content(0, b"", b"text/plain/x", b"x"), "media_type"),
    }
    for kind in (1, 4, 5, 6):
        name, few, many = f"content_{KINDS[kind]}", ids(1), ids(257)
        bad |= {
            f"{name}_with_user": ("9.3", "only a copy has a user", content(kind, b"bob", b"", few), "unexpected_field"),
            f"{name}_with_media_type": ("9.3", "ids have no media type", content(kind, b"", b"text/plain", few), "unexpected_field"),
            f"{name}_257_ids": ("9.3", "one id more than allowed", content(kind, b"", b"", many), "ids"),
            f"{name}_id_truncated": ("9.3", "the second id has 15 bytes", content(kind, b"", b"", ids(2)[:-1]), "ids"),
            f"{name}_id_trailing_byte": ("9.3", "a byte after the last id", content(kind, b"", b"", few + b"\0"), "ids"),
        }
        if kind != 5:
            bad[f"{name}_without_ids"] = ("9.3", "no id", content(kind), "ids")
    bad |= {
        "content_name_with_user": ("9.3", "only a copy has a user", content(7, b"bob", b"", b"phone"), "unexpected_field"),
        "content_name_with_media_type": ("9.3", "a name has no media type", content(7, b"", b"text/plain", b"phone"), "unexpected_field"),
        "content_name_empty": ("9.3", "no byte of name", content(7), "name"),
        "content_name_65_bytes": ("9.3", "a byte more than allowed", content(7, b"", b"", b"n" * 65), "name"),
        "content_name_control_character": ("9.3", "U+001B", content(7, b"", b"", b"pho\x1b[2Jne"), "name"),
        "content_name_c1_control_character": ("9.3", "U+0085", content(7, b"", b"", "pho\u0085ne".encode()), "name"),
        "content_name_not_utf8": ("9.3", "a lone 0xff", content(7, b"", b"", b"pho\xffne"), "name"),
    }
    for name, (section, about, data, error) in bad.items():
        write("content", name, section, about, content=data, error=error)


# Sealed message, §9.1 and §9.2

KEY = some("message key", 32)
IV = some("iv", 12)
SESSION = some("session", 16)
RATCHET = some("ratchet key", 32)
PROOF = ".".join(b64u(some(f"proof {i}", 60)) for i in range(3))
ATTESTATION = ".".join(b64u(some(f"attestation {i}", 90)) for i in range(3))


def first(one_time=7, proof=PROOF, attestation=ATTESTATION):
    return {"key": some("device key", 32), "eph": some("ephemeral", 32), "kem": some("kem", 1088), "gen": 3, "otk": one_time, "prf": proof, "att": attestation}


def header(pn=4, n=5, first=None, session=SESSION, ratchet=RATCHET):
    members = {"alg": "dir", "enc": "A256GCM", "typ": "sealwire+jwe", "kid": b64u(session),
               "epk": {"kty": "OKP", "crv": "X25519", "x": b64u(ratchet)}, "pn": pn, "n": n}
    if first:
        members["first"] = {k: b64u(v) if isinstance(v, bytes) else v for k, v in first.items()}
    return json.dumps(members, separators=(",", ":"))


def encode_first(f):
    one_time = b"\x00" if f["otk"] is None else b"\x01" + struct.pack(">I", f["otk"])
    return (f["key"] + f["eph"] + f["kem"] + struct.pack(">I", f["gen"]) + one_time
            + vec(2, f["prf"].encode()) + vec(2, f["att"].encode()))


def binary(sealed, pn=4, n=5, first=None, version=1, kind=None, iv=IV):
    kind = (0 if first else 1) if kind is None else kind
    return (bytes([version, kind]) + SESSION + RATCHET + struct.pack(">II", pn, n) + (encode_first(first) if first else b"")
            + iv + vec(3, sealed[:-16]) + sealed[-16:])


def jwe(protected, sealed, encrypted_key="", iv=IV):
    return ".".join([b64u(protected.encode()), encrypted_key, b64u(iv), b64u(sealed[:-16]), b64u(sealed[-16:])])


def seal(plaintext, protected, key=KEY, iv=IV):
    return AESGCM(key).encrypt(iv, plaintext, b64u(protected.encode()).encode())


def messages():
    good = {
        "message_ordinary": ("an ordinary message", {}),
        "message_counters_largest": ("counters at 2^32 - 1", {"pn": 2**32 - 1, "n": 2**32 - 1}),
        "message_counters_zero": ("counters at zero", {"pn": 0, "n": 0}),
        "message_first": ("a first message that names a one-time prekey", {"first": first()}),
        "message_first_without_one_time": ("a first message without a one-time prekey", {"first": first(None)}),
    }
    for name, (about, parts) in good.items():
        sealed = seal(pad(TEXT), header(**parts))
        write("message", name, "9.2", about, key=KEY, content=TEXT, message=binary(sealed, **parts), jwe=jwe(header(**parts), sealed))

    sealed = seal(pad(TEXT), header())
    good = binary(sealed)
    start = seal(pad(TEXT), header(first=first()))

    def with_first(**changes):
        return binary(start, first=first(**changes))

    fixed = 2 + 16 + 32 + 8
    one_time_at = fixed + 32 + 32 + 1088 + 4
    proof_at = one_time_at + 5
    attestation_at = proof_at + 2 + len(PROOF)
    opening = with_first()
    malformed = {
        "message_without_bytes": ("1.1", "no byte at all", b"", "encoding"),
        "message_truncated": ("1.1", "ends inside the ratchet key", good[:40], "encoding"),
        "message_iv_truncated": ("1.1", "ends inside the iv", good[:fixed + 11], "encoding"),
        "message_tag_truncated": ("1.1", "the tag has 15 bytes", good[:-1], "encoding"),
        "message_tag_missing": ("1.1", "ends after the ciphertext", good[:-16], "encoding"),
        "message_trailing_byte": ("1.1", "goes on after the tag", good + b"\x00", "encoding"),
        "message_ciphertext_empty": ("9.1", "no ciphertext", good[:fixed + 12] + bytes(3) + bytes(16), "encoding"),
        "message_ciphertext_over_limit": ("9.1", "81,921 bytes announced", good[:fixed + 12] + b"\x01\x40\x01" + good[fixed + 15:], "encoding"),
        "message_ciphertext_past_end": ("1.1", "the ciphertext's length says more than there is", good[:fixed + 12] + b"\x00\xff\xff" + good[fixed + 15:], "encoding"),
        "message_version_zero": ("9.1", "version 0", binary(sealed, version=0), "version"),
        "message_version_unknown": ("9.1", "version 2", binary(sealed, version=2), "version"),
        "message_kind_unknown": ("9.1", "kind 2", binary(sealed, kind=2), "kind"),
        "message_first_as_ordinary": ("9.1", "kind 1 with the fields of a first message", opening[:1] + b"\x01" + opening[2:], "encoding"),
        "message_ordinary_as_first": ("9.1", "kind 0 without the fields of a first message", good[:1] + b"\x00" + good[2:], "encoding"),
        "message_first_truncated": ("1.1", "ends inside the KEM ciphertext", opening[:1000], "encoding"),
        "message_one_time_count_two": ("9.1", "two one-time prekeys", opening[:one_time_at] + b"\x02" + opening[one_time_at + 1:], "encoding"),
        "message_proof_empty": ("9.1", "no proof", with_first(proof=""), "encoding"),
        "message_proof_over_limit": ("9.1", "2,049 bytes of proof", with_first(proof="a" * 2049), "encoding"),
        "message_proof_padded": ("9.2", "= is no base64url character", with_first(proof=PROOF + "="), "proof"),
        "message_proof_quote": ("9.2", "a quotation mark would need an escape", with_first(proof=PROOF + '"'), "proof"),
        "message_proof_standard_alphabet": ("9.2", "+ is no base64url character", with_first(proof=PROOF + "+"), "proof"),
        "message_proof_not_ascii": ("9.2", "é", with_first(proof=PROOF + "é"), "proof"),
        "message_attestation_empty": ("9.1", "no attestation", with_first(attestation=""), "encoding"),
        "message_attestation_over_limit": ("9.1", "8,193 bytes announced", opening[:attestation_at] + b"\x20\x01" + opening[attestation_at + 2:], "encoding"),
        "message_attestation_space": ("9.2", "a space", with_first(attestation=ATTESTATION + " "), "attestation"),
        "message_attestation_backslash": ("9.2", "a backslash would need an escape", with_first(attestation=ATTESTATION + "\\"), "attestation"),
        "message_attestation_nul": ("9.2", "U+0000", with_first(attestation=ATTESTATION + "\0"), "attestation"),
    }
    for name, (section, about, message, error) in malformed.items():
        write("message", name, section, about, message=message, error=error)

    def flip(data, at):
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1:]

    raw_aad = AESGCM(KEY).encrypt(IV, pad(TEXT), header().encode())
    unopenable = {
        "message_key_other": ("13", "another key", good, some("another key", 32)),
        "message_session_changed": ("9.2", "the session id is authenticated", flip(good, 2), KEY),
        "message_ratchet_key_changed": ("9.2", "the ratchet key is authenticated", flip(good, 18), KEY),
        "message_pn_changed": ("9.2", "pn is authenticated", binary(sealed, pn=3), KEY),
        "message_n_changed": ("9.2", "n is authenticated", binary(sealed, n=6), KEY),
        "message_iv_changed": ("9.1", "the iv is bound", flip(good, fixed), KEY),
        "message_ciphertext_changed": ("9.1", "the first bit of the ciphertext", flip(good, fixed + 15), KEY),
        "message_tag_changed": ("9.1", "the last bit of the tag", flip(good, len(good) - 1), KEY),
        "message_ciphertext_shortened": ("9.1", "one byte fewer, with its length", binary(sealed[:-17] + sealed[-16:]), KEY),
        "message_first_device_key_changed": ("9.2", "the device key is authenticated", flip(opening, fixed), KEY),
        "message_first_one_time_removed": ("9.2", "which one-time prekey was used is authenticated", with_first(one_time=None), KEY),
        "message_first_proof_changed": ("9.2", "the proof is authenticated", with_first(proof=PROOF + "A"), KEY),
        "message_first_attestation_changed": ("9.2", "the attestation is authenticated", with_first(attestation=ATTESTATION + "A"), KEY),
        "message_aad_not_encoded": ("9.2", "sealed over the JSON instead of its b64u", binary(raw_aad), KEY),
        "message_padding_missing": ("9.3", "the plaintext is the bare content", binary(seal(TEXT, header())), KEY),
        "message_padding_too_long": ("9.3", "one zero more than Padmé gives", binary(seal(pad(TEXT) + b"\0", header())), KEY),
        "message_padding_all_zero": ("9.3", "nothing but zeros", binary(seal(bytes(72), header())), KEY),
    }
    for name, (section, about, message, key) in unopenable.items():
        write("message", name, section, about, key=key, message=message, error="decrypt")

    def headed(old, new, base=None):
        base = base or header()
        assert base.count(old) == 1, old
        return jwe(base.replace(old, new), sealed)

    text = jwe(header(), sealed)
    parts = text.split(".")

    def part(index, value):
        return ".".join([*parts[:index], value, *parts[index + 1:]])

    def bits(value):
        """The same bytes with an unused low bit set."""
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        return value[:-1] + alphabet[alphabet.index(value[-1]) | 1]

    starting = header(first=first())
    broken = {
        "jwe_empty": ("9.2", "no character", "", "jwe_parts"),
        "jwe_four_parts": ("9.2", "no tag", ".".join(parts[:4]), "jwe_parts"),
        "jwe_six_parts": ("9.2", "a sixth part", text + ".", "jwe_parts"),
        "jwe_encrypted_key_present": ("9.2", "dir has no encrypted key (RFC 7518 §4.5)", part(1, "AA"), "jwe_encrypted_key"),
        "jwe_header_not_base64": ("1.2", "a character outside the alphabet", part(0, "*" + parts[0][1:]), "jwe_base64url"),
        "jwe_header_padded": ("1.2", "with =", part(0, parts[0] + "="), "jwe_base64url"),
        "jwe_iv_short": ("9.2", "11 bytes of iv", part(2, b64u(IV[:11])), "jwe_iv"),
        "jwe_iv_empty": ("9.2", "no iv", part(2, ""), "jwe_iv"),
        "jwe_iv_long": ("9.2", "13 bytes of iv", part(2, b64u(IV + b"\0")), "jwe_iv"),
        "jwe_ciphertext_empty": ("9.2", "no ciphertext", part(3, ""), "jwe_ciphertext"),
        "jwe_ciphertext_white_space": ("1.2", "a line feed", part(3, parts[3][:4] + "\n" + parts[3][4:]), "jwe_base64url"),
        "jwe_tag_short": ("9.2", "15 bytes of tag", part(4, b64u(sealed[-16:-1])), "jwe_tag"),
        "jwe_tag_unused_bits": ("1.2", "an unused low bit of the tag is set", part(4, bits(parts[4])), "jwe_base64url"),
        "jwe_tag_standard_alphabet": ("1.2", "+ is no base64url character", part(4, "+" + parts[4][1:]), "jwe_base64url"),
        "jwe_trailing_newline": ("1.2", "a line feed at the end", text + "\n", "jwe_tag"),
        "jwe_header_empty_object": ("9.2", "no member", jwe("{}", sealed), "jwe_header"),
        "jwe_header_white_space": ("9.2", "a space after a comma", headed(',"enc"', ', "enc"'), "jwe_header"),
        "jwe_header_trailing_space": ("9.2", "a space after the brace", jwe(header() + " ", sealed), "jwe_header"),
        "jwe_header_order": ("9.2", "enc before alg", headed('"alg":"dir","enc":"A256GCM"', '"enc":"A256GCM","alg":"dir"'), "jwe_header"),
        "jwe_header_duplicate": ("9.2", "alg twice", headed('"alg":"dir"', '"alg":"dir","alg":"dir"'), "jwe_header"),
        "jwe_header_escape": ("9.2", "a name with an escape", headed('"alg"', '"\\u0061lg"'), "jwe_header"),
        "jwe_header_unknown_member": ("9.2", "a further member", headed('"n":5', '"n":5,"x":1'), "jwe_header"),
        "jwe_header_zip": ("9.2", "zip", headed('"n":5', '"n":5,"zip":"DEF"'), "jwe_header"),
        "jwe_header_crit": ("9.2", "crit", headed('"n":5', '"n":5,"crit":["n"]'), "jwe_header"),
        "jwe_alg_other": ("9.2", "A256KW", headed('"dir"', '"A256KW"'), "jwe_header"),
        "jwe_alg_none": ("9.2", "none", headed('"dir"', '"none"'), "jwe_header"),
        "jwe_enc_other": ("9.2", "A128GCM", headed("A256GCM", "A128GCM"), "jwe_header"),
        "jwe_typ_other": ("9.2", "JWE", headed("sealwire+jwe", "JWE"), "jwe_header"),
        "jwe_crv_other": ("9.2", "X448", headed('"X25519"', '"X448"'), "jwe_header"),
        "jwe_kid_short": ("9.2", "15 bytes of session id", headed(b64u(SESSION), b64u(SESSION[:15])), "jwe_header"),
        "jwe_kid_unused_bits": ("1.2", "an unused low bit of the session id is set", headed(b64u(SESSION), bits(b64u(SESSION))), "jwe_header"),
        "jwe_ratchet_key_long": ("9.2", "33 bytes of ratchet key", headed(b64u(RATCHET), b64u(RATCHET + b"\0")), "jwe_header"),
        "jwe_n_leading_zero": ("9.2", "05", headed('"n":5', '"n":05'), "jwe_header"),
        "jwe_n_negative": ("9.2", "-5", headed('"n":5', '"n":-5'), "jwe_header"),
        "jwe_n_fraction": ("9.2", "5.0", headed('"n":5', '"n":5.0'), "jwe_header"),
        "jwe_n_exponent": ("9.2", "5e0", headed('"n":5', '"n":5e0'), "jwe_header"),
        "jwe_n_string": ("9.2", '"5"', headed('"n":5', '"n":"5"'), "jwe_header"),
        "jwe_n_missing": ("9.2", "no n", headed(',"n":5', ""), "jwe_header"),
        "jwe_pn_over_limit": ("9.2", "2^32", headed('"pn":4', '"pn":4294967296'), "jwe_header"),
        "jwe_first_otk_string": ("9.2", '"7"', headed('"otk":7', '"otk":"7"', starting), "jwe_header"),
        "jwe_first_otk_missing": ("9.2", "no otk", headed('"otk":7,', "", starting), "jwe_header"),
        "jwe_first_null": ("9.2", "null", headed('"n":5', '"n":5,"first":null'), "jwe_header"),
        "jwe_first_proof_escape": ("9.2", "an escape in the proof", headed('"prf":"', '"prf":"\\u0041', starting), "jwe_header"),
        "jwe_first_proof_empty": ("9.2", "no proof", headed(PROOF, "", starting), "jwe_header"),
        "jwe_first_proof_over_limit": ("9.1", "2,049 bytes of proof", headed(PROOF, "a" * 2049, starting), "jwe_header"),
    }
    for name, (section, about, value, error) in broken.items():
        write("message", name, section, about, jwe=value, error=error)


# Safety number, §11


def side(issuer, user, devices):
    data = b"sealwire/1 safety number" + vec(1, issuer.encode()) + vec(1, user.encode()) + b"".join(sorted(devices))
    return hashlib.sha256(data).digest()


def safety():
    issuer = "https://issuer.example"
    alice = {"issuer": issuer, "user": "alice", "devices": [some("alice 2", 32), some("alice 1", 32)]}
    bob = {"issuer": issuer, "user": "bob", "devices": [some("bob 1", 32)]}
    many = {"issuer": issuer, "user": "bob", "devices": [some(f"bob {i}", 32) for i in range(16)]}
    shifted = {"issuer": issuer + "b", "user": "ob", "devices": bob["devices"]}

    def number(name, about, ours, theirs):
        low, high = sorted([side(**ours), side(**theirs)])
        groups = [f"{int.from_bytes(s[5 * i:5 * i + 5], 'big') % 100000:05}" for s in (low, high) for i in range(6)]
        sides = [{**s, "devices": [d.hex() for d in s["devices"]]} for s in (ours, theirs)]
        write("safety", name, "11", about, ours=sides[0], theirs=sides[1], digits=" ".join(groups), qr="sealwire-verify:1:" + b64u(low + high))
        return low, high

    low, high = number("safety_two_users", "alice's two devices and bob's one", alice, bob)
    number("safety_two_users_swapped", "the same number from the other end", bob, alice)
    number("safety_many_devices", "bob has sixteen devices", alice, many)
    number("safety_issuer_boundary", "the same text split elsewhere between issuer and user is another number", alice, shifted)
    number("safety_own_devices", "both sides are the same user", alice, alice)

    good = "sealwire-verify:1:" + b64u(low + high)
    other = low[:-1] + bytes([low[-1] ^ 1])
    bad = {
        "qr_empty": ("no character", "", "prefix"),
        "qr_prefix_other": ("another scheme", good.replace("verify", "invite"), "prefix"),
        "qr_prefix_upper_case": ("capitals", good.replace("sealwire", "SEALWIRE"), "prefix"),
        "qr_version_other": ("version 2", good.replace(":1:", ":2:"), "prefix"),
        "qr_without_sides": ("nothing after the prefix", "sealwire-verify:1:", "sides"),
        "qr_short": ("63 bytes", "sealwire-verify:1:" + b64u((low + high)[:63]), "sides"),
        "qr_long": ("65 bytes", "sealwire-verify:1:" + b64u(low + high + b"\0"), "sides"),
        "qr_padded": ("with =", good + "==", "sides"),
        "qr_unused_bits": ("an unused low bit is set", good[:-1] + chr(ord(good[-1]) + 1), "sides"),
        "qr_trailing_newline": ("a line feed at the end", good + "\n", "sides"),
        "qr_leading_space": ("a space before", " " + good, "prefix"),
        "qr_sides_swapped": ("the larger side first", "sealwire-verify:1:" + b64u(high + low), "order"),
        "qr_of_another_device": ("one bit of a side differs", "sealwire-verify:1:" + b64u(other + high), "different"),
    }
    for name, (about, qr, error) in bad.items():
        write("safety", name, "11", about, ours={**alice, "devices": [d.hex() for d in alice["devices"]]},
              theirs={**bob, "devices": [d.hex() for d in bob["devices"]]}, qr=qr, error=error)


# Files, §15.2 and §15.3

BLOB = some("blob", 32)
FILE_KEY = some("file key", 32)
SHA256 = hashlib.sha256(b"the file").digest()
FILE_CHUNK = 65_536


def chunk_aad(blob, index, last):
    return b"sealwire/1 file" + blob + struct.pack(">QB", index, last)


def seal_chunk(plaintext, blob=BLOB, index=3, last=0, key=FILE_KEY, iv=IV):
    return iv + AESGCM(key).encrypt(iv, plaintext, chunk_aad(blob, index, last))


def offer(size=70_000, name="photo.jpg".encode(), media_type=b"image/jpeg", version=1):
    return bytes([version]) + BLOB + FILE_KEY + struct.pack(">Q", size) + SHA256 + vec(1, name) + vec(1, media_type)


def files():
    lengths = []
    for size in (0, 1, 9, 65_535, 65_536, 65_537, 70_000, 131_072, 1_000_000, 2**40 + 1, 2**62 + 1):
        padded = padme(size)
        chunks = max(1, -(-padded // FILE_CHUNK))
        lengths.append([str(n) for n in (size, padded, chunks, padded + 28 * chunks)])
    write("file", "file_lengths", "15.2", "size of a file, with its padding, number of chunks, size of the blob", lengths=lengths)

    for name, (about, plaintext, index, last) in {
        "chunk_first": ("a chunk at the beginning", some("chunk", 100), 0, 0),
        "chunk_last": ("the last chunk", some("chunk", 100), 7, 1),
        "chunk_empty": ("the only chunk of an empty file", b"", 0, 1),
        "chunk_index_largest": ("the largest index", b"x", 2**64 - 1, 1),
    }.items():
        write("file", name, "15.2", about, key=FILE_KEY, blob=BLOB, index=str(index), last=bool(last), plaintext=plaintext,
              sealed=seal_chunk(plaintext, index=index, last=last))
    plaintext = some("chunk", 100)
    good = seal_chunk(plaintext)
    flip = lambda at: good[:at] + bytes([good[at] ^ 1]) + good[at + 1:]
    for name, (about, sealed) in {
        "chunk_of_another_blob": ("sealed for another blob", seal_chunk(plaintext, blob=some("another blob", 32))),
        "chunk_of_another_place": ("sealed for the place after", seal_chunk(plaintext, index=4)),
        "chunk_taken_for_the_last": ("sealed as the last one", seal_chunk(plaintext, last=1)),
        "chunk_of_another_key": ("sealed with another key", seal_chunk(plaintext, key=some("another key", 32))),
        "chunk_aad_missing": ("sealed without its place", IV + AESGCM(FILE_KEY).encrypt(IV, plaintext, b"")),
        "chunk_iv_changed": ("a bit of the iv", flip(0)),
        "chunk_ciphertext_changed": ("a bit of the ciphertext", flip(12)),
        "chunk_tag_changed": ("a bit of the tag", flip(len(good) - 1)),
        "chunk_truncated": ("without the last byte", good[:-1]),
        "chunk_trailing_byte": ("a byte after the tag", good + b"\0"),
        "chunk_without_tag": ("iv and ciphertext only", good[:-16]),
        "chunk_without_bytes": ("no byte at all", b""),
        "chunk_27_bytes": ("a byte fewer than iv and tag have", good[:27]),
    }.items():
        write("file", name, "15.2", about, key=FILE_KEY, blob=BLOB, index="3", last=False, sealed=sealed, error="decrypt")

    def told(name, about, size, file_name, media_type):
        write("file", name, "15.3", about, blob=BLOB, key=FILE_KEY, size=str(size), sha256=SHA256, name=file_name, media_type=media_type,
              offer=offer(size, file_name.encode(), media_type.encode()))

    told("offer", "a photo", 70_000, "photo.jpg", "image/jpeg")
    told("offer_of_an_empty_file", "no byte of file", 0, "nothing", "text/plain;charset=utf-8")
    told("offer_size_largest_that_fits", "its padded and its sealed length fit 64 bits", 2**64 - 2**57, "x", "a/b")
    told("offer_name_longest", "255 bytes of name", 1, "é" * 127 + "x", "a/b")
    told("offer_name_that_looks_like_a_path", "it is text, and the recipient's business", 1, "../../etc/passwd", "a/b")
    told("offer_media_type_longest", "255 bytes of media type", 1, "x", "text/plain;p=" + "v" * 242)
    text = offer()
    at = 1 + 32 + 32 + 8 + 32
    for name, (section, about, data, error) in {
        "offer_without_bytes": ("1.1", "no byte at all", b"", "encoding"),
        "offer_truncated": ("1.1", "ends inside the media type", text[:-1], "encoding"),
        "offer_hash_truncated": ("1.1", "ends inside the hash", text[:at - 1], "encoding"),
        "offer_trailing_byte": ("1.1", "goes on after the media type", text + b"\0", "encoding"),
        "offer_name_length_past_end": ("1.1", "the name's length says more than there is", text[:at] + b"\xff" + text[at + 1:], "encoding"),
        "offer_version_zero": ("15.3", "version 0", offer(version=0), "version"),
        "offer_version_unknown": ("15.3", "version 2", offer(version=2), "version"),
        "offer_size_largest": ("15.3", "2^64 - 1 bytes, which have no padded length", offer(size=2**64 - 1), "size"),
        "offer_size_padded_over_64_bits": ("15.3", "it fits until it is padded", offer(size=2**64 - 2**57 + 1), "size"),
        "offer_name_empty": ("15.3", "no byte of name", offer(name=b""), "encoding"),
        "offer_name_nul": ("15.3", "U+0000", offer(name=b"a\0b"), "name"),
        "offer_name_newline": ("15.3", "a line feed", offer(name=b"a\nb"), "name"),
        "offer_name_c1_control_character": ("15.3", "U+0085", offer(name="a\u0085b".encode()), "name"),
        "offer_name_not_utf8": ("15.3", "a lone 0xff", offer(name=b"a\xffb"), "name"),
        "offer_media_type_empty": ("15.3", "no media type", offer(media_type=b""), "encoding"),
        "offer_media_type_two_bytes": ("15.3", "shorter than three bytes", offer(media_type=b"a/"), "encoding"),
        "offer_media_type_without_slash": ("15.3", "no subtype", offer(media_type=b"text"), "media_type"),
        "offer_media_type_control_character": ("15.3", "an escape", offer(media_type=b"a/b;\x1b[2J"), "media_type"),
        "offer_media_type_not_ascii": ("15.3", "é", offer(media_type="text/é".encode()), "media_type"),
        "offer_media_type_not_utf8": ("15.3", "a lone 0xff", offer(media_type=b"a/b\xff"), "media_type"),
    }.items():
        write("file", name, section, about, offer=data, error=error)


padding()
contents()
messages()
safety()
files()
