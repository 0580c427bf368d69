"""Regexes in RE2: linear time whatever the pattern."""

from __future__ import annotations

import re
from typing import Protocol


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
