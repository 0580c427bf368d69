"""The data classes of a first decision are those of the standard library, to whoever uses them."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle

import pytest

from gobanfast import _dataclass


def both(**options):
    """The same class made by us and by the standard library."""

    def plain():
        class Point:
            """Two numbers and a name."""

            x: int
            y: int = 2
            name: str | None = None

            def moved(self):
                return self.x + 1

        return Point

    return _dataclass.dataclass(**options)(plain()), dataclasses.dataclass(**options)(plain())


OPTIONS = [{"frozen": True}, {"frozen": True, "slots": True}, {"frozen": True, "eq": False, "repr": False}]
CALLS = [((1,), {}), ((1, 2, "a"), {}), ((), {"x": 1, "name": "b"}), ((1,), {"y": 3})]
MISFITS = [((), {}), ((1, 2, "a", 4), {}), ((1,), {"x": 1}), ((), {"x": 1, "z": 2}), ((1, 2, "a"), {"y": 5})]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(("given", "named"), CALLS)
def test_values_are_those_of_the_standard_library(options, given, named):
    """Fields, text, equality, hash and what `dataclasses` tells of them agree."""
    ours, theirs = (kind(*given, **named) for kind in both(**options))

    assert dataclasses.asdict(theirs) == dataclasses.asdict(ours)
    assert dataclasses.astuple(theirs) == dataclasses.astuple(ours)
    assert [field.name for field in dataclasses.fields(theirs)] == [field.name for field in dataclasses.fields(ours)]
    assert dataclasses.replace(theirs, y=9).y == dataclasses.replace(ours, y=9).y
    assert theirs.moved() == ours.moved()
    if options.get("repr", True):
        assert repr(theirs) == repr(ours)
    assert (copy.copy(theirs) == theirs) == (copy.copy(ours) == ours)
    if options.get("eq", True):
        assert hash(theirs) == hash(ours)
        assert theirs != ours


@pytest.mark.parametrize("options", OPTIONS)
def test_classes_are_those_of_the_standard_library(options):
    """Signature, slots and match arguments agree; nothing can be assigned."""
    ours, theirs = both(**options)

    assert inspect.signature(theirs) == inspect.signature(ours)
    assert theirs.__match_args__ == ours.__match_args__
    assert hasattr(theirs(1), "__dict__") == hasattr(ours(1), "__dict__")
    assert (theirs.__name__, theirs.__doc__) == (ours.__name__, ours.__doc__)
    for change in (lambda: setattr(ours(1), "x", 2), lambda: delattr(ours(1), "x")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            change()


@pytest.mark.parametrize(("given", "named"), MISFITS)
def test_a_call_that_does_not_fit_is_a_type_error(given, named):
    """In the words of the standard library."""
    ours, theirs = both(frozen=True, slots=True)
    with pytest.raises(TypeError) as told:
        theirs(*given, **named)
    with pytest.raises(TypeError) as found:
        ours(*given, **named)

    assert str(told.value).rpartition(".")[2] == str(found.value).rpartition(".")[2]


def test_a_public_one_is_pickled():
    """Problems and bans travel between processes."""
    from gobanfast import Ban, Problem

    for item in (Ban("192.0.2.1", expires=5.0), Problem("rules.yaml", 1, 2, "odd", hint="be even")):
        assert item == pickle.loads(pickle.dumps(item))  # noqa: S301
