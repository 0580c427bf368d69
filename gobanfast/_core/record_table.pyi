from collections.abc import Iterable
from typing import Any, Self, final

@final
class RecordTable:
    def __new__(
        cls,
        *,
        kinds: bytes,
        rows: bytes,
        words: int,
        classes: tuple[str | None, ...],
        thresholds: dict[str, int],
        fixed: Iterable[str] = (),
        propagators: tuple[str, ...],
        stranger: str = "restart",
        edge: Any = None,
        internal: Any = None,
        traceresponse: bool = False,
        server_timing: bool = False,
    ) -> Self: ...
    @property
    def words(self) -> int: ...
    @property
    def classes(self) -> tuple[str | None, ...]: ...
    @property
    def thresholds(self) -> dict[str, int]: ...
    @property
    def fixed(self) -> frozenset[str]: ...
    @property
    def propagators(self) -> tuple[str, ...]: ...
    @property
    def headers(self) -> tuple[str, ...]: ...
    @property
    def stranger(self) -> int: ...
    @property
    def edge(self) -> Any: ...
    @property
    def internal(self) -> Any: ...
    @property
    def traceresponse(self) -> bool: ...
    @property
    def server_timing(self) -> bool: ...
