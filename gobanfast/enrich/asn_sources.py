"""Public sources of origin ASes, asked for a network, never a client: RIPEstat, RDAP, Team Cymru's DNS."""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlencode

from gobanfast._errors import GobanError
from gobanfast.enrich.download import Call, DownloadError, Limits, download

ANSWER_BYTES = 1 << 20
HIGHEST = 0xFFFFFFFE
SOURCEAPP = "gobanfast"
RIPESTAT = "https://stat.ripe.net"
BOOTSTRAP = "https://data.iana.org/rdap"
ORIGIN4, ORIGIN6, NAMES = "origin.asn.cymru.com", "origin6.asn.cymru.com", "asn.cymru.com"


class SourceError(GobanError):
    """A source that gave no answer that can be used. `again`: seconds that it asks to wait."""

    def __init__(self, message: str, again: float | None = None) -> None:
        super().__init__(message)
        self.again = again


class UnknownError(SourceError):
    """A source that says that nobody announces the network, or that there is no such AS."""


@dataclass(frozen=True, slots=True)
class AsnAnswer:
    """What a source says of a network or an AS. `prefix` is None where an AS was asked about; `org` is its holder."""

    prefix: str | None
    asn: int
    org: str | None
    country: str | None
    source: str
    fetched_at: float
    handle: str | None = None


class Source(Protocol):
    """One source; `most` is how many questions it may have at a time."""

    name: str
    most: int

    async def of_network(self, network: str, now: float) -> AsnAnswer: ...
    async def of_asn(self, asn: int, now: float) -> AsnAnswer: ...


def network_of(address: str) -> str:
    """The /24 or /48 that is asked about in place of an address, as a prefix.

    Raises:
        ValueError: no address, or none of the public Internet.
    """
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    if not parsed.is_global or parsed.is_multicast:
        raise ValueError(f"address {address!r} is not global, so no source knows it")
    return str(ipaddress.ip_network((parsed, 24 if parsed.version == 4 else 48), strict=False))


async def fetch_json(url: str, *, private: bool, seconds: float) -> Any:
    """The JSON at a URL, by `download` in a thread, which ends when this is cancelled."""
    call = Call()
    limits = Limits(seconds, ANSWER_BYTES, private=private, insecure=private)
    headers = {"accept": "application/json, application/rdap+json"}
    waiting = asyncio.get_running_loop().run_in_executor(
        None, lambda: download(url, limits, headers=headers, call=call)
    )  # fmt: skip
    try:
        answer = await asyncio.shield(waiting)
    except asyncio.CancelledError:
        call.abort()
        waiting.add_done_callback(lambda done: done.exception())  # so that nobody is told of it
        raise
    except DownloadError as error:
        raise SourceError(str(error), error.again) from None
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError):
        raise SourceError(f"{url.partition('?')[0]}: answer is not JSON") from None


class RipeStat:
    """RIPEstat's data API: network-info for a network, as-overview and rir-stats-country for the rest."""

    name, most = "ripestat", 8  # concurrent questions that RIPE NCC allows an address

    def __init__(self, base: str = RIPESTAT, *, private: bool = False, seconds: float = 1.2) -> None:
        self._base, self._private, self._seconds = base.rstrip("/"), private, seconds

    async def of_network(self, network: str, now: float) -> AsnAnswer:
        """See `Source`."""
        data = await self._ask("network-info", network.partition("/")[0])
        asns, prefix = data.get("asns"), data.get("prefix")
        if not asns or not isinstance(asns, list):
            raise UnknownError(f"{self.name}: nobody announces {network}")
        asn = checked_asn(asns[0], self.name)
        answer = await self.of_asn(asn, now)
        return AsnAnswer(checked_prefix(prefix, network), asn, answer.org, answer.country, self.name, now)

    async def of_asn(self, asn: int, now: float) -> AsnAnswer:
        """See `Source`."""
        found: list[Any] = await asyncio.gather(
            self._ask("as-overview", f"AS{asn}"), self._ask("rir-stats-country", f"AS{asn}"), return_exceptions=True
        )
        overview, country = found
        if isinstance(overview, BaseException):
            raise overview
        place = None
        if isinstance(country, dict):
            located = country.get("located_resources")
            first = located[0] if isinstance(located, list) and located else None
            place = first.get("location") if isinstance(first, dict) else None
        return AsnAnswer(None, asn, checked_text(overview.get("holder")), checked_country(place), self.name, now)

    async def _ask(self, what: str, resource: str) -> dict[str, Any]:
        query = urlencode({"resource": resource, "sourceapp": SOURCEAPP})
        found = await fetch_json(
            f"{self._base}/data/{what}/data.json?{query}", private=self._private, seconds=self._seconds
        )
        data = found.get("data") if isinstance(found, dict) else None
        if not isinstance(data, dict):
            raise SourceError(f"{self.name}: {what} has no data")
        return data


class Rdap:
    """RDAP of the registry that the IANA's bootstrap files name: who holds a network or an AS.

    Of a network it says the AS only where the registry adds it (ARIN does); else it is no answer.
    """

    name, most = "rdap", 4

    def __init__(self, bootstrap: str = BOOTSTRAP, *, private: bool = False, seconds: float = 1.2) -> None:
        self._bootstrap, self._private, self._seconds = bootstrap.rstrip("/"), private, seconds
        self._files: dict[str, tuple[float, list[Any]]] = {}

    async def of_network(self, network: str, now: float) -> AsnAnswer:
        """See `Source`."""
        parsed = ipaddress.ip_network(network)
        base = await self._base("ipv4" if parsed.version == 4 else "ipv6", now, lambda text: _covers(text, parsed))
        found = await fetch_json(f"{base}/ip/{parsed.network_address}", private=self._private, seconds=self._seconds)
        origins = found.get("arin_originas0_originautnums") if isinstance(found, dict) else None
        if not origins or not isinstance(origins, list):
            raise SourceError(f"{self.name}: the registry does not say who announces {network}")
        prefix = None
        for cidr in found.get("cidr0_cidrs") or ():
            if isinstance(cidr, dict) and isinstance(cidr.get("length"), int):
                prefix = f"{cidr.get('v4prefix') or cidr.get('v6prefix')}/{cidr['length']}"
                break
        asn = checked_asn(origins[0], self.name)
        return AsnAnswer(
            checked_prefix(prefix, network), asn, checked_text(_holder(found) or found.get("name")),
            checked_country(found.get("country")), self.name, now, checked_text(found.get("handle")),
        )  # fmt: skip

    async def of_asn(self, asn: int, now: float) -> AsnAnswer:
        """See `Source`."""
        base = await self._base("asn", now, lambda text: _in_range(text, asn))
        found = await fetch_json(f"{base}/autnum/{asn}", private=self._private, seconds=self._seconds)
        if not isinstance(found, dict) or found.get("objectClassName") not in {None, "autnum"}:
            raise SourceError(f"{self.name}: AS{asn} is no autnum there")
        return AsnAnswer(
            None, asn, checked_text(_holder(found) or found.get("name")), checked_country(found.get("country")),
            self.name, now, checked_text(found.get("handle")),
        )  # fmt: skip

    async def _base(self, kind: str, now: float, fits: Any) -> str:
        kept = self._files.get(kind)
        if kept is None or now - kept[0] > 86400.0:
            found = await fetch_json(f"{self._bootstrap}/{kind}.json", private=self._private, seconds=self._seconds)
            services = found.get("services") if isinstance(found, dict) else None
            if not isinstance(services, list):
                raise SourceError(f"{self.name}: bootstrap {kind} has no services")
            kept = self._files[kind] = (now, services)
        schemes = ("https:", "http:") if self._private else ("https:",)
        for service in kept[1]:
            keys, urls = service if isinstance(service, list) and len(service) == 2 else ((), ())
            if any(isinstance(key, str) and fits(key) for key in keys):
                secure = [url for url in urls if isinstance(url, str) and url.startswith(schemes)]
                if secure:
                    return str(secure[0]).rstrip("/")
        raise SourceError(f"{self.name}: no registry has it")


class Cymru:
    """Team Cymru's zones in DNS, through the system's resolver or the one given (needs dnspython, extra `enrich`)."""

    name, most = "cymru", 16

    def __init__(self, server: tuple[str, int] | None = None, *, seconds: float = 1.2) -> None:
        self._server, self._seconds = server, seconds
        self._resolver: Any = None

    async def of_network(self, network: str, now: float) -> AsnAnswer:
        """See `Source`."""
        parsed = ipaddress.ip_network(network)
        text = parsed.network_address.reverse_pointer
        zone = ORIGIN4 if parsed.version == 4 else ORIGIN6
        fields = await self._ask(f"{text.removesuffix('.in-addr.arpa').removesuffix('.ip6.arpa')}.{zone}")
        if len(fields) < 3:
            raise SourceError(f"{self.name}: answer about {network} has {len(fields)} fields")
        asn = checked_asn(fields[0].split(" ")[0], self.name)
        try:
            org = (await self.of_asn(asn, now)).org
        except SourceError:
            org = None
        return AsnAnswer(checked_prefix(fields[1], network), asn, org, checked_country(fields[2]), self.name, now)

    async def of_asn(self, asn: int, now: float) -> AsnAnswer:
        """See `Source`."""
        fields = await self._ask(f"AS{asn}.{NAMES}")
        if len(fields) < 5 or checked_asn(fields[0], self.name) != asn:
            raise SourceError(f"{self.name}: answer about AS{asn} is about another")
        return AsnAnswer(None, asn, checked_text(fields[4]), checked_country(fields[1]), self.name, now)

    async def _ask(self, name: str) -> list[str]:
        try:
            import dns.asyncresolver
            import dns.exception
            import dns.resolver
        except ImportError:
            raise SourceError(f"{self.name}: DNS needs dnspython: pip install 'gobanfast[enrich]'") from None
        if self._resolver is None:
            self._resolver = dns.asyncresolver.Resolver(configure=self._server is None)
            if self._server is not None:
                self._resolver.nameservers, self._resolver.port = [self._server[0]], self._server[1]
        try:
            found = await self._resolver.resolve(name, "TXT", lifetime=self._seconds, search=False)
            texts = sorted(b"".join(record.strings).decode("utf-8", "replace") for record in found)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            raise UnknownError(f"{self.name}: knows nothing of {name}") from None
        except (dns.exception.DNSException, OSError) as error:
            raise SourceError(f"{self.name}: {str(error)[:120] or type(error).__name__}") from None
        return [field.strip() for field in texts[0].split("|")]


# ---- nothing that a source says is trusted


def checked_asn(value: Any, source: str) -> int:
    """An AS number. SourceError for anything else, as 0."""
    text = str(value).upper().removeprefix("AS")
    if isinstance(value, bool) or not text.isdigit() or len(text) > 10 or not 0 < int(text) <= HIGHEST:
        raise SourceError(f"{source}: {str(value)[:40]!r} is no AS number")
    return int(text)


def checked_prefix(value: Any, network: str) -> str:
    """The prefix, if it covers the network that was asked about and is no default route; else that network."""
    try:
        found, asked = ipaddress.ip_network(str(value)), ipaddress.ip_network(network)
        covers = found.version == asked.version and asked.subnet_of(found)  # type: ignore[arg-type]
    except (ValueError, TypeError):
        return network
    return str(found) if covers and found.prefixlen >= 8 else network


def checked_text(value: Any) -> str | None:
    """A name: printable text of up to 200 characters, or None."""
    if not isinstance(value, str):
        return None
    text = " ".join("".join(char if char.isprintable() else " " for char in value).split())[:200]
    return text or None


def checked_country(value: Any) -> str | None:
    """Two letters, in upper case, or None."""
    return value.upper() if isinstance(value, str) and len(value) == 2 and value.isascii() and value.isalpha() else None


def _covers(text: str, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    try:
        found = ipaddress.ip_network(text)
        return found.version == network.version and network.subnet_of(found)  # type: ignore[arg-type]
    except ValueError:
        return False


def _in_range(text: str, asn: int) -> bool:
    first, _, last = text.partition("-")
    return first.isdigit() and (last or first).isdigit() and int(first) <= asn <= int(last or first)


def _holder(found: Mapping[str, Any]) -> str | None:
    """The name on the card of the registrant."""
    for entity in found.get("entities") or ():
        if not isinstance(entity, dict) or "registrant" not in (entity.get("roles") or ()):
            continue
        card = entity.get("vcardArray")
        for field in card[1] if isinstance(card, list) and len(card) == 2 and isinstance(card[1], list) else ():
            if isinstance(field, list) and len(field) == 4 and field[0] == "fn" and isinstance(field[3], str):
                return field[3]
    return None
