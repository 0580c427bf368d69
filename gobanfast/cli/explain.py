"""`gobanfast explain`: decide one request and explain the decision."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gobanfast.cli.check import refuse_malformed
from gobanfast.cli.common import (
    AsJson,
    Asn,
    Header,
    Host,
    Ja4,
    Method,
    Mount,
    Origin,
    Rules,
    Scheme,
    Sni,
    StoreUri,
    UrlPath,
    ask_store,
    load_asn,
    load_engine,
    log_streams,
    members,
    not_asked,
    request_signals,
    unasked_text,
    unjudged,
    unjudged_text,
)
from gobanfast.engine import Engine

if TYPE_CHECKING:
    from gobanfast.asn import AsnTable


def explain(
    rules: Rules,
    address: Annotated[str | None, typer.Argument(help="IPv4 or IPv6 address.")] = None,
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
    log: Annotated[
        Path | None, typer.Option("--log", help="Decision log that holds the decision, plain or gzip; - is stdin.")
    ] = None,
    id: Annotated[str | None, typer.Option("--id", help="Id of the decision in the log.")] = None,  # noqa: A002
    rules_dir: Annotated[
        Path | None,
        typer.Option("--rules-dir", exists=True, file_okay=False, help="Folder with earlier rules, for --log."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Explain the decision about a request: the rule, its place, the values it matched, what would change it.

    With --store the stored bans are asked too. With --log and --id: decide a logged decision again, by the rules of
    that time, which may be in --rules-dir; status 1 if it comes out otherwise, or if the rules have changed since.
    """
    said = request_signals(sni, ja4, header, method, path, mount, origin=origin, host=host, scheme=scheme)
    if address is not None and log is None and id is None:
        refuse_malformed([address])
        networks = load_asn(asn, rules)
        engine = load_engine(rules, networks)
        if store is not None:
            ask_store(engine, store)
        decision = engine.peek(address, **said)
        unasked, unsaid = not_asked(engine, store), unjudged(engine, said, decision)
        if as_json:
            shown = {"explanation": engine.explain(decision).split("\n"), "unjudged": unsaid, "not_asked": unasked}
            typer.echo(json.dumps(members(decision, networks) | shown))
            return
        typer.echo(engine.explain(decision))
        if unsaid:
            typer.echo(unjudged_text(unsaid, engine, said))
        if unasked:
            typer.echo(unasked_text(unasked, store))
    elif address is None and not said and log is not None and id is not None:
        logged(rules, asn, log, id, rules_dir, as_json=as_json)
    else:
        raise typer.BadParameter("give an ADDRESS, or --log with --id")


def logged(rules: Path, asn: Path | None, log: Path, wanted: str, rules_dir: Path | None, *, as_json: bool) -> None:
    """Explains a line of a decision log."""
    from gobanfast.batch.logs import unpacked_lines
    from gobanfast.telemetry.replay import find_line, replay

    with ExitStack() as stack:
        ((name, stream),) = log_streams([log], stack)
        line = find_line(unpacked_lines(stream, name), wanted, name)
    networks = load_asn(asn, rules)
    engine = load_engine(rules, networks)
    if engine.ruleset.content_hash != line["ruleset"] and rules_dir is not None:
        engine = _kept(rules_dir, networks, line["ruleset"]) or engine
    if line["pseudonyms"] is not None or engine.ruleset.content_hash != line["ruleset"]:
        why = (
            "logged with pseudonyms, so what it was made of is not in the log"
            if line["pseudonyms"] is not None
            else f"rules changed since (then {line['ruleset'][:12]}, {rules} is {engine.ruleset.content_hash[:12]}); "
            "give the rules of that time, or the folder they are kept in with --rules-dir"
        )
        if as_json:
            typer.echo(json.dumps({"logged": line, "decided_again": False, "why": why}))
        else:
            typer.echo("\n".join(_as_logged(line)))
            typer.echo(f"not decided again: {why}")
        raise typer.Exit(1)
    again = replay(line, engine.ruleset)
    if as_json:
        found = {"decided_again": True, "differences": again.differences, "notes": again.notes,
                 "explanation": engine.explain(again.decision).split("\n")}  # fmt: skip
        typer.echo(json.dumps({"logged": line} | found))
    else:
        typer.echo(engine.explain(again.decision))
        typer.echo(f"  logged     {line['time']}, {line['action']} (cause {line['cause']})")
        for note in again.notes:
            typer.echo(f"  note       {note}")
        for name, (then, now) in again.differences.items():
            typer.echo(f"  differs    {name}: {then!r} then, {now!r} now")
    if again.differences:
        raise typer.Exit(1)
    if not as_json:
        typer.echo("  decided again: the same")


def _kept(folder: Path, networks: AsnTable, content_hash: str) -> Engine | None:
    """An engine with the rules of this hash, if a file in `folder` has them; what cannot be loaded is passed over."""
    from gobanfast._errors import GobanError
    from gobanfast.rules import Ruleset
    from gobanfast.rules.ruleset_file import is_stored

    for path in sorted(folder.iterdir()):
        if path.suffix not in {".yaml", ".yml", ".gbf"}:
            continue
        try:
            ruleset = Ruleset.load(path, asn=None if is_stored(path) else networks)
        except (GobanError, OSError):
            continue
        if ruleset.content_hash == content_hash:
            return Engine(ruleset.without_secrets())
    return None


def _as_logged(line: dict[str, Any]) -> Iterator[str]:
    """What the log says of a decision."""
    signals = line["signals"]
    yield f"{signals.get('address') or 'no address'}: {line['action']}"
    yield f"  logged     {line['time']}, cause {line['cause']}"
    if line["rule"] is not None:
        yield f"  rule       {line['rule']}"
    if line["reason"]:
        yield f"  reason     {line['reason']}"
    if line["ban"] is not None:
        yield f"  ban        {line['ban']}"
    if line["asn"] is not None:
        yield f"  network    AS{line['asn']}"
    for name in ("method", "path", "sni", "ja4"):
        if signals.get(name) is not None:
            yield f"  {name:<11}{signals[name]}"
    for name, value in signals.get("headers") or ():
        if name.lower() in {"user-agent", "host", "referer"}:
            yield f"  {name.lower():<11}{value}"
    for name in ("shadow", "logged"):
        if line[name]:
            yield f"  {name + ' by':<11}{', '.join(line[name])}"
