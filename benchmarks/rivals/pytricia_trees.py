"""pytricia: a Patricia tree in C. One tree holds one family, so there are two of each."""

from __future__ import annotations

from typing import Any

from benchmarks.cases import Subject, contains_each
from benchmarks.tables import Table, family

RETURNS = "the stored object"


def trees(table: Table, frozen: bool) -> dict[int, Any]:
    from pytricia import PyTricia

    pair = {4: PyTricia(32), 6: PyTricia(128)}
    for wanted, tree in pair.items():
        for prefix, value in table.rows(wanted):
            tree[prefix] = value
        if frozen:
            tree.freeze()
    return pair


def build(table: Table) -> list[Subject]:
    live, frozen = trees(table, False), trees(table, True)
    live_get = {wanted: tree.get for wanted, tree in live.items()}
    frozen_get = {wanted: tree.get for wanted, tree in frozen.items()}
    return [
        Subject("pytricia .get", "peer", RETURNS, live_get, asn=lambda text: live_get[family(text)](text)),
        Subject("pytricia frozen .get", "peer", RETURNS, frozen_get, asn=lambda text: frozen_get[family(text)](text)),
        Subject("pytricia frozen in", "peer", "bool", frozen, contains_each),
    ]
