"""Scan of several files by processes that map one compiled ruleset; their counts are added up in the order of files."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from gobanfast.batch.coverage import required_headers
from gobanfast.batch.logs import LogFile, no_address
from gobanfast.batch.scan import Scan, ScanState

if TYPE_CHECKING:
    from gobanfast._core.engine_core import EngineCore
    from gobanfast._core.prefix_set import PrefixSet
    from gobanfast.batch.layouts import Found
    from gobanfast.rules import Ruleset


@dataclass(frozen=True, slots=True)
class ScannedFile:
    """A file that was read: what it is called, and how it is written."""

    name: str
    found: Found | None


_ENGINE: list[EngineCore] = []  # of this worker process, as what `trust:` covers
_TRUSTED: list[PrefixSet] = []


def scan_files(
    ruleset: Ruleset, paths: Sequence[Path], into: Scan, *, jobs: int | None = None, layout: str = "auto",
    field: str | None = None, mount: str = "", progress: Callable[[Path], None] = lambda _: None,
) -> list[ScannedFile]:  # fmt: skip
    """Reads every file as `Scan.read` does, and adds the counts to `into`.

    Args:
        jobs: processes; None: one a core, and no more than files.
        progress: called with each file that is done, in order.
    Raises:
        LogError, OSError: a file cannot be read as asked.
    Cost: rules are compiled nowhere: workers map one file of them.
    """
    jobs = min(jobs or os.cpu_count() or 1, len(paths))
    done = []
    with tempfile.TemporaryDirectory(prefix="gobanfast-scan-") as folder:
        compiled = os.path.join(folder, "rules.gbf")
        ruleset.save(compiled)
        with ProcessPoolExecutor(jobs, get_context("spawn"), _begin, (compiled,)) as pool:
            tasks = [(os.fspath(path), layout, field, mount) for path in paths]
            for path, (state, found) in zip(paths, pool.map(_scan, tasks), strict=True):
                into.absorb(state)
                done.append(ScannedFile(os.fspath(path), found))
                progress(path)
    return done


def _begin(compiled: str) -> None:
    from gobanfast._core.engine_core import EngineCore
    from gobanfast._core.prefix_set import PrefixSet
    from gobanfast.rules import Ruleset

    ruleset = Ruleset.load(compiled)
    _ENGINE[:] = [EngineCore(ruleset.compiled, ruleset.settings, lambda: 0.0)]
    _TRUSTED[:] = [PrefixSet.from_packed(ruleset.trust.addresses, ruleset.trust.lengths)]


def _scan(task: tuple[str, str, str | None, str]) -> tuple[ScanState, Found | None]:
    path, layout, field, mount = task
    scanned = Scan(_ENGINE[0], mount=mount)
    with open(path, "rb") as stream:
        log = LogFile(
            stream, path, layout=layout, field=field, requests=scanned.asks_requests,
            asked=required_headers(_ENGINE[0].compiled),
            trusted=_TRUSTED[0],
        )  # fmt: skip
        scanned.read(log)
    return scanned.state(), None if log.found is None else replace(log.found, extract=no_address)
