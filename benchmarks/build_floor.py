"""Builds floor.pyx and state_loop.pyx in place with the flags of the package: `python -m benchmarks.build_floor`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Distribution, Extension

HERE = Path(__file__).parent
CFLAGS = ["-std=c11", "-O3", "-fvisibility=hidden"]


def main() -> int:
    os.chdir(HERE.parent)
    kernels = [f"gobanfast/csrc/state/{name}.c" for name in ("gbf_tracker", "gbf_score", "gbf_window")]
    kernels.append("gobanfast/csrc/http/gbf_session.c")
    extensions = [
        Extension("benchmarks.floor", ["benchmarks/floor.pyx"], extra_compile_args=CFLAGS),
        Extension(
            "benchmarks.state_loop", ["benchmarks/state_loop.pyx", *kernels],
            include_dirs=["gobanfast/csrc"], extra_compile_args=CFLAGS,
        ),
    ]  # fmt: skip
    modules = cythonize(extensions, build_dir="build", quiet=True)
    command = Distribution({"name": "floor", "ext_modules": modules}).get_command_obj("build_ext")
    command.inplace = True
    command.build_temp = "build"
    command.ensure_finalized()
    command.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
