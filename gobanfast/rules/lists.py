"""Prefix lists: the files that `prefix_file` names, a million entries as one condition.

One prefix or bare address per line; `#` and `;` start a comment; gzip is recognised by its first bytes.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from gobanfast._address import parse_prefixes
from gobanfast._errors import Problem
from gobanfast.rules.rule import PrefixList

MAX_LIST_BYTES = 256 << 20  # after decompression; about 17 million IPv4 prefixes
MAX_ENTRY = 64  # characters; the longest prefix text is 49


class ListError(Exception):
    """A list file that cannot be read at all; the message says why."""


def read_list(path: Path) -> tuple[PrefixList, list[Problem]]:
    """The prefixes in a list file, and every line that is not one.

    Raises:
        ListError: the file is missing, unreadable, damaged, or larger than `MAX_LIST_BYTES`.
    Cost: O(bytes).
    """
    text = read_bytes(path).decode("utf-8-sig", "replace")
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
    for index, message in bad:
        number = numbers[index]
        line = lines[number - 1]
        column = len(line) - len(line.lstrip()) + 1
        what, _, hint = message.partition("; ")
        if len(kept[index]) > MAX_ENTRY:
            what = f"prefix '{kept[index][:MAX_ENTRY]}...' is {len(kept[index])} characters long"
            hint = "one prefix per line"
        problems.append(Problem(str(path), number, column, what, hint))
    return PrefixList(addresses, lengths), problems


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
