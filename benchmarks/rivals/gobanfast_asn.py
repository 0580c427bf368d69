"""Ours: `AsnTable`, made from the same rows as CSV text."""

from __future__ import annotations

from pathlib import Path

from benchmarks.cases import Subject
from benchmarks.tables import CACHE, Table


def csv(table: Table) -> Path:
    """Path of the table as `prefix,asn` lines."""
    CACHE.mkdir(exist_ok=True)
    path = CACHE / f"asn-{len(table)}.csv"
    path.write_text("".join(f"{prefix},{value}\n" for prefix, value in table.items))
    return path


def build(table: Table) -> list[Subject]:
    from gobanfast.asn import AsnTable

    call = AsnTable.from_csv(csv(table)).lookup
    return [Subject("gobanfast AsnTable.lookup", "ours", "int", {4: call, 6: call}, asn=call)]
