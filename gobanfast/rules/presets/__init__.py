"""Registry of presets: rules files to start from, one YAML file each in this folder.

The name of a preset is that of its file, and its description is the comment in the first line. A file added here is a
preset.
"""

from __future__ import annotations

from importlib.resources import files

from gobanfast._errors import GobanError


def presets() -> dict[str, str]:
    """Name and description of every preset, by name."""
    found = {}
    for file in files(__name__).iterdir():
        name, dot, kind = file.name.rpartition(".")
        if dot and kind == "yaml":
            found[name] = file.read_text("utf-8").partition("\n")[0].removeprefix("# ")
    return dict(sorted(found.items()))


def preset_text(name: str) -> str:
    """The rules file of a preset.

    Raises:
        GobanError: there is none of that name.
    """
    known = presets()
    if name not in known:
        raise GobanError(f"there is no preset '{name[:80]}'; there are {', '.join(known)}")
    return files(__name__).joinpath(f"{name}.yaml").read_text("utf-8")
