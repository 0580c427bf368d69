"""Rules on headers, method, path and fingerprint: against the oracle, the value cache under a flood, threads, files."""

from __future__ import annotations

import ipaddress
import random
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gobanfast import Engine, RuleError, Ruleset, fingerprint
from gobanfast._core.headers import HeaderPlan
from gobanfast._core.request_table import RequestTable
from oracle.requests import OracleRequest
from oracle.rules import OracleNetworks, OracleRule, OracleSignals, decide
from rules_fakes import FakeAsnTable
from rules_strategies import AGENTS, AUTHORITIES, HOSTS, NAMES, PATHS, addresses, as_text, networks, request_rules

ANY: dict[str, Any] = {"asn": FakeAsnTable()}

agents = st.sampled_from(AGENTS).map(lambda text: text.encode("latin-1")) | st.just("caf\xe9".encode())
headers = st.lists(
    st.tuples(st.sampled_from([b"user-agent", b"Accept", b"x-a", b"cookie", b"b"]), agents)
    | st.sampled_from(AUTHORITIES).map(lambda text: (b"Host", text.encode()))
    | st.sampled_from(
        [
            (b":authority", b"a.example"),
            (b":method", b"POST"),
            (b":path", b"/admin/x"),
            (b"x-a", b"\0"),
            (b":path", b"/a?c"),
        ]
    ),
    max_size=4,
).map(tuple)
names = st.none() | st.sampled_from([*HOSTS, *NAMES])
requests = st.builds(
    OracleRequest,
    st.none() | headers,
    st.none() | st.sampled_from(["GET", "POST", "", "a b"]),
    st.none() | st.sampled_from(PATHS),
    st.sampled_from(["", "", "/app", "/app/v1/"]),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    rules=request_rules(),
    table=networks,
    asked=st.lists(st.tuples(st.none() | addresses, requests, names), min_size=1, max_size=12),
)
def test_decisions_equal_asking_every_rule(
    rules: list[OracleRule], table: OracleNetworks, asked: list[tuple[str | None, OracleRequest, str | None]]
) -> None:
    """Winner, shadow and log rules for address, server name and request are those of the slow scan, cached or not."""
    with tempfile.TemporaryDirectory() as directory:
        source = str(Path(directory) / "rules.yaml")
        ruleset = Ruleset.from_text(as_text(rules, Path(directory)), source=source, asn=FakeAsnTable(table))  # type: ignore[arg-type]
    engine = Engine(ruleset)
    for address, request, sni in [*asked, *asked]:
        plain = address and str(getattr(ipaddress.ip_address(address), "ipv4_mapped", None) or address)
        winner, shadow, logged = decide(rules, plain, table, OracleSignals(sni, request=request))
        decision = engine.decide(plain, sni=sni, headers=request.headers, method=request.method, path=request.path,
                                 mount=request.mount)  # fmt: skip
        assert (winner, logged) == (decision.rule, list(decision.logged))
        assert [name for name in shadow if name in decision.shadow] == list(decision.shadow)
        assert engine.explain(decision)
        assert decide(rules, plain, table)[0] == engine.peek(plain).rule


def engine_of(*rules: str, head: str = "") -> Engine:
    lines = "".join(f"- {{id: r{number}, when: {{{when}}}, action: ban}}\n" for number, when in enumerate(rules))
    return Engine(Ruleset.from_text(f"{head}rules:\n{lines}", **ANY))


def agent(text: str) -> dict[str, Any]:
    return {"headers": [(b"user-agent", text.encode())]}


def test_unknown_headers_are_not_absent_ones() -> None:
    """A frontend that knows no headers is not a client without them."""
    engine = engine_of("header: {user-agent: absent}")

    assert None is engine.decide("192.0.2.1").rule
    assert None is engine.decide("192.0.2.1", method="GET", path="/").rule
    assert "r0" == engine.decide("192.0.2.1", headers=[]).rule
    assert "r0" == engine.decide("192.0.2.1", headers={}).rule


@pytest.mark.parametrize(
    ("request_of", "reason"),
    [
        ({"headers": [(b"a", b"\0")]}, "malformed-headers"),
        ({"headers": [(b"a", b"")] * 10_000}, "malformed-headers"),
        ({"headers": [(b"a", b"b" * (1 << 20))]}, "malformed-headers"),
        ({"headers": [(b":authority", b"a"), (b"host", b"b")]}, "malformed-headers"),
        ({"headers": [(b":method", b"GET")], "http": "1.1"}, "malformed-headers"),
        ({"headers": [(b"A", b"b")], "http": "2"}, "malformed-headers"),
        ({"headers": [(b"A", b"b"), (b"a", b"c")], "http": "1.1"}, None),
        ({"method": "G T"}, "malformed-method"),
        ({"method": "\ud800"}, "malformed-method"),
        ({"path": "a"}, "malformed-path"),
        ({"path": "/\n"}, "malformed-path"),
        ({"path": "/\ud800"}, "malformed-path"),
        ({"path": ""}, "malformed-path"),
        ({"path": "/" * 65537}, "malformed-path"),
        ({"headers": [(b"a", b"\0")], "path": "a", "method": ""}, "malformed-headers"),
    ],
    ids=str,
)
def test_policy_decides_about_unreadable_requests(request_of: dict[str, Any], reason: str | None) -> None:
    """When no rule decides and what rules require cannot be read, `unparsable` does and the reason says so."""
    engine = engine_of("header: {x: y}", "method: PUT", "path: /x", head="unparsable: ban\n")
    silent = engine_of("prefix: 10.0.0.0/8", head="unparsable: ban\n")

    decision = engine.decide("192.0.2.1", **request_of)

    assert ("ban" if reason else "allow", reason) == (decision.action, decision.reason)
    assert None is silent.decide("192.0.2.1", **request_of).reason


def test_a_shape_is_of_the_request_and_no_agent_changes_it() -> None:
    """A rule on a shape holds for requests that ask in that way, whatever their user agent; not by another version, nor
    for other headers; and decisions, columns and `explain` say the same."""
    pairs = [(b"user-agent", b"x/1"), (b"accept", b"*/*")]
    engine = engine_of(f"shape: '{HeaderPlan().shape(pairs, '1.1')}'")
    said = engine.decide(None, headers=[(b"user-agent", b"y/2"), pairs[1]], http="1.1")

    assert ("r0", HeaderPlan().shape(pairs, "1.1")) == (said.rule, said.shape)
    assert said.shape in engine.explain(said)
    assert None is engine.decide(None, headers=pairs, http="2").rule
    assert None is engine.decide(None, headers=pairs[::-1], http="1.1").rule
    assert None is engine.decide(None, headers=None).rule
    columns = engine.decide_many(["192.0.2.1"] * 3, shape=[said.shape, None, "gs1:" + "0" * 32])
    assert [0] == [i for i, rule in enumerate(columns.rule.tolist()) if rule == 0]


def test_fingerprints_are_those_of_the_ruleset() -> None:
    """A rule lists fingerprints as the `fingerprint:` section makes them."""
    pairs = [(b"user-agent", b"curl/8"), (b"accept", b"*/*")]
    plain, keyed = fingerprint(pairs), fingerprint(pairs, key=b"0123456789abcdef", fields=["accept"])
    section = "fingerprint: {key: 0123456789abcdef, fields: [accept]}\n"

    assert "r0" == engine_of(f"fingerprint: '{plain}'").decide(None, headers=pairs).rule
    assert None is engine_of(f"fingerprint: '{plain}'", head=section).decide(None, headers=pairs).rule
    assert "r0" == engine_of(f"fingerprint: '{keyed}'", head=section).decide(None, headers=pairs).rule


def test_compiled_rules_ask_the_same(tmp_path: Path) -> None:
    """Rules saved and loaded decide as before, with the same content hash; other conditions have another."""
    first = engine_of("header: {user-agent: {regex: 'a+', suffix: b}}, path: [/x/**]", "header: {cookie: [absent, c]}")
    other = engine_of("header: {user-agent: {regex: 'a+', suffix: c}}, path: [/x/**]", "header: {cookie: [absent, c]}")
    first.ruleset.save(tmp_path / "rules.gbf")

    loaded = Engine(Ruleset.load(tmp_path / "rules.gbf"))

    for request in ({**agent("xaab"), "path": "/x/y"}, agent("a"), {"headers": [(b"cookie", b"d")]}, {}):
        assert first.decide(None, **request).matched == loaded.decide(None, **request).matched
    assert first.ruleset.content_hash == loaded.ruleset.content_hash != other.ruleset.content_hash


def test_a_value_is_worked_out_once() -> None:
    """Regexes run for the first request with a value and for none after it, however many rules have them."""
    engine = engine_of(*[f"header: {{user-agent: {{regex: 'bot{number}'}}}}" for number in range(70)])
    table = engine.compiled.requests
    assert table is not None

    for _ in range(1000):
        assert ("r3", "r33") == engine.decide(None, **agent("bot33 bot3x")).matched

    assert 1 == table.evaluations


@pytest.mark.parametrize("twice", [False, True])
def test_a_flood_of_values_costs_one_evaluation_each_and_no_memory(twice: bool) -> None:
    """Under distinct values the cache stays as large as it is; values in steady use stay in it."""
    engine = engine_of("header: {user-agent: {contains: evil}}")
    table = engine.compiled.requests
    assert table is not None
    before, flood, used = table.nbytes, 60_000, 20
    regulars = [f"regular {number}" for number in range(used)]
    worked_out = 0
    for number in range(flood):
        engine.decide(None, **agent(f"flood {number}"))
        if twice:
            engine.decide(None, **agent(f"flood {number}"))
        regular = regulars[number % used]
        before_regular = table.evaluations
        assert None is engine.decide(None, **agent(regular)).rule
        worked_out += table.evaluations - before_regular

    assert before == table.nbytes <= 1.1 * 2**20
    assert worked_out <= used + flood // 100
    assert table.evaluations <= used + flood + flood // 100


@pytest.mark.parametrize("words", [1, 3])
def test_cache_answers_like_no_cache(words: int) -> None:
    """A small cache that is always full gives the rows that its matcher gives."""
    rows = [random.Random(number).randbytes(8 * words) for number in range(40)]
    plan, all_bits = HeaderPlan(("x",)), b"\xff" * (8 * words)
    table = RequestTable(
        plan, words, [("x", *[all_bits] * 4, lambda value: rows[int(value) % 40], True)], "", cache_bytes=0
    )
    calls = []
    small = RequestTable(
        plan, words, [("x", *[all_bits] * 4, lambda value: calls.append(value) or rows[int(value) % 40], True)],
        "", cache_bytes=0,
    )  # fmt: skip
    source = random.Random(1)
    for _ in range(20_000):
        value = source.randrange(400)
        assert rows[value % 40] == small.row([(b"x", str(value).encode())])

    assert table.nbytes == small.nbytes
    assert len(calls) == small.evaluations < 20_000


def test_threads_get_whole_rows() -> None:
    """While many threads fill a tiny cache, nobody gets a mixture of two rows."""
    rows = [bytes([number]) * 8 * 20 for number in range(97)]
    all_bits = b"\xff" * (8 * 20)
    table = RequestTable(
        HeaderPlan(("x",)), 20, [("x", *[all_bits] * 4, lambda value: rows[int(value) % 97], True)], "",
        cache_bytes=0,
    )  # fmt: skip
    wrong: list[int] = []

    def ask(seed: int) -> None:
        source = random.Random(seed)
        for _ in range(20_000):
            number = source.randrange(1000)
            if table.row([(b"x", b"%d" % number)]) != rows[number % 97]:
                wrong.append(number)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [] == wrong


def test_a_matcher_may_change_the_headers() -> None:
    """Nothing that was borrowed from the headers is read once Python code may have changed them."""
    pairs = [(b"x", bytes(bytearray(b"one" * 50))), (b"y", bytes(bytearray(b"two" * 50)))]
    seen: list[bytes] = []

    def matcher(value: bytes) -> bytes:
        pairs.clear()
        seen.append(value)
        return b"\xff" * 8

    row = b"\xff" * 8
    table = RequestTable(HeaderPlan(("x", "y")), 1, [(name, *[row] * 4, matcher, True) for name in ("x", "y")], "")

    assert row == table.row(pairs)
    assert [b"one" * 50, b"two" * 50] == seen


def test_errors_of_a_matcher_come_out() -> None:
    """A matcher that raises, or answers with a row of another length, is an error; the next request is answered."""
    row, answers = b"\xff" * 8, [b"", b"\1" * 8]
    table = RequestTable(HeaderPlan(("x",)), 1, [("x", *[row] * 4, lambda _: answers.pop(0), True)], "")
    with pytest.raises(ValueError, match="row of a value does not fit"):
        table.row([(b"x", b"a")])
    assert b"\1" * 8 == table.row([(b"x", b"a")])
    with pytest.raises(IndexError):
        table.row([(b"x", b"b")])
    with pytest.raises(ValueError, match="rows of requests do not fit"):
        RequestTable(HeaderPlan(("x",)), 2, [("x", *[row] * 4, lambda _: row, True)], "")


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ("header: {}", "header has no header name; write header: {user-agent: {contains: bot}}"),
        ("header: {user-agent: {}}", "header has no condition; write present: true for any value"),
        ("header: {user-agent: {containz: x}}", "unknown key 'containz'; did you mean 'contains'?"),
        ("header: {a b: x}", "header 'a b' is not a header name; write a-b, 1 to 64 characters"),
        ("header: {':path': x}", "header ':path' is a pseudo header; write method: or path: under when:"),
        (
            "header: {a: {absent: true, equals: b}}",
            "absent is combined with an operator on the value; remove one of them",
        ),
        ("header: {a: 1}", "value 1 is not text; quote it"),
        ("header: {a: ' b'}", "value ' b' has surrounding blanks, which are not part of a header value; write 'b'"),
        ("header: {a: {regex: '('}}", "regex '(' is not valid: "),
        ("header: {a: {regex: '(?=x)'}}", "regex '(?=x)' is not valid: "),
        ("path: admin", "path 'admin' is not a path; write /admin or /admin/**"),
        ("path: '/a?b=c'", "path '/a?b=c' has a query; rules see the path without it"),
        ("path: {regexp: x}", "unknown key 'regexp'; did you mean 'regex'?"),
        ("path: {}", "path has no condition; write path: /admin/**"),
        ("path: []", "an empty list matches nothing; remove the condition or give it a value"),
        ("method: get", "method 'get' is in lower case, and methods are case-sensitive; write GET"),
        ("method: 'a b'", "method 'a b' is not an HTTP method; write GET or POST"),
        (
            "shape: gh2:00000000000000000000000000000000",
            "shape 'gh2:00000000000000000000000000000000' is not a shape; expected gs1: and 32 hex digits",
        ),
        ("fingerprint: gh2:zz", "fingerprint 'gh2:zz' is not a fingerprint; expected gh2: and 32 hex digits"),
        ("ua_family: ie", "ua_family 'ie' is not one of bot, edge, "),
        ("headers: {a: b}", "unknown key 'headers'; did you mean 'header'?"),
    ],
)
def test_errors_in_rules(when: str, message: str) -> None:
    """What cannot be a condition is told with its place and a hint."""
    with pytest.raises(RuleError) as caught:
        engine_of(when)

    assert str(caught.value).startswith("<string>:2:")
    assert message in str(caught.value)


@pytest.mark.parametrize("words", ["absent_or_empty", "[absent, absent_or_empty]", "{absent_or_empty: true}"])
def test_absent_or_empty(words: str) -> None:
    """A header that is not there, and one without a value: both, and no other; unknown headers are neither."""
    engine = engine_of(f"header: {{user-agent: {words}}}")
    given: list[tuple[list[tuple[bytes, bytes]] | None, str | None]] = [
        ([], "r0"), ([(b"user-agent", b"")], "r0"), ([(b"user-agent", b" \t")], "r0"), ([(b"user-agent", b"x")], None),
        ([(b"user-agent", b"absent_or_empty")], None), (None, None),
    ]  # fmt: skip

    assert [rule for _, rule in given] == [engine.decide(None, headers=headers).rule for headers, _ in given]


def test_absent_or_empty_beside_a_value() -> None:
    """In a list the word is one of the values, and `equals` takes it as a text."""
    engine = engine_of("header: {a: [absent_or_empty, curl]}", "header: {a: {equals: absent_or_empty}}")
    decided = [engine.decide(None, headers=[(b"a", value)]).rule for value in (b"", b"CURL", b"absent_or_empty", b"x")]

    assert ["r0", "r0", "r1", None] == decided
    assert "r0" == engine.decide(None, headers=[]).rule


def test_all_errors_at_once() -> None:
    """Two bad headers of one rule are two problems."""
    with pytest.raises(RuleError) as caught:
        engine_of("header: {a: {regex: '('}, b: {prefix: ''}}, method: get")

    assert 3 == len(caught.value.problems)


def test_too_many_headers_are_refused() -> None:
    """Rules may require as many headers as there are slots; one more is an error that names it."""
    whens = [f"header: {{h{number}: x}}" for number in range(49)]
    assert "r48" == engine_of(*whens).decide(None, headers=[(b"h48", b"X")]).rule

    with pytest.raises(RuleError, match=r"header '[a-z0-9-]+' is one too many"):
        engine_of(*[f"header: {{h{number}: x}}" for number in range(60)])
