"""Runs an aarch64 wheel on this machine, under qemu-user: `python wheels/aarch64.py [--suite] WHEEL`.

Python for arm64 comes from Debian's packages, unpacked below build/wheels (nothing is installed, no chroot); what the
wheel depends on comes from PyPI. Then as smoke.py: every kernel forced in turn, and with --suite the tests that start
no server.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from build import ROOT, WORK
from smoke import every_kernel, run, suite_folder

TREE = WORK / "arm64"
RELEASE, PYTHON = "bookworm", "3.11"  # Debian's release and its Python
APT = """
Dir::Etc::sourcelist "{tree}/sources.list";
Dir::Etc::sourceparts "/nonexistent";
Dir::State "{tree}/state";
Dir::State::status "{tree}/status";
Dir::Cache "{tree}/cache";
APT::Architecture "arm64";
APT::Architectures "arm64";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Debug::NoLocking "1";
"""
SOURCE = (
    "deb [arch=arm64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian {} main\n"
)
PLATFORMS = ("manylinux2014_aarch64", *(f"manylinux_2_{minor}_aarch64" for minor in (17, 26, 27, 28, 34)))


def unpack(root: Path) -> None:
    """Debian's Python for arm64 and the libraries it needs, into `root`; apt keeps its books in TREE."""
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (TREE / folder).mkdir(parents=True, exist_ok=True)
    (TREE / "status").touch()
    (TREE / "sources.list").write_text(SOURCE)
    (TREE / "apt.conf").write_text(APT.format(tree=TREE))
    where = {"APT_CONFIG": str(TREE / "apt.conf")}
    run("apt-get", "update", "-qq", cwd=TREE, **where)
    packages = (f"python{PYTHON}", "libstdc++6")
    run("apt-get", "install", "-qq", "-y", "--download-only", *packages, cwd=TREE, **where)
    partial = root.with_name("partial")
    for package in sorted((TREE / "cache" / "archives").glob("*.deb")):
        run("dpkg", "-x", package, partial, cwd=TREE)
    partial.rename(root)


def requirements(site: Path) -> None:
    """What the wheel and its tests depend on, as wheels for aarch64."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [*pyproject["project"]["dependencies"], *pyproject["project"]["optional-dependencies"]["cli"]]
    wanted += [item for item in pyproject["dependency-groups"]["test"] if not item.startswith("gunicorn")]
    platforms = [part for platform in PLATFORMS for part in ("--platform", platform)]
    partial = site.with_name("site-partial")
    shutil.rmtree(partial, ignore_errors=True)
    run(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", partial,
        "--only-binary=:all:", "--python-version", PYTHON, *platforms, *wanted, cwd=ROOT)  # fmt: skip
    partial.rename(site)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--suite", action="store_true", help="run the tests that start no server, too")
    parser.add_argument("arguments", nargs="*", help="for pytest, after --")
    options = parser.parse_args()
    qemu = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    if qemu is None or shutil.which("apt-get") is None:
        sys.exit("needs apt-get and qemu-aarch64 (Debian: apt-get install qemu-user-static)")
    root, site = TREE / "root", TREE / "site"
    if not root.is_dir():
        unpack(root)
    if not site.is_dir():
        requirements(site)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        installed, empty = folder / "installed", folder / "empty"
        empty.mkdir()
        with zipfile.ZipFile(options.wheel) as wheel:
            wheel.extractall(installed)
        python = folder / "python"  # for subprocesses, too: the machine does not know how to run arm64 by itself
        python.write_text(f'#!/bin/sh\nexec {qemu} -L {root} {root}/usr/bin/python{PYTHON} "$@"\n')
        python.chmod(0o755)
        where = {"PYTHONPATH": f"{installed}{os.pathsep}{site}", "PYTHONDONTWRITEBYTECODE": "1"}
        levels = every_kernel([python], installed, empty, **where)
        told = f"ok    {options.wheel.name}: decides, saves and loads with kernels {', '.join(levels)}"
        print(told, flush=True)
        if not options.suite:
            return 0
        tests = suite_folder(folder)
        serving = [path.name for path in (tests / "tests").glob("test_*.py") if "servers" in path.read_text()]
        code = f"import sys, pytest; sys.executable = {str(python)!r}; sys.exit(pytest.main(sys.argv[1:]))"
        command = [python, "-c", code, "-q", *(f"--ignore=tests/{name}" for name in serving), *options.arguments]
        return subprocess.run(command, cwd=tests, env={**os.environ, **where}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
