"""Bans, labels and their keys: what is banned or labelled, until when and why. A key has one text form everywhere."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from gobanfast._core.address import client_of, format_address, parse_address, parse_prefix
from gobanfast._dataclass import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from gobanfast.rules.rule import PrefixList

_ASN = r"[aA][sS]([1-9][0-9]{0,9})"  # texts: to compile them takes a part of a first decision
_FINGERPRINT = r"gh2:[0-9a-fA-F]{32}"
_FORMS = "write an address, a prefix, AS64500, gh2:<32 hex>, gh2:<32 hex>@<client> or uid:<name>"
_SESSION = r"session:[0-9a-f]{8}:[0-9a-f]{32}"
_WORD = r"[a-z0-9][a-z0-9._-]{0,31}"
UID_BYTES = 23
"""Bytes of the longest name of a user that is its own key; of a longer one the key is a hash."""


DEFAULT_DURATION = "1h"
"""Default duration of a ban, in every interface; a permanent one must be asked for."""

WIDE_FRACTION = 1 / 256
"""Fraction of the IPv4 addresses (a /8), or of the used IPv6 ones (a /11 of 2000::/3), above which a prefix is wide."""

WIDEST = {4: 8, 6: 11}  # bits, by WIDE_FRACTION
SPECIAL = (  # what more depends on than clients: prefix, what it is, whether one IPv6 client (/64) of it counts, too
    ("0.0.0.0/8", "this network", False),
    ("10.0.0.0/8", "private", False),
    ("100.64.0.0/10", "shared by carriers", False),
    ("127.0.0.0/8", "loopback", False),
    ("169.254.0.0/16", "link-local", False),
    ("172.16.0.0/12", "private", False),
    ("192.168.0.0/16", "private", False),
    ("224.0.0.0/4", "multicast", False),
    ("240.0.0.0/4", "reserved", False),
    ("::/64", "loopback and unspecified", True),
    ("64:ff9b::/96", "NAT64, all of IPv4", True),
    ("64:ff9b:1::/48", "local NAT64, all of IPv4", True),
    ("2001::/32", "Teredo, all of IPv4", False),
    ("2002::/16", "6to4, all of IPv4", False),
    ("fc00::/7", "private", False),
    ("fe80::/10", "link-local", True),
    ("ff00::/8", "multicast", True),
)


@dataclass(frozen=True, slots=True)
class Ban:
    """One stored ban. Times are Unix seconds; `expires` None means for good.

    `key` is canonical, see `ban_key`. `rule` names the rule or tracker that made the ban, `by` the kind of maker:
    "manual", "rule", "tracker", "import" or "store". `count` says how often in a row this key was banned; durations
    grow with it.
    """

    key: str
    reason: str = ""
    rule: str | None = None
    created: float = 0.0
    expires: float | None = None
    count: int = 1
    by: str = "manual"


@dataclass(frozen=True, slots=True)
class Label:
    """One stored label: `key` carries `word`, which conditions test. Times are Unix seconds; `expires` None means for
    good.

    `key` is canonical, see `label_key`; `by` the kind of maker: "manual", "rule", "tracker", "import" or "store".
    """

    key: str
    word: str
    reason: str = ""
    created: float = 0.0
    expires: float | None = None
    by: str = "manual"

    @property
    def record(self) -> Ban:
        """The label as stores and the change feed have it: a Ban under `label:<word>:<key>`."""
        return Ban(f"label:{self.word}:{self.key}", self.reason, None, self.created, self.expires, 1, self.by)


class BanChange(NamedTuple):
    """One change of a ban table, from `BanTable.changes`.

    `event` is "add", "extend", "lift" or "evict" (a full table dropped it for another one). `ban` is the ban as it then
    stood, with its end; a lifted or evicted one as it was before. `maker` is who made the change: a person ("manual"),
    a rule, a tracker, an import, or a store that brought in what another process or host did; `ban.by` and `ban.rule`
    say who made the ban at first. Of an eviction it is the maker of the ban that took the place. `at` is when, in Unix
    seconds; `position` the cursor of a reader that has seen everything up to this change. `kind` is "label" where a
    label changed: `ban` is its record then, see `Label.record` and `label_of`.
    """

    event: Literal["add", "extend", "lift", "evict"]
    ban: Ban
    maker: str
    at: float
    kind: Literal["ban", "label"]
    position: int


def ban_key(text: str) -> str:
    """The canonical form of a ban key.

    | `203.0.113.7`, `2001:db8::1` | an address; `::ffff:203.0.113.7` and `203.0.113.7/32` are the same key |
    | `203.0.113.0/24`, `2001:db8::/64` | a prefix of any length |
    | `AS64500` | an origin AS, 1 to 4294967295 |
    | `gh2:<32 hex>` | a fingerprint |
    | `gh2:<32 hex>@203.0.113.7`, `@2001:db8::/64` | a fingerprint at one client, see `client_key` |
    | `uid:<name>` | who is logged in, see `uid_key` |

    Raises:
        ValueError: `text` is none of these; says what is wrong, with the value, and how to write it.
    """
    if text.startswith("uid:"):
        return uid_key(text[4:], hashed=True)
    if text.startswith("session:"):
        raise ValueError(f"ban key {text[:60]!r} is a session; label it, as engine.revoke_session does")
    if text.startswith("gh2:"):
        fingerprint, at, client = text.partition("@")
        if not re.fullmatch(_FINGERPRINT, fingerprint):
            raise ValueError(f"ban key {text!r} has no fingerprint of 32 hex digits; {_FORMS}")
        return fingerprint.lower() + (f"@{_client(text, client)}" if at else "")
    if found := re.fullmatch(_ASN, text):
        number = int(found[1])
        if number > 0xFFFFFFFF:
            raise ValueError(f"ban key {text!r} has no AS number; write AS1 to AS4294967295")
        return f"AS{number}"
    if not text.isascii() or not set(text) & set(".:"):
        raise ValueError(f"ban key {text!r} is not valid; {_FORMS}")
    if packed := parse_address(text):
        return format_address(packed)
    return _prefix(text)


def uid_key(name: str, *, hashed: bool = False) -> str:
    """The key of a user: `uid:` and the name; of a name of more than 23 bytes, or with characters that cannot be shown,
    `uid:#` and 32 hex digits of its SHA-256.

    Args:
        hashed: whether the name may be such a hash already. Never for what a request says.
    Raises:
        ValueError: the name is empty.
    """
    if not name:
        raise ValueError(f"user '' has no name; {_FORMS}")
    if hashed and re.fullmatch(r"#[0-9a-f]{32}", name):
        return f"uid:{name}"
    packed = name.encode("utf-8", "surrogatepass")
    if len(packed) <= UID_BYTES and name.isprintable() and not name.startswith("#"):
        return f"uid:{name}"
    from hashlib import sha256

    return f"uid:#{sha256(packed).hexdigest()[:32]}"


def label_key(text: str) -> str:
    """The canonical form of a key that carries labels: that of a ban, or `session:<key id>:<32 hex>`, the keyed hash of
    a session's value.

    Raises:
        ValueError: `text` is none of these.
    """
    if text.startswith("session:"):
        if not re.fullmatch(_SESSION, text):
            raise ValueError(
                f"label key {text[:60]!r} is no session; write session:<8 hex>:<32 hex>, the hash of its value"
            )
        return text
    try:
        return ban_key(text)
    except ValueError as error:
        raise ValueError(str(error).replace("ban key", "label key", 1)) from None


def label_word(word: str) -> str:
    """The word, if it is one. ValueError for what is none."""
    if not re.fullmatch(_WORD, word):
        raise ValueError(
            f"label {word[:60]!r} is not a word; write up to 32 of a-z, 0-9, '.', '_' and '-', such as tenant-a"
        )
    return word


def record_key(key: str) -> str:
    """The canonical form of the key of a record, of a ban or `label:<word>:<key>`; ValueError for what is neither."""
    if not key.startswith("label:"):
        return ban_key(key)
    _, word, labelled = [*key.split(":", 2), ""][:3]
    return f"label:{label_word(word)}:{label_key(labelled)}"


def label_of(record: Ban) -> Label:
    """The label that a record is about. ValueError for one of a ban."""
    head, word, key = [*record.key.split(":", 2), "", ""][:3]
    if head != "label" or not key:
        raise ValueError(f"record {record.key!r} is not about a label")
    return Label(key, word, record.reason, record.created, record.expires, record.by)


def too_wide(key: str, *, trusted: PrefixList | None = None) -> str | None:
    """Why a ban of this key by hand or from a list has to be spelled out: it keeps out more than clients. Else None.

    Args:
        key: canonical. An address, an AS number and a fingerprint are never wide.
        trusted: prefixes of proxies that requests come through; a key that covers one of them keeps out all behind it.
    Wide are a prefix of more than 1/256 of its family (shorter than /8, or /11 in IPv6), and one that overlaps private,
    shared, loopback, link-local, multicast or reserved space, or addresses that hold all of IPv4.
    """
    if key.startswith(("AS", "gh2:", "uid:")):
        return None
    packed, bits = parse_prefix(key)
    for i, length in enumerate(trusted.lengths if trusted is not None else ()):
        proxy = trusted.addresses[16 * i : 16 * i + 16] if trusted is not None else b""
        if _overlap(packed, bits, proxy, length):
            return (
                f"ban of {key!r} keeps out all who come through {format_address(proxy)}, which trust: names as a proxy"
            )
    if bits == 128:
        return None
    family = 4 if "." in key and bits >= 96 else 6
    length = bits - 96 if family == 4 else bits
    if length < WIDEST[family]:
        widest = WIDEST[family]
        return f"ban of {key!r} covers {2.0**-length:.2%} of all IPv{family} addresses, the widest is a /{widest}"
    for prefix, what, client in SPECIAL:
        same = ("." in prefix) == (family == 4)
        if same and (bits < 64 or family == 4 or client) and _overlap(packed, bits, *parse_prefix(prefix)):
            return f"ban of {key!r} lies in {prefix} ({what})"
    return None


def _overlap(one: bytes, one_bits: int, two: bytes, two_bits: int) -> bool:
    shift = 128 - min(one_bits, two_bits)
    return int.from_bytes(one, "big") >> shift == int.from_bytes(two, "big") >> shift


def without_host_bits(text: str) -> str:
    """The prefix in a text whose address may lie inside it, as other tools write it. ValueError for another text."""
    address, slash, bits = text.partition("/")
    if not slash:
        return text
    packed, _ = parse_prefix(address)
    length = int(bits) + (96 if "." in address else 0)
    if not 0 <= length <= 128:
        raise ValueError(f"range {text[:80]!r} has no length that an address has")
    masked = int.from_bytes(packed, "big") >> (128 - length) << (128 - length)
    return f"{format_address(masked.to_bytes(16, 'big'))}/{bits}"


def client_key(address: str, *, ipv6: Literal[64, 56, 48] = 64) -> str:
    """The key of the client behind an address: an IPv4 address itself, of an IPv6 address its /64 (or `ipv6`).

    NAT64 (64:ff9b::/96, and any /96 of 64:ff9b:1::/48), 6to4 and Teredo addresses carry the client's IPv4 address, and
    that is the key: the /64 of NAT64 holds the whole IPv4 Internet.

    Raises:
        ValueError: `address` is not an address.
    """
    key = client_of(address, ipv6)
    if key is None:
        raise ValueError(f"client {address!r} is not an IPv4 or IPv6 address; write it like 192.0.2.1 or 2001:db8::1")
    return key


def _client(text: str, client: str) -> str:
    packed, bits = parse_prefix(client)
    inside = packed[:8] + b"\xff" * 8 if bits <= 64 else packed  # the first address of 64:ff9b::/64 is another client
    key = client_of(format_address(inside), bits if bits in (48, 56) else 64)
    if key != _prefix(client):
        raise ValueError(f"ban key {text!r} has {client!r} where a client belongs; write {key}")
    return key


def _prefix(text: str) -> str:
    packed, bits = parse_prefix(text)
    address = format_address(packed)
    if bits == 128:
        return address
    return f"{address}/{bits - 96 if '.' in address and bits >= 96 else bits}"
