"""OpenTelemetry's propagators and ours on the same headers: what one sends the other reads, span for span."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gobanfast.trace import TraceContext, extract, inject

pytest.importorskip("opentelemetry.sdk")
from opentelemetry import baggage as otel_baggage
from opentelemetry import trace as otel
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

W3C, BAGGAGE = TraceContextTextMapPropagator(), W3CBaggagePropagator()
TRACES = st.integers(1, 2**128 - 1)
SPANS = st.integers(1, 2**64 - 1)
STATES = st.dictionaries(
    st.from_regex(r"[a-z][a-z0-9_\-*/]{0,9}", fullmatch=True),
    st.from_regex(r"[!-+\--<>-~]{1,9}", fullmatch=True),
    max_size=32,
)
VALUES = st.dictionaries(
    st.from_regex(r"[A-Za-z0-9_.-]{1,9}", fullmatch=True), st.text(st.characters(codec="utf-8"), max_size=9), max_size=9
)


def span_of(context: Any) -> Any:
    return otel.get_current_span(context).get_span_context()


@given(trace=TRACES, span=SPANS, flags=st.integers(0, 3), state=STATES)
def test_theirs_to_ours(trace: int, span: int, flags: int, state: dict[str, str]) -> None:
    """Ids, flags and tracestate of a span of theirs; what we send on they take for a child's."""
    sent: dict[str, str] = {}
    theirs = otel.SpanContext(trace, span, False, otel.TraceFlags(flags), otel.TraceState(list(state.items())))
    W3C.inject(sent, otel.set_span_in_context(otel.NonRecordingSpan(theirs)))
    ours = extract(sent)

    assert ours is not None
    assert (f"{trace:032x}", f"{span:016x}", flags) == (ours.trace_id, ours.span_id, ours.flags)
    assert state == dict(member.split("=", 1) for member in ours.tracestate.split(",") if member)
    back = span_of(W3C.extract(inject({}, ours.child())))
    assert (trace, flags, state) == (back.trace_id, back.trace_flags, dict(back.trace_state))
    assert span != back.span_id


@given(values=VALUES)
def test_baggage_both_ways(values: dict[str, str]) -> None:
    """Values as they were, but for what they do to them: they read `+` as a blank, write a blank as `+`, and strip."""
    context = TraceContext("1" * 32, "2" * 16, baggage=values)
    theirs = BAGGAGE.extract(inject({}, context, baggage=True))
    plain = {key: value for key, value in values.items() if "+" not in value and value == value.strip()}
    assert plain == {key: value for key, value in otel_baggage.get_all(theirs).items() if key in plain}

    sent: dict[str, str] = {}
    current = None
    for key, value in values.items():
        current = otel_baggage.set_baggage(key, value, current)
    BAGGAGE.inject(sent, current)
    ours = extract(sent)
    found = () if ours is None else ours.baggage
    spaced = {key: value for key, value in values.items() if " " not in value}  # they write a blank as a plus
    assert spaced == {key: value for key, value, _ in found if key in spaced}
