"""`gobanfast serve`: run the decision service for proxies."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from signal import SIGTERM
from signal import signal as on_signal
from typing import TYPE_CHECKING, Annotated

import typer

from gobanfast._errors import GobanError
from gobanfast.cli.common import Asn, Rules, counted

if TYPE_CHECKING:
    from gobanfast.engine import Engine, Swap
    from gobanfast.enrich.crowdsec import CrowdSec

SHOWN = 10  # warnings at the start
TOKEN = "GOBANFAST_TOKEN"  # noqa: S105 - the variable's name


def serve(
    rules: Rules,
    asn: Asn = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", "-p", min=0, max=65535, help="Port to listen on.")] = 8787,
    uds: Annotated[str | None, typer.Option("--uds", metavar="PATH", help="Listen on a UNIX socket instead.")] = None,
    trust: Annotated[
        list[str] | None,
        typer.Option(
            "--trust",
            metavar="PREFIX",
            help="Proxies that may call; unix for a UNIX socket. Default: trust of the rules, else this machine.",
        ),
    ] = None,
    forwarded: Annotated[
        bool, typer.Option("--forwarded", help="Read the client from Forwarded in place of X-Forwarded-For.")
    ] = False,
    signal: Annotated[
        list[str] | None,
        typer.Option("--signal", metavar="NAME=HEADER", help="Headers in which proxies report sni or ja4: ja4=x-ja4."),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            "--store", "-s", envvar="GOBANFAST_STORE", metavar="URI", help="Store of bans that outlive the service."
        ),
    ] = None,
    log: Annotated[
        str | None, typer.Option("--log", metavar="URI", help="Sink of the decision log: file:PATH, stdout:, ...")
    ] = None,
    challenge_keys: Annotated[
        Path | None,
        typer.Option(
            "--challenge-keys", exists=True, dir_okay=False, help="Secrets for the challenge, one a line, newest first."
        ),
    ] = None,
    mount: Annotated[
        str | None, typer.Option("--mount", metavar="PATH", help="Path prefix that the proxies strip: /app.")
    ] = None,
    contact: Annotated[str | None, typer.Option("--contact", help="Contact shown to refused people.")] = None,
    show_reason: Annotated[
        bool, typer.Option("--show-reason", help="Show refused people the cause and the rule's reason.")
    ] = False,
    crowdsec: Annotated[
        str | None,
        typer.Option(
            "--crowdsec", metavar="URL", help="CrowdSec LAPI whose decisions are enforced; its key in CROWDSEC_KEY."
        ),
    ] = None,
    allow_on_error: Annotated[
        bool, typer.Option("--allow-on-error", help="Allow requests when the engine fails.")
    ] = False,
) -> None:
    """Run the decision service for proxies (nginx, Traefik, Caddy, Envoy); /bans needs GOBANFAST_TOKEN set."""
    try:
        import uvicorn
        from prometheus_client import CollectorRegistry, generate_latest
    except ImportError as error:
        raise typer.BadParameter(f"the service needs {error.name}: pip install 'gobanfast[serve]'") from None
    from gobanfast.engine import Engine
    from gobanfast.frontends.authz import DecisionService
    from gobanfast.frontends.challenge import Challenge
    from gobanfast.frontends.trust import CHAINS, Trust
    from gobanfast.telemetry.log import DecisionLog
    from gobanfast.telemetry.metrics import Metrics

    registry = CollectorRegistry()
    try:
        engine = Engine.load(rules, asn=asn, store=store)
        peers = trust or ([] if len(engine.ruleset.trust) else ["127.0.0.0/8", "::1/128", "unix"])
        if not peers and (forwarded or signal):
            raise typer.BadParameter("--forwarded and --signal need --trust with the peers that send them")
        signals = dict(text.partition("=")[::2] for text in signal or ())
        decisions = DecisionLog(log) if log is not None else None
        metrics = Metrics(engine, sync=engine.sync, log=decisions).register(registry)
        own = None
        if peers:
            chain, host_in = CHAINS[1:] if forwarded else CHAINS[:1], engine.ruleset.settings.trust.host
            own = Trust(peers, chain=chain, signals=signals, host=host_in)
        service = DecisionService(
            engine,
            token=os.environ.get(TOKEN),
            exposition=lambda: generate_latest(registry),
            trust=own,
            challenge=Challenge(challenge_keys.read_text().split()) if challenge_keys is not None else "refuse",
            contact=contact,
            show_reason=show_reason,
            mount=mount,
            log=decisions,
            metrics=metrics,
            on_error="allow" if allow_on_error else "refuse",
        )
        follower = _follower(engine, crowdsec)
    except GobanError:
        raise
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    engine.watch(rules, asn=asn)
    if follower is not None:
        follower.start()
    shown = f"store {store.partition('?')[0].rpartition('@')[2]}" if store is not None else "no store"
    typer.echo(
        f"gobanfast: deciding on {uds or f'{host}:{port}'} by {rules} ({counted(len(engine.ruleset.rules), 'rule')}, "
        f"hash {engine.ruleset.content_hash}), {shown}, {counted(len(engine.ruleset.problems), 'warning')}",
        err=True,
    )
    for problem in engine.ruleset.problems[:SHOWN]:
        typer.echo(f"gobanfast: warning: {problem}", err=True)
    engine.on_swap.append(lambda swap: typer.echo(_in_force(rules, swap), err=True))
    # uvicorn ends by raising the signal again: with an exit in place of a kill, the log is flushed and the store closed
    on_signal(SIGTERM, lambda *_: sys.exit(0))
    try:
        uvicorn.run(
            service,
            host=host,
            port=port,
            uds=uds,
            interface="asgi3",
            proxy_headers=False,  # it would put the client in the proxy's place before we see either
            server_header=False,
            access_log=False,
            log_level="warning",
        )
    finally:
        typer.echo("gobanfast: stopped", err=True)


def _follower(engine: Engine, url: str | None) -> CrowdSec | None:
    """What follows the LAPI at `url`. ValueError without a key for it."""
    if url is None:
        return None
    from gobanfast.enrich.crowdsec import CrowdSec

    return CrowdSec(engine, key=os.environ.get("CROWDSEC_KEY", ""), url=url)


def _in_force(rules: Path, swap: Swap) -> str:
    ruleset = swap.snapshot.ruleset
    return (
        f"gobanfast: {rules} is in force, generation {swap.generation}, {counted(len(ruleset.rules), 'rule')}, "
        f"hash {swap.content_hash}, {counted(len(ruleset.problems), 'warning')}"
    )
