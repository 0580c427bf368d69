from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from gobanfast._core.trace_context import TraceContext

_C = TypeVar("_C")

PROPAGATORS: tuple[str, ...]
EXTRACTED: tuple[str, ...]
INJECTED: tuple[str, ...]
FIELDS: tuple[str, ...]

def spoken_by(propagators: Iterable[str]) -> int: ...
def names_of(propagators: Iterable[str]) -> tuple[str, ...]: ...
def extract(
    carrier: Any,
    propagators: Iterable[str] = ...,
    *,
    getter: Callable[[Any, str], Iterable[str | bytes]] | None = None,
) -> TraceContext | None: ...
def inject(
    carrier: _C,
    context: TraceContext | None = None,
    *,
    propagators: Iterable[str] | None = None,
    baggage: bool = False,
    host: str | None = None,
    setter: Callable[[_C, str, str], None] | None = None,
) -> _C: ...
