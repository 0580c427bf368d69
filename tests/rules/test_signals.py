"""Signals besides the address: decisions by name and hello against the oracle, list files, policy, what is refused."""

from __future__ import annotations

import gzip
import ipaddress
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gobanfast import Engine, RuleError, Ruleset
from gobanfast._core.client_hello import ClientHello, parse_client_hello
from gobanfast._core.compiled_rules import CompiledRules
from gobanfast._core.connection_table import ConnectionTable
from gobanfast.rules.text import fields
from gobanfast.rules.text.name_lists import read_names
from hellos import alpn, server_name, stream, versions
from oracle.rules import OracleHello, OracleNetworks, OracleRule, OracleSignals, decide, is_ja4
from rules_fakes import FakeAsnTable
from rules_strategies import HOSTS, JA4S, PROTOCOLS, addresses, as_text, networks, signal_rules

ANY: dict[str, Any] = {"asn": FakeAsnTable()}
LISTS = tomllib.loads((Path(__file__).parents[1] / "cases" / "name_lists.toml").read_text())["case"]
BAD_NAMES = ("", "a..b", "-.", "1.2.3.4", "caf\xe9.example", "a b", "\ud800", "x" * 300)


def hello(
    name: str | None = None, protocols: tuple[str, ...] = (), offered: tuple[int, ...] = (), ech: int | None = None
) -> ClientHello:
    """A hello that says this; ECH type 0 is outer, 1 inner."""
    extensions = []
    if name is not None:
        extensions.append(server_name(name.encode("utf-8", "surrogatepass")))
    if protocols:
        extensions.append(alpn(*(text.encode("latin-1") for text in protocols)))
    if offered:
        extensions.append(versions(*offered))
    if ech is not None:
        extensions.append((0xFE0D, b"\1" if ech else b"\0" + bytes(4) + b"\1" + b"\0\1x" + b"\0\1y"))
    return parse_client_hello(stream(extensions))


texts = st.sampled_from([*HOSTS, *BAD_NAMES])
hellos = st.builds(
    hello,
    st.none() | texts.filter(lambda text: text != ""),
    st.lists(st.sampled_from(PROTOCOLS), max_size=3).map(tuple),
    st.lists(st.sampled_from([0x0300, 0x0301, 0x0302, 0x0303, 0x0304, 0x0A0A]), max_size=3).map(tuple),
    st.sampled_from([None, 0, 1]),
)
requests = st.tuples(
    st.none() | texts, st.none() | hellos | st.just(parse_client_hello(b"GET / HTTP/1.1\r\n")),
    st.none() | st.sampled_from(JA4S),
)  # fmt: skip


def as_oracle(sni: str | None, said: ClientHello | None, ja4: str | None = None) -> OracleSignals:
    if said is None or said.status != "ok":
        return OracleSignals(sni, None if said is None else "malformed", ja4=ja4)
    name = None if said.sni_bytes is None else said.sni_bytes.decode("latin-1")
    return OracleSignals(sni, OracleHello(name, said.ja4 or "", said.alpn, said.version or 0, said.ech))


@settings(max_examples=40, deadline=None)
@given(
    rules=signal_rules(),
    table=networks,
    asked=st.lists(st.tuples(st.none() | addresses, requests), min_size=1, max_size=12),
)
def test_decisions_equal_asking_every_rule(
    rules: list[OracleRule], table: OracleNetworks, asked: list[tuple[str | None, Any]]
) -> None:
    """Winner, shadow and log rules for address, name and hello together are those of the slow scan."""
    with tempfile.TemporaryDirectory() as directory:
        source = str(Path(directory) / "rules.yaml")
        ruleset = Ruleset.from_text(as_text(rules, Path(directory)), source=source, asn=FakeAsnTable(table))  # type: ignore[arg-type]
    engine = Engine(ruleset)
    for address, (sni, said, ja4) in asked:
        plain = address and str(getattr(ipaddress.ip_address(address), "ipv4_mapped", None) or address)
        winner, shadow, logged = decide(rules, plain, table, as_oracle(sni, said, ja4))
        decision = engine.decide(plain, sni=sni, hello=said, ja4=ja4)
        assert (winner, logged) == (decision.rule, list(decision.logged))
        assert [name for name in shadow if name in decision.shadow] == list(decision.shadow)
        if winner is None:
            assert shadow == list(decision.shadow)
        assert engine.explain(decision)
        others_absent = decide(rules, plain, table)
        assert others_absent[0] == engine.peek(plain).rule


def test_a_hello_with_ech_says_so() -> None:
    """The hellos of this file are what they are meant to be."""
    assert ["outer", "inner", None] == [hello(ech=0).ech, hello(ech=1).ech, hello().ech]


def test_ja4_and_its_prefix() -> None:
    """A rule may name whole fingerprints, beginnings, or both, which then both must hold."""
    said = hello("a.example", ("h2",), (0x0304,))
    own = said.ja4 or ""
    rules = [("whole", {"ja4": own}), ("begins", {"ja4_prefix": own[:10]}), ("both", {"ja4": own, "ja4_prefix": "q"})]
    text = "rules:\n" + "".join(f"- {{id: {name}, when: {when}, action: ban}}\n" for name, when in rules)

    engine = Engine(Ruleset.from_text(text, **ANY))

    assert ("whole", "begins") == engine.decide("192.0.2.1", hello=said).matched
    assert () == engine.decide("192.0.2.1", hello=hello("a.example", ("h2", "dot"), (0x0303,))).matched
    assert () == engine.decide("192.0.2.1", sni="a.example").matched


TOLD = JA4S[0]
TOLD_RULES = f"""
unparsable: ban
rules:
- {{id: whole, when: {{ja4: {TOLD}}}, action: challenge}}
- {{id: begins, when: {{ja4_prefix: t13d15}}, action: ban}}
- {{id: more, when: {{ja4: {TOLD}, tls_version_below: 1.3}}, action: log}}
- {{id: any-hello, when: {{ech: [none, outer, inner]}}, action: log}}
tests:
- {{address: 192.0.2.1, ja4: {TOLD}, expect: challenge, rule: whole}}
- {{address: 192.0.2.1, ja4: t13d1516h2_8daaf6152771_02713d6af863, expect: ban, rule: begins}}
- {{ja4: nonsense, expect: ban, rule: null}}
"""


def test_a_told_ja4_stands_in_for_that_of_a_hello() -> None:
    """What a proxy tells satisfies conditions on the JA4 and nothing else of a hello; where there is one, that wins."""
    engine = Engine(Ruleset.from_text(TOLD_RULES, **ANY))
    said = hello("a.example", ("h2",), (0x0304,))

    told, both = engine.decide("192.0.2.1", ja4=TOLD), engine.decide("192.0.2.1", hello=said, ja4=TOLD)

    assert (("whole", "begins"), (), TOLD) == (told.matched, told.logged, told.ja4)
    assert ((), ("any-hello",), said.ja4) == (both.matched, both.logged, both.ja4)
    assert (None, None) == (engine.decide("192.0.2.1").ja4, engine.decide("192.0.2.1", sni="a.example").ja4)
    assert [] == engine.ruleset.failures()
    assert f"ja4: {TOLD!r} begins {TOLD!r}" in engine.explain(told)
    assert "malformed-hello" == engine.decide("192.0.2.1", hello=parse_client_hello(b"GET /"), ja4=TOLD).reason


@given(text=st.sampled_from(JA4S) | st.text(max_size=40) | st.builds(
    lambda at, char: TOLD[:at] + char + TOLD[at + 1:], st.integers(0, 35), st.sampled_from([*"0159adgqstGZ_-\0\xe9"])
))  # fmt: skip
def test_what_is_no_ja4_cannot_be_read(text: str) -> None:
    """A text without the shape is an unreadable signal where a rule requires it, absent where none does; what may stand
    in a rule has the shape."""
    asks = Engine(Ruleset.from_text(TOLD_RULES, **ANY))
    others = Engine(Ruleset.from_text("unparsable: ban\nrules: [{id: a, when: {alpn: h2}, action: ban}]\n", **ANY))

    decision = asks.decide("192.0.2.1", ja4=text)

    assert is_ja4(text) == (decision.reason != "malformed-ja4") == _may_stand_in_a_rule(text)
    assert is_ja4(text) or ("ban", "unparsable", text) == (decision.action, decision.cause, decision.ja4)
    assert "none" == others.decide("192.0.2.1", ja4=text).cause


def _may_stand_in_a_rule(text: str) -> bool:
    try:
        return fields.ja4(text) == text
    except ValueError:
        return False


NAMED = "unparsable: ban\nrules:\n- {id: evil, when: {sni: .evil.example}, action: challenge}\n"


def test_explicit_name_wins_over_the_hello() -> None:
    """`sni` decides when both are given; a Decision says the name it went by."""
    engine = Engine(Ruleset.from_text(NAMED, **ANY))
    said = hello("www.evil.example")

    by_hello, by_name = engine.decide(None, hello=said), engine.decide(None, sni="good.example", hello=said)

    assert ("evil", "www.evil.example", said) == (by_hello.rule, by_hello.sni, by_hello.hello)
    assert (None, "good.example", said) == (by_name.rule, by_name.sni, by_name.hello)


@pytest.mark.parametrize(
    ("address", "sni", "said", "action", "reason"),
    [
        ("192.0.2.1", "a..b", None, "ban", "malformed-sni"),
        ("192.0.2.1", None, hello("a..b"), "ban", "malformed-sni"),
        ("192.0.2.1", None, parse_client_hello(b"GET /"), "ban", "malformed-hello"),
        ("192.0.2.1", "good.example", parse_client_hello(b"GET /"), "allow", None),
        ("192.0.2.1", None, None, "allow", None),
        ("nonsense", "a..b", None, "ban", "malformed-address"),
        ("192.0.2.1", "www.evil.example", None, "challenge", ""),
    ],
)
def test_policy_decides_about_unreadable_signals(
    address: str, sni: str | None, said: ClientHello | None, action: str, reason: str | None
) -> None:
    """When no rule decides and a signal that rules require cannot be read, `unparsable` does and the reason says so."""
    decision = Engine(Ruleset.from_text(NAMED, **ANY)).decide(address, sni=sni, hello=said)

    assert (action, reason) == (decision.action, decision.reason)


def test_unreadable_signals_that_no_rule_asks_for_do_not_matter() -> None:
    """Rules without conditions on names are not asked what to do with a broken one."""
    engine = Engine(
        Ruleset.from_text("unparsable: ban\nrules: [{id: a, when: {prefix: 10.0.0.0/8}, action: ban}]", **ANY)
    )

    decision = engine.decide("192.0.2.1", sni="a..b", hello=parse_client_hello(b"GET /"))

    assert ("allow", None, "a..b") == (decision.action, decision.reason, decision.sni)


def test_misuse_raises() -> None:
    """Other types, and batches whose rules require more than a column of addresses holds."""
    engine = Engine(Ruleset.from_text(NAMED, **ANY))
    out = memoryview(bytearray(4)).cast("I")
    with pytest.raises(TypeError):
        engine.decide("192.0.2.1", sni=b"a.example")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        engine.decide("192.0.2.1", hello=b"\x16\x03")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        engine.decide("192.0.2.1", "a.example")  # type: ignore[misc]
    with pytest.raises(ValueError, match="rules evil ask for more than the address"):
        engine.leaves(["192.0.2.1"], out)
    engine.leaves(["192.0.2.1"], out, others_absent=True)
    assert engine.decide("192.0.2.1").rule == engine.decision(out[0]).rule
    text = "rules:\n" + "".join(f"- {{id: r{i}, when: any, action: log}}\n" for i in range(70))
    many = Ruleset.from_text(text, **ANY)
    arguments = many.overlay.arguments()
    with pytest.raises(ValueError, match="signals with 1 words a vector do not fit rules with 2"):
        CompiledRules(many.rules, unparsable="ban", signals=engine.ruleset.compiled.signals, **arguments)
    with pytest.raises(ValueError, match="arrays of signals do not fit each other"):
        ConnectionTable(
            words=1, asks=0, absent=b"", names=_no_names(), names_digest=bytes(16), name_rows=b"", hello_rows=b"",
            ja4_terms=b"", ja4_rows=b"", alpn_terms=b"", alpn_rows=b"", text=b"",
        )  # fmt: skip


def _no_names() -> Any:
    from gobanfast._core.name_table import NameTable

    return NameTable()


@pytest.mark.parametrize("case", LISTS, ids=lambda case: str(case["name"]))
def test_list_formats(case: dict[str, Any], tmp_path: Path) -> None:
    """Each line means what its format says, and every bad one is told with its place, all at once."""
    path = tmp_path / "names.txt"
    data = case["text"].encode()
    path.write_bytes(gzip.compress(data) if case.get("gzip") else data)

    names, problems = read_names(path)

    assert case["patterns"] == list(names)
    assert case.get("messages", []) == [str(problem).removeprefix(f"{tmp_path}/") for problem in problems]


def test_problems_in_lists_and_rules_come_together(tmp_path: Path) -> None:
    """One error carries what is wrong in the rules and in the lists they name."""
    (tmp_path / "names.txt").write_text("good.example\nbad..example\n\n||x\n")
    source = str(tmp_path / "rules.yaml")
    text = "rules:\n- {id: a, when: {sni_file: names.txt, sni: a..b}, action: ban}\n"
    text += "- {id: b, when: {sni_file: gone.txt}, action: ban}\n"
    with pytest.raises(RuleError) as caught:
        Ruleset.from_text(text, source=source, **ANY)

    hint, feed = "paths are relative to the rules file", "a feed of kind: name passes over the rest"
    assert [
        "rules.yaml:2:44: pattern 'a..b' is not a name: it has an empty label; write single dots",
        "rules.yaml:3:28: list file 'gone.txt' cannot be read: no such file or directory; " + hint,
        "names.txt:2:1: pattern 'bad..example' is not a name: it has an empty label; write single dots",
        "names.txt:4:1: AdBlock rule '||x' does not block whole domains; only ||name^ is read, " + feed,
    ] == [str(problem).removeprefix(f"{tmp_path}/") for problem in caught.value.problems]


def test_a_long_list_is_one_rule(tmp_path: Path) -> None:
    """Names of a list share one row whatever their number, and equal names in several rules count for each."""
    names = [f"n{number}.example" for number in range(20_000)]
    (tmp_path / "one.txt").write_text("\n".join(names))
    (tmp_path / "two.txt").write_text("||n7.example^\nN7.Example\n")
    text = """
rules:
- {id: one, when: {sni_file: one.txt}, action: ban}
- {id: two, when: {sni_file: two.txt}, action: ban}
- {id: both, when: {sni: "n7*.example", sni_file: one.txt}, action: ban}
"""
    ruleset = Ruleset.from_text(text, source=str(tmp_path / "rules.yaml"), **ANY)
    engine = Engine(ruleset)

    matched = {
        name: engine.decide(None, sni=name).matched
        for name in ("n7.example", "x.n7.example", "n70.example", "n8.example", "n.example")
    }

    assert {"n7.example": ("one", "two", "both"), "x.n7.example": ("two",), "n70.example": ("one", "both"),
            "n8.example": ("one",), "n.example": ()} == matched  # fmt: skip
    assert ruleset.nbytes < 60 * len(names)


def test_equal_rules_have_equal_hashes() -> None:
    """The hash is of what rules say: not of the secret key of a build, and another for another name."""
    first, second = (Ruleset.from_text(NAMED, **ANY) for _ in range(2))
    other = Ruleset.from_text(NAMED.replace("evil.example", "good.example"), **ANY)

    assert first.content_hash == second.content_hash != other.content_hash
    assert first.compiled.content_hash == second.compiled.content_hash != other.compiled.content_hash


def test_a_glob_past_the_budget_is_a_rule_error(tmp_path: Path) -> None:
    """A pattern that would need too many states is told at its rule, as every other mistake; in a list too."""
    wild = "[ab]{20}a[ab]{0,}.example"
    (tmp_path / "names.txt").write_text(wild)
    source = str(tmp_path / "rules.yaml")
    for when in (f"sni: '{wild}'", "sni_file: names.txt"):
        with pytest.raises(RuleError, match=r"rules.yaml:3:3: pattern '.*\[ab\]\{20\}.*': glob needs more than 16384"):
            Ruleset.from_text(
                f"rules:\n- {{id: a, when: any, action: log}}\n- {{id: b, when: {{{when}}}, action: ban}}\n",
                source=source,
                **ANY,
            )
