"""docs/feeds.md, asn.md, crowdsec.md, fail2ban.md: their rules load and pass, their tables are the program's."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from gobanfast import Ruleset
from gobanfast.rules.text.feeds_ready import READY
from gobanfast.rules.text.feeds_schema import FeedModel

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("feeds.md", "asn.md", "crowdsec.md", "fail2ban.md")


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_rules_load_and_pass_their_tests(page, tmp_path):
    """Every YAML block with rules is a rules file; the only warnings are that nothing was fetched yet."""
    for text in blocks(page, "yaml"):
        ruleset = Ruleset.from_text(text, source=str(tmp_path / "rules.yaml"))
        assert ruleset.failures() == []
        assert {problem.code for problem in ruleset.problems} <= {"unfetched-feed", "starter-table"}


@pytest.mark.parametrize("page", PAGES)
def test_python_is_python(page):
    """Examples parse, and import names that are there."""
    for text in blocks(page, "python"):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom):
                module = __import__(node.module, fromlist=[alias.name for alias in node.names])
                assert all(hasattr(module, alias.name) for alias in node.names)


def test_every_key_and_every_ready_made_feed_is_told():
    """The tables have each key of a feed with its default, and each feed that ships."""
    text = (DOCS / "feeds.md").read_text()
    rows = [row for row in text.splitlines() if row.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`([\w-]+)`", row.split("|")[1])}
    assert set(FeedModel.model_fields) <= named
    written = {name for row in rows for name in re.findall(r"`([\w-]+)`", row)}
    whole = {name for name in READY if name in written or f"-{name.rpartition('-')[2]}" in written}
    assert set(READY) == whole
