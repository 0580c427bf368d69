"""One list of actions, causes, limits and unparsable signals: csrc/base/gbf_enums.h. Types and files agree with it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

import gobanfast
from gobanfast import Engine, FormatError, Ruleset
from gobanfast._core.compiled_rules import CompiledRules
from gobanfast._core.enums import (
    ACTIONS,
    CAUSES,
    DECISIONS,
    EVENTS,
    FEED_KINDS,
    FIELDS,
    LIMITS,
    MAKERS,
    NONE,
    RULE_ACTIONS,
    RULE_DECISIONS,
    TRIPS,
    UNPARSABLE,
)  # fmt: skip
from gobanfast.bans import BanChange
from gobanfast.batch import columns
from gobanfast.rules import ruleset_file
from gobanfast.rules.inline_test import Expected
from gobanfast.rules.rule import Action, Unparsable
from gobanfast.rules.settings import FingerprintSettings, TrackerSettings

PACKAGE = Path(gobanfast.__file__).parent


def test_numbers_are_hardness() -> None:
    """Of two actions the one with the greater number is the harder one; `log` decides nothing and comes last."""
    assert ("allow", "challenge", "limit", "ban", "log") == ACTIONS
    assert DECISIONS == ACTIONS[:-1]
    assert set(RULE_ACTIONS) == set(ACTIONS) - {"limit"}
    assert set(RULE_DECISIONS) == set(DECISIONS) - {"limit"}


def test_other_numbers() -> None:
    """Numbers that columns and statistics give out do not move."""
    assert ("none", "rule", "ban", "tracker", "unparsable", "score", "outage") == CAUSES
    assert (*LIMITS, "saturated") == TRIPS
    assert ("manual", "rule", "tracker", "import", "store") == MAKERS
    assert 0xFFFFFFFF == NONE == columns.NO_RULE
    assert (DECISIONS, CAUSES) == (columns.ACTIONS, columns.CAUSES)


def test_types_have_the_members_of_the_lists() -> None:
    """What a type checker takes for an action, a policy or a limit is what the engine has."""
    assert RULE_ACTIONS == get_args(Action)
    assert RULE_DECISIONS == get_args(Unparsable) == get_args(Expected)
    assert FIELDS == FingerprintSettings().fields
    assert set(LIMITS) <= set(TrackerSettings.__annotations__)
    hints = get_type_hints(BanChange)
    assert (EVENTS[1:], FEED_KINDS) == (get_args(hints["event"]), get_args(hints["kind"]))


@pytest.mark.parametrize(
    "text", [", ".join(f'"{name}"' for name in found) for found in (CAUSES[:3], FIELDS[:2], TRIPS[:2])]
)
def test_no_second_list(text: str) -> None:
    """No module of Python or Cython lists them again."""
    second = [path.name for pattern in ("**/*.py", "**/*.pyx", "**/*.pxd") for path in PACKAGE.glob(pattern)
              if text in path.read_text()]  # fmt: skip

    assert [] == second


def test_every_unparsable_signal_has_its_reason() -> None:
    """Each signal that rules require and that cannot be parsed is named in the reason, by the list's word."""
    rules = """
    unparsable: ban
    rules:
    - {id: a, when: {sni: a.example, ja4: t13d1516h2_8daaf6152771_b0da82dd1658}, action: challenge}
    - {id: b, when: {header: {x-a: {equals: a}}, method: PUT, path: /a}, action: challenge}
    """
    session = "{unparsable: ban, session: {cookie: sid}, rules: [{id: c, when: {session: present}, action: log}]}"
    engine = Engine(Ruleset.from_text(rules))
    sessions = Engine(Ruleset.from_text(session))
    hello = gobanfast.parse_client_hello(b"\x16\x03\x01\x00\x04\x01\x00\x00\x00")
    given = {
        "address": engine.peek("?"),
        "hello": engine.peek("192.0.2.1", hello=hello),
        "sni": engine.peek("192.0.2.1", sni="a..b"),
        "headers": engine.peek("192.0.2.1", headers=[(b"x-a", b"\0")], method="GET", path="/"),
        "method": engine.peek("192.0.2.1", headers=[], method="?{}", path="/"),
        "path": engine.peek("192.0.2.1", headers=[], method="GET", path="/\0"),
        "ja4": engine.peek("192.0.2.1", ja4="?"),
        "session": sessions.peek("192.0.2.1", headers=[(b"cookie", b"sid=" + 5000 * b"x")]),
    }

    assert UNPARSABLE == ("", *given)
    assert {name: f"malformed-{name}" for name in given} == {name: said.reason for name, said in given.items()}


def test_a_file_of_the_numbers_before_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled rules of the format whose 2 was `ban` say which format they have, and are not read as `limit`."""
    path = tmp_path / "rules.gbf"
    with monkeypatch.context() as patch:
        patch.setattr(ruleset_file, "FORMAT", 2)
        Ruleset.from_text("rules: [{id: a, when: any, action: ban}]").save(path)

    with pytest.raises(FormatError, match=r"ruleset has format 2, this gobanfast reads 3; compile the rules again"):
        Ruleset.load(path)


@pytest.mark.parametrize("number", [ACTIONS.index("limit"), len(ACTIONS)])
def test_no_rule_limits(number: int) -> None:
    """Compiled rules with an action that no rule may name are refused."""
    ruleset = Ruleset.from_text("rules: [{id: a, when: any, action: ban}]")
    assert ruleset.overlay is not None
    arguments = ruleset.overlay.arguments() | {"actions": bytes([number])}

    with pytest.raises(ValueError, match="rule has an action that it cannot have"):
        CompiledRules(ruleset.rules, unparsable="allow", **arguments)


def test_counts_have_a_slot_for_each_cause_and_action() -> None:
    """A decision is counted under its own cause and action."""
    engine = Engine(
        Ruleset.from_text("""
    unparsable: challenge
    rules:
    - {id: a, when: {prefix: 192.0.2.0/24}, action: ban}
    - {id: b, when: {prefix: 198.51.100.0/24}, action: challenge}
    """)
    )
    for address in ("192.0.2.1", "198.51.100.1", "203.0.113.1", "?"):
        engine.decide(address)

    assert {
        ("rule", "ban"): 1, ("rule", "challenge"): 1, ("none", "allow"): 1, ("unparsable", "challenge"): 1,
    } == engine.decided()  # fmt: skip


@pytest.mark.skipif(not (PACKAGE / "csrc").is_dir(), reason="no sources beside the installed package")
def test_the_header_is_listed_once() -> None:
    """No C file gives one of these numbers again."""
    again = re.compile(
        r"\b(GBF_NONE|GBF_BAN|GBF_LIMIT|GBF_CAUSES|GBF_TRIPS)\b\s*(=|UINT32_C)|#define GBF_(NONE|TRIPS)\b"
    )
    found = [path.name for path in (PACKAGE / "csrc").rglob("*.[ch]") if again.search(path.read_text())]

    assert ["gbf_enums.h"] == found
