"""Ours: `PrefixTable` with the AS as value."""

from __future__ import annotations

from benchmarks.cases import Subject, contains_each
from benchmarks.tables import Table


def build(table: Table) -> list[Subject]:
    from gobanfast._core.prefix_table import PrefixTable

    found = PrefixTable.from_packed(table.addresses, table.lengths, table.values)
    call = found.lookup
    return [
        Subject("gobanfast lookup", "ours", "int", {4: call, 6: call}, asn=call),
        Subject("gobanfast in", "ours", "bool", {4: found, 6: found}, contains_each),
    ]
