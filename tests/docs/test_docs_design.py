"""csrc/DESIGN.md has what comments and docstrings send a reader to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("gobanfast", "tests", "benchmarks", "wheels", "docs")
CITED = re.compile(r'DESIGN\.md,? "([^"]+)"(?: and "([^"]+)")?')


def cited() -> set[tuple[str, str]]:
    """(section, file) of every citation; one may run over the end of a line of comment."""
    found = set()
    paths = [path for room in ROOMS for ending in ("py", "pyx", "pxd", "h", "c", "md")
             for path in (ROOT / room).rglob(f"*.{ending}")]  # fmt: skip
    for path in paths:
        text = re.sub(r"\n[ *#]*", " ", path.read_text(errors="replace"))
        for sections in CITED.findall(text):
            found |= {(section, str(path.relative_to(ROOT))) for section in sections if section}
    return found


@pytest.mark.skipif(not (ROOT / "gobanfast/csrc/DESIGN.md").exists(), reason="no source tree around the tests")
def test_cited_sections_exist() -> None:
    """Every section of DESIGN.md that a file of the tree names is a heading of it."""
    headings = set(re.findall(r"^## (.*)$", (ROOT / "gobanfast/csrc/DESIGN.md").read_text(), re.MULTILINE))
    citations = cited()

    assert len(citations) > 20
    assert set() == {citation for citation in citations if citation[0] not in headings}
