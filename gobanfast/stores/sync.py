"""Synchronisation of an engine's bans and labels with a store; the engine never waits for the store.

Long because one state machine is: queue, breaker, reconciliation and fork change each other's state.

A ban that the engine makes is in its table at once, and so in the table's change feed. One thread follows the feed
and queues what changed by key, leaving out what came from the store; one writes the queue to the store in batches; one
reads what changed in the store and puts it into the table. They start when the sync does, and anew in a child made by
fork.

**In which order.** The store's order is the truth. While a key waits in the queue, what the store says about it is held
back, because our write comes after it; once it is written, the store's own record of that write (or a later one) brings
the table in line. A ban lifted here cannot come back from an older message, and one made here cannot be lifted by one.

**Acknowledged** means: `flush()` returned True, so everything changed before it is in the store, and durable there.
What a full queue had no room for, or a feed that ran ahead, is made up for: once the queue is empty, the reader
compares store and table and offers what the store lacks, and until that is written `flush` is False. One change that
the store cannot take holds up no other; it is tried again once a minute, and `flush` is False while it is missing.

**Clocks.** The table counts on a clock that no one sets; a store can only use the time of day. If that jumps by more
than 5 s, times are translated on their way in and out, so a jump lifts nothing here; and the bans in the table are
written anew with the time they have left, since to others they look expired, or too long.
"""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, Literal, Protocol

from gobanfast._errors import GobanError
from gobanfast._fork import watch_forks
from gobanfast.bans import Ban, BanChange
from gobanfast.stores.breaker import Breaker
from gobanfast.stores.codec import LABELS, PassedOver, in_force, later, shifted
from gobanfast.stores.store import Change, Cursor, RecordError, Store
from gobanfast.stores.uri import open_store

log = logging.getLogger("gobanfast.stores")

OnOutage = Literal["local", "open", "closed"]
Write = tuple[int, bool, Ban | None]  # number, lift what there is, set this
POLICIES = ("local", "open", "closed")
QUEUE = 65_536  # keys
LIFTS = 1 << 20  # keys that may wait when one is to be lifted, which the table cannot make up for
BATCH = 512
WATCH = 0.5  # seconds a look for changes waits
LONGEST_PAUSE = 2.0  # seconds between looks while the store does not answer
JUMP = 5.0  # seconds
PURGE = 60.0  # seconds


class BanTable(Protocol):
    """What a sync needs of `gobanfast._core.ban_table.BanTable`."""

    closed: bool

    @property
    def labels(self) -> LabelTable: ...
    def put(self, ban: Ban, *, maker: str = "store") -> bool: ...
    def unban(self, key: str, *, maker: str = "manual") -> Ban | None: ...
    def get(self, key: str) -> Ban | None: ...
    def bans(self) -> Iterator[Ban]: ...
    def changes(
        self, since: int | None = None, /, *, limit: int = 1024, skip: str | None = None, labels: bool = False
    ) -> tuple[list[BanChange] | None, int]: ...
    def wait(self, since: int, /, timeout: float | None = None) -> bool: ...
    def wake(self) -> None: ...


class LabelTable(Protocol):
    """What a sync needs of `gobanfast._core.label_table.LabelTable`: the records of labels, as if they were bans."""

    def put(self, record: Ban, *, maker: str = "store") -> bool: ...
    def unban(self, key: str, *, maker: str = "manual") -> Ban | None: ...
    def get(self, key: str) -> Ban | None: ...
    def stored(self) -> Iterator[Ban]: ...


class SyncedEngine(Protocol):
    """What a sync needs of `Engine`."""

    sync: Sync | None

    @property
    def ban_table(self) -> BanTable: ...


def attach(engine: SyncedEngine, store: Store | str, *, on_outage: OnOutage = "local", wait: float = 2.0) -> Sync:
    """A running Sync: from now on `engine` and `store` (or the store a URI names) have the same bans.

    Waits up to `wait` seconds for the bans that the store holds; goes on without them if it does not answer.

    Raises:
        ValueError: a URI that names no store, or a policy that is none.
        StoreAddressError: what no waiting mends: a folder that is not there, a missing package, a Redis Cluster.
    """
    settings: Any = getattr(getattr(engine, "ruleset", None), "settings", None)
    if settings is not None and settings.session is not None and settings.session.sources and not settings.session.keys:
        raise ValueError(
            "session: has no keys, so what a store says of a session is about one of this process only; "
            "write keys: [env:GOBANFAST_SESSION_KEY]"
        )
    if isinstance(store, (str, os.PathLike)):
        store = open_store(store)  # which says how a path is written
    store.check()
    sync = engine.sync = Sync(engine, store, on_outage=on_outage)
    sync.start()
    sync.ready(wait)
    return sync


class Sync:
    """The tie between one engine and one store; `attach` makes and starts one.

    Args:
        on_outage: what holds while the store does not answer. "local": the bans known here go on, and new ones are
            written later. "open": bans that the store holds are not enforced until it answers. "closed": everyone is
            banned whom no rule allows.
        queue: keys that may wait for the store. When it is full, a new ban is not queued but counted (`dropped`), and
            written from the table once the queue is empty; only one that has expired by then is never written. A lift
            finds room until a million keys wait; one that does not is undone, which the log says.
        clock, steady: time of day (None: time.time) and a clock that is never set, in seconds.
    Threads: any number. Forks: the child's threads start by themselves; what the parent had queued, the parent writes.
    """

    def __init__(
        self,
        engine: SyncedEngine,
        store: Store,
        *,
        on_outage: OnOutage = "local",
        queue: int = QUEUE,
        clock: Callable[[], float] | None = None,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        if on_outage not in POLICIES:
            raise ValueError(f"on_outage={on_outage!r} is not one of {', '.join(POLICIES)}")
        self.engine, self.store, self.on_outage = engine, store, on_outage
        self.writes, self.reads = Breaker(steady), Breaker(steady)
        self.outage = False
        self.counts = dict.fromkeys(
            ("written", "unwritable", "applied", "refused", "dropped", "resyncs", "clock_jumps", "outages", "forks"), 0
        )
        self._room = queue
        self._clock, self._steady = time.time if clock is None else clock, steady
        self._offset = self._clock() - steady()  # the table's own offset is fixed at about the same time
        self._shift = 0.0  # seconds the time of day has moved away from it
        self._overflowed = False  # the queue had no room for a ban of the table
        _, self._followed = engine.ban_table.changes()  # cursor of the feed; before the look at what is there already
        self._labels = engine.ban_table.labels
        self._behind = any(True for _ in self._stored())  # until the table was offered to the store
        self._owed = 0  # number of the last change of such an offer
        self._unwritten: dict[str, None] = {}  # keys that the store could not take
        self._passed, self._full = PassedOver(store.uri), PassedOver(store.uri)
        self._cursor: Cursor | None = None
        self._reread = False  # the reading thread is to read all of the store
        self._set_aside: list[Ban] = []  # by policy "open"
        self._started = self._stopping = False
        self._fresh()
        # To be written, oldest first, each with the number of changes queued up to it: a later change of the same key
        # takes its place, so all up to that number are written when it is.
        self._queue: dict[str, Write] = {}
        self._in_flight: dict[str, Write] = {}
        self._unseen: dict[str, int] = {}  # written at this position, not yet seen again
        self._held: dict[str, Change] = {}  # came while the key was in the queue or in flight
        self._dropped: set[str] = set()  # bans of the table that the queue had no room for; what came is read again

    def start(self) -> None:
        """Starts the three threads of this process, unless they run."""
        with self._lock:
            if self._started or self._stopping:
                return
            self._started = True
            self._warn_if_alone()
            watch_forks(self)
            atexit.register(self.close)
            self._run_threads()

    def ready(self, timeout: float) -> bool:
        """Whether the bans of the store are in the table, after waiting up to `timeout` seconds."""
        return self._read_once.wait(timeout)

    def flush(self, timeout: float = 5.0) -> bool:
        """True when every ban and lift made before is durable in the store; False if that takes over `timeout` seconds,
        and while there is one that the store cannot take (`unwritten` of `health`)."""
        with self._lock:
            self._follow()
            target = self._queued
            self._wake.set()
            return self._progress.wait_for(lambda: self._is_written(target), timeout) and not self._unwritten

    def close(self, timeout: float = 2.0) -> None:
        """Flushes for up to `timeout` seconds, stops the threads, closes the store and lets go of the engine."""
        with self._lock:
            if self._stopping:
                return
            started = self._started
        if started and not self.outage and not self.flush(timeout):
            more = ", and more for which the queue had no room" if self._overflowed else ""
            log.error("%s: %d changes were not written in %g s%s", self.store.uri, len(self._queue), timeout, more)
        self._stopping = True
        self._stop.set()
        self._wake.set()
        self.engine.ban_table.wake()
        for thread in self._threads:
            thread.join(timeout)
        with self._at_rest:
            if self.outage:  # whoever closes this ends the policy, too
                self._leave_outage()
        self.store.close()
        if self.engine.sync is self:
            self.engine.sync = None
        atexit.unregister(self.close)

    def health(self) -> dict[str, Any]:
        """How the tie is doing: for metrics, readiness probes, `engine.status()` and signal handlers.

        Takes no lock and asks nobody: what was banned in the last milliseconds may not be in `queue` yet.
        """
        return {
            "store": self.store.uri,
            "shared": self.store.shared,
            "on_outage": self.on_outage,
            "outage": self.outage,
            "writes": self.writes.state,
            "reads": self.reads.state,
            "error": self.writes.error or self.reads.error,
            "write_seconds": self.writes.baseline,
            "queue": len(self._queue) + len(self._in_flight),
            "queue_room": self._room,
            "behind": self._behind or self._overflowed,
            "unwritten": len(self._unwritten),
            "unreadable": self.store.unreadable + self._passed.count,
            "synced": self._read_once.is_set(),
            "running": self._started and all(thread.is_alive() for thread in self._threads),
            "clock_shift": self._shift,
            "clock_ahead": self.store.ahead,
            **self.counts,
        }

    # ---- the following thread, and whoever looks at the queue: nothing here waits for I/O

    def _feed_loop(self) -> None:
        table = self.engine.ban_table
        while not self._stop.is_set():
            if table.wait(self._followed, 1.0):
                self._follow()

    def _follow(self) -> None:
        """Queues what the engine changed up to now, in its order."""
        table = self.engine.ban_table
        with self._lock:
            before = -1
            while before != self._followed:
                before = self._followed
                changes, self._followed = table.changes(before, skip="store", labels=True)
                if changes is None:
                    self._ran_over(self._followed - before)
                for change in changes or ():
                    if change.event != "evict":  # the store keeps what finds no room here
                        self._add(change.ban.key, None if change.event == "lift" else change.ban)
                if changes:
                    self._wake.set()

    def _ran_over(self, changes: int) -> None:
        self.counts["dropped"] += changes
        self._overflowed = True
        text = "%s: %d changes came faster than they could be queued; bans are written from the table, lifts are undone"
        log.error(text, self.store.uri, changes)

    def _enqueue(self, key: str, ban: Ban | None) -> None:
        with self._lock:
            self._add(key, ban)
        self._wake.set()

    def _add(self, key: str, ban: Ban | None) -> None:
        room = self._room if ban is not None else max(2 * self._room, LIFTS)
        if len(self._queue) >= room and key not in self._queue:
            self._drop(key, ban)
            return
        self._dropped.discard(key)
        self._queued += 1
        number, lift, _ = self._queue.get(key, (self._queued, False, None))
        self._queue[key] = number, lift or ban is None, ban

    def _drop(self, key: str, ban: Ban | None) -> None:
        self.counts["dropped"] += 1
        if ban is None:
            self._dropped.discard(key)
            log.error(
                "%s: no room to lift %s in the store; it is banned again soon, so lift it anew", self.store.uri, key
            )
        elif not self._overflowed:
            text = "%s: queue of %d changes is full; further ones are dropped, and written from the table later"
            log.error(text, self.store.uri, self._room)
        if ban is not None and len(self._dropped) < LIFTS:
            self._dropped.add(key)
        self._overflowed = True

    # ---- the writing thread

    def _write_loop(self) -> None:
        purged = self._steady()
        while not self._stop.is_set():
            if not self._queue:
                self._wake.wait(1.0)
            self._wake.clear()
            while self._queue and not self._stop.is_set():
                pause = self.writes.wait()
                if pause:
                    self._stop.wait(min(pause, 0.1))
                else:
                    self._write_batch()
            if self._steady() - purged > PURGE and not self.outage:
                purged = self._steady()
                self._purge()
                self._try_again()

    def _write_batch(self) -> None:
        with self._lock:
            batch = {key: self._queue.pop(key) for key in list(islice(self._queue, BATCH))}
            self._in_flight = batch
        now = self._clock()
        shift = self._shift_at(now)
        writes: list[tuple[str, Ban | None]] = []
        for key, (_, lift, ban) in batch.items():
            writes += [(key, None)] if lift else []
            writes += [(key, shifted(ban, shift))] if ban is not None else []
        started = self._steady()
        wrong: set[str] = set()
        try:
            first = self.store.apply(writes, now=now)
        except RecordError as error:
            first, wrong = error.position, batch.keys() & error.problems.keys()
            self._passed.note(error)
        except Exception as error:  # noqa: BLE001 - whatever a store raises, the thread goes on
            with self._lock:
                for key in batch.keys() & self._queue.keys():
                    _, lift, ban = self._queue.pop(key)
                    batch[key] = batch[key][0], batch[key][1] or lift, ban
                self._queue = batch | self._queue
                self._in_flight = {}
            self._failed(self.writes, error)
            return
        self.writes.success(self._steady() - started)
        with self._at_rest:  # the reader must not come between, with a newer change of a key that was held back
            with self._lock:
                self._in_flight = {}
                self.counts["written"] += len(batch) - len(wrong)
                self.counts["unwritable"] += len(wrong)
                for key in batch.keys() & self._unwritten.keys() - wrong:
                    del self._unwritten[key]
                for key in wrong:
                    self._held.pop(key, None)
                    self._unwritten.pop(key, None)
                    if batch[key][2] is not None:  # else nothing of ours is there to be lifted
                        self._unwritten[key] = None
                caught_up = [self._settle(key, first) for key in batch if key not in self._queue and key not in wrong]
                self._flushed = batch[next(reversed(batch))][0]
                self._progress.notify_all()
            for change in caught_up:
                if change is not None:
                    self._apply(change)
        self._judge()

    def _settle(self, key: str, first: int) -> Change | None:
        """A change of the key that came while it was being written and is not older; else notes to wait for one."""
        held = self._held.pop(key, None)
        if held is not None and held.position >= first:
            return held
        self._unseen[key] = first
        return None

    def _is_written(self, target: int) -> bool:
        """Whether all changes up to that number are, and what the store lacked before."""
        if self._behind or self._overflowed:
            return False
        written = self._queued if not self._queue and not self._in_flight else self._flushed
        return written >= max(target, self._owed)

    def _try_again(self) -> None:
        """Queues what the store could not take; what is not in the table any more is to be lifted there."""
        for key in list(self._unwritten):
            with self._at_rest:
                ban = self._table_of(key).get(key)
            self._enqueue(key, ban)

    def _purge(self) -> None:
        if self._shift:
            return  # one jump of the clock must not empty the store
        try:
            self.store.purge(now=self._clock())
        except Exception as error:  # noqa: BLE001 - as above
            self._failed(self.writes, error)

    # ---- the reading thread

    def _read_loop(self) -> None:
        pause = 0.05
        while not self._stop.is_set():
            started = self._steady()
            try:
                if self._reread and self._cursor is not None:
                    self._cursor = self._cursor._replace(position=-1)
                self._reread = False
                found = self.store.watch(self._cursor, timeout=WATCH)
                self._look_at_clock()  # before anything is applied: what we write anew is then newer than what came
                if found.gap:
                    self._resync(found.gap, found.cursor)
                else:
                    self._take(found.changes)
                self._cursor = found.cursor
                if not found.gap and self._has_room_again():
                    self._catch_up()
                    self._resync("overflow")
            except Exception as error:  # noqa: BLE001 - as above
                self._failed(self.reads, error)
                self._stop.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                continue
            pause = 0.05
            self.reads.success(max(0.0, self._steady() - started - WATCH))
            self._judge()
            self._read_once.set()

    def _has_room_again(self) -> bool:
        with self._lock:
            lacking = self._overflowed or self._behind
            return lacking and not self._queue and not self._in_flight and not self.outage

    def _take(self, changes: Sequence[Change]) -> None:
        for change in changes:
            with self._at_rest:
                if self._admit(change):
                    self._apply(change)

    def _catch_up(self) -> dict[str, Ban | None]:
        """Takes what changed in the store up to now; the last of it by key."""
        latest: dict[str, Ban | None] = {}
        while (found := self.store.watch(self._cursor, timeout=0)).changes:
            self._take(found.changes)
            self._cursor = found.cursor
            latest.update((change.key, change.ban) for change in found.changes)
        return latest

    def _admit(self, change: Change) -> bool:
        """Whether no change of ours to the same key comes after this one."""
        with self._lock:
            self._follow()
            if change.key in self._queue or change.key in self._in_flight:
                self._held[change.key] = change
                return False
            if change.key in self._dropped:
                return False  # as our own lift before that ban; all of the store is read before it is written
            written = self._unseen.get(change.key)
            if written is not None:
                if change.position < written:
                    return False
                del self._unseen[change.key]
        return True

    def _apply(self, change: Change) -> None:
        if self.outage and self.on_outage == "open":
            return  # all of the store is read when it is over
        table, ban = self._table_of(change.key), change.ban
        with self._at_rest:
            self.counts["applied"] += 1
            if ban is not None:
                found = table.get(change.key)
                if found is None or not later(found, shifted(ban, 0.01 - self._shift_at(self._clock()))):
                    self._put(ban)
                    return
            table.unban(change.key, maker="store")  # lifted; or lifted and made again, shorter
            if ban is not None:
                self._put(ban)

    def _put(self, ban: Ban) -> None:
        now = self._clock()
        with self._at_rest:
            if not in_force(ban, now):
                return
            try:
                taken = self._table_of(ban.key).put(shifted(ban, -self._shift_at(now)))
            except (ValueError, OverflowError) as error:
                self._passed.note(error)
                return
            if not taken:
                self.counts["refused"] += 1
                full = "label" if ban.key.startswith(LABELS) else "ban"
                what = f"the {full} table is full; raise {full}s: capacity"
                self._full.note(f"{ban.key}, which is not enforced here: {what}")

    def _resync(self, gap: str, cursor: Cursor | None = None) -> None:
        """Reads the whole store. What is in the table and not there was lifted by others; or the store is empty, new to
        us or incomplete ("overflow"), and gets it from us. `cursor` is where the store was before it is read."""
        with self._lock:
            offer = gap in {"first", "replaced"} or self._overflowed or self._behind  # behind: one failed half-way
            self._behind, self._overflowed = self._behind or offer, False
            if gap != "overflow":  # then the cursor stays where it was
                self._unseen.clear()
                self._held.clear()
        known: dict[str, Ban] = {}
        now = self._clock()
        for ban in chain(self.store.scan(now=now), self.store.scan(LABELS, now=now)):
            with self._at_rest:
                if not self._is_ours(ban.key):
                    self._put(ban)
            known[ban.key] = ban
        if gap == "overflow":
            for key, changed in self._catch_up().items():
                if changed is None:
                    known.pop(key, None)
                else:
                    known[key] = changed
        if not offer and self.store.watch(cursor, timeout=0).gap == "replaced":  # emptied since: nobody lifted anything
            offer, gap = True, "replaced"
            with self._lock:
                self._behind = True
        self.counts["resyncs"] += 1
        if gap != "first":
            log.warning("%s: read again as a whole (%s), %d bans", self.store.uri, gap, len(known))
        shift = self._shift_at(self._clock())
        for ban in self._table_bans():
            stored = known.get(ban.key)
            if stored is not None and not later(shifted(ban, shift - 0.01), stored):
                continue  # in step
            if offer or self._overflowed:
                self._offer(ban)
                continue
            with self._at_rest:
                if not self._is_ours(ban.key) and ban.key not in self._dropped:
                    self._table_of(ban.key).unban(ban.key, maker="store")  # lifted; or lifted and made again, shorter
                    if stored is not None:
                        self._put(stored)
        with self._lock:
            if not self._overflowed:
                self._dropped.clear()
            self._owed = self._queued
            self._behind = False
            self._progress.notify_all()

    def _is_ours(self, key: str) -> bool:
        """Whether a change of ours to this key is under way."""
        with self._lock:
            self._follow()
            return any(key in ours for ours in (self._queue, self._in_flight, self._unseen, self._unwritten))

    def _offer(self, ban: Ban, *, instead: bool = False) -> None:
        """Queues a ban of the table, `instead` of what the store has; waits for room, so called by the reader only."""
        while len(self._queue) >= self._room and not self._stop.is_set():
            if self.outage:
                self._overflowed = True  # again when it is over
                return
            self._stop.wait(0.01)
        with self._lock:
            if instead:
                self._enqueue(ban.key, None)
            self._enqueue(ban.key, ban)

    def _table_bans(self) -> list[Ban]:
        with self._at_rest:
            return list(self._stored())

    def _stored(self) -> Iterator[Ban]:
        """The bans and labels of this process."""
        return chain(self.engine.ban_table.bans(), self._labels.stored())

    def _table_of(self, key: str) -> BanTable | LabelTable:
        """The table that a record belongs in."""
        return self._labels if key.startswith(LABELS) else self.engine.ban_table

    # ---- outages

    def _failed(self, breaker: Breaker, error: Exception) -> None:
        if not isinstance(error, GobanError):
            log.error("%s: %s", self.store.uri, error, exc_info=error)
        breaker.failure(str(error))
        self._judge()

    def _judge(self) -> None:
        """Notes the beginning or the end of an outage."""
        with self._at_rest:
            out = self.writes.state != "closed" or self.reads.state != "closed"
            if out == self.outage:
                return
            if out:
                self._enter_outage()
                self.counts["outages"] += 1
            else:
                self._leave_outage()
            self.outage = out  # who sees it sees the policy at work; and a log that hangs holds up neither
            if out:
                log.error("store outage, policy %r: %s", self.on_outage, self.writes.error or self.reads.error)
            else:
                log.warning("%s: the store answers again; %d changes wait", self.store.uri, len(self._queue))

    def _enter_outage(self) -> None:
        table = self.engine.ban_table
        if self.on_outage == "closed":
            table.closed = True
        elif self.on_outage == "open":
            self._set_aside = list(table.bans())
            for ban in self._set_aside:
                table.unban(ban.key, maker="store")

    def _leave_outage(self) -> None:
        table = self.engine.ban_table
        if self.on_outage == "closed":
            table.closed = False
        aside, self._set_aside = self._set_aside, []
        for ban in aside:
            table.put(ban)
        if self.on_outage == "open":
            self._reread = True

    # ---- clocks

    def _shift_at(self, wall: float) -> float:
        """Seconds to add to a time of the table to make it a time of day; 0.0 while the clock was not set."""
        shift = wall - self._steady() - self._offset
        return shift if abs(shift) > JUMP else 0.0

    def _look_at_clock(self) -> None:
        shift = self._shift_at(self._clock())
        if abs(shift - self._shift) > JUMP:
            log.warning("the clock was set by %+.1f s; bans are written anew", shift - self._shift)
            self._shift = shift
            for ban in self._table_bans():
                self._offer(ban, instead=True)
            self.counts["clock_jumps"] += 1

    # ---- processes

    def _fresh(self) -> None:
        """Locks and events of this process."""
        self._lock = threading.RLock()
        # Held while a thread of ours is in the table: one at a time, in the store's order, and no fork meets it there.
        # Whoever needs both takes it before `_lock`. The engine's threads wait for neither.
        self._at_rest = threading.RLock()
        self._progress = threading.Condition(self._lock)
        self._wake, self._stop, self._read_once = threading.Event(), threading.Event(), threading.Event()
        self._queued = self._flushed = 0  # changes ever queued; how many of them are known to be written
        self._threads: list[threading.Thread] = []

    def _run_threads(self) -> None:
        for target, name in ((self._feed_loop, "feed"), (self._write_loop, "write"), (self._read_loop, "read")):
            thread = threading.Thread(target=target, name=f"gobanfast-store-{name}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _warn_if_alone(self) -> None:
        spawned = multiprocessing.parent_process() is not None
        workers = os.environ.get("WEB_CONCURRENCY", "")
        if not self.store.shared and (spawned or (workers.isdecimal() and int(workers) > 1)):
            self._warn_of_memory()

    def _warn_of_memory(self) -> None:
        log.warning(
            "store %s is not shared: each of several workers keeps its own bans; use sqlite:PATH", self.store.uri
        )

    def before_fork(self) -> None:
        """See `ForkAware`."""
        self._at_rest.acquire()
        self._lock.acquire()

    def after_fork(self, child: bool) -> None:
        """See `ForkAware`."""
        if not child:
            self.counts["forks"] += 1
            self._lock.release()
            self._at_rest.release()
            if self.counts["forks"] == 2 and not self.store.shared:
                self._warn_of_memory()
            return
        synced = self._read_once.is_set()
        self._fresh()
        self._queue, self._in_flight, self._unseen, self._held, self._dropped = {}, {}, {}, {}, set()
        _, self._followed = self.engine.ban_table.changes()
        self._overflowed, self._behind, self._owed, self._unwritten = False, not synced, 0, {}
        self.counts = dict.fromkeys(self.counts, 0)
        if synced:
            self._read_once.set()
        if self._started and not self._stopping:
            self._run_threads()
