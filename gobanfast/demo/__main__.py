"""Demo requests, decided one after the other by the rules of the demo: `python -m gobanfast.demo`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from gobanfast import Decision, Engine

RULES = Path(__file__).parent / "live.yaml"

SHOP = "www.shop.example"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0"
CURL = "curl/8.5.0"


class Request(NamedTuple):
    """What one client says at one second of the demo; `note` says why it is here."""

    second: float
    address: str
    sni: str
    path: str
    agent: str
    note: str


REQUESTS = (
    Request(200, "203.0.113.9", SHOP, "/shop/", FIREFOX, "a visitor"),
    Request(201, "46.101.9.5", SHOP, "/wp-login.php", CURL, "a rented server looks for a way in"),
    Request(202, "46.101.9.5", SHOP, "/shop/", FIREFOX, "... and comes back as a browser"),
    Request(203, "203.0.113.9", "db.staging.shop.example", "/", FIREFOX, "a visitor where nobody is invited"),
    Request(204, "192.0.2.2", "db.staging.shop.example", "/", FIREFOX, "one of our own there"),
    Request(205, "203.0.113.80", "x7.shop.example", "/", "hello/1", "name and headers that nobody had before"),
)  # fmt: skip
ROTATED = 51


def decide(engine: Engine, request: Request) -> Decision:
    """The engine's answer, as a server with all three signals would ask for it."""
    headers = [(b"host", request.sni.encode()), (b"user-agent", request.agent.encode()), (b"accept", b"*/*")]
    return engine.decide(
        request.address, sni=request.sni, headers=headers, method="GET", path=request.path, now=request.second
    )


def because(decision: Decision) -> str:
    """What decided, in a few words."""
    if decision.cause == "rule":
        return f"rule {decision.rule}" + (f"; bans {decision.ban}" if decision.ban else "")
    if decision.cause == "ban":
        return f"stored ban of {decision.ban}, made by {decision.rule}"
    if decision.cause == "tracker":
        return f"tracker {decision.rule}; bans {decision.ban}"
    return f"score {decision.score:.2f}, threshold {decision.threshold:.2f}"


def show(request: Request, decision: Decision) -> str:
    """Two lines about one request."""
    return (
        f"{request.note}: {request.address} asks {request.sni} for {request.path} as {request.agent[:11]}\n"
        f"    {decision.action:<10} {because(decision)}"
    )


def story() -> Iterator[str]:
    """What the demo prints, part by part."""
    engine = Engine.load(RULES)
    yield "\nLive requests, by the same rules: address, server name and headers; with bans, tracker and score.\n"
    for second in range(200):  # the score has to see what is usual here
        decide(engine, Request(second, f"203.0.113.{1 + second % 40}", SHOP, "/", FIREFOX, ""))
    yield "200 requests of ordinary visitors come in; then"
    decisions = []
    for request in REQUESTS:
        decisions.append(decide(engine, request))
        yield show(request, decisions[-1])
    for turn in range(1, ROTATED + 1):
        note = f"one client, fingerprint {turn} within 5 s"
        request = Request(210 + turn / 10, "203.0.113.66", SHOP, "/", f"browser/{turn}", note)
        decision = decide(engine, request)
        if turn >= ROTATED - 1:
            yield show(request, decision)
    banned = sorted(ban.key for ban in engine.bans(now=220))
    yield f"\nBans in force: {', '.join(banned)}. Why was the second request refused?\n"
    yield engine.explain(decisions[1]).replace(f"{RULES.parent}/", "")


if __name__ == "__main__":
    sys.stdout.writelines(f"{part}\n" for part in story())
