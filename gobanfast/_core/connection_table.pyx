"""ConnectionTable: server name and ClientHello to the bit vector of rules that they satisfy."""

cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from gobanfast._core.address cimport gbf_ascii
from gobanfast._core.block cimport Block, raise_for, tagged
from gobanfast._core.made cimport only_whole
from gobanfast._core.name_text cimport text_of
from gobanfast._core.name_table cimport NameTable, names_of_block
from gobanfast._core.client_hello cimport ClientHello
from gobanfast._core.native.base cimport (
    GBF_UNPARSABLE_HELLO, GBF_UNPARSABLE_JA4, GBF_UNPARSABLE_NONE, GBF_UNPARSABLE_SNI, gbf_fault,
)
from gobanfast._core.native.name cimport gbf_fold, gbf_name, gbf_name_read, gbf_name_union
from gobanfast._core.native.rules cimport (
    GBF_ASKS_ALPN, GBF_ASKS_HELLO, GBF_ASKS_JA4, GBF_ASKS_NAME, GBF_HELLO_ROWS, GBF_QUIET_HELLO,
    GBF_QUIET_JA4, GBF_QUIET_NAME, GBF_ROW_ABSENT, GBF_ROW_KNOWN,
    GBF_ROW_MALFORMED, GBF_ROW_TOLD, gbf_bits_and, gbf_bits_or, gbf_connection, gbf_connection_and_alpn,
    gbf_connection_and_hello, gbf_connection_and_ja4, gbf_connection_and_name, gbf_connection_build,
    gbf_connection_name_row, gbf_connection_open, gbf_connection_source, gbf_term,
)
from gobanfast._core.native.tls cimport GBF_HELLO_OK, gbf_ja4_shaped

from gobanfast._errors import FormatError


cdef uint32_t read_server_name(gbf_name *name, str sni, object tls, gbf_fold fold) noexcept:
    cdef const char *text
    cdef size_t nbytes
    if sni is not None:
        if not gbf_ascii(sni, &text, &nbytes):
            return GBF_ROW_MALFORMED
    elif type(tls) is not ClientHello:
        return GBF_ROW_ABSENT
    elif (<ClientHello>tls)._frame.status != GBF_HELLO_OK:
        return GBF_ROW_MALFORMED
    elif (<ClientHello>tls)._hello.name.at == 0:
        return GBF_ROW_ABSENT
    else:
        text = <const char *>(<ClientHello>tls)._hello.message + (<ClientHello>tls)._hello.name.at
        nbytes = (<ClientHello>tls)._hello.name.nbytes
    return GBF_ROW_KNOWN if gbf_name_read(name, text, nbytes, fold) else GBF_ROW_MALFORMED


@cython.final
cdef class ConnectionTable:
    """Rows of rules for the signals besides the address, and the names that lead to them. Frozen; any threads.

    Args:
        words: 64-bit words in one bit vector of the rules.
        asks: what some rule requires: 1 a name, 2 anything of the hello, 4 its JA4, 8 its protocols; and 16, 32, 64: of
            the first three no rule about admission, so that they cannot make a request unparsable.
        absent: uint64, one row: the rules that hold when no signal but the address is known.
        names: NameTable whose values are rows of `name_rows`.
        names_digest: 16 bytes that stand for the patterns and their rows.
        name_rows: uint64, rows of two halves, the conditions `sni` and `sni_file`: absent, malformed, any name, sets.
        hello_rows: uint64: absent, malformed, then version (before 1.0, 1.0 .. 1.3) by ECH (none, outer, inner), then
            a JA4 without a hello.
        ja4_terms, alpn_terms: uint32 triples (offset in `text`, bytes, row), ascending by (bytes, text).
        ja4_rows, alpn_rows: uint64, row 0 for a value that no rule names.
        text: what the terms point into.
    Raises:
        ValueError: arrays that do not fit each other.
    """

    @staticmethod
    def _make(*, uint32_t words, uint32_t asks, absent, NameTable names not None, bytes names_digest not None,
              name_rows, hello_rows, ja4_terms, ja4_rows, alpn_terms, alpn_rows, bytes text not None):
        cdef gbf_connection_source source
        cdef gbf_fault fault
        cdef void *data = NULL
        cdef bytes none = bytes(absent), name_bits = bytes(name_rows), hello_bits = bytes(hello_rows)
        cdef bytes ja4 = bytes(ja4_terms), ja4_bits = bytes(ja4_rows), alpn = bytes(alpn_terms)
        cdef bytes alpn_bits = bytes(alpn_rows)
        row = 8 * words
        if (words == 0 or len(none) != row or len(names_digest) != 16 or len(name_bits) % (2 * row) or
                len(hello_bits) != GBF_HELLO_ROWS * row or len(ja4) % sizeof(gbf_term) or len(ja4_bits) % row or
                len(alpn) % sizeof(gbf_term) or len(alpn_bits) % row):
            raise ValueError("arrays of signals do not fit each other")
        source.words, source.asks = words, asks
        source.absent = <const uint64_t *><const char *>none
        source.name_rows = <const uint64_t *><const char *>name_bits
        source.hello_rows = <const uint64_t *><const char *>hello_bits
        source.ja4_rows = <const uint64_t *><const char *>ja4_bits
        source.alpn_rows = <const uint64_t *><const char *>alpn_bits
        source.ja4_terms = <const gbf_term *><const char *>ja4
        source.alpn_terms = <const gbf_term *><const char *>alpn
        source.text = text
        source.names_digest = names_digest
        source.name_row_count = len(name_bits) // (2 * row)
        source.ja4_row_count, source.alpn_row_count = len(ja4_bits) // row, len(alpn_bits) // row
        source.ja4_term_count, source.alpn_term_count = len(ja4) // sizeof(gbf_term), len(alpn) // sizeof(gbf_term)
        source.text_nbytes = len(text)
        raise_for(gbf_connection_build(&source, &data), &fault, "")
        return table_of(Block.adopt(data), names, False)

    @classmethod
    def of_blocks(cls, blocks, *, bint verify=True):
        """The table whose `blocks` these are. Every index is checked, with `verify` the content hashes too; FormatError
        for blocks that are damaged or do not fit each other."""
        cdef Block block = tagged(blocks, "SIGN")
        if "NAME" not in blocks:
            raise FormatError(block.path, 0, "signals without their names")
        return table_of(block, names_of_block(tagged(blocks, "NAME"), verify), verify)

    def blocks(self):
        """Dict of the blocks that `of_blocks` takes, by tag."""
        return {"SIGN": self._block, "NAME": self._names._block}

    @property
    def nbytes(self):
        """Bytes of the rows and of the name table."""
        return self._block.nbytes + self._names.nbytes

    @property
    def content_hash(self):
        """32 hex digits over rows, terms and the digest of the names: equal hashes decide alike."""
        return self._block.content_hash()

    @property
    def words(self):
        """64-bit words in one bit vector."""
        return self._signals.words

    cdef int and_rows(self, uint64_t *vector, uint64_t *scratch, str sni, object tls) except -1:
        cdef uint32_t words = self._signals.words, asks = self._signals.asks
        cdef bint given = type(tls) is ClientHello
        cdef bint good = given and (<ClientHello>tls)._frame.status == GBF_HELLO_OK
        cdef uint32_t row
        cdef uint8_t computed[48]
        cdef int unparsable = GBF_UNPARSABLE_NONE
        if asks & GBF_ASKS_HELLO:
            if good:
                gbf_connection_and_hello(&self._signals, &(<ClientHello>tls)._hello, vector)
                if asks & GBF_ASKS_JA4:
                    (<ClientHello>tls).ja4_bytes(computed)
                    gbf_connection_and_ja4(&self._signals, computed, vector, scratch)
                if asks & GBF_ASKS_ALPN:
                    gbf_connection_and_alpn(&self._signals, &(<ClientHello>tls)._hello, vector, scratch)
            elif tls is not None and not given and asks & GBF_ASKS_JA4:
                unparsable = self.and_ja4(vector, scratch, <str>tls)
                if asks & GBF_QUIET_JA4:
                    unparsable = GBF_UNPARSABLE_NONE
            else:
                row = GBF_ROW_MALFORMED if given else GBF_ROW_ABSENT
                gbf_bits_and(vector, self._signals.hello_rows + row * words, words)
                if given and not asks & GBF_QUIET_HELLO:
                    unparsable = GBF_UNPARSABLE_HELLO
        if asks & GBF_ASKS_NAME:
            row = self.name_row(scratch, sni, tls)
            if row == GBF_ROW_KNOWN:
                gbf_connection_and_name(&self._signals, scratch, vector)
            else:
                gbf_connection_and_name(&self._signals, gbf_connection_name_row(&self._signals, row), vector)
            if row == GBF_ROW_MALFORMED and unparsable == GBF_UNPARSABLE_NONE and not asks & GBF_QUIET_NAME:
                unparsable = GBF_UNPARSABLE_HELLO if sni is None and not good else GBF_UNPARSABLE_SNI
        return unparsable

    cdef int and_ja4(self, uint64_t *vector, uint64_t *scratch, str ja4) except -1:
        cdef uint32_t words = self._signals.words
        cdef const char *text
        cdef size_t nbytes
        if not gbf_ascii(ja4, &text, &nbytes) or not gbf_ja4_shaped(text, nbytes):
            gbf_bits_and(vector, self._signals.hello_rows + GBF_ROW_MALFORMED * words, words)
            return GBF_UNPARSABLE_JA4
        gbf_bits_and(vector, self._signals.hello_rows + GBF_ROW_TOLD * words, words)
        gbf_connection_and_ja4(&self._signals, <const uint8_t *>text, vector, scratch)
        return GBF_UNPARSABLE_NONE

    cdef uint32_t name_row(self, uint64_t *scratch, str sni, object tls) except 0xFFFFFFFF:
        cdef gbf_name name
        cdef uint32_t width = 2 * self._signals.words
        cdef uint32_t kind = read_server_name(&name, sni, tls, self._names._table.fold)
        if kind != GBF_ROW_KNOWN:
            return kind
        memcpy(scratch, gbf_connection_name_row(&self._signals, GBF_ROW_KNOWN), 8 * width)
        gbf_name_union(&self._names._table, &name, self._signals.name_rows, self._signals.name_row_count, width,
                       scratch)
        if self._names._regexes is not None:
            for value in self._names._regexes.all(text_of(&name)):
                if value < self._signals.name_row_count:
                    gbf_bits_or(scratch, gbf_connection_name_row(&self._signals, value), width)
        return GBF_ROW_KNOWN


only_whole(ConnectionTable)


cdef ConnectionTable table_of(Block block, NameTable names, bint verify):
    cdef gbf_connection opened
    cdef gbf_fault fault
    cdef ConnectionTable table
    raise_for(gbf_connection_open(&opened, block.data, block.nbytes, verify, &fault), &fault, block.path)
    table = ConnectionTable.__new__(ConnectionTable)
    table._signals, table._block, table._names = opened, block, names
    return table
