"""Ruleset: compiled rules with their settings and sources."""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING, Any

from gobanfast._dataclass import dataclass
from gobanfast._errors import Problem
from gobanfast.rules import ruleset_file
from gobanfast.rules.inline_test import Case
from gobanfast.rules.rule import PrefixList, Rule, Unparsable
from gobanfast.rules.settings import Settings
from gobanfast.rules.sources import Inputs

if TYPE_CHECKING:
    from gobanfast._core.block import Block
    from gobanfast._core.compiled_rules import CompiledRules
    from gobanfast._core.prefix_set import PrefixSet
    from gobanfast.asn import AsnTable
    from gobanfast.rules.compile.address import Overlay


@dataclass(frozen=True, eq=False, repr=False)
class Ruleset:
    """Rules in decision order, compiled over an AS table. Immutable; share it between threads.

    Attributes:
        rules: rules in decision order: `allow` first, then by priority, then by place in the file, included files after
            the one that includes them. Rules with `mode: off` were checked and are left out. Bit i of every vector is
            rule i.
        unparsable: the action for an address that is not one, or another signal that cannot be read.
        settings: what the file says about bans, trackers, score and fingerprints.
        trust: the prefixes of trusted proxies (`trust:`).
        tests: the inline tests; `failures` runs them.
        problems: warnings.
        compiled: the engine's form of the rules.
        overlay: the arrays it was made from; None when it was loaded compiled.
        source: where the rules came from.
        inputs: every file that was read for it; for one that was loaded compiled, every file it was compiled from.
        made_over: hash of the AS table.
        block: the file it was loaded from, if it was compiled.
    """

    rules: tuple[Rule, ...]
    unparsable: Unparsable
    settings: Settings
    trust: PrefixList
    tests: tuple[Case, ...]
    problems: tuple[Problem, ...]
    compiled: CompiledRules
    overlay: Overlay | None
    source: str
    asn: AsnTable
    inputs: Inputs
    made_over: str
    block: Block | None

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, asn: AsnTable | None = None, inputs: Inputs | None = None
    ) -> Ruleset:
        """The ruleset in a YAML file, or in a file that `save` wrote; the content says which.

        What a YAML file includes and the list files it names are relative to it.

        Args:
            asn: the IP-to-ASN table to compile against; None takes the starter table. Compiled rules have theirs in
                them, and take no other.
            inputs: takes note of every file that is read, whether the rules can be used or not.
        Raises:
            RuleError: the file cannot be read, or its rules cannot be used; carries every problem.
            FormatError: a compiled file that is cut short, damaged, foreign or too new.
        Cost: milliseconds over the starter table; seconds over a whole-Internet table or with a million-entry list.
            Compiled: about 0.2 ms a megabyte, and compiling the regexes if there are any.
        """
        inputs = Inputs() if inputs is None else inputs
        if ruleset_file.is_stored(path):
            if asn is not None:
                raise ValueError(f"{os.fspath(path)} is compiled, over an AS table of its own; asn= goes with YAML")
            inputs.add(path)
            return ruleset_file.load(path, cls)
        from gobanfast.rules.build import build
        from gobanfast.rules.text.includes import Tree

        tree = Tree(inputs)
        tree.load(os.fspath(path))
        return build(tree, asn, cls)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the compiled ruleset to `path` through a temporary file, fsync and rename; `load` takes it.

        Decisions need nothing else, `explain` neither: AS names, rule texts and lists are in it. Raises OSError.
        """
        ruleset_file.save(self, path)

    @classmethod
    def from_text(cls, text: str, *, source: str = "<string>", asn: AsnTable | None = None) -> Ruleset:
        """The ruleset in a YAML text; as `load`, with `source` as the name in messages."""
        from gobanfast.rules.build import build
        from gobanfast.rules.text.includes import Tree

        tree = Tree()
        tree.parse(text, source)
        return build(tree, asn, cls)

    def failures(self) -> list[Problem]:
        """A problem for every inline test that these rules fail."""
        from gobanfast._core.engine_core import EngineCore
        from gobanfast.rules.inline_test import run

        return run(self.tests, EngineCore(self.compiled, Settings()))

    def without_secrets(self) -> Ruleset:
        """The same rules for a process that has none of the secrets they name, such as one that reads old logs: values
        of sessions are hashed under a key of its own."""
        from dataclasses import replace

        session = self.settings.session
        if session is None or not session.keys:
            return self
        return replace(self, settings=replace(self.settings, session=replace(session, keys=())))

    @property
    def content_hash(self) -> str:
        """32 hex digits that name what the ruleset decides; equal content, equal hash, wherever it came from.

        `status()`, `/ready`, the metric, the reload line and `ruleset` of the decision log have the same.
        """
        return self.compiled.content_hash

    @cached_property
    def _trusted(self) -> PrefixSet:
        """The prefixes under `trust:`, to ask. Raises FormatError when they are those of a damaged file."""
        from gobanfast._core.prefix_set import PrefixSet

        return PrefixSet.from_packed(self.trust.addresses, self.trust.lengths)

    @property
    def nbytes(self) -> int:
        """Bytes of the compiled arrays."""
        return self.compiled.nbytes

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(
            "a Ruleset is not pickled or copied: it never changes, so share it; for another process save it, and "
            "Ruleset.load the file there"
        )

    def __repr__(self) -> str:
        return f"<Ruleset {self.source!r}: {len(self.rules)} rules, {self.nbytes} bytes>"
