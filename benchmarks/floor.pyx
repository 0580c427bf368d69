# cython: language_level=3
"""The floor: what calling a Cython function with one str costs when it does nothing. Never shipped."""


def noop(str text):
    return None


cdef class Noop:
    def method(self, str text):
        return None
