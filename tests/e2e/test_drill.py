"""A drill: gunicorn with four workers under wrk, rules edited live, and a second host; what must not happen, does not.

Rules of version v ban 203.0.113.i if i + v is a multiple of 3. Every answer says by which version it was made: refused
ones by the rule's reason, others by a rule that only notes. So each single answer is checked, also while rules are
swapped, and one that mixes two versions would be seen.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from gobanfast import Ruleset
from servers import program
from stores_fakes import WAIT, eventually

WORKERS = 4
ADDRESSES = 32
SOON = 10  # seconds for what takes a fraction of one on an idle machine

APP = """
import json, os, time
from urllib.parse import parse_qsl
from gobanfast import Engine
from gobanfast.frontends.wsgi import Gobanfast
from gobanfast.reload.decision_diff import Budget

BUDGET = os.environ["TEST_BUDGET"]
RULES = {"path": os.environ["TEST_RULES"], "last_good": "last_good.gbf"}
engine = Engine.load(**RULES, store=os.environ["TEST_STORE"])
engine.watch(**RULES, budget=Budget(max_changed=0.05, requests=int(BUDGET), seconds=60) if BUDGET else None)


def application(environ, start_response):
    path, asked = environ["PATH_INFO"], dict(parse_qsl(environ["QUERY_STRING"]))
    body = {"pid": os.getpid()}
    if path.startswith("/-/"):
        time.sleep(0.01)  # so that the next question goes to another worker
    if path == "/-/status":
        body |= engine.status()
    elif path == "/-/ban":
        engine.ban(asked["key"], duration="1h", reason="drill")
        body["made"] = time.time()
        body["flushed"] = asked["flush"] == "no" or engine.sync.flush()
    elif path == "/-/decide":
        body["action"] = engine.decide(asked["address"]).action
    else:
        body["version"] = ", ".join(environ["gobanfast.decision"].logged)
    body = json.dumps(body).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


guarded = Gobanfast(application, engine, routes={"/-/": "off"}, show_reason=True)
"""

LUA = """
local threads, n = {}, 0
local stored = tonumber(os.getenv("DRILL_STORED") or "-1")
right, wrong, example, versions = 0, 0, "", ","

function setup(thread) table.insert(threads, thread) end

function request()
    n = n + 1
    local headers = {["X-Forwarded-For"] = "203.0.113." .. n % 32, ["X-Request-ID"] = "drill-" .. n % 32}
    headers["Accept"], headers["Host"] = "application/json", "drill.example"
    return wrk.format("GET", "/", headers)
end

function response(status, headers, body)
    local asked = tonumber((headers["X-Request-ID"] or headers["x-request-id"] or ""):match("drill%-(%d+)") or "-1")
    local version = tonumber(body:match("version%-(%d+)") or "-1")
    local expected = -1
    if asked == stored then
        expected = 403
    elseif version >= 0 and asked >= 0 then
        expected = (asked + version) % 3 == 0 and 403 or 200
    end
    if status == expected then
        right = right + 1
    else
        wrong = wrong + 1
        example = status .. " for " .. asked .. ": " .. body:gsub("[^%w .:-]", " ")
    end
    if not versions:find("," .. version .. ",") then versions = versions .. version .. "," end
end

function done(summary, latency, requests)
    local all = {right = 0, wrong = 0, example = "", versions = ""}
    for _, thread in ipairs(threads) do
        all.right, all.wrong = all.right + thread:get("right"), all.wrong + thread:get("wrong")
        all.example, all.versions = all.example .. thread:get("example"), all.versions .. thread:get("versions")
    end
    local errors = summary.errors
    print(string.format('DRILL {"right": %d, "wrong": %d, "example": "%s", "versions": "%s", "socket_errors": %d}',
        all.right, all.wrong, all.example, all.versions,
        errors.connect + errors.read + errors.write + errors.timeout))
end
"""


def banned(version, number):
    """The oracle: whether rules of a version ban 203.0.113.`number`."""
    return (number + version) % 3 == 0


def rules(version, *more):
    prefixes = [f"203.0.113.{number}/32" for number in range(ADDRESSES) if banned(version, number)]
    lines = [
        "trust: [127.0.0.1/32]",
        "rules:",
        f"- {{id: version-{version}, when: any, action: log}}",
        f"- {{id: bad, when: {{prefix: [{', '.join(prefixes)}]}}, action: ban, reason: version-{version}}}",
    ]
    return "\n".join([*lines, *more]) + "\n"


class Host:
    """A guarded gunicorn, on port 8000 or a free one of its network, and on a UNIX socket for the test's questions."""

    def __init__(self, folder, inside=(), port=8000):
        self.rules, self.socket, self.log = folder / "rules.yaml", folder / "app.sock", folder / "server.log"
        self.folder, self.inside, self.port = folder, inside, port
        self.loads = []

    @contextmanager
    def serving(self, store, *options, budget=""):
        (self.folder / "drill_app.py").write_text(APP)
        environ = os.environ | {
            "TEST_RULES": str(self.rules), "TEST_STORE": store, "TEST_BUDGET": budget,
            "PYTHONPATH": f"{self.folder}{os.pathsep}{Path(__file__).parents[2]}",
        }  # fmt: skip
        command = [
            sys.executable,
            "-m",
            "gunicorn",
            "drill_app:guarded",
            "--workers",
            str(WORKERS),
            "--no-control-socket",
        ]
        with self.log.open("w") as log:
            server = subprocess.Popen(
                [*self.inside, *command, "--bind", f"127.0.0.1:{self.port}", "--bind", f"unix:{self.socket}", *options],
                env=environ, stdout=log, stderr=log, cwd=self.folder, start_new_session=True,
            )  # fmt: skip
        try:
            assert eventually(lambda: len(self.everyone("/-/status", 1)) == WORKERS, 60), self.log.read_text()
            yield server
        finally:
            for wrk in self.loads:
                wrk.kill()
                wrk.wait()
            server.terminate()
            try:
                server.wait(WAIT)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()

    def ask(self, path):
        """The body of an answer of some worker; None if there is none."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(WAIT)
            connection = http.client.HTTPConnection("drill.example")
            connection.sock = sock
            try:
                sock.connect(str(self.socket))
                connection.request("GET", path, headers={"Connection": "close"})
                return json.loads(connection.getresponse().read())
            except (OSError, http.client.HTTPException):
                return None

    def everyone(self, path, seconds=SOON):
        """pid -> the newest answer of each worker, asked until all have answered or time is up."""
        found, deadline = {}, time.monotonic() + seconds
        with ThreadPoolExecutor(WORKERS) as pool:
            while len(found) < WORKERS and time.monotonic() < deadline:
                answers = [answer for answer in pool.map(self.ask, [path] * WORKERS) if answer is not None]
                found |= {answer["pid"]: answer for answer in answers}
        return found

    def seconds_until(self, path, holds, seconds=SOON):
        """How long it took until `holds` of the answers of every worker."""
        begun, seen = time.monotonic(), {}
        while time.monotonic() - begun < seconds:
            seen = self.everyone(path)
            if len(seen) == WORKERS and all(map(holds, seen.values())):
                return time.monotonic() - begun
        raise AssertionError(f"after {seconds} seconds: {seen}")

    def edit(self, text, *, in_place):
        """Writes the rules file; returns how long it took until all workers had the new rules in force."""
        new = self.rules.with_name("new.yaml")
        new.write_text(text)
        expected = Ruleset.load(new).content_hash
        if in_place:
            self.rules.write_text(text)
        else:
            new.rename(self.rules)
        return self.seconds_until(
            "/-/status", lambda status: expected == status["content_hash"] and not status["stale"]
        )

    def load(self, *, stored=-1):
        """A running wrk, to be ended by `result`."""
        script = self.folder / "drill.lua"
        script.write_text(LUA)
        wrk = subprocess.Popen(
            [*self.inside, "wrk", "-t2", "-c8", "-d120s", "--timeout", "10s", "-s", str(script),
             f"http://127.0.0.1:{self.port}/"],
            env=os.environ | {"DRILL_STORED": str(stored)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self.loads.append(wrk)
        return wrk


def result(wrk):
    """What a wrk counted, with the versions as a set; every answer was right, none 5xx, no connection failed."""
    time.sleep(0.5)  # of load by what is in force now
    wrk.send_signal(signal.SIGINT)
    output, _ = wrk.communicate(timeout=60)
    found = json.loads(output.partition("DRILL ")[2].splitlines()[0])
    assert (found["wrong"], found["socket_errors"]) == (0, 0), output
    assert found["right"] > 0, output
    return found | {"versions": {int(version) for version in found["versions"].split(",") if version}}


def needs(*programs):
    pytest.importorskip("gunicorn")
    for name in programs:
        program(name)


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def refused(host, address):
    connection = http.client.HTTPConnection("127.0.0.1", host.port, timeout=WAIT)
    try:
        connection.request("GET", "/", headers={"X-Forwarded-For": address, "Connection": "close"})
        return connection.getresponse().status == 403
    finally:
        connection.close()


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["loaded by workers", "loaded before the fork"])
def test_live_edits_under_load(tmp_path, options):
    """While rules are edited, in place and by renaming, each answer is that of one version and no request fails; all
    workers come to the new rules, keep them when an edit is bad and say where, and enforce the ban of one of them."""
    needs("wrk")
    host = Host(tmp_path, port=free_port())
    host.rules.write_text(rules(0))
    with host.serving(f"sqlite:{tmp_path / 'bans.db'}", *options) as server:
        before = host.everyone("/-/status")
        load = host.load()
        times = [host.edit(rules(version), in_place=version % 2 == 0) for version in range(1, 6)]

        host.rules.write_text(rules(6, "- {id: wrong, when: {prefix: 10.0.0.1/8}, action: ban}"))
        bad = host.seconds_until("/-/status", lambda status: status["stale"])
        after = host.everyone("/-/status")
        expected = f"{host.rules}:5:"
        for status in after.values():
            assert 1 == len(status["problems"])
            assert status["problems"][0].startswith(expected)
            assert "10.0.0.1/8" in status["problems"][0]
            assert before[status["pid"]]["generation"] + 5 <= status["generation"]

        if not options:  # workers that start with the bad file have the last good rules
            server.send_signal(signal.SIGHUP)
            host.seconds_until("/-/status", lambda status: status["pid"] not in before and status["stale"], WAIT)
        found = result(load)
        assert {1, 2, 3, 4, 5} <= found["versions"] <= {0, 1, 2, 3, 4, 5}
        for number in range(ADDRESSES):
            assert banned(5, number) == refused(host, f"203.0.113.{number}")
        mended = host.edit(rules(7), in_place=True)

        load = host.load()
        assert host.ask("/-/ban?key=203.0.113.200&flush=no")["flushed"]
        known = host.seconds_until("/-/decide?address=203.0.113.200", lambda answer: answer["action"] == "ban")
        assert all(refused(host, "203.0.113.200") for _ in range(4 * WORKERS))
        result(load)
    print(f"{found}; new rules after {times}, bad after {bad}, mended after {mended}; ban after {known}")  # noqa: T201


# ---- a budget

TRAFFIC = [f"203.0.113.{number}" for number in range(ADDRESSES)] + [f"198.51.100.{number}" for number in range(68)]


@contextmanager
def traffic(host):
    """A connection to each worker, on which the hundred addresses come round and round; yields the statuses seen."""
    connections, ended, statuses = {}, threading.Event(), []
    deadline = time.monotonic() + WAIT
    while len(connections) < WORKERS and time.monotonic() < deadline:
        connection = http.client.HTTPConnection("127.0.0.1", host.port, timeout=WAIT)
        connection.request("GET", "/-/status")
        pid = json.loads(connection.getresponse().read())["pid"]
        if connections.setdefault(pid, connection) is not connection:
            connection.close()

    def client(connection):
        while not ended.is_set():
            for address in TRAFFIC:
                connection.request("GET", "/", headers={"X-Forwarded-For": address})
                response = connection.getresponse()
                response.read()
                statuses.append((address, response.status))

    with ThreadPoolExecutor(WORKERS) as pool:
        running = [pool.submit(client, connection) for connection in connections.values()]
        try:
            assert len(running) == WORKERS
            yield statuses
        finally:
            ended.set()
            for client_ in running:
                client_.result(WAIT)
            for connection in connections.values():
                connection.close()


def more(name, count):
    """A rule that bans `count` clients more out of the hundred, and some that are banned anyway."""
    prefixes = [f"198.51.100.{number}/32" for number in range(count)] + ["203.0.113.0/32", "203.0.113.3/32"]
    return f"- {{id: {name}, when: {{prefix: [{', '.join(prefixes)}]}}, action: ban}}"


def test_a_candidate_is_judged_on_live_traffic(tmp_path):
    """With a budget of 5 %, rules that ban 6 % more are rolled back by every worker, with a report of whose fault it
    is, and ban nobody meanwhile; rules that ban 1 % more come into force."""
    needs()
    host = Host(tmp_path, port=free_port())
    host.rules.write_text(rules(0))
    gthread = ("--worker-class", "gthread", "--threads", "4", "--keep-alive", "60")
    with host.serving(f"sqlite:{tmp_path / 'bans.db'}", *gthread, budget="500"), traffic(host) as statuses:
        before = Ruleset.load(host.rules).content_hash
        host.rules.write_text(rules(0, more("six", 6)))
        rolled_back = host.seconds_until("/-/status", lambda status: status["stale"], WAIT)
        for status in host.everyone("/-/status").values():
            report = status["reload"]["report"]
            assert (before, 1, False) == (status["content_hash"], status["reload"]["rollbacks"], report["promoted"])
            assert [f"{host.rules}: rolled back: {report['why']}"] == status["problems"]
            assert "6.0% of 500 requests differ, the budget is 5.0%" == report["why"]
            assert [{"old": None, "new": "six", "requests": 30}] == report["rules"]
            assert {f"198.51.100.{number}" for number in range(6)} == {one["address"] for one in report["examples"]}
        judged = list(statuses)
        host.rules.write_text(rules(0, more("one", 1)))
        promoted = host.seconds_until("/-/status", lambda status: status["reload"]["reloads"] == 1, WAIT)
        for status in host.everyone("/-/status").values():
            report = status["reload"]["report"]
            assert (False, [], True) == (status["stale"], status["problems"], report["promoted"])
            assert [{"old": None, "new": "one", "requests": 5}] == report["rules"]
        assert refused(host, "198.51.100.0")
    expected = {(address, 403 if banned(0, number) else 200) for number, address in enumerate(TRAFFIC[:ADDRESSES])}
    assert expected | {(address, 200) for address in TRAFFIC[ADDRESSES:]} == set(judged)
    assert {("198.51.100.0", 403)} == set(statuses) - set(judged)
    print(f"rolled back after {rolled_back}, promoted after {promoted}, {len(statuses)} requests")  # noqa: T201


# ---- two hosts


@contextmanager
def network():
    """Names of three network namespaces: a hub, and two hosts that reach nothing else."""
    needs("ip", "wrk", "redis-server")
    pytest.importorskip("redis")
    hub, *hosts = names = [f"gobanfast-{os.getpid()}-{part}" for part in ("hub", "a", "b")]
    with ExitStack() as stack:
        for name in names:
            made = subprocess.run([program("ip"), "netns", "add", name], capture_output=True, text=True, check=False)
            if made.returncode:
                pytest.skip(f"no network namespaces: {made.stderr.strip()}")
            stack.callback(ip, "netns", "del", name)
            ip("-n", name, "link", "set", "lo", "up")
        for number, host in enumerate(hosts):
            ip("-n", hub, "link", "add", f"host{number}", "type", "veth", "peer", "name", "eth0", "netns", host)
            for where, link, last in ((hub, f"host{number}", 1), (host, "eth0", 2)):
                ip("-n", where, "addr", "add", f"198.18.{number}.{last}/24", "dev", link)
                ip("-n", where, "link", "set", link, "up")
        yield names


def ip(*command):
    subprocess.run([program("ip"), *command], check=True, timeout=WAIT)


def test_two_hosts(tmp_path):
    """Over one Redis a ban made on a host is enforced by all workers of the other, under load and live edits; while the
    line to Redis is cut every answer stays right, and once it is back, what was missed is enforced."""
    with ExitStack() as stack:
        hub, *names = stack.enter_context(network())
        redis = subprocess.Popen(
            [program("ip"), "netns", "exec", hub, "redis-server", "--port", "6379", "--protected-mode", "no",
             "--save", "", "--dir", str(tmp_path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        stack.callback(redis.wait, WAIT)
        stack.callback(redis.kill)
        hosts = []
        for number, name in enumerate(names):
            (tmp_path / name).mkdir()
            host = Host(tmp_path / name, inside=("ip", "netns", "exec", name))
            host.rules.write_text(rules(0))
            stack.enter_context(host.serving(f"redis://198.18.{number}.1:6379/0"))
            hosts.append(host)
        a, b = hosts
        loads = [host.load() for host in hosts]
        times = [host.edit(rules(version), in_place=False) for version in (1, 2) for host in hosts]
        assert a.ask("/-/ban?key=203.0.113.200&flush=no")["flushed"]
        known = b.seconds_until("/-/decide?address=203.0.113.200", lambda answer: answer["action"] == "ban")
        for load in loads:
            assert {1, 2} <= result(load)["versions"] <= {0, 1, 2}
        assert a.ask("/-/ban?key=203.0.113.6&flush=yes")["flushed"]  # which version 2 does not ban
        b.seconds_until("/-/decide?address=203.0.113.6", lambda answer: answer["action"] == "ban")
        assert result(b.load(stored=6))["versions"] == {2, -1}

        ip("-n", hub, "link", "set", "host1", "down")
        load = b.load(stored=6)
        assert a.ask("/-/ban?key=203.0.113.201&flush=yes")["flushed"]
        b.seconds_until("/-/status", lambda status: status["store"]["outage"], WAIT)
        result(load)
        missed = b.everyone("/-/decide?address=203.0.113.201")
        assert ["allow"] * WORKERS == [answer["action"] for answer in missed.values()]
        ip("-n", hub, "link", "set", "host1", "up")
        learned = b.seconds_until("/-/decide?address=203.0.113.201", lambda answer: answer["action"] == "ban", WAIT)
    print(f"new rules after {times}, ban on the other host after {known}, after the cut {learned}")  # noqa: T201
