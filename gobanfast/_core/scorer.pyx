"""Scorer: anomaly score of a request from count-min sketches, and the adaptive threshold for a challenge."""

from collections import namedtuple

cimport cython
from libc.math cimport isnan
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from gobanfast._core.made cimport only_whole
from gobanfast._core.native.state cimport (
    GBF_SCORE_ASN, GBF_SCORE_HEADER, GBF_SCORE_SHAPE, GBF_SCORE_SNI, gbf_asn_risk, gbf_score_answer, gbf_score_free,
    gbf_score_input, gbf_score_mend, gbf_score_new, gbf_score_peek, gbf_score_rate, gbf_score_risk, gbf_score_rules,
    gbf_score_vouch, gbf_window_answer, gbf_window_bytes, gbf_window_rate, gbf_window_score, gbf_window_set,
)

from gobanfast._digest import secret
from gobanfast._fork import watch_forks

ScoreAnswer = namedtuple("ScoreAnswer", "score threshold coverage sni header asn flagged")


@cython.final
cdef class Scorer:
    """The score of each request and the threshold it is held against.

    Args:
        settings: a ScoreSettings, or anything with its attributes.
        key: makes the hashes, and so every answer, the same in every run; None: random.
    Threads: any number may call everything.
    Cost: 240 KB; 840 KB with a window for each host.
    Source: csrc/DESIGN.md, "Score".
    """

    @staticmethod
    def _make(settings, *, bytes key=None):
        cdef gbf_score_rules rules
        cdef gbf_asn_risk *risks
        cdef Py_ssize_t i
        cdef bytes digest = secret(key)
        cdef Scorer made = Scorer.__new__(Scorer)
        window_rules(settings, &rules.window)
        rules.weight[0], rules.weight[1], rules.weight[2] = settings.sni, settings.header, settings.asn
        rules.per_host = settings.scope == "host"
        rules.unknown_asn = settings.unknown_asn
        rules.risk_count = <uint32_t>len(settings.asn_risk)
        risks = <gbf_asn_risk *>malloc((rules.risk_count + 1) * sizeof(gbf_asn_risk))
        if risks == NULL:
            raise MemoryError()
        try:
            for i, (first, last, risk) in enumerate(settings.asn_risk):
                risks[i] = gbf_asn_risk(first, last, risk)
            rules.risks = risks
            made.score = gbf_score_new(&rules, <const uint8_t *><const char *>digest)
        finally:
            free(risks)
        if made.score == NULL:
            raise MemoryError()
        made.per_host = rules.per_host
        watch_forks(made)
        return made

    def __dealloc__(self):
        gbf_score_free(self.score)

    def rate(self, *, name=None, fingerprint=None, shape=None, asn=None, uint64_t host=0, uint64_t client=0,
             double added=0):
        """Scores one request and learns from it.

        Args:
            name: 64 bits of a hash of the server name; None: absent.
            fingerprint: 64 bits of the fingerprint; None: absent.
            shape: 64 bits of the shape; it counts beside a fingerprint.
            asn: origin AS, 0 when none is known; None: there is no address.
            host: 64 bits of a hash of the host; matters with `scope: host`.
            client: 64 bits that stand for the client; little more is learned from one than from the average one.
            added: what rules add to the score; it counts and is not learned.
        """
        cdef gbf_score_input given
        cdef gbf_score_answer answer
        fill(&given, name, fingerprint, shape, asn, host)
        given.client, given.added = client, added
        gbf_score_rate(self.score, &given, &answer)
        return answer_of(&answer)

    def peek(self, *, name=None, fingerprint=None, shape=None, asn=None, uint64_t host=0, double added=0):
        """What `rate` would answer, without learning."""
        cdef gbf_score_input given
        cdef gbf_score_answer answer
        fill(&given, name, fingerprint, shape, asn, host)
        given.added = added
        gbf_score_peek(self.score, &given, &answer)
        return answer_of(&answer)

    def vouch(self, *, name=None, fingerprint=None, shape=None, asn=None, uint64_t host=0):
        """Learns from a request that was flagged as from one that was not; False when `rate` had learned it."""
        cdef gbf_score_input given
        fill(&given, name, fingerprint, shape, asn, host)
        return gbf_score_vouch(self.score, &given) != 0

    def risk(self, uint32_t asn):
        """The risk that settings give an AS."""
        return gbf_score_risk(self.score, asn)

    @property
    def nbytes(self):
        """Bytes, fixed at creation."""
        return self.score.nbytes

    def before_fork(self):
        """Nothing: a hook that held the locks would wait for itself, see gbf_lock.h."""

    def after_fork(self, bint child):
        """In a child, clears what another thread was changing when the fork came."""
        if child:
            gbf_score_mend(self.score)


cdef int fill(gbf_score_input *given, name, fingerprint, shape, asn, uint64_t host) except -1:
    memset(given, 0, sizeof(gbf_score_input))
    given.host = host
    if name is not None:
        given.name, given.present = name, GBF_SCORE_SNI
    if fingerprint is not None:
        given.fingerprint, given.present = fingerprint, given.present | GBF_SCORE_HEADER
    if shape is not None:
        given.shape, given.present = shape, given.present | GBF_SCORE_SHAPE
    if asn is not None:
        given.asn, given.present = asn, given.present | GBF_SCORE_ASN
    return 0


cdef object answer_of(const gbf_score_answer *answer):
    return ScoreAnswer(
        answer.score, known(answer.threshold), answer.coverage, known(answer.part[0]), known(answer.part[1]),
        known(answer.part[2]), answer.flagged != 0,
    )


cdef object known(double x):
    return None if isnan(x) else x


cdef int window_rules(settings, gbf_window_rules *rules) except -1:
    rules.window, rules.min_samples = settings.window, settings.min_samples
    rules.percentile, rules.deviations = settings.percentile, settings.deviations
    rules.floor, rules.ceiling, rules.max_step = settings.floor, settings.ceiling, settings.max_step
    rules.naive, rules.learn_all = settings.naive, settings.learn == "all"
    return 0


@cython.final
cdef class ScoreWindow:
    """The threshold alone, over scores that come from elsewhere. Not for more than one thread.

    Args:
        settings: a ScoreSettings, or anything with its attributes.
    """

    @staticmethod
    def _make(settings):
        cdef ScoreWindow made = ScoreWindow.__new__(ScoreWindow)
        window_rules(settings, &made._rules)
        made._memory = calloc(1, gbf_window_bytes(&made._rules))
        if made._memory == NULL:
            raise MemoryError()
        gbf_window_set(&made._window, &made._rules, made._memory)
        return made

    def __dealloc__(self):
        free(self._memory)

    def rate(self, double score):
        """(threshold, flagged) for a score from 0 to 1, which is learned; the threshold is None while cold."""
        cdef gbf_window_answer answer
        if not 0 <= score <= 1:
            raise ValueError(f"score {score} is out of range; give 0 to 1")
        score = gbf_window_score(&self._rules, score)
        gbf_window_rate(&self._window, &self._rules, score, score, &answer)
        return known(answer.threshold), answer.flagged != 0

    def __len__(self):
        """Scores in the window."""
        return self._window.count


only_whole(Scorer)
only_whole(ScoreWindow)
