"""Signals that contradict each other: SNI and host, look-alike names, claims against networks."""

from __future__ import annotations

import asyncio
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gobanfast.enrich.crawlers import confirm_crawler
from gobanfast.wire.crawlers import claimed_crawler
from gobanfast.wire.hosts import agreement, host_name
from gobanfast.wire.lookalikes import Lookalikes, one_edit_apart, skeleton
from oracle.consistency import distance

CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"
GOOGLEBOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"


@pytest.mark.parametrize(
    ("authority", "expected"),
    [
        ("Example.COM", "example.com"),
        ("example.com.", "example.com"),
        ("example.com:8443", "example.com"),
        ("example.com.:443", "example.com"),
        ("example.com:", "example.com"),
        ("[2001:DB8::1]:443", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("192.0.2.1:80", "192.0.2.1"),
        ("under_score.example", "under_score.example"),
        ("", None),
        (None, None),
        ("user@example.com", None),
        ("example.com:port", None),
        ("example.com:443:443", None),
        ("2001:db8::1", None),
        ("[example.com]", None),
        ("[::1", None),
        ("a..b", None),
        ("a b", None),
        ("exämple.com", None),
        ("a" * 300, None),
    ],
)
def test_host_name(authority, expected):
    """The host in an authority is its name, whatever port, case, dot or brackets it is written with."""
    assert expected == host_name(authority)


@pytest.mark.parametrize(
    ("sni", "authority", "names", "expected"),
    [
        ("example.com", "EXAMPLE.com.:443", [], "agree"),
        ("example.com", "other.example", [], "differ"),
        ("example.com", "other.example", ["example.com", "*.example"], "coalesced"),
        ("example.com", "a.b.example", ["*.example"], "differ"),
        ("example.com", "example", ["*.example"], "differ"),
        ("example.com", "OTHER.example", ["Other.Example."], "coalesced"),
        ("192.0.2.1", "example.com", [], "unknown"),
        (None, "example.com", [], "unknown"),
        ("example.com", None, [], "unknown"),
        ("example.com", "192.0.2.1", [], "unknown"),
        ("example.com", "[::1]:443", [], "unknown"),
    ],
)
def test_agreement(sni, authority, names, expected):
    """SNI and host agree, or the certificate explains why not, or they differ, or there is nothing to compare."""
    assert expected == agreement(sni, authority, names)


PROTECTED = ["google.com", "paypal.com", "login.example.org", "abc.io"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("g00gle.com", "google.com"),
        ("www.g00gle.com", "google.com"),
        ("goog1e.com", "google.com"),
        ("gооgle.com", "google.com"),  # two letters are Cyrillic
        ("xn--ggle-55da.com", "google.com"),  # the same, as it is sent
        ("göögle.com", "google.com"),
        ("goggle.com", "google.com"),
        ("gogole.com", "google.com"),
        ("googlee.com", "google.com"),
        ("goo-gle.com", "google.com"),
        ("PAYPA1.com.", "paypal.com"),
        ("paypaI.com", "paypal.com"),
        ("1ogin.example.org", "login.example.org"),
        ("a6c.io", None),
        ("ab.io", None),
        ("google.com", None),
        ("mail.google.com", None),
        ("gargle.com", None),
        ("example.org", None),
        ("other.example.org", None),
        ("xn--a.com", None),
        ("", None),
        ("a" * 300, None),
    ],
)
def test_lookalikes(name, expected):
    """A name that reads like a protected one, or is one letter away from it, is told; the protected ones are not."""
    assert expected == Lookalikes(PROTECTED).lookup(name)


def test_an_internationalised_name_is_itself():
    """A protected name is itself in Unicode, in A-labels and in any case; what looks like it is not."""
    for protected in ("b\xfccher.example", "xn--bcher-kva.example", "B\xdcCHER.Example."):
        lookup = Lookalikes([protected]).lookup
        assert [None] * 3 == [
            lookup(name) for name in ("xn--bcher-kva.example", "b\xfccher.example", "a.XN--BCHER-KVA.example")
        ]
        assert lookup("bucher.example") == lookup("b\xfcchor.example") == "b\xfccher.example"


def test_rn_reads_as_m():
    """Two letters that stand for one look like it."""
    assert skeleton("rnicrosoft.com") == skeleton("microsoft.com")
    assert "microsoft.com" == Lookalikes(["microsoft.com"]).lookup("rnicrosoft.com")


@given(left=st.text("abc", max_size=6), right=st.text("abc", max_size=6))
def test_one_edit_equals_the_distance_table(left, right):
    """One edit apart is a distance of one."""
    assert (distance(left, right) == 1) == one_edit_apart(left, right)


@given(st.lists(st.text("abcd01i-", min_size=6, max_size=9), min_size=2, max_size=6, unique=True))
def test_lookalikes_equal_a_look_at_each(names):
    """The index finds a look-alike exactly when comparing with every protected name does."""
    names = [f"x{name}y.com" for name in names]
    protected, name = names[1:], names[0]
    near = any(distance(skeleton(name), skeleton(other)) <= 1 for other in protected)

    assert (near and name not in protected) == (Lookalikes(protected).lookup(name) is not None)


@pytest.mark.parametrize(
    ("user_agent", "expected"),
    [
        (GOOGLEBOT, "googlebot"),
        ("Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)", "bingbot"),
        ("Mozilla/5.0 (compatible; YandexImages/3.0)", "yandexbot"),
        ("DuckDuckBot/1.1", "duckduckbot"),
        ("DuckDuckBot-Https/1.1; (+https://duckduckgo.com/duckduckbot)", "duckduckbot"),
        ("Googlebot-Image/1.0", "googlebot"),
        ("googlebot", "googlebot"),
        ("x;Googlebot", "googlebot"),
        ("bingbot/2.0 Googlebot/2.1", "googlebot"),
        ("notgooglebot/2.1 googlebot.example/1 googlebot-x/1 +http://a.example/googlebot.html yandex", None),
        (CHROME, None),
        ("", None),
        (None, None),
        ("Mozilla/5.0 " + "a" * 1_000_000 + "googlebot", None),
    ],
)
def test_claimed_crawler(user_agent, expected):
    """Which crawler a User-Agent says it is."""
    found = claimed_crawler(user_agent)

    assert expected == (None if found is None else found.name)


AGENTS = tomllib.loads((Path(__file__).parents[1] / "cases" / "user_agents.toml").read_text())


@pytest.mark.parametrize("user_agent", AGENTS["people"])
def test_no_person_claims_to_be_a_crawler(user_agent):
    """Browsers and apps, those of companies with crawlers above all, are none: nobody is banned for his telephone."""
    assert claimed_crawler(user_agent) is None


@pytest.mark.parametrize(
    ("name", "user_agent"), [(name, text) for name, texts in AGENTS["crawlers"].items() for text in texts]
)
def test_every_published_robot_claims_to_be_one(name, user_agent):
    """What the operators publish as their robots' user agents is a claim."""
    found = claimed_crawler(user_agent)

    assert found is not None
    assert name == found.name


@pytest.mark.parametrize(
    ("names", "addresses", "expected"),
    [
        ({"192.0.2.9": "crawl-192-0-2-9.googlebot.com"}, {"crawl-192-0-2-9.googlebot.com": ["192.0.2.9"]}, True),
        ({"192.0.2.9": "crawl-192-0-2-9.googlebot.com."}, {"crawl-192-0-2-9.googlebot.com": ["192.0.2.9"]}, True),
        ({"192.0.2.9": "crawl-192-0-2-9.googlebot.com"}, {"crawl-192-0-2-9.googlebot.com": ["192.0.2.1"]}, False),
        ({"192.0.2.9": "googlebot.com.evil.example"}, {"googlebot.com.evil.example": ["192.0.2.9"]}, False),
        ({"192.0.2.9": "fakegooglebot.com"}, {"fakegooglebot.com": ["192.0.2.9"]}, False),
        ({"192.0.2.9": "9.bc.googleusercontent.com"}, {"9.bc.googleusercontent.com": ["192.0.2.9"]}, False),
        ({}, {}, False),
    ],
)
def test_crawlers_by_dns(names, addresses, expected):
    """A crawler is confirmed if DNS says so both ways; a name that anyone can give his address is not enough."""

    async def reverse(address):
        return names.get(address)

    async def forward(name):
        return addresses.get(name, [])

    assert expected is asyncio.run(confirm_crawler(GOOGLEBOT, "192.0.2.9", reverse=reverse, forward=forward))


def test_slow_dns_is_no_answer():
    """Where DNS does not answer in time, nothing is known; who claims nothing is not asked about."""

    async def never(_):
        await asyncio.sleep(60)

    assert None is asyncio.run(confirm_crawler(GOOGLEBOT, "192.0.2.9", timeout=0.01, reverse=never))
    assert None is asyncio.run(confirm_crawler(CHROME, "192.0.2.9", reverse=never))
