"""Context binding the slow way: both requests side by side in plain text, one field after the other."""

from __future__ import annotations

import re
from collections.abc import Mapping


def plain(headers: Mapping[str, str]) -> dict[str, str | None]:
    """What of a request is bound, readable; `headers` by lower-case name."""
    site, origin, referer, agent = (headers.get(name) for name in ("sec-fetch-site", "origin", "referer", "user-agent"))
    link = (
        headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document" and origin is None
    )
    foreign = site is not None and site not in {"same-origin", "same-site", "none"} and not link
    page = None
    if referer is not None:
        found = re.match(r"(https?://[^/?#@]+)(?:[/?#]|$)", referer)
        page = found[1] if found else "malformed"
    return {
        "origin": origin,
        "fetch_site": None if site is None else "foreign" if foreign else "own",
        "referer": page,
        "user_agent": None if agent is None else re.sub(r"\d[\d._]*", "#", agent, flags=re.ASCII),
    }


def compare(
    policies: Mapping[str, str], issued: Mapping[str, str], shown: Mapping[str, str]
) -> tuple[list[str], list[str]]:
    """(fields that differ, fields that are flagged)."""
    then, now = plain(issued), plain(shown)
    differs, flagged = [], []
    for name, policy in policies.items():
        if policy == "ignore" or (name == "fetch_site" and now[name] == "own"):
            continue
        if name == "origin" and policy == "require" and now[name] is None:
            if shown.get("sec-fetch-site") != "same-origin":
                differs.append(name)
            continue
        missing = then[name] is None or now[name] is None
        if (policy == "require" and missing) or (not missing and then[name] != now[name]):
            (flagged if policy == "flag" else differs).append(name)
    return differs, flagged
