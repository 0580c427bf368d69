# `cdef extern` declarations of the C kernels, one file a folder of csrc.
