# C declarations of csrc/state/: bans, trackers, windows, score, live decision, sampling.
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from gobanfast._core.native.address cimport gbf_addr
from gobanfast._core.native.base cimport gbf_fault, gbf_status
from gobanfast._core.native.http cimport gbf_trace, gbf_trace_headers, gbf_tracestate


cdef extern from "state/gbf_bans.h" nogil:
    const uint32_t GBF_BAN_IP4
    const uint32_t GBF_BAN_ASN
    const uint32_t GBF_BAN_FINGERPRINT
    const uint32_t GBF_BAN_FINGERPRINT_AT4
    const uint32_t GBF_BAN_FINGERPRINT_AT6
    const uint32_t GBF_BAN_UID
    const uint32_t GBF_BAN_SESSION
    const uint32_t GBF_BAN_UID_BYTES
    const uint32_t GBF_BAN_UID_HASHED
    const uint64_t GBF_BAN_EPOCH
    const uint64_t GBF_BANS_FINGERPRINT
    const uint64_t GBF_BANS_FINGERPRINT_AT4
    const uint64_t GBF_BANS_SESSION
    const uint32_t GBF_BAN_EVERYONE
    const uint64_t GBF_BAN_FOREVER
    const int GBF_BANS_COPY
    ctypedef struct gbf_ban_key:
        uint64_t word[3]
        uint32_t kind
    ctypedef struct gbf_ban:
        gbf_ban_key key
        uint64_t expires
        uint64_t created
        uint32_t count
        uint16_t reason
        uint16_t rule
        uint8_t by
    ctypedef struct gbf_bans_policy:
        double factor
        double jitter
        uint64_t cap_ms
        uint64_t memory_ms
        uint64_t seed
        uint32_t evict
    ctypedef struct gbf_bans_counts:
        uint64_t added
        uint64_t extended
        uint64_t lifted
        uint64_t ended
        uint64_t refused
        uint64_t evicted
        uint32_t active
        uint32_t remembered
    ctypedef struct gbf_bans:
        uint32_t capacity
    ctypedef enum gbf_ban_outcome:
        GBF_BAN_REFUSED
        GBF_BAN_ADDED
        GBF_BAN_EXTENDED
        GBF_BAN_KEPT
    const uint32_t GBF_FEED_SLOTS
    ctypedef struct gbf_ban_change:
        uint64_t sequence
        gbf_ban ban
        uint64_t at
        uint8_t event
        uint8_t kind
        uint8_t maker
    gbf_bans *gbf_bans_new(uint32_t capacity, const gbf_bans_policy *policy, const uint64_t *random)
    void gbf_bans_free(gbf_bans *t)
    gbf_ban_outcome gbf_bans_ban(gbf_bans *t, const gbf_ban_key *key, uint64_t duration_ms, const gbf_ban *why,
                                 int escalate, uint64_t now, gbf_ban *out)
    gbf_ban_outcome gbf_bans_put(gbf_bans *t, const gbf_ban *ban, uint8_t maker, uint64_t now)
    int gbf_bans_lift(gbf_bans *t, const gbf_ban_key *key, uint8_t maker, uint64_t now, gbf_ban *out)
    int gbf_bans_extend(gbf_bans *t, const gbf_ban_key *key, uint64_t expires, uint8_t maker, uint64_t now,
                        gbf_ban *out)
    uint32_t gbf_bans_purge(gbf_bans *t, uint64_t now, uint32_t limit, int *more)
    int gbf_bans_copy(gbf_bans *t, uint32_t *cursor, gbf_ban *out, uint32_t *count, uint64_t now)
    int gbf_bans_texts(gbf_bans *t, uint32_t *cursor, uint8_t *used)
    void gbf_bans_configure(gbf_bans *t, const gbf_bans_policy *policy)
    void gbf_bans_close(gbf_bans *t, int closed)
    int gbf_bans_closed(const gbf_bans *t)
    gbf_bans_counts gbf_bans_count(gbf_bans *t)
    uint64_t gbf_bans_nbytes(gbf_bans *t)
    uint64_t gbf_bans_follow(gbf_bans *t)
    void gbf_bans_restart(gbf_bans *t)
    int32_t gbf_bans_changes(const gbf_bans *t, uint64_t *cursor, gbf_ban_change *out, uint32_t limit)
    uint64_t gbf_bans_head(const gbf_bans *t)
    int gbf_bans_holds(const gbf_bans *t, uint64_t cursor)
    gbf_ban_key gbf_ban_uid(const uint8_t *name, uint32_t nbytes, uint8_t number)
    gbf_ban_key gbf_ban_session(uint64_t high, uint64_t low, uint32_t key_id)
    gbf_ban_key gbf_ban_prefix(gbf_addr address, uint32_t bits)
    gbf_ban_key gbf_ban_client(gbf_addr address, uint32_t bits6)
    gbf_ban_key gbf_ban_asn(uint32_t asn)
    gbf_ban_key gbf_ban_fingerprint(const uint64_t *fingerprint)
    gbf_ban_key gbf_ban_fingerprint_at(const uint64_t *fingerprint, gbf_addr address, uint32_t bits6)
    ctypedef struct gbf_ban_who:
        const gbf_addr *address
        const uint64_t *fingerprint
        const gbf_ban_key *uid
        uint32_t asn
    int gbf_bans_find(const gbf_bans *t, const gbf_ban_who *who, uint64_t now, gbf_ban *best)
    int gbf_bans_get(const gbf_bans *t, const gbf_ban_key *key, uint64_t now, gbf_ban *out)


cdef extern from "state/gbf_labels.h" nogil:
    const uint32_t GBF_LABELS_KEY
    const uint32_t GBF_LABELS_WORDS
    ctypedef struct gbf_labels_counts:
        uint64_t added
        uint64_t extended
        uint64_t lifted
        uint64_t ended
        uint64_t refused
        uint32_t active
    ctypedef struct gbf_labels:
        uint32_t capacity
    ctypedef struct gbf_label_words:
        uint16_t *number
        uint32_t count
    gbf_labels *gbf_labels_new(gbf_bans *bans, uint32_t capacity)
    void gbf_labels_free(gbf_labels *l)
    gbf_ban_outcome gbf_labels_put(gbf_labels *l, const gbf_ban *label, uint8_t maker, uint64_t now, gbf_ban *out)
    int gbf_labels_lift(gbf_labels *l, const gbf_ban_key *key, uint16_t word, uint8_t maker, uint64_t now, gbf_ban *out)
    int gbf_labels_get(gbf_labels *l, const gbf_ban_key *key, uint16_t word, uint64_t now, gbf_ban *out)
    int gbf_labels_copy(gbf_labels *l, uint32_t *cursor, gbf_ban *out, uint32_t *count, uint64_t now)
    int gbf_labels_texts(gbf_labels *l, uint32_t *cursor, uint8_t *used)
    int gbf_labels_purge(gbf_labels *l, uint32_t *cursor, uint64_t now, uint32_t limit)
    gbf_labels_counts gbf_labels_count(gbf_labels *l)
    uint64_t gbf_labels_nbytes(gbf_labels *l)
    uint64_t gbf_labels_present(const gbf_labels *l)
    uint64_t gbf_labels_of(const gbf_labels *l, const gbf_ban_key *key, const gbf_label_words *words, uint64_t now)
    uint64_t gbf_labels_find(const gbf_labels *l, const gbf_ban_who *who, const gbf_label_words *words, uint64_t now,
                             uint64_t *own)


cdef extern from "state/gbf_exempt.h" nogil:
    ctypedef struct gbf_addr_range:
        gbf_addr first
        gbf_addr last
    ctypedef struct gbf_asn_range:
        uint32_t first
        uint32_t last
    ctypedef struct gbf_exempt:
        const gbf_addr_range *addresses
        const gbf_asn_range *asns
        uint32_t address_count
        uint32_t asn_count
    int gbf_exempt_covers(const gbf_exempt *e, gbf_addr address, uint32_t asn)


cdef extern from "state/gbf_tracker.h" nogil:
    const uint32_t GBF_TRACKER_WAYS
    ctypedef struct gbf_tracker_limits:
        uint32_t capacity
        uint32_t distinct_limit
        uint32_t distinct_window_ms
        uint32_t rate_limit
        uint32_t rate_window_ms
        uint32_t surge_percent
        uint32_t surge_min
        uint32_t surge_baseline_ms
    ctypedef struct gbf_tracker_answer:
        uint32_t tripped
        uint32_t tracked
        uint32_t distinct
        uint32_t distinct_most
        uint32_t requests
        uint32_t requests_most
        uint32_t surge_now
        uint32_t surge_base
    ctypedef struct gbf_tracker_stats:
        uint64_t clients
        uint64_t admitted
        uint64_t evicted
        uint64_t refused
        uint64_t unsure
    ctypedef struct gbf_tracker_set:
        pass
    ctypedef struct gbf_tracker:
        uint64_t set_count
        uint64_t nbytes
        gbf_tracker_set *sets
    gbf_status gbf_tracker_open(gbf_tracker *t, const gbf_tracker_limits *limits, const uint8_t *key, gbf_fault *fault)
    void gbf_tracker_close(gbf_tracker *t)
    void gbf_tracker_note(gbf_tracker *t, gbf_addr client, uint64_t fingerprint, uint64_t now_ms,
                          gbf_tracker_answer *out)
    void gbf_tracker_peek(gbf_tracker *t, gbf_addr client, uint64_t fingerprint, uint64_t now_ms,
                          gbf_tracker_answer *out)
    int gbf_tracker_forget(gbf_tracker *t, gbf_addr client)
    void gbf_tracker_read_stats(gbf_tracker *t, gbf_tracker_stats *out)
    void gbf_tracker_mend(gbf_tracker *t)


cdef extern from "state/gbf_window.h" nogil:
    ctypedef struct gbf_window_rules:
        uint32_t window
        double percentile
        double deviations
        uint32_t naive
        uint32_t learn_all
        uint32_t min_samples
        double floor
        double ceiling
        double max_step
    ctypedef struct gbf_window:
        uint32_t count
    ctypedef struct gbf_window_answer:
        double threshold
        uint32_t flagged
    uint64_t gbf_window_bytes(const gbf_window_rules *rules)
    void gbf_window_set(gbf_window *w, const gbf_window_rules *rules, void *memory)
    double gbf_window_score(const gbf_window_rules *rules, double score)
    void gbf_window_rate(gbf_window *w, const gbf_window_rules *rules, double score, double held,
                         gbf_window_answer *out)


cdef extern from "state/gbf_score.h" nogil:
    enum:
        GBF_SCORE_SNI
        GBF_SCORE_HEADER
        GBF_SCORE_ASN
        GBF_SCORE_SHAPE
    ctypedef struct gbf_asn_risk:
        uint32_t first
        uint32_t last
        double risk
    ctypedef struct gbf_score_rules:
        double weight[3]
        gbf_window_rules window
        uint32_t per_host
        double unknown_asn
        const gbf_asn_risk *risks
        uint32_t risk_count
    ctypedef struct gbf_score_input:
        uint64_t name
        uint64_t fingerprint
        uint64_t shape
        uint64_t host
        uint64_t client
        uint32_t asn
        uint32_t present
        double added
    ctypedef struct gbf_score_answer:
        double score
        double threshold
        double coverage
        double part[3]
        uint32_t flagged
    ctypedef struct gbf_score:
        uint64_t nbytes
    gbf_score *gbf_score_new(const gbf_score_rules *rules, const uint8_t *key)
    void gbf_score_free(gbf_score *s)
    void gbf_score_rate(gbf_score *s, const gbf_score_input *input, gbf_score_answer *out)
    int gbf_score_vouch(gbf_score *s, const gbf_score_input *input)
    void gbf_score_peek(gbf_score *s, const gbf_score_input *input, gbf_score_answer *out)
    double gbf_score_risk(const gbf_score *s, uint32_t asn)
    void gbf_score_mend(gbf_score *s)


cdef extern from "state/gbf_decide.h" nogil:
    ctypedef struct gbf_state:
        gbf_bans *bans
        gbf_tracker *tracker
        const gbf_exempt *exempt
        gbf_score *score
        uint32_t ipv6_bits
        uint8_t *trip_action
        uint8_t print_bans
        uint8_t score_enforced
    ctypedef struct gbf_decide_request:
        const gbf_addr *address
        const uint64_t *fingerprint
        const uint64_t *shape
        const gbf_ban_key *uid
        uint64_t name
        uint64_t host
        uint64_t now_ms
        double added
        uint32_t asn
        uint8_t has_name
        uint8_t decided
        uint8_t rule_action
        uint8_t unparsable
        uint8_t policy
        uint8_t peek
    ctypedef struct gbf_decide_answer:
        gbf_ban ban
        float score
        float threshold
        float coverage
        uint8_t action
        uint8_t cause
        uint8_t trip
        uint8_t trip_ban
    int gbf_decide_idle(const gbf_state *state)
    int gbf_decide_uses_fingerprint(const gbf_state *state)
    void gbf_decide_apply(const gbf_state *state, const gbf_decide_request *request, gbf_decide_answer *answer)
    int gbf_decide_vouch(const gbf_state *state, const gbf_decide_request *request)


cdef extern from "state/gbf_sampling.h" nogil:
    enum:
        GBF_SAMPLING_DIGITS
    const uint64_t GBF_SAMPLING_NEVER
    const uint64_t GBF_SAMPLING_UNKNOWN
    ctypedef struct gbf_sampling_in:
        uint64_t random
        uint64_t threshold
        uint32_t parent
        uint32_t sampled
    ctypedef struct gbf_sampling_out:
        uint64_t threshold
        uint32_t sampled
        uint32_t root
    uint64_t gbf_sampling_random(const uint8_t *trace_id)
    uint64_t gbf_sampling_threshold(double probability)
    uint64_t gbf_sampling_round(uint64_t threshold, uint32_t precision)
    uint32_t gbf_sampling_write(uint64_t threshold, char *out)
    uint32_t gbf_sampling_read(const char *text, size_t n, uint64_t *threshold)
    uint32_t gbf_sampling_read_random(const char *text, size_t n, uint64_t *random)
    void gbf_sampling_member(const uint8_t *text, size_t n, uint64_t *threshold, uint64_t *random)
    uint32_t gbf_sampling_member_write(const uint8_t *text, size_t n, uint64_t threshold, uint8_t *out)
    double gbf_sampling_probability(uint64_t threshold)
    double gbf_sampling_count(uint64_t threshold)
    gbf_sampling_out gbf_sampling_rate(const gbf_sampling_in *given, uint64_t threshold)
    gbf_sampling_out gbf_sampling_always(const gbf_sampling_in *given)
    gbf_sampling_out gbf_sampling_never()


cdef extern from "state/gbf_record.h" nogil:
    ctypedef struct gbf_record:
        gbf_trace trace
        uint64_t random
        uint64_t before
        uint64_t decided
        uint64_t after
        uint32_t rule
        uint8_t source
        uint8_t parent
        uint8_t was_sampled
        uint8_t kind
        uint8_t sampled
        uint8_t root
        uint8_t outcome
        uint8_t owns
    void gbf_record_start(gbf_record *r)
    void gbf_record_read(gbf_record *r, const gbf_trace_headers *h, uint32_t first, uint32_t then,
                         gbf_tracestate *state)
    int gbf_record_needs_id(const gbf_record *r, uint32_t kind)
    void gbf_record_decide(gbf_record *r, uint32_t rule, uint32_t kind, uint64_t threshold)
    uint8_t gbf_record_flags(const gbf_record *r)


cdef extern from "state/gbf_latency.h" nogil:
    enum:
        GBF_RATES_MAX
    ctypedef struct gbf_rates:
        pass
    ctypedef struct gbf_latency_counts:
        uint32_t errors
        uint32_t roots
    gbf_rates *gbf_rates_new(uint32_t capacity, uint64_t now_ns)
    void gbf_rates_free(gbf_rates *c)
    uint64_t gbf_rates_nbytes(const gbf_rates *c)
    uint64_t gbf_rates_threshold(const gbf_rates *c, uint32_t class_number)
    void gbf_rates_set(gbf_rates *c, uint32_t class_number, uint64_t threshold)
    void gbf_latency_note(gbf_rates *c, uint32_t class_number, uint64_t ns, uint32_t error, uint32_t root)
    void gbf_latency_tick(gbf_rates *c, uint64_t now_ns)
    uint64_t gbf_latency_span(const gbf_rates *c, uint64_t now_ns)
    void gbf_latency_forget(gbf_rates *c, uint32_t class_number)
    uint64_t gbf_latency_add(const gbf_rates *c, uint32_t class_number, gbf_latency_counts *sum)
    void gbf_latency_merge(gbf_latency_counts *sum, const void *other)
    uint64_t gbf_latency_count(const gbf_latency_counts *sum)
    double gbf_latency_percentile(const gbf_latency_counts *sum, uint32_t percent)


cdef extern from "state/gbf_limit.h" nogil:
    const uint32_t GBF_LIMIT_MAX_COUNT
    const uint32_t GBF_LIMIT_MAX_MS
    ctypedef struct gbf_limit:
        uint64_t salt
        uint64_t interval
        uint32_t limit
        uint32_t window_ms
    ctypedef struct gbf_limit_key:
        uint64_t first
        uint64_t second
    ctypedef struct gbf_limit_answer:
        uint32_t admitted
        uint32_t tracked
        uint32_t left
        uint32_t wait_ms
        uint32_t reset_ms
    ctypedef enum gbf_limit_step:
        GBF_LIMIT_LOOK
        GBF_LIMIT_TAKE
        GBF_LIMIT_COUNT
        GBF_LIMIT_GIVE
        GBF_LIMIT_CLEAR
    ctypedef struct gbf_limit_header:
        uint64_t evicted
        uint64_t untracked
    ctypedef struct gbf_limits:
        gbf_limit_header *header
        uint64_t count
        uint64_t *key
    uint64_t gbf_limits_nbytes(uint32_t capacity)
    void gbf_limits_open(gbf_limits *t, void *memory, uint32_t capacity, uint64_t seed)
    gbf_status gbf_limit_set(gbf_limit *out, uint64_t name, uint32_t limit, uint32_t window_ms, uint32_t burst,
                             gbf_fault *fault)
    void gbf_limit_do(gbf_limits *t, const gbf_limit *limit, gbf_limit_key key, gbf_limit_step step, uint32_t cost,
                      uint64_t now_ms, gbf_limit_answer *out)


cdef extern from "state/gbf_crowd.h" nogil:
    ctypedef struct gbf_crowd:
        uint64_t key
    void gbf_crowd_note(gbf_crowd *c, gbf_addr client, uint64_t now_ms)
    const uint32_t GBF_CROWD_UNKNOWN
    uint32_t gbf_crowd_count(const gbf_crowd *c, uint64_t network, uint32_t bits, const gbf_addr *others,
                             uint32_t count, uint64_t now_ms)
