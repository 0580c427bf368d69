from typing_extensions import Buffer

from gobanfast._names import NameTable

class SignalTable:
    def __init__(
        self,
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
    ) -> None: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def content_hash(self) -> str: ...
    @property
    def words(self) -> int: ...
