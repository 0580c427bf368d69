"""Decision log: one JSON object a line for each decision that matters. docs/decision-log.md has every member.

What a request pays is one entry in a queue, about a microsecond. A thread of this process, which starts with the first
entry, makes lines of them and hands them to a sink. The queue is bounded in bytes: of a request with long headers,
name or path a short copy is queued, and what does not fit is counted, which is a line of the log itself. A line that
the sink can never take is dropped and counted, too.
"""

from __future__ import annotations

import atexit
import errno
import itertools
import logging
import os
import random
import secrets
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, cast

from gobanfast._core.decision import detached, is_plain
from gobanfast._core.log_queue import Budget, numbered
from gobanfast._decision_dict import Headers
from gobanfast._fork import watch_forks
from gobanfast.telemetry.lines import (
    KEEP,
    LEVELS,
    VERSION,
    Entry,
    Outcome,
    Pseudonyms,
    encode,
    iso,
    line_of,
    short_copy,
)
from gobanfast.telemetry.sinks import Sink, open_sink

if TYPE_CHECKING:
    from gobanfast._core.decision import Decision

log = logging.getLogger("gobanfast.telemetry")

QUEUE = 65_536  # decisions
QUEUE_BYTES = 64 << 20  # of memory that they keep alive
BATCH, BATCH_BYTES = 512, 256 << 10  # lines of one write
IDLE = 0.5  # seconds
PAUSE = 1.0  # seconds between tries of a sink that fails
TRIES = 3  # of a line, before it is asked whether others pass
OUTAGE = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.ENOENT, errno.ENOTDIR, errno.EMFILE,
    errno.ENFILE, errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH,
    errno.ENETDOWN, errno.ENOTCONN, errno.ETIMEDOUT,
}  # fmt: skip  # of which no line is the cause
LOUD = 60.0  # seconds between messages of one kind


class Item:
    """A line on its way to the sink, and what it is made of; `entry` None: the line that tells of losses."""

    __slots__ = ("data", "entry", "level", "told", "tries")

    def __init__(self, entry: Entry | None, data: bytes, level: int = 0, told: int = 0) -> None:
        self.entry, self.data, self.level, self.told = entry, data, level, told
        self.tries = 0


class DecisionLog:
    """Writes decisions to a sink.

    Args:
        sink: a Sink, or the URI of one, see `open_sink`.
        sample_allow: one of how many plain allows is written; 0: none. Everything else is: bans, challenges, and what a
            `log` or shadow rule matched.
        pseudonym_key: 16 to 64 bytes. With it, addresses, ban keys and fingerprints are replaced by keyed hashes that
            change every day (UTC), and paths, headers and the hello are left out. Who has the key can tell whether a
            line is about a given client; nobody else can, and no line can be joined with one of another day.
        queue: decisions that may wait; more are dropped and counted.
        queue_bytes: bytes of memory that they may keep alive; more are dropped and counted.
    Threads: any number. Forks: a child starts its own thread; what the parent had queued, the parent writes.
    """

    def __init__(
        self,
        sink: Sink | str = "stdout:",
        *,
        sample_allow: int = 0,
        pseudonym_key: bytes | None = None,
        queue: int = QUEUE,
        queue_bytes: int = QUEUE_BYTES,
    ) -> None:
        if pseudonym_key is not None and not 16 <= len(pseudonym_key) <= 64:
            raise ValueError(f"pseudonym_key has {len(pseudonym_key)} bytes; take 16 to 64 random ones")
        if sample_allow < 0:
            raise ValueError(f"sample_allow={sample_allow} is negative; write 0 for none, 100 for one in a hundred")
        if queue < 1 or queue_bytes < 1:
            raise ValueError(f"queue={queue} and queue_bytes={queue_bytes} must be positive")
        self.sink = open_sink(sink) if isinstance(sink, str) else sink
        self.dropped = self.rejected = self.written = self.failures = 0
        self._chance = 1 / sample_allow if sample_allow else 0.0
        self._weight = sample_allow
        self._pseudonyms = None if pseudonym_key is None else Pseudonyms(pseudonym_key)
        self._limit, self._limit_bytes = queue, queue_bytes
        self._told = 0  # how many of the dropped ones a line has told of
        self._lost = 0  # how many of the dropped ones had been queued
        self._fresh()
        watch_forks(self)

    def observe(
        self,
        decision: Decision,
        *,
        request_id: str | None = None,
        now: float | None = None,
        outcome: Outcome | None = None,
    ) -> str | None:
        """Queues a decision if it matters; the id under which it will be found, or None.

        Args:
            request_id: a name the request has elsewhere; `explain --log` finds the line by it too.
            now: what `decide` was given; None takes the monotonic clock.
            outcome: what became of a challenge: "challenged" (given one), "solved", "passed" (shown an earlier pass) or
                "refused".
        Values of cookies and credentials are hidden.
        Cost: about a microsecond, two for a WSGI environ; more for a request over 16 KB, of which a copy is cut.
        """
        weight = 1
        if is_plain(decision):
            if not self._chance or random.random() >= self._chance:
                return None
            weight = self._weight
        queue = self._queue
        if len(queue) >= self._limit:
            self.dropped += 1
            return None
        kept, given = detached(decision)
        headers = cast("Headers | None", given)
        nbytes = self._budget.hold(kept, request_id, KEEP)
        if nbytes > KEEP:
            kept, headers, nbytes = short_copy(kept, headers, request_id)
            nbytes *= self._budget.take(nbytes)
        if not nbytes:
            self.dropped += 1
            return None
        number = next(self._numbers)
        if now is None:
            now = time.monotonic()
        queue.append((number, time.time(), now, kept, headers, request_id, weight, outcome, nbytes))
        if self._idle:
            self._awake()
        return numbered(self._worker, number)

    @property
    def samples_allow(self) -> bool:
        """Whether some plain allows are written."""
        return self._weight > 0

    def flush(self, timeout: float = 5.0) -> bool:
        """True when all that was queued before is written; False if that takes over `timeout` seconds."""
        deadline = time.monotonic() + timeout
        self._awake()
        while (self._queue or self._busy) and time.monotonic() < deadline:
            time.sleep(0.005)
        return not self._queue and not self._busy

    def close(self, timeout: float = 2.0) -> None:
        """Flushes, stops the thread, closes the sink."""
        if self._thread is not None and self._thread.is_alive():
            self.flush(timeout)
            self._stop = True
            self._wake.set()
            self._thread.join(timeout)
        self.sink.close()
        atexit.unregister(self.close)

    def health(self) -> dict[str, int]:
        """Counts for metrics: lines written; decisions dropped (of them rejected by the sink) and waiting, with their
        bytes of memory; failures of the sink."""
        return {
            "written": self.written,
            "dropped": self.dropped,
            "queue": len(self._queue),
            "queue_room": self._limit,
            "rejected": self.rejected,
            "queue_bytes": self._budget.used,
            "queue_bytes_room": self._limit_bytes,
            "failures": self.failures,
        }

    def before_fork(self) -> None:
        """See `ForkAware`."""
        self._starting.acquire()

    def after_fork(self, child: bool) -> None:
        """See `ForkAware`."""
        if child:
            self._fresh()
            self.dropped = self.rejected = self.written = self.failures = self._told = self._lost = 0
        else:
            self._starting.release()

    # ---- the thread

    def _fresh(self) -> None:
        self._queue: deque[tuple[Any, ...]] = deque()  # fields of an Entry
        self._budget = Budget(self._limit_bytes)
        self._said: dict[str, float] = {}  # kind of message -> when it was last logged
        self._numbers = itertools.count()
        self._worker = f"{secrets.token_hex(5)}-"
        self._starting = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._idle = True  # whoever queues must wake the thread
        self._busy = self._stop = False

    def _awake(self) -> None:
        self._wake.set()
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="gobanfast-log", daemon=True)
                    self._thread.start()
                    atexit.register(self.close)

    def _run(self) -> None:
        queue, full = self._queue, 0  # full: decisions that found no room, of which was told
        while True:
            self._idle = True
            if not queue:
                if self._stop:
                    return
                self._wake.wait(IDLE)
            self._wake.clear()
            self._idle = False
            self._busy = True
            while queue or self.dropped != self._told:
                if self.dropped - self._lost != full:
                    full = self.dropped - self._lost
                    self._loud("full", "the queue of the decision log is full, %d decisions were dropped", full)
                self._write(self._batch())
            self._busy = False

    def _batch(self) -> list[Item]:
        """Lines of the entries that have waited longest, up to a number and a size."""
        batch: list[Item] = []
        nbytes = 0
        while self._queue and len(batch) < BATCH and nbytes < BATCH_BYTES:
            entry = Entry(*self._queue.popleft())
            try:
                item = Item(entry, *self._line(entry, 0))
            except Exception as error:  # noqa: BLE001 - logged: one odd decision must not end the log
                self._lose(entry)
                self._loud("odd", "decision %d cannot be written: %s", entry.number, error, exc_info=error)
                continue
            batch.append(item)
            nbytes += len(item.data)
        if self.dropped != self._told:
            batch.append(Item(None, self._loss(self.dropped - self._told).encode(), told=self.dropped))
        return batch

    def _write(self, waiting: list[Item]) -> None:
        """Hands lines to the sink until it has taken, or the log dropped, all of them.

        A sink that takes nothing is tried for ever. A line that is not taken while others are is dropped after a few
        tries: lines go one by one then, and after TRIES of one the line behind it is tried.
        """
        alone = passed = down = False
        while waiting:
            lines = waiting[:1] if alone else waiting
            try:
                taken = self.sink.write([item.data for item in lines])
            except Exception as error:  # noqa: BLE001 - a sink that is not ours may raise anything
                problem: Exception = error
            else:
                self._done(waiting, len(lines) if taken is None else taken)
                passed |= taken != 0
                if down:
                    self._loud("up", "the decision log is written again", level=logging.WARNING)
                    down = False
                if taken != 0:
                    continue
                problem = OSError("the sink took no line")
            self.failures += 1
            head = waiting[0]
            blamed = not isinstance(problem, OSError)
            too_long = isinstance(problem, OSError) and problem.errno == errno.EMSGSIZE
            if not too_long and not blamed:
                self._loud("down", "the decision log cannot be written, %d lines wait: %s", len(waiting), problem)
                down = True
            if self._stop:
                for item in waiting:
                    self._lose(item.entry)
                return
            if too_long or blamed:  # which line is it?
                if len(lines) > 1:
                    alone = True
                elif not (too_long and self._shorten(head)):
                    head.tries += 1
                    if too_long or head.tries >= TRIES:
                        self._reject(waiting, problem)
                continue
            if getattr(problem, "errno", None) not in OUTAGE and not isinstance(problem, TimeoutError):
                head.tries += 1
            if len(lines) > 1 and head.tries >= TRIES:
                alone, head.tries = True, 0
            elif head.tries >= TRIES and (passed or self._others_pass(waiting, head.tries)):
                self._reject(waiting, problem)
                passed = False
                continue
            self._wake.wait(PAUSE)
            self._wake.clear()

    def _others_pass(self, waiting: list[Item], tries: int) -> bool:
        """Whether the sink takes a later line, each time another one, and still not the first."""
        if tries % TRIES:
            return False
        if len(waiting) == 1:
            waiting += self._batch()
        if len(waiting) == 1:
            return False
        place = 1 + (tries // TRIES - 1) % (len(waiting) - 1)
        try:
            if self.sink.write([waiting[place].data]) == 0:
                return False
        except Exception:  # noqa: BLE001 - it is down, then
            return False
        self._done([waiting.pop(place)], 1)
        try:
            taken = self.sink.write([waiting[0].data])
        except Exception:  # noqa: BLE001 - told by the caller
            return True
        return taken == 0

    def _done(self, waiting: list[Item], taken: int) -> None:
        """Takes note of lines that are written."""
        for item in waiting[:taken]:
            if item.entry is None:
                self._told = item.told
            else:
                self.written += 1
                self._budget.give(item.entry.nbytes)
        del waiting[:taken]

    def _shorten(self, item: Item) -> bool:
        """Whether the line is shorter now."""
        before = len(item.data)
        while item.entry is not None and item.level + 1 < len(LEVELS):
            item.data, item.level = self._line(item.entry, item.level + 1)
            if len(item.data) < before:
                return True
        return False

    def _reject(self, waiting: list[Item], problem: Exception) -> None:
        """Drops the first line, which the sink does not take."""
        item = waiting.pop(0)
        if item.entry is None:
            self._told = item.told  # nobody can be told
            return
        self.rejected += 1
        self._lose(item.entry)
        self._loud(
            "rejected", "a line of %d bytes is dropped (%d so far), the sink does not take it: %s",
            len(item.data), self.rejected, problem,
        )  # fmt: skip

    def _lose(self, entry: Entry | None) -> None:
        if entry is not None:
            self.dropped += 1
            self._lost += 1
            self._budget.give(entry.nbytes)

    def _loud(self, kind: str, text: str, *values: object, level: int = logging.ERROR, **more: Any) -> None:
        """Logs, each kind of message once in LOUD seconds."""
        now = time.monotonic()
        if now - self._said.get(kind, -LOUD) >= LOUD:
            self._said[kind] = now
            log.log(level, text, *values, **more)

    def _loss(self, count: int) -> str:
        wall = time.time()
        return encode({"v": VERSION, "kind": "dropped", "time": iso(wall), "pid": os.getpid(), "dropped": count})

    def _line(self, entry: Entry, level: int) -> tuple[bytes, int]:
        return line_of(entry, self._worker, self._pseudonyms, level)
