"""The 41 cases of the public W3C trace-context harness, level 2 and strict, restated: two services, one traced by us.

A harness sends requests with trace headers to the service (uvicorn, our middleware, no other tracing), whose body lists
the calls that the service has to make; the harness takes these calls and looks at the trace headers that they bring.
"""

from __future__ import annotations

import json
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any

import pytest

from test_http_servers import free_port, spawned

WAIT = 30
TRACE, SPAN = "12345678901234567890123456789012", "1234567890123456"
OTHER = TRACE[:-1] + "1"
PARENT = ("traceparent", f"00-{TRACE}-{SPAN}-01")
QUIET = ("traceparent", f"00-{TRACE}-{SPAN}-00")
FORM = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
FUTURE = "-what-the-future-will-be-like"
Headers = list[tuple[str, str]]


@dataclass(frozen=True)
class Call:
    """A call of the service, by its trace headers."""

    trace_id: str
    parent_id: str
    flags: int
    state: dict[str, str]
    text: str


class Harness:
    """Sends requests to the service, and takes the calls that it makes back."""

    def __init__(self, port: int) -> None:
        self.port, self.calls, self.numbers = port, {}, count()
        harness = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                harness.calls[self.path] = self.headers.items()
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def ask(self, headers: Headers, times: int = 1) -> list[Call]:
        """The calls that the service makes for a request with these header lines, which go out as they are."""
        paths = [f"/call/{next(self.numbers)}" for _ in range(times)]
        base = f"http://127.0.0.1:{self.server.server_address[1]}"
        body = json.dumps([{"url": base + path, "arguments": []} for path in paths])
        lines = [("host", "service"), ("content-type", "application/json"), *headers]
        lines += [("content-length", f"{len(body)}"), ("connection", "close")]
        text = "POST /test HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines) + "\r\n" + body
        with socket.create_connection(("127.0.0.1", self.port), WAIT) as connection:
            connection.sendall(text.encode("latin-1"))
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert b"200" == answer.split()[1], answer
        return [seen(self.calls.pop(path)) for path in paths]


def seen(headers: Headers) -> Call:
    """Of the headers of a call: one traceparent, well-formed, and members of tracestate, of a key twice the first."""
    lines = [value for name, value in headers if name.lower() == "traceparent"]
    assert 1 == len(lines)
    found = FORM.fullmatch(lines[0])
    assert found is not None, lines
    text = ",".join(value for name, value in headers if name.lower() == "tracestate")
    members: dict[str, str] = {}
    for member in re.split("[ \t]*,[ \t]*", text):
        if member:
            key, _, value = member.partition("=")
            assert re.fullmatch(r"[a-z0-9][a-z0-9_*/@-]{0,255}", key), member
            assert re.fullmatch(r"[ -+\--<>-~]{0,255}[!-+\--<>-~]", value), member
            members.setdefault(key, value)
    return Call(found[1], found[2], int(found[3], 16), members, text)


@pytest.fixture(scope="module", params=["h11", "httptools"])
def harness(request: pytest.FixtureRequest) -> Iterator[Harness]:
    """One service under uvicorn for all cases, by each of its HTTP parsers."""
    pytest.importorskip("uvicorn")
    pytest.importorskip(request.param)
    port = free_port()
    command = ("uvicorn", "trace_service:app", "--app-dir", "e2e", "--port", f"{port}", "--http", request.param)
    with spawned(sys.executable, "-m", *command, port=port):
        found = Harness(port)
        yield found
        found.close()


# ---- what a step expects


@dataclass(frozen=True)
class Step:
    """A request, and what its call has to be."""

    headers: Headers
    continued: bool | None = None  # None: either
    state: dict[str, str] = field(default_factory=dict)  # members that have to be there
    without: tuple[str, ...] = ()  # and keys that must not
    more: Callable[[Call], bool] = lambda _: True


def parent(version: str = "00", trace: str = TRACE, span: str = SPAN, flags: str = "01", rest: str = "") -> Headers:
    return [("traceparent", f"{version}-{trace}-{span}-{flags}{rest}")]


def goes_on(*headers: tuple[str, str], **more: Any) -> Step:
    return Step(list(headers), True, **more)


def anew(headers: Headers) -> Step:
    return Step(headers, False)


def state(*lines: str, name: str = "tracestate", kept: dict[str, str] | None = None, **more: Any) -> Step:
    """A tracestate beside a traceparent that stands, whatever becomes of the list."""
    return Step([QUIET, *[(name, line) for line in lines]], True, kept or {}, **more)


def bars(last: int) -> list[str]:
    members = [f"bar{number:02}={number:02}" for number in range(1, last + 1)]
    return [",".join(members[at : at + 10]) for at in range(0, last, 10)]


KEY = "abcdefghijklmnopqrstuvwxyz0123456789_-*/"
VALUE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) not in ",=")
THREE = {"foo": "1", "bar": "2", "baz": "3"}
ONE = {"foo": "1"}

CASES: dict[str, list[Step]] = {
    "both missing": [Step([])],
    "traceparent without tracestate": [goes_on(PARENT)],
    "traceparent duplicated": [anew([*parent(trace=OTHER), PARENT])],
    "traceparent by another name": [anew([(name, PARENT[1])]) for name in ("trace-parent", "trace.parent")],
    "traceparent in any case": [goes_on((name, PARENT[1])) for name in ("TraceParent", "TrAcEpArEnT", "TRACEPARENT")],
    "version 00 with more": [anew(parent(rest=".")), anew(parent(rest=FUTURE))],
    "version cc": [
        goes_on(*parent("cc")),
        goes_on(*parent("cc", rest=FUTURE)),
        anew(parent("cc", rest="." + FUTURE[1:])),
    ],
    "version ff": [anew(parent("ff"))],
    "version with illegal characters": [anew(parent(".0")), anew(parent("0."))],
    "version too long": [anew(parent("000")), anew(parent("0000"))],
    "version too short": [anew(parent("0"))],
    "trace id of zeros": [anew(parent(trace="0" * 32))],
    "trace id with illegal characters": [anew(parent(trace="." + TRACE[1:])), anew(parent(trace=TRACE[:-1] + "."))],
    "trace id too long": [anew(parent(trace=TRACE + "3"))],
    "trace id too short": [anew(parent(trace=TRACE[:-1]))],
    "parent id of zeros": [anew(parent(span="0" * 16))],
    "parent id with illegal characters": [anew(parent(span="." + SPAN[1:])), anew(parent(span=SPAN[:-1] + "."))],
    "parent id too long": [anew(parent(span=SPAN + "7"))],
    "parent id too short": [anew(parent(span=SPAN[:-1]))],
    "flags with illegal characters": [anew(parent(flags=".0")), anew(parent(flags="0."))],
    "flags too long": [anew(parent(flags="001"))],
    "flags too short": [anew(parent(flags="1"))],
    "flags of level 2": [
        goes_on(*parent(flags=flags), more=lambda call, random=random: call.flags & 2 == random)
        for flags, random in (("02", 2), ("03", 2), ("00", 0), ("01", 0))
    ],
    "blanks around traceparent": [
        goes_on(("traceparent", before + PARENT[1] + after))
        for before, after in ((" ", ""), ("\t", ""), ("", " "), ("", "\t"), ("\t ", " \t"))
    ],
    "tracestate without traceparent": [
        Step([("tracestate", line)], without=("foo", "bar")) for line in ("foo=1", "foo=1,bar=2")
    ],
    "tracestate beside traceparent": [state("foo=1,bar=2", kept={"foo": "1", "bar": "2"})],
    "tracestate by another name": [
        state("foo=1", name=name, without=("foo",)) for name in ("trace-state", "trace.state")
    ],
    "tracestate in any case": [
        state("foo=1", name=name, kept=ONE) for name in ("TraceState", "TrAcEsTaTe", "TRACESTATE")
    ],
    "tracestate that is empty": [state(""), state("foo=1", "", kept=ONE), state("", "foo=1", kept=ONE)],
    "tracestate in several lines": [
        state(
            "foo=1,bar=2",
            "rojo=1,congo=2",
            "baz=3",
            kept={**THREE, "rojo": "1", "congo": "2"},
            more=lambda call: [*call.state][-5:] == ["foo", "bar", "rojo", "congo", "baz"],
        )
    ],
    "tracestate with a key twice": [  # as it came, or one of the two left out
        state(*lines, more=lambda call: call.state.get("foo") in {"1", "2"})
        for lines in (("foo=1,foo=1",), ("foo=1,foo=2",), ("foo=1", "foo=1"), ("foo=1", "foo=2"))
    ],
    "tracestate with all characters": [
        state(f"{key}={VALUE}", kept={key: VALUE}) for key in (KEY, f"{KEY}@a-z0-9_-*/")
    ],
    "blanks around tracestate": [
        state("foo=1 \t , \t bar=2, \t baz=3", kept=THREE),
        state("foo=1\t \t,\t \tbar=2,\t \tbaz=3", kept=THREE),
        *[state(line, kept=ONE) for line in (" foo=1", "\tfoo=1", "foo=1 ", "foo=1\t", "\t foo=1 \t")],
    ],
    "tracestate key with illegal characters": [
        state(line, more=lambda call: not call.text) for line in ("foo =1", "FOO=1", "foo.bar=1")
    ],
    "tracestate key with an at sign": [
        *[state(f"{key}=1,bar=2", kept={key: "1", "bar": "2"}) for key in ("foo@", "foo@@bar", "foo@bar@baz")],
        state("@foo=1,bar=2", without=("bar",)),
    ],
    "tracestate with 32 members and 33": [
        state(*bars(32), more=lambda call: len(call.state) == 32 and call.state["bar01"] == "01"),
        state(*bars(33), without=("bar01",)),
    ],
    "tracestate key of 256 characters and 257": [
        state("foo=1", "z" * 256 + "=1", kept=ONE),
        state("foo=1", "z" * 257 + "=1", without=("foo",)),
        state("foo=1", "t" * 241 + "@" + "v" * 14 + "=1", kept=ONE),
        state("foo=1", "t" * 242 + "@v=1", kept=ONE),
        state("foo=1", "t@" + "v" * 15 + "=1", kept=ONE),
    ],
    "tracestate value with illegal characters": [
        state("foo=bar=baz", without=("foo",)),
        state("foo=,bar=3", without=("foo", "bar")),
    ],
}
SEVERAL: dict[str, tuple[Headers, bool | None]] = {
    "several calls of a trace": ([PARENT], True),
    "several calls without one": ([], None),
    "several calls of one that is malformed": (parent(trace="0" * 32), False),
}


def test_all_of_them() -> None:
    """As many as the harness has."""
    assert 41 == len(CASES) + len(SEVERAL)


@pytest.mark.parametrize("steps", CASES.values(), ids=CASES)
def test_case(harness: Harness, steps: list[Step]) -> None:
    """Each request of the case leads to the call that it has to."""
    for step in steps:
        (call,) = harness.ask(step.headers)

        assert SPAN != call.parent_id
        if step.continued is not None:
            assert step.continued == (call.trace_id == TRACE), step.headers
        if step.continued is False:
            assert OTHER != call.trace_id
            assert call.trace_id not in step.headers[0][1]
        assert step.state == {key: call.state.get(key) for key in step.state}, step.headers
        assert not call.state.keys() & set(step.without), step.headers
        assert step.more(call), (step.headers, call)


@pytest.mark.parametrize(("headers", "continued"), SEVERAL.values(), ids=SEVERAL)
def test_several_calls(harness: Harness, headers: Headers, continued: bool | None) -> None:
    """One trace, and a parent id of its own for each call."""
    calls = harness.ask(headers, 3)

    assert 3 == len({call.parent_id for call in calls})
    assert 1 == len({call.trace_id for call in calls})
    assert "0" * 32 != calls[0].trace_id
    assert continued is not True or TRACE == calls[0].trace_id
    assert continued is not False or TRACE != calls[0].trace_id
