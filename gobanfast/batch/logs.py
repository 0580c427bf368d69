"""Access logs as chunks of client addresses: plain or gzip, streamed, in bounded memory.

Text is decoded as Latin-1, which cannot fail and costs one copy: only the address matters here, and an address is
ASCII. Whatever else a line holds (UTF-8, binary junk) passes through unread.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from io import BufferedReader
from itertools import islice
from typing import TYPE_CHECKING

from gobanfast.batch.layouts import ADDRESS_KEYS, EMPTY, FORMATS, SAMPLE_LINES, Extracted, Found, LogError, found
from gobanfast.batch.log_fields import LineParser, Request, make_parser

if TYPE_CHECKING:
    from gobanfast._core.prefix_set import PrefixSet

__all__ = ["ADDRESS_KEYS", "FORMATS", "Chunk", "LogError", "LogFile", "unpacked_lines"]

BLOCK_BYTES = 1 << 17  # read at once, small enough for the cache; a chunk holds the lines that end inside one block
MOST_WAITING = 64  # blocks that are read before fewer lines decide the layout

BYTE_ORDER_MARK = "\xef\xbb\xbf"  # of UTF-8, as Latin-1
PACKED = {b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"PK\3\4": "zip"}


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive lines of one log: `addresses[i]` is the client that line `first + i` names.

    An address is any text: nothing has been parsed, but a port is gone, and of a list the client is left. It is ""
    where the line names none, and then `faults` says why, by line number; a "" without a fault is a CSV header.
    `requests`, where asked for, are what lines say of the request and its time.
    """

    first: int
    addresses: list[str]
    faults: dict[int, str]
    requests: list[Request] | None = None


class LogFile:
    """One log, for a single pass: iterate it for its chunks.

    Args:
        stream: the log, plain or gzip (detected by content, not by name); the caller closes it.
        name: what errors call it.
        layout: one of FORMATS; "auto" decides by what most of the first lines look like.
        requests: whether chunks have `requests`.
        times: the same, with the times of lines.
        asked: names of the headers that rules require, for layouts that keep all headers.
        field: in place of the layout's own: JSON key, CSV column (name, or number from 1), combined field number.
        trusted: addresses of proxies, passed over from the right where the field lists several addresses.
    Raises:
        LogError: while iterating, when `field` does not fit, no CSV column looks like an address, or the log is UTF-16
            or packed by anything but gzip.
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
        times: bool = False,
        asked: Iterable[str] = (),
        trusted: PrefixSet | None = None,
    ) -> None:
        self.name = name
        self.found: Found | None = None  # how it is written, once its first lines are read
        self._stream = stream
        self._layout = layout
        self._field = field
        self._requests = requests or times
        self._times = times
        self._asked = tuple(asked)
        self._trusted = trusted

    @property
    def consumed(self) -> int:
        """Bytes of the file read so far, before unpacking; 0 for a pipe, which cannot tell."""
        try:
            return self._stream.tell()
        except OSError:
            return 0

    def __iter__(self) -> Iterator[Chunk]:
        first = 1
        parser: LineParser | None = None
        try:
            for samples, lines in _sampled(_lines(_unpacked(self._stream), self.name)):
                if self.found is None and samples:
                    self.found = found(samples, self.name, self._layout, self._field, self._trusted)
                    if self._requests:
                        parser = make_parser(samples, self.found.layout, self._asked, timed=self._times)
                addresses, faults = _empty(lines) if self.found is None else self.found.extract(lines)
                requests = None if parser is None else [parser(line) for line in lines]
                yield Chunk(first, addresses, {first + index: why for index, why in faults.items()}, requests)
                first += len(lines)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            yield Chunk(first, [""], {first: f"gzip stream is damaged or cut short: {error}"})


def _unpacked(stream: BufferedReader) -> Callable[[int], bytes]:
    """`read1` of the plain bytes. It returns after one read of the file, so a fault loses nothing before it."""
    if stream.peek(2)[:2] == b"\x1f\x8b":
        return gzip.GzipFile(fileobj=stream).read1
    return stream.read1


def unpacked_lines(stream: BufferedReader, name: str) -> Iterator[str]:
    """Whole lines of UTF-8 text, plain or gzip, as a decision log has them; other bytes are surrogates.

    Raises:
        LogError: the gzip stream is damaged.
    """
    packed = stream.peek(2)[:2] == b"\x1f\x8b"
    plain = gzip.GzipFile(fileobj=stream) if packed else stream
    try:
        for line in plain:
            yield line.decode("utf-8", "surrogateescape")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise LogError(f"{name}: gzip stream is damaged or cut short: {error}") from None


def _lines(read: Callable[[int], bytes], name: str = "log") -> Iterator[list[str]]:
    """Lists of lines in order, without their ends; a line past BLOCK_BYTES is cut to that."""
    rest, number = "", 0
    while block := read(BLOCK_BYTES):
        if number == 0:
            _refuse_foreign(block, name)
        number += 1
        text = rest + block.decode("latin-1")
        lines = text.split("\n")
        lines[0] = lines[0][:BLOCK_BYTES]  # only the one that began in an earlier block can be longer
        rest = lines.pop()
        if lines:
            odd = "\r" in text or "\0" in text or BYTE_ORDER_MARK in text
            yield _stripped(lines) if odd else lines
    if rest:
        yield _stripped([rest])


def _refuse_foreign(block: bytes, name: str) -> None:
    """None if the text may be UTF-8, ASCII or Latin-1; LogError for UTF-16 and for what is packed."""
    for magic, packer in PACKED.items():
        if block.startswith(magic):
            raise LogError(f"{name}: it is packed by {packer}; unpack it first, and give the plain log or - for stdin")
    even, odd = block[:200:2], block[1:200:2]
    wide = len(odd) >= 8 and max(even.count(0), odd.count(0)) > 0.8 * len(odd) > 4 * min(even.count(0), odd.count(0))
    if wide or block.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise LogError(
            f"{name}: it is UTF-16, as exports of Windows often are; make it UTF-8: iconv -f UTF-16 -t UTF-8"
        )


def _stripped(lines: list[str]) -> list[str]:
    """Lines without carriage return at the end, the run of NULs that copytruncate leaves in front, and a BOM."""
    return [line.strip("\0\r").removeprefix(BYTE_ORDER_MARK) for line in lines]


def _sampled(blocks: Iterator[list[str]]) -> Iterator[tuple[list[str], list[str]]]:
    """Each list of lines, with the first SAMPLE_LINES lines of all that are not empty; these come first."""
    samples: list[str] = []
    waiting: list[list[str]] = []
    broken: Exception | None = None
    try:
        for lines in blocks:
            waiting.append(lines)
            samples += islice((line for line in lines if line.strip()), SAMPLE_LINES - len(samples))
            if len(samples) >= SAMPLE_LINES or len(waiting) >= MOST_WAITING:
                break
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        broken = error
    for lines in waiting:
        yield samples, lines
    if broken is not None:
        raise broken
    for lines in blocks:
        if not samples:
            samples += islice((line for line in lines if line.strip()), SAMPLE_LINES)
        yield samples, lines


def _empty(lines: list[str]) -> Extracted:
    return [""] * len(lines), dict.fromkeys(range(len(lines)), EMPTY)
