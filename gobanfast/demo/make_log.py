"""Generator of the bundled access log: one invented day of a small site, the same bytes of text in every run.

    python -m gobanfast.demo.make_log access.log.gz

Addresses come from documentation ranges (RFC 5737, RFC 3849), from networks in the starter AS table, and from public
resolvers; which of them did what is invented. Only `Random.random` is drawn, whose sequence Python keeps.
"""

from __future__ import annotations

import gzip
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import NamedTuple, TypeVar

Item = TypeVar("Item")

SEED = 20261122
LINES = 2000
DAY = datetime(2026, 11, 2, tzinfo=UTC)

PAGES = ("/", "/about", "/blog/", "/blog/first-steps", "/blog/why-we-moved", "/shop/", "/shop/cart", "/img/logo.png")
ASSETS = ("/css/site.css", "/js/site.js", "/favicon.ico")
HOMES = ("73.20.*.*", "79.200.*.*", "91.10.*.*", "12.30.*.*", "2003:e0::*")
SERVERS = ("46.101.9.*", "5.196.77.*", "88.99.14.*")
API = ("/api/v1/items", "/api/v1/items?page=2", "/api/v1/prices", "/shop/?sort=price")
LOGINS = ("/wp-login.php", "/xmlrpc.php", "/admin/", "/.env", "/login", "/.git/config")

CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"
)
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0"
SAFARI = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/18.6 Mobile/15E148 Safari/604.1"
)
GOOGLEBOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
YANDEXBOT = "Mozilla/5.0 (compatible; YandexBot/3.0; +http://yandex.com/bots)"


class Group(NamedTuple):
    """Clients that behave alike: how much of the traffic, from where, asking for what, as whom, answered how."""

    weight: float
    clients: Sequence[str]  # texts with * for a number 1..254
    paths: Sequence[str]
    agents: Sequence[str]
    statuses: Sequence[int]


GROUPS = (
    Group(30, ("203.0.113.*", "2001:db8:1:*::42"), PAGES + ASSETS, (CHROME, FIREFOX, SAFARI), (200, 200, 200, 304)),
    Group(26, HOMES, PAGES + ASSETS, (CHROME, SAFARI), (200,)),
    Group(9, ("66.249.66.*", "95.108.213.*"), PAGES, (GOOGLEBOT, YANDEXBOT), (200, 200, 301)),
    Group(6, ("192.0.2.2", "192.0.2.3"), ("/health",), ("uptime-probe/2.1",), (200,)),
    Group(2, ("198.51.100.7", "2001:db8:a::7"), ("/admin/", "/shop/"), (FIREFOX,), (200,)),
    Group(9, ("198.51.100.23", "198.51.100.24", "198.51.100.*", "2001:db8:bad::*"), LOGINS, ("-", CHROME), (404, 403)),
    Group(2, ("162.142.125.*",), ("/", "/robots.txt"), ("Mozilla/5.0 (compatible; CensysInspect/1.1)",), (200,)),
    Group(7, SERVERS, API + LOGINS, ("python-requests/2.32.5", "curl/8.5.0", CHROME), (200, 404)),
    Group(7, ("3.88.14.*", "35.160.7.*", "34.70.1.*"), API, ("Go-http-client/2.0", "okhttp/5.1.0"), (200, 429)),
    Group(2, ("8.8.8.8", "1.1.1.1", "9.9.9.9"), ("/",), ("-",), (200,)),
)  # fmt: skip

# What real logs hold as well: a host name in place of an address, a line cut by a full disk, NULs of a rotated file.
ODD = {
    411: "crawler.example.net - - [",
    902: "-",
    1303: "\0\0\0\0",
    1707: "300.1.2.3 - - [",
}


def lines() -> list[str]:
    """The lines of the log, in the order of their times, without line ends."""
    random = Random(SEED)
    seconds = sorted(random.random() * 86_400 for _ in range(LINES))
    made = [_line(random, DAY + timedelta(seconds=int(second))) for second in seconds]
    for number, start in ODD.items():
        line = made[number - 1]
        made[number - 1] = start + line.partition("[")[2] if start.endswith("[") else start
    return made


def _line(random: Random, when: datetime) -> str:
    group = _weighted(random)
    client = _one(random, group.clients)
    while "*" in client:
        client = client.replace("*", str(1 + int(random.random() * 254)), 1)
    path, agent, status = _one(random, group.paths), _one(random, group.agents), _one(random, group.statuses)
    size = 0 if status == 304 else int(200 + random.random() * 20_000)
    stamp = f"{when.day:02}/Nov/{when:%Y:%H:%M:%S} +0000"  # %b would follow the locale
    return f'{client} - - [{stamp}] "GET {path} HTTP/1.1" {status} {size} "-" "{agent}"'


def _weighted(random: Random) -> Group:
    left = random.random() * sum(group.weight for group in GROUPS)
    for group in GROUPS:
        left -= group.weight
        if left < 0:
            return group
    return GROUPS[-1]


def _one(random: Random, items: Sequence[Item]) -> Item:
    return items[int(random.random() * len(items))]


def write(path: Path) -> None:
    """None, after the log is at `path`, gzip without name or time, so that the same text gives the same file."""
    with path.open("wb") as raw, gzip.GzipFile("", "wb", compresslevel=9, fileobj=raw, mtime=0) as packed:
        packed.writelines(line.encode("ascii") + b"\n" for line in lines())


if __name__ == "__main__":
    write(Path(sys.argv[1]))
