from collections.abc import Sequence
from typing import Self

SLOW: int
ADDRESS: int
FULL: int
FULL_RAW: int
COMMON: int
COMMON_RAW: int
COLUMNS: int
STRUCTURES: int
LAYOUTS: dict[str, int]

class LineReader:
    def __new__(
        cls,
        layout: str,
        /,
        *,
        address_only: bool = False,
        skip: int = 0,
        delimiter: str = ",",
        columns: Sequence[int] = (),
        features: int | None = None,
    ) -> Self: ...
    def learn(self, structure: int, slots: Sequence[int], /) -> int | None: ...
    def index(self, block: object, nbytes: int, /) -> int: ...
    def read(self, block: object, nbytes: int, lines: int, kinds: object, spans: object, hashes: object, /) -> int: ...
    def json_values(self, line: bytes, /) -> tuple[int, str] | None: ...

class InternTable:
    def __new__(cls) -> Self: ...
    def __len__(self) -> int: ...
    def clear(self) -> None: ...
    def text(self, number: int, /) -> bytes: ...
    def texts(self, block: object, at: object, nbytes: object, out: object, /) -> bytes: ...
    def fixed(self, records: object, width: int, out: object, /) -> bytes: ...
