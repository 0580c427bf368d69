"""What is installed is what was meant: flags, symbols, imports, metadata; of the tree or of a wheel."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import pytest

import gobanfast

PACKAGE = Path(gobanfast.__file__).parent
CORE = PACKAGE / "_core"
ROOT = Path(__file__).parents[2]
EXTENSIONS = sorted(path for path in CORE.iterdir() if path.name.endswith(EXTENSION_SUFFIXES[0]))
SOURCES = list(CORE.glob("*.pyx"))
PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"

# What a compiler notes for "any CPU of this architecture"; it notes -march=native as the name of the CPU it found.
BASELINES = {"-march=x86-64", "-march=armv8-a", "-mcpu=generic"}

every_extension = pytest.mark.parametrize("path", EXTENSIONS, ids=lambda path: path.name.split(".")[0])


def binutils(*command: str) -> str:
    """Output of a binutils command; skips where it is not installed."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} (binutils) is not on PATH")
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def fresh_interpreter(code: str, *arguments: str) -> Any:
    """What `code` prints as JSON in an interpreter that has imported nothing yet."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=PACKAGE.parent)
    return json.loads(done.stdout)


def compile_lines(path: Path) -> list[list[str]]:
    """Options of each compiler run that went into the extension, as the compiler wrote them there."""
    dump = binutils("readelf", "--string-dump=.GCC.command.line", str(path))
    return [shlex.split(line.split("]", 1)[1]) for line in dump.splitlines() if line.lstrip().startswith("[")]


@pytest.mark.skipif(not SOURCES, reason="no sources beside the installed package")
def test_every_extension_is_built():
    """Each .pyx has an extension of this interpreter beside it, and no extension lacks its .pyx."""
    expected = sorted(path.stem for path in SOURCES)

    assert expected == [path.name.split(".")[0] for path in EXTENSIONS]


def test_every_extension_has_a_stub():
    """Type checkers see every extension module."""
    expected = [path.name.split(".")[0] for path in EXTENSIONS]

    assert expected == sorted(path.stem for path in CORE.glob("*.pyi"))


def test_build_info_says_optimised_and_portable():
    """The compiler's own macros, read in the extension: optimised, and no instructions beyond the baseline."""
    from gobanfast._core.block import build_info

    info = build_info()

    assert info["optimized"]
    assert not info["beyond_baseline"]


@pytest.mark.skipif(sys.platform != "linux", reason="only ELF extensions record their compiler options")
@every_extension
def test_recorded_flags(path):
    """Every object in every extension was compiled with -O3, hidden symbols, and for no particular CPU."""
    from gobanfast._core.block import build_info

    lines = compile_lines(path)
    if not lines and "Clang" in build_info()["compiler"]:
        pytest.skip("wheels by clang record no options: it would write its paths, too")

    assert lines, "no compiler options are recorded"
    for options in lines:
        assert [option for option in options if option.startswith("-O")][-1:] == ["-O3"]
        assert [option for option in options if option.startswith("-fvisibility")][-1:] == ["-fvisibility=hidden"]
        assert BASELINES.issuperset(option for option in options if option.startswith(("-march", "-mcpu")))
        assert [] == [option for option in options if option.startswith(("-mavx", "-msse", "-mbmi"))]


@pytest.mark.skipif(sys.platform != "linux", reason="readelf reads ELF dynamic symbols")
@every_extension
def test_only_the_init_function_is_exported(path):
    """Kernels are hidden: two extensions that link the same one can never meet in the dynamic linker."""
    name = path.name.split(".")[0]
    table = binutils("readelf", "--wide", "--dyn-syms", str(path))
    rows = [line.split() for line in table.splitlines() if line.strip()[:1].isdigit()]
    exported = [row[7] for row in rows if row[4] != "LOCAL" and row[6] not in {"UND", "ABS"}]

    assert [f"PyInit_{name}"] == exported


@pytest.mark.skipif(sys.platform != "linux", reason="only ELF extensions have a RUNPATH")
@pytest.mark.skipif(bool(SOURCES), reason="some interpreters write their own folder into what is built in place")
@every_extension
def test_no_library_path(path):
    """An extension looks for libraries where the system does, not in a folder of the machine that built it."""
    dynamic = binutils("readelf", "--wide", "--dynamic", str(path))

    assert [] == [line for line in dynamic.splitlines() if "RUNPATH" in line or "RPATH" in line]


def test_import_brings_nothing_third_party():
    """`import gobanfast` and all its names load the standard library and its own modules, no more."""
    code = (
        "import json, sys; before = set(sys.modules); import gobanfast;"
        "[getattr(gobanfast, name) for name in gobanfast.__all__];"
        "roots = {name.partition('.')[0] for name in set(sys.modules) - before};"
        # cython_runtime and _cython_<version> are made in memory by every extension
        "known = sys.stdlib_module_names | {'gobanfast', 'cython_runtime'};"
        "print(json.dumps(sorted(root for root in roots - known if not root.startswith('_cython_'))))"
    )

    assert [] == fresh_interpreter(code)


def test_a_first_decision_imports_little(tmp_path):
    """Loading compiled rules and deciding by them imports nothing that is there for reading, writing or telling."""
    code = (
        "import json, sys, gobanfast;"
        "[action] = [gobanfast.Engine.load(sys.argv[1]).decide('192.0.2.1').action];"
        "print(json.dumps([action, sorted(sys.modules)]))"
    )
    rules = tmp_path / "rules.gbf"
    gobanfast.Ruleset.from_text("rules: [{id: net, when: {prefix: 192.0.2.0/24}, action: ban}]").save(rules)

    action, modules = fresh_interpreter(code, str(rules))

    assert "ban" == action
    late = {"dataclasses", "hashlib", "inspect", "logging", "numpy", "pydantic", "re2", "yaml"}
    late |= {
        "gobanfast.reload.compile_process",
        "gobanfast.rules.compile.address",
        "gobanfast.rules.text.includes",
        "gobanfast.rules.text.schema",
    }
    assert set() == late.intersection(modules)


def test_every_name_comes_from_its_module():
    """Every public name is there when it is asked for, as are the modules they are in, and nothing else is."""
    code = (
        "import json, gobanfast;"
        "found = [name for name in gobanfast.__all__ if not hasattr(gobanfast, name)];"
        "print(json.dumps([found, hasattr(gobanfast, 'engine'), hasattr(gobanfast, 'nothing')]))"
    )

    assert [[], True, False] == fresh_interpreter(code)


def test_import_starts_no_thread():
    """`import gobanfast`, all its names asked for, leaves the process with as many threads as before."""
    code = (
        "import json, os, threading;"
        "tasks = lambda: len(os.listdir('/proc/self/task')) if os.path.isdir('/proc/self/task') else 1;"
        "before = tasks(); import gobanfast; [getattr(gobanfast, name) for name in gobanfast.__all__];"
        "print(json.dumps([threading.active_count(), tasks() - before]))"
    )

    assert [1, 0] == fresh_interpreter(code)


def test_sub_interpreter_is_refused():
    """A second interpreter in the process gets an ImportError, and the first goes on."""
    code = """if True:
        import json, os
        try:
            import _interpreters as interpreters
        except ImportError:  # CPython 3.12 and before
            import _xxsubinterpreters as interpreters
        import gobanfast
        table = gobanfast.PrefixTable([("192.0.2.0/24", 7)])
        readable, writable = os.pipe()
        second = interpreters.create()
        interpreters.run_string(second, f'''if True:
            import os
            try:
                from gobanfast import PrefixTable
                told = "imported"
            except ImportError:
                told = "refused"
            os.write({writable}, told.encode())
        ''')
        interpreters.destroy(second)
        print(json.dumps([os.read(readable, 100).decode(), table.lookup("192.0.2.1")]))
    """

    assert ["refused", 7] == fresh_interpreter(code)


def test_module_is_the_command():
    """`python -m gobanfast` runs what the `gobanfast` script runs."""
    scripts = tomllib.loads(PYPROJECT.read_text())["project"]["scripts"]
    module = importlib.import_module("gobanfast.__main__")

    assert {"gobanfast": "gobanfast.cli:main"} == scripts
    assert (module.main.__module__.split(".")[:2], module.main.__name__) == (["gobanfast", "cli"], "main")


def test_types_are_declared():
    """PEP 561: the marker that tells type checkers to believe our annotations."""
    assert (PACKAGE / "py.typed").is_file()


def test_version_is_one():
    """The package, its metadata and pyproject.toml say the same version."""
    expected = tomllib.loads(PYPROJECT.read_text())["project"]["version"]

    assert expected == gobanfast.__version__
    assert expected == importlib.metadata.version("gobanfast")


def test_build_requirements_are_one():
    """Builds in place use the tools that isolated builds use."""
    pyproject = tomllib.loads(PYPROJECT.read_text())

    assert pyproject["build-system"]["requires"] == pyproject["dependency-groups"]["build"]


@pytest.mark.skipif(not (ROOT / "Makefile").exists(), reason="no source tree around the tests")
@pytest.mark.skipif(shutil.which("make") is None, reason="make is not on PATH")
def test_make_has_an_environment_for_each_interpreter_that_is_named(tmp_path):
    """`make demo` works in .venv, `make demo PYTHON=...` in one that has the version in its name, and what is no Python
    is said to be none, whatever environments there are."""

    clean = {name: value for name, value in os.environ.items() if name not in {"PYTHON", "MAKEFLAGS", "MAKELEVEL"}}

    def planned(*arguments: str) -> str:
        return subprocess.run(
            ["make", "-n", "-B", "demo", *arguments],  # noqa: S607
            cwd=ROOT, env=clean, capture_output=True, text=True, check=False,
        ).stdout  # fmt: skip

    version = "{}.{}".format(*sys.version_info)
    elsewhere = tmp_path / "python3"
    elsewhere.write_text("#!/bin/sh\nexit 1\n")
    elsewhere.chmod(0o755)

    assert "\n.venv/bin/gobanfast scan" in planned()
    assert f"\n.venv-{version}/bin/gobanfast scan" in planned(f"PYTHON={sys.executable}")
    assert "\n.venv-/bin/gobanfast scan" in planned(f"PYTHON={elsewhere}")
    refused = subprocess.run(
        ["make", "demo", f"PYTHON={elsewhere}"],  # noqa: S607
        cwd=ROOT, env=clean, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "needs Python 3.11 or newer" in refused.stdout
    assert refused.returncode
    assert not (ROOT / ".venv-").exists()


def test_an_editable_install_builds_where_the_next_build_looks(monkeypatch):
    """setuptools gives it folders that are thrown away; the build in place after it would compile everything again."""
    core = pytest.importorskip("setuptools").distutils.core
    cython = pytest.importorskip("Cython.Build")
    if not (ROOT / "setup.py").is_file():
        pytest.skip("no source tree")
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(cython, "cythonize", lambda modules, **_: modules)
    commands = []
    for editable in (False, True):
        distribution = core.run_setup("setup.py", stop_after="init")
        build = distribution.get_command_obj("build")
        if editable:
            build.build_platlib = build.build_temp = "/thrown/away"
        for name in ("build_clib", "build_ext"):
            distribution.get_command_obj(name).editable_mode = editable
            distribution.get_command_obj(name).ensure_finalized()
        extensions, library = distribution.get_command_obj("build_ext"), distribution.get_command_obj("build_clib")
        commands.append((extensions.build_lib, extensions.build_temp, library.build_clib, library.build_temp))

    assert commands[0] == commands[1]
    assert all(folder.startswith("build/") for folder in commands[0])
