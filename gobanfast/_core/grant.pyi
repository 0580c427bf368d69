from collections.abc import Iterable
from typing import final

from gobanfast._core.allowed_headers import AllowedHeaders

SIMPLE_METHODS: tuple[bytes, ...]
ANYBODY: tuple[bytes, bytes]

@final
class CompiledGrant:
    def __new__(
        cls,
        any_origin: bool,
        *,
        credentials: bool = False,
        methods: Iterable[str] = (),
        headers: Iterable[str] = (),
        expose: Iterable[str] = (),
        max_age: int | None = None,
    ) -> CompiledGrant: ...
    @property
    def any_origin(self) -> bool: ...
    @property
    def credentials(self) -> bool: ...
    @property
    def methods(self) -> frozenset[bytes]: ...
    @property
    def any_method(self) -> bool: ...
    @property
    def headers(self) -> AllowedHeaders: ...
    @property
    def fields(self) -> tuple[tuple[bytes, bytes], ...]: ...
    @property
    def preflight(self) -> tuple[tuple[bytes, bytes], ...]: ...
    def response_fields(self, origin: bytes, /) -> tuple[tuple[bytes, bytes], ...]: ...
    def preflight_fields(
        self, origin: bytes, method: bytes, names: bytes | None = None, /
    ) -> tuple[tuple[bytes, bytes], ...] | str: ...
