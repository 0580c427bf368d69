"""docs/origins.md is what OriginSet does: its examples run, its table has patterns that are some."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

from gobanfast.origins import parse_origin_pattern

PAGE = Path(__file__).parents[2] / "docs" / "origins.md"


def test_examples_run() -> None:
    found = doctest.testfile(str(PAGE), module_relative=False)

    assert found.attempted >= 5
    assert 0 == found.failed


def test_the_table_is_of_patterns() -> None:
    (table,) = re.findall(r"^\| pattern \|.*?\n\n", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    patterns = [text for row in table.splitlines()[2:] for text in re.findall(r"`([^`]+)`", row.split(" | ")[0])]

    assert {"any", "exact", "one", "many", "regex"} == {parse_origin_pattern(text).kind for text in patterns}
