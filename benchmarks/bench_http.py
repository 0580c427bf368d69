"""What guarding a web application costs a request: middlewares around one application, and servers under load.

`asgi` and `fastapi` drive the application itself, no server; `wsgi` calls it. A figure is the time of one request of 13
headers from a new address, made of fresh objects, a few requests at a time, just before they are answered; what a
middleware adds is the difference to "bare". `load` puts servers
under `wrk` and tells the time of its processor that a server takes for an answer: what a server with one core loses in
requests a second is the ratio to the bare one.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.bench_headers import BROWSER, copy
from benchmarks.cases import Case, Data, Row, few, timed

SUITE = "http"
CAPTION = "Web requests: ns median (best)"
COUNT = 2000
CONNECTIONS, SECONDS, TURNS = 32, 2, 12
HTTP = "h11"
NOTHING = "Starlette BaseHTTPMiddleware, no-op"
FORWARDED = [(b"x-forwarded-for", b"198.51.100.7"), (b"x-forwarded-proto", b"https"), (b"x-request-id", b"7f3a-1")]
RULES = """
version: 1
trackers: {distinct_fingerprints: {}}
score: {}
"""


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while True:
            event = await receive()
            await send({"type": event["type"] + ".complete"})
            if event["type"] == "lifespan.shutdown":
                return
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})


def wsgi_application(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("content-type", "text/plain"), ("content-length", "2")])
    return [b"ok"]


SHARE = """
share:
  - {id: pages, when: {origin: ["https://app.example.com"]}, action: grant, credentials: true}
"""


def engine(share: str = "") -> Any:
    """100 rules over the starter table, and every kind of live state; and those of `share`."""
    from gobanfast import Engine, Ruleset

    lines = [f"  - {{id: p{i}, action: ban, when: {{prefix: 203.0.{i}.0/24}}}}" for i in range(50)]
    lines += [f'  - {{id: n{i}, action: challenge, when: {{sni: "*.c{i}.top"}}}}' for i in range(25)]
    lines += [
        f"  - {{id: h{i}, action: challenge, when: {{header: {{user-agent: {{contains: tool{i}/}}}}}}}}"
        for i in range(25)
    ]
    return Engine(Ruleset.from_text(RULES + "rules:\n" + "\n".join(lines) + "\n" + share))


def fastapi_application() -> Any:
    from fastapi import FastAPI
    from fastapi.responses import PlainTextResponse

    app = FastAPI()

    @app.get("/")
    async def view() -> PlainTextResponse:
        return PlainTextResponse("ok")

    return app


def guarded(app: Any, peers: tuple[str, ...] = ()) -> Any:
    from gobanfast.frontends.asgi import Gobanfast
    from gobanfast.frontends.trust import Trust

    return Gobanfast(app, engine(), trust=Trust(peers))


def shared(app: Any) -> Any:
    from gobanfast.frontends.asgi import Gobanfast

    return Gobanfast(app, engine(SHARE), trust=())


def with_cors(app: Any) -> Any:
    from starlette.middleware.cors import CORSMiddleware

    return CORSMiddleware(app, allow_origins=["https://example.org"])


def with_base(app: Any) -> Any:
    from starlette.middleware.base import BaseHTTPMiddleware

    class Nothing(BaseHTTPMiddleware):
        async def dispatch(self, request: Any, call_next: Any) -> Any:
            return await call_next(request)

    return Nothing(app)


def with_guard(app: Any) -> Any:
    from guard import SecurityConfig, SecurityMiddleware

    config = SecurityConfig(
        enable_redis=False, rate_limit=10**9, enable_penetration_detection=False, blacklist=["203.0.113.0/24"]
    )
    return SecurityMiddleware(app, config=config)


def with_slowapi(app: Any) -> Any:
    from slowapi import Limiter
    from slowapi.middleware import SlowAPIASGIMiddleware
    from slowapi.util import get_remote_address

    app.state.limiter = Limiter(key_func=get_remote_address, default_limits=["1000000000/minute"])
    app.add_middleware(SlowAPIASGIMiddleware)
    return app


SUBJECTS: dict[str, list[tuple[str, str, Callable[[Any], Any]]]] = {
    "asgi": [
        ("bare", "yardstick", lambda app: app),
        ("gobanfast", "ours", guarded),
        ("gobanfast + share", "ours", shared),
        ("Starlette CORSMiddleware", "peer", with_cors),
        (NOTHING, "peer", with_base),
    ],
    "fastapi": [
        ("bare", "yardstick", lambda app: app),
        ("gobanfast", "ours", guarded),
        ("Starlette CORSMiddleware", "peer", with_cors),
        (NOTHING, "peer", with_base),
        ("fastapi-guard", "peer", with_guard),
        ("slowapi", "peer", with_slowapi),
    ],
}


def scope_of(number: int, peer: str | None, headers: list[tuple[bytes, bytes]], app: Any = None) -> dict[str, Any]:
    """A request, fresh objects all; `peer` None: each number is another client's."""
    address = peer or f"198.51.{number // 250}.{number % 250}"
    return {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "path": "/", "raw_path": b"/", "query_string": b"", "root_path": "", "client": (address, 4711),
        "server": ("127.0.0.1", 80), "headers": copy(headers), "state": {},
        **({"app": app} if app is not None else {}),
    }  # fmt: skip


async def receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(message: Any) -> None:
    pass


async def drive(app: Any, requests: list[dict[str, Any]]) -> None:
    while requests:
        await app(requests.pop(), receive, send)  # and lets go of it, as a server does


def step(app: Any, requests: list[dict[str, Any]]) -> None:
    """The same for what never waits, without a loop: starting one takes as long as many requests."""
    while requests:
        try:
            app(requests.pop(), receive, send).send(None)
        except StopIteration:
            continue
        raise RuntimeError("the application waits")


def cases(data: Data) -> Iterator[Case]:
    loop = asyncio.new_event_loop()
    for group, subjects in SUBJECTS.items():
        for name, kind, wrap in subjects:
            try:
                inner = fastapi_application() if group == "fastapi" else application
                app = wrap(inner)
            except ImportError as error:
                data.skipped[name] = str(error)
                continue
            state = inner if group == "fastapi" else None
            yield asgi_case(loop, group, name, kind, app, partial(scope_of, peer=None, headers=BROWSER, app=state))
    behind = guarded(application, ("10.0.0.0/8",))
    proxied = partial(scope_of, peer="10.0.0.1", headers=BROWSER + FORWARDED)
    yield asgi_case(None, "asgi behind a proxy", "bare", "yardstick", application, proxied)
    yield asgi_case(None, "asgi behind a proxy", "gobanfast", "ours", behind, proxied)
    yield from wsgi_cases()


def asgi_case(loop: Any, group: str, name: str, kind: Any, app: Any, make: Any) -> Case:
    if group == "fastapi" or name == NOTHING:  # which wait

        def run(made: Any) -> None:
            loop.run_until_complete(drive(app, made))
    else:
        run = partial(step, app)
    return Case(SUITE, group, name, kind, COUNT, lambda: few(make, COUNT), run)


def wsgi_cases() -> Iterator[Case]:
    from gobanfast.frontends.wsgi import Gobanfast

    base = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.url_scheme": "http"}

    def environ_of(number: int) -> dict[str, Any]:
        named = {"HTTP_" + name.decode().upper().replace("-", "_"): value.decode() for name, value in BROWSER}
        return named | base | {"REMOTE_ADDR": f"198.51.{number // 250}.{number % 250}"}

    def start_response(status: str, headers: Any, exc_info: Any = None) -> None:
        pass

    def each(app: Any, environs: list[dict[str, Any]]) -> None:
        while environs:
            app(environs.pop(), start_response)

    ours = Gobanfast(wsgi_application, engine())
    for name, kind, app in (("bare", "yardstick", wsgi_application), ("gobanfast", "ours", ours)):
        yield Case(SUITE, "wsgi", name, kind, COUNT, lambda: few(environ_of, COUNT), partial(each, app))  # type: ignore[arg-type]


# ---- servers under load, by `wrk`


def bare_server() -> Any:
    return application


def guarded_server() -> Any:
    return guarded(application)


def decision_server() -> Any:
    from gobanfast.frontends.authz import DecisionService
    from gobanfast.frontends.trust import Trust

    return DecisionService(engine(), trust=Trust(["127.0.0.1"]))


LOADED = {"bare": ("bare_server", "yardstick"), "gobanfast": ("guarded_server", "ours"),
          "gobanfast serve, /check": ("decision_server", "ours")}  # fmt: skip


@contextmanager
def served(factory: str) -> Iterator[tuple[int, int]]:
    """(process id, port) of a server."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    options = f"--port {port} --http {HTTP} --loop asyncio --log-level error --no-access-log --interface asgi3"
    command = [sys.executable, "-m", "uvicorn", "--factory", f"benchmarks.bench_http:{factory}", "--no-proxy-headers"]
    process = subprocess.Popen([*command, *options.split()], cwd=Path(__file__).parents[1])
    try:
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield process.pid, port
    finally:
        process.terminate()
        process.wait()


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(wrk: str, pid: int, port: int, path: str) -> float:
    """Nanoseconds of the server's processor an answer takes, the kernel's part with it."""
    lines = [f"GET {path} HTTP/1.1", *(f"{name.decode()}: {value.decode()}" for name, value in BROWSER + FORWARDED[:1])]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:  # wrk's own -H come in another order each run
        whole = "\\r\\n".join(line.replace('"', '\\"') for line in lines) + "\\r\\n\\r\\n"
        script.write(f'local whole = "{whole}"\nrequest = function() return whole end\n')
        script.flush()
        command = [wrk, "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "-s", script.name, f"http://127.0.0.1:{port}{path}"]
        before = processor_seconds(pid)
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"(\d+) requests in", done.stdout)
    if found is None or "Non-2xx" in done.stdout:
        raise ValueError(f"wrk: {done.stdout}")
    return 1e9 * (processor_seconds(pid) - before) / int(found[1])


def facts(data: Data) -> list[Row]:
    """Servers in processes of their own, asked in turns; needs `wrk` and Linux."""
    wrk = shutil.which("wrk")
    if wrk is None:
        data.skipped["http load"] = "wrk is not on PATH"
        return []
    os.environ.setdefault("PYTHONPATH", str(Path(__file__).parents[1]))
    timings: dict[str, list[float]] = {name: [] for name in LOADED}
    with served("bare_server") as bare, served("guarded_server") as ours, served("decision_server") as service:
        for turn in range(TURNS):
            asked = [("bare", bare, "/"), ("gobanfast", ours, "/"), ("gobanfast serve, /check", service, "/check")]
            for name, (pid, port), path in asked if turn % 2 else reversed(asked):
                timings[name].append(load(wrk, pid, port, path))
    return [Row(SUITE, "load", name, LOADED[name][1], "ns", taken) for name, taken in timings.items()]  # type: ignore[arg-type]


def test_case(benchmark: Any, case: Case) -> None:
    """One case alone, for pytest-benchmark's statistics; the record comes from `python -m benchmarks.run`."""
    timed(benchmark, case)
