"""Reader of the shipped BPF object (ELF64, little-endian): programs, the maps they name, the source it is of."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

from gobanfast._errors import FormatError

OBJECT = Path(__file__).with_name("gbf_xdp.bpf.o")
MACHINE_BPF = 247
LOAD_MAP, MAP_BY_FD = 0x18, 1  # ld_imm64, and its source register that makes it a map


class MapLayout(NamedTuple):
    """A map as the program declares it; `entries` 0 leaves the size to who makes it."""

    name: str
    kind: int
    key_bytes: int
    value_bytes: int
    entries: int
    flags: int


class BpfObject:
    """Programs by section name, and the layouts of their maps.

    Attributes:
        maps: by name. `terms`: the licence, for the kernel. `built_of`: BLAKE2b of the source, and the compiler.
    Raises:
        FormatError: a file that is no such object.
    """

    def __init__(self, path: Path = OBJECT) -> None:
        self.path, data = path, path.read_bytes()
        try:
            self._read(data)
        except (struct.error, IndexError, KeyError, ValueError) as error:
            raise FormatError(str(path), 0, f"not a BPF object of ours ({error}); install gobanfast anew") from None

    def _read(self, data: bytes) -> None:
        if data[:6] != b"\x7fELF\x02\x01" or struct.unpack_from("<H", data, 18)[0] != MACHINE_BPF:
            raise ValueError("no ELF64 for BPF")
        (sections_at,) = struct.unpack_from("<Q", data, 40)
        count, names_in = struct.unpack_from("<HH", data, 60)
        headers = [struct.unpack_from("<IIQQQQIIQQ", data, sections_at + 64 * i) for i in range(count)]
        parts = [data[header[4] : header[4] + header[5]] for header in headers]
        names = [_text(parts[names_in], header[0]) for header in headers]
        place = {name: i for i, name in enumerate(names)}
        symbols_in = next(i for i, header in enumerate(headers) if header[1] == 2)
        texts = parts[headers[symbols_in][6]]
        symbols = [struct.unpack_from("<IBBHQQ", parts[symbols_in], at) for at in range(0, len(parts[symbols_in]), 24)]
        self.terms = parts[place["license"]].rstrip(b"\0")
        self.built_of = parts[place["source"]].rstrip(b"\0").decode() if "source" in place else ""
        by_offset = {value: _text(texts, name) for name, kind, _, where, value, _ in symbols
                     if where == place["maps"] and kind & 15 == 1}  # fmt: skip
        declared = parts[place["maps"]]
        self.maps = {name: MapLayout(name, *struct.unpack_from("<5I", declared, at)) for at, name in by_offset.items()}
        self._code = {name: part for name, part in zip(names, parts, strict=True) if name.startswith("xdp")}
        self._relocated = {
            name: [
                (at, by_offset[symbols[which >> 32][4]])
                for at, which in struct.iter_unpack("<QQ", parts[place[f".rel{name}"]])
            ]
            for name in self._code
        }

    def code(self, section: str, descriptors: dict[str, int]) -> bytes:
        """Instructions of a program, with the descriptors of its maps in place."""
        code = bytearray(self._code[section])
        for at, name in self._relocated[section]:
            if code[at] != LOAD_MAP:
                raise FormatError(str(self.path), at, f"map {name} is not loaded by an instruction")
            code[at + 1] = code[at + 1] & 0x0F | MAP_BY_FD << 4
            struct.pack_into("<i", code, at + 4, descriptors[name])
        return bytes(code)


def _text(table: bytes, at: int) -> str:
    return table[at : table.index(b"\0", at)].decode()
