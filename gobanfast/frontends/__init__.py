"""Adapters from one layer (TLS handshake, TCP accept, HTTP server) to the engine."""

from __future__ import annotations

# What a reader may look for here, or in gobanfast itself -> where it is. It is not imported from there, because each
# needs what the others do not.
ELSEWHERE = {
    "Gobanfast": (
        "gobanfast.frontends.asgi (FastAPI, Starlette), gobanfast.frontends.wsgi (Flask); Django names "
        "gobanfast.frontends.django.GobanfastMiddleware in MIDDLEWARE, aiohttp calls gobanfast.frontends.aiohttp.setup"
    ),
    "Binding": "gobanfast.frontends.binding",
    "Challenge": "gobanfast.frontends.challenge",
    "CrawlerCheck": "gobanfast.enrich.crawlers",
    "DecisionLog": "gobanfast.telemetry.log",
    "DecisionService": "gobanfast.frontends.authz",
    "Doctor": "gobanfast.frontends.doctor",
    "GobanfastMiddleware": "gobanfast.frontends.django",
    "Listener": "gobanfast.frontends.stream",
    "Metrics": "gobanfast.telemetry.metrics",
    "Trust": "gobanfast.frontends.trust",
    "WsgiDoctor": "gobanfast.frontends.doctor",
    "guard": "gobanfast.frontends.tls",
    "open_store": "gobanfast.stores",
}


def missing(module: str, name: str) -> Exception:
    """What to raise for a name that `module` has not: an ImportError that says where it is, if it is anywhere."""
    if name in ELSEWHERE:
        return ImportError(f"{name} is not in {module}; import it from {ELSEWHERE[name]}", name=name)
    return AttributeError(f"module {module!r} has no attribute {name!r}")


TYPE_CHECKING = False
if not TYPE_CHECKING:  # or type checkers would believe in any name

    def __getattr__(name: str) -> object:
        raise missing(__name__, name)
