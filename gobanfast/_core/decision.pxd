from libc.stdint cimport uint8_t, uint32_t, uint64_t

from gobanfast._core.ban_table cimport BanTable
from gobanfast._core.compiled_rules cimport CompiledRules
from gobanfast._core.native.state cimport gbf_ban

cdef enum:
    INLINE_WORDS = 2  # up to 127 rules, a decision needs no memory besides itself


cdef class StoredBan:
    cdef BanTable table
    cdef gbf_ban ban
    cdef readonly str reason
    cdef readonly str rule

    cdef object whole(self)


cdef StoredBan stored_ban(BanTable table, const gbf_ban *ban)


cdef class Decision:
    cdef CompiledRules _compiled
    cdef readonly str address
    cdef const uint64_t *_vector  # the rules that match: in the ruleset, or in a SignalDecision
    cdef uint32_t _leaf, _rule  # of the rules the first that matches, whatever decided in the end
    cdef int _unparsable              # gbf_unparsable
    cdef uint8_t _action, _cause  # gbf_action, gbf_cause
    cdef uint8_t _trip            # gbf_trip
    cdef uint8_t _vouched         # 1: the score has learned it since
    cdef float _score, _threshold, _coverage  # NaN: none
    cdef StoredBan _ban           # that decided, or was made

    cdef tuple ids(self, const uint64_t *mask, uint32_t before)


cdef class SignalDecision(Decision):
    cdef str _sni
    cdef object _tls              # ClientHello, or the str of a JA4 for want of one, or None
    cdef object _headers
    cdef str _method, _path, _http
    cdef str _mount               # None: none
    cdef int _has                 # Wanted: which of these two are known
    cdef uint64_t _print[2]       # the fingerprint: high and low half
    cdef uint64_t _shape[2]
    cdef bytes _spill             # the combined vector and its scratch, when they do not fit below
    cdef uint64_t _words[INLINE_WORDS]

    cdef int and_connection(self, str sni, object tls) except -1
    cdef int and_request(self, object headers, str method, str path, str http, str mount, bint given,
                         int wanted) except -1
    cdef str hash_of(self, str name)


# Decision for a leaf, for GBF_NONE (the address is not one), or for no address at all (`address` None).
cdef Decision decide_leaf(CompiledRules compiled, uint32_t leaf, str address, str sni, object tls,
                          object headers, str method, str path, str http, str mount, int wanted)
