"""RequestTable: headers, method and path to the bit vector of rules that they satisfy."""

cimport cython
from cpython.ref cimport Py_XDECREF, PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from gobanfast._core.headers cimport FINGERPRINT, SHAPE, SLOTS, HeaderPlan, scan_request, set_mount
from gobanfast._core.made cimport only_whole
from gobanfast._core.connection_table cimport read_server_name
from gobanfast._core.origin_set cimport OriginMatcher
from gobanfast._core.client_hello cimport ClientHello
from gobanfast._core.native.base cimport (
    GBF_OK, GBF_UNPARSABLE_HEADERS, GBF_UNPARSABLE_HELLO, GBF_UNPARSABLE_METHOD, GBF_UNPARSABLE_NONE,
    GBF_UNPARSABLE_PATH, GBF_UNPARSABLE_SNI,
)
from gobanfast._core.native.hash cimport gbf_hash128, gbf_xxh3_pick
from gobanfast._core.native.http cimport (
    GBF_VALUES_SECRET, GBF_HEADER_HOST, GBF_HEADER_METHOD, GBF_HEADER_PATH, GBF_HEADER_SLOTS, GBF_HEADERS_BAD_METHOD,
    GBF_HEADERS_BAD_PATH, GBF_HEADERS_FINE, GBF_HEADERS_UNKNOWN, GBF_HEADER_ORIGIN, GBF_WRITE_NO, GBF_WRITE_UNKNOWN,
    GBF_WRITE_UNREAD, GBF_FINGERPRINT_BYTES, gbf_header_cross_write, gbf_values, gbf_values_and,
    gbf_values_free, gbf_values_hash, gbf_values_make, gbf_values_missed, gbf_values_nbytes, gbf_values_put,
    gbf_values_under, gbf_header_text, gbf_headers, gbf_headers_free, gbf_headers_text,
)
from gobanfast._core.native.name cimport GBF_NAME_MAX, gbf_name, gbf_name_fold_scalar
from gobanfast._core.native.rules cimport GBF_ROW_KNOWN, GBF_ROW_MALFORMED, gbf_bits_and
from gobanfast._core.native.tls cimport GBF_HELLO_OK

from gobanfast._core.kernels import cpu_features

cdef extern from "Python.h":
    PyObject *bytes_of "PyBytes_FromStringAndSize"(const char *text, Py_ssize_t nbytes) except NULL

CACHE_BYTES = 1 << 20
"""What remembered values may take in memory, whatever is sent."""

CARRIED_NAMES = ("cookie", "authorization", ":fingerprint", ":shape")
"""What a preflight has not, or has of its own, and the request after it brings."""

cdef enum:
    MOST = GBF_HEADER_SLOTS + 6  # slots that rules may ask for, these six among them
    OF_CLIENT = GBF_HEADER_SLOTS  # the fingerprint
    OF_REQUEST  # the shape
    BOTH_NAMES
    OF_PAGE  # the origin
    OF_SERVICE  # the host, beside the port that its scheme implies
    CROSS_WRITE
    HOST_BYTES = GBF_NAME_MAX + 16  # of a host, which is longer than any with a port can be
    UNKNOWN_ROW = 0
    ABSENT_ROW
    MALFORMED_ROW
    FAVOUR_ROW
    ROWS
    OF_ADMIT = 1  # a rule of that effect asks for it, so that it can make a request unparsable
    CARRIED = 2  # only the request after a preflight has it


cdef const char *WRITES = "01"


cdef struct host_text:  # the port of a scheme and the host as one value
    uint32_t nbytes
    uint8_t text[4 + HOST_BYTES]


cdef struct names_text:  # the server name and the host as one value
    uint32_t nbytes
    uint8_t text[GBF_NAME_MAX + 1 + HOST_BYTES]


@cython.final
cdef class RequestTable:
    """Conditions of rules on headers, method, path, hashes and names. Rows are bit vectors, bit i for rule i.

    A value is looked up in a cache of fixed size, keyed with a random secret; its matcher works it out when it is not
    there. Any number of threads.

    Args:
        plan: finds the headers.
        words: 64-bit words in one bit vector of the rules.
        matchers: (name, unknown, absent, malformed, favour, matcher, of_admit) for every header that rules ask for:
            four rows, and a callable from the value (bytes) to a row; its `longest`, where it has one, is how many
            bytes of a value it reads: a request with a longer one has something that cannot be read, if rules
            `of_admit` ask for it. One with a `native`, an OriginMatcher, and `class_rows` is not called. `favour` is
            the row that speaks for a preflight. ":method", ":path", ":fingerprint" and ":shape" are names, too, and
            ":names": the server name in its normal form, and a line feed and the host if the headers are known;
            ":origin"; ":host": the port that the scheme implies ("" where that is not known), a line feed and the host;
            ":cross_origin_write": "1" or "0". That of ":path" is called with the mount, too, where there is one, and
            sets the last bit of the row, which is no rule's, when the path is malformed.
        content_hash: digits that stand for the conditions.
        cache_bytes: what remembered values may take.
    """

    @staticmethod
    def _make(HeaderPlan plan not None, uint32_t words, matchers, str content_hash not None, *,
              uint64_t cache_bytes=CACHE_BYTES):
        import os

        cdef bytes secret = os.urandom(GBF_VALUES_SECRET)
        cdef gbf_values cache
        cdef RequestTable table
        matchers = list(matchers)
        if words == 0 or len(matchers) > MOST or any([len(row) != 8 * words for item in matchers for row in item[1:5]]):
            raise ValueError("rows of requests do not fit the rules")
        slots = [slot_of(plan, item[0]) for item in matchers]
        together = int.from_bytes(b"\xff" * (8 * words), "little")
        for item in matchers:
            if item[0] != ":names":
                together &= int.from_bytes(item[1], "little")
        rows = b"".join([row for item in matchers for row in item[1:5]])
        rows += together.to_bytes(8 * words, "little")
        numbers = b"".join([slot.to_bytes(4, "little") for slot in slots])
        callables = tuple([item[5] for item in matchers])
        natives = tuple([native_of(matcher, words) for matcher in callables])
        flags = bytes([OF_ADMIT * bool(item[6]) | CARRIED * (item[0] in CARRIED_NAMES) for item in matchers])
        longest = b"".join([
            min(getattr(matcher, "longest", None) or 0xFFFFFFFF, 0xFFFFFFFF).to_bytes(4, "little")
            for matcher in callables
        ])
        if gbf_values_make(&cache, words, cache_bytes, secret,
                           gbf_xxh3_pick(<uint32_t>cpu_features(None))) != GBF_OK:
            raise MemoryError()
        table = RequestTable.__new__(RequestTable)
        table._cache, table.plan, table.words, table.content_hash = cache, plan, words, content_hash
        table.asks = SHAPE if OF_REQUEST in slots else FINGERPRINT if OF_CLIENT in slots else SLOTS
        table._both_names = slots.index(BOTH_NAMES) if BOTH_NAMES in slots else -1
        table._slots, table._rows, table._matchers = numbers, rows, callables
        table._longest, table._flags, table._natives = longest, flags, natives
        table.admit_asks_method = any([slot in (GBF_HEADER_METHOD, CROSS_WRITE) and flag & OF_ADMIT
                                       for slot, flag in zip(slots, flags)])
        return table

    def __dealloc__(self):
        gbf_values_free(&self._cache)

    @property
    def nbytes(self):
        """Bytes of the rows and of the cache; neither grows."""
        return len(self._rows) + gbf_values_nbytes(&self._cache)

    @property
    def evaluations(self):
        """How many values were worked out because the cache did not have them."""
        return gbf_values_missed(&self._cache)

    @property
    def names(self):
        """What rules ask for: names of headers, ":method", ":path", ":fingerprint", ":shape" and ":names"."""
        cdef const uint32_t *slots = <const uint32_t *><const char *>self._slots
        return tuple([name_of(self.plan, slots[i]) for i in range(len(self._matchers))])

    def states(self, Py_ssize_t which, /):
        """The rows (unknown, absent, malformed) of `names[which]`."""
        cdef Py_ssize_t i, nbytes = 8 * <Py_ssize_t>self.words
        if not 0 <= which < len(self._matchers):
            raise IndexError(which)
        return tuple([self._rows[i * nbytes:(i + 1) * nbytes] for i in range(ROWS * which, ROWS * which + FAVOUR_ROW)])

    def longest(self, Py_ssize_t which, /):
        """Bytes of a value of `names[which]` that its tests read; None: all."""
        return getattr(self._matchers[which], "longest", None)

    def value_row(self, Py_ssize_t which, value not None, /, *, str mount=""):
        """The row of one value of `names[which]`: bytes of a header, of the text of a hash or of ":names", str of
        method or path (under `mount`); None: malformed. For columns, which keep what they were told: nothing is
        remembered here."""
        cdef uint32_t slot
        if which < 0:
            raise IndexError(f"no value has the number {which}")
        matcher = self._matchers[which]
        slot = (<const uint32_t *><const char *>self._slots)[which]
        malformed = False
        if slot == GBF_HEADER_METHOD:
            value, malformed = self.plan.signal(":method", None, value, None, None)
        elif slot == GBF_HEADER_PATH:
            value, malformed = self.plan.signal(":path", None, None, value or mount, None)
            if not malformed:
                row = matcher(value, mount.encode()) if mount else matcher(value)
                return None if row[len(row) - 1] & 0x80 else row
        elif slot < GBF_HEADER_SLOTS:
            name = name_of(self.plan, slot)
            value, malformed = self.plan.signal(name, [(name.encode(), value)], None, None, None)
        return None if malformed else matcher(value)

    def of_admit(self, Py_ssize_t which, /):
        """Whether a rule about admission asks for `names[which]`."""
        return self._flags[which] & OF_ADMIT != 0

    def row(self, headers, /, *, str method=None, str path=None, str sni=None, str mount=""):
        """The row that a request satisfies, for tests and tools."""
        cdef gbf_headers scanned
        cdef bytes vector = b"\xff" * (8 * self.words)
        cdef bytes scratch = bytes(8 * self.words)
        vector = bytes(bytearray(vector))  # one of our own, because it is written to
        scratch = bytes(bytearray(scratch))
        try:
            scan_request(headers, method, path, None, &self.plan._plan, &scanned, SHAPE)
            if mount:
                set_mount(mount, &scanned)
            self.and_rows(<uint64_t *><char *>vector, <uint64_t *><char *>scratch, &scanned, sni, None,
                          False)
        finally:
            gbf_headers_free(&scanned)
        return vector

    cdef int and_rows(self, uint64_t *vector, uint64_t *scratch, const gbf_headers *scanned, str sni, object tls,
                      bint preflight) except -1:
        cdef const uint8_t *flags = <const uint8_t *><const char *>self._flags
        cdef const uint64_t *rows = <const uint64_t *><const char *>self._rows
        cdef const uint32_t *slots = <const uint32_t *><const char *>self._slots
        cdef const uint32_t *longest = <const uint32_t *><const char *>self._longest
        cdef Py_ssize_t i, first = 0, count = len(self._matchers), missed = 0
        cdef uint32_t slot, words = self.words
        cdef int row, unparsable = GBF_UNPARSABLE_NONE, misread
        cdef names_text both
        cdef host_text service
        cdef gbf_hash128 hash
        cdef char hash_text[GBF_FINGERPRINT_BYTES]
        cdef gbf_header_text value
        cdef PyObject *values[MOST]
        cdef Py_ssize_t which[MOST]
        value.at, value.nbytes, row = NULL, 0, UNKNOWN_ROW
        if scanned != NULL:
            unparsable = unparsable_of(self._slots, self._flags, scanned)
        else:
            gbf_bits_and(vector, rows + count * ROWS * words, words)
            if self._both_names < 0:
                return GBF_UNPARSABLE_NONE
            first, count = self._both_names, self._both_names + 1
        for i in range(first, count):  # no Python code runs in here: what `scanned` borrows must stay
            slot = slots[i]
            if preflight and flags[i] & CARRIED:
                row = FAVOUR_ROW
            elif slot == BOTH_NAMES:
                misread = write_names(&both, sni, tls, scanned, &row)
                if misread and flags[i] & OF_ADMIT:
                    unparsable = misread
                value.at, value.nbytes = both.text, both.nbytes
            elif slot == OF_PAGE:
                row = state_of(scanned, GBF_HEADER_ORIGIN)
                value = scanned.slots[GBF_HEADER_ORIGIN]
            elif slot == OF_SERVICE:
                row = write_service(&service, scanned)
                value.at, value.nbytes = service.text, service.nbytes
            elif slot == CROSS_WRITE:
                row = write_row(scanned, &value)
            else:
                row = state_of(scanned, slot)
            if row >= 0:
                gbf_bits_and(vector, rows + (i * ROWS + row) * words, words)
                continue
            if (slot == OF_PAGE or slot == OF_SERVICE) and self._natives[i] is not None:
                and_class(<tuple>self._natives[i], scanned, slot, vector, words)
                continue
            if slot == OF_CLIENT or slot == OF_REQUEST:
                if slot == OF_CLIENT:
                    gbf_headers_text(scanned.fingerprint, "gh2:", hash_text)
                else:
                    gbf_headers_text(scanned.shape, "gs1:", hash_text)
                value.at, value.nbytes = <const uint8_t *>hash_text, GBF_FINGERPRINT_BYTES
            elif slot < GBF_HEADER_SLOTS:
                value = scanned.slots[slot]
            if value.nbytes > longest[i] and flags[i] & OF_ADMIT:
                unparsable = too_long(slot, unparsable)
            hash = gbf_values_hash(&self._cache, slot, value.at, value.nbytes)
            if slot == GBF_HEADER_PATH and scanned.mount.nbytes != 0:
                hash = gbf_values_under(&self._cache, hash, scanned.mount.at, scanned.mount.nbytes)
            if not gbf_values_and(&self._cache, hash, vector, scratch):
                values[missed] = bytes_of(<const char *>value.at, value.nbytes)
                which[missed] = i
                missed += 1
            elif (slot == GBF_HEADER_PATH and scratch[words - 1] >> 63 and flags[i] & OF_ADMIT and
                  unparsable == GBF_UNPARSABLE_NONE):
                unparsable = GBF_UNPARSABLE_PATH
        if missed == 0:
            return unparsable
        i = 0
        try:
            mount = b""
            if scanned != NULL and scanned.mount.nbytes != 0:
                mount = (<const char *>scanned.mount.at)[:scanned.mount.nbytes]
            for i in range(missed):
                if (self.work_out(which[i], slots[which[i]], <bytes>values[i], mount, vector) and
                        flags[which[i]] & OF_ADMIT and unparsable == GBF_UNPARSABLE_NONE):
                    unparsable = GBF_UNPARSABLE_PATH
        finally:
            for i in range(missed):
                Py_XDECREF(values[i])
        return unparsable

    cdef int work_out(self, Py_ssize_t which, uint32_t slot, bytes value, bytes mount, uint64_t *vector) except -1:
        cdef bint mounted = slot == GBF_HEADER_PATH and len(mount) != 0
        cdef bytes row = self._matchers[which](value, mount) if mounted else self._matchers[which](value)
        cdef const uint64_t *bits = <const uint64_t *><const char *>row
        cdef gbf_hash128 hash = gbf_values_hash(&self._cache, slot, value, <uint32_t>len(value))
        if mounted:
            hash = gbf_values_under(&self._cache, hash, mount, <uint32_t>len(mount))
        if len(row) != <Py_ssize_t>(8 * self.words):
            raise ValueError("row of a value does not fit the rules")
        gbf_bits_and(vector, bits, self.words)
        gbf_values_put(&self._cache, hash, bits)
        return slot == GBF_HEADER_PATH and bits[self.words - 1] >> 63 != 0


cdef uint32_t slot_of(HeaderPlan plan, str name) except 0xFFFFFFFF:
    if name == ":origin":
        return OF_PAGE
    if name == ":host":
        return OF_SERVICE
    if name == ":cross_origin_write":
        return CROSS_WRITE
    if name == ":method":
        return GBF_HEADER_METHOD
    if name == ":path":
        return GBF_HEADER_PATH
    if name == ":names":
        return BOTH_NAMES
    if name == ":shape":
        return OF_REQUEST
    return OF_CLIENT if name == ":fingerprint" else plan.slots[plan.names.index(name)]


cdef str name_of(HeaderPlan plan, uint32_t slot):
    if slot == OF_PAGE:
        return ":origin"
    if slot == OF_SERVICE:
        return ":host"
    if slot == CROSS_WRITE:
        return ":cross_origin_write"
    if slot == GBF_HEADER_METHOD:
        return ":method"
    if slot == GBF_HEADER_PATH:
        return ":path"
    if slot == BOTH_NAMES:
        return ":names"
    if slot == OF_REQUEST:
        return ":shape"
    return ":fingerprint" if slot == OF_CLIENT else plan.names[plan.slots.index(slot)]


cdef int state_of(const gbf_headers *scanned, uint32_t slot) noexcept:
    """The row that holds without looking at a value, or -1."""
    cdef bint hashed = slot == OF_CLIENT or slot == OF_REQUEST
    if not hashed and scanned.tally.seen >> slot & 1:
        return -1
    if slot == GBF_HEADER_METHOD:
        return MALFORMED_ROW if scanned.tally.flags & GBF_HEADERS_BAD_METHOD else UNKNOWN_ROW
    if slot == GBF_HEADER_PATH:
        return MALFORMED_ROW if scanned.tally.flags & GBF_HEADERS_BAD_PATH else UNKNOWN_ROW
    if scanned.problem != GBF_HEADERS_FINE:
        return MALFORMED_ROW
    if scanned.tally.flags & GBF_HEADERS_UNKNOWN:
        return ABSENT_ROW if not hashed and scanned.known >> slot & 1 else UNKNOWN_ROW
    return -1 if hashed else ABSENT_ROW


cdef int write_names(names_text *both, str sni, object tls, const gbf_headers *scanned, int *row) noexcept:
    """Writes the value of server name and host, or their row that holds without one; says which name is malformed."""
    cdef gbf_name name
    cdef uint32_t kind = read_server_name(&name, sni, tls, gbf_name_fold_scalar), nbytes
    cdef int host = UNKNOWN_ROW if scanned == NULL else state_of(scanned, GBF_HEADER_HOST)
    both.nbytes = 0
    if kind == GBF_ROW_KNOWN:
        memcpy(both.text, name.text, name.nbytes)
        both.nbytes = name.nbytes
    row[0] = host if both.nbytes == 0 else -1
    if host != UNKNOWN_ROW:
        both.text[both.nbytes] = 10  # a line feed, which neither can have
        both.nbytes += 1
    if host < 0:
        nbytes = min(scanned.slots[GBF_HEADER_HOST].nbytes, <uint32_t>HOST_BYTES)
        memcpy(both.text + both.nbytes, scanned.slots[GBF_HEADER_HOST].at, nbytes)
        both.nbytes += nbytes
    if kind != GBF_ROW_MALFORMED:
        return GBF_UNPARSABLE_NONE
    if sni is None and type(tls) is ClientHello and (<ClientHello>tls)._frame.status != GBF_HELLO_OK:
        return GBF_UNPARSABLE_HELLO
    return GBF_UNPARSABLE_SNI


cdef int write_service(host_text *service, const gbf_headers *scanned) noexcept:
    """Writes the value of the host beside its default port, or gives the row that holds without one."""
    cdef int row = state_of(scanned, GBF_HEADER_HOST)
    cdef uint32_t nbytes = 0
    if row >= 0:
        service.nbytes = 0
        return row
    if scanned.default_port == 443:
        memcpy(service.text, b"443", 3)
        nbytes = 3
    elif scanned.default_port == 80:
        memcpy(service.text, b"80", 2)
        nbytes = 2
    service.text[nbytes] = 10
    service.nbytes = nbytes + 1 + min(scanned.slots[GBF_HEADER_HOST].nbytes, <uint32_t>HOST_BYTES)
    memcpy(service.text + nbytes + 1, scanned.slots[GBF_HEADER_HOST].at, service.nbytes - nbytes - 1)
    return -1


cdef object native_of(object matcher, uint32_t words):
    """(OriginMatcher, rows by class) of a matcher that has both; None: it is called."""
    rows = getattr(matcher, "class_rows", None)
    if rows is None:
        return None
    if len(rows) != 8 * words * len((<OriginMatcher?>matcher.native).sets):
        raise ValueError("rows of classes do not fit the rules")
    return matcher.native, rows


cdef int and_class(tuple native, const gbf_headers *scanned, uint32_t slot, uint64_t *vector, uint32_t words) noexcept:
    """ANDs in the row of the class that an origin, or a host, is of."""
    cdef OriginMatcher matcher = <OriginMatcher>native[0]
    cdef const uint64_t *rows = <const uint64_t *><const char *><bytes>native[1]
    cdef gbf_header_text text = scanned.slots[GBF_HEADER_ORIGIN if slot == OF_PAGE else GBF_HEADER_HOST]
    gbf_bits_and(vector, rows + words * matcher.find(text.at, text.nbytes, scanned.default_port), words)
    return 0


cdef int write_row(const gbf_headers *scanned, gbf_header_text *value) noexcept:
    """The value of what may write from elsewhere, or the row that holds without one."""
    cdef int found = gbf_header_cross_write(scanned)
    if found == GBF_WRITE_UNKNOWN:
        return UNKNOWN_ROW
    if found == GBF_WRITE_UNREAD:
        return MALFORMED_ROW
    value.at, value.nbytes = <const uint8_t *>WRITES + (found != GBF_WRITE_NO), 1
    return -1


cdef int too_long(uint32_t slot, int unparsable) noexcept:
    """What cannot be read, `unparsable` before, when the value of a slot is longer than what its rules read."""
    if slot == GBF_HEADER_METHOD:
        return GBF_UNPARSABLE_METHOD if unparsable != GBF_UNPARSABLE_HEADERS else unparsable
    if slot == GBF_HEADER_PATH:
        return GBF_UNPARSABLE_PATH if unparsable == GBF_UNPARSABLE_NONE else unparsable
    return GBF_UNPARSABLE_HEADERS


cdef int unparsable_of(bytes slots, bytes flags, const gbf_headers *scanned) except -1:
    """What rules about admission ask for and could not be read."""
    cdef const uint32_t *asked = <const uint32_t *><const char *>slots
    cdef Py_ssize_t i
    cdef int unparsable = GBF_UNPARSABLE_NONE
    for i in range(len(slots) // 4):
        if not (<const uint8_t *><const char *>flags)[i] & OF_ADMIT:
            continue
        if asked[i] == GBF_HEADER_METHOD:
            if scanned.tally.flags & GBF_HEADERS_BAD_METHOD and unparsable != GBF_UNPARSABLE_HEADERS:
                unparsable = GBF_UNPARSABLE_METHOD
        elif asked[i] == GBF_HEADER_PATH:
            if scanned.tally.flags & GBF_HEADERS_BAD_PATH and unparsable == GBF_UNPARSABLE_NONE:
                unparsable = GBF_UNPARSABLE_PATH
        elif scanned.problem != GBF_HEADERS_FINE:
            unparsable = GBF_UNPARSABLE_HEADERS
    return unparsable


only_whole(RequestTable)
