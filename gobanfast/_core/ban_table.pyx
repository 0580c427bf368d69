"""BanTable: bans in a fixed budget, read without a lock. Long because one class has bans, texts and the change feed."""

import os
import time
from _thread import allocate_lock

cimport cython
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.time cimport monotonic
from libc.math cimport INFINITY, ceil, isfinite
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from gobanfast._core.address cimport gbf_ascii, pick_kernel, prefix_text, read_prefix, text_of
from gobanfast._core.made cimport only_whole
from gobanfast._core.native.address cimport gbf_addr, gbf_lpm_kernel
from gobanfast._core.native.base cimport GBF_BY_RULE, GBF_BY_TRACKER, GBF_FEED_LABEL
from gobanfast._core.native.state cimport (
    GBF_BAN_ASN, GBF_BAN_EPOCH, GBF_BAN_EVERYONE, GBF_BAN_FINGERPRINT, GBF_BAN_FINGERPRINT_AT4,
    GBF_BAN_FINGERPRINT_AT6, GBF_BAN_FOREVER, GBF_BAN_IP4, GBF_BAN_REFUSED, GBF_BAN_SESSION, GBF_BAN_UID,
    GBF_BAN_UID_BYTES, GBF_BAN_UID_HASHED, GBF_BANS_COPY, GBF_FEED_SLOTS, gbf_ban,
    gbf_ban_asn, gbf_ban_change, gbf_ban_fingerprint, gbf_ban_key, gbf_ban_prefix, gbf_bans_ban, gbf_bans_changes,
    gbf_bans_close, gbf_bans_closed, gbf_bans_configure, gbf_bans_copy, gbf_bans_count, gbf_bans_counts,
    gbf_bans_extend, gbf_bans_find, gbf_bans_follow, gbf_bans_free, gbf_bans_get, gbf_bans_head, gbf_bans_holds,
    gbf_bans_lift, gbf_bans_nbytes, gbf_bans_new, gbf_bans_policy, gbf_bans_purge, gbf_bans_put, gbf_bans_restart,
    gbf_bans_texts, gbf_ban_session, gbf_ban_uid, gbf_ban_who, gbf_labels_free, gbf_labels_nbytes, gbf_labels_new,
    gbf_labels_texts,
)

from gobanfast._core import enums
from gobanfast._fork import watch_forks
from gobanfast.bans import Ban, BanChange, ban_key, label_key, uid_key

cdef tuple MAKERS = enums.MAKERS, EVENTS = enums.EVENTS, FEED_KINDS = enums.FEED_KINDS
cdef uint32_t MOST_BANS = (1 << 24) - 1
cdef uint32_t MOST_LABELS = (1 << 22) - 1
cdef Py_ssize_t MOST_TEXTS = 65536, TEXT_CHARACTERS = 200
cdef const gbf_lpm_kernel *KERNEL = pick_kernel(None)
cdef double LONGEST_WAIT = 1e6  # seconds
cdef double TIME_LIMIT = 6e10  # seconds either way: 1,900 years


cdef int read_key(str text, gbf_ban_key *key) except -1:
    cdef gbf_addr address
    cdef uint32_t bits
    cdef uint64_t fingerprint[2]
    cdef const char *start
    cdef size_t n
    if gbf_ascii(text, &start, &n) and KERNEL.parse(start, n, &address):
        key[0] = gbf_ban_prefix(address, 128)
        return 0
    text = ban_key(text)
    if text.startswith("AS"):
        key[0] = gbf_ban_asn(int(text[2:]))
    elif text.startswith("uid:"):
        read_uid(text, key)
    elif text.startswith("gh2:"):
        read_fingerprint(text, fingerprint)
        if len(text) == 36:
            key[0] = gbf_ban_fingerprint(fingerprint)
        else:
            read_prefix(text[37:], &address, &bits)
            key[0] = gbf_ban_fingerprint(fingerprint)
            key.kind = GBF_BAN_FINGERPRINT_AT4 if bits == 128 else GBF_BAN_FINGERPRINT_AT6 + (64 - bits) // 8
            key.word[2] = address.low if bits == 128 else address.high
    else:
        read_prefix(text, &address, &bits)
        key[0] = gbf_ban_prefix(address, bits)
    return 0


cdef int read_uid(str text, gbf_ban_key *key) except -1:
    cdef bytes name = text[4:].encode("utf-8", "surrogatepass")
    if name.startswith(b"#"):
        name = bytes.fromhex(text[5:])
        key[0] = gbf_ban_uid(<const uint8_t *><const char *>name, 16, GBF_BAN_UID_HASHED)
    else:
        key[0] = gbf_ban_uid(<const uint8_t *><const char *>name, <uint32_t>len(name), <uint8_t>len(name))
    return 0


cdef int uid_of(str name, gbf_ban_key *key) except -1:
    cdef const char *text
    cdef size_t n, i
    if gbf_ascii(name, &text, &n) and 0 < n <= GBF_BAN_UID_BYTES and text[0] != c"#":
        i = 0
        while i < n and 32 <= text[i] < 127:
            i += 1
        if i == n:
            key[0] = gbf_ban_uid(<const uint8_t *>text, <uint32_t>n, <uint8_t>n)
            return 0
    return read_uid(uid_key(name), key)


cdef int read_label_key(str text, gbf_ban_key *key) except -1:
    if not text.startswith("session:"):
        return read_key(text, key)
    text = label_key(text)
    key[0] = gbf_ban_session(int(text[17:33], 16), int(text[33:], 16), int(text[8:16], 16))
    return 0


cdef int read_fingerprint(str text, uint64_t *fingerprint) except -1:
    fingerprint[0] = int(text[4:20], 16)
    fingerprint[1] = int(text[20:36], 16)
    return 0


cdef str key_text(const gbf_ban_key *key):
    if key.kind == 128 or key.kind == GBF_BAN_IP4 + 32:
        return text_of(gbf_addr(key.word[0], key.word[1]))
    if key.kind < GBF_BAN_ASN:
        return prefix_text(gbf_addr(key.word[0], key.word[1]),
                           key.kind if key.kind < GBF_BAN_IP4 else key.kind - GBF_BAN_IP4 + 96)
    if key.kind == GBF_BAN_ASN:
        return f"AS{key.word[0]}"
    if key.kind == GBF_BAN_UID:
        return uid_text(key)
    if key.kind == GBF_BAN_SESSION:
        return f"session:{key.word[2]:08x}:{key.word[0]:016x}{key.word[1]:016x}"
    cdef str text = f"gh2:{key.word[0]:016x}{key.word[1]:016x}"
    if key.kind == GBF_BAN_FINGERPRINT:
        return text
    if key.kind == GBF_BAN_FINGERPRINT_AT4:
        return f"{text}@{text_of(gbf_addr(0, key.word[2]))}"
    return f"{text}@{prefix_text(gbf_addr(key.word[2], 0), 64 - 8 * (key.kind - GBF_BAN_FINGERPRINT_AT6))}"


cdef str uid_text(const gbf_ban_key *key):
    cdef const uint8_t *name = <const uint8_t *>key.word
    if name[23] == GBF_BAN_UID_HASHED:
        return f"uid:#{(<const char *>name)[:16].hex()}"
    return "uid:" + (<const char *>name)[:min(name[23], GBF_BAN_UID_BYTES)].decode("utf-8", "replace")


cdef uint64_t span(object seconds, str what) except? 0:
    """Milliseconds of a length of time, rounded up; None and infinity are for good."""
    if seconds is None:
        return GBF_BAN_FOREVER
    cdef double length = seconds
    if not length > 0:
        raise ValueError(f"{what} {seconds!r} is not a positive number of seconds; None is for good")
    return GBF_BAN_FOREVER if length >= TIME_LIMIT else <uint64_t>ceil(length * 1000 - 1e-6)


@cython.final
cdef class BanTable:
    """BanTable(*, capacity=1_000_000, on_full='refuse', escalate=None, clock=None, offset=None, seed=None, \
labels=100_000)\n--\n
    Bans by address, prefix, AS, fingerprint, fingerprint at a client, and user; see `gobanfast.bans.ban_key`.

    Args:
        capacity: most bans it holds, up to 16,777,215. 59 bytes a ban are taken as it fills, and stay taken.
        on_full: "refuse" a new ban (counted in `stats`, seen in `saturated`), or "evict" the one that ends soonest.
        escalate: an object with factor, cap, jitter and memory, as `Escalation` of the settings: the second ban in a
            row made by a rule or tracker lasts `factor` times as long as asked, and so on up to `cap` seconds, plus a
            random share up to `jitter`. A key free for `memory` seconds starts again. None: as long as asked.
        clock: engine seconds, when a call gets no `now=`; goes forward only. None: time.monotonic.
        offset: Unix seconds at engine second 0; None takes what the two clocks say now.
        seed: draws the jitter: the same seed, key and count give the same length.
        labels: most labels that the table beside it holds: see `labels`.
    Times inside are whole milliseconds of the engine's clock. A jump of the wall clock changes nothing in the table.
    Threads: any number may read and write; readers take no lock. A child of fork has the bans its parent had.
    """

    @staticmethod
    def _make(*, capacity=1_000_000, str on_full not None="refuse", escalate=None, clock=None, offset=None, seed=None,
              labels=100_000):
        cdef gbf_bans_policy policy
        cdef uint64_t random[10]
        cdef bytes secret = os.urandom(sizeof(random))
        cdef gbf_bans *bans
        cdef BanTable table
        cdef uint64_t jitter = int.from_bytes(os.urandom(8), "little") if seed is None else seed & 0xFFFFFFFFFFFFFFFF
        cdef int64_t offset_ms
        if not 1 <= capacity <= MOST_BANS:
            raise ValueError(f"capacity={capacity!r} is not 1 to {MOST_BANS}")
        if not 1 <= labels <= MOST_LABELS:
            raise ValueError(f"labels={labels!r} is not 1 to {MOST_LABELS}")
        if offset is None:
            offset = time.time() - (time.monotonic() if clock is None else clock())
        offset_ms = round(1000 * offset)
        read_policy(escalate, on_full, jitter, &policy)
        memcpy(random, <const char *>secret, sizeof(random))
        texts, numbers, spare, waiters, lock = [""], {}, [], [], allocate_lock()
        bans = gbf_bans_new(capacity, &policy, random)
        if bans == NULL:
            raise MemoryError()
        table = BanTable.__new__(BanTable)
        table._labels = gbf_labels_new(bans, labels)
        table._bans, table._clock, table._offset_ms, table._seed = bans, clock, offset_ms, jitter
        table._texts, table._numbers, table._spare, table._lock = texts, numbers, spare, lock
        table._waiters, table._pinned = waiters, set()
        if table._labels == NULL:
            raise MemoryError()
        watch_forks(table)
        return table

    def __dealloc__(self):
        gbf_labels_free(self._labels)
        gbf_bans_free(self._bans)

    # ---- times

    cdef uint64_t moment(self, object now) except? 0:
        cdef double seconds
        if now is not None:
            seconds = now
        else:
            seconds = monotonic() if self._clock is None else self._clock()
        if not -TIME_LIMIT < seconds < TIME_LIMIT:
            raise ValueError(f"now={seconds!r} is no time in seconds")
        return ban_time(seconds)

    cdef uint64_t from_unix(self, double seconds) except? 0:
        if not isfinite(seconds):
            if seconds > 0:
                return GBF_BAN_FOREVER
            raise ValueError(f"{seconds!r} is no time in Unix seconds")
        if seconds >= TIME_LIMIT:
            return GBF_BAN_FOREVER
        if seconds <= -TIME_LIMIT:
            return 0
        return max(0, <int64_t>(ban_time(seconds)) - self._offset_ms)

    cdef double to_unix(self, uint64_t ms) noexcept:
        return <double>(<int64_t>(ms - GBF_BAN_EPOCH) + self._offset_ms) / 1000

    @property
    def offset(self):
        """Unix seconds at engine second 0, fixed when the table was made: Unix times in and out go through it."""
        return self._offset_ms / 1000

    # ---- texts of reasons and rule ids

    cdef uint32_t number(self, str text, uint32_t keep) except? 0:
        """The number of a text; that of `keep` stays what it is, though no entry names it yet."""
        if not text:
            return 0
        text = text[:TEXT_CHARACTERS]
        found = self._numbers.get(text)
        if found is not None:
            return found
        if not self._spare and len(self._texts) == MOST_TEXTS and self._texts_lost >= self._sweep_at:
            self.sweep(keep)
        if self._spare:
            found = self._spare.pop()
            self._texts[found] = text
        elif len(self._texts) < MOST_TEXTS:
            found = len(self._texts)
            self._texts.append(text)
        else:
            self._texts_lost += 1
            return 0
        self._numbers[text] = found
        return found

    cdef int sweep(self, uint32_t keep) except -1:
        """Frees the numbers of texts that no entry names but `keep`; not again before 4096 more texts found no room."""
        cdef uint32_t cursor = 0
        cdef bytearray marks = bytearray(MOST_TEXTS)
        cdef uint8_t *used = marks
        used[keep] = 1
        for found in self._pinned:
            used[<uint32_t>found] = 1
        while gbf_labels_texts(self._labels, &cursor, used):
            pass
        cursor = 0
        while gbf_bans_texts(self._bans, &cursor, used):
            pass
        for found in range(1, MOST_TEXTS):
            if not used[found]:
                del self._numbers[self._texts[found]]
                self._spare.append(found)
        self._sweep_at = self._texts_lost + 4096
        return 0

    cdef uint16_t pin(self, str word) except? 0:
        """The number of a word, from now on for good: rules name it, whether a key carries it or not. 0: no room."""
        cdef uint32_t found
        with self._lock:
            found = self.number(word, 0)
            if found:
                self._pinned.add(found)
        return <uint16_t>found

    @property
    def labels(self):
        """The LabelTable beside it: entries of its own, and the clock, texts and change feed of the bans."""
        from gobanfast._core.label_table import LabelTable

        return LabelTable(self)

    # ---- what is banned

    cdef object ban_of(self, const gbf_ban *ban):
        return Ban(
            key_text(&ban.key), self._texts[ban.reason], self._texts[ban.rule] or None, self.to_unix(ban.created),
            None if ban.expires == GBF_BAN_FOREVER else self.to_unix(ban.expires), ban.count, MAKERS[ban.by],
        )

    cdef object label_record(self, const gbf_ban *label):
        return Ban(
            f"label:{self._texts[label.rule]}:{key_text(&label.key)}", self._texts[label.reason], None,
            self.to_unix(label.created), None if label.expires == GBF_BAN_FOREVER else self.to_unix(label.expires), 1,
            MAKERS[label.by],
        )

    def get(self, str key not None, *, now=None):
        """The ban of exactly this key, or None."""
        cdef gbf_ban_key wanted
        cdef gbf_ban ban
        read_key(key, &wanted)
        return self.ban_of(&ban) if gbf_bans_get(self._bans, &wanted, self.moment(now), &ban) else None

    def lookup(self, str address=None, *, uint32_t asn=0, str fingerprint=None, str uid=None, now=None):
        """The ban that keeps a request out, or None: of all that hold, on any key of it, the one that lasts longest.
        The flag `closed` is no ban.

        Args:
            address: the client's; its prefixes are asked for too, and an IPv4 address inside it (NAT64, 6to4, Teredo).
            asn: the origin AS; 0 is unknown.
            fingerprint: "gh2:" and 32 hex digits; asked for alone, and at the client when there is an address.
            uid: the name of who is logged in.
        """
        cdef gbf_addr parsed
        cdef gbf_ban ban
        cdef gbf_ban_key user
        cdef gbf_ban_who who
        cdef uint64_t words[2]
        cdef const char *start
        cdef size_t n
        who.address, who.fingerprint, who.uid, who.asn = NULL, NULL, NULL, asn
        if address is not None and gbf_ascii(address, &start, &n) and KERNEL.parse(start, n, &parsed):
            who.address = &parsed
        if fingerprint is not None:
            read_fingerprint(ban_key(fingerprint), words)
            who.fingerprint = words
        if uid:
            uid_of(uid, &user)
            who.uid = &user
        if not gbf_bans_find(self._bans, &who, 0, &ban):
            return None  # without a look at the clock
        if not gbf_bans_find(self._bans, &who, self.moment(now), &ban):
            return None
        return None if ban.key.kind == GBF_BAN_EVERYONE else self.ban_of(&ban)

    def __contains__(self, str key not None):
        cdef gbf_ban_key wanted
        cdef gbf_ban ban
        read_key(key, &wanted)
        return bool(gbf_bans_get(self._bans, &wanted, 0, &ban) and
                    gbf_bans_get(self._bans, &wanted, self.moment(None), &ban))

    def __len__(self):
        return self.counts().active

    def bans(self, *, now=None):
        """Iterator over the bans that hold at `now`, in no order. Others may write meanwhile: what is banned from the
        first to the last step comes once; what comes or goes in between may come or not."""
        return self._each(self.moment(now))

    def _each(self, uint64_t now):
        cursor = 0
        while cursor is not None:
            found, cursor = self.chunk(cursor, now)
            yield from found

    cdef tuple chunk(self, uint32_t cursor, uint64_t now):
        """(list of bans, cursor of the next chunk or None)."""
        cdef uint32_t i, count
        cdef int more
        cdef gbf_ban *bans = <gbf_ban *>PyMem_Malloc(GBF_BANS_COPY * sizeof(gbf_ban))
        if bans == NULL:
            raise MemoryError()
        try:
            with self._lock:
                more = gbf_bans_copy(self._bans, &cursor, bans, &count, now)
            return [self.ban_of(&bans[i]) for i in range(count)], cursor if more else None
        finally:
            PyMem_Free(bans)

    def packed(self, *, now=None):
        """(addresses, lengths, ends, makers, others) of the bans that hold at `now`.

        Those of addresses and prefixes are n x 16 bytes (network order, IPv4 mapped), n bytes (IPv4 /n is 96 + n), n
        float64 Unix seconds (infinite: for good) and n bytes that number `enums.MAKERS`; all others a list of Ban.
        Cost: 0.3 us a ban.
        """
        cdef uint64_t moment = self.moment(now)
        cdef uint32_t i, count, cursor = 0
        cdef int more = 1
        cdef uint8_t packed[16]
        cdef uint8_t bits
        cdef int j
        cdef double until
        cdef gbf_ban *bans = <gbf_ban *>PyMem_Malloc(GBF_BANS_COPY * sizeof(gbf_ban))
        cdef bytearray addresses = bytearray(), lengths = bytearray(), ends = bytearray(), makers = bytearray()
        cdef list others = []
        if bans == NULL:
            raise MemoryError()
        try:
            while more:
                with self._lock:
                    more = gbf_bans_copy(self._bans, &cursor, bans, &count, moment)
                for i in range(count):
                    if bans[i].key.kind >= GBF_BAN_ASN:
                        others.append(self.ban_of(&bans[i]))
                        continue
                    for j in range(8):
                        packed[j] = (bans[i].key.word[0] >> (56 - 8 * j)) & 0xFF
                        packed[8 + j] = (bans[i].key.word[1] >> (56 - 8 * j)) & 0xFF
                    bits = bans[i].key.kind if bans[i].key.kind < GBF_BAN_IP4 else bans[i].key.kind - GBF_BAN_IP4 + 96
                    until = INFINITY if bans[i].expires == GBF_BAN_FOREVER else self.to_unix(bans[i].expires)
                    addresses += (<const char *>packed)[:16]
                    lengths.append(bits)
                    ends += (<const char *>&until)[:8]
                    makers.append(bans[i].by)
        finally:
            PyMem_Free(bans)
        return bytes(addresses), bytes(lengths), bytes(ends), bytes(makers), others

    # ---- writing

    cdef int make(self, const gbf_ban_key *key, object duration, str reason, str rule, uint8_t by, uint64_t now,
                  gbf_ban *out) except -1:
        cdef gbf_ban why
        cdef int outcome = GBF_BAN_REFUSED
        cdef uint64_t duration_ms = span(duration, "duration")
        memset(&why, 0, sizeof(why))
        why.by = by
        with self._lock:
            why.reason = self.number(reason, 0)
            why.rule = self.number(rule, why.reason)
            outcome = gbf_bans_ban(self._bans, key, duration_ms, &why, by in (GBF_BY_RULE, GBF_BY_TRACKER), now, out)
            self.notify()
        return outcome

    def ban(self, str key not None, *, duration, str reason="", str rule=None, str by="manual", now=None):
        """The ban of `key` as it now stands; None when the table is full and refuses.

        Args:
            key: see `ban_key`.
            duration: seconds; None is for good.
            reason, rule: why; the first 200 characters are kept.
            by: "manual", "rule", "tracker", "import" or "store"; those of rules and trackers escalate.
        A ban in force is never shortened: the later expiry wins, and its reason, rule and `by` with it.
        """
        cdef gbf_ban_key wanted
        cdef gbf_ban ban
        read_key(key, &wanted)
        if self.make(&wanted, duration, reason, rule, by_number(by, "by"), self.moment(now), &ban) == GBF_BAN_REFUSED:
            return None
        return self.ban_of(&ban)

    def put(self, ban not None, *, str maker not None="store", now=None):
        """Takes over a Ban made elsewhere; False when the table is full and refuses.

        Args:
            maker: whose doing this is, for readers of `changes`; what `ban.by` says stays as it is.

        Of two about one key the later expiry wins, with its reason, rule, `by` and `created`, and the higher count. One
        that is over is dropped. Nothing escalates.
        """
        cdef gbf_ban entry
        cdef uint64_t moment = self.moment(now)
        cdef uint8_t by = by_number(maker, "maker")
        cdef int outcome = GBF_BAN_REFUSED
        read_key(ban.key, &entry.key)
        entry.expires = GBF_BAN_FOREVER if ban.expires is None else self.from_unix(ban.expires)
        entry.created = self.from_unix(ban.created)
        entry.count = min(max(ban.count, 1), 0xFFFF)
        entry.by = by_number(ban.by, "by")
        with self._lock:
            entry.reason = self.number(ban.reason, 0)
            entry.rule = self.number(ban.rule, entry.reason)
            outcome = gbf_bans_put(self._bans, &entry, by, moment)
            self.notify()
        return outcome != GBF_BAN_REFUSED

    def unban(self, str key not None, *, str maker not None="manual", now=None):
        """The ban of exactly this key, which is lifted and does not count any more; None when there was none. `maker`
        is who lifts it, for readers of `changes`."""
        cdef gbf_ban_key wanted
        cdef gbf_ban ban
        cdef uint64_t moment = self.moment(now)
        cdef uint8_t by = by_number(maker, "maker")
        cdef int lifted
        read_key(key, &wanted)
        with self._lock:
            lifted = gbf_bans_lift(self._bans, &wanted, by, moment, &ban)
            self.notify()
        return self.ban_of(&ban) if lifted else None

    def extend(self, str key not None, *, expires, str maker not None="manual", now=None):
        """The ban of exactly this key, in force until Unix time `expires` at least (None: for good); None when there
        is none. `maker` is who extends it, for readers of `changes`."""
        cdef gbf_ban_key wanted
        cdef gbf_ban ban
        cdef uint64_t until = GBF_BAN_FOREVER if expires is None else self.from_unix(expires)
        cdef uint64_t moment = self.moment(now)
        cdef uint8_t by = by_number(maker, "maker")
        cdef int extended
        read_key(key, &wanted)
        with self._lock:
            extended = gbf_bans_extend(self._bans, &wanted, until, by, moment, &ban)
            self.notify()
        return self.ban_of(&ban) if extended else None

    def purge(self, *, now=None):
        """Number of bans that were over at `now` and still took room. Goes in small steps; nobody waits for it.

        Every write does a little of this, and no answer depends on it: what is over never bans.
        """
        cdef uint64_t moment = self.moment(now)
        cdef uint64_t ended = 0
        cdef int more = 1
        while more:
            with self._lock:
                with nogil:
                    ended += gbf_bans_purge(self._bans, moment, 1024, &more)
        return ended

    def configure(self, *, escalate=None, str on_full not None="refuse"):
        """Puts another policy in force, for bans made from now on; see the class."""
        cdef gbf_bans_policy policy
        read_policy(escalate, on_full, self._seed, &policy)
        with self._lock:
            gbf_bans_configure(self._bans, &policy)

    @property
    def closed(self):
        """True: decisions keep out whoever is not allowed by a rule, cause "outage", whatever is known of the request.

        A flag beside the bans: a full table takes it, and no ban changes it. Set by policy "closed" of a store."""
        return bool(gbf_bans_closed(self._bans))

    @closed.setter
    def closed(self, bint closed):
        with self._lock:
            gbf_bans_close(self._bans, closed)

    # ---- the change feed

    def changes(self, since=None, /, *, uint32_t limit=1024, str skip=None, bint labels=False):
        """What changed after cursor `since`, and the cursor to go on from: (list of BanChange, oldest first; int).

        None in place of the list means that changes after `since` are not known: there is no cursor yet, the reader is
        more than 65,535 changes behind, or this is a child made by fork since. Then read all of `bans()`, and go on
        from the cursor that came with it: nothing is missed, and what is told twice is told in order.

        Args:
            limit: the longest list; the cursor is that of the last change in it.
            skip: leaves out changes of this maker, such as "store".
            labels: True tells of labels, too: changes of kind "label", whose `ban` is the record of a label. Who misses
                some reads `labels.stored()`, too.
        Changes are bans added, extended, lifted and evicted, whoever made them. That a ban is over is no change: each
        says when it ends. Readers are independent of each other, and take no lock.
        Cost: 1 us a change. The first call starts the feed: from then on a ban costs one cache line more, and the table
        up to 4 MiB (in `nbytes`), whatever number of readers there is.
        Source: csrc/DESIGN.md, "Change feed".
        """
        cdef uint64_t first, cursor, head
        cdef int32_t count, i
        cdef int skipped = -1 if skip is None else by_number(skip, "skip")
        cdef gbf_ban_change *found
        cdef list told = []
        if since is None:
            with self._lock:
                return None, gbf_bans_follow(self._bans)
        first = cursor = since
        head = gbf_bans_head(self._bans)
        if cursor == head and head:
            return told, cursor
        limit = <uint32_t>min(<uint64_t>limit, head - cursor, <uint64_t>GBF_FEED_SLOTS)
        found = <gbf_ban_change *>PyMem_Malloc((limit + 1) * sizeof(gbf_ban_change))
        if found == NULL:
            raise MemoryError()
        try:
            count = gbf_bans_changes(self._bans, &cursor, found, limit)
            for i in range(count):
                if found[i].maker != skipped and (labels or found[i].kind != GBF_FEED_LABEL):
                    told.append(self.change_of(&found[i]))
        finally:
            PyMem_Free(found)
        if count < 0 or not gbf_bans_holds(self._bans, first):  # else its texts may be those of other bans by now
            with self._lock:
                return None, gbf_bans_follow(self._bans)
        return told, cursor

    cdef object change_of(self, const gbf_ban_change *change):
        ban = self.ban_of(&change.ban) if change.kind != GBF_FEED_LABEL else self.label_record(&change.ban)
        return tuple.__new__(BanChange, (EVENTS[change.event], ban, MAKERS[change.maker],
                                         self.to_unix(change.at), FEED_KINDS[change.kind], change.sequence))

    def wait(self, uint64_t since, /, timeout=None):
        """True once something has changed after cursor `since`; False after `timeout` seconds (None: however long it
        takes) or a call of `wake`. Sleeps meanwhile."""
        cdef uint64_t head = gbf_bans_head(self._bans)
        if head != since or head == 0:
            return True
        woken = allocate_lock()
        woken.acquire()
        with self._lock:  # which every writer holds
            if gbf_bans_head(self._bans) != since:
                return True
            self._waiters.append(woken)
            self._waited = since
        try:
            woken.acquire(True, -1 if timeout is None else min(max(timeout, 0), LONGEST_WAIT))
        finally:
            with self._lock:
                if woken in self._waiters:
                    self._waiters.remove(woken)
        return gbf_bans_head(self._bans) != since

    def wake(self):
        """Ends every `wait` that is under way."""
        with self._lock:
            self.wake_all()

    cdef int notify(self) except -1:
        if self._waiters and gbf_bans_head(self._bans) != self._waited:
            self.wake_all()
        return 0

    cdef int wake_all(self) except -1:
        for woken in self._waiters:
            woken.release()
        self._waiters.clear()
        return 0

    # ---- fork: whoever writes or counts has the lock, so while it is held the table is whole

    def before_fork(self):
        """See `ForkAware`."""
        self._lock.acquire()

    def after_fork(self, child):
        """See `ForkAware`."""
        if child:
            self._waiters.clear()  # their threads are the parent's
            gbf_bans_restart(self._bans)
        self._lock.release()

    # ---- figures

    cdef gbf_bans_counts counts(self):
        with self._lock:
            return gbf_bans_count(self._bans)

    @property
    def capacity(self):
        """Most bans it holds."""
        return self._bans.capacity

    @property
    def nbytes(self):
        """Bytes taken so far, those of labels too; what is reserved beyond that has never been touched."""
        with self._lock:
            return gbf_bans_nbytes(self._bans) + gbf_labels_nbytes(self._labels)

    @property
    def saturated(self):
        """True when there is no room for a ban of a new key. What is over and not yet purged takes room until then."""
        return self.counts().active == self._bans.capacity

    def stats(self):
        """Figures by name. Now: bans, remembered (ended, but still counting for escalation), capacity, texts. Since the
        table was made: added, extended, lifted, ended, refused, evicted, texts_lost (reasons that found no room)."""
        cdef gbf_bans_counts counts = self.counts()
        return {
            "bans": counts.active, "remembered": counts.remembered, "capacity": self._bans.capacity,
            "texts": len(self._numbers), "added": counts.added, "extended": counts.extended, "lifted": counts.lifted,
            "ended": counts.ended, "refused": counts.refused, "evicted": counts.evicted,
            "texts_lost": self._texts_lost,
        }

    def __repr__(self):
        return f"<BanTable {len(self)} of {self.capacity} bans>"


cdef uint8_t by_number(str by, str argument) except? 0:
    if by not in MAKERS:
        raise ValueError(f"{argument}={by!r} is not one of {', '.join(MAKERS)}")
    return MAKERS.index(by)


only_whole(BanTable)


cdef int read_policy(object escalate, str on_full, uint64_t seed, gbf_bans_policy *policy) except -1:
    if on_full not in ("refuse", "evict"):
        raise ValueError(f"on_full={on_full!r} is not one of refuse, evict")
    policy.evict = on_full == "evict"
    policy.seed = seed
    policy.factor, policy.jitter, policy.cap_ms, policy.memory_ms = 1, 0, GBF_BAN_FOREVER, 0
    if escalate is not None:
        policy.factor, policy.jitter = escalate.factor, escalate.jitter
        policy.cap_ms, policy.memory_ms = span(escalate.cap, "cap"), span(escalate.memory, "memory")
        if not 1 <= policy.factor <= 1000 or not 0 <= policy.jitter <= 1:
            raise ValueError(f"{escalate!r} does not fit; factor is 1 to 1000, jitter 0 to 1")
    return 0
