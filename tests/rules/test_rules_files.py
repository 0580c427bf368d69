"""Rules over several files: includes, sets, inline tests, trust, and what a ruleset was read from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gobanfast import RuleError
from gobanfast._core.engine_core import EngineCore
from gobanfast.rules import Ruleset
from gobanfast.rules.check.explain import explain
from gobanfast.rules.sources import Inputs
from rules_fakes import FakeAsnTable

ANY: dict[str, Any] = {"asn": FakeAsnTable()}
OLD = sorted((Path(__file__).parents[1] / "cases").glob("rules_v*/*.yaml"))


def write(directory: Path, **files: str) -> Path:
    """Files by name with `__` for a slash and `.yaml` added; the path of rules.yaml."""
    for name, text in files.items():
        path = directory / (name.replace("__", "/") + ".yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return directory / "rules.yaml"


def rule(name: str, when: str = "any", action: str = "challenge") -> str:
    return f"{{id: {name}, when: {when}, action: {action}}}"


def messages(path: Path) -> list[str]:
    """What is wrong with the rules in `path`, with paths relative to it."""
    with pytest.raises(RuleError) as caught:
        Ruleset.load(path, **ANY)
    return [str(problem).replace(f"{path.parent}/", "") for problem in caught.value.problems]


def test_included_rules_come_after_in_natural_order(tmp_path: Path) -> None:
    """A file's own rules come first, then those of what it includes: entries as listed, globs by number."""
    path = write(
        tmp_path,
        rules=f"include: [last.yaml, 'rules.d/*.yaml']\nrules: [{rule('own')}]",
        last=f"rules: [{rule('last')}]",
        rules__d="",
    )
    (tmp_path / "rules.d").mkdir()
    for number in (10, 9, 100):
        (tmp_path / f"rules.d/{number}-a.yaml").write_text(f"rules: [{rule(f'r{number}')}]")

    assert ["own", "last", "r9", "r10", "r100"] == [found.id for found in Ruleset.load(path, **ANY).rules]


def test_included_files_have_their_own_places_and_directories(tmp_path: Path) -> None:
    """List files are relative to the file that names them; rules and problems know their file."""
    path = write(tmp_path, rules="include: sub/part.yaml", sub__part="rules: [{id: a, when: {prefix_file: list}}]")
    (tmp_path / "sub/list").write_text("192.0.2.0/24\nx\n")

    assert ["sub/part.yaml:1:9: missing key 'action'", "sub/list:2:1: prefix 'x' has no IPv4 or IPv6 address"] == [
        message.partition(";")[0] for message in messages(path)
    ]
    (tmp_path / "sub/list").write_text("192.0.2.0/24\n")
    (tmp_path / "sub/part.yaml").write_text("rules:\n- {id: a, when: {prefix_file: list}, action: ban}")
    (found,) = Ruleset.load(path, **ANY).rules

    assert (str(tmp_path / "sub/part.yaml"), 2, 3) == (found.source, found.line, found.column)


def test_problems_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    """Broken, missing, doubled and circular files are problems at the `include:` entry, beside all others."""
    path = write(
        tmp_path,
        rules=f"include:\n- a.yaml\n- missing.yaml\n- broken.yaml\n- a.yaml\n- none/*.yaml\nrules: [{rule('x')}]",
        a=f"include: rules.yaml\nunparsable: ban\nrules: [{rule('y')}]",
        broken=f"rules: [{rule('x')}, {{id: z}}]\nrules: []",
    )

    assert [
        "rules.yaml:3:3: 'missing.yaml' cannot be read: no such file or directory",
        "rules.yaml:5:3: 'a.yaml' is included twice; first by rules.yaml:2",
        "a.yaml:1:10: include goes round: rules.yaml -> a.yaml -> rules.yaml",
        "a.yaml:2:1: unknown key 'unparsable'; 'unparsable' belongs in the file that includes this one",
        "broken.yaml:2:1: duplicate key 'rules'; first on line 1",
    ] == messages(path)


def test_include_depth_and_duplicate_ids(tmp_path: Path) -> None:
    """Includes nest eight deep; an id is one of a kind over all files."""
    files = {f"f{n}": f"include: f{n + 1}.yaml\nrules: [{rule(f'r{n}')}]" for n in range(9)}
    path = write(tmp_path, rules=f"include: f0.yaml\nrules: [{rule('r3')}]", **files)

    assert [
        "f3.yaml:2:14: duplicate id 'r3'; first at rules.yaml:2",
        "f7.yaml:1:10: includes are nested deeper than 8",
    ] == messages(path)


def test_sets_stand_for_their_values(tmp_path: Path) -> None:
    """`@name` is what the set lists under the same key, from any file, mixed with values; an idle set is told."""
    path = write(
        tmp_path,
        rules=f"""
include: sub/sets.yaml
rules:
- {rule("a", "{prefix: [198.51.100.0/24, '@office'], asn: '@office'}")}
- {rule("b", "{prefix_file: '@office', sni_file: '@bad', sni: ['@bad', b.example]}")}
""",
        sub__sets="""
sets:
  office: {prefix: [192.0.2.0/24, 2001:db8::/32], prefix_file: list, asn: [64500, 64501]}
  bad: {sni_file: names, sni: .evil.example}
  idle: {alpn: h2}
""",
    )
    (tmp_path / "sub/list").write_text("203.0.113.0/24\n")
    (tmp_path / "sub/names").write_text("c.example\n")

    ruleset = Ruleset.load(path, **ANY)
    first, second = (found.when for found in ruleset.rules)

    assert bytes([120, 120, 32]) == first.prefix.lengths
    assert ((64500, 64500), (64501, 64501)) == first.asn
    assert (bytes([120]), (".evil.example", "b.example")) == (second.prefix_file.lengths, second.sni)
    assert ["c.example"] == list(second.sni_file)
    assert ["unused-set"] == [problem.code for problem in ruleset.problems]
    assert "sub/sets.yaml:5:3: set 'idle' is not used" in str(ruleset.problems[0])


def test_outside_takes_the_prefixes_of_a_set(tmp_path: Path) -> None:
    """A set lists where an office is; `outside: "@office"` is everywhere else, known addresses only."""
    (tmp_path / "list").write_text("203.0.113.0/24\n")
    path = write(
        tmp_path,
        rules=f"""
sets:
  office: {{prefix: [192.0.2.0/24, 2001:db8::/32], prefix_file: list}}
rules:
- {rule("a", "{path: /admin/**, outside: ['@office', 198.51.100.7], outside_file: '@office'}")}
tests:
- {{address: 8.8.8.8, path: /admin/x, expect: challenge}}
- {{address: "2001:db9::1", path: /admin/x, expect: challenge}}
- {{address: "192.0.2.7", path: /admin/x, expect: allow}}
- {{address: "::ffff:192.0.2.7", path: /admin/x, expect: allow}}
- {{address: "2001:db8::1", path: /admin/x, expect: allow}}
- {{address: "198.51.100.7", path: /admin/x, expect: allow}}
- {{address: "203.0.113.7", path: /admin/x, expect: allow}}
- {{path: /admin/x, expect: allow}}
""",
    )
    ruleset = Ruleset.load(path, **ANY)

    assert [] == ruleset.failures() == list(ruleset.problems)
    decision = EngineCore(ruleset.compiled, ruleset.settings).peek("8.8.8.8", path="/admin/x")
    because = [line.split(maxsplit=1)[1] for line in explain(decision).split("\n") if "because" in line]
    assert [
        "outside: none of 3 prefixes covers the address",
        "outside_file: none of 1 prefixes covers the address",
        "path: '/admin/**' covers '/admin/x'",
    ] == because
    path.write_text("sets: {s: {asn: 1}}\nrules: [{id: a, when: {outside: '@s'}, action: ban}]")
    assert ["rules.yaml:2:33: set 's' has no prefix; it has asn, write '@s' there"] == messages(path)


def test_duplicate_sets_are_an_error(tmp_path: Path) -> None:
    """A set is defined once, over all files."""
    path = write(tmp_path, rules="include: a.yaml\nsets: {s: {alpn: h2}}\nrules: []", a="sets: {s: {alpn: h2}}")

    assert ["a.yaml:1:8: duplicate set 's'; first at rules.yaml:2"] == messages(path)


TESTED = """
rules:
- {id: friend, when: {prefix: 192.0.2.7}, action: allow}
- {id: net, when: {prefix: 192.0.2.0/24}, action: ban}
- {id: name, when: {sni: .evil.example}, action: challenge}
tests:
- {address: 192.0.2.7, expect: allow, rule: friend}
- {address: 192.0.2.8, expect: ban}
- {address: 203.0.113.1, sni: www.evil.example, expect: challenge, rule: name}
- {address: 203.0.113.1, expect: allow, rule: null}
"""


def test_inline_tests_pass_or_say_what_the_rules_say() -> None:
    """A test asks for an action, and for a rule if it names one; `rule: null` is "no rule decides"."""
    ruleset = Ruleset.from_text(TESTED, source="rules.yaml", **ANY)

    assert [] == ruleset.failures()
    broken = TESTED.replace("{address: 192.0.2.8, expect: ban}", "{address: 192.0.2.7, expect: ban}")
    broken = broken.replace("rule: null", "rule: net").replace("rule: friend", "rule: net")
    failures = [str(problem) for problem in Ruleset.from_text(broken, source="rules.yaml", **ANY).failures()]
    matching = "; rules that match, in order: "
    friend = f"the rules say allow by rule 'friend'{matching}friend, net"
    assert [
        f"rules.yaml:7:3: test expects allow by rule 'net', {friend}",
        f"rules.yaml:8:3: test expects ban, {friend}",
        f"rules.yaml:10:3: test expects allow by rule 'net', the rules say allow by no rule{matching}none",
    ] == failures


def test_trust_is_a_list_of_prefixes(tmp_path: Path) -> None:
    """`trust` takes prefixes, or prefixes and files; without it nobody is trusted."""
    (tmp_path / "list").write_text("203.0.113.0/24\n")
    rules = f"rules: [{rule('a')}]\n"
    source = str(tmp_path / "rules.yaml")

    assert b"" == Ruleset.from_text(rules, **ANY).trust.lengths
    assert bytes([104]) == Ruleset.from_text(rules + "trust: 10.0.0.0/8", **ANY).trust.lengths
    both = rules + "trust: {prefix: ['10.0.0.0/8', '2001:db8::/32'], prefix_file: list}"
    assert bytes([104, 32, 120]) == Ruleset.from_text(both, source=source, **ANY).trust.lengths
    (tmp_path / "list").write_text("10.0.0.0/8\n0.0.0.0/0\n")
    with pytest.raises(RuleError, match="a prefix of length 0 lets any peer claim any client address"):
        Ruleset.from_text(both, source=source, **ANY)


@pytest.mark.parametrize("path", OLD, ids=lambda path: path.parent.name + "/" + path.stem)
def test_files_of_every_version_keep_loading(path: Path) -> None:
    """A file that a released version took is taken for ever, and passes its own tests."""
    ruleset = Ruleset.load(path, **ANY)

    assert ruleset.rules
    assert [] == ruleset.failures()


def test_inputs_know_every_file_and_glob(tmp_path: Path) -> None:
    """A change of content, of a list, or of what a glob matches is a change; touching a file is none."""
    path = write(
        tmp_path,
        rules="include: [d/*.yaml, missing.yaml]",
        d__a="rules: [{id: a, when: {prefix_file: list}, action: ban}]",
    )
    (tmp_path / "d/list").write_text("192.0.2.0/24\n")
    inputs = Inputs()
    with pytest.raises(RuleError):
        Ruleset.load(path, inputs=inputs, **ANY)

    assert [tmp_path / "d/a.yaml", tmp_path / "d/list", tmp_path / "missing.yaml", path] == sorted(
        map(Path, inputs.files)
    )
    (tmp_path / "missing.yaml").write_text("rules: []")
    assert inputs.changed()
    inputs = Ruleset.load(path, **ANY).inputs
    signature = inputs.stat_signature()
    assert {str(tmp_path), str(tmp_path / "d")} == inputs.directories()
    for change, expected in (
        (path.touch, False),
        (lambda: (tmp_path / "d/list").write_text("192.0.2.0/25\n"), True),
        (lambda: (tmp_path / "d/list").write_text("192.0.2.0/24\n"), False),
        (lambda: (tmp_path / "d/b.yaml").write_text("rules: []"), True),
    ):
        change()
        assert signature != inputs.stat_signature()
        assert expected == inputs.changed()


def test_engine_reads_the_policy_from_the_ruleset() -> None:
    """`unparsable` reaches the compiled rules."""
    ruleset = Ruleset.from_text(f"unparsable: ban\nrules: [{rule('a', '{prefix: 192.0.2.0/24}')}]", **ANY)

    assert "ban" == EngineCore(ruleset.compiled, ruleset.settings).peek("junk").action
