"""Comparison of two rulesets on the requests of access logs, and the changes that logs cannot show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gobanfast._core.engine_core import EngineCore, stored_key
from gobanfast._core.enums import NONE
from gobanfast.batch.coverage import Coverage, live_parts, not_replayable, required_signals
from gobanfast.batch.log_fields import Request
from gobanfast.batch.logs import Chunk
from gobanfast.batch.timeline import Timeline
from gobanfast.reload.decision_diff import Differences
from gobanfast.rules.check.rules_diff import touched
from gobanfast.rules.settings import Settings

if TYPE_CHECKING:
    from gobanfast.batch.logs import LogFile
    from gobanfast.rules.rule import Rule
    from gobanfast.rules.ruleset import Ruleset

MALFORMED = NONE


@dataclass(slots=True)
class Comparison:
    """How two rulesets decide the lines of logs, and how far that is the whole truth.

    Attributes:
        differences: the answers that differ.
        bad: lines without an address.
        not_asked: parts of either ruleset that were not asked, in words.
        unjudged: by id of each rule of either, the lines that do not hold what it requires.
        blind: what changes from one to the other and was not asked in full, in words; empty: all of it was asked.
        blind_lines: lines that lack what a changed rule requires.
        late, untimed: of a replay, lines decided at another time than their own.
    """

    differences: Differences = field(default_factory=Differences)
    bad: int = 0
    not_asked: list[str] = field(default_factory=list)
    unjudged: dict[str, int] = field(default_factory=dict)
    blind: list[str] = field(default_factory=list)
    blind_lines: int = 0
    late: int = 0
    untimed: int = 0

    def over(self, percent: float) -> str | None:
        """Why the change is over a budget of so many percent of the lines, or cannot be held against it; else None."""
        compared = self.differences.compared
        if self.blind:
            return f"the budget cannot be judged: the change was not asked in full: {', '.join(self.blind)}"
        if not compared:
            return "the budget cannot be judged: no line was compared"
        differing = self.differences.differing + self.blind_lines
        if differing / compared <= percent / 100:
            return None
        unknown = f", {self.blind_lines} of them not judged," if self.blind_lines else ""
        return f"{differing} of {compared} lines{unknown} are over the budget of {percent:g}%"


def compare(
    old: Ruleset, new: Ruleset, logs: Iterable[LogFile], *, replay: bool = False, mount: str = ""
) -> Comparison:
    """How both decide the lines of logs, each by all that it says of the request, as `scan` reads it.

    Args:
        logs: opened with `requests` (see `asks_requests`), for a replay with `times`.
        mount: prefix under which clients reach the application, as for `Engine.decide`.
        replay: asks the bans they make, trackers and score, too, by the log's own times; else the rules alone.
    Raises:
        LogError: a replay of logs without times.
    Cost: about a microsecond a line beside reading where no rule requires more than addresses: lines are counted by
        pairs of leaves, pairs are asked once. Else two decisions a line.
    """
    found = Comparison()
    pair = _Pair(old, new, found, replay=replay, mount=mount)
    if replay:
        pair.replay(logs)
    else:
        for log in logs:
            for chunk in log:
                pair.read(chunk, log.name)
    pair.finish()
    return found


def asks_requests(*rulesets: Ruleset) -> bool:
    """Whether some rule requires what access logs say of a request."""
    return any(ruleset.compiled.requests is not None for ruleset in rulesets)


class _Pair:
    """Both rulesets, running."""

    def __init__(self, old: Ruleset, new: Ruleset, found: Comparison, *, replay: bool, mount: str) -> None:
        self.old, self.new, self.found, self.replayed = old, new, found, replay
        before, after = (old.settings, new.settings) if replay else (Settings(), Settings())
        self.before = EngineCore(old.compiled, before, lambda: 0.0)
        self.after = EngineCore(new.compiled, after, lambda: 0.0)
        self.mount = mount
        self.coverage = Coverage((*old.rules, *new.rules))
        self.leaves: Counter[tuple[int, int]] = Counter()
        self.example: dict[tuple[int, int], str] = {}

    def read(self, chunk: Chunk, source: str) -> None:
        if chunk.requests is None:
            self._by_leaf(chunk, source)
            return
        from gobanfast._core.address import parse_address

        for address, request in zip(chunk.addresses, chunk.requests, strict=True):
            if parse_address(address) is None:
                self.found.bad += 1
                continue
            self.coverage.add(source, request)
            self._differ(address, request, {})

    def _by_leaf(self, chunk: Chunk, source: str) -> None:
        import numpy as np

        addresses = chunk.addresses
        was, now = np.empty(len(addresses), np.uint32), np.empty(len(addresses), np.uint32)
        self.before.leaves(addresses, was.data, others_absent=True)
        self.after.leaves(addresses, now.data, others_absent=True)
        pairs = was.astype(np.uint64) << np.uint64(32) | now
        found, first, lines = np.unique(pairs, return_index=True, return_counts=True)
        for pair, row, count in zip(found.tolist(), first.tolist(), lines.tolist(), strict=True):
            key = (pair >> 32, pair & 0xFFFFFFFF)
            if key[0] == MALFORMED:
                self.found.bad += count
                continue
            self.leaves[key] += count
            self.coverage.add(source, None, count)
            self.example.setdefault(key, addresses[row])

    def replay(self, logs: Iterable[LogFile]) -> None:
        from gobanfast._core.address import parse_address

        timeline = Timeline(logs)
        base = now = float("-inf")
        for row in timeline:
            if row.time > now:
                now = row.time
                base = now if base == float("-inf") else base
            if parse_address(row.address) is None:
                self.found.bad += 1
                continue
            self.coverage.add(row.source, row.request)
            self._differ(row.address, row.request, {"now": 0.0 if base == float("-inf") else now - base})
        self.found.late, self.found.untimed = timeline.late, timeline.untimed

    def _differ(self, address: str, request: Request, when: dict[str, Any]) -> None:
        ask = "decide" if self.replayed else "peek"
        one, other = (
            getattr(core, ask)(address, headers=request.headers, mount=self.mount, **when)
            for core in (self.before, self.after)
        )
        self.found.differences.add(one, other)

    def finish(self) -> None:
        """Fills in what was not asked."""
        found = self.found
        for key, count in self.leaves.most_common():
            address = self.example[key]
            found.differences.add(self.before.peek(address), self.after.peek(address), count)
        settings = (self.old.settings, self.new.settings)
        rules = (*self.old.rules, *self.new.rules)
        parts: dict[str, None] = {}
        for each in settings:
            parts |= dict.fromkeys(not_replayable(each) if self.replayed else live_parts(each))
        if not self.replayed and any(map(stored_key, rules)):
            parts["stored bans"] = None
        found.not_asked = list(parts)
        for rule in rules:
            lines = self.coverage.lacking(rule)
            if lines:
                found.unjudged[rule.id] = max(lines, found.unjudged.get(rule.id, 0))
        changed = touched(self.old, self.new)
        found.blind = [*self._blind_settings(changed), *self._blind_rules(changed)]
        found.blind_lines = self.coverage.lacking(*changed)

    def _blind_settings(self, changed: Sequence[Rule]) -> list[str]:
        was, now = self.old.settings, self.new.settings
        blind = []
        if was.trackers != now.trackers:
            prints = [each.trackers and each.trackers.distinct_fingerprints for each in (was, now)]
            if not self.replayed:
                blind.append("trackers")
            elif prints[0] != prints[1]:
                blind.append("distinct_fingerprints")
        weighs = any(rule.weigh is not None for rule in changed) and (was.score or now.score) is not None
        if was.score != now.score or weighs:
            blind.append("score")
        if not self.replayed and (was.bans != now.bans or any(map(stored_key, changed))):
            blind.append("stored bans")
        if was.fingerprint != now.fingerprint:
            blind.append("fingerprint")
        if self.old.trust != self.new.trust:
            blind.append("trust")
        return list(dict.fromkeys(blind))

    def _blind_rules(self, changed: Sequence[Rule]) -> list[str]:
        ids = dict.fromkeys(rule.id for rule in changed if required_signals(rule) and self.coverage.unjudged(rule))
        return [f"rule {name}" for name in ids]
