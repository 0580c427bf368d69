"""Extraction of method, path, headers and time from lines of access logs, for every layout."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

from gobanfast._core.headers import PartialHeaders
from gobanfast.batch import json_lines
from gobanfast.batch.layouts import cells, delimiter_of
from gobanfast.batch.log_format import compiled_format, is_format
from gobanfast.wire.target import read_target

KNOWN = ("user-agent", "referer", "host")
"""The headers that a log may keep in fields of their own."""

OWN = frozenset((":method", ":path"))


class Request(NamedTuple):
    """The request in a line: `headers` with pseudo headers as `Engine.peek` takes them, None where it says nothing;
    the names of the signals that the line has a place for; and its time, Unix seconds, None where it has none."""

    headers: PartialHeaders | None = None
    held: frozenset[str] = frozenset()
    time: float | None = None


LineParser = Callable[[str], Request]

MOST_REMEMBERED = 256  # characters of a request line whose parts are remembered

NOTHING = Request()

# Keys tried in order, for JSON and for the header line of CSV: in lower case, without "-", "_" and parentheses.
_KEYS: dict[str, tuple[str, ...]] = {
    "user-agent": ("httpuseragent", "useragent", "agent", "requestuseragent", "useragent.original",
                   "httprequest.useragent", "clientrequestuseragent", "properties.useragent"),
    "referer": ("httpreferer", "referer", "httpreferrer", "referrer", "requestreferer", "httprequest.referer",
                "clientrequestreferer"),
    "host": ("httphost", "requesthost", "request.host", "clientrequesthost", "authority", "url.domain"),
    ":method": ("requestmethod", "method", "request.method", "req.method", "httprequest.requestmethod",
                "http.request.method", "clientrequestmethod", "httpmethod", "httprequest.httpmethod",
                "properties.httpmethod"),
    ":path": ("requesturi", "uri", "path", "url", "request.uri", "request.url", "req.url", "requestpath",
              "url.original", "httprequest.requesturl", "clientrequesturi", "clientrequestpath", "httprequest.uri",
              "properties.requesturi", "url.path"),
}  # fmt: skip
_LINE = ("request", "requestline")  # "GET /a HTTP/1.1"
_HEADERS = ("request.headers", "req.headers", "headers", "requestheaders")  # an object that holds all of them
_TIMES = ("timeiso8601", "@timestamp", "timestamp", "timelocal", "time", "msec", "ts", "datetime", "starttime",
          "startutc", "startedat", "edgestarttimestamp", "date")  # fmt: skip

_QUOTED = r'"((?:[^"\\]|\\.)*)"'
_AFTER = rf"(?: \S+ \S+(?: {_QUOTED} {_QUOTED})?)?"  # status and length, referer and user agent
_FIELDS = re.compile(rf"{_QUOTED}{_AFTER}", re.DOTALL)
_LOOSE = re.compile(rf'"(\S+ .*? HTTP/\d+(?:\.\d+)?)"{_AFTER}', re.DOTALL)  # quotes inside that nobody escaped
_BEGIN = re.compile(r'[\])] "| - "')  # of the request, after the time (uvicorn: after the client)
_BALANCED = re.compile(rf'"([A-Z]{{3,16}} (?:[^"\\]|\\.)*)"(?: {_QUOTED})?', re.DOTALL)
_VERSION = re.compile(r"HTTP/\d+(?:\.\d+)?", re.ASCII)
_BARE = re.compile(r"[A-Z]{3,16} (?:/|https?://)\S*")  # without a version: HTTP/0.9, and formats that leave it out
_ESCAPE = re.compile(r"""\\(x[0-9A-Fa-f]{2}|[\\"'ntrbvf])""")
_NAMED = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "v": "\v", "f": "\f"}
_CLF_TIME = re.compile(r"\[(\d{1,2}/[A-Za-z]{3}/\d{4}:\d\d:\d\d:\d\d(?: [+-]\d{4})?)\]")
_ALL_COMBINED = OWN | {"referer", "user-agent"}
_MONTHS = {
    name: number
    for number, name in enumerate(
        ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"), 1
    )
}


REQUEST = ":request"  # a request line, as the role of a text


class Roles(NamedTuple):
    """What one text of a line may be to its parser: names as `Request.headers` has them, or REQUEST; and how it is
    written."""

    names: tuple[str, ...]
    decode: Callable[[bytes], str]
    encoding: str


def combined_roles(*, cut: bool) -> tuple[Roles, Roles, Roles]:
    """Of the three quoted texts of a combined line; `cut`: the first has neither query nor version."""

    def plain(raw: bytes) -> str:
        return unescaped(raw.decode("latin-1"))

    def whole(raw: bytes) -> str:
        return raw.decode("latin-1") + " HTTP/1.1"

    first = Roles((REQUEST,), whole if cut else plain, "latin-1")
    return first, Roles(("referer",), plain, "latin-1"), Roles(("user-agent",), plain, "latin-1")


def key_roles(key: str, *, header: bool = False) -> tuple[str, ...]:
    """What the value under a normal key may be; `header`: in an object that holds headers."""
    if header:
        return (key,)
    return (*(name for name, keys in _KEYS.items() if key in keys), *((REQUEST,) if key in _LINE else ()))


def request_parts(request: str, encoding: str) -> list[tuple[bytes, bytes]]:
    """Method and path of a request line, as `Request.headers` has them."""
    return _split(request, encoding)


def value_bytes(name: str, value: str, encoding: str) -> bytes:
    """The value of a name, as `Request.headers` has it."""
    return _target(value, encoding) if name == ":path" else _bytes(value, encoding)


class Known(NamedTuple):
    """Normal keys of JSON values that a parser may look at, of objects that hold headers, and names of headers."""

    keys: frozenset[str]
    objects: frozenset[str]
    headers: frozenset[str]


def known_keys(asked: Iterable[str] = ()) -> Known:
    """What `member` may look at."""
    keys = {key for keys in _KEYS.values() for key in keys}
    return Known(frozenset(keys.union(_LINE)), frozenset(_HEADERS), frozenset(map(normal_key, (*KNOWN, *OWN, *asked))))


def csv_cells(samples: Sequence[str]) -> dict[int, tuple[str, ...]]:
    """Numbers of the cells that the parser of `columns` may look at, but for times, and what they may be to it."""
    found: dict[int, tuple[str, ...]] = {}
    for key, index in _head(samples).items():
        if roles := key_roles(key):
            found[index] = (*found.get(index, ()), *roles)
    return found


def make_parser(samples: Sequence[str], layout: str, asked: Iterable[str] = (), *, timed: bool = True) -> LineParser:
    """Parser from a line to its request, for a log whose first lines are `samples`.

    Args:
        asked: names of the headers that rules require: of a line that keeps all headers, these are read.
        timed: whether times are read.
    """
    if is_format(layout):
        return _by_format(layout)
    if layout == "combined":
        return lambda line: combined(line, timed)
    return columns(samples) if layout == "csv" else lambda line: member(line, asked)


def _by_format(text: str) -> LineParser:
    read = compiled_format(text)
    held = frozenset(name for name in read.names if name in {"user-agent", "referer", "host"} or name in OWN)
    held |= OWN if "request" in read.names else frozenset()

    def one(line: str) -> Request:
        said = read(line)
        if said is None:
            return NOTHING
        values = {name: unescaped(said[name]) or "-" for name in held if name in said}
        time = next((at for name in ("time",) if (at := seconds_of(said.get(name, ""))) is not None), None)
        return request_of(unescaped(said["request"]) if "request" in said else None, values, held, time, "latin-1")

    return one


def combined(line: str, timed: bool = True) -> Request:
    """The request in a line of a combined or common log, or in one of uvicorn."""
    at = clf_time(line) if timed else None
    start = line.find('] "') + 2
    if start < 2:
        begin = _BEGIN.search(line)
        if begin is None:
            return _asked_in(line, at)
        start = begin.end() - 1
    found = _FIELDS.match(line, start)
    if found is None or not _after_it(line, found):
        found = _LOOSE.match(line, start) or found
    if found is None:
        return Request(time=at)
    request, referer, agent = found.groups()
    if referer is None:
        return request_of(unescaped(request), {}, OWN, at, "latin-1")
    values = {"referer": unescaped(referer), "user-agent": unescaped(agent)}
    return request_of(unescaped(request), values, _ALL_COMBINED, at, "latin-1")


def _asked_in(line: str, at: float | None) -> Request:
    """The request in a line of a load balancer (HAProxy, AWS): the first quoted text, after which the user agent may
    be."""
    found = _BALANCED.search(line)
    if found is None:
        return Request(time=at)
    request, agent = found.groups()
    values = {} if agent is None else {"user-agent": unescaped(agent)}
    return request_of(unescaped(request), values, OWN | frozenset(values), at, "latin-1")


def _after_it(line: str, found: re.Match[str]) -> bool:
    """Whether the request ended where its quote closed."""
    return found.end(1) + 1 == len(line) or line[found.end(1) + 1] == " "


def member(line: str, asked: Iterable[str] = ()) -> Request:
    """The request in a line of JSON."""
    entry = json_lines.parse_line(line)
    if entry is None:
        return NOTHING
    plain = _plain(entry)
    values: dict[str, str] = {}
    for name, keys in _KEYS.items():
        value, held = _first(plain, keys)
        if value is not None or (held and name not in OWN):
            values[name] = value or "-"
    for key in _HEADERS:
        headers = _stepped(plain, key)
        if isinstance(headers, dict):
            values |= dict.fromkeys((*KNOWN, *asked), "-") | values
            values |= _pairs(headers)
            break
    request, _ = _first(plain, _LINE)
    return request_of(request, values, frozenset(values) | (OWN if request else frozenset()), _time_in(plain), "utf-8")


def _pairs(headers: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in headers.items():
        parts = [part for part in (value if isinstance(value, list) else [value]) if isinstance(part, str)]
        if parts:
            yield name.lower(), ", ".join(parts) or "-"


def _head(samples: Sequence[str]) -> dict[str, int]:
    """Numbers of the cells by the normal keys in the first line of CSV."""
    try:
        row = [*enumerate(cells(samples[0], delimiter_of(samples)))]
    except csv.Error:
        return {}
    return {normal_key(cell.strip()): index for index, cell in reversed(row)}


def columns(samples: Sequence[str]) -> LineParser:
    """Parser from a line of CSV, whose first line names the columns, to its request."""
    delimiter, head = delimiter_of(samples), _head(samples)
    wanted = {name: head[key] for name, keys in _KEYS.items() for key in reversed(keys) if key in head}
    lines = [head[key] for key in _LINE if key in head]
    times = {key: head[key] for key in _TIMES if key in head}

    def one(line: str) -> Request:
        try:
            row = [cell.strip() for cell in cells(line, delimiter)]
        except csv.Error:
            return NOTHING
        values = {name: row[index] or "-" for name, index in wanted.items() if index < len(row)}
        request = next((row[index] for index in lines if index < len(row)), None)
        time = _time_in({key: row[index] for key, index in times.items() if index < len(row)})
        return request_of(request, values, frozenset(values) | (OWN if request else frozenset()), time, "latin-1")

    return one


def request_of(
    request: str | None, values: Mapping[str, str], held: frozenset[str], time: float | None, encoding: str
) -> Request:
    """The signals of a request line and of values by header name.

    "-": the header was absent; None: the log format does not include it.
    """
    pairs = _split(request, encoding)
    kept = {name: value for name, value in values.items() if not (pairs and name in OWN)}
    if not pairs and not kept:
        return Request(None, held, time)
    pairs += [
        (name.encode(), _target(value, encoding) if name == ":path" else _bytes(value, encoding))
        for name, value in kept.items()
        if value != "-"
    ]
    pairs.sort(key=lambda pair: pair[0][0] != ord(":"))
    return Request(PartialHeaders(pairs, tuple(name for name in kept if name not in OWN)), held, time)


def unescaped(text: str) -> str:
    r"""A quoted field as it was sent: Apache writes \" \\ \n \xHH, nginx \xHH. Other backslashes are the client's."""
    if "\\" not in text:
        return text
    return _ESCAPE.sub(
        lambda found: chr(int(found[1][1:], 16)) if len(found[1]) > 1 else _NAMED.get(found[1], found[1]), text
    )


def _split(request: str | None, encoding: str) -> list[tuple[bytes, bytes]]:
    """Method and target of a request line; none where it is none. Blanks in the target are part of it."""
    if request is None:
        return []
    return [*(_split_short(request, encoding) if len(request) < MOST_REMEMBERED else _parts(request, encoding))]


def _parts(request: str, encoding: str) -> tuple[tuple[bytes, bytes], ...]:
    line, blank, version = request.strip().rpartition(" ")
    if _BARE.fullmatch(request.strip()):
        line, version = request.strip(), "HTTP/0.9"
    method, _, target = line.partition(" ")
    target = target.strip(" ")
    if not blank or not target or _VERSION.fullmatch(version) is None:
        return ()
    return (b":method", _bytes(method, encoding)), (b":path", _target(target, encoding))


_split_short = lru_cache(1 << 14)(_parts)


def _target(text: str, encoding: str) -> bytes:
    return read_target(_bytes(text, encoding)).encode("utf-8", "surrogateescape")


def _bytes(text: str, encoding: str) -> bytes:
    try:
        return text.encode(encoding, "surrogateescape" if encoding == "utf-8" else "replace")
    except UnicodeEncodeError:  # half a surrogate pair
        return text.encode("utf-8", "surrogatepass")


# ---- members of a JSON object


@lru_cache(4096)
def normal_key(key: str) -> str:
    return key.lower().translate({ord(mark): None for mark in "-_()"})


def _plain(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {normal_key(key): value for key, value in reversed([*entry.items()])}


def _stepped(plain: Mapping[str, Any], key: str) -> Any:
    """As `json_lines.member`, by normal keys."""
    if key in plain or "." not in key:
        return plain.get(key)
    outer, _, inner = key.partition(".")
    nested = plain.get(outer)
    return _stepped(_plain(nested), inner) if isinstance(nested, dict) else None


def _first(plain: Mapping[str, Any], keys: tuple[str, ...]) -> tuple[str | None, bool]:
    """The first of the keys that holds text, or a list that begins with one; and whether there is one of the keys."""
    held = False
    for key in keys:
        value = _stepped(plain, key)
        held |= value is not None or key in plain
        if isinstance(value, list) and value:
            value = value[0]
        if isinstance(value, str) and value:
            return value, True
    return None, held


# ---- times


def clf_time(line: str) -> float | None:
    """The time of a combined line; None where there is none."""
    found = _CLF_TIME.search(line)
    return None if found is None else seconds_of(found[1])


def _time_in(plain: Mapping[str, Any]) -> float | None:
    for key in _TIMES:
        value = plain.get(key)
        if value is None or isinstance(value, (bool, dict, list)):
            continue
        at = seconds_of(str(value))
        if at is None and key == "time" and isinstance(plain.get("date"), str):
            at = seconds_of(f"{plain['date']} {value}")
        if at is not None:
            return at
    return None


@lru_cache(4096)
def seconds_of(text: str) -> float | None:
    """Unix seconds of a time as logs write it: ISO 8601, 27/Jan/2024:10:03:34 +0000, or a number of seconds, milli-,
    micro- or nanoseconds. A time without a zone is UTC; None: it is none, or before 1990."""
    text = text.strip(" []")
    try:
        at = float(text)
    except ValueError:
        at = _calendar(text)
    else:
        while at >= 1e11:
            at /= 1000
    return at if 631_152_000 <= at < 1e11 else None


def _calendar(text: str) -> float:
    day, _, rest = text.partition("/")
    month, _, rest = rest.partition("/")
    try:
        if month.lower() in _MONTHS:
            iso = f"{rest[:4]}-{_MONTHS[month.lower()]:02}-{int(day):02}T{rest[5:13]}{rest[13:].strip()}"
        else:
            iso = text.replace(",", ".").removesuffix(" UTC")
        at = datetime.fromisoformat(iso)
        return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return 0.0
