"""RE2 regexes, linear time for every pattern, and multi-pattern search over one value."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LONGEST = 4096
"""Bytes of a value of a request that `regex` and `contains` read; one that is longer cannot be read by them."""


class Searches(Protocol):
    def search(self, text: str, /) -> object | None: ...


def compile_regex(text: str, *, ignore_case: bool = True) -> Searches:
    """The compiled pattern.

    Raises:
        ValueError: not a regex, or one that only a backtracking engine could run.
    """
    import re2

    # pyre2 would otherwise hand a pattern that RE2 refuses to the backtracking `re`, in silence. The
    # type is checked as well: another user of the module can reset the flag or have filled its cache.
    re2.set_fallback_notification(re2.FALLBACK_EXCEPTION)
    try:
        pattern = re2.compile(text, re2.IGNORECASE if ignore_case else 0)
    except re.error as error:
        message = str(error)
        raise ValueError(message[:1].lower() + message[1:]) from None
    if not isinstance(pattern, re2.Pattern):
        raise ValueError("RE2 refuses it")
    searches: Searches = pattern
    return searches


_COUNTED = re.compile(r"\{\d*,?\d{2,}\}")  # repetitions with which a combination could outgrow RE2's memory
_TOGETHER = 64  # patterns of one combination
_FEW = 4  # of such with counted repetitions


class Regexes:
    """Patterns that are searched together: which of them a text has costs one search when it has none.

    Args:
        patterns: RE2 patterns.
        ignore_case: for all of them.
    Cost: one search for each 64 patterns (4 with counted repetitions); where it finds something halves are searched, so
        twice as many searches as patterns at most, for a text that has all of them.
    """

    def __init__(self, patterns: Sequence[str], *, ignore_case: bool) -> None:
        self._patterns, self._ignore_case = patterns, ignore_case
        light = [i for i, text in enumerate(patterns) if not _COUNTED.search(text)]
        heavy = [i for i, text in enumerate(patterns) if _COUNTED.search(text)]
        self._trees = [self._tree(light[at : at + _TOGETHER]) for at in range(0, len(light), _TOGETHER)]
        self._trees += [self._tree(heavy[at : at + _FEW]) for at in range(0, len(heavy), _FEW)]

    def found(self, text: str) -> list[int]:
        """Indexes of the patterns that `text` has, in no order."""
        found: list[int] = []
        waiting = list(self._trees)
        while waiting:
            tree = waiting.pop()
            if tree.together is None or tree.together.search(text) is not None:
                waiting += tree.halves
                if not tree.halves:
                    found.append(tree.first)
        return found

    def _tree(self, indexes: list[int]) -> _Tree:
        half = len(indexes) // 2
        halves = [self._tree(indexes[:half]), self._tree(indexes[half:])] if half else []
        together: Searches | None = None
        try:
            joined = "|".join(f"(?:{self._patterns[i]})" for i in indexes)
            together = compile_regex(joined, ignore_case=self._ignore_case)
        except ValueError:  # too large together, or two groups of one name: each is asked
            if not halves:
                raise
        return _Tree(indexes[0], together, halves)


class _Tree:
    """A combination of patterns, its two halves, and the index of the first; one pattern has no halves."""

    __slots__ = ("first", "halves", "together")

    def __init__(self, first: int, together: Searches | None, halves: list[_Tree]) -> None:
        self.first, self.together, self.halves = first, together, halves


class Texts:
    """Plain texts that are looked for together: by four bytes of each that few others have.

    Args:
        texts: (text, key) pairs.
    Cost: a few nanoseconds for each byte of the value, whatever the number of texts of four bytes and more.
    """

    _BITS = 19

    def __init__(self, texts: Iterable[tuple[str, int]]) -> None:
        import numpy as np

        listed = list(dict.fromkeys(texts))
        self._plain = listed if len(listed) <= 32 else [(text, key) for text, key in listed if len(text.encode()) < 4]
        packed = [] if len(listed) <= 32 else [(text.encode(), key) for text, key in listed if len(text.encode()) >= 4]
        often = Counter(text[at : at + 4] for text, _ in packed for at in range(len(text) - 3))
        self._at: dict[int, list[tuple[int, bytes, int]]] = {}
        for text, key in packed:
            at = min(range(len(text) - 3), key=lambda at: often[text[at : at + 4]])
            self._at.setdefault(int.from_bytes(text[at : at + 4], "little"), []).append((at, text, key))
        self._marks = np.zeros(1 << self._BITS if packed else 0, np.bool_)
        if packed:
            self._marks[self._marked(np.fromiter(self._at, np.uint32, len(self._at)))] = True

    def _marked(self, grams: NDArray[np.uint32]) -> NDArray[np.uint32]:
        import numpy as np

        hashes: NDArray[np.uint32] = (grams * np.uint32(2654435761)) >> np.uint32(32 - self._BITS)
        return hashes

    def found(self, value: str) -> set[int]:
        """Keys of the texts that `value` has."""
        import numpy as np

        found = {key for text, key in self._plain if text in value}
        if not self._at or len(value) < 1:
            return found
        raw = value.encode()
        if len(raw) < 4:
            return found
        data = np.frombuffer(raw, np.uint8).astype(np.uint32)
        grams: NDArray[np.uint32] = data[:-3].copy()
        for at in (1, 2, 3):
            grams |= data[at : len(data) - 3 + at] << np.uint32(8 * at)
        places = np.flatnonzero(self._marks[self._marked(grams)])
        for place, gram in zip(places.tolist(), grams[places].tolist(), strict=True):
            for at, text, key in self._at.get(gram, ()):
                if key not in found and place >= at and raw.startswith(text, place - at):
                    found.add(key)
        return found
