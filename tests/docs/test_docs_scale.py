"""docs/scale.md: every example runs as pasted and prints what the page shows."""

from __future__ import annotations

import contextlib
import io
import os
import re
from pathlib import Path

import pytest

from gobanfast.rules import Ruleset

PAGE = Path(__file__).parents[2] / "docs" / "scale.md"
BLOCKS = re.findall(r"^```(\S*)(?: (\w+))?\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
EXAMPLES = [
    (extra or name, text, BLOCKS[index + 1][2])
    for index, (kind, extra, text) in enumerate(BLOCKS)
    if kind == "python" and (name := extra or re.findall(r"^import (\w+)", text, re.MULTILINE)[0])
]


@pytest.mark.parametrize(("library", "text", "shown"), EXAMPLES, ids=[example[0] for example in EXAMPLES])
@pytest.mark.filterwarnings("ignore")
def test_examples(library: str, text: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rules of the page, then the example."""
    if library == "spark" and not os.environ.get("GOBANFAST_SPARK"):
        pytest.skip("Spark is tested in a step of its own: make spark")
    pytest.importorskip("pyspark" if library == "spark" else library)
    rules = next(block[2] for block in BLOCKS if block[0] == "yaml")
    (tmp_path / "lake.yaml").write_text(rules)
    monkeypatch.chdir(tmp_path)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(text, "scale.md", "exec"), {"__name__": "__main__"})  # noqa: S102 - the page's own example
    assert shown == printed.getvalue()


def test_rules_of_the_page() -> None:
    """There is an example for each engine, and its rules load."""
    assert {"pyarrow", "duckdb", "polars", "spark"} == {library for library, _, _ in EXAMPLES}
    assert 4 == len(Ruleset.from_text(next(block[2] for block in BLOCKS if block[0] == "yaml")).rules)
