"""Import of limits as slowapi, Flask-Limiter and Django REST framework write them: "100/minute", "5 per 10 seconds"."""

from __future__ import annotations

import json
import re

from gobanfast.rules.importers.notes import Notes
from gobanfast.rules.importers.options import texts, unknown

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}  # by first letter, as Django REST framework reads them
LONG = {"month": 30 * 86400, "year": 360 * 86400}  # what limits takes these for
MOST = 86400  # the longest window here

_TEXT = re.compile(
    r"\s*(\d{1,10})\s*(?:/|per)\s*(\d{1,6})?\s*(month|year|second|sec|minute|min|hour|hr|day|s|m|h|d)s?\s*",
    re.IGNORECASE,
)


def limit_texts(text: str) -> list[tuple[int, int]]:
    """(requests, seconds) of each limit in a text; they are separated by `,`, `;` or `|`.

    Raises:
        ValueError: a part that is no limit, or one of nothing.
    """
    found = []
    for part in re.split(r"[,;|]", text):
        match = _TEXT.fullmatch(part)
        if match is None:
            raise ValueError(f"limit {part.strip()[:40]!r} is not valid; write 100/minute or 5 per 10 seconds")
        unit = match[3].lower()
        seconds = int(match[2] or 1) * (LONG.get(unit) or UNITS[unit[0]])
        if not int(match[1]) or not seconds:
            raise ValueError(f"limit {part.strip()[:40]!r} lets nothing in; write rules to keep requests out")
        found.append((int(match[1]), seconds))
    return found


def slowapi(options: dict[str, object], notes: Notes) -> str:
    """The rules file of `default_limits`, `application_limits` and `routes` (path -> text)."""
    unknown(options, ("default_limits", "application_limits", "routes"), "slowapi as it is read here", notes)
    entries = []
    for name in ("default_limits", "application_limits"):
        for number, text in enumerate(texts(options, name, (), notes), 1):
            entries += _entries(f"{name.removesuffix('_limits')}-{number}", "any", text, notes)
    routes = options.get("routes", {})
    if not isinstance(routes, dict) or not all(isinstance(text, str) for text in routes.values()):
        notes.error(f"routes is {routes!r:.80}", 'write a mapping of paths to texts: {"/home": "5/minute"}')
        routes = {}
    for path, text in routes.items():
        entries += _entries(path, f"{{path: {json.dumps(path)}}}", text, notes)
    if routes and "default_limits" in options:
        notes.warn("default_limits left out routes with limits of their own; here they are about all paths", "")
    return _file("slowapi", entries, notes)


def drf(options: dict[str, object], notes: Notes) -> str:
    """The rules file of `DEFAULT_THROTTLE_RATES`."""
    rates = options.get("DEFAULT_THROTTLE_RATES", options)
    entries = []
    for name, text in rates.items() if isinstance(rates, dict) else ():
        if isinstance(text, str):
            entries += _entries(name, "any", text, notes)
        elif text is not None:
            notes.error(f"rate {name!r:.40} is {text!r:.40}", 'write a text: "100/day"')
        if name != "anon" and isinstance(text, str):
            notes.warn(f"rate {name!r:.40} was of a user or a view, and counts by client here",
                       "write key: cookie:NAME or header:NAME, and when: {path: ...}")  # fmt: skip
    return _file("Django REST framework", entries, notes)


def _entries(name: str, when: str, text: str, notes: Notes) -> list[str]:
    try:
        found = limit_texts(text)
    except ValueError as error:
        message, _, hint = str(error).partition("; ")
        notes.error(message, hint)
        return []
    entries = []
    for number, (written, span) in enumerate(found, 1):
        limit, seconds = written, span
        if span > MOST:
            days = f"has a window of {span // MOST} days, the longest is one"
            notes.warn(f"limit {text!r:.40} of {name!r:.40} {days}", "it was imported as so many a day")
            limit, seconds = max(1, written * MOST // span), MOST
        entry = json.dumps(name if len(found) == 1 else f"{name}-{number}")
        entries.append(f"- {{id: {entry}, when: {when}, limit: {limit}, window: {seconds}s}}\n")
    return entries


def _file(tool: str, entries: list[str], notes: Notes) -> str:
    if not entries and not notes.errors:
        notes.error("no limits", 'write default_limits: ["100/minute"], or DEFAULT_THROTTLE_RATES: {anon: 100/day}')
    head = f"# Limits of {tool}, by gobanfast rules import.\n" + notes.comments()
    return f"{head}\nlimits:\n{''.join(entries)}"
