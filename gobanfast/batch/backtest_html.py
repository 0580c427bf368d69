"""HTML report of a backtest: one self-contained page without scripts."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gobanfast.batch.backtest import Backtest

_STYLE = "body{font:15px system-ui;margin:2rem}table{border-collapse:collapse;margin:1rem 0}td,th{padding:.3rem .8rem;\
border-bottom:1px solid #ddd;text-align:left}td+td{font-variant-numeric:tabular-nums}"


def page(found: Backtest, title: str) -> str:
    """The report as a page."""
    interval = found.collateral_interval
    spread = "" if interval is None else f" (95 %: {100 * interval[0]:.3g} to {100 * interval[1]:.3g}%)"
    effects = (
        (each.id, each.cause, each.action, each.lines, each.clients,
         "-" if each.first is None else f"{each.first:.0f} s",
         each.good_clients, each.only_lines, each.only_clients, each.new_lines)
        for each in found.effects
    )  # fmt: skip
    networks = ((asn or "unknown", count) for asn, count in found.collateral_networks)
    summary = (
        f"<p>{found.lines} lines of {found.clients} clients. Of {found.good_clients} clients that look good "
        f"{found.good_refused} would have been refused: {100 * found.collateral:.3g}%{spread}; "
        f"{found.good_challenged} challenged.</p>"
    )
    parts = [
        summary,
        _table(("rule", "cause", "action", "lines", "clients", "median time to it", "good clients", "lines of it alone",
                "clients of it alone", "lines let in until now"), effects),
        _table(("looks good because", "clients"), found.good.items()),
        _table(("rule", "and rule", "lines that both match"), found.overlap),
        _table(("AS of good clients refused", "clients"), networks),
        _table(("not judged in full", "lines"), found.not_judged.items()),
    ]  # fmt: skip
    body = "".join(parts)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
        f"<h1>{escape(title)}</h1>{body}</html>\n"
    )


def _table(head: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> str:
    def line(cells: Iterable[object], tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{escape(str(cell))}</{tag}>' for cell in cells)}</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f"<table>{line(head, 'th')}{body}</table>" if body else ""
