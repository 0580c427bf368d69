"""Mistakes that are easily made at a call: what is raised has the value, and what to write in its place."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from gobanfast import AsnTable, Engine, NameTable, PrefixTable, Ruleset
from gobanfast.frontends.http.guard import HttpGuard
from gobanfast.frontends.trust import Trust

RULES = "rules: [{id: tools, when: {header: {user-agent: {contains: curl}}}, action: ban}]"
WRONG: Any = {
    "rules as a path": (lambda engine: Engine("rules.yaml"), "'rules.yaml'", "Engine.load('rules.yaml')"),
    "a swap to a path": (lambda engine: engine.swap("rules.yaml"), "'rules.yaml'", "Ruleset.load"),
    "an AS by its number alone": (lambda engine: engine.ban(14061, duration=60), "14061", "'AS14061'"),
    "a packed address": (lambda engine: engine.decide(b"\xc0\0\2\1"), "bytes", "decide_packed"),
    "a copy of a decision": (lambda engine: copy.copy(engine.decide("a")), "Decision", "keep the attributes"),
    "a pickled ruleset": (lambda engine: pickle.dumps(engine.ruleset), "Ruleset", "Ruleset.load"),
    "a pickled AS table": (lambda engine: pickle.dumps(engine.ruleset.asn), "AsnTable", "AsnTable.load"),
    "an empty AS table": (lambda engine: AsnTable(), "AsnTable", ".from_csv, .from_mmdb or .load"),
    "a text explained": (lambda engine: engine.explain("192.0.2.1"), "'192.0.2.1'", "engine.explain(engine.peek("),
    "headers by name": (lambda engine: engine.decide("a", headers={"user-agent": "curl"}), "a dict", "pairs of bytes"),
    "headers as str": (lambda engine: engine.decide("a", headers=[("user-agent", "curl")]), "'curl'", "pair of bytes"),
    "a column that is a text": (lambda engine: engine.decide_many("192.0.2.1"), "'192.0.2.1'", "one for each row"),
    "columns that are pairs": (lambda engine: engine.decide_many(["a"], headers=[("b", "c")]), "list", "mapping"),
    "prefixes as a dict": (lambda engine: PrefixTable({"192.0.2.0/24": 1}), "a dict", "items.items()"),
    "names as a dict": (lambda engine: NameTable({"a.example": 1}), "a dict", "items.items()"),
    "trust as a text": (lambda engine: Trust("10.0.0.0/8"), "'10.0.0.0/8'", "write a list"),
    "trust as a number": (lambda engine: Trust([10]), "10", "not text"),
    "a chain as a text": (lambda engine: Trust(chain="forwarded"), "'forwarded'", "write a list"),
    "another chain": (lambda engine: Trust(chain=["x-real-ip"]), "'x-real-ip'", "single={header: [prefixes]}"),
    "another signal": (lambda engine: Trust(signals={"ja5": "x-ja5"}), "'ja5'", "ja3, ja4, sni"),
    "owners as a text": (lambda engine: Trust(single={"x-real-ip": "10.0.0.0/8"}), "'10.0.0.0/8'", "write a list"),
    "an engine as a path": (lambda engine: HttpGuard("rules.yaml"), "'rules.yaml'", "Engine.load('rules.yaml')"),
    "a log as a path": (lambda engine: HttpGuard(engine, log="bans.jsonl"), "'bans.jsonl'", "write stdout:, file:PATH"),
    "one certificate name": (lambda engine: HttpGuard(engine, names="a.example"), "'a.example'", "write a list"),
}


@pytest.mark.parametrize(("mistake", "given", "instead"), WRONG.values(), ids=WRONG)
def test_what_is_raised_helps(mistake: Callable[[Engine], object], given: str, instead: str) -> None:
    """A ValueError or TypeError in words of ours, before anything is decided."""
    engine = Engine(Ruleset.from_text(RULES))

    with pytest.raises((TypeError, ValueError)) as caught:
        mistake(engine)

    assert given in str(caught.value)
    assert instead in str(caught.value)
