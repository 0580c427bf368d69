"""SessionReader: cookies as servers read them, headers and queries, several values, rotation of keys, hostile input."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gobanfast._core.headers import HeaderPlan
from gobanfast._core.session_reader import SessionReader
from oracle import sessions as oracle

OLD, NEW = b"0123456789abcdef", b"another secret of 26 bytes"
PLAN = HeaderPlan(("cookie", "x-session", "authorization"))
COOKIE = SessionReader((("cookie", "sid"),), (NEW,), PLAN)

text = st.text(st.sampled_from('sidab=;" %41\\+&\t\x0b\x85'), max_size=40).map(lambda part: part.encode("latin-1"))
cookies = st.one_of(
    text,
    st.lists(
        st.tuples(
            st.sampled_from(["sid", " sid", "Sid", "sid ", "x"]),
            st.sampled_from(["a", '"a"', "%61", " b ", "", "c" * 9]),
        ),
        max_size=7,
    ).map(lambda pairs: ";".join(f"{name}={value}" for name, value in pairs).encode("latin-1")),
)  # fmt: skip


def keys_of(values: oracle.Values, secret: bytes = NEW) -> list[str]:
    return [oracle.key(value, secret, plus=plus) for value, plus in values.found]


def state_of(values: oracle.Values) -> str:
    return "malformed" if values.malformed else "present" if values.found else "absent"


@settings(max_examples=500)
@given(header=cookies)
def test_cookies_are_those_of_the_oracle(header: bytes) -> None:
    """State and keys of any Cookie header."""
    expected = oracle.of_cookies(header, "sid")
    if b"\0" in header or any(byte < 32 and byte != 9 for byte in header):
        return  # no header at all, see below
    state, found = COOKIE.session([(b"cookie", header)] if header.strip() else [])

    assert (state_of(expected), keys_of(expected)) == (state, [keys[0] for keys in found])


@settings(max_examples=300)
@given(query=text)
def test_queries_are_those_of_the_oracle(query: bytes) -> None:
    """State and keys of any query."""
    reader = SessionReader((("query", "sid"),), (NEW,), PLAN)
    expected = oracle.of_query(query, "sid")
    state, found = reader.session([], query)

    assert (state_of(expected), keys_of(expected)) == (state, [keys[0] for keys in found])


def test_the_first_source_that_there_is_counts() -> None:
    """Cookies, then headers, then the query, in the order of the sources."""
    reader = SessionReader((("cookie", "sid"), ("header", "x-session"), ("query", "ticket")), (NEW,), PLAN)
    cookie, header = (b"cookie", b"sid=a"), (b"x-session", b"b")

    assert ("present", (reader.keys("a"),)) == reader.session([cookie, header], "ticket=c")
    assert (reader.keys(b"b"),) == reader.session([header], "ticket=c")[1]
    assert (reader.keys("c"),) == reader.session([], "ticket=c")[1]
    assert ("absent", ()) == reader.session([], "other=c")
    assert ("unknown", ()) == reader.session(None)


@pytest.mark.parametrize("lines", [[b"a", b"b"], [b"b", b" a "], [b"b,a"], [b"b", b"", b"a"]])
def test_every_line_of_a_repeated_header_is_a_value(lines: list[bytes]) -> None:
    """Starlette takes the first, others the last: neither hides a revoked session behind another one."""
    reader = SessionReader((("header", "x-session"),), (NEW,), PLAN)
    state, found = reader.session([(b"x-session", line) for line in lines])
    whole = len(lines) == 1  # what came as one value is one

    assert state == "present"
    assert set(found) == ({reader.keys(b"b,a")} if whole else {reader.keys("a"), reader.keys("b")})
    assert reader.session([(b"x-session", b"%d" % i) for i in range(5)])[0] == "malformed"


@pytest.mark.parametrize("value", [b"Bearer a", b"bearer a", b"BEARER   a", b"a"])
def test_the_scheme_of_authorization_is_no_part_of_the_session(value: bytes) -> None:
    """Servers compare it without case, so that `bearer` would be another session."""
    reader = SessionReader((("header", "authorization"),), (NEW,), PLAN)

    assert ("present", (reader.keys("a"),)) == reader.session([(b"authorization", value)])


def test_several_cookie_headers_are_one() -> None:
    """HTTP/2 splits them (RFC 9113 section 8.2.3)."""
    assert (COOKIE.keys("a"),) == COOKIE.session([(b"cookie", b"x=1"), (b"cookie", b"sid=a")])[1]
    assert 2 == len(COOKIE.session([(b"cookie", b"sid=b"), (b"cookie", b"sid=a")])[1])


@pytest.mark.parametrize(
    ("header", "state", "count"),
    [
        (b"sid=a; sid=b", "present", 2),  # servers differ in which they take: both count
        (b"sid=a; sid=a", "present", 1),
        (b"; ".join(b"sid=%d" % number for number in range(5)), "malformed", 4),
        (b"sid=" + b"x" * 4096, "present", 1),
        (b"sid=" + b"x" * 4097, "malformed", 0),
        (b"x=" + b"y" * 1_000_000, "malformed", 0),
        (b'sid="a\\142"', "malformed", 0),
        (b"sid", "absent", 0),
        (b"sid=", "absent", 0),
        (b"SID=a", "absent", 0),
    ],
)
def test_hostile_cookies_have_stated_answers(header: bytes, state: str, count: int) -> None:
    """Different values up to four count; beyond that, and where nobody can say, the session is malformed."""
    found = COOKIE.session([(b"cookie", header)])

    assert (state, count) == (found[0], len(found[1]))


@pytest.mark.parametrize("spelling", ["s%3Aabc", "s%3aabc", "s:abc", "%73:abc", "s%253Aabc", "s%25253Aabc"])
def test_no_spelling_is_another_session(spelling: str) -> None:
    """Some servers decode a cookie and some do not: a revoked session does not come back under another spelling."""
    assert (
        COOKIE.keys("s:abc") == COOKIE.keys(spelling) == COOKIE.session([(b"cookie", f"sid={spelling}".encode())])[1][0]
    )


def test_rotated_keys_are_asked_under_all() -> None:
    """The first key makes keys; a request has those of every key listed; each says which key it is of."""
    rotated = SessionReader((("cookie", "sid"),), (NEW, OLD), PLAN)
    before = SessionReader((("cookie", "sid"),), (OLD,), PLAN)
    (found,) = rotated.session([(b"cookie", b"sid=a")])[1]

    assert rotated.keys("a") == found == (COOKIE.keys("a")[0], before.keys("a")[0])
    assert found[0].split(":")[1] != found[1].split(":")[1]


def test_values_are_hashed_and_never_shown() -> None:
    """Nothing that is printed has the value or a secret in it."""
    shown = repr(COOKIE) + "".join(COOKIE.keys("top-secret-value"))

    assert "top-secret" not in shown
    assert NEW.decode() not in shown
    assert oracle.key(b"top-secret-value", NEW) == COOKIE.keys("top-secret-value")[0]


def test_wrong_arguments() -> None:
    """Say what is wrong."""
    with pytest.raises(ValueError, match="1 byte at least"):
        COOKIE.keys("")
    with pytest.raises(ValueError, match="at most 4096 bytes, not 5000"):
        COOKIE.keys("x" * 5000)
    with pytest.raises(ValueError, match="not one of cookie, header, query"):
        SessionReader((("body", "sid"),), (NEW,), PLAN)
    with pytest.raises(ValueError, match="'x-other' is not in the plan"):
        SessionReader((("header", "x-other"),), (NEW,), PLAN)
    with pytest.raises(ValueError, match="0 keys"):
        SessionReader((("cookie", "sid"),), (), PLAN)
