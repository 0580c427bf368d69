"""Share rules carried out by every HTTP frontend: whose header lines a client gets, and who answers."""

from __future__ import annotations

import asyncio
import json

import pytest

from gobanfast import Engine, Ruleset
from gobanfast.frontends import asgi, wsgi
from gobanfast.frontends.challenge import Challenge
from gobanfast.frontends.wsgi import HeldStart
from http_fakes import FakeEngine
from share_forms import FOREIGN, FORMS, PAGE, RULES, TENANT, Plan, Server, asgi_app, ask, ask_asgi, environ_of
from test_challenge import solve

pytest.importorskip("django", reason="one table for all frontends")
pytest.importorskip("aiohttp", reason="one table for all frontends")

OWN = {
    "access-control-allow-origin": [PAGE],
    "access-control-allow-credentials": ["true"],
    "access-control-expose-headers": ["x-request-id"],
}
PREFLIGHT = {
    "access-control-allow-origin": [PAGE],
    "access-control-allow-credentials": ["true"],
    "access-control-allow-methods": ["PUT"],
    "access-control-allow-headers": ["x-a"],
    "access-control-max-age": ["600"],
}
FROM_PAGE = {"origin": PAGE}
ASKS = {"origin": PAGE, "access-control-request-method": "PUT", "access-control-request-headers": "x-a"}
WRITTEN = {
    "none": [],
    "one": [("Access-Control-Allow-Origin", "*")],
    "two": [("ACCESS-CONTROL-ALLOW-ORIGIN", "https://evil.example"), ("access-control-allow-origin", "*")],
    "all": [
        ("access-control-Allow-Origin", "null"), ("Access-Control-Allow-Credentials", "True"),
        ("Access-Control-Expose-Headers", "*"), ("Access-Control-Max-Age", "9"),
        ("access-control-allow-private-network", "true"),
    ],
}  # fmt: skip

forms = pytest.mark.parametrize("form", FORMS)


# ---- whose lines


@forms
@pytest.mark.parametrize("written", WRITTEN)
def test_lines_are_ours_alone(form, written):
    """Whatever the application wrote, in whatever case and how often; other headers stay."""
    plan = Plan(headers=[*WRITTEN[written], ("X-B", "1")])

    granted, withheld, unasked = (ask(form, plan, headers=headers) for headers in (FROM_PAGE, {"origin": FOREIGN}, {}))

    assert (OWN, {}, {}) == (granted.shared, withheld.shared, unasked.shared)
    assert [["origin"]] * 3 == [answer.vary for answer in (granted, withheld, unasked)]
    assert [["1"]] * 3 == [answer.lines("x-b") for answer in (granted, withheld, unasked)]
    assert [b"onetwo"] * 3 == [answer.body for answer in (granted, withheld, unasked)]
    assert 3 == plan.calls


@forms
def test_a_static_star_needs_no_origin_and_varies_by_nothing(form):
    """Any origin: `*` to everyone, and never credentials."""
    for headers in (FROM_PAGE, {"origin": FOREIGN}, {"origin": "null"}, {}):
        answer = ask(form, Plan(headers=WRITTEN["all"]), "/public", headers=headers)

        assert {"access-control-allow-origin": ["*"]} == answer.shared
        assert [] == answer.vary


@forms
def test_a_grant_without_credentials(form):
    """The page's own origin, below a wildcard too, and nothing about cookies."""
    for origin in (PAGE, TENANT):
        answer = ask(form, Plan(), "/plain", headers={"origin": origin, "cookie": "a=b"})

        assert {"access-control-allow-origin": [origin]} == answer.shared


@forms
@pytest.mark.parametrize("path", ["/elsewhere", "/trial"])
def test_what_is_not_owned_is_not_touched(form, path):
    """No rule, or a shadow rule: the lines of the application stay as they are, and our id is all that is new."""
    written = [*WRITTEN["two"], ("Vary", "*"), ("x-Odd", "1"), ("Vary", "accept")]
    if form.startswith("django"):  # one line a header
        written = [*WRITTEN["one"], ("Vary", "*"), ("x-Odd", "1")]

    answer = ask(form, Plan(headers=written), path, headers=FROM_PAGE)

    names = {name for name, _ in written}
    assert written == [pair for pair in answer.pairs if pair[0] in names]
    assert 1 == len(answer.lines("x-request-id"))


VARY = {
    "absent": ([], ["origin", "sec-fetch-site"]),
    "empty": ([""], ["origin", "sec-fetch-site"]),
    "list": (["Accept, accept-encoding"], ["accept", "accept-encoding", "origin", "sec-fetch-site"]),
    "star": (["*"], ["*"]),
    "star in a list": (["accept, *"], ["accept", "*"]),
    "has one": (["ORIGIN"], ["origin", "sec-fetch-site"]),
    "has both": (["sec-fetch-SITE ,\tOrigin"], ["sec-fetch-site", "origin"]),
    "alike": (["x-origin"], ["x-origin", "origin", "sec-fetch-site"]),
    "lines": (["accept", "origin, cookie"], ["accept", "origin", "cookie", "sec-fetch-site"]),
    "lines, one empty": (["", "cookie"], ["", "cookie", "origin", "sec-fetch-site"]),
    "lines and a star": (["accept", "*"], ["accept", "*"]),
}


@forms
@pytest.mark.parametrize("case", VARY)
def test_vary_is_merged(form, case):
    """What the application said stays, ours is added once, on one line."""
    lines, expected = VARY[case]
    if len(lines) > 1 and form.startswith("django"):
        pytest.skip("Django has one line a header")

    answer = ask(form, Plan(headers=[("vAry", line) for line in lines]), "/site", headers=FROM_PAGE)

    assert expected == answer.vary


@forms
@pytest.mark.parametrize("status", [206, 304, 400, 404, 405, 500, 503])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_every_status_of_the_application(form, status, method):
    """Errors, parts and what is not modified are as readable as a page."""
    plan = Plan(status=status, parts=() if status == 304 else (b"one",))

    answer = ask(form, plan, method=method, headers=FROM_PAGE)

    assert (status, OWN, ["origin"]) == (answer.status, answer.shared, answer.vary)


@forms
def test_an_id_of_the_application_stays(form):
    """Also where other lines are replaced."""
    plan = Plan(headers=[("x-request-ID", "mine"), *WRITTEN["two"][:1]])

    assert ["mine"] == ask(form, plan, headers=FROM_PAGE).lines("x-request-id")


@pytest.mark.parametrize("path", ["//own", "/x/../own", "/own;a", "/%6fwn", "/own%3Ba"])
def test_every_reading_of_a_path_is_owned(path):
    """A server may serve the resource under any of them; to grant, all must agree."""
    written = Plan(headers=WRITTEN["two"])

    answer = ask("asgi", written, path, headers={"origin": FOREIGN})
    preflight = ask("asgi", written, path, "OPTIONS", ASKS | {"origin": FOREIGN})

    assert ({}, ["origin"]) == (answer.shared, answer.vary)
    assert (403, {}) == (preflight.status, preflight.shared)


def test_lines_that_are_replaced_are_counted():
    """So that a second CORS middleware is found."""
    engine = Engine(Ruleset.from_text(RULES))
    middleware = asgi.Gobanfast(asgi_app(Plan(headers=WRITTEN["all"])), engine)
    for path, count in (("/own", 5), ("/own", 10), ("/elsewhere", 10)):
        ask_asgi(middleware, path, "GET", FROM_PAGE.items())
        assert count == middleware.guard.foreign_headers


# ---- answers of ours


@forms
def test_our_own_answers_carry_the_grant(form):
    """A ban, a refused challenge and a task are readable for a page that may read, and for no other."""
    challenge = Challenge(["k" * 16], difficulty=4)
    cases = {"bad": {}, "odd": {}, "odd html": {"challenge": challenge}}
    for agent, options in cases.items():
        asked = {"user-agent": agent, "accept": "text/html" if options else "*/*"}
        plan = Plan()

        granted = ask(form, plan, headers=asked | FROM_PAGE, **options)
        withheld = ask(form, plan, headers=asked | {"origin": FOREIGN}, **options)

        assert (403, OWN) == (granted.status, granted.shared), agent
        assert (403, {}) == (withheld.status, withheld.shared), agent
        assert ["accept", "origin"] == granted.vary == withheld.vary
        assert 0 == plan.calls
    assert b"<script" in granted.body


@forms
def test_a_solved_challenge_keeps_its_cookies(form):
    """Set-Cookie of the pass goes out beside the grant, once."""
    challenge = Challenge(["k" * 16], difficulty=4)
    asked = {"user-agent": "odd", "accept": "text/html"} | FROM_PAGE
    address = "127.0.0.1" if form == "aiohttp" else "203.0.113.9"
    plan = Plan(headers=[("Set-Cookie", "theirs=1"), *WRITTEN["one"]])
    cookie = solve(challenge.response(address, None, request_id="r-1", contact=None))

    answer = ask(form, plan, headers=asked | {"cookie": cookie}, challenge=challenge)

    assert (200, OWN, 1) == (answer.status, answer.shared, plan.calls)
    names = [line.partition("=")[0].strip() for line in answer.lines("set-cookie")]
    assert len(names) == len(set(names)) == 3
    assert "theirs" in names


@forms
@pytest.mark.parametrize("on_error", ["refuse", "allow"])
def test_an_observer_that_raises(form, on_error):
    """503 that a page can read, or the application's answer with the grant on it."""
    plan = Plan(headers=WRITTEN["two"][:1])

    answer = ask(form, plan, headers=FROM_PAGE, on_error=on_error, on_decision=lambda *_: 1 // 0)

    expected = (503, 0) if on_error == "refuse" else (200, 1)
    assert expected == (answer.status, plan.calls)
    assert OWN == answer.shared


@forms
def test_refusals(form):
    """A write of a foreign page is 403, a foreign host 421; neither reaches the application, neither is shared."""
    plan = Plan()

    foreign = ask(form, plan, "/writes", "POST", {"origin": FOREIGN, "sec-fetch-site": "cross-site"})
    own = ask(form, plan, "/writes", "POST", {"origin": PAGE, "sec-fetch-site": "cross-site"})
    rules = RULES.replace("host: api.example", "host: other.example")
    rebound = ask(form, plan, "/hosts", rules=rules)

    assert [(403, {}), (200, {}), (421, {})] == [(it.status, it.shared) for it in (foreign, own, rebound)]
    assert 1 == plan.calls
    assert "urn:gobanfast:misdirected" == json.loads(rebound.body)["type"]


# ---- preflights


@forms
def test_a_preflight_is_answered_here(form):
    """204 with the grant, before the application; 403 without CORS headers for what is not granted."""
    plan = Plan()
    cases = {
        "granted": ({}, 204, PREFLIGHT),
        "foreign": ({"origin": FOREIGN}, 403, {}),
        "method": ({"access-control-request-method": "DELETE"}, 403, {}),
        "case of the method": ({"access-control-request-method": "put"}, 403, {}),
        "header": ({"access-control-request-headers": "x-b"}, 403, {}),
        "one of two headers": ({"access-control-request-headers": "x-a,x-b"}, 403, {}),
        "junk": ({"access-control-request-headers": "x-a,,,,,,,,,,,,,,,,,,,,,,,"}, 403, {}),
        "null": ({"origin": "null"}, 403, {}),
    }
    for case, (more, status, shared) in cases.items():
        answer = ask(form, plan, method="OPTIONS", headers=ASKS | more)

        assert (status, shared) == (answer.status, answer.shared), case
        assert "origin" in answer.vary
        assert status == 403 or b"" == answer.body
    assert 0 == plan.calls


@forms
def test_a_star_of_methods_and_headers_is_answered_with_what_was_asked(form):
    """Never with a star, and never for authorization."""
    asked = ASKS | {"access-control-request-method": "PATCH", "access-control-request-headers": "x-a,x-b"}
    answer = ask(form, Plan(), "/public", "OPTIONS", asked)

    assert (["PATCH"], ["x-a,x-b"]) == tuple(
        answer.lines(f"access-control-allow-{name}") for name in ("methods", "headers")
    )
    refused = ask(form, Plan(), "/public", "OPTIONS", asked | {"access-control-request-headers": "authorization"})
    assert (403, {}) == (refused.status, refused.shared)


@forms
def test_a_preflight_of_a_banned_client_and_no_visit(form):
    """A ban is 403 without CORS headers; rules that ban or challenge, limit and score do not see it."""
    plan, counted = Plan(), "trackers: {request_rate: {limit: 2, window: 60s, action: ban, for: 1h}}\nscore: {}\n"
    engine = Engine(Ruleset.from_text(counted + RULES))

    for agent in ["bad", "odd", *["any"] * 5]:
        answer = ask(form, plan, method="OPTIONS", headers=ASKS | {"user-agent": agent}, engine=engine)
        assert (204, PREFLIGHT) == (answer.status, answer.shared), agent
    assert (0, 200) == (plan.calls, ask(form, plan, headers=FROM_PAGE, engine=engine).status)
    engine.ban("127.0.0.1" if form == "aiohttp" else "203.0.113.9", duration="1h")
    banned = ask(form, plan, method="OPTIONS", headers=ASKS, engine=engine)
    assert (403, {}, 1) == (banned.status, banned.shared, plan.calls)


@forms
def test_other_options_are_requests(form):
    """Without Origin, without the method it announces, or of what is not owned: the application's."""
    plan = Plan(status=405)
    cases = [("/own", {"origin": PAGE}), ("/own", {"access-control-request-method": "PUT"}), ("/elsewhere", ASKS)]

    assert [405] * 3 == [ask(form, plan, path, "OPTIONS", headers).status for path, headers in cases]
    assert 3 == plan.calls


@forms
def test_a_preflight_comes_before_authentication(form):
    """A middleware that asks for a login stands behind us: it never sees a preflight."""
    if form.startswith("django"):
        pytest.skip("its middleware is listed first, as a check asks for (gobanfast.W001)")
    plan = Plan(status=401)

    assert (204, 0) == (ask(form, plan, method="OPTIONS", headers=ASKS).status, plan.calls)
    answer = ask(form, plan, headers=FROM_PAGE)
    assert (401, OWN) == (answer.status, answer.shared)


# ---- modes, and engines of another make


@forms
@pytest.mark.parametrize("mode", ["observe", "off"])
def test_modes_that_change_nothing(form, mode):
    """Neither lines nor answers: preflights, writes and hosts go to the application."""
    written = [*WRITTEN["one"], ("Vary", "accept")]
    options = {"routes": {"/": mode}}
    cases = [
        ("/own", "GET", FROM_PAGE), ("/own", "OPTIONS", ASKS), ("/hosts", "GET", {}),
        ("/writes", "POST", {"origin": FOREIGN, "sec-fetch-site": "cross-site"}),
    ]  # fmt: skip
    plan = Plan(headers=written)

    for path, method, headers in cases:
        rules = RULES.replace("host: api.example", "host: other.example")
        answer = ask(form, plan, path, method, headers, rules=rules, **options)
        assert (200, {"access-control-allow-origin": ["*"]}, ["accept"]) == (answer.status, answer.shared, answer.vary)
    assert len(cases) == plan.calls


@forms
def test_an_engine_of_another_make(form):
    """It shares nothing, so nothing is touched."""
    plan = Plan(headers=WRITTEN["one"])

    answer = ask(form, plan, headers=ASKS, method="OPTIONS", engine=FakeEngine())

    assert (200, {"access-control-allow-origin": ["*"]}, 1) == (answer.status, answer.shared, plan.calls)


@forms
def test_rules_that_are_swapped_while_the_application_answers(form):
    """The answer is that of the rules that decided."""
    engine = Engine(Ruleset.from_text(RULES))

    class Swapping(Plan):
        @property
        def raises(self):
            engine.swap(Ruleset.from_text("rules: []"))

        @raises.setter
        def raises(self, value):
            pass

    assert OWN == ask(form, Swapping(headers=WRITTEN["one"]), headers=FROM_PAGE, engine=engine).shared
    assert {"access-control-allow-origin": ["*"]} == ask(form, Swapping(headers=WRITTEN["one"]), engine=engine).shared


# ---- errors of the application


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


# ---- WebSockets

SOCKETS = {  # Origin -> whether it is let in, by path
    "own page": ("https://api.example", {"/own": True, "/plain": True, "/public": True, "/shut": True}),
    "granted page": (PAGE, {"/own": True, "/plain": False, "/public": False, "/shut": False}),
    "foreign page": (FOREIGN, {"/own": False, "/plain": False, "/public": False, "/elsewhere": True}),
    "no page": (None, {"/own": True, "/plain": True, "/public": True, "/shut": True}),
    "another port": ("https://api.example:8443", {"/own": False}),
    "null": ("null", {"/own": False, "/public": False}),
    "junk": ("https://api.example/", {"/own": False}),
}
ROWS = [(name, origin, path, allowed) for name, (origin, paths) in SOCKETS.items() for path, allowed in paths.items()]
HANDSHAKE = {
    "upgrade": "WebSocket", "connection": "Upgrade", "sec-websocket-version": "13",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
}  # fmt: skip


def socket_messages(path, origin, host="api.example", extensions=None, more=(), rules=RULES, **options):
    """What the server is told, and whether the application was asked."""
    sent, called = [], []
    headers = [(b"host", host.encode()), *([] if origin is None else [(b"origin", origin.encode())])]

    async def app(scope, receive, send):
        called.append(scope)
        await receive()
        await send({"type": "websocket.accept"})

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "websocket", "path": path, "headers": headers, "scheme": "wss", "client": ("203.0.113.9", 1),
        "extensions": extensions or {},
    }  # fmt: skip
    scope |= dict(more)
    asyncio.run(asgi.Gobanfast(app, Engine(Ruleset.from_text(rules)), **options)(scope, receive, send))
    return sent, bool(called)


@pytest.mark.parametrize(("name", "origin", "path", "allowed"), ROWS)
def test_websocket_of_a_page(name, origin, path, allowed):
    """A handshake carries cookies: only the own page, a grant with credentials, or no page opens a socket."""
    sent, called = socket_messages(path, origin)

    assert (allowed, ["websocket.accept" if allowed else "websocket.close"]) == (called, [it["type"] for it in sent])


def test_websocket_refusal_has_the_whole_answer():
    """Where the server can send one: 403 for a page, 421 for a host; our lines, not a grant."""
    extensions = {"websocket.http.response": {}}
    foreign, _ = socket_messages("/own", FOREIGN, extensions=extensions)
    rebound, called = socket_messages("/hosts", None, "rebound.example", extensions)

    assert ([403, 421], False) == ([sent[0]["status"] for sent in (foreign, rebound)], called)
    for sent in (foreign, rebound):
        assert ["websocket.http.response.start", "websocket.http.response.body"] == [it["type"] for it in sent]
        assert b"x-request-id" in dict(sent[0]["headers"])
        assert not [name for name, _ in sent[0]["headers"] if name.startswith(b"access-control-")]
    closed, _ = socket_messages("/hosts", None, "rebound.example")
    assert ["websocket.close"] == [it["type"] for it in closed]


@pytest.mark.parametrize("form", ["wsgi", "django-wsgi", "aiohttp"])
@pytest.mark.parametrize(("name", "origin", "path", "allowed"), ROWS)
def test_websocket_that_a_server_shows_as_a_request(form, name, origin, path, allowed):
    """The same where a handshake is a GET with Upgrade."""
    plan = Plan()
    if origin is not None and origin.startswith("https://api.example") and form == "aiohttp":
        origin = origin.replace("https:", "http:")  # the test's server has no TLS
    headers = HANDSHAKE | ({} if origin is None else {"origin": origin})

    answer = ask(form, plan, path, headers=headers)

    assert (200 if allowed else 403, int(allowed)) == (answer.status, plan.calls)


def test_own_pages_are_no_news() -> None:
    """A service's own page sends an Origin with what it writes: it needs no grant, and nobody is told of it."""

    from gobanfast._core.decision import is_plain

    rules = '{version: 1, share: [{id: apps, when: {origin: "https://app.example"}, action: grant}]}'
    engine = Engine(Ruleset.from_text(rules))

    def decide(origin: bytes):
        return engine.decide("192.0.2.1", headers=[(b"host", b"api.example"), (b"origin", origin)], method="POST")

    own, foreign = decide(b"https://api.example"), decide(b"https://evil.example")
    assert ("withheld", True, True) == (own.share, own.own_page, is_plain(own))
    assert ("withheld", False, False) == (foreign.share, foreign.own_page, is_plain(foreign))


@pytest.mark.parametrize(
    ("host", "origin", "own"),
    [
        ("api.example", "http://api.example", True),  # a proxy ends the TLS
        ("API.example", "https://api.example", True),
        ("api.example:8080", "http://api.example:8080", True),
        ("api.example:8080", "http://api.example", False),
        ("[::1]:8080", "http://[::1]:8080", True),
        ("api.example.", "https://api.example", False),
        ("", "https://api.example", False),
        ("api.example,api.example", "https://api.example", False),
    ],
)
def test_websocket_of_the_own_page_has_its_host_and_port(host, origin, own):
    """Those of the request, whatever the scheme."""
    assert own == socket_messages("/plain", origin, host)[1]


def test_websocket_behind_a_trusted_proxy_and_a_mount():
    """The host is the one that the client asked the proxy for; the path is the whole one."""
    rules = RULES + "trust: {prefix: [203.0.113.0/24], chain: optional, host: x-forwarded-host}\n"
    seen = {}
    for origin in ("https://api.example", FOREIGN, "https://backend.example"):
        scope = {"headers": [(b"host", b"backend.example"), (b"x-forwarded-host", b"api.example"),
                             (b"origin", origin.encode())]}  # fmt: skip
        options = {"more": scope.items(), "rules": rules}
        seen[origin] = socket_messages("/own", origin, **options)[1]
    mounted = socket_messages("/mnt/own", FOREIGN, more={"root_path": "/mnt"}.items())[1]

    assert ({"https://api.example": True, FOREIGN: False, "https://backend.example": False}, False) == (seen, mounted)


@pytest.mark.parametrize("mode", ["observe", "off"])
def test_websocket_where_nothing_is_enforced(mode):
    """A foreign page gets in."""
    assert socket_messages("/own", FOREIGN, routes={"/": mode})[1]


def test_websocket_of_aiohttp_is_opened():
    """Its handshake keeps the lines that make it one, beside ours."""
    import aiohttp
    from aiohttp import web

    from gobanfast.frontends.aiohttp import setup

    async def handler(request):
        answered = web.WebSocketResponse()
        answered.headers["Access-Control-Allow-Origin"] = "*"
        await answered.prepare(request)
        await answered.send_str("hello")
        await answered.close()
        return answered

    async def run():
        app = web.Application()
        app.router.add_get("/own", handler)
        setup(app, Engine(Ruleset.from_text(RULES)))
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"ws://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/own"
        found = []
        try:
            async with aiohttp.ClientSession() as session:
                for origin in (PAGE, FOREIGN):
                    try:
                        async with session.ws_connect(url, origin=origin) as opened:
                            lines = opened._response.headers.getall("Access-Control-Allow-Origin")
                            found.append((lines, await opened.receive_str()))
                    except aiohttp.WSServerHandshakeError as error:
                        found.append(error.status)
            return found
        finally:
            await runner.cleanup()

    assert [([PAGE], "hello"), 403] == asyncio.run(run())
