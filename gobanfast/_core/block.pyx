"""Block: the memory of one compiled table, built in memory, mapped from a file, or borrowed from a buffer."""

import mmap
import os

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy

from gobanfast._core.made cimport only_whole
from gobanfast._core.native.base cimport (
    GBF_BAD_INPUT, GBF_NO_MEMORY, GBF_OK, gbf_block_allocate, gbf_block_build, gbf_block_nbytes, gbf_block_open,
    gbf_cpu_cap, gbf_part, gbf_section,
)

from gobanfast._errors import FormatError


cdef extern from *:
    """
    #if defined(__OPTIMIZE__) && defined(NDEBUG)
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


cdef uint32_t tag_of(str tag) except 0:
    cdef bytes text = tag.encode()
    if len(text) != 4:
        raise ValueError(f"tag {tag!r} has not four bytes")
    return text[0] | text[1] << 8 | text[2] << 16 | <uint32_t>text[3] << 24


@cython.final
cdef class Block:
    """One table's bytes. Immutable; lives as long as any table that reads it."""

    _make = "a Block comes from Block.map, .copy, .view or .build"

    def __dealloc__(self):
        if self._view.buf != NULL:
            PyBuffer_Release(&self._view)
        free(self._owned)

    @staticmethod
    cdef Block adopt(void *data):
        """Block that owns `data` (a sealed block from malloc) and frees it."""
        return block_of(data, gbf_block_nbytes(data))

    @staticmethod
    def map(path):
        """Block over the file `path`, mapped read-only; pages are shared with every other process.

        Raises OSError when the file cannot be opened and FormatError when it is empty. Nothing in it
        has been checked yet: the table that reads it does that.
        """
        cdef Block block
        cdef str name = os.fspath(path)
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise FormatError(name, 0, "file is empty")
            flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
            mapped = mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ)
        block = Block.__new__(Block)
        block.path = name
        PyObject_GetBuffer(mapped, &block._view, PyBUF_SIMPLE)
        block.data = <const uint8_t *>block._view.buf
        block.nbytes = <uint64_t>block._view.len
        return block

    @staticmethod
    def copy(data):
        """Block with a copy of the bytes in the buffer `data`. Nothing in it has been checked yet."""
        cdef Py_buffer view
        cdef void *owned
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            owned = gbf_block_allocate(<uint64_t>view.len + 64)
            if owned == NULL:
                raise MemoryError()
            memcpy(owned, view.buf, <size_t>view.len)
            return block_of(owned, <uint64_t>view.len)
        finally:
            PyBuffer_Release(&view)

    @staticmethod
    def view(data):
        """Block over the buffer `data`, which it keeps alive; a copy when `data` does not lie on 64 bytes, as a section
        of a mapped block does. Nothing in it has been checked yet."""
        cdef Block block
        cdef Py_buffer view
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        if <size_t>view.buf % 64:
            PyBuffer_Release(&view)
            return Block.copy(data)
        block = Block.__new__(Block)
        block._view = view
        block.data = <const uint8_t *>block._view.buf
        block.nbytes = <uint64_t>block._view.len
        block.path = "<memory>"
        return block

    @staticmethod
    def build(str kind not None, parts):
        """Sealed block of `kind` (four characters) whose sections are the (tag, buffer) pairs `parts`, copied."""
        cdef gbf_part wanted[16]
        cdef Py_buffer views[16]
        cdef uint32_t count = 0, i
        cdef void *data = NULL
        cdef gbf_status status
        try:
            for tag, buffer in parts:
                if count == 16:
                    raise ValueError("more than 16 parts in a block")
                PyObject_GetBuffer(buffer, &views[count], PyBUF_SIMPLE)
                wanted[count] = gbf_part(tag_of(tag), 1, views[count].buf, <uint64_t>views[count].len)
                count += 1
            status = gbf_block_build(wanted, count, tag_of(kind), &data)
        finally:
            for i in range(count):
                PyBuffer_Release(&views[i])
        raise_for(status, NULL, "")
        return Block.adopt(data)

    def parts(self, str kind not None, *, bint verify):
        """Dict of the byte sections of this block, by tag, as views; FormatError unless it is a sound block of `kind`.

        With `verify` the hash over the whole block is checked; what is in the sections is for their readers to check.
        """
        cdef gbf_fault fault
        cdef gbf_section section
        cdef uint32_t i
        raise_for(gbf_block_open(self.data, self.nbytes, tag_of(kind), verify, &fault), &fault, self.path)
        found = {}
        whole = memoryview(self)
        for i in range((<const uint32_t *>(self.data + 36))[0]):
            memcpy(&section, self.data + 64 + i * sizeof(section), sizeof(section))
            tag = (<const uint8_t *>&section.tag)[:4]
            if section.item_bytes == 1 and tag.isascii():
                found[tag.decode()] = whole[section.offset:section.offset + section.nbytes]
        return found

    def save(self, path, *, int mode=0o644):
        """Writes the block to `path`: temporary file beside it, fsync, rename. Readers of an old file keep it."""
        import tempfile  # here, because `import gobanfast` must stay light

        target = os.fspath(path)
        folder = os.path.dirname(target) or "."
        try:
            descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=os.path.basename(target) + ".")
        except OSError as error:  # says the temporary name
            raise OSError(error.errno, error.strerror, target) from None
        try:
            with open(descriptor, "wb") as file:
                file.write(memoryview(self))
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, mode)
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, <void *>self.data, <Py_ssize_t>self.nbytes, 1, flags)

    def content_hash(self):
        """32 hex digits: XXH3-128 over the block, as stored in its header."""
        return bytes(self.data[8:24])[::-1].hex()


only_whole(Block)


cdef Block tagged(object blocks, str tag):
    """The block under a tag of a dict of blocks. KeyError, or TypeError for what is none: None passes for a Block."""
    block = blocks[tag]
    if type(block) is not Block:
        raise TypeError(f"{tag}: expected Block, got {type(block).__name__}")
    return block


cdef Block block_of(void *owned, uint64_t nbytes):
    cdef Block block = Block.__new__(Block)
    block._owned = owned
    block.data = <const uint8_t *>owned
    block.nbytes = nbytes
    block.path = "<memory>"
    return block
