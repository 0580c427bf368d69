"""`gobanfast rules`: validate, test, lint, compare and import rules before they run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gobanfast._errors import GobanError, RuleError
from gobanfast.cli.common import (
    App,
    AsJson,
    Asn,
    Field,
    Force,
    Format,
    Layout,
    Mount,
    Sni,
    coloured,
    counted,
    listed,
    load_asn,
    log_streams,
    not_asked,
    output,
    table,
    trusted,
    write_new,
)

if TYPE_CHECKING:
    from gobanfast.asn import AsnTable
    from gobanfast.batch.compare import Comparison
    from gobanfast.rules import Ruleset
    from gobanfast.rules.rule import Conditions

app = App(help="Validate, test, compile and compare rules files.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="Rules, YAML or compiled.")]
Files = Annotated[list[Path], typer.Argument(metavar="FILE...", exists=True, dir_okay=False, help="Rules (YAML).")]


@app.callback()
def options() -> None:
    """Validate, test, compile and compare rules files."""


@app.command()
def lint(
    files: Files,
    asn: Asn = None,
    wide: Annotated[
        float, typer.Option(min=0, max=100, help="Percent of the addresses that a rule may cover without a warning.")
    ] = 100 / 256,
    as_json: AsJson = False,
) -> None:
    """Print every error and warning as file:line:column; status 1 if there is any, 2 if a file cannot be read."""
    from gobanfast.asn.source import default_path
    from gobanfast.rules import Ruleset
    from gobanfast.rules.check.lint_full import findings
    from gobanfast.rules.ruleset_file import is_stored

    starter = asn is None and default_path(files[0]) is None  # then there is a warning where rules require ASes
    networks = None if starter else load_asn(asn, files[0])
    errors = warnings = 0
    found: list[dict[str, Any]] = []
    for file in files:
        try:
            own = asn is None and is_stored(file)
            ruleset = Ruleset.load(file, asn=None if own else networks)  # as an engine loads it
        except RuleError as error:
            problems = list(error.problems)
        else:
            problems = [*findings(ruleset, starter=starter, fraction=wide / 100), *ruleset.failures()]
            if not problems and not as_json:
                typer.echo(f"{file}: {counted(len(ruleset.rules), 'rule')}, nothing to say")
        for problem in problems:
            errors += problem.severity == "error"
            warnings += problem.severity != "error"
            if as_json:
                found.append(asdict(problem))
            else:
                code = f" {problem.code}" if problem.code else ""
                typer.echo(f"{problem} [{problem.severity}{code}]")
    if as_json:
        typer.echo(json.dumps({"errors": errors, "warnings": warnings, "problems": found}))
    elif errors or warnings:
        typer.echo(f"{counted(errors, 'error')}, {counted(warnings, 'warning')}")
    if errors or warnings:
        raise typer.Exit(1)


@app.command("test")
def run_tests(files: Files, asn: Asn = None) -> None:
    """Run the inline tests; status 1 if one fails."""
    networks = load_asn(asn, files[0])
    failed = 0
    for file in files:
        ruleset = _load(file, networks)
        failures = ruleset.failures()
        failed += len(failures)
        for problem in failures:
            typer.echo(str(problem))
        typer.echo(f"{file}: {len(ruleset.tests) - len(failures)} of {len(ruleset.tests)} tests pass")
    if failed:
        raise typer.Exit(1)


@app.command("compile")
def write_compiled(
    file: File,
    out: Annotated[Path, typer.Option("--out", "-o", dir_okay=False, help="Output file, usually rules.gbf.")],
    asn: Asn = None,
) -> None:
    """Write the compiled ruleset, which loads in milliseconds and needs no other file; inline tests must pass."""
    from gobanfast.reload.compile_now import run_tests

    ruleset = run_tests(_load(file, load_asn(asn, file)))
    ruleset.save(out)
    size = out.stat().st_size
    typer.echo(f"{out}: {counted(len(ruleset.rules), 'rule')}, {size:,} bytes, hash {ruleset.content_hash}")


@app.command()
def diff(
    old: Annotated[Path, typer.Argument(metavar="OLD", exists=True, dir_okay=False, help="Rules, YAML or compiled.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", exists=True, dir_okay=False, help="Rules, YAML or compiled.")],
    logs: Annotated[
        list[Path] | None,
        typer.Option("--log", "-l", help="Access log, plain or gzip; several may be given; - is stdin (gzip too)."),
    ] = None,
    asn: Asn = None,
    budget: Annotated[
        float | None, typer.Option(min=0, max=100, help="Status 1 only when more percent of the lines differ.")
    ] = None,
    replay: Annotated[
        bool, typer.Option("--replay", help="Also apply bans, trackers and score, at the times in the log.")
    ] = False,
    layout: Format = Layout.AUTO,
    field: Field = None,
    mount: Mount = "",
    as_json: AsJson = False,
) -> None:
    """Show what changes: rules and settings, and with --log the decisions that differ, by all that the log says.

    Status 1 when anything changes; with --budget, when more decisions do than that, or when what changes asks for more
    than the log can tell.
    """
    from gobanfast.batch.compare import asks_requests, compare
    from gobanfast.batch.coverage import required_headers
    from gobanfast.batch.logs import LogFile
    from gobanfast.rules.check.rules_diff import changes

    if budget is not None and not logs:
        raise typer.BadParameter("--budget is about decisions; give it a --log")
    if replay and not logs:
        raise typer.BadParameter("--replay is about the lines of a log; give it a --log")
    networks = load_asn(asn, new)
    before, after = _load(old, networks), _load(new, networks)
    found = list(changes(before, after))
    report: dict[str, Any] = {"changes": [asdict(change) for change in found]}
    lines = [f"{change.what} {change.name}" + "".join(f"\n  {detail}" for detail in change.details) for change in found]
    differs = bool(found)
    if logs:
        with ExitStack() as stack:
            opened = [
                LogFile(
                    stream, name, layout=layout.value, field=field,
                    requests=asks_requests(before, after), times=replay,
                    asked=required_headers(before.compiled, after.compiled), trusted=trusted(after),
                )
                for name, stream in log_streams(logs, stack)
            ]  # fmt: skip
            compared = compare(before, after, opened, replay=replay, mount=mount)
        over = None if budget is None else compared.over(budget)
        report |= {
            "lines_without_address": compared.bad,
            "decisions": compared.differences.report(),
            "not_asked": compared.not_asked,
            "unjudged": compared.unjudged,
            "change_not_asked": compared.blind,
            "over_budget": over,
        }
        lines += [*compared.differences.lines(), *_caveats(compared, replay)]
        if over is not None:
            lines.append(over)
        differs = differs if budget is None else over is not None
    if as_json:
        typer.echo(json.dumps(report))
    else:
        typer.echo("\n".join(lines) or "nothing changes")
    if differs:
        raise typer.Exit(1)


def _caveats(compared: Comparison, replay: bool) -> Iterator[str]:
    """What of the rulesets the comparison did not ask, a line each."""
    if compared.bad:
        yield f"{counted(compared.bad, 'line')} without an address"
    if compared.not_asked:
        hint = "" if replay else "; --replay asks them, by the log's own times"
        yield f"not asked: {listed(compared.not_asked)}{hint}"
    if compared.unjudged:
        rules = listed([f"{rule} in {counted(lines, 'line')}" for rule, lines in compared.unjudged.items()])
        yield f"not judged, because the logs do not hold what a rule requires: {rules}"
    if compared.late or compared.untimed:
        yield f"{counted(compared.late, 'line')} out of order, {counted(compared.untimed, 'line')} without a time"
    if compared.blind:
        yield f"what changes was not asked in full: {listed(compared.blind)}"


@app.command()
def explain(
    file: File,
    address: Annotated[str | None, typer.Option("--address", help="Explain the decision about this client.")] = None,
    sni: Sni = None,
    asn: Asn = None,
) -> None:
    """Show the rules of a file in the order in which they decide.

    Why one request is decided as it is, with all its signals: `gobanfast explain`; --address and --sni here are a short
    way to it.
    """
    from gobanfast._values import duration_text
    from gobanfast.engine import Engine

    ruleset = _load(file, load_asn(asn, file))
    if address is not None or sni is not None:
        engine = Engine(ruleset.without_secrets())
        typer.echo(engine.explain(engine.peek(address, sni=sni)))
        typer.echo(f"{listed(not_asked(engine, None))} were not asked; gobanfast explain --store URI")
        return
    rows = []
    for position, rule in enumerate(ruleset.rules, 1):
        lasts = "" if rule.duration is None else duration_text(rule.duration)
        mode = "" if rule.mode == "enforce" else rule.mode
        asks = "; ".join(_asks(rule.when)) or "anything"
        place = f"{rule.source}:{rule.line}"
        rows.append([position, rule.id, coloured(rule.action), mode, rule.priority, lasts, asks, place])
    columns = ["#", "rule", "action", "mode", "priority", "for", "when", "at"]
    output().print(table("", columns, rows))
    typer.echo(
        "Decided by: allow rules, bans in force, the other rules in this order, trackers, score; else allow.\n"
        f"A signal that rules require and that cannot be read: {ruleset.unparsable} (unparsable)."
    )
    if any(rule.effect == "share" for rule in ruleset.rules):
        typer.echo(
            "What pages of other origins may read is decided apart: refuse rules, then grant and withhold in this "
            "order; what a grant or withhold rule is about, and no rule grants, is withheld."
        )
    if any(rule.effect == "record" for rule in ruleset.rules):
        typer.echo(
            "Which traces are kept is decided apart, by record rules in this order, when it is known what became of "
            "the request."
        )


class Tool(StrEnum):
    """The tools that `--from` takes; the names are those of `rules.importers.TOOLS`."""

    STARLETTE = "starlette"
    DJANGO_CORS = "django-cors"
    MCP = "mcp"
    SLOWAPI = "slowapi"
    DRF = "drf"
    JAEGER = "jaeger"


@app.command("import")
def import_settings(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="Options (JSON, TOML), settings.py.")
    ],
    tool: Annotated[Tool, typer.Option("--from", help="Whose options they are.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", dir_okay=False, help="Output file; else stdout.")] = None,
    service: Annotated[str, typer.Option(help="Whose strategies, of a file of Jaeger.")] = "",
    force: Force = False,
) -> None:
    """Write the rules that the settings of another tool stand for; warnings say what was wrong there.

    starlette: the keyword options of CORSMiddleware, FastAPI's too. django-cors: the settings of django-cors-headers; a
    settings module is read, not run. mcp: TransportSecuritySettings of the MCP SDK. jaeger: sampling strategies,
    for one --service. slowapi: default_limits, application_limits and routes (path: "5/minute"). drf:
    DEFAULT_THROTTLE_RATES.
    """
    from gobanfast.rules.importers import import_rules

    try:
        settings = file.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise GobanError(f"{file} is not UTF-8: byte {error.start}") from None
    text, warnings = import_rules(tool.value, settings, str(file), service=service)
    if out is None:
        typer.echo(text, nl=False)
    else:
        write_new(out, text, force=force)
    for problem in warnings:
        typer.echo(f"{problem} [{problem.severity}]", err=True)


@app.command()
def schema() -> None:
    """Print the JSON Schema of rules files, for editors."""
    from gobanfast.rules.text.json_schema import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


def _load(file: Path, networks: AsnTable) -> Ruleset:
    """Rules in either form; compiled ones have their own AS table."""
    from gobanfast.rules import Ruleset
    from gobanfast.rules.ruleset_file import is_stored

    return Ruleset.load(file, asn=None if is_stored(file) else networks)


def _asks(when: Conditions) -> Iterator[str]:
    """The conditions in short: what is asked, and how many values there are, or the one."""
    from dataclasses import fields

    for field in fields(when):
        value = getattr(when, field.name)
        if value is None or field.name == "names":  # of the certificate, no condition
            continue
        if field.name == "negated":
            yield f"not ({'; '.join(_asks(value))})"
            continue
        try:
            count = len(value)
        except TypeError:
            count = 1
        yield field.name if count == 1 else f"{field.name} ({count})"
