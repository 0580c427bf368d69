"""Context binding: what differs is named, by policy; keys are rotated; an EventSource of the own page is let in."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gobanfast.frontends import binding as module
from gobanfast.frontends.binding import (
    CLAIM,
    FIELDS,
    Binding,
    BindingError,
    BoundRequests,
    Match,
    decode_jwt,
    encode_jwt,
)  # fmt: skip
from oracle import binding as oracle

KEY, OTHER = b"a key of 16 bytes or more", b"another key, as long"
POLICIES = st.sampled_from(["require", "if-present", "flag", "ignore"])
VALUES: dict[str, Any] = {
    "origin": st.sampled_from(
        ["https://a.example", "https://b.example", "null", "https://a.example, https://b.example"]
    ),
    "sec-fetch-site": st.sampled_from(["same-origin", "same-site", "none", "cross-site", "", "Same-Origin"]),
    "sec-fetch-mode": st.sampled_from(["navigate", "cors"]),
    "sec-fetch-dest": st.sampled_from(["document", "empty"]),
    "referer": st.sampled_from(["https://a.example", "https://a.example/x?y#z", "https://b.example:8443/", "/", ""]),
    "user-agent": st.sampled_from(["Tool/1.2.3", "Tool/2", "Other/1", "", "Tool/1.2.3 (x; 64_1)"]),
}
HEADERS = st.fixed_dictionaries({}, optional=VALUES)
BROWSER = {
    "origin": "https://app.example", "referer": "https://app.example/login",
    "sec-fetch-site": "same-origin", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty",
    "user-agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML) Chrome/156.0.0.0 Safari/537.36",
}  # fmt: skip
STREAM = {name: value for name, value in BROWSER.items() if name != "origin"}  # EventSource of the own page
STRICT: dict[str, Any] = dict.fromkeys(FIELDS, "require")


def pairs(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]


@given(policies=st.fixed_dictionaries(dict.fromkeys(FIELDS, POLICIES)), issued=HEADERS, shown=HEADERS)
def test_fields_that_differ_are_those_of_the_oracle(
    policies: Any, issued: dict[str, str], shown: dict[str, str]
) -> None:
    """Whatever is there and whatever the policies are, and for headers in any form."""
    bound = Binding([KEY], **policies)
    differs, flagged = oracle.compare({name: policies[name] for name in FIELDS}, issued, shown)
    answer = "differs" if differs else "flagged" if flagged else "matches"
    environ = {"REQUEST_METHOD": "GET"} | {f"HTTP_{name.upper().replace('-', '_')}": at for name, at in shown.items()}
    titled = {name.title(): value for name, value in shown.items()}

    for form in (pairs(shown), environ, titled, list(titled.items())):
        assert Match(answer, tuple(differs), tuple(flagged)) == bound.check(bound.make(pairs(issued)), form)  # type: ignore[arg-type]


@given(policies=st.fixed_dictionaries({"origin": POLICIES, "fetch_site": POLICIES}))
def test_a_same_origin_eventsource_is_never_turned_away(policies: Any) -> None:
    """It has no Origin; the token was issued to a POST, which has one."""
    bound = Binding([KEY], **policies)

    assert Match("matches") == bound.check(bound.make(pairs(BROWSER)), pairs(STREAM))
    assert Match("matches") == Binding([KEY], **STRICT).check(
        Binding([KEY], **STRICT).make(pairs(BROWSER)), pairs(STREAM)
    )


def test_what_the_defaults_say() -> None:
    """An update of the browser is none; another browser is flagged; a foreign page differs; a link to us does not."""
    bound = Binding([KEY])
    claim = bound.make(pairs(BROWSER))

    def answer(**changed: str | None) -> Match:
        headers = BROWSER | {name.replace("_", "-"): value for name, value in changed.items()}
        return bound.check(claim, pairs({name: value for name, value in headers.items() if value is not None}))

    assert Match("matches") == answer(user_agent=BROWSER["user-agent"].replace("156", "157"))
    assert Match("flagged", (), ("user_agent",)) == answer(user_agent="curl/8.1")
    assert Match("differs", ("origin", "fetch_site"), ()) == answer(
        origin="https://evil.example", sec_fetch_site="cross-site"
    )
    link = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
    assert Match("matches") == answer(**link, origin=None)
    assert "origin" in answer(**link, origin="https://evil.example").differs  # a form
    assert Match("matches") == bound.check(claim, [])


def test_keys_are_rotated() -> None:
    """Old claims are good while their key is listed; then the claim itself differs. Others' keys never do."""
    old = Binding([OTHER]).make(pairs(BROWSER))
    both = Binding([KEY, OTHER])

    assert (
        "matches"
        == both.check(old, pairs(BROWSER)).answer
        == both.check(both.make(pairs(BROWSER)), pairs(BROWSER)).answer
    )
    assert Match("differs", ("claim",)) == Binding([KEY]).check(old, pairs(BROWSER))
    assert both.make(pairs(BROWSER)) == Binding([KEY]).make(pairs(BROWSER)) != old


def test_two_keys_with_one_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are tried: an id of one byte says where to look, no more."""
    both = Binding([KEY, OTHER])
    both._ids = [b"x", b"x"]
    old = Binding([OTHER])
    old._ids = [b"x"]

    assert "matches" == both.check(old.make(pairs(BROWSER)), pairs(BROWSER)).answer


def test_hashes_are_compared_in_constant_time_and_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every field, also behind one that differs."""
    compared: list[tuple[bytes, bytes]] = []

    def note(one: bytes, two: bytes) -> bool:
        compared.append((one, two))
        return one == two

    monkeypatch.setattr(hmac, "compare_digest", note)
    bound = Binding([KEY], **STRICT)
    bound.check(bound.make(pairs(BROWSER)), [])

    assert len(FIELDS) == len(compared)
    assert {16} == {len(digest) for pair in compared for digest in pair}


def test_a_claim_says_nothing_of_what_it_binds() -> None:
    """Equal values of two fields hash differently, and no unkeyed hash of a value is in it."""
    headers = pairs({"origin": "https://a.example", "referer": "https://a.example/"})
    bound = Binding([KEY], **STRICT)
    _, hashes = module.unpacked(bound.make(headers)) or (b"", {})

    assert {"origin", "referer"} == set(hashes)
    assert hashes["origin"] != hashes["referer"]
    assert hashlib.blake2s(b"https://a.example", digest_size=16).digest() not in hashes.values()
    assert "key" not in repr(bound).replace("https", "")


@given(claim=st.text() | st.binary() | st.integers() | st.lists(st.integers()) | st.text("AQ-_abz0", max_size=140))
def test_junk_is_a_claim_that_differs(claim: object) -> None:
    """Whatever stands in its place, without an exception."""
    match = Binding([KEY], **STRICT).check(claim, pairs(BROWSER))

    assert "differs" == match.answer
    assert set(match.differs) <= {"claim", *FIELDS}


@given(
    claim=st.dictionaries(
        st.sampled_from(["origin", "referer", "ua_hash", "x"]),
        st.text() | st.integers() | st.none() | st.sampled_from(["sha256:" + "0" * 32, "https://app.example"]),
    ),
    headers=st.dictionaries(st.sampled_from([*VALUES, "x"]), st.text(), max_size=6),
)
def test_junk_in_the_older_form_is_an_answer(claim: dict[str, Any], headers: dict[str, str]) -> None:
    """Any values, any letters in headers that a framework decoded."""
    bound = Binding([KEY])

    assert bound.check(claim, headers).answer in {"matches", "flagged", "differs"}
    assert "matches" == bound.check(bound.make(headers), headers).answer


def test_the_older_form_is_read() -> None:
    """Origin, referer's origin and 16 bytes of the user agent's SHA-256, in plain text; by the same policies."""
    digest = hashlib.sha256(BROWSER["user-agent"].encode()).hexdigest()
    bound = Binding([KEY], referer="require")
    for ua_hash in (f"sha256:{digest[:32]}", digest):
        claim = {"origin": "https://app.example", "referer": "https://app.example:443/", "ua_hash": ua_hash}
        assert Match("matches") == bound.check(claim, pairs(BROWSER))
        assert Match("matches") == bound.check(claim, pairs(STREAM))
        other = BROWSER | {"user-agent": "x", "origin": "https://b.example"}
        assert Match("differs", ("origin",), ("user_agent",)) == bound.check(claim, pairs(other))
    strict = Binding([KEY], **STRICT)
    empty = {"origin": "", "referer": "", "ua_hash": hashlib.sha256(b"").hexdigest()}
    assert FIELDS == strict.check(empty, []).differs
    for broken in ({"ua_hash": "sha256:abc"}, {"origin": 1}, {"ua_hash": "z" * 32}):
        assert Match("differs", ("claim",)) == bound.check(broken, pairs(BROWSER))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (([],), "binding keys must be a list of at least one"),
        ((KEY,), r"write Binding\(\[key\]\)"),
        (([KEY, b"short"],), "binding key number 2 is shorter than 16 bytes"),
    ],
)
def test_keys_that_are_none(arguments: Any, says: str) -> None:
    """Told by number, never shown."""
    with pytest.raises(ValueError, match=says):
        Binding(*arguments)


def test_a_policy_that_is_none() -> None:
    """Told with those that there are."""
    with pytest.raises(ValueError, match="origin='deny' is not one of require, if-present, flag, ignore"):
        Binding([KEY], origin="deny")  # type: ignore[arg-type]


def test_values_are_capped() -> None:
    """A megabyte counts by its first 1,024 characters."""
    bound = Binding([KEY], **STRICT)
    large = BROWSER | {"origin": "https://" + "a" * 1_000_000}

    assert "matches" == bound.check(bound.make(pairs(large)), pairs(large | {"origin": large["origin"] + "b"})).answer


def test_a_jwt_is_bound() -> None:
    """Verified by PyJWT first; then what differs is in the error; an older token without a claim is refused, too."""
    jwt = pytest.importorskip("jwt", reason="the helper needs the extra jwt")
    key = "k" * 32
    bound = Binding([KEY])
    token = encode_jwt({"sub": "42"}, key, bound, pairs(BROWSER))

    payload, match = decode_jwt(token, key, bound, pairs(STREAM), algorithms=["HS256"])
    assert ("42", Match("matches")) == (payload["sub"], match)
    foreign = BROWSER | {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}
    with pytest.raises(BindingError, match="not this request's: origin, fetch_site") as caught:
        decode_jwt(token, key, bound, pairs(foreign), algorithms=["HS256"])
    assert ("origin", "fetch_site") == caught.value.match.differs
    with pytest.raises(BindingError, match="no claim"):
        decode_jwt(jwt.encode({"sub": "1"}, key), key, bound, pairs(STREAM), algorithms=["HS256"])
    with pytest.raises(jwt.InvalidTokenError):
        decode_jwt(token, "o" * 32, bound, pairs(STREAM), algorithms=["HS256"])
    with pytest.raises(jwt.InvalidTokenError):
        decode_jwt(token, key, bound, pairs(STREAM), algorithms=["HS256"], audience="other")
    assert CLAIM in jwt.decode(token, key, algorithms=["HS256"])


@pytest.mark.parametrize("cookie", [None, "token"])
def test_the_token_of_a_request(cookie: str | None) -> None:
    """Out of Authorization or a cookie; none, two, or one that is not valid is absent."""
    pytest.importorskip("jwt", reason="the helper needs the extra jwt")
    key, bound = "k" * 32, Binding([KEY])
    ask = BoundRequests(bound, key, algorithms=["HS256"], cookie=cookie)
    token = encode_jwt({"sub": "42"}, key, bound, pairs(BROWSER))
    old = encode_jwt({"exp": 1}, key, bound, pairs(BROWSER))

    def held(text: str) -> dict[str, str]:
        return {"authorization": f"Bearer {text}"} if cookie is None else {"cookie": f"a=b; {cookie}={text}; c=d"}

    assert "matches" == ask(pairs(STREAM | held(token))).answer
    assert "matches" == ask({"REQUEST_METHOD": "GET"} | {f"HTTP_{k.upper()}": v for k, v in held(token).items()}).answer
    assert ("differs", ("origin",)) == ask(pairs(STREAM | held(token) | {"origin": "https://evil.example"}))[:2]
    for junk in (
        {},
        held(old),
        held(token[:-2]),
        held(""),
        held("é\\"),
        held("x" * 100_000),
        {"authorization": "Basic x"},
    ):
        assert Match("absent") == ask(pairs(STREAM | junk))
    assert Match("absent") == ask([*pairs(STREAM | held(token)), *pairs(held(token))])
