"""Record what real browsers send: a page with every kind of request, served by hypercorn to Chromium or Firefox."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from servers import in_thread, listening

SECONDS = 60  # a browser may take to start and to ask for everything

CHROMIUM = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync", "--disable-quic",
    "--disable-background-networking", "--disable-component-update", "--ignore-certificate-errors",
    "--autoplay-policy=no-user-gesture-required", "--host-resolver-rules=MAP *.test 127.0.0.1",
)  # fmt: skip
FIREFOX = {
    "app.normandy.enabled": False, "app.update.enabled": False, "browser.shell.checkDefaultBrowser": False,
    "browser.safebrowsing.downloads.enabled": False, "browser.safebrowsing.malware.enabled": False,
    "datareporting.policy.dataSubmissionEnabled": False, "media.autoplay.default": 0,
    "network.captive-portal-service.enabled": False, "network.connectivity-service.enabled": False,
    "network.dns.localDomains": "plain.test,sub.plain.test", "network.http.http3.enable": False,
    "network.prefetch-next": True, "toolkit.telemetry.enabled": False,
    "browser.startup.homepage_override.mstone": "ignore", "browser.aboutwelcome.enabled": False,
}  # fmt: skip
FIREFOX_HOSTS = (
    "localhost", "sub.localhost", "plain.test", "www.app.localhost", "api.app.localhost", "www.evil.localhost",
)  # fmt: skip  # whose certificate it takes unseen

PAGE = """<!doctype html><title>t</title>
<link rel=stylesheet href=/a.css><link rel=icon href=/icon.png><link rel=manifest href=/m.json>
<link rel=preload as=font href=/pre.woff2 crossorigin><link rel=preload as=image href=/pre.png>
<link rel=prefetch href=/next.html><link rel=modulepreload href=/mod.js>
<script src=/a.js></script><script type=module src=/m.js></script>
<img src=/i.png><img src=/i.webp loading=eager><img src=/c.png crossorigin>
<iframe name=f src=/frame.html></iframe><object data=/o.svg type=image/svg+xml></object>
<p class=f>text</p><video src=/v.mp4 preload=auto muted autoplay></video><audio src=/s.mp3 preload=auto></audio>
<video muted><track kind=captions src=/t.vtt default><source src=/v2.webm></video>
<form id=g method=post action=/form target=f><input name=a value=1></form>
<script type=module>
const other = location.origin.replace("://", "://sub.");
const quietly = promise => Promise.race([promise, new Promise(done => setTimeout(done, 4000))]).catch(() => 0);
const once = (target, name) => new Promise(done => { target["on" + name] = target.onerror = done; });
await quietly(fetch("/api/j", {headers: {accept: "application/json"}}));
await quietly(fetch("/api/p", {method: "POST", headers: {"content-type": "application/json", "x-csrf-token": "1"},
                       body: "{}"}));
await quietly(fetch("/api/d", {method: "DELETE"}));
await quietly(fetch("/api/n", {cache: "no-store"}));
await quietly(fetch("/api/r", {headers: {range: "bytes=0-1"}}));
await quietly(fetch("/api/o", {credentials: "omit", referrerPolicy: "no-referrer", priority: "low"}));
await quietly(fetch(other + "/cors", {headers: {"x-asks": "1"}}));
const upload = new FormData(); upload.append("a", new Blob(["1"]), "a.txt");
await quietly(fetch("/api/upload", {method: "POST", body: upload}));
const xhr = new XMLHttpRequest(); xhr.open("GET", "/api/x"); xhr.setRequestHeader("x-requested-with", "XMLHttpRequest");
const answered = once(xhr, "load"); xhr.send(); await quietly(answered);
const events = new EventSource("/events"); await quietly(once(events, "message")); events.close();
navigator.sendBeacon("/beacon", "b");
await quietly(fetch("/alive", {keepalive: true, method: "POST", body: "1"}));
try { const worker = new Worker("/w.js"); await quietly(once(worker, "message")); } catch {}
try { const shared = new SharedWorker("/shared.js"); await quietly(once(shared.port, "message")); } catch {}
try {
  await quietly(navigator.serviceWorker.register("/sw.js")); await quietly(navigator.serviceWorker.ready);
} catch {}
const socket = new WebSocket(location.origin.replace("http", "ws") + "/ws"); await quietly(once(socket, "open"));
socket.close();
await quietly(import("/dyn.js"));
const form = document.getElementById("g"); form.submit();
await new Promise(done => setTimeout(done, 1500));
await fetch("/done");
</script>"""

BODIES = {
    "/": ("text/html", PAGE),
    "/a.css": (
        "text/css", "@font-face{font-family:f;src:url(/g.woff2)} .f{font-family:f} body{background:url(/bg.png)}",
    ),
    "/frame.html": ("text/html", "<p>frame"), "/form": ("text/html", "<p>sent"), "/next.html": ("text/html", "<p>n"),
    "/a.js": ("text/javascript", ""), "/m.js": ("text/javascript", ""), "/mod.js": ("text/javascript", ""),
    "/dyn.js": ("text/javascript", "export default 1"),
    "/w.js": ("text/javascript",
              "importScripts('/imported.js'); fetch('/inworker').finally(() => postMessage(1))"),
    "/imported.js": ("text/javascript", ""),
    "/shared.js": ("text/javascript",
                   "onconnect = e => fetch('/inshared').finally(() => e.ports[0].postMessage(1))"),
    "/sw.js": ("text/javascript",
               "oninstall = e => e.waitUntil(fetch('/insw')); onactivate = e => e.waitUntil(clients.claim())"),
    "/events": ("text/event-stream", "data: 1\n\n"), "/m.json": ("application/manifest+json", '{"name": "m"}'),
    "/o.svg": ("image/svg+xml", '<svg xmlns="http://www.w3.org/2000/svg"/>'),
}  # fmt: skip
ALLOWED = [
    (b"access-control-allow-origin", b"*"), (b"access-control-allow-headers", b"*"),
    (b"access-control-allow-methods", b"*"), (b"cache-control", b"no-store"), (b"set-cookie", b"session=1"),
]  # fmt: skip


@dataclass(frozen=True)
class Sent:
    """One request as a server got it."""

    method: str
    path: str
    http: str
    headers: tuple[tuple[bytes, bytes], ...]

    def get(self, name: bytes) -> bytes | None:
        return dict(self.headers).get(name)


class Recorder:
    """ASGI application that answers the page and what it loads, and keeps every request."""

    def __init__(self):
        self.sent: list[Sent] = []
        self.done = threading.Event()

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": message["type"] + ".complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        pairs = tuple((bytes(name), bytes(value)) for name, value in scope["headers"])
        self.sent.append(Sent(scope.get("method", "GET"), scope["path"], scope["http_version"], pairs))
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await receive()
            return
        kind, body = BODIES.get(scope["path"], ("text/plain", ""))
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind.encode()), *ALLOWED]}
        )
        await send({"type": "http.response.body", "body": body.encode()})
        if scope["path"] == "/done":
            self.done.set()


def hypercorn_on(app, sock, *, certificate=None, protocols=("http/1.1",)):
    """What `in_thread` runs for a hypercorn server on this socket; with a certificate it speaks TLS."""
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    config = Config()
    config.bind = [f"fd://{sock.detach()}"]  # hypercorn closes it
    config.errorlog = None
    config.alpn_protocols = list(protocols)
    config.graceful_timeout = 0.1
    if certificate is not None:
        config.certfile, config.keyfile = map(str, certificate)

    async def run(ready, stopped):
        task = asyncio.create_task(serve(app, config, shutdown_trigger=stopped.wait))
        await asyncio.sleep(0.2)
        ready.set()
        await task

    return run


def chromium(folder, url, certificate=None, *more):
    """Command that opens a page in Chromium with an empty profile."""
    path = shutil.which("chromium") or pytest.skip("chromium is not on PATH")
    return [path, *CHROMIUM, *more, f"--user-data-dir={folder}", url]


def firefox(folder, url, certificate=None, *more):
    """Command that opens a page in Firefox with an empty profile, which trusts the certificate for this URL's host."""
    path = shutil.which("firefox-esr") or shutil.which("firefox") or pytest.skip("firefox is not on PATH")
    folder = Path(folder)
    preferences = "".join(f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in FIREFOX.items())
    (folder / "user.js").write_text(preferences + "".join(more))
    if certificate is not None:
        import ssl

        der = ssl.PEM_cert_to_DER_cert(Path(certificate[0]).read_text())
        digits = hashlib.sha256(der).hexdigest().upper()
        known = ":".join(digits[i : i + 2] for i in range(0, 64, 2))
        port = url.rsplit(":", 1)[1].rstrip("/")
        (folder / "cert_override.txt").write_text("".join(
            f"{host}:{port}:\tOID.2.16.840.1.101.3.4.2.1\t{known}\t\n" for host in FIREFOX_HOSTS
        ))  # fmt: skip
    return [path, "--headless", "--no-remote", "--profile", str(folder), url]


BROWSERS = {"chromium": chromium, "firefox": firefox}


def run_until(done, command):
    """Whether the event comes while a browser runs, within a minute; the browser is ended then."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        return done.wait(SECONDS)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def record(browser, folder, *, host="localhost", certificate=None, protocols=("http/1.1",), more=()):
    """Every request that a browser makes for the page, in the order received."""
    recorder = Recorder()
    folder.mkdir()
    sock = listening()
    url = f"http{'s' if certificate else ''}://{host}:{sock.getsockname()[1]}/"
    try:
        command = BROWSERS[browser](folder, url, certificate, *more)
    except BaseException:  # skipped, where the browser is not installed
        sock.close()
        raise
    with in_thread(hypercorn_on(recorder, sock, certificate=certificate, protocols=protocols)):
        arrived = run_until(recorder.done, command)
    assert arrived, [f"{sent.method} {sent.path}" for sent in recorder.sent]
    return list(recorder.sent)
