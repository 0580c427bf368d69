"""Compile rules in a subprocess, so that a large reload does not hold the GIL of this process.

Compiling a million names holds the interpreter for tenths of a second at a time. The child writes the compiled file,
which opens here in milliseconds; what it needed meanwhile goes with it.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from typing import Any

from gobanfast._errors import GobanError, Problem, RuleError
from gobanfast.rules import ruleset_file
from gobanfast.rules.ruleset import Ruleset
from gobanfast.rules.sources import Inputs

LARGE = 4 << 20  # bytes of rules, lists and AS table from which on it is worth starting a process
TIMEOUT = 900.0  # seconds

_CHILD = (
    "import json, sys; job = json.load(sys.stdin); sys.path[:] = job['path']; "
    "from gobanfast.reload.compile_process import child; child(job)"
)


def possible() -> bool:
    """Whether this process knows an interpreter to start; one that is embedded does not."""
    return os.path.basename(sys.executable or "").startswith(("python", "pypy"))


def compile_in_subprocess(rules: str, *, asn: str | None, table: str | None, out: str, inputs: Inputs) -> Ruleset:
    """The ruleset in the file `rules`, its inline tests passed: compiled by a child into `out`, mapped from there.

    Args:
        asn: the file of the AS table, which becomes one of the inputs.
        table: a file with the AS table that does not; None and None: the starter table.
        inputs: takes note of what the child read.
    Raises:
        RuleError: what is wrong with the rules, as if they had been read here.
        GobanError: what else went wrong, with the AS table or the child.
    """
    import subprocess

    job = {"path": sys.path, "rules": os.path.abspath(rules), "asn": asn, "table": table, "out": out}
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and code
            [sys.executable, "-c", _CHILD], input=json.dumps(job), capture_output=True, text=True, timeout=TIMEOUT,
            check=False,
        )  # fmt: skip
        report: dict[str, Any] = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        raise GobanError(f"{rules}: compiling in another process took over {TIMEOUT:g} s") from None
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["without a message"])[-1]
        raise GobanError(f"{rules}: compiling in another process ended with status {done.returncode}, {last}") from None
    inputs.files.update(report["files"])
    inputs.globs.update({(directory, pattern): tuple(found) for directory, pattern, found in report["globs"]})
    if report["problems"]:
        raise RuleError([Problem(**problem) for problem in report["problems"]])
    if report["error"] is not None:
        raise GobanError(report["error"])
    return ruleset_file.load(out, Ruleset)


def child(job: dict[str, Any]) -> None:
    """Entry point of the subprocess: compile, and report on standard output."""
    from gobanfast.asn import AsnTable
    from gobanfast.asn.source import AsnSource
    from gobanfast.reload.compile_now import compile_now

    inputs = Inputs()
    problems: list[dict[str, Any]] = []
    message: str | None = None
    try:
        if job["table"] is None:
            networks = AsnSource(job["asn"], rules=job["rules"])
        else:
            networks = AsnSource(AsnTable.load(job["table"]))
        compile_now(job["rules"], networks, inputs).save(job["out"])
    except RuleError as error:
        problems = [asdict(problem) for problem in error.problems]
    except (GobanError, OSError, ValueError, MemoryError) as error:
        message = str(error) or type(error).__name__
    globs = [[*key, list(found)] for key, found in inputs.globs.items()]
    json.dump({"problems": problems, "error": message, "files": inputs.files, "globs": globs}, sys.stdout)
