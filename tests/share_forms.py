"""One application under every HTTP frontend: a Plan says what it answers, an Answer is what the client gets."""

from __future__ import annotations

import asyncio
import gc
import logging
import warnings
from dataclasses import dataclass, field
from wsgiref.util import setup_testing_defaults

from gobanfast import Engine, Ruleset
from gobanfast.frontends import asgi, wsgi

PAGE, TENANT, FOREIGN = "https://app.example", "https://a.b.tenant.example", "https://evil.example"
RULES = """
sets: {apps: {origin: ["https://app.example", "https://**.tenant.example"]}}
rules:
- {id: bad, when: {header: {user-agent: {contains: bad}}}, action: ban}
- {id: odd, when: {header: {user-agent: {contains: odd}}}, action: challenge}
share:
- {id: writes, when: {path: /writes, cross_origin_write: true, not: {origin: "@apps"}}, action: refuse}
- {id: hosts, when: {path: /hosts, not: {host: api.example}}, action: refuse}
- id: own
  when: {path: /own, origin: "@apps"}
  action: grant
  credentials: true
  methods: [PUT]
  headers: [authorization, x-a]
  expose: [x-request-id]
  max_age: 10m
- {id: plain, when: {path: /plain, origin: "@apps"}, action: grant}
- {id: public, when: {path: /public}, action: grant, methods: ["*"], headers: ["*"]}
- {id: site, when: {path: /site, origin: "@apps", fetch_site: same-site}, action: grant}
- {id: shut, when: {path: /shut}, action: withhold}
- {id: trial, when: {path: /trial}, action: grant, mode: shadow}
"""
FORMS = ("asgi", "wsgi", "django-wsgi", "django-asgi", "aiohttp")

OWN = {
    "access-control-allow-origin": [PAGE],
    "access-control-allow-credentials": ["true"],
    "access-control-expose-headers": ["x-request-id"],
}
PREFLIGHT = {
    "access-control-allow-origin": [PAGE],
    "access-control-allow-credentials": ["true"],
    "access-control-allow-methods": ["PUT"],
    "access-control-allow-headers": ["x-a"],
    "access-control-max-age": ["600"],
}
FROM_PAGE = {"origin": PAGE}
ASKS = {"origin": PAGE, "access-control-request-method": "PUT", "access-control-request-headers": "x-a"}
WRITTEN = {
    "none": [],
    "one": [("Access-Control-Allow-Origin", "*")],
    "two": [("ACCESS-CONTROL-ALLOW-ORIGIN", "https://evil.example"), ("access-control-allow-origin", "*")],
    "all": [
        ("access-control-Allow-Origin", "null"), ("Access-Control-Allow-Credentials", "True"),
        ("Access-Control-Expose-Headers", "*"), ("Access-Control-Max-Age", "9"),
        ("access-control-allow-private-network", "true"),
    ],
}  # fmt: skip


@dataclass
class Plan:
    """What the application does; `calls` counts how often it is asked."""

    status: int = 200
    headers: list[tuple[str, str]] = field(default_factory=list)
    parts: tuple[bytes, ...] = (b"one", b"two")
    raises: BaseException | None = None  # before it answers
    breaks: BaseException | None = None  # behind the parts
    calls: int = 0


@dataclass
class Answer:
    """What a client got."""

    status: int = 0
    pairs: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    error: BaseException | None = None  # what the server saw
    logged: list[logging.LogRecord] = field(default_factory=list)

    def lines(self, name):
        """The lines of a header."""
        return [value for found, value in self.pairs if found.lower() == name]

    @property
    def shared(self):
        """Header -> lines, of those that say who may read."""
        return {name.lower(): self.lines(name.lower()) for name, _ in self.pairs
                if name.lower().startswith("access-control-")}  # fmt: skip

    @property
    def vary(self):
        """Members of Vary in lower case, in order; there is one line at most."""
        assert len(self.lines("vary")) <= 1
        return [name.strip().lower() for line in self.lines("vary") for name in line.split(",")]


def ask(form, plan, path="/own", method="GET", headers=(), rules=RULES, engine=None, **options):
    """What a request gets."""
    engine = Engine(Ruleset.from_text(rules)) if engine is None else engine
    pairs = [("host", "api.example"), *(headers.items() if isinstance(headers, dict) else headers)]
    logs, root = Logs(), logging.getLogger()  # Django's own set-up clears those of its loggers
    root.addHandler(logs)
    try:
        answer = ASKED[form](plan, engine, path, method, pairs, options)
    finally:
        root.removeHandler(logs)
    answer.logged = logs.records
    return answer


class Logs(logging.Handler):
    """Keeps records."""

    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)


def asgi_app(plan):
    async def app(scope, receive, send):
        plan.calls += 1
        if plan.raises is not None:
            raise plan.raises
        pairs = [(name.encode(), value.encode("latin-1")) for name, value in plan.headers]
        await send({"type": "http.response.start", "status": plan.status, "headers": pairs})
        for part in plan.parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        if plan.breaks is not None:
            raise plan.breaks
        await send({"type": "http.response.body", "body": b""})

    return app


def wsgi_app(plan):
    def app(environ, start_response):
        plan.calls += 1
        if plan.raises is not None:
            raise plan.raises
        start_response(f"{plan.status} Said", list(plan.headers))
        return parts_of(plan)

    return app


def parts_of(plan):
    yield from plan.parts
    if plan.breaks is not None:
        raise plan.breaks


async def later(plan):
    for part in parts_of(plan):
        yield part


def ask_asgi(app, path, method, pairs, **more):
    """What an ASGI server sends; the response may begin once."""
    answer, body = Answer(), []
    scope = {
        "type": "http", "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in pairs], "scheme": "https",
        "http_version": "1.1", "method": method, "client": ("203.0.113.9", 4711), "server": ("127.0.0.1", 443),
        "asgi": {"version": "3.0"}, **more,
    }  # fmt: skip
    waiting = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive():
        return waiting.pop() if waiting else await asyncio.Event().wait()

    async def send(message):
        if message["type"] == "http.response.start":
            assert answer.status == 0, "the response began twice"
            answer.status = message["status"]
            answer.pairs = [
                (bytes(name).decode(), bytes(value).decode("latin-1")) for name, value in message["headers"]
            ]
        else:
            assert answer.status, "a body before the response began"
            body.append(message.get("body", b""))

    async def run():
        try:
            await app(scope, receive, send)
        except BaseException as error:  # noqa: BLE001 - the server's log would have it
            answer.error = error.with_traceback(None)

    asyncio.run(run())
    answer.body = b"".join(body)
    return answer


class Server:
    """The part of a WSGI server that keeps the rules of PEP 3333: headers go out with the first bytes."""

    def __init__(self):
        self.answer, self.said, self.sent = Answer(), None, False
        self.parts = []

    def start_response(self, status, headers, exc_info=None):
        if exc_info is not None and self.sent:
            raise exc_info[1]
        assert self.said is None or exc_info is not None, "start_response was called twice"
        self.said = status, headers
        return self.write

    def write(self, part):
        if part and not self.sent:
            self.begin()
        self.parts.append(part)

    def begin(self):
        assert self.said is not None, "a body before start_response"
        self.sent = True
        self.answer.status, self.answer.pairs = int(self.said[0][:3]), list(self.said[1])

    def run(self, app, environ):
        try:
            body = app(environ, self.start_response)
            try:
                for part in body:
                    self.write(part)
            finally:
                if hasattr(body, "close"):
                    body.close()
            if not self.sent:
                self.begin()
        except BaseException as error:  # noqa: BLE001 - the server's log would have it
            self.answer.error = error
        self.answer.body = b"".join(self.parts)
        return self.answer


def environ_of(path, method, pairs):
    environ = {
        "REQUEST_METHOD": method, "PATH_INFO": path, "SERVER_PROTOCOL": "HTTP/1.1", "REMOTE_ADDR": "203.0.113.9",
        "wsgi.url_scheme": "https",
    }  # fmt: skip
    for name, value in pairs:
        key = "HTTP_" + name.upper().replace("-", "_")
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    setup_testing_defaults(environ)
    return environ


def run_asgi(plan, engine, path, method, pairs, options):
    return ask_asgi(asgi.Gobanfast(asgi_app(plan), engine, **options), path, method, pairs)


def run_wsgi(plan, engine, path, method, pairs, options):
    return Server().run(wsgi.Gobanfast(wsgi_app(plan), engine, **options), environ_of(path, method, pairs))


def run_django(plan, engine, path, method, pairs, options, *, is_asgi):
    from django.core.asgi import get_asgi_application
    from django.core.wsgi import get_wsgi_application
    from django.http import HttpResponse, StreamingHttpResponse
    from django.test import override_settings
    from django.urls import path as route

    import test_frontend_django  # noqa: F401 - configures Django
    from gobanfast.frontends.django import guard

    def view(request, **_):
        plan.calls += 1
        if plan.raises is not None:
            raise plan.raises
        streamed = later(plan) if is_asgi else parts_of(plan)
        response = HttpResponse(b"".join(plan.parts)) if plan.breaks is None else StreamingHttpResponse(streamed)
        response.status_code = plan.status
        for name, value in plan.headers:
            response.headers[name] = value
        return response

    urls = type("Urls", (), {"urlpatterns": [route("<path:rest>", view)]})
    setting = {"GOBANFAST": {"engine": engine} | options, "ROOT_URLCONF": urls}
    guard.cache_clear()
    with override_settings(**setting), warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # Django leaves a body open where a stream breaks
        try:
            if is_asgi:
                return ask_asgi(get_asgi_application(), path, method, pairs)
            return Server().run(get_wsgi_application(), environ_of(path, method, pairs))
        finally:
            guard.cache_clear()
            if plan.breaks is not None:
                gc.collect()


def run_aiohttp(plan, engine, path, method, pairs, options):
    import aiohttp
    from aiohttp import web

    from gobanfast.frontends.aiohttp import setup

    async def handler(request):
        plan.calls += 1
        if plan.raises is not None:
            raise plan.raises
        if plan.breaks is None:
            response = web.Response(status=plan.status, body=b"".join(plan.parts))
        else:
            response = web.StreamResponse(status=plan.status)
        for name, value in plan.headers:
            response.headers.add(name, value)
        if plan.breaks is not None:
            await response.prepare(request)
            for part in plan.parts:
                await response.write(part)
            raise plan.breaks
        return response

    async def run():
        app, answer = web.Application(), Answer()
        app.router.add_route("*", "/{rest:.*}", handler)
        setup(app, engine, **options)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
        try:
            async with aiohttp.ClientSession(url) as session, session.request(method, path, headers=pairs) as answered:
                answer.status = answered.status
                answer.pairs = [(name.decode(), value.decode("latin-1")) for name, value in answered.raw_headers]
                answer.body = await answered.read()
        except aiohttp.ClientError as error:
            answer.error = error.with_traceback(None)
        finally:
            await runner.cleanup()
        return answer

    return asyncio.run(run())


ASKED = {
    "asgi": run_asgi,
    "wsgi": run_wsgi,
    "django-wsgi": lambda *arguments: run_django(*arguments, is_asgi=False),
    "django-asgi": lambda *arguments: run_django(*arguments, is_asgi=True),
    "aiohttp": run_aiohttp,
}
