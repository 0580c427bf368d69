"""Lint of share rules: refusals of those who have no Origin, grants that caches and copies undo, wide patterns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from gobanfast._errors import Problem
from gobanfast.origins import parse_origin_pattern
from gobanfast.rules.regex import compile_regex
from gobanfast.rules.rule import WORDS
from gobanfast.rules.text.grant_checks import public_suffix
from gobanfast.wire.fetch import SAFELISTED_METHODS

if TYPE_CHECKING:
    from gobanfast.rules.rule import Conditions, Rule

_ORIGINS = ("https://a.invalid", "http://b.invalid:1", "https://x.y.z")  # no pattern of an owner covers one of these
_UNSEEN = (
    "prefix", "prefix_file", "outside", "outside_file", "asn", "asn_name", "sni", "sni_file", "ja4", "ja4_prefix",
    "alpn", "tls_version_below", "ech", "fingerprint", "shape", "label",
)  # fmt: skip
"""Conditions on what no header of a request says, so that Vary cannot name it."""


def share_findings(rule: Rule) -> Iterator[Problem]:
    """Warnings about one share rule, whatever the others say."""
    if rule.effect != "share":
        return
    yield from _refused_without_origin(rule)
    yield from _wide_patterns(rule)
    if rule.action == "grant":
        yield from _unseen_by_caches(rule)
        yield from _copied(rule)
        yield from _public_suffixes(rule)
        yield from _lower_case(rule)


def _refused_without_origin(rule: Rule) -> Iterator[Problem]:
    when = rule.when
    if rule.action != "refuse" or when.negated is None or when.negated.origin is None:
        return
    on_pages = when.cross_origin_write or when.origin is not None or when.fetch_site is not None
    if not on_pages and "absent" not in when.negated.origin:
        message = f"rule '{rule.id}' refuses every request without an Origin: visits of pages, probes and programs"
        yield _warning(
            rule, "refused-without-origin", message, "add absent to not: origin, or cross_origin_write: true"
        )


def _unseen_by_caches(rule: Rule) -> Iterator[Problem]:
    unseen = [name for name in _UNSEEN if any(getattr(part, name) is not None for part in _parts(rule.when))]
    if unseen:
        message = f"rule '{rule.id}' grants by {', '.join(unseen)}, which Vary cannot name: a cache gives it to all"
        yield _warning(rule, "unseen-by-caches", message, "grant by origin and path, or send cache-control: private")


def _copied(rule: Rule) -> Iterator[Problem]:
    when = rule.when
    copied = [name for name in ("fingerprint", "shape", "ja4", "ja4_prefix") if getattr(when, name) is not None]
    if copied and when.origin is None and not when.prefix_lists and not when.on_asn:
        message = f"rule '{rule.id}' grants to any page in a client that has, or copies, its {' and '.join(copied)}"
        yield _warning(rule, "copied-grant", message, "add origin: a fingerprint names a browser, not a page")


def _public_suffixes(rule: Rule) -> Iterator[Problem]:
    for text in _patterns(rule.when.origin):
        pattern = parse_origin_pattern(text)
        if pattern.kind in ("one", "many") and public_suffix(pattern.host):
            message = f"rule '{rule.id}' grants to every site under the public suffix '{pattern.host}' ('{text}')"
            yield _warning(rule, "public-suffix", message, "write the sites that are meant")


def _lower_case(rule: Rule) -> Iterator[Problem]:
    """Source: Fetch Standard, "normalize a method": DELETE and PUT go out in capitals, others as pages write them."""
    methods = () if rule.grant is None else rule.grant.methods
    for method in methods:
        if method != method.upper() and method.upper() not in SAFELISTED_METHODS:
            message = f"rule '{rule.id}' grants the method '{method}', which is not {method.upper()}: case counts"
            yield _warning(rule, "lower-case-method", message, f"write {method.upper()}, as pages and browsers do")


def _wide_patterns(rule: Rule) -> Iterator[Problem]:
    for part in _parts(rule.when):
        for text in _patterns(part.origin):
            if text.startswith("re:") and all(map(compile_regex(f"^(?:{text[3:]})$").search, _ORIGINS)):
                message = f"rule '{rule.id}' has a pattern that matches every origin, '{text}'"
                yield _warning(rule, "wide-regex", message, "write https://**.example.com, or leave origin out")


def _parts(when: Conditions) -> tuple[Conditions, ...]:
    return (when,) if when.negated is None else (when, when.negated)


def _patterns(texts: tuple[str, ...] | None) -> list[str]:
    return [text for text in texts or () if text not in WORDS]


def _warning(rule: Rule, code: str, message: str, hint: str) -> Problem:
    return Problem(rule.source, rule.line, rule.column, message, hint, "warning", code)
