from libc.stdint cimport uint8_t, uint32_t

from gobanfast._core.native.http cimport gbf_header_plan, gbf_headers


cdef class HeaderPlan:
    cdef gbf_header_plan _plan
    cdef readonly tuple names
    cdef readonly tuple fields
    cdef readonly tuple slots  # of `names`, in their order
    cdef readonly bint keyed


cdef class PartialHeaders:
    cdef readonly list pairs
    cdef readonly tuple names


cdef enum Wanted:  # of a scan, beside the slots
    SLOTS
    FINGERPRINT
    SHAPE  # and fingerprint


# Reads `headers` (list or tuple of pairs of bytes, or a WSGI environ) into `out`, with what is `wanted` (Wanted).
# `flags` are what is known beforehand: GBF_HEADERS_HTTP1 or _HTTP2. The caller calls gbf_headers_free(), even if this
# raises. Texts in `out` are borrowed from the objects in `headers`: they hold until other Python code may run.
cdef int scan(object headers, const gbf_header_plan *plan, gbf_headers *out, int wanted, uint32_t flags) except -1

# "gh2:..." and "gs1:..." of scanned headers, None when they had a problem or are not known.
cdef str print_of(const gbf_headers *scanned)
cdef str shape_of(const gbf_headers *scanned)

# `scan` for a decision: `headers` may be None (nobody knows them), `method` and `path` win over pseudo headers, `http`
# is the version or None. The texts in `out` are also borrowed from `method` and `path`.
cdef int scan_request(object headers, str method, str path, str http, const gbf_header_plan *plan, gbf_headers *out,
                      int wanted) except -1

# Says after `scan_request` under which prefix the path is; borrowed from `mount`, too. One that is no text makes the
# path malformed.
cdef int set_mount(str mount, gbf_headers *out) except -1
