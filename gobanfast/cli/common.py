"""Shared options, loaders of tables and rules, and terminal tables of the commands."""

from __future__ import annotations

import inspect
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from errno import EISDIR
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar, cast

import typer
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text
from typer.core import TyperCommand

from gobanfast._errors import GobanError
from gobanfast.wire.target import checked_mount, read_target

if TYPE_CHECKING:
    from gobanfast._core.decision import Decision
    from gobanfast._core.prefix_set import PrefixSet
    from gobanfast.asn import AsnTable
    from gobanfast.engine import Engine
    from gobanfast.rules import Ruleset
    from gobanfast.rules.rule import Rule
    from gobanfast.stores import Store

SCHEMES = ("http", "https", "ws", "wss")
MOST_IDS = 10  # of rules, in one line

Rules = Annotated[Path, typer.Option("--rules", "-r", exists=True, dir_okay=False, help="Rules to decide by (YAML).")]
Asn = Annotated[
    Path | None,
    typer.Option(
        "--asn",
        "-a",
        exists=True,
        dir_okay=False,
        help="Origin AS of addresses: table.gbf, .mmdb, CSV, pfx2as (also .gz). Without it: what "
        "GOBANFAST_ASN names, else geoip.asn.mmdb beside the rules, else the bundled starter table.",
    ),
]
Sni = Annotated[str | None, typer.Option("--sni", metavar="NAME", help="Server name of the request.")]
Ja4 = Annotated[str | None, typer.Option("--ja4", help="JA4 of the connection, as reported by a proxy.")]
Header = Annotated[
    list[str] | None, typer.Option("--header", metavar="'NAME: VALUE'", help="A header of the request; repeatable.")
]
Origin = Annotated[
    str | None, typer.Option("--origin", metavar="ORIGIN", help="Of the page that asks: https://app.example.com.")
]
Host = Annotated[
    str | None, typer.Option("--host", metavar="HOST[:PORT]", help="Host of the request, short for a header.")
]
Scheme = Annotated[
    str | None, typer.Option("--scheme", metavar="SCHEME", help="http, https, ws or wss: the default port of the host.")
]
Method = Annotated[str | None, typer.Option("--method", help="Method of the request.")]
UrlPath = Annotated[str | None, typer.Option("--path", help="Path of the request.")]


def _mount(text: str) -> str:
    try:
        return checked_mount(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


Mount = Annotated[
    str,
    typer.Option(
        "--mount", callback=_mount, metavar="PATH", help="Prefix under which clients reach the application: /app."
    ),
]
StoreUri = Annotated[
    str | None,
    typer.Option(
        "--store",
        envvar="GOBANFAST_STORE",
        metavar="URI",
        help="Also check the bans in this store: sqlite:PATH, redis://...",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Write over a file that exists.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON in place of tables.")]

Function = TypeVar("Function", bound=Callable[..., Any])


class Layout(str):
    """A log format that `--format` takes: one of `batch.layouts.FORMATS`, or the text of a format."""

    __slots__ = ()
    AUTO: ClassVar[Layout]

    @property
    def value(self) -> str:
        return str(self)


Layout.AUTO = Layout("auto")


def layout_of(text: str) -> Layout:
    """The format that `--format` names."""
    from gobanfast.batch.layouts import FORMATS
    from gobanfast.batch.log_format import is_format

    if text not in FORMATS and not is_format(text):
        names = ", ".join(map(repr, FORMATS))
        raise typer.BadParameter(
            f"{text!r} is not one of {names}, nor the text of a log_format ($remote_addr ...) or LogFormat (%h ...)"
        )
    return Layout(text)


Format = Annotated[
    Layout,
    typer.Option(
        "--format",
        "-f",
        parser=layout_of,
        metavar="FORMAT",
        help="auto (told by the first hundred lines), combined, nginx-json, jsonl, csv, or the text of a "
        "log_format of nginx or a LogFormat of Apache.",
    ),
]
Field = Annotated[
    str | None,
    typer.Option(
        help="Where the client's address is: JSON key (a.b steps inside), CSV column, or number of the field of a "
        "combined line, separated by blanks as in awk."
    ),
]

COLOURS = {"allow": "green", "challenge": "yellow", "ban": "red"}


class Output(Console):
    """Standard output; a broken pipe stays an exception, which `app` knows the status for."""

    def on_broken_pipe(self) -> None:
        """Never returns: raises what the write raised."""
        raise BrokenPipeError


def output() -> Console:
    """The console of this call: standard output as it is now, and no guessing at numbers or addresses in text."""
    return Output(highlight=False, soft_wrap=True)


def request_signals(
    sni: str | None, ja4: str | None, headers: list[str] | None, method: str | None, path: str | None, mount: str = "",
    *, origin: str | None = None, host: str | None = None, scheme: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Signals from options, as keyword arguments of `Engine.peek`. Headers are unknown unless one is given; then, and
    with an origin or a host, all others are absent."""
    if scheme is not None and scheme not in SCHEMES:
        raise typer.BadParameter(f"--scheme {scheme!r} is not one of {', '.join(SCHEMES)}")
    if path is not None and path != "*" and not read_target(path).startswith("/"):
        raise typer.BadParameter(f"--path {path!r} is no path; write /{path}")
    if method is not None and method.islower():
        raise typer.BadParameter(f"--method {method!r} is in lower case, and methods are not; write {method.upper()}")
    given: dict[str, Any] = {"sni": sni, "ja4": ja4, "method": method, "path": path, "mount": mount or None}
    pairs = [_pair(text) for text in headers or ()]
    names = [name.lower() for name, _ in pairs]
    for name, value in (("origin", origin), ("host", host)):
        if value is not None:
            if name.encode() in names:
                raise typer.BadParameter(f"--{name} and --header '{name}: ...' say the same; give one of them")
            pairs.append((name.encode(), value.encode()))
    if pairs:
        given["headers"] = pairs
    given["scheme"] = scheme
    return {name: value for name, value in given.items() if value is not None}


def _pair(text: str) -> tuple[bytes, bytes]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise typer.BadParameter(f"--header {text!r} has no name; write 'user-agent: curl/8.5.0'")
    return name.strip().encode(), value.strip().encode()


def log_streams(paths: Sequence[Path], stack: ExitStack) -> Iterator[tuple[str, BufferedReader]]:
    """Name and bytes of each log, packed or not; `-` is standard input. Files are closed with `stack`.

    Raises:
        BadParameter: standard input is named twice. OSError: a file cannot be read.
    """
    if [str(path) for path in paths].count("-") > 1:
        raise typer.BadParameter("- (standard input) can be read once; name it once")
    for path in paths:
        if str(path) == "-":
            yield "<stdin>", standard_input()
        elif path.is_dir():
            raise IsADirectoryError(EISDIR, "it is a folder; name the logs in it", str(path))
        else:
            yield str(path), stack.enter_context(path.open("rb"))


def standard_input() -> BufferedReader:
    """The bytes of standard input."""
    stream = sys.stdin.buffer
    if isinstance(stream, BufferedReader):
        return stream
    return BufferedReader(cast(RawIOBase, stream))  # what a test put there reads the same


def write_new(path: Path, text: str, *, force: bool) -> None:
    """None, after `text` is in the file; one that exists is written over only with `force`.

    Raises:
        GobanError: it exists. OSError: it cannot be written.
    """
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise GobanError(f"{path} exists; --force writes over it") from None


def load_asn(path: Path | None, rules: Path | None = None) -> AsnTable:
    """The AS table in `path`; without one what an engine takes for the rules file `rules`."""
    from gobanfast.asn import AsnTable, read
    from gobanfast.asn.source import default_path

    if path is None:
        named = default_path(rules if rules is not None else os.curdir)
        path = None if named is None else Path(named)
    return AsnTable.starter() if path is None else read(path)


def load_engine(rules: Path, asn: AsnTable) -> Engine:
    """An engine with the rules in `rules`, compiled over `asn`."""
    from gobanfast.engine import Engine
    from gobanfast.rules import Ruleset

    return Engine(Ruleset.load(rules, asn=asn).without_secrets())


@contextmanager
def opened(uri: str, *, create: bool = False) -> Iterator[Store]:
    """The store, closed at the end; `create` False makes no file. Unreadable entries are reported on standard error.

    A URI that names none, or a store that no other process sees, is a usage error."""
    from gobanfast.stores import open_store

    try:
        store = open_store(uri, create=create)
        store.check()
    except GobanError:
        raise  # a message of its own
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--store") from None
    if not store.shared:
        raise typer.BadParameter(f"{uri} is another process's own; use sqlite:PATH or redis://", param_hint="--store")
    try:
        yield store
    finally:
        store.close()
        if store.unreadable:
            typer.echo(f"{store.uri}: {counted(store.unreadable, 'record')} passed over", err=True)


def ask_store(engine: Engine, uri: str) -> None:
    """None, after the engine knows the bans in the store.

    Raises:
        StoreError: the store cannot answer. GobanError: its bans do not fit the rules' `bans: {capacity}`.
    """
    with opened(uri) as store:
        left_out = sum(not engine.ban_table.put(ban) for ban in store.scan())
        labels = engine.ban_table.labels
        unlabelled = sum(not labels.put(record) for record in store.scan("label:"))
    if left_out and engine.ban_table.saturated:
        raise GobanError(
            f"{uri}: {left_out:,} bans do not fit bans: capacity: {engine.ban_table.capacity:,} of the rules"
        )
    if unlabelled and labels.saturated:
        raise GobanError(f"{uri}: {unlabelled:,} labels do not fit labels: capacity: {labels.capacity:,} of the rules")


def not_asked(engine: Engine, store: str | None) -> list[str]:
    """What a decision about one request did not ask, in words: only a running engine has trackers and a score."""
    if store is None:
        return ["stored bans", "trackers", "score"]
    settings = engine.ruleset.settings
    return ["trackers"] * (settings.trackers is not None) + ["score"] * (settings.score is not None)


def unjudged(engine: Engine, said: Mapping[str, object], *decisions: Decision) -> list[str]:
    """Ids of the rules that require a signal that was not given, and matched none of `decisions`."""
    matched = {name for found in decisions for name in (
        found.rule, *found.shadow, *found.logged, *found.share_matched, *found.share_shadow,
        *found.record_matched, *found.record_shadow)}  # fmt: skip
    rules = (rule for rule in engine.ruleset.rules if rule.mode != "off" and rule.id not in matched)
    return [rule.id for rule in rules if _lacking(rule, said)]


def _lacking(rule: Rule, said: Mapping[str, object]) -> set[str]:
    """The options, without which a rule cannot be judged."""
    from gobanfast.batch.coverage import CONNECTION, required_signals

    options = {":path": "--path", ":method": "--method", CONNECTION: "--sni", "origin": "--origin", "host": "--host"}
    lacking = set()
    for name in required_signals(rule):
        connected = name in {CONNECTION, ":names"} and not said.keys().isdisjoint({"sni", "ja4"})
        given = {":path": "path", ":method": "method", CONNECTION: "sni"}.get(name, "headers")
        if given not in said and not connected:
            lacking.add(options.get(name, "--header"))
    return lacking


def unjudged_text(ids: list[str], engine: Engine, said: Mapping[str, object]) -> str:
    """The line that says so, with the options that are missing."""
    more = f" and {len(ids) - MOST_IDS:,} more" if len(ids) > MOST_IDS else ""
    lacking = {option for rule in engine.ruleset.rules if rule.id in ids for option in _lacking(rule, said)}
    return (
        f"not judged, because what they require was not given: {', '.join(ids[:MOST_IDS])}{more} "
        f"({', '.join(sorted(lacking))})"
    )


def unasked_text(parts: list[str], store: str | None) -> str:
    """The line that says so."""
    return (
        f"{listed(parts)} {'was' if parts == ['score'] else 'were'} not asked{'; --store URI' if store is None else ''}"
    )


def trusted(ruleset: Ruleset) -> PrefixSet:
    """The addresses that the rules' `trust:` covers."""
    from gobanfast._core.prefix_set import PrefixSet

    return PrefixSet.from_packed(ruleset.trust.addresses, ruleset.trust.lengths)


def network(asn: int | None, table: AsnTable) -> str:
    """The AS as people write it, with its name where the table has one."""
    return "unknown network" if asn is None else table.describe(asn)


def coloured(action: str) -> Text:
    """The action in the colour it has everywhere."""
    return Text(action, style=COLOURS.get(action, ""))


def counted(count: int, noun: str) -> str:
    """The number and what is counted, as in "1 rule", "2 rules"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def listed(things: Sequence[str]) -> str:
    """The things in words, as in "a, b and c"."""
    return " and ".join(filter(None, (", ".join(things[:-1]), things[-1]))) if things else "nothing"


def roughly(seconds: float) -> str:
    """A length of time as people say it."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def moment(seconds: float, *, ahead: bool = False) -> str:
    """A time: on a terminal how far off, elsewhere in UTC to the second."""
    if not output().file.isatty():
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"in {roughly(seconds - time.time())}" if ahead else f"{roughly(time.time() - seconds)} ago"


def percent(lines: int, total: int) -> str:
    """`lines` of `total` in percent, one decimal."""
    return f"{100 * lines / total:.1f}%" if total else "-"


NUMBERS = {"lines", "percent", "times", "value"}
CUT = {"network", "reason"}  # columns that give way first on a terminal that is too narrow
WRAPPED = {"advice", "shadow", "logged", "what", "when"}
GAP, LEAST = 2, 10  # cells between columns; of a column that gives way


class table:  # noqa: N801 - used as the function that it stands for
    """A table to print. On a terminal reasons and networks are cut where it is too narrow, and sentences wrap; what is
    looked for or copied (keys, addresses, ids, times) is always whole. Elsewhere every row is one line, nothing is cut,
    and columns are two blanks apart or more."""

    def __init__(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        self.title, self.columns = title, columns
        self.rows = [[cell if isinstance(cell, Text) else Text(str(cell)) for cell in row] for row in rows]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Called by rich."""
        cells = [[Text(column) for column in self.columns], *self.rows]
        widths = [max(cell.cell_len for cell in column) for column in zip(*cells, strict=True)]
        if not console.file.isatty():  # console.is_terminal is what FORCE_COLOR says
            yield from self._lines(cells, widths)
            return
        made = Table(title=self.title, title_justify="left", title_style="bold", box=None, pad_edge=False)
        made.padding = (0, GAP, 0, 0)
        least = 0
        for index, (column, width) in enumerate(zip(self.columns, widths, strict=True)):
            gives_way = column in CUT | WRAPPED
            made.add_column(column, justify="right" if column in NUMBERS else "left", no_wrap=not gives_way)
            least += GAP + (min(width, LEAST) if gives_way else width)
            for row in self.rows if column in CUT else ():
                row[index].no_wrap, row[index].overflow = True, "ellipsis"
        for row in self.rows:
            made.add_row(*row)
        yield from console.render(made, options.update(width=max(options.max_width, least)))

    def _lines(self, cells: list[list[Text]], widths: list[int]) -> Iterator[Text]:
        lines = [Text(self.title)] if self.title else []
        for row in cells:
            line = ""
            for column, cell, width in zip(self.columns, row, widths, strict=True):
                padding = " " * (width - cell.cell_len)
                line += (padding + cell.plain if column in NUMBERS else cell.plain + padding) + " " * GAP
            lines.append(Text(line.rstrip()))
        yield from lines


class PlainHelp:
    """Base of `Command` and `Commands`: flags without "<bool>", which looks as if they took a value, and paragraphs
    that wrap where the terminal does and not where the source did, too."""

    help: str | None

    def get_params(self, ctx: Any) -> Any:
        """Called by typer: the parameters, with those changes."""
        parameters = super().get_params(ctx)  # type: ignore[misc]
        for parameter in parameters:
            if getattr(parameter, "is_flag", False) and parameter.metavar is None:
                parameter.metavar = ""
        return parameters

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Called by typer."""
        paragraphs = inspect.cleandoc(self.help or "").split("\n\n")
        self.help = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
        super().format_help(ctx, formatter)  # type: ignore[misc]


class Command(PlainHelp, TyperCommand):
    """The class of every command."""


class App(typer.Typer):
    """Commands of the class `Command`."""

    def command(self, *names: Any, **options: Any) -> Callable[[Function], Function]:
        """As typer's."""
        return super().command(*names, cls=Command, **options)


def members(decision: Decision, table: AsnTable) -> dict[str, object]:
    """A decision as JSON members, in the order the decision log has them; on sharing where rules are about it."""
    sharing = {
        "share": decision.share,
        "share_rule": decision.share_rule,
        "share_shadow": list(decision.share_shadow),
        "preflight": decision.preflight,
        "varies": list(decision.varies),
    }
    recording = {
        "record": decision.record,
        "record_rule": decision.record_rule,
        "record_shadow": list(decision.record_shadow),
        "sampling_probability": decision.sampling_probability,
        "trace": None if decision.trace is None else decision.trace.traceparent,
    }
    shares = any(rule.effect == "share" for rule in decision.compiled.rules)
    return {
        "address": decision.address,
        "action": decision.action,
        "rule": decision.rule,
        "asn": decision.asn,
        "network": None if decision.asn is None else table.name(decision.asn),
        "reason": decision.reason,
        "shadow": list(decision.shadow),
        "logged": list(decision.logged),
        "cause": decision.cause,
        "ban": decision.ban,
        **(sharing if shares else {}),
        **(recording if decision.compiled.records is not None else {}),
    }
