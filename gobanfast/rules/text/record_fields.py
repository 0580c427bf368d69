"""Values of record rules and of the section `trace:`: outcomes, rates, propagators."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import PlainValidator

from gobanfast._core.enums import OUTCOMES
from gobanfast._core.trace_carriers import PROPAGATORS
from gobanfast.rules.text.fields import OneOrMany, one_of, schema, text_of, validator

_CLASS = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_PERCENT = re.compile(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*%")
_HOST = re.compile(r"(\*{1,2}\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*", re.ASCII)


def class_name(value: Any) -> str:
    text = text_of("class", value)
    if not _CLASS.fullmatch(text):
        raise ValueError(f"class '{text[:80]}' is not valid; use 1 to 64 of A-Z a-z 0-9 _ . : -")
    return text


def fraction(name: str, low: float = 0) -> Any:
    """Validator of a part of all: 1%, or 0.01."""

    def parse(value: Any) -> float:
        shown = f"'{value[:40]}'" if isinstance(value, str) else str(value)
        found = _PERCENT.fullmatch(value.strip()) if isinstance(value, str) else None
        number = float(found[1]) / 100 if found else value
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not low <= number <= 1:
            raise ValueError(
                f"{name} {shown} is out of range; write 0% to 100%, or a number from {low:g} to 1: 1%, 0.01"
            )
        return float(number)

    return PlainValidator(validator(parse))


def per_second(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 1 / 60 <= value <= 1e6:
        raise ValueError(
            f"per_second {str(value)[:40]!r} is out of range; write traces a second, 1/60 (0.0167) to 1000000"
        )
    return float(value)


def propagators(value: Any) -> tuple[str, ...]:
    given = value if isinstance(value, list) else [value]
    for name in given:
        if name not in PROPAGATORS:
            raise ValueError(f"propagator {str(name)[:40]!r} is not known; write {', '.join(PROPAGATORS)}")
    if len(set(given)) != len(given):
        raise ValueError("a propagator is listed twice; remove one")
    if not given:
        raise ValueError(f"propagators is empty; write some of {', '.join(PROPAGATORS)}, or remove it")
    return tuple(given)


def internal_host(value: Any) -> str:
    text = text_of("host", value).lower()
    if not _HOST.fullmatch(text):
        raise ValueError(f"host '{text[:80]}' is no name; write cart.example.com, or **.internal for all below it")
    return text


Outcomes = Annotated[
    list[Annotated[str, PlainValidator(validator(one_of("outcome", OUTCOMES)))]],
    OneOrMany,
    schema("what became of the request", {"enum": list(OUTCOMES)}),
]
ClassName = Annotated[str, PlainValidator(validator(class_name)), schema("name of the rate class", many=False)]
Probability = Annotated[float | None, fraction("probability"), schema("part of all traces: 1%, or 0.01", many=False)]
RateWeight = Annotated[float | None, fraction("weight"), schema("of the class in the SLA formula, 0 to 1", many=False)]
Over = Annotated[float | None, fraction("over"), schema("error rate from which on more is kept: 5%", many=False)]
Cap = Annotated[float | None, fraction("cap"), schema("the most that is kept meanwhile", many=False)]
PerSecond = Annotated[
    float | None, PlainValidator(validator(per_second)), schema("kept traces a second on one host", many=False)
]
Propagators = Annotated[
    tuple[str, ...],
    PlainValidator(validator(propagators)),
    schema("which headers carry a trace, in the order in which they are read", {"enum": list(PROPAGATORS)}),
]
InternalHosts = Annotated[
    list[Annotated[str, PlainValidator(validator(internal_host))]],
    OneOrMany,
    schema("hosts of one's own, which get baggage: **.internal"),
]
