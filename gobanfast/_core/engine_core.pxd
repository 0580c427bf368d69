from libc.stdint cimport uint8_t, uint32_t, uint64_t

from gobanfast._core.edge_headers cimport EdgeHeaders
from gobanfast._core.ban_table cimport BanTable
from gobanfast._core.decision cimport Decision, Live, Request, SignalDecision
from gobanfast._core.compiled_rules cimport CompiledRules
from gobanfast._core.sampling cimport RateClasses
from gobanfast._core.scorer cimport Scorer
from gobanfast._core.session_reader cimport SessionReader
from gobanfast._core.client_hello cimport ClientHello
from gobanfast._core.crowd cimport Crowd
from gobanfast._core.limits cimport Limits, LimitTable
from gobanfast._core.trackers cimport Exemption, Trackers
from gobanfast._core.native.address cimport gbf_addr
from gobanfast._core.native.base cimport GBF_ACTIONS, GBF_CAUSES
from gobanfast._core.native.state cimport gbf_ban_key, gbf_decide_request, gbf_label_words, gbf_state


cdef class EngineState:
    cdef readonly CompiledRules compiled
    cdef readonly object settings
    cdef readonly object ruleset       # what all this came from; None where an EngineCore runs without one
    cdef readonly uint64_t generation  # 1 for the first of an engine; 0 until it is in force
    cdef readonly object trust         # made of the ruleset by the first frontend that asks; None: not yet
    cdef readonly BanTable bans
    cdef readonly Trackers trackers    # None: off
    cdef readonly Scorer scorer        # None: off
    cdef readonly Limits limits        # None: the rules have none
    cdef readonly SessionReader reader  # where a session is; None: the rules do not say
    cdef tuple secrets                 # of the reader
    cdef gbf_label_words names         # the words that rules name
    cdef uint32_t uid_slot             # of the header in which trusted peers say who is logged in
    cdef bint asks_who                 # whether anything asks for labels, sessions or users
    cdef readonly EdgeHeaders edge     # request headers that only trusted peers may say; None: off
    cdef readonly RateClasses rates    # thresholds of the rate classes; None: record rules have none
    cdef object trusted                # what contains the addresses that the rules trust
    cdef uint32_t *classes             # number in `rates` of each record rule's class; NULL: there are none
    cdef readonly Crowd crowd          # clients let in lately by network; None: bans do not grow
    cdef object spared                 # says whom no decision may ban; None: nobody
    cdef LimitTable counts             # of limits; None: no rules had any
    cdef Exemption exemption
    cdef gbf_state state
    cdef bytes stores                  # stored_key of each rule
    cdef bint any_stored
    cdef bint timed                    # whether a decision needs the time even when nothing of it is banned
    cdef uint64_t *hits                # decisions of each rule
    cdef double *weighs                # what a match of each rule adds to the score; NULL: none does

    cdef int wanted(self, bint headers_known) noexcept
    cdef int number_classes(self) except -1
    cdef int name_labels(self, EngineState before) except -1
    cdef int take_fixed(self) except -1
    cdef int judge(self, SignalDecision d, int outcome) noexcept
    cdef double added(self, Decision d) noexcept


cdef class EngineCore:
    cdef readonly EngineState snapshot  # what a swap replaces
    cdef readonly BanTable ban_table
    cdef public object candidate       # None, or what observes requests beside the rules in force: reload.canary.Trial
    cdef readonly list on_swap         # called with a Swap once other rules are in force
    cdef object _clock
    cdef bytes _seed
    cdef dict _hits_before             # what rules that are gone decided, as hits_of() has it
    cdef dict _learned_clients         # client -> when the score last learned by vouch() of it
    cdef uint64_t counts[GBF_CAUSES * GBF_ACTIONS]  # decisions by cause and action
    cdef uint64_t withheld             # decisions to withhold what no rule grants

    cdef dict all_hits(self)
    cdef int record_again(self, EngineState snapshot, SignalDecision d, int outcome) noexcept
    cdef int count_share(self, EngineState snapshot, SignalDecision d) noexcept
    cdef uint64_t time_of(self, object now) except? 0
    cdef int keep_hits(self, EngineState snapshot) except -1
    cdef bint may_learn(self, tuple who, double seconds) except -1
    cdef Decision decide_request(self, EngineState snapshot, str address, Request *request, Live *live, object now,
                                 bint peek)
    cdef int apply_state(self, EngineState snapshot, Decision d, const gbf_addr *address, str sni, object tls,
                         object now, bint peek) except -1
    cdef int hold_limits(self, EngineState snapshot, Decision d, const gbf_decide_request *request,
                         bint peek) except -1
    cdef int ban_tripped(self, EngineState snapshot, Decision d, const gbf_decide_request *request) except -1
    cdef int ban_matched(self, EngineState snapshot, Decision d, const gbf_decide_request *request) except -1
    cdef int store(self, EngineState snapshot, Decision d, const gbf_ban_key *key, object duration, str reason,
                   str rule, uint8_t by, uint64_t now_ms) except -1


# Shows a request to a candidate, if there is one.
cdef int observe(object candidate, str address, str sni, ClientHello hello, str ja4, object headers, str method,
                 str path, str http, str mount, str scheme, str host) except -1

# Borrows what says who is behind a request; what is known later goes into `live`.
cdef int start_live(Live *live, EngineState snapshot, object session, str uid) noexcept
