"""AS tables: the origin AS of an address and its name, from text tables, MMDB files or compiled files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Self

from gobanfast._core.asn_table import AsnBlock, AsnRows
from gobanfast._dataclass import dataclass
from gobanfast._errors import FormatError, RuleError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Buffer

__all__ = ["AsnTable", "Reading", "read"]

COMPILED_MAGIC = b"\x89GBF\r\n\x1a\n"
STARTER = os.path.join(os.path.dirname(__file__), "starter.csv")


@dataclass(frozen=True, slots=True)
class Reading:
    """What was counted while a table was read: rows (or MMDB networks), and those among them without an AS."""

    rows: int
    without_asn: int


class AsnTable(AsnBlock):
    """Origin AS of every address and the names of the ASes; frozen, any number of threads may read.

    An address belongs to the AS of the longest prefix that covers it. `source` names the file it was read from;
    `reading` is the `Reading` of it, None for a table that was loaded compiled.
    """

    __slots__ = ()

    @classmethod
    def from_csv(
        cls, path: str | os.PathLike[str], names: str | os.PathLike[str] | None = None, *, columns: str | None = None
    ) -> Self:
        """Table of a text file, plain or gzip: `prefix,asn[,name]`, `first,last,asn[,country],name` or pfx2as.

        Comma or tab, fields optionally in double quotes, blank lines and `#` comments skipped. ASNs are `13335` or
        `AS13335`; rows of AS 0 or with an empty AS are counted and left out. A header may name and order the columns.
        Without one, a third column of the prefix layout that is shorter than three characters and not quoted is a flag
        or a country code, not a name. An unquoted name in the last column runs to the end of the line. Of equal
        prefixes the last wins, and the last name of an AS. pfx2as has `address<TAB>length<TAB>origin`: of several
        origins (`64501_64502`) the first counts, a set (`64501,64502`) is none. Rows that could be read in two ways,
        because numbers in them look like lengths of prefixes, are refused.

        Args:
            columns: what the columns hold, where that is ambiguous: words of prefix, address, length, first, last,
                asn, name and - (another), as in "address,length,asn"; with a number (from 1) where columns between are
                passed over, as in "first,last,asn=24".
            names: a text file `asn,name`; its names take the place of those in `path`.
        Raises:
            RuleError: every row of both files that cannot be read (the first 100 are described), or columns that
                cannot be told. ValueError: `columns` make no table.
            FormatError: gzip data is cut short. OSError: a file cannot be opened.
        Cost: about 0.35 s for a million rows in any order.
        """
        from gobanfast.asn import csv

        rows = AsnRows()
        problems = csv.scan_rows(rows, path, columns)
        reading = Reading(rows.count, rows.without_asn)
        if names is not None:
            problems += csv.scan_names(rows, names)
        if problems:
            raise RuleError(problems)
        return cls.of_rows(rows, source=os.fspath(path), reading=reading)

    @classmethod
    def from_mmdb(cls, path: str | os.PathLike[str]) -> Self:
        """Table of an MMDB file with the record layout of GeoLite2-ASN, DB-IP or IPinfo, walked whole.

        Networks whose record has no usable AS number are counted and left out. FormatError when the file is cut short,
        damaged, or has no AS numbers at all (the message lists the fields it has). Cost: some 10 us a network.
        """
        from gobanfast.asn import mmdb

        found = mmdb.read_networks(path)
        rows = AsnRows()
        rows.add(found.addresses, found.lengths, found.asns)
        for asn, name in found.names.items():
            rows.put_name(asn, name)
        return cls.of_rows(rows, source=os.fspath(path), reading=Reading(found.records, found.without_asn))

    @classmethod
    def from_arrays(
        cls,
        addresses: Buffer,
        lengths: Buffer,
        asns: Buffer,
        names: Mapping[int, str] | Iterable[tuple[int, str]] = (),
    ) -> Self:
        """Table of n prefixes in three buffers, and names by ASN.

        Args:
            addresses: n x 16 bytes, network order, IPv4 as ::ffff:a.b.c.d.
            lengths: n uint8, 0..128; IPv4 a.b.c.d/n is 96 + n.
            asns: n uint32, at most 4294967294; 0 is no AS and adds nothing.
        Raises:
            ValueError: buffers of different lengths, or a prefix that cannot be used, with its index.
        """
        rows = AsnRows()
        rows.add(addresses, lengths, asns)
        for asn, name in names.items() if isinstance(names, Mapping) else names:
            rows.put_name(asn, name)
        return cls.of_rows(rows, source="<arrays>", reading=Reading(rows.count, rows.without_asn))

    @classmethod
    def starter(cls) -> AsnTable:
        """The table that ships with gobanfast: about 500 prefixes of clouds, content networks, resolvers and hosters.

        Built from asn/starter.csv on first use and kept for the process. It answers None for most of the Internet;
        `gobanfast asn build` makes a full table.
        """
        return _starter()

    def describe(self, asn: int) -> str:
        """ "AS<number> <name>", or "AS<number>" when the name is not known."""
        name = self.name(asn)
        return f"AS{asn} {name}" if name else f"AS{asn}"

    def asns(self) -> NDArray[np.uint32]:
        """Every ASN that has a prefix or a name, ascending."""
        import numpy as np

        return np.union1d(np.frombuffer(self.prefix_asns(), np.uint32), np.frombuffer(self.named_asns(), np.uint32))

    def ranges(
        self,
    ) -> tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.uint8], NDArray[np.uint32]]:
        """(starts4, asns4, starts6, asns6): the disjoint ranges the prefixes cut each address family into.

        Each family is covered whole: range i goes from starts[i] to just before starts[i + 1], or to the family's end.
        ASN 0 is no AS. starts4 is uint32 in host order, starts6 n x 16 bytes in network order.
        """
        import numpy as np

        starts4, asns4 = self.family_ranges(4)
        starts6, asns6 = self.family_ranges(6)
        return (
            np.frombuffer(starts4, np.uint32),
            np.frombuffer(asns4, np.uint32),
            np.frombuffer(starts6, np.uint8).reshape(-1, 16),
            np.frombuffer(asns6, np.uint32),
        )


@cache
def _starter() -> AsnTable:
    return AsnTable.from_csv(STARTER)


def read(
    path: str | os.PathLike[str], *, names: str | os.PathLike[str] | None = None, columns: str | None = None
) -> AsnTable:
    """Table of any file that holds one, detected by content: compiled, MMDB, or text (plain or gzip).

    Args:
        names: a text file `asn,name`, for a text table.
        columns: as for AsnTable.from_csv, for a text table.
    Raises:
        RuleError, FormatError, OSError: as AsnTable.load, from_mmdb and from_csv.
        ValueError: `names` or `columns` with another kind.
    """
    from gobanfast.asn import csv, mmdb

    with open(path, "rb") as file:
        head = file.read(4096)
    if head.startswith(COMPILED_MAGIC):
        kind = "a compiled table"
    elif mmdb.is_mmdb(path):
        kind = "an MMDB file"
    elif b"\0" in head and not head.startswith(csv.GZIP_MAGIC):
        raise FormatError(os.fspath(path), head.index(b"\0"), "neither a compiled table, an MMDB nor text; zero byte")
    else:
        return AsnTable.from_csv(path, names, columns=columns)
    if names is not None:
        raise ValueError(f"{os.fspath(path)} is {kind}, which has its own names; names go with a text table")
    if columns is not None:
        raise ValueError(f"{os.fspath(path)} is {kind}, which needs no columns; they go with a text table")
    return AsnTable.load(path) if head.startswith(COMPILED_MAGIC) else AsnTable.from_mmdb(path)
