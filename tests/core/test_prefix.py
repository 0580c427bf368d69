"""PrefixTable against a linear scan, and against damage."""

from __future__ import annotations

import gzip
import ipaddress
import pickle
import random
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gobanfast import FormatError
from gobanfast._core.address import parse_address, parse_prefix
from gobanfast._core.block import cpu_levels
from gobanfast._core.prefix_table import PrefixTable
from oracle import prefix as oracle
from strategies import addresses, near, networks

LEVELS = cpu_levels()
NONE = 0xFFFFFFFF
# Few values, so that neighbours merge; some do not fit a 31-bit leaf.
VALUES = st.sampled_from([0, 1, 2, 0x7FFFFFFE, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE]) | st.integers(0, 5)
TABLES = st.dictionaries(networks(), st.integers(0, 5), max_size=60) | st.dictionaries(networks(), VALUES, max_size=30)


def pairs(table: dict[oracle.Network, int]) -> list[tuple[str, int]]:
    return [(str(net), value) for net, value in table.items()]


def packed(address: oracle.Address) -> bytes:
    found = parse_address(str(address))
    assert found is not None
    return found


@pytest.mark.parametrize("level", LEVELS)
def test_every_lookup_equals_linear_scan(level: str) -> None:
    """lookup, in, [], lookup_prefix and every form of lookup_many return what scanning every prefix returns."""

    @given(data=st.data(), table=TABLES)
    def check(data: st.DataObject, table: dict[oracle.Network, int]) -> None:
        queries = data.draw(st.lists(addresses() | near(list(table)) if table else addresses(), max_size=40))
        made = PrefixTable(pairs(table), kernel=level)
        expected = [oracle.covering(table, address) for address in queries]
        values = [NONE if match is None else match[1] for match in expected]
        matched = sum(match is not None for match in expected)

        for address, match in zip(queries, expected, strict=True):
            text = str(address)
            assert (None if match is None else (str(match[0]), match[1])) == made.lookup_prefix(text)
            assert (None if match is None else match[1]) == made.lookup(text)
            assert (match is not None) == (text in made)
            if match is None:
                with pytest.raises(KeyError):
                    made[text]
            else:
                assert match[1] == made[text]
        four = [(i, address) for i, address in enumerate(map(oracle.canonical, queries)) if address.version == 4]
        for form, wanted in (
            ([str(address) for address in queries], values),
            (b"".join(packed(address) for address in queries), values),
            (memoryview(struct.pack(f"={len(four)}I", *(int(address) for _, address in four))).cast("I"),
             [values[i] for i, _ in four]),
        ):  # fmt: skip
            out = memoryview(bytearray(4 * len(wanted))).cast("I")
            assert sum(value != NONE for value in wanted) == made.lookup_many(form, out)
            assert wanted == out.tolist()
        assert matched == made.lookup_many(
            [str(address) for address in queries], memoryview(bytearray(4 * len(queries))).cast("I")
        )

    check()


@given(table=TABLES, order=st.randoms(use_true_random=False))
def test_a_table_holds_what_went_in(table: dict[oracle.Network, int], order: object) -> None:
    """len, iteration and get give the items back, whatever their order; equal tables are equal bytes."""
    items = pairs(table)
    shuffled = items.copy()
    order.shuffle(shuffled)  # type: ignore[attr-defined]

    made = PrefixTable(shuffled)

    made.verify()
    assert len(items) == len(made)
    assert dict(items) == dict(made)
    assert all(value == made.get(prefix) for prefix, value in items)
    assert PrefixTable(items).content_hash == made.content_hash
    assert PrefixTable(list(made)).content_hash == made.content_hash


@given(table=TABLES, absent=networks())
def test_get_is_exact(table: dict[oracle.Network, int], absent: oracle.Network) -> None:
    """get answers for the stored prefix itself, never for one that covers it."""
    assert table.get(absent) == PrefixTable(pairs(table)).get(str(absent))


@given(table=TABLES)
def test_iteration_is_by_address_then_length(table: dict[oracle.Network, int]) -> None:
    """Items come by 128-bit address, IPv4 in its place at ::ffff:0:0/96, shorter prefixes first."""
    keys = [parse_prefix(prefix) for prefix, _ in PrefixTable(pairs(table))]

    assert sorted(keys) == keys


def test_last_of_equal_prefixes_wins() -> None:
    """A prefix given twice has the later value, also when written as its IPv4-mapped form."""
    table = PrefixTable([("10.0.0.0/8", 1), ("192.0.2.0/24", 5), ("10.0.0.0/8", 2), ("::ffff:192.0.2.0/120", 6)])

    assert [("10.0.0.0/8", 2), ("192.0.2.0/24", 6)] == list(table)


def test_default_routes_stay_in_their_family() -> None:
    """0.0.0.0/0 covers IPv4 only, ::/0 IPv6 only, and a mapped address is IPv4."""
    table = PrefixTable([("0.0.0.0/0", 4), ("::/0", 6)])

    assert [4, 4, 6, 6] == [table.lookup(text) for text in ("255.255.255.255", "::ffff:1.2.3.4", "::", "ffff::ffff")]
    assert None is PrefixTable([("::/0", 6)]).lookup("1.2.3.4")
    assert None is PrefixTable([("0.0.0.0/0", 4)]).lookup("::1")


def test_empty_table_matches_nothing() -> None:
    """A table of nothing is a table."""
    table = PrefixTable()

    assert (0, None, None, []) == (len(table), table.lookup("1.2.3.4"), table.lookup("::1"), list(table))


@pytest.mark.parametrize("count", [49_999, 50_001, 120_000])
def test_large_tables_change_shape_not_answers(count: int) -> None:
    """Past 100,000 ranges (two a lone address) the direct table grows; answers stay those of an exact set."""
    numbers = sorted(random.Random(count).sample(range(2**32), count))
    rows = b"".join((0xFFFF << 32 | number).to_bytes(16) for number in numbers)
    table = PrefixTable.from_packed(rows, bytes([128]) * count, struct.pack(f"={count}I", *range(count)))
    probes = [probe for number in numbers[::97] for probe in (number, number ^ 1)]
    exact = {number: i for i, number in enumerate(numbers)}

    assert [exact.get(probe) for probe in probes] == [
        table.lookup(str(ipaddress.IPv4Address(probe))) for probe in probes
    ]


def test_misuse_is_an_error_that_says_what() -> None:
    """Wrong types raise TypeError; values, buffers and items that do not fit raise ValueError with the index."""
    table = PrefixTable([("10.0.0.0/8", 1)])
    with pytest.raises(TypeError):
        table.lookup(b"10.0.0.1")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        table.lookup(None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"item 1: prefix '10\.0\.0\.1/8' has host bits set; write 10\.0\.0\.0/8"):
        PrefixTable([("10.0.0.0/8", 1), ("10.0.0.1/8", 2)])
    with pytest.raises(ValueError, match=r"item 0: value 4294967295 is not in 0\.\.4294967294"):
        PrefixTable([("10.0.0.0/8", NONE)])
    with pytest.raises(ValueError, match="item 0: prefix has host bits set"):
        PrefixTable.from_packed(bytes(15) + b"\1", b"\0", bytes(4))
    with pytest.raises(ValueError, match="item 1: prefix length is over 128"):
        PrefixTable.from_packed(bytes(32), b"\0\x81", bytes(8))
    with pytest.raises(ValueError, match="2 lengths need 32 address bytes and 8 value bytes, not 16 and 8"):
        PrefixTable.from_packed(bytes(16), bytes(2), bytes(8))
    with pytest.raises(ValueError, match="addresses are uint32"):
        table.lookup_many(bytes(17), memoryview(bytearray(4)).cast("I"))
    with pytest.raises(ValueError, match="out has 1 items for 2 addresses"):
        table.lookup_many(bytes(32), memoryview(bytearray(4)).cast("I"))
    with pytest.raises(ValueError, match="out holds items of 1 bytes, not uint32"):
        table.lookup_many(bytes(16), bytearray(4))
    with pytest.raises((BufferError, TypeError)):
        table.lookup_many(bytes(16), memoryview(bytes(4)).cast("I"))
    with pytest.raises(TypeError):
        table.lookup_many(["10.0.0.1", 5], memoryview(bytearray(8)).cast("I"))  # type: ignore[list-item]
    with pytest.raises(ValueError, match="kernel='sse9' is not one of scalar"):
        PrefixTable(kernel="sse9")


def test_environment_caps_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """GOBANFAST_KERNEL chooses the level; an unknown one is refused with the list."""
    monkeypatch.setenv("GOBANFAST_KERNEL", "scalar")
    assert "scalar" == PrefixTable().kernel
    monkeypatch.setenv("GOBANFAST_KERNEL", "fastest")
    with pytest.raises(ValueError, match="GOBANFAST_KERNEL='fastest' is not one of scalar"):
        PrefixTable()


# ---- files -----------------------------------------------------------------------------------------------------

SAMPLE = [
    ("10.0.0.0/8", 1),
    ("10.1.0.0/16", 0x90000000),
    ("10.1.2.3/32", 3),
    ("2001:db8::/32", 4),
    ("2001:db8::1/128", 5),
]


@given(table=TABLES)
@settings(max_examples=30)
def test_save_load_pickle_round_trip(
    table: dict[oracle.Network, int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A table that was saved, mapped, copied or pickled is the same bytes and the same items."""
    made = PrefixTable(pairs(table))
    path = tmp_path_factory.mktemp("table") / "table.gbf"
    made.save(path)

    for copy in (PrefixTable.load(path), PrefixTable.load(path, verify=False), pickle.loads(pickle.dumps(made))):  # noqa: S301
        copy.verify()
        assert (made.content_hash, made.nbytes, list(made)) == (copy.content_hash, copy.nbytes, list(copy))
    assert made.nbytes == path.stat().st_size


def test_replaced_file_leaves_the_mapped_table_alone(tmp_path: Path) -> None:
    """Saving over a file that is mapped swaps the name, not the bytes under the reader."""
    path = tmp_path / "table.gbf"
    PrefixTable([("10.0.0.0/8", 1)]).save(path)
    old = PrefixTable.load(path)

    PrefixTable([("10.0.0.0/8", 2)]).save(path)

    assert (1, 2) == (old.lookup("10.0.0.1"), PrefixTable.load(path).lookup("10.0.0.1"))
    assert ["table.gbf"] == [entry.name for entry in tmp_path.iterdir()]


def test_truncated_file_is_refused_at_every_length(tmp_path: Path) -> None:
    """No prefix of a file opens, and the error names the file and an offset."""
    whole = tmp_path / "whole.gbf"
    PrefixTable(SAMPLE).save(whole)
    data = whole.read_bytes()
    path = tmp_path / "cut.gbf"

    for length in [*range(600), *range(600, len(data), 997)]:
        path.write_bytes(data[:length])
        with pytest.raises(FormatError) as caught:
            PrefixTable.load(path, verify=False)
        assert str(path) == caught.value.path
        assert str(caught.value).startswith(f"{path}: ")


def test_flipped_bits_never_open_verified(tmp_path: Path) -> None:
    """Every single flipped bit is caught by the hash or before it."""
    data = bytearray(PrefixTable(SAMPLE).__reduce__()[1][0])

    for position in [*range(700), *range(700, len(data), 61)]:
        data[position] ^= 1 << position % 8
        with pytest.raises(FormatError):
            PrefixTable.from_bytes(data)
        data[position] ^= 1 << position % 8
    PrefixTable.from_bytes(data).verify()


@given(data=st.data())
@settings(max_examples=300)
def test_damage_past_the_hash_cannot_hurt(data: st.DataObject) -> None:
    """Opened without the hash, a damaged block is refused or still answers every call without leaving its bytes."""
    block = bytearray(PrefixTable(SAMPLE).__reduce__()[1][0])
    for _ in range(data.draw(st.integers(1, 4))):
        block[data.draw(st.integers(64, len(block) - 1))] = data.draw(st.integers(0, 255))
    try:
        table = PrefixTable.from_bytes(block, verify=False)
    except FormatError:
        return
    for text in ("10.1.2.3", "10.0.0.0", "255.255.255.255", "2001:db8::1", "::", "ffff::"):
        table.lookup(text)
        table.lookup_prefix(text)
    list(table)
    table.get("10.0.0.0/8")


def test_foreign_files_are_named_for_what_they_are(tmp_path: Path) -> None:
    """Foreign bytes, another byte order, a newer version and another kind of table each say so, with the offset."""
    good = bytes(PrefixTable(SAMPLE).__reduce__()[1][0])
    cases = [
        (b"", "file is empty at offset 0"),
        (b"not a table, but long enough to be one" * 9, "not a gobanfast file at offset 0"),
        (good[:24] + good[24:28][::-1] + good[28:], "written on a big-endian machine at offset 24"),
        (good[:28] + (2).to_bytes(4, "little") + good[32:], "written by a newer gobanfast at offset 28"),
        (good[:32] + b"NAME" + good[36:], "holds another kind of table at offset 32"),
        (good + bytes(64), "size in the header is not the size of the file at offset 40"),
    ]
    for data, message in cases:
        path = tmp_path / "foreign.gbf"
        path.write_bytes(data)
        with pytest.raises(FormatError) as caught:
            PrefixTable.load(path)
        assert f"{path}: {message}" == str(caught.value)


# ---- real data -------------------------------------------------------------------------------------------------


def test_whole_internet_agrees_with_the_prefix_list(real_data: Path) -> None:
    """On a full routing table every prefix is found again, and each of 100,000 addresses matches the longest one."""
    with gzip.open(real_data / "asn-full.csv.gz", "rt") as lines:
        rows = [(prefix, int(asn)) for prefix, asn, *_ in (line.split(",") for line in lines)]
    table = PrefixTable(rows)
    table.verify()
    exact = dict(rows)
    rng = random.Random(20261122)

    assert (len(exact), True) == (len(table), dict(table) == exact)
    assert table.nbytes <= 8 * len(table)
    for _ in range(100_000):
        net = ipaddress.ip_network(rng.choice(rows)[0])
        address = net[rng.randrange(net.num_addresses)]
        width = address.max_prefixlen
        supernets = (f"{type(address)(int(address) >> down << down)}/{width - down}" for down in range(width + 1))
        expected = next((exact[prefix] for prefix in supernets if prefix in exact), None)
        assert expected == table.lookup(str(address))
