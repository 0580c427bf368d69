from collections.abc import Callable
from typing import Self, final

@final
class LiveTable:
    def __new__(
        cls,
        labels: tuple[str, ...],
        words: int,
        matcher: Callable[..., bytes],
        none: bytes,
        sessions: bytes,
        unknown: bytes,
        favour: bytes,
        of_admit: bool,
        varies: tuple[str, ...],
        queries: tuple[str, ...],
    ) -> Self: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def words(self) -> int: ...
    @property
    def unknown(self) -> bytes: ...
    @property
    def favour(self) -> bytes: ...
    @property
    def varies(self) -> tuple[str, ...]: ...
    @property
    def queries(self) -> tuple[str, ...]: ...
    @property
    def of_admit(self) -> bool: ...
