from libc.stdint cimport uint8_t, uint32_t

from gobanfast._core.block cimport Block
from gobanfast._core.native.http cimport gbf_origins


cdef class OriginMatcher:
    cdef gbf_origins _table
    cdef readonly Block block
    cdef readonly tuple sets  # by class: the numbers of its groups, ascending
    cdef readonly bint hosts

    # Class of an origin, or of a host under the default port of the request's scheme (0: not known): 0 malformed, 1 no
    # pattern matches, else what `sets` has. Never allocates or fails; needs no interpreter.
    cdef uint32_t find(self, const uint8_t *text, uint32_t n, uint32_t default_port) noexcept nogil


# The matcher in `block`, which it keeps; every index is checked, with `verify` also the hash over the block.
cdef OriginMatcher origins_of_block(Block block, bint verify)
