from libc.stdint cimport uint8_t, uint64_t


cdef class EdgeHeaders:
    cdef tuple _keep, _begins, _exact  # folded names
    cdef uint64_t _firsts              # first letters of those that are taken out, a bit each
    cdef readonly bint append
    cdef readonly bint strips          # whether there are names at all

    # Whether a header is taken out.
    cdef bint names(self, const uint8_t *name, Py_ssize_t nbytes) except -1

    # What the application is to see in place of these headers, None: these.
    cdef object handed(self, object headers, bint strip, str peer)
    cdef list pairs(self, object headers, bint strip, str peer)
    cdef dict environ(self, dict headers, bint strip, str peer)
