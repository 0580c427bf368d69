"""Where the AS table comes from when none is given: the environment, the file beside the rules, the starter table."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gobanfast import Engine
from gobanfast.asn import AsnTable
from gobanfast.asn.source import BESIDE, default_path

RULES = "rules: [{id: a, when: {asn: 64500}, action: ban}]\n"


@pytest.fixture
def rules(tmp_path, monkeypatch):
    monkeypatch.delenv("GOBANFAST_ASN", raising=False)
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)
    return path


def test_the_order_of_the_table(rules, monkeypatch):
    """Given, then GOBANFAST_ASN, then geoip.asn.mmdb beside the rules, then the starter; `status` says which."""
    assert Engine.load(rules).status()["asn"] == "starter"
    beside = rules.parent / BESIDE  # what is in it counts, not its name
    beside.write_text("198.51.100.0/24,64500,BESIDE\n")
    engine = Engine.load(rules)
    assert (engine.decide("198.51.100.1").rule, engine.status()["asn"]) == ("a", str(beside))

    named = rules.parent / "named.csv"
    named.write_text("203.0.113.0/24,64500,NAMED\n")
    monkeypatch.setenv("GOBANFAST_ASN", str(named))
    engine = Engine.load(rules)
    assert (engine.decide("203.0.113.1").rule, engine.decide("198.51.100.1").rule) == ("a", None)
    assert engine.status()["asn"] == str(named)
    assert Engine.load(rules, asn=AsnTable.starter()).status()["asn"] == "starter"


def test_a_named_file_that_is_not_there_is_an_error(rules, monkeypatch):
    """Who names a table means it."""
    monkeypatch.setenv("GOBANFAST_ASN", str(rules.parent / "absent.mmdb"))
    with pytest.raises(OSError, match=r"absent\.mmdb"):
        Engine.load(rules)


def test_the_default_is_followed_and_kept(rules):
    """`watch` follows the file beside the rules, and a last good ruleset made over it is taken again."""
    beside = rules.parent / BESIDE
    beside.write_text("198.51.100.0/24,64500,A\n")
    kept = rules.parent / "kept.gbf"
    Engine.load(rules, last_good=kept)
    engine = Engine.load(rules, last_good=kept)
    assert engine.ruleset.block is not None
    with engine.watch(rules, interval=60.0) as watcher:
        beside.write_text("203.0.113.0/24,64500,A\n")
        watcher.check()
        assert engine.decide("203.0.113.1").rule == "a"


def test_commands_take_the_same(rules):
    """What a command says of a rules file is what an engine does with it."""
    (rules.parent / BESIDE).write_text("198.51.100.0/24,64500,A\n")
    command = [sys.executable, "-m", "gobanfast", "check", "198.51.100.1", "-r", str(rules)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "ban" in done.stdout
    assert default_path(rules) == str(rules.parent / BESIDE)
