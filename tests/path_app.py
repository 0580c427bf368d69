"""Applications of several frameworks with something to protect, guarded by an engine that a request header chooses.

`asgi` and `wsgi` choose the application by Host. What is under /admin, and /secret.txt, says SECRET wherever the
framework finds it; /health says HEALTH, /open OPEN.
"""

from __future__ import annotations

import os
from pathlib import Path

from gobanfast import Engine, Ruleset
from gobanfast.frontends.asgi import Gobanfast
from gobanfast.frontends.authz import DecisionService
from gobanfast.frontends.wsgi import Gobanfast as GobanfastWsgi

BAN = "rules: [{id: admin, when: {path: [/admin, /admin/**, /secret.txt]}, action: ban}]"
ALLOW = "rules: [{id: health, when: {path: /health}, action: allow}, {id: rest, when: any, action: ban}]"
ENGINES = {name: Engine(Ruleset.from_text(text)) for name, text in {"ban": BAN, "allow": ALLOW}.items()}
OFF = Engine(Ruleset.from_text("rules: []"))


class Chosen(Engine):
    """Decides by the rules that the header x-rules names, by none without it."""

    __slots__ = ()

    def decide(self, address, /, *, headers=None, **signals):
        pairs = [(b"x-rules", headers.get("HTTP_X_RULES", "").encode())] if isinstance(headers, dict) else headers
        name = dict(pairs).get(b"x-rules", b"").decode()
        return ENGINES.get(name, OFF).decide(address, headers=headers, **signals)


engine = Chosen(Ruleset.from_text("trust: {prefix: [127.0.0.1], chain: optional}\nrules: []"))
folder = os.environ.get("TEST_FOLDER", "")
service = DecisionService(engine)


def fill(path: Path) -> None:
    """Writes what file servers serve."""
    (path / "admin").mkdir()
    for name, text in {"admin/x": "SECRET", "secret.txt": "SECRET", "health": "HEALTH", "open": "OPEN"}.items():
        (path / name).write_text(text)


def starlette_app():
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def view(request):
        return PlainTextResponse(answer(request.path_params))

    routes = [Route("/admin", view), Route("/admin/{rest:path}", view), Route("/health", view, name="health")]
    return Starlette(routes=[*routes, Route("/open", view, name="open")])


def answer(parameters):
    return "SECRET" if "rest" in parameters else "OTHER"


def fastapi_app():
    from fastapi import FastAPI
    from fastapi.responses import PlainTextResponse

    app = FastAPI(root_path="/v1")
    for path, text in {
        "/admin": "SECRET",
        "/admin/{rest:path}": "SECRET",
        "/health": "HEALTH",
        "/open": "OPEN",
    }.items():
        app.get(path, response_class=PlainTextResponse)(lambda text=text: text)
    return app


def flask_app():
    from flask import Flask

    app = Flask("paths")
    for number, (path, text) in enumerate(
        {"/admin": "SECRET", "/admin/<path:rest>": "SECRET", "/health": "HEALTH", "/open": "OPEN"}.items()
    ):
        app.add_url_rule(path, f"v{number}", lambda rest="", text=text: text, strict_slashes=False)
    return app


def django_configured():
    import django
    from django.conf import settings
    from django.http import HttpResponse
    from django.urls import re_path

    if not settings.configured:
        settings.configure(
            ROOT_URLCONF=__name__,
            ALLOWED_HOSTS=["*"],
            APPEND_SLASH=False,
            MIDDLEWARE=["gobanfast.frontends.django.GobanfastMiddleware"],
            GOBANFAST={"engine": lambda: engine},
            USE_TZ=True,
        )
        django.setup()

    def view(text):
        return lambda request, **_: HttpResponse(text)

    global urlpatterns  # noqa: PLW0603 - where Django looks
    urlpatterns = [
        re_path("^/*admin(?:/.*)?$", view("SECRET")),
        re_path("^health$", view("HEALTH")),
        re_path("^open$", view("OPEN")),
    ]


def static_files():
    """StaticFiles; what it raises is a 404, and not a page of stderr, which nobody reads."""
    from starlette.staticfiles import StaticFiles

    served = StaticFiles(directory=folder)

    async def files(scope, receive, send):
        try:
            await served(scope, receive, send)
        except Exception:  # noqa: BLE001 - any way not to serve a file is fine
            await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})

    return files


def mounted():
    """A guard around an application inside a mount, where path and root_path say where it is."""
    from starlette.applications import Starlette
    from starlette.routing import Mount

    return Starlette(routes=[Mount("/sub", app=Gobanfast(static_files(), engine))])


def asgi_by_host():
    from django.core.asgi import get_asgi_application

    django_configured()
    apps = {
        "static": Gobanfast(static_files(), engine),
        "starlette": Gobanfast(starlette_app(), engine),
        "fastapi": Gobanfast(fastapi_app(), engine),
        "sub": mounted(),
        "django": get_asgi_application(),
    }

    async def asgi(scope, receive, send):
        if scope["type"] != "http":
            message = await receive()
            while message["type"].startswith("lifespan"):
                await send({"type": message["type"] + ".complete"})
                message = await receive()
        await apps.get(dict(scope["headers"])[b"host"].decode(), apps["static"])(scope, receive, send)

    return asgi


def nothing(environ, start_response):
    start_response("404 Not Found", [("Content-Length", "0")])
    return []


def wsgi_by_host():
    from django.core.wsgi import get_wsgi_application
    from werkzeug.middleware.dispatcher import DispatcherMiddleware

    django_configured()
    guarded = GobanfastWsgi(flask_app(), engine)
    django_app = get_wsgi_application()
    apps = {
        "flask": guarded,
        "sub": DispatcherMiddleware(nothing, {"/sub": guarded, "/django": django_app}),
        "django": django_app,
    }
    return lambda environ, start: apps[environ["HTTP_HOST"]](environ, start)


asgi = asgi_by_host() if folder else None
wsgi = wsgi_by_host() if folder else None
