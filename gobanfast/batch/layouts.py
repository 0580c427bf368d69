"""Layout detection of access logs from sample lines, and extraction of the client address."""

from __future__ import annotations

import csv
import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gobanfast.batch import json_lines
from gobanfast.batch.log_format import compiled_format, is_format
from gobanfast.batch.unpack import LogError

if TYPE_CHECKING:
    from gobanfast._core.prefix_set import PrefixSet

FORMATS = ("auto", "combined", "nginx-json", "jsonl", "csv")
"""Layouts by name; in place of one a log_format text of nginx or a LogFormat of Apache may be given."""

#: Keys tried in order for the client address; CSV headers are compared with them without regard to case.
#: A dot steps into a nested object where the key as a whole is absent.
ADDRESS_KEYS = (
    *("remote_addr", "client_ip", "remote_ip", "clientip", "ip", "address", "ClientIP", "ClientHost", "client_addr"),
    *("source_ip", "src_ip", "request.client_ip", "request.remote_ip", "client.ip", "source.ip"),
    *("downstream_remote_address", "httpRequest.remoteIp", "httpRequest.clientIp", "properties.clientIp", "clientIp"),
)
NGINX_KEYS = ("remote_addr", "address")  # access log, status log

DELIMITERS = ",;\t"
SAMPLE_LINES = 100  # that decide the layout
MOST_FIELDS = 16  # of a combined line that are looked at for an address
SHOWN_CHARS = 60  # of a bad value, in the reason

EMPTY = "line is empty"
HINT = "say how it is written with --format, and where the client is with --field"

# What one format makes of lines: an address per line ("" where there is none), and why not, by index in the list.
Extracted = tuple[list[str], dict[int, str]]
Extract = Callable[[list[str]], Extracted]

_TIME = re.compile(r"\[\d{1,2}/[A-Za-z]{3}/\d{4}:\d\d:\d\d:\d\d")
_ASKED = re.compile(r'"[A-Z]{3,16} \S.{0,2000}? HTTP/\d')
_LISTED = re.compile(r",[ \t]+")
_ODD = re.compile(r"[,\[\]\t\"]|\.\d+:\d")  # in addresses: lists, brackets, ports
_PORT = re.compile(r"\[([^\]]*)\](?::\d*)?|(\d+\.\d+\.\d+\.\d+):\d+")


@dataclass(frozen=True, slots=True)
class Found:
    """How a log is written: `layout` is one of FORMATS, `where` the place of the address in words. The address of
    combined lines is the field after `skip` others, of JSON under the first of `keys`, of CSV in cell `cell`."""

    layout: str
    where: str
    extract: Extract
    sample: str
    skip: int | None = None
    keys: tuple[str, ...] | None = None
    cell: int | None = None


def found(samples: Sequence[str], name: str, layout: str, field: str | None, trusted: PrefixSet | None = None) -> Found:
    """The layout of the log `name`, whose first lines that are not empty are `samples`, and what finds the client.

    Args:
        layout: one of FORMATS; "auto" takes what most of the lines look like.
        field: in place of the layout's own: JSON key, CSV column (name, or number from 1), combined field number.
        trusted: addresses of proxies, passed over from the right in a field that lists several addresses.
    Raises:
        LogError: `field` does not fit, or no CSV column looks like an address.
    """
    if layout == "auto":
        layout = told_by(samples)
    index = keys = cell = None
    match layout:
        case text if is_format(text):
            where, extract = "by the format", _by_format(text, name)
        case "combined":
            index = _place(samples) if field is None else _number(name, field)
            where, extract = f"field {index + 1}", _combined(index)
        case "nginx-json" | "jsonl":
            keys = (NGINX_KEYS if layout == "nginx-json" else ADDRESS_KEYS) if field is None else (field,)
            where, extract = "by key" if field is None else f"key {field!r}", _json(keys)
        case "csv":
            cell, extract = _csv(samples, name, field)
            where = f"column {cell + 1}"
        case _:
            raise LogError(f"{name}: format {layout!r} is not one of {', '.join(FORMATS)}")
    return Found(layout, where, _cleaned(extract, trusted), samples[0], index, keys, cell)


def told_by(samples: Iterable[str]) -> str:
    """The layout that most of the lines look like; of equally many, that of the earlier line."""
    votes = Counter(filter(None, map(_kind, samples)))
    return max(votes, key=votes.__getitem__, default="combined")  # a plain list of addresses, too


def _kind(line: str) -> str | None:
    """What one line looks like; None where it could be anything."""
    if line.lstrip().startswith("{"):
        return "nginx-json" if '"remote_addr"' in line or '"nginx_version"' in line else "jsonl"
    if _fields(line) is not None or is_address(client(line.partition(" ")[0])):
        return "combined"
    return "csv" if any(mark in line for mark in DELIMITERS) else None


def _fields(line: str) -> list[bool] | None:
    """Which of the fields before the time or the request hold an address; None if there is neither, or no address."""
    mark = _TIME.search(line) or _ASKED.search(line)
    if mark is None:
        return None
    before = _LISTED.sub(",", line[: mark.start()]).split()
    held = [is_address(client(field)) for field in before[:MOST_FIELDS]]
    return held if any(held) else None


def _place(samples: Iterable[str]) -> int:
    """Index of the field that most often holds an address in lines of a combined log; the first of equals."""
    counts = Counter(index for line in samples for index, holds in enumerate(_fields(line) or ()) if holds)
    return min(counts, key=lambda index: (-counts[index], index), default=0)


def _number(name: str, field: str) -> int:
    """Index of the field called by its number, from 1."""
    if not field.isdecimal() or int(field) < 1:
        raise LogError(f"{name}: field {field!r} is not a number from 1; combined fields are separated by blanks")
    return int(field) - 1


def _combined(index: int) -> Extract:
    # As in awk: fields are separated by runs of blanks. A list "a, b" is one field.
    field = re.compile(rf"[ \t]*(?:[^ \t]+[ \t]+){{{index}}}([^ \t,]+(?:,[ \t]*[^ \t,]+)*)")

    def extract(lines: list[str]) -> Extracted:
        addresses = [line.partition(" ")[0] for line in lines] if index == 0 else [""] * len(lines)
        for row, address in enumerate(addresses):
            if not address or "," in address or "\t" in address:
                matched = field.match(lines[row])
                addresses[row] = "" if matched is None else matched[1]
        if "" not in addresses:
            return addresses, {}
        missing = (row for row, address in enumerate(addresses) if not address)
        return addresses, {row: f"field {index + 1} is missing" if lines[row] else EMPTY for row in missing}

    return extract


def _json(keys: Sequence[str]) -> Extract:
    def one(line: str) -> str:
        entry = json_lines.parse_line(line)
        if entry is None:
            raise ValueError(f"not a JSON object: {quoted(line)}")
        for key in keys:
            value = json_lines.member(entry, key)
            if value is None or value == "":
                continue
            if isinstance(value, str):
                return value
            raise ValueError(f"key {key!r} holds {quoted(value)}, not an address")
        raise ValueError(f"no key {keys[0]!r}" if len(keys) == 1 else "no key that is known to hold an address")

    return _each(one)


def _by_format(text: str, name: str) -> Extract:
    read = compiled_format(text)
    if not read.has_address:
        raise LogError(f"{name}: the format {quoted(text)} has no client address; $remote_addr or %h is one")

    def one(line: str) -> str:
        said = read(line)
        if said is None:
            raise ValueError(f"not of the format given: {quoted(line)}")
        return said["address"]

    return _each(one)


def delimiter_of(samples: Sequence[str]) -> str:
    """What separates the columns of a CSV: what the first line has most of."""
    return max(DELIMITERS, key=samples[0].count)


def cells(line: str, delimiter: str) -> list[str]:
    """The cells of one CSV line."""
    return next(csv.reader([line], delimiter=delimiter), []) if '"' in line else line.split(delimiter)


def _csv(samples: Sequence[str], name: str, field: str | None) -> tuple[int, Extract]:
    delimiter = delimiter_of(samples)
    rows = []
    for line in samples:
        try:
            rows.append([cell.strip() for cell in cells(line, delimiter)])
        except csv.Error:
            continue
    head = rows[0] if rows else []
    column = _column(rows, name, field)
    header = None if column < len(head) and is_address(client(head[column])) else samples[0]

    def one(line: str) -> str:
        if line == header:  # again where files were joined
            return ""
        row = cells(line, delimiter)
        if len(row) <= column or not row[column].strip():
            raise ValueError(f"column {column + 1} is missing")
        return row[column].strip()

    return column, _each(one)


def _column(rows: Sequence[Sequence[str]], name: str, field: str | None) -> int:
    """Index of the column that holds the address: named by `field`, by a known header, or by addresses in it."""
    head = rows[0] if rows else []
    first = quoted(", ".join(head))
    if field is not None:
        if field in head:
            return head.index(field)
        if field.isdecimal() and int(field) >= 1:
            return int(field) - 1
        raise LogError(f"{name}: no column {field!r}; the first line has {first}")
    lower = [cell.lower() for cell in head]
    for key in ADDRESS_KEYS:
        if key.lower() in lower:
            return lower.index(key.lower())
    for index, cell in enumerate(head):
        if is_address(client(cell)):
            return index
    counts = Counter(index for row in rows for index, cell in enumerate(row) if is_address(client(cell)))
    full = [index for index, count in counts.items() if 2 * count >= len(rows) - 1]
    if len(full) == 1:
        return full[0]
    what = "no column looks like a client address" if not full else (
        f"columns {' and '.join(str(index + 1) for index in sorted(full))} hold addresses"
    )  # fmt: skip
    raise LogError(f"{name}: {what}; the first line has {first}; {HINT}")


def _each(one: Callable[[str], str]) -> Extract:
    """Extraction line by line with `one`, whose ValueError is the fault of its line."""

    def extract(lines: list[str]) -> Extracted:
        addresses, faults = [""] * len(lines), {}
        for row, line in enumerate(lines):
            try:
                addresses[row] = one(line)
            except (ValueError, csv.Error) as error:
                faults[row] = str(error) if line else EMPTY
        return addresses, faults

    return extract


# ---- addresses


def _cleaned(extract: Extract, trusted: PrefixSet | None) -> Extract:
    """Extraction whose addresses are without ports, and one where the field lists several."""

    def cleaned(lines: list[str]) -> Extracted:
        addresses, faults = extract(lines)
        if _ODD.search("\n".join(addresses)) is not None:
            addresses = [
                (client(text, trusted) or text) if _ODD.search(text) is not None else text for text in addresses
            ]
        return addresses, faults

    return cleaned


def client(text: str, trusted: PrefixSet | None = None) -> str:
    """The address in a field: without its port, and of a list (X-Forwarded-For) the last that is no trusted proxy.

    The last address was written by the nearest proxy. Those before it are as the client sent them, so the first one
    names whom the client likes. Text that is no address is returned as it is.
    """
    text = text.strip(' "')
    if "," not in text:
        matched = _PORT.fullmatch(text)
        return text if matched is None else matched[1] or matched[2] or text
    hops = [client(part) for part in text.split(",") if part.strip(' "')] or [text]
    while len(hops) > 1 and trusted is not None and hops[-1] in trusted:
        hops.pop()
    return hops[-1]


def is_address(text: str) -> bool:
    """Whether the text is an IPv4 or IPv6 address."""
    if not text or text[0] not in "0123456789abcdefABCDEF:":
        return False
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def quoted(value: object) -> str:
    """A bad value as an error shows it."""
    text = repr(value)
    return text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "..."
