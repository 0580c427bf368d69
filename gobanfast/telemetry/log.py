"""The decision log: one JSON object a line for each decision that matters. docs/decision-log.md has every member.

What a request pays is one entry in a queue, under a microsecond. A thread of this process, which starts with the first
entry, makes lines of them and hands them to a sink. The queue is bounded; what does not fit is counted, and the count
is a line of the log itself.
"""

from __future__ import annotations

import atexit
import base64
import hashlib
import itertools
import json
import logging
import os
import random
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from gobanfast._fork import watch_forks
from gobanfast.telemetry.sinks import Sink, open_sink

if TYPE_CHECKING:
    from gobanfast._decision import Decision

log = logging.getLogger("gobanfast.telemetry")

VERSION = 1
QUEUE = 65_536  # decisions
BATCH = 512  # lines of one write
IDLE = 0.5  # seconds
PAUSE = 1.0  # seconds between tries of a sink that fails
Headers = Sequence[Sequence[bytes]] | Mapping[str, Any]
SECRET = frozenset({"authorization", "cookie", "proxy-authorization", "x-api-key", "x-auth-token"})

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


class Entry(NamedTuple):
    """A decision on its way to the log."""

    number: int
    wall: float
    now: float
    decision: Decision
    headers: Headers | None
    fingerprint: str | None
    request_id: str | None
    weight: int


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
    Threads: any number. Forks: a child starts its own thread; what the parent had queued, the parent writes.
    """

    def __init__(
        self,
        sink: Sink | str = "stdout:",
        *,
        sample_allow: int = 0,
        pseudonym_key: bytes | None = None,
        queue: int = QUEUE,
    ) -> None:
        if pseudonym_key is not None and not 16 <= len(pseudonym_key) <= 64:
            raise ValueError(f"pseudonym_key has {len(pseudonym_key)} bytes; take 16 to 64 random ones")
        if sample_allow < 0:
            raise ValueError(f"sample_allow={sample_allow} is negative; write 0 for none, 100 for one in a hundred")
        self.sink = open_sink(sink) if isinstance(sink, str) else sink
        self.dropped = self.written = self.failures = 0
        self._chance = 1 / sample_allow if sample_allow else 0.0
        self._weight = sample_allow
        self._pseudonyms = None if pseudonym_key is None else Pseudonyms(pseudonym_key)
        self._limit = queue
        self._told = 0  # how many of the dropped ones a line has told of
        self._hashes: dict[int, tuple[Any, str]] = {}
        self._fresh()
        watch_forks(self)

    def record(self, decision: Decision, *, request_id: str | None = None, now: float | None = None) -> str | None:
        """Queues a decision if it matters; the id under which it will be found, or None.

        Args:
            request_id: a name the request has elsewhere; `explain --log` finds the line by it too.
            now: what `decide` was given; None takes the monotonic clock.
        Values of cookies and credentials are hidden.
        Cost: under a microsecond.
        """
        weight = 1
        if decision.action == "allow" and not decision.logged and not decision.shadow:
            if not self._chance or random.random() >= self._chance:
                return None
            weight = self._weight
        queue = self._queue
        if len(queue) >= self._limit:
            self.dropped += 1
            return None
        number = next(self._numbers)
        if now is None:
            now = time.monotonic()
        headers, fingerprint = cast("Headers | None", decision.headers), decision.fingerprint
        if isinstance(headers, dict):
            headers = headers.copy()  # the application goes on to change a WSGI environ
        queue.append((number, time.time(), now, decision, headers, fingerprint, request_id, weight))
        if self._idle:
            self._awake()
        return f"{self._worker}{number:x}"

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
        """Counts for metrics: lines written, decisions dropped and waiting, failures of the sink."""
        return {
            "written": self.written,
            "dropped": self.dropped,
            "queue": len(self._queue),
            "queue_room": self._limit,
            "failures": self.failures,
        }

    def before_fork(self) -> None:
        """See `ForkAware`."""
        self._starting.acquire()

    def after_fork(self, child: bool) -> None:
        """See `ForkAware`."""
        if child:
            self._fresh()
            self.dropped = self.written = self.failures = self._told = 0
        else:
            self._starting.release()

    # ---- the thread

    def _fresh(self) -> None:
        self._queue: deque[tuple[Any, ...]] = deque()  # fields of an Entry
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
        queue = self._queue
        while True:
            self._idle = True
            if not queue:
                if self._stop:
                    return
                self._wake.wait(IDLE)
            self._wake.clear()
            self._idle = False
            self._busy = True
            while queue:
                self._write([Entry(*queue.popleft()) for _ in range(min(len(queue), BATCH))])
            if self.dropped != self._told:
                self._write([])
            self._busy = False

    def _write(self, entries: list[Entry]) -> None:
        lines = []
        for entry in entries:
            try:
                lines.append(self._line(entry).encode("utf-8", "backslashreplace"))
            except Exception as error:  # one odd decision must not end the log
                self.dropped += 1
                log.error("decision %d cannot be written: %s", entry.number, error, exc_info=error)
        dropped = self.dropped
        if dropped != self._told:
            lines.append(self._loss(dropped - self._told).encode())
        while lines:
            try:
                self.sink.write(lines)
            except OSError as error:
                self.failures += 1
                if self.failures == 1:
                    log.error("the decision log cannot be written, %d lines wait: %s", len(lines), error)
                if self._stop:
                    self.dropped += len(entries)
                    return
                self._wake.wait(PAUSE)
                self._wake.clear()
                continue
            self.written += len(entries)
            self._told = dropped
            return

    def _loss(self, count: int) -> str:
        wall = time.time()
        return _encode({"v": VERSION, "kind": "dropped", "time": _iso(wall), "pid": os.getpid(), "dropped": count})

    def _line(self, entry: Entry) -> str:
        decision = entry.decision
        hidden = None if self._pseudonyms is None else self._pseudonyms.of(entry.wall)
        ban, fingerprint = decision.ban, entry.fingerprint
        if hidden is not None:
            ban, fingerprint = hidden(ban), hidden(fingerprint)
        line = {
            "v": VERSION,
            "kind": "decision",
            "id": f"{self._worker}{entry.number:x}",
            "request": entry.request_id,
            "time": _iso(entry.wall),
            "now": entry.now,
            "pid": os.getpid(),
            "action": decision.action,
            "cause": decision.cause,
            "rule": decision.rule,
            "reason": decision.reason,
            "duration": decision.duration,
            "asn": decision.asn,
            "shadow": decision.shadow,
            "logged": decision.logged,
            "ban": ban,
            "expires": decision.expires,
            "score": decision.score,
            "threshold": decision.threshold,
            "coverage": decision.coverage,
            "fingerprint": fingerprint,
            "ruleset": self._hash(decision.compiled),
            "sampled": entry.weight,
            "pseudonyms": None if hidden is None else _iso(entry.wall)[:10],
            "signals": _signals(entry, hidden),
        }
        return _encode(line)

    def _hash(self, compiled: Any) -> str:
        """The content hash of compiled rules, computed once for each."""
        found = self._hashes.get(id(compiled))
        if found is None:
            if len(self._hashes) > 8:
                self._hashes.clear()
            found = self._hashes[id(compiled)] = compiled, compiled.content_hash
        return found[1]


class Pseudonyms:
    """Keyed hashes of client data, with a key of its own for each UTC day."""

    def __init__(self, key: bytes) -> None:
        self._key = hashlib.blake2b(key, person=b"gobanfast-log").digest()
        self._day, self._day_key = "", b""

    def of(self, wall: float) -> Callable[[str | None], str | None]:
        """The function that hides a text written at `wall`."""
        day = _iso(wall)[:10]
        if day != self._day:
            self._day, self._day_key = day, hashlib.blake2b(day.encode(), key=self._key).digest()
        return self._hide

    def _hide(self, text: str | None) -> str | None:
        if text is None:
            return None
        return (
            "p:" + hashlib.blake2b(text.encode("utf-8", "surrogatepass"), key=self._day_key, digest_size=12).hexdigest()
        )


def _signals(entry: Entry, hidden: Callable[[str | None], str | None] | None) -> dict[str, Any]:
    """What the decision was made of; with pseudonyms, without what could name a client."""
    decision, hello = entry.decision, entry.decision.hello
    found: dict[str, Any] = {
        "address": decision.address if hidden is None else hidden(decision.address),
        "sni": decision.sni,
        "ja4": decision.ja4,
        "method": decision.method,
        "http": decision.http,
    }
    if hidden is None:
        message = None if hello is None else hello.message
        found["hello"] = None if message is None else base64.b64encode(message).decode()
        found["path"] = decision.path
        found["headers"] = None if entry.headers is None else _header_pairs(entry.headers)
        found["environ"] = isinstance(entry.headers, Mapping)
    return found


def _header_pairs(headers: Headers) -> list[tuple[str, str]]:
    """Names and values as text, a character for each byte."""
    if isinstance(headers, Mapping):
        pairs = [
            (name.removeprefix("HTTP_").replace("_", "-").lower(), str(value))
            for name, value in headers.items()
            if name.startswith("HTTP_") or name in {"CONTENT_TYPE", "CONTENT_LENGTH"}
        ]
    else:
        pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
    return [(name, "***" if name.lower() in SECRET else value) for name, value in pairs]


def _iso(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
