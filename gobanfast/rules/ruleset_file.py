"""File format of a compiled ruleset, `rules.gbf`: blocks that processes map and share.

A block of kind "RSET" holds the blocks of the engine as they are (RULE, SIGN, NAME), the names of the ASes in them
(ASNN), what people wrote (META: rules, settings and inline tests as JSON) and the lists that rules name (LIST), which
only `explain` reads. HASH is over META and the headers of the blocks, each of which has the hash of its content: so
opening checks everything a decision depends on, and a list is checked when it is read.
"""

from __future__ import annotations

import json
import os
import sys
import types
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from gobanfast._core.block import Block
from gobanfast._digest import blake2b
from gobanfast._errors import FormatError, Problem
from gobanfast._fork import importing
from gobanfast.rules.inline_test import Case
from gobanfast.rules.rule import NameList, PrefixList, Rule, Unparsable
from gobanfast.rules.settings import Settings
from gobanfast.rules.sources import COMPILED_MAGIC, Inputs

if TYPE_CHECKING:
    from gobanfast.asn import AsnTable
    from gobanfast.rules.ruleset import Ruleset

KIND = "RSET"
FORMAT = 3  # of META; 2 had actions of other numbers


def save(ruleset: Ruleset, path: str | os.PathLike[str]) -> None:
    """Writes `ruleset` to `path`: a temporary file beside it, fsync, rename.

    A ruleset with a fingerprint key is written for its owner alone to read, because the key is in the file.
    """
    mode = 0o644 if ruleset.settings.fingerprint.key is None else 0o600
    if ruleset.block is not None:
        ruleset.block.save(path, mode=mode)
        return
    lists = bytearray()
    meta = {
        "format": FORMAT,
        "source": ruleset.source,
        "unparsable": ruleset.unparsable,
        "rules": [_plain(rule, lists) for rule in ruleset.rules],
        "settings": _plain(ruleset.settings, lists),
        "trust": _plain(ruleset.trust, lists),
        "tests": [_plain(case, lists) for case in ruleset.tests],
        "problems": [_plain(problem, lists) for problem in ruleset.problems],
        "inputs": {
            "files": ruleset.inputs.files,
            "globs": [[*key, list(found)] for key, found in ruleset.inputs.globs.items()],
        },
        "made_over": ruleset.made_over,
    }
    text = json.dumps(meta, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
    blocks = {**ruleset.compiled.blocks(), "ASNN": _network_names(ruleset).block}
    whole = Block.build(
        KIND, [("HASH", _digest(text, blocks)), ("META", text), *blocks.items(), ("LIST", bytes(lists))]
    )  # fmt: skip
    whole.save(path, mode=mode)


def load(path: str | os.PathLike[str], kind: type[Ruleset], *, verify: bool = True) -> Ruleset:
    """The ruleset, a `kind`, that `save` wrote to `path`, mapped read-only: processes share its pages.

    Rule texts and every index are checked before the first decision, whatever `verify` says; with it the content hashes
    of the tables too. Raises OSError, or FormatError (path, offset): cut short, damaged, foreign or too new.
    """
    from gobanfast._core.compiled_rules import CompiledRules
    from gobanfast.asn import AsnTable
    from gobanfast.rules.build import facts
    from gobanfast.rules.compile.live import live_table
    from gobanfast.rules.compile.record import record_table, trace_headers
    from gobanfast.rules.compile.request import always_holds, header_plan, request_table
    from gobanfast.rules.compile.share import grants, resources

    name = os.fspath(path)
    whole = Block.map(path)
    parts = whole.parts(KIND, verify=False)
    try:
        text = bytes(parts["META"])
        blocks = {tag: Block.view(part) for tag, part in parts.items() if tag not in ("HASH", "META", "LIST")}
        if bytes(parts["HASH"]) != _digest(text, blocks):
            raise FormatError(name, 0, "hash of the ruleset does not match")
        meta = json.loads(text.decode("utf-8", "surrogatepass"))
        if meta["format"] != FORMAT:
            which = f"ruleset has format {meta['format']}, this gobanfast reads {FORMAT}"
            raise FormatError(name, 0, f"{which}; compile the rules again")
        lists = parts["LIST"]
        rules = tuple(_value(Rule, rule, lists) for rule in meta["rules"])
        unparsable: Unparsable = _value(Unparsable, meta["unparsable"], lists)
        settings: Settings = _value(Settings, meta["settings"], lists)
        plan = header_plan(rules, settings.fingerprint, settings.session)
        of_resources, flags = resources(rules)
        compiled = CompiledRules.of_blocks(
            rules, blocks, unparsable=unparsable, plan=plan, requests=request_table((*rules, *of_resources), plan),
            resources=flags, grants=grants(rules, trace_headers(rules, settings.trace)),
            records=record_table(rules, len(rules) + len(of_resources), settings.trace),
            live=live_table((*rules, *of_resources), settings.session), verify=verify,
        )  # fmt: skip
        trust: PrefixList = _value(PrefixList, meta["trust"], lists)
        asn = AsnTable.of_block(blocks["ASNN"], source=name, verify=verify)
        compiled.complete(partial(facts, rules, unparsable, settings, trust), asn, always_holds=always_holds)
        inputs = Inputs(
            {str(file): digest for file, digest in meta["inputs"]["files"].items()},
            {(directory, pattern): tuple(found) for directory, pattern, found in meta["inputs"]["globs"]},
        )
        return kind(
            rules=rules,
            unparsable=unparsable,
            settings=settings,
            trust=trust,
            tests=tuple(_value(Case, case, lists) for case in meta["tests"]),
            problems=tuple(_value(Problem, problem, lists) for problem in meta["problems"]),
            compiled=compiled,
            overlay=None,
            made_over=str(meta["made_over"]),
            source=str(meta["source"]),
            asn=asn,
            inputs=inputs,
            block=whole,
        )
    except FormatError as error:  # the blocks inside do not know the file
        raise FormatError(name, error.offset, str(error).partition(": ")[2].rpartition(" at offset")[0]) from None
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise FormatError(name, 0, f"description of the ruleset is damaged ({error})") from None


def is_stored(path: str | os.PathLike[str]) -> bool:
    """Whether the file can be read and begins like a compiled one."""
    try:
        with open(path, "rb") as file:
            return file.read(len(COMPILED_MAGIC)) == COMPILED_MAGIC
    except OSError:
        return False


def _digest(text: bytes, blocks: Mapping[str, Block]) -> bytes:
    """Hash over META and the headers of the blocks."""
    digest = blake2b(text, digest_size=32)
    for tag in sorted(blocks):
        digest.update(tag.encode() + bytes(memoryview(blocks[tag])[:64]))
    return digest.digest()


def _network_names(ruleset: Ruleset) -> AsnTable:
    """The names of the ASes that addresses can have in these rules, as a table without prefixes."""
    with importing:
        import numpy as np

    from gobanfast.asn import AsnTable

    known = [] if ruleset.overlay is None else np.unique(ruleset.overlay.leaf_asn).tolist()
    names = ((asn, ruleset.asn.name(asn)) for asn in known if asn)
    return AsnTable.from_arrays(b"", b"", b"", [(asn, name) for asn, name in names if name])


# ---- dataclasses as plain JSON values; what has its default is left out, so that new fields can be added


def _plain(value: Any, lists: bytearray) -> Any:
    from dataclasses import MISSING, fields, is_dataclass

    if isinstance(value, PrefixList):
        return _put(lists, bytes(value.addresses) + bytes(value.lengths))
    if isinstance(value, NameList):
        return _put(lists, value.text.encode())
    if is_dataclass(value):
        kept = {}
        for field in fields(value):
            member = getattr(value, field.name)
            if field.default is MISSING or member != field.default:
                kept[field.name] = _plain(member, lists)
        return kept
    if isinstance(value, tuple):
        return [_plain(item, lists) for item in value]
    return value


def _put(lists: bytearray, data: bytes) -> list[int | str]:
    lists += data
    return [len(lists) - len(data), len(data), blake2b(data, digest_size=16).hexdigest()]


def _value(kind: Any, plain: Any, lists: memoryview) -> Any:
    return _reader(kind)(plain, lists)


@cache
def _reader(kind: Any) -> Callable[[Any, memoryview], Any]:
    """Turns a plain value back into one of type `kind`; raises ValueError, TypeError or KeyError for any other."""
    origin, inside = get_origin(kind), get_args(kind)
    if kind in (PrefixList, NameList):
        made = StoredPrefixes if kind is PrefixList else StoredNames
        return lambda plain, lists: made(lists, *plain)
    if "__dataclass_fields__" in getattr(kind, "__dict__", ()):
        return _dataclass_reader(kind)
    if origin is Literal:
        return lambda plain, _: inside[inside.index(plain)]
    if origin in (Union, types.UnionType):
        readers = [_reader(member) for member in inside if member is not types.NoneType]
        if len(readers) != 1:
            raise TypeError(f"{kind} has several meanings")
        return lambda plain, lists: None if plain is None else readers[0](plain, lists)
    if origin is tuple and inside[-1] is Ellipsis:
        reader = _reader(inside[0])
        return lambda plain, lists: tuple([reader(item, lists) for item in _checked(list, plain)])
    if origin is tuple:
        several = [_reader(member) for member in inside]
        return lambda plain, lists: tuple([read(item, lists) for read, item in zip(several, plain, strict=True)])
    if kind is float:
        return lambda plain, _: float(plain)
    return lambda plain, _: _checked(kind, plain)


def _dataclass_reader(kind: Any) -> Callable[[Any, memoryview], Any]:
    return lambda plain, lists: kind(**{name: _member(kind, name)(member, lists) for name, member in plain.items()})


@cache
def _member(kind: Any, name: str) -> Callable[[Any, memoryview], Any]:
    """The reader of one field. The types of the others, which have their defaults, are not worked out."""
    one = types.SimpleNamespace(__annotations__={name: kind.__annotations__[name]})
    return _reader(get_type_hints(one, vars(sys.modules[kind.__module__]))[name])


def _checked(kind: type, plain: Any) -> Any:
    if type(plain) is not kind:
        raise ValueError(f"{plain!r:.80} is not {kind.__name__}")
    return plain


class StoredPrefixes(PrefixList):
    """A PrefixList that stays in the file until something asks for it."""

    __slots__ = ("_count", "_read")

    _read: Callable[[], bytes]
    _count: int

    def __init__(self, data: memoryview, at: int, nbytes: int, digest: str) -> None:
        object.__setattr__(self, "_read", _lazy(data, at, nbytes, digest))
        object.__setattr__(self, "_count", nbytes // 17)

    @property
    def addresses(self) -> bytes:
        """As PrefixList. FormatError when the file was damaged."""
        return self._read()[: 16 * self._count]

    @property
    def lengths(self) -> bytes:
        """As PrefixList. FormatError when the file was damaged."""
        return self._read()[16 * self._count :]

    def __len__(self) -> int:
        return self._count


class StoredNames(NameList):
    """A NameList that stays in the file until something asks for it."""

    __slots__ = ("_read",)

    _read: Callable[[], bytes]

    def __init__(self, data: memoryview, at: int, nbytes: int, digest: str) -> None:
        object.__setattr__(self, "_read", _lazy(data, at, nbytes, digest))

    @property
    def text(self) -> str:
        """As NameList. FormatError when the file was damaged."""
        return self._read().decode()


def _lazy(data: memoryview, at: int, nbytes: int, digest: str) -> Callable[[], bytes]:
    """Reads bytes of the file when called, and checks them."""
    if not 0 <= _checked(int, at) <= at + _checked(int, nbytes) <= len(data):
        raise ValueError("a list lies outside the file")

    def read() -> bytes:
        found = bytes(data[at : at + nbytes])
        if blake2b(found, digest_size=16).hexdigest() != digest:
            raise FormatError("<compiled rules>", at, "list of a rule is damaged")
        return found

    return read
