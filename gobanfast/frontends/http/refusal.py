"""Denial responses: a page for people, a problem document (RFC 9457) for programs.

Both say the request id, whom to ask, and when to come again if that is known; why (the decision's cause and the rule's
reason) only where it is asked for, because a scraper reads it, too.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import time
from functools import cache, lru_cache
from html import escape
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from gobanfast import Decision

Kind = Literal["banned", "challenge", "limited", "unavailable", "misdirected", "cross-origin"]
ResponseKind = Kind | Literal["task"]
Form = Literal["html", "problem", "json"]

STATUS: dict[Kind, int] = {
    "banned": 403, "challenge": 403, "limited": 429, "unavailable": 503, "misdirected": 421, "cross-origin": 403,
}  # fmt: skip
TITLES: dict[Kind, str] = {
    "banned": "Access denied",
    "challenge": "This request needs a check",
    "limited": "Too many requests",
    "unavailable": "This request could not be checked",
    "misdirected": "This host is not served here",
    "cross-origin": "Pages of this origin are not let in",
}
TYPES: dict[Kind, str] = {"limited": "https://iana.org/assignments/http-problem-types#quota-exceeded"}
OFFERS: tuple[tuple[Form, str], ...] = (  # in order of preference among equals
    ("problem", "application/problem+json"),
    ("json", "application/json"),
    ("html", "text/html"),
)
MEDIA_TYPES = dict(OFFERS) | {"html": "text/html; charset=utf-8"}
ACCEPT_LIMIT = 1024
POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:36em;margin:15vh auto;padding:0 1em;color:#222;background:#fff}"
    "h1{font-size:1.4em}dl{display:grid;grid-template-columns:auto 1fr;gap:.2em 1em}dt{color:#666}dd{margin:0;"
    "overflow-wrap:anywhere}@media(prefers-color-scheme:dark){body{color:#ddd;background:#111}dt{color:#999}}"
)


class Refused(NamedTuple):
    """What an answer tells of a decision that was made elsewhere."""

    cause: str
    reason: str | None
    expires: float | None


class HttpResponse(NamedTuple):
    """A whole response: header names in lower case, body complete. `kind`: of what refuses; None for all else."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    kind: ResponseKind | None = None


def denial_response(
    kind: Kind,
    *,
    request_id: str,
    accept: str = "",
    decision: Decision | Refused | None = None,
    contact: str | None = None,
    show_reason: bool = False,
    checks: bool = True,
    wait: int | None = None,
) -> HttpResponse:
    """The answer for a client that is not let in, in the form its Accept header likes best.

    Args:
        decision: what was decided; None if deciding failed.
        contact: whom to ask, a mail address or URL.
        show_reason: whether it is told what decided, and the rule's reason.
        checks: whether clients are given a check; where none is, a challenge is a refusal and called so.
        wait: seconds until it may come again; None: until a ban ends, if one is known to.
    """
    facts: dict[str, Any] = {"request_id": request_id}
    if decision is not None and show_reason:
        facts["code"] = decision.cause
        if decision.reason:
            facts["reason"] = decision.reason
    if contact:
        facts["contact"] = contact
    if wait is None:
        wait = retry_after(decision)
    if wait is not None:
        facts["retry_after"] = wait
    title = TITLES["banned" if kind == "challenge" and not checks else kind]
    form = preferred(accept[:ACCEPT_LIMIT])
    if form == "html":
        return html_response(STATUS[kind], wait, page(title, details(facts)))._replace(kind=kind)
    document = {"type": TYPES.get(kind, f"urn:gobanfast:{kind}"), "title": title, "status": STATUS[kind]} | facts
    return whole(STATUS[kind], MEDIA_TYPES[form], wait, json.dumps(document).encode())._replace(kind=kind)


def retry_after(decision: Decision | Refused | None) -> int | None:
    """Whole seconds until a ban ends, at least 1; None if nothing is known to end."""
    if decision is None or decision.expires is None:
        return None
    return max(1, math.ceil(decision.expires - time.time()))


def whole(status: int, media_type: str, wait: int | None, body: bytes) -> HttpResponse:
    headers = [
        (b"content-type", media_type.encode()),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        (b"vary", b"accept"),
        (b"x-content-type-options", b"nosniff"),
    ]
    if wait is not None:
        headers.append((b"retry-after", b"%d" % wait))
    return HttpResponse(status, headers, body)


def html_response(status: int, wait: int | None, body: str, *, script: str = "") -> HttpResponse:
    """An HTML page whose Content-Security-Policy allows our style and `script`, by their digests, and nothing else."""
    made = whole(status, MEDIA_TYPES["html"], wait, body.encode())
    made.headers.append((b"content-security-policy", policy(script)))
    made.headers.append((b"referrer-policy", b"no-referrer"))
    return made


@cache
def policy(script: str) -> bytes:
    """The Content-Security-Policy of a page with our style and this script."""
    scripts = f"; script-src {digest(script)}" if script else ""
    return f"{POLICY}; style-src {digest(STYLE)}{scripts}".encode()


@cache
def digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def page(title: str, body: str) -> str:
    return f"{head(title)}{body}</body></html>"


@cache
def head(title: str) -> str:
    """A page up to what is below its title."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><meta name="robots" content="noindex">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><h1>{escape(title)}</h1>"
    )


NAMES = {
    "request_id": "Request",
    "code": "Code",
    "reason": "Reason",
    "contact": "Contact",
    "retry_after": "Seconds until the next try",
}


def details(facts: dict[str, Any]) -> str:
    rows = (f"<dt>{NAMES[name]}</dt><dd>{escape(str(value))}</dd>" for name, value in facts.items())
    return f"<dl>{''.join(rows)}</dl>"


@lru_cache(256)
def preferred(accept: str) -> Form:
    """What an Accept header likes best of OFFERS (RFC 9110 section 12.5.1); "problem" if it likes none or has no
    opinion."""
    best: Form = "problem"
    best_quality = 0.0
    ranges = [parsed for part in accept.split(",") if (parsed := media_range(part)) is not None]
    for form, media_type in OFFERS:
        family = media_type.partition("/")[0] + "/*"
        found = (-1, 0.0)
        for name, quality in ranges:
            exact = 2 if name == media_type else 1 if name == family else 0 if name == "*/*" else -1
            if exact > found[0]:
                found = (exact, quality)
        if found[1] > best_quality:
            best, best_quality = form, found[1]
    return best


def media_range(text: str) -> tuple[str, float] | None:
    name, *parameters = (piece.strip(" \t").lower() for piece in text.split(";"))
    if "/" not in name:
        return None
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key == "q":
            try:
                quality = float(value)
            except ValueError:
                return None
            return name, quality if 0.0 <= quality <= 1.0 else 0.0
    return name, 1.0
