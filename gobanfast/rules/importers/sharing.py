"""Writer of share rules for what one set of cross-origin options gives: origins, credentials, methods, headers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from gobanfast._core.origin_set import OriginSet
from gobanfast.rules.importers.notes import Notes, printable
from gobanfast.rules.importers.origin_texts import insecure, matches_anything, sample_of

MOST_AGE = 86_400  # seconds that a browser remembers a preflight at most
BESIDE = """
# What these rules are not about stays as the application answers it. The options do not say which names this server
# has, and who may write; `gobanfast init --preset api` shows rules about both.
"""
STRANGER = "https://not-listed.invalid"
ALWAYS = {"accept", "accept-language", "content-language"}  # request headers that no browser asks for
SIMPLE = {"GET", "HEAD", "POST"}
NEVER = {"CONNECT", "TRACE", "TRACK"}
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_FORBIDDEN = re.compile(  # Fetch: scripts cannot set them
    r"accept-charset|accept-encoding|access-control-request-.*|connection|content-length|cookie2?|date|dnt|expect|host"
    r"|keep-alive|origin|referer|set-cookie|te|trailer|transfer-encoding|upgrade|via|proxy-.*|sec-.*"
)


@dataclass
class Sharing:
    """What a page may read and send. `everyone`: any page, then without credentials; `path`: a condition, as YAML."""

    tool: str
    patterns: list[str] = field(default_factory=list)
    hostile: list[str] = field(default_factory=list)
    everyone: bool = False
    credentials: bool = False
    methods: list[str] = field(default_factory=list)
    headers: list[str] = field(default_factory=list)
    expose: list[str] = field(default_factory=list)
    max_age: int | None = None
    path: str | None = None
    sample_path: str | None = "/"  # None: no path is known that has the condition
    watched: bool = False  # mode: shadow

    def rules(self, notes: Notes) -> str:
        """The rules file; "" when no page is left that may read anything."""
        self.everyone = self.everyone or "*" in self.patterns
        if self.credentials and (self.everyone or any(map(matches_anything, self.patterns))):
            message = "every origin gets credentials: any page could act as whoever is logged in"
            hint = "imported without credentials; list your pages under origin: and write credentials: true"
            notes.warn(message, hint)
            self.credentials = False
        patterns = [] if self.everyone else list(dict.fromkeys(self.patterns))
        if not patterns and not self.everyone:
            notes.error(f"the options of {self.tool} leave no origin that may read anything", "list one")
            return ""
        groups = _groups(patterns, self.credentials, notes)
        sets = "".join(f"  {_set(flag)}:\n{block('origin', group, 4)}" for flag, group in groups.items())
        return (
            head(self.tool, notes)
            + ("\nsets:\n" + sets if sets else "")
            + BESIDE
            + "share:\n"
            + "".join(_rule(self, flag) for flag in groups or [""])
            + tests(_tests(self, groups))
        )


def listed_methods(option: str, methods: Iterable[str], notes: Notes) -> list[str]:
    """The methods that must be listed."""
    found = []
    for method in dict.fromkeys(methods):
        if method.upper() in NEVER or not _TOKEN.fullmatch(method):
            notes.warn(f"{option} {method[:80]!r} is no method that scripts can send", "it was left out")
        elif method not in SIMPLE:
            found.append(method)
    return found


def listed_headers(option: str, headers: Iterable[str], notes: Notes) -> list[str]:
    """The request headers that must be listed, in lower case."""
    found = []
    for header in dict.fromkeys(text.lower() for text in headers):
        if not _TOKEN.fullmatch(header) or _FORBIDDEN.fullmatch(header):
            notes.warn(f"{option} {header[:80]!r} is no header that scripts can set", "it was left out")
        elif header not in ALWAYS:
            found.append(header)
    return found


def exposed_headers(option: str, headers: Iterable[str], notes: Notes, *, credentials: bool) -> list[str]:
    """The response headers that scripts may read, in lower case."""
    found = []
    for header in dict.fromkeys(text.lower() for text in headers):
        if header == "*" and credentials:
            notes.warn(f"{option} has '*', which is the name of a header where there are credentials", "list the names")
        elif not _TOKEN.fullmatch(header) or header in {"set-cookie", "set-cookie2"}:
            notes.warn(f"{option} {header[:80]!r} is no header that scripts can read", "it was left out")
        else:
            found.append(header)
    return found


def age(option: str, seconds: int, notes: Notes) -> int:
    """Seconds that a preflight may be remembered."""
    if seconds > MOST_AGE:
        notes.warn(f"{option} {seconds} is more than browsers take", f"it was imported as {MOST_AGE}")
    return max(0, min(seconds, MOST_AGE))


def head(tool: str, notes: Notes) -> str:
    """The comments that a file begins with."""
    source = printable(notes.source)
    return f"# Imported from {source}, options of {tool}, by gobanfast rules import.\n{notes.comments()}"


def quoted(text: str) -> str:
    """`text` as a YAML scalar: JSON is YAML."""
    return json.dumps(text)


def tests(cases: list[str]) -> str:
    """The section of tests."""
    if not cases:
        return "\n# Write tests: requests with the answer they must get.\ntests: []\n"
    listed = "".join(f"  - {case}\n" for case in cases)
    return f"\n# Run by `gobanfast rules test`, and whenever the rules are loaded.\ntests:\n{listed}"


def block(key: str, values: Iterable[str], indent: int) -> str:
    """A list with a line for each value."""
    pad = " " * indent
    return f"{pad}{key}:\n" + "".join(f"{pad}  - {quoted(value)}\n" for value in values)


def _groups(patterns: list[str], credentials: bool, notes: Notes) -> dict[str, list[str]]:
    """The patterns by what a grant of credentials to them must say: nothing, or a key that says it is dangerous."""
    groups: dict[str, list[str]] = {}
    for pattern in patterns:
        flags = ""
        if credentials and insecure(pattern):
            flags = "dangerously_allow_insecure"
            message = f"origin {pattern!r} is http and gets credentials: whoever is on the wire can act for it"
            notes.warn(message, "imported with dangerously_allow_insecure: true; better: https")
        elif credentials and _all_of_a_suffix(pattern):
            flags = "dangerously_allow_public_suffix"
            message = f"origin {pattern!r} gets credentials, and everyone can have a name below that suffix"
            notes.warn(message, "imported with dangerously_allow_public_suffix: true; better: your own names")
        groups.setdefault(flags, []).append(pattern)
    return groups


def _all_of_a_suffix(pattern: str) -> bool:
    """Whether a wildcard stands right before a public suffix."""
    found = re.fullmatch(r"[a-z0-9+.-]+://\*\*?\.([^:/]+)(?::.*)?", pattern)
    if found is None or found[1] == "localhost":
        return False
    import publicsuffixlist

    return bool(publicsuffixlist.PublicSuffixList().is_public(found[1]))


def _set(flag: str) -> str:
    return "pages" + flag.removeprefix("dangerously_allow").replace("_", "-")


def _id(flag: str) -> str:
    return "cors" + flag.removeprefix("dangerously_allow").replace("_", "-")


def _rule(sharing: Sharing, flag: str) -> str:
    """One grant."""
    asks = [f"path: {sharing.path}"] * (sharing.path is not None)
    asks += [f'origin: "@{_set(flag)}"'] * (not sharing.everyone)
    when = "{" + ", ".join(asks) + "}" if asks else "any"
    lines = [f"id: {_id(flag)}", f"when: {when}", "action: grant"]
    if sharing.watched:
        lines.append("mode: shadow  # reported, gives nothing: write the path first, then remove this line")
    lines += ["credentials: true"] * sharing.credentials
    for key in ("methods", "headers", "expose"):
        if values := getattr(sharing, key):
            lines.append(f"{key}: [{', '.join(map(quoted, values))}]")
    lines += [f"max_age: {sharing.max_age}s"] * (sharing.max_age is not None)
    lines += [f"{flag}: true"] * bool(flag)
    return "  - " + "\n    ".join(lines) + "\n"


def _tests(sharing: Sharing, groups: dict[str, list[str]]) -> list[str]:
    """A request for each pattern that has an origin to show, and those that must get nothing."""

    path = sharing.sample_path
    if path is None:
        return []

    def test(origin: str, share: str) -> str:
        return f"{{path: {quoted(path)}, origin: {quoted(origin)}, share: {share}}}"

    if sharing.watched:
        return [test(STRANGER, "none")]
    if sharing.everyone:
        return [test(STRANGER, "granted, rule: cors")]
    found = [
        test(sample, f"granted, rule: {_id(flag)}")
        for flag, group in groups.items()
        for sample in map(sample_of, group)
        if sample
    ]
    pages = OriginSet(sharing.patterns)
    strangers = [origin for origin in dict.fromkeys([STRANGER, *sharing.hostile]) if origin not in pages]
    return found + [test(text, "withheld") for text in [*strangers, "null"]]
