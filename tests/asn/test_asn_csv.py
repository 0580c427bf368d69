"""AsnTable.from_csv: what text tables mean, and how bad ones are refused."""

from __future__ import annotations

import gzip
import ipaddress
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gobanfast import FormatError, RuleError
from gobanfast.asn import AsnTable
from oracle import asn as oracle

CASES = tomllib.loads(Path(__file__).parents[1].joinpath("cases/asn_csv.toml").read_text("utf-8"))["case"]
ASNS = st.integers(1, 0xFFFFFFFE) | st.sampled_from([0, 1, 13335])
NAMES = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=40)


@st.composite
def prefixes(draw: st.DrawFn) -> str:
    """Prefixes from a small space, so that they nest and repeat."""
    base = draw(st.sampled_from(["10.0.0.0", "10.1.0.0", "192.0.2.0", "2001:db8::", "2001:db8:1::", "::"]))
    network = ipaddress.ip_network(base)
    bits = draw(st.integers(0, network.max_prefixlen))
    address = int(network.network_address) + draw(st.integers(0, 1023))
    return str(ipaddress.ip_network(f"{type(network.network_address)(address)}/{bits}", strict=False))


def from_text(folder: Path, text: str | bytes, **options: Any) -> AsnTable:
    path = folder / "table.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return AsnTable.from_csv(path, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("asn")


@pytest.mark.parametrize("case", [case for case in CASES if "lookups" in case], ids=lambda case: case["name"])
def test_text_means_what_the_case_says(case: dict[str, Any], folder: Path) -> None:
    """Lookups, names and counts of a text are those written beside it."""
    table = from_text(folder, case["text"])

    assert case["lookups"] == [[address, table.lookup(address) or 0] for address, _ in case["lookups"]]
    assert case.get("names", []) == [[asn, table.name(asn) or ""] for asn, _ in case.get("names", [])]
    assert case.get("without_asn", 0) == table.reading.without_asn


@pytest.mark.parametrize("case", [case for case in CASES if "problems" in case], ids=lambda case: case["name"])
def test_every_problem_is_reported_with_its_place(case: dict[str, Any], folder: Path) -> None:
    """A bad text raises once, with all its problems in file order."""
    with pytest.raises(RuleError) as caught:
        from_text(folder, case["text"])

    assert case["problems"] == [
        str(problem).removeprefix(f"{folder / 'table.csv'}:").lstrip() for problem in caught.value.problems
    ]


@given(
    rows=st.lists(st.tuples(prefixes(), ASNS, NAMES), min_size=1),
    quoted=st.booleans(),
    crlf=st.booleans(),
    data=st.data(),
)
def test_rows_answer_like_a_linear_scan(
    rows: list[tuple[str, int, str]], quoted: bool, crlf: bool, data: st.DataObject, folder: Path
) -> None:
    """A table of rows in any order answers what scanning every row would, at the edges of all prefixes."""
    newline = "\r\n" if crlf else "\n"
    written = [f'{prefix},{"AS" * quoted}{asn},"{name.replace(chr(34), chr(34) * 2)}"' for prefix, asn, name in rows]
    table = from_text(folder, newline.join(["prefix,asn,name", *written]))
    plain = [(prefix, asn) for prefix, asn, _ in rows]
    addresses = oracle.probes(prefix for prefix, _ in plain)

    assert [oracle.lookup(plain, address) for address in addresses] == [table.lookup(address) for address in addresses]
    names = {asn: name for _, asn, name in rows if asn and name}
    assert names == {asn: table.name(asn) for asn in names}
    assert sum(asn == 0 for _, asn in plain) == table.reading.without_asn
    assert len({prefix for prefix, asn in plain if asn}) == len(table)


@given(
    st.lists(
        st.tuples(st.sampled_from([4, 6]), st.integers(0, 2**16), st.integers(0, 2**16) | st.integers(0, 2**100), ASNS),
        min_size=1,
        max_size=3,
    )
)
def test_ranges_become_the_fewest_prefixes(folder: Path, parts: list[tuple[int, int, int, int]]) -> None:
    """A range covers its addresses, both ends included, by the prefixes ipaddress would choose, and no other."""
    ranges, rows = [], []
    for version, start, size, asn in parts:
        kind, base, limit = (
            (ipaddress.IPv4Address, 10 << 24, 2**32)
            if version == 4
            else (ipaddress.IPv6Address, 0x20010DB8 << 96, 2**128)
        )
        first, last = base + start, min(base + start + size, limit - 1)
        ranges.append(f"{kind(first)},{kind(last)},{asn}")
        rows += oracle.range_rows(str(kind(first)), str(kind(last)), asn)
    table = from_text(folder, "first,last,asn\n" + "\n".join(ranges))
    addresses = oracle.probes(prefix for prefix, _ in rows)
    addresses = addresses[:: len(addresses) // 30 + 1]

    assert len({prefix for prefix, asn in rows if asn}) == len(table)
    assert [oracle.lookup(rows, address) for address in addresses] == [table.lookup(address) for address in addresses]


def test_names_file_takes_the_place_of_names_in_rows(folder: Path) -> None:
    """`names=` gives names to ASes with and without prefixes, plain or gzip, over what the table itself says."""
    names = folder / "names.csv.gz"
    names.write_bytes(gzip.compress(b'64496,"EXAMPLE - Example, ""Inc"", ZZ"\nAS64497,Other\n'))
    table = from_text(folder, "192.0.2.0/24,64496,Old name\n", names=names)

    assert ['EXAMPLE - Example, "Inc", ZZ', "Other"] == [table.name(64496), table.name(64497)]
    assert [64496, 64497] == table.asns().tolist()
    assert "AS64498" == table.describe(64498)


def test_problems_of_both_files_are_reported_together(folder: Path) -> None:
    """A bad table and a bad names file are one error."""
    names = folder / "names.csv"
    names.write_text("64496,Fine\nx,Bad\n")
    with pytest.raises(RuleError) as caught:
        from_text(folder, "192.0.2.0/24,1\n192.0.2.0/24,y\n", names=names)

    assert [("table.csv", 2, 14), ("names.csv", 2, 1)] == [
        (Path(problem.source).name, problem.line, problem.column) for problem in caught.value.problems
    ]


def test_many_problems_are_counted(folder: Path) -> None:
    """The first hundred bad rows are described, the others counted."""
    with pytest.raises(RuleError) as caught:
        from_text(folder, "192.0.2.0/24,1\n" + "192.0.2.0/24,bad\n" * 250)

    assert 101 == len(caught.value.problems)
    assert "150 more rows cannot be read" == caught.value.problems[-1].message


def test_header_without_an_asn_column_is_refused(folder: Path) -> None:
    """A header that names no AS column raises, saying which names are known."""
    with pytest.raises(RuleError, match=r"table.csv:1:1: header 'foo,bar' names no column for prefix .* and asn"):
        from_text(folder, "foo,bar\n1,2\n")


@pytest.mark.parametrize("bad", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\0"])
def test_names_that_are_not_utf8_are_refused(bad: bytes, folder: Path) -> None:
    """Whatever Python would not decode, and NUL, is not a name."""
    with pytest.raises(RuleError, match=r":1:16: name"):
        from_text(folder, b"192.0.2.0/24,1,name " + bad + b"\n")


def test_gzip_is_known_by_its_first_bytes(folder: Path) -> None:
    """A gzip file is unpacked whatever it is called; one that is cut short or damaged is a FormatError."""
    packed = gzip.compress(b"".join(b"10.%d.0.0/16,%d\n" % (i, i + 1) for i in range(200)))

    assert 200 == len(from_text(folder, packed))
    for broken in (packed[:-9], packed[:20], packed[:30] + b"\xff\xff" + packed[32:]):
        with pytest.raises(FormatError, match=r"table.csv: gzip data is damaged or cut short"):
            from_text(folder, broken)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_table_or_an_error(folder: Path, text: bytes) -> None:
    """No text crashes the reader: it is a table, or one of our errors that names the file."""
    found: AsnTable | str
    try:
        found = from_text(folder, b"192.0.2.0/24,1\n" + text)
    except (RuleError, FormatError) as error:
        found = str(error)
    assert "table.csv" in found if isinstance(found, str) else "192.0.2.1" in found


def test_the_full_table_and_its_names(real_data: Path) -> None:
    """A whole routing table reads without a problem; its flag column is no name, its names come from the file."""
    table = AsnTable.from_csv(real_data / "asn-full.csv.gz", names=real_data / "asn-names.csv.gz")

    assert 1_062_046 == len(table)
    assert 15169 == table.lookup("8.8.8.8")
    assert table.describe(15169).startswith("AS15169 GOOGLE")
    assert 8 * len(table) >= table.nbytes - sum(
        len((table.name(asn) or "").encode()) + 8 for asn in table.asns().tolist()
    )
