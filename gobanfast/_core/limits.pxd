from libc.stdint cimport uint8_t, uint32_t, uint64_t

from gobanfast._core.decision cimport Decision
from gobanfast._core.native.address cimport gbf_addr
from gobanfast._core.native.state cimport gbf_limit, gbf_limit_answer, gbf_limit_key, gbf_limits


cdef enum LimitKey:  # what a limit counts by
    BY_CLIENT
    BY_FINGERPRINT
    BY_ASN
    BY_HEADER
    BY_COOKIE
    BY_GIVEN  # the application says it
    BY_SESSION
    BY_UID


cdef struct LimitPlace:  # a limit among the rules
    gbf_limit limit
    uint32_t rule        # its bit in vectors of rules
    uint32_t cost
    uint8_t action       # gbf_action
    uint8_t by           # LimitKey
    uint8_t shadow
    uint8_t on_answer    # counts answers, not requests


cdef class LimitTable:
    cdef gbf_limits table
    cdef readonly str path      # of the file that workers share; None: memory of this process
    cdef readonly uint32_t capacity
    cdef void *_memory
    cdef object _map
    cdef Py_buffer _view
    cdef int _file
    cdef int _pid
    cdef object __weakref__


cdef class Limits:
    cdef readonly LimitTable table
    cdef readonly tuple names
    cdef tuple _rules           # those that they are
    cdef tuple _settings        # RateLimit of each
    cdef tuple _fields          # of each the header or cookie that it counts by, or None
    cdef uint32_t _count
    cdef LimitPlace *_places
    cdef readonly bint by_fingerprint

    # Counts a request against the limits that its rules name; the hardest action of those it is over, "allow" for none.
    cdef bint clears(self, uint32_t place, Decision decision, int status) except -1
    cdef int hold(self, Decision d, const gbf_addr *client, const uint64_t *fingerprint, uint32_t asn, object headers,
                  uint64_t now_ms, bint peek) except -1
    cdef gbf_limit_key key_of(self, uint32_t place, Decision d, const gbf_addr *client, const uint64_t *fingerprint,
                              uint32_t asn, object headers) except *


# What limits said of one request.
cdef class LimitState:
    cdef Limits limits
    cdef readonly bint over      # whether a limit decided
    cdef uint64_t matched_bits   # limits that are about this request
    cdef uint64_t shadow_bits    # shadow limits that it is over
    cdef uint32_t place          # the one that decided, or has least left
    cdef gbf_limit_answer answer  # of it
    cdef gbf_limit_key *keys     # of limits on answers; NULL: there is none

    cdef int keep(self, uint32_t place, gbf_limit_key key) except -1
    cdef tuple ids(self, uint64_t bits)
    cdef object rule_of(self, tuple rules)
