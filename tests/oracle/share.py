"""What rules of several effects say about a request: every condition of every rule asked, as DESIGN.md 6.1 and 6.2 say.

A condition meets a signal in one of four states: present, absent, malformed, unknown. It holds of a value, or by a word
for the state; unknown satisfies nothing. Under `not:` it must not hold, and then absent satisfies it, malformed does in
a restrictive rule, unknown never. Rules of trackers, bans and score are in `oracle.live`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from oracle import acrh, origins, paths, requests
from oracle import headers as oracle
from oracle.requests import OracleRequest
from oracle.rules import OracleNetworks, OracleRule, OracleSignals, covers, name_holds, name_of

PERMISSIVE = ("allow", "grant", "never")
NOT_OF_PREFLIGHTS = ("cookie", "authorization", "fingerprint", "shape")
"""What the request after a preflight brings, and it does not."""
OF_PAGE = ("origin", "fetch_site", "cross_origin_write")
SAFE = ("GET", "HEAD", "OPTIONS")
METHOD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]"


@dataclass(frozen=True)
class Asked:
    """A condition and how it met the request: in state present, absent, malformed or unknown it `holds` as written."""

    about: str
    state: str
    holds: bool


@dataclass(frozen=True)
class Answer:
    """What is decided, under the names of a decision."""

    action: str
    cause: str
    rule: str | None
    matched: tuple[str, ...]
    logged: tuple[str, ...]
    shadow: tuple[str, ...]
    share: str | None
    share_rule: str | None
    share_shadow: tuple[str, ...]
    varies: tuple[str, ...]
    preflight: bool


# ---- signals


def header_state(request: OracleRequest, name: str) -> tuple[str, str | None]:
    """State and text of a header."""
    if name == "host" and request.host is not None and not unreadable(request):
        return "present", request.host
    found = requests.read(request)
    if found is None:
        return "unknown", None
    if found.problem is not None:
        return "malformed", None
    value = found.value(name)
    if value is not None:
        return "present", requests.text_of(value)
    return ("absent" if request.known is None or name in request.known else "unknown"), None


def unreadable(request: OracleRequest) -> bool:
    found = requests.read(request)
    return found is not None and found.problem is not None


def target_state(request: OracleRequest, given: str | None, name: str, read: str | None) -> str:
    """State of method or path: `given` by itself or by a pseudo header, `read` what can be made of it."""
    found = requests.read(request)
    said = given is not None or (found is not None and found.problem is None and name in found.values)
    return "unknown" if not said else "malformed" if read is None else "present"


def method_state(request: OracleRequest) -> tuple[str, str | None]:
    method = requests.method_of(request)
    return target_state(request, request.method, ":method", method), method


def path_state(request: OracleRequest) -> tuple[str, str | None]:
    """State and path as sent; one with too many readings, or a control character in one, is malformed."""
    given = request.path
    path = requests.path_of(request)
    state = target_state(request, given, ":path", path)
    if path is not None and not paths.hold(path, request.mount, False, lambda _: True):
        state = "malformed"
    return state, path


def default_port(request: OracleRequest) -> int:
    """The port that the scheme implies; 0: none is known."""
    scheme = request.scheme
    if scheme is None:
        found = requests.read(request)
        value = None if found is None or found.problem else found.value(":scheme")
        scheme = None if value is None else value.decode("latin-1")
    return {"http": 80, "ws": 80, "https": 443, "wss": 443}.get(scheme or "", 0)


# ---- origins and hosts


def listed_states(listed: tuple[str, ...], state: str) -> bool:
    return state in ("absent", "malformed") and state in listed


def origin_asked(listed: tuple[str, ...], request: OracleRequest) -> tuple[str, bool]:
    state, text = header_state(request, "origin")
    if state == "present" and origins.origin(text or "") is None:
        state = "malformed"
    if state != "present":
        return state, listed_states(listed, state)
    assert text is not None
    patterns = [item for item in listed if item not in ("absent", "malformed")]
    return state, any(
        re.fullmatch(item[3:], text) if item.startswith("re:") else origins.matches(item, text) for item in patterns
    )


def host_asked(listed: tuple[str, ...], request: OracleRequest) -> tuple[str, bool]:
    state, text = header_state(request, "host")
    read = None if text is None else origins.host(text, default_port(request))
    if state == "present" and read is None:
        state = "malformed"
    if state != "present":
        return state, listed_states(listed, state)
    assert read is not None
    return state, any(origins.covers(item, *read) for item in listed if item not in ("absent", "malformed"))


# ---- who writes


def cross_origin_write(request: OracleRequest, method: tuple[str, str | None]) -> tuple[str, bool]:
    """State, and whether CrossOriginProtection of Go 1.25 would refuse the request."""
    state, text = method
    if state == "unknown":
        return "unknown", False
    if text in SAFE:
        return "present", False
    site_state, site = header_state(request, "sec-fetch-site")
    origin_state, origin = header_state(request, "origin")
    host_state, host = header_state(request, "host")
    if unreadable(request):
        return "malformed", False
    if site_state == "present" and site:
        return "present", site not in ("same-origin", "none")
    if "unknown" in (site_state, origin_state):
        return "unknown", False
    if not origin:
        return "present", False
    if host_state == "unknown":
        return "unknown", False
    scheme, mark, rest = origin.partition("://")
    same = mark and re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme) and rest.lower() == (host or "").lower() and host
    return "present", not same


# ---- conditions


def asked(
    when: OracleRule, request: OracleRequest, method: tuple[str, str | None], networks: OracleNetworks,
    address: str | None, sni: OracleSignals,
) -> Iterator[Asked]:  # fmt: skip
    """Every condition but those on the path."""
    found = requests.read(request)
    for name, written in (when.header or {}).items():
        state, value = header_state(request, name.lower())
        if too_long(written, value):
            yield Asked(name.lower(), "malformed", False)
        else:
            yield Asked(name.lower(), state, state != "unknown" and requests.header_holds(written, state, value))
    agent_state, agent = header_state(request, "user-agent")
    if when.ua_family is not None:
        yield Asked("user-agent", agent_state, agent_state == "present" and family(agent) in when.ua_family)
    if when.crawler is not None:
        yield Asked("user-agent", agent_state, agent_state == "present" and claims(when.crawler, agent or ""))
    hashed = "unknown" if found is None else "malformed" if found.problem else "present"
    if hashed == "present" and request.known is not None:
        hashed = "unknown"
    for about, hash_of in (("fingerprint", oracle.gh2), ("shape", oracle.gs1)):
        listed = getattr(when, about)
        if listed is not None:
            text = hash_of(list(request.headers or ())) if hashed == "present" else None
            yield Asked(about, hashed, text in listed)
    if when.method is not None:
        yield Asked("method", method[0], method[0] == "present" and method[1] in when.method)
    for about in ("fetch_site", "fetch_mode", "fetch_dest"):
        listed = getattr(when, about)
        if listed is not None:
            state, text = header_state(request, "sec-" + about.replace("_", "-"))
            holds = (text or "").lower() in listed if state == "present" else listed_states(listed, state)
            yield Asked(about, state, holds)
    if when.origin is not None:
        yield Asked("origin", *origin_asked(when.origin, request))
    if when.host is not None:
        yield Asked("host", *host_asked(when.host, request))
    if when.cross_origin_write is not None:
        state, crossing = cross_origin_write(request, method)
        yield Asked("cross_origin_write", state, state == "present" and crossing == when.cross_origin_write)
    yield from of_address(when, networks, address)
    if when.sni is not None:
        name = name_of(sni)
        state = name.lower() if name.isupper() else "present"
        yield Asked("sni", state, name_holds(when.sni, name))


def too_long(written: Any, value: str | None) -> bool:
    """Whether a condition looks for parts, and the value is longer than what is searched."""
    parts = isinstance(written, dict) and ("regex" in written or "contains" in written)
    return parts and value is not None and len(value.encode()) > 4096


def of_address(when: OracleRule, networks: OracleNetworks, address: str | None) -> Iterator[Asked]:
    """Conditions on the address; "" is one that is none."""
    state = "unknown" if address is None else "present" if address else "malformed"
    if when.prefix is not None:
        yield Asked("prefix", state, bool(address) and any(covers(prefix, address or "") for prefix in when.prefix))
    asn = networks.lookup(address) if address else 0
    known = "present" if asn else "unknown"
    if when.asn is not None:
        yield Asked("asn", known, bool(asn) and any(first <= asn <= last for first, last in when.asn))
    if when.asn_name is not None:
        text = networks.describe(asn)
        yield Asked("asn_name", known, bool(asn) and any(re.search(p, text, re.IGNORECASE) for p in when.asn_name))


def family(agent: str | None) -> str:
    return oracle.ua_family((agent or "").encode().decode("latin-1"))


def claims(listed: tuple[str, ...], agent: str) -> bool:
    products = {word.split("/")[0] for word in re.split(r"[^\w./-]", agent.lower())}
    said = [name for token, name in requests.CRAWLERS.items() if token in products]
    return bool(said) and ("any" in listed or said[0] in listed)


# ---- rules


@dataclass(frozen=True)
class Request:
    """A request and all that is around it. `announced` is the method that a preflight announces; then conditions on
    what it does not carry count in its favour."""

    request: OracleRequest
    address: str | None
    sni: str | None
    networks: OracleNetworks
    preflight: bool = False
    announced: str | None = None  # asked in place of the method

    @property
    def method(self) -> tuple[str, str | None]:
        if self.announced is None:
            return method_state(self.request)
        good = re.fullmatch(METHOD + r"{1,32}", self.announced)
        return ("present", self.announced) if good else ("malformed", None)


def holds(rule: OracleRule, asking: Request, permissive: bool, favoured: bool) -> bool:
    """Whether the rule holds: every condition, none under `not:`, the path as a whole under one reading or under all.

    `favoured` is for preflights: what a condition would say of a signal that they do not carry.
    """
    around = (asking.request, asking.method, asking.networks, asking.address, OracleSignals(asking.sni))
    for condition in asked(rule, *around):
        if asking.preflight and condition.about in NOT_OF_PREFLIGHTS:
            if not favoured:
                return False
        elif condition.about == "cross_origin_write" and condition.state == "malformed" and rule.cross_origin_write:
            if permissive:  # what cannot be read counts as a write where that keeps it out
                return False
        elif condition.state == "unknown" or not condition.holds:
            return False
    negated = rule.negated or OracleRule("", "")
    for condition in asked(negated, *around):
        if asking.preflight and condition.about in NOT_OF_PREFLIGHTS:
            if not favoured:
                return False
        elif (
            condition.holds or condition.state == "unknown" or (condition.state == "malformed" and permissive)
        ):  # fmt: skip
            return False
    if rule.path is None and negated.path is None:
        return True
    state, path = path_state(asking.request)
    if state == "malformed":
        return rule.path is None and not permissive
    if state == "unknown":
        return False
    assert path is not None

    def under(reading: str) -> bool:
        return (rule.path is None or requests.path_holds(rule.path, reading)) and not (
            negated.path is not None and requests.path_holds(negated.path, reading)
        )

    return paths.hold(path, asking.request.mount, permissive, under)


def in_order(rules: list[OracleRule], effect: str) -> list[OracleRule]:
    """Rules of one effect in decision order: `allow` or `refuse` first, then priority and place."""
    return sorted(
        (rule for rule in rules if rule.mode != "off" and rule.effect == effect),
        key=lambda rule: (rule.action not in ("allow", "refuse"), rule.priority),
    )


def holding(rules: list[OracleRule], effect: str, asking: Request) -> list[OracleRule]:
    return [
        rule
        for rule in in_order(rules, effect)
        if holds(rule, asking, rule.action in PERMISSIVE, rule.action in PERMISSIVE)
    ]


def without_page(when: OracleRule) -> OracleRule:
    """The rule without its conditions on the page that asks."""
    gone: dict[str, Any] = dict.fromkeys(OF_PAGE)
    negated = None if when.negated is None else replace(when.negated, **gone)
    return replace(when, negated=negated, **gone)


def owned(rules: list[OracleRule], asking: Request) -> bool:
    """Whether the resource is that of an enforced `grant` or `withhold`. Ownership is restrictive: any reading will do;
    what a preflight does not carry counts for a grant, and against withholding."""
    return any(
        holds(without_page(rule), asking, False, rule.action == "grant")
        for rule in in_order(rules, "share")
        if rule.mode == "enforce" and rule.action in ("grant", "withhold")
    )


def varying(rules: list[OracleRule], asking: Request) -> tuple[str, ...]:
    """The headers by which enforced rules about this resource tell pages apart: `cross_origin_write` reads two, and
    never of a request that changes nothing."""
    found = set()
    for rule in in_order(rules, "share"):
        if rule.mode != "enforce":
            continue
        if not holds(without_page(rule), asking, False, rule.action == "grant"):
            continue
        parts = [part for part in (rule, rule.negated) if part is not None]
        writes = any(part.cross_origin_write is not None for part in parts)
        if rule.cross_origin_write and (asking.method[1] in SAFE or asking.method[0] == "unknown"):
            continue  # it cannot hold
        if writes or any(part.origin is not None for part in parts):
            found.add("Origin")
        if writes or any(part.fetch_site is not None for part in parts):
            found.add("Sec-Fetch-Site")
    return tuple(sorted(found))


def allowed(rule: OracleRule, method: str, names: bytes | None) -> bool:
    """Whether a grant covers what a preflight announces."""
    if not re.fullmatch(METHOD + r"{1,32}", method):
        return False
    if method not in ("GET", "HEAD", "POST", *rule.methods) and "*" not in rule.methods:
        return False
    plain = [name for name in rule.headers if name != "*"]
    return names is None or acrh.allows(plain, [names.decode("latin-1")], others="*" in rule.headers)


def anybody(rule: OracleRule) -> bool:
    """Whether a grant says `*`, whoever asks."""
    on_origin = [part.origin for part in (rule, rule.negated) if part is not None and part.origin is not None]
    return not rule.credentials and on_origin in ([], [("*",)])


def decide(
    rules: list[OracleRule], request: OracleRequest, address: str | None, sni: str | None, networks: OracleNetworks,
    unparsable: str = "challenge",
) -> Answer:  # fmt: skip
    """The answer of rules alone; no ban is stored, and there are no trackers."""
    asking = Request(request, address, sni, networks)
    values = requests.read(request)
    sent = {} if values is None or values.problem else values.values
    from_page = "origin" in sent
    preflight = False
    shares = asking
    if method_state(request)[1] == "OPTIONS" and from_page and "access-control-request-method" in sent:
        announced = requests.text_of(b", ".join(sent["access-control-request-method"]))
        shares = replace(asking, preflight=True, announced=announced)
        preflight = bool(in_order(rules, "share")) and owned(rules, shares)
        asking, shares = (replace(asking, preflight=True), shares) if preflight else (asking, asking)

    admit = holding(rules, "admit", asking)
    enforced = [rule for rule in admit if rule.mode == "enforce" and rule.action != "log"]
    winner = next((rule for rule in enforced if not preflight or rule.action == "allow"), None)
    if winner is not None:
        action, cause = winner.action, "rule"
    elif not preflight and unread(rules, asking):
        action, cause = unparsable, "unparsable"
    else:
        action, cause = "allow", "none"
    before = admit if winner is None else admit[: admit.index(winner)]

    share = holding(rules, "share", shares)
    decider = next((rule for rule in share if rule.mode == "enforce"), None)
    ours = owned(rules, shares)
    said = None
    if decider is None:
        said = "withheld" if from_page and ours else None
    elif decider.action == "refuse":
        said = "refused"
    elif decider.action == "withhold":
        said = "withheld" if from_page else None
    elif preflight:
        names = sent.get("access-control-request-headers")
        fine = allowed(decider, shares.announced or "", None if names is None else b", ".join(names))
        said = "granted" if fine else "withheld"
    elif from_page or anybody(decider):
        said = "granted"
    return Answer(
        action,
        cause,
        None if winner is None else winner.id,
        tuple(rule.id for rule in enforced),
        tuple(rule.id for rule in admit if rule.mode == "enforce" and rule.action == "log"),
        tuple(rule.id for rule in before if rule.mode == "shadow"),
        said,
        decider.id if decider is not None and said is not None else None,
        tuple(rule.id for rule in (share if decider is None else share[: share.index(decider)])
              if rule.mode == "shadow"),
        varying(rules, shares) if ours else (),
        preflight,
    )  # fmt: skip


def unread(rules: list[OracleRule], asking: Request) -> bool:
    """Whether a signal that a rule about admission asks for is there and cannot be read."""
    if asking.address == "":
        return True
    parts = [part for rule in in_order(rules, "admit") for part in (rule, rule.negated) if part is not None]
    if name_of(OracleSignals(asking.sni)) == "MALFORMED" and any(part.sni for part in parts):
        return True
    for name, written in [pair for part in parts for pair in (part.header or {}).items()]:
        if too_long(written, header_state(asking.request, name.lower())[1]):
            return True
    names = ("header", "ua_family", "crawler", "fingerprint", "shape", "fetch_site", "fetch_mode", "fetch_dest",
             "origin", "host", "cross_origin_write")  # fmt: skip
    if unreadable(asking.request) and any(getattr(part, name) is not None for part in parts for name in names):
        return True
    if method_state(asking.request)[0] == "malformed" and any(part.method is not None for part in parts):
        return True
    return path_state(asking.request)[0] == "malformed" and any(part.path is not None for part in parts)
