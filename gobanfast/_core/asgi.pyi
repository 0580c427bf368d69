from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Self, final

from gobanfast._core.exchange import Exchange
from gobanfast.frontends.http.guard import HttpGuard

@final
class SendWrapper:
    def __new__(
        cls,
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
        exchange: Exchange,
        *,
        open_lease: Callable[..., Any],
    ) -> Self: ...
    def __call__(self, message: MutableMapping[str, Any], /) -> Awaitable[None]: ...

@final
class AsgiMiddleware:
    def __new__(
        cls,
        app: Callable[..., Awaitable[None]],
        guard: HttpGuard,
        *,
        handshake: Callable[[], Any],
        head_app: Callable[..., Awaitable[None]],
        send_response: Callable[..., Awaitable[None]],
        open_lease: Callable[..., Any],
        mount: str = "",
    ) -> Self: ...
    def handle(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
        /,
    ) -> tuple[Exchange | None, Awaitable[None]]: ...
