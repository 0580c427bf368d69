"""The program as a shell sees it: entry points, statuses, signals, pipes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import gobanfast

pytest.importorskip("typer", reason="the command line needs the extra cli")

ROOT = Path(gobanfast.__file__).parent.parent
DEMO = ROOT / "gobanfast" / "demo"
MODULE = (sys.executable, "-m", "gobanfast")
SCAN = (*MODULE, "scan", str(DEMO / "access.log.gz"), "--rules", str(DEMO / "rules.yaml"))


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_module_runs_and_statuses_reach_the_shell() -> None:
    """`python -m gobanfast` answers; 0, 1 and 2 arrive as exit status."""
    version = run(*MODULE, "--version")
    assert (0, f"{gobanfast.__version__}\n", "") == (version.returncode, version.stdout, version.stderr)

    scanned = run(*SCAN, "--fail-on", "ban")
    assert (1, "") == (scanned.returncode, scanned.stderr)  # no progress bar off a terminal
    assert "In short: " in scanned.stdout

    assert 2 == run(*MODULE, "scan").returncode


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra_one_line_says_what_to_install(missing: str) -> None:
    """Without typer or rich: status 2 and one line that names the extra; the library itself still imports."""
    program = f"import sys; sys.modules[{missing!r}] = None; from gobanfast.cli import main; sys.exit(main())"
    result = run(sys.executable, "-c", program, "--version")

    assert (2, "") == (result.returncode, result.stdout)
    assert f"gobanfast: the command line needs {missing}; pip install 'gobanfast[cli]'\n" == result.stderr


@pytest.mark.skipif(os.name != "posix", reason="pipes and signals as POSIX has them")
def test_reader_that_goes_away() -> None:
    """A closed pipe ends the program with 141 and without a word."""
    with subprocess.Popen(SCAN, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()

        assert (141, "") == (process.wait(60), process.stderr.read())


@pytest.mark.skipif(os.name != "posix", reason="pipes and signals as POSIX has them")
def test_interrupt() -> None:
    """Ctrl-C while waiting for input ends the program with 130 and without a traceback."""
    command = (*MODULE, "scan", "-", "--rules", str(DEMO / "rules.yaml"))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        try:
            process.wait(3)  # long enough to be past the imports and wait for the first line
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)

        assert 130 == process.wait(60)
        assert "Traceback" not in process.stderr.read()
