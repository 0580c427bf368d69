"""Access logs in bounded memory: blocks of lines whose texts C finds, or chunks of addresses that Python finds.

Text is decoded as Latin-1, which cannot fail and costs one copy: only the address matters here, and an address is
ASCII. Whatever else a line holds (UTF-8, binary junk) passes through unread.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from io import BufferedReader
from itertools import chain, islice
from typing import TYPE_CHECKING

from gobanfast.batch.layouts import ADDRESS_KEYS, EMPTY, FORMATS, SAMPLE_LINES, Extracted, Found, found
from gobanfast.batch.line_blocks import BlockReader, LineBlock, line_blocks, pieces_of, whole_lines
from gobanfast.batch.log_fields import NOTHING, LineParser, Request, make_parser
from gobanfast.batch.unpack import DamagedError, LogError, unpacked, unwrapped

if TYPE_CHECKING:
    from gobanfast._core.prefix_set import PrefixSet

__all__ = ["ADDRESS_KEYS", "FORMATS", "Chunk", "LogError", "LogFile", "unpacked_lines"]

BLOCK_BYTES = 1 << 17  # read at once, small enough for the cache; a chunk holds the lines that end inside one block
MOST_WAITING = 64  # blocks that are read before fewer lines decide the layout

BYTE_ORDER_MARK = "\xef\xbb\xbf"  # of UTF-8, as Latin-1


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive lines of one log: `addresses[i]` is the client that line `first + i` names.

    An address is any text: nothing has been parsed, but a port is gone, and of a list the client is left. It is ""
    where the line names none, and then `faults` says why, by line number; a "" without a fault is a CSV header.
    `requests`, where asked for, are what lines say of the request and its time, and `lines` the lines as they are.
    """

    first: int
    addresses: list[str]
    faults: dict[int, str]
    requests: list[Request] | None = None
    lines: list[str] | None = None


class LogFile:
    """One log, for a single pass: iterate it for its chunks, or over `blocks` for the fast way.

    Args:
        stream: the log, plain, or packed by gzip, bzip2, xz or zstd (detected by content, not by name); UTF-16 too. The
            caller closes it.
        name: what errors call it.
        layout: one of FORMATS; "auto" decides by what most of the first lines look like.
        requests: whether chunks have `requests`.
        times: the same, with the times of lines.
        asked: names of the headers that rules require, for layouts that keep all headers.
        field: in place of the layout's own: JSON key, CSV column (name, or number from 1), combined field number.
        trusted: addresses of proxies, passed over from the right where the field lists several addresses.
    Raises:
        LogError: while iterating, when `field` does not fit, no CSV column looks like an address, or the log is
            packed by what cannot be unpacked here.
        OSError: while iterating, from `stream`. A damaged packed stream is a fault in the last chunk instead.
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
        self._parser: LineParser | None = None

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
            for samples, lines in _sampled(_lines(_plain(self._stream, self.name))):
                if self.found is None and samples:
                    parser = self._begin(samples)
                addresses, faults = _empty(lines) if self.found is None else self.found.extract(lines)
                requests = None
                if self._requests:  # blank lines alone make no parser
                    requests = [NOTHING if parser is None else parser(line) for line in lines]
                yield Chunk(first, addresses, {first + index: why for index, why in faults.items()}, requests, lines)
                first += len(lines)
        except DamagedError as error:
            yield Chunk(first, [""], {first: str(error)})

    def blocks(self) -> Iterator[LineBlock]:
        """The lines in blocks, for a single pass in place of iteration; then `extract` and `request` say what a line
        holds that a block leaves to them."""
        pieces = whole_lines(pieces_of(self._stream, _plain(self._stream, self.name)))
        waiting: list[tuple[bytes, int]] = []
        samples: list[str] = []
        broken: DamagedError | None = None
        try:
            for data, nbytes in pieces:
                waiting.append((bytes(data[:nbytes]), nbytes))
                lines = _stripped(waiting[-1][0].decode("latin-1").split("\n"))
                samples += islice((line for line in lines if line.strip()), SAMPLE_LINES - len(samples))
                if samples or len(waiting) >= MOST_WAITING:
                    break
        except DamagedError as error:
            broken = error
        if samples:
            self._parser = self._begin(samples)
        if self.found is None:
            reader = BlockReader(Found("combined", "", _empty, ""), samples, requests=False)
        else:
            reader = BlockReader(self.found, samples, requests=self._requests, asked=self._asked)
        yield from line_blocks(chain(waiting, pieces if broken is None else _raised(broken)), reader)

    def extract(self, line: str) -> tuple[str, str | None]:
        """(address, why there is none) of one line."""
        addresses, faults = _empty([line]) if self.found is None else self.found.extract([line])
        return addresses[0], faults.get(0)

    def addresses(self, lines: list[str]) -> list[str]:
        """Addresses of lines, "" where there is none."""
        return (_empty(lines) if self.found is None else self.found.extract(lines))[0]

    def request(self, line: str) -> Request:
        """What one line says of its request."""
        return NOTHING if self._parser is None else self._parser(line)

    def _begin(self, samples: list[str]) -> LineParser | None:
        self.found = found(samples, self.name, self._layout, self._field, self._trusted)
        return make_parser(samples, self.found.layout, self._asked, timed=self._times) if self._requests else None


def no_address(lines: list[str]) -> Extracted:
    """No line has an address: of a log whose lines were read elsewhere."""
    return _empty(lines)


def _raised(error: Exception) -> Iterator[tuple[bytes, int]]:
    raise error
    yield  # type: ignore[unreachable]


def _plain(stream: BufferedReader, name: str) -> Callable[[int], bytes]:
    """`read1` of the text: unpacked, UTF-16 as UTF-8, and without what a container runtime put around lines."""
    read = unpacked(stream, name)
    plain = read == stream.read1
    start = stream.peek(200)[:200] if plain else read(BLOCK_BYTES)
    coding = _wide(start[:200])
    if not plain:
        read = _again(read, start)
    if coding is not None:
        decoder = codecs.getincrementaldecoder(coding)("replace")

        def recoded(nbytes: int, read: Callable[[int], bytes] = read) -> bytes:
            while True:
                piece = read(nbytes)
                text = decoder.decode(piece, final=not piece)
                if text or not piece:
                    return text.encode("utf-8", "surrogatepass")

        return recoded
    return unwrapped(read, start)


def _again(read: Callable[[int], bytes], piece: bytes) -> Callable[[int], bytes]:
    """`read` that gives a piece first."""

    def first(nbytes: int) -> bytes:
        nonlocal piece
        found, piece = piece or read(nbytes), b""
        return found

    return first


def _wide(block: bytes) -> str | None:
    """The codec of a text that is UTF-16, as exports of Windows often are; None: it may be UTF-8, ASCII or Latin-1."""
    if block.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    even, odd = block[::2], block[1::2]
    zeros = even.count(0), odd.count(0)
    if len(odd) < 8 or max(zeros) <= 0.8 * len(odd) or 0.8 * len(odd) <= 4 * min(zeros):
        return None
    return "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"


def unpacked_lines(stream: BufferedReader, name: str) -> Iterator[str]:
    """Whole lines of UTF-8 text, plain or packed, as a decision log has them; other bytes are surrogates.

    Raises:
        LogError: the packed stream is damaged.
    """
    read, rest = unpacked(stream, name), b""
    try:
        while block := read(BLOCK_BYTES):
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                yield line.decode("utf-8", "surrogateescape") + "\n"
    except DamagedError as error:
        raise LogError(f"{name}: {error}") from None
    if rest:
        yield rest.decode("utf-8", "surrogateescape")


def _lines(read: Callable[[int], bytes]) -> Iterator[list[str]]:
    """Lists of lines in order, without their ends; a line past BLOCK_BYTES is cut to that."""
    rest = ""
    while block := read(BLOCK_BYTES):
        text = rest + block.decode("latin-1")
        lines = text.split("\n")
        lines[0] = lines[0][:BLOCK_BYTES]  # only the one that began in an earlier block can be longer
        rest = lines.pop()[:BLOCK_BYTES]
        if lines:
            odd = "\r" in text or "\0" in text or BYTE_ORDER_MARK in text
            yield _stripped(lines) if odd else lines
    if rest:
        yield _stripped([rest])


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
    except DamagedError as error:
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
