"""docs/sessions.md is what the program does: its rules pass their tests, its Python prints what it shows."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from gobanfast import Ruleset
from gobanfast.rules.text.json_schema import json_schema

PAGE = (Path(__file__).parents[2] / "docs" / "sessions.md").read_text()


def block(kind: str) -> str:
    """The one block of this kind."""
    (found,) = re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


def test_the_rules_pass_their_tests() -> None:
    """Those under `tests:`."""
    ruleset = Ruleset.from_text(block("yaml"))

    assert [] == ruleset.failures()
    assert len(ruleset.tests) == block("yaml").count("- {address") + block("yaml").count("- {path")


def test_the_python_prints_what_the_page_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Line for line."""
    monkeypatch.delenv("GOBANFAST_SESSION_KEY", raising=False)
    (tmp_path / "sessions.yaml").write_text(block("yaml"))
    done = subprocess.run(
        [sys.executable, "-c", block("python")], capture_output=True, text=True, check=False, cwd=tmp_path
    )

    assert (block("text"), "") == (done.stdout, done.stderr)


def test_every_key_of_the_section_is_on_the_page() -> None:
    """And no other."""
    keys = set(json_schema()["$defs"]["SessionModel"]["properties"])
    table = PAGE.split("## Where a session is")[1].split("Cookies are asked first")[0]

    assert keys == set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
