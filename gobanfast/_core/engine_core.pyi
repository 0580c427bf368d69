from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Self, TypeVar, final

from typing_extensions import Buffer

from gobanfast._core.ban_table import BanTable
from gobanfast._core.client_hello import ClientHello
from gobanfast._core.compiled_rules import CompiledRules
from gobanfast._core.crowd import Crowd
from gobanfast._core.decision import Decision
from gobanfast._core.edge_headers import EdgeHeaders
from gobanfast._core.headers import HeaderPairs
from gobanfast._core.limits import Limits
from gobanfast._core.sampling import RateClasses
from gobanfast._core.scorer import Scorer
from gobanfast._core.session_reader import SessionReader
from gobanfast._core.trackers import Trackers
from gobanfast.engine import Swap
from gobanfast.rules import Rule, Ruleset
from gobanfast.rules.settings import Settings

KEYS: tuple[str, ...]
SHARED_BY: dict[str, str]

_Trust = TypeVar("_Trust")

def stored_key(rule: Rule) -> int: ...

@final
class EngineState:
    def __new__(
        cls,
        compiled: CompiledRules,
        settings: Settings,
        bans: BanTable,
        before: EngineState | None = None,
        seed: bytes | None = None,
        ruleset: Ruleset | None = None,
    ) -> Self: ...
    @property
    def compiled(self) -> CompiledRules: ...
    @property
    def limits(self) -> Limits | None: ...
    @property
    def crowd(self) -> Crowd | None: ...
    def keep_spared(self, spared: Callable[[str, str], bool], /) -> None: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def ruleset(self) -> Ruleset: ...
    @property
    def generation(self) -> int: ...
    @property
    def trust(self) -> Any: ...
    def keep_trust(self, trust: _Trust, /) -> _Trust: ...
    @property
    def bans(self) -> BanTable: ...
    @property
    def trackers(self) -> Trackers | None: ...
    @property
    def scorer(self) -> Scorer | None: ...
    @property
    def rates(self) -> RateClasses | None: ...
    @property
    def edge(self) -> EdgeHeaders | None: ...
    @property
    def reader(self) -> SessionReader | None: ...
    def session_key(self, value: str | bytes, /) -> str: ...

class EngineCore:
    def __new__(
        cls,
        compiled: CompiledRules,
        settings: Settings,
        clock: Callable[[], float] | None = None,
        seed: bytes | None = None,
        ruleset: Ruleset | None = None,
    ) -> Self: ...
    def _swap(
        self, compiled: CompiledRules, settings: Settings, ruleset: Ruleset | None = None
    ) -> tuple[EngineState, EngineState]: ...
    @property
    def compiled(self) -> CompiledRules: ...
    @property
    def ruleset(self) -> Ruleset: ...
    @property
    def snapshot(self) -> EngineState: ...
    @property
    def ban_table(self) -> BanTable: ...
    @property
    def generation(self) -> int: ...
    candidate: object
    @property
    def on_swap(self) -> list[Callable[[Swap], object]]: ...
    def decided(self) -> dict[tuple[str, str], int]: ...
    def hits(self) -> dict[str, int]: ...
    def recorded(self) -> dict[tuple[str, str], int]: ...
    def shared(self) -> dict[tuple[str, str | None], int]: ...
    def decide(
        self,
        address: str | IPv4Address | IPv6Address | None,
        /,
        *,
        sni: str | None = None,
        hello: ClientHello | None = None,
        headers: HeaderPairs | None = None,
        method: str | None = None,
        path: str | None = None,
        http: str | None = None,
        ja4: str | None = None,
        now: float | None = None,
        mount: str = "",
        scheme: str | None = None,
        host: str | None = None,
        session: str | bytes | None = None,
        uid: str | None = None,
    ) -> Decision: ...
    def peek(
        self,
        address: str | IPv4Address | IPv6Address | None,
        /,
        *,
        sni: str | None = None,
        hello: ClientHello | None = None,
        headers: HeaderPairs | None = None,
        method: str | None = None,
        path: str | None = None,
        http: str | None = None,
        ja4: str | None = None,
        now: float | None = None,
        mount: str = "",
        scheme: str | None = None,
        host: str | None = None,
        session: str | bytes | None = None,
        uid: str | None = None,
    ) -> Decision: ...
    def seconds(self, now: float | None = None, /) -> float: ...
    def pardon(self, decision: Decision, /, *, now: float | None = None) -> None: ...
    def vouch(self, decision: Decision, /, *, now: float | None = None) -> bool: ...
    def leaves(self, addresses: Buffer | Sequence[str], out: Buffer, /, *, others_absent: bool = False) -> None: ...
    def decision(self, leaf: int, /) -> Decision: ...
