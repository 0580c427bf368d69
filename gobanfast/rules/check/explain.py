"""Explanations of decisions: the rule, its place, the values it matched, and the nearest change of outcome."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from gobanfast._core.name_table import NameTable
from gobanfast._core.name_text import normalize_name
from gobanfast._values import duration_text
from gobanfast.headers import HTTP_VERSIONS, normalize_headers
from gobanfast.rules.compile.request import holds, names_in, reading_of, text_of
from gobanfast.rules.regex import compile_regex
from gobanfast.rules.rule import HeaderTest, Negation, PrefixList, Rule
from gobanfast.rules.text.fields import SNI_WORDS, TLS_VERSIONS
from gobanfast.wire.hosts import agreement
from gobanfast.wire.lookalikes import Lookalikes

if TYPE_CHECKING:
    from gobanfast._core.decision import Decision
    from gobanfast.asn import AsnTable

SHOWN_CHARS = 120
VERBS = {
    "equals": "{} equals", "contains": "{} is in", "prefix": "{} begins", "suffix": "{} ends", "regex": "{} matches",
    "glob": "{} covers", "family": "the family {} is that of", "crawler": "the crawler {} is claimed by",
}  # fmt: skip
_VERSION_NAMES = {number: name for name, number in TLS_VERSIONS.items()}


def explain(decision: Decision) -> str:
    """Lines of text about `decision`. Reads the decision's own rules and AS names, whatever is in force now.

    Cost: builds the prefix list of the deciding rule anew to say which entry matched; not for a hot path.
    """
    lines = [f"{_shown(decision.address) or 'no address'}: {decision.action}"]
    lines += (f"  {label:<11}{text}" for label, text in _parts(decision))
    return "\n".join(lines)


def _parts(decision: Decision) -> Iterator[tuple[str, str]]:
    by_id = {rule.id: rule for rule in decision.compiled.rules}
    network = "AS unknown" if decision.asn is None else _network(decision.asn, decision.compiled.asn)
    yield "signals", f"address {_shown(decision.address)}, {network}"
    for text in _other_signals(decision):
        yield "", text
    if decision.cause == "rule":
        rule = by_id[str(decision.rule)]
        yield "decided by", _place(rule)
        for text in _because(rule, decision):
            yield "because", text
        if decision.ban is not None:
            yield "stored", f"as a ban of {decision.ban}"
    else:
        yield "decided by", _live(decision)
    others = [by_id[name] for name in decision.matched if decision.cause != "rule" or name != decision.rule]
    if decision.cause in ("rule", "ban", "outage"):
        none = "allow: no other rule matches" if decision.cause == "rule" else "allow: no rule matches"
        yield "without it", _place(others[0]) if others else none
    for name in decision.shadow:
        yield "shadow", f"would have decided, were it enforced: {_place(by_id[name])}"
    for name in decision.logged:
        weigh = None if decision.score is None else by_id[name].weigh
        yield "logged by", _place(by_id[name]) + ("" if weigh is None else f"; adds {weigh:g} to the score")


def _shown(address: str | None) -> str | None:
    """An address as it came; as a literal when it holds what no address does, for a terminal."""
    if address is None or (address.isascii() and address.isprintable() and len(address) <= SHOWN_CHARS):
        return address
    return repr(address[:SHOWN_CHARS])


def _live(decision: Decision) -> str:
    """What decided, where no rule did."""
    if decision.cause == "ban":
        reason = f" ({decision.reason})" if decision.reason else ""
        maker = f", made by {decision.rule!r}" if decision.rule else ""
        return f"the ban of {decision.ban}{reason}{maker}, {_end(decision.expires)}"
    if decision.cause == "tracker":
        banned = "" if decision.ban is None else f"; {decision.ban} is banned {_end(decision.expires)}"
        return f"tracker {decision.rule!r}: the client is over its limit{banned}"
    if decision.cause == "unparsable":
        return f"policy 'unparsable': {decision.reason}"
    if decision.cause == "outage":
        return "the store does not answer, and policy on_outage is 'closed': whoever no rule allows is banned"
    if decision.cause == "score":
        return f"{_score(decision)}: too unusual"
    scored = "" if decision.score is None else f"; {_score(decision)}"
    return f"no rule: nothing matches, so it is allowed{scored}"


def _network(number: int, table: AsnTable | None) -> str:
    return f"AS{number}" if table is None else table.describe(number)


def _score(decision: Decision) -> str:
    threshold = "none yet" if decision.threshold is None else f"{decision.threshold:.2f}"
    return f"score {decision.score:.2f}, threshold {threshold}, from {decision.coverage:.0%} of the weights"


def _end(expires: float | None) -> str:
    return "for good" if expires is None else f"until {datetime.fromtimestamp(expires, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _place(rule: Rule) -> str:
    lasts = "" if rule.duration is None else f" for {duration_text(rule.duration)}"
    reason = f" ({rule.reason})" if rule.reason else ""
    return f"{rule.action}{lasts} by rule {rule.id!r} at {rule.source}:{rule.line}:{rule.column}{reason}"


def _because(rule: Rule, decision: Decision) -> Iterator[str]:
    """What made each condition of the deciding rule hold."""
    when = rule.when
    if not when.on_address and not when.on_signals:
        yield "it matches everything (when: any)"
    for name, listed in (("prefix", when.prefix), ("prefix_file", when.prefix_file)):
        if listed is not None and decision.address is not None:
            yield f"{name}: {_entry(listed, decision.address)} covers the address"
    for name, listed in (("outside", when.outside), ("outside_file", when.outside_file)):
        if listed is not None:
            yield f"{name}: none of {len(listed)} prefixes covers the address"
    if when.asn is not None:
        yield f"asn: AS{decision.asn} is listed"
    if when.asn_name is not None and decision.asn is not None:
        for pattern in when.asn_name:
            text = _network(decision.asn, decision.compiled.asn).replace(" ", pattern.separator, 1)
            if compile_regex(pattern.regex).search(text):
                yield f"asn_name: {pattern.regex!r} matches {text!r}"
    yield from _because_sni(rule, decision)
    yield from _because_hello(rule, decision)
    yield from _because_request(rule, decision)


def _other_signals(decision: Decision) -> Iterator[str]:
    """What the request says besides the address, in words."""
    hello = decision.hello
    if decision.sni is not None:
        yield f"sni {decision.sni!r}" + (" (malformed)" if normalize_name(decision.sni) is None else "")
    elif hello is not None and hello.status == "ok" and hello.sni_bytes is not None:
        yield f"sni {hello.sni_bytes!r} (malformed)"
    elif decision.compiled.signals is not None and (hello is None or hello.status == "ok"):
        yield "sni absent"
    if hello is not None and hello.status == "ok":
        version = _VERSION_NAMES.get(hello.version or 0, f"0x{hello.version:04x}")
        yield f"hello {hello.ja4}, alpn {', '.join(hello.alpn) or 'none'}, TLS {version}, ech {hello.ech or 'none'}"
    elif hello is not None:
        yield f"hello {hello.status}: {hello.problem or f'{hello.need} more bytes needed'}"
    elif decision.ja4 is not None:
        yield f"ja4 {decision.ja4[:SHOWN_CHARS]!r}, no hello"
    request = {"method": decision.method, "path": decision.path, "mount": decision.mount or None}
    parts = [f"{name} {value[:SHOWN_CHARS]!r}" for name, value in request.items() if value is not None]
    if parts:
        yield ", ".join(parts)
    if decision.headers is not None:
        found = normalize_headers(decision.headers, decision.http if decision.http in HTTP_VERSIONS else None)
        made = decision.fingerprint
        agent = dict(found.pairs).get(b"user-agent")
        shown = "absent" if agent is None else repr(agent[:SHOWN_CHARS].decode("latin-1"))
        yield (
            f"headers malformed: {found.problem}" if found.problem else f"{made}, {decision.shape}, user-agent {shown}"
        )


def _because_request(rule: Rule, decision: Decision) -> Iterator[str]:
    plan = decision.compiled.plan
    for test in rule.when.request_tests:
        if isinstance(test, Negation):
            continue
        if test.name == ":names":
            yield from _because_names(test, decision)
            continue
        if test.name == ":path":
            yield from _because_path(rule, test, decision)
            continue
        label = test.name.removeprefix(":") if test.name.startswith(":") else f"header {test.name}"
        value, malformed = plan.signal(test.name, decision.headers, decision.method, decision.path, decision.http)
        if malformed or value is None:
            yield f"{label}: it is {'malformed' if malformed else 'absent'}"
            continue
        text = text_of(value)
        shown = _quoted(text)
        if "present" in test.words:
            yield f"{label}: {shown} is present"
            continue
        one = next((item for item in test.values if holds(HeaderTest(test.name, test.operator, (item,)))(text)), None)
        yield f"{label}: {shown}" if one is None else f"{label}: {VERBS[test.operator].format(repr(one))} {shown}"


def _because_path(rule: Rule, test: HeaderTest, decision: Decision) -> Iterator[str]:
    """The value that covers the path, and the reading under which the rule holds where that is not the path as sent."""
    value, _ = decision.compiled.plan.signal(":path", decision.headers, None, decision.path, None)
    reading = None if value is None else reading_of(rule, value, decision.mount.encode("utf-8", "replace"))
    if value is None or reading is None:
        yield "path: it is malformed"
        return
    one = next(item for item in test.values if holds(HeaderTest(test.name, test.operator, (item,)))(reading))
    sent = text_of(value)
    of = "" if reading == sent else f", a reading of {_quoted(sent)}"
    yield f"path: {VERBS[test.operator].format(repr(one))} {_quoted(reading)}{of}"


def _quoted(text: str) -> str:
    return repr(text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "...")


def _because_names(test: HeaderTest, decision: Decision) -> Iterator[str]:
    sni = None if decision.sni is None else normalize_name(decision.sni)
    value, _ = decision.compiled.plan.signal("host", decision.headers, None, None, decision.http)
    authority = None if value is None else text_of(value)
    if test.operator == "sni_host":
        host = None if authority is None else authority[:SHOWN_CHARS]
        yield f"sni_host: {agreement(sni, authority, test.names)}, server name {sni!r} and host {host!r}"
        return
    lookup = Lookalikes(test.values).lookup
    for name in names_in(f"{sni or ''}\n{authority or ''}"):
        if (like := lookup(name)) is not None:
            yield f"lookalike: {name!r} looks like {like!r}"


def _because_sni(rule: Rule, decision: Decision) -> Iterator[str]:
    name, when = decision.sni, rule.when
    normal = None if name is None else normalize_name(name)
    for label, patterns in (("sni", when.sni), ("sni_file", when.sni_file)):
        if patterns is None:
            continue
        if normal is None:
            word = next((word for word in SNI_WORDS if word in patterns), None)
            yield f"{label}: the name is {word}"
            continue
        found = [pattern for pattern in patterns if pattern not in SNI_WORDS]
        best = NameTable((pattern, index) for index, pattern in enumerate(found)).lookup(normal)
        if best is not None:
            yield f"{label}: {found[best]!r} (of {len(found)}) covers {normal!r}"


def _because_hello(rule: Rule, decision: Decision) -> Iterator[str]:
    hello, when, ja4 = decision.hello, rule.when, decision.ja4 or ""
    if not when.on_hello:
        return
    for label, texts in (("ja4", when.ja4), ("ja4_prefix", when.ja4_prefix)):
        if texts is not None:
            found = next((text for text in texts if ja4.startswith(text)), "")
            yield f"{label}: {found!r} begins {ja4[:SHOWN_CHARS]!r}"
    if hello is None:
        return
    if when.alpn is not None:
        yield f"alpn: {', '.join(text for text in hello.alpn if text in when.alpn)} is offered"
    if when.tls_version_below is not None:
        yield f"tls_version_below: nothing from {_VERSION_NAMES[when.tls_version_below]} on is offered"
    if when.ech is not None:
        yield f"ech: {hello.ech or 'none'} is listed"


def _entry(listed: PrefixList, address: str) -> str:
    from gobanfast._core.prefix_table import PrefixTable

    table = PrefixTable.from_packed(listed.addresses, listed.lengths, bytes(4 * len(listed)))
    found = table.lookup_prefix(address)
    return f"one of {len(listed)} prefixes" if found is None else f"{found[0]} (of {len(listed)})"
