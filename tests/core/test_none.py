"""Arguments of another type: what None passes for in Cython, and items of tables, are a TypeError that says which."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gobanfast import Engine, NameTable, PrefixSet, PrefixTable, Ruleset
from gobanfast._core import columns
from gobanfast._core.address import parse_prefixes
from gobanfast._core.compiled_rules import CompiledRules
from gobanfast._core.connection_table import ConnectionTable
from gobanfast.stores import attach, open_store

PLAIN = Engine(Ruleset.from_text("rules: [{id: a, when: {prefix: 192.0.2.0/24}, action: ban}]"))
NAMED = Engine(Ruleset.from_text("rules: [{id: a, when: {sni: .evil.example}, action: ban}]"))
BLOCKS: dict[str, Any] = NAMED.compiled.blocks()


def stored(**blocks: object) -> object:
    return CompiledRules.of_blocks(NAMED.compiled.rules, {**BLOCKS, **blocks}, unparsable="ban")


@pytest.mark.parametrize(
    "call",
    [
        lambda: PrefixSet([None]),
        lambda: PrefixTable([(None, 1)]),
        lambda: NameTable([(None, 1)]),
        lambda: parse_prefixes([None]),
        lambda: stored(RULE=None),
        lambda: stored(SIGN=None),
        lambda: stored(NAME=None),
        lambda: stored(RULE=b""),
        lambda: ConnectionTable.of_blocks({**BLOCKS, "NAME": None}),
        lambda: columns.replay_rows(PLAIN.compiled, [None], 1),
    ],
)  # fmt: skip
def test_none_inside_is_a_type_error(call: Any) -> None:
    """Not a read behind the None object."""
    with pytest.raises(TypeError, match=r"got (NoneType|bytes)"):
        call()


def test_rows_have_no_negative_numbers() -> None:
    """The tuple of matchers would count from its end, the array beside it would not."""
    table = Engine(Ruleset.from_text("rules: [{id: a, when: {path: /x}, action: ban}]")).compiled.requests

    with pytest.raises(IndexError, match="no value has the number -1"):
        table.value_row(-1, "/x")


def test_store_as_a_path_is_told_how_to_be_written() -> None:
    """A Path names no kind of store."""
    with pytest.raises(TypeError, match="Path and not str; write memory:, sqlite:PATH"):
        attach(PLAIN, Path("bans.db"))


@pytest.mark.parametrize(
    "call",
    [
        lambda: columns.name_column(PLAIN.compiled, ["a.example"], 1),
        lambda: columns.ja4_states(PLAIN.compiled),
        lambda: columns.ja4_vector(PLAIN.compiled, "t13d3111h2_e8f1e7e78f70_1f22a2ca17c4"),
    ],
)
def test_columns_of_signals_that_no_rule_asks_for(call: Any) -> None:
    """Rules without conditions on the connection have no table of signals."""
    with pytest.raises(ValueError, match="no rule asks for a server name or a ClientHello"):
        call()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: PrefixTable("10.0.0.0/8"), "items is '10.0.0.0/8', not pairs; write PrefixTable"),
        (lambda: NameTable("a.example"), "items is 'a.example', not pairs; write NameTable"),
        (lambda: NameTable(None), "items is None, not pairs"),
        (lambda: PrefixTable({"10.0.0.0/8": 1}), "items is a dict, not pairs"),
        (lambda: PrefixTable(["10.0.0.0/8"]), r"item 0: expected a pair \(text, number\), got '10.0.0.0/8'"),
        (lambda: NameTable([("a.example", 1), ("b.example",)]), r"item 1: expected a pair"),
        (lambda: PrefixTable([(1, "10.0.0.0/8")]), "item 0: expected str, got int"),
        (lambda: NameTable([(1, "a.example")]), "item 0: expected str, got int"),
        (lambda: PrefixTable([("10.0.0.0/8", 1.5)]), "item 0: value 1.5 is not a whole number"),
        (lambda: NameTable([("a.example", None)]), "item 0: value None is not a whole number"),
        (lambda: PrefixTable([("10.0.0.0/8", "1")]), "item 0: value '1' is not a whole number"),
        (lambda: PrefixSet("10.0.0.0/8"), r"prefixes is one text, '10.0.0.0/8'; write PrefixSet\(\['10.0.0.0/8'\]\)"),
        (lambda: PrefixSet([("10.0.0.0/8", 1)]), "item 0: expected str, got tuple"),
        (lambda: Ruleset.from_text("rules: []", asn="table.mmdb"), "asn is 'table.mmdb', str and not AsnTable; read"),
        (lambda: open_store(Path("bans.db")), r"store is PosixPath\('bans.db'\), PosixPath and not str; write memory:"),
    ],
)
def test_a_wrong_argument_is_told(call: Any, words: str) -> None:
    """The message has the item and what is wrong with it, not what the loop stumbled over."""
    with pytest.raises(TypeError, match=words):
        call()


def test_items_in_other_forms_are_taken() -> None:
    """Lists of two, numpy's integers, generators."""
    numbers = np.array([7], np.uint32)

    assert 7 == PrefixTable([["10.0.0.0/8", numbers[0]]]).lookup("10.1.1.1")
    assert 7 == NameTable((name, number) for name in ["a.example"] for number in numbers).lookup("a.example")
