"""Random rules of several effects, and requests that meet them, in the oracle's words; and the rules file they make."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import yaml
from hypothesis import strategies as st

from oracle.requests import OracleRequest
from oracle.rules import OracleRule

ORIGINS = (
    "https://app.example.com", "https://app.example.com:8443", "http://app.example.com", "https://a.b.example.com",
    "https://example.com", "http://localhost:5173", "https://[2001:db8::1]:8443", "null", "https://app.example.com/",
    "HTTPS://APP.example.com", "", "https://app.example.com, https://b.example", "https://192.0.2.1",
    "https://app.example.com.evil.example",
)  # fmt: skip
ORIGIN_PATTERNS = (
    "https://app.example.com", "https://*.example.com", "https://**.example.com", "http://localhost:*",
    "https://app.example.com:*", "https://[2001:db8::1]:8443", "absent", "malformed", "re:https://a[.]b[.].*",
)  # fmt: skip
HOSTS = (
    "app.example.com", "APP.example.com:443", "app.example.com:80", "app.example.com:8443", "a.b.example.com",
    "localhost:9", "192.0.2.1", "[2001:db8::1]:8443", "a/b", "", "evil.example",
)  # fmt: skip
HOST_PATTERNS = (
    "app.example.com", "*.example.com", "**.example.com", "localhost:*", "app.example.com:8443", "192.0.2.1",
    "[2001:db8::1]:*", "absent", "malformed",
)  # fmt: skip
SITES = ("same-origin", "same-site", "cross-site", "none")
MODES = ("cors", "navigate", "websocket")
PATHS = (
    "/events/1", "/public/x", "/healthz", "//healthz", "/x/../events/1", "/%65vents/1", "/app/events/1", "/events/%2e",
    "/other", "bad", "/a%00", "*", "",
)  # fmt: skip
GLOBS = ("/events/**", "/public/**", "/healthz", "/app/**", "/**")
METHODS = ("GET", "HEAD", "POST", "PUT", "OPTIONS", "OPTIONS", "OPTIONS", "PATCH")
JUNK_METHODS = ("", "a b", "get", "X" * 33, "PUT, PUT", "\xe9")
PREFIXES = ("10.0.0.0/8", "192.0.2.0/24", "2001:db8::/32")
ADDRESSES = (None, "", "10.1.2.3", "192.0.2.1", "2001:db8::1", "203.0.113.9")


def some(*values: str, most: int = 3) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(values), min_size=1, max_size=most, unique=True).map(tuple)


_header = (
    some("absent", "present", "malformed", "a", "b").map(list)
    | st.fixed_dictionaries({"contains": st.sampled_from(["a", "b"])})
    | st.fixed_dictionaries({"regex": st.sampled_from(["^a", "b$", "^$"]), "suffix": st.sampled_from(["a", "b"])})
    | st.fixed_dictionaries({"absent": st.booleans()})
)
_names = st.sampled_from(["x-a", "cookie", "authorization", "user-agent", "sec-fetch-site"])
_globs = some(*GLOBS) | st.fixed_dictionaries(
    {"regex": st.sampled_from(["^/[a-z]+/", "z$"]), "prefix": st.sampled_from(["/e", "/h", "/"])}
)


def conditions(inside: bool) -> st.SearchStrategy[dict[str, Any]]:
    """Up to three conditions; `inside`: those that may stand under `not:`."""
    known: dict[str, st.SearchStrategy[Any]] = {
        "header": st.dictionaries(_names, _header, min_size=1, max_size=1 if inside else 2),
        "ua_family": some("curl", "chrome", "other"),
        "crawler": some("googlebot", "any"),
        "fingerprint": some("gh2:" + "0" * 32, "gh2:7d06b6a18b45572b3cd92372e5cc3694"),
        "method": some("GET", "PUT", "OPTIONS", "POST"),
        "path": _globs,
        "origin": some(*ORIGIN_PATTERNS),
        "host": some(*HOST_PATTERNS),
        "fetch_site": some(*SITES, "absent", "malformed"),
        "fetch_mode": some(*MODES, "absent"),
        "fetch_dest": some("empty", "document", "absent"),
        "cross_origin_write": st.booleans(),
        "prefix": some(*PREFIXES),
        "asn": st.sampled_from([((1, 1),), ((1, 4),), ((2, 3),)]),
    }
    if not inside:
        known["sni"] = some("app.example.com", "**.example.com", "absent", "malformed")
        known["negated"] = conditions(inside=True).map(lambda found: OracleRule("", "", **found))
    common = ("path", "path", "origin", "origin", "method", "host", "cross_origin_write", "header", "fetch_site")
    often = (*known, *common) + (() if inside else ("negated",) * 4)
    return st.lists(st.sampled_from(often), min_size=int(inside), max_size=2 if inside else 3, unique=True).flatmap(
        lambda names: st.fixed_dictionaries({name: known[name] for name in names})
    )


_modes = st.sampled_from(["enforce", "enforce", "enforce", "shadow", "off"])
_admit = st.builds(
    lambda found, action, mode, priority: OracleRule("", action, mode, priority, **found),
    conditions(False), st.sampled_from(["allow", "challenge", "ban", "log"]), _modes, st.sampled_from([1, 100]),
)  # fmt: skip


def _share(found: dict[str, Any], action: str, mode: str, priority: int, given: dict[str, Any]) -> OracleRule:
    """A rule that compiles: no grant is for what is no origin, or has credentials for any."""
    rule = OracleRule("", action, mode, priority, effect="share", **found)
    if action != "grant":
        return rule
    origins = tuple(item for item in rule.origin or () if item != "malformed") or None
    patterns = [item for item in origins or () if item != "absent"]
    return replace(rule, **given | {"origin": origins, "credentials": given["credentials"] and bool(patterns)})


_given = st.fixed_dictionaries(
    {
        "credentials": st.booleans(),
        "methods": st.sampled_from([(), ("PUT",), ("*",), ("PATCH", "PUT")]),
        "headers": st.sampled_from([(), ("x-b",), ("*",), ("X-A", "authorization"), ("*", "authorization")]),
    }
)
_shares = st.builds(
    _share, conditions(False), st.sampled_from(["grant", "grant", "grant", "withhold", "refuse"]), _modes,
    st.sampled_from([1, 100]), _given,
)  # fmt: skip


@st.composite
def rulesets(draw: st.DrawFn) -> list[OracleRule]:
    """Rules of both effects, mixed; some without share rules, some more than one word or two words of a vector."""
    distinct = draw(
        st.lists(_shares | _shares | _shares | _admit, min_size=1, max_size=7)
        | st.lists(_shares, min_size=1, max_size=3)
        | st.lists(_shares, min_size=1, max_size=3)
        | st.lists(_admit, min_size=1, max_size=4)
    )
    count = draw(st.sampled_from([len(distinct)] * 8 + [60, 70, 140]))
    return [replace(distinct[index % len(distinct)], id=f"r{index}") for index in range(max(count, len(distinct)))]


_values = st.sampled_from(
    [
        b"a",
        b"b",
        b"ba",
        b"",
        b"curl/8",
        b"Googlebot/2.1",
        b"same-origin",
        b"\xe9",
        b"a" * 4097,
        b"b" * 4096,
        b"a" + b"b" * 5000,
    ]
)
_lines = st.one_of(
    st.sampled_from(ORIGINS).map(lambda text: (b"origin", text.encode())),
    st.sampled_from(HOSTS).map(lambda text: (b"Host", text.encode())),
    st.sampled_from((*SITES, "", "Same-Origin", "x")).map(lambda text: (b"sec-fetch-site", text.encode())),
    st.sampled_from(MODES).map(lambda text: (b"sec-fetch-mode", text.encode())),
    st.sampled_from(["empty", "document"]).map(lambda text: (b"Sec-Fetch-Dest", text.encode())),
    st.sampled_from(METHODS + JUNK_METHODS).map(
        lambda text: (b"access-control-request-method", text.encode("latin-1"))
    ),
    st.sampled_from(
        ["x-b", "authorization", "x-a", "x-b,x-c", "authorization,x-b", "", "x-b,x-a", "X-B", " x-b ,", "a b"]
    ).map(lambda text: (b"access-control-request-headers", text.encode())),
    st.tuples(st.sampled_from([b"x-a", b"cookie", b"authorization", b"user-agent", b"User-Agent"]), _values),
)
_odd = st.sampled_from([(b"x-a", b"\0"), (b"b d", b"c"), (b":scheme", b"https"), (b":path", b"/events/1"),
                        (b":method", b"PUT"), (b":authority", b"app.example.com")])  # fmt: skip
_preflight = st.builds(
    lambda origin, method: [(b"origin", origin.encode()), (b"access-control-request-method", method.encode())],
    st.sampled_from(ORIGINS[:6]), st.sampled_from(["PUT", "GET", "PATCH", "POST"]),
)  # fmt: skip
_browser = st.lists(_lines, max_size=6, unique_by=lambda line: line[0].lower())


@st.composite
def requests(draw: st.DrawFn) -> OracleRequest:
    """Requests of browsers and of others: one line each or several, odd ones, unknown headers, preflights."""
    lines = draw(_browser | _browser | st.lists(_lines | _odd, max_size=6))
    method = draw(st.sampled_from((*METHODS, None)) | st.sampled_from((*METHODS, None, *JUNK_METHODS)))
    if draw(st.integers(0, 2)) == 0:
        names = {b"origin", b"access-control-request-method"}
        lines = [*[line for line in lines if line[0].lower() not in names], *draw(_preflight)]
        method = "OPTIONS"
    if draw(st.booleans()):
        lines = [line for line in lines if not line[0].startswith(b":")]
    known = None
    if draw(st.integers(0, 9)) == 0:
        known = tuple(draw(st.lists(st.sampled_from(
            ["origin", "host", "sec-fetch-site", "x-a", "cookie", "user-agent"]), unique=True)))  # fmt: skip
    return OracleRequest(
        None if draw(st.integers(0, 11)) == 0 else tuple(lines),
        method,
        draw(st.none() | st.sampled_from(PATHS) | st.sampled_from(PATHS[:4])),
        draw(st.sampled_from(["", "", "", "/app", "/app/v1/"])),
        known,
        draw(st.sampled_from([None, "https", "http", "wss", "x"])),
        draw(st.sampled_from([None] * 6 + ["app.example.com", "evil.example:1", "b/a"])),
    )  # fmt: skip


def written(rule: OracleRule) -> dict[str, Any]:
    """The conditions of a rule as a file has them."""
    when: dict[str, Any] = {}
    for key in ("prefix", "asn_name", "sni", "header", "ua_family", "crawler", "fingerprint", "shape", "method", "path",
                "origin", "host", "fetch_site", "fetch_mode", "fetch_dest", "cross_origin_write"):  # fmt: skip
        asked = getattr(rule, key)
        if asked is not None:
            when[key] = list(asked) if isinstance(asked, tuple) else asked
    if rule.asn is not None:
        when["asn"] = [f"AS{first}-{last}" for first, last in rule.asn]
    if rule.negated is not None:
        when["not"] = written(rule.negated)
    return when


def as_text(rules: list[OracleRule], head: str = "") -> str:
    """The rules as a file: those about admission under `rules:`, those about sharing under `share:`."""
    sections: dict[str, list[dict[str, Any]]] = {}
    for rule in rules:
        entry: dict[str, Any] = {"id": rule.id, "when": written(rule) or "any", "action": rule.action,
                                 "mode": rule.mode, "priority": rule.priority}  # fmt: skip
        if rule.action == "grant":
            given = {"credentials": rule.credentials, "methods": list(rule.methods), "headers": list(rule.headers)}
            entry |= {key: value for key, value in given.items() if value}
        sections.setdefault("rules" if rule.effect == "admit" else "share", []).append(entry)
    return head + yaml.safe_dump(sections)
