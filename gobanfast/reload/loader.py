"""Loader of a ruleset with compile cache and last-good fallback, both in one compiled file.

A restart uses that file when the rules file is broken. It lists its sources: while they are unchanged it is the
ruleset, so that one worker of a host compiles and the others map the result.
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


def load_cached(
    path: Path, *, networks: AsnSource, last_good: Path | None, inputs: Inputs, in_subprocess: bool = False
) -> Ruleset:  # fmt: skip
    """The ruleset of `path`, inline tests passed: mapped from `last_good` if its sources are unchanged, else compiled.

    `inputs` records what was read; with `in_subprocess` another process compiles. Raises what `Ruleset.load` and the
    reading of AS tables raise, and RuleError for tests that fail.
    """
    if last_good is None or ruleset_file.is_stored(path):
        return compile_rules(path, networks, inputs, in_subprocess=in_subprocess)
    with file_lock(last_good):
        kept = _cached(path, networks, last_good)
        if kept is not None:
            inputs.files.update(kept.inputs.files)
            inputs.globs.update(kept.inputs.globs)
            return kept
        ruleset = compile_rules(path, networks, inputs, in_subprocess=in_subprocess)
        save_last_good(ruleset, last_good)
        return ruleset


def compile_rules(path: Path, networks: AsnSource, inputs: Inputs, *, in_subprocess: bool = False) -> Ruleset:
    """The ruleset of `path`, compiled now, its inline tests passed."""
    if in_subprocess and not ruleset_file.is_stored(path):
        return _compile_in_subprocess(path, networks, inputs)
    return compile_now(path, networks, inputs)


def _compile_in_subprocess(path: Path, networks: AsnSource, inputs: Inputs) -> Ruleset:
    """`compile_rules`, compiled by another process; the file it writes is gone from its directory when this returns."""
    import tempfile

    from gobanfast.reload.compile_process import compile_in_subprocess

    with tempfile.TemporaryDirectory(prefix="gobanfast-") as directory:
        table = None
        if networks.path is None and (known := networks.table(inputs)) is not None:
            table = os.path.join(directory, "asn.gbf")
            known.save(table)
        out = os.path.join(directory, "rules.gbf")
        return compile_in_subprocess(os.fspath(path), asn=networks.path, table=table, out=out, inputs=inputs)


def save_last_good(ruleset: Ruleset, last_good: Path) -> None:
    """Writes the ruleset to `last_good`, or logs why that is not possible."""
    try:
        ruleset.save(last_good)
    except OSError as error:
        _log().error("%s: the last good rules could not be kept: %s", last_good, error)


def load_or_last_good(path: Path, *, networks: AsnSource, last_good: Path | None) -> tuple[Ruleset, tuple[str, ...]]:
    """`load_cached`; when that fails, the last good ruleset, with the problems of the failure."""
    try:
        return load_cached(path, networks=networks, last_good=last_good, inputs=Inputs()), ()
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


def _cached(path: Path, networks: AsnSource, last_good: Path) -> Ruleset | None:
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
def file_lock(path: Path) -> Iterator[None]:
    """Exclusive lock between the processes of a host; no lock where the directory cannot be written."""
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
