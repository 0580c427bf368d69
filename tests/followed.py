"""A rules file that tests change under a running engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from gobanfast import Engine

RULES = "rules:\n- {{id: net, when: {{prefix: 192.0.2.0/24}}, action: {action}}}\n"
TEST = "tests: [{{address: 192.0.2.1, expect: {expect}}}]\n"


def put(path: Path, text: str) -> None:
    """Replaces a file as editors that know what they do: another file, renamed."""
    temporary = path.with_name(".swap")
    temporary.write_text(text)
    temporary.replace(path)


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "etc/rules.yaml"
    path.parent.mkdir()
    path.write_text(RULES.format(action="ban"))
    return path


def action(engine: Engine) -> str:
    return engine.decide("192.0.2.1").action
