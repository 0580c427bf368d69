"""The no-op Cython calls. `dict.get` needs the query set, so the suites add it."""

from __future__ import annotations

from benchmarks.cases import Subject
from benchmarks.tables import Table


def build(table: Table) -> list[Subject]:
    from benchmarks import floor

    function, method = floor.noop, floor.Noop().method
    return [
        Subject("no-op call", "yardstick", "None", {4: function, 6: function}),
        Subject("no-op method", "yardstick", "None", {4: method, 6: method}),
    ]
