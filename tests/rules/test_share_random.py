"""Random rules of several effects: what lint and explain say of them is true of decisions."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gobanfast import Engine, Ruleset
from gobanfast._core.headers import PartialHeaders
from gobanfast.rules.check.lint_full import findings
from gobanfast.rules.compile.request import Kinds, OriginRows, values_of
from gobanfast.rules.rule import HeaderTest, Negation
from oracle.requests import OracleRequest
from oracle.rules import OracleNetworks, OracleRule
from rules_fakes import FakeAsnTable
from share_strategies import ADDRESSES, as_text, requests, rulesets

NETWORKS = OracleNetworks((("10.0.0.0/8", 1), ("192.0.2.0/24", 3)), {1: "One", 3: "Three"})
DEAD = ("shadowed-rule", "contradictory-allow", "contradictory-refuse", "empty-rule")


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    rules=rulesets(),
    asked=st.lists(
        st.tuples(st.sampled_from(ADDRESSES), requests(), st.sampled_from([None, "app.example.com", "a..b"])),
        min_size=8, max_size=8,
    ),
)  # fmt: skip
def test_what_is_said_of_rules_is_true_of_decisions(
    rules: list[OracleRule], asked: list[tuple[str | None, OracleRequest, str | None]]
) -> None:
    """No rule decides that lint calls dead; every decision is explained, by the rules that decided it."""
    ruleset = Ruleset.from_text(as_text(rules), asn=FakeAsnTable(NETWORKS))  # type: ignore[arg-type]
    engine = Engine(ruleset)
    dead = {found.message.split("'")[1] for found in findings(ruleset, starter=False) if found.code in DEAD}
    for address, request, sni in asked:
        headers = None if request.headers is None else list(request.headers)
        if headers is not None and request.known is not None:
            headers = PartialHeaders(headers, request.known)
        decision = engine.peek(
            address, sni=sni, headers=headers, method=request.method, path=request.path, mount=request.mount,
            scheme=request.scheme, host=request.host,
        )  # fmt: skip
        text = engine.explain(decision)

        assert not dead & {decision.share_rule, decision.rule if decision.cause == "rule" else None}
        assert text.replace("\n", "").isprintable()
        for name in (decision.share_rule, *decision.share_shadow):
            assert name is None or f"rule {name!r}" in text
        assert all(f"by {name}, for which ask" in text for name in decision.varies)


@settings(max_examples=200, deadline=None)
@given(
    tests=st.lists(st.tuples(st.integers(1, 7), st.booleans(), st.integers(1, 2**20 - 1)), min_size=1, max_size=8),
    asked=st.integers(0, 3),
)
def test_rows_of_origins(tests: list[tuple[int, bool, int]], asked: int) -> None:
    """A rule holds where all its tests do, however many it has of each kind, and whichever groups match."""
    masks = {}
    for which, negated, mask in tests:
        values = tuple(f"https://{letter}.example" for place, letter in enumerate("abc") if which >> place & 1)
        test = HeaderTest(":origin", "exact", values, ())
        masks[Negation(":origin", (test,)) if negated else test] = mask
    matcher = OriginRows(masks, 1, Kinds(0, 0, 0))
    origin = f"https://{'abcd'[asked]}.example"

    expected = 2**64 - 1
    for test, mask in masks.items():
        if (origin in values_of(test)) == isinstance(test, Negation):
            expected &= ~mask

    assert expected.to_bytes(8, "little") == matcher(origin.encode())
    assert matcher.class_rows is not None
    number = matcher.native.find_text(origin)
    assert matcher(origin.encode()) == matcher.class_rows[8 * number : 8 * number + 8]
