"""py-radix: a radix tree in C, both families in one tree; the AS lives in the data dict of each node."""

from __future__ import annotations

from typing import Any

from benchmarks.cases import Subject
from benchmarks.tables import Table


def tree(table: Table) -> Any:
    from radix import Radix

    found = Radix()
    for prefix, value in table.items:
        found.add(prefix).data["asn"] = value
    return found


def build(table: Table) -> list[Subject]:
    call = tree(table).search_best

    def asn(text: str) -> int | None:
        node = call(text)
        return node and node.data["asn"]

    return [Subject("py-radix search_best", "peer", "a new node object", {4: call, 6: call}, asn=asn)]
