"""Client address behind trusted proxies (X-Forwarded-For, Forwarded, single-address headers).

Only a peer in `trust` is asked for more than its own address. The chain it names is walked from the right, because each
proxy appends what it saw: hops in `trust` are passed over, the first other one is the client, and whatever stands left
of it was written by the client. What cannot be read where the walk arrives is no address: the rules' `unparsable`
policy answers then. So it does for a request without a chain where one is `required`; elsewhere that is
the peer's own request, such as a load balancer's probe, and the peer is the client.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from gobanfast._core.address import parse_prefix
from gobanfast._core.exchange import RequestIds, select_headers
from gobanfast._core.prefix_set import PrefixSet
from gobanfast._core.prefix_table import PrefixTable
from gobanfast.wire.forwarded import SCHEMES, Hop, near_client, read_for, read_forwarded, read_node, scheme_of

if TYPE_CHECKING:
    from gobanfast.rules import Ruleset

Status = Literal["ok", "trusted", "unknown", "missing", "malformed", "conflict", "too-many-hops"]
Headers = Iterable[tuple[bytes, bytes]]

CHAINS = ("x-forwarded-for", "forwarded")
SIGNALS = ("ja3", "ja4", "sni")
REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~:/+=@-]{0,127}", re.ASCII)
FIELD_NAME = re.compile(r"[a-z0-9!#$%&'*+.^`|~-]+", re.ASCII)  # as it is compared: lower case, and no underscore
NOTHING: Mapping[str, str] = MappingProxyType({})
UNKNOWN: tuple[None, Status, None, None, int] = (None, "unknown", None, None, 0)


class ClientInfo(NamedTuple):
    """Where a request comes from, on the word of trusted peers.

    `status` says what `address` is: "ok", the client's address; "trusted", the peer's for a request of the peer itself,
    None where all hops of a chain are trusted; "unknown", None, where a proxy does not say (`unknown`, an obfuscated
    name, no `single` header); "missing", "malformed", "conflict" and "too-many-hops", a text that is no address, which
    the engine answers by its `unparsable` policy.
    `scheme` and `request_id` are None unless a trusted peer gave a valid one; `signals` and `host` hold what was opted
    in to.
    """

    address: str | None
    status: Status = "ok"
    port: int | None = None
    scheme: str | None = None
    request_id: str | None = None
    hops: int = 0
    signals: Mapping[str, str] = NOTHING
    host: str | None = None


class Snapshot(Protocol):
    """What `trust_from_rules` needs of an engine's snapshot."""

    @property
    def ruleset(self) -> Any: ...
    @property
    def trust(self) -> Any: ...
    def keep_trust(self, trust: Trust, /) -> Trust: ...


class Trust:
    """The peers whose forwarding headers are trusted, and which headers.

    Args:
        peers: prefixes of the proxies, or a PrefixSet; "unix" stands for every peer on a UNIX socket.
        chain: the headers that these proxies write or remove, of "x-forwarded-for" and "forwarded". Name both only if
            they handle both: a header that a proxy passes on untouched is the client's own. Where both are sent and
            name different clients, neither is trusted (status "conflict").
        single: header -> prefixes of the peers that put the client's address in it ("cf-connecting-ip"); such a peer's
            chain is not looked at.
        signals: "ja3", "ja4" or "sni" -> the header in which these proxies report it.
        max_hops: trusted hops that are passed over at most.
        host: the header in which these proxies write the host that the client asked for ("x-forwarded-host"); each must
            write it itself, because a client can send it. None: Host, as it arrives here.
        required: whether these proxies must send a chain (or their `single` header) each time: True makes one that
            is absent or empty `unparsable`, False the peer's own request. None: True under WSGI, whose servers may drop
            a header that is not ASCII (granian does), else False.
    Attributes:
        peers, unix: as given.
        fields: the headers that are read, lower-case name as bytes -> as text.
    Raises:
        ValueError: a peer or header that is none, or `*`.
    """

    __slots__ = (
        "_chain",
        "_host",
        "_max_hops",
        "_plain",
        "_signals",
        "_single",
        "fields",
        "peers",
        "required",
        "unix",
    )

    def __init__(
        self,
        peers: Iterable[str] = (),
        *,
        chain: Sequence[str] = CHAINS[:1],
        single: Mapping[str, Iterable[str]] = NOTHING,
        signals: Mapping[str, str] = NOTHING,
        max_hops: int = 16,
        host: str | None = None,
        required: bool | None = None,
    ) -> None:
        peers = as_list("trust", peers)
        chain = as_list("chain", chain)
        self.unix = "unix" in peers
        prefixes = parse_prefixes(peer for peer in peers if peer != "unix")
        owners = {field_name(name): parse_prefixes(as_list(name, found)) for name, found in single.items()}
        self._single = {name: PrefixSet(found) for name, found in owners.items()}
        prefixes += [prefix for found in owners.values() for prefix in found]
        self.peers = PrefixSet(prefixes)
        for name in chain:
            if name.lower() not in CHAINS:
                hint = "a header with one address goes in single={header: [prefixes]}"
                raise ValueError(f"chain {name!r} is not one of {', '.join(CHAINS)}; {hint}")
        for name in signals:
            if name not in SIGNALS:
                raise ValueError(f"signal {name!r} is not one of {', '.join(SIGNALS)}")
        if max_hops < 1:
            raise ValueError(f"max_hops={max_hops!r} must be positive")
        if required not in {True, False, None}:
            raise ValueError(f"required={required!r} is not one of True, False, None")
        self.required = required
        self._chain = tuple(name.lower() for name in chain)
        self._plain = self._chain == CHAINS[:1] and not single
        self._signals = {signal: field_name(name) for signal, name in signals.items()}
        self._max_hops = max_hops
        self._host = None if host is None else field_name(host)
        wanted = {*self._chain, *self._single, *self._signals.values(), "x-forwarded-proto", "x-request-id"}
        if self._host is not None:
            wanted.add(self._host)
        self.fields = {name.encode(): name for name in wanted}

    def __repr__(self) -> str:
        unix = " and unix" if self.unix else ""
        headers = ", ".join([*self._single, *self._chain, *self._signals.values()])
        return f"<Trust of {len(self.peers)} prefixes{unix}: {headers}>"

    @classmethod
    def of_rules(cls, ruleset: Ruleset) -> Trust:
        """The Trust that `trust:` of these rules asks for."""
        asked = ruleset.settings.trust
        made = cls(required=None if asked.chain is None else asked.chain == "required", host=asked.host)
        made.peers = ruleset._trusted
        return made

    def believes(self, peer: str | None) -> bool:
        """Whether this peer's headers are read; None is a peer on a UNIX socket."""
        return self.unix if peer is None else peer in self.peers

    def resolve(self, peer: str | None, headers: Headers, *, wsgi: bool = False) -> ClientInfo:
        """ClientInfo of a request that a trusted `peer` handed on.

        Args:
            headers: (lower-case name, value) pairs as in ASGI; repeated fields are joined in order.
            wsgi: whether a WSGI server had them before, and a chain is required unless `required` is False.
        """
        return self.client_from(peer, select_headers(headers, self.fields), wsgi=wsgi)

    def client_from(self, peer: str | None, found: Mapping[str, str], *, wsgi: bool = False) -> ClientInfo:
        """The same from the texts of those headers that `fields` names, which a walk over the headers has picked."""
        return self._client(peer, found, self._owed(wsgi))

    def resolve_environ(self, peer: str | None, environ: Mapping[str, Any]) -> ClientInfo:
        """The same for a WSGI environ, whose server has joined repeated fields.

        WSGI cannot tell `X_Forwarded_For` from `X-Forwarded-For`: the server or proxy must drop names with underscores,
        as gunicorn and nginx do.
        """
        found = {}
        for name in self.fields.values():
            text = environ.get("HTTP_" + name.upper().replace("-", "_"))
            if text is not None:
                found[name] = text
        return self._client(peer, found, self._owed(True))

    def _owed(self, wsgi: bool) -> bool:
        return wsgi if self.required is None else self.required

    def _client(self, peer: str | None, found: Mapping[str, str], owed: bool) -> ClientInfo:
        address = near_client(found["x-forwarded-for"]) if self._plain and "x-forwarded-for" in found else None
        status: Status = "ok"
        port = scheme = None
        hops = 0
        if address is None or address in self.peers:
            address, status, port, scheme, hops = self._named(peer, found, owed)
        if scheme is None and (proto := found.get("x-forwarded-proto")) is not None:
            scheme = proto if proto in SCHEMES else scheme_of(proto, found.get("x-forwarded-for", ""), hops)
        request_id = found.get("x-request-id")
        if request_id is not None and not REQUEST_ID.fullmatch(request_id):
            request_id = None
        signals = NOTHING
        if self._signals:
            reported = {signal: found[name] for signal, name in self._signals.items() if name in found}
            signals = {signal: text for signal, text in reported.items() if is_signal(text)}
        host = None if self._host is None else found.get(self._host)
        return ClientInfo(address, status, port, scheme, request_id, hops, signals, host)

    def _named(
        self, peer: str | None, found: Mapping[str, str], owed: bool
    ) -> tuple[str | None, Status, int | None, str | None, int]:
        for name, owners in self._single.items():
            if peer is not None and peer in owners:
                if name not in found:
                    return (f"no {name} of {peer}", "missing", None, None, 0) if owed else UNKNOWN
                hop = read_node(found[name].strip())
                if hop.address is None:
                    return hop.text, "malformed", None, None, 0
                return hop.address, "ok", hop.port, None, 0
        answers = []
        for name in self._chain:
            if name in found:
                hops = read_for(found[name]) if name == "x-forwarded-for" else read_forwarded(found[name])
                walked = self._walk(hops)
                if walked is not None:
                    answers.append(walked)
        if not answers and owed:
            return f"no {' or '.join(self._chain)} of {peer or 'a UNIX socket'}", "missing", None, None, 0
        if not answers:
            return peer, "trusted", None, None, 0
        first, last = answers[0], answers[-1]
        if first[:2] != last[:2]:
            return f"forwarding headers name {first[0]} and {last[0]}", "conflict", None, None, first[4]
        return first if last[3] is None else last

    def _walk(self, hops: Iterable[Hop]) -> tuple[str | None, Status, int | None, str | None, int] | None:
        """(address, status, port, scheme, hops passed over) of the chain, which comes from the right; None if it names
        no hop at all."""
        passed = 0
        scheme = hop = None
        for hop in hops:
            if hop.address is None:
                status: Status = "malformed" if hop.known else "unknown"
                return hop.text if hop.known else None, status, None, hop.scheme, passed
            if hop.address not in self.peers:
                return hop.address, "ok", hop.port, hop.scheme, passed
            if passed == self._max_hops:
                return f"more than {passed} trusted hops", "too-many-hops", None, None, passed
            passed += 1
            scheme = hop.scheme
        return None if hop is None else (None, "trusted", None, scheme, passed)


def trust_from_rules(snapshot: Snapshot) -> Trust:
    """The Trust that the rules of an engine's snapshot ask for; made once a snapshot, which keeps it."""
    trust: Trust | None = snapshot.trust
    return snapshot.keep_trust(Trust.of_rules(snapshot.ruleset)) if trust is None else trust


def as_trust(given: Trust | Iterable[str] | PrefixTable | Mapping[str, Any]) -> Trust:
    """The Trust that an option `trust` means, in any frontend.

    Args:
        given: a Trust, prefixes as text, a PrefixSet, a PrefixTable, or the arguments of a Trust as a dict.

    Raises:
        ValueError: none of these.
    """
    if isinstance(given, Trust):
        return given
    if isinstance(given, str):
        raise ValueError(f"trust={given!r} is one text; write a list of prefixes")
    if isinstance(given, PrefixTable):
        given = [prefix for prefix, _ in given]
    try:
        return Trust(**given) if isinstance(given, Mapping) else Trust(given)
    except TypeError as error:
        raise ValueError(f"trust={given!r} is not a Trust or a list of prefixes ({error})") from None


def as_list(what: str, texts: Iterable[str]) -> list[str]:
    """The texts as a list; one text by itself is none, and neither is what is no text."""
    if isinstance(texts, str):
        raise ValueError(f"{what} {texts!r} is one text; write a list")
    found = list(texts)
    for text in found:
        if not isinstance(text, str):
            raise ValueError(f"{what} {text!r} is not text")
    return found


def parse_prefixes(prefixes: Iterable[str]) -> list[str]:
    """The prefixes, each proved to be one."""
    found = []
    for text in prefixes:
        if text == "*" or text.endswith("/0"):
            raise ValueError(f"trust {text!r} trusts everyone, so anyone could be anyone; name the proxies' prefixes")
        parse_prefix(text)
        found.append(text)
    return found


def field_name(name: str) -> str:
    lowered = name.lower()
    if not FIELD_NAME.fullmatch(lowered):
        raise ValueError(f"header {name!r} is not a field name without underscores")
    return lowered


def is_signal(text: str) -> bool:
    """Whether a header holds one printable word: two proxies' words, joined by a comma, are none."""
    return 0 < len(text) <= 256 and text.isascii() and text.isprintable() and "," not in text and " " not in text


REQUEST_IDS = RequestIds(os.urandom(14))
os.register_at_fork(after_in_child=lambda: REQUEST_IDS.renew(os.urandom(14)))
mint_request_id = REQUEST_IDS.mint
