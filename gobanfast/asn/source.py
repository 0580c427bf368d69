"""AS table of a loader: given as an object, or the content of a file that is read again when its digest changes.

Without either it is the file that GOBANFAST_ASN names, else `geoip.asn.mmdb` beside the rules file, else the starter
table. What was learned online (`gobanfast.enrich.learned`), in a file of the folder of feeds, is joined to it.
"""

from __future__ import annotations

import os
from collections.abc import Container, Mapping
from typing import Protocol

from gobanfast.asn import AsnTable, read
from gobanfast.asn.folder import LEARNED, folder_path


class Inputs(Protocol):
    """Takes note of the files that were read: their digests by absolute path, None for one that is not there."""

    @property
    def files(self) -> dict[str, str | None]: ...
    def add(self, path: str, /) -> object: ...


BESIDE = "geoip.asn.mmdb"


def default_path(rules: str | os.PathLike[str], environ: Mapping[str, str] = os.environ) -> str | None:
    """The file of the AS table where none is given; None: the starter table."""
    if named := environ.get("GOBANFAST_ASN"):
        return os.path.abspath(named)
    beside = os.path.join(os.path.dirname(os.path.abspath(rules)), BESIDE)
    return beside if os.path.isfile(beside) else None


class AsnSource:
    """The AS table that rules are compiled over: the one given, or what a file has, read again when it changes.

    Args:
        source: the table, or its file; None: see `default_path`, of the rules file `rules`.
    """

    def __init__(
        self, source: AsnTable | str | os.PathLike[str] | None, *, rules: str | os.PathLike[str] | None = None
    ) -> None:
        if source is None and rules is not None:
            source = default_path(rules)
        self._learned = None if rules is None else os.path.join(folder_path(rules), LEARNED)
        self._joined: tuple[object, str, AsnTable] | None = None  # of which table, and what was learned
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
        if self._learned is None or not os.path.isfile(self._learned):
            return self._table
        inputs.add(self._learned)
        return self._with_learned(inputs.files[self._learned] or "")

    def _with_learned(self, digest: str) -> AsnTable:
        """The table and what was learned; made anew when one of them is another."""
        from gobanfast.asn.learned import joined, read_learned

        base = self._table or AsnTable.starter()
        if self._joined is None or self._joined[:2] != (base, digest):
            self._joined = base, digest, joined(base, read_learned(self._learned or ""))
        return self._joined[2]

    @property
    def nbytes(self) -> int:
        """Bytes of the table, or of its file."""
        if self.path is not None:
            return os.path.getsize(self.path) if os.path.isfile(self.path) else 0
        return 0 if self._table is None else self._table.nbytes

    def made(self, files: Container[str], made_over: str) -> bool:
        """Whether a ruleset of these unchanged files, compiled over the table with this hash, has this table."""
        learned = self._learned is not None and os.path.isfile(self._learned)
        if learned and self._learned not in files:
            return False
        if self.path is not None:
            return self.path in files
        base = self._table or AsnTable.starter()
        if learned:
            from gobanfast.asn.learned import joined, read_learned

            base = joined(base, read_learned(self._learned or ""))
        return made_over == base.content_hash
