"""A compiled set of rules; what an engine runs on."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from gobanfast._errors import Problem, RuleError
from gobanfast.rules.rule import Rule, Unparsable

if TYPE_CHECKING:
    from gobanfast._engine import CompiledRules
    from gobanfast.asn import AsnTable
    from gobanfast.rules.compile import Overlay


@dataclass(frozen=True, eq=False, repr=False)
class Ruleset:
    """Rules in decision order, compiled over an AS table. Immutable; share it between threads.

    Attributes:
        rules: rules in decision order: `allow` first, then by priority, then by place in the file. Rules
            with `mode: off` were checked and are left out. Bit i of every vector is rule i.
        unparsable: the action for an address that is not one.
        problems: warnings.
        overlay: the compiled arrays.
        source: where the rules came from.
    """

    rules: tuple[Rule, ...]
    unparsable: Unparsable
    problems: tuple[Problem, ...]
    overlay: Overlay
    source: str
    asn: AsnTable

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
        from gobanfast.rules.source import read

        root = read(text, source)
        written, unparsable, problems = schema.check(root, source)
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
        warnings = lint.lint(root, source, rules, arrays, starter=starter)
        return cls(rules, unparsable, tuple(warnings), arrays, source, asn)

    @cached_property
    def compiled(self) -> CompiledRules:
        """The engine's form of the rules; built on first use."""
        from gobanfast._engine import CompiledRules

        return CompiledRules(self.rules, unparsable=self.unparsable, **self.overlay.arguments())

    @cached_property
    def content_hash(self) -> str:
        """32 hex digits that name what the ruleset decides; equal content, equal hash, wherever it came from."""
        import hashlib

        digest = hashlib.blake2b(digest_size=16)
        digest.update(self.unparsable.encode())
        for rule in self.rules:
            facts = (rule.id, rule.action, rule.mode, rule.duration, rule.priority, rule.reason)
            digest.update(repr(facts).encode())
        for name, value in self.overlay.arguments().items():
            digest.update(name.encode())
            digest.update(value.tobytes())
        return digest.hexdigest()

    @property
    def nbytes(self) -> int:
        """Bytes of the compiled arrays."""
        return self.overlay.nbytes

    def __repr__(self) -> str:
        return f"<Ruleset {self.source!r}: {len(self.rules)} rules, {self.nbytes} bytes>"
