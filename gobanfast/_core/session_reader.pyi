from typing import Literal, Self, final

from gobanfast._core.headers import HeaderPairs, HeaderPlan

@final
class SessionReader:
    plan: HeaderPlan
    sources: tuple[tuple[str, str], ...]
    def __new__(cls, sources: tuple[tuple[str, str], ...], secrets: tuple[bytes, ...], plan: HeaderPlan) -> Self: ...
    def keys(self, value: str | bytes, /) -> tuple[str, ...]: ...
    def session(
        self, headers: HeaderPairs | None, query: bytes | str | None = None, /
    ) -> tuple[Literal["unknown", "absent", "present", "malformed"], tuple[tuple[str, ...], ...]]: ...

KINDS: tuple[str, ...]
STATES: tuple[str, ...]
