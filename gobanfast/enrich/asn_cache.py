"""Second cache of AS answers, for a day: an SQLite file of the host, or Redis under `asn:geo:`."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from dataclasses import asdict
from typing import Any, Protocol

from gobanfast._errors import GobanError
from gobanfast.enrich.asn_sources import AsnAnswer

PREFIX = "asn:geo:"
SECONDS = 86_400.0


class Cache(Protocol):
    """Keeps answers by what was asked. Neither call raises for a cache that is down: that is no answer."""

    failures: int

    def get(self, key: str) -> AsnAnswer | None: ...
    def put(self, key: str, answer: AsnAnswer) -> None: ...
    def close(self) -> None: ...


def encode(answer: AsnAnswer) -> str:
    """An answer as JSON."""
    return json.dumps(asdict(answer), ensure_ascii=False)


def decode(text: Any) -> AsnAnswer | None:
    """The answer in a JSON text; None for one that has none."""
    try:
        found = json.loads(text)
        answer = AsnAnswer(**{name: found[name] for name in AsnAnswer.__slots__})
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    whole = (
        isinstance(answer.asn, int) and isinstance(answer.fetched_at, (int, float)) and isinstance(answer.source, str)
    )
    return answer if whole else None


class SqliteCache:
    """A table in a file that all processes of a host may share."""

    def __init__(self, path: str) -> None:
        self.failures = 0
        self._path, self._lock = path, threading.Lock()
        self._db: sqlite3.Connection | None = None

    def get(self, key: str) -> AsnAnswer | None:
        """See `Cache`."""
        try:
            with self._lock:
                row = self._opened().execute(
                    "SELECT answer FROM asn_answers WHERE key = ? AND ends > ?", (PREFIX + key, time.time())
                ).fetchone()  # fmt: skip
        except sqlite3.Error:
            self._failed()
            return None
        return None if row is None else decode(row[0])

    def put(self, key: str, answer: AsnAnswer) -> None:
        """See `Cache`."""
        now = time.time()
        try:
            with self._lock:
                db = self._opened()
                db.execute(
                    "INSERT OR REPLACE INTO asn_answers VALUES (?, ?, ?)", (PREFIX + key, encode(answer), now + SECONDS)
                )
                db.execute("DELETE FROM asn_answers WHERE ends <= ?", (now,))
        except sqlite3.Error:
            self._failed()

    def close(self) -> None:
        """See `Cache`."""
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None

    def _opened(self) -> sqlite3.Connection:
        if self._db is None:
            self._db = sqlite3.connect(self._path, timeout=0.25, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=OFF")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS asn_answers(key TEXT PRIMARY KEY, answer TEXT NOT NULL, ends REAL NOT NULL)"
            )
            self._db.execute("CREATE INDEX IF NOT EXISTS asn_ends ON asn_answers(ends)")
        return self._db

    def _failed(self) -> None:
        self.failures += 1
        try:
            self.close()
        except sqlite3.Error:
            self._db = None


class RedisCache:
    """Keys `asn:geo:...` in Redis, which ends them. After a failure it is not asked for five seconds."""

    def __init__(self, uri: str) -> None:
        try:
            import redis
        except ImportError:
            raise GobanError("the cache needs redis: pip install 'gobanfast[redis]'") from None
        self.failures = 0
        self._error = redis.RedisError
        self._again = 0.0
        self._redis = redis.Redis.from_url(uri, socket_timeout=0.25, socket_connect_timeout=0.25)

    def get(self, key: str) -> AsnAnswer | None:
        """See `Cache`."""
        if time.monotonic() < self._again:
            return None
        try:
            found = self._redis.get(PREFIX + key)
        except (self._error, OSError):
            self._failed()
            return None
        return None if found is None else decode(found)

    def put(self, key: str, answer: AsnAnswer) -> None:
        """See `Cache`."""
        if time.monotonic() < self._again:
            return
        try:
            self._redis.set(PREFIX + key, encode(answer), ex=int(SECONDS))
        except (self._error, OSError):
            self._failed()

    def close(self) -> None:
        """See `Cache`."""
        self._redis.close()

    def _failed(self) -> None:
        self.failures += 1
        self._again = time.monotonic() + 5.0


def open_cache(uri: str) -> Cache:
    """The cache that a URI names: sqlite:PATH, redis://host:port/db, rediss://, unix://PATH. ValueError for another."""
    scheme, _, rest = uri.partition(":")
    if scheme == "sqlite" and rest and not rest.startswith(("//", ":")):
        return SqliteCache(rest)
    if scheme in {"redis", "rediss", "unix"} and rest.startswith("//"):
        return RedisCache(uri)
    raise ValueError(f"cache {uri.rpartition('@')[2]!r} is not an address; write sqlite:PATH or redis://host:port/db")
