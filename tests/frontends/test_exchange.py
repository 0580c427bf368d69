"""One exchange: the headers are walked once whatever happens, and an adapter for another server needs nothing else."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from contextlib import contextmanager

import pytest

from gobanfast import Engine, Ruleset
from gobanfast.enrich.crawlers import CrawlerCheck
from gobanfast.frontends import asgi, wsgi
from gobanfast.frontends.authz import DecisionService
from gobanfast.frontends.challenge import Challenge
from gobanfast.frontends.http import Exchange, HttpGuard, HttpResponse
from gobanfast.frontends.tls import CURRENT, Handshake
from gobanfast.frontends.trust import Trust
from gobanfast.telemetry.log import DecisionLog
from http_fakes import FakeEngine
from test_challenge import solve
from test_frontend_asgi import Application
from test_frontend_asgi import ask as ask_asgi
from test_frontend_wsgi import Application as WsgiApplication
from test_frontend_wsgi import ask as ask_wsgi

PROXY, GOOD, BANNED, CHALLENGED = "10.0.0.1", "203.0.113.9", "203.0.113.66", "203.0.113.77"
ADDRESSES = """
rules:
- {id: bad, when: {prefix: 203.0.113.66/32}, action: ban}
- {id: odd, when: {prefix: 203.0.113.77/32}, action: challenge}
"""
HEADERS = ADDRESSES + "- {id: tool, when: {header: {user-agent: {contains: xtool}}, path: /x/**}, action: ban}\n"
SCORED = "trackers: {request_rate: {limit: 1000}}\nscore: {}\n" + HEADERS
BROWSER = {
    "host": "a.example", "user-agent": "Mozilla/5.0 (compatible; Googlebot/2.1)", "accept": "text/html",
    "accept-encoding": "gzip", "accept-language": "en", "cookie": "a=b",
}  # fmt: skip


class Pairs(list):
    """Header pairs that count how often they are walked."""

    walks = 0

    def __iter__(self):
        self.walks += 1
        return super().__iter__()


class Environ(dict):
    """The same of an environ: looking a key up is no walk."""

    walks = 0

    def __iter__(self):
        self.walks += 1
        return super().__iter__()

    def keys(self):
        self.walks += 1
        return super().keys()

    def values(self):
        self.walks += 1
        return super().values()

    def items(self):
        self.walks += 1
        return super().items()


class Lines:
    """A sink that keeps lines."""

    def __init__(self):
        self.lines = []

    def write(self, lines):
        self.lines += lines

    def close(self):
        """Nothing is open."""


def forwarded(client):
    return {"x-forwarded-for": client, "x-forwarded-proto": "https", "x-request-id": "r-1"}


PATHS = {
    "let in": (GOOD, {}),
    "banned": (BANNED, {}),
    "challenged": (CHALLENGED, {}),
    "challenged, watched": (CHALLENGED, {"routes": {"/": "observe"}}),
    "challenged, by program": (CHALLENGED, {}),
    "let in behind a proxy": (PROXY, {"via": GOOD}),
    "banned behind a proxy": (PROXY, {"via": BANNED}),
    "challenged behind a proxy": (PROXY, {"via": CHALLENGED}),
    "an observer fails": (GOOD, {"on_decision": lambda *_: 1 // 0}),
    "a crawler is checked": (GOOD, {"crawlers": True}),
}


@contextmanager
def asked(rules, peer, options, what):
    """(headers of a request, options of a frontend, lines of the log)."""
    options, headers, lines = dict(options), dict(BROWSER), Lines()
    if "via" in options:
        headers |= forwarded(options.pop("via"))
    if "program" in what:
        headers["accept"] = "application/json"
    engine = Engine(Ruleset.from_text(rules))
    checked = []
    if options.pop("crawlers", False):
        options["on_decision"] = CrawlerCheck(engine, duration="1h", reverse=checked.append)
    log = DecisionLog(lines, sample_allow=1)
    options |= {"log": log, "trust": Trust(["10.0.0.0/8"], required=False)}
    options["challenge"] = Challenge(["k" * 16], difficulty=4, bind="client_fingerprint")
    yield engine, headers, options, lines
    assert log.flush(10)
    log.close()


@pytest.mark.parametrize("what", PATHS)
@pytest.mark.parametrize("rules", [ADDRESSES, HEADERS, SCORED], ids=["addresses", "headers", "scored"])
def test_asgi_walks_the_headers_once(rules, what):
    """Deciding, logging, a page, a challenge, the client behind a proxy, the request id: one walk over the pairs."""
    peer, options = PATHS[what]
    with asked(rules, peer, options, what) as (engine, headers, options, lines):
        app = asgi.Gobanfast(Application(), engine, **options)
        pairs = Pairs((name.encode(), value.encode()) for name, value in headers.items())
        asyncio.run(app(scope_of(peer, pairs), None, ignore))

    assert 1 == pairs.walks
    [line] = map(json.loads, lines.lines)
    assert line["fingerprint"].startswith("gh2:")
    assert line["shape"].startswith("gs1:")
    assert sorted(headers) == sorted(name for name, _ in line["signals"]["headers"])


@pytest.mark.parametrize("what", PATHS)
@pytest.mark.parametrize("rules", [ADDRESSES, HEADERS, SCORED], ids=["addresses", "headers", "scored"])
def test_wsgi_walks_the_environ_once(rules, what):
    """The same of an environ."""
    peer, options = PATHS[what]
    with asked(rules, peer, options, what) as (engine, headers, options, lines):
        app = wsgi.Gobanfast(WsgiApplication(), engine, **options)
        environ = Environ({f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()})
        environ.update({"REQUEST_METHOD": "GET", "PATH_INFO": "/", "SERVER_PROTOCOL": "HTTP/1.1", "REMOTE_ADDR": peer})
        environ["wsgi.url_scheme"] = "http"
        list(app(environ, lambda *_: None))

    assert 1 == environ.walks
    [line] = map(json.loads, lines.lines)
    assert line["fingerprint"].startswith("gh2:")
    assert sorted(headers) == sorted(name for name, _ in line["signals"]["headers"])


@pytest.mark.parametrize("client", [GOOD, BANNED, CHALLENGED])
def test_the_decision_service_walks_the_headers_once(client):
    """What belongs to the proxy's hop is told apart in the same walk."""
    with asked(SCORED, PROXY, {}, "") as (engine, headers, options, lines):
        app = DecisionService(engine, **options)
        hop = forwarded(client) | {"x-original-uri": "/y", "x-original-method": "POST", "connection": "close"}
        pairs = Pairs((name.encode(), value.encode()) for name, value in (headers | hop).items())
        asyncio.run(app(scope_of(PROXY, pairs) | {"path": "/check", "raw_path": b"/check"}, None, ignore))

    assert 1 == pairs.walks
    [line] = map(json.loads, lines.lines)
    assert (client, "POST", "/y") == tuple(line["signals"][name] for name in ("address", "method", "path"))
    assert sorted(BROWSER) == sorted(name for name, _ in line["signals"]["headers"])


def test_a_foreign_host_and_a_websocket_are_answered_by_the_same_walk():
    """421 reads Host and Accept, a WebSocket that is refused its cookies: of that walk, too."""
    token = CURRENT.set(Handshake(GOOD, "a.example", None, None, False))
    try:
        for kind, address, names in (("http", GOOD, ["a.example"]), ("websocket", CHALLENGED, None)):
            app = asgi.Gobanfast(Application(), Engine(Ruleset.from_text(HEADERS)), names=names)
            pairs = Pairs([(b"host", b"other.test"), (b"accept", b"text/html")])
            scope = scope_of(address, pairs) | {"type": kind, "scheme": "https"}
            asyncio.run(app(scope, ready, ignore))
            assert 1 == pairs.walks
    finally:
        CURRENT.reset(token)


async def ready():
    return {"type": "websocket.connect"}


async def ignore(message):
    pass


def scope_of(peer, headers):
    return {
        "type": "http", "path": "/", "raw_path": b"/", "headers": headers, "scheme": "http", "method": "GET",
        "http_version": "1.1", "client": (peer, 4711),
    }  # fmt: skip


@pytest.mark.parametrize(
    "headers",
    [
        [(b"bad\x00name", b"x")], [(b"x", b"\x00")], [(b"x" * 70_000, b"y")], [(b"x", b"y")] * 300,
        [(b"host", b"a"), (b"host", b"b")],
    ],
    ids=["name", "value", "long", "many", "hosts"],
)  # fmt: skip
def test_what_cannot_be_read_hides_nothing_behind_it(headers):
    """A header that makes the rest unreadable to rules leaves the client, the request id, and the form of the page."""
    headers = [*headers, (b"x-forwarded-for", GOOD.encode()), (b"x-request-id", b"r-1"), (b"Accept", b"text/html")]
    engine = Engine(Ruleset.from_text("unparsable: ban\n" + HEADERS))
    exchange = Exchange(
        HttpGuard(engine, trust=["10.0.0.0/8"]), headers, peer=PROXY, method="GET", path="/x/y", http="1.1"
    )

    response = exchange.begin()

    assert ("malformed-headers", GOOD, "r-1") == (
        exchange.decision.reason, exchange.decision.address, exchange.request_id
    )  # fmt: skip
    assert (403, "text/html") == (response.status, exchange.accept)
    assert b"text/html; charset=utf-8" == dict(response.headers)[b"content-type"]


def test_repeated_headers_are_joined_in_order():
    """HTTP/2 splits cookies; a chain in two fields is one; a great many cost no more than their bytes."""
    cookies = [(b"cookie", b"c%d=1" % i) for i in range(5000)]
    headers = [(b"x-forwarded-for", b"198.51.100.1"), *cookies, (b"x-forwarded-for", GOOD.encode())]
    headers += [(b"accept", b"text/html"), (b"accept", b"*/*"), (b"host", b"a"), (b"host", b"b")]
    exchange = Exchange(HttpGuard(FakeEngine(), trust=["10.0.0.0/8"]), headers, peer=PROXY, method="GET", path="/")

    exchange.begin()

    assert (GOOD, "text/html,*/*", "a,b") == (exchange.client.address, exchange.accept, exchange.host)
    assert "; ".join(f"c{i}=1" for i in range(5000)) == exchange.cookies


def test_an_adapter_for_another_server():
    """Begin, response headers, finish: all that a server needs, from an iterator of pairs."""
    engine = Engine(Ruleset.from_text(HEADERS))
    seen = []

    class Observer:
        def __call__(self, decision, request_id):
            raise AssertionError("the exchange was there")

        def on_exchange(self, exchange):
            seen.append((exchange.decision.action, exchange.request_id, exchange.status))

        def finish(self, exchange):
            seen.append((exchange.decision.action, exchange.request_id, exchange.status))

    guard = HttpGuard(engine, on_decision=Observer())
    let_in = Exchange(guard, iter([(b"host", b"a")]), peer=GOOD, method="GET", path="/")
    refused = Exchange(guard, [(b"host", b"a")], peer=BANNED, method="GET", path="/")
    given = [(b"content-type", b"text/plain")]

    assert None is let_in.begin()
    assert [*given, (b"x-request-id", let_in.request_id.encode())] == let_in.response_headers(given)
    assert [("A", "b"), ("X-Request-ID", let_in.request_id)] == let_in.response_headers([("A", "b")], text=True)
    assert [(b"x-request-id", b"mine")] == let_in.response_headers([(b"x-request-id", b"mine")])
    response = refused.begin()
    assert isinstance(response, HttpResponse)
    assert (403, refused.request_id.encode()) == (response.status, dict(response.headers)[b"x-request-id"])
    let_in.finish(200)
    let_in.finish(500)
    refused.finish()
    with pytest.raises(RuntimeError, match="begins once"):
        refused.begin()

    assert [
        ("allow", let_in.request_id, 0), ("ban", refused.request_id, 0), ("allow", let_in.request_id, 200),
        ("ban", refused.request_id, 403),
    ] == seen  # fmt: skip


class Held:
    """What an environ holds that must not outlive its request."""


@pytest.mark.parametrize("stores_start", [False, True])
@pytest.mark.parametrize("options", [{}, {"on_decision": lambda decision, request_id: None}])
def test_an_environ_does_not_outlive_its_request(stores_start, options):
    """It holds the decision, which holds it, and `start_response`, too, where a framework puts that there (Pylons)."""
    held = []

    def app(environ, start_response):
        environ["held"] = Held()
        held.append(weakref.ref(environ["held"]))
        if stores_start:
            environ["start"] = start_response
        start_response("200 OK", [])
        return [b""]

    middleware = wsgi.Gobanfast(app, Engine(Ruleset.from_text(HEADERS)), **options)

    assert "200 OK" == ask_wsgi(middleware, HTTP_USER_AGENT="xtool/1")[0]
    gc.collect()

    assert None is held[0]()


@pytest.mark.parametrize(
    ("headers", "more"),
    [
        (None, {}), (5, {}), ([], {"http": 1.1}), ({"REQUEST_METHOD": "GET", "HTTP_ACCEPT": 5}, {"path": None}),
        (map(len, [5] * 50), {}),
        ([], {"peer": b"127.0.0.1"}), ([(b"a", b"b", b"c")], {}), ([], {"method": b"GET"}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("peer", [PROXY, GOOD])
def test_what_is_no_request_is_answered_by_on_error(peer, headers, more):
    """`begin` raises nothing, and the exchange can be asked for its texts."""
    engine = Engine(Ruleset.from_text(HEADERS))
    asked = {"peer": peer, "method": "GET", "path": "/x/y"} | more
    told = []
    for on_error in ("refuse", "allow"):
        exchange = Exchange(HttpGuard(engine, trust=[PROXY], on_error=on_error), headers, **asked)
        response = exchange.begin()
        assert exchange.failed
        assert isinstance(exchange.accept + exchange.host, str)
        told.append(response and response.status)

    assert [503, None] == told


def test_a_peer_that_is_a_kind_of_str_is_an_address():
    """Rules hold for it; it is no UNIX socket."""

    class Text(str):
        __slots__ = ()

    guard = HttpGuard(Engine(Ruleset.from_text(HEADERS)), trust=["unix"])
    exchange = Exchange(guard, [(b"x-forwarded-for", GOOD.encode())], peer=Text(BANNED), method="GET", path="/")

    assert 403 == exchange.begin().status


def test_repeated_values_may_be_a_kind_of_bytes():
    """They are joined like others."""

    class Text(bytes):
        __slots__ = ()

    exchange = Exchange(
        HttpGuard(Engine(Ruleset.from_text(HEADERS))),
        [(b"accept", Text(b"a")), (b"accept", b"b"), (b"cookie", b"c=1"), (b"cookie", Text(b"d=2"))],
        peer=GOOD, method="GET", path="/",
    )  # fmt: skip

    assert None is exchange.begin()
    assert ("a,b", "c=1; d=2") == (exchange.accept, exchange.cookies)


@pytest.mark.parametrize("engine", [Engine(Ruleset.from_text("{version: 1, rules: []}")), FakeEngine()])
@pytest.mark.parametrize("peer", [PROXY, GOOD])
def test_an_iterator_of_pairs_is_read_once_for_all(engine, peer):
    """What decides and what comes after it find the same pairs, whichever reads them first."""
    pairs = [(b"host", b"a"), (b"accept", b"text/html")]
    exchange = Exchange(HttpGuard(engine, trust=[PROXY]), iter(pairs), peer=peer, method="GET", path="/")

    assert None is exchange.begin()
    assert tuple(pairs) == exchange.decision.headers
    assert ("a", "text/html") == (exchange.host, exchange.accept)


def test_a_list_that_shrinks_under_its_own_pairs_is_what_it_was():
    """A pair may be an object of the application, whose code runs when its name is asked for."""

    class Pair:
        def __getitem__(self, at):
            headers.clear()
            return b"x"

    pairs = [(b"a", b"b"), Pair(), *[(b"a", bytes(100)) for _ in range(2000)]]
    headers = list(pairs)
    exchange = Exchange(HttpGuard(FakeEngine()), [], peer=GOOD, method="GET", path="/")
    exchange.begin()

    assert [*pairs, (b"x-request-id", exchange.request_id.encode())] == exchange.response_headers(headers)


def test_misuse_of_an_exchange_is_told():
    """A mode that is none would refuse nobody; before `begin` there is no id to put on a response."""
    guard = HttpGuard(Engine(Ruleset.from_text(HEADERS)))

    with pytest.raises(ValueError, match="mode='junk' is not one of enforce, observe, off"):
        Exchange(guard, [], peer=GOOD, method="GET", path="/", mode="junk")
    exchange = Exchange(guard, [], peer=GOOD, method="GET", path="/")
    for text in (False, True):
        with pytest.raises(RuntimeError, match="has not begun"):
            exchange.response_headers([], text=text)


def test_a_finish_that_raises_is_logged(caplog):
    """The response is over: it reaches neither the server nor the other observers."""
    ends = []

    class Broken(Ends):
        def finish(self, exchange):
            ends.append(exchange.status)
            raise OSError("no end")

    guard = HttpGuard(Engine(Ruleset.from_text(HEADERS)), on_decision=Broken())
    exchange = Exchange(guard, [], peer=GOOD, method="GET", path="/")
    exchange.begin()
    exchange.finish(200)

    assert [200] == ends
    assert "noting its end failed" in caplog.text


class Ends:
    """Notes the status of each exchange at its end."""

    def __init__(self):
        self.seen = []

    def __call__(self, decision, request_id):
        """Nothing of decisions."""

    def finish(self, exchange):
        self.seen.append(exchange.status)


def test_asgi_says_when_a_response_is_over():
    """Once a request: at the last part of the body, for a refusal, a WebSocket, and an application that fails."""

    async def failing(scope, receive, send):
        raise OSError("the application is broken")

    ends = Ends()
    app = asgi.Gobanfast(Application(), FakeEngine(), on_decision=ends, routes={"/off": "off"})
    ask_asgi(app)
    ask_asgi(app, BANNED)
    ask_asgi(app, kind="websocket")
    ask_asgi(app, path="/off")
    with pytest.raises(OSError, match="is broken"):
        ask_asgi(asgi.Gobanfast(failing, FakeEngine(), on_decision=ends))

    assert [200, 403, 101, 500] == ends.seen


def test_wsgi_says_when_a_response_is_over():
    """When the server closes the body, for a refusal, and where the application fails; its own `close` is called."""

    def failing(environ, start_response):
        raise OSError("the application is broken")

    class Body(list):
        closed = False

        def close(self):
            self.closed = True

    def application(environ, start_response):
        start_response("204 No Content", [])
        return body

    ends, body = Ends(), Body([b"one"])
    app = wsgi.Gobanfast(application, FakeEngine(), on_decision=ends)
    environ = {"REMOTE_ADDR": GOOD, "REQUEST_METHOD": "GET", "PATH_INFO": "/", "wsgi.url_scheme": "http"}
    answered = app(environ, lambda *_: None)
    before = list(ends.seen)
    assert [b"one"] == list(answered)
    answered.close()
    ask_wsgi(app, BANNED)
    with pytest.raises(OSError, match="is broken"):
        ask_wsgi(wsgi.Gobanfast(failing, FakeEngine(), on_decision=ends))

    assert ([], True, [204, 403, 500]) == (before, body.closed, ends.seen)


def test_the_client_has_two_names_in_a_scope():
    """`gobanfast.client` is what `gobanfast.origin` was; both are there."""
    app = Application()
    middleware = asgi.Gobanfast(app, FakeEngine(), trust=["10.0.0.0/8"])
    ask_asgi(middleware, PROXY, headers=[(b"x-forwarded-for", GOOD.encode())])

    assert GOOD == app.seen[0]["gobanfast.client"].address
    assert app.seen[0]["gobanfast.client"] is app.seen[0]["gobanfast.origin"]


def test_a_solution_and_its_pass_are_bound_to_the_walked_fingerprint():
    """Where the challenge is bound to the fingerprint, it is that of the walk, and that of `Engine.decide`."""
    guard = HttpGuard(
        Engine(Ruleset.from_text(ADDRESSES)), challenge=Challenge(["k" * 16], difficulty=4, bind="client_fingerprint")
    )
    browser = [(name.encode(), value.encode()) for name, value in BROWSER.items() if name != "cookie"]

    def begin(headers):
        exchange = Exchange(guard, headers, peer=CHALLENGED, method="GET", path="/", http="1.1")
        return exchange, exchange.begin()

    exchange, page = begin(browser)
    work = solve(page).encode()
    solved, let_in = begin([*browser, (b"cookie", work)])
    _, other = begin([(b"user-agent", b"other"), (b"accept", b"text/html"), (b"cookie", work)])

    assert guard.engine.decide(CHALLENGED, headers=browser).fingerprint == exchange.decision.fingerprint
    assert (None, 403) == (let_in, other.status)
    assert [b"set-cookie"] * 2 == [name for name, _ in solved.response_headers([])][1:]
