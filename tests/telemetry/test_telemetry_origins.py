"""The sketch of withheld origins: bounded whatever comes, and what it says of the frequent ones is true."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gobanfast.telemetry.origins import LONGEST, WithheldOrigins


@given(noted=st.lists(st.sampled_from([f"https://{name}.test" for name in "aaaabbbccdefghij"]), max_size=200),
       most=st.integers(1, 6))  # fmt: skip
def test_counts_lie_where_the_sketch_says(noted: list[str], most: int) -> None:
    """Against exact counts: never more held than `most`, bounds are true, the frequent are held, nothing is lost."""
    sketch, exact = WithheldOrigins(most), Counter(noted)
    for origin in noted:
        sketch.note(origin)
    found = sketch.top(most + 1)

    assert len(found) == min(most, len(exact))
    assert len(noted) == sketch.total == sum(each.at_most for each in found)
    for each in found:
        assert each.at_most - each.over <= exact[each.origin] <= each.at_most
    held = {each.origin for each in found}
    assert {origin for origin, count in exact.items() if count * most > len(noted)} <= held


@given(origin=st.text(max_size=1000))
def test_any_text_is_a_short_printable_one(origin: str) -> None:
    """Whatever is noted: at most 300 characters of printable ASCII."""
    sketch = WithheldOrigins()
    sketch.note(origin)
    ((text, count, over),) = sketch.top(1)

    assert (1, 0) == (count, over)
    assert len(text) <= LONGEST
    assert text.isascii()
    assert text.isprintable()


def test_a_flood_of_invented_origins_hides_no_frequent_one() -> None:
    """A hundred thousand origins once each, and one of twenty again and again."""
    sketch = WithheldOrigins()
    for number in range(20_000):
        sketch.note(f"https://{number}.test")
        if number % 20 == 0:
            sketch.note("https://app.example.com")

    assert "https://app.example.com" == sketch.top(1)[0].origin


def test_a_sketch_that_holds_nothing_is_refused() -> None:
    """Misuse says what would be right."""
    with pytest.raises(ValueError, match="most=0 holds no origin; write 1 or more"):
        WithheldOrigins(0)
