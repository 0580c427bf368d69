"""Memory of one compiled table: built here, mapped from a file, or borrowed from a buffer."""

import mmap
import os

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy

from gobanfast.native cimport GBF_BAD_INPUT, GBF_NO_MEMORY, GBF_OK, gbf_block_nbytes, gbf_cpu_cap

from gobanfast._errors import FormatError


cdef extern from *:
    """
    #ifdef __OPTIMIZE__
    #define GBF_OPTIMIZED 1
    #else
    #define GBF_OPTIMIZED 0
    #endif
    #if defined(__AVX__) || defined(__SSE3__) || defined(__ARM_FEATURE_SVE)
    #define GBF_BEYOND_BASELINE 1
    #else
    #define GBF_BEYOND_BASELINE 0
    #endif
    """
    const char *GBF_CFLAGS
    const char *__VERSION__
    int GBF_OPTIMIZED
    int GBF_BEYOND_BASELINE


cdef extern from "<stdlib.h>":
    void *aligned_alloc(size_t alignment, size_t size)


def build_info():
    """Dict of how this extension was compiled: cflags, compiler, optimized, beyond_baseline.

    `beyond_baseline` is true when the compiler was allowed instructions that not every machine of this
    architecture has (as -march=native does); a released wheel never is.
    """
    return {
        "cflags": GBF_CFLAGS.decode(),
        "compiler": __VERSION__.decode(),
        "optimized": bool(GBF_OPTIMIZED),
        "beyond_baseline": bool(GBF_BEYOND_BASELINE),
    }


def cpu_levels():
    """Names of the kernel levels this machine can run, lowest first ("scalar" always)."""
    cdef uint32_t features
    levels = ("scalar", "v2", "avx2", "avx512", "neon")
    return tuple(level for level in levels if gbf_cpu_cap(level.encode(), &features))


def cpu_cap(str level not None):
    """Feature bits of `level`, one of `cpu_levels()`; ValueError otherwise."""
    cdef uint32_t features
    if not gbf_cpu_cap(level.encode(), &features):
        raise ValueError(f"kernel level {level!r} does not run here")
    return features


cdef int raise_for(gbf_status status, const gbf_fault *fault, str path) except -1:
    """0 when status is GBF_OK; otherwise raises the exception that goes with it."""
    if status == GBF_OK:
        return 0
    if status == GBF_NO_MEMORY:
        raise MemoryError()
    if status == GBF_BAD_INPUT:
        raise ValueError(f"item {fault.offset}: {fault.what.decode()}")
    raise FormatError(path, fault.offset, fault.what.decode())


cdef class Block:
    """One table's bytes. Immutable; lives as long as any table that reads it."""

    def __dealloc__(self):
        if self._view.buf != NULL:
            PyBuffer_Release(&self._view)
        free(self._owned)

    @staticmethod
    cdef Block adopt(void *data):
        """Block that owns `data` (a sealed block from malloc) and frees it."""
        cdef Block block = Block.__new__(Block)
        block._owned = data
        block.data = <const uint8_t *>data
        block.nbytes = gbf_block_nbytes(data)
        block.path = "<memory>"
        return block

    @staticmethod
    def map(path):
        """Block over the file `path`, mapped read-only; pages are shared with every other process.

        Raises OSError when the file cannot be opened and FormatError when it is empty. Nothing in it
        has been checked yet: the table that reads it does that.
        """
        cdef Block block = Block.__new__(Block)
        block.path = os.fspath(path)
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise FormatError(block.path, 0, "file is empty")
            flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
            mapped = mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ)
        PyObject_GetBuffer(mapped, &block._view, PyBUF_SIMPLE)
        block.data = <const uint8_t *>block._view.buf
        block.nbytes = <uint64_t>block._view.len
        return block

    @staticmethod
    def copy(data):
        """Block with a copy of the bytes in the buffer `data`. Nothing in it has been checked yet."""
        cdef Block block = Block.__new__(Block)
        cdef Py_buffer view
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            block._owned = aligned_alloc(64, (<size_t>view.len + 127) & ~<size_t>63)
            if block._owned == NULL:
                raise MemoryError()
            memcpy(block._owned, view.buf, <size_t>view.len)
            block.nbytes = <uint64_t>view.len
        finally:
            PyBuffer_Release(&view)
        block.data = <const uint8_t *>block._owned
        block.path = "<memory>"
        return block

    def save(self, path):
        """Writes the block to `path`: temporary file beside it, fsync, rename. Readers of an old file keep it."""
        import tempfile  # here, because `import gobanfast` must stay light

        target = os.fspath(path)
        folder = os.path.dirname(target) or "."
        descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=os.path.basename(target) + ".")
        try:
            with open(descriptor, "wb") as file:
                file.write(memoryview(self))
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, <void *>self.data, <Py_ssize_t>self.nbytes, 1, flags)

    def content_hash(self):
        """32 hex digits: XXH3-128 over the block, as stored in its header."""
        return bytes(self.data[8:24])[::-1].hex()
