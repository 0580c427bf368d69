"""Trace of a request whose spans another middleware makes: ids, sampling and trust are the rules', the spans are not.

Where Starlette's or contrib's OpenTelemetry middleware is around or inside the application, frontends make an
`OtherTrace` current instead of the decision. `trace.current()` then is the span that OpenTelemetry has current, and the
plug-ins of `telemetry.otel` take the server's span from the decision: there is one trace.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from gobanfast._core.trace_context import CURRENT, TraceContext

if TYPE_CHECKING:
    from gobanfast._core.decision import Decision

__all__ = ["OtherTrace", "current_span", "decided", "unopened"]


class OtherTrace:
    """What is current in a request: `decision`, and as `trace` what OpenTelemetry has current.

    `opened` is True once the server's span has its id, which is that of the decision's own trace where it is inside.
    """

    __slots__ = ("decision", "opened")

    def __init__(self, decision: Decision) -> None:
        self.decision = decision
        self.opened = current_span() is not None

    @property
    def trace(self) -> TraceContext | None:
        """The TraceContext of the current span; the decision's where there is none, as for a URL that is left out."""
        ours, span = self.decision.trace, current_span()
        if span is None:
            return ours
        ids = f"{span.trace_id:032x}", f"{span.span_id:016x}"
        if ours is not None and ids == (ours.trace_id, ours.span_id):
            return ours
        flags = span.trace_flags
        options: dict[str, Any] = {"sampled": bool(flags & 1), "random": bool(flags & 2)}
        try:
            return TraceContext(*ids, **options, tracestate=span.trace_state.to_header())
        except ValueError:  # theirs takes what level 2 does not
            return TraceContext(*ids, **options)

    def trusts(self, found: TraceContext) -> bool:
        """Whether the rules let a context that came with this request go on."""
        ours = self.decision.trace
        if ours is None or found.trace_id is None:
            return ours is None or bool(ours.baggage)
        return found.trace_id == ours.trace_id


def current_span() -> Any:
    """The SpanContext that OpenTelemetry has current; None: it has none, or is not in use."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    found = trace.get_current_span().get_span_context()
    return found if found.is_valid else None


def unopened() -> OtherTrace | None:
    """The current OtherTrace before the server's span is made; else None."""
    found: Any = CURRENT.get()
    return found if type(found) is OtherTrace and not found.opened else None


def decided() -> Decision | None:
    """The decision on the request that is current; None outside of requests, and where only a trace is."""
    found: Any = CURRENT.get()
    if found is None or type(found) is TraceContext:
        return None
    decision: Decision = found.decision if type(found) is OtherTrace else found
    return decision
