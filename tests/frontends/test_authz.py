"""The decision service: what proxies are told, probes, and bans behind a token."""

from __future__ import annotations

import asyncio
import json
import re
from types import SimpleNamespace

import pytest

from gobanfast import Engine, Ruleset
from gobanfast.frontends.authz import DecisionService
from gobanfast.frontends.challenge import Challenge
from gobanfast.frontends.trust import Trust
from http_fakes import FakeEngine

PROXY, BANNED, GOOD, CHALLENGED, FAILING = "10.0.0.1", "203.0.113.66", "203.0.113.9", "203.0.113.77", "203.0.113.99"
TOKEN = "a token of 20 bytes."  # noqa: S105


def service(**options):
    return DecisionService(FakeEngine(), **{"trust": Trust(["10.0.0.0/8"])} | options)


def ask(app, path="/check", *, client=PROXY, method="GET", body=b"", headers=None):
    """(status, headers, body) of one request."""
    sent = []
    pairs = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    scope = {"type": "http", "method": method, "path": path, "headers": pairs, "client": (client, 1), "scheme": "http"}

    async def receive():
        return {"type": "http.request", "body": body}

    async def send(message):
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    named = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    assert str(len(sent[1]["body"])) == named.get("content-length", "0") or method == "HEAD"
    return sent[0]["status"], named, sent[1]["body"]


def about(address, **headers):
    return {"x-forwarded-for": address} | {name.replace("_", "-"): value for name, value in headers.items()}


def test_allowed_and_banned():
    """200 with an empty body lets in; 403 with the reason refuses; both name the action and the request."""
    app = service()

    status, headers, body = ask(app, headers=about(GOOD, x_request_id="r-1"))
    refused = ask(service(show_reason=True), headers=about(BANNED))

    assert (200, b"", "allow", "r-1") == (status, body, headers["x-gobanfast-action"], headers["x-request-id"])
    assert (403, "ban", "probes", "ban") == (
        refused[0],
        *(refused[1][f"x-gobanfast-{name}"] for name in ("action", "rule", "cause")),
    )
    assert "<probing>" == json.loads(refused[2])["reason"]


@pytest.mark.parametrize(
    ("path", "headers", "expected"),
    [
        ("/check", {"x-original-uri": "/a%20b?c=d", "x-original-method": "POST"}, ("/a b", "POST")),
        ("/check", {"x-forwarded-uri": "/x", "x-forwarded-method": "PUT"}, ("/x", "PUT")),
        ("/check", {}, ("/", "GET")),
        ("/check/y/z", {}, ("/y/z", "GET")),
        ("/check/y", {"x-forwarded-uri": "/health"}, ("/y", "GET")),
        ("/check", {"x-original-method": "POST", "sec-websocket-version": "13"}, ("/", "POST")),
        ("/check/", {}, ("/", "GET")),
    ],
)
def test_request_in_question(path, headers, expected):
    """Path and method are the client's, as each kind of proxy tells them; the proxy's own headers are left out."""
    app = service()

    ask(app, path, headers=about(GOOD, host="example.com", connection="close") | headers)

    asked = app.guard.engine.asked[0]
    assert expected == (asked["path"], asked["method"])
    assert (b"host", b"example.com") == asked["headers"][0]
    assert {b"host"} == {name for name, _ in asked["headers"]} - {b"sec-websocket-version"}


@pytest.mark.parametrize(
    "headers",
    [
        {"x-original-uri": "/admin", "x-forwarded-uri": "/health"},
        {"x-original-method": "POST", "x-forwarded-method": "GET"},
    ],
)
def test_two_words_about_the_request_are_refused(headers):
    """Where a client adds the header that the proxy does not write, nothing is decided."""
    app = service(routes={"/health": "observe"})

    assert 403 == ask(app, headers=about(BANNED) | headers)[0]
    assert [] == app.guard.engine.asked


def test_routes_are_the_clients_paths():
    """A path that is left alone or only watched is the one that the client asks for."""
    app = service(routes={"/health": "off", "/static/": "observe"})

    answers = [ask(app, headers=about(BANNED, x_original_uri=path))[0] for path in ("/health?x", "/static/a", "/x")]
    assert ([200, 200, 403], 2) == (answers, len(app.guard.engine.asked))


@pytest.mark.parametrize("client", ["203.0.113.1", "", "testclient"])
def test_strangers_get_no_decision(client):
    """Only peers in trust may ask."""
    app = service()

    assert 403 == ask(app, client=client, headers=about(GOOD))[0]
    assert [] == app.guard.engine.asked


def test_failing_engine():
    """A refusal with status 503 where deciding failed, also from /refused; or 200 if that is wanted."""
    app = service()
    status, headers, body = ask(app, headers=about(FAILING, x_request_id="r-1"))
    told = headers["x-gobanfast-refusal"]
    shown = ask(app, "/refused", headers=about(FAILING, x_request_id="r-1", x_gobanfast_refusal=told))

    assert (403, "503", 503) == (status, headers["x-gobanfast-status"], shown[0])
    assert body == shown[2]
    assert 200 == ask(service(on_error="allow"), headers=about(FAILING))[0]


def test_challenge_is_answered_for_the_proxy():
    """A challenged browser gets the task, and after it a pass, through the proxy."""
    from test_challenge import solve

    app = service(challenge=Challenge(["k" * 16], difficulty=4))
    page = ask(app, headers=about(CHALLENGED, accept="text/html"))
    from gobanfast.frontends.http.refusal import HttpResponse

    cookie = solve(HttpResponse(403, [], page[2]))
    status, headers, _ = ask(app, headers=about(CHALLENGED, accept="text/html", cookie=cookie))

    assert (403, 200, "challenge") == (page[0], status, headers["x-gobanfast-action"])
    assert "gobanfast-work=" in headers["set-cookie"]


@pytest.mark.parametrize("accept", ["text/html", "application/json"])
@pytest.mark.parametrize("client", [BANNED, CHALLENGED])
@pytest.mark.parametrize(
    "options",
    [{}, {"show_reason": True}, {"challenge": Challenge(["k" * 16], difficulty=4)},
     {"challenge": Challenge(["k" * 16], difficulty=4, bind="client_fingerprint")}],
)  # fmt: skip
def test_refused_shows_the_page_of_a_decision_and_decides_nothing(client, accept, options):
    """From what /check said, /refused makes the same page, without asking the engine for a decision again."""
    app = service(contact="a@example.com", **options)
    app.guard.engine.peek = lambda address, headers: SimpleNamespace(fingerprint=None)
    decided = ask(app, headers=about(client, accept=accept, x_request_id="r-1"))
    told = decided[1]["x-gobanfast-refusal"]
    shown = ask(app, "/refused", headers=about(client, accept=accept, x_request_id="r-1", x_gobanfast_refusal=told))

    def same(page):
        return re.sub(rb'data-(task|signature)="[^"]*"', b"", page)

    assert same(decided[2]) == same(shown[2])
    assert (403, 1) == (shown[0], len(app.guard.engine.asked))
    assert not [name for name in shown[1] if name.startswith("x-gobanfast")]
    assert decided[1].get("retry-after") == shown[1].get("retry-after")
    assert (b"data-task" in shown[2]) == ("challenge" in options and client == CHALLENGED and accept == "text/html")


@pytest.mark.parametrize(
    "told",
    [None, "", "x", ".", "e30.", "e30." + "0" * 64, "\u00e9.x", "A" * 100_000, ".".join("abc"), "of another request",
     "of another service"],
)  # fmt: skip
def test_what_is_no_word_of_ours_gets_a_plain_page(told):
    """A client, or another service, cannot say what /refused shows; nor is one request told what another one was."""
    app = service(show_reason=True)
    if told == "of another request":
        told = ask(app, headers=about(BANNED, x_request_id="r-2"))[1]["x-gobanfast-refusal"]
    elif told == "of another service":
        told = ask(service(show_reason=True), headers=about(BANNED, x_request_id="r-1"))[1]["x-gobanfast-refusal"]
    headers = about(BANNED, x_request_id="r-1") | ({} if told is None else {"x-gobanfast-refusal": told})
    status, _, body = ask(app, "/refused", headers=headers)
    document = json.loads(body)

    assert (403, "Access denied", "r-1") == (status, document["title"], document["request_id"])
    assert not {"reason", "code", "retry_after"} & document.keys()
    assert 403 == ask(app, "/refused", client="192.0.2.1", headers=headers)[0]


def test_replicas_with_one_challenge_key_read_each_other():
    """What one replica decided another one shows, where a Challenge gives them a key in common."""
    one, two = (service(challenge=Challenge(["k" * 16])) for _ in range(2))
    told = ask(one, headers=about(BANNED, x_request_id="r-1"))[1]["x-gobanfast-refusal"]
    shown = ask(two, "/refused", headers=about(BANNED, x_request_id="r-1", x_gobanfast_refusal=told))

    assert "60" == shown[1]["retry-after"]


SHARE = """
rules:
- {id: probes, when: {prefix: 203.0.113.66}, action: ban}
- {id: rented, when: {prefix: 203.0.113.77}, action: challenge}
share:
- {id: rebind, when: {not: {host: [api.example.com]}}, action: refuse}
- {id: writes, when: {cross_origin_write: true, not: {origin: "https://app.example.com"}}, action: refuse}
- id: events
  when: {path: /events/**, origin: "https://app.example.com"}
  action: grant
  credentials: true
  methods: [PUT]
  headers: [x-a]
  expose: [x-b]
"""
APP = "https://app.example.com"


def sharing(host="x-forwarded-host", **options):
    trust = Trust(["10.0.0.0/8"], host=host)
    return DecisionService(Engine(Ruleset.from_text(SHARE)), trust=trust, **options)


def page(address=GOOD, origin=APP, path="/events/1", **headers):
    told = {"x_original_uri": path, "x_forwarded_host": "api.example.com", "host": "127.0.0.1:8787"} | headers
    return about(address, **told) | ({} if origin is None else {"origin": origin})


def cors(headers):
    return {name for name in headers if name.startswith("access-control-")}


def test_a_grant_goes_out_for_the_proxy_to_copy():
    """A page that may read gets its grant, one that may not gets none, and both what the answer varies by; what is not
    owned gets neither. A refusal of a page that may read has the grant, too."""
    app = sharing()
    status, headers, _ = ask(app, headers=page())
    foreign = ask(app, headers=page(origin="https://evil.example"))
    nobody, other = ask(app, headers=page(origin=None)), ask(app, headers=page(path="/x"))
    banned = ask(app, headers=page(BANNED, accept="text/html"))

    expected = {"access-control-allow-origin", "access-control-allow-credentials", "access-control-expose-headers"}
    assert (200, expected, APP) == (status, cors(headers), headers["access-control-allow-origin"])
    assert [(200, set(), "Origin")] * 2 == [(got[0], cors(got[1]), got[1]["vary"]) for got in (foreign, nobody)]
    assert (200, set(), None) == (other[0], cors(other[1]), other[1].get("vary"))
    assert (403, expected, {"accept", "Origin"}) == (banned[0], cors(banned[1]), set(banned[1]["vary"].split(", ")))


@pytest.mark.parametrize(
    ("headers", "expected"),
    [({"x_forwarded_host": "10.1.2.3"}, 421), ({"x_forwarded_host": ""}, 421),
     ({"x_original_method": "POST", "origin": "https://evil.example"}, 403),
     ({"sec_websocket_version": "13", "origin": "https://evil.example"}, 403),
     ({"sec_websocket_version": "13"}, 200), ({"x_forwarded_for": BANNED}, 403)],
)  # fmt: skip
@pytest.mark.parametrize("place", ["/check", "/check/events/1"])
def test_the_true_status_is_told_beside_a_plain_one(headers, expected, place):
    """/check says 200 or 403; a refusal's own status is in a header, and is that of the page that /refused makes."""
    app = sharing()
    asked = page(x_request_id="r-1", accept="application/json", **headers)
    status, told, body = ask(app, place, method=headers.get("x_original_method", "GET"), headers=asked)

    assert (200 if expected == 200 else 403) == status
    assert (None if expected == 200 else str(expected)) == told.get("x-gobanfast-status")
    if expected != 200:
        shown = ask(app, "/refused", headers=asked | {"x-gobanfast-refusal": told["x-gobanfast-refusal"]})
        assert (expected, body) == (shown[0], shown[2])


def test_host_is_the_proxys_word_only_where_trust_says_so():
    """Without `host` in trust a forwarded host is the client's own, and Host is what counts."""
    app = sharing(host=None)

    assert "421" == ask(app, headers=page())[1]["x-gobanfast-status"]
    assert 200 == ask(app, headers=page(host="api.example.com", x_forwarded_host="evil.example"))[0]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({}, 204), ({"origin": "https://evil.example"}, 403), ({"access_control_request_method": "DELETE"}, 403),
     ({"access_control_request_headers": "x-c"}, 403), ({"x_forwarded_host": "evil.example"}, 421),
     ({"path": "/not-owned"}, 403), ({"origin": None, "x_forwarded_for": BANNED}, 403), ({"origin": None}, 403),
     ({"x_forwarded_for": "203.0.113.55"}, 403), ({"x_forwarded_for": CHALLENGED}, 204)],
)  # fmt: skip
@pytest.mark.parametrize("below", [False, True])
def test_a_preflight_is_answered_for_the_client(changes, expected, below):
    """/preflight answers as the client is to see it: 204 with the grant, or a refusal without one; nothing is for the
    proxy. What is no preflight, or not owned, is refused."""
    asked = {"access_control_request_method": "PUT", "access_control_request_headers": "x-a"} | changes
    headers = {name: value for name, value in page(**asked).items() if value is not None}
    path = headers.pop("x-original-uri") if below else ""
    app = sharing()
    app.guard.engine.ban("203.0.113.55")
    status, answered, body = ask(app, "/preflight" + path, method="OPTIONS", headers=headers)

    granted = {f"access-control-allow-{name}" for name in ("origin", "credentials", "methods", "headers")}
    assert expected == status
    assert (granted, b"") == (cors(answered), body) if expected == 204 else not cors(answered)
    assert not [name for name in answered if name.startswith("x-gobanfast")]
    assert "x-request-id" in answered


def test_check_lets_a_granted_preflight_go_on():
    """A proxy that asks about a preflight at /check gets no 204, which it would take for a word of the application."""
    asked = page(access_control_request_method="PUT", x_original_method="OPTIONS")

    assert (200, APP) == (ask(sharing(), headers=asked)[0], ask(sharing(), headers=asked)[1][
        "access-control-allow-origin"])  # fmt: skip
    assert 403 == ask(sharing(), headers=asked | {"origin": "https://evil.example"})[0]


def test_probes():
    """/live and /ready answer anyone; a broken rules file is told, and does not take the service away."""
    app = service(exposition=lambda: b"up 1\n")
    app.guard.engine.stale = True
    status, _, body = ask(app, "/ready", client="192.0.2.1")

    assert (200, True) == (status, json.loads(body)["stale"])
    assert [200, 404] == [ask(app, path, client="192.0.2.1")[0] for path in ("/live", "/nothing")]
    assert b"up 1\n" == ask(app, "/metrics")[2]
    assert 404 == ask(service(), "/metrics")[0]
    assert b"" == ask(app, "/live", method="HEAD")[2]


@pytest.mark.parametrize("given", [{}, {"authorization": "Bearer wrong"}, {"authorization": TOKEN}])
def test_bans_need_the_token(given):
    """Without the right bearer token there are no bans to see."""
    status, headers, _ = ask(service(token=TOKEN), "/bans", headers=given)

    assert (401, 'Bearer realm="gobanfast"') == (status, headers["www-authenticate"])
    assert 404 == ask(service(), "/bans", headers={"authorization": f"Bearer {TOKEN}"})[0]


def test_bans_are_made_listed_and_lifted():
    """POST makes a ban, GET lists it under its canonical key, DELETE lifts it; what is no key is 400."""
    app = service(token=TOKEN)

    def call(*arguments, **more):
        return ask(app, *arguments, headers={"authorization": f"Bearer {TOKEN}"}, **more)

    made = call("/bans", method="POST", body=b'{"key": "::ffff:203.0.113.7", "duration": "1h", "reason": "r"}')
    assert (201, "203.0.113.7") == (made[0], json.loads(made[2])["key"])
    assert ["203.0.113.7"] == [ban["key"] for ban in json.loads(call("/bans")[2])]
    assert [200, 404] == [call("/bans/203.0.113.7", method="DELETE")[0] for _ in range(2)]
    for body, words in (
        (b"", "not JSON"), (b"[" * 30_000, "not JSON"), (b"[]", "has no key"), (b"{}", "has no key"),
        (b'{"key": 1}', "has no key"), (b'{"key": "nobody"}', "'nobody'"), (b"x" * 100_000, "more than 65536 bytes"),
        (b'{"key": "192.0.2.1", "duration": [1]}', "write 1h"),
    ):  # fmt: skip
        status, _, text = call("/bans", method="POST", body=body)
        assert (400, True) == (status, words in text.decode()), text
    assert [405, 400] == [call("/bans", method="PUT")[0], call("/bans/nobody", method="DELETE")[0]]


def test_short_token_is_refused():
    """A token that could be guessed is no token."""
    with pytest.raises(ValueError, match="shorter than 16"):
        service(token="short")  # noqa: S106


def test_labels_are_put_listed_and_taken_off():
    """JSON in, JSON out, behind the same token as bans; a session's key is one, too."""
    app = DecisionService(Engine(Ruleset.from_text("rules: []")), token=TOKEN, trust=Trust(["10.0.0.0/8"]))

    def call(path, **more):
        return ask(app, path, headers={"authorization": f"Bearer {TOKEN}"}, **more)

    session = "session:0123abcd:" + "5a" * 16
    made = call("/labels", method="POST", body=b'{"key": "uid:42", "word": "vip", "duration": "1h", "reason": "paid"}')
    other = call("/labels", method="POST", body=json.dumps({"key": session, "word": "revoked"}).encode())

    assert (201, 201) == (made[0], other[0])
    assert {"key": "uid:42", "word": "vip", "reason": "paid", "by": "manual"}.items() <= json.loads(made[2]).items()
    assert {("uid:42", "vip"), (session, "revoked")} == {
        (label["key"], label["word"]) for label in json.loads(call("/labels")[2])
    }
    assert [200, 404] == [call("/labels/vip/uid:42", method="DELETE")[0] for _ in range(2)]
    assert [400, 400, 400, 405, 405] == [
        call(path, method=method, body=body)[0]
        for path, method, body in (
            ("/labels", "POST", b'{"key": "uid:42"}'),
            ("/labels", "POST", b'{"key": "uid:42", "word": "No Word"}'),
            ("/labels", "POST", b"{"),
            ("/labels/vip", "DELETE", b""),
            ("/labels", "PUT", b""),
        )
    ]


@pytest.mark.parametrize("given", [{}, {"authorization": "Bearer another token of 24."}])
def test_labels_need_the_token(given):
    """Without the right bearer token there are no labels to see."""
    assert 401 == ask(service(token=TOKEN), "/labels", headers=given)[0]
    assert 404 == ask(service(), "/labels", headers={"authorization": f"Bearer {TOKEN}"})[0]
