"""Columns of requests: every row is decided as the engine decides it alone, whatever form the columns have."""

from __future__ import annotations

import ipaddress
import random
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gobanfast import Decision, Engine, Ruleset, fingerprint
from gobanfast._core.headers import PartialHeaders
from gobanfast.batch.columns import ACTIONS, CAUSES, NO_RULE, Columns
from oracle.rules import OracleNetworks, OracleRule
from rules_fakes import FakeAsnTable
from rules_strategies import (
    AGENTS,
    AUTHORITIES,
    HOSTS,
    JA4S,
    NAMES,
    PATHS,
    addresses,
    as_text,
    networks,
    request_rules,
    signal_rules,
)

names = st.none() | st.sampled_from([*HOSTS, *NAMES, "1.2.3.4", "caf\xe9.example", "x" * 300, "A." * 100])


def one_by_one(
    engine: Engine, asked: list[str], sni: list[str | None], ja4: list[str | None] | None = None
) -> list[tuple[Any, ...]]:
    """(action, rule index or NO_RULE, AS or 0) of each row from `peek`."""
    told = ja4 or [None] * len(asked)
    found = [engine.peek(address, sni=name, ja4=text) for address, name, text in zip(asked, sni, told, strict=True)]
    return [(d.action, NO_RULE if d.rule_index is None else d.rule_index, d.asn or 0) for d in found]


def rows_of(columns: Columns) -> list[tuple[Any, ...]]:
    actions = [ACTIONS[number] for number in columns.action.tolist()]
    return list(zip(actions, columns.rule.tolist(), columns.asn.tolist(), strict=True))


def packed(asked: list[str]) -> bytes:
    """16-byte records, IPv4 mapped."""
    records = b""
    for text in asked:
        address = ipaddress.ip_address(text)
        records += address.packed if address.version == 6 else b"\0" * 10 + b"\xff\xff" + address.packed
    return records


@settings(max_examples=40, deadline=None)
@given(
    rules=signal_rules(),
    table=networks,
    asked=st.lists(st.tuples(addresses, names, st.none() | st.sampled_from(JA4S)), min_size=1, max_size=20),
    regex=st.booleans(),
)
def test_rows_equal_decisions(
    rules: list[OracleRule], table: OracleNetworks, asked: list[tuple[str, str | None, str | None]], regex: bool
) -> None:
    """Lists, NumPy and packed columns give the decisions of `peek`, with `re:` patterns and without."""
    with tempfile.TemporaryDirectory() as directory:
        text = as_text(rules, Path(directory))
        if regex:
            text += "- {id: slow, when: {sni: 're:[a-m].*'}, action: challenge}\n"
        source = str(Path(directory) / "rules.yaml")
        engine = Engine(Ruleset.from_text(text, source=source, asn=FakeAsnTable(table)))  # type: ignore[arg-type]
    texts, sni, ja4 = (list(column) for column in zip(*asked, strict=True))
    expected = one_by_one(engine, texts, sni)
    without = one_by_one(engine, texts, [None] * len(texts))
    told, both = one_by_one(engine, texts, [None] * len(texts), ja4), one_by_one(engine, texts, sni, ja4)

    assert told == rows_of(engine.decide_many(texts, ja4=ja4))
    assert both == rows_of(engine.decide_many(texts, sni=sni, ja4=np.array(ja4, object)))
    for column in (texts, np.array(texts), packed(texts), np.frombuffer(packed(texts), "V16")):
        assert expected == rows_of(engine.decide_many(column, sni=sni))
        assert without == rows_of(engine.decide_many(column))


def test_arrow_columns_equal_lists() -> None:
    """Arrow arrays and streams of strings, numbers and 16-byte values, nulls and slices too, are read in place."""
    pa = pytest.importorskip("pyarrow", reason="Arrow columns need pyarrow to be made")
    engine = small_engine()
    texts = ["198.51.100.7", "192.0.2.1", "8.8.8.8", "198.51.100.9"]
    sni = [None, "x.evil.example", "good.example", "x.evil.example"]
    expected = rows_of(engine.decide_many(texts, sni=sni))
    numbers = pa.array([int(ipaddress.ip_address(text)) for text in texts], pa.uint32())
    wide = pa.array([packed([text]) for text in texts], pa.binary(16))

    for column in (pa.array(texts), pa.chunked_array([texts[:1], texts[1:]]), numbers, wide,
                   pa.concat_arrays([numbers, numbers])[4:], pa.chunked_array([numbers[:3], numbers[3:]])):  # fmt: skip
        assert expected == rows_of(engine.decide_many(column, sni=pa.array(sni)))
    hole = engine.decide_many(pa.array([None, 1], pa.uint32()))
    assert ["challenge", "allow"] == [ACTIONS[number] for number in hole.action.tolist()]
    with pytest.raises(TypeError, match="holds no addresses"):
        engine.decide_many(pa.array([1.5]))


def small_engine() -> Engine:
    return Engine(
        Ruleset.from_text(
            "rules:\n"
            "- {id: bad, when: {prefix: 198.51.100.0/24}, action: ban}\n"
            "- {id: evil, when: {sni: '*.evil.example'}, action: challenge}\n"
        )
    )


def test_answers_by_rule_and_action() -> None:
    """Rows of a rule come as a set, counts by action as a dict."""
    columns = small_engine().decide_many(
        ["198.51.100.7", "192.0.2.1", "?", "8.8.8.8"], sni=[None, "a.evil.example"] * 2
    )

    assert {0} == set(columns.rows("bad"))
    assert {1, 3} == set(columns.rows("evil"))
    assert {2} == set(columns.rows(None))
    assert {"allow": 0, "challenge": 3, "limit": 0, "ban": 1} == columns.actions()
    with pytest.raises(KeyError):
        columns.rows("none such")


@pytest.mark.parametrize("sni", [["a.example"], ["a.example"] * 3])
def test_columns_of_different_lengths_are_refused(sni: list[str]) -> None:
    """A column with more or fewer rows than addresses is misuse."""
    with pytest.raises(ValueError, match=r"\d (names|items)"):
        small_engine().decide_many(["192.0.2.1", "192.0.2.2"], sni=sni)


def test_many_classes_are_kept_apart() -> None:
    """More distinct sets of rules than the first room for classes: every row keeps its own."""
    rules = "".join(f"- {{id: r{i}, when: {{sni: '.n{i}.example'}}, action: ban}}\n" for i in range(200))
    engine = Engine(Ruleset.from_text("rules:\n" + rules))
    asked = [f"a.n{i % 230}.example" for i in range(1000)]

    found = engine.decide_many(["192.0.2.1"] * 1000, sni=asked).rule.tolist()

    assert [i % 230 if i % 230 < 200 else NO_RULE for i in range(1000)] == found


def test_a_swap_during_a_batch_leaves_it_whole() -> None:
    """Every batch is decided by one ruleset, old or new, while another thread swaps."""
    one, other = small_engine().ruleset, Ruleset.from_text("rules:\n- {id: all, when: any, action: ban}\n")
    engine = Engine(one)
    asked = np.full(20_000, int(ipaddress.ip_address("8.8.8.8")), np.uint32)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            engine.swap(other)
            engine.swap(one)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        seen = {tuple(np.unique(engine.decide_many(asked).rule).tolist()) for _ in range(200)}
    finally:
        stop.set()
        thread.join()

    assert {(NO_RULE,), (0,)} >= seen


texts = {
    "user-agent": st.none() | st.sampled_from(AGENTS) | st.just("\0"),
    "accept": st.none() | st.sampled_from(["*/*", "curl", "\r"]),
    "host": st.none() | st.sampled_from([*AUTHORITIES, "\r"]),
}
ways = st.none() | st.sampled_from(["GET", "POST", "get", "", "G T", "\xe9"])
requests = st.lists(
    st.tuples(addresses, names, *texts.values(), ways, st.none() | st.sampled_from(PATHS)),
    min_size=1,
    max_size=20,
)


def some_headers(row: dict[str, str | None]) -> PartialHeaders:
    """What columns say of the headers of one row, in UTF-8."""
    pairs = [(name.encode(), value.encode()) for name, value in row.items() if value is not None]
    return PartialHeaders(pairs, tuple(row))


@settings(max_examples=60, deadline=None)
@given(rules=request_rules(), asked=requests, given_columns=st.sets(st.sampled_from(sorted(texts))))
def test_rows_of_requests_equal_decisions(
    rules: list[OracleRule], asked: list[tuple[str | None, ...]], given_columns: set[str]
) -> None:
    """Header, method and path columns, or some of them: the decisions of `peek` on what they say of each row."""
    with tempfile.TemporaryDirectory() as directory:
        source = str(Path(directory) / "rules.yaml")
        engine = Engine(Ruleset.from_text(as_text(rules, Path(directory)), source=source))
    where, sni, *heard, methods, paths = (list(column) for column in zip(*asked, strict=True))
    columns = dict(zip(texts, heard, strict=True))
    columns = {name: columns[name] for name in sorted(given_columns & asked_by(engine))}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)] or [{}] * len(asked)
    decisions = [
        engine.peek(where[i], sni=sni[i], headers=some_headers(rows[i]) if columns else None, method=methods[i],
                    path=paths[i])
        for i in range(len(asked))
    ]  # fmt: skip
    upper = {name.upper(): column for name, column in columns.items()}

    found = engine.decide_many(where, sni=sni, headers=upper, method=methods, path=paths)

    assert [(d.action, d.cause, d.rule_index) for d in decisions] == caused(found)


def asked_by(engine: Engine) -> set[str]:
    requests = engine.compiled.requests
    named = set() if requests is None else set(requests.names)
    return named | {"host"} if ":names" in named else named


def caused(columns: Columns) -> list[tuple[str, str, int | None]]:
    """(action, cause, rule index or None) of each row."""
    rows = zip(columns.action.tolist(), columns.cause.tolist(), columns.rule.tolist(), strict=True)
    return [(ACTIONS[action], CAUSES[cause], None if rule == NO_RULE else rule) for action, cause, rule in rows]


PRINTED = [[(b"user-agent", b"curl/8.5.0")], [(b"user-agent", b"a")], [(b"accept", b"*/*"), (b"user-agent", b"a")], []]


@pytest.fixture(scope="module")
def printing() -> Engine:
    known = [fingerprint(PRINTED[0]), fingerprint(PRINTED[2])]
    return Engine(
        Ruleset.from_text(
            "rules:\n"
            f"- {{id: one, when: {{fingerprint: '{known[0]}', header: {{user-agent: present}}}}, action: ban}}\n"
            f"- {{id: two, when: {{fingerprint: '{known[1]}', prefix: 192.0.2.0/25}}, action: challenge}}\n"
            "- {id: none, when: {header: {user-agent: absent}}, action: ban}\n"
        )
    )


def test_fingerprint_columns_equal_headers(printing: Engine) -> None:
    """Fingerprints in bytes or as text, beside the headers that rules require, decide as the headers do."""
    rows = [PRINTED[i % 4] for i in range(64)]
    where = [f"192.0.2.{i * 4}" for i in range(64)]
    agents = [dict(row).get(b"user-agent") for row in rows]
    prints = [fingerprint(row) or "" for row in rows]
    raw = b"".join(bytes.fromhex(text[4:]) for text in prints)
    decisions = [printing.peek(address, headers=row) for address, row in zip(where, rows, strict=True)]
    expected = [(d.action, d.cause, d.rule_index) for d in decisions]

    assert {"ban", "challenge", "allow"} == {d.action for d in decisions}
    for column in (prints, np.array(prints), raw, memoryview(raw), np.frombuffer(raw, "V16"),
                   np.frombuffer(raw, np.uint8).reshape(-1, 16),
                   [raw[i : i + 16] for i in range(0, len(raw), 16)]):  # fmt: skip
        found = printing.decide_many(where, headers={"user-agent": agents}, fingerprint=column)
        assert expected == caused(found)
    unknown = printing.decide_many(where, headers={"user-agent": agents}, fingerprint=[None] * 64)
    assert [None if agent else 2 for agent in agents] == [rule for _, _, rule in caused(unknown)]


def test_text_columns_in_any_form_are_equal() -> None:
    """Lists of str and bytes, NumPy and Arrow, dictionaries and nulls too, say the same."""
    pa = pytest.importorskip("pyarrow", reason="Arrow columns need pyarrow to be made")
    engine = Engine(Ruleset.from_text("rules:\n- {id: x, when: {header: {x-a: [absent, 'b\xe9']}}, action: ban}\n"))
    values = ["a", None, "b\xe9", "", "x" * 400] * 7
    where = ["192.0.2.1"] * len(values)
    raw = [None if value is None else value.encode() for value in values]
    expected = ["allow", "ban", "ban", "allow", "allow"] * 7
    for column in (values, raw, np.array(values, object), pa.array(values), pa.array(values, pa.large_string()),
                   pa.chunked_array([values[:3], values[3:]]), pa.array(values).dictionary_encode(),
                   pa.array(raw)):  # fmt: skip
        assert expected == [action for action, _, _ in caused(engine.decide_many(where, headers={"X-A": column}))]
    filled = [value or "" for value in values]
    expected = [action for action, _, _ in caused(engine.decide_many(where, headers={"x-a": filled}))]
    for array in (np.array(filled), np.array([value.encode() for value in filled])):
        assert expected == [action for action, _, _ in caused(engine.decide_many(where, headers={"x-a": array}))]


def test_columns_that_cannot_be_are_refused(printing: Engine) -> None:
    """Lengths, header names, fingerprints and values of other types are misuse, and say so."""
    one = ["192.0.2.1"]
    for wrong, message in (
        ({"headers": {"user-agent": ["a", "b"]}}, "2 items in column 'user-agent' for 1 rows"),
        ({"headers": {":path": ["/"]}}, "':path' is there twice, or is none"),
        ({"headers": {"a": ["/"], "A": ["/"]}}, "'A' is there twice, or is none"),
        ({"method": []}, "0 items in column 'method' for 1 rows"),
        ({"ja4": ["a", "b"]}, "2 items in column 'ja4' for 1 rows"),
        ({"fingerprint": b"short"}, "5 bytes of hashes, 16 each, for 1 rows"),
        ({"fingerprint": ["gh2:0"]}, "'gh2:0' is no fingerprint"),
    ):
        with pytest.raises(ValueError, match=message):
            printing.decide_many(one, **wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="1 in column 'user-agent' is int, not str or bytes"):
        printing.decide_many(one, headers={"user-agent": [1]})


LIVE = """
trackers:
  distinct_fingerprints: {window: 60s, limit: 3, action: ban, for: 40s}
  request_rate: {window: 10s, limit: 30}
bans: {escalate: {factor: 2, cap: 1m}}
score: {mode: enforce}
rules:
- {id: curl, when: {header: {user-agent: {prefix: curl}}, sni: a.example}, action: ban, for: 5s}
- {id: admin, when: {path: "/admin/**", method: POST}, action: challenge}
- {id: quic, when: {ja4_prefix: q, path: "/admin/**"}, action: challenge}
"""


def traffic(count: int) -> dict[str, Any]:
    """A made-up mix: few clients, some that change their headers and some that ask for too much."""
    rng = random.Random(7)
    agents = [b"curl/8.5.0" if rng.random() < 0.02 else b"agent %d" % rng.randrange(5) for _ in range(count)]
    return {
        "addresses": [f"192.0.2.{rng.randrange(40)}" if i % 3 else f"2001:db8::{i % 7:x}" for i in range(count)],
        "times": np.cumsum([rng.random() * 0.1 for _ in range(count)]),
        "sni": [rng.choice(["a.example", "b.example", None, "-"]) for _ in range(count)],
        "ja4": [JA4S[i % len(JA4S)] if i % 4 == 0 else None for i in range(count)],
        "headers": [[(b"user-agent", agent), (b"accept", b"*/*")] for agent in agents],
        "method": [rng.choice(["GET", "POST"]) for _ in range(count)],
        "path": [rng.choice(["/", "/admin/x"]) for _ in range(count)],
    }


def same(one: Columns, other: Columns) -> bool:
    assert one.score is not None
    return all(
        np.array_equal(getattr(one, name), getattr(other, name), equal_nan=name == "score")
        for name in ("action", "rule", "asn", "cause", "score")
    )


def test_a_replay_is_its_decisions_and_repeats() -> None:
    """Replayed into two fresh engines, and decided one by one in a third: all the same, bans and trackers in it."""
    made = traffic(6000)
    engines = [Engine(Ruleset.from_text(LIVE), clock=lambda: 0.0, seed=b"replay") for _ in range(3)]
    asked = {**made}
    where = asked.pop("addresses")
    one, other = (engine.replay(where, **asked) for engine in engines[:2])
    decisions = [
        engines[2].decide(where[i], sni=made["sni"][i], ja4=made["ja4"][i], headers=made["headers"][i],
                          method=made["method"][i], path=made["path"][i], now=made["times"][i])
        for i in range(len(where))
    ]  # fmt: skip

    assert {"none", "rule", "ban", "tracker"} <= {CAUSES[cause] for cause in one.cause.tolist()}
    assert same(one, other)
    assert [(d.action, d.cause, d.rule_index) for d in decisions] == caused(one)
    expected = np.array([np.nan if d.score is None else d.score for d in decisions], np.float32)
    np.testing.assert_array_equal(expected, one.score)
    assert sorted(ban.key for ban in engines[0].bans(now=made["times"][-1])) == sorted(
        ban.key for ban in engines[2].bans(now=made["times"][-1])
    )


def test_a_replay_takes_addresses_in_any_form() -> None:
    """Packed, numeric, NumPy and Arrow addresses are the same requests as their texts."""
    where = ["198.51.100.7", "192.0.2.1", "8.8.8.8"]
    expected = caused(small_engine().replay(where, times=[0, 0, 1]))
    numbers = np.array([int(ipaddress.ip_address(text)) for text in where], np.uint32)
    for column in (numbers, packed(where), np.frombuffer(packed(where), "V16"), np.array(where), np.array(where, "S")):
        assert expected == caused(small_engine().replay(column, times=[0, 0, 1]))
    assert ["rule", "none", "none"] == [cause for _, cause, _ in expected]


@pytest.mark.parametrize("times", [[2.0, 1.0], [0.0, float("nan")], [0.0], [[0.0, 1.0]], [float("inf")] * 2])
def test_a_replay_refuses_times_that_go_back(times: list[float]) -> None:
    """Times that go back, are no numbers or are too few: refused before anything is decided."""
    engine = small_engine()

    with pytest.raises(ValueError, match="times"):
        engine.replay(["192.0.2.1", "198.51.100.7"], times=times)
    assert {} == engine.decided()


def test_a_replay_whose_rules_are_replaced_ends() -> None:
    """A swap in the middle would make rule numbers of two rulesets: it is an error, not a mixture."""

    class Swapping(Engine):
        """Other rules come into force with every decision."""

        def decide(self, *signals: Any, **named: Any) -> Decision:
            decision = super().decide(*signals, **named)
            self.swap(small_engine().ruleset)
            return decision

    engine = Swapping(Ruleset.from_text("rules:\n- {id: curl, when: {header: {a: b}}, action: ban, for: 1h}\n"))

    with pytest.raises(RuntimeError, match="replaced during the replay, before row 1"):
        engine.replay(["192.0.2.1", "192.0.2.2"], times=[0, 0], headers=[[(b"a", b"b")]] * 2)
