"""Lint at load: warnings about rules that load but probably do not do what was meant."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from gobanfast._errors import Problem
from gobanfast.bans import WIDE_FRACTION
from gobanfast.rules.check.spelling import spelling

if TYPE_CHECKING:
    from gobanfast.rules.compile.address import Overlay
    from gobanfast.rules.rule import Rule
    from gobanfast.rules.text.includes import Document


def lint(
    documents: Sequence[Document], rules: Sequence[Rule], overlay: Overlay, *, starter: bool, scored: bool,
    sessions: bool = True,
) -> list[Problem]:  # fmt: skip
    """Warnings about loaded rules; `rules` and `overlay` share their order. `scored`: there is a section `score`;
    `sessions`: there is one that says where a session is."""
    found = [*_legacy_traps(documents), *spelling(documents), *wide(rules, overlay), *_loose_limits(rules)]
    if starter:
        found += _starter(rules)
    if not scored:
        found += _unscored(rules)
    if not sessions:
        found += _sessionless(rules)
    return found


def _warning(source: str, line: int, column: int, code: str, message: str, hint: str) -> Problem:
    return Problem(source, line, column, message, hint, "warning", code)


def _legacy_traps(documents: Sequence[Document]) -> list[Problem]:
    found = []
    for document in documents:
        for index, entry in enumerate(document.root.value.get("ban_rules", [])):
            if "asn_prefix" in entry:
                place = document.root.key_place(("ban_rules", index, "asn_prefix"))
                message = f"asn_prefix '{entry['asn_prefix']}' is an AS number, not a text prefix"
                hint = "write asn: under rules: to say so"
                found.append(_warning(document.source, *place, "asn-prefix", message, hint))
    return found


def _loose_limits(rules: Sequence[Rule]) -> Iterator[Problem]:
    for rule in rules:
        kind = "" if rule.limit is None else rule.limit.key.partition(":")[0]
        if rule.limit is not None and kind in ("header", "cookie", "session"):
            message = f"limit '{rule.id}' counts by {rule.limit.key}, and a client that sends another one counts anew"
            hint = "have the application check it, or add a limit with key: client"
            others = (other.limit for other in rules if other.limit is not None and other is not rule)
            if not any(other.key in ("client", "asn") for other in others):
                yield _warning(rule.source, rule.line, rule.column, "loose-limit", message, hint)


def _starter(rules: Sequence[Rule]) -> list[Problem]:
    for rule in sorted(rules, key=lambda rule: (rule.line, rule.column)):
        if rule.when.on_asn:
            message = f"rule '{rule.id}' has a condition on the AS, and the starter table only has well-known networks"
            return [
                _warning(
                    rule.source,
                    rule.line,
                    rule.column,
                    "starter-table",
                    message,
                    "build a full table with gobanfast asn build",
                )
            ]
    return []


def _unscored(rules: Sequence[Rule]) -> Iterator[Problem]:
    for rule in rules:
        if rule.weigh is not None:
            message = f"rule '{rule.id}' weighs {rule.weigh:g}, and nothing is scored"
            hint = "write a section score:, or remove weigh"
            yield _warning(rule.source, rule.line, rule.column, "weigh-without-score", message, hint)


def _sessionless(rules: Sequence[Rule]) -> Iterator[Problem]:
    for rule in rules:
        if any(part is not None and part.session is not None for part in (rule.when, rule.when.negated)):
            message = f"rule '{rule.id}' asks for a session, and nothing says where one is"
            hint = "write session: {cookie: sid, keys: [env:GOBANFAST_SESSION_KEY]}"
            yield _warning(rule.source, rule.line, rule.column, "session-without-source", message, hint)


def wide(rules: Sequence[Rule], overlay: Overlay, fraction: float = WIDE_FRACTION) -> list[Problem]:
    """Warnings about rules that cover more than `fraction` of the addresses of a family."""
    import numpy as np

    from gobanfast.rules.compile.address import held

    vectors = overlay.vectors.reshape(-1, overlay.words)
    sizes4 = np.diff(np.append(overlay.starts4.astype(np.int64), 1 << 32))
    halves = overlay.starts6.reshape(-1, 16).view(">u8").astype(np.float64)
    starts6 = np.append(halves[:, 0] + halves[:, 1] / 2.0**64, 2.0**64)  # in networks of 64 bits
    families = []
    for name, sizes, leaves, total in (
        ("IPv4 addresses", sizes4, overlay.leaves4, 1 << 32),
        ("IPv6 networks (/64)", np.diff(starts6), overlay.leaves6, 1 << 61),
    ):
        weights = np.bincount(overlay.leaf_class[leaves], weights=sizes, minlength=len(vectors))
        families.append((name, weights, total))
    found = []
    for bit, rule in enumerate(rules):
        if rule.action not in ("challenge", "ban") or not rule.when.on_address or rule.when.on_signals:
            continue  # `when: any` is spelled out, so it is meant; other signals narrow it by who knows how much
        if not rule.when.prefix_lists and not rule.when.on_asn:
            continue  # `outside` is, too
        for name, weights, total in families:
            covered = int(weights[held(vectors, bit)].sum())
            if covered > fraction * total:
                message = f"rule '{rule.id}' covers {covered} {name}, {min(1.0, covered / total):.1%} of all"
                hint = "check its prefixes and AS conditions"
                found.append(_warning(rule.source, rule.line, rule.column, "wide-rule", message, hint))
    return found
