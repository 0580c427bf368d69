"""Texts of the enumerations in csrc/base/gbf_enums.h, as tuples: a member's number is its index."""

from sys import intern

from gobanfast._core.native.base cimport GBF_ACTIONS, GBF_LIMIT, GBF_NONE, GBF_TRIP_UNSURE

cdef extern from *:
    """
    #include "base/gbf_enums.h"
    static const char *const gbf_action_texts[] = {GBF_ACTION_LIST(GBF_ENUM_TEXT) NULL};
    static const char *const gbf_effect_texts[] = {GBF_EFFECT_LIST(GBF_ENUM_TEXT) NULL};
    static const char *const gbf_shared_texts[] = {GBF_SHARED_LIST(GBF_ENUM_TEXT) NULL};
    static const char *const gbf_recorded_texts[] = {GBF_RECORDED_LIST(GBF_ENUM_TEXT) NULL};
    static const char *const gbf_outcome_texts[] = {GBF_OUTCOME_LIST(GBF_ENUM_TEXT) NULL};
    static const char *const gbf_stranger_texts[] = {GBF_STRANGER_LIST(GBF_ENUM_TEXT) NULL};
    static const char *const gbf_cause_texts[] = {GBF_CAUSE_LIST(GBF_ENUM_TEXT) NULL};
    static const char *const gbf_trip_texts[] = {GBF_TRIP_LIST(GBF_ENUM_TEXT) NULL};
    static const char *const gbf_unparsable_texts[] = {GBF_UNPARSABLE_LIST(GBF_ENUM_TEXT) NULL};
    static const char *const gbf_maker_texts[] = {GBF_MAKER_LIST(GBF_ENUM_TEXT) NULL};
    static const char *const gbf_event_texts[] = {GBF_EVENT_LIST(GBF_ENUM_TEXT) NULL};
    static const char *const gbf_feed_texts[] = {GBF_FEED_LIST(GBF_ENUM_TEXT) NULL};
    static const char *const gbf_trace_source_texts[] = {GBF_TRACE_SOURCE_LIST(GBF_ENUM_TEXT) NULL};
    static const char *const gbf_fingerprint_fields[] = {GBF_FINGERPRINT_FIELDS, NULL};
    """
    const char *const *gbf_action_texts
    const char *const *gbf_effect_texts
    const char *const *gbf_shared_texts
    const char *const *gbf_recorded_texts
    const char *const *gbf_outcome_texts
    const char *const *gbf_stranger_texts
    const char *const *gbf_cause_texts
    const char *const *gbf_trip_texts
    const char *const *gbf_unparsable_texts
    const char *const *gbf_maker_texts
    const char *const *gbf_event_texts
    const char *const *gbf_feed_texts
    const char *const *gbf_trace_source_texts
    const char *const *gbf_fingerprint_fields


cdef tuple texts(const char *const *listed):
    """The texts up to NULL, interned, because they are compared with literals."""
    cdef Py_ssize_t count = 0
    while listed[count] != NULL:
        count += 1
    return tuple([intern(listed[i].decode()) for i in range(count)])


NONE = GBF_NONE
"""uint32 that stands for no match, no rule, and no address."""

ACTIONS = texts(gbf_action_texts)
"""By hardness; the last, "log", decides nothing."""

DECISIONS = ACTIONS[:GBF_ACTIONS]
"""Actions that a decision may have."""

RULE_ACTIONS = ACTIONS[:GBF_LIMIT] + ACTIONS[GBF_LIMIT + 1:]
"""Actions that a rule may name: "limit" is one of trackers."""

RULE_DECISIONS = DECISIONS[:GBF_LIMIT] + DECISIONS[GBF_LIMIT + 1:]
"""Actions that a rule, or policy `unparsable`, may decide."""

EFFECTS = texts(gbf_effect_texts)
"""What a rule has a say in, in the order of their bits; "resource" is none of a rule's own."""

SHARED = texts(gbf_shared_texts)
"""Whether the page that asked may read the answer; "" where no share rule is about it."""

RECORDED = texts(gbf_recorded_texts)
"""Whether a trace is kept: actions of record rules; "" where none matches."""

OUTCOMES = texts(gbf_outcome_texts)
"""What became of a request; of several that hold the last."""

STRANGERS = texts(gbf_stranger_texts)
"""What becomes of the trace context of a client that is not trusted."""

CAUSES = texts(gbf_cause_texts)
"""What decided."""

TRIPS = texts(gbf_trip_texts)
"""Why a tracker decides: a limit, or "saturated"."""

LIMITS = TRIPS[:GBF_TRIP_UNSURE]
"""Limits of a tracker, by the names of its settings."""

UNPARSABLE = texts(gbf_unparsable_texts)
"""The signal that cannot be parsed; "" when all can."""

MAKERS = texts(gbf_maker_texts)
"""Who makes or changes a ban."""

EVENTS = texts(gbf_event_texts)
"""What happens to a ban; "" is no event."""

FEED_KINDS = texts(gbf_feed_texts)
"""What an event is about."""

TRACE_SOURCES = texts(gbf_trace_source_texts)
"""Where a trace context was read; "" is a context of our own."""

FIELDS = texts(gbf_fingerprint_fields)
"""The headers whose values are in a fingerprint when nothing else is asked for."""
