"""Edge headers: request headers that only trusted peers may say, and the chain of addresses for the application."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint64_t

from gobanfast._core.made cimport only_whole

cdef bytes CHAIN = b"x-forwarded-for"


@cython.final
cdef class EdgeHeaders:
    """What `edge_headers` of the rules asks for, by name; letters in any case, and an underscore is a hyphen, as WSGI
    and CGI have it.

    Args:
        keep: names that stay, whoever says them.
        append: whether the peer's address is appended to X-Forwarded-For.
        strip: names, or beginnings that end in `*`, of headers that are taken out.
    """

    @staticmethod
    def _make(tuple keep not None=(), bint append=False, tuple strip not None=()):
        cdef EdgeHeaders made = EdgeHeaders.__new__(EdgeHeaders)
        made._keep = tuple([folded(name) for name in keep])
        made._begins = tuple([folded(name[:-1]) for name in strip if name.endswith("*")])
        made._exact = tuple([folded(name) for name in strip if not name.endswith("*")])
        made.append, made.strips = append, len(strip) != 0
        for name in made._begins + made._exact:
            made._firsts |= ~<uint64_t>0 if len(name) == 0 else <uint64_t>1 << (name[0] & 63)
        return made

    def without(self, headers not None, /, *, bint strip=True, str peer=None):
        """New pairs, or a new environ, as the application is to see them; None: as they are.

        Args:
            strip: whether the peer may not say these headers.
            peer: address of the peer, to append to the chain; None: it has none.
        """
        return self.handed(headers, strip, peer)

    cdef bint names(self, const uint8_t *name, Py_ssize_t nbytes) except -1:
        cdef bytes known
        if nbytes == 0 or not self._firsts >> (fold(name[0]) & 63) & 1:
            return False
        for known in self._keep:
            if PyBytes_GET_SIZE(known) == nbytes and begins(name, nbytes, known):
                return False
        for known in self._begins:
            if begins(name, nbytes, known):
                return True
        for known in self._exact:
            if PyBytes_GET_SIZE(known) == nbytes and begins(name, nbytes, known):
                return True
        return False

    cdef object handed(self, object headers, bint strip, str peer):
        strip = strip and self.strips
        if not self.append:
            peer = None
        if isinstance(headers, dict):
            return self.environ(headers, strip, peer)
        return self.pairs(headers, strip, peer)

    cdef list pairs(self, object headers, bint strip, str peer):
        cdef list made = [], chain = []
        cdef bint changed = False
        cdef bytes name
        for pair in headers:
            name = bytes(pair[0])
            if strip and self.names(<const uint8_t *>PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name)):
                changed = True
            elif peer is not None and len(name) == len(CHAIN) and name.lower() == CHAIN:
                chain.append(bytes(pair[1]))
            else:
                made.append(pair)
        if peer is not None:
            made.append((CHAIN, b", ".join([text for text in chain if text.strip()] + [peer.encode()])))
        return made if changed or peer is not None else None

    cdef dict environ(self, dict headers, bint strip, str peer):
        cdef dict made = None
        cdef list gone = []
        cdef bytes name
        if strip:
            for key in headers:
                if type(key) is str and key.startswith("HTTP_"):
                    name = key[5:].encode("utf-8", "replace")
                    if self.names(<const uint8_t *>PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name)):
                        gone.append(key)
        if not gone and peer is None:
            return None
        made = headers.copy()
        for key in gone:
            del made[key]
        if peer is not None:
            chain = made.get("HTTP_X_FORWARDED_FOR", "")
            made["HTTP_X_FORWARDED_FOR"] = f"{chain}, {peer}" if chain.strip() else peer
        return made


cdef bytes folded(str name):
    return name.lower().replace("_", "-").encode()


cdef inline uint8_t fold(uint8_t letter) noexcept:
    if c"A" <= letter <= c"Z":
        return letter | 0x20
    return c"-" if letter == c"_" else letter


cdef inline bint begins(const uint8_t *name, Py_ssize_t nbytes, bytes known) noexcept:
    cdef const uint8_t *text = <const uint8_t *>PyBytes_AS_STRING(known)
    cdef Py_ssize_t i
    if PyBytes_GET_SIZE(known) > nbytes:
        return False
    for i in range(PyBytes_GET_SIZE(known)):
        if fold(name[i]) != text[i]:
            return False
    return True


only_whole(EdgeHeaders)
