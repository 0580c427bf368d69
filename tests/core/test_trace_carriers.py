"""Carriers of trace contexts: whatever holds names and values, what is put in is found again; no client library."""

from __future__ import annotations

import json
from collections import UserDict
from contextlib import suppress
from http.client import HTTPMessage
from importlib import import_module
from types import MappingProxyType
from typing import Any, NamedTuple
from wsgiref.headers import Headers as WsgiHeaders

import pytest

from gobanfast.trace import TraceContext, envelope, extract, inject, kafka_setter, read_envelope, use

CONTEXT = TraceContext(
    "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331",
    sampled=True, random=True, tracestate="ot=th:8", baggage={"user": "ann b"},
)  # fmt: skip
PARENT = str(CONTEXT.traceparent)
B3 = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1"


class Metadatum(NamedTuple):
    """As grpcio hands metadata to a servicer."""

    key: str
    value: str


class Properties:
    """As paho-mqtt has them: a list of pairs that is made when first asked for."""

    def __init__(self) -> None:
        self.UserProperty: list[tuple[str, str]] = []


CARRIERS: dict[str, Any] = {
    "HTTP pairs": [("host", "a.example")],
    "HTTP pairs as ASGI has them": [(b"host", b"a.example")],
    "HTTP pairs as lists": [["host", "a.example"]],
    "no pairs yet": [],
    "HTTP headers in a dict": {"Host": "a.example"},
    "HTTP headers in a mapping": UserDict({"Host": "a.example"}),
    "WSGI environ": {"wsgi.version": (1, 0), "HTTP_HOST": "a.example", "SERVER_PORT": "80"},
    "gRPC metadata": (("x-a", "1"), ("x-b-bin", b"\0\xff")),
    "gRPC metadata of a servicer": (Metadatum("user-agent", "grpc"),),
    "no gRPC metadata yet": (),
    "Kafka headers": [("a", b"1")],
    "Kafka headers with one of None": [("a", None)],
    "AMQP headers table": {"x-death": [{"count": 1}], "n": 3, "x": None},
    "MQTT 5 user properties": Properties().UserProperty,
    "NATS headers": {"Nats-Msg-Id": "1"},
    "Redis Streams fields": {"amount": 3},
    "Redis Streams fields as read": {b"amount": b"3"},
}


@pytest.mark.parametrize("name", sorted(CARRIERS))
@pytest.mark.parametrize(
    "propagators", [("tracecontext", "baggage"), ("b3",), ("b3multi", "baggage"), ("tracecontext", "b3")]
)
def test_round_trip(name: str, propagators: tuple[str, ...]) -> None:
    """Same trace, decision and baggage; what else was there still is; a second injection replaces the first."""
    before = CARRIERS[name]
    carrier = before if isinstance(before, tuple) else before.copy()
    once = inject(carrier, CONTEXT, propagators=propagators, baggage=True)
    first = extract(once, propagators)
    twice = inject(once, CONTEXT, propagators=propagators, baggage=True)
    second = extract(twice, propagators)

    assert isinstance(before, tuple) or once is carrier
    assert type(before) is type(once) or isinstance(before, tuple)
    assert first is not None
    assert second is not None
    assert len(once) == len(twice)
    for found in (first, second):
        assert (CONTEXT.trace_id, True) == (found.trace_id, found.sampled)
        assert ("ot=th:8" if found.source == "traceparent" else "") == found.tracestate
        assert (CONTEXT.baggage if "baggage" in propagators else ()) == found.baggage
    assert len({CONTEXT.span_id, first.span_id, second.span_id}) == 3
    if isinstance(before, (list, tuple)):
        assert list(before) == list(twice)[: len(before)]
    else:
        assert dict(before) == {key: twice[key] for key in before}


@pytest.mark.parametrize("name", sorted(CARRIERS))
def test_types_are_those_of_the_carrier(name: str) -> None:
    """Names and values are bytes where the others are, str where there are none."""
    carrier = inject(CARRIERS[name] if isinstance(CARRIERS[name], tuple) else CARRIERS[name].copy(), CONTEXT)
    (key, value) = carrier[-1] if isinstance(carrier, (list, tuple)) else list(carrier.items())[-1]

    expected = {
        "HTTP pairs as ASGI has them": (bytes, bytes), "Kafka headers": (str, bytes),
        "Redis Streams fields as read": (bytes, bytes), "gRPC metadata": (str, bytes),
    }.get(name, (str, str))  # fmt: skip
    if name == "gRPC metadata":  # its last value is a binary one
        expected = (str, bytes)
    assert expected == (type(key), type(value))


def test_getter_and_setter() -> None:
    """Objects of other kinds go through a pair of functions, and get names in lower case."""

    class Message:
        def __init__(self) -> None:
            self.fields: dict[str, list[str]] = {}

    def put(message: Message, name: str, value: str) -> None:
        message.fields.setdefault(name, []).append(value)

    def get(message: Message, name: str) -> list[str]:
        return message.fields.get(name, [])

    message = Message()
    assert message is inject(message, CONTEXT, setter=put, baggage=True)
    found = extract(message, getter=get)

    assert ["baggage", "traceparent", "tracestate"] == sorted(message.fields)
    assert found is not None
    assert (CONTEXT.trace_id, CONTEXT.baggage) == (found.trace_id, found.baggage)
    message.fields["traceparent"] *= 2
    assert extract(message, ("tracecontext",), getter=get) is None


def test_kafka_setter() -> None:
    """An empty list of Kafka headers gets bytes."""
    headers: list[tuple[str, bytes]] = []

    assert [("traceparent", bytes), ("tracestate", bytes)] == [
        (name, type(value)) for name, value in inject(headers, CONTEXT, setter=kafka_setter)
    ]


def test_environ_has_no_other_names() -> None:
    """Of an environ only HTTP_ keys are headers: what the process was started with is not, nor is a header a key."""
    environ = {"wsgi.version": (1, 0), "TRACEPARENT": PARENT, "traceparent": PARENT, "b3": B3}

    assert extract(environ) is None
    assert extract({"HTTP_TRACEPARENT": PARENT}) is None
    assert extract({**environ, "HTTP_TRACEPARENT": f"{PARENT},{PARENT}"}) is None
    found = extract({**environ, "HTTP_B3": B3})
    assert found is not None
    assert "b3" == found.source


class Name(str):
    """As multidict has names, aiohttp's headers: no plain str."""

    __slots__ = ()


def header_classes() -> dict[str, Any]:
    """Classes of headers of libraries, those that are here; each with two headers of its own."""
    own = [("accept", "*/*"), ("x-own", "1")]
    found: dict[str, Any] = {"mapping of other strings": {Name(name): Name(value) for name, value in own}}
    message = HTTPMessage()
    found["http.client"], found["wsgiref"] = message, WsgiHeaders(list(own))
    for name, value in own:
        message[name] = value
    for module, name in [
        ("httpx", "Headers"), ("multidict", "CIMultiDict"), ("starlette.datastructures", "MutableHeaders"),
        ("werkzeug.datastructures", "Headers"),
    ]:  # fmt: skip
        with suppress(ImportError):
            found[module] = getattr(import_module(module), name)(dict(own))
    return found


@pytest.mark.parametrize("library", header_classes())
def test_headers_of_libraries(library: str) -> None:
    """Their classes are carriers as they are; what is there twice counts as absent, and is replaced, in any case."""
    carrier = header_classes()[library]
    assert extract(carrier) is None
    assert carrier is inject(carrier, CONTEXT, baggage=True)
    first = extract(carrier)
    assert first is not None
    assert (CONTEXT.trace_id, "ot=th:8", CONTEXT.baggage) == (first.trace_id, first.tracestate, first.baggage)
    inject(carrier, CONTEXT)
    second = extract(carrier)
    assert second is not None
    assert (CONTEXT.trace_id, ()) == (second.trace_id, second.baggage)
    assert first.span_id != second.span_id
    assert ["accept", "traceparent", "tracestate", "x-own"] == sorted(name.lower() for name, _ in carrier.items())
    add = getattr(carrier, "add_header", None) or getattr(carrier, "add", None) or getattr(carrier, "append", None)
    if add is not None:
        add("TraceParent", PARENT)
        assert extract(carrier) is None
        inject(carrier, CONTEXT)
        assert 4 == len(list(carrier.items()))


@pytest.mark.parametrize("name", ["TRACEPARENT", "TraceParent", b"TraceParent"])
def test_names_have_no_case(name: str | bytes) -> None:
    """In pairs and mappings; and what is replaced has none either."""
    for carrier in ({name: PARENT}, [(name, PARENT)]):
        found = extract(carrier)
        assert found is not None
        assert CONTEXT.trace_id == found.trace_id
        assert 2 == len(inject(carrier, CONTEXT))


@pytest.mark.parametrize(
    "name", ["trace-parent", "trace.parent", "traceparent ", "traceparent\0", "traceparenü", 3, None, ("a",)]
)
def test_other_names_are_passed_over(name: Any) -> None:
    """No header, no error."""
    assert extract([(name, PARENT)]) is None
    assert extract({name: PARENT}) is None


@pytest.mark.parametrize("value", [None, 3, 1.5, b"\xff", "\ud800", "é", {}, [], [PARENT, PARENT], object()])
def test_values_that_are_none(value: Any) -> None:
    """Are as if absent, or malformed."""
    assert extract([("traceparent", value)]) is None
    assert extract({"traceparent": value}) is None
    found = extract([("traceparent", value), ("b3", B3)])
    assert found is not None
    assert "b3" == found.source


def test_several_values_in_one_entry() -> None:
    """A mapping of lists has a line for each."""
    found = extract({"traceparent": [PARENT], "tracestate": ["a=1", b"b=2"]})

    assert found is not None
    assert "a=1,b=2" == found.tracestate


def test_baggage_goes_only_when_asked_for() -> None:
    """It tells what one knows about a user: off by default, and a received one in a copy of headers is taken out."""
    received = [("traceparent", PARENT), ("baggage", "user=ann"), ("accept", "*/*")]

    assert ["accept", "traceparent", "tracestate"] == [name for name, _ in inject(received, CONTEXT)]
    assert "baggage" not in inject({}, CONTEXT)
    assert "user=ann%20b" == inject({}, CONTEXT, baggage=True)["baggage"]
    assert "baggage" not in inject({}, CONTEXT, propagators=("tracecontext",), baggage=True)


def test_b3_forms() -> None:
    """Debug, accept, deny and defer are told apart; the parent is told along."""
    multi = ("b3multi",)
    ids = {"x-b3-traceid": CONTEXT.trace_id, "x-b3-parentspanid": CONTEXT.span_id}
    for told, form in [(True, {"x-b3-sampled": "1"}), (False, {"x-b3-sampled": "0"}), (None, {})]:
        context = TraceContext(CONTEXT.trace_id, CONTEXT.span_id, sampled=told)
        carrier = inject({}, context, propagators=multi)
        span_id = carrier.pop("x-b3-spanid")
        assert {**ids, **form} == carrier
        state = {True: f"-1-{CONTEXT.span_id}", False: f"-0-{CONTEXT.span_id}", None: ""}[told]
        single = inject({}, context, propagators=("b3",))["b3"]
        assert (f"{CONTEXT.trace_id}-", state) == (single[:33], single[49:])
        assert span_id not in single
    debug = TraceContext(CONTEXT.trace_id, CONTEXT.span_id, sampled=True, debug=True)
    assert "1" == inject({}, debug, propagators=multi)["x-b3-flags"]
    assert "d" == inject({}, debug, propagators=("b3",))["b3"][50]
    assert inject({}, debug)["traceparent"].endswith("-01")


def test_without_a_context_nothing_is_written() -> None:
    """Nor taken away; with one it is that of here."""
    carrier = {"traceparent": PARENT}

    assert {"traceparent": PARENT} == inject(carrier)
    with use(CONTEXT):
        assert PARENT != inject(carrier)["traceparent"]


def test_no_headers_at_all() -> None:
    """None, as client libraries say it of a message without headers, brings none; nothing can be put into it."""
    assert extract(None) is None
    assert extract(None, ("b3",)) is None
    assert "b3" == getattr(extract(None, getter=lambda _, name: [B3] if name == "b3" else []), "source", "")
    with pytest.raises(ValueError, match="propagator 'jaeger'"):
        extract(None, ("jaeger",))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: extract("traceparent"), TypeError, "carrier is str, not a list or tuple of"),
        (lambda: extract(["traceparent"]), TypeError, r"carrier has 'traceparent', not \(name, value\)"),
        (lambda: extract([("traceparent",)]), TypeError, "carrier has"),
        (lambda: extract({}, "b3"), TypeError, r"propagators is one text, 'b3'; write \('b3',\)"),
        (lambda: extract({}, ("jaeger",)), ValueError, "propagator 'jaeger' is not one of tracecontext, baggage, b3"),
        (lambda: extract({}, ()), ValueError, "propagators is empty"),
        (lambda: inject("x", CONTEXT), TypeError, "carrier is str"),
        (lambda: inject(None, CONTEXT), TypeError, "carrier is NoneType"),
        (lambda: inject(MappingProxyType({}), CONTEXT), TypeError, "carrier is mappingproxy"),
        (lambda: inject([1], CONTEXT), TypeError, "carrier has 1"),
        (lambda: inject({}, PARENT), TypeError, "context"),
    ],
)
def test_misuse_is_told(call: Any, error: type[Exception], words: str) -> None:
    """What is no carrier is an error of the caller, not of the wire."""
    with pytest.raises(error, match=words):
        call()


def test_envelope() -> None:
    """What has no headers carries them in JSON beside the body; any other text is a body without a context."""
    text = envelope({"n": [1, "é"]}, CONTEXT)
    context, body = read_envelope(text)

    assert context is not None
    assert (CONTEXT.trace_id, {"n": [1, "é"]}) == (context.trace_id, body)
    assert {"headers", "body"} == json.loads(text).keys()
    assert (None, 3) == read_envelope(envelope(3))
    assert context == read_envelope(text.encode())[0]
    for other in (
        "",
        "x",
        b"\xff",
        "3",
        "[]",
        '{"headers":1,"body":2}',
        '{"headers":{},"body":1,"x":2}',
        "[" * 100_000,
    ):
        assert (None, other) == read_envelope(other)


def test_a_carrier_that_changes_while_it_is_read() -> None:
    """Values that the carrier no longer holds are still there when they are looked at."""

    class Changing(dict[str, Any]):
        def items(self) -> Any:
            yield (
                "traceparent",
                "-".join(["00", CONTEXT.trace_id or "", CONTEXT.span_id or "", "03"]),
            )  # a text of its own
            yield "tracestate", "a=1"

    found = extract(Changing())

    assert found is not None
    assert (PARENT, "a=1") == (found.traceparent, found.tracestate)
