"""Installs wheels as a user does and runs them: `python wheels/smoke.py [--suite] WHEEL...`.

Each wheel that this machine can run is installed with its dependencies into a new virtual environment of its Python,
and asked from an empty folder: a decision, a scan, save and load, with every kernel forced in turn. With --suite the
test suite runs against the installed wheel, from a copy of the tests that has no sources beside it.
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
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from build import ROOT, interpreters

PROGRAM = """
import os, sys
before = set(sys.modules)
import gobanfast
third = {name.partition(".")[0] for name in set(sys.modules) - before}
assert not third & {"numpy", "pydantic", "yaml", "re2", "maxminddb", "pyroaring"}, third
assert gobanfast.__file__.startswith(sys.argv[1]), gobanfast.__file__
from gobanfast._core.block import build_info
info = build_info()
assert info["optimized"] and not info["beyond_baseline"], info
if not os.path.exists("rules.gbf"):  # or another processor has made it
    gobanfast.Ruleset.from_text(
    "rules:\\n"
    "- {id: net, when: {prefix: 198.51.100.0/24}, action: ban}\\n"
    "- {id: name, when: {sni: '*.evil.example'}, action: challenge}\\n"
    "- {id: cloud, when: {asn_name: digitalocean}, action: challenge}\\n"
    ).save("rules.gbf")
engine = gobanfast.Engine.load("rules.gbf")
requests = [("192.0.2.1", "x.evil.example"), *((text, None) for text in ("198.51.100.7", "46.101.9.1", "?", "8.8.8.8"))]
def answers(engine):
    return [engine.decide(address, sni=name).action for address, name in requests]
assert answers(engine) == ["challenge", "ban", "challenge", "challenge", "allow"], answers(engine)
print(gobanfast.kernels())
"""

# Processors that qemu-user knows -> the best kernel level on them.
CPU_MODELS = {"Conroe": "scalar", "Nehalem": "v2", "Haswell": "avx2"}


def runnable(wheel: Path) -> bool:
    """Whether this machine runs the wheel by itself."""
    return platform.machine() in wheel.name and "manylinux" in wheel.name


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "GOBANFAST_KERNEL"))}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env={**env, **variables}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))[:300]}\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done.stdout


def every_kernel(python: list[str | Path], installed: Path, cwd: Path, **variables: str) -> list[str]:
    """The kernel levels that `python` reports, after the program has run with each of them."""
    code = "from gobanfast._core.block import cpu_levels; print(*cpu_levels())"
    levels = run(*python, "-c", code, cwd=cwd, **variables).split()
    for level in levels:
        run(*python, "-c", PROGRAM, installed, cwd=cwd, GOBANFAST_KERNEL=level, **variables)
    return levels


def cpu_models(python: list[str | Path], installed: Path, cwd: Path) -> str:
    """The same on processors that lack AVX-512, AVX2 and SSE4.2, as qemu-user plays them."""
    qemu = shutil.which("qemu-x86_64-static") or shutil.which("qemu-x86_64")
    if qemu is None:
        return "; no qemu-x86_64 to mask instructions"
    told = []
    for model, best in CPU_MODELS.items():
        levels = every_kernel([qemu, "-cpu", model, *python], installed, cwd)
        if levels[-1] != best:
            sys.exit(f"qemu's {model} has {best}, but {', '.join(levels)} were offered")
        told.append(f"{model} ({best})")
    return f"; on {', '.join(told)}"


def suite_folder(folder: Path) -> Path:
    """A copy of the tests, and of the pages they read, without the sources of the package."""
    copied = folder / "suite"
    for name in ("tests", "docs", "examples"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copied / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, copied)
    return copied


def smoke(wheel: Path, interpreter: Path, folder: Path) -> str:
    """What was run with one wheel, which is installed in `folder`/venv then."""
    run(interpreter, "-m", "venv", folder / "venv", cwd=folder)
    python = folder / "venv" / "bin" / "python"
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(*pip, f"{wheel.resolve()}[cli]", cwd=folder)
    empty = folder / "empty"
    empty.mkdir()
    levels = every_kernel([python], folder / "venv", empty)
    masked = cpu_models([python], folder / "venv", empty) if platform.machine() == "x86_64" else ""
    demo = run(python, "-c", "import gobanfast.demo as d; print(*d.__path__)", cwd=empty).strip()
    scan = (folder / "venv" / "bin" / "gobanfast", "scan", f"{demo}/access.log.gz", "--rules", f"{demo}/rules.yaml")
    if "ban" not in run(*scan, cwd=empty):
        sys.exit(f"{wheel.name}: the demo scan bans nobody")
    return f"decides, saves, loads and scans with kernels {', '.join(levels)}{masked}"


def suite(folder: Path) -> int:
    """Exit status of the tests, run by the Python in `folder`/venv."""
    python = folder / "venv" / "bin" / "python"
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *groups["test"], cwd=folder)
    return subprocess.run([python, "-m", "pytest"], cwd=suite_folder(folder), check=False).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheels", nargs="+", type=Path)
    parser.add_argument("--suite", action="store_true", help="run the test suite against each installed wheel, too")
    options = parser.parse_args()
    pythons = dict(interpreters())
    for wheel in options.wheels:
        tag = wheel.name.split("-")[3]
        if not runnable(wheel) or tag not in pythons:
            print(f"skip  {wheel.name}: not for this machine's {', '.join(pythons)}")
            continue
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            folder.chmod(0o755)  # a test gives up root, and must still read what is installed
            print(f"ok    {wheel.name}: {smoke(wheel, pythons[tag], folder)}", flush=True)
            if options.suite and (status := suite(folder)):
                return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
