"""Chromium and Firefox before share rules, on uvicorn, hypercorn with HTTP/2, gunicorn and Django: what pages get."""

from __future__ import annotations

import json
import time
from importlib.util import find_spec

import pytest

from browsers import BROWSERS, run_until
from servers import certificate  # noqa: F401 - a fixture
from test_http_servers import free_port, python, spawned

LAB = "e2e.share_lab"
SERVERS = {
    "uvicorn": lambda port, _: ["uvicorn", f"{LAB}:asgi", "--port", f"{port}"],
    "hypercorn": lambda port, files: [
        "hypercorn", f"{LAB}:asgi", "--bind", f"127.0.0.1:{port}",
        "--certfile", f"{files[0]}", "--keyfile", f"{files[1]}",
    ],
    "gunicorn": lambda port, _: ["gunicorn", f"{LAB}:wsgi", "--bind", f"127.0.0.1:{port}", "--threads", "16"],
    "django": lambda port, _: ["gunicorn", f"{LAB}:django()", "--bind", f"127.0.0.1:{port}", "--threads", "16"],
}  # fmt: skip

PAGE = """<!doctype html><title>t</title><iframe name=frame></iframe><script type=module>
const {protocol, port, hostname} = location;
const at = name => `${protocol}//${name}:${port}`;
const api = at("api.app.localhost"), own = hostname === "www.app.localhost";
const quietly = promise => Promise.race([promise, new Promise(done => setTimeout(done, 5000))]);
const read = async (path, options) => {
  try {
    const got = await fetch(api + path, {cache: "no-store", ...options});
    const text = await got.text();
    return {status: got.status, text, names: ["x-b", "x-c"].filter(name => got.headers.has(name))};
  } catch { return null; }
};
const opened = (base, path) => new Promise(done => {
  const socket = new WebSocket(base.replace("http", "ws") + path);
  socket.onmessage = event => { socket.close(); done(event.data); };
  socket.onerror = () => done(null);
});
const heard = () => new Promise(done => {
  const source = new EventSource(api + "/creds/events", {withCredentials: true});
  source.onmessage = event => { source.close(); done(event.data); };
  source.onerror = () => { source.close(); done(null); };
});
const report = {};
report.login = await read("/creds/login", {credentials: "include"});
for (const path of ["creds", "plain", "public", "elsewhere"])
  for (const credentials of ["omit", "same-origin", "include"])
    report[`${path} ${credentials}`] = await read(`/${path}/read`, {credentials});
for (const turn of [1, 2])
  report[`put ${turn}`] = await read("/creds/put", {method: "PUT", credentials: "include", cache: "default",
                                                headers: {"x-a": "1"}});
report.delete = await read("/creds/delete", {method: "DELETE", credentials: "include"});
report.header = await read("/creds/header", {credentials: "include", headers: {"x-d": "1"}});
report.fails = await read("/creds/fails", {credentials: "include"});
report.breaks = await read("/creds/breaks", {credentials: "include"});
report.heard = await quietly(heard());
report.socket = await quietly(opened(api, `/creds/socket-of-${hostname}`));
report.socket_plain = await quietly(opened(api, `/plain/socket-of-${hostname}`));
report.socket_own = await quietly(opened(at(hostname), `/creds/own-socket-of-${hostname}`));
await quietly(fetch(at("plain.test") + `/creds/rebound-${hostname}`, {mode: "no-cors"}).catch(() => 0));
const form = document.createElement("form");
Object.assign(form, {method: "post", action: api + `/creds/form-of-${hostname}`, target: "frame"});
document.body.append(form);
const loaded = new Promise(done => { document.querySelector("iframe").onload = done; });
form.submit();
await quietly(loaded);
await fetch("/report", {method: "POST", body: JSON.stringify({hostname, report})});
if (own) location = at("www.evil.localhost") + "/page";
</script><body></body>"""


class Log:
    """What the server noted; `wait` for the reports of both pages."""

    def __init__(self, path):
        self.path = path

    def lines(self):
        return [json.loads(line) for line in self.path.read_text().splitlines() if line.endswith("}")]

    def wait(self, seconds):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if sum("report" in line for line in self.lines()) == 2:
                return True
            time.sleep(0.1)
        return False


class Visit:
    """What the pages found, and what the server saw."""

    def __init__(self, server, lines):
        self.server, self.lines = server, lines
        reports = {line["report"]["hostname"]: line["report"]["report"] for line in lines if "report" in line}
        self.own, self.evil = reports["www.app.localhost"], reports["www.evil.localhost"]

    def seen(self, path, method=None):
        """(method, status, whether the application was asked) of the requests for a path, in order."""
        return [(it["method"], it["status"], it["called"]) for it in self.lines
                if it["path"] == path and method in {None, it["method"]}]  # fmt: skip


@pytest.fixture(scope="module", params=[f"{browser} {server}" for browser in BROWSERS for server in SERVERS])
def visit(request, tmp_path_factory, certificate):  # noqa: F811 - the fixture
    """A browser's visit to a server."""
    browser, server = request.param.split()
    port, folder = free_port(), tmp_path_factory.mktemp(server)
    command = SERVERS[server](port, certificate)
    for module in {command[0], server}:
        if find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    tls = certificate if server == "hypercorn" else None
    (folder / "page.html").write_text(PAGE)
    (folder / "log").touch()
    (folder / "profile").mkdir()
    url = f"http{'s' if tls else ''}://www.app.localhost:{port}/"
    opened = BROWSERS[browser](folder / "profile", url, tls)
    opened[-1] += "page"
    log = Log(folder / "log")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAB_LOG", str(folder / "log"))
        patch.setenv("LAB_PAGE", str(folder / "page.html"))
        with spawned(*python("-m", *command), port=port):
            assert run_until(log, opened), log.lines()
    return Visit(server, log.lines())


def test_who_reads_what_with_which_cookies(visit):
    """The page of ours reads with cookies where credentials are granted, without where they are not; a foreign page
    what everybody may, and what is not owned; nobody a header that is not listed."""
    cookie = '"session=1"'
    without = {"status": 200, "text": "null", "names": []}
    with_cookie = {"status": 200, "text": cookie, "names": ["x-b"]}
    open_to_all = {"status": 200, "text": "null", "names": ["x-b", "x-c"]}  # of the application's own lines
    modes = ("omit", "same-origin", "include")

    def of(report, path):
        return [report[f"{path} {mode}"] for mode in modes]

    assert 200 == visit.own["login"]["status"]
    assert [without | {"names": ["x-b"]}] * 2 + [with_cookie] == of(visit.own, "creds")
    assert [[without, without, None]] * 2 == [of(visit.own, path) for path in ("plain", "public")]
    assert [[None] * 3] * 2 == [of(visit.evil, path) for path in ("creds", "plain")]
    assert [without, without, None] == of(visit.evil, "public")
    assert [open_to_all, open_to_all, None] == of(visit.own, "elsewhere") == of(visit.evil, "elsewhere")


def test_one_preflight_for_two_writes(visit):
    """`max_age` spares the second; what is not granted gets no further than the preflight, in no page."""
    assert [200, 200] == [visit.own[f"put {turn}"]["status"] for turn in (1, 2)]
    own = [("OPTIONS", 204, False), ("PUT", 200, True), ("PUT", 200, True)]
    seen = visit.seen("/creds/put")  # a server of threads may write the line of the PUT before that of its preflight
    assert sorted(own + [("OPTIONS", 403, False)] * 2) == sorted(seen)
    assert (None, None) == (visit.own["delete"], visit.own["header"])
    for path in ("/creds/delete", "/creds/header"):
        assert [("OPTIONS", 403, False)] * 2 == visit.seen(path)


def test_an_error_is_readable_for_who_may_read(visit):
    """The page of ours sees a 500, a foreign one nothing."""
    assert (500, None) == (visit.own["fails"]["status"], visit.evil["fails"])
    if visit.server == "gunicorn":  # WSGI alone can still answer behind its start
        assert (500, None) == (visit.own["breaks"]["status"], visit.evil["breaks"])


def test_eventsource_with_credentials(visit):
    """The stream opens, with the cookie, for the page that may read; it never asks first."""
    assert ("session=1", None) == (visit.own["heard"], visit.evil["heard"])
    assert [] == visit.seen("/creds/events", "OPTIONS")


def test_sockets_of_pages(visit):
    """A grant with credentials and the own page open one; a foreign page, or a grant without, never reaches the
    application. Under WSGI nobody answers a handshake, but who may asks."""
    speaks = visit.server in {"uvicorn", "hypercorn"}
    status = 101 if speaks else 200
    for host, granted in (("www.app.localhost", True), ("www.evil.localhost", False)):
        report = visit.own if granted else visit.evil
        expected = ("WEBSOCKET", status, True) if granted else ("WEBSOCKET", 403, False)
        assert [expected] == visit.seen(f"/creds/socket-of-{host}"), host
        assert [("WEBSOCKET", 403, False)] == visit.seen(f"/plain/socket-of-{host}")
        assert [("WEBSOCKET", status, True)] == visit.seen(f"/creds/own-socket-of-{host}")
        hello = "hello" if speaks else None
        assert (hello if granted else None, None) == (report["socket"], report["socket_plain"])
        assert hello == report["socket_own"]


def test_forms_of_other_sites(visit):
    """A cross-site POST, which no browser stops, is refused before the application; one of ours goes through."""
    assert [("POST", 200, True)] == visit.seen("/creds/form-of-www.app.localhost")
    assert [("POST", 403, False)] == visit.seen("/creds/form-of-www.evil.localhost")


def test_a_rebound_name_is_refused(visit):
    """A name of somebody else that means this machine: 421, and the application is not asked."""
    for host in ("www.app.localhost", "www.evil.localhost"):
        seen = visit.seen(f"/creds/rebound-{host}")
        assert {("GET", 421, False)} == set(seen), seen


def test_http_2_is_spoken(visit):
    """Under TLS, so that `:authority` is the host."""
    spoken = {it["http"] for it in visit.lines if it["method"] == "GET"}

    assert ({"2"} if visit.server == "hypercorn" else {"1.1"}) == spoken
