"""Event streams in Chromium and Firefox at any pace and in any pieces; what is told of them, right and wrong.

One page opens all streams, some side by side; what it cannot know (preflights, requests that came again) is asserted
from the log of the server.
"""

from __future__ import annotations

import json
from base64 import b64encode
from itertools import product
from urllib.parse import parse_qs, urlencode

import pytest

pytest.importorskip("uvicorn", reason="the lab is served by uvicorn")

import sse_lab
from browsers import BROWSERS, run_until
from gobanfast.frontends.binding import FIELDS, Binding
from gobanfast.sse import encode
from oracle.sse import parse

HOSTS = 6  # names of one server: a browser opens six connections to each
ALL = 10_000

#: Every pace: how long the server waits, how many events, how many bytes of them in a send.
PACES = {
    f"pace-{delay}-{chunks}-{split}": {"delay": delay, "chunks": chunks, "split": split, "cors": "origin"}
    for delay, chunks, split in product((0, 1, 10), (1, 3, 100, ALL), (1, 2, 7, "all"))
}
#: Streams that go on behind a break, with Last-Event-ID.
BREAKS = {
    "break": {"chunks": 20, "drop_after": 7, "retry": 20},
    "break-credentials": {"chunks": 20, "drop_after": 9, "retry": 20, "creds": 1, "split": 3},
    "break-jitter": {"chunks": 30, "drop_after": 11, "retry": 20, "jitter": 5, "split": 1},
}
#: Answers that end an EventSource for good.
FAILURES = {
    "no-cors": {"cors": "none"},
    "two-lines": {"dup_acao": 1},
    "star-with-credentials": {"cors": "wildcard", "creds": 1},
    "unavailable": {"status": 503},
    "nothing": {"status": 204},
    "plain": {"mime": "text/plain"},
    "latin1": {"mime": "text/event-stream;charset=latin1"},
}
LARGE = {"chunks": 100, "pad": 100_000, "cors": "origin"}  # far more than any window of TCP holds

#: What an application may encode, all of it with data, which Firefox wants.
WRITTEN = (
    encode("a\r\nb\rc\n\nd", id="é1", event="näme", retry=86_400_000, comment="one\ntwo"),
    encode("中\u2028文\x85\v\f 😀 : x", id=" 2"),
    encode(" lead", event="b:c"),
    encode("", id=""),
    encode("data: x\n\n: no comment\n", id="1,2;3"),
)
CUT = b"\xef\xbb\xbf" + b"".join(WRITTEN) + b"data: ended otherwise\r\rid: 9\r\ndata: and so\r\n\r\n"

PAGE = """<!doctype html><title>t</title><script type=module>
const [hosts, jobs, cuts, failures, slow] = %s;
const pause = ms => new Promise(done => setTimeout(done, ms));
const at = (turn, path) => hosts[turn %% hosts.length] + path;
const report = {};
// counts events of a race until the stream ends; with `resume` until the server says that there are no more
const listen = (url, {resume, credentials, busy}) => new Promise(done => {
  const found = {opened: 0, count: 0, wrong: 0, errors: []};
  const source = new EventSource(url, {withCredentials: credentials});
  source.onopen = () => { found.opened++; };
  source.onmessage = event => {
    const next = `${++found.count}`;
    if (event.data.trimEnd() !== next || event.lastEventId !== next) found.wrong++;
    if (busy && found.count %% 10 === 0) for (const until = Date.now() + busy; Date.now() < until;);
  };
  source.onerror = () => {
    found.errors.push(source.readyState);
    if (source.readyState === 2 || !resume) { source.close(); done(found); }
  };
});
const read = async (url, id) => {
  const got = await fetch(url, {headers: {"last-event-id": id, accept: "text/event-stream"}, cache: "no-store"});
  return (await got.text()).split("\\n").filter(line => line.startsWith("data:")).map(line => +line.slice(5));
};
const whole = (url, kinds) => new Promise(done => {
  const events = [], source = new EventSource(url);
  const note = event => { events.push([event.type, event.data, event.lastEventId]); };
  for (const kind of kinds) source.addEventListener(kind, note);
  source.onerror = () => { source.close(); done(events); };
});
// a few at a time on each host, or a browser lets them wait for each other
const waiting = jobs.map(([name, url, options], turn) => async () => {
  report[name] = await (options.fetch ? read(at(turn, url), options.fetch) : listen(at(turn, url), options));
});
report.cuts = [];
cuts[0].forEach((url, turn) => waiting.push(async () => { report.cuts[turn] = await whole(at(turn, url), cuts[1]); }));
const started = Date.now();
report.failures = Object.fromEntries(failures.map(([name, url, credentials]) => {
  const found = {opened: false, errors: []}, source = new EventSource(at(0, url), {withCredentials: credentials});
  source.onopen = () => { found.opened = true; };
  source.onerror = () => { found.errors.push(source.readyState); };
  return [name, found];
}));
const run = async () => { for (let job; (job = waiting.shift());) await job(); };
await Promise.all(Array.from({length: 4 * hosts.length}, run));
report.same = await listen("/race/same", {});
report.slow = await listen(at(1, slow[0]), slow[1]);
await pause(Math.max(0, 6500 - (Date.now() - started)));  // longer than either browser waits before it asks again
await fetch("/report", {method: "POST", body: JSON.stringify(report)});
</script>"""


def race(name, query):
    return f"/race/{name}?{urlencode(query)}"


@pytest.fixture(scope="module", params=list(BROWSERS))
def visit(request, tmp_path_factory):
    """(browser, what the page found, the lines of the server's log)."""
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "profile").mkdir()
    log = folder / "log"
    with sse_lab.running(log) as (lab, port):
        hosts = [f"http://h{number}.localhost:{port}" for number in range(HOSTS)]
        jobs = [[name, race(name, query), {}] for name, query in PACES.items()]
        jobs += [[name, race(name, query), {"resume": True, "credentials": "creds" in query}]
                 for name, query in BREAKS.items()]  # fmt: skip
        jobs += [[f"fetch-{split}", race(f"fetch-{split}", {"chunks": 40, "split": split}), {"fetch": "10"}]
                 for split in (1, 2, 7, "all")]  # fmt: skip
        there = hosts[-1] + race("there", {"chunks": 3, "cors": "wildcard"})
        jobs.append(["moved", race("moved", {"redirect": there, "cors": "wildcard"}), {}])
        body = b64encode(CUT).decode()
        cuts = [race("cut", {"body": body, "cut": cut}) for cut in range(1, len(CUT))]
        kinds = sorted({kind for kind, _, _ in parse(CUT).events})
        failing = [[name, race(name, query), "creds" in query] for name, query in FAILURES.items()]
        slow = [race("slow", LARGE), {"busy": 30}]
        lab.pages["/page"] = PAGE % json.dumps([hosts, jobs, [cuts, kinds], failing, slow])
        command = BROWSERS[request.param](folder / "profile", f"http://page.localhost:{port}/page")
        assert run_until(lab.reported, command), log.read_text()[-2000:]
        report = lab.report
    return request.param, report, [json.loads(line) for line in log.read_text().splitlines()]


def asked(visit, name):
    return [line for line in visit[2] if line["path"] == f"/race/{name}"]


def test_no_event_is_lost_or_out_of_order_at_any_pace(visit):
    """However long the server waits, and however few bytes it sends at once: the first is there, and the last. Told
    otherwise: at 10 ms a browser merges chunks and loses the first event."""
    expected = {
        name: {"opened": 1, "count": query["chunks"], "wrong": 0, "errors": [0]} for name, query in PACES.items()
    }

    assert expected == {name: visit[1][name] for name in PACES}


def test_eventsource_never_asks_first(visit):
    """No OPTIONS, with credentials, Last-Event-ID or a redirect neither. Told otherwise: a preflight makes the first
    connection late where the server echoes the origin."""
    names = [*PACES, *BREAKS, *FAILURES, "moved", "there", "slow", "cut"]

    assert {"GET"} == {line["method"] for name in names for line in asked(visit, name)}
    assert {"GET", "OPTIONS"} < {line["method"] for line in visit[2]}
    assert dict.fromkeys(PACES, 1) == {name: len(asked(visit, name)) for name in PACES}
    assert all(
        line["headers"]["origin"].startswith("http://page.localhost:") for name in PACES for line in asked(visit, name)
    )


def test_a_stream_made_of_fetch_asks_first_once(visit):
    """One OPTIONS, which names last-event-id; the stream goes on behind that id, whatever its pieces."""
    for split in (1, 2, 7, "all"):
        first, then = asked(visit, f"fetch-{split}")
        assert ("OPTIONS", "GET") == (first["method"], then["method"])
        assert "last-event-id" == first["headers"]["access-control-request-headers"]
        assert "10" == then["headers"]["last-event-id"]
        assert list(range(11, 41)) == visit[1][f"fetch-{split}"]


def test_no_connection_is_reset_by_a_large_stream(visit):
    """10 MB to a page that has no time to read: one request, every event in order. Told otherwise: the congestion
    window of TCP overflows after 100 chunks and resets the connection."""
    assert {"opened": 1, "count": 100, "wrong": 0, "errors": [0]} == visit[1]["slow"]
    assert 1 == len(asked(visit, "slow"))


def test_a_broken_stream_goes_on_where_it_broke(visit):
    """Each reconnect has the id of the last whole event; half an event is dropped and comes again; 204 is the end."""
    for name, query in BREAKS.items():
        chunks, found = query["chunks"], visit[1][name]
        ids = [None, *(f"{last}" for last in range(query["drop_after"], chunks, query["drop_after"])), f"{chunks}"]

        assert ids == [line["headers"].get("last-event-id") for line in asked(visit, name)]
        assert (chunks, 0, [0] * (len(ids) - 1) + [2]) == (found["count"], found["wrong"], found["errors"])


def test_a_failure_is_for_good(visit):
    """One request, one error, CLOSED, where the page may not read, or status or type are others."""
    name_of = {name: {"opened": False, "errors": [2]} for name in FAILURES}
    requests = {name: len(asked(visit, name)) for name in FAILURES}
    if visit[0] == "firefox":  # which reads any charset as UTF-8
        del name_of["latin1"], requests["latin1"]

    assert name_of == {name: visit[1]["failures"][name] for name in name_of}
    assert dict.fromkeys(name_of, 1) == requests


def test_a_redirected_stream_has_no_origin(visit):
    """Behind a redirect to another origin it is null, which no rule should let in but `*`."""
    assert {"opened": 1, "count": 3, "wrong": 0, "errors": [0]} == visit[1]["moved"]
    assert ["null"] == [line["headers"]["origin"] for line in asked(visit, "there")]


def test_a_bound_token_goes_with_a_stream_of_the_own_page(visit):
    """Issued to the page's POST, which has an Origin, and shown by its EventSource, which has none."""
    bound = Binding(["a key of 16 bytes or more"], **dict.fromkeys(FIELDS, "require"))
    (login,) = [line["headers"] for line in visit[2] if line["path"] == "/report"]
    (stream,) = [line["headers"] for line in asked(visit, "same")]

    assert (True, False) == ("origin" in login, "origin" in stream)
    assert ("matches", (), ()) == bound.check(bound.make(login), stream)
    assert {"opened": 1, "count": 3, "wrong": 0, "errors": [0]} == visit[1]["same"]


def test_a_stream_may_be_cut_at_every_byte(visit):
    """Whatever was encoded, with a byte order mark, in the middle of a letter or of CRLF: the same events, which are
    those that the parser written from the specification reads."""
    events = [list(event) for event in parse(CUT).events]

    assert len(WRITTEN) + 2 == len(events)
    assert [] == [(cut, found) for cut, found in enumerate(visit[1]["cuts"], 1) if found != events]
    assert len(CUT) - 1 == len(visit[1]["cuts"])
    assert {str(cut) for cut in range(1, len(CUT))} == {
        parse_qs(line["query"])["cut"][0] for line in asked(visit, "cut")
    }
