"""PROXY protocol, versions 1 and 2: parser of the header with the original addresses of a connection.

Source: "The PROXY protocol", HAProxy Technologies, revision of 2020/03/05; CRC32c: RFC 3720, appendix B.4.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache
from typing import Literal

from gobanfast._core.address import format_address, parse_address

Status = Literal["ok", "incomplete", "malformed", "absent"]
Family = Literal["unspecified", "ipv4", "ipv6", "unix"]
Tlvs = tuple[tuple[int, bytes], ...]

V1_START = b"PROXY "
V1_LIMIT = 107
V2_START = b"\r\n\r\n\x00\r\nQUIT\n"
V2_HEAD = 16
V2_LIMIT = 4096
V1_FAMILIES: dict[bytes, Family] = {b"TCP4": "ipv4", b"TCP6": "ipv6"}
V2_FAMILIES: tuple[tuple[Family, int], ...] = (("unspecified", 0), ("ipv4", 4), ("ipv6", 16), ("unix", 108))
MAPPED = bytes(10) + b"\xff\xff"  # what parse_address puts in front of an IPv4 address

ALPN, AUTHORITY, CRC32C, UNIQUE_ID, SSL = 0x01, 0x02, 0x03, 0x05, 0x20
SSL_VERSION, SSL_COMMON_NAME, SSL_CIPHER = 0x21, 0x22, 0x23
ONCE = frozenset({ALPN, AUTHORITY, CRC32C, UNIQUE_ID, SSL})  # two of one kind: each reader would believe another one


@dataclass(frozen=True, slots=True)
class ProxySsl:
    """How the client's TLS ended at the proxy."""

    tls: bool
    client_certificate: bool
    verified: bool
    tlvs: Tlvs

    @property
    def version(self) -> str | None:
        """The proxy's word for the TLS version, such as "TLSv1.3"."""
        return text_of(self.tlvs, SSL_VERSION)

    @property
    def cipher(self) -> str | None:
        """Name of the cipher suite."""
        return text_of(self.tlvs, SSL_CIPHER)

    @property
    def common_name(self) -> str | None:
        """Common name in the client's certificate; believe it only if `verified`."""
        return text_of(self.tlvs, SSL_COMMON_NAME)


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """What the first bytes of a connection say about its client. Made by `parse_proxy_header`.

    `status` is "ok", "incomplete" (`need` more bytes at the least), "malformed" (`problem` says how) or "absent" (other
    bytes come first). `version` is 1 or 2 as soon as the bytes are known to be a header, else 0. `nbytes` is what the
    header takes up; what follows belongs to the client. `source` is None if the proxy does not say (`local`: its own
    connection, a health check; family "unspecified"; family "unix"). TLVs keep the wire's order.
    """

    status: Status
    version: int = 0
    nbytes: int = 0
    need: int = 0
    problem: str | None = None
    local: bool = False
    family: Family = "unspecified"
    source: str | None = None
    source_port: int | None = None
    destination: str | None = None
    destination_port: int | None = None
    tlvs: Tlvs = ()

    @property
    def authority(self) -> str | None:
        """Host name the client asked for (SNI), as reported by the proxy; bytes that are no UTF-8 become U+FFFD."""
        return text_of(self.tlvs, AUTHORITY)

    @property
    def alpn(self) -> bytes | None:
        """Application protocol that client and proxy agreed on."""
        return bytes_of(self.tlvs, ALPN)

    @property
    def unique_id(self) -> bytes | None:
        """The proxy's name for this connection."""
        return bytes_of(self.tlvs, UNIQUE_ID)

    @property
    def ssl(self) -> ProxySsl | None:
        """The client's TLS, or None if the proxy says nothing about it."""
        value = bytes_of(self.tlvs, SSL)
        if value is None:
            return None
        client, verify = struct.unpack_from("!BI", value)
        return ProxySsl(bool(client & 1), bool(client & 6), verify == 0, split_tlvs(value[5:]) or ())


class MalformedError(ValueError):
    """A header that breaks the format; stays inside this module."""


def bytes_of(tlvs: Tlvs, kind: int) -> bytes | None:
    return next((value for found, value in tlvs if found == kind), None)


def text_of(tlvs: Tlvs, kind: int) -> str | None:
    value = bytes_of(tlvs, kind)
    return None if value is None else value.decode("utf-8", "replace")


def parse_proxy_header(data: bytes, /, *, limit: int = V2_LIMIT) -> ProxyHeader:
    """PROXY header at the start of `data`, the first bytes of a connection. Bad bytes give a status.

    Args:
        data: what has come so far.
        limit: bytes a version 2 header may take up, at most 65,551; version 1 has its own, 107.
    Cost: microseconds; a CRC32c is checked in Python, 0.1 us a byte.
    """
    v1, v2 = data.startswith(V1_START), data.startswith(V2_START)
    if not (v1 or v2):
        if V1_START.startswith(data):
            return ProxyHeader("incomplete", need=len(V1_START) - len(data))
        if V2_START.startswith(data):
            return ProxyHeader("incomplete", need=len(V2_START) - len(data))
        return ProxyHeader("absent")
    try:
        return read_v1(data) if v1 else read_v2(data, limit)
    except MalformedError as problem:
        return ProxyHeader("malformed", 1 if v1 else 2, problem=str(problem))


def read_v1(data: bytes) -> ProxyHeader:
    end = data.find(b"\r\n", 0, V1_LIMIT)
    if end < 0:
        if len(data) >= V1_LIMIT:
            raise MalformedError(f"no end of line within {V1_LIMIT} bytes")
        return ProxyHeader("incomplete", 1, need=1 if data.endswith(b"\r") else 2)
    nbytes = end + 2
    words = data[:end].split(b" ")
    if words[1] == b"UNKNOWN":
        return ProxyHeader("ok", 1, nbytes)
    family = V1_FAMILIES.get(words[1])
    if family is None or len(words) != 6:
        raise MalformedError(
            f"line {data[:end]!r} is not PROXY TCP4|TCP6 and two addresses and two ports, or PROXY UNKNOWN"
        )
    source, destination = (address_v1(word, family) for word in words[2:4])
    source_port, destination_port = (port_v1(word) for word in words[4:6])
    return ProxyHeader(
        "ok", 1, nbytes, 0, None, False, family, source, source_port, destination, destination_port
    )  # fmt: skip


def address_v1(word: bytes, family: Family) -> str:
    text = word.decode("latin-1")
    packed = None if "%" in text else parse_address(text)
    if packed is None or (":" in text) != (family == "ipv6"):
        raise MalformedError(f"address {text!r} is not {family}")
    return format_address(packed)


def port_v1(word: bytes) -> int:
    if not word.isdigit() or len(word) > 5 or (len(word) > 1 and word.startswith(b"0")) or int(word) > 0xFFFF:
        raise MalformedError(f"port {word.decode('latin-1')!r} is not 0 to 65535")
    return int(word)


def read_v2(data: bytes, limit: int) -> ProxyHeader:
    if len(data) < V2_HEAD:
        return ProxyHeader("incomplete", 2, need=V2_HEAD - len(data))
    version_command, family_transport, length = struct.unpack_from("!BBH", data, len(V2_START))
    if version_command not in {0x20, 0x21}:
        raise MalformedError(f"version and command byte 0x{version_command:02x} is neither 0x20 nor 0x21")
    nbytes = V2_HEAD + length
    if nbytes > limit:
        raise MalformedError(f"header of {nbytes} bytes is over the limit of {limit}")
    if len(data) < nbytes:
        return ProxyHeader("incomplete", 2, need=nbytes - len(data))
    if version_command == 0x20:  # the rest of a LOCAL header is to be passed over, whatever it says
        return ProxyHeader("ok", 2, nbytes, local=True)
    if family_transport >> 4 > 3 or family_transport & 15 > 2:
        raise MalformedError(f"family and transport byte 0x{family_transport:02x} is not assigned")
    family, size = V2_FAMILIES[family_transport >> 4]
    at = V2_HEAD
    source = destination = source_port = destination_port = None
    if family == "unspecified":
        return ProxyHeader("ok", 2, nbytes)
    if length < 2 * size + 4 * (family != "unix"):
        raise MalformedError(f"length {length} is too short for two {family} addresses")
    if family == "unix":
        at += 2 * size
    else:
        front = MAPPED if family == "ipv4" else b""
        source = format_address(front + data[at : at + size])
        destination = format_address(front + data[at + size : at + 2 * size])
        source_port, destination_port = struct.unpack_from("!HH", data, at + 2 * size)
        at += 2 * size + 4
    tlvs = split_tlvs(data[at:nbytes])
    if tlvs is None:
        raise MalformedError("a TLV is longer than what is left of the header")
    check_tlvs(tlvs, data[:nbytes], at)
    return ProxyHeader(
        "ok", 2, nbytes, 0, None, False, family, source, source_port, destination, destination_port, tlvs
    )  # fmt: skip


def split_tlvs(data: bytes) -> Tlvs | None:
    """(kind, value) pairs, or None if the lengths do not add up."""
    found = []
    at = 0
    while at < len(data):
        if at + 3 > len(data):
            return None
        kind, length = struct.unpack_from("!BH", data, at)
        at += 3
        if at + length > len(data):
            return None
        found.append((kind, data[at : at + length]))
        at += length
    return tuple(found)


def check_tlvs(tlvs: Tlvs, header: bytes, at: int) -> None:
    seen = set()
    for kind, value in tlvs:
        if kind in ONCE and kind in seen:
            raise MalformedError(f"TLV 0x{kind:02x} occurs twice")
        seen.add(kind)
        if kind == SSL and (len(value) < 5 or split_tlvs(value[5:]) is None):
            raise MalformedError("the TLV about TLS (0x20) is damaged")
        if kind == CRC32C:
            if len(value) != 4:
                raise MalformedError(f"CRC32c of {len(value)} bytes is not 4 bytes")
            found = crc32c(header[: at + 3] + bytes(4) + header[at + 7 :])
            if found != int.from_bytes(value):
                raise MalformedError(f"CRC32c 0x{int.from_bytes(value):08x} is not 0x{found:08x}")
        at += 3 + len(value)


@cache
def crc32c_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ 0x82F63B78 * (value & 1)  # noqa: PLW2901 - shifted in place
        table.append(value)
    return tuple(table)


def crc32c(data: bytes) -> int:
    """CRC32c (Castagnoli) of `data`."""
    table, value = crc32c_table(), 0xFFFFFFFF
    for byte in data:
        value = table[(value ^ byte) & 0xFF] ^ value >> 8
    return value ^ 0xFFFFFFFF
