"""PROXY headers written field by field, and CRC32c by long division: the slow, obvious side."""

from __future__ import annotations

import ipaddress

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"


def v1(source: str, destination: str, source_port: int, destination_port: int) -> bytes:
    family = "TCP6" if ":" in source else "TCP4"
    return f"PROXY {family} {source} {destination} {source_port} {destination_port}\r\n".encode()


def tlv(kind: int, value: bytes) -> bytes:
    return bytes([kind]) + len(value).to_bytes(2, "big") + value


def v2(
    source: str, destination: str, source_port: int, destination_port: int, tlvs=(), *, command=1, checksum=False
) -> bytes:
    family = 0x21 if ":" in source else 0x11
    body = ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed
    body += source_port.to_bytes(2, "big") + destination_port.to_bytes(2, "big")
    body += b"".join(tlv(kind, value) for kind, value in tlvs)
    if checksum:
        body += tlv(3, bytes(4))
    header = SIGNATURE + bytes([0x20 | command, family]) + len(body).to_bytes(2, "big") + body
    return header[:-4] + crc32c(header).to_bytes(4, "big") if checksum else header


def crc32c(data: bytes) -> int:
    """The remainder of RFC 3720's polynomial, one bit at a time."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF
