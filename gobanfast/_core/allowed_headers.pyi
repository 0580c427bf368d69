from collections.abc import Iterable, Sequence
from re import Pattern
from typing import Any, Self

TOKEN: Pattern[str]

class AllowedHeaders:
    names: tuple[str, ...]
    any: bool
    def __new__(cls, names: Iterable[str] = (), /, *, any: bool = False) -> Self: ...  # noqa: A002
    def allows_lines(self, lines: Iterable[str | bytes], /) -> bool: ...
    def __reduce__(self) -> tuple[Any, ...]: ...

def remade(cls: type[AllowedHeaders], names: Sequence[str], any: bool, /) -> AllowedHeaders: ...  # noqa: A002
