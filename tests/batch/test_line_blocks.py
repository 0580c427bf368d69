"""Lines whose texts C finds: counted as the slow reader counts them, whatever they hold and however they are cut."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import gobanfast
from gobanfast._core.log_lines import COLUMNS, InternTable, LineReader
from gobanfast.asn import AsnTable
from gobanfast.batch import line_blocks, line_classes
from gobanfast.batch.coverage import required_headers
from gobanfast.batch.line_blocks import SLOW, whole_lines
from gobanfast.batch.logs import LogFile
from gobanfast.batch.scan import Scan
from gobanfast.engine import Engine
from gobanfast.rules import Ruleset
from oracle import scan_lines

DEMO = Path(gobanfast.__file__).parent / "demo"
RULES = """
rules:
- {id: net, when: {prefix: 203.0.113.0/24}, action: ban}
- {id: tool, when: {header: {user-agent: {contains: sqlmap}}}, action: ban}
- {id: env, when: {path: /.env}, action: ban}
- {id: cgi, when: {path: "/cgi-bin/**", header: {referer: absent}}, action: challenge}
- {id: writes, when: {method: [POST, PUT]}, action: log}
- {id: host, when: {host: [a.example]}, action: challenge, mode: shadow}
- {id: long, when: {header: {user-agent: {regex: "^.{300}"}}}, action: ban}
"""
SHARING = (
    RULES
    + """
share:
- {id: app, when: {path: "/api/**", origin: "https://app.example.com"}, action: grant}
- {id: probes, when: {path: /.env}, action: refuse}
- {id: write, when: {cross_origin_write: true}, action: refuse}
"""
)

ADDRESSES = [
    "203.0.113.9",
    "192.0.2.1",
    "2001:db8::1",
    "203.0.113.9:443",
    "[2001:db8::1]:80",
    "x",
    "-",
    "",
    "1.2.3.4,192.0.2.7",
]
TARGETS = [
    "/",
    "/.env",
    "/%2eenv?x=1",
    "/cgi-bin/x?a=b c",
    "http://h.example/cgi-bin/x",
    "*",
    "",
    "//.env",
    "/a\\x22b",
    "/api/1",
    "/cgi-bin/" + "x" * 3000,
]
LINES = [
    "GET {} HTTP/1.1",
    "POST {} HTTP/2.0",
    "GET {}",
    "get {} HTTP/1.0",
    " GET {} HTTP/1.1",
    "-",
    "{}",
    "GET  {} HTTP/1.1",
    "CONNECT h:443 HTTP/1.1",
    "GET {} HTTP/1.",
    "GET {} HTTP/11",
    "GET {} HTTP/2",
    "OPTIONS {} HTTP/1.1",
]
AGENTS = [
    "-",
    "",
    "curl/8",
    'sqlmap \\"x\\"',
    "a\\\\",
    "a\\",
    'odd " quote',
    "\\x00",
    "caf\xe9",
    "x" * 400,
    "a\tb",
    '] \\"',
]
FROM_PAGES = ["-", "", "https://a.example/", 'x" y', "\\n"]

requests = st.builds(str.format, st.sampled_from(LINES), st.sampled_from(TARGETS))
combined = st.builds(
    lambda address, request, status, referer, agent, form: form.format(
        a=address, q=request, s=status, r=referer, u=agent
    ),
    st.sampled_from(ADDRESSES),
    requests,
    st.sampled_from(["200 5", "200 -", "-", "200 5 7", "200\xa0 5", ""]),
    st.sampled_from(FROM_PAGES),
    st.sampled_from(AGENTS),
    st.sampled_from(
        [
            '{a} - - [02/Nov/2026:00:00:05 +0000] "{q}" {s} "{r}" "{u}"',
            '{a} - - [02/Nov/2026:00:00:05 +0000] "{q}" {s} "{r}" "{u}" "more" 5',
            '{a} - - [02/Nov/2026:00:00:05 +0000] "{q}" {s}',
            '{a} - - [x] "{q}"',
            "{a}",
            '{a} "u" - [x] "{q}" {s}',
            'INFO:     {a} - "{q}" 200 OK',
            '{a} - "{q}" 200 "] "',
            ' {a} - - [x] "{q}" {s} "{r}" "{u}"',
            "\0\0{a} - -\r",
            '{a}\t- - [x] "{q}" {s} "{r}" "{u}"',
            '\xef\xbb\xbf{a} - - [x] "{q}" {s} "{r}" "{u}"\r',
        ]
    ),
)


def json_line(values: dict[str, object], form: int) -> str:
    text = json.dumps(values, ensure_ascii=form == 1)
    if form == 2:
        text = text.replace("/", "\\/")
    return text.replace('"', r"\x22", 1) if form == 3 else text


scalars = st.sampled_from(
    ["203.0.113.9", "GET /.env HTTP/1.1", "sqlmap", "", None, 5, True, "é\n", ["x", "y"], {"a": "b"}, 1.5e3]
)
json_lines = st.builds(
    json_line,
    st.fixed_dictionaries(
        {"remote_addr": st.sampled_from([*ADDRESSES, None, 5])},
        optional={
            "request": st.one_of(
                requests,
                scalars,
                st.fixed_dictionaries(
                    {
                        "method": st.sampled_from(["GET", "POST"]),
                        "uri": st.sampled_from(TARGETS),
                        "headers": st.dictionaries(
                            st.sampled_from(["User-Agent", "user-agent", "Origin", "Host", "X"]), scalars
                        ),
                    }
                ),
            ),
            "http_user_agent": st.one_of(st.sampled_from(AGENTS), scalars),
            "userAgent": scalars,
            "path": scalars,
            "status": st.integers(),
            "ip": st.sampled_from(ADDRESSES),
            "http_host": st.sampled_from(["a.example", "b"]),
        },
    ),
    st.integers(0, 3),
)
csv_lines = st.builds(
    "{},{},{},{}".format,
    st.sampled_from(ADDRESSES),
    st.sampled_from(["GET", "POST", '"GET"', ""]),
    st.sampled_from(["/.env", '"/cgi-bin/a,b"', '"a""b"', " /x ", '/a"b"', ""]),
    st.sampled_from(["sqlmap", '"sqlmap, x"', "-", "", "a,b"]),
)


def engine_of(tmp: Path, rules: str) -> Engine:
    tmp.write_text(rules)
    return Engine(Ruleset.load(tmp, asn=AsnTable.starter()))


@pytest.fixture(scope="module", params=[RULES, SHARING], ids=["rules", "sharing"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return engine_of(tmp_path_factory.mktemp("rules") / "rules.yaml", request.param)


def assert_same(engine: Engine, data: bytes, layout: str = "auto", mount: str = "") -> Scan:
    """Scan and slow reader count the same, client by client."""

    def opened() -> LogFile:
        return LogFile(
            io.BufferedReader(io.BytesIO(data)),
            "a.log",
            layout=layout,
            requests=True,
            asked=required_headers(engine.compiled),
        )

    expected, bad = scan_lines.count(engine, opened(), mount)
    made = Scan(engine, mount=mount)
    made.read(opened())
    assert expected == Counter(dict(made.pairs()))
    assert bad == made.bad
    return made


@settings(deadline=None)
@given(st.lists(combined, min_size=1, max_size=40), st.sampled_from(["", "/api"]))
@example([""], "")
@example([" ", ""], "")
def test_combined_lines(engine: Engine, lines: list[str], mount: str) -> None:
    """Lines of combined logs and what resembles them, well-formed or not."""
    assert_same(engine, "\n".join(lines).encode("latin-1"), "combined", mount)


@settings(deadline=None)
@given(st.lists(json_lines, min_size=1, max_size=30))
def test_json_lines(engine: Engine, lines: list[str]) -> None:
    """JSON of any structure, escapes, types and nesting."""
    assert_same(engine, "\n".join(lines).encode("utf-8", "surrogateescape"), "jsonl")


@settings(deadline=None)
@given(st.lists(csv_lines, max_size=30))
def test_csv_lines(engine: Engine, lines: list[str]) -> None:
    """Cells with and without quotes."""
    assert_same(engine, "\n".join(["client_ip,method,path,user_agent", *lines]).encode("latin-1"), "csv")


@settings(deadline=None)
@given(st.binary(max_size=300), st.sampled_from(["combined", "jsonl"]))
def test_any_bytes(engine: Engine, data: bytes, layout: str) -> None:
    """Whatever the bytes are."""
    assert_same(engine, b"192.0.2.1\n" + data, layout)


def test_few_lines_are_slow(engine: Engine) -> None:
    """The demo log has one broken line that is left to the slow reader, and is counted as by it."""
    import gzip

    data = gzip.decompress((DEMO / "access.log.gz").read_bytes())
    assert_same(engine, data)
    log = LogFile(io.BufferedReader(io.BytesIO(data)), "a.log", requests=True)
    kinds = Counter(kind == SLOW for block in log.blocks() for kind in block.kinds.tolist())
    assert 1 == kinds[True]
    assert kinds[False] + 1 == data.count(b"\n")


def test_real_log(engine: Engine, real_data: Path) -> None:
    """Ten thousand real lines."""
    import gzip

    made = assert_same(engine, gzip.decompress((real_data / "access-combined.log.gz").read_bytes()))
    assert 10_000 == made.decided


def test_tables_that_are_full_begin_anew(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory for values is bounded, and clearing it changes no count."""
    monkeypatch.setattr(line_classes, "MOST_VALUES", 3)
    monkeypatch.setattr(line_classes, "MOST_PAIRS", 3)
    monkeypatch.setattr(line_blocks, "BLOCK_BYTES", 4096)
    monkeypatch.setattr(line_blocks, "LINE_BYTES", 2048)
    lines = [
        f'192.0.2.{n % 50} - - [x] "GET /{"cgi-bin/" * (n % 3)}{n % 41} HTTP/1.1" 200 5 "-" "a{n % 29}"'
        for n in range(2_000)
    ]
    assert_same(engine, "\n".join(lines).encode())


@given(st.lists(st.binary(max_size=60), max_size=30), st.lists(st.integers(1, 90), min_size=1), st.booleans())
def test_blocks_hold_whole_lines(lines: list[bytes], cuts: list[int], piped: bool) -> None:
    """However the text comes, blocks end with lines; of one that is longer than a block, the beginning is left."""
    data = b"\n".join(line.replace(b"\n", b"") for line in lines)
    pieces, at = [], 0
    while at < len(data):
        size = cuts[len(pieces) % len(cuts)]
        pieces.append(data[at : at + size])
        at += size
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(line_blocks, "BLOCK_BYTES", 48)
        patch.setattr(line_blocks, "LINE_BYTES", 32)
        source = io.BufferedReader(io.BytesIO(data), 7) if piped else pieces
        blocks = [bytes(block[:nbytes]) for block, nbytes in whole_lines(source)]
    assert all(block.endswith(b"\n") for block in blocks)
    got = b"".join(blocks).split(b"\n")[:-1]
    expected = data.removesuffix(b"\n").split(b"\n") if data else []
    assert len(expected) == len(got)
    for line, found in zip(expected, got, strict=True):
        assert found == line if len(line) < 48 else line.startswith(found[:32])


@given(st.binary(max_size=400))
def test_kernels_agree(data: bytes) -> None:
    """Every index finds the same lines and texts."""
    data += b'\n"a" \\ "b"\n'
    found = []
    for features in (0, None):
        reader = LineReader("combined", features=features)
        lines = reader.index(data, len(data))
        kinds, spans = np.zeros(lines, np.uint8), np.zeros((2 + 2 * COLUMNS, lines), np.uint32)
        assert lines == reader.read(data, len(data), lines, kinds, spans, None) == data.count(b"\n")
        found.append((kinds.tolist(), spans.tolist()))
    assert found[0] == found[1]


@given(st.lists(st.binary(max_size=12)), st.lists(st.binary(max_size=12)))
def test_equal_texts_have_one_number(first: list[bytes], second: list[bytes]) -> None:
    """Numbers count the distinct texts in order, over calls; the new ones are named."""
    table, known = InternTable(), {}
    for texts in (first, second):
        nbytes = np.array([len(text) for text in texts], np.uint32)
        at = (np.cumsum(nbytes) - nbytes).astype(np.uint32)
        numbers = np.empty(len(texts), np.uint32)
        before = len(known)
        expected = [known.setdefault(text, len(known)) for text in texts]
        fresh = np.frombuffer(table.texts(b"".join(texts), at, nbytes, numbers), np.uint32)
        assert expected == numbers.tolist()
        assert [*known][before:] == [texts[item] for item in fresh.tolist()]
    assert [*known] == [table.text(number) for number in range(len(table))]
    table.clear()
    assert 0 == len(table)


def test_arrays_that_do_not_fit() -> None:
    """Sizes are checked: nothing is read or written past an array."""
    reader, table = LineReader("combined"), InternTable()
    data = b"a\nb\n"
    assert 2 == reader.index(data, 4)
    small, spans = np.zeros(1, np.uint8), np.zeros((2 + 2 * COLUMNS, 2), np.uint32)
    with pytest.raises(ValueError, match="arrays do not fit 2 lines"):
        reader.read(data, 4, 2, small, spans, None)
    with pytest.raises(ValueError, match="block of 4 bytes, not 9"):
        reader.index(data, 9)
    with pytest.raises(ValueError, match="a text is not in the block"):
        table.texts(data, np.array([3], np.uint32), np.array([2], np.uint32), np.empty(1, np.uint32))
    with pytest.raises(ValueError, match="are not 1 records of 3"):
        table.fixed(data, 3, np.empty(1, np.uint32))
    with pytest.raises(ValueError, match="layout 'xml' is not one of combined, csv, json"):
        LineReader("xml")


@pytest.mark.parametrize("layout", ["combined", "jsonl", "csv"])
def test_bad_logs_take_bounded_memory(engine: Engine, layout: str) -> None:
    """A field of megabytes, invalid UTF-8, NULs, and an end in the middle of a line count as by the slow reader."""
    begin = {
        "combined": '192.0.2.1 - - [x] "GET /',
        "jsonl": '{"ip": "192.0.2.1", "path": "/',
        "csv": "client_ip,path\n192.0.2.1,/",
    }[layout]
    data = begin.encode() + b"x" * (3 << 20) + b"\n" + begin.encode() + b"\xff\xfe\x00\n\0\0\0\n" + begin.encode()

    made = assert_same(engine, data, layout)
    assert made.lines == made.decided + made.bad > 0
