"""What Chromium and Firefox do with CORS answers, and how they ask: `gobanfast cors` says the same."""

from __future__ import annotations

import json
from urllib.parse import urlencode

import pytest

pytest.importorskip("typer", reason="the command line needs the extra cli")
pytest.importorskip("h2", reason="asking a server needs the extra cors")
pytest.importorskip("uvicorn", reason="the lab is served by uvicorn")

from typer.testing import CliRunner

import sse_lab
from browsers import BROWSERS, run_until
from gobanfast.cli.app import app

STAR, TRUE, VARY = "access-control-allow-origin: *", "access-control-allow-credentials: true", "vary: origin"
RESUMES, KEY = "access-control-allow-headers: last-event-id", {"x-a": "1"}
ES, FETCH, SSE = CLIENTS = ("EventSource", "fetch", "fetch-SSE")
OWN = "access-control-allow-origin: %s"  # the page's origin

#: Name of a case: query, whether with credentials, headers of the page's script.
CASES = {
    "none": ({}, False, {}),
    "star": ({"h": [STAR]}, False, {}),
    "star-resumes": ({"h": [STAR], "p": [RESUMES]}, False, {}),
    "star-credentials": ({"h": [STAR, TRUE], "p": [RESUMES]}, True, {}),
    "echo": ({"echo": 1, "h": [VARY], "p": [RESUMES]}, False, {}),
    "echo-true": ({"echo": 1, "h": [VARY, TRUE], "p": [RESUMES]}, True, {}),
    "echo-True": ({"echo": 1, "h": [VARY, "access-control-allow-credentials: True"], "p": [RESUMES]}, True, {}),
    "echo-missing": ({"echo": 1, "h": [VARY], "p": [RESUMES]}, True, {}),
    "slash": ({"h": [OWN + "/"], "p": [RESUMES]}, False, {}),
    "two": ({"h": [STAR, OWN]}, False, {}),
    "twice": ({"h": [OWN, OWN]}, False, {}),
    "list": ({"h": [OWN + ", https://b.example"]}, False, {}),
    "null": ({"h": ["access-control-allow-origin: null"]}, False, {}),
    "other": ({"h": ["access-control-allow-origin: https://b.example"]}, False, {}),
    "head-only": ({"d": [STAR]}, False, {}),
    "error": ({"status": 500}, False, {}),
    "error-granted": ({"h": [STAR], "p": [RESUMES], "status": 503}, False, {}),
    "no-content": ({"h": [STAR], "p": [RESUMES], "status": 204}, False, {}),
    "plain": ({"h": [STAR], "p": [RESUMES], "mime": "text/plain"}, False, {}),
    "utf-8": ({"h": [STAR], "p": [RESUMES], "mime": "text/event-stream;charset=UTF-8"}, False, {}),
    "latin1": ({"h": [STAR], "p": [RESUMES], "mime": "text/event-stream;charset=latin1"}, False, {}),
    "exposed": ({"h": [STAR, "access-control-expose-headers: X-A", "x-a: 1", "x-b: 1"], "p": [RESUMES]}, False, {}),
    "exposed-star": ({"h": [STAR, "access-control-expose-headers: *", "x-a: 1"], "p": [RESUMES]}, False, {}),
    "exposed-literal": (
        {"echo": 1, "h": [TRUE, "access-control-expose-headers: *", "x-a: 1"], "p": [RESUMES]}, True, {},
    ),
    "preflight": ({"h": [STAR], "p": ["access-control-allow-headers: X-A,, Last-Event-ID"]}, False, KEY),
    "preflight-star": ({"h": [STAR], "p": ["access-control-allow-headers: *"]}, False, KEY),
    "preflight-literal": ({"echo": 1, "h": [TRUE], "p": ["access-control-allow-headers: *"]}, True, KEY),
    "preflight-missing": ({"h": [STAR], "p": [RESUMES]}, False, KEY),
    "preflight-none": ({"g": [STAR]}, False, KEY),
    "preflight-405": ({"h": [STAR], "pstatus": 405, "p": ["access-control-allow-headers: *"]}, False, KEY),
    "preflight-list": ({"h": [STAR], "p": ['access-control-allow-headers: "x-a"']}, False, KEY),
    "safelisted": ({"h": [STAR]}, False, {"accept-language": "de", "content-type": "text/plain"}),
}  # fmt: skip

#: Where a browser reads more than the command says, on purpose: it names what the other one does.
KNOWN = {("firefox", "latin1", ES)}

PAGE = """<!doctype html><title>t</title><script type=module>
const [api, away, cases] = %s;
const pause = ms => new Promise(done => setTimeout(done, ms));
const read = async (url, credentials, headers) => {
  try {
    const got = await fetch(url, {credentials: credentials ? "include" : "omit", headers, cache: "no-store"});
    return {readable: true, status: got.status, type: got.headers.get("content-type"), names: [...got.headers.keys()]};
  } catch { return {readable: false}; }
};
// opens, then closes at the first event; or leaves a failed one alone, to see whether it asks again
const listen = (url, options, keep) => {
  const found = {opened: false, data: [], errors: []};
  const source = new EventSource(url, options);
  source.onopen = () => { found.opened = true; };
  source.onmessage = event => { found.data.push(event.data + event.lastEventId); if (!keep) source.close(); };
  source.onerror = () => { found.errors.push(source.readyState); };
  return found;
};
const report = {};
const waits = [];
for (const [name, query, credentials, headers] of cases) {
  const url = client => `${api}/case/${name}-${client}?${query}`;
  const mine = report[name] = {};
  waits.push(read(url("fetch"), credentials, headers).then(got => { mine["fetch"] = got; }));
  waits.push(read(url("fetch-SSE"), credentials, {...headers, "last-event-id": "1"}).then(got => {
    mine["fetch-SSE"] = {...got,
      readable: got.readable && got.status === 200 && (got.type || "").startsWith("text/event-stream")};
  }));
  if (!Object.keys(headers).length) mine["EventSource"] = listen(url("EventSource"), {withCredentials: credentials});
  await Promise.all(waits.splice(0));
}
const star = "h=access-control-allow-origin:*";
report.resume = listen(`${api}/case/resume?${star}&resume=1`, {}, true);
report.header = listen(`${api}/case/header?${star}`, {headers: {"x-a": "1"}});
report.same = listen(`/case/same`);
report.redirect = listen(`${api}/case/redirect?${star}&status=302&h=location:${away}/case/target?${star}`);
const home = `${away}/case/home?${star}%%26resume=1`;
report.moved = listen(`${api}/case/moved?${star}&status=302&h=location:${home}`, {}, true);
const trace = {traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"};
report.traced = await read(`${api}/case/traced?${star}&p=access-control-allow-headers:traceparent`, false, trace);
for (const turn of [0, 1, 2]) {
  await fetch(`${api}/case/bypass${turn}?${star}&p=access-control-allow-headers:x-auth-bypass`,
              {headers: {"x-auth-bypass": "1"}}).then(got => got.text());
  await new Promise(done => {
    const source = new EventSource(`${api}/case/after${turn}?${star}`);
    source.onmessage = source.onerror = () => { source.close(); done(); };
  });
}
const frame = document.createElement("iframe");
frame.sandbox = "allow-scripts";
frame.srcdoc = `<script>const s = new EventSource("${api}/case/frame?${star}");
  s.onmessage = () => { s.close(); parent.postMessage("open", "*"); };<` + "/script>";
onmessage = event => { report.frame = event.data; };
document.body.append(frame);
await pause(6500);  // longer than either browser waits before it asks again
await fetch("/report", {method: "POST", body: JSON.stringify(report)});
</script><body></body>"""


@pytest.fixture(scope="module", params=["chromium", "firefox"])
def visit(request, tmp_path_factory):
    """The lab after a browser's visit, its port, and what the page found."""
    folder = tmp_path_factory.mktemp(request.param) / "profile"
    folder.mkdir()
    with sse_lab.running() as (lab, port):
        page = f"http://page.localhost:{port}"
        command = BROWSERS[request.param](folder, f"{page}/page")
        rows = [[name, query_of(name, page), credentials, headers] for name, (_, credentials, headers) in CASES.items()]
        sites = [f"http://127.0.0.1:{port}", f"http://away.localhost:{port}"]
        lab.pages["/page"] = PAGE % json.dumps([*sites, rows])
        assert run_until(lab.reported, command), [f"{it.method} {it.path}" for it in lab.log]
        browser = list(lab.log)
        lab.log.clear()
        yield Visit(request.param, lab, browser, page, port)


class Visit:
    """What a browser did, and the lab to ask again."""

    def __init__(self, browser, lab, log, page, port):
        self.browser = browser
        self.said = {}
        self.log, self.report, self.page, self.port = log, lab.report, page, port

    def asked(self, name, method=None):
        return [it for it in self.log if it.path == f"/case/{name}" and method in {None, it.method}]

    def command(self, name):
        """By client, what `gobanfast cors` says of the same URL; asked once."""
        if name in self.said:
            return self.said[name]
        _, credentials, headers = CASES[name]
        arguments = [
            "cors",
            f"http://127.0.0.1:{self.port}/case/{name}?{query_of(name, self.page)}",
            "-o",
            self.page,
            "--json",
        ]
        arguments += ["--credentials"] * credentials
        for pair in headers.items():
            arguments += ["--header", ": ".join(pair)]
        result = CliRunner().invoke(app, arguments, env={"NO_PROXY": "127.0.0.1"})
        self.said[name] = {one["client"]: one for one in json.loads(result.stdout)["clients"]}
        return self.said[name]


def query_of(name, page):
    query = {key: [line % page if "%s" in line else line for line in value] if isinstance(value, list) else value
             for key, value in CASES[name][0].items()}  # fmt: skip
    return urlencode(query, doseq=True)


def test_pages_read_what_the_command_says(visit):
    """For every answer and client; fetch sees the headers that the command names."""
    wrong = []
    for name, (_, _, headers) in CASES.items():
        found, said = visit.report[name], visit.command(name)
        readable = {client: found[client]["readable"] for client in (FETCH, SSE)}
        if not headers:
            readable[ES] = found[ES]["opened"]
        wrong += [
            f"{name}: {client} is readable: {seen}, the command says {said[client]['sees']}"
            for client, seen in readable.items()
            if seen != said[client]["readable"] and (visit.browser, name, client) not in KNOWN
        ]
        if readable[FETCH]:
            names = ", ".join(sorted(found[FETCH]["names"]))
            wrong += [] if said[FETCH]["sees"].endswith(f"headers {names or '(none)'}") else [f"{name}: {names}"]

    assert [] == wrong


def test_eventsource_never_asks_first_and_fetch_does_once(visit):
    """No OPTIONS for EventSource; one for an SSE client made of fetch, which names last-event-id; fetch as the command
    says."""
    for name, (_, _, headers) in CASES.items():
        assert [] == visit.asked(f"{name}-{ES}", "OPTIONS")
        (preflight,) = visit.asked(f"{name}-{SSE}", "OPTIONS")
        names = sorted({"last-event-id", *headers} - {"accept-language", "content-type"})
        assert ",".join(names).encode() == preflight.headers[b"access-control-request-headers"]
        first = visit.command(name)[FETCH]["walk"][0]["step"]
        assert {"no-preflight": 0, "needs-preflight": 1}[first] == len(visit.asked(f"{name}-{FETCH}", "OPTIONS"))
    (preflight,) = visit.asked("traced", "OPTIONS")
    assert b"traceparent" == preflight.headers[b"access-control-request-headers"]
    assert visit.report["traced"]["readable"]


def test_eventsource_gives_up_at_once(visit):
    """One request, one error event and CLOSED after a CORS failure, a status that is not 200, or another media type."""
    failed = [name for name, (_, _, headers) in CASES.items() if not headers and not visit.report[name][ES]["opened"]]

    assert {"none", "star-credentials", "error", "no-content", "plain", "two"} <= set(failed)
    assert {name: [2] for name in failed} == {name: visit.report[name][ES]["errors"] for name in failed}
    assert dict.fromkeys(failed, 1) == {name: len(visit.asked(f"{name}-{ES}")) for name in failed}


def test_eventsource_resumes_without_asking_first(visit):
    """After a stream that broke it sends Last-Event-ID, still without OPTIONS; 204 ends it."""
    first, then = visit.asked("resume")

    assert ("GET", None) == (first.method, first.headers.get(b"last-event-id"))
    assert ("GET", b"7") == (then.method, then.headers.get(b"last-event-id"))
    assert (["17"], [0, 2]) == (visit.report["resume"]["data"], visit.report["resume"]["errors"])


def test_eventsource_resumes_behind_a_redirect(visit):
    """Chromium asks the target itself, so with the page's origin; Firefox the first URL, so behind it null again."""
    home = visit.asked("home")
    first_url_asked, origin = {"chromium": (1, visit.page.encode()), "firefox": (2, b"null")}[visit.browser]

    assert first_url_asked == len(visit.asked("moved"))
    assert [None, b"7"] == [it.headers.get(b"last-event-id") for it in home]
    assert [b"null", origin] == [it.headers.get(b"origin") for it in home]
    assert [] == visit.asked("home", "OPTIONS")


def test_eventsource_sends_no_header_of_a_script(visit):
    """An option `headers` is passed over."""
    (request,) = visit.asked("header")

    assert visit.report["header"]["opened"]
    assert b"x-a" not in request.headers
    assert b"text/event-stream" == request.headers[b"accept"]


def test_a_connection_carries_no_header_over(visit):
    """A header of one request is not in the next on the same connection."""
    pairs = [(visit.asked(f"bypass{turn}", "GET")[0], visit.asked(f"after{turn}")[0]) for turn in range(3)]

    assert {b"1"} == {first.headers.get(b"x-auth-bypass") for first, _ in pairs}
    assert {None} == {then.headers.get(b"x-auth-bypass") for _, then in pairs}
    assert any(first.port == then.port for first, then in pairs)


def test_origins_that_a_server_sees(visit):
    """Same origin: none. Sandboxed frame, and behind a redirect to another origin: null."""
    page = visit.page.encode()

    assert [page] == [it.headers.get(b"origin") for it in visit.asked("star-EventSource")]
    assert (True, [None]) == (visit.report["same"]["opened"], [it.headers.get(b"origin") for it in visit.asked("same")])
    assert ("open", [b"null"]) == (visit.report["frame"], [it.headers.get(b"origin") for it in visit.asked("frame")])
    assert [page] == [it.headers.get(b"origin") for it in visit.asked("redirect")]
    assert [b"null"] == [it.headers.get(b"origin") for it in visit.asked("target")]
    assert visit.report["redirect"]["opened"]
