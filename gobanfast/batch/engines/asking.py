"""The Arrow core of the adapters: columns of a batch in, columns of answers out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gobanfast._core.enums import DECISIONS
from gobanfast.batch.arrow import ArrowColumn, as_name_column, asn_column, numbers, rule_column, texts
from gobanfast.batch.columns import Columns, decide_columns

if TYPE_CHECKING:
    from gobanfast._core.engine_core import EngineCore
    from gobanfast._core.prefix_set import PrefixSet
    from gobanfast.asn import AsnTable

SIGNALS = ("ip", "sni", "user_agent", "method", "path", "host", "referer")
"""The columns that functions take, in this order; other columns of a mapping are headers by name, `_` is `-`."""

_ACTIONS = texts("", DECISIONS)
_OWN = ("sni", "ja4", "method", "path", "host", "origin", "scheme")


def decided(engine: EngineCore, columns: Mapping[str, Any], *, mount: str = "") -> Columns:
    """The decisions on a batch, by the rules alone.

    Args:
        columns: `ip`, and any of sni, ja4, method, path, host, origin, scheme; other names are headers. A null is a
            signal that was absent; a column that is not there is one that nobody knows.
    Raises:
        ValueError: there is no column `ip`, or columns are not of one length.
    """
    if "ip" not in columns:
        raise ValueError(f"no column 'ip' among {', '.join(columns) or 'none'}; name the client's address so")
    own = {name: columns[name] for name in _OWN if name in columns}
    headers = {name.replace("_", "-"): column for name, column in columns.items() if name not in {"ip", *_OWN}}
    return decide_columns(engine, columns["ip"], headers=headers or None, mount=mount, **own)


def action(made: Columns) -> ArrowColumn:
    """What was decided."""
    return action_column(made.action)


def action_column(actions: NDArray[np.uint8]) -> ArrowColumn:
    """Actions by their numbers."""
    return ArrowColumn(numbers("action", actions, None, _ACTIONS))


def rule(made: Columns) -> ArrowColumn:
    """The rule that decided; null where none did."""
    return ArrowColumn(rule_column("rule", made.rule, made.compiled))


def asn(made: Columns) -> ArrowColumn:
    """The origin AS; null where it is not known."""
    return ArrowColumn(asn_column("asn", made.asn))


def as_name(made: Columns, table: AsnTable) -> ArrowColumn:
    """The name of the origin AS; null where there is none."""
    return ArrowColumn(as_name_column("as_name", made.asn, table))


def inside(sets: Mapping[str, PrefixSet], addresses: Any, name: str) -> list[bool | None]:
    """Whether each address is in the set of this name; None where it is no address.

    Raises:
        KeyError: there is no such set.
    """
    from gobanfast._core.address import parse_address

    known = sets[name]
    return [None if text is None or parse_address(text) is None else text in known for text in addresses.to_pylist()]
