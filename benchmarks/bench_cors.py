"""CORS alone: rules with `share` only beside the middlewares that do nothing else, and the parts of it.

A request has 13 headers of a browser, and those of its kind. What a middleware adds is the difference to the bare
application of its group; the ratio of two such differences is what `bars.toml` holds against Starlette's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from io import BytesIO
from itertools import count
from random import Random
from typing import Any

from benchmarks.bench_headers import BROWSER, copy
from benchmarks.bench_http import application, scope_of, send, step
from benchmarks.cases import SLOW_SHARE, Case, Data, Kind, call_each, contains_each, few, timed
from benchmarks.rivals import cors
from benchmarks.tables import fresh

SUITE = "cors"
CAPTION = "CORS alone: ns median (times the no-op call)"
COUNT = 2000
MANY, STRIDE = 100_000, 38_197  # the stride meets all of them, neighbours far apart
ASKED = 20_000
GRANTED = "access-control-allow-origin"
SLOW = 100
HOSTILE = {"commas": b"," * (1 << 20), "the allowed name": b"x-a," * (1 << 18)}
Pairs = list[tuple[bytes, bytes]]
FROM_PAGE: Pairs = [(b"origin", cors.ORIGIN.encode())]
ASKS: Pairs = [*FROM_PAGE, (b"access-control-request-method", b"PUT")]
KINDS: dict[str, tuple[str, Pairs]] = {
    "no origin": ("GET", []),
    "match": ("GET", FROM_PAGE),
    "preflight": ("OPTIONS", [*ASKS, (b"access-control-request-headers", b"x-a")]),
}
ORIGINS = [f"https://a{number}.example.com" for number in range(MANY)]


def scope(number: int, method: str, extra: Pairs, path: str = "/") -> dict[str, Any]:
    made = scope_of(number, None, BROWSER + extra)
    made["method"], made["path"], made["raw_path"] = method, path, path.encode()
    return made


def scope_in_turn(number: int, turn: Iterator[int]) -> dict[str, Any]:
    """A request whose page is another one than all before it, until all have asked."""
    return scope(number, "GET", [(b"origin", ORIGINS[next(turn) * STRIDE % MANY].encode())])


def environ(number: int, method: str, extra: Pairs) -> dict[str, Any]:
    named = {"HTTP_" + name.decode().upper().replace("-", "_"): value.decode() for name, value in copy(BROWSER + extra)}
    return named | {
        "REQUEST_METHOD": method, "PATH_INFO": "/wsgi", "SCRIPT_NAME": "", "QUERY_STRING": "",
        "SERVER_PROTOCOL": "HTTP/1.1", "SERVER_NAME": cors.HOST, "SERVER_PORT": "80", "wsgi.url_scheme": "http",
        "wsgi.input": BytesIO(), "wsgi.errors": None, "REMOTE_ADDR": f"198.51.{number // 250}.{number % 250}",
    }  # fmt: skip


def start_response(status: str, headers: Any, exc_info: Any = None) -> None:
    pass


def call_wsgi(app: Any, environs: list[dict[str, Any]]) -> None:
    while environs:
        close = getattr(app(environs.pop(), start_response), "close", None)
        if close is not None:
            close()


async def drive_waiting(app: Any, requests: list[dict[str, Any]]) -> None:
    """The same as `drive` for an application that waits for the client to go."""
    never = asyncio.get_running_loop().create_future
    while requests:
        read = iter((True,))

        async def receive(read: Iterator[bool] = read) -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False} if next(read, False) else await never()

        await app(requests.pop(), receive, send)


def cases(data: Data) -> Iterator[Case]:
    yield from asgi_cases()
    yield from guard_cases(data)
    yield from django_cases(data)
    yield from flask_cases(data)
    yield from set_cases(data)
    yield from hostile_cases()


def asgi_cases() -> Iterator[Case]:
    many = cors.ours_asgi(application, [*ORIGINS, cors.ORIGIN])
    subjects: list[tuple[str, Kind, Any]] = [
        ("bare", "yardstick", application),
        ("gobanfast", "ours", cors.ours_asgi(application)),
        ("gobanfast, 100,000 origins, one asks", "ours", many),
        ("Starlette CORSMiddleware", "peer", cors.starlette(application)),
    ]
    for group, (method, extra) in KINDS.items():
        for name, kind, app in subjects:
            yield web(group, name, kind, partial(scope, method=method, extra=extra), partial(step, app))
        if group == "match":
            make = partial(scope_in_turn, turn=count())
            yield web(group, "gobanfast, 100,000 origins, all ask", "ours", make, partial(step, many))


def guard_cases(data: Data) -> Iterator[Case]:
    make = partial(scope, method="GET", extra=FROM_PAGE)
    wraps: list[tuple[str, Kind, Callable[[], Any]]] = [
        ("bare", "yardstick", lambda: application),
        ("gobanfast", "ours", partial(cors.ours_guard, application)),
        ("MCP SDK TransportSecurityMiddleware", "peer", partial(cors.mcp, application)),
    ]
    for name, kind, build in wraps:
        app = built(data, name, build)
        if app is not None:
            yield web("host and origin", name, kind, make, partial(step, app))


def django_cases(data: Data) -> Iterator[Case]:
    loop = asyncio.new_event_loop()
    for server in ("WSGI", "ASGI"):
        for kind_of_request, (method, extra) in KINDS.items():
            for name, (kind, middlewares) in cors.DJANGO.items():
                app = built(data, name, partial(cors.django, middlewares, asgi=server == "ASGI"))
                if app is None:
                    continue
                if server == "WSGI":
                    make, run = partial(environ, method=method, extra=extra), partial(call_wsgi, app)
                else:
                    make = partial(scope, method=method, extra=extra, path="/asgi")
                    run = partial(run_waiting, loop, app)
                asked = COUNT if server == "WSGI" else COUNT // SLOW_SHARE
                yield web(f"Django {server}, {kind_of_request}", name, kind, make, run, asked)


def flask_cases(data: Data) -> Iterator[Case]:
    for kind_of_request, (method, extra) in KINDS.items():
        for name, (kind, build) in cors.FLASK.items():
            app = built(data, name, build)
            if app is not None:
                make = partial(environ, method=method, extra=extra)
                yield web(f"Flask, {kind_of_request}", name, kind, make, partial(call_wsgi, app))


def run_waiting(loop: asyncio.AbstractEventLoop, app: Any, requests: list[dict[str, Any]]) -> None:
    loop.run_until_complete(drive_waiting(app, requests))


def built(data: Data, name: str, build: Callable[[], Any]) -> Any:
    """What `build` makes, or None where its library is missing."""
    try:
        return build()
    except ImportError as error:
        data.skipped[name] = str(error)
        return None


def web(
    group: str, name: str, kind: Kind, make: Callable[[int], Any], run: Callable[[Any], object], asked: int = COUNT
) -> Case:
    return Case(SUITE, group, name, kind, asked, lambda: few(make, asked), run)


# ---- the parts


def set_cases(data: Data) -> Iterator[Case]:
    from benchmarks.floor import noop
    from gobanfast import OriginSet

    for group, size, distinct in (("in, 1,000 origins, hot", 1000, 20), ("in, 100,000 origins, uniform", MANY, MANY)):
        draw = Random(7)
        listed = ORIGINS[:size]
        raw = [listed[draw.randrange(distinct)].encode() for _ in range(ASKED)]
        subjects: list[tuple[str, Kind, Any, Any]] = [
            ("no-op call", "yardstick", call_each, noop),
            ("gobanfast OriginSet", "ours", contains_each, OriginSet(listed)),
            ("frozenset", "peer", contains_each, frozenset(listed)),
        ]
        pattern = built(data, "RE2 alternation", partial(cors.alternation, listed))
        if pattern is not None:
            subjects.append(("RE2 alternation", "peer", call_each, pattern.fullmatch))
        for name, kind, each, target in subjects:
            yield Case(SUITE, group, name, kind, ASKED, partial(fresh, raw), partial(each, target), "bool")


def hostile_cases() -> Iterator[Case]:
    """A preflight that asks for 1 MiB of headers; and the answer to their text alone."""
    from gobanfast._core.allowed_headers import AllowedHeaders

    subjects: list[tuple[str, Kind, Any]] = [
        ("bare", "yardstick", application),
        ("gobanfast", "ours", cors.ours_asgi(application)),
        ("Starlette CORSMiddleware", "peer", cors.starlette(application)),
    ]
    for text, value in HOSTILE.items():
        group = f"1 MiB of {text} asked for"
        asks = [*ASKS, (b"access-control-request-headers", value)]
        make = partial(scope, method="OPTIONS", extra=asks)
        for name, kind, app in subjects:
            yield Case(SUITE, group, name, kind, SLOW, partial(few, make, SLOW), partial(step, app))
        allows = AllowedHeaders(["x-a"]).allows_lines
        lines = partial(few, lambda _, value=value: [bytes(bytearray(value))], SLOW)
        yield Case(SUITE, group, "gobanfast AllowedHeaders", "ours", SLOW, lines, partial(call_each, allows))


def disagreements(data: Data) -> list[str]:
    """Subjects that do not grant what the figures say they do."""
    asgi: list[tuple[str, Any]] = [
        ("gobanfast", cors.ours_asgi(application)), ("Starlette CORSMiddleware", cors.starlette(application))
    ]  # fmt: skip
    wsgi = [(name, partial(cors.django, list(added), asgi=False)) for name, (_, added) in cors.DJANGO.items() if added]
    wsgi += [(f"{name}, Flask", build) for name, (kind, build) in cors.FLASK.items() if kind != "yardstick"]
    callable_wsgi = [(name, app) for name, build in wsgi if (app := built(data, name, build)) is not None]
    found: list[str] = []
    for group in ("match", "preflight"):
        method, extra = KINDS[group]
        answers = [(name, asgi_answer(app, scope(1, method, extra))) for name, app in asgi]
        answers += [(name, wsgi_answer(app, environ(1, method, extra))) for name, app in callable_wsgi]
        found += [f"{group}, {name}: {got!r} is granted" for name, got in answers if got != cors.ORIGIN]
    return found


def asgi_answer(app: Any, request: dict[str, Any]) -> str | None:
    sent: list[Any] = []

    async def note(message: Any) -> None:
        sent.append(message)

    with suppress(StopIteration):
        app(request, None, note).send(None)
    return {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}.get(GRANTED)


def wsgi_answer(app: Any, request: dict[str, Any]) -> str | None:
    sent: list[tuple[str, str]] = []
    app(request, lambda status, headers, exc_info=None: sent.extend(headers))
    return {name.lower(): value for name, value in sent}.get(GRANTED)


def test_case(benchmark: Any, case: Case) -> None:
    """One case alone, for pytest-benchmark's statistics; the record comes from `python -m benchmarks.run`."""
    timed(benchmark, case)
