"""The table as an MMDB file for the MMDB readers, written once and kept in the cache folder."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from benchmarks.tables import CACHE, Table


def path(table: Table) -> Path:
    """An MMDB of `table`, with the one field GeoLite2-ASN has for the AS number. Takes about a minute once."""
    digest = sha256(table.addresses.tobytes() + table.lengths.tobytes() + table.values.tobytes()).hexdigest()[:16]
    found = CACHE / f"asn-{digest}.mmdb"
    if not found.exists():
        from mmdb_writer import MMDBWriter
        from netaddr import IPSet

        CACHE.mkdir(exist_ok=True)
        # Alias records would point 6to4 and Teredo space at the IPv4 tree; no other peer has them.
        writer = MMDBWriter(6, "GeoLite2-ASN", ipv4_compatible=True, int_type="u32")
        for prefix, value in _outermost_first(table):
            writer.insert_network(IPSet([prefix]), {"autonomous_system_number": value})
        writing = found.with_suffix(".part")
        writer.to_db_file(str(writing))
        writing.replace(found)
    return found


def _outermost_first(table: Table) -> list[tuple[str, int]]:
    """Rows by prefix length: the writer lets a later row overwrite what it covers."""
    rows = zip(table.lengths.tolist(), table.texts, table.values.tolist(), strict=True)
    return [(prefix, value) for _, prefix, value in sorted(rows)]
