"""Walks of three kinds of client through Fetch: EventSource, fetch, and SSE clients made of fetch.

Pure: answers of a live server and answers worked out from rules get the same walks. A walk ends at the first step that
fails, and says what the page sees of it and what mends it.
Source: Fetch Standard, "main fetch", "HTTP fetch", "HTTP-redirect fetch", "CORS check", "CORS-preflight fetch"; HTML
Standard, "Server-sent events"; Mixed Content, "should fetching request be blocked".
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from gobanfast.wire.fetch import (
    NON_WILDCARD_HEADERS,
    SAFELISTED_METHODS,
    Pairs,
    charset,
    cors_check,
    get,
    listed_values,
    media_type,
    needs_preflight,
    preflight_check,
    preflight_headers,
    site_of,
    visible_headers,
)

EVENT_SOURCE, FETCH, FETCH_SSE = "EventSource", "fetch", "fetch-SSE"
CLIENTS = (EVENT_SOURCE, FETCH, FETCH_SSE)
EVENT_STREAM = "text/event-stream"
NOT_LOOKED_AT = (
    "cookies: none is sent; SameSite, Secure and blocked third-party cookies decide whether the page's are",
    "Local Network Access (once Private Network Access): a permission that the browser asks its user for, no header",
    "what else may forbid the page: its Content-Security-Policy (connect-src), service workers, extensions",
)

ACAO, ACAC = "access-control-allow-origin", "access-control-allow-credentials"
ACAM, ACAH = "access-control-allow-methods", "access-control-allow-headers"
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
UNSUPPORTED = frozenset({404, 405, 501})  # what servers answer to methods that a route does not have


class Asked(NamedTuple):
    """What the page asks for; `method` is normalized, `origin` serialized."""

    url: str
    origin: str
    credentials: bool = False
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def same_origin(self) -> bool:
        """Whether no CORS applies."""
        site = site_of(self.url)
        return site is not None and site.origin == self.origin


class Answer(NamedTuple):
    """Status and header lines of an answer; `failure` says why there is none, and status is 0 then."""

    status: int
    headers: Pairs = ()
    http: str = "HTTP/1.1"
    failure: str = ""

    def __bool__(self) -> bool:
        return self.status != 0


class Answers(NamedTuple):
    """Answers to what was asked. `preflights` by the names that were announced; `get` is the answer to `asking`, which
    stands for methods that are not sent to a live server."""

    get: Answer
    head: Answer
    preflights: Mapping[tuple[str, ...], Answer]
    asking: str = "GET"


class Step(NamedTuple):
    """One step of a walk. `asking` is the request whose answer is looked at; `step` its name in the tables."""

    asking: str
    step: str
    passes: bool
    what: str
    mend: str = ""


class Walk(NamedTuple):
    """One client's way through. `readable` None: what decides was not asked."""

    client: str
    readable: bool | None
    sees: str
    steps: tuple[Step, ...]

    @property
    def failed(self) -> Step | None:
        """The step at which it ended."""
        return next((step for step in self.steps if not step.passes), None)


# ---- what each client asks


def headers_of(client: str, asked: Asked) -> tuple[tuple[str, str], ...]:
    """The headers that a client's script sets: of a fetch-based SSE client also what it resumes with."""
    if client == FETCH_SSE and all(name.lower() != "last-event-id" for name, _ in asked.headers):
        return (*asked.headers, ("last-event-id", "1"))
    return asked.headers


def preflights(asked: Asked, clients: Collection[str]) -> list[tuple[str, ...]]:
    """The names that each preflight announces, one tuple for each OPTIONS request that these clients cause."""
    if asked.same_origin:
        return []
    found = []
    for client in clients:
        names = tuple(preflight_headers(headers_of(client, asked)))
        if client != EVENT_SOURCE and needs_preflight(asked.method, names) and names not in found:
            found.append(names)
    return found


# ---- walks


def walk(client: str, asked: Asked, answers: Answers) -> Walk:
    """A client's walk through Fetch, to the end or the first step that fails."""
    steps: list[Step] = []
    for step in _steps(client, asked, answers):
        steps.append(step)
        if not step.passes:
            unknown = step.step == "not-asked"
            return Walk(client, None if unknown else False, _sight(client, step, steps), tuple(steps))
    answer = answers.head if asked.method == "HEAD" else answers.get
    if client == EVENT_SOURCE:
        sees = "open, then its events; no header of the answer"
    else:
        names = (
            sorted({name.lower() for name, _ in answer.headers})
            if asked.same_origin
            else visible_headers(answer.headers, credentials=asked.credentials)
        )
        sees = f"status {answer.status}, the body, headers {', '.join(names) or '(none)'}"
    return Walk(client, True, sees, tuple(steps))


def _sight(client: str, failed: Step, steps: Sequence[Step]) -> str:
    """What the page sees when a step fails."""
    if failed.step == "not-asked":
        return "not judged"
    if failed.step == "cannot-ask":
        return "nothing: it cannot ask so"
    if failed.step == "redirect":
        return "what the target of the redirect answers, which was not asked"
    if client == EVENT_SOURCE:
        if failed.step == "no-answer":
            return "no open event; where the connection breaks, it reconnects"
        return "one error event, readyState CLOSED; one request, no reconnect"
    if failed.asking == "OPTIONS":
        works = any(step.step == "event-stream" for step in steps)
        return f"{'its events at first; to resume ' * works}TypeError, and the request itself is never sent"
    if failed.step in {"no-answer", "mixed-content"}:
        return "TypeError"
    if failed.step in {"status", "media-type"}:
        return "the answer, which is no event stream"
    return "TypeError, and no status; the request was executed all the same"


def _ok(asking: str, step: str, what: str) -> Step:
    return Step(asking, step, True, what)


def _end(asking: str, step: str, what: str, mend: str) -> Step:
    return Step(asking, step, False, what, mend)


def _steps(client: str, asked: Asked, answers: Answers) -> Iterator[Step]:
    """The steps in order; nobody asks for more behind one that fails."""
    if client == EVENT_SOURCE and (asked.method != "GET" or asked.headers):
        names = ", ".join([asked.method] * (asked.method != "GET") + [name.lower() for name, _ in asked.headers])
        mend = "put it into the path, the query (a short-lived ticket) or a cookie, or use a client made of fetch"
        yield _end("GET", "cannot-ask", f"EventSource sends GET and no header of a script, so not {names}", mend)
    site = site_of(asked.url)
    if site is not None and asked.origin.startswith("https:") and site.scheme == "http" and not site.loopback:
        yield _end(asked.method, "mixed-content", "a page of https may not ask http", "serve this URL over https")
    names_now, names_later = (preflight_headers(it) for it in (asked.headers, headers_of(client, asked)))
    if asked.same_origin:
        yield _ok(asked.method, "same-origin", "the page has this origin itself: no CORS check, no preflight")
    elif client == EVENT_SOURCE:
        yield _ok("GET", "no-preflight", "EventSource never asks first, on reconnects with Last-Event-ID neither")
    elif needs_preflight(asked.method, names_now):
        reasons = [asked.method] * (asked.method not in SAFELISTED_METHODS) + names_later
        yield from _preflight_steps(f"because of {', '.join(reasons)}", asked, answers, tuple(names_later))
    else:
        yield _ok(asked.method, "no-preflight", "method and headers are safelisted")
    yield from _answer_steps(client, asked, answers)
    if names_later != names_now and not asked.same_origin and not needs_preflight(asked.method, names_now):
        yield from _preflight_steps("to resume, because of last-event-id", asked, answers, tuple(names_later))


def _preflight_steps(why: str, asked: Asked, answers: Answers, names: tuple[str, ...]) -> Iterator[Step]:
    yield _ok(asked.method, "needs-preflight", why)
    answer = answers.preflights[names]
    if not answer:
        yield _end("OPTIONS", "no-answer", answer.failure, "answer OPTIONS at once, with 204")
    failed = preflight_check(
        asked.origin, asked.method, names, answer.status, answer.headers, credentials=asked.credentials
    )
    if failed is not None:
        yield _failed_check("OPTIONS", failed, asked, answer, names)
    yield _ok("OPTIONS", "preflight", f"{answer.status}, and method and headers are allowed")


def _answer_steps(client: str, asked: Asked, answers: Answers) -> Iterator[Step]:
    asking, answer = ("HEAD", answers.head) if asked.method == "HEAD" else (answers.asking, answers.get)
    if not answer:
        yield _end(asking, "no-answer", answer.failure, "send status and headers at once, before the first event")
    stands_for = "" if asking == asked.method else f" ({asking} stands for {asked.method}, which was not sent)"
    if stands_for and answer.status in UNSUPPORTED and get(answer.headers, ACAO) is None:
        what = f"{asked.method} was not sent, and {asking} is answered {answer.status}"
        yield _end(asking, "not-asked", what, f"look at an answer to {asked.method} in the browser")
    if not asked.same_origin:
        failed = cors_check(asked.origin, answer.headers, credentials=asked.credentials)
        if failed is not None:
            yield _failed_check(asking, failed, asked, answer)
        yield _ok(asking, "cors-check", f"{ACAO} is {get(answer.headers, ACAO)}{stands_for}")
    target = get(answer.headers, "location")
    if answer.status in _REDIRECTS and target is not None:
        yield _redirect(asking, asked, answer.status, target)
    if client == FETCH:
        return
    value = get(answer.headers, "content-type") or ""
    if answer.status != 200:
        mend = "answer 200; 204 says: do not reconnect" if answer.status == 204 else "answer 200"
        yield _end(asking, "status", f"{answer.status}, and a stream needs 200", mend)
    if media_type(value) != EVENT_STREAM:
        what = f"content-type {value!r} is no event stream" if value else "no content-type"
        yield _end(asking, "media-type", what, f"content-type: {EVENT_STREAM}")
    if client == EVENT_SOURCE and charset(value) not in {None, "utf-8"}:
        what = f"content-type {value!r}: Chromium takes utf-8 alone (Firefox any)"
        yield _end(asking, "charset", what, f"content-type: {EVENT_STREAM}, whose charset is always utf-8")
    yield _ok(asking, "event-stream", f"200 {value}")


def _redirect(asking: str, asked: Asked, status: int, target: str) -> Step:
    from shlex import quote
    from urllib.parse import urljoin

    url = urljoin(asked.url, target)
    here, there = site_of(asked.url), site_of(url)
    same = here is not None and there is not None and here.origin == there.origin
    origin = asked.origin if same or asked.same_origin else "null"
    became = "" if origin == asked.origin else ", where the page's origin becomes null: another site than the one asked"
    return Step(
        asking,
        "redirect",
        False,
        f"{status} to {url}, which was not followed{became}",
        f"give the page the target itself; gobanfast cors {quote(url)} --origin {origin} asks it",
    )


def _failed_check(asking: str, step: str, asked: Asked, answer: Answer, names: Sequence[str] = ()) -> Step:
    """The step with what is wrong and what mends it."""
    what, mend = _explained(asking, step, asked, answer, names)
    return Step(asking, step, False, what, mend)


def _explained(asking: str, step: str, asked: Asked, answer: Answer, names: Sequence[str]) -> tuple[str, str]:
    right = f"{ACAO}: {asked.origin}" + (f" and {ACAC}: true" if asked.credentials else "")
    match step:
        case "acao-missing":
            if asked.origin == "null":
                right = "no redirect to another site and no sandboxed frame: granting null lets any page in"
            if asking == "OPTIONS" and not 200 <= answer.status <= 299:
                listing = f", {ACAM}: {asked.method}" * (asked.method not in SAFELISTED_METHODS)
                listing += f", {ACAH}: {', '.join(names)}" * bool(names)
                return f"{answer.status} without {ACAO}", f"{_preflight_mend(answer.status)}; {right}{listing}"
            where = f", with status {answer.status} too" if answer.status >= 400 else ""
            return f"{answer.status} without {ACAO}", right + where
        case "acao-mismatch":
            fault = allow_origin_fault(asked, answer)
            return fault.what, fault.mend
        case "acac":
            value = get(answer.headers, ACAC)
            what = f"no {ACAC}" if value is None else f"{ACAC} is {value!r}, not 'true'"
            return what, f"{ACAC}: true, in lower case, on one line"
        case "status":
            return f"the preflight is answered {answer.status}, not 200 to 299", _preflight_mend(answer.status)
        case "parse":
            bad = [name for name in (ACAM, ACAH) if listed_values(answer.headers, name) is None]
            values = ", ".join(f"{name} is {get(answer.headers, name)!r}" for name in bad)
            return f"{values}: no list of names", "names with commas between, without quotes or blanks in them"
        case "method":
            what = f"{ACAM} is {get(answer.headers, ACAM)!r}, without {asked.method}"
            return what, f"{ACAM}: {asked.method} (methods are case-sensitive; * does not count with credentials)"
        case _:
            name = step.partition(":")[2]
            value = get(answer.headers, ACAH)
            what = f"no {ACAH}" if value is None else f"{ACAH} is {value!r}, without {name}"
            if name in NON_WILDCARD_HEADERS and "*" in (listed_values(answer.headers, ACAH) or ()):
                what += ", which * does not cover (Chromium 156 and Firefox 153 still let it)"
            return what, f"{ACAH}: {', '.join(names)}"


def _preflight_mend(status: int) -> str:
    if status in {401, 403, 407}:
        return "answer preflights before authentication: they carry no cookies and no authorization"
    if status in UNSUPPORTED:
        return "answer OPTIONS on this path, with 204"
    if status in _REDIRECTS:
        return "answer OPTIONS at this URL with 204: a preflight is never redirected"
    return "answer OPTIONS with 204"


class Fault(NamedTuple):
    """A fault of a header, by name."""

    code: str
    what: str
    mend: str


def allow_origin_fault(asked: Asked, answer: Answer) -> Fault:
    """The fault of an Access-Control-Allow-Origin that is there and fails the comparison."""
    value = get(answer.headers, ACAO) or ""
    exact = f"{ACAO}: {asked.origin}"
    lines = sum(name.lower() == ACAO for name, _ in answer.headers)
    if lines > 1 or "," in value:
        what = f"{lines} lines of {ACAO}, which count as {value!r}" if lines > 1 else f"{ACAO} is a list, {value!r}"
        return Fault(
            "allow-origin-twice", what, "write it in one place: take it out of the handler, or out of the proxy"
        )
    if value == "*":
        what = f"{ACAO} is '*', which counts literally with credentials"
        return Fault("wildcard-with-credentials", what, f"{exact}, {ACAC}: true and vary: origin")
    if value == "null":
        what = f"{ACAO} is 'null', the origin of sandboxed frames and data: pages"
        return Fault("allow-origin-null", what, f"{exact}; never grant null")
    if value.rstrip("/") == asked.origin:
        return Fault("trailing-slash", f"{ACAO} is {value!r}, and an origin has no slash at its end", exact)
    if value.lower() == asked.origin.lower():
        return Fault("allow-origin-case", f"{ACAO} is {value!r}, and an origin is in lower case", exact)
    what = f"{ACAO} is {value!r}, not the page's origin {asked.origin}"
    return Fault("other-origin", what, f"{exact} and vary: origin, if this page may read it")


def is_event_stream(answer: Answer) -> bool:
    """Whether an answer is one that EventSource reads, as far as its headers say."""
    return answer.status == 200 and media_type(get(answer.headers, "content-type") or "") == EVENT_STREAM
