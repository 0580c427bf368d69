"""What a table costs to make, open and keep: whole, and how that grows from 1,000 to 1,000,000 prefixes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.cases import Case, Data, Row, Subject, str_case, timed
from benchmarks.tables import CACHE, SEED, Queries, Table

SUITE = "build"
CAPTION = "Build, load, size and growth: median (best)"
WHOLE = "whole table"
SIZES = (1_000, 10_000, 100_000, 1_000_000)


def cases(data: Data) -> Iterator[Case]:
    from gobanfast._core.prefix_table import PrefixTable
    from gobanfast.asn import AsnTable

    CACHE.mkdir(exist_ok=True)
    items = data.table.items
    csv = unsorted_csv(data.table)
    saved = CACHE / "table.gbf"
    data.prefix_table.save(saved)
    yield _once(WHOLE, "from_packed", lambda: pack(data.table))
    yield _once(WHOLE, "from Python strings", lambda: PrefixTable(items))
    yield _once(WHOLE, "AsnTable from unsorted CSV", lambda: AsnTable.from_csv(csv))
    yield _once(WHOLE, "load", lambda: PrefixTable.load(saved, verify=False))
    yield _once(WHOLE, "load, verified", lambda: PrefixTable.load(saved))
    for size in SIZES:
        yield from _growth(data.table.subset(size), f"{size:,}")


def pack(table: Table) -> Any:
    from gobanfast._core.prefix_table import PrefixTable

    return PrefixTable.from_packed(table.addresses, table.lengths, table.values)


def unsorted_csv(table: Table) -> str:
    """Path of `prefix,asn` lines in random order."""
    path = CACHE / "unsorted.csv"
    order = np.random.default_rng(SEED).permutation(len(table)).tolist()
    path.write_text("".join(f"{prefix},{value}\n" for prefix, value in (table.items[i] for i in order)))
    return str(path)


def _once(group: str, name: str, run: Any) -> Case:
    return Case(SUITE, group, name, "ours", 1, lambda: None, lambda _: run())


def _growth(table: Table, group: str) -> Iterator[Case]:
    yield _once(group, "from_packed, random order", lambda: pack(table))
    found, queries = pack(table), Queries(table)
    for family in (4, 6):
        raw = queries.raw(f"v{family}_mix")
        yield str_case(
            SUITE, group, Subject(f"lookup v{family}_mix", "ours", "int", {family: found.lookup}), family, raw
        )


def facts(data: Data) -> list[Row]:
    """Bytes of our tables, and what every peer takes to load the whole table in a process of its own."""
    rows = []
    for group, table in [(WHOLE, data.table), *((f"{size:,}", data.table.subset(size)) for size in SIZES)]:
        nbytes = float(pack(table).nbytes)
        rows.append(Row(SUITE, group, "bytes", "ours", "bytes", [nbytes]))
        rows.append(Row(SUITE, group, "bytes per prefix", "ours", "B", [nbytes / len(table)]))
    from benchmarks.weigh import SUBJECTS

    for name in SUBJECTS:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.weigh", name], capture_output=True, text=True, check=False
        )
        if done.returncode:
            data.skipped[f"weigh {name}"] = (done.stderr.splitlines() or ["no message"])[-1]
            continue
        weight = json.loads(done.stdout)
        rows.append(Row(SUITE, WHOLE, f"{name}: make", "peer", "ns", [weight["ns"]]))
        rows.append(Row(SUITE, WHOLE, f"{name}: resident memory grown by", "peer", "bytes", [weight["bytes"]]))
    return rows


def test_case(benchmark: Any, case: Case) -> None:
    """One case alone, for pytest-benchmark's statistics; the record comes from `python -m benchmarks.run`."""
    timed(benchmark, case)
