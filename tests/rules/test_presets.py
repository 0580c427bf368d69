"""Presets: each is a rules file whose tests pass and of which lint has nothing to say."""

from __future__ import annotations

from pathlib import Path

import pytest

from gobanfast import Engine, GobanError
from gobanfast.rules import Ruleset
from gobanfast.rules.check.lint_full import findings
from gobanfast.rules.presets import preset_text, presets

NAMES = sorted(presets())


def test_the_registry_has_a_name_and_a_line_for_each() -> None:
    """Names are those of the files, a description is one line; another name is an error that lists them."""
    assert {"api", "intranet", "mcp", "spa"} <= set(NAMES)
    assert all(20 < len(text) < 110 and not text.startswith("#") for text in presets().values())
    with pytest.raises(GobanError, match="there is no preset 'nothing'; there are api, intranet"):
        preset_text("nothing")


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_loads_without_a_warning_and_passes_its_tests(name: str, tmp_path: Path) -> None:
    """It has rules and tests of both effects, and some that must be refused; lint, the thorough one, is silent."""
    path = tmp_path / "rules.yaml"
    path.write_text(preset_text(name))
    ruleset = Ruleset.load(path)

    assert [] == ruleset.failures()
    assert [] == findings(ruleset, starter=True)
    assert {"admit", "share"} == {rule.effect for rule in ruleset.rules}
    assert {"granted", "refused", "none"} <= {case.share for case in ruleset.tests}
    assert {"allow", "ban"} <= {case.expect for case in ruleset.tests}


@pytest.mark.parametrize("name", NAMES)
def test_every_enforced_rule_of_a_preset_is_tested(name: str) -> None:
    """A reader finds for every rule that decides a request that it decides."""
    ruleset = Ruleset.from_text(preset_text(name))
    tested = {case.rule for case in ruleset.tests}

    assert [] == [rule.id for rule in ruleset.rules if rule.mode == "enforce" and rule.id not in tested]


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_refuses_other_hosts_but_not_probes(name: str) -> None:
    """A host that is not listed is refused on every path but /healthz, where probes come with an address as host."""
    engine = Engine(Ruleset.from_text(preset_text(name)))

    def refused(host: str, path: str) -> str | None:
        found = engine.peek("198.51.100.1", headers=[(b"host", host.encode())], method="GET", path=path)
        return found.share_rule if found.share == "refused" else None

    assert ["other-host"] * 3 == [refused("evil.example", path) for path in ("/", "/api/x", "/mcp")]
    assert "other-host" == refused("10.0.3.7:8000", "/")
    assert refused("10.0.3.7:8000", "/healthz") is None
    assert refused("localhost:8000", "/") is None


@pytest.mark.parametrize("name", NAMES)
def test_no_preset_gives_a_stranger_or_null_credentials(name: str) -> None:
    """Whatever the path, a page that is not listed is granted nothing but what is everyone's."""
    ruleset = Ruleset.from_text(preset_text(name))
    engine = Engine(ruleset)
    credentials = {rule.id for rule in ruleset.rules if rule.grant is not None and rule.grant.credentials}
    paths = {case.path for case in ruleset.tests if case.path} | {"/", "/api/a", "/v1/a", "/ws", "/mcp", "/events/a"}
    host = (b"host", b"localhost:8000")
    for origin in ("https://evil.example", "null", "https://app.example.com.evil.example", "https://localhost:8000"):
        headers = [host, (b"origin", origin.encode())]
        found = {path: engine.peek(None, headers=headers, method="GET", path=path) for path in paths}
        given = [path for path, decision in found.items() if decision.share == "granted"]
        assert [] == [path for path in given if found[path].share_rule in credentials]


MCP = [  # as the MCP SDK's own table, and further: host, origin, WebSocket or not; the status that the answer must have
    (["localhost:8000"], None, 200),
    (["127.0.0.1:49152"], None, 200),
    (["[::1]:8000"], ["http://[::1]:6274"], 200),
    (["mcp-server:8000"], None, 200),
    (["MCP-Server"], None, 200),
    (["localhost:8000"], ["http://localhost:5173"], 200),
    (["localhost:8000"], ["http://evil.example"], 403),
    (["localhost:8000"], ["http://localhost:5173@evil.example"], 403),
    (["localhost:8000"], ["http://localhost", "http://evil.example"], 403),
    (["localhost:8000"], ["null"], 403),
    (["localhost:8000"], ["https://localhost:5173"], 403),
    (["evil.example:8000"], ["http://evil.example:8000"], 421),
    (["evil.example:8000"], None, 421),
    (["0.0.0.0:8000"], None, 421),
    (["127.0.0.2:8000"], None, 421),
    (["xlocalhost:8000"], None, 421),
    (["localhost:abc"], None, 421),
    (["localhost:8000", "evil.example"], None, 421),
]


@pytest.mark.parametrize("path", ["/mcp", "/sse", "/messages/", "/ws"])
@pytest.mark.parametrize(("hosts", "origins", "status"), MCP)
def test_mcp_guards_host_and_origin(hosts: list[str], origins: list[str] | None, status: int, path: str) -> None:
    """On every transport: the host decides first (421), then the origin (403); who sends no Origin passes."""
    engine = Engine(Ruleset.from_text(preset_text("mcp")))
    headers = [(b"host", host.encode()) for host in hosts] + [(b"origin", text.encode()) for text in origins or ()]
    found = engine.peek(None, headers=headers, method="GET", path=path, scheme="ws" if path == "/ws" else "http")

    by = {"other-host": 421, "foreign-page": 403}
    assert status == (by[found.share_rule or ""] if found.share == "refused" else 200)
