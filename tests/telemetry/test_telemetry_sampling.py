"""Consistent probability sampling: thresholds, their text, the rules about parents, and OpenTelemetry's samplers."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gobanfast.telemetry import sampling
from gobanfast.telemetry.sampling import Parent, Sampling
from oracle import sampling as oracle

PROBABILITIES = st.floats(0, 1) | st.floats(0, 1e-12) | st.sampled_from([k / 16 for k in range(17)])
RANDOMS = st.integers(0, 2**56 - 1)
THRESHOLDS = RANDOMS | st.just(2**56)


@given(PROBABILITIES)
def test_thresholds_are_the_nearest(probability: float) -> None:
    """T = 2^56 - p x 2^56, ties to even."""
    assert oracle.threshold(probability) == sampling.threshold_of(probability)


@given(RANDOMS, st.integers(1, 14))
def test_text_is_cut_behind_the_leading_fs(threshold: int, precision: int) -> None:
    """The text has as many digits as asked for, rounded half up, and reads as what was rounded."""
    expected = oracle.text(threshold, precision)

    rounded = sampling.round_threshold(threshold, precision)

    assert expected == sampling.threshold_text(rounded)
    assert rounded == sampling.parse_threshold(expected)


@given(RANDOMS)
def test_text_and_threshold_are_one(threshold: int) -> None:
    """What is written reads as itself, and so does an R in full."""
    assert threshold == sampling.parse_threshold(sampling.threshold_text(threshold))
    assert threshold == sampling.parse_random(f"{threshold:014x}")


@given(st.text("0123456789abcdefABCDEFxg_+- \u0661", max_size=16))
def test_what_is_no_text_of_a_threshold_is_none(text: str) -> None:
    """1 to 14 lower-case hex digits, or None; an R has exactly 14."""
    hexadecimal = 0 < len(text) <= 14 and set(text) <= set("0123456789abcdef")

    expected = int(text.ljust(14, "0"), 16) if hexadecimal else None

    assert expected == sampling.parse_threshold(text)
    assert (expected if len(text) == 14 else None) == sampling.parse_random(text)


@pytest.mark.parametrize("probability", [-0.1, 1.1, float("inf"), float("-inf"), float("nan")])
def test_what_is_no_probability_has_no_threshold(probability: float) -> None:
    with pytest.raises(ValueError, match=r"probability .* is out of range; give 0 to 1"):
        sampling.threshold_of(probability)


def test_nothing_kept_has_no_text() -> None:
    assert sampling.NEVER == sampling.threshold_of(0)
    assert 0 == sampling.adjusted_count(sampling.NEVER)
    with pytest.raises(ValueError, match="keeps nothing"):
        sampling.threshold_text(sampling.NEVER)


@given(st.binary(min_size=16, max_size=16))
def test_randomness_is_the_low_56_bits(trace_id: bytes) -> None:
    assert int.from_bytes(trace_id[9:]) == sampling.random_of(trace_id)


@given(RANDOMS, THRESHOLDS, st.none() | st.tuples(st.booleans(), st.none() | RANDOMS))
def test_rate_follows_the_parent(r: int, threshold: int, parent: tuple[bool, int | None] | None) -> None:
    """A rate rule asks the parent's `th`, else its flag, else the class's threshold."""
    expected = oracle.rate(r, threshold, parent)

    found = sampling.decide("rate", threshold, random=r, parent=None if parent is None else Parent(*parent))

    assert expected == (found.sampled, found.threshold)
    assert found.root == (parent is None)


@given(RANDOMS, THRESHOLDS, st.builds(Parent, st.booleans(), st.none() | RANDOMS))
def test_always_and_never_beat_the_parent(r: int, threshold: int, parent: Parent) -> None:
    """The flag is theirs, and `th` is erased; a root that is always kept stands for itself."""
    assert Sampling(True, None, False) == sampling.decide("always", threshold, random=r, parent=parent)
    assert Sampling(False, None, False) == sampling.decide("never", threshold, random=r, parent=parent)
    assert "0" == sampling.decide("always", threshold, random=r).text
    assert None is sampling.decide("never", threshold, random=r).text


@given(RANDOMS, st.floats(0, 1), st.floats(0, 1))
def test_sampling_is_consistent(r: int, one: float, other: float) -> None:
    """What is kept at a probability is kept at every higher one."""
    low, high = sorted((one, other))
    if sampling.decide("rate", sampling.threshold_of(low), random=r).sampled:
        assert sampling.decide("rate", sampling.threshold_of(high), random=r).sampled


@pytest.mark.parametrize("probability", [0.5, 0.1, 0.0297, 0.001])
def test_the_kept_fraction_is_the_probability(probability: float) -> None:
    """Chi-square with one degree of freedom over 200,000 random ids, below the value of p = 1e-6."""
    source, n = random.Random(7), 200_000
    threshold = sampling.threshold_of(probability)
    kept = sum(source.getrandbits(56) >= threshold for _ in range(n))
    chi_square = (kept - n * probability) ** 2 / (n * probability * (1 - probability))

    assert chi_square < 23.9


@given(st.text(max_size=40) | st.from_regex(r"((th|rv):[0-9a-f]{1,14};?){1,3}", fullmatch=True))
def test_any_text_of_ot_is_read(text: str) -> None:
    """Bad wire data is None, and never an error."""
    for value in sampling.parse_ot(text):
        assert value is None or 0 <= value < 2**56


IDS = 100_000
CASES = [
    ("ratio", None, False), ("parent", None, False), ("parent", None, True), ("parent", "th:fd70a4", True),
    ("parent", "th:8;rv:7fffffffffffff", False), ("ratio", "rv:80000000000000", True),
]  # fmt: skip


@pytest.mark.parametrize(("sampler", "ot", "flag"), CASES)
def test_equals_opentelemetrys_composite_samplers(sampler: str, ot: str | None, flag: bool) -> None:
    """Flag and `th` of 10^5 ids are those that OpenTelemetry's experimental samplers give."""
    differing = compare(sampler, ot, flag, IDS // len(CASES))

    assert [] == differing


def compare(sampler: str, ot: str | None, flag: bool, ids: int) -> list[tuple[object, ...]]:
    experimental = pytest.importorskip("opentelemetry.sdk.trace._sampling_experimental")
    trace = pytest.importorskip("opentelemetry.trace")
    state = trace.TraceState([("ot", ot)]) if ot else None
    source, differing = random.Random(sampler + str(ot)), []
    for number in range(ids):
        probability = source.choice([1.0, 0.5, 0.1, 0.01, 0.0297, 10 ** -source.uniform(0, 6)])
        packed = struct.pack(">QQ", source.getrandbits(64) | 1, source.getrandbits(64))
        theirs = experimental.composable_traceid_ratio_based(probability)
        if sampler == "parent":
            theirs = experimental.composable_parent_threshold(theirs)
        has_parent = sampler == "parent" and (number % 4 > 0 or ot is not None)
        context = None
        if has_parent:
            span = trace.SpanContext(int.from_bytes(packed), 7, True, trace.TraceFlags(flag), state)
            context = trace.set_span_in_context(trace.NonRecordingSpan(span))
        result = experimental.composite_sampler(theirs).should_sample(
            context, int.from_bytes(packed), "x", trace_state=state
        )
        th, rv = sampling.parse_ot(ot or "")
        kept = result.decision.is_sampled()
        sent = sampling.parse_ot((result.trace_state or {}).get("ot", ""))[0] if kept else None  # theirs stays on drops
        found = sampling.decide(
            "rate", sampling.threshold_of(probability), parent=Parent(flag, th) if has_parent else None,
            random=sampling.random_of(packed) if rv is None else rv,
        )  # fmt: skip
        if (found.sampled, found.threshold) != (kept, sent):
            differing.append((packed.hex(), probability, found, result))
    return differing
