"""Decisions as attributes of OpenTelemetry's spans: names of the semantic conventions, ours below `gobanfast.`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gobanfast._core.decision import Decision

__all__ = ["decision_attributes", "request_hook"]


def decision_attributes(decision: Decision) -> dict[str, str | int | float]:
    """What a span says of the decision on its request: the rule, the client, the AS; nothing that is unknown.

    `security_rule.*` is of the rule that decided on admission, else of the share rule.
    """
    effect, rule = ("share", decision.share_rule) if decision.rule is None else ("admit", decision.rule)
    found = {
        "security_rule.name": rule,
        "security_rule.category": decision.reason,
        "security_rule.ruleset.name": None if rule is None else effect,
        "security_rule.version": decision.compiled.content_hash,
        "client.address": decision.address,
        "server.address": decision.sni,
        "gobanfast.action": decision.action,
        "gobanfast.cause": decision.cause,
        "gobanfast.score": decision.score,
        "gobanfast.share": decision.share,
        "gobanfast.record.rule": decision.record_rule,
        "gobanfast.as.number": decision.asn,
        "gobanfast.ja4": decision.ja4,
        "gobanfast.fingerprint": decision.fingerprint,
    }
    return {name: value for name, value in found.items() if value is not None}


def request_hook(span: Any, request: Any, *_: Any) -> None:
    """Puts the decision on a request into the span that contrib's middleware made of it.

    The argument `server_request_hook` of contrib's ASGI middleware and of its instrumentors of FastAPI and Starlette,
    `request_hook` of WSGI, Flask and Django. Ours has to be around theirs.
    """
    if isinstance(request, dict):  # a scope, or an environ
        decision = request.get("gobanfast") or request.get("gobanfast.decision")
    else:
        decision = getattr(request, "gobanfast", None)
    if decision is not None and span is not None and span.is_recording():
        span.set_attributes(decision_attributes(decision))
