"""What trackers count, from a list of everything that every client ever did."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from gobanfast.rules.settings import TrackerSettings


@dataclass
class OracleTrackers:
    """Times are whole milliseconds. Nothing is ever forgotten, so it is a bound for trackers that are short of room."""

    settings: TrackerSettings
    seen: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))

    def note(self, client: str, fingerprint: int, now: int) -> None:
        past = self.seen[client]
        past.append((max(now, past[-1][0] if past else now), fingerprint))

    def distinct(self, client: str, now: int) -> int:
        """Distinct fingerprints seen within the window, counted to one more than the limit."""
        limit = self.settings.distinct_fingerprints
        assert limit is not None
        recent = {fp for when, fp in self.seen[client] if fp and now - when < 1000 * limit.window}
        return min(len(recent), limit.limit + 1)

    def within(self, client: str, now: int, milliseconds: float) -> int:
        """Requests in the last `milliseconds`."""
        return sum(now - when < milliseconds for when, _ in self.seen[client])

    def requests(self, client: str, now: int) -> int:
        """Requests in the bucket of now and the fifteen before it, sixteen buckets to a window."""
        limit = self.settings.request_rate
        assert limit is not None
        return self._buckets(client, now, int(1000 * limit.window) // 16, 16, 0)

    def surge(self, client: str, now: int) -> tuple[int, int]:
        """Requests in the last four buckets, and in the forty before when the client is known that long."""
        surge = self.settings.surge
        assert surge is not None
        bucket = int(1000 * surge.baseline) // 40
        known = now - self.seen[client][0][0] >= 44 * bucket
        return self._buckets(client, now, bucket, 4, 0), self._buckets(client, now, bucket, 40, 4) if known else 0

    def tripped(self, client: str, now: int) -> set[str]:
        """The limits that are passed."""
        found = set()
        distinct, rate, surge = self.settings.distinct_fingerprints, self.settings.request_rate, self.settings.surge
        if distinct is not None and self.distinct(client, now) > distinct.limit:
            found.add("distinct_fingerprints")
        if rate is not None and self.requests(client, now) > rate.limit:
            found.add("request_rate")
        if surge is not None:
            recent, before = self.surge(client, now)
            known = now - self.seen[client][0][0] >= 44 * (int(1000 * surge.baseline) // 40)
            if known and recent >= surge.min_requests and recent * 100 > surge.over * before / 10:
                found.add("surge")
        return found

    def _buckets(self, client: str, now: int, bucket: int, count: int, skipped: int) -> int:
        newest = now // bucket - skipped
        return sum(newest - count < when // bucket <= newest for when, _ in self.seen[client])
