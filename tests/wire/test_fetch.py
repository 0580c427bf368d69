"""The CORS protocol of browsers: a row for every rule of the safelists, and the standard step by step as oracle."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gobanfast.wire import fetch
from oracle import fetch as oracle

NAMES = (
    "accept",
    "Accept-Language",
    "content-language",
    "Content-Type",
    "range",
    "x-a",
    "Authorization",
    "last-event-id",
)
ORIGIN = "https://app.example"


# ---- CORS-safelisted request-header


@pytest.mark.parametrize(
    ("name", "value", "safe"),
    [
        ("accept", "a" * 128, True), ("accept", "a" * 129, False), ("accept", "", True),
        ("Accept", "text/event-stream", True), ("accept", "a\tb", True), ("accept", "\u00ff", True),
        ("accept", " " + "a" * 128 + "\t", True),  # blanks around are no part of a value
        *(("accept", f"a{byte}b", False) for byte in '\x00\x01\x1f"():<>?@[\\]{}\x7f'),
        *(("accept", f"a{byte}b", True) for byte in " !#$%&'*+,-./09;=AZ^_`az|~"),
        *(("accept-language", f"a{byte}b", True) for byte in "09AZaz *,-.;="),
        *(("content-language", f"a{byte}b", False) for byte in "!_/'\t\u00e4"),
        ("accept-language", "", True),
        ("content-type", "text/plain", True), ("content-type", "TEXT/Plain; charset=utf-8", True),
        ("content-type", "multipart/form-data; boundary=x", True),
        ("content-type", 'multipart/form-data; boundary="x"', False),
        ("content-type", "application/x-www-form-urlencoded", True), ("content-type", "application/json", False),
        ("content-type", "text/event-stream", False), ("content-type", "text", False),
        ("content-type", "/plain", False),
        ("content-type", "text/", False), ("content-type", "text/pla in", False),
        ("content-type", "text/plain ;x", True),
        ("content-type", "", False),
        ("range", "bytes=0-", True), ("range", "bytes=0-0", True), ("range", "bytes=2-1", False),
        ("range", "bytes=-1", False),
        ("range", "bytes=-", False), ("range", "Bytes=0-", False), ("range", "bytes =0-", False),
        ("range", "bytes=0-1,2-3", False),
        ("range", "bytes=\u0660-", False), ("range", f"bytes=0-{'9' * 120}", True),
        ("range", f"bytes=0-{'9' * 121}", False),
        ("last-event-id", "1", False), ("authorization", "x", False), ("cache-control", "no-cache", False),
        ("dpr", "2", False),
    ],
)  # fmt: skip
def test_a_header_that_a_browser_sends_without_asking(name: str, value: str, safe: bool) -> None:
    """Each rule of the safelist, on both sides of its edge."""
    assert safe == fetch.is_safelisted(name, value)
    assert ([] if safe else [name.lower()]) == fetch.preflight_headers([(name, value)])


def test_more_than_1024_bytes_of_safe_values_are_asked_about() -> None:
    """1,024 bytes in total are safe; one more, and all of their names are listed, beside the unsafe ones."""
    values = [("Accept", "a" * 128), ("accept-language", "a" * 128)] * 4

    assert [] == fetch.preflight_headers(values)
    assert ["x-a"] == fetch.preflight_headers([*values, ("X-A", "a" * 200)])  # an unsafe value is not counted
    assert ["accept", "accept-language", "range", "x-a"] == fetch.preflight_headers(
        [*values, ("range", "bytes=0-"), ("X-A", "1")]
    )


@given(
    st.lists(
        st.tuples(
            st.sampled_from(NAMES),
            st.text('aA0 \t-/;=,.*_:"\u00e4\x01', max_size=12)
            | st.sampled_from(["text/plain", "bytes=0-", "bytes=5-4", "a" * 128, "a" * 129, "b" * 127]),
        ),
        max_size=12,
    )
)
@example([("accept", "a" * 128)] * 8)
@example([("accept", "a" * 128)] * 8 + [("range", "bytes=0-")])
def test_names_to_ask_about_are_those_of_the_standard(pairs: list[tuple[str, str]]) -> None:
    """`preflight_headers` equals the algorithm read off the standard."""
    as_bytes = [(name.encode(), oracle.strip(value.encode("latin-1"))) for name, value in pairs]

    assert [name.decode() for name in oracle.preflight_headers(as_bytes)] == fetch.preflight_headers(pairs)


# ---- forbidden names, methods


@pytest.mark.parametrize(
    ("name", "value", "forbidden"),
    [
        *((name, "", True) for name in sorted(fetch.FORBIDDEN_REQUEST_HEADERS)),
        ("Sec-Fetch-Site", "", True), ("sec-", "", True), ("Proxy-Authorization", "", True), ("Cookie", "a=b", True),
        ("secret", "", False), ("proxy", "", False), ("authorization", "x", False), ("user-agent", "x", False),
        ("last-event-id", "1", False), ("x-http-method-override", "PUT", False), ("x-method-override", "trace", True),
        ("X-HTTP-Method", "GET, TRACK", True),
    ],
)  # fmt: skip
def test_headers_that_a_script_cannot_set(name: str, value: str, forbidden: bool) -> None:
    """Forbidden names, prefixes, and overrides of forbidden methods."""
    assert forbidden == fetch.is_forbidden_header(name, value)


def test_methods() -> None:
    """Six methods are normalized, three forbidden, three need no preflight."""
    assert ["GET", "PUT", "patch", "OPTIONS"] == [*map(fetch.normalized_method, ("get", "Put", "patch", "options"))]
    assert [True, True, True, False] == [*map(fetch.is_forbidden_method, ("connect", "Trace", "TRACK", "PATCH"))]
    assert [False, False, True, True] == [
        fetch.needs_preflight(method, []) for method in ("get", "POST", "PUT", "OPTIONS")
    ]
    assert fetch.needs_preflight("GET", ["last-event-id"])


# ---- CORS check, CORS-preflight fetch

LINES = st.lists(
    st.tuples(
        st.sampled_from(["Access-Control-Allow-Origin", "access-control-allow-credentials",
        "ACCESS-CONTROL-ALLOW-METHODS",
                         "Access-Control-Allow-Headers", "Vary"]),
        st.sampled_from([ORIGIN, "*", "null", "true", "True", " \t*", ORIGIN + "/", f"{ORIGIN}, *", "", "PUT", "put",
        "X-A",
                         "x-a,,authorization ", "a b", "x-a, *", '"', "\x0b*"]),
    ),
    max_size=6,
)  # fmt: skip


@given(LINES, st.sampled_from([ORIGIN, "null"]), st.booleans())
@example([("Access-Control-Allow-Origin", ORIGIN), ("access-control-allow-credentials", "true")], ORIGIN, True)
@example([("Access-Control-Allow-Origin", ORIGIN), ("access-control-allow-credentials", "True")], ORIGIN, True)
def test_the_check_is_that_of_the_standard(pairs: list[tuple[str, str]], origin: str, credentials: bool) -> None:
    """`cors_check` equals the algorithm read off the standard."""
    mode = "include" if credentials else "same-origin"
    as_bytes = [(name.encode(), value.encode()) for name, value in pairs]

    assert oracle.cors_check(origin.encode(), mode, as_bytes) == fetch.cors_check(
        origin, pairs, credentials=credentials
    )


@given(
    LINES, st.sampled_from(["GET", "PUT", "put"]), st.lists(st.sampled_from(["authorization", "x-a", "x-b"]),
    unique=True),
    st.sampled_from([200, 204, 299, 199, 300, 401]), st.booleans(),
)  # fmt: skip
@example([], "PUT", ["authorization", "x-b"], 204, False)
@example([("Access-Control-Allow-Headers", "*")], "GET", ["authorization", "x-b"], 204, False)
@example([("Access-Control-Allow-Headers", "*"), ("Access-Control-Allow-Methods", "*")], "PUT", ["x-b"], 204, True)
def test_the_preflight_is_that_of_the_standard(
    more: list[tuple[str, str]], method: str, names: list[str], status: int, credentials: bool
) -> None:
    """`preflight_check` equals the algorithm read off the standard, mostly behind a CORS check that passes."""
    names = sorted(names)
    granted = [("Access-Control-Allow-Origin", ORIGIN), ("Access-Control-Allow-Credentials", "true")]
    mode = "include" if credentials else "same-origin"
    for pairs in (more, granted + [pair for pair in more if pair[0].lower()[-7:] in {"methods", "headers"}]):
        as_bytes = [(name.encode(), value.encode()) for name, value in pairs]

        assert oracle.preflight_check(
            ORIGIN.encode(), mode, method.encode(), [name.encode() for name in names], status, as_bytes
        ) == fetch.preflight_check(ORIGIN, method, names, status, pairs, credentials=credentials)


def test_headers_that_a_page_sees() -> None:
    """Safelisted and exposed names; `*` exposes all but cookies, and nothing with credentials."""
    plain = [("Content-Type", "a/b"), ("X-Request-ID", "1"), ("Set-Cookie", "a=b"), ("ETag", '"1"')]

    def seen(*lines: str, credentials: bool = False) -> list[str]:
        more = [("access-control-expose-headers", line) for line in lines]
        return fetch.visible_headers(plain + more, credentials=credentials)

    assert ["content-type"] == seen() == seen("set-cookie") == seen("*", credentials=True) == seen("etag x")
    assert ["content-type", "etag", "x-request-id"] == seen("X-Request-Id", "etag") == seen("etag, x-request-id,")
    assert ["access-control-expose-headers", "content-type", "etag", "x-request-id"] == seen("*")


# ---- media types, origins


def test_media_types() -> None:
    """Essence and charset, in lower case."""
    assert ["text/event-stream", "text/html", None, None] == [
        *map(fetch.media_type, ("Text/Event-Stream; charset=UTF-8", " text/html ", "text", "text/ html"))
    ]
    assert ["utf-8", None, "latin1", ""] == [
        *map(fetch.charset, ('a/b; x=1; Charset = "UTF-8"', "a/b", "a/b;charset=latin1", "a/b;charset="))
    ]


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://app.example/x?y", "https://app.example"), ("HTTPS://App.Example:443", "https://app.example"),
        ("http://a.example:443", "http://a.example:443"), ("http://[0:0::1]:80/", "http://[::1]"),
        ("https://b\u00fccher.example", "https://xn--bcher-kva.example"), ("https://", None), ("null", None),
        ("a b", None),
        ("http://a b/", None), ("http://a:99999", None), ("http://[::g]/", None), ("/x", None),
    ],
)  # fmt: skip
def test_origin_of_a_url(url: str, origin: str | None) -> None:
    """Lower case, A-labels, canonical IPv6, no default port."""
    site = fetch.site_of(url)

    assert origin == (site and site.origin)


def test_sites_that_need_no_tls() -> None:
    """Loopback is trusted without it, by name and by address."""
    trusted = ["http://localhost:1", "http://a.localhost", "http://127.0.0.9", "http://[::1]:8"]
    sites = [*map(fetch.site_of, [*trusted, "http://example.com", "http://127.0.0.1.example"])]

    assert [True, True, True, True, False, False] == [site is not None and site.loopback for site in sites]
