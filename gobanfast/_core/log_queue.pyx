"""Byte budget of the decision log's queue: what a queued decision keeps alive; ids of lines."""

cimport cython
from cpython.bytes cimport PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_1BYTE_DATA, PyUnicode_New
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from gobanfast._core.decision cimport Decision, SignalDecision
from gobanfast._core.made cimport only_whole
from gobanfast._core.client_hello cimport ClientHello

cdef extern from *:
    """
    /* Adds; the value before. */
    #define gbf_size_add(p, n) __atomic_fetch_add((p), (n), __ATOMIC_RELAXED)
    """
    size_t gbf_size_add(size_t *used, size_t n) noexcept

cdef const char *HEX = "0123456789abcdef"

cdef enum:
    PAIR = 144   # bytes that a header takes besides its text: a tuple, two objects, a place in a list
    ENTRY = 768  # and a decision in the queue of the log


@cython.final
cdef class Budget:
    """Bytes that the entries of a queue may keep alive. Any number of threads take and give back."""

    @staticmethod
    def _make(size_t limit):
        cdef Budget made = Budget.__new__(Budget)
        made.limit, made._used = limit, 0
        return made

    @property
    def used(self):
        """Bytes taken and not given back."""
        return gbf_size_add(&self._used, 0)

    def take(self, size_t n, /):
        """True if `n` bytes are left, which are taken then."""
        if gbf_size_add(&self._used, n) + n <= self.limit:
            return True
        gbf_size_add(&self._used, <size_t>0 - n)
        return False

    def hold(self, Decision decision not None, str request_id, Py_ssize_t most, /):
        """Bytes that a queued decision keeps alive, which are taken then; 0 when they are not left. Over `most` nothing
        is taken."""
        cdef Py_ssize_t n = weigh_decision(decision, request_id, most)
        if n > most:
            return n
        if gbf_size_add(&self._used, n) + n <= self.limit:
            return n
        gbf_size_add(&self._used, <size_t>0 - n)
        return 0

    def give(self, size_t n, /):
        """Gives `n` taken bytes back."""
        gbf_size_add(&self._used, <size_t>0 - n)


def weigh(headers, texts, Py_ssize_t limit, /):
    """About how many bytes of memory a queued decision keeps alive; counted no further than to `limit`.

    Args:
        headers: (name, value) pairs of bytes, or None.
        texts: str or bytes besides them; None counts nothing.
    """
    cdef Py_ssize_t found = ENTRY
    for text in texts:
        found += length_of(text)
    return weigh_pairs(headers, found, limit)


cdef Py_ssize_t weigh_decision(Decision decision, str request_id, Py_ssize_t limit) except -1:
    """The same of a decision and the request that it keeps."""
    cdef Py_ssize_t found = ENTRY + length_of(decision.address) + length_of(request_id)
    cdef SignalDecision wide
    if type(decision) is not SignalDecision:
        return found
    wide = <SignalDecision>decision
    found += length_of(wide._sni) + length_of(wide._path) + length_of(wide._mount) + length_of(wide._method)
    if type(wide._tls) is ClientHello:
        found += length_of(wide._tls.message)
    if wide._kept_bytes != 0:
        return found + wide._kept_bytes
    return weigh_pairs(wide._headers if wide._kept is None else wide._kept, found, limit)


def numbered(str prefix not None, uint64_t number, /):
    """An ASCII prefix, and a number in hex digits."""
    cdef Py_ssize_t n = len(prefix), digits = 1
    cdef str made
    cdef uint8_t *out
    while digits < 16 and number >> 4 * digits:
        digits += 1
    made = PyUnicode_New(n + digits, 127)
    out = <uint8_t *>PyUnicode_1BYTE_DATA(made)
    memcpy(out, PyUnicode_1BYTE_DATA(prefix), n)
    while digits:
        digits -= 1
        out[n + digits] = HEX[number & 15]
        number >>= 4
    return made


cdef Py_ssize_t weigh_pairs(object headers, Py_ssize_t found, Py_ssize_t limit) except -1:
    """`found`, and what pairs or a dict of headers weigh; counted no further than to `limit`."""
    if headers is None:
        return found
    if type(headers) is dict:
        for name, value in (<dict>headers).items():
            found += PAIR + length_of(name) + length_of(value)
        return found
    for pair in headers:
        if found > limit:
            break
        if type(pair) is tuple and len(<tuple>pair) == 2:
            found += PAIR + length_of((<tuple>pair)[0]) + length_of((<tuple>pair)[1])
        else:
            found += PAIR + len(pair[0]) + len(pair[1])
    return found


cdef inline Py_ssize_t length_of(object text) except -1:
    """Length of a str or bytes; None has none."""
    if text is None:
        return 0
    if type(text) is bytes:
        return PyBytes_GET_SIZE(text)
    return len(<str>text) if type(text) is str else len(text)


only_whole(Budget)
