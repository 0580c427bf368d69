"""Signals that contradict each other: SNI and host, names that look like others, claims against networks.

Each function answers one question about one request and keeps nothing. None of them says what to do: a mismatch has
honest causes too (a shared HTTP/2 connection, a browser on a rented machine), so it is a signal, not a ban.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from gobanfast._core.address import parse_address

Agreement = Literal["agree", "coalesced", "differ", "unknown"]

NAME_LIMIT = 253
PORT = re.compile(r"[0-9]{0,5}", re.ASCII)
NAME = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*", re.ASCII)


# ---- SNI and host


def host_name(authority: str | None) -> str | None:
    """The host in a Host header or `:authority`, in lower case and without port, brackets and final dot; None if there
    is none in it."""
    if not authority or len(authority) > NAME_LIMIT + 8 or "@" in authority:
        return None
    host, port = authority, ""
    if authority.startswith("["):
        host, bracket, port = authority[1:].partition("]")
        if not bracket or (port and not port.startswith(":")) or ":" not in host:
            return None
        port = port[1:]
        return host.lower() if parse_address(host) is not None and PORT.fullmatch(port) else None
    host, _, port = authority.partition(":")
    host = host.lower().removesuffix(".")
    return host if PORT.fullmatch(port) and len(host) <= NAME_LIMIT and NAME.fullmatch(host) else None


def agreement(sni: str | None, authority: str | None, names: Iterable[str] = ()) -> Agreement:
    """How the name a TLS connection was opened for goes with the host a request on it asks for.

    "coalesced" is a host that the certificate (`names`, its DNS names) covers besides the SNI: browsers send requests
    for such hosts over one connection (RFC 9113 section 9.1.1); 421 sends them back if the host is not served there.
    "unknown": one of the two is absent, cannot be read, or is an address, which SNI never holds.
    """
    host = host_name(authority)
    opened = host_name(sni)
    if host is None or opened is None or parse_address(host) is not None or parse_address(opened) is not None:
        return "unknown"
    if host == opened:
        return "agree"
    return "coalesced" if any(covers(name, host) for name in names) else "differ"


def covers(name: str, host: str) -> bool:
    """Whether a certificate's DNS name is valid for a host (RFC 9525 section 6.3): `*` stands for one whole label."""
    name = name.lower().removesuffix(".")
    if name.startswith("*."):
        first, _, rest = host.partition(".")
        return bool(first) and rest == name[2:]
    return name == host


# ---- names that look like others

# What people take for another letter: digits and strokes in place of letters, and letters of other scripts that are
# drawn alike (a subset of Unicode UTS #39, confusables).
CONFUSED = str.maketrans(
    {
        "0": "o", "1": "l", "i": "l", "|": "l", "3": "e", "4": "a", "5": "s", "7": "t", "8": "b", "9": "g",
        "а": "a", "в": "b", "с": "c", "ԁ": "d", "е": "e", "һ": "h", "і": "l", "ј": "j", "к": "k", "ӏ": "l", "м": "m",
        "н": "h", "о": "o", "р": "p", "ԛ": "q", "ѕ": "s", "т": "t", "у": "y", "ѵ": "v", "ԝ": "w", "х": "x", "α": "a",
        "β": "b", "ε": "e", "ι": "l", "κ": "k", "ν": "v", "ο": "o", "ρ": "p", "τ": "t", "υ": "u", "χ": "x", "ı": "l",
        "ł": "l", "ø": "o", "đ": "d", "ħ": "h", "ɡ": "g", "ɑ": "a", "ß": "b", "-": None, "_": None,
    }
)  # fmt: skip
PAIRS = (("rn", "m"), ("vv", "w"), ("cl", "d"))
LONG = 5  # letters of the longest label: shorter names are too near to too many others for edits to mean anything


def skeleton(name: str) -> str:
    """What a name looks like at a glance: equal skeletons are easily taken for each other. Dots stay."""
    letters = unicodedata.normalize("NFD", decoded(name.lower().removesuffix(".")))
    shape = "".join(letter for letter in letters if not unicodedata.combining(letter)).translate(CONFUSED)
    for pair, letter in PAIRS:
        shape = shape.replace(pair, letter)
    return shape


def plain(name: str) -> str:
    """The one way to write a name in Unicode: lower case, no final dot, no A-labels."""
    return unicodedata.normalize("NFC", decoded(name.lower().removesuffix(".")))


def decoded(name: str) -> str:
    """The name with its A-labels in Unicode, where they are valid."""
    if "xn--" not in name:
        return name
    import idna

    labels = []
    for label in name.split("."):
        try:
            labels.append(idna.decode(label) if label.startswith("xn--") else label)
        except UnicodeError:  # IDNAError is one
            labels.append(label)
    return ".".join(labels)


class Lookalikes:
    """Names that are to be told from names that look like them.

    Args:
        protected: names, as people type them; they and all below them are themselves, never look-alikes.
    Cost: a few microseconds a name, whatever the number of protected ones.
    """

    def __init__(self, protected: Iterable[str]) -> None:
        self._own = {plain(name) for name in protected}
        for name in self._own:
            if host_name(name) is None and not any(ord(letter) > 127 for letter in name):
                raise ValueError(f"protected name {name!r} is not a host name")
        self._shapes: dict[str, str] = {}
        self._shorter: dict[str, set[str]] = {}  # a shape with one letter left out -> shapes
        for name in sorted(self._own):
            shape = skeleton(name)
            self._shapes[shape] = name
            if max(map(len, shape.split("."))) >= LONG:
                for less in (shape, *one_less(shape)):
                    self._shorter.setdefault(less, set()).add(shape)
        self._depths = sorted({name.count(".") + 1 for name in self._own})

    def lookup(self, name: str) -> str | None:
        """The protected name that `name`, or a name above it, looks like; None for one that is what it looks like."""
        if len(name) > NAME_LIMIT:
            return None
        labels = plain(name).split(".")
        tails = [".".join(labels[-depth:]) for depth in self._depths if depth <= len(labels)]
        if any(tail in self._own for tail in tails):
            return None
        for tail in tails:
            shape = skeleton(tail)
            if shape in self._shapes:
                return self._shapes[shape]
            for less in (shape, *one_less(shape)):
                for near in sorted(self._shorter.get(less, ())):
                    if one_edit_apart(near, shape):
                        return self._shapes[near]
        return None


def one_less(text: str) -> set[str]:
    return {text[:at] + text[at + 1 :] for at in range(len(text))}


def one_edit_apart(left: str, right: str) -> bool:
    """Whether one letter put in, left out, replaced, or swapped with its neighbour makes one of the other."""
    if abs(len(left) - len(right)) > 1:
        return False
    if len(left) != len(right):
        short, long = sorted((left, right), key=len)
        return short in one_less(long)
    places = [at for at in range(len(left)) if left[at] != right[at]]
    return len(places) == 1 or (
        len(places) == 2
        and places[1] == places[0] + 1
        and left[places[0]] == right[places[1]]
        and left[places[1]] == right[places[0]]
    )


# ---- claims of the user agent


@dataclass(frozen=True, slots=True)
class Crawler:
    """A crawler by its product tokens in User-Agent, and the domains of its addresses (none: it has only a list).

    Tokens are those that its operator publishes, whole: the same company's browsers and apps have others
    ("YandexSearch/5.75", "GSA/275.0", "DuckDuckGo/7"), and people use them.
    """

    name: str
    tokens: tuple[str, ...]
    domains: tuple[str, ...] = ()


# What Yandex lists as its robots, without YandexUserproxy and YandexMarket, behind which people may be.
_YANDEX = (
    "accessibilitybot", "additional", "additionalbot", "adnet", "blogs", "bot", "calendar", "catalog", "combot",
    "direct", "directdyn", "favicons", "fordomain", "imageresizer", "images", "marketbot", "media", "metrika",
    "mobilebot", "mobilescreenshotbot", "news", "ontodb", "ontodbapi", "pagechecker", "partner", "rca",
    "renderresourcesbot", "screenshotbot", "searchshop", "sitelinks", "spravbot", "tracker", "turbo", "verticals",
    "vertis", "video", "videoparser", "webmaster",
)  # fmt: skip
CRAWLERS = (
    Crawler(
        "googlebot",
        ("googlebot", "googlebot-image", "googlebot-mobile", "googlebot-news", "googlebot-video"),
        ("googlebot.com", "google.com"),
    ),
    Crawler("bingbot", ("bingbot",), ("search.msn.com",)),
    Crawler("applebot", ("applebot",), ("applebot.apple.com",)),
    Crawler("yandexbot", tuple(f"yandex{robot}" for robot in _YANDEX), ("yandex.ru", "yandex.net", "yandex.com")),
    Crawler("duckduckbot", ("duckduckbot", "duckduckbot-https")),
)
_CLAIMED = {token: crawler for crawler in CRAWLERS for token in crawler.tokens}
# A product (RFC 9110 10.1.5), its version left aside; a name in a URL or in a longer word is none.
_PRODUCT = re.compile(r"(?<![\w./-])[a-z][a-z-]*(?![\w.-])")


def claimed_crawler(user_agent: str | None) -> Crawler | None:
    """The crawler that a User-Agent says it is: one of its product tokens is the crawler's, whole, in any case."""
    text = (user_agent or "")[:1024].lower()
    if "bot" not in text and "yandex" not in text:
        return None
    found = {_CLAIMED[token] for token in _PRODUCT.findall(text) if token in _CLAIMED}
    return next((crawler for crawler in CRAWLERS if crawler in found), None)


Reverse = Callable[[str], Awaitable[str | None]]
Forward = Callable[[str], Awaitable[list[str]]]


async def reverse_name(address: str) -> str | None:
    """The name of an address, from DNS; None if it has none. Raises OSError where DNS does not say."""
    import asyncio
    import socket

    try:
        name, _ = await asyncio.get_running_loop().getnameinfo((address, 0), socket.NI_NAMEREQD)
    except socket.gaierror as error:
        if error.errno == socket.EAI_NONAME:
            return None
        raise
    return name


async def forward_addresses(name: str) -> list[str]:
    """The addresses of a name, from DNS; none if there is no such name. Raises OSError where DNS does not say."""
    import asyncio
    import socket

    try:
        found = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}:
            return []
        raise
    return [str(entry[4][0]) for entry in found]


async def confirm_crawler(
    user_agent: str | None,
    address: str,
    *,
    timeout: float = 2.0,
    reverse: Reverse = reverse_name,
    forward: Forward = forward_addresses,
) -> bool | None:
    """Whether DNS says that `address` is the claimed crawler's, both ways: the name of the address is in the crawler's
    domain, and that name has the address. None if none is claimed, it has no domain, or DNS does not answer (in time).

    Anyone can give his address a name of Google's; nobody can make Google's name point to it. Never wait for this
    before a decision: ask beside it, and let the answer count for the next request.
    """
    import asyncio

    crawler = claimed_crawler(user_agent)
    packed = parse_address(address)
    if crawler is None or not crawler.domains or packed is None:
        return None
    try:
        async with asyncio.timeout(timeout):
            name = await reverse(address)
            if name is None:
                return False
            host = name.lower().removesuffix(".")
            if not any(host.endswith("." + domain) for domain in crawler.domains):
                return False
            return packed in {parse_address(found) for found in await forward(host)}
    except OSError:  # a TimeoutError is one
        return None
