"""Leases of streams: what ends an open one, and what does not; what an EventSource is told that comes back."""

from __future__ import annotations

import asyncio
import gc
import signal
import subprocess
import sys
import weakref
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

from gobanfast import Engine, Ruleset
from gobanfast.frontends.asgi import Gobanfast as Asgi
from gobanfast.frontends.http import leases
from gobanfast.frontends.wsgi import Gobanfast as Wsgi

RULES = """
share:
- {id: streams, when: {path: /events/**, origin: ["https://a.example", "https://b.example"]}, action: grant,
   credentials: true}
"""
PAGE = "https://a.example"


def engine(text: str = RULES) -> Engine:
    return Engine(Ruleset.from_text(text))


class Stream:
    """One open stream, or WebSocket, of an application that sends when the test says so."""

    def __init__(
        self, guard: Asgi, client: str = "192.0.2.1", path: str = "/events/1", *, origin: str | None = PAGE,
        cookie: str | None = None, kind: str = "http", media: str = "text/event-stream",
    ) -> None:  # fmt: skip
        headers = [(b"host", b"api.example"), (b"accept", b"text/event-stream")]
        headers += [(b"cookie", cookie.encode())] if cookie else []
        headers += [(b"origin", origin.encode())] if origin else []
        self.scope = {"type": kind, "path": path, "raw_path": path.encode(), "headers": headers, "client": (client, 1),
                      "scheme": "https" if kind == "http" else "wss", "http_version": "1.1"}  # fmt: skip
        if kind == "http":
            self.scope["method"] = "GET"
        self.kind, self.media = kind, media
        self.sent: list[Any] = []
        self.events: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.task = asyncio.ensure_future(guard(self.scope, self.receive, self.send))

    async def receive(self) -> Any:
        return {"type": "websocket.connect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    async def app(self, receive: Any, send: Any) -> None:
        socket = self.kind == "websocket"
        if socket:
            await send({"type": "websocket.accept"})
        else:
            headers = [(b"content-type", self.media.encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
        while (event := await self.events.get()) is not None:
            if socket:
                await send({"type": "websocket.send", "bytes": event})
            else:
                await send({"type": "http.response.body", "body": event, "more_body": True})

    async def say(self, text: bytes = b"data: x\n\n") -> None:
        self.events.put_nowait(text)
        for _ in range(4):
            await asyncio.sleep(0)

    async def end(self) -> None:
        self.events.put_nowait(None)
        await self.task

    @property
    def kinds(self) -> list[str]:
        """What the client got, in short."""
        return [
            "start" if one["type"].endswith(("start", "accept")) else f"close {one['code']}"
            if one["type"] == "websocket.close" else "event" if one.get("more_body", True) else "end"
            for one in self.sent
        ]  # fmt: skip


class Streams:
    """An application whose streams the test has in its hands."""

    def __init__(self, made: Engine, **options: Any) -> None:
        self.by_scope: dict[int, Stream] = {}
        self.guard = Asgi(self, made, **options)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.by_scope[id(scope)].app(receive, send)

    async def open(self, *args: Any, **options: Any) -> Stream:
        stream = Stream(self.guard, *args, **options)
        self.by_scope[id(stream.scope)] = stream
        await stream.say()
        return stream


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEASE_TEST_KEY", "0123456789abcdef0123456789abcdef")
    monkeypatch.setattr(leases, "TICK", 0.05)


async def gone(stream: Stream) -> None:
    """Until its end was sent, or 30 seconds."""
    for _ in range(3000):
        if stream.kinds[-1].startswith(("end", "close")):
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"it is open: {stream.kinds}")


def test_a_ban_ends_the_stream_with_the_next_event() -> None:
    async def run() -> None:
        made = engine()
        app = Streams(made)
        banned, other = await app.open(), await app.open("192.0.2.2")
        made.ban("192.0.2.1", duration=60)
        await banned.say(b"data: secret\n\n")
        await other.say()
        assert ["start", "event", "end"] == banned.kinds
        assert ["start", "event", "event"] == other.kinds
        await banned.say()
        assert b"" == banned.sent[-1]["body"]
        made.unban("192.0.2.1")
        await banned.say()
        assert ["start", "event", "end"] == banned.kinds
        await asyncio.gather(banned.end(), other.end())

    asyncio.run(run())


def test_a_ban_of_another_worker_ends_it(tmp_path: Path) -> None:
    """Through the store: what one engine bans, and what it revokes, ends the streams of the other."""

    async def run() -> None:
        rules = tmp_path / "rules.yaml"
        rules.write_text(SESSIONS)
        here, there = (Engine.load(rules, store=f"sqlite:{tmp_path / 'bans.db'}") for _ in range(2))
        try:
            app = Streams(here)
            banned, revoked = await app.open(), await app.open("192.0.2.2", cookie="sid=ann")
            other = await app.open("192.0.2.3")
            there.ban("192.0.2.1", duration=60)
            there.revoke_session("ann", duration=60)
            await gone(banned)
            await gone(revoked)
            assert ["start", "event"] == other.kinds
            await asyncio.gather(banned.end(), revoked.end(), other.end())
        finally:
            for made in (here, there):
                if made.sync is not None:
                    made.sync.close()

    asyncio.run(run())


def test_a_silent_stream_ends_at_the_next_tick() -> None:
    async def run() -> None:
        made = engine()
        app = Streams(made)
        stream, socket = await app.open(), await app.open(kind="websocket")
        kept = await app.open("192.0.2.2")
        made.ban("192.0.2.0/31", duration=60)
        await gone(stream)
        await gone(socket)
        assert ["start", "event", "close 1008"] == socket.kinds
        assert ["start", "event"] == kept.kinds
        assert 1 == leases.open_streams()
        await asyncio.gather(stream.end(), socket.end(), kept.end())

    asyncio.run(run())


def test_a_withdrawn_grant_ends_exactly_what_it_concerns() -> None:
    """A thousand open streams of two pages, one of which is granted no more; others, and plain answers, go on."""

    async def run() -> None:
        made = engine()
        app = Streams(made)
        pages = [PAGE, "https://b.example"]
        opened = [await app.open(f"192.0.2.{n % 200}", origin=pages[n % 2]) for n in range(1000)]
        plain = await app.open(origin=None)
        long_answer = await app.open(media="application/x-ndjson")
        made.swap(Ruleset.from_text(RULES.replace('"https://a.example", ', "")))
        for stream in opened:
            await gone(stream) if stream.scope["headers"][-1][1] == PAGE.encode() else await stream.say()
        await plain.say()
        await long_answer.say()
        ended = [stream.kinds[-1] == "end" for stream in opened]
        assert [True, False] * 500 == ended
        assert ["start", "event", "event"] == plain.kinds == long_answer.kinds
        await asyncio.gather(*(stream.end() for stream in [*opened, plain, long_answer]))

    asyncio.run(run())


@pytest.mark.parametrize("more", [
    "rules: [{id: c, when: any, action: challenge}]",
    "trackers: {request_rate: {limit: 1, window: 1h, action: ban, for: 1h}}",
    "score: {floor: 0.01, ceiling: 0.01, min_samples: 1}",
])  # fmt: skip
def test_what_is_no_loss(more: str) -> None:
    """A challenge, a tracker, a score: what they say of requests ends no stream that is open."""

    async def run() -> None:
        made = engine()
        stream = await Streams(made).open()
        made.swap(Ruleset.from_text(RULES + more))
        for _ in range(3):
            await stream.say()
        assert ["start", *["event"] * 4] == stream.kinds
        await stream.end()

    asyncio.run(run())


@pytest.mark.parametrize("more", [
    "rules: [{id: b, when: {prefix: 192.0.2.0/24}, action: ban}]",
    "share: [{id: r, when: {path: /events/**}, action: refuse}]",
])  # fmt: skip
def test_rules_that_would_not_let_it_in(more: str) -> None:
    async def run() -> None:
        made = engine("rules: []")
        stream = await Streams(made).open()
        made.swap(Ruleset.from_text(more))
        await stream.say()
        assert ["start", "event", "end"] == stream.kinds
        await stream.end()

    asyncio.run(run())


SESSIONS = (
    RULES
    + """
session: {cookie: sid, keys: ["env:LEASE_TEST_KEY"]}
rules:
- {id: vip, when: {label: vip}, action: allow}
- {id: watched, when: {label: watched}, action: challenge}
- {id: seen, when: {label: seen}, action: log}
"""
)


def test_a_revoked_session_ends_its_streams_alone() -> None:
    async def run() -> None:
        made = engine(SESSIONS)
        app = Streams(made)
        out, other, none = [await app.open(cookie=cookie) for cookie in ("sid=ann", "sid=bob", None)]
        made.revoke_session("ann", duration=3600)
        for stream in (out, other, none):
            await stream.say()
        assert ["start", "event", "end"] == out.kinds
        assert ["start", "event", "event"] == other.kinds == none.kinds
        await asyncio.gather(out.end(), other.end(), none.end())

    asyncio.run(run())


def test_a_label_that_a_restrictive_rule_names() -> None:
    async def run() -> None:
        made = engine(SESSIONS)
        stream = await Streams(made).open("192.0.2.1")
        for word in ("vip", "seen", "unheard"):
            made.label("192.0.2.1", word, duration=60)
            await stream.say()
        assert ["start", *["event"] * 4] == stream.kinds
        made.label("192.0.2.1", "watched", duration=60)
        await stream.say()
        assert "end" == stream.kinds[-1]
        await stream.end()

    asyncio.run(run())


def test_a_socket_of_a_page_without_a_grant_any_more() -> None:
    async def run() -> None:
        made = engine()
        socket = await Streams(made).open(kind="websocket")
        made.swap(Ruleset.from_text(RULES.replace("credentials: true", "credentials: false")))
        await socket.say()
        assert ["start", "event", "close 1008"] == socket.kinds
        await socket.end()

    asyncio.run(run())


def test_an_error_ends_it_unless_on_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(on_error: str) -> list[str]:
        made = engine()
        stream = await Streams(made, on_error=on_error).open()
        await stream.say()
        monkeypatch.setattr(type(made.snapshot.trust), "peers", property(lambda _: 1 / 0))
        made.ban("198.51.100.1", duration=60)
        try:
            await stream.say()
        finally:
            monkeypatch.undo()
        await stream.end()
        return stream.kinds

    assert ["start", "event", "event", "end"] == asyncio.run(run("refuse"))
    assert ["start", "event", "event", "event"] == asyncio.run(run("allow"))


def test_everything_ends_before_a_restart() -> None:
    async def run() -> None:
        app = Streams(engine())
        opened = [await app.open() for _ in range(20)]
        socket = await app.open(kind="websocket")
        assert 21 == await leases.close_all(retry=2)
        told = [int(stream.sent[-1]["body"].split(b":")[1]) for stream in opened]
        assert all(1000 <= wait <= 3000 for wait in told)
        assert len(set(told)) > 10
        assert "close 1012" == socket.kinds[-1]
        assert (0, 0) == (leases.open_streams(), await leases.close_all())
        await asyncio.gather(*(stream.end() for stream in [*opened, socket]))

    asyncio.run(run())


def test_a_stream_that_is_over_is_forgotten() -> None:
    async def run() -> None:
        stream = await Streams(engine()).open()
        assert 1 == leases.open_streams()
        await stream.end()
        del stream
        await asyncio.sleep(0.2)
        assert 0 == leases.open_streams()

    asyncio.run(run())


def test_an_open_stream_is_small() -> None:
    """What a lease and its exchange have beside what the server has anyway: the budget is 2 KB."""

    async def run() -> int:
        app = Streams(engine())
        stream = await app.open()
        (lease,) = leases.leases_of(asyncio.get_running_loop()).open
        exchange = lease.exchange
        sizes = sys.getsizeof(lease) + sys.getsizeof(exchange) + sys.getsizeof(exchange.decision)
        await stream.end()
        return sizes

    assert asyncio.run(run()) < 1500


@pytest.mark.parametrize(("deny", "expected"), [("", (204, None)), (", deny: later", (200, "text/event-stream"))])
def test_the_eventsource_that_comes_back(deny: str, expected: tuple[int, str | None]) -> None:
    """Withheld, or banned: it is told to stop, or to come back later, by the grant; others are answered as ever."""
    text = RULES.replace("credentials: true", "credentials: true" + deny)
    made = engine(text)
    made.ban("192.0.2.66", duration=60)

    def answer(client: str, origin: str, accept: str = "text/event-stream") -> tuple[int, str | None, bytes]:
        sent: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 299, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": "/events/1", "client": (client, 1), "scheme": "https",
                 "headers": [(b"accept", accept.encode()), (b"origin", origin.encode())]}  # fmt: skip
        asyncio.run(Asgi(app, made)(scope, None, send))  # type: ignore[arg-type]
        headers = {name: value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], headers.get(b"content-type"), sent[1]["body"]

    for client, origin in (("192.0.2.66", PAGE), ("192.0.2.1", "https://evil.example")):
        status, media, body = answer(client, origin)
        assert expected == (status, media)
        if deny:
            assert 7500 <= int(body.split(b":")[1]) <= 22500
    assert 299 == answer("192.0.2.1", PAGE)[0]
    assert 403 == answer("192.0.2.66", PAGE, "text/html")[0]
    assert 299 == answer("192.0.2.1", "https://evil.example", "*/*")[0]


def test_wsgi_ends_it_at_the_next_part() -> None:
    made = engine()

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        for number in range(4):
            if number == 2:
                made.ban("192.0.2.1", duration=60)
            yield b"data: %d\n\n" % number

    def got(client: str, **more: str) -> list[bytes]:
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/x", "SCRIPT_NAME": "", "REMOTE_ADDR": client,
                   "wsgi.url_scheme": "http", "SERVER_PROTOCOL": "HTTP/1.1", "HTTP_HOST": "x", **more}  # fmt: skip
        body = Wsgi(app, made)(environ, lambda status, headers, exc=None: None)
        try:
            return list(body)
        finally:
            body.close()  # type: ignore[attr-defined]

    assert 2 == len(got("192.0.2.1", HTTP_ACCEPT="text/event-stream"))
    assert 4 == len(got("192.0.2.2", HTTP_ACCEPT="text/event-stream"))


async def silent(_: Any) -> None: ...


def test_headers_of_a_response_may_be_there_only_once() -> None:
    """ASGI allows any iterable: looking for an event stream must not use it up."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = (pair for pair in [(b"content-type", b"text/event-stream"), (b"x-own", b"1")])
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        assert 1 == leases.open_streams()

    async def run() -> None:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "client": ("192.0.2.1", 1),
                 "scheme": "http", "http_version": "1.1"}  # fmt: skip
        await Asgi(app, engine())(scope, None, send)  # type: ignore[arg-type]
        assert {(b"content-type", b"text/event-stream"), (b"x-own", b"1")} < set(sent[0]["headers"])

    asyncio.run(run())


def test_a_goodbye_is_no_part_of_an_event_that_is_cut_short() -> None:
    async def run(text: bytes) -> bytes:
        streams = Streams(engine())
        stream = await streams.open()
        await stream.say(text)
        await leases.close_all(retry=1)
        last: bytes = stream.sent[-1]["body"]
        await stream.end()
        return last

    for text in (b"data: x\n\n", b"data: x\r\n\r\n", b"data: x\r\r", b": \n\n"):
        assert asyncio.run(run(text)).startswith(b"retry: "), text
    for text in (b"data: x", b"data: x\n", b"data: x\r\n", b"\r\n"):
        assert b"" == asyncio.run(run(text)), text


def test_an_application_that_sends_and_sends_lets_others_run() -> None:
    """What it sends behind the end goes nowhere, and waits for nobody."""

    async def run() -> None:
        running = True

        async def app(scope: Any, receive: Any, send: Any) -> None:
            headers = [(b"content-type", b"text/event-stream")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await leases.close_all()
            for _ in range(1000):
                if not running:
                    return
                await send({"type": "http.response.body", "body": b"data: x\n\n", "more_body": True})
            pytest.fail("nobody else has run")

        async def stop() -> None:
            nonlocal running
            running = False

        scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "client": ("192.0.2.1", 1),
                 "scheme": "http", "http_version": "1.1"}  # fmt: skip
        task = asyncio.ensure_future(Asgi(app, engine())(scope, None, silent))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0, lambda: asyncio.ensure_future(stop()))
        await task

    asyncio.run(run())


def test_what_follows_the_last_part_is_sent_and_a_closed_socket_is_not_open() -> None:
    async def run() -> None:
        sent: list[str] = []

        async def send(message: Any) -> None:
            sent.append(message["type"])

        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "websocket":
                await send({"type": "websocket.accept"})
                await send({"type": "websocket.close"})
            else:
                headers = [(b"content-type", b"text/event-stream")]
                await send({"type": "http.response.start", "status": 200, "headers": headers, "trailers": True})
                await send({"type": "http.response.body", "body": b""})
                await send({"type": "http.response.trailers", "headers": []})
            assert 0 == leases.open_streams()
            assert 0 == await leases.close_all()

        scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "client": ("192.0.2.1", 1),
                 "scheme": "http", "http_version": "1.1"}  # fmt: skip
        guard = Asgi(app, engine())
        await guard(scope, None, send)  # type: ignore[arg-type]
        assert "http.response.trailers" == sent[-1]
        await guard({**scope, "type": "websocket", "scheme": "ws"}, None, send)  # type: ignore[arg-type]
        assert ["websocket.accept", "websocket.close"] == sent[-2:]

    asyncio.run(run())


def test_the_timer_is_of_no_request() -> None:
    """The context of the first stream would be that of all, and there as long as any is open."""
    word: ContextVar[str] = ContextVar("word", default="none")
    seen: list[str] = []

    class Noting(leases.Leases):
        def look(self, left: list[leases.Lease] | None = None) -> None:
            seen.append(word.get())
            super().look(left)

    async def run() -> None:
        leases._by_loop[asyncio.get_running_loop()] = Noting()
        streams = Streams(engine())
        word.set("of the first")
        stream = await streams.open()
        for _ in range(3000):
            if len(seen) > 1:
                break
            await asyncio.sleep(0.01)
        await stream.end()

    asyncio.run(run())
    assert ["none", "none"] == seen[:2]


def test_a_loop_that_is_over_is_forgotten() -> None:
    async def run() -> Any:
        stream = await Streams(engine()).open()
        await stream.end()
        return weakref.ref(asyncio.get_running_loop())

    loop = asyncio.run(run())
    gc.collect()
    assert None is loop()


def test_wsgi_decides_by_the_environ_that_came() -> None:
    """Werkzeug's ProxyFix, for one, writes another host into it."""
    made = engine('rules: []\nshare: [{id: host, when: {not: {host: "inside:8000"}}, action: refuse}]\n')

    def app(environ: Any, start_response: Any) -> Any:
        environ["HTTP_HOST"] = "outside.example"
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        yield b"data: 1\n\n"
        yield b"data: 2\n\n"

    environ = {
        "REQUEST_METHOD": "GET", "PATH_INFO": "/", "REMOTE_ADDR": "192.0.2.1", "wsgi.url_scheme": "http",
        "SERVER_PROTOCOL": "HTTP/1.1", "HTTP_HOST": "inside:8000", "HTTP_ACCEPT": "text/event-stream",
    }  # fmt: skip
    assert 2 == len(list(Wsgi(app, made)(environ, lambda *_: None)))


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_process_without_a_handler_of_its_own_ends_by_the_signal() -> None:
    code = """
import asyncio, signal
from gobanfast import streams
async def run():
    streams.close_on()
    signal.raise_signal(signal.SIGTERM)
    await asyncio.sleep(30)
asyncio.run(run())
"""
    assert -signal.SIGTERM == subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode
