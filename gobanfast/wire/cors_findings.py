"""Named faults of CORS and event-stream headers in the answers of a server, five of them by failure mode.

Pure, as `cors_walk`. A finding says more than the walk that it ends: what is wrong in answers that no client was asked
about, and what works today and breaks tomorrow (a cache, HTTP/2, a reconnect).
Source: Fetch Standard, "CORS protocol and HTTP caches"; RFC 9113, section 8.2.2 (connection headers).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

from gobanfast.wire.cors_walk import (
    ACAC,
    ACAH,
    ACAM,
    ACAO,
    EVENT_SOURCE,
    EVENT_STREAM,
    FETCH_SSE,
    UNSUPPORTED,
    Answer,
    Answers,
    Asked,
    allow_origin_fault,
)
from gobanfast.wire.fetch import (
    NON_WILDCARD_HEADERS,
    SAFELISTED_METHODS,
    charset,
    cors_check,
    get,
    listed_values,
    media_type,
    needs_preflight,
    preflight_headers,
    visible_headers,
)

TOO_LATE, TWICE, WILDCARD = "too late", "overwritten twice", "* with credentials"
COMPANIONS, ERRORS = "missing companions", "error responses without headers"
MODES = (TOO_LATE, TWICE, WILDCARD, COMPANIONS, ERRORS)
"""The five ways in which CORS headers of streams fail most often."""
SEVERITIES = ("problem", "warning", "note")

ACEH = "access-control-expose-headers"
_CONNECTION = ("connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade")  # forbidden in HTTP/2
_LIST = frozenset({
    "content-disposition", "content-range", "etag", "link", "location", "ratelimit", "ratelimit-policy", "retry-after",
    "server-timing", "traceresponse", "www-authenticate",
})  # fmt: skip
_NOT_FOR_SCRIPTS = frozenset({
    "x-accel-buffering", "x-cache", "x-content-type-options", "x-dns-prefetch-control", "x-frame-options",
    "x-permitted-cross-domain-policies", "x-powered-by", "x-xss-protection",
})  # fmt: skip


class Finding(NamedTuple):
    """A fault with a name. `mode` is one of MODES, or empty."""

    severity: str
    code: str
    what: str
    mend: str
    mode: str = ""


def findings(asked: Asked, answers: Answers, clients: Collection[str] = ()) -> list[Finding]:
    """Faults that the answers show, problems first, each once.

    Args:
        clients: those that must be able to read; with an SSE client an answer that is no event stream is a problem.
    """
    found = list(_stream(answers, clients))
    if not asked.same_origin:
        found += [
            *_late(answers),
            *_origin_faults(asked, answers),
            *_preflight(asked, answers),
            *_reading(asked, answers),
        ]
    found += _connection(answers)
    kept: dict[tuple[str, str], Finding] = {}
    for finding in sorted(found, key=lambda finding: SEVERITIES.index(finding.severity)):
        kept.setdefault((finding.code, finding.what), finding)  # the worst, where two answers have the same fault
    return list(kept.values())


def _answered(answers: Answers) -> Iterator[tuple[str, Answer]]:
    yield from (("OPTIONS", answer) for answer in answers.preflights.values() if answer)
    yield from ((asking, answer) for asking, answer in (("HEAD", answers.head), ("GET", answers.get)) if answer)


def _late(answers: Answers) -> Iterator[Finding]:
    """What HEAD and GET do not have in common."""
    head, got = answers.head, answers.get
    if not head:
        yield Finding("warning", "head-unanswered", f"HEAD: {head.failure}", "answer HEAD as GET, without a body")
    if not head or not got:
        return
    if (head.status < 400) != (got.status < 400):
        if head.status in UNSUPPORTED:
            what = f"HEAD is answered {head.status}, GET {got.status}"
            yield Finding("note", "head-refused", what, "answer HEAD as GET: people look at headers with curl -I")
        return
    in_head, in_got = ({name for name in (ACAO, ACAC, ACEH) if get(it.headers, name) is not None} for it in (head, got))
    if in_head - in_got:
        what = f"GET lacks {', '.join(sorted(in_head - in_got))}, which HEAD has"
        mend = "set headers before the first byte of the body: in a middleware, not after the stream began"
        yield Finding("problem", "headers-too-late", what, mend, TOO_LATE)
    if in_got - in_head:
        what = f"HEAD lacks {', '.join(sorted(in_got - in_head))}, which GET has"
        mend = "set headers where HEAD and GET both pass, before the body: curl -I shows what HEAD gets"
        yield Finding("warning", "headers-too-late", what, mend, TOO_LATE)


def _origin_faults(asked: Asked, answers: Answers) -> Iterator[Finding]:
    """Faults of Access-Control-Allow-Origin and -Credentials, in any of the answers."""
    modes = {"allow-origin-twice": TWICE, "wildcard-with-credentials": WILDCARD}
    for asking, answer in _answered(answers):
        severity = _severity(asking, asked)
        step = cors_check(asked.origin, answer.headers, credentials=asked.credentials)
        if step == "acao-mismatch":
            fault = allow_origin_fault(asked, answer)
            yield Finding(severity, fault.code, fault.what, fault.mend, modes.get(fault.code, ""))
        if step is None and asked.origin == get(answer.headers, ACAO) == "null":
            what = f"{ACAO}: null is granted, and any page can have that origin: a sandboxed frame is enough"
            yield Finding("warning", "allow-origin-null", what, "never grant null; * where everybody may read")
        credentials = get(answer.headers, ACAC)
        if get(answer.headers, ACAO) == "*" and credentials == "true" and not asked.credentials:
            what = f"{ACAO}: * beside {ACAC}: true, and no page with credentials can read that"
            mend = "the page's own origin and vary: origin, or no credentials"
            yield Finding("warning", "wildcard-with-credentials", what, mend, WILDCARD)
        if credentials not in {None, "true"}:
            mend = f"{ACAC}: true, in lower case, on one line; or leave it out"
            yield Finding(
                severity if asked.credentials else "warning", "credentials-not-true", f"{ACAC} is {credentials!r}", mend
            )
        for name in (ACAM, ACAH, ACEH) if asked.credentials else ():
            if "*" in (listed_values(answer.headers, name) or ()):
                what = f"{name}: *, which is no wildcard with credentials"
                yield Finding("warning", "wildcard-with-credentials", what, "list the names", WILDCARD)
        # 403 is how a preflight of another origin is turned down on purpose
        silent = asking == "GET" or (asking == "OPTIONS" and answer.status != 403)
        if silent and answer.status >= 400 and step == "acao-missing":
            what = f"{asking} is answered {answer.status} without {ACAO}: to the page it is a failure without a status"
            mend = "put CORS outermost, around error handlers and authentication"
            yield Finding(severity, "error-without-headers", what, mend, ERRORS)


def _severity(asking: str, asked: Asked) -> str:
    """Of a fault in this answer: preflights that only a resuming SSE client causes break nothing else."""
    if asking == "OPTIONS" and not needs_preflight(asked.method, preflight_headers(asked.headers)):
        return "warning"
    return "problem"


def _preflight(asked: Asked, answers: Answers) -> Iterator[Finding]:
    """Names that an otherwise good preflight answer does not list."""
    for names, answer in answers.preflights.items():
        if not answer or cors_check(asked.origin, answer.headers, credentials=asked.credentials) is not None:
            continue
        methods = listed_values(answer.headers, ACAM) or ()
        allowed = {name.lower() for name in listed_values(answer.headers, ACAH) or ()}
        wild = "*" in allowed and not asked.credentials
        missing = [name for name in names if name not in allowed and (not wild or name in NON_WILDCARD_HEADERS)]
        mend = f"{ACAH}: {', '.join(names)}"
        if missing and wild:
            what = (
                f"{ACAH}: * does not cover {', '.join(missing)}; browsers of 2026 still let it, the standard does not"
            )
            yield Finding("problem", "authorization-under-wildcard", what, mend, COMPANIONS)
        elif missing:
            resumes = missing == ["last-event-id"] and all(name.lower() != "last-event-id" for name, _ in asked.headers)
            what = f"{ACAH} lacks {', '.join(missing)}" + ", with which SSE clients made of fetch resume" * resumes
            yield Finding(
                "warning" if resumes else _severity("OPTIONS", asked), "allow-headers-missing", what, mend, COMPANIONS
            )
        wild = "*" in methods and not asked.credentials
        if asked.method not in SAFELISTED_METHODS and asked.method not in methods and not wild:
            what = f"{ACAM} lacks {asked.method}"
            yield Finding("problem", "allow-methods-missing", what, f"{ACAM}: {asked.method}", COMPANIONS)


def _reading(asked: Asked, answers: Answers) -> Iterator[Finding]:
    """What a granted GET lacks beside Access-Control-Allow-Origin."""
    headers = answers.get.headers
    value = get(headers, ACAO)
    if value is None:
        return
    if asked.credentials and value == asked.origin and get(headers, ACAC) is None:
        yield Finding("problem", "allow-credentials-missing", f"no {ACAC}", f"{ACAC}: true", COMPANIONS)
    varies = {name.lower() for name in listed_values(headers, "vary") or ()}
    if value == asked.origin and not varies & {"origin", "*"}:
        what = f"{ACAO} is the page's origin, without vary: origin: a cache hands it to pages of other origins"
        mend = "vary: origin on every answer here, unless all of them have this one value"
        yield Finding("warning", "vary-missing", what, mend, COMPANIONS)
    seen = set(visible_headers(headers, credentials=asked.credentials))
    hidden = sorted({name.lower() for name, _ in headers} - seen - _NOT_FOR_SCRIPTS)
    hidden = [name for name in hidden if name.startswith("x-") or name in _LIST]
    if hidden:
        what = f"the page's script does not see {', '.join(hidden)}"
        mend = f"{ACEH}: {', '.join(hidden)}, where it should; with EventSource it never sees headers"
        yield Finding("note", "expose-headers-missing", what, mend, COMPANIONS)


def _stream(answers: Answers, clients: Collection[str]) -> Iterator[Finding]:
    """Status and media type that EventSource does not take."""
    answer = answers.get
    if not answer:
        return
    severity = "problem" if EVENT_SOURCE in clients or FETCH_SSE in clients else "note"
    value = get(answer.headers, "content-type") or ""
    stream = media_type(value) == EVENT_STREAM
    if answer.status == 204:
        mend = "answer 200 to go on, or leave it so to end them"
        yield Finding(severity, "no-content", "204, at which EventSource closes and never reconnects", mend)
    elif answer.status == 200 and not stream:
        what = f"content-type {value!r} is no event stream" if value else "no content-type"
        yield Finding(severity, "media-type", what, f"content-type: {EVENT_STREAM}, if it is to be one")
    if stream and charset(value) not in {None, "utf-8"}:
        what = f"content-type {value!r}: Chromium takes utf-8 alone (Firefox any)"
        yield Finding("problem", "charset", what, f"content-type: {EVENT_STREAM}")


def _connection(answers: Answers) -> Iterator[Finding]:
    """Headers of one connection, which HTTP/2 and HTTP/3 forbid."""
    mend = "leave it out: HTTP/1.1 keeps connections by itself"
    for _, answer in _answered(answers):
        names = [name for name in _CONNECTION if get(answer.headers, name) is not None]
        if answer.http == "HTTP/2" and names:
            what = f"{', '.join(names)} in an answer over HTTP/2, which browsers may take as a broken stream"
            yield Finding("problem", "connection-header", what, mend)
    answer = answers.get
    kept = "keep-alive" in (get(answer.headers, "connection") or "").lower()
    if kept and answer.http != "HTTP/2" and media_type(get(answer.headers, "content-type") or "") == EVENT_STREAM:
        yield Finding("note", "connection-header", "connection: keep-alive, which HTTP/2 and HTTP/3 forbid", mend)
