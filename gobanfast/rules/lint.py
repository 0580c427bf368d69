"""Warnings: rules that load and probably do not do what was meant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gobanfast._errors import Problem

if TYPE_CHECKING:
    from gobanfast.rules.compile import Overlay
    from gobanfast.rules.rule import Rule
    from gobanfast.rules.source import Node

WIDE = 1 << 24  # addresses; a /8


def lint(root: Node, source: str, rules: Sequence[Rule], overlay: Overlay, *, starter: bool) -> list[Problem]:
    """Warnings about loaded rules, in file order; `rules` and `overlay` share their order."""
    found = [*_founding_traps(root, source), *_wide(rules, overlay)]
    if starter:
        found += _starter(rules)
    return sorted(found, key=lambda problem: (problem.line, problem.column))


def _warning(source: str, line: int, column: int, message: str, hint: str) -> Problem:
    return Problem(source, line, column, message, hint, "warning")


def _founding_traps(root: Node, source: str) -> list[Problem]:
    found = []
    for index, entry in enumerate(root.value.get("ban_rules", [])):
        if "asn_prefix" in entry:
            line, column = root.key_place(("ban_rules", index, "asn_prefix"))
            message = f"asn_prefix '{entry['asn_prefix']}' is an AS number, not a text prefix"
            found.append(_warning(source, line, column, message, "write asn: under rules: to say so"))
    return found


def _starter(rules: Sequence[Rule]) -> list[Problem]:
    for rule in sorted(rules, key=lambda rule: (rule.line, rule.column)):
        if rule.when.on_asn:
            message = f"rule '{rule.id}' asks for an AS, and the starter table only knows well-known networks"
            return [
                _warning(rule.source, rule.line, rule.column, message, "build a full table with gobanfast asn build")
            ]
    return []


def _wide(rules: Sequence[Rule], overlay: Overlay) -> list[Problem]:
    import numpy as np

    from gobanfast.rules.compile import held

    sizes = np.diff(np.append(overlay.starts4.astype(np.int64), 1 << 32))
    vectors = overlay.vectors.reshape(-1, overlay.words)
    weights = np.bincount(overlay.record_class[overlay.records4], weights=sizes, minlength=len(vectors))
    found = []
    for bit, rule in enumerate(rules):
        if rule.action in ("allow", "log") or not rule.when.on_address or rule.when.on_signals:
            continue  # `when: any` is spelled out, so it is meant; other signals narrow it by who knows how much
        covered = int(weights[held(vectors, bit)].sum())
        if covered > WIDE:
            message = f"rule '{rule.id}' covers {covered} IPv4 addresses, {covered / (1 << 32):.1%} of all"
            found.append(_warning(rule.source, rule.line, rule.column, message, "check its prefixes and AS conditions"))
    return found
