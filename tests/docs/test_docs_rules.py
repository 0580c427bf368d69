"""docs/rules.md is what the program does: its examples run, its tables have every key and every code."""

from __future__ import annotations

import logging
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import gobanfast
from gobanfast._values import parse_duration
from gobanfast.rules import Ruleset
from gobanfast.rules.settings import BanSettings, Escalation, ScoreSettings, TrackerSettings
from gobanfast.rules.text.json_schema import json_schema

DOCS = Path(__file__).parents[2] / "docs/rules.md"
TEXT = DOCS.read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.DOTALL)
PACKAGE = Path(gobanfast.__file__).parent


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with every file of the page; the first line of a block is its name (in JSON no part of it)."""
    for kind, text in BLOCKS:
        if kind in ("yaml", "text", "json"):
            first, _, rest = text.partition("\n")
            path = tmp_path / first.lstrip("#/ ")
            path.parent.mkdir(exist_ok=True)
            path.write_text(rest if kind == "json" else text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "name", ["rules.yaml", "main.yaml", "legacy.yaml", "requests.yaml", "weighed.yaml", "consistency.yaml"]
)
def test_examples_load_and_pass_their_tests(written: Path, name: str) -> None:
    """Every file of the page that is loaded alone is good."""
    ruleset = Ruleset.load(name)

    assert ruleset.rules
    assert [] == ruleset.failures()


def test_python_runs(written: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The Python of the page does what it asserts, and logs no error."""
    for code in (text for kind, text in BLOCKS if kind == "python"):
        exec(code, {})  # noqa: S102

    assert [] == [record for record in caplog.records if record.levelno >= logging.ERROR]


def keys(schema: Any) -> set[str]:
    """Every key that the JSON Schema knows."""
    if isinstance(schema, list):
        return {key for item in schema for key in keys(item)}
    if not isinstance(schema, dict):
        return set()
    own = set(schema["properties"]) if isinstance(schema.get("properties"), dict) else set()
    return own | {key for value in schema.values() for key in keys(value)}


def test_every_key_is_documented() -> None:
    """No key of the schema is missing from the page, or from the one of record rules."""
    pages = TEXT + DOCS.with_name("record.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+)`", pages)) | set(re.findall(r"(\w+):", pages))

    assert set() == keys(json_schema()) - named


@pytest.mark.parametrize(
    ("key", "section"),
    [("bans", BanSettings), ("bans", Escalation), ("trackers", TrackerSettings), ("score", ScoreSettings)],
)
def test_defaults_are_those_of_the_program(key: str, section: type) -> None:
    """The number behind a setting's name in the table is the value it has where it is not written."""
    values = {item.name: getattr(section(), item.name) for item in fields(section)}
    numbers = {name: value for name, value in values.items() if type(value) in (int, float)}
    (row,) = re.findall(rf"^\| `{key}` \|.*", TEXT, re.MULTILINE)
    told = dict(re.findall(r"`(\w+)` \(?([0-9.]+d?)", row))

    assert numbers == {
        name: parse_duration(text) if text.endswith("d") else float(text)
        for name, text in told.items()
        if name in numbers
    }


def test_every_code_is_documented() -> None:
    """The page has the codes of all findings and no others."""
    sources = "".join(
        (PACKAGE / "rules" / "check" / f"{name}.py").read_text()
        for name in ("lint", "lint_full", "lint_share", "unreachable")
    )
    made = set(re.findall(r'"([a-z]+(?:-[a-z]+)+)"', sources)) - {"link-local"} | {
        "unused-set",
        "unfetched-feed",
        "failed-test",
    }

    assert made == set(re.findall(r"^\| `([a-z]+(?:-[a-z]+)+)` \|", TEXT, re.MULTILINE))
