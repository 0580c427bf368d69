"""Checks wheels without running them: `python wheels/check_wheel.py FILE...`; a line a wheel, status 1 if one fails."""

from __future__ import annotations

import io
import re
import sys
import tomllib
import zipfile
from pathlib import Path

from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection

ROOT = Path(__file__).parents[1]
MOST_BYTES = 3_000_000  # of a whole wheel: 43 extensions, each with the C that it uses, are three quarters of it
GLIBC = (2, 17)  # the newest symbol version of manylinux2014
LIBRARIES = re.compile(r"lib(c|m|pthread|dl|rt)\.so\.\d|ld-linux.*|libc\.musl-.*\.so\.1")
OBJECT = "gobanfast/frontends/kernel/gbf_xdp.bpf.o"  # which users cannot compile
FOREIGN = (".c", ".h", ".pyx", ".pxd", ".o", ".gbf")  # the sdist has the sources
FLAGS = ("-std=c11", "-O3", "-fvisibility=hidden")
BASELINES = {"-march=x86-64", "-march=armv8-a", "-mcpu=generic"}
MACHINES = {"x86_64": "x64", "aarch64": "AArch64"}


def problems(path: Path) -> list[str]:
    """Everything that is wrong with a wheel."""
    found = []
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    name, told, python, abi, platform = path.stem.split("-")
    if (name, told) != ("gobanfast", version):
        found.append(f"is {name} {told}, not gobanfast {version}")
    if python != abi.removesuffix("t") or not re.fullmatch(r"cp3\d+t?", abi):
        found.append(f"tag {python}-{abi} is not that of one CPython version")
    if not re.search(r"manylinux2014_|musllinux_1_2_|macosx_|win_", platform):
        found.append(f"platform {platform} is too new or unknown")
    if path.stat().st_size > MOST_BYTES:
        found.append(f"{path.stat().st_size} bytes, at most {MOST_BYTES}")
    with zipfile.ZipFile(path) as wheel:
        names = wheel.namelist()
        extensions = [name for name in names if name.endswith(".so")]
        sources = {source.stem for source in (ROOT / "gobanfast" / "_core").glob("*.pyx")}
        stems = {Path(name).name.split(".")[0] for name in extensions}
        found += [f"extension {name} is missing" for name in sorted(sources - stems)]
        found += [f"{name} does not belong in a wheel" for name in names if name.endswith(FOREIGN) and name != OBJECT]
        for wanted in (OBJECT, "gobanfast/py.typed", f"gobanfast-{version}.dist-info/licenses/LICENSE"):
            if wanted not in names:
                found.append(f"{wanted} is missing")
        found += [f"stub of {name} is missing" for name in sorted(stems) if f"gobanfast/_core/{name}.pyi" not in names]
        machine = platform.rsplit("linux_", 1)[-1].removeprefix("2_17_")
        machine = next((known for known in MACHINES if platform.endswith(known)), machine)
        for name in extensions:
            data = wheel.read(name)
            if not data.startswith(b"\x7fELF"):
                continue  # Mach-O: its linker strips and binds otherwise, and delocate looks at it
            found += [f"{Path(name).name}: {problem}" for problem in extension_problems(name, data, machine)]
    return found


def extension_problems(name: str, data: bytes, machine: str) -> list[str]:
    """What is wrong with one shared object."""
    found = []
    elf = ELFFile(io.BytesIO(data))
    if elf.get_machine_arch() != MACHINES.get(machine):
        found.append(f"is for {elf.get_machine_arch()}, the wheel for {machine}")
    if elf.get_section_by_name(".symtab") is not None or elf.get_section_by_name(".debug_info") is not None:
        found.append("is not stripped")
    for section in elf.iter_sections():
        if isinstance(section, DynamicSection):
            for tag in section.iter_tags():
                if tag.entry.d_tag in {"DT_RUNPATH", "DT_RPATH"}:
                    found.append(f"has {tag.entry.d_tag} {getattr(tag, 'runpath', getattr(tag, 'rpath', ''))}")
                if tag.entry.d_tag == "DT_NEEDED" and not LIBRARIES.fullmatch(tag.needed):
                    found.append(f"needs {tag.needed}")
        if isinstance(section, GNUVerNeedSection):
            for _, versions in section.iter_versions():
                for version in versions:
                    number = re.fullmatch(r"GLIBC_(\d+)\.(\d+)(\.\d+)?", version.name)
                    if number and (int(number[1]), int(number[2])) > GLIBC:
                        found.append(f"needs {version.name}")
    exported = [
        symbol.name
        for symbol in elf.get_section_by_name(".dynsym").iter_symbols()
        if symbol["st_shndx"] != "SHN_UNDEF" and symbol["st_info"]["bind"] != "STB_LOCAL"
        and symbol["st_other"]["visibility"] == "STV_DEFAULT" and symbol.name not in {"_init", "_fini"}
    ]  # fmt: skip
    if exported != [f"PyInit_{Path(name).name.split('.')[0]}"]:
        found.append(f"exports {', '.join(exported)}")
    if b"_block" in Path(name).name.encode() and not all(flag.encode() in data for flag in FLAGS):
        found.append(f"records no {' '.join(FLAGS)}")
    recorded = elf.get_section_by_name(".GCC.command.line")
    options = [] if recorded is None else re.split(rb"[\0 ]", recorded.data())
    special = {option.decode() for option in options if option.startswith((b"-march=", b"-mcpu="))} - BASELINES
    return found + [f"was compiled with {option}" for option in sorted(special)]


def main() -> int:
    failed = 0
    for path in map(Path, sys.argv[1:]):
        wrong = problems(path)
        failed += bool(wrong)
        print(f"{'FAIL' if wrong else 'ok':4}  {path.stat().st_size / 1e6:.2f} MB  {path.name}")
        for problem in wrong:
            print(f"      {problem}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
