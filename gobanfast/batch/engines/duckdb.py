"""SQL functions of DuckDB over the engine's kernel, by Arrow UDFs; and whole queries decided as a stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from threading import local
from typing import TYPE_CHECKING, Any

from gobanfast.batch.arrow import ArrowColumn, ArrowStream, ArrowTable, asn_column, rule_column
from gobanfast.batch.engines import asking
from gobanfast.batch.engines.row_classes import RowClasses

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from gobanfast._core.prefix_set import PrefixSet
    from gobanfast.asn import AsnTable
    from gobanfast.engine import Engine

BATCH_ROWS = 1 << 16


def register(
    connection: DuckDBPyConnection, engine: Engine, *, asn: AsnTable | None = None,
    lists: Mapping[str, PrefixSet] | None = None, mount: str = "",
) -> None:  # fmt: skip
    """Gives a connection SQL functions, which replace those of an earlier call.

    - `gobanfast_action(ip, sni, user_agent, method, path, host, referer)` and `gobanfast_rule(...)`: what the
      rules alone decide. Arguments from the right may be left out: a signal that is not there is unknown, NULL
      is an absent one.
    - `gobanfast_asn(ip)`: the origin AS. `gobanfast_as_name(ip)`: its name, with `asn`.
    - `gobanfast_in(ip, 'name')`: whether an address is in one of `lists`.

    Args:
        engine: decides; its live state is not changed. `mount` is as for `Engine.decide`.
        asn: the AS table that names are from.
    """
    import pyarrow as pa

    threads = local()  # DuckDB calls from all of its threads

    def asked(columns: tuple[Any, ...]) -> tuple[RowClasses, Any]:
        names = asking.SIGNALS[: len(columns)]
        if not hasattr(threads, "rows"):
            threads.rows = {}
        rows: RowClasses | None = threads.rows.get(names)
        if rows is None:
            rows = threads.rows[names] = RowClasses(engine, names, mount)
        return rows, rows.numbers(columns)

    def plain(column: ArrowColumn) -> Any:
        return pa.chunked_array([pa.array(column)])

    def action(*columns: Any) -> Any:
        rows, numbered = asked(columns)
        return plain(asking.action_column(rows.action[numbered]))

    def rule(*columns: Any) -> Any:
        rows, numbered = asked(columns)
        return plain(ArrowColumn(rule_column("rule", rows.rule[numbered], engine.compiled)))

    def asn_of(ip: Any) -> Any:
        rows, numbered = asked((ip,))
        return plain(ArrowColumn(asn_column("asn", rows.asn[numbered])))

    def as_name(ip: Any) -> Any:
        return plain(asking.as_name(asking.decided(engine, {"ip": ip}), asn))  # type: ignore[arg-type]

    def inside(ip: Any, name: Any) -> Any:
        names = name.unique().to_pylist()
        if len(names) != 1 or names[0] not in (lists or {}):
            raise ValueError(
                f"gobanfast_in: no list {names!r}; one of {', '.join(lists or {}) or 'none'}, for all rows"
            )
        return pa.chunked_array([pa.array(asking.inside(lists or {}, ip, names[0]), pa.bool_())])

    made: list[tuple[str, Any, list[str] | None, str]] = [
        ("action", action, None, "VARCHAR"), ("rule", rule, None, "VARCHAR"), ("asn", asn_of, ["VARCHAR"], "UINTEGER"),
        ("in", inside, ["VARCHAR", "VARCHAR"], "BOOLEAN"),
    ]  # fmt: skip
    if asn is not None:
        made.append(("as_name", as_name, ["VARCHAR"], "VARCHAR"))
    for name, function, parameters, returns in made:
        _replace(connection, f"gobanfast_{name}", function, parameters, returns)


def _replace(connection: Any, name: str, function: Any, parameters: list[str] | None, returns: str) -> None:
    import duckdb

    with suppress(duckdb.Error):  # there is none
        connection.remove_function(name)
    connection.create_function(name, function, parameters, returns, type="arrow", null_handling="special")


def decide(connection: DuckDBPyConnection, query: str, engine: Engine, *, mount: str = "") -> ArrowStream:
    """The answers to the rows of a query, as a stream of tables of action, rule, asn and cause, in the query's order.

    Args:
        query: SQL whose columns are `ip` and others as in `asking.decided`. It is run while the stream is read.
    Cost: one batch of rows in memory.
    """
    reader = connection.sql(query).to_arrow_reader(BATCH_ROWS)
    return ArrowStream(_answers(reader, engine, mount))


def _answers(reader: Any, engine: Engine, mount: str) -> Iterator[ArrowTable]:
    import pyarrow as pa

    empty = True
    for batch in reader:
        empty = False
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        yield asking.decided(engine, columns, mount=mount).arrow()
    if empty:
        yield asking.decided(engine, {"ip": pa.array([], pa.string())}).arrow()
