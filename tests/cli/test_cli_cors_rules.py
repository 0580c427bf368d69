"""`gobanfast cors --rules`: the walks of a live server over answers of share rules, and what mends them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("typer", reason="the command line needs the extra cli")

from typer.testing import CliRunner, Result

from gobanfast import Engine, Ruleset
from gobanfast.cli.app import app
from gobanfast.frontends.asgi import Gobanfast
from share_forms import Plan, asgi_app, ask_asgi

PAGE, FOREIGN, HOST = "https://app.example.com", "https://evil.example", "api.example.com"
RULES = """\
share:
- {id: host, when: {path: /hosts, not: {host: api.example.com}}, action: refuse}
- {id: writes, when: {cross_origin_write: true, not: {origin: "https://*.example.com"}}, action: refuse}
- id: api
  when: {path: /api/**, origin: "https://*.example.com"}
  action: grant
  credentials: true
  methods: [PUT]
  headers: [x-a]
- {id: plain, when: {path: /plain, origin: "https://app.example.com"}, action: grant}
- {id: public, when: {path: /public}, action: grant}
- {id: site, when: {path: /site, fetch_site: same-site}, action: grant}
- {id: shut, when: {path: /shut}, action: withhold}
"""


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "share.yaml"
    path.write_text(RULES)
    return path


def run(rules: Path, *arguments: str, status: int = 0) -> Result:
    result = CliRunner().invoke(app, ["cors", "-r", str(rules), *arguments], env={"COLUMNS": "200", "TERM": "dumb"})
    assert status == result.exit_code, result.output
    return result


def asked(rules: Path, path: str, *more: str, origin: str = PAGE, status: int = 0, host: str = HOST) -> dict[str, Any]:
    words = ("--path", path, "--origin", origin, "--host", host, "--client", "fetch", "--json", *more)
    return json.loads(run(rules, *words, status=status).stdout)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("path", "origin", "more"),
    [
        ("/api/x", PAGE, ["--credentials"]),
        ("/api/x", PAGE, ["--credentials", "--method", "PUT", "--header", "x-a"]),
        ("/plain", PAGE, []),
        ("/public", "null", []),
        ("/site", PAGE, []),
        ("/elsewhere", f"https://{HOST}", []),
    ],
)
def test_what_is_granted_is_readable(rules: Path, path: str, origin: str, more: list[str]) -> None:
    """Status 0, and nothing to mend; the site is found without being told, and one's own origin needs no grant."""
    found = asked(rules, path, *more, origin=origin)

    assert found["readable"]
    assert [None] == [one["mend"] for one in found["clients"]]


@pytest.mark.parametrize(
    ("path", "origin", "more", "step", "line", "mend"),
    [
        ("/api/x", FOREIGN, [], "GET acao-missing", 4, f"list {FOREIGN} under origin: of grant by rule 'api'"),
        ("/api/x", PAGE, ["--method", "DELETE"], "OPTIONS acao-missing", 4, "add methods: [DELETE] to grant"),
        ("/api/x", PAGE, ["--header", "x-b"], "OPTIONS acao-missing", 4, "add headers: [x-b] to grant by rule 'api'"),
        ("/api/x", FOREIGN, ["--method", "POST"], "POST acao-missing", 3, f"list {FOREIGN} under not: origin: of"),
        ("/api/x", "null", [], "GET acao-missing", None, "never granted"),
        ("/plain", PAGE, ["--credentials"], "GET acac", 10, "add credentials: true to grant by rule 'plain'"),
        ("/public", PAGE, ["--credentials"], "GET acao-mismatch", 11, f"under when:, origin: ['{PAGE}'] to grant"),
        ("/site", FOREIGN, [], "GET acao-missing", None, f"under share: that grants it to origin: '{FOREIGN}'"),
        ("/shut", PAGE, [], "GET acao-missing", 13, "add a grant with a smaller priority than withhold by rule 'shut'"),
    ],
)  # fmt: skip
def test_what_mends_the_rules(
    rules: Path, path: str, origin: str, more: list[str], step: str, line: int | None, mend: str
) -> None:
    """The step at which the walk ends, the rule by its line, and what to write there."""
    found = asked(rules, path, *more, origin=origin, status=1)

    (one,) = found["clients"]
    assert step == f"{one['asking']} {one['step']}"
    assert mend in one["mend"]
    assert line is None or f"{rules}:{line}:" in one["mend"]


def test_a_refused_request_is_told_as_not_carried_out(rules: Path) -> None:
    """A host that is not listed is 421; without --host it is asked for."""
    found = asked(rules, "/hosts", host="evil.example:8000", status=1)
    shown = run(rules, "--path", "/hosts", "--origin", PAGE, "--client", "fetch", status=1).output

    assert [421] == [one["status"] for one in found["answers"]]
    assert "not carried out" in found["clients"][0]["sees"]
    assert "list evil.example:8000 under not: host: of refuse by rule 'host'" in found["clients"][0]["mend"]
    assert "give --host" in shown
    assert "host.invalid" not in shown


def test_what_no_rule_is_about_is_not_judged(rules: Path) -> None:
    """The application's own header fields decide: status 1, no walk, and the rule that would."""
    found = asked(rules, "/elsewhere", status=1)
    shown = run(rules, "--path", "/elsewhere", "--origin", PAGE, status=1).output

    assert ([], False, None) == (found["clients"], found["readable"], found["answers"][0]["share"])
    assert "add a rule under share:" in found["mend"]
    assert "not judged: no share rule is about it" in shown


@pytest.mark.parametrize("origin", [PAGE, FOREIGN, "null"])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
@pytest.mark.parametrize("path", ["/api/x", "/plain", "/public", "/site", "/shut", "/hosts"])
def test_answers_are_those_of_a_frontend(rules: Path, path: str, method: str, origin: str) -> None:
    """Status, access-control-* and Vary of each asking, compared with the middleware around an application."""
    guarded = Gobanfast(asgi_app(Plan()), Engine(Ruleset.from_text(RULES)))
    result = CliRunner().invoke(
        app,
        ["cors", "-r", str(rules), "--path", path, "--origin", origin, "--host", HOST, "--client", "fetch", "--json",
         "--method", method, "--header", "x-a: 1"],
    )  # fmt: skip
    found = json.loads(result.stdout)

    for one in found["answers"]:
        site = "same-site" if origin == PAGE else "cross-site"
        pairs = [("host", HOST), ("origin", origin), ("sec-fetch-site", site), ("sec-fetch-mode", "cors")]
        if one["announced"] is None:
            pairs.append(("x-a", "1"))
        else:
            pairs += [("access-control-request-method", method), ("access-control-request-headers", "x-a")]
        if one["share"] is None:
            continue
        answer = ask_asgi(guarded, path, one["asking"], pairs)
        shared = {name: [value] for name, value in one["headers"] if name.startswith("access-control-")}
        varies = [value.lower() for name, value in one["headers"] if name == "vary"]

        assert (answer.status, answer.shared) == (one["status"], shared)
        assert set(", ".join(varies).split(", ")) - {""} == set(answer.vary) - {"accept"}


def test_values_of_headers_are_not_shown(tmp_path: Path) -> None:
    """Neither where a rule holds because of them, nor where one does not; they are asked all the same."""
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        "share:\n"
        "- {id: out, when: {path: /x, not: {header: {authorization: {prefix: Bearer}}}}, action: refuse}\n"
        "- id: in\n"
        "  when: {path: /x, header: {authorization: {prefix: Bearer}}}\n"
        "  action: grant\n"
        "  headers: [authorization]\n"
    )
    words = ("--path", "/x", "--origin", PAGE, "--client", "fetch", "--header")

    granted = run(rules, *words, "authorization: Bearer hidden-token").output
    refused = run(rules, *words, "authorization: hidden-token", status=1).output

    assert "header authorization: by the value that was given" in granted
    assert "because    not header authorization: by the value that was given" in refused
    assert "hidden-token" not in granted + refused


def test_rules_of_admission_are_named(tmp_path: Path) -> None:
    """A ban of the path, which holds whoever asks, is no matter of sharing and still decides."""
    rules = tmp_path / "rules.yaml"
    rules.write_text("rules: [{id: gone, when: {path: /public}, action: ban}]\n" + RULES)

    assert "the action ban, by rule 'gone'" in asked(rules, "/public")["not_looked_at"][0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--origin", PAGE], "give the URL of a live server, or --rules with --path"),
        (["https://a.example/", "--path", "/x", "--origin", PAGE], "give the URL of a live server, or --rules"),
        (["--path", "x", "--origin", PAGE], "write /x"),
        (["--path", "/x", "--origin", PAGE + "/"], f"write {PAGE}"),
        (["--path", "/x", "--origin", PAGE, "--host", "https://a.example"], "is no host; write api.example.com"),
        (["--path", "/x", "--origin", PAGE, "--scheme", "wss"], "is not http or https"),
    ],
)
def test_wrong_usage(rules: Path, arguments: list[str], words: str) -> None:
    """Status 2, and what would be right."""
    assert words in " ".join(run(rules, *arguments, status=2).output.replace("\u2502", " ").split())


def test_the_example_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/cors-check.md shows lines of a real output."""
    page = (Path(__file__).parents[2] / "docs" / "cors-check.md").read_text()
    command, *lines = page.partition("```\n$ gobanfast cors --rules")[2].partition("```")[0].splitlines()
    monkeypatch.chdir(tmp_path)
    Path("share.yaml").write_text(
        "share:\n- {id: api, when: {path: /api/**, origin: 'https://app.example.com'}, action: grant, methods: [PUT]}\n"
    )
    result = CliRunner().invoke(app, ["cors", "--rules", *command.split()], env={"COLUMNS": "200", "TERM": "dumb"})

    shown = [line for line in lines if line != "..."]
    assert len(shown) > 6
    assert [] == [line for line in shown if line not in result.output.splitlines()]
