from libc.stdint cimport uint8_t

from gobanfast._core.block cimport Block
from gobanfast._core.headers cimport HeaderPlan
from gobanfast._core.live_table cimport LiveTable
from gobanfast._core.record_table cimport RecordTable
from gobanfast._core.request_table cimport RequestTable
from gobanfast._core.connection_table cimport ConnectionTable
from gobanfast._core.native.rules cimport gbf_rules

cdef enum:
    OWNED = 1    # of a resource: share rules say who may read it; the bits above are an index of what varies
    BY_SESSION = 8  # of a resource: what varies by the session, or labels
    ANYBODY = 8  # of a share rule's action: it grants to whoever asks, so that no Origin is needed


cdef class CompiledRules:
    cdef gbf_rules _rules
    cdef Block _block
    cdef readonly tuple rules            # by bit; those of resources are not among them
    cdef const uint8_t *_share_actions   # gbf_shared of each share rule, and ANYBODY; in _effects
    cdef const uint8_t *_resource_flags  # OWNED and what varies, of each bit of a resource; in _effects
    cdef bytes _effects
    cdef readonly RecordTable records    # None when no rule says which traces are kept, and nothing passes them on
    cdef readonly LiveTable live         # None when no rule asks for a label or a session
    cdef readonly tuple grants           # CompiledGrant of each share rule; None: it grants nothing
    cdef readonly int unparsable         # gbf_action, never GBF_LIMIT
    cdef readonly ConnectionTable signals    # None when no rule requires a server name or ClientHello
    cdef readonly RequestTable requests  # None when no rule requires headers, method or path
    cdef readonly HeaderPlan plan        # never None
    cdef readonly object asn             # AsnTable that names its AS numbers; None: not said
    cdef readonly object always_holds    # of (rule, path, mount): whether it holds under all readings; None: not said
    cdef object _facts                   # makes the bytes that `content_hash` covers besides the arrays
    cdef str _hash                       # None: not asked for yet
