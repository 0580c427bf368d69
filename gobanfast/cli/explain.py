"""`gobanfast explain`: why that is the decision."""

from __future__ import annotations

from typing import Annotated

import typer

from gobanfast.cli.check import refuse_malformed
from gobanfast.cli.common import Asn, Rules, Sni, load_asn, load_engine


def explain(
    address: Annotated[str, typer.Argument(help="IPv4 or IPv6 address.")],
    rules: Rules,
    asn: Asn = None,
    sni: Sni = None,
) -> None:
    """Say why an address is decided as it is: the rule, where it stands, what it saw, what would change it."""
    refuse_malformed([address])
    engine = load_engine(rules, load_asn(asn))
    typer.echo(engine.explain(engine.peek(address, sni=sni)))
