"""`gobanfast scan`: tables, JSON, decisions, statuses."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

import gobanfast

pytest.importorskip("typer", reason="the command line needs the extra cli")

from typer.testing import CliRunner, Result

from gobanfast.batch.logs import ADDRESS_KEYS, FORMATS
from gobanfast.cli.app import app
from gobanfast.cli.scan import Layout
from gobanfast.demo import make_log

DEMO = Path(gobanfast.__file__).parent / "demo"
LOG, RULES = str(DEMO / "access.log.gz"), str(DEMO / "rules.yaml")


def scan(*arguments: str, stdin: bytes = b"", status: int = 0, rules: str = RULES) -> Result:
    """What `scan`, with the demo rules unless told otherwise, leaves behind."""
    command = ["scan", *arguments, "--rules", rules]
    result = CliRunner().invoke(app, command, input=stdin, env={"COLUMNS": "200", "TERM": "dumb"})
    assert status == result.exit_code, result.output
    return result


def test_demo_shows_what_a_newcomer_needs() -> None:
    """Tables by action, rule and network, shadow and log rules, bad lines, speed, and one closing sentence."""
    lines = scan(LOG).stdout.splitlines()

    for title in ("What would have happened", "By rule", "By network, 5 of ", "Busiest clients of each action",
                  "Shadow rules", "Rules that only log", "4 lines without", "2,000 lines in ",
                  "Not judged in full: staging ask", "Each line is"):  # fmt: skip
        assert 1 == sum(line.startswith(title) for line in lines), title
    assert ["ban", "271", "13.6%"] in [line.split() for line in lines]
    assert f"  {LOG}:411: 'crawler.example.net' is not an address" in lines
    assert lines[-1].startswith("In short: of 1,996 requests, 1,596 (80.0%) would have come in, 129 (6.5%) would have ")


def test_demo_log_regenerates() -> None:
    """The bundled log is what its generator writes, without a time stamp in the file."""
    packed = Path(LOG).read_bytes()

    assert "".join(f"{line}\n" for line in make_log.lines()).encode() == gzip.decompress(packed)
    assert bytes(4) == packed[4:8]


def test_json_is_the_tables() -> None:
    """One object; counts add up; members are fixed."""
    summary = json.loads(scan(LOG, "--json").stdout)

    assert [
        *("lines", "decided", "bad", "actions", "rules", "networks", "shadow", "logged", "clients", "unjudged"),
        *("clients_exact", "faults", "seconds"),
    ] == list(summary)
    assert {"allow": 1596, "ban": 271, "challenge": 129} == summary["actions"]
    assert {"source": LOG, "line": 411, "why": "'crawler.example.net' is not an address"} == summary["faults"][0]
    for part in ("rules", "networks"):
        assert summary["decided"] == sum(row["lines"] for row in summary[part])


def test_out_has_every_decision(tmp_path: Path) -> None:
    """--out holds a line for each decided line, with the actions of the summary."""
    out = tmp_path / "decisions.jsonl"
    summary = json.loads(scan(LOG, "--out", str(out), "--json").stdout)
    written = [json.loads(line) for line in out.read_text("ascii").splitlines()]

    assert summary["actions"] == Counter(row["action"] for row in written)
    assert [row["line"] for row in written] == [line for line in range(1, 2001) if line not in make_log.ODD]


def test_standard_input_and_several_logs(tmp_path: Path) -> None:
    """- is standard input, plain or gzip; several logs are one count; faults name their log."""
    plain = tmp_path / "plain.log"
    plain.write_text("198.51.100.9 - -\nhost.example - -\n")
    for data in (Path(LOG).read_bytes(), gzip.decompress(Path(LOG).read_bytes())):
        summary = json.loads(scan("-", str(plain), "--json", stdin=data).stdout)

        assert (2002, 5, 272) == (summary["lines"], summary["bad"], summary["actions"]["ban"])
        assert {"<stdin>", str(plain)} == {fault["source"] for fault in summary["faults"]}


def test_formats_and_field(tmp_path: Path) -> None:
    """--format and --field reach the reader; the names of formats are the reader's."""
    log = tmp_path / "log"
    log.write_text('{"a": {"b": "198.51.100.9"}, "ip": "192.0.2.2"}\n')

    assert FORMATS == tuple(layout.value for layout in Layout)
    assert {"ban": 1} == json.loads(scan(str(log), "--format", "jsonl", "--field", "a.b", "--json").stdout)["actions"]
    assert {"allow": 1} == json.loads(scan(str(log), "--json").stdout)["actions"]


def test_help_names_every_key_and_status() -> None:
    """--help states the keys in their order, and what the exit status means."""
    shown = CliRunner().invoke(app, ["scan", "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    text = " ".join(shown.stdout.split())

    assert ", ".join(ADDRESS_KEYS) in text
    assert "Exit status: 0 fine; 1 something to see" in text


@pytest.mark.parametrize(("action", "status"), [("ban", 1), ("challenge", 0)])
def test_fail_on(action: str, status: int) -> None:
    """Status 1 exactly when a line gets the action; the tables are printed all the same."""
    assert "In short" in scan("-", "--fail-on", action, stdin=b"198.51.100.9 -\n", status=status).stdout


def test_empty_log_is_fine() -> None:
    """Nothing to decide is said, and no failure."""
    assert "In short: the logs are empty" in scan("-").stdout


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        (["missing.log"], b"", "missing.log"),
        (["-", "--format", "xml"], b"", "xml"),
        (["-", "--format", "csv"], b"a,b\n", "<stdin>: no column looks like a client address"),
        (["-"], b"host.example -\nother.example -\n", "no line of 2 holds an address"),
        (["-"], b"\x7fELF\x00\x01\n\x02\x03", "<stdin>:1: "),
    ],
)
def test_unusable_input(arguments: list[str], stdin: bytes, message: str) -> None:
    """What cannot be scanned at all is status 2 with the reason on standard error, nothing on standard output."""
    result = scan(*arguments, stdin=stdin, status=2)

    assert "" == result.stdout
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_out_that_cannot_be_written(tmp_path: Path) -> None:
    """A path that takes no file is one line that names it."""
    result = scan(LOG, "--out", str(tmp_path / "no" / "such.jsonl"), status=2)

    assert f"{tmp_path / 'no' / 'such.jsonl'}: No such file or directory\n" == result.stderr


def test_rules_that_logs_cannot_answer_are_named(tmp_path: Path) -> None:
    """A log has no server name: rules that ask for one see it as absent, and the summary says which they are."""
    rules = tmp_path / "rules.yaml"
    named, none = (
        "{id: named, when: {sni: a.example}, action: ban}",
        "{id: none, when: {sni: absent}, action: challenge}",
    )
    rules.write_text(f"rules: [{named}, {none}]")

    shown = scan(LOG, rules=str(rules)).stdout

    assert ["challenge", "1,996", "100.0%"] in [line.split() for line in shown.splitlines()]
    assert "Not judged in full: named, none ask for what these logs do not hold" in shown
