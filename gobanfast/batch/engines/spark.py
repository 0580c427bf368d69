"""Spark adapter: rules shipped once a node as a file that workers map, decisions by `mapInArrow`, replay by client.

It works on classic sessions and on Spark Connect. Workers need this package; nothing is pickled but a file's name.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gobanfast.batch.engines import asking
from gobanfast.batch.partition import client_key, not_partitioned

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from gobanfast._core.engine_core import EngineCore
    from gobanfast.engine import Engine
    from gobanfast.rules import Ruleset

_OPENED: dict[str, tuple[Ruleset, EngineCore]] = {}  # of this worker process, by file

ANSWER = "action string, rule string, asn long, cause string"


@dataclass(frozen=True)
class Shipped:
    """Rules on every node, by the name of their file."""

    name: str
    folder: str  # where it is when Spark does not know: the driver itself

    def path(self) -> str:
        """Where the rules are on this node."""
        from pyspark import SparkFiles

        try:
            found = str(SparkFiles.get(self.name))
        except (AssertionError, RuntimeError, TypeError):
            found = ""
        return found if os.path.exists(found) else os.path.join(self.folder, self.name)

    def ruleset(self) -> Ruleset:
        """The rules, of which the file is opened once in a worker process, and mapped."""
        return self._opened()[0]

    def engine(self) -> EngineCore:
        """The engine of this worker process."""
        return self._opened()[1]

    def fresh(self) -> EngineCore:
        """An engine of its own, without live state, whose clock is told: for a replay."""
        return _core(self.ruleset())

    def _opened(self) -> tuple[Ruleset, EngineCore]:
        from gobanfast.rules import Ruleset

        found = _OPENED.get(self.name)
        if found is None:
            ruleset = Ruleset.load(self.path())
            found = _OPENED[self.name] = ruleset, _core(ruleset)
        return found


def _core(ruleset: Ruleset) -> EngineCore:
    from gobanfast._core.engine_core import EngineCore

    return EngineCore(ruleset.compiled, ruleset.settings, lambda: 0.0)


def broadcast(session: SparkSession, engine: Engine) -> Shipped:
    """Ships the rules of an engine to every node, once (`addFile`; Spark Connect: `addArtifact`)."""
    folder = tempfile.mkdtemp(prefix="gobanfast-spark-")
    path = os.path.join(folder, "rules.gbf")
    engine.ruleset.save(path)
    with open(path, "rb") as file:
        name = f"gobanfast-{hashlib.sha256(file.read()).hexdigest()[:16]}.gbf"
    os.rename(path, os.path.join(folder, name))
    shipped = Shipped(name, folder)
    path = os.path.join(folder, name)
    if hasattr(session, "_jsparkSession"):
        session.sparkContext.addFile(path)
    else:
        session.addArtifact(path, file=True)
    return shipped


def decide(frame: DataFrame, rules: Shipped, *, mount: str = "", keep: Iterable[str] = ()) -> DataFrame:
    """The answers of the rules alone to the rows of a frame.

    Args:
        frame: a column `ip`, and any of sni, ja4, method, path, host, origin, scheme; other columns are headers by
            their names. Null is an absent signal. Leave out columns that are no signal.
        keep: columns of the frame that the result has, too, before action, rule, asn and cause; they are no signals.
    """
    kept = tuple(keep)

    def ask(batches: Iterator[Any]) -> Iterator[Any]:
        import pyarrow as pa

        engine = rules.engine()
        for batch in batches:
            columns = {name: batch.column(name) for name in batch.schema.names if name not in kept}
            answers = pa.record_batch(asking.decided(engine, columns, mount=mount))
            yield _answer_batch([(name, batch.column(name)) for name in kept], answers)

    return frame.mapInArrow(ask, _schema(frame, kept))


def replay(
    frame: DataFrame, rules: Shipped, *, time: str = "time", partitions: int = 8, mount: str = "",
    keep: Iterable[str] = (),
) -> DataFrame:  # fmt: skip
    """The answers with bans and trackers, each row at its own time: exact for what is keyed by client.

    Rows are put together by client and sorted by time, and a partition goes through its rows once with an engine of its
    own: never a whole client is in memory.

    Args:
        frame: as for `decide`, with a column of Unix seconds (double) under the name `time`.
        keep: columns that the result has, too, besides ip and time.
    Raises:
        ValueError: parts of the rules that are not kept by client alone; the message names them.
    """
    from pyspark.sql import functions

    odd = not_partitioned(rules.ruleset())
    if odd:
        raise ValueError(f"not kept by client alone, so a partition does not know it: {', '.join(odd)}")
    kept, names = ("ip", time, *keep), tuple(frame.columns)
    base = frame.agg(functions.min(time)).first()[0] or 0.0

    def key_of(batches: Iterator[Any]) -> Iterator[Any]:
        import pyarrow as pa

        for batch in batches:
            keys = pa.array([client_key(text) for text in batch.column("ip").to_pylist()], pa.string())
            yield pa.record_batch([*batch.columns, keys], [*batch.schema.names, "_client"])

    def ask(batches: Iterator[Any]) -> Iterator[Any]:
        import pyarrow as pa

        engine = rules.fresh()
        for batch in batches:
            listed = {name: batch.column(name).to_pylist() for name in names}
            made = [
                engine.decide(row.pop("ip") or "", now=row.pop(time) - base, mount=mount, **_said(row, keep))
                for row in (dict(zip(names, values, strict=True)) for values in zip(*listed.values(), strict=True))
            ]
            answers = pa.record_batch(
                {
                    "action": [each.action for each in made],
                    "rule": [each.rule for each in made],
                    "asn": [each.asn for each in made],
                    "cause": [each.cause for each in made],
                }
            )
            yield _answer_batch([(name, batch.column(name)) for name in kept], answers)

    keyed = frame.mapInArrow(key_of, _with(frame, "_client string"))
    sorted_rows = keyed.repartition(partitions, "_client").sortWithinPartitions(time)
    return sorted_rows.mapInArrow(ask, _schema(frame, kept))


def _said(row: dict[str, Any], keep: Iterable[str]) -> dict[str, Any]:
    """Keyword arguments of `Engine.decide` for a row of signals; headers that are null are known to be absent."""
    from gobanfast._core.headers import PartialHeaders

    own = {name: row[name] for name in ("sni", "ja4") if row.get(name) is not None}
    names = [name for name in row if name not in {"sni", "ja4", "method", "path", *keep}]
    pairs = [(b":" + name.encode(), row[name].encode()) for name in ("method", "path") if row.get(name) is not None]
    pairs += [(_header(name).encode(), row[name].encode()) for name in names if row[name] is not None]
    return own | {"headers": PartialHeaders(pairs, tuple(map(_header, names)))}


def _header(name: str) -> str:
    return name.replace("_", "-")


def _answer_batch(kept: list[tuple[str, Any]], answers: Any) -> Any:
    import pyarrow as pa

    kinds = {"action": pa.string(), "rule": pa.string(), "asn": pa.int64(), "cause": pa.string()}
    columns = [column for _, column in kept] + [answers.column(name).cast(kind) for name, kind in kinds.items()]
    return pa.record_batch(columns, [*(name for name, _ in kept), *kinds])


def _with(frame: DataFrame, more: str) -> str:
    fields = [f"`{field.name}` {field.dataType.simpleString()}" for field in frame.schema.fields]
    return ", ".join([*fields, more])


def _schema(frame: DataFrame, kept: Iterable[str]) -> str:
    types = {field.name: field.dataType.simpleString() for field in frame.schema.fields}
    return ", ".join([*(f"`{name}` {types[name]}" for name in kept), ANSWER])


def functions(rules: Shipped) -> dict[str, Callable[..., Any]]:
    """Column functions (`arrow_udf`): `action(ip, sni, user_agent, ...)` and `rule(...)` take the columns of
    `asking.SIGNALS` from the left, `asn(ip)` the address."""
    from pyspark.sql.functions import arrow_udf

    def made(answer: Any, kind: str) -> Any:
        import pyarrow as pa

        def ask(*columns: Any) -> Any:
            found = asking.decided(rules.engine(), dict(zip(asking.SIGNALS, columns, strict=False)))
            return pa.array(answer(found)).cast(pa.string() if kind == "string" else pa.int64())

        ask.__annotations__ = {"columns": pa.Array, "return": pa.Array}  # what tells Spark the kind of function
        return arrow_udf(ask, kind)

    return {
        "action": made(asking.action, "string"), "rule": made(asking.rule, "string"), "asn": made(asking.asn, "long"),
    }  # fmt: skip
