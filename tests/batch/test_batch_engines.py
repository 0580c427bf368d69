"""DuckDB and Polars over the kernel: the counts of the scan and of the slow oracle, for the same lines."""

from __future__ import annotations

import gzip
import io
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import gobanfast
from gobanfast import PrefixSet
from gobanfast._core.address import parse_address
from gobanfast.asn import AsnTable
from gobanfast.batch.coverage import required_headers
from gobanfast.batch.engines import asking
from gobanfast.batch.logs import LogFile
from gobanfast.batch.scan import Scan
from gobanfast.engine import Engine
from gobanfast.rules import Ruleset
from oracle import scan_lines

pa = pytest.importorskip("pyarrow")

DEMO_LOG = Path(gobanfast.__file__).parent / "demo" / "access.log.gz"
RULES = """
rules:
- {id: net, when: {prefix: [203.0.113.0/24, 66.249.0.0/16]}, action: challenge}
- {id: tool, when: {header: {user-agent: {contains: [curl, sqlmap, python]}}}, action: ban}
- {id: php, when: {path: ["/**/*.php", "/.env"]}, action: ban}
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    path = tmp_path_factory.mktemp("rules") / "rules.yaml"
    path.write_text(RULES)
    return Engine(Ruleset.load(path, asn=AsnTable.starter()))


def opened(data: bytes, engine: Engine) -> LogFile:
    return LogFile(io.BufferedReader(io.BytesIO(data)), "a.log", requests=True, asked=required_headers(engine.compiled))


def columns_of(data: bytes, engine: Engine) -> dict[str, list[Any]]:
    """The well-formed lines of a log as columns."""
    found: dict[str, list[Any]] = {"ip": [], "user_agent": [], "method": [], "path": [], "referer": []}
    for chunk in opened(data, engine):
        assert chunk.requests is not None
        for address, request in zip(chunk.addresses, chunk.requests, strict=True):
            pairs = [] if request.headers is None else request.headers.pairs
            if parse_address(address) is None or not {b":method", b":path"} <= {name for name, _ in pairs}:
                continue
            said = {name.decode(): value.decode("utf-8", "replace") for name, value in pairs}
            for name, column in found.items():
                column.append(address if name == "ip" else said.get({"user_agent": "user-agent", "method": ":method",
                                                                     "path": ":path"}.get(name, name)))  # fmt: skip
    return found


def expected_of(columns: dict[str, list[Any]], engine: Engine) -> Counter[tuple[str, str | None]]:
    """Rows by action and rule, decided one by one."""
    counts: Counter[tuple[str, str | None]] = Counter()
    for ip, agent, method, path, referer in zip(*columns.values(), strict=True):
        pairs = [(b"user-agent", agent), (b"referer", referer)]
        headers = [(name, value.encode()) for name, value in pairs if value is not None]
        made = engine.peek(ip, headers=headers, method=method, path=path)
        counts[made.action, made.rule] += 1
    return counts


def logs(request: pytest.FixtureRequest) -> bytes:
    if request.param == "demo":
        return gzip.decompress(DEMO_LOG.read_bytes())
    folder: Path = request.getfixturevalue("real_data")
    return gzip.decompress((folder / "access-combined.log.gz").read_bytes())


data = pytest.fixture(logs, params=["demo", "real"])


def test_counts_are_those_of_the_scan(engine: Engine, data: bytes) -> None:
    """DuckDB's functions, DuckDB's stream, Polars, the scan and the oracle count the same lines alike."""
    duckdb, pl = pytest.importorskip("duckdb"), pytest.importorskip("polars")
    from gobanfast.batch.engines import duckdb as of_duckdb
    from gobanfast.batch.engines import polars as of_polars

    columns = columns_of(data, engine)
    expected = expected_of(columns, engine)
    scanned = Scan(engine)
    scanned.read(opened(data, engine))
    counts, _ = scan_lines.count(engine, opened(data, engine))
    by_scan: Counter[tuple[str, str | None]] = Counter()
    for (_, made), lines in counts.items():
        by_scan[made.action, made.rule] += lines
    assert by_scan == Counter({(tally.action, tally.key): tally.lines for tally in scanned.by_rule()})
    left = sum(by_scan.values()) - sum(expected.values())  # lines without a request, and those with an odd one
    assert 0 <= left < 20
    assert not expected - by_scan

    connection = duckdb.connect()
    connection.execute("SET threads = 2")
    connection.register("lines", pa.table(columns))
    of_duckdb.register(connection, engine, asn=AsnTable.starter(), lists={"net": PrefixSet(["203.0.113.0/24"])})
    asked = "ip, NULL, user_agent, method, path"
    rows = connection.sql(
        f"SELECT gobanfast_action({asked}) a, gobanfast_rule({asked}) r, count(*) FROM lines GROUP BY ALL"  # noqa: S608
    ).fetchall()
    assert expected == Counter({(action, rule): lines for action, rule, lines in rows})

    stream = of_duckdb.decide(connection, "SELECT ip, user_agent, method, path, referer FROM lines", engine)
    table = pa.RecordBatchReader.from_stream(stream).read_all()
    assert expected == Counter(zip(table["action"].to_pylist(), table["rule"].to_pylist(), strict=True))

    frame = pl.DataFrame(columns).lazy().select(
        a=of_polars.action(engine, user_agent="user_agent", method="method", path=pl.col("path")),
        r=of_polars.rule(engine, user_agent="user_agent", method="method", path="path"),
    )  # fmt: skip
    assert expected == Counter(frame.collect(engine="streaming").rows())


def test_sql_functions(engine: Engine) -> None:
    """Null, text that is no address, missing arguments, lists and names; a second call takes the place of the first."""
    duckdb = pytest.importorskip("duckdb")
    from gobanfast.batch.engines.duckdb import decide, register

    connection = duckdb.connect()
    register(connection, engine, asn=AsnTable.starter(), lists={"doc": PrefixSet(["203.0.113.0/24"])})
    register(connection, engine, asn=AsnTable.starter(), lists={"doc": PrefixSet(["203.0.113.0/24"])})
    rows = connection.sql(
        "SELECT gobanfast_action(ip), gobanfast_rule(ip), gobanfast_asn(ip), gobanfast_as_name(ip), "
        "gobanfast_in(ip, 'doc') FROM (VALUES ('203.0.113.9'), ('8.8.8.8'), (NULL), ('x')) t(ip)"
    ).fetchall()

    assert [
        ("challenge", "net", None, None, True), ("allow", None, 15169, AsnTable.starter().name(15169), False),
        ("challenge", None, None, None, None), ("challenge", None, None, None, None),
    ] == rows  # fmt: skip
    with pytest.raises(duckdb.Error, match="no list"):
        connection.sql("SELECT gobanfast_in(ip, 'none') FROM (VALUES ('8.8.8.8')) t(ip)").fetchall()
    empty = decide(connection, "SELECT '1.1.1.1' ip WHERE false", engine)
    assert 0 == pa.RecordBatchReader.from_stream(empty).read_all().num_rows


def test_functions_remember_values_and_not_for_ever(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch after batch the answers are those of all rows at once, also when the memory of values begins anew."""
    from gobanfast.batch.engines import row_classes

    monkeypatch.setattr(row_classes, "MOST_VALUES", 40)
    rows = row_classes.RowClasses(engine, asking.SIGNALS[:5], "")
    for turn in range(12):
        table = [
            [f"203.0.{turn % 5 + 111}.{n % 9}" if n % 7 else None for n in range(50)], [None] * 50,
            [("curl", "x", None)[n % 3] for n in range(50)], ["GET"] * 50,
            [f"/{n % (turn + 1)}{'.php' * (n % 4 == 0)}" for n in range(50)],
        ]  # fmt: skip
        columns = [pa.chunked_array([pa.array(column, pa.string()).slice(turn)]) for column in table]
        numbers = rows.numbers(tuple(columns))
        expected = asking.decided(engine, dict(zip(rows.names, columns, strict=True)))
        for name in ("action", "rule", "asn"):
            assert getattr(expected, name).tolist() == getattr(rows, name)[numbers].tolist()


def test_polars_lookups(engine: Engine) -> None:
    """Numbers and names of networks; an empty frame; a column that is not there."""
    pl = pytest.importorskip("polars")
    from gobanfast.batch.engines import polars as of_polars

    frame = pl.DataFrame({"client": ["8.8.8.8", None]})
    found = frame.select(
        n=of_polars.asn(engine, "client"), m=of_polars.as_name(engine, AsnTable.starter(), pl.col("client"))
    )
    assert [(15169, AsnTable.starter().name(15169)), (None, None)] == found.rows()
    assert 0 == frame.clear().select(of_polars.action(engine, "client")).height
    with pytest.raises(ValueError, match="no column 'ip' among user_agent"):
        asking.decided(engine, {"user_agent": ["x"]})
