"""Header lines of owned resources are those of a slow reference, as bytes and as text, whatever was written."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gobanfast import Engine, Ruleset
from gobanfast.frontends.http import Exchange, HttpGuard
from oracle import response_lines as oracle
from share_forms import FOREIGN, OWN, PAGE, RULES

GUARD = HttpGuard(Engine(Ruleset.from_text(RULES)), challenge="allow")
GRANT = [(name, value) for name, [value] in OWN.items()]
PLAIN = [("access-control-allow-origin", PAGE)]
REQUESTS = {
    "granted": ("/own", PAGE, ["Origin"], GRANT),
    "withheld": ("/own", FOREIGN, ["Origin"], []),
    "unasked": ("/own", None, ["Origin"], []),
    "plain": ("/plain", PAGE, ["Origin"], PLAIN),
    "public": ("/public", FOREIGN, [], [("access-control-allow-origin", "*")]),
    "site": ("/site", PAGE, ["Origin", "Sec-Fetch-Site"], []),
    "shut": ("/shut", PAGE, [], []),
}

names = st.sampled_from([
    "vary", "access-control-allow-origin", "access-control-allow-credentials", "access-control-", "access-control",
    "access-control-x", "x-access-control-a", "x-request-id", "set-cookie", "content-type", "varyx", "var",
])  # fmt: skip
members = st.sampled_from(["*", "origin", "ORIGIN", "sec-fetch-site", "accept", "", " ", "x-origin", "\t", "\xe9"])
values = st.lists(members, max_size=4).map(",".join) | st.lists(members, max_size=3).map(", ".join)
cased = st.tuples(names, st.sampled_from([str.lower, str.upper, str.title, str.swapcase])).map(lambda it: it[1](it[0]))


@settings(max_examples=600, deadline=None)
@given(request=st.sampled_from(sorted(REQUESTS)), written=st.lists(st.tuples(cased, values), max_size=8))
def test_lines_are_those_of_the_reference(request, written):
    path, origin, varies, grant = REQUESTS[request]
    headers = [(b"host", b"api.example"), *([] if origin is None else [(b"origin", origin.encode())])]
    exchange = Exchange(GUARD, headers, peer="203.0.113.9", method="GET", path=path)
    assert exchange.begin() is None
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in written]
    before, text_before = list(pairs), list(written)

    as_bytes = [(name.decode().lower(), value.decode("latin-1")) for name, value in exchange.response_headers(pairs)]
    as_text = [(name.lower(), value) for name, value in exchange.response_headers(written, text=True)]

    expected = oracle.lines(written, varies, grant, exchange.request_id)
    assert sorted(expected) == sorted(as_bytes) == sorted(as_text)
    own = {"vary", "x-request-id", "access-control-allow-origin"}
    for made in (as_bytes, as_text):  # the application's stay in order
        assert [pair for pair in made if pair[0] not in own] == [pair for pair in expected if pair[0] not in own]
    assert (before, text_before) == (pairs, written)
