from collections.abc import Callable, Iterable
from typing import Any, Self, final

from gobanfast._core.exchange import Exchange
from gobanfast.frontends.http.guard import HttpGuard

@final
class StartResponse:
    def __new__(cls, start_response: Callable[..., Any], exchange: Exchange) -> Self: ...
    def __call__(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any: ...

@final
class WsgiMiddleware:
    def __new__(
        cls,
        app: Callable[..., Iterable[bytes]],
        guard: HttpGuard,
        *,
        head_app: Callable[..., Iterable[bytes]],
        handshake_of: Callable[[dict[str, Any]], Any],
        send_response: Callable[..., Iterable[bytes]],
        watch: Callable[..., Iterable[bytes]],
    ) -> Self: ...
    def handle(self, environ: dict[str, Any], start_response: Callable[..., Any], /) -> Iterable[bytes]: ...
