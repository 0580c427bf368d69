"""Opens damaged tables without their hashes and asks them everything, in a process of its own: KIND MUTANTS SEED.

Ends with status 0 when every mutant was refused with a FormatError or answered; a signal or another exception ends it
otherwise. `test_damage.py` starts it with a few hundred mutants of each kind; give more by hand.
"""

from __future__ import annotations

import contextlib
import random
import struct
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gobanfast import AsnTable, Engine, FormatError, NameTable, OriginSet, PrefixSet, PrefixTable, Ruleset
from gobanfast.rules import ruleset_file

MARKS = (0, 1, 2, 0x7FFFFFFF, 0x7FFFFFFE, 0x80000000, 0x80000003, 0xFFFFFFFF)
NETWORKS = [
    f"{a}.{b}.0.0/{bits}" for a in (1, 10, 100, 200, 223) for b, bits in ((0, 16), (0, 20), (128, 17), (64, 24))
]
SIXES = ["2001:db8::/32", "2001:db8:8000::/33", "2a00:1450::/29", "2a00:1450:4001::1/128"]
NAMES = [(f"{kind}n{i}.example", i) for i in range(40) for kind in ("", ".", "*.", "**.")]
NAMES += [("c[0-9]+.example", 7), ("?x*.a.example", 8), ("re:a+[.]top", 9)]
RULES = f"""
rules:
- {{id: net, when: {{prefix: [{", ".join(NETWORKS[:9])}]}}, action: ban}}
- {{id: six, when: {{prefix: ['{SIXES[0]}', '{SIXES[3]}']}}, action: challenge}}
- {{id: name, when: {{sni: [.n1.example, 're:a+[.]top', absent]}}, action: ban}}
- {{id: hello, when: {{ja4_prefix: t13, alpn: [h2]}}, action: challenge}}
- {{id: as, when: {{asn: [AS1, 3-5]}}, action: ban, mode: shadow}}
- {{id: seen, when: {{prefix: {NETWORKS[10]}}}, action: log}}
- {{id: path, when: {{path: /x/**}}, action: ban}}
"""
ASKED = [text.partition("/")[0] for text in NETWORKS + SIXES] + ["255.255.255.255", "0.0.0.1", "::", "ffff::", "x"]
ASKED += [f"{a}.{b}.7.7" for a in range(0, 256, 5) for b in (0, 85, 255)] + [f"{a:x}::9" for a in range(0, 65536, 997)]


SLOTS = [f"{i >> 4}.{(i & 15) << 4}.0.1" for i in range(4096)] + [f"{i << 6:x}::1" for i in range(1024)]


def numbers(count: int) -> memoryview:
    return memoryview(bytearray(4 * count)).cast("I")


def packed(count: int) -> bytes:
    return bytes(random.Random(1).randbytes(16 * count))


def of_prefixes() -> tuple[bytes, Callable[[bytes], None]]:
    def ask(data: bytes) -> None:
        table = PrefixTable.from_bytes(data, verify=False)
        table.lookup_many(ASKED, numbers(len(ASKED)))
        table.lookup_many(packed(64), numbers(64))
        _ = (
            [(table.lookup(text), table.lookup_prefix(text), text in table) for text in ASKED],
            repr(table),
            table.content_hash,
        )
        _ = list(table)

    made = PrefixTable([(text, i) for i, text in enumerate(NETWORKS + SIXES)])
    return made.__reduce__()[1][0], ask


def of_sets() -> tuple[bytes, Callable[[bytes], None]]:
    def ask(data: bytes) -> None:
        made = PrefixSet.from_bytes(data, verify=False)
        _ = [text in made for text in ASKED], repr(made), list(made)
        made.contains_many(packed(64), bytearray(64))

    return PrefixSet(NETWORKS + SIXES).__reduce__()[1][0], ask


def of_names() -> tuple[bytes, Callable[[bytes], None]]:
    asked = [name.replace("*", "q").lstrip(".") for name, _ in NAMES] + [
        "c22.example",
        "axxb.a.example",
        "aa.top",
        "",
        "\n",
    ]

    def ask(data: bytes) -> None:
        table = NameTable.from_bytes(data, verify=False)
        _ = [(table.lookup(name), table.lookup_all(name), name in table) for name in asked], repr(table)
        table.lookup_many(asked, numbers(len(asked)))
        with contextlib.suppress(TypeError):  # the mark of a table without text, which does not know its patterns
            _ = list(table)

    return NameTable(NAMES, key=b"k").__reduce__()[1][0], ask


def of_origins() -> tuple[bytes, Callable[[bytes], None]]:
    long = "https://" + "q" * 50
    patterns = ["https://**.a.example:*", "https://b.a.example:8443", "http://[::1]", "x://h", "re:https://c+", long]
    asked = ["https://q.a.example", "https://b.a.example:8443", "http://[::1]", "x://h", "https://cc", long, "q"]

    def ask(data: bytes) -> None:
        made = OriginSet.from_bytes(data, verify=False)
        _ = [(text in made, made.lookup(text)) for text in asked], repr(made), list(made)

    return OriginSet(patterns, key=b"k").__reduce__()[1][0], ask


def of_networks() -> tuple[bytes, Callable[[bytes], None]]:
    from gobanfast._core.block import Block

    def ask(data: bytes) -> None:
        table = AsnTable.of_block(Block.copy(data), source="x", verify=False)
        _ = [(asn := table.lookup(text), asn is not None and table.describe(asn)) for text in ASKED], repr(table)
        _ = [table.name(asn) for asn in range(300)], table.named_asns()
        _ = table.prefix_asns(), table.family_ranges(4), table.family_ranges(6)

    return bytes(AsnTable.starter().block), ask


def of_rules() -> tuple[bytes, Callable[[bytes], None]]:
    from gobanfast._core.client_hello import parse_client_hello

    folder = Path(tempfile.mkdtemp())
    ruleset_file.save(Ruleset.from_text(RULES, asn=AsnTable.starter()), folder / "good")
    damaged = folder / "damaged"

    def ask(data: bytes) -> None:
        damaged.unlink(missing_ok=True)  # the one before may be mapped
        damaged.write_bytes(data)
        engine = Engine(ruleset_file.load(damaged, Ruleset, verify=False))
        for text in ASKED:
            _ = repr(engine.decide(text))
        for text in SLOTS:  # of the first level of the tries
            engine.peek(text)
        for name in ("n1.example", "aa.top", "x" * 300, None):
            found = engine.decide(
                "10.0.0.1", sni=name, ja4="t13d1516h2_8daaf6152771_02713d6af862", path="/x/y", method="GET"
            )
            _ = repr(found), found.shadow, found.logged, found.matched, engine.explain(found)
        _ = (
            engine.decide("1.0.0.1", hello=parse_client_hello(b"\x16\x03\x01\x00")).action,
            engine.hits(),
            engine.decided(),
        )
        engine.decide_many(packed(64))

    return (folder / "good").read_bytes(), ask


KINDS = {
    "rules": of_rules,
    "asn": of_networks,
    "names": of_names,
    "origins": of_origins,
    "prefix": of_prefixes,
    "set": of_sets,
}


def mutants(good: bytes, seed: int) -> Any:
    """Copies with one to four words or bytes overwritten; half near the start, where small sections are."""
    draw = random.Random(seed)
    while True:
        data = bytearray(good)
        for _ in range(draw.choice((1, 1, 1, 2, 4))):
            at = (
                draw.randrange(64, len(data)) if draw.random() < 0.5 else 64 + draw.randrange(min(len(data) - 64, 4096))
            )
            if draw.random() < 0.6:
                word = draw.choice((*MARKS, draw.getrandbits(32), draw.getrandbits(8)))
                data[at & ~3 : (at & ~3) + 4] = struct.pack("<I", word)[: len(data) - (at & ~3)]
            else:
                data[at] = draw.randrange(256)
        yield bytes(data)


def main(kind: str, count: int, seed: int) -> None:
    good, ask = KINDS[kind]()
    ask(good)
    refused = 0
    for number, data in zip(range(count), mutants(good, seed), strict=False):
        try:
            ask(data)
        except FormatError:
            refused += 1
        except Exception as error:
            raise SystemExit(f"{kind}, seed {seed}, mutant {number}: {type(error).__name__}: {error}") from error
    sys.stdout.write(f"{kind}: {count} mutants, {refused} refused\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
