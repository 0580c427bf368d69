"""The ASGI middleware: who is let in, what refused clients are told, what the application finds."""

from __future__ import annotations

import asyncio
import json

import pytest

from gobanfast import Engine, Ruleset
from gobanfast.frontends.asgi import Gobanfast
from gobanfast.frontends.challenge import Challenge
from gobanfast.frontends.http.refusal import HttpResponse
from gobanfast.frontends.tls import CURRENT, Handshake
from gobanfast.frontends.trust import Trust
from http_fakes import FakeEngine, FakeSnapshot

BANNED, CHALLENGED, FAILING, GOOD = "203.0.113.66", "203.0.113.77", "203.0.113.99", "203.0.113.9"
BROWSER = (b"accept", b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")


class Application:
    """Notes the scopes it sees; answers in two pieces."""

    def __init__(self, headers=()):
        self.seen, self.headers = [], list(headers)

    async def __call__(self, scope, receive, send):
        self.seen.append(scope)
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            return
        if scope["type"] == "lifespan":
            await receive()
            return
        await send({"type": "http.response.start", "status": 200, "headers": self.headers})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await send({"type": "http.response.body", "body": b"two"})


def ask(middleware, client=GOOD, *, kind="http", path="/", headers=(), scheme="http", method="GET", **more):
    """Messages that one request gets."""
    sent = []
    scope = {"type": kind, "path": path, "headers": list(headers), "scheme": scheme, "http_version": "1.1", **more}
    scope["client"] = (client, 4711) if client is not None else None
    if kind == "http":
        scope["method"] = method

    waiting = [{"type": f"{kind}.connect" if kind == "websocket" else f"{kind}.request"}]

    async def receive():
        return waiting.pop() if waiting else await asyncio.Event().wait()  # the client stays

    async def send(message):
        sent.append(message)

    asyncio.run(middleware(scope, receive, send))
    return sent


def guarded(app=None, **options):
    app = app or Application()
    return app, Gobanfast(app, FakeEngine(), **options)


def header(sent, name):
    return [value for found, value in sent[0]["headers"] if found == name]


def test_allowed_request_reaches_the_application_unchanged():
    """The application sees the request with the decision and an id, and its messages arrive as it sent them."""
    app, middleware = guarded(Application([(b"content-type", b"text/plain")]))

    sent = ask(middleware, headers=[(b"host", b"a")])

    scope = app.seen[0]
    assert "allow" == scope["gobanfast"].action
    assert [(b"content-type", b"text/plain"), (b"x-request-id", scope["gobanfast.request_id"].encode())] == sent[0][
        "headers"
    ]
    assert [b"one", b"two"] == [message["body"] for message in sent[1:]]
    assert "gobanfast.origin" not in scope
    assert [(b"content-type", b"text/plain")] == app.headers


def test_engine_is_asked_with_all_that_is_known():
    """Address, headers as the server gave them, method, path and HTTP version go to the engine."""
    _, middleware = guarded()
    headers = [(b"host", b"a"), (b"user-agent", b"b")]

    ask(middleware, headers=headers, method="POST", path="/x")

    expected = {"address": GOOD, "sni": None, "headers": headers, "method": "POST", "path": "/x", "http": "1.1"}
    assert [expected] == middleware.guard.engine.asked


def test_scope_without_what_has_a_default():
    """Scheme, HTTP version and client are optional in ASGI: without them the request is decided all the same."""
    app, middleware = guarded()
    sent = []

    async def send(message):
        sent.append(message)

    asyncio.run(middleware({"type": "http", "path": "/", "headers": [], "method": "GET"}, None, send))

    assert 200 == sent[0]["status"]
    assert (None, None) == (app.seen[0]["gobanfast"].address, middleware.guard.engine.asked[0]["http"])


def test_banned_request_never_reaches_the_application():
    """A banned client gets 403 with request id, whom to ask and when to come again; the application never runs."""
    app, middleware = guarded(contact="admin@example.com")

    sent = ask(middleware, BANNED)

    assert [] == app.seen
    assert 403 == sent[0]["status"]
    assert [b"60"] == header(sent, b"retry-after")
    assert [b"no-store"] == header(sent, b"cache-control")
    document = json.loads(sent[1]["body"])
    assert header(sent, b"x-request-id") == [document.pop("request_id").encode()]
    assert {
        "type": "urn:gobanfast:banned",
        "title": "Access denied",
        "status": 403,
        "contact": "admin@example.com",
        "retry_after": 60,
    } == document


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        (b"*/*", b"application/problem+json"),
        (b"", b"application/problem+json"),
        (b"application/json", b"application/json"),
        (b"application/json, text/html;q=0.9", b"application/json"),
        (b"application/*", b"application/problem+json"),
        (BROWSER[1], b"text/html; charset=utf-8"),
        (b"text/*;q=0.5, application/json;q=0.4", b"text/html; charset=utf-8"),
        (b"text/html;q=0, */*;q=0.1", b"application/problem+json"),
        (b"text/html;q=nan", b"application/problem+json"),
        (b"\xff;;;=,/,", b"application/problem+json"),
        (b"text/html," * 100_000, b"text/html; charset=utf-8"),
    ],
)
def test_form_of_the_answer_follows_accept(accept, media_type):
    """People get a page, programs a problem document, whatever their Accept header looks like."""
    _, middleware = guarded()

    sent = ask(middleware, BANNED, headers=[(b"accept", accept)])

    assert [media_type] == header(sent, b"content-type")
    assert [b"%d" % len(sent[1]["body"])] == header(sent, b"content-length")


def test_page_escapes_what_it_shows():
    """No text of rules or settings becomes markup, and the page may load nothing."""
    _, middleware = guarded(show_reason=True, contact='"><script>alert(1)</script>')

    sent = ask(middleware, BANNED, headers=[BROWSER])

    assert b"<script" not in sent[1]["body"]
    assert b"&lt;probing&gt;" in sent[1]["body"]
    assert header(sent, b"content-security-policy")[0].startswith(b"default-src 'none'")


def test_reason_is_told_only_where_it_is_asked_for():
    """What decided and the rule's reason are for operators; show_reason=True tells them to whoever is refused."""
    for options, told in (({}, {}), ({"show_reason": True}, {"code": "ban", "reason": "<probing>"})):
        _, middleware = guarded(**options)
        document = json.loads(ask(middleware, BANNED)[1]["body"])
        page = ask(middleware, BANNED, headers=[BROWSER])[1]["body"]

        assert told == {name: document[name] for name in ("code", "reason") if name in document}
        assert bool(told) == (b"probing" in page)
        assert all(b"x-gobanfast" not in name for name, _ in ask(middleware, BANNED)[0]["headers"])


def test_a_challenge_without_a_check_is_a_refusal(caplog):
    """Where no Challenge is configured nothing promises a check, and the operator is told once, when it is made."""
    rules = Ruleset.from_text("""
trackers: {request_rate: {limit: 5}}
score: {}
rules: [{id: rented, when: {prefix: 203.0.113.0/24}, action: challenge}]
""")
    made = Gobanfast(Application(), Engine(rules))
    warnings = list(caplog.messages)
    sent = ask(made, CHALLENGED, headers=[BROWSER])
    with_check = ask(guarded(challenge=Challenge(["k" * 16]))[1], CHALLENGED)
    for challenge in ("allow", Challenge(["k" * 16])):
        Gobanfast(Application(), Engine(rules), challenge=challenge)

    assert b"<h1>Access denied</h1>" in sent[1]["body"]
    assert "This request needs a check" == json.loads(with_check[1]["body"])["title"]
    assert 1 == len(warnings)
    assert warnings == caplog.messages
    for words in ("they challenge: rule rented, tracker request_rate, the score", "challenge=Challenge([key])"):
        assert words in warnings[0]


def test_what_became_of_a_challenge_is_logged():
    """The log tells a browser that was given a task, one that solved it, one that came again, and a program that was
    refused; nothing of requests that are only watched, or left to the application."""
    from test_challenge import solve

    logged = []

    class Log:
        def observe(self, decision, *, request_id, outcome=None):
            logged.append((decision.action, outcome))

    _, middleware = guarded(challenge=Challenge(["k" * 16], difficulty=4), log=Log(), routes={"/watched": "observe"})
    page = ask(middleware, CHALLENGED, headers=[BROWSER])
    cookie = solve(HttpResponse(403, [], page[1]["body"]))
    solved = ask(middleware, CHALLENGED, headers=[BROWSER, (b"cookie", cookie.encode())])
    given = b"; ".join(value.partition(b";")[0] for value in header(solved, b"set-cookie"))
    ask(middleware, CHALLENGED, headers=[BROWSER, (b"cookie", given)])
    ask(middleware, CHALLENGED)
    ask(middleware, CHALLENGED, path="/watched")
    ask(middleware, BANNED)
    ask(middleware)
    ask(guarded(challenge="allow", log=Log())[1], CHALLENGED)
    ask(guarded(log=Log())[1], CHALLENGED, headers=[BROWSER])

    assert [
        ("challenge", "challenged"), ("challenge", "solved"), ("challenge", "passed"), ("challenge", "refused"),
        ("challenge", None), ("ban", None), ("allow", None), ("challenge", None), ("challenge", "refused"),
    ] == logged  # fmt: skip


def test_head_gets_no_body():
    """HEAD is refused with the headers of GET."""
    _, middleware = guarded()

    assert b"" == ask(middleware, BANNED, method="HEAD")[1]["body"]


@pytest.mark.parametrize(
    ("extensions", "expected"),
    [
        (None, ["websocket.close"]),
        ({"websocket.http.response": {}}, ["websocket.http.response.start", "websocket.http.response.body"]),
    ],
)
def test_websocket_is_refused_before_it_is_accepted(extensions, expected):
    """A banned client's WebSocket is closed before accept, or answered where the server knows how."""
    app, middleware = guarded()

    sent = ask(middleware, BANNED, kind="websocket", extensions=extensions)

    assert [] == app.seen
    assert expected == [message["type"] for message in sent]


def test_websocket_is_let_in_with_a_request_id():
    """An allowed WebSocket is the application's; its accept carries the request id."""
    app, middleware = guarded()

    sent = ask(middleware, kind="websocket")

    assert "websocket.accept" == sent[0]["type"]
    assert [app.seen[0]["gobanfast.request_id"].encode()] == header(sent, b"x-request-id")


def test_lifespan_passes():
    """Start and stop of the application are not the engine's business."""
    app, middleware = guarded()
    asyncio.run(middleware({"type": "lifespan"}, *[lambda *_: asyncio.sleep(0)] * 2))

    assert [{"type": "lifespan"}] == app.seen
    assert [] == middleware.guard.engine.asked


@pytest.mark.parametrize(("on_error", "status"), [("refuse", 503), ("allow", 200)])
def test_failing_engine_does_as_configured(on_error, status, caplog):
    """An exception in the engine is logged and answered by `on_error`."""
    _, middleware = guarded(on_error=on_error)

    assert status == ask(middleware, FAILING)[0]["status"]
    assert "the engine is broken" in caplog.text


def test_failing_observer_does_as_configured(caplog):
    """`on_decision` sees the decision and the request id; its exception is answered by `on_error`."""
    seen = []
    _, middleware = guarded(on_decision=lambda decision, request_id: seen.append((decision.action, request_id)))
    ask(middleware)
    _, failing = guarded(on_decision=lambda *_: 1 // 0)

    assert 503 == ask(failing)[0]["status"]
    assert [("allow", 29)] == [(action, len(request_id)) for action, request_id in seen]
    assert "ZeroDivisionError" in caplog.text


def test_log_and_metrics_are_told_of_decisions():
    """The log gets each decision with the request id that the client was told, and the metrics get it, too."""
    logged, counted = [], []

    class Log:
        def observe(self, decision, *, request_id):
            logged.append((decision.action, decision.path, request_id))

    class Counts:
        def observe(self, decision):
            counted.append(decision.action)

    _, middleware = guarded(log=Log(), metrics=Counts())
    refused = ask(middleware, BANNED, path="/x", headers=[(b"host", b"a")])
    ask(middleware)

    request_id = header(refused, b"x-request-id")[0].decode()
    assert ("ban", "/x", request_id) == logged[0]
    assert ["ban", "allow"] == counted == [action for action, *_ in logged]


ROUTES = {"/health": "off", "/static/": "observe", "/static/private/": "enforce"}


@pytest.mark.parametrize(
    ("path", "status", "asked"),
    [
        ("/", 403, 1),
        ("/health", 200, 0),
        ("/health/", 403, 1),
        ("/healthy", 403, 1),
        ("/static/a.css", 200, 1),
        ("/static/private/a", 403, 1),
        ("/static/../admin", 403, 1),
        ("/static//admin", 403, 1),
        ("/static/%2e%2e/admin", 403, 1),
        ("/static/a\\..\\..\\admin", 403, 1),
        ("/static/;/../admin", 403, 1),
    ],
)
def test_routes_are_exceptions_only_for_paths_that_are_plain(path, status, asked):
    """A path named in `routes` is left alone; one that could mean another path never is."""
    _, middleware = guarded(routes=ROUTES)

    assert status == ask(middleware, BANNED, path=path)[0]["status"]
    assert asked == len(middleware.guard.engine.asked)


def test_a_route_that_is_only_watched_refuses_nobody():
    """Where decisions are only noted, an engine that fails refuses nobody either."""
    _, middleware = guarded(routes=ROUTES)

    assert [200, 503] == [ask(middleware, FAILING, path=path)[0]["status"] for path in ("/static/a", "/")]


def test_trusted_peer_speaks_for_its_client():
    """Behind a trusted proxy the client's address decides, its request id is kept and echoed, and TLS is its own."""
    app, middleware = guarded(trust=Trust(["10.0.0.0/8"]))
    forwarded = [(b"x-forwarded-for", GOOD.encode()), (b"x-request-id", b"abc-1"), (b"x-forwarded-proto", b"https")]

    sent = ask(middleware, "10.0.0.1", headers=forwarded)
    banned = ask(middleware, "10.0.0.1", headers=[(b"x-forwarded-for", BANNED.encode())])

    assert GOOD == app.seen[0]["gobanfast"].address
    assert "https" == app.seen[0]["gobanfast.origin"].scheme
    assert [b"abc-1"] == header(sent, b"x-request-id")
    assert 403 == banned[0]["status"]


def test_trust_of_the_rules_is_followed():
    """Without an argument the rules' `trust:` says whom to believe, and after a swap the new rules' does."""
    _, middleware = guarded()
    engine = middleware.guard.engine
    forwarded = [(b"x-forwarded-for", BANNED.encode())]
    before = ask(middleware, "10.0.0.1", headers=forwarded)
    engine.snapshot = FakeSnapshot(Ruleset.from_text("{version: 1, trust: [10.0.0.0/8], rules: []}"))

    assert [200, 403] == [before[0]["status"], ask(middleware, "10.0.0.1", headers=forwarded)[0]["status"]]


OLD = "{version: 1, trust: [10.0.0.0/8], rules: [{id: bad, when: {prefix: 203.0.113.0/24}, action: ban}]}"
NEW = "{version: 1, trust: [192.0.2.0/24], rules: [{id: bad, when: {prefix: 203.0.113.0/24}, action: ban}]}"


class AskedWhileSwapping(Engine):
    """An engine that asks its frontend as soon as the new rules are in force, before `swap` returns."""

    __slots__ = ("between",)

    def _swap(self, compiled, settings, ruleset=None):
        snapshots = super()._swap(compiled, settings, ruleset)
        self.between()
        return snapshots


def frontends(engine):
    """name -> status that a request of a peer gets which says that it comes from the banned client."""
    from gobanfast.frontends.authz import DecisionService
    from gobanfast.frontends.wsgi import Gobanfast as Wsgi
    from test_authz import ask as ask_service
    from test_frontend_wsgi import ask as ask_wsgi

    def wsgi_app(environ, start_response):
        start_response("200 OK", [])
        return [b""]

    forwarded = [(b"x-forwarded-for", BANNED.encode())]
    asgi, wsgi, service = Gobanfast(Application(), engine), Wsgi(wsgi_app, engine), DecisionService(engine)
    return {
        "asgi": lambda peer: ask(asgi, peer, headers=forwarded)[0]["status"],
        "wsgi": lambda peer: int(str(ask_wsgi(wsgi, peer, HTTP_X_FORWARDED_FOR=BANNED)[0])[:3]),
        "service": lambda peer: ask_service(service, client=peer, headers={"x-forwarded-for": BANNED})[0],
    }


@pytest.mark.parametrize("name", ["asgi", "wsgi", "service"])
def test_no_stale_trust_after_a_swap(name):
    """A request in the middle of a swap is decided by the new trust, and so are all after it; a proxy that the new
    rules do not name is a client."""
    engine = AskedWhileSwapping(Ruleset.from_text(OLD))
    status = frontends(engine)[name]
    seen = [(status("10.0.0.1"), status("192.0.2.1"))]
    engine.between = lambda: seen.append((status("10.0.0.1"), status("192.0.2.1")))
    new = Ruleset.from_text(NEW)
    engine.swap(new)
    seen.append((status("10.0.0.1"), status("192.0.2.1")))

    stranger = 403 if name == "service" else 200  # whom the service does not answer
    assert [(403, stranger), (stranger, 403), (stranger, 403)] == seen
    assert new is engine.ruleset is engine.snapshot.ruleset


def test_a_thread_that_is_overtaken_leaves_no_stale_trust(monkeypatch):
    """A frontend that reads the trust of one swap while a second one is done takes that of the second one next."""
    engine = Engine(Ruleset.from_text(OLD))
    middleware = Gobanfast(Application(), engine)
    of_rules = Trust.of_rules

    def slow(ruleset):
        made = of_rules(ruleset)
        monkeypatch.setattr(Trust, "of_rules", of_rules)
        engine.swap(Ruleset.from_text(OLD))
        assert 3 == engine.generation
        assert "10.0.0.1" in middleware.guard.trust.peers  # as another thread would
        return made

    engine.swap(Ruleset.from_text(NEW))
    monkeypatch.setattr(Trust, "of_rules", slow)
    forwarded = [(b"x-forwarded-for", BANNED.encode())]
    ask(middleware, "10.0.0.1", headers=forwarded)

    assert [403, 200] == [ask(middleware, peer, headers=forwarded)[0]["status"] for peer in ("10.0.0.1", "192.0.2.1")]


def test_the_trust_of_a_snapshot_is_made_once(monkeypatch):
    """All frontends of an engine read one Trust, that of its snapshot; the first one made is kept."""
    engine = Engine(Ruleset.from_text(OLD))
    one, other = Gobanfast(Application(), engine), Gobanfast(Application(), engine)
    made = one.guard.trust
    assert made is other.guard.trust is engine.snapshot.trust
    assert made is engine.snapshot.keep_trust(Trust(["192.0.2.0/24"]))

    engine.swap(Ruleset.from_text(NEW))

    assert made is not one.guard.trust
    assert one.guard.trust is other.guard.trust is engine.snapshot.trust


def test_a_swap_whose_trust_cannot_be_read_changes_nothing(tmp_path):
    """Prefixes under `trust:` of a damaged file are refused by `swap`, before anything is in force."""
    from gobanfast import FormatError

    old, path = Ruleset.from_text(OLD), tmp_path / "rules.gbf"
    Ruleset.from_text(NEW).save(path)
    data = bytearray(path.read_bytes())
    at = data.rindex(bytes(10) + b"\xff\xff" + bytes([192, 0, 2, 0]))
    data[at + 15] ^= 1
    path.write_bytes(data)
    engine = Engine(old)
    with pytest.raises(FormatError, match="list of a rule is damaged"):
        engine.swap(Ruleset.load(path))

    assert (1, True) == (engine.generation, engine.ruleset is old)


def test_untrusted_peer_speaks_for_itself():
    """Forwarding headers and request ids of anyone else are the client's own words."""
    app, middleware = guarded(trust=Trust(["10.0.0.0/8"]))

    sent = ask(middleware, BANNED, headers=[(b"x-forwarded-for", GOOD.encode())])
    ask(middleware, GOOD, headers=[(b"x-request-id", b"abc-1")])

    assert 403 == sent[0]["status"]
    assert "abc-1" != app.seen[0]["gobanfast.request_id"]


def test_a_request_of_the_proxy_itself():
    """Without a chain a trusted peer asks for itself, and its address decides; where it owes one, nobody is known."""
    _, middleware = guarded(trust=Trust(["10.0.0.0/8"]))
    _, owing = guarded(trust=Trust(["10.0.0.0/8"], required=True))

    assert 200 == ask(middleware, "10.0.0.1")[0]["status"]
    assert "10.0.0.1" == middleware.guard.engine.asked[0]["address"]
    assert 403 == ask(owing, "10.0.0.1")[0]["status"]
    assert "no x-forwarded-for of 10.0.0.1" == owing.guard.engine.asked[0]["address"]


@pytest.mark.parametrize("client", [None, "", "testclient", "unix:/run/app.sock", "/run/app.sock"])
def test_peers_without_an_address_have_none(client):
    """A UNIX socket or a test client is no malformed address; a trusted socket's headers are read."""
    _, middleware = guarded()
    _, behind = guarded(trust=Trust(["unix"]))

    assert 200 == ask(middleware, client, headers=[(b"x-forwarded-for", BANNED.encode())])[0]["status"]
    assert None is middleware.guard.engine.asked[0]["address"]
    assert 403 == ask(behind, client, headers=[(b"x-forwarded-for", BANNED.encode())])[0]["status"]


def test_application_keeps_its_own_request_id():
    """A response that has an x-request-id gets no second one, and messages of the application are not written to."""
    _, middleware = guarded(Application([(b"x-request-id", b"mine")]))

    assert [b"mine"] == header(ask(middleware), b"x-request-id")


@pytest.mark.parametrize(("challenge", "status"), [("refuse", 403), ("allow", 200)])
def test_challenge_without_a_challenge(challenge, status):
    """With none configured a challenged client is refused, or left to the application, as said."""
    app, middleware = guarded(challenge=challenge)

    sent = ask(middleware, CHALLENGED)

    assert status == sent[0]["status"]
    assert ["challenge"] * (status == 200) == [scope["gobanfast"].action for scope in app.seen]


def test_challenge_is_a_page_for_browsers_and_a_problem_for_programs():
    """A browser's GET gets the task, all else 403 with a problem document."""
    _, middleware = guarded(challenge=Challenge(["k" * 16]))

    page = ask(middleware, CHALLENGED, headers=[BROWSER])
    program = ask(middleware, CHALLENGED, headers=[(b"accept", b"application/json")])
    post = ask(middleware, CHALLENGED, headers=[BROWSER], method="POST")

    assert b"data-task=" in page[1]["body"]
    assert "urn:gobanfast:challenge" == json.loads(program[1]["body"])["type"]
    assert b"data-task=" not in post[1]["body"]
    assert [403] * 3 == [sent[0]["status"] for sent in (page, program, post)]


def test_solved_challenge_is_vouched_for_once():
    """The engine hears of a solution, so that its score learns; of the pass that was given for it, it does not."""
    from gobanfast.frontends.http.refusal import HttpResponse
    from test_challenge import solve

    _, middleware = guarded(challenge=Challenge(["k" * 16], difficulty=4))
    page = ask(middleware, CHALLENGED, headers=[BROWSER])
    work = solve(HttpResponse(403, [], page[1]["body"])).encode()
    solved = ask(middleware, CHALLENGED, headers=[BROWSER, (b"cookie", work)])
    given = next(value for value in header(solved, b"set-cookie") if value.startswith(b"gobanfast-pass"))
    passed = ask(middleware, CHALLENGED, headers=[BROWSER, (b"cookie", given.partition(b";")[0])])

    assert [403, 200, 200] == [sent[0]["status"] for sent in (page, solved, passed)]
    assert [CHALLENGED] == middleware.guard.engine.vouched


def shaken(sni, hello=None):
    """The handshake that a guarded context left for the requests of this connection."""
    return Handshake(GOOD, sni, hello, None, False)


@pytest.mark.parametrize(
    ("names", "host", "status"),
    [
        (None, b"other.test", 200),
        (["a.example", "*.example"], b"a.example:443", 200),
        (["a.example", "*.example"], b"b.example", 200),
        (["a.example", "*.example"], b"other.test", 421),
    ],
)
def test_host_that_the_connection_was_not_opened_for(names, host, status):
    """Behind our own TLS the engine hears the handshake, and a foreign host is sent to another connection."""
    _, middleware = guarded(names=names)
    token = CURRENT.set(shaken("a.example"))
    try:
        sent = ask(middleware, scheme="https", headers=[(b"host", host)])
    finally:
        CURRENT.reset(token)

    assert status == sent[0]["status"]
    assert "a.example" == middleware.guard.engine.asked[0]["sni"]


def test_handshake_of_a_proxy_is_not_the_clients():
    """What a trusted proxy said when it opened its connection says nothing of the client behind it."""
    _, middleware = guarded(trust=Trust(["10.0.0.0/8"], signals={"sni": "x-sni"}), names=["a.example"])
    token = CURRENT.set(shaken("proxy.example"))
    headers = [(b"x-forwarded-for", GOOD.encode()), (b"x-sni", b"told.example"), (b"host", b"other.test")]
    try:
        sent = ask(middleware, "10.0.0.1", scheme="https", headers=headers)
    finally:
        CURRENT.reset(token)

    assert (200, "told.example") == (sent[0]["status"], middleware.guard.engine.asked[0]["sni"])


def test_fastapi_finds_the_decision():
    """Added to a FastAPI application, outermost: a view reads the decision, a banned client reaches no view."""
    fastapi = pytest.importorskip("fastapi")
    testing = pytest.importorskip("fastapi.testclient")
    app = fastapi.FastAPI()
    app.add_middleware(Gobanfast, engine=FakeEngine())

    def view(request):
        decision = request.scope["gobanfast"]
        return {"action": decision.action, "address": decision.address}

    view.__annotations__["request"] = fastapi.Request  # which FastAPI looks for, and a module without it cannot name
    app.get("/")(view)
    good = testing.TestClient(app, client=(GOOD, 1)).get("/")
    banned = testing.TestClient(app, client=(BANNED, 1)).get("/")

    assert {"action": "allow", "address": GOOD} == good.json()
    assert (403, banned.headers["x-request-id"]) == (banned.status_code, banned.json()["request_id"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"trust": "10.0.0.0/8"}, "is one text; write a list of prefixes"),
        ({"challenge": "hard"}, "is not a Challenge"),
        ({"challenge": {"keys": ["k" * 16]}}, "of type dict is not a Challenge"),
        ({"on_error": "ignore"}, "is not one of refuse, allow"),
        ({"routes": {"health": "off"}}, "route 'health'"),
        ({"routes": {"/health": "skip"}}, "route '/health'"),
    ],
)
def test_wrong_options_are_named(options, words):
    """Options that cannot be meant are refused, with the value."""
    with pytest.raises(ValueError, match=words):
        guarded(**options)
