"""Requests whose spans OpenTelemetry's middleware makes, Starlette's and contrib's: one trace, decided by the rules."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk")
from opentelemetry import propagate
from opentelemetry import trace as otel
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from gobanfast import Engine, Ruleset, trace
from gobanfast.frontends.asgi import Gobanfast
from gobanfast.frontends.http.layers import LOOKS
from gobanfast.telemetry.otel import GobanfastIdGenerator, GobanfastPropagator, GobanfastSampler
from gobanfast.telemetry.other_trace import OtherTrace, decided
from gobanfast.telemetry.sampling import threshold_of
from gobanfast.telemetry.trace_logs import log_fields

RULES = """
version: 1
trust: {prefix: [192.0.2.0/24], chain: optional}
trace: {propagators: [tracecontext, baggage]}
record:
  - {id: kept, when: {path: /kept}, action: always}
  - {id: dropped, when: {path: /dropped}, action: never}
  - {id: half, when: {path: /half}, action: rate, class: half, probability: 50%}
"""
TRUSTED, STRANGER = "192.0.2.1", "198.51.100.1"
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = (b"traceparent", f"00-{TRACE}-{SPAN}-01".encode())
RANDOM_BITS = 2**56 - 1


def starlette(app: Any, provider: TracerProvider) -> Any:
    module = pytest.importorskip("starlette.middleware.opentelemetry")
    return module.OpenTelemetryMiddleware(app, tracer_provider=provider)


def contrib(app: Any, provider: TracerProvider) -> Any:
    module = pytest.importorskip("opentelemetry.instrumentation.asgi")
    return module.OpenTelemetryMiddleware(app, tracer_provider=provider, exclude_spans=["receive", "send"])


class Service:
    """Our middleware and theirs around a page, which notes what is current in it."""

    def __init__(self, middleware: Callable[[Any, TracerProvider], Any], *, around: bool = False, **plugs: Any) -> None:
        self.memory = InMemorySpanExporter()
        self.provider = TracerProvider(**plugs, shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.memory))
        engine = Engine(Ruleset.from_text(RULES))
        if around:
            self.ours = Gobanfast(self.page, engine)
            self.app = middleware(self.ours, self.provider)
        else:
            self.app = self.ours = Gobanfast(middleware(self.page, self.provider), engine)
        self.seen: dict[str, Any] = {}

    async def page(self, scope: Any, receive: Any, send: Any) -> None:
        sent: dict[str, str] = {}
        propagate.inject(sent)
        with self.provider.get_tracer("test").start_as_current_span("inner"):
            inner = trace.current()
        self.seen = {
            "current": trace.current(), "inner": inner, "sent": sent, "decision": scope["gobanfast"],
            "decided": decided(), "logged": log_fields(trace.current()),
        }  # fmt: skip
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def ask(self, path: str, *headers: tuple[bytes, bytes], client: str = TRUSTED) -> Any:
        """The span of the server, None where none was recorded."""
        self.memory.clear()

        async def receive() -> Any:
            return {"type": "http.request"}

        async def send(message: Any) -> None:
            pass

        scope = {
            "type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"",
            "scheme": "http", "client": (client, 4000), "server": ("test", 80), "http_version": "1.1",
            "headers": [(b"host", b"test"), *headers],
        }  # fmt: skip
        asyncio.run(self.app(scope, receive, send))
        found = [span for span in self.memory.get_finished_spans() if span.kind is otel.SpanKind.SERVER]
        return found[0] if found else None


PLUGS: dict[str, Any] = {"sampler": GobanfastSampler(0.0), "id_generator": GobanfastIdGenerator()}


@pytest.fixture(autouse=True)
def propagator() -> Iterator[None]:
    """Ours; afterwards what was there."""
    before = propagate.get_global_textmap()
    propagate.set_global_textmap(GobanfastPropagator())
    yield
    propagate.set_global_textmap(before)


both = pytest.mark.parametrize("middleware", [starlette, contrib])


@both
def test_one_trace_inside_ours(middleware: Any) -> None:
    """The server's span has the ids of the decision's trace; what is current is the span, and one below it below."""
    service = Service(middleware, **PLUGS)
    span = service.ask("/kept")
    seen, context = service.seen, span.context
    ids = f"{context.trace_id:032x}", f"{context.span_id:016x}"

    assert ids == (seen["decision"].trace.trace_id, seen["decision"].trace.span_id)
    assert ids == (seen["current"].trace_id, seen["current"].span_id)
    assert f"00-{ids[0]}-{ids[1]}-03" == seen["sent"]["traceparent"]
    assert {"trace_id": ids[0], "span_id": ids[1], "trace_flags": "03"} == seen["logged"]
    assert (ids[0], True) == (seen["inner"].trace_id, seen["inner"].span_id not in {ids[1], None})
    assert seen["decided"] is seen["decision"]
    assert trace.current() is None
    assert decided() is None
    assert ("kept", "allow", TRUSTED) == tuple(
        span.attributes[name] for name in ("gobanfast.record.rule", "gobanfast.action", "client.address")
    )


@both
def test_rules_decide_before_the_parent_and_the_sampler(middleware: Any) -> None:
    """`always` keeps what a parent dropped, `never` drops what it kept; `rate` follows the parent. Without a rule that
    matches the sampler does as it would."""
    service = Service(middleware, **PLUGS)
    quiet = (b"traceparent", PARENT[1][:-1] + b"0")

    for path, header, kept in [
        ("/kept", quiet, True), ("/dropped", PARENT, False), ("/half", PARENT, True), ("/half", quiet, False),
        ("/other", PARENT, True), ("/other", quiet, False),
    ]:  # fmt: skip
        span = service.ask(path, header)
        assert kept == (span is not None), path
        assert service.seen["sent"]["traceparent"].endswith("-01" if kept else "-00")
        assert TRACE == service.seen["current"].trace_id
        assert span is None or SPAN == f"{span.parent.span_id:016x}"
    assert None is service.ask("/other")


@both
def test_a_stranger_has_no_parent(middleware: Any) -> None:
    """What the rules do not trust, the propagator does not read: neither ids nor tracestate nor baggage."""
    service = Service(middleware, **PLUGS)
    headers = [PARENT, (b"tracestate", b"a=b"), (b"baggage", b"user=ann")]
    span = service.ask("/kept", *headers, client=STRANGER)
    assert span.parent is None
    assert TRACE != f"{span.context.trace_id:032x}"
    assert {"traceparent", "tracestate"} == service.seen["sent"].keys()
    assert "ot=th:0" == service.seen["sent"]["tracestate"]

    span = service.ask("/kept", *headers)
    assert (TRACE, SPAN) == (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}")
    assert "a=b" == service.seen["sent"]["tracestate"]
    if middleware is contrib:  # Starlette's own takes the parent alone
        assert "user=ann" == service.seen["sent"]["baggage"]


@both
def test_rates_are_consistent_with_ids_of_others(middleware: Any) -> None:
    """Whoever made the trace id: what is kept has R at or above the threshold that it says, and about half is."""
    for plugs in (PLUGS, {"sampler": GobanfastSampler(0.0)}):
        service, kept = Service(middleware, **plugs), []
        for _ in range(200):
            span = service.ask("/half")
            trace_id = int(service.seen["sent"]["traceparent"][3:35], 16)
            assert (span is not None) == (trace_id & RANDOM_BITS >= threshold_of(0.5))
            if span is not None:
                kept.append(span)
        assert 50 < len(kept) < 150  # seven standard deviations
        assert {"th:8"} == {span.context.trace_state["ot"] for span in kept}
        assert {0.5} == {span.attributes["gobanfast.rate.probability"] for span in kept}


@both
def test_one_trace_without_our_plug_ins(middleware: Any) -> None:
    """What is current is their span, whatever its ids."""
    service = Service(middleware)
    span = service.ask("/kept")

    assert span.context.trace_id == int(service.seen["current"].trace_id, 16)
    assert span.context.span_id == int(service.seen["current"].span_id, 16)
    assert service.seen["current"].sampled


@both
def test_one_trace_around_ours(middleware: Any) -> None:
    """Their span is there before the decision, and stays what is current; its children have ids of their own."""
    service = Service(middleware, around=True, **{**PLUGS, "sampler": GobanfastSampler(1.0)})
    for _ in range(2):
        span = service.ask("/kept")
        ids = f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"

        assert ids == (service.seen["current"].trace_id, service.seen["current"].span_id)
        assert ids[0] == service.seen["inner"].trace_id
        assert service.seen["decision"].trace.span_id not in {ids[1], service.seen["inner"].span_id}
    assert service.ours.guard.tracer is OtherTrace


def test_nobody_else_makes_spans() -> None:
    """The decision's own trace is current, and after a few requests nothing is looked for any more."""
    service = Service(lambda app, _: app)
    for _ in range(LOOKS):
        assert service.ours.guard.tracer is not None
        service.ask("/kept")
        assert service.seen["current"] is service.seen["decision"].trace

    assert None is service.ours.guard.tracer


def test_layers_that_cannot_be_looked_at(caplog: pytest.LogCaptureFixture) -> None:
    """The request is answered, the decision's trace is current, and it is said once."""

    class Odd:
        def __init__(self, app: Any) -> None:
            self._call = app

        def __getattr__(self, name: str) -> Any:
            if name == "user_middleware":
                raise RuntimeError("not that one")
            raise AttributeError(name)

        async def __call__(self, *arguments: Any) -> None:
            await self._call(*arguments)

    service = Service(lambda app, _: Odd(app))
    for _ in range(2):
        service.ask("/kept")
        assert service.seen["current"] is service.seen["decision"].trace

    assert None is service.ours.guard.tracer
    assert 1 == [record.message for record in caplog.records].count(
        "middleware inside the application could not be looked at"
    )


def test_a_state_that_level_2_does_not_have() -> None:
    """Theirs takes it; the context goes without it."""
    found = otel.TraceState()
    found._dict["A"] = "b"
    span = otel.NonRecordingSpan(otel.SpanContext(5, 6, True, otel.TraceFlags(1), found))
    decision = Engine(Ruleset.from_text(RULES)).decide("192.0.2.1")
    with otel.use_span(span):
        context = OtherTrace(decision).trace

    assert context is not None
    assert (f"{5:032x}", "") == (context.trace_id, context.tracestate)


def test_one_trace_under_wsgi() -> None:
    """Contrib's WSGI middleware inside ours: the same, with the rules' trust and decision."""
    contrib_wsgi = pytest.importorskip("opentelemetry.instrumentation.wsgi")
    from gobanfast.frontends import wsgi

    memory, seen = InMemorySpanExporter(), {}
    provider = TracerProvider(**PLUGS, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))

    def page(environ: Any, start_response: Any) -> list[bytes]:
        seen.update(current=trace.current(), decision=environ["gobanfast.decision"])
        start_response("200 OK", [("content-type", "text/plain")])
        return [b"ok"]

    inner = contrib_wsgi.OpenTelemetryMiddleware(page, tracer_provider=provider)
    app = wsgi.Gobanfast(inner, Engine(Ruleset.from_text(RULES)))
    for client, continued in ((STRANGER, False), (TRUSTED, True)):
        memory.clear()
        environ = {
            "REQUEST_METHOD": "GET", "PATH_INFO": "/kept", "SCRIPT_NAME": "", "QUERY_STRING": "", "SERVER_NAME": "test",
            "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.url_scheme": "http", "wsgi.input": None,
            "wsgi.errors": None, "REMOTE_ADDR": client, "HTTP_HOST": "test", "HTTP_TRACEPARENT": PARENT[1].decode(),
        }  # fmt: skip
        body = app(environ, lambda status, headers, error=None: None)
        assert [b"ok"] == list(body)
        body.close()  # type: ignore[attr-defined]
        (span,) = memory.get_finished_spans()

        assert continued == (TRACE == f"{span.context.trace_id:032x}")
        assert seen["decision"].trace is seen["current"]
        assert f"{span.context.span_id:016x}" == seen["current"].span_id
        assert ("kept", client) == (span.attributes["gobanfast.record.rule"], span.attributes["client.address"])
    assert trace.current() is None
