"""Common code of the HTTP frontends, and the interface of adapters for other servers.

Attributes:
    Exchange: one request and its response.
    HttpGuard: the options.
    HttpResponse: status, headers, body.
    read_target: the path in a request target, as `Exchange` wants it.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gobanfast._core.exchange import Exchange
    from gobanfast.frontends.http.guard import HttpGuard
    from gobanfast.frontends.http.refusal import HttpResponse
    from gobanfast.wire.target import read_target

__all__ = ["Exchange", "HttpGuard", "HttpResponse", "read_target"]

_HOMES = {
    "Exchange": "gobanfast._core.exchange",
    "HttpGuard": "gobanfast.frontends.http.guard",
    "HttpResponse": "gobanfast.frontends.http.refusal",
    "read_target": "gobanfast.wire.target",
}

if not TYPE_CHECKING:  # or type checkers would believe in any name

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_HOMES[name]), name)
