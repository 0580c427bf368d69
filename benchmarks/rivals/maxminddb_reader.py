"""maxminddb: MaxMind's reader, the C extension over a mapped file; decodes a new dict at every call."""

from __future__ import annotations

from benchmarks.cases import Subject
from benchmarks.rivals import mmdb
from benchmarks.tables import Table

RETURNS = "a new dict"


def build(table: Table) -> list[Subject]:
    import maxminddb

    reader = maxminddb.open_database(mmdb.path(table), maxminddb.MODE_MMAP_EXT)

    def asn(text: str) -> int | None:
        record = reader.get(text)
        return record and record["autonomous_system_number"]

    return [Subject("maxminddb C .get", "peer", RETURNS, {4: reader.get, 6: reader.get}, asn=asn)]
