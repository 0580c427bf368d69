"""`gobanfast labels` and `gobanfast bans` of users, over a store."""

from __future__ import annotations

import json

import pytest

typer = pytest.importorskip("typer")
from typer.testing import CliRunner  # noqa: E402

from gobanfast.cli.app import app  # noqa: E402
from gobanfast.stores import open_store  # noqa: E402

SESSION = "session:0123abcd:" + "5a" * 16


def run(*arguments):
    """(status, standard output, standard error)"""
    done = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})
    return done.exit_code, done.stdout, done.stderr


def test_labels_are_added_listed_and_removed(tmp_path):
    """Status 0, then 1 for a key that does not carry it; the list of bans has no labels in it."""
    store = f"sqlite:{tmp_path / 'bans.db'}"

    assert (0, "", "") == run(
        "labels", "add", "vip", "uid:42", "203.0.113.7", "-s", store, "--for", "7d", "--reason", "paid"
    )
    assert 0 == run("labels", "add", "revoked", SESSION, "-s", store)[0]
    status, listed, _ = run("labels", "list", "-s", store, "--json")
    rows = [json.loads(line) for line in listed.splitlines()]
    assert (0, 3) == (status, len(rows))
    assert {("203.0.113.7", "vip"), ("uid:42", "vip"), (SESSION, "revoked")} == {
        (row["key"], row["word"]) for row in rows
    }
    shown = run("labels", "list", "-s", store, "--word", "vip")
    assert "uid:42" in shown[1]
    assert "paid" in shown[1]
    assert SESSION not in shown[1]
    assert "2 labels\n" == shown[2]
    assert (0, "", "0 bans\n") == run("bans", "list", "-s", store)
    assert 0 == run("labels", "remove", "vip", "uid:42", "-s", store)[0]
    assert (1, "", "uid:42: not labelled vip\n") == run("labels", "remove", "vip", "uid:42", "-s", store)


def test_users_are_banned(tmp_path):
    """`uid:42` is stored as such, listed, exported and lifted."""
    store = f"sqlite:{tmp_path / 'bans.db'}"

    assert 0 == run("bans", "add", "uid:42", "-s", store)[0]
    assert "uid:42" in run("bans", "list", "-s", store)[1]
    assert ["uid:42"] == [ban.key for ban in open_store(store).scan()]
    assert "uid:42\n" == run("bans", "export", "-s", store, "-f", "plain")[1]
    assert 0 == run("bans", "remove", "uid:42", "-s", store)[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("add", "No", "uid:42"), "is not a word"),
        (("add", "vip", "session:1"), "is no session"),
        (("add", "vip", "uid:42", "--for", "soon"), "--for"),
        (("list", "--word", "A"), "is not a word"),
    ],
)
def test_wrong_usage(tmp_path, arguments, said):
    """Status 2, and what is wrong."""
    status, _, errors = run("labels", *arguments, "-s", f"sqlite:{tmp_path / 'bans.db'}")

    assert 2 == status
    assert said in errors


def test_rules_are_looked_at_without_their_secrets(tmp_path, monkeypatch):
    """Who tests, explains or scans has no key of sessions, and needs none."""
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        "session: {cookie: sid, keys: [env:NO_SUCH_KEY]}\n"
        "rules: [{id: x, when: {label: revoked}, action: ban}]\n"
        "tests: [{address: 203.0.113.7, labels: [revoked], expect: ban}]\n"
    )

    assert 0 == run("rules", "test", str(rules))[0]
    assert 0 == run("rules", "explain", str(rules), "--address", "203.0.113.7")[0]
    assert 0 == run("explain", "203.0.113.7", "-r", str(rules))[0]
