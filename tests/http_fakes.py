"""An engine for tests of HTTP frontends that answers by address and header, and notes what it was asked."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from gobanfast import Ruleset
from gobanfast._core.address import parse_address
from gobanfast.bans import Ban, ban_key


@dataclass
class FakeDecision:
    address: str | None = None
    action: str = "allow"
    rule: str | None = None
    reason: str | None = None
    cause: str = "none"
    expires: float | None = None
    fingerprint: str | None = None
    headers: Any = None
    method: str | None = None
    path: str | None = None
    http: str | None = None


class FakeSnapshot:
    """Rules, and the trust that a frontend made of them."""

    def __init__(self, ruleset: Any) -> None:
        self.ruleset, self.trust = ruleset, None

    def keep_trust(self, trust):
        self.trust = self.trust or trust
        return self.trust


@dataclass
class FakeEngine:
    """Bans .66 of 203.0.113.0/24 and 127.0.0.0/24, challenges .77 and what is no address; fails for .99."""

    asked: list[dict[str, Any]] = field(default_factory=list)
    generation: int = 1
    snapshot: FakeSnapshot = field(default_factory=lambda: FakeSnapshot(Ruleset.from_text("{version: 1, rules: []}")))
    stored: dict[str, Ban] = field(default_factory=dict)
    vouched: list[str | None] = field(default_factory=list)
    stale: bool = False

    @property
    def ruleset(self):
        return self.snapshot.ruleset

    def decide(self, address, /, *, sni=None, hello=None, ja4=None, headers=None, method=None, path=None, http=None):
        self.asked.append(
            {"address": address, "sni": sni, "headers": headers, "method": method, "path": path, "http": http}
        )
        if address in {"203.0.113.99", "127.0.0.99"}:
            raise RuntimeError("the engine is broken")
        given = {"headers": headers, "method": method, "path": path, "http": http}
        if address in {"203.0.113.66", "127.0.0.66"}:
            until = time.time() + 59.5
            return FakeDecision(address, "ban", "probes", "<probing>", "ban", until, "gh2:" + "0" * 32, **given)
        if address in {"203.0.113.77", "127.0.0.77"} or (address is not None and parse_address(address) is None):
            return FakeDecision(address, "challenge", "rented", "servers do not browse", "rule", **given)
        return FakeDecision(address, **given)

    def vouch(self, decision):
        self.vouched.append(decision.address)
        return True

    def status(self):
        return {"generation": self.generation, "problems": [], "stale": self.stale}

    def ban(self, key, *, duration, reason=""):
        self.stored[ban_key(key)] = Ban(ban_key(key), reason, expires=duration)
        return self.stored[ban_key(key)]

    def unban(self, key):
        return self.stored.pop(ban_key(key), None)

    def bans(self):
        return iter(self.stored.values())
