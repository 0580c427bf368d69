"""Bans in an SQLite file that all processes of a host share: no server, durable, seen within a poll interval.

One row a key, and every change of it takes the next number of one sequence; "what changed after n" is a walk over the
index of that number. A lifted key stays as a row without a record for an hour, so that others learn of it. WAL mode:
readers and the one writer do not wait for each other; `synchronous=FULL`: a commit is on the disk when it returns.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import count, groupby
from typing import Any, TypeVar

from gobanfast._errors import FormatError
from gobanfast._fork import watch_forks
from gobanfast.bans import Ban
from gobanfast.stores.record import decode_ban, encode_ban, in_force
from gobanfast.stores.store import Change, Changes, Cursor, StoreError

SCHEMA_VERSION = 1
VERSION_OFFSET = 60  # of user_version in the file's header, www.sqlite.org/fileformat.html
POLL = 0.02  # seconds between looks at the sequence
BUSY = 2.0  # seconds to wait for another process's write
FORGET = 3600.0  # seconds after which a lifted key is forgotten
GRACE = 60.0  # seconds that an expired ban stays on the disk
CHUNK = 4096
FOR_GOOD = 1e300  # `expires` of a ban without an end

SCHEMA = f"""
CREATE TABLE bans(key TEXT PRIMARY KEY, seq INTEGER NOT NULL, expires REAL NOT NULL, changed REAL NOT NULL, record TEXT)
    WITHOUT ROWID;
CREATE INDEX bans_by_seq ON bans(seq);
CREATE INDEX bans_by_expiry ON bans(expires);
CREATE TABLE state(store TEXT NOT NULL, seq INTEGER NOT NULL, horizon INTEGER NOT NULL);
PRAGMA user_version = {SCHEMA_VERSION};
"""
# The later expiry stays, unless the old ban is over or was lifted (expires 0).
UPSERT = """
INSERT INTO bans(key, seq, expires, changed, record) VALUES(?1, ?2, ?3, ?4, ?5) ON CONFLICT(key) DO UPDATE SET
    seq = excluded.seq, changed = excluded.changed,
    record = iif(excluded.expires > bans.expires OR bans.expires <= ?4, excluded.record, bans.record),
    expires = iif(excluded.expires > bans.expires OR bans.expires <= ?4, excluded.expires, bans.expires)
"""
LIFT = """
INSERT INTO bans(key, seq, expires, changed, record) VALUES(?1, ?2, 0, ?3, NULL) ON CONFLICT(key) DO UPDATE SET
    seq = excluded.seq, changed = excluded.changed, expires = 0, record = NULL
"""

T = TypeVar("T")


class SqliteStore:
    """A store in the file at `path`, which is made when it is not there.

    Cost: a write is one commit, so one flush of the disk, whatever its size; a look for changes 10 us, every 20 ms.
    """

    shared = True

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(os.fspath(path))
        self.uri = f"sqlite:{self.path}"
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._inode = (0, 0)
        watch_forks(self)

    def apply(self, writes: Iterable[tuple[str, Ban | None]], *, now: float | None = None) -> int:
        """See `Store.apply`."""
        now = time.time() if now is None else now

        def write(db: sqlite3.Connection) -> int:
            (before,) = db.execute("SELECT seq FROM state").fetchone()
            seq = count(before + 1)
            for lifts, group in groupby(writes, lambda write: write[1] is None):
                if lifts:
                    db.executemany(LIFT, ((key, next(seq), now) for key, _ in group))
                else:
                    db.executemany(
                        UPSERT,
                        (
                            (key, next(seq), FOR_GOOD if ban.expires is None else ban.expires, now, encode_ban(ban))
                            for key, ban in group
                            if ban is not None and in_force(ban, now)
                        ),
                    )
            db.execute("UPDATE state SET seq = ?", (next(seq) - 1,))
            return int(before) + 1

        return self._transact(write)

    def set(self, ban: Ban, *, now: float | None = None) -> None:
        """See `Store.set`."""
        self.apply([(ban.key, ban)], now=now)

    def get(self, key: str, *, now: float | None = None) -> Ban | None:
        """See `Store.get`."""
        rows = self._read("SELECT record FROM bans WHERE key = ? AND expires > ?", (key, _now(now)))
        return self._ban(rows[0][0]) if rows else None

    def exists(self, key: str, *, now: float | None = None) -> bool:
        """See `Store.exists`."""
        return bool(self._read("SELECT 1 FROM bans WHERE key = ? AND expires > ?", (key, _now(now))))

    def delete(self, key: str, *, now: float | None = None) -> bool:
        """See `Store.delete`."""
        now = _now(now)

        def lift(db: sqlite3.Connection) -> bool:
            existed = db.execute("SELECT 1 FROM bans WHERE key = ? AND expires > ?", (key, now)).fetchone() is not None
            db.execute("UPDATE state SET seq = seq + 1")
            db.execute(LIFT, (key, db.execute("SELECT seq FROM state").fetchone()[0], now))
            return existed

        return self._transact(lift)

    def extend(self, key: str, expires: float | None, *, now: float | None = None) -> Ban | None:
        """See `Store.extend`."""
        now = _now(now)

        def extend(db: sqlite3.Connection) -> Ban | None:
            row = db.execute("SELECT record FROM bans WHERE key = ? AND expires > ?", (key, now)).fetchone()
            if row is None:
                return None
            ban = self._ban(row[0])
            longer = Ban(key, ban.reason, ban.rule, ban.created, expires, ban.count, ban.by)
            db.execute("UPDATE state SET seq = seq + 1")
            (seq,) = db.execute("SELECT seq FROM state").fetchone()
            db.execute(UPSERT, (key, seq, FOR_GOOD if expires is None else expires, now, encode_ban(longer)))
            return self._ban(db.execute("SELECT record FROM bans WHERE key = ?", (key,)).fetchone()[0])

        return self._transact(extend)

    def scan(self, prefix: str = "", *, now: float | None = None) -> Iterator[Ban]:
        """See `Store.scan`."""
        now, after = _now(now), ""
        while True:
            rows = self._read(
                "SELECT key, record FROM bans WHERE key > ? AND key >= ? AND expires > ? ORDER BY key LIMIT ?",
                (after, prefix, now, CHUNK),
            )
            for key, record in rows:
                if not key.startswith(prefix):
                    return
                yield self._ban(record)
            if len(rows) < CHUNK:
                return
            after = rows[-1][0]

    def watch(self, cursor: Cursor | None, *, timeout: float) -> Changes:
        """See `Store.watch`. Looks every 20 ms."""
        deadline = time.monotonic() + timeout
        while True:
            found = self._changes(cursor)
            if found.changes or found.gap or time.monotonic() >= deadline:
                return found
            time.sleep(POLL)

    def purge(self, *, now: float | None = None) -> int:
        """See `Store.purge`. One statement that looks at the expiry again: what was extended meanwhile stays."""
        now = _now(now)

        def purge(db: sqlite3.Connection) -> int:
            lifted = (now - FORGET,)
            (last,) = db.execute("SELECT max(seq) FROM bans WHERE expires = 0 AND changed <= ?", lifted).fetchone()
            if last is not None:
                db.execute("DELETE FROM bans WHERE expires = 0 AND changed <= ?", lifted)
                db.execute("UPDATE state SET horizon = max(horizon, ?)", (last,))
            return db.execute("DELETE FROM bans WHERE expires > 0 AND expires <= ?", (now - GRACE,)).rowcount

        return self._transact(purge)

    def health(self) -> dict[str, Any]:
        """See `Store.health`."""
        ((store, seq),) = self._read("SELECT store, seq FROM state", ())
        ((bans,),) = self._read("SELECT count(*) FROM bans WHERE expires > ?", (time.time(),))
        return {"path": self.path, "store": store, "position": seq, "bans": bans}

    def close(self) -> None:
        """See `Store.close`."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                with suppress(sqlite3.Error):
                    connection.close()

    def before_fork(self) -> None:
        """See `ForkAware`. SQLite must not be carried across a fork, so the connection is closed and opened later."""
        self._lock.acquire()
        self.close()

    def after_fork(self, child: bool) -> None:
        """See `ForkAware`."""
        if child:
            self._lock = threading.RLock()
        else:
            self._lock.release()

    def _changes(self, cursor: Cursor | None) -> Changes:
        with self._lock:
            try:
                if self._connection is not None and self._inode != _inode(self.path):
                    self.close()  # the file was replaced, and we hold the old one
                db = self._open()
                store, seq, horizon = db.execute("SELECT store, seq, horizon FROM state").fetchone()
                here = Cursor(store, seq)
                if cursor is None:
                    return Changes((), here, "first")
                if cursor.store != store or cursor.position > seq:
                    return Changes((), here, "replaced")
                if cursor.position < horizon:
                    return Changes((), here, "trimmed")
                if cursor.position == seq:
                    return Changes((), here)
                rows = db.execute(
                    "SELECT seq, key, record FROM bans WHERE seq > ? ORDER BY seq LIMIT ?", (cursor.position, CHUNK)
                ).fetchall()
            except sqlite3.Error as error:
                raise self._failed(error) from error
        changes = [Change(seq, key, None if record is None else self._ban(record)) for seq, key, record in rows]
        # With fewer rows than asked for, all up to the sequence as read before are in them.
        last = rows[-1][0] if rows else 0
        return Changes(changes, Cursor(store, last if len(rows) == CHUNK else max(seq, last)))

    def _read(self, query: str, values: tuple[object, ...]) -> list[Any]:
        with self._lock:
            try:
                return self._open().execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise self._failed(error) from error

    def _transact(self, act: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock:
            try:
                db = self._open()
                db.execute("BEGIN IMMEDIATE")
                try:
                    done = act(db)
                    db.execute("COMMIT")
                except BaseException:
                    if db.in_transaction:
                        with suppress(sqlite3.Error):
                            db.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise self._failed(error) from error
            return done

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None:
            return self._connection
        db = sqlite3.connect(self.path, timeout=BUSY, isolation_level=None, check_same_thread=False)
        try:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version > SCHEMA_VERSION:
                text = f"bans of schema version {version}, this release reads {SCHEMA_VERSION}"
                raise FormatError(self.path, VERSION_OFFSET, text)
            if version == 0:
                self._create(db)
            db.execute("PRAGMA synchronous = FULL")
        except BaseException:
            db.close()
            raise
        self._connection, self._inode = db, _inode(self.path)
        return db

    def _create(self, db: sqlite3.Connection) -> None:
        """Makes the tables, unless another process was first."""
        deadline = time.monotonic() + BUSY
        while True:
            try:  # the change of mode does not wait for others by itself
                db.execute("PRAGMA journal_mode = WAL")
                break
            except sqlite3.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(POLL)
        db.execute("BEGIN IMMEDIATE")
        if db.execute("PRAGMA user_version").fetchone() == (0,):
            if db.execute("SELECT count(*) FROM sqlite_schema").fetchone() != (0,):
                db.execute("ROLLBACK")
                raise FormatError(self.path, VERSION_OFFSET, "an SQLite database of something else")
            for statement in SCHEMA.strip().split(";\n"):
                db.execute(statement)
            db.execute("INSERT INTO state VALUES(?, 0, 0)", (secrets.token_hex(8),))
        db.execute("COMMIT")

    def _failed(self, error: sqlite3.Error) -> StoreError:
        if not isinstance(error, sqlite3.OperationalError):
            self.close()  # a damaged file may have been put right since
        return StoreError(f"{self.uri}: {error}")

    def _ban(self, record: str) -> Ban:
        try:
            return decode_ban(record)
        except ValueError as error:
            raise StoreError(f"{self.uri}: {error}") from error


def _now(now: float | None) -> float:
    return time.time() if now is None else now


def _inode(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino
