from gobanfast._core.block cimport Block
from gobanfast._core.headers cimport HeaderPlan
from gobanfast._core.request_table cimport RequestTable
from gobanfast._core.connection_table cimport ConnectionTable
from gobanfast._core.native.rules cimport gbf_rules


cdef class CompiledRules:
    cdef gbf_rules _rules
    cdef Block _block
    cdef readonly tuple rules
    cdef readonly int unparsable         # gbf_action, never GBF_LIMIT
    cdef readonly ConnectionTable signals    # None when no rule requires a server name or ClientHello
    cdef readonly RequestTable requests  # None when no rule requires headers, method or path
    cdef readonly HeaderPlan plan        # never None
    cdef readonly object asn             # AsnTable that names its AS numbers; None: not said
    cdef object _facts                   # makes the bytes that `content_hash` covers besides the arrays
    cdef str _hash                       # None: not asked for yet
