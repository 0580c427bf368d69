from collections.abc import Mapping
from typing import Self, final

from typing_extensions import Buffer

from gobanfast._core.block import Block
from gobanfast._core.name_table import NameTable

@final
class ConnectionTable:
    def __new__(
        cls,
        *,
        words: int,
        asks: int,
        absent: Buffer,
        names: NameTable,
        names_digest: bytes,
        name_rows: Buffer,
        hello_rows: Buffer,
        ja4_terms: Buffer,
        ja4_rows: Buffer,
        alpn_terms: Buffer,
        alpn_rows: Buffer,
        text: bytes,
    ) -> Self: ...
    @classmethod
    def of_blocks(cls, blocks: Mapping[str, Block], *, verify: bool = True) -> Self: ...
    def blocks(self) -> dict[str, Block]: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def content_hash(self) -> str: ...
    @property
    def words(self) -> int: ...
