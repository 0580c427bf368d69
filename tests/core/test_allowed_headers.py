"""AllowedHeaders: what a preflight may ask for, in which form, and how little of a hostile list is read."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

import oracle.acrh as oracle
from gobanfast._core.allowed_headers import AllowedHeaders

NAMES = ["x-foo", "x-bar", "x-baz", "authorization", "content-type", "x", "q" * 130]
ODD = ["", "x-qux", "X-Foo", "*", "a b", "x-fo", "x-foox", "\xfc"]
elements = st.sampled_from([*NAMES, *ODD]) | st.text(max_size=3)
blanks = st.text(alphabet=" \t", max_size=2)
asked_lines = st.lists(
    st.lists(st.builds("".join, st.tuples(blanks, elements, blanks)), max_size=20).map(",".join), max_size=3
)
in_order = st.lists(st.sampled_from(NAMES), unique=True, max_size=7).map(sorted).map(",".join).map(lambda line: [line])


@given(st.lists(st.sampled_from(NAMES), unique=True), asked_lines | in_order, st.booleans())
def test_walks_agree_with_the_oracle(names: list[str], lines: list[str], others: bool) -> None:
    """The one walk that stops at the first miss says what looking at everything says; bytes and str alike."""
    allowed = AllowedHeaders(names, any=others)
    right = oracle.allows(names, lines, others=others)

    assert right == allowed.allows_lines(lines)
    assert right == allowed.allows_lines([line.encode() for line in lines])


@pytest.mark.parametrize(
    ("lines", "right"),
    [
        ([], True),
        ([""], True),
        (["x-foo"], True),
        (["x-bar,x-foo"], True),
        (["x-bar", "x-baz,x-foo"], True),
        (["x-foo,x-bar"], False),
        (["x-bar", "x-bar"], False),
        (["X-Foo"], False),
        (["x-foo  "], True),
        ([" x-foo  "], False),
        (["," * 16 + "x-foo"], True),
        (["," * 17 + "x-foo"], False),
        ([",,,,,,,,,,,,,,,,"] * 64, False),
        (["x-fo"], False),
        (["x-foox"], False),
        (["x-foo\n"], False),
        (["x-foo\x00"], False),
    ],
)
def test_form_is_that_of_browsers(lines: list[str], right: bool) -> None:
    assert right == AllowedHeaders(["X-Foo", "x-bar", "X-Baz"]).allows_lines(lines)
    assert right == oracle.allows(["X-Foo", "x-bar", "X-Baz"], lines, others=False)


def test_any_never_covers_authorization() -> None:
    assert AllowedHeaders(any=True).allows_lines(["x-anything"])
    assert not AllowedHeaders(any=True).allows_lines(["authorization"])
    assert AllowedHeaders(["Authorization"], any=True).allows_lines(["accept,authorization,x-anything"])
    assert not AllowedHeaders(any=True).allows_lines(["x-b,x-a"])
    assert AllowedHeaders(any=True).allows_lines([",".join(f"x-{number:03}" for number in range(128))])
    assert not AllowedHeaders(any=True).allows_lines([",".join(f"x-{number:03}" for number in range(129))])


@pytest.mark.parametrize("hostile", ["," * 2**20, "a" * 2**20, " " * 2**20, "x-foo," * 2**17, "x-foo" + "\t" * 2**20])
def test_hostile_lists_are_refused(hostile: str) -> None:
    assert not AllowedHeaders(["x-foo"]).allows_lines([hostile])
    assert not AllowedHeaders(any=True).allows_lines([hostile])


def test_names_are_kept_sorted_in_lower_case() -> None:
    made = AllowedHeaders(["X-Foo", "x-foo", "Accept"], any=True)

    assert (("accept", "x-foo"), True) == (made.names, made.any)
    assert made.names == pickle.loads(pickle.dumps(made)).names  # noqa: S301


def test_what_is_no_name_is_refused() -> None:
    with pytest.raises(ValueError, match="header name 'x y' is no token"):
        AllowedHeaders(["x y"])
    with pytest.raises(TypeError, match=r"write AllowedHeaders\(\['x'\]\)"):
        AllowedHeaders("x")
    with pytest.raises(TypeError, match="expected str or bytes, got int"):
        AllowedHeaders(["x"]).allows_lines([1])  # type: ignore[list-item]
