#!/usr/bin/env python3
"""Writes the vectors in `wire/`, and their list `wire.txt`, from docs/protocol.md §1.1, §1.2 and §5 alone.

It shares no code with the crate, so that the two check each other. Each file is one vector, named noun first, then defect. `spec` is what
it proves. Nothing runs this in a build: a vector changes only when somebody decides that it does.
"""

import json
import pathlib
import struct

HERE = pathlib.Path(__file__).parent
NAMES = []

DEVICE = bytes(range(32))
OTHER = bytes(range(32, 64))
BLOB = bytes(range(64, 96))
ID = bytes(range(0xa0, 0xb0))
USER = "alice"
TIME = 1_800_000_000
TEXT_ERRORS = {
    "c1_control": (b"\xc2\x85", "InvalidText"),
    "delete": (b"\x7f", "InvalidText"),
    "empty": (b"", "LengthOutOfBounds"),
    "newline": (b"a\n", "InvalidText"),
    "not_utf8": (b"\xff\xfe", "InvalidText"),
    "nul": (b"a\x00b", "InvalidText"),
    "overlong_utf8": (b"\xc0\x80", "InvalidText"),
    "surrogate": (b"\xed\xa0\x80", "InvalidText"),
}

u8 = lambda n: struct.pack(">B", n)
u16 = lambda n: struct.pack(">H", n)
u32 = lambda n: struct.pack(">I", n)
u64 = lambda n: struct.pack(">Q", n)
vec = lambda width, data: len(data).to_bytes(width, "big") + data
listed = lambda items: u8(len(items)) + b"".join(items)
part = lambda device, message: device + vec(3, message)


def frame(type_byte, payload):
    return u8(type_byte) + vec(3, payload)


def write(name, section, operation, data, error=None, fields=None):
    NAMES.append(name)
    vector = {"spec": f"docs/protocol.md {section}", "operation": operation, "input": data.hex(), "error": error}
    if error is None:
        vector["fields"] = fields
    (HERE / "wire" / f"{name}.json").write_text(json.dumps(vector, indent=2, ensure_ascii=False) + "\n")


class Frame:
    """One type of frame: its encoded fields, in order, by name. A vector is made by putting others in their place."""

    def __init__(self, noun, type_byte, **fields):
        self.noun, self.type_byte, self.encoded = noun, type_byte, fields
        self.operation = "to_relay" if type_byte < 0x40 else "to_device"
        self.section = "§5.1" if type_byte < 0x40 else "§5.2"

    def payload(self, **other):
        assert other.keys() <= self.encoded.keys(), other.keys()
        return b"".join({**self.encoded, **other}.values())

    def good(self, name, fields, section=None, **other):
        kind = "".join(word.title() for word in self.noun.split("_"))
        write(f"{self.noun}{name}", section or self.section, self.operation, frame(self.type_byte, self.payload(**other)),
              fields={"type": kind, **fields})

    def bad(self, defect, error, section=None, **other):
        write(f"{self.noun}_{defect}", section or self.section, self.operation, frame(self.type_byte, self.payload(**other)), error)

    def cut(self, defect, error, after, then=b"", section=None, **other):
        """Ends after the field `after`, with `then` behind it."""
        encoded = {**self.encoded, **other}
        names = list(encoded)
        payload = b"".join(encoded[name] for name in names[:names.index(after) + 1])
        write(f"{self.noun}_{defect}", section or self.section, self.operation, frame(self.type_byte, payload + then), error)

    def common(self):
        """What every frame is refused for."""
        payload = self.payload()
        for defect, data, error in [("payload_empty", b"", "EndsEarly"), ("payload_one_byte_short", payload[:-1], "EndsEarly"),
                                    ("trailing_byte", payload + b"\0", "TrailingBytes")]:
            write(f"{self.noun}_{defect}", "§1.1", self.operation, frame(self.type_byte, data), error)
        if "request" in self.encoded and self.noun != "token":
            self.bad("request_0", "UnknownValue", "§5", request=u32(0))
        if "user" in self.encoded:
            for defect, (user, error) in TEXT_ERRORS.items():
                self.bad(f"user_{defect}", error, "§1.2", user=vec(1, user))

    def boolean(self, field):
        for value in (2, 255):
            self.bad(f"{field}_{value}", "UnknownValue", "§1.1", **{field: u8(value)})


def send():
    fields = {"request": 7, "sequence": "9", "id": ID.hex(), "user": USER, "whole": True}
    one, two = part(DEVICE, b"one"), part(OTHER, b"two")
    json_part = lambda device, message: {"device": device.hex(), "message": message.hex()}
    both = [json_part(DEVICE, b"one"), json_part(OTHER, b"two")]
    m, json_m = part(DEVICE, b"m"), json_part(DEVICE, b"m")
    frame = Frame("send", 0x01, request=u32(7), sequence=u64(9), id=ID, user=vec(1, USER.encode()), whole=u8(1),
                  parts=listed([one, two]), copies=listed([]))
    frame.common()
    frame.good("_two_parts", {**fields, "parts": both, "copies": []})
    frame.good("_with_copies", {**fields, "parts": [json_m], "copies": both}, parts=listed([m]), copies=listed([one, two]))
    frame.good("_not_whole", {**fields, "whole": False, "parts": [json_m], "copies": []}, whole=u8(0), parts=listed([m]))
    frame.good("_most_parts_and_copies", {**fields, "parts": [json_m] * 16, "copies": [json_m] * 15},
               parts=listed([m] * 16), copies=listed([m] * 15))
    frame.good("_sequence_largest", {**fields, "sequence": str(2**64 - 1), "parts": [json_m], "copies": []}, sequence=u64(2**64 - 1), parts=listed([m]))
    longest = "é" * 127 + "x"
    frame.good("_user_longest", {**fields, "user": longest, "parts": [json_m], "copies": []}, "§1.2", user=vec(1, longest.encode()), parts=listed([m]))
    frame.bad("sequence_0", "UnknownValue", sequence=u64(0))
    frame.boolean("whole")
    frame.bad("parts_none", "CountOutOfBounds", parts=listed([]))
    frame.bad("parts_17", "CountOutOfBounds", parts=listed([m] * 17))
    frame.cut("parts_count_over_the_parts", "EndsEarly", "parts", parts=u8(2) + m)
    frame.bad("parts_count_under_the_parts", "TrailingBytes", parts=u8(1) + m + m)
    frame.bad("copies_16", "CountOutOfBounds", copies=listed([m] * 16))
    frame.bad("copies_255", "CountOutOfBounds", copies=u8(255))
    frame.cut("copies_missing", "EndsEarly", "parts")
    frame.bad("copies_count_over_the_copies", "EndsEarly", copies=u8(2) + m)
    frame.bad("copies_count_under_the_copies", "TrailingBytes", copies=u8(1) + m + m)
    frame.bad("copy_message_empty", "LengthOutOfBounds", copies=listed([part(DEVICE, b"")]))
    frame.bad("copy_message_98305", "LengthOutOfBounds", copies=u8(1) + DEVICE + (98_305).to_bytes(3, "big"))
    frame.bad("message_empty", "LengthOutOfBounds", parts=listed([part(DEVICE, b"")]))
    frame.bad("message_98305", "LengthOutOfBounds", parts=u8(1) + DEVICE + (98_305).to_bytes(3, "big"))


def prekey(number):
    return u32(number) + b"\x21" * 32 + b"\x22" * 1184 + b"\x23" * 64


def json_prekey(number):
    return {"id": number, "x25519": "21" * 32, "kem_key": "22" * 1184, "signature": "23" * 64}


def services(frame):
    """What is no name of a service."""
    for defect, name, error in [("empty", b"", "LengthOutOfBounds"), ("dot_first", b".a", "InvalidText"), ("dot_last", b"a.", "InvalidText"),
                                ("dots", b"a..b", "InvalidText"), ("slash", b"a/b", "InvalidText"), ("star", b"a.*", "InvalidText"),
                                ("space", b"a b", "InvalidText"), ("newline", b"a\n", "InvalidText"), ("nul", b"a\0b", "InvalidText"),
                                ("not_ascii", "é".encode(), "InvalidText"), ("not_utf8", b"\xff\xfe", "InvalidText")]:
        frame.bad(f"service_{defect}", error, "§17.1", service=vec(1, name))


def to_relay():
    send()

    ack = Frame("ack", 0x02, position=u64(2**64 - 1))
    ack.common()
    ack.good("", {"position": str(2**64 - 1)})

    card = Frame("publish_card", 0x03, request=u32(1), card=vec(2, b"a.b.c"))
    card.common()
    card.good("", {"request": 1, "card": b"a.b.c".hex()})
    card.bad("empty", "LengthOutOfBounds", card=u16(0))
    card.bad("16385", "LengthOutOfBounds", card=u16(16_385))

    prekeys = Frame("publish_prekeys", 0x04, request=u32(2**32 - 1), replace=u8(0), prekeys=listed([prekey(1), prekey(2**32 - 1)]))
    prekeys.common()
    both = [json_prekey(1), json_prekey(2**32 - 1)]
    prekeys.good("", {"request": 2**32 - 1, "replace": False, "prekeys": both})
    prekeys.good("_replace", {"request": 2**32 - 1, "replace": True, "prekeys": [json_prekey(5)]}, "§6.2", replace=u8(1), prekeys=listed([prekey(5)]))
    prekeys.boolean("replace")
    prekeys.cut("replace_missing", "EndsEarly", "request")
    prekeys.bad("none", "CountOutOfBounds", request=u32(1), prekeys=u8(0))
    prekeys.bad("101", "CountOutOfBounds", request=u32(1), prekeys=u8(101))
    prekeys.bad("signature_truncated", "EndsEarly", "§6.2", request=u32(1), prekeys=u8(1) + prekey(1)[:-1])

    fetch = Frame("fetch_cards", 0x05, request=u32(9), user=vec(1, USER.encode()), take=u8(0))
    fetch.common()
    fetch.good("", {"request": 9, "user": USER, "take": False})
    fetch.good("_take", {"request": 9, "user": USER, "take": True}, take=u8(1))
    fetch.boolean("take")

    refresh = Frame("refresh", 0x06, request=u32(9), proof=vec(2, b"proof"), token=vec(2, b"token"))
    refresh.common()
    refresh.good("", {"request": 9, "proof": b"proof".hex(), "token": b"token".hex()})
    refresh.good("_token_empty", {"request": 9, "proof": b"proof".hex(), "token": ""}, "§5.4", token=u16(0))
    refresh.bad("proof_empty", "LengthOutOfBounds", proof=u16(0), token=u16(0))
    refresh.cut("proof_2049", "LengthOutOfBounds", "proof", proof=u16(2_049))
    refresh.bad("token_8193", "LengthOutOfBounds", proof=vec(2, b"p"), token=u16(8_193))

    remove = Frame("remove_device", 0x07, request=u32(9), device=DEVICE)
    remove.common()
    remove.good("", {"request": 9, "device": DEVICE.hex()})

    upload = Frame("upload", 0x08, request=u32(9), blob=BLOB, size=u64(2**63), offset=u64(131_072), data=vec(3, b"sealed"))
    upload.common()
    fields = {"request": 9, "blob": BLOB.hex(), "size": str(2**63), "offset": "131072"}
    upload.good("", {**fields, "data": b"sealed".hex()})
    upload.good("_data_empty", {**fields, "data": ""}, "§15.1", data=vec(3, b""))
    upload.bad("data_131073", "LengthOutOfBounds", data=(131_073).to_bytes(3, "big"))
    upload.bad("data_length_past_end", "EndsEarly", "§1.1", data=(2).to_bytes(3, "big") + b"s")
    upload.cut("data_missing", "EndsEarly", "offset", section="§1.1")
    upload.cut("blob_truncated", "EndsEarly", "blob", section="§1.1", blob=BLOB[:-1])

    download = Frame("download", 0x09, request=u32(9), blob=BLOB, offset=u64(2**64 - 1), length=u32(131_072))
    download.common()
    fields = {"request": 9, "blob": BLOB.hex(), "offset": str(2**64 - 1)}
    download.good("", {**fields, "length": 131_072})
    download.good("_length_1", {**fields, "length": 1}, length=u32(1))
    download.bad("length_0", "LengthOutOfBounds", length=u32(0))
    download.bad("length_131073", "LengthOutOfBounds", length=u32(131_073))
    download.bad("length_largest", "LengthOutOfBounds", length=u32(2**32 - 1))

    discard = Frame("discard", 0x0a, request=u32(9), blob=BLOB)
    discard.common()
    discard.good("", {"request": 9, "blob": BLOB.hex()})

    call = Frame("call", 0x0b, request=u32(9), reply=u8(1), service=vec(1, b"orders.create"), payload=vec(3, b"an order"))
    call.common()
    fields = {"request": 9, "reply": True, "service": "orders.create", "payload": b"an order".hex()}
    call.good("", fields, "§17")
    call.good("_notify", {**fields, "reply": False}, "§17", reply=u8(0))
    call.good("_payload_none", {**fields, "payload": ""}, "§17", payload=vec(3, b""))
    call.good("_service_longest", {**fields, "service": "x" * 255}, "§17.1", service=vec(1, b"x" * 255))
    call.good("_service_all_characters", {**fields, "service": "-_.09.AZaz"}, "§17.1", service=vec(1, b"-_.09.AZaz"))
    call.boolean("reply")
    services(call)
    call.bad("payload_over_1_mib", "LengthOutOfBounds", "§17", payload=(2**20 + 1).to_bytes(3, "big"))
    call.bad("payload_length_past_end", "EndsEarly", "§1.1", payload=(2).to_bytes(3, "big") + b"s")
    call.cut("payload_missing", "EndsEarly", "service", section="§1.1")
    call.cut("service_missing", "EndsEarly", "reply", section="§1.1")


REFUSALS = ["not_permitted", "unknown_user", "devices_changed", "mailbox_full", "too_large", "rate_limited", "invalid_card", "too_many",
            "token_refused", "unavailable", "own_devices_changed", "quota", "stale", "unknown_device", "unknown_blob", "blob_conflict",
            "storage_full", "overtaken", "unknown_service", "service_failed", "service_timeout"]


def to_device():
    ready = Frame("ready", 0x41, device=DEVICE, user=vec(1, USER.encode()), time=u64(TIME), token_expires=u64(TIME + 3_600),
                  max_message=u32(98_304), has_card=u8(1), prekeys=u8(255), epoch=ID, acknowledged=u64(5), head=u64(9), sent=u64(11), waiting=u32(3))
    ready.common()
    fields = {"device": DEVICE.hex(), "user": USER, "time": str(TIME), "token_expires": str(TIME + 3_600), "max_message": 98_304,
              "has_card": True, "prekeys": 255, "epoch": ID.hex(), "acknowledged": "5", "head": "9", "sent": "11", "waiting": 3}
    ready.good("", fields)
    ready.good("_nothing_sent", {**fields, "sent": "0", "waiting": 0}, sent=u64(0), waiting=u32(0))
    ready.good("_numbers_largest", {**fields, "head": str(2**64 - 1), "sent": str(2**64 - 1), "waiting": 2**32 - 1},
               head=u64(2**64 - 1), sent=u64(2**64 - 1), waiting=u32(2**32 - 1))
    ready.boolean("has_card")
    ready.cut("sent_missing", "EndsEarly", "head")
    ready.cut("waiting_missing", "EndsEarly", "sent")

    accepted = Frame("accepted", 0x42, request=u32(3))
    accepted.common()
    accepted.good("", {"request": 3})

    refused = Frame("refused", 0x43, request=u32(3), code=u16(10))
    refused.common()
    for code, name in enumerate(REFUSALS, 1):
        refused.good(f"_{name}", {"request": 3, "code": name}, "§5.3", code=u16(code))
    for code in (0, len(REFUSALS) + 1, 65_535):
        refused.bad(f"code_{code}", "UnknownValue", "§5.3", code=u16(code))

    deliver = Frame("deliver", 0x44, position=u64(12), id=ID, user=vec(1, USER.encode()), device=DEVICE,
                    time=u64(1_800_000_000_123), message=vec(3, b"sealed"))
    deliver.common()
    deliver.good("", {"position": "12", "id": ID.hex(), "user": USER, "device": DEVICE.hex(), "time": "1800000000123", "message": b"sealed".hex()})
    deliver.bad("message_empty", "LengthOutOfBounds", message=vec(3, b""))
    deliver.bad("message_98305", "LengthOutOfBounds", message=(98_305).to_bytes(3, "big"))

    entry = lambda card, *prekeys: vec(2, card) + listed(prekeys)
    cards = Frame("cards", 0x45, request=u32(3), entries=listed([entry(b"card1", prekey(5)), entry(b"card2")]))
    cards.common()
    cards.good("_with_and_without_prekey", {"request": 3, "entries": [{"card": b"card1".hex(), "prekey": json_prekey(5)},
                                                                      {"card": b"card2".hex(), "prekey": None}]})
    cards.good("_none", {"request": 3, "entries": []}, entries=listed([]))
    cards.bad("entries_17", "CountOutOfBounds", entries=u8(17))
    cards.bad("card_empty", "LengthOutOfBounds", entries=listed([entry(b"")]))
    cards.bad("card_16385", "LengthOutOfBounds", entries=u8(1) + u16(16_385))
    cards.bad("prekeys_2", "CountOutOfBounds", entries=listed([entry(b"c", prekey(1), prekey(2))]))

    token = Frame("token", 0x46, request=u32(4), expires=u64(TIME + 3_600), token=vec(2, b"token"))
    token.common()
    token.good("_for_refresh", {"request": 4, "expires": str(TIME + 3_600), "token": b"token".hex()}, "§5.4")
    token.good("_after_ready", {"request": 0, "expires": str(TIME + 3_600), "token": b"token".hex()}, "§3.6", request=u32(0))
    token.bad("empty", "LengthOutOfBounds", request=u32(0), expires=u64(1), token=u16(0))
    token.bad("8193", "LengthOutOfBounds", request=u32(0), expires=u64(1), token=u16(8_193))

    changed = Frame("device_changed", 0x47, user=vec(1, USER.encode()))
    changed.common()
    changed.good("", {"user": USER})

    undelivered = Frame("undelivered", 0x48, position=u64(12), id=ID, user=vec(1, USER.encode()), device=DEVICE, reason=u8(1))
    undelivered.common()
    fields = {"position": "12", "id": ID.hex(), "user": USER, "device": DEVICE.hex()}
    undelivered.good("_expired", {**fields, "reason": 1})
    undelivered.good("_device_removed", {**fields, "reason": 2}, reason=u8(2))
    undelivered.good("_mailbox_full", {**fields, "reason": 3}, reason=u8(3))
    for reason in (0, 4, 255):
        undelivered.bad(f"reason_{reason}", "UnknownValue", reason=u8(reason))

    damaged = Frame("damaged", 0x49, position=u64(2**64 - 1))
    damaged.common()
    damaged.good("", {"position": str(2**64 - 1)})

    blob = Frame("blob", 0x4a, request=u32(3), length=u64(131_072), size=u64(2**63), complete=u8(0), data=vec(3, b"sealed"))
    blob.common()
    fields = {"request": 3, "length": "131072", "size": str(2**63)}
    blob.good("", {**fields, "complete": False, "data": b"sealed".hex()})
    blob.good("_complete", {**fields, "complete": True, "data": ""}, "§15.1", complete=u8(1), data=vec(3, b""))
    blob.boolean("complete")
    blob.bad("data_131073", "LengthOutOfBounds", data=(131_073).to_bytes(3, "big"))
    blob.bad("data_length_past_end", "EndsEarly", "§1.1", data=(2).to_bytes(3, "big") + b"s")
    blob.cut("data_missing", "EndsEarly", "complete", section="§1.1")

    result = Frame("result", 0x4b, request=u32(3), payload=vec(3, b"done"))
    result.common()
    result.good("", {"request": 3, "payload": b"done".hex()}, "§17")
    result.good("_payload_none", {"request": 3, "payload": ""}, "§17", payload=vec(3, b""))
    result.bad("payload_over_1_mib", "LengthOutOfBounds", "§17", payload=(2**20 + 1).to_bytes(3, "big"))
    result.bad("payload_length_past_end", "EndsEarly", "§1.1", payload=(2).to_bytes(3, "big") + b"s")
    result.cut("payload_missing", "EndsEarly", "request", section="§1.1")

    push = Frame("push", 0x4c, service=vec(1, b"orders.changed"), payload=vec(3, b"an order"))
    push.common()
    push.good("", {"service": "orders.changed", "payload": b"an order".hex()}, "§17")
    push.good("_payload_none", {"service": "orders.changed", "payload": ""}, "§17", payload=vec(3, b""))
    services(push)
    push.bad("payload_over_1_mib", "LengthOutOfBounds", "§17", payload=(2**20 + 1).to_bytes(3, "big"))
    push.bad("payload_length_past_end", "EndsEarly", "§1.1", payload=(2).to_bytes(3, "big") + b"s")
    push.cut("payload_missing", "EndsEarly", "service", section="§1.1")

    expiring = Frame("expiring", 0x4d, expires=u64(TIME + 60))
    expiring.common()
    expiring.good("", {"expires": str(TIME + 60)}, "§5.4")
    expiring.good("_largest", {"expires": str(2**64 - 1)}, "§5.4", expires=u64(2**64 - 1))

    leaving = Frame("leaving", 0x4e, after=u32(1_500))
    leaving.common()
    leaving.good("", {"after": 1_500}, "§5.2")
    leaving.good("_at_once", {"after": 0}, "§5.2", after=u32(0))
    leaving.good("_largest", {"after": 2**32 - 1}, "§5.2", after=u32(2**32 - 1))


def framing():
    write("frame_empty", "§5", "to_relay", b"", "EndsEarly")
    write("frame_header_truncated", "§5", "to_relay", b"\2\0\0", "EndsEarly")
    write("frame_payload_truncated", "§5", "to_relay", frame(2, u64(1))[:-1], "EndsEarly")
    write("frame_length_largest_u24", "§5", "to_device", b"\x42\xff\xff\xff", "LengthOutOfBounds")
    write("frame_length_over_3_mib", "§5", "to_relay", b"\2\x30\0\1", "LengthOutOfBounds")
    for type_byte in (0x00, 0x0c, 0x40, 0x41, 0x48, 0x4a, 0x4b, 0x4c, 0x4d, 0x4e, 0x7f, 0x80, 0xff):
        write(f"frame_type_{type_byte:02x}_to_relay", "§5.1", "to_relay", frame(type_byte, u64(1)), "UnknownValue")
    for type_byte in (0x00, 0x01, 0x06, 0x0a, 0x0b, 0x40, 0x4f, 0xc2, 0xff):
        write(f"frame_type_{type_byte:02x}_to_device", "§5.2", "to_device", frame(type_byte, u32(1)), "UnknownValue")


to_relay()
to_device()
framing()
assert len(NAMES) == len(set(NAMES))
(HERE / "wire.txt").write_text("".join(f"{name}\n" for name in sorted(NAMES)))
for stale in (HERE / "wire").glob("*.json"):
    if stale.stem not in NAMES:
        stale.unlink()
