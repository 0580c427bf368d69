"""OpenTelemetry plug-ins: a text map propagator, an id generator, and samplers of consistent probability.

They go into the tracer provider and the settings of OpenTelemetry's own SDK (extra `otel`).
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from opentelemetry import trace as otel
from opentelemetry.baggage import get_all, set_baggage
from opentelemetry.context import create_key, get_current, set_value
from opentelemetry.context.context import Context
from opentelemetry.propagators.textmap import TextMapPropagator, default_getter, default_setter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import (
    INVALID_SPAN,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from gobanfast._core.sampling import (
    NEVER,
    RateClasses,
    ot_keeps,
    parse_ot,
    probability_of,
    threshold_of,
    threshold_text,
)
from gobanfast._core.trace_carriers import EXTRACTED, INJECTED, PROPAGATORS, extract
from gobanfast._core.trace_context import baggage_text, random_span_id, random_trace_id
from gobanfast.telemetry.otel_attributes import decision_attributes
from gobanfast.telemetry.other_trace import decided, unopened

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from opentelemetry.propagators.textmap import Getter, Setter
    from opentelemetry.sdk.trace._sampling_experimental import SamplingIntent
    from opentelemetry.trace import Link
    from opentelemetry.util.types import Attributes

    from gobanfast._core.decision import Decision as RequestDecision
    from gobanfast._core.trace_context import TraceContext

__all__ = [
    "GobanfastComposableSampler",
    "GobanfastIdGenerator",
    "GobanfastPropagator",
    "GobanfastSampler",
    "RateClasses",
]

RANDOM_BITS = 2**56 - 1
SERVER = SpanKind.SERVER
BAGGAGE_MEMBERS, BAGGAGE_BYTES, MEMBER_BYTES = 180, 8192, 4096  # the most that OpenTelemetry's own propagator sends
UNKNOWN = -1  # "no threshold", as composable samplers say it
RECEIVED = create_key("gobanfast-received")
"""Of a context: the TraceContext that arrived, where a span context cannot hold all of it."""

FLAGS = tuple(TraceFlags(flags) for flags in range(4))
FIELDS = {
    "tracecontext": ("traceparent", "tracestate"),
    "baggage": ("baggage",),
    "b3": ("b3",),
    "b3multi": ("x-b3-traceid", "x-b3-spanid", "x-b3-sampled", "x-b3-flags"),
}


class GobanfastPropagator(TextMapPropagator):
    """Propagator of W3C Trace Context, Baggage and B3, read by the parsers of `gobanfast.trace`.

    Of a request whose spans OpenTelemetry's middleware makes inside ours, what the rules do not trust is not read.
    B3's debug goes on with the trace. A decision that B3's sender left open is for `GobanfastSampler`, which treats the
    trace as one that begins here; other samplers see a parent that is not sampled. A decision without ids holds for the
    trace that begins here, and goes on as it came where none does.

    Args:
        extracted: what is read, of `gobanfast.trace.PROPAGATORS`.
        injected: what is written, of the same; leave "baggage" out where requests go to third parties.
    """

    def __init__(self, extracted: Iterable[str] = EXTRACTED, injected: Iterable[str] = INJECTED) -> None:
        self._extracted = _spoken("extracted", extracted)
        self._injected = frozenset(_spoken("injected", injected))

    def extract(self, carrier: Any, context: Context | None = None, getter: Getter[Any] = default_getter) -> Context:
        """The context with what the carrier brings; as it was when that is nothing, or malformed."""
        if context is None:
            context = Context()
        if getter is default_getter and isinstance(carrier, dict):
            found = extract(carrier, self._extracted)
        else:
            found = extract(carrier, self._extracted, getter=lambda carrier, name: _values(getter.get(carrier, name)))
        if found is None:
            return context
        request = unopened()
        if request is not None and not request.trusts(found):
            return context
        if found.trace_id is not None and found.span_id is not None:
            state = found.tracestate
            parent = SpanContext(
                int(found.trace_id, 16),
                int(found.span_id, 16),
                True,
                FLAGS[found.flags],
                _trace_state(state) if state else None,
            )
            context = set_span_in_context(NonRecordingSpan(parent), context)
        for key, value, _ in found.baggage:
            context = set_baggage(key, value, context)
        if _says_more(found) or RECEIVED in context:
            context = set_value(RECEIVED, found, context)
        return context

    def inject(self, carrier: Any, context: Context | None = None, setter: Setter[Any] = default_setter) -> None:
        """Puts headers for the current span, and the baggage, into the carrier."""
        if context is None:
            context = get_current()
        span = otel.get_current_span(context).get_span_context()
        received: TraceContext | None = context.get(RECEIVED)  # type: ignore[assignment]
        spoken = self._injected
        if span.is_valid:
            if "tracecontext" in spoken:
                traceparent = f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags & 3:02x}"
                setter.set(carrier, "traceparent", traceparent)
                if span.trace_state:
                    setter.set(carrier, "tracestate", span.trace_state.to_header())
            if "b3" in spoken or "b3multi" in spoken:
                self._inject_b3(carrier, span, _b3_state(span, received), setter)
        elif received is not None and received.trace_id is None and received.sampled is not None:
            self._inject_b3(carrier, None, "d" if received.debug else "1" if received.sampled else "0", setter)
        if "baggage" in spoken and (baggage := get_all(context)):
            text = _baggage(dict(baggage), received)
            if text:
                setter.set(carrier, "baggage", text)

    def _inject_b3(self, carrier: Any, span: SpanContext | None, state: str, setter: Setter[Any]) -> None:
        """`state` is "1", "0", "d", or "" for a decision that is left open."""
        ids = [] if span is None else [f"{span.trace_id:032x}", f"{span.span_id:016x}"]
        if "b3" in self._injected:
            setter.set(carrier, "b3", "-".join([*ids, state] if state else ids))
        if "b3multi" in self._injected:
            for name, id_text in zip(FIELDS["b3multi"], ids, strict=False):
                setter.set(carrier, name, id_text)
            if state == "d":
                setter.set(carrier, "x-b3-flags", "1")
            elif state:
                setter.set(carrier, "x-b3-sampled", state)

    @property
    def fields(self) -> set[str]:
        """Names that `inject` may write."""
        return {field for name in self._injected for field in FIELDS[name]}


def b3_propagator() -> GobanfastPropagator:
    """Writes the single header of B3, too: `OTEL_PROPAGATORS=gobanfast_b3`."""
    return GobanfastPropagator(injected=(*INJECTED, "b3"))


def b3multi_propagator() -> GobanfastPropagator:
    """Writes the X-B3 headers, too: `OTEL_PROPAGATORS=gobanfast_b3multi`."""
    return GobanfastPropagator(injected=(*INJECTED, "b3multi"))


def _spoken(argument: str, names: Iterable[str]) -> tuple[str, ...]:
    found = (names,) if isinstance(names, str) else tuple(names)
    wrong = [name for name in found if name not in PROPAGATORS]
    if wrong or not found:
        raise ValueError(f"{argument} is {names!r}; give some of {', '.join(PROPAGATORS)}")
    return found


def _values(found: Any) -> Any:
    """What a getter gave, as values: None is none, and some give one text."""
    return () if found is None else (found,) if isinstance(found, (str, bytes)) else found


def _trace_state(text: str) -> TraceState:
    """Of a key twice the first counts: theirs logs a warning of the others, which come from anybody."""
    entries: dict[str, str] = {}
    for member in text.split(","):
        key, _, value = member.partition("=")
        entries.setdefault(key, value)
    return TraceState(list(entries.items()))


def _says_more(found: TraceContext) -> bool:
    """A decision without ids, one left open, debug, or properties of baggage: a span context has no place for them."""
    bare = found.trace_id is None
    return (
        found.debug
        or (found.sampled is not None if bare else found.sampled is None)
        or any(properties for _, _, properties in found.baggage)
    )


def _b3_state(span: SpanContext, received: TraceContext | None) -> str:
    if received is not None and received.trace_id == f"{span.trace_id:032x}":
        if received.debug and span.trace_flags & 1:
            return "d"
        if received.sampled is None and received.span_id == f"{span.span_id:016x}":
            return ""
    return "1" if span.trace_flags & 1 else "0"


def _baggage(values: dict[str, object], received: TraceContext | None) -> str:
    """The header: members that have a form, from the left, as many as fit; values that arrived keep properties."""
    properties = {} if received is None else {(key, value): more for key, value, more in received.baggage}
    members: list[str] = []
    left = BAGGAGE_BYTES + 1
    for key, value in values.items():
        try:
            text = str(value)
            member = baggage_text(((key, text, properties.get((key, text), ())),))
        except Exception:  # noqa: BLE001, S112 - a key that is no token, or a value whose __str__ raises
            continue
        if len(member) <= MEMBER_BYTES:
            left -= len(member) + 1
            if left < 0 or len(members) == BAGGAGE_MEMBERS:
                break
            members.append(member)
    return ",".join(members)


class GobanfastIdGenerator(IdGenerator):
    """Ids from the operating system's random bytes, pooled a thread, anew after a fork; random in all bits.

    The span of a request that OpenTelemetry's middleware makes inside ours has the ids of `decision.trace`.

    Raises:
        OSError: from its methods, when the system gives no random bytes.
    """

    def generate_trace_id(self) -> int:
        """A trace id, not zero."""
        request = unopened()
        ours = None if request is None else request.decision.trace
        return random_trace_id() if ours is None or ours.trace_id is None else int(ours.trace_id, 16)

    def generate_span_id(self) -> int:
        """A span id, not zero."""
        request = unopened()
        if request is not None:
            request.opened = True
            ours = request.decision.trace
            if ours is not None and ours.span_id is not None:
                return int(ours.span_id, 16)
        return random_span_id()

    def is_trace_id_random(self) -> bool:
        """True: the SDK sets the flag of W3C level 2."""
        return True


class _Rate:
    """What a threshold gives the traces that begin here. Made anew when a controller moved the threshold."""

    __slots__ = ("attributes", "kept", "state", "threshold")

    def __init__(self, threshold: int, rate_class: str | None) -> None:
        self.threshold = threshold
        self.attributes: dict[str, str | float] = {"gobanfast.rate.probability": probability_of(threshold)}
        if rate_class is not None:
            self.attributes["gobanfast.rate.class"] = rate_class
        self.state = None if threshold == NEVER else TraceState([("ot", f"th:{threshold_text(threshold)}")])
        self.kept = SamplingResult(Decision.RECORD_AND_SAMPLE, self.attributes, self.state)


class _Source:
    """Where the threshold comes from: a fixed probability, or a rate class whose threshold controllers move."""

    def __init__(self, probability: float | None, classes: RateClasses | None, rate_class: str | None) -> None:
        if (probability is None) == (classes is None) or (classes is None) != (rate_class is None):
            raise TypeError("give a probability, or classes= and rate_class=")
        if classes is not None and rate_class not in classes.names:
            raise ValueError(f"rate_class {rate_class!r} is not one of {', '.join(classes.names)}; place it first")
        self._classes, self._rate_class = classes, rate_class
        self._told = rate_class if probability is None else probability
        self._rate = _Rate(self._threshold() if probability is None else threshold_of(probability), rate_class)

    def _threshold(self) -> int:
        assert self._classes is not None  # noqa: S101 - for type checkers
        assert self._rate_class is not None  # noqa: S101
        return self._classes.threshold(self._rate_class)

    def rate(self) -> _Rate:
        rate = self._rate
        if self._classes is not None:
            try:
                threshold = self._threshold()
            except KeyError:  # the class is in no ruleset any more: what held last goes on to
                return rate
            if threshold != rate.threshold:
                rate = self._rate = _Rate(threshold, self._rate_class)
        return rate

    def describe(self, name: str) -> str:
        return f"{name}{{{self._told}}}"


class _Kept(SamplingResult):
    """RECORD_AND_SAMPLE, made without a call of Python's and a proxy of attributes, which the SDK copies anyway."""

    decision = Decision.RECORD_AND_SAMPLE
    attributes: Any = MappingProxyType({})
    trace_state: TraceState | None = None

    def __init__(self) -> None:  # the fields above are set where they differ
        pass


class _Dropped(_Kept):
    """DROP, likewise."""

    decision = Decision.DROP


DROPPED, KEPT = SamplingResult(Decision.DROP), _Kept()
(SPAN,) = set_span_in_context(INVALID_SPAN, Context())
"""Key of a context where the current span is: `get_current_span` costs two calls more."""


class GobanfastSampler(Sampler):
    """Consistent probability sampler: follows the parent's `th`, else its flag; traces that begin here by R >= T.

    R is `rv` of the trace state, or the low 56 bits of the trace id, so that services with one threshold keep the same
    traces. What is kept by it has `ot=th:...` in its trace state, and attributes `gobanfast.rate.probability` and
    `gobanfast.rate.class`.

    The span of a request that our middleware decided on, around it, is sampled as a record rule decided, where one
    matched, and has the attributes of the decision.

    Args:
        probability: 0 to 1.
        classes, rate_class: instead, a class whose threshold is read at each root, as controllers leave it.
    Raises:
        TypeError, ValueError: neither or both, a probability out of range, a class that is not placed.
    """

    def __init__(
        self,
        probability: float | None = None,
        *,
        classes: RateClasses | None = None,
        rate_class: str | None = None,
    ) -> None:
        self._source = _Source(probability, classes, rate_class)

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,  # noqa: ARG002
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,  # noqa: ARG002
        trace_state: TraceState | None = None,  # noqa: ARG002 - the SDK passes none; the parent's is in the context
    ) -> SamplingResult:
        """The decision on a span, and what goes on in its trace state."""
        decision = decided() if kind is SERVER else None
        context = get_current() if parent_context is None else parent_context
        span: Any = context.get(SPAN)
        received: Any = context.get(RECEIVED)
        if span is not None:
            parent = span.get_span_context()
            _, _, remote, flags, state, valid = parent  # a tuple, whose properties cost a call each
            if decision is not None and (remote or not valid):
                attributes = {**(attributes or {}), **decision_attributes(decision)}
                if decision.record_rule is not None:
                    return _ruled(decision, parent, trace_id, attributes)
            if valid and (received is None or not _left_open(received, parent)):
                return _followed(flags & 1, state, trace_id, attributes)
        elif decision is not None:
            attributes = {**(attributes or {}), **decision_attributes(decision)}
            if decision.record_rule is not None:
                return _ruled(decision, None, trace_id, attributes)
        if received is not None and _bare(received):
            return _kept(attributes, None) if received.sampled else DROPPED
        rate = self._source.rate()
        if trace_id & RANDOM_BITS < rate.threshold:
            return DROPPED
        if not attributes:
            return rate.kept
        return _kept({**attributes, **rate.attributes}, rate.state)

    def get_description(self) -> str:
        """Its name, with the probability or the class."""
        return self._source.describe("GobanfastSampler")


def _kept(attributes: Attributes, state: TraceState | None) -> SamplingResult:
    result = _Kept.__new__(_Kept)
    if attributes:
        result.attributes = attributes
    result.trace_state = state
    return result


def _ruled(
    decision: RequestDecision, parent: SpanContext | None, trace_id: int, attributes: Attributes
) -> SamplingResult:
    """What the record rule that matched a request decided, for the span of its server."""
    sampled, state, probability = decision.record, None, decision.sampling_probability
    ours = decision.trace
    if ours is not None and ours.trace_id == f"{trace_id:032x}":
        state = _trace_state(ours.tracestate) if ours.tracestate else None
    elif parent is not None and parent.is_valid:  # a parent that the rules do not trust, read by another propagator
        state = _without_threshold(parent.trace_state) if "ot" in parent.trace_state else parent.trace_state
    elif probability is not None:  # an id by another generator
        threshold = threshold_of(probability)
        sampled = trace_id & RANDOM_BITS >= threshold
        state = TraceState([("ot", f"th:{threshold_text(threshold)}")]) if sampled else None
    if not sampled:
        result = _Dropped.__new__(_Dropped)
        result.trace_state = state
        return result
    if probability is not None:
        attributes = {**(attributes or {}), "gobanfast.rate.probability": probability}
    return _kept(attributes, state)


def _followed(sampled: int, state: TraceState, trace_id: int, attributes: Attributes) -> SamplingResult:
    """The parent's decision: its `th`, else its flag."""
    entries = getattr(state, "_dict", state)  # each look into a TraceState is a call
    ot = entries.get("ot")
    if ot is not None:
        keeps = ot_keeps(ot, trace_id)
        if keeps is not None:
            sampled = keeps
        if not sampled or keeps is None:
            state = _without_threshold(state)
    elif not sampled:
        if not entries:
            return DROPPED
    elif not attributes and not entries:
        return KEPT
    if sampled:
        result = _Kept.__new__(_Kept)
        if attributes:
            result.attributes = attributes
    else:
        result = _Dropped.__new__(_Dropped)
    result.trace_state = state
    return result


def _without_threshold(state: TraceState) -> TraceState:
    """The state without `th`: of what is dropped, and where no probability is known."""
    parts = state["ot"].split(";")
    kept = ";".join(part for part in parts if part and not part.startswith("th:"))
    if kept == state["ot"]:
        return state
    return state.update("ot", kept) if kept else state.delete("ot")


def _left_open(received: TraceContext, parent: SpanContext) -> bool:
    """B3 left the decision on this parent to others."""
    return (
        received.sampled is None
        and received.span_id == f"{parent.span_id:016x}"
        and received.trace_id == f"{parent.trace_id:032x}"
    )


def _bare(received: TraceContext) -> bool:
    """A decision without ids: it holds for the trace that begins here."""
    return received.trace_id is None and received.sampled is not None


class GobanfastComposableSampler:
    """The same as a composable sampler, to stand under OpenTelemetry's `composite_sampler` and its rules.

    For the SDKs that have the specification's ComposableSampler, experimental as it is there.

    Args:
        probability, classes, rate_class: as of `GobanfastSampler`.
    Raises:
        ImportError: the SDK has none.
    """

    def __init__(
        self,
        probability: float | None = None,
        *,
        classes: RateClasses | None = None,
        rate_class: str | None = None,
    ) -> None:
        try:
            from opentelemetry.sdk.trace._sampling_experimental import SamplingIntent
        except ImportError as error:
            raise ImportError("this opentelemetry-sdk has no composable samplers; use GobanfastSampler") from error
        self._source = _Source(probability, classes, rate_class)
        self._intent = SamplingIntent
        self._dropped = SamplingIntent(UNKNOWN, threshold_reliable=False)

    def sampling_intent(
        self,
        parent_ctx: Context | None,
        name: str,  # noqa: ARG002
        span_kind: SpanKind | None,  # noqa: ARG002
        attributes: Attributes,
        links: Sequence[Link] | None,  # noqa: ARG002
        trace_state: TraceState | None = None,  # noqa: ARG002
    ) -> SamplingIntent:
        """The threshold that the parent brings or the class has, and whether it tells the probability."""
        context = get_current() if parent_ctx is None else parent_ctx
        parent = otel.get_current_span(context).get_span_context()
        received: TraceContext | None = context.get(RECEIVED)  # type: ignore[assignment]
        if parent.is_valid and (received is None or not _left_open(received, parent)):
            ot = parent.trace_state.get("ot")
            threshold = None if ot is None else parse_ot(ot)[0]
            if threshold is not None:
                return self._intent(threshold, attributes=attributes)
            return self._flagged(parent.trace_flags & 1 == 1, attributes)
        if received is not None and _bare(received):
            return self._flagged(bool(received.sampled), attributes)
        rate = self._source.rate()
        if rate.threshold == NEVER:
            return self._dropped
        return self._intent(rate.threshold, attributes={**(attributes or {}), **rate.attributes})

    def _flagged(self, sampled: bool, attributes: Attributes) -> SamplingIntent:
        return self._intent(0, threshold_reliable=False, attributes=attributes) if sampled else self._dropped

    def get_description(self) -> str:
        """Its name, with the probability or the class."""
        return self._source.describe("GobanfastComposableSampler")


def sampler_of(argument: str | None) -> GobanfastSampler:
    """`OTEL_TRACES_SAMPLER=gobanfast`, with a probability in OTEL_TRACES_SAMPLER_ARG; without one, all.

    Raises:
        ValueError: it is no number from 0 to 1; the SDK logs that, and takes its own sampler.
    """
    return GobanfastSampler(float(argument) if argument else 1.0)
