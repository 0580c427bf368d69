"""Answers to pages of other origins: preflights, and the refusals that share rules ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from gobanfast._core.decision import resources_of
from gobanfast.frontends.http.heads import STREAM
from gobanfast.frontends.http.leases import goodbye
from gobanfast.frontends.http.refusal import HttpResponse
from gobanfast.rules.compile.share import OWNED, about

if TYPE_CHECKING:
    from gobanfast import Decision
    from gobanfast._core.exchange import Exchange

Refusal = Literal["misdirected", "cross-origin"]
LATER = 15.0  # seconds after which an EventSource may ask again


def refusal(decision: Decision) -> Refusal:
    """How a request is refused that a share rule refuses, or that opens a WebSocket without a grant: as one for a host
    that is not served, where the rule lists the hosts that are, so that a browser asks elsewhere."""
    if decision.share == "refused":
        rule = next(rule for rule in decision.compiled.rules if rule.id == decision.share_rule)
        if rule.when.negated is not None and rule.when.negated.host is not None:
            return "misdirected"
    return "cross-origin"


def preflight_response(exchange: Exchange) -> HttpResponse | None:
    """The answer to a preflight that is granted; None: it is not. The exchange puts the grant on it."""
    return HttpResponse(204, [], b"") if exchange.decision.share == "granted" else None


def stream_end(exchange: Exchange) -> HttpResponse | None:
    """The answer to an EventSource that may not read a stream any more, as the grant that owns it says: 204, on which a
    browser stops, or an end that it comes back from, later. None: it is no EventSource, or no grant is about it."""
    if exchange.method != "GET" or exchange.is_websocket or STREAM not in exchange.accept:
        return None
    decision = exchange.decision
    owners = about(decision.compiled.rules, resources_of(decision))
    deny = next((rule.grant.deny for rule, flags in owners if flags & OWNED and rule.grant is not None), None)
    if deny is None:
        return None
    headers = [(b"cache-control", b"no-store")]
    if deny == "stop":
        return HttpResponse(204, headers, b"")
    return HttpResponse(200, [(b"content-type", b"text/event-stream"), *headers], goodbye(LATER))
