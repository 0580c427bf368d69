"""Backtest of candidate rules: whom they would have refused, who of those looks innocent, what each rule adds."""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from gobanfast._core.address import parse_address
from gobanfast._core.headers import PartialHeaders
from gobanfast.batch import json_lines
from gobanfast.batch.coverage import Coverage, not_replayable
from gobanfast.batch.partition import client_key, not_partitioned
from gobanfast.batch.timeline import Timeline

if TYPE_CHECKING:
    from gobanfast._core.decision import Decision
    from gobanfast._core.engine_core import EngineCore
    from gobanfast._core.prefix_set import PrefixSet
    from gobanfast.batch.logs import LogFile
    from gobanfast.rules import Ruleset

REFUSED = ("ban", "limit")
HISTORY_LINES, HISTORY_SECONDS, HISTORY_ERRORS = 20, 6 * 3600.0, 0.05
MOST_CLIENTS = 1_000_000
Z = 1.959964  # of a 95 % interval

_STATUS = re.compile(r'" (\d{3}) (?:\d+|-)')
_STATUS_KEYS = ("status", "response_status", "DownstreamStatus")
_USER_KEYS = ("remote_user", "user", "user_id")
_USER = re.compile(r"\S+ \S+ (\S+) \[\d")


class Event(NamedTuple):
    """One old request: `time` in Unix seconds; None where the source does not say."""

    time: float
    address: str
    headers: PartialHeaders | None = None
    status: int | None = None
    user: str | None = None
    held: frozenset[str] = frozenset()
    source: str = ""


@dataclass(slots=True)
class Effect:
    """What one rule, tracker or other cause of the candidate would have done.

    Attributes:
        lines, clients: refused or challenged by it.
        first: seconds from a client's first line to the first that it refused: median, over its clients.
        good_clients: of its clients, those that look good.
        only_lines: lines that nothing else of the candidate matched (`Decision.matched`): what it adds over the others.
        only_clients: clients that nothing else refused or challenged.
        new_lines: lines that the current rules let in.
    """

    id: str
    cause: str
    action: str
    lines: int = 0
    clients: int = 0
    first: float | None = None
    good_clients: int = 0
    only_lines: int = 0
    only_clients: int = 0
    new_lines: int = 0


@dataclass(slots=True)
class Backtest:
    """The result; see `backtest`. Shares are of clients; `collateral_interval`, of 95 %, is there for a sample."""

    lines: int = 0
    bad: int = 0
    clients: int = 0
    sample: float = 1.0
    partitions: int = 1
    actions: dict[str, int] = field(default_factory=dict)
    was: dict[str, int] = field(default_factory=dict)
    effects: list[Effect] = field(default_factory=list)
    good: dict[str, int] = field(default_factory=dict)
    good_clients: int = 0
    good_refused: int = 0
    good_challenged: int = 0
    collateral: float = 0.0
    collateral_interval: tuple[float, float] | None = None
    collateral_networks: list[tuple[int | None, int]] = field(default_factory=list)
    overlap: list[tuple[str, str, int]] = field(default_factory=list)
    not_judged: dict[str, int] = field(default_factory=dict)
    not_asked: list[str] = field(default_factory=list)
    late: int = 0
    clients_exact: bool = True

    def over(self, percent: float) -> str | None:
        """Why the collateral is over a budget of so many percent of the clients that look good, or cannot be held
        against it; else None. Of a sample the upper end of the interval counts."""
        if not self.good_clients:
            return "the budget cannot be judged: no client of these logs looks good (--good names some)"
        worst = self.collateral if self.collateral_interval is None else self.collateral_interval[1]
        if worst <= percent / 100:
            return None
        return (
            f"{self.good_refused} of {self.good_clients} clients that look good would have been refused: "
            f"{100 * worst:.3g}% is over the budget of {percent:g}%"
        )

    def members(self) -> dict[str, Any]:
        """The result as JSON members."""
        return asdict(self)


class _Client:
    __slots__ = ("asn", "errors", "first", "good", "last", "lines", "met", "user")

    def __init__(self, first: float) -> None:
        self.first = self.last = first
        self.lines = self.errors = 0
        self.user = False
        self.good: str | None = None
        self.asn: int | None = None
        self.met: dict[tuple[str, str, str], float] = {}  # effect -> time of the first line

    def reason(self) -> str | None:
        """Why it looks good; None: it does not."""
        if self.good is not None:
            return self.good
        if self.user:
            return "logged in"
        if (
            self.lines >= HISTORY_LINES and self.last - self.first >= HISTORY_SECONDS
            and self.errors <= HISTORY_ERRORS * self.lines
        ):  # fmt: skip
            return "long good history"
        return None


def backtest(
    candidate: Ruleset, events: Iterable[Event], *, current: Ruleset | None = None, good: PrefixSet | None = None,
    partitions: int = 1, sample: float = 1.0, mount: str = "",
) -> Backtest:  # fmt: skip
    """What candidate rules would have done to old requests, with bans and trackers, each request at its own time.

    A client looks good when it is in `good` (solved challenges, customers), when a line of it has a user and no error,
    when an allow rule of the current rules let it in (verified crawlers), or when it has a long good history: 20
    lines over six hours, of which at most 5 % are errors. Refused is ban and limit; challenges are counted apart.

    Args:
        events: in order of time (`log_events`, `table_events`). One that is older than the one before it is decided at
            that one's time.
        current: the rules in force; None: nothing was refused until now.
        partitions: engines, of which each gets the clients that hash to it. The result is the same for any number where
            state is kept by client alone.
        sample: the fraction of clients that is looked at, by hash, so that what is kept by client stays exact.
    Raises:
        ValueError: partitions and rules whose state is not kept by client; the message names the parts.
    Cost: some 10 us a line beside reading; memory for MOST_CLIENTS clients.
    """
    if partitions > 1 and (odd := not_partitioned(candidate)):
        raise ValueError(f"not kept by client alone, so no partition knows it: {', '.join(odd)}; use one partition")
    run = _Run(candidate, current, good, partitions, sample, mount)
    for event in events:
        run.add(event)
    return run.result()


class _Run:
    def __init__(
        self,
        candidate: Ruleset,
        current: Ruleset | None,
        good: PrefixSet | None,
        partitions: int,
        sample: float,
        mount: str,
    ) -> None:
        self.candidate, self.good, self.sample, self.mount = candidate, good, sample, mount
        self.engines = [_engine(candidate) for _ in range(partitions)]
        self.before = None if current is None else [_engine(current) for _ in range(partitions)]
        self.ipv6 = candidate.settings.bans.ipv6_client
        self.found = Backtest(sample=sample, partitions=partitions)
        self.found.not_asked = not_replayable(candidate.settings)
        self.coverage = Coverage(candidate.rules)
        self.clients: dict[str, _Client] = {}
        self.effects: dict[tuple[str, str, str], Effect] = {}
        self.actions: Counter[str] = Counter()
        self.was: Counter[str] = Counter()
        self.overlap: Counter[tuple[str, str]] = Counter()
        self.base = self.now = float("-inf")
        self.restrictive = {rule.id for rule in candidate.compiled.rules if rule.action in {"ban", "challenge"}}

    def add(self, event: Event) -> None:
        found = self.found
        if event.time > self.now:
            self.now = event.time
            self.base = self.now if self.base == float("-inf") else self.base
        elif event.time < self.now:
            found.late += 1
        if parse_address(event.address) is None:
            found.bad += 1
            return
        key = client_key(event.address, self.ipv6)
        hashed = zlib.crc32(key.encode())
        if self.sample < 1 and (hashed * 0x9E3779B1 & 0xFFFFFFFF) >= self.sample * 2**32:
            return
        found.lines += 1
        seconds = 0.0 if self.base == float("-inf") else self.now - self.base
        which = hashed % len(self.engines)
        made = self.engines[which].decide(event.address, headers=event.headers, now=seconds, mount=self.mount)
        old = None
        if self.before is not None:
            old = self.before[which].decide(event.address, headers=event.headers, now=seconds, mount=self.mount)
            self.was[old.action] += 1
        self.actions[made.action] += 1
        self.coverage.hold(event.source, event.held)
        client = self.clients.get(key)
        if client is None:
            if len(self.clients) >= MOST_CLIENTS:
                found.clients_exact = False
                client = _Client(self.now)
            else:
                client = self.clients[key] = _Client(self.now)
        self._take(client, event, made, old)

    def _take(self, client: _Client, event: Event, made: Decision, old: Decision | None) -> None:
        client.lines += 1
        client.last = self.now
        error = event.status is not None and event.status >= 400
        client.errors += error
        client.user |= event.user is not None and not error
        client.asn = made.asn
        if client.good is None and self.good is not None and event.address in self.good:
            client.good = "named good"
        elif client.good is None and old is not None and old.action == "allow" and old.cause == "rule":
            client.good = f"allowed by {old.rule}"
        if made.action == "allow":
            return
        name = (made.rule or f"({made.cause})", made.cause, made.action)
        effect = self.effects.get(name)
        if effect is None:
            effect = self.effects[name] = Effect(*name)
        effect.lines += 1
        effect.new_lines += old is None or old.action == "allow"
        client.met.setdefault(name, self.now)
        matched = [rule for rule in made.matched if rule in self.restrictive]
        effect.only_lines += not [rule for rule in matched if rule != made.rule]
        for one, rule in enumerate(matched):
            for other in matched[one + 1 :]:
                self.overlap[min(rule, other), max(rule, other)] += 1

    def result(self) -> Backtest:
        found = self.found
        waits: dict[tuple[str, str, str], list[float]] = {name: [] for name in self.effects}
        reasons: Counter[str] = Counter()
        networks: Counter[int | None] = Counter()
        for client in self.clients.values():
            reason = client.reason()
            if reason is not None:
                reasons[reason] += 1
                found.good_refused += any(action in REFUSED for _, _, action in client.met)
                found.good_challenged += any(action == "challenge" for _, _, action in client.met)
                networks[client.asn] += any(action in REFUSED for _, _, action in client.met)
            for name, first in client.met.items():
                effect = self.effects[name]
                effect.clients += 1
                effect.good_clients += reason is not None
                effect.only_clients += {other[0] for other in client.met} == {name[0]}
                waits[name].append(first - client.first)
        for name, seconds in waits.items():
            seconds.sort()
            wait = seconds[len(seconds) // 2] if seconds else None
            self.effects[name].first = None if wait is None or math.isnan(wait) else wait
        found.clients, found.good_clients = len(self.clients), reasons.total()
        found.good = dict(reasons.most_common())
        found.actions, found.was = dict(self.actions.most_common()), dict(self.was.most_common())
        found.effects = sorted(self.effects.values(), key=lambda effect: (-effect.lines, effect.id, effect.action))
        found.collateral_networks = [(asn, count) for asn, count in networks.most_common(10) if count]
        found.overlap = [(one, other, lines) for (one, other), lines in self.overlap.most_common()]
        found.not_judged = {rule.id: lines for rule in self.candidate.rules if (lines := self.coverage.lacking(rule))}
        if found.good_clients:
            found.collateral = found.good_refused / found.good_clients
            if self.sample < 1:
                found.collateral_interval = wilson(found.good_refused, found.good_clients)
        return found


def wilson(hits: int, total: int) -> tuple[float, float]:
    """The 95 % score interval of a share."""
    share, square = hits / total, Z * Z
    middle = (share + square / (2 * total)) / (1 + square / total)
    half = Z * math.sqrt(share * (1 - share) / total + square / (4 * total * total)) / (1 + square / total)
    return max(0.0, middle - half), min(1.0, middle + half)


def _engine(ruleset: Ruleset) -> EngineCore:
    from gobanfast._core.engine_core import EngineCore

    return EngineCore(ruleset.compiled, ruleset.settings, lambda: 0.0)


# ---- sources


def log_events(logs: Iterable[LogFile]) -> Iterator[Event]:
    """The lines of logs in order of time, which are opened with `times`. Lines without an address have "" there."""
    for row in Timeline(logs):
        status, user = _facts(row.text)
        address = row.address if row.fault is None else ""
        yield Event(row.time, address, row.request.headers, status, user, row.request.held, row.source)


def _facts(line: str) -> tuple[int | None, str | None]:
    """Status and user of a line."""
    if line.startswith("{"):
        entry = json_lines.parse_line(line) or {}
        status = next((str(entry[key]) for key in _STATUS_KEYS if key in entry), "")
        users = (entry.get(key) for key in _USER_KEYS)
        user = next((text for text in users if isinstance(text, str) and text not in {"", "-"}), None)
        return (int(status) if status.isdecimal() else None), user
    status_found, user_found = _STATUS.search(line), _USER.match(line)
    user = None if user_found is None or user_found[1] == "-" else user_found[1]
    return (None if status_found is None else int(status_found[1])), user


def table_events(batches: Iterable[Mapping[str, list[Any]]], source: str = "table") -> Iterator[Event]:
    """The rows of batches of columns: ip and time (Unix seconds), and any of method, path, status, user, and headers by
    name; null is an absent header.

    Raises:
        ValueError: there is no column ip or time.
    """
    for batch in batches:
        names = [*batch]
        if not {"ip", "time"} <= {*names}:
            raise ValueError(f"{source}: columns {', '.join(names) or 'none'}; ip and time (Unix seconds) are needed")
        own = {"ip", "time", "status", "user"}
        headers = tuple(name.replace("_", "-") for name in names if name not in {*own, "method", "path"})
        held = frozenset((*headers, *(f":{name}" for name in ("method", "path") if name in names)))
        for values in zip(*batch.values(), strict=True):
            row = dict(zip(names, values, strict=True))
            pairs = [(b":" + name.encode(), row[name].encode()) for name in ("method", "path") if row.get(name)]
            pairs += [
                (name.replace("_", "-").encode(), str(row[name]).encode())
                for name in names if name not in {*own, "method", "path"} and row[name] is not None
            ]  # fmt: skip
            at = row["time"]
            at = at.timestamp() if hasattr(at, "timestamp") else float(at)
            yield Event(
                at, row["ip"] or "", PartialHeaders(pairs, headers), row.get("status"), row.get("user"), held, source
            )


def sql_events(query: str) -> Iterator[Event]:
    """The rows of a DuckDB query (of Parquet: `SELECT * FROM 'logs/*.parquet'`), put in order of its column time."""
    import duckdb

    connection = duckdb.connect()
    relation = connection.sql(f"SELECT * FROM ({query}) ORDER BY time")  # noqa: S608 - the owner's own query
    reader = relation.to_arrow_reader(1 << 14)
    yield from table_events((batch.to_pydict() for batch in reader), "query")
