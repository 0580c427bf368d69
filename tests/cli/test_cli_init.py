"""`gobanfast init` and `gobanfast rules import`: rules files to start from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gobanfast.rules.importers import TOOLS
from gobanfast.rules.presets import preset_text, presets

pytest.importorskip("typer", reason="the command line needs the extra cli")

from typer.testing import CliRunner, Result

from gobanfast.cli.app import app
from gobanfast.cli.rules import Tool


def run(*arguments: object, status: int = 0) -> Result:
    """What a command leaves behind."""
    result = CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "200", "TERM": "dumb"})
    assert status == result.exit_code, result.output
    return result


def test_init_lists_the_presets() -> None:
    """A line for each: name and description."""
    shown = run("init", "--list").stdout.splitlines()[1:]

    assert list(presets().items()) == [tuple(text.strip() for text in line.split(maxsplit=1)) for line in shown]


@pytest.mark.parametrize("name", sorted(presets()))
def test_init_writes_a_file_that_lints_and_tests(name: str, tmp_path: Path) -> None:
    """The preset as it is; `rules lint` and `rules test` are content with it."""
    path = tmp_path / "rules.yaml"
    shown = run("init", "--preset", name, path).stdout

    assert preset_text(name) == path.read_text()
    assert shown.startswith(f"{path}: preset {name}, ")
    assert "nothing to say" in run("rules", "lint", path).stdout
    assert "tests pass" in run("rules", "test", path).stdout


def test_init_writes_over_nothing_unless_it_is_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """rules.yaml is the file where none is named; a wrong preset is an error before anything is written."""
    monkeypatch.chdir(tmp_path)
    run("init", "--preset", "nothing", status=2)
    assert [] == list(tmp_path.iterdir())
    run("init", "--preset", "api")
    assert "rules.yaml exists; --force writes over it" in run("init", "--preset", "spa", status=2).output
    assert preset_text("api") == Path("rules.yaml").read_text()
    run("init", "--preset", "spa", "--force")
    assert preset_text("spa") == Path("rules.yaml").read_text()
    assert "--list describes them" in run("init", status=2).output


def test_import_writes_rules_and_says_what_was_wrong(tmp_path: Path) -> None:
    """Rules to standard output or a new file, warnings to standard error; errors write nothing."""
    source, out = tmp_path / "cors.json", tmp_path / "rules.yaml"
    source.write_text(json.dumps({"allow_origins": ["https://app.example.com", "null"], "allow_methods": ["*"]}))
    shown = run("rules", "import", "--from", "starlette", source)
    run("rules", "import", "--from", "starlette", source, "-o", out)

    assert shown.stdout == out.read_text()
    assert f"{source}: allow_origins lists 'null'" in shown.stderr
    assert "nothing to say" in run("rules", "lint", out).stdout
    run("rules", "import", "--from", "starlette", source, "-o", out, status=2)
    run("rules", "import", "--from", "starlette", source, "-o", out, "--force")
    run("rules", "import", "--from", "mcp", source, "-o", tmp_path / "none.yaml", status=2)
    assert not (tmp_path / "none.yaml").exists()
    source.write_bytes(b"\xff")
    assert "is not UTF-8" in run("rules", "import", "--from", "mcp", source, status=2).output


def test_every_importer_has_a_name_on_the_command_line() -> None:
    """And every name an importer."""
    assert list(TOOLS) == [tool.value for tool in Tool]
