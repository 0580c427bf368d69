"""Learner of origin ASes: what decisions could not know is asked online beside them, and joins the AS table.

    Gobanfast(app, engine, on_decision=AsnLearner(engine, "rules.yaml", AsnLookup()))

Answers go into a file beside the feeds that every worker of the host follows, so they count from the next background
compile on, for all of them.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import TYPE_CHECKING

from gobanfast._core.address import parse_address
from gobanfast._fork import watch_forks
from gobanfast.asn.folder import LEARNED, folder_of
from gobanfast.asn.learned import read_learned, write_learned
from gobanfast.enrich.feeds import folder_lock

if TYPE_CHECKING:
    from gobanfast import Decision
    from gobanfast._core.exchange import Exchange
    from gobanfast.engine import Engine
    from gobanfast.enrich.asn import AsnLookup
    from gobanfast.enrich.asn_sources import AsnAnswer

log = logging.getLogger("gobanfast.asn")

EVERY = 60.0  # seconds between writes at least: each is followed by a compile
PENDING = 10_000  # answers that wait for a write, and networks that are not asked about again
AGAIN = 60.0  # seconds until a network may be asked about again
MAPPED = b"\0" * 10 + b"\xff\xff"


class AsnLearner:
    """A callback for `on_decision` that has the AS of unknown clients looked up, where rules have a condition on it.

    Args:
        engine: whose decisions they are.
        path: its rules file, beside which the folder with the learned file is.
        lookup: asks.
        every: seconds between two writes of what was learned.
    Cost: 0.1 us where the table knows the AS or no rule asks for it, else a microsecond, and tens of them for the first
    request of a network within a minute. Never waits.
    """

    def __init__(
        self, engine: Engine, path: str | os.PathLike[str], lookup: AsnLookup, *, every: float = EVERY
    ) -> None:
        self._engine, self._lookup, self._every = engine, lookup, every
        self.file = folder_of(path) / LEARNED
        self._snapshot: object = None
        self._asks = False
        self._fresh()
        watch_forks(self)

    def _fresh(self) -> None:
        self._lock = threading.Lock()
        self._pending: dict[str, tuple[int, str]] = {}
        self._timer: threading.Timer | None = None
        self._seen: set[bytes] = set()  # networks that were asked about lately
        self._until = 0.0
        self.learned = self.dropped = 0

    def __call__(self, decision: Decision, _: str) -> None:
        """Notes a decision; never waits."""
        address = decision.address
        if decision.asn is not None or address is None or not self._asks_for_ases():
            return
        packed = parse_address(address)
        if packed is None:
            return
        network = packed[:15] if packed.startswith(MAPPED) else packed[:6]  # what is asked about: a /24, a /48
        now = time.monotonic()
        if now >= self._until or len(self._seen) >= PENDING:
            self._seen, self._until = set(), now + AGAIN
        if network not in self._seen:
            self._seen.add(network)
            self._lookup.ask(address, self._take)

    def on_exchange(self, exchange: Exchange) -> None:
        """The same of an exchange."""
        self(exchange.decision, "")

    def flush(self) -> int:
        """Writes what was learned now; how many prefixes are new. The lookup's thread does it after a while."""
        with self._lock:
            pending, self._pending, self._timer = self._pending, {}, None
        if not pending:
            return 0
        try:
            with folder_lock(self.file.parent, wait=True):
                known = read_learned(self.file)
                fresh = {prefix: what for prefix, what in pending.items() if known.get(prefix) != what}
                if fresh:
                    write_learned(self.file, {**known, **fresh})
        except OSError as error:
            log.error("%s: what was learned cannot be kept: %s", self.file, error.strerror)
            return 0
        self.learned += len(fresh)
        watcher = self._engine.watcher
        if watcher is not None:
            watcher.follow(self.file)
        return len(fresh)

    def close(self) -> None:
        """Writes what is left."""
        with self._lock:
            timer = self._timer
        if timer is not None:
            timer.cancel()
        self.flush()

    def before_fork(self) -> None:
        """See `ForkAware`."""
        self._lock.acquire()

    def after_fork(self, child: bool) -> None:
        """See `ForkAware`."""
        if child:
            self._fresh()
        else:
            self._lock.release()

    def _asks_for_ases(self) -> bool:
        snapshot = self._engine.snapshot
        if snapshot is not self._snapshot:
            self._asks = any(rule.when.on_asn for rule in snapshot.ruleset.rules)
            self._snapshot = snapshot
        return self._asks

    def _take(self, answer: AsnAnswer) -> None:
        if answer.prefix is None:
            return
        with self._lock:
            if len(self._pending) >= PENDING:
                self.dropped += 1
                return
            self._pending[answer.prefix] = answer.asn, answer.org or ""
            if self._timer is None:
                self._timer = threading.Timer(self._every, self.flush)
                self._timer.daemon = True
                self._timer.start()
