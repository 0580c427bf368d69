"""Translation of other tools' origins and origin regexes to origin patterns, exact over what browsers send."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from itertools import product

from gobanfast.names import compile_regex
from gobanfast.origins import parse_origin_pattern
from gobanfast.rules.importers.notes import Notes
from gobanfast.rules.text.grant_checks import is_of_anybody, may_be_http

HOSTS_MOST = 1000  # of one regex; past it a list is no help to who reads it
LOOPBACK = re.compile(r"http://((\*\*?\.)?([^/:]+\.)?localhost|127\.[0-9.]+|\[::1\])(:|$)")

# Parts of a regex of origins. Groups count as they are written: `(?:` is `(` by then.
_SCHEME = re.compile(r"(https\?|https|http|[a-z][a-z0-9-]+|\(https\?\)|\(http\|https\)|\(https\|http\)):(?://|\\/\\/)")
_ANY_PORT = re.compile(r"\(:(?:\\d|\[0-9\])(?:\+|\*|\{1,5\})\)\?$")
_ONE = r"\[\^(?:\\?\.|/\\?\.|\\?\./)\]\+"  # a label: anything but a dot
_MANY = r"(?:\.[*+]|\[\^/\][*+])"  # labels, as browsers send no other character
_BELOW = re.compile(rf"(?P<open>\()?\(?(?:(?P<one>{_ONE})|{_MANY})\)?\\\.(?(open)\)(?P<none>\?)?)")
_LETTER = r"(?:[a-z0-9-]|\\[.-])"
_NAME = re.compile(f"{_LETTER}+")
_BARE_DOT = re.compile(r"(?<=[a-z0-9)])\.(?=[a-z0-9(])")
_HOST = re.compile(rf"(?:{_LETTER}|\({_NAME.pattern}(?:\|{_NAME.pattern})*\))+")
_PORT = re.compile(r":[0-9]{1,5}$")


@dataclass(frozen=True, slots=True)
class Regex:
    """The patterns that one regex stands for, and origins that it let in and they do not."""

    patterns: list[str]
    hostile: list[str]


def is_origin(text: str) -> bool:
    """Whether `text` is an origin that browsers can send, and no pattern."""
    return "*" not in text and not text.startswith("re:") and _fault(text) is None


def _fault(text: str) -> str | None:
    """What is wrong with a pattern, and a hint."""
    try:
        parse_origin_pattern(text)
    except ValueError as error:
        return str(error)
    return None


def listed(option: str, text: str, notes: Notes) -> str | None:
    """`text` as the pattern of the same; None, with a warning, when no browser sends it, or everyone can."""
    if text == "null":
        message = f"{option} lists 'null', which every sandboxed page and local file sends"
        notes.warn(message, "it was left out; give such pages an address")
        return None
    if is_origin(text):
        return text
    if "*" in text and _fault(text) is None:
        hint = "it was left out; if it is meant, write the pattern under origin: (* is one label, ** one or more)"
        notes.warn(f"{option} {text[:200]!r} never matched: there it is no pattern", hint)
    else:
        fault = (_fault(text) or "").rpartition("; ")[2]
        notes.warn(f"{option} {text[:200]!r} never matched: browsers do not send it", f"it was left out; {fault}")
    return None


def translated(option: str, regex: str, notes: Notes, *, whole: bool) -> Regex:
    """What a regex stands for.

    Args:
        whole: it must match the whole origin (Starlette), not only its beginning (django-cors-headers).
    """
    found = Regex([], [])
    try:
        re.compile(regex)
    except (re.error, RecursionError, OverflowError) as error:
        notes.error(f"{option} {regex[:200]!r} is no regex: {error}", "correct it, or leave it out")
        return found
    for branch in _branches(regex):
        body, closed, free = _unanchored(branch)
        dotted = _dots(body, r"\.")
        made = _patterns(dotted)
        if free or not (closed or whole):
            lets_in = [f"{sample_of(made[0])}.invalid"] if made else []
            what = "goes on with .* or .+" if free else "has no $ at its end"
            message = f"{option} {branch[:200]!r} {what}, so anything may follow{_named(lets_in)}"
            found.hostile.extend(lets_in)
            if free and not made:  # nobody knows where it ends
                notes.warn(message, "it was left out; write what is meant as a pattern")
                continue
            notes.warn(message, "it was imported with its end; add :* where any port is meant")
        if dotted != body:
            lets_in = [sample for text in (_patterns(_dots(body, "x")) or [])[:1] if (sample := sample_of(text))]
            message = (
                f"{option} {branch[:200]!r} has a dot without a backslash, which is any character{_named(lets_in)}"
            )
            notes.warn(message, "it was imported as a dot")
            found.hostile.extend(lets_in)
        found.patterns.extend(_kept(option, dotted, notes) if made is None else made)
    return found


def _named(lets_in: list[str]) -> str:
    return "".join(f": it lets in {origin!r}, too" for origin in lets_in)


def sample_of(pattern: str) -> str | None:
    """An origin that a pattern covers; None for a regex."""
    if pattern == "*" or pattern.startswith("re:"):
        return None
    return pattern.replace("**.", "a.b.").replace("*.", "a.").removesuffix(":*")


def insecure(pattern: str) -> bool:
    """Whether whoever sits on the wire can speak for an origin of the pattern."""
    if pattern.startswith("re:"):
        return may_be_http(pattern[3:])
    return pattern.startswith("http://") and not LOOPBACK.match(pattern)


def _branches(regex: str) -> list[str]:
    """The alternatives of a regex, each with the anchors around a group that holds all of them."""
    found = _split(regex) or [regex]
    group = re.fullmatch(r"((?:\^|\\A)*)\((?:\?:)?(.*)\)((?:\$|\\Z)*)", regex, re.DOTALL)
    if len(found) > 1 or group is None or _split(group[2]) is None:
        return found
    return [group[1] + branch + group[3] for branch in _branches(group[2])]


def _split(regex: str) -> list[str] | None:
    """The alternatives on the outermost level; None when it closes a group that it does not open."""
    found, depth, start, index = [], 0, 0, 0
    while index < len(regex):
        char = regex[index]
        if char == "\\":
            index += 1
        elif char == "[":
            end = regex.find("]", index + 2)
            index = end if end > 0 else len(regex)
        elif char in "()":
            depth += 1 if char == "(" else -1
            if depth < 0:
                return None
        elif char == "|" and depth == 0:
            found.append(regex[start:index])
            start = index + 1
        index += 1
    return [*found, regex[start:]]


def _unanchored(branch: str) -> tuple[str, bool, bool]:
    """The regex without anchors and `.*` at its end; whether it had an end anchor, whether it had a `.*`."""
    body = re.sub(r"^(?:\^|\\A)+", "", branch)
    ended = re.sub(r"(?:(?<!\\)\$|\\Z)+$", "", body)
    bare = re.sub(r"(?<!\\)\.[*+]$", "", ended)
    if ended.endswith(".+") and bare not in ("", ended) and not bare.endswith(("//", ":")):
        return ended, True, True  # not without what follows either
    if bare == "" or bare.endswith("//"):  # every origin, not one without an end
        return bare + ".*", True, False
    if (
        bare.endswith(":") and bare != ended and re.search(r":(?://|\\/\\/).", bare)
    ):  # of an origin only a port is there
        return bare + "[0-9]+", True, False
    return bare, ended != body, bare != ended


def _patterns(body: str) -> list[str] | None:
    """Patterns that are the same as the regex over all origins that browsers send; None when there are none."""
    text = body.replace("(?:", "(").replace(r"\/", "/").replace(r"\:", ":")
    if not (scheme := _SCHEME.match(text)):
        return None
    schemes = {"https?": ["https", "http"], "http|https": ["http", "https"], "https|http": ["https", "http"]}
    text = text[scheme.end() :]
    port = ""
    if found := _ANY_PORT.search(text):
        text, port = text[: found.start()], ":*"
    elif found := _PORT.search(text):
        text, port = text[: found.start()], found[0]
    leads = [""]
    if below := _BELOW.match(text):
        leads = ["*." if below["one"] else "**."] + [""] * bool(below["none"])
        text = text[below.end() :]
    if not _HOST.fullmatch(text):
        return None
    parts = [part.strip("()").split("|") for part in re.split(r"(\([^()]*\))", text) if part]
    if math.prod(map(len, parts)) > HOSTS_MOST:
        return None
    hosts = ["".join(chosen).replace("\\", "") for chosen in product(*parts)]
    words = schemes.get(scheme[1].strip("()"), [scheme[1].strip("()")])
    made = [f"{word}://{lead}{host}{port}" for host in hosts for lead in leads for word in words]
    return made if all(_fault(pattern) is None for pattern in made) else None


def _dots(body: str, written: str) -> str:
    """The regex with its bare dots between letters, outside of classes, replaced."""
    parts = re.split(r"(\[[^]]*\])", body)
    return "".join(part if part.startswith("[") else _BARE_DOT.sub(lambda _: written, part) for part in parts)


def _kept(option: str, body: str, notes: Notes) -> list[str]:
    """The regex as it is, with both ends; nothing, with a warning, when it cannot be."""
    source = re.sub(r"\\[AZ]", "", body)
    try:
        compile_regex(source)
    except ValueError as error:
        notes.warn(f"{option} {body[:200]!r} was not read: {error}", "it was left out; write its origins as patterns")
        return []
    if re.search(r"[A-Z]", re.sub(r"\\.|\[[^]]*\]|\(\?[a-zA-Z]+\)", "", body)) and "(?i" not in body:
        notes.warn(f"{option} {body[:200]!r} never matched: browsers send lower case", "it was left out")
        return []
    if compile_regex(source)("null"):
        if source in {".*", ".+"}:
            return ["*"]
        message = f"{option} {body[:200]!r} also matches 'null', which every sandboxed page and local file sends"
        notes.warn(message, "it was left out; begin it with https://")
        return []
    if glued := re.search(r"(?:\.[*+]|\][*+])(?=[a-z])", source):
        message = f"{option} {body[:200]!r} has no dot before {source[glued.end() :][:200]!r}, so a name may end in it"
        notes.warn(message, r"it was imported as it is; write \. there if the names below are meant")
    return [f"re:{source}"]


def matches_anything(pattern: str) -> bool:
    """Whether a pattern is everyone's, so that a grant of it has no credentials."""
    return is_of_anybody(pattern[3:]) if pattern.startswith("re:") else pattern == "*"
