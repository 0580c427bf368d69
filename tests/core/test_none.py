"""None passes for an extension type and for `str` in Cython; where it comes out of a container it is a TypeError."""

from __future__ import annotations

from typing import Any

import pytest

from gobanfast import Engine, NameTable, PrefixSet, PrefixTable, Ruleset
from gobanfast._core import columns
from gobanfast._core.address import parse_prefixes
from gobanfast._core.compiled_rules import CompiledRules
from gobanfast._core.connection_table import SignalTable

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
        lambda: SignalTable.of_blocks({**BLOCKS, "NAME": None}),
        lambda: columns.replay_rows(PLAIN.compiled, [None], 1),
    ],
)  # fmt: skip
def test_none_inside_is_a_type_error(call: Any) -> None:
    """Not a read behind the None object."""
    with pytest.raises(TypeError, match=r"got (NoneType|bytes)"):
        call()


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
