"""PROXY headers: what comes out is what went in, bad bytes get a status, and another reader agrees."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gobanfast.wire.proxy import V1_LIMIT, V2_LIMIT, crc32c, parse_proxy_header
from oracle import proxy as oracle

ports = st.integers(0, 0xFFFF)
pairs = st.one_of(
    st.tuples(st.ip_addresses(v=4).map(str), st.ip_addresses(v=4).map(str)),
    st.tuples(*[st.ip_addresses(v=6).filter(lambda address: address.ipv4_mapped is None).map(str)] * 2),
)
# Kinds nobody gives a meaning to: they may repeat and hold anything.
tlvs = st.lists(st.tuples(st.sampled_from([0x04, 0xE0, 0xEF]), st.binary(max_size=40)), max_size=6)


def seen(header):
    addresses = (ipaddress.ip_address(header.source), ipaddress.ip_address(header.destination))
    return header.status, *addresses, header.source_port, header.destination_port, header.nbytes


@given(pair=pairs, source_port=ports, destination_port=ports, rest=st.binary(max_size=20))
def test_version_1_round_trip(pair, source_port, destination_port, rest):
    """Addresses and ports are those written; bytes behind the header are not part of it."""
    data = oracle.v1(*pair, source_port, destination_port)
    expected = ("ok", *map(ipaddress.ip_address, pair), source_port, destination_port, len(data))

    assert expected == seen(parse_proxy_header(data + rest))


@given(
    pair=pairs,
    source_port=ports,
    destination_port=ports,
    extra=tlvs,
    checksum=st.booleans(),
    rest=st.binary(max_size=20),
)
def test_version_2_round_trip(pair, source_port, destination_port, extra, checksum, rest):
    """Addresses, ports and TLVs are those written, with a checksum or without."""
    data = oracle.v2(*pair, source_port, destination_port, extra, checksum=checksum)
    expected = ("ok", *map(ipaddress.ip_address, pair), source_port, destination_port, len(data))
    header = parse_proxy_header(data + rest)

    assert expected == seen(header)
    assert extra == [item for item in header.tlvs if item[0] != 3]
    assert header.version == 2


@given(pair=pairs, version=st.sampled_from([1, 2]), extra=tlvs, cut=st.floats(0, 1, exclude_max=True))
def test_a_front_part_is_incomplete(pair, version, extra, cut):
    """Every front part of a header is incomplete and asks for no more bytes than are missing."""
    data = oracle.v1(*pair, 1, 2) if version == 1 else oracle.v2(*pair, 1, 2, extra)
    front = data[: int(cut * len(data))]
    header = parse_proxy_header(front)

    assert header.status == "incomplete"
    assert 1 <= header.need <= len(data) - len(front)


@given(data=st.binary(max_size=300))
@pytest.mark.parametrize("start", [b"", b"PROXY ", b"PROXY TCP4 ", oracle.SIGNATURE, oracle.SIGNATURE + b"\x21\x11"])
def test_any_bytes_get_a_status(start, data):
    """No bytes raise; a header that is ok lies within them."""
    header = parse_proxy_header(start + data)

    assert header.status in {"ok", "incomplete", "malformed", "absent"}
    assert header.nbytes <= len(start + data)
    assert (header.need > 0) == (header.status == "incomplete")
    assert (header.problem is not None) == (header.status == "malformed")
    assert header.ssl is None or isinstance(header.ssl.tls, bool)


@given(data=st.binary(max_size=200))
def test_crc32c_equals_long_division(data):
    """The table gives what dividing bit by bit gives, and RFC 3720's check value."""
    assert oracle.crc32c(data) == crc32c(data)
    assert crc32c(b"123456789") == 0xE3069283


@given(pair=pairs, extra=tlvs, version=st.sampled_from([1, 2]))
def test_another_reader_agrees(pair, extra, version):
    """The `proxy-protocol` package reads the same addresses."""
    v1, v2 = pytest.importorskip("proxyprotocol.v1"), pytest.importorskip("proxyprotocol.v2")
    data = oracle.v1(*pair, 1000, 2000) if version == 1 else oracle.v2(*pair, 1000, 2000, extra)
    peer = (v1.ProxyProtocolV1() if version == 1 else v2.ProxyProtocolV2()).unpack(data)
    ours = parse_proxy_header(data)

    assert (str(peer.source[0]), peer.source[1]) == (str(ipaddress.ip_address(ours.source)), ours.source_port)
    assert (str(peer.dest[0]), peer.dest[1]) == (str(ipaddress.ip_address(ours.destination)), ours.destination_port)


def v2(body: bytes, *, command: int = 0x21, family: int = 0x11) -> bytes:
    return oracle.SIGNATURE + bytes([command, family]) + len(body).to_bytes(2, "big") + body


FOUR = bytes(12)
MALFORMED = {
    "no such family": b"PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n",
    "families differ": b"PROXY TCP4 ::1 1.2.3.4 1 2\r\n",
    "IPv4 as TCP6": b"PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
    "zone": b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
    "two spaces": b"PROXY  TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
    "word missing": b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
    "leading zero": b"PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n",
    "port": b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n",
    "port sign": b"PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n",
    "address": b"PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n",
    "not ASCII": b"PROXY TCP4 1.2.3.\xb2 1.2.3.4 1 2\r\n",
    "line feed alone": b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n" + bytes(100),
    "endless": b"PROXY UNKNOWN " + b"x" * V1_LIMIT,
    "version": v2(FOUR, command=0x11),
    "command": v2(FOUR, command=0x22),
    "family": v2(FOUR, family=0x41),
    "transport": v2(FOUR, family=0x13),
    "short addresses": v2(FOUR[:-1]),
    "short IPv6": v2(FOUR, family=0x21),
    "TLV head cut": v2(FOUR + b"\x02\x00"),
    "TLV cut": v2(FOUR + b"\x02\x00\x05abcd"),
    "two authorities": v2(FOUR + oracle.tlv(2, b"a") + oracle.tlv(2, b"b")),
    "TLS too short": v2(FOUR + oracle.tlv(0x20, b"abcd")),
    "TLS cut": v2(FOUR + oracle.tlv(0x20, bytes(5) + b"\x21\x00\x09x")),
    "CRC length": v2(FOUR + oracle.tlv(3, b"abc")),
    "CRC": v2(FOUR + oracle.tlv(3, b"abcd")),
    "over the limit": v2(FOUR + oracle.tlv(4, bytes(V2_LIMIT))),
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED)
def test_malformed(data):
    """What breaks the format is malformed, with words, and is known to be meant as a header."""
    header = parse_proxy_header(data)

    assert header.status == "malformed"
    assert header.problem
    assert header.version


def test_the_limit_needs_no_body():
    """A header that announces too much is refused at its 16th byte."""
    assert parse_proxy_header(v2(bytes(5000))[:16]).status == "malformed"
    assert parse_proxy_header(v2(bytes(5000))[:16], limit=6000).status == "incomplete"


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\x02\x00", b"proxy tcp4", b"\r\n\r\nX"])
def test_other_protocols_have_no_header(data):
    """Bytes that begin otherwise are no header at all."""
    assert parse_proxy_header(data).status == "absent"


@pytest.mark.parametrize(
    ("data", "local", "family"),
    [
        (b"PROXY UNKNOWN\r\n", False, "unspecified"),
        (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", False, "unspecified"),
        (v2(b"", command=0x20, family=0), True, "unspecified"),
        (v2(b"whatever", command=0x20, family=0xFF), True, "unspecified"),
        (v2(b"junk", family=0), False, "unspecified"),
        (v2(bytes(216), family=0x31), False, "unix"),
    ],
)
def test_headers_without_an_address(data, local, family):
    """A proxy that does not say who the client is gives no address."""
    header = parse_proxy_header(data)

    assert ("ok", len(data), local, family) == (header.status, header.nbytes, header.local, header.family)
    assert header.source is header.source_port is header.destination is None


def test_tlvs_that_mean_something():
    """Authority, ALPN, unique id and the client's TLS are read out."""
    tls = bytes([0b101]) + bytes(4) + oracle.tlv(0x21, b"TLSv1.3") + oracle.tlv(0x22, b"me") + oracle.tlv(0x23, b"AES")
    extra = [(1, b"h2"), (2, b"api.example.com"), (5, b"id"), (0x20, tls)]
    header = parse_proxy_header(oracle.v2("192.0.2.1", "192.0.2.2", 1, 2, extra, checksum=True))

    assert ("api.example.com", b"h2", b"id") == (header.authority, header.alpn, header.unique_id)
    assert (True, True, True) == (header.ssl.tls, header.ssl.client_certificate, header.ssl.verified)
    assert ("TLSv1.3", "AES", "me") == (header.ssl.version, header.ssl.cipher, header.ssl.common_name)
