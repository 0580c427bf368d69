from collections.abc import Callable, Iterable
from typing import Self, final

from gobanfast._core.headers import HeaderPairs, HeaderPlan

CACHE_BYTES: int
CARRIED_NAMES: tuple[str, ...]

@final
class RequestTable:
    def __new__(
        cls,
        plan: HeaderPlan,
        words: int,
        matchers: Iterable[tuple[str, bytes, bytes, bytes, bytes, Callable[[bytes], bytes], bool]],
        content_hash: str,
        *,
        cache_bytes: int = ...,
    ) -> Self: ...
    @property
    def plan(self) -> HeaderPlan: ...
    @property
    def words(self) -> int: ...
    @property
    def asks(self) -> int: ...
    @property
    def content_hash(self) -> str: ...
    @property
    def admit_asks_method(self) -> bool: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def evaluations(self) -> int: ...
    @property
    def names(self) -> tuple[str, ...]: ...
    def states(self, which: int, /) -> tuple[bytes, bytes, bytes]: ...
    def longest(self, which: int, /) -> int | None: ...
    def value_row(self, which: int, value: bytes | str, /, *, mount: str = "") -> bytes | None: ...
    def of_admit(self, which: int, /) -> bool: ...
    def row(
        self,
        headers: HeaderPairs | None,
        /,
        *,
        method: str | None = None,
        path: str | None = None,
        sni: str | None = None,
        mount: str = "",
    ) -> bytes: ...
