"""Frames of a capture file (pcap, pcapng) and the IP packet in each, for every supported link type."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

PCAP_MAGICS = {
    bytes.fromhex(magic): order
    for magic, order in (("d4c3b2a1", "<"), ("4d3cb2a1", "<"), ("a1b2c3d4", ">"), ("a1b23c4d", ">"))
}
PCAPNG_MAGIC = bytes.fromhex("0a0d0d0a")
SECTION, INTERFACE, PACKET, SIMPLE_PACKET, ENHANCED_PACKET = 0x0A0D0D0A, 1, 2, 3, 6

NULL, ETHERNET, SLL, LOOP, SLL2 = 0, 1, 113, 108, 276
RAW = {12, 14, 101, 228, 229}  # two of BSD, raw IP, IPv4, IPv6
READ = "Ethernet (1), Linux cooked (113, 276), loopback (0, 108), raw IP (101, 228, 229)"
VLAN, PPPOE = {0x8100, 0x88A8, 0x9100}, 0x8864
IPV4, IPV6 = {0x0800, 0x0021}, {0x86DD, 0x0057}  # EtherType, PPP protocol


class UnknownLinkError(Exception):
    """A link type that is not read."""


def is_capture(data: bytes) -> bool:
    """Whether the bytes begin a capture."""
    return data[:4] in PCAP_MAGICS or data[:4] == PCAPNG_MAGIC


def frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(link type, frame) of every packet; what is cut off or damaged ends them."""
    if data[:4] == PCAPNG_MAGIC:
        yield from _pcapng(data)
        return
    order = PCAP_MAGICS[data[:4]]
    if len(data) < 24:
        return
    link = struct.unpack_from(order + "I", data, 20)[0] & 0xFFFF  # above: length of the frame check sequence
    at = 24
    while at + 16 <= len(data):
        kept = struct.unpack_from(order + "I", data, at + 8)[0]
        at += 16
        if at + kept > len(data):
            return
        yield link, data[at : at + kept]
        at += kept


def _pcapng(data: bytes) -> Iterator[tuple[int, bytes]]:
    """As `frames`; every interface of a section has a link type of its own."""
    at, order = 0, "<"
    links: list[int] = []
    while at + 12 <= len(data):
        if data[at : at + 4] == PCAPNG_MAGIC:
            order = "<" if data[at + 8 : at + 12] == b"\x4d\x3c\x2b\x1a" else ">"
            links = []
        kind, nbytes = struct.unpack_from(order + "II", data, at)
        if nbytes < 12 or at + nbytes > len(data):
            return
        body = data[at + 8 : at + nbytes - 4]
        at += nbytes + -nbytes % 4
        interface, kept, start = 0, 0, 0
        if kind == INTERFACE and len(body) >= 8:
            links.append(struct.unpack_from(order + "H", body)[0])
        elif kind == ENHANCED_PACKET and len(body) >= 20:
            interface, kept, start = *struct.unpack_from(order + "I8xI", body), 20
        elif kind == PACKET and len(body) >= 20:
            interface, kept, start = *struct.unpack_from(order + "H10xI", body), 20
        elif kind == SIMPLE_PACKET and len(body) >= 4:
            kept, start = min(struct.unpack_from(order + "I", body)[0], len(body) - 4), 4
        if start and interface < len(links) and start + kept <= len(body):
            yield links[interface], body[start : start + kept]


def packet(dpkt: Any, link: int, frame: bytes) -> Any:
    """The IP or IPv6 packet in a frame; None where there is none.

    Raises:
        UnknownLinkError: `link` is not one of READ. dpkt.Error: the packet is cut off or damaged.
    """
    if link == ETHERNET:
        return _typed(dpkt, frame[12:14], frame[14:])
    if link == SLL:
        return _typed(dpkt, frame[14:16], frame[16:])
    if link == SLL2:
        return _typed(dpkt, frame[:2], frame[20:])
    if link in {NULL, LOOP}:  # a number of the address family, which is not the same on every system
        return _ip(dpkt, frame[4:])
    if link in RAW:
        return _ip(dpkt, frame)
    raise UnknownLinkError


def _typed(dpkt: Any, kind: bytes, payload: bytes) -> Any:
    number = int.from_bytes(kind, "big")
    while number in VLAN:
        number, payload = int.from_bytes(payload[2:4], "big"), payload[4:]
    if number == PPPOE:
        number, payload = int.from_bytes(payload[6:8], "big"), payload[8:]
    return _ip(dpkt, payload) if number in IPV4 | IPV6 else None


def _ip(dpkt: Any, payload: bytes) -> Any:
    version = payload[0] >> 4 if payload else 0
    if version not in {4, 6}:
        return None
    return (dpkt.ip.IP if version == 4 else dpkt.ip6.IP6)(payload)


def link_name(dpkt: Any, link: int) -> str:
    """The number of a link type, and its name where dpkt knows one."""
    names = sorted(name for name, value in vars(dpkt.pcap).items() if name.startswith("DLT_") and value == link)
    return f"{link} ({names[0].removeprefix('DLT_')})" if names else str(link)
