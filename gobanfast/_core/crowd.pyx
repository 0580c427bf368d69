"""Clients let in lately per network, in memory of a fixed size: whom a ban of the network would hit."""

import os

cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from gobanfast._core.address cimport gbf_ascii
from gobanfast._core.made cimport only_whole
from gobanfast._core.native.address cimport gbf_addr, gbf_addr_client, gbf_addr_load, gbf_addr_parse
from gobanfast._core.native.state cimport GBF_CROWD_UNKNOWN, gbf_crowd, gbf_crowd_count, gbf_crowd_note

from gobanfast._core.address import parse_prefix


@cython.final
cdef class Crowd:
    """The clients of each network that were let in within the last 30 to 60 minutes.

    Args:
        seed: of the keyed hash, for replay; None draws it.
    Threads: any number. A forked child has what its parent had.
    Source: csrc/DESIGN.md, "Ladder".
    """

    @staticmethod
    def _make(*, bytes seed=None):
        cdef Crowd made
        cdef gbf_crowd *crowd = <gbf_crowd *>calloc(1, sizeof(gbf_crowd))
        if crowd == NULL:
            raise MemoryError()
        made = Crowd.__new__(Crowd)
        made.crowd = crowd
        crowd.key = int.from_bytes(os.urandom(8) if seed is None else seed[:8])
        return made

    def __dealloc__(self):
        free(self.crowd)

    def note(self, str address not None, *, double now):
        """Notes that a client was let in; text that is no address raises ValueError."""
        cdef const char *start
        cdef size_t n
        cdef gbf_addr parsed
        cdef uint32_t bits
        if not gbf_ascii(address, &start, &n) or not gbf_addr_parse(start, n, &parsed):
            raise ValueError(f"address {address!r} is not valid; write it like 192.0.2.1 or 2001:db8::1")
        gbf_crowd_note(self.crowd, gbf_addr_client(parsed, 64, &bits), <uint64_t>(now * 1000))

    def count(self, str prefix not None, others=(), *, double now):
        """How many clients of a prefix were let in, without those whose addresses `others` lists; None: nobody knows.

        Of a /25 or longer, or an IPv6 /49 or longer, those of the whole network that it lies in.
        """
        packed, bits = parse_prefix(prefix)
        cdef bint four = "." in prefix and bits >= 96
        cdef uint32_t length = <uint32_t>(min(48, bits - 96 + 24) if four else min(48, bits)), found
        cdef uint64_t network = 0xFFFF << 32 | int.from_bytes(packed[12:15]) if four else int.from_bytes(packed[:6])
        cdef gbf_addr *known
        cdef uint32_t i = 0
        addresses = [parse_prefix(text)[0] for text in others]
        known = <gbf_addr *>calloc(len(addresses) + 1, sizeof(gbf_addr))
        if known == NULL:
            raise MemoryError()
        for address in addresses:
            known[i] = gbf_addr_load(<const uint8_t *><const char *>address)
            i += 1
        found = gbf_crowd_count(self.crowd, network, length, known, i, <uint64_t>(now * 1000))
        free(known)
        return None if found == GBF_CROWD_UNKNOWN else found

    @property
    def nbytes(self):
        """Bytes, fixed at creation."""
        return sizeof(gbf_crowd)


only_whole(Crowd)
