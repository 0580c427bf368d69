"""Ban keys: one text form each, the one that the standard library's addresses give."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gobanfast.bans import Ban, ban_key, client_key
from oracle import bans as oracle
from oracle.prefix import Address, Network, canonical
from strategies import addresses, networks

HEX = "0123456789abcdef0123456789abcdef"
CARRIERS = st.builds(
    lambda net, low: ipaddress.IPv6Address(int(ipaddress.IPv6Network(net).network_address) | low),
    st.sampled_from(
        ["64:ff9b::/96", "64:ff9b:1::/96", "64:ff9b:1::/48", "64:ff9b:1:abcd::/96", "2002::/16", "2001::/32"]
    ),
    st.integers(0, 2**32 - 1) | st.integers(0, 2**96 - 1),
)


@given(address=addresses())
def test_address_key_is_canonical(address: Address) -> None:
    """However an address is written, its key is the RFC 5952 text, dotted for IPv4-mapped ones."""
    expected = str(canonical(address))

    assert expected == ban_key(address.exploded)
    assert expected == ban_key(f"{address}/{address.max_prefixlen}")
    assert expected == ban_key(expected)


@given(net=networks())
def test_prefix_key_is_canonical(net: Network) -> None:
    """The key of a prefix is the standard library's text; one of all its bits is an address."""
    assert oracle.text(net) == ban_key(net.exploded)


@given(address=addresses() | CARRIERS)
@example(address=ipaddress.IPv6Address("64:ff9b::198.51.100.7")).via("NAT64")
@example(address=ipaddress.IPv6Address("64:ff9b::1:0:0")).via("beside NAT64, in its /64")
@example(address=ipaddress.IPv6Address("64:ff9b:1:fffe::198.51.100.7")).via("NAT64 for local use")
@example(address=ipaddress.IPv6Address("64:ff9b:1:c633:64:700::")).via("the same, embedded behind 48 bits")
@example(address=ipaddress.IPv6Address("64:ff9b:2::198.51.100.7")).via("beside NAT64 for local use")
@example(address=ipaddress.IPv6Address("2002:c633:6407::1")).via("6to4")
@example(address=ipaddress.IPv6Address("2001::cb00:7101:0:fffe:39cc:9bf8")).via("Teredo")
def test_client_key_is_the_address_or_its_64(address: Address) -> None:
    """IPv4 clients are themselves, those carried in IPv6 too; other IPv6 clients are their /64. It is a ban key."""
    expected = oracle.text(oracle.client(address))

    assert expected == client_key(address.exploded)
    assert expected == ban_key(expected)
    assert f"gh2:{HEX}@{expected}" == ban_key(f"gh2:{HEX.upper()}@{expected}")


KEYS = [
    ("AS64500", "AS64500"),
    ("as64500", "AS64500"),
    ("AS4294967295", "AS4294967295"),
    ("gh2:" + HEX.upper(), "gh2:" + HEX),
    (f"gh2:{HEX}@::ffff:203.0.113.7", f"gh2:{HEX}@203.0.113.7"),
    (f"gh2:{HEX}@2001:DB8:0::/64", f"gh2:{HEX}@2001:db8::/64"),
    (f"gh2:{HEX}@2001:db8::/56", f"gh2:{HEX}@2001:db8::/56"),
    (f"gh2:{HEX}@2001:db8::/48", f"gh2:{HEX}@2001:db8::/48"),
    ("fe80::1%eth0", "fe80::1"),
    ("0.0.0.0/0", "0.0.0.0/0"),
    ("::/0", "::/0"),
    ("::ffff:0:0/96", "0.0.0.0/0"),
]


@pytest.mark.parametrize(("text", "key"), KEYS)
def test_other_keys_are_canonical(text: str, key: str) -> None:
    """Letter case of AS numbers and fingerprints does not make another key."""
    assert key == ban_key(text)


FORMS = "write an address, a prefix, AS64500, gh2:<32 hex>, gh2:<32 hex>@<client> or uid:<name>"
BAD_KEYS = [
    ("", f"ban key '' is not valid; {FORMS}"),
    ("AS0", f"ban key 'AS0' is not valid; {FORMS}"),
    ("AS4294967296", "ban key 'AS4294967296' has no AS number; write AS1 to AS4294967295"),
    ("AS٣", f"ban key 'AS٣' is not valid; {FORMS}"),
    ("gh2:12", f"ban key 'gh2:12' has no fingerprint of 32 hex digits; {FORMS}"),
    ("10.0.0.1/8", "prefix '10.0.0.1/8' has host bits set; write 10.0.0.0/8"),
    ("10.0.0.0/33", "prefix '10.0.0.0/33' has a bad length; IPv4 has 0..32 bits, IPv6 0..128"),
    (" 10.0.0.1", "prefix ' 10.0.0.1' has no IPv4 or IPv6 address; write it like 192.0.2.0/24 or 2001:db8::/32"),
    (
        f"gh2:{HEX}@2001:db8::5",
        f"ban key 'gh2:{HEX}@2001:db8::5' has '2001:db8::5' where a client belongs; write 2001:db8::/64",
    ),
    (
        f"gh2:{HEX}@10.0.0.0/8",
        f"ban key 'gh2:{HEX}@10.0.0.0/8' has '10.0.0.0/8' where a client belongs; write 10.0.0.0",
    ),
    (
        f"gh2:{HEX}@2002:c633:6407::/64",
        f"ban key 'gh2:{HEX}@2002:c633:6407::/64' has '2002:c633:6407::/64' where a client belongs; write 198.51.100.7",
    ),
    (
        f"gh2:{HEX}@2001:db8::/32",
        f"ban key 'gh2:{HEX}@2001:db8::/32' has '2001:db8::/32' where a client belongs; write 2001:db8::/64",
    ),
]


@pytest.mark.parametrize(("text", "message"), BAD_KEYS)
def test_bad_key_says_what_to_write(text: str, message: str) -> None:
    """A text that is no key is refused with its text and a hint."""
    with pytest.raises(ValueError, match=r"^(ban key|prefix) ") as caught:
        ban_key(text)

    assert message == str(caught.value)


def test_client_key_of_no_address_is_refused() -> None:
    """A client is an address."""
    with pytest.raises(ValueError, match=r"^client '10\.0\.0\.0/8' is not an IPv4 or IPv6 address; write it like"):
        client_key("10.0.0.0/8")


def test_ban_is_frozen() -> None:
    """A Ban says for good, once, by hand unless told otherwise, and does not change."""
    ban = Ban("203.0.113.7")

    assert ("", None, 0.0, None, 1, "manual") == (ban.reason, ban.rule, ban.created, ban.expires, ban.count, ban.by)
    with pytest.raises(AttributeError):
        ban.count = 2  # type: ignore[misc]
