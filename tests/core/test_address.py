"""Text to address and back, compared with the standard library."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gobanfast._core.address import format_address, parse_address, parse_prefix, parse_prefixes
from gobanfast._core.block import cpu_levels
from gobanfast._core.name_table import NameTable
from gobanfast._core.prefix_set import PrefixSet
from gobanfast._core.prefix_table import PrefixTable
from oracle import prefix as oracle
from strategies import addresses, networks

LEVELS = cpu_levels()
EVERYTHING = [("0.0.0.0/0", 4), ("::/0", 6)]

# Pieces that real and broken address texts are made of.
PIECES = st.sampled_from(
    [
        *"0123456789abcdefABCDEF:.%/ ",
        "::",
        "255",
        "256",
        "00",
        "ffff",
        "1.2.3.4",
        "2001",
        "db8",
        "eth0",
        "x",
        "\x00",
        "é",
    ]
)
TEXTS = st.lists(PIECES, max_size=14).map("".join)


def expected_packed(text: str) -> bytes | None:
    """What the standard library makes of `text`, as 16 bytes; None when it refuses it."""
    try:
        address = oracle.canonical(ipaddress.ip_address(text))
    except ValueError:
        return None
    number = int(address) | 0xFFFF << 32 if address.version == 4 else int(address)
    return number.to_bytes(16)


@given(text=TEXTS)
@example("1.2.3.4").via("plain")
@example("01.2.3.4").via("octal")
@example("1.2.3").via("short form")
@example("1.2.3.4 ").via("space")
@example("::ffff:1.2.3.4").via("mapped")
@example("1:2:3:4:5:6:7::").via("gap of one group")
@example("1:2:3:4:5:6:7:8::").via("gap of none")
@example(":1::").via("one colon first")
@example("1:::2").via("three colons")
@example("::1.2.3.4:5").via("dotted in the middle")
@example("1:2:3:4:5:6:7:1.2.3.4").via("dotted too late")
@example("fe80::1%eth0").via("zone")
@example("fe80::1%").via("empty zone")
@example("1.2.3.4%eth0").via("zone on IPv4")
@example("").via("empty")
def test_parse_equals_standard_library(text: str) -> None:
    """An address text is what `ipaddress` says it is, IPv4-mapped ones being IPv4 and zone ids dropped."""
    expected = expected_packed(text)

    assert expected == parse_address(text)


@pytest.mark.parametrize("level", LEVELS)
def test_every_kernel_parses_alike(level: str) -> None:
    """Each kernel's parser accepts what the reference parser accepts: the family of the match shows it."""
    table = PrefixTable(EVERYTHING, kernel=level)

    @given(text=TEXTS | addresses().map(str) | addresses().map(lambda address: address.exploded))
    def check(text: str) -> None:
        packed = expected_packed(text)
        expected = None if packed is None else 4 if packed[:12] == b"\0" * 10 + b"\xff\xff" else 6

        assert expected == table.lookup(text)

    check()


@pytest.mark.parametrize("level", LEVELS)
def test_every_mutation_of_an_address_is_judged_alike(level: str) -> None:
    """One changed, dropped or doubled character: kernels and standard library agree, and so do the values."""
    seeds = [
        "1.2.3.4",
        "255.255.255.255",
        "10.20.30.40",
        "::",
        "::1",
        "1::",
        "2001:db8::8a2e:370:7334",
        "fe80::1%a",
        "::ffff:192.0.2.128",
        "2001:0db8:85a3:0000:0000:8a2e:0370:7334",
        "1:2:3:4:5:6:7:8",
        "a:b:c:d:e:f:1:2",
    ]
    texts = set(seeds)
    for seed in seeds:
        for i in range(len(seed)):
            texts.add(seed[:i] + seed[i + 1 :])
            texts.add(seed[:i] + seed[i] + seed[i:])
            texts.update(seed[:i] + chr(code) + seed[i + 1 :] for code in range(128))
    parsed = {text: packed for text in sorted(texts) if (packed := expected_packed(text)) is not None}
    rows = b"".join(i.to_bytes(4, "little") for i in range(len(parsed)))
    exact = PrefixTable.from_packed(b"".join(parsed.values()), bytes([128]) * len(parsed), rows, kernel=level)
    first = {packed: i for i, packed in enumerate(parsed.values())}

    for text in texts:
        packed = expected_packed(text)
        expected = None if packed is None else first[packed]
        assert expected == exact.lookup(text), text


@given(address=addresses())
def test_format_is_rfc_5952(address: oracle.Address) -> None:
    """Text out is the standard library's (RFC 5952), with dotted quads for mapped addresses."""
    expected = str(oracle.canonical(address))
    packed = parse_address(address.exploded)

    assert packed is not None
    assert expected == format_address(packed)


def test_format_wants_sixteen_bytes() -> None:
    """Anything but 16 bytes is a misuse."""
    with pytest.raises(ValueError, match="a packed address has 16 bytes, not 4"):
        format_address(b"\x01\x02\x03\x04")


@given(net=networks())
def test_prefix_round_trip(net: oracle.Network) -> None:
    """A prefix text gives its masked address and its bits, IPv4 counted from 96."""
    number = int(net.network_address) | (0xFFFF << 32 if net.version == 4 else 0)
    expected = number.to_bytes(16), net.prefixlen + (96 if net.version == 4 else 0)

    assert expected == parse_prefix(str(net))


PREFIX_ERRORS = [
    ("10.0.0.1/8", "prefix '10.0.0.1/8' has host bits set; write 10.0.0.0/8"),
    ("2001:db8::1/32", "prefix '2001:db8::1/32' has host bits set; write 2001:db8::/32"),
    ("10.0.0.0/33", "prefix '10.0.0.0/33' has a bad length; IPv4 has 0..32 bits, IPv6 0..128"),
    ("::/129", "prefix '::/129' has a bad length; IPv4 has 0..32 bits, IPv6 0..128"),
    ("10.0.0.0/08", "prefix '10.0.0.0/08' has a bad length; IPv4 has 0..32 bits, IPv6 0..128"),
    ("10.0.0.0/", "prefix '10.0.0.0/' has a bad length; IPv4 has 0..32 bits, IPv6 0..128"),
    ("10.0.0/8", "prefix '10.0.0/8' has no IPv4 or IPv6 address; write it like 192.0.2.0/24 or 2001:db8::/32"),
    (
        "fe80::%eth0/64",
        "prefix 'fe80::%eth0/64' has no IPv4 or IPv6 address; write it like 192.0.2.0/24 or 2001:db8::/32",
    ),
    ("", "prefix '' has no IPv4 or IPv6 address; write it like 192.0.2.0/24 or 2001:db8::/32"),
    ("ü", "prefix 'ü' has no IPv4 or IPv6 address; write it like 192.0.2.0/24 or 2001:db8::/32"),
]


@pytest.mark.parametrize(("text", "message"), PREFIX_ERRORS)
def test_bad_prefix_says_what_to_write(text: str, message: str) -> None:
    """A prefix that cannot be used is refused with its text and a hint."""
    with pytest.raises(ValueError, match=r"^prefix ") as caught:
        parse_prefix(text)

    assert message == str(caught.value)


def test_list_of_prefixes_reports_every_bad_one() -> None:
    """The bulk form keeps the good ones in order and names all bad ones by index."""
    texts = ["192.0.2.0/24", *(text for text, _ in PREFIX_ERRORS), "2001:db8::/32", "::ffff:10.0.0.0/104"]

    packed, bits, problems = parse_prefixes(texts)

    assert [(i + 1, message) for i, (_, message) in enumerate(PREFIX_ERRORS)] == problems
    assert bytes([120, 32, 104]) == bits
    assert ["192.0.2.0", "2001:db8::", "10.0.0.0"] == [format_address(packed[i : i + 16]) for i in (0, 16, 32)]


@pytest.mark.parametrize(
    "build",
    [
        lambda: parse_prefixes(["10.0.0.0/8", None]),
        lambda: PrefixSet(["10.0.0.0/8", None]),
        lambda: PrefixTable([("10.0.0.0/8", 1), (None, 2)]),
        lambda: NameTable([("a.example", 1), (None, 2)]),
    ],
    ids=["parse_prefixes", "PrefixSet", "PrefixTable", "NameTable"],
)
def test_none_is_no_text(build) -> None:
    """None among texts is a TypeError with its index: Cython lets it pass for a str, whose bytes it has not."""
    with pytest.raises(TypeError, match="1: expected str, got NoneType"):
        build()
