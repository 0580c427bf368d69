"""OpenTelemetry's own cases for its propagators, restated for ours; where theirs are wrong, docs/trace.md says so."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest

pytest.importorskip("opentelemetry.sdk")
from opentelemetry import baggage as otel_baggage
from opentelemetry import trace as otel
from opentelemetry.context.context import Context
from opentelemetry.propagators.textmap import Getter

from gobanfast.telemetry.otel import GobanfastPropagator, b3_propagator, b3multi_propagator

TRACE, SPAN, PARENT = "12345678901234567890123456789012", "1234567890123456", "6543210987654321"
W3C = GobanfastPropagator(("tracecontext",), ("tracecontext",))
BAGGAGE = GobanfastPropagator(("baggage",), ("baggage",))
SINGLE, MULTI = GobanfastPropagator(("b3",), ("b3",)), GobanfastPropagator(("b3",), ("b3multi",))


class Headers(Getter[Any]):
    """A carrier of another type: pairs, with names as they came."""

    def get(self, carrier: Any, key: str) -> list[str] | None:
        return [value for name, value in carrier if name.lower() == key] or None

    def keys(self, carrier: Any) -> list[str]:
        return [name for name, _ in carrier]


def span_of(context: Context) -> otel.SpanContext:
    return otel.get_current_span(context).get_span_context()


def context_of(flags: int = 1, trace: str = TRACE, span: str = PARENT, **state: str) -> Context:
    found = otel.SpanContext(
        int(trace, 16), int(span, 16), False, otel.TraceFlags(flags), otel.TraceState(list(state.items()))
    )
    return otel.set_span_in_context(otel.NonRecordingSpan(found), Context())


def sent(propagator: GobanfastPropagator, context: Context) -> dict[str, str]:
    carrier: dict[str, str] = {}
    propagator.inject(carrier, context)
    return carrier


def child(context: Context) -> Context:
    """With a span under the one that arrived, as a tracer makes it."""
    parent = span_of(context)
    under = otel.SpanContext(parent.trace_id, int(PARENT, 16), False, parent.trace_flags, parent.trace_state)
    return otel.set_span_in_context(otel.NonRecordingSpan(under), context)


def test_traceparent_and_tracestate() -> None:
    """Both arrive, remote, and go on in order."""
    headers = {"traceparent": [f"00-{TRACE}-{SPAN}-00"], "tracestate": ["foo=1,bar=2", "", "baz=3,"]}
    context = W3C.extract(headers)
    found = span_of(context)

    assert (int(TRACE, 16), int(SPAN, 16), True, 0) == (
        found.trace_id,
        found.span_id,
        found.is_remote,
        found.trace_flags,
    )
    assert {"foo": "1", "bar": "2", "baz": "3"} == dict(found.trace_state)
    assert {"traceparent": f"00-{TRACE}-{SPAN}-00", "tracestate": "foo=1,bar=2,baz=3"} == sent(W3C, context)


@pytest.mark.parametrize(
    "traceparent",
    [
        f"00-{'0' * 32}-{SPAN}-00",
        f"00-{TRACE}-{'0' * 16}-00",
        f"00-{TRACE}-{SPAN}-00-residue",
        f"ff-{TRACE}-{SPAN}-00",
        f"00-{TRACE.upper().replace('1', 'A')}-{SPAN}-00",
        "",
    ],
)
def test_malformed_traceparent(traceparent: str) -> None:
    """As if absent, its tracestate with it."""
    context = W3C.extract({"traceparent": [traceparent], "tracestate": ["foo=1"]})
    assert otel.INVALID_SPAN_CONTEXT == span_of(context)


def test_tracestate_keys() -> None:
    """Keys of tenants and of level 2; a malformed member drops the list alone; of a key twice one counts."""
    state = "1a-2f@foo=bar1,1a-_*/2b@foo=bar2,foo=bar3,foo-_*/bar=bar4"
    found = span_of(W3C.extract({"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": state}))
    assert ["bar1", "bar2", "bar3", "bar4"] == list(found.trace_state.values())

    twice = span_of(W3C.extract({"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "foo=1,bar=2,foo=3"}))
    assert (int(TRACE, 16), {"foo": "1", "bar": "2"}) == (twice.trace_id, dict(twice.trace_state))
    broken = span_of(W3C.extract({"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "foo=1,b a r=2"}))
    assert (int(TRACE, 16), {}) == (broken.trace_id, dict(broken.trace_state))


@pytest.mark.parametrize(
    ("lines", "kept"),
    [
        (["foo=1" + " " * 8187], {"foo": "1"}),
        (["foo=1" + " " * 4090, "bar=2" + " " * 4091], {"foo": "1", "bar": "2"}),
        (["foo=1" + " " * 8188], {}),
        (["foo=1" + " " * 4091, "bar=2" + " " * 4091], {}),
    ],
)
def test_tracestate_of_8192_bytes(lines: list[str], kept: dict[str, str]) -> None:
    """Together, with a comma between; of more the traceparent alone."""
    found = span_of(W3C.extract({"traceparent": f"00-{TRACE}-{SPAN}-00", "tracestate": lines}))

    assert (int(TRACE, 16), kept) == (found.trace_id, dict(found.trace_state))


@pytest.mark.parametrize(
    ("version", "rest", "valid"),
    [
        ("00", "", True), ("00", " \t ", True), ("00", "-x", False), ("00", "-" + " " * 100, False), ("01", "-x", True),
        ("01", "-" + " " * 100, True), ("01", "-\tx", True), ("01", " -x", False), ("01", "- \nx", False),
        ("01", "-\0", False),
    ],
)  # fmt: skip
def test_what_stands_behind_a_traceparent(version: str, rest: str, valid: bool) -> None:
    """Of a later version anything that a header can have."""
    assert valid == span_of(W3C.extract({"traceparent": f"{version}-{TRACE}-{SPAN}-01{rest}"})).is_valid


@pytest.mark.parametrize("propagator", [W3C, BAGGAGE, SINGLE, MULTI, GobanfastPropagator()])
def test_nothing_to_send(propagator: GobanfastPropagator) -> None:
    """No span and no baggage, or an invalid span: no headers. Nothing arrives: the context given, or an empty one."""
    given = Context({"mine": 1})

    assert {} == sent(propagator, Context()) == sent(propagator, otel.set_span_in_context(otel.INVALID_SPAN, Context()))
    assert given is propagator.extract({}, given)
    assert Context() == propagator.extract({})


def test_flags_that_nobody_defined_are_not_sent() -> None:
    """W3C: unknown flags are zero. Theirs go on."""
    assert f"00-{TRACE}-{PARENT}-03" == sent(W3C, context_of(0xFF))["traceparent"]
    assert {"traceparent"} == sent(W3C, context_of()).keys()


def test_b3_single_and_multi() -> None:
    """Ids, state and parent of both forms; the single header counts; 64 bits are padded."""
    multi = {"x-b3-traceid": TRACE, "x-b3-spanid": SPAN, "x-b3-parentspanid": PARENT, "x-b3-sampled": "1"}
    for headers in (multi, {"b3": f"{TRACE}-{SPAN}-1"}, {"b3": f"{TRACE}-{SPAN}-1-{PARENT}"}):
        context = MULTI.extract(headers)
        assert span_of(context).is_remote
        assert {"x-b3-traceid": TRACE, "x-b3-spanid": PARENT, "x-b3-sampled": "1"} == sent(MULTI, child(context))
        assert {"b3": f"{TRACE}-{SPAN}-1"} == sent(SINGLE, context)

    other = TRACE[:-3] + "abc"
    assert int(other, 16) == span_of(MULTI.extract({**multi, "b3": f"{other}-{SPAN}"})).trace_id
    assert f"{'0' * 16}{TRACE[:16]}-{SPAN}-0" == sent(SINGLE, MULTI.extract({"b3": f"{TRACE[:16]}-{SPAN}-0"}))["b3"]


@pytest.mark.parametrize(
    "headers",
    [
        {"b3": "0-1-2-3-4-5-6-7"},
        {"x-b3-spanid": SPAN, "x-b3-sampled": "x"},
        {"x-b3-traceid": "abc123", "x-b3-spanid": SPAN, "x-b3-sampled": "1"},
        {"x-b3-traceid": TRACE, "x-b3-spanid": "abc123", "x-b3-sampled": "1"},
        {"x-b3-traceid": TRACE, "x-b3-sampled": "1"},
    ],
)
def test_malformed_b3(headers: dict[str, str]) -> None:
    """No span, whatever is wrong with the ids."""
    assert not span_of(MULTI.extract(headers)).is_valid


@pytest.mark.parametrize(
    ("text", "flags"), [("1", 1), ("true", 1), ("True", 1), ("d", 1), ("0", 0), ("false", 0), ("False", 0)]
)
def test_words_of_x_b3_sampled(text: str, flags: int) -> None:
    """Those of tracers older than the specification are read, and written as its own."""
    context = MULTI.extract({"x-b3-traceid": TRACE, "x-b3-spanid": SPAN, "x-b3-sampled": text})

    assert flags == span_of(context).trace_flags
    assert f"{flags}" == sent(MULTI, child(context))["x-b3-sampled"]
    assert f"{TRACE}-{PARENT}-{flags}" == sent(SINGLE, child(context))["b3"]


def test_b3_debug_goes_on_with_the_trace() -> None:
    """From span to span of the same trace that is sampled; another trace has nothing of it."""
    for headers in ({"b3": f"{TRACE}-{SPAN}-d"}, {"x-b3-traceid": TRACE, "x-b3-spanid": SPAN, "x-b3-flags": "1"}):
        context = SINGLE.extract(headers)
        assert 1 == span_of(context).trace_flags
        assert {"b3": f"{TRACE}-{PARENT}-d"} == sent(SINGLE, child(context))
        assert {"x-b3-traceid": TRACE, "x-b3-spanid": PARENT, "x-b3-flags": "1"} == sent(MULTI, child(context))
        apart = otel.set_span_in_context(otel.get_current_span(context_of(1, "f" * 32)), context)
        assert f"{'f' * 32}-{PARENT}-1" == sent(SINGLE, apart)["b3"]


def test_b3_left_open_stays_open() -> None:
    """Until a span of one's own has decided. Theirs make a yes of it, or a no, by the form of the header."""
    for headers in ({"b3": f"{TRACE}-{SPAN}"}, {"x-b3-traceid": TRACE, "x-b3-spanid": SPAN}):
        context = SINGLE.extract(headers)
        assert {"b3": f"{TRACE}-{SPAN}"} == sent(SINGLE, context)
        assert {"x-b3-traceid": TRACE, "x-b3-spanid": SPAN} == sent(MULTI, context)
        assert {"b3": f"{TRACE}-{PARENT}-0"} == sent(SINGLE, child(context))


@pytest.mark.parametrize("state", ["0", "1", "d"])
def test_b3_without_ids(state: str) -> None:
    """A decision alone has no span, goes on as it came, and is forgotten with the next request that arrives."""
    context = SINGLE.extract({"b3": state})

    assert not span_of(context).is_valid
    assert {"b3": state} == sent(SINGLE, context)
    assert ({"x-b3-flags": "1"} if state == "d" else {"x-b3-sampled": state}) == sent(MULTI, context)
    assert {"b3": f"{TRACE}-{SPAN}-1"} == sent(SINGLE, SINGLE.extract({"b3": f"{TRACE}-{SPAN}-1"}, context))


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", {}),
        ("key1=val1,key2=val2", {"key1": "val1", "key2": "val2"}),
        ("key1 =   val1,  key2 =val2   ", {"key1": "val1", "key2": "val2"}),
        ("key1\t=\tval1", {"key1": "val1"}),
        ("key 1=val1", {}),
        ("key1=val 1", {}),
        ("key1=val1;pr op=1", {}),
        (" = ", {}),
        ("header1", {}),
        (
            "key1=val1,key2=val2%3Aval3,key3=val4%40%23%24val5",
            {"key1": "val1", "key2": "val2:val3", "key3": "val4@#$val5"},
        ),
        ("key1=val1,key2=val2,a,val3", {"key1": "val1", "key2": "val2"}),
        ("key1=,key2=val2", {"key1": "", "key2": "val2"}),
        ("key1=val1,key2=test\u00e9", {"key1": "val1"}),
        (f"key1={'s' * 8193}", {}),
        (f"key1={chr(0xE9) * 8192}", {}),
        ("keykey=value%5Evalue", {"keykey": "value^value"}),
        # Theirs differ: properties are no part of a value, a key is no percent-coded text, a plus is a plus.
        ("key1 = val1 ; prop1 = 1 ; prop2", {"key1": "val1"}),
        ("key%23key=value%23value", {"key%23key": "value#value"}),
        ("key=a+b", {"key": "a+b"}),
    ],
)
def test_baggage_in(header: str, expected: dict[str, str]) -> None:
    """What each header says."""
    assert expected == otel_baggage.get_all(BAGGAGE.extract({"baggage": [header]}))


def with_baggage(values: dict[str, Any], context: Context | None = None) -> Context:
    found = Context() if context is None else context
    for key, value in values.items():
        found = otel_baggage.set_baggage(key, value, found)
    return found


class Unspeakable:
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"key1": "val1", "key2": "val2"}, "key1=val1,key2=val2"),
        ({"key1": "val1,val2", "key2": "val3=4"}, "key1=val1%2Cval2,key2=val3%3D4"),
        ({"key1": True, "key2": 123, "key3": 123.567}, "key1=True,key2=123,key3=123.567"),
        ({"good": "value", "bad": Unspeakable()}, "good=value"),
        ({"key1": "val1", "big": "x" * 4096, "key3": "val3"}, "key1=val1,key3=val3"),
        ({"big": "x" * 4096}, None),
        ({"key": "two words"}, "key=two%20words"),  # theirs: a plus, which W3C reads as a plus
        ({"key key": "value", "a": "1"}, "a=1"),  # theirs: key+key, which is another key
    ],
)
def test_baggage_out(values: dict[str, Any], expected: str | None) -> None:
    """What is written; what has no form is left out."""
    assert expected == sent(BAGGAGE, with_baggage(values)).get("baggage")


def test_baggage_limits() -> None:
    """180 members, 8192 bytes."""
    many = sent(BAGGAGE, with_baggage({f"key{i}": "val" for i in range(190)}))["baggage"]
    long = sent(BAGGAGE, with_baggage({f"k{i:03d}": "v" * 200 for i in range(50)}))["baggage"]

    assert 180 == many.count("=")
    assert 8192 - 206 < len(long) <= 8192
    assert 180 == len(otel_baggage.get_all(BAGGAGE.extract({"baggage": many + ",more=1"})))


def test_properties_go_on_with_their_value() -> None:
    """While the value is the one that came."""
    context = BAGGAGE.extract({"baggage": "a=1;ttl=5;x,b=2"})

    assert "a=1;ttl=5;x,b=2" == sent(BAGGAGE, context)["baggage"]
    assert "a=3,b=2" == sent(BAGGAGE, otel_baggage.set_baggage("a", "3", context))["baggage"]


@pytest.mark.parametrize(
    "propagator", [W3C, BAGGAGE, SINGLE, MULTI, GobanfastPropagator(), b3_propagator(), b3multi_propagator()]
)
def test_fields_are_what_may_be_written(propagator: GobanfastPropagator) -> None:
    """Debug included, which another request through the same carrier must not have."""
    written: set[str] = set()
    plain = with_baggage({"a": "1"}, context_of(1, a="b"))
    debug = SINGLE.extract({"b3": f"{TRACE}-{SPAN}-d"}, plain)
    for context in (plain, debug):
        setter = Mock()
        propagator.inject({}, context, setter)
        written |= {call.args[1] for call in setter.set.mock_calls}
    assert propagator.fields == written


def test_other_carriers() -> None:
    """A getter for another type, names in capitals; each name that is spoken is asked for, and no more."""
    pairs = [("TraceParent", f"00-{TRACE}-{SPAN}-01"), ("Baggage", "a=1"), ("Baggage", "b=2")]
    context = GobanfastPropagator().extract(pairs, getter=Headers())
    assert int(TRACE, 16) == span_of(context).trace_id
    assert {"a": "1", "b": "2"} == otel_baggage.get_all(context)

    getter = Mock()
    getter.get.return_value = None
    W3C.extract([], getter=getter)
    assert ["traceparent", "tracestate"] == [call.args[1] for call in getter.get.mock_calls]


@pytest.mark.parametrize("names", [(), ("jaeger",), "w3c"])
def test_unknown_names(names: Any) -> None:
    """Told when it is built."""
    with pytest.raises(ValueError, match="give some of tracecontext, baggage, b3, b3multi"):
        GobanfastPropagator(names)
