"""AS table of a loader: given as an object, or the content of a file that is read again when its digest changes."""

from __future__ import annotations

import os
from collections.abc import Container
from typing import Protocol

from gobanfast.asn import AsnTable, read


class Inputs(Protocol):
    """Takes note of the files that were read: their digests by absolute path, None for one that is not there."""

    @property
    def files(self) -> dict[str, str | None]: ...
    def add(self, path: str, /) -> object: ...


class AsnSource:
    """The AS table that rules are compiled over: the one given, or what a file has, read again when it changes."""

    def __init__(self, source: AsnTable | str | os.PathLike[str] | None) -> None:
        self._digest: str | None = None
        self._table: AsnTable | None = None
        self.path: str | None = None
        if isinstance(source, (str, os.PathLike)):
            self.path = os.path.abspath(source)
        else:
            self._table = source

    def table(self, inputs: Inputs) -> AsnTable | None:
        """The table; its file is added to `inputs`. Raises what `asn.read` raises."""
        if self.path is not None:
            inputs.add(self.path)
            if self._table is None or inputs.files[self.path] != self._digest:
                self._table = read(self.path)
                self._digest = inputs.files[self.path]
        return self._table

    @property
    def nbytes(self) -> int:
        """Bytes of the table, or of its file."""
        if self.path is not None:
            return os.path.getsize(self.path) if os.path.isfile(self.path) else 0
        return 0 if self._table is None else self._table.nbytes

    def made(self, files: Container[str], made_over: str) -> bool:
        """Whether a ruleset of these unchanged files, compiled over the table with this hash, has this table."""
        if self.path is not None:
            return self.path in files
        return made_over == (self._table or AsnTable.starter()).content_hash
