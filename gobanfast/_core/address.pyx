"""Parser and formatter of addresses and prefixes, and the loop of batch lookups."""

from cpython.buffer cimport PyBUF_FORMAT, PyBUF_ND, PyBUF_WRITABLE, Py_buffer, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint32_t

from gobanfast._core.native.address cimport (
    GBF_PREFIX_BAD_ADDRESS, GBF_PREFIX_BAD_LENGTH, GBF_PREFIX_FINE, gbf_addr, gbf_addr_client, gbf_addr_format,
    gbf_addr_is4, gbf_addr_load, gbf_addr_masked, gbf_addr_parse, gbf_addr_parse_prefix, gbf_addr_store, gbf_lpm,
    gbf_lpm_kernel, gbf_lpm_pick, gbf_prefix_problem,
)

from gobanfast._core.kernels import cpu_features

cdef Py_ssize_t DETACH = 2048  # addresses: below this, giving up the GIL costs more than the lookups


cdef const gbf_lpm_kernel *pick_kernel(object level) except NULL:
    return gbf_lpm_pick(<uint32_t>cpu_features(level))


cdef str text_of(gbf_addr address):
    cdef char text[64]
    return text[:gbf_addr_format(address, text)].decode("ascii")


cdef str prefix_text(gbf_addr address, uint32_t bits):
    return f"{text_of(address)}/{bits - 96 if gbf_addr_is4(address) and bits >= 96 else bits}"


cdef gbf_prefix_problem read_prefix(str text, gbf_addr *address, uint32_t *bits) noexcept:
    cdef const char *start
    cdef size_t n
    if not gbf_ascii(text, &start, &n):
        return GBF_PREFIX_BAD_ADDRESS
    return gbf_addr_parse_prefix(start, n, address, bits)


cdef str prefix_problem(str text, gbf_prefix_problem problem, gbf_addr address, uint32_t bits):
    """What is wrong with `text`, with the value and a hint."""
    if problem == GBF_PREFIX_BAD_ADDRESS:
        return f"prefix {text!r} has no IPv4 or IPv6 address; write it like 192.0.2.0/24 or 2001:db8::/32"
    if problem == GBF_PREFIX_BAD_LENGTH:
        return f"prefix {text!r} has a bad length; IPv4 has 0..32 bits, IPv6 0..128"
    return f"prefix {text!r} has host bits set; write {prefix_text(gbf_addr_masked(address, bits), bits)}"


def parse_address(str text not None, /):
    """The 16 bytes (network order, IPv4 as ::ffff:a.b.c.d) of an address text, or None when it is not one."""
    cdef gbf_addr address
    cdef uint8_t packed[16]
    cdef const char *start
    cdef size_t n
    if not gbf_ascii(text, &start, &n) or not gbf_addr_parse(start, n, &address):
        return None
    gbf_addr_store(address, packed)
    return packed[:16]


def format_address(bytes packed not None, /):
    """RFC 5952 text of 16 bytes in network order; dotted IPv4 for ::ffff:0:0/96. ValueError for another length."""
    if len(packed) != 16:
        raise ValueError(f"a packed address has 16 bytes, not {len(packed)}")
    return text_of(gbf_addr_load(<const uint8_t *><const char *>packed))


def parse_prefix(str text not None, /):
    """(16 bytes, bits) of a prefix text; IPv4 has 96 + n bits. An address alone is a prefix of all its bits.

    Raises ValueError that says what is wrong, with the value, and how to write it.
    """
    cdef gbf_addr address
    cdef uint32_t bits
    cdef uint8_t packed[16]
    cdef gbf_prefix_problem problem = read_prefix(text, &address, &bits)
    if problem != GBF_PREFIX_FINE:
        raise ValueError(prefix_problem(text, problem, address, bits))
    gbf_addr_store(address, packed)
    return packed[:16], bits


def client_of(str text not None, uint32_t bits6=64, /):
    """Text of the client behind an address: IPv4 itself, also one inside an IPv6 address (NAT64, 6to4, Teredo), else
    the IPv6 prefix of `bits6` bits, 1 to 64. None when `text` is not an address."""
    cdef gbf_addr address
    cdef uint32_t bits
    cdef const char *start
    cdef size_t n
    if not gbf_ascii(text, &start, &n) or not gbf_addr_parse(start, n, &address):
        return None
    address = gbf_addr_client(address, bits6, &bits)
    return text_of(address) if bits == 128 else prefix_text(address, bits)


def parse_prefixes(list texts not None, /):
    """Three parts from a list of prefix texts: n x 16 bytes, n length bytes, and [(index, problem)] of the bad ones.

    A bad text is left out of the first two. Cost: about 40 ns a text. For list files of a million lines.
    """
    cdef Py_ssize_t i, kept = 0, count = len(texts)
    cdef bytearray addresses = bytearray(16 * count), lengths = bytearray(count)
    cdef uint8_t *address_bytes = addresses
    cdef uint8_t *length_bytes = lengths
    cdef gbf_addr address
    cdef uint32_t bits
    cdef gbf_prefix_problem problem
    cdef str text
    problems = []
    for i in range(count):
        text = texts[i]
        if text is None:
            raise TypeError(f"text {i}: expected str, got NoneType")
        problem = read_prefix(text, &address, &bits)
        if problem != GBF_PREFIX_FINE:
            problems.append((i, prefix_problem(text, problem, address, bits)))
            continue
        gbf_addr_store(address, address_bytes + 16 * kept)
        length_bytes[kept] = <uint8_t>bits
        kept += 1
    return bytes(addresses[:16 * kept]), bytes(lengths[:kept]), problems


cdef extern from *:
    """
    #define GBF_TEXTS 512
    #define GBF_AHEAD 64
    #ifdef Py_GIL_DISABLED
    #define GBF_FREE_THREADED 1
    #else
    #define GBF_FREE_THREADED 0
    #endif

    /* Starts and lengths of `n` items of a list or tuple; the length is 0 for None and for a str
     * with other than ASCII characters. Returns `n`, or the index of an item that is no str. Items are borrowed. The
     * objects are likely cold, so those GBF_AHEAD further are asked for, as far as `left` items go: both lines of a
     * short str, its head and its characters. */
    static inline Py_ssize_t gbf_texts(PyObject *items, Py_ssize_t first, Py_ssize_t n, Py_ssize_t left,
                                       const char **starts, uint32_t *lengths)
    {
        PyObject *const *item = PySequence_Fast_ITEMS(items) + first;
        for (Py_ssize_t i = 0; i < n; i++) {
            size_t length = 0;
            starts[i] = "";
            if (i + GBF_AHEAD < left) {
                GBF_PREFETCH(item[i + GBF_AHEAD]);
                GBF_PREFETCH((const char *)item[i + GBF_AHEAD] + sizeof(PyASCIIObject) + 12);
            }
            if (PyUnicode_Check(item[i])) {
                if (!gbf_ascii(item[i], &starts[i], &length))
                    length = 0;
            } else if (item[i] != Py_None) {
                return i;
            }
            lengths[i] = length > UINT32_MAX ? UINT32_MAX : (uint32_t)length;
        }
        return n;
    }
    """
    enum: GBF_TEXTS
    const bint GBF_FREE_THREADED
    Py_ssize_t gbf_texts(object items, Py_ssize_t first, Py_ssize_t n, Py_ssize_t left, const char **starts,
                         uint32_t *lengths) noexcept


cdef size_t run_texts(batch_run run, const void *table, object texts, Py_ssize_t item_bytes, char *out) except? 0:
    cdef const char *starts[GBF_TEXTS]
    cdef uint32_t lengths[GBF_TEXTS]
    cdef Py_ssize_t read, size, first = 0, count = len(texts)
    cdef size_t matched = 0
    if GBF_FREE_THREADED:
        texts = tuple(texts)  # holds the items while others may change the list
    while first < count:
        size = min(GBF_TEXTS, count - first)
        read = gbf_texts(texts, first, size, count - first, starts, lengths)
        if read < size:
            raise TypeError(f"address {first + read} is {type(texts[first + read]).__name__}, not str")
        matched += run(table, BATCH_TEXT, starts, lengths, <size_t>size, out + item_bytes * first)
        first += size
    return matched


cdef Py_ssize_t run_many(batch_run run, const void *table, object addresses, object out,
                         Py_ssize_t item_bytes) except -1:
    cdef Py_buffer source, target
    cdef Py_ssize_t count
    cdef size_t matched
    cdef batch_form form
    PyObject_GetBuffer(out, &target, PyBUF_WRITABLE | PyBUF_ND | PyBUF_FORMAT)
    try:
        if target.itemsize != item_bytes:
            raise ValueError(f"out holds items of {target.itemsize} bytes, not uint{8 * item_bytes}")
        if isinstance(addresses, (list, tuple)):
            check_room(&target, len(addresses))
            return <Py_ssize_t>run_texts(run, table, addresses, item_bytes, <char *>target.buf)
        PyObject_GetBuffer(addresses, &source, PyBUF_ND | PyBUF_FORMAT)
        try:
            form = BATCH_UINT32 if source.itemsize == 4 else BATCH_PACKED
            if source.itemsize not in (1, 4, 16) or (form == BATCH_PACKED and source.len % 16 != 0):
                raise ValueError("addresses are uint32 (IPv4, host order) or whole 16-byte records (network order)")
            count = source.len // (4 if form == BATCH_UINT32 else 16)
            check_room(&target, count)
            if count >= DETACH:
                with nogil:
                    matched = run(table, form, source.buf, NULL, <size_t>count, target.buf)
            else:
                matched = run(table, form, source.buf, NULL, <size_t>count, target.buf)
            return <Py_ssize_t>matched
        finally:
            PyBuffer_Release(&source)
    finally:
        PyBuffer_Release(&target)


cdef int check_room(const Py_buffer *out, Py_ssize_t count) except -1:
    if out.len != out.itemsize * count:
        raise ValueError(f"out has {out.len // out.itemsize} items for {count} addresses")
    return 0


cdef struct lpm_table:
    const gbf_lpm *lpm
    const gbf_lpm_kernel *kernel


cdef size_t run_leaves(const void *table, batch_form form, const void *rows, const uint32_t *lengths, size_t n,
                       void *out) noexcept nogil:
    cdef const lpm_table *t = <const lpm_table *>table
    find_many(t.lpm, t.kernel, form, rows, lengths, n, <uint32_t *>out)
    return n


cdef Py_ssize_t leaves_many(const gbf_lpm *lpm, const gbf_lpm_kernel *kernel, object addresses, object out) except -1:
    cdef lpm_table table = lpm_table(lpm, kernel)
    return run_many(run_leaves, &table, addresses, out, 4)
