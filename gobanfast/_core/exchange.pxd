from cpython.ref cimport PyObject
from libc.stdint cimport uint32_t, uint64_t

from gobanfast._core.decision cimport Decision, SignalDecision
from gobanfast._core.edge_headers cimport EdgeHeaders
from gobanfast._core.engine_core cimport EngineCore, EngineState
from gobanfast._core.headers cimport KEPT, HeaderPlan, HeaderWalk
from gobanfast._core.native.http cimport gbf_headers


cdef class RequestIds:
    cdef char _prefix[12]
    cdef uint64_t _next

    cdef str make(self)


cdef class GuardCore:
    cdef readonly object engine
    cdef readonly object own_trust      # a Trust; None: that of the rules in force
    cdef readonly tuple names           # DNS names of the certificate; None: any host
    cdef public uint64_t foreign_headers  # access-control-* of applications that were replaced
    cdef readonly bint has_observers    # whether someone is told of decisions
    cdef readonly tuple finishers       # observers' `finish`, called with an exchange whose response is over
    cdef EngineCore _core               # the engine, where its `decide` is our own; None: one of another make
    cdef object _decide
    cdef RequestIds _ids
    cdef bint _logs                     # whether lines of a log are made of decisions, and of plain allows, too
    cdef bint _logs_allows
    cdef bint _skips                    # whether nobody is to be told of plain allows
    cdef public object tracer           # makes what is current of a decision, where others make the spans; None: itself
    cdef bint _controls                 # whether rate classes are controlled already
    cdef bint _tells_limits             # whether responses that are let in say what is left of limits
    cdef bint _binds                    # whether a challenge is bound to the fingerprint


cdef class Exchange:
    cdef GuardCore _guard
    cdef object _headers                # pairs of bytes, or a WSGI environ
    cdef object _pairs                  # our own tuple of the pairs, where they outlive the scan; None: none
    cdef object _peer, _handshake, _scheme, _method
    cdef object _query                  # as it was sent; None: not known, or in an environ
    cdef object _about, _refusal        # of a peer that asks about another request
    cdef list _cookies                  # Set-Cookie pairs of a challenge that was solved; None: none
    cdef PyObject *_kept[KEPT]          # HeaderWalk.kept
    cdef EdgeHeaders _edge              # what the application sees of the headers; None: all, as they came
    cdef bint _strips, _edged           # whether the peer may not say those of `_edge`, and whether it has
    cdef bint _began, _walked
    cdef bint _owned                    # share rules say who may read the answer
    cdef bint _foreign_socket           # a page opens a WebSocket that is not granted to it
    cdef int _shared                    # gbf_shared
    cdef tuple _fields                  # header fields of what is granted; None: none
    cdef tuple _varies                  # names for Vary, in bytes
    cdef EngineState _state             # whose record rules decided; None: it has none
    cdef object _token                  # of the contextvar, while the trace is current
    cdef bint _timed                    # whether the time to the response's start is to be noted, for `_class`
    cdef uint32_t _class
    cdef uint64_t _began_at             # CLOCK_MONOTONIC, ns
    cdef bint _peeks                    # a decision made again: nobody is told, nothing counts
    cdef bint _leased                   # an open stream or WebSocket, which is decided again when something changes
    cdef readonly str lost              # why the lease is lost: "banned", "refused", "withheld"; None: it holds
    cdef uint64_t _seen                 # the change of bans up to which it is known to hold
    cdef EngineState _seen_state        # and the snapshot
    cdef readonly uint64_t events       # messages that a stream or WebSocket has sent
    cdef bint _counts                   # limits wait for the answer's status
    cdef int _sent                      # status of the response that was begun; 0: none was
    cdef readonly object path, mount, http, mode, decision, client
    cdef readonly str request_id
    cdef readonly bint failed
    cdef readonly int status            # of the response, once it is over; 0 before

    cdef object start(self)
    cdef object decide(self)
    cdef bint open(self, object trust, bint trusted, HeaderPlan plan, bint needed, int wanted, gbf_headers *scanned,
                   HeaderWalk *walk) except -1
    cdef int scan(self, HeaderPlan plan, int wanted, gbf_headers *scanned, HeaderWalk *walk) except -1
    cdef object decide_elsewhere(self, object trust, bint trusted)
    cdef Decision decide_here(self, EngineState state, object trust, bint trusted)
    cdef int outlive(self, SignalDecision d, gbf_headers *scanned, HeaderWalk *walk) except -1
    cdef int look(self) except -1
    cdef int look_again(self) except -1
    cdef object hold(self)
    cdef object handed(self, object headers)
    cdef list headers_for(self, object headers)
    cdef list texts_for(self, object headers)
    cdef bint lease(self, int status, object headers) except -1
    cdef bint holds_on(self) except -1
    cdef str loses_to(self, Exchange again)
    cdef object ask(self, bint *allowed)
    cdef int judged_as(self, int outcome) except -1
    cdef int settle(self) except -1
    cdef int enter_trace(self) except -1
    cdef int note_start(self, int status, object headers) except -1
    cdef int say_limits(self, Decision d, object response) except -1
    cdef int count_answer(self, int status) except -1
    cdef int count_foreign(self, Py_ssize_t foreign) except -1
    cdef int share_out(self, SignalDecision d) except -1
    cdef bint opens_socket(self) except -1
    cdef bytes origin_bytes(self)
    cdef object text_of(self, int which, str key)


cdef Exchange new_exchange(GuardCore guard, object headers, object peer, object method, object path, object mount,
                           object http, object scheme, object handshake, object mode)

# Whether a text equals a known one; servers and applications write those as literals: then they are the same object.
cdef bint same(object text, str known) except -1
