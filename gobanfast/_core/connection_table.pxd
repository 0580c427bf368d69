from libc.stdint cimport uint32_t, uint64_t

from gobanfast._core.block cimport Block
from gobanfast._core.name_table cimport NameTable
from gobanfast._core.native.name cimport gbf_fold, gbf_name
from gobanfast._core.native.rules cimport gbf_connection


# GBF_ROW_ABSENT, GBF_ROW_MALFORMED, or GBF_ROW_KNOWN: then `name` is the server name `sni`, or that of the hello.
cdef uint32_t read_server_name(gbf_name *name, str sni, object tls, gbf_fold fold) noexcept


cdef class ConnectionTable:
    cdef gbf_connection _signals
    cdef Block _block
    cdef NameTable _names

    # ANDs into `vector` what the name (None: that of the hello, else absent) and `tls` satisfy: a ClientHello, or the
    # str of a JA4 for want of one, or None. `scratch` is twice as long. Gives the gbf_unparsable.
    cdef int and_rows(self, uint64_t *vector, uint64_t *scratch, str sni, object tls) except -1

    # ANDs into `vector` what this JA4 and no hello satisfy; `scratch` is as long. GBF_UNPARSABLE_JA4: it has not the
    # shape of one.
    cdef int and_ja4(self, uint64_t *vector, uint64_t *scratch, str ja4) except -1

    # Kind of row for the name: absent, malformed, or known with the union of its rows in `scratch`.
    cdef uint32_t name_row(self, uint64_t *scratch, str sni, object tls) except 0xFFFFFFFF
