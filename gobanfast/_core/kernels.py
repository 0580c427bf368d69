"""Kernel selection: the best that the CPU runs, or the one that GOBANFAST_KERNEL caps it at."""

from __future__ import annotations

import os
from collections.abc import Mapping

from gobanfast._core.block import cpu_cap, cpu_levels


def cpu_features(level: str | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Feature bits that kernels may use: all this machine has, or those up to `level`.

    Args:
        level: one of `cpu_levels()`; None means GOBANFAST_KERNEL if set, else everything.
    Raises:
        ValueError: the level is unknown, or above what this machine has.
    """
    name = environ.get("GOBANFAST_KERNEL") if level is None else level
    if name is None:
        return cpu_cap(cpu_levels()[-1])
    if name not in cpu_levels():
        source = "GOBANFAST_KERNEL" if level is None else "kernel"
        raise ValueError(f"{source}={name!r} is not one of {', '.join(cpu_levels())}")
    return cpu_cap(name)


def kernels() -> dict[str, str]:
    """Noun -> the kernel that new tables and fingerprints of it get, as in {"fingerprint": "avx2", "prefix": "v2"}.

    The best that this machine can run, up to the level named by GOBANFAST_KERNEL; not every noun has a kernel for every
    level, but each has "scalar".

    Raises:
        ValueError: GOBANFAST_KERNEL is unknown, or above what this machine has.
    """
    from gobanfast._core import xxh3
    from gobanfast._core.name_table import NameTable
    from gobanfast._core.prefix_set import PrefixSet
    from gobanfast._core.prefix_table import PrefixTable

    return {
        "fingerprint": xxh3.kernel_name(cpu_features()),
        "name": NameTable().kernel,
        "prefix": PrefixTable().kernel,
        "set": PrefixSet().kernel,
    }
