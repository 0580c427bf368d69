"""One browser is one fingerprint: recorded requests, real browsers, tools, and crowds behind one address."""

from __future__ import annotations

import itertools
import json
import re
from collections import defaultdict
from pathlib import Path

import pytest

from browsers import BROWSERS, record
from gobanfast import Engine, fingerprint
from gobanfast._core.headers import HeaderPlan
from gobanfast.frontends.challenge import Challenge
from oracle import headers as oracle
from servers import WAIT, certificate, listening, program, run  # noqa: F401

ROOT = Path(__file__).resolve().parents[1]
README = ROOT.parent / "README.md"
MOST = 2  # fingerprints of one browser
WAYS = {
    "h1": {},
    "plain": {"host": "plain.test"},
    "tls": {"tls": True},
    "h2": {"tls": True, "protocols": ("h2",)},
}
KINDS = (
    "/", "/a.css", "/a.js", "/m.js", "/pre.woff2", "/g.woff2", "/i.png", "/c.png", "/frame.html", "/o.svg", "/v.mp4",
    "/s.mp3",
    "/t.vtt", "/api/j", "/api/p", "/api/d", "/api/r", "/cors", "/api/upload", "/api/x", "/events", "/beacon", "/alive",
    "/w.js", "/imported.js", "/inworker", "/shared.js", "/ws", "/dyn.js", "/form", "/icon.png",
)  # fmt: skip
CHROME = (
    b"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/%d.0.0.0 Safari/537.36"
)
LANGUAGES = (b"en-US,en;q=0.9", b"de-DE,de;q=0.9,en;q=0.8", b"fr-FR,fr;q=0.9")

# What each sends for one GET, as read off a socket; Host, Connection and what the caller adds left out.
TOOLS = {
    "curl": [("user-agent", "curl/8.5.0"), ("accept", "*/*")],
    "curl --compressed": [
        ("user-agent", "curl/8.5.0"), ("accept", "*/*"), ("accept-encoding", "deflate, gzip, br, zstd"),
    ],
    "wget": [("user-agent", "Wget/1.21.3"), ("accept", "*/*"), ("accept-encoding", "identity")],
    "requests": [
        ("user-agent", "python-requests/2.32.3"), ("accept-encoding", "gzip, deflate"), ("accept", "*/*"),
    ],
    "httpx with brotli and zstd": [
        ("accept", "*/*"), ("accept-encoding", "gzip, deflate, br, zstd"), ("user-agent", "python-httpx/0.28.1"),
    ],
    "aiohttp with brotli": [
        ("accept", "*/*"), ("accept-encoding", "gzip, deflate, br"), ("user-agent", "Python/3.11 aiohttp/3.9.5"),
    ],
    "urllib": [("accept-encoding", "identity"), ("user-agent", "Python-urllib/3.11")],
    "go": [("user-agent", "Go-http-client/1.1"), ("accept-encoding", "gzip")],
    "java": [("user-agent", "Java-http-client/17.0.9")],
    "node": [
        ("accept", "*/*"), ("accept-language", "*"), ("sec-fetch-mode", "cors"), ("user-agent", "node"),
        ("accept-encoding", "gzip, deflate"),
    ],
    "axios": [
        ("accept", "application/json, text/plain, */*"), ("user-agent", "axios/1.7.2"),
        ("accept-encoding", "gzip, compress, deflate, br"),
    ],
    "scrapy": [
        ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"), ("accept-language", "en"),
        ("user-agent", "Scrapy/2.11.2 (+https://scrapy.org)"), ("accept-encoding", "gzip, deflate, br, zstd"),
    ],
    "okhttp with an agent of its own": [("user-agent", "okhttp/4.12.0"), ("accept-encoding", "gzip")],
}  # fmt: skip


def cases():
    """Recorded requests by browser and way: (http, method, path, headers)."""
    data = json.loads((ROOT / "cases/browser_requests.json").read_text())
    found = defaultdict(list)
    for item in data["requests"]:
        pairs = [(name.encode(), data["values"][number].encode()) for name, number in item["headers"]]
        found[item["browser"], item["way"]].append((item["http"], item["method"], item["path"], pairs))
    return found


RECORDED = cases()


def as_another(pairs, agent, language):
    """A browser's request as another version or another person's browser makes it."""
    changed = {b"user-agent": agent, b"accept-language": language}
    version = re.search(rb"Chrome/(\d+)", agent)[1]
    found = [(name, changed.get(name, value)) for name, value in pairs]
    return [(name, re.sub(rb'"156"', b'"%s"' % version, value)) for name, value in found]


def page(agent, language):
    """One rich page: all kinds of request of one Chromium, as another one makes them."""
    return [as_another(pairs, agent, language) for *_, pairs in RECORDED["chromium", "h2"]]


def readme_engine(tmp_path):
    blocks = re.findall(r"```yaml\n(.*?)```", README.read_text(), re.DOTALL)
    (tmp_path / "rules.yaml").write_text(next(text for text in blocks if "distinct_fingerprints" in text))
    return Engine.load(tmp_path / "rules.yaml")


@pytest.mark.parametrize("browser", ["chromium", "firefox"])
def test_recorded_browser_is_one_fingerprint(browser):
    """Every kind of request, in the clear and over TLS, HTTP/1.1 and HTTP/2, ASGI and WSGI, is one fingerprint, where
    two are the most; the shapes of its requests are many."""
    requests = [item for (name, _), items in RECORDED.items() if name == browser for item in items]

    found = {fingerprint(pairs) for *_, pairs in requests}
    environs = {fingerprint(oracle.environ(pairs)) for *_, pairs in requests}

    assert len(requests) > 60
    assert len(found) == 1 <= MOST
    assert found == environs
    assert len({HeaderPlan().shape(pairs, http) for http, _, _, pairs in requests}) > 20


@pytest.mark.parametrize(
    "added", [b"dnt", b"sec-gpc", b"save-data", b"priority", b"cookie", b"range", b"x-a", b"expect"]
)
def test_what_only_some_requests_have_is_not_in_it(added):
    """A header that a browser sends with some of its requests leaves its fingerprint as it is."""
    for *_, pairs in RECORDED["chromium", "h2"]:
        assert fingerprint(pairs) == fingerprint([*pairs, (added, b"1")]) == fingerprint([(added, b"1"), *pairs])


def test_runs_of_blanks_count_as_one():
    """Blanks and tabs around a value, and runs of them inside, change neither fingerprint nor shape."""
    *_, pairs = RECORDED["chromium", "h2"][0]
    spread = [(name, b" \t" + value.replace(b" ", b" \t  ") + b"  ") for name, value in pairs]

    assert (fingerprint(pairs), HeaderPlan().shape(pairs)) == (fingerprint(spread), HeaderPlan().shape(spread))


def test_tools_differ_from_browsers_and_each_other():
    """Each tool has a fingerprint of its own, and each version and language of a browser."""
    lists = [[(name.encode(), value.encode()) for name, value in pairs] for pairs in TOOLS.values()]
    lists += [pairs for items in RECORDED.values() for *_, pairs in items[:1]]
    made = page(CHROME % 155, LANGUAGES[0])[0], page(CHROME % 156, LANGUAGES[0])[0], page(CHROME % 156, LANGUAGES[1])[0]

    assert len(TOOLS) + 2 + 3 == len({fingerprint(pairs) for pairs in [*lists, *made]})


def test_tools_that_copy_an_agent_differ():
    """Under one copied User-Agent no tool has the browser's fingerprint, and tools that ask in different ways differ;
    only Go and okhttp, which say the same, are one."""
    agent = dict(RECORDED["chromium", "h2"][0][3])[b"user-agent"]
    copied = {
        tool: fingerprint([(n.encode(), agent if n == "user-agent" else v.encode()) for n, v in pairs])
        for tool, pairs in TOOLS.items()
    }

    assert fingerprint(RECORDED["chromium", "h2"][0][3]) not in copied.values()
    same = {frozenset((a, b)) for a, b in itertools.combinations(copied, 2) if copied[a] == copied[b]}
    assert {frozenset(("go", "okhttp with an agent of its own"))} == same


def test_a_shape_stays_under_other_agents():
    """A tool that changes its User-Agent keeps its shape, which is no browser's."""
    browsers = {HeaderPlan().shape(pairs) for items in RECORDED.values() for *_, pairs in items}
    for pairs in TOOLS.values():
        made = {
            HeaderPlan().shape([(n.encode(), b"a/%d" % i if n == "user-agent" else v.encode()) for n, v in pairs])
            for i in range(5)
        }
        assert len(made) == 1
        assert not made & browsers


@pytest.mark.parametrize("people", [6, 60])
def test_a_crowd_behind_one_address_is_let_in(tmp_path, people):
    """Nobody is banned by the README's rules when so many people, each with a browser unlike the others', open a rich
    page within one minute behind one address."""
    engine = readme_engine(tmp_path)
    now = 1000.0
    pages = [page(CHROME % (100 + person // 3), LANGUAGES[person % 3]) for person in range(people)]
    assert people == len({fingerprint(made[0]) for made in pages})
    for turn in itertools.zip_longest(*pages):
        for headers in turn:
            now += 50 / (people * len(pages[0]))
            assert "allow" == engine.decide("203.0.113.7", sni="www.shop.example", headers=headers, now=now).action
    assert not list(engine.bans(now=now))


@pytest.mark.parametrize("what", ["agents", "languages", "both", "hints too", "agents of a browser"])
def test_who_rotates_is_banned(tmp_path, what):
    """A client that invents a User-Agent, a language or both for each of its requests is banned within a minute."""
    engine = readme_engine(tmp_path)
    for turn in range(120):
        agent = CHROME % (turn if what != "languages" else 1)
        language = b"en;q=0.%d" % turn if what in ("languages", "both") else LANGUAGES[0]
        headers = [(b"user-agent", agent), (b"accept-language", language), (b"accept-encoding", b"gzip, deflate")]
        if what == "hints too":
            headers.append((b"sec-ch-ua", b'"Chromium";v="%d"' % turn))
        elif what == "agents of a browser":
            headers = page(agent, language)[turn % 20]
        said = engine.decide("203.0.113.8", sni="www.shop.example", headers=headers, now=1000 + turn * 0.4)

    assert "ban" == said.action
    assert ["203.0.113.8"] == [ban.key for ban in engine.bans(now=1048)]


@pytest.mark.parametrize("bind", ["fingerprint", "client_fingerprint"])
@pytest.mark.parametrize("browser", ["chromium", "firefox"])
def test_a_pass_holds_for_what_a_page_loads(browser, bind):
    """A pass that a document earned is good for every other request of that browser, and for no other browser's."""
    challenge = Challenge(["k" * 16], bind=bind)
    requests = [pairs for (name, _), items in RECORDED.items() if name == browser for *_, pairs in items]
    cookie = challenge.cookies("192.0.2.1", fingerprint(requests[0]), secure=True)[0][1].decode().partition(";")[0]

    assert {"passed"} == {challenge.check(cookie, "192.0.2.1", fingerprint(pairs)) for pairs in requests}
    other = RECORDED["firefox" if browser == "chromium" else "chromium", "h2"][0][3]
    assert challenge.check(cookie, "192.0.2.1", fingerprint(other)) is None


# ---- real browsers


@pytest.fixture(scope="module")
def visits(tmp_path_factory, certificate):  # noqa: F811
    """Records a browser by a way once: its requests."""
    known = {}

    def visit(browser, way):
        if (browser, way) not in known:
            options = dict(WAYS[way])
            if options.pop("tls", False):
                options["certificate"] = certificate
            folder = tmp_path_factory.mktemp(f"{browser}-{way}") / "profile"
            known[browser, way] = record(browser, folder, **options)
        return known[browser, way]

    return visit


@pytest.mark.parametrize("browser", BROWSERS)
def test_real_browser_is_one_fingerprint(visits, browser):
    """A page with every kind of request, opened over each way: at most two fingerprints of one browser altogether.

    hypercorn drops an HTTP/2 connection when a stream is reset at a bad moment, and requests with it: each kind has to
    come by some way.
    """
    found, kinds = set(), set()
    for way in WAYS:
        sent = visits(browser, way)
        assert len(sent) > 30
        kinds |= {request.path for request in sent}
        assert {"2" if way == "h2" else "1.1"} == {request.http for request in sent}
        found |= {fingerprint(list(request.headers)) for request in sent}

    assert set(KINDS) <= kinds
    assert 1 <= len(found) <= MOST


def test_real_browsers_and_curl_differ(visits):
    """Chromium, Firefox and curl have nothing in common; curl with a copied User-Agent is no browser either."""
    sent = {browser: visits(browser, "h1") for browser in BROWSERS}
    found = [{fingerprint(list(request.headers)) for request in requests} for requests in sent.values()]
    agents = (None, sent["chromium"][0].get(b"user-agent").decode())
    found += [{fingerprint(curl_request(agent))} for agent in agents]

    assert sum(map(len, found)) == len(set().union(*found))


def curl_request(agent):
    """Headers of curl, read off the socket."""
    import threading

    with listening() as server:
        taken = []

        def serve():
            connection, _ = server.accept()
            with connection:
                taken.append(connection.recv(65536))
                connection.sendall(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        more = [] if agent is None else ["-A", agent]
        run(program("curl"), "-s", "--noproxy", "*", *more, f"http://127.0.0.1:{server.getsockname()[1]}/")
        thread.join(WAIT)
    lines = taken[0].split(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    return [(name, value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
