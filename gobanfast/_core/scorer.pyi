from typing import NamedTuple, Self, final

from gobanfast.rules.settings import ScoreSettings

class ScoreAnswer(NamedTuple):
    score: float
    threshold: float | None
    coverage: float
    sni: float | None
    header: float | None
    asn: float | None
    flagged: bool

@final
class Scorer:
    def __new__(cls, settings: ScoreSettings, *, key: bytes | None = None) -> Self: ...
    def rate(
        self,
        *,
        name: int | None = None,
        fingerprint: int | None = None,
        shape: int | None = None,
        asn: int | None = None,
        host: int = 0,
        client: int = 0,
        added: float = 0,
    ) -> ScoreAnswer: ...
    def peek(
        self,
        *,
        name: int | None = None,
        fingerprint: int | None = None,
        shape: int | None = None,
        asn: int | None = None,
        host: int = 0,
        added: float = 0,
    ) -> ScoreAnswer: ...
    def vouch(
        self,
        *,
        name: int | None = None,
        fingerprint: int | None = None,
        shape: int | None = None,
        asn: int | None = None,
        host: int = 0,
    ) -> bool: ...
    def risk(self, asn: int) -> float: ...
    @property
    def nbytes(self) -> int: ...
    def before_fork(self) -> None: ...
    def after_fork(self, child: bool) -> None: ...

@final
class ScoreWindow:
    def __new__(cls, settings: ScoreSettings) -> Self: ...
    def rate(self, score: float) -> tuple[float | None, bool]: ...
    def __len__(self) -> int: ...
