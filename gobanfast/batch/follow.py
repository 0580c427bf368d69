"""Live log follower: decides lines as a server writes them, over rotation, and tells of the bans that come of it.

For servers that cannot be guarded inside: what is banned goes into a store, or to whoever reads the output.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from gobanfast._core.address import parse_address
from gobanfast.batch.coverage import required_headers
from gobanfast.batch.layouts import SAMPLE_LINES, found
from gobanfast.batch.log_fields import LineParser, make_parser

if TYPE_CHECKING:
    from gobanfast._core.prefix_set import PrefixSet
    from gobanfast.bans import Ban
    from gobanfast.batch.layouts import Found
    from gobanfast.engine import Engine

BLOCK = 1 << 17
LONGEST = 1 << 20  # bytes of a line that does not end
PAUSE = 0.2  # seconds between looks at a log that has no more


class Tail:
    """New lines of a log, as `tail -F`: over a rename with a new file, a truncation, and while there is no file.

    Args:
        path: the log, which need not be there yet.
        start: whether lines that are there already are given, too.
    """

    def __init__(self, path: str | os.PathLike[str], *, start: bool = False) -> None:
        self.path = os.fspath(path)
        self.rotations = 0
        self._fd = -1
        self._rest = b""
        self._skipping = False  # the rest of a line that was too long
        if self._open() and not start:
            os.lseek(self._fd, 0, os.SEEK_END)

    def close(self) -> None:
        """Closes the log."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def lines(self) -> list[str]:
        """Lines that were completed since the last call; none where there is nothing new."""
        if self._fd < 0 and not self._open():
            return []
        block = os.read(self._fd, BLOCK)
        if block:
            return self._split(block)
        if not self._replaced():
            return []
        block = os.read(self._fd, BLOCK)  # what was written between the last read and the rename
        if block:
            return self._split(block)
        last = [self._rest.decode("latin-1")] if self._rest and not self._skipping else []
        self.close()
        self._rest, self._skipping = b"", False
        self.rotations += 1
        self._open()
        return [line for line in last if line]

    def _open(self) -> bool:
        try:
            self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._fd = -1
        return self._fd >= 0

    def _replaced(self) -> bool:
        """Whether another file has the name now. One that was cut short is read from its start again."""
        mine = os.fstat(self._fd)
        if mine.st_size < os.lseek(self._fd, 0, os.SEEK_CUR):
            os.lseek(self._fd, 0, os.SEEK_SET)
            self._rest, self._skipping = b"", False
            self.rotations += 1
            return False
        try:
            there = os.stat(self.path)
        except OSError:
            return False  # the new one is not there yet
        return (there.st_ino, there.st_dev) != (mine.st_ino, mine.st_dev)

    def _split(self, block: bytes) -> list[str]:
        *whole, self._rest = (self._rest + block).split(b"\n")
        if self._skipping and whole:
            whole, self._skipping = whole[1:], False
        if len(self._rest) > LONGEST:
            self._rest, self._skipping = b"", True
        return [line.decode("latin-1").strip("\0\r") for line in whole]


class Follower:
    """Decides the lines of one log by an engine: bans, trackers and score take part, now.

    Args:
        engine: decides; its bans are what comes of it.
        layout, field: as for `LogFile`; the log's first lines decide with "auto".
    """

    def __init__(
        self, engine: Engine, path: str | os.PathLike[str], *, layout: str = "auto", field: str | None = None,
        mount: str = "", start: bool = False,
    ) -> None:  # fmt: skip
        from gobanfast._core.prefix_set import PrefixSet

        self.decided = self.bad = 0
        self._engine, self._layout, self._field, self._mount = engine, layout, field, mount
        trust = engine.ruleset.trust
        self._trusted: PrefixSet = PrefixSet.from_packed(trust.addresses, trust.lengths)
        self._found: Found | None = None
        self._parser: LineParser | None = None
        self._waiting: list[str] = []
        self.tail = Tail(path, start=start)
        if not start:
            self._learn(_head(self.tail.path))
        _, self._cursor = engine.ban_table.changes()

    def step(self) -> bool:
        """Whether there were lines: decides what was written since the last call."""
        lines = [line for line in self.tail.lines() if line.strip()]
        if lines:
            self._decide(lines)
        return bool(lines)

    def bans(self) -> Iterator[Ban]:
        """Bans that rules and trackers made since the last call."""
        while True:
            changes, self._cursor = self._engine.ban_table.changes(self._cursor)
            for change in changes or ():
                if change.event in {"add", "extend"} and change.maker in {"rule", "tracker"}:
                    yield change.ban
            if not changes:
                return

    def run(self, tell: Callable[[Ban], None], stop: Callable[[], bool] = lambda: False) -> None:
        """Follows until `stop` says so; `tell` is called with each ban."""
        while not stop():
            busy = self.step()
            for ban in self.bans():
                tell(ban)
            if not busy:
                time.sleep(PAUSE)

    def _learn(self, samples: list[str]) -> None:
        if not samples:
            return
        self._found = found(samples, self.tail.path, self._layout, self._field, self._trusted)
        asked = required_headers(self._engine.compiled)
        self._parser = make_parser(samples, self._found.layout, asked, timed=False)

    def _decide(self, lines: Iterable[str]) -> None:
        lines = list(lines)
        if self._found is None:
            self._learn(lines[:SAMPLE_LINES])
        if self._found is None or self._parser is None:
            return
        addresses, _ = self._found.extract(lines)
        for line, address in zip(lines, addresses, strict=True):
            if parse_address(address) is None:
                self.bad += 1
                continue
            self._engine.decide(address, headers=self._parser(line).headers, mount=self._mount)
            self.decided += 1


def _head(path: str) -> list[str]:
    """The first lines of a log that are not empty; none of one that is not there."""
    try:
        with open(path, "rb") as file:
            text = file.read(BLOCK).decode("latin-1")
    except OSError:
        return []
    whole = text.split("\n")[:-1] if len(text) == BLOCK else text.split("\n")
    return [line.strip("\0\r") for line in whole if line.strip()][:SAMPLE_LINES]
