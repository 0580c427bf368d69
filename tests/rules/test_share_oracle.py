"""Rules of several effects: the compiled ones against asking every condition of every rule, as DESIGN.md has it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gobanfast import Engine, Ruleset
from gobanfast._core.headers import PartialHeaders
from oracle import headers as oracle_headers
from oracle import share as oracle
from oracle.requests import OracleRequest
from oracle.rules import OracleNetworks, OracleRule
from rules_fakes import FakeAsnTable
from share_strategies import ADDRESSES, as_text, requests, rulesets

REQUESTS = int(os.environ.get("GOBANFAST_REQUESTS", "1000"))
NETWORKS = OracleNetworks((("10.0.0.0/8", 1), ("192.0.2.0/24", 3)), {1: "One", 3: "Three"})
ASKED = 10  # requests of a ruleset


def engine_of(rules: list[OracleRule]) -> Engine:
    return Engine(Ruleset.from_text(as_text(rules), asn=FakeAsnTable(NETWORKS)))  # type: ignore[arg-type]


def arguments(request: OracleRequest) -> dict[str, Any]:
    """A request as `decide` takes it."""
    headers: Any = None if request.headers is None else list(request.headers)
    if request.known is not None and headers is not None:
        headers = PartialHeaders(headers, request.known)
    return {"headers": headers, "method": request.method, "path": request.path, "mount": request.mount,
            "scheme": request.scheme, "host": request.host}  # fmt: skip


def facts(decision: Any) -> oracle.Answer:
    return oracle.Answer(
        decision.action, decision.cause, decision.rule, decision.matched, decision.logged, decision.shadow,
        decision.share, decision.share_rule, decision.share_shadow, decision.varies, decision.preflight,
    )  # fmt: skip


def as_environ(request: OracleRequest) -> tuple[OracleRequest, dict[str, Any]] | None:
    """The request as a WSGI server gives it, and what can be seen of it then; None: one that a server refuses."""
    if request.headers is None or request.known is not None or request.method is None or request.path is None:
        return None
    found = oracle_headers.read(list(request.headers))
    names = [name.lower() for name, _ in request.headers]
    if found.problem is not None or any(name.startswith(b":") for name in names) or names.count(b"host") > 1:
        return None
    environ = oracle_headers.environ(list(request.headers)) | {"REQUEST_METHOD": request.method}
    joined = {name: found.value(name) or b"" for name in found.values}
    seen = OracleRequest(
        tuple((name.encode(), value) for name, value in joined.items()), request.method, request.path, request.mount,
        None, request.scheme, request.host,
    )  # fmt: skip
    return seen, environ


@settings(max_examples=max(REQUESTS // ASKED, 1), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    rules=rulesets(),
    asked=st.lists(
        st.tuples(st.sampled_from(ADDRESSES), requests(), st.sampled_from([None, "app.example.com", "a..b", "x.test"])),
        min_size=ASKED, max_size=ASKED,
    ),
)  # fmt: skip
def test_decisions_equal_asking_every_condition(
    rules: list[OracleRule], asked: list[tuple[str | None, OracleRequest, str | None]]
) -> None:
    """All effects of a decision are those of the slow scan: worked out or remembered, decided or peeked, of these rules
    or of the file that they were saved to, in pairs or in a WSGI environ."""
    engine = engine_of(rules)
    with tempfile.TemporaryDirectory() as directory:
        engine.ruleset.save(Path(directory) / "rules.gbf")
        loaded = Engine(Ruleset.load(Path(directory) / "rules.gbf"))
    assert engine.ruleset.content_hash == loaded.ruleset.content_hash
    for address, request, sni in asked:
        expected = oracle.decide(rules, request, address, sni, NETWORKS)
        given_as = arguments(request)
        assert expected == facts(engine.peek(address, sni=sni, **given_as))
        decision = engine.decide(address, sni=sni, **given_as)
        assert expected == facts(decision)
        assert expected == facts(loaded.decide(address, sni=sni, **given_as))
        assert (decision.share_headers != ()) == (decision.share == "granted")
        served = as_environ(request)
        if served is not None:
            seen, environ = served
            wanted = oracle.decide(rules, seen, address, sni, NETWORKS)
            assert wanted == facts(engine.decide(address, sni=sni, **given_as | {"headers": environ}))
