"""CONTRIBUTING.md is a map of this tree: every path it names is there, and every room of the package is on it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "CONTRIBUTING.md"
MADE = {"wheels/dist", ".venv-3.13", "build/debian13"}  # by make, when asked
TOP = ("gobanfast/", "tests/", "docs/", "examples/", "benchmarks/", "wheels/", ".ci/")

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="no source tree around the tests")


def named() -> set[Path]:
    """Paths in code spans: from the root, or, after one in the same cell, beside it."""
    found = set()
    for cell in re.split(r"[|\n]", PAGE.read_text()):
        folder = ROOT
        for span in re.findall(r"`([^`\s]+)`", cell):
            if "<" in span or "*" in span or span in MADE:
                continue
            if span.startswith(TOP) or span in {"setup.py", "pyproject.toml", "CHANGELOG.md"}:
                path = ROOT / span.split(" ")[0]
                folder = path.parent
                found.add(path)
            elif folder != ROOT and re.fullmatch(r"_?[a-z_]+(?:\.py|/)", span):
                found.add(folder / span)
    return found


def test_every_path_on_the_map_exists() -> None:
    """Folders and files that CONTRIBUTING.md names are where it says."""
    paths = named()

    assert len(paths) > 50
    assert [] == sorted(str(path) for path in paths if not path.exists())


def test_every_room_is_on_the_map() -> None:
    """Each folder of the package, and each of csrc, has its line."""
    folders = [path for path in (*(ROOT / "gobanfast").iterdir(), *(ROOT / "gobanfast/csrc").iterdir())
               if path.is_dir() and path.name != "__pycache__"]  # fmt: skip

    assert len(folders) > 15
    assert [] == sorted(str(path) for path in folders if path not in named())
