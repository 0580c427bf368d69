"""Conditions on labels and sessions: in every effect, under `not:`, readings, preflights, swaps, what nobody knows."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gobanfast import Engine, RuleError, Ruleset
from gobanfast.bans import label_of
from gobanfast.rules.check.rules_diff import changes
from gobanfast.rules.text.json_schema import json_schema

CLIENT, OTHER = "203.0.113.7", "203.0.113.8"
PRINT = [(b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")]
ORIGIN = (b"origin", b"https://app.example.com")


def engine(text: str, **options: object) -> Engine:
    return Engine(Ruleset.from_text(text), **options)  # type: ignore[arg-type]


def cookie(value: str) -> tuple[bytes, bytes]:
    return b"cookie", f"sid={value}".encode()


def test_a_label_on_any_key_holds() -> None:
    """Of the address, a prefix around it, the fingerprint, the fingerprint at the client, the user and the session."""
    made = engine("session: {cookie: sid}\nrules: [{id: x, when: {label: bad}, action: challenge}]\n")
    asked = {"headers": [*PRINT, cookie("s1")], "uid": "42"}
    print_ = made.peek(CLIENT, **asked).fingerprint
    keys = [CLIENT, "203.0.113.0/24", print_, f"{print_}@{CLIENT}", "uid:42", made.session_key("s1")]

    assert "allow" == made.decide(CLIENT, **asked).action
    for key in keys:
        made.label(key, "bad")
        decision = made.decide(CLIENT, **asked)
        assert ("challenge", "x", ("bad",)) == (decision.action, decision.rule, decision.labels), key
        made.unlabel(key, "bad")
    assert () == made.decide(CLIENT, **asked).labels
    made.label(OTHER, "bad")
    made.label("uid:43", "bad")
    made.label(made.session_key("s2"), "bad")
    assert "allow" == made.decide(CLIENT, **asked).action


def test_only_words_that_rules_name_are_seen() -> None:
    """Others are stored, and the next ruleset may name them; an end is an end."""
    now = [10.0]
    made = engine("rules: [{id: x, when: {label: [a, b]}, action: ban}]\n", clock=lambda: now[0])
    made.label(CLIENT, "c", duration=None)
    made.label(CLIENT, "b", duration=5)

    assert ("ban", ("b",)) == (made.decide(CLIENT).action, made.decide(CLIENT).labels)
    now[0] = 15.1
    assert "allow" == made.decide(CLIENT).action
    made.swap(Ruleset.from_text("rules: [{id: y, when: {label: c}, action: ban}]\n"))
    assert ("ban", "y", ("c",)) == (made.decide(CLIENT).action, made.decide(CLIENT).rule, made.decide(CLIENT).labels)
    made.swap(Ruleset.from_text("rules: [{id: y, when: {label: d}, action: ban}]\n"))
    assert "allow" == made.decide(CLIENT).action


RULES = """
session: {cookie: sid}
rules:
- {id: in, when: {label: vip, prefix: 203.0.113.0/24}, action: allow}
- {id: out, when: {label: revoked, not: {label: vip, path: /login}}, action: challenge}
- {id: anonymous, when: {session: absent, path: /account/**}, action: ban}
share:
- {id: mine, when: {path: /data/**, origin: "https://app.example.com", label: tenant-a}, action: grant}
- id: not-revoked
  when: {path: /feed, origin: "https://app.example.com", session: present, not: {label: revoked}}
  action: grant
record:
- {id: watched, when: {label: watched}, action: always}
"""
WORDS = ("vip", "revoked", "tenant-a", "watched")


@settings(max_examples=150, deadline=None)
@given(
    user=st.sets(st.sampled_from(WORDS)), sessions=st.lists(st.sets(st.sampled_from(WORDS)), max_size=3),
    shared=st.sets(st.sampled_from(WORDS)), path=st.sampled_from(["/", "/login", "/account/x", "/data/x", "/feed"]),
)  # fmt: skip
def test_rules_hold_as_their_words_say(user: set[str], sessions: list[set[str]], shared: set[str], path: str) -> None:
    """What a request carries has readings: one for each value of its session, with and without the labels that others
    have, too. Restrictive rules hold under any, permissive ones under all."""
    made = engine(RULES)
    headers = [*PRINT, ORIGIN, *(cookie(f"s{number}") for number in range(len(sessions)))]
    print_ = made.peek(CLIENT, headers=headers).fingerprint
    for key, words in [
        ("uid:42", user),
        (print_, shared),
        *((made.session_key(f"s{i}"), w) for i, w in enumerate(sessions)),
    ]:
        for word in words:
            made.label(key, word)
    decision = made.decide(CLIENT, headers=headers, uid="42", path=path, method="GET")

    readings = [user | session | more for session in (sessions or [set()]) for more in (set(), shared)]
    everything = user.union(shared, *sessions)
    expected = None
    if all("vip" in words for words in readings):
        expected = "in"
    elif path != "/login" and any("revoked" in words and "vip" not in words for words in readings):
        expected = "out"
    elif not sessions and path == "/account/x":
        expected = "anonymous"
    assert expected == decision.rule
    assert everything == set(decision.labels)
    granted = (path == "/data/x" and all("tenant-a" in words for words in readings)) or (
        path == "/feed" and bool(sessions) and not any("revoked" in words for words in readings)
    )
    owned = path in ("/data/x", "/feed")
    assert ("granted" if granted else "withheld" if owned else None) == decision.share
    assert (("Origin", "Cookie") if owned else ()) == decision.varies
    assert ("watched" if "watched" in everything else None) == decision.record_rule


def test_sessions_are_present_absent_or_malformed() -> None:
    """Where nobody can say which session it is, policy `unparsable` decides about rules that ask."""
    text = "session: {cookie: sid}\nunparsable: ban\nrules: [{id: x, when: {session: %s}, action: challenge}]\n"
    many = (b"cookie", b"; ".join(b"sid=%d" % number for number in range(6)))
    for asked, expected in (
        ("absent", ["challenge", "allow", "ban"]), ("present", ["allow", "challenge", "ban"]),
        ("malformed", ["allow", "allow", "challenge"]), ("[absent, malformed]", ["challenge", "allow", "challenge"]),
    ):  # fmt: skip
        made = engine(text % asked)
        found = [made.decide(CLIENT, headers=headers) for headers in ([], [cookie("a")], [many])]

        assert expected == [decision.action for decision in found], asked
        assert ["absent", "present", "malformed"] == [decision.session_state for decision in found]
        assert [None, made.session_key("a")] == [decision.session for decision in found[:2]]
    assert "malformed-session" == engine(text % "absent").decide(CLIENT, headers=[many]).reason
    assert "unknown" == engine(text % "absent").decide(CLIENT).session_state
    assert "allow" == engine(text % "absent").decide(CLIENT).action
    assert "challenge" == engine(text % "present").decide(CLIENT, session="said by the application").action


def test_a_preflight_carries_no_session() -> None:
    """Conditions on it and on labels speak for it, because the request that follows is decided in full."""
    made = engine(RULES)
    asks = [ORIGIN, (b"access-control-request-method", b"GET")]
    preflight = made.decide(CLIENT, headers=asks, method="OPTIONS", path="/data/x")
    made.label(CLIENT, "revoked")
    revoked = made.decide(CLIENT, headers=asks, method="OPTIONS", path="/feed")

    assert (True, "granted", "mine") == (preflight.preflight, preflight.share, preflight.share_rule)
    assert (True, "granted", "allow") == (revoked.preflight, revoked.share, revoked.action)
    assert "withheld" == made.decide(CLIENT, headers=[ORIGIN], method="GET", path="/data/x").share


def test_users_are_banned() -> None:
    """`engine.ban("uid:42")` keeps out who is logged in as that, wherever he comes from, with any rules at all."""
    made = engine("rules: []\n")
    made.ban("uid:42", reason="spam")
    decision = made.decide(CLIENT, uid="42")

    assert ("ban", "ban", "uid:42", "spam") == (decision.action, decision.cause, decision.ban, decision.reason)
    assert ["allow", "allow"] == [made.decide(CLIENT, uid=uid).action for uid in ("43", None)]
    made.unban("uid:42")
    assert "allow" == made.decide(CLIENT, uid="42").action


def test_a_revoked_session_may_log_in_again() -> None:
    """It is a label, no ban: rules say what it may still do. The value is kept nowhere."""
    made = engine(
        "session: {cookie: sid}\nrules: [{id: logged-out, when: {label: revoked, not: {path: /login}}, action: ban}]\n"
    )
    label = made.revoke_session("s3cr3t-value")
    told = made.decide(CLIENT, headers=[cookie("s3cr3t-value")], path="/")

    assert "ban" == told.action
    assert "allow" == made.decide(CLIENT, headers=[cookie("s3cr3t-value")], path="/login").action
    assert "allow" == made.decide(CLIENT, headers=[cookie("new")], path="/").action
    for text in (repr(label), repr(told), str(told.to_dict()), made.explain(told), repr(made.snapshot.reader)):
        assert "s3cr3t" not in text
    assert "label: 'revoked' is carried by a key of the request" in made.explain(told)
    assert 7 * 86400 == pytest.approx(label.expires - label.created)


def test_keys_of_before_are_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A session that was revoked under an older key is revoked while that key is listed."""
    monkeypatch.setenv("SESSION_KEY_1", "the first secret of ours")
    (tmp_path / "key").write_text("the second secret of ours\n")
    text = "session: {cookie: sid, keys: [%s]}\nrules: [{id: x, when: {label: revoked}, action: ban}]\n"
    new = f"file:{tmp_path / 'key'}"
    made = engine(text % "env:SESSION_KEY_1")
    made.revoke_session("a")
    for keys, action in ((f"{new}, env:SESSION_KEY_1", "ban"), (new, "allow")):
        made.swap(Ruleset.from_text(text % keys))
        assert action == made.decide(CLIENT, headers=[cookie("a")]).action
    with pytest.raises(ValueError, match=r"env:NO_SUCH_KEY is not set; set the variable NO_SUCH_KEY"):
        made.swap(Ruleset.from_text(text % "env:NO_SUCH_KEY"))
    assert 3 == made.generation


def test_a_store_without_keys_of_sessions_is_an_error(tmp_path: Path) -> None:
    """Each process would hash under a key of its own. Without a store one is drawn, and outlives a swap."""
    text = "session: {cookie: sid}\nrules: []\n"
    path = tmp_path / "rules.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"session: has no keys.*write keys: \[env:GOBANFAST_SESSION_KEY\]"):
        Engine.load(path, store="memory:")
    made = engine("rules: []\n")
    from gobanfast.stores import attach

    sync = attach(made, "memory:")
    with pytest.raises(ValueError, match="session: has no keys"):
        made.swap(Ruleset.from_text(text))
    sync.close()
    made.swap(Ruleset.from_text(text))
    before = made.session_key("a")
    made.swap(Ruleset.from_text(text + "unparsable: allow\n"))
    assert before == made.session_key("a")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rules: [{id: x, when: {label: No}, action: ban}]", "label 'No' is not a word"),
        ("rules: [{id: x, when: {label: []}, action: ban}]", ""),
        ("rules: [{id: x, when: {session: yes-please}, action: ban}]", "session 'yes-please'"),
        ("session: {cookie: sid, keys: [hunter2]}\nrules: []", "key is no place of a secret; write env:"),
        ("session: {cookie: 'a b'}\nrules: []", "is not the name of a cookie"),
        ("session: {header: cookie}\nrules: []", "is not one with a session in it"),
        ("session: {}\nrules: []", "session is nowhere; write cookie: sid"),
        ("session: {cookie: sid, keys: [env:A, env:A]}\nrules: []", "or one twice"),
        ("labels: {capacity: 0}\nrules: []", "capacity 0 is out of range"),
        (
            "rules:\n" + "".join(f"- {{id: r{n}, when: {{label: w{n}}}, action: ban}}\n" for n in range(65)),
            "rules name 65 labels, 64 are the most",
        ),
    ],
)  # fmt: skip
def test_problems_of_files(text: str, said: str) -> None:
    """Each is an error at its place, and no secret is shown."""
    with pytest.raises(RuleError) as caught:
        Ruleset.from_text(text)

    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_compiled_files_say_the_same(tmp_path: Path) -> None:
    """Saved and loaded, rules on labels decide alike, and have the same hash."""
    ruleset = Ruleset.from_text(RULES)
    ruleset.save(tmp_path / "rules.gbf")
    loaded = Engine(Ruleset.load(tmp_path / "rules.gbf"))
    loaded.label("uid:42", "revoked")

    assert ruleset.content_hash == loaded.ruleset.content_hash
    assert "out" == loaded.decide(CLIENT, headers=[], uid="42", path="/").rule
    assert Ruleset.from_text(RULES.replace("label: watched", "label: seen")).content_hash != ruleset.content_hash


def test_columns_do_not_know_of_labels() -> None:
    """So no condition on them holds, and no negation."""
    made = engine(
        "rules:\n- {id: a, when: {label: bad}, action: ban}\n- {id: b, when: {not: {label: good}}, action: ban}\n"
        "- {id: c, when: {session: absent}, action: ban}\n- {id: d, when: {prefix: 203.0.113.8}, action: challenge}\n"
    )
    made.label(CLIENT, "bad")
    found = made.decide_many([CLIENT, OTHER])

    assert ["allow", "challenge"] == [("allow", "challenge", "limit", "ban")[action] for action in found.action]
    assert np.array_equal(found.action, made.replay([CLIENT, OTHER], times=[0.0, 0.0]).action) is False
    assert "a" == made.decide(CLIENT).rule


def test_inline_tests() -> None:
    """`labels:` are those of the test's user, `session:` says whether there is one; without it there is none."""
    good = (
        RULES
        + """
tests:
- {address: 203.0.113.7, path: /, labels: [revoked], expect: challenge, rule: out}
- {address: 203.0.113.7, path: /login, labels: revoked, expect: allow, rule: null}
- {address: 203.0.113.7, path: /, labels: [revoked, vip], uid: "42", expect: allow, rule: in}
- {address: 203.0.113.7, path: /account/x, session: present, expect: allow}
- {address: 203.0.113.7, path: /account/x, expect: ban}
- {path: /feed, origin: "https://app.example.com", session: present, share: granted}
- {path: /feed, origin: "https://app.example.com", session: present, labels: [revoked], share: withheld}
"""
    )
    assert [] == Ruleset.from_text(good).failures()
    assert 1 == len(Ruleset.from_text(good.replace("labels: revoked, expect: allow", "expect: ban")).failures())


def test_differences_and_schema() -> None:
    """A change of a label is a change of the rule; the schema lists the words of sessions."""
    old = Ruleset.from_text("rules: [{id: x, when: {label: a}, action: ban}]\n")
    new = Ruleset.from_text("labels: {capacity: 5}\nrules: [{id: x, when: {label: b}, action: ban}]\n")
    assert {"x", "labels"} <= {change.name for change in changes(old, new)}
    when = json_schema()["$defs"]["When"]["properties"]
    assert {"label", "session"} <= when.keys()


def test_lint_of_sessions_and_caches() -> None:
    """A condition on a session without a section, and a grant by a label that no cache sees."""
    from gobanfast.rules.check.lint_full import findings

    rules = "rules: [{id: x, when: {session: absent}, action: ban}]\n"
    assert ["session-without-source"] == [
        problem.code for problem in Ruleset.from_text(rules).problems if problem.code == "session-without-source"
    ]
    grant = 'share: [{id: g, when: {origin: "https://a.example", label: vip}, action: grant}]\n'
    assert "unseen-by-caches" in {problem.code for problem in findings(Ruleset.from_text(grant), starter=True)}


def test_every_word_has_its_bit() -> None:
    """64 words, on one request, in any combination of two."""
    words = [f"w{number}" for number in range(64)]
    made = engine("rules:\n" + "".join(f"- {{id: r-{word}, when: {{label: {word}}}, action: log}}\n" for word in words))
    for one, two in itertools.islice(itertools.combinations(words, 2), 0, None, 37):
        made.label(CLIENT, one)
        made.label(CLIENT, two)
        assert {one, two} == set(made.decide(CLIENT).labels)
        assert {f"r-{one}", f"r-{two}"} == set(made.decide(CLIENT).logged)
        made.unlabel(CLIENT, one)
        made.unlabel(CLIENT, two)


def test_changes_tell_of_engine_labels() -> None:
    """Who follows the feed sees `revoke_session` as what it is."""
    made = engine("session: {cookie: sid}\nrules: []\n")
    _, cursor = made.ban_table.changes()
    made.revoke_session("a")
    (change,), _ = made.ban_table.changes(cursor, labels=True)

    assert ("add", "label", "revoked", made.session_key("a")) == (
        change.event, change.kind, label_of(change.ban).word, label_of(change.ban).key,
    )  # fmt: skip


def test_limits_count_by_session_and_user() -> None:
    """A key that a request does not have falls back to the client; lint says that a session can be dropped."""
    text = (
        "session: {{cookie: sid}}\nrules: []\n"
        "limits: [{{id: slow, when: {{path: /slow}}, key: {0}, limit: 2, window: 1m, action: challenge}}]\n"
    )

    def actions(made: Engine, *asked: dict[str, object]) -> list[str]:
        given = {"path": "/slow", "method": "GET", "headers": []}
        return [made.decide(CLIENT, now=1.0, **(given | more)).action for more in asked]  # type: ignore[arg-type]

    one, other = {"headers": [cookie("a")]}, {"headers": [cookie("b")]}
    made = engine(text.format("session"))
    assert ["allow", "allow", "challenge", "allow"] == actions(made, one, one, one, other)
    assert ["allow", "allow", "challenge"] == actions(made, {}, {}, {})
    assert ["loose-limit"] == [problem.code for problem in made.ruleset.problems]
    made = engine(text.format("uid"))
    assert ["allow", "allow", "challenge", "allow"] == actions(made, *[{"uid": "42"}] * 3, {"uid": "43"})
