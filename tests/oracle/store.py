"""What a store holds, by definition: for each key the ban that expires last of those set since the key was lifted."""

from __future__ import annotations


def over(expires, now):
    return expires is not None and expires <= now


def after(first, second):
    """The later of two expiries; None is never."""
    return None if first is None or second is None else max(first, second)


class OracleStore:
    """key -> (expiry, reason of the ban that stays)"""

    def __init__(self):
        self.held = {}

    def get(self, key, now):
        found = self.held.get(key)
        return None if found is None or over(found[0], now) else found

    def set(self, key, expires, reason, now):
        if over(expires, now):
            return
        old = self.get(key, now)
        if old is None or (after(old[0], expires) == expires and expires != old[0]):
            self.held[key] = (expires, reason)

    def extend(self, key, expires, now):
        old = self.get(key, now)
        if old is not None:
            self.held[key] = (after(old[0], expires), old[1])

    def delete(self, key, now):
        return self.held.pop(key, None) is not None

    def scan(self, now):
        return {key for key in self.held if self.get(key, now)}
