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

def pick(headers: Iterable[tuple[bytes, bytes]], names: dict[bytes, str], /) -> dict[str, str]: ...
