from gobanfast._core.native.state cimport gbf_rates


cdef class RateClasses:
    cdef gbf_rates *classes  # goes to gbf_latency_note and gbf_rates_threshold; neither needs the GIL
    cdef dict _places  # number by name
    cdef dict _keys  # (name, number) by the hash of the name, of the classes placed last
    cdef object __weakref__
