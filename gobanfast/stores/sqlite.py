"""SQLite store shared by all processes of a host: no server, durable, seen within a poll interval.

One row a key, and every change of it takes the next number of one sequence; "what changed after n" is a walk over the
index of that number. A lifted key stays as a row without a record for an hour, so that others learn of it. WAL mode:
readers and the one writer do not wait for each other; `synchronous=FULL`: a commit is on the disk when it returns.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import count, groupby
from typing import Any, TypeVar
from urllib.parse import quote

from gobanfast._errors import FormatError
from gobanfast._fork import watch_forks
from gobanfast.bans import Ban
from gobanfast.stores.codec import PassedOver, belongs, check_key, encode_ban, in_force, read_record, write_record
from gobanfast.stores.store import Change, Changes, Cursor, RecordError, StoreAddressError, StoreError

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
NEWER = (
    "excluded.expires > bans.expires OR bans.expires <= excluded.changed OR NOT gobanfast_reads(bans.key, bans.record)"
)
# The later expiry stays, unless the old ban is over, was lifted (expires 0) or cannot be read.
UPSERT = f"""
INSERT INTO bans(key, seq, expires, changed, record) VALUES(?, ?, ?, ?, ?) ON CONFLICT(key) DO UPDATE SET
    seq = excluded.seq, changed = excluded.changed,
    record = iif({NEWER}, excluded.record, bans.record), expires = iif({NEWER}, excluded.expires, bans.expires)
"""
LIFT = """
INSERT INTO bans(key, seq, expires, changed, record) VALUES(?, ?, 0, ?, NULL) ON CONFLICT(key) DO UPDATE SET
    seq = excluded.seq, changed = excluded.changed, expires = 0, record = NULL
"""

T = TypeVar("T")
Row = tuple[str, Ban | None, str]  # key, ban, its record
# What SQLite says of one row, not of the file: the row is passed over.
ROW_ERRORS = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    OverflowError,
)


class _Connection(sqlite3.Connection):
    """A connection that is closed with the store, or the thread, that lets go of it."""

    def __del__(self) -> None:
        self.close()


class SqliteStore:
    """A store in the file at `path`.

    Args:
        create: False: a file that is not there is a StoreError in place of a new one.
    A file that is replaced, moved away or deleted is noticed by its inode, before a write counts as done and at every
    look for changes: what was written to the old one is written again to what is at `path` then.
    Cost: a write is one commit, so one flush of the disk, whatever its size; a look for changes 15 us, every 20 ms.
    """

    shared = True
    ahead = 0.0

    def __init__(self, path: str | os.PathLike[str], *, create: bool = True) -> None:
        self._create_file = create
        self.path = os.path.abspath(os.fspath(path))
        self.uri = f"sqlite:{self.path}"
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._inode = self._log_inode = (0, 0)
        self._log_file = ""
        self._passed = PassedOver(self.uri)
        watch_forks(self)

    @property
    def unreadable(self) -> int:
        """See `Store.unreadable`."""
        return self._passed.count

    def apply(self, writes: Iterable[tuple[str, Ban | None]], *, now: float | None = None) -> int:
        """See `Store.apply`."""
        now = _now(now)
        rows: list[Row] = []
        problems: dict[str, str] = {}
        for key, ban in writes:
            try:
                if ban is None:
                    check_key(key)
                    rows.append((key, None, ""))
                elif in_force(ban, now):
                    rows.append((key, ban, write_record(key, ban)))
            except ValueError as error:
                problems[key] = str(error)
        try:
            first = self._transact(lambda db: _write(db, [rows], now, None))
        except ROW_ERRORS:  # row by row, to find the one that cannot be written
            first = self._transact(lambda db: _write(db, ([row] for row in rows), now, problems))
        if problems:
            raise RecordError(self.uri, problems, first)
        return first

    def set(self, ban: Ban, *, now: float | None = None) -> None:
        """See `Store.set`."""
        self.apply([(ban.key, ban)], now=now)

    def get(self, key: str, *, now: float | None = None) -> Ban | None:
        """See `Store.get`."""
        now = _now(now)
        rows = self._read("SELECT record FROM bans WHERE key = ? AND expires > ?", (key, now))
        ban = self._ban(key, rows[0][0]) if rows else None
        return ban if ban is not None and in_force(ban, now) else None

    def exists(self, key: str, *, now: float | None = None) -> bool:
        """See `Store.exists`."""
        return self.get(key, now=now) is not None

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
            ban = self._ban(key, row[0]) if row is not None else None
            if ban is None:
                return None
            longer = Ban(key, ban.reason, ban.rule, ban.created, expires, ban.count, ban.by)
            db.execute("UPDATE state SET seq = seq + 1")
            (seq,) = db.execute("SELECT seq FROM state").fetchone()
            db.execute(UPSERT, (key, seq, FOR_GOOD if expires is None else expires, now, encode_ban(longer)))
            return self._ban(key, db.execute("SELECT record FROM bans WHERE key = ?", (key,)).fetchone()[0])

        return self._transact(extend)

    def scan(self, prefix: str = "", *, now: float | None = None) -> Iterator[Ban]:
        """See `Store.scan`."""
        now, after = _now(now), ""
        while True:
            rows = self._read(
                "SELECT key, record FROM bans WHERE typeof(key) = 'text' AND key > CAST(? AS TEXT) AND key >= ? "
                "AND expires > ? ORDER BY key LIMIT ?",
                (after, prefix, now, CHUNK),
            )
            for key, record in rows:
                if isinstance(key, str) and not key.startswith(prefix):
                    return
                ban = self._ban(key, record)
                if ban is not None and belongs(ban.key, prefix) and in_force(ban, now):
                    yield ban
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

    def check(self) -> None:
        """See `Store.check`."""
        folder = os.path.dirname(self.path)
        if not os.path.isdir(folder):
            what = f"unable to open database file: folder {folder!r} is not there"
            raise StoreAddressError(f"{self.uri}: {what}; make it, or write another path")
        if os.path.isdir(self.path):
            raise StoreAddressError(f"{self.uri}: it is a folder; write the path of a file in it")

    def health(self) -> dict[str, Any]:
        """See `Store.health`."""
        ((store, seq),) = self._read("SELECT store, seq FROM state", ())
        now = time.time()
        ((records,),) = self._read("SELECT count(*) FROM bans WHERE expires > ?", (now,))
        labelled = "SELECT count(*) FROM bans WHERE key >= 'label:' AND key < 'label;' AND expires > ?"
        ((labels,),) = self._read(labelled, (now,))
        return {"path": self.path, "store": store, "position": seq, "bans": records - labels, "labels": labels}

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
                db = self._open()
                store, seq, horizon = self._state(db)
                store = f"{store}@{self._inode[0]:x}:{self._inode[1]:x}"  # a copy of the file is another store
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
                    "SELECT seq, key, record FROM bans WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?",
                    (cursor.position, seq, CHUNK),
                ).fetchall()
            except sqlite3.Error as error:
                raise self._failed(error) from error
        changes = []
        for number, key, record in rows:
            ban = None if record is None else self._ban(key, record)
            if isinstance(key, str) and (ban is not None or record is None):
                changes.append(Change(number, key, ban))
        # With fewer rows than asked for, all up to the sequence as read before are in them.
        return Changes(changes, Cursor(store, rows[-1][0] if len(rows) == CHUNK else seq))

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
                if not self._stays():
                    self._leave()
                    raise StoreError(f"{self.uri}: the file was replaced during a write, which went to the old one")
            except ROW_ERRORS:
                raise
            except sqlite3.Error as error:
                raise self._failed(error) from error
            return done

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None:
            if self._stays():
                return self._connection
            self._leave()
        if not self._create_file and not os.path.exists(self.path):
            raise StoreError(f"{self.uri}: there is no such file; the first ban makes it")
        where, mode = f"file://{quote(os.fsencode(self.path))}", "rwc" if self._create_file else "rw"
        db = sqlite3.connect(
            f"{where}?mode={mode}",
            uri=True,
            timeout=BUSY,
            isolation_level=None,
            check_same_thread=False,
            factory=_Connection,
        )
        try:
            db.text_factory = _text
            db.create_function("gobanfast_reads", 2, _reads)
            inode = _inode(self.path)
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version > SCHEMA_VERSION:
                text = f"bans of schema version {version}, this release reads {SCHEMA_VERSION}"
                raise FormatError(self.path, VERSION_OFFSET, text)
            if version == 0 and not self._create_file:
                raise StoreError(f"{self.uri}: there are no bans in it; it is empty, or a database of something else")
            if version == 0:
                self._create(db)
            db.execute("PRAGMA synchronous = FULL")
        except BaseException:
            db.close()
            raise
        self._connection, self._inode, self._log_file = db, inode, _log(self.path)
        self._log_inode = _inode(self._log_file)
        return db

    def _stays(self) -> bool:
        """Whether the file and its write-ahead log are still those that are open."""
        return self._inode == _inode(self.path) and self._log_inode == _inode(self._log_file)

    def _leave(self) -> None:
        """Closes the old file after another took its place. Its write-ahead log may lie where the new one's is looked
        for, and SQLite would read it into the new file: the first process that sees it there takes it away."""
        old, log_file = self._log_inode, _log(self.path)
        try:
            held = os.open(log_file, os.O_RDONLY)  # while it is held, no new log can get its inode
        except OSError:
            self.close()
            return
        try:
            stale = _inode(held) == old  # asked before the old log is closed, for the same reason
            self.close()
            if stale:
                self._remove_log(log_file, old)
        finally:
            os.close(held)

    def _remove_log(self, log_file: str, old: tuple[int, int]) -> None:
        with suppress(OSError):
            folder = os.open(os.path.dirname(log_file), os.O_RDONLY)
            try:
                fcntl.flock(folder, fcntl.LOCK_EX)
                if _inode(log_file) == old and self._inode != _inode(self.path):
                    for name in (log_file, f"{log_file.removesuffix('-wal')}-shm"):
                        with suppress(FileNotFoundError):
                            os.unlink(name)
            finally:
                os.close(folder)

    def _state(self, db: sqlite3.Connection) -> tuple[str, int, int]:
        row = db.execute("SELECT store, seq, horizon FROM state").fetchone()
        if row is None or [type(value) for value in row] != [str, int, int]:
            raise StoreError(f"{self.uri}: its table 'state' is damaged; export the bans, delete the file, import them")
        return row[0], row[1], row[2]

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

    def _ban(self, key: str, record: str) -> Ban | None:
        """The ban in a record; None for one that cannot be read, which is counted and logged."""
        try:
            return read_record(key, record)
        except ValueError as error:
            self._passed.note(error)
            return None


def _write(db: sqlite3.Connection, groups: Iterable[Sequence[Row]], now: float, problems: dict[str, str] | None) -> int:
    """Writes rows and returns the number of the first; why a row cannot be written goes into `problems`, if given."""
    (before,) = db.execute("SELECT seq FROM state").fetchone()
    seq = count(before + 1)
    for rows in groups:
        for lifts, group in groupby(rows, lambda row: row[1] is None):
            try:
                if lifts:
                    db.executemany(LIFT, ((key, next(seq), now) for key, _, _ in group))
                else:
                    ends = ((key, ban.expires if ban else None, record) for key, ban, record in group)
                    rows_of = (
                        (key, next(seq), FOR_GOOD if end is None else end, now, record) for key, end, record in ends
                    )
                    db.executemany(UPSERT, rows_of)
            except ROW_ERRORS as error:
                if problems is None:
                    raise
                problems[rows[0][0]] = str(error)
    db.execute("UPDATE state SET seq = ?", (next(seq) - 1,))
    return int(before) + 1


def _reads(key: str, record: str) -> bool:
    try:
        read_record(key, record)
    except ValueError:
        return False
    return True


def _text(raw: bytes) -> Any:
    """A text as SQLite has it; bytes for one that is no UTF-8, which is no record."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _now(now: float | None) -> float:
    return time.time() if now is None else now


def _log(path: str) -> str:
    """Where the write-ahead log of the file is."""
    return f"{os.path.realpath(path)}-wal"


def _inode(path: str | int) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino
