"""Compile driver: checked rules through overlay and tables into a Ruleset."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from gobanfast._digest import blake2b
from gobanfast._errors import Problem, RuleError

if TYPE_CHECKING:
    from gobanfast.asn import AsnTable
    from gobanfast.rules.rule import PrefixList, Rule, Unparsable
    from gobanfast.rules.ruleset import Ruleset
    from gobanfast.rules.settings import Settings
    from gobanfast.rules.text.includes import Tree


def build(tree: Tree, asn: AsnTable | None, kind: type[Ruleset]) -> Ruleset:
    """The ruleset, a `kind`, of the rules files in `tree` over an AS table; None takes the starter table.

    Raises:
        RuleError: every problem of the files, by place.
    Cost: see `Ruleset.load`.
    """
    from gobanfast._core.compiled_rules import CompiledRules
    from gobanfast.rules.check import lint
    from gobanfast.rules.compile.address import overlay
    from gobanfast.rules.compile.connection import connection_table
    from gobanfast.rules.compile.live import live_table
    from gobanfast.rules.compile.record import record_table, trace_headers
    from gobanfast.rules.compile.request import always_holds, header_plan, request_table
    from gobanfast.rules.compile.share import grants, resources
    from gobanfast.rules.text import schema

    if not tree.documents:
        raise RuleError(tree.problems)
    found = schema.check(tree.documents, tree.inputs)
    problems = tree.problems + found.problems
    if problems:
        raise RuleError(_by_place(problems, tree))
    starter = asn is None
    if asn is None:
        from gobanfast.asn import AsnTable

        asn = AsnTable.starter()
    elif not hasattr(asn, "ranges"):
        raise TypeError(
            f"asn is {asn!r:.80}, {type(asn).__name__} and not AsnTable; read a file: gobanfast.asn.read(path)"
        )
    rules = tuple(sorted((rule for rule in found.rules if rule.mode != "off"), key=lambda rule: rule.order))
    of_resources, flags = resources(rules)
    bits = (*rules, *of_resources)
    arrays = overlay(bits, asn)
    source = tree.documents[0].source
    try:
        signals = connection_table(bits)
    except ValueError as error:
        raise RuleError(_misfits(rules, source, str(error))) from None
    try:
        plan = header_plan(rules, found.settings.fingerprint, found.settings.session)
    except ValueError as error:
        raise RuleError([Problem(source, 1, 1, str(error))]) from None
    try:
        live = live_table(bits, found.settings.session)
    except ValueError as error:
        raise RuleError([Problem(source, 1, 1, *str(error).split("; ", 1))]) from None
    warnings = found.unused + lint.lint(
        tree.documents,
        rules,
        arrays,
        starter=starter,
        scored=found.settings.score is not None,
        sessions=found.settings.session is not None and bool(found.settings.session.sources),
    )
    trace = found.settings.trace
    compiled = CompiledRules(rules, unparsable=found.unparsable, signals=signals, plan=plan,
                             requests=request_table(bits, plan), resources=flags,
                             grants=grants(rules, trace_headers(rules, trace)),
                             records=record_table(rules, len(bits), trace), live=live,
                             **arrays.arguments())  # fmt: skip
    compiled.complete(partial(facts, rules, found.unparsable, found.settings, found.trust), asn,
                      always_holds=always_holds)  # fmt: skip
    return kind(
        rules, found.unparsable, found.settings, found.trust, tuple(found.cases),
        tuple(_by_place(warnings, tree)), compiled, arrays, source, asn, tree.inputs, asn.content_hash,
        None,
    )  # fmt: skip


def facts(rules: tuple[Rule, ...], unparsable: Unparsable, settings: Settings, trust: PrefixList) -> bytes:
    """What a ruleset says besides its compiled arrays, as its content hash takes it in."""
    from dataclasses import astuple
    from dataclasses import fields as fields_of

    # all but where lists come from, which decides nothing
    decides = tuple(
        value for each, value in zip(fields_of(settings), astuple(settings), strict=True) if each.name != "feeds"
    )
    digest = blake2b(repr(decides).encode(), digest_size=32)  # astuple, because repr hides the key
    digest.update(unparsable.encode() + trust.addresses + trust.lengths)
    for rule in rules:
        said = [rule.id, rule.action, rule.mode, rule.duration, rule.key, rule.priority, rule.reason, rule.weigh]
        if rule.effect != "admit":
            said += [rule.effect, repr(rule.grant)]
        if rule.effect == "record":
            said += [repr(rule.rate), repr(rule.when.outcome)]
        if rule.limit is not None:
            said.append(repr(rule.limit))
        if rule.when.on_live:
            said += [repr(rule.when.live_tests)]
        digest.update(repr(tuple(said)).encode())
    return digest.digest()


def _by_place(problems: list[Problem], tree: Tree) -> list[Problem]:
    """The rules files in order, then the lists they name, each from the top."""
    order = {document.source: index for index, document in enumerate(tree.documents)}
    return sorted(problems, key=lambda item: (order.get(item.source, len(order)), item.source, item.line, item.column))


def _misfits(rules: tuple[Rule, ...], source: str, text: str) -> list[Problem]:
    """Name patterns that are fine alone and do not compile together, at the rules that have them."""
    problems = []
    for line in text.split("\n"):
        message, _, hint = line.partition("; ")
        owners = [rule for rule in rules if any(repr(pattern) in message for pattern in rule.when.sni or ())]
        owners += [rule for rule in rules if rule.when.sni_file is not None]
        problems.append(Problem(source, owners[0].line, owners[0].column, message, hint))
    return problems
