"""Prefix lists for `prefix_file` and `outside_file`: a million entries as one condition.

One prefix, bare address or range `first-last` per line; `#` and `;` start a comment. Or JSON, detected by its first
character, in which search engines publish where their crawlers are: {"prefixes": [{"ipv4Prefix": "192.0.2.0/24"}]}, and
the shapes of `published_lists`. gzip is recognised by its first bytes.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gobanfast._core.address import parse_prefixes
from gobanfast._errors import Problem
from gobanfast.rules.rule import PrefixList
from gobanfast.rules.text import published_lists

MAX_LIST_BYTES = 256 << 20  # after decompression; about 17 million IPv4 prefixes
MAX_ENTRY = 64  # characters; the longest prefix text is 49

_PUBLISHED = ("ipv4Prefix", "ipv6Prefix")
_BLANKS = re.compile(r"[ \t\r\n]*")


class ListError(Exception):
    """A list file that cannot be read at all; the message says why."""


def read_list(path: Path) -> tuple[PrefixList, list[Problem]]:
    """The prefixes in a list file, and every line or entry that is not one.

    Raises:
        ListError: the file is missing, unreadable, damaged, or larger than `MAX_LIST_BYTES`.
    Cost: O(bytes).
    """
    return parse_list(read_bytes(path), str(path))


def parse_list(data: bytes, source: str) -> tuple[PrefixList, list[Problem]]:
    """`read_list` of bytes that are unpacked; `source` is the name in messages. Raises ListError."""
    text = data.decode("utf-8-sig", "replace")
    if text.lstrip().startswith(("{", "[")):
        return _read_published(text, source)
    lines = text.replace(";", "#").split("\n") if ";" in text else text.split("\n")
    if "#" in text or ";" in text:
        lines = [line.partition("#")[0] for line in lines]
    entries = [line.strip() for line in lines]
    kept = entries
    numbers: list[int] | range = range(1, len(entries) + 1)
    if not all(entries):
        numbers = [number for number, entry in enumerate(entries, 1) if entry]
        kept = [entry for entry in entries if entry]

    addresses, lengths, bad = parse_prefixes(kept)
    problems = []
    more: list[str] = []
    places: list[int] = []
    for index, message in bad:
        number = numbers[index]
        other = published_lists.other_forms(kept[index][:256])
        if other is not None:
            more += other
            places += [number] * len(other)
            continue
        line = lines[number - 1]
        column = len(line) - len(line.lstrip()) + 1
        what, _, hint = message.partition("; ")
        if len(kept[index]) > MAX_ENTRY:
            what = f"prefix '{kept[index][:MAX_ENTRY]}...' is {len(kept[index])} characters long"
            hint = "one prefix per line"
        problems.append(Problem(source, number, column, what, hint))
    if more:
        addresses2, lengths2, wrong = published_lists.checked(more, places, source)
        addresses, lengths, problems = addresses + addresses2, lengths + lengths2, problems + wrong
    return PrefixList(addresses, lengths), problems


def _read_published(text: str, source: str) -> tuple[PrefixList, list[Problem]]:
    """The prefixes in JSON as search engines publish it."""
    hint = 'search engines publish {"prefixes": [{"ipv4Prefix": "192.0.2.0/24"}]}'
    nothing = PrefixList(b"", b"")
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and text[: error.pos].count("\n") <= 1:  # an object a line
            return _listed(*published_lists.json_lines(text), source)
        return nothing, [Problem(source, error.lineno, error.colno, f"list is not JSON: {error.msg.lower()}", hint)]
    except (ValueError, RecursionError) as error:  # a number of a million digits, brackets without end
        raise ListError(f"JSON that cannot be read ({error})") from None
    if (paths := published_lists.shape_of(data)) is not None:
        values = [value for path in paths for value in published_lists.steps(data, path) if isinstance(value, str)]
        return _listed(values, [1] * len(values), [], source)
    if isinstance(data, dict) and isinstance(data.get("cidr"), str):  # JSON lines, of one
        return _listed(*published_lists.json_lines(text), source)
    if not isinstance(data.get("prefixes"), list):
        return nothing, [Problem(source, 1, 1, "JSON has no list 'prefixes'", published_lists.json_hint(data))]
    entries, places, problems = [], [], []
    for at, entry in _elements(text):
        keys = [key for key in _PUBLISHED if key in entry] if isinstance(entry, dict) else []
        if not keys or not all(isinstance(entry[key], str) for key in keys):
            problems.append(Problem(source, *_place(text, at), "entry has no ipv4Prefix or ipv6Prefix", hint))
        else:
            entries += [entry[key] for key in keys]
            places += [max(at, text.find(f'"{key}"', at)) for key in keys]
    addresses, lengths, bad = parse_prefixes(entries)
    for index, message in bad:
        what, _, fix = message[: 4 * MAX_ENTRY].partition("; ")
        problems.append(Problem(source, *_place(text, places[index]), what, fix))
    return PrefixList(addresses, lengths), sorted(problems, key=lambda problem: (problem.line, problem.column))


def _listed(
    entries: list[str], numbers: list[int], bad: list[tuple[int, str]], source: str
) -> tuple[PrefixList, list[Problem]]:
    """The prefixes that entries of these lines are, and all problems by line."""
    addresses, lengths, problems = published_lists.checked(entries, numbers, source)
    problems += [Problem(source, number, 1, message) for number, message in bad]
    return PrefixList(addresses, lengths), sorted(problems, key=lambda problem: problem.line)


def _elements(text: str) -> Iterator[tuple[int, Any]]:
    """Offset and value of each element of the list "prefixes" in the object that `text` is; the last one counts."""
    decode = json.JSONDecoder().raw_decode

    def past(at: int, mark: str) -> int:
        at = _BLANKS.match(text, at).end()  # type: ignore[union-attr]
        return _BLANKS.match(text, at + text.startswith(mark, at)).end()  # type: ignore[union-attr]

    at, begins = past(0, "{"), 0
    while text[at] != "}":
        key, end = decode(text, at)
        at = past(end, ":")
        begins = at if key == "prefixes" else begins
        at = past(decode(text, at)[1], ",")
    at = past(begins, "[")
    while text[at] != "]":
        value, end = decode(text, at)
        yield at, value
        at = past(end, ",")


def _place(text: str, at: int) -> tuple[int, int]:
    """Line and column of an offset."""
    return text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)


def read_bytes(path: Path) -> bytes:
    """The bytes of a list file, decompressed. Raises ListError."""
    try:
        with path.open("rb") as file:
            compressed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            with gzip.GzipFile(fileobj=file) if compressed else file as stream:
                data = stream.read(MAX_LIST_BYTES + 1)
    except OSError as error:
        raise ListError(error.strerror.lower() if error.strerror else str(error).lower()) from error
    except (EOFError, zlib.error) as error:
        raise ListError("damaged gzip data") from error
    if len(data) > MAX_LIST_BYTES:
        raise ListError(f"more than {MAX_LIST_BYTES} bytes")
    return data
