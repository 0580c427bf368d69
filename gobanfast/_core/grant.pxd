from gobanfast._core.allowed_headers cimport AllowedHeaders


cdef class CompiledGrant:
    cdef readonly bint any_origin     # whoever asks gets it, so that the answer is the same for all
    cdef readonly bint credentials
    cdef readonly frozenset methods   # besides those that need no listing; bytes
    cdef readonly bint any_method
    cdef readonly AllowedHeaders headers
    cdef readonly tuple fields        # header fields of a response besides the origin
    cdef readonly tuple preflight     # of the answer to a preflight

    # The header fields for a page of this origin, or for whoever asks.
    cdef tuple response(self, bytes origin)

    # Those of the answer to its preflight; a str where it is not granted, which says why.
    cdef object answer(self, bytes origin, bytes method, bytes names)
