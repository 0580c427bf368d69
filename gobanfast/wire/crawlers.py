"""Crawlers by the product tokens of their User-Agent, and the domains that their addresses have.

A claim is a signal, not a ban: a browser on a rented machine has honest causes, too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


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
