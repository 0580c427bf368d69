from libc.stdint cimport uint32_t, uint64_t

from gobanfast._core.headers cimport HeaderPlan
from gobanfast._core.native.http cimport gbf_values, gbf_headers


cdef class RequestTable:
    cdef readonly HeaderPlan plan
    cdef readonly uint32_t words
    cdef readonly int asks         # of a scan, beside the slots: Wanted
    cdef readonly str content_hash
    cdef readonly bint admit_asks_method  # a rule about admission does
    cdef tuple _matchers           # of the slots that rules require
    cdef Py_ssize_t _both_names    # which of them is that of server name and host; -1: none
    cdef bytes _slots              # uint32 each
    cdef bytes _longest            # uint32 each: bytes of a value that are read
    cdef tuple _natives            # OriginMatcher of each that a class of value is enough for, and its rows; or None
    cdef bytes _flags              # of each: OF_ADMIT, CARRIED
    cdef bytes _rows               # uint64: for each matcher ROWS; then unknown of all that are not _both_names
    cdef gbf_values _cache

    # ANDs into `vector` what headers, method and path satisfy, and the server name beside the host; `scratch` has as
    # many words. `scanned` comes from scan_request() with this table's plan (and the fingerprint), NULL: nothing is
    # known. It is not read any more once Python code runs. Gives the gbf_unparsable. Of a `preflight` what only the
    # request after it carries counts in its favour.
    cdef int and_rows(self, uint64_t *vector, uint64_t *scratch, const gbf_headers *scanned, str sni, object tls,
                      bint preflight) except -1

    # 1: the value is a path that is malformed.
    cdef int work_out(self, Py_ssize_t which, uint32_t slot, bytes value, bytes mount, uint64_t *vector) except -1
