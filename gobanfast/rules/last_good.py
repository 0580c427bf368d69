"""The last good ruleset, compiled, on disk: what a restart runs on when the rules file is broken.

It also says what it was made from. As long as those files are unchanged it is the ruleset, so that of the workers of a
host one compiles and the others map what it wrote.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from gobanfast._errors import FormatError, GobanError, RuleError
from gobanfast.rules import stored
from gobanfast.rules.inputs import Inputs
from gobanfast.rules.ruleset import Ruleset

if TYPE_CHECKING:
    from gobanfast.asn import AsnTable

log = logging.getLogger("gobanfast.rules")


def current(
    path: str | os.PathLike[str], *, asn: AsnTable | None, last_good: str | os.PathLike[str] | None, inputs: Inputs
) -> Ruleset:
    """The ruleset that `path` means now, its inline tests passed; compiled, or mapped from `last_good` if that is it.

    `inputs` takes note of what was read. Raises what `Ruleset.load` raises, and RuleError for tests that fail.
    """
    if last_good is None or stored.is_stored(path):
        return tested(Ruleset.load(path, asn=asn, inputs=inputs))
    with _only_one(last_good):
        kept = _kept(path, asn, last_good)
        if kept is not None:
            inputs.files.update(kept.inputs.files)
            inputs.globs.update(kept.inputs.globs)
            return kept
        ruleset = tested(Ruleset.load(path, asn=asn, inputs=inputs))
        ruleset.save(last_good)
        return ruleset


def boot(
    path: str | os.PathLike[str], *, asn: AsnTable | None, last_good: str | os.PathLike[str] | None, inputs: Inputs
) -> tuple[Ruleset, tuple[str, ...]]:  # fmt: skip
    """`current`, or the last good ruleset when that fails, with the reasons why it is that one."""
    try:
        return current(path, asn=asn, last_good=last_good, inputs=inputs), ()
    except (GobanError, OSError) as error:
        if last_good is None or not stored.is_stored(last_good):
            raise
        problems = error.problems if isinstance(error, RuleError) else (f"{os.fspath(path)}: {error}",)
        ruleset = stored.load(last_good)
        log.error("%s: cannot be used, the last good rules are in force: %s", path, error)
        return ruleset, tuple(str(problem) for problem in problems)


def tested(ruleset: Ruleset) -> Ruleset:
    """The same ruleset. RuleError when it fails its inline tests."""
    failures = ruleset.failures()
    if failures:
        raise RuleError(failures)
    return ruleset


def _kept(path: str | os.PathLike[str], asn: AsnTable | None, last_good: str | os.PathLike[str]) -> Ruleset | None:
    """The ruleset in `last_good` if it was made from just these rules, lists and AS table."""
    from gobanfast.asn import AsnTable

    try:
        kept = stored.load(last_good)
    except (OSError, FormatError):
        return None
    table = AsnTable.starter() if asn is None else asn
    made = kept.inputs
    fits = os.path.abspath(path) in made.files and kept.made_over == table.content_hash and not made.changed()
    return kept if fits else None


@contextlib.contextmanager
def _only_one(path: str | os.PathLike[str]) -> Iterator[None]:
    """Held by one process of the host at a time; without it where the directory cannot be written."""
    try:
        lock = os.open(os.fspath(path) + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        yield
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
