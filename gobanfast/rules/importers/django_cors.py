"""Import of the settings of django-cors-headers."""

from __future__ import annotations

import re
from itertools import product
from urllib.parse import urlsplit

from gobanfast.rules.importers.notes import Notes
from gobanfast.rules.importers.options import single, texts, unknown
from gobanfast.rules.importers.origin_texts import is_origin, listed, translated
from gobanfast.rules.importers.settings_module import DEFAULTS
from gobanfast.rules.importers.sharing import Sharing, age, exposed_headers, listed_headers, listed_methods, quoted
from gobanfast.rules.regex import compile_regex

TOOL = "django-cors-headers"
OLDER = {
    "CORS_ORIGIN_ALLOW_ALL": "CORS_ALLOW_ALL_ORIGINS",
    "CORS_ORIGIN_WHITELIST": "CORS_ALLOWED_ORIGINS",
    "CORS_ORIGIN_REGEX_WHITELIST": "CORS_ALLOWED_ORIGIN_REGEXES",
}
SETTINGS = (
    "CORS_ALLOWED_ORIGINS", "CORS_ALLOWED_ORIGIN_REGEXES", "CORS_ALLOW_ALL_ORIGINS", "CORS_ALLOW_CREDENTIALS",
    "CORS_ALLOW_HEADERS", "CORS_ALLOW_METHODS", "CORS_ALLOW_PRIVATE_NETWORK", "CORS_EXPOSE_HEADERS",
    "CORS_PREFLIGHT_MAX_AGE", "CORS_URLS_REGEX",
)  # fmt: skip
_LITERAL = r"(?:[A-Za-z0-9_/~-]|\\[./-])+"
_PATHS = re.compile(rf"(?:{_LITERAL}|\((?:\?:)?{_LITERAL}(?:\|{_LITERAL})*\))+")


def rules(options: dict[str, object], notes: Notes) -> str:
    """The rules file. Settings of other names are Django's own and are passed over."""
    options = {name: value for name, value in options.items() if name.startswith("CORS_")}
    for older, name in OLDER.items():
        if older in options:
            value = options.pop(older)
            options.setdefault(name, value)
    unknown(options, SETTINGS, TOOL, notes)
    sharing = Sharing(TOOL, credentials=single(options, "CORS_ALLOW_CREDENTIALS", False, notes))
    sharing.everyone = single(options, "CORS_ALLOW_ALL_ORIGINS", False, notes)
    for text in texts(options, "CORS_ALLOWED_ORIGINS", (), notes):
        if pattern := _origin(text, notes):
            sharing.patterns.append(pattern)
    for regex in texts(options, "CORS_ALLOWED_ORIGIN_REGEXES", (), notes):
        found = translated("CORS_ALLOWED_ORIGIN_REGEXES", regex, notes, whole=False)
        sharing.patterns += found.patterns
        sharing.hostile += found.hostile
    methods = texts(options, "CORS_ALLOW_METHODS", DEFAULTS["default_methods"], notes)
    sharing.methods = listed_methods("CORS_ALLOW_METHODS", methods, notes)
    headers = texts(options, "CORS_ALLOW_HEADERS", DEFAULTS["default_headers"], notes)
    if "*" in headers:
        message = "CORS_ALLOW_HEADERS has '*', which covers no authorization, and nothing at all with credentials"
        notes.warn(message, "list the names")
        headers = [header for header in headers if header != "*" or not sharing.credentials]
    sharing.headers = listed_headers("CORS_ALLOW_HEADERS", headers, notes)
    sharing.expose = exposed_headers(
        "CORS_EXPOSE_HEADERS", texts(options, "CORS_EXPOSE_HEADERS", (), notes), notes, credentials=sharing.credentials
    )
    seconds = single(options, "CORS_PREFLIGHT_MAX_AGE", 86_400, notes)
    sharing.max_age = age("CORS_PREFLIGHT_MAX_AGE", seconds, notes) if seconds else None
    if single(options, "CORS_ALLOW_PRIVATE_NETWORK", False, notes):
        notes.warn("CORS_ALLOW_PRIVATE_NETWORK has no meaning here: browsers gave it up", "it was left out")
    _path(single(options, "CORS_URLS_REGEX", "^.*$", notes), sharing, notes)
    return sharing.rules(notes)


def _origin(text: str, notes: Notes) -> str | None:
    """The pattern of a listed origin, which that middleware compares by scheme, host and port alone."""
    option = "CORS_ALLOWED_ORIGINS"
    try:
        parts = urlsplit(text)
    except ValueError:
        return listed(option, text, notes)
    origin = f"{parts.scheme}://{parts.netloc}"
    if origin != text and is_origin(origin):
        notes.warn(f"{option} {text[:200]!r} has more than scheme, host and port", f"imported as {origin}")
        return origin
    return listed(option, text, notes)


def _path(regex: str, sharing: Sharing, notes: Notes) -> None:
    """Gives `sharing` the condition for paths that begin with a match of `regex`."""
    body = re.sub(r"^(?:\^|\\A)+", "", regex)
    ended = re.sub(r"(?:(?<!\\)\$|\\Z)+$", "", body)
    closed = ended != body and not ended.endswith((".*", ".+"))
    literal = re.sub(r"(?<!\\)\.\*$", "", ended)
    if not literal:
        return
    if _PATHS.fullmatch(literal):
        parts = [part.strip("()").removeprefix("?:").split("|") for part in re.split(r"(\([^()]*\))", literal) if part]
        paths = ["".join(chosen).replace("\\", "") for chosen in product(*parts)]
        listed_paths = f"[{', '.join(map(quoted, paths))}]"
        sharing.path = listed_paths if closed else f"{{prefix: {listed_paths}}}"
        sharing.sample_path = paths[0]
        return
    message = f"CORS_URLS_REGEX {regex[:200]!r}"
    try:
        compile_regex(f"^(?:{regex})", ignore_case=False)
        re.compile(regex)
    except (ValueError, re.error) as error:
        notes.warn(f"{message} was not read: {error}", "the rules are in mode shadow and give nothing; write path:")
        sharing.watched = True
        return
    source = f"^(?:{body})".replace(r"\Z", r"\z")
    notes.warn(f"{message} was imported as a regex of paths", "check it; path: /api/** is easier to read")
    sharing.path = f"{{regex: {quoted(source)}}}"
    sharing.sample_path = None
