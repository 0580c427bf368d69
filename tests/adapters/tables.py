"""Adapters from the tables of right answers to the public API: one callable a table, spellings translated.

Whoever has other rows of the same families runs them through this module. Functions import what they need themselves,
so that a part that is missing fails its own table alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def cors_lines(response: dict[str, Any]) -> list[tuple[str, str]]:
    """Header lines of a row's answer, whose columns are `acao`, `acac`, `acam` and `acah`."""
    names = {"acao": "allow-origin", "acac": "allow-credentials", "acam": "allow-methods", "acah": "allow-headers"}
    return [(f"Access-Control-{name}", value) for column, name in names.items() for value in response.get(column) or ()]


def cors_check(request: dict[str, Any], response: dict[str, Any]) -> str | None:
    from gobanfast.wire.fetch import cors_check

    return cors_check(request["origin"], cors_lines(response), credentials=request["credentials"] == "include")


def preflight_check(request: dict[str, Any], response: dict[str, Any]) -> str | None:
    from gobanfast.wire.fetch import preflight_check

    return preflight_check(
        request["origin"], request["method"], request["headers"], response["status"], cors_lines(response),
        credentials=request["credentials"] == "include",
    )  # fmt: skip


def preflight_headers(headers: list[list[str]]) -> list[str]:
    from gobanfast.wire.fetch import preflight_headers

    return preflight_headers([(name, value) for name, value in headers])


def origin(patterns: Sequence[str], credentials: bool, lines: Sequence[str]) -> str | None:
    """Value of Access-Control-Allow-Origin, or None: the request's own bytes, or `*` where any origin is let in."""
    from gobanfast import OriginSet

    if "*" in patterns and not credentials:
        return "*" if lines else None
    return lines[0] if len(lines) == 1 and lines[0] in OriginSet(patterns) else None


def config(policy: dict[str, Any]) -> list[list[str]]:
    """[field, value, reason] of every problem of a policy."""
    from gobanfast.rules.text.grant_checks import grant_problems

    spelled = {"tolerate_insecure": "dangerously_allow_insecure", "tolerate_psl": "dangerously_allow_public_suffix"}
    found = grant_problems(**{spelled.get(name, name): value for name, value in policy.items()})
    return [[problem.field, problem.value, problem.reason] for problem in found]


def acrh(allowed: Sequence[str], credentials: bool, lines: Sequence[str]) -> bool:
    """Whether a preflight that asks for these headers succeeds."""
    from gobanfast._core.allowed_headers import AllowedHeaders

    return AllowedHeaders([name for name in allowed if name != "*"], any="*" in allowed).allows_lines(lines)


def th(probability: float, precision: int) -> str:
    from gobanfast.telemetry.sampling import round_threshold, threshold_of, threshold_text

    return threshold_text(round_threshold(threshold_of(probability), precision))


def ot(text: str) -> dict[str, str | None]:
    from gobanfast.telemetry.sampling import parse_ot

    threshold, random = parse_ot(text)
    return {"th": None if threshold is None else str(threshold), "rv": None if random is None else str(random)}


def sample(row: dict[str, Any]) -> dict[str, Any]:
    """OpenTelemetry's on and off are ratios of 1 and 0; its ratios ask no parent, so each trace is a root for them."""
    from gobanfast.telemetry.sampling import Parent, decide, parse_ot, random_of, threshold_of

    kind, *numbers = row["sampler"]
    probability = {"always_on": 1.0, "always_off": 0.0}[kind] if not numbers else numbers[0]
    threshold, random = parse_ot(row["ot"] or "")
    parent = Parent(row["parent"]["sampled"], threshold) if kind == "parent" and row["parent"] else None
    found = decide(
        "rate", threshold_of(probability), parent=parent,
        random=random_of(bytes.fromhex(row["trace_id"])) if random is None else random,
    )  # fmt: skip
    return {"sampled": found.sampled, "th": found.text, "rv": None if random is None else f"{random:014x}"}


def sla_rate(weight: float, p99_ms: float, error_rate: float) -> float:
    from gobanfast.rules.controllers import sla_rate

    return sla_rate(weight, p99_ms, error_rate)


PARENT = "00-12345678901234567890123456789012-1234567890123456-01"  # what stands beside a tracestate under test


def pairs(name: str, lines: list[str]) -> list[tuple[str, str]]:
    return [(name, line) for line in lines]


def traceparent(lines: list[str]) -> dict[str, Any] | None:
    from gobanfast.trace import extract

    context = extract(pairs("traceparent", lines), ("tracecontext",))
    if context is None:
        return None
    return {
        "trace_id": context.trace_id, "parent_id": context.span_id,
        "sampled": context.sampled, "random": context.random,
    }  # fmt: skip


def members_of(text: str) -> list[list[str]]:
    return [member.split("=", 1) for member in text.split(",") if member]


def tracestate(lines: list[str]) -> list[list[str]] | None:
    from gobanfast.trace import extract

    context = extract([("traceparent", PARENT), *pairs("tracestate", lines)])
    assert context is not None
    return None if context.state_dropped else members_of(context.tracestate)


def tracestate_set(lines: list[str], key: str, value: str) -> str:
    from gobanfast.trace import extract

    context = extract([("traceparent", PARENT), *pairs("tracestate", lines)])
    assert context is not None
    return context.with_state(key, value).tracestate


def baggage(lines: list[str]) -> list[list[Any]]:
    from gobanfast.trace import extract

    context = extract(pairs("baggage", lines), ("baggage",))
    members = () if context is None else context.baggage
    return [[key, value, [list(item) for item in properties]] for key, value, properties in members]


def b3(headers: list[list[str]]) -> dict[str, Any] | None:
    from gobanfast.trace import extract

    context = extract([(name, value) for name, value in headers], ("b3",))
    names = ("trace_id", "span_id", "parent_id", "sampled", "debug")
    return None if context is None else {name: getattr(context, name) for name in names}


def extract(headers: list[list[str]]) -> list[Any] | None:
    from gobanfast.trace import extract

    context = extract([(name, value) for name, value in headers])
    return None if context is None else [context.source, context.trace_id, context.sampled]


def log_fields(context: dict[str, Any] | None) -> dict[str, str]:
    from gobanfast.telemetry.trace_logs import log_fields
    from gobanfast.trace import TraceContext

    if context is None:
        return log_fields(None)
    flags = context["flags"]
    return log_fields(
        TraceContext(context["trace_id"], context["span_id"], sampled=bool(flags & 1), random=bool(flags & 2))
    )


# ---- share rules carried out


def engine_of(share, *, sets=None):
    """An engine with these share rules and none about admission."""
    import json

    from gobanfast import Engine, Ruleset

    return Engine(Ruleset.from_text(json.dumps({"version": 1, "sets": sets or {}, "share": share})))


def grant_of(policy):
    """The share rule that says what a policy of the tables does."""
    rule = {"id": "grant", "when": "any", "action": "grant", "credentials": policy.get("credentials", False)}
    if policy["origins"] != ["*"]:
        rule["when"] = {"origin": policy["origins"]}
    for ours, theirs in (("methods", "methods"), ("headers", "headers"), ("expose", "expose")):
        if policy.get(theirs):
            rule[ours] = policy[theirs]
    if policy.get("max_age"):
        rule["max_age"] = f"{max(policy['max_age'], 0)}s"
    for ours, theirs in (("insecure", "tolerate_insecure"), ("public_suffix", "tolerate_psl")):
        if policy.get(theirs):
            rule[f"dangerously_allow_{ours}"] = True
    return rule


def exchange(policy, asgi_app):
    from gobanfast.frontends.asgi import Gobanfast

    return Gobanfast(asgi_app, engine_of([grant_of(policy)]))


def csrf(request):
    """Whether a request is let in by the rule against writes of foreign pages."""
    trusted = request.get("trusted") or []
    when = {"cross_origin_write": True} | ({"not": {"origin": trusted}} if trusted else {})
    headers = [(b"host", request["host"].encode())]
    for name, key in ((b"origin", "origin"), (b"sec-fetch-site", "sec_fetch_site")):
        if request.get(key) is not None:
            headers.append((name, request[key].encode("latin-1")))
    engine = engine_of([{"id": "writes", "when": when, "action": "refuse"}])
    return engine.decide("192.0.2.1", headers=headers, method=request["method"], path="/").share != "refused"


def guard(policy, request):
    """The status that a guard against DNS rebinding and foreign pages gives; 200: let in."""
    import asyncio

    from gobanfast.frontends.asgi import Gobanfast

    share = [{"id": "hosts", "when": {"not": {"host": policy["hosts"]}}, "action": "refuse"}]
    if policy.get("origins"):
        foreign = {"not": {"origin": [*policy["origins"], "absent"]}}
        share.append({"id": "origins", "when": foreign, "action": "refuse"})
    sent = []

    async def app(scope, receive, send):
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
        else:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message)

    headers = [(b"host", line.encode()) for line in request["host"]]
    headers += [(b"origin", line.encode()) for line in request.get("origin") or []]
    socket = request["type"] == "websocket"
    scope = {
        "type": request["type"], "headers": headers, "path": "/", "raw_path": b"/", "query_string": b"",
        "scheme": "ws" if socket else "http", "client": ("192.0.2.1", 4000), "http_version": "1.1",
        "extensions": {"websocket.http.response": {}},
    }  # fmt: skip
    if not socket:
        scope["method"] = "GET"
    asyncio.run(Gobanfast(app, engine_of(share))(scope, receive, send))
    return 200 if sent[0]["type"] == "websocket.accept" else sent[0]["status"]


# ---- event streams


def sse_parse(stream: bytes) -> dict[str, Any]:
    """What a client makes of a stream, by the parser of the tests: the library only writes."""
    from oracle.sse import parse

    parsed = parse(stream)
    return {"events": [list(event) for event in parsed.events], "retry": parsed.retry, "last_id": parsed.last_id}


def sse_encode(fields: dict[str, Any]) -> bytes:
    """The bytes of one event; ValueError where the fields would break a stream, or are of other types."""
    from gobanfast.sse import encode

    try:
        return encode(**fields)
    except TypeError as error:
        raise ValueError(str(error)) from error
