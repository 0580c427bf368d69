"""Partition of a replay by client: the key of a row, and the parts of rules that no such partition can know."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gobanfast.rules import Ruleset


def client_key(address: str | None, ipv6_bits: int = 64) -> str:
    """What the live state of a client hangs on: the IPv4 address, or the network of an IPv6 one; "" is no address."""
    try:
        found = ip_address(address or "")
    except ValueError:
        return ""
    if not isinstance(found, IPv6Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return f"{int(found) >> (128 - ipv6_bits):x}/{ipv6_bits}"


def not_partitioned(ruleset: Ruleset) -> list[str]:
    """Parts of a ruleset whose state is shared by clients, in words: no replay in partitions is exact for them."""
    from gobanfast._core.engine_core import stored_key

    bans, rules = ruleset.settings.bans, ruleset.compiled.rules
    shared = {
        "score": ruleset.settings.score is not None,
        "escalate (its jitter is random)": bans.escalate is not None,
        "ladder": bans.ladder is not None,
    }
    odd = [name for name, there in shared.items() if there]
    odd += [f"rule {rule.id} (bans by {rule.key})" for rule in rules if stored_key(rule) and rule.key != "client"]
    return [
        *odd,
        *(
            f"limit {rule.id} (counts by {rule.limit.key})"
            for rule in rules
            if rule.limit and rule.limit.key != "client"
        ),
    ]
