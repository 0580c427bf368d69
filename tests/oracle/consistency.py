"""How server name and host go together, and what looks like what: every pair compared, letter by letter."""

from __future__ import annotations

import ipaddress
import re
import unicodedata

from gobanfast.wire.lookalikes import skeleton

LABELS = r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*"


def host_of(authority: str | None) -> str | None:
    """The host without port and final dot; None when there is none, or it cannot be read."""
    text = (authority or "").lower()
    found = re.fullmatch(rf"(?:\[([0-9a-f:.]*:[0-9a-f:.]*)\]|({LABELS})\.?)(?::[0-9]{{0,5}})?", text)
    if found is None or (found[2] is not None and len(found[2]) > 253):
        return None
    return found[1] or found[2]


def is_address(name: str | None) -> bool:
    """Whether it is an IP address."""
    try:
        ipaddress.ip_address(name or "")
    except ValueError:
        return False
    return True


def agreement(sni: str | None, authority: str | None, names: tuple[str, ...]) -> str:
    """The word for SNI (normal, None: none that can be read) and host."""
    host = host_of(authority)
    if sni is None or host is None or is_address(host):
        return "unknown"
    if sni == host:
        return "agree"
    covered = [name for name in names if name == host or (name[:2] == "*." and host.split(".", 1)[1:] == [name[2:]])]
    return "coalesced" if covered else "differ"


def distance(left: str, right: str) -> int:
    """Letters put in, left out, replaced, or swapped with a neighbour that make one of the other."""
    rows = [list(range(len(right) + 1))]
    for i in range(1, len(left) + 1):
        row = [i]
        for j in range(1, len(right) + 1):
            best = min(rows[i - 1][j] + 1, row[j - 1] + 1, rows[i - 1][j - 1] + (left[i - 1] != right[j - 1]))
            if i > 1 and j > 1 and left[i - 1] == right[j - 2] and left[i - 2] == right[j - 1]:
                best = min(best, rows[i - 2][j - 2] + 1)
            row.append(best)
        rows.append(row)
    return rows[-1][-1]


def in_unicode(name: str) -> str:
    """The name without A-labels."""
    import idna

    labels = []
    for label in name.lower().split("."):
        try:
            labels.append(idna.decode(label) if label.startswith("xn--") else label)
        except UnicodeError:
            labels.append(label)
    return unicodedata.normalize("NFC", ".".join(labels))


def looks_like(name: str | None, protected: tuple[str, ...]) -> bool:
    """Whether the name, or one above it, looks like a protected name and is not below one."""
    if name is None or is_address(name):
        return False
    own = [in_unicode(one) for one in protected]
    labels = in_unicode(name).split(".")
    above = [".".join(labels[at:]) for at in range(len(labels))]
    if any(one in own for one in above):
        return False
    for one in own:
        for other in above:
            shape, seen = skeleton(one), skeleton(other)
            near = max(map(len, shape.split("."))) >= 5 and distance(shape, seen) == 1
            if one.count(".") == other.count(".") and (shape == seen or near):
                return True
    return False
