"""Scan of access logs: every line decided by an engine, counted by action, rule, reason and AS."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from json.encoder import encode_basestring_ascii as quoted
from time import perf_counter
from typing import TYPE_CHECKING, Generic, NamedTuple, TextIO, TypeVar

from gobanfast._core.enums import LIMITS, NONE
from gobanfast.batch.coverage import Coverage, live_parts, not_replayable
from gobanfast.batch.log_fields import Request
from gobanfast.batch.logs import Chunk, LogFile
from gobanfast.batch.timeline import Row, Timeline

if TYPE_CHECKING:
    from gobanfast._core.decision import Decision
    from gobanfast.engine import Engine

Key = TypeVar("Key")

MALFORMED = NONE  # what Engine.leaves writes for text that is no address
MOST_CLIENTS = 1 << 18  # distinct clients counted at a time, about 40 MB
FAULTS_KEPT = 5


class Fault(NamedTuple):
    """One line without a decision, and why."""

    source: str
    line: int
    why: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line}: {self.why}"


class Tally(NamedTuple, Generic[Key]):
    """How many lines have one thing in common, `key`, and met the same action."""

    key: Key
    action: str
    lines: int


class Reason(NamedTuple):
    """What decided: the rule or tracker, the cause (`Decision.cause`) and the reason. All None or "none": nothing."""

    rule: str | None
    cause: str
    reason: str | None


class Shared(NamedTuple):
    """What a page of another origin could do (`Decision.share`), and the rule that says so; None: no rule grants it."""

    share: str
    rule: str | None


class Stopped(NamedTuple):
    """A client at a tracker's limit: the lines that the tracker, or the ban it made, refused or challenged, and when
    the first of them was (Unix seconds)."""

    tracker: str
    address: str
    asn: int | None
    lines: int
    first: float


class Scan:
    """Running counts over the lines of logs, as an engine decides them.

    An engine sorts addresses into leaves; all addresses of a leaf share one decision but for the address itself.
    So lines are counted by leaf, and each leaf is asked once what it means.

    Where rules require headers, method or path and the log keeps them, every line is decided by what it says of them.
    Any other signal is one that nobody knows (`unjudged` names the rules that ask). `read` asks the rules alone;
    `replay` asks bans, trackers and score too, each line at its own time.

    Args:
        engine: decides; its live state is not changed but by `replay`, which needs an engine of its own whose clock
            starts at 0.
        mount: prefix under which clients reach the application, as for `Engine.decide`.
        out: takes one JSON object per decided line: address, action, rule, asn, reason, shadow, logged, file, line;
            where a share rule is about it share, share_rule, share_shadow; of a replay cause and time as well.
    Cost: per line about 0.4 us beside reading, some microseconds where requests are read; memory for MOST_CLIENTS
        clients and one decision per leaf met.
    """

    def __init__(self, engine: Engine, *, out: TextIO | None = None, mount: str = "") -> None:
        self.bad = 0
        self.faults: list[Fault] = []  # the first FAULTS_KEPT
        self.clients_exact = True  # False: the rarest clients were dropped on the way
        self.seconds_deciding = 0.0
        self.bans_made = 0
        self.timeline: Timeline | None = None  # of a replay
        self._engine = engine
        self._out = out
        self._mount = mount
        self._leaves: Counter[Hashable] = Counter()  # by leaf; with requests by what the decision says
        self._decisions: dict[Hashable, Decision] = {}
        self._tails: dict[Hashable, str] = {}
        self._clients: Counter[str] = Counter()
        self._met: dict[str, Counter[Hashable]] = {}  # with requests: lines by client and decision
        self._stopped: dict[tuple[str, str], tuple[int, float, int | None]] = {}
        self._coverage = Coverage(engine.compiled.rules)

    @property
    def decided(self) -> int:
        """Lines that got a decision."""
        return self._leaves.total()

    @property
    def lines(self) -> int:
        """Lines read, but for CSV headers."""
        return self.decided + self.bad

    @property
    def unjudged(self) -> tuple[str, ...]:
        """Ids of the rules that require a signal which no line of a log holds, so that nobody knows it."""
        return tuple(rule.id for rule in self._engine.compiled.rules if self._coverage.unjudged(rule))

    @property
    def unjudged_lines(self) -> dict[str, int]:
        """Lines that do not hold what a rule requires, by the id of each rule of which there are some."""
        found = {rule.id: self._coverage.lacking(rule) for rule in self._engine.compiled.rules}
        return {rule: lines for rule, lines in found.items() if lines}

    @property
    def not_asked(self) -> tuple[str, ...]:
        """Parts of the ruleset that were not applied, in words: live state, or what of it logs do not hold."""
        settings = self._engine.ruleset.settings
        if self.timeline is not None:
            return tuple(not_replayable(settings))
        return (*live_parts(settings), *(["stored bans"] if self.stores_bans else []))

    @property
    def stores_bans(self) -> bool:
        """Whether some rule stores its ban: live, it would refuse later lines of a client; `read` asks rules alone."""
        from gobanfast._core.engine_core import stored_key

        return any(map(stored_key, self._engine.compiled.rules))

    @property
    def asks_requests(self) -> bool:
        """Whether some rule requires what access logs say of a request; then a LogFile should give it."""
        return self._engine.compiled.requests is not None

    @property
    def asks_sharing(self) -> bool:
        """Whether some rule is about sharing."""
        return any(rule.effect == "share" for rule in self._engine.compiled.rules)

    @property
    def clients(self) -> int:
        """Distinct client addresses, as written; of those still counted when not `clients_exact`."""
        return len(self._clients)

    def read(self, log: LogFile, progress: Callable[[], None] = lambda: None) -> None:
        """None, after every line of `log` is counted; `progress` is called after each chunk."""
        for chunk in log:
            if chunk.requests is None:
                self._count(chunk, log.name)
            else:
                self._count_requests(chunk, chunk.requests, log.name)
            progress()

    def replay(self, logs: Iterable[LogFile], progress: Callable[[], None] = lambda: None) -> None:
        """None, after every line of all `logs` is decided in order of time, with bans, trackers and score.

        Raises:
            LogError: no line has a time.
        """
        self.timeline = Timeline(logs)
        base = now = float("-inf")
        before = self._engine.ban_table.stats()
        try:
            for number, row in enumerate(self.timeline):
                if row.time > now:
                    now = row.time
                    base = now if base == float("-inf") else base
                seconds = 0.0 if base == float("-inf") else now - base
                self._decide_at(row, seconds, now)
                if not number % 10_000:
                    progress()
        finally:
            after = self._engine.ban_table.stats()
            self.bans_made += sum(after[name] - before[name] for name in ("added", "extended"))

    def by_action(self) -> list[Tally[str]]:
        """Lines per action, most first."""
        return self._tallies(lambda decision: [decision.action])

    def by_rule(self) -> list[Tally[str | None]]:
        """Lines per rule that won; the key None is "no rule matched"."""
        return self._tallies(lambda decision: [decision.rule])

    def by_reason(self) -> list[Tally[Reason]]:
        """Lines per rule, cause and reason, most first."""
        return self._tallies(lambda decision: [Reason(decision.rule, decision.cause, decision.reason)])

    def by_asn(self) -> list[Tally[int | None]]:
        """Lines per origin AS and action; the key None is "AS not known"."""
        return self._tallies(lambda decision: [decision.asn])

    def by_shadow(self) -> list[Tally[str]]:
        """Lines per shadow rule that would have won; `action` is the one that stood."""
        return self._tallies(lambda decision: decision.shadow)

    def by_logged(self) -> list[Tally[str]]:
        """Lines per rule with action log that matched; `action` is the one that stood."""
        return self._tallies(lambda decision: decision.logged)

    def by_share(self) -> list[Tally[Shared]]:
        """Lines per what was shared and the share rule, most first; `action` is what became of the request."""
        return self._tallies(
            lambda decision: [] if decision.share is None else [Shared(decision.share, decision.share_rule)]
        )

    def by_share_shadow(self) -> list[Tally[str]]:
        """Lines per shadow share rule that would have decided; `action` is what stood: what was shared, or "none"."""
        return self._tallies(lambda decision: decision.share_shadow, lambda decision: decision.share or "none")

    def top_clients(self, most: int) -> Iterator[tuple[str, Decision, int]]:
        """(address, decision, lines) of the `most` busiest clients of every action, most lines first.

        A client that met several actions has a row, and a count, for each; the decision is its usual one there.
        """
        found: dict[str, list[tuple[int, int, str, Hashable]]] = {}
        order = 0
        for address, lines in self._clients.items():
            met = self._met.get(address)
            for action, (count, key) in self._actions(address, lines, met).items():
                order -= 1  # of equals the client met first
                rows = found.setdefault(action, [])
                (heapq.heappush if len(rows) < most else heapq.heappushpop)(rows, (count, order, address, key))
        for lines, _, address, key in sorted((row for rows in found.values() for row in rows), reverse=True):
            yield address, self._engine.peek(address) if key is None else self._decisions[key], lines

    def _actions(self, address: str, lines: int, met: Counter[Hashable] | None) -> dict[str, tuple[int, Hashable]]:
        """Lines of a client by action, and the decision that most of them met; None: that on the address."""
        if met is None:
            return {self._engine.peek(address).action: (lines, None)}
        counts: dict[str, tuple[int, Hashable]] = {}
        for key, count in met.most_common():
            before, usual = counts.get(self._decisions[key].action, (0, key))
            counts[self._decisions[key].action] = before + count, usual
        return counts

    def stopped(self, most: int) -> Iterator[Stopped]:
        """The `most` clients of each tracker that it, or a ban it made, stopped most often; of a replay."""
        by_tracker: dict[str, list[Stopped]] = {}
        for (tracker, address), (lines, first, asn) in self._stopped.items():
            by_tracker.setdefault(tracker, []).append(Stopped(tracker, address, asn, lines, first))
        for tracker in LIMITS:
            yield from heapq.nsmallest(
                most, by_tracker.get(tracker, []), key=lambda row: (-row.lines, row.first, row.address)
            )

    @property
    def clients_stopped(self) -> Counter[str]:
        """Distinct clients that each tracker stopped; of a replay."""
        return Counter(tracker for tracker, _ in self._stopped)

    def _tallies(
        self, keys: Callable[[Decision], Iterable[Key]], stood: Callable[[Decision], str] = lambda made: made.action
    ) -> list[Tally[Key]]:
        counts: Counter[tuple[Key, str]] = Counter()
        for leaf, lines in self._leaves.items():
            decision = self._decisions[leaf]
            for key in keys(decision):
                counts[key, stood(decision)] += lines
        return [Tally(key, action, lines) for (key, action), lines in counts.most_common()]

    def _count(self, chunk: Chunk, source: str) -> None:
        import numpy as np

        addresses = chunk.addresses
        leaves = np.empty(len(addresses), np.uint32)
        start = perf_counter()
        self._engine.leaves(addresses, leaves.data, others_absent=True)
        self.seconds_deciding += perf_counter() - start

        found, counts = np.unique(leaves, return_counts=True)
        for leaf, lines in zip(found.tolist(), counts.tolist(), strict=True):
            if leaf == MALFORMED:
                continue
            if leaf not in self._decisions:
                self._decisions[leaf] = self._engine.decision(leaf)
            self._leaves[leaf] += lines
            self._coverage.add(source, None, lines)
        if found[-1] == MALFORMED:
            rows = np.flatnonzero(leaves == MALFORMED).tolist()
            for row in rows:
                line = chunk.first + row
                self._skip(source, line, chunk.addresses[row], chunk.faults.get(line))
            skipped = set(rows)
            addresses = [address for row, address in enumerate(addresses) if row not in skipped]
        self._clients.update(addresses)
        self._bound()
        if self._out is not None:
            self._out.writelines(self._written(chunk, leaves.tolist(), source))

    def _count_requests(self, chunk: Chunk, requests: Sequence[Request], source: str) -> None:
        """Line by line, because each says something of its own."""
        from gobanfast._core.address import parse_address

        peek = self._engine.peek
        for row, (address, request) in enumerate(zip(chunk.addresses, requests, strict=True)):
            line = chunk.first + row
            if parse_address(address) is None:
                self._skip(source, line, address, chunk.faults.get(line))
                continue
            start = perf_counter()
            decision = peek(address, headers=request.headers, mount=self._mount)
            self.seconds_deciding += perf_counter() - start
            key = self._note(decision, address, request, source)
            if self._out is not None:
                self._out.write(self._line(address, key, quoted(source), line))
        self._bound()

    def _decide_at(self, row: Row, seconds: float, now: float) -> None:
        """One line of a replay, at `seconds` of the engine's clock, which are `now` of the log's."""
        from gobanfast._core.address import parse_address

        if parse_address(row.address) is None:
            self._skip(row.source, row.line, row.address, row.fault)
            return
        start = perf_counter()
        decision = self._engine.decide(row.address, headers=row.request.headers, now=seconds, mount=self._mount)
        self.seconds_deciding += perf_counter() - start
        key = self._note(decision, row.address, row.request, row.source)
        if decision.rule in LIMITS and decision.cause in {"tracker", "ban"}:
            where = (decision.rule, row.address)
            lines, first, asn = self._stopped.get(where, (0, now, decision.asn))
            if lines or len(self._stopped) < MOST_CLIENTS:
                self._stopped[where] = lines + 1, first, asn
            else:
                self.clients_exact = False
        if len(self._clients) > MOST_CLIENTS:
            self._bound()
        if self._out is not None:
            at = "" if now == float("-inf") else f', "time": "{moment(now)}"'
            self._out.write(
                self._line(row.address, key, quoted(row.source), row.line, f', "cause": "{decision.cause}"{at}')
            )

    def _note(self, decision: Decision, address: str, request: Request, source: str) -> Hashable:
        """Counts a decision on a request; returns what stands for it."""
        key = (
            decision.action, decision.rule, decision.cause, decision.asn, decision.reason, decision.shadow,
            decision.logged, decision.share, decision.share_rule, decision.share_shadow,
        )  # fmt: skip
        self._decisions.setdefault(key, decision)
        self._leaves[key] += 1
        self._clients[address] += 1
        self._met.setdefault(address, Counter())[key] += 1
        self._coverage.add(source, request)
        return key

    def _bound(self) -> None:
        """Drops the rarest clients where there are too many."""
        if len(self._clients) > MOST_CLIENTS:
            self._clients = Counter(dict(self._clients.most_common(MOST_CLIENTS // 2)))
            self._met = {address: self._met[address] for address in self._clients if address in self._met}
            self.clients_exact = False

    def _skip(self, source: str, line: int, address: str, fault: str | None) -> None:
        why = fault or (f"{address[:60]!r} is not an address" if address else None)
        if why is None:  # a CSV header is no line of the log
            return
        self.bad += 1
        if len(self.faults) < FAULTS_KEPT:
            self.faults.append(Fault(source, line, why))

    def _written(self, chunk: Chunk, leaves: list[int], source: str) -> Iterator[str]:
        source = quoted(source)
        for row, (address, leaf) in enumerate(zip(chunk.addresses, leaves, strict=True)):
            if leaf == MALFORMED:
                continue
            yield self._line(address, leaf, source, chunk.first + row)

    def _line(self, address: str, key: Hashable, source: str, line: int, more: str = "") -> str:
        tail = self._tails.get(key)
        if tail is None:
            tail = self._tails[key] = _tail(self._decisions[key])
        return f'{{"address": {quoted(address)}, {tail}, "file": {source}, "line": {line}{more}}}\n'


def moment(seconds: float) -> str:
    """A time of a log in UTC, to the second."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _tail(decision: Decision) -> str:
    """The members of a decision that all addresses of its leaf share, as JSON without the braces."""
    import json

    members = {
        "action": decision.action,
        "rule": decision.rule,
        "asn": decision.asn,
        "reason": decision.reason,
        "shadow": decision.shadow,
        "logged": decision.logged,
    }
    if decision.share is not None or decision.share_shadow:
        members |= {
            "share": decision.share, "share_rule": decision.share_rule, "share_shadow": decision.share_shadow,
        }  # fmt: skip
    return json.dumps(members)[1:-1]
