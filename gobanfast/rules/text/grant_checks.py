"""Validation of what a grant says: every problem at once, each with a typed reason.

Nothing here knows rules or YAML: whoever reads a grant says where its fields are.
Sources: Fetch Standard (forbidden methods and header names, credentials and `*`); Public Suffix List.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

from gobanfast._core.address import parse_address
from gobanfast.names import compile_regex
from gobanfast.origins import OriginPattern, PatternError, Reason, parse_origin_pattern
from gobanfast.wire.fetch import FORBIDDEN_RESPONSE_HEADERS, TOKEN, is_forbidden_header, is_forbidden_method

__all__ = ["GrantProblem", "grant_entry_problems", "grant_problems", "is_of_anybody", "may_be_http", "public_suffix"]

Field = Literal["origins", "methods", "headers", "expose", "max_age"]

MAX_AGE = 86400  # seconds; what browsers keep at most
_ENDINGS = ("com", "net", "org", "io", "dev", "app", "ai", "co", "de", "eu", "co.uk", "example")
# No regex of an owner matches one of these: what "https://.+\.com" does, anybody can register.
_ANYTHING = (
    "https://a.invalid", "http://b.invalid:1", "https://x.y.z",
    *(f"https://{name}.{ending}" for ending in _ENDINGS for name in ("anybodyelse", "anybody-3.else")),
)  # fmt: skip
_LOOPBACK4, _LOOPBACK6 = bytes(10) + b"\xff\xff\x7f", bytes(15) + b"\1"  # 127.0.0.0/8, also mapped; ::1
# `http:`, `https?:`, `(https|http):` in a regex, but before a host that is this machine.
_HTTP = re.compile(
    r"(?<![a-z0-9.-])http(?:s\?|\((?:\?:)?s\)\?|\|https)?\)?:(?!//(?:\((?:\?:)?)?(?:localhost|127\\?\.|\\?\[::1))"
)
_IN_THE_CLEAR = frozenset({"http", "ws", "ftp"})
_ANSWERS = frozenset({
    "access-control-allow-credentials", "access-control-allow-headers", "access-control-allow-methods",
    "access-control-allow-origin", "access-control-allow-private-network", "access-control-expose-headers",
    "access-control-max-age",
})  # fmt: skip
_NEVER_READ = frozenset({
    "access-control-allow-headers", "access-control-allow-methods", "access-control-allow-private-network",
    "access-control-max-age", "access-control-request-headers", "access-control-request-method",
    "access-control-request-private-network", "origin",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class GrantProblem:
    """One thing that a grant cannot say: in which field, which value, what kind of problem, what would be right."""

    field: Field
    value: str
    reason: Reason
    message: str
    hint: str


def grant_problems(
    *,
    origins: Sequence[str],
    credentials: bool = False,
    methods: Iterable[str] = (),
    headers: Iterable[str] = (),
    expose: Iterable[str] = (),
    max_age: int = 0,
    dangerously_allow_insecure: bool = False,
    dangerously_allow_public_suffix: bool = False,
) -> list[GrantProblem]:
    """Everything that is wrong with a grant, in the order of its fields; empty when nothing is.

    Args:
        origins: origin patterns without the words `absent` and `malformed`; `["*"]` where any origin is granted.
        methods, headers, expose: method and header names, or `*`.
        max_age: seconds that a browser may keep the answer to a preflight; 0: its own default, -1: not at all.
    """
    found: list[GrantProblem] = []
    if not origins:
        found.append(
            GrantProblem("origins", "", "missing", "a grant has no origin", "write one such as https://app.example.com")
        )
    for text in origins:
        try:
            pattern = parse_origin_pattern(text)
        except PatternError as error:
            found.append(GrantProblem("origins", text, error.reason, error.what, error.hint))
            continue
        if credentials:
            found += _credentialed(pattern, dangerously_allow_insecure, dangerously_allow_public_suffix)
    found += _names("methods", methods, _method_problem)
    found += _names("headers", headers, _header_problem)
    found += _names("expose", expose, lambda name: _expose_problem(name, credentials))
    if not -1 <= max_age <= MAX_AGE:
        what = f"max_age {max_age} s is out of bounds"
        found.append(GrantProblem("max_age", str(max_age), "bounds", what, f"write 0 to {MAX_AGE} s, or -1 for none"))
    return found


def grant_entry_problems(
    entry: Mapping[str, Any], sets: Mapping[str, Any]
) -> Iterator[tuple[tuple[str | int, ...], GrantProblem]]:  # fmt: skip
    """What is wrong with a grant as a rules file has it, each with the path to its value in the entry.

    Args:
        entry: one of `share:`, not checked yet; what is of the wrong type is left to who checks that.
        sets: the `sets:` of all files, by name.
    """
    when = entry.get("when")
    listed = _texts(when.get("origin")) if isinstance(when, dict) else []
    known: dict[str, tuple[str | int, ...]] = {}
    for index, text in listed:
        path: tuple[str | int, ...] = ("when", "origin", *index)
        inside = sets.get(text[1:]) if text.startswith("@") else None
        for _, member in _texts(inside.get("origin")) if isinstance(inside, dict) else [((), text)]:
            known.setdefault(member, path)
    if "malformed" in known:
        what = "origin 'malformed' in a grant lets in what is no origin"
        yield known["malformed"], GrantProblem("origins", "malformed", "prohibited", what, "remove it")
    patterns = [text for text in known if text not in ("absent", "malformed") and _is_pattern(text)]
    fields = {name: _texts(entry.get(name)) for name in ("methods", "headers", "expose")}
    for problem in grant_problems(
        origins=patterns if known else ["*"],
        credentials=entry.get("credentials") is True,
        dangerously_allow_insecure=entry.get("dangerously_allow_insecure") is True,
        dangerously_allow_public_suffix=entry.get("dangerously_allow_public_suffix") is True,
        methods=[text for _, text in fields["methods"]],
        headers=[text for _, text in fields["headers"]],
        expose=[text for _, text in fields["expose"]],
    ):
        if problem.field == "origins":
            if known:
                if problem.reason != "missing":
                    yield known[problem.value], problem
                continue
            what = "a grant with credentials and no origin lets every page act for the user"
            hint = "write origin: under when:, or leave credentials out"
            yield ("credentials",), replace(problem, message=what, hint=hint)
        else:
            index = next(index for index, text in fields[problem.field] if text == problem.value)
            yield (problem.field, *index), problem


def _texts(value: Any) -> list[tuple[tuple[int, ...], str]]:
    """The texts among one value or several, each with its path."""
    if isinstance(value, str):
        return [((), value)]
    return [
        ((index,), text) for index, text in enumerate(value if isinstance(value, list) else []) if isinstance(text, str)
    ]


def _is_pattern(text: str) -> bool:
    try:
        parse_origin_pattern(text)
    except PatternError:
        return False
    return True


_INSECURE: tuple[Reason, str, str] = (
    "insecure", "trusts everybody on the network between", "write https://, or dangerously_allow_insecure: true"
)  # fmt: skip


def _credentialed(pattern: OriginPattern, insecure: bool, suffix: bool) -> list[GrantProblem]:
    """What is wrong with an origin that gets credentials; one problem at most, the worst one."""
    text = pattern.text

    def problem(reason: Reason, what: str, hint: str) -> list[GrantProblem]:
        return [GrantProblem("origins", text, reason, f"origin pattern {text!r} with credentials {what}", hint)]

    if pattern.kind == "any":
        return problem("wildcard", "lets every page act for the user", "list the origins, or leave credentials out")
    if pattern.kind == "regex":
        if is_of_anybody(text.removeprefix("re:")):
            return problem("wildcard", "matches origins of anybody", "write the names that are yours into the regex")
        return [] if insecure or not may_be_http(text.removeprefix("re:")) else problem(*_INSECURE)
    if _is_local(pattern.host):
        return []
    if pattern.scheme in _IN_THE_CLEAR and not insecure:
        return problem(*_INSECURE)
    if pattern.kind in ("one", "many") and not suffix and public_suffix(pattern.host):
        return problem(
            "psl", f"covers names of anybody below the public suffix {pattern.host.rstrip('.')}",
            "write a name that is yours, or dangerously_allow_public_suffix: true",
        )  # fmt: skip
    return []


def is_of_anybody(regex: str) -> bool:
    """Whether a regex of origins matches those of people who have nothing to do with who wrote it."""
    matches = compile_regex(regex)
    return any(matches(origin) is not None for origin in _ANYTHING)


def may_be_http(regex: str) -> bool:
    """Whether a regex of origins names the scheme http, as far as its text shows, and not for this machine alone."""
    return _HTTP.search(regex) is not None


def _is_local(host: str) -> bool:
    """Whether a host is this machine: localhost and names below it (RFC 6761, section 6.3), loopback addresses."""
    name = host.removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    packed = parse_address(host.strip("[]"))
    return packed is not None and (packed == _LOOPBACK6 or packed[:13] == _LOOPBACK4)


@cache
def _suffixes() -> Callable[[str], bool]:
    import publicsuffixlist  # megabytes, and few rules ask

    is_public: Callable[[str], bool] = publicsuffixlist.PublicSuffixList().is_public
    return is_public


def public_suffix(host: str) -> bool:
    """Whether names directly below this one belong to different people."""
    return _suffixes()(host.removesuffix("."))


def _names(
    field: Field, names: Iterable[str], check: Callable[[str], tuple[Reason, str, str] | None]
) -> list[GrantProblem]:
    found = []
    for name in names:
        problem = check(name)
        if problem is not None:
            reason, what, hint = problem
            noun = "method" if field == "methods" else "header"
            found.append(GrantProblem(field, name, reason, f"{noun} {name[:300]!r} {what}", hint))
    return found


_NO_TOKEN = "write one name an item, of letters, digits and hyphens"  # noqa: S105 - a hint


def _method_problem(name: str) -> tuple[Reason, str, str] | None:
    if not TOKEN.fullmatch(name):
        return "invalid", "is no token", _NO_TOKEN
    if is_forbidden_method(name):
        return "forbidden", "is one that no page may send", "leave it out"
    return None


def _header_problem(name: str) -> tuple[Reason, str, str] | None:
    key = name.lower()
    if not TOKEN.fullmatch(name):
        return "invalid", "is no token", _NO_TOKEN
    if key in _ANSWERS:
        return "prohibited", "is part of an answer", "list names that pages send"
    if is_forbidden_header(name) or key.startswith("access-control-request-"):
        return "forbidden", "is one that no page may set", "leave it out; browsers send it themselves"
    return None


def _expose_problem(name: str, credentials: bool) -> tuple[Reason, str, str] | None:
    key = name.lower()
    if not TOKEN.fullmatch(name):
        return "invalid", "is no token", _NO_TOKEN
    if key == "*" and credentials:
        return "wildcard", "exposes nothing where credentials are sent", "list the names"
    if key in FORBIDDEN_RESPONSE_HEADERS:
        return "forbidden", "is one that no page may read", "leave it out"
    if key in _NEVER_READ:
        return "prohibited", "is not for pages: the request's, or a preflight's", "list names that pages read"
    return None
