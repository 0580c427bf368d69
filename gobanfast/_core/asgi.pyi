from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from typing import Any, Self, final

from gobanfast._core.decision import Decision

@final
class RequestIds:
    def __new__(cls, seed: bytes) -> Self: ...
    def renew(self, seed: bytes, /) -> None: ...
    def mint(self) -> str: ...

@final
class MarkedSend:
    def __new__(
        cls,
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
        request_id: str,
        extra: list[tuple[bytes, bytes]] | None = None,
    ) -> Self: ...
    def __call__(self, message: MutableMapping[str, Any], /) -> Awaitable[None]: ...

@final
class AsgiGate:
    def __new__(
        cls,
        app: Callable[..., Awaitable[None]],
        gate: Any,
        *,
        ids: RequestIds,
        handshake: Callable[[], Any],
        refuse: Callable[..., Awaitable[None]],
        mount: str = "",
    ) -> Self: ...
    def enter(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
        /,
    ) -> Awaitable[None]: ...

def pick(headers: Iterable[tuple[bytes, bytes]], names: dict[bytes, str], /) -> dict[str, str]: ...

@final
class Budget:
    def __new__(cls, limit: int) -> Self: ...
    @property
    def limit(self) -> int: ...
    @property
    def used(self) -> int: ...
    def take(self, n: int, /) -> bool: ...
    def hold(self, decision: Decision, request_id: str | None, most: int, /) -> int: ...
    def give(self, n: int, /) -> None: ...

def weigh(
    headers: Iterable[Sequence[str | bytes]] | None, texts: Iterable[str | bytes | None], limit: int, /
) -> int: ...
def numbered(prefix: str, number: int, /) -> str: ...
