"""Headers: the scan, fingerprint and shape against the oracle, all forms of one request, limits, real clients."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gobanfast import fingerprint, normalize_headers
from gobanfast._core.enums import FIELDS
from gobanfast._core.headers import PROBLEMS, UA_FAMILIES, HeaderPlan
from oracle import headers as oracle
from servers import WAIT, in_thread, listening, program, run

Pairs = list[tuple[bytes, bytes]]

AGENT = (
    b"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36"
)
CHROME: Pairs = [
    (b"host", b"www.example.com"),
    (b"connection", b"keep-alive"),
    (b"sec-ch-ua", b'"Not_A Brand";v="8", "Chromium";v="120", "Google Chrome";v="120"'),
    (b"sec-ch-ua-mobile", b"?0"),
    (b"sec-ch-ua-platform", b'"Windows"'),
    (b"upgrade-insecure-requests", b"1"),
    (b"user-agent", AGENT),
    (b"accept", b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    (b"sec-fetch-site", b"none"),
    (b"sec-fetch-mode", b"navigate"),
    (b"sec-fetch-dest", b"document"),
    (b"accept-encoding", b"gzip, deflate, br"),
    (b"accept-language", b"en-US,en;q=0.9"),
]  # fmt: skip

NAMES = (
    *oracle.PRESENCE, "host", "cookie", "referer", "x-forwarded-for", "sec-ch-ua-arch", "priority", "te", "a", "ab",
    "abc", "tracking-preference", "x", "if-none-match", "cf-ray", "content-type", "content-length", "cookie2",
    "service-worker-navigation-preload", "n" * 64, "n" * 65,
)  # fmt: skip
names = st.sampled_from(NAMES).map(str.encode) | st.from_regex(rb"\A[!#$%&'*+\-.^_`|~0-9a-z]{1,20}\Z")
cased = st.tuples(names, st.booleans()).map(lambda item: item[0].title() if item[1] else item[0])
texts = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=60)
codings = st.lists(
    st.sampled_from(["gzip", "deflate", "br", "zstd", "dcb", "identity", "*;q=0", "identity;q=1", "x", ""]), max_size=5
).map(", ".join)
texts |= codings | st.lists(st.sampled_from([" ", "\t", "a", "bcdefghi", ";q=0.9"]), max_size=30).map("".join)
values = st.builds(lambda text, lead: lead + text.encode("latin-1"), texts, st.sampled_from([b"", b" ", b"\t "]))
regular = st.lists(st.tuples(cased, values), max_size=14)
junk = st.tuples(
    st.sampled_from([b"", b"a b", b"a\0", b"caf\xe9", b":path", b":status", b":", b"HOST", b"x:y"]),
    values | st.sampled_from([b"a\0b", b"a\r\nb", b"\x7f", b"a\tb", b"0123456789abcdef\x1f", b"\x01" * 9]),
)
pseudo = st.lists(
    st.tuples(st.sampled_from([name.encode() for name in oracle.PSEUDO]), values), max_size=3, unique_by=lambda p: p[0]
)
anything = st.builds(lambda a, b, c: a + b + c, pseudo, regular, st.lists(junk, max_size=1) | regular)
WORDS = {None: None, "many": 1, "long": 2, "name": 3, "value": 4, "pseudo": 5, "case": 6, "host": 7}


@settings(max_examples=400, deadline=None)
@given(pairs=anything, http=st.sampled_from([None, "1.1", "2"]))
def test_scan_equals_the_definition(pairs: Pairs, http: str | None) -> None:
    """Problem, values, fingerprint and shape of any pairs are those of the slow reading."""
    expected = oracle.read(pairs, http)
    asked = [name for name in NAMES if len(name) <= 64 and name not in FIELDS]
    plan = HeaderPlan(asked, ())

    found = normalize_headers(pairs, http)

    number = WORDS[expected.problem]
    assert (None if number is None else PROBLEMS[number]) == found.problem
    assert oracle.gh2(pairs, http=http) == found.fingerprint
    assert oracle.gs1(pairs, http=http) == found.shape
    if http is None:
        assert oracle.gh2(pairs) == fingerprint(pairs)
        assert oracle.gh2(pairs, fields=()) == plan.fingerprint(pairs)
        for name in asked:
            assert expected.value(name) == plan.value(pairs, name)


@given(pairs=regular, key=st.binary(max_size=40), chosen=st.lists(st.sampled_from(oracle.PRESENCE[:16]), unique=True))
def test_key_and_fields(pairs: Pairs, key: bytes, chosen: list[str]) -> None:
    """A key and other fields give what the definition gives; a key changes every fingerprint."""
    fields = tuple(chosen)

    assert oracle.gh2(pairs, key=key, fields=fields) == fingerprint(pairs, key=key, fields=fields)
    assert oracle.gs1(pairs, key=key) == HeaderPlan((), fields, key=key).shape(pairs)
    if oracle.gh2(pairs) is not None:
        assert fingerprint(pairs) != fingerprint(pairs, key=key)


def as_http1(pairs: Pairs, authority: bytes) -> Pairs:
    """How a browser writes them in HTTP/1.1: names in any case, Host, Connection."""
    written = [(name.title(), value) for name, value in pairs]
    return [(b"Host", authority), (b"Connection", b"keep-alive"), *written]


def as_http2(pairs: Pairs, authority: bytes, http: str = "2") -> Pairs:
    """How it writes them in HTTP/2 or 3: pseudo headers, lower case, cookies in crumbs."""
    head = [(b":method", b"GET"), (b":authority", authority), (b":scheme", b"https"), (b":path", b"/a?b")]
    crumbs = []
    for name, value in pairs:
        parts = value.split(b"; ") if name == b"cookie" else [value]
        crumbs += [(name, part) for part in parts]
    return [*(head if http == "2" else reversed(head)), *crumbs, (b"priority", b"u=0, i")]


def said(pairs: Pairs, http: str | None) -> dict[str, Any]:
    """What is said in whatever form: everything but what only the form knows."""
    found = normalize_headers(pairs, http)
    return {
        "pairs": [pair for pair in found.pairs if pair[0] not in (b"connection", b"priority")],
        "repeated": found.repeated,
        "authority": found.authority,
        "has_cookie": found.has_cookie,
        "ua_family": found.ua_family,
        "fingerprint": found.fingerprint,
        "shape": HeaderPlan().shape(pairs),
        "problem": found.problem,
    }


plain = st.lists(
    st.tuples(names.filter(lambda name: name not in (b"host", b"cookie", b"priority")), values), max_size=12
)
cookies = st.lists(st.from_regex(rb"\A[a-z]{1,5}=[a-z0-9]{0,9}\Z"), max_size=4)


@given(pairs=plain, crumbs=cookies, authority=st.sampled_from([b"a.example", b"a.example:8443", b"[2001:db8::1]"]))
def test_all_versions_of_one_request_say_the_same(pairs: Pairs, crumbs: list[bytes], authority: bytes) -> None:
    """HTTP/1.1, HTTP/2, HTTP/3 and ASGI forms of a request give the same signals, fingerprint and shape."""
    request = pairs + ([(b"cookie", b"; ".join(crumbs))] if crumbs else [])

    expected = said(as_http1(request, authority), "1.1")

    assert expected == said(as_http2(request, authority), "2")
    assert expected == said(as_http2(request, authority, "3"), "3")
    assert expected == said([(b"host", authority), *request], None)


@given(pairs=plain)
def test_environ_gives_the_same_values(pairs: Pairs) -> None:
    """A WSGI environ gives the values and the fingerprint that the list gives, and a shape without order."""
    pairs = [(name, value) for name, value in pairs if b"_" not in name and value.strip(b" \t")]
    plan = HeaderPlan(("host", "cookie", "referer", "a"))
    environ = oracle.environ(pairs)

    for name in (*FIELDS, "referer", "a"):
        assert plan.value(pairs, name) == plan.value(environ, name)
    assert oracle.gh2(pairs) == fingerprint(environ)
    assert oracle.gs1(pairs, order=False) == HeaderPlan().shape(environ)


def test_environ_knows_method_and_path() -> None:
    """Method and path of an environ are those of the request; a value that is no Latin-1 is a control byte's equal."""
    found = normalize_headers(
        {"REQUEST_METHOD": "GET", "PATH_INFO": "/a", "HTTP_HOST": "b", "HTTP_USER_AGENT": "curl/8"}
    )

    assert ("GET", "/a", "b", "curl", False) == (
        found.method, found.path, found.authority, found.ua_family, found.order_known,
    )  # fmt: skip
    assert PROBLEMS[4] == normalize_headers({"HTTP_ACCEPT": "\u20ac"}).problem


@pytest.mark.parametrize(
    "name",
    ["x-forwarded-for", "referer", "cookie", "forwarded", "x-request-id", "authorization", "cf-connecting-ip", "via"],
)
def test_what_is_added_on_the_way_changes_nothing(name: str) -> None:
    """Headers of one request or hop, wherever they stand, leave the fingerprint as it is."""
    added = (name.encode(), b"203.0.113.9")

    assert fingerprint(CHROME) == fingerprint([*CHROME, added])
    assert fingerprint(CHROME) == fingerprint([*CHROME[:4], added, *CHROME[4:]])


def test_fingerprint_is_pinned() -> None:
    """gh2 and gs1 of these headers are these texts for ever: a change of a definition is a gh3 or gs2."""
    assert "gh2:6d4217d01208eb908e949efbf805720c" == fingerprint(CHROME)
    assert "gs1:b8aaea4da28555105e686c27f09dc838" == HeaderPlan().shape(CHROME, "1.1")
    assert fingerprint(CHROME[::-1]) == fingerprint(CHROME)
    assert HeaderPlan().shape(CHROME[::-1]) != HeaderPlan().shape(CHROME)
    assert 3 == len({HeaderPlan().shape(CHROME, http) for http in (None, "1.1", "2", "3")})
    assert "gh2:7d06b6a18b45572b3cd92372e5cc3694" == fingerprint([])
    assert fingerprint((*map(list, CHROME),)) == fingerprint(CHROME)


@pytest.mark.parametrize(
    ("pairs", "problem"),
    [
        ([(b"a", b"")] * 256, None),
        ([(b"a", b"")] * 257, "more than 256 headers"),
        ([(b"a", b"")] * 10_000, "more than 256 headers"),
        ([(b"a", b"b" * 65535)], None),
        ([(b"user-agent", b"b" * 65526)], None),
        ([(b"a", b"b" * 65536)], "more than 65536 bytes of names and values"),
        ([(b"a", b"b" * (1 << 20))], "more than 65536 bytes of names and values"),
        ([(b"n" * (1 << 20), b"")], "more than 65536 bytes of names and values"),
        ([(b"user-agent", b"b" * 250)] * 250, None),
        ([(b"cookie", b"")] * 256, None),
        ([(b"N" * 255, b"")] * 256, None),
        ([(b"a", b"b\0")], "a control byte in a value"),
        ([(b"a\0", b"b")], "a name that is no token"),
        ([(b":authority", b"A.example"), (b"host", b"a.EXAMPLE")], None),
        ([(b":authority", b"a.example"), (b"host", b"b.example")], "two hosts"),
        ([(b"host", b"a"), (b"host", b"a")], "two hosts"),
    ],
    ids=str,
)
def test_limits(pairs: Pairs, problem: str | None) -> None:
    """What is past the limits, or means two things, is malformed and has no fingerprint; up to them all is read."""
    found = normalize_headers(pairs)

    assert (problem, oracle.gh2(pairs)) == (found.problem, fingerprint(pairs))


@given(agent=st.lists(st.sampled_from(
    ["Mozilla", "/5.0", " ", "Chrome", "/120", "Safari/537.36", "Edg/120", "OPR/1", "Firefox/9", "bot", "Google", "/",
     "curl/8.5.0", "Python-urllib/3.11", "Go-http-client/2.0", "Java/17", "(compatible; ", "Wget", "-",
     "HeadlessChrome/1"]
), max_size=8).map("".join))  # fmt: skip
def test_ua_family(agent: str) -> None:
    """A user agent is of the family that the table gives it."""
    assert oracle.ua_family(agent.strip(" ")) == normalize_headers([(b"user-agent", agent.encode())]).ua_family


def test_every_family_has_a_name() -> None:
    """Every name of a family is given to some user agent."""
    agents = ("Googlebot/2.1", "Edg/1", "OPR/1", "Firefox/1", "Chrome/1", "Safari/1", "curl/8", "Wget/1", "python/3",
              "Go-http-client/1.1", "Java/17", "")  # fmt: skip

    assert list(UA_FAMILIES) == [normalize_headers([(b"user-agent", agent.encode())]).ua_family for agent in agents]


def test_misuse_raises() -> None:
    """Other types, and names that cannot be asked for, are errors that say which."""
    with pytest.raises(TypeError, match=r"^header 1 is \('a', 'b'\), not a pair of bytes"):
        fingerprint([(b"a", b"b"), ("a", "b")])  # type: ignore[list-item]
    with pytest.raises(TypeError, match=r"^headers is generator, not a list"):
        fingerprint(item for item in CHROME)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^http='4' is not one of 1.0, 1.1, 2, 3$"):
        normalize_headers(CHROME, "4")
    with pytest.raises(ValueError, match=r"^header 'User-Agent' is not a lower-case token"):
        HeaderPlan(("User-Agent",))
    with pytest.raises(ValueError, match=r"^header 'x-forwarded-for' differs from request to request"):
        fingerprint(CHROME, fields=("x-forwarded-for",))
    with pytest.raises(ValueError, match=r"^header 'accept' is listed twice$"):
        fingerprint(CHROME, fields=("accept", "accept"))
    with pytest.raises(ValueError, match=r"^header 'n49' is one too many"):
        HeaderPlan([f"n{i}" for i in range(60)], ())
    with pytest.raises(KeyError):
        HeaderPlan().value(CHROME, "referer")


def test_threads_share_a_plan() -> None:
    """Many threads get the same fingerprints from one plan."""
    plan, found = HeaderPlan(key=b"secret"), []
    threads = [
        threading.Thread(target=lambda: found.append({plan.fingerprint(CHROME) for _ in range(2000)})) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [{plan.fingerprint(CHROME)}] * 4 == found


# ---- real clients


def http1_request(port_to_use: list[int], command: list[str]) -> Pairs:
    """Headers as `command` writes them in HTTP/1.1, read off the socket."""
    with listening() as server:
        port_to_use.append(server.getsockname()[1])
        taken: list[bytes] = []

        def serve() -> None:
            peer, _ = server.accept()
            with peer:
                peer.settimeout(WAIT)
                data = b""
                while b"\r\n\r\n" not in data:
                    data += peer.recv(65536)
                taken.append(data)
                peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        run(*command, f"http://localhost:{port_to_use[0]}/a?b")
        thread.join(WAIT)
    lines = taken[0].split(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    return [(line.partition(b":")[0], line.partition(b":")[2]) for line in lines]


def http2_request(command: list[str]) -> tuple[Pairs, int]:
    """Headers as `command` writes them in HTTP/2, decoded by h2; and the port."""
    from h2.config import H2Configuration
    from h2.connection import H2Connection
    from h2.events import RequestReceived

    with listening() as server:
        port = server.getsockname()[1]
        taken: list[Pairs] = []

        def serve() -> None:
            peer, _ = server.accept()
            with peer:
                peer.settimeout(WAIT)
                connection = H2Connection(H2Configuration(client_side=False, header_encoding=None))
                connection.initiate_connection()
                peer.sendall(connection.data_to_send())
                while not taken:
                    for event in connection.receive_data(peer.recv(65536)):
                        if isinstance(event, RequestReceived):
                            taken.append([(bytes(name), bytes(value)) for name, value in event.headers])
                            connection.send_headers(event.stream_id, [(":status", "204")], end_stream=True)
                    peer.sendall(connection.data_to_send())

        thread = threading.Thread(target=serve)
        thread.start()
        run(*command, "--http2-prior-knowledge", f"http://localhost:{port}/a?b")
        thread.join(WAIT)
    return taken[0], port


def curl() -> list[str]:
    extra = ["-A", "Tester/1.0", "-H", "Accept-Language: en", "-H", "X-Thing: 1", "-b", "a=1; b=2", "-H", "DNT: 1"]
    return [program("curl"), "-s", "-m", "8", "--noproxy", "*", *extra]


def test_curl_says_the_same_in_both_versions() -> None:
    """The same call of curl over HTTP/1.1 and HTTP/2 gives the same signals but for the port it asked for."""
    ports: list[int] = []
    first = http1_request(ports, [*curl(), "--http1.1"])
    second, port = http2_request(curl())

    expected, found = said(first, "1.1"), said(second, "2")

    assert (f"localhost:{ports[0]}", f"localhost:{port}") == (expected.pop("authority"), found.pop("authority"))
    assert expected == found
    assert oracle.gh2(first) == found["fingerprint"]
    assert normalize_headers(first).case_known
    assert (True, "GET", "/a", "http") == tuple(
        getattr(normalize_headers(second), name) for name in ("pseudo_known", "method", "path", "scheme")
    )


def test_servers_hand_on_what_curl_said() -> None:
    """What hypercorn gives an application for HTTP/1.1 and HTTP/2 is what was on the wire."""
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    scopes: list[dict[str, Any]] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        scopes.append(scope)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def body(ready: threading.Event, stopped: asyncio.Event) -> None:
        config = Config()
        config.bind = [f"127.0.0.1:{port}"]
        config.accesslog = config.errorlog = None

        async def trigger() -> None:
            ready.set()
            await stopped.wait()

        await serve(application, config, shutdown_trigger=trigger, mode="asgi")

    with in_thread(body):
        for version in ("--http1.1", "--http2-prior-knowledge"):
            run(*curl(), "--retry", "5", "--retry-connrefused", version, f"http://localhost:{port}/a?b")
    direct = said(http1_request([], [*curl(), "--http1.1"]), None)

    assert ["1.1", "2"] == [scope["http_version"] for scope in scopes]
    for scope in scopes:
        found = said([(name, value) for name, value in scope["headers"]], scope["http_version"])
        assert direct["fingerprint"] == found["fingerprint"]
        assert direct["pairs"] == found["pairs"]
