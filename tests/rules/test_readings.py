"""A path has readings: what restrictive and permissive rules make of them, against the oracle and by example."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gobanfast import Engine, Ruleset
from gobanfast._core.enums import DECISIONS
from gobanfast._core.headers import PartialHeaders
from gobanfast.reload.canary import Trial
from gobanfast.reload.decision_diff import Budget
from gobanfast.telemetry.log import DecisionLog
from gobanfast.telemetry.replay import replay
from gobanfast.wire.target import read_target, readings
from oracle import paths
from test_telemetry_log import Kept

PARTS = ("/", "/", "//", "a", "admin", ".", "..", "%2e", "%2F", "%2f", "%5c", "\\", ";x", ";", "%25", "2f", "%3f", "#",
         "%", "\xe9", "%ff", "%C3", "%00", "/app", "%61pp")  # fmt: skip
targets = st.lists(st.sampled_from(PARTS), max_size=6).map(lambda parts: "/" + "".join(parts))
mounts = st.sampled_from(["", "", "/app", "/app/v1/", "app", "/a%20b"])
RULES = """
rules:
- {id: health, when: {path: /health}, action: allow}
- {id: files, when: {path: /static/**}, action: allow}
- {id: admin, when: {path: [/admin, /admin/**]}, action: ban}
- {id: seen, when: {path: {prefix: /api/, glob: "/**.json"}}, action: log}
"""


def engine_of(text: str = RULES) -> Engine:
    return Engine(Ruleset.from_text(text))


ENGINE = engine_of()


@given(target=targets, mount=mounts)
def test_readings_are_what_any_order_of_the_steps_reaches(target: str, mount: str) -> None:
    """The readings that a rule is asked under are those of the slow search, with the mount and without it."""
    found, seen = readings(target.encode(), mount.encode()), []

    paths.hold(target, mount, False, lambda text: bool(seen.append(text)))
    full: list[str] = []
    paths.hold(target, mount, True, lambda text: not full.append(text))

    assert set(seen) == set(found.every if found else ())
    assert set(full) == set(found.full if found else ())
    assert found is None or set(found.full) | set(found.inner) <= set(found.every)


ADMIN = [
    "/admin", "/admin/x", "//admin", "///admin//x", "/./admin", "/pub/../admin/x", "/../admin", "/%2e/admin",
    "/pub/%2e%2e/admin", "/pub/.%2E/admin", "/%61dmin", "/%2fadmin", "/pub%2f..%2fadmin", "\\admin", "/\\admin",
    "/pub\\..\\admin", "/%5cadmin", "/admin;x=y", "/;/admin", "/..;/admin", "/pub/..;a=b/admin/x", "/%3b/admin",
    "/%2561dmin", "/%252e%252e/admin", "/%252fadmin", "/x/%252e%252e%252fadmin", "http://host/admin", "http://host//admin",
    "HTTP://a:b@[::1]:80/./admin/x?y", "/admin?x", "/admin#x", "/x#/../admin", "/x%3f/../admin", "/x%23/../admin",
    "/admin%3fx", "/admin/", "/admin/.", "/admin/x/..", "/admin//", "/a//..//../admin", "/a/%2e%2e/../admin",
    "/a/../../b/../admin", "/a%2fb/../admin", "/%41/..//admin",
]  # fmt: skip


@pytest.mark.parametrize("target", ADMIN)
def test_a_ban_holds_under_any_reading(target: str) -> None:
    """However the path is written, what a server may serve for it is banned: by path, pseudo header and environ."""
    path = target if target.startswith(("/", "http", "HTTP")) else "/" + target
    pairs = [(b":path", path.encode())]

    assert "admin" == ENGINE.decide("192.0.2.1", path=path).rule
    assert "admin" == ENGINE.decide("192.0.2.1", path=read_target(path)).rule
    assert "admin" == ENGINE.decide("192.0.2.1", path=read_target(path.encode())).rule
    assert "admin" == ENGINE.decide("192.0.2.1", headers=pairs).rule
    assert "admin" == ENGINE.decide("192.0.2.1", headers=PartialHeaders(pairs, ())).rule
    assert [ENGINE.compiled.rules.index(rule) for rule in ENGINE.compiled.rules if rule.id == "admin"] == list(
        ENGINE.decide_many(["192.0.2.1"], path=[path]).rule
    )


@pytest.mark.parametrize(
    "target",
    ["/Admin", "/admins", "/x/admin", "/ad%20min", "/%u0061dmin", "/%c0%af/admin", "/..admin", "/.admin", "/?/admin",
     "/adm%69ns", "/x;/admin", "*", "/%25252fadmin"],
)  # fmt: skip
def test_what_no_server_serves_is_no_reading(target: str) -> None:
    """Other paths stay other paths: case, prefixes, forms of escapes that nobody decodes, three decodings."""
    decision = ENGINE.decide("192.0.2.1", path=target)

    assert ("allow", None) == (decision.action, decision.rule)


@pytest.mark.parametrize(
    ("target", "rule"),
    [
        ("/health", "health"),
        ("/health?x=y", "health"),
        ("/he%61lth", "health"),
        ("http://host/health", "health"),
        ("/static/a.css", "files"),
        ("/static/", "files"),
        ("/static//a.css", "files"),
        ("/static/caf%C3%A9", "files"),
        ("//health", None),
        ("/x/../health", None),
        ("/health;x", None),
        ("/health#x", None),
        ("/health%3f/../x", None),
        ("/static/../admin", "admin"),
        ("/static/%2e%2e/admin", "admin"),
        ("/static/..%2fadmin", "admin"),
        ("/static/..;/admin", "admin"),
        ("/static/%252e%252e/admin", "admin"),
        ("/static\\..\\..\\admin", "admin"),
        ("/static/x", "files"),
    ],
)
def test_an_allow_holds_under_all_readings(target: str, rule: str | None) -> None:
    """What might be another path is not let in by a rule about this one."""
    assert rule == ENGINE.decide("192.0.2.1", path=target).rule


def test_all_conditions_of_a_rule_are_asked_under_one_reading() -> None:
    """A log rule with two conditions holds when one reading has both, not when each has one of its own."""
    assert ("seen",) == ENGINE.decide("192.0.2.1", path="/x/../api/a.json").logged
    assert () == ENGINE.decide("192.0.2.1", path="/api/../a.json").logged[1:]
    engine = engine_of("rules: [{id: r, when: {path: {prefix: /api/, regex: '^/x'}}, action: ban}]")
    assert None is engine.decide("192.0.2.1", path="/api/../x").rule


@pytest.mark.parametrize("action", ["allow", "challenge", "ban"])
@pytest.mark.parametrize("target", ["/a%00b", "/a%0Ab", "/;/%2f\\..//%252e%5c/..;a#x/%3f", "/" + "%2e/" * 20_000])
def test_too_many_readings_and_control_characters_are_malformed(action: str, target: str) -> None:
    """More than 16 readings, or a control character, is a path that cannot be read: the policy decides, each time."""
    engine = engine_of(f"unparsable: {action}\nrules: [{{id: r, when: {{path: /x}}, action: ban}}]")

    for _ in range(3):  # not remembered, remembered
        decision = engine.decide("192.0.2.1", path=target)
        assert (action, "unparsable", "malformed-path") == (decision.action, decision.cause, decision.reason)
    assert [DECISIONS.index(action)] == list(engine.decide_many(["192.0.2.1"], path=[target]).action)


@pytest.mark.parametrize(
    ("path", "mount", "rule"),
    [
        ("/admin/x", "/app", "admin"),
        ("/app/admin/x", "/app", "admin"),
        ("/app/admin/x", "/app/", "admin"),
        ("/app/admin/x", "", None),
        ("//app/admin", "/app", "admin"),
        ("/app//admin", "/app", "admin"),
        ("/app/../admin", "/app", "admin"),
        ("/%61pp/admin", "/app", "admin"),
        ("/app%2fadmin", "/app", "admin"),
        ("/x/../app/admin", "/app", "admin"),
        ("/application/admin", "/app", None),
        ("/v1/admin", "/app/v1", "admin"),
        ("/admin", "/app/v1", "admin"),
        ("/health", "/app", "health"),
        ("/app/health", "/app", "health"),
        ("/app//health", "/app", None),
        ("/app/static/../health", "/app", None),
        ("/health/", "/app", None),
        ("", "/admin", "admin"),
        ("", "/app", None),
        ("/static/x", "/app", "files"),
        ("/", "/admin", "admin"),
        ("http://host/app/admin", "/app", "admin"),
    ],
)
def test_the_mount_is_no_reading(path: str, mount: str, rule: str | None) -> None:
    """A ban holds with the mount or without it; an allow holds when, with it or without it, all readings do."""
    decision = ENGINE.decide("192.0.2.1", path=path, mount=mount)

    assert (rule, mount) == (decision.rule, decision.mount)
    assert rule == ENGINE.peek("192.0.2.1", path=path, mount=mount).rule
    columns = ENGINE.decide_many(["192.0.2.1"], path=[path], mount=mount)
    assert decision.rule_index == (None if columns.rule[0] == 0xFFFFFFFF else columns.rule[0])
    replayed = ENGINE.replay(["192.0.2.1"], times=np.array([1e9]), path=[path], mount=mount)
    assert decision.rule_index == (None if replayed.rule[0] == 0xFFFFFFFF else replayed.rule[0])


def test_paths_under_different_mounts_are_remembered_apart() -> None:
    """The row of a path under one mount is not that under another, or under none."""
    engine = engine_of()
    for _ in range(3):
        assert [None, "admin", None] == [
            engine.decide("192.0.2.1", path="/app/admin", mount=mount).rule for mount in ("", "/app", "/ap")
        ]


def test_an_environ_says_its_mount() -> None:
    """A WSGI environ alone is read as the frontends read it: decoded once, Latin-1, an empty PATH_INFO is the root."""

    def rule(info: str, script: str = "") -> Any:
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": info, "SCRIPT_NAME": script}
        decision = ENGINE.decide("192.0.2.1", headers=environ)
        return decision.rule, decision.action

    assert ("admin", "ban") == rule("/admin/x", "/app") == rule("/app/admin", "/app") == rule("/x/..//admin")
    assert (None, "allow") == rule("", "/app") == rule("") == rule("/\xc3\xa9") == rule("/%41dmin?")
    assert ("health", "allow") == rule("/health")
    assert (None, "allow") == rule("/health?") == rule("/health#")


def test_explain_names_the_reading() -> None:
    """The explanation shows the reading under which the rule holds, where that is not the path as sent."""
    explained = ENGINE.explain(ENGINE.decide("192.0.2.1", path="/pub/%2e%2e//admin/x"))
    mounted = ENGINE.explain(ENGINE.decide("192.0.2.1", path="/app/admin/x", mount="/app"))
    plain = ENGINE.explain(ENGINE.decide("192.0.2.1", path="/admin/x"))

    assert "path: '/admin/**' covers '/admin/x', a reading of '/pub/%2e%2e//admin/x'" in explained
    assert "path: '/admin/**' covers '/admin/x', a reading of '/app/admin/x'" in mounted
    assert "mount '/app'" in mounted
    assert plain.endswith("path: '/admin/**' covers '/admin/x'\n  without it allow: no other rule matches")


def test_log_and_replay_have_the_mount() -> None:
    """A line of the decision log has path and mount as they were given, and decides the same again."""
    sink = Kept()
    log = DecisionLog(sink)
    log.observe(ENGINE.decide("192.0.2.1", path="/%61pp//admin", mount="/app"))
    assert log.flush()
    log.close()
    line = sink.lines[0]

    assert ("/%61pp//admin", "/app") == (line["signals"]["path"], line["signals"]["mount"])
    assert {} == replay(line, ENGINE.ruleset).differences
    line["signals"]["mount"] = ""
    assert "rule" in replay(line, ENGINE.ruleset).differences


def test_trial_and_inline_tests_take_a_mount() -> None:
    """A candidate is asked under the mount of the request; a test in a rules file may name one."""
    engine = engine_of("rules: []")
    engine.candidate = trial = Trial(engine.ruleset, ENGINE.ruleset, Budget())
    engine.decide("192.0.2.1", path="/app/admin", mount="/app")

    assert (0, 1) == (trial.errors, trial.differences.compared)
    assert 1 == trial.differences.differing
    engine_of(
        RULES + "tests: [{path: /app/admin, mount: /app, expect: ban, rule: admin}, {path: /app/admin, expect: allow}]"
    )


def test_other_meanings_have_another_content_hash(tmp_path: Any) -> None:
    """A compiled file of rules decides by readings, too."""
    ENGINE.ruleset.save(tmp_path / "rules.gbf")
    loaded = Engine(Ruleset.load(tmp_path / "rules.gbf"))

    assert "admin" == loaded.decide("192.0.2.1", path="/x/..//admin").rule
    assert loaded.ruleset.content_hash == ENGINE.ruleset.content_hash


def test_the_table_of_the_documentation() -> None:
    """docs/rules.md says of each target which readings it has and which rules hold."""
    text = (Path(__file__).parents[2] / "docs" / "rules.md").read_text()
    rows = re.findall(r"^\| `([^`]+)` \| ((?:`[^`]+` ?)+) \| (holds|) ?\| (holds|) ?\|$", text, re.MULTILINE)
    engine = engine_of(
        "rules: [{id: allow, when: {path: /health}, action: allow}, {id: ban, when: {path: /admin/**}, action: ban}]"
    )

    assert 13 == len(rows)
    for target, listed, banned, allowed in rows:
        found = readings(read_target(target).encode())
        assert found is not None
        assert set(re.findall("`([^`]+)`", listed)) == set(found.full), target
        rule = engine.decide("192.0.2.1", path=target).rule
        assert (bool(banned), bool(allowed)) == (rule == "ban", rule == "allow"), target
