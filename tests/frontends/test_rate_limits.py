"""Limits over HTTP: 429 and what it says, answers that count, who may read it, and what a solved challenge is worth."""

from __future__ import annotations

import asyncio
import hashlib
import re
from itertools import count

import pytest

from gobanfast import Engine, Ruleset
from gobanfast.frontends.asgi import Gobanfast
from gobanfast.frontends.challenge import WORK, Challenge
from gobanfast.frontends.http import Exchange, HttpGuard
from gobanfast.frontends.wsgi import Gobanfast as WsgiGobanfast

LIMITS = """
limits:
- {id: login, when: {path: /login, method: POST}, limit: 5, window: 15m, on_status: [401, 403], clear_on: 2xx}
- {id: api, when: {path: {prefix: /api/}}, limit: 2, window: 1m, key: "header:x-api-key"}
- {id: users, when: {path: /none}, limit: 2, window: 1m, key: given}
share:
- {id: pages, when: {path: {prefix: /api/}, origin: "https://app.example"}, action: grant, credentials: true}
"""


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def asgi_client(engine, answer, **options):
    """A function that asks an ASGI application which answers with the status `answer` says."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": answer(scope), "headers": []})
        await send({"type": "http.response.body", "body": b""})

    guarded = Gobanfast(app, engine, **options)

    def ask(path, method="GET", headers=(), client="203.0.113.7"):
        sent = []
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
            "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": list(headers),
            "client": (client, 1), "server": ("t", 80),
        }  # fmt: skip

        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message):
            sent.append(message)

        asyncio.run(guarded(scope, receive, send))
        return sent[0]["status"], dict(sent[0]["headers"])

    return ask


def wsgi_client(engine, answer, **options):
    def app(environ, start_response):
        start_response(f"{answer(environ)} Status", [])
        return []

    guarded = WsgiGobanfast(app, engine, **options)

    def ask(path, method="GET", headers=(), client="203.0.113.7"):
        said = []
        environ = {
            "REQUEST_METHOD": method, "PATH_INFO": path, "SCRIPT_NAME": "", "QUERY_STRING": "", "SERVER_NAME": "t",
            "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.url_scheme": "http", "REMOTE_ADDR": client,
            **{"HTTP_" + name.decode().upper().replace("-", "_"): value.decode() for name, value in headers},
        }  # fmt: skip
        body = guarded(environ, lambda status, pairs, exc_info=None: said.append((status, pairs)))
        list(body)
        getattr(body, "close", lambda: None)()
        return int(said[0][0][:3]), {name.lower().encode(): value.encode() for name, value in said[0][1]}

    return ask


@pytest.fixture(params=[asgi_client, wsgi_client], ids=["asgi", "wsgi"])
def client(request):
    return request.param


@pytest.fixture
def clock():
    return Clock()


def test_five_failed_logins_lock_the_sixth_and_a_success_clears(client, clock):
    status = iter([401] * 4 + [200] + [401] * 5 + [200])
    ask = client(Engine(Ruleset.from_text(LIMITS), clock=clock), lambda scope: next(status))

    assert [401] * 4 + [200] + [401] * 5 + [429] == [ask("/login", "POST")[0] for _ in range(11)]
    assert ask("/login", "POST", client="203.0.113.8")[0] == 200, "another client has failed nowhere"
    clock.now += 15 * 60
    status = iter([200])
    assert ask("/login", "POST")[0] == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/login/", 307),
        ("//login", 301),
        ("/login/", 200),
        ("/x/..%2flogin", 200),
        ("/login;x", 204),
        ("/./login", 200),
    ],
)
def test_another_spelling_of_the_path_clears_nothing(clock, path, status):
    """A server may answer it without looking at a password: with another page, or by a redirect to the plain path."""
    text = LIMITS.replace("clear_on: 2xx", "clear_on: [2xx, 3xx]")
    ask = asgi_client(
        Engine(Ruleset.from_text(text), clock=clock), lambda scope: 401 if scope["path"] == "/login" else status
    )
    assert [401] * 4 == [ask("/login", "POST")[0] for _ in range(4)]
    assert status == ask(path, "POST")[0]
    assert [401, 429] == [ask("/login", "POST")[0] for _ in range(2)]


def test_a_path_with_a_slash_at_its_end_is_cleared_by_its_own_spelling(clock):
    text = LIMITS.replace("path: /login,", "path: /login/,")
    status = iter([401] * 4 + [302] + [401] * 5)
    ask = asgi_client(Engine(Ruleset.from_text(text.replace("2xx", "3xx")), clock=clock), lambda scope: next(status))
    assert [401] * 4 + [302] + [401] * 5 + [429] == [ask("/login/", "POST")[0] for _ in range(11)]


def test_a_websocket_that_is_not_accepted_is_a_403(clock):
    """The server answers so (ASGI, "Close"), and log-ins over WebSockets fail so."""
    engine = Engine(Ruleset.from_text(LIMITS.replace(", method: POST", "")), clock=clock)
    asked = []

    async def app(scope, receive, send):
        asked.append(await receive())
        await send({"type": "websocket.close", "code": 1008})

    guarded = Gobanfast(app, engine)
    scope = {
        "type": "websocket", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "ws", "path": "/login",
        "raw_path": b"/login", "query_string": b"", "root_path": "", "headers": [], "client": ("203.0.113.7", 1),
        "server": ("t", 80), "subprotocols": [],
    }  # fmt: skip

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        assert message["type"] == "websocket.close"

    for _ in range(7):
        asyncio.run(guarded(dict(scope), receive, send))
    assert len(asked) == 5


def test_several_sessions_at_once_are_counted_by_client(clock):
    """Else who is logged in has a new allowance with each cookie that he sends beside his own."""
    text = """
session: {cookie: sid}
limits: [{id: each, when: any, limit: 2, window: 1m, key: session}]
"""
    engine = Engine(Ruleset.from_text(text), clock=clock)

    def ask(cookie, client="203.0.113.7"):
        return engine.decide(client, headers=[(b"cookie", cookie)], path="/", method="GET").action

    assert ["allow", "allow", "limit"] == [ask(b"sid=%d; sid=own" % i) for i in range(3)]
    assert ["allow", "allow", "limit"] == [ask(b"sid=own", f"203.0.113.{i}") for i in range(10, 13)]


def test_answers_of_other_statuses_count_nothing(client, clock):
    ask = client(Engine(Ruleset.from_text(LIMITS), clock=clock), lambda scope: 500)

    assert {500} == {ask("/login", "POST")[0] for _ in range(20)}


def test_what_a_429_says(client, clock):
    ask = client(Engine(Ruleset.from_text(LIMITS), clock=clock), lambda scope: 200, old_rate_limit_headers=True)
    key = [(b"x-api-key", b"k")]
    assert [200, 200] == [ask("/api/x", headers=key)[0] for _ in range(2)]
    clock.now += 15

    status, headers = ask("/api/x", headers=[*key, (b"accept", b"application/json")])

    assert 429 == status
    assert b'"api";q=2;w=60' == headers[b"ratelimit-policy"]
    assert b'"api";r=0;t=45' == headers[b"ratelimit"]
    assert 45 <= int(headers[b"retry-after"]) <= 50
    assert (b"2", b"0") == (headers[b"x-ratelimit-limit"], headers[b"x-ratelimit-remaining"])
    assert headers[b"content-type"].startswith(b"application/json")
    assert b"no-store" == headers[b"cache-control"]


def test_what_else_says_where_a_client_stands(client, clock):
    """By default only a 429; on request every response that a limit is about, and no other."""
    engine = Engine(Ruleset.from_text(LIMITS), clock=clock)
    key = [(b"x-api-key", b"k")]
    assert b"ratelimit" not in client(engine, lambda scope: 200)("/api/x", headers=key)[1]
    ask = client(engine, lambda scope: 200, rate_limit_headers="all")

    assert b'"api";r=0;t=60' == ask("/api/x", headers=key)[1][b"ratelimit"]
    assert b"ratelimit" not in ask("/other")[1]
    silent = client(engine, lambda scope: 200, rate_limit_headers="never")("/api/x", headers=key)
    assert (429, True, False) == (silent[0], b"retry-after" in silent[1], b"ratelimit" in silent[1])


def test_a_page_that_may_read_the_answer_may_read_the_limit(client, clock):
    ask = client(Engine(Ruleset.from_text(LIMITS), clock=clock), lambda scope: 200)
    headers = [(b"origin", b"https://app.example"), (b"x-api-key", b"k")]
    told = [ask("/api/x", headers=headers) for _ in range(3)]

    assert [200, 200, 429] == [status for status, _ in told]
    assert b"access-control-expose-headers" not in told[0][1]
    assert b"https://app.example" == told[2][1][b"access-control-allow-origin"]
    assert b"retry-after, ratelimit, ratelimit-policy" == told[2][1][b"access-control-expose-headers"]


def test_a_key_that_is_not_there_is_the_client(client, clock):
    ask = client(Engine(Ruleset.from_text(LIMITS), clock=clock), lambda scope: 200)

    assert [200, 200, 429] == [ask("/api/x")[0] for _ in range(3)]
    assert ask("/api/x", headers=[(b"x-api-key", b"k")])[0] == 200
    assert ask("/api/x", client="203.0.113.8")[0] == 200


def test_counts_that_the_application_makes(clock):
    """A user with the client together: only what failed counts, a success forgets, and the rules' names are checked."""
    engine = Engine(Ruleset.from_text(LIMITS), clock=clock)
    exchange = Exchange(HttpGuard(engine), [], peer="203.0.113.7", method="POST", path="/none")
    exchange.begin()
    key = "ada|203.0.113.7"

    assert exchange.count("users", key=key).admitted
    assert (True, 1) == exchange.count("users", key=key, ok=False)[:2]
    assert (False, 0, 60.0, 60.0) == exchange.count("users", key=key, ok=False)
    assert (False, 0, 60.0, 60.0) == exchange.count("users", key=key)
    assert exchange.count("users", key="ada|203.0.113.8").admitted
    assert (True, 2) == exchange.count("users", key=key, ok=True)[:2]
    with pytest.raises(ValueError, match="limit 'user' is not in the rules, which have login, api, users"):
        exchange.count("user", key=key)
    with pytest.raises(ValueError, match="limit 'login' counts by client; write key: given"):
        exchange.count("login", key=key)
    with pytest.raises(ValueError, match="which have none"):
        Engine(Ruleset.from_text("rules: []")).count("users", key=key)


def test_a_route_that_only_observes_counts_and_lets_in(client, clock):
    ask = client(Engine(Ruleset.from_text(LIMITS), clock=clock), lambda scope: 200, routes={"/api/": "observe"})

    assert {200} == {ask("/api/x")[0] for _ in range(5)}


def test_a_shadow_limit_is_told_and_lets_in():
    engine = Engine(Ruleset.from_text("limits: [{id: a, when: any, limit: 1, mode: shadow}]"))
    first, second = engine.decide("203.0.113.7"), engine.decide("203.0.113.7")

    assert ("allow", (), "allow", ("a",)) == (first.action, first.shadow, second.action, second.shadow)


def test_a_shadow_limit_is_logged(tmp_path):
    """An allow that an enforced limit would not have been is no plain one, of which no line is made."""
    from gobanfast.telemetry.log import DecisionLog

    log = DecisionLog(f"file:{tmp_path / 'log.jsonl'}", sample_allow=0)
    engine = Engine(Ruleset.from_text("limits: [{id: a, when: any, limit: 1, mode: shadow}]"))
    guard = HttpGuard(engine, log=log)
    for _ in range(2):
        Exchange(guard, [], peer="203.0.113.7", method="GET", path="/").begin()
    log.close()
    (line,) = (tmp_path / "log.jsonl").read_text().splitlines()

    assert '"a"' in line


def test_a_limit_beats_a_challenge_and_not_a_ban_or_an_allow():
    text = """
rules:
- {id: friend, when: {prefix: 203.0.113.1/32}, action: allow}
- {id: odd, when: {prefix: 203.0.113.2/32}, action: challenge}
- {id: bad, when: {prefix: 203.0.113.3/32}, action: ban}
limits: [{id: all, when: any, limit: 1}]
"""
    engine = Engine(Ruleset.from_text(text))
    told = {n: [engine.decide(f"203.0.113.{n}").action for _ in range(3)] for n in (1, 2, 3, 4)}

    assert {
        1: ["allow"] * 3, 2: ["challenge", "limit", "limit"], 3: ["ban"] * 3, 4: ["allow", "limit", "limit"],
    } == told  # fmt: skip


def test_who_is_over_one_limit_uses_up_no_other():
    text = "limits: [{id: few, when: {path: /a}, limit: 1}, {id: many, when: any, limit: 3}]"
    engine = Engine(Ruleset.from_text(text))
    told = [engine.decide("203.0.113.7", path="/a").action for _ in range(9)]

    assert ["allow"] + 8 * ["limit"] == told
    assert ["allow", "allow", "limit"] == [engine.decide("203.0.113.7", path="/b").action for _ in range(3)]


def test_a_limit_that_bans():
    engine = Engine(Ruleset.from_text("limits: [{id: scan, when: any, limit: 2, action: ban, for: 1h}]"))
    told = [engine.decide("203.0.113.7") for _ in range(4)]

    assert ["allow", "allow", "ban", "ban"] == [decision.action for decision in told]
    assert ("tracker", "scan", "203.0.113.7") == (told[2].cause, told[2].rule, told[2].ban)
    assert ("ban", "scan", "tracker") == (told[3].cause, told[3].rule, next(engine.bans()).by)


def test_a_peek_counts_nothing_and_a_swap_forgets_nothing():
    text = "limits: [{{id: a, when: any, limit: {}}}]"
    engine = Engine(Ruleset.from_text(text.format(2)))
    assert {"allow"} == {engine.peek("203.0.113.7").action for _ in range(5)}
    engine.decide("203.0.113.7")
    engine.swap(Ruleset.from_text("rules: []"))
    engine.swap(Ruleset.from_text(text.format(1)))

    assert "limit" == engine.peek("203.0.113.7").action == engine.decide("203.0.113.7").action


def solved(page):
    """The cookie that a browser makes of a challenge page."""
    task, signature, bits = re.search(rb'data-task="(.*?)" data-signature="(.*?)" data-bits="(\d+)"', page).groups()
    number = next(
        n for n in count()
        if int.from_bytes(hashlib.sha256(signature + b"%d" % n).digest()) >> (256 - int(bits)) == 0
    )  # fmt: skip
    return f"{WORK}={task.decode()}.{signature.decode()}.{number}".encode()


@pytest.mark.parametrize(
    "text",
    [
        "limits: [{id: t, when: any, limit: 3, action: challenge}]",
        "trackers: {request_rate: {limit: 3, window: 60s, action: challenge}}\nrules: []",
    ],
    ids=["limit", "tracker"],
)
def test_one_solution_is_worth_one_more_allowance(text, clock):
    """A tracker challenges again: neither the pass nor the same solution lets more through, a program gets a 429."""
    engine = Engine(Ruleset.from_text(text), clock=clock)
    guard = HttpGuard(engine, challenge=Challenge([b"k" * 16], difficulty=1))

    def ask(cookie=b"", accept=b"text/html"):
        headers = [(b"accept", accept), *([(b"cookie", cookie)] if cookie else [])]
        exchange = Exchange(guard, headers, peer="203.0.113.7", method="GET", path="/")
        response = exchange.begin()
        pairs = exchange.response_headers([]) if response is None else response.headers
        return response, b"; ".join(value.split(b";")[0] for name, value in pairs if name == b"set-cookie")

    assert [None] * 3 == [ask()[0] for _ in range(3)]
    page = ask()[0]
    assert 403 == page.status
    work = solved(page.body)
    response, cookies = ask(work)
    assert response is None
    assert [None] * 3 == [ask(cookies)[0] for _ in range(3)]
    assert 403 == ask(cookies)[0].status, "a pass lifts no limit"
    assert 403 == ask(work)[0].status, "a solution is spent"
    limited = ask(cookies, accept=b"application/json")[0]
    assert 429 == limited.status
    assert b"retry-after" in dict(limited.headers)


@pytest.mark.parametrize("name", ["request_rate", "distinct_fingerprints", "surge"])
def test_trackers_may_limit(name, clock):
    options = {"request_rate": "limit: 2, window: 10s", "distinct_fingerprints": "limit: 2, window: 1m",
               "surge": "over: 200, baseline: 60s, min_requests: 3"}[name]  # fmt: skip
    text = f"trackers: {{{name}: {{{options}, action: limit}}}}\nrules: []"
    guard = HttpGuard(Engine(Ruleset.from_text(text), clock=clock))
    responses = []
    for i in range(300):
        clock.now += 0.5 if i < 280 else 0
        headers = [(b"user-agent", b"a%d" % i)]
        exchange = Exchange(guard, headers, peer="203.0.113.7", method="GET", path="/")
        responses.append(exchange.begin())
    limited = [response for response in responses if response is not None]

    assert limited
    assert {429} == {response.status for response in limited}
    assert 1 <= int(dict(limited[0].headers)[b"retry-after"]) <= 66
