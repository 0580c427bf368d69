"""Conditions in words: which value of a request makes each condition of a rule hold, negations too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from gobanfast._core.name_table import NameTable
from gobanfast._core.name_text import normalize_name
from gobanfast._core.request_table import CARRIED_NAMES
from gobanfast._values import duration_text
from gobanfast.rules.compile.request import holds, names_in, reading_of, text_of
from gobanfast.rules.regex import compile_regex
from gobanfast.rules.rule import WORDS, Conditions, HeaderTest, Negation, PrefixList, Rule
from gobanfast.rules.text.fields import SNI_WORDS, TLS_VERSIONS
from gobanfast.wire.hosts import agreement
from gobanfast.wire.lookalikes import Lookalikes

if TYPE_CHECKING:
    from gobanfast._core.decision import Decision
    from gobanfast.asn import AsnTable

SHOWN_CHARS = 120
SHOWN_VALUES = 5  # of a list
VERSION_NAMES = {number: name for name, number in TLS_VERSIONS.items()}
LABELS = {"sec-fetch-site": "fetch_site", "sec-fetch-mode": "fetch_mode", "sec-fetch-dest": "fetch_dest"}
ANNOUNCED = "access-control-request-method"
VERBS = {
    "equals": "{} equals", "contains": "{} is in", "prefix": "{} begins", "suffix": "{} ends", "regex": "{} matches",
    "glob": "{} covers", "origin": "{} covers", "host": "{} covers",
    "family": "the family {} is that of", "crawler": "the crawler {} is claimed by",
}  # fmt: skip


def place(rule: Rule) -> str:
    """What a rule does, and where it is written."""
    lasts = "" if rule.duration is None else f" for {duration_text(rule.duration)}"
    reason = f" ({rule.reason})" if rule.reason else ""
    return f"{rule.action}{lasts} by rule {rule.id!r} at {rule.source}:{rule.line}:{rule.column}{reason}"


def because(rule: Rule, decision: Decision) -> Iterator[str]:
    """What made each condition of a rule that matches hold."""
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
            text = network(decision.asn, decision.compiled.asn).replace(" ", pattern.separator, 1)
            if compile_regex(pattern.regex).search(text):
                yield f"asn_name: {pattern.regex!r} matches {text!r}"
    if when.negated is not None:
        yield from _because_elsewhere(when.negated, decision)
    yield from _because_sni(rule, decision)
    yield from _because_hello(rule, decision)
    yield from _because_request(rule, decision)
    yield from _because_live(rule, decision)


def _because_live(rule: Rule, decision: Decision) -> Iterator[str]:
    """What live state knew of the request, then."""
    for test in rule.when.live_tests:
        label = test.name.removeprefix(":")
        one = test.tests[0] if isinstance(test, Negation) else test
        if decision.preflight and rule.effect == "share":
            yield f"{label}: a preflight does not carry it; the request that follows is asked"
        elif isinstance(test, Negation) and label == "label":
            yield f"not label: none of {_listed(one)} is carried by a key of the request"
        elif label == "label":
            carried = [word for word in one.values if word in decision.labels]
            yield f"label: {', '.join(map(repr, carried))} is carried by a key of the request"
        else:
            yield f"{'not ' * isinstance(test, Negation)}session: it is {decision.session_state}"


def _because_elsewhere(negated: Conditions, decision: Decision) -> Iterator[str]:
    """What must not hold of the address."""
    for name, listed in (("prefix", negated.prefix), ("prefix_file", negated.prefix_file)):
        if listed is not None:
            yield f"not {name}: none of {len(listed)} prefixes covers the address"
    if negated.asn is not None:
        yield f"not asn: AS{decision.asn} is not listed"
    if negated.asn_name is not None and decision.asn is not None:
        yield f"not asn_name: no pattern is found in {network(decision.asn, decision.compiled.asn)!r}"


def network(number: int, table: AsnTable | None) -> str:
    return f"AS{number}" if table is None else table.describe(number)


def _because_request(rule: Rule, decision: Decision) -> Iterator[str]:
    for test in rule.when.request_tests:
        if decision.preflight and rule.effect == "share" and test.name in CARRIED_NAMES:
            yield f"{_label(test)}: a preflight does not carry it; the request that follows is asked"
        elif isinstance(test, Negation):
            yield f"not {_because_not(rule, test, decision)}"
        elif test.name == ":names":
            yield from _because_names(test, decision)
        elif test.name == ":path":
            yield from _because_path(rule, test, decision)
        elif test.name == ":cross_origin_write":
            yield f"cross_origin_write: {cross_write(rule, decision)}"
        else:
            yield f"{_label(test)}: {_because_value(rule, test, decision)}"


def _label(test: HeaderTest | Negation) -> str:
    """The condition that a test is of."""
    if test.name.startswith(":"):
        operator = test.tests[0].operator if isinstance(test, Negation) else test.operator
        return operator if test.name == ":names" else test.name.removeprefix(":")
    return LABELS.get(test.name, f"header {test.name}")


def signal(rule: Rule, name: str, decision: Decision) -> tuple[bytes | None, bool]:
    """(value, whether it is malformed) of a signal as `rule` sees it: of a preflight, share rules see the method that
    it announces."""
    plan, method = decision.compiled.plan, decision.method
    if decision.preflight and rule.effect == "share":
        announced, _ = plan.signal(ANNOUNCED, decision.headers, None, None, decision.http)
        method = None if announced is None else text_of(announced)
    return plan.signal(
        name, decision.headers, method, decision.path, decision.http, scheme=decision.scheme, host=decision.host
    )


def _because_value(rule: Rule, test: HeaderTest, decision: Decision) -> str:
    value, malformed = signal(rule, test.name, decision)
    if malformed or value is None:
        return f"it is {'malformed' if malformed else 'absent'}"
    text = text_of(value)
    if test.operator in ("origin", "host"):
        port, _, host = text.partition("\n") if test.operator == "host" else ("", "", text)
        number = matched_pattern(test, host, int(port or 0))
        return f"{quoted(host)} is malformed" if number is None else f"{test.values[number]!r} covers {quoted(host)}"
    if "present" in test.words:
        return f"{quoted(text)} is present"
    one = next((item for item in test.values if holds(HeaderTest(test.name, test.operator, (item,)))(text)), None)
    return quoted(text) if one is None else f"{VERBS[test.operator].format(repr(one))} {quoted(text)}"


def matched_pattern(test: HeaderTest, text: str, port: int = 0) -> int | None:
    """Position of the first of a test's patterns of origins or hosts that covers `text`; None: none does."""
    from gobanfast._core.origin_set import OriginMatcher

    plain = [[] if value.startswith("re:") else [value] for value in test.values]
    matcher = OriginMatcher(plain, test.operator == "host")
    number = matcher.find_text(text, port)
    if number == 0:
        return None
    for index, value in enumerate(test.values):
        if index in matcher.sets[number]:
            return index
        if value.startswith("re:") and compile_regex(f"^(?:{value[3:]})$", ignore_case=False).search(text) is not None:
            return index
    return None


def _because_not(rule: Rule, negation: Negation, decision: Decision) -> str:
    """Why what must not hold does not."""
    label, tests = _label(negation), negation.tests
    if negation.name == ":cross_origin_write":
        return f"cross_origin_write: {cross_write(rule, decision)}"
    if negation.name == ":names":
        return f"{label}: {next(_because_names(tests[0], decision), 'no name looks like one of these')}"
    value, malformed = signal(rule, negation.name, decision)
    if negation.name == ":path" and value is not None:
        text = reading_of(rule, value, decision.mount.encode("utf-8", "replace"))
        value, malformed = (None, True) if text is None else (text.encode("utf-8", "surrogateescape"), False)
    if malformed:
        return f"{label}: it is malformed"
    if value is None:
        return f"{label}: it is absent"
    text = text_of(value).partition("\n")[2] if negation.name == ":host" else text_of(value)
    if (
        negation.name in (":origin", ":host")
        and matched_pattern(tests[0], text) is None
        and _is_malformed(tests[0], text)
    ):
        return f"{label}: {quoted(text)} is malformed"
    if len(tests) == 1 and tests[0].operator in ("equals", "glob", "origin", "host"):
        return f"{label}: {quoted(text)} is none of {_listed(tests[0])}"
    asked = " and ".join(f"{test.operator} {_listed(test)}" for test in tests)
    return f"{label}: {quoted(text)} does not meet {asked}"


def _is_malformed(test: HeaderTest, text: str) -> bool:
    """Whether a text is no origin, or no host."""
    from gobanfast._core.origin_set import OriginMatcher

    return OriginMatcher([[]], test.operator == "host").find_text(text, 0) == 0


def _listed(test: HeaderTest) -> str:
    values = [repr(value) for value in test.values] + [word for word in test.words if word in WORDS]
    more = f" and {len(values) - SHOWN_VALUES} more" if len(values) > SHOWN_VALUES else ""
    return ", ".join(values[:SHOWN_VALUES]) + more


def cross_write(rule: Rule, decision: Decision) -> str:
    """Why a request is, or is not, one of another origin that may change something."""
    found, malformed = signal(rule, ":cross_origin_write", decision)
    method, site, origin, host = (
        None if value is None else text_of(value)
        for value, _ in (signal(rule, name, decision) for name in (":method", "sec-fetch-site", "origin", "host"))
    )
    if malformed:
        return "the headers are malformed"
    if found is None:
        return "not known, for want of a method or of headers"
    if method in ("GET", "HEAD", "OPTIONS"):
        return f"{method} changes nothing"
    if site:
        return f"{quoted(method or '')} with sec-fetch-site {quoted(site)}"
    if not origin:
        return f"{quoted(method or '')} without sec-fetch-site and origin, so of no browser"
    differs = "is" if found == b"0" else "is not"
    return f"{quoted(method or '')} of {quoted(origin)}, whose host {differs} {quoted(host or '')}"


def _because_path(rule: Rule, test: HeaderTest, decision: Decision) -> Iterator[str]:
    """The value that covers the path, and the reading under which the rule holds where that is not the path as sent."""
    value, _ = signal(rule, ":path", decision)
    reading = None if value is None else reading_of(rule, value, decision.mount.encode("utf-8", "replace"))
    if value is None or reading is None:
        yield "path: it is malformed"
        return
    one = next(item for item in test.values if holds(HeaderTest(test.name, test.operator, (item,)))(reading))
    sent = text_of(value)
    of = "" if reading == sent else f", a reading of {quoted(sent)}"
    yield f"path: {VERBS[test.operator].format(repr(one))} {quoted(reading)}{of}"


def quoted(text: str) -> str:
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
        yield f"tls_version_below: nothing from {VERSION_NAMES[when.tls_version_below]} on is offered"
    if when.ech is not None:
        yield f"ech: {hello.ech or 'none'} is listed"


def _entry(listed: PrefixList, address: str) -> str:
    from gobanfast._core.prefix_table import PrefixTable

    table = PrefixTable.from_packed(listed.addresses, listed.lengths, bytes(4 * len(listed)))
    found = table.lookup_prefix(address)
    return f"one of {len(listed)} prefixes" if found is None else f"{found[0]} (of {len(listed)})"
