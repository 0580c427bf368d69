"""TraceContext: ids, sampling state, tracestate and baggage, and the pool of ids. Long, as they share one struct."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.contextvars cimport get_value
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from gobanfast._core.address cimport gbf_ascii
from gobanfast._core.made cimport only_whole
from gobanfast._core.native.base cimport (
    GBF_TRACE_NOTHING, gbf_random_forked, gbf_random_span_id, gbf_random_trace_id,
)
from gobanfast._core.native.http cimport (
    GBF_BAGGAGE_BYTES, GBF_BAGGAGE_MEMBERS, GBF_TRACE_DEBUG, GBF_TRACE_DEFER, GBF_TRACE_LINES, GBF_TRACE_RANDOM,
    GBF_TRACE_SAMPLED, GBF_TRACE_SPEAKS_BAGGAGE, GBF_TRACE_WIRE, GBF_TRACEPARENT_BYTES, GBF_TRACESTATE_BYTES,
    gbf_baggage_gather, gbf_baggage_is_key, gbf_baggage_member, gbf_baggage_next, gbf_baggage_property,
    gbf_header_text, gbf_percent_decode, gbf_percent_encode, gbf_trace, gbf_trace_has_ids, gbf_trace_headers,
    gbf_trace_hex16, gbf_trace_hex8, gbf_trace_read, gbf_traceparent_write, gbf_tracestate, gbf_tracestate_add,
    gbf_tracestate_get, gbf_tracestate_is_key, gbf_tracestate_is_value, gbf_tracestate_start, gbf_tracestate_write,
)
from gobanfast._core.native.state cimport (
    GBF_SAMPLING_NEVER, GBF_SAMPLING_UNKNOWN, gbf_sampling_member, gbf_sampling_member_write,
)

import os
from collections.abc import Mapping
from contextvars import ContextVar

from gobanfast._core import enums
from gobanfast._fork import watch_forks


cdef extern from "Python.h":
    object PyUnicode_New(Py_ssize_t size, Py_UCS4 maxchar)
    void *PyUnicode_1BYTE_DATA(object text)

cdef tuple SOURCES = enums.TRACE_SOURCES, FLAGS = ("00", "01", "02", "03")

CURRENT = ContextVar("gobanfast.trace", default=None)
"""What has the context in force: a TraceContext, or, of frontends, a Decision, which makes it when it is asked for."""


class ForkedPool:
    """Has a child of fork throw the pool away that it was born with: parent and child would draw the same ids."""

    def before_fork(self):
        pass

    def after_fork(self, child):
        if child:
            gbf_random_forked()


FORKED_POOL = ForkedPool()
watch_forks(FORKED_POOL)


cdef int no_random(int error) except -1:
    raise OSError(error, f"the system gives no random bytes for trace ids (getrandom: {os.strerror(error)})")


cdef int draw_span_id(uint8_t *out) except -1:
    cdef int error = gbf_random_span_id(out)
    return 0 if error == 0 else no_random(error)


cdef int draw_trace_id(uint8_t *out) except -1:
    cdef int error = gbf_random_trace_id(out)
    return 0 if error == 0 else no_random(error)


def random_trace_id():
    """A trace id from the pool, as a number."""
    cdef uint8_t id[16]
    cdef uint64_t high, low
    draw_trace_id(id)
    memcpy(&high, id, 8)
    memcpy(&low, id + 8, 8)
    return (<object>high << 64) | low


def random_span_id():
    """A span id from the pool, as a number."""
    cdef uint64_t id
    draw_span_id(<uint8_t *>&id)
    return id


cdef TraceContext current_context():
    cdef object found = get_value(CURRENT)
    return found if found is None or type(found) is TraceContext else found.trace


def current():
    """The trace context in force here, or None."""
    return current_context()


def current_ids():
    """(trace_id, span_id, trace_flags) of the context in force, as logs have them; None without one, or without ids."""
    cdef TraceContext context = current_context()
    if context is None or not gbf_trace_has_ids(&context._trace):
        return None
    return context.trace_text(), context.span_text(), FLAGS[context._trace.flags & GBF_TRACE_WIRE]


cdef inline str hex_text(const uint8_t *id, bint wide):
    text = PyUnicode_New(32 if wide else 16, 127)
    if wide:
        gbf_trace_hex16(id, <uint8_t *>PyUnicode_1BYTE_DATA(text))
    else:
        gbf_trace_hex8(id, <uint8_t *>PyUnicode_1BYTE_DATA(text))
    return text


cdef bint is_zero(const uint8_t *id, size_t nbytes) noexcept:
    cdef uint8_t zeros[16]
    memset(zeros, 0, sizeof(zeros))
    return memcmp(id, zeros, nbytes) == 0


cdef int read_id(str name, str text, uint8_t *out, size_t nbytes) except -1:
    """The bytes of an id that a caller gives; errors say what is wrong with it."""
    cdef bytes found = b""
    if <size_t>len(text) == 2 * nbytes and text.isascii() and text == text.lower() and text.isalnum():
        try:
            found = bytes.fromhex(text)
        except ValueError:
            pass
    if len(found) != <Py_ssize_t>nbytes or not any(found):
        raise ValueError(f"{name} {text!r} is not {2 * nbytes} lower-case hex digits, or is all zeros")
    memcpy(out, PyBytes_AS_STRING(found), nbytes)
    return 0


cdef str state_text(const gbf_tracestate *state):
    cdef uint8_t out[GBF_TRACESTATE_BYTES]
    if state.count == 0:
        return ""
    return (<const char *>out)[:gbf_tracestate_write(state, NULL, 0, NULL, 0, out)].decode("ascii")


cdef int parse_state(str text, gbf_tracestate *state) except -1:
    """The members of a text that stays where it is; a text that is no tracestate is dropped whole."""
    cdef const char *start
    cdef size_t nbytes
    gbf_tracestate_start(state)
    if not gbf_ascii(text, &start, &nbytes):
        raise ValueError(f"tracestate {text!r:.200} is not ASCII")
    gbf_tracestate_add(state, <const uint8_t *>start, nbytes)
    return 0


cdef bytes gathered(const gbf_header_text *lines, uint32_t count):
    cdef uint8_t out[GBF_BAGGAGE_BYTES]
    if count == 0:
        return b""
    return (<const char *>out)[:gbf_baggage_gather(lines, min(count, <uint32_t>GBF_TRACE_LINES), out)]


cdef str decoded(gbf_header_text text):
    cdef bytes out = PyBytes_FromStringAndSize(NULL, text.nbytes)
    cdef uint32_t nbytes = gbf_percent_decode(text.at, text.nbytes, <uint8_t *>PyBytes_AS_STRING(out))
    return PyBytes_AS_STRING(out)[:nbytes].decode("utf-8", "replace")


cdef tuple baggage_members(bytes line):
    cdef gbf_baggage_member member
    cdef gbf_header_text key, value
    cdef const uint8_t *at = <const uint8_t *>PyBytes_AS_STRING(line)
    cdef const uint8_t *end = at + PyBytes_GET_SIZE(line)
    members = []
    while gbf_baggage_next(&at, end, &member):
        properties = []
        while gbf_baggage_property(&member.properties, &key, &value):
            properties.append(((<const char *>key.at)[:key.nbytes].decode("ascii"),
                               None if value.at == NULL else decoded(value)))
        members.append(((<const char *>member.key.at)[:member.key.nbytes].decode("ascii"), decoded(member.value),
                        tuple(properties)))
    return tuple(members)


cdef bytes coded_pair(object key, object value, str what):
    """`key=value` with the value percent-coded; the key alone for None."""
    if not isinstance(key, str) or not (value is None or isinstance(value, str)):
        raise TypeError(f"{what} {key!r}: {value!r:.80} is not a pair of str")
    cdef bytes name = key.encode("utf-8", "replace"), text, out
    if not gbf_baggage_is_key(<const uint8_t *>PyBytes_AS_STRING(name), <size_t>PyBytes_GET_SIZE(name)):
        raise ValueError(f"{what} {key!r:.80} is not a token: letters, digits and !#$%&'*+-.^_`|~")
    if value is None:
        return name
    text = value.encode("utf-8", "replace")
    out = PyBytes_FromStringAndSize(NULL, 3 * len(text))
    return name + b"=" + out[:gbf_percent_encode(<const uint8_t *>PyBytes_AS_STRING(text),
                                                 <uint32_t>PyBytes_GET_SIZE(text),
                                                 <uint8_t *>PyBytes_AS_STRING(out))]


cdef bytes baggage_line(object baggage):
    """The members that a caller gives, as they are sent."""
    members = []
    for member in baggage.items() if isinstance(baggage, Mapping) else baggage:
        if not isinstance(member, (tuple, list)) or not 2 <= len(member) <= 3 or member[1] is None:
            raise TypeError(f"baggage {member!r:.80} is not (key, value) or (key, value, properties)")
        parts = [coded_pair(member[0], member[1], "baggage key")]
        parts += [coded_pair(key, value, "baggage property") for key, value in (member[2] if len(member) == 3 else ())]
        members.append(b";".join(parts))
    line = b",".join(members)
    if len(members) > GBF_BAGGAGE_MEMBERS or len(line) >= GBF_BAGGAGE_BYTES:
        raise ValueError(f"baggage has {len(members)} members in {len(line)} bytes; {GBF_BAGGAGE_MEMBERS} members in "
                         f"{GBF_BAGGAGE_BYTES - 1} bytes are the most")
    return line


def baggage_text(baggage):
    """Members in the forms of `TraceContext`, as the header has them.

    Raises:
        ValueError: a key is no token, or it is too much. TypeError: something is no str.
    """
    return baggage_line(baggage).decode("ascii")


@cython.final
@cython.no_gc
@cython.freelist(64)
cdef class TraceContext:
    """TraceContext(trace_id, span_id, *, sampled=False, random=False, debug=False, parent_id=None,
                 tracestate='', baggage=())\n--\n
    Trace context of one request or span; immutable. As received, `span_id` is the parent's; `child` makes one's own.

    Args:
        trace_id, span_id: 32 and 16 lower-case hex digits, not all zeros. Both None: a decision without ids (B3).
        sampled: True, False, or None where the sender left the decision to others (B3).
        random: the last 56 bits of the trace id are random (W3C level 2).
        debug: B3: accepted, and those behind are told.
        parent_id: of the span before `span_id`.
        tracestate: members as in the header.
        baggage: a mapping, or (key, value) and (key, value, properties); values are plain text.
    Raises:
        ValueError: any of them is malformed, with what would be right.
    """

    @staticmethod
    def _make(str trace_id, str span_id, *, sampled=False, bint random=False, bint debug=False, str parent_id=None,
              str tracestate not None="", baggage=()):
        cdef gbf_trace trace
        cdef gbf_tracestate state
        memset(&trace, 0, sizeof(trace))
        if (trace_id is None) != (span_id is None):
            raise ValueError("trace_id and span_id: one without the other; give both, or None for both")
        if trace_id is not None:
            read_id("trace_id", trace_id, trace.trace_id, 16)
            read_id("span_id", span_id, trace.span_id, 8)
        elif parent_id is not None or (sampled is None and not debug):
            raise ValueError("a context without ids is a decision; give sampled=True or False, and no parent_id")
        if parent_id is not None:
            read_id("parent_id", parent_id, trace.parent_id, 8)
        trace.flags = given_flags(sampled, random, debug)
        parse_state(tracestate, &state)
        if state.dropped or state.twice:
            raise ValueError(f"tracestate {tracestate!r:.200} has a malformed member, a key twice or more than 32")
        line = baggage_line(baggage)
        return context_of(&trace, GBF_TRACE_NOTHING, state_text(&state), line)

    @staticmethod
    def start(*, sampled=False):
        """The first span of a new trace, with random ids.

        Raises:
            OSError: the system gives no random bytes.
        """
        return own_context(None, given_flags(sampled, True, False))

    def child(self, *, sampled=None):
        """A span of one's own under this one: same trace, new `span_id`, this `span_id` as `parent_id`.

        Args:
            sampled: True or False decides anew; None keeps what there is.
        Raises:
            OSError: the system gives no random bytes.
        """
        if sampled is None:
            return own_context(self, self._trace.flags)
        return own_context(self, given_flags(sampled, False, sampled and self.debug))

    def with_state(self, str key not None, str value not None):
        """The same with an entry of one's own at the left of tracestate; with more than 32 the rightmost is dropped.

        Raises:
            ValueError: not a key, or not a value, of tracestate.
        """
        cdef gbf_tracestate state
        cdef uint8_t out[GBF_TRACESTATE_BYTES]
        cdef const char *name
        cdef const char *text
        cdef size_t name_bytes, text_bytes
        if not gbf_ascii(key, &name, &name_bytes) or not gbf_tracestate_is_key(<const uint8_t *>name, name_bytes):
            raise ValueError(f"tracestate key {key!r:.80} is not 1 to 256 of a-z 0-9 _ - * / @, the first a letter or "
                             "digit")
        if not gbf_ascii(value, &text, &text_bytes) or not gbf_tracestate_is_value(<const uint8_t *>text, text_bytes):
            raise ValueError(f"tracestate value {value!r:.80} is not 1 to 256 printable ASCII characters without , "
                             "and =, the last no blank")
        parse_state(self._state, &state)
        line = (<const char *>out)[:gbf_tracestate_write(
            &state, <const uint8_t *>name, <uint32_t>name_bytes, <const uint8_t *>text, <uint32_t>text_bytes, out)]
        return like(context_of(&self._trace, self._source, line.decode("ascii"), self._baggage), self)

    def with_threshold(self, threshold, /):
        """The same with another sampling threshold: `th` of the `ot` member, 0 to 2**56 - 1; None erases it.

        Raises:
            ValueError: a number out of range.
        """
        if threshold is None:
            return with_threshold(self, GBF_SAMPLING_UNKNOWN)
        if not 0 <= threshold < GBF_SAMPLING_NEVER:
            raise ValueError(f"threshold {threshold!r:.80} is not 0 to 2**56 - 1; None erases it")
        return with_threshold(self, threshold)

    def with_baggage(self, baggage):
        """The same with other baggage, in the forms of the constructor.

        Raises:
            ValueError: a key is no token, or it is too much.
        """
        line = baggage_line(baggage)
        return like(context_of(&self._trace, self._source, self._state, line), self)

    def state(self, str key not None):
        """The value of a tracestate key, or None."""
        cdef gbf_tracestate state
        cdef const char *name
        cdef size_t name_bytes
        cdef uint32_t nbytes
        if not gbf_ascii(key, &name, &name_bytes) or name_bytes > 256:
            return None
        parse_state(self._state, &state)
        cdef const uint8_t *value = gbf_tracestate_get(&state, <const uint8_t *>name, <uint32_t>name_bytes, &nbytes)
        return None if value == NULL else (<const char *>value)[:nbytes].decode("ascii")

    cdef str trace_text(self):
        if self._trace_id is None and gbf_trace_has_ids(&self._trace):
            with cython.critical_section(self):
                if self._trace_id is None:
                    self._trace_id = hex_text(self._trace.trace_id, True)
        return self._trace_id

    cdef str span_text(self):
        if self._span_id is None and gbf_trace_has_ids(&self._trace):
            with cython.critical_section(self):
                if self._span_id is None:
                    self._span_id = hex_text(self._trace.span_id, False)
        return self._span_id

    @property
    def trace_id(self):
        """32 lower-case hex digits, or None."""
        return self.trace_text()

    @property
    def span_id(self):
        """16 lower-case hex digits, or None."""
        return self.span_text()

    @property
    def parent_id(self):
        """Of the span before, where known: of one's own, and from B3."""
        return None if is_zero(self._trace.parent_id, 8) else hex_text(self._trace.parent_id, False)

    @property
    def sampled(self):
        """True, False, or None where the sender left the decision to others."""
        return None if self._trace.flags & GBF_TRACE_DEFER else (self._trace.flags & GBF_TRACE_SAMPLED) != 0

    @property
    def random(self):
        """The last 56 bits of the trace id are random, says who made it."""
        return (self._trace.flags & GBF_TRACE_RANDOM) != 0

    @property
    def debug(self):
        """B3: accepted, and those behind are told."""
        return (self._trace.flags & GBF_TRACE_DEBUG) != 0

    @property
    def flags(self):
        """The trace flags of W3C, an int: 1 sampled, 2 random."""
        return self._trace.flags & GBF_TRACE_WIRE

    @property
    def trace_flags(self):
        """The flags as two hex digits, as logs have them."""
        return FLAGS[self._trace.flags & GBF_TRACE_WIRE]

    @property
    def traceparent(self):
        """The header's text with `span_id` as the parent, or None without ids."""
        if self._traceparent is None and gbf_trace_has_ids(&self._trace):
            with cython.critical_section(self):
                if self._traceparent is None:
                    text = PyUnicode_New(GBF_TRACEPARENT_BYTES, 127)
                    gbf_traceparent_write(&self._trace, self._trace.span_id, <uint8_t *>PyUnicode_1BYTE_DATA(text))
                    self._traceparent = text
        return self._traceparent

    @property
    def tracestate(self):
        """The members in one line, without blanks around them; "" for none."""
        return self._state

    @property
    def state_dropped(self):
        """A tracestate came that was malformed, or had more than 32 members, and was dropped whole."""
        return self._dropped

    @property
    def baggage(self):
        """((key, value, ((property, value or None), ...)), ...), values decoded, in order; keys may come twice."""
        if self._members is None:
            with cython.critical_section(self):
                if self._members is None:
                    self._members = baggage_members(self._baggage)
        return self._members

    @property
    def source(self):
        """"traceparent", "b3" or "b3-multi" of a received context; "" of one's own."""
        return SOURCES[<int>self._source]

    def __eq__(self, other):
        if not isinstance(other, TraceContext):
            return NotImplemented
        cdef TraceContext that = <TraceContext>other
        return (memcmp(&self._trace, &that._trace, sizeof(gbf_trace)) == 0 and self._state == that._state
                and self._baggage == that._baggage)

    def __hash__(self):
        return hash(((<const char *>&self._trace)[:sizeof(gbf_trace)], self._state, self._baggage))

    def __reduce__(self):
        return restore, ((<const char *>&self._trace)[:sizeof(gbf_trace)], self._state, self._baggage)

    def __repr__(self):
        text = self.traceparent or "without ids"
        if self.sampled is None:
            text += ", undecided"
        elif self.trace_id is None:
            text += f", sampled={self.sampled}"
        return f"<TraceContext {text}>"


only_whole(TraceContext)


cdef TraceContext context_of(const gbf_trace *trace, gbf_trace_source source, str state, bytes baggage):
    cdef TraceContext context = TraceContext.__new__(TraceContext)
    context._trace, context._source, context._dropped = trace[0], source, False
    context._state, context._baggage = state, baggage
    return context


cdef inline TraceContext like(TraceContext made, TraceContext before):
    """The same, sent as the one that it was made of."""
    made._speaks, made._internal = before._speaks, before._internal
    return made


cdef uint8_t given_flags(object sampled, bint random, bint debug) except 255:
    if sampled is not None and not isinstance(sampled, bool):
        raise TypeError(f"sampled={sampled!r:.80} is not True, False or None")
    cdef uint8_t flags = GBF_TRACE_RANDOM if random else 0
    if debug:
        if sampled is False:
            raise ValueError("debug=True and sampled=False: debug says that the trace is sampled")
        return flags | GBF_TRACE_DEBUG | GBF_TRACE_SAMPLED
    return flags | (GBF_TRACE_DEFER if sampled is None else GBF_TRACE_SAMPLED if sampled else 0)


cdef TraceContext received_context(const gbf_trace_headers *headers, uint32_t speaks):
    cdef gbf_trace trace
    cdef gbf_tracestate state
    cdef gbf_trace_source source = gbf_trace_read(headers, speaks, &trace, &state)
    cdef bytes baggage = b""
    if speaks & GBF_TRACE_SPEAKS_BAGGAGE:
        baggage = gathered(headers.baggage, headers.baggage_lines)
    if source == GBF_TRACE_NOTHING:
        if not baggage:
            return None
        trace.flags = GBF_TRACE_DEFER
    cdef TraceContext context = context_of(&trace, source, state_text(&state), baggage)
    context._dropped = state.dropped != 0
    return context


cdef TraceContext own_context(TraceContext parent, uint8_t flags):
    cdef gbf_trace trace
    memset(&trace, 0, sizeof(trace))
    if parent is not None and gbf_trace_has_ids(&parent._trace):
        memcpy(trace.trace_id, parent._trace.trace_id, 16)
        memcpy(trace.parent_id, parent._trace.span_id, 8)
        trace.flags = (flags & ~GBF_TRACE_RANDOM) | (parent._trace.flags & GBF_TRACE_RANDOM)
    else:
        draw_trace_id(trace.trace_id)
        trace.flags = flags | GBF_TRACE_RANDOM
    draw_span_id(trace.span_id)
    if parent is None:
        return context_of(&trace, GBF_TRACE_NOTHING, "", b"")
    return like(context_of(&trace, GBF_TRACE_NOTHING, parent._state, parent._baggage), parent)


cdef TraceContext with_threshold(TraceContext context, uint64_t threshold):
    cdef gbf_tracestate state
    cdef uint8_t value[256]
    cdef uint8_t out[GBF_TRACESTATE_BYTES]
    cdef uint64_t before, random
    cdef uint32_t nbytes
    parse_state(context._state, &state)
    cdef const uint8_t *text = gbf_tracestate_get(&state, <const uint8_t *>b"ot", 2, &nbytes)
    gbf_sampling_member(text, nbytes, &before, &random)
    if before == threshold:
        return context
    nbytes = gbf_sampling_member_write(text, nbytes, threshold, value)
    nbytes = gbf_tracestate_write(&state, <const uint8_t *>b"ot", 2, value, nbytes, out)
    line = (<const char *>out)[:nbytes].decode("ascii")
    return like(context_of(&context._trace, context._source, line, context._baggage), context)


def restore(bytes ids not None, str tracestate not None, bytes baggage not None, /):
    """A pickled context again.

    Raises:
        ValueError: these are not what `pickle` made of one.
    """
    cdef gbf_trace trace
    cdef gbf_tracestate state
    cdef gbf_header_text line
    if len(ids) != sizeof(gbf_trace):
        raise ValueError(f"a pickled TraceContext has {len(ids)} bytes of ids, not {sizeof(gbf_trace)}")
    memcpy(&trace, PyBytes_AS_STRING(ids), sizeof(gbf_trace))
    cdef bint bare = is_zero(trace.trace_id, 16)
    cdef uint8_t flags = trace.flags & ~GBF_TRACE_RANDOM
    if bare != is_zero(trace.span_id, 8) or (bare and flags == GBF_TRACE_DEFER and not baggage) or flags not in (
            0, GBF_TRACE_SAMPLED, GBF_TRACE_DEFER, GBF_TRACE_SAMPLED | GBF_TRACE_DEBUG):
        raise ValueError("a pickled TraceContext has flags or ids that none has")
    parse_state(tracestate, &state)
    line.at, line.nbytes = <const uint8_t *>PyBytes_AS_STRING(baggage), <uint32_t>PyBytes_GET_SIZE(baggage)
    if state_text(&state) != tracestate or gathered(&line, 1) != baggage:
        raise ValueError("a pickled TraceContext has a malformed tracestate or baggage")
    return context_of(&trace, GBF_TRACE_NOTHING, tracestate, baggage)
