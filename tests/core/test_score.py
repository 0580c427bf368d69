"""Score: the formula to the last bit without guards, and with them one that an attack cannot move where it wants."""

from __future__ import annotations

import os
import random
import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gobanfast._core.scorer import Scorer, ScoreWindow
from gobanfast.rules.settings import ScoreSettings
from oracle.score import PARTS, OracleScorer, OracleWindow

NAIVE = ScoreSettings(naive=True)
GUARDED = ScoreSettings()
SMALL = ScoreSettings(window=20, min_samples=5, floor=0.2, ceiling=0.9, max_step=0.05)
SCORES = st.lists(st.floats(0, 1) | st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]), max_size=80)


def fixed(settings: ScoreSettings) -> Scorer:
    """A scorer whose hash key is the same in every run."""
    return Scorer(settings, key=b"scores of the tests")


@pytest.mark.parametrize("window", [1, 2, 7, 8, 9, 20, 128, 129, 300, 1000, 2500])
def test_the_naive_threshold_is_numpys_bit_for_bit(window: int) -> None:
    """numpy.percentile(window, 95) + 0.05 * numpy.std(window), the same doubles, at every length up to the window."""
    generator = random.Random(window)
    asked, scores = ScoreWindow(replace(NAIVE, window=window)), []
    for _ in range(2 * window + 10):
        scores.append(generator.random() ** generator.choice([1, 4]))
        held = np.array(scores[-window:])
        expected = np.percentile(held, 95) + 0.05 * np.std(held)

        assert (expected, scores[-1] >= expected) == asked.rate(scores[-1])


@given(scores=SCORES, window=st.integers(1, 40), percentile=st.sampled_from([0.0, 33.3, 50.0, 95.0, 99.9, 100.0]))
def test_a_naive_window_equals_numpy(scores: list[float], window: int, percentile: float) -> None:
    """The same for any scores, repeated ones too, and any percentile."""
    settings = replace(NAIVE, window=window, percentile=percentile)
    asked, oracle = ScoreWindow(settings), OracleWindow(settings)

    assert [oracle.rate(score) for score in scores] == [asked.rate(score) for score in scores]


@given(scores=SCORES, learn=st.sampled_from(["unflagged", "all"]))
def test_a_guarded_window_equals_its_definition(scores: list[float], learn: str) -> None:
    """Clamped, cold at first, learning as told, moving no faster than allowed."""
    settings = replace(SMALL, learn=learn)
    asked, oracle = ScoreWindow(settings), OracleWindow(settings)
    for score in scores:
        expected, flagged = oracle.rate(score)
        threshold, answer = asked.rate(score)

        assert (expected is None) == (threshold is None)
        if expected is not None:
            assert threshold == pytest.approx(expected, abs=1e-9)
            if abs(score - expected) > 1e-3:
                assert flagged == answer
        if flagged != answer:  # one rounding decided; from here on they have learned different things
            return


@pytest.mark.parametrize("window", [300, 1000])
def test_a_guarded_window_keeps_its_sums_exact(window: int) -> None:
    """A hundred thousand scores later the threshold is still that of the window alone."""
    settings = replace(SMALL, window=window, learn="all", max_step=1.0, floor=0.0, ceiling=1.0)
    generator, asked, scores = random.Random(5), ScoreWindow(settings), []
    for _ in range(100_000):
        scores.append(round(generator.random() ** 2 * PARTS) / PARTS)
        asked.rate(scores[-1])
    held = np.array(scores[-window:])

    assert np.percentile(held, 95) + 0.05 * np.std(held) == pytest.approx(asked.rate(0.5)[0], abs=1e-9)


requests = st.lists(
    st.tuples(
        st.none() | st.integers(0, 6), st.none() | st.integers(0, 9), st.none() | st.integers(0, 3),
        st.none() | st.integers(0, 4), st.booleans(), st.sampled_from([0.0, 0.0, 0.1, 0.5, 3.0]),
        st.sampled_from([0, 0, 0, 0, 0, 1, 2, 3]),
    ),
    max_size=200,
)  # fmt: skip


@given(asked=requests)
def test_a_scorer_equals_exact_counts(
    asked: list[tuple[int | None, int | None, int | None, int | None, bool, float, int]],
) -> None:
    """Surprise of name, fingerprint and shape, risk of the AS, weights renormalised over what is present, what rules
    add, threshold; what is vouched for is learned, and from no client more than is fair."""
    settings = replace(SMALL, asn_risk=((1, 1, 0.9), (3, 4, 0.0)), unknown_asn=0.3)
    scorer, oracle = fixed(settings), OracleScorer(settings)
    for name, fingerprint, shape, asn, vouched, added, client in asked:
        score, coverage, threshold, flagged = oracle.rate(name, fingerprint, asn, added, client, shape)
        peeked = scorer.peek(name=name, fingerprint=fingerprint, shape=shape, asn=asn, added=added)
        answer = scorer.rate(name=name, fingerprint=fingerprint, shape=shape, asn=asn, added=added, client=client)

        assert score == pytest.approx(answer.score, abs=1 / PARTS)
        assert coverage == pytest.approx(answer.coverage)
        assert peeked == answer
        if flagged != answer.flagged:  # the rounding of a score decided
            assert threshold is not None
            assert abs(score - threshold) < 2 / PARTS
            return
        assert threshold == (None if answer.threshold is None else pytest.approx(answer.threshold, abs=2 / PARTS))
        if flagged and vouched:
            assert oracle.vouch(name, fingerprint, asn, shape) == scorer.vouch(
                name=name, fingerprint=fingerprint, shape=shape, asn=asn
            )


@pytest.mark.parametrize("settings", [NAIVE, replace(GUARDED, learn="all")])
def test_what_was_learned_is_not_learned_again(settings: ScoreSettings) -> None:
    """Where flagged requests are learned anyway, vouching for them changes nothing; nor where nothing is known."""
    scorer = fixed(settings)
    before = scorer.peek(name=1)

    assert not scorer.vouch(name=1)
    assert not fixed(GUARDED).vouch()
    assert before == scorer.peek(name=1)


def test_an_absent_signal_does_not_lower_the_score() -> None:
    """Without a name the other parts count in full, and coverage says what is missing."""
    scorer = fixed(GUARDED)
    full = scorer.peek(name=1, fingerprint=1, asn=0)
    partial = scorer.peek(fingerprint=1, asn=0)

    assert (1.0, 0.6) == (full.coverage, pytest.approx(partial.coverage))
    assert (None, 1.0, 0.25) == (partial.sni, partial.header, partial.asn)
    assert partial.score == pytest.approx((0.35 + 0.25 * 0.25) / 0.6, abs=1 / PARTS)
    assert (0.0, None, 0.0, False) == (*tuple(scorer.peek())[:3], scorer.rate().flagged)


def mixed(generator: random.Random, attack: int, benign: int) -> list[float]:
    scores = [0.9] * attack + [0.1] * benign
    generator.shuffle(scores)
    return scores


def caught(settings: ScoreSettings, before: list[float]) -> int:
    """How many of the attack's next 100 requests are flagged, one coming for two ordinary ones."""
    window, count = ScoreWindow(settings), 0
    for score in before:
        window.rate(score)
    for _ in range(100):
        count += window.rate(0.9)[1]
        window.rate(0.1)
        window.rate(0.1)
    return count


def test_the_attack_that_defeats_the_naive_formula() -> None:
    """A third of the window from one attack: the naive threshold lies above it, the guarded one flags all of it."""
    before = [0.1] * 300 + mixed(random.Random(6), 100, 200)

    assert caught(NAIVE, before) == 0
    assert caught(GUARDED, before) == 100


@pytest.mark.parametrize("share", [0.05, 0.06, 0.1, 0.5, 0.9])
def test_no_share_of_the_traffic_hides_an_attack(share: float) -> None:
    """From 16 of the last 300 requests on the naive formula flags no further one; the guarded one flags it."""
    attack = round(300 * share) + 1
    before = [0.1] * 300 + mixed(random.Random(7), attack, 300 - attack)
    naive, guarded = ScoreWindow(NAIVE), ScoreWindow(GUARDED)
    for score in before:
        naive.rate(score)
        guarded.rate(score)

    assert not naive.rate(0.9)[1]
    assert guarded.rate(0.9)[1]


def test_patience_moves_the_threshold_no_further_than_its_ceiling() -> None:
    """An attacker who stays just below the threshold drags it up, to the ceiling and not beyond."""
    window = ScoreWindow(GUARDED)
    for _ in range(300):
        window.rate(0.1)
    for _ in range(100_000):
        window.rate((window.rate(0.1)[0] or 0) - 0.001)
    threshold, caught = window.rate(0.81)

    assert threshold == pytest.approx(GUARDED.ceiling)
    assert caught


def test_solved_challenges_move_the_threshold_a_step_each() -> None:
    """Whoever solves challenges for new names and fingerprints drags the threshold up at the rate he solves them, one
    `max_step` each, to the ceiling and not beyond: there he is challenged for ever."""
    scorer = fixed(GUARDED)
    for _ in range(1000):
        scorer.rate(name=1, fingerprint=1, asn=0)
    before = [scorer.peek(name=1, fingerprint=1, asn=0).threshold]
    for number in range(1000):
        assert scorer.rate(name=10 + number, fingerprint=10 + number, asn=0).flagged
        assert scorer.vouch(name=10 + number, fingerprint=10 + number, asn=0)
        before.append(scorer.peek(name=1, fingerprint=1, asn=0).threshold)

    assert max(np.diff(before)) <= GUARDED.max_step + 1e-12
    assert before[-1] == pytest.approx(GUARDED.ceiling)


def test_no_client_teaches_much_more_than_the_average() -> None:
    """A client that sends 99 % of the requests changes what is usual as little as any other: what one of twenty clients
    knows stays as usual, and its own fingerprint becomes less usual than theirs."""
    scorer, generator = fixed(GUARDED), random.Random(9)
    for turn in range(4000):
        scorer.rate(name=turn % 2, fingerprint=turn % 20, asn=0, client=100 + turn % 20)
    before = scorer.peek(name=1, fingerprint=7, asn=0)
    for _ in range(100_000):
        if generator.random() < 0.01:
            turn = generator.randrange(20)
            scorer.rate(name=turn % 2, fingerprint=turn, asn=0, client=100 + turn)
        else:
            scorer.rate(name=0, fingerprint=99, asn=0, client=1)
    after = scorer.peek(name=1, fingerprint=7, asn=0)

    assert after.score <= before.score + 0.01
    assert scorer.peek(name=0, fingerprint=99, asn=0).header > 0.15


def test_a_client_alone_is_learned_from() -> None:
    """Where all requests come from one client, or from nobody that is known, everything is learned."""
    for client in (0, 7):
        scorer = fixed(GUARDED)
        for _ in range(2000):
            scorer.rate(name=1, fingerprint=1, asn=0, client=client)

        assert scorer.peek(name=1, fingerprint=1, asn=0).score < 0.1


def test_a_fingerprint_is_not_warmed_up_by_one_client() -> None:
    """A thousand requests to the usual name make no fingerprint usual enough to ask for an odd one with."""
    scorer, generator = fixed(GUARDED), random.Random(10)
    for _ in range(20_000):
        scorer.rate(
            name=generator.randrange(3), fingerprint=generator.randrange(50), asn=0, client=generator.randrange(500)
        )
    for _ in range(1000):
        scorer.rate(name=0, fingerprint=10**6, asn=0, client=10**6)

    assert scorer.rate(name=10**6, fingerprint=10**6, asn=0, client=10**6).flagged


def test_a_cold_window_flags_nobody() -> None:
    """Below min_samples there is no threshold; what is learned then is everything."""
    window = ScoreWindow(GUARDED)

    assert [(None, False)] * GUARDED.min_samples == [window.rate(1.0) for _ in range(GUARDED.min_samples)]
    assert window.rate(1.0) == (pytest.approx(GUARDED.ceiling), True)


def test_counts_age() -> None:
    """A name that was usual long ago is a surprise again, half a life later less so than ten."""
    scorer = fixed(replace(GUARDED, learn="all"))
    surprise = []
    for _ in range(40_000):
        scorer.rate(name=1)
    for i in range(400_000):
        scorer.rate(name=2 + i % 50)
        if i % 100_000 == 0:
            surprise.append(scorer.peek(name=1).sni)

    assert sorted(surprise) == surprise
    assert surprise[0] < 0.1
    assert surprise[-1] > 0.5


def test_counts_are_never_too_low_nor_much_too_high() -> None:
    """Over 30,000 different names a usual one stays usual and a new one stays new: the sketch's error is small."""
    scorer = fixed(replace(GUARDED, learn="all"))
    for i in range(30_000):
        scorer.rate(name=1)
        scorer.rate(name=100 + i)
    fresh = [scorer.peek(name=10**9 + i).sni for i in range(1000)]

    assert scorer.peek(name=1).sni < 0.1
    assert np.mean(fresh) > 0.85
    assert min(fresh) > 0.7


def test_hosts_have_windows_of_their_own() -> None:
    """With `scope: host` what one host gets does not move the threshold of another."""
    scorer = fixed(replace(GUARDED, scope="host"))
    for i in range(1000):
        scorer.rate(name=1, fingerprint=i % 3, host=7)

    assert scorer.rate(name=1, host=7).threshold == pytest.approx(GUARDED.floor)
    assert scorer.rate(name=1, host=8).threshold is None


def test_the_same_key_replays_the_same() -> None:
    """Answers depend on the requests and the key alone."""
    generator = random.Random(8)
    asked = [(generator.randrange(50), generator.randrange(500), generator.randrange(9)) for _ in range(5000)]
    first, second = fixed(GUARDED), fixed(GUARDED)

    assert [first.rate(name=n, fingerprint=f, asn=a) for n, f, a in asked] == [
        second.rate(name=n, fingerprint=f, asn=a) for n, f, a in asked
    ]


def test_memory_is_fixed() -> None:
    """240 KB with one window, less than 900 KB with a window for each host, whatever comes."""
    one, many = fixed(GUARDED), fixed(replace(GUARDED, scope="host"))

    assert one.nbytes < 240_000
    assert many.nbytes < 900_000


def test_threads_may_rate_at_once() -> None:
    """Nothing breaks when threads rate through one scorer; the window holds what it should."""
    scorer = fixed(replace(GUARDED, learn="all"))

    def hammer(seed: int) -> None:
        generator = random.Random(seed)
        for _ in range(5000):
            assert 0 <= scorer.rate(name=generator.randrange(9), fingerprint=seed, asn=0).score <= 1

    threads = [threading.Thread(target=hammer, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert GUARDED.floor <= scorer.peek(name=1).threshold <= GUARDED.ceiling


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_child_scores_on() -> None:
    """The child has what the parent learned."""
    scorer = fixed(GUARDED)
    for _ in range(200):
        scorer.rate(name=1)
    child = os.fork()
    if child == 0:
        os._exit(scorer.rate(name=1).threshold != GUARDED.floor)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
