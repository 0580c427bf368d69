"""Rules texts: what loads, what it means, and what every mistake is told."""

from __future__ import annotations

import gzip
import tomllib
from pathlib import Path
from typing import Any

import pytest

from gobanfast import RuleError
from gobanfast._values import parse_asn, parse_duration
from gobanfast.rules import Ruleset
from gobanfast.rules.text.yaml_nodes import read
from rules_fakes import FakeAsnTable

CASES = tomllib.loads((Path(__file__).parents[1] / "cases" / "rules_errors.toml").read_text())["case"]
ANY: dict[str, Any] = {"asn": FakeAsnTable()}


def messages(text: str, source: str = "rules.yaml") -> list[str]:
    """What loading says is wrong."""
    with pytest.raises(RuleError) as caught:
        Ruleset.from_text(text, source=source, **ANY)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["name"]))
def test_every_problem_is_told_with_its_place(case: dict[str, Any]) -> None:
    """A wrong text gets all its messages at once, each at its line and column, in order."""
    assert case["messages"] == messages(case["yaml"])


def test_scalars_follow_yaml_1_2() -> None:
    """Words and sexagesimals that YAML 1.1 would convert stay text."""
    expected = {
        "a": "no", "b": "on", "c": "1:30", "d": True, "e": 10, "f": 1.5, "g": None, "h": "5", "on": 31, "i": "1_000",
    }  # fmt: skip
    text = "{a: no, b: on, c: 1:30, d: true, e: 010, f: 1.5, g: ~, h: '5', on: 0x1f, i: 1_000}"

    assert expected == read(text, "x").value


def test_alias_bomb_of_ten_megabytes_is_refused() -> None:
    """Aliases that would expand without end stop at the cap, after reading no more than the text."""
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    text = "\n".join(levels) + "\nrules: [*a8]\n#" + "x" * (10 << 20)

    assert ["rules.yaml:5:10: aliases repeat more than 10000 values; write the values out"] == messages(text)


def test_long_list_of_aliases_is_refused() -> None:
    """Ten megabytes of aliases to one value are a bomb as well."""
    text = "x: &x {asn: 1}\nrules: [" + "*x," * 3_000_000 + "]"

    assert ["aliases repeat more than 10000 values"] == [m.split(": ")[1].split(";")[0] for m in messages(text)]


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 100_000, "- " * 100_000])
def test_deep_nesting_is_refused(text: str) -> None:
    """Depth beyond the cap is a problem, never an exhausted stack."""
    assert ["nested deeper than 64 levels"] == [message.split(": ")[1] for message in messages(text)]


def test_oversize_text_is_refused() -> None:
    """Text past the cap is not even parsed."""
    expected = ["rules.yaml:1:1: 67108865 characters of text; at most 67108864 are read"]

    assert expected == messages("#" * ((64 << 20) + 1))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1h30m", 5400.0), ("500ms", 0.5), ("1.5h", 5400.0), ("2w", 1209600.0), ("1d12h", 129600.0), ("permanent", None)],
)
def test_durations(text: str, seconds: float | None) -> None:
    """Go durations, days and weeks are seconds; `permanent` is None."""
    assert seconds == parse_duration(text)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [(15169, (15169, 15169)), ("AS15169", (15169, 15169)), ("as1-AS5", (1, 5)), ("64512-65534", (64512, 65534))],
)
def test_as_numbers(text: object, numbers: tuple[int, int]) -> None:
    """An AS number or an inclusive range, with or without "AS"."""
    assert numbers == parse_asn(text)


def test_decision_order() -> None:
    """`allow` rules come first, then priority, then place in the file; `off` rules are left out."""
    text = """
ban_rules:
- {asn_prefix: AS64500, duration: 1h, reason: founding}
rules:
- {id: late, when: any, action: ban, priority: 200}
- {id: ban, when: any, action: ban}
- {id: early, when: any, action: challenge, priority: 1}
- {id: gone, when: any, action: ban, mode: off}
- {id: friend, when: any, action: allow, priority: 900}
"""
    ruleset = Ruleset.from_text(text, **ANY)

    assert ["friend", "early", "ban_rules[0]", "ban", "late"] == [rule.id for rule in ruleset.rules]


def test_founding_schema_means_what_it_should() -> None:
    """`asn_prefix` is a number and says so; a duration alone is a ban; `permanent` is a ban without end."""
    text = """
ban_rules:
- asn_prefix: AS15169
  reason: cloud-probe
  duration: 1h
- {asn_regex: proxy, action: permanent}
"""
    ruleset = Ruleset.from_text(text, source="rules.yaml", **ANY)
    first, second = ruleset.rules

    assert ("ban", 3600.0, ((15169, 15169),)) == (first.action, first.duration, first.when.asn)
    assert ("ban", None, "cloud-probe") == (second.action, second.duration, first.reason)
    assert [
        "rules.yaml:3:3: asn_prefix 'AS15169' is an AS number, not a text prefix; write asn: under rules: to say so"
    ] == [str(problem) for problem in ruleset.problems]


def test_wide_rules_are_warned_about() -> None:
    """A ban of more than a /8 of IPv4 is a warning; an allow, a /8, `when: any` and `outside` are not."""
    text = """
rules:
- {id: all, when: any, action: ban}
- {id: friend, when: {prefix: 0.0.0.0/0}, action: allow}
- {id: eight, when: {prefix: 10.0.0.0/8}, action: ban}
- {id: wide, when: {prefix: [10.0.0.0/8, 12.0.0.0/32]}, action: ban}
- {id: outsiders, when: {outside: 192.0.2.0/24}, action: ban}
"""
    expected = [
        "rules.yaml:6:3: rule 'wide' covers 16777217 IPv4 addresses, 0.4% of all; check its prefixes and AS conditions"
    ]
    found = Ruleset.from_text(text, source="rules.yaml", **ANY).problems

    assert expected == [str(problem) for problem in found]
    assert ["warning"] == [problem.severity for problem in found]


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_list_files(tmp_path: Path, compress: Any) -> None:
    """Comments, blank lines, bare addresses, duplicates and CRLF are fine; gzip is recognised by content."""
    text = b"# a list\r\n\r\n192.0.2.0/24 # why\r\n  2001:db8::/32\r\n192.0.2.0/24\r\n198.51.100.7 ; one\r\n"
    (tmp_path / "list").write_bytes(compress(text))
    rules = "rules: [{id: a, when: {prefix_file: list}, action: ban}]"

    ruleset = Ruleset.from_text(rules, source=str(tmp_path / "rules.yaml"), **ANY)

    listed = ruleset.rules[0].when.prefix_file
    assert listed is not None
    assert bytes([120, 32, 120, 128]) == listed.lengths


def test_problems_inside_a_list_file_have_its_places(tmp_path: Path) -> None:
    """A bad line is told as list file, line and column, after the problems of the rules file."""
    (tmp_path / "list").write_bytes(b"# a list\n10.0.0.0/8\n  10.0.0.1/8 # why\n" + b"x" * 100 + b"\n")
    rules = "rules: [{id: a, when: {prefix_file: list}, action: bann}]"
    source = str(tmp_path / "rules.yaml")

    found = [message.removeprefix(f"{tmp_path}/") for message in messages(rules, source)]

    assert (
        "rules.yaml:1:52: action is 'bann', not 'allow', 'challenge', 'ban' or 'log'; did you mean 'ban'?" == found[0]
    )
    assert "list:3:3: prefix '10.0.0.1/8' has host bits set; write 10.0.0.0/8" == found[1]
    assert f"list:4:1: prefix '{'x' * 64}...' is 100 characters long; one prefix per line" == found[2]
    assert 3 == len(found)


PUBLISHED = """{
  "creationTime": "2026-11-26T12:00:00.000000",
  "prefixes": [{
    "ipv4Prefix": "66.249.64.0/27"
  }, {"ipv6Prefix": "2001:4860:4801:10::/64", "service": "prefixes"},
  {"ipv4Prefix": "192.0.2.0\\/28"}]
}"""


def test_lists_that_search_engines_publish(tmp_path: Path) -> None:
    """JSON with "prefixes" is told by its content, with a mark of byte order, too."""
    (tmp_path / "list").write_text("\ufeff\n" + PUBLISHED)
    rules = "rules: [{id: a, when: {prefix_file: list, outside_file: list}, action: ban}]"

    when = Ruleset.from_text(rules, source=str(tmp_path / "rules.yaml"), **ANY).rules[0].when

    assert when.prefix_file is not None
    assert bytes([96 + 27, 64, 96 + 28]) == when.prefix_file.lengths
    assert when.prefix_file == when.outside_file


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("64.0/27", "64.1/27", "4:5: prefix '66.249.64.1/27' has host bits set; write 66.249.64.0/27"),
        ("ipv6Prefix", "prefix", "5:6: entry has no ipv4Prefix or ipv6Prefix; "),
        ('"2001:4860:4801:10::/64"', "6", "5:6: entry has no ipv4Prefix or ipv6Prefix; "),
        ('"prefixes": [', '"ranges": [', "1:1: JSON has no list 'prefixes'; "),
        ('"prefixes": [{', '"prefixes": [7, {', "3:16: entry has no ipv4Prefix or ipv6Prefix; "),
        ("  }, {", "  } {", "5:5: list is not JSON: expecting ',' delimiter; "),
        ("66.249", "x" * 1000, "4:5: prefix 'xxx"),
    ],
)
def test_problems_inside_a_published_list_have_their_places(tmp_path: Path, old: str, new: str, expected: str) -> None:
    """What is wrong with JSON or an entry of it is told as list file, line and column."""
    (tmp_path / "list").write_text(PUBLISHED.replace(old, new))

    (found,) = messages("rules: [{id: a, when: {prefix_file: list}, action: ban}]", str(tmp_path / "rules.yaml"))

    assert found.removeprefix(f"{tmp_path}/list:").startswith(expected)
    assert len(found) < 500


def test_deeply_nested_json_is_told_where_it_is_named(tmp_path: Path) -> None:
    """Brackets without end are no crash."""
    (tmp_path / "list").write_text('{"prefixes": ' + "[" * 1_000_000)

    (found,) = messages("rules: [{id: a, when: {prefix_file: list}, action: ban}]", str(tmp_path / "rules.yaml"))

    assert "1:37: list file 'list' cannot be read: JSON that cannot be read" in found


@pytest.mark.parametrize("text", ["# nothing yet\n", '{"prefixes": []}'])
def test_outside_of_an_empty_list_is_refused(tmp_path: Path, text: str) -> None:
    """A list that lost its entries must not make everyone an outsider; inside of it is nobody, which is harmless."""
    (tmp_path / "list").write_text(text)
    (tmp_path / "full").write_text("192.0.2.0/24\n")
    rules = "rules: [{id: a, when: {outside_file: [full, list], header: {a: b}}, action: ban}]"

    (found,) = messages(rules, str(tmp_path / "rules.yaml"))

    assert "rules.yaml:1:23: a file under outside_file has no prefixes, so all addresses are outside" in found
    Ruleset.from_text(rules.replace("outside_file", "prefix_file"), source=str(tmp_path / "rules.yaml"), **ANY)


def test_damaged_list_is_told_where_it_is_named(tmp_path: Path) -> None:
    """A gzip file cut short cannot be read, and the rule that names it says so."""
    (tmp_path / "list.gz").write_bytes(gzip.compress(b"10.0.0.0/8\n" * 1000)[:-20])
    rules = "rules: [{id: a, when: {prefix_file: list.gz}, action: ban}]"

    (found,) = messages(rules, str(tmp_path / "rules.yaml"))

    assert "1:37: list file 'list.gz' cannot be read: damaged gzip data" in found


def test_load_reads_a_file_or_says_why_not(tmp_path: Path) -> None:
    """A missing file and one that is not UTF-8 are rule errors with a place."""
    path = tmp_path / "rules.yaml"
    with pytest.raises(RuleError, match=r"rules\.yaml: cannot be read: no such file or directory"):
        Ruleset.load(path, **ANY)
    path.write_bytes(b"rules: []\n# \xff")
    with pytest.raises(RuleError, match=r"rules\.yaml:2:3: byte 0xff is not UTF-8"):
        Ruleset.load(path, **ANY)
    path.write_bytes(b"\xef\xbb\xbfrules: []\n")

    assert () == Ruleset.load(path, **ANY).rules
