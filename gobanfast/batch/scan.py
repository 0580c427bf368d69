"""Old logs decided again: every line through the engine, and the counts a person wants to see."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from json.encoder import encode_basestring_ascii as quoted
from time import perf_counter
from typing import TYPE_CHECKING, Generic, NamedTuple, TextIO, TypeVar

from gobanfast._headers import SomeHeaders
from gobanfast.batch.logs import Chunk, LogFile
from gobanfast.batch.requests import KNOWN

if TYPE_CHECKING:
    from gobanfast._decision import Decision
    from gobanfast.engine import Engine

Key = TypeVar("Key")

MALFORMED = 0xFFFFFFFF  # what Engine.records writes for text that is no address
MOST_CLIENTS = 1 << 18  # distinct clients counted at a time, about 40 MB
FAULTS_KEPT = 5


class Fault(NamedTuple):
    """One line without a decision, and why."""

    source: str
    line: int
    why: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line}: {self.why}"


class Share(NamedTuple, Generic[Key]):
    """How many lines have one thing in common, `key`, and met the same action."""

    key: Key
    action: str
    lines: int


class Scan:
    """Running counts over the lines of logs, as an engine decides them.

    An engine sorts addresses into records; all addresses of a record share one decision but for the address itself.
    So lines are counted by record, and each record is asked once what it means.

    Where rules ask for headers, method or path and the log keeps them, every line is decided by what it says of user
    agent, referer, method and path. Any other signal is one that nobody knows (`unjudged` names the rules that ask).

    Args:
        engine: decides; its live state is not changed.
        out: takes one JSON object per decided line: address, action, rule, asn, reason, shadow, logged, file, line.
    Cost: per line about 0.4 us beside reading; memory for MOST_CLIENTS clients and one decision per record met.
    """

    def __init__(self, engine: Engine, *, out: TextIO | None = None) -> None:
        self.lines = 0
        self.bad = 0
        self.faults: list[Fault] = []  # the first FAULTS_KEPT
        self.clients_exact = True  # False: the rarest clients were dropped on the way
        self.seconds_deciding = 0.0
        self._engine = engine
        self._out = out
        self._records: Counter[Hashable] = Counter()  # by record; with requests by what the decision says
        self._decisions: dict[Hashable, Decision] = {}
        self._tails: dict[Hashable, str] = {}
        self._clients: Counter[str] = Counter()
        self._met: dict[str, Counter[Hashable]] = {}  # with requests: lines by client and decision
        self._heard = False  # some line said something of a request

    @property
    def decided(self) -> int:
        """Lines that got a decision."""
        return self.lines - self.bad

    @property
    def unjudged(self) -> tuple[str, ...]:
        """Ids of the rules that ask for a signal which the log does not hold, so that nobody knows it."""
        if not self._heard:
            return self._engine.compiled.beyond_address
        logged = {":method", ":path", *KNOWN}
        return tuple(
            rule.id
            for rule in self._engine.compiled.rules
            if rule.when.on_connection or any(test.name not in logged for test in rule.when.request_tests)
        )

    @property
    def stores_bans(self) -> bool:
        """Whether some rule stores its ban: live, it would refuse later lines of a client; a scan asks rules alone."""
        from gobanfast._engine import stored_key

        return any(map(stored_key, self._engine.compiled.rules))

    @property
    def asks_requests(self) -> bool:
        """Whether some rule asks for what access logs say of a request; then a LogFile should give it."""
        return self._engine.compiled.requests is not None

    @property
    def clients(self) -> int:
        """Distinct client addresses, as written; of those still counted when not `clients_exact`."""
        return len(self._clients)

    def read(self, log: LogFile, progress: Callable[[], None] = lambda: None) -> None:
        """None, after every line of `log` is counted; `progress` is called after each chunk."""
        for chunk in log:
            self._count(chunk, log.name)
            progress()

    def by_action(self) -> list[Share[str]]:
        """Lines per action, most first."""
        return self._shares(lambda decision: [decision.action])

    def by_rule(self) -> list[Share[str | None]]:
        """Lines per rule that won; the key None is "no rule matched"."""
        return self._shares(lambda decision: [decision.rule])

    def reasons(self) -> dict[str | None, str]:
        """Reason of each rule that won, by rule id; under None that of "no rule matched"."""
        return {decision.rule: decision.reason or "" for decision in self._decisions.values()}

    def by_asn(self) -> list[Share[int | None]]:
        """Lines per origin AS and action; the key None is "AS not known"."""
        return self._shares(lambda decision: [decision.asn])

    def by_shadow(self) -> list[Share[str]]:
        """Lines per shadow rule that would have won; `action` is the one that stood."""
        return self._shares(lambda decision: decision.shadow)

    def by_logged(self) -> list[Share[str]]:
        """Lines per rule with action log that matched; `action` is the one that stood."""
        return self._shares(lambda decision: decision.logged)

    def top_clients(self, most: int) -> Iterator[tuple[str, Decision, int]]:
        """(address, decision, lines) of the `most` busiest clients of every action, most first."""
        left = Counter({share.key: most for share in self.by_action()})
        for address, lines in self._clients.most_common():
            if not left.total():
                return
            met = self._met.get(address)
            decision = self._engine.peek(address) if met is None else self._decisions[met.most_common(1)[0][0]]
            if left[decision.action] > 0:
                left[decision.action] -= 1
                yield address, decision, lines

    def _shares(self, keys: Callable[[Decision], Iterable[Key]]) -> list[Share[Key]]:
        counts: Counter[tuple[Key, str]] = Counter()
        for record, lines in self._records.items():
            decision = self._decisions[record]
            for key in keys(decision):
                counts[key, decision.action] += lines
        return [Share(key, action, lines) for (key, action), lines in counts.most_common()]

    def _count(self, chunk: Chunk, source: str) -> None:
        import numpy as np

        if chunk.requests is not None:
            self._count_requests(chunk, chunk.requests, source)
            return
        addresses = chunk.addresses
        records = np.empty(len(addresses), np.uint32)
        start = perf_counter()
        self._engine.records(addresses, records.data, others_absent=True)
        self.seconds_deciding += perf_counter() - start
        self.lines += len(addresses)

        found, counts = np.unique(records, return_counts=True)
        for record, lines in zip(found.tolist(), counts.tolist(), strict=True):
            if record == MALFORMED:
                continue
            if record not in self._decisions:
                self._decisions[record] = self._engine.decision(record)
            self._records[record] += lines
        if found[-1] == MALFORMED:
            rows = np.flatnonzero(records == MALFORMED).tolist()
            self._skip(chunk, rows, source)
            skipped = set(rows)
            addresses = [address for row, address in enumerate(addresses) if row not in skipped]
        self._clients.update(addresses)
        if len(self._clients) > MOST_CLIENTS:
            self._clients = Counter(dict(self._clients.most_common(MOST_CLIENTS // 2)))
            self.clients_exact = False
        if self._out is not None:
            self._out.writelines(self._written(chunk, records.tolist(), source))

    def _count_requests(self, chunk: Chunk, requests: Sequence[SomeHeaders | None], source: str) -> None:
        """Line by line, because each says something of its own."""
        from gobanfast._address import parse_address

        peek = self._engine.peek
        for row, (address, said) in enumerate(zip(chunk.addresses, requests, strict=True)):
            self.lines += 1
            if parse_address(address) is None:
                self._skip(chunk, [row], source)
                continue
            start = perf_counter()
            self._heard |= said is not None
            decision = peek(address, headers=said)
            key = (decision.action, decision.rule, decision.asn, decision.reason, decision.shadow, decision.logged)
            self.seconds_deciding += perf_counter() - start
            self._decisions.setdefault(key, decision)
            self._records[key] += 1
            self._clients[address] += 1
            self._met.setdefault(address, Counter())[key] += 1
            if self._out is not None:
                self._out.write(self._line(address, key, quoted(source), chunk.first + row))
        if len(self._clients) > MOST_CLIENTS:
            self._clients = Counter(dict(self._clients.most_common(MOST_CLIENTS // 2)))
            self._met = {address: self._met[address] for address in self._clients}
            self.clients_exact = False

    def _skip(self, chunk: Chunk, rows: list[int], source: str) -> None:
        for row in rows:
            line, address = chunk.first + row, chunk.addresses[row]
            why = chunk.faults.get(line) or (f"{address[:60]!r} is not an address" if address else None)
            if why is None:  # a CSV header is no line of the log
                self.lines -= 1
                continue
            self.bad += 1
            if len(self.faults) < FAULTS_KEPT:
                self.faults.append(Fault(source, line, why))

    def _written(self, chunk: Chunk, records: list[int], source: str) -> Iterator[str]:
        source = quoted(source)
        for row, (address, record) in enumerate(zip(chunk.addresses, records, strict=True)):
            if record == MALFORMED:
                continue
            yield self._line(address, record, source, chunk.first + row)

    def _line(self, address: str, key: Hashable, source: str, line: int) -> str:
        tail = self._tails.get(key)
        if tail is None:
            tail = self._tails[key] = _tail(self._decisions[key])
        return f'{{"address": {quoted(address)}, {tail}, "file": {source}, "line": {line}}}\n'


def _tail(decision: Decision) -> str:
    """The members of a decision that all addresses of its record share, as JSON without the braces."""
    import json

    members = {
        "action": decision.action,
        "rule": decision.rule,
        "asn": decision.asn,
        "reason": decision.reason,
        "shadow": decision.shadow,
        "logged": decision.logged,
    }
    return json.dumps(members)[1:-1]
