"""A line of a JSON log: the object in it, and the member that a key with dots names."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_ESCAPE = re.compile(r"\\x([0-9A-Fa-f]{2})")  # nginx without escape=json writes \xHH, which JSON does not have


def record(line: str) -> dict[str, Any] | None:
    """The object in a line; None where there is none."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        try:
            found = json.loads(_ESCAPE.sub(r"\\u00\1", line))
        except (ValueError, RecursionError):
            return None
    return found if isinstance(found, dict) else None


def member(found: Mapping[str, Any], key: str) -> Any:
    """What the object has under `key`, or inside what it has under the part before a dot; None where it has nothing."""
    if key in found or "." not in key:
        return found.get(key)
    outer, _, inner = key.partition(".")
    nested = found.get(outer)
    return member(nested, inner) if isinstance(nested, dict) else None
