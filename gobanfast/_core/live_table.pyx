"""LiveTable: rows of what live state knows of a request, its labels and its session, beside those of what it says."""

cimport cython
from libc.stdint cimport uint32_t, uint64_t

from gobanfast._core.made cimport only_whole
from gobanfast._core.native.rules cimport gbf_bits_and
from gobanfast._core.native.state cimport GBF_LABELS_WORDS

cdef Py_ssize_t MOST_ROWS = 4096  # sets of words whose rows are remembered


@cython.final
cdef class LiveTable:
    """LiveTable(labels, words, matcher, none, sessions, unknown, favour, of_admit, varies, queries)\n--\n
    Rows of labels and sessions, which a decision ANDs into its vector before it looks for the first bit.

    Args:
        labels: the words that rules name, at most 64.
        words: uint64 words of a row.
        matcher: called with masks of words (ints, bit i is labels[i]), one for each reading of what a request carries;
            returns the row as bytes.
        none: its row of a request that carries nothing.
        sessions: rows of the states of a session: "unknown", "absent", "present", "malformed".
        unknown: row where nobody knows of labels or session; favour: row of a preflight.
        of_admit: whether a rule about admission asks for any of it.
        varies, queries: names of the headers and query parameters that a session may be in.
    Raises:
        ValueError: rows of another length; more words.
    """

    @staticmethod
    def _make(tuple labels not None, uint32_t words, matcher not None, bytes none not None, bytes sessions not None,
              bytes unknown not None, bytes favour not None, bint of_admit, tuple varies not None,
              tuple queries not None):
        cdef LiveTable table = LiveTable.__new__(LiveTable)
        if len(labels) > GBF_LABELS_WORDS:
            raise ValueError(f"{len(labels)} words of labels in rules; {GBF_LABELS_WORDS} are the most")
        if {len(none), len(unknown), len(favour), len(sessions) // 4} != {8 * words} or len(sessions) % 4:
            raise ValueError("rows do not fit the rules")
        table.labels, table.words, table._matcher, table._none = labels, words, matcher, none
        table._sessions, table.unknown, table.favour, table.of_admit = sessions, unknown, favour, of_admit
        table._rows, table.varies, table.queries = {}, varies, queries
        table._varies = tuple([name.encode() for name in varies])
        return table

    cdef int and_labels(self, uint64_t *vector, const uint64_t *masks, uint32_t count) except -1:
        cdef bytes key, row
        cdef uint32_t i
        for i in range(1, count):
            if masks[i] != masks[0]:
                break
        else:
            count = 1  # all say the same
        if count == 1 and masks[0] == 0:
            gbf_bits_and(vector, <const uint64_t *><const char *>self._none, self.words)
            return 0
        key = (<const char *>masks)[:8 * count]
        found = self._rows.get(key)
        if found is None:
            row = self._matcher(*[masks[i] for i in range(count)])
            if len(row) != 8 * self.words:
                raise ValueError("rows do not fit the rules")
            if len(self._rows) >= MOST_ROWS:
                self._rows = {}
            self._rows[key] = row
        else:
            row = found
        gbf_bits_and(vector, <const uint64_t *><const char *>row, self.words)
        return 0

    cdef int and_session(self, uint64_t *vector, int state) noexcept:
        gbf_bits_and(vector, <const uint64_t *><const char *>self._sessions + <uint32_t>state * self.words, self.words)
        return 0

    cdef int and_favour(self, uint64_t *vector) noexcept:
        gbf_bits_and(vector, <const uint64_t *><const char *>self.favour, self.words)
        return 0

    cdef int and_unknown(self, uint64_t *vector) noexcept:
        gbf_bits_and(vector, <const uint64_t *><const char *>self.unknown, self.words)
        return 0


only_whole(LiveTable)
