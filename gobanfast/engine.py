"""Engine: a ruleset in force with its live state. The hot-path calls are in `_core.engine_core`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from gobanfast._core.decision import Decision
from gobanfast._core.engine_core import EngineCore, EngineState
from gobanfast._dataclass import dataclass
from gobanfast._errors import GobanError
from gobanfast.bans import DEFAULT_DURATION, ban_key, label_key, label_word, too_wide
from gobanfast.rules.rule import PrefixList
from gobanfast.spared import Spared

if TYPE_CHECKING:
    from datetime import timedelta
    from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
    from logging import Logger

    from gobanfast._core.headers import HeaderPairs
    from gobanfast._core.label_table import LabelTable
    from gobanfast.asn import AsnTable
    from gobanfast.bans import Ban, Label
    from gobanfast.batch.columns import Columns
    from gobanfast.ladder import Climber, Step
    from gobanfast.reload.decision_diff import Budget
    from gobanfast.reload.watch import Watcher
    from gobanfast.rules import Ruleset
    from gobanfast.rules.check.rules_diff import Change
    from gobanfast.rules.settings import Settings
    from gobanfast.stores import Store, Sync

    Key = str | IPv4Address | IPv6Address | IPv4Network | IPv6Network


@dataclass(frozen=True, eq=False)
class Swap:
    """One change of rules, as the callables in `Engine.on_swap` get it. It keeps both rulesets alive.

    Attributes:
        before, snapshot: what was in force, and what is.
    """

    before: EngineState
    snapshot: EngineState

    @property
    def generation(self) -> int:
        """That of the new rules."""
        return self.snapshot.generation

    @property
    def content_hash(self) -> str:
        """That of the new rules."""
        return self.snapshot.compiled.content_hash

    def changes(self) -> tuple[Change, ...]:
        """Rules that were added, changed and removed, by id, and what else differs: `gobanfast.rules.check.rules_diff`.

        Cost: worked out at each call; sets of all entries of lists that differ.
        """
        from gobanfast.rules.check.rules_diff import changes

        return tuple(changes(self.before.ruleset, self.snapshot.ruleset))


class LimitCount(NamedTuple):
    """Where a key stands with a limit: whether one more is let in, how many are left, and seconds until one is, and
    until all are."""

    admitted: bool
    left: int
    wait: float
    reset: float


class Engine(EngineCore):
    """A ruleset in force: `decide` answers, `swap` replaces the rules under running traffic.

    Args:
        ruleset: what to enforce.
        clock: engine seconds, a number that does not go backwards; None: time.monotonic.
        seed: stands for the random keys of trackers and score and for the jitter of bans, so that a replay repeats to
            the bit. Who knows it can aim at their hash tables: leave it to be drawn where traffic is not your own.
    Attributes:
        snapshot: all that a swap replaces: compiled rules, ruleset, settings, trust, generation, trackers and score.
        ban_table: the bans, which outlive swaps; `ban_table.changes` says what changed in it.
        on_swap: list of callables; append one to be called with a `Swap` each time that other rules are in force. They
            run in the thread that swapped; what they raise is logged by "gobanfast.rules", and stops neither the swap
            nor the others. Of swaps in several threads, or made by one of them, a callable may hear in any order: the
            highest `generation` is in force.
    Threads: any number may decide while another swaps; each decision is made by one ruleset,
        old or new, never a mixture.
    """

    __slots__ = ("__weakref__", "_boot_problems", "_climber", "rate_control", "sync", "watcher")

    ruleset = EngineCore.ruleset

    watcher: Watcher | None
    sync: Sync | None
    rate_control: object
    _boot_problems: tuple[str, ...]
    _climber: Climber | None

    def __new__(
        cls, ruleset: Ruleset | None = None, *_: object, clock: Callable[[], float] | None = None,
        seed: bytes | None = None, **__: object,
    ) -> Self:  # fmt: skip
        given = _ready(ruleset)
        engine = super().__new__(cls, given.compiled, given.settings, clock, seed, given)
        engine.watcher = engine.sync = engine.rate_control = None
        engine._boot_problems = ()
        engine._climber = None
        engine.snapshot.keep_spared(_spared(given))
        return engine

    def __init__(
        self, ruleset: Ruleset, *, clock: Callable[[], float] | None = None, seed: bytes | None = None
    ) -> None:
        """Nothing more: an engine is whole once `__new__` has made it, so that none can be had without rules."""

    @classmethod
    def load(
        cls, path: str | PathLike[str], *, asn: AsnTable | str | PathLike[str] | None = None,
        last_good: str | PathLike[str] | None = None, store: Store | str | None = None,
    ) -> Engine:  # fmt: skip
        """Engine for the rules file at `path`; its inline tests are run.

        Args:
            path: rules in YAML, or compiled.
            asn: origin AS of every address, or the file it is in (MMDB, CSV, compiled); None takes the file that
                GOBANFAST_ASN names, else geoip.asn.mmdb beside `path`, else the starter table of well-known networks.
            last_good: where the compiled rules are kept. While they are those of `path` they are loaded in place of
                compiling it; when `path` is broken they are in force instead, `status()` says so, and the log.
            store: where bans outlive the process and meet those of other workers, or its URI: see `gobanfast.stores`.
        Raises:
            RuleError: with every problem of the file, or every inline test that fails.
            FormatError: a compiled file, or an AS table, that cannot be used. OSError: an AS table cannot be opened.
        """
        from gobanfast.asn.source import AsnSource
        from gobanfast.reload.loader import load_or_last_good

        ruleset, problems = load_or_last_good(path, networks=AsnSource(asn, rules=path), last_good=last_good)
        engine = cls(ruleset)
        engine._boot_problems = problems
        if store is not None:
            from gobanfast.stores import attach

            attach(engine, store)
        return engine

    def swap(self, ruleset: Ruleset) -> None:
        """Puts `ruleset` in force; compiling it happens before, in the calling thread. `generation` grows by one.

        Rules, settings, trust and ruleset change by one reference, `snapshot`: whoever sees the new rules sees all of
        it. Then the callables in `on_swap` are called. The ban table keeps its size until a restart: another
        `bans: {capacity}` is logged as a warning. Whatever this raises, nothing has changed.

        Raises:
            FormatError: the prefixes under `trust:` of a compiled file are damaged.
            ValueError, MemoryError, OverflowError: live state that the settings ask for cannot be made; a key of
                `session:` is not where it is said to be, or there is none beside a store.
        """
        if self.sync is not None:
            check_session_keys(_ready(ruleset).settings)
        before, now = self._swap(_ready(ruleset).compiled, ruleset.settings, ruleset)
        now.keep_spared(_spared(ruleset))
        _warn_of_capacity(ruleset, self.ban_table.capacity)
        if self.on_swap:
            swap = Swap(before, now)
            for observer in tuple(self.on_swap):
                try:
                    observer(swap)
                except Exception:  # noqa: BLE001 - the rules are in force, whatever becomes of those who watch
                    _log().exception("generation %d: a callable in on_swap failed", now.generation)

    def watch(
        self, path: str | PathLike[str], *, asn: AsnTable | str | PathLike[str] | None = None,
        last_good: str | PathLike[str] | None = None, budget: Budget | None = None, interval: float = 1.0,
    ) -> Watcher:  # fmt: skip
        """Follows the rules file at `path`, all it names, and the file of the AS table, in a thread it starts.

        Args:
            path, asn, last_good: as for `load`; the same as there.
            budget: puts every change on trial beside the rules in force before it takes their place.
            interval: seconds between looks at the files, besides what the watchfiles package (extra `watch`) notices.
        Feeds that the rules name are fetched when they are due. A forked child follows on its own.
        `status()` and the logger "gobanfast.rules" tell what happens; `close` the
        watcher to end it.
        """
        from gobanfast.reload.watch import Watcher

        if self.watcher is not None:
            self.watcher.close()
        watcher = Watcher(self, path, asn=asn, last_good=last_good, budget=budget, interval=interval)
        if self._boot_problems:
            watcher.mark_stale(self._boot_problems)
        self.watcher = watcher
        watcher.start()
        from gobanfast.enrich.feeds import FeedRefresher

        refresher = FeedRefresher(self, path)
        watcher.on_close.append(refresher.close)
        refresher.start()
        return watcher

    def count(
        self, name: str, *, key: str | bytes, ok: bool | None = None, cost: int = 1, now: float | None = None
    ) -> LimitCount:
        """Where `key` stands with the limit `name` of the rules, whose `key` is `given`, after what became of it.

        Args:
            key: what to count by, such as a user and the client together: a user alone lets anybody lock others out.
            ok: False: it failed, which counts; True: it succeeded, which forgets its failures; None: only look.
            cost: how many a failure counts for.
            now: engine seconds, for replay; None reads the engine's clock.
        Raises:
            ValueError: the rules have no limit of this name, or it counts requests by itself.
        """
        limits = self.snapshot.limits
        if limits is None:
            raise ValueError(f"limit {name!r} is not in the rules, which have none")
        place = limits.place(name)
        if limits.key(place) != "given":
            raise ValueError(f"limit {name!r} counts by {limits.key(place)}; write key: given in the rules")
        step = "look" if ok is None else "clear" if ok else "count"
        text = key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key
        admitted, _, left, wait, reset = limits.given(place, text, step, cost, self.seconds(now))
        return LimitCount(
            admitted if ok is None else left > 0, left, reset if ok is False and not left else wait, reset
        )

    def status(self) -> dict[str, Any]:
        """What is in force, and whether it is what the files say, as JSON values."""
        watcher, snapshot = self.watcher, self.snapshot
        problems = self._boot_problems if watcher is None else watcher.problems
        return {
            "generation": snapshot.generation,
            "content_hash": snapshot.ruleset.content_hash,
            "source": snapshot.ruleset.source,
            "rules": len(snapshot.ruleset.rules),
            "warnings": len(snapshot.ruleset.problems),
            "stale": bool(problems),
            "problems": list(problems),
            "reload": None if watcher is None else watcher.status(),
            "store": None if self.sync is None else self.sync.health(),
            "asn": _networks(snapshot.ruleset),
            "feeds": self._feed_status(),
        }

    def _feed_status(self) -> list[dict[str, Any]]:
        """Entries, age and failures of each feed that the rules name."""
        ruleset = self.snapshot.ruleset
        if not ruleset.settings.feeds:
            return []
        import time

        from gobanfast.enrich.feeds import status_of
        from gobanfast.rules.feed_cache import folder_of

        return status_of(ruleset.settings.feeds, folder_of(ruleset.source), time.time())

    def decide_packed(self, packed: bytes, /, **signals: Any) -> Decision:
        """What `decide` says about the address in `packed`: 4 bytes, or 16 in network order (IPv4 mapped or not).

        Args:
            signals: as for `decide`.
        Raises:
            ValueError: neither 4 nor 16 bytes.
        Cost: that of `decide`, and of making the text that the decision shows: less than a microsecond.
        """
        from gobanfast._core.address import format_address

        if len(packed) not in {4, 16}:
            raise ValueError(f"a packed address has 4 or 16 bytes, not {len(packed)}")
        return self.decide(format_address(packed if len(packed) == 16 else bytes(10) + b"\xff\xff" + packed), **signals)

    def decide_many(
        self, addresses: Any, /, *, sni: Any = None, ja4: Any = None, headers: Mapping[str, Any] | None = None,
        method: Any = None, path: Any = None, fingerprint: Any = None, shape: Any = None, mount: str = "",
        origin: Any = None, host: Any = None, scheme: Any = None,
    ) -> Columns:  # fmt: skip
        """Columns of answers, one a row, by the rules alone: bans, trackers and scores are neither asked nor told.

        A row is decided as `peek` decides a request of which as much is known: without a column name and JA4 are
        absent, and headers, method, path, fingerprint and shape are unknown, so that no condition on them holds.

        Args:
            addresses: uint32 (IPv4, host order), n x 16 bytes (network order, IPv4 mapped), list of str, NumPy strings,
                or an Arrow array or stream of strings, uint32 or 16-byte values, through the PyCapsule interface.
            sni: as many server names, in any form that `NameTable.lookup_many` takes; null is absent.
            ja4: JA4s of connections without a hello (str or bytes: lists, NumPy, Arrow); null is absent.
            headers: columns of values (str as UTF-8, or bytes: lists, NumPy, Arrow) by header name; null is absent.
                A value that no header can have makes all headers of its row malformed.
            method, path: such columns, too; null is unknown.
            mount: of all rows, as for `decide`.
            origin, host: columns of these headers, short for `headers`. A row has an Origin where `origin` is not null.
            scheme: a column of http, https, ws and wss, which say the default port of `host`; null is unknown.
            fingerprint: n x 16 bytes (the digits of "gh2:", as bytes), or a column of "gh2:..." texts; null is unknown.
                Without this column it is unknown, whatever headers there are.
            shape: the same of "gs1:".
        Columns that no rule asks for are not read.
        Raises:
            ValueError: columns of different lengths, a header that is none, a fingerprint or shape that is none;
            TypeError: a column of another type.
        Cost: 3 to 30 ns a row for addresses, 40 to 100 ns more with names, 10 to 20 with fingerprints in bytes, 20 to
            50 for every other column, and microseconds for each distinct value and for each preflight. Columns of
            addresses, names and fingerprints in bytes are read detached from the interpreter.
        Source: csrc/DESIGN.md, "Columns".
        """
        from gobanfast.batch.columns import decide_columns

        return decide_columns(
            self, addresses, sni=sni, ja4=ja4, headers=headers, method=method, path=path, fingerprint=fingerprint,
            shape=shape, mount=mount, origin=origin, host=host, scheme=scheme,
        )  # fmt: skip

    def replay(
        self, addresses: Any, /, *, times: Any, sni: Any = None, ja4: Any = None,
        headers: Iterable[HeaderPairs | None] | None = None, method: Any = None, path: Any = None, mount: str = "",
        host: Any = None, scheme: Any = None,
    ) -> Columns:  # fmt: skip
        """Columns of what `decide` answers, row after row, each at its own time: bans, trackers and score take part.

        It is traffic at `times` to this engine, with all that follows: give a replay an engine of its own, with a
        `clock` that starts no later, and a `seed` when it must repeat.

        Args:
            addresses, sni, ja4, method, path, mount: as for `decide_many`.
            times: engine seconds, float64, that do not go back.
            headers: headers of each request, as for `decide`.
            host, scheme: columns of what `decide` takes under these names.
        Raises:
            ValueError: columns of different lengths, times that go back: nothing is decided then.
            TypeError: headers of another type; RuntimeError: the rules were replaced. The rows before are decided.
        Cost: that of `decide`, and a microsecond a row.
        Source: csrc/DESIGN.md, "Columns".
        """
        from gobanfast.batch.columns import replay_columns

        return replay_columns(
            self, addresses, times=times, sni=sni, ja4=ja4, headers=headers, method=method, path=path, mount=mount,
            host=host, scheme=scheme,
        )  # fmt: skip

    def ban(
        self, key: Key, *, duration: str | float | timedelta | None = DEFAULT_DURATION, reason: str = "",
        wide: bool = False, force: bool = False, now: float | None = None,
    ) -> Ban:  # fmt: skip
        """Bans `key`, and returns the ban as it now stands.

        Args:
            key: address, prefix, AS number, fingerprint, fingerprint at a client, or user (`uid:42`); see
                `gobanfast.bans.ban_key`. An IPv6 address is banned alone; its client is its /64:
                `gobanfast.bans.client_key`. Objects of the module ipaddress are taken, too.
            duration: seconds, a timedelta, or text such as "1h30m"; None and "permanent" are for good. A ban is never
                shortened.
            wide: True takes a key that keeps out more than clients, too: see `gobanfast.bans.too_wide`. Proxies are
                those of the ruleset's `trust:`.
            force: True bans this host itself, too: its addresses and gateway, who is logged in to it from elsewhere,
                proxies, and what `bans: protect:` names.
        Raises:
            ValueError: a key or duration that is none; a wide key, or one's own. TypeError: a key that is no text, as
                an AS number alone.
            GobanError: the table is full and has no room for this ban: policy `on_full` is "refuse", or it is "evict"
                and all others last longer. Counted as `refused` in `ban_table.stats()`.
        """
        text = _key_text(key)
        if not wide and (problem := too_wide(ban_key(text), trusted=self.ruleset.trust)) is not None:
            raise ValueError(f"{problem}; if that is meant, say wide=True")
        if not force and (problem := self.spares(text)) is not None:
            raise ValueError(f"{problem}; if that is meant, say force=True")
        seconds = _seconds(duration)
        made = self.ban_table.ban(text, duration=seconds, reason=reason, now=now)
        if made is None:
            full = f"the table is full with {len(self.ban_table)} bans"
            raise GobanError(f"{key} is not banned: {full}; raise bans: capacity, or lift some")
        return made

    def spares(self, key: Key) -> str | None:
        """Why a ban of this key would keep out this host itself, or who runs it; None: it would not.

        Cost: milliseconds, for reading the addresses of this host and asking who is logged in.
        """
        bans = self.ruleset.settings.bans
        return Spared(bans.protect, PrefixList(b"", b"")).why(ban_key(_key_text(key)))

    def others_in(self, prefix: str, banned: Iterable[str] = (), *, now: float | None = None) -> int | None:
        """How many clients of a prefix were let in within the last hour, without those that `banned` lists; None:
        nobody knows. Counted where `bans: ladder:` is on, by this process.

        Of a prefix within a /24, or an IPv6 /48, all of that are counted.
        """
        crowd = self.snapshot.crowd
        return None if crowd is None else crowd.count(prefix, banned, now=self.seconds(now))

    def climb(self, *, now: float | None = None) -> list[Step]:
        """Lets bans of clients grow into those of networks, as `bans: ladder:` says; what became of each that was due.
        A thread does so after each ban that a decision makes."""
        return self._follower().climb(self.seconds(now))

    def _climb(self, now: float) -> None:
        self._follower().wake(now)

    def _follower(self) -> Climber:
        if self._climber is None:
            from gobanfast.ladder import Climber

            self._climber = Climber(self)
        return self._climber

    def unban(self, key: Key, *, now: float | None = None) -> Ban | None:
        """The ban of exactly this key, now lifted; None when there was none.

        Of a client the trackers forget what it did, or its next request would ban it again.
        """
        lifted = self.ban_table.unban(_key_text(key), now=now)
        trackers = self.snapshot.trackers
        if lifted is not None and trackers is not None and not lifted.key.startswith(("AS", "gh2:", "uid:")):
            trackers.forget(lifted.key.partition("/")[0])
        return lifted

    def bans(self, *, now: float | None = None) -> Iterator[Ban]:
        """The bans in force, in no order. A ban that an `allow` rule masks is among them: it holds again without it."""
        return self.ban_table.bans(now=now)

    def label(
        self, key: Key, word: str, *, duration: str | float | timedelta | None = DEFAULT_DURATION, reason: str = "",
        now: float | None = None,
    ) -> Label:  # fmt: skip
        """Puts the label `word` on `key`, where conditions `label:` test it; the label as it now stands.

        Args:
            key: as for `ban`, or a session; see `gobanfast.bans.label_key`.
            word: up to 32 of a-z, 0-9, '.', '_' and '-'.
            duration: as for `ban`; a label in force is never shortened: `unlabel` first.
        Raises:
            ValueError: a key, word or duration that is none. TypeError: a key that is no text.
            GobanError: the table is full, or the key has 64 words. Counted as `refused` in `label_table.stats()`.
        """
        text = label_key(_key_text(key))
        made = self.label_table.add(text, label_word(word), duration=_seconds(duration), reason=reason, now=now)
        if made is None:
            full = f"there are {len(self.label_table)} labels, and a key has at most 64"
            raise GobanError(f"{text} is not labelled: {full}; raise labels: capacity, or take some off")
        return made

    def unlabel(self, key: Key, word: str, *, now: float | None = None) -> Label | None:
        """The label that exactly this key carried, and does not any more; None when there was none."""
        return self.label_table.remove(label_key(_key_text(key)), label_word(word), now=now)

    @property
    def label_table(self) -> LabelTable:
        """The labels, which outlive swaps. What changed in them, `ban_table.changes(..., labels=True)` says."""
        return self.ban_table.labels

    def labels(self, *, now: float | None = None) -> Iterator[Label]:
        """The labels in force, in no order."""
        return self.label_table.labels(now=now)

    def session_key(self, value: str | bytes) -> str:
        """The key of the session with this value, as the cookie, header or query has it: a hash under the first of the
        `session: keys`. The value itself is kept nowhere.

        Raises:
            ValueError: the rules have no `session:`, or the value is empty or longer than 4,096 bytes.
        """
        return self.snapshot.session_key(value)

    def revoke_session(
        self, value: str | bytes, *, duration: str | float | timedelta | None = "7d", reason: str = "",
        now: float | None = None,
    ) -> Label:  # fmt: skip
        """Puts the label `revoked` on the session with this value, in every process and host that shares the store.

        It is no ban: its open streams end, and rules decide what it may do, such as to reach the login page. Let
        `duration` be as long as a session can last.
        """
        return self.label(self.session_key(value), "revoked", duration=duration, reason=reason, now=now)

    def __repr__(self) -> str:
        now = self.snapshot
        return f"<Engine generation {now.generation} of {now.ruleset!r}, {len(self.ban_table)} bans>"

    def explain(self, decision: Decision) -> str:
        """Lines that say which rule decided, where it stands, on which signals, and what would change the answer."""
        from gobanfast.rules.check.explain import explain

        if not isinstance(decision, Decision):
            raise TypeError(f"explain takes a Decision; write engine.explain(engine.peek({decision!r:.60}))")

        return explain(decision)


def _networks(ruleset: Ruleset) -> str:
    """The AS table that rules were compiled over: "starter", or the file it was read from."""
    from gobanfast.asn import AsnTable

    return "starter" if ruleset.made_over == AsnTable.starter().content_hash else ruleset.asn.source


def check_session_keys(settings: Settings) -> None:
    """Raises ValueError for sessions that are hashed under a key of this process alone, beside a store."""
    if settings.session is not None and settings.session.sources and not settings.session.keys:
        raise ValueError(
            "session: has no keys, so what a store says of a session is about one of this process only; "
            "write keys: [env:GOBANFAST_SESSION_KEY]"
        )


def _log() -> Logger:
    import logging

    return logging.getLogger("gobanfast.rules")


def _warn_of_capacity(ruleset: Ruleset, capacity: int) -> None:
    """Logs that a ban table of another size is asked for than the one in use."""
    asked = ruleset.settings.bans.capacity
    if asked != capacity:
        text = "%s: bans: capacity: %d takes effect at the next start; the ban table keeps room for %d until then"
        _log().warning(text, ruleset.source, asked, capacity)


def _key_text(key: object) -> str:
    """The text of a key; TypeError for a number, which could be an address or an AS."""
    if isinstance(key, str):
        return key
    from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

    if isinstance(key, (IPv4Address, IPv6Address, IPv4Network, IPv6Network)):
        return str(key)
    hint = f"'AS{key}' for an AS" if isinstance(key, int) else "a text such as '192.0.2.1'"
    raise TypeError(f"key is {key!r:.60}, {type(key).__name__} and not str; write {hint}")


def _seconds(duration: str | float | timedelta | None) -> float | None:
    if duration is None or isinstance(duration, (int, float)):
        return duration
    if isinstance(duration, str):
        from gobanfast._values import parse_duration

        return parse_duration(duration)
    from datetime import timedelta

    return duration.total_seconds() if isinstance(duration, timedelta) else duration


def _ready(ruleset: object) -> Ruleset:
    """The ruleset, its trust read; TypeError for the path of one, or none."""
    if isinstance(ruleset, (str, PathLike)):
        raise TypeError(f"ruleset is {ruleset!r}, the path of one; load it: Engine.load({ruleset!r}) or Ruleset.load")
    from gobanfast.rules import Ruleset

    if not isinstance(ruleset, Ruleset):
        raise TypeError(f"an Engine comes from Engine(ruleset) or Engine.load(path), not from {ruleset!r:.100}")
    _ = ruleset._trusted  # here and not beside a request: a compiled file's may be damaged
    return ruleset


def _spared(ruleset: Ruleset) -> Spared:
    return Spared(ruleset.settings.bans.protect, ruleset.trust)
