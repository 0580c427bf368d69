"""`make demo`: what it prints is what it promises to show."""

from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path

import pytest

from gobanfast import Engine
from gobanfast.demo import __main__ as demo
from gobanfast.demo.make_log import ODD

FOLDER = Path(demo.__file__).parent


@pytest.fixture(scope="module")
def printed() -> list[str]:
    """The lines of the second part."""
    return "\n".join(demo.story()).splitlines()


def test_every_kind_of_answer_is_shown(printed: list[str]) -> None:
    """Each thing that can decide does so once; the last request that the limit of the tracker allows comes in."""
    answers = [line.split(maxsplit=1) for line in printed if line.startswith("    ")]

    assert [
        ["allow", "score 0.06, threshold 0.60"],
        ["ban", "rule login-probes; bans 46.101.9.5"],
        ["ban", "stored ban of 46.101.9.5, made by login-probes"],
        ["ban", "rule staging"],
        ["allow", "rule our-own"],
        ["challenge", "score 0.81, threshold 0.60"],
        ["allow", "score 0.41, threshold 0.60"],
        ["ban", "tracker distinct_fingerprints; bans 203.0.113.66"],
    ] == answers[:8]
    assert "fingerprint 51 " in printed[printed.index(f"    ban        {answers[7][1]}") - 1]


def test_it_ends_in_an_explanation_and_fits_a_screen(printed: list[str]) -> None:
    """The explanation names the three signals and the rule; no path of this machine is printed."""
    text = "\n".join(printed)

    for words in ("AS14061 DigitalOcean", "sni 'www.shop.example'", "user-agent 'curl/8.5.0'",
                  "by rule 'login-probes' at rules.yaml:"):  # fmt: skip
        assert words in text
    assert str(FOLDER) not in text
    assert len(printed) < 40
    assert max(map(len, printed)) <= 120


def test_it_says_the_same_each_time(printed: list[str]) -> None:
    """Times are given, not read; nothing that is random shows."""
    assert printed == "\n".join(demo.story()).splitlines()


def test_rules_of_the_log_match_what_its_lines_say() -> None:
    """Lines cut by hand: user agent "-" and paths of probes from rented servers are what the new rules count."""
    lines = gzip.decompress((FOLDER / "access.log.gz").read_bytes()).decode().splitlines()
    engine = Engine.load(FOLDER / "rules.yaml")
    rules: Counter[str | None] = Counter()
    expected: Counter[str] = Counter()
    for number, line in enumerate(lines, 1):
        if number in ODD:
            continue
        address, path, agent = line.split()[0], line.split()[6], line.split('"')[5]
        headers = [] if agent == "-" else [(b"user-agent", agent.encode())]
        rules[engine.peek(address, headers=headers, method="GET", path=path).rule] += 1
        rented = address.startswith(("46.101.9.", "5.196.77.", "88.99.14."))
        expected["login-probes"] += rented and path in ("/wp-login.php", "/xmlrpc.php", "/.env", "/.git/config")
        expected["nameless"] += agent == "-" and address in ("8.8.8.8", "1.1.1.1", "9.9.9.9")

    assert expected == Counter({rule: rules[rule] for rule in expected})
    assert all(expected.values())
