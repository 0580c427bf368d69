"""The guard against banning oneself: by hand without force, by trackers and rules, told."""

from __future__ import annotations

import logging

import pytest

from gobanfast import Engine, Ruleset, spared

TEXT = """
bans: {protect: [45.66.9.0/28]}
limits: [{id: flood, when: any, limit: 1, action: ban}]
"""


@pytest.fixture(autouse=True)
def host(monkeypatch):
    """A host with addresses of its own, whatever the one has that runs this."""
    known = {"45.66.7.1": "an address of this host", "2a01:4f8::1": "the gateway of this host",
             "45.66.7.9": "where root is logged in from"}  # fmt: skip
    monkeypatch.setattr(spared, "protected_addresses", lambda: known)
    monkeypatch.setattr(spared, "own_addresses", tuple)
    monkeypatch.setattr(spared, "gateways", tuple)
    monkeypatch.setattr(spared, "HOST", spared._Host())
    spared.HOST.now()


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("45.66.7.1", "ban of '45.66.7.1' keeps out 45.66.7.1, an address of this host"),
        ("45.66.7.0/24", "keeps out 45.66.7.1, an address of this host"),
        ("2a01:4f8::/64", "keeps out 2a01:4f8::1, the gateway of this host"),
        ("45.66.7.9", "where root is logged in from"),
        ("45.66.9.3", "keeps out 45.66.9.0/28, protected by bans: protect:"),
    ],
)
def test_oneself_is_banned_by_hand_only_with_force(key, why):
    engine = Engine(Ruleset.from_text(TEXT))
    with pytest.raises(ValueError, match="if that is meant, say force=True") as caught:
        engine.ban(key)

    assert why in str(caught.value)
    assert engine.ban(key, force=True).key == key


@pytest.mark.parametrize("key", ["45.66.7.2", "AS64500", "gh2:" + "0" * 32, "45.66.9.16", "2a01:4f8:1::/64"])
def test_others_are_banned_as_ever(key):
    assert Engine(Ruleset.from_text(TEXT)).ban(key).key == key


def test_no_decision_bans_oneself_and_that_is_told_once(caplog):
    engine = Engine(Ruleset.from_text(TEXT))
    with caplog.at_level(logging.WARNING, "gobanfast.rules"):
        actions = [engine.decide("45.66.7.9").action for _ in range(3)]
        others = [engine.decide("45.66.7.2").action for _ in range(3)]

    assert ["allow", "ban", "ban"] == actions == others, "what is over the limit is refused, as it happens"
    assert ["45.66.7.2"] == [ban.key for ban in engine.bans()]
    assert 1 == caplog.text.count("where root is logged in from; flood banned it not")


def test_addresses_for_documentation_are_nobodys(monkeypatch):
    monkeypatch.setattr(spared, "protected_addresses", lambda: {"192.0.2.1": "the gateway of this host"})

    assert Engine(Ruleset.from_text(TEXT)).ban("192.0.2.1")
