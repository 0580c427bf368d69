"""Scan of access logs: every line decided by an engine, counted by action, rule, reason and AS."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from json.encoder import encode_basestring_ascii as quoted
from time import perf_counter
from typing import TYPE_CHECKING, Generic, NamedTuple, TextIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from gobanfast._core.columns import address_leaves
from gobanfast._core.enums import LIMITS, NONE
from gobanfast.batch.coverage import Coverage, live_parts, not_replayable
from gobanfast.batch.line_classes import LineClasses
from gobanfast.batch.log_fields import Request
from gobanfast.batch.logs import LogFile
from gobanfast.batch.timeline import Row, Timeline

if TYPE_CHECKING:
    from gobanfast._core.decision import Decision
    from gobanfast._core.engine_core import EngineCore
    from gobanfast.batch.line_blocks import LineBlock
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


class Outcome(NamedTuple):
    """What a decision says that does not hang on the request's own texts."""

    action: str
    rule: str | None
    cause: str
    asn: int | None
    reason: str | None
    shadow: tuple[str, ...]
    logged: tuple[str, ...]
    share: str | None
    share_rule: str | None
    share_shadow: tuple[str, ...]


def outcome(decision: Decision) -> Outcome:
    """What a scan counts of a decision."""
    return Outcome(
        decision.action, decision.rule, decision.cause, decision.asn, decision.reason, decision.shadow,
        decision.logged, decision.share, decision.share_rule, decision.share_shadow,
    )  # fmt: skip


Answer = tuple[Outcome, frozenset[str] | None]  # and the signals that the line holds


class ScanState(NamedTuple):
    """Counts of a scan that can be sent from process to process."""

    lines: Counter[Outcome]
    pairs: Counter[tuple[str, int]]
    named: list[Outcome]
    held: Counter[tuple[str, frozenset[str]]]
    bad: int
    faults: list[Fault]
    clients_exact: bool
    seconds_deciding: float


class Scan:
    """Running counts over the lines of logs, as an engine decides them.

    A line is what it says of address, method, path and headers; lines that no rule can tell apart are decided once
    (`line_classes`). Lines of rare forms are read by the slow reader, one by one, with the same counts.

    Any signal that a log does not keep is one that nobody knows (`unjudged` names the rules that ask). `read` asks the
    rules alone; `replay` asks bans, trackers and score too, each line at its own time.

    Args:
        engine: decides; its live state is not changed but by `replay`, which needs an engine of its own whose clock
            starts at 0.
        mount: prefix under which clients reach the application, as for `Engine.decide`.
        out: takes one JSON object per decided line: address, action, rule, asn, reason, shadow, logged, file, line;
            where a share rule is about it share, share_rule, share_shadow; of a replay cause and time as well.
    Cost: per line about 0.5 us, 1 us where requests are read, 20 us for lines of rare forms; memory for MOST_CLIENTS
        pairs of client and answer.
    """

    def __init__(self, engine: Engine | EngineCore, *, out: TextIO | None = None, mount: str = "") -> None:
        self.bad = 0
        self.faults: list[Fault] = []  # the first FAULTS_KEPT
        self.clients_exact = True  # False: the rarest clients were dropped on the way
        self.seconds_deciding = 0.0
        self.bans_made = 0
        self.timeline: Timeline | None = None  # of a replay
        self._engine = engine
        self._out = out
        self._mount = mount
        self._lines: Counter[Outcome] = Counter()
        self._tails: dict[Outcome, str] = {}
        self._pairs: Counter[tuple[str, int]] = Counter()  # lines by client and number of the answer
        self._numbers: dict[Outcome, int] = {}
        self._named: list[Outcome] = []  # by number
        self._stopped: dict[tuple[str, str], tuple[int, float, int | None]] = {}
        self._coverage = Coverage(engine.compiled.rules)

    @property
    def decided(self) -> int:
        """Lines that got a decision."""
        return self._lines.total()

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
        return len({address for address, _ in self._pairs})

    def read(self, log: LogFile, progress: Callable[[], None] = lambda: None) -> None:
        """None, after every line of `log` is counted; `progress` is called after each block."""
        requests = self.asks_requests

        def decide(address: str, request: Request | None) -> Answer:
            if request is None:
                made = self._engine.decision(
                    int.from_bytes(address_leaves(self._engine.compiled, [address], 1), "little")
                )
            else:
                made = self._engine.peek(address, headers=request.headers, mount=self._mount)
            return outcome(made), None if request is None else request.held

        numbers: list[int] = []  # of what the answers say
        totals: Counter[int] = Counter()

        def counted(address: str, answer: int, lines: int) -> None:
            while len(numbers) < len(classes.answers):
                numbers.append(self._number(classes.answers[len(numbers)][0]))
            self._pairs[address, numbers[answer]] += lines
            totals[answer] += lines

        classes = LineClasses(log, self._engine.compiled, self._mount, decide, counted, requests=requests)
        try:
            for block in log.blocks():
                start, known = perf_counter(), len(classes.answers)
                answers = classes.block(block)
                self.seconds_deciding += perf_counter() - start
                slow = self._slow(log, block, answers, classes)
                if len(classes.answers) > known:  # in the order of the lines that first got them
                    found, first = np.unique(answers, return_index=True)
                    for number in found[np.argsort(first)].tolist():
                        if number != MALFORMED:
                            self._lines.setdefault(classes.answers[number][0], 0)
                for address, answer in slow:
                    counted(address, classes.number(answer), 1)
                if self._out is not None:
                    self._write(log, block, answers, classes)
                progress()
        finally:
            classes.flush()
            for number, lines in totals.items():
                made, held = classes.answers[number]
                self._lines[made] += lines
                self._coverage.hold(log.name, held, lines)
            self._bound()

    def _slow(
        self, log: LogFile, block: LineBlock, answers: NDArray[np.uint32], classes: LineClasses[Answer]
    ) -> list[tuple[str, Answer]]:
        """Client and answer of the lines that have no answer, as the slow reader reads them; `answers` gets theirs."""
        from gobanfast._core.address import parse_address

        found = []
        for row in np.flatnonzero(answers == MALFORMED).tolist():
            line, at = block.line(row), block.first + row
            address, fault = ("", block.faults[row]) if row in block.faults else log.extract(line)
            if parse_address(address) is None:
                self._skip(log.name, at, address, fault)
                continue
            answer = classes.decide(address, log.request(line) if self.asks_requests else None)
            answers[row] = classes.number(answer)
            found.append((address, answer))
        if len(self._pairs) > MOST_CLIENTS:
            self._bound()
        return found

    def _write(self, log: LogFile, block: LineBlock, answers: NDArray[np.uint32], classes: LineClasses[Answer]) -> None:
        assert self._out is not None  # noqa: S101
        source = quoted(log.name)
        for row, answer in enumerate(answers.tolist()):
            if answer != MALFORMED:
                address = log.extract(block.line(row))[0]
                self._out.write(self._line(address, classes.answers[answer][0], source, block.first + row))

    def state(self) -> ScanState:
        """What was counted, for another process."""
        return ScanState(
            self._lines, self._pairs, self._named, self._coverage.counts, self.bad, self.faults, self.clients_exact,
            self.seconds_deciding,
        )  # fmt: skip

    def absorb(self, other: ScanState) -> None:
        """Adds what a scan of other logs by the same rules counted."""
        self._lines.update(other.lines)
        numbers = list(map(self._number, other.named))
        for (address, number), lines in other.pairs.items():
            self._pairs[address, numbers[number]] += lines
        for (source, held), lines in other.held.items():
            self._coverage.hold(source, held, lines)
        self.bad += other.bad
        self.faults += other.faults[: FAULTS_KEPT - len(self.faults)]
        self.clients_exact &= other.clients_exact
        self.seconds_deciding += other.seconds_deciding
        self._bound()

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

    def pairs(self) -> Iterator[tuple[tuple[str, Outcome], int]]:
        """Lines by client and answer."""
        for (address, number), lines in self._pairs.items():
            yield (address, self._named[number]), lines

    def top_clients(self, most: int) -> Iterator[tuple[str, Outcome, int]]:
        """(address, answer, lines) of the `most` busiest clients of every action, most lines first.

        A client that met several actions has a row, and a count, for each; the answer is its usual one there.
        """
        met: dict[tuple[str, str], list[tuple[int, Outcome]]] = {}
        for (address, made), lines in self.pairs():
            met.setdefault((made.action, address), []).append((lines, made))
        found: dict[str, list[tuple[int, int, str, Outcome]]] = {}
        for order, ((action, address), answers) in enumerate(met.items()):
            usual = max(answers, key=lambda answer: answer[0])[1]
            row = (sum(lines for lines, _ in answers), -order, address, usual)  # of equals the client met first
            rows = found.setdefault(action, [])
            (heapq.heappush if len(rows) < most else heapq.heappushpop)(rows, row)
        for lines, _, address, made in sorted((row for rows in found.values() for row in rows), reverse=True):
            yield address, made, lines

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
        self, keys: Callable[[Outcome], Iterable[Key]], stood: Callable[[Outcome], str] = lambda made: made.action
    ) -> list[Tally[Key]]:
        counts: Counter[tuple[Key, str]] = Counter()
        for decision, lines in self._lines.items():
            for key in keys(decision):
                counts[key, stood(decision)] += lines
        return [Tally(key, action, lines) for (key, action), lines in counts.most_common()]

    def _decide_at(self, row: Row, seconds: float, now: float) -> None:
        """One line of a replay, at `seconds` of the engine's clock, which are `now` of the log's."""
        from gobanfast._core.address import parse_address

        if parse_address(row.address) is None:
            self._skip(row.source, row.line, row.address, row.fault)
            return
        start = perf_counter()
        decision = self._engine.decide(row.address, headers=row.request.headers, now=seconds, mount=self._mount)
        self.seconds_deciding += perf_counter() - start
        key = outcome(decision)
        self._note(key, row.address)
        self._coverage.add(row.source, row.request)
        if decision.rule in LIMITS and decision.cause in {"tracker", "ban"}:
            where = (decision.rule, row.address)
            lines, first, asn = self._stopped.get(where, (0, now, decision.asn))
            if lines or len(self._stopped) < MOST_CLIENTS:
                self._stopped[where] = lines + 1, first, asn
            else:
                self.clients_exact = False
        if len(self._pairs) > MOST_CLIENTS:
            self._bound()
        if self._out is not None:
            at = "" if now == float("-inf") else f', "time": "{moment(now)}"'
            self._out.write(
                self._line(row.address, key, quoted(row.source), row.line, f', "cause": "{decision.cause}"{at}')
            )

    def _note(self, made: Outcome, address: str, lines: int = 1) -> None:
        """Counts lines of a client that got an answer."""
        self._lines[made] += lines
        self._pairs[address, self._number(made)] += lines

    def _number(self, made: Outcome) -> int:
        found = self._numbers.setdefault(made, len(self._named))
        if found == len(self._named):
            self._named.append(made)
        return found

    def _bound(self) -> None:
        """Drops the rarest clients where there are too many."""
        if len(self._pairs) > MOST_CLIENTS:
            totals = self._by_client()
            kept = dict(totals.most_common(len(totals) // 2))
            self._pairs = Counter({pair: lines for pair, lines in self._pairs.items() if pair[0] in kept})
            self.clients_exact = False

    def _by_client(self) -> Counter[str]:
        totals: Counter[str] = Counter()
        for (address, _), lines in self._pairs.items():
            totals[address] += lines
        return totals

    def _skip(self, source: str, line: int, address: str, fault: str | None) -> None:
        why = fault or (f"{address[:60]!r} is not an address" if address else None)
        if why is None:  # a CSV header is no line of the log
            return
        self.bad += 1
        if len(self.faults) < FAULTS_KEPT:
            self.faults.append(Fault(source, line, why))

    def _line(self, address: str, key: Outcome, source: str, line: int, more: str = "") -> str:
        tail = self._tails.get(key)
        if tail is None:
            tail = self._tails[key] = _tail(key)
        return f'{{"address": {quoted(address)}, {tail}, "file": {source}, "line": {line}{more}}}\n'


def moment(seconds: float) -> str:
    """A time of a log in UTC, to the second."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _tail(decision: Outcome) -> str:
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
