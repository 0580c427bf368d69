"""The extension list. Everything else about the project is in pyproject.toml."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Command, Extension, setup
from setuptools.command.build import build
from setuptools.command.build_clib import build_clib
from setuptools.command.build_ext import build_ext

CSRC = Path("gobanfast/csrc")
SOURCES = {path.stem: path for path in CSRC.glob("*/*.c")}
# As linked: each needs later ones
FOLDERS = ("batch", "state", "rules", "tls", "http", "name", "address", "base", "hash")
# -DNDEBUG and -fwrapv are among Python's own flags, which a CFLAGS variable (as of a wheel's build) replaces.
CFLAGS = [
    "-std=c11",
    "-O3",
    "-DNDEBUG",
    "-fwrapv",
    "-fvisibility=hidden",
    "-fno-semantic-interposition",
    "-Wall",
    "-Wextra",
]
if sys.platform == "linux":
    CFLAGS.append("-frecord-gcc-switches")  # ELF section .GCC.command.line; tests/core/test_packaging.py reads it
# Functions are of CPython's own kind, and `inspect.signature` reads their docstrings. Cython's kind is no faster, and a
# tenth of an extension.
SIGNATURES = {"binding": False, "embedsignature": True, "embedsignature.format": "clinic"}
DIRECTIVES = {"language_level": 3, "auto_pickle": False, **SIGNATURES}

# Extension name -> the C kernels it uses. All are compiled once, into a static library for each folder of csrc. They
# are small and hidden: each extension links its own copy of those it needs; no symbol crosses a shared-object border.
XXH3 = ["gbf_xxh3", "gbf_xxh3_avx512", "gbf_xxh3_avx2", "gbf_xxh3_neon"]
BLOCK = ["gbf_block", "gbf_cpu", *XXH3]
LPM = ["gbf_addr", "gbf_lpm", "gbf_lpm_avx512", "gbf_lpm_scalar", "gbf_lpm_v2"]
PREFIX = [*BLOCK, *LPM, "gbf_prefix_build", "gbf_prefix_list", "gbf_prefix_sort", "gbf_trie"]
NAME = ["gbf_name", "gbf_name_avx512", "gbf_name_scalar", "gbf_name_v2"]
SET = ["gbf_set_avx512", "gbf_set_build", "gbf_set_scalar", "gbf_set_v2"]
EXTENSIONS = {
    "address": LPM,
    "allowed_headers": ["gbf_acrh"],
    "arrow_data": ["gbf_arrow"],
    "asgi": [],
    "asn_table": [*PREFIX, "gbf_asn", "gbf_asn_build", "gbf_asn_csv"],
    "ban_table": ["gbf_addr", "gbf_bans", "gbf_labels"],
    "block": BLOCK,
    "client_hello": ["gbf_cpu", "gbf_hello", "gbf_ja", "gbf_md5", "gbf_sha256", "gbf_sha256_sha"],
    "columns": [*BLOCK, *NAME, "gbf_columns"],
    "compiled_rules": [*BLOCK, *LPM, "gbf_rules_build", "gbf_trie"],
    "connection_table": [*BLOCK, *NAME, "gbf_connection"],
    "crowd": ["gbf_addr"],
    "decision": ["gbf_cpu", "gbf_headers", "gbf_headers_build", *XXH3],
    "edge_headers": [],
    "engine_core": ["gbf_addr", "gbf_decide", "gbf_score", "gbf_tracker", "gbf_window", *BLOCK, *NAME],
    "enums": [],
    "exchange": ["gbf_cpu", "gbf_headers", "gbf_headers_build", *XXH3],
    "grant": [],
    "headers": ["gbf_cpu", "gbf_headers", "gbf_headers_build", "gbf_trace", *XXH3],
    "label_table": ["gbf_addr", "gbf_bans", "gbf_labels"],
    "log_lines": ["gbf_cpu", "gbf_intern", "gbf_log", "gbf_log_avx2", *XXH3],
    "limits": ["gbf_limit", *XXH3],
    "live_table": [],
    "log_queue": [],
    "name_table": [*BLOCK, *NAME, "gbf_name_build", "gbf_name_dfa"],
    "name_text": [*BLOCK, *NAME, "gbf_arrow"],
    "origin_set": [*BLOCK, *NAME, "gbf_addr", "gbf_origin", "gbf_origin_build"],
    "prefix_set": [*BLOCK, "gbf_addr", "gbf_prefix_sort", *SET],
    "prefix_table": PREFIX,
    "record_table": ["gbf_trace"],
    "request_table": ["gbf_cpu", "gbf_headers", "gbf_headers_build", "gbf_values", *XXH3],
    "response_headers": [],
    "sampling": ["gbf_latency"],
    "scorer": ["gbf_score", "gbf_window"],
    "session_reader": ["gbf_cpu", "gbf_headers", "gbf_headers_build", "gbf_session", *XXH3],
    "shared": [],
    "siphash": [],
    "sse": [],
    "trace_carriers": ["gbf_trace"],
    "trace_context": ["gbf_random", "gbf_trace"],
    "trackers": ["gbf_addr", "gbf_tracker"],
    "wsgi": [],
    "xxh3": ["gbf_cpu", *XXH3],
}


def reads(*sources: Path) -> list[str]:
    """C headers and `.pxd` files that sources read, directly or not: a change of one compiles them anew."""
    found: set[Path] = set()
    waiting = [*sources]
    while waiting:
        path = waiting.pop()
        text = path.read_text()
        named = {CSRC / name for name in re.findall(r'(?:#include|cdef extern from) "(\w+/\w+\.h)"', text)}
        modules = re.findall(r"^from (gobanfast\._core\.[\w.]+) cimport", text, re.MULTILINE)
        named |= {Path(f"{module.replace('.', '/')}.pxd") for module in modules}
        if path.suffix == ".pyx" and path.with_suffix(".pxd").exists():
            named.add(path.with_suffix(".pxd"))
        waiting += named - found
        found |= named
    return sorted(map(str, found))


def extension(name: str, kernels: list[str]) -> Extension:
    flags = " ".join(CFLAGS)
    glue, sources = Path(f"gobanfast/_core/{name}.pyx"), [SOURCES[kernel] for kernel in kernels]
    return Extension(
        f"gobanfast._core.{name}",
        [str(glue)],
        include_dirs=[str(CSRC)],
        depends=[*reads(glue, *sources), *map(str, sources)],
        extra_compile_args=[*CFLAGS, f'-DGBF_CFLAGS="{flags}"'],
    )


def kept(command: Command) -> build:
    """The folders of a plain build. An editable install has folders of its own, which are thrown away, and the next
    build in place would compile everything again."""
    plain = build(command.distribution)
    plain.ensure_finalized()
    return plain


class BuildClib(build_clib):
    """Static libraries, in a folder that stays."""

    def initialize_options(self) -> None:
        super().initialize_options()
        self.editable_mode = False  # setuptools sets it where it finds it

    def finalize_options(self) -> None:
        if self.editable_mode:
            self.build_clib = self.build_temp = kept(self).build_temp
        super().finalize_options()


class BuildExt(build_ext):
    """Extensions, after the library they link: `setup.py build_ext` alone would link an old one, or none."""

    def finalize_options(self) -> None:
        if self.editable_mode:
            plain = kept(self)
            self.build_temp, self.build_lib = plain.build_temp, plain.build_platlib
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def run(self) -> None:
        self.run_command("build_clib")
        super().run()


def library(folder: str) -> tuple[str, dict[str, object]]:
    used = {SOURCES[kernel] for kernels in EXTENSIONS.values() for kernel in kernels}
    sources = sorted(path for path in used if path.parent.name == folder)
    return f"gbf_{folder}", {
        "sources": [*map(str, sources)],
        "include_dirs": [str(CSRC)],
        "cflags": CFLAGS,
        "obj_deps": {"": reads(*sources)},
    }


setup(
    cmdclass={"build_clib": BuildClib, "build_ext": BuildExt},
    libraries=[library(folder) for folder in FOLDERS],
    ext_modules=cythonize(
        [extension(name, kernels) for name, kernels in EXTENSIONS.items()],
        compiler_directives=DIRECTIVES,
    ),
)
