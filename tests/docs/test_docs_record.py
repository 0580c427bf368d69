"""docs/record.md: its rules load and pass their own tests, its programs print what stands behind them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from gobanfast import Ruleset

PAGE = Path(__file__).parent.parent.parent / "docs" / "record.md"


def test_what_the_page_shows_is_what_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = PAGE.read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    (rules,) = re.findall(r"```yaml\n# record.yaml\n(.*?)```", text, re.DOTALL)
    Path("record.yaml").write_text(rules)
    assert [] == Ruleset.load("record.yaml").failures()
    shown: dict[str, Any] = {}
    programs = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, re.DOTALL)
    assert 2 == len(programs)
    for program, printed in programs:
        exec(compile(program, str(PAGE), "exec"), shown)  # noqa: S102 - the page's own lines
        assert printed == capsys.readouterr().out
