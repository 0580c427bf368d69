"""Columns in, columns out: many requests decided by the rules alone, and what came of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pyroaring import BitMap

    from gobanfast._engine import EngineCore
    from gobanfast._rules import CompiledRules

ACTIONS = ("allow", "challenge", "ban")
NO_RULE = 0xFFFFFFFF


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Columns:
    """One answer a row.

    Attributes:
        action: uint8, 0 allow, 1 challenge, 2 ban: indexes of `gobanfast.columns.ACTIONS`.
        rule: uint32, index of the deciding rule in `compiled.rules`; 0xFFFFFFFF when none decided.
        asn: uint32, origin AS; 0 when it is not known.
        compiled: the rules that decided.
    """

    action: NDArray[np.uint8]
    rule: NDArray[np.uint32]
    asn: NDArray[np.uint32]
    compiled: CompiledRules

    def __len__(self) -> int:
        return len(self.action)

    def rows(self, rule: str | None) -> BitMap:
        """Set of the rows that the rule with this id decided; None: that no rule decided.

        Raises:
            KeyError: there is no such rule in force.
        """
        from pyroaring import BitMap

        number = NO_RULE
        if rule is not None:
            number = next((i for i, found in enumerate(self.compiled.rules) if found.id == rule), NO_RULE)
            if number == NO_RULE:
                raise KeyError(rule)
        return BitMap(np.flatnonzero(self.rule == number).astype(np.uint32))

    def actions(self) -> dict[str, int]:
        """Rows by action, as in {"allow": 9, "challenge": 0, "ban": 1}."""
        counts = np.bincount(self.action, minlength=len(ACTIONS))
        return dict(zip(ACTIONS, counts.tolist(), strict=True))

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {action}" for action, count in self.actions().items())
        return f"<Columns of {len(self)} rows: {counts}>"


def decide_columns(core: EngineCore, addresses: Any, *, sni: Any = None) -> Columns:
    """`Engine.decide_many`, which see."""
    from gobanfast import _columns

    compiled = core.compiled
    rows = len(addresses)
    if isinstance(addresses, (bytes, bytearray)) or (getattr(addresses, "itemsize", 4) == 1 and rows % 16 == 0):
        rows //= 16
    records = _columns.address_records(compiled, addresses, rows)
    columns = []
    named = sni is not None and _columns.asks_names(compiled)
    if named:
        columns.append(_columns.name_column(compiled, sni, rows))
    elif sni is not None and len(sni) != rows:
        raise ValueError(f"{len(sni)} names for {rows} addresses")
    base = _columns.absent_vector(compiled, names=named)
    action, rule, asn = _columns.decide_rows(compiled, records, base, columns)
    return Columns(
        np.frombuffer(action, np.uint8), np.frombuffer(rule, np.uint32), np.frombuffer(asn, np.uint32), compiled
    )
