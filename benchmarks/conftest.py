"""Makes a pytest-benchmark test of every case of a suite: `pytest benchmarks/bench_prefix.py -k v4_mix`."""

from __future__ import annotations

import pytest

from benchmarks.cases import Data

DATA = Data()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", list(metafunc.module.cases(DATA)), ids=str)
