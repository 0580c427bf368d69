"""A ClientHello reader that is slow, allocates freely and is easy to believe; JA3 and JA4 with hashlib."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from struct import unpack


def is_grease(value):
    return value in {0x0A0A + 0x1010 * i for i in range(16)}


def message_of(stream):
    """The handshake message at the start of a stream of records, whole."""
    message = b""
    while len(message) < 4 or len(message) < 4 + int.from_bytes(message[1:4], "big"):
        (length,) = unpack(">H", stream[3:5])
        message += stream[5 : 5 + length]
        stream = stream[5 + length :]
    return message[: 4 + int.from_bytes(message[1:4], "big")]


def numbers(data):
    return [int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2)]


def read(message):
    """Dict of the fields of a whole, well-formed ClientHello message."""
    fields = {"legacy_version": int.from_bytes(message[4:6], "big")}
    at = 38 + 1 + message[38]
    fields["session_id"] = message[39:at]
    end = at + 2 + int.from_bytes(message[at : at + 2], "big")
    fields["ciphers"] = numbers(message[at + 2 : end])
    at = end + 1 + message[end] + 2
    extensions = []
    while at < len(message):
        number, length = unpack(">HH", message[at : at + 4])
        extensions.append((number, message[at + 4 : at + 4 + length]))
        at += 4 + length
    fields["extensions"] = [number for number, _ in extensions]
    bodies = dict(extensions)
    fields["groups"] = numbers(bodies.get(10, b"\0\0")[2:])
    fields["point_formats"] = list(bodies.get(11, b"\0")[1:])
    fields["signature_algorithms"] = numbers(bodies.get(13, b"\0\0")[2:])
    fields["versions"] = numbers(bodies.get(43, b"\0")[1:])
    protocols, rest = [], bodies.get(16, b"\0\0")[2:]
    while rest:
        protocols.append(rest[1 : 1 + rest[0]])
        rest = rest[1 + rest[0] :]
    fields["alpn"] = protocols
    names, rest = [], bodies.get(0, b"\0\0")[2:]
    while rest:
        end = 3 + int.from_bytes(rest[1:3], "big")
        names.extend([rest[3:end]] if rest[0] == 0 else [])
        rest = rest[end:]
    fields["sni_bytes"] = names[0] if names else None
    return fields


def without_grease(values):
    return [value for value in values if not is_grease(value)]


def ja3_text(fields):
    lists = [without_grease(fields[key]) for key in ("ciphers", "extensions", "groups")]
    parts = [[fields["legacy_version"]], *lists, fields["point_formats"]]
    return ",".join("-".join(str(value) for value in part) for part in parts)


def ja3(fields):
    return hashlib.md5(ja3_text(fields).encode(), usedforsecurity=False).hexdigest()


def alpn_letters(protocols):
    if not protocols or not protocols[0]:
        return "00"
    ends = protocols[0][:1] + protocols[0][-1:]
    if ends.isalnum():
        return ends.decode()
    shown = protocols[0].hex()
    return shown[0] + shown[-1]


def ja4_parts(fields, transport="t"):
    version = max(without_grease(fields["versions"]), default=fields["legacy_version"])
    ciphers, extensions = without_grease(fields["ciphers"]), without_grease(fields["extensions"])
    known = {0x0304: "13", 0x0303: "12", 0x0302: "11", 0x0301: "10", 0x0300: "s3", 0x0002: "s2"}
    first = transport + known.get(version, "00") + ("d" if 0 in extensions else "i")
    first += f"{min(len(ciphers), 99):02}{min(len(extensions), 99):02}" + alpn_letters(fields["alpn"])
    third = ",".join(sorted(f"{number:04x}" for number in extensions if number not in {0, 16}))
    signatures = without_grease(fields["signature_algorithms"])
    if signatures:
        third += "_" + ",".join(f"{value:04x}" for value in signatures)
    return first, ",".join(sorted(f"{value:04x}" for value in ciphers)), third


def ja4_r(fields, transport="t"):
    return "_".join(ja4_parts(fields, transport))


def ja4(fields, transport="t"):
    first, *lists = ja4_parts(fields, transport)
    digests = [hashlib.sha256(part.encode()).hexdigest()[:12] if part else "0" * 12 for part in lists]
    return "_".join([first, *digests])


def records(message, cuts):
    """The message in one record per piece between `cuts`, offsets in ascending order."""
    edges = [0, *cuts, len(message)]
    return b"".join(record(message[start:end]) for start, end in pairwise(edges))


def record(payload):
    return b"\x16\x03\x01" + len(payload).to_bytes(2, "big") + payload
