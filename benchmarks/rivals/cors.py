"""Middlewares for CORS around the same answer: what each takes for the grant of one origin, and its bare framework.

An application is what its server calls: `(scope, receive, send)` or `(environ, start_response)`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from typing import Any, ClassVar

ORIGIN = "https://app.example.com"
HOST = "www.example.com"
ENGINE = f"{__name__}.engine"  # as the setting GOBANFAST names it


def rules(origins: Iterable[str]) -> str:
    grant = {"id": "pages", "when": {"origin": list(origins)}, "action": "grant", "credentials": True,
             "methods": ["PUT"], "headers": ["x-a"]}  # fmt: skip
    return json.dumps({"version": 1, "share": [grant]})


def engine(origins: Iterable[str] = (ORIGIN,)) -> Any:
    from gobanfast import Engine, Ruleset

    return Engine(Ruleset.from_text(rules(origins)))


# ---- ASGI


def ours_asgi(app: Any, origins: Iterable[str] = (ORIGIN,)) -> Any:
    from gobanfast.frontends.asgi import Gobanfast

    return Gobanfast(app, engine(origins))


def starlette(app: Any) -> Any:
    from starlette.middleware.cors import CORSMiddleware

    return CORSMiddleware(
        app, allow_origins=[ORIGIN], allow_credentials=True, allow_methods=["PUT"], allow_headers=["x-a"]
    )


def ours_guard(app: Any) -> Any:
    """The rules of the preset for MCP servers that look at Host and Origin."""
    from gobanfast import Engine, Ruleset
    from gobanfast.frontends.asgi import Gobanfast

    share = [
        {"id": "other-host", "when": {"not": {"host": [HOST]}}, "action": "refuse"},
        {"id": "foreign-page", "when": {"not": {"origin": [ORIGIN, "absent"]}}, "action": "refuse"},
    ]
    return Gobanfast(app, Engine(Ruleset.from_text(json.dumps({"version": 1, "share": share}))))


def mcp(app: Any) -> Any:
    """The check of the MCP SDK, made of each request as its transports do."""
    from mcp.server.transport_security import TransportSecurityMiddleware, TransportSecuritySettings
    from starlette.requests import Request

    check = TransportSecurityMiddleware(TransportSecuritySettings(allowed_hosts=[HOST], allowed_origins=[ORIGIN]))

    async def checked(scope: Any, receive: Any, send: Any) -> None:
        refusal = await check.validate_request(Request(scope))
        await (refusal or app)(scope, receive, send)

    return checked


def alternation(origins: list[str]) -> Any:
    """One regex of all of them, as regex options of such middlewares are used."""
    import re2

    return re2.compile("|".join(map(re2.escape, origins)), max_mem=1 << 30)


# ---- Django; the settings of a process are one, the middlewares those of the moment a handler is made


@cache
def configure() -> None:
    import django
    from django.conf import settings

    settings.configure(
        ROOT_URLCONF=_Urls, ALLOWED_HOSTS=[HOST], SECRET_KEY=ENGINE, INSTALLED_APPS=["corsheaders"], MIDDLEWARE=[],
        LOGGING_CONFIG=None, GOBANFAST={"engine": ENGINE},
        CORS_ALLOWED_ORIGINS=[ORIGIN], CORS_ALLOW_CREDENTIALS=True, CORS_ALLOW_METHODS=["PUT"],
        CORS_ALLOW_HEADERS=["x-a"],
    )  # fmt: skip
    django.setup()


def django(middlewares: list[str], *, asgi: bool) -> Any:
    configure()
    from django.core.handlers.asgi import ASGIHandler
    from django.core.handlers.wsgi import WSGIHandler
    from django.http import HttpResponse
    from django.test import override_settings
    from django.urls import path

    def view(request: Any) -> Any:
        return HttpResponse(b"ok", content_type="text/plain")

    async def later(request: Any) -> Any:
        return HttpResponse(b"ok", content_type="text/plain")

    _Urls.urlpatterns = [path("wsgi", view), path("asgi", later)]
    with override_settings(MIDDLEWARE=middlewares):
        return ASGIHandler() if asgi else WSGIHandler()


class _Urls:
    """Where Django looks for its views."""

    urlpatterns: ClassVar[list[Any]] = []


DJANGO = {
    "bare Django": ("yardstick", []),
    "gobanfast": ("ours", ["gobanfast.frontends.django.GobanfastMiddleware"]),
    "django-cors-headers": ("peer", ["corsheaders.middleware.CorsMiddleware"]),
}


# ---- Flask


def flask() -> Any:
    from flask import Flask, Response

    app = Flask("bench")

    @app.get("/wsgi")
    def view() -> Any:
        return Response(b"ok", content_type="text/plain")

    return app


def ours_flask() -> Any:
    from gobanfast.frontends.wsgi import Gobanfast

    return Gobanfast(flask(), engine())


def flask_cors() -> Any:
    from flask_cors import CORS

    app = flask()
    CORS(app, origins=[ORIGIN], supports_credentials=True, methods=["PUT"], allow_headers=["x-a"])
    return app


FLASK = {"bare Flask": ("yardstick", flask), "gobanfast": ("ours", ours_flask), "Flask-Cors": ("peer", flask_cors)}
