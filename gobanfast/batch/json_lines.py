"""Parser of JSON log lines, and look-up of members by dotted keys.

Lines come as Latin-1, one character a byte; texts of the object are UTF-8, and a byte that is none is a surrogate, as
`bytes.decode("utf-8", "surrogateescape")` has it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|.)", re.DOTALL)  # nginx without escape=json writes \xHH: JSON has none


def parse_line(line: str) -> dict[str, Any] | None:
    """The object in a line; None where there is none."""
    try:
        text = line if line.isascii() else line.encode("latin-1").decode("utf-8", "surrogateescape")
        found = json.loads(text)
    except (ValueError, RecursionError):
        try:
            found = json.loads(_ESCAPE.sub(_unescaped, text))
        except (ValueError, RecursionError):
            return None
    return found if isinstance(found, dict) else None


def _unescaped(found: re.Match[str]) -> str:
    if found[1] is None:
        return found[0]
    byte = int(found[1], 16)
    return f"\\u{byte if byte < 0x80 else 0xDC00 | byte:04x}"


def member(found: Mapping[str, Any], key: str) -> Any:
    """What the object has under `key`, or inside what it has under the part before a dot; None where it has nothing."""
    if key in found or "." not in key:
        return found.get(key)
    outer, _, inner = key.partition(".")
    nested = found.get(outer)
    return member(nested, inner) if isinstance(nested, dict) else None
