# cython: language_level=3
"""Calls of trackers, score, labels and session hashes in a C loop, as the engine makes them. Never shipped."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from gobanfast._core.ban_table cimport BanTable, ban_time
from gobanfast._core.scorer cimport Scorer
from gobanfast._core.trackers cimport Trackers
from gobanfast._core.native.address cimport gbf_addr_from4
from gobanfast._core.native.hash cimport gbf_hash128
from gobanfast._core.native.http cimport gbf_session_hash, gbf_session_value
from gobanfast._core.native.state cimport (
    gbf_ban_key, gbf_ban_session, gbf_label_words, gbf_labels_of,
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


def label_each(BanTable table, str word, const uint64_t[::1] sessions, double now):
    """Sessions, by the upper half of their hash, that carry a word."""
    cdef gbf_label_words words
    cdef gbf_ban_key key
    cdef uint64_t moment = ban_time(now)
    cdef Py_ssize_t i, carried = 0
    words.count, words.number[0] = 1, table.pin(word)
    for i in range(sessions.shape[0]):
        key = gbf_ban_session(sessions[i], 0, 1)
        carried += gbf_labels_of(table._labels, &key, &words, moment) != 0
    return carried


def session_each(bytes key, const uint8_t[::1] values, uint32_t nbytes):
    """Sum of the hashes of values of so many bytes."""
    cdef gbf_session_value value
    cdef const uint8_t *secret = key
    cdef uint64_t total = 0
    cdef Py_ssize_t at
    value.nbytes, value.plus = nbytes, 0
    for at in range(0, values.shape[0] - nbytes + 1, nbytes):
        value.at = &values[at]
        total += gbf_session_hash(secret, &value).low
    return total
