"""Chromium and Firefox: a logout in one frame ends the stream of another, which does not come back; a deploy does."""

from __future__ import annotations

import asyncio
import json
import threading

import pytest

pytest.importorskip("uvicorn", reason="the application is served by uvicorn")

from browsers import BROWSERS, run_until
from gobanfast import Engine, Ruleset
from gobanfast.frontends.asgi import Gobanfast
from gobanfast.sse import HEADERS, encode
from gobanfast.streams import close_all
from servers import in_thread, listening, uvicorn_on

RULES = """
session: {cookie: sid, keys: ["env:LEASE_KEY"]}
share:
- {id: out, when: {path: /events/**, label: revoked}, action: withhold}
- {id: events, when: {path: /events/**, origin: "http://www.app.localhost:PORT"}, action: grant, credentials: true}
"""
PAGE = """<!doctype html><title>t</title><script type=module>
const found = {};
const api = location.origin.replace("www.", "api.");
const listen = (name, path, withCredentials) => new Promise(done => {
  const seen = found[name] = {events: 0, opened: 0, errors: []};
  const source = new EventSource(api + path, {withCredentials});
  source.onopen = () => { seen.opened++; done(source); };
  source.onmessage = () => { seen.events++; };
  source.onerror = () => { seen.errors.push(source.readyState); };
});
const wait = ms => new Promise(done => setTimeout(done, ms));
const until = async test => { for (let turn = 0; turn < 600 && !test(); turn++) await wait(50); };
await fetch(api + "/login", {method: "POST", mode: "no-cors", credentials: "include"});
const out = await listen("out", "/events/mine", true);
const deployed = await listen("deployed", "/events/open", false);
await until(() => found.out.events && found.deployed.events);
await fetch(api + "/deploy", {method: "POST", mode: "no-cors", credentials: "include"});
await until(() => found.deployed.opened === 2 && found.out.opened === 2);
const frame = document.createElement("iframe");  // another document, as another tab
frame.src = api + "/logout";
document.body.append(frame);
await until(() => out.readyState === 2);
await wait(700);
found.states = [out.readyState, deployed.readyState];
await fetch("/report", {method: "POST", body: JSON.stringify(found)});
</script>"""


class Service:
    """A page, its API on another name, and what was asked."""

    def __init__(self) -> None:
        self.log: list[tuple[str, str]] = []
        self.engine: Engine | None = None
        self.report = None
        self.reported = threading.Event()

    async def __call__(self, scope, receive, send):
        path, sid = scope["path"], ""
        for name, value in scope["headers"]:
            if name == b"cookie" and b"sid=" in value:
                sid = value.split(b"sid=")[1].split(b";")[0].decode()
        if path == "/report":
            body = b""
            while (message := await receive())["type"] == "http.request":
                body += message.get("body", b"")
                if not message.get("more_body"):
                    break
            self.report = json.loads(body)
            self.reported.set()
        if path.startswith("/events/"):
            await send({"type": "http.response.start", "status": 200, "headers": list(HEADERS)})
            gone = asyncio.ensure_future(disconnected(receive))
            while not gone.done():
                await send({"type": "http.response.body", "body": encode("x", retry=100), "more_body": True})
                await asyncio.wait([gone], timeout=0.05)
            return
        if path == "/logout":
            self.engine.revoke_session(sid, duration=60)
        if path == "/deploy":
            await close_all(retry=0.2)
        headers = [(b"content-type", b"text/html")]
        if path == "/login":
            headers.append((b"set-cookie", b"sid=ann; Path=/"))
        body = PAGE.encode() if path == "/" else b"ok"
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def disconnected(receive):
    while (await receive())["type"] != "http.disconnect":
        pass


@pytest.mark.parametrize("browser", BROWSERS)
def test_who_is_logged_out_hears_no_more(browser, tmp_path, monkeypatch):
    """The stream of the revoked session ends, asks once more, is told to stop, and never comes back; a deploy before
    that made each stream come back once."""
    import uvicorn

    monkeypatch.setenv("LEASE_KEY", "0123456789abcdef0123456789abcdef")
    service, sock = Service(), listening()
    port = sock.getsockname()[1]
    service.engine = Engine(Ruleset.from_text(RULES.replace("PORT", str(port))))
    asked: list[tuple[str, int]] = []

    class Told:
        def __call__(self, *_): ...

        def finish(self, exchange):
            asked.append((exchange.path, exchange.status))

    guard = Gobanfast(service, service.engine, on_decision=Told())
    config = uvicorn.Config(guard, lifespan="off", log_level="critical", timeout_graceful_shutdown=1)
    (tmp_path / "profile").mkdir()
    with in_thread(uvicorn_on(config, sock)):
        command = BROWSERS[browser](tmp_path / "profile", f"http://www.app.localhost:{port}/")
        assert run_until(service.reported, command), asked
    found = service.report
    assert [2, 1] == found["states"]  # closed, open
    assert (2, 2) == (found["out"]["opened"], found["deployed"]["opened"])
    assert [200, 200, 204] == [status for path, status in asked if path == "/events/mine"]
    assert [0, 0, 2] == found["out"]["errors"]
