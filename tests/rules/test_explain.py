"""What `decide` takes, `explain` takes: nothing that a client can send makes it raise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from gobanfast import Engine, Ruleset
from gobanfast._core.client_hello import parse_client_hello
from gobanfast.telemetry.log import DecisionLog

RULES = """
unparsable: challenge
rules:
- {id: net, when: {prefix: 203.0.113.0/24}, action: ban}
- {id: name, when: {sni: [.bad.example, "re:x+[.]example", absent, malformed]}, action: challenge}
- {id: hello, when: {ja4_prefix: t13, alpn: [h2]}, action: challenge}
- {id: tool, when: {header: {user-agent: {contains: [curl, sqlmap]}}, path: [/x/**, "/%*"]}, action: ban, for: 1m}
- {id: host, when: {header: {host: {regex: "^[0-9.]+$"}}}, action: challenge}
- {id: verb, when: {method: [PUT, DELETE]}, action: log}
- {id: odd, when: {header: {accept: absent}}, action: challenge, mode: shadow}
"""
ENGINE = Engine(Ruleset.from_text(RULES))
HTTP = st.sampled_from(
    [None, "", "1", "1.0", "1.1", "2", "3", "9.9", "banana", "HTTP/1.1", "\ud800", "2.0", "0.9", "10"]
)
TEXT = st.text(st.characters(), max_size=12)
ODD = st.sampled_from(
    ["", "/x/y", "//x/%2e%2e/y?", "/%ff", "*", "http://a/x/y", "\ud800", "\0", "/" * 300, "PUT", "x" * 5000]
)
NAMES = st.sampled_from(
    [None, "", "a.bad.example", "xx.example", "A.BAD.EXAMPLE.", "..", "\udcff", "é.example", "192.0.2.1"]
)
HEADERS = st.none() | st.lists(
    st.tuples(
        st.sampled_from([b"user-agent", b"Host", b"host", b":path", b":method", b"accept", b"", b"a b"])
        | st.binary(max_size=6),
        st.sampled_from([b"curl/8", b"192.0.2.1", b"\xff", b"", b"a\0b"]) | st.binary(max_size=8),
    ),
    max_size=6,
)
ADDRESSES = st.sampled_from(
    [None, "", "192.0.2.1", "203.0.113.9", "::ffff:203.0.113.9", "fe80::1%eth0", "1.2.3.4 ", "\ud800"]
)
HELLO = st.none() | st.binary(max_size=60).map(parse_client_hello)


@given(
    address=ADDRESSES | TEXT,
    signals=st.fixed_dictionaries(
        {"sni": NAMES | TEXT, "ja4": st.none() | st.sampled_from(["", "t13d1516h2_8daaf6152771_02713d6af862"]) | TEXT,
         "hello": HELLO, "headers": HEADERS, "method": st.none() | ODD | TEXT, "path": st.none() | ODD | TEXT,
         "http": HTTP}
    ),
)  # fmt: skip
def test_every_decision_is_explained(address: str | None, signals: dict[str, Any]) -> None:
    """Also for versions, methods, paths, names and addresses that are none; and nothing unprintable comes out."""
    decision = ENGINE.decide(address, **signals)  # type: ignore[arg-type]

    text = ENGINE.explain(decision)

    assert decision.action in text.splitlines()[0]
    assert text.replace("\n", "").isprintable()


@pytest.mark.parametrize("http", ["HTTP/9.9", "9.9", "", "banana", "\udc80"])
def test_an_odd_version_is_one_that_nobody_knows(http: str) -> None:
    """It forbids nothing, and the answer is that for headers of an unknown version."""
    headers = [(b"Host", b"a.example"), (b"User-Agent", b"curl/8"), (b"Accept", b"*/*")]

    odd, plain = (ENGINE.peek("192.0.2.1", headers=headers, path="/x/y", http=given) for given in (http, None))

    assert (plain.action, plain.rule, plain.fingerprint) == (odd.action, odd.rule, odd.fingerprint)
    assert ENGINE.explain(plain) == ENGINE.explain(odd)


@pytest.mark.parametrize("http", ["9.9", "", "banana"])
def test_a_logged_decision_with_an_odd_version_is_explained(tmp_path: Path, http: str) -> None:
    """`gobanfast explain --log` decides the line again, and says that it comes out the same."""
    from gobanfast.cli.app import app

    (tmp_path / "rules.yaml").write_text(RULES)
    engine = Engine.load(tmp_path / "rules.yaml")
    log = DecisionLog(f"file:{tmp_path / 'log'}")
    decision = engine.decide(
        "203.0.113.9", headers=[(b"host", b"a"), (b"user-agent", b"x")], method="GET", path="/", http=http
    )
    log.observe(decision, request_id="one")
    log.close()

    run = CliRunner().invoke(
        app, ["explain", "-r", str(tmp_path / "rules.yaml"), "--log", str(tmp_path / "log"), "--id", "one"]
    )  # fmt: skip

    assert "decided again: the same" in run.output, run.output
    assert 0 == run.exit_code


def test_only_a_decision_can_be_explained() -> None:
    """TypeError with the line that was meant."""
    with pytest.raises(
        TypeError, match=r"explain takes a Decision; write engine\.explain\(engine\.peek\('192\.0\.2\.1'\)\)"
    ):
        ENGINE.explain("192.0.2.1")  # type: ignore[arg-type]
