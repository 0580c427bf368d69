"""What the values of a session are, slowly: every part of a header, every escape, by the words of RFC 6265."""

from __future__ import annotations

import hashlib
import re

from gobanfast._core.siphash import siphash128

BLANKS = "".join(chr(number) for number in range(33)) + "\x85\xa0"
MOST, LONGEST, READ = 4, 4096, 65_536


def decoded(value: bytes, *, plus: bool = False) -> bytes:
    """The value with every `%41` decoded, until there is none."""
    value = value.replace(b"+", b" ") if plus else value
    while (found := re.search(rb"%[0-9A-Fa-f]{2}", value)) is not None:
        value = value[: found.start()] + bytes([int(found[0][1:], 16)]) + value[found.end() :]
    return value


class Values:
    """The different values that were found; None: malformed."""

    def __init__(self) -> None:
        self.found: list[tuple[bytes, bool]] = []
        self.malformed = False

    def add(self, value: bytes, plus: bool = False) -> None:
        """One more."""
        if not value or any(value == known for known, _ in self.found):
            return
        if len(value) > LONGEST or len(self.found) == MOST:
            self.malformed = True
        else:
            self.found.append((value, plus))


def of_cookies(header: bytes, name: str) -> Values:
    """Those of the cookies of this name; what comes after a malformed one is not looked at."""
    values = Values()
    if len(header) > READ:
        values.malformed = True
        return values
    for part in header.decode("latin-1").split(";"):
        key, equals, value = part.partition("=")
        if not equals or key.strip(BLANKS) != name:
            continue
        value = value.strip(BLANKS)
        if len(value) >= 2 and value[0] == value[-1] == '"':
            value = value[1:-1]
            if "\\" in value:
                values.malformed = True
        if values.malformed:
            return values
        values.add(value.encode("latin-1"))
        if values.malformed:
            return values
    return values


def of_query(query: bytes, name: str) -> Values:
    """Those of the parameters of this name."""
    values = Values()
    if len(query) > READ:
        values.malformed = True
        return values
    for part in query.split(b"&"):
        key, equals, value = part.partition(b"=")
        short = len(key) <= min(3 * len(name), 192)
        if equals and short and (key == name.encode() or decoded(key, plus=True) == name.encode()):
            values.add(value, plus=True)
            if values.malformed:
                return values
    return values


def key(value: bytes, secret: bytes, *, plus: bool = False) -> str:
    """The key of a value: SipHash-2-4-128 of it, its escapes decoded, under what SHA-256 makes of the secret."""
    digest = hashlib.sha256(b"gobanfast session\0" + secret).digest()
    hash_ = siphash128(decoded(value, plus=plus), digest[:16])
    low, high = int.from_bytes(hash_[:8], "little"), int.from_bytes(hash_[8:], "little")
    return f"session:{digest[16:20].hex()}:{high:016x}{low:016x}"
