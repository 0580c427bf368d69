"""Differences between two rulesets, rule by rule and setting by setting."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any

from gobanfast._values import duration_text
from gobanfast.rules.rule import Conditions, Grant, HeaderTest, NameList, PrefixList, Rate, Rule

if TYPE_CHECKING:
    from gobanfast.rules.ruleset import Ruleset

_DURATIONS = ("duration", "window", "baseline", "memory", "cap")
_FACTS = ("effect", "action", "mode", "duration", "key", "priority", "reason", "weigh")
_SHOWN = 3  # entries of a list that are named


@dataclass(frozen=True, slots=True)
class Change:
    """One rule, or one other part of the file, that differs: `what` is added, removed or changed."""

    what: str
    name: str
    details: tuple[str, ...] = ()


def changes(old: Ruleset, new: Ruleset) -> Iterator[Change]:
    """Rules by id, in decision order of the new ruleset, then removed ones, then what is not a rule.

    Cost: sets of all entries of lists that differ.
    """
    before = {rule.id: rule for rule in old.rules}
    after = {rule.id: rule for rule in new.rules}
    for rule in new.rules:
        if rule.id not in before:
            yield Change("added", rule.id, (f"{rule.action} at {rule.source}:{rule.line}",))
        elif details := tuple(_of_rule(before[rule.id], rule)):
            yield Change("changed", rule.id, details)
    for rule in old.rules:
        if rule.id not in after:
            yield Change("removed", rule.id, (f"{rule.action} at {rule.source}:{rule.line}",))
    common_old = [rule.id for rule in old.rules if rule.id in after]
    common_new = [rule.id for rule in new.rules if rule.id in before]
    if common_old != common_new:
        yield Change("changed", "order of rules", (f"{', '.join(common_old)} -> {', '.join(common_new)}",))
    if old.unparsable != new.unparsable:
        yield Change("changed", "unparsable", (f"{old.unparsable} -> {new.unparsable}",))
    if details := tuple(_of_lists("trust", old.trust, new.trust)):
        yield Change("changed", "trust", details)
    for field in fields(new.settings):
        was, now = getattr(old.settings, field.name), getattr(new.settings, field.name)
        if was != now:
            yield Change("changed", field.name, tuple(_of_settings("", was, now)))


def touched(old: Ruleset, new: Ruleset) -> list[Rule]:
    """Rules of either that are not, or decide otherwise, in the other one; both forms of a changed rule."""
    before = {rule.id: rule for rule in old.rules}
    after = {rule.id: rule for rule in new.rules}
    common_old = [rule.id for rule in old.rules if rule.id in after]
    moved = common_old != [rule.id for rule in new.rules if rule.id in before]

    def same(rule: Rule, other: Rule | None) -> bool:
        return other is not None and not moved and all(text.startswith("reason ") for text in _of_rule(rule, other))

    return [rule for rule in old.rules if not same(rule, after.get(rule.id))] + [
        rule for rule in new.rules if not same(rule, before.get(rule.id))
    ]


def _of_rule(old: Rule, new: Rule) -> Iterator[str]:
    for name in _FACTS:
        was, now = getattr(old, name), getattr(new, name)
        if was == now:
            continue
        if name == "duration":
            was, now = (_lasts(rule) for rule in (old, new))
        yield f"{name} {was} -> {now}"
    yield from _of_conditions("", old.when, new.when)
    yield from _of_grants(old.grant, new.grant)
    yield from _of_rates(old.rate, new.rate)


def _of_conditions(place: str, old: Conditions, new: Conditions) -> Iterator[str]:
    for field in fields(Conditions):
        was, now = getattr(old, field.name), getattr(new, field.name)
        if field.name == "negated":
            if was != now:
                yield from _of_conditions("not ", was or Conditions(), now or Conditions())
        else:
            yield from _of_lists(place + field.name, was, now)


def _of_grants(old: Grant | None, new: Grant | None) -> Iterator[str]:
    """What one grants and the other does not; nothing where one of them is no grant, which its action says."""
    if old is None or new is None:
        return
    for field in fields(Grant):
        was, now = getattr(old, field.name), getattr(new, field.name)
        if isinstance(was, tuple):
            yield from _of_lists(field.name, was, now)
        elif was != now:
            yield f"{field.name} {_granted(was)} -> {_granted(now)}"


def _of_rates(old: Rate | None, new: Rate | None) -> Iterator[str]:
    """The same of rates."""
    if old is None or new is None:
        return
    for field in fields(Rate):
        was, now = getattr(old, field.name), getattr(new, field.name)
        if was != now:
            shown = (
                "none" if value is None else f"{value:g}" if isinstance(value, float) else value for value in (was, now)
            )
            yield f"{'class' if field.name == 'name' else field.name} {' -> '.join(shown)}"


def _granted(value: bool | int | str | None) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return "the browser's"
    return str(value).lower() if isinstance(value, bool) else duration_text(value)


def _lasts(rule: Rule) -> str:
    """How long what a rule does lasts; without a duration a ban is for good, and others have none."""
    return "none" if rule.duration is None and rule.action != "ban" else duration_text(rule.duration)


def _of_settings(place: str, old: Any, new: Any) -> Iterator[str]:
    """Each setting that differs, in words: "request_rate.limit 50 -> 60"."""
    name = place.rpartition(".")[2]
    if name == "key":
        yield f"{place} differs"  # it is a secret
    elif old is None or new is None:
        absent = "permanent" if name == "duration" else "off"
        shown = (absent if value is None else "on" if is_dataclass(value) else _setting(name, value)
                 for value in (old, new))  # fmt: skip
        yield " -> ".join(shown) if not place else f"{place} {' -> '.join(shown)}"
    elif isinstance(old, PrefixList):
        yield from _of_lists(place, old, new)
    elif is_dataclass(old):
        for field in fields(old):
            was, now = getattr(old, field.name), getattr(new, field.name)
            if was != now:
                yield from _of_settings(f"{place}.{field.name}".strip("."), was, now)
    else:
        yield f"{place} {_setting(name, old)} -> {_setting(name, new)}"


def _setting(name: str, value: Any) -> str:
    if name in _DURATIONS and isinstance(value, (int, float)):
        return duration_text(value)
    return ", ".join(map(_text, value)) if isinstance(value, tuple) else str(value)


def _of_lists(name: str, old: Any, new: Any) -> Iterator[str]:
    if old is new or (type(old) is type(new) and old == new):
        return
    was, now = _entries(old), _entries(new)
    if was == now:
        return
    for sign, entries in (("+", now - was), ("-", was - now)):
        if entries:
            shown = ", ".join(sorted(map(_text, entries))[:_SHOWN])
            more = f" and {len(entries) - _SHOWN} more" if len(entries) > _SHOWN else ""
            yield f"{name} {sign}{shown}{more}"


def _entries(value: Any) -> set[Any]:
    if value is None:
        return set()
    if isinstance(value, PrefixList):
        addresses, lengths = value.addresses, value.lengths
        return {(addresses[16 * row : 16 * row + 16], bits) for row, bits in enumerate(lengths)}
    if isinstance(value, (tuple, NameList)):
        return set(value)
    return {value}


def _text(entry: Any) -> str:
    from gobanfast._core.address import format_address

    if isinstance(entry, tuple) and isinstance(entry[0], bytes):
        address = format_address(entry[0])
        return f"{address}/{entry[1] if ':' in address else entry[1] - 96}"
    if isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[0], int):
        return f"AS{entry[0]}" if entry[0] == entry[1] else f"AS{entry[0]}-{entry[1]}"
    if isinstance(entry, HeaderTest):
        return _test(entry)
    return str(getattr(entry, "regex", entry))


def _test(test: HeaderTest) -> str:
    """A test on a header or the path, as people write it."""
    name = test.name.removeprefix(":")
    texts = ", ".join((*test.values, *test.words))
    return f"{name}: {texts}" if test.operator == "equals" else f"{name} {test.operator}: {texts}"
