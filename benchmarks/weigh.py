"""Time and resident memory one subject takes for the whole table, as JSON: `python -m benchmarks.weigh NAME`.

Run in a process of its own, because memory freed by one subject would hide what the next one takes.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from time import thread_time_ns
from typing import Any

from benchmarks.bench_build import pack
from benchmarks.rivals import maxminddb_reader, py_radix, pyasn_file, pysubnettree_tree, pytricia_trees
from benchmarks.tables import Table, load_table

SUBJECTS: dict[str, Callable[[Table], Any]] = {
    "gobanfast": pack,
    "pytricia": lambda table: pytricia_trees.trees(table, False),
    "pytricia frozen": lambda table: pytricia_trees.trees(table, True),
    "py-radix": py_radix.tree,
    "pyasn": pyasn_file.reader,
    "pysubnettree": pysubnettree_tree.tree,
    "maxminddb C": maxminddb_reader.build,
}


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> int:
    table = load_table()
    table.items  # noqa: B018  # made before the clock starts
    gc.collect()
    before, started = resident_bytes(), thread_time_ns()
    kept = SUBJECTS[sys.argv[1]](table)
    nanoseconds = thread_time_ns() - started
    gc.collect()
    print(json.dumps({"ns": nanoseconds, "bytes": resident_bytes() - before}))
    del kept
    return 0


if __name__ == "__main__":
    sys.exit(main())
