"""maxminddb-rust: a reader in Rust; `get` decodes a new dict, `get_path` one field of it."""

from __future__ import annotations

from typing import Any

from benchmarks.cases import Subject
from benchmarks.rivals import mmdb
from benchmarks.tables import Table

FIELD = "autonomous_system_number"


def get_path_each(get_path: Any, texts: list[str]) -> None:
    path = (FIELD,)
    for text in texts:
        get_path(text, path)


def get_many(reader: Any, texts: list[str]) -> list[int | None]:
    found: list[int | None] = reader.get_many_path(texts, (FIELD,))
    return found


def build(table: Table) -> list[Subject]:
    import maxminddb_rust

    reader = maxminddb_rust.open_database(str(mmdb.path(table)))
    get, get_path = reader.get, reader.get_path

    def asn(text: str) -> int | None:
        return get_path(text, (FIELD,))

    return [
        Subject("maxminddb-rust .get", "peer", "a new dict", {4: get, 6: get}),
        Subject("maxminddb-rust .get_path", "peer", "int", {4: get_path, 6: get_path}, get_path_each, asn),
    ]
