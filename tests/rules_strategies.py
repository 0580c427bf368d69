"""Random rules, AS tables and addresses in the oracle's words, and the rules file they make."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from oracle.rules import OracleNetworks, OracleRule

# Few distinct high bits, so that prefixes nest, touch and repeat.
_V4 = st.builds(
    lambda high, low: high << 24 | low, st.sampled_from([0, 10, 255]), st.sampled_from([0, 1, 2, 255, 0xFFFFFF])
)
_V6 = st.builds(
    lambda high, low: high << 64 | low,
    st.sampled_from([0, 0x20010DB8 << 32, (1 << 64) - 1]),
    st.sampled_from([0, 1, (1 << 64) - 1, 1 << 63]),
)
_NAMES = ("GOOGLE Google LLC", "Proxy House", "Hosting-Proxy", "")
_REGEXES = ("proxy", "^AS1 ", "GOO+GLE", "hosting|house", "AS[12]")


def _prefix(value: int, bits: int, family: Any) -> str:
    width = 32 if family is ipaddress.IPv4Address else 128
    return f"{family(value >> (width - bits) << (width - bits))}/{bits}"


prefixes = st.one_of(
    st.builds(lambda v, b: _prefix(v, b, ipaddress.IPv4Address), _V4, st.sampled_from([0, 1, 8, 24, 31, 32])),
    st.builds(
        lambda v, b: _prefix(v, b, ipaddress.IPv6Address), _V6, st.sampled_from([0, 1, 32, 63, 64, 65, 127, 128])
    ),
)
addresses = st.one_of(
    _V4.map(lambda value: str(ipaddress.IPv4Address(value))), _V6.map(lambda value: str(ipaddress.IPv6Address(value)))
)
prefix_lists = st.none() | st.lists(prefixes, min_size=1, max_size=6).map(tuple)
asns = st.integers(1, 4)

HOSTS = (
    "a.example",
    "x.a.example",
    "y.x.a.example",
    "b.example",
    "c21.top",
    "z.c2.top",
    "A.EXAMPLE.",
    "example",
    "d.test",
)
_PATTERNS = (
    "a.example", "A.example.", "*.a.example", "**.a.example", ".a.example", ".example", "x*.a.example",
    "*.c2[0-9]+.top", "re:[ab][.]example", "re:.*[.]top", "b.example",
)  # fmt: skip
_LISTED = tuple(pattern for pattern in _PATTERNS if not pattern.startswith("re:"))
JA4S = (
    "t13d1516h2_8daaf6152771_02713d6af862", "q13i0310h3_55b375c5d22e_cd85d2d88918",
    "t12d0204Zz_000000000000_ffffffffffff", "t13d1516h2_8daaf6152771_02713d6af86", "t13d1516h2", "T13d1516h2", "",
    "t13d1516h2_8daaf6152771_02713D6AF862", "t14d1516h2_8daaf6152771_02713d6af862", "caf\xe9", "\ud800",
)  # fmt: skip
"""Some that rules name, one that they do not, and some that are none."""
PROTOCOLS = ("h2", "http/1.1", "dot", "\xe9")


def _some(*values: str, most: int = 3) -> st.SearchStrategy[tuple[str, ...] | None]:
    return st.none() | st.lists(st.sampled_from(values), min_size=1, max_size=most).map(tuple)


signal_conditions = st.fixed_dictionaries(
    {
        "sni": _some(*_PATTERNS, "absent", "malformed"),
        "sni_file": _some(*_LISTED, most=6),
        "alpn": _some(*PROTOCOLS),
        "tls_version_below": st.none() | st.sampled_from(["1.0", "1.1", "1.2", "1.3"]),
        "ech": _some("none", "outer", "inner"),
        "ja4": _some(*JA4S[:2]),
        "ja4_prefix": _some("t", "t13", "t12", "t13d0204", "t13d", "q", "t13d1516h2_8daaf6152771_0"),
    }
).flatmap(
    lambda asked: st.lists(st.sampled_from(sorted(asked)), max_size=2).map(lambda kept: {k: asked[k] for k in kept})
)


# Names beside which HOSTS look odd: wrong ones, and ones in another form.
NAMES = (
    "g00gle.com", "www.goog1e.com", "xn--ggle-55da.com", "mail.google.com", "gogle.com", "1ogin.a.example", "d.test",
    "xn--bcher-kva.example", "bucher.example", "b.example", "a..b", "", "A.example", "login.a.example", "exampl",
)  # fmt: skip
AUTHORITIES = (
    *NAMES, "A.example:443", "x.a.example.", "g00gle.com:8443", "192.0.2.1", "[2001:db8::1]:443", "a.example:port",
    "x@a.example", "g\u043e\u043egle.com", "a" * 300,
)  # fmt: skip
AGENTS = (
    "curl/8.5.0", "Mozilla/5.0 Chrome/120 Safari/537.36", "SQLmap/1.7", "Googlebot/2.1", "bingbot yandexbot",
    "xbingbot YandexSearch/5.75", "(YandexImages/3.0;googlebot)", "caf\xe9",
    "a b", "",
)  # fmt: skip
_PARTS = ("curl", "CHROME", "bot", "/", "7.36", "\xe9", "a", "Mozilla/5.0")
_REGEX = ("bot|spider", "^curl", "Chrome/1[0-9]{2}", "(?-i)CURL", "[0-9]$", "^$", "\xc9")
_operators = st.dictionaries(
    st.sampled_from(["equals", "contains", "prefix", "suffix"]),
    st.sampled_from(_PARTS) | st.just(["curl/8.5.0", "A B"]), min_size=1, max_size=2,
) | st.fixed_dictionaries(
    {"regex": st.sampled_from(_REGEX) | st.lists(st.sampled_from(_REGEX), min_size=1, max_size=2)},
    optional={"present": st.just(True), "contains": st.sampled_from(_PARTS)},
) | st.fixed_dictionaries({"absent": st.booleans()}) | st.fixed_dictionaries({"present": st.booleans()})  # fmt: skip
_header = _operators | st.lists(
    st.sampled_from(["absent", "present", "malformed", "curl/8.5.0", "CAF\xc9", "b"]), min_size=1, max_size=3
) | st.sampled_from(["absent", "SQLMAP/1.7"])  # fmt: skip
PATHS = (
    "/",
    "/admin",
    "/admin/x",
    "/admin/x/y.php",
    "/a.php",
    "/Admin",
    "*",
    "/a?b",
    "/a?x=/admin",
    "bad",
    "",
    "/\0",
    "//admin/x",
    "/%2fadmin",
    "/a/../admin/x",
    "/%2e%2e/admin",
    "/admin;a=b/x",
    "\\admin",
    "/%252e%252e/Admin",
    "/app/admin/x",
    "/app//admin",
    "/a%00",
    "http://host/admin?b",
    "http://host",
    "/a.php#b",
    "/admin%2fx/",
    "/..;/admin/%2f/..%5c//%25",
)
_GLOBS = ("/", "/admin/**", "/admin/*", "/*.php", "/**.php", "/a????", "*", "/Admin", "/**")

request_conditions = st.fixed_dictionaries(
    {
        "header": st.dictionaries(st.sampled_from(["user-agent", "User-Agent", "accept", "x-a", "cookie"]), _header,
                                  min_size=1, max_size=2).filter(lambda d: len({k.lower() for k in d}) == len(d)),
        "ua_family": _some("curl", "chrome", "bot", "other"),
        "crawler": _some("googlebot", "yandexbot", "bingbot", "any"),
        "fingerprint": _some("gh2:7d06b6a18b45572b3cd92372e5cc3694", "gh2:" + "0" * 32),
        "shape": _some("gs1:058c95d827e0ae3e0551705cbbc4f456", "gs1:" + "0" * 32),
        "method": _some("GET", "POST", "PUT"),
        "lookalike": _some("google.com", "a.example", "login.a.example", "b\xfccher.example", "example"),
        "sni_host": _some("agree", "coalesced", "differ", "unknown"),
        "path": st.sampled_from(_GLOBS) | st.lists(st.sampled_from(_GLOBS), min_size=1, max_size=3)
        | st.dictionaries(st.sampled_from(["prefix", "glob", "equals"]), st.sampled_from(["/admin", "/", "/a"]),
                          min_size=1)
        | st.fixed_dictionaries({"regex": st.sampled_from(["php$", "^/[a-z]+$", "(?i)ADMIN"])}),
    }
).flatmap(
    lambda asked: st.lists(st.sampled_from(sorted(asked)), max_size=2).map(lambda kept: {k: asked[k] for k in kept})
)  # fmt: skip


@st.composite
def signal_rules(draw: st.DrawFn) -> list[OracleRule]:
    """Rules some of which require names and hellos, in sets that need one word a vector, two, and more."""
    rules = draw(rule_lists())
    extra = draw(st.lists(signal_conditions, min_size=1, max_size=5))
    return [replace(rule, **extra[i % len(extra)]) for i, rule in enumerate(rules)]


@st.composite
def request_rules(draw: st.DrawFn) -> list[OracleRule]:
    """Rules that require headers, method, path, and some for a name as well."""
    rules = draw(rule_lists())
    extra = draw(st.lists(request_conditions, min_size=1, max_size=6))
    names = draw(st.lists(st.none() | st.just(("a.example", "absent")), min_size=1, max_size=3))
    served = draw(st.sampled_from([(), ("a.example", "*.a.example"), ("*.com", "login.a.example")]))
    return [
        replace(rule, **extra[i % len(extra)], sni=names[i % len(names)], names=served) for i, rule in enumerate(rules)
    ]


@st.composite
def rule_lists(draw: st.DrawFn) -> list[OracleRule]:
    count = draw(st.integers(1, 5) | st.sampled_from([64, 65, 130]))
    distinct = draw(
        st.lists(
            st.builds(
                OracleRule,
                id=st.just(""),
                action=st.sampled_from(["allow", "challenge", "ban", "log"]),
                mode=st.sampled_from(["enforce", "enforce", "shadow", "off"]),
                priority=st.sampled_from([1, 100, 200]),
                prefix=prefix_lists,
                prefix_file=prefix_lists,
                outside=st.none() | prefix_lists,
                outside_file=st.none() | prefix_lists,
                asn=st.none()
                | st.lists(st.tuples(asns, st.just(4)) | asns.map(lambda n: (n, n)), min_size=1).map(tuple),
                asn_name=st.none() | st.lists(st.sampled_from(_REGEXES), min_size=1, max_size=2).map(tuple),
            ),
            min_size=1,
            max_size=min(count, 5),
        )
    )
    return [OracleRule(**{**vars(distinct[i % len(distinct)]), "id": f"r{i}"}) for i in range(count)]


networks = st.builds(
    OracleNetworks,
    st.dictionaries(prefixes, asns, max_size=8).map(lambda pairs: tuple(pairs.items())),
    st.dictionaries(asns, st.sampled_from(_NAMES)),
)


def published(prefixes: tuple[str, ...]) -> str:
    """The prefixes as search engines publish theirs."""
    entries = [{f"ipv{6 if ':' in prefix else 4}Prefix": prefix} for prefix in prefixes]
    return json.dumps({"creationTime": "2026-11-26T00:00:00", "prefixes": entries}, indent=1)


def as_text(rules: list[OracleRule], directory: Path) -> str:
    """The rules as a YAML file, with its list files beside it."""
    entries = []
    for rule in rules:
        when: dict[str, Any] = {}
        if rule.prefix:
            when["prefix"] = list(rule.prefix)
        if rule.prefix_file:
            (directory / f"{rule.id}.txt").write_text("\n".join(rule.prefix_file))
            when["prefix_file"] = f"{rule.id}.txt"
        if rule.outside:
            when["outside"] = list(rule.outside)
        if rule.outside_file:
            (directory / f"{rule.id}.json").write_text(published(rule.outside_file))
            when["outside_file"] = f"{rule.id}.json"
        if rule.asn:
            when["asn"] = [f"AS{first}-{last}" for first, last in rule.asn]
        if rule.asn_name:
            when["asn_name"] = list(rule.asn_name)
        if rule.sni_file:
            (directory / f"{rule.id}.names").write_text("\n".join(rule.sni_file))
            when["sni_file"] = f"{rule.id}.names"
        for key in ("sni", "ja4", "ja4_prefix", "alpn", "ech", "lookalike", "sni_host"):
            if getattr(rule, key) is not None:
                when[key] = list(getattr(rule, key))
        for key in ("header", "ua_family", "crawler", "fingerprint", "shape", "method", "path"):
            asked = getattr(rule, key)
            if asked is not None:
                when[key] = list(asked) if isinstance(asked, tuple) else asked
        if rule.tls_version_below is not None:
            when["tls_version_below"] = rule.tls_version_below
        entries.append(
            {"id": rule.id, "when": when or "any", "action": rule.action, "mode": rule.mode, "priority": rule.priority}
        )
    head = {"names": list(rules[0].names)} if rules and rules[0].names else {}
    return yaml.safe_dump({"rules": entries, **head})
