from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, final

@final
class RequestIds:
    def __init__(self, seed: bytes) -> None: ...
    def renew(self, seed: bytes, /) -> None: ...
    def mint(self) -> str: ...

@final
class MarkedSend:
    def __init__(
        self,
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
        request_id: str,
        extra: list[tuple[bytes, bytes]] | None = None,
    ) -> None: ...
    def __call__(self, message: MutableMapping[str, Any], /) -> Awaitable[None]: ...

@final
class AsgiGate:
    def __init__(
        self,
        app: Callable[..., Awaitable[None]],
        gate: Any,
        *,
        ids: RequestIds,
        handshake: Callable[[], Any],
        refuse: Callable[..., Awaitable[None]],
    ) -> None: ...
    def enter(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
        /,
    ) -> Awaitable[None]: ...

def pick(headers: Iterable[tuple[bytes, bytes]], names: dict[bytes, str], /) -> dict[str, str]: ...
