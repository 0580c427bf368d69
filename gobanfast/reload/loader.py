"""The last good ruleset, compiled, on disk: what a restart runs on when the rules file is broken.

It also says what it was made from. As long as those files are unchanged it is the ruleset, so that of the workers of a
host one compiles and the others map what it wrote.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from gobanfast._errors import FormatError, GobanError, RuleError
from gobanfast.asn.source import AsnSource
from gobanfast.reload.compile_now import compile_now
from gobanfast.rules import ruleset_file
from gobanfast.rules.ruleset import Ruleset
from gobanfast.rules.sources import Inputs

if TYPE_CHECKING:
    from logging import Logger

Path = str | os.PathLike[str]


def current(
    path: Path, *, networks: AsnSource, last_good: Path | None, inputs: Inputs, apart: bool = False
) -> Ruleset:  # fmt: skip
    """The ruleset that `path` means now, its inline tests passed; compiled, or mapped from `last_good` if that is it.

    `inputs` takes note of what was read; with `apart` another process compiles. Raises what `Ruleset.load` and the
    reading of AS tables raise, and RuleError for tests that fail.
    """
    if last_good is None or ruleset_file.is_stored(path):
        return fresh(path, networks, inputs, apart=apart)
    with only_one(last_good):
        kept = _kept(path, networks, last_good)
        if kept is not None:
            inputs.files.update(kept.inputs.files)
            inputs.globs.update(kept.inputs.globs)
            return kept
        ruleset = fresh(path, networks, inputs, apart=apart)
        keep(ruleset, last_good)
        return ruleset


def fresh(path: Path, networks: AsnSource, inputs: Inputs, *, apart: bool = False) -> Ruleset:
    """The ruleset in `path`, compiled now, its inline tests passed."""
    if apart and not ruleset_file.is_stored(path):
        return _fresh_apart(path, networks, inputs)
    return compile_now(path, networks, inputs)


def _fresh_apart(path: Path, networks: AsnSource, inputs: Inputs) -> Ruleset:
    """`fresh`, compiled by another process; the file it writes is gone from its directory when this returns."""
    import tempfile

    from gobanfast.reload.compile_process import compile_apart

    with tempfile.TemporaryDirectory(prefix="gobanfast-") as directory:
        table = None
        if networks.path is None and (known := networks.table(inputs)) is not None:
            table = os.path.join(directory, "asn.gbf")
            known.save(table)
        out = os.path.join(directory, "rules.gbf")
        return compile_apart(os.fspath(path), asn=networks.path, table=table, out=out, inputs=inputs)


def keep(ruleset: Ruleset, last_good: Path) -> None:
    """Writes the ruleset to `last_good`, or logs why that is not possible."""
    try:
        ruleset.save(last_good)
    except OSError as error:
        _log().error("%s: the last good rules could not be kept: %s", last_good, error)


def boot(path: Path, *, networks: AsnSource, last_good: Path | None) -> tuple[Ruleset, tuple[str, ...]]:
    """`current`, or the last good ruleset when that fails, with the reasons why it is that one."""
    try:
        return current(path, networks=networks, last_good=last_good, inputs=Inputs()), ()
    except (GobanError, OSError) as error:
        if last_good is None or not ruleset_file.is_stored(last_good):
            raise
        problems = error.problems if isinstance(error, RuleError) else (f"{os.fspath(path)}: {error}",)
        try:
            ruleset = ruleset_file.load(last_good, Ruleset)
        except FormatError as unusable:
            _log().error("%s: cannot be used, and neither can the last good rules: %s", path, unusable)
            raise error from unusable
        _log().error("%s: cannot be used, the last good rules are in force: %s", path, error)
        return ruleset, tuple(str(problem) for problem in problems)


def _log() -> Logger:
    import logging

    return logging.getLogger("gobanfast.rules")


def _kept(path: Path, networks: AsnSource, last_good: Path) -> Ruleset | None:
    """The ruleset in `last_good` if it was made from just these rules, lists and AS table."""
    try:
        kept = ruleset_file.load(last_good, Ruleset)
    except (OSError, FormatError):
        return None
    fits = (
        os.path.abspath(path) in kept.inputs.files
        and not kept.inputs.changed()
        and networks.made(kept.inputs.files, kept.made_over)
    )
    return kept if fits else None


@contextlib.contextmanager
def only_one(path: Path) -> Iterator[None]:
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
        fcntl.flock(lock, fcntl.LOCK_UN)  # closing is not enough: a child forked meanwhile has it open, too
        os.close(lock)
