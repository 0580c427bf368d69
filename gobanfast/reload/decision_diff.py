"""Differences between the decisions of two rulesets on the same requests, and the budget for them.

A decision differs when what becomes of the request differs (action), or what is shared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gobanfast._core.decision import record_rule_for
from gobanfast._core.enums import RULE_DECISIONS, SHARED

if TYPE_CHECKING:
    from gobanfast._core.decision import Decision

MOST_EXAMPLES = 20
MOST_NETWORKS = 10_000  # ASes counted; later ones count as other
_OTHER = -1
NOT_SHARED = SHARED.index("withheld")  # and what comes after it


@dataclass(frozen=True, slots=True)
class Budget:
    """How much new rules may change before they are refused, and on how much traffic that is judged.

    Attributes:
        max_changed: part of the requests whose action, or what is shared of them, may change.
        actions: the same for single actions, and for `granted`, `withheld` and `refused`: part of the requests that may
            newly get it ({"ban": 0.01}). What is newly withheld or refused counts like a new ban, because to the people
            on that page it is one.
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
        known = (*RULE_DECISIONS, *SHARED[1:])
        if self.actions.keys() - set(known):
            raise ValueError(f"budget for {', '.join(self.actions)}; actions are {', '.join(known)}")
        if self.requests < 1 or self.seconds <= 0 or self.sample < 1:
            raise ValueError("a budget is judged on at least one request, some seconds and every n-th request")


def kept_of(decision: Decision) -> str:
    """How traces like this one are kept, in words; not whether this one is, which is drawn."""
    rule = record_rule_for(decision, decision.outcome)
    if rule is None:
        return "by no rule"
    if rule.rate is None:
        return rule.action
    if rule.rate.controller == "fixed":
        return f"{rule.rate.probability:.4g}"
    return f"{rule.rate.controller} ({rule.rate.name})"


class Differences:
    """Counts of (old action, new action) over requests, and of what is shared, and for those that differ the rules,
    ASes and some examples.

    Not safe for threads; the caller has a lock.
    """

    def __init__(self) -> None:
        self.matrix: Counter[tuple[str, str]] = Counter()
        self.shares: Counter[tuple[str, str]] = Counter()  # what is shared, where a share rule of either is about it
        self.rules: Counter[tuple[str | None, str | None]] = Counter()  # whose answers differ: (old rule, new rule)
        self.share_rules: Counter[tuple[str | None, str | None]] = Counter()
        self.records: Counter[tuple[str, str]] = Counter()  # how traces are kept, where that differs
        self.record_rules: Counter[tuple[str | None, str | None]] = Counter()
        self.networks: Counter[int | None] = Counter()
        self.newly: Counter[str] = Counter()  # what requests get that they did not
        self.differing = 0  # requests with another action, or of which something else is shared
        self.moved = 0  # the same by another rule
        self.examples: list[dict[str, Any]] = []

    def add(self, old: Decision, new: Decision, requests: int = 1) -> None:
        """Counts `requests` that the old rules answer with `old` and the new ones with `new`."""
        before, after = old.action, new.action
        self.matrix[before, after] += requests
        shared, shares = old.share or "none", new.share or "none"
        if old.share or new.share:
            self.shares[shared, shares] += requests
        kept, keeps = kept_of(old), kept_of(new)
        if kept != keeps:
            self.records[kept, keeps] += requests
            self.record_rules[old.record_rule, new.record_rule] += requests
        if before == after and shared == shares:
            self.moved += requests * ((old.rule, old.share_rule) != (new.rule, new.share_rule))
            return
        self.differing += requests
        newly: set[str] = set()
        if before != after:
            newly.add(after)
            self.rules[old.rule, new.rule] += requests
        if shared != shares:
            newly.add(shares)
            self.share_rules[old.share_rule, new.share_rule] += requests
            if SHARED.index(new.share or "") >= max(NOT_SHARED, SHARED.index(old.share or "")):
                newly.add("ban")
        self.newly.update(dict.fromkeys(newly, requests))
        asn = old.asn
        if asn not in self.networks and len(self.networks) >= MOST_NETWORKS:
            asn = _OTHER
        self.networks[asn] += requests
        if len(self.examples) < MOST_EXAMPLES:
            self.examples.append(
                {"address": old.address, "sni": old.sni, "asn": old.asn, "old": before, "old_rule": old.rule,
                 "new": after, "new_rule": new.rule, "path": old.path, "origin": old.origin, "old_share": old.share,
                 "old_share_rule": old.share_rule, "new_share": new.share, "new_share_rule": new.share_rule}
            )  # fmt: skip

    @property
    def compared(self) -> int:
        """Requests compared."""
        return self.matrix.total()

    def over(self, budget: Budget) -> str | None:
        """What breaks the budget, in words; None when nothing does."""
        compared = self.compared
        if not compared:
            return None
        if self.differing / compared > budget.max_changed:
            changed = self.differing / compared
            return f"{changed:.1%} of {compared} requests differ, the budget is {budget.max_changed:.1%}"
        for action, most in budget.actions.items():
            newly = self.newly[action] / compared
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
            "shares": [{"old": old, "new": new, "requests": n} for (old, new), n in self.shares.most_common()],
            "rules": [{"old": old, "new": new, "requests": n} for (old, new), n in self.rules.most_common(50)],
            "share_rules": [
                {"old": old, "new": new, "requests": n} for (old, new), n in self.share_rules.most_common(50)
            ],
            "records": [{"old": old, "new": new, "requests": n} for (old, new), n in self.records.most_common(50)],
            "record_rules": [
                {"old": old, "new": new, "requests": n} for (old, new), n in self.record_rules.most_common(50)
            ],
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
        for what, matrix in (("", self.matrix), ("share ", self.shares), ("record ", self.records)):
            for (old, new), count in matrix.most_common():
                if old != new:
                    yield f"  {what}{old} -> {new}: {count}"
        for what, rules in (
            ("rule", self.rules), ("share rule", self.share_rules), ("record rule", self.record_rules),
        ):  # fmt: skip
            for (before, after), count in rules.most_common(10):
                yield f"  {what} {before or '-'} -> {after or '-'}: {count}"
        for asn, count in self.networks.most_common(5):
            yield f"  {'AS unknown' if asn is None else 'other ASes' if asn == _OTHER else f'AS{asn}'}: {count}"
        for example in self.examples[:5]:
            sni = "".join(f" {example[name]}" for name in ("sni", "path") if example[name])
            change = ", ".join(_changed(example))
            page = "" if example["origin"] is None else f" from {example['origin'][:80]!r}"
            yield f"  for example {example['address']}{sni}{page}: {change}"


def _changed(example: Mapping[str, Any]) -> Iterator[str]:
    """What differs in an example: the action, what is shared, or both."""
    for what, kind in (("", ""), ("share ", "_share")):
        old, new = example[f"old{kind}"] or "none", example[f"new{kind}"] or "none"
        rules = [example[f"{side}{kind}_rule"] or "-" for side in ("old", "new")]
        if old != new:
            yield f"{what}{old} ({rules[0]}) -> {new} ({rules[1]})"
