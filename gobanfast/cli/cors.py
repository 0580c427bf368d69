"""`gobanfast cors`: ask a server or rules as a page of another origin would, and walk the answers through Fetch."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from rich.text import Text

from gobanfast import __version__
from gobanfast._errors import GobanError
from gobanfast.cli.common import (
    AsJson,
    Host,
    Scheme,
    UrlPath,
    listed,
    load_asn,
    load_engine,
    output,
    table,
)
from gobanfast.rules.check.share_answers import NO_HOST, decide, walk_rules
from gobanfast.rules.check.share_answers import NOT_LOOKED_AT as RULES_NOT_LOOKED_AT
from gobanfast.rules.check.share_answers import answers as rule_answers
from gobanfast.wire.cors_findings import Finding, findings
from gobanfast.wire.cors_walk import (
    CLIENTS,
    EVENT_SOURCE,
    EVENT_STREAM,
    FETCH,
    FETCH_SSE,
    NOT_LOOKED_AT,
    Answer,
    Answers,
    Asked,
    Walk,
    is_event_stream,
    preflights,
    walk,
)
from gobanfast.wire.fetch import TOKEN, is_forbidden_header, is_forbidden_method, normalized_method, site_of

if TYPE_CHECKING:
    import httpx
    from rich.console import Console

HEADERS_SECONDS = 10.0  # until an answer's headers are there
STREAM_SECONDS = 1.0  # of a body
CLOSE_SECONDS = 2.0
BODY_BYTES = 1 << 16
SHOWN_BYTES = 400  # of a header value
SHOWN = ("content-type", "vary", "location", "connection")  # beside access-control-*
COLOURS = {"problem": "red", "warning": "yellow", "note": "dim"}
READABLE = {True: ("readable", "green"), False: ("not readable", "red"), None: ("not judged", "yellow")}


class Client(StrEnum):
    """What `--client` takes."""

    EVENTSOURCE = "eventsource"
    FETCH = "fetch"
    FETCH_SSE = "fetch-sse"


NAMES = {Client.EVENTSOURCE: EVENT_SOURCE, Client.FETCH: FETCH, Client.FETCH_SSE: FETCH_SSE}


def cors(
    origin: Annotated[
        str,
        typer.Option("--origin", "-o", metavar="ORIGIN", help="The page's origin: https://app.example.com, or null."),
    ],
    url: Annotated[
        str | None, typer.Argument(metavar="URL", help="What the page asks for, of a live server; http or https.")
    ] = None,
    credentials: Annotated[
        bool, typer.Option("--credentials", help="With credentials: include, withCredentials: true.")
    ] = False,
    method: Annotated[
        str, typer.Option("--method", help="Method that the page's script uses. Only OPTIONS, HEAD and GET are sent.")
    ] = "GET",
    header: Annotated[
        list[str] | None,
        typer.Option(
            "--header", metavar="'NAME: VALUE'", help="A header that the page's script sets, or its name; repeatable."
        ),
    ] = None,
    client: Annotated[
        list[Client] | None,
        typer.Option(
            "--client",
            metavar="CLIENT",
            help="The client that must be able to read: eventsource, fetch or fetch-sse; repeatable.",
        ),
    ] = None,
    rules: Annotated[
        Path | None,
        typer.Option(
            "--rules", "-r", exists=True, dir_okay=False, help="Ask the share rules of this file, and no server."
        ),
    ] = None,
    path: UrlPath = None,
    host: Host = None,
    scheme: Scheme = None,
    as_json: AsJson = False,
) -> None:
    """Ask a live server as a browser would for a page of another origin; say at which step of Fetch each client ends,
    what the page sees, and what mends it. With --rules and --path in place of URL: the answers that share rules give.

    Three askings of a server: a preflight (where a client needs one), HEAD, and a GET whose body is left after a
    second. Redirects are not followed, cookies are not sent.

    Exit status 1 if a client cannot read the answer: those of --client; without it fetch, and EventSource where the
    answer is an event stream.
    """
    if (url is None) == (rules is None) or (rules is None) != (path is None):
        raise typer.BadParameter("give the URL of a live server, or --rules with --path")
    chosen = [NAMES[name] for name in client or ()]
    if rules is not None:
        target = _target(path or "/", host, scheme)
        fine = _tell_rules(rules, _asked(target, origin, credentials, method, header or []), chosen, as_json=as_json)
        if not fine:
            raise typer.Exit(1)
        return
    if host is not None or scheme is not None:
        raise typer.BadParameter("--host and --scheme go with --rules; a live server has them in its URL")
    asked = _asked(url or "", origin, credentials, method, header or [])
    answers, ended = asyncio.run(_ask_all(asked, chosen or CLIENTS))
    walks = [walk(name, asked, answers) for name in chosen or CLIENTS]
    found = findings(asked, answers, chosen)
    judged = chosen or _judged(asked, answers)
    fine = all(one.readable for one in walks if one.client in judged)
    if as_json:
        typer.echo(json.dumps(_members(asked, answers, walks, found, fine)))
    else:
        _show(asked, answers, walks, found, ended)
    if not fine:
        raise typer.Exit(1)


def _judged(asked: Asked, answers: Answers) -> list[str]:
    """The clients whose walks are the exit status where none was chosen."""
    able = asked.method == "GET" and not asked.headers
    return [FETCH, EVENT_SOURCE] if able and is_event_stream(answers.get) else [FETCH]


# ---- options


def _target(path: str, host: str | None, scheme: str | None) -> str:
    """The URL of what rules are asked for."""
    if scheme not in {None, "http", "https"}:
        raise typer.BadParameter(f"--scheme {scheme!r} is not http or https")
    if not path.startswith("/"):
        raise typer.BadParameter(f"--path {path!r} is no path; write /{path}")
    url = f"{scheme or 'https'}://{host or NO_HOST}{path}"
    if site_of(url) is None or "@" in (host or "") or "/" in (host or ""):
        raise typer.BadParameter(f"--host {host!r} is no host; write api.example.com, or localhost:8000")
    return url


def _asked(url: str, origin: str, credentials: bool, method: str, headers: Sequence[str]) -> Asked:
    """What the page asks, checked: everything that no page can ask is a usage error."""
    site = site_of(url)
    if site is None or site.scheme not in {"http", "https"}:
        raise typer.BadParameter(f"URL {url!r} is no http:// or https:// URL")
    if "@" in url.partition("://")[2].partition("/")[0]:
        raise typer.BadParameter(
            f"URL for {site.host} has a user or password, and no page can fetch such; leave it out"
        )
    page = site_of(origin)
    if origin != "null" and page is None:
        raise typer.BadParameter(f"--origin {origin!r} is no origin; write https://app.example.com, or null")
    if page is not None and page.origin != origin:
        raise typer.BadParameter(f"--origin {origin!r} is not as browsers write it; write {page.origin}")
    if TOKEN.fullmatch(method) is None or is_forbidden_method(method):
        raise typer.BadParameter(f"--method {method!r} is none that a page can use")
    pairs = tuple(map(_pair, headers))
    return Asked(url.partition("#")[0], origin, credentials, normalized_method(method), pairs)


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition(":")
    name, value = name.strip(), value.strip()
    if TOKEN.fullmatch(name) is None:
        raise typer.BadParameter(f"--header {name!r} is no name of a header; write 'x-api-key: 1' or x-api-key")
    if is_forbidden_header(name, value):
        raise typer.BadParameter(f"--header {name!r} is one that the browser writes, and no script can")
    if not value.isprintable() or any(ord(character) > 0xFF for character in value):
        raise typer.BadParameter(f"--header {name!r} has a value that no header can have")
    return name, value


# ---- asking


class _Got(NamedTuple):
    answer: Answer
    ended: bool = True


async def _ask_all(asked: Asked, clients: Collection[str]) -> tuple[Answers, bool]:
    """The answers to preflights, HEAD and GET, one after the other, and whether the body of GET ended."""
    own = [(name, value) for name, value in asked.headers if value]
    if all(name.lower() != "accept" for name, _ in own):
        own.append(("Accept", "*/*" if FETCH in clients else EVENT_STREAM))
    page = [] if asked.same_origin else [("Origin", asked.origin)]
    asks = {}
    for names in preflights(asked, clients):
        announced = [("Access-Control-Request-Method", asked.method)]
        announced += [("Access-Control-Request-Headers", ",".join(names))] if names else []
        asks[names] = (await _ask("OPTIONS", asked.url, [("Accept", "*/*"), *page, *announced])).answer
    head = await _ask("HEAD", asked.url, page + own)
    got = await _ask("GET", asked.url, page + own)
    return Answers(got.answer, head.answer, asks), got.ended


async def _ask(method: str, url: str, headers: list[tuple[str, str]]) -> _Got:
    """One answer, by a client of its own: no connection, cookie or redirect is carried over.

    Raises:
        GobanError: nobody can be reached there.
    """
    try:
        import h2  # noqa: F401 - httpx asks for it late
        import httpx
    except ImportError as error:
        raise typer.BadParameter(f"asking a server needs {error.name}: pip install 'gobanfast[cors]'") from None
    got = _Got(Answer(0, failure=f"no status and headers within {HEADERS_SECONDS:.0f} s"))
    agent = {"User-Agent": f"gobanfast/{__version__} cors"}
    try:
        async with asyncio.timeout(HEADERS_SECONDS + STREAM_SECONDS + CLOSE_SECONDS):
            async with httpx.AsyncClient(http2=True, headers=agent, timeout=HEADERS_SECONDS) as asker:
                request = asker.build_request(method, url, headers=_encoded(headers))
                async with asyncio.timeout(HEADERS_SECONDS):
                    response = await asker.send(request, stream=True)
                got = _Got(_answer(response), ended=False)
                got = got._replace(ended=await _ended(response))
    except TimeoutError:
        pass  # what came until then counts
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
        raise GobanError(f"{url}: {error or 'no connection'}") from None
    except httpx.HTTPError as error:
        if not got.answer:
            return _Got(Answer(0, failure=str(error) or type(error).__name__))
    return got


def _encoded(headers: Sequence[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode("latin-1")) for name, value in headers]


def _answer(response: httpx.Response) -> Answer:
    pairs = tuple((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in response.headers.raw)
    return Answer(response.status_code, pairs, response.http_version)


async def _ended(response: httpx.Response) -> bool:
    """Whether a body ends within a second and BODY_BYTES."""
    size = 0
    try:
        async with asyncio.timeout(STREAM_SECONDS):
            async for chunk in response.aiter_raw():
                size += len(chunk)
                if size > BODY_BYTES:
                    return False
    except TimeoutError:
        return False
    finally:
        await response.aclose()
    return True


# ---- telling


def _members(
    asked: Asked, answers: Answers, walks: Sequence[Walk], found: Sequence[Finding], fine: bool
) -> dict[str, Any]:
    """The whole as JSON members. Values of headers that the caller gave are left out: they may be secrets."""
    return _judged_members(asked, walks, found, fine) | {
        "answers": [
            {
                "asking": asking,
                "announced": None if names is None else list(names),
                "status": answer.status or None,
                "http": answer.http if answer else None,
                "failure": answer.failure or None,
                "headers": _shown(answer),
            }
            for asking, names, answer in _all(answers)
        ],
        "not_looked_at": list(NOT_LOOKED_AT),
    }


def _judged_members(asked: Asked, walks: Sequence[Walk], found: Sequence[Finding], fine: bool) -> dict[str, Any]:
    return {
        "url": asked.url,
        "origin": asked.origin,
        "credentials": asked.credentials,
        "method": asked.method,
        "headers": [name.lower() for name, _ in asked.headers],
        "readable": fine,
        "clients": [
            {
                "client": one.client,
                "readable": one.readable,
                "asking": None if one.failed is None else one.failed.asking,
                "step": None if one.failed is None else one.failed.step,
                "sees": one.sees,
                "mend": None if one.failed is None else one.failed.mend,
                "walk": [step._asdict() for step in one.steps],
            }
            for one in walks
        ],
        "findings": [finding._asdict() for finding in found],
    }


def _all(answers: Answers) -> list[tuple[str, tuple[str, ...] | None, Answer]]:
    return [
        *(("OPTIONS", names, answer) for names, answer in answers.preflights.items()),
        ("HEAD", None, answers.head),
        ("GET", None, answers.get),
    ]


def _shown(answer: Answer) -> list[tuple[str, str]]:
    """The header lines that matter here, in the order received."""
    return [
        (name, value[:SHOWN_BYTES])
        for name, value in answer.headers
        if name in SHOWN or name.startswith("access-control-")
    ]


def _show(asked: Asked, answers: Answers, walks: Sequence[Walk], found: Sequence[Finding], ended: bool) -> None:
    console = output()
    how = "with" if asked.credentials else "without"
    console.print(Text(f"{asked.method} {asked.url}, asked by a page of {asked.origin}, {how} credentials"))
    for asking, names, answer in _all(answers):
        about = f"{asking}{'' if names is None else f' for {listed([asked.method, *names])}'}"
        if not answer:
            console.print(Text(f"  {about}: {_plain(answer.failure)}"))
            continue
        still = ", still open after a second" if asking == "GET" and not ended else ""
        console.print(Text(f"  {about}: {answer.status} over {answer.http}{still}"))
        for name, value in _shown(answer):
            console.print(Text(f"    {_plain(name)}: {_plain(value)}"))
    _show_walks(console, walks, found)
    console.print(Text("\nnot looked at:"))
    for text in NOT_LOOKED_AT:
        console.print(Text(f"  {text}"))


def _show_walks(console: Console, walks: Sequence[Walk], found: Sequence[Finding]) -> None:
    for one in walks:
        word, style = READABLE[one.readable]
        console.print(Text.assemble(f"\n{one.client}: ", (word, style), f"; the page sees: {_plain(one.sees)}"))
        rows = [
            [f"  {step.asking}", step.step, "ok" if step.passes else "ends here", _plain(step.what)]
            for step in one.steps
        ]
        console.print(table("", ["  asking", "step", "", "what"], rows))
        if one.failed is not None and one.failed.mend:
            console.print(Text(f"  mend: {_plain(one.failed.mend)}"))
    for finding in found:
        about = f" {finding.code}" + (f", a case of: {finding.mode}" if finding.mode else "")
        console.print(Text.assemble("\n", (f"{finding.severity}:", COLOURS[finding.severity]), about))
        console.print(Text(f"  {_plain(finding.what)}\n  mend: {_plain(finding.mend)}"))


def _plain(text: str) -> str:
    """A server's text, fit for a terminal."""
    return "".join(character if character.isprintable() else f"\\x{ord(character):02x}" for character in text)


# ---- rules in place of a server


def _tell_rules(rules: Path, asked: Asked, chosen: Sequence[str], *, as_json: bool) -> bool:
    """Whether the page can read what the rules share; told on standard output."""
    decided = decide(load_engine(rules, load_asn(None)), asked, chosen or CLIENTS)
    left = not asked.same_origin and any(one.left for one in decided)
    walks = [] if left else [walk_rules(name, asked, decided) for name in chosen or CLIENTS]
    own = decided[-1].decision
    found = [] if left or own.share == "refused" else findings(asked, rule_answers(decided), chosen)
    fine = bool(walks) and all(one.readable for one in walks if one.client in (chosen or [FETCH]))
    unseen = [*RULES_NOT_LOOKED_AT, *NOT_LOOKED_AT]
    if own.action != "allow":
        by = f"its cause is {own.cause}" if own.rule is None else f"by rule {own.rule!r}"
        unseen.insert(0, f"coming in: for this the rules have the action {own.action}, {by}, whoever asks")
    if as_json:
        shown = [
            {
                "asking": one.asking,
                "announced": None if one.names is None else list(one.names),
                "share": one.decision.share,
                "rule": one.decision.share_rule,
                "status": None if one.left else one.answer.status,
                "headers": _shown(one.answer),
                "explanation": list(one.explained),
            }
            for one in decided
        ]
        more = {
            "rules": str(rules),
            "answers": shown,
            "not_looked_at": unseen,
            "mend": decided[-1].mend if left else None,
        }
        typer.echo(json.dumps(_judged_members(asked, walks, found, fine) | more))
        return fine
    console = output()
    how = "with" if asked.credentials else "without"
    url = asked.url.replace(f"https://{NO_HOST}", "").replace(f"http://{NO_HOST}", "")
    console.print(Text(f"{asked.method} {url} by {rules}, asked by a page of {asked.origin}, {how} credentials"))
    for one in decided:
        about = f"{one.asking}{'' if one.names is None else f' for {listed([asked.method, *one.names])}'}"
        answer = "the application's own header fields" if one.left else f"{one.answer.status}"
        console.print(Text(f"  {about}: {answer}"))
        for name, value in () if one.left else _shown(one.answer):
            console.print(Text(f"    {_plain(name)}: {_plain(value)}"))
        for line in one.explained:
            console.print(Text(f"    {_plain(line)}"))
    if left:
        console.print(Text(f"\nnot judged: no share rule is about it\n  mend: {_plain(decided[-1].mend)}"))
    _show_walks(console, walks, found)
    console.print(Text("\nnot looked at:"))
    for text in unseen:
        console.print(Text(f"  {text}"))
    return fine
