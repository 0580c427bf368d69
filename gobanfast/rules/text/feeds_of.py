"""Feeds that a rules file names, read without the lists themselves: these may be what has to be fetched anew."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from gobanfast._errors import Problem, RuleError
from gobanfast.rules.rule import PrefixList
from gobanfast.rules.text.fields import ValidationContext
from gobanfast.rules.text.includes import Tree
from gobanfast.rules.text.schema import TrustModel, trust_shorthand, written_feeds

if TYPE_CHECKING:
    from gobanfast.rules.settings import FeedSettings


def feeds_of(path: str | os.PathLike[str]) -> tuple[list[FeedSettings], PrefixList]:
    """The feeds of a rules file, and the prefixes under its `trust:`.

    Raises:
        RuleError: the file cannot be read, or one of its feeds is wrong.
    """
    tree = Tree()
    tree.load(os.fspath(path))
    if not tree.documents:
        raise RuleError(tree.problems)
    root, problems = tree.documents[0], list[Problem]()
    feeds = written_feeds(root, problems)
    wrong = [name for name, feed in feeds.items() if feed is None]
    if wrong and not problems:
        line, column = root.root.key_place(("feeds", wrong[0]))
        hint = f"gobanfast rules lint {os.fspath(path)}"
        problems.append(Problem(root.source, line, column, f"feed '{wrong[0]}' has problems", hint))
    if problems:
        raise RuleError(problems)
    found = [feed for feed in feeds.values() if feed is not None]
    written = root.root.value.get("trust") if isinstance(root.root.value, dict) else None
    if written is None:
        return found, PrefixList(b"", b"")
    try:
        trust = TrustModel.model_validate(trust_shorthand(written), context=ValidationContext(Path(path).parent))
    except (ValidationError, ValueError):
        hint = f"gobanfast rules lint {os.fspath(path)}"
        raise RuleError([Problem(root.source, *root.root.key_place(("trust",)), "trust has problems", hint)]) from None
    return found, trust.prefixes()
