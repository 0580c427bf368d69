"""Compiler of share rules: whose resources they are, and the header fields of what they grant.

A resource is owned where the conditions of a rule hold, leaving out those on the page that asks. These conditions are
rules of their own, behind the others in the vectors, so that the one AND of a decision answers that, too; they are
restrictive, because what is owned under any reading of its path is owned.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gobanfast._core.grant import CompiledGrant
from gobanfast.rules.rule import Conditions, Grant, Rule

OWNED, BY_ORIGIN, BY_FETCH_SITE, BY_SESSION = 1, 2, 4, 8
SAFE = ("GET", "HEAD", "OPTIONS")
"""Methods of requests that change nothing."""


def resources(rules: Iterable[Rule]) -> tuple[tuple[Rule, ...], bytes]:
    """For every set of conditions on resources a rule, and its flags: whether it owns, and what varies there.

    Those that grants own have a grant: a preflight does not carry all that they may ask for.
    """
    found: dict[tuple[Conditions, bool], int] = {}
    for rule in rules:
        for conditions, flags in _about(rule):
            key = conditions, rule.grant is not None
            found[key] = found.get(key, 0) | flags
    made = tuple(
        Rule("", "withhold", "enforce", None, 0, "", "", 0, 0, when, effect="resource",
             grant=Grant() if grants else None)
        for when, grants in found
    )  # fmt: skip
    return made, bytes(found.values())


def about(rules: Iterable[Rule], numbers: Iterable[int]) -> list[tuple[Rule, int]]:
    """The enforced share rules that are about a resource, and their flags, by the positions in `resources` of the
    conditions that hold of it."""
    rules = tuple(rules)
    made, _ = resources(rules)
    held = {(made[number].when, made[number].grant is not None) for number in numbers}
    found = []
    for rule in rules:
        flags = 0
        for conditions, given in _about(rule):
            flags |= given if (conditions, rule.grant is not None) in held else 0
        if flags:
            found.append((rule, flags))
    return found


def _about(rule: Rule) -> list[tuple[Conditions, int]]:
    """Conditions on resources that a rule has a say about, and flags of what it says of them."""
    if rule.effect != "share" or rule.mode != "enforce":
        return []
    when = _of_resource(rule.when)
    changing = _changing(when) if rule.when.cross_origin_write else when
    said = ((when, OWNED * (rule.action != "refuse")), (changing, _varies(rule.when)))
    return [(conditions, flags) for conditions, flags in said if flags]


def _varies(when: Conditions) -> int:
    """The request headers by which pages that ask are told apart."""
    flags = 0
    for part in (when, when.negated):
        if part is not None:
            flags |= BY_ORIGIN * (part.origin is not None or part.cross_origin_write is not None)
            flags |= BY_FETCH_SITE * (part.fetch_site is not None or part.cross_origin_write is not None)
            flags |= BY_SESSION * (part.session is not None or part.label is not None)
    return flags


def _of_resource(when: Conditions) -> Conditions:
    """The conditions that are left without those on the page that asks."""
    from dataclasses import replace

    negated = when.negated
    if negated is not None:
        negated = replace(
            negated, origin=None, fetch_site=None, cross_origin_write=None, session=None, label=None
        )  # fmt: skip
        if negated == Conditions():
            negated = None
    return replace(
        when, origin=None, fetch_site=None, cross_origin_write=None, session=None, label=None, negated=negated
    )  # fmt: skip


def _changing(when: Conditions) -> Conditions:
    """The conditions, of requests that may change something: others are no writes, so nothing varies there."""
    from dataclasses import replace

    negated = when.negated or Conditions()
    return replace(when, negated=replace(negated, method=(*(negated.method or ()), *SAFE)))


def grants(rules: Sequence[Rule], trace: Sequence[str] = ()) -> tuple[CompiledGrant | None, ...]:
    """What each share rule grants; None for those that grant nothing.

    Args:
        trace: request headers that carry a trace, which every grant allows that does not say otherwise.
    """
    return tuple(compiled_grant(rule, trace) for rule in rules if rule.effect == "share")


def allowed_for_traces(grant: Grant, trace: Sequence[str]) -> list[str]:
    """Headers that a grant allows beside those that it lists."""
    listed = {name.lower() for name in grant.headers}
    return [name for name in trace if grant.trace_headers and name not in listed and "*" not in listed]


def compiled_grant(rule: Rule, trace: Sequence[str] = ()) -> CompiledGrant | None:
    """The header fields of a grant."""
    grant = rule.grant
    if grant is None:
        return None
    on_page = [part.origin for part in (rule.when, rule.when.negated) if part is not None and part.origin is not None]
    any_origin = not grant.credentials and on_page in ([], [("*",)])
    return CompiledGrant(
        any_origin, credentials=grant.credentials, methods=grant.methods,
        headers=(*grant.headers, *allowed_for_traces(grant, trace)), expose=grant.expose,
        max_age=grant.max_age,
    )  # fmt: skip
