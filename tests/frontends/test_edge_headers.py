"""Request headers that only trusted peers may say: what the application sees under each frontend, and that nobody
else's headers change."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gobanfast import Engine, Ruleset
from gobanfast._core.edge_headers import EdgeHeaders
from gobanfast.frontends import asgi, wsgi

RULES = """
trust: [10.0.0.0/8]
edge_headers: {strip: ["x-envoy-*", x-real-ip], keep: [x-envoy-original-path]%s}
rules:
- {id: tools, when: {header: {user-agent: {contains: nobody}}}, action: ban}
"""
APPEND = ", append: [x-forwarded-for]"
PROXY, STRANGER = "10.0.0.1", "203.0.113.9"
SENT = [(b"host", b"example.com"), (b"X-Envoy-Attempt-Count", b"7"), (b"x_envoy_internal", b"true"),
        (b"x-real-ip", b"192.0.2.1"), (b"x-envoy-original-path", b"/a"), (b"x-forwarded-for", b"198.51.100.1"),
        (b"x-envo", b"1"), (b"x-real-ip-2", b"1")]  # fmt: skip
STRIPPED = [SENT[0], *SENT[4:]]


def engine(append="", rules=RULES):
    return Engine(Ruleset.from_text(rules % append))


def under_asgi(guarding, peer, sent=SENT, **more):
    """(pairs that the application saw, the scope that the server made, the scope that the application saw)."""
    seen = []

    async def app(scope, receive, send):
        seen.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def send(_):
        pass

    headers = list(sent)
    scope = {"type": "http", "method": "GET", "path": "/", "headers": headers, "client": (peer, 1), "scheme": "http"}
    asyncio.run(asgi.Gobanfast(app, guarding, **more)(scope, None, send))
    assert headers == list(sent)
    assert scope["headers"] is headers
    return list(seen[0]["headers"]), scope, seen[0]


def under_wsgi(guarding, peer, sent=SENT):
    """(environ that the application saw, the one that the server made, a copy of that from before)."""
    seen = []

    def app(environ, start_response):
        seen.append(environ)
        start_response("200 OK", [])
        return []

    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "SCRIPT_NAME": "", "REMOTE_ADDR": peer,
               "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.url_scheme": "http", "wsgi.version": (1, 0)}  # fmt: skip
    for name, value in sent:
        environ["HTTP_" + name.decode().upper().replace("-", "_")] = value.decode()
    before = dict(environ)
    list(wsgi.Gobanfast(app, guarding)(environ, lambda *_: None))
    return seen[0], environ, before


@pytest.mark.parametrize("headed", [True, False])
def test_an_asgi_application_does_not_see_them_from_others(headed):
    """Of others they are gone, in a scope of the application's own; of trusted peers, and where there are none, the
    scope is the server's. So also where no rule asks for a header."""
    guarding = (
        engine()
        if headed
        else engine(rules=RULES.replace("header: {user-agent: {contains: nobody}}", "prefix: 192.0.2.0/24"))
    )
    seen, scope, own = under_asgi(guarding, STRANGER)
    trusted, whole, same = under_asgi(guarding, PROXY)
    _, plain, other = under_asgi(guarding, STRANGER, STRIPPED)

    assert (STRIPPED, SENT, SENT) == (seen, trusted, whole["headers"])
    assert (False, True, True) == (own is scope, same is whole, other is plain)
    assert "gobanfast" in own
    assert scope["gobanfast"] is own["gobanfast"]


def test_a_wsgi_application_does_not_see_them_from_others():
    """The same of an environ, which is copied then."""
    seen, environ, before = under_wsgi(engine(), STRANGER)
    trusted, same, _ = under_wsgi(engine(), PROXY)
    gone = {"HTTP_X_ENVOY_ATTEMPT_COUNT", "HTTP_X_ENVOY_INTERNAL", "HTTP_X_REAL_IP"}

    assert before.keys() - gone == {key for key in seen if not key.startswith("gobanfast")}
    assert before == {key: value for key, value in environ.items() if not key.startswith("gobanfast")}
    assert trusted is same
    assert "gobanfast.decision" in seen


@pytest.mark.parametrize(("peer", "expected"), [(STRANGER, b"198.51.100.1, 203.0.113.9"),
                                                (PROXY, b"198.51.100.1, 10.0.0.1"), ("", b"198.51.100.1")])  # fmt: skip
def test_the_peer_is_appended_to_the_chain(peer, expected):
    """X-Forwarded-For ends in the peer, which the server saw; a UNIX socket has no address. The decision's client is
    the one of the chain as it came."""
    seen, scope, _ = under_asgi(engine(APPEND), peer)
    environ = under_wsgi(engine(APPEND), peer)[0]
    alone = under_asgi(engine(APPEND), STRANGER, SENT[:1])[0]

    assert [expected] == [value for name, value in seen if name == b"x-forwarded-for"]
    assert expected.decode() == environ["HTTP_X_FORWARDED_FOR"]
    assert (b"x-forwarded-for", STRANGER.encode()) == alone[-1]
    assert {PROXY: "198.51.100.1", "": None}.get(peer, peer) == scope["gobanfast"].address


def test_what_cannot_be_read_is_looked_at_whole():
    """More headers than the engine reads hide none of them, and neither does an engine that fails."""
    many = [(b"x-%d" % number, b"") for number in range(300)]

    class Failing(Engine):
        def decide(self, *_, **__):
            raise RuntimeError("broken")

    rules = Ruleset.from_text(RULES % "" + "unparsable: allow\n")
    assert [*many, *STRIPPED] == under_asgi(Engine(rules), STRANGER, [*many, *SENT])[0]
    assert not {"HTTP_X_REAL_IP"} & under_wsgi(Engine(rules), STRANGER, [*many, *SENT])[0].keys()
    assert STRIPPED == under_asgi(Failing(rules), STRANGER, on_error="allow")[0]


def test_nothing_changes_unless_it_is_written():
    """Without the section all headers reach the application, in the server's own scope and environ."""
    plain = Engine(Ruleset.from_text("rules: [{id: a, when: {prefix: 192.0.2.0/24}, action: ban}]"))
    seen, scope, own = under_asgi(plain, STRANGER)
    environ, same, _ = under_wsgi(plain, STRANGER)

    assert (SENT, True, True) == (seen, own is scope, environ is same)


def test_an_aiohttp_application_does_not_see_them_from_others():
    """The handler gets a request of its own, with the keys of the former one; the response has the request id."""
    aiohttp = pytest.importorskip("aiohttp")
    from aiohttp import test_utils, web

    from gobanfast.frontends.aiohttp import EXCHANGE, setup

    async def told(request):
        text = await request.text()
        return web.json_response([sorted(map(str.lower, request.headers)), text, request[EXCHANGE].request_id])

    async def asked(rules):
        app = web.Application()
        app.router.add_post("/", told)
        setup(app, Engine(Ruleset.from_text(rules)))
        async with test_utils.TestClient(test_utils.TestServer(app)) as client:
            response = await client.post("/", data="text", headers={"X-Envoy-Internal": "true", "X-A": "b"})
            return await response.json(), response.headers["x-request-id"]

    (names, text, request_id), shown = asyncio.run(asked(RULES % ""))
    trusted = asyncio.run(asked(RULES.replace("10.0.0.0/8", "127.0.0.0/8") % ""))[0][0]

    assert aiohttp
    assert (["x-a"], "text", shown) == ([name for name in names if name.startswith("x-")], text, request_id)
    assert "x-envoy-internal" in trusted


NAMES = st.text("aAbB-_x*", min_size=1, max_size=4)


@given(st.lists(st.tuples(NAMES, st.sampled_from(["1", "2"])), max_size=8), st.lists(NAMES, max_size=4),
       st.lists(NAMES, max_size=2))  # fmt: skip
def test_headers_are_stripped_as_the_oracle_does(headers, strip, keep):
    """What is left is what a slow reading of the patterns leaves, of pairs and of an environ alike."""

    def folded(name):
        return name.lower().replace("_", "-")

    def goes(name):
        name = folded(name)
        matched = any(name.startswith(folded(one[:-1])) if one.endswith("*") else name == folded(one) for one in strip)
        return matched and name not in map(folded, keep)

    edge = EdgeHeaders(tuple(keep), False, tuple(strip))
    left = [(name.encode(), value.encode()) for name, value in headers if not goes(name)]
    pairs = edge.without([(name.encode(), value.encode()) for name, value in headers])
    environ = {"HTTP_" + name.upper().replace("-", "_"): value for name, value in headers}
    kept = {key: value for key, value in environ.items() if not goes(key[5:])}

    assert (left if len(left) < len(headers) else None) == pairs
    assert (kept if len(kept) < len(environ) else None) == edge.without(environ)
