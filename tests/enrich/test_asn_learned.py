"""Learned ASes: unknown clients are asked about beside decisions, and their AS counts after the next compile."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from gobanfast import Engine
from gobanfast.asn import AsnTable
from gobanfast.asn.folder import LEARNED
from gobanfast.asn.learned import joined, read_learned, write_learned
from gobanfast.cli.app import app
from gobanfast.enrich.asn import AsnLookup
from gobanfast.enrich.asn_sources import RipeStat
from gobanfast.enrich.learned import AsnLearner
from gobanfast.rules.feed_cache import FOLDER
from sources import serving

RULES = "rules: [{id: bad-as, when: {asn: 64500}, action: ban}]\n"


def until(holds, seconds=30.0):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


def table_of(rows):
    """A table of (first octets, length, AS) of IPv4 below 10.0.0.0/8, or of IPv6 below 2001::/16."""
    addresses = b"".join(address for address, _, _ in rows)
    lengths = bytes(bits for _, bits, _ in rows)
    return AsnTable.from_arrays(addresses, lengths, np.array([asn for _, _, asn in rows], np.uint32), {7: "SEVEN"})


def v4(octet, bits, asn):
    return b"\0" * 10 + b"\xff\xff\x09" + bytes([octet & (0xFF << max(0, 16 - bits)) & 0xFF, 0, 0]), 96 + bits, asn


def v6(octet, bits, asn):
    return b"\x20\x01" + bytes([octet & (0xFF << max(0, 24 - bits)) & 0xFF]) + bytes(13), bits, asn


PREFIXES = st.lists(
    st.one_of(
        st.builds(v4, st.integers(0, 255), st.integers(8, 32), st.integers(1, 9)),
        st.builds(v6, st.integers(0, 255), st.integers(16, 128), st.integers(1, 9)),
    ),
    max_size=8,
)
PROBES = (
    "9.0.0.1", "9.0.1.1", "9.7.3.1", "9.255.0.9", "9.128.0.0", "10.0.0.1", "11.0.9.9", "2001:500::1", "2001:5::1",
    "2001:ff::", "2002::1",
)  # fmt: skip
FOUND = st.dictionaries(
    st.sampled_from(["9.0.0.0/24", "9.7.0.0/16", "9.255.0.0/20", "2001:500::/32", "2001::/24", "11.0.0.0/16"]),
    st.tuples(st.integers(100, 109), st.sampled_from(["", "NAME"])),
)


@given(rows=PREFIXES, learned=FOUND)
def test_a_joined_table_says_what_the_table_said_and_more(rows, learned):
    """What the table knew stays; what it did not is the longest learned prefix that covers it, by a linear scan."""
    from ipaddress import ip_address, ip_network

    table = table_of(rows)
    found = joined(table, learned)
    for probe in PROBES:
        covering = [
            (ip_network(prefix).prefixlen, asn)
            for prefix, (asn, _) in learned.items()
            if ip_network(prefix).version == ip_address(probe).version and ip_address(probe) in ip_network(prefix)
        ]
        expected = table.lookup(probe) or (max(covering)[1] if covering else None)
        assert expected == found.lookup(probe), probe
    assert found.name(7) == "SEVEN"


def test_a_file_of_learned_ases_is_what_was_written(tmp_path):
    """Written and read, names with commas and quotes too; lines that are none are passed over."""
    path = tmp_path / LEARNED
    learned = {"198.51.100.0/24": (64500, 'A, "B"'), "2001:db8::/32": (64501, "")}
    write_learned(path, learned)
    assert read_learned(path) == learned
    with path.open("a") as file:
        file.write("x\n0.0.0.0/0,5,X\n1.2.3.0/24,0,X\n1.2.3.0/24,99999999999,X\n1.2.3.4/8,5,X\n")
    assert read_learned(path) == learned
    assert read_learned(tmp_path / "absent") == {}


@pytest.fixture
def source():
    with serving() as made:

        def data(found):
            return lambda _: (200, json.dumps({"data": found}).encode(), {})

        made.put("/data/network-info/data.json", data({"asns": ["64500"], "prefix": "9.8.7.0/24"}))
        made.put("/data/as-overview/data.json", data({"holder": "EXAMPLE"}))
        made.put("/data/rir-stats-country/data.json", data({}))
        yield made


def test_an_unknown_client_is_decided_by_its_as_later(source, tmp_path):
    """The first request asks; once learned, its AS is banned, by every engine over the same rules; asked once."""
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)
    lookup = AsnLookup(sources=[RipeStat(source.url(""), private=True, seconds=5.0)], timeout=5.0)
    engine, other = Engine.load(path), Engine.load(path)
    learner = AsnLearner(engine, path, lookup, every=0.05)
    try:
        with engine.watch(path, interval=0.05):
            for address in ("9.8.7.9", "9.8.7.8", "10.0.0.1", "8.8.8.8", "9.8.7.9"):
                learner(engine.decide(address), "")
            until(lambda: engine.decide("9.8.7.7").rule == "bad-as")
        assert source.count("/data/network-info/data.json") == 1
        assert other.decide("9.8.7.7").action == "allow"
        assert Engine.load(path).decide("9.8.7.7").rule == "bad-as"
        kept = tmp_path / "kept.gbf"
        Engine.load(path, last_good=kept)
        again = Engine.load(path, last_good=kept)
        assert (again.ruleset.block is not None, again.decide("9.8.7.7").rule) == (True, "bad-as")
        shown = CliRunner().invoke(app, ["asn", "learned", str(path), "--json"])
        assert json.loads(shown.stdout) == {"prefix": "9.8.7.0/24", "asn": 64500, "org": "EXAMPLE"}
    finally:
        learner.close()
        lookup.close()


def test_nobody_is_asked_where_no_rule_needs_an_as(source, tmp_path):
    """Without a condition on the AS nothing leaves the machine."""
    path = tmp_path / "rules.yaml"
    path.write_text("rules: [{id: a, when: {prefix: 192.0.2.0/24}, action: ban}]\n")
    lookup = AsnLookup(sources=[RipeStat(source.url(""), private=True)])
    engine = Engine.load(path)
    learner = AsnLearner(engine, path, lookup)
    learner(engine.decide("9.8.7.9"), "")
    learner.close()
    lookup.close()

    assert source.requests == []
    assert not (tmp_path / FOLDER).exists()
