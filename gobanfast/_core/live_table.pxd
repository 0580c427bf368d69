from libc.stdint cimport uint32_t, uint64_t


cdef class LiveTable:
    cdef readonly tuple labels       # the words that rules name; word i is bit i of a mask
    cdef readonly uint32_t words     # of a row
    cdef readonly bytes unknown      # row of a request of which nobody knows labels and session
    cdef readonly bytes favour       # row that speaks for a preflight, which carries no session
    cdef readonly tuple varies       # names for Vary of what a session, or a label on it, has changed
    cdef readonly tuple queries      # names of query parameters that have a session
    cdef tuple _varies               # the same in bytes
    cdef readonly bint of_admit      # whether a rule about admission asks for a session, or a label
    cdef bytes _none                 # row of a request that carries no label
    cdef bytes _sessions             # rows of a session by SessionState
    cdef object _matcher
    cdef dict _rows                  # masks, as bytes -> row

    # ANDs what labels satisfy into a vector: a mask of words for each reading. Several values of a session are as many;
    # and what is on an AS or a fingerprint is carried under one, and under another not.
    cdef int and_labels(self, uint64_t *vector, const uint64_t *masks, uint32_t count) except -1
    cdef int and_session(self, uint64_t *vector, int state) noexcept
    cdef int and_favour(self, uint64_t *vector) noexcept
    cdef int and_unknown(self, uint64_t *vector) noexcept
