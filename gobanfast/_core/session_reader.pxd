from libc.stdint cimport uint8_t, uint32_t

from gobanfast._core.headers cimport HeaderPlan
from gobanfast._core.native.http cimport GBF_SESSION_VALUES, gbf_headers, gbf_session_values
from gobanfast._core.native.state cimport gbf_ban_key

cdef enum:
    MOST_KEYS = 8


cdef enum SessionState:
    SESSION_UNKNOWN  # nobody knows the headers
    SESSION_ABSENT
    SESSION_PRESENT
    SESSION_MALFORMED


# What a request says of its session, and the keys of its values: `asked` of each, under every secret, the first first.
cdef struct Session:
    int state
    uint32_t values, asked
    gbf_ban_key key[GBF_SESSION_VALUES * MOST_KEYS]


cdef class SessionReader:
    cdef readonly HeaderPlan plan
    cdef readonly tuple sources
    cdef tuple _kinds, _names
    cdef uint32_t _slots[16]
    cdef uint8_t _secret[MOST_KEYS][16]
    cdef uint32_t _id[MOST_KEYS]
    cdef uint32_t _count

    # Reads the session of scanned headers and a query (bytes or str, or None). What it borrows, it has hashed already.
    cdef int read(self, const gbf_headers *scanned, object query, Session *out) except -1
    cdef int hash_value(self, object value, Session *out) except -1  # of a value that the application says
    cdef int hash_all(self, const gbf_session_values *values, Session *out) noexcept
