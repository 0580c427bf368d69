"""Explanations of what is shared: the rule, what is owned and varies, header fields, and what the browser does next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from gobanfast._core.decision import resources_of
from gobanfast.rules.check.because import ANNOUNCED, because, place, quoted
from gobanfast.rules.compile.record import headers_of
from gobanfast.rules.compile.request import text_of
from gobanfast.rules.compile.share import BY_FETCH_SITE, BY_ORIGIN, OWNED, about, allowed_for_traces
from gobanfast.wire.fetch import cors_check, get, needs_preflight, preflight_check

if TYPE_CHECKING:
    from gobanfast._core.decision import Decision
    from gobanfast.rules.rule import Grant, Rule

ALWAYS = ("GET", "HEAD", "POST")
"""Methods that need no listing."""


def share_parts(decision: Decision, by_id: Mapping[str, Rule]) -> Iterator[tuple[str, str]]:
    """(label, text) of the lines on sharing, for rules some of which are about it."""
    resources = about(by_id.values(), resources_of(decision))
    owners = [rule for rule, flags in resources if flags & OWNED]
    matched = [by_id[name] for name in decision.share_matched]
    yield "share", _answer(decision, matched, owners)
    if matched:
        for text in because(matched[0], decision):
            yield "because", text
    if decision.ungranted is not None:
        yield "preflight", _ungranted(decision, matched[0])
    if matched and matched[0].grant is not None and (names := _for_traces(decision, matched[0].grant)):
        yield "traces", f"the grant allows {', '.join(names)}, because record rules may keep a trace"
    if len(matched) > 1:
        yield "without it", place(matched[1])
    for rule in owners:
        yield "owned", f"by rule {rule.id!r} at {rule.source}:{rule.line}: what it says of the resource holds"
    if not owners:
        yield "owned", "by no rule, so that the application's own header fields are left alone"
    elif not decision.varies:
        yield "varies", "by nothing: whoever asks, the answer has the same fields"
    for name, flag in (("Origin", BY_ORIGIN), ("Sec-Fetch-Site", BY_FETCH_SITE)):
        if name in decision.varies:
            asking = ", ".join(rule.id for rule, flags in resources if flags & flag)
            yield "varies", f"by {name}, for which ask: {asking}"
    for name_, value in decision.share_headers:
        yield "field", f"{name_.decode('latin-1')}: {_printable(value)}"
    yield "browser", _next(decision, matched)
    for name in decision.share_shadow:
        yield "shadow", f"would have decided, were it enforced: {place(by_id[name])}"


def _answer(decision: Decision, matched: list[Rule], owners: list[Rule]) -> str:
    of = "the preflight is " if decision.preflight else ""
    if decision.ungranted is not None:
        return f"{of}withheld: {place(matched[0])} does not cover it"
    if decision.share_rule is not None:
        return f"{of}{decision.share}: {place(matched[0])}"
    if decision.share is not None:
        others = ", ".join(rule.id for rule in owners)
        return (
            f"{of}{decision.share}: no rule grants it, and {others} {'own' if len(owners) > 1 else 'owns'} the resource"
        )
    if matched:
        return f"nothing: there is no Origin; a page that asks gets {place(matched[0])}"
    return "nothing: no share rule is about it" if not owners else "nothing: there is no Origin, and no rule matches"


def _ungranted(decision: Decision, rule: Rule) -> str:
    """Which method or header of a preflight the grant does not cover."""
    grant = rule.grant
    if grant is None:
        return "the rule grants nothing"
    plan = decision.compiled.plan
    if decision.ungranted == "method":
        method, _ = plan.signal(ANNOUNCED, decision.headers, None, None, decision.http)
        listed = ", ".join((*ALWAYS, *(name for name in grant.methods if name not in ALWAYS)))
        return f"method {quoted(text_of(method or b''))} is not granted; methods are {listed}"
    asked, _ = plan.signal("access-control-request-headers", decision.headers, None, None, decision.http)
    for_traces = _for_traces(decision, grant)
    granted = {name.lower() for name in (*grant.headers, *for_traces)}
    for name in text_of(asked or b"").split(","):
        text = name.strip(" \t")
        if text.lower() not in granted and ("*" not in granted or text.lower() == "authorization"):
            listed = ", ".join((*grant.headers, *for_traces)) or "none"
            return f"header {quoted(text)} is not granted; headers are {listed}"
    return f"headers {quoted(text_of(asked or b''))} are no list as browsers send it: sorted, in lower case, each once"


def _for_traces(decision: Decision, grant: Grant) -> list[str]:
    """Headers that the grant allows because a trace of the request may be kept."""
    records = decision.compiled.records
    if records is None:
        return []
    return allowed_for_traces(grant, headers_of(decision.compiled.rules, records.propagators))


def _printable(value: bytes) -> str:
    text = value.decode("latin-1")
    return text if text.isprintable() else repr(text)


def _next(decision: Decision, matched: list[Rule]) -> str:
    """What a browser does with the answer."""
    if decision.share == "refused":
        host = matched[0].when.negated is not None and matched[0].when.negated.host is not None
        if host:
            return "gets 421 and asks again over a new connection, where the host is meant"
        return "gets 403; nothing was carried out"
    origin = decision.origin
    if decision.own_page and not decision.preflight:
        return "shows the answer to the script: the page is the service's own, and needs no grant"
    fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in decision.share_headers]
    if origin is None and not fields:
        return "shows the answer to a page of the same origin; others send an Origin"
    if origin is None:
        return "shows the answer to the script of any page, but not where cookies were sent along"
    if decision.preflight:
        return _after_preflight(decision, matched, origin, fields)
    step = cors_check(origin, fields, credentials=False)
    if step is not None:
        return "sends the request, and keeps the answer from the script; an EventSource closes for good"
    cookies = "also" if cors_check(origin, fields, credentials=True) is None else "but not"
    text = f"shows the answer to the script, {cookies} where cookies were sent along"
    exposed = get(fields, "access-control-expose-headers")
    if exposed:
        text += f", with its headers {exposed}"
    if decision.method is not None and needs_preflight(decision.method, []):
        text += f"; it asks first (preflight), because of the method {decision.method}"
    return text


def _after_preflight(decision: Decision, matched: list[Rule], origin: str, fields: list[tuple[str, str]]) -> str:
    """What follows a preflight."""
    plan = decision.compiled.plan
    method, _ = plan.signal(ANNOUNCED, decision.headers, None, None, decision.http)
    asked, _ = plan.signal("access-control-request-headers", decision.headers, None, None, decision.http)
    names = [name.strip(" \t") for name in text_of(asked or b"").split(",") if name.strip(" \t")]
    announced = text_of(method or b"")
    status = 204 if decision.share == "granted" else 403
    step = preflight_check(origin, announced, names, status, fields, credentials=False)
    if step is not None:
        return f"gets {status} and sends no request ({step})"
    with_cookies = preflight_check(origin, announced, names, status, fields, credentials=True) is None
    age = matched[0].grant.max_age if matched and matched[0].grant is not None else None
    kept = "as long as it likes (5 s is usual)" if age is None else f"for {age} s"
    return (
        f"gets 204 and sends {quoted(announced)} next, {'with or without' if with_cookies else 'without'} cookies; it "
        f"remembers this {kept}"
    )
