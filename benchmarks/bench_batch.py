"""Batch lookups, one core: packed uint32, packed 16 bytes and lists of str, a million addresses at a time.

Packed forms are asked twice, and the second pass is timed: a pass takes a few milliseconds, and the first would mostly
say how long it takes to bring back what the other subjects pushed out of the caches. Lists are asked once, new ones
each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.cases import Case, Data, Kind, Subject, str_case, timed
from benchmarks.rivals.maxminddb_rust_reader import get_many
from benchmarks.tables import BATCH, Queries, Table, fresh

SUITE = "batch"
CAPTION = "Batch lookups: million lookups per second, median"
PACKED4 = ("v4_mix", "v4_zipf", "v4_uniform")
PACKED6 = ("v6_mix", "v6_zipf")
TEXT = ("v4_mix", "v6_mix")
NONE = 0xFFFFFFFF


def take_table(table: Table) -> NDArray[np.uint32]:
    """AS of each IPv4 /24: what a 64 MB array can say. Prefixes longer than /24 are left out."""
    found = np.zeros(1 << 24, np.uint32)
    rows = np.flatnonzero(table.is4 & (table.lengths <= 96 + 24))
    rows = rows[np.argsort(table.lengths[rows], kind="stable")]
    starts = np.ascontiguousarray(table.addresses[rows][:, 12:]).view(">u4").ravel() >> 8
    counts = 1 << (120 - table.lengths[rows].astype(np.int64))
    for start, count, value in zip(starts.tolist(), counts.tolist(), table.values[rows].tolist(), strict=True):
        found[start : start + count] = value
    return found


def cases(data: Data) -> Iterator[Case]:
    table, queries = data.table, Queries(data.table, BATCH)
    ours = data.prefix_table
    out = np.zeros(BATCH, np.uint32)

    def case(group: str, name: str, run: Callable[[NDArray[np.uint32]], object], kind: Kind = "peer") -> Case:
        def warm() -> NDArray[np.uint32]:
            run(out)
            return out

        return Case(SUITE, group, name, kind, BATCH, warm, run, "uint32 array")

    starts, values = table.ranges4
    slash24 = take_table(table)
    for group in PACKED4:
        addresses = queries.uint32(group)

        def ranked(target: NDArray[np.uint32], addresses: NDArray[np.uint32] = addresses) -> None:
            np.take(values, np.searchsorted(starts, addresses, "right") - 1, out=target, mode="clip")

        def taken(target: NDArray[np.uint32], addresses: NDArray[np.uint32] = addresses) -> None:
            np.take(slash24, addresses >> 8, out=target, mode="clip")

        label = f"{group} uint32"
        yield case(label, "gobanfast lookup_many", lambda out, asked=addresses: ours.lookup_many(asked, out), "ours")
        yield case(label, "numpy searchsorted + take", ranked)
        yield case(label, "numpy 2^24 take", taken)
    for group in PACKED6:
        packed = queries.packed(group)
        label = f"{group} 16 bytes"
        yield case(label, "gobanfast lookup_many", lambda out, asked=packed: ours.lookup_many(asked, out), "ours")
    for group in TEXT:
        yield from _text_cases(data, queries, group, out)


def _text_cases(data: Data, queries: Queries, group: str, out: NDArray[np.uint32]) -> Iterator[Case]:
    raw, family, label = queries.raw(group), int(group[1]), f"{group} str"
    some = raw[: BATCH // 10]
    yield Case(
        SUITE, label, "gobanfast lookup_many", "ours", BATCH,
        lambda: fresh(raw), lambda texts: data.prefix_table.lookup_many(texts, out), "uint32 array",
    )  # fmt: skip
    keys = dict.fromkeys(fresh(data.queries.keys(group)), 1)
    hits = data.queries.raw(group)
    yield str_case(SUITE, label, Subject("dict.get", "yardstick", "object", {family: keys.get}), family, hits)
    for subject in data.subjects:
        if subject.kind == "peer" and subject.name in ("pytricia frozen .get", "maxminddb C .get"):
            yield str_case(SUITE, label, subject, family, some)
        if subject.name == "maxminddb-rust .get_path":
            many = partial(get_many, subject.targets[family].__self__)
            name = "maxminddb-rust get_many_path"
            yield Case(SUITE, label, name, "peer", len(some), lambda: fresh(some), many, "list of int")


def disagreements(data: Data) -> list[str]:
    """Whether the packed forms answer as numpy does over the disjoint ranges."""
    queries = Queries(data.table, BATCH)
    starts, values = data.table.ranges4
    asked = queries.uint32("v4_mix")
    expected = values[np.searchsorted(starts, asked, "right") - 1]
    out = np.empty(BATCH, np.uint32)
    data.prefix_table.lookup_many(asked, out)
    wrong = int((np.where(out == NONE, 0, out) != expected).sum())
    return [f"v4_mix uint32: gobanfast lookup_many differs on {wrong} of {BATCH}"] if wrong else []


def test_case(benchmark: Any, case: Case) -> None:
    """One case alone, for pytest-benchmark's statistics; the record comes from `python -m benchmarks.run`."""
    timed(benchmark, case)
