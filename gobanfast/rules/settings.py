"""Settings of a rules file besides its rules; an absent section is off, or has the defaults below."""

from __future__ import annotations

from typing import Literal

from gobanfast._core.enums import FIELDS
from gobanfast._dataclass import dataclass
from gobanfast.rules.rule import PrefixList


@dataclass(frozen=True, slots=True)
class Escalation:
    """How long the next ban of a key lasts: `factor` times the last one, up to `cap` seconds.

    `jitter` is the fraction of the length that is random, so that the end cannot be predicted. A key that was free for
    `memory` seconds starts again at one.
    """

    factor: float = 2.0
    cap: float = 7 * 86400.0
    jitter: float = 0.1
    memory: float = 86400.0


@dataclass(frozen=True, slots=True)
class Ladder:
    """How bans of clients grow: (prefix length, clients banned below it from which on it is banned itself), by family,
    ascending in evidence; for `duration` seconds, where at most `collateral` clients were let in lately."""

    ipv4: tuple[tuple[int, int], ...] = ((24, 16),)
    ipv6: tuple[tuple[int, int], ...] = ((48, 16),)
    duration: float = 3600.0
    collateral: int = 3


@dataclass(frozen=True, slots=True)
class BanSettings:
    """Section `bans:`. `ipv6_client` is the length of the prefix that counts as one IPv6 client; `protect` are prefixes
    none of which is banned without force."""

    capacity: int = 1_000_000
    on_full: Literal["refuse", "evict"] = "refuse"
    escalate: Escalation | None = None
    ipv6_client: Literal[64, 56, 48] = 64
    ladder: Ladder | None = None
    protect: PrefixList | None = None


@dataclass(frozen=True, slots=True)
class Limit:
    """More than `limit` within `window` seconds; `duration` is that of a ban, None with a challenge."""

    window: float
    limit: int
    action: Literal["ban", "challenge", "limit"]
    duration: float | None


@dataclass(frozen=True, slots=True)
class Surge:
    """More than `over` percent of what the client did in the `baseline` seconds before, and `min_requests` at least.

    Both are counted per window of a tenth of the baseline.
    """

    over: int
    baseline: float
    min_requests: int
    action: Literal["ban", "challenge", "limit"]
    duration: float | None


@dataclass(frozen=True, slots=True)
class TrackerSettings:
    """Section `trackers:`; None is a tracker that is off. `exempt_asn` holds inclusive ranges of AS numbers.

    `on_saturated` is the action for a client for which the trackers have no room, so its limits are unknown.
    """

    capacity: int = 10_000
    distinct_fingerprints: Limit | None = None
    request_rate: Limit | None = None
    surge: Surge | None = None
    exempt_asn: tuple[tuple[int, int], ...] = ()
    exempt_prefix: PrefixList | None = None
    on_saturated: Literal["challenge", "allow"] = "allow"


@dataclass(frozen=True, slots=True)
class ScoreSettings:
    """Section `score:`. `asn_risk` holds (first AS, last AS, risk), ascending and disjoint."""

    sni: float = 0.40
    header: float = 0.35
    asn: float = 0.25
    window: int = 300
    percentile: float = 95.0
    deviations: float = 0.05
    floor: float = 0.60
    ceiling: float = 0.80
    min_samples: int = 100
    max_step: float = 0.001
    learn: Literal["unflagged", "all"] = "unflagged"
    naive: bool = False
    scope: Literal["global", "host"] = "global"
    asn_risk: tuple[tuple[int, int, float], ...] = ()
    unknown_asn: float = 0.25
    mode: Literal["enforce", "shadow"] = "enforce"


@dataclass(frozen=True, slots=True)
class FingerprintSettings:
    """Section `fingerprint:`. `fields` are the headers whose values are in a fingerprint; `key` makes fingerprints and
    shapes private."""

    fields: tuple[str, ...] = FIELDS
    key: str | None = None

    def __repr__(self) -> str:
        return f"FingerprintSettings(fields={self.fields!r})"  # the key is a secret


@dataclass(frozen=True, slots=True)
class TrustSettings:
    """Options of `trust:` besides prefixes. `chain`: whether trusted peers must send one; None: by frontend. `host`:
    the header in which they write the host that the client asked for; None: none."""

    chain: Literal["required", "optional"] | None = None
    host: str | None = None


@dataclass(frozen=True, slots=True)
class EdgeHeaderSettings:
    """Section `edge_headers:`, request headers that only trusted peers may say. `strip`: names, or beginnings that end
    in `*`, of what the application does not see of others; `keep`: names that stay. `append`: chains to which the
    address of the peer, trusted or not, is appended.
    """

    keep: tuple[str, ...] = ()
    append: tuple[Literal["x-forwarded-for"], ...] = ()
    strip: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FeedSettings:
    """One entry of section `feeds:`: a list that is fetched and read again as time goes by.

    `kind` says what is in it, `format`, `path`, `column`, `risk_column` and `delimiter` how it is read. `private` lets
    its address be one that is not global, `insecure` not https. `key` names the environment variable with the key of
    the source. `special` says what becomes of prefixes in private and reserved space. `any_size` takes a list of
    whatever size, beside the one before. A list not confirmed for `stale_after` seconds is stale.
    """

    name: str
    url: str | None = None
    file: str | None = None
    kind: Literal["prefix", "asn", "risk", "name", "table"] = "prefix"
    format: Literal["auto", "plain", "csv", "json", "jsonl"] = "auto"
    path: tuple[str, ...] = ()
    column: int = 1
    risk_column: int = 2
    delimiter: str = ","
    every: float = 3600.0
    timeout: float = 60.0
    max_bytes: int = 64 << 20
    private: bool = False
    insecure: bool = False
    key: str | None = None
    auth: Literal["bearer", "basic"] = "bearer"
    checksum: str | None = None
    special: Literal["refuse", "skip", "keep"] = "refuse"
    any_size: bool = False
    stale_after: float = 7 * 86400.0
    on_stale: Literal["keep", "drop"] = "keep"


@dataclass(frozen=True, slots=True)
class TraceSettings:
    """Section `trace:`. `propagators` are read in their order, and written; `edge` are proxies that make or strip trace
    contexts, so that what they send is theirs; `internal` the hosts that get baggage. The others put the context on
    responses."""

    propagators: tuple[Literal["tracecontext", "baggage", "b3", "b3multi"], ...] = ("tracecontext", "baggage")
    from_untrusted: Literal["restart", "link", "continue"] = "restart"
    edge: PrefixList | None = None
    internal: tuple[str, ...] = ()
    traceresponse: bool = False
    server_timing: bool = False


@dataclass(frozen=True, slots=True)
class LabelSettings:
    """Section `labels:`."""

    capacity: int = 100_000


@dataclass(frozen=True, slots=True)
class LimitTableSettings:
    """Section `limit_table:`. `share`: whether processes that load the same rules file count together."""

    capacity: int = 65_536
    share: bool = True


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """Section `session:`. `sources` are where the value of a session may be, (kind, name) in the order of being asked:
    "cookie", "header" or "query"; the first that there is counts.

    `keys` name the secrets that values are hashed under, `env:NAME` or `file:PATH`: the first makes keys of stored
    labels, which are asked for under all; none: one that each engine draws. `uid` is the header in which a trusted peer
    says who is logged in.
    """

    sources: tuple[tuple[Literal["cookie", "header", "query"], str], ...] = ()
    keys: tuple[str, ...] = ()
    uid: str | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """All sections; None where the file leaves one out that is off by default."""

    bans: BanSettings = BanSettings()
    trackers: TrackerSettings | None = None
    score: ScoreSettings | None = None
    fingerprint: FingerprintSettings = FingerprintSettings()
    trust: TrustSettings = TrustSettings()
    edge_headers: EdgeHeaderSettings | None = None
    feeds: tuple[FeedSettings, ...] = ()
    trace: TraceSettings | None = None
    labels: LabelSettings = LabelSettings()
    limit_table: LimitTableSettings = LimitTableSettings()
    session: SessionSettings | None = None
