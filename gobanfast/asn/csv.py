"""Text tables of prefixes or address ranges with their origin AS. The loop over rows is csrc/address/gbf_asn_csv.c."""

from __future__ import annotations

import csv
import gzip
import os
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

from gobanfast._core.address import parse_address, parse_prefix
from gobanfast._core.asn_table import AsnRows
from gobanfast._errors import FormatError, Problem, RuleError
from gobanfast.asn import columns as of_columns
from gobanfast.asn import other_forms

GZIP_MAGIC = b"\x1f\x8b"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

MOST_COLUMNS = 256  # GBF_ASN_MAX_COLUMNS

# Without a header a third column this short is a flag or a country code, not a name.
SHORTEST_NAME = 3

# What a header may call each column, lower case, with anything but letters and digits left out.
HEADERS = {
    "prefix": {"prefix", "network", "cidr", "route", "subnet"},
    "first": {"first", "start", "startip", "rangestart", "ipstart", "startaddress", "firstip"},
    "length": {"length", "len", "prefixlength", "prefixlen", "masklength", "masklen", "mask", "bits", "plen"},
    "last": {"last", "end", "endip", "rangeend", "ipend", "endaddress", "lastip"},
    "asn": {"asn", "as", "asnumber", "asnum", "autonomoussystemnumber", "origin", "originas"},
    "name": {
        "name",
        "asname",
        "autonomoussystemorganization",
        "asorganization",
        "asdescription",
        "organization",
        "org",
    },
}


@dataclass(frozen=True, slots=True)
class Layout:
    """Which column (from 0) holds what, -1 for none, and where in the text the rows start."""

    delimiter: str
    asn: int
    prefix: int = -1
    length: int = -1  # of a prefix that is without it, to be joined before rows are read
    first: int = -1
    last: int = -1
    name: int = -1
    name_is_last: bool = False
    shortest_name: int = 0
    start: int = 0
    line: int = 1

    @property
    def columns(self) -> str:
        """The columns a row must have, in order, for a person to read."""
        places = {"prefix": self.prefix, "length": self.length, "first": self.first, "last": self.last, "asn": self.asn}
        return self.delimiter.join(sorted((name for name, at in places.items() if at >= 0), key=places.__getitem__))


def scan_rows(rows: AsnRows, path: str | os.PathLike[str], columns: str | None = None) -> list[Problem]:
    """Problems of the rows of `path`; the good rows are added to `rows`. `columns` says what the columns hold."""
    text, source = read_text(path), os.fspath(path)
    if columns is None:
        text = other_forms.plain_table(text)
    layout = detect(text, source) if columns is None else of_columns.layout_of(columns, first_row(text, source), source)
    problems: list[Problem] = []
    if layout.length >= 0:
        text, layout, problems = of_columns.joined(text, layout, source)
    return problems or scan(rows, of_columns.single_origins(text, layout), layout, source)


def scan_names(rows: AsnRows, path: str | os.PathLike[str]) -> list[Problem]:
    """Problems of the rows `asn,name` of `path`; the good names are added to `rows`."""
    text = other_forms.plain_names(read_text(path))
    source = os.fspath(path)
    head = first_row(text, source)
    if number_like(head.fields[0]):
        layout = replace(head.layout, asn=0, name=1, name_is_last=True)
    else:
        layout = named_columns(head, source, required=("asn", "name"))
    return scan(rows, text, layout, source)


def read_text(path: str | os.PathLike[str]) -> bytes:
    """Bytes of a text file, unpacked when it starts like a gzip file. FormatError when it is cut short."""
    data = Path(path).read_bytes()
    if not data.startswith(GZIP_MAGIC):
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise FormatError(os.fspath(path), len(data), f"gzip data is damaged or cut short ({error})") from error


@dataclass(frozen=True, slots=True)
class Head:
    """The first row that is not blank or a comment, and a layout that starts at it."""

    fields: tuple[str, ...]
    after: int
    layout: Layout


def first_row(text: bytes, source: str) -> Head:
    start = len(BYTE_ORDER_MARK) if text.startswith(BYTE_ORDER_MARK) else 0
    line = 1
    while start < len(text):
        end = text.find(b"\n", start)
        after = len(text) if end < 0 else end + 1
        row = text[start:after].decode("utf-8", "replace").strip("\r\n")
        if row.strip() and not row.lstrip().startswith("#"):
            delimiter = "\t" if "\t" in row else ","
            fields = tuple(field.strip() for field in next(csv.reader([row], delimiter=delimiter)))
            return Head(fields, after, Layout(delimiter, asn=-1, start=start, line=line))
        start, line = after, line + 1
    raise RuleError(
        [Problem(source, 0, 0, "file has no rows", "expected prefix,asn,name or first,last,asn,country,name")]
    )


def detect(text: bytes, source: str) -> Layout:
    """Layout of a table of prefixes or ranges, from its header or, without one, from its first row.

    Without a header: `prefix,asn[,name]` when the second column is not an address, where a name shorter than three
    characters and not quoted is a flag or country code and is left out; otherwise `first,last,asn` with the name in
    the fourth of four columns or the fifth of more; `address,length,origin` when the first column has no `/` and the
    second holds numbers up to 128 only. Rows that could be read in two ways are refused.
    """
    head = first_row(text, source)
    fields, layout = head.fields, head.layout
    if parse_address(fields[0]) is None and not prefix_like(fields[0]) and not fields[0][:1].isdigit():
        return named_columns(head, source, ("asn",), text)
    if len(fields) > 2 and parse_address(fields[1]) is not None:
        name = -1 if len(fields) == 3 else 3 if len(fields) == 4 else 4
        layout = replace(layout, first=0, last=1, asn=2, name=name, name_is_last=True)
        return of_columns.ranged(head, of_columns.sampled(text, layout), source, layout)
    return of_columns.guessed(head, of_columns.sampled(text, layout), source)


def named_columns(head: Head, source: str, required: tuple[str, ...], text: bytes = b"") -> Layout:
    places = dict.fromkeys(HEADERS, -1)
    for at, field in enumerate(head.fields):
        word = "".join(character for character in field.lower() if character.isalnum())
        for name, words in HEADERS.items():
            if word in words and places[name] < 0:
                places[name] = at
    missing = [name for name in required if places[name] < 0]
    if "name" not in required and places["prefix"] < 0 and min(places["first"], places["last"]) < 0:
        missing.insert(0, "prefix (or first and last)")
    if missing and not all(field.isprintable() for field in head.fields):
        message = "the file is not text"
        raise RuleError([Problem(source, head.layout.line, 1, message, "give a CSV, an MMDB file or a compiled table")])
    if missing:
        shown = head.layout.delimiter.join(head.fields)[:80]
        message = f"header {shown!r} names no column for {' and '.join(missing)}"
        hint = "known names: " + "; ".join(f"{name}: {', '.join(sorted(words))}" for name, words in HEADERS.items())
        raise RuleError([Problem(source, head.layout.line, 1, message, hint)])
    bare = places["prefix"] >= 0 and places["length"] >= 0 and _bare(head, text, places["prefix"])
    if places["prefix"] >= 0:
        places["first"] = places["last"] = -1
    found = replace(
        head.layout,
        prefix=places["prefix"],
        length=places["length"] if bare else -1,
        first=places["first"],
        last=places["last"],
        asn=places["asn"],
        name=places["name"],
        name_is_last=places["name"] == len(head.fields) - 1,
        start=head.after,
        line=head.layout.line + 1,
    )
    return of_columns.adjacent(found, source)


def _bare(head: Head, text: bytes, prefix: int) -> bool:
    """Whether the prefixes below a header are addresses without a length."""
    rows = of_columns.sampled(text, replace(head.layout, start=head.after))
    return any(len(row) > prefix for row in rows) and all("/" not in row[prefix] for row in rows if len(row) > prefix)


def prefix_like(text: str) -> bool:
    return "/" in text and parse_address(text.partition("/")[0]) is not None


def number_like(text: str) -> bool:
    return text.upper().removeprefix("AS").isdigit()


def scan(rows: AsnRows, text: bytes, layout: Layout, source: str) -> list[Problem]:
    furthest = max(layout.prefix, layout.last, layout.asn, layout.name) + 1
    if furthest > MOST_COLUMNS:
        hint = "cut the file down to the columns that are needed"
        return [Problem(source, layout.line, 1, f"column {furthest} is past the {MOST_COLUMNS} that are read", hint)]
    found, count = rows.scan(
        text,
        delimiter=ord(layout.delimiter),
        columns=(layout.prefix, layout.first, layout.last, layout.asn, layout.name),
        name_is_last=layout.name_is_last,
        shortest_name=layout.shortest_name,
        start=layout.start,
        line=layout.line,
    )
    problems = []
    for wrong, line, start, offset, nbytes in found:
        column = len(text[start:offset].decode("utf-8", "replace")) + 1
        value = text[offset : offset + nbytes].decode("utf-8", "replace")
        message, hint = describe(wrong, value, layout)
        problems.append(Problem(source, line, column, message, hint))
    if count > len(found):
        problems.append(Problem(source, 0, 0, f"{count - len(found)} more rows cannot be read"))
    return problems


def describe(wrong: str, value: str, layout: Layout) -> tuple[str, str]:
    """Message and hint for one bad field."""
    shown = repr(value if len(value) <= 80 else value[:77] + "...")
    if wrong == "prefix":
        try:
            parse_prefix(value)
        except ValueError as error:
            message, _, hint = str(error).partition("; ")
            return message, hint
    return {
        "columns": (f"row {shown} has too few columns", f"expected {layout.columns}"),
        "open quote": (f"quote is not closed on its line: {shown}", 'write "" for a quote inside quotes'),
        "after quote": (f"text {shown} follows a closing quote", 'write "" for a quote inside quotes'),
        "prefix": (f"prefix {shown} is not valid", "write 192.0.2.0/24 or 2001:db8::/32"),
        "address": (f"address {shown} is not an IPv4 or IPv6 address", ""),
        "range": (f"last address {shown} is before the first or of the other family", ""),
        "number": (f"AS number {shown} is not valid", "write 13335 or AS13335, at most 4294967294; 0 for none"),
        "name": (f"name {shown} is not UTF-8, has control characters or is longer than 1024 bytes", ""),
    }[wrong]
