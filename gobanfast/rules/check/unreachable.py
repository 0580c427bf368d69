"""Detection of unreachable rules: all that they match is decided by rules before them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from gobanfast._errors import Problem
from gobanfast.rules.compile.address import held
from gobanfast.rules.rule import PERMISSIVE, Conditions, NameList, Rule

if TYPE_CHECKING:
    from gobanfast.rules.compile.address import Overlay

MOST_PAIRS = 4_000_000  # of rules whose other signals are compared
_ON_ADDRESS = {"prefix", "prefix_file", "outside", "outside_file", "asn", "asn_name"}  # these are in the overlay
_ANY_OF = {
    "sni", "ja4", "ja4_prefix", "alpn", "ech", "method", "sni_host", "origin", "host", "fetch_site", "fetch_mode",
    "fetch_dest", "outcome",
}  # fmt: skip  # more values match more
_FIRST = {
    "allow": ("allowed", "contradictory-allow"),
    "refuse": ("refused", "contradictory-refuse"),
}
"""Actions that come before all others of their effect: what they do, and the code."""
_NAMED = 3  # rules that a message names


def unreachable(rules: Sequence[Rule], overlay: Overlay, *, starter: bool) -> Iterator[Problem]:
    """A warning for every rule that matches no address, or whose every match is decided before it.

    Exact for conditions on the address. Of other signals an earlier rule must require the same or less: what is found
    is true, and some shadowing is not found. Cost: rules x classes, in numpy; compiles nothing.
    """
    vectors = overlay.vectors.reshape(-1, overlay.words)
    # A limit decides what is over it, and lets the rest on to what comes after: it shadows nothing.
    wins = [rule.mode == "enforce" and rule.action != "log" and rule.limit is None for rule in rules]
    pairs = len(rules) * sum(rule.when.on_signals for rule in rules)
    for bit, rule in enumerate(rules):
        rows = vectors[held(vectors, bit)]
        if not len(rows):
            if not (starter and rule.when.on_asn):
                hint = "its conditions on the address exclude each other, or the AS table knows none of its ASes"
                yield _warning(rule, "empty-rule", f"rule '{rule.id}' matches no address", hint)
            continue
        earlier = [
            before
            for before in range(bit)
            if wins[before]
            and rules[before].effect == rule.effect
            and (
                not (rules[before].when.on_signals or rules[before].when.outcome)
                or (pairs <= MOST_PAIRS and covers(rules[before].when, rule.when))
            )
            and not (
                rules[before].when.negated and rules[before].action in PERMISSIVE and rule.action not in PERMISSIVE
            )
        ]
        mask = np.zeros(overlay.words, np.uint64)
        for before in earlier:
            mask[before // 64] |= np.uint64(1 << before % 64)
        hits = rows & mask
        if not hits.any(axis=1).all():
            continue
        shadowing = _first_bits(hits)
        names = ", ".join(f"'{rules[before].id}'" for before in shadowing[:_NAMED])
        more = f" and {len(shadowing) - _NAMED} more" if len(shadowing) > _NAMED else ""
        first = next(iter({rules[before].action for before in shadowing}))
        alike = all(rules[before].action == first for before in shadowing)
        if alike and first in _FIRST and rule.action != first:
            done, code = _FIRST[first]
            message = f"rule '{rule.id}' can never {rule.action}: everything it matches is {done} by {names}{more}"
            yield _warning(rule, code, message, f"narrow one of them; {first} comes before everything")
        else:
            message = f"rule '{rule.id}' can never decide: {names}{more} before it match everything that it matches"
            yield _warning(rule, "shadowed-rule", message, "give it a smaller priority number, or remove it")


def covers(wide: Conditions, narrow: Conditions) -> bool:
    """Whether `wide` surely holds, besides the address, wherever `narrow` does."""
    for field in fields(wide):
        asked = getattr(wide, field.name)
        if field.name in _ON_ADDRESS or asked is None:
            continue
        given = getattr(narrow, field.name)
        if field.name == "negated":
            if not _left_out(given, asked):
                return False
            continue
        if given is None or not (given == asked or _within(field.name, given, asked)):
            return False
    return True


def _left_out(given: Conditions | None, asked: Conditions) -> bool:
    """Whether what `asked` leaves out, besides addresses, `given` surely leaves out, too."""
    for field in fields(asked):
        value = getattr(asked, field.name)
        if field.name in _ON_ADDRESS or value is None:
            continue
        more = None if given is None else getattr(given, field.name)
        if more is None or not (more == value or (field.name in _ANY_OF and set(value) <= set(more))):
            return False
    return True


def _within(name: str, given: Any, asked: Any) -> bool:
    if name == "tls_version_below":
        return bool(given <= asked)
    if name not in _ANY_OF or isinstance(given, NameList):
        return False
    listed = set(asked)
    return all(value in listed or (name == "sni" and _suffixed(value, listed)) for value in given)


def _suffixed(pattern: str, listed: set[str]) -> bool:
    """Whether a pattern ".suffix" in `listed` covers all that `pattern` does."""
    if pattern.startswith("re:") or pattern in ("absent", "malformed"):
        return False
    key = pattern.lstrip("*").removeprefix(".")
    labels = key.split(".")
    tails = [".".join(labels[start:]) for start in range(len(labels))]
    return any(f".{tail}" in listed for tail in tails if not any(char in tail for char in "*?[]{}+"))


def _first_bits(hits: np.ndarray[Any, np.dtype[np.uint64]]) -> list[int]:
    """For rows of bit vectors the distinct first bits set, ascending."""
    bits = np.unpackbits(np.ascontiguousarray(hits).view(np.uint8), axis=1, bitorder="little")
    return [int(bit) for bit in np.unique(bits.argmax(axis=1))]


def _warning(rule: Rule, code: str, message: str, hint: str) -> Problem:
    return Problem(rule.source, rule.line, rule.column, message, hint, "warning", code)
