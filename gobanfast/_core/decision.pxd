from cpython.ref cimport PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from gobanfast._core.ban_table cimport BanTable
from gobanfast._core.compiled_rules cimport CompiledRules
from gobanfast._core.native.address cimport gbf_addr
from gobanfast._core.native.http cimport gbf_headers, gbf_trace_headers
from gobanfast._core.native.state cimport gbf_ban, gbf_ban_key, gbf_label_words, gbf_labels, gbf_record
from gobanfast._core.trace_context cimport TraceContext

cdef enum:
    INLINE_WORDS = 2  # up to 127 rules, a decision needs no memory besides itself


# What live state knows of a request, and what says who is behind it; all borrowed, None where nobody says.
cdef struct Live:
    const gbf_labels *labels         # NULL: no key carries a label, or no rule asks
    const gbf_label_words *words     # those that the rules name
    const gbf_addr *address          # NULL: not known
    uint64_t now                     # table time, where there are labels
    PyObject *reader                 # SessionReader: where a session is
    PyObject *session                # str or bytes in place of what the reader finds; "": there is none
    PyObject *query                  # str or bytes, as it was sent
    PyObject *uid                    # str: who is logged in
    uint32_t uid_slot                # of the header in which this peer may say so, or GBF_HEADER_NO_SLOT


# Signals of one request, all borrowed; None where nobody knows one.
cdef struct Request:
    PyObject *sni
    PyObject *tls          # ClientHello, or the str of a JA4 for want of one
    PyObject *headers
    PyObject *method
    PyObject *path
    PyObject *http
    PyObject *mount        # "" or None: none
    PyObject *scheme
    PyObject *host         # as a trusted proxy says, in place of the header
    gbf_trace_headers *trace  # what propagators read of them, beside `scanned`; NULL: nothing
    PyObject *trust        # a Trust, whose `peers` are the clients whose trace contexts go on; NULL: those of the rules
    PyObject *peer         # the address of the other end, or None
    bint inside            # whether a chain of proxies is trusted to its end
    gbf_headers *scanned   # headers, method, path and mount, by the plan of the rules that decide; NULL: to be scanned
    int wanted             # Wanted: of the scan
    const Live *live       # NULL: nobody knows


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
    cdef object _limit            # LimitState: what limits said; None: none is about it

    cdef tuple ids(self, const uint64_t *mask, uint32_t first, uint32_t before)
    cdef object tripped(self)


cdef class SignalDecision(Decision):
    cdef str _sni
    cdef object _tls              # ClientHello, or the str of a JA4 for want of one, or None
    cdef object _headers
    cdef str _method, _path, _http
    cdef str _mount               # None: none
    cdef str _scheme
    cdef str _host
    cdef bint _preflight          # of a resource that share rules are about
    cdef bint _from_page          # there is an Origin
    cdef bint _own_page           # it has the host and port of the request
    cdef object _answer           # header fields of the answer to a preflight; a str: why it is not granted; or None
    cdef int _has                 # Wanted: which of these two are known
    cdef uint64_t _fingerprint[2]  # high and low half
    cdef uint64_t _shape[2]
    cdef object _kept             # copy of the headers for who reads them later: pairs or a dict; None: there is none
    cdef Py_ssize_t _kept_bytes   # of memory that they keep alive
    cdef str _uid                 # who is logged in; None: nobody is known to be
    cdef gbf_ban_key _user        # the key of that
    cdef int _session             # SessionState; unknown where no rule asks
    cdef gbf_ban_key _session_key  # of its first value under the first secret, where it is present
    cdef bint _keyed              # whether there is one
    cdef bint _alone              # whether it has one value, so that a client cannot choose by which it is counted
    cdef uint64_t _carried        # the words that any key of it carries, bits of LiveTable.labels
    cdef gbf_record _record       # nothing where the rules have no records
    cdef str _state               # tracestate that came; None: none
    cdef bytes _baggage           # the same of baggage
    cdef TraceContext _trace, _link  # made when asked for; of a client that is not trusted
    cdef bint _left                # the exchange that it was current in is over
    cdef bytes _spill             # the combined vector and its scratch, when they do not fit below
    cdef uint64_t _words[INLINE_WORDS]

    cdef int and_connection(self, str sni, object tls) except -1
    cdef int and_request(self, const Request *request, bint given) except -1
    cdef int note_user(self, const Live *live, const gbf_headers *scanned) except -1
    cdef int and_live(self, const Request *request, const gbf_headers *scanned) except -1
    cdef int and_rows(self, uint64_t *vector, uint64_t *scratch, gbf_headers *scanned) except -1
    cdef int and_announced(self, uint64_t *vector, uint64_t *scratch, gbf_headers *scanned) except -1
    cdef uint32_t share_rule_index(self) noexcept
    cdef int resource_flags(self) noexcept
    cdef int shared(self) noexcept
    cdef int outcome_now(self) noexcept
    cdef uint32_t record_rule_index(self, int outcome) noexcept
    cdef tuple of_outcome(self, tuple ids)
    cdef int trust_trace(self, object trusted, bint edge) except -1
    cdef int note_hashes(self, const gbf_headers *scanned) noexcept
    cdef int know_hashes(self, int wanted) except -1


# A request of which nothing is known.
cdef int start_request(Request *request) noexcept

# Decision for a leaf, for GBF_NONE (the address is not one), or for no address at all (`address` None).
cdef Decision decide_leaf(CompiledRules compiled, uint32_t leaf, str address, const Request *request)

# Whether a decision is an allow to which no `log` or shadow rule has anything to say.
cdef bint is_plain_allow(Decision decision) noexcept

# Works out what was not wanted of the scan of a decision's headers, as long as what it borrows is there.
cdef int complete_hashes(SignalDecision decision, gbf_headers *scanned) except -1
