"""ClientHello extraction from QUIC Initial packets (RFC 9000, 9001, 9369), versions 1 and 2.

Initial packets are encrypted, but with keys that anyone on the path can derive from the packet itself. Needs the
`cryptography` package: `pip install gobanfast[quic]`.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass

from gobanfast._core.client_hello import ClientHello, parse_client_hello, parse_handshake

SALT_1 = bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a")
SALT_2 = bytes.fromhex("0dede3def700a6db819381be6e269dcbf9bd2ed9")
STREAM_LIMIT = 65536 + 4
PIECES_LIMIT = 1024
DATAGRAMS_LIMIT = 64


@dataclass(frozen=True, slots=True)
class Version:
    """What differs between the two versions of QUIC as far as a client's Initial packets go."""

    salt: bytes
    labels: str
    initial_type: int


VERSIONS = {1: Version(SALT_1, "quic", 0), 0x6B3343CF: Version(SALT_2, "quicv2", 1)}


@dataclass(frozen=True, slots=True)
class Keys:
    """What protects the Initial packets of a client."""

    key: bytes
    iv: bytes
    header: bytes


@dataclass(frozen=True, slots=True)
class Initial:
    """One Initial packet, still protected: its place in the datagram, and what its header says in clear."""

    version: Version
    destination: bytes
    start: int
    number_at: int
    end: int


class TruncatedError(Exception):
    """A packet or frame ends before a field does."""


class Cursor:
    """Reads fields off a buffer; raises TruncatedError where it ends."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data, self.at = data, at

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        piece = self.data[self.at : self.at + count]
        if len(piece) != count:
            raise TruncatedError
        self.at += count
        return piece

    def number(self, count: int) -> int:
        """The next `count` bytes as an unsigned integer."""
        return int.from_bytes(self.take(count), "big")

    def varint(self) -> int:
        """The next variable-length integer (RFC 9000 section 16)."""
        first = self.number(1)
        value = first & 0x3F
        for byte in self.take((1 << (first >> 6)) - 1):
            value = value << 8 | byte
        return value


def expand_label(secret: bytes, label: str, count: int) -> bytes:
    """HKDF-Expand-Label of TLS 1.3 (RFC 8446 section 7.1) with SHA-256 and an empty context, for up to 32 bytes."""
    name = b"tls13 " + label.encode()
    info = count.to_bytes(2, "big") + bytes([len(name)]) + name + b"\0"
    return hmac.digest(secret, info + b"\x01", hashlib.sha256)[:count]


def client_keys(version: Version, destination: bytes) -> Keys:
    """Keys of the client's Initial packets, from the connection id it first sent to (RFC 9001 section 5.2)."""
    initial = hmac.digest(version.salt, destination, hashlib.sha256)
    secret = expand_label(initial, "client in", 32)
    return Keys(
        key=expand_label(secret, f"{version.labels} key", 16),
        iv=expand_label(secret, f"{version.labels} iv", 12),
        header=expand_label(secret, f"{version.labels} hp", 16),
    )


def initials(datagram: bytes) -> list[Initial]:
    """The Initial packets in a datagram; whatever else it carries is stepped over or ends the list."""
    found = []
    cursor = Cursor(datagram)
    try:
        while cursor.at < len(datagram):
            start = cursor.at
            first = cursor.number(1)
            version = VERSIONS.get(cursor.number(4)) if first & 0xC0 == 0xC0 else None
            if version is None:
                break
            kind = first >> 4 & 3
            destination = cursor.take(cursor.number(1))
            cursor.take(cursor.number(1))
            if kind == version.initial_type:
                cursor.take(cursor.varint())
            elif (kind - version.initial_type) % 4 == 3:  # Retry: no length, always alone
                break
            length = cursor.varint()
            number_at = cursor.at
            cursor.take(length)
            if kind == version.initial_type:
                found.append(Initial(version, destination, start, number_at, cursor.at))
    except TruncatedError:
        pass
    return found


def open_packet(datagram: bytes, packet: Initial, keys: Keys) -> bytes | None:
    """Frames of a packet, or None if the keys do not fit."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.ciphers.algorithms import AES
    from cryptography.hazmat.primitives.ciphers.modes import ECB

    sample = datagram[packet.number_at + 4 : packet.number_at + 20]
    if packet.number_at + 20 > packet.end:
        return None
    mask = Cipher(AES(keys.header), ECB()).encryptor().update(sample)  # noqa: S305 - RFC 9001 section 5.4.3
    first = datagram[packet.start] ^ mask[0] & 0x0F
    number_bytes = (first & 3) + 1
    payload_at = packet.number_at + number_bytes
    number = bytes(byte ^ mask[1 + i] for i, byte in enumerate(datagram[packet.number_at : payload_at]))
    header = bytes([first]) + datagram[packet.start + 1 : packet.number_at] + number
    nonce = int.from_bytes(keys.iv, "big") ^ int.from_bytes(number, "big")
    try:
        return AESGCM(keys.key).decrypt(nonce.to_bytes(12, "big"), datagram[payload_at : packet.end], header)
    except InvalidTag:
        return None


def crypto_pieces(frames: bytes) -> list[tuple[int, bytes]]:
    """(offset, bytes) of the CRYPTO frames; reading stops at a frame that has no business in an Initial packet."""
    pieces = []
    cursor = Cursor(frames)
    try:
        while cursor.at < len(frames):
            kind = cursor.varint()
            if kind == 6:
                offset = cursor.varint()
                pieces.append((offset, cursor.take(cursor.varint())))
            elif kind in (2, 3):  # ACK: largest, delay, range count, first range, then pairs; three counts with ECN
                cursor.varint(), cursor.varint()
                for _ in range(2 * cursor.varint() + 1 + 3 * (kind - 2)):
                    cursor.varint()
            elif kind > 1:
                break
    except TruncatedError:
        pass
    return pieces


class InitialReader:
    """Collects the ClientHello of one QUIC connection from its datagrams, in any order. Not for concurrent use.

    Memory is bounded: offsets beyond 64 KB, more than 1024 pieces and more than 64 datagrams are ignored.
    """

    def __init__(self) -> None:
        self._pieces: dict[int, bytes] = {}
        self._keys: Keys | None = None
        self._datagrams = 0

    def feed(self, datagram: bytes, /) -> ClientHello:
        """ClientHello as far as known with this datagram: "incomplete" until its last byte is in.

        A first datagram without a QUIC Initial packet gives status "not-tls"; a later one is ignored.

        Raises:
            ImportError: the `cryptography` package is missing.
        """
        packets = initials(datagram)
        if not packets and self._keys is None:
            return parse_client_hello(b"\0")
        self._datagrams += 1
        if self._datagrams <= DATAGRAMS_LIMIT:
            for packet in packets:
                self._read(datagram, packet)
        return parse_handshake(self._stream(), quic=True)

    def _read(self, datagram: bytes, packet: Initial) -> None:
        # The keys stay those of the first connection id, though the server soon chooses another; after a Retry they
        # are derived anew.
        fresh = client_keys(packet.version, packet.destination)
        for keys in (self._keys, fresh):
            frames = open_packet(datagram, packet, keys) if keys is not None else None
            if frames is not None:
                self._keys = keys
                break
        else:
            return
        for offset, piece in crypto_pieces(frames):
            longer = len(piece) > len(self._pieces.get(offset, b""))
            if longer and offset + len(piece) <= STREAM_LIMIT and len(self._pieces) < PIECES_LIMIT:
                self._pieces[offset] = piece

    def _stream(self) -> bytes:
        stream = bytearray()
        for offset, piece in sorted(self._pieces.items()):
            if offset > len(stream):
                break
            stream += piece[len(stream) - offset :]
        return bytes(stream)


def parse_quic_initials(datagrams: Iterable[bytes], /) -> ClientHello:
    """ClientHello from the datagrams of one client; see `InitialReader.feed`."""
    reader = InitialReader()
    hello = parse_client_hello(b"")
    for datagram in datagrams:
        hello = reader.feed(datagram)
        if hello.status == "ok":
            break
    return hello
