"""The challenge: tasks, solutions, passes, whom they are for and how long; and that a browser passes by itself."""

from __future__ import annotations

import hashlib
import html
import re
import shutil
import subprocess
import threading
from contextlib import contextmanager
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gobanfast.frontends import wsgi
from gobanfast.frontends.challenge import PASS, WORK, Challenge
from http_fakes import FakeDecision, FakeEngine

KEYS = ["new key of 20 bytes.", "old key of 20 bytes."]
ALICE, BOB = "203.0.113.1", "203.0.113.2"
PRINT_A, PRINT_B = "gh2:" + "a" * 32, "gh2:" + "b" * 32


class Clock:
    now = 1_800_000_000.0

    def __call__(self):
        return self.now


def challenge(keys=KEYS, **options):
    return Challenge(keys, **{"difficulty": 4, "clock": Clock()} | options)


def solve(answer):
    """The cookie that the page's script would set."""
    data = dict(re.findall(r'data-(\w+)="([^"]*)"', answer.body.decode()))
    number = 0
    while int.from_bytes(hashlib.sha256(f"{data['signature']}{number}".encode()).digest()) >> (256 - int(data["bits"])):
        number += 1
    return f"{html.unescape(data['cookie'])}={data['task']}.{data['signature']}.{number}"


def solution(made, address=ALICE, fingerprint=PRINT_A):
    return solve(made.response(address, fingerprint, request_id="r"))


def passing(made, address=ALICE, fingerprint=PRINT_A):
    return made.cookies(address, fingerprint, secure=True)[0][1].decode().partition(";")[0]


def test_solution_then_pass():
    """A solved task lets its client in; the pass given for it does, too; neither is anything to another client."""
    made = challenge()

    assert ("solved", None) == tuple(made.check(solution(made), address, PRINT_A) for address in (ALICE, BOB))
    assert ("passed", None) == tuple(made.check(passing(made), address, PRINT_A) for address in (ALICE, BOB))


@pytest.mark.parametrize(
    ("bind", "held"),
    [
        ("client", {(ALICE, PRINT_A), (ALICE, PRINT_B)}),
        ("fingerprint", {(ALICE, PRINT_A), (BOB, PRINT_A)}),
        ("client_fingerprint", {(ALICE, PRINT_A)}),
    ],
)
def test_binding(bind, held):
    """A pass and a solution are good for the clients that `bind` says, and for no other."""
    made = challenge(bind=bind)
    everyone = {(address, fingerprint) for address in (ALICE, BOB) for fingerprint in (PRINT_A, PRINT_B)}

    assert held == {who for who in everyone if made.check(passing(made), *who) == "passed"}
    assert held == {who for who in everyone if made.check(solution(made), *who) == "solved"}


@pytest.mark.parametrize(
    ("given", "shown", "expected"),
    [("2001:db8::1", "2001:db8::ffff", "passed"), ("2001:db8::1", "2001:db8:0:1::1", None), (None, None, "passed")],
)
def test_client_is_the_one_that_bans_know(given, shown, expected):
    """Clients of IPv6 are their /64; a client without an address is bound to that."""
    made = challenge()

    assert expected == made.check(passing(made, given), shown, None)


def test_expiry():
    """A pass holds for `seconds`, a task for five minutes."""
    made = challenge(seconds=600)
    held, solved = passing(made), solution(made)
    made._clock.now += 299
    assert "solved" == made.check(solved, ALICE, PRINT_A)
    made._clock.now += 2
    assert None is made.check(solved, ALICE, PRINT_A)
    assert "passed" == made.check(held, ALICE, PRINT_A)
    made._clock.now += 300
    assert None is made.check(held, ALICE, PRINT_A)


def test_key_rotation():
    """What an old key signed holds while that key is listed; the first key signs."""
    old, both, new = challenge(KEYS[1:]), challenge(KEYS), challenge(KEYS[:1])

    assert "passed" == both.check(passing(old), ALICE, PRINT_A)
    assert None is new.check(passing(old), ALICE, PRINT_A)
    assert "passed" == new.check(passing(both), ALICE, PRINT_A)


def test_solution_needs_the_work():
    """A number that does not solve the task, and a task of less difficulty than was signed, are nothing."""
    made = challenge(difficulty=12)
    solved = solution(made)
    stem, _, number = solved.rpartition(".")

    assert "solved" == made.check(solved, ALICE, PRINT_A)
    assert None is made.check(f"{stem}.{int(number) + 1}", ALICE, PRINT_A)
    assert None is made.check(solved.replace("=12-", "=1-"), ALICE, PRINT_A)
    assert None is made.check(f"{stem}.{'0' * 13}{number}", ALICE, PRINT_A)


def test_a_pass_is_no_solution_and_the_other_way_round():
    """Signatures are made for one use."""
    made = challenge()
    held, solved = passing(made), solution(made)

    assert None is made.check(held.replace(PASS, WORK), ALICE, PRINT_A)
    assert None is made.check(solved.replace(WORK, PASS), ALICE, PRINT_A)


@given(cookies=st.text("gobanfast-pwrk=;. 0123456789abcé", max_size=80))
def test_forged_cookies_are_nothing(cookies):
    """No Cookie header that we did not make is a pass, and none raises."""
    made = challenge()

    assert None is made.check(cookies, ALICE, PRINT_A)
    assert None is made.check(f"{PASS}={cookies}; {WORK}={cookies}", ALICE, PRINT_A)


@pytest.mark.parametrize("secure", [True, False])
def test_cookie_attributes(secure):
    """A pass cannot be read by scripts, is sent to this host only, and over TLS only where it was made over TLS."""
    line = challenge().cookies(ALICE, None, secure=secure)[0][1].decode()

    assert {"Path=/", "SameSite=Lax", "HttpOnly", "Max-Age=43200"} | ({"Secure"} if secure else set()) == set(
        line.split("; ")[1:]
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"keys": []}, "at least one"),
        ({"keys": "one text is no list"}, "at least one"),
        ({"keys": [KEYS[0], "short"]}, "number 2 is shorter"),
        ({"difficulty": 31}, "not 1 to 30"),
        ({"seconds": 0}, "must be positive"),
        ({"bind": "nobody"}, "not one of client"),
    ],
)
def test_wrong_arguments_are_named(arguments, words):
    """A Challenge that cannot be meant is refused, with the value."""
    with pytest.raises(ValueError, match=words):
        challenge(**arguments)


class Challenging(FakeEngine):
    def decide(self, address, /, **signals):
        super().decide(address, **signals)
        return FakeDecision(address, "challenge", "everyone", None, "rule")


@contextmanager
def served(middleware):
    """A WSGI server in a thread; its URL."""

    class Quiet(WSGIRequestHandler):
        def log_message(self, *_):
            pass

    server = WSGIServer(("127.0.0.1", 0), Quiet)
    server.set_app(middleware)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/page?x=1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


CHROMIUM = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
            "--disable-background-networking", "--disable-component-update", "--virtual-time-budget=20000",
            "--dump-dom")  # fmt: skip


def browse(url, folder):
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("chromium is not on PATH")
    done = subprocess.run(
        [path, *CHROMIUM, f"--user-data-dir={folder}", url], capture_output=True, timeout=60, check=False
    )
    return done.stdout.decode()


def test_browser_passes_and_keeps_its_pass(tmp_path):
    """Headless Chromium does the work, is let in with the query it came with, and has a pass for what it loads next."""

    def app(environ, start_response):
        seen.append((environ["PATH_INFO"], environ.get("QUERY_STRING"), PASS in environ.get("HTTP_COOKIE", "")))
        start_response("200 OK", [("Content-Type", "text/html")])
        return [b"<title>t</title><p id=in>let in</p><img src=/image>"]

    seen = []
    engine = Challenging()
    middleware = wsgi.Gobanfast(app, engine, challenge=Challenge(KEYS, difficulty=12))

    with served(middleware) as url:
        shown = browse(url, tmp_path)

    assert "let in" in shown
    assert ("/page", "x=1", False) == seen[0]
    assert ("/image", "", True) in seen


def test_page_says_what_to_do_without_scripts():
    """With JavaScript off the page tells whom to ask, and names the request."""
    body = challenge().response(ALICE, None, request_id="r-1", contact="a&b@example.com").body.decode()

    assert "The check needs JavaScript" in re.search("<noscript>(.*)</noscript>", body)[1]
    assert "<dd>r-1</dd>" in body
    assert "<dd>a&amp;b@example.com</dd>" in body
