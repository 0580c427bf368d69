"""`Literal` of `typing`, as far as rules need it: importing that takes a tenth of a first decision."""

from __future__ import annotations

__all__ = ["Literal"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal
else:

    class Words(tuple):
        """The values that a Literal lists."""

        __slots__ = ()

        def __get_pydantic_core_schema__(self, *_):
            from pydantic_core.core_schema import literal_schema

            return literal_schema(list(self))

    class Literal:
        """`Literal["a", "b"]` is the Words "a" and "b"."""

        def __class_getitem__(cls, values):
            return Words(values if isinstance(values, tuple) else (values,))
