"""Slow reference for the header lines of a response on an owned resource."""

from __future__ import annotations

Lines = list[tuple[str, str]]


def lines(written: Lines, varies: list[str], grant: Lines, request_id: str) -> Lines:
    """What goes out, names in lower case: the application's own lines, one Vary, the grant, one request id."""
    made, vary = [], []
    for name, value in written:
        lower = name.lower()
        if lower.startswith("access-control-"):
            continue
        if lower == "vary":
            vary.append(value)
        else:
            made.append((lower, value))
    said = ", ".join(vary)
    listed = {member.strip(" \t").lower() for member in said.split(",")}
    if "*" not in listed:
        missing = [name for name in varies if name.lower() not in listed]
        members = [said, *missing] if said.strip(" \t,") else missing
        said = ", ".join(members)
    if vary or varies:
        made.append(("vary", said))
    made += grant
    if "x-request-id" not in {name.lower() for name, _ in written}:
        made.append(("x-request-id", request_id))
    return made
