"""The compiled floor: which modules `_core` reads, and which C headers each file of declarations has.

Imports of Python modules are import-linter's, in `make lint`; it does not read Cython.
"""

from __future__ import annotations

import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import gobanfast

CORE = Path(gobanfast.__file__).parent / "_core"
CIMPORT = re.compile(r"^from (gobanfast[\w.]*) cimport", re.MULTILINE)
IMPORT = re.compile(r"^\s*(?:from (gobanfast[\w.]*) import|import (gobanfast[\w.]*))", re.MULTILINE)
EXTERN = re.compile(r'^cdef extern from "([^"]*)"', re.MULTILINE)
SOURCES = sorted([*CORE.rglob("*.pyx"), *CORE.rglob("*.pxd")])
# What extensions import of Python: themselves, what all rooms share, and parsers and values that know no engine.
SHARED = {"_core", "_decision_dict", "_digest", "_errors", "_fork", "_values"}
VALUES = {"bans", "names", "origins", "wire"}

pytestmark = pytest.mark.skipif(not SOURCES, reason="no sources beside the installed package")


def module(path: Path) -> str:
    """Dotted name of a .pyx or .pxd, of which a module may have both."""
    return ".".join(path.relative_to(CORE.parents[1]).with_suffix("").parts)


def cimports() -> dict[str, set[str]]:
    """Module -> the modules whose declarations it reads; those of its own .pxd are its own."""
    found: dict[str, set[str]] = {}
    for path in SOURCES:
        found.setdefault(module(path), set()).update(CIMPORT.findall(path.read_text()))
    return found


def test_core_reads_declarations_of_core_alone() -> None:
    """No cimport leaves `_core`."""
    named = set().union(*cimports().values())

    assert len(named) > 10
    assert set() == {name for name in named if not name.startswith("gobanfast._core.")}


def test_cimports_have_no_cycle() -> None:
    """Modules of `_core` can be put in order so that each reads declarations of earlier ones only."""
    assert set(cimports()) <= set(TopologicalSorter(cimports()).static_order())


def test_core_imports_no_room_above_the_values() -> None:
    """Extensions know no rules, engine, stores or frontends: neither at the top of a module nor in a function."""
    rooms = set()
    for path in SOURCES:
        for names in IMPORT.findall(path.read_text()):
            rooms |= {name.split(".")[1] for name in names if name}

    assert SHARED <= rooms
    assert set() == rooms - SHARED - VALUES


@pytest.mark.parametrize("path", sorted((CORE / "native").glob("[!_]*.pxd")), ids=lambda path: path.stem)
def test_declarations_are_of_the_headers_of_one_folder(path: Path) -> None:
    """native/X.pxd declares what headers in csrc/X have, each of which exists."""
    headers = EXTERN.findall(path.read_text())

    assert headers
    assert {path.stem} == {Path(header).parent.name for header in headers}
    assert [] == [header for header in headers if not (CORE.parent / "csrc" / header).is_file()]
