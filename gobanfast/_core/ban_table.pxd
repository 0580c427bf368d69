from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from gobanfast._core.native.state cimport (
    GBF_BAN_EPOCH, gbf_ban, gbf_ban_change, gbf_ban_key, gbf_bans, gbf_bans_counts, gbf_labels,
)

# Table time of engine seconds: whole milliseconds, rounded to the nearest. Not for NaN or beyond +-2000 years.
cdef inline uint64_t ban_time(double seconds) noexcept nogil:
    return GBF_BAN_EPOCH + <uint64_t><int64_t>(seconds * 1000 + (0.5 if seconds >= 0 else -0.5))


# The hot path asks `gbf_bans_find(table._bans, &who, 0, &ban)`: no lock, no object, and at time 0
# whatever is stored holds, so that only a hit has to read the clock: then it asks again at `ban_time(now)`. Only when
# that returns 1 is there something for Python: `table.ban_of(&ban)`.
cdef class BanTable:
    cdef gbf_bans *_bans  # lives as long as the object
    cdef gbf_labels *_labels  # the same
    cdef object _clock  # None: time.monotonic
    cdef object _lock  # a Python lock, held around every call that takes gbf_bans.lock; see gbf_lock.h, Fork
    cdef int64_t _offset_ms  # Unix milliseconds at engine time 0
    cdef uint64_t _seed
    cdef list _texts  # reasons and rule ids by number; 0 is none
    cdef dict _numbers
    cdef set _pinned  # numbers of words that rules name, kept for good
    cdef list _spare  # numbers of texts that are free again
    cdef uint64_t _texts_lost, _sweep_at
    cdef list _waiters  # locks that readers of the feed wait on, all for a change after _waited
    cdef uint64_t _waited
    cdef object __weakref__

    # Bans `key` for `duration` seconds (None: for good), longer by the policy when made by a rule or a tracker. `by` is
    # a gbf_maker. Returns a gbf_ban_outcome; fills `out` unless that is GBF_BAN_REFUSED.
    cdef int make(self, const gbf_ban_key *key, object duration, str reason, str rule, uint8_t by, uint64_t now,
                  gbf_ban *out) except -1
    # The Ban that callers see. Soon: once the last ban with some text is gone, its number may name another text.
    cdef object ban_of(self, const gbf_ban *ban)
    cdef object label_record(self, const gbf_ban *label)  # the record of a label, the same way
    cdef uint16_t pin(self, str word) except? 0
    cdef double to_unix(self, uint64_t ms) noexcept
    cdef uint64_t from_unix(self, double seconds) except? 0
    cdef uint64_t moment(self, object now) except? 0
    cdef uint32_t number(self, str text, uint32_t keep) except? 0
    cdef int sweep(self, uint32_t keep) except -1
    cdef int notify(self) except -1  # after a write, with the lock held
    cdef int wake_all(self) except -1
    cdef object change_of(self, const gbf_ban_change *change)
    cdef gbf_bans_counts counts(self)
    cdef tuple chunk(self, uint32_t cursor, uint64_t now)

# The key of a canonical or other text form; ValueError for what is none.
cdef int read_key(str text, gbf_ban_key *key) except -1
cdef int read_label_key(str text, gbf_ban_key *key) except -1  # of a session, too
cdef str key_text(const gbf_ban_key *key)
cdef int uid_of(str name, gbf_ban_key *key) except -1  # of a name as a request says it, which is not empty
cdef uint64_t span(object seconds, str what) except? 0
cdef uint8_t by_number(str by, str argument) except? 0
