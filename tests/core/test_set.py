"""PrefixSet against asking every prefix, against `ipaddress.collapse_addresses`, and against damage."""

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

from gobanfast import FormatError, PrefixSet
from gobanfast._core.address import parse_address
from gobanfast._core.block import cpu_levels
from oracle import prefix as oracle
from strategies import addresses, near, networks

LEVELS = cpu_levels()
SETS = st.lists(networks(), max_size=60)


def packed(address: oracle.Address) -> bytes:
    found = parse_address(str(address))
    assert found is not None
    return found


def collapsed(nets: list[oracle.Network]) -> list[str]:
    """The fewest disjoint prefixes, IPv4 first, as the standard library finds them."""
    four = ipaddress.collapse_addresses(net for net in nets if isinstance(net, ipaddress.IPv4Network))
    six = ipaddress.collapse_addresses(net for net in nets if isinstance(net, ipaddress.IPv6Network))
    return [str(net) for net in (*four, *six)]


@pytest.mark.parametrize("level", LEVELS)
def test_every_answer_equals_linear_scan(level: str) -> None:
    """`in` and every form of contains_many say what asking every prefix says."""

    @given(data=st.data(), nets=SETS)
    def check(data: st.DataObject, nets: list[oracle.Network]) -> None:
        queries = data.draw(st.lists(addresses() | near(nets) if nets else addresses(), max_size=40))
        made = PrefixSet(map(str, nets), kernel=level)
        table = dict.fromkeys(nets, 0)
        expected = [oracle.covering(table, address) is not None for address in queries]

        assert expected == [str(address) in made for address in queries]
        four = [(i, address) for i, address in enumerate(map(oracle.canonical, queries)) if address.version == 4]
        for form, wanted in (
            ([str(address) for address in queries], expected),
            (b"".join(packed(address) for address in queries), expected),
            (memoryview(struct.pack(f"={len(four)}I", *(int(address) for _, address in four))).cast("I"),
             [expected[i] for i, _ in four]),
        ):  # fmt: skip
            out = bytearray(b"?" * len(wanted))
            assert sum(wanted) == made.contains_many(form, out)
            assert wanted == [bool(byte) for byte in out]
            assert set(out) <= {0, 1}

    check()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 34, 63, 64, 65, 129, 700])
def test_every_length_of_search_is_exact(level: str, count: int) -> None:
    """Whatever number of bounds a search meets, spread out or crowded at one end, it finds the right one."""
    rng = random.Random(count)
    crowds = (rng.sample(range(65536), count), rng.sample(range(2 * count + 1), count), range(65536 - count, 65536, 2))
    for crowd in crowds:
        inside = set(crowd)
        four = PrefixSet((f"192.0.{low >> 8}.{low & 255}" for low in inside), kernel=level)
        six = PrefixSet((f"2001:db8:0:{low:x}::/64" for low in inside), kernel=level)
        hosts = PrefixSet((f"2001:db8::{low:x}" for low in inside), kernel=level)
        near_by = {min(max(low + step, 0), 65535) for low in [*inside, *range(0, 65536, 1021)] for step in (-1, 0, 1)}
        for low in near_by:
            asked = (f"192.0.{low >> 8}.{low & 255}", f"2001:db8:0:{low:x}::5", f"2001:db8::{low:x}")
            assert [low in inside] * 3 == [asked[0] in four, asked[1] in six, asked[2] in hosts]


@given(nets=SETS, order=st.randoms(use_true_random=False))
def test_iteration_is_the_collapsed_form(nets: list[oracle.Network], order: object) -> None:
    """A set iterates as the fewest disjoint prefixes, counts them, and depends on nothing but the addresses in it."""
    shuffled = nets * 2
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    made = PrefixSet(map(str, shuffled))
    expected = collapsed(nets)

    made.verify()
    assert expected == list(made)
    assert len(expected) == len(made)
    assert made.content_hash == PrefixSet(expected).content_hash


@given(nets=SETS)
@settings(max_examples=30)
def test_packed_form_builds_the_same_set(nets: list[oracle.Network]) -> None:
    """Buffers of addresses and lengths give what texts give."""
    rows = b"".join(packed(net.network_address) for net in nets)
    lengths = bytes(net.prefixlen + (96 if net.version == 4 else 0) for net in nets)

    assert PrefixSet(map(str, nets)).content_hash == PrefixSet.from_packed(rows, lengths).content_hash


def test_neighbours_merge_and_families_stay_apart() -> None:
    """Halves make the whole, a mapped prefix is IPv4, and neither default route covers the other family."""
    assert ["10.0.0.0/8"] == list(PrefixSet(["10.128.0.0/9", "10.0.0.0/9", "10.1.2.3"]))
    assert ["192.0.2.0/24"] == list(PrefixSet(["::ffff:192.0.2.0/120"]))
    four, six = PrefixSet(["0.0.0.0/0"]), PrefixSet(["::/0"])
    assert [True, True, False] == [text in four for text in ("255.255.255.255", "::ffff:1.2.3.4", "::1")]
    assert [False, False, True] == [text in six for text in ("255.255.255.255", "::ffff:1.2.3.4", "ffff::ffff")]
    assert ["0.0.0.0/0", "::/0"] == list(PrefixSet(["::/1", "0.0.0.0/1", "8000::/1", "128.0.0.0/1"]))


def test_empty_set_holds_nothing() -> None:
    """A set of nothing is a set, and text that is no address is in none."""
    empty, all_of_it = PrefixSet(), PrefixSet(["0.0.0.0/0", "::/0"])

    assert (0, [], False) == (len(empty), list(empty), "1.2.3.4" in empty)
    assert [False] * 5 == [text in all_of_it for text in ("", "1.2.3", "1.2.3.4 ", "ä", "::1::")]
    assert 0 == all_of_it.contains_many(["", "1.2.3", "ä"], bytearray(3))


def test_misuse_is_an_error_that_says_what() -> None:
    """Wrong types raise TypeError; prefixes and buffers that do not fit raise ValueError with the index."""
    made = PrefixSet(["10.0.0.0/8"])
    for wrong in (b"10.0.0.1", None, 5):
        with pytest.raises(TypeError):
            wrong in made  # type: ignore[operator]  # noqa: B015
    with pytest.raises(ValueError, match=r"item 1: prefix '10\.0\.0\.1/8' has host bits set; write 10\.0\.0\.0/8"):
        PrefixSet(["10.0.0.0/8", "10.0.0.1/8"])
    with pytest.raises(ValueError, match="item 0: prefix has host bits set"):
        PrefixSet.from_packed(bytes(15) + b"\1", b"\0")
    with pytest.raises(ValueError, match="item 1: prefix length is over 128"):
        PrefixSet.from_packed(bytes(32), b"\0\x81")
    with pytest.raises(ValueError, match="2 lengths need 32 address bytes, not 16"):
        PrefixSet.from_packed(bytes(16), bytes(2))
    with pytest.raises(ValueError, match="addresses are uint32"):
        made.contains_many(bytes(17), bytearray(1))
    with pytest.raises(ValueError, match="out has 1 items for 2 addresses"):
        made.contains_many(bytes(32), bytearray(1))
    with pytest.raises(ValueError, match="out has 1 items for 2 addresses"):
        made.contains_many(["10.0.0.1", "10.0.0.2"], bytearray(1))
    with pytest.raises(ValueError, match="out holds items of 4 bytes, not uint8"):
        made.contains_many(bytes(16), memoryview(bytearray(4)).cast("I"))
    with pytest.raises((BufferError, TypeError)):
        made.contains_many(bytes(16), bytes(1))
    with pytest.raises(TypeError):
        made.contains_many(["10.0.0.1", 5], bytearray(2))  # type: ignore[list-item]
    with pytest.raises(ValueError, match="kernel='sse9' is not one of scalar"):
        PrefixSet(kernel="sse9")


# ---- files -----------------------------------------------------------------------------------------------------

SAMPLE = ["10.0.0.0/8", "10.255.255.255", "11.0.0.7", "255.255.255.254/31", "2001:db8::/32", "2001:db9::1", "ffff::/16"]


@given(nets=SETS)
@settings(max_examples=30)
def test_save_load_pickle_round_trip(nets: list[oracle.Network], tmp_path_factory: pytest.TempPathFactory) -> None:
    """A set that was saved, mapped, copied or pickled is the same bytes and the same prefixes."""
    made = PrefixSet(map(str, nets))
    path = tmp_path_factory.mktemp("set") / "set.gbf"
    made.save(path)

    for copy in (PrefixSet.load(path), PrefixSet.load(path, verify=False), pickle.loads(pickle.dumps(made))):  # noqa: S301
        copy.verify()
        assert (made.content_hash, made.nbytes, list(made)) == (copy.content_hash, copy.nbytes, list(copy))
    assert made.nbytes == path.stat().st_size


def test_truncated_file_is_refused(tmp_path: Path) -> None:
    """No prefix of a file opens, and the error names the file."""
    whole = tmp_path / "whole.gbf"
    PrefixSet(SAMPLE).save(whole)
    data = whole.read_bytes()
    path = tmp_path / "cut.gbf"

    for length in [*range(0, 600, 7), *range(600, len(data), 20_011), *range(len(data) - 600, len(data), 37)]:
        path.write_bytes(data[:length])
        with pytest.raises(FormatError) as caught:
            PrefixSet.load(path, verify=False)
        assert str(caught.value).startswith(f"{path}: ")


def test_flipped_bits_never_open_verified() -> None:
    """Flipped bits are caught by the hash or before it."""
    data = bytearray(PrefixSet(SAMPLE).__reduce__()[1][0])

    for position in [*range(192), *range(192, len(data) - 1000, 9973), *range(len(data) - 1000, len(data), 13)]:
        data[position] ^= 1 << position % 8
        with pytest.raises(FormatError):
            PrefixSet.from_bytes(data)
        data[position] ^= 1 << position % 8
    PrefixSet.from_bytes(data).verify()


@given(data=st.data())
@settings(max_examples=200)
def test_damage_past_the_hash_cannot_hurt(data: st.DataObject) -> None:
    """Opened without the hash, a damaged block is refused or still answers every call without leaving its bytes."""
    block = bytearray(PrefixSet(SAMPLE).__reduce__()[1][0])
    places = st.integers(64, 191) | st.integers(192, len(block) - 1) | st.integers(len(block) - 640, len(block) - 1)
    for _ in range(data.draw(st.integers(1, 4))):
        block[data.draw(places)] = data.draw(st.integers(0, 255))
    try:
        made = PrefixSet.from_bytes(block, verify=False)
    except FormatError:
        return
    for text in ("10.1.2.3", "11.0.0.7", "255.255.255.255", "0.0.0.1", "2001:db8::1", "2001:db9::1", "::", "ffff::"):
        text in made  # noqa: B015
    assert len(made) == len(list(made))


def section(block: bytes, tag: bytes) -> int:
    """Offset of a section's first byte."""
    entry = next(at for at in range(64, 192, 24) if block[at : at + 4] == tag)
    return struct.unpack_from("<Q", block, entry + 8)[0]


@pytest.mark.parametrize(
    ("tag", "form", "item", "value", "message"),
    [
        (b"IDX4", "<I", 0, 1, "index does not span the IPv4 bounds at offset 0"),
        (b"IDX4", "<I", 65536, 2**31, "index does not span the IPv4 bounds at offset 0"),
        (b"IDX4", "<I", 40, 2**31, "index of the IPv4 bounds descends at offset 40"),
        (b"BND4", "<H", 2, 0, "IPv4 bounds do not ascend at offset 2"),
        (b"TOP6", "<Q", 0, 5, "index of the IPv6 bounds differs from them at offset 0"),
        (b"HIG6", "<Q", 1, 5, "IPv6 bounds do not ascend at offset 1"),
        (b"LOW6", "<Q", 3, 0, "IPv6 bounds do not ascend at offset 3"),
    ],
)  # fmt: skip
def test_each_lie_about_bounds_is_named(tag: bytes, form: str, item: int, value: int, message: str) -> None:
    """An index or bound that a search could not survive is refused, hash or not, with its place."""
    block = bytearray(PrefixSet(SAMPLE).__reduce__()[1][0])
    struct.pack_into(form, block, section(bytes(block), tag) + item * struct.calcsize(form), value)

    with pytest.raises(FormatError) as caught:
        PrefixSet.from_bytes(block, verify=False)
    assert f"<memory>: {message}" == str(caught.value)


def test_other_tables_are_not_sets(tmp_path: Path) -> None:
    """A file of another kind says so."""
    from gobanfast import PrefixTable

    path = tmp_path / "table.gbf"
    PrefixTable([("10.0.0.0/8", 1)]).save(path)

    with pytest.raises(FormatError, match="holds another kind of table at offset 32"):
        PrefixSet.load(path)


# ---- real data -------------------------------------------------------------------------------------------------


def test_block_list_is_what_the_standard_library_collapses(real_data: Path) -> None:
    """A real threat feed collapses alike, holds its own addresses, and takes at most 4 bytes a prefix and the index."""
    with gzip.open(real_data / "block-addresses.netset.gz", "rt") as lines:
        nets: list[oracle.Network] = [ipaddress.IPv4Network(line.strip()) for line in lines if not line.startswith("#")]
    made = PrefixSet(map(str, nets))

    assert collapsed(nets) == list(made)
    assert made.nbytes <= 4 * len(nets) + 4 * 65537 + 1024
    firsts = [str(net.network_address) for net in nets]
    assert len(nets) == made.contains_many(firsts, bytearray(len(firsts)))
