"""`gobanfast check`: decide addresses."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gobanfast.cli.common import (
    AsJson,
    Asn,
    Header,
    Host,
    Ja4,
    Method,
    Mount,
    Origin,
    Scheme,
    Sni,
    StoreUri,
    UrlPath,
    ask_store,
    coloured,
    load_asn,
    load_engine,
    members,
    network,
    not_asked,
    output,
    request_signals,
    table,
    unasked_text,
    unjudged,
    unjudged_text,
)

if TYPE_CHECKING:
    from gobanfast._core.decision import Decision


def check(
    addresses: Annotated[list[str], typer.Argument(metavar="ADDRESS...", help="IPv4 or IPv6 addresses.")],
    rules: Annotated[
        Path | None,
        typer.Option(
            "--rules", "-r", exists=True, dir_okay=False, help="Rules to decide by; default: only show the network."
        ),
    ] = None,
    asn: Asn = None,
    sni: Sni = None,
    ja4: Ja4 = None,
    header: Header = None,
    method: Method = None,
    path: UrlPath = None,
    mount: Mount = "",
    origin: Origin = None,
    host: Host = None,
    scheme: Scheme = None,
    store: StoreUri = None,
    as_json: AsJson = False,
) -> None:
    """Show the network of each address and the decision of the rules; with --store also of the stored bans."""
    refuse_malformed(addresses)
    said = request_signals(sni, ja4, header, method, path, mount, origin=origin, host=host, scheme=scheme)
    if said and rules is None:
        option = {"headers": "header"}.get(next(iter(said)), next(iter(said)))
        raise typer.BadParameter(f"--{option} needs --rules: no condition uses it")
    if rules is None and store != os.environ.get("GOBANFAST_STORE"):
        raise typer.BadParameter("--store needs --rules: a rule may allow what is banned")
    networks = load_asn(asn, rules)
    if rules is None:
        found = [(address, networks.lookup(address)) for address in addresses]
        if as_json:
            for address, number in found:
                name = None if number is None else networks.name(number)
                typer.echo(json.dumps({"address": address, "asn": number, "network": name}))
            return
        rows = [(address, network(number, networks)) for address, number in found]
        output().print(table("", ["address", "network"], rows))
        return
    engine = load_engine(rules, networks)
    if store is not None:
        ask_store(engine, store)
    decisions = [engine.peek(address, **said) for address in addresses]
    unasked, unsaid = not_asked(engine, store), unjudged(engine, said, *decisions)
    if as_json:
        for decision in decisions:
            typer.echo(json.dumps(members(decision, networks) | {"unjudged": unsaid, "not_asked": unasked}))
        return
    columns = ["address", "action", "rule", "network", "reason"]
    if any(decision.share for decision in decisions):
        columns.append("share")
    if any(decision.record_rule for decision in decisions):
        columns.append("record")
    if any(decision.shadow or decision.share_shadow or decision.record_shadow for decision in decisions):
        columns.append("shadow")
    if any(decision.logged for decision in decisions):
        columns.append("logged")
    output().print(
        table(
            "",
            columns,
            [
                [
                    decision.address or "",
                    coloured(decision.action),
                    f"ban of {decision.ban}" if decision.cause == "ban" else decision.rule or "-",
                    network(decision.asn, networks),
                    decision.reason or "",
                    *([_shared(decision)] if "share" in columns else []),
                    *([_recorded(decision)] if "record" in columns else []),
                    *([" ".join(_watched(decision))] if "shadow" in columns else []),
                    *([" ".join(decision.logged)] if "logged" in columns else []),
                ]
                for decision in decisions
            ],
        )
    )
    if unsaid:
        typer.echo(unjudged_text(unsaid, engine, said))
    if unasked:
        typer.echo(unasked_text(unasked, store))


def _shared(decision: Decision) -> str:
    """What is shared, and by which rule."""
    by = "no rule" if decision.share_rule is None else decision.share_rule
    return "-" if decision.share is None else f"{decision.share} ({by})"


def _recorded(decision: Decision) -> str:
    """Whether the trace is kept, by which rule, and how likely that was."""
    if decision.record_rule is None:
        return "-"
    likely = "" if decision.sampling_probability is None else f", {decision.sampling_probability:.4g}"
    return f"{'kept' if decision.record else 'not kept'} ({decision.record_rule}{likely})"


def _watched(decision: Decision) -> tuple[str, ...]:
    return (*decision.shadow, *decision.share_shadow, *decision.record_shadow)


def refuse_malformed(addresses: list[str]) -> None:
    """None if every text is an address; one usage error that names all that are not."""
    from gobanfast._core.address import parse_address

    bad = [address for address in addresses if parse_address(address) is None]
    if bad:
        raise typer.BadParameter(f"not an IP address: {', '.join(map(repr, bad))}")
