"""Look-alike host names: skeletons of confusable letters, and edit distance one to protected names."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from gobanfast.wire.hosts import NAME_LIMIT, host_name

# What people take for another letter: digits and strokes in place of letters, and letters of other scripts that are
# drawn alike (a subset of Unicode UTS #39, confusables).
CONFUSED = str.maketrans(
    {
        "0": "o", "1": "l", "i": "l", "|": "l", "3": "e", "4": "a", "5": "s", "7": "t", "8": "b", "9": "g",
        "а": "a", "в": "b", "с": "c", "ԁ": "d", "е": "e", "һ": "h", "і": "l", "ј": "j", "к": "k", "ӏ": "l", "м": "m",
        "н": "h", "о": "o", "р": "p", "ԛ": "q", "ѕ": "s", "т": "t", "у": "y", "ѵ": "v", "ԝ": "w", "х": "x", "α": "a",
        "β": "b", "ε": "e", "ι": "l", "κ": "k", "ν": "v", "ο": "o", "ρ": "p", "τ": "t", "υ": "u", "χ": "x", "ı": "l",
        "ł": "l", "ø": "o", "đ": "d", "ħ": "h", "ɡ": "g", "ɑ": "a", "ß": "b", "-": None, "_": None,
    }
)  # fmt: skip
PAIRS = (("rn", "m"), ("vv", "w"), ("cl", "d"))
LONG = 5  # letters of the longest label: shorter names are too near to too many others for edits to mean anything


def skeleton(name: str) -> str:
    """What a name looks like at a glance: equal skeletons are easily taken for each other. Dots stay."""
    letters = unicodedata.normalize("NFD", decoded(name.lower().removesuffix(".")))
    shape = "".join(letter for letter in letters if not unicodedata.combining(letter)).translate(CONFUSED)
    for pair, letter in PAIRS:
        shape = shape.replace(pair, letter)
    return shape


def plain(name: str) -> str:
    """The one way to write a name in Unicode: lower case, no final dot, no A-labels."""
    return unicodedata.normalize("NFC", decoded(name.lower().removesuffix(".")))


def decoded(name: str) -> str:
    """The name with its A-labels in Unicode, where they are valid."""
    if "xn--" not in name:
        return name
    import idna

    labels = []
    for label in name.split("."):
        try:
            labels.append(idna.decode(label) if label.startswith("xn--") else label)
        except UnicodeError:  # IDNAError is one
            labels.append(label)
    return ".".join(labels)


class Lookalikes:
    """Protected names, and the names that look like them.

    Args:
        protected: names, as people type them; they and all below them are themselves, never look-alikes.
    Cost: a few microseconds a name, whatever the number of protected ones.
    """

    def __init__(self, protected: Iterable[str]) -> None:
        self._own = {plain(name) for name in protected}
        for name in self._own:
            if host_name(name) is None and not any(ord(letter) > 127 for letter in name):
                raise ValueError(f"protected name {name!r} is not a host name")
        self._shapes: dict[str, str] = {}
        self._shorter: dict[str, set[str]] = {}  # a shape with one letter left out -> shapes
        for name in sorted(self._own):
            shape = skeleton(name)
            self._shapes[shape] = name
            if max(map(len, shape.split("."))) >= LONG:
                for less in (shape, *one_less(shape)):
                    self._shorter.setdefault(less, set()).add(shape)
        self._depths = sorted({name.count(".") + 1 for name in self._own})

    def lookup(self, name: str) -> str | None:
        """The protected name that `name`, or a name above it, looks like; None for one that is what it looks like."""
        if len(name) > NAME_LIMIT:
            return None
        labels = plain(name).split(".")
        tails = [".".join(labels[-depth:]) for depth in self._depths if depth <= len(labels)]
        if any(tail in self._own for tail in tails):
            return None
        for tail in tails:
            shape = skeleton(tail)
            if shape in self._shapes:
                return self._shapes[shape]
            for less in (shape, *one_less(shape)):
                for near in sorted(self._shorter.get(less, ())):
                    if one_edit_apart(near, shape):
                        return self._shapes[near]
        return None


def one_less(text: str) -> set[str]:
    return {text[:at] + text[at + 1 :] for at in range(len(text))}


def one_edit_apart(left: str, right: str) -> bool:
    """Whether one letter put in, left out, replaced, or swapped with its neighbour makes one of the other."""
    if abs(len(left) - len(right)) > 1:
        return False
    if len(left) != len(right):
        short, long = sorted((left, right), key=len)
        return short in one_less(long)
    places = [at for at in range(len(left)) if left[at] != right[at]]
    return len(places) == 1 or (
        len(places) == 2
        and places[1] == places[0] + 1
        and left[places[0]] == right[places[1]]
        and left[places[1]] == right[places[0]]
    )
