"""Engine: a ruleset in force. The calls on the hot path are in `_engine`; this is the cold rest."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any

from gobanfast._decision import Decision
from gobanfast._engine import EngineCore

if TYPE_CHECKING:
    from gobanfast.asn import AsnTable
    from gobanfast.columns import Columns
    from gobanfast.rules import Ruleset


class Engine(EngineCore):
    """A ruleset in force: `decide` answers, `swap` replaces the rules under running traffic.

    Args:
        ruleset: what to enforce.
    Threads: any number may decide while another swaps; each decision is made by one ruleset,
        old or new, never a mixture.
    """

    __slots__ = ("ruleset",)

    def __init__(self, ruleset: Ruleset) -> None:
        super().__init__(ruleset.compiled)
        self.ruleset = ruleset

    @classmethod
    def load(cls, path: str | PathLike[str], *, asn: AsnTable | None = None) -> Engine:
        """Engine for the rules file at `path`.

        Args:
            path: rules in YAML.
            asn: origin AS of every address; None takes the starter table of well-known networks.
        Raises:
            RuleError: with every problem of the file.
            OSError: the file cannot be read.
        """
        from gobanfast.rules import Ruleset

        return cls(Ruleset.load(path, asn=asn))

    def swap(self, ruleset: Ruleset) -> None:
        """Puts `ruleset` in force; compiling it happens before, in the calling thread. `generation` grows by one."""
        compiled = ruleset.compiled
        self.ruleset = ruleset
        self._swap(compiled)

    def decide_many(self, addresses: Any, /, *, sni: Any = None) -> Columns:
        """Columns of answers, one a row, by the rules alone: bans, trackers and scores are neither asked nor told.

        Args:
            addresses: uint32 (IPv4, host order), n x 16 bytes (network order, IPv4 mapped), list of str, NumPy strings,
                or an Arrow array or stream of strings, uint32 or 16-byte values, through the PyCapsule interface.
            sni: as many server names, in any form that `NameTable.lookup_many` takes; null is absent. None: all are.
                Every other signal is absent.
        Raises:
            ValueError: columns of different lengths; TypeError: a column of another type.
        Cost: 5 to 30 ns a row for addresses, 40 to 100 ns more with names. Detaches from the interpreter for columns.
        Source: csrc/DESIGN.md, "Columns".
        """
        from gobanfast.columns import decide_columns

        return decide_columns(self, addresses, sni=sni)

    def explain(self, decision: Decision) -> str:
        """Lines that say which rule decided, where it stands, on which signals, and what would change the answer."""
        from gobanfast.rules.explain import explain

        return explain(decision, self.ruleset.asn)
