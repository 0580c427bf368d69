"""A compiled set of rules; what an engine runs on."""

from __future__ import annotations

import os
from dataclasses import astuple, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from gobanfast._errors import Problem, RuleError
from gobanfast.rules.rule import Rule, Unparsable

if TYPE_CHECKING:
    from gobanfast._rules import CompiledRules
    from gobanfast._signals import SignalTable
    from gobanfast.asn import AsnTable
    from gobanfast.rules.compile import Overlay
    from gobanfast.rules.settings import Settings


@dataclass(frozen=True, eq=False, repr=False)
class Ruleset:
    """Rules in decision order, compiled over an AS table. Immutable; share it between threads.

    Attributes:
        rules: rules in decision order: `allow` first, then by priority, then by place in the file. Rules
            with `mode: off` were checked and are left out. Bit i of every vector is rule i.
        unparsable: the action for an address that is not one, or another signal that cannot be read.
        problems: warnings.
        overlay: the compiled arrays for the address.
        signals: the compiled rows for everything else; None when no rule asks for more than the address.
        source: where the rules came from.
        settings: what the file says about bans, trackers, score and fingerprints.
    """

    rules: tuple[Rule, ...]
    unparsable: Unparsable
    problems: tuple[Problem, ...]
    overlay: Overlay
    signals: SignalTable | None
    source: str
    asn: AsnTable
    settings: Settings

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, asn: AsnTable | None = None) -> Ruleset:
        """The ruleset in a YAML file; list files it names are relative to it.

        Args:
            asn: the IP-to-ASN table to compile against; None takes the starter table.
        Raises:
            RuleError: the file cannot be read, or its rules cannot be used; carries every problem.
        Cost: milliseconds over the starter table; seconds over a whole-Internet table or with a million-entry list.
        """
        source = os.fspath(path)
        try:
            text = Path(source).read_bytes().decode("utf-8-sig")
        except OSError as error:
            raise RuleError(
                [Problem(source, 0, 0, f"cannot be read: {(error.strerror or str(error)).lower()}")]
            ) from error
        except UnicodeDecodeError as error:
            before = error.object[: error.start]
            line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
            problem = Problem(source, line, column, f"byte 0x{error.object[error.start]:02x} is not UTF-8")
            raise RuleError([problem]) from None
        return cls.from_text(text, source=source, asn=asn)

    @classmethod
    def from_text(cls, text: str, *, source: str = "<string>", asn: AsnTable | None = None) -> Ruleset:
        """The ruleset in a YAML text; as `load`, with `source` as the name in messages."""
        from gobanfast.rules import lint, schema
        from gobanfast.rules.compile import overlay
        from gobanfast.rules.signals import signal_table
        from gobanfast.rules.source import read

        root = read(text, source)
        written, unparsable, settings, problems = schema.check(root, source)
        if problems:
            # The rules file first, then the lists it names, each in order.
            raise RuleError(
                sorted(problems, key=lambda item: (item.source != source, item.source, item.line, item.column))
            )
        starter = asn is None
        if asn is None:
            from gobanfast.asn import AsnTable

            asn = AsnTable.starter()
        rules = tuple(sorted((rule for rule in written if rule.mode != "off"), key=lambda rule: rule.order))
        arrays = overlay(rules, asn)
        try:
            signals = signal_table(rules)
        except ValueError as error:
            raise RuleError(_misfits(rules, source, str(error))) from None
        warnings = lint.lint(root, source, rules, arrays, starter=starter)
        return cls(rules, unparsable, tuple(warnings), arrays, signals, source, asn, settings)

    @cached_property
    def compiled(self) -> CompiledRules:
        """The engine's form of the rules; built on first use."""
        from gobanfast._rules import CompiledRules

        return CompiledRules(self.rules, unparsable=self.unparsable, signals=self.signals, **self.overlay.arguments())

    @cached_property
    def content_hash(self) -> str:
        """32 hex digits that name what the ruleset decides; equal content, equal hash, wherever it came from."""
        import hashlib

        digest = hashlib.blake2b(digest_size=16)
        digest.update(self.unparsable.encode())
        digest.update(repr(astuple(self.settings)).encode())  # astuple, because repr hides the key
        for rule in self.rules:
            facts = (rule.id, rule.action, rule.mode, rule.duration, rule.priority, rule.reason)
            digest.update(repr(facts).encode())
        for name, value in self.overlay.arguments().items():
            digest.update(name.encode())
            digest.update(value.tobytes())
        if self.signals is not None:
            digest.update(self.signals.content_hash.encode())
        return digest.hexdigest()

    @property
    def nbytes(self) -> int:
        """Bytes of the compiled arrays."""
        return self.overlay.nbytes + (0 if self.signals is None else self.signals.nbytes)

    def __repr__(self) -> str:
        return f"<Ruleset {self.source!r}: {len(self.rules)} rules, {self.nbytes} bytes>"


def _misfits(rules: tuple[Rule, ...], source: str, text: str) -> list[Problem]:
    """Name patterns that are fine alone and do not compile together, at the rules that have them."""
    problems = []
    for line in text.split("\n"):
        message, _, hint = line.partition("; ")
        owners = [rule for rule in rules if any(repr(pattern) in message for pattern in rule.when.sni or ())]
        owners += [rule for rule in rules if rule.when.sni_file is not None]
        problems.append(Problem(source, owners[0].line, owners[0].column, message, hint))
    return problems
