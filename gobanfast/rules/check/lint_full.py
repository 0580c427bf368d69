"""Full lint for `gobanfast rules lint`: checks too slow, or with optional dependencies, for every load."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gobanfast._errors import Problem
from gobanfast.bans import WIDE_FRACTION
from gobanfast.rules.check.lint import wide
from gobanfast.rules.check.lint_share import share_findings
from gobanfast.rules.check.unreachable import unreachable
from gobanfast.rules.compile.address import sortable, spans
from gobanfast.rules.regex import compile_regex
from gobanfast.rules.rule import PrefixList, Rule
from gobanfast.rules.text.grant_checks import public_suffix

if TYPE_CHECKING:
    from gobanfast.rules.compile.address import Overlay
    from gobanfast.rules.ruleset import Ruleset

#: Where clients are not who they seem, or are ourselves.
SPECIAL = (
    ("100.64.0.0/10", "shared by the customers of providers (RFC 6598)"),
    ("10.0.0.0/8", "private"), ("172.16.0.0/12", "private"), ("192.168.0.0/16", "private"), ("fc00::/7", "private"),
    ("127.0.0.0/8", "this machine"), ("::1/128", "this machine"),
    ("169.254.0.0/16", "link-local"), ("fe80::/10", "link-local"),
)  # fmt: skip

MOST_NAMES = 10_000  # of a list file that are held against the public suffixes
_PROBES = ("", "AS1", "AS4200000000 zq-7 x", "AS65551 Qwerty Ltd.")
_NAMES = ("a", "zq-7.example", "x1.y2.z3.test", "www.qwerty.co.uk")


def findings(ruleset: Ruleset, *, starter: bool, fraction: float = WIDE_FRACTION) -> list[Problem]:
    """Every warning about a ruleset compiled from text, those of loading among them.

    Args:
        starter: the AS table is the starter table, which knows few ASes.
        fraction: part of the IPv4 addresses, or of the IPv6 ones in use (2000::/3), that a rule may cover unremarked.
    Cost: rules x classes; seconds for thousands of rules over a whole-Internet table.
    """
    overlay = ruleset.overlay
    if overlay is None:
        raise ValueError(f"{ruleset.source} is compiled; lint the files it was made from")
    found = [problem for problem in ruleset.problems if problem.code != "wide-rule"]
    found += wide(ruleset.rules, overlay, fraction)
    found += unreachable(ruleset.rules, overlay, starter=starter)
    found += _ours(ruleset.rules, overlay, ruleset.trust)
    for rule in ruleset.rules:
        found += _copied(rule)
        found += _public_suffixes(rule)
        found += _wide_regexes(rule)
        found += share_findings(rule)
    order: dict[str, int] = {}
    for path in ruleset.inputs.files:
        order[path] = len(order)
    return sorted(found, key=lambda problem: (order.get(problem.source, 0), problem.line, problem.column))


def _warning(rule: Rule, code: str, message: str, hint: str) -> Problem:
    return Problem(rule.source, rule.line, rule.column, message, hint, "warning", code)


# ---- address space


def _ours(rules: Sequence[Rule], overlay: Overlay, trust: PrefixList) -> Iterator[Problem]:
    """Rules whose prefixes reach into space that many share, that is private, or whose peers are trusted."""
    vectors = overlay.vectors.reshape(-1, overlay.words)
    allowed = np.zeros(overlay.words, np.uint64)
    for bit, rule in enumerate(rules):
        if rule.action == "allow" and rule.mode == "enforce" and not rule.when.on_signals:
            allowed[bit // 64] |= np.uint64(1 << bit % 64)
    places = [(_packed([prefix]), f"{prefix} ({what})") for prefix, what in SPECIAL]
    if len(trust):
        places.append((trust, "prefixes under trust:"))
    reached: dict[int, list[str]] = {}
    for prefixes, what in places:
        rows = vectors[np.unique(_classes(overlay, prefixes))]
        rows = rows[~(rows & allowed).any(axis=1)]
        together = np.bitwise_or.reduce(rows, axis=0) if len(rows) else allowed * np.uint64(0)
        for bit, rule in enumerate(rules):
            listed = rule.when.prefix_lists and rule.action in ("ban", "challenge")
            if listed and int(together[bit // 64]) >> bit % 64 & 1:
                reached.setdefault(bit, []).append(what)
    for bit, where in sorted(reached.items()):
        rule = rules[bit]
        code = "trusted-prefix" if where[-1].endswith("trust:") else "special-prefix"
        message = f"rule '{rule.id}' can {rule.action} clients in {', '.join(where)}"
        yield _warning(rule, code, message, "allow them first, or leave that space out")


def _packed(prefixes: Iterable[str]) -> PrefixList:
    from gobanfast._core.address import parse_prefix

    pairs = [parse_prefix(prefix) for prefix in prefixes]
    return PrefixList(b"".join(address for address, _ in pairs), bytes(bits for _, bits in pairs))


def _classes(overlay: Overlay, prefixes: PrefixList) -> np.ndarray[Any, Any]:
    """Classes of the ranges that the prefixes meet."""
    found = []
    (first4, end4), (first6, end6) = spans(prefixes)
    for starts, leaves, first, end in (
        (overlay.starts4.astype(np.uint64), overlay.leaves4, first4, end4),
        (sortable(overlay.starts6), overlay.leaves6, first6, end6),
    ):
        low = np.searchsorted(starts, first, "right") - 1
        high = np.searchsorted(starts, end, "left")
        for start, stop in zip(low.tolist(), high.tolist(), strict=True):
            found.append(overlay.leaf_class[leaves[start:stop]])
    return np.concatenate(found) if found else np.zeros(0, np.uint32)


# ---- what others have, or can copy


def _copied(rule: Rule) -> Iterator[Problem]:
    """A ban of what one request and many people share; and a way in by what anyone can send."""
    if rule.key == "fingerprint" and rule.action == "ban" and rule.duration is not None and rule.mode != "off":
        message = f"rule '{rule.id}' bans a fingerprint for one request, and everyone with such a browser has it"
        yield _warning(rule, "shared-ban", message, "write key: client_fingerprint, or leave key out")
    when = rule.when
    if rule.action != "allow" or when.prefix_lists or when.on_asn:
        return
    claims = {"crawler": "crawler", "family": "ua_family"}
    copied = ["fingerprint"] * bool(when.fingerprint) + ["ja4"] * bool(when.ja4 or when.ja4_prefix)
    copied += [claims[test.operator] for test in when.header or () if test.operator in claims]
    if copied and all(test.operator in claims for test in when.header or ()):  # another header may be a secret
        message = f"rule '{rule.id}' lets in whoever copies its {' and '.join(copied)}"
        yield _warning(rule, "copied-allow", message, "add prefix, prefix_file or asn, which cannot be copied")


# ---- names


def _public_suffixes(rule: Rule) -> Iterator[Problem]:
    if rule.action not in ("ban", "challenge"):
        return
    listed: list[str] = list(rule.when.sni or ())
    if rule.when.sni_file is not None and len(rule.when.sni_file) <= MOST_NAMES:
        listed += rule.when.sni_file
    for pattern in listed:
        key = pattern.lstrip("*").removeprefix(".")
        if key == pattern or any(char in key for char in "*?[]{}+\\"):
            continue  # a name of its own, or not literal
        if public_suffix(key):
            message = f"rule '{rule.id}' covers every name under the public suffix '{key}' ('{pattern}')"
            yield _warning(rule, "public-suffix", message, "write the names that are meant")


# ---- regexes


def _wide_regexes(rule: Rule) -> Iterator[Problem]:
    for named in rule.when.asn_name or ():
        search = compile_regex(named.regex).search
        if all(search(text) for text in _PROBES):
            message = f"rule '{rule.id}' has a pattern that matches every AS, '{named.regex}'"
            yield _warning(rule, "wide-regex", message, "write what the names have that are meant")
    for pattern in rule.when.sni or ():
        if pattern.startswith("re:"):
            search = compile_regex(f"^(?:{pattern[3:]})$").search
            if search("") or all(search(text) for text in _NAMES):
                message = f"rule '{rule.id}' has a pattern that matches every name or the empty one, '{pattern}'"
                yield _warning(rule, "wide-regex", message, "write '**.example.com' or '.example.com'")
