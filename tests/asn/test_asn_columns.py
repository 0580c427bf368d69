"""Tables whose columns are not prefix and AS in the first two places: read as meant, or refused with the reason."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gobanfast import RuleError
from gobanfast.asn import AsnTable, read

A, B, C = "203.0.113.9", "198.51.100.1", "2001:db8::1"


def table(tmp_path: Path, text: str, columns: str | None = None) -> AsnTable:
    path = tmp_path / "table.txt"
    path.write_text(text)
    return read(path, columns=columns)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("203.0.113.0\t24\t64500\n198.51.100.0\t24\t64501_64502\n2001:db8::\t32\t64503\n", (64500, 64501, 64503)),
        ("203.0.113.0\t24\t64500\n198.51.100.0\t24\t64501,64502\n2001:db8::\t32\t64503\n", (64500, None, 64503)),
        ("203.0.113.0\t24\t64500\n198.51.100.0\t24\t{64501,64502}\n2001:db8::\t32\t{64503}\n", (64500, None, 64503)),
        ("203.0.113.0\t24\t64505,64506_64500\n198.51.100.0\t24\t64501_1,2\n2001:db8::\t32\t3_4_5\n", (64500, 64501, 3)),
        ("203.0.113.0,24,64500\r\n198.51.100.0,24,64501\r\n2001:db8::,32,64503\r\n", (64500, 64501, 64503)),
        ('"203.0.113.0","24","64500"\n"198.51.100.0","24","64501"\n"2001:db8::","32","64503"', (64500, 64501, 64503)),
        ("# pfx2as\n\n\ufeff203.0.113.0\t24\t64500".replace("\ufeff", ""), (64500, None, None)),
        ("\ufeff203.0.113.0\t24\t64500\n", (64500, None, None)),
        ("prefix\tlength\tasn\n203.0.113.0\t24\t64500\n198.51.100.0\t24\t7_8\n", (64500, 7, None)),
        ("network,prefix_length,as_name,asn\n203.0.113.0,24,One,64500\n", (64500, None, None)),
        ("prefix,length,asn\n203.0.113.0/24,24,64500\n", (64500, None, None)),  # the length is there twice
        ("203.0.113.0/24\t64500\n198.51.100.0/24\t64501_64502\n", (64500, 64501, None)),
        ("203.0.113.9,64500\n198.51.100.1,64501\n", (64500, 64501, None)),  # hosts: numbers that are no lengths
        ("203.0.113.0/24,13\n198.51.100.0/24,7018\n", (13, 7018, None)),  # small AS numbers beside prefixes
    ],
)
def test_every_form_is_read_as_meant(tmp_path: Path, text: str, expected: tuple[int | None, ...]) -> None:
    """Addresses with the length in a column of its own are prefixes; the first of several origins counts."""
    made = table(tmp_path, text)

    assert expected == (made.lookup(A), made.lookup(B), made.lookup(C))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("203.0.113.0\t24\n198.51.100.0\t22\n", "looks like a length of a prefix"),
        ("203.0.113.0\t24\tEXAMPLE\n", "looks like a length of a prefix"),
        ("203.0.113.0/24,24,64500\n198.51.100.0/22,22,64501\n", "looks like a length of a prefix"),
        ("203.0.113.0/24,US,64500\n198.51.100.0/22,DE,64501\n", "holds 'US', which is no AS number"),
        ("203.0.113.0,203.0.113.255,24,64500\n198.51.100.0,198.51.100.255,24,64501\n", "looks like a length"),
        ("203.0.113.0\t24\t64500\n198.51.100.0\tx\t64501\n", ":2:1: row '198.51.100.0\\tx\\t64501' has no length"),
        ("203.0.113.0\t24\t64500\n198.51.100.0\t\t64501\n", ":2:1: row"),
        ("address,asn,length\n", "names no column for"),
        ("prefix,asn,length\n203.0.113.0,64500,24\n", "must follow its address"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(tmp_path: Path, text: str, words: str) -> None:
    """Never a length as an AS: the error has the value, and the option that says what the columns hold."""
    with pytest.raises(RuleError) as caught:
        table(tmp_path, text)

    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "columns", "expected"),
    [
        ("203.0.113.0/24,US,64500,One\n", "prefix,-,asn,name", 64500),
        ("24,203.0.113.0,24,64500\n", "-,address,length,asn", 64500),
        ("203.0.113.0,203.0.113.255,24,64500\n", "first,last,-,asn", 64500),
        ("64500;x\n".replace(";", ",") + "64500,203.0.113.0/24\n", "asn,prefix", 64500),
        ("a,b,c\n203.0.113.0,24,64500\n", "address,length,asn", 64500),
        ("203.0.113.0/24,24\n", "prefix,asn", 24),
    ],
)
def test_columns_can_be_told(tmp_path: Path, text: str, columns: str, expected: int) -> None:
    """A first row that is no row of these columns is a header."""
    assert expected == table(tmp_path, text, columns).lookup(A)


FAR = "203.0.113.0,203.0.113.255," + "x," * 21 + "64500,One\n"  # the AS is in column 24


@pytest.mark.parametrize(
    ("text", "columns", "name"),
    [
        (FAR, "first,last,asn=24,name", "One"),
        (FAR, "first=1,last=2,asn=24", None),
        (FAR, "asn=24,first=1,last", None),
        (FAR, "first,last," + "-," * 21 + "asn,name", "One"),
        (FAR, "name=25,asn=24,first=1,last", "One"),
        (FAR, "first,last,name,asn=24", "x"),  # the columns after it are no part of it
        ("start_ip,end_ip," + "c," * 21 + "asn,as_name\n" + FAR, None, "One"),
        ("x," * 200 + "203.0.113.0/24,64500\n", "prefix=201,asn", None),
        ("x;y\n".replace(";", ",") + "64500,203.0.113.0/24\n", "prefix=2,asn=1", None),
    ],
)
def test_columns_far_to_the_right(tmp_path: Path, text: str, columns: str | None, name: str | None) -> None:
    """A word with a number is that column, one without the column after the word before it."""
    made = table(tmp_path, text, columns)

    assert (64500, name) == (made.lookup(A), made.name(64500))


@pytest.mark.parametrize(
    ("text", "columns", "words"),
    [
        (FAR, "first,last,asn=26", "row has 25 columns, and columns 'first,last,asn=26' have asn in column 26"),
        (FAR, "first,last,asn=24,name=26", "row has 25 columns"),
        ("203.0.113.0/24\n", "prefix,asn", "row has 1 column,"),
        (FAR, None, "column 3 holds 'x', which is no AS number, and there are 25 columns"),
        ("first,last," + "x," * 300 + "asn\n1.1.1.0,1.1.1.9," + "x," * 300 + "5\n", None, "column 303 is past the 256"),
    ],
)
def test_columns_that_the_file_has_not(tmp_path: Path, text: str, columns: str | None, words: str) -> None:
    """The error says how many there are, once and not for each row."""
    with pytest.raises(RuleError) as caught:
        table(tmp_path, text, columns)

    assert (1, True) == (len(caught.value.problems), words in str(caught.value))


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ("1,2,24", "'1' is none; write a list of prefix, .*first,last,asn=24"),
        ("first,last,asn=0", "'0' is no number of a column; count from 1"),
        ("first,last,asn=", "'' is no number"),
        ("first,last,asn=-1", "'-1' is no number"),
        ("first,last,asn=2", "'asn' and another are column 2"),
    ],
)
def test_numbers_of_columns_that_are_none(tmp_path: Path, columns: str, words: str) -> None:
    """They are a ValueError that quotes what is wrong."""
    with pytest.raises(ValueError, match=words):
        table(tmp_path, FAR, columns)


@pytest.mark.parametrize("columns", ["", "asn", "prefix", "prefix,first,last,asn", "prefix,asn,asn", "address,asn"])
def test_columns_that_make_no_table(tmp_path: Path, columns: str) -> None:
    """They are a ValueError with the value, and usage on the command line."""
    with pytest.raises(ValueError, match="columns"):
        table(tmp_path, "203.0.113.0/24,64500\n", columns)

    pytest.importorskip("typer", reason="the command line needs the extra cli")
    from typer.testing import CliRunner

    from gobanfast.cli.app import app

    command = ["asn", "build", str(tmp_path / "table.txt"), "-o", str(tmp_path / "x.gbf"), "--columns", columns]
    assert 2 == CliRunner().invoke(app, command).exit_code


def test_places_in_errors_are_those_of_the_file(tmp_path: Path) -> None:
    """Joining the length to its address moves nothing: the AS that is none is told where it stands."""
    with pytest.raises(RuleError) as caught:
        table(tmp_path, "203.0.113.0\t24\t64500\n198.51.100.0\t24\t4294967295\n203.0.113.1\t24\t1\n")

    assert [(2, 17), (3, 1)] == [(problem.line, problem.column) for problem in caught.value.problems]


def test_pfx2as_on_the_command_line(tmp_path: Path) -> None:
    """`asn build` says how many rows have no AS; `check` shows the right one."""
    pytest.importorskip("typer", reason="the command line needs the extra cli")
    from typer.testing import CliRunner

    from gobanfast.cli.app import app

    source, made = tmp_path / "t.pfx2as", tmp_path / "t.gbf"
    source.write_text("203.0.113.0\t24\t64500\n198.51.100.0\t24\t64501,64502\n")
    shown = CliRunner().invoke(app, ["asn", "build", str(source), "-o", str(made)])
    found = CliRunner().invoke(app, ["check", A, B, "--asn", str(made), "--json"]).stdout

    assert "1 of 2 rows have no AS" in shown.stdout
    assert [64500, None] == [json.loads(text)["asn"] for text in found.splitlines()]


@given(
    st.lists(st.text(st.sampled_from('0123456789./:,_{}\t\n"#Ax '), max_size=30), max_size=6),
    st.sampled_from(
        [None, "prefix,asn", "address,length,asn", "first,last,asn", "-,address,length,name,asn", "first=2,last,asn=5"]
    ),
)
def test_any_text_is_a_table_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, rows: list[str], columns: str | None
) -> None:
    """Whatever rows hold, and whatever they are said to hold: a table, or a RuleError."""
    with suppress(RuleError):
        table(tmp_path_factory.getbasetemp(), "\n".join(rows), columns)
