from cpython.ref cimport PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from gobanfast._core.native.http cimport gbf_header_plan, gbf_headers, gbf_trace_headers


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


cdef enum:
    KEPT = 7  # slots from GBF_HEADER_HOST on: host, cookie, user-agent, accept, origin, and those of a preflight


# What the walk over the headers of a request takes along besides the scan. Of pairs: the values that outlive the scan,
# and the texts of named headers. Of an environ, which can be asked by name: references that keep what was scanned.
cdef struct HeaderWalk:
    bint shaped            # what the shape needs is noted, for gbf_headers_fingerprint() later
    PyObject *names        # dict: bytes -> str, of headers whose texts are picked; NULL: none
    uint64_t lengths       # of those names, a bit each: most others need no look at the dict; see pick_from()
    PyObject *picked       # dict that gets them: a str, or a list of them for settle_picked()
    PyObject **kept        # NULL, or gets KEPT strong references: bytes, or a bytearray of all values of a repeated one
    PyObject *hop          # frozenset of names that are of the last hop alone: picked, not scanned; NULL: none
    PyObject *rest         # list that gets the pairs of all others
    gbf_trace_headers *trace  # gets what propagators read; NULL: nobody does
    PyObject *edge         # EdgeHeaders, of which it is noted whether one that it takes out is there; NULL: none
    bint edged
    PyObject **held        # NULL, or gets strong references to key and value of each header: 2 * GBF_HEADERS_MOST
    Py_ssize_t held_count


# Reads `headers` (list or tuple of pairs of bytes, or a WSGI environ) into `out`, with what is `wanted` (Wanted).
# `flags` are what is known beforehand: GBF_HEADERS_HTTP1 or _HTTP2. The caller calls gbf_headers_free(), even if this
# raises. Texts in `out` are borrowed from the objects in `headers`: they hold until other Python code may run. `walk`
# may be NULL; it gets all headers, also those after one that makes the rest unreadable.
cdef int scan(object headers, const gbf_header_plan *plan, gbf_headers *out, int wanted, uint32_t flags,
              HeaderWalk *walk) except -1

# "gh2:..." and "gs1:..." of scanned headers, None when they had a problem or are not known.
cdef str fingerprint_text(const gbf_headers *scanned)
cdef str shape_of(const gbf_headers *scanned)

# `scan` for a decision in two steps: `headers` may be None (nobody knows them), `http` is the version or None; `method`
# and `path` win over pseudo headers, and `mount` is the prefix under which the path is. The texts in `out` are also
# borrowed from those.
cdef int scan_headers(object headers, str http, const gbf_header_plan *plan, gbf_headers *out, int wanted,
                      HeaderWalk *walk) except -1
cdef int set_target(str method, str path, str mount, gbf_headers *out) except -1

# Says by which scheme the request came, and which host it asks for: what a trusted proxy says in place of Host. None:
# nothing. Before set_target().
cdef int set_authority(str scheme, str host, gbf_headers *out) except -1

# Both in one, without mount.
cdef int scan_request(object headers, str method, str path, str http, const gbf_header_plan *plan, gbf_headers *out,
                      int wanted) except -1

# Reads what propagators read, and nothing else, of headers as `scan` takes them; texts are borrowed as there.
cdef int scan_traces(object headers, gbf_trace_headers *out) except -1

# Has the texts of the headers that `names` lists picked into `picked`; both are borrowed.
cdef int pick_from(HeaderWalk *walk, dict names, dict picked) noexcept

# Bytes of a slot, None where it is absent.
cdef bytes slot_bytes(const gbf_headers *scanned, uint32_t slot)

# Joins the values of repeated headers in HeaderWalk.picked by commas, in order.
cdef int settle_picked(dict picked) except -1

# Says under which prefix the path is; borrowed from `mount`, too. One that is no text makes the path malformed.
cdef int set_mount(str mount, gbf_headers *out) except -1
