"""Access-Control-Request-Headers the slow way: split everything, then look at one element after the other."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]{1,128}")


def allows(names: Sequence[str], lines: Sequence[str], *, others: bool) -> bool:
    """Whether all that is asked is allowed, in the order that browsers send."""
    elements = ",".join(lines).split(",") if lines else []
    asked = [element.strip(" \t") for element in elements]
    if any(len(element) - len(name) > 2 for element, name in zip(elements, asked, strict=True)):
        return False
    found = [name for name in asked if name]
    if len(asked) - len(found) > 16 or any(b <= a for a, b in pairwise(found)):
        return False
    known = {name.lower() for name in names}
    free = [name for name in found if name not in known]
    if others and len(found) <= 128:
        return all(TOKEN.fullmatch(name) and name != "authorization" for name in free)
    return not (others and found) and not free
