"""Trace headers, read by their grammars with regular expressions: W3C Trace Context level 2, W3C Baggage, B3, and
member `ot` of tracestate. Limits of bytes are not in here."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote_to_bytes

PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[^\x00-\x08\x0a-\x1f]*)?")
KEY = re.compile(r"[a-z0-9][a-z0-9_\-*/@]{0,255}")
VALUE = re.compile(r"[ -+\--<>-~]{0,255}[!-+\--<>-~]")
TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
OCTETS = re.compile(r"[!#-+\--:<-\[\]-~]*")


def traceparent(lines: list[str]) -> tuple[str, str, int] | None:
    """(trace id, parent id, known flags) of exactly one line."""
    found = PARENT.fullmatch(lines[0].strip(" \t")) if len(lines) == 1 else None
    if found is None:
        return None
    version, trace_id, parent_id, flags, rest = found.groups()
    if version == "ff" or (version == "00" and rest is not None) or not int(trace_id, 16) or not int(parent_id, 16):
        return None
    return trace_id, parent_id, int(flags, 16) & 3


def tracestate(lines: list[str]) -> list[tuple[str, str]] | None:
    """Members in order, of a key twice the first; None: the list is dropped."""
    members: dict[str, str] = {}
    count = 0
    for member in [member.strip(" \t") for line in lines for member in line.split(",")]:
        if not member:
            continue
        key, equals, value = member.partition("=")
        count += 1
        if not equals or not KEY.fullmatch(key) or not VALUE.fullmatch(value) or count > 32:
            return None
        members.setdefault(key, value)
    return list(members.items())


def tracestate_set(lines: list[str], key: str, value: str) -> list[tuple[str, str]]:
    """Members after an entry of one's own was written."""
    others = [(name, text) for name, text in tracestate(lines) or () if name != key]
    return [(key, value), *others][:32]


def pair(text: str) -> tuple[str, str | None] | None:
    """A key, with a value after `=`; None when one of them is malformed."""
    key, equals, value = text.partition("=")
    key, value = key.strip(" \t"), value.strip(" \t")
    if not TOKEN.fullmatch(key) or not OCTETS.fullmatch(value):
        return None
    return key, unquote_to_bytes(value).decode("utf-8", "replace") if equals else None


def baggage(lines: list[str]) -> list[tuple[str, str, tuple[tuple[str, str | None], ...]]]:
    """Well-formed members in order, the first 180."""
    members: list[Any] = []
    for member in [member for line in lines for member in line.split(",")]:
        first, *others = [pair(part) for part in member.split(";")]
        if first is not None and first[1] is not None and None not in others:
            members.append((*first, tuple(others)))
    return members[:180]


def b3(headers: list[tuple[str, str]]) -> dict[str, Any] | None:
    """The context of the single header, else of the others."""
    named: dict[str, str] = {}
    for name, value in headers:
        named.setdefault(name.lower(), value.strip(" \t"))
    return b3_single(named["b3"]) or b3_multi(named) if "b3" in named else b3_multi(named)


def context(trace_id: str | None, span_id: str | None, parent_id: str | None, state: str | None) -> dict[str, Any]:
    return {
        "trace_id": trace_id and trace_id.zfill(32),
        "span_id": span_id,
        "parent_id": None if parent_id is None or not int(parent_id, 16) else parent_id,
        "sampled": None if state is None else state in {"1", "d"},
        "debug": state == "d",
    }


def b3_single(text: str) -> dict[str, Any] | None:
    if text in {"0", "1", "d"}:
        return context(None, None, None, text)
    found = re.fullmatch(r"([0-9a-f]{32}|[0-9a-f]{16})-([0-9a-f]{16})(?:-([01d]))?(?:-([0-9a-f]{16}))?", text)
    if found is None or not int(found[1], 16) or not int(found[2], 16):
        return None
    return context(found[1], found[2], found[4], found[3])


WORDS = {"0": "0", "1": "1", "false": "0", "False": "0", "true": "1", "True": "1", "d": "1"}


def b3_multi(named: dict[str, str]) -> dict[str, Any] | None:
    state = named.get("x-b3-sampled")
    if state is not None and state not in WORDS:
        return None
    state = None if state is None else WORDS[state]
    if named.get("x-b3-flags") == "1":
        state = "d"
    trace_id, span_id, parent_id = (named.get(f"x-b3-{name}") for name in ("traceid", "spanid", "parentspanid"))
    if trace_id is span_id is parent_id is None:
        return None if state is None else context(None, None, None, state)
    if trace_id is None or not re.fullmatch(r"[0-9a-f]{32}|[0-9a-f]{16}", trace_id) or not int(trace_id, 16):
        return None
    if span_id is None or not re.fullmatch(r"[0-9a-f]{16}", span_id) or not int(span_id, 16):
        return None
    if parent_id is not None and not re.fullmatch(r"[0-9a-f]{16}", parent_id):
        return None
    return context(trace_id, span_id, parent_id, state)


def ot_set(text: str, threshold: int | None) -> str:
    """The member's value with another `th`, in front; None: without one."""
    others = [part for part in text.split(";") if part and not part.startswith("th:")]
    mine = [] if threshold is None else ["th:" + (f"{threshold:014x}".rstrip("0") or "0")]
    return ";".join([*mine, *others]).rstrip(" ")


def ot(text: str) -> tuple[int | None, int | None]:
    """(threshold, randomness) of 56 bits; of a key twice the first counts."""
    found: dict[str, str] = {}
    for part in text.split(";"):
        key, colon, value = part.partition(":")
        if colon:
            found.setdefault(key, value)
    threshold, randomness = found.get("th", ""), found.get("rv", "")
    return (
        int(threshold.ljust(14, "0"), 16) if re.fullmatch(r"[0-9a-f]{1,14}", threshold) else None,
        int(randomness, 16) if re.fullmatch(r"[0-9a-f]{14}", randomness) else None,
    )
