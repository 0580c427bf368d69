"""Bans in Redis or Valkey, for all hosts that reach it.

Each ban is a string under its name (`ban:203.0.113.7`, `ban:net:..`, `ban:asn:..`, `ban:fp:..`), with the server's own
time to live; for good is a plain SET without one. Every change also goes to a stream of the last 16,384, with numbers
that leave no gap, so a reader that was away goes on where it stopped, or learns that it missed some. A batch is one run
of one script, hence one step. On a cluster the prefix needs a hash tag: `?prefix={gobanfast}:`.
"""

from __future__ import annotations

import math
import os
import secrets
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from gobanfast._fork import watch_forks
from gobanfast.bans import Ban
from gobanfast.stores.record import decode_ban, encode_ban, in_force, store_name
from gobanfast.stores.store import Change, Changes, Cursor, StoreError

if TYPE_CHECKING:
    import redis

TIMEOUT = 1.0  # seconds for connecting and for each answer
KEPT = 16_384  # changes in the stream
BATCH = 500  # changes of one run of the script
CHUNK = 1000  # keys of one SCAN, entries of one XREAD

# KEYS: meta, stream, then a name for each change. ARGV: a name for the store if it has none, KEPT, then three for each
# change: milliseconds to live (0: for good, -1: lift, -2: extend for good, below: extend to -n - 2), record, key.
# Returns the store's name and the number of the first change. The later expiry stays, as the records say it.
SCRIPT = """
local name = redis.call('HGET', KEYS[1], 'store')
if not name then
    name = ARGV[1]
    redis.call('HSET', KEYS[1], 'store', name, 'v', '1', 'seq', '0')
    redis.call('DEL', KEYS[2])
end
local seq = tonumber(redis.call('HGET', KEYS[1], 'seq'))
local first = seq + 1
local function stays(old, new)
    local known, ends = pcall(function() return cjson.decode(old)['expires'] end)
    if not known or ends == nil then return false end
    if ends == cjson.null then return true end
    new = cjson.decode(new)['expires']
    return new ~= cjson.null and ends >= new
end
for i = 3, #KEYS do
    local at = 3 * i - 6
    local left, record = tonumber(ARGV[at]), ARGV[at + 1]
    local write = true
    if left == -1 then
        redis.call('DEL', KEYS[i])
        record = ''
    else
        local old = redis.call('GET', KEYS[i])
        if left < -1 then
            write = old ~= false
            left = -left - 2
        end
        if old and stays(old, record) then
            record = old
        elseif write and left == 0 then
            redis.call('SET', KEYS[i], record)
        elseif write then
            redis.call('SET', KEYS[i], record, 'PX', string.format('%.0f', left))
        end
    end
    if write then
        seq = seq + 1
        local number = string.format('%.0f-0', seq)
        redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], number, 'k', ARGV[at + 2], 'r', record)
    end
end
redis.call('HSET', KEYS[1], 'seq', string.format('%.0f', seq))
return {name, first}
"""


class RedisStore:
    """A store in Redis 6 or later, or Valkey.

    Args:
        uri: as redis-py takes it, with `prefix=` in the query for names: `redis://host:6379/0?prefix=app:`.
    Every answer is waited for one second at most, once; trying again is up to the caller.
    """

    shared = True

    def __init__(self, uri: str) -> None:
        parts = urlsplit(uri)
        query = parse_qsl(parts.query)
        self.prefix = dict(query).get("prefix", "")
        kept = urlencode([(name, value) for name, value in query if name != "prefix"])
        self._url = urlunsplit(parts._replace(query=kept))
        self.uri = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        self._lock = threading.Lock()
        self._clients: tuple[redis.Redis, redis.Redis] | None = None
        self._pid = 0
        watch_forks(self)

    def apply(self, writes: Iterable[tuple[str, Ban | None]], *, now: float | None = None) -> int:
        """See `Store.apply`; one step for each 500 changes."""
        now = _now(now)
        changes = [
            (key, "-1", "") if ban is None else (key, _left(ban.expires, now), encode_ban(ban))
            for key, ban in writes
            if ban is None or in_force(ban, now)
        ]
        first, rest = 0, iter(changes)
        while batch := list(islice(rest, BATCH)):
            position = self._run(batch)
            first = first or position
        return first

    def set(self, ban: Ban, *, now: float | None = None) -> None:
        """See `Store.set`."""
        self.apply([(ban.key, ban)], now=now)

    def get(self, key: str, *, now: float | None = None) -> Ban | None:
        """See `Store.get`."""
        record = self._ask("GET", self.prefix + store_name(key))
        if record is None:
            return None
        ban = self._ban(record)
        return ban if in_force(ban, _now(now)) else None

    def exists(self, key: str, *, now: float | None = None) -> bool:
        """See `Store.exists`."""
        return self.get(key, now=now) is not None

    def delete(self, key: str, *, now: float | None = None) -> bool:
        """See `Store.delete`."""
        existed = self.exists(key, now=now)
        self._run([(key, "-1", "")])
        return existed

    def extend(self, key: str, expires: float | None, *, now: float | None = None) -> Ban | None:
        """See `Store.extend`."""
        now = _now(now)
        ban = self.get(key, now=now)
        if ban is None:
            return None
        left = "-2" if expires is None else str(-2 - max(1, math.ceil((expires - now) * 1000)))
        self._run([(key, left, encode_ban(replace(ban, expires=expires)))])
        return self.get(key, now=now)

    def scan(self, prefix: str = "", *, now: float | None = None) -> Iterator[Ban]:
        """See `Store.scan`; SCAN and MGET, so the server is never held up."""
        now, cursor = _now(now), 0
        pattern = "".join(f"\\{letter}" if letter in "*?[]\\" else letter for letter in self.prefix) + "ban:*"
        seen: set[str] = set()
        while True:
            cursor, names = self._ask("SCAN", cursor, "MATCH", pattern, "COUNT", CHUNK)
            for record in self._ask("MGET", *names) if names else ():
                if record is not None:
                    ban = self._ban(record)
                    if ban.key.startswith(prefix) and in_force(ban, now) and ban.key not in seen:
                        seen.add(ban.key)
                        yield ban
            if not int(cursor):
                return

    def watch(self, cursor: Cursor | None, *, timeout: float) -> Changes:
        """See `Store.watch`; XREAD waits on the server."""
        name, here = self._state()
        if cursor is None:
            return Changes((), Cursor(name, here), "first")
        if cursor.store != name or cursor.position > here:
            return Changes((), Cursor(name, here), "replaced")
        if cursor.position < 0:
            return Changes((), Cursor(name, here), "trimmed")
        wait = max(1, min(int(timeout * 1000), int(TIMEOUT * 500)))
        after = f"{cursor.position}-0"
        found = self._ask("XREAD", "COUNT", CHUNK, "BLOCK", wait, "STREAMS", self._stream, after, reader=True)
        if not found:
            # Nothing came. If the numbers moved all the same, they came while we asked; if not, nothing is missing.
            return Changes((), cursor)
        entries = next(iter(found.values())) if isinstance(found, dict) else found[0][1]
        changes = []
        for number, fields in entries[0] if isinstance(found, dict) else entries:
            record = fields["r"]
            changes.append(Change(int(number.partition("-")[0]), fields["k"], self._ban(record) if record else None))
        if changes[0].position != cursor.position + 1:
            name, here = self._state()
            return Changes((), Cursor(name, here), "trimmed" if name == cursor.store else "replaced")
        return Changes(changes, Cursor(name, changes[-1].position))

    def purge(self, *, now: float | None = None) -> int:  # noqa: ARG002 - the server has a clock of its own
        """See `Store.purge`; the server does it."""
        return 0

    def health(self) -> dict[str, Any]:
        """See `Store.health`."""
        name, here = self._state()
        facts = self._ask("INFO", "memory")
        return {
            "store": name,
            "position": here,
            "used_bytes": facts.get("used_memory"),
            "max_bytes": facts.get("maxmemory"),
            "eviction": facts.get("maxmemory_policy"),
        }

    def close(self) -> None:
        """See `Store.close`."""
        with self._lock:
            clients, self._clients = self._clients, None
        for client in clients or ():
            with suppress(Exception):
                client.close()

    def before_fork(self) -> None:
        """See `ForkAware`."""
        self._lock.acquire()

    def after_fork(self, child: bool) -> None:
        """See `ForkAware`. The parent's connections are the parent's."""
        if child:
            self._lock = threading.Lock()
            self._clients = None
        else:
            self._lock.release()

    @property
    def _meta(self) -> str:
        return f"{self.prefix}gobanfast:meta"

    @property
    def _stream(self) -> str:
        return f"{self.prefix}gobanfast:changes"

    def _state(self) -> tuple[str, int]:
        """The store's name, which it gets now if it has none, and the number of the last change."""
        name, position = self._ask("HMGET", self._meta, "store", "seq")
        if name is None:
            self._run([])
            name, position = self._ask("HMGET", self._meta, "store", "seq")
        return name or "", int(position or 0)

    def _run(self, batch: list[tuple[str, str, str]]) -> int:
        """Number of the first change after running the script for (key, milliseconds, record)s."""
        names = [self.prefix + store_name(key) for key, _, _ in batch]
        words = [word for key, left, record in batch for word in (left, record, key)]
        done = self._ask(
            "EVAL", SCRIPT, len(names) + 2, self._meta, self._stream, *names, secrets.token_hex(8), KEPT, *words
        )
        return int(done[1])

    def _ask(self, *command: object, reader: bool = False) -> Any:
        import redis

        try:
            client: Any = self._connect()[reader]
            return client.execute_command(*command)
        except (redis.RedisError, OSError) as error:
            raise StoreError(f"{self.uri}: {str(error) or type(error).__name__}") from error

    def _connect(self) -> tuple[redis.Redis, redis.Redis]:
        """Two clients of this process: one to ask and write, one that waits for changes."""
        with self._lock:
            if self._clients is None or self._pid != os.getpid():
                import redis
                from redis.backoff import NoBackoff
                from redis.retry import Retry

                one, two = (
                    redis.Redis.from_url(
                        self._url,
                        socket_timeout=TIMEOUT,
                        socket_connect_timeout=TIMEOUT,
                        retry=Retry(NoBackoff(), 0),
                        decode_responses=True,
                    )
                    for _ in range(2)
                )
                self._clients, self._pid = (one, two), os.getpid()
            return self._clients

    def _ban(self, record: str) -> Ban:
        try:
            return decode_ban(record)
        except ValueError as error:
            raise StoreError(f"{self.uri}: {error}") from error


def _left(expires: float | None, now: float) -> str:
    """Milliseconds to live, rounded up; 0 for good."""
    return "0" if expires is None else str(max(1, math.ceil((expires - now) * 1000)))


def _now(now: float | None) -> float:
    return time.time() if now is None else now
