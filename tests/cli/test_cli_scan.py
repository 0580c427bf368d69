"""`gobanfast scan`: tables, JSON, decisions, statuses."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import gobanfast

pytest.importorskip("typer", reason="the command line needs the extra cli")

from typer.testing import CliRunner, Result

from gobanfast.batch.logs import ADDRESS_KEYS, FORMATS
from gobanfast.cli.app import app
from gobanfast.cli.common import layout_of
from gobanfast.demo import make_log

DEMO = Path(gobanfast.__file__).parent / "demo"
LOG, RULES = str(DEMO / "access.log.gz"), str(DEMO / "rules.yaml")


def scan(*arguments: str, stdin: bytes = b"", status: int = 0, rules: str = RULES) -> Result:
    """What `scan`, with the demo rules unless told otherwise, leaves behind."""
    command = ["scan", *arguments, "--rules", rules]
    result = CliRunner().invoke(app, command, input=stdin, env={"COLUMNS": "200", "TERM": "dumb"})
    assert status == result.exit_code, result.output
    return result


def test_demo_shows_what_a_newcomer_needs() -> None:
    """Tables by action, rule and network, shadow and log rules, bad lines, speed, and one closing sentence."""
    lines = scan(LOG).stdout.splitlines()

    for title in ("What would have happened", "By rule", "By network, 5 of ", "Busiest clients of each action",
                  "Shadow rules", "Rules that only log", "4 lines without", "2,000 lines in ",
                  "Not judged in full", "Each line is"):  # fmt: skip
        assert 1 == sum(line.startswith(title) for line in lines), title
    assert ["ban", "271", "13.6%"] in [line.split() for line in lines]
    assert f"  {LOG}:411: 'crawler.example.net' is not an address" in lines
    assert lines[-1].startswith("In short: of 1,996 requests, 1,596 (80.0%) would have come in, 129 (6.5%) would have ")


def test_demo_log_regenerates() -> None:
    """The bundled log is what its generator writes, without a time stamp in the file."""
    packed = Path(LOG).read_bytes()

    assert "".join(f"{line}\n" for line in make_log.lines()).encode() == gzip.decompress(packed)
    assert bytes(4) == packed[4:8]


def test_json_is_the_tables() -> None:
    """One object; counts add up; members are fixed."""
    summary = json.loads(scan(LOG, "--json").stdout)

    assert [
        *("lines", "decided", "bad", "actions", "rules", "networks", "shadow", "logged", "clients", "unjudged"),
        *("unjudged_lines", "not_asked", "clients_exact", "faults", "logs", "interrupted", "seconds"),
    ] == list(summary)
    assert {"allow": 1596, "ban": 271, "challenge": 129} == summary["actions"]
    assert {"source": LOG, "line": 411, "why": "'crawler.example.net' is not an address"} == summary["faults"][0]
    for part in ("rules", "networks"):
        assert summary["decided"] == sum(row["lines"] for row in summary[part])


def test_out_has_every_decision(tmp_path: Path) -> None:
    """--out holds a line for each decided line, with the actions of the summary."""
    out = tmp_path / "decisions.jsonl"
    summary = json.loads(scan(LOG, "--out", str(out), "--json").stdout)
    written = [json.loads(line) for line in out.read_text("ascii").splitlines()]

    assert summary["actions"] == Counter(row["action"] for row in written)
    assert [row["line"] for row in written] == [line for line in range(1, 2001) if line not in make_log.ODD]


def test_standard_input_and_several_logs(tmp_path: Path) -> None:
    """- is standard input, plain or gzip; several logs are one count; faults name their log."""
    plain = tmp_path / "plain.log"
    plain.write_text("198.51.100.9 - -\nhost.example - -\n")
    for data in (Path(LOG).read_bytes(), gzip.decompress(Path(LOG).read_bytes())):
        summary = json.loads(scan("-", str(plain), "--json", stdin=data).stdout)

        assert (2002, 5, 272) == (summary["lines"], summary["bad"], summary["actions"]["ban"])
        assert {"<stdin>", str(plain)} == {fault["source"] for fault in summary["faults"]}


def test_formats_and_field(tmp_path: Path) -> None:
    """--format and --field reach the reader; the names of formats are the reader's."""
    log = tmp_path / "log"
    log.write_text('{"a": {"b": "198.51.100.9"}, "ip": "192.0.2.2"}\n')

    assert FORMATS == tuple(layout_of(name).value for name in FORMATS)
    assert {"ban": 1} == json.loads(scan(str(log), "--format", "jsonl", "--field", "a.b", "--json").stdout)["actions"]
    assert {"allow": 1} == json.loads(scan(str(log), "--json").stdout)["actions"]


def test_several_files_are_read_by_processes(tmp_path: Path) -> None:
    """Files over all cores count as one after the other; a file that cannot be read is one error."""
    (other := tmp_path / "b.log").write_text("192.0.2.1\n\n198.51.100.9\nx\n")

    found = [json.loads(scan(LOG, str(other), "--json", "--jobs", jobs).stdout) for jobs in ("2", "1")]
    for counts in found:
        counts.pop("seconds")
        counts["networks"].sort(key=str)
        counts["clients"].sort(key=str)
    assert found[0] == found[1]
    (tmp_path / "c.log").write_text("name,code\nx,1\n")
    assert "no column looks like" in scan(LOG, str(tmp_path / "c.log"), "--jobs", "2", status=2).stderr


def test_help_names_every_key_and_status() -> None:
    """--help states the keys in their order, and what the exit status means."""
    shown = CliRunner().invoke(app, ["scan", "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    text = " ".join(shown.stdout.split())

    assert ", ".join(ADDRESS_KEYS) in text
    assert "Exit status: 0 fine; 1 something to see" in text


@pytest.mark.parametrize(("action", "status"), [("ban", 1), ("challenge", 0)])
def test_fail_on(action: str, status: int) -> None:
    """Status 1 exactly when a line gets the action; the tables are printed all the same."""
    assert "In short" in scan("-", "--fail-on", action, stdin=b"198.51.100.9 -\n", status=status).stdout


def test_empty_log_is_fine() -> None:
    """Nothing to decide is said, and no failure."""
    assert "In short: the logs are empty" in scan("-").stdout


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        (["missing.log"], b"", "missing.log"),
        (["-", "--format", "xml"], b"", "xml"),
        (["-", "--format", "csv"], b"a,b\n", "<stdin>: no column looks like a client address"),
        (["-"], b"host.example -\nother.example -\n", "no line of 2 holds an address"),
        (["-"], b"\x7fELF\x00\x01\n\x02\x03", "<stdin>:1: "),
    ],
)
def test_unusable_input(arguments: list[str], stdin: bytes, message: str) -> None:
    """What cannot be scanned at all is status 2 with the reason on standard error, nothing on standard output."""
    result = scan(*arguments, stdin=stdin, status=2)

    assert "" == result.stdout
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_out_that_cannot_be_written(tmp_path: Path) -> None:
    """A path that takes no file is one line that names it."""
    result = scan(LOG, "--out", str(tmp_path / "no" / "such.jsonl"), status=2)

    assert f"{tmp_path / 'no' / 'such.jsonl'}: No such file or directory\n" == result.stderr


def test_rules_that_logs_cannot_answer_are_named(tmp_path: Path) -> None:
    """A log has no server name: rules that require one see it as absent, and the summary says which they are."""
    rules = tmp_path / "rules.yaml"
    named, none = (
        "{id: named, when: {sni: a.example}, action: ban}",
        "{id: none, when: {sni: absent}, action: challenge}",
    )
    rules.write_text(f"rules: [{named}, {none}]")

    shown = scan(LOG, rules=str(rules)).stdout

    assert ["challenge", "1,996", "100.0%"] in [line.split() for line in shown.splitlines()]
    assert "Not judged in full, because these logs do not hold what they require: named, none." in shown


SHARING = """
share:
- {id: refuse-probes, when: {path: /.env}, action: refuse}
- {id: app, when: {path: /api/**, origin: "https://app.example.com"}, action: grant}
- {id: odd, when: {path: /api/**, origin: malformed}, action: refuse, mode: shadow}
"""


def test_what_was_shared_is_counted(tmp_path: Path) -> None:
    """Lines by share and rule, in tables, JSON and --out, where the log has all headers."""
    rules, log, out = tmp_path / "rules.yaml", tmp_path / "a.jsonl", tmp_path / "out.jsonl"
    rules.write_text(SHARING)
    rows = [("/api/1", "https://app.example.com")] * 3 + [("/api/1", "no origin"), ("/.env", None), ("/", None)]
    log.write_text("".join(
        json.dumps({"remote_addr": "192.0.2.1", "request": f"GET {path} HTTP/1.1", "http_host": "a.example",
                    "headers": {"Origin": origin} if origin else {}}) + "\n"
        for path, origin in rows
    ))  # fmt: skip

    shown = scan(str(log), "--out", str(out), rules=str(rules)).stdout
    found = json.loads(scan(str(log), "--json", rules=str(rules)).stdout)

    rows_shown = [line.split() for line in shown.splitlines()]
    assert ["granted", "app", "allow", "3", "50.0%"] in rows_shown
    assert ["refused", "refuse-probes", "allow", "1", "16.7%"] in rows_shown
    assert ["odd", "withheld", "1", "16.7%"] in rows_shown
    assert "Share rules would have refused 1 of the requests that come in." in shown
    assert [("granted", "app", 3), ("withheld", None, 1), ("refused", "refuse-probes", 1)] == [
        (each["share"], each["rule"], each["lines"]) for each in found["share"]
    ]
    assert [{"rule": "odd", "share": "withheld", "lines": 1}] == found["share_shadow"]
    written = [json.loads(text) for text in out.read_text().splitlines()]
    assert ["refuse-probes"] == [row["share_rule"] for row in written if row.get("share") == "refused"]


# ---- replay

LIMIT = """
trackers:
  request_rate: {limit: 3, window: 60s, action: ban, for: 10m}
rules:
- {id: probes, when: {path: /.env}, action: ban, for: 1h}
"""


def line(second: int, address: str = "192.0.2.1", path: str = "/") -> str:
    return (
        f'{address} - - [27/Jan/2024:10:{second // 60:02}:{second % 60:02} +0000] "GET {path} HTTP/1.1" 200 5 "-" "M"\n'
    )


def replayed(tmp_path: Path, *logs: str, rules: str = LIMIT, status: int = 0) -> Result:
    (tmp_path / "limit.yaml").write_text(rules)
    names = []
    for number, text in enumerate(logs):
        (tmp_path / f"{number}.log").write_text(text)
        names.append(str(tmp_path / f"{number}.log"))
    return scan(*names, "--replay", "--json", rules=str(tmp_path / "limit.yaml"), status=status)


def live(times: list[tuple[int, str]]) -> Counter[str]:
    """What an engine answers to requests at these times, as it runs."""
    engine = gobanfast.Engine(gobanfast.Ruleset.from_text(LIMIT), clock=lambda: 0.0)
    return Counter(engine.decide(address, path="/", now=float(second)).action for second, address in times)


def test_replay_decides_as_an_engine_did_at_those_times(tmp_path: Path) -> None:
    """Trackers, the bans they make and bans of rules count, and end; the clients that were stopped are named."""
    seconds = [0, 10, 20, 30, 40, 100, 400, 700, 710, 720, 730]
    log = (
        "".join(map(line, seconds)) + line(731, "192.0.2.9", "/.env") + line(732, "192.0.2.9") + line(733, "192.0.2.8")
    )
    found = json.loads(replayed(tmp_path, log).stdout)

    actions = live([(second, "192.0.2.1") for second in seconds]) + Counter({"ban": 2, "allow": 1})
    assert actions == found["actions"]
    assert {"probes": {"rule", "ban"}} == {
        "probes": {row["cause"] for row in found["rules"] if row["rule"] == "probes"}
    }
    refused = live([(second, "192.0.2.1") for second in seconds])["ban"]
    assert ([("request_rate", "192.0.2.1", refused)], {"request_rate": 1}) == (
        [(row["tracker"], row["address"], row["lines"]) for row in found["replay"]["stopped"]],
        found["replay"]["clients_stopped"],
    )
    assert found["replay"]["stopped"][0]["first"].startswith("2024-01-27T10:00:")
    assert [] == found["not_asked"]


def test_without_replay_the_summary_says_what_was_not_asked(tmp_path: Path) -> None:
    """Trackers, score and stored bans are named in one line, in JSON too; rules without them have none to name."""
    rules = tmp_path / "rules.yaml"
    rules.write_text(LIMIT + "score: {}\n")
    shown = scan("-", stdin=line(0).encode(), rules=str(rules)).stdout.splitlines()
    found = json.loads(scan("-", "--json", stdin=line(0).encode(), rules=str(rules)).stdout)

    assert 1 == sum("trackers, score and stored bans were not asked" in text for text in shown)
    assert ["trackers", "score", "stored bans"] == found["not_asked"]

    rules.write_text("rules:\n- {id: a, when: {path: /a}, action: ban}\n")
    assert "not asked" not in scan("-", stdin=line(0).encode(), rules=str(rules)).stdout


def test_several_logs_are_merged_by_time(tmp_path: Path) -> None:
    """Whatever their order and however lines are spread, the result is that of one sorted log."""
    lines = [line(second) for second in (0, 10, 20, 30, 40, 50, 900, 910)]
    whole = json.loads(replayed(tmp_path, "".join(lines)).stdout)
    for logs in (("".join(lines[4:]), "".join(lines[:4])), ("".join(lines[::2]), "".join(lines[1::2])),
                 ("".join(reversed(lines)),)):  # fmt: skip
        found = json.loads(replayed(tmp_path, *logs).stdout)
        assert (whole["actions"], whole["replay"]["stopped"], 0) == (
            found["actions"], found["replay"]["stopped"], found["replay"]["out_of_order"],
        )  # fmt: skip


def test_lines_out_of_order_and_without_a_time_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes later than lines are held back is decided at the time reached; one without a time like its neighbour;
    and the summary says how many."""
    monkeypatch.setattr("gobanfast.batch.timeline.AHEAD", 2)
    log = "".join(line(second) for second in (100, 200, 300, 400, 50)) + "192.0.2.7 - -\n"
    found = json.loads(replayed(tmp_path, log).stdout)

    assert (6, 2, 1) == (found["decided"], found["replay"]["out_of_order"], found["replay"]["without_time"])


def test_a_log_without_times_cannot_be_replayed(tmp_path: Path) -> None:
    """It is status 2 and names the log."""
    result = replayed(tmp_path, "192.0.2.1 - -\n192.0.2.2 - -\n", status=2)

    assert "0.log: no line holds a time" in result.stderr


def test_what_logs_cannot_tell_is_named_in_a_replay(tmp_path: Path) -> None:
    """Fingerprints and names are in no log: the tracker and the score that live by them are named."""
    rules = LIMIT.replace(
        "rules:", "  distinct_fingerprints: {limit: 5, window: 60s, action: challenge}\nscore: {}\nrules:"
    )
    found = json.loads(replayed(tmp_path, line(0), rules=rules).stdout)

    assert ["distinct_fingerprints", "score"] == [text.split()[0] for text in found["not_asked"]]


def test_out_of_a_replay_has_cause_and_time(tmp_path: Path) -> None:
    """Each decision says what decided, and when it was."""
    (tmp_path / "limit.yaml").write_text(LIMIT)
    out = tmp_path / "out.jsonl"
    scan("-", "--replay", "-o", str(out), stdin=line(61).encode(), rules=str(tmp_path / "limit.yaml"))
    (row,) = map(json.loads, out.read_text().splitlines())

    assert ("none", "2024-01-27T10:01:01Z", 1) == (row["cause"], row["time"], row["line"])


def test_ctrl_c_shows_what_was_read(tmp_path: Path) -> None:
    """After SIGINT the summary of the lines so far is printed and says that it is partial; --out has whole lines;
    the status is 130."""
    (tmp_path / "limit.yaml").write_text(LIMIT)
    out = tmp_path / "out.jsonl"
    command = [
        sys.executable,
        "-m",
        "gobanfast",
        "scan",
        "-",
        "-r",
        str(tmp_path / "limit.yaml"),
        "-o",
        str(out),
        "--json",
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("".join(line(n % 3600) for n in range(20_000)).encode())
        process.stdin.flush()  # all but what the pipe holds is read by now, and it waits for more
        process.send_signal(signal.SIGINT)
        found = json.loads(process.stdout.read())
        process.stdin.close()
        status = process.wait()
    written = out.read_text()

    assert 130 == status
    assert found["interrupted"]
    assert 0 < found["decided"] <= 20_000
    assert found["decided"] == sum(found["actions"].values()) == sum(row["lines"] for row in found["rules"])
    assert written.endswith("}\n")
    assert abs(len(written.splitlines()) - found["decided"]) <= 1


def test_the_example_of_the_page(tmp_path: Path) -> None:
    """The rules of docs/scan.md load, and its command stops the client that asks more than the limit."""
    page = (Path(__file__).parents[2] / "docs" / "scan.md").read_text()
    rules = page.partition("```yaml\n")[2].partition("```")[0]
    found = json.loads(replayed(tmp_path, "".join(line(n // 2) for n in range(80)), rules=rules).stdout)

    assert {"request_rate": 1} == found["replay"]["clients_stopped"]
    assert found["actions"]["ban"] >= 30
