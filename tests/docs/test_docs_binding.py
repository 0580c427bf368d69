"""What docs/binding.md shows runs, and prints what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from inspect import signature
from pathlib import Path

import pytest

from gobanfast.frontends import binding

PAGE = (Path(__file__).parents[2] / "docs" / "binding.md").read_text()


def test_the_example() -> None:
    """Byte for byte."""
    pytest.importorskip("jwt", reason="the helper needs the extra jwt")
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (expected,) = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)

    assert expected == subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_fields_policies_and_answers_are_on_the_page() -> None:
    """With the defaults that are the defaults."""
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| `([\w-]+)` \|$", PAGE, re.MULTILINE))

    assert {name: signature(binding.Binding).parameters[name].default for name in binding.FIELDS} == rows
    assert [] == [
        word for word in (*binding.POLICIES, "matches", "flagged", "differs", "absent") if f"`{word}`" not in PAGE
    ]
