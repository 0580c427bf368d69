"""`rules diff --log`: a dry run that asks what it shows, says what it did not ask, and fails a budget for that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("typer", reason="the command line needs the extra cli")

from typer.testing import CliRunner, Result

from gobanfast._values import duration_text, parse_duration
from gobanfast.cli.app import app

PROBE = "{id: probe, when: {path: [/.env, /wp-login.php]}, action: %s}"
NOBODY = '{id: nobody, when: {path: "/no/such"}, action: ban}'


def line(path: str, *, second: int = 0, address: str = "192.0.2.1", agent: str = "M", referer: str = "-") -> str:
    at = f"27/Jan/2024:10:{second // 60:02}:{second % 60:02} +0000"
    return f'{address} - - [{at}] "GET {path} HTTP/1.1" 200 5 "{referer}" "{agent}"\n'


LOG = "".join(line("/", second=n) for n in range(90)) + "".join(line("/.env", second=90 + n) for n in range(10))


def diff(tmp_path: Path, old: str, new: str, log: str, *options: str, status: int) -> Result:
    for name, text in (("old.yaml", old), ("new.yaml", new), ("a.log", log)):
        (tmp_path / name).write_text(text)
    command = ["rules", "diff", str(tmp_path / "old.yaml"), str(tmp_path / "new.yaml"), "-l", str(tmp_path / "a.log")]
    result = CliRunner().invoke(app, [*command, *options], env={"COLUMNS": "200", "TERM": "dumb"})
    assert status == result.exit_code, result.output
    return result


def report(tmp_path: Path, old: str, new: str, log: str, *options: str, status: int) -> dict[str, Any]:
    found = json.loads(diff(tmp_path, old, new, log, "--json", *options, status=status).stdout)
    assert isinstance(found, dict)
    return found


def rules(*texts: str, head: str = "") -> str:
    return head + "rules:\n" + "".join(f"- {text}\n" for text in texts)


def scanned(tmp_path: Path, name: str, *options: str) -> dict[str, int]:
    command = ["scan", str(tmp_path / "a.log"), "-r", str(tmp_path / name), "--json", *options]
    found = json.loads(CliRunner().invoke(app, command).stdout)["actions"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("old", "new", "log"),
    [
        (PROBE % "ban", PROBE % "challenge", LOG),
        (NOBODY, '{id: nobody, when: {header: {user-agent: {contains: evil}}}, action: ban}',
         LOG + 10 * line("/", agent="evil/1")),
        (NOBODY, "{id: nobody, when: {header: {referer: {contains: spam}}}, action: ban}",
         LOG + 10 * line("/", referer="http://spam.example/")),
        (NOBODY, "{id: nobody, when: {method: POST}, action: ban}", LOG + 10 * line("/").replace("GET", "POST")),
        (NOBODY, "{id: nobody, when: {header: {user-agent: absent}}, action: ban}", LOG + 10 * line("/", agent="-")),
        (NOBODY, "{id: nobody, when: {path: /.env, prefix: 192.0.2.0/24}, action: ban}", LOG),
        (NOBODY, "{id: nobody, when: {path: /.env}, action: ban}", LOG.replace("/.env", "http://h.example/.env?x=1")),
    ],
)  # fmt: skip
def test_diff_reads_a_log_as_scan_does(tmp_path: Path, old: str, new: str, log: str) -> None:
    """The decisions that differ are those by which two scans differ; a budget below fails, one above does not."""
    found = report(tmp_path, rules(old), rules(new), log, status=1)
    was, now = scanned(tmp_path, "old.yaml"), scanned(tmp_path, "new.yaml")

    assert 10 == found["decisions"]["differing"]
    assert was == _by(found, "old")
    assert now == _by(found, "new")
    assert [] == found["change_not_asked"]
    diff(tmp_path, rules(old), rules(new), log, "--budget", "0", status=1)
    diff(tmp_path, rules(old), rules(new), log, "--budget", "9", status=1)
    diff(tmp_path, rules(old), rules(new), log, "--budget", "10", status=0)


def _by(found: dict[str, Any], which: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in found["decisions"]["actions"]:
        counts[row[which]] = counts.get(row[which], 0) + row["requests"]
    return counts


TRACKED = "trackers: {request_rate: {limit: %s, window: 60s, action: challenge}}\n"


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        (rules(NOBODY), rules(NOBODY, head=TRACKED % 50), "trackers"),
        (rules(NOBODY, head=TRACKED % 50), rules(NOBODY, head=TRACKED % 60), "trackers"),
        (rules(NOBODY), rules(NOBODY, head="score: {}\n"), "score"),
        (rules(NOBODY), rules(NOBODY, head="bans: {capacity: 10}\n"), "stored bans"),
        (rules(PROBE % "ban"), rules(PROBE % "ban, for: 1h"), "stored bans"),
        (rules(NOBODY), rules(NOBODY, "{id: named, when: {sni: a.example}, action: ban}"), "rule named"),
        (rules(NOBODY), rules(NOBODY, "{id: t13, when: {ja4_prefix: t13}, action: ban}"), "rule t13"),
        (rules(NOBODY), rules(NOBODY, "{id: lang, when: {header: {accept-language: de}}, action: ban}"), "rule lang"),
        (rules(NOBODY, "{id: lang, when: {header: {accept-language: de}}, action: ban}"), rules(NOBODY), "rule lang"),
        (rules(NOBODY), rules(NOBODY, head="trust: [10.0.0.0/8]\n"), "trust"),
    ],
)
def test_what_changes_and_cannot_be_asked_fails_every_budget(tmp_path: Path, old: str, new: str, what: str) -> None:
    """The dry run names it, in JSON too, and is no proof that nothing differs."""
    found = report(tmp_path, old, new, LOG, "--budget", "100", status=1)

    assert [what] == found["change_not_asked"]
    assert what in found["over_budget"]
    assert f"what changes was not asked in full: {what}\n" in diff(tmp_path, old, new, LOG, status=1).stdout


def test_what_stays_and_cannot_be_asked_is_named_only(tmp_path: Path) -> None:
    """Trackers, score and rules that are the same in both fail no budget, and are told in one line each."""
    head = TRACKED % 50 + "score: {}\n"
    lang = "{id: lang, when: {header: {accept-language: de}}, action: ban, for: 1h}"
    old, new = rules(lang, PROBE % "ban", head=head), rules(lang, PROBE % "challenge", head=head)
    shown = diff(tmp_path, old, new, LOG, "--budget", "10", status=0).stdout
    found = report(tmp_path, old, new, LOG, "--budget", "10", status=0)

    assert "not asked: trackers, score and stored bans; --replay asks them" in shown
    assert "what a rule requires: lang in 100 lines\n" in shown
    assert (["trackers", "score", "stored bans"], {"lang": 100}) == (found["not_asked"], found["unjudged"])


def test_lines_that_lack_a_signal_count_against_the_budget(tmp_path: Path) -> None:
    """A tenth of the lines has no user agent: a changed rule on it could differ there, so a budget under that fails."""
    log = 90 * line("/") + 10 * '192.0.2.1 - - [27/Jan/2024:10:00:00 +0000] "GET / HTTP/1.1" 200 5\n'
    new = rules(NOBODY, "{id: tool, when: {header: {user-agent: {contains: evil}}}, action: ban}")

    diff(tmp_path, rules(NOBODY), new, log, "--budget", "9", status=1)
    diff(tmp_path, rules(NOBODY), new, log, "--budget", "10", status=0)


def test_replay_asks_trackers_and_stored_bans(tmp_path: Path) -> None:
    """With the log's own times a lower limit and a longer ban differ by the lines that they stop, and a budget can be
    held against that."""
    old, new = rules(NOBODY, head=TRACKED % 1000), rules(NOBODY, head=TRACKED % 50)
    found = report(tmp_path, old, new, LOG, "--replay", status=1)
    stopped = scanned(tmp_path, "new.yaml", "--replay")["challenge"]

    assert (stopped, []) == (found["decisions"]["differing"], found["change_not_asked"])
    assert 40 < stopped < 60
    diff(tmp_path, old, new, LOG, "--replay", "--budget", "60", status=0)
    diff(tmp_path, old, new, LOG, "--replay", "--budget", "40", status=1)

    log = LOG + "".join(line("/", second=200 + n) for n in range(50))
    found = report(tmp_path, rules(PROBE % "ban"), rules(PROBE % "ban, for: 1h"), log, "--replay", status=1)
    assert (50, []) == (found["decisions"]["differing"], found["change_not_asked"])


def test_durations_and_settings_are_told_in_the_form_of_rules(tmp_path: Path) -> None:
    """1h -> permanent; a section that comes or goes; a single setting of one, with its place."""
    old = rules(PROBE % "ban, for: 1h", head=TRACKED % 50 + "bans: {escalate: {cap: 36h}}\n")
    new = rules(PROBE % "ban, for: permanent", head=TRACKED % 60 + "score: {}\nbans: {escalate: {cap: 1d}}\n")
    shown = diff(tmp_path, old, new, LOG, status=1).stdout

    for text in (
        "changed probe\n  duration 1h -> permanent\n",
        "changed trackers\n  request_rate.limit 50 -> 60\n",
        "changed score\n  off -> on\n",
        "changed bans\n  escalate.cap 1d12h -> 1d\n",
    ):
        assert text in shown


@pytest.mark.parametrize("text", ["1h", "1h30m", "2d", "90d1h", "1m30s", "0.5s", "59s", "permanent"])
def test_a_duration_is_written_as_it_is_read(text: str) -> None:
    """The text of a duration is that duration again."""
    assert text == duration_text(parse_duration(text))


@pytest.mark.parametrize("log", ["", "\n\n", "ip,path\n", "\ufeff"])
@pytest.mark.parametrize("replay", [(), ("--replay",)])
def test_a_log_without_a_line_passes_no_budget(tmp_path: Path, log: str, replay: tuple[str, ...]) -> None:
    """A log that is empty, or has no line with an address, has compared nothing, which is told and fails the budget."""
    old = rules("{id: here, when: {prefix: 192.0.2.0/24}, action: ban}")

    failed = diff(tmp_path, old, old.replace("ban", "challenge"), log, "--budget", "100", *replay, status=1)
    assert "the budget cannot be judged: no line was compared" in failed.output
