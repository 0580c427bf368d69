# The only `cdef extern` declarations of C kernels in the project.
from libc.stdint cimport uint8_t, uint32_t, uint64_t


cdef extern from "gbf_base.h" nogil:
    enum: GBF_NONE
    ctypedef enum gbf_status:
        GBF_OK
        GBF_NO_MEMORY
        GBF_BAD_FORMAT
        GBF_BAD_INPUT
    ctypedef struct gbf_fault:
        const char *what
        uint64_t offset


cdef extern from "gbf_block.h" nogil:
    uint32_t GBF_BLOCK_VERSION
    gbf_status gbf_block_open(const void *data, uint64_t nbytes, uint32_t kind, int check_hash, gbf_fault *fault)
    uint64_t gbf_block_nbytes(const void *block)


cdef extern from "gbf_cpu.h" nogil:
    int GBF_CPU_V2
    int GBF_CPU_AVX2
    int GBF_CPU_AVX512
    int GBF_CPU_NEON
    uint32_t gbf_cpu_features()
