"""Compiler of conditions on labels and sessions into rows that a decision asks for by what live state knows.

What a request carries has readings, as its path has: one for each value of its session, and, because others have the
same AS and a fingerprint can be copied, one with and one without the labels on these. A restrictive rule holds under
any, a permissive one under all.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gobanfast.rules.compile.request import Kinds
from gobanfast.rules.rule import Negation, Rule, Test

if TYPE_CHECKING:
    from gobanfast._core.live_table import LiveTable
    from gobanfast.rules.settings import SessionSettings

STATES = ("unknown", "absent", "present", "malformed")


def words_of(rules: Sequence[Rule]) -> tuple[str, ...]:
    """The words that `rules` name, in the order of their bits."""
    named: dict[str, None] = {}
    for rule in rules:
        for part in (rule.when, rule.when.negated):
            named |= dict.fromkeys((part.label if part is not None else None) or ())
    return tuple(named)


def live_table(rules: Sequence[Rule], session: SessionSettings | None) -> LiveTable | None:
    """The rows of `rules`, which are in the order of their bits; None when none asks for a label or a session.

    Raises:
        ValueError: more words than 64.
    """
    if session is None and not any(rule.when.on_live for rule in rules):
        return None
    from gobanfast._core.live_table import LiveTable

    nbytes = 8 * (len(rules) // 64 + 1)
    masks: dict[Test, int] = {}
    for index, rule in enumerate(rules):
        for test in rule.when.live_tests:
            masks[test] = masks.get(test, 0) | 1 << index
    kinds = Kinds.of(rules)
    full = (1 << 8 * nbytes) - 1
    asked = functools.reduce(operator.or_, masks.values(), 0)
    words = words_of(rules)
    if session is not None and "revoked" not in words:
        words = (*words, "revoked")  # it ends open streams, whatever the rules say of it
    if len(words) > 64:
        raise ValueError(f"rules name {len(words)} labels, 64 are the most; leave some out")
    matcher = LabelMatcher({test: mask for test, mask in masks.items() if test.name == ":label"}, words, nbytes, kinds)
    of_session = {test: mask for test, mask in masks.items() if test.name == ":session"}
    rows = [full & ~functools.reduce(operator.or_, of_session.values(), 0)]
    rows += [_session_row(of_session, state, full, kinds) for state in STATES[1:]]
    return LiveTable(
        words,
        nbytes // 8,
        matcher,
        matcher(0),
        b"".join(row.to_bytes(nbytes, "little") for row in rows),
        (full & ~asked).to_bytes(nbytes, "little"),
        (full & ~(asked & ~kinds.favouring)).to_bytes(nbytes, "little"),
        bool(asked & kinds.admit),
        _varies(session),
        tuple(name for kind, name in (() if session is None else session.sources) if kind == "query"),
    )


def _varies(session: SessionSettings | None) -> tuple[str, ...]:
    """The headers that a session is in, as Vary names them."""
    sources = () if session is None else session.sources
    names = ("Cookie" if kind == "cookie" else name.title() for kind, name in sources if kind != "query")
    return tuple(dict.fromkeys(names))


def _session_row(masks: dict[Test, int], state: str, full: int, kinds: Kinds) -> int:
    row = full
    for test, mask in masks.items():
        if not isinstance(test, Negation):
            if state not in test.words:
                row &= ~mask
        elif all(state in part.words for part in test.tests):
            row &= ~mask
        elif state == "malformed":
            row &= ~(mask & kinds.permissive)
    return row


class LabelMatcher:
    """Rows of sets of words: bit i is set where the conditions of rule i on labels hold."""

    def __init__(self, masks: dict[Test, int], words: tuple[str, ...], nbytes: int, kinds: Kinds) -> None:
        self._bits = {word: 1 << bit for bit, word in enumerate(words)}
        self._asked = [(self._wanted(test), isinstance(test, Negation), mask) for test, mask in masks.items()]
        self._nbytes, self._full = nbytes, (1 << 8 * nbytes) - 1
        self._permissive = kinds.permissive

    def __call__(self, *carried: int) -> bytes:
        """The row of a request; `carried` are the words that it carries, by reading."""
        rows = [self._row(mask) for mask in carried]
        anyhow = functools.reduce(operator.or_, rows)
        always = functools.reduce(operator.and_, rows)
        row = (anyhow & ~self._permissive) | (always & self._permissive)
        return row.to_bytes(self._nbytes, "little")

    def _row(self, carried: int) -> int:
        row = self._full
        for wanted, negated, mask in self._asked:
            if bool(carried & wanted) == negated:
                row &= ~mask
        return row

    def _wanted(self, test: Test) -> int:
        values = test.tests[0].values if isinstance(test, Negation) else test.values
        return functools.reduce(operator.or_, (self._bits[word] for word in values))
