"""Parsers of durations and AS numbers as people write them."""

from __future__ import annotations

import operator
import re

MAX_ASN = 0xFFFFFFFF  # RFC 6793
MAX_DURATION = 100 * 366 * 86400.0

SECRET_BYTES = 16, 4096

_UNITS = {
    "ns": 1e-9,
    "us": 1e-6,
    "\u00b5s": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86400.0,
    "w": 604800.0,
}
_STEP = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|\u00b5s|ms|s|m|h|d|w)", re.ASCII)
_ASN = re.compile(r"(?:AS)?([0-9]{1,10})(?:\s*-\s*(?:AS)?([0-9]{1,10}))?", re.ASCII | re.IGNORECASE)
_ASN_FORMS = "write 15169, AS15169 or a range 64512-65534"


def parse_duration(value: object) -> float | None:
    """Seconds in a duration such as "1h30m", "500ms", "2w"; None for "permanent".

    Raises:
        ValueError: not a duration, zero, or past a hundred years; the message ends in a hint.
    """
    if value == "permanent":
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if value <= 0:  # fail2ban's bantime = -1 is for good
            raise ValueError(
                f"duration {value} is {'negative' if value < 0 else 'zero'}; write permanent, 90s or 1h30m"
            )
        raise ValueError(f"duration {value} has no unit; write {value}s, {value}m or {value}h")
    if not isinstance(value, str):
        raise ValueError("a duration is text; write 90s, 1h30m, 7d or permanent")
    if value.startswith("-"):
        raise ValueError(f"duration '{value[:80]}' is negative; write permanent, 90s or 1h30m")
    steps = _STEP.findall(value)
    if not steps or "".join(number + unit for number, unit in steps) != value:
        raise ValueError(f"duration '{value[:80]}' is not valid; write 90s, 1h30m, 500ms, 7d, 2w or permanent")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in steps)
    if seconds <= 0:
        raise ValueError(f"duration '{value[:80]}' is zero; write 90s, 1h30m or the like")
    if seconds > MAX_DURATION:
        raise ValueError(f"duration '{value[:80]}' is longer than a hundred years; write permanent")
    return seconds


def duration_text(seconds: float | None) -> str:
    """A duration as rules write it, such as "1h30m"; "permanent" for None."""
    if seconds is None:
        return "permanent"
    parts, rest = [], seconds
    for unit in ("d", "h", "m"):
        count, rest = divmod(rest, _UNITS[unit])
        parts += [f"{count:.0f}{unit}"] if count else []
    return "".join(parts + ([f"{rest:g}s"] if rest or not parts else []))


def parse_asn(value: object) -> tuple[int, int]:
    """First and last of the AS numbers in 15169, "AS15169" or "64512-65534".

    Raises:
        ValueError: not an AS number or a range of them; the message ends in a hint.
    """
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError(f"AS number {value!r} is not valid; {_ASN_FORMS}")
    match = _ASN.fullmatch(str(value).strip())
    if match is None:
        named = re.search(r"[A-Za-z]{3}", str(value))
        forms = f"for a name write asn_name: '{str(value)[:80]}'" if named else _ASN_FORMS
        raise ValueError(f"AS number '{str(value)[:80]}' is not valid; {forms}")
    first = int(match[1])
    last = int(match[2]) if match[2] else first
    if last > MAX_ASN:
        raise ValueError(f"AS number '{value}' is too large; the last one is {MAX_ASN}")
    if first == 0:
        raise ValueError(f"AS number '{value}' is reserved (RFC 7607); {_ASN_FORMS}")
    if first > last:
        raise ValueError(f"AS range '{value}' ends before it starts; write {last}-{first}")
    return first, last


def refuse_container(items: object, kind: str) -> None:
    """None for what may be pairs to make a table `kind` of. TypeError for a dict, and for one text."""
    if isinstance(items, dict):
        raise TypeError(f"items is a dict, not pairs; write {kind}(items.items())")
    if items is None or isinstance(items, (str, bytes)):
        raise TypeError(f"items is {items!r:.80}, not pairs; write {kind}([(text, number), ...])")


def pair(item: object, index: int) -> tuple[str, int]:
    """(text, number) of an item of a table. TypeError that says which item, and what is wrong with it."""
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        raise TypeError(f"item {index}: expected a pair (text, number), got {item!r:.80}")
    text, value = item
    if type(text) is not str:
        raise TypeError(f"item {index}: expected str, got {type(text).__name__}")
    try:
        return text, operator.index(value)
    except TypeError:
        raise TypeError(f"item {index}: value {value!r:.80} is not a whole number") from None


def read_secret(place: str) -> bytes:
    """The secret that is at `env:NAME` or `file:PATH`, blanks around it cut off.

    Raises:
        ValueError: there is none, or it has less than 16 or more than 4,096 bytes. The secret is never in the message.
    """
    import os

    kind, _, name = place.partition(":")
    if kind == "env":
        text = os.environb.get(name.encode())
        if text is None:
            raise ValueError(f"{place} is not set; set the variable {name} to 32 random characters")
    else:
        try:
            with open(name, "rb") as file:
                text = file.read(SECRET_BYTES[1] + 1)
        except OSError as error:
            raise ValueError(f"{place} cannot be read: {error.strerror}; write 32 random characters there") from None
    text = text.strip()
    if not SECRET_BYTES[0] <= len(text) <= SECRET_BYTES[1]:
        raise ValueError(f"{place} has {len(text)} bytes; a secret has {SECRET_BYTES[0]} to {SECRET_BYTES[1]}")
    return text
