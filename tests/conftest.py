"""Fixtures every test module may ask for, and the hypothesis profiles."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# "ci" repeats the same examples in every run, so that a red run is a changed project and never bad luck; "dev"
# searches anew each time. HYPOTHESIS_PROFILE chooses, the environment variable CI (any value) makes "ci" the default.
SLOW_MACHINE = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("ci", derandomize=True, database=None, print_blob=True, **SLOW_MACHINE)
settings.register_profile("dev", **SLOW_MACHINE)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if "CI" in os.environ else "dev"))

# A shell's background job hands on "ignore", and then no command that a test starts ends on Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real tables and logs, named by GOBANFAST_DATA; skips the test when there is none."""
    folder = os.environ.get("GOBANFAST_DATA")
    if not folder:
        pytest.skip("GOBANFAST_DATA names no folder of real data")
    path = Path(folder)
    if not path.is_dir():
        pytest.fail(f"GOBANFAST_DATA={folder!r} is not a folder")
    return path


@pytest.fixture(autouse=True, scope="session")
def unknown_host() -> None:
    """Bans of this process spare no address of the machine that runs the tests, which has others everywhere."""
    from gobanfast import spared

    vars(spared.HOST).update(known={}, until=float("inf"), now=dict)
