"""Logs in, addresses out: layouts, damage, bounds."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gobanfast.batch import layouts, logs
from gobanfast.batch.logs import LogError, LogFile

COMBINED = '{} - - [02/Nov/2026:00:00:05 +0000] "GET / HTTP/1.1" 200 7180 "-" "curl/8.5.0"'


def stream(data: bytes) -> io.BufferedReader:
    return io.BufferedReader(io.BytesIO(data))


def read(data: bytes, **options: str) -> tuple[list[str], dict[int, str]]:
    """Addresses line by line, and faults by line number, over all chunks."""
    addresses: list[str] = []
    faults: dict[int, str] = {}
    for chunk in LogFile(stream(data), "test.log", **options):
        assert len(addresses) + 1 == chunk.first
        addresses += chunk.addresses
        faults |= chunk.faults
    return addresses, faults


# ---- lines


@given(st.lists(st.binary(max_size=20), max_size=20), st.integers(1, 20), st.booleans())
def test_blocks_do_not_show(pieces: list[bytes], block_bytes: int, packed: bool) -> None:
    """Whatever the size of a block, the lines are those of the whole text; NULs and CRs around
    them and a byte order mark in front are gone."""
    data = b"\n".join([b"no gzip", *pieces])
    lines = data.decode("latin-1").split("\n")
    expected = [line.strip("\0\r").removeprefix(logs.BYTE_ORDER_MARK) for line in (lines if lines[-1] else lines[:-1])]
    longest = max(map(len, lines))

    file = io.BytesIO(gzip.compress(data) if packed else data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logs, "BLOCK_BYTES", longest + block_bytes)  # cutting long lines is another law
        got = [line for block in logs._lines(logs._plain(io.BufferedReader(file), "test.log")) for line in block]

    assert expected == [line.strip("\0\r") for line in got]


def test_endless_line_is_cut_and_the_next_is_whole() -> None:
    """A line of 3 blocks keeps its address, takes bounded memory, and does not shift the numbers after it."""
    long = COMBINED.format("192.0.2.1") + "x" * (3 * logs.BLOCK_BYTES)
    data = "\n".join([long, COMBINED.format("192.0.2.2")]).encode()

    assert (["192.0.2.1", "192.0.2.2"], {}) == read(data)
    assert logs.BLOCK_BYTES == max(len(line) for block in logs._lines(stream(data).read1) for line in block)


def test_binary_junk_passes_through() -> None:
    """Bytes that are no UTF-8, NULs in front, CR at the end: the address is read all the same."""
    data = b'\x00\x00\x00192.0.2.1 - \xff\xfe [x] "\x00"\r\n2001:db8::1 - - [cut'

    assert (["192.0.2.1", "2001:db8::1"], {}) == read(data, layout="combined")


def test_empty_log_has_no_lines() -> None:
    """Neither an empty file nor an empty gzip file has a line."""
    assert ([], {}) == read(b"")
    assert ([], {}) == read(gzip.compress(b""))


def test_gzip_is_told_by_content() -> None:
    """Packed text, also in several members, reads as the text does."""
    first, second = COMBINED.format("192.0.2.1") + "\n", COMBINED.format("192.0.2.2") + "\n"

    assert read((first + second).encode()) == read(gzip.compress(first.encode()) + gzip.compress(second.encode()))


@pytest.mark.parametrize("damage", ["cut", "flipped", "foreign"])
def test_damaged_gzip_is_one_fault_after_the_lines_before_it(damage: str) -> None:
    """Lines in front of the damage are read; the damage is a fault with a line number, not an exception."""
    lines = "".join(COMBINED.format(f"10.0.{n // 256}.{n % 256}") + f" {n * n}\n" for n in range(20_000))
    data = bytearray(gzip.compress(lines.encode()))
    if damage == "cut":
        del data[-2000:]
    elif damage == "flipped":
        data[len(data) // 2] ^= 0xFF
    else:
        data += b"not a gzip member"

    addresses, faults = read(bytes(data))

    assert 1 == len(faults)
    assert "gzip stream is damaged" in faults[len(addresses)]
    assert len(addresses) > 5_000
    assert "10.0.19.136" == addresses[5_000]


# ---- layouts


def test_combined_faults_name_what_is_missing() -> None:
    """An empty line and a missing field are faults; a host name is an address to look at later."""
    data = b"host.example - -\n\n192.0.2.1 x 192.0.2.9\n"

    assert (["host.example", "", "192.0.2.1"], {2: "line is empty"}) == read(data, layout="combined")
    assert (
        ["-", "", "192.0.2.9"],
        {2: "line is empty"},
    ) == read(data, layout="combined", field="3")
    assert {1: "field 4 is missing", 2: "line is empty", 3: "field 4 is missing"} == read(
        data, layout="combined", field="4"
    )[1]


@given(st.sampled_from(logs.ADDRESS_KEYS), st.dictionaries(st.sampled_from(["x", "ü", "port"]), st.integers()))
def test_json_takes_the_first_known_key(key: str, others: dict[str, int]) -> None:
    """Any known key is found among others, written whole or as nested objects."""
    nested: object = "192.0.2.1"
    for part in reversed(key.split(".")):
        nested = {part: nested}
    assert isinstance(nested, dict)
    data = "\n".join([json.dumps(others | {key: "192.0.2.1"}), json.dumps(others | nested)]).encode()

    assert (["192.0.2.1", "192.0.2.1"], {}) == read(data, layout="jsonl")


def test_json_order_of_keys_is_the_stated_one() -> None:
    """remote_addr beats ip, wherever it stands; null and "" count as absent."""
    data = b'{"ip": "192.0.2.2", "remote_addr": "192.0.2.1"}\n'
    data += b'{"ip": "192.0.2.2", "remote_addr": null}\n{"remote_addr": "", "ip": "192.0.2.3"}'

    assert (["192.0.2.1", "192.0.2.2", "192.0.2.3"], {}) == read(data, layout="jsonl")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"ip": "192.0.2.1"', "not a JSON object: "),
        ("[1]", "not a JSON object: '[1]'"),
        ("[" * 100_000, "not a JSON object: "),
        ('{"ip": 5}', "key 'ip' holds 5, not an address"),
        ('{"port": 5}', "no key that is known to hold an address"),
        ("", "line is empty"),
    ],
)
def test_json_faults(line: str, why: str) -> None:
    """A line that is no object or holds no address is a fault that shows at most 60 characters of it."""
    addresses, faults = read(f'{{"ip": "192.0.2.1"}}\n{line}\n'.encode(), layout="jsonl")

    assert ["192.0.2.1", ""] == addresses
    assert [2] == list(faults)
    assert faults[2].startswith(why)
    assert len(faults[2]) < 120


def test_nginx_escapes_are_read() -> None:
    """nginx without escape=json writes \\xHH inside strings, which JSON does not have."""
    data = rb'{"remote_addr": "192.0.2.1", "agent": "\x22quoted\x22"}'

    assert (["192.0.2.1"], {}) == read(data, layout="nginx-json")
    assert (["192.0.2.1"], {}) == read(data)


def test_json_field_overrides() -> None:
    """`field` names the one key that counts; a key with a dot in it comes before a step inside."""
    data = b'{"remote_addr": "192.0.2.1", "a": {"b": "192.0.2.2"}}\n{"a.b": "192.0.2.3"}\n{"remote_addr": "192.0.2.4"}'

    assert (["192.0.2.2", "192.0.2.3", ""], {3: "no key 'a.b'"}) == read(data, layout="jsonl", field="a.b")


@given(
    st.lists(
        st.lists(
            st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=6), min_size=3, max_size=3
        )
    ),
    st.integers(0, 3),
    st.sampled_from(",;\t"),
)
def test_csv_finds_its_column(rows: list[list[str]], column: int, delimiter: str) -> None:
    """The column under a known header is read, wherever it stands and whatever the other cells hold."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    writer.writerow([*["a", "b", "c"][:column], "Client_IP", *["a", "b", "c"][column:]])
    for number, row in enumerate(rows):
        writer.writerow([*row[:column], f"192.0.2.{number}", *row[column:]])
    expected = ["", *(f"192.0.2.{number}" for number in range(len(rows)))]

    assert (expected, {}) == read(text.getvalue().encode("latin-1"), layout="csv")


def test_csv_without_header_and_with_field() -> None:
    """Without a header an address in line 1 tells; `field` is a name or a number; a header may repeat."""
    assert (["192.0.2.1", "192.0.2.2"], {}) == read(b"x,192.0.2.1\ny,192.0.2.2\n", layout="csv")
    assert (["192.0.2.1", "192.0.2.2"], {}) == read(b"x,192.0.2.1\ny,192.0.2.2\n", layout="csv", field="2")
    assert (["", "192.0.2.2", "", "x"], {}) == read(
        b"ip,who\n192.0.2.1,192.0.2.2\nip,who\ny,x", layout="csv", field="who"
    )
    assert (["192.0.2.1", ""], {2: "column 2 is missing"}) == read(b"x,192.0.2.1\ny\n", layout="csv")


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (
            b"a,b\n1,2\n",
            {"layout": "csv"},
            f"test.log: no column looks like a client address; the first line has 'a, b'; {layouts.HINT}",
        ),
        (b"a,b\n", {"layout": "csv", "field": "c"}, "test.log: no column 'c'; the first line has 'a, b'"),
        (
            b"192.0.2.1 -\n",
            {"field": "0"},
            "test.log: field '0' is not a number from 1; combined fields are separated by blanks",
        ),
        (b"x", {"layout": "xml"}, "test.log: format 'xml' is not one of auto, combined, nginx-json, jsonl, csv"),
    ],
)
def test_log_that_cannot_be_read_as_asked(data: bytes, options: dict[str, str], message: str) -> None:
    """A column or field that does not fit is an error that names the log and the value."""
    with pytest.raises(LogError) as caught:
        read(data, **options)

    assert message == str(caught.value)


@pytest.mark.parametrize(
    ("line", "layout"),
    [
        (COMBINED.format("192.0.2.1"), "combined"),
        (COMBINED.format("2001:db8::1") + ' "a,b;c"', "combined"),
        ("192.0.2.1", "combined"),
        ('{"remote_addr": "192.0.2.1"}', "nginx-json"),
        ('{"client_ip": "192.0.2.1"}', "jsonl"),
        ("time,client_ip", "csv"),
        ("192.0.2.1\t200", "csv"),
    ],
)
def test_auto_tells_the_layout(line: str, layout: str) -> None:
    """The layout is told by what a line looks like; empty lines before it change nothing."""
    assert layout == layouts.told_by([line])
    assert read(line.encode(), layout=layout)[0] == read(b"\n" + line.encode())[0][1:]


def test_consumed_counts_file_bytes() -> None:
    """After the last chunk every byte of the file is consumed; a pipe says 0."""
    data = gzip.compress(COMBINED.format("192.0.2.1").encode())
    log = LogFile(stream(data), "test.log")
    assert 1 == sum(len(chunk.addresses) for chunk in log)

    assert len(data) == log.consumed


def test_real_logs(real_data: Path) -> None:
    """The real logs read without a fault: 10,000 combined lines, 500 lines of nginx status."""
    for name, lines, distinct in (("access-combined.log.gz", 10_000, 1_753), ("access-nginx.jsonl.gz", 500, 1)):
        with (real_data / name).open("rb") as file:
            chunks = list(LogFile(file, name))
        addresses = [address for chunk in chunks for address in chunk.addresses]

        assert {} == {line: why for chunk in chunks for line, why in chunk.faults.items()}
        assert (lines, distinct) == (len(addresses), len(set(addresses)))
