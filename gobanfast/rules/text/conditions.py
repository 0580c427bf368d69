"""Pydantic models of conditions: what a set lists, and what `when:` and `not:` take."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from gobanfast.rules.rule import Conditions, HeaderTest, Mode, NameList, NamePattern, PrefixList
from gobanfast.rules.text.feeds_schema import is_unfetched
from gobanfast.rules.text.fields import (
    AsnRanges,
    Echs,
    Ja4Prefixes,
    Ja4s,
    Model,
    NameLists,
    Prefixes,
    PrefixLists,
    Protocols,
    Regexes,
    Snis,
    TlsVersion,
)
from gobanfast.rules.text.record_fields import Outcomes
from gobanfast.rules.text.request_fields import (
    Crawlers,
    Families,
    Fingerprints,
    HeaderTexts,
    Lookalikes,
    Methods,
    Path,
    Shapes,
    SniHosts,
    non_empty,
)
from gobanfast.rules.text.session_fields import LabelWords, SessionWords
from gobanfast.rules.text.settings_schema import model_error
from gobanfast.rules.text.share_fields import FetchDests, FetchModes, FetchSites, Hosts, Origins


def condition(value: Any) -> Any:
    """`any` is a `When` without conditions; a mapping must have one."""
    return _condition(value, When)


def record_condition(value: Any) -> Any:
    """The same for a record rule."""
    return _condition(value, RecordWhen)


def _condition(value: Any, model: type[When]) -> Any:
    if value == "any":
        return model.model_construct()
    if value in ({}, None):
        raise PydanticCustomError(
            "value", "{text}", {"text": "when has no condition; write 'when: any' to match everything"}
        )
    return value


def packed(written: Iterable[tuple[bytes, int] | PrefixList]) -> PrefixList:
    """Prefixes that were written one by one, and those of feeds."""
    written = list(written)
    feeds = [item for item in written if isinstance(item, PrefixList)]
    prefixes = [item for item in written if not isinstance(item, PrefixList)]
    if feeds:
        return joined([packed(prefixes), *feeds])
    return PrefixList(b"".join(address for address, _ in prefixes), bytes(bits for _, bits in prefixes))


def joined(lists: Iterable[PrefixList]) -> PrefixList:
    """All prefixes of several lists."""
    lists = list(lists)
    return PrefixList(b"".join(item.addresses for item in lists), b"".join(item.lengths for item in lists))


class SetModel(Model):
    """One entry of `sets:`; `@name` under a condition stands for what the set lists under the same key.

    `outside` and `outside_file` take the prefixes and files of a set."""

    prefix: Prefixes = Field(default_factory=list)
    prefix_file: PrefixLists = Field(default_factory=list)
    asn: AsnRanges = Field(default_factory=list)
    asn_name: Regexes = Field(default_factory=list)
    sni: Snis = Field(default_factory=list)
    sni_file: NameLists = Field(default_factory=list)
    ja4: Ja4s = Field(default_factory=list)
    ja4_prefix: Ja4Prefixes = Field(default_factory=list)
    alpn: Protocols = Field(default_factory=list)
    lookalike: Lookalikes = Field(default_factory=list)
    origin: Origins = Field(default_factory=list)
    host: Hosts = Field(default_factory=list)


class Tests(Model):
    """Conditions that may stand under `when:` and under `not:`, besides those that only a set may list."""

    header: Annotated[HeaderTexts, BeforeValidator(non_empty)] = Field(default_factory=dict)
    ua_family: Families = Field(default_factory=list)
    crawler: Crawlers = Field(default_factory=list)
    fingerprint: Fingerprints = Field(default_factory=list)
    shape: Shapes = Field(default_factory=list)
    method: Methods = Field(default_factory=list)
    path: Path | None = None
    sni_host: SniHosts = Field(default_factory=list)
    fetch_site: FetchSites = Field(default_factory=list)
    fetch_mode: FetchModes = Field(default_factory=list)
    fetch_dest: FetchDests = Field(default_factory=list)
    cross_origin_write: bool | None = Field(
        default=None, description="a request that may change something, of a page of another origin"
    )
    label: LabelWords = Field(default_factory=list)
    session: SessionWords = Field(default_factory=list)


class Not(Tests):
    """`not:`: conditions none of which may hold."""

    prefix: Prefixes = Field(default_factory=list)
    prefix_file: PrefixLists = Field(default_factory=list)
    asn: AsnRanges = Field(default_factory=list)
    asn_name: Regexes = Field(default_factory=list)
    lookalike: Lookalikes = Field(default_factory=list)
    origin: Origins = Field(default_factory=list)
    host: Hosts = Field(default_factory=list)

    @model_validator(mode="after")
    def can_be_negated(self) -> Not:
        if not self.model_fields_set:
            raise model_error("not has no condition; write one, or remove it")
        if len(self.header) > 1:
            names = ", ".join(self.header)
            text = f"not has one condition on {names} together, which has no negation"
            raise model_error(f"{text}; write a rule for each")
        if not all(len(item) or is_unfetched([item]) for item in self.prefix_file):
            raise model_error(
                "a file under not: prefix_file has no prefixes, so it leaves nothing out; fill or remove it"
            )
        return self

    def conditions(self, names: tuple[str, ...]) -> Conditions:
        return conditions_of(self, names)


class When(SetModel, Tests):
    """The conditions of a rule; all must hold. Those that a set may list, and more."""

    outside: Prefixes = Field(default_factory=list)
    outside_file: PrefixLists = Field(default_factory=list)
    tls_version_below: TlsVersion = None
    ech: Echs = Field(default_factory=list)
    negated: Not | None = Field(default=None, alias="not")

    @model_validator(mode="after")
    def outside_has_prefixes(self) -> When:
        if not all(len(item) or is_unfetched([item]) for item in self.outside_file):
            raise model_error(
                "a file under outside_file has no prefixes, so all addresses are outside; fill or remove it"
            )
        return self

    def mode(self, written: Mode) -> Mode:
        """That of the rule: off while it asks what is not in a feed that was not fetched yet, which nobody knows."""
        values: list[Any] = [*self.outside, *self.outside_file]
        if self.negated is not None:
            values += [*self.negated.prefix, *self.negated.prefix_file, *self.negated.asn]
        return "off" if is_unfetched(values) else written

    def conditions(self, names: tuple[str, ...]) -> Conditions:
        return replace(
            conditions_of(self, names),
            outside=packed(self.outside) if self.outside else None,
            outside_file=joined(self.outside_file) if self.outside_file else None,
            sni=tuple(self.sni) or None,
            sni_file=NameList("\n".join(item.text for item in self.sni_file if item.text)) if self.sni_file else None,
            ja4=tuple(self.ja4) or None,
            ja4_prefix=tuple(self.ja4_prefix) or None,
            alpn=tuple(self.alpn) or None,
            tls_version_below=self.tls_version_below,
            ech=tuple(self.ech) or None,
            negated=None if self.negated is None else self.negated.conditions(names),
        )


class RecordWhen(When):
    """The conditions of a record rule."""

    outcome: Outcomes = Field(default_factory=list)

    def conditions(self, names: tuple[str, ...]) -> Conditions:
        return replace(super().conditions(names), outcome=tuple(self.outcome) or None)  # type: ignore[arg-type]  # its validator knows them


def conditions_of(text: When | Not, names: tuple[str, ...]) -> Conditions:
    """What may stand under `not:`, too."""
    return Conditions(
        prefix=packed(text.prefix) if text.prefix else None,
        prefix_file=joined(text.prefix_file) if text.prefix_file else None,
        asn=tuple(text.asn) or None,
        asn_name=tuple(NamePattern(pattern) for pattern in text.asn_name) or None,
        header=_header_tests(text) or None,
        fingerprint=tuple(text.fingerprint) or None,
        shape=tuple(text.shape) or None,
        method=tuple(text.method) or None,
        path=None if text.path is None else tuple(text.path.tests(":path")),
        lookalike=tuple(text.lookalike) or None,
        sni_host=tuple(text.sni_host) or None,
        names=names or None if text.sni_host else None,
        origin=tuple(text.origin) or None,
        host=tuple(text.host) or None,
        fetch_site=tuple(text.fetch_site) or None,
        fetch_mode=tuple(text.fetch_mode) or None,
        fetch_dest=tuple(text.fetch_dest) or None,
        cross_origin_write=text.cross_origin_write,
        label=tuple(text.label) or None,
        session=tuple(text.session) or None,
    )


def _header_tests(text: Tests) -> tuple[HeaderTest, ...]:
    tests = [test for name, asked in text.header.items() for test in asked.tests(name)]
    if text.ua_family:
        tests.append(HeaderTest("user-agent", "family", tuple(text.ua_family)))
    if text.crawler:
        tests.append(HeaderTest("user-agent", "crawler", tuple(text.crawler)))
    return tuple(tests)
