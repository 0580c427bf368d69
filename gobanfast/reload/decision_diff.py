"""Differences between the decisions of two rulesets on the same requests, and the budget for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gobanfast._core.enums import RULE_DECISIONS

if TYPE_CHECKING:
    from gobanfast._core.decision import Decision

MOST_EXAMPLES = 20
MOST_NETWORKS = 10_000  # ASes counted; later ones count as other
_OTHER = -1


@dataclass(frozen=True, slots=True)
class Budget:
    """How much new rules may change before they are refused, and on how much traffic that is judged.

    Attributes:
        max_changed: part of the requests whose action may change.
        actions: the same for single actions: part of the requests that may newly get it ({"ban": 0.01}).
        requests: this many are compared, or
        seconds: as many as come in this time; what is reached first ends it. No request at all is no objection.
        sample: every n-th request is compared.
    """

    max_changed: float = 0.05
    actions: Mapping[str, float] = field(default_factory=dict)
    requests: int = 1000
    seconds: float = 10.0
    sample: int = 1

    def __post_init__(self) -> None:
        fractions = {"max_changed": self.max_changed, **self.actions}
        if not all(0 <= part <= 1 for part in fractions.values()):
            raise ValueError(f"budget {fractions} has a number outside 0 to 1; write 0.05 for 5 %")
        if self.actions.keys() - set(RULE_DECISIONS):
            raise ValueError(f"budget for {', '.join(self.actions)}; actions are {', '.join(RULE_DECISIONS)}")
        if self.requests < 1 or self.seconds <= 0 or self.sample < 1:
            raise ValueError("a budget is judged on at least one request, some seconds and every n-th request")


class Differences:
    """Counts of (old action, new action) over requests, and for those that differ the rules, ASes and some examples.

    Not safe for threads; the caller has a lock.
    """

    def __init__(self) -> None:
        self.matrix: Counter[tuple[str, str]] = Counter()
        self.rules: Counter[tuple[str | None, str | None]] = Counter()  # whose answers differ: (old rule, new rule)
        self.networks: Counter[int | None] = Counter()
        self.moved = 0  # same action by another rule
        self.examples: list[dict[str, Any]] = []

    def add(self, old: Decision, new: Decision, requests: int = 1) -> None:
        """Counts `requests` that the old rules answer with `old` and the new ones with `new`."""
        before, after = old.action, new.action
        self.matrix[before, after] += requests
        if before == after:
            self.moved += requests * (old.rule != new.rule)
            return
        self.rules[old.rule, new.rule] += requests
        asn = old.asn
        if asn not in self.networks and len(self.networks) >= MOST_NETWORKS:
            asn = _OTHER
        self.networks[asn] += requests
        if len(self.examples) < MOST_EXAMPLES:
            self.examples.append(
                {"address": old.address, "sni": old.sni, "asn": old.asn, "old": before, "old_rule": old.rule,
                 "new": after, "new_rule": new.rule, "path": old.path}
            )  # fmt: skip

    @property
    def compared(self) -> int:
        """Requests compared."""
        return self.matrix.total()

    @property
    def differing(self) -> int:
        """Requests with another action."""
        return sum(count for (old, new), count in self.matrix.items() if old != new)

    def over(self, budget: Budget) -> str | None:
        """What breaks the budget, in words; None when nothing does."""
        compared = self.compared
        if not compared:
            return None
        if self.differing / compared > budget.max_changed:
            changed = self.differing / compared
            return f"{changed:.1%} of {compared} requests differ, the budget is {budget.max_changed:.1%}"
        for action, most in budget.actions.items():
            newly = sum(count for (old, new), count in self.matrix.items() if new == action != old) / compared
            if newly > most:
                return f"{newly:.1%} of {compared} requests newly get {action}, the budget is {most:.1%}"
        return None

    def report(self) -> dict[str, Any]:
        """All of it, as JSON values; the largest first."""
        return {
            "compared": self.compared,
            "differing": self.differing,
            "same_action_other_rule": self.moved,
            "actions": [{"old": old, "new": new, "requests": n} for (old, new), n in self.matrix.most_common()],
            "rules": [{"old": old, "new": new, "requests": n} for (old, new), n in self.rules.most_common(50)],
            "networks": [
                {"asn": "other" if asn == _OTHER else asn, "requests": n} for asn, n in self.networks.most_common(50)
            ],
            "examples": self.examples,
        }

    def lines(self) -> Iterator[str]:
        """The report for people."""
        compared = self.compared
        part = self.differing / compared if compared else 0.0
        yield f"{self.differing} of {compared} requests differ ({part:.1%})"
        if self.moved:
            yield f"{self.moved} have the same action by another rule"
        for (old, new), count in self.matrix.most_common():
            if old != new:
                yield f"  {old} -> {new}: {count}"
        for (before, after), count in self.rules.most_common(10):
            yield f"  rule {before or '-'} -> {after or '-'}: {count}"
        for asn, count in self.networks.most_common(5):
            yield f"  {'AS unknown' if asn is None else 'other ASes' if asn == _OTHER else f'AS{asn}'}: {count}"
        for example in self.examples[:5]:
            sni = "".join(f" {example[name]}" for name in ("sni", "path") if example[name])
            change = (
                f"{example['old']} ({example['old_rule'] or '-'}) -> {example['new']} ({example['new_rule'] or '-'})"
            )
            yield f"  for example {example['address']}{sni}: {change}"
