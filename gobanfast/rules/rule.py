"""Rule: one validated, normalised rule of any effect; output of the schemas, input of the compiler."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from gobanfast._core.enums import EFFECTS
from gobanfast._dataclass import dataclass

Effect = Literal["admit", "share", "record", "resource"]
Action = Literal["allow", "challenge", "ban", "log"]
ShareAction = Literal["grant", "withhold", "refuse"]
RecordAction = Literal["always", "never", "rate"]
AnyAction = Literal[
    "allow", "challenge", "limit", "ban", "log", "grant", "withhold", "refuse", "always", "never", "rate"
]  # fmt: skip
Outcome = Literal["admitted", "passed", "withheld", "challenged", "limited", "refused", "banned"]
ControllerName = Literal["fixed", "sla", "target", "boost_on_error"]
Mode = Literal["enforce", "shadow", "off"]
Key = Literal["client", "fingerprint", "client_fingerprint"]
Unparsable = Literal["allow", "challenge", "ban"]
Operator = Literal[
    "equals",
    "contains",
    "prefix",
    "suffix",
    "regex",
    "glob",
    "family",
    "crawler",
    "lookalike",
    "sni_host",
    "origin",
    "host",
    "label",
    "session",
]
WORDS = ("absent", "present", "malformed")
"""What a list of values may say of a header without a value to look at."""

PERMISSIVE = ("allow", "grant", "never")
"""Actions of rules that hold under all readings of a path or not at all; those of the others hold under any."""


@dataclass(frozen=True, slots=True)
class PrefixList:
    """Prefixes packed for bulk work: `addresses` is n x 16 bytes in network order, `lengths` n bytes.

    An IPv4 prefix a.b.c.d/n is ::ffff:a.b.c.d with length 96 + n. Duplicates and nesting are fine.
    """

    addresses: bytes
    lengths: bytes

    def __len__(self) -> int:
        return len(self.lengths)

    def __repr__(self) -> str:
        return f"<PrefixList of {len(self)}>"  # there may be a million


@dataclass(frozen=True, slots=True)
class NameList:
    """Name patterns in canonical form, packed: one a line in `text`. Duplicates are fine."""

    text: str

    def __iter__(self) -> Iterator[str]:
        return iter(self.text.split("\n") if self.text else ())

    def __len__(self) -> int:
        return self.text.count("\n") + 1 if self.text else 0

    def __repr__(self) -> str:
        return f"<NameList of {len(self)}>"


@dataclass(frozen=True, slots=True)
class NamePattern:
    """A regex over the text that describes an AS: its number, `separator`, its name ("AS15169 GOOGLE")."""

    regex: str
    separator: str = " "


@dataclass(frozen=True, slots=True)
class HeaderTest:
    """One operator on one header: it holds for any of `values`, or where one of `words` says what the header is.

    `name` is lower case; ":method", ":path", ":fingerprint" and ":shape" are no headers and tested alike; so is
    ":names", the server name beside the host, with the operators "lookalike" and "sni_host", and `names` those of the
    certificate; ":origin" and ":host", read by their grammars; and ":cross_origin_write", "1" or "0". Words are
    "absent", "present" and "malformed"; `ua_family` and `crawler` are the operators "family" and "crawler" on
    user-agent.
    """

    name: str
    operator: Operator
    values: tuple[str, ...]
    words: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Negation:
    """Tests of one header that must not all hold. A value that is absent satisfies it, unless the tests say otherwise;
    one that is malformed does in restrictive rules; one that nobody knows never does."""

    name: str
    tests: tuple[HeaderTest, ...]


Test = HeaderTest | Negation


@dataclass(frozen=True, slots=True)
class Conditions:
    """What must hold for a rule to win: every condition that is not None; any value within one condition.

    All None matches everything. `asn` holds inclusive ranges of AS numbers; `sni` canonical name patterns and the words
    "absent" and "malformed"; `tls_version_below` a version as on the wire (0x0303 is TLS 1.2). `names` are no
    condition, but the file's `names:` where `sni_host` is one. `origin` and `host` are patterns and the words "absent"
    and "malformed"; `negated` holds conditions none of which may hold. `outcome` is what became of the request,
    which only record rules ask. `label` holds words, any of which a key of the request must carry; `session` "absent",
    "present" and "malformed".
    """

    prefix: PrefixList | None = None
    prefix_file: PrefixList | None = None
    outside: PrefixList | None = None
    outside_file: PrefixList | None = None
    asn: tuple[tuple[int, int], ...] | None = None
    asn_name: tuple[NamePattern, ...] | None = None
    sni: tuple[str, ...] | None = None
    sni_file: NameList | None = None
    ja4: tuple[str, ...] | None = None
    ja4_prefix: tuple[str, ...] | None = None
    alpn: tuple[str, ...] | None = None
    tls_version_below: int | None = None
    ech: tuple[str, ...] | None = None
    header: tuple[HeaderTest, ...] | None = None
    fingerprint: tuple[str, ...] | None = None
    shape: tuple[str, ...] | None = None
    method: tuple[str, ...] | None = None
    path: tuple[HeaderTest, ...] | None = None
    lookalike: tuple[str, ...] | None = None
    sni_host: tuple[str, ...] | None = None
    names: tuple[str, ...] | None = None
    origin: tuple[str, ...] | None = None
    host: tuple[str, ...] | None = None
    fetch_site: tuple[str, ...] | None = None
    fetch_mode: tuple[str, ...] | None = None
    fetch_dest: tuple[str, ...] | None = None
    cross_origin_write: bool | None = None
    negated: Conditions | None = None
    outcome: tuple[Outcome, ...] | None = None
    label: tuple[str, ...] | None = None
    session: tuple[str, ...] | None = None

    @property
    def prefix_lists(self) -> tuple[PrefixList, ...]:
        """The conditions on the address itself, each of which must cover it."""
        return tuple(item for item in (self.prefix, self.prefix_file) if item is not None)

    @property
    def outside_lists(self) -> tuple[PrefixList, ...]:
        """The prefixes that must not cover the address, which must be known."""
        inside = () if self.negated is None else self.negated.prefix_lists
        return tuple(item for item in (self.outside, self.outside_file, *inside) if item is not None)

    @property
    def on_prefix(self) -> bool:
        """Whether the rule asks where the address lies."""
        return bool(self.prefix_lists or self.outside_lists)

    @property
    def on_asn(self) -> bool:
        """Whether the rule asks who originates the address."""
        return self.asn is not None or self.asn_name is not None or (self.negated is not None and self.negated.on_asn)

    @property
    def on_address(self) -> bool:
        """Whether the rule needs an address at all."""
        return self.on_prefix or self.on_asn

    @property
    def on_sni(self) -> bool:
        """Whether the rule requires the server name."""
        return self.sni is not None or self.sni_file is not None

    @property
    def on_ja4(self) -> bool:
        """Whether the rule requires the JA4 fingerprint."""
        return self.ja4 is not None or self.ja4_prefix is not None

    @property
    def on_whole_hello(self) -> bool:
        """Whether the rule requires what only the ClientHello itself has: no proxy reports it."""
        return self.alpn is not None or self.tls_version_below is not None or self.ech is not None

    @property
    def on_hello(self) -> bool:
        """Whether the rule requires anything of the ClientHello but the name in it."""
        return self.on_ja4 or self.on_whole_hello

    @property
    def request_conditions(self) -> tuple[tuple[HeaderTest, ...], ...]:
        """What the rule asks of headers, method, path, fingerprint, shape, names, origin and host: for each condition,
        and each header of `header`, the tests that must all hold."""
        by_name: dict[str, list[HeaderTest]] = {}
        claims = [test for test in self.header or () if test.operator in ("family", "crawler")]
        for test in self.header or ():
            if test not in claims:
                by_name.setdefault(test.name, []).append(test)
        found: list[tuple[HeaderTest, ...]] = [*map(tuple, by_name.values()), *((test,) for test in claims)]
        if self.path is not None:
            found.append(self.path)
        listed: tuple[tuple[str, Operator, tuple[str, ...] | None], ...] = (
            (":method", "equals", self.method), (":fingerprint", "equals", self.fingerprint),
            (":shape", "equals", self.shape), (":names", "lookalike", self.lookalike),
        )  # fmt: skip
        found += [(HeaderTest(name, operator, values),) for name, operator, values in listed if values is not None]
        with_words: tuple[tuple[str, Operator, tuple[str, ...] | None], ...] = (
            ("sec-fetch-site", "equals", self.fetch_site), ("sec-fetch-mode", "equals", self.fetch_mode),
            ("sec-fetch-dest", "equals", self.fetch_dest), (":origin", "origin", self.origin),
            (":host", "host", self.host),
        )  # fmt: skip
        for name, operator, values in with_words:
            if values is not None:
                texts = tuple(value for value in values if value not in WORDS)
                found.append((HeaderTest(name, operator, texts, tuple(v for v in values if v in WORDS)),))
        if self.sni_host is not None:
            unread = ("absent", "malformed") if "unknown" in self.sni_host else ()
            found.append((HeaderTest(":names", "sni_host", self.sni_host, unread, self.names or ()),))
        if self.cross_origin_write is not None:
            found.append((HeaderTest(":cross_origin_write", "equals", ("1" if self.cross_origin_write else "0",)),))
        return tuple(found)

    @property
    def request_tests(self) -> tuple[Test, ...]:
        """`request_conditions` as tests that must all hold, those of `negated` as negations."""
        tests: list[Test] = [test for condition in self.request_conditions for test in condition]
        if self.negated is not None:
            tests += [Negation(condition[0].name, condition) for condition in self.negated.request_conditions]
        return tuple(tests)

    @property
    def on_request(self) -> bool:
        """Whether the rule requires anything that a request says inside the connection; look-alikes may be outside."""
        return bool(self.request_tests)

    @property
    def live_tests(self) -> tuple[Test, ...]:
        """What the rule asks of labels and session, as tests that must all hold."""
        tests: list[Test] = list(_live_tests(self))
        if self.negated is not None:
            tests += [Negation(test.name, (test,)) for test in _live_tests(self.negated)]
        return tuple(tests)

    @property
    def on_live(self) -> bool:
        """Whether the rule requires a label or a session."""
        return bool(self.live_tests)

    @property
    def on_names(self) -> bool:
        """Whether the rule requires the server name beside the host."""
        here = self.lookalike is not None or self.sni_host is not None
        return here or (self.negated is not None and self.negated.on_names)

    @property
    def on_connection(self) -> bool:
        """Whether the rule requires the server name or anything else of the ClientHello."""
        return self.on_sni or self.on_hello

    @property
    def on_signals(self) -> bool:
        """Whether the rule requires any signal besides the address."""
        return self.on_connection or self.on_request or self.on_live


def _live_tests(part: Conditions) -> Iterator[HeaderTest]:
    if part.label is not None:
        yield HeaderTest(":label", "label", part.label)
    if part.session is not None:
        yield HeaderTest(":session", "session", (), part.session)


@dataclass(frozen=True, slots=True)
class Grant:
    """What a `grant` rule gives to an origin. `max_age` is in seconds, None leaves it to the browser."""

    credentials: bool = False
    methods: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    expose: tuple[str, ...] = ()
    max_age: int | None = None
    trace_headers: bool = True
    deny: Literal["stop", "later"] = "stop"


@dataclass(frozen=True, slots=True)
class Rate:
    """The rate class of a `rate` rule, and what controls its threshold; the other fields are that controller's.

    `probability` is where it is fixed, or the base of "boost_on_error", which goes up to `cap` while the rate of errors
    is above `over`; `weight` is that of the SLA formula; `per_second` the target, in traces a second on one host.
    """

    name: str
    controller: ControllerName = "fixed"
    probability: float | None = None
    weight: float | None = None
    per_second: float | None = None
    over: float | None = None
    cap: float | None = None


@dataclass(frozen=True, slots=True)
class RateLimit:
    """An entry of `limits:`: `limit` requests within `window` seconds from the first on, or with `burst` a bucket that
    holds so many and fills at this rate.

    `key` is client, fingerprint, asn, given (by the application), header:NAME or cookie:NAME. With `on_status`, ranges
    of statuses, answers are counted in place of requests; one of `clear_on` forgets them.
    """

    limit: int
    window: float
    burst: int = 0
    cost: int = 1
    key: str = "client"
    action: Literal["challenge", "limit", "ban"] = "limit"
    on_status: tuple[tuple[int, int], ...] = ()
    clear_on: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a ruleset. `duration` is in seconds, None lasts as long as the rule stands; `key` is what is banned
    for so long; `weigh` what a match adds to the score of a request."""

    id: str
    action: AnyAction
    mode: Mode
    duration: float | None
    priority: int
    reason: str
    source: str
    line: int
    column: int
    when: Conditions
    key: Key = "client"
    weigh: float | None = None
    effect: Effect = "admit"
    grant: Grant | None = None
    rate: Rate | None = None
    limit: RateLimit | None = None

    @property
    def order(self) -> tuple[int, bool, int]:
        """Sorts rules, which are by place, into decision order: effect, `allow` and `refuse` first, then priority."""
        return EFFECTS.index(self.effect), self.action not in ("allow", "refuse"), self.priority
