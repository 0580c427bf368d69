"""Hypothesis strategies that several test modules share: prefixes that nest and touch, addresses near their edges."""

from __future__ import annotations

import ipaddress

from hypothesis import strategies as st

from oracle.prefix import Address, Network

# Few distinct bits, so that random prefixes nest, touch and repeat.
CROWDED4 = st.builds(lambda low: 0x0A000000 | low, st.integers(0, 0xFFF))
CROWDED6 = st.builds(lambda mid, low: 0x20010DB8 << 96 | mid << 60 | low, st.integers(0, 0xFFF), st.integers(0, 0x3F))
NUMBERS4 = CROWDED4 | st.integers(0, 2**32 - 1)
NUMBERS6 = (CROWDED6 | st.integers(0, 2**128 - 1)).filter(lambda number: number >> 32 != 0xFFFF)


def network(number: int, bits: int, width: int) -> Network:
    """The prefix of `bits` bits around an address."""
    masked = number >> (width - bits) << (width - bits)
    return ipaddress.IPv4Network((masked, bits)) if width == 32 else ipaddress.IPv6Network((masked, bits))


def networks() -> st.SearchStrategy[Network]:
    """Prefixes of both families, every length; none inside ::ffff:0:0/96, which is IPv4."""
    four = st.builds(network, NUMBERS4, st.integers(0, 32), st.just(32))
    six = st.builds(network, NUMBERS6, st.integers(0, 128), st.just(128))
    return four | six.filter(lambda net: int(net.network_address) >> 32 != 0xFFFF)


def addresses() -> st.SearchStrategy[Address]:
    """Addresses of both families, IPv4 also in its mapped form."""
    four = st.builds(ipaddress.IPv4Address, NUMBERS4)
    mapped = st.builds(lambda number: ipaddress.IPv6Address(0xFFFF << 32 | number), NUMBERS4)
    return four | mapped | st.builds(ipaddress.IPv6Address, NUMBERS6)


@st.composite
def near(draw: st.DrawFn, nets: list[Network]) -> Address:
    """An address at, just below or just above the edge of one of `nets`."""
    net = draw(st.sampled_from(nets))
    edge = draw(st.sampled_from([int(net.network_address), int(net.broadcast_address)]))
    number = min(max(edge + draw(st.integers(-1, 1)), 0), 2**net.max_prefixlen - 1)
    return ipaddress.IPv4Address(number) if net.version == 4 else ipaddress.IPv6Address(number)
