"""One adapter per peer. Each module has `build(table) -> list[Subject]` and names its distributions.

A module whose library is missing or fails to load the table is skipped, and the reason is recorded.
"""

from __future__ import annotations

from importlib import import_module

from benchmarks.cases import Subject
from benchmarks.tables import Table

MODULES = (
    "yardsticks",
    "gobanfast_prefix",
    "gobanfast_asn",
    "pytricia_trees",
    "py_radix",
    "pyasn_file",
    "pysubnettree_tree",
    "maxminddb_reader",
    "maxminddb_rust_reader",
    "standard_library",
)  # fmt: skip


def load(table: Table, modules: tuple[str, ...] = MODULES) -> tuple[list[Subject], dict[str, str]]:
    """Subjects of every adapter that loads, and why the others do not."""
    subjects: list[Subject] = []
    skipped: dict[str, str] = {}
    for module in modules:
        try:
            subjects += import_module(f"benchmarks.rivals.{module}").build(table)
        except Exception as error:  # noqa: BLE001 - a rival may fail in any way; the run goes on and says so
            skipped[module] = f"{type(error).__name__}: {error}"
    return subjects, skipped
