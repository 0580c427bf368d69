"""Text tables in other forms than columns of comma or tab, rewritten line by line, so that places in errors stay right.

pyasn (`;` comments in front), bgp.tools (`prefix asn` with a blank, JSON lines), columns of `;` or `|`, ranges of
decimal addresses (`16777216,16777471,"AS13335 Cloudflare"`, IP2Location's with a prefix between), and names as
`asn.txt` has them (`13335 CLOUDFLARENET - Cloudflare, Inc., US`).
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator

_COMMENT = re.compile(rb"^;", re.MULTILINE)
_BLANK = re.compile(rb"[0-9A-Fa-f.:]+/[0-9]{1,3} +(?:AS)?[0-9]+\s*")
_BLANKS = re.compile(rb"^([0-9A-Fa-f.:]+/[0-9]{1,3})( +)((?:AS)?[0-9]+)", re.MULTILINE)
_DECIMAL = re.compile(rb'"?[0-9]{1,39}"?[,;|\t] *"?[0-9]{3,39}"?[,;|\t].*')
_NAME = re.compile(rb"^(?:AS)?([0-9]{1,10}) +(.*?)\r?$", re.MULTILINE)
_JSON = b'{"CIDR"'
V4_END = 1 << 32


def plain_table(text: bytes) -> bytes:
    """A table of prefixes or ranges that `csv.detect` knows; the text itself where it is in no other form."""
    if text.lstrip().startswith(b";"):
        text = _COMMENT.sub(b"#", text)
    first = _first(text)
    if first.startswith(_JSON):
        return _lines(text, _of_json)
    if _BLANK.fullmatch(first):
        return _BLANKS.sub(rb"\1,\3", text)
    if not first.startswith(b'"') and b"," not in first and b"\t" not in first:
        mark = next((mark for mark in ";|" if mark.encode() in first), None)
        if mark is not None:
            return _lines(text, lambda line: _joined(next(csv.reader([line], delimiter=mark))))
    if _DECIMAL.fullmatch(first) and (fields := _fields(first.decode("utf-8", "replace"))) and _is_decimal(fields):
        return _lines(text, _of_decimals)
    return text


def plain_names(text: bytes) -> bytes:
    """A list `asn,"name"` of one that has `asn name`; the text itself where it has not."""
    first = _first(text)
    if b"," in first.partition(b" ")[0] or b"\t" in first or not _NAME.fullmatch(first):
        return text

    def one(found: re.Match[bytes]) -> bytes:
        return found[1] + b',"' + found[2].strip().replace(b'"', b'""') + b'"'

    return _NAME.sub(one, text)


def _first(text: bytes) -> bytes:
    """The first line that is neither blank nor a comment."""
    at = 3 if text.startswith(b"\xef\xbb\xbf") else 0
    while at < len(text):
        end = text.find(b"\n", at)
        line = text[at : len(text) if end < 0 else end].strip()
        if line and not line.startswith(b"#"):
            return line
        if end < 0:
            break
        at = end + 1
    return b""


def _lines(text: bytes, rewrite: Callable[[str], str | None]) -> bytes:
    """Each line rewritten; one that cannot be, as it is, for the reader of rows to refuse."""

    def made() -> Iterator[str]:
        for line in io.StringIO(text.decode("utf-8-sig", "replace"), newline="\n"):
            bare = line.strip()
            if not bare or bare.startswith("#"):
                yield ""
                continue
            try:
                yield rewrite(bare) or bare
            except (ValueError, KeyError, TypeError, IndexError, csv.Error, StopIteration, RecursionError):
                yield bare

    return "\n".join(made()).encode()


def _joined(fields: list[str]) -> str:
    return ",".join('"' + field.strip().replace('"', '""') + '"' for field in fields)


def _of_json(line: str) -> str:
    found = json.loads(line)
    return f"{found['CIDR']},{int(found['ASN'])}"


def _fields(line: str) -> list[str]:
    mark = next((mark for mark in "\t,;|" if mark in line), ",")
    return [field.strip() for field in next(csv.reader([line], delimiter=mark))]


def _is_decimal(fields: list[str]) -> bool:
    """Whether two numbers begin the row that are addresses and no AS numbers: the second no less, and a third field."""
    return (
        len(fields) >= 3
        and fields[0].isdigit()
        and fields[1].isdigit()
        and int(fields[1]) >= int(fields[0])
        and int(fields[1]) > 0xFFFF
    )


def _of_decimals(line: str) -> str | None:
    fields = _fields(line)
    if not _is_decimal(fields):
        return None
    first, last, rest = int(fields[0]), int(fields[1]), fields[2:]
    if "/" in rest[0] and len(rest) > 1:  # IP2Location's has the prefix, too
        rest = rest[1:]
    asn, name = rest[0], rest[1] if len(rest) > 1 else ""
    if len(rest) == 1:
        asn, _, name = rest[0].partition(" ")
    if asn in {"-", ""}:
        asn = "0"
    return _joined([_address(first, last), _address(last, last), asn, name])


def _address(value: int, last: int) -> str:
    if last < V4_END:
        return ".".join(str(value >> shift & 255) for shift in (24, 16, 8, 0))
    text = f"{value:032x}"
    if len(text) > 32:
        raise ValueError("more than 128 bits")
    return ":".join(text[at : at + 4] for at in range(0, 32, 4))
