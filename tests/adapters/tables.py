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
    from gobanfast.telemetry.controllers import sla_rate

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
