"""Imported rules give what the other tool's settings gave, less the holes that a warning names."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gobanfast import Engine, RuleError
from gobanfast.rules import Ruleset
from gobanfast.rules.check.lint_full import findings
from gobanfast.rules.importers import import_rules
from gobanfast.rules.importers.notes import Notes
from gobanfast.rules.importers.origin_texts import translated

HOSTS = [
    "example.com", "a.example.com", "a.b.example.com", "evilexample.com", "example.com.invalid", "axexample.com",
    "a.example.com.invalid", "example.org", "a.example.org", "localhost", "127.0.0.1", "wwwxexamplexcom",
    "www.example.com",
]  # fmt: skip
ORIGINS = [
    *(f"{scheme}://{host}{port}" for scheme in ("https", "http") for host in HOSTS for port in ("", ":3000", ":8443")),
    "null", "https://example.com/", "https://EXAMPLE.com", "https://a.example.com@evil.invalid", "https:", "h", "*",
]  # fmt: skip


WIDE = {"wide-regex", "public-suffix"}  # what lint says of wide rules, however they came about


def imported(tool: str, options: Any, source: str = "options.json") -> tuple[Engine, list[str], Ruleset]:
    """An engine with the rules, the warnings, and the rules, of which lint says at most that they are wide."""
    text, warnings = import_rules(tool, options if isinstance(options, str) else json.dumps(options), source)
    ruleset = Ruleset.from_text(text)
    assert {found.code for found in findings(ruleset, starter=True)} <= WIDE, text
    assert [] == ruleset.failures()
    return Engine(ruleset), [str(problem) for problem in warnings], ruleset


def share(engine: Engine, origin: str, path: str = "/", host: str = "localhost") -> str | None:
    """What the rules say of a page."""
    headers = [(b"host", host.encode()), (b"origin", origin.encode())]
    found: str | None = engine.peek(None, headers=headers, method="GET", path=path).share
    return found


def granted(engine: Engine, path: str = "/") -> set[str]:
    """The origins of ORIGINS that may read."""
    return {origin for origin in ORIGINS if share(engine, origin, path) == "granted"}


def grant(ruleset: Ruleset) -> Any:
    """The only grant."""
    (found,) = [rule.grant for rule in ruleset.rules]
    return found


# ---- Starlette


REGEXES = [
    r"https://example\.com",
    r"https://.*\.example\.com",
    r"https://(.*\.)?example\.com",
    r"https://(?:.+\.)?example\.com",
    r"https://(.*)\.example\.com",
    r"https://[^.]+\.example\.com",
    r"https://([^.]+\.)?example\.com",
    r"^https?://[^/]+\.example\.com(:\d+)?$",
    r"https?:\/\/localhost(:[0-9]+)?",
    r"https://(a|www)\.example\.com",
    r"^(https://example\.com|https://.*\.example\.org)$",
    r"https://example\.com|http://localhost:3000",
    r"https://\w+\.example\.com",
    r"https://[a-z0-9-]+\.example\.(com|org)",
    r"http://localhost:\d+",
    r"https://.+example\.com",
]


@pytest.mark.parametrize("regex", REGEXES)
def test_a_regex_is_translated_exactly(regex: str) -> None:
    """Over origins as browsers send them, the patterns cover what the regex matches, all of it and nothing else."""
    engine, warnings, _ = imported("starlette", {"allow_origin_regex": regex, "allow_methods": ["*"]})
    matched = {origin for origin in ORIGINS if re.fullmatch(regex, origin)} - set(ORIGINS[-7:])

    assert matched == granted(engine)
    assert matched
    assert ([] == warnings) == (".+example" not in regex)


@pytest.mark.parametrize(
    ("regex", "patterns"),
    [
        (r"https://.*\.example\.com", ["https://**.example.com"]),
        (r"https://(.*\.)?example\.com", ["https://**.example.com", "https://example.com"]),
        (r"https://[^.]+\.example\.com", ["https://*.example.com"]),
        (r"^https?://localhost(:\d+)?$", ["https://localhost:*", "http://localhost:*"]),
        (r"https://(a|b)\.example\.com", ["https://a.example.com", "https://b.example.com"]),
        (r"https://\w+\.example\.com", [r"re:https://\w+\.example\.com"]),
    ],
)
def test_patterns_replace_regexes_where_they_are_the_same(regex: str, patterns: list[str]) -> None:
    """A wildcard is written only where it means the same; else the regex stays."""
    _, _, ruleset = imported("starlette", {"allow_origin_regex": regex})

    assert tuple(patterns) == ruleset.rules[0].when.origin


@given(
    st.lists(
        st.sampled_from(["https://example.com", "https://a.example.com", "http://localhost:3000", "null",
                         "https://example.com/", "https://EXAMPLE.com", "https://*.example.com", "h"]),
        max_size=4,
    ),
    st.none() | st.sampled_from(REGEXES),
)  # fmt: skip
def test_nothing_is_given_that_starlette_did_not_give(origins: list[str], regex: str | None) -> None:
    """The middleware itself, asked the same: all it lets in but `null` and what is no origin, and no more."""
    pytest.importorskip("starlette")
    from starlette.middleware.cors import CORSMiddleware

    options: dict[str, Any] = {"allow_origins": origins, "allow_origin_regex": regex}
    theirs = CORSMiddleware(None, **options)  # type: ignore[arg-type]
    let_in = {origin for origin in ORIGINS if theirs.is_allowed_origin(origin)} - set(ORIGINS[-7:])
    if not let_in:
        with pytest.raises(RuleError, match="leave no origin that may read anything"):
            imported("starlette", options)
        return
    engine, _, _ = imported("starlette", options)

    assert let_in == granted(engine)


def test_a_text_for_a_list_is_a_list() -> None:
    """There every part of the text is an origin; here only the origins in it are, and the warning says so."""
    engine, warnings, _ = imported("starlette", {"allow_origins": "https://example.com,https://a.example.com"})

    assert {"https://example.com", "https://a.example.com"} == granted(engine)
    assert "'https:', too; it was imported as a list of 2" in warnings[0]
    _, warnings, _ = imported("starlette", {"allow_origins": "https://example.com https://*.example.com"})
    assert "and as it has a '*' in it, everyone" in warnings[0]
    assert "https://*.example.com' never matched" in warnings[1]
    options = {"allow_origins": ["https://example.com"], "allow_headers": "X-Key", "allow_methods": "*"}
    assert "so every letter of it was a header" in imported("starlette", options)[1][0]


def test_everyone_never_gets_credentials() -> None:
    """`*` and a regex that matches anything are everyone's without credentials; without them they stay as they are."""
    for options in ({"allow_origins": ["*"]}, {"allow_origins": "*"}, {"allow_origin_regex": "https?://.*"}):
        engine, warnings, ruleset = imported("starlette", {**options, "allow_credentials": True, "allow_methods": "*"})

        assert not grant(ruleset).credentials
        assert "granted" == share(engine, "https://evil.invalid")
        assert any("every origin gets credentials" in text for text in warnings)
        assert [] == imported("starlette", {**options, "allow_methods": "*"})[1]


def test_an_http_origin_with_credentials_says_that_it_is_dangerous() -> None:
    """It has a rule of its own with the dangerous key; loopback and grants without credentials need none."""
    origins = ["https://example.com", "http://example.com", "http://localhost:3000"]
    text, warnings = import_rules("starlette", json.dumps({"allow_origins": origins, "allow_credentials": True}), "a")

    assert 1 == text.count("dangerously_allow_insecure: true\n")
    assert any("'http://example.com' is http and gets credentials" in str(problem) for problem in warnings)
    ids = {rule.id: rule.when.origin for rule in Ruleset.from_text(text).rules}
    assert {"cors": ("https://example.com", "http://localhost:3000"), "cors-insecure": ("http://example.com",)} == ids
    assert "dangerous" not in import_rules("starlette", json.dumps({"allow_origins": origins}), "a")[0]


def test_a_wildcard_below_a_public_suffix_says_that_it_is_dangerous() -> None:
    """Everyone can have a name below github.io."""
    options = {"allow_origin_regex": r"https://.*\.github\.io", "allow_credentials": True}
    text, warnings = import_rules("starlette", json.dumps(options), "a")

    assert "dangerously_allow_public_suffix: true\n" in text
    assert any("everyone can have a name below that suffix" in str(problem) for problem in warnings)


def test_methods_headers_and_ages_are_what_a_preflight_needs() -> None:
    """What browsers never ask for is left out, content-type is always allowed there, `*` is not authorization."""
    options = {
        "allow_origins": ["https://example.com"], "allow_methods": ["GET", "HEAD", "POST", "PUT", "TRACE"],
        "allow_headers": ["X-Key", "Accept", "Cookie"], "expose_headers": ["X-Id", "Set-Cookie"], "max_age": 100_000,
    }  # fmt: skip
    _, warnings, ruleset = imported("starlette", options)
    found = grant(ruleset)

    assert (("PUT",), ("x-key", "content-type"), ("x-id",), 86_400) == (
        found.methods, found.headers, found.expose, found.max_age,
    )  # fmt: skip
    assert ["'TRACE'", "'cookie'", "'set-cookie'", "100000"] == [
        re.findall(r"'[^']+'|\d{6}", text)[0] for text in warnings
    ]
    _, warnings, ruleset = imported("starlette", {"allow_origins": ["*"], "allow_methods": ["*"], "allow_headers": "*"})
    assert ("*", "authorization") == grant(ruleset).headers
    assert ("DELETE", "OPTIONS", "PATCH", "PUT", "QUERY") == grant(ruleset).methods
    assert ["'*' does not cover authorization"] == [
        re.findall(r"'\*' does.*?authorization", text)[0] for text in warnings
    ]


def test_toml_is_read_as_json_is() -> None:
    """The ending says which it is."""
    text = 'allow_origins = ["https://example.com"]\nallow_credentials = true\n'

    assert grant(imported("starlette", text, "cors.toml")[2]).credentials


# ---- any regex


BRANCHES = st.tuples(
    st.sampled_from(["https://", "https?://", "(http|https)://", "(?:https?)://", r"https:\/\/", ".*", ""]),
    st.sampled_from(["", r".*\.", r"(.*\.)?", r"[^.]+\.", r"([^.]+\.)?", r"(?:a|www)\.", r"\w+\.", r"[a-z0-9-]+\.",
                     r"a\.", r"(.*)\.", r"([^.]+)\.", r"(.*\.)*", ".*", ".+", r"(\w+\.){1,2}", "a?"]),
    st.sampled_from([r"example\.com", "example.com", r"(example\.com|localhost)", r"example\.(com|org)", "localhost",
                     "[a-z.]+", r"EXAMPLE\.com"]),
    st.sampled_from(["", r"(:\d+)?", ":3000", r":\d+", "(?::(3000|8443))?", ":.*", ".*", ".+", r"(:\d+)", ":[0-9]{4}"]),
).map("".join)  # fmt: skip
ANCHORED = st.tuples(st.sampled_from(["", "^", r"\A"]), BRANCHES, st.sampled_from(["", "$", r"\Z"])).map("".join)
GROUPED = st.lists(BRANCHES, min_size=1, max_size=2).flatmap(
    lambda branches: st.sampled_from([f"({'|'.join(branches)})", f"^(?:{'|'.join(branches)})$"])
)


@given(st.lists(ANCHORED | GROUPED, min_size=1, max_size=2).map("|".join), st.booleans())
def test_no_regex_gives_more_than_it_did(regex: str, whole: bool) -> None:
    """Of either tool: what is imported was let in there, too; and without a warning, all of it was."""
    options = (
        {"allow_origin_regex": regex, "allow_methods": ["*"]} if whole else {"CORS_ALLOWED_ORIGIN_REGEXES": [regex]}
    )
    match = re.compile(regex).fullmatch if whole else re.compile(regex).match
    let_in, junk = {origin for origin in ORIGINS if match(origin)}, set(ORIGINS[-7:]) - {"null"}
    try:
        engine, warnings, _ = imported("starlette" if whole else "django-cors", options)
    except RuleError as error:
        assert len(error.problems) > 1 or not let_in - junk  # noqa: PT017 - only one that says why nothing is left
        return

    assert [] == sorted(granted(engine) - let_in - junk)
    assert warnings or granted(engine) - junk == let_in - junk


# ---- django-cors-headers


def theirs(settings: dict[str, Any], origin: str) -> bool:
    """What django-cors-headers 4.9 decides about an origin, said again."""
    listed = [urlsplit(text) for text in settings.get("CORS_ALLOWED_ORIGINS", ())]
    asked = urlsplit(origin)
    return (
        any((item.scheme, item.netloc) == (asked.scheme, asked.netloc) for item in listed)
        or any(re.match(regex, origin) for regex in settings.get("CORS_ALLOWED_ORIGIN_REGEXES", ()))
    )  # fmt: skip


@pytest.mark.parametrize("regex", REGEXES)
@pytest.mark.parametrize("end", ["", "$", r"\Z"])
def test_a_regex_without_an_end_gets_one(regex: str, end: str) -> None:
    """The middleware matches beginnings. What is imported is the whole, never more; and whether it was open is said."""
    settings = {"CORS_ALLOWED_ORIGIN_REGEXES": [f"(?:{regex.removesuffix('$')}){end}"]}
    engine, warnings, _ = imported("django-cors", settings)
    whole = {origin for origin in ORIGINS if re.fullmatch(regex, origin)} - set(ORIGINS[-7:])

    assert whole == granted(engine)
    assert [] == [origin for origin in granted(engine) if not theirs(settings, origin)]
    assert ("" == end) == any("has no $ at its end" in text for text in warnings)


def test_the_hole_of_an_open_regex_is_a_test_in_the_file() -> None:
    """The origin that it let in is shown, and withheld from."""
    settings = {"CORS_ALLOWED_ORIGIN_REGEXES": [r"^https://\w+\.example\.com", r"^https://.*\.example\.org"]}
    text, warnings = import_rules("django-cors", json.dumps(settings), "settings.json")

    assert theirs(settings, "https://a.b.example.org.invalid")
    assert '{path: "/", origin: "https://a.b.example.org.invalid", share: withheld}' in text
    assert 2 == sum("has no $ at its end" in str(problem) for problem in warnings)


@pytest.mark.parametrize(
    ("regex", "expected"),
    [
        (r"https://example\.com.*", {"https://example.com"}),
        (
            r"https://.*\.example\.com.*$",
            {"https://a.example.com", "https://a.b.example.com", "https://www.example.com"},
        ),
        (r"http://localhost:.*", {"http://localhost:3000", "http://localhost:8443"}),
        (r"http://127\.0\.0\.1.+", None),  # what follows is not known, and without it is another origin
        (r"https://\w+\.example\.com.*", None),
    ],
)
def test_what_may_go_on_for_ever_ends(regex: str, expected: set[str] | None) -> None:
    """`.*` at the end lets in `.invalid` behind it. The end is imported where it is known, else nothing is."""
    options = {"allow_origins": ["https://q.invalid"], "allow_origin_regex": regex, "allow_methods": ["*"]}
    engine, warnings, _ = imported("starlette", options)

    assert (expected or set()) == granted(engine)
    assert (not regex.endswith(":.*")) == any("goes on with .*" in text for text in warnings)
    assert (expected is None) == any("it was left out; write what" in text for text in warnings)


def test_a_bare_dot_is_a_dot() -> None:
    """`www.example.com` as a regex matches other names; one of them is a test."""
    text, warnings = import_rules("starlette", json.dumps({"allow_origin_regex": "https://www.example.com"}), "a")
    engine = Engine(Ruleset.from_text(text))

    assert "it lets in 'https://wwwxexamplexcom', too; it was imported as a dot" in str(warnings[0])
    assert {"https://www.example.com"} == granted(engine)


def test_django_settings_have_its_defaults_and_older_names() -> None:
    """Methods, headers and age that are not set are those of django-cors-headers; the older names count."""
    settings = {"CORS_ORIGIN_WHITELIST": ["https://example.com", "https://a.example.com/x"], "DEBUG": True}
    engine, warnings, ruleset = imported("django-cors", settings)
    found = grant(ruleset)

    assert {"https://example.com", "https://a.example.com"} == granted(engine)
    assert ("DELETE", "OPTIONS", "PATCH", "PUT") == found.methods
    assert ("authorization", "content-type", "user-agent", "x-csrftoken", "x-requested-with") == found.headers
    assert 86_400 == found.max_age
    assert ["has more than scheme, host and port; imported as https://a.example.com"] == [
        text.partition("' ")[2] for text in warnings
    ]


@pytest.mark.parametrize(
    ("regex", "inside", "outside"),
    [
        ("^.*$", ["/", "/x"], []),
        (r"^/api/.*$", ["/api/", "/api/a/b"], ["/", "/api", "/x/api/"]),
        (r"^/api/", ["/api/", "/api/a"], ["/x/api/"]),
        (r"/api/", ["/api/", "/api/a"], ["/x/api/"]),  # re.match begins at the beginning
        (r"^/(api|graphql)/.*$", ["/api/a", "/graphql/"], ["/graphqlx", "/"]),
        (r"^/health$", ["/health"], ["/healthx", "/health/x"]),
        (r"^/v\d+/.*$", ["/v1/a", "/v22/"], ["/v/a", "/x/v1/"]),
    ],
)
def test_the_regex_of_paths_is_a_condition(regex: str, inside: list[str], outside: list[str]) -> None:
    """Grants hold on the paths that the regex matches, and nothing is said of others."""
    engine, _, _ = imported("django-cors", {"CORS_ALLOWED_ORIGINS": ["https://example.com"], "CORS_URLS_REGEX": regex})

    assert inside == [path for path in inside if re.match(regex, path)]
    assert ["granted"] * len(inside) == [share(engine, "https://example.com", path) for path in inside]
    assert [None] * len(outside) == [share(engine, "https://example.com", path) for path in outside]


def test_a_regex_of_paths_that_cannot_be_read_gives_nothing() -> None:
    """A lookahead: the rules are in mode shadow, and the warning says that they are."""
    settings = {"CORS_ALLOWED_ORIGINS": ["https://example.com"], "CORS_URLS_REGEX": "^/(?!admin)"}
    engine, warnings, ruleset = imported("django-cors", settings)

    assert ["shadow"] == [rule.mode for rule in ruleset.rules]
    assert share(engine, "https://example.com") is None
    assert "the rules are in mode shadow and give nothing; write path:" in warnings[0]


MODULE = """
import os, re
from corsheaders.defaults import default_headers
from base import *
raise SystemExit("this is never run")
CORS_ALLOWED_ORIGINS = ["https://example.com"]
CORS_ALLOWED_ORIGINS += ("https://a.example.com",)
CORS_ALLOWED_ORIGIN_REGEXES: list = [re.compile(r"^https://[^.]+\\.example\\.org$")]
CORS_ALLOW_HEADERS = (*default_headers, "x-key")
CORS_PREFLIGHT_MAX_AGE = os.environ["AGE"]
CORS_ALLOW_CREDENTIALS = True
if DEBUG:
    CORS_ALLOW_ALL_ORIGINS = True
CORS_ALLOWED_ORIGINS.append(FRONT_END)
from base import CORS_URLS_REGEX
X, CORS_ALLOW_METHODS = 1, ["GET"]
"""


def test_a_settings_module_is_read_and_not_run() -> None:
    """Literals, sums of them and the defaults of the package are read; of the rest it is said where it stands."""
    engine, warnings, ruleset = imported("django-cors", MODULE, "settings.py")

    assert {"https://example.com", "https://a.example.com", "https://a.example.org"} == granted(engine)
    assert grant(ruleset).credentials
    assert "x-key" in grant(ruleset).headers
    assert [
        "10:1: CORS_PREFLIGHT_MAX_AGE was not read: it is no literal value, and settings are not run",
        "13:5: CORS_ALLOW_ALL_ORIGINS was not read: it is under a condition, in a function or beside another",
        "14:1: CORS_ALLOWED_ORIGINS.append was not read: it is code, and settings are not run",
        "15:1: CORS_URLS_REGEX was not read: it comes from another module",
        "16:4: CORS_ALLOW_METHODS was not read: it is under a condition, in a function or beside another",
        "4:1: import * from base was not read: it may bring in settings",
    ] == sorted(text.replace("settings.py:", "").partition("; ")[0] for text in warnings)


# ---- MCP


@pytest.mark.parametrize(
    ("host", "origin", "expected"),
    [
        ("localhost:8000", "http://localhost:6274", None),
        ("mcp-server:8000", "http://localhost:6274", None),
        ("mcp-server:8001", "http://localhost:6274", "refused"),
        ("localhost:8000", "http://localhost:6274@evil.invalid", "refused"),
        ("localhost:8000", "https://evil.invalid", "refused"),
        ("localhost:8000", "null", "refused"),
        ("evil.invalid", "http://localhost:6274", "refused"),
    ],
)
def test_mcp_settings_refuse_other_hosts_and_pages(host: str, origin: str, expected: str | None) -> None:
    """Listed hosts and origins pass; `:*` is a port there and whatever follows the colon, here a port."""
    settings = {"allowed_hosts": ["localhost:*", "Mcp-Server:8000"], "allowed_origins": ["http://localhost:*"]}
    engine, warnings, _ = imported("mcp", settings)

    assert expected == share(engine, origin, "/mcp", host)
    assert ["let in whatever followed the colon"] == re.findall("let in whatever followed the colon", "".join(warnings))


def test_mcp_settings_that_never_matched_are_left_out() -> None:
    """Patterns that the SDK does not know, default ports, paths, null."""
    settings = {
        "enable_dns_rebinding_protection": False,
        "allowed_hosts": ["*", "*.example.com", "example.com:80", "example.com"],
        "allowed_origins": ["null", "https://example.com/", "https://*.example.com"],
    }  # fmt: skip
    engine, warnings, _ = imported("mcp", settings)

    assert 7 == len(warnings)
    assert "so nothing was checked" in warnings[0]
    assert [None, "refused", "refused"] == [
        engine.peek(None, headers=headers, path="/mcp").share
        for headers in (
            [(b"host", b"example.com")],
            [(b"host", b"a.example.com")],
            [(b"host", b"example.com"), (b"origin", b"https://a.example.com")],
        )
    ]


# ---- bad input


@pytest.mark.parametrize(
    ("tool", "text", "source", "message"),
    [
        ("starlette", "{", "a.json", "a.json: the file is no JSON: "),
        ("starlette", "[" * 100_000, "a.json", "a.json: the file is no JSON: "),
        ("starlette", "[]", "a.json", "a.json: the file holds a list, no mapping"),
        ("starlette", "a =", "a.toml", "a.toml: the file is no TOML: "),
        ("mcp", "a = 1", "a.py", "a.py: a Python file is read for django-cors alone"),
        ("django-cors", "a = (\n", "a.py", "a.py:1:5: the file is no Python: "),
        ("django-cors", "a = 1\0", "a.py", "the file is no Python: "),
        ("starlette", '{"allow_origins": [1], "max_age": "x"}', "a", "allow_origins is [1]; write a list of texts"),
        ("starlette", '{"allow_origins": [1], "max_age": "x"}', "a", "max_age is 'x'; write a whole number"),
        ("starlette", '{"allow_origin_regex": "("}', "a", "allow_origin_regex '(' is no regex: "),
        ("starlette", "{}", "a", "leave no origin that may read anything; list one"),
        ("starlette", '{"allow_origins": ["https://X.com"]}', "a", "'https://X.com' never matched"),
        ("mcp", "{}", "a", "allowed_hosts leaves no name"),
    ],
)  # fmt: skip
def test_what_cannot_be_imported_is_an_error_that_says_why(tool: str, text: str, source: str, message: str) -> None:
    """All that is wrong at once, the warnings too."""
    with pytest.raises(RuleError) as caught:
        import_rules(tool, text, source)
    assert message in str(caught.value)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20), lambda inner: st.lists(inner, max_size=3)
)


@given(VALUES, st.sampled_from(["starlette", "mcp"]))
def test_no_value_of_an_option_is_more_than_an_error(value: Any, tool: str) -> None:
    """Whatever an option holds, the rules are good or a RuleError says what is wrong; no comment is left."""
    names = {"starlette": ("allow_origins", "allow_origin_regex", "expose_headers", "allow_headers", "allow_methods"),
             "mcp": ("allowed_hosts", "allowed_origins")}  # fmt: skip
    base = {"starlette": {"allow_origins": ["https://example.com"]}, "mcp": {"allowed_hosts": ["localhost"]}}
    for name in names[tool]:
        with suppress(RuleError):
            imported(tool, {**base[tool], name: value}, "a\nrules: [")


@pytest.mark.parametrize(
    "regex",
    [
        r"^https://" + "a-long-name-of-an-application" * 4 + r"[0-9]{2}\.example\.com$",
        r"^https://" + "(a|b|c)" * 40 + r"\.example\.com$",
    ],
)
def test_a_regex_of_many_ways_to_read_it_is_kept(regex: str) -> None:
    """It ends at once: neither are all the ways to part a name tried, nor all the names that it stands for listed."""
    found = translated("CORS_ALLOWED_ORIGIN_REGEXES", regex, Notes("settings.py"), whole=False)

    assert ["re:" + regex.removeprefix("^").removesuffix("$")] == found.patterns
