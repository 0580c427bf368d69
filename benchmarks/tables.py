"""The routing table, the queries and the block list that every benchmark uses.

Real data comes from the folder named by GOBANFAST_DATA; without it a seeded synthetic table with the prefix
lengths of the real one stands in. Everything is seeded: two runs ask the same questions of the same table.
"""

from __future__ import annotations

import gzip
import os
import socket
from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

CACHE = Path(__file__).parent / ".cache"
SEED = 20261122
QUERIES = 100_000
BATCH = 1_000_000
ZIPF_POPULATION = 20_000
ZIPF_EXPONENT = 1.1
MAPPED = bytes(10) + b"\xff\xff"

# Fraction of each prefix length in the global routing table, rounded; what is left of 1.0 goes to the first entry.
LENGTHS4 = {24: 0.0, 23: 0.10, 22: 0.115, 21: 0.055, 20: 0.046, 19: 0.027, 18: 0.015, 17: 0.009, 16: 0.014, 15: 0.002}
LENGTHS6 = {48: 0.0, 32: 0.13, 44: 0.11, 40: 0.10, 36: 0.06, 29: 0.04, 47: 0.03, 46: 0.03, 33: 0.03, 45: 0.02, 64: 0.01}
SYNTHETIC4 = 900_000
SYNTHETIC6 = 160_000


def family(text: str) -> int:
    return 6 if ":" in text else 4


def format_address(packed: bytes) -> str:
    """Text of a 16-byte address, IPv4 when it is IPv4-mapped."""
    if packed.startswith(MAPPED):
        return socket.inet_ntop(socket.AF_INET, packed[12:])
    return socket.inet_ntop(socket.AF_INET6, packed)


def parse_prefix(text: str) -> tuple[bytes, int]:
    """16 network-order bytes and a length of 0..128; IPv4 as ::ffff:a.b.c.d/(96+n)."""
    address, _, bits = text.partition("/")
    if ":" in address:
        return socket.inet_pton(socket.AF_INET6, address), int(bits or 128)
    return MAPPED + socket.inet_pton(socket.AF_INET, address), 96 + int(bits or 32)


@dataclass(frozen=True)
class Table:
    """Prefixes and their origin AS as three parallel arrays, the form `PrefixTable.from_packed` takes."""

    source: str
    addresses: NDArray[np.uint8]  # n x 16, network order
    lengths: NDArray[np.uint8]  # 0..128, IPv4 as 96 + n
    values: NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.values)

    @cached_property
    def is4(self) -> NDArray[np.bool_]:
        return (self.addresses[:, :12] == np.frombuffer(MAPPED, np.uint8)).all(axis=1)

    @cached_property
    def texts(self) -> list[str]:
        """Every prefix as text, table order."""
        packed = self.addresses.tobytes()
        bits = np.where(self.is4, self.lengths.astype(np.int16) - 96, self.lengths).tolist()
        return [f"{format_address(packed[16 * i : 16 * i + 16])}/{length}" for i, length in enumerate(bits)]

    @cached_property
    def items(self) -> list[tuple[str, int]]:
        """(prefix, AS) of every row, table order."""
        return list(zip(self.texts, self.values.tolist(), strict=True))

    def rows(self, wanted: int) -> list[tuple[str, int]]:
        """(prefix, AS) of one family: 4 or 6."""
        return [self.items[i] for i in np.flatnonzero(self.is4 == (wanted == 4)).tolist()]

    def subset(self, count: int) -> Table:
        """`count` rows drawn at random, in random order."""
        chosen = np.random.default_rng(SEED).permutation(len(self))[:count]
        return Table(f"{self.source}, {count} drawn", self.addresses[chosen], self.lengths[chosen], self.values[chosen])

    @cached_property
    def ranges4(self) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        """Disjoint IPv4 ranges: starts (host order, first 0) and the AS of each, 0 for none."""
        starts, values = self._ranges(4)
        return np.array(starts, np.uint32), np.array(values, np.uint32)

    @cached_property
    def ranges6(self) -> tuple[list[int], list[int]]:
        """Disjoint IPv6 ranges as Python integers, which no numpy type holds."""
        return self._ranges(6)

    def _ranges(self, wanted: int) -> tuple[list[int], list[int]]:
        width = 32 if wanted == 4 else 128
        packed = self.addresses.tobytes()
        items = []
        for i in np.flatnonzero(self.is4 == (wanted == 4)).tolist():
            bits = int(self.lengths[i]) - (128 - width)
            start = int.from_bytes(packed[16 * i : 16 * i + 16]) & ((1 << width) - 1)
            items.append((start, bits, int(self.values[i])))
        items.sort()
        starts, values = [0], [0]

        def mark(at: int, value: int) -> None:
            if starts[-1] == at:
                values[-1] = value
            elif values[-1] != value and at < 1 << width:
                starts.append(at)
                values.append(value)

        open_prefixes: list[tuple[int, int]] = []  # (end, value), innermost last
        for start, bits, value in items:
            while open_prefixes and open_prefixes[-1][0] <= start:
                end, _ = open_prefixes.pop()
                mark(end, open_prefixes[-1][1] if open_prefixes else 0)
            mark(start, value)
            open_prefixes.append((start + (1 << (width - bits)), value))
        while open_prefixes:
            end, _ = open_prefixes.pop()
            mark(end, open_prefixes[-1][1] if open_prefixes else 0)
        return starts, values

    def lookup(self, text: str) -> int | None:
        """The right answer, slowly: bisection over the disjoint ranges. Every subject is checked against it."""
        packed, _ = parse_prefix(text)
        v4 = family(text) == 4
        starts, values = self._bisect4 if v4 else self.ranges6
        return values[bisect_right(starts, int.from_bytes(packed[12:] if v4 else packed)) - 1] or None

    @cached_property
    def _bisect4(self) -> tuple[list[int], list[int]]:
        starts, values = self.ranges4
        return starts.tolist(), values.tolist()


def from_rows(source: str, rows: list[tuple[str, int]]) -> Table:
    packed, lengths = bytearray(), bytearray()
    for text, _ in rows:
        address, bits = parse_prefix(text)
        packed += address
        lengths.append(bits)
    return Table(
        source,
        np.frombuffer(bytes(packed), np.uint8).reshape(-1, 16),
        np.frombuffer(bytes(lengths), np.uint8),
        np.array([value for _, value in rows], np.uint32),
    )


def data_folder() -> Path | None:
    """The folder of real data, or None when GOBANFAST_DATA is not set."""
    folder = os.environ.get("GOBANFAST_DATA")
    return Path(folder) if folder else None


def load_table() -> Table:
    """The real table when GOBANFAST_DATA has it, else the synthetic one."""
    folder = data_folder()
    if folder is None:
        return synthetic_table()
    path = folder / "asn-full.csv.gz"
    with gzip.open(path, "rt") as lines:
        fields = (line.split(",") for line in lines)
        return from_rows(path.name, [(row[0], int(row[1])) for row in fields])


def synthetic_table() -> Table:
    """A seeded table with the size and prefix lengths of the real one."""
    random = np.random.default_rng(SEED)
    mapped = _prefixes(random, SYNTHETIC4, LENGTHS4, 32)
    native = _prefixes(random, SYNTHETIC6, LENGTHS6, 128)
    values = random.zipf(1.2, len(mapped) + len(native)) % 76_000 + 1
    packed = b"".join(MAPPED + start.to_bytes(4) for start, _ in mapped) + b"".join(s.to_bytes(16) for s, _ in native)
    lengths = [96 + bits for _, bits in mapped] + [bits for _, bits in native]
    return Table(
        "synthetic",
        np.frombuffer(packed, np.uint8).reshape(-1, 16),
        np.array(lengths, np.uint8),
        values.astype(np.uint32),
    )


def _prefixes(
    random: np.random.Generator, count: int, fractions: dict[int, float], width: int
) -> list[tuple[int, int]]:
    lengths = list(fractions)
    weights = list(fractions.values())
    weights[0] = 1.0 - sum(weights)
    found: set[tuple[int, int]] = set()
    blocks = random.integers(0x2001, 0x2C10, 200).tolist()  # IPv6 clusters in what the registries hand out
    while len(found) < count:
        for bits in random.choice(lengths, count - len(found), p=weights).tolist():
            if width == 32:
                start = int(random.integers(0x01000000, 0xE0000000))
            else:
                start = blocks[int(random.integers(len(blocks)))] << 112 | int(random.integers(1 << 48)) << 64
            found.add((start >> (width - bits) << (width - bits), bits))
    return sorted(found)


@dataclass
class Queries:
    """Query sets over one table, as lists of ASCII bytes: `fresh` makes new str objects of them each time."""

    table: Table
    count: int = QUERIES
    _sets: dict[str, NDArray[np.uint8]] = field(default_factory=dict)

    def packed(self, name: str) -> NDArray[np.uint8]:
        """Query set `name` as n x 16 bytes, network order."""
        if name not in self._sets:
            self._sets[name] = self._draw(name)
        return self._sets[name]

    def uint32(self, name: str) -> NDArray[np.uint32]:
        """An IPv4 query set as host-order integers."""
        return np.ascontiguousarray(self.packed(name)[:, 12:]).view(">u4").ravel().astype(np.uint32)

    def raw(self, name: str) -> list[bytes]:
        packed = self.packed(name).tobytes()
        return [format_address(packed[i : i + 16]).encode() for i in range(0, len(packed), 16)]

    def keys(self, name: str) -> list[bytes]:
        """`count` distinct addresses that hold the whole query set: the keys of the `dict.get` yardstick.

        In random order, so that neither keys nor dict entries lie in memory in the order they are asked.
        """
        mixed = name.partition("_")[0] + "_mix"
        distinct = dict.fromkeys([*self.raw(name), *self.raw(mixed)])
        keys = list(distinct)[: self.count]
        return [keys[i] for i in np.random.default_rng(SEED).permutation(len(keys)).tolist()]

    def _draw(self, name: str) -> NDArray[np.uint8]:
        random = np.random.default_rng([SEED, *name.encode()])
        wanted, _, kind = name.partition("_")
        v4 = wanted == "v4"
        if kind == "uniform":
            return self._uniform(random, self.count, v4)
        if kind == "prefix":
            return self._inside(random, self.count, v4)
        if kind == "mix":
            half = self.count // 2
            both = np.concatenate([self._uniform(random, half, v4), self._inside(random, self.count - half, v4)])
            return both[random.permutation(self.count)]
        if kind == "zipf":
            population = self.packed(f"{wanted}_mix")[:ZIPF_POPULATION]
            weights = np.arange(1, len(population) + 1, dtype=float) ** -ZIPF_EXPONENT
            return population[random.choice(len(population), self.count, p=weights / weights.sum())]
        if kind == "hot":
            return np.repeat(self._inside(random, 1, v4), self.count, axis=0)
        raise ValueError(f"query set {name!r} is not one of uniform, prefix, mix, zipf, hot of v4 or v6")

    def _uniform(self, random: np.random.Generator, count: int, v4: bool) -> NDArray[np.uint8]:
        drawn = random.integers(0, 256, (count, 16), np.uint8)
        if v4:  # 1.0.0.0 - 223.255.255.255
            drawn[:, :12] = np.frombuffer(MAPPED, np.uint8)
            drawn[:, 12] = random.integers(1, 224, count, np.uint8)
        else:  # 2000::/3
            drawn[:, 0] = 0x20 | (drawn[:, 0] & 0x1F)
        return drawn

    def _inside(self, random: np.random.Generator, count: int, v4: bool) -> NDArray[np.uint8]:
        """Random hosts inside random prefixes of the table: all hit, and the caches are of least help."""
        rows = random.choice(np.flatnonzero(self.table.is4 == v4), count)
        host = random.integers(0, 256, (count, 16), np.uint8)
        position = np.arange(128) >= self.table.lengths[rows][:, None]  # bit belongs to the host part
        mask = np.packbits(position, axis=1)
        return self.table.addresses[rows] | (host & mask)


def fresh(raw: list[bytes]) -> list[str]:
    """New str objects: no cached hash, not the objects a dict holds as keys."""
    return [text.decode() for text in raw]


def block_list(table: Table) -> list[str]:
    """About 383,000 distinct IPv4 prefixes, 325,000 of them single addresses, as threat feeds ship them.

    The FireHOL list when GOBANFAST_DATA has it, filled up from random places inside the table.
    """
    folder = data_folder()
    entries: dict[str, None] = {}
    if folder is not None:
        with gzip.open(folder / "block-addresses.netset.gz", "rt") as lines:
            entries = dict.fromkeys(line.strip() for line in lines if not line.startswith("#"))
    queries = Queries(table, 500_000)
    random = np.random.default_rng(SEED)
    wide = sum("/" in entry and not entry.endswith("/32") for entry in entries)
    addresses = iter(queries.uint32("v4_prefix").tolist())
    while wide < 58_000:
        bits = int(random.integers(24, 31))
        start = next(addresses) >> (32 - bits) << (32 - bits)
        text = f"{socket.inet_ntoa(start.to_bytes(4))}/{bits}"
        wide += text not in entries
        entries[text] = None
    while len(entries) < 383_000:
        entries[socket.inet_ntoa(next(addresses).to_bytes(4))] = None
    return [entry if "/" in entry else f"{entry}/32" for entry in entries]
