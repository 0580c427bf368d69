"""Import of the keyword options of Starlette's, and so FastAPI's, CORSMiddleware."""

from __future__ import annotations

import re

from gobanfast.rules.importers.notes import Notes
from gobanfast.rules.importers.options import single, texts, unknown
from gobanfast.rules.importers.origin_texts import listed, translated
from gobanfast.rules.importers.sharing import Sharing, age, exposed_headers, listed_headers, listed_methods

TOOL = "Starlette's CORSMiddleware"
ALL_METHODS = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY"]  # what `*` is there
OPTIONS = (
    "allow_origins", "allow_methods", "allow_headers", "allow_credentials", "allow_origin_regex",
    "allow_private_network", "expose_headers", "max_age",
)  # fmt: skip


def rules(options: dict[str, object], notes: Notes) -> str:
    """The rules file."""
    unknown(options, OPTIONS, TOOL, notes)
    sharing = Sharing(TOOL, credentials=single(options, "allow_credentials", False, notes))
    origins = _list(options, "allow_origins", notes)
    sharing.everyone = "*" in origins
    for text in origins:
        if text != "*" and (pattern := listed("allow_origins", text, notes)):
            sharing.patterns.append(pattern)
    if regex := single(options, "allow_origin_regex", "", notes):
        found = translated("allow_origin_regex", regex, notes, whole=True)
        sharing.patterns += found.patterns
        sharing.hostile += found.hostile
    methods = _list(options, "allow_methods", notes) if "allow_methods" in options else ["GET"]
    if "*" in methods:
        methods = ALL_METHODS
    elif not {"GET", "HEAD", "POST"} <= set(methods):
        missing = ", ".join(sorted({"GET", "HEAD", "POST"} - set(methods)))
        message = f"allow_methods is without {missing}, which stopped preflights alone: browsers send them unasked"
        notes.warn(message, "here they need no listing; write a condition method: to keep them out")
    sharing.methods = listed_methods("allow_methods", methods, notes)
    headers = _list(options, "allow_headers", notes)
    if "*" in headers:
        message = "allow_headers '*' does not cover authorization, neither in the standard nor here; there it did"
        notes.warn(message, "imported with authorization; remove it where no tokens are sent")
        headers = ["*", "authorization"]
    else:
        headers.append("content-type")  # which that middleware always allows
    sharing.headers = listed_headers("allow_headers", headers, notes)
    sharing.expose = exposed_headers(
        "expose_headers", _list(options, "expose_headers", notes), notes, credentials=sharing.credentials
    )
    sharing.max_age = age("max_age", single(options, "max_age", 600, notes), notes)
    if single(options, "allow_private_network", False, notes):
        notes.warn("allow_private_network has no meaning here: browsers gave it up", "it was left out")
    return sharing.rules(notes)


def _list(options: dict[str, object], name: str, notes: Notes) -> list[str]:
    """A list of texts. A text alone is one there, too: of all its parts."""
    value = options.get(name)
    if not isinstance(value, str):
        return texts(options, name, (), notes)
    items = [item for item in re.split(r"[\s,]+", value) if item]
    everyone = ", and as it has a '*' in it, everyone" if "*" in value and value != "*" else ""
    if name.endswith("headers") and value != "*":
        notes.warn(
            f"{name} is the text {value[:200]!r} and no list, so every letter of it was a header", "write a list"
        )
        return []
    message = f"{name} is the text {value[:200]!r} and no list, so every part of it counted: {value[:6]!r}, too"
    if value != "*":
        notes.warn(message + everyone, f"it was imported as a list of {len(items)}")
    return items
