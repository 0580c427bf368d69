"""Coverage of rules by logs: the signals a rule requires, and how many lines hold them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gobanfast._core.compiled_rules import CompiledRules
    from gobanfast.batch.log_fields import Request
    from gobanfast.rules.rule import Rule
    from gobanfast.rules.settings import Settings

_OF_HEADERS = (":origin", ":host", ":cross_origin_write")  # conditions that read headers of other names
CONNECTION = ":connection"  # server name and TLS hello: no access log holds them


def required_signals(rule: Rule) -> frozenset[str]:
    """Names of the signals that a rule requires besides the address; of one that says what a page may read also its
    Origin."""
    from gobanfast.rules.compile.request import COMPOSED

    asked = {test.name for test in rule.when.request_tests}
    names = {part for name in asked for part in (COMPOSED[name] if name in _OF_HEADERS else (name,))}
    if ":cross_origin_write" in asked:
        names.add(":method")
    if rule.effect == "share" and rule.action != "refuse":
        names.add("origin")
    if rule.when.on_connection:
        names.add(CONNECTION)
    return frozenset(names)


def required_headers(*rulesets: CompiledRules) -> tuple[str, ...]:
    """Names of the headers that rules require."""
    names = {
        name for compiled in rulesets for rule in compiled.rules for name in required_signals(rule) if name[0] != ":"
    }
    return tuple(sorted(names))


class Coverage:
    """Counts of the lines of each log by the signals they hold, of those that `rules` require."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._asked: frozenset[str] = frozenset().union(*map(required_signals, rules))
        self._lines: Counter[tuple[str, frozenset[str]]] = Counter()

    def add(self, source: str, request: Request | None, lines: int = 1) -> None:
        """Counts `lines` of the log `source` that say what `request` does; None: only an address."""
        self.hold(source, None if request is None else request.held, lines)

    @property
    def counts(self) -> Counter[tuple[str, frozenset[str]]]:
        """Lines by log and the signals they hold."""
        return self._lines

    def hold(self, source: str, held: frozenset[str] | None, lines: int = 1) -> None:
        """The same of lines that hold these signals."""
        self._lines[source, frozenset() if held is None else held & self._asked] += lines

    def lacking(self, *rules: Rule) -> int:
        """Lines that do not hold what one of the rules requires."""
        wanted = [required_signals(rule) for rule in rules]
        return sum(lines for (_, held), lines in self._lines.items() if not all(names <= held for names in wanted))

    def unjudged(self, rule: Rule) -> bool:
        """Whether no line of some log holds what the rule requires."""
        wanted = required_signals(rule)
        logs = {source for source, _ in self._lines}
        complete = {source for source, held in self._lines if wanted <= held}
        return bool(wanted) and (logs != complete or not logs)


def live_parts(settings: Settings) -> list[str]:
    """The sections of live state that a ruleset has, in words."""
    return [
        *(["trackers"] if settings.trackers is not None else []),
        *(["score"] if settings.score is not None else []),
    ]


def not_replayable(settings: Settings) -> list[str]:
    """Sections that a replay of logs cannot evaluate in full, in words: logs hold no fingerprint and no server name."""
    trackers = settings.trackers
    return [
        *(["distinct_fingerprints (logs hold no fingerprints)"]
          if trackers is not None and trackers.distinct_fingerprints is not None else []),
        *(["score by names and fingerprints (logs hold neither)"] if settings.score is not None else []),
    ]  # fmt: skip
