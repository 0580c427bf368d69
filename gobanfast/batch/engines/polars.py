"""Polars expressions over the engine's kernel, by `map_batches`; they run in the streaming engine, batch by batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gobanfast.batch.engines import asking

if TYPE_CHECKING:
    from polars import Expr

    from gobanfast.asn import AsnTable
    from gobanfast.batch.arrow import ArrowColumn
    from gobanfast.engine import Engine


def action(engine: Engine, ip: Expr | str = "ip", *, mount: str = "", **signals: Expr | str) -> Expr:
    """What the rules alone decide, as a Categorical.

    Args:
        ip: the client's address: a column's name, or an expression.
        signals: sni, ja4, method, path, host, origin, scheme; any other is a header by its name (`user_agent`). Null is
            an absent signal, one that is not given is unknown.
    """
    return _asked(engine, asking.action, ip, mount, signals)


def rule(engine: Engine, ip: Expr | str = "ip", *, mount: str = "", **signals: Expr | str) -> Expr:
    """The rule that decides; null where none does. Arguments are those of `action`."""
    return _asked(engine, asking.rule, ip, mount, signals)


def asn(engine: Engine, ip: Expr | str = "ip") -> Expr:
    """The origin AS; null where it is not known."""
    return _asked(engine, asking.asn, ip, "", {})


def as_name(engine: Engine, table: AsnTable, ip: Expr | str = "ip") -> Expr:
    """The name of the origin AS in `table`."""
    return _asked(engine, lambda made: asking.as_name(made, table), ip, "", {})


def _asked(engine: Engine, answer: Any, ip: Expr | str, mount: str, signals: dict[str, Expr | str]) -> Expr:
    import polars as pl

    given: dict[str, Expr | str] = {"ip": ip, **signals}
    columns = [pl.col(each) if isinstance(each, str) else each for each in given.values()]

    def ask(batch: Any) -> Any:
        made = asking.decided(engine, dict(zip(given, batch, strict=True)), mount=mount)
        column: ArrowColumn = answer(made)
        return pl.Series(column)

    kind: Any = pl.UInt32 if answer is asking.asn else pl.Categorical
    return pl.map_batches(columns, ask, return_dtype=kind)
