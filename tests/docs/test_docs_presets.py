"""docs/presets.md is what the program does: its commands print what it shows, its tables have every preset and tool."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gobanfast.rules.importers import TOOLS
from gobanfast.rules.presets import preset_text, presets

PAGE = (Path(__file__).parents[2] / "docs" / "presets.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)


def test_every_preset_and_tool_is_on_the_page() -> None:
    """With the description that --list prints."""
    first, second = PAGE.split("## From another tool's settings")
    row = re.compile(r"^\| `([a-z][a-z-]*)` \| (.*) \|$", re.MULTILINE)

    assert presets() == dict(row.findall(first))
    assert list(TOOLS) == [name for name, _ in row.findall(second)]


def test_commands_print_what_the_page_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both streams, in order."""
    pytest.importorskip("typer", reason="the command line needs the extra cli")
    from typer.testing import CliRunner

    from gobanfast.cli.app import app

    monkeypatch.chdir(tmp_path)
    for kind, text in BLOCKS:
        if kind == "json":
            name, _, rest = text.partition("\n")
            Path(name.removeprefix("// ")).write_text(rest)
    commands = [
        command
        for kind, text in BLOCKS if kind == "console"
        for command in re.findall(r"^\$ gobanfast (.*)\n((?:[^$].*\n)*)", text, re.MULTILINE)
    ]  # fmt: skip
    assert len(commands) == 5
    for command, shown in commands:
        result = CliRunner().invoke(app, command.split(), env={"COLUMNS": "200", "TERM": "dumb"})
        assert (0, shown) == (result.exit_code, result.output), command


def test_the_mcp_application_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python of the page runs, where the SDK is installed."""
    pytest.importorskip("mcp.server.mcpserver", reason="the MCP SDK is not installed")
    monkeypatch.chdir(tmp_path)
    Path("mcp.yaml").write_text(preset_text("mcp"))
    (code,) = [text for kind, text in BLOCKS if kind == "python"]
    made: dict[str, object] = {}
    exec(code, made)  # noqa: S102

    assert callable(made["app"])
