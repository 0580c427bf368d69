"""Trace contexts: what headers say is what their grammars say, what is written is read again, nothing is half-made."""

from __future__ import annotations

import copy
import pickle
import re
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import oracle.trace as oracle
from gobanfast._core.sampling import parse_ot
from gobanfast._core.trace_context import restore
from gobanfast.trace import TraceContext, extract, inject

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"


def nearly(good: st.SearchStrategy[str], alphabet: str) -> st.SearchStrategy[str]:
    """Good texts, and ones with a place that is cut, doubled or replaced."""

    def spoilt(text: str, at: int, with_: str, cut: int) -> str:
        at %= len(text) + 1
        return text[:at] + with_ + text[at + cut :]

    places = st.integers(0, 100)
    return good | st.builds(spoilt, good, places, st.text(alphabet, max_size=2), st.integers(0, 2))


def hex_digits(count: int) -> st.SearchStrategy[str]:
    return st.just("0" * count) | st.text("0123456789abcdef", min_size=count, max_size=count)


BLANKS = st.text(" \t", max_size=2)
PARENTS = nearly(
    st.builds(
        "{}{}-{}-{}-{}{}{}".format, BLANKS, st.sampled_from(["00", "01", "cc", "ff"]), hex_digits(32), hex_digits(16),
        hex_digits(2), st.sampled_from(["", "-x", "-", ".x"]), BLANKS,
    ),
    "0aAfF-. \t\n+\0é",
)  # fmt: skip
STATE_KEYS = st.sampled_from(["a", "b", "gbf", "ot", "0", "a@b", "@a", "A", "a.b", "k" * 256, "k" * 257, ""])
STATE_VALUES = st.sampled_from(["1", "h:1", " 1", "a b", "v" * 256, "v" * 257, "", " ", "a=b", "é", "a\0", "~!"])
STATES = nearly(
    st.lists(st.builds("{}{}={}{}".format, BLANKS, STATE_KEYS, STATE_VALUES, BLANKS) | BLANKS, max_size=6).map(",".join)
    | st.integers(30, 34).map(lambda n: ",".join(f"k{i}={i}" for i in range(n))),
    "a=, \t@\n",
)
BAGGAGE_TEXT = st.text('abc%20é=+ \t"\\', max_size=4) | st.sampled_from(["%E2%9C%93", "%ff", "%zz", "a%2Cb", "%", "%2"])
BAGGAGE_PARTS = st.builds("{}{}{}={}{}".format, BLANKS, st.text("abZ(%", max_size=2), BLANKS, BLANKS, BAGGAGE_TEXT)
BAGGAGE = nearly(
    st.lists(
        st.lists(BAGGAGE_PARTS | st.sampled_from(["p", "", " p "]), min_size=1, max_size=3).map(";".join), max_size=5
    ).map(",".join),
    "a=,;% \t",
)  # fmt: skip
B3_SINGLE = nearly(
    st.sampled_from(["0", "1", "d", "2", ""])
    | st.lists(hex_digits(32) | hex_digits(16) | st.sampled_from(["0", "1", "d", "2", ""]), max_size=5).map("-".join)
    | st.builds("{}-{}{}{}".format, hex_digits(32), hex_digits(16), st.sampled_from(["", "-0", "-1", "-d"]),
                st.just("") | hex_digits(16).map("-{}".format)),
    "0adD-_x \t",
)  # fmt: skip
B3_FIELDS = {
    "b3": B3_SINGLE,
    "x-b3-traceid": nearly(hex_digits(32) | hex_digits(16), "aA "),
    "X-B3-SpanId": nearly(hex_digits(16), "aA "),
    "X-B3-PARENTSPANID": nearly(hex_digits(16), "aA "),
    "X-B3-Sampled": st.sampled_from(["0", "1", "d", "", "true", "True", "TRUE", "false", "False", "dd", " 1"]),
    "X-B3-Flags": st.sampled_from(["0", "1", "2", ""]),
}
B3 = st.lists(st.sampled_from(sorted(B3_FIELDS)).flatmap(lambda n: st.tuples(st.just(n), B3_FIELDS[n])), max_size=7)


def lines_of(name: str, lines: list[str]) -> list[tuple[str, str]]:
    return [(name, line) for line in lines]


def members_of(text: str) -> list[tuple[str, ...]]:
    return [tuple(member.split("=", 1)) for member in text.split(",") if member]


@given(lines=st.lists(PARENTS, max_size=2) | PARENTS.map(lambda line: [line]))
def test_traceparent_is_its_grammar(lines: list[str]) -> None:
    """Ids and flags of one well-formed line; nothing of any other."""
    context = extract(lines_of("traceparent", lines), ("tracecontext",))

    found = None if context is None else (context.trace_id, context.span_id, context.flags)
    assert oracle.traceparent(lines) == found


@given(lines=st.lists(STATES, max_size=3))
def test_tracestate_is_its_grammar(lines: list[str]) -> None:
    """All members in order, or none, whatever the lines; the context stands either way."""
    context = extract([("traceparent", PARENT), *lines_of("tracestate", lines)])

    assert context is not None
    assert PARENT == context.traceparent
    assert oracle.tracestate(lines) == (None if context.state_dropped else members_of(context.tracestate))


@given(lines=st.lists(STATES, max_size=2), key=st.sampled_from(["gbf", "a", "k3", "0"]))
def test_own_entry_is_at_the_left(lines: list[str], key: str) -> None:
    """The old entry of the key goes, then what is beyond 32, from the right."""
    context = extract([("traceparent", PARENT), *lines_of("tracestate", lines)])

    assert context is not None
    written = context.with_state(key, "h:1")
    assert oracle.tracestate_set(lines, key, "h:1") == members_of(written.tracestate)
    assert "h:1" == written.state(key)
    assert context.traceparent == written.traceparent


@given(lines=st.lists(BAGGAGE, max_size=3))
def test_baggage_is_its_grammar(lines: list[str]) -> None:
    """Well-formed members, their values decoded once; malformed ones are left out."""
    context = extract(lines_of("baggage", lines), ("baggage",))

    assert oracle.baggage(lines) == list(() if context is None else context.baggage)


@given(headers=B3)
def test_b3_is_its_grammar(headers: list[tuple[str, str]]) -> None:
    """The single header, else the others; defer, deny, accept and debug are four things."""
    context = extract(headers, ("b3",))

    found = None
    if context is not None:
        found = {name: getattr(context, name) for name in ("trace_id", "span_id", "parent_id", "sampled", "debug")}
    assert oracle.b3(headers) == found


@given(
    text=nearly(
        st.lists(
            st.sampled_from(["th:", "rv:", "x:", "th", ""]).flatmap(
                lambda key: st.text("0123456789abcdef", max_size=15).map(lambda digits: key + digits)
            ),
            max_size=4,
        ).map(";".join),
        "C;:0x_ ",
    )
)
def test_sampling_member_is_its_grammar(text: str) -> None:
    """`th` and `rv` are numbers of 56 bits; what is malformed is as if absent."""
    assert oracle.ot(text) == parse_ot(text)


OT = st.lists(st.sampled_from(["th:8", "rv:6e6d1a75832a2f", "th:x", "x:1", "y", "a b ", "th:", ""]), max_size=5).map(
    ";".join
)


@given(text=OT.filter(lambda text: text and text.strip(" ") == text), threshold=st.none() | st.integers(0, 2**56 - 1))
def test_threshold_is_written_beside_what_else_ot_says(text: str, threshold: int | None) -> None:
    """`th` in front, once; nothing else of the member or the list is lost; no empty member is left."""
    context = TraceContext(TRACE, SPAN, tracestate=f"a=1,ot={text},b=2")
    written = context.with_threshold(threshold)

    assert (threshold, parse_ot(text)[1]) == parse_ot(written.state("ot") or "")
    if parse_ot(text)[0] == threshold:
        assert written is context
    else:
        expected = oracle.ot_set(text, threshold)
        assert (f"ot={expected}," if expected else "") + "a=1,b=2" == written.tracestate


def test_threshold_of_a_full_member() -> None:
    """256 characters are the most: what does not fit goes from the right."""
    context = TraceContext(TRACE, SPAN, tracestate=f"ot=x:1;{'y' * 252}")

    assert "ot=th:8;x:1" == context.with_threshold(2**55).tracestate
    assert "ot=th:8" == TraceContext(TRACE, SPAN).with_threshold(2**55).tracestate
    assert "" == TraceContext(TRACE, SPAN, tracestate="ot=th:8").with_threshold(None).tracestate
    with pytest.raises(ValueError, match=r"threshold 72057594037927936 is not 0 to 2\*\*56 - 1"):
        context.with_threshold(2**56)


@given(parent=PARENTS, states=st.lists(STATES, max_size=2), b3=B3)
def test_sources_have_an_order(parent: str, states: list[str], b3: list[tuple[str, str]]) -> None:
    """A well-formed traceparent counts; else B3 does, and tracestate is not read."""
    context = extract([*b3, ("traceparent", parent), *lines_of("tracestate", states)])

    expected = oracle.traceparent([parent])
    if expected is not None:
        assert context is not None
        assert expected == (context.trace_id, context.span_id, context.flags)
        assert "traceparent" == context.source
    elif (other := oracle.b3(b3)) is not None:
        assert context is not None
        assert (other["trace_id"], "", False) == (context.trace_id, context.tracestate, context.state_dropped)
    else:
        assert context is None


CONTEXTS = st.builds(
    lambda ids, flags, state, baggage: TraceContext(*ids, **flags, tracestate=state, baggage=baggage),
    st.just((TRACE, SPAN)),
    st.fixed_dictionaries(
        {"sampled": st.sampled_from([True, False, None]), "random": st.booleans()},
        optional={"parent_id": st.just("00000000000000ff")},
    )
    | st.just({"sampled": True, "debug": True}),
    st.sampled_from(["", "a=1", "ot=th:8,gbf=h:3"]),
    st.lists(
        st.tuples(st.text("abc-", min_size=1, max_size=3), st.text(max_size=4))
        | st.tuples(
            st.just("k"), st.text(max_size=4), st.lists(st.tuples(st.just("p"), st.none() | st.text(max_size=3)))
        ),
        max_size=4,
    ),
)


@given(context=CONTEXTS)
def test_what_is_injected_is_extracted(context: TraceContext) -> None:
    """Same trace, another parent; what a form of headers cannot say is the only thing that is lost."""
    every = inject([], context, propagators=("tracecontext", "baggage", "b3"), baggage=True)
    multi = inject([], context, propagators=("b3multi",))
    w3c, b3, others = extract(every), extract(every, ("b3",)), extract(multi, ("b3",))

    assert w3c is not None
    assert b3 is not None
    assert others is not None
    assert {context.trace_id} == {found.trace_id for found in (w3c, b3, others)}
    assert len({context.span_id, w3c.span_id, others.span_id}) == 3
    assert w3c.span_id == b3.span_id
    assert (context.flags, context.tracestate, context.baggage) == (w3c.flags, w3c.tracestate, w3c.baggage)
    assert [(context.sampled, context.debug)] * 2 == [(found.sampled, found.debug) for found in (b3, others)]
    assert context.span_id == others.parent_id


@given(context=CONTEXTS)
def test_contexts_are_values(context: TraceContext) -> None:
    """Equal ones are equal after pickle and copy, and have one hash; a child is another."""
    again = pickle.loads(pickle.dumps(context))  # noqa: S301

    assert context == again == copy.copy(context) == copy.deepcopy(context)
    assert hash(context) == hash(again)
    assert context.baggage == again.baggage
    assert context != context.child()
    assert context != PARENT


def test_child_continues() -> None:
    """Same trace, tracestate and baggage; a new span under the old one; a decision of one's own when asked."""
    context = TraceContext(TRACE, SPAN, sampled=True, random=True, tracestate="a=1", baggage={"user": "ann"})
    child = context.child()

    assert (TRACE, SPAN, 3, "a=1") == (child.trace_id, child.parent_id, child.flags, child.tracestate)
    assert context.baggage == child.baggage
    assert child.span_id not in {SPAN, context.child().span_id}
    assert [False, True, True] == [context.child(sampled=s).sampled for s in (False, True, None)]
    assert context.child(sampled=False).random


def test_decision_without_ids_starts_a_trace() -> None:
    """A lone B3 decision has no ids; the child has some, and the decision."""
    context = extract({"b3": "0"})

    assert context is not None
    assert (None, None, None, False) == (context.trace_id, context.span_id, context.traceparent, context.sampled)
    child = context.child()
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-02", child.traceparent or "")
    assert child.parent_id is None
    sent = extract(inject({}, context))
    assert sent is not None
    assert sent.sampled is False


def test_baggage_alone_is_no_decision() -> None:
    """Baggage without a trace is passed on as it is, and no trace is made for it."""
    context = extract({"baggage": "a=1"})

    assert context is not None
    assert context.sampled is None
    assert {"baggage": "a=1"} == inject({}, context, baggage=True)
    assert {} == inject({}, context)
    assert pickle.loads(pickle.dumps(context)) == context  # noqa: S301


def test_flags_of_others_are_not_passed_on() -> None:
    """Of the flags two are known, the others are zero on output; the random one stays."""
    assert "00-" + TRACE in inject({}, extract({"traceparent": f"00-{TRACE}-{SPAN}-fe"}))["traceparent"]
    assert inject({}, extract({"traceparent": f"cc-{TRACE}-{SPAN}-ff-x"}))["traceparent"].endswith("-03")
    assert inject({}, extract({"traceparent": f"00-{TRACE}-{SPAN}-fe"}))["traceparent"].endswith("-02")


def test_limits_are_where_they_are_said_to_be() -> None:
    """64 members and 8,192 bytes of baggage pass, 180 are the end; a tracestate past 8,192 is dropped."""
    full = ",".join(f"k{i:03}={'v' * 122}" for i in range(64))[:8192]
    context = extract({"baggage": full})
    assert context is not None
    assert 64 == len(context.baggage)
    many = extract({"baggage": ",".join(f"k{i}=v" for i in range(10_000))})
    assert many is not None
    assert 180 == len(many.baggage)
    long = extract([("baggage", "a=1"), ("baggage", f"b={'x' * 17_000}"), ("baggage", "c=1")])
    assert long is not None
    assert ["a"] == [key for key, *_ in long.baggage]
    state = extract([("traceparent", PARENT), ("tracestate", "a=1" + " " * 8190)])
    assert state is not None
    assert state.state_dropped
    assert None is extract({"traceparent": f"cc-{TRACE}-{SPAN}-01-{'x' * 9000}"})


@pytest.mark.parametrize(
    "headers",
    [
        [("traceparent", PARENT), ("tracestate", ",".join(f"k{i}=v" for i in range(10_000)))],
        [("traceparent", PARENT), ("tracestate", "," * 1_000_000)],
        [("traceparent", PARENT), *[("tracestate", "a=1")] * 100_000],
        [("traceparent", PARENT), *[("tracestate", "")] * 100_000],
    ],
)
def test_hostile_tracestate_is_dropped(headers: list[tuple[str, str]]) -> None:
    """The context stands, the list goes."""
    context = extract(headers)

    assert context is not None
    assert (PARENT, "", True) == (context.traceparent, context.tracestate, context.state_dropped)


@pytest.mark.parametrize(
    "text", ["a=1," * 250_000, ";" * 1_000_000, "%" * 1_000_000, "a=" + "x" * 1_000_000, " " * 1_000_000]
)
def test_hostile_baggage_is_cut(text: str) -> None:
    """A megabyte is not looked at to its end, and costs no more memory than the limit."""
    context = extract({"baggage": text})

    assert context is None or len(context.baggage) <= 180


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tracestate", ",".join(f"k{i}=v" for i in range(10_000))), ("tracestate", "," * 1_000_000),
        ("baggage", "a=1," * 250_000), ("baggage", "a=" + "x" * 1_000_000),
    ],
    ids=["members", "commas", "baggage members", "baggage value"],
)  # fmt: skip
def test_hostile_headers_of_a_request(name: str, text: str) -> None:
    """A decision, whose trace is that of the caller; what is too much of the lists is not in it."""
    from gobanfast import Engine, Ruleset

    rules = "{version: 1, trace: {from_untrusted: continue}, record: [{id: a, when: any, action: always}]}"
    headers = [(b"traceparent", PARENT.encode()), (name.encode(), text.encode())]
    decision = Engine(Ruleset.from_text(rules)).decide("192.0.2.1", headers=headers, method="GET", path="/")

    assert decision.trace is not None
    assert (True, TRACE, "", "a") == (
        decision.record, decision.trace.trace_id, decision.trace.tracestate, decision.record_rule,
    )  # fmt: skip
    assert len(decision.trace.baggage) <= 180


BAD: list[tuple[Any, type[Exception], str]] = [
    (lambda: TraceContext("0" * 32, SPAN), ValueError, "trace_id '0{32}' is not 32 lower-case hex digits, or is"),
    (lambda: TraceContext(TRACE.upper(), SPAN), ValueError, "trace_id .* is not 32 lower-case hex digits"),
    (lambda: TraceContext(TRACE[:30] + " 1", SPAN), ValueError, "trace_id"),
    (lambda: TraceContext(TRACE, "1"), ValueError, "span_id '1' is not 16 lower-case hex digits"),
    (lambda: TraceContext(TRACE, SPAN, parent_id="x" * 16), ValueError, "parent_id"),
    (lambda: TraceContext(TRACE, None), ValueError, "one without the other"),
    (lambda: TraceContext(None, None, sampled=None), ValueError, "without ids is a decision"),
    (lambda: TraceContext(None, None, parent_id=SPAN), ValueError, "no parent_id"),
    (lambda: TraceContext(TRACE, SPAN, sampled=1), TypeError, "sampled=1 is not True, False or None"),
    (lambda: TraceContext(TRACE, SPAN, sampled=False, debug=True), ValueError, "debug=True and sampled=False"),
    (lambda: TraceContext(TRACE, SPAN, tracestate="A=1"), ValueError, "tracestate 'A=1' has a malformed member"),
    (lambda: TraceContext(TRACE, SPAN, tracestate="a=1,a=2"), ValueError, "a key twice"),
    (lambda: TraceContext(TRACE, SPAN, tracestate="é=1"), ValueError, "not ASCII"),
    (lambda: TraceContext(TRACE, SPAN, baggage={"a b": "1"}), ValueError, "baggage key 'a b' is not a token"),
    (lambda: TraceContext(TRACE, SPAN, baggage=[("a",)]), TypeError, r"baggage \('a',\) is not \(key, value\)"),
    (lambda: TraceContext(TRACE, SPAN, baggage={"a": 1}), TypeError, "is not a pair of str"),
    (lambda: TraceContext(TRACE, SPAN, baggage={f"k{i}": "" for i in range(181)}), ValueError, "180 members"),
    (lambda: TraceContext(TRACE, SPAN, baggage={"a": "x" * 17_000}), ValueError, "bytes are the most"),
    (lambda: TraceContext(TRACE, SPAN).with_state("A", "1"), ValueError, "tracestate key 'A'"),
    (lambda: TraceContext(TRACE, SPAN).with_state("a", "1,2"), ValueError, "tracestate value '1,2'"),
    (lambda: TraceContext(TRACE, SPAN).with_state("a", ""), ValueError, "tracestate value ''"),
    (lambda: TraceContext(TRACE, SPAN).child(sampled="yes"), TypeError, "sampled='yes'"),
    (TraceContext, TypeError, r"TraceContext\(\) takes"),
    (lambda: restore(b"", "", b""), ValueError, "0 bytes of ids"),
    (lambda: restore(bytes(33), "A", b""), ValueError, "malformed tracestate or baggage"),
    (lambda: restore(bytes(33), "", b",,"), ValueError, "malformed tracestate or baggage"),
    (lambda: restore(bytes(32) + b"\x10", "", b""), ValueError, "flags or ids that none has"),
    (lambda: restore(bytes(32) + b"\xff", "", b""), ValueError, "flags or ids that none has"),
    (lambda: restore(bytes(15) + b"\1" + bytes(17), "", b""), ValueError, "flags or ids that none has"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "words"), BAD)
def test_misuse_is_told(call: Any, error: type[Exception], words: str) -> None:
    """What is wrong with the value, and what would be right."""
    with pytest.raises(error, match=words):
        call()


def test_contexts_are_frozen_and_show_no_baggage() -> None:
    """No attribute can be set; what one knows about a user is not in the repr."""
    context = TraceContext(TRACE, SPAN, sampled=True, baggage={"user": "ann"})

    with pytest.raises(AttributeError):
        context.trace_id = TRACE  # type: ignore[misc]
    assert f"<TraceContext {PARENT}>" == repr(context)
    assert "<TraceContext without ids, sampled=False>" == repr(TraceContext(None, None))
    assert f"<TraceContext 00-{TRACE}-{SPAN}-00, undecided>" == repr(TraceContext(TRACE, SPAN, sampled=None))


def test_texts_are_made_once() -> None:
    """Threads that ask for the texts of one context get the same ones."""
    context = TraceContext(TRACE, SPAN, baggage={"a": "1"})
    found: list[tuple[int, ...]] = []
    start = threading.Barrier(8)

    def ask() -> None:
        start.wait()
        found.append(tuple(map(id, (context.trace_id, context.span_id, context.traceparent, context.baggage))))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 1 == len(set(found))
