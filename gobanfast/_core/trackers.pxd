from libc.stdint cimport uint32_t

from gobanfast._core.native.address cimport gbf_addr, gbf_addr_client
from gobanfast._core.native.state cimport gbf_exempt, gbf_tracker


cdef class Trackers:
    cdef gbf_tracker tracker  # &trackers.tracker goes to gbf_tracker_note and _peek; neither needs the GIL
    cdef uint32_t ipv6_bits
    cdef object __weakref__

    cdef gbf_addr client(self, str address) except *


cdef class Exemption:
    cdef gbf_exempt exempt  # &exemption.exempt goes to gbf_exempt_covers, with the address itself and its origin AS
    cdef bytes _addresses
    cdef bytes _asns


# The key under which a client is tracked.
cdef inline gbf_addr tracked_client(gbf_addr address, uint32_t ipv6_bits) noexcept nogil:
    cdef uint32_t bits
    return gbf_addr_client(address, ipv6_bits, &bits)
