from collections.abc import Callable, Mapping, Sequence
from typing import Self, final

from typing_extensions import Buffer

from gobanfast._core.block import Block
from gobanfast._core.connection_table import ConnectionTable
from gobanfast._core.grant import CompiledGrant
from gobanfast._core.headers import HeaderPlan
from gobanfast._core.live_table import LiveTable
from gobanfast._core.record_table import RecordTable
from gobanfast._core.request_table import RequestTable
from gobanfast.asn import AsnTable
from gobanfast.rules import Rule

SHARE_ACTIONS: dict[str, int]

@final
class CompiledRules:
    def __new__(
        cls,
        rules: Sequence[Rule],
        *,
        unparsable: str,
        starts4: Buffer,
        leaves4: Buffer,
        starts6: Buffer,
        leaves6: Buffer,
        leaf_asn: Buffer,
        leaf_class: Buffer,
        vectors: Buffer,
        enforced: Buffer,
        shadow: Buffer,
        logged: Buffer,
        actions: Buffer,
        signals: ConnectionTable | None = None,
        requests: RequestTable | None = None,
        plan: HeaderPlan | None = None,
        resources: bytes = b"",
        grants: tuple[CompiledGrant | None, ...] = (),
        records: RecordTable | None = None,
        live: LiveTable | None = None,
        kernel: str | None = None,
    ) -> Self: ...
    @classmethod
    def of_blocks(
        cls,
        rules: Sequence[Rule],
        blocks: Mapping[str, Block],
        *,
        unparsable: str,
        requests: RequestTable | None = None,
        plan: HeaderPlan | None = None,
        resources: bytes = b"",
        grants: tuple[CompiledGrant | None, ...] = (),
        records: RecordTable | None = None,
        live: LiveTable | None = None,
        verify: bool = True,
        kernel: str | None = None,
    ) -> Self: ...
    def blocks(self) -> dict[str, Block]: ...
    @property
    def records(self) -> RecordTable | None: ...
    @property
    def live(self) -> LiveTable | None: ...
    @property
    def grants(self) -> tuple[CompiledGrant | None, ...]: ...
    @property
    def rules(self) -> tuple[Rule, ...]: ...
    @property
    def unparsable(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def content_hash(self) -> str: ...
    @property
    def asn(self) -> AsnTable | None: ...
    @property
    def always_holds(self) -> Callable[[Rule, bytes, bytes], bool] | None: ...
    def complete(
        self,
        facts: Callable[[], bytes],
        asn: AsnTable | None = None,
        /,
        *,
        always_holds: Callable[[Rule, bytes, bytes], bool] | None = None,
    ) -> None: ...
    @property
    def leaf_count(self) -> int: ...
    @property
    def signals(self) -> ConnectionTable | None: ...
    @property
    def requests(self) -> RequestTable | None: ...
    @property
    def plan(self) -> HeaderPlan: ...
    @property
    def beyond_address(self) -> tuple[str, ...]: ...
    @property
    def kernel(self) -> str: ...
