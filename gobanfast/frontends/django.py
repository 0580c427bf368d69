"""Django middleware, for WSGI and ASGI alike; configured by the setting GOBANFAST.

    INSTALLED_APPS = ["gobanfast.frontends.django.GobanfastConfig", ...]  # for `manage.py check`
    MIDDLEWARE = ["gobanfast.frontends.django.GobanfastMiddleware", ...]  # first: what stands before it runs unasked
    GOBANFAST = {"rules": BASE_DIR / "rules.yaml", "store": f"sqlite:{BASE_DIR / 'bans.db'}", "watch": True}

Views find `request.gobanfast` (the Decision), `request.gobanfast_request_id` and `request.gobanfast_client`: a
ClientInfo where a trusted proxy spoke (`request.gobanfast_origin` is the same for one more release).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.apps import AppConfig
from django.conf import settings
from django.core import checks
from django.http import HttpResponse

from gobanfast._core.exchange import Exchange
from gobanfast._errors import GobanError
from gobanfast.frontends.challenge import Challenge
from gobanfast.frontends.doctor import workers_of
from gobanfast.frontends.http.guard import HttpGuard
from gobanfast.frontends.http.heads import is_stream
from gobanfast.frontends.http.layers import TracerLook, tracers_of_django
from gobanfast.frontends.http.refusal import HttpResponse as Denial
from gobanfast.frontends.tls import CURRENT
from gobanfast.stores import attach, open_store
from gobanfast.wire.target import asgi_target, encoded, mounts, placed

if TYPE_CHECKING:
    from gobanfast.engine import Engine

NAME = "gobanfast.frontends.django.GobanfastMiddleware"
OF_RULES = ("asn", "last_good", "store", "watch")
OPTIONS = {
    *OF_RULES, "rules", "engine", "trust", "routes", "challenge", "names", "mount", "contact", "show_reason", "log",
    "rate_limit_headers", "old_rate_limit_headers",
    "metrics", "on_decision", "on_error",
}  # fmt: skip


@cache
def guard() -> HttpGuard:
    """The HttpGuard that the setting GOBANFAST describes; made once in a process.

    `engine` is an Engine, a function that makes one, or the dotted name of either; or `rules` is the path of a rules
    file, with `asn`, `last_good` and `store` as for `Engine.load` and `watch`: True to follow the files. `trust` and
    `challenge` may be dicts, the arguments of a Trust and of a Challenge. The others are options of an HttpGuard.

    Raises:
        ValueError: a setting that is none of these.
        OSError, RuleError: the rules cannot be read.
    """
    options = getattr(settings, "GOBANFAST", {})
    if not isinstance(options, dict):
        raise ValueError(f"GOBANFAST is {options!r}, not a dict; write {{'rules': 'rules.yaml'}}")
    options = dict(options)
    unknown = options.keys() - OPTIONS
    if unknown:
        raise ValueError(f"GOBANFAST has no setting {min(unknown)!r}; it has {', '.join(sorted(OPTIONS))}")
    if ("rules" in options) == ("engine" in options):
        raise ValueError("GOBANFAST needs one of 'rules', the path of a rules file, and 'engine'")
    given = {name: options.pop(name) for name in OF_RULES if name in options}
    if given and "engine" in options:
        raise ValueError(f"{min(given)!r} goes with 'rules'; an engine has its own, from Engine.load")
    if not isinstance(given.get("watch", False), bool):
        raise ValueError(f"'watch' is {given['watch']!r}, not True or False")
    if isinstance(given.get("store"), os.PathLike):
        raise ValueError(f"'store' is the path {str(given['store'])!r}; write 'sqlite:{given['store']}'")
    if isinstance(given.get("store"), str):
        open_store(given["store"]).close()
    challenge = options.pop("challenge", "refuse")
    options["challenge"] = Challenge(**challenge) if isinstance(challenge, dict) else challenge
    files: dict[str, Any] = {name: given[name] for name in ("asn", "last_good") if name in given}
    made = HttpGuard(_engine(options.pop("rules", None), options.pop("engine", None), files), **options)
    made.tracer = TracerLook(made, tracers_of_django)
    return made


def serving_guard() -> HttpGuard:
    """`guard()`, whose engine keeps its bans in the store and follows its files from now on.

    Only the middleware asks for it: `manage.py check` and other commands start no thread and touch no store.
    """
    made, options = guard(), settings.GOBANFAST
    if options.get("store") is not None and made.engine.sync is None:
        attach(made.engine, options["store"])
    if options.get("watch") and made.engine.watcher is None:
        files = {name: options[name] for name in ("asn", "last_good") if name in options}
        made.engine.watch(options["rules"], **files)
    return made


def _engine(rules: Any, engine: Any, files: dict[str, Any]) -> Engine:
    if rules is not None:
        from gobanfast.engine import Engine

        return Engine.load(rules, **files)
    if isinstance(engine, str):
        module, _, name = engine.rpartition(".")
        engine = getattr(import_module(module), name)
    return engine() if callable(engine) else engine  # type: ignore[no-any-return]


class GobanfastMiddleware:
    """Asks the engine before the view, and before every middleware listed after this one."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self.get_response = get_response
        self._guard = serving_guard()
        self._async = iscoroutinefunction(get_response)
        if self._async:
            markcoroutinefunction(self)

    def __call__(self, request: Any) -> Any:
        """The response of what comes after, or ours; a coroutine of it under ASGI."""
        path, mount = target_of(request, self._guard.mount)
        mode = self._guard.mode(path, mount)
        if mode == "off":
            return self.get_response(request)
        scope, environ, secure = getattr(request, "scope", None), request.META, request.is_secure()
        exchange = Exchange(
            self._guard,
            environ if scope is None else scope["headers"],
            peer=environ.get("REMOTE_ADDR"),
            method=request.method,
            path=path,
            mount=mount,
            http=environ.get("SERVER_PROTOCOL", "HTTP/1.1")[5:] if scope is None else scope["http_version"],
            scheme="https" if secure else "http",
            handshake=CURRENT.get() if secure else None,  # under ASGI, where TLS ends here
            mode=mode,
            query=environ.get("QUERY_STRING"),
        )
        response = exchange.begin()
        request.gobanfast_request_id = exchange.request_id
        request.gobanfast_client = request.gobanfast_origin = exchange.client
        if exchange.decision is not None:
            request.gobanfast = exchange.decision
            request.gobanfast_exchange = exchange
        headers = exchange.request_headers(environ)
        if headers is not None:
            request.META = headers
            request.__dict__.pop("headers", None)  # cached, of the former ones
        if self._async:
            return self._later(request, exchange, response)
        if response is not None:
            return finished(denial(response), exchange)
        exchange.enter()
        try:
            return self._dress(exchange, end_head(request, self.get_response(request)))
        except BaseException:
            exchange.finish(500)
            raise
        finally:
            exchange.leave()

    async def _later(self, request: Any, exchange: Exchange, response: Denial | None) -> Any:
        if response is not None:
            return finished(denial(response), exchange)
        exchange.enter()
        try:
            return self._dress(exchange, end_head(request, await self.get_response(request)))
        except BaseException:
            exchange.finish(500)
            raise
        finally:
            exchange.leave()

    def _dress(self, exchange: Exchange, response: Any) -> Any:
        exchange.answer(response.status_code)
        before = list(response.headers.items())
        pairs = exchange.response_headers(before, text=True, status=response.status_code)
        if exchange.is_owned:  # some are gone, or other ones
            for name, _ in before:
                del response.headers[name]
        else:
            pairs = pairs[len(before) :]
        set_headers(response, pairs)
        return finished(response, exchange)


def finished(response: Any, exchange: Exchange) -> Any:
    """The same response, which says to the exchange when it is over."""
    if exchange.guard.finishers:
        close = response.close

        def closing() -> None:
            try:
                close()
            finally:
                exchange.finish(response.status_code)

        response.close = closing
    return response


def end_head(request: Any, response: Any) -> Any:
    """The same response; of an event stream a HEAD request gets the headers alone."""
    if request.method == "HEAD" and response.streaming and is_stream(response.headers.items()):
        response.streaming_content = nothing() if response.is_async else ()
    return response


async def nothing() -> AsyncIterator[bytes]:
    """No parts."""
    parts: tuple[bytes, ...] = ()
    for part in parts:
        yield part


def target_of(request: Any, option: str) -> tuple[str, str]:
    """(path as it was sent, mount) of a request: Django's own prefix, which FORCE_SCRIPT_NAME may set, is the mount."""
    scope, script = getattr(request, "scope", None), request.META.get("SCRIPT_NAME") or ""
    if scope is None:
        path, mount = placed(request.path_info, script, option)
        return path, mount or ""
    mount = mounts(option, encoded(script))
    return asgi_target(scope["path"], scope.get("raw_path"), mount), mount


def denial(response: Denial) -> HttpResponse:
    """Our response as Django's."""
    made = HttpResponse(response.body, status=response.status)
    set_headers(made, [(name.decode().title(), value.decode("latin-1")) for name, value in response.headers])
    return made


def set_headers(response: Any, pairs: list[tuple[str, str]]) -> None:
    """Puts headers on a response of Django, which keeps cookies apart from them."""
    for name, value in pairs:
        if name.lower() == "set-cookie":
            add_cookie(response, value)
        elif name.lower() == "server-timing" and name in response.headers:  # the view's own; there is one line a header
            response.headers[name] += f", {value}"
        else:
            response.headers[name] = value


def add_cookie(response: Any, line: str) -> None:
    """Adds a Set-Cookie line of ours."""
    pair, *attributes = line.split("; ")
    name, _, value = pair.partition("=")
    response.cookies[name] = value
    for attribute in attributes:
        key, _, said = attribute.partition("=")
        response.cookies[name][key.lower()] = said or True


class GobanfastConfig(AppConfig):  # type: ignore[misc]  # Django has no types
    """Registers the system checks."""

    name = "gobanfast.frontends.django"
    label = "gobanfast"
    verbose_name = "gobanfast"

    def ready(self) -> None:
        """Called by Django once settings stand."""
        checks.register(check_settings, checks.Tags.security)
        checks.register(check_workers, checks.Tags.security, deploy=True)


def check_settings(**_: Any) -> list[checks.CheckMessage]:
    """What is wrong with the settings: gobanfast.E001 unusable, W001 not first, W002 not installed, W003 trust, W004 no
    store."""
    found: list[checks.CheckMessage] = []
    try:
        made = guard()
    except (ValueError, TypeError, OSError, GobanError, AttributeError, ImportError) as error:
        return [checks.Error(f"GOBANFAST cannot be used: {error}", id="gobanfast.E001")]
    middleware = list(settings.MIDDLEWARE)
    if NAME not in middleware:
        found.append(checks.Warning(f"{NAME} is not in MIDDLEWARE: nothing is decided", id="gobanfast.W002"))
    elif (place := middleware.index(NAME)) > 0:
        before = ", ".join(middleware[:place])
        found.append(
            checks.Warning(
                f"{NAME} is not the first of MIDDLEWARE: {before} run for banned clients too",
                hint="Move it to the top.",
                id="gobanfast.W001",
            )
        )
    forwarded = settings.USE_X_FORWARDED_HOST or settings.SECURE_PROXY_SSL_HEADER
    if forwarded and not len(made.trust.peers) and not made.trust.unix:
        found.append(
            checks.Warning(
                "Django believes a proxy (USE_X_FORWARDED_HOST or SECURE_PROXY_SSL_HEADER), GOBANFAST trusts none: "
                "every client has the proxy's address",
                hint="Name the proxy's prefixes in GOBANFAST['trust'].",
                id="gobanfast.W003",
            )
        )
    if workers_of(os.environ) > 1:
        found += check_workers()
    return found


def check_workers(**_: Any) -> list[checks.CheckMessage]:
    """gobanfast.W004 where bans stay in the worker that made them: with --deploy, or where the environment names the
    number of workers."""
    try:
        engine = guard().engine
    except Exception:  # noqa: BLE001 - check_settings says what it is
        return []
    if settings.GOBANFAST.get("store") is not None or getattr(engine, "sync", None) is not None:
        return []
    return [
        checks.Warning(
            "Bans stay in each worker: whom one has banned the others serve, and after a restart all do",
            hint="Set GOBANFAST['store'], for example to 'sqlite:/var/lib/app/bans.db'.",
            id="gobanfast.W004",
        )
    ]
