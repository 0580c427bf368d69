"""The overlay of rules and AS table says of every address what asking every rule would say."""

from __future__ import annotations

import ipaddress
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gobanfast.rules import Ruleset
from oracle.rules import OracleNetworks, OracleRule, decide
from rules_fakes import FakeAsnTable, ids, mask, vector

# Few distinct high bits, so that prefixes nest, touch and repeat.
_V4 = st.builds(
    lambda high, low: high << 24 | low, st.sampled_from([0, 10, 255]), st.sampled_from([0, 1, 2, 255, 0xFFFFFF])
)
_V6 = st.builds(
    lambda high, low: high << 64 | low,
    st.sampled_from([0, 0x20010DB8 << 32, (1 << 64) - 1]),
    st.sampled_from([0, 1, (1 << 64) - 1, 1 << 63]),
)
_NAMES = ("GOOGLE Google LLC", "Proxy House", "Hosting-Proxy", "")
_REGEXES = ("proxy", "^AS1 ", "GOO+GLE", "hosting|house", "AS[12]")


def _prefix(value: int, bits: int, family: Any) -> str:
    width = 32 if family is ipaddress.IPv4Address else 128
    return f"{family(value >> (width - bits) << (width - bits))}/{bits}"


prefixes = st.one_of(
    st.builds(lambda v, b: _prefix(v, b, ipaddress.IPv4Address), _V4, st.sampled_from([0, 1, 8, 24, 31, 32])),
    st.builds(
        lambda v, b: _prefix(v, b, ipaddress.IPv6Address), _V6, st.sampled_from([0, 1, 32, 63, 64, 65, 127, 128])
    ),
)
addresses = st.one_of(
    _V4.map(lambda value: str(ipaddress.IPv4Address(value))), _V6.map(lambda value: str(ipaddress.IPv6Address(value)))
)
prefix_lists = st.none() | st.lists(prefixes, min_size=1, max_size=6).map(tuple)
asns = st.integers(1, 4)


@st.composite
def rule_lists(draw: st.DrawFn) -> list[OracleRule]:
    count = draw(st.integers(1, 5) | st.sampled_from([64, 65, 130]))
    distinct = draw(
        st.lists(
            st.builds(
                OracleRule,
                id=st.just(""),
                action=st.sampled_from(["allow", "challenge", "ban", "log"]),
                mode=st.sampled_from(["enforce", "enforce", "shadow", "off"]),
                priority=st.sampled_from([1, 100, 200]),
                prefix=prefix_lists,
                prefix_file=prefix_lists,
                asn=st.none()
                | st.lists(st.tuples(asns, st.just(4)) | asns.map(lambda n: (n, n)), min_size=1).map(tuple),
                asn_name=st.none() | st.lists(st.sampled_from(_REGEXES), min_size=1, max_size=2).map(tuple),
            ),
            min_size=1,
            max_size=min(count, 5),
        )
    )
    return [OracleRule(**{**vars(distinct[i % len(distinct)]), "id": f"r{i}"}) for i in range(count)]


networks = st.builds(
    OracleNetworks,
    st.dictionaries(prefixes, asns, max_size=8).map(lambda pairs: tuple(pairs.items())),
    st.dictionaries(asns, st.sampled_from(_NAMES)),
)


def as_text(rules: list[OracleRule], directory: Path) -> str:
    """The rules as a YAML file, with its list files beside it."""
    entries = []
    for rule in rules:
        when: dict[str, Any] = {}
        if rule.prefix:
            when["prefix"] = list(rule.prefix)
        if rule.prefix_file:
            (directory / f"{rule.id}.txt").write_text("\n".join(rule.prefix_file))
            when["prefix_file"] = f"{rule.id}.txt"
        if rule.asn:
            when["asn"] = [f"AS{first}-{last}" for first, last in rule.asn]
        if rule.asn_name:
            when["asn_name"] = list(rule.asn_name)
        entries.append(
            {"id": rule.id, "when": when or "any", "action": rule.action, "mode": rule.mode, "priority": rule.priority}
        )
    return yaml.safe_dump({"rules": entries})


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
    assert len(overlay.starts4) == len(overlay.records4)
    assert len(overlay.starts6) == len(overlay.records6)
    assert max(overlay.records4.max(), overlay.records6.max()) < len(overlay.record_asn) == len(overlay.record_class)
    assert (overlay.record_class.max() + 1) * overlay.words == len(overlay.vectors)
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
