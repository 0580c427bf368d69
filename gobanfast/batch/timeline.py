"""Merge of lines of several logs by time, in bounded memory."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from gobanfast.batch.log_fields import NOTHING, Request
from gobanfast.batch.logs import LogError, LogFile

AHEAD = 4096  # lines that are held back to be sorted: servers log a request when it ends
PATIENCE = 100_000  # lines without any time that are read before a replay gives up


class Row(NamedTuple):
    """One line: `time` is that of the line, or of the line before it in its log where it has none."""

    time: float
    number: int  # over all logs, so that equal times keep the order they are read in
    source: str
    line: int
    address: str
    request: Request
    fault: str | None
    text: str = ""  # the line


class Timeline:
    """Iterates over the lines of `logs`, each as written in order of time but for some that are near.

    Attributes:
        lines: lines so far, but for those without an address.
        untimed: those without a time.
        late: those older than a line that came before them; decide them at the time reached by then.
    Raises:
        LogError: while iterating, when no line has a time.
    Cost: AHEAD lines and one chunk of each log in memory.
    """

    def __init__(self, logs: Iterable[LogFile]) -> None:
        self.lines = self.untimed = self.late = 0
        self._logs = list(logs)
        self._numbered = 0

    def __iter__(self) -> Iterator[Row]:
        merged = heapq.merge(*map(self._of, self._logs), key=lambda item: item[0])
        held: list[Row] = []
        reached = float("-inf")
        for _, newest in merged:
            if len(held) < AHEAD:
                heapq.heappush(held, newest)
                continue
            row = heapq.heappushpop(held, newest)
            self.late += row.time < reached
            reached = max(reached, row.time)
            yield row
        for row in sorted(held):
            self.late += row.time < reached
            yield row
        if self.lines and self.untimed == self.lines:
            raise self._timeless()

    def _of(self, log: LogFile) -> Iterator[tuple[float, Row]]:
        """The lines of one log, with the latest time so far, which does not go back."""
        latest = before = float("-inf")
        for chunk in log:
            requests = chunk.requests or [NOTHING] * len(chunk.addresses)
            texts = chunk.lines or [""] * len(chunk.addresses)
            for index, (address, request) in enumerate(zip(chunk.addresses, requests, strict=True)):
                line = chunk.first + index
                fault = chunk.faults.get(line)
                if not address and fault is None:  # a CSV header
                    continue
                self._numbered += 1
                self.lines += fault is None
                if request.time is not None:
                    before = request.time
                elif fault is None:
                    self.untimed += 1
                    if self.untimed == self.lines == PATIENCE:
                        raise self._timeless()
                latest = max(latest, before)
                yield latest, Row(before, self._numbered, log.name, line, address, request, fault, texts[index])

    def _timeless(self) -> LogError:
        names = ", ".join(log.name for log in self._logs)
        return LogError(f"{names}: no line holds a time that can be read, and a replay goes by the log's own times")
