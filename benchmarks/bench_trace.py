"""Trace context propagation beside OpenTelemetry's propagators: the same carriers, fresh ones; and a line of a log.

A request of a browser that is not sampled, fresh as well, goes through the middlewares that say so: ours with record
rules alone, Starlette's own and contrib's. What each adds is the difference to the bare application of its group.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from benchmarks.bench_headers import BROWSER
from benchmarks.bench_http import application, scope_of, step
from benchmarks.cases import Case, Data, Kind, few, timed

SUITE = "trace"
CAPTION = "Trace context: ns median (times the no-op call)"
COUNT = 20_000
REQUESTS = 2000
RULES = """
version: 1
trace: {propagators: [tracecontext, baggage], from_untrusted: continue}
record:
  - {id: rest, when: any, action: rate, class: rest, probability: 0%}
"""
STATE = "ot=th:fd70a4;rv:6e6d1a75832a2f,gbf=h:3"
NAMES = (
    "host", "user-agent", "accept", "accept-language", "accept-encoding", "referer", "cookie", "sec-fetch-dest",
    "sec-fetch-mode", "sec-fetch-site", "priority",
)  # fmt: skip


def each(call: Callable[[Any], object], items: list[Any]) -> None:
    for item in items:
        call(item)


def carriers(make: Callable[[random.Random], Any]) -> Iterator[list[Any]]:
    """Fresh carriers, a few at a time, as a server has them."""
    draw = random.Random(7)
    return few(lambda _: make(draw), COUNT)


def headers(draw: random.Random) -> dict[str, str]:
    """13 headers of a request, two of which are of a trace."""
    found = {name: f"{name} {draw.random()}" for name in NAMES}
    found["traceparent"] = f"00-{draw.getrandbits(127) + 1:032x}-{draw.getrandbits(63) + 1:016x}-01"
    found["tracestate"] = "".join(STATE)
    return found


def pairs(draw: random.Random) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers(draw).items()]


def b3(draw: random.Random) -> dict[str, str]:
    return {"b3": f"{draw.getrandbits(127) + 1:032x}-{draw.getrandbits(63) + 1:016x}-1"}


def trace_id(draw: random.Random) -> int:
    return draw.getrandbits(128)


def middlewares() -> Iterator[tuple[str, Kind, Any]]:
    """(name, kind, application) of what says that a request is not sampled."""
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
    from starlette.middleware.opentelemetry import OpenTelemetryMiddleware as Starlette

    from gobanfast import Engine, Ruleset
    from gobanfast.frontends.asgi import Gobanfast

    provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(0)))
    yield "bare", "yardstick", application
    yield "gobanfast, record rules alone", "ours", Gobanfast(application, Engine(Ruleset.from_text(RULES)))
    yield "Starlette OpenTelemetryMiddleware", "peer", Starlette(application, tracer_provider=provider)
    yield "contrib OpenTelemetryMiddleware", "peer", OpenTelemetryMiddleware(application, tracer_provider=provider)


def requests(traced: bool) -> Iterator[list[dict[str, Any]]]:
    """Fresh requests, with a context that is not sampled or without one."""
    draw = random.Random(7)

    def make(number: int) -> dict[str, Any]:
        found = scope_of(number, None, BROWSER)
        if traced:
            parent = f"00-{draw.getrandbits(127) + 1:032x}-{draw.getrandbits(63) + 1:016x}-00"
            found["headers"].append((b"traceparent", parent.encode()))
        return found

    return few(make, REQUESTS)


def text(draw: random.Random) -> str:
    return str(draw.random())


def nothing(_: random.Random) -> dict[str, str]:
    return {}


def record(_: random.Random) -> logging.LogRecord:
    return logging.LogRecord("app", logging.INFO, "app.py", 1, "text", None, None)


def _sampled(call: Callable[..., object], parent: Any, found: int) -> object:
    return call(parent, found, "GET /", None, None)


def cases(data: Data) -> Iterator[Case]:
    from opentelemetry.baggage.propagation import W3CBaggagePropagator
    from opentelemetry.context.context import Context
    from opentelemetry.propagators.b3 import B3SingleFormat
    from opentelemetry.propagators.composite import CompositePropagator
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    from benchmarks.floor import noop
    from gobanfast import trace
    from gobanfast._core.trace_context import CURRENT
    from gobanfast.telemetry.otel import GobanfastIdGenerator, GobanfastPropagator, GobanfastSampler
    from gobanfast.telemetry.trace_logs import TraceFilter

    CURRENT.set(trace.extract(headers(random.Random(1))))
    w3c, single = TraceContextTextMapPropagator(), B3SingleFormat()
    both = CompositePropagator([w3c, W3CBaggagePropagator()])
    theirs = w3c.extract(headers(random.Random(1)))
    own = partial(trace.extract, propagators=trace.INJECTED)
    plug = GobanfastPropagator(trace.INJECTED)
    ids, their_ids = GobanfastIdGenerator(), RandomIdGenerator()
    samplers: list[tuple[str, Kind, Any]] = [
        ("gobanfast", "ours", GobanfastSampler(0.01)),
        ("ParentBased(TraceIdRatioBased)", "peer", ParentBased(TraceIdRatioBased(0.01))),
    ]
    parents = [
        ("a root", Context()),
        *[
            (what, set_span_in_context(NonRecordingSpan(SpanContext(5, 6, True, TraceFlags(flags))), Context()))
            for what, flags in (("a parent that is sampled", 1), ("a parent that is not sampled", 0))
        ],
        ("a parent with th", w3c.extract({**headers(random.Random(1)), "tracestate": "ot=th:0"}, Context())),
    ]
    groups: list[tuple[str, Callable[[random.Random], Any], list[tuple[str, Kind, Callable[[Any], object]]]]] = [
        ("extract, dict of 13", headers, [("gobanfast", "ours", own), ("OpenTelemetry", "peer", both.extract)]),
        ("extract, 13 pairs of bytes", pairs, [("gobanfast", "ours", own)]),
        (
            "extract, b3",
            b3,
            [
                ("gobanfast", "ours", partial(trace.extract, propagators=("b3",))),
                ("OpenTelemetry", "peer", single.extract),
            ],
        ),
        (
            "inject into a dict",
            nothing,
            [("gobanfast", "ours", trace.inject), ("OpenTelemetry", "peer", partial(w3c.inject, context=theirs))],
        ),
        (
            "OpenTelemetry's extract, dict of 13",
            headers,
            [("gobanfast's plug-in", "ours", plug.extract), ("OpenTelemetry", "peer", both.extract)],
        ),
        (
            "OpenTelemetry's inject into a dict",
            nothing,
            [
                ("gobanfast's plug-in", "ours", partial(plug.inject, context=theirs)),
                ("OpenTelemetry", "peer", partial(both.inject, context=theirs)),
            ],
        ),
        (
            "ids of a root: trace and span",
            text,
            [
                ("gobanfast", "ours", lambda _: (ids.generate_trace_id(), ids.generate_span_id())),
                ("OpenTelemetry", "peer", lambda _: (their_ids.generate_trace_id(), their_ids.generate_span_id())),
            ],
        ),
        *[
            (
                f"should_sample, {what}",
                trace_id,
                [(name, kind, partial(_sampled, sampler.should_sample, parent)) for name, kind, sampler in samplers],
            )
            for what, parent in parents
        ],
        ("ids of a record of logging", record, [("gobanfast filter", "ours", TraceFilter().filter)]),
    ]
    for group, traced in (("request, not sampled", False), ("request, not sampled, with a traceparent", True)):
        for name, kind, app in middlewares():
            yield Case(SUITE, group, name, kind, REQUESTS, partial(requests, traced), partial(step, app))
    for group, make, subjects in groups:
        yield Case(SUITE, group, "no-op call", "yardstick", COUNT, partial(carriers, text), partial(each, noop))
        for name, kind, call in subjects:
            yield Case(SUITE, group, name, kind, COUNT, partial(carriers, make), partial(each, call))


def test_case(benchmark: Any, case: Case) -> None:
    """One case alone, for pytest-benchmark's statistics; the record comes from `python -m benchmarks.run`."""
    timed(benchmark, case)
