"""Source files and globs of a ruleset with digests, for change detection."""

from __future__ import annotations

import glob
import os
import re
from typing import TYPE_CHECKING

from gobanfast._digest import blake2b

if TYPE_CHECKING:
    from pathlib import Path

COMPILED_MAGIC = b"\x89GBF\r\n\x1a\n"


class Inputs:
    """Files by absolute path with a digest of their content (None: could not be read), and globs with their matches."""

    __slots__ = ("files", "globs")

    def __init__(
        self, files: dict[str, str | None] | None = None, globs: dict[tuple[str, str], tuple[str, ...]] | None = None
    ) -> None:
        self.files = {} if files is None else files
        self.globs = {} if globs is None else globs

    def add(self, path: str | os.PathLike[str]) -> None:
        """Notes a file, before it is read: a change while it is read then shows as a change since."""
        self.files[os.path.abspath(path)] = _digest(path)

    def match(self, directory: Path, pattern: str) -> list[Path]:
        """The files that `pattern` matches in `directory`, in natural order: 9.yaml comes before 10.yaml."""
        found = _matches(os.path.abspath(directory), pattern)
        self.globs[os.path.abspath(directory), pattern] = found
        return [directory / name for name in found]

    def changed(self) -> bool:
        """Whether a file has other content now, or a glob other matches. Cost: reads every file."""
        return any(_digest(path) != digest for path, digest in self.files.items()) or any(
            _matches(*key) != found for key, found in self.globs.items()
        )

    def stat_signature(self) -> tuple[object, ...]:
        """Inode, size and times of every file: two that differ mean that something was written."""
        seen: list[object] = [_matches(*key) for key in self.globs]
        for path in self.files:
            try:
                state = os.stat(path)
            except OSError:
                seen.append(None)
            else:
                seen.append((state.st_ino, state.st_dev, state.st_size, state.st_mtime_ns, state.st_ctime_ns))
        return tuple(seen)

    def nbytes(self) -> int:
        """Bytes of all files that are there."""
        return sum(os.path.getsize(path) for path in self.files if os.path.isfile(path))

    def directories(self) -> set[str]:
        """Directories in which a change can be one of the inputs: of the files as named, and of what they link to."""
        found = {os.path.dirname(path) for path in self.files}
        found |= {os.path.dirname(os.path.realpath(path)) for path in self.files}
        found |= {os.path.dirname(os.path.join(directory, pattern)) for directory, pattern in self.globs}
        return {directory for directory in found if os.path.isdir(directory)}


def is_glob(text: str) -> bool:
    """Whether a path is a pattern for several."""
    return glob.has_magic(text)


def _digest(path: str | os.PathLike[str]) -> str | None:
    """Hash of a file's content; of a compiled one, its size and header, which has the hash of the rest."""
    try:
        with open(path, "rb") as file:
            head = file.read(64)
            if head.startswith(COMPILED_MAGIC):
                return f"{head.hex()} {os.fstat(file.fileno()).st_size}"
            digest = blake2b(head, digest_size=16)
            while piece := file.read(1 << 18):
                digest.update(piece)
            return digest.hexdigest()
    except OSError:
        return None


def _matches(directory: str, pattern: str) -> tuple[str, ...]:
    return tuple(sorted(glob.glob(pattern, root_dir=directory), key=_natural))


def _natural(text: str) -> list[tuple[int, str]]:
    """Sorts digits by value and the rest as text."""
    return [(int(step), "") if step.isdecimal() else (0, step) for step in re.split(r"([0-9]+)", text)]
