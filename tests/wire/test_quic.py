"""ClientHello out of QUIC Initial packets; RFC 9001 appendix A and RFC 9369 appendix A are the outside truth."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hellos
from gobanfast._core.client_hello import parse_handshake
from gobanfast.wire import quic

pytest.importorskip("cryptography", reason="the cryptography package is not installed")

DESTINATION = bytes.fromhex("8394c8f03e515708")  # the connection id of the examples in both documents
NAMES = {1: 1, 2: 0x6B3343CF}
MESSAGE = hellos.message([hellos.server_name(b"quic.example"), hellos.alpn(b"h3"), hellos.versions(0x0304)])


def varint(value):
    if value < 64:
        return bytes([value])
    return (value | 0x4000).to_bytes(2, "big") if value < 1 << 14 else (value | 0x8000_0000).to_bytes(4, "big")


def crypto(offset, data):
    return b"\x06" + varint(offset) + varint(len(data)) + data


def seal(frames, *, number=2, number_bytes=4, name=1, token=b"", keys_from=DESTINATION, destination=DESTINATION):
    """One protected Initial packet that holds `frames`."""
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.ciphers.algorithms import AES
    from cryptography.hazmat.primitives.ciphers.modes import ECB

    version = quic.VERSIONS[NAMES[name]]
    keys = quic.client_keys(version, keys_from)
    frames = frames.ljust(20, b"\0")
    first = 0xC0 | version.initial_type << 4 | number_bytes - 1
    header = bytes([first]) + NAMES[name].to_bytes(4, "big") + hellos.prefixed(destination, 1) + b"\0"
    header += varint(len(token)) + token + varint(number_bytes + len(frames) + 16)
    shown = number.to_bytes(number_bytes, "big")
    nonce = (int.from_bytes(keys.iv, "big") ^ number).to_bytes(12, "big")
    sealed = AESGCM(keys.key).encrypt(nonce, frames, header + shown)
    mask = Cipher(AES(keys.header), ECB()).encryptor().update((shown + sealed)[4:20])  # noqa: S305 - RFC 9001
    hidden = bytes(byte ^ mask[1 + i] for i, byte in enumerate(shown))
    return bytes([first ^ mask[0] & 0x0F]) + header[1:] + hidden + sealed


@pytest.mark.parametrize(
    ("name", "key", "iv", "header"),
    [
        (1, "1f369613dd76d5467730efcbe3b1a22d", "fa044b2f42a3fd3b46fb255c", "9f50449e04a0e810283a1e9933adedd2"),
        (2, "8b1a0bc121284290a29e0971b5cd045d", "91f73e2351d8fa91660e909f", "45b95e15235d6f45a6b19cbcb0294ba9"),
    ],
)
def test_keys_are_the_published_ones(name, key, iv, header):
    """The client's Initial keys for the connection id of the RFCs' examples are those of their appendix A.1."""
    expected = quic.Keys(bytes.fromhex(key), bytes.fromhex(iv), bytes.fromhex(header))

    assert expected == quic.client_keys(quic.VERSIONS[NAMES[name]], DESTINATION)


RFC_9001_HELLO = bytes.fromhex(
    "010000ed0303ebf8fa56f12939b9584a3896472ec40bb863cfd3e86804fe3a47f06a2b69484c00000413011302010000c000000010000e"
    "00000b6578616d706c652e636f6dff01000100000a00080006001d0017001800100007000504616c706e00050005010000000000330026"
    "0024001d00209370b2c9caa47fbabaf4559fedba753de171fa71f50f1ce15d43e994ec74d748002b0003020304000d0010000e04030503"
    "06030203080408050806002d00020101001c00024001003900320408ffffffffffffffff05048000ffff07048000ffff08011001048000"
    "75300901100f088394c8f03e51570806048000ffff"
)


def test_example_packet_of_the_rfc():
    """The packet of RFC 9001 A.2, sealed here, begins as printed there and opens to the hello that is printed there."""
    packet = seal(crypto(0, RFC_9001_HELLO).ljust(1162, b"\0"))
    hello = quic.parse_quic_initials([packet])

    assert bytes.fromhex("c000000001088394c8f03e5157080000449e7b9aec34") == packet[:22]
    assert ("ok", "example.com", ("alpn",)) == (hello.status, hello.sni, hello.alpn)
    assert parse_handshake(RFC_9001_HELLO, quic=True).ja4 == hello.ja4


@pytest.mark.parametrize("name", [1, 2])
def test_one_packet(name):
    """A hello in one packet is read, as from the bare message, in either version."""
    expected = parse_handshake(MESSAGE, quic=True)
    hello = quic.parse_quic_initials([seal(crypto(0, MESSAGE), name=name)])

    assert ("ok", "quic.example", ("h3",)) == (hello.status, hello.sni, hello.alpn)
    assert ("q13d0203h3", expected.ja4) == (hello.ja4[:10], hello.ja4)


@given(data=st.data())
def test_any_order_of_any_pieces(data):
    """Cut into CRYPTO frames anywhere, overlapping, over packets and datagrams in any order, it is the same hello."""
    cuts = sorted(data.draw(st.sets(st.integers(1, len(MESSAGE) - 1), max_size=8)))
    edges = [0, *cuts, len(MESSAGE)]
    pieces = [(start, MESSAGE[start : end + data.draw(st.integers(0, 3))]) for start, end in pairwise(edges)]
    frames = [crypto(*piece) for piece in data.draw(st.permutations(pieces))]
    packets = [
        seal(b"\x01" + frame, number=i, number_bytes=data.draw(st.integers(1, 4))) for i, frame in enumerate(frames)
    ]
    pairs = [b"".join(packets[i : i + 2]) for i in range(0, len(packets), 2)]

    reader = quic.InitialReader()
    seen = [reader.feed(datagram) for datagram in pairs]

    assert parse_handshake(MESSAGE, quic=True).ja4 == seen[-1].ja4
    assert {"incomplete", "ok"} >= {hello.status for hello in seen}


def test_later_packets_keep_the_first_keys():
    """Once the server has answered, the client writes another connection id, but the keys stay those of the first."""
    reader = quic.InitialReader()
    first = reader.feed(seal(crypto(0, MESSAGE[:40])))
    second = reader.feed(seal(crypto(40, MESSAGE[40:]), number=3, destination=b"chosen"))

    assert ("incomplete", "ok", "quic.example") == (first.status, second.status, second.sni)


def test_after_a_retry_the_keys_are_new():
    """With the connection id of a Retry come new keys, and a token."""
    reader = quic.InitialReader()
    reader.feed(seal(crypto(0, MESSAGE[:40])))
    hello = reader.feed(seal(crypto(0, MESSAGE), token=b"t" * 70, destination=b"retried!", keys_from=b"retried!"))

    assert ("ok", "quic.example") == (hello.status, hello.sni)


def test_acknowledgements_and_other_packets_are_stepped_over():
    """ACK frames, with and without ECN counts, and a 0-RTT packet in front do not hide the hello."""
    acknowledgements = b"\x02\x05\0\x01\0\0\0" + b"\x03\x05\0\0\0\x01\x02\x03"
    early = b"\xd0\0\0\0\x01\x01A\x01B" + varint(30) + bytes(30)
    hello = quic.parse_quic_initials([early + seal(acknowledgements + crypto(0, MESSAGE))])

    assert ("ok", "quic.example") == (hello.status, hello.sni)


@pytest.mark.parametrize("data", [b"", b"\x16\x03\x01\0\x05", b"\x40" + bytes(30), b"\xc0\xfa\xce\xb0\x0c" + bytes(40)])
def test_what_is_not_quic(data):
    """Datagrams without an Initial packet of a known version are not TLS."""
    assert "not-tls" == quic.parse_quic_initials([data]).status


@given(data=st.data())
def test_damage_never_raises(data):
    """A cut or flipped datagram gives an object; the hello shows only if every byte of it was sealed."""
    packet = bytearray(seal(crypto(0, MESSAGE)))
    packet[data.draw(st.integers(0, len(packet) - 1))] ^= data.draw(st.integers(1, 255))
    hello = quic.parse_quic_initials([bytes(packet[: data.draw(st.integers(0, len(packet)))])])

    assert hello.status in {"incomplete", "not-tls"}
    assert hello.sni is None


def test_memory_is_bounded():
    """Bytes far out in the stream, and more pieces than any client sends, are not kept."""
    reader = quic.InitialReader()
    reader.feed(seal(crypto(quic.STREAM_LIMIT, b"x")))
    for number in range(200):
        reader.feed(seal(b"".join(crypto(100 + 3 * i + 60 * number, b"x") for i in range(20)), number=number))

    assert len(reader._pieces) <= quic.PIECES_LIMIT
    assert "incomplete" == reader.feed(seal(crypto(0, MESSAGE))).status  # its datagrams are used up
