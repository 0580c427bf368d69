"""The README's example is what the program does."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"


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


@pytest.mark.skipif(not (README.parent / "setup.py").exists(), reason="no source tree around the tests")
def test_links_lead_somewhere() -> None:
    """Every relative link of the README names a file of the tree."""
    links = re.findall(r"\]\(([^)#:]+)\)", README.read_text())

    assert [] == [link for link in links if not (README.parent / link).exists()]
    assert {f"docs/{page.name}" for page in (README.parent / "docs").glob("*.md")} <= set(links)
