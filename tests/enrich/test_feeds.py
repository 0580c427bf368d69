"""Feeds: what a source may do, the last good list stays; one process of a host fetches, all see the change."""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import ssl
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gobanfast import Engine, RuleError, Ruleset
from gobanfast.cli.app import app
from gobanfast.enrich.download import DownloadError, Limits, download, gunzip, is_global
from gobanfast.enrich.feeds import FeedRefresher, due, refresh, status_of, update
from gobanfast.reload.watch import Watcher
from gobanfast.rules.feed_cache import FOLDER, entries_path, read_state
from gobanfast.rules.rule import PrefixList
from gobanfast.rules.settings import FeedSettings
from gobanfast.rules.text.feeds_ready import READY
from gobanfast.rules.text.feeds_schema import FeedModel
from servers import certificate  # noqa: F401 - a fixture
from sources import serving

WAIT = 30.0
NOBODY = PrefixList(b"", b"")
LOCAL = Limits(5.0, 1 << 20, private=True, insecure=True)
LIST = b"".join(b"198.51.100.%d\n" % i for i in range(100))


@pytest.fixture
def source():
    with serving() as made:
        yield made


def feed(source, place="/list", **options):
    return FeedSettings("bad", source.url(place), private=True, insecure=True, timeout=5.0, **options)


def fetched(one, folder, now=1000.0, trusted=NOBODY, force=False):
    folder.mkdir(exist_ok=True)
    return refresh(one, folder, folder, trusted, now=now, force=force)


def until(holds, seconds=WAIT):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


# ---- the fetch itself


@pytest.mark.parametrize("address", [
    "127.0.0.1", "10.1.2.3", "169.254.169.254", "100.64.0.1", "0.0.0.0", "::1", "fe80::1%eth0", "fd00::1",  # noqa: S104
    "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::1", "224.0.0.1", "255.255.255.255",
    "fec0::1", "::127.0.0.1", "64:ff9b:1::a00:1", "::ffff:0:127.0.0.1", "5f00::1",
])  # fmt: skip
def test_an_address_that_is_not_global_is_refused(address):
    """Whatever form a private address has, a feed is not fetched from it; one that resolves to both neither."""
    assert not is_global(address)
    for found in ([address], ["8.8.8.8", address]):
        with pytest.raises(DownloadError, match="not global"):
            download("https://feed.example/list", Limits(1.0), resolver=lambda *_, found=found: found)


def test_the_address_that_was_checked_is_the_one_connected_to(source):
    """DNS is asked once: what it says the second time is of no use to anyone."""
    source.put("/list", LIST)
    asked = []

    def rebinding(host, port):
        asked.append((host, port))
        return ["127.0.0.1"] if len(asked) == 1 else ["192.0.2.1"]

    answer = download(source.url("/list", "feed.example"), LOCAL, resolver=rebinding)

    assert (answer.status, answer.body, len(asked)) == (200, LIST, 1)
    assert source.requests[0][2]["Host"] == f"feed.example:{source.port}"


def test_redirects_are_checked_and_counted(source):
    """Three redirects are followed, a fourth is not; each goes where the first may go; the key stays with its host."""
    for step in range(4):
        source.put(f"/{step}", status=302, location=f"/{step + 1}")
    source.put("/4", LIST)
    source.put("/file", status=302, location="file:///etc/passwd")
    source.put("/none", status=302, location="http://[/")
    source.put("/inside", status=302, location="http://internal.example/x")
    source.put("/away", status=302, location=source.url("/4", "localhost"))

    assert download(source.url("/1"), LOCAL).body == LIST
    with pytest.raises(DownloadError, match="more than 3 redirects"):
        download(source.url("/0"), LOCAL)
    with pytest.raises(DownloadError, match="not an https: address"):
        download(source.url("/file"), LOCAL)
    with pytest.raises(DownloadError):
        download(source.url("/none"), LOCAL)

    def names(host, _):
        return {"feed.example": ["127.0.0.1"], "internal.example": ["10.0.0.1"]}[host]

    with pytest.raises(DownloadError, match="not https"):
        download(source.url("/1"), Limits(5.0, private=True))
    with pytest.raises(DownloadError, match="not global"):
        download("http://internal.example/x", Limits(5.0, insecure=True), resolver=names)
    download(source.url("/away"), LOCAL, secret={"authorization": "Bearer s3cret"})
    assert [asked[2].get("authorization") for asked in source.requests[-2:]] == ["Bearer s3cret", None]


def test_a_source_that_hangs_or_sends_drop_by_drop_is_left(source):
    """The cap on time holds for the whole fetch, also where a byte comes every now and then."""

    def drops(request):
        try:
            request.wfile.write(b"HTTP/1.1 200 OK\r\nx: ")
            for _ in range(600):
                request.wfile.write(b"x")
                request.wfile.flush()
                time.sleep(0.05)
        except OSError:
            pass

    source.put("/hangs", lambda _: time.sleep(10))
    source.put("/drops", drops)
    for path in ("/hangs", "/drops"):
        begun = time.monotonic()
        with pytest.raises(DownloadError, match=r"took over 0\.5 s"):
            download(source.url(path), Limits(0.5, 1 << 20, private=True, insecure=True))
        assert time.monotonic() - begun < WAIT / 3


def test_sizes_are_capped_before_and_after_unpacking(source):
    """A body that is too long, whatever it says, and a bomb of zeros are refused; gzip that is cut short is, too."""
    bomb = gzip.compress(bytes(50 << 20))
    source.put("/long", bytes(2 << 20))
    source.put("/bomb", bomb, content_encoding="gzip")
    source.put("/cut", gzip.compress(LIST)[:-9], content_encoding="gzip")
    source.put("/short", LIST, content_length=str(len(LIST) + 10))
    source.put("/packed", gzip.compress(LIST), content_encoding="gzip")

    assert len(bomb) < LOCAL.nbytes
    assert download(source.url("/packed"), LOCAL).body == LIST
    for path, why in (("/long", "more than max_bytes"), ("/bomb", "unpacks to more"), ("/cut", "cut short"),
                      ("/short", "came|cut short")):  # fmt: skip
        with pytest.raises(DownloadError, match=why):
            download(source.url(path), LOCAL)
    assert gunzip(gzip.compress(b"a") + gzip.compress(b"b"), 10) == b"ab"


def test_a_certificate_of_nobody_known_is_refused(certificate):  # noqa: F811
    """TLS that does not verify is an error with its reason, and one that does is used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    trusting = ssl.create_default_context(cafile=str(certificate[0]))
    trusting.verify_flags &= ~ssl.VERIFY_X509_STRICT  # on from 3.13; the certificate is a plain one of its own
    with serving(context=context) as secured:
        secured.put("/list", LIST)
        url = f"https://localhost:{secured.port}/list"
        with pytest.raises(DownloadError, match="certificate is refused"):
            download(url, Limits(5.0, private=True))
        assert download(url, Limits(5.0, private=True), context=trusting).body == LIST


# ---- the list


def test_a_feed_is_fetched_once_and_asked_about_then(source, tmp_path):
    """The second fetch is conditional; what did not change is confirmed and not read again."""

    def list_(request):
        if request.headers.get("if-none-match") == '"1"':
            return 304, b"", {}
        return 200, LIST, {"etag": '"1"'}

    source.put("/list", list_)
    one = feed(source)

    assert fetched(one, tmp_path).result == "new"
    before = entries_path(tmp_path, "bad", "prefix").stat().st_mtime_ns
    assert due(one, tmp_path, 1001.0) == 1000.0 + 3600.0
    assert fetched(one, tmp_path, 5000.0).result == "same"
    assert entries_path(tmp_path, "bad", "prefix").stat().st_mtime_ns == before
    assert status_of([one], tmp_path, 5010.0)[0] == {
        "name": "bad", "kind": "prefix", "entries": 100, "age": 10.0, "stale": False, "fetched_at": 1000.0,
        "failures": 0, "error": None,
    }  # fmt: skip


@pytest.mark.parametrize(("body", "headers", "why"), [
    (b"<!doctype html><p>log in", {"content_type": "text/html"}, "HTML"),
    (b"  <html>", {}, "HTML"),
    (b"", {}, "no entries"),
    (b"# nothing\n", {}, "no entries"),
    (b"".join(b"198.51.100.%d\n" % i for i in range(40)), {}, "shrank from 100 to 40"),
    (b"".join(b"198.51.%d.%d\n" % (i // 250, i % 250) for i in range(1001)), {}, "grew from 100 to 1,001"),
    (LIST + b"10.0.0.0/8\n", {}, "private or reserved"),
    (LIST + b"0.0.0.0/0\n", {}, "more than a /8"),
    (LIST + b"::/0\n", {}, "more than a /8"),
    (LIST + b"192.0.2.0/24\n", {}, "trust: names as a proxy"),
    (LIST + b"192.0.0.0/8\n", {}, "trust: names as a proxy"),
    (LIST + b"what is this\n", {}, "no IPv4 or IPv6 address"),
    (gzip.compress(LIST)[:-5], {}, "cut short"),
    (gzip.compress(bytes(80 << 20)), {}, "unpacks to more"),
    (b"\x1f\x8bgarbage", {}, "damaged"),
    (b'{"prefixes": 5}', {}, "JSON"),
    (b"[" * 100_000, {}, "JSON"),
    (b"\xff\xfe\x00\x01" * 10, {}, "no IPv4 or IPv6 address"),
])  # fmt: skip
def test_a_list_that_cannot_be_right_is_refused_and_the_last_good_one_stays(source, tmp_path, body, headers, why):
    """Poisoned, cut, wrong, or of another kind: the entries are those of before, and the state says why."""
    trusted = PrefixList(b"\0" * 10 + b"\xff\xff\xc0\x00\x02\x00", bytes([96 + 24]))
    source.put("/list", LIST)
    assert fetched(feed(source), tmp_path, trusted=trusted).result == "new"
    good = entries_path(tmp_path, "bad", "prefix").read_bytes()

    source.put("/list", body, **headers)
    outcome = fetched(feed(source), tmp_path, 9000.0, trusted)

    assert (outcome.result, outcome.count) == ("failed", 100)
    assert why in outcome.text
    assert entries_path(tmp_path, "bad", "prefix").read_bytes() == good
    state = read_state(tmp_path, "bad")
    assert (state["failures"], state["error"], state["checked_at"]) == (1, outcome.text, 1000.0)
    assert 9060.0 <= due(feed(source), tmp_path, 9000.0) <= 9070.0


def test_what_a_person_insists_on_is_taken(source, tmp_path):
    """--force takes a list of another size; `any_size` always; `special` leaves private space out, or keeps it."""
    source.put("/list", LIST)
    fetched(feed(source), tmp_path)
    source.put("/list", b"198.51.100.1\n10.0.0.0/8\n")

    assert fetched(feed(source), tmp_path, force=True).result == "failed"
    assert fetched(feed(source, special="skip"), tmp_path).result == "failed"  # shrinks
    outcome = fetched(feed(source, special="skip", any_size=True), tmp_path)
    assert (outcome.result, outcome.count, read_state(tmp_path, "bad")["skipped"]) == ("new", 1, 1)
    assert fetched(feed(source, special="keep", any_size=True), tmp_path).count == 2


def test_a_source_that_asks_to_wait_is_waited_for(source, tmp_path):
    """429 with Retry-After puts the next fetch off; failures put it off ever longer, up to `every`."""
    source.put("/list", status=429, retry_after="7200")
    assert fetched(feed(source), tmp_path).result == "failed"
    assert due(feed(source), tmp_path, 1000.0) == 8200.0

    source.put("/list", status=500)
    waits = []
    for _ in range(9):
        fetched(feed(source), tmp_path)
        waits.append(due(feed(source), tmp_path, 1000.0) - 1000.0)
    assert all(early <= late * 1.1 for early, late in pairwise(waits))
    assert 3600.0 <= waits[-1] <= 3960.0


def test_a_checksum_is_compared(source, tmp_path):
    """A list whose published SHA-256 is another is not taken."""
    source.put("/list", LIST)
    source.put("/sum", hashlib.sha256(b"other").hexdigest().encode() + b"  list\n")
    one = feed(source, checksum=source.url("/sum"))

    assert "checksum is another" in fetched(one, tmp_path).text
    source.put("/sum", hashlib.sha256(LIST).hexdigest().encode() + b"  list\n")
    assert fetched(one, tmp_path).result == "new"
    source.put("/sum", b"not found")
    assert "no SHA-256" in fetched(one, tmp_path, force=True).text


def test_a_key_goes_to_no_other_host_for_the_checksum(source, tmp_path, monkeypatch):
    """A checksum may be published elsewhere."""
    monkeypatch.setenv("FEED_KEY", "k3y")
    source.put("/list", LIST)
    source.put("/sum", hashlib.sha256(LIST).hexdigest().encode())
    for host, seen in ((source.url("/sum"), "Bearer k3y"), (source.url("/sum", "localhost"), None)):
        assert fetched(feed(source, key="FEED_KEY", checksum=host), tmp_path, force=True).result == "new"
        assert source.requests[-1][2].get("authorization") == seen


def test_a_redirect_with_blanks_in_it_is_told_without_its_query(source, tmp_path):
    """A signed address is a key, too."""
    source.put("/list", status=302, location=source.url("/a b?signature=s3cret"))
    told = fetched(feed(source), tmp_path).text + (tmp_path / "bad.json").read_text()

    assert "blanks" in told
    assert "s3cret" not in told


def test_a_key_comes_from_the_environment_and_is_in_no_message(source, tmp_path, monkeypatch):
    """The key is sent as the source asks; neither the state nor what is told has it, nor the query of the address."""
    source.put("/list", status=403)
    one = feed(source, "/list?account=7", key="FEED_KEY")
    assert "FEED_KEY has no key" in fetched(one, tmp_path).text

    monkeypatch.setenv("FEED_KEY", "k3y:value")
    told = fetched(one, tmp_path).text + (tmp_path / "bad.json").read_text()
    assert source.requests[-1][2]["authorization"] == "Bearer k3y:value"
    assert "status 403" in told
    assert "k3y" not in told
    assert "account" not in told
    fetched(feed(source, key="FEED_KEY", auth="basic"), tmp_path)
    assert source.requests[-1][2]["authorization"] == "Basic azN5OnZhbHVl"


def test_a_stale_list_is_kept_or_dropped_as_asked(source, tmp_path):
    """After `stale_after` without an answer a list is stale; `on_stale: drop` ends what it says."""
    for policy, stays in (("keep", True), ("drop", False)):
        folder = tmp_path / policy
        source.put("/list", LIST)
        one = feed(source, stale_after=100.0, on_stale=policy)
        fetched(one, folder)
        source.put("/list", status=500)
        fetched(one, folder, 1050.0)
        assert entries_path(folder, "bad", "prefix").is_file()
        fetched(one, folder, 1101.0)
        assert entries_path(folder, "bad", "prefix").is_file() == stays
        assert status_of([one], folder, 1101.0)[0]["stale"]
        source.put("/list", LIST)
        assert fetched(one, folder, 1200.0).result in {"same", "new"}
        assert entries_path(folder, "bad", "prefix").is_file()


def test_a_clock_that_was_set_back_keeps_no_feed_from_being_fetched(source, tmp_path):
    """A state from the future is due now, not in a year; its age is nothing, not less."""
    source.put("/list", LIST)
    one = feed(source)
    fetched(one, tmp_path, 1e9)

    assert due(one, tmp_path, 1000.0) == 1000.0
    assert status_of([one], tmp_path, 1000.0)[0]["age"] == 0.0


def test_a_damaged_state_is_as_good_as_none(source, tmp_path):
    """Junk in the folder makes a feed due; it never raises."""
    source.put("/list", LIST)
    one = feed(source)
    fetched(one, tmp_path)
    for junk in (b"", b"[1]", b"{", b'{"described": 5, "count": "x", "checked_at": []}', b"\xff" * 10):
        (tmp_path / "bad.json").write_bytes(junk)
        assert due(one, tmp_path, 2000.0) == 2000.0
        assert status_of([one], tmp_path, 2000.0)[0]["age"] is None
    assert fetched(one, tmp_path, 2000.0).result == "new"


@pytest.mark.parametrize(("options", "body", "kind", "text"), [
    ({}, b'{"prefixes":[{"ip_prefix":"198.51.100.0/24"}],"ipv6_prefixes":[{"ipv6_prefix":"2001:db8:1::/48"}]}',
     "prefix", "198.51.100.0/24\n2001:db8:1::/48\n"),
    ({"format": "jsonl"}, b'{"cidr":"198.51.100.0/24"}\n{"type":"metadata"}\n', "prefix", "198.51.100.0/24\n"),
    ({"format": "csv", "column": 2}, b"a,198.51.100.7\n# x\n", "prefix", "198.51.100.7\n"),
    ({"format": "json", "path": ("a[].b[]",)}, b'{"a":[{"b":["198.51.100.0/24"]},{"c":1}]}', "prefix",
     "198.51.100.0/24\n"),
    ({"format": "jsonl", "path": ("asn",)}, b'{"asn":64500}\n{"asn":64501}\n', "asn", "AS64500\nAS64501\n"),
    ({}, b"AS64500 # comment\n64501\n64510-64512\n", "asn", "AS64500\nAS64501\nAS64510-AS64512\n"),
    ({"format": "csv"}, b"AS64500,0.9\n64501,1\n", "risk", "AS64500,0.9\nAS64501,1\n"),
    ({"format": "json", "path": ("[].a", "[].r")}, b'[{"a":64500,"r":0.5}]', "risk", "AS64500,0.5\n"),
    ({}, b"||ads.example^\n@@||good.example^\n", "name", ".ads.example\n"),
])  # fmt: skip
def test_each_kind_and_format_is_read(source, tmp_path, options, body, kind, text):
    """What a source publishes becomes the same plain list, whatever shape it had."""
    source.put("/list", body)
    outcome = fetched(feed(source, kind=kind, any_size=True, **options), tmp_path)

    assert (outcome.result, outcome.text) == ("new", "")
    assert entries_path(tmp_path, "bad", kind).read_text() == text


@pytest.mark.parametrize(("kind", "body", "why"), [
    ("asn", b"AS0\n", "reserved"), ("asn", b"hello\n", "not valid"), ("asn", b"4294967296\n", "too large"),
    ("risk", b"AS1,2\n", "out of range"), ("risk", b"AS1\n", "no column 2"), ("risk", b"AS1,high\n", "could not"),
    ("name", b"what is this\n", "no known format"), ("table", b"hello", "table"),
])  # fmt: skip
def test_entries_of_other_kinds_are_checked(source, tmp_path, kind, body, why):
    """AS 0, words, numbers out of range and tables that are none are refused with the reason."""
    source.put("/list", body)
    outcome = fetched(feed(source, kind=kind, format="csv" if kind == "risk" else "auto"), tmp_path)

    assert outcome.result == "failed"
    assert why in outcome.text


def test_a_table_is_compiled_for_the_engine(source, tmp_path):
    """A feed of kind table is a file that `asn=` takes, and follows."""
    source.put("/list", gzip.compress(b"198.51.100.0\t198.51.100.255\t64500\tNL\tEXAMPLE\n"))
    assert fetched(feed(source, kind="table"), tmp_path).result == "new"
    (tmp_path / "rules.yaml").write_text("rules: [{id: a, when: {asn: 64500}, action: ban}]")

    engine = Engine.load(tmp_path / "rules.yaml", asn=entries_path(tmp_path, "bad", "table"))
    assert engine.decide("198.51.100.9").rule == "a"


def test_every_ready_made_feed_is_whole():
    """Each can be used by its name alone, but the one whose address its publisher changes each week."""
    for name, keys in READY.items():
        more = {} if "url" in keys else {"url": "https://download.example/tags.json"}
        assert FeedModel.model_validate({"use": name, **more}).settings("x").url.startswith("https://")


# ---- rules


def rules(folder, source, *lines, options="", text=None):
    (folder / "rules.yaml").write_text(
        f"feeds:\n  bad: {{url: '{source.url('/list')}', private: true, insecure: true, every: 1h{options}}}\n"
         "rules:\n" + "\n".join(lines or ("- {id: listed, when: {prefix: '@feed:bad'}, action: ban}",)) + "\n"
    )  # fmt: skip
    return folder / "rules.yaml"


def test_a_rule_holds_of_what_its_feed_has(source, tmp_path):
    """A feed stands under a condition or in a set; before it is fetched no condition on it holds."""
    source.put("/list", LIST)
    path = rules(
        tmp_path, source,
        "- {id: listed, when: {prefix: '@s'}, action: ban}",
        "- {id: false-crawler, when: {crawler: googlebot, outside: '@feed:bad'}, action: ban}",
        "- {id: not-listed, when: {not: {prefix: '@feed:bad'}}, action: log}",
        "sets: {s: {prefix: ['@feed:bad', 203.0.113.0/24]}}",
    )  # fmt: skip
    crawler = [(b"user-agent", b"Mozilla/5.0 (compatible; Googlebot/2.1)")]
    ruleset = Ruleset.load(path)
    assert ["unfetched-feed"] == [problem.code for problem in ruleset.problems]
    engine = Engine(ruleset)
    assert engine.decide("198.51.100.7", headers=crawler).action == "allow"
    assert engine.decide("203.0.113.7").rule == "listed"

    update(ruleset.settings.feeds, tmp_path / FOLDER, tmp_path, ruleset.trust, now=time.time())
    engine = Engine(Ruleset.load(path))
    assert engine.ruleset.problems == ()
    assert engine.decide("198.51.100.7").rule == "listed"
    assert engine.decide("192.0.2.7", headers=crawler).rule == "false-crawler"
    assert engine.decide("192.0.2.7").logged == ("not-listed",)
    saved = tmp_path / "rules.gbf"
    engine.ruleset.save(saved)
    assert Ruleset.load(saved).settings.feeds == ruleset.settings.feeds


def test_feeds_of_as_numbers_names_and_risks(source, tmp_path):
    """Conditions on the AS and the server name, and the risk of the score, take feeds; what is written there wins."""
    folder = tmp_path / FOLDER
    folder.mkdir()
    (folder / "hosting.asns").write_text("AS15169\n")
    (folder / "ads.names").write_text(".ads.example\n")
    (folder / "risk.csv").write_text("AS1-AS9,0.25\nAS5,0.75\n")
    (tmp_path / "rules.yaml").write_text("""
feeds:
  hosting: {use: spamhaus-asndrop}
  ads: {url: "https://lists.example/ads", kind: name}
  risk: {url: "https://lists.example/risk", kind: risk, format: csv}
score: {asn_risk: ["@feed:risk", {AS7: 1, AS20: 0.5}]}
rules:
- {id: hosting, when: {asn: "@feed:hosting"}, action: ban}
- {id: ads, when: {sni_file: "@feed:ads"}, action: ban}
""")
    engine = Engine(Ruleset.load(tmp_path / "rules.yaml"))

    assert engine.decide("8.8.8.8").rule == "hosting"
    assert engine.decide("192.0.2.1", sni="x.ads.example").rule == "ads"
    assert engine.ruleset.settings.score.asn_risk == (
        (1, 4, 0.25), (5, 5, 0.75), (6, 6, 0.25), (7, 7, 1.0), (8, 9, 0.25), (20, 20, 0.5),
    )  # fmt: skip


@pytest.mark.parametrize(("line", "why"), [
    ("x: {url: 'http://lists.example/a'}", "not https"),
    ("x: {url: 'file:///etc/passwd'}", "not an https: address"),
    ("x: {url: 'https://u:p@lists.example/a'}", "has a password"),
    ("x: {url: 'https://lists.example/a', key: 's3cret value'}", "not the name of an environment variable"),
    ("x: {url: 'https://lists.example/a', file: a}", "url or a file"),
    ("x: {}", "url or a file"),
    ("x: {use: nothing}", "no ready-made feed is called 'nothing'"),
    ("x: {url: 'https://lists.example/a', every_: 1h}", "did you mean 'every'?"),
    ("x: {url: 'https://lists.example/a', every: 0s}", "zero"),
    ("../x: {url: 'https://lists.example/a'}", "feed name '../x' is not valid"),
])  # fmt: skip
def test_what_is_wrong_with_a_feed_is_told_with_its_place(line, why):
    """Wrong feeds, and feeds in the wrong place, are problems of the rules file like any other."""
    text = f"feeds:\n  {line}\nrules: [{{id: a, when: any, action: log}}]\n"
    with pytest.raises(RuleError, match="2:") as caught:
        Ruleset.from_text(text)
    assert why in str(caught.value)


@pytest.mark.parametrize(("where", "why"), [
    ("trust: ['@feed:ok']", "trust takes no feed"),
    ("rules: [{id: b, when: {prefix: '@feed:no'}, action: ban}]", "no feed is called 'no'; feeds: numbers, ok"),
    ("rules: [{id: b, when: {prefix: '@feed:numbers'}, action: ban}]", "of kind asn, and 'prefix' takes prefix"),
    ("rules: [{id: b, when: {sni: '@feed:ok'}, action: ban}]", "'sni' takes no feed"),
])  # fmt: skip
def test_a_feed_in_the_wrong_place_is_refused(tmp_path, where, why):
    """Who is trusted no list says; each key takes its kind."""
    head = "feeds:\n  ok: {use: aws}\n  numbers: {use: spamhaus-asndrop}\n"
    rest = "" if where.startswith("rules") else "rules: [{id: a, when: any, action: log}]\n"
    with pytest.raises(RuleError) as caught:
        Ruleset.from_text(head + where + "\n" + rest, source=str(tmp_path / "rules.yaml"))
    assert why in str(caught.value)


# ---- beside a running engine


def test_a_watched_engine_fetches_and_follows(source, tmp_path):
    """`watch` fetches what the rules name, and what the source changes comes into force; nothing else is called."""
    source.put("/list", LIST)
    path = rules(tmp_path, source)
    engine = Engine.load(path)
    with engine.watch(path, interval=0.05):
        until(lambda: engine.decide("198.51.100.7").action == "ban")
        assert engine.status()["feeds"][0]["entries"] == 100
    assert source.count("/list") == 1


def test_an_hour_of_a_feed_that_changes_fails_and_comes_back(source, tmp_path):
    """On a clock of its own: an hourly feed is asked when due, survives an outage, and the rules follow each change."""
    now = [1_000_000.0]
    source.put("/list", LIST)
    path = rules(tmp_path, source, options=", timeout: 5s")
    engine = Engine.load(path)
    refresher = FeedRefresher(engine, path, clock=lambda: now[0])
    watcher = Watcher(engine, path)
    try:
        refresher.check()
        asked = source.count("/list")
        for minute in range(1, 261):
            now[0] += 60.0
            if minute == 50:
                source.put("/list", LIST + b"203.0.113.9\n")
            if minute == 70:
                source.put("/list", status=503)
            if minute == 160:
                source.put("/list", LIST[: LIST.index(b"\n", 900) + 1] + b"203.0.113.10\n")
            if refresher.check():
                watcher.check()
            if minute == 65:
                assert engine.decide("203.0.113.9").action == "ban"
    finally:
        refresher.close()
        watcher.close()
    assert 4 <= source.count("/list") - asked <= 12
    assert engine.decide("203.0.113.9").action == "allow"
    assert engine.decide("203.0.113.10").action == "ban"


WORKER = """
import sys, time
from gobanfast import Engine
engine = Engine.load(sys.argv[1])
with engine.watch(sys.argv[1], interval=0.05):
    end = time.monotonic() + 30
    while engine.decide("198.51.100.7").action != "ban" and time.monotonic() < end:
        time.sleep(0.02)
    print(engine.decide("198.51.100.7").action)
"""


def test_four_processes_fetch_once(source, tmp_path):
    """Workers that start together share the folder: one request reaches the source, and all enforce the list."""
    source.put("/list", LIST)
    path = rules(tmp_path, source)
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER, str(path)], stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    said = [worker.communicate(timeout=90)[0].strip() for worker in workers]

    assert said == ["ban"] * 4
    assert source.count("/list") == 1


def test_a_feed_that_fails_is_logged_and_counted(source, tmp_path, caplog):
    """The log says which feed and why, once a try; metrics have its age and failures."""
    from gobanfast.telemetry.metrics import Metrics

    source.put("/list", LIST)
    path = rules(tmp_path, source)
    ruleset = Ruleset.load(path)
    update(ruleset.settings.feeds, tmp_path / FOLDER, tmp_path, ruleset.trust, now=time.time() - 7200)
    source.put("/list", b"<html>")
    engine = Engine(ruleset)
    with caplog.at_level(logging.WARNING, "gobanfast.feeds"):
        refresher = FeedRefresher(engine, path)
        assert [outcome.result for outcome in refresher.check()] == ["failed"]
        refresher.close()
    assert "feed bad: not refreshed, the last good one stays: it is HTML" in caplog.text
    metrics = Metrics(engine)
    samples = {sample.name: sample.value for family in metrics.collect() for sample in family.samples}
    assert samples["gobanfast_feed_failures"] == 1
    assert samples["gobanfast_feed_entries"] == 100
    assert 7000 < samples["gobanfast_feed_age_seconds"] < 8000
    metrics.close()


def run(*words, **environ):
    return CliRunner().invoke(app, ["feeds", *map(str, words)], env=environ)


def test_the_commands(source, tmp_path):
    """`feeds update` fetches, `list` shows, `check` keeps nothing; status 1 where one fails."""
    source.put("/list", LIST)
    path = rules(tmp_path, source)
    checked = run("check", path)
    assert (checked.exit_code, checked.stdout) == (0, "bad: new: 100 entries\n")
    assert not entries_path(tmp_path / FOLDER, "bad", "prefix").exists()
    assert run("update", path, "bad").stdout == "bad: new: 100 entries\n"
    assert run("update", path).stdout == "bad: same: 100 entries\n"
    assert json.loads(run("list", path, "--json").stdout)["entries"] == 100
    assert "100" in run("list", path).stdout
    source.put("/list", b"192.0.2.1\n")
    failed = run("update", path)
    assert (failed.exit_code, "shrank from 100 to 1" in failed.stderr) == (1, True)
    assert run("update", path, "--force").stdout == "bad: new: 1 entry\n"
    assert run("update", path, "no").exit_code == 2
    elsewhere = tmp_path / "elsewhere"
    assert run("update", path, GOBANFAST_FEEDS=str(elsewhere)).exit_code == 0
    assert (elsewhere / "bad.netset").is_file()


def test_a_folder_that_cannot_be_written_stops_nothing(source, tmp_path):
    """Where nothing can be kept the engine decides on, and says what is wrong."""
    source.put("/list", LIST)
    path = rules(tmp_path, source)
    (tmp_path / FOLDER).write_text("a file")
    refresher = FeedRefresher(Engine.load(path), path)

    assert refresher.check() == []
    refresher.close()
    assert Path(path).exists()
