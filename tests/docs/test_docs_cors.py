"""docs/cors-check.md names every step and finding that the code has, and its example is an output."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gobanfast.wire.cors_findings import MODES

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "cors-check.md"
WIRE = ROOT / "gobanfast" / "wire"

pytestmark = pytest.mark.skipif(not WIRE.is_dir(), reason="no sources beside the installed package")


def spans(section: str) -> set[str]:
    """Code spans of a section."""
    text = PAGE.read_text().partition(f"## {section}")[2].partition("\n## ")[0]
    return set(re.findall(r"`([^`]+)`", text))


def test_every_finding_is_on_the_page() -> None:
    """Codes of findings and faults, and the five failure modes."""
    codes = set(
        re.findall(
            r'Finding\([^"]*(?:"[a-z]+"[^"]*)??"([a-z]+-[a-z-]+|charset)"', (WIRE / "cors_findings.py").read_text()
        )
    )
    codes |= set(re.findall(r'Fault\("([a-z-]+)"', (WIRE / "cors_walk.py").read_text()))

    assert len(codes) > 18
    assert set() == codes - spans("Findings")
    assert [] == [mode for mode in MODES if f"| {mode} |" not in PAGE.read_text()]


def test_every_step_is_on_the_page() -> None:
    """Names of steps at which a walk can end."""
    ends = set(re.findall(r'_end\([^"]*"(?:(?:GET|OPTIONS)", ")?([a-z-]+)"', (WIRE / "cors_walk.py").read_text()))
    ends |= set(re.findall(r'return "([a-z-]+)"', (WIRE / "fetch.py").read_text())) | {"header:<name>"}

    assert len(ends) > 10
    assert set() == ends - spans("Steps")


def test_the_example_is_an_output() -> None:
    """The lines shown are those of a whole output that a test makes."""
    block = PAGE.read_text().partition("```\n$ ")[2].partition("```")[0].replace("app.example.com", "app.example")
    lines = [line for line in block.splitlines()[1:] if line != "..."]
    output = (ROOT / "tests" / "cases" / "cors" / "credentials.txt").read_text()

    assert len(lines) > 3
    assert "\n".join(lines) in output
