"""Columns of requests: every row is decided as the engine decides it alone, whatever form the columns have."""

from __future__ import annotations

import ipaddress
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gobanfast import Engine, Ruleset
from gobanfast.columns import ACTIONS, NO_RULE, Columns
from oracle.rules import OracleNetworks, OracleRule
from rules_fakes import FakeAsnTable
from rules_strategies import HOSTS, addresses, as_text, networks, signal_rules

names = st.none() | st.sampled_from([*HOSTS, "", "a..b", "1.2.3.4", "caf\xe9.example", "x" * 300, "A." * 100])


def one_by_one(engine: Engine, asked: list[str], sni: list[str | None]) -> list[tuple[Any, ...]]:
    """(action, rule index or NO_RULE, AS or 0) of each row from `peek`."""
    found = [engine.peek(address, sni=name) for address, name in zip(asked, sni, strict=True)]
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
    asked=st.lists(st.tuples(addresses, names), min_size=1, max_size=20),
    regex=st.booleans(),
)
def test_rows_equal_decisions(
    rules: list[OracleRule], table: OracleNetworks, asked: list[tuple[str, str | None]], regex: bool
) -> None:
    """Lists, NumPy and packed columns give the decisions of `peek`, with `re:` patterns and without."""
    with tempfile.TemporaryDirectory() as directory:
        text = as_text(rules, Path(directory))
        if regex:
            text += "- {id: slow, when: {sni: 're:[a-m].*'}, action: challenge}\n"
        source = str(Path(directory) / "rules.yaml")
        engine = Engine(Ruleset.from_text(text, source=source, asn=FakeAsnTable(table)))  # type: ignore[arg-type]
    texts, sni = [address for address, _ in asked], [name for _, name in asked]
    expected = one_by_one(engine, texts, sni)
    without = one_by_one(engine, texts, [None] * len(texts))

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
    assert {"allow": 0, "challenge": 3, "ban": 1} == columns.actions()
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
