"""Tries everything on every class of the package, in a process of its own: `python class_probe.py FIRST`.

Prints a line of JSON before each attempt, so that whoever reads them knows what a signal ended, and one for what came
of it. `test_classes.py` starts it; FIRST is the number of the class to begin with.
"""

from __future__ import annotations

import contextlib
import copy
import copyreg
import functools
import gc
import importlib
import inspect
import io
import itertools
import json
import os
import pickle
import pkgutil
import signal
import sys
import types
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import gobanfast

SKIP = {
    "before_fork", "after_fork",  # take a lock, and leave it taken
    "__class__", "__abstractmethods__", "__del__", "__delattr__", "__setattr__", "__getattribute__",
    "__init_subclass__", "__subclasshook__", "__subclasscheck__", "__instancecheck__", "__subclasses__", "mro",
}  # fmt: skip
JUNK: tuple[Any, ...] = (
    None, 0, -1, 2**31, 2**63, 2**64, 1.5, float("nan"), "", "192.0.2.1", "2001:db8::/32", "AS1", "a.example", "\ud800",
    "x" * 1000, b"", b"\x16\x03\x01\x00", bytes(16), bytes(64), b"\xff" * 64, bytearray(8), memoryview(bytes(4)), [],
    [1], [None], [(b"user-agent", b"x")], [("192.0.2.0/24", 1)], (), ("a",), {}, {"REMOTE_ADDR": "x"}, object(), int,
    len, range(3), [-1] * 5,
)  # fmt: skip
HEADERS = [(b"user-agent", b"x")]  # good for a first argument, so that the second is looked at, too
RULES = """
bans: {}
trackers: {request_rate: {limit: 3, window: 1m, action: ban, for: 1m}}
score: {}
rules:
- {id: name, when: {sni: ["*.bad.example", "re:x+[.]example"]}, action: challenge}
- {id: net, when: {prefix: 203.0.113.0/24}, action: ban}
- {id: tool, when: {header: {user-agent: {contains: curl}}, path: /x/**}, action: ban, for: 1m}
- {id: seen, when: {method: PUT}, action: log}
share:
- {id: shared, when: {path: /x/**}, action: grant, methods: [PUT]}
record:
- {id: kept, when: {outcome: banned}, action: always}
- {id: rest, when: any, action: rate, class: rest, probability: 10%}
"""


def classes() -> list[type]:
    """Every class that a module of the package defines, compiled ones first."""
    found: dict[type, None] = {}
    for module in pkgutil.walk_packages(gobanfast.__path__, "gobanfast."):
        if module.name.endswith("__main__"):
            continue
        try:
            loaded = importlib.import_module(module.name)
        except ImportError:  # of an extra that is not installed
            continue
        for value in vars(loaded).values():
            if issubclass(type(value), type) and value.__module__.split(".")[0] == "gobanfast":
                found[value] = None
    return sorted(found, key=lambda cls: (not compiled(cls), cls.__module__, cls.__qualname__))


def compiled(cls: type) -> bool:
    """Whether C code made the class or one that it derives from, so that its objects have state of C's."""
    homes = [sys.modules[base.__module__] for base in cls.__mro__ if base.__module__.split(".")[0] == "gobanfast"]
    return any(not str(home.__file__).endswith(".py") for home in homes)


def good() -> Iterator[Any]:
    """Whole objects of the compiled classes, and what makes another: (object, arguments or None)."""
    from gobanfast import (
        AsnTable,
        BanTable,
        Engine,
        NameTable,
        OriginSet,
        PrefixSet,
        PrefixTable,
        Ruleset,
        parse_client_hello,
    )  # fmt: skip
    from gobanfast._core.allowed_headers import AllowedHeaders
    from gobanfast._core.asgi import AsgiMiddleware, SendWrapper
    from gobanfast._core.asn_table import AsnRows
    from gobanfast._core.crowd import Crowd
    from gobanfast._core.edge_headers import EdgeHeaders
    from gobanfast._core.exchange import Exchange, GuardCore, RequestIds
    from gobanfast._core.headers import HeaderPlan, PartialHeaders
    from gobanfast._core.limits import Limits, LimitTable
    from gobanfast._core.log_lines import InternTable, LineReader
    from gobanfast._core.log_queue import Budget
    from gobanfast._core.origin_set import OriginMatcher
    from gobanfast._core.sampling import RateClasses
    from gobanfast._core.scorer import Scorer, ScoreWindow
    from gobanfast._core.shared import SharedSlots
    from gobanfast._core.trace_context import FORKED_POOL, TraceContext
    from gobanfast._core.trackers import Exemption, Trackers
    from gobanfast._core.wsgi import StartResponse, WsgiMiddleware
    from gobanfast.frontends.http.guard import HttpGuard

    engine = Engine(Ruleset.from_text(RULES))
    signals = {"headers": [(b"user-agent", b"curl/8")], "path": "/x/y", "method": "PUT", "sni": "a.bad.example"}
    settings, compiled_rules = engine.ruleset.settings, engine.ruleset.compiled
    table = PrefixTable([("192.0.2.0/24", 7), ("2001:db8::/32", 8)])
    plain = Engine(Ruleset.from_text("rules: [{id: net, when: {prefix: 203.0.113.0/24}, action: ban}]"))
    yield from (plain.decide("203.0.113.1"), plain.decide("x"), plain)
    yield from (engine, engine.snapshot, engine.ban_table, engine.ban("192.0.2.9", duration=60), table)
    yield from (engine.decide("192.0.2.9"), engine.decide("203.0.113.1", **signals), engine.decide("x"))
    yield from (engine.peek("192.0.2.1"), engine.decide(None, **signals))
    yield from (compiled_rules, compiled_rules.signals, compiled_rules.requests, compiled_rules.plan)
    yield from (compiled_rules.blocks()["RULE"], PrefixSet(["192.0.2.0/24"]), BanTable(capacity=10), AsnTable.starter())
    yield BanTable(capacity=10).labels
    limited = Engine(Ruleset.from_text("limits: [{id: some, when: any, limit: 1, window: 1m}]"))
    counts = LimitTable(capacity=8)
    yield from (counts, Limits(limited.ruleset.rules, counts), limited.decide("192.0.2.1").limit, Crowd(seed=bytes(8)))
    session = "{session: {cookie: sid}, rules: [{id: in, when: {session: present}, action: log}]}"
    live = Engine(Ruleset.from_text(session))
    yield from (live.ruleset.compiled.live, live.snapshot.reader)
    yield NameTable([("*.a.example", 1), ("c[0-9]+.example", 2), ("re:a+", 3)])
    yield from (OriginSet(["https://**.a.example:*", "re:https://b+"]), OriginMatcher([["*.a.example"]], True))
    yield LineReader("json")
    yield InternTable()
    yield AllowedHeaders(["x-a"], any=True)
    yield EdgeHeaders(("x-a",), True, ("x-*",))
    yield from (parse_client_hello(b""), parse_client_hello(b"\x16\x03\x01\x00\x05\x01\0\0\x01\0"))
    yield from (HeaderPlan(("x",)), PartialHeaders([(b"x", b"y")], ("x",)), RequestIds(bytes(14)), AsnRows())
    yield from (*compiled_rules.grants, compiled_rules.records)
    yield from (Exemption([(1, 2)]), ScoreWindow(settings.score), Scorer(settings.score))
    yield from (Trackers(settings.trackers), Budget(1000))
    yield from (RateClasses(), SharedSlots(os.path.abspath(f"slots-{os.getpid()}"), content=b"probe", slots=2, room=64))
    context = TraceContext("1" * 32, "2" * 16, tracestate="a=1", baggage={"b": "c"})
    yield from (context, context.child(), TraceContext(None, None, sampled=True), FORKED_POOL)
    ids = RequestIds(bytes(14))
    core = GuardCore(
        engine, ids=ids, own_trust=None, names=None, has_observers=False, finishers=(), logs="none", binds=False
    )
    guard = HttpGuard(engine)
    exchange = Exchange(guard, [(b"host", b"a")], peer="192.0.2.1", method="GET", path="/")
    exchange.begin()
    yield from (core, guard, exchange, SendWrapper(print, exchange, open_lease=print))
    yield Exchange(guard, {"HTTP_HOST": "a"}, peer=None, method="GET", path="/")
    yield AsgiMiddleware(print, guard, handshake=lambda: None, head_app=print, send_response=print, open_lease=print)
    yield from (
        StartResponse(print, exchange),
        WsgiMiddleware(print, guard, head_app=print, handshake_of=print, send_response=print, watch=print),
    )


def say(**line: object) -> None:
    os.write(1, json.dumps(line).encode() + b"\n")


def first_items(item: Any) -> list[object]:
    return list(itertools.islice(iter(item), 100))


class Probe:
    """Attempts on one class; each is told before it is made."""

    def __init__(self, number: int, cls: type) -> None:
        self.number, self.cls, self.leaked = number, cls, []
        self.name = f"{cls.__module__}.{cls.__qualname__}"

    def attempt(self, what: str, call: Callable[[], object]) -> object:
        """What `call` gives, None for an exception. Tells of both when it is a way to make the class."""
        say(cls=self.name, number=self.number, what=what)
        try:
            signal.setitimer(signal.ITIMER_REAL, 2)
            found = call()
            signal.setitimer(signal.ITIMER_REAL, 0)
        except BaseException as error:  # noqa: BLE001 - SystemExit of a command is an answer, too
            signal.setitimer(signal.ITIMER_REAL, 0)
            if what.startswith("make "):
                with contextlib.suppress(Exception):
                    say(
                        cls=self.name, number=self.number, made=what[5:], error=f"{type(error).__name__}: {error}"[:300]
                    )
            return None
        if isinstance(found, types.CoroutineType):
            found.close()
        return found

    def poke(self, what: str, item: object, junk: tuple[Any, ...] = JUNK) -> None:
        """Every attribute, method and operation of an object, with no arguments and with ones that make no sense."""
        if item is None or isinstance(item, (int, str, bytes, float, tuple, list, dict)):
            return
        native = compiled(type(item))
        operations: dict[str, Callable[[], object]] = {
            name: functools.partial(operation, item)
            for name, operation in {
                "repr": repr, "len": len, "hash": hash, "bool": bool, "iterate": first_items, "bytes": bytes,
                "dir": dir, "buffer": lambda item: bytes(memoryview(item)), "equal": lambda item: item == item,  # noqa: PLR0124
                "less": lambda item: item < item, "format": "{:>9}".format, "weakref": weakref.ref,  # noqa: PLR0124
                "copy": copy.copy, "deepcopy": copy.deepcopy,
            }.items()
        }  # fmt: skip
        operations |= {f"pickle {p}": lambda p=p: pickle.loads(pickle.dumps(item, p)) for p in range(6)}  # noqa: S301
        operations |= {f"reduce {p}": lambda p=p: item.__reduce_ex__(p) for p in range(6)}
        for value in junk:
            operations |= {
                f"in {value!r:.30}": lambda value=value: value in item,
                f"item {value!r:.30}": lambda value=value: item[value],
                f"state {value!r:.30}": lambda value=value: item.__setstate__(value),
            }
        for name, operation in operations.items():
            self.attempt(f"{what}: {name}", operation)
        for name in [name for name in self.attempt(f"{what}: dir", lambda: dir(item)) or () if name not in SKIP]:
            found = self.attempt(f"{what}: .{name}", lambda name=name: getattr(item, name))
            own = any(name in vars(base) for base in type(item).__mro__ if base is not object)
            if not own or not callable(found) or isinstance(found, type):
                continue
            self.call(f"{what}: .{name}", found)
            for value in junk if native else ():
                self.call(f"{what}: .{name}", found, value)
                self.call(f"{what}: .{name}", found, HEADERS, value)
                self.call(f"{what}: .{name}", found, value, value, value)
            if native:
                for value in junk:
                    with contextlib.suppress(Exception):
                        names = list(inspect.signature(found).parameters.values())
                        options = {p.name: value for p in names if p.kind is p.KEYWORD_ONLY}
                        if options:
                            first = [value for p in names if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
                            self.call(f"{what}: .{name}", found, *first, **options)

    def call(self, what: str, call: Any, *values: object, **options: object) -> None:
        given = ", ".join(
            [f"{value!r:.30}" for value in values] + [f"{name}={value!r:.30}" for name, value in options.items()]
        )
        found = self.attempt(f"{what}({given})", lambda: call(*values, **options))
        if hasattr(type(found), "__next__"):
            self.attempt(f"{what}({given}), its items", lambda: first_items(found))

    def made(self) -> Iterator[tuple[str, object]]:
        """(way, object) of all that comes of trying to make the class."""
        cls = self.cls
        ways: dict[str, Callable[[], object]] = {
            "C()": cls, "C.__new__(C)": lambda: cls.__new__(cls), "object.__new__(C)": lambda: object.__new__(cls),
            "copyreg.__newobj__(C)": lambda: copyreg.__newobj__(cls),
            "copyreg._reconstructor": lambda: copyreg._reconstructor(cls, object, None),
            "type.__call__(C)": lambda: type.__call__(cls),
        }  # fmt: skip
        for base in cls.__mro__[1:]:
            ways[f"{base.__name__}.__new__(C)"] = lambda base=base: base.__new__(cls)
        for value in JUNK:
            ways[f"C({value!r:.30})"] = lambda value=value: cls(value)
        ways["C(everything)"] = lambda: cls(*JUNK)

        def keep(item: object) -> None:  # no built-in method, which would not get the object
            self.leaked.append(item)

        bodies: dict[str, dict[str, object]] = {
            "S": {}, "a silent __init__": {"__init__": lambda self, *_, **__: None}, "__del__": {"__del__": keep},
            "slots": {"__slots__": ()},
        }  # fmt: skip
        for below, names in bodies.items():
            sub = self.attempt(
                f"make {below}", lambda names=names: types.new_class("S", (cls,), {}, lambda n: n.update(names))
            )
            if sub is not None:
                ways[f"{below}: S()"] = sub
                ways[f"{below}: C.__new__(S)"] = lambda sub=sub: cls.__new__(sub)
                ways[f"{below}: object.__new__(S)"] = lambda sub=sub: object.__new__(sub)
                ways[f"{below}: S(junk)"] = lambda sub=sub: sub(object())
                ways[f"{below}: S(items that look around)"] = lambda sub=sub: sub(self.looks())
                ways[f"{below}: an object becomes S"] = lambda sub=sub: becomes(sub)
        ways["C(items that look around)"] = lambda: cls(self.looks())
        for way, call in ways.items():
            item = self.attempt(f"make {way}", call)
            if item is not None:
                yield way, item
        for item in self.leaked[:3]:
            yield "leaked", item

    def looks(self) -> Iterator[tuple[str, int]]:
        """Items that collect, while a constructor reads them, the objects that it has made so far."""
        yield ("192.0.2.0/24", 1)
        self.leaked += [item for item in gc.get_objects() if isinstance(item, self.cls)][:3]
        raise LookupError("half-way")


def becomes(cls: type) -> object:
    class Plain:
        pass

    item = Plain()
    item.__class__ = cls
    return item


def main(first: int) -> None:
    def ring(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, ring)
    warnings.simplefilter("ignore")
    sys.stdout = io.StringIO()  # what commands print
    everything = classes()
    whole = list(good())
    for number, cls in enumerate(everything[first:], first):
        probe = Probe(number, cls)
        native = compiled(cls)
        for count, (way, item) in enumerate(probe.made()):
            if count < 3 or (native and (count < 16 or way == "leaked")):
                probe.poke(way, item, JUNK if native and count < 2 else JUNK[:6])
        for item in whole:
            if type(item) is cls:
                probe.attempt("init again", lambda item=item: item.__init__())
                for value in JUNK:
                    probe.attempt(f"init again with {value!r:.30}", lambda item=item, value=value: item.__init__(value))
                probe.poke("a whole one", item)
        if native:
            for name, found in list(vars(cls).items()):
                for value in (None, object(), 1, cls):
                    probe.attempt(
                        f"descriptor {name} of {value!r:.20}",
                        lambda found=found, value=value: found.__get__(value, type(value)),
                    )
                    probe.attempt(f"function {name} of {value!r:.20}", lambda found=found, value=value: found(value))
        say(
            cls=probe.name,
            number=number,
            done=True,
            compiled=compiled(cls),
            whole=any(type(item) is cls for item in whole),
        )
    say(end=len(everything))
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
