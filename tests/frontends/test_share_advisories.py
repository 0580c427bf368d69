"""One test for each published flaw of CORS, DNS-rebinding and WebSocket guards that share rules must not have."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gobanfast
from gobanfast import Engine, RuleError, Ruleset
from gobanfast.frontends import asgi
from gobanfast.telemetry.log import DecisionLog
from share_forms import FOREIGN, PAGE, RULES, Plan, ask, ask_asgi

GRANT = "share: [{id: own, when: {path: /own, origin: %s}, action: grant, credentials: true, headers: [x-a, x-b]}]"
ASKS = {"origin": PAGE, "access-control-request-method": "GET"}


def granted(patterns, origin, **more):
    """Whether a page may read by a grant of these patterns, as JSON."""
    rules = GRANT % (patterns if isinstance(patterns, str) else json.dumps(patterns))
    answer = ask("asgi", Plan(), headers={"origin": origin}, rules=rules, **more)
    lines = answer.lines("access-control-allow-origin")
    assert lines in ([], [origin])
    return lines == [origin]


def problems(text):
    with pytest.raises(RuleError) as raised:
        Ruleset.from_text(text)
    return str(raised.value)


def test_cve_2018_20744_a_star_is_no_reflection():
    """rs/cors answered `*` with credentials by the caller's own origin. Here it does not load, and without credentials
    the answer is the star."""
    grant = "{id: a, when: {path: /own}, action: grant, credentials: true}"
    assert "credentials" in problems(f"share: [{grant}]")
    any_origin = grant.replace("path: /own", 'path: /own, origin: "*"')
    assert "credentials" in problems(f"share: [{any_origin}]")

    answer = ask("asgi", Plan(), "/public", headers={"origin": FOREIGN, "cookie": "a=b"})
    assert {"access-control-allow-origin": ["*"]} == answer.shared


GUARDED = """
import ctypes, mmap, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
page, library, readable = mmap.PAGESIZE, ctypes.CDLL(sys.argv[1]), int(sys.argv[2])
class Allowed(ctypes.Structure):
    _fields_ = [("text", ctypes.c_char_p), ("ends", ctypes.POINTER(ctypes.c_uint32)), ("count", ctypes.c_uint32),
                ("longest", ctypes.c_uint32), ("any", ctypes.c_uint32)]
class Walk(ctypes.Structure):
    _fields_ = [("last", ctypes.c_void_p), ("last_nbytes", ctypes.c_uint32), ("at", ctypes.c_uint32),
                ("empty", ctypes.c_uint32), ("names", ctypes.c_uint32)]
library.gbf_acrh_line.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64]
room = libc.mmap(None, 16 * page, 3, 0x22, -1, 0)
assert libc.mprotect(room + 15 * page, page, 0) == 0  # nobody may read the last page
for hostile in (b",", b"a", b" ", b"\\t,", b"x-a,", b"x-a ,", b"x-a" + b" " * 40, b"authorization,"):
    for any_other in (0, 1):
        ends = (ctypes.c_uint32 * 2)(3, 6)
        allowed, walk = Allowed(b"x-ax-b", ends, 2, 3, any_other), Walk()
        start = room + 15 * page - readable
        ctypes.memmove(start, (hostile * readable)[:readable], readable)
        assert not library.gbf_acrh_line(ctypes.byref(allowed), ctypes.byref(walk), start, 1 << 40)
"""


def test_cve_2025_47908_request_headers_are_read_up_to_the_first_miss(tmp_path):
    """rs/cors split a list of any length (127 ms for 1 MiB of commas); AdonisJS was quadratic in it. The work here is
    counted by the memory that may be read: 256 bytes of a terabyte, the rest would end the process."""
    csrc, compiler = Path(gobanfast.__file__).with_name("csrc"), shutil.which("cc")
    if not csrc.is_dir() or compiler is None or sys.platform != "linux":
        pytest.skip("no sources, no C compiler, or no Linux")
    library = tmp_path / "walk.so"
    source = csrc / "http" / "gbf_acrh.c"
    subprocess.run([compiler, "-std=c11", "-shared", "-fPIC", f"-I{csrc}", source, "-o", library], check=True)

    def run(readable):
        return subprocess.run([sys.executable, "-c", GUARDED, library, str(readable)], check=False).returncode

    assert 0 == run(256)
    assert 0 > run(1)  # so the fence is one


@pytest.mark.parametrize("names", ["," * 2**20, "a" * 2**20, "x-a," * 2**18, "x-a" + " " * 2**20])
@pytest.mark.parametrize("form", ["asgi", "wsgi"])
def test_cve_2025_47908_a_long_list_is_refused(form, names):
    """The whole way: 403, no grant, and the application is not asked."""
    plan = Plan()

    answer = ask(form, plan, method="OPTIONS", headers=ASKS | {"access-control-request-headers": names})

    assert (403, {}, 0) == (answer.status, answer.shared, plan.calls)


HOSTS = ["foo.com", "bar.com", "oo.com", "barfoo.com", "foobar.com", "a.foo.com", "b.a.foo.com", "com", "xfoo.com"]


def test_ghsa_vhxv_fg4m_p2w8_two_patterns_make_no_third():
    """jub0bs/cors let barfoo.com in where foo.com and bar.com were allowed; also below wildcards. All pairs of hosts,
    each in every form, against what the forms mean."""
    forms = {
        "https://{}": lambda host, asked: asked == host,
        "https://*.{}": lambda host, asked: asked.endswith("." + host) and asked.count(".") == host.count(".") + 1,
        "https://**.{}": lambda host, asked: asked.endswith("." + host),
    }
    wrong = []
    patterns = [(form, host) for form in forms for host in HOSTS if not (form.count("*") and host == "com")]
    for pair in itertools.combinations(patterns, 2):
        rules = Ruleset.from_text(GRANT % json.dumps([form.format(host) for form, host in pair]))
        engine = Engine(rules)
        for asked in HOSTS:
            expected = any(forms[form](host, asked) for form, host in pair)
            headers = [(b"host", b"api.example"), (b"origin", f"https://{asked}".encode())]
            found = engine.decide(None, headers=headers, method="GET", path="/own", http="1.1").share == "granted"
            wrong += [] if found == expected else [(pair, asked)]

    assert [] == wrong


def test_jub0bs_12_nobody_is_denied_for_a_neighbour():
    """v0.12.0 lost an origin when another with the same ending was there: every order of three, all found."""
    origins = ["https://foo.com", "https://oo.com:8080", "https://*.foo.com", "http://localhost:*", "https://o.com"]
    asked = ["https://foo.com", "https://oo.com:8080", "https://a.foo.com", "http://localhost:1", "https://o.com"]
    for order in itertools.permutations(range(5), 3):
        patterns = [origins[number] for number in order]
        assert [number in order for number in range(5)] == [granted(patterns, origin) for origin in asked]


def test_jub0bs_15_no_allowed_name_is_denied():
    """v0.13.3 to v1.0.1 denied some header names that were allowed: every subset of them, sorted as browsers do."""
    names = ["authorization", "content-type", "x-a", "x-aa", "x-b", "x-c"]
    rules = RULES.replace("headers: [authorization, x-a]", f"headers: [{', '.join(reversed(names))}]")
    engine = Engine(Ruleset.from_text(rules))
    for size in range(1, len(names) + 1):
        for some in itertools.combinations(names, size):
            asked = ASKS | {"access-control-request-headers": ",".join(some)}
            answer = ask("asgi", Plan(), method="OPTIONS", headers=asked, engine=engine)
            assert (204, [",".join(some)]) == (answer.status, answer.lines("access-control-allow-headers"))


@pytest.mark.parametrize("form", ["asgi", "wsgi"])
def test_cve_2024_6221_no_private_network_is_offered(form):
    """Flask-Cors let public pages reach private networks unasked. Nothing here says that they may."""
    asked = ASKS | {"access-control-request-private-network": "true", "access-control-request-local-network": "true"}
    for method in ("OPTIONS", "GET"):
        plan = Plan(headers=[("Access-Control-Allow-Private-Network", "true")])
        answer = ask(form, plan, method=method, headers=asked)
        assert [] == [name for name in answer.shared if "network" in name]
        assert [PAGE] == answer.lines("access-control-allow-origin")


def test_cve_2024_6839_a_longer_path_is_no_stronger_one():
    """Flask-Cors took the longest regex for the most specific one. Priority and place decide, whatever a path looks
    like."""
    rules = """
    share:
    - {id: shut, when: {path: /api/private/**}, action: withhold}
    - {id: all, when: {path: "/api/**", origin: "https://app.example"}, action: grant}
    - {id: long, when: {path: ["/api/private/**", "/api/something/that/is/longer/**"], origin: "https://app.example"}, action: grant}
    """  # noqa: E501
    for path, shared in {
        "/api/private/x": [],
        "/api/public": [PAGE],
        "/api/something/that/is/longer/x": [PAGE],
    }.items():
        answer = ask("asgi", Plan(), path, headers={"origin": PAGE}, rules=rules)
        assert shared == answer.lines("access-control-allow-origin")


def test_cve_2024_6844_a_plus_is_a_plus():
    """Flask-Cors read `+` of a path as a blank, so that rules of other paths held."""
    rules = 'share: [{id: a, when: {path: "/a+b", origin: "https://app.example"}, action: grant}]'
    found = {path: ask("asgi", Plan(), path, headers={"origin": PAGE}, rules=rules).lines("access-control-allow-origin")
             for path in ("/a+b", "/a b", "/a%20b", "/a%2bb", "/a%2520b")}  # fmt: skip

    assert ([PAGE], [], [], []) == tuple(found[path] for path in ("/a+b", "/a b", "/a%20b", "/a%2520b"))


@pytest.mark.parametrize("form", ["asgi", "wsgi"])
def test_cve_2024_6866_paths_have_a_case(form):
    """Flask-Cors matched paths in any case, so that a grant of one path was one of another."""
    for path in ("/OWN", "/Own", "/own", "/oWN"):
        answer = ask(form, Plan(), path, headers={"origin": PAGE})
        assert (path == "/own") == bool(answer.shared), path


def test_cve_2024_1681_nobody_writes_lines_into_a_log(caplog):
    """Flask-Cors logged the path as it came, line breaks too."""
    hostile = "/own\r\nERROR root: all is lost\x1b[2J"
    lines = []

    class Sink:
        def write(self, batch):
            lines.extend(batch)

        def close(self):
            """Nothing is open."""

    log = DecisionLog(Sink(), sample_allow=1)
    asked = {"origin": f"{FOREIGN}\r\nERROR root", "x-request-id": "a\r\nERROR", "user-agent": "x\r\nERROR"}
    caplog.set_level(logging.DEBUG)
    ask("asgi", Plan(raises=OSError("broken")), hostile, headers=asked, log=log)
    ask("asgi", Plan(raises=OSError("broken")), "/own", headers=asked | {"origin": PAGE}, log=log)
    assert log.flush(10)
    log.close()

    assert 2 == len(lines)
    assert [] == [line for line in lines if b"\n" in line.strip(b"\n") or b"\r" in line or b"\x1b" in line]
    assert [] == [record for record in caplog.records if "\r" in record.getMessage() or "ERROR" in record.getMessage()]


def test_rs_cors_10_vary_is_there_without_an_origin():
    """A cache that kept the answer without Vary gave it to pages that may read."""
    for headers in ({}, {"origin": FOREIGN}, {"origin": PAGE}, {"origin": "null"}):
        for status in (200, 304, 404, 500):
            answer = ask("asgi", Plan(status=status), headers=headers)
            assert ["origin"] == answer.vary


def test_rs_cors_184_gateways_split_the_list():
    """Several lines of Access-Control-Request-Headers are one list, in order and capped together."""
    name = "access-control-request-headers"
    rows = {
        ("authorization", "x-a"): 204, ("authorization,x-a", ""): 204, ("x-a", "authorization"): 403,
        ("authorization", "x-b"): 403, ("authorization", "x-a", "x-a"): 403, ("",) * 64: 403,
    }  # fmt: skip
    for lines, status in rows.items():
        headers = [*ASKS.items(), *((name, line) for line in lines)]
        answer = ask("asgi", Plan(), method="OPTIONS", headers=headers)
        assert (status, status == 204) == (answer.status, bool(answer.shared)), lines


def test_rs_cors_198_and_jub0bs_14_no_answer_writes_into_the_next():
    """Both shared one slice of header lines between requests. Whoever changes the lists of one answer changes no other;
    `test_share_isolation` does it from threads."""
    kept, engine = [], Engine(Ruleset.from_text(RULES))

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def spoil(scope, receive, send):
        async def sent(message):
            await send(message | {"headers": list(message["headers"])} if "headers" in message else message)
            for lines in (message["headers"],) if "headers" in message else ():
                kept.append(lines)
                lines.append((b"access-control-allow-origin", b"*"))
                del lines[0]

        await asgi.Gobanfast(app, engine)(scope, receive, sent)

    for _ in range(3):
        for method, headers in (("GET", {"origin": PAGE}), ("OPTIONS", ASKS)):
            answer = ask_asgi(spoil, "/own", method, headers.items())
            assert [PAGE] == answer.lines("access-control-allow-origin")
    assert 6 == len({id(lines) for lines in kept})


def test_starlette_a_text_is_no_list():
    """Starlette given a text for `allow_origins` lets in every part of it. Here one text is one origin."""
    parts = [PAGE[:end] for end in range(1, len(PAGE))] + [PAGE[start:] for start in range(1, len(PAGE))]

    assert granted(f'"{PAGE}"', PAGE)
    assert [] == [part for part in parts if granted(f'"{PAGE}"', part)]


@pytest.mark.parametrize("origin", ["null", "https://evil.example", "http://app.example", "https://a.com/../x?y"])
def test_starlette_and_flask_cors_reflect_nobody(origin):
    """Both give whoever asks his own origin, and `null`, for a star with credentials. `null` does not load."""
    assert not granted([PAGE], origin)
    assert "null" in problems(GRANT % '["null"]')
    answer = ask("asgi", Plan(), "/public", headers={"origin": origin})
    assert ["*"] == answer.lines("access-control-allow-origin")
    assert [] == answer.lines("access-control-allow-credentials")


def test_django_cors_headers_a_regex_is_the_whole_text():
    """`re.match` leaves the end open, so that app.example.evil.com is let in, and junk goes with it."""
    pattern = [r"re:https://[a-z]+\.app\.example"]
    open_pattern = [r"re:https://[a-z]+\.app\.example.*"]

    assert granted(pattern, "https://a.app.example")
    for origin in ("https://a.app.example.evil.com", "https://a.app.example:81", "xhttps://a.app.example",
                   "https://a.app.example\n", "https://aXapp.example"):  # fmt: skip
        assert not granted(pattern, origin)
    for junk in (
        "https://a.app.example/../x?y",
        "https://a.app.example/",
        "https://a.app.example#",
        "https://a.app.exampl\xe9",
    ):
        assert not granted(open_pattern, junk)


def socket(path, host, origin):
    """How a WebSocket is answered."""
    sent = []

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message["type"])

    headers = [(b"host", host.encode()), *([(b"origin", origin.encode())] if origin else [])]
    scope = {"type": "websocket", "path": path, "headers": headers, "scheme": "ws", "client": ("127.0.0.1", 1)}
    asyncio.run(asgi.Gobanfast(app, Engine(Ruleset.from_text(RULES)))(scope, receive, send))
    return sent


def test_ghsa_4643_wpgq_w329_a_websocket_has_an_origin():
    """Guards that look at HTTP alone let any page open a socket with the visitor's cookies."""
    assert ["websocket.close"] == socket("/own", "api.example", FOREIGN) == socket("/plain", "api.example", PAGE)
    assert ["websocket.accept"] == socket("/own", "api.example", PAGE) == socket("/own", "api.example", None)


def test_ghsa_9h52_p55h_vw2f_a_rebound_name_is_refused():
    """MCP servers on this machine answered pages whose name was made to mean it. The browser calls that same-origin, so
    the host alone tells: with its port, over HTTP and WebSocket, preflights too, and two of them are none."""
    refused = {"rebound.example", "api.example.evil.example", "api.example:8000", "127.0.0.1", "", "api.example,evil"}
    engine = Engine(Ruleset.from_text(RULES))
    for host in ("api.example", "API.example", "api.example:443", *refused):
        found = []
        for method, headers in (("GET", {}), ("POST", {"origin": f"http://{host}"}), ("OPTIONS", ASKS)):
            plan = Plan()
            app = asgi.Gobanfast(_application(plan), engine)
            answer = ask_asgi(app, "/hosts", method, [("host", host), *headers.items()])
            found.append((answer.status, plan.calls))
        assert ([(421, 0)] if host in refused else [(200, 1)]) * 3 == found, host
    twice = [("host", "api.example"), ("host", "rebound.example")]
    assert 421 == ask_asgi(asgi.Gobanfast(_application(Plan()), engine), "/hosts", "GET", twice).status
    assert ["websocket.close"] == socket("/hosts", "rebound.example", "http://rebound.example")


def _application(plan):
    async def app(scope, receive, send):
        plan.calls += 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    return app
