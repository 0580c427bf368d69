"""The rules and the program of docs/limits.md run, and do what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gobanfast import Ruleset

PAGE = (Path(__file__).parents[2] / "docs" / "limits.md").read_text()


def test_the_rules_load():
    (rules,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)

    assert ["login", "scan", "api", "all", "user"] == [rule.id for rule in Ruleset.from_text(rules).rules]


def test_every_rule_of_the_tables_loads():
    entries = re.findall(r"`(\{id: .*?\})`", PAGE)

    assert 5 <= len(entries)
    for entry in entries:
        assert Ruleset.from_text(f"limits:\n- {entry}\n").rules


def test_the_program_locks_a_user_at_one_client(tmp_path, monkeypatch):
    pytest.importorskip("fastapi")
    testclient = pytest.importorskip("starlette.testclient")
    monkeypatch.chdir(tmp_path)
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names = {"__name__": "limits"}
    exec(program, names)  # noqa: S102
    client = testclient.TestClient(names["app"], client=("203.0.113.7", 1))
    other = testclient.TestClient(names["app"], client=("203.0.113.8", 1))

    def login(who, password):
        return who.post("/login", params={"user": "ada", "password": password})

    assert [401] * 4 + [200] == [login(client, word).status_code for word in ["wrong"] * 4 + ["right"]]
    assert [401] * 5 == [login(client, "wrong").status_code for _ in range(5)]
    locked = login(client, "right")
    assert 429 == locked.status_code
    assert 0 < int(locked.headers["retry-after"]) <= 900
    assert 200 == login(other, "right").status_code
