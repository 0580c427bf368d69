"""CrawlerCheck: who says he is a crawler is asked about, and banned when DNS denies it."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from gobanfast import Engine, Ruleset
from gobanfast.enrich.crawlers import CrawlerCheck, confirm_crawler, forward_addresses
from gobanfast.frontends.asgi import Gobanfast
from test_frontend_asgi import Application, ask, header

GOOGLEBOT = b"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
CURL = b"curl/8.5.0"
YANDEX_APP = b"Mozilla/5.0 (Linux; Android 6.0.1; wv) Version/4.0 Chrome/50.0 Mobile Safari/537.36 YandexSearch/5.75"
GENUINE, LIAR, NAMELESS, SILENT = "66.249.66.1", "192.0.2.1", "192.0.2.2", "192.0.2.3"
NAMES = {GENUINE: "crawl-66-249-66-1.googlebot.com", LIAR: "crawl-66-249-66-1.googlebot.com"}


async def reverse(address):
    if address == SILENT:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    return NAMES.get(address)


async def forward(name):
    return [GENUINE] if name == NAMES[GENUINE] else []


@pytest.fixture
def engine():
    return Engine(Ruleset.from_text("{version: 1, rules: []}"))


def checked(engine, **options):
    return CrawlerCheck(engine, **({"duration": "1h", "reverse": reverse, "forward": forward} | options))


def agent(text):
    return [(b"host", b"a"), (b"user-agent", text)]


@pytest.mark.parametrize(
    ("client", "says", "banned"),
    [
        (GENUINE, GOOGLEBOT, False),
        (LIAR, GOOGLEBOT, True),
        (NAMELESS, GOOGLEBOT, True),
        (SILENT, GOOGLEBOT, False),
        (LIAR, CURL, False),
        (LIAR, YANDEX_APP, False),
        ("2001:db8::1", GOOGLEBOT, True),
    ],
)
def test_next_request_of_a_liar_is_refused(engine, client, says, banned):
    """The first request is answered as the rules have it; once DNS has denied the claim, the client is banned."""
    app, check = Application(), checked(engine)
    middleware = Gobanfast(app, engine, on_decision=check)

    first = ask(middleware, client, headers=agent(says))
    check.close()
    second = ask(middleware, client, headers=agent(says))

    assert [200, 403 if banned else 200] == [first[0]["status"], second[0]["status"]]
    assert banned == bool(header(second, b"retry-after"))
    assert ["says it is googlebot, DNS denies it"] * banned == [ban.reason for ban in engine.bans()]


def test_dns_is_asked_once(engine):
    """What DNS said is remembered, for as many addresses as `memory` says."""
    asked = []

    async def counted(address):
        asked.append(address)
        return NAMES.get(address)

    check = checked(engine, reverse=counted, memory=1)
    for client in (GENUINE, GENUINE, "66.249.66.2", GENUINE):
        check(engine.decide(client, headers={"HTTP_USER_AGENT": GOOGLEBOT.decode()}), "id")
        check.close()

    assert [GENUINE, "66.249.66.2", GENUINE] == asked


def test_whom_a_ban_holds_is_what_the_rules_say():
    """An IPv6 client is as large here as everywhere in these rules."""
    engine = Engine(Ruleset.from_text("{version: 1, bans: {ipv6_client: 48}, rules: []}"))
    check = checked(engine)
    check(engine.decide("2001:db8:1:2::3", headers=agent(GOOGLEBOT)), "id")
    check.close()

    assert ["2001:db8:1::/48"] == [ban.key for ban in engine.bans()]


def test_a_resolver_that_breaks_is_logged(engine, caplog):
    """Nobody waits for the answer, so what goes wrong while it is sought is told by the log, and bans nobody."""

    async def broken(_):
        raise ValueError("the resolver is broken")

    check = checked(engine, reverse=broken)
    check(engine.decide(LIAR, headers=agent(GOOGLEBOT)), "id")
    check.close()

    assert "the resolver is broken" in caplog.text
    assert [] == list(engine.bans())


def test_forked_child_asks_for_itself(engine):
    """A child of fork has neither the threads of its parent nor its lock, and works."""
    check = checked(engine)
    check(engine.decide(GENUINE, headers=agent(GOOGLEBOT)), "id")
    pid = os.fork()
    if pid == 0:
        try:
            check(engine.decide(LIAR, headers=agent(GOOGLEBOT)), "id")
            check.close()
            os._exit(0 if engine.decide(LIAR).action == "ban" else 1)
        finally:
            os._exit(2)
    check.close()

    assert 0 == os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert "allow" == engine.decide(LIAR).action


def test_dns_that_fails_denies_nothing(monkeypatch):
    """The system's resolver tells "no such name" from "no answer"; only the first one is a denial."""

    def says(number):
        def resolver(*_):
            raise socket.gaierror(number, "said so")

        return resolver

    async def asked(number):
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "getnameinfo", lambda *_, **__: asyncio.to_thread(says(number)))
        monkeypatch.setattr(loop, "getaddrinfo", lambda *_, **__: asyncio.to_thread(says(number)))
        return await confirm_crawler(GOOGLEBOT.decode(), LIAR), await confirm_crawler(
            GOOGLEBOT.decode(), GENUINE, reverse=reverse, forward=forward_addresses
        )

    assert (False, False) == asyncio.run(asked(socket.EAI_NONAME))
    assert (None, None) == asyncio.run(asked(socket.EAI_AGAIN))
