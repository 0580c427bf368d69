from collections.abc import Iterable
from typing import Any, Self, final

@final
class EdgeHeaders:
    def __new__(cls, keep: tuple[str, ...] = (), append: bool = False, strip: tuple[str, ...] = ()) -> Self: ...
    @property
    def append(self) -> bool: ...
    @property
    def strips(self) -> bool: ...
    def without(
        self,
        headers: dict[str, Any] | Iterable[tuple[bytes, bytes]],
        /,
        *,
        strip: bool = True,
        peer: str | None = None,
    ) -> dict[str, Any] | list[tuple[bytes, bytes]] | None: ...
