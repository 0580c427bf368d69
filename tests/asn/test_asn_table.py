"""AsnTable whatever it was read from: lookups, names, ranges, files of its own, the starter table."""

from __future__ import annotations

import ipaddress
from array import array
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gobanfast import FormatError
from gobanfast.asn import AsnTable, read
from oracle import asn as oracle

ROWS = [
    ("0.0.0.0/0", 1), ("10.0.0.0/8", 2), ("10.1.0.0/16", 1), ("10.1.2.3/32", 4294967294), ("255.255.255.0/24", 3),
    ("2001:db8::/32", 5), ("2001:db8::/48", 6), ("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff/128", 7), ("ff00::/8", 8),
]  # fmt: skip
NAMES = {1: "One", 7: 'Seven, "7"', 64496: "Fundação"}


def packed(rows: list[tuple[str, int]]) -> tuple[bytes, bytes, array[int]]:
    networks = [ipaddress.ip_network(prefix) for prefix, _ in rows]
    addresses = b"".join(
        (b"" if network.version == 6 else b"\0" * 10 + b"\xff\xff") + network.network_address.packed
        for network in networks
    )
    lengths = bytes(network.prefixlen + (96 if network.version == 4 else 0) for network in networks)
    return addresses, lengths, array("I", [asn for _, asn in rows])


@pytest.fixture(scope="module")
def table() -> AsnTable:
    return AsnTable.from_arrays(*packed(ROWS), NAMES)


def test_lookup_equals_linear_scan(table: AsnTable) -> None:
    """At every edge of every prefix a table returns what scanning the rows would, and `in` says whether it does."""
    addresses = oracle.probes(prefix for prefix, _ in ROWS)
    expected = [oracle.lookup(ROWS, address) for address in addresses]

    assert expected == [table.lookup(address) for address in addresses]
    assert [asn is not None for asn in expected] == [address in table for address in addresses]
    assert len(ROWS) == len(table)


def test_text_that_is_no_address_has_no_as(table: AsnTable) -> None:
    """Junk is no match and no error."""
    assert [None] * 5 == [table.lookup(text) for text in ("", "10.0.0", "10.0.0.1/8", "x" * 10_000, "١.1.1.1")]


def test_lookup_many_equals_lookup(table: AsnTable) -> None:
    """A column of addresses answers like one address after the other, in each of its forms."""
    addresses = oracle.probes(prefix for prefix, _ in ROWS)
    expected = [0xFFFFFFFF if asn is None else asn for asn in map(table.lookup, addresses)]
    found = 0xFFFFFFFF - np.zeros(len(addresses), np.uint32)
    records = b"".join(
        (b"" if ":" in text else b"\0" * 10 + b"\xff\xff") + ipaddress.ip_address(text).packed for text in addresses
    )

    for form in (addresses, records):
        out = np.zeros(len(addresses), np.uint32)
        assert int((found != expected).sum()) == table.lookup_many(form, out)
        assert expected == out.tolist()
    numbers = np.array([int(ipaddress.IPv4Address(text)) for text in addresses if ":" not in text], np.uint32)
    out = np.zeros(len(numbers), np.uint32)
    table.lookup_many(numbers, out)
    assert [asn for asn, text in zip(expected, addresses, strict=True) if ":" not in text] == out.tolist()


def test_names(table: AsnTable) -> None:
    """Names are those given, None for others; `describe` always says something; `asns` lists both kinds."""
    assert NAMES == {asn: table.name(asn) for asn in NAMES}
    assert [None, None, None] == [table.name(0), table.name(2), table.name(0xFFFFFFFF)]
    assert ["AS1 One", "AS2"] == [table.describe(1), table.describe(2)]
    assert sorted({asn for _, asn in ROWS} | set(NAMES)) == table.asns().tolist()


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["10.0.0.0/8", "10.64.0.0/10", "10.64.0.0/16", "0.0.0.0/0", "255.255.255.255/32", "::/0"])
            | st.sampled_from(
                ["2001:db8::/32", "2001:db8::/33", "2001:db8::1/128", "::/96", "::fffe:0:0/96", "8000::/1"]
            ),
            st.integers(1, 3),
        )
    )
)
def test_ranges_cover_each_family_and_agree_with_lookup(rows: list[tuple[str, int]]) -> None:
    """Ranges start at zero, ascend, and give at their first and last address what a lookup there gives."""
    table = AsnTable.from_arrays(*packed(rows))
    starts4, asns4, starts6, asns6 = table.ranges()
    families = [
        (ipaddress.IPv4Address, starts4.tolist(), asns4.tolist(), 2**32),
        (ipaddress.IPv6Address, [int.from_bytes(row.tobytes()) for row in starts6], asns6.tolist(), 2**128),
    ]
    for kind, starts, asns, end in families:
        assert 0 == starts[0]
        assert sorted(set(starts)) == starts
        for start, last, asn in zip(starts, [after - 1 for after in [*starts[1:], end]], asns, strict=True):
            edges = [str(kind(number)) for number in (start, last)]
            expected = [
                oracle.lookup(rows, text) or 0 for text in edges if oracle.address_of(text).version == kind(0).version
            ]
            assert expected == [asn] * len(expected)


def test_arrays_that_do_not_fit_are_refused() -> None:
    """Buffers of different lengths, host bits and impossible lengths raise, saying where."""
    addresses, lengths, asns = packed(ROWS[:2])
    with pytest.raises(ValueError, match=r"2 lengths need 32 bytes of addresses and 8 of ASNs, not 16 and 8"):
        AsnTable.from_arrays(addresses[:16], lengths, asns)
    with pytest.raises(ValueError, match=r"item 1: prefix has host bits set"):
        AsnTable.from_arrays(addresses, bytes([96, 100]), asns)
    with pytest.raises(ValueError, match=r"item 0: prefix length is over 128"):
        AsnTable.from_arrays(addresses, bytes([129, 104]), asns)
    with pytest.raises(ValueError, match=r"item 1: value 4294967295"):
        AsnTable.from_arrays(addresses, lengths, array("I", [1, 0xFFFFFFFF]))


def test_empty_table_answers_none() -> None:
    """A table of nothing is a table."""
    table = AsnTable.from_arrays(b"", b"", b"")

    assert (None, 0, None, []) == (table.lookup("1.1.1.1"), len(table), table.name(1), table.asns().tolist())
    assert ([0], [0]) == (table.ranges()[0].tolist(), table.ranges()[1].tolist())


def test_save_and_load_give_the_same_table(table: AsnTable, tmp_path: Path) -> None:
    """A loaded table is the saved one: same bytes, same answers, and sound."""
    path = tmp_path / "table.gbf"
    table.save(path)
    loaded = AsnTable.load(path)

    assert path.stat().st_size == table.nbytes == loaded.nbytes
    assert table.content_hash == loaded.content_hash
    assert str(path) == loaded.source
    loaded.verify()
    addresses = oracle.probes(prefix for prefix, _ in ROWS)
    assert [table.lookup(text) for text in addresses] == [loaded.lookup(text) for text in addresses]
    assert NAMES == {asn: loaded.name(asn) for asn in NAMES}


def test_damaged_files_are_refused(table: AsnTable, tmp_path: Path) -> None:
    """A file that is cut anywhere or has any bit flipped is a FormatError that names it."""
    whole = tmp_path / "whole.gbf"
    table.save(whole)
    data = whole.read_bytes()
    path = tmp_path / "damaged.gbf"
    for cut in [*range(0, 200, 7), *range(200, len(data), 1013)]:
        path.write_bytes(data[:cut])
        with pytest.raises(FormatError, match=r"damaged.gbf: .* at offset"):
            AsnTable.load(path)
    for at in [*range(0, 512, 5), *range(512, len(data), 211), len(data) - 1]:
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
        with pytest.raises(FormatError, match=r"damaged.gbf: .* at offset"):
            AsnTable.load(path)


def test_damaged_files_never_crash_unverified(table: AsnTable, tmp_path: Path) -> None:
    """Without the hash check a damaged file is refused or gives some answer; it never reads outside the block."""
    whole = tmp_path / "whole.gbf"
    table.save(whole)
    data = bytearray(whole.read_bytes())
    path = tmp_path / "damaged.gbf"
    addresses = oracle.probes(prefix for prefix, _ in ROWS)
    outcomes = set()
    for at in [*range(24, 512, 3), *range(512, len(data), 97), *range(len(data) - 200, len(data))]:
        data[at] ^= 0xFF
        path.write_bytes(data)
        data[at] ^= 0xFF
        try:
            damaged = AsnTable.load(path, verify=False)
        except FormatError:
            outcomes.add("refused")
            continue
        outcomes.add("loaded")
        for text in addresses:
            damaged.lookup(text)
        for asn in (*NAMES, 2, 0xFFFFFFFF):
            damaged.name(asn)
        damaged.ranges()
    assert {"refused", "loaded"} == outcomes


def test_other_kinds_of_table_are_refused(tmp_path: Path) -> None:
    """A compiled prefix table is no AS table."""
    from gobanfast._core.prefix_table import PrefixTable

    PrefixTable([("10.0.0.0/8", 1)]).save(tmp_path / "prefixes.gbf")
    with pytest.raises(FormatError, match=r"prefixes.gbf: holds another kind of table"):
        AsnTable.load(tmp_path / "prefixes.gbf")


def test_starter_knows_the_well_known() -> None:
    """The shipped table names the networks its source file lists, each by its own row, and is built once."""
    table = AsnTable.starter()
    lines = (Path(read.__code__.co_filename).with_name("starter.csv")).read_text("utf-8").splitlines()
    rows = [line.split(",") for line in lines if line[0] not in "#p"]

    assert 400 <= len(rows) == len(table)
    assert [(int(asn), name) for _, asn, name in rows] == [
        (table.lookup(prefix.split("/")[0]), table.name(int(asn))) for prefix, asn, name in rows
    ]
    assert [13335, 15169, 19281, 36692] == [
        table.lookup(text) for text in ("1.1.1.1", "8.8.8.8", "9.9.9.9", "208.67.222.222")
    ]
    assert table.lookup("203.0.113.7") is None
    assert AsnTable.starter() is table


def test_read_tells_files_apart_by_content(table: AsnTable, tmp_path: Path) -> None:
    """A compiled table and a text table load whatever they are called; other binary files are refused."""
    compiled, text, other = tmp_path / "a.csv", tmp_path / "b.gbf", tmp_path / "c.mmdb"
    table.save(compiled)
    text.write_text("192.0.2.0/24,64496,Example\n")
    other.write_bytes(b"\x7fELF\0\0\0")

    assert [2, 64496] == [read(compiled).lookup("10.0.0.1"), read(text).lookup("192.0.2.1")]
    with pytest.raises(FormatError, match=r"c.mmdb: neither a compiled table, an MMDB nor text"):
        read(other)
    with pytest.raises(ValueError, match=r"is a compiled table, which has its own names"):
        read(compiled, names=text)
