"""OpenTelemetry's SDK with our sampler and ids, end to end; and our decisions beside its composite sampler's."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk")
from opentelemetry import trace as otel
from opentelemetry.context.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Decision

from gobanfast.telemetry.otel import (
    GobanfastComposableSampler,
    GobanfastIdGenerator,
    GobanfastPropagator,
    GobanfastSampler,
    RateClasses,
    sampler_of,
)
from gobanfast.telemetry.sampling import NEVER, threshold_of, threshold_text

KEPT = Decision.RECORD_AND_SAMPLE
ALL = (1 << 56) - 1
B3 = GobanfastPropagator(("b3",), ("b3",))


def context_of(flags: int, state: dict[str, str], *, remote: bool = True, trace: int = 5) -> Context:
    parent = otel.SpanContext(trace, 6, remote, otel.TraceFlags(flags), otel.TraceState(list(state.items())))
    return otel.set_span_in_context(otel.NonRecordingSpan(parent), Context())


def decided(sampler: Any, context: Context | None, trace: int, **options: Any) -> tuple[bool, dict[str, str]]:
    result = sampler.should_sample(context, trace, "name", **options)
    return result.decision is KEPT, dict(result.trace_state or {})


@pytest.mark.parametrize("probability", [0.0, 1e-3, 0.1, 1 / 3, 0.5, 1.0])
def test_roots_are_those_of_the_composite_sampler(probability: float) -> None:
    """10^5 ids: the same decisions, and the same trace state of what is kept; of both our forms."""
    experimental = pytest.importorskip("opentelemetry.sdk.trace._sampling_experimental")
    theirs = experimental.composite_sampler(experimental.composable_traceid_ratio_based(probability))
    composed = experimental.composite_sampler(GobanfastComposableSampler(probability))
    ours = GobanfastSampler(probability)
    draw = random.Random(probability)
    edge = threshold_of(probability)
    ids = [draw.getrandbits(128) for _ in range(100_000 if probability == 0.1 else 2_000)]
    ids += [1 << 100 | at & ALL for at in (edge - 1, edge, edge + 1)]

    expected = [decided(theirs, None, trace) for trace in ids]
    assert (
        expected == [decided(ours, None, trace) for trace in ids] == [decided(composed, None, trace) for trace in ids]
    )
    assert all(state == ({"ot": f"th:{threshold_text(edge)}"} if kept else {}) for kept, state in expected)


@pytest.mark.parametrize("flags", [0, 1])
@pytest.mark.parametrize(
    "ot", [None, "th:8", "th:0", "rv:00000000000001", "th:8;rv:00000000000001", "th:8;rv:fffffffffffffe", "th:c;a:b"]
)
def test_children_are_those_of_the_composite_sampler(flags: int, ot: str | None) -> None:
    """`th` before the flag, `rv` before the trace id; what is dropped has no `th`."""
    experimental = pytest.importorskip("opentelemetry.sdk.trace._sampling_experimental")
    root = experimental.composable_traceid_ratio_based(0.5)
    theirs = experimental.composite_sampler(experimental.composable_parent_threshold(root))
    composed = experimental.composite_sampler(GobanfastComposableSampler(0.5))
    ours = GobanfastSampler(0.5)
    draw = random.Random(1)
    for _ in range(300):
        trace = draw.getrandbits(128)
        state = {"x": "y"} if ot is None else {"ot": ot, "x": "y"}
        context = context_of(flags, state, trace=trace)
        passed = otel.get_current_span(context).get_span_context().trace_state  # the SDK passes none
        kept, after = decided(theirs, context, trace, trace_state=passed)

        assert (kept, after) == decided(composed, context, trace, trace_state=passed)
        if not kept and ot in {"th:8", "th:0"}:
            del after["ot"]  # theirs leaves `th` where it was all that the member said
        assert (kept, after) == decided(ours, context, trace)


def test_end_to_end() -> None:
    """Spans of a provider: kept and dropped by id, attributes and `th` on them, children after their parents."""
    memory = InMemorySpanExporter()
    provider = TracerProvider(
        sampler=GobanfastSampler(0.25), id_generator=GobanfastIdGenerator(), shutdown_on_exit=False
    )
    provider.add_span_processor(SimpleSpanProcessor(memory))
    tracer = provider.get_tracer("test")
    for _ in range(400):
        with (
            tracer.start_as_current_span("root", context=Context(), attributes={"mine": 1}),
            tracer.start_as_current_span("child", attributes={"own": 2}) as child,
        ):
            child.set_attribute("late", 3)
    roots = [span for span in memory.get_finished_spans() if span.name == "root"]
    children = [span for span in memory.get_finished_spans() if span.name == "child"]

    assert 40 < len(roots) == len(children) < 180  # of 400 at a quarter: 7 standard deviations
    for root, child_span in zip(roots, children, strict=True):
        context = root.context
        assert context.trace_id & ALL >= threshold_of(0.25)
        assert ("th:c", 3) == (context.trace_state["ot"], context.trace_flags)
        assert {"mine": 1, "gobanfast.rate.probability": 0.25} == dict(root.attributes)
        assert {"own": 2, "late": 3} == dict(child_span.attributes)
        assert (context.trace_id, "th:c") == (child_span.context.trace_id, child_span.context.trace_state["ot"])
    assert len(roots) == len({span.context.trace_id for span in roots})


def test_rate_class_moves() -> None:
    """The next root has the threshold that a controller left; a class that is gone keeps its last."""
    classes = RateClasses()
    classes.place({"payment": 0, "rest": NEVER})
    sampler = GobanfastSampler(classes=classes, rate_class="payment")
    composed = GobanfastComposableSampler(classes=classes, rate_class="payment")

    assert (True, {"ot": "th:0"}) == decided(sampler, Context(), 1)
    assert {"gobanfast.rate.class": "payment", "gobanfast.rate.probability": 1.0} == dict(
        sampler.should_sample(Context(), 1, "name").attributes
    )
    classes.set_threshold("payment", 1 << 55)
    assert (False, {}) == decided(sampler, Context(), 1)
    assert (True, {"ot": "th:8"}) == decided(sampler, Context(), 1 << 55)
    assert 1 << 55 == composed.sampling_intent(Context(), "name", None, None, None).threshold
    classes.set_threshold("payment", NEVER)
    assert (False, {}) == decided(sampler, Context(), ALL)
    assert -1 == composed.sampling_intent(Context(), "name", None, None, None).threshold
    assert "GobanfastSampler{payment}" == sampler.get_description()


def test_malformed_threshold_is_erased() -> None:
    """The flag decides, and what nobody can read does not go on."""
    assert (True, {"ot": "rv:00000000000001", "x": "y"}) == decided(
        GobanfastSampler(0), context_of(1, {"ot": "th:XY;rv:00000000000001", "x": "y"}), 5
    )
    assert (False, {"x": "y"}) == decided(GobanfastSampler(1), context_of(0, {"ot": "th:XY", "x": "y"}), 5)


@pytest.mark.parametrize("state", ["", "-0", "-1", "-d"])
def test_b3_decisions(state: str) -> None:
    """Left open: ours to make; otherwise the sender's. Of the spans below, their parent's."""
    context = B3.extract({"b3": f"{5:032x}-{6:016x}{state}"})
    expected = state in {"-1", "-d"}

    assert (expected or not state) == decided(GobanfastSampler(1), context, 5)[0]
    assert expected == decided(GobanfastSampler(0), context, 5)[0]
    intent = GobanfastComposableSampler(0.5).sampling_intent(context, "name", None, None, None)
    assert (1 << 55 if not state else 0 if expected else -1, not state) == (intent.threshold, intent.threshold_reliable)
    below = otel.SpanContext(5, 7, False, otel.TraceFlags(0))
    assert not decided(GobanfastSampler(1), otel.set_span_in_context(otel.NonRecordingSpan(below), context), 5)[0]


@pytest.mark.parametrize("state", ["0", "1", "d"])
def test_b3_without_ids(state: str) -> None:
    """The decision holds for the trace that begins here, whatever its id."""
    context = B3.extract({"b3": state})

    assert (state != "0", {}) == decided(GobanfastSampler(0), context, 5) == decided(GobanfastSampler(1), context, 5)
    intent = GobanfastComposableSampler(0.5).sampling_intent(context, "name", None, {"a": 1}, None)
    assert (0 if state != "0" else -1, False) == (intent.threshold, intent.threshold_reliable)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give a probability, or classes="),
        ({"probability": 2}, "probability 2.0 is out of range; give 0 to 1"),
        ({"probability": 0.5, "classes": RateClasses(), "rate_class": "a"}, "give a probability, or classes="),
        ({"classes": RateClasses()}, "give a probability, or classes="),
        ({"classes": RateClasses(), "rate_class": "a"}, "rate_class 'a' is not one of"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    """Both, neither, halves, and classes that are not there."""
    for sampler in (GobanfastSampler, GobanfastComposableSampler):
        with pytest.raises((TypeError, ValueError), match=message):
            sampler(**arguments)


def test_ids() -> None:
    """In range, never twice, random at both ends."""
    ids = GobanfastIdGenerator()
    traces, spans = [ids.generate_trace_id() for _ in range(2000)], [ids.generate_span_id() for _ in range(2000)]

    assert 2000 == len(set(traces)) == len(set(spans))
    assert all(0 < trace < 1 << 128 for trace in traces)
    assert all(0 < span < 1 << 64 for span in spans)
    for top, found in ((120, traces), (56, spans)):
        assert len({each >> top for each in found}) > 200 < len({each & 255 for each in found})
    assert ids.is_trace_id_random()


SCRIPT = """
from opentelemetry.propagate import get_global_textmap
from opentelemetry.sdk._configuration import _initialize_components
from opentelemetry import trace
_initialize_components()
provider = trace.get_tracer_provider()
print(*[type(each).__name__ for each in get_global_textmap()._propagators], type(provider.id_generator).__name__,
      provider.sampler.get_description(), *sorted(get_global_textmap().fields))
"""


def test_selection_by_environment(tmp_path: Path) -> None:
    """What pyproject.toml registers is what OTEL_* name, with nothing written in code."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    groups = project["entry-points"]
    assert {"opentelemetry_propagator", "opentelemetry_id_generator", "opentelemetry_traces_sampler"} == set(groups)
    registered = tmp_path / "registered-1.dist-info"  # an installation in place may be older than the file
    registered.mkdir()
    (registered / "METADATA").write_text("Metadata-Version: 2.1\nName: registered\nVersion: 1\n")
    (registered / "entry_points.txt").write_text(
        "".join(f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in names.items()) for group, names in groups.items())
    )
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *[path for path in sys.path if path]]),
        "OTEL_PROPAGATORS": "gobanfast_b3",
        "OTEL_PYTHON_ID_GENERATOR": "gobanfast",
        "OTEL_TRACES_SAMPLER": "gobanfast",
        "OTEL_TRACES_SAMPLER_ARG": "0.25",
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
    }
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False)

    assert 0 == done.returncode, done.stderr
    assert [
        "GobanfastPropagator", "GobanfastIdGenerator", "GobanfastSampler{0.25}", "b3", "baggage", "traceparent",
        "tracestate",
    ] == done.stdout.split()  # fmt: skip


def test_sampler_argument() -> None:
    """All without one; a text that is no probability is an error, which the SDK logs."""
    assert "GobanfastSampler{1.0}" == sampler_of(None).get_description() == sampler_of("").get_description()
    for argument in ("x", "2", "nan"):
        with pytest.raises(ValueError, match=r"could not convert|out of range"):
            sampler_of(argument)


async def fetched(app: Any, headers: dict[str, str]) -> str:
    import httpx

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        return (await client.get("/", headers=headers)).text


@pytest.mark.parametrize("of", ["contrib", "starlette"])
def test_middleware_of_others(of: str) -> None:
    """A server's span under the caller's, by contrib's middleware and Starlette's, with our plug-ins."""
    from opentelemetry import propagate
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    name = "opentelemetry.instrumentation.asgi" if of == "contrib" else "starlette.middleware.opentelemetry"
    middleware = pytest.importorskip(name).OpenTelemetryMiddleware

    def page(request: Any) -> PlainTextResponse:
        headers: dict[str, str] = {}
        propagate.inject(headers)
        return PlainTextResponse(headers["traceparent"])

    memory, before = InMemorySpanExporter(), propagate.get_global_textmap()
    provider = TracerProvider(sampler=GobanfastSampler(0), id_generator=GobanfastIdGenerator(), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    app = middleware(Starlette(routes=[Route("/", page)]), tracer_provider=provider)
    propagate.set_global_textmap(GobanfastPropagator())
    try:
        text = asyncio.run(fetched(app, {"b3": f"{5:032x}-{6:016x}-1"}))
    finally:
        propagate.set_global_textmap(before)
    served = next(span for span in memory.get_finished_spans() if span.kind is otel.SpanKind.SERVER)
    assert (5, 6, True) == (served.context.trace_id, served.parent.span_id, served.parent.is_remote)
    assert f"00-{5:032x}-{served.context.span_id:016x}-01" == text
