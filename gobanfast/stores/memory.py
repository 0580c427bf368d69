"""In-memory store of this process only: for tests, and for a single worker."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

from gobanfast._fork import watch_forks
from gobanfast.bans import Ban
from gobanfast.stores.codec import LABELS, belongs, check_key, in_force, later, write_record
from gobanfast.stores.store import Change, Changes, Cursor, RecordError

FORGET = 3600.0  # seconds after which a lifted key is forgotten


class MemoryStore:
    """A store in a dict. Engines of one process may share it; other processes do not see it."""

    uri = "memory:"
    shared = False
    ahead = 0.0
    unreadable = 0

    def __init__(self) -> None:
        self._name = secrets.token_hex(8)
        self._bans: dict[str, tuple[int, Ban | None, float]] = {}  # key -> position, ban, when; positions ascend
        self._position = self._horizon = 0
        self._changed = threading.Condition()
        watch_forks(self)

    def apply(self, writes: Iterable[tuple[str, Ban | None]], *, now: float | None = None) -> int:
        """See `Store.apply`."""
        now = time.time() if now is None else now
        problems: dict[str, str] = {}
        with self._changed:
            first = self._position + 1
            for key, ban in writes:
                try:
                    check_key(key) if ban is None else write_record(key, ban)
                except ValueError as error:
                    problems[key] = str(error)
                else:
                    self._write(key, ban, now)
            self._changed.notify_all()
        if problems:
            raise RecordError(self.uri, problems, first)
        return first

    def set(self, ban: Ban, *, now: float | None = None) -> None:
        """See `Store.set`."""
        self.apply([(ban.key, ban)], now=now)

    def get(self, key: str, *, now: float | None = None) -> Ban | None:
        """See `Store.get`."""
        ban = self._bans.get(key, (0, None, 0.0))[1]
        return ban if ban is not None and in_force(ban, time.time() if now is None else now) else None

    def exists(self, key: str, *, now: float | None = None) -> bool:
        """See `Store.exists`."""
        return self.get(key, now=now) is not None

    def delete(self, key: str, *, now: float | None = None) -> bool:
        """See `Store.delete`."""
        with self._changed:
            existed = self.exists(key, now=now)
            self.apply([(key, None)], now=now)
        return existed

    def extend(self, key: str, expires: float | None, *, now: float | None = None) -> Ban | None:
        """See `Store.extend`."""
        with self._changed:
            ban = self.get(key, now=now)
            if ban is None:
                return None
            self.set(Ban(key, ban.reason, ban.rule, ban.created, expires, ban.count, ban.by), now=now)
            return self.get(key, now=now)

    def scan(self, prefix: str = "", *, now: float | None = None) -> Iterator[Ban]:
        """See `Store.scan`."""
        now = time.time() if now is None else now
        with self._changed:
            found = list(self._bans.values())
        return (ban for _, ban, _ in found if ban is not None and belongs(ban.key, prefix) and in_force(ban, now))

    def watch(self, cursor: Cursor | None, *, timeout: float) -> Changes:
        """See `Store.watch`."""
        with self._changed:
            here = Cursor(self._name, self._position)
            if cursor is None:
                return Changes((), here, "first")
            if cursor.store != self._name:
                return Changes((), here, "replaced")
            if cursor.position < self._horizon:
                return Changes((), here, "trimmed")
            self._changed.wait_for(lambda: self._position > cursor.position, timeout)
            changes = []
            for key in reversed(self._bans):
                position, ban, _ = self._bans[key]
                if position <= cursor.position:
                    break
                changes.append(Change(position, key, ban))
            return Changes(changes[::-1], Cursor(self._name, self._position))

    def purge(self, *, now: float | None = None) -> int:
        """See `Store.purge`."""
        now = time.time() if now is None else now
        purged = 0
        with self._changed:
            for key, (position, ban, when) in list(self._bans.items()):
                if ban is None and when + FORGET <= now:
                    self._horizon = max(self._horizon, position)
                elif ban is None or in_force(ban, now):
                    continue
                purged += ban is not None
                del self._bans[key]
        return purged

    def check(self) -> None:
        """See `Store.check`; there is nothing to miss."""

    def health(self) -> dict[str, Any]:
        """See `Store.health`."""
        with self._changed:
            labels = sum(key.startswith(LABELS) for key in self._bans)
        return {"bans": len(self._bans) - labels, "labels": labels, "position": self._position}

    def close(self) -> None:
        """See `Store.close`; nothing is open."""

    def before_fork(self) -> None:
        """See `ForkAware`."""
        self._changed.acquire()

    def after_fork(self, child: bool) -> None:
        """See `ForkAware`."""
        if child:
            self._changed = threading.Condition()
        else:
            self._changed.release()

    def _write(self, key: str, ban: Ban | None, now: float) -> None:
        if ban is not None and not in_force(ban, now):
            return
        old = self._bans.pop(key, (0, None, 0.0))[1]
        if ban is not None and old is not None and in_force(old, now) and not later(ban, old):
            ban = old
        self._position += 1
        self._bans[key] = self._position, ban, now
