"""`gobanfast hello`: parse TLS ClientHellos."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gobanfast._errors import GobanError
from gobanfast.batch.unpack import PACKED
from gobanfast.cli import captures
from gobanfast.cli.common import AsJson, counted, output, table

if TYPE_CHECKING:
    from gobanfast._core.client_hello import ClientHello

HEX_CHARACTERS = frozenset(b"0123456789abcdefABCDEF \t\r\n:")
LIKE_HEX = re.compile(rb"\s*(?:0x)?16[\s:,]*(?:0x)?03[\s:,]*(?:0x)?0[0-4]", re.IGNORECASE)  # a handshake record
EXPECTED = "give the first bytes that a TLS client sends, binary or hex, or a capture (pcap, pcapng)"
FOREIGN = {
    b"\x89PNG": "a PNG image", b"\xff\xd8\xff": "a JPEG image", b"\x7fELF": "a program", b"MZ": "a Windows program",
    b"%PDF": "a PDF", b"SQLite format 3": "an SQLite database", b"\x30\x82": "DER, as of certificates and keys",
    b"-----BEGIN": "PEM, as of certificates and keys", b"snoop\0": "a snoop capture",
    b"\x89GBF": "a compiled table of gobanfast",
}  # fmt: skip
STREAM_LIMIT = 1 << 20  # bytes kept of one TCP stream
NUMBERS = ("versions", "ciphers", "extensions", "groups", "signature_algorithms")
SHOWN = (
    "status", "problem", "offset", "need", "nbytes", "sni", "sni_flags", "alpn", "version", *NUMBERS, "grease", "ech",
    "session_ticket", "psk", "early_data", "retry", "fragmented", "ja3", "ja4", "ja4_r",
)  # fmt: skip
Address = tuple[bytes, int, bytes, int]


def hello(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="First bytes of a connection, binary or hex, or a capture (pcap, pcapng). -: stdin."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Show what the ClientHello in FILE says, or each one in a capture. QUIC needs the extra quic, captures pcap."""
    from gobanfast._core.client_hello import parse_client_hello

    name = "<stdin>" if file == "-" else file
    data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    is_capture = captures.is_capture(data)
    if not is_capture:
        refuse_foreign(data, name)
        data = from_hex(data, name)
    found = list(captured(data)) if is_capture else [("", parse_client_hello(data))]
    for ends, parsed in found:
        if as_json:
            typer.echo(json.dumps({"connection": ends} | members(parsed)))
        else:
            rows = [(key, text(key, value)) for key, value in members(parsed).items() if value not in (None, [], False)]
            output().print(table("", ["client hello", ends or file], rows))
    if not found:
        hint = "capture from the first packets of a connection on, and whole packets (tcpdump -s 0)"
        typer.echo(f"{name}: no client hello in {len(data)} bytes of capture; {hint}", err=True)
    elif not is_capture and found[0][1].status == "not-tls":
        typer.echo(f"{name}: no client hello: {found[0][1].problem}; {EXPECTED}", err=True)
    if not found or any(parsed.status != "ok" for _, parsed in found):
        raise typer.Exit(1)


def members(parsed: ClientHello) -> dict[str, Any]:
    """The fields by name, ready for JSON."""
    values = {key: getattr(parsed, key) for key in SHOWN}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def text(key: str, value: Any) -> str:
    """A field as people read it: numbers of TLS registries in hex."""
    if key in NUMBERS:
        return " ".join(f"{number:04x}" for number in value)
    if key == "version":
        return f"{value:04x}"
    return " ".join(value) if isinstance(value, list) else str(value)


def refuse_foreign(data: bytes, name: str) -> None:
    """None if it may be the bytes of a connection; GobanError for an empty file and for what is of another kind."""
    if not data.strip():
        raise GobanError(f"{name}: it is empty; {EXPECTED}")
    for magic, packer in PACKED.items():
        if data.startswith(magic):
            raise GobanError(f"{name}: it is packed by {packer}; unpack it, and {EXPECTED}")
    for magic, what in FOREIGN.items():
        if data.startswith(magic):
            raise GobanError(f"{name}: it is {what}; {EXPECTED}")


def from_hex(data: bytes, name: str) -> bytes:
    """The bytes that `data` writes in hex; `data` itself if it holds anything else.

    Raises:
        GobanError: it begins as the hex of a TLS record does, and goes on otherwise.
    """
    if HEX_CHARACTERS.issuperset(data):
        with suppress(ValueError):
            return bytes.fromhex(data.decode().replace(":", ""))
    if LIKE_HEX.match(data):
        odd = next((char for char in data if char not in HEX_CHARACTERS), None)
        why = "it has an odd number of hex digits" if odd is None else f"{chr(odd)!r} is no hex digit"
        raise GobanError(f"{name}: {why}; write two digits for each byte, with blanks, colons or nothing between")
    return data


def captured(data: bytes) -> Iterator[tuple[str, ClientHello]]:
    """Each ClientHello in a capture, with the ends of its connection; one that never got whole is "incomplete"."""
    from gobanfast._core.client_hello import parse_client_hello
    from gobanfast.wire.quic import InitialReader

    streams: dict[Address, dict[int, bytes]] = {}
    datagrams: dict[Address, InitialReader] = {}
    latest: dict[Address, ClientHello] = {}
    for key, protocol, sequence, payload in transports(data):
        if key in latest and latest[key].status != "incomplete":
            continue
        if protocol == "tcp":
            pieces = streams.setdefault(key, {})
            pieces.setdefault(sequence, payload)
            latest[key] = parse_client_hello(joined(pieces))
        else:
            latest[key] = datagrams.setdefault(key, InitialReader()).feed(payload)
    for key, parsed in latest.items():
        if parsed.status in {"ok", "incomplete"} and (parsed.status == "ok" or key in streams):
            yield connection_text(key), parsed


def joined(pieces: dict[int, bytes]) -> bytes:
    """The stream from its lowest sequence number on, as far as it has no gap. Numbers that wrap are not followed."""
    start = min(pieces)
    stream = bytearray()
    for sequence, piece in sorted(pieces.items()):
        at = sequence - start
        if at > len(stream) or at > STREAM_LIMIT:
            break
        stream += piece[len(stream) - at :]
    return bytes(stream)


def connection_text(key: Address) -> str:
    """The two ends of a connection."""
    from ipaddress import ip_address

    source, source_port, destination, destination_port = key
    return f"{ip_address(source)} {source_port} > {ip_address(destination)} {destination_port}"


def transports(data: bytes) -> Iterator[tuple[Address, str, int, bytes]]:
    """(ends, "tcp" or "udp", sequence number, payload) of each packet in a capture that carries any payload."""
    try:
        import dpkt
    except ImportError:
        raise typer.BadParameter("captures need dpkt: pip install gobanfast[pcap]") from None

    unread: Counter[int] = Counter()
    for link, frame in captures.frames(data):
        try:
            packet = captures.packet(dpkt, link, frame)
        except captures.UnknownLinkError:
            unread[link] += 1
            continue
        except dpkt.Error:
            continue
        body = getattr(packet, "data", None)
        if isinstance(body, dpkt.tcp.TCP | dpkt.udp.UDP) and body.data:
            key = (packet.src, body.sport, packet.dst, body.dport)
            is_tcp = isinstance(body, dpkt.tcp.TCP)
            yield key, "tcp" if is_tcp else "udp", body.seq if is_tcp else 0, bytes(body.data)
    for link, packets in unread.items():
        name = captures.link_name(dpkt, link)
        typer.echo(f"{counted(packets, 'packet')} of link type {name} not read; read are {captures.READ}", err=True)
