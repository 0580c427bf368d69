"""What docs/http.md shows is what the program does."""

from __future__ import annotations

import asyncio
import inspect
import re
from pathlib import Path

import pytest

from gobanfast.frontends import asgi, challenge, gate, trust, wsgi

PAGE = (Path(__file__).parents[1] / "docs" / "http.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def answered(app, address):
    """Status that a client at `address` gets."""
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "path": "/", "method": "GET", "scheme": "http", "http_version": "1.1",
             "headers": [(b"host", b"a"), (b"user-agent", b"b")], "client": (address, 1)}  # fmt: skip
    asyncio.run(app(scope, None, send))
    return sent[0]["status"]


async def application(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def test_three_lines_guard_an_application(tmp_path, monkeypatch):
    """The first example, run beside a rules file, lets in and refuses."""
    (tmp_path / "rules.yaml").write_text("rules: [{id: probes, when: {prefix: 198.51.100.0/24}, action: ban}]\n")
    monkeypatch.chdir(tmp_path)
    names = {"app": application}

    exec(BLOCKS[0], names)  # noqa: S102

    assert [200, 403] == [answered(names["app"], address) for address in ("203.0.113.9", "198.51.100.7")]


def test_other_examples_are_valid_calls(tmp_path, monkeypatch):
    """Every other example takes the arguments that it shows."""
    from gobanfast import Engine, Ruleset
    from gobanfast.frontends.asgi import Gobanfast
    from gobanfast.telemetry.log import DecisionLog

    monkeypatch.chdir(tmp_path)
    names = {"DecisionLog": DecisionLog, "Gobanfast": Gobanfast, "app": application, "new_key": "n" * 16,
             "old_key": "o" * 16, "engine": Engine(Ruleset.from_text("{version: 1, rules: []}"))}  # fmt: skip

    for block in BLOCKS[1:]:
        exec(block, vars(trust) | vars(challenge) | names)  # noqa: S102


def test_options_are_those_of_a_gate():
    """The page names every option of a Gate and no others."""
    sentence = re.search(r"Options are those of `gobanfast.frontends.gate.Gate`: (.*?)\.\n", PAGE, re.DOTALL)

    assert set(inspect.signature(gate.Gate).parameters) - {"engine"} == set(re.findall(r"`(\w+)`", sentence[1]))


@pytest.mark.parametrize("frontend", [asgi, wsgi])
def test_frontends_spell_out_the_options_of_a_gate(frontend):
    """Name, kind, default and type of each, so that type checkers and `help` know them, and pass each one on."""
    expected = list(inspect.signature(gate.Gate).parameters.values())
    application, *options = inspect.signature(frontend.Gobanfast).parameters.values()

    assert "app" == application.name
    assert expected == options
    source = inspect.getsource(frontend.Gobanfast.__init__)
    assert [] == [option.name for option in options[1:] if f"{option.name}={option.name}," not in source]


@pytest.mark.parametrize("path", re.findall(r"\]\((\.\./[^)]+)\)", PAGE))
def test_links_lead_somewhere(path):
    """What the page points to exists."""
    assert (Path(__file__).parents[1] / "docs" / path).exists()
