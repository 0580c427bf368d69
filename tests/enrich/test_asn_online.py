"""AS look-ups online: first success of sources that hang, lie and limit; caches; one question for many askers."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from contextlib import contextmanager

import pytest
from typer.testing import CliRunner

from gobanfast._errors import GobanError
from gobanfast.cli.app import app
from gobanfast.enrich.asn import AsnLookup, key_of
from gobanfast.enrich.asn_cache import decode, encode, open_cache
from gobanfast.enrich.asn_sources import (
    AsnAnswer,
    Cymru,
    Rdap,
    RipeStat,
    SourceError,
    UnknownError,
    checked_asn,
    checked_country,
    checked_prefix,
    checked_text,
    network_of,
)
from gobanfast.enrich.first_success import NoSuccessError, first_success
from sources import serving
from stores_fakes import redis_server  # noqa: F401 - a fixture

SECONDS = 5.0
ADDRESS, NETWORK = "8.8.8.8", "8.8.8.0/24"


def until(holds, seconds=30.0):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


# ---- first success


def test_first_success_is_the_first_and_the_others_are_ended():
    """A failure is no success, a slow one is cancelled and awaited, and what is never needed is not started."""
    ended = []

    async def fails():
        raise SourceError("no")

    async def answers():
        return 1

    async def hangs():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            ended.append("hangs")
            raise

    async def never():
        ended.append("never")

    async def body():
        assert await first_success([hangs, fails, answers, never], timeout=30, hedge=0.01) == 1
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(body())
    assert ended == ["hangs"]


def test_no_success_has_all_errors_and_comes_in_time():
    """All that failed is told, in order; what hangs is a time-out."""

    async def fails(text):
        raise SourceError(text)

    async def hangs():
        await asyncio.sleep(60)

    with pytest.raises(NoSuccessError) as caught:
        asyncio.run(first_success([lambda: fails("a"), lambda: fails("b"), hangs], timeout=0.1, hedge=0.01))
    assert [str(error) for error in caught.value.errors] == ["a", "b", "no answer within 0.1 s"]
    with pytest.raises(NoSuccessError, match="no source"):
        asyncio.run(first_success([]))


# ---- what is asked, and what is taken for an answer


@pytest.mark.parametrize(("what", "key"), [
    ("8.8.8.8", "8.8.8.0/24"), ("2001:4860:4860::8888", "2001:4860:4860::/48"), ("::ffff:8.8.8.8", "8.8.8.0/24"),
    ("AS15169", "AS15169"), ("as15169", "AS15169"), (15169, "AS15169"), ("15169", "AS15169"),
])  # fmt: skip
def test_a_network_is_asked_about_and_never_an_address(what, key):
    """The last octet, or the last 80 bits, leave no machine."""
    assert key_of(what) == key


@pytest.mark.parametrize("what", ["10.0.0.1", "127.0.0.1", "::1", "fe80::1", "224.0.0.1", "x", "", "AS0", "AS1-AS9"])
def test_what_no_source_can_know_is_not_asked(what):
    """Private addresses and words are a ValueError before anything is sent."""
    with pytest.raises(ValueError, match=r"."):
        key_of(what)


def test_what_sources_say_is_checked():
    """AS 0, words, prefixes elsewhere and control characters do not get through."""
    for wrong in (0, "0", -1, True, None, "x", "AS", 2**32, "1" * 400, [], {}):
        with pytest.raises(SourceError):
            checked_asn(wrong, "x")
    assert checked_asn("AS15169", "x") == 15169
    assert checked_prefix("8.0.0.0/9", NETWORK) == "8.0.0.0/9"
    for wrong in ("0.0.0.0/0", "9.0.0.0/8", "8.8.8.0/25", "::/0", None, 5, "x" * 1000):
        assert checked_prefix(wrong, NETWORK) == NETWORK
    assert checked_text("a\x00\n b" + "x" * 999) == ("a b" + "x" * 999)[:200]
    assert checked_text(5) is None
    assert [checked_country(value) for value in ("us", "USA", None, "1a", "éé")] == ["US", None, None, None, None]


# ---- fakes of each source


@contextmanager
def dns_zone(records, *, silent=False):
    """A name server of TXT records on a UDP port; `asked` has the names."""
    dns_message = pytest.importorskip("dns.message", reason="dnspython is not installed")
    import dns.flags
    import dns.rcode
    import dns.rrset

    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    asked = []

    def serve():
        while True:
            try:
                data, peer = sock.recvfrom(4096)
            except OSError:
                return
            query = dns_message.from_wire(data)
            name = query.question[0].name.to_text().rstrip(".")
            if name == "stop":
                return
            asked.append(name)
            if silent:
                continue
            answer = dns_message.make_response(query)
            if (text := records.get(name)) is None:
                answer.set_rcode(dns.rcode.NXDOMAIN)
            else:
                answer.answer.append(dns.rrset.from_text(name + ".", 60, "IN", "TXT", json.dumps(text)))
            sock.sendto(answer.to_wire(), peer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield ("127.0.0.1", sock.getsockname()[1]), asked
    finally:
        stop = dns_message.make_query("stop.", "TXT").to_wire()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(stop, sock.getsockname())
        thread.join(10)
        sock.close()


ZONE = {
    "0.8.8.8.origin.asn.cymru.com": "15169 | 8.8.8.0/24 | US | arin | 2023-12-28",
    "AS15169.asn.cymru.com": "15169 | US | arin | 2000-03-30 | GOOGLE, US",
}


def put_ripestat(source):
    def json_of(found):
        return lambda _: (200, json.dumps({"data": found}).encode(), {"content_type": "application/json"})

    source.put("/data/network-info/data.json", json_of({"asns": ["15169"], "prefix": "8.8.8.0/24"}))
    source.put("/data/as-overview/data.json", json_of({"resource": "15169", "holder": "GOOGLE - Google LLC"}))
    source.put("/data/rir-stats-country/data.json", json_of({"located_resources": [{"location": "US"}]}))


def put_rdap(source):
    base = source.url("/rdap/")
    services = {"ipv4": [[["8.0.0.0/8"], [base]]], "ipv6": [], "asn": [[["15000-16000"], ["ftp://x/", base]]]}
    for kind, found in services.items():
        source.put(f"/boot/{kind}.json", json.dumps({"services": found}).encode())
    card = ["vcard", [["version", {}, "text", "4.0"], ["fn", {}, "text", "Google LLC"]]]
    holder = {"name": "GOOGLE", "handle": "AS15169", "country": "US", "objectClassName": "autnum",
              "entities": [{"roles": ["registrant"], "vcardArray": card}]}  # fmt: skip
    source.put("/rdap/autnum/15169", json.dumps(holder).encode())
    cidrs = [{"v4prefix": "8.8.8.0", "length": 24}]
    network = {**holder, "handle": "NET-8-8-8-0-2", "arin_originas0_originautnums": [15169], "cidr0_cidrs": cidrs}
    source.put("/rdap/ip/8.8.8.0", json.dumps(network).encode())


@pytest.fixture
def source():
    with serving() as made:
        put_ripestat(made)
        put_rdap(made)
        yield made


def ripestat(source):
    return RipeStat(source.url(""), private=True, seconds=SECONDS)


def rdap(source):
    return Rdap(source.url("/boot"), private=True, seconds=SECONDS)


@contextmanager
def looking(*sources, timeout=SECONDS, **options):
    lookup = AsnLookup(sources=sources, timeout=timeout, **options)
    try:
        yield lookup
    finally:
        lookup.close()


def test_each_source_says_who_announces_a_network(source):
    """All three give the same AS, country and prefix for the same network, and are asked for the network alone."""
    with dns_zone(ZONE) as (server, asked):
        for each in (ripestat(source), rdap(source), Cymru(server, seconds=SECONDS)):
            with looking(each) as lookup:
                answer = lookup.lookup(ADDRESS)
                assert (answer.prefix, answer.asn, answer.country, answer.source) == (NETWORK, 15169, "US", each.name)
                assert "GOOGLE" in answer.org.upper()
                holder = lookup.lookup("AS15169")
                assert (holder.prefix, holder.asn, holder.country) == (None, 15169, "US")
    assert asked[0] == "0.8.8.8.origin.asn.cymru.com"
    assert not any(ADDRESS in request[1] for request in source.requests)
    assert all("sourceapp=gobanfast" in request[1] for request in source.requests if request[1].startswith("/data/"))


def test_ipv6_is_asked_by_its_48():
    """The reversed nibbles of the network, the rest zero."""
    network = "2001:4860:4860::/48"
    name = "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.8.4.0.6.8.4.1.0.0.2.origin6.asn.cymru.com"
    with dns_zone({name: "15169 | 2001:4860::/32 | US | arin | 2005-03-14"}) as (server, _):
        answer = asyncio.run(Cymru(server, seconds=SECONDS).of_network(network, 1.0))
    assert (answer.asn, answer.prefix, answer.org) == (15169, "2001:4860::/32", None)


@pytest.mark.parametrize("body", [
    b"", b"<html>", b"[]", b"{}", b'{"data": []}', b'{"data": {"asns": ["0"]}}', b'{"data": {"asns": "15169"}}',
    b'{"data": {"asns": [{"x": 1}]}}', b'{"data": {"asns": ["15169; DROP"]}}', b"[" * 50_000, b"x" * (2 << 20),
])  # fmt: skip
def test_a_source_that_lies_is_passed_over(source, body):
    """AS 0, strings, HTML, huge or other JSON: the next source answers."""
    source.put("/data/network-info/data.json", body)
    with looking(ripestat(source), rdap(source)) as lookup:
        assert lookup.lookup(ADDRESS).source == "rdap"


def test_a_source_that_hangs_costs_the_hedge_alone(source):
    """The second is asked while the first hangs; its call is ended, and three hangs open its breaker."""
    gate = threading.Event()
    source.put("/data/network-info/data.json", lambda _: gate.wait(20) and None)
    try:
        with looking(ripestat(source), rdap(source), hedge=0.05) as lookup:
            assert lookup.lookup(ADDRESS).source == "rdap"
    finally:
        gate.set()


def test_no_source_answers(source):
    """The error says what each said; it is remembered for a while, and the sources are left alone meanwhile."""
    for path in list(source.answers):
        source.put(path, status=500)
    with looking(ripestat(source), rdap(source), hedge=0.01) as lookup:
        with pytest.raises(GobanError, match=r"status 500.*status 500"):
            lookup.lookup(ADDRESS)
        asked = len(source.requests)
        assert lookup.lookup(ADDRESS) is None
        assert len(source.requests) == asked


def test_three_failures_open_the_breaker(source):
    """A source that failed three times in a row rests; another one goes on being asked."""
    source.put("/data/network-info/data.json", status=500)
    with looking(ripestat(source), rdap(source), hedge=0.01) as lookup:
        for third in range(3):
            with pytest.raises(GobanError):
                lookup.lookup(f"9.9.{third}.1")
        assert lookup.health()["sources"]["ripestat"]["state"] in {"open", "half-open"}


def test_a_limit_is_honoured(source):
    """429 with Retry-After: that source is not asked again until then."""
    source.put("/data/network-info/data.json", status=429, retry_after="600")
    with looking(ripestat(source), rdap(source), hedge=0.01) as lookup:
        assert lookup.lookup(ADDRESS).source == "rdap"
        before = source.count("/data/network-info/data.json")
        with pytest.raises(GobanError):
            lookup.lookup("9.9.9.9")
        assert source.count("/data/network-info/data.json") == before == 1


def test_nobody_announces_it(source):
    """A network that all sources know nobody for is no answer, remembered as such."""

    async def nobody(_, __):
        raise UnknownError("nobody")

    one = ripestat(source)
    one.of_network = nobody
    with looking(one) as lookup:
        assert lookup.lookup(ADDRESS) is None
        assert lookup.lookup(ADDRESS) is None
        assert (lookup.health()["unknown"], lookup.health()["memory_hits"]) == (1, 1)


def test_many_askers_are_one_question(source):
    """Hundreds of look-ups of a few networks at once: each network is asked about once, by the counts at the source."""
    networks = [f"8.{i}.{j}.0/24" for i in range(2) for j in range(10)]
    with looking(ripestat(source), timeout=30.0) as lookup:
        threads = [
            threading.Thread(target=lambda i=i: lookup.lookup(networks[i % 20].replace(".0/24", f".{i % 250 + 1}")))
            for i in range(400)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert source.count("/data/network-info/data.json") == 20
        health = lookup.health()
        assert health["joined"] + health["memory_hits"] == 380


def test_asking_never_waits_and_is_bounded(source):
    """`ask` returns at once; what has no room is refused and counted; what is known is there without a question."""
    gate = threading.Event()
    source.put("/data/network-info/data.json", lambda _: gate.wait(30) and None)
    told = []
    with looking(ripestat(source), timeout=20.0) as lookup:
        said = [lookup.ask(f"8.{i // 250}.{i % 250}.1", told.append) for i in range(1100)]
        assert said == [True] * 1024 + [False] * 76
        assert not lookup.ask("10.0.0.1")
        assert lookup.cached("8.0.0.1") is None
        gate.set()
    assert lookup.health()["no_room"] == 76


def test_memory_is_bounded_and_what_is_asked_most_stays(source):
    """The one that was asked least recently goes first."""
    with looking(ripestat(source), most=3) as lookup:
        for third in (1, 2, 3, 1, 4):
            lookup.lookup(f"8.8.{third}.1")
        assert lookup.health()["memory"] == 3
        assert lookup.cached("8.8.2.9") is None
        assert lookup.cached("8.8.1.9").asn == 15169


def test_a_stale_answer_is_given_while_it_is_asked_again(source):
    """After `fresh` seconds an answer is still given at once, and refreshed beside."""
    with looking(ripestat(source), fresh=0.0) as lookup:
        first = lookup.lookup(ADDRESS)
        again = lookup.lookup(ADDRESS)
        assert again is first
        until(lambda: lookup.cached(ADDRESS).fetched_at > first.fetched_at)
        assert source.count("/data/network-info/data.json") >= 2


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_the_second_cache_is_shared(source, tmp_path, kind, request):
    """What one process learned, another one has without a question, under asn:geo:."""
    uri = f"sqlite:{tmp_path / 'asn.db'}" if kind == "sqlite" else request.getfixturevalue("redis_server").uri
    with looking(ripestat(source), cache=uri) as first:
        answer = first.lookup(ADDRESS)
    with looking(ripestat(source), cache=uri) as second:
        assert second.lookup(ADDRESS) == answer
        assert second.health()["cache_hits"] == 1
    assert source.count("/data/network-info/data.json") == 1
    if kind == "redis":
        import redis

        with redis.Redis.from_url(uri) as client:
            (key,) = client.keys("asn:geo:*")
            assert key == b"asn:geo:8.8.8.0/24"
            assert 86000 < client.ttl(key) <= 86400


def test_a_cache_that_is_down_is_no_reason_to_fail(source, tmp_path):
    """Redis down, a file that is none, junk in it: sources answer."""
    (tmp_path / "junk.db").write_bytes(b"junk" * 1000)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for uri in (f"redis://127.0.0.1:{port}/0", f"sqlite:{tmp_path / 'junk.db'}", f"sqlite:{tmp_path}/no/such"):
        with looking(ripestat(source), cache=uri) as lookup:
            assert lookup.lookup(ADDRESS).asn == 15169
            assert lookup.health()["cache_failures"] >= 1
    with pytest.raises(ValueError, match="not an address"):
        open_cache("ftp://x")


def test_answers_are_written_and_read():
    """JSON of an answer is that answer; junk is none."""
    answer = AsnAnswer(NETWORK, 15169, "GOOGLE", "US", "cymru", 1.5, None)
    assert decode(encode(answer)) == answer
    for junk in ("", "{}", "null", "[]", '{"asn": 5}', "[" * 10_000, None, encode(answer).replace("15169", '"x"')):
        assert decode(junk) is None


def test_network_of_refuses_what_is_private():
    """See `key_of`."""
    with pytest.raises(ValueError, match="not global"):
        network_of("192.168.1.1")


# ---- the command


def run(*words):
    return CliRunner().invoke(app, ["asn", *words])


def test_the_command_looks_up_in_the_table():
    """Without --online nobody is asked: the table answers, or nobody."""
    found = run("lookup", "8.8.8.8", "--json")
    assert json.loads(found.stdout)["asn"] == 15169
    assert json.loads(run("lookup", "AS15169", "--json").stdout)["org"]
    assert run("lookup", "198.51.100.1").exit_code == 1
    assert run("lookup", "what").exit_code == 2
