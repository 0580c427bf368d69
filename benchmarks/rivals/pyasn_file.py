"""pyasn: reads its own text format into a radix tree in C; `lookup` also formats the prefix."""

from __future__ import annotations

from typing import Any

from benchmarks.cases import Subject
from benchmarks.tables import CACHE, Table


def reader(table: Table) -> Any:
    from pyasn import pyasn

    CACHE.mkdir(exist_ok=True)
    path = CACHE / f"pyasn-{len(table)}.dat"
    path.write_text("".join(f"{prefix}\t{value}\n" for prefix, value in table.items))
    return pyasn(str(path))


def build(table: Table) -> list[Subject]:
    call = reader(table).lookup
    return [
        Subject("pyasn.lookup", "peer", "a new (asn, prefix) tuple", {4: call, 6: call}, asn=lambda text: call(text)[0])
    ]
