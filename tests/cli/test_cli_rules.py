"""`gobanfast rules`: lint, test, compile, diff, explain, schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import gobanfast
from gobanfast.rules.text.json_schema import json_schema
from gobanfast.rules.text.yaml_nodes import read

pytest.importorskip("typer", reason="the command line needs the extra cli")

from typer.testing import CliRunner, Result

from gobanfast.cli.app import app

DEMO = Path(gobanfast.__file__).parent / "demo"
CASES = Path(__file__).parents[1] / "cases"
OLD = """
rules:
- {id: net, when: {prefix: [192.0.2.0/24, 198.51.100.0/24]}, action: ban}
- {id: gone, when: {sni: .evil.example}, action: challenge}
tests:
- {address: 192.0.2.1, expect: ban}
"""
NEW = """
unparsable: ban
rules:
- {id: new, when: {prefix: 203.0.113.0/24}, action: challenge, priority: 5}
- {id: net, when: {prefix: [192.0.2.0/24, '2001:db8::/32'], asn: [AS1, 3-4]}, action: ban, for: 1h, mode: shadow}
tests:
- {address: 192.0.2.1, expect: ban}
"""


def run(*arguments: object, status: int = 0) -> Result:
    """What a command leaves behind."""
    result = CliRunner().invoke(app, ["rules", *map(str, arguments)], env={"COLUMNS": "200", "TERM": "dumb"})
    assert status == result.exit_code, result.output
    return result


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    (tmp_path / "old.yaml").write_text(OLD)
    (tmp_path / "new.yaml").write_text(NEW)
    return tmp_path / "old.yaml", tmp_path / "new.yaml"


def test_lint_tells_the_thorough_findings(tmp_path: Path) -> None:
    """Findings have their code; failed tests are errors; JSON has the same members as Problem."""
    path = tmp_path / "rules.yaml"
    path.write_text(OLD.replace("192.0.2.1, expect: ban", "192.0.2.1, expect: allow").replace("198.51", "10.51"))
    shown = run("lint", path, status=1).stdout
    data = json.loads(run("lint", path, "--json", status=1).stdout)

    assert "rule 'net' can ban clients in 10.0.0.0/8 (private)" in shown
    assert "[warning special-prefix]" in shown
    assert "[error failed-test]" in shown
    assert (1, 1) == (data["errors"], data["warnings"])
    assert ["special-prefix", "failed-test"] == [problem["code"] for problem in data["problems"]]
    assert (str(path), 3) == (data["problems"][0]["source"], data["problems"][0]["line"])
    assert "wide-rule" in run("lint", path, "--wide", "0.000001", status=1).stdout


def test_test_runs_the_inline_tests(two: tuple[Path, Path]) -> None:
    """All files are run; a failure is a line with its place, and status 1."""
    shown = run("test", *two, status=1).stdout.splitlines()

    assert f"{two[0]}: 1 of 1 tests pass" == shown[0]
    assert shown[1].startswith(f"{two[1]}:7:3: test expects ban, the rules say allow")
    assert f"{two[1]}: 0 of 1 tests pass" == shown[2]


def test_compile_writes_what_loads_and_decides(two: tuple[Path, Path], tmp_path: Path) -> None:
    """The file decides and explains; rules that fail their tests are not compiled."""
    out = tmp_path / "rules.gbf"
    shown = run("compile", two[0], "-o", out).stdout

    assert shown.startswith(f"{out}: 2 rules, {out.stat().st_size:,} bytes, hash ")
    assert f"by rule 'net' at {two[0]}:3:3" in run("explain", out, "--address", "192.0.2.1").stdout
    assert f"{out}: 1 of 1 tests pass" in run("test", out).stdout
    run("compile", two[1], "-o", tmp_path / "bad.gbf", status=2)
    assert not (tmp_path / "bad.gbf").exists()


def test_diff_tells_rules_and_decisions(two: tuple[Path, Path], tmp_path: Path) -> None:
    """Added, removed and changed rules with what changed; then the lines of a log that are decided otherwise."""
    log = tmp_path / "access.log"
    log.write_text("192.0.2.1 a\n192.0.2.2 b\n203.0.113.9 c\n8.8.8.8 d\n8.8.8.8 e\nnonsense f\n")
    shown = run("diff", *two, status=1).stdout
    for line in (
        f"added new\n  challenge at {two[1]}:4",
        "changed net\n  mode enforce -> shadow\n  duration permanent -> 1h\n  prefix +2001:db8::/32\n",
        "  prefix -198.51.100.0/24\n  asn +AS1, AS3-4\n",
        f"removed gone\n  challenge at {two[0]}:4",
        "changed unparsable\n  challenge -> ban",
    ):
        assert line in shown
    assert "nothing changes\n" == run("diff", two[0], two[0]).stdout
    shown = run("diff", *two, "--log", log, status=1).stdout
    for line in (
        "3 of 5 requests differ (60.0%)",
        "ban -> allow: 2",
        "rule - -> new: 1",
        "192.0.2.1: ban (net) -> allow (-)",
    ):
        assert line in shown
    data: dict[str, Any] = json.loads(run("diff", *two, "--log", log, "--json", "--budget", 60, status=1).stdout)
    assert (1, 5, 3, ["rule gone"]) == (
        data["lines_without_address"], data["decisions"]["compared"], data["decisions"]["differing"],
        data["change_not_asked"])  # fmt: skip
    for path in two:  # without the rule on a server name, which no log can tell, the budget is that of the lines
        path.write_text("\n".join(text for text in path.read_text().splitlines() if "sni" not in text))
    assert json.loads(run("diff", *two, "--log", log, "--json", "--budget", 60).stdout)["over_budget"] is None
    run("diff", *two, "--log", log, "--budget", 59, status=1)
    run("diff", *two, "--budget", 5, status=2)
    run("diff", *two, "--replay", status=2)


def test_diff_compares_compiled_rules(two: tuple[Path, Path], tmp_path: Path) -> None:
    """Compiled against their source nothing changes."""
    run("compile", two[0], "-o", tmp_path / "rules.gbf")

    assert "nothing changes\n" == run("diff", tmp_path / "rules.gbf", two[0]).stdout


def test_explain_lists_rules_in_decision_order(two: tuple[Path, Path]) -> None:
    """Position, id, action, mode and conditions of every rule, and the order of everything else that decides."""
    shown = run("explain", two[1]).stdout.splitlines()

    assert ["1", "new", "challenge", "5", "prefix"] == shown[1].split()[:5]
    assert ["2", "net", "ban", "shadow", "100", "1h", "prefix", "(2);", "asn", "(2)"] == shown[2].split()[:10]
    assert any("allow rules, bans in force" in line for line in shown)


GOOD = [*CASES.glob("rules_v*/*.yaml"), DEMO / "rules.yaml"]


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_schema_takes_what_loads(path: Path) -> None:
    """The sample files are good by the JSON Schema."""
    schema = json.loads(run("schema").stdout)
    jsonschema.Draft202012Validator.check_schema(schema)

    assert [] == [
        error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(_data(path.read_text()))
    ]


@pytest.mark.parametrize(
    "text",
    [
        "rules: [{id: a, when: {prefx: 10.0.0.0/8}, action: ban}]",
        "rules: [{id: a, when: {}, action: ban}]",
        "rules: [{id: a, when: some, action: ban}]",
        "rules: [{id: a, when: any, action: bann}]",
        "rules: [{id: a, when: any}]",
        "version: 2",
        "sets: {'a b': {prefix: 10.0.0.0/8}}",
        "tests: [{address: 192.0.2.1}]",
        "trust: {prefx: 10.0.0.0/8}",
        "ban_rules: [{asn: 3}]",
        "rules: [{id: a, when: {sni_host: same}, action: ban}]",
    ],
)
def test_schema_refuses_what_does_not_load(text: str) -> None:
    """Wrong keys, missing ones and wrong words are red in an editor."""
    assert list(jsonschema.Draft202012Validator(json_schema()).iter_errors(_data(text)))


def _data(text: str) -> Any:
    return read(text, "x").value
