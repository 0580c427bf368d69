"""NameTable: what patterns mean, what wins, files, columns, and the limits."""

from __future__ import annotations

import pickle
import random
import sys
import threading
import tomllib
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import oracle.names as oracle
from gobanfast import FormatError
from gobanfast._core.block import cpu_levels
from gobanfast._core.name_table import NameTable
from gobanfast.names import normalize_name, parse_pattern, required_literal

CASES: dict[str, list[dict[str, Any]]] = tomllib.loads((Path(__file__).parents[1] / "cases/names.toml").read_text())
NONE = 0xFFFFFFFF
KEY = b"tests"
FORMS = ["", "*.", "**.", "."]

# Few letters and few labels, so that patterns and names meet often.
labels = st.sampled_from(["a", "b", "ab", "a1", "b-2", "_c", "x" * 7, "x" * 8, "xyz" * 7])
names = st.lists(labels, min_size=1, max_size=5).map(".".join)
glob_labels = st.one_of(
    labels, st.sampled_from(["*", "**", "a*", "*b", "a?", "[ab]+", "[!a]", "x{2,9}", "*[0-9]", "?{1,2}", "b-[0-9]{1}*"])
)
globs = st.builds(
    "".join, st.tuples(st.sampled_from(FORMS), st.lists(glob_labels, min_size=1, max_size=4).map(".".join))
)
literals = st.builds("".join, st.tuples(st.sampled_from(FORMS), names))
regexes = st.sampled_from([r"re:a.*", r"re:.+\.ab", r"re:(a|b)\..*", r"re:x{7}", r"re:[ab]+(\.[ab1]+)*"])
patterns = st.one_of(literals, globs, regexes)
item_lists = st.lists(st.tuples(patterns, st.integers(0, NONE - 1)), max_size=30)
written = st.one_of(names, names.map(str.upper), names.map(lambda name: name + "."), st.text(max_size=20))


def case_rows(kind: str, text: str) -> Any:
    return pytest.mark.parametrize("case", CASES[kind], ids=[case[text] or "empty" for case in CASES[kind]])


@pytest.fixture(params=cpu_levels())
def kernel(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@case_rows("pattern", "form")
def test_pattern_covers_and_spares_what_its_row_says(case: dict[str, Any], kernel: str) -> None:
    """Every row of the table of semantics holds, whichever of lookup, in, lookup_all and lookup_many is asked."""
    table = NameTable([(case["pattern"], 7)], kernel=kernel)
    asked = case["covers"] + case["spares"]
    out = array("I", [0] * len(asked))

    assert len(case["covers"]) == table.lookup_many(asked, out)
    assert [7] * len(case["covers"]) + [NONE] * len(case["spares"]) == list(out)
    for name in case["covers"]:
        assert (7, [7], True) == (table.lookup(name), table.lookup_all(name), name in table), name
    for name in case["spares"]:
        assert (None, [], False) == (table.lookup(name), table.lookup_all(name), name in table), name


@case_rows("refused", "pattern")
def test_refused_pattern_says_why(case: dict[str, str]) -> None:
    """A pattern that means nothing is an error that quotes it and says what is wrong."""
    with pytest.raises(ValueError, match=case["message"]) as caught:
        parse_pattern(case["pattern"])
    assert repr(case["pattern"]) in str(caught.value)


@case_rows("name", "text")
def test_name_is_normalised(case: dict[str, str]) -> None:
    """A name comes back in lower case and without its trailing dot."""
    assert case["name"] == normalize_name(case["text"])


@case_rows("malformed", "text")
def test_malformed_name_is_none_and_never_matches(case: dict[str, str], kernel: str) -> None:
    """What is no name is None, and no pattern covers it, not even the one that covers everything."""
    table = NameTable([("**", 1), ("re:.*", 2)], kernel=kernel)
    assert None is normalize_name(case["text"])
    assert (None, [], False) == (table.lookup(case["text"]), table.lookup_all(case["text"]), case["text"] in table)


repeated = st.builds(lambda text, times: (text * times)[:260], st.text("aZ0_.", max_size=70), st.integers(1, 80))


@given(text=st.one_of(st.text(max_size=20), st.text("aZ09-_.:\x00/@[`{", max_size=20), repeated, written))
@example("\ud800")
@example("x" * 63 + "." + "y" * 64)
@example(".".join(["a"] * 127))
def test_normalising_equals_the_oracle(text: str) -> None:
    """One rule decides what a name is, at every length and for every character."""
    assert oracle.normalize(text) == normalize_name(text)


@given(length=st.integers(0, 300), at=st.integers(0, 300), byte=st.integers(0, 255))
def test_every_kernel_reads_names_alike(length: int, at: int, byte: int) -> None:
    """A byte anywhere in a name of any length is folded or refused alike by all kernels."""
    text = "".join("abcdefg."[i % 8] for i in range(length))
    text = text[:at] + chr(byte) + text[at + 1 :]
    expected = 1 if oracle.normalize(text) is not None else None
    for level in cpu_levels():
        assert expected == NameTable([("**", 1)], key=KEY, kernel=level).lookup(text), level


@given(items=item_lists, asked=st.lists(written, min_size=1, max_size=20))
def test_lookups_equal_trying_every_pattern(items: list[tuple[str, int]], asked: list[str]) -> None:
    """lookup, lookup_all, in and lookup_many return what trying every pattern on the name returns."""
    table = NameTable(items)
    out = array("I", [0] * len(asked))
    table.lookup_many(asked, out)
    for index, name in enumerate(asked):
        expected = oracle.lookup_all(items, name)
        first = expected[0] if expected else None
        assert expected == table.lookup_all(name)
        assert first == table.lookup(name)
        assert bool(expected) == (name in table)
        assert (NONE if first is None else first) == out[index]


@given(items=item_lists)
def test_iteration_is_the_first_of_equal_patterns(items: list[tuple[str, int]]) -> None:
    """Iterating yields every distinct pattern once, with the value it was first given; len counts them."""
    table = NameTable(items)
    assert oracle.table(items) == dict(table)
    assert len(oracle.table(items)) == len(table) == len(list(table))


@given(items=item_lists, asked=st.lists(names, max_size=20))
def test_bytes_come_back_as_the_same_table(items: list[tuple[str, int]], asked: list[str]) -> None:
    """A table read back from its bytes answers alike, and building it again with the same key gives the same bytes."""
    table = NameTable(items, key=KEY)
    again = pickle.loads(pickle.dumps(table))  # noqa: S301 - bytes made one line above
    assert table.content_hash == again.content_hash == NameTable(items, key=KEY).content_hash
    assert [table.lookup_all(name) for name in asked] == [again.lookup_all(name) for name in asked]
    assert list(table) == list(again)
    again.verify()


@given(items=st.lists(st.tuples(literals, st.integers(0, NONE - 1)), max_size=30), asked=st.lists(written, max_size=20))
def test_table_without_text_answers_alike(items: list[tuple[str, int]], asked: list[str]) -> None:
    """Fingerprints stand for the text of keys in every lookup."""
    table = NameTable(items, text=False)
    assert [oracle.lookup_all(items, name) for name in asked] == [table.lookup_all(name) for name in asked]


def test_order_breaks_ties_only() -> None:
    """Exact beats the longest suffix beats a glob beats a regex whatever their order; equal suffixes go by order."""
    items = [
        ("re:.+\\.example\\.com", 1), ("*.ex?mple.com", 2), ("a.*.com", 3), (".com", 4), ("**.example.com", 5),
        ("*.example.com", 6), (".example.com", 7), ("a.example.com", 8), (".a.example.com", 9),
    ]  # fmt: skip
    assert [8, 9, 5, 6, 7, 4, 2, 3, 1] == NameTable(items).lookup_all("a.example.com")
    assert [6, 5, 4, 2, 1] == NameTable([*items[:4], items[5], items[4]]).lookup_all("b.example.com")


def test_problems_come_all_at_once() -> None:
    """Every bad pattern and value is named with its index in one error."""
    with pytest.raises(
        ValueError, match=r"item 1: pattern 'a b' .*\nitem 2: value -1 .*\nitem 4: pattern '192.0.2.7' "
    ):
        NameTable([("ok.example", 1), ("a b", 2), ("x.example", -1), ("re:a+", 3), ("192.0.2.7", 4)])
    with pytest.raises(ValueError, match="and 80 more"):
        NameTable([("a b", 0)] * 100)
    with pytest.raises(ValueError, match="value 4294967295 is not in"):
        NameTable([("a.example", NONE)])


def test_empty_table_covers_nothing() -> None:
    """A table of no patterns is a table."""
    table = NameTable()
    assert (0, None, [], []) == (len(table), table.lookup("example.com"), table.lookup_all("example.com"), list(table))


def test_many_ways_to_match_one_key() -> None:
    """All kinds of one key, a glob behind it included, live together."""
    items = [(".k.example", 1), ("*.k.example", 2), ("**.k.example", 3), ("k.example", 4), ("a*.k.example", 5)]
    for rotation in range(len(items)):
        turned = items[rotation:] + items[:rotation]
        for name in ("k.example", "a.k.example", "b.a.k.example"):
            assert oracle.lookup_all(turned, name) == NameTable(turned).lookup_all(name)


def test_equal_names_in_great_number_cost_no_more_than_others() -> None:
    """A hundred thousand copies of one pattern are one pattern."""
    assert 1 == len(NameTable((("a.example", value) for value in range(100_000)), key=KEY))


def test_large_tables_keep_texts_beside_their_buckets() -> None:
    """Past 30,000 patterns texts lie in cells, whether they fit there or not: answers are those of a dict walk."""
    generator = random.Random(11)
    names = [
        f"{'n' * generator.randrange(50)}{index}.{'l' * generator.randrange(1, 40)}.example" for index in range(31_000)
    ]
    parents = {name: index for index, name in enumerate(names)}
    table = NameTable([("." + name, index) for index, name in enumerate(names)], key=KEY)
    asked = [*names[::7], *("www." + name for name in names[::11]), *("x" + name for name in names[::13])]
    assert [oracle.lookup_suffix(parents, name) for name in asked] == [table.lookup(name) for name in asked]
    assert dict(table) == {"." + name: index for name, index in parents.items()}
    table.verify()


@pytest.mark.parametrize("depth", [1, 62, 63, 64, 65, 126, 127])
def test_deep_names(depth: int) -> None:
    """Keys and names of up to 127 labels are looked up like any other."""
    name = ".".join(["a"] * depth)
    table = NameTable([(name, 1), ("." + name, 2)])
    assert [1, 2] == table.lookup_all(name)
    assert None is table.lookup("b")
    if depth < 126:
        assert [2] == table.lookup_all("a." + name)
        assert [] == table.lookup_all(name.removeprefix("a.") + "a")


def test_more_matches_than_the_first_guess() -> None:
    """lookup_all has no upper limit."""
    items = [(f"{'?' * count}*.example.com", count) for count in range(1, 6)]
    items += [("." + ".".join(["a"] * depth), 100 + depth) for depth in range(1, 80)]
    name = ".".join(["a"] * 80)
    assert oracle.lookup_all(items, name) == NameTable(items).lookup_all(name)
    wide = [(f"**.{'a' * count}*.example.com", count) for count in range(1, 40)]
    assert oracle.lookup_all(wide, "x." + "a" * 63 + ".example.com") == NameTable(wide).lookup_all(
        "x." + "a" * 63 + ".example.com"
    )


def test_thousands_of_globs_with_their_own_right_ends() -> None:
    """Globs with different right ends do not multiply each other's states."""
    items = [(f"*x{index}*.zone{index}.example", index) for index in range(3000)]
    table = NameTable(items)
    assert 1000 * len(items) > table.nbytes
    assert [7] == table.lookup_all("ax7b.zone7.example")
    assert [] == table.lookup_all("ax8b.zone7.example")


def test_globs_that_multiply_are_split() -> None:
    """Globs whose union would need too many states are kept apart, and still all found."""
    items = [
        (f"*{letter}{digit}*.example.com", 10 * index + digit)
        for index, letter in enumerate("abc")
        for digit in range(10)
    ]
    table = NameTable(items)
    generator = random.Random(3)
    for _ in range(200):
        name = "".join(generator.choice("abc0123456789") for _ in range(20)) + ".example.com"
        assert oracle.lookup_all(items, name) == table.lookup_all(name)


def test_a_glob_past_the_budget_is_an_error_with_the_number() -> None:
    """No glob is dropped: one that needs too many states is named, with the limit."""
    with pytest.raises(ValueError, match=r"pattern '.*\[ab\]\{20\}.*': glob needs more than 16384 automaton states"):
        NameTable([("ok*.example", 1), ("*a[ab]{20}*.example", 2), ("[ab]{20}a[ab]{0,}.example", 3)])


def test_too_many_multiplying_globs_are_an_error_in_bounded_time() -> None:
    """A hostile set of globs ends in an error that has the number."""
    items = [(f"*{index:04x}*{index % 97}*.example.com", index) for index in range(3000)]
    with pytest.raises(ValueError, match=r"globs need more than 262144 automaton states|steps to compile"):
        NameTable(items)


def test_saved_table_is_mapped_and_checked(tmp_path: Path) -> None:
    """load gives back what save wrote; a file cut short, bent or of another kind is a FormatError with its path."""
    items = [(f"{form}{index}.example", index) for index, form in enumerate(FORMS * 50)]
    items += [("a*.example", 900), ("*.x.*", 901), ("re:z+", 902)]
    path = tmp_path / "names.gbf"
    table = NameTable(items)
    table.save(path)
    for verify in (True, False):
        loaded = NameTable.load(path, verify=verify)
        loaded.verify()
        assert sorted(table) == sorted(loaded)
        assert 902 == loaded.lookup("zzz")
    whole = path.read_bytes()
    for cut in (0, 1, 63, 64, 200, len(whole) - 64, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(FormatError, match=str(path)):
            NameTable.load(path)
    with pytest.raises(OSError, match="missing"):
        NameTable.load(tmp_path / "missing")


def test_no_bent_byte_crashes_a_lookup() -> None:
    """With the content hash left out, a bent block is refused, or answers something and stays within itself."""
    items = [(".a.example", 1), ("*.a.example", 2), ("b*.example", 3), ("*.x.*", 4), ("re:z+", 5)]
    whole = NameTable(items, key=KEY)
    data = bytearray(whole.__reduce__()[1][0])
    refused = 0
    for at in range(64, len(data)):
        for bit in (0, 7):
            data[at] ^= 1 << bit
            try:
                table = NameTable.from_bytes(data, verify=False)
                for name in ("a.example", "c.a.example", "b1.example", "q.x.y", "zz"):
                    table.lookup(name)
                    table.lookup_all(name)
            except FormatError:
                refused += 1
            data[at] ^= 1 << bit
    assert refused > 0
    assert sorted(whole) == sorted(NameTable.from_bytes(data))


def test_verify_finds_a_key_that_a_lookup_would_miss() -> None:
    """A block whose hash key was changed passes every index check; verify() still tells."""
    data = bytearray(NameTable([(f"n{index}.example", index) for index in range(100)], key=KEY).__reduce__()[1][0])
    data[int.from_bytes(data[72:80], "little")] ^= 2
    table = NameTable.from_bytes(data, verify=False)
    with pytest.raises(FormatError):
        table.verify()


def columns() -> list[tuple[str, Any]]:
    import numpy as np

    texts = ["a.example", "B.EXAMPLE.", "miss.test", "", "x" * 300, "long-name-past-twelve-bytes.example"]
    shapes: list[tuple[str, Any]] = [
        ("list", texts),
        ("tuple", tuple(texts)),
        ("iterator", iter(texts)),
        ("numpy S", np.array([text.encode() for text in texts])),
        ("numpy U", np.array(texts)),
        ("numpy object", np.array(texts, dtype=object)),
    ]
    try:
        import pyarrow as pa
    except ImportError:
        return shapes
    return [
        *shapes,
        ("arrow string", pa.array(texts)),
        ("arrow large string", pa.array(texts, pa.large_string())),
        ("arrow string view", pa.array(texts, pa.string_view())),
        ("arrow slice", pa.array(["junk", *texts, "junk"])[1:-1]),
        ("arrow chunks", pa.chunked_array([texts[:2], [], texts[2:]])),
    ]


@pytest.mark.parametrize(("shape", "column"), columns(), ids=lambda value: value if isinstance(value, str) else "")
def test_every_kind_of_column_is_read(shape: str, column: Any) -> None:
    """lookup_many gives the same answers whatever holds the names, regexes included."""
    out = array("I", [0] * 6)
    table = NameTable([(".example", 1), ("re:miss.+", 2)])
    assert 4 == table.lookup_many(column, out), shape
    assert [1, 1, 2, NONE, NONE, 1] == list(out)


def test_columns_longer_than_a_chunk() -> None:
    """Answers stay with their rows past the first chunk, in lists and in columns."""
    import numpy as np

    texts = [f"n{index}.example" for index in range(2000)]
    table = NameTable([(text, index) for index, text in enumerate(texts) if index % 3])
    expected = [index if index % 3 else NONE for index in range(2000)]
    for column in (texts, np.array(texts), np.array(texts, dtype="S")):
        out = np.zeros(2000, np.uint32)
        table.lookup_many(column, out)
        assert expected == out.tolist()


def test_columns_that_hold_no_strings_are_refused() -> None:
    """A column of another type, or an out of another length, is an error that says so."""
    pa = pytest.importorskip("pyarrow", reason="Arrow columns need pyarrow to be made")
    table = NameTable([("a.example", 1)])
    with pytest.raises(TypeError, match="Arrow type 'l' holds no strings"):
        table.lookup_many(pa.array([1]), array("I", [0]))
    with pytest.raises(ValueError, match="out has 2 items for 1 names"):
        table.lookup_many(["a.example"], array("I", [0, 0]))
    with pytest.raises(ValueError, match="out has 1 items for more names"):
        table.lookup_many(pa.chunked_array([["a", "b"]]), array("I", [0]))
    with pytest.raises(ValueError, match="not uint32"):
        table.lookup_many(["a.example"], array("H", [0]))
    out = array("I", [0] * 3)
    assert 1 == table.lookup_many(pa.array(["a.example", None, "b"]), out)
    assert [1, NONE, NONE] == list(out)
    assert 1 == table.lookup_many(["a.example", None, "é"], out)


def test_threads_share_a_table() -> None:
    """Any number of threads may read one table."""
    items = [(f".n{index}.example", index) for index in range(1000)]
    table = NameTable(items)
    wrong: list[int] = []

    def ask() -> None:
        wrong.extend(index for index in range(1000) if table.lookup(f"www.n{index}.example") != index)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [] == wrong


def test_literals_are_read_without_idna_or_re2() -> None:
    """A table of ASCII names needs no third-party module."""
    import subprocess

    code = "import sys; from gobanfast._core.name_table import NameTable\n"
    code += "NameTable([('.a.example', 1), ('b*.c', 2)]).lookup('a.example')\n"
    code += "sys.exit(bool({'idna', 're2', 'numpy', 'pyarrow'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("source", "literal"),
    [
        (r"api\.example\.com", "api.example.com"),
        (r"^cdn[0-9]+\.Example\.com$", ".example.com"),
        (r"(^|\.)bilibili3(0[1-9]|1[0-2])\.xyz", "bilibili3"),
        (r"ab?cdx*", "cd"),
        (r"ab+c{2}d", "ab"),
        (r"a|b", ""),
        (r"\x41bc", ""),
        (r"[abc]\d\w.", ""),
        (r"(abc)?d(e(f)g)h", "d"),
    ],
)
def test_required_literal_is_in_every_match(source: str, literal: str) -> None:
    """The prefilter of a regex is text that no match can lack."""
    assert literal == required_literal(source)


def read(real_data: Path, name: str) -> Sequence[str]:
    import gzip

    return gzip.decompress((real_data / name).read_bytes()).decode().split()


def test_a_million_blocked_names_agree_with_the_oracle(real_data: Path) -> None:
    """A real list of a million names, asked about 100,000 benign and 100,000 blocked ones, answers as a dict walk."""
    blocked = read(real_data, "block-names.txt.gz")
    benign = read(real_data, "benign-names.txt.gz")
    parents = {name: index for index, name in enumerate(blocked)}
    table = NameTable(("." + name, index) for index, name in enumerate(blocked))
    generator = random.Random(5)
    asked = [
        *benign,
        *("www." + name for name in benign),
        *("a.b." + name for name in generator.sample(blocked, 50_000)),
    ]
    asked += generator.sample(blocked, 50_000)
    out = array("I", [0] * len(asked))
    table.lookup_many(asked, out)
    assert len(asked) > 200_000
    expected = [oracle.lookup_suffix(parents, name) for name in asked]
    assert expected == [table.lookup(name) for name in asked]
    assert expected == [None if value == NONE else value for value in out]


def test_real_rule_lists_agree_with_the_oracle(real_data: Path) -> None:
    """Real suffix, exact, glob and regex rules in one table: each name gets what a dict, a label walk and trying every
    glob and regex give, in this order."""
    exact: dict[str, int] = {}
    parents: dict[str, int] = {}
    slow: list[tuple[str, int]] = []
    rules = [rule.split(":", 1) for rule in read(real_data, "rules-v2fly.txt.gz")]
    rules += [["domain", name] for name in read(real_data, "suffix-dnsmasq-china.txt.gz")]
    rules += [["glob", text] for text in read(real_data, "wildcards-bounty.txt.gz") if is_glob(text)]
    for index, (kind, text) in enumerate(rules):
        if kind == "full":
            exact.setdefault(text, index)
        elif kind == "domain":
            parents.setdefault(text, index)
        else:
            slow.append((f"re:.*(?:{text}).*" if kind == "regexp" else text, index))
    items = [*exact.items(), *(("." + name, value) for name, value in parents.items()), *slow]
    table = NameTable(items)
    asked = random.Random(6).sample(read(real_data, "benign-names.txt.gz"), 300)
    asked += ["qa-1.arlo.com", "www.xgogoair.y.com", "cdn7-epicgames-12.file.myqcloud.com", "ns1.awsdns-cn-42.com"]
    for name in asked:
        expected = exact.get(name)
        expected = oracle.lookup_suffix(parents, name) if expected is None else expected
        assert (oracle.lookup(slow, name) if expected is None else expected) == table.lookup(name), name


def is_glob(text: str) -> bool:
    try:
        return parse_pattern(text).kind == "glob"
    except ValueError:
        return False
