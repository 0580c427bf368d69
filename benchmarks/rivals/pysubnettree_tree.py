"""pysubnettree: a Patricia tree in C++, IPv4 mapped into IPv6; a miss in `t[x]` raises, so `in` is timed too."""

from __future__ import annotations

from typing import Any

from benchmarks.cases import Subject, contains_each
from benchmarks.tables import Table


def tree(table: Table) -> Any:
    from SubnetTree import SubnetTree

    found = SubnetTree()
    for prefix, value in table.items:
        found[prefix] = value
    return found


def build(table: Table) -> list[Subject]:
    found = tree(table)
    return [Subject("pysubnettree in", "peer", "bool", {4: found, 6: found}, contains_each)]
