"""OriginSet and OriginMatcher: what an origin is, what patterns mean, classes of groups, files, errors."""

from __future__ import annotations

import os
import pickle
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import oracle.origins as oracle
from gobanfast import FormatError, OriginSet
from gobanfast._core.block import cpu_levels
from gobanfast._core.origin_set import OriginMatcher, read_pattern
from gobanfast.origins import PatternError, parse_host_pattern, parse_origin_pattern, sample, specificity

KEY = b"tests"
PAIRS = int(os.environ.get("GOBANFAST_ORIGIN_PAIRS", "20000"))  # in each of three tests

# Few labels, so that patterns and origins meet often, glue and cut.
LABELS = [
    "a",
    "b",
    "foo",
    "bar",
    "barfoo",
    "example",
    "evilexample",
    "com",
    "evil",
    "x-1",
    "xn--bcher-kva",
    "_c",
    "q" * 45,
]
SCHEMES = ["https", "http", "app+v1.0-x", "chrome-extension", "wss"]
ADDRESSES = ["192.0.2.7", "127.0.0.1", "[::1]", "[2001:db8::1]", "[::ffff:c000:207]"]
PORTS = ["", "", ":8443", ":9000", ":1", ":65535"]
ODD = [
    "https://Example.com", "https://example.com.", "https://example.com:443", "https://example.com:80", "http://a:80",
    "https://example.com:08443", "https://example.com:0", "https://example.com:65536", "https://a..b", "https://-a.com",
    "https://a-.com", "https://", "https:/a", "null", "NULL", "*", "", "https://192.0.2.07", "https://127.1",
    "https://0x7f.1", "https://[::1", "https://[0:0::1]", "https://[::FF]", "https://[::ffff:192.0.2.7]", "https://[1.2.3.4]",
    "https://[fe80::1%25eth0]", "https://b\xfccher.example", "https://example.com\x00", "https://example.com/",
    "https://u@example.com", "https://" + "a." * 126 + "a", "https://" + "a." * 127 + "a",
    "https://" + "a" * 64 + ".com", "https://" + "a" * 10240 + ".example.com", "a." * 5000 + "com",
    "x" * 64 + "://a", "x" * 63 + "://a", "1x://a", "https://::1",
]  # fmt: skip


def hosts_of(rng: random.Random) -> str:
    if rng.random() < 0.1:
        return rng.choice(ADDRESSES)
    name = ".".join(rng.choice(LABELS) for _ in range(rng.randint(1, 4)))
    return name + ("." if rng.random() < 0.05 else "")


def a_pattern(rng: random.Random, *, hosts: bool) -> str:
    host = hosts_of(rng)
    lead = "" if host in ADDRESSES else rng.choice(["", "", "*.", "**."])
    start = "" if hosts else rng.choice(SCHEMES) + "://"
    return start + lead + host + rng.choice([*PORTS, ":*"])


def asked(rng: random.Random, patterns: list[str]) -> str:
    """A text near one of the patterns: the pattern filled in, then glued, cut, changed, or none of it."""
    if rng.random() < 0.05:
        return rng.choice(ODD)
    pattern = rng.choice(patterns)
    text = pattern.replace(":*", rng.choice(PORTS))
    text = re.sub(r"\*\*?\.", lambda _: "".join(rng.choice(LABELS) + "." for _ in range(rng.randint(0, 3))), text)
    change = rng.randrange(12)
    if change == 0:
        text += rng.choice([".", ".evil", ":8443", ":443", "/", "\x00", "com", ":"])
    elif change == 1:
        scheme, _, rest = text.rpartition("://")
        text = (scheme + "://" if scheme else "") + rng.choice(["evil", "x.", "x", ".", "-"]) + rest
    elif change == 2 and text:
        at = rng.randrange(len(text))
        text = text[:at] + text[at + 1 :]
    elif change == 3 and text:
        at = rng.randrange(len(text))
        text = text[:at] + rng.choice("aA.:-_/[]*0\xe9") + text[at + 1 :]
    elif change == 4:
        text = text.upper()
    elif change == 5:
        text = text.replace("https", rng.choice(SCHEMES))
    return text


def pairs(seed: int, *, hosts: bool) -> Iterator[tuple[list[str], list[list[str]], str]]:
    rng = random.Random(seed)
    for _ in range(PAIRS // 100):
        groups = [[a_pattern(rng, hosts=hosts) for _ in range(rng.randint(1, 6))] for _ in range(rng.randint(1, 6))]
        groups = [[text for text in group if not re.search(r"://.*:80$", text)] for group in groups]
        if not hosts and rng.random() < 0.1:
            groups[0].append("*")
        patterns = [text for group in groups for text in group]
        yield patterns, groups, "\n".join({asked(rng, patterns) for _ in range(100)})


def test_sets_answer_as_every_pattern_alone() -> None:
    """An origin is in a set when one of its patterns covers it; the most specific of those is what lookup says."""
    for patterns, _, texts in pairs(1, hosts=False):
        table = OriginSet(patterns)
        for text in texts.split("\n"):
            found = sorted((p for p in patterns if oracle.matches(p, text)), key=specificity)
            said = table.lookup(text)
            assert bool(found) == (text in table), (patterns, text)
            assert (said is None) == (not found), (patterns, text)
            assert said is None or (specificity(said) == specificity(found[0]) and oracle.matches(said, text))


def test_classes_stand_for_all_groups_that_match() -> None:
    """The class of an origin is 0 when it is none, 1 without a match, else that of exactly the groups that match."""
    for _, groups, texts in pairs(2, hosts=False):
        matcher = OriginMatcher(groups, False, key=KEY)
        for text in texts.split("\n"):
            right = tuple(n for n, group in enumerate(groups) if any(oracle.matches(p, text) for p in group))
            found = matcher.find_text(text)
            assert right == matcher.sets[found], (groups, text)
            assert (found == 0) == (oracle.origin(text) is None), text
            assert found != 1 or right == (), text


def test_hosts_are_compared_with_their_port() -> None:
    """A host pattern without a port covers no port and the scheme's default; case does not count."""
    for _, groups, texts in pairs(3, hosts=True):
        matcher = OriginMatcher(groups, True)
        for number, text in enumerate(texts.split("\n")):
            default = (80, 443, 0)[number % 3]
            parts = oracle.host(text, default)
            right = tuple(
                n for n, group in enumerate(groups)
                if parts is not None and any(oracle.covers(pattern, *parts) for pattern in group)
            )  # fmt: skip
            found = matcher.find_text(text, default)
            assert right == matcher.sets[found], (groups, text, default)
            assert (found == 0) == (parts is None), text


@given(st.randoms(use_true_random=False), st.booleans())
def test_any_groups_and_any_text_are_classed_as_the_oracle_does(rng: random.Random, hosts: bool) -> None:
    """The law of the last two tests, searched and shrunk by hypothesis."""
    groups = [[a_pattern(rng, hosts=hosts) for _ in range(rng.randint(1, 3))] for _ in range(rng.randint(1, 4))]
    groups = [[text for text in group if read_pattern(text, hosts) is not None] for group in groups]
    text = asked(rng, [text for group in groups for text in group] or ["https://a"])
    parts = oracle.host(text, 0)

    matcher = OriginMatcher(groups, hosts)

    right = tuple(
        n for n, group in enumerate(groups)
        if any((parts and oracle.covers(p, *parts)) if hosts else oracle.matches(p, text) for p in group)
    )  # fmt: skip
    assert right == matcher.sets[matcher.find_text(text)]


@given(
    st.one_of(
        st.text(max_size=40), st.sampled_from(ODD), st.from_regex(r"https?://[a-z0-9.:\[\]_-]{0,30}", fullmatch=True)
    )
)
@example("https://xn--p1ai")
def test_an_origin_is_what_the_grammar_says(text: str) -> None:
    assert (oracle.origin(text) is not None) == (OriginMatcher([], False).find_text(text) == 1)


@pytest.mark.parametrize("kernel", cpu_levels())
def test_every_kernel_answers_alike(kernel: str) -> None:
    table = OriginSet(["https://**.example.com", "https://example.com:8443"], kernel=kernel)

    assert "https://a.b.example.com" in table
    assert "https://A.example.com" not in table
    assert table.kernel in {kernel, "v2"}


@pytest.mark.parametrize(
    ("origin", "pattern"),
    [
        ("https://a.example.com", "https://a.example.com"),
        ("https://b.example.com", "https://*.example.com"),
        ("https://b.b.example.com", "https://**.example.com"),
        ("https://c.a.example.com", "https://**.a.example.com:*"),
        ("https://a.example.com:1", "https://a.example.com:*"),
        ("https://z.example:5", "re:https://[a-z]\\.example:5"),
        ("https://example.com", None),
        ("null", None),
        ("https://A.example.com", None),
    ],
)
def test_lookup_says_the_most_specific_pattern(origin: str, pattern: str | None) -> None:
    """Exact, then the longest host, then `*.`; a port before `:*`; regexes last, and never about `null`."""
    table = OriginSet(
        ["https://**.example.com", "https://a.example.com:*", "re:https://[a-z]\\.example:5", "re:n.*",
         "https://*.example.com", "https://a.example.com", "https://**.a.example.com:*"]
    )  # fmt: skip

    assert pattern == table.lookup(origin)
    assert (pattern is not None) == (origin in table)


def test_a_saved_set_is_the_set(tmp_path: Path) -> None:
    """Saved and loaded, pickled, iterated and built anew: the same patterns and answers, with a key the same bytes."""
    patterns = [
        "https://**.example.com:*",
        "http://[::1]:8080",
        "https://" + "q" * 60 + ".example",
        "re:https://x+",
        "*",
    ]
    table = OriginSet(patterns, key=KEY)
    table.save(tmp_path / "set")
    loaded = OriginSet.load(tmp_path / "set")

    assert set(patterns) == set(loaded) == set(table)
    assert 5 == len(loaded)
    assert table.content_hash == loaded.content_hash == OriginSet(list(loaded), key=KEY).content_hash
    assert table.nbytes == (tmp_path / "set").stat().st_size
    assert "http://[::1]:8080" == pickle.loads(pickle.dumps(loaded)).lookup("http://[::1]:8080")  # noqa: S301
    loaded.verify()


def test_an_equal_pattern_counts_once() -> None:
    assert ["https://a.example"] == list(OriginSet(["https://a.example", "https://a.example"]))


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_every_pattern_is_found(count: int) -> None:
    patterns = [f"https://h{number}.example:{number + 1000}" for number in range(count)]
    table = OriginSet(patterns)

    table.verify()
    assert patterns == [table.lookup(text) for text in patterns]
    assert "https://h0.example" not in table


def test_many_ports_share_a_host() -> None:
    """Rows are found by binary search, and a port without one falls to `:*`."""
    matcher = OriginMatcher(
        [[f"https://a.example:{port}"] for port in range(1000, 1100)] + [["https://**.example:*"]], False
    )

    assert [(n, 100) for n in range(100)] == [
        matcher.sets[matcher.find_text(f"https://a.example:{1000 + n}")] for n in range(100)
    ]
    assert (100,) == matcher.sets[matcher.find_text("https://a.example:999")]
    assert (100,) == matcher.sets[matcher.find_text("https://b.a.example:1001")]


def test_a_block_of_another_kind_is_refused(tmp_path: Path) -> None:
    block = OriginMatcher([["a.example"]], True).block
    with pytest.raises(FormatError, match="holds no set of origins"):
        OriginSet.from_bytes(bytes(block))
    assert ((), (), (0,)) == OriginMatcher.from_block(block).sets


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ValueError, match=r"item 1: .*slash.*\n.*item 2: .*upper case"):
        OriginSet(["https://a.example", "https://a.example/", "https://A.example"])
    with pytest.raises(ValueError, match=r"group 1, item 0: .*no scheme"):
        OriginMatcher([[], ["a.example"]], False)
    with pytest.raises(ValueError, match="is a regex"):
        OriginMatcher([["re:a"]], False)
    with pytest.raises(TypeError, match=r"write OriginSet\(\['https://a'\]\)"):
        OriginSet("https://a")
    with pytest.raises(TypeError, match="item 0: expected str, got int"):
        OriginSet([1])  # type: ignore[list-item]


def test_more_schemes_than_a_set_has_room_for_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 127"):
        OriginSet([f"s{number}://a" for number in range(128)])


@pytest.mark.parametrize(
    ("text", "reason", "message"),
    [
        ("", "invalid", "is empty; write https://example.com"),
        ("null", "prohibited", "sandboxed page"),
        ("example.com", "invalid", "has no scheme; write https://"),
        ("HTTPS://example.com", "invalid", "write https://example.com"),
        ("https://example.com/", "invalid", "a slash or a path; write https://example.com"),
        ("https://u:p@example.com", "invalid", "user information; write https://example.com"),
        ("https://b\xfccher.example", "invalid", "not in ASCII; write https://xn--bcher-kva.example"),
        ("https://A.Example", "invalid", "upper case, which no browser sends; write https://a.example"),
        ("https://[2001:DB8:0::1]:8443", "prohibited", r"write https://\[2001:db8::1\]:8443"),
        ("https://[::ffff:192.0.2.7]", "prohibited", r"write https://\[::ffff:c000:207\]"),
        ("https://**.example.com:443", "prohibited", r"default port; .*; write https://\*\*.example.com"),
        ("https://a.example:0", "invalid", "write 1 to 65535"),
        ("https://a.example:99999999999999", "invalid", "write 1 to 65535"),
        ("https://a.example:", "invalid", "has the port ''"),
        ("https://[::1]:", "invalid", "has the port ''"),
        ("https://a.*.example", "invalid", r"write https://\*.example.com for one label, https://\*\*.example.com"),
        ("https://**.192.0.2.1", "invalid", "a wildcard before an address"),
        ("https://a..example", "prohibited", "an empty label"),
        ("https://xn--f", "prohibited", "no A-label"),
        ("file://host", "prohibited", "origin is null"),
        ("re:(", "invalid", "RE2"),
    ],
)
def test_a_refused_pattern_says_why_and_what_is_right(text: str, reason: str, message: str) -> None:
    with pytest.raises(PatternError, match=message) as caught:
        parse_origin_pattern(text)
    assert reason == caught.value.reason
    assert text in str(caught.value) or repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason", "message"),
    [
        ("https://example.com", "invalid", "is an origin; write the host alone: example.com"),
        ("example.com:443", "prohibited", "no port means none or the default one; write example.com"),
        ("*", "invalid", "a wildcard that is not its first label"),
        ("re:.*", "invalid", "is a regex, which only origins have"),
        ("b\xfccher.example", "invalid", "write xn--bcher-kva.example"),
        ("", "invalid", "has no host"),
        ("a b", "invalid", "items of a list"),
        ("::1", "invalid", "IPv6 address without brackets"),
    ],
)
def test_a_refused_host_pattern_says_why(text: str, reason: str, message: str) -> None:
    with pytest.raises(PatternError, match=message) as caught:
        parse_host_pattern(text)
    assert reason == caught.value.reason


def test_patterns_are_taken_apart() -> None:
    known = parse_origin_pattern("https://**.example.com:8443")
    assert ("many", "https", "example.com", 8443) == (known.kind, known.scheme, known.host, known.port)
    assert "regex" == parse_origin_pattern("re:https://a").kind
    host = parse_host_pattern("*.Example.COM:*")
    assert ("one", "*.example.com:*", "example.com", "*") == (host.kind, host.text, host.host, host.port)
    assert "[::1]" == parse_host_pattern("[0::1]").text


@given(st.text(alphabet="ahtps:/.*-[]10@x", max_size=20).map("https://".__add__) | st.text(max_size=20), st.booleans())
def test_what_a_table_refuses_is_explained(text: str, hosts: bool) -> None:
    """No text falls between the table's grammar and the explanation of what is wrong with it."""
    parse = parse_host_pattern if hosts else parse_origin_pattern
    if read_pattern(text, hosts) is None and not text.startswith("re:"):
        with pytest.raises(PatternError) as caught:
            parse(text)
        assert "has no port after" not in str(caught.value)
        assert not caught.value.what.endswith(" is none")


def test_a_sample_is_covered() -> None:
    for text in ["*", "https://**.a", "http://[::1]:*", "https://*." + "a." * 100 + "a:8443"]:
        found = sample(text)
        assert found is not None
        assert oracle.matches(text, found)
    assert sample("https://*." + "a." * 125 + "abc") is None
