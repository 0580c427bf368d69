"""W3C Trace Context level 2, case by case: what the public harness asks of a service, asked of `extract` and `inject`.

The service of the harness calls back with what it would send on. Here that is: take the context, or start a trace, make
a span of one's own, inject. `sent` is what the harness would see.
"""

from __future__ import annotations

import re

import pytest

from gobanfast.trace import TraceContext, extract, inject

TRACE, SPAN = "12345678901234567890123456789012", "1234567890123456"
PARENT = f"00-{TRACE}-{SPAN}-01"
FORM = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}")


def sent(*headers: tuple[str, str], times: int = 1) -> list[tuple[str, str, dict[str, str]]]:
    """(trace id, parent id, tracestate) of each call that a service with these headers makes."""
    received = extract(list(headers), ("tracecontext",))
    own = TraceContext.start() if received is None else received.child()
    calls = []
    for _ in range(times):
        carrier: dict[str, str] = inject({}, own)
        found = FORM.fullmatch(carrier["traceparent"])
        assert found is not None
        members = [member.split("=", 1) for member in carrier.get("tracestate", "").split(",") if member]
        assert len(members) == len(dict(members))
        calls.append((found[1], found[2], dict(members)))
    return calls


def parent(version: str = "00", trace_id: str = TRACE, span_id: str = SPAN, flags: str = "01", rest: str = "") -> str:
    return f"{version}-{trace_id}-{span_id}-{flags}{rest}"


def state(*lines: str) -> dict[str, str]:
    ((trace_id, _, members),) = sent(("traceparent", parent(flags="00")), *[("tracestate", line) for line in lines])
    assert TRACE == trace_id
    return members


CONTINUED = {
    "included": [("traceparent", PARENT)],
    "name casing: TraceParent": [("TraceParent", PARENT)],
    "name casing: TrAcEpArEnT": [("TrAcEpArEnT", PARENT)],
    "name casing: TRACEPARENT": [("TRACEPARENT", PARENT)],
    "version cc": [("traceparent", parent("cc"))],
    "version cc with more": [("traceparent", parent("cc", rest="-what-the-future-will-be-like"))],
    "blank before": [("traceparent", f" {PARENT}")],
    "tab before": [("traceparent", f"\t{PARENT}")],
    "blank behind": [("traceparent", f"{PARENT} ")],
    "tab behind": [("traceparent", f"{PARENT}\t")],
    "blanks around": [("traceparent", f"\t {PARENT} \t")],
}
RESTARTED = {
    "both missing": [],
    "duplicated": [("traceparent", parent(trace_id=TRACE[:-1] + "1")), ("traceparent", PARENT)],
    "duplicated, the same": [("traceparent", PARENT), ("traceparent", PARENT)],
    "name with a hyphen": [("trace-parent", PARENT)],
    "name with a dot": [("trace.parent", PARENT)],
    "version 00 with a character more": [("traceparent", parent(rest="."))],
    "version 00 with more": [("traceparent", parent(rest="-what-the-future-will-be-like"))],
    "version cc without a hyphen": [("traceparent", parent("cc", rest=".what-the-future-will-be-like"))],
    "version ff": [("traceparent", parent("ff"))],
    "version .0": [("traceparent", parent(".0"))],
    "version 0.": [("traceparent", parent("0."))],
    "version too long": [("traceparent", parent("000"))],
    "version far too long": [("traceparent", parent("0000"))],
    "version too short": [("traceparent", parent("0"))],
    "trace id of zeros": [("traceparent", parent(trace_id="0" * 32))],
    "trace id begins with a dot": [("traceparent", parent(trace_id="." + TRACE[1:]))],
    "trace id ends with a dot": [("traceparent", parent(trace_id=TRACE[:-1] + "."))],
    "trace id in upper case": [("traceparent", parent(trace_id="A" + TRACE[1:]))],
    "trace id too long": [("traceparent", parent(trace_id=TRACE + "3"))],
    "trace id too short": [("traceparent", parent(trace_id=TRACE[:-1]))],
    "parent id of zeros": [("traceparent", parent(span_id="0" * 16))],
    "parent id begins with a dot": [("traceparent", parent(span_id="." + SPAN[1:]))],
    "parent id ends with a dot": [("traceparent", parent(span_id=SPAN[:-1] + "."))],
    "parent id in upper case": [("traceparent", parent(span_id="A" + SPAN[1:]))],
    "parent id too long": [("traceparent", parent(span_id=SPAN + "7"))],
    "parent id too short": [("traceparent", parent(span_id=SPAN[:-1]))],
    "flags .0": [("traceparent", parent(flags=".0"))],
    "flags 0.": [("traceparent", parent(flags="0."))],
    "flags in upper case": [("traceparent", parent(flags="0A"))],
    "flags too long": [("traceparent", parent(flags="001"))],
    "flags too short": [("traceparent", parent(flags="1"))],
    "tracestate without traceparent": [("tracestate", "foo=1,bar=2")],
    "tracestate beside a broken traceparent": [("traceparent", parent("ff")), ("tracestate", "foo=1,bar=2")],
}


@pytest.mark.parametrize("headers", CONTINUED.values(), ids=CONTINUED)
def test_trace_is_continued(headers: list[tuple[str, str]]) -> None:
    """Same trace id, another parent id."""
    ((trace_id, parent_id, _),) = sent(*headers)

    assert TRACE == trace_id
    assert SPAN != parent_id


@pytest.mark.parametrize("headers", RESTARTED.values(), ids=RESTARTED)
def test_trace_is_started_anew(headers: list[tuple[str, str]]) -> None:
    """Another trace id, and no tracestate."""
    ((trace_id, _, members),) = sent(*headers, ("tracestate", "foo=1"))

    assert trace_id not in {TRACE, TRACE[:-1] + "1"}
    assert {} == members


@pytest.mark.parametrize("name", ["tracestate", "TraceState", "TrAcEsTaTe", "TRACESTATE"])
def test_tracestate_name_has_no_case(name: str) -> None:
    """Inherited."""
    assert {"foo": "1"} == sent(("traceparent", PARENT), (name, "foo=1"))[0][2]


@pytest.mark.parametrize("name", ["trace-state", "trace.state"])
def test_tracestate_by_another_name(name: str) -> None:
    """Discarded."""
    assert {} == sent(("traceparent", PARENT), (name, "foo=1"))[0][2]


def test_tracestate_inherited() -> None:
    """Beside a traceparent; empty headers do no harm; lines are one list."""
    assert {"foo": "1", "bar": "2"} == state("foo=1,bar=2")
    assert {} == state("")
    assert {"foo": "1"} == state("foo=1", "") == state("", "foo=1")
    assert ["foo", "bar", "rojo", "congo", "baz"] == list(state("foo=1,bar=2", "rojo=1,congo=2", "baz=3"))


@pytest.mark.parametrize("lines", [["foo=1,foo=1"], ["foo=1,foo=2"], ["foo=1", "foo=1"], ["foo=1", "foo=2"]])
def test_tracestate_duplicated_keys(lines: list[str]) -> None:
    """Inherited, one of the two discarded: the first is the later one written, and stays."""
    assert {"foo": "1"} == state(*lines)


def test_tracestate_characters() -> None:
    """All that a key and a value may have."""
    key = "abcdefghijklmnopqrstuvwxyz0123456789_-*/"
    value = "".join(chr(c) for c in range(0x20, 0x7F) if chr(c) not in ",=")

    assert {key: value} == state(f"{key}={value}")
    assert {f"{key}@a-z0-9_-*/": value} == state(f"{key}@a-z0-9_-*/={value}")


@pytest.mark.parametrize("line", [" foo=1", "\tfoo=1", "foo=1 ", "foo=1\t", "\t foo=1 \t"])
def test_tracestate_blanks(line: str) -> None:
    """Around members they are none of theirs."""
    three = {"foo": "1", "bar": "2", "baz": "3"}

    assert {"foo": "1"} == state(line)
    assert three == state("foo=1 \t , \t bar=2, \t baz=3") == state("foo=1\t \t,\t \tbar=2,\t \tbaz=3")


@pytest.mark.parametrize(
    "member", ["foo =1", "FOO=1", "foo.bar=1", "@foo=1", "foo", "foo=", "=1", "foo=a=b", "foo=\x7f"]
)
def test_tracestate_with_an_illegal_member(member: str) -> None:
    """Discarded whole."""
    assert {} == state(f"{member},bar=2") == state("bar=2", member)


@pytest.mark.parametrize("key", ["foo@", "foo@@bar", "foo@bar@baz", "t@" + "v" * 15, "t" * 242 + "@v", "0", "0@a"])
def test_level_2_keys(key: str) -> None:
    """Of an at sign level 2 asks nothing."""
    assert {key: "1", "bar": "2"} == state(f"{key}=1,bar=2")


def test_tracestate_limits() -> None:
    """32 members, 256 characters in a key and in a value; past them the list is discarded."""
    members = [f"bar{number:02}={number:02}" for number in range(1, 34)]
    lines = [",".join(members[:10]), ",".join(members[10:20]), ",".join(members[20:30])]

    assert 32 == len(state(*lines, ",".join(members[30:32])))
    assert {} == state(*lines, ",".join(members[30:33]))
    assert {"foo", "z" * 256} == state("foo=1", f"{'z' * 256}=1").keys()
    assert {} == state("foo=1", f"{'z' * 257}=1")
    assert {"foo", "t" * 241 + "@" + "v" * 14} == state("foo=1", f"{'t' * 241}@{'v' * 14}=1").keys()
    assert 256 == len(state(f"foo={'v' * 256}")["foo"])
    assert {} == state(f"foo={'v' * 257}")


@pytest.mark.parametrize("headers", [[("traceparent", PARENT)], [], [("traceparent", parent(trace_id="0" * 32))]])
def test_several_calls(headers: list[tuple[str, str]]) -> None:
    """One trace id, another parent id each time."""
    calls = sent(*headers, times=3)

    assert 3 == len({parent_id for _, parent_id, _ in calls})
    assert 1 == len({trace_id for trace_id, _, _ in calls})
    assert headers != [("traceparent", PARENT)] or TRACE == calls[0][0]
    assert "0" * 32 != calls[0][0]
