"""Errors of an application behind share rules: a page that may read answers reads them, the server sees them."""

from __future__ import annotations

import asyncio

import pytest

from gobanfast import Engine, Ruleset
from gobanfast.frontends import asgi, wsgi
from gobanfast.frontends.wsgi import HeldStart
from share_forms import (
    FORMS,
    FROM_PAGE,
    OWN,
    PAGE,
    RULES,
    Plan,
    Server,
    ask,
    ask_asgi,
    environ_of,
)

pytest.importorskip("django", reason="one table for all frontends")
pytest.importorskip("aiohttp", reason="one table for all frontends")

forms = pytest.mark.parametrize("form", FORMS)


@forms
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_error_before_the_answer_is_readable_and_logged(form, method):
    """500 with the grant; the error reaches the server, or the log where the server cannot get it any more."""
    error = OSError("the application is broken")

    answer = ask(form, Plan(raises=error), method=method, headers=FROM_PAGE)

    assert (500, OWN, ["origin"]) == (answer.status, answer.shared, answer.vary)
    logged = [record.exc_info[1] for record in answer.logged if record.exc_info]
    assert error in (answer.error, *logged)
    assert method == "GET" or form.startswith(("django", "aiohttp")) or b"" == answer.body


@forms
def test_an_error_where_nothing_is_owned(form):
    """Stays the server's."""
    error = OSError("the application is broken")

    answer = ask(form, Plan(raises=error), "/elsewhere", headers=FROM_PAGE)

    assert {} == answer.shared
    assert (answer.status, answer.error) == ((0, error) if form in {"asgi", "wsgi"} else (500, None))


@forms
def test_an_error_behind_the_first_bytes(form):
    """The answer has begun: it breaks off, with the lines it began with, and the server sees the error."""
    error = OSError("the application is broken")

    answer = ask(form, Plan(breaks=error), headers=FROM_PAGE)

    assert (200, OWN) == (answer.status, answer.shared)
    assert answer.error is error or (form == "aiohttp" and answer.error is not None)


@pytest.mark.parametrize("parts", [(), (b"",)])
def test_wsgi_error_before_the_first_bytes(parts):
    """Headers go out with the first bytes, so a stream that breaks before them can still be a readable 500."""
    error = OSError("the application is broken")

    answer = ask("wsgi", Plan(breaks=error, parts=parts), headers=FROM_PAGE)

    assert (500, OWN, None) == (answer.status, answer.shared, answer.error)
    assert [error] == [record.exc_info[1] for record in answer.logged if record.exc_info]


@pytest.mark.parametrize("form", ["asgi", "wsgi"])
@pytest.mark.parametrize("error", [asyncio.CancelledError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_is_no_error_of_the_application_passes(form, error):
    """A client that went away, a stop of the process: nobody is answered."""
    raised = error()
    ended = []

    class Ends:
        def __call__(self, *_):
            pass

        def finish(self, exchange):
            ended.append(exchange.status)

    answer = ask(form, Plan(raises=raised), headers=FROM_PAGE, on_decision=Ends())

    assert (0, [500]) == (answer.status, ended)
    assert raised is answer.error or isinstance(answer.error, error)


def test_asgi_response_that_begins_twice_or_never():
    """A second start is the server's to refuse; an application that never answers is not answered for."""

    async def twice(scope, receive, send):
        for _ in range(2):
            await send({"type": "http.response.start", "status": 200, "headers": WIRE})

    async def never(scope, receive, send):
        pass

    engine = Engine(Ruleset.from_text(RULES))
    answers = [ask_asgi(asgi.Gobanfast(app, engine), "/own", "GET", FROM_PAGE.items()) for app in (twice, never)]

    assert [(200, OWN), (0, {})] == [(it.status, it.shared) for it in answers]
    assert (AssertionError, type(None)) == tuple(type(answer.error) for answer in answers)


WIRE = [(b"access-control-allow-origin", b"*")]


def test_asgi_client_that_is_gone_when_the_error_is_answered():
    """The application's error is the one that the server sees, and the exchange ends."""
    error, ended = OSError("the application is broken"), []

    async def app(scope, receive, send):
        raise error

    async def gone(message):
        raise ConnectionResetError

    def ends(*_):
        pass

    ends.finish = lambda exchange: ended.append(exchange.status)
    middleware = asgi.Gobanfast(app, Engine(Ruleset.from_text(RULES)), on_decision=ends)
    scope = {"type": "http", "path": "/own", "method": "GET", "headers": [(b"origin", PAGE.encode())]}
    with pytest.raises(OSError, match="the application is broken") as raised:
        asyncio.run(middleware(scope, None, gone))

    assert (error, [500]) == (raised.value, ended)


def test_wsgi_start_that_is_late_or_comes_twice():
    """In a generator application the start comes with the first step; a second one, with exc_info, replaces the first
    before the first bytes and raises after them. Each has our lines, once."""
    error = OSError("odd")

    def late(environ, start_response):
        start_response("200 OK", [("Access-Control-Allow-Origin", "*")])
        yield b"one"

    def replaced(environ, start_response):
        start_response("200 OK", [("Access-Control-Allow-Origin", "*")])
        start_response("502 Bad", [("Access-Control-Allow-Origin", "null")], (OSError, error, None))
        return [b"one"]

    def too_late(environ, start_response):
        write = start_response("200 OK", [("Access-Control-Allow-Origin", "*")])
        write(b"one")
        start_response("502 Bad", [], (OSError, error, None))
        return []

    engine, answers = Engine(Ruleset.from_text(RULES)), []
    for app in (late, replaced, too_late):
        environ = environ_of("/own", "GET", FROM_PAGE.items())
        answers.append(Server().run(wsgi.Gobanfast(app, engine), environ))

    assert [(200, OWN), (502, OWN), (200, OWN)] == [(answer.status, answer.shared) for answer in answers]
    assert [None, None, error] == [answer.error for answer in answers]
    assert [b"one"] * 3 == [answer.body for answer in answers]


def test_wsgi_server_sees_one_start():
    """Servers join the lines of two (gunicorn does), or read the first before they ask for a part (granian)."""
    starts = []

    def start_response(status, headers, exc_info=None):
        assert exc_info is None
        starts.append(status)
        return lambda part: None

    def replaced(environ, start):
        start("200 OK", [("Content-Length", "2")])
        start("502 Bad", [], (OSError, OSError("odd"), None))
        return [b"", b"one"]

    def late(environ, start):
        yield b""
        start("200 OK", [])
        yield b"one"

    def breaks(environ, start):
        start("200 OK", [("Content-Length", "2")])
        yield b""
        raise OSError("odd")

    def writes(environ, start):
        start("200 OK", [])(b"one")
        return []

    engine = Engine(Ruleset.from_text(RULES))
    for app in (replaced, late, breaks, writes):
        body = wsgi.Gobanfast(app, engine)(environ_of("/own", "GET", FROM_PAGE.items()), start_response)
        seen = list(starts)
        list(body)
        assert seen == starts
    assert ["502 Bad", "200 OK", "500 Internal Server Error", "200 OK"] == starts
    twice = HeldStart(start_response)
    twice("200 OK", [])
    with pytest.raises(AssertionError, match="was called before"):
        twice("200 OK", [])


def test_wsgi_body_is_closed_after_an_error():
    """Its `close` is called, as PEP 3333 asks, also where ours is the answer."""
    closed = []

    class Parts:
        def __iter__(self):
            return self

        def __next__(self):
            raise OSError("the application is broken")

        def close(self):
            closed.append(True)

    def app(environ, start_response):
        start_response("200 OK", [])
        return Parts()

    environ = environ_of("/own", "GET", FROM_PAGE.items())
    answer = Server().run(wsgi.Gobanfast(app, Engine(Ruleset.from_text(RULES))), environ)

    assert (500, OWN, [True]) == (answer.status, answer.shared, closed)
