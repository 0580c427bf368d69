"""Runs a wheel under Debian's Python: `python wheels/debian.py [--suite] WHEEL`; an aarch64 wheel under qemu-user.

Python and its C library come from the packages of the release that has this version, unpacked below build/wheels
(nothing is installed, no chroot); what the wheel depends on comes from PyPI. Then as smoke.py: every kernel forced in
turn, and with --suite the tests that start no server.
"""

from __future__ import annotations

import argparse
import os
import platform
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

RELEASES = {"3.11": "bookworm", "3.13": "trixie", "3.14": "sid"}  # Python -> Debian's release that has it
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
APT = """
Dir::Etc::sourcelist "{tree}/sources.list";
Dir::Etc::sourceparts "/nonexistent";
Dir::State "{tree}/state";
Dir::State::status "{tree}/status";
Dir::Cache "{tree}/cache";
APT::Architecture "{arch}";
APT::Architectures "{arch}";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Debug::NoLocking "1";
"""
SOURCE = "deb [arch={} signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian {} main\n"
GLIBCS = (17, 24, 26, 27, 28, 34)  # minor versions that wheels are tagged with


def unpack(tree: Path, version: str, machine: str) -> None:
    """Debian's Python and the libraries it needs, into `tree`/root; apt keeps its books in `tree`."""
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (tree / folder).mkdir(parents=True, exist_ok=True)
    (tree / "status").touch()
    (tree / "sources.list").write_text(SOURCE.format(MACHINES[machine], RELEASES[version]))
    (tree / "apt.conf").write_text(APT.replace("{tree}", str(tree)).replace("{arch}", MACHINES[machine]))
    where = {"APT_CONFIG": str(tree / "apt.conf")}
    run("apt-get", "update", "-qq", cwd=tree, **where)
    packages = (f"python{version}", "libstdc++6")
    run("apt-get", "install", "-qq", "-y", "--download-only", *packages, cwd=tree, **where)
    partial = tree / "partial"
    partial.mkdir(exist_ok=True)
    for name in ("lib", "lib64"):  # as every Debian has them; packages of older releases have files in them
        (partial / "usr" / name).mkdir(parents=True, exist_ok=True)
        if not (partial / name).exists():
            (partial / name).symlink_to(f"usr/{name}")
    for package in sorted((tree / "cache" / "archives").glob("*.deb")):
        archive = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], capture_output=True, check=True).stdout
        subprocess.run(["tar", "-x", "--keep-directory-symlink", "-C", partial], input=archive, check=True)
    partial.rename(tree / "root")


def requirements(site: Path, version: str, machine: str) -> None:
    """What the wheel and its tests depend on, as wheels for that Python."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [*pyproject["project"]["dependencies"], *pyproject["project"]["optional-dependencies"]["cli"]]
    wanted += [item for item in pyproject["dependency-groups"]["test"] if not item.startswith("gunicorn")]
    tags = (f"manylinux2014_{machine}", *(f"manylinux_2_{minor}_{machine}" for minor in GLIBCS))
    platforms = [part for tag in tags for part in ("--platform", tag)]
    partial = site.with_name("site-partial")
    shutil.rmtree(partial, ignore_errors=True)
    run(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", partial,
        "--only-binary=:all:", "--python-version", version, *platforms, *wanted, cwd=ROOT)  # fmt: skip
    partial.rename(site)


def starter(root: Path, machine: str, version: str) -> str:
    """The command that starts the Python in `root`: by the dynamic linker that is in there, or qemu."""
    python = f"{root}/usr/bin/python{version}"
    if machine == platform.machine():
        linker = next(path for folder in ("lib64", "lib") for path in (root / folder).glob("ld-linux-*.so.*"))
        return f"{linker} --argv0 {python} --library-path {root}/usr/lib/{machine}-linux-gnu {python}"
    qemu = shutil.which(f"qemu-{machine}-static") or shutil.which(f"qemu-{machine}")
    if qemu is None:
        sys.exit(f"needs qemu-{machine} (Debian: apt-get install qemu-user-static)")
    return f"{qemu} -L {root} {python}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--suite", action="store_true", help="run the tests that start no server, too")
    parser.add_argument("arguments", nargs="*", help="for pytest, after --")
    options = parser.parse_args()
    _, _, tag, _, built_for = options.wheel.stem.split("-")
    version = f"3.{tag.removeprefix('cp3')}"
    machine = next((name for name in MACHINES if built_for.endswith(name)), "")
    if version not in RELEASES or not machine or "manylinux" not in built_for:
        sys.exit(f"no Debian runs {options.wheel.name}: they have Python {', '.join(RELEASES)}, and glibc")
    if shutil.which("apt-get") is None:
        sys.exit("needs apt-get")
    tree = WORK / f"{RELEASES[version]}-{MACHINES[machine]}"
    root, site = tree / "root", tree / "site"
    if not root.is_dir():
        unpack(tree, version, machine)
    if not site.is_dir():
        requirements(site, version, machine)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        installed, empty = folder / "installed", folder / "empty"
        empty.mkdir()
        with zipfile.ZipFile(options.wheel) as wheel:
            wheel.extractall(installed)
        python = folder / "python"  # for subprocesses, too: the machine does not run this Python by itself
        python.write_text(f'#!/bin/sh\nexec {starter(root, machine, version)} "$@"\n')
        python.chmod(0o755)
        where = {"PYTHONPATH": f"{installed}{os.pathsep}{site}", "PYTHONDONTWRITEBYTECODE": "1"}
        levels = every_kernel([python], installed, empty, **where)
        told = f"ok    {options.wheel.name}: decides, saves and loads with kernels {', '.join(levels)}"
        print(told, flush=True)
        if not options.suite:
            return 0
        tests = suite_folder(folder)
        serving = [
            path.relative_to(tests) for path in (tests / "tests").rglob("test_*.py") if "servers" in path.read_text()
        ]
        code = f"import sys, pytest; sys.executable = {str(python)!r}; sys.exit(pytest.main(sys.argv[1:]))"
        command = [python, "-c", code, "-q", *(f"--ignore={name}" for name in serving), *options.arguments]
        return subprocess.run(command, cwd=tests, env={**os.environ, **where}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
