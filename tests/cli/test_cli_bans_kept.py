"""`gobanfast bans`: what fills the table, one's own host, and what undo lifts of bans that grew."""

from __future__ import annotations

import pytest

typer = pytest.importorskip("typer")
from typer.testing import CliRunner  # noqa: E402

from gobanfast import Engine, spared  # noqa: E402
from gobanfast.cli.app import app  # noqa: E402
from stores_fakes import eventually  # noqa: E402

RULES = """
bans: {ladder: {ipv4: {24: 16}}}
limits: [{id: flood, when: any, limit: 1, window: 1m, action: ban, for: 1h}]
"""


def run(*arguments):
    """(status, standard output, standard error)"""
    done = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})
    return done.exit_code, done.stdout, done.stderr


def test_top_shows_makers_and_networks(tmp_path):
    store = f"sqlite:{tmp_path / 'bans.db'}"
    run("bans", "add", "45.66.7.1", "45.66.7.2", "45.66.8.0/24", "2a01:4f8::/64", "uid:42", "-s", store)
    status, shown, counted = run("bans", "top", "-s", store)

    assert (0, "5 bans\n") == (status, counted)
    assert ["45.66.7.0/24", "2"] == next(line for line in shown.splitlines() if "45.66.7.0" in line).split()[:2]
    assert "2a01:4f8::/48" in shown
    assert "manual" in shown


def test_oneself_needs_force(tmp_path, monkeypatch):
    monkeypatch.setattr(spared, "protected_addresses", lambda: {"45.66.7.1": "the gateway of this host"})
    monkeypatch.setattr(spared, "HOST", spared._Host())
    store = f"sqlite:{tmp_path / 'bans.db'}"
    status, _, said = run("bans", "add", "45.66.7.0/24", "-s", store)

    assert 2 == status
    assert "keeps out 45.66.7.1, the gateway of this host" in said
    assert 0 == run("bans", "add", "45.66.7.0/24", "-s", store, "--force")[0]


def test_undo_lifts_bans_that_grew_everywhere(tmp_path):
    """Two engines on one store: the ban of a network that one of them made of its clients ends in both."""
    (tmp_path / "rules.yaml").write_text(RULES)
    store = f"sqlite:{tmp_path / 'bans.db'}"
    one, other = (Engine.load(tmp_path / "rules.yaml", store=store) for _ in range(2))
    try:
        for i in range(20):
            for _ in range(2):
                one.decide(f"45.66.7.{i}")
        assert eventually(lambda: [ban.key for ban in one.bans()] == ["45.66.7.0/24"])
        assert eventually(lambda: other.peek("45.66.7.99").action == "ban")

        assert 0 == run("bans", "undo", "--rule", "flood", "--since", "1h", "-s", store)[0]
        assert eventually(lambda: one.peek("45.66.7.99").action == other.peek("45.66.7.99").action == "allow")
        assert [] == [ban.key for ban in one.bans()]
    finally:
        for engine in (one, other):
            engine.sync.close()
