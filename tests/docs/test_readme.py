"""The README's example is what the program does."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gobanfast import Engine, Ruleset
from test_cli_tables import on_terminal
from test_http_servers import free_port, python, spawned

README = Path(__file__).parents[2] / "README.md"


def test_example_prints_what_the_readme_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The YAML block saved as rules.yaml and the Python block run beside it print the text block."""
    example = re.search(r"<!-- example:start -->(.*)<!-- example:end -->", README.read_text(), re.DOTALL)
    assert example is not None
    blocks = dict(re.findall(r"```(\w+)\n(.*?)```", example[1], re.DOTALL))
    (tmp_path / "rules.yaml").write_text(blocks["yaml"])
    monkeypatch.chdir(tmp_path)
    printed = io.StringIO()

    with contextlib.redirect_stdout(printed):
        exec(blocks["python"], {})  # noqa: S102

    assert blocks["text"] == printed.getvalue()


def test_web_example_prints_what_the_readme_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The YAML and Python blocks saved as the files they name, and the console's commands run one after the other on a
    terminal, print what the console block shows; times and the port are the machine's."""
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    for program in ("curl", "bash"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not on PATH")
    example = re.search(r"<!-- web:start -->(.*)<!-- web:end -->", README.read_text(), re.DOTALL)
    assert example is not None
    blocks = dict(re.findall(r"```(\w+)\n(.*?)```", example[1], re.DOTALL))
    for block in ("yaml", "python"):
        (tmp_path / blocks[block].split()[1]).write_text(blocks[block])
    port = free_port()
    shown = re.findall(r"^\$ (.*)\n((?:[^$].*\n)*)", blocks["console"], re.MULTILINE)
    assert ["pip", "uvicorn", "curl", "curl", "curl", "gobanfast"] == [command.split()[0] for command, _ in shown]

    with spawned(*python("-m", "uvicorn", "app:app", "--port", f"{port}"), port=port, cwd=tmp_path):
        for command, expected in shown[2:5]:
            told = subprocess.run(
                ["bash", "-c", command.replace("8000", f"{port}")],  # noqa: S607
                cwd=tmp_path, capture_output=True, text=True, check=True,
            ).stdout  # fmt: skip
            assert expected == told
    monkeypatch.chdir(tmp_path)
    listed = on_terminal(80, *shown[5][0].split()[1:])

    aligned = re.compile(r"in \d+ min|\d+ s ago *| +(?=\n)")
    assert aligned.sub("", shown[5][1]) == aligned.sub("", listed)


def test_share_rules_grant_what_the_readme_says() -> None:
    """The rules that stand alone: one page reads, another does not."""
    (rules,) = re.findall(r"```yaml\n(share:\n.*?)```", README.read_text(), re.DOTALL)
    engine = Engine(Ruleset.from_text(rules))
    asked = [
        engine.peek(None, path="/api/x", headers=[(b"origin", origin)]).share
        for origin in (b"https://app.example.com", b"https://evil.example")
    ]

    assert ["granted", "withheld"] == asked


@pytest.mark.skipif(not (README.parent / "setup.py").exists(), reason="no source tree around the tests")
def test_links_lead_somewhere() -> None:
    """Every relative link of the README names a file of the tree."""
    links = re.findall(r"\]\(([^)#:]+)\)", README.read_text())

    assert [] == [link for link in links if not (README.parent / link).exists()]
    assert {f"docs/{page.name}" for page in (README.parent / "docs").glob("*.md")} <= set(links)
