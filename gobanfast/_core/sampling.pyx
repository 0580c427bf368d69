"""Sampling thresholds, and rate classes with a threshold and a latency histogram each."""

import time
from collections import namedtuple

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeASCII
from libc.math cimport isnan
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from gobanfast._core.address cimport gbf_ascii
from gobanfast._core.made cimport only_whole
from gobanfast._core.native.state cimport (
    GBF_RATES_MAX, GBF_SAMPLING_DIGITS, GBF_SAMPLING_NEVER, GBF_SAMPLING_UNKNOWN, gbf_rates_free,
    gbf_rates_nbytes, gbf_rates_new, gbf_rates_set, gbf_rates_threshold, gbf_latency_add, gbf_latency_count,
    gbf_latency_counts, gbf_latency_forget, gbf_latency_merge, gbf_latency_note, gbf_latency_percentile,
    gbf_latency_span, gbf_latency_tick, gbf_sampling_always, gbf_sampling_count, gbf_sampling_in, gbf_sampling_never,
    gbf_sampling_member, gbf_sampling_out, gbf_sampling_probability, gbf_sampling_random, gbf_sampling_rate,
    gbf_sampling_read, gbf_sampling_read_random, gbf_sampling_round, gbf_sampling_threshold, gbf_sampling_write,
)

from gobanfast._core.xxh3 import xxh3_64
from gobanfast._fork import watch_forks


cdef extern from "Python.h":
    unsigned long long PyLong_AsUnsignedLongLongMask(object number) except? 0xFFFFFFFFFFFFFFFF


NEVER = GBF_SAMPLING_NEVER
"""The threshold that keeps nothing: probability 0."""

MAX_CLASSES = GBF_RATES_MAX
"""Classes that there may be at once."""

ClassCounts = namedtuple("ClassCounts", "responses errors roots p99_ms per_second")

cdef enum:
    HEADER = 32  # of what `export` gives: time, span, thresholds, sketches; then (key, threshold) and (key, counts)
    PLACE = 16

cdef uint64_t STALE_NS = 10_000_000_000


def threshold_of(double probability):
    """The 56-bit threshold nearest to a probability from 0 to 1.

    Raises:
        ValueError: it is out of range, or no number.
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"probability {probability} is out of range; give 0 to 1")
    return gbf_sampling_threshold(probability)


def round_threshold(threshold, uint32_t precision):
    """A threshold with at most `precision` hex digits behind its leading f's."""
    if not 1 <= precision <= GBF_SAMPLING_DIGITS:
        raise ValueError(f"precision {precision} is out of range; give 1 to {GBF_SAMPLING_DIGITS}")
    return gbf_sampling_round(text_able(threshold), precision)


def threshold_text(threshold):
    """A threshold as `th` has it: hex without trailing zeros."""
    cdef char text[GBF_SAMPLING_DIGITS]
    cdef uint32_t n = gbf_sampling_write(text_able(threshold), text)
    return PyUnicode_DecodeASCII(text, n, NULL)


def parse_threshold(str text not None):
    """The threshold of a `th` text; None: malformed."""
    cdef uint64_t threshold
    cdef bytes utf8 = text.encode(errors="replace")
    return threshold if gbf_sampling_read(PyBytes_AS_STRING(utf8), len(utf8), &threshold) else None


def parse_random(str text not None):
    """R of an `rv` text; None: malformed."""
    cdef uint64_t random
    cdef bytes utf8 = text.encode(errors="replace")
    return random if gbf_sampling_read_random(PyBytes_AS_STRING(utf8), len(utf8), &random) else None


def parse_ot(str text not None):
    """(threshold, R) in the value of the tracestate's member `ot`; None for what is absent or malformed."""
    cdef uint64_t threshold, random
    cdef bytes utf8 = text.encode(errors="replace")
    gbf_sampling_member(<const uint8_t *>PyBytes_AS_STRING(utf8), len(utf8), &threshold, &random)
    return None if threshold == GBF_SAMPLING_UNKNOWN else threshold, None if random == GBF_SAMPLING_UNKNOWN else random


def ot_keeps(str text not None, trace_id, /):
    """Whether the `th` of such a value keeps a trace: by its `rv`, else by the id. None: no `th` that can be read."""
    cdef uint64_t threshold, random
    cdef const char *at
    cdef size_t nbytes
    if not gbf_ascii(text, &at, &nbytes):
        return None
    gbf_sampling_member(<const uint8_t *>at, nbytes, &threshold, &random)
    if threshold == GBF_SAMPLING_UNKNOWN:
        return None
    if random == GBF_SAMPLING_UNKNOWN:
        random = PyLong_AsUnsignedLongLongMask(trace_id) & (GBF_SAMPLING_NEVER - 1)
    return random >= threshold


def probability_of(threshold):
    """The probability of a threshold."""
    return gbf_sampling_probability(known(threshold))


def adjusted_count(threshold):
    """How many traces one that was kept stands for; 0 when none is kept."""
    return gbf_sampling_count(known(threshold))


def random_of(bytes trace_id not None):
    """R of a trace id of 16 bytes: its low 56 bits."""
    if len(trace_id) != 16:
        raise ValueError(f"trace id has {len(trace_id)} bytes; give 16")
    return gbf_sampling_random(<const uint8_t *>PyBytes_AS_STRING(trace_id))


def follow(str action not None, threshold, *, uint64_t random, bint parent=False, bint sampled=False,
           parent_threshold=None):
    """(sampled, outgoing threshold or None, whether the class's own threshold decided) of a record rule.

    Args:
        action: "rate", "always" or "never".
        threshold: of the rate class.
        random: R.
        parent: whether there is a parent, with the flag `sampled`, and `parent_threshold`, None: without `th`.
    """
    cdef gbf_sampling_in given
    cdef gbf_sampling_out out
    given.random, given.parent, given.sampled = random, parent, sampled
    given.threshold = GBF_SAMPLING_UNKNOWN if parent_threshold is None else known(parent_threshold)
    if action == "rate":
        out = gbf_sampling_rate(&given, known(threshold))
    elif action == "always":
        out = gbf_sampling_always(&given)
    elif action == "never":
        out = gbf_sampling_never()
    else:
        raise ValueError(f"action {action!r} is not one of rate, always, never")
    return out.sampled != 0, None if out.threshold == GBF_SAMPLING_UNKNOWN else out.threshold, out.root != 0


cdef uint64_t known(threshold) except? GBF_SAMPLING_UNKNOWN:
    if not 0 <= threshold <= GBF_SAMPLING_NEVER:
        raise ValueError(f"threshold {threshold} is out of range; give 0 to 2**56")
    return threshold


cdef uint64_t text_able(threshold) except? GBF_SAMPLING_UNKNOWN:
    if known(threshold) == GBF_SAMPLING_NEVER:
        raise ValueError("threshold 2**56 keeps nothing and has no text")
    return threshold


@cython.final
cdef class RateClasses:
    """Live state of rate classes, by name: the threshold, and what the last minute's responses were like.

    Args:
        now_ns: CLOCK_MONOTONIC; None: now.
    Threads: any number may call everything, `place` one at a time.
    Cost: 8,072 bytes a class that is in use, 8.1 MB for 1,000; memory is taken as classes come into use.
    Source: csrc/DESIGN.md, "Sampling".
    """

    @staticmethod
    def _make(*, now_ns=None):
        cdef uint64_t now = time.monotonic_ns() if now_ns is None else now_ns
        cdef RateClasses made = RateClasses.__new__(RateClasses)
        made.classes = gbf_rates_new(GBF_RATES_MAX, now)
        if made.classes == NULL:
            raise MemoryError()
        made._places, made._keys = {}, {}
        watch_forks(made)
        return made

    def __dealloc__(self):
        gbf_rates_free(self.classes)

    def place(self, thresholds, /):
        """Numbers of the classes of a ruleset: what a rule keeps, and `note` takes.

        A class that is here already keeps its threshold and its counts; a new one begins with the threshold given, in
        the place of one that the ruleset does not name when there is no other.

        Args:
            thresholds: dict of a threshold by name.
        Raises:
            ValueError: over 1,000 names, or no threshold.
        """
        cdef uint32_t number
        cdef dict places = dict(self._places)
        if len(thresholds) > GBF_RATES_MAX:
            raise ValueError(f"{len(thresholds)} rate classes; at most {GBF_RATES_MAX}")
        checked = {str(name): known(threshold) for name, threshold in thresholds.items()}
        idle = [name for name in places if name not in checked]
        for name, threshold in checked.items():
            if name in places:
                continue
            if len(places) < GBF_RATES_MAX:
                number = len(places)
            else:
                number = places.pop(idle.pop())
            gbf_latency_forget(self.classes, number)
            gbf_rates_set(self.classes, number, threshold)
            places[name] = number
        self._keys = {xxh3_64(name.encode(errors="surrogatepass")): (name, places[name]) for name in checked}
        self._places = places
        return {name: places[name] for name in checked}

    @property
    def names(self):
        """Names of the classes that were placed last."""
        return tuple([name for name, _ in self._keys.values()])

    def threshold(self, str name not None):
        """The threshold of a class."""
        return gbf_rates_threshold(self.classes, self._places[name])

    def set_threshold(self, str name not None, threshold):
        """Changes the threshold of a class, for decisions from now on."""
        gbf_rates_set(self.classes, self._places[name], known(threshold))

    def note(self, str name not None, uint64_t ns, *, bint error=False, bint root=True):
        """Notes a response: the time to its start, whether it was an error, and whether the class's own threshold
        decided on the trace, not a parent."""
        gbf_latency_note(self.classes, self._places[name], ns, error, root)

    def tick(self, uint64_t now_ns):
        """Moves the windows on; once a second."""
        gbf_latency_tick(self.classes, now_ns)

    def counts(self, uint64_t now_ns, others=(), *, without=()):
        """Dict of ClassCounts by name: the last minute of this process, and of `others`, which are what `export` gave
        theirs; but for the names `without`. What cannot be read, is over ten seconds old, or of another class does not
        count.

        `p99_ms` is None without a response and inf when it is 69 s or more; `per_second` is of roots.
        """
        cdef list parts = [(payload, span, sketches) for payload in others
                           for span, _, sketches in [opened(payload, now_ns)] if sketches]
        cdef double own = max(1e9, <double>gbf_latency_span(self.classes, now_ns)) / 1e9
        cdef gbf_latency_counts sum
        cdef uint32_t number, roots
        cdef bytes text
        found = {}
        for key, (name, place) in self._keys.items():
            if name in without:
                continue
            number = place
            memset(&sum, 0, sizeof(sum))
            gbf_latency_add(self.classes, number, &sum)
            per_second = sum.roots / own
            for payload, span, sketches in parts:
                at = sketches.get(key)
                if at is not None:
                    text, roots = payload, sum.roots
                    gbf_latency_merge(&sum, PyBytes_AS_STRING(text) + <Py_ssize_t>at)
                    per_second += (sum.roots - roots) / span
            found[name] = ClassCounts(
                gbf_latency_count(&sum), sum.errors, sum.roots, milliseconds(gbf_latency_percentile(&sum, 99)),
                per_second,
            )
        return found

    def export(self, uint64_t now_ns):
        """What other workers need of this one, as bytes: thresholds, and counts of classes that have any."""
        cdef gbf_latency_counts sum
        cdef uint64_t word[4]
        thresholds, sketches = [], []
        for key, (_, number) in self._keys.items():
            word[0], word[1] = key, gbf_rates_threshold(self.classes, number)
            thresholds.append((<const char *>word)[:PLACE])
            memset(&sum, 0, sizeof(sum))
            if gbf_latency_add(self.classes, number, &sum):
                sketches.append((<const char *>word)[:8] + (<const char *>&sum)[:sizeof(sum)])
        word[0], word[1] = now_ns, gbf_latency_span(self.classes, now_ns)
        word[2], word[3] = len(thresholds), len(sketches)
        return b"".join([(<const char *>word)[:HEADER], *thresholds, *sketches])

    def thresholds(self, uint64_t now_ns, bytes payload not None):
        """Dict of the thresholds in what `export` gave another worker, by names that both have."""
        cdef dict keys = self._keys
        return {keys[key][0]: threshold for key, threshold in opened(payload, now_ns)[1].items() if key in keys}

    @property
    def nbytes(self):
        """Bytes, when all classes are in use."""
        return gbf_rates_nbytes(self.classes)

    def before_fork(self):
        """Nothing: there is no lock."""

    def after_fork(self, bint child):
        """What the parent counted is not the child's."""
        if child:
            for number in self._places.values():
                gbf_latency_forget(self.classes, number)


def export_room():
    """Bytes that `export` gives at most."""
    return HEADER + GBF_RATES_MAX * (PLACE + 8 + sizeof(gbf_latency_counts))


cdef tuple opened(bytes payload, uint64_t now_ns):
    """(span in seconds, {key: threshold}, {key: where its counts are}); nothing of what is malformed or old."""
    cdef const char *text = PyBytes_AS_STRING(payload)
    cdef uint64_t n = PyBytes_GET_SIZE(payload)
    cdef uint64_t word[4]
    cdef uint64_t stride = 8 + sizeof(gbf_latency_counts)
    if n < HEADER:
        return 1.0, {}, {}
    memcpy(word, text, HEADER)
    if word[2] > GBF_RATES_MAX or word[3] > GBF_RATES_MAX or n != HEADER + word[2] * PLACE + word[3] * stride:
        return 1.0, {}, {}
    if now_ns > word[0] and now_ns - word[0] > STALE_NS:
        return 1.0, {}, {}
    span = max(1e9, <double>word[1]) / 1e9
    thresholds, sketches = {}, {}
    cdef uint64_t pair[2]
    cdef uint64_t at = HEADER
    for _ in range(word[2]):
        memcpy(pair, text + at, PLACE)
        if pair[1] <= GBF_SAMPLING_NEVER:
            thresholds[pair[0]] = pair[1]
        at += PLACE
    for _ in range(word[3]):
        memcpy(pair, text + at, 8)
        sketches[pair[0]] = at + 8
        at += stride
    return span, thresholds, sketches


cdef object milliseconds(double ns):
    return None if isnan(ns) else ns / 1e6


only_whole(RateClasses)
