"""AsnTable.from_mmdb, with the maxminddb package as second oracle."""

from __future__ import annotations

import gzip
import ipaddress
import random
from pathlib import Path
from typing import Any

import maxminddb
import pytest
from mmdb_writer import MMDBWriter
from netaddr import IPSet

from gobanfast import FormatError
from gobanfast.asn import AsnTable, read

# Places where an IPv6 tree repeats IPv4; here only ::ffff:0:0/96 is IPv4.
ALIASES = [ipaddress.ip_network(text) for text in ("::/96", "2001::/32", "2002::/16")]


def write(path: Path, rows: dict[str, Any], version: int = 6) -> Path:
    writer = MMDBWriter(ip_version=version, ipv4_compatible=version == 6, database_type="Test-ASN")
    for prefix, record in rows.items():
        writer.insert_network(IPSet([prefix]), record)
    writer.to_db_file(str(path))
    return path


def number_of(record: Any) -> int | None:
    return record.get("autonomous_system_number") if isinstance(record, dict) else None


def random_addresses(networks: list[str], count: int, seed: int) -> list[str]:
    """Half inside the networks, half anywhere, both families; none in ALIASES."""
    source = random.Random(seed)
    parsed = [ipaddress.ip_network(text) for text in networks]
    found: list[str] = []
    while len(found) < count:
        network = source.choice(parsed) if len(found) % 2 else source.choice(parsed).supernet(new_prefix=0)
        number = int(network.network_address) | source.getrandbits(network.max_prefixlen - network.prefixlen or 1)
        address = type(network.network_address)(min(number, int(network.broadcast_address)))
        if not any(address in alias for alias in ALIASES if alias.version == address.version):
            found.append(str(address))
    return found


def assert_agrees(table: AsnTable, path: Path, addresses: list[str]) -> None:
    with maxminddb.open_database(path) as reader:
        differing = [text for text in addresses if number_of(reader.get(text)) != table.lookup(text)]
    assert [] == differing[:10]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A database of 400 random disjoint-or-nested networks of both families, and their texts."""
    source = random.Random(5)
    rows: dict[str, Any] = {}
    for bits in sorted(source.randrange(8, 29) for _ in range(200)):
        for version, base, width in ((4, source.getrandbits(32), 32), (6, 0x2A << 120 | source.getrandbits(118), 128)):
            length = bits if version == 4 else 12 + 2 * bits
            prefix = ipaddress.ip_network((base >> (width - length) << (width - length), length))
            rows[str(prefix)] = {
                "autonomous_system_number": source.randrange(1, 2**32 - 1),
                "autonomous_system_organization": f"Net {prefix}",
            }
    return write(tmp_path_factory.mktemp("mmdb") / "sample.mmdb", rows), list(rows)


def test_agrees_with_maxminddb(sample: tuple[Path, list[str]]) -> None:
    """Every address has the AS that maxminddb reads for it, mapped addresses included."""
    path, networks = sample
    table = AsnTable.from_mmdb(path)
    addresses = random_addresses(networks, 20_000, seed=6)

    assert_agrees(table, path, addresses)
    assert any(table.lookup(text) for text in addresses)
    four = [text for text in addresses if ":" not in text][:2000]
    assert [table.lookup(text) for text in four] == [table.lookup(f"::ffff:{text}") for text in four]


def test_names_are_read(sample: tuple[Path, list[str]]) -> None:
    """The organisation of a record is the name of its AS."""
    path, networks = sample
    table = AsnTable.from_mmdb(path)
    with maxminddb.open_database(path) as reader:
        records = [reader.get(text.split("/")[0]) for text in networks]

    assert all(isinstance(record, dict) for record in records)
    assert [record["autonomous_system_organization"] for record in records] == [
        table.name(record["autonomous_system_number"]) for record in records
    ]


LAYOUTS = {
    "GeoLite2, DB-IP": {"autonomous_system_number": 64496, "autonomous_system_organization": "Example"},
    "inside traits": {"traits": {"autonomous_system_number": 64496, "autonomous_system_organization": "Example"}},
    "IPinfo ASN": {"asn": "AS64496", "name": "Example", "domain": "example.com"},
    "IPinfo country and ASN": {"country": "ZZ", "asn": "AS64496", "as_name": "Example", "as_domain": "example.com"},
    "IPinfo org": {"asn": "AS64496", "org": "Example"},
}


@pytest.mark.parametrize("record", LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize("version", [4, 6])
def test_record_layouts(record: dict[str, Any], version: int, tmp_path: Path) -> None:
    """The layouts of the known publishers mean the same."""
    table = read(write(tmp_path / "layout.mmdb", {"192.0.2.0/24": record}, version))

    assert (64496, "AS64496 Example", None) == (
        table.lookup("192.0.2.9"),
        table.describe(64496),
        table.lookup("192.0.3.0"),
    )


@pytest.mark.parametrize("number", ["", "AS", "ASx", "none", 0, 2**32 - 1, -1, 1.5, True, "AS99999999999"])
def test_records_without_a_usable_number_are_counted(number: Any, tmp_path: Path) -> None:
    """A record whose AS number is missing or unusable is skipped and counted; a missing name is no problem."""
    rows = {
        "192.0.2.0/24": {"asn": number, "name": "No"},
        "198.51.100.0/24": {"asn": "AS1"},
        "203.0.113.0/24": {"city": "x"},
    }
    table = AsnTable.from_mmdb(write(tmp_path / "gaps.mmdb", rows))

    assert (3, 2) == (table.reading.rows, table.reading.without_asn)
    assert (None, 1, None) == (table.lookup("192.0.2.1"), table.lookup("198.51.100.1"), table.name(1))


def test_default_networks_of_both_families(tmp_path: Path) -> None:
    """A record for the whole of IPv4 in an IPv6 tree is the AS of every IPv4 address, and of no other."""
    path = write(tmp_path / "wide.mmdb", {"0.0.0.0/0": {"autonomous_system_number": 64496}})

    assert_agrees(AsnTable.from_mmdb(path), path, ["0.0.0.1", "1.2.3.4", "255.255.255.255", "::1:0:0:0", "2a00::"])


def test_database_without_as_fields_is_refused(tmp_path: Path) -> None:
    """A database of something else is an error that lists what it has."""
    path = write(tmp_path / "city.mmdb", {"192.0.2.0/24": {"city": "x", "country": "y"}})
    with pytest.raises(FormatError, match=r"city.mmdb: no record has an AS number .*fields found: city, country"):
        AsnTable.from_mmdb(path)


def test_database_cut_short_is_refused(sample: tuple[Path, list[str]], tmp_path: Path) -> None:
    """Whatever is missing at the end, the file is refused by name, through from_mmdb and through read."""
    data = sample[0].read_bytes()
    path = tmp_path / "cut.mmdb"
    for cut in [0, 1, 15, *range(16, len(data), len(data) // 40)]:
        path.write_bytes(data[:cut])
        with pytest.raises(FormatError, match=r"cut.mmdb: .* at offset"):
            AsnTable.from_mmdb(path)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(FormatError, match=r"cut.mmdb: "):
        read(path)


def test_flipped_bits_never_crash_or_hang(tmp_path: Path) -> None:
    """A database with any byte damaged is read or is a FormatError; a cycle is not walked for ever."""
    rows = {f"10.{i}.0.0/16": {"asn": f"AS{i + 1}", "name": f"Net {i}"} for i in range(0, 60, 2)}
    data = bytearray(write(tmp_path / "whole.mmdb", rows).read_bytes())
    path = tmp_path / "flipped.mmdb"
    outcomes = []
    for at in range(0, len(data), 3):
        flip = 1 << at % 8
        data[at] ^= flip
        path.write_bytes(data)
        data[at] ^= flip
        try:
            AsnTable.from_mmdb(path)
        except FormatError as error:
            outcomes.append(str(error))
        else:
            outcomes.append("read")
    assert "read" in outcomes
    assert any("search tree" in outcome for outcome in outcomes)


def test_maxminds_own_test_files_agree(real_data: Path) -> None:
    """On MaxMind's published test databases every edge of every network answers as maxminddb does."""
    for name in ("GeoLite2-ASN-Test.mmdb", "GeoIP2-ISP-Test.mmdb"):
        path = real_data / "mmdb" / name
        table = AsnTable.from_mmdb(path)
        with maxminddb.open_database(path) as reader:
            networks = [str(network) for network, _ in reader]
        edges = [
            str(end) for text in networks for end in (ipaddress.ip_network(text)[0], ipaddress.ip_network(text)[-1])
        ]
        assert_agrees(table, path, edges)
        assert_agrees(table, path, random_addresses(networks, 20_000, seed=7))
    for name in ("MaxMind-DB-test-ipv4-24.mmdb", "MaxMind-DB-test-ipv6-28.mmdb", "MaxMind-DB-test-mixed-32.mmdb"):
        with pytest.raises(FormatError, match=r"no record has an AS number .*fields found: ip"):
            AsnTable.from_mmdb(real_data / "mmdb" / name)


def test_two_million_addresses_on_the_whole_internet(real_data: Path, request: pytest.FixtureRequest) -> None:
    """On a full routing table, 1,062,046 prefixes, two million random addresses answer as maxminddb does.

    Writing the database takes about a minute; it is kept in pytest's cache folder.
    """
    assert request.config.cache is not None
    path = request.config.cache.mkdir("gobanfast") / "asn-full.mmdb"
    table = AsnTable.from_csv(real_data / "asn-full.csv.gz")
    with gzip.open(real_data / "asn-full.csv.gz", "rt") as lines:
        rows = {prefix: int(asn) for prefix, asn, *_ in (line.split(",") for line in lines)}
    if not path.exists():
        widest_first = sorted(rows, key=lambda prefix: int(prefix.partition("/")[2]))
        records = {text: {"autonomous_system_number": rows[text]} for text in widest_first}
        part = write(path.with_suffix(".part"), records)
        part.replace(path)

    assert len(rows) == len(table)
    source = random.Random(2_000_000)
    firsts = [(int(net.network_address), net) for net in map(ipaddress.ip_network, source.sample(list(rows), 200_000))]
    four, six = ([(first, net) for first, net in firsts if net.version == version] for version in (4, 6))
    agreed = hits = 0
    with maxminddb.open_database(path) as reader:
        for nets, kind, width in ((four, ipaddress.IPv4Address, 32), (six, ipaddress.IPv6Address, 128)):
            for turn in range(1_000_000):
                first, net = nets[turn % len(nets)]
                inside = first | source.getrandbits(width) & int(net.hostmask)
                anywhere = source.getrandbits(width) if width == 32 else 0x2 << 124 | source.getrandbits(125)
                address = kind(inside if turn % 2 else anywhere)
                found = table.lookup(str(address))
                if number_of(reader.get(address)) != found:
                    assert any(address in alias for alias in ALIASES if alias.version == address.version), address
                agreed += 1
                hits += found is not None
    assert (2_000_000, True) == (agreed, 1_000_000 <= hits < 2_000_000)
