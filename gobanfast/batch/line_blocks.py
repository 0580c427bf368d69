"""Blocks of whole lines of a log, their texts found in C, and the way back to each line for the slow reader."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from io import BufferedReader
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gobanfast._core import log_lines
from gobanfast.batch import json_lines
from gobanfast.batch.layouts import delimiter_of
from gobanfast.batch.log_fields import Roles, combined_roles, csv_cells, key_roles, known_keys, normal_key
from gobanfast.batch.unpack import DamagedError, Read, ahead

if TYPE_CHECKING:
    from gobanfast.batch.layouts import Found

LINE_BYTES = 1 << 17  # of a line that are read; the rest of a longer one is dropped
BLOCK_BYTES = 1 << 20
SLOW = log_lines.SLOW
LONGEST_JSON = 1 << 13  # so that no header in it is too long to be read
MOST_TRIED = 64  # structures of JSON lines that are looked at in one log

_CUT, _RAW = combined_roles(cut=True), combined_roles(cut=False)
_COMBINED: dict[int, tuple[Roles, ...]] = {
    log_lines.ADDRESS: (), log_lines.FULL: _CUT, log_lines.FULL_RAW: _RAW, log_lines.COMMON: _CUT[:1],
    log_lines.COMMON_RAW: _RAW[:1],
}  # fmt: skip


@dataclass(slots=True, eq=False)
class LineBlock:
    """Consecutive lines of a log: text c of line i begins at `data[at[c, i]]` and has `nbytes[c, i]`; text 0 is the
    address.

    Lines whose kind is SLOW have no texts: the slow reader knows what they say. Lines of one kind have a
    text for each of `roles[kind]` besides the address, and equal texts mean the same. Good until the next block.
    """

    first: int
    data: bytearray | bytes
    kinds: NDArray[np.uint8]
    spans: NDArray[np.uint32]
    roles: dict[int, tuple[Roles, ...]]
    faults: dict[int, str] = field(default_factory=dict)  # by index: of lines that could not be read at all

    def __len__(self) -> int:
        return len(self.kinds)

    @property
    def at(self) -> NDArray[np.uint32]:
        return self.spans[2 : 2 + log_lines.COLUMNS]

    @property
    def nbytes(self) -> NDArray[np.uint32]:
        return self.spans[2 + log_lines.COLUMNS :]

    def lines(self, indexes: list[int]) -> list[str]:
        """Lines as the slow reader has them."""
        chosen = self.spans[:2, indexes].tolist()
        data = self.data
        return [
            data[start : start + min(length, LINE_BYTES)].decode("latin-1")
            for start, length in zip(*chosen, strict=True)
        ]

    def line(self, index: int) -> str:
        """The line as the slow reader has it."""
        start, length = int(self.spans[0, index]), min(int(self.spans[1, index]), LINE_BYTES)
        return self.data[start : start + length].decode("latin-1")


def whole_lines(pieces: Iterable[bytes] | BufferedReader | Read) -> Iterator[tuple[bytearray, int]]:
    """(block, bytes) of whole lines, the last of which gets a line feed; the block is used again for the next ones.

    A line that is longer than a block is cut to it.
    """
    block = bytearray(BLOCK_BYTES + 1)
    view = memoryview(block)
    fill, cutting = 0, False

    def ends() -> Iterator[int]:
        nonlocal fill, cutting
        end = block.rfind(b"\n", 0, fill) + 1
        if end == 0 and fill == BLOCK_BYTES:
            cutting = True
            fill = LINE_BYTES
        if end:
            yield end
            view[: fill - end] = view[end:fill]
            fill -= end

    if isinstance(pieces, BufferedReader):
        while got := pieces.readinto1(view[fill:BLOCK_BYTES]):
            start, fill = fill, fill + got
            if cutting:
                start, fill, cutting = _resumed(block, view, start, fill)
            if fill >= BLOCK_BYTES // 2 or fill == BLOCK_BYTES:
                for end in ends():
                    yield block, end
    else:
        for piece in pieces:  # type: ignore[union-attr]
            done = 0
            while done < len(piece):
                got = min(BLOCK_BYTES - fill, len(piece) - done)
                view[fill : fill + got] = piece[done : done + got]
                done += got
                start, fill = fill, fill + got
                if cutting:
                    start, fill, cutting = _resumed(block, view, start, fill)
                if fill == BLOCK_BYTES:
                    for end in ends():
                        yield block, end
    if fill:
        if block[fill - 1] != 10:
            block[fill] = 10
            fill += 1
        yield block, fill


def _resumed(block: bytearray, view: memoryview, start: int, fill: int) -> tuple[int, int, bool]:
    """The rest of a line that was cut is dropped: (start, fill, whether it goes on)."""
    end = block.find(b"\n", start, fill)
    if end < 0:
        return start, start, True
    rest = fill - end
    view[start : start + rest] = view[end:fill]
    return start, start + rest, False


def line_blocks(blocks: Iterator[tuple[bytearray | bytes, int]], reader: BlockReader) -> Iterator[LineBlock]:
    """The lines of blocks; the last of a damaged stream is the fault."""
    first = 1
    try:
        for data, nbytes in blocks:
            made = reader.read(data, nbytes, first)
            yield made
            first += len(made)
    except DamagedError as error:
        spans = np.zeros((2 + 2 * log_lines.COLUMNS, 1), np.uint32)
        yield LineBlock(first, b"", np.zeros(1, np.uint8), spans, {}, {0: str(error)})


class BlockReader:
    """Reader of blocks of one log, as `found` says it is written.

    Args:
        samples: its first lines.
        requests: whether what lines say of the request is wanted, or the address alone.
        asked: names of the headers that rules require.
    """

    def __init__(self, found: Found, samples: list[str], *, requests: bool, asked: Iterable[str] = ()) -> None:
        self._keys = found.keys
        self._requests = requests
        self._asked = tuple(asked)
        self._roles: dict[int, tuple[Roles, ...]] = {}
        self._tried: set[int] = set()
        self._reader: log_lines.LineReader | None = None
        self._json = False
        if found.skip is not None:
            self._reader = log_lines.LineReader("combined", skip=found.skip, address_only=not requests)
            self._roles = _COMBINED if requests else {log_lines.ADDRESS: ()}
        elif found.cell is not None:
            cells = csv_cells(samples) if requests else {}
            if len(cells) < log_lines.COLUMNS:
                self._reader = log_lines.LineReader(
                    "csv", delimiter=delimiter_of(samples), columns=[found.cell, *cells]
                )
                roles = tuple(Roles(names, _cell, "latin-1") for names in cells.values())
                self._roles = {log_lines.ADDRESS: roles}
        elif found.keys is not None:
            self._reader, self._json = log_lines.LineReader("json"), True
        self._known = known_keys(self._asked)

    def read(self, data: bytearray | bytes, nbytes: int, first: int) -> LineBlock:
        reader = self._reader or log_lines.LineReader("csv", columns=[0, 0])  # which finds no cell twice: all slow
        lines = reader.index(data, nbytes)
        kinds = np.empty(lines, np.uint8)
        spans = np.empty((2 + 2 * log_lines.COLUMNS, lines), np.uint32)
        hashes = np.empty(lines, np.uint64) if self._json else None
        reader.read(data, nbytes, lines, kinds, spans, hashes)
        made = LineBlock(first, data, kinds, spans, self._roles)
        if hashes is not None and self._learn(made, hashes):
            reader.index(data, nbytes)  # of the block again: it was told of a line
            reader.read(data, nbytes, lines, kinds, spans, hashes)
        if self._reader is None:
            kinds[:] = SLOW
        kinds[spans[1] > (LONGEST_JSON if self._json else LINE_BYTES)] = SLOW
        return made

    def _learn(self, block: LineBlock, hashes: NDArray[np.uint64]) -> bool:
        """Whether structures of JSON lines were learned that were not known."""
        new = (block.kinds == SLOW) & (hashes != 0)
        if not new.any() or len(self._tried) >= MOST_TRIED:
            return False
        learned = False
        found, rows = np.unique(hashes[new], return_index=True)
        for hash, row in zip(found.tolist(), np.flatnonzero(new)[rows].tolist(), strict=True):  # noqa: A001
            if hash in self._tried or len(self._tried) >= MOST_TRIED:
                continue
            self._tried.add(hash)
            slots = self._slots(block.line(row).encode("latin-1"))
            kind = None if slots is None or self._reader is None else self._reader.learn(hash, [*slots])
            if kind is not None and slots is not None:
                self._roles[kind] = tuple(Roles(names, _json_text, "utf-8") for names in slots.values())[1:]
                learned = True
        return learned

    def _slots(self, line: bytes) -> dict[int, tuple[str, ...]] | None:
        """Numbers of the values that the slow reader may look at, the address first, and what they may be to it; None:
        the line is left to that one."""
        told = None if self._reader is None else self._reader.json_values(line)
        if told is None:
            return None
        try:
            entry = json.loads(line.decode("utf-8", "surrogateescape"), object_pairs_hook=_Pairs)
        except ValueError:
            return None
        values = [*_walked(entry, ())]
        if "".join(kind for _, kind in values) != told[1].replace("b", "s"):  # or a key is there twice
            return None
        address = self._address(json.loads(line.decode("utf-8", "surrogateescape")), values)
        if address is None:
            return None
        slots: dict[int, tuple[str, ...]] = {address: ()}
        for number, ((path, _), kind) in enumerate(zip(values, told[1], strict=True)):
            names = [normal_key(part) for part in path]
            outer = ".".join(names[:-1])
            of_headers = outer in self._known.objects
            if of_headers and kind == "b" and names[-1] not in self._known.headers:
                return None  # an odd header makes all of them unreadable
            if not self._requests or kind not in "sb":
                continue
            roles = key_roles(".".join(names))
            if of_headers and names[-1] in self._known.headers:
                roles = key_roles(path[-1].lower(), header=True)
            if roles and number == address:
                return None
            if roles:
                slots[number] = roles
        return slots if len(slots) <= log_lines.COLUMNS else None

    def _address(self, entry: dict[str, Any], values: list[tuple[tuple[str, ...], str]]) -> int | None:
        """Number of the value that holds the address."""
        for key in self._keys or ():
            value = json_lines.member(entry, key)
            if value is None or value == "":
                continue
            found = [number for number, (path, kind) in enumerate(values) if ".".join(path) == key and kind == "s"]
            return found[0] if len(found) == 1 and isinstance(value, str) else None
        return None


def _cell(raw: bytes) -> str:
    return raw.decode("latin-1").strip()


def _json_text(raw: bytes) -> str:
    text = raw.decode("utf-8", "surrogateescape")
    return text if "\\" not in text else str(json.loads(f'"{text}"'))


class _Pairs(list[tuple[str, Any]]):
    """A JSON object in order."""


def _walked(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """(keys, type) of the values of a JSON text in order, as `gbf_log_json` has them."""
    if isinstance(value, _Pairs):
        if not value:
            yield path, "o"
        if len({key for key, _ in value}) < len(value):
            yield path, "twice"
        for key, inner in value:
            yield from _walked(inner, (*path, key))
    elif isinstance(value, list):
        if not value:
            yield path, "a"
        for inner in value:
            yield from _walked(inner, path)
    elif isinstance(value, str):
        yield path, "s" if value else "e"
    elif value is None:
        yield path, "0"
    else:
        yield path, "l" if isinstance(value, bool) else "n"


def pieces_of(stream: BufferedReader, read: Read) -> Iterable[bytes] | BufferedReader:
    """What `whole_lines` takes: the file itself, or the pieces that a thread unpacks."""
    return stream if read == stream.read1 else ahead(read)
