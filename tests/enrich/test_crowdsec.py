"""CrowdSec: decisions of a LAPI become bans and end, whatever the LAPI does; with fakes and Debian's crowdsec."""

from __future__ import annotations

import http.client
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from gobanfast import Engine, Ruleset
from gobanfast.bans import Ban
from gobanfast.enrich.crowdsec import CrowdSec, alert_of, elements, seconds_of
from sources import serving

WAIT = 30.0
STREAM = "/v1/decisions/stream"
RULES = "trust: [192.0.2.0/24]\nrules: [{id: a, when: {prefix: 203.0.113.66/32}, action: ban}]\n"


def until(holds, seconds=WAIT):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)


def decision(number, value, duration="1h0m0s", **more):
    return {"id": number, "origin": "cscli", "scenario": "manual", "scope": "Ip", "type": "ban", "value": value,
            "duration": duration, **more}  # fmt: skip


class Lapi:
    """A fake: what the next looks get, and what came."""

    def __init__(self, source):
        self.source, self.engine = source, Engine(Ruleset.from_text(RULES))
        self.tell()

    def tell(self, *new, deleted=()):
        self.raw(json.dumps({"new": list(new) or None, "deleted": list(deleted) or None}).encode())

    def raw(self, body, status=200, **headers):
        self.source.put(STREAM, body, status, **headers)

    def client(self, **options):
        return CrowdSec(self.engine, key="k3y", url=self.source.url(""), **options)

    def bans(self):
        return {ban.key: ban.rule for ban in self.engine.bans()}


@pytest.fixture
def lapi():
    with serving() as source:
        yield Lapi(source)


@pytest.mark.parametrize(("text", "seconds"), [
    ("3h59m59.5s", 14399.5), ("-1m0s", -60.0), ("59m12s", 3552.0), ("0s", 0.0), ("1.5h", 5400.0), ("500ms", 0.5),
    ("1d", 86400.0), ("167h59m58.123456789s", 604798.123456789), ("12ns", 1.2e-8),
])  # fmt: skip
def test_durations_of_go(text, seconds):
    """A duration has the seconds that Go says."""
    assert seconds_of(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "h", "3", "3x", "1h 2m", "--1s", "1h2", "NaN"])
def test_other_texts_are_no_durations(text):
    """What is no duration is a ValueError."""
    with pytest.raises(ValueError, match="duration"):
        seconds_of(text)


@pytest.mark.parametrize("found", [
    {}, {"new": None, "deleted": []}, {"new": [1, "a", {"b": [1]}], "other": {"x": []}, "deleted": [None]},
])  # fmt: skip
def test_elements_one_at_a_time_are_those_of_the_whole(found):
    """`elements` gives what json.loads has in its lists."""
    expected = [(key, value) for key, values in found.items() if isinstance(values, list) for value in values]

    assert expected == list(elements(json.dumps(found)))
    assert expected == list(elements(json.dumps(found, indent=2)))


@pytest.mark.parametrize("text", ["", "[]", '{"new": [1', '{"new" 1}', '{"new": [1 2]}', "{", "null", "<html>"])
def test_what_is_no_stream_is_told(text):
    """JSON that is none, or of another form, is a ValueError."""
    with pytest.raises(ValueError, match=r"."):
        list(elements(text))


def test_decisions_become_bans_and_end(lapi):
    """A start brings all, later looks what changed; each scope is a key; the key is sent, and all scopes asked for."""
    client = lapi.client()
    lapi.tell(
        decision(1, "198.51.100.7"), decision(2, "198.51.100.130/25", scope="Range"), decision(3, "64500", scope="AS"),
        decision(4, "2001:db8:1::7", scope="ip"), decision(5, "AS64501", scope="as"),
    )  # fmt: skip
    assert client.look()
    assert lapi.bans() == dict.fromkeys(
        ("198.51.100.7", "198.51.100.128/25", "AS64500", "2001:db8:1::7", "AS64501"), "crowdsec"
    )
    assert lapi.engine.decide("198.51.100.200").cause == "ban"
    lapi.tell(decision(9, "198.51.100.9"), deleted=[decision(1, "198.51.100.7"), decision(3, "64500", scope="AS")])
    assert client.look()

    assert lapi.bans().keys() == {"198.51.100.128/25", "2001:db8:1::7", "AS64501", "198.51.100.9"}
    first, second = (request[1] for request in lapi.source.requests)
    assert "startup=true" in first
    assert "startup=false" in second
    assert all(scope in first for scope in ("ip", "range", "as", "country"))
    assert lapi.source.requests[0][2]["x-api-key"] == "k3y"


def test_one_of_several_decisions_ends(lapi):
    """A key is free only when its last decision is; the ban is as long as the longest that is left."""
    client = lapi.client()
    lapi.tell(decision(1, "198.51.100.7", "10m0s"), decision(2, "198.51.100.7", "4h0m0s"))
    client.look()
    assert lapi.engine.ban_table.get("198.51.100.7").expires == pytest.approx(time.time() + 14400, abs=60)

    lapi.tell(deleted=[decision(2, "198.51.100.7")])
    client.look()
    assert lapi.engine.ban_table.get("198.51.100.7").expires == pytest.approx(time.time() + 600, abs=60)
    lapi.tell(deleted=[decision(2, "198.51.100.7"), decision(1, "198.51.100.7")])
    client.look()
    assert lapi.bans() == {}


def test_a_ban_of_another_maker_is_not_lifted(lapi):
    """What a person banned stays when a decision about the key ends, also where the decision was the longer one."""
    client = lapi.client()
    lapi.engine.ban("198.51.100.1", duration="8h", reason="person")
    lapi.engine.ban("198.51.100.2", duration="10m", reason="person")
    lapi.tell(decision(1, "198.51.100.1"), decision(2, "198.51.100.2"))
    client.look()
    assert lapi.bans() == {"198.51.100.1": None, "198.51.100.2": "crowdsec"}

    lapi.tell(deleted=[decision(1, "198.51.100.1"), decision(2, "198.51.100.2")])
    client.look()
    assert {ban.key: ban.reason for ban in lapi.engine.bans()} == {"198.51.100.1": "person", "198.51.100.2": "person"}


def test_a_ban_ends_by_itself(lapi):
    """Each decision has an end of its own: a LAPI that is never heard of again bans nobody for ever."""
    client = lapi.client()
    lapi.tell(decision(1, "198.51.100.7", "0.4s"), decision(2, "198.51.100.8", "-5m"))
    client.look()
    until(lambda: lapi.bans() == {})


def test_what_cannot_be_enforced_is_counted_and_told_once(lapi, caplog):
    """Captchas, countries, other scopes, simulated, wide and unreadable decisions ban nobody."""
    client = lapi.client()
    bad = [
        decision(1, "198.51.100.1", type="log"), decision(2, "NL", scope="Country"),
        decision(3, "bob", scope="username"), decision(4, "198.51.100.4", simulated=True),
        decision(5, "0.0.0.0/0", scope="Range"), decision(6, "192.0.2.7"), decision(7, "what"),
        decision(8, "198.51.100.8", "soon"), decision("x", "198.51.100.9"), None, 5, {}, {"id": 10},
        decision(11, "0", scope="AS"), decision(12, "10.0.0.0/8", scope="Range"),
        decision(13, "1.2.3.4/99", scope="Range"), decision(14, "198.51.100.10", type="slow"),
    ]  # fmt: skip
    lapi.tell(*bad, decision(99, "198.51.100.99"), deleted=[None, {}, 5, decision(12345, "1.2.3.4")])
    with caplog.at_level(logging.WARNING, "gobanfast.crowdsec"):
        client.look()
        lapi.tell(*bad)
        client.look()

    assert lapi.bans() == {"198.51.100.99": "crowdsec"}
    health = client.health()
    assert (health["passed_over"], health["simulated"], health["refused"], health["received"]) == (8, 2, 6, 1)
    assert sum("country" in line for line in caplog.text.splitlines()) == 1


def test_captchas_and_throttles_are_labels(lapi):
    """A captcha decision is a label on the key, which a rule challenges, beside a ban of it; each ends alone."""
    rules = "rules: [{id: captcha, when: {label: captcha}, action: challenge}]\n"
    lapi.engine = Engine(Ruleset.from_text(rules))
    client = lapi.client()
    lapi.tell(
        decision(1, "198.51.100.1", type="captcha"), decision(2, "198.51.100.2", type="captcha"),
        decision(3, "198.51.100.2"), decision(4, "198.51.100.0/28", type="throttle", scope="Range"),
    )  # fmt: skip
    client.look()
    assert {(label.key, label.word) for label in lapi.engine.labels()} == {
        ("198.51.100.1", "captcha"), ("198.51.100.2", "captcha"), ("198.51.100.0/28", "throttle"),
    }  # fmt: skip
    assert lapi.bans() == {"198.51.100.2": "crowdsec"}
    assert lapi.engine.decide("198.51.100.1").action == "challenge"
    assert lapi.engine.decide("198.51.100.2").action == "ban"
    lapi.tell(deleted=[decision(3, "198.51.100.2"), decision(1, "198.51.100.1", type="captcha")])
    client.look()
    assert lapi.bans() == {}
    assert lapi.engine.decide("198.51.100.1").action == "allow"
    assert lapi.engine.decide("198.51.100.2").action == "challenge"
    assert {label.key for label in lapi.engine.labels()} == {"198.51.100.2", "198.51.100.0/28"}
    lapi.tell()
    lapi.client().look()  # another start: the LAPI knows of none any more
    assert list(lapi.engine.labels()) == []


def test_captchas_by_option(lapi):
    """captcha="ban" takes them for bans, "ignore" for nothing; anything else is no option."""
    lapi.tell(decision(1, "198.51.100.1", type="captcha"))
    lapi.client(captcha="ignore").look()
    assert (lapi.bans(), list(lapi.engine.labels())) == ({}, [])
    lapi.client(captcha="ban").look()

    assert lapi.bans() == {"198.51.100.1": "crowdsec"}
    for wrong in ({"captcha": "yes"}, {"on_outage": "maybe"}, {"machine": "m"}, {"url": "ftp://x"}, {"key": ""}):
        with pytest.raises(ValueError, match=r"."):
            CrowdSec(lapi.engine, **{"key": "k", **wrong})


def test_a_new_start_lifts_what_ended_meanwhile(lapi):
    """Bans of an earlier run, of which the LAPI knows no more, are lifted at the start; those of others stay."""
    gone, kept = (Ban(f"198.51.100.{i}", "old", "crowdsec", 0.0, time.time() + 999, 1, "import") for i in (1, 2))
    for ban in (gone, kept):
        lapi.engine.ban_table.put(ban)
    lapi.engine.ban("198.51.100.3")
    lapi.tell(decision(7, "198.51.100.2"))
    lapi.client().look()

    assert lapi.bans() == {"198.51.100.2": "crowdsec", "198.51.100.3": None}


@pytest.mark.parametrize(("body", "status", "headers"), [
    (b"", 500, {}), (b"<html>", 200, {"content_type": "text/html"}), (b"[]", 200, {}), (b'{"new": [', 200, {}),
    (b"{}", 403, {}), (b'{"new": []}', 200, {"content_length": "999"}), (b"{}", 302, {"location": "file:///etc/passwd"}),
])  # fmt: skip
@pytest.mark.parametrize("policy", ["local", "open", "closed"])
def test_an_outage_is_answered_by_policy(lapi, body, status, headers, policy):
    """Whatever the LAPI says in place of decisions: bans go on, or are lifted, or all are banned, until it answers."""
    client = lapi.client(on_outage=policy)
    lapi.tell(decision(1, "198.51.100.7"))
    client.look()
    good = lapi.source.answers[STREAM]
    lapi.raw(body, status, **headers)
    for _ in range(3):
        assert not client.look()

    assert client.health()["outage"]
    assert lapi.engine.decide("198.51.100.7").action == ("allow" if policy == "open" else "ban")
    assert lapi.engine.decide("8.8.8.8").action == ("ban" if policy == "closed" else "allow")
    lapi.source.answers[STREAM] = good
    until(client.look)
    assert not client.health()["outage"]
    assert lapi.engine.decide("198.51.100.7").action == "ban"
    assert lapi.engine.decide("8.8.8.8").action == "allow"


def test_a_long_start_is_whole(lapi):
    """Tens of thousands of decisions in one answer are all in force."""
    count = 20_000
    lapi.tell(
        *(decision(i, f"198.{18 + i % 2}.{i // 256 % 256}.{i % 256}", f"{1 + i % 50}h0m1s") for i in range(count))
    )
    client = lapi.client()

    assert client.look()
    expected = {f"198.{18 + i % 2}.{i // 256 % 256}.{i % 256}" for i in range(count)}
    assert lapi.bans().keys() == expected


def test_usage_is_told_and_not_to_those_who_take_none(lapi):
    """Requests decided and banned since the last time, and active decisions by origin."""
    client = lapi.client()
    lapi.source.put("/v1/usage-metrics", b"", 201)
    lapi.tell(decision(1, "198.51.100.7"), decision(2, "198.51.100.8", origin="CAPI"))
    client.look()
    for address in ("198.51.100.7", "198.51.100.7", "8.8.8.8"):
        lapi.engine.decide(address)
    client.tell_usage(time.time())

    method, _, headers, body = lapi.source.requests[-1]
    (component,) = json.loads(body)["remediation_components"]
    items = component["metrics"][0]["items"]
    assert (method, headers["x-api-key"], component["type"]) == ("POST", "k3y", "gobanfast")
    assert {(item["name"], item["value"], item["labels"].get("origin")) for item in items} == {
        ("processed", 3, None), ("dropped", 2, None), ("active_decisions", 1, "cscli"), ("active_decisions", 1, "CAPI"),
    }  # fmt: skip
    client.tell_usage(time.time())
    assert json.loads(lapi.source.requests[-1][3])["remediation_components"][0]["metrics"][0]["items"][0]["value"] == 0


def test_alerts_say_what_a_ban_is():
    """A ban of each key is an alert with one decision; fingerprints have no scope, what is over no alert."""
    now = time.time()
    ban = Ban("198.51.100.0/24", "scans", "scan", now, now + 60, 1, "rule")
    alert = alert_of(ban, now)
    assert alert["decisions"] == [{
        "duration": "60s", "origin": "gobanfast", "scenario": "gobanfast/scan", "scope": "Range", "type": "ban",
        "value": "198.51.100.0/24", "simulated": False,
    }]  # fmt: skip
    assert alert_of(Ban("AS64500", expires=now + 60), now)["decisions"][0]["value"] == "64500"
    assert alert_of(Ban("gh2:" + "0" * 32, expires=now + 60), now) is None
    assert alert_of(Ban("198.51.100.1", expires=now - 1), now) is None


def test_one_process_of_a_host_follows(lapi, caplog):
    """A LAPI gives each key a change once: a second process asks for none, says so, and takes over at the end."""
    first, second = lapi.client(every=0.05), lapi.client(every=0.05)
    lapi.tell(decision(1, "198.51.100.7"))
    first.start()
    try:
        until(lambda: first.health()["decisions"] == 1)
        with caplog.at_level(logging.WARNING, "gobanfast.crowdsec"):
            second.start()
            until(lambda: "give the engine a store" in caplog.text)
        assert (first.health()["leads"], second.health()["leads"]) == (True, False)
        first.close()
        until(lambda: second.health()["decisions"] == 1)
    finally:
        first.close()
        second.close()


# ---- Debian's crowdsec


class Real:
    """A LAPI of its own: configuration, database and port under a folder."""

    def __init__(self, folder):
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url, self.key = f"http://127.0.0.1:{self.port}", "a-key-of-a-bouncer"
        self.process = None

    def prepare(self):
        for name in ("data", "hub", "conf/notifications", "plugins"):
            (self.folder / name).mkdir(parents=True)
        conf, data = self.folder / "conf", self.folder / "data"
        (self.folder / "config.yaml").write_text(f"""
common: {{daemonize: false, log_media: stdout, log_level: info, log_dir: {self.folder}}}
config_paths: {{config_dir: {conf}, data_dir: {data}, simulation_path: {conf}/simulation.yaml,
  hub_dir: {self.folder}/hub, index_path: {self.folder}/hub/.index.json,
  notification_dir: {conf}/notifications, plugin_dir: {self.folder}/plugins}}
cscli: {{output: json}}
db_config: {{type: sqlite, db_path: {data}/crowdsec.db, log_level: error}}
api:
  client: {{credentials_path: {conf}/lapi.yaml}}
  server: {{log_level: info, listen_uri: 127.0.0.1:{self.port}, profiles_path: {conf}/profiles.yaml,
    console_path: {conf}/console.yaml}}
prometheus: {{enabled: false}}
""")
        (conf / "profiles.yaml").write_text("name: none\nfilters: ['false']\non_success: break\n")
        (conf / "simulation.yaml").write_text("simulation: false\n")
        (conf / "lapi.yaml").write_text(f"url: {self.url}\n")
        (self.folder / "hub" / ".index.json").write_text("{}")
        self.cscli("machines", "add", "gob", "--password", "a-password", "-f", conf / "lapi.yaml")
        self.cscli("bouncers", "add", "gob", "-k", self.key)

    def start(self):
        with (self.folder / "log").open("a") as log:
            command = [shutil.which("crowdsec"), "-c", str(self.folder / "config.yaml"), "-no-cs"]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

        def answers():
            assert self.process.poll() is None, (self.folder / "log").read_text()
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

        until(answers)

    def stop(self):
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(WAIT)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def cscli(self, *words):
        command = ["cscli", "-c", str(self.folder / "config.yaml"), *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def real(tmp_path):
    for name in ("crowdsec", "cscli"):
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not on PATH (Debian's package crowdsec)")
    made = Real(tmp_path / "crowdsec")
    made.prepare()
    made.start()
    try:
        yield made
    finally:
        made.stop()


def test_decisions_of_a_real_lapi(real):
    """`cscli decisions add` of each scope is in force after the next look, and over after `delete`."""
    engine = Engine(Ruleset.from_text(RULES))
    client = CrowdSec(engine, key=real.key, url=real.url)
    assert client.look()
    real.cscli("decisions", "add", "-i", "198.51.100.7", "-d", "1h")
    real.cscli("decisions", "add", "-r", "198.51.100.128/25", "-d", "2h")
    real.cscli("decisions", "add", "--scope", "AS", "--value", "15169", "-d", "2h")

    def keys():
        assert client.look()
        return {ban.key for ban in engine.bans()}

    until(lambda: keys() == {"198.51.100.7", "198.51.100.128/25", "AS15169"})
    assert engine.decide("8.8.8.8").cause == "ban"
    real.cscli("decisions", "delete", "-i", "198.51.100.7")
    until(lambda: keys() == {"198.51.100.128/25", "AS15169"})
    real.cscli("decisions", "delete", "--all")
    until(lambda: keys() == set())


def test_a_real_lapi_goes_away_and_comes_back(real):
    """Bans go on while it is gone, and what was deleted meanwhile is lifted after."""
    engine = Engine(Ruleset.from_text(RULES))
    client = CrowdSec(engine, key=real.key, url=real.url)
    real.cscli("decisions", "add", "-i", "198.51.100.7", "-d", "1h")
    until(lambda: client.look() and len(engine.ban_table) == 1)
    real.stop()
    assert not client.look()
    assert engine.decide("198.51.100.7").action == "ban"
    real.start()
    real.cscli("decisions", "delete", "--all")
    until(lambda: client.look() and len(engine.ban_table) == 0)


def test_our_bans_are_alerts_of_a_real_lapi(real):
    """With a machine's password our bans are pushed, shown by cscli, and lifted by cscli."""
    engine = Engine(Ruleset.from_text(RULES))
    client = CrowdSec(engine, key=real.key, url=real.url, every=0.2, machine="gob", password="a-password")  # noqa: S106
    client.start()
    try:
        until(lambda: client.health()["leads"])
        engine.ban("198.51.100.7", duration="1h", reason="by hand")
        until(lambda: "198.51.100.7" in real.cscli("decisions", "list", "-a", "-o", "json"))
        assert "gobanfast/manual" in real.cscli("alerts", "list", "-a", "-o", "json")
        until(lambda: client.health()["decisions"] == 1)
        assert engine.ban_table.get("198.51.100.7").reason == "by hand"
    finally:
        client.close()


APP = """
import json, os
from gobanfast import Engine
from gobanfast.enrich.crowdsec import CrowdSec

engine = Engine.load(os.environ["TEST_RULES"], store=os.environ.get("TEST_STORE"))
client = CrowdSec(engine, key=os.environ["TEST_KEY"], url=os.environ["TEST_URL"])
client.start()


def wsgi(environ, start_response):
    action = engine.decide("198.51.100.7").action
    body = json.dumps({"pid": os.getpid(), "action": action, "leads": client.health()["leads"]}).encode()
    start_response("200 OK", [("Content-Length", str(len(body))), ("Connection", "close")])
    return [body]
"""


@contextmanager
def workers(real, folder, **environ):
    """Four gunicorn workers that follow the LAPI; a function that gives the answers of all four, by process."""
    pytest.importorskip("gunicorn")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "bouncer_app.py").write_text(APP)
    (folder / "rules.yaml").write_text(RULES)
    environ = os.environ | environ | {
        "TEST_RULES": str(folder / "rules.yaml"), "TEST_KEY": real.key, "TEST_URL": real.url,
        "PYTHONPATH": f"{folder}{os.pathsep}{Path(__file__).parents[2]}",
    }  # fmt: skip
    log = (folder / "server.log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "bouncer_app:wsgi", "--workers", "4", "--bind", f"127.0.0.1:{port}",
         "--no-control-socket"],
        env=environ, stdout=log, stderr=log, cwd=folder, start_new_session=True,
    )  # fmt: skip

    def ask():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT)
        try:
            connection.request("GET", "/", headers={"Connection": "close"})
            return json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    seen = {}

    def all_say(action):
        """Whether each of the four workers answered so last, and there were four."""
        for _ in range(8):
            if (answer := ask()) is not None:
                seen[answer["pid"]] = answer
        return len(seen) == 4 and {answer["action"] for answer in seen.values()} == {action}

    try:
        until(lambda: ask() is not None, 90)
        yield all_say, seen
    finally:
        process.terminate()
        try:
            process.wait(WAIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        log.close()


def test_four_gunicorn_workers_enforce_and_end(real, tmp_path):
    """A decision is enforced by all four workers and ends in all on delete; one of them follows for all."""
    with workers(real, tmp_path, TEST_STORE=f"sqlite:{tmp_path / 'bans.db'}") as (all_say, seen):
        until(lambda: all_say("allow"), 90)
        real.cscli("decisions", "add", "-i", "198.51.100.7", "-d", "1h")
        until(lambda: all_say("ban"), 60)
        assert sum(answer["leads"] for answer in seen.values()) == 1
        real.cscli("decisions", "delete", "-i", "198.51.100.7")
        until(lambda: all_say("allow"), 60)
