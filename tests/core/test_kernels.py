"""The choice of kernels and the environment variable that caps it."""

from __future__ import annotations

import pytest

import gobanfast
from gobanfast._core import kernels
from gobanfast._core.block import cpu_cap, cpu_levels


def test_unset_variable_caps_nothing():
    """Without GOBANFAST_KERNEL kernels may use all this machine has."""
    assert cpu_cap(cpu_levels()[-1]) == kernels.cpu_features(environ={})


@pytest.mark.parametrize("level", cpu_levels())
def test_variable_caps_features(level):
    """GOBANFAST_KERNEL caps the features at the level it names; an argument outranks it."""
    assert cpu_cap(level) == kernels.cpu_features(environ={"GOBANFAST_KERNEL": level})
    assert cpu_cap(level) == kernels.cpu_features(level, environ={"GOBANFAST_KERNEL": "scalar"})


@pytest.mark.parametrize("name", ["", "0", "SCALAR", "avx9", "scalar "])
def test_other_names_are_refused(name):
    """A name that is no level of this machine is an error with the place, the name and the list."""
    listed = ", ".join(cpu_levels())

    with pytest.raises(ValueError, match=f"^GOBANFAST_KERNEL='{name}' is not one of {listed}$"):
        kernels.cpu_features(environ={"GOBANFAST_KERNEL": name})
    with pytest.raises(ValueError, match=f"^kernel='{name}' is not one of {listed}$"):
        kernels.cpu_features(name)


def test_nouns_with_kernels():
    """Tables and fingerprints are told of; what hashes a JA4 is no choice of a caller."""
    assert {"fingerprint", "name", "prefix", "set"} == set(gobanfast.kernels())


def test_every_noun_falls_back_to_scalar(monkeypatch):
    """GOBANFAST_KERNEL=scalar puts every noun on its portable kernel."""
    monkeypatch.setenv("GOBANFAST_KERNEL", "scalar")

    assert {"scalar"} == set(gobanfast.kernels().values())


@pytest.mark.parametrize("level", cpu_levels())
def test_no_noun_exceeds_the_cap(monkeypatch, level):
    """Every kernel in use is of the named level or of a lower one."""
    monkeypatch.setenv("GOBANFAST_KERNEL", level)
    allowed = cpu_levels()[: cpu_levels().index(level) + 1]

    assert set(allowed) >= set(gobanfast.kernels().values())
