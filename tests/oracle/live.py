"""What an engine with live state answers: every rule asked, then bans in a dict, whole histories, exact counts."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gobanfast.rules.settings import Settings
from oracle import bans
from oracle.prefix import canonical
from oracle.rules import OracleNetworks, OracleRule, OracleSignals, decide, is_ja4, name_of
from oracle.score import OracleScorer
from oracle.trackers import OracleTrackers

TRIPS = ("distinct_fingerprints", "request_rate", "surge")
STRENGTH = {"allow": 0, "challenge": 1, "ban": 2}


@dataclass
class OracleEngine:
    """`hash_of` and `fingerprint_text` stand for the hashes of names and fingerprints: any that differ will do."""

    rules: Sequence[OracleRule]
    networks: OracleNetworks
    settings: Settings
    hash_of: Callable[[str], int] = hash
    bans: bans.Table = field(default_factory=bans.Table)
    trackers: OracleTrackers | None = field(init=False)
    scorer: OracleScorer | None = field(init=False)
    taught: dict[str | None, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.trackers = None if self.settings.trackers is None else OracleTrackers(self.settings.trackers)
        self.scorer = None if self.settings.score is None else OracleScorer(self.settings.score)

    def decide(
        self, address: str | None, signals: OracleSignals, fingerprint: str | None, now: float, shape: str | None = None
    ) -> tuple[str, str, str | None]:
        """(action, cause, rule or tracker), and the state that follows; `now` is whole milliseconds."""
        plain = None if address is None else canonical(ipaddress.ip_address(address))
        asn = 0 if plain is None else self.networks.lookup(str(plain))
        winner, _, logged = decide(list(self.rules), None if plain is None else str(plain), self.networks, signals)
        added = sum(rule.weigh or 0.0 for rule in self.rules if rule.id in logged)
        rule = next((rule for rule in self.rules if rule.id == winner), None)
        if rule is not None and rule.action == "allow":
            return "allow", "rule", rule.id
        ban = self.bans.lookup(bans.Request(plain, asn, fingerprint), now)
        if ban is not None:
            return "ban", "ban", ban.rule
        tripped, action, lasts = self._track(plain, asn, fingerprint, now)
        client = None if plain is None else bans.text(bans.client(plain, self.settings.bans.ipv6_client))
        if action == "ban" and client is not None and tripped is not None:
            self.bans.ban(client, lasts, tripped, tripped, "tracker", now)
        if rule is not None:
            if rule.stored is not None and action != "ban":
                self._store(rule, client, fingerprint, now)
            return rule.action, "rule", rule.id
        if tripped is not None:
            return action, "tracker", tripped
        if self._unread(signals):
            return "challenge", "unparsable", None
        if self.scorer is not None and self._score(signals, fingerprint, shape, plain, asn, added):
            return "challenge", "score", None
        return "allow", "none", None

    def _unread(self, signals: OracleSignals) -> bool:
        on = [rule for rule in self.rules if rule.mode != "off"]
        name = name_of(signals) == "MALFORMED" and any(
            rule.sni or rule.sni_file or rule.lookalike or rule.sni_host for rule in on
        )
        ja4 = signals.ja4 is not None and not is_ja4(signals.ja4) and any(rule.ja4 or rule.ja4_prefix for rule in on)
        return name or ja4

    def _track(
        self, plain: bans.Address | None, asn: int, fingerprint: str | None, now: float
    ) -> tuple[str | None, str, float | None]:
        settings = self.settings.trackers
        if self.trackers is None or settings is None or plain is None:
            return None, "allow", None
        if any(first <= asn <= last for first, last in settings.exempt_asn if asn):
            return None, "allow", None
        client = bans.text(bans.client(plain, self.settings.bans.ipv6_client))
        number = 0 if fingerprint is None else int(fingerprint[20:36], 16) | 1
        self.trackers.note(client, number, round(now * 1000))
        passed = self.trackers.tripped(client, round(now * 1000))
        best: tuple[str | None, str, float | None] = (None, "allow", None)
        for name in TRIPS:
            limit = getattr(settings, name)
            if name in passed and STRENGTH[limit.action] > STRENGTH[best[1]]:
                best = name, limit.action, limit.duration
        return best

    def _store(self, rule: OracleRule, client: str | None, fingerprint: str | None, now: float) -> None:
        if rule.key == "client":
            key = client
        elif rule.key == "fingerprint":
            key = fingerprint
        else:
            key = None if client is None or fingerprint is None else f"{fingerprint}@{client}"
        if key is not None:
            self.bans.ban(key, rule.stored, "", rule.id, "rule", now)

    def vouch(
        self, address: str | None, signals: OracleSignals, fingerprint: str | None, now: float, shape: str | None = None
    ) -> bool:
        """Learns a request that the score challenged, of a client it has not learned so for five minutes."""
        plain = None if address is None else canonical(ipaddress.ip_address(address))
        client = None if plain is None else bans.text(bans.client(plain, self.settings.bans.ipv6_client))
        if now < self.taught.get(client, float("-inf")) + 300:
            return False
        asn = None if plain is None else self.networks.lookup(str(plain))
        assert self.scorer is not None
        learned = self.scorer.vouch(*self._scored(signals, fingerprint), asn, _low(shape))
        if learned:
            self.taught[client] = now
        return learned

    def _score(
        self,
        signals: OracleSignals,
        fingerprint: str | None,
        shape: str | None,
        plain: bans.Address | None,
        asn: int,
        added: float,
    ) -> bool:
        assert self.scorer is not None
        client = 0 if plain is None else int(bans.client(plain, 48).network_address)
        known = None if plain is None else asn
        return self.scorer.rate(*self._scored(signals, fingerprint), known, added, client, _low(shape))[3]

    def _scored(self, signals: OracleSignals, fingerprint: str | None) -> tuple[int | None, int | None]:
        name = name_of(signals)
        hashed = None if name == "ABSENT" else self.hash_of(name)
        return hashed, _low(fingerprint)


def _low(hashed: str | None) -> int | None:
    """The low half of a hash in text."""
    return None if hashed is None else int(hashed[20:36], 16)
