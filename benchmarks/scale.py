"""Rates of every way to decide old requests, on the same rows of this machine, and what more rows would cost by them.

    python -m benchmarks.scale --rows 2000000

DuckDB makes the rows (addresses by Zipf, 100 user agents, 5,000 paths) and streams them: nothing but a batch is in
memory, so --rows 1000000000 works, too. A log of at most a million of them is written for the scan.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from gobanfast._core.enums import DECISIONS
from gobanfast.asn import AsnTable
from gobanfast.batch.coverage import required_headers
from gobanfast.batch.engines import asking
from gobanfast.batch.engines.duckdb import decide, register
from gobanfast.batch.logs import LogFile
from gobanfast.batch.scan import Scan
from gobanfast.engine import Engine
from gobanfast.rules import Ruleset

BAN = DECISIONS.index("ban")
RULES = """
rules:
- {id: net, when: {prefix: [10.0.0.0/12, 203.0.113.0/24]}, action: challenge}
- {id: tool, when: {header: {user-agent: {contains: [sqlmap, "Agent/7."]}}}, action: ban}
- {id: php, when: {path: ["/p/7*", /.env]}, action: ban}
"""
ROWS = """
SELECT (10 + h % 40) || '.' || (h // 64 % 256) || '.' || (h // 16384 % 256) || '.7' ip, 'www.example.com' sni,
       'Mozilla/5.0 (X11; Linux x86_64) Agent/' || (i % 100) || '.0' user_agent, 'GET' AS method,
       '/p/' || (i % 5000) path
FROM (SELECT i, hash(floor(pow(i % 100003, 0.7)))::UBIGINT % 4194304 h FROM range({rows}) t(i))
"""


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    found = call()
    return time.perf_counter() - start, found


def main() -> None:
    """Prints a table: way, rows, seconds, rows a second, hours of one core for 1e9 and 1e12 rows, bans."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    engine = Engine(Ruleset.from_text(RULES, asn=AsnTable.starter()))
    connection = duckdb.connect()
    connection.execute(f"SET threads = {options.threads}")
    register(connection, engine)
    query = ROWS.format(rows=options.rows)

    def stream(ask: Callable[[pa.RecordBatch], int]) -> int:
        return sum(map(ask, connection.sql(query).to_arrow_reader(1 << 16)))

    def many(batch: pa.RecordBatch) -> int:
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        return asking.decided(engine, columns).actions()["ban"]

    def by_function() -> int:
        asked = "gobanfast_action(ip, sni, user_agent, method, path) = 'ban'"
        rows = connection.sql(f"SELECT count(*) FILTER ({asked}) FROM ({query})").fetchall()  # noqa: S608
        return int(rows[0][0])

    def by_stream() -> int:
        reader = pa.RecordBatchReader.from_stream(decide(connection, query, engine))
        return sum(int(np.count_nonzero(np.asarray(batch.column("action").indices) == BAN)) for batch in reader)

    rows: list[tuple[str, int, float, int]] = []
    nothing, _ = timed(lambda: stream(lambda batch: batch.num_rows))
    rows.append(("making the rows", options.rows, nothing, 0))
    for name, call in (
        ("decide_many, batches of 65,536", lambda: stream(many)), ("DuckDB, gobanfast_action", by_function),
        ("DuckDB, decide()", by_stream),
    ):  # fmt: skip
        seconds, bans = timed(call)
        rows.append((name, options.rows, max(seconds - nothing, 1e-9), bans))
    lines = min(options.rows, 1_000_000)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "access.log"
        with path.open("w") as file:
            for batch in connection.sql(ROWS.format(rows=lines)).to_arrow_reader(1 << 16):
                columns = (batch.column(name).to_pylist() for name in ("ip", "path", "user_agent"))
                file.writelines(
                    f'{ip} - - [02/Nov/2026:00:00:05 +0000] "GET {target} HTTP/1.1" 200 5 "-" "{agent}"\n'
                    for ip, target, agent in zip(*columns, strict=True)
                )
        scanned = Scan(engine)
        with path.open("rb") as stream_of:
            asked = required_headers(engine.compiled)
            seconds, _ = timed(lambda: scanned.read(LogFile(stream_of, "log", requests=True, asked=asked)))
        bans = {tally.action: tally.lines for tally in scanned.by_action()}.get("ban", 0)
    rows.append(("scan of a combined log", lines, seconds, bans))
    print(f"{'way':34}{'rows':>14}{'seconds':>10}{'M rows/s':>10}{'h for 1e9':>11}{'h for 1e12':>12}{'bans':>12}")
    for name, count, seconds, found in rows:
        rate = count / seconds
        hours = 1e9 / rate / 3600
        print(
            f"{name:34}{count:>14,}{seconds:>10.2f}{rate / 1e6:>10.2f}{hours:>11.2f}{1000 * hours:>12.0f}{found:>12,}"
        )
    print(f"most memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB; making the rows is taken off")


if __name__ == "__main__":
    main()
