# cython: language_level=3
"""Calls of trackers and score in a C loop, as the engine makes them. Never shipped."""

from libc.stdint cimport uint32_t, uint64_t

from gobanfast._core.scorer cimport Scorer
from gobanfast._core.trackers cimport Trackers
from gobanfast._core.native.address cimport gbf_addr_from4
from gobanfast._core.native.state cimport (
    GBF_SCORE_ASN, GBF_SCORE_HEADER, GBF_SCORE_SNI, gbf_score_answer, gbf_score_input, gbf_score_peek, gbf_score_rate,
    gbf_tracker_answer, gbf_tracker_note,
)


def note_each(Trackers trackers, const uint32_t[::1] clients, const uint64_t[::1] fingerprints, uint64_t now_ms,
              uint64_t per_ms):
    """Requests that tripped something."""
    cdef gbf_tracker_answer answer
    cdef Py_ssize_t i, tripped = 0
    for i in range(clients.shape[0]):
        gbf_tracker_note(&trackers.tracker, gbf_addr_from4(clients[i]), fingerprints[i], now_ms + i // per_ms, &answer)
        tripped += answer.tripped != 0
    return tripped


def rate_each(Scorer scorer, const uint64_t[::1] names, const uint64_t[::1] fingerprints, const uint32_t[::1] asns,
              bint learn):
    """Requests that were flagged."""
    cdef gbf_score_input given
    cdef gbf_score_answer answer
    cdef Py_ssize_t i, flagged = 0
    given.host, given.present = 0, GBF_SCORE_SNI | GBF_SCORE_HEADER | GBF_SCORE_ASN
    for i in range(names.shape[0]):
        given.name, given.fingerprint, given.asn = names[i], fingerprints[i], asns[i]
        if learn:
            gbf_score_rate(scorer.score, &given, &answer)
        else:
            gbf_score_peek(scorer.score, &given, &answer)
        flagged += answer.flagged
    return flagged
