"""Redis or Valkey store, shared by all hosts that reach it.

Each ban is a string under its name (`ban:203.0.113.7`, `ban:net:..`, `ban:asn:..`, `ban:fp:..`, `ban:uid:..`), each
label one under `label:<word>:<key>`, with the server's own time to live; for good is a plain SET without one. Every
change also goes to a stream of the last 16,384, with numbers
that leave no gap, so a reader that was away goes on where it stopped, or learns that it missed some. A batch is one run
of one script, hence one step. A Redis Cluster is refused: what a batch writes has to be on one server.

Times in records are those of the server's clock, which all hosts share; each host translates them to and from its own.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from gobanfast._fork import watch_forks
from gobanfast.bans import Ban
from gobanfast.stores.codec import (
    LABELS,
    PassedOver,
    belongs,
    check_key,
    in_force,
    key_of_name,
    read_record,
    shifted,
    store_name,
    write_record,
)
from gobanfast.stores.store import Change, Changes, Cursor, RecordError, StoreAddressError, StoreError

if TYPE_CHECKING:
    import redis

TIMEOUT = 1.0  # seconds for connecting and for each answer
KEPT = 16_384  # changes in the stream
BATCH = 500  # changes of one run of the script
CHUNK = 1000  # keys of one SCAN, entries of one XREAD
LOOK = 10.0  # seconds between looks at the server's clock
AGREE = 1.0  # seconds that clocks may differ without a translation
FOREVER = 2**53  # milliseconds from which on a time to live is none
SECRETS = frozenset({"password", "username"})

log = logging.getLogger("gobanfast.stores")

# KEYS: meta, stream, then a name for each change. ARGV: a name for the store if it has none, KEPT, then three for each
# change: milliseconds to live (0: for good, -1: lift, -2: extend for good, below: extend to -n - 2), record, key.
# Returns the store's name, the number of the first change, and which changes were passed over because a value of
# another type has that name. The later expiry stays, as the records say it. What others wrote to meta or stream goes.
SCRIPT = """
local function is(reply, word)
    return type(reply) == 'table' and reply.err ~= nil and string.find(reply.err, word, 1, true) ~= nil
end
local name, seq = redis.pcall('HGET', KEYS[1], 'store'), nil
if is(name, 'WRONGTYPE') then name = false end
if name then seq = tonumber(redis.call('HGET', KEYS[1], 'seq') or 'none') end
if not name or not seq or seq < 0 or seq ~= math.floor(seq) then
    name, seq = ARGV[1], 0
    redis.call('DEL', KEYS[1], KEYS[2])
    redis.call('HSET', KEYS[1], 'store', name, 'v', '1', 'seq', '0')
end
local first, passed = seq + 1, {}
local function ends_of(record)
    local known, ends = pcall(function() return cjson.decode(record)['expires'] end)
    if not known then return nil end
    return ends
end
local function stays(old, new)
    local ends = ends_of(old)
    if ends == cjson.null then return true end
    if type(ends) ~= 'number' then return false end
    new = ends_of(new)
    return type(new) == 'number' and ends >= new
end
local function add(number, key, record)
    return redis.pcall('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], number, 'k', key, 'r', record)
end
for i = 3, #KEYS do
    local at = 3 * i - 6
    local left, record = tonumber(ARGV[at]), ARGV[at + 1]
    local old, write = redis.pcall('GET', KEYS[i]), true
    if is(old, 'WRONGTYPE') then
        write = false
        passed[#passed + 1] = i - 3
    elseif left == -1 then
        redis.call('DEL', KEYS[i])
        record = ''
    else
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
        local added = add(number, ARGV[at + 2], record)
        if is(added, 'WRONGTYPE') or is(added, 'equal or smaller') then
            redis.call('DEL', KEYS[2])
            added = add(number, ARGV[at + 2], record)
        end
        if type(added) == 'table' and added.err then return redis.error_reply(added.err) end
    end
end
redis.call('HSET', KEYS[1], 'seq', string.format('%.0f', seq))
return {name, first, passed}
"""


class RedisStore:
    """A store in Redis 6 or later, or Valkey.

    Args:
        uri: as redis-py takes it, with `prefix=` in the query for names: `redis://host:6379/0?prefix=app:`. For a
            socket `unix:///run/redis.sock?db=1`, with `password=` in the query.
        clock: this host's time of day; None: time.time.
    Every answer is waited for one second at most, once; trying again is up to the caller.
    Raises:
        StoreAddressError: the package redis is missing. ValueError: an address that redis-py does not read.
    """

    shared = True

    def __init__(self, uri: str, *, clock: Callable[[], float] | None = None) -> None:
        parts = urlsplit(uri)
        query = parse_qsl(parts.query, keep_blank_values=True)
        self.prefix = dict(query).get("prefix", "")
        place = uri.partition("?")[0].partition("#")[0]  # urlunsplit would write unix:/path
        scheme, _, rest = place.partition("://")
        self._url = _with_query(place, [(name, value) for name, value in query if name != "prefix"])
        shown = f"{scheme}://{rest.rpartition('@')[2]}"
        self.uri = _with_query(shown, [(name, value) for name, value in query if name not in SECRETS])
        if scheme == "unix" and not parts.path.startswith("/"):
            raise ValueError(f"store {self.uri!r} has no path of a socket; write unix:///run/redis/redis.sock")
        try:
            import redis
        except ModuleNotFoundError:
            raise StoreAddressError(f"{self.uri}: needs redis: pip install 'gobanfast[redis]'") from None
        try:
            redis.ConnectionPool.from_url(self._url)
        except ValueError as error:
            raise ValueError(f"store {self.uri!r} is not a store address: {error}") from None
        self._clock = clock
        self.ahead = 0.0
        self._looked = self._offset = -math.inf  # when at the server's clock, and our time of day then less that
        self._passed = PassedOver(self.uri)
        self._lock = threading.Lock()
        self._clients: tuple[redis.Redis, redis.Redis] | None = None
        self._pid = 0
        watch_forks(self)

    def apply(self, writes: Iterable[tuple[str, Ban | None]], *, now: float | None = None) -> int:
        """See `Store.apply`; one step for each 500 changes."""
        now, ahead = self._now(now), self._look_at_clock()
        changes: list[tuple[str, str, str]] = []
        problems: dict[str, str] = {}
        for key, ban in writes:
            try:
                if ban is None:
                    check_key(key)
                    changes.append((key, "-1", ""))
                elif in_force(ban, now):
                    changes.append((key, _left(ban.expires, now), write_record(key, shifted(ban, ahead))))
            except ValueError as error:
                problems[key] = str(error)
        first, rest = 0, iter(changes)
        while batch := list(islice(rest, BATCH)):
            position, passed = self._run(batch)
            first = first or position
            problems |= passed
        if problems:
            for key, what in problems.items():
                self._passed.note(f"{key[:80]!r} is not stored: {what}")
            raise RecordError(self.uri, problems, first)
        return first

    def set(self, ban: Ban, *, now: float | None = None) -> None:
        """See `Store.set`."""
        self.apply([(ban.key, ban)], now=now)

    def get(self, key: str, *, now: float | None = None) -> Ban | None:
        """See `Store.get`."""
        self._look_at_clock()
        (record,) = self._ask("MGET", self.prefix + store_name(key))  # GET fails where the value has another type
        ban = None if record is None else self._ban(key, record)
        return ban if ban is not None and in_force(ban, self._now(now)) else None

    def exists(self, key: str, *, now: float | None = None) -> bool:
        """See `Store.exists`."""
        return self.get(key, now=now) is not None

    def delete(self, key: str, *, now: float | None = None) -> bool:
        """See `Store.delete`."""
        existed = self.exists(key, now=now)
        self.apply([(key, None)], now=now)
        return existed

    def extend(self, key: str, expires: float | None, *, now: float | None = None) -> Ban | None:
        """See `Store.extend`."""
        now = self._now(now)
        ban = self.get(key, now=now)
        if ban is None:
            return None
        left = -2 - int(_left(expires, now))
        self._run([(key, str(left), write_record(key, shifted(replace(ban, expires=expires), self.ahead)))])
        return self.get(key, now=now)

    def scan(self, prefix: str = "", *, now: float | None = None) -> Iterator[Ban]:
        """See `Store.scan`; SCAN and MGET, so the server is never held up."""
        self._look_at_clock()
        now, cursor = self._now(now), 0
        pattern = "".join(f"\\{letter}" if letter in "*?[]\\" else letter for letter in self.prefix)
        pattern += f"{LABELS}*" if prefix.startswith(LABELS) else "ban:*"
        seen: set[str] = set()
        while True:
            cursor, names = self._ask("SCAN", cursor, "MATCH", pattern, "COUNT", CHUNK)
            keys = [key for name in names if (key := self._key_of(name)) is not None and key not in seen]
            seen.update(keys)
            keys = [key for key in keys if belongs(key, prefix)]
            names = [self.prefix + store_name(key) for key in keys]
            for key, name, record in zip(keys, names, self._ask("MGET", *names) if names else (), strict=True):
                if record is None:
                    self._look_at_type(name)
                    continue
                ban = self._ban(key, record)
                if ban is not None and in_force(ban, now):
                    yield ban
            if not int(cursor):
                return

    def watch(self, cursor: Cursor | None, *, timeout: float) -> Changes:
        """See `Store.watch`; XREAD waits on the server."""
        self._look_at_clock()
        name, here = self._state()
        if cursor is None:
            return Changes((), Cursor(name, here), "first")
        if cursor.store != name or cursor.position > here:
            return Changes((), Cursor(name, here), "replaced")
        if cursor.position < 0:
            return Changes((), Cursor(name, here), "trimmed")
        wait = max(1, min(int(timeout * 1000), int(TIMEOUT * 500)))
        after = f"{cursor.position}-0"
        try:
            found = self._ask("XREAD", "COUNT", CHUNK, "BLOCK", wait, "STREAMS", self._stream, after, reader=True)
        except StoreError as error:
            if "WRONGTYPE" not in str(error):
                raise
            self._passed.note(f"a value of another type is at {self._stream!r}; it is removed")
            self._ask("DEL", self._stream)
            return Changes((), Cursor(name, here), "trimmed")
        self._look_at_clock()  # before anything is read: this host's may have been set while it waited
        if not found:
            # Nothing came. If the numbers moved before we asked, the stream has lost them.
            return Changes((), Cursor(name, here), "trimmed") if here > cursor.position else Changes((), cursor)
        entries = next(iter(found.values())) if isinstance(found, dict) else found[0][1]
        changes, last, foreign = [], cursor.position, []
        for number, fields in entries[0] if isinstance(found, dict) else entries:
            position = _position(number, fields)
            if position != last + 1:
                foreign.append(number)
                continue
            last, key, record = position, fields["k"], fields["r"]
            ban = self._ban(key, record) if record else None
            if ban is not None or not record:
                changes.append(Change(position, key, ban))
        if foreign:
            return self._without(foreign, changes, cursor, Cursor(name, last))
        return Changes(changes, Cursor(name, last))

    def _without(self, foreign: list[str], changes: list[Change], cursor: Cursor, here: Cursor) -> Changes:
        """What was read before entries that do not follow: others wrote them, or what lay between was trimmed."""
        name, last = self._state()
        late = [number for number in foreign if not 0 < (_position(number, {"k": "", "r": ""}) or 0) <= last]
        for number in late:
            self._passed.note(f"entry {number} of {self._stream} is not ours; it is removed")
        if late:
            self._ask("XDEL", self._stream, *late)
        if name != cursor.store:
            return Changes((), Cursor(name, last), "replaced")
        return Changes(changes, here) if len(late) == len(foreign) else Changes((), Cursor(name, last), "trimmed")

    def purge(self, *, now: float | None = None) -> int:  # noqa: ARG002 - the server has a clock of its own
        """See `Store.purge`; the server does it."""
        return 0

    @property
    def unreadable(self) -> int:
        """See `Store.unreadable`."""
        return self._passed.count

    def check(self) -> None:
        """See `Store.check`."""
        try:
            self._ask("PING")
        except StoreAddressError:
            raise
        except StoreError:
            pass  # down now; whoever asks next learns it

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
        for _ in range(2):
            try:
                name, position = self._ask("HMGET", self._meta, "store", "seq")
            except StoreError as error:
                if "WRONGTYPE" not in str(error):
                    raise
                name, position = None, None
            if name is not None and str(position).isdecimal():
                return str(name), int(position)
            self._run([])  # which makes what is missing, and removes what others wrote there
        raise StoreError(f"{self.uri}: {self._meta} is written by others, too; give a prefix: ?prefix=app:")

    def _run(self, batch: list[tuple[str, str, str]]) -> tuple[int, Mapping[str, str]]:
        """Number of the first change after running the script for (key, milliseconds, record)s, and what was passed
        over by key."""
        names = [self.prefix + store_name(key) for key, _, _ in batch]
        words = [word for key, left, record in batch for word in (left, record, key)]
        done = self._ask(
            "EVAL", SCRIPT, len(names) + 2, self._meta, self._stream, *names, secrets.token_hex(8), KEPT, *words
        )
        return int(done[1]), {batch[at][0]: f"a value of another type is at {names[at]!r}" for at in done[2]}

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
                        encoding_errors="surrogateescape",
                    )
                    for _ in range(2)
                )
                self._refuse_cluster(one)
                self._clients, self._pid = (one, two), os.getpid()
            return self._clients

    def _refuse_cluster(self, client: redis.Redis) -> None:
        import redis

        facts: Any = {}
        with suppress(redis.ResponseError):  # a server that does not tell
            facts = client.execute_command("INFO", "cluster")  # type: ignore[no-untyped-call]
        if isinstance(facts, dict) and facts.get("cluster_enabled"):
            client.close()
            text = "is a Redis Cluster, where no server has all bans; give one server, with replicas if need be"
            raise StoreAddressError(f"{self.uri}: {text}")

    # ---- clocks

    def _now(self, now: float | None) -> float:
        if now is not None:
            return now
        return time.time() if self._clock is None else self._clock()

    def _look_at_clock(self) -> float:
        """Seconds that the server's clock is ahead of ours; 0.0 while they agree. Asks at most every 10 s, and at once
        when ours was set."""
        wall, steady = self._now(None), time.monotonic()
        if steady < self._looked + LOOK and abs(wall - steady - self._offset) < AGREE / 2:
            return self.ahead
        seconds, microseconds = self._ask("TIME")
        took = time.monotonic() - steady
        found = int(seconds) + int(microseconds) / 1e6 - wall - took / 2
        self._looked, self._offset = steady, wall - steady
        if abs(found - self.ahead) > AGREE / 2 + took:  # else a translation would move by what the network took
            before, self.ahead = self.ahead, (round(found, 3) if abs(found) > AGREE + took else 0.0)
            if self.ahead != before:
                log.warning(
                    "%s: the server's clock is %+.1f s from this host's; times are translated", self.uri, self.ahead
                )
        return self.ahead

    # ---- what others may have written

    def _key_of(self, name: str) -> str | None:
        try:
            return key_of_name(name[len(self.prefix) :])
        except ValueError as error:
            self._passed.note(f"{name[:80]!r} is not the name of a ban: {error}")
            return None

    def _look_at_type(self, name: str) -> None:
        if (kind := self._ask("TYPE", name)) not in {"none", "string"}:
            self._passed.note(f"{name!r} has a value of type {kind}, which is not a ban")

    def _ban(self, key: str, record: str) -> Ban | None:
        """The ban in a record, in this host's time; None for one that cannot be read, which is counted and logged."""
        try:
            return shifted(read_record(key, record), -self.ahead)
        except ValueError as error:
            self._passed.note(error)
            return None


def _left(expires: float | None, now: float) -> str:
    """Milliseconds to live, rounded up; 0 for good."""
    left = 0 if expires is None else max(1, math.ceil(min((expires - now) * 1000, FOREVER)))
    return "0" if left >= FOREVER else str(left)


def _position(number: str, fields: Mapping[str, str]) -> int | None:
    """The position of an entry that is ours."""
    milliseconds, _, within = number.partition("-")
    return int(milliseconds) if within == "0" and "k" in fields and "r" in fields else None


def _with_query(place: str, query: list[tuple[str, str]]) -> str:
    return f"{place}?{urlencode(query)}" if query else place
