"""Frozen data classes without the import cost of `dataclasses`, for the classes that a first decision needs.

Importing `dataclasses`, and the text it compiles for every class, take longer than all else that loads compiled rules.
These classes share general methods instead; they are frozen, and no data class is above them. What the standard library
does with its own (fields, replace, asdict, signatures in help) it does with them, and is imported when it is asked to.
"""

from __future__ import annotations

from functools import cache

__all__ = ["dataclass"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(*, frozen, slots=False, eq=True, repr=True):  # noqa: A002 - the words of the standard library
        """As `dataclasses.dataclass`."""
        if not frozen:
            raise TypeError("a data class is frozen here")
        return lambda plain: _made(plain, slots=slots, eq=eq, shown=repr)

    def _made(plain, *, slots, eq, shown):
        names = tuple(plain.__annotations__)
        defaults = {name: vars(plain)[name] for name in names if name in vars(plain)}
        known = frozenset(names)

        @cache
        def standard():
            from dataclasses import MISSING, field, make_dataclass

            given = [(name, plain.__annotations__[name], field(default=defaults.get(name, MISSING))) for name in names]
            return make_dataclass(plain.__name__, given, frozen=True, slots=slots, eq=eq, repr=shown)

        def init(self, /, *given, **named):
            if named or len(given) != len(names):
                values = {**defaults, **dict(zip(names, given, strict=False)), **named}
                if (
                    values.keys() != known
                    or len(given) > len(names)
                    or not named.keys().isdisjoint(names[: len(given)])
                ):
                    standard()(*given, **named)  # raises TypeError, in its words
                given = [values[name] for name in names]
            for put, value in zip(puts, given, strict=True):
                put(self, value)

        def values_of(self):
            return tuple([getattr(self, name) for name in names])

        def frozen(_, name, *_value):
            from dataclasses import FrozenInstanceError

            raise FrozenInstanceError(f"cannot assign to field {name!r}")

        def equal(self, other):
            return values_of(self) == values_of(other) if other.__class__ is self.__class__ else NotImplemented

        def show(self):
            return f"{self.__class__.__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"

        methods = {"__init__": init, "__setattr__": frozen, "__delattr__": frozen, "__match_args__": names}
        if eq:
            methods |= {"__eq__": equal, "__hash__": lambda self: hash(values_of(self))}
        if shown:
            methods["__repr__"] = show
        if slots:
            methods |= {"__slots__": names, "__reduce__": lambda self: (made, values_of(self))}
        for name in ("__dataclass_fields__", "__dataclass_params__", "__signature__"):
            methods[name] = _Standard(name, standard)
        own = {name: value for name, value in vars(plain).items() if name not in {"__dict__", "__weakref__", *defaults}}
        made = type(plain)(plain.__name__, plain.__bases__, methods | own)
        made.__qualname__ = plain.__qualname__
        puts = [vars(made)[name].__set__ if slots else _put(name) for name in names]
        return made

    def _put(name):
        return lambda self, value: object.__setattr__(self, name, value)

    class _Standard:
        """An attribute of the class that the standard library makes of the same fields."""

        def __init__(self, name, standard):
            self._name, self._standard = name, standard

        def __get__(self, *_):
            if self._name == "__signature__":
                from inspect import signature

                return signature(self._standard())
            return getattr(self._standard(), self._name)
