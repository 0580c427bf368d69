"""Applications behind share rules for browsers, on servers in processes of their own: `asgi`, `wsgi`, `django`.

Each answers every path: it says which cookie came, and sets a wrong access-control line of its own. `/creds/login` sets
a cookie, `/creds/fails` raises, `/creds/breaks` does behind its start, `/creds/events` is a stream, `/page` the page in
the file that LAB_PAGE names. What came, what was answered and whether the application was asked goes to the file
LAB_LOG, a line of JSON each.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from gobanfast import Engine, Ruleset
from gobanfast.frontends import asgi as asgi_frontend
from gobanfast.frontends import wsgi as wsgi_frontend

RULES = """
sets: {apps: {origin: ["http://www.app.localhost:*", "https://www.app.localhost:*"]}}
share:
- {id: rebind, when: {not: {host: "**.localhost:*"}}, action: refuse}
- {id: writes, when: {cross_origin_write: true, not: {origin: "@apps"}}, action: refuse}
- id: creds
  when: {path: /creds/**, origin: "@apps"}
  action: grant
  credentials: true
  methods: [PUT]
  headers: [x-a]
  expose: [x-b]
  max_age: 10m
- {id: plain, when: {path: /plain/**, origin: "@apps"}, action: grant}
- {id: public, when: {path: /public/**}, action: grant}
"""
ENGINE = Engine(Ruleset.from_text(RULES))
LINES = [("access-control-allow-origin", "*"), ("access-control-expose-headers", "*"), ("x-b", "1"), ("x-c", "1")]


def note(**facts):
    with open(os.environ["LAB_LOG"], "a") as file:
        file.write(json.dumps(facts) + "\n")


def answer(path, cookie):
    """(header lines, body) of the application."""
    if path == "/creds/fails":
        raise OSError("the application is broken")
    if path == "/page":
        return [("content-type", "text/html")], Path(os.environ["LAB_PAGE"]).read_bytes()
    if path == "/creds/events":
        return [*LINES, ("content-type", "text/event-stream")], f"data: {cookie}\n\n".encode()
    more = [("set-cookie", "session=1; Path=/; SameSite=Lax")] if path == "/creds/login" else []
    return [*LINES, *more, ("content-type", "application/json")], json.dumps(cookie).encode()


# ---- ASGI


async def application(scope, receive, send):
    scope["lab"]["called"] = True
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "hello"})
        await receive()  # the page closes it
        return
    headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    if scope["path"] == "/report":
        scope["lab"]["report"] = json.loads(body)
    lines, body = answer(scope["path"], headers.get("cookie"))
    pairs = [(name.encode(), value.encode()) for name, value in lines]
    await send({"type": "http.response.start", "status": 200, "headers": pairs})
    await send({"type": "http.response.body", "body": body})


guarded = asgi_frontend.Gobanfast(application, ENGINE)


async def asgi(scope, receive, send):
    """The application, its guard, and a note of each request around them."""
    if scope["type"] == "lifespan":
        while True:
            event = await receive()
            await send({"type": event["type"] + ".complete"})
            if event["type"] == "lifespan.shutdown":
                return
    facts = {"called": False, "status": 0}
    scope["lab"] = facts
    headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}

    async def noted(message):
        kind = message["type"]
        if facts["status"] == 0:
            facts["status"] = message.get("status", 101 if kind == "websocket.accept" else 403)
        await send(message)

    try:
        await guarded(scope, receive, noted)
    finally:
        host = headers.get("host")
        note(method=scope.get("method", "WEBSOCKET"), path=scope["path"], host=host, origin=headers.get("origin"),
             http=scope["http_version"], **facts)  # fmt: skip


# ---- WSGI


def wsgi_application(environ, start_response):
    environ["lab"]["called"] = True
    if environ["PATH_INFO"] == "/report":
        environ["lab"]["report"] = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
    lines, body = answer(environ["PATH_INFO"], environ.get("HTTP_COOKIE"))
    start_response("200 OK", [*lines, ("content-length", str(len(body)))])
    if environ["PATH_INFO"] == "/creds/breaks":
        return breaking()
    return [body]


def breaking():
    raise OSError("the application is broken")
    yield b""


def noting(app):
    """A note of each request around a guarded WSGI application."""

    def outer(environ, start_response):
        facts = {"called": False, "status": 0}
        environ["lab"] = facts

        def started(status, headers, *more):
            facts["status"] = int(status[:3])
            return start_response(status, headers, *more)

        body = app(environ, started)
        try:
            yield from body
        finally:
            if hasattr(body, "close"):
                body.close()
            socket = environ.get("HTTP_UPGRADE", "").lower() == "websocket"
            method = "WEBSOCKET" if socket else environ["REQUEST_METHOD"]
            note(method=method, path=environ["PATH_INFO"], host=environ.get("HTTP_HOST"),
                 origin=environ.get("HTTP_ORIGIN"), http=environ["SERVER_PROTOCOL"][5:], **facts)  # fmt: skip

    return outer


wsgi = noting(wsgi_frontend.Gobanfast(wsgi_application, ENGINE))


def django():
    """A factory: the same as a Django project under WSGI."""
    from django.conf import settings
    from django.core.wsgi import get_wsgi_application
    from django.http import HttpResponse
    from django.urls import path

    def view(request, **_):
        facts = request.environ["lab"]
        facts["called"] = True
        if request.path == "/report":
            facts["report"] = json.loads(request.body)
        lines, body = answer(request.path, request.META.get("HTTP_COOKIE"))
        made = HttpResponse(body)
        for name, value in lines:
            made.headers[name] = value
        return made

    settings.configure(
        ALLOWED_HOSTS=["*"], SECRET_KEY="secret of a test", USE_TZ=True,  # noqa: S106
        ROOT_URLCONF=type("Urls", (), {"urlpatterns": [path("<path:rest>", view)]}),
        MIDDLEWARE=["gobanfast.frontends.django.GobanfastMiddleware"], GOBANFAST={"engine": lambda: ENGINE},
    )  # fmt: skip
    return noting(get_wsgi_application())
