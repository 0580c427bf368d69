"""Whose word is taken for where a request comes from, and what is made of it."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import oracle.trust
from gobanfast import PrefixSet, PrefixTable
from gobanfast.frontends.trust import ClientInfo, Trust, as_trust, mint_request_id
from gobanfast.wire.forwarded import read_forwarded

PEERS = ["10.0.0.0/8", "2001:db8:aaaa::/48", "unix"]
CASES = tomllib.loads((Path(__file__).parents[1] / "cases" / "forwarded.toml").read_text())["case"]
ABOUT = {"name", "peer", "chain", "single", "signals", "believed", "address", "status", "port", "scheme", "hops",
         "request_id", "told", "required"}  # fmt: skip


def resolved(case):
    trust = Trust(
        PEERS,
        chain=case.get("chain", ["x-forwarded-for"]),
        single=case.get("single", {}),
        signals=case.get("signals", {}),
        required=case.get("required", False),
    )
    peer = case.get("peer", "10.0.0.1") or None
    fields = {name: values for name, values in case.items() if name not in ABOUT}
    pairs = [(name.encode(), value.encode()) for name, values in fields.items() for value in values]
    environ = {"HTTP_" + name.upper().replace("-", "_"): ",".join(values) for name, values in fields.items()}
    return trust, peer, pairs, environ


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
@pytest.mark.parametrize("form", ["asgi", "wsgi"])
def test_case_table(case, form):
    """What is taken for the client is what the table says, from header pairs and from an environ."""
    trust, peer, pairs, environ = resolved(case)
    if form == "wsgi" and "x_forwarded_for" in case:
        pytest.skip("WSGI cannot tell an underscore from a hyphen")

    assert case.get("believed", True) == trust.believes(peer)
    if not case.get("believed", True):
        return
    origin = trust.resolve(peer, pairs) if form == "asgi" else trust.resolve_environ(peer, environ)
    expected = ClientInfo(
        case.get("address"),
        case["status"],
        case.get("port"),
        case.get("scheme"),
        case.get("request_id"),
        case.get("hops", 0),
        case.get("told", {}),
    )
    if case["status"] in {"missing", "malformed", "conflict", "too-many-hops"}:
        assert origin.address is not None
        assert oracle.trust.read(origin.address) is None
        origin = ClientInfo(
            None, origin.status, origin.port, origin.scheme, origin.request_id, origin.hops, origin.signals
        )
    assert expected == origin


octets = st.integers(0, 255)
ipv4 = st.builds("{}.{}.{}.{}".format, st.sampled_from([10, 203, 300]), octets, octets, octets)
ipv6 = st.sampled_from(
    ["2001:db8:aaaa::7", "2001:db8::9", "::ffff:10.0.0.9", "::ffff:203.0.113.9", "fe80::1%eth0", "::"]
)
ports = st.sampled_from(["", ":80", ":65535", ":65536", ":", ":_p", ":080", ":x"])
node = st.one_of(
    st.builds(str.__add__, ipv4, ports),
    ipv6,
    st.builds(lambda address, port: f"[{address}]{port}", st.one_of(ipv6, ipv4), ports),
    st.sampled_from(["unknown", "UNKNOWN", "_hidden", "unknown:80", "", "[", "]", "a", "10.0.0.1 10.0.0.2", "[::1]x"]),
    st.text("0123456789abf.:[]_%- ", max_size=12),
)
blank = st.sampled_from(["", " ", "\t", "  "])


@given(nodes=st.lists(st.builds(lambda left, text, right: left + text + right, blank, node, blank), max_size=24))
@example(nodes=["10.0.0.1"] * 18)
def test_chain_equals_the_walk_with_the_standard_library(nodes):
    """X-Forwarded-For gives the status and address that an element-by-element walk gives."""
    value = ",".join(nodes)
    trust = Trust(PEERS[:2])

    origin = trust.resolve("10.0.0.1", [(b"x-forwarded-for", value.encode())] if value else [])

    status, address = oracle.trust.client(PEERS[:2], value, "10.0.0.1")
    assert status == origin.status
    if status in {"ok", "trusted", "unknown"}:
        assert address == origin.address


@given(value=st.text('for=,;"\\ 1.:[]a\t\n_', max_size=60))
def test_forwarded_never_raises(value):
    """Whatever stands in Forwarded gives hops; one that is malformed comes alone."""
    hops = list(read_forwarded(value))

    assert len(hops) <= 1 + value.count(",")


@given(left=st.text(max_size=40))
def test_what_the_client_wrote_changes_nothing(left):
    """Whatever a client sends in X-Forwarded-For, an appending proxy's word is found behind it."""
    trust = Trust(PEERS)

    origin = trust.resolve("10.0.0.1", [(b"x-forwarded-for", left.encode() + b", 203.0.113.9")])

    assert ("203.0.113.9", "ok") == (origin.address, origin.status)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"," * 1_000_000, "malformed"),
        (b"203.0.113.9," * 100_000, "ok"),
        (b"10.0.0.1," * 100_000, "too-many-hops"),
        (b"9" * 1_000_000, "malformed"),
        (b"9" * 1_000_000 + b",203.0.113.9", "ok"),
        (b"1" + b"203.0.113.9".rjust(8300, b" "), "malformed"),
    ],
)
@pytest.mark.parametrize("chain", ["x-forwarded-for", "forwarded"])
def test_long_headers_are_bounded(value, expected, chain):
    """A megabyte of header is read from its right end only; ten thousand headers are one list."""
    trust = Trust(PEERS, chain=[chain])

    origin = trust.resolve("10.0.0.1", [(chain.encode(), value)])
    many = trust.resolve(
        "10.0.0.1", [(b"x-forwarded-for", b"203.0.113.9"), (b"forwarded", b"for=203.0.113.9")] * 10_000
    )

    assert (expected if chain == "x-forwarded-for" else "malformed") == origin.status
    assert ("ok" if chain == "x-forwarded-for" else "malformed") == many.status


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"peers": ["*"]}, "trusts everyone"),
        ({"peers": ["0.0.0.0/0"]}, "trusts everyone"),
        ({"peers": ["::/0"]}, "trusts everyone"),
        ({"peers": "10.0.0.0/8"}, "is one text"),
        ({"peers": ["10.0.0.1/8"]}, "has host bits set"),
        ({"peers": ["proxy"]}, "has no IPv4 or IPv6 address"),
        ({"chain": ["x-real-ip"]}, "'x-real-ip' is not one of"),
        ({"single": {"X_Real_IP": ["10.0.0.0/8"]}}, "without underscores"),
        ({"single": {"x-real-ip": ["*"]}}, "trusts everyone"),
        ({"signals": {"ja5": "x-ja5"}}, "'ja5' is not one of"),
        ({"max_hops": 0}, "must be positive"),
        ({"required": "yes"}, "'yes' is not one of True, False, None"),
    ],
)
def test_wrong_arguments_are_named(arguments, words):
    """A Trust that cannot be meant is refused, with the value."""
    with pytest.raises(ValueError, match=words.replace("*", r"\*")):
        Trust(**arguments)


@pytest.mark.parametrize(
    ("required", "asgi", "wsgi"),
    [(None, "trusted", "missing"), (False, "trusted", "trusted"), (True, "missing", "missing")],
)
def test_a_chain_is_owed_under_wsgi_unless_said(required, asgi, wsgi):
    """WSGI servers may drop a header that is not ASCII: there a trusted peer owes its chain, elsewhere if said."""
    trust = Trust(PEERS, required=required)

    assert (asgi, wsgi) == (trust.resolve("10.0.0.1", []).status, trust.resolve_environ("10.0.0.1", {}).status)
    assert wsgi == trust.resolve("10.0.0.1", [], wsgi=True).status


@pytest.mark.parametrize(
    "given",
    [["10.0.0.0/8"], ("10.0.0.0/8",), iter(["10.0.0.0/8"]), PrefixSet(["10.0.0.0/8"]), {"peers": ["10.0.0.0/8"]},
     PrefixTable([("10.0.0.0/8", 1)]), Trust(["10.0.0.0/8"])],
)  # fmt: skip
def test_every_form_of_trust_is_taken(given):
    """Prefixes in any iterable, sets and tables of them, arguments, and a Trust mean the same in every frontend."""
    trust = as_trust(given)

    assert (True, False) == (trust.believes("10.1.2.3"), trust.believes("192.0.2.1"))


@pytest.mark.parametrize(
    "given", ["10.0.0.0/8", 5, [5], ["*"], ["0.0.0.0/0"], {"peer": ["10.0.0.0/8"]}, object(), True]
)
def test_what_is_no_trust_is_refused_at_once(given):
    """Anything else is a ValueError where it is given, not a TypeError at the first connection."""
    with pytest.raises(ValueError, match=r"trust|Trust|text|believes"):
        as_trust(given)


def test_request_ids_differ_also_after_fork():
    """No id comes twice, in one process or in its children."""
    ids = {mint_request_id() for _ in range(1000)}
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, mint_request_id().encode())
        os._exit(0)
    os.waitpid(child, 0)
    other = os.read(reader, 100).decode()
    os.close(reader), os.close(writer)

    assert 1000 == len(ids)
    assert other[:12] != mint_request_id()[:12]
