"""ClientHello: parser of the first TLS message of a client, with its JA3 and JA4 fingerprints."""

cimport cython
from cpython.bytes cimport (
    PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromObject, PyBytes_FromStringAndSize, PyBytes_GET_SIZE,
)
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from gobanfast._core.made cimport only_whole
from gobanfast._core.native.hash cimport gbf_sha256_kernel, gbf_sha256_pick
from gobanfast._core.native.tls cimport (
    GBF_HELLO_COOKIE, GBF_HELLO_EARLY_DATA, GBF_HELLO_ECH_INNER, GBF_HELLO_ECH_OUTER, GBF_HELLO_INCOMPLETE,
    GBF_HELLO_OK, GBF_HELLO_PSK, GBF_HELLO_TICKET, GBF_JA3_BYTES, GBF_JA4_BYTES, gbf_be16, gbf_hello_bare,
    gbf_hello_gather, gbf_hello_grease, gbf_hello_name_clean, gbf_hello_name_flags, gbf_hello_offset,
    gbf_hello_problem_text, gbf_hello_read, gbf_hello_records, gbf_ja3, gbf_ja3_text, gbf_ja4, gbf_ja4_raw,
    gbf_ja_room, gbf_span,
)

from gobanfast._core.kernels import cpu_features


cdef extern from "Python.h":
    object PyUnicode_New(Py_ssize_t size, Py_UCS4 maxchar)
    void *PyUnicode_1BYTE_DATA(object text)

NAME_FLAGS = ("empty", "nul", "non-ascii", "character", "long", "address", "upper", "dot")

# Chosen once: a kernel is a constant of the machine, and a hello has no table to keep it in.
cdef const gbf_sha256_kernel *SHA256 = gbf_sha256_pick(cpu_features())


def kernel():
    """Name of the SHA-256 kernel behind JA4: "sha" or "scalar"."""
    return SHA256.name.decode()


cdef inline str ascii_text(const uint8_t *text, Py_ssize_t nbytes):
    result = PyUnicode_New(nbytes, 127)
    memcpy(PyUnicode_1BYTE_DATA(result), text, <size_t>nbytes)
    return result


@cython.final
@cython.no_gc
@cython.freelist(32)
cdef class ClientHello:
    """One ClientHello, frozen; everything but its outline is worked out when asked for. Made by `parse_client_hello`.

    Numbers are as on the wire: version 0x0304 is TLS 1.3. Tuples keep the wire's order and its GREASE values; the
    fingerprints leave those out. Unless `status` is "ok" the fields below `nbytes` are None, empty or False.
    """

    _make = "a ClientHello comes from parse_client_hello"

    cdef int take(self, bytes data, bint bare) except -1:
        cdef const uint8_t *start = <const uint8_t *>PyBytes_AS_STRING(data)
        cdef size_t nbytes = <size_t>PyBytes_GET_SIZE(data)
        self._frame = gbf_hello_bare(start, nbytes) if bare else gbf_hello_records(start, nbytes)
        if self._frame.status != GBF_HELLO_OK:
            return 0
        cdef const uint8_t *message = start + self._frame.end - self._frame.message_bytes
        self._owner = data
        if self._frame.records > 1:
            self._owner = PyBytes_FromStringAndSize(NULL, self._frame.message_bytes)
            message = <const uint8_t *>PyBytes_AS_STRING(self._owner)
            gbf_hello_gather(start, &self._frame, <uint8_t *>message)
        if not gbf_hello_read(message, &self._frame, &self._hello):
            self._frame.place = gbf_hello_offset(start, &self._frame, self._frame.place)
            memset(&self._hello, 0, sizeof(self._hello))
        return 0

    cdef int ja4_bytes(self, uint8_t *out) except -1:
        cdef uint64_t small[512]
        cdef uint8_t *room = <uint8_t *>small
        cdef uint32_t wanted = gbf_ja_room(&self._hello)
        if wanted > sizeof(small):
            room = <uint8_t *>PyMem_Malloc(wanted)
            if room == NULL:
                raise MemoryError()
        gbf_ja4(&self._hello, self._transport, SHA256, room, out)
        if room != <uint8_t *>small:
            PyMem_Free(room)
        return 0

    cdef str text_of(self, TlsFingerprint what):
        if self._frame.status != GBF_HELLO_OK:
            return None
        cdef uint64_t small[512]
        cdef uint8_t out[48]
        cdef uint8_t *room = <uint8_t *>small
        cdef uint32_t wanted = gbf_ja_room(&self._hello)
        if wanted > sizeof(small):
            room = <uint8_t *>PyMem_Malloc(wanted)
            if room == NULL:
                raise MemoryError()
        try:
            if what == JA3:
                gbf_ja3(&self._hello, room, out)
                return ascii_text(out, GBF_JA3_BYTES)
            if what == JA4_R:
                return ascii_text(room, gbf_ja4_raw(&self._hello, self._transport, room))
            return ascii_text(room, gbf_ja3_text(&self._hello, room))
        finally:
            if room != <uint8_t *>small:
                PyMem_Free(room)

    cdef tuple numbers(self, gbf_span span):
        return tuple([gbf_be16(self._hello.message + span.at + i) for i in range(0, span.nbytes, 2)])

    cdef bint has(self, uint32_t flag) noexcept:
        return (self._hello.flags & flag) != 0

    @property
    def status(self):
        """"ok", "incomplete" (`need` more bytes), "malformed" (at `offset`) or "not-tls"."""
        return ("ok", "incomplete", "malformed", "not-tls")[<int>self._frame.status]

    @property
    def need(self):
        """How many bytes are missing at the least; 0 unless incomplete. Reading that many never reads too far."""
        return self._frame.place if self._frame.status == GBF_HELLO_INCOMPLETE else 0

    @property
    def offset(self):
        """Where in the data it went wrong, or None."""
        return self._frame.place if self._frame.status > GBF_HELLO_INCOMPLETE else None

    @property
    def problem(self):
        """What is wrong, in words, or None."""
        return gbf_hello_problem_text[self._frame.problem].decode() if self._frame.problem else None

    @property
    def nbytes(self):
        """Bytes of the data the hello takes up, records included; what follows them is not part of it."""
        return self._frame.end

    @property
    def message(self):
        """The handshake message, of which `parse_handshake` makes the same hello; None when no whole one was found."""
        if self._owner is None or self._frame.records > 1:
            return self._owner
        return self._owner[self._frame.end - self._frame.message_bytes:self._frame.end]

    @property
    def fragmented(self):
        """True if the hello was spread over several records. No browser does that over TCP."""
        return self._frame.records > 1

    @property
    def sni(self):
        """The host name as sent, or None if absent or not printable ASCII (see `sni_flags`). Not normalised."""
        cdef gbf_span name = self._hello.name
        cdef const uint8_t *text = self._hello.message + name.at
        if name.at == 0 or not gbf_hello_name_clean(text, name.nbytes):
            return None
        return ascii_text(text, name.nbytes)

    @property
    def sni_bytes(self):
        """The host name as sent, whatever is in it; None if there is none."""
        cdef gbf_span name = self._hello.name
        return self._hello.message[name.at:name.at + name.nbytes] if name.at else None

    @property
    def sni_flags(self):
        """What is odd about the host name, a tuple of words out of `NAME_FLAGS`."""
        cdef gbf_span name = self._hello.name
        cdef uint32_t flags = gbf_hello_name_flags(self._hello.message + name.at, name.nbytes) if name.at else 0
        return tuple([word for i, word in enumerate(NAME_FLAGS) if flags >> <uint32_t>i & 1])

    @property
    def alpn(self):
        """Protocols offered, a tuple of str, one character per byte (latin-1)."""
        cdef gbf_span span = self._hello.alpn
        cdef const uint8_t *at = self._hello.message + span.at
        cdef const uint8_t *end = at + span.nbytes
        if span.nbytes == 12 and memcmp(at, b"\x02h2\x08http/1.1", 12) == 0:
            return ("h2", "http/1.1")      # what nearly every browser says: no objects made
        protocols = []
        while at < end:
            protocols.append(at[1:1 + at[0]].decode("latin-1"))
            at += 1 + at[0]
        return tuple(protocols)

    @property
    def legacy_version(self):
        """The version field, 0x0303 in every modern hello, or None."""
        return self._hello.legacy_version if self._owner is not None else None

    @property
    def version(self):
        """The highest version offered, or None."""
        return self._hello.version if self._owner is not None else None

    @property
    def versions(self):
        """The supported_versions extension."""
        return self.numbers(self._hello.versions)

    @property
    def ciphers(self):
        """Cipher suites."""
        return self.numbers(self._hello.ciphers)

    @property
    def extensions(self):
        """Extension numbers."""
        cdef const uint8_t *at = self._hello.message + self._hello.extensions.at
        cdef const uint8_t *end = at + self._hello.extensions.nbytes
        numbers = []
        while at < end:
            numbers.append(gbf_be16(at))
            at += 4 + gbf_be16(at + 2)
        return tuple(numbers)

    @property
    def groups(self):
        """Key exchange groups (elliptic curves)."""
        return self.numbers(self._hello.groups)

    @property
    def signature_algorithms(self):
        """Signature algorithms."""
        return self.numbers(self._hello.signatures)

    @property
    def point_formats(self):
        """Elliptic curve point formats."""
        cdef gbf_span span = self._hello.points
        return tuple(self._hello.message[span.at:span.at + span.nbytes])

    @property
    def session_id(self):
        """The legacy session id, bytes."""
        cdef gbf_span span = self._hello.session_id
        return self._hello.message[span.at:span.at + span.nbytes]

    @property
    def grease(self):
        """True if any list holds a GREASE value (RFC 8701)."""
        return gbf_hello_grease(&self._hello) != 0

    @property
    def ech(self):
        """"outer", "inner" or None. Outer may be GREASE; if not, `sni` is the public name, not the one meant."""
        return "outer" if self.has(GBF_HELLO_ECH_OUTER) else "inner" if self.has(GBF_HELLO_ECH_INNER) else None

    @property
    def session_ticket(self):
        """True if the session_ticket extension is there, empty or not."""
        return self.has(GBF_HELLO_TICKET)

    @property
    def psk(self):
        """True if a TLS 1.3 session is to be resumed (pre_shared_key)."""
        return self.has(GBF_HELLO_PSK)

    @property
    def early_data(self):
        """True if application data follows before any answer: decide before it is read."""
        return self.has(GBF_HELLO_EARLY_DATA)

    @property
    def retry(self):
        """True if this shows itself as the answer to a HelloRetryRequest: a cookie, or change_cipher_spec in front."""
        return self._owner is not None and (self.has(GBF_HELLO_COOKIE) or self._frame.first != 0)

    @property
    def ja3(self):
        """JA3 digest, 32 hex digits, or None. Chrome shuffles what it hashes: good for matching feeds only."""
        return self.text_of(JA3)

    @property
    def ja3_text(self):
        """What the JA3 digest is made of, or None."""
        return self.text_of(JA3_TEXT)

    @property
    def ja4(self):
        """JA4 fingerprint, or None. Two SHA-256 hashes each time it is asked for."""
        cdef uint8_t out[48]
        if self._frame.status != GBF_HELLO_OK:
            return None
        self.ja4_bytes(out)
        return ascii_text(out, GBF_JA4_BYTES)

    @property
    def ja4_r(self):
        """JA4 with its lists written out instead of hashed, or None."""
        return self.text_of(JA4_R)

    def __repr__(self):
        if self._frame.status == GBF_HELLO_OK:
            return f"<ClientHello sni={self.sni!r} alpn={self.alpn!r} ja4={self.ja4!r}>"
        return f"<ClientHello {self.status}: {self.problem or f'{self.need} more bytes needed'}>"


def parse_client_hello(data, /):
    """ClientHello at the start of `data`, the first bytes of a client's TCP stream.

    Bytes that are not one give an object whose `status` says so. Also takes the second flight after a
    HelloRetryRequest, with its change_cipher_spec record in front. `data` is kept if it is bytes, else copied.

    Raises:
        TypeError: `data` is not bytes-like.
    Cost: one pass over the extensions. Source: csrc/DESIGN.md, "ClientHello".
    """
    cdef ClientHello hello = ClientHello.__new__(ClientHello)
    hello._transport = c't'
    hello.take(data if PyBytes_CheckExact(data) else PyBytes_FromObject(data), False)
    return hello


def parse_handshake(data, /, *, quic=False):
    """ClientHello from a handshake message without records: a TLS library's message callback, or a QUIC CRYPTO stream.

    Args:
        data: bytes-like, the four-byte message header first.
        quic: JA4 begins with "q" instead of "t".
    """
    cdef ClientHello hello = ClientHello.__new__(ClientHello)
    hello._transport = c'q' if quic else c't'
    hello.take(data if PyBytes_CheckExact(data) else PyBytes_FromObject(data), True)
    return hello


only_whole(ClientHello)
