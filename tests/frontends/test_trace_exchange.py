"""Traces in every HTTP frontend: what is current while the application runs, what is noted of it, what goes out."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from gobanfast import Engine, Ruleset, trace
from gobanfast._core.exchange import Exchange
from gobanfast.frontends.asgi import Gobanfast as Asgi
from gobanfast.frontends.challenge import Challenge
from gobanfast.frontends.http.guard import HttpGuard
from gobanfast.frontends.wsgi import Gobanfast as Wsgi
from gobanfast.trace import TraceContext

RULES = """
trust: [10.0.0.0/8]
rules:
- {id: bad, when: {prefix: 192.0.2.0/24}, action: ban}
- {id: odd, when: {prefix: 198.51.100.0/24}, action: challenge}
share:
- {id: pages, when: {path: /shared, origin: "https://a.example"}, action: grant, credentials: true}
- {id: writes, when: {cross_origin_write: true, not: {origin: "https://a.example"}}, action: refuse}
trace: {}
record:
- {id: attacks, when: {outcome: [banned, challenged, refused]}, action: always}
- {id: passed, when: {outcome: passed}, action: never}
- {id: withheld, when: {outcome: withheld}, action: never}
- {id: rest, when: any, action: rate, class: rest, probability: 0}
"""
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"


class App:
    """An application of both kinds, which notes what is current, and answers as it is told."""

    def __init__(self, status: int = 200, kind: str = "text/plain", error: bool = False) -> None:
        self.status, self.kind, self.error = status, kind, error
        self.seen: list[TraceContext | None] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0)
        self.seen.append(trace.current())
        if self.error:
            raise RuntimeError("broken")
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            for _ in range(3):
                await send({"type": "websocket.send", "text": "x"})
            return
        headers = [(b"content-type", self.kind.encode())]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await send({"type": "http.response.body", "body": b"b"})

    def wsgi(self, environ: Any, start_response: Any) -> Iterator[bytes]:
        self.seen.append(trace.current())
        if self.error:
            raise RuntimeError("broken")
        start_response(f"{self.status} X", [("Content-Type", self.kind)])
        yield b"a"
        self.seen.append(trace.current())


class Ends:
    """An observer of the end of exchanges."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, str]] = []

    def __call__(self, *_: object) -> None: ...

    def finish(self, exchange: Any) -> None:
        self.seen.append((exchange.status, exchange.events, exchange.decision.outcome))


def engine(text: str = RULES) -> Engine:
    return Engine(Ruleset.from_text(text))


def asgi(guard: Any, peer: str = "10.0.0.1", path: str = "/x", kind: str = "http", method: str = "GET",
         **headers: str) -> list[Any]:  # fmt: skip
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in {"host": "x", **headers}.items()]
    scope = {"type": kind, "path": path, "raw_path": path.encode(), "headers": pairs, "client": (peer, 1),
             "scheme": "http" if kind == "http" else "ws", "http_version": "1.1", "root_path": ""}  # fmt: skip
    if kind == "http":
        scope["method"] = method
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def run() -> None:
        try:
            await guard(scope, receive, send)
        finally:
            sent.append(scope.get("gobanfast"))
            assert trace.current() is None

    asyncio.run(run())
    return sent


def wsgi(guard: Any, peer: str = "10.0.0.1", path: str = "/x", **headers: str) -> list[Any]:
    environ = {
        "REQUEST_METHOD": "GET", "PATH_INFO": path, "SCRIPT_NAME": "", "REMOTE_ADDR": peer, "wsgi.url_scheme": "http",
        "SERVER_PROTOCOL": "HTTP/1.1", "HTTP_HOST": "x", "HTTP_X_FORWARDED_FOR": "10.1.1.1",
        **{f"HTTP_{name.upper()}": value for name, value in headers.items()},
    }  # fmt: skip
    sent: list[Any] = []
    body = guard(environ, lambda status, headers, exc=None: sent.append((status, headers)))
    try:
        sent += body
    finally:
        body.close()
        assert trace.current() is None
    return [*sent, environ["gobanfast.decision"]]


def counts(made: Engine) -> tuple[int, int, int]:
    """(responses, errors, roots) of the class."""
    rates = made.snapshot.rates
    assert rates is not None
    found = rates.counts(time.monotonic_ns())["rest"]
    return found.responses, found.errors, found.roots


def test_asgi_runs_the_application_in_the_trace() -> None:
    app, made = App(), engine()
    sent = asgi(Asgi(app, made), traceparent=PARENT, tracestate="a=1")
    (found,) = app.seen
    assert found is not None
    assert (TRACE, SPAN, True, "a=1") == (found.trace_id, found.parent_id, found.sampled, found.tracestate)
    assert found is sent[-1].trace
    assert (1, 0, 0) == counts(made)


def test_wsgi_runs_the_application_in_the_trace_to_its_last_byte() -> None:
    app, made = App(), engine()
    sent = wsgi(Wsgi(app.wsgi, made), traceparent=PARENT)
    assert [TRACE, TRACE] == [found.trace_id for found in app.seen if found is not None]
    assert sent[-1].trace is app.seen[0]
    assert (1, 0, 0) == counts(made)
    asgi(Asgi(App(), made), "1.2.3.4")
    assert (2, 0, 1) == counts(made)


@pytest.mark.parametrize(("status", "expected"), [(200, (1, 0, 1)), (404, (1, 0, 1)), (503, (1, 1, 1))])
def test_an_error_of_the_client_is_none_of_the_server(status: int, expected: tuple[int, int, int]) -> None:
    for run in (lambda made: asgi(Asgi(App(status), made)), lambda made: wsgi(Wsgi(App(status).wsgi, made))):
        made = engine()
        run(made)
        assert expected == counts(made)


def test_streams_sockets_and_refusals_are_not_timed() -> None:
    made = engine()
    asgi(Asgi(App(kind="text/event-stream; charset=utf-8"), made))
    asgi(Asgi(App(), made), kind="websocket")
    asgi(Asgi(App(), made), "192.0.2.1")
    asgi(Asgi(App(), made), "1.2.3.4", method="POST", origin="https://evil.example")
    wsgi(Wsgi(App(kind="text/event-stream").wsgi, made))
    assert (0, 0, 0) == counts(made)


def test_an_exception_is_an_error_and_ends_the_trace() -> None:
    made, ends = engine(), Ends()
    with pytest.raises(RuntimeError):
        asgi(Asgi(App(error=True), made, on_decision=ends))
    assert ((1, 1, 1), [(500, 0, "admitted")]) == (counts(made), ends.seen)
    with pytest.raises(RuntimeError):
        wsgi(Wsgi(App(error=True).wsgi, made))
    assert None is trace.current()
    assert (2, 2, 2) == counts(made)


def test_the_end_knows_how_many_messages_there_were() -> None:
    ends, made = Ends(), engine()
    asgi(Asgi(App(), made, on_decision=ends))
    asgi(Asgi(App(), made, on_decision=ends), kind="websocket")
    asgi(Asgi(App(), made, on_decision=ends), "192.0.2.1")
    assert [(200, 2, "admitted"), (101, 3, "admitted"), (403, 0, "banned")] == ends.seen


def test_what_became_of_the_request_decides() -> None:
    """A passed challenge is no attack; a refused page, and a foreign socket, are."""
    made = engine()
    key = b"k" * 32
    challenge = Challenge([key])
    guard = Asgi(App(), made, challenge=challenge)
    assert "attacks" == asgi(guard, "198.51.100.7", accept="text/html")[-1].record_rule
    pass_ = challenge.cookies("198.51.100.7", None, secure=False)[0][1].split(b";")[0].decode()
    passed = asgi(guard, "198.51.100.7", cookie=pass_)[-1]
    assert ("passed", "passed", False) == (passed.outcome, passed.record_rule, passed.record)
    assert {("always", "attacks"): 1, ("never", "passed"): 1} == made.recorded()
    written = asgi(guard, "1.2.3.4", method="POST", origin="https://evil.example")[-1]
    assert ("refused", "attacks") == (written.outcome, written.record_rule)
    socket = asgi(guard, "1.2.3.4", "/shared", kind="websocket", origin="https://evil.example")[-1]
    assert ("refused", "attacks", True) == (socket.outcome, socket.record_rule, socket.record)
    page = asgi(guard, "1.2.3.4", "/shared", origin="https://evil.example")[-1]
    assert ("withheld", "withheld") == (page.outcome, page.record_rule)
    own = asgi(guard, "1.2.3.4", "/shared", origin="http://x")[-1]
    assert ("admitted", "rest") == (own.outcome, own.record_rule)


def test_clients_are_told_only_where_the_rules_say_so() -> None:
    told = engine(RULES.replace("trace: {}", "trace: {traceresponse: true, server_timing: true}"))
    start, *_, decision = asgi(Asgi(App(), told), traceparent=PARENT)
    headers = dict(start["headers"])
    assert decision.trace.traceparent.encode() == headers[b"traceresponse"]
    assert b'traceparent;desc="%s"' % headers[b"traceresponse"] == headers[b"server-timing"]
    (_, texts), *_ = wsgi(Wsgi(App().wsgi, told), traceparent=PARENT)
    assert dict(texts)["traceresponse"].startswith(f"00-{TRACE}-")
    start, *_ = asgi(Asgi(App(), engine()), traceparent=PARENT)
    assert {b"content-type", b"x-request-id"} == set(dict(start["headers"]))


def test_who_is_trusted_is_who_the_guard_trusts() -> None:
    """The client behind the proxy, not the proxy; the option of the frontend in place of the rules."""
    app, made = App(), engine()
    behind = asgi(Asgi(app, made), "10.0.0.1", traceparent=PARENT, x_forwarded_for="203.0.113.7")[-1]
    assert TRACE != behind.trace.trace_id
    assert TRACE != asgi(Asgi(app, made, trust=["172.16.0.0/12"]), "10.0.0.1", traceparent=PARENT)[-1].trace_id
    assert TRACE == asgi(Asgi(app, made, trust=["172.16.0.0/12"]), "172.16.0.1", traceparent=PARENT)[-1].trace_id
    edge = engine(RULES.replace("trace: {}", "trace: {edge: [10.0.0.0/8]}"))
    assert TRACE == asgi(Asgi(app, edge), "10.0.0.1", traceparent=PARENT, x_forwarded_for="203.0.113.7")[-1].trace_id
    assert TRACE != asgi(Asgi(app, edge), "203.0.113.7", traceparent=PARENT)[-1].trace_id


def test_a_task_that_outlives_the_request_keeps_its_trace() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def later() -> None:
            await asyncio.sleep(0.01)
            seen.append(trace.current())

        seen.append(asyncio.create_task(later()))

    made = engine()

    async def run() -> None:
        scope = {"type": "http", "path": "/", "method": "GET", "headers": [(b"traceparent", PARENT.encode())],
                 "client": ("10.0.0.1", 1), "scheme": "http", "http_version": "1.1"}  # fmt: skip
        await Asgi(app, made)(scope, None, None)  # type: ignore[arg-type]
        assert trace.current() is None
        await seen[0]

    asyncio.run(run())
    assert TRACE == seen[1].trace_id


def test_django_and_aiohttp_run_in_the_trace() -> None:
    """Where they are installed; each with its own client."""
    web = pytest.importorskip("aiohttp.web")
    client = pytest.importorskip("aiohttp.test_utils")
    from gobanfast.frontends.aiohttp import setup

    seen: list[Any] = []

    async def handler(request: Any) -> Any:
        seen.append(trace.current())
        return web.Response(text="x")

    made = engine(RULES.replace("10.0.0.0/8", "127.0.0.0/8"))

    async def run() -> None:
        app = web.Application()
        app.router.add_get("/", handler)
        setup(app, made)
        async with client.TestClient(client.TestServer(app)) as browser:
            response = await browser.get("/", headers={"traceparent": PARENT})
            assert 200 == response.status

    asyncio.run(run())
    assert TRACE == seen[0].trace_id
    assert (1, 0, 0) == counts(made)


def test_the_controllers_start_with_the_first_request_that_has_one() -> None:
    text = RULES.replace("class: rest, probability: 0", "class: rest, controller: target, per_second: 1")
    made, fixed = engine(text), engine()
    asgi(Asgi(App(), fixed))
    assert None is fixed.rate_control.controllers  # type: ignore[attr-defined]
    guard = Asgi(App(), made)
    assert None is made.rate_control
    asgi(guard)
    control = made.rate_control.controllers  # type: ignore[attr-defined]
    try:
        assert control.probability("rest") <= 1
        made.swap(Ruleset.from_text(text.replace("per_second: 1", "per_second: 2")))
        asgi(guard)
        assert made.rate_control.controllers is control  # type: ignore[attr-defined]
    finally:
        control.stop()


def test_what_goes_out_is_what_the_rules_say() -> None:
    """Propagators of the rules, and baggage for hosts of one's own; a context made of it is sent alike."""
    text = RULES.replace("trace: {}", 'trace: {propagators: [b3, baggage], internal: ["**.internal", cart]}')
    sent: list[dict[str, str]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        sent.append(trace.inject({}, host="db.eu.internal"))
        sent.append(trace.inject({}, trace.current().child().with_state("a", "1"), host="cart"))  # type: ignore[union-attr]
        sent.append(trace.inject({}, host="elsewhere.example"))
        sent.append(trace.inject({}, propagators=("tracecontext",)))

    asgi(Asgi(app, engine(text)), b3=f"{TRACE}-{SPAN}-1", baggage="k=v")
    assert [{"b3", "baggage"}, {"b3", "baggage"}, {"b3"}, {"traceparent"}] == [set(each) for each in sent]
    assert {TRACE} == {each["b3"][:32] for each in sent[:3]}


def test_headers_of_a_response_may_be_there_only_once() -> None:
    """ASGI allows any iterable: looking for an event stream must not use it up."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = (pair for pair in [(b"content-type", b"text/html"), (b"x-own", b"1")])
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body"})

    made = engine()
    start = asgi(Asgi(app, made))[0]
    assert {(b"content-type", b"text/html"), (b"x-own", b"1")} < set(start["headers"])
    assert (1, 0, 1) == counts(made)


def test_an_exchange_knows_its_status_though_nobody_is_told() -> None:
    made, seen = engine(), []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["gobanfast.exchange"])
        await App(204)(scope, receive, send)

    asgi(Asgi(app, made))

    def plain(environ: Any, start_response: Any) -> Iterator[bytes]:
        seen.append(environ["gobanfast.exchange"])
        return App(204).wsgi(environ, start_response)

    wsgi(Wsgi(plain, made))
    assert [204, 204] == [exchange.status for exchange in seen]


def test_an_application_that_raises_at_once_leaves_no_trace_behind() -> None:
    """One that is no coroutine function; the next request of the same task would be in its trace."""

    def app(scope: Any, receive: Any, send: Any) -> Any:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError):
        asgi(Asgi(app, engine()), traceparent=PARENT)  # which looks whether one is current


def test_a_trace_that_was_asked_for_is_made_anew_when_the_outcome_decides() -> None:
    """Such as by a log: the flag is that of the rule which decides in the end, the ids are the same."""
    made = engine()
    exchange = Exchange(HttpGuard(made), [(b"traceparent", PARENT.encode())], peer="10.0.0.1", method="GET", path="/")
    exchange.begin()
    decision = exchange.decision
    before = decision.trace
    exchange.judged("passed")
    after = decision.trace
    assert before is not None
    assert after is not None
    assert (True, False, False) == (before.sampled, decision.record, after.sampled)
    assert (before.trace_id, before.span_id) == (after.trace_id, after.span_id)


@pytest.mark.parametrize("admit", ["", "rules: [{id: odd, when: {method: TRACE}, action: ban}]"])
def test_record_rules_see_a_preflight_as_what_it_is(admit: str) -> None:
    """Share rules are asked with the method that it announces; the request that came is the OPTIONS."""
    made = engine(
        admit
        + """
share: [{id: pages, when: {path: /shared, origin: "https://a.example"}, action: grant, methods: [PUT]}]
record:
- {id: preflights, when: {method: OPTIONS}, action: never}
- {id: writes, when: {method: PUT}, action: always}
"""
    )
    headers = [(b"origin", b"https://a.example"), (b"access-control-request-method", b"PUT"), (b"host", b"x")]
    decision = made.decide("192.0.2.1", method="OPTIONS", path="/shared", headers=headers)
    assert (True, "granted", "pages") == (decision.preflight, decision.share, decision.share_rule)
    assert ("preflights", ("preflights",)) == (decision.record_rule, decision.record_matched)


def test_headers_are_compared_with_their_own_kind() -> None:
    """Under -bb bytes against str is an error."""
    code = """
import asyncio
from gobanfast import Engine, Ruleset
from gobanfast.frontends.asgi import Gobanfast
async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
async def send(message): print(len(message["headers"]))
rules = "record: [{id: all, when: any, action: rate, class: all, probability: 1}]"
scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "client": ("192.0.2.1", 1), "scheme": "http",
         "http_version": "1.1"}
asyncio.run(Gobanfast(app, Engine(Ruleset.from_text(rules)))(scope, None, send))
"""
    ran = subprocess.run([sys.executable, "-bb", "-c", code], capture_output=True, check=False, text=True, timeout=60)
    assert ("2\n", "") == (ran.stdout, ran.stderr)


CONTROLLED = "record: [{id: all, when: any, action: rate, class: all, controller: target}]"


def test_no_request_fails_because_rates_cannot_be_controlled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container with no room for another thread; the next rules try again."""

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    made = engine(CONTROLLED)
    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", start)
        guard = Asgi(App(), made)
        assert [200, 200] == [asgi(guard)[0]["status"] for _ in range(2)]
    control = made.rate_control.controllers  # type: ignore[attr-defined]
    before = control._thread
    made.swap(Ruleset.from_text(CONTROLLED.replace("target", "target, per_second: 2")))
    assert (None, True) == (before, control._thread.is_alive())
    control.stop()


def test_an_engine_that_is_gone_leaves_no_thread() -> None:
    made = engine(CONTROLLED)
    asgi(Asgi(App(), made))
    thread = made.rate_control.controllers._thread  # type: ignore[attr-defined]
    assert thread.is_alive()
    del made
    gc.collect()
    thread.join(30)
    assert not thread.is_alive()


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0)])
def test_bodies_of_one_thread_may_end_in_any_order(order: tuple[int, ...]) -> None:
    """A server that asks several for their parts in turn, as bjoern does: none leaves a trace that is over behind."""
    guard = Wsgi(App().wsgi, engine())
    environ = {
        "REQUEST_METHOD": "GET", "PATH_INFO": "/", "REMOTE_ADDR": "203.0.113.1", "wsgi.url_scheme": "http",
        "SERVER_PROTOCOL": "HTTP/1.1",
    }  # fmt: skip
    bodies: list[Any] = [guard(dict(environ), lambda *_: None) for _ in range(3)]
    last = trace.current()
    for place in order:
        assert [b"a"] == list(bodies[place])
        bodies[place].close()
        if 2 not in order[: order.index(place) + 1]:
            assert trace.current() is last
    assert trace.current() is None


def test_who_goes_before_an_answer_makes_no_error() -> None:
    """A client that leaves, or a server that stops, says nothing of the application; an exception does."""
    made = engine()

    async def gone(scope: Any, receive: Any, send: Any) -> None:
        raise asyncio.CancelledError

    async def silent(scope: Any, receive: Any, send: Any) -> None:
        return

    with pytest.raises(asyncio.CancelledError):
        asgi(Asgi(gone, made))
    asgi(Asgi(silent, made))
    assert (0, 0, 0) == counts(made)

    def broken(environ: Any, start_response: Any) -> Iterator[bytes]:
        raise RuntimeError("broken")
        yield b""

    with pytest.raises(RuntimeError):
        wsgi(Wsgi(broken, made))
    assert (1, 1, 1) == counts(made)


@pytest.mark.parametrize(("kind", "noted"), [(" text/event-stream ;charset=utf-8", 0), ("text/event-streaming", 1)])
def test_what_an_event_stream_is(kind: str, noted: int) -> None:
    made = engine()
    asgi(Asgi(App(kind=kind), made))
    assert noted == counts(made)[0]
