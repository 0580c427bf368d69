"""Trackers: sliding windows per client in fixed memory, and the exemptions from them."""

from collections import namedtuple

cimport cython
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memset

from gobanfast._core.address cimport gbf_ascii
from gobanfast._core.made cimport only_whole
from gobanfast._core.native.address cimport gbf_addr_load, gbf_addr_parse, gbf_addr
from gobanfast._core.native.base cimport GBF_BAD_INPUT, GBF_OK, gbf_fault, gbf_status
from gobanfast._core.native.state cimport (
    GBF_TRACKER_WAYS, gbf_addr_range, gbf_asn_range, gbf_exempt_covers, gbf_tracker_answer, gbf_tracker_close,
    gbf_tracker_forget, gbf_tracker_limits, gbf_tracker_mend, gbf_tracker_note, gbf_tracker_open, gbf_tracker_peek,
    gbf_tracker_read_stats, gbf_tracker_stats,
)

from gobanfast._core import enums
from gobanfast._digest import secret
from gobanfast._fork import watch_forks

TrackerAnswer = namedtuple(
    "TrackerAnswer",
    "tripped tracked distinct distinct_most requests requests_most surge_now surge_base",
)


@cython.final
cdef class Trackers:
    """What each client did a moment ago, in memory that is fixed at creation.

    Args:
        settings: a TrackerSettings, or anything with its `capacity`, `distinct_fingerprints`, `request_rate`, `surge`.
        ipv6_client: bits of the prefix that counts as one IPv6 client: 64, 56 or 48.
        key: makes hashes, and so evictions, the same in every run; None: random.
    Raises:
        ValueError: a limit that is out of range.
        MemoryError: no memory for all clients.
    Threads: any number may call everything.
    Cost: a note reads and writes three or four cache lines.
    Source: csrc/DESIGN.md, "Trackers".
    """

    @staticmethod
    def _make(settings, *, int ipv6_client=64, bytes key=None):
        cdef gbf_tracker_limits limits
        cdef gbf_fault fault
        cdef gbf_status status
        cdef bytes digest = secret(key)
        cdef Trackers made
        if ipv6_client not in (48, 56, 64):
            raise ValueError(f"ipv6_client={ipv6_client} is not one of 64, 56, 48")
        memset(&limits, 0, sizeof(limits))
        limits.capacity = settings.capacity
        if settings.distinct_fingerprints is not None:
            limits.distinct_limit = settings.distinct_fingerprints.limit + 1  # the first that is one too many
            limits.distinct_window_ms = round(1000 * settings.distinct_fingerprints.window)
        if settings.request_rate is not None:
            limits.rate_limit = settings.request_rate.limit + 1
            limits.rate_window_ms = round(1000 * settings.request_rate.window)
        if settings.surge is not None:
            limits.surge_percent, limits.surge_min = settings.surge.over, settings.surge.min_requests
            limits.surge_baseline_ms = round(1000 * settings.surge.baseline)
        made = Trackers.__new__(Trackers)
        made.ipv6_bits = ipv6_client
        status = gbf_tracker_open(&made.tracker, &limits, <const uint8_t *><const char *>digest, &fault)
        if status == GBF_BAD_INPUT:
            raise ValueError(fault.what.decode())
        if status != GBF_OK:
            raise MemoryError()
        watch_forks(made)
        return made

    def __dealloc__(self):
        gbf_tracker_close(&self.tracker)

    def note(self, str address not None, uint64_t fingerprint=0, *, double now):
        """Counts one request and says where its client stands.

        Args:
            address: the client's own address; text that is none raises ValueError.
            fingerprint: 64 bits of a hash of it; 0: unknown.
            now: seconds of a clock that does not go back.
        """
        cdef gbf_tracker_answer answer
        gbf_tracker_note(&self.tracker, self.client(address), fingerprint, milliseconds(now), &answer)
        return answer_of(&answer)

    def peek(self, str address not None, uint64_t fingerprint=0, *, double now):
        """What `note` would answer, without counting; `tracked` says whether the client has an entry by now."""
        cdef gbf_tracker_answer answer
        gbf_tracker_peek(&self.tracker, self.client(address), fingerprint, milliseconds(now), &answer)
        return answer_of(&answer)

    def forget(self, str address not None):
        """Forgets what a client did, for when it is unbanned by hand; True when there was something."""
        return gbf_tracker_forget(&self.tracker, self.client(address)) != 0

    cdef gbf_addr client(self, str address) except *:
        cdef const char *start
        cdef size_t n
        cdef gbf_addr parsed
        if not gbf_ascii(address, &start, &n) or not gbf_addr_parse(start, n, &parsed):
            raise ValueError(f"address {address!r} is not valid; write it like 192.0.2.1 or 2001:db8::1")
        return tracked_client(parsed, self.ipv6_bits)

    def stats(self):
        """Counters: clients, admitted, evicted (not idle), refused, unsure. Costs a pass over the sets."""
        cdef gbf_tracker_stats stats
        gbf_tracker_read_stats(&self.tracker, &stats)
        return {"clients": stats.clients, "admitted": stats.admitted, "evicted": stats.evicted,
                "refused": stats.refused, "unsure": stats.unsure}

    @property
    def capacity(self):
        """Clients that can have an entry: the setting, rounded up to a multiple of eight."""
        return self.tracker.set_count * GBF_TRACKER_WAYS

    @property
    def nbytes(self):
        """Bytes, fixed at creation."""
        return self.tracker.nbytes

    def before_fork(self):
        """Nothing: a hook that held the locks would wait for itself, see gbf_lock.h."""

    def after_fork(self, bint child):
        """In a child, clears what another thread was changing when the fork came."""
        if child:
            gbf_tracker_mend(&self.tracker)

    def __repr__(self):
        return f"<Trackers of {self.capacity} clients, {self.nbytes} bytes>"


cdef inline uint64_t milliseconds(double now) noexcept nogil:
    return <uint64_t>(now * 1000 + 0.5) if now > 0 else 0


cdef object answer_of(const gbf_tracker_answer *answer):
    tripped = tuple([name for trip, name in enumerate(enums.TRIPS) if answer.tripped >> <int>trip & 1])
    return TrackerAnswer(
        tripped, bool(answer.tracked), answer.distinct, answer.distinct_most, answer.requests, answer.requests_most,
        answer.surge_now, answer.surge_base,
    )


@cython.final
cdef class Exemption:
    """Whom trackers leave alone.

    Args:
        asns: inclusive ranges (first, last) of AS numbers.
        prefixes: a PrefixList, or None.
    """

    @staticmethod
    def _make(asns=(), prefixes=None):
        cdef Exemption made
        cdef gbf_addr_range *addresses
        cdef gbf_asn_range *numbers
        cdef Py_ssize_t i
        networks = merged([
            (int.from_bytes(packed := prefixes.addresses[16 * i:16 * i + 16]),
             int.from_bytes(packed) | (1 << 128 - bits) - 1)
            for i, bits in enumerate(prefixes.lengths)
        ] if prefixes is not None else [])
        ranges = merged(asns)
        made = Exemption.__new__(Exemption)
        made._addresses = bytes(sizeof(gbf_addr_range) * len(networks))
        made._asns = bytes(sizeof(gbf_asn_range) * len(ranges))
        addresses = <gbf_addr_range *><char *>made._addresses
        numbers = <gbf_asn_range *><char *>made._asns
        for i, (first, last) in enumerate(networks):
            packed = first.to_bytes(16) + last.to_bytes(16)
            addresses[i].first = gbf_addr_load(<const uint8_t *><const char *>packed)
            addresses[i].last = gbf_addr_load(<const uint8_t *><const char *>packed + 16)
        for i, (first, last) in enumerate(ranges):
            numbers[i] = gbf_asn_range(first, last)
        made.exempt.addresses, made.exempt.address_count = addresses, <uint32_t>len(networks)
        made.exempt.asns, made.exempt.asn_count = numbers, <uint32_t>len(ranges)
        return made

    def covers(self, str address not None, uint32_t asn=0):
        """Whether an address, or the AS it comes from, is exempt; False for text that is no address."""
        cdef const char *start
        cdef size_t n
        cdef gbf_addr parsed
        if not gbf_ascii(address, &start, &n) or not gbf_addr_parse(start, n, &parsed):
            return False
        return gbf_exempt_covers(&self.exempt, parsed, asn) != 0


cdef list merged(ranges):
    """Inclusive ranges, sorted, with those that overlap or touch made one."""
    found = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return found


only_whole(Trackers)
only_whole(Exemption)
