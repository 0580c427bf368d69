"""What the standard library offers: `ipaddress` to parse, `bisect` over disjoint ranges to look up."""

from __future__ import annotations

from bisect import bisect_right
from ipaddress import ip_address

from benchmarks.cases import Subject
from benchmarks.tables import Table


def build(table: Table) -> list[Subject]:
    starts4, values4 = (column.tolist() for column in table.ranges4)
    starts6, values6 = table.ranges6

    def lookup4(text: str) -> int:
        return values4[bisect_right(starts4, int(ip_address(text))) - 1]

    def lookup6(text: str) -> int:
        return values6[bisect_right(starts6, int(ip_address(text))) - 1]

    def asn(text: str) -> int | None:
        return (lookup6 if ":" in text else lookup4)(text) or None

    parse = {4: ip_address, 6: ip_address}
    return [
        Subject("ipaddress.ip_address, parse only", "yardstick", "an address object", parse, slow=True),
        Subject("ipaddress + bisect", "peer", "int", {4: lookup4, 6: lookup6}, asn=asn, slow=True),
    ]
