"""`gobanfast backtest`: tables, JSON, the page, the budget's status, and Parquet by DuckDB."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("typer", reason="the command line needs the extra cli")

from typer.testing import CliRunner, Result

import gobanfast
from gobanfast.cli.app import app

LOG = str(Path(gobanfast.__file__).parent / "demo" / "access.log.gz")
RULES = """
trackers: {request_rate: {limit: 8, window: 60s, action: ban, for: 10m}}
rules:
- {id: own, when: {prefix: 198.51.100.0/24}, action: allow}
- {id: probes, when: {path: ["/.env", "/wp-login.php"]}, action: ban, for: 1h}
- {id: tools, when: {header: {user-agent: {contains: [curl, python, sqlmap]}}}, action: ban}
"""


def backtest(tmp_path: Path, *options: str, status: int = 0) -> Result:
    (tmp_path / "new.yaml").write_text(RULES)
    command = ["backtest", "--rules", str(tmp_path / "new.yaml"), *options]
    result = CliRunner().invoke(app, command, env={"COLUMNS": "200", "TERM": "dumb"})
    assert status == result.exit_code, result.output
    return result


def test_tables_json_and_page(tmp_path: Path) -> None:
    """The same numbers in all three."""
    shown = backtest(tmp_path, LOG, "--html", str(tmp_path / "report.html")).stdout
    found = json.loads(backtest(tmp_path, LOG, "--json", "--partitions", "8").stdout)

    probes = next(effect for effect in found["effects"] if (effect["id"], effect["cause"]) == ("probes", "rule"))
    assert probes["lines"] >= probes["clients"] > 0
    assert f"probes           ban     {probes['lines']:,}" in shown or f" {probes['lines']:,} " in shown
    assert "Collateral: " in shown
    assert (
        f"<td>probes</td><td>rule</td><td>ban</td><td>{probes['lines']}</td>" in (tmp_path / "report.html").read_text()
    )
    assert 1_996 == found["lines"]
    assert found["over_budget"] is None


def test_budget_is_the_status(tmp_path: Path) -> None:
    """Status 1 over the budget, and where nobody looks good; 0 within it."""
    everybody = tmp_path / "good.txt"
    everybody.write_text("0.0.0.0/0  # everybody\n::/0\n")
    over = backtest(tmp_path, LOG, "--good", str(everybody), "--budget", "collateral=0.1%", status=1)
    assert "is over the budget of 0.1%" in over.stdout
    backtest(tmp_path, LOG, "--good", str(everybody), "--budget", "collateral=100%")
    everybody.write_text("192.0.2.255\n")
    log = tmp_path / "a.log"
    log.write_text('192.0.2.1 - - [02/Nov/2026:00:00:05 +0000] "GET / HTTP/1.1" 200 5 "-" "x"\n')
    assert "cannot be judged" in backtest(tmp_path, str(log), "--budget", "collateral=1%", status=1).stdout
    assert "is no budget" in backtest(tmp_path, LOG, "--budget", "5", status=2).stderr


def test_wrong_use(tmp_path: Path) -> None:
    """Neither logs nor query, both, and partitions where state is shared."""
    assert "give logs, or a query" in backtest(tmp_path, status=2).stderr
    assert "give logs, or a query" in backtest(tmp_path, LOG, "--sql", "SELECT 1", status=2).stderr
    (tmp_path / "scored.yaml").write_text("score: {}\nrules: []\n")
    scored = ["backtest", LOG, "--rules", str(tmp_path / "scored.yaml"), "--partitions", "2"]
    result = CliRunner().invoke(app, scored, env={"COLUMNS": "200"})
    assert (2, True) == (result.exit_code, "not kept by client" in result.stderr)


def test_parquet_and_sql(tmp_path: Path) -> None:
    """Rows of a table, in any order, are replayed by time."""
    duckdb = pytest.importorskip("duckdb")
    path = tmp_path / "rows.parquet"
    duckdb.connect().sql(
        "SELECT '192.0.2.' || (i % 5) ip, 1700000000.0 + 10 * (100 - i) AS time, "
        "CASE i WHEN 7 THEN '/.env' ELSE '/' END path, "
        "'x' user_agent FROM range(100) t(i)"
    ).write_parquet(str(path))

    by_file = json.loads(backtest(tmp_path, str(path), "--json").stdout)
    by_query = json.loads(backtest(tmp_path, "--sql", f"SELECT * FROM '{path}'", "--json").stdout)  # noqa: S608
    assert by_file == by_query
    assert 100 == by_file["lines"]
    assert {"probes"} == {effect["id"] for effect in by_file["effects"]}
    assert 2 == len(by_file["effects"])  # the rule, then the ban that it stored
