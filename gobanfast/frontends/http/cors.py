"""Answers to pages of other origins: preflights, and the refusals that share rules ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from gobanfast.frontends.http.refusal import HttpResponse

if TYPE_CHECKING:
    from gobanfast import Decision
    from gobanfast._core.exchange import Exchange

Refusal = Literal["misdirected", "cross-origin"]


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
