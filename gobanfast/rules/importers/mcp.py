"""Import of TransportSecuritySettings of the MCP Python SDK: hosts and origins that may ask at all."""

from __future__ import annotations

from gobanfast.origins import parse_host_pattern
from gobanfast.rules.importers.notes import Notes
from gobanfast.rules.importers.options import single, texts, unknown
from gobanfast.rules.importers.origin_texts import is_origin, listed, sample_of
from gobanfast.rules.importers.sharing import STRANGER, block, head, quoted, tests

TOOL = "TransportSecuritySettings of the MCP SDK"
OPTIONS = ("enable_dns_rebinding_protection", "allowed_hosts", "allowed_origins")


def rules(options: dict[str, object], notes: Notes) -> str:
    """The rules file."""
    unknown(options, OPTIONS, TOOL, notes)
    if not single(options, "enable_dns_rebinding_protection", True, notes):
        notes.warn("enable_dns_rebinding_protection is false, so nothing was checked", "these rules check")
    hosts = [host for text in texts(options, "allowed_hosts", (), notes) if (host := _host(text, notes))]
    origins = [origin for text in texts(options, "allowed_origins", (), notes) if (origin := _origin(text, notes))]
    if not hosts:
        notes.error("allowed_hosts leaves no name, so every request would be refused", "list the names of the server")
        return ""
    sets = f"  here:\n{block('host', hosts, 4)}"
    if origins:
        sets += f"  pages:\n{block('origin', origins, 4)}"
    pages = '["@pages", absent]' if origins else "absent"
    asked = sample_of(f"http://{hosts[0]}") or ""
    own = f"headers: {{host: {quoted(asked.removeprefix('http://'))}}}"
    cases = [f"{{path: /mcp, {own}, share: none}}"]
    cases += [f"{{path: /mcp, {own}, origin: {quoted(sample_of(text) or '')}, share: none}}" for text in origins]
    for text in (STRANGER, "null"):
        cases.append(f"{{path: /mcp, {own}, origin: {quoted(text)}, share: refused, rule: foreign-page}}")
    cases.append("{path: /mcp, headers: {host: not-listed.invalid}, share: refused, rule: other-host}")
    return (
        f"{head(TOOL, notes)}\nsets:\n{sets}\n"
        "# These rules are about every path of the application, and about WebSockets, too. `:*` is any port or none.\n"
        "# What scripts of a page need to read the answers (CORS), that SDK has no options for: see\n"
        "# `gobanfast init --preset mcp`.\n"
        "share:\n"
        "  # 421. /healthz is left out because load balancers and Kubernetes probe with an address as host.\n"
        '  - {id: other-host, when: {not: {host: "@here", path: [/healthz]}}, action: refuse}\n'
        "  # 403. Without Origin it is no page of another origin: other programs send none.\n"
        f"  - {{id: foreign-page, when: {{not: {{origin: {pages}}}}}, action: refuse}}\n" + tests(cases)
    )


def _host(text: str, notes: Notes) -> str | None:
    """The pattern of a listed host."""
    lower = text.lower()
    try:
        if "*" in lower.removesuffix(":*") or lower in ("absent", "malformed"):
            raise ValueError("that SDK knows no pattern but :* at the end; if it is meant, write it under host:")
        parse_host_pattern(lower)
    except ValueError as error:
        hint = str(error).rpartition("; ")[2]
        notes.warn(f"allowed_hosts {text[:200]!r} never matched what clients send", f"it was left out; {hint}")
        return None
    return lower


def _origin(text: str, notes: Notes) -> str | None:
    """The pattern of a listed origin."""
    base = text.removesuffix(":*")
    if base == text or not is_origin(base):
        return listed("allowed_origins", text, notes)
    message = f"allowed_origins {text[:200]!r} let in whatever followed the colon: {base + ':1@not-listed.invalid'!r}"
    notes.warn(message, "imported as any port")
    return text
