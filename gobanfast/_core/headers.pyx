"""Header scan: values by slot, fingerprint gh2, shape gs1. Long because pairs and environs share one walk."""

cimport cython
from cpython.bytearray cimport (
    PyByteArray_AS_STRING, PyByteArray_FromStringAndSize, PyByteArray_GET_SIZE, PyByteArray_Resize,
)
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.dict cimport PyDict_GetItemWithError, PyDict_Next
from cpython.set cimport PySet_Contains
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from cpython.unicode cimport PyUnicode_DecodeLatin1
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from functools import lru_cache

from gobanfast._core import enums
from gobanfast._core.edge_headers cimport EdgeHeaders
from gobanfast._core.kernels import cpu_features

from gobanfast._core.made cimport only_whole
from gobanfast._core.native.base cimport GBF_BAD_INPUT, GBF_OK, gbf_fault, gbf_status
from gobanfast._core.native.hash cimport gbf_xxh3_pick
from gobanfast._core.native.http cimport (
    GBF_HEADERS_BAD_METHOD, GBF_HEADERS_BAD_PATH, GBF_HEADERS_BAD_VALUE, GBF_HEADERS_CASE, GBF_HEADERS_FINE,
    GBF_HEADERS_HTTP1, GBF_HEADERS_HTTP2, GBF_HEADERS_MOST, GBF_HEADERS_ORDER, GBF_HEADERS_PSEUDO, GBF_HEADERS_SECRET,
    GBF_HEADERS_SHAPED, GBF_HEADERS_TOO_MANY, GBF_HEADERS_UNKNOWN, GBF_HEADER_COOKIE, GBF_HEADER_FIELDS,
    GBF_HEADER_HOST, GBF_HEADER_METHOD, GBF_HEADER_NO_SLOT, GBF_HEADER_ORIGIN, GBF_HEADER_PATH, GBF_HEADER_PROTOCOL,
    GBF_HEADER_SCHEME, GBF_WRITE_NO, GBF_WRITE_UNKNOWN, GBF_WRITE_UNREAD, gbf_header_cross_write,
    GBF_FINGERPRINT_BYTES, GBF_HEADER_SLOTS, GBF_HEADER_USER_AGENT, gbf_header_path, gbf_header_plan,
    gbf_header_plan_build, gbf_header_plan_free, gbf_header_slot, gbf_header_slot_folded, gbf_header_tally,
    gbf_header_text, gbf_header_default_port, gbf_header_ua, gbf_headers, gbf_headers_add, gbf_headers_add_cgi,
    gbf_headers_fingerprint, gbf_headers_finish, gbf_headers_free, gbf_headers_set, gbf_headers_settle,
    gbf_headers_start, gbf_headers_text, GBF_TRACE_NO_FIELD, gbf_trace_add, gbf_trace_field, gbf_trace_field_of,
    gbf_trace_headers,
)

cdef extern from *:
    """
    /* Borrowed parts of a pair, without a reference count touched: 0 when it is no pair of bytes. */
    static inline int gbf_pair(PyObject *pair, PyObject **name, PyObject **value)
    {
        if (PyTuple_Check(pair) && PyTuple_GET_SIZE(pair) == 2) {
            *name = PyTuple_GET_ITEM(pair, 0);
            *value = PyTuple_GET_ITEM(pair, 1);
        } else if (PyList_Check(pair) && PyList_GET_SIZE(pair) == 2) {
            *name = PyList_GET_ITEM(pair, 0);
            *value = PyList_GET_ITEM(pair, 1);
        } else {
            return 0;
        }
        return PyBytes_Check(*name) && PyBytes_Check(*value);
    }
    /* The characters of a str as Latin-1, borrowed; 0 when it has others. */
    static inline int gbf_latin1(PyObject *text, const uint8_t **start, Py_ssize_t *n)
    {
        if (!PyUnicode_Check(text) || PyUnicode_KIND(text) != PyUnicode_1BYTE_KIND)
            return 0;
        *start = (const uint8_t *)PyUnicode_1BYTE_DATA(text);
        *n = PyUnicode_GET_LENGTH(text);
        return 1;
    }
    #define gbf_rows_of(rows) PySequence_Fast_ITEMS(rows)
    #define gbf_row_count(rows) PySequence_Fast_GET_SIZE(rows)
    """
    int gbf_pair(PyObject *pair, PyObject **name, PyObject **value) noexcept
    int gbf_latin1(PyObject *text, const uint8_t **start, Py_ssize_t *n) noexcept
    PyObject **gbf_rows_of(object rows) noexcept
    Py_ssize_t gbf_row_count(object rows) noexcept
    const char *PyUnicode_AsUTF8AndSize(str text, Py_ssize_t *n) except NULL
    str PyUnicode_New(Py_ssize_t size, Py_UCS4 most)
    void *PyUnicode_DATA(object text) noexcept
    char *bytes_at "PyBytes_AS_STRING"(PyObject *text) noexcept
    Py_ssize_t bytes_length "PyBytes_GET_SIZE"(PyObject *text) noexcept
    int is_bytes "PyBytes_CheckExact"(PyObject *text) noexcept
    int is_kind_of_bytes "PyBytes_Check"(PyObject *text) noexcept


# Lengths of the names that propagators read, a bit each: b3, baggage, x-b3-flags, tracestate, traceparent,
# x-b3-spanid, x-b3-traceid, x-b3-sampled, x-b3-parentspanid.
cdef uint64_t TRACE_LENGTHS = 1 << 2 | 1 << 7 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 17

UA_FAMILIES = (
    "bot", "edge", "opera", "firefox", "chrome", "safari", "curl", "wget", "python", "go", "java", "other",
)
"""What a user agent may claim to be; where it claims several, the first of these counts."""

NO_ENVIRON = "headers is a dict and no WSGI environ; write pairs of bytes: [(b'user-agent', b'curl/8.5.0')]"

PROBLEMS = (
    None, "more than 256 headers", "more than 65536 bytes of names and values", "a name that is no token",
    "a control byte in a value", "a pseudo header out of place", "upper case in an HTTP/2 name",
    "two hosts",
)


@cython.final
cdef class HeaderPlan:
    """Which headers are looked for, and what makes a fingerprint. Frozen; any number of threads.

    Args:
        names: headers that get a slot besides the fields; lower case, up to 64 bytes each.
        fields: headers whose values are in the fingerprint; at most 32.
        key: makes fingerprints and shapes private: who has not got it can neither make nor check one. None: shareable
            ones.
    Raises:
        ValueError: a name that is not a lower-case token, too many, or a field that no fingerprint may have.
    """

    @staticmethod
    def _make(names=(), fields=enums.FIELDS, *, bytes key=None):
        cdef gbf_header_text asked[GBF_HEADER_SLOTS]
        cdef gbf_header_text wanted[GBF_HEADER_FIELDS]
        cdef uint8_t slots[GBF_HEADER_SLOTS]
        cdef gbf_fault fault
        cdef gbf_status status
        cdef bytes secret = None
        cdef const uint8_t *secret_data = NULL
        cdef uint32_t features = 0
        cdef gbf_header_plan built
        cdef HeaderPlan plan
        names, fields = tuple(names), tuple(fields)
        asked_texts = [name.encode() for name in names]
        field_texts = [name.encode() for name in fields]
        if len(asked_texts) > GBF_HEADER_SLOTS or len(field_texts) > GBF_HEADER_FIELDS:
            raise ValueError(f"{len(asked_texts)} names and {len(field_texts)} fields; at most {GBF_HEADER_SLOTS} and "
                             f"{GBF_HEADER_FIELDS} have room")
        for i in range(len(asked_texts)):
            asked[i] = text_span(asked_texts[i])
        for i in range(len(field_texts)):
            wanted[i] = text_span(field_texts[i])
        if key is not None:
            secret = secret_of(key)
            secret_data = secret
            features = <uint32_t>cpu_features(None)
        status = gbf_header_plan_build(&built, asked, <uint32_t>len(asked_texts), wanted,
                                       <uint32_t>len(field_texts), secret_data,
                                       gbf_xxh3_pick(features), slots, &fault)
        if status != GBF_OK:
            if status == GBF_BAD_INPUT:
                name = (asked_texts + field_texts)[fault.offset].decode()
                raise ValueError(f"header {name!r} {fault.what.decode()}")
            raise MemoryError()
        numbers = tuple([slots[i] for i in range(len(asked_texts))])
        plan = HeaderPlan.__new__(HeaderPlan)
        plan._plan, plan.names, plan.fields, plan.slots, plan.keyed = built, names, fields, numbers, key is not None
        return plan

    def __dealloc__(self):
        gbf_header_plan_free(&self._plan)

    def fingerprint(self, headers, /):
        """The gh2 fingerprint of headers, as `gobanfast.fingerprint`, by the fields and key of this plan."""
        cdef gbf_headers scanned
        try:
            scan(headers, &self._plan, &scanned, FINGERPRINT, 0, NULL)
            return fingerprint_text(&scanned)
        finally:
            gbf_headers_free(&scanned)

    def shape(self, headers, str http=None, /):
        """The gs1 shape of a request that came by this HTTP version (None: not known) with these headers."""
        cdef gbf_headers scanned
        try:
            scan(headers, &self._plan, &scanned, SHAPE, 0 if http is None else version_flags(http), NULL)
            return shape_of(&scanned)
        finally:
            gbf_headers_free(&scanned)

    def value(self, headers, str name not None, /):
        """Bytes that a header comes to (repeated values joined), None when it is not there or nothing can be read.

        Raises:
            KeyError: a name that the plan has no slot for.
        """
        cdef gbf_headers scanned
        cdef bytes text = name.encode()
        cdef uint32_t slot = gbf_header_slot(&self._plan, <const uint8_t *><const char *>text, <uint32_t>len(text))
        if slot == GBF_HEADER_NO_SLOT:
            raise KeyError(name)
        try:
            scan(headers, &self._plan, &scanned, SLOTS, 0, NULL)
            return slot_bytes(&scanned, slot)
        finally:
            gbf_headers_free(&scanned)

    def signal(self, str name not None, headers, str method, str path, str http, /, *, str scheme=None, str host=None):
        """(bytes or None, whether it is malformed): what a header, ":method", ":path", ":fingerprint", ":shape",
        ":origin", ":host" (the port that the scheme implies, a line feed and the host) or ":cross_origin_write" ("1",
        "0"; None: not known) comes to. `scheme` and `host` are as for `Engine.decide`."""
        cdef gbf_headers scanned
        cdef uint32_t slot
        cdef int write
        try:
            scan_headers(headers, http, &self._plan, &scanned, SHAPE, NULL)
            set_authority(scheme, host, &scanned)
            set_target(method, path, None, &scanned)
            if name == ":cross_origin_write":
                write = gbf_header_cross_write(&scanned)
                if write == GBF_WRITE_UNKNOWN or write == GBF_WRITE_UNREAD:
                    return None, write == GBF_WRITE_UNREAD
                return b"0" if write == GBF_WRITE_NO else b"1", False
            if name == ":method" or name == ":path":
                slot = GBF_HEADER_METHOD if name == ":method" else GBF_HEADER_PATH
                if scanned.tally.seen >> slot & 1:
                    return span_bytes(scanned.slots[slot]), False
                return None, (scanned.tally.flags & (GBF_HEADERS_BAD_METHOD | GBF_HEADERS_BAD_PATH)) != 0
            if scanned.problem != GBF_HEADERS_FINE:
                return None, True
            if name == ":fingerprint" or name == ":shape":
                hash_text = fingerprint_text(&scanned) if name == ":fingerprint" else shape_of(&scanned)
                return None if hash_text is None else hash_text.encode(), False
            if name == ":origin":
                return slot_bytes(&scanned, GBF_HEADER_ORIGIN), False
            if name == ":host":
                text = slot_bytes(&scanned, GBF_HEADER_HOST)
                port = b"%d" % scanned.default_port if scanned.default_port != 0 else b""
                return None if text is None else port + b"\n" + text, False
            return slot_bytes(&scanned, self.slots[self.names.index(name)]), False
        finally:
            gbf_headers_free(&scanned)

    def facts(self, headers, str http=None, /):
        """Everything the scan finds, as a dict: what `normalize_headers` makes an object of."""
        cdef gbf_headers scanned
        try:
            scan(headers, &self._plan, &scanned, SHAPE, 0 if http is None else version_flags(http), NULL)
            path = slot_bytes(&scanned, GBF_HEADER_PATH)
            if path is not None:
                path = span_bytes(gbf_header_path(scanned.slots[GBF_HEADER_PATH])).partition(b"#")[0] or None
            return {
                "method": slot_bytes(&scanned, GBF_HEADER_METHOD),
                "authority": slot_bytes(&scanned, GBF_HEADER_HOST),
                "path": path,
                "scheme": slot_bytes(&scanned, GBF_HEADER_SCHEME),
                "protocol": slot_bytes(&scanned, GBF_HEADER_PROTOCOL),
                "order_known": bool(scanned.tally.flags & GBF_HEADERS_ORDER),
                "case_known": bool(scanned.tally.flags & GBF_HEADERS_CASE),
                "pseudo_known": bool(scanned.tally.flags & GBF_HEADERS_PSEUDO),
                "has_cookie": bool(scanned.tally.seen >> GBF_HEADER_COOKIE & 1),
                "ua_family": family_of(&scanned),
                "problem": PROBLEMS[scanned.problem],
                "fingerprint": fingerprint_text(&scanned),
                "shape": shape_of(&scanned),
            }
        finally:
            gbf_headers_free(&scanned)


@cython.final
cdef class PartialHeaders:
    """Headers of a source that keeps only some: `names` are known, absent where `pairs` has them not; others are
    unknown, so that no condition on them holds. A decision takes them in the place of headers."""

    @staticmethod
    def _make(list pairs not None, tuple names not None):
        cdef PartialHeaders made = PartialHeaders.__new__(PartialHeaders)
        made.pairs, made.names = pairs, names
        return made


only_whole(HeaderPlan)
only_whole(PartialHeaders)


cdef inline gbf_header_text text_span(bytes text):
    cdef gbf_header_text span
    span.at, span.nbytes = text, <uint32_t>min(len(text), <Py_ssize_t>0xFFFF)
    return span


cdef bytes span_bytes(gbf_header_text span):
    return PyBytes_FromStringAndSize(<const char *>span.at, span.nbytes)


cdef bytes slot_bytes(const gbf_headers *scanned, uint32_t slot):
    if scanned.problem != GBF_HEADERS_FINE or not scanned.tally.seen >> slot & 1:
        return None
    return span_bytes(scanned.slots[slot])


cdef str family_of(const gbf_headers *scanned):
    if scanned.problem != GBF_HEADERS_FINE or not scanned.tally.seen >> GBF_HEADER_USER_AGENT & 1:
        return None
    return UA_FAMILIES[gbf_header_ua(scanned.slots[GBF_HEADER_USER_AGENT])]


cdef bytes secret_of(bytes key):
    """The XXH3 secret of a key: SHAKE-256, so that no part of the secret says anything about another or the key."""
    from hashlib import shake_256

    return shake_256(b"gobanfast gh2\0" + key).digest(GBF_HEADERS_SECRET)


cdef str fingerprint_text(const gbf_headers *scanned):
    if scanned.problem != GBF_HEADERS_FINE or scanned.tally.flags & GBF_HEADERS_UNKNOWN:
        return None
    text = PyUnicode_New(GBF_FINGERPRINT_BYTES, 127)
    gbf_headers_text(scanned.fingerprint, "gh2:", <char *>PyUnicode_DATA(text))
    return text


cdef str shape_of(const gbf_headers *scanned):
    if scanned.problem != GBF_HEADERS_FINE or scanned.tally.flags & GBF_HEADERS_UNKNOWN:
        return None
    text = PyUnicode_New(GBF_FINGERPRINT_BYTES, 127)
    gbf_headers_text(scanned.shape, "gs1:", <char *>PyUnicode_DATA(text))
    return text


cdef int scan(object headers, const gbf_header_plan *plan, gbf_headers *out, int wanted, uint32_t flags,
              HeaderWalk *walk) except -1:
    cdef gbf_status status
    if wanted == SHAPE or (walk != NULL and walk.shaped):
        flags |= GBF_HEADERS_SHAPED
    if isinstance(headers, (list, tuple)):
        gbf_headers_start(out, flags | GBF_HEADERS_ORDER)
        status = scan_rows(gbf_rows_of(headers), gbf_row_count(headers), plan, out, walk)
    elif isinstance(headers, PartialHeaders):
        scan((<PartialHeaders>headers).pairs, plan, out, SLOTS, flags, NULL)
        out.tally.flags |= GBF_HEADERS_UNKNOWN
        for name in (<PartialHeaders>headers).names:
            out.known |= known_bit(plan, name)
        return 0
    else:
        gbf_headers_start(out, flags)
        if not isinstance(headers, dict):
            raise TypeError(f"headers is {type(headers).__name__}, not a list of (name, value) bytes or a WSGI environ")
        status = scan_environ(headers, plan, out, walk)
    if status == GBF_OK:
        status = gbf_headers_finish(plan, out)
    if status == GBF_OK and wanted != SLOTS and out.problem == GBF_HEADERS_FINE:
        status = gbf_headers_fingerprint(plan, out)
    if status != GBF_OK:
        raise MemoryError()
    return 0


cdef uint64_t known_bit(const gbf_header_plan *plan, str name) except? 0:
    cdef bytes text = name.encode()
    cdef uint32_t slot = gbf_header_slot(plan, <const uint8_t *><const char *>text, <uint32_t>len(text))
    return 0 if slot == GBF_HEADER_NO_SLOT else <uint64_t>1 << slot


cdef inline uint32_t version_flags(str http) except 0xFFFFFFFF:
    """What a version says about the headers; nothing when there is none such, as servers pass on what they are sent."""
    cdef Py_UCS4 first = http[0] if len(http) != 0 else 0
    if first == u"1":
        return GBF_HEADERS_HTTP1
    return GBF_HEADERS_HTTP2 if first == u"2" or first == u"3" else 0


cdef int scan_headers(object headers, str http, const gbf_header_plan *plan, gbf_headers *out, int wanted,
                      HeaderWalk *walk) except -1:
    cdef uint32_t flags = 0 if http is None else version_flags(http)
    if headers is None:
        gbf_headers_start(out, flags | GBF_HEADERS_UNKNOWN)
        return 0
    scan(headers, plan, out, wanted, flags, walk)
    if out.problem != GBF_HEADERS_FINE:
        out.tally.seen = 0
    return 0


cdef int scan_traces(object headers, gbf_trace_headers *out) except -1:
    cdef PyObject *name = NULL
    cdef PyObject *value = NULL
    cdef PyObject **rows
    cdef const uint8_t *key = NULL
    cdef const uint8_t *text = NULL
    cdef Py_ssize_t i, at = 0, key_bytes = 0, text_bytes = 0
    if isinstance(headers, PartialHeaders):
        headers = (<PartialHeaders>headers).pairs
    if isinstance(headers, (list, tuple)):
        rows = gbf_rows_of(headers)
        for i in range(min(gbf_row_count(headers), <Py_ssize_t>GBF_HEADERS_MOST)):
            if not gbf_pair(rows[i], &name, &value):
                raise TypeError(f"header {i} is {repr(<object>rows[i])[:80]}, not a pair of bytes (name, value)")
            if TRACE_LENGTHS >> (bytes_length(name) & 63) & 1:
                take_trace(out, <const uint8_t *>bytes_at(name), bytes_length(name), False,
                           <const uint8_t *>bytes_at(value), bytes_length(value))
    elif isinstance(headers, dict):
        if "REQUEST_METHOD" not in headers and "wsgi.version" not in headers and headers:
            raise TypeError(NO_ENVIRON)
        while PyDict_Next(headers, &at, &name, &value):
            if (gbf_latin1(name, &key, &key_bytes) and key_bytes > 5 and TRACE_LENGTHS >> ((key_bytes - 5) & 63) & 1
                    and memcmp(key, b"HTTP_", 5) == 0 and gbf_latin1(value, &text, &text_bytes)):
                take_trace(out, key, key_bytes, True, text, text_bytes)
    elif headers is not None:
        raise TypeError(f"headers is {type(headers).__name__}, not a list of (name, value) bytes or a WSGI environ")
    return 0


cdef int set_target(str method, str path, str mount, gbf_headers *out) except -1:
    if method is not None:
        set_text(method, GBF_HEADER_METHOD, out)
    if path is not None:
        set_text(path, GBF_HEADER_PATH, out)
    gbf_headers_settle(out)
    if mount is not None and len(mount) != 0:
        set_mount(mount, out)
    return 0


cdef int set_authority(str scheme, str host, gbf_headers *out) except -1:
    cdef const char *text
    cdef Py_ssize_t nbytes
    if scheme is not None and scheme.isascii():
        text = PyUnicode_AsUTF8AndSize(scheme, &nbytes)
        out.default_port = gbf_header_default_port(<const uint8_t *>text, <uint64_t>nbytes)
    elif scheme is None and out.tally.seen >> GBF_HEADER_SCHEME & 1:
        out.default_port = gbf_header_default_port(out.slots[GBF_HEADER_SCHEME].at, out.slots[GBF_HEADER_SCHEME].nbytes)
    if host is not None and out.problem == GBF_HEADERS_FINE:
        set_text(host, GBF_HEADER_HOST, out)
        out.known |= <uint64_t>1 << GBF_HEADER_HOST
    return 0


cdef int scan_request(object headers, str method, str path, str http, const gbf_header_plan *plan, gbf_headers *out,
                      int wanted) except -1:
    scan_headers(headers, http, plan, out, wanted, NULL)
    return set_target(method, path, None, out)


cdef int set_text(str text, uint32_t slot, gbf_headers *out) except -1:
    """A str as UTF-8 into a slot; what has no UTF-8 is as malformed as an empty text."""
    cdef Py_ssize_t nbytes = 0
    cdef const char *start
    try:
        start = PyUnicode_AsUTF8AndSize(text, &nbytes)
    except UnicodeEncodeError:
        start, nbytes = "", 0
    gbf_headers_set(out, slot, <const uint8_t *>start, <uint32_t>min(nbytes, <Py_ssize_t>0xFFFFFFF))
    return 0


cdef int set_mount(str mount, gbf_headers *out) except -1:
    cdef Py_ssize_t nbytes = 0
    cdef const char *start
    try:
        start = PyUnicode_AsUTF8AndSize(mount, &nbytes)
    except UnicodeEncodeError:
        out.tally.flags |= GBF_HEADERS_BAD_PATH
        out.tally.seen &= ~(<uint64_t>1 << GBF_HEADER_PATH)
        return 0
    out.mount.at, out.mount.nbytes = <const uint8_t *>start, <uint32_t>min(nbytes, <Py_ssize_t>0xFFFFFFF)
    return 0


cdef inline gbf_status scan_rows(PyObject **rows, Py_ssize_t count, const gbf_header_plan *plan, gbf_headers *out,
                                 HeaderWalk *walk) except *:
    cdef PyObject *name = NULL
    cdef PyObject *value = NULL
    cdef Py_ssize_t i
    cdef gbf_header_tally tally = out.tally
    cdef gbf_status status = GBF_OK
    cdef uint32_t slot = GBF_HEADER_NO_SLOT
    cdef bint picks = walk != NULL and walk.names != NULL
    cdef bint looks = walk != NULL and walk.edge != NULL
    cdef bint traces = walk != NULL and walk.trace != NULL
    cdef bint special = picks or looks or traces  # one question a header, for most have none
    if count > GBF_HEADERS_MOST and (walk == NULL or walk.hop == NULL):
        out.problem = GBF_HEADERS_TOO_MANY
    for i in range(count):
        if out.problem != GBF_HEADERS_FINE or status != GBF_OK:
            if walk == NULL:
                break
            if not gbf_pair(rows[i], &name, &value):
                continue
        elif not gbf_pair(rows[i], &name, &value):
            raise TypeError(f"header {i} is {repr(<object>rows[i])[:80]}, not a pair of bytes (name, value)")
        if special:
            if looks and not walk.edged:
                walk.edged = (<EdgeHeaders>walk.edge).names(<const uint8_t *>bytes_at(name), bytes_length(name))
            if picks:
                if walk.lengths >> (bytes_length(name) & 63) & 1:
                    pick(walk, name, value)
                if walk.hop != NULL:
                    if PySet_Contains(<object>walk.hop, <object>name):
                        continue
                    (<list>walk.rest).append(<object>rows[i])
                    if len(<list>walk.rest) > GBF_HEADERS_MOST:
                        out.problem = GBF_HEADERS_TOO_MANY
            if traces and TRACE_LENGTHS >> (bytes_length(name) & 63) & 1:
                take_trace(walk.trace, <const uint8_t *>bytes_at(name), bytes_length(name), False,
                           <const uint8_t *>bytes_at(value), bytes_length(value))
        if out.problem == GBF_HEADERS_FINE and status == GBF_OK:
            status = gbf_headers_add(plan, out, &tally, <const uint8_t *>bytes_at(name), <uint64_t>bytes_length(name),
                                     <const uint8_t *>bytes_at(value), <uint64_t>bytes_length(value))
            slot = tally.slot
        if walk == NULL or walk.kept == NULL:
            continue
        if out.problem != GBF_HEADERS_FINE:
            slot = gbf_header_slot_folded(plan, <const uint8_t *>bytes_at(name), <uint64_t>bytes_length(name))
        slot -= GBF_HEADER_HOST
        if slot < KEPT:
            if walk.kept[slot] == NULL:
                Py_INCREF(<object>value)
                walk.kept[slot] = value
            else:
                keep_more(walk, slot, value)
    out.tally = tally
    return status


cdef inline int take_trace(gbf_trace_headers *trace, const uint8_t *name, Py_ssize_t name_bytes, bint cgi,
                           const uint8_t *value, Py_ssize_t value_bytes) noexcept:
    cdef uint8_t first = name[5 if cgi else 0] | 0x20
    cdef gbf_trace_field field
    if first != c"t" and first != c"b" and first != c"x":
        return 0
    field = gbf_trace_field_of(name, <uint64_t>name_bytes, cgi)
    if field != GBF_TRACE_NO_FIELD:
        gbf_trace_add(trace, field, value, <uint64_t>value_bytes)
    return 0


cdef int keep_more(HeaderWalk *walk, uint32_t which, PyObject *value) except -1:
    """Keeps a further value. Makes nothing that could set the garbage collector off: that runs Python code."""
    cdef Py_ssize_t length
    cdef bytes between
    cdef char *end
    if is_kind_of_bytes(walk.kept[which]):
        first = <object>walk.kept[which]
        joined = PyByteArray_FromStringAndSize(bytes_at(walk.kept[which]), bytes_length(walk.kept[which]))
        Py_INCREF(joined)
        walk.kept[which] = <PyObject *>joined
        Py_DECREF(first)
    joined = <object>walk.kept[which]
    between = b"; " if which == GBF_HEADER_COOKIE - GBF_HEADER_HOST else b","
    length = PyByteArray_GET_SIZE(joined)
    PyByteArray_Resize(joined, length + len(between) + bytes_length(value))
    end = PyByteArray_AS_STRING(joined) + length
    memcpy(end, <const char *>between, len(between))
    memcpy(end + len(between), bytes_at(value), bytes_length(value))
    return 0


cdef int pick(HeaderWalk *walk, PyObject *name, PyObject *value) except -1:
    """Takes the text of a header whose name is asked for."""
    cdef dict picked = <dict>walk.picked
    cdef PyObject *known
    cdef PyObject *before
    cdef const char *at = bytes_at(name)
    cdef Py_ssize_t i, length = bytes_length(name)
    cdef bint upper = False
    for i in range(length):
        upper |= c"A" <= at[i] <= c"Z"
    exact = <object>name if is_bytes(name) and not upper else PyBytes_FromStringAndSize(at, length).lower()
    known = PyDict_GetItemWithError(<object>walk.names, exact)
    if known == NULL:
        return 0
    text = PyUnicode_DecodeLatin1(bytes_at(value), bytes_length(value), NULL)
    before = PyDict_GetItemWithError(picked, <object>known)
    if before == NULL:
        picked[<object>known] = text
    elif type(<object>before) is list:
        (<list>before).append(text)
    else:
        picked[<object>known] = [<object>before, text]
    return 0


cdef int pick_from(HeaderWalk *walk, dict names, dict picked) noexcept:
    cdef PyObject *name
    cdef PyObject *text
    cdef Py_ssize_t at = 0
    walk.names, walk.picked, walk.lengths = <PyObject *>names, <PyObject *>picked, 0
    while PyDict_Next(names, &at, &name, &text):
        walk.lengths |= <uint64_t>1 << (bytes_length(name) & 63)
    return 0


cdef int settle_picked(dict picked) except -1:
    """Joins the values of repeated headers by commas, in order."""
    for name, text in picked.items():
        if type(text) is list:
            picked[name] = ",".join(text)
    return 0


cdef gbf_status scan_environ(dict environ, const gbf_header_plan *plan, gbf_headers *out, HeaderWalk *walk) except *:
    cdef const uint8_t *name = NULL
    cdef const uint8_t *value = NULL
    cdef Py_ssize_t name_bytes = 0, value_bytes = 0, at = 0, count = 0
    cdef PyObject *key
    cdef PyObject *held
    cdef gbf_header_tally tally = out.tally
    cdef gbf_status status = GBF_OK
    cdef uint32_t slot
    while status == GBF_OK and out.problem == GBF_HEADERS_FINE and PyDict_Next(environ, &at, &key, &held):
        if not gbf_latin1(key, &name, &name_bytes):
            continue
        slot = cgi_slot(name, name_bytes)
        if slot == GBF_HEADER_NO_SLOT:
            continue
        if walk != NULL and walk.edge != NULL and slot == GBF_HEADER_SLOTS and not walk.edged and name[0] == 72:
            walk.edged = (<EdgeHeaders>walk.edge).names(name + 5, name_bytes - 5)
        if walk != NULL and walk.held != NULL and walk.held_count < 2 * GBF_HEADERS_MOST and slot != GBF_HEADER_PATH:
            Py_INCREF(<object>key)
            Py_INCREF(<object>held)
            walk.held[walk.held_count], walk.held[walk.held_count + 1] = key, held
            walk.held_count += 2
        if not gbf_latin1(held, &value, &value_bytes):
            if slot == GBF_HEADER_PATH:  # Django decodes it; no header is the worse for it
                gbf_headers_set(out, slot, <const uint8_t *>"", 0)
                tally.seen |= out.tally.seen
            else:
                out.problem = GBF_HEADERS_BAD_VALUE
        elif slot != GBF_HEADER_SLOTS:
            if value_bytes > 0:
                gbf_headers_set(out, slot, value, <uint32_t>min(value_bytes, <Py_ssize_t>0xFFFFFFF))
                tally.seen |= out.tally.seen
        elif count == GBF_HEADERS_MOST:
            out.problem = GBF_HEADERS_TOO_MANY
        elif name[0] == 72:  # HTTP_
            count += 1
            if walk != NULL and walk.trace != NULL and TRACE_LENGTHS >> ((name_bytes - 5) & 63) & 1:
                take_trace(walk.trace, name, name_bytes, True, value, value_bytes)
            status = gbf_headers_add_cgi(plan, out, &tally, name + 5, <uint64_t>(name_bytes - 5), value,
                                         <uint64_t>value_bytes)
        elif value_bytes > 0:  # CGI has CONTENT_LENGTH even where the request has none
            count += 1
            status = gbf_headers_add_cgi(plan, out, &tally, name, <uint64_t>name_bytes, value, <uint64_t>value_bytes)
    if walk != NULL and out.problem != GBF_HEADERS_FINE:
        walk.edged = walk.edge != NULL  # the rest was not looked at
    if (count == 0 and tally.seen == 0 and out.problem == GBF_HEADERS_FINE and environ and
            environ.keys().isdisjoint(("REQUEST_METHOD", "wsgi.version"))):
        raise TypeError(NO_ENVIRON)
    out.tally = tally
    return status


cdef uint32_t cgi_slot(const uint8_t *name, Py_ssize_t nbytes) noexcept:
    """GBF_HEADER_SLOTS for a header, the slot of method and path, GBF_HEADER_NO_SLOT for everything else."""
    if nbytes > 5 and memcmp(name, b"HTTP_", 5) == 0:
        return GBF_HEADER_SLOTS
    if nbytes == 12 and memcmp(name, b"CONTENT_TYPE", 12) == 0:
        return GBF_HEADER_SLOTS
    if nbytes == 14 and memcmp(name, b"CONTENT_LENGTH", 14) == 0:
        return GBF_HEADER_SLOTS
    if nbytes == 14 and memcmp(name, b"REQUEST_METHOD", 14) == 0:
        return GBF_HEADER_METHOD
    if nbytes == 9 and memcmp(name, b"PATH_INFO", 9) == 0:
        return GBF_HEADER_PATH
    return GBF_HEADER_NO_SLOT


_default = HeaderPlan()


def user_agent_family(bytes agent not None, /):
    """The family that a user agent claims, one of UA_FAMILIES."""
    return UA_FAMILIES[gbf_header_ua(text_span(agent))]


@lru_cache(8)
def plan_of(key, fields):
    """A HeaderPlan for these; the last few are kept."""
    return HeaderPlan((), fields, key=key)


def fingerprint(headers, /, *, key=None, fields=None):
    """"gh2:" and 32 hex digits that name the client these headers come from; None when they cannot be read.

    It is the same for every request of one browser, and for lists and environs: it takes what a client says of itself
    and nothing of what it asks for, see csrc/DESIGN.md.

    Args:
        headers: list of (name, value) bytes in the order received, or a WSGI environ.
        key: bytes that make the fingerprint private; without it anyone can compute the same one.
        fields: names of the headers whose values count; None takes the usual ones.
    Raises:
        TypeError: headers of another type. ValueError: a field that cannot be one.
    Cost: about 10 ns a header. A key or fields cost a new HeaderPlan unless it was the last one used; keep your own.
    Source: csrc/DESIGN.md, "Fingerprint gh2, shape gs1".
    """
    if key is None and fields is None:
        return (<HeaderPlan>_default).fingerprint(headers)
    return plan_of(key, enums.FIELDS if fields is None else tuple(fields)).fingerprint(headers)
