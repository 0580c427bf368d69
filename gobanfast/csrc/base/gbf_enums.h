/* Enumerations that C, Cython and Python share: their numbers and texts, and no other place has them.
 *
 * A list names each member with its text; the enum and the tuple of gobanfast._enums are made of it. Numbers are stored in
 * compiled rules (FORMAT of rules/ruleset_file.py) and in columns: adding a member at the end is free, anything else is a
 * new format. */
#ifndef GBF_ENUMS_H
#define GBF_ENUMS_H

#include <stdint.h>

#define GBF_ENUM_NUMBER(name, text) name,
#define GBF_ENUM_TEXT(name, text) text,

/* "No match" of every table. Never a stored value. */
#define GBF_NONE UINT32_C(0xFFFFFFFF)

/* What becomes of a request, ascending by hardness: numbers are compared. `limit` is an action of trackers, a rule that has
 * it says whom a limit is about and decides nothing; `log` is an action of rules that decide nothing, no decision has it. */
#define GBF_ACTION_LIST(X)                                                                                             \
    X(GBF_ALLOW, "allow")                                                                                              \
    X(GBF_CHALLENGE, "challenge")                                                                                      \
    X(GBF_LIMIT, "limit")                                                                                              \
    X(GBF_BAN, "ban")                                                                                                  \
    X(GBF_ACTION_LOG, "log")
typedef enum { GBF_ACTION_LIST(GBF_ENUM_NUMBER) } gbf_action;
enum { GBF_ACTIONS = GBF_ACTION_LOG }; /* those that a decision may have */

/* What a rule has a say in; bits of rules are in this order. `resource` are no rules of their own: see DESIGN.md,
 * "Effects". */
#define GBF_EFFECT_LIST(X)                                                                                             \
    X(GBF_ADMIT, "admit")                                                                                              \
    X(GBF_SHARE, "share")                                                                                              \
    X(GBF_RECORD, "record")                                                                                            \
    X(GBF_RESOURCE, "resource")
typedef enum { GBF_EFFECT_LIST(GBF_ENUM_NUMBER) GBF_EFFECTS } gbf_effect;

/* Whether the page that asked may read the answer; the first is "no share rule is about it". */
#define GBF_SHARED_LIST(X)                                                                                             \
    X(GBF_SHARED_NONE, "")                                                                                             \
    X(GBF_SHARED_GRANTED, "granted")                                                                                   \
    X(GBF_SHARED_WITHHELD, "withheld")                                                                                 \
    X(GBF_SHARED_REFUSED, "refused")
typedef enum { GBF_SHARED_LIST(GBF_ENUM_NUMBER) GBF_SHAREDS } gbf_shared;

/* Whether a trace is kept, by the action of the record rule; the first is "none matches". */
#define GBF_RECORDED_LIST(X)                                                                                           \
    X(GBF_RECORDED_NONE, "")                                                                                           \
    X(GBF_RECORDED_ALWAYS, "always")                                                                                   \
    X(GBF_RECORDED_NEVER, "never")                                                                                     \
    X(GBF_RECORDED_RATE, "rate")
typedef enum { GBF_RECORDED_LIST(GBF_ENUM_NUMBER) GBF_RECORDEDS } gbf_recorded;

/* What became of a request, as record rules ask for it: the first of these from the end that holds. `passed` was to be
 * challenged and has solved it; `withheld` is let in, and the page that asked may not read the answer. */
#define GBF_OUTCOME_LIST(X)                                                                                            \
    X(GBF_OUTCOME_ADMITTED, "admitted")                                                                                \
    X(GBF_OUTCOME_PASSED, "passed")                                                                                    \
    X(GBF_OUTCOME_WITHHELD, "withheld")                                                                                \
    X(GBF_OUTCOME_CHALLENGED, "challenged")                                                                            \
    X(GBF_OUTCOME_LIMITED, "limited")                                                                                  \
    X(GBF_OUTCOME_REFUSED, "refused")                                                                                  \
    X(GBF_OUTCOME_BANNED, "banned")
typedef enum { GBF_OUTCOME_LIST(GBF_ENUM_NUMBER) GBF_OUTCOMES } gbf_outcome;

/* What becomes of the trace context of a client that is not trusted. */
#define GBF_STRANGER_LIST(X)                                                                                           \
    X(GBF_STRANGER_RESTART, "restart") /* a new trace */                                                               \
    X(GBF_STRANGER_LINK, "link")       /* the same, which links to the old one */                                      \
    X(GBF_STRANGER_CONTINUE, "continue")
typedef enum { GBF_STRANGER_LIST(GBF_ENUM_NUMBER) GBF_STRANGERS } gbf_stranger;

/* What decided. */
#define GBF_CAUSE_LIST(X)                                                                                              \
    X(GBF_CAUSE_NONE, "none")                                                                                          \
    X(GBF_CAUSE_RULE, "rule")                                                                                          \
    X(GBF_CAUSE_BAN, "ban")                                                                                            \
    X(GBF_CAUSE_TRACKER, "tracker")                                                                                    \
    X(GBF_CAUSE_UNPARSABLE, "unparsable")                                                                              \
    X(GBF_CAUSE_SCORE, "score")                                                                                        \
    X(GBF_CAUSE_OUTAGE, "outage") /* the ban table is closed */
typedef enum { GBF_CAUSE_LIST(GBF_ENUM_NUMBER) GBF_CAUSES } gbf_cause;

/* Why a tracker decides: a limit, by the name of its setting, or that it is saturated. */
#define GBF_TRIP_LIST(X)                                                                                               \
    X(GBF_TRIP_DISTINCT, "distinct_fingerprints") /* limit or more within the window */                                \
    X(GBF_TRIP_RATE, "request_rate")              /* limit or more within the window */                                \
    X(GBF_TRIP_SURGE, "surge")                    /* more than percent of the baseline now */                          \
    X(GBF_TRIP_UNSURE, "saturated")               /* no limit is known to be reached, one may be */
typedef enum { GBF_TRIP_LIST(GBF_ENUM_NUMBER) GBF_TRIPS } gbf_trip;

/* The signal that rules require and that cannot be parsed; the first is "all can". */
#define GBF_UNPARSABLE_LIST(X)                                                                                         \
    X(GBF_UNPARSABLE_NONE, "")                                                                                         \
    X(GBF_UNPARSABLE_ADDRESS, "address")                                                                               \
    X(GBF_UNPARSABLE_HELLO, "hello")                                                                                   \
    X(GBF_UNPARSABLE_SNI, "sni")                                                                                       \
    X(GBF_UNPARSABLE_HEADERS, "headers")                                                                               \
    X(GBF_UNPARSABLE_METHOD, "method")                                                                                 \
    X(GBF_UNPARSABLE_PATH, "path")                                                                                     \
    X(GBF_UNPARSABLE_JA4, "ja4")                                                                                       \
    X(GBF_UNPARSABLE_SESSION, "session")
typedef enum { GBF_UNPARSABLE_LIST(GBF_ENUM_NUMBER) } gbf_unparsable;

/* Who makes or changes a ban; at most 127. A record of a maker that is not listed is a store's. */
#define GBF_MAKER_LIST(X)                                                                                              \
    X(GBF_BY_MANUAL, "manual")                                                                                         \
    X(GBF_BY_RULE, "rule")                                                                                             \
    X(GBF_BY_TRACKER, "tracker")                                                                                       \
    X(GBF_BY_IMPORT, "import")                                                                                         \
    X(GBF_BY_STORE, "store")
typedef enum { GBF_MAKER_LIST(GBF_ENUM_NUMBER) } gbf_maker;

/* What happens to a ban, as the change feed says it; that one is over is no event. */
#define GBF_EVENT_LIST(X)                                                                                              \
    X(GBF_EVENT_NONE, "")                                                                                              \
    X(GBF_EVENT_ADD, "add")                                                                                            \
    X(GBF_EVENT_EXTEND, "extend") /* its end is later */                                                               \
    X(GBF_EVENT_LIFT, "lift")                                                                                          \
    X(GBF_EVENT_EVICT, "evict") /* a full table dropped it for another one */
typedef enum { GBF_EVENT_LIST(GBF_ENUM_NUMBER) } gbf_event;

/* What an event is about. */
#define GBF_FEED_LIST(X)                                                                                               \
    X(GBF_FEED_BAN, "ban")                                                                                             \
    X(GBF_FEED_LABEL, "label")
typedef enum { GBF_FEED_LIST(GBF_ENUM_NUMBER) } gbf_feed_kind;

/* Where a trace context was read. */
#define GBF_TRACE_SOURCE_LIST(X)                                                                                       \
    X(GBF_TRACE_NOTHING, "")                                                                                           \
    X(GBF_TRACE_FROM_PARENT, "traceparent")                                                                            \
    X(GBF_TRACE_FROM_B3, "b3")                                                                                         \
    X(GBF_TRACE_FROM_B3_MULTI, "b3-multi")
typedef enum { GBF_TRACE_SOURCE_LIST(GBF_ENUM_NUMBER) } gbf_trace_source;

/* Headers whose values are in a fingerprint when the rules name no others. */
#define GBF_FINGERPRINT_FIELDS "user-agent", "accept-language", "accept-encoding"

#endif
