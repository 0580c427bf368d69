"""Middleware inside an application, by the module that it is from: what writes CORS headers, what makes spans."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from gobanfast.telemetry.other_trace import OtherTrace, current_span

if TYPE_CHECKING:
    from gobanfast import Decision
    from gobanfast.frontends.http.guard import HttpGuard

logger = logging.getLogger("gobanfast.http")

CORS = ("starlette.middleware.cors.", "corsheaders.middleware.", "flask_cors.")
TRACERS = ("starlette.middleware.opentelemetry.", "opentelemetry.instrumentation.")
INSTRUMENTED = "_is_instrumented_by_opentelemetry"
"""What contrib writes on an application whose middleware it puts together itself (FastAPI, Flask)."""

FRAMEWORKS = ("fastapi", "flask", "starlette")
LOOKS = 16  # requests at which a tracer is looked for: it may leave URLs out, or be put in after ours
LAYERS = 64  # that are looked at
INNER = ("app", "wsgi_app", "wsgi", "__self__")  # attributes under which a layer has what it is around


def layers(app: Any) -> Iterator[Any]:
    """An application and what is inside it, outermost first: each layer by its `app`, once."""
    seen: set[int] = set()
    pending = [app]
    while pending and len(seen) < LAYERS:
        layer = pending.pop(0)
        if layer is None or id(layer) in seen:
            continue
        seen.add(id(layer))
        yield layer
        pending += [getattr(layer, name, None) for name in INNER]


def middleware(app: Any, modules: tuple[str, ...]) -> list[str]:
    """Dotted names of middleware inside `app` whose modules begin so: its layers, what Starlette, Flask and aiohttp are
    to call, and Django's setting."""
    found: dict[str, None] = {}
    for layer in layers(app):
        called: list[Any] = [type(layer)]
        called += [getattr(each, "cls", None) for each in getattr(layer, "user_middleware", None) or ()]
        for functions in (getattr(layer, "after_request_funcs", None) or {}).values():
            called += functions
        listed = getattr(layer, "middlewares", None)
        called += listed if isinstance(listed, Sequence) else ()
        names = [f"{getattr(each, '__module__', '')}.{getattr(each, '__name__', '')}" for each in called]
        if names[0].startswith("django.core.handlers."):
            from django.conf import settings

            names += settings.MIDDLEWARE
        found |= dict.fromkeys(name for name in names if name.startswith(modules))
    return list(found)


def tracers(app: Any) -> list[str]:
    """Dotted names of what makes OpenTelemetry's spans of requests in `app`: Starlette's own middleware, contrib's."""
    found = middleware(app, TRACERS)
    for layer in layers(app):
        if getattr(layer, INSTRUMENTED, False) is True:
            modules = [base.__module__.partition(".")[0] for base in type(layer).__mro__]
            library = next((name for name in modules if name in FRAMEWORKS), modules[0])
            if not any(library in name for name in found):
                found.append(f"opentelemetry.instrumentation.{library}")
    return found


def tracers_of_django() -> list[str]:
    """The same of Django's setting."""
    from django.conf import settings

    return [name for name in settings.MIDDLEWARE if name.startswith(TRACERS)]


class TracerLook:
    """Looks for a tracer around and inside an application at the first requests; `HttpGuard.tracer` until it is known.

    Where one is found, an `OtherTrace` is current in requests instead of the decision. Otherwise nothing is left here.
    """

    def __init__(self, guard: HttpGuard, find: Callable[[], list[str]]) -> None:
        self._guard, self._find, self._left = guard, find, LOOKS

    def __call__(self, decision: Decision) -> Any:
        """What is current in this request."""
        try:
            found = bool(self._find()) or current_span() is not None
        except Exception:  # of an object that is not what it looks like: a request does not fail by it
            logger.warning("middleware inside the application could not be looked at", exc_info=True)
            found, self._left = False, 0
        if found:
            self._guard.tracer = OtherTrace
            return OtherTrace(decision)
        self._left -= 1
        if self._left <= 0:
            self._guard.tracer = None
        return decision
