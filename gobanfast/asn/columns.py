"""Column layout of text tables of prefixes, and prefixes with the length in a column of its own.

pfx2as (CAIDA) has rows `address<TAB>length<TAB>origin`. The loop over rows takes `address/length`, so the two columns
are joined first, each row keeping its bytes, so that places in errors stay right. Of several origins (`64501_64502`)
the first counts; a set (`64501,64502` or `{64501,64502}`) names no origin (RFC 6811, section 2).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from gobanfast._core.address import parse_address
from gobanfast._errors import Problem, RuleError

if TYPE_CHECKING:
    from gobanfast.asn.csv import Head, Layout

WORDS = ("prefix", "address", "length", "first", "last", "asn", "name", "-")
SAMPLE_BYTES = 1 << 16
LONGEST = 128  # bits of a prefix
HINT = "say what the columns hold, as in --columns address,length,asn, prefix,-,asn or first,last,asn=24"

_ORIGINS = re.compile(r"(?:AS)?[0-9]+(?:[_,](?:AS)?[0-9]+)*|\{[0-9]+(?:,[0-9]+)*\}(?:_[0-9{},]+)?", re.IGNORECASE)


def sampled(text: bytes, layout: Layout) -> list[list[str]]:
    """The first rows of a table, without blank ones and comments; the last may be cut off and is left out."""
    part = text[layout.start : layout.start + SAMPLE_BYTES].decode("utf-8", "replace")
    lines = part.split("\n")
    if len(part.encode()) >= SAMPLE_BYTES and len(lines) > 1:
        lines.pop()
    kept = [line.strip("\r") for line in lines if line.strip() and not line.lstrip().startswith("#")]
    rows = []
    for line in kept:
        try:
            rows += [[cell.strip() for cell in row] for row in csv.reader([line], delimiter=layout.delimiter) if row]
        except csv.Error:
            continue
    return rows


def layout_of(columns: str, head: Head, source: str) -> Layout:
    """The layout that `columns` names, such as "address,length,asn,name" or "first,last,asn=24". A first row that does
    not fit is a header.

    Raises:
        ValueError: words that are none, or that make no table. RuleError: the first row has fewer columns.
    """
    at = _places(columns)
    keys = [{"prefix"}, {"address", "length"}, {"first", "last"}]
    if "asn" not in at or sum(key <= at.keys() for key in keys) != 1 or len(at.keys() - {"asn", "name"}) > 2:
        raise ValueError(f"columns {columns!r} make no table; write prefix, or address,length, or first,last; and asn")
    furthest = max(at, key=at.__getitem__)
    if at[furthest] >= len(head.fields) and (furthest != "name" or "=" in columns):  # rows may leave out a last name
        count = f"{len(head.fields)} column{'s' * (len(head.fields) != 1)}"
        _refuse(head, source, f"row has {count}, and columns {columns!r} have {furthest} in column {at[furthest] + 1}")
    last = len(head.fields) if "=" in columns else columns.count(",") + 1
    layout = replace(
        head.layout, prefix=at.get("prefix", at.get("address", -1)), first=at.get("first", -1), last=at.get("last", -1),
        length=at.get("length", -1), asn=at["asn"], name=at.get("name", -1),
        name_is_last=at.get("name", -1) == last - 1,
    )  # fmt: skip
    key = max(layout.prefix, layout.first)
    cell = head.fields[key].partition("/")[0] if key < len(head.fields) else ""
    if parse_address(cell) is None:
        layout = replace(layout, start=head.after, line=head.layout.line + 1)
    return adjacent(layout, source)


def _places(columns: str) -> dict[str, int]:
    """Where each word is, from 0: where its number says, else after the word before it."""
    at: dict[str, int] = {}
    place = 0
    for word, equals, number in (entry.strip().partition("=") for entry in columns.split(",")):
        if equals:
            if re.fullmatch("[0-9]{1,9}", number.strip(), re.ASCII) is None or not int(number):
                raise ValueError(f"columns {columns!r}: {number.strip()!r} is no number of a column; count from 1")
            place = int(number) - 1
        if word.strip() not in WORDS or word in at:
            wrong = "there twice" if word in at else "none"
            hint = "(-: another), with a number where columns between are passed over: first,last,asn=24"
            raise ValueError(f"columns {columns!r}: {word!r} is {wrong}; write a list of {', '.join(WORDS)} {hint}")
        if place in at.values():
            raise ValueError(f"columns {columns!r}: {word!r} and another are column {place + 1}; each has its own")
        if word != "-":
            at[word] = place
        place += 1
    return at


def guessed(head: Head, rows: Sequence[Sequence[str]], source: str) -> Layout:
    """The layout of a table of prefixes without a header: `prefix,asn[,name]`, or `address,length,origin`.

    Raises:
        RuleError: the second column looks like lengths of prefixes, and the column of the AS is ambiguous.
    """
    plain = replace(head.layout, prefix=0, asn=1, name=2, name_is_last=True, shortest_name=3)
    lengths = _most(rows, lambda row: _is_length(row, 1))
    origins = _most(rows, lambda row: len(row) > 2 and _ORIGINS.fullmatch(row[2]) is not None)
    if not lengths:
        if origins and not any(len(row) > 1 and _ORIGINS.fullmatch(row[1]) for row in rows):
            _refuse(head, source, f"column 2 holds {_shown(rows, 1)}, which is no AS number")
        return plain
    bare = _most(rows, lambda row: "/" not in row[0])
    if bare and origins:
        return replace(head.layout, prefix=0, length=1, asn=2)
    if bare or _most(rows, lambda row: len(row) > 1 and row[0].partition("/")[2] == row[1]):
        _refuse(head, source, f"column 2 holds {_shown(rows, 1)}, which looks like a length of a prefix, not an AS")
    return plain


def ranged(head: Head, rows: Sequence[Sequence[str]], source: str, layout: Layout) -> Layout:
    """`layout`, of ranges with the AS in the third column.

    Raises:
        RuleError: that column looks like lengths of prefixes, with numbers after it, or holds no AS numbers.
    """
    if _most(rows, lambda row: len(row) > 3 and _is_length(row, 2) and _ORIGINS.fullmatch(row[3]) is not None):
        _refuse(head, source, f"column 3 holds {_shown(rows, 2)}, which looks like a length of a prefix, not an AS")
    if _most(rows, lambda row: len(row) > 3 and bool(row[2]) and _ORIGINS.fullmatch(row[2]) is None):
        count = f"and there are {len(head.fields)} columns"
        _refuse(head, source, f"column 3 holds {_shown(rows, 2)}, which is no AS number, {count}")
    return layout


def _most(rows: Sequence[Sequence[str]], holds: Callable[[Sequence[str]], bool]) -> bool:
    """Whether it holds for half of the rows or more: a damaged one must not decide how all others are read."""
    return bool(rows) and 2 * sum(map(holds, rows)) >= len(rows)


def _is_length(row: Sequence[str], at: int) -> bool:
    """Whether a cell could be the length of a prefix."""
    return len(row) > at and re.fullmatch("[0-9]{1,3}", row[at], re.ASCII) is not None and int(row[at]) <= LONGEST


def _shown(rows: Sequence[Sequence[str]], at: int) -> str:
    """A cell of the first row that has it, as an error shows it."""
    return repr(next((row[at] for row in rows if len(row) > at), "")[:80])


def _refuse(head: Head, source: str, message: str) -> None:
    raise RuleError([Problem(source, head.layout.line, 1, message, HINT)])


def adjacent(layout: Layout, source: str) -> Layout:
    """`layout`; RuleError when it has lengths that do not follow their addresses."""
    if layout.length >= 0 and layout.length != layout.prefix + 1:
        message = f"the length is in column {layout.length + 1}, the address in column {layout.prefix + 1}"
        raise RuleError([Problem(source, layout.line, 1, message, "the length must follow its address")])
    return layout


def joined(text: bytes, layout: Layout, source: str) -> tuple[bytes, Layout, list[Problem]]:
    """Text and layout with `address/length` in one column, and a problem for the first row that has no length."""
    mark = re.escape(layout.delimiter.encode())
    before = rb"(?:[^%b\n]*%b){%d}" % (mark, mark, layout.prefix)
    pattern = re.compile(
        rb'^(%b[ ]*)(?:([^"%b\n#/][^"%b\n/]*)%b[ ]*([0-9]+)|"([^"\n/]*)"%b"([0-9]+)")(?=[ ]*(?:%b|\r?$))'
        % (before, mark, mark, mark, mark, mark),
        re.MULTILINE,
    )

    def one(found: re.Match[bytes]) -> bytes:
        if found[2] is not None:
            return (found[1] + found[2].rstrip() + b"/" + found[3]).ljust(len(found[0]))
        return (found[1] + b'"' + found[4] + b"/" + found[5] + b'"').ljust(len(found[0]))

    body, count = pattern.subn(one, text[layout.start :])
    whole = text[: layout.start] + body
    moved = {
        name: place - 1
        for name in ("asn", "name")
        if (place := getattr(layout, name)) > layout.length
    }  # fmt: skip
    after = replace(layout, length=-1, **moved)
    rows = sum(1 for line in body.split(b"\n") if line.strip() and not line.lstrip().startswith(b"#"))
    return whole, after, [] if count == rows else [_lengthless(text, layout, source, pattern)]


def _lengthless(text: bytes, layout: Layout, source: str, pattern: re.Pattern[bytes]) -> Problem:
    for number, line in enumerate(text[layout.start :].split(b"\n"), layout.line):
        if line.strip() and not line.lstrip().startswith(b"#") and pattern.match(line) is None:
            shown = line.decode("utf-8", "replace").strip()[:80]
            return Problem(
                source, number, 1, f"row {shown!r} has no length of a prefix in column {layout.length + 1}", HINT
            )
    return Problem(source, layout.line, 1, "a row has no length of a prefix", HINT)


def single_origins(text: bytes, layout: Layout) -> bytes:
    """Text whose rows have one origin each: the first of several, 0 for a set. Only for tabs: a set may hold commas."""
    if layout.delimiter != "\t" or not any(mark in text for mark in (b"_", b"{", b",")):
        return text
    pattern = re.compile(
        rb"^((?:[^\t\n]*\t){%d})([0-9{][0-9,_{} ]*[_,}][0-9,_{} ]*)(?=[\t\r\n]|\Z)" % layout.asn, re.MULTILINE
    )
    return pattern.sub(lambda found: found[1] + _first(found[2]).ljust(len(found[2])), text)


def _first(origins: bytes) -> bytes:
    singles = (found[0].strip(b" {}") for found in re.finditer(rb"\{[^}]*\}|[^_]+", origins))
    return next((single for single in singles if single.isdigit()), b"0")
