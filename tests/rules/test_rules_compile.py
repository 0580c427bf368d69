"""The overlay of rules and AS table says of every address what asking every rule would say."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gobanfast.rules import Ruleset
from oracle.rules import OracleNetworks, OracleRule, decide
from rules_fakes import FakeAsnTable, ids, mask, vector
from rules_strategies import addresses, as_text, networks, rule_lists


@settings(deadline=None, max_examples=40)
@given(rules=rule_lists(), table=networks, asked=st.lists(addresses, min_size=1, max_size=12))
def test_overlay_decides_like_asking_every_rule(
    rules: list[OracleRule], table: OracleNetworks, asked: list[str]
) -> None:
    """Winner, shadow rules, logged rules and AS of an address are those of the slow scan."""
    with tempfile.TemporaryDirectory() as directory:
        source = str(Path(directory) / "rules.yaml")
        ruleset = Ruleset.from_text(as_text(rules, Path(directory)), source=source, asn=FakeAsnTable(table))
    overlay = ruleset.overlay
    for address in [*asked, None]:
        expected = decide(rules, address, table)

        asn, bits = vector(ruleset, address)
        winners = ids(ruleset, bits & mask(overlay.enforced))
        shadow, logged = ids(ruleset, bits & mask(overlay.shadow)), ids(ruleset, bits & mask(overlay.logged))
        assert expected == (winners[0] if winners else None, shadow, logged)
        assert (table.lookup(address) if address else 0) == asn


@settings(deadline=None, max_examples=10)
@given(rules=rule_lists(), table=networks)
def test_arrays_keep_the_contract_of_the_engine(rules: list[OracleRule], table: OracleNetworks) -> None:
    """Ranges start at zero and ascend, indexes are in bounds, shapes agree, and a second build is identical."""
    with tempfile.TemporaryDirectory() as directory:
        source = str(Path(directory) / "rules.yaml")
        text = as_text(rules, Path(directory))
        first, second = (Ruleset.from_text(text, source=source, asn=FakeAsnTable(table)) for _ in range(2))
    overlay = first.overlay
    keys6 = [row.tobytes() for row in overlay.starts6]
    assert overlay.starts4[0] == 0
    assert keys6[0] == bytes(16)
    assert np.all(overlay.starts4[1:] > overlay.starts4[:-1])
    assert sorted(set(keys6)) == keys6
    assert len(overlay.starts4) == len(overlay.leaves4)
    assert len(overlay.starts6) == len(overlay.leaves6)
    assert max(overlay.leaves4.max(), overlay.leaves6.max()) < len(overlay.leaf_asn) == len(overlay.leaf_class)
    assert (overlay.leaf_class.max() + 1) * overlay.words == len(overlay.vectors)
    assert len(overlay.actions) == len(first.rules) <= overlay.words * 64
    assert first.content_hash == second.content_hash


def test_a_list_is_one_rule_however_long(tmp_path: Path) -> None:
    """A list file of many prefixes is one bit, and touching prefixes become one range."""
    (tmp_path / "list.txt").write_text("".join(f"10.{i >> 8}.{i & 255}.0/24\n" for i in range(65536)))
    text = "rules: [{id: listed, when: {prefix_file: list.txt}, action: ban}]"

    ruleset = Ruleset.from_text(text, source=str(tmp_path / "rules.yaml"), asn=FakeAsnTable())

    assert [0, 10 << 24, 11 << 24] == ruleset.overlay.starts4.tolist()
    assert 1 == ruleset.overlay.words


def test_families_do_not_mix() -> None:
    """::/0 does not cover IPv4 and 0.0.0.0/0 does not cover IPv6."""
    text = "rules: [{id: six, when: {prefix: '::/0'}, action: ban}, {id: four, when: {prefix: 0.0.0.0/0}, action: ban}]"
    ruleset = Ruleset.from_text(text, asn=FakeAsnTable())

    assert ["four"] == ids(ruleset, vector(ruleset, "255.255.255.255")[1])
    assert ["six"] == ids(ruleset, vector(ruleset, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")[1])


@pytest.mark.parametrize("separator", [" ", "-"])
def test_founding_regex_sees_number_dash_name(separator: str) -> None:
    """`asn_regex` is searched in "AS<n>-<name>", `asn_name` in "AS<n> <name>"."""
    table = OracleNetworks((("192.0.2.0/24", 64500),), {64500: "Fast Proxy"})
    regex = f"^AS[0-9]+{separator}.*proxy.*$"
    text = f"""
ban_rules: [{{asn_regex: '{regex}', action: permanent}}]
rules: [{{id: new, when: {{asn_name: '{regex}'}}, action: ban}}]
"""
    ruleset = Ruleset.from_text(text, asn=FakeAsnTable(table))

    expected = ["new"] if separator == " " else ["ban_rules[0]"]
    assert expected == ids(ruleset, vector(ruleset, "192.0.2.1")[1])
