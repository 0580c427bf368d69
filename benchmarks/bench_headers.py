"""Headers: 13 of a real browser in, their fingerprint out; the rules on a user agent; a flood of user agents.

Every request is a list of its own with bytes objects of its own. Peers are what applications do today: a hash over the
sorted pairs, and a dictionary of lower-case names with a regex over the user agent.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from benchmarks.cases import Case, Data, timed

SUITE = "headers"
CAPTION = "13 browser headers: ns median (times the no-op call)"
COUNT, DISTINCT = 20_000, 64
Pairs = list[tuple[bytes, bytes]]
AGENT = (
    b"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36"
)
BROWSER: Pairs = [
    (b"host", b"www.example.com"),
    (b"connection", b"keep-alive"),
    (b"sec-ch-ua", b'"Not_A Brand";v="8", "Chromium";v="120", "Google Chrome";v="120"'),
    (b"sec-ch-ua-mobile", b"?0"),
    (b"sec-ch-ua-platform", b'"Windows"'),
    (b"upgrade-insecure-requests", b"1"),
    (b"user-agent", AGENT),
    (b"accept", b"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8"),
    (b"sec-fetch-site", b"none"),
    (b"sec-fetch-mode", b"navigate"),
    (b"sec-fetch-dest", b"document"),
    (b"accept-encoding", b"gzip, deflate, br"),
    (b"accept-language", b"en-US,en;q=0.9"),
]
WORDS = ("sqlmap", "nikto", "masscan", "zgrab", "python-requests", "libwww", "dirbuster", "wpscan", "nmap", "acunetix")
RULES = "rules:\n" + "".join(
    f"- {{id: {word}, when: {{header: {{user-agent: {{regex: '{word}[/ ]?[0-9]*'}}}}}}, action: ban}}\n"
    for word in WORDS
)


def copy(pairs: Pairs) -> Pairs:
    return [(bytes(bytearray(name)), bytes(bytearray(value))) for name, value in pairs]


def fresh(count: int) -> list[Pairs]:
    copies = [copy(BROWSER) for _ in range(DISTINCT)]
    return [copies[i % DISTINCT] for i in range(count)]


def flood(count: int) -> list[Pairs]:
    """Requests each with a user agent that no other has."""
    flood.turn += 1  # type: ignore[attr-defined]
    return [
        [(name, b"%b %d %d" % (value, flood.turn, i) if name == b"user-agent" else value) for name, value in BROWSER]  # type: ignore[attr-defined]
        for i in range(count)
    ]


flood.turn = 0  # type: ignore[attr-defined]


def texts(count: int) -> list[str]:
    return [f"{i:015}" for i in range(count)]


def call_each(target: Callable[[Any], object], items: list[Any]) -> None:
    for item in items:
        target(item)


def decide_each(engine: Any, items: list[Pairs]) -> None:
    decide = engine.decide
    for item in items:
        decide("192.0.2.1", headers=item)


def hashed(pairs: Pairs) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name, value in pairs:
        digest.update(name.lower() + b"\0" + value + b"\n")
    return digest.hexdigest()


def searched(pattern: re.Pattern[bytes], pairs: Pairs) -> bool:
    return pattern.search({name.lower(): value for name, value in pairs}.get(b"user-agent", b"")) is not None


def cases(data: Data) -> Iterator[Case]:
    from benchmarks.floor import noop
    from gobanfast import Engine, Ruleset
    from gobanfast._core.headers import HeaderPlan

    plan, keyed = HeaderPlan(), HeaderPlan(key=b"0123456789abcdef")
    engine = Engine(Ruleset.from_text(RULES))
    anything = re.compile(b"|".join(word.encode() for word in WORDS), re.IGNORECASE)
    for group, made in (("browser", fresh), ("flood", flood)):
        yield Case(SUITE, group, "noop", "yardstick", COUNT, partial(texts, COUNT), partial(call_each, noop), "None")
        if made is fresh:
            for name, target in (("fingerprint", plan.fingerprint), ("keyed fingerprint", keyed.fingerprint)):
                yield Case(SUITE, group, f"gobanfast {name}", "ours", COUNT, partial(made, COUNT),
                           partial(call_each, target), "str")  # fmt: skip
            yield Case(SUITE, group, "BLAKE2b of the pairs", "peer", COUNT, partial(made, COUNT),
                       partial(call_each, hashed), "str")  # fmt: skip
        yield Case(SUITE, group, "gobanfast decide, 10 regexes on user-agent", "ours", COUNT, partial(made, COUNT),
                   partial(decide_each, engine), "a Decision")  # fmt: skip
        yield Case(SUITE, group, "dict and one re", "peer", COUNT, partial(made, COUNT),
                   partial(call_each, partial(searched, anything)), "bool")  # fmt: skip


def test_case(benchmark: Any, case: Case) -> None:
    """One case alone, for pytest-benchmark's statistics; the record comes from `python -m benchmarks.run`."""
    timed(benchmark, case)
