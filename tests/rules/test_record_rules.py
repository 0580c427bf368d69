"""Record rules: the rule that decides for each outcome, parents and strangers, what is stored, said and refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gobanfast import Engine, RuleError, Ruleset
from gobanfast._core.decision import record_rule_for
from gobanfast._core.enums import OUTCOMES
from gobanfast.rules.check.lint_full import findings
from gobanfast.rules.check.rules_diff import changes
from gobanfast.telemetry.sampling import parse_ot
from tests.oracle import record as oracle

RULES = """
trust: [10.0.0.0/8]
rules:
- {id: bad, when: {prefix: 192.0.2.0/24}, action: ban}
- {id: odd, when: {prefix: 198.51.100.0/24}, action: challenge}
trace: {propagators: [tracecontext, baggage, b3]}
record:
- {id: attacks, when: {outcome: [banned, challenged, limited, refused]}, action: always}
- {id: health, when: {path: /healthz}, action: never}
- {id: payments, when: {path: /pay/**}, action: rate, class: payment, controller: sla, weight: 0.9}
- {id: rest, when: any, action: rate, class: rest, probability: 25%}
"""
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRUSTED, STRANGER = "10.2.3.4", "203.0.113.4"
PATHS = ("/healthz", "/pay/1", "/x")


def engine(text: str = RULES) -> Engine:
    return Engine(Ruleset.from_text(text))


def decided(engine: Engine, address: str | None, path: str = "/x", **headers: str) -> Any:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return engine.decide(address, method="GET", path=path, headers=pairs)


def parent(sampled: bool = True, trace: str = TRACE) -> str:
    return f"00-{trace}-{SPAN}-0{int(sampled)}"


def test_the_first_rule_of_the_outcome_decides() -> None:
    rules = engine()

    found = [decided(rules, address, path) for address, path in (
        ("192.0.2.1", "/healthz"), ("198.51.100.1", "/x"), (STRANGER, "/healthz"), (STRANGER, "/pay/1"),
        (STRANGER, "/x"), (None, "/x"))]  # fmt: skip

    assert ["attacks", "attacks", "health", "payments", "rest", "rest"] == [one.record_rule for one in found]
    assert ["banned", "challenged", *["admitted"] * 4] == [one.outcome for one in found]
    assert [True, True, False] == [one.record for one in found[:3]]
    assert [1.0, 1.0, 0.0, 0.009, 0.25, 0.25] == [round(one.sampling_probability, 6) for one in found]
    assert (("rest",), ()) == (found[4].record_matched, found[4].record_shadow)
    assert {("always", "attacks"): 2, ("never", "health"): 1, ("rate", "payments"): 1, ("rate", "rest"): 2} == (
        rules.recorded()
    )


RULE = st.fixed_dictionaries({
    "action": st.sampled_from(["always", "never", "rate"]),
    "path": st.none() | st.sampled_from(PATHS),
    "outcome": st.none() | st.lists(st.sampled_from(OUTCOMES), min_size=1, max_size=3, unique=True),
    "probability": st.sampled_from([0.0, 0.01, 0.25, 0.5, 1.0]),
})  # fmt: skip
CAME = st.none() | st.builds(
    oracle.Came,
    st.binary(min_size=16, max_size=16).map(bytes.hex).filter(lambda text: int(text, 16) != 0),
    st.booleans(),
    st.none() | st.integers(0, 2**56 - 1),
    st.none() | st.integers(0, 2**56 - 1),
)


@given(rules=st.lists(RULE, max_size=4), path=st.sampled_from(PATHS), came=CAME, banned=st.booleans())
def test_against_the_oracle(rules: list[dict[str, Any]], path: str, came: oracle.Came | None, banned: bool) -> None:
    """The rule, the flag and `th` that go on; the trace id is the parent's, or one that explains the decision."""
    for number, rule in enumerate(rules):
        rule["id"] = f"r{number}"
    lines = [
        f"- {{id: {rule['id']}, when: {condition(rule)}, action: {rule['action']}"
        + (f", class: c{rule['id']}, probability: {rule['probability']}" if rule["action"] == "rate" else "") + "}"
        for rule in rules
    ]  # fmt: skip
    text = "trust: [0.0.0.0/1]\nrules: [{id: no, when: {prefix: 10.0.0.0/8}, action: ban}]\ntrace: {}\n"
    made = engine(text + ("record:\n" + "\n".join(lines) if lines else ""))
    headers: dict[str, str] = {}
    if came is not None:
        ot = (
            [f"th:{came.threshold:014x}".rstrip("0") if came.threshold else "th:0"]
            if came.threshold is not None
            else []
        )
        ot += [f"rv:{came.random:014x}"] if came.random is not None else []
        headers = {"traceparent": parent(bool(came.sampled), came.trace_id)}
        headers |= {"tracestate": "ot=" + ";".join(ot)} if ot else {}

    found = decided(made, "10.0.0.1" if banned else "1.2.3.4", path, **headers)

    matching = {rule["id"] for rule in rules if rule["path"] in (None, path)}
    expected = oracle.decide(rules, matching, found.outcome, came, found.trace.trace_id)
    threshold, random = parse_ot(found.trace.state("ot") or "")
    assert expected == oracle.Kept(found.record_rule, found.record, threshold)
    assert ("banned" if banned else "admitted") == found.outcome
    assert found.trace.sampled == (found.record if expected.rule or came is None else came.sampled)
    if came is not None:
        assert (came.trace_id, came.random) == (found.trace.trace_id, random)
        assert SPAN == found.trace.parent_id != found.trace.span_id


def condition(rule: dict[str, Any]) -> str:
    asked = [f"path: {rule['path']}"] if rule["path"] else []
    asked += [f"outcome: [{', '.join(rule['outcome'])}]"] if rule["outcome"] else []
    return "{" + ", ".join(asked) + "}" if asked else "any"


@pytest.mark.parametrize("frontend", ["pairs", "environ"])
def test_contexts_are_read_beside_the_rules(frontend: str) -> None:
    """Traceparent before B3, B3 in both forms with its undecided and its deny; ids of a trusted client stay."""
    rules = engine()

    def asked(**headers: str) -> Any:
        if frontend == "pairs":
            return decided(rules, TRUSTED, "/x", **headers)
        environ = {f"HTTP_{name.upper()}": value for name, value in headers.items()}
        return rules.decide(TRUSTED, headers={"REQUEST_METHOD": "GET", "PATH_INFO": "/x", **environ})

    both = asked(traceparent=parent(), b3=f"{'a' * 32}-{'b' * 16}-0", baggage="k=v")
    assert (TRACE, True, None) == (both.trace.trace_id, both.record, both.sampling_probability)
    assert (("k", "v", ()),) == both.trace.baggage
    single = asked(b3=f"{'a' * 32}-{'b' * 16}-0")
    assert ("a" * 32, False) == (single.trace.trace_id, single.record)
    multi = asked(x_b3_traceid="c" * 16, x_b3_spanid="b" * 16, x_b3_sampled="1")
    assert ("0" * 16 + "c" * 16, True) == (multi.trace.trace_id, multi.record)
    undecided = asked(b3=f"{'a' * 32}-{'b' * 16}")
    assert (0.25, "a" * 32) == (undecided.sampling_probability, undecided.trace.trace_id)
    assert [False] * 20 == [asked(b3="0").record for _ in range(20)]
    assert (TRACE, "a=1") == ((found := asked(traceparent=parent(), tracestate="a=1")).trace.trace_id,
                              found.trace.tracestate)  # fmt: skip
    twice = decided(rules, TRUSTED, "/x", traceparent=parent())
    assert (twice.trace, TRACE, "01") == (twice.trace, twice.trace_id, twice.trace_flags)


def test_whose_context_goes_on() -> None:
    """A client in `trust`; of others the trace begins anew, is linked, or goes on; `edge` is the peer's word."""
    stranger = decided(engine(), STRANGER, traceparent=parent(), tracestate="a=1", baggage="k=v")
    assert (None, None, ()) == (stranger.trace_link, stranger.trace.state("a"), stranger.trace.baggage)
    assert TRACE != stranger.trace.trace_id
    links = engine(RULES.replace("b3]}", "b3], from_untrusted: link}"))
    linked = decided(links, STRANGER, traceparent=parent(), tracestate="a=1", baggage="k=v")
    assert (TRACE, None, ()) == (linked.trace_link.trace_id, linked.trace.state("a"), linked.trace.baggage)
    assert TRACE != linked.trace.trace_id
    assert None is decided(links, TRUSTED, traceparent=parent()).trace_link
    goes = decided(engine(RULES.replace("b3]}", "b3], from_untrusted: continue}")), STRANGER, traceparent=parent())
    assert (TRACE, True) == (goes.trace.trace_id, goes.record)


def test_without_a_rule_the_context_goes_on_as_it_came() -> None:
    rules = engine("trust: [10.0.0.0/8]\ntrace: {}\nrules: []")
    passed = decided(rules, TRUSTED, traceparent=parent(), tracestate="a=1,ot=th:8")
    assert (False, None, None) == (passed.record, passed.record_rule, passed.sampling_probability)
    assert (TRACE, True, "a=1,ot=th:8") == (passed.trace.trace_id, passed.trace.sampled, passed.trace.tracestate)
    root = decided(rules, TRUSTED)
    assert (False, True, None) == (root.trace.sampled, root.trace.random, root.trace.parent_id)
    nothing = decided(engine("rules: [{id: a, when: any, action: log}]"), TRUSTED, traceparent=parent())
    assert (None, None, False, ()) == (nothing.trace, nothing.trace_id, nothing.record, nothing.record_matched)


def test_one_rule_of_several_thousand() -> None:
    """A thousand classes, each with a rule of its own, found by its path."""
    lines = [f"- {{id: r{n}, when: {{path: /{n}/**}}, action: rate, class: c{n}, probability: {n / 1000}}}"
             for n in range(1000)]  # fmt: skip
    rules = engine("record:\n" + "\n".join(lines))
    assert [("r0", 0.0), ("r64", 0.064), ("r999", 0.999)] == [
        ((found := decided(rules, STRANGER, f"/{n}/x")).record_rule, round(found.sampling_probability, 6))
        for n in (0, 64, 999)
    ]
    with pytest.raises(RuleError, match="1001 rate classes; 1000 are the most"):
        engine("record:\n" + "\n".join([*lines, "- {id: m, when: any, action: rate, class: m, probability: 1}"]))


def test_a_compiled_file_decides_alike(tmp_path: Path) -> None:
    ruleset = Ruleset.from_text(RULES)
    ruleset.save(tmp_path / "rules.gbf")
    loaded = Ruleset.load(tmp_path / "rules.gbf")
    assert ruleset.content_hash == loaded.content_hash
    one, two = Engine(ruleset), Engine(loaded)
    for address in ("192.0.2.1", TRUSTED, STRANGER):
        for path in PATHS:
            found, again = (decided(each, address, path, traceparent=parent()) for each in (one, two))
            assert (found.record_rule, found.sampling_probability) == (again.record_rule, again.sampling_probability)
            if address == TRUSTED:  # of a stranger it is drawn
                assert found.record == again.record
    other = Ruleset.from_text(RULES.replace("25%", "26%"))
    assert other.content_hash != ruleset.content_hash
    assert ["rest: probability 0.25 -> 0.26"] == [f"{c.name}: {', '.join(c.details)}" for c in changes(ruleset, other)]
    moved = Ruleset.from_text(RULES.replace("outcome: [banned, ", "outcome: ["))
    assert ["attacks: outcome -banned"] == [f"{c.name}: {', '.join(c.details)}" for c in changes(ruleset, moved)]
    assert moved.content_hash != ruleset.content_hash


def test_a_swap_takes_what_is_fixed_and_keeps_what_is_controlled() -> None:
    rules = engine()
    rates = rules.snapshot.rates
    assert rates is not None
    rates.set_threshold("payment", 7)
    rules.swap(Ruleset.from_text(RULES.replace("25%", "50%")))
    assert (7, 1 << 55) == (rates.threshold("payment"), rates.threshold("rest"))
    assert rates is rules.snapshot.rates
    assert 0.5 == decided(rules, STRANGER).sampling_probability
    rules.swap(Ruleset.from_text("rules: []"))
    assert decided(rules, STRANGER).trace is None


def test_grants_allow_the_headers_of_propagators() -> None:
    share = (
        "share:\n- {id: a, when: {path: /a}, action: grant}\n"
        "- {id: b, when: {path: /b}, action: grant, trace_headers: false}\n"
    )
    keeps = "record: [{id: r, when: any, action: rate, class: r, probability: 1%}]\n"

    def preflight(text: str, path: str, names: str) -> Any:
        headers = [(b"origin", b"https://x.example"), (b"access-control-request-method", b"GET"),
                   (b"access-control-request-headers", names.encode())]  # fmt: skip
        return engine(text).decide(STRANGER, method="OPTIONS", path=path, headers=headers)

    assert "granted" == preflight(share + keeps, "/a", "baggage,traceparent,tracestate").share
    assert "withheld" == preflight(share + keeps, "/b", "traceparent").share
    assert "withheld" == preflight(share + keeps, "/a", "b3").share
    assert "granted" == preflight(share + keeps + "trace: {propagators: [b3]}", "/a", "b3").share
    assert "withheld" == preflight(share + "trace: {}", "/a", "traceparent").share
    never = "record: [{id: r, when: any, action: never}]"
    assert "withheld" == preflight(share + never, "/a", "traceparent").share
    shadow = keeps.replace("action", "mode: shadow, action")
    assert "withheld" == preflight(share + shadow, "/a", "traceparent").share
    told = Engine(Ruleset.from_text(share + keeps))
    page = told.peek(STRANGER, method="GET", path="/a", headers=[(b"origin", b"https://x.example")])
    assert "the grant allows traceparent, tracestate, baggage" in told.explain(page)


def test_a_shadow_rule_is_told_and_decides_nothing() -> None:
    rules = engine(RULES.replace("{id: health,", "{id: health, mode: shadow,"))
    found = decided(rules, STRANGER, "/healthz")
    assert ("rest", ("health",)) == (found.record_rule, found.record_shadow)
    assert () == decided(rules, "192.0.2.1", "/x").record_shadow


def test_inline_tests_know_records() -> None:
    tests = """
tests:
- {address: 192.0.2.1, record: always, rule: attacks}
- {address: 203.0.113.9, path: /healthz, record: never}
- {address: 203.0.113.9, path: /pay/1, outcome: refused, record: always, rule: attacks}
- {address: 203.0.113.9, path: /pay/1, expect: allow, record: rate}
"""
    assert [] == Ruleset.from_text(RULES + tests).failures()
    wrong = "tests:\n- {address: 203.0.113.9, path: /healthz, record: always}\n"
    (problem,) = Ruleset.from_text(RULES + wrong).failures()
    assert "test expects always, the rules say never by rule 'health'" == problem.message
    assert "the request was admitted; record rules that match, in order: health, rest" == problem.hint


def test_the_rule_of_another_outcome() -> None:
    found = decided(engine(), STRANGER, "/healthz")
    assert ["health", "health", "health", "attacks", "attacks", "attacks", "attacks"] == [
        getattr(record_rule_for(found, outcome), "id", None) for outcome in OUTCOMES
    ]
    with pytest.raises(ValueError, match="outcome 'x' is not one of admitted, passed"):
        record_rule_for(found, "x")


MISTAKES = [
    ("{id: a, when: any, action: sample}", "action is 'sample', not 'always', 'never' or 'rate'; did you mean 'rate'?"),
    ("{id: a, when: any, action: rate}", "action 'rate' has no class; name the traffic"),
    ("{id: a, when: any, action: rate, class: c}", "controller 'fixed' has no probability; write probability: 1%"),
    ("{id: a, when: any, action: rate, class: c, probability: 2}", "probability 2 is out of range; write 0% to 100%"),
    ("{id: a, when: any, action: rate, class: c, probability: 101%}", "probability '101%' is out of range"),
    ("{id: a, when: any, action: always, probability: 1%}", "'probability' on action 'always', which has no rate"),
    ("{id: a, when: any, action: rate, class: c, controller: sla, probability: 1%}",
     "'probability' with controller 'sla', which does not ask for it; it takes weight"),
    ("{id: a, when: any, action: rate, class: 'c d', probability: 1%}", "class 'c d' is not valid"),
    ("{id: a, when: {outcome: denied}, action: always}", "outcome 'denied' is not one of admitted, passed"),
    ("{id: a, when: {not: {outcome: banned}}, action: always}", "only a rule under record: knows what became of"),
    ("{id: a, when: any, action: rate, class: c, controller: boost_on_error, probability: 50%, cap: 10%}",
     "cap 0.1 is below probability 0.5; swap them"),
    ("{id: a, when: any, action: rate, class: c, controller: target, per_second: 0}", "per_second '0' is out of range"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "said"), MISTAKES)
def test_mistakes_are_told(rule: str, said: str) -> None:
    with pytest.raises(RuleError) as caught:
        engine(f"record:\n- {rule}\n")
    assert said in str(caught.value)
    assert "<string>:2:" in str(caught.value)


def test_mistakes_of_other_places() -> None:
    rated = "- {{id: {}, when: any, action: rate, class: c, probability: {}}}\n"
    two = "record:\n" + rated.format("a", "1%") + rated.format("b", "2%")
    for text, said in (
        ("rules: [{id: a, when: any, action: always}]", "rules with the action always belong under record:"),
        ("rules: [{id: a, when: {outcome: banned}, action: log}]", "only a rule under record: knows"),
        ("rules: []\ntrace: {propagators: [w3c]}", "propagator 'w3c' is not known; write tracecontext, baggage"),
        ("rules: []\ntrace: {propagators: [b3, b3]}", "a propagator is listed twice"),
        ("rules: []\ntrace: {from_untrusted: trust}", "is 'trust', not 'restart', 'link' or 'continue'"),
        ("rules: []\ntrace: {internal: ['a b']}", "host 'a b' is no name"),
        (two, "class 'c' has another rate than in rule 'a'"),
    ):  # fmt: skip
        with pytest.raises(RuleError) as caught:
            engine(text)
        assert said in str(caught.value), text


def test_lint_sees_what_never_decides() -> None:
    found = findings(Ruleset.from_text(RULES + "- {id: late, when: {path: /late}, action: always}\n"), starter=False)
    assert ["rule 'late' can never decide: 'rest' before it match everything that it matches"] == [
        problem.message for problem in found if problem.code == "shadowed-rule"
    ]


LINES = st.lists(
    st.tuples(
        st.sampled_from(["traceparent", "Traceparent", "tracestate", "baggage", "b3", "x-b3-traceid", "X-B3-Sampled",
                         "user-agent", "x-other"]),
        st.sampled_from([parent(), parent(False), "00-bad", "a=1,ot=th:8", "b=2", "k=v", f"{'a' * 32}-{'b' * 16}-1",
                         "0", "", "é"]),
    ),
    max_size=6,
)  # fmt: skip
ALONE = "trust: [10.0.0.0/8]\ntrace: {propagators: [tracecontext, baggage, b3]}\n"


@given(lines=LINES)
def test_records_alone_read_what_is_read_beside_other_rules(lines: list[tuple[str, str]]) -> None:
    """Where nothing else is asked of the headers, a shorter walk reads the same of lists and environs."""
    asked = "rules: [{id: h, when: {header: {user-agent: {contains: nothing}}}, action: log}]\n"
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in lines]
    environ = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in lines}
    for headers in (pairs, {"REQUEST_METHOD": "GET", "PATH_INFO": "/", **environ}):
        alone, beside = (
            engine(ALONE + more).decide(TRUSTED, headers=headers, method="GET", path="/") for more in ("", asked)
        )
        came = alone.trace.parent_id is not None
        assert came == (beside.trace.parent_id is not None)
        assert (alone.trace.tracestate, alone.trace.baggage) == (beside.trace.tracestate, beside.trace.baggage)
        if came:
            assert (alone.trace_id, alone.trace.parent_id, alone.trace.sampled) == (
                beside.trace_id, beside.trace.parent_id, beside.trace.sampled)  # fmt: skip


def test_headers_of_another_kind_are_told_as_ever() -> None:
    alone = engine(ALONE)
    for headers, said in (
        ({"user-agent": "x"}, "headers is a dict and no WSGI environ"),
        ([("a", "b")], "header 0 is .* not a pair of bytes"),
        ("text", "headers is str, not a list"),
    ):
        with pytest.raises(TypeError, match=said):
            alone.decide(TRUSTED, headers=headers, method="GET", path="/")
