"""SessionReader: the session of a request, as keyed hashes of its cookie, header or query parameter."""


cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from gobanfast._core.headers cimport SLOTS, HeaderPlan, scan_headers
from gobanfast._core.ban_table cimport key_text
from gobanfast._core.made cimport only_whole
from gobanfast._core.native.hash cimport gbf_hash128
from gobanfast._core.native.http cimport (
    GBF_HEADERS_FINE, GBF_HEADERS_UNKNOWN, GBF_HEADER_NO_SLOT, GBF_SESSION_BYTES, gbf_header_slot, gbf_headers,
    gbf_headers_free, gbf_session_add, gbf_session_cookie, gbf_session_hash, gbf_session_header,
    gbf_session_query, gbf_session_values,
)
from gobanfast._core.native.state cimport gbf_ban_session

KINDS = ("cookie", "header", "query")
STATES = ("unknown", "absent", "present", "malformed")
cdef int MOST_SOURCES = 16


@cython.final
cdef class SessionReader:
    """SessionReader(sources, secrets, plan)\n--\n
    Finds the session of a request and hashes its value, which is kept nowhere: SipHash-2-4-128 under each of `secrets`.

    Args:
        sources: (kind, name) in the order of being asked: "cookie", "header" or "query". The first that a request has
            counts. Several values of one name all count, four different ones at most, of 4,096 bytes each; beyond that
            the session is malformed, as where headers cannot be read.
        secrets: 1 to 8 texts of bytes. The first makes keys; a request is asked about under all.
        plan: the HeaderPlan of the scan; "cookie", and names of "header", must be among its names.
    Raises:
        ValueError: another kind or number of sources or secrets, or a header that has no slot.
    Cost: 60 ns a value of 32 bytes and secret.
    Source: csrc/DESIGN.md, "Sessions".
    """

    @staticmethod
    def _make(tuple sources not None, tuple secrets not None, HeaderPlan plan not None):
        cdef SessionReader made = SessionReader.__new__(SessionReader)
        cdef const uint8_t *text
        if not 1 <= len(sources) <= MOST_SOURCES or not 1 <= len(secrets) <= MOST_KEYS:
            raise ValueError(f"{len(sources)} sources and {len(secrets)} keys; give 1 to {MOST_SOURCES} and "
                             f"1 to {MOST_KEYS}")
        names = []
        for i, (kind, name) in enumerate(sources):
            if kind not in KINDS:
                raise ValueError(f"source {kind!r} is not one of {', '.join(KINDS)}")
            packed = name.lower().encode() if kind == "header" else name.encode()
            wanted = b"cookie" if kind == "cookie" else packed
            made._slots[<int>i] = GBF_HEADER_NO_SLOT
            if kind != "query":
                text = wanted
                made._slots[<int>i] = gbf_header_slot(&plan._plan, text, <uint32_t>len(wanted))
                if made._slots[<int>i] == GBF_HEADER_NO_SLOT:
                    raise ValueError(f"header {wanted.decode()!r} is not in the plan")
            names.append(packed)
        for i, secret in enumerate(secrets):
            from hashlib import sha256  # with the first key: it takes longer than loading compiled rules

            digest = sha256(b"gobanfast session\0" + secret).digest()
            memcpy(made._secret[<int>i], <const char *>digest, 16)
            made._id[<int>i] = <uint32_t>int.from_bytes(digest[16:20], "big")
        made.plan, made.sources, made._count = plan, sources, <uint32_t>len(secrets)
        made._kinds, made._names = tuple([KINDS.index(kind) for kind, _ in sources]), tuple(names)
        return made

    def keys(self, value, /):
        """The keys of a session with this value, str or bytes: one for each secret.

        Raises:
            ValueError: the value is empty, or longer than 4,096 bytes.
        """
        cdef Session session
        cdef uint32_t i
        if not value:
            raise ValueError("a session's value has 1 byte at least, not 0")
        if self.hash_value(value, &session) or session.state == SESSION_MALFORMED:
            raise ValueError(f"a session's value has at most {GBF_SESSION_BYTES} bytes, not {len(value)}")
        return tuple([key_text(&session.key[i]) for i in range(session.asked)])

    def session(self, headers, query=None, /):
        """(state, keys) of a request: "absent", "present", "malformed" or "unknown" (headers None), and a tuple of the
        keys of each of its values."""
        cdef gbf_headers scanned
        cdef Session session
        cdef uint32_t i, j
        try:
            scan_headers(headers, None, &self.plan._plan, &scanned, SLOTS, NULL)
            self.read(&scanned, query, &session)
        finally:
            gbf_headers_free(&scanned)
        found = [tuple([key_text(&session.key[i * session.asked + j]) for j in range(session.asked)])
                 for i in range(session.values)]
        return STATES[session.state], tuple(found)

    cdef int read(self, const gbf_headers *scanned, object query, Session *out) except -1:
        cdef gbf_session_values values
        cdef const uint8_t *name
        cdef const uint8_t *text
        cdef uint32_t slot
        cdef Py_ssize_t i
        cdef int kind
        cdef bytes packed = None, asked
        cdef bint unread = scanned.problem != GBF_HEADERS_FINE
        out.state, out.values, out.asked = SESSION_ABSENT, 0, self._count
        values.count, values.malformed = 0, 0
        for i in range(len(self._names)):
            kind, asked, slot = self._kinds[i], self._names[i], self._slots[i]
            name = asked
            if kind == 2:
                if query is not None and packed is None:
                    packed = query if isinstance(query, bytes) else query.encode("latin-1", "replace")
                if packed is not None:
                    text = packed
                    gbf_session_query(&values, text, <uint64_t>len(packed), name, <uint32_t>len(asked))
            elif unread:
                values.malformed = 1
            elif scanned.tally.flags & GBF_HEADERS_UNKNOWN:
                out.state = SESSION_UNKNOWN
            elif scanned.tally.seen >> slot & 1:
                if kind == 0:
                    gbf_session_cookie(&values, scanned.slots[slot].at, scanned.slots[slot].nbytes, name,
                                       <uint32_t>len(asked))
                else:
                    gbf_session_header(&values, scanned.slots[slot].at, scanned.slots[slot].nbytes,
                                       scanned.repeated >> slot & 1, asked == b"authorization")
            if values.count or values.malformed:
                break
        if values.malformed:
            out.state = SESSION_MALFORMED
        elif values.count:
            out.state = SESSION_PRESENT
        return self.hash_all(&values, out)

    cdef int hash_value(self, object value, Session *out) except -1:
        cdef gbf_session_values values
        cdef bytes text = value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")
        values.count, values.malformed = 0, 0
        gbf_session_add(&values, <const uint8_t *><const char *>text, <uint64_t>len(text), 0)
        out.state = SESSION_MALFORMED if values.malformed else SESSION_PRESENT
        return self.hash_all(&values, out)

    cdef int hash_all(self, const gbf_session_values *values, Session *out) noexcept:
        cdef gbf_hash128 hash
        cdef uint32_t i, j, n = 0
        out.values, out.asked = values.count, self._count
        for i in range(values.count):
            for j in range(self._count):
                hash = gbf_session_hash(self._secret[j], &values.value[i])
                out.key[n] = gbf_ban_session(hash.high, hash.low, self._id[j])
                n += 1
        return 0

    def __repr__(self):
        return f"<SessionReader {', '.join(f'{kind} {name}' for kind, name in self.sources)}: {self._count} keys>"


only_whole(SessionReader)
