"""Which kernels run: the machine's best, or what GOBANFAST_KERNEL caps them at."""

from __future__ import annotations

import os
from collections.abc import Mapping

from gobanfast._block import cpu_cap, cpu_levels


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
