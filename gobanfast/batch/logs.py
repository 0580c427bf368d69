"""Access logs as chunks of client addresses: plain or gzip, streamed, in bounded memory.

Text is decoded as Latin-1, which cannot fail and costs one copy: only the address matters here, and an address is
ASCII. Whatever else a line holds (UTF-8, binary junk) passes through unread.
"""

from __future__ import annotations

import csv
import gzip
import ipaddress
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BufferedReader

from gobanfast._errors import GobanError
from gobanfast._headers import SomeHeaders
from gobanfast.batch import json_lines
from gobanfast.batch.requests import Hear, hear

FORMATS = ("auto", "combined", "nginx-json", "jsonl", "csv")

#: Keys tried in order for the client address; CSV headers are compared with them without regard to case.
#: A dot steps into a nested object where the key as a whole is absent.
ADDRESS_KEYS = (
    *("remote_addr", "client_ip", "remote_ip", "clientip", "ip", "address", "ClientIP", "ClientHost", "client_addr"),
    *("source_ip", "src_ip", "request.client_ip", "request.remote_ip", "client.ip", "source.ip"),
)
NGINX_KEYS = ("remote_addr", "address")  # access log, status log

BLOCK_BYTES = 1 << 17  # read at once, small enough for the cache; a chunk holds the lines that end inside one block
SHOWN_CHARS = 60  # of a bad value, in the reason

EMPTY = "line is empty"

# What one format makes of lines: an address per line ("" where there is none), and why not, by index in the list.
Extracted = tuple[list[str], dict[int, str]]
Extract = Callable[[list[str]], Extracted]


class LogError(GobanError):
    """A log that cannot be read as asked: no such column, a field that is no number. The text names the log."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive lines of one log: `addresses[i]` is the client that line `first + i` names.

    An address is any text: nothing has been parsed. It is "" where the line names none, and then `faults` says why, by
    line number; a "" without a fault is a CSV header. `requests`, where asked for, are what lines say of user agent,
    referer, method and path, as headers and pseudo headers; None where a line says nothing.
    """

    first: int
    addresses: list[str]
    faults: dict[int, str]
    requests: list[SomeHeaders | None] | None = None


class LogFile:
    """One log, for a single pass: iterate it for its chunks.

    Args:
        stream: the log, plain or gzip (told by content, not by name); the caller closes it.
        name: what errors call it.
        layout: one of FORMATS; "auto" decides by the first line that is not empty.
        requests: whether chunks have `requests`.
        field: in place of the layout's own: JSON key, CSV column (name, or number from 1), combined field number.
    Raises:
        LogError: while iterating, when `field` does not fit or no CSV column looks like an address.
        OSError: while iterating, from `stream`. A damaged gzip stream is a fault in the last chunk instead.
    Cost: about BLOCK_BYTES of text and its lines in memory, whatever the length of the log or of a line.
    """

    def __init__(
        self,
        stream: BufferedReader,
        name: str,
        *,
        layout: str = "auto",
        field: str | None = None,
        requests: bool = False,
    ) -> None:
        self.name = name
        self._stream = stream
        self._layout = layout
        self._field = field
        self._requests = requests

    @property
    def consumed(self) -> int:
        """Bytes of the file read so far, before unpacking; 0 for a pipe, which cannot tell."""
        try:
            return self._stream.tell()
        except OSError:
            return 0

    def __iter__(self) -> Iterator[Chunk]:
        first = 1
        extract: Extract | None = None
        heard: Hear | None = None
        try:
            for lines in _lines(_unpacked(self._stream)):
                if extract is None and any(lines):
                    sample = next(line for line in lines if line)
                    extract = _extractor(sample, self.name, self._layout, self._field)
                    if self._requests:
                        heard = hear(sample, _layout(sample) if self._layout == "auto" else self._layout)
                addresses, faults = _empty(lines) if extract is None else extract(lines)
                requests = None if heard is None else [heard(line) for line in lines]
                yield Chunk(first, addresses, {first + index: why for index, why in faults.items()}, requests)
                first += len(lines)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            yield Chunk(first, [""], {first: f"gzip stream is damaged or cut short: {error}"})


def _unpacked(stream: BufferedReader) -> Callable[[int], bytes]:
    """`read1` of the plain bytes. It returns after one read of the file, so a fault loses nothing before it."""
    if stream.peek(2)[:2] == b"\x1f\x8b":
        return gzip.GzipFile(fileobj=stream).read1
    return stream.read1


def _lines(read: Callable[[int], bytes]) -> Iterator[list[str]]:
    """Lists of lines in order, without their ends; a line past BLOCK_BYTES is cut to that."""
    rest = ""
    while block := read(BLOCK_BYTES):
        text = rest + block.decode("latin-1")
        lines = text.split("\n")
        lines[0] = lines[0][:BLOCK_BYTES]  # only the one that began in an earlier block can be longer
        rest = lines.pop()
        if lines:
            yield _stripped(lines) if "\r" in text or "\0" in text else lines
    if rest:
        yield _stripped([rest])


def _stripped(lines: list[str]) -> list[str]:
    """Lines without carriage return at the end and without the run of NULs that copytruncate leaves in front."""
    return [line.strip("\0\r") for line in lines]


# ---- layouts


def _extractor(sample: str, name: str, layout: str, field: str | None) -> Extract:
    """The function that takes addresses out of lines, for a log whose first line is `sample`."""
    match _layout(sample) if layout == "auto" else layout:
        case "combined":
            return _combined(_number(name, field))
        case "nginx-json":
            return _json(NGINX_KEYS if field is None else (field,))
        case "jsonl":
            return _json(ADDRESS_KEYS if field is None else (field,))
        case "csv":
            return _csv(sample, name, field)
    raise LogError(f"{name}: format {layout!r} is not one of {', '.join(FORMATS)}")


def _layout(sample: str) -> str:
    if sample.startswith("{"):
        return "nginx-json" if '"remote_addr"' in sample or '"nginx_version"' in sample else "jsonl"
    if re.match(r"\S+ \S+ \S+ \[", sample) is None and any(mark in sample for mark in ",;\t"):
        return "csv"
    return "combined"  # a plain list of addresses, too


def _empty(lines: list[str]) -> Extracted:
    return [""] * len(lines), dict.fromkeys(range(len(lines)), EMPTY)


def _number(name: str, field: str | None) -> int:
    """Index of the field called by its number, from 1; 0 without one."""
    if field is None:
        return 0
    if not field.isdecimal() or int(field) < 1:
        raise LogError(f"{name}: field {field!r} is not a number from 1; combined fields are separated by blanks")
    return int(field) - 1


def _combined(index: int) -> Extract:
    def extract(lines: list[str]) -> Extracted:
        if index == 0:
            addresses = [line.partition(" ")[0] for line in lines]
        else:
            split = (line.split(" ", index + 1) for line in lines)
            addresses = [fields[index] if len(fields) > index else "" for fields in split]
        if "" not in addresses:
            return addresses, {}
        missing = (row for row, address in enumerate(addresses) if not address)
        return addresses, {row: f"field {index + 1} is missing" if lines[row] else EMPTY for row in missing}

    return extract


def _json(keys: Sequence[str]) -> Extract:
    def one(line: str) -> str:
        record = json_lines.record(line)
        if record is None:
            raise ValueError(f"not a JSON object: {_shown(line)}")
        for key in keys:
            value = json_lines.member(record, key)
            if value is None or value == "":
                continue
            if isinstance(value, str):
                return value
            raise ValueError(f"key {key!r} holds {_shown(value)}, not an address")
        raise ValueError(f"no key {keys[0]!r}" if len(keys) == 1 else "no key that is known to hold an address")

    return _each(one)


def _csv(sample: str, name: str, field: str | None) -> Extract:
    delimiter = max(",;\t", key=sample.count)

    def cells(line: str) -> list[str]:
        if '"' not in line:
            return line.split(delimiter)
        return next(csv.reader([line], delimiter=delimiter))

    head = [cell.strip() for cell in cells(sample)]
    column = _column(head, name, field)
    header = None if column < len(head) and _is_address(head[column]) else sample

    def one(line: str) -> str:
        if line == header:  # again where files were joined
            return ""
        row = cells(line)
        if len(row) <= column or not row[column].strip():
            raise ValueError(f"column {column + 1} is missing")
        return row[column].strip()

    return _each(one)


def _column(head: list[str], name: str, field: str | None) -> int:
    """Index of the column that holds the address, told by `field`, by a known header, or by an address in line 1."""
    if field is not None:
        if field in head:
            return head.index(field)
        if field.isdecimal() and int(field) >= 1:
            return int(field) - 1
        raise LogError(f"{name}: no column {field!r}; the first line has {_shown(', '.join(head))}")
    lower = [cell.lower() for cell in head]
    for key in ADDRESS_KEYS:
        if key.lower() in lower:
            return lower.index(key.lower())
    for index, cell in enumerate(head):
        if _is_address(cell):
            return index
    raise LogError(f"{name}: no column looks like a client address; the first line has {_shown(', '.join(head))}")


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


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "..."
