"""Folder of fetched feeds: the entries of each in a text file that rules are compiled over, and its state as JSON.

Whoever fetches writes here, through a temporary file and a rename; rules read, and the watcher follows the files as any
list file. The folder is `.gobanfast-feeds` beside the rules file, or what GOBANFAST_FEEDS names.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gobanfast._values import parse_asn
from gobanfast.asn.folder import FOLDER, folder_of

__all__ = ["FOLDER", "SUFFIXES", "entries_path", "folder_of", "read_asns", "read_risks", "read_state", "state_path"]

SUFFIXES = {"prefix": "netset", "asn": "asns", "risk": "csv", "name": "names", "table": "gbf"}
"""Ending of the file of entries, by kind of feed."""


def entries_path(folder: Path, name: str, kind: str) -> Path:
    """The file with the entries of a feed."""
    return folder / f"{name}.{SUFFIXES[kind]}"


def state_path(folder: Path, name: str) -> Path:
    """The file with the state of a feed."""
    return folder / f"{name}.json"


def read_state(folder: Path, name: str) -> dict[str, Any]:
    """The state of a feed; empty for one that was never fetched, or whose file is damaged."""
    try:
        found = json.loads(state_path(folder, name).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def read_asns(path: Path) -> list[tuple[int, int]]:
    """Ranges of AS numbers, one a line. Raises OSError, ValueError."""
    return [parse_asn(line) for line in path.read_text().split()]


def read_risks(path: Path) -> list[tuple[int, int, float]]:
    """Ranges of AS numbers with a risk, `AS64500,0.9` a line. Raises OSError, ValueError."""
    found = []
    for line in path.read_text().split():
        asn, _, risk = line.partition(",")
        found.append((*parse_asn(asn), float(risk)))
    return found
