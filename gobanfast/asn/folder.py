"""Folder for what is fetched and learned for a rules file: beside it, or what GOBANFAST_FEEDS names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

LEARNED = "learned-asn.csv"
FOLDER = ".gobanfast-feeds"


def folder_of(rules: str | os.PathLike[str], environ: Mapping[str, str] = os.environ) -> Path:
    """The folder of a rules file."""
    from pathlib import Path

    return Path(folder_path(rules, environ))


def folder_path(rules: str | os.PathLike[str], environ: Mapping[str, str] = os.environ) -> str:
    """The same as text; loading compiled rules imports nothing for it."""
    return environ.get("GOBANFAST_FEEDS") or os.path.join(os.path.dirname(os.path.abspath(rules)), FOLDER)
