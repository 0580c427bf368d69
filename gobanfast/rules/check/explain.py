"""Explanations of decisions: the rule, its place, the values it matched, and the nearest change of outcome."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from gobanfast._core.name_text import normalize_name
from gobanfast.headers import HTTP_VERSIONS, normalize_headers
from gobanfast.rules.check.because import SHOWN_CHARS, VERSION_NAMES, because, network, place
from gobanfast.rules.check.explain_record import record_parts
from gobanfast.rules.check.explain_share import share_parts

if TYPE_CHECKING:
    from gobanfast._core.decision import Decision


def explain(decision: Decision) -> str:
    """Lines of text about `decision`. Reads the decision's own rules and AS names, whatever is in force now.

    Cost: builds the prefix list of the deciding rule anew to say which entry matched; not for a hot path.
    """
    lines = [f"{_shown(decision.address) or 'no address'}: {decision.action}"]
    lines += (f"  {label:<11}{text}" for label, text in _parts(decision))
    return "\n".join(lines)


def _parts(decision: Decision) -> Iterator[tuple[str, str]]:
    by_id = {rule.id: rule for rule in decision.compiled.rules}
    of = "AS unknown" if decision.asn is None else network(decision.asn, decision.compiled.asn)
    yield "signals", f"address {_shown(decision.address)}, {of}"
    for text in _other_signals(decision):
        yield "", text
    if decision.cause == "rule":
        rule = by_id[str(decision.rule)]
        yield "decided by", place(rule)
        for text in because(rule, decision):
            yield "because", text
        if decision.ban is not None:
            yield "stored", f"as a ban of {decision.ban}"
    else:
        yield "decided by", _live(decision)
    others = [by_id[name] for name in decision.matched if decision.cause != "rule" or name != decision.rule]
    if decision.cause in ("rule", "ban", "outage"):
        none = "allow: no other rule matches" if decision.cause == "rule" else "allow: no rule matches"
        yield "without it", place(others[0]) if others else none
    for name in decision.shadow:
        yield "shadow", f"would have decided, were it enforced: {place(by_id[name])}"
    for name in decision.logged:
        weigh = None if decision.score is None else by_id[name].weigh
        yield "logged by", place(by_id[name]) + ("" if weigh is None else f"; adds {weigh:g} to the score")
    if any(rule.effect == "share" for rule in by_id.values()):
        yield from share_parts(decision, by_id)
    if decision.compiled.records is not None:
        yield from record_parts(decision, by_id)


def _shown(address: str | None) -> str | None:
    """An address as it came; as a literal when it holds what no address does, for a terminal."""
    if address is None or (address.isascii() and address.isprintable() and len(address) <= SHOWN_CHARS):
        return address
    return repr(address[:SHOWN_CHARS])


def _live(decision: Decision) -> str:
    """What decided, where no rule did."""
    if decision.cause == "ban":
        reason = f" ({decision.reason})" if decision.reason else ""
        maker = f", made by {decision.rule!r}" if decision.rule else ""
        return f"the ban of {decision.ban}{reason}{maker}, {_end(decision.expires)}"
    if decision.cause == "tracker":
        banned = "" if decision.ban is None else f"; {decision.ban} is banned {_end(decision.expires)}"
        return f"tracker {decision.rule!r}: the client is over its limit{banned}"
    if decision.cause == "unparsable":
        return f"policy 'unparsable': {decision.reason}"
    if decision.cause == "outage":
        return "the store does not answer, and policy on_outage is 'closed': whoever no rule allows is banned"
    if decision.cause == "score":
        return f"{_score(decision)}: too unusual"
    scored = "" if decision.score is None else f"; {_score(decision)}"
    return f"no rule: nothing matches, so it is allowed{scored}"


def _score(decision: Decision) -> str:
    threshold = "none yet" if decision.threshold is None else f"{decision.threshold:.2f}"
    return f"score {decision.score:.2f}, threshold {threshold}, from {decision.coverage:.0%} of the weights"


def _end(expires: float | None) -> str:
    return "for good" if expires is None else f"until {datetime.fromtimestamp(expires, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _other_signals(decision: Decision) -> Iterator[str]:
    """What the request says besides the address, in words."""
    hello = decision.hello
    if decision.sni is not None:
        yield f"sni {decision.sni!r}" + (" (malformed)" if normalize_name(decision.sni) is None else "")
    elif hello is not None and hello.status == "ok" and hello.sni_bytes is not None:
        yield f"sni {hello.sni_bytes!r} (malformed)"
    elif decision.compiled.signals is not None and (hello is None or hello.status == "ok"):
        yield "sni absent"
    if hello is not None and hello.status == "ok":
        version = VERSION_NAMES.get(hello.version or 0, f"0x{hello.version:04x}")
        yield f"hello {hello.ja4}, alpn {', '.join(hello.alpn) or 'none'}, TLS {version}, ech {hello.ech or 'none'}"
    elif hello is not None:
        yield f"hello {hello.status}: {hello.problem or f'{hello.need} more bytes needed'}"
    elif decision.ja4 is not None:
        yield f"ja4 {decision.ja4[:SHOWN_CHARS]!r}, no hello"
    request = {"method": decision.method, "path": decision.path, "mount": decision.mount or None,
               "scheme": decision.scheme, "host": decision.host, "origin": decision.origin}  # fmt: skip
    parts = [f"{name} {value[:SHOWN_CHARS]!r}" for name, value in request.items() if value is not None]
    if parts:
        yield ", ".join(parts)
    if decision.headers is not None:
        found = normalize_headers(decision.headers, decision.http if decision.http in HTTP_VERSIONS else None)
        made = decision.fingerprint
        agent = dict(found.pairs).get(b"user-agent")
        shown = "absent" if agent is None else repr(agent[:SHOWN_CHARS].decode("latin-1"))
        yield (
            f"headers malformed: {found.problem}" if found.problem else f"{made}, {decision.shape}, user-agent {shown}"
        )
