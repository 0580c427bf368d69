"""LabelTable: labels in a fixed budget, beside a ban table whose clock, texts and change feed they share."""

cimport cython
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from gobanfast._core.ban_table cimport BanTable, by_number, key_text, read_label_key, span
from gobanfast._core.made cimport only_whole
from gobanfast._core.native.state cimport (
    GBF_BAN_FOREVER, GBF_BAN_REFUSED, GBF_BANS_COPY, GBF_LABELS_WORDS, gbf_ban, gbf_ban_key, gbf_label_words,
    gbf_labels_copy, gbf_labels_count, gbf_labels_counts, gbf_labels_get, gbf_labels_lift, gbf_labels_nbytes,
    gbf_labels_of, gbf_labels_purge, gbf_labels_put,
)

from gobanfast._core import enums
from gobanfast.bans import Label, label_of, label_word, record_key

cdef tuple MAKERS = enums.MAKERS


@cython.final
cdef class LabelTable:
    """LabelTable(bans)\n--\n
    Labels by key: of an address, a prefix, an AS, a fingerprint, a fingerprint at a client, a user or a session.

    It has room for `BanTable(labels=)` of them, 72 bytes a label, taken as it fills; a full one refuses new labels
    (counted in `stats`, seen in `saturated`) and never evicts a ban. A key carries 64 words at most. Of two labels of
    one key and word the later end stays. What is over carries nothing, and makes room by and by.

    Args:
        bans: the BanTable beside which the labels are; there is one table of labels for each.
    Threads: any number may read and write.
    """

    @staticmethod
    def _make(BanTable bans not None):
        cdef LabelTable table = LabelTable.__new__(LabelTable)
        table._table = bans
        return table

    cdef uint16_t known(self, str word) except? 0:
        """The number of a word that is stored; 0: none is."""
        return <uint16_t>self._table._numbers.get(word, 0)

    cdef object made(self, const gbf_ban *label):
        cdef BanTable table = self._table
        return Label(
            key_text(&label.key), table._texts[label.rule], table._texts[label.reason], table.to_unix(label.created),
            None if label.expires == GBF_BAN_FOREVER else table.to_unix(label.expires), MAKERS[label.by],
        )

    # ---- writing

    cdef object store(self, str key, str word, uint64_t created, uint64_t expires, str reason, str by, str maker,
                      uint64_t now):
        """The label as it then stands; None: refused. One that is over is given back, and not stored."""
        cdef BanTable table = self._table
        cdef gbf_ban wanted, out
        cdef int outcome = GBF_BAN_REFUSED
        memset(&wanted, 0, sizeof(wanted))
        read_label_key(key, &wanted.key)
        label_word(word)
        wanted.created, wanted.expires, wanted.by = created, expires, by_number(by, "by")
        number = by_number(maker, "maker")
        with table._lock:
            wanted.rule = <uint16_t>table.number(word, 0)
            wanted.reason = <uint16_t>table.number(reason, wanted.rule)
            if wanted.rule:
                outcome = gbf_labels_put(table._labels, &wanted, number, now, &out)
            table.notify()
        return None if outcome == GBF_BAN_REFUSED else self.made(&out)

    def add(self, str key not None, str word not None, *, duration, str reason not None="", str by not None="manual",
            now=None):
        """The label as it now stands; None when there is no room.

        Args:
            key: see `gobanfast.bans.label_key`.
            word: up to 32 of a-z, 0-9, '.', '_' and '-'.
            duration: seconds; None is for good. A label is never shortened: take it off first.
            reason: why; the first 200 characters are kept.
            by: as for `BanTable.ban`.
        """
        cdef uint64_t moment = self._table.moment(now), lasts = span(duration, "duration")
        cdef uint64_t expires = GBF_BAN_FOREVER if lasts >= GBF_BAN_FOREVER - moment else moment + lasts
        return self.store(key, word, moment, expires, reason, by, by, moment)

    def put(self, record not None, *, str maker not None="store", now=None):
        """Takes over the record of a label made elsewhere (`Label.record`); False when there is no room."""
        cdef BanTable table = self._table
        label = label_of(record)
        expires = GBF_BAN_FOREVER if label.expires is None else table.from_unix(label.expires)
        return self.store(label.key, label.word, table.from_unix(label.created), expires, label.reason, label.by, maker,
                          table.moment(now)) is not None

    def remove(self, str key not None, str word not None, *, str maker not None="manual", now=None):
        """The label that `key` carried, and now does not any more; None when there was none."""
        cdef BanTable table = self._table
        cdef gbf_ban_key wanted
        cdef gbf_ban out
        cdef uint64_t moment = table.moment(now)
        read_label_key(key, &wanted)
        by = by_number(maker, "maker")
        with table._lock:
            number = self.known(label_word(word))
            lifted = number and gbf_labels_lift(table._labels, &wanted, number, by, moment, &out)
            table.notify()
        return self.made(&out) if lifted else None

    def unban(self, str key not None, *, str maker not None="manual", now=None):
        """The same by the key of a record, `label:<word>:<key>`; its record."""
        _, word, labelled = record_key(key).split(":", 2)
        found = self.remove(labelled, word, maker=maker, now=now)
        return None if found is None else found.record

    def purge(self, *, now=None):
        """Number of labels that were over at `now` and still took room. No answer depends on it."""
        cdef BanTable table = self._table
        cdef uint64_t moment = table.moment(now), before = self.counts().ended
        cdef uint32_t cursor = 0
        cdef int more = 1
        while more:
            with table._lock:
                with nogil:
                    more = gbf_labels_purge(table._labels, &cursor, moment, 1024)
        return self.counts().ended - before

    # ---- reading

    def find(self, str key not None, str word not None, *, now=None):
        """The label of this word that exactly this key carries, or None."""
        cdef BanTable table = self._table
        cdef gbf_ban_key wanted
        cdef gbf_ban out
        cdef uint64_t moment = table.moment(now)
        read_label_key(key, &wanted)
        with table._lock:
            number = self.known(label_word(word))
            found = number and gbf_labels_get(table._labels, &wanted, number, moment, &out)
        return self.made(&out) if found else None

    def get(self, str key not None, *, now=None):
        """The record of a label by its key, `label:<word>:<key>`; None when there is none."""
        _, word, labelled = record_key(key).split(":", 2)
        found = self.find(labelled, word, now=now)
        return None if found is None else found.record

    def carries(self, str key not None, words, *, now=None):
        """Those of at most 64 `words` that exactly this key carries, as a tuple."""
        cdef BanTable table = self._table
        cdef gbf_ban_key wanted
        cdef gbf_label_words asked
        cdef uint64_t bits
        cdef uint32_t i
        words = tuple(words)
        if len(words) > GBF_LABELS_WORDS:
            raise ValueError(f"{len(words)} words are asked for; {GBF_LABELS_WORDS} are the most")
        read_label_key(key, &wanted)
        asked.count = <uint32_t>len(words)
        for i in range(asked.count):
            asked.number[i] = self.known(label_word(words[i]))
        bits = gbf_labels_of(table._labels, &wanted, &asked, table.moment(now))
        return tuple([words[i] for i in range(asked.count) if bits >> i & 1])

    def labels(self, *, now=None):
        """Iterator over the labels in force at `now`, in no order; what comes or goes meanwhile may come or not."""
        return self._each(self._table.moment(now))

    def stored(self, *, now=None):
        """The same as records, `Label.record`."""
        return (label.record for label in self._each(self._table.moment(now)))

    def _each(self, uint64_t now):
        cursor = 0
        while cursor is not None:
            found, cursor = self.chunk(cursor, now)
            yield from found

    cdef tuple chunk(self, uint64_t cursor, uint64_t now):
        """(list of labels, cursor of the next chunk or None)."""
        cdef BanTable table = self._table
        cdef uint32_t i, count, at = <uint32_t>cursor
        cdef int more
        cdef gbf_ban *labels = <gbf_ban *>PyMem_Malloc(GBF_BANS_COPY * sizeof(gbf_ban))
        if labels == NULL:
            raise MemoryError()
        try:
            with table._lock:
                more = gbf_labels_copy(table._labels, &at, labels, &count, now)
            return [self.made(&labels[i]) for i in range(count)], at if more else None
        finally:
            PyMem_Free(labels)

    # ---- figures

    cdef gbf_labels_counts counts(self):
        with self._table._lock:
            return gbf_labels_count(self._table._labels)

    def __len__(self):
        return self.counts().active

    @property
    def capacity(self):
        """Most labels it holds."""
        return self._table._labels.capacity

    @property
    def saturated(self):
        """True when there is no room for another label. What is over and not yet purged takes room until then."""
        return self.counts().active == self._table._labels.capacity

    @property
    def nbytes(self):
        """Bytes taken so far."""
        with self._table._lock:
            return gbf_labels_nbytes(self._table._labels)

    def stats(self):
        """Figures by name. Now: labels, capacity. Since the table was made: added, extended, lifted, ended, refused."""
        cdef gbf_labels_counts counts = self.counts()
        return {
            "labels": counts.active, "capacity": self._table._labels.capacity, "added": counts.added,
            "extended": counts.extended, "lifted": counts.lifted, "ended": counts.ended, "refused": counts.refused,
        }

    def __repr__(self):
        return f"<LabelTable {len(self)} of {self.capacity} labels>"


only_whole(LabelTable)
