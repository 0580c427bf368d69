"""The commands, run in this process: what they print, where, and with which status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import gobanfast

pytest.importorskip("typer", reason="the command line needs the extra cli")

from typer.testing import CliRunner, Result

from gobanfast.cli.app import app

DEMO = Path(gobanfast.__file__).parent / "demo"
GOOD = str(Path(__file__).parents[1] / "cases" / "rules_v1" / "weighed.yaml")
LOG, RULES = str(DEMO / "access.log.gz"), str(DEMO / "rules.yaml")


def run(*arguments: str, stdin: bytes = b"", status: int = 0) -> Result:
    """What a command leaves behind, wide enough that tables do not fold."""
    result = CliRunner().invoke(app, arguments, input=stdin, env={"COLUMNS": "200", "TERM": "dumb"})
    assert status == result.exit_code, result.output
    return result


# ---- check, explain


def test_check_shows_network_and_decision() -> None:
    """One row an address: action, rule, network."""
    shown = run("check", "198.51.100.7", "198.51.100.9", "46.101.9.1", "8.8.8.8", "--rules", RULES).stdout

    for address, words in (
        ("198.51.100.7", ("allow", "our-own")),
        ("198.51.100.9", ("ban", "password-probes")),
        ("46.101.9.1", ("challenge", "rented-servers", "AS14061")),
        ("8.8.8.8", ("allow", "AS15169")),
    ):
        row = next(line for line in shown.splitlines() if line.startswith(address + " "))
        assert [] == [word for word in words if word not in row]


def test_a_request_decides(tmp_path: Path) -> None:
    """--header, --method, --path and --ja4 are what rules require; a header without a name, and no rules, are usage
    errors."""
    rules = tmp_path / "rules.yaml"
    conditions = "{header: {user-agent: {contains: evil}}, path: /a*, ja4_prefix: t13}"
    rules.write_text(f"rules: [{{id: evil, when: {conditions}, action: ban}}]")
    said = ("--header", "User-Agent: Evil/1", "--method", "GET", "--path", "/a?b",
            "--ja4", "t13d1516h2_8daaf6152771_02713d6af862")  # fmt: skip

    assert "evil" in run("check", "8.8.8.8", "-r", str(rules), *said).stdout
    assert "'evil' is in 'Evil/1'" in run("explain", "8.8.8.8", "-r", str(rules), *said).stdout
    assert "--header needs --rules" in run("check", "8.8.8.8", *said[:2], status=2).output
    run("check", "8.8.8.8", "-r", str(rules), "--header", "no name", status=2)


SHARING = """
share:
- {id: rebind, when: {not: {host: api.example.com}}, action: refuse}
- {id: app, when: {path: /api/**, origin: "https://app.example.com"}, action: grant}
- {id: odd, when: {path: /api/**, fetch_site: absent}, action: withhold, mode: shadow, priority: 1}
"""


def test_check_and_explain_say_what_is_shared(tmp_path: Path) -> None:
    """--origin, --host and --scheme decide; a column and members of JSON where rules are about it; twice is wrong."""
    rules = tmp_path / "rules.yaml"
    rules.write_text(SHARING)
    said = ("8.8.8.8", "-r", str(rules), "--path", "/api/1", "--method", "GET", "--origin", "https://app.example.com")
    host = ("--host", "api.example.com:443", "--scheme", "https")

    shown = run("check", *said, *host).stdout
    assert ["share", "shadow"] == shown.splitlines()[0].split()[-2:]
    assert "granted (app)" in shown.splitlines()[1]
    assert "odd" in shown.splitlines()[1]
    found = json.loads(run("check", *said, *host, "--json").stdout)
    assert ("granted", "app", ["odd"], False, ["Origin"]) == tuple(
        found[name] for name in ("share", "share_rule", "share_shadow", "preflight", "varies")
    )
    assert [] == found["unjudged"]
    assert "refused (rebind)" in run("check", *said, "--host", "api.example.com:443", "--scheme", "http").stdout
    explained = run("explain", *said, *host).stdout
    assert "because    origin: 'https://app.example.com' covers 'https://app.example.com'" in explained
    assert "browser    shows the answer to the script, but not where cookies were sent along" in explained
    unjudged = run("check", "8.8.8.8", "-r", str(rules), "--path", "/api/1").stdout
    assert "what they require was not given: rebind, odd, app (--header, --host, --origin)" in unjudged
    twice = run("check", *said, "--header", "Origin: null", status=2).output
    assert "say the same; give one of them" in " ".join(twice.replace("│", " ").split())
    run("explain", *said, "--scheme", "ftp", status=2)


def test_check_and_explain_take_a_server_name(tmp_path: Path) -> None:
    """--sni decides with the name; without rules nothing could require it, which is a usage error."""
    rules = tmp_path / "rules.yaml"
    rules.write_text("rules: [{id: evil, when: {sni: .evil.example}, action: ban}]")

    assert "evil" in run("check", "8.8.8.8", "-r", str(rules), "--sni", "www.evil.example").stdout
    assert "'.evil.example' (of 1) covers 'www.evil.example'" in run(
        "explain", "8.8.8.8", "-r", str(rules), "--sni", "WWW.evil.example").stdout  # fmt: skip
    assert "allow" in run("check", "8.8.8.8", "-r", str(rules)).stdout
    run("check", "8.8.8.8", "--sni", "www.evil.example", status=2)


def test_check_json_is_one_object_a_line() -> None:
    """Members and their order are fixed, with rules and without."""
    ruled = [json.loads(line) for line in run("check", "35.160.7.1", "::1", "-r", RULES, "--json").stdout.splitlines()]
    plain = [json.loads(line) for line in run("check", "35.160.7.1", "::1", "--json").stdout.splitlines()]

    assert [
        *(
            "address",
            "action",
            "rule",
            "asn",
            "network",
            "reason",
            "shadow",
            "logged",
            "cause",
            "ban",
            "unjudged",
            "not_asked",
        )
    ] == list(ruled[0])
    assert [("35.160.7.1", "allow", None, 16509, ["amazon"]), ("::1", "allow", None, None, [])] == [
        (row["address"], row["action"], row["rule"], row["asn"], row["shadow"]) for row in ruled
    ]
    assert [("35.160.7.1", 16509), ("::1", None)] == [(row["address"], row["asn"]) for row in plain]
    assert ["address", "asn", "network"] == list(plain[0])


@pytest.mark.parametrize("command", [["check", "1.2.3", "x", "8.8.8.8"], ["explain", "1.2.3", "--rules", RULES]])
def test_malformed_address_is_wrong_usage(command: list[str]) -> None:
    """Every text that is no address is named at once, on standard error."""
    result = run(*command, status=2)

    assert "" == result.stdout
    assert "not an IP address: '1.2.3'" in result.stderr
    assert ("'x'" in result.stderr) == ("x" in command)


def test_explain_names_the_rule_and_its_place() -> None:
    """The explanation holds the rule's id and file:line."""
    shown = run("explain", "198.51.100.23", "--rules", RULES).stdout

    assert "password-probes" in shown
    assert "rules.yaml:" in shown


def test_explain_tells_what_was_said_and_no_more() -> None:
    """A path without a method is shown alone, and a long one cut."""
    shown = run("explain", "46.101.9.5", "--path", "/" + "a" * 1000, "--rules", RULES).stdout

    assert f"             path '/{'a' * 119}'\n" in shown


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """The error has the file that was asked for, not the temporary one beside it."""
    out = tmp_path / "missing" / "rules.gbf"

    assert f"{out}: No such file or directory\n" == run("rules", "compile", RULES, "-o", str(out), status=2).stderr


# ---- rules lint


def test_lint_of_good_rules() -> None:
    """Rules without a finding: one line, status 0."""
    assert f"{GOOD}: 3 rules, nothing to say\n" == run("rules", "lint", GOOD).stdout


def test_lint_says_what_an_engine_says(tmp_path: Path) -> None:
    """Warnings of a load are among those of lint, with the starter table as with one's own."""
    for options in ([], ["--asn", str(Path(gobanfast.__file__).parent / "asn" / "starter.csv")]):
        table = gobanfast.AsnTable.from_csv(options[1]) if options else None
        warned = gobanfast.Ruleset.load(RULES, asn=table).problems
        shown = run("rules", "lint", RULES, *options, status=1 if warned else 0).stdout

        assert bool(options) == (not warned)
        for problem in warned:
            assert f"{problem} [warning {problem.code}]" in shown


def test_lint_prints_all_findings_of_all_files(tmp_path: Path) -> None:
    """Every problem is a line file:line:column with its severity; status 1; good files are still named."""
    bad = tmp_path / "bad.yaml"
    bad.write_text("rules:\n  - {id: a, when: {prefix: 10.0.0.1/8}, action: ban}\n  - {id: b, action: nonsense}\n")
    shown = run("rules", "lint", str(bad), GOOD, status=1).stdout.splitlines()

    assert [line for line in shown if line.startswith(f"{bad}:2:") and "10.0.0.0/8" in line and "[error]" in line]
    assert [line for line in shown if line.startswith(f"{bad}:3:") and "nonsense" in line]
    assert f"{GOOD}: 3 rules, nothing to say" in shown
    assert shown[-1].endswith(" 0 warnings")


def test_broken_rules_stop_every_command_alike(tmp_path: Path) -> None:
    """Where rules are needed to go on, all problems go to standard error and the status is 2."""
    bad = tmp_path / "bad.yaml"
    bad.write_text("rules:\n  - {id: a, when: {prefix: 10.0.0.1/8}, action: ban}\n  - {id: b, action: nonsense}\n")
    for command in (["check", "8.8.8.8"], ["explain", "8.8.8.8"], ["scan", LOG]):
        result = run(*command, "--rules", str(bad), status=2)

        assert "" == result.stdout
        assert f"{bad}:2:" in result.stderr
        assert f"{bad}:3:" in result.stderr


# ---- asn


def test_asn_build_show_and_use(tmp_path: Path) -> None:
    """A table built from CSV and names answers as the CSV says."""
    table, names, made = tmp_path / "table.csv", tmp_path / "names.csv", tmp_path / "made.gbf"
    table.write_text("192.0.2.0/24,64500\n2001:db8::/32,64501\n")
    names.write_text('asn,name\n64500,"EXAMPLE One"\n')

    built = run("asn", "build", str(table), "-o", str(made), "--names", str(names)).stdout
    shown = run("asn", "show", str(made)).stdout
    found = run("check", "192.0.2.1", "2001:db8::1", "8.8.8.8", "--asn", str(made), "--json").stdout

    assert built.startswith(f"{made}: 2 prefixes, {made.stat().st_size:,} bytes, ")
    assert ["prefixes", "2"] in [line.split() for line in shown.splitlines()]
    assert [(64500, "EXAMPLE One"), (64501, None), (None, None)] == [
        (row["asn"], row["network"]) for row in map(json.loads, found.splitlines())
    ]


def test_asn_show_of_a_foreign_file(tmp_path: Path) -> None:
    """A file that is no table is one message with path and offset, status 2."""
    foreign = tmp_path / "foreign.gbf"
    foreign.write_bytes(b"not a table\0" * 100)

    assert run("asn", "show", str(foreign), status=2).stderr.startswith(f"{foreign}: neither a compiled table")


def test_names_go_with_csv_only(tmp_path: Path) -> None:
    """--names beside a file that has names of its own is refused, not ignored."""
    made = tmp_path / "made.gbf"
    gobanfast.AsnTable.starter().save(made)

    assert "--names" in run("asn", "build", str(made), "-o", "x", "--names", str(made), status=2).stderr


# ---- bench


def test_bench_says_what_it_is() -> None:
    """Five rows, the dict's ratio is 1, and where to measure properly."""
    shown = run("bench", "--queries", "1000").stdout

    assert ["no-op:", "dict.get(address),", "AsnTable.lookup(address),", "Engine.decide(address),", "..."] == [
        line.split()[0] for line in shown.splitlines() if " ns " in line
    ]
    assert next(line for line in shown.splitlines() if line.startswith("dict.get(")).split()[-1] == "1.00"
    assert "make bench" in shown


def test_bench_takes_the_rules_it_is_given(tmp_path: Path) -> None:
    """Decisions are by those rules, and the table says how many there are."""
    (tmp_path / "rules.yaml").write_text("rules: [{id: one, when: {sni: a.example}, action: ban}]")

    assert ", 1 rule " in run("bench", "--queries", "1000", "--rules", str(tmp_path / "rules.yaml")).stdout


# ---- what was not asked

TRACKED = """
trackers: {request_rate: {limit: 5, window: 60s, action: ban, for: 10m}}
rules:
- {id: probe, when: {path: /.env}, action: challenge}
- {id: office, when: {prefix: 192.0.2.0/28}, action: allow}
"""


@pytest.mark.parametrize("command", ["check", "explain"])
def test_stored_bans_are_asked_or_said_not_to_be(tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --store, or GOBANFAST_STORE, a banned client is banned; without, the last line says what was not asked; JSON
    carries the same. An allow rule beats the ban, as it does live."""
    rules, store = tmp_path / "rules.yaml", f"sqlite:{tmp_path / 'bans.db'}"
    rules.write_text(TRACKED)
    run("bans", "add", "203.0.113.77", "198.51.100.0/24", "192.0.2.1", "--store", store, "--reason", "seen")
    asked = ("-r", str(rules))

    lines = run(command, "203.0.113.77", *asked).stdout.splitlines()
    assert "stored bans, trackers and score were not asked; --store URI" == lines[-1]
    blind = json.loads(run(command, "203.0.113.77", *asked, "--json").stdout)
    assert ("allow", ["stored bans", "trackers", "score"]) == (blind["action"], blind["not_asked"])

    for key, address in (("203.0.113.77", "203.0.113.77"), ("198.51.100.0/24", "198.51.100.9")):
        lines = run(command, address, *asked, "--store", store).stdout.splitlines()
        assert any(f"ban of {key}" in text for text in lines)
        assert "trackers were not asked" == lines[-1]
        found = json.loads(run(command, address, *asked, "--store", store, "--json").stdout)
        assert ("ban", "ban", key, "seen", ["trackers"]) == (
            found["action"], found["cause"], found["ban"], found["reason"], found["not_asked"],
        )  # fmt: skip
    for address in ("203.0.113.78", "192.0.2.1"):
        assert "allow" == json.loads(run(command, address, *asked, "--store", store, "--json").stdout)["action"]

    monkeypatch.setenv("GOBANFAST_STORE", store)
    assert "ban" == json.loads(run(command, "203.0.113.77", *asked, "--json").stdout)["action"]
    assert "8.8.8.8" in run("check", "8.8.8.8").stdout
    monkeypatch.delenv("GOBANFAST_STORE")
    assert "--store needs --rules" in run("check", "8.8.8.8", "--store", store, status=2).output


def test_rules_without_live_state_leave_nothing_out(tmp_path: Path) -> None:
    """With the store asked, and neither trackers nor score in the rules, there is no last line."""
    rules, store = tmp_path / "rules.yaml", f"sqlite:{tmp_path / 'bans.db'}"
    rules.write_text("rules:\n- {id: a, when: {prefix: 192.0.2.0/24}, action: ban}\n")
    run("bans", "add", "203.0.113.77", "--store", store)

    assert "not asked" not in run("check", "203.0.113.77", "-r", str(rules), "--store", store).stdout
    assert [] == json.loads(run("check", "8.8.8.8", "-r", str(rules), "--store", store, "--json").stdout)["not_asked"]


@pytest.mark.parametrize("command", ["check", "explain"])
@pytest.mark.parametrize(
    ("when", "said"),
    [
        ("path: /.env", ("--path", "/a")),
        ("method: POST", ("--method", "GET")),
        ("header: {user-agent: curl}", ("--header", "accept: a")),
        ("sni: a.example", ("--sni", "b.example")),
        ("crawler: any", ("--header", "accept: a")),
    ],
)
def test_rules_that_could_not_be_judged_are_named(
    tmp_path: Path, command: str, when: str, said: tuple[str, ...]
) -> None:
    """A rule that requires what was not said of the request is named, in text and JSON; said, it is judged. Rules on
    addresses, rules that are off and rules that matched are not named."""
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        f"rules:\n- {{id: asks, when: {{{when}}}, action: ban}}\n"
        "- {id: off, when: {path: /b}, action: ban, mode: off}\n"
        "- {id: here, when: {prefix: 192.0.2.0/24}, action: ban}\n- {id: bare, when: {sni: absent}, action: log}\n"
    )
    asked = (command, "203.0.113.77", "-r", str(rules))

    told = run(*asked).stdout
    assert "not judged, because what they require was not given: asks (--" in told
    assert f"{said[0]})" in told
    assert ["asks"] == json.loads(run(*asked, "--json").stdout)["unjudged"]
    assert "not judged" not in run(*asked, *said).stdout
    assert [] == json.loads(run(*asked, *said, "--json").stdout)["unjudged"]


def test_explain_of_a_logged_decision_after_an_edit(tmp_path: Path) -> None:
    """What was logged is told first, then that the rules changed since; --rules-dir finds those of that time."""
    from gobanfast.telemetry.log import DecisionLog

    rules, path, kept = tmp_path / "rules.yaml", tmp_path / "log.jsonl", tmp_path / "kept"
    rules.write_text(TRACKED)
    engine = gobanfast.Engine.load(rules)
    log = DecisionLog(f"file:{path}")
    log.observe(engine.decide("203.0.113.5", path="/.env", headers=[(b"user-agent", b"curl/8")]), request_id="r-1")
    log.close()
    kept.mkdir()
    (kept / "broken.yaml").write_text("rules: [")
    (kept / "earlier.yaml").write_text(TRACKED)
    rules.write_text(TRACKED + "- {id: more, when: {path: /x}, action: ban}\n")
    asked = ("explain", "--log", str(path), "--id", "r-1", "-r", str(rules))

    lines = run(*asked, status=1).stdout.splitlines()
    assert "203.0.113.5: challenge" == lines[0]
    assert ["rule", "probe"] in [text.split() for text in lines]
    assert ["user-agent", "curl/8"] in [text.split() for text in lines]
    assert lines[-1].startswith("not decided again: rules changed since")
    found = json.loads(run(*asked, "--json", status=1).stdout)
    assert (False, "probe") == (found["decided_again"], found["logged"]["rule"])

    assert "  decided again: the same" == run(*asked, "--rules-dir", str(kept)).stdout.splitlines()[-1]
    found = json.loads(run(*asked, "--rules-dir", str(kept), "--json").stdout)
    assert (True, {}) == (found["decided_again"], found["differences"])


# ---- mistakes


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("check", "8.8.8.8", "-r", RULES, "--path", "admin"), "--path 'admin' is no path; write /admin"),
        (("explain", "8.8.8.8", "-r", RULES, "--method", "get"), "in lower case, and methods are not; write GET"),
        (("check", "8.8.8.8", "-r", RULES, "--mount", "app"), "mount 'app' is not the plain path of a folder"),
        (("scan", LOG, "-r", RULES, "--mount", "/a//b"), "mount '/a//b' is not the plain path of a folder"),
        (("asn", "build", LOG, "-o", "."), "is a directory"),
    ],
)
def test_a_mistake_is_told(arguments: tuple[str, ...], words: str) -> None:
    """Never a decision about something else."""
    assert words in " ".join(run(*arguments, status=2).stderr.replace("│", " ").split())


def test_a_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    """Not with the bytes that it has for a header."""
    (tmp_path / "x").write_bytes(b"\xff\xd8\x01\x02 jpeg, or the like")

    assert (
        f"{tmp_path / 'x'}:1:1: the file is not text; give a CSV, an MMDB file or a compiled table\n"
        == run("asn", "show", str(tmp_path / "x"), status=2).stderr
    )
