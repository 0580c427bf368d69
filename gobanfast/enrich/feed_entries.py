"""Readers of feeds: the entries in what a source sent, and the sanity that a list must have before it is used."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gobanfast._core.address import format_address, parse_prefix, parse_prefixes
from gobanfast._errors import GobanError
from gobanfast._values import parse_asn
from gobanfast.bans import SPECIAL, WIDEST
from gobanfast.enrich.download import gunzip
from gobanfast.rules.rule import PrefixList
from gobanfast.rules.settings import FeedSettings
from gobanfast.rules.text.name_lists import parse_names
from gobanfast.rules.text.prefix_lists import ListError, parse_list
from gobanfast.rules.text.published_lists import steps

BAD_SHOWN = 3
SHRINKS, GROWS = 0.5, 10.0
FEW = 20  # entries of which a list may have more or fewer without a doubt
BITS = 128


class FeedError(GobanError):
    """A list that is not used; says why. The last good one stays."""


@dataclass(frozen=True, slots=True)
class Entries:
    """What a feed has, as the text that rules are compiled over; `skipped` entries were left out on purpose."""

    count: int
    skipped: int
    text: str


def unpacked(body: bytes, most: int) -> bytes:
    """The list itself, of a .gz or of the first .mmdb in a .tar.gz, too. FeedError when it is damaged or too large."""
    if not body.startswith(b"\x1f\x8b"):
        return body
    try:
        body = gunzip(body, most)
    except ValueError as error:
        raise FeedError(str(error)) from None
    if body[257:262] != b"ustar":
        return body
    try:
        with tarfile.open(fileobj=io.BytesIO(body)) as archive:
            for member in archive:
                if member.isfile() and member.name.endswith(".mmdb") and (file := archive.extractfile(member)):
                    return file.read()
    except tarfile.TarError as error:
        raise FeedError(f"archive is damaged: {error}") from None
    raise FeedError("archive has no .mmdb in it")


def read_entries(feed: FeedSettings, data: bytes, trusted: PrefixList) -> Entries:
    """The entries of a list of any kind but table.

    Raises:
        FeedError: a list that cannot be read, has nothing in it, or has what no list of the kind should have.
    """
    if data.lstrip()[:1] == b"<":
        raise FeedError("it is HTML or XML, not a list")
    if feed.kind == "prefix":
        return _prefixes(feed, data, trusted)
    if feed.kind == "name":
        return _names(data)
    rows = _rows(feed, data)
    return _asns(rows) if feed.kind == "asn" else _risks(rows)


def check_size(count: int, before: int, *, any_size: bool) -> None:
    """FeedError for a list that lost half of its entries or grew tenfold."""
    if count == 0:
        raise FeedError("it has no entries")
    if any_size or max(before, count) <= FEW or before == 0:
        return
    if count < before * SHRINKS:
        raise FeedError(f"it shrank from {before:,} to {count:,} entries; if that is right, fetch it with --force")
    if count > before * GROWS:
        raise FeedError(f"it grew from {before:,} to {count:,} entries; if that is right, fetch it with --force")


# ---- kinds


def _prefixes(feed: FeedSettings, data: bytes, trusted: PrefixList) -> Entries:
    try:
        if feed.format in {"auto", "plain"}:
            found, problems = parse_list(data, feed.name)
            if problems:
                raise FeedError(_several([str(problem) for problem in problems]))
        else:
            texts = [value for value, *_ in _rows(feed, data, risk=False)]
            addresses, lengths, bad = parse_prefixes(texts)
            if bad:
                raise FeedError(_several([message[:200] for _, message in bad]))
            found = PrefixList(addresses, lengths)
    except ListError as error:
        raise FeedError(str(error)) from None
    packed = np.frombuffer(found.addresses, np.uint8).reshape(-1, 16)
    lengths8 = np.frombuffer(found.lengths, np.uint8)
    wide = too_wide(lengths8, packed)
    if wide.any():
        at = int(np.argmax(wide))
        raise FeedError(f"it has {_text(packed[at], lengths8[at])}, more than a /{WIDEST[4]} (IPv6: /{WIDEST[6]})")
    if (proxy := overlapping(packed, lengths8, _pairs(trusted))) is not None:
        raise FeedError(f"it has {_text(packed[proxy], lengths8[proxy])}, which trust: names as a proxy")
    keep = np.ones(len(packed), bool)
    if feed.special != "keep":
        keep = ~special(packed, lengths8)
        if feed.special == "refuse" and not keep.all():
            at = int(np.argmin(keep))
            raise FeedError(f"it has {_text(packed[at], lengths8[at])}, which is private or reserved; "
                            "special: skip leaves such out")  # fmt: skip
    lines = [_text(address, bits) for address, bits in zip(packed[keep], lengths8[keep], strict=True)]
    return Entries(len(lines), int((~keep).sum()), "\n".join(lines) + "\n" if lines else "")


def _names(data: bytes) -> Entries:
    names, problems, skipped = parse_names(data, "feed")
    if problems:
        raise FeedError(_several([str(problem) for problem in problems]))
    return Entries(len(names), skipped, names.text + "\n")


def _asns(rows: Iterable[Sequence[str]]) -> Entries:
    return _lines((value for value, *_ in rows), _asn)


def _risks(rows: Iterable[Sequence[str]]) -> Entries:
    def line(row: Sequence[str]) -> str:
        risk = float(row[1])
        if not 0 <= risk <= 1:
            raise ValueError(f"risk {row[1][:40]!r} is out of range; 0 to 1")
        return f"{_asn(row[0])},{risk:g}"

    return _lines(rows, line)


def _lines(rows: Iterable[Any], line: Any) -> Entries:
    lines, bad = [], []
    for row in rows:
        try:
            lines.append(line(row))
        except (ValueError, IndexError) as error:
            bad.append(str(error)[:200])
    if bad:
        raise FeedError(_several(bad))
    return Entries(len(lines), 0, "\n".join(lines) + "\n")


def _asn(text: str) -> str:
    first, last = parse_asn(text.partition(" ")[0])
    return f"AS{first}" if first == last else f"AS{first}-AS{last}"


def _rows(feed: FeedSettings, data: bytes, *, risk: bool | None = None) -> Iterator[list[str]]:
    """Value, and with kind risk its risk, of each row, by the format."""
    risk = feed.kind == "risk" if risk is None else risk
    text = data.decode("utf-8-sig", "replace")
    if feed.format in {"json", "jsonl"}:
        yield from _json_rows(feed, text)
        return
    as_csv = feed.format == "csv" or risk
    lines = (
        csv.reader(io.StringIO(text), delimiter=feed.delimiter) if as_csv else ([line] for line in text.splitlines())
    )
    for row in lines:
        if not row or not row[0].strip() or row[0].lstrip().startswith(("#", ";")):
            continue
        columns = [feed.column, feed.risk_column] if risk else [feed.column if as_csv else 1]
        if max(columns) > len(row):
            raise FeedError(f"row {feed.delimiter.join(row)[:80]!r} has no column {max(columns)}")
        yield [row[at - 1].strip() for at in columns]


def _json_rows(feed: FeedSettings, text: str) -> Iterator[list[str]]:
    try:
        if feed.format == "jsonl":
            documents = [json.loads(line) for line in text.split("\n") if line.strip()]
            documents = [item for item in documents if not (isinstance(item, dict) and item.get("type") == "metadata")]
        else:
            documents = [json.loads(text)]
    except (ValueError, RecursionError) as error:
        raise FeedError(f"it is not JSON: {str(error)[:100]}") from None
    paths = feed.path or ("cidr",)
    if feed.kind == "risk":
        if len(paths) != 2:
            raise FeedError("path has not two entries, of the AS number and of its risk")
        for document in documents:
            columns = [[str(value) for value in steps(document, path)] for path in paths]
            yield from (list(row) for row in zip(*columns, strict=False))
        return
    for document in documents:
        for path in paths:
            for value in steps(document, path):
                if isinstance(value, bool) or not isinstance(value, (str, int)):
                    raise FeedError(f"at {path} is {str(value)[:80]!r}, neither text nor a number")
                yield [str(value)]


# ---- checks of many prefixes at once


def _pairs(prefixes: PrefixList) -> list[tuple[bytes, int]]:
    return [(prefixes.addresses[16 * i : 16 * i + 16], bits) for i, bits in enumerate(prefixes.lengths)]


def _mask(bits: int) -> NDArray[np.uint8]:
    return np.frombuffer(((1 << BITS) - (1 << (BITS - bits))).to_bytes(16, "big"), np.uint8)


def overlaps(packed: NDArray[np.uint8], lengths: NDArray[np.uint8], one: tuple[bytes, int]) -> NDArray[np.bool_]:
    """For every prefix, whether it covers `one` or lies in it."""
    address, bits = np.frombuffer(one[0], np.uint8), one[1]
    found = np.zeros(len(packed), bool)
    within = lengths >= bits
    found[within] = ((packed[within] ^ address) & _mask(bits) == 0).all(axis=1)
    for length in np.unique(lengths[~within]):
        rows = np.flatnonzero(lengths == length)
        found[rows] = ((packed[rows] ^ address) & _mask(int(length)) == 0).all(axis=1)
    return found


def overlapping(
    packed: NDArray[np.uint8], lengths: NDArray[np.uint8], others: Iterable[tuple[bytes, int]]
) -> int | None:
    """Place of the first prefix that overlaps one of `others`."""
    for one in others:
        found = overlaps(packed, lengths, one)
        if found.any():
            return int(np.argmax(found))
    return None


def _is_v4(packed: NDArray[np.uint8], lengths: NDArray[np.uint8]) -> NDArray[np.bool_]:
    mapped = np.frombuffer(b"\0" * 10 + b"\xff\xff", np.uint8)
    found: NDArray[np.bool_] = (packed[:, :12] == mapped).all(axis=1) & (lengths >= 96)
    return found


def too_wide(lengths: NDArray[np.uint8], packed: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """For every prefix, whether it is shorter than any list of clients has a right to."""
    v4 = _is_v4(packed, lengths)
    return np.where(v4, lengths < 96 + WIDEST[4], lengths < WIDEST[6])


def special(packed: NDArray[np.uint8], lengths: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """For every prefix, whether it overlaps private or reserved space."""
    v4 = _is_v4(packed, lengths)
    found = np.zeros(len(packed), bool)
    for prefix, _, _ in SPECIAL:
        rows = np.flatnonzero(v4 == ("." in prefix))
        found[rows] |= overlaps(packed[rows], lengths[rows], parse_prefix(prefix))
    return found


def _text(address: NDArray[np.uint8], bits: int) -> str:
    text, bits = format_address(address.tobytes()), int(bits)
    if bits == BITS:
        return text
    return f"{text}/{bits - 96 if '.' in text and bits >= 96 else bits}"


def _several(messages: list[str]) -> str:
    more = f", and {len(messages) - BAD_SHOWN:,} more" if len(messages) > BAD_SHOWN else ""
    return "; ".join(messages[:BAD_SHOWN]) + more


def table_bytes(body: bytes, folder: Path, name: str) -> tuple[bytes, int]:
    """A compiled AS table of what a source sent (MMDB or text), and its prefixes. FeedError."""
    from gobanfast import asn

    part = folder / f".{name}.part"
    out = folder / f".{name}.gbf"
    try:
        part.write_bytes(body)
        table = asn.read(part)
        table.save(out)
        return out.read_bytes(), len(table)
    except (GobanError, OSError, ValueError) as error:
        raise FeedError(str(error).replace(str(part), "table")[:300]) from None
    finally:
        part.unlink(missing_ok=True)
        out.unlink(missing_ok=True)
