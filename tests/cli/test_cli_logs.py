"""Every command that takes a log takes it alike: a file, standard input, plain or gzip; what is none is told alike."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

import gobanfast

pytest.importorskip("typer", reason="the command line needs the extra cli")

from typer.testing import CliRunner, Result

from gobanfast.cli.app import app
from gobanfast.telemetry.log import DecisionLog

OLD = "rules:\n- {id: env, when: {path: /.env}, action: ban}\n"
NEW = "rules:\n- {id: env, when: {path: /.env}, action: challenge}\n"
LINE = '203.0.113.7 - - [27/Nov/2026:01:52:28 +0000] "GET /.env HTTP/1.1" 404 0 "-" "curl/8"\n'


def run(*arguments: str, stdin: bytes = b"", status: int = 0) -> Result:
    result = CliRunner().invoke(app, arguments, input=stdin, env={"COLUMNS": "200", "TERM": "dumb"})
    assert status == result.exit_code, result.output
    return result


@pytest.fixture
def commands(tmp_path: Path) -> dict[str, tuple[tuple[str, ...], bytes, int]]:
    """By name: the command up to its log, what such a log holds, the status."""
    (old := tmp_path / "old.yaml").write_text(OLD)
    (new := tmp_path / "new.yaml").write_text(NEW)
    engine = gobanfast.Engine.load(old)
    log = DecisionLog(f"file:{tmp_path / 'log.jsonl'}")
    log.observe(engine.decide("203.0.113.7", path="/.env", method="GET", headers=[]), request_id="r-1")
    log.close()
    decisions = (tmp_path / "log.jsonl").read_bytes()
    return {
        "scan": (("scan", "-r", str(old), "--json"), LINE.encode(), 0),
        "diff": (("rules", "diff", str(old), str(new), "--json", "--log"), LINE.encode(), 1),
        "explain": (("explain", "-r", str(old), "--id", "r-1", "--json", "--log"), decisions, 0),
    }


@pytest.mark.parametrize("name", ["scan", "diff", "explain"])
def test_a_log_is_a_file_or_standard_input_plain_or_gzip(commands, tmp_path: Path, name: str) -> None:
    """All four ways come to the same."""
    command, data, status = commands[name]
    (plain := tmp_path / "a.log").write_bytes(data)
    (packed := tmp_path / "b.log").write_bytes(gzip.compress(data))
    found = []
    for result in (
        run(*command, str(plain), status=status),
        run(*command, str(packed), status=status),
        run(*command, "-", stdin=data, status=status),
        run(*command, "-", stdin=gzip.compress(data), status=status),
    ):
        told = json.loads(result.stdout)
        told.pop("seconds", None)
        for log in told.get("logs", ()):
            del log["log"]
        found.append(told)

    assert [found[0]] * 4 == found
    expected = {"scan": ("decided", 1), "diff": ("over_budget", None), "explain": ("decided_again", True)}[name]
    assert expected in found[0].items()
    if name == "diff":
        assert (1, 1) == (found[0]["decisions"]["compared"], found[0]["decisions"]["differing"])


@pytest.mark.parametrize("name", ["scan", "diff", "explain"])
def test_what_is_no_log_is_told(commands, tmp_path: Path, name: str) -> None:
    """A folder, a missing file, each with its name and status 2."""
    command, _, _ = commands[name]

    assert f"{tmp_path}: it is a folder; name the logs in it\n" == run(*command, str(tmp_path), status=2).stderr
    assert f"{tmp_path / 'x'}: No such file or directory\n" == run(*command, str(tmp_path / "x"), status=2).stderr


@pytest.mark.parametrize(("name", "option"), [("scan", ()), ("diff", ("--log",))])
def test_standard_input_twice_is_refused(commands, name: str, option: tuple[str, ...]) -> None:
    """The second would be empty."""
    command, data, _ = commands[name]

    assert "name it once" in run(*command, "-", *option, "-", stdin=data, status=2).stderr


def test_explain_tells_a_damaged_log_and_an_access_log(commands) -> None:
    """Neither is "no such id"."""
    command, data, _ = commands["explain"]

    cut = run(*command, "-", stdin=gzip.compress(data)[:200], status=2).stderr
    assert cut.startswith("<stdin>: gzip stream is damaged or cut short")
    access = run(*command, "-", stdin=LINE.encode(), status=2).stderr
    assert access.startswith("<stdin>: no line is JSON; give a decision log")
