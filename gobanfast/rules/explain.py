"""Why a decision is what it is, in words: the rule, its place, what it saw, and what would change the answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from gobanfast.rules.regex import compile_regex
from gobanfast.rules.rule import PrefixList, Rule

if TYPE_CHECKING:
    from gobanfast._engine import Decision
    from gobanfast.asn import AsnTable


def explain(decision: Decision, asn: AsnTable) -> str:
    """Lines of text about `decision`; `asn` names the AS. Reads the decision's own ruleset, whatever is in force now.

    Cost: builds the prefix list of the deciding rule anew to say which entry matched; not for a hot path.
    """
    lines = [f"{decision.address or 'no address'}: {decision.action}"]
    lines += (f"  {label:<11}{text}" for label, text in _parts(decision, asn))
    return "\n".join(lines)


def _parts(decision: Decision, asn: AsnTable) -> Iterator[tuple[str, str]]:
    by_id = {rule.id: rule for rule in decision.compiled.rules}
    rule = None if decision.rule is None else by_id[decision.rule]
    network = "AS unknown" if decision.asn is None else asn.describe(decision.asn)
    yield "signals", f"address {decision.address}, {network}"
    if rule is not None:
        yield "decided by", _place(rule)
        for text in _because(rule, decision, asn):
            yield "because", text
        others = [by_id[name] for name in decision.matched if name != rule.id]
        yield "without it", _place(others[0]) if others else "allow: no other rule matches"
    elif decision.reason is not None:
        yield "decided by", f"policy 'unparsable': the address is {decision.reason}"
    else:
        yield "decided by", "no rule: nothing matches, so it is allowed"
    for name in decision.shadow:
        yield "shadow", f"would have decided, were it enforced: {_place(by_id[name])}"
    for name in decision.logged:
        yield "logged by", _place(by_id[name])


def _place(rule: Rule) -> str:
    lasts = "" if rule.duration is None else f" for {rule.duration:g} s"
    reason = f" ({rule.reason})" if rule.reason else ""
    return f"{rule.action}{lasts} by rule {rule.id!r} at {rule.source}:{rule.line}:{rule.column}{reason}"


def _because(rule: Rule, decision: Decision, asn: AsnTable) -> Iterator[str]:
    """What made each condition of the deciding rule hold."""
    when = rule.when
    if not when.on_address:
        yield "it matches everything (when: any)"
    for name, listed in (("prefix", when.prefix), ("prefix_file", when.prefix_file)):
        if listed is not None and decision.address is not None:
            yield f"{name}: {_entry(listed, decision.address)} covers the address"
    if when.asn is not None:
        yield f"asn: AS{decision.asn} is listed"
    if when.asn_name is not None and decision.asn is not None:
        for pattern in when.asn_name:
            text = asn.describe(decision.asn).replace(" ", pattern.separator, 1)
            if compile_regex(pattern.regex).search(text):
                yield f"asn_name: {pattern.regex!r} matches {text!r}"


def _entry(listed: PrefixList, address: str) -> str:
    from gobanfast._prefix import PrefixTable

    table = PrefixTable.from_packed(listed.addresses, listed.lengths, bytes(4 * len(listed)))
    found = table.lookup_prefix(address)
    return f"one of {len(listed)} prefixes" if found is None else f"{found[0]} (of {len(listed)})"
