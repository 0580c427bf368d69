cdef class Budget:
    cdef readonly size_t limit
    cdef size_t _used
