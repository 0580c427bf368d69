"""Answers that share rules give to a page of another origin, for the same walks through Fetch as a live server's."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

from gobanfast._core.decision import resources_of
from gobanfast.rules.check.because import place
from gobanfast.rules.check.explain_share import share_parts
from gobanfast.rules.compile.share import OWNED, about
from gobanfast.wire.cors_walk import EVENT_STREAM, Answer, Answers, Asked, Walk, headers_of, preflights, walk
from gobanfast.wire.fetch import Site, preflight_headers, site_of

if TYPE_CHECKING:
    from gobanfast._core.decision import Decision
    from gobanfast._core.engine_core import EngineCore
    from gobanfast.rules.rule import Rule

NO_HOST = "host.invalid"
"""Host in the URL of a request whose host is not known (RFC 6761)."""
NOT_LOOKED_AT = (
    "the application: a status of 200, and of event streams their media type, are assumed",
    "conditions on the address, the connection or headers that are not given",
)
_BY_RULES = ("acao-", "acac", "status", "method", "header:")  # steps at which rules end a walk
_TOLD = ("share", "because", "preflight", "owned")


class Decided(NamedTuple):
    """One asking of a browser, what the rules decide about it, and the answer that follows. `names`: announced."""

    asking: str
    names: tuple[str, ...] | None
    decision: Decision
    answer: Answer
    explained: tuple[str, ...]
    mend: str

    @property
    def left(self) -> bool:
        """Whether no rule answers, and the application's own header fields decide."""
        return self.decision.share is None


def decide(engine: EngineCore, asked: Asked, clients: Collection[str]) -> list[Decided]:
    """What the rules decide about each preflight, then about the request itself."""
    found = []
    for names in preflights(asked, clients):
        announced = [("access-control-request-method", asked.method)]
        announced += [("access-control-request-headers", ",".join(names))] if names else []
        found.append(_decided(engine, asked, "OPTIONS", names, announced))
    own = [(name, value) for name, value in asked.headers if value]
    return [*found, _decided(engine, asked, asked.method, None, own)]


def answers(decided: Sequence[Decided]) -> Answers:
    """The answers, as those of a server."""
    own = decided[-1]
    asks = {one.names: one.answer for one in decided if one.names is not None}
    return Answers(own.answer, own.answer, asks, own.asking)


def walk_rules(client: str, asked: Asked, decided: Sequence[Decided]) -> Walk:
    """A client's walk, which ends with what mends the rules."""
    found = walk(client, asked, answers(decided))
    failed = found.failed
    if failed is None or not failed.step.startswith(_BY_RULES):
        return found
    names = tuple(preflight_headers(headers_of(client, asked))) if failed.asking == "OPTIONS" else None
    one = next(it for it in decided if it.names == names)
    sees = found.sees
    if one.decision.share == "refused":
        sees = sees.replace("the request was executed all the same", "the request is not carried out")
    return found._replace(sees=sees, steps=(*found.steps[:-1], failed._replace(mend=one.mend)))


def _decided(
    engine: EngineCore, asked: Asked, asking: str, names: tuple[str, ...] | None, more: Sequence[tuple[str, str]]
) -> Decided:
    site = _site(asked)
    pairs = [*_from_browser(asked, asking), *more]
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in pairs]
    path = "/" + asked.url.partition("://")[2].partition("/")[2]
    decision = engine.peek(None, headers=headers, method=asking, path=path, scheme=site.scheme)
    rules = {rule.id: rule for rule in decision.compiled.rules}
    parts = [(label, text) for label, text in share_parts(decision, rules) if label in _TOLD]
    given = tuple(f"header {name.lower()}:" for name, _ in asked.headers)
    told = tuple(f"{label:<11}{_without_value(text, given)}" for label, text in parts)
    return Decided(asking, names, decision, _answer(decision, rules), told, _mend(decision, rules, asked, names))


def _without_value(text: str, given: tuple[str, ...]) -> str:
    """A line without the value of a header that the caller gave, which may be a secret."""
    whole = text.removeprefix("not ")
    return text.partition(":")[0] + ": by the value that was given" if whole.startswith(given) else text


def _from_browser(asked: Asked, asking: str) -> list[tuple[str, str]]:
    """Header fields that a browser writes by itself, as far as rules on sharing ask for them."""
    site, page = _site(asked), site_of(asked.origin)
    known = site.host != NO_HOST
    pairs = [("host", _host(site))] if known else []
    if not asked.same_origin or asking not in {"GET", "HEAD"}:
        pairs.append(("origin", asked.origin))
    if known and (site.scheme == "https" or site.loopback):
        relation = "cross-site"
        if asked.same_origin:
            relation = "same-origin"
        elif page is not None and page.scheme == site.scheme and _registrable(page.host) == _registrable(site.host):
            relation = "same-site"
        pairs += [("sec-fetch-site", relation), ("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty")]
    return pairs


def _site(asked: Asked) -> Site:
    site = site_of(asked.url)
    if site is None:
        raise ValueError(f"URL {asked.url!r} is no http:// or https:// URL")
    return site


def _host(site: Site) -> str:
    """The field Host."""
    return site.origin.partition("://")[2]


def _registrable(host: str) -> str:
    """The part of a host that makes its site. Source: HTML Standard, "obtain a site"."""
    import publicsuffixlist  # megabytes

    if host.startswith("[") or host.rpartition(".")[2].isdigit():
        return host
    return publicsuffixlist.PublicSuffixList().privatesuffix(host) or host


def _answer(decision: Decision, rules: dict[str, Rule]) -> Answer:
    fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in decision.share_headers]
    if decision.varies:
        fields.append(("vary", ", ".join(decision.varies)))
    if decision.share == "refused":
        negated = rules[decision.share_rule or ""].when.negated
        return Answer(403 if negated is None or negated.host is None else 421, fields)
    if decision.preflight and decision.share is not None:
        return Answer(204 if decision.share == "granted" else 403, fields)
    return Answer(200, [*fields, ("content-type", EVENT_STREAM)])


def _mend(decision: Decision, rules: dict[str, Rule], asked: Asked, names: tuple[str, ...] | None) -> str:
    """What to write into the rules, so that this page may read."""
    origin = asked.origin
    if decision.share is None:
        return (
            f"add a rule under share: with when: {{path: {decision.path}, origin: {origin!r}}} and action: grant; or "
            "leave it to the application, and ask the running server: gobanfast cors URL"
        )
    by = None if decision.share_rule is None else rules[decision.share_rule]
    if decision.share == "refused" and by is not None:
        negated = by.when.negated
        if negated is not None and negated.host is not None:
            if _site(asked).host == NO_HOST:
                return f"give --host, which {place(by)} compares"
            return f"list {_host(_site(asked))} under not: host: of {place(by)}, if this server goes by that name"
        if negated is not None and negated.origin is not None and origin != "null":
            return f"list {origin} under not: origin: of {place(by)}, if this page may ask"
        return f"add a condition, or a not:, to when: of {place(by)} that leaves out this request, if it may come in"
    if decision.ungranted is not None:
        matched = rules[decision.share_matched[0]]
        wanted = f"methods: [{asked.method}]" if decision.ungranted == "method" else _headers(matched, names or ())
        return f"add {wanted} to {place(matched)}"
    if decision.share == "granted" and by is not None:
        anyone = by.when.origin is None
        return "add credentials: true" + f" and, under when:, origin: [{origin!r}]" * anyone + f" to {place(by)}"
    if origin == "null":
        return (
            "nothing in the rules: null is the origin of sandboxed frames, data: URLs and redirects, and never granted"
        )
    if by is not None:
        return f"add a grant with a smaller priority than {place(by)}, if this page may read it"
    owners = [rule for rule, flags in about(rules.values(), resources_of(decision)) if flags & OWNED and rule.grant]
    others = [rule for rule in owners if rule.when.origin is not None]
    if not others:
        return f"add a rule under share: that grants it to origin: {origin!r}"
    return f"list {origin} under origin: of {place(others[0])}, if this page may read it"


def _headers(rule: Rule, names: Sequence[str]) -> str:
    granted = {name.lower() for name in (() if rule.grant is None else rule.grant.headers)}
    missing = [name for name in names if name not in granted and ("*" not in granted or name == "authorization")]
    return f"headers: [{', '.join(missing)}]"
