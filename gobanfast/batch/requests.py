"""What a line of an access log says of the request: user agent, referer, method and path, in the form of headers."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping

from gobanfast._headers import SomeHeaders
from gobanfast.batch import json_lines

Hear = Callable[[str], SomeHeaders | None]

KNOWN = ("user-agent", "referer")
"""The headers that a log may keep."""

# Keys tried in order, for JSON and for the header line of CSV (there without regard to case).
_KEYS: dict[str, tuple[str, ...]] = {
    "user-agent": ("http_user_agent", "user_agent", "useragent", "agent", "request.headers.User-Agent"),
    "referer": ("http_referer", "referer", "referrer", "request.headers.Referer"),
    ":method": ("request_method", "method", "request.method"),
    ":path": ("request_uri", "uri", "path", "url", "request.uri"),
}
_LINE = ("request", "request_line")  # "GET /a HTTP/1.1"
_QUOTED = r'"((?:[^"\\]|\\.)*)"'
_COMBINED = re.compile(rf"\] {_QUOTED} \S+ \S+(?: {_QUOTED} {_QUOTED})?", re.DOTALL)
_ESCAPE = re.compile(r"\\(x[0-9A-Fa-f]{2}|.)", re.DOTALL)
_NAMED = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "v": "\v", "f": "\f"}


def hear(sample: str, layout: str) -> Hear:
    """What takes a request out of a line of a log whose first line is `sample`."""
    if layout == "combined":
        return combined
    return columns(sample) if layout == "csv" else member


def combined(line: str) -> SomeHeaders | None:
    found = _COMBINED.search(line)
    if found is None:
        return None
    request, *others = (None if text is None else unescaped(text) for text in found.groups())
    return said(request, dict(zip(("referer", "user-agent"), others, strict=True)))


def member(line: str) -> SomeHeaders | None:
    record = json_lines.record(line)
    if record is None:
        return None
    return said(_first(record, _LINE), {name: _first(record, keys) or "-" if _has(record, keys) else None
                                        for name, keys in _KEYS.items()})  # fmt: skip


def columns(sample: str) -> Hear:
    delimiter = max(",;\t", key=sample.count)
    head = [cell.strip().lower() for cell in next(csv.reader([sample], delimiter=delimiter))]
    places = {name: [head.index(key.lower()) for key in keys if key.lower() in head] for name, keys in _KEYS.items()}
    wanted = {name: found[0] for name, found in places.items() if found}

    def one(line: str) -> SomeHeaders | None:
        row = next(csv.reader([line], delimiter=delimiter), [])
        return said(None, {name: row[index] or "-" for name, index in wanted.items() if index < len(row)})

    return one


def said(request: str | None, values: Mapping[str, str | None]) -> SomeHeaders | None:
    """The signals of a request line and of values by header name; "-" is a header that was not there, None one that
    the log does not keep."""
    pairs = _split(request)
    kept = {name: value for name, value in values.items() if value is not None and not (pairs and name[0] == ":")}
    if not pairs and not kept:
        return None
    pairs += [(name.encode(), value.encode("latin-1", "replace")) for name, value in kept.items() if value != "-"]
    pairs.sort(key=lambda pair: pair[0][0] != ord(":"))
    return SomeHeaders(pairs, tuple(name for name in kept if name[0] != ":"))


def unescaped(text: str) -> str:
    r"""A quoted field as it was sent: Apache writes \" \\ \n \xHH, nginx \xHH."""
    if "\\" not in text:
        return text
    return _ESCAPE.sub(
        lambda found: chr(int(found[1][1:], 16)) if len(found[1]) > 1 else _NAMED.get(found[1], found[1]), text
    )


def _split(request: str | None) -> list[tuple[bytes, bytes]]:
    """Method and path of a request line; none where it is none."""
    parts = (request or "").split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/"):
        return []
    return [(b":method", parts[0].encode("latin-1", "replace")), (b":path", parts[1].encode("latin-1", "replace"))]


def _has(record: dict[str, object], keys: tuple[str, ...]) -> bool:
    return any(_first(record, (key,)) is not None for key in keys)


def _first(record: dict[str, object], keys: tuple[str, ...]) -> str | None:
    """The first of the keys that holds text, or a list that begins with one; a dot steps inside."""
    for key in keys:
        value = json_lines.member(record, key)
        if isinstance(value, list) and value:
            value = value[0]
        if isinstance(value, str):
            return value
    return None
