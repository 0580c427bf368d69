"""AS tables in the forms that others publish: read as the plain table of the same content, or refused with the line."""

from __future__ import annotations

import pytest

from gobanfast import RuleError
from gobanfast.asn import AsnTable
from gobanfast.asn.mmdb import nested, origin
from gobanfast.asn.other_forms import plain_names, plain_table

PLAIN = "1.0.0.0/24,13335\n1.0.4.0/22,38803\n"
FORMS = {
    "pyasn": "; IP-ASN32-DAT file\n; Original file : rib\n1.0.0.0/24\t13335\n1.0.4.0/22\t38803\n",
    "bgp.tools": "1.0.0.0/24 13335\n1.0.4.0/22 38803\n",
    "bgp.tools jsonl": '{"CIDR":"1.0.0.0/24","ASN":13335,"Hits":9}\n{"CIDR":"1.0.4.0/22","ASN":38803,"Hits":1}\n',
    "semicolons": "1.0.0.0/24;13335\n1.0.4.0/22;38803\n",
    "bars": "1.0.0.0/24|13335\n1.0.4.0/22|38803\n",
    "decimal": "16777216,16777471,13335\n16778240,16779263,38803\n",
    "GeoIPASNum2": '16777216,16777471,"AS13335 Cloudflare, Inc."\n16778240,16779263,"AS38803 Wirefreebroadband"\n',
    "IP2Location": '"16777216","16777471","1.0.0.0/24","13335","CloudFlare Inc."\n"16777472","16778239","-","-","-"\n'
    '"16778240","16779263","1.0.4.0/22","38803","Wirefree"\n',
    "CAIDA pfx2as": "1.0.0.0\t24\t13335\n1.0.4.0\t22\t38803\n",
}


@pytest.mark.parametrize("name", FORMS)
def test_a_form_is_the_plain_table(tmp_path, name):
    """The same prefixes and origins, whatever the form."""
    path, plain = tmp_path / "table", tmp_path / "plain"
    path.write_text(FORMS[name])
    plain.write_text(PLAIN)
    table, expected = AsnTable.from_csv(path), AsnTable.from_csv(plain)

    for address in ("1.0.0.1", "1.0.4.9", "1.0.7.255", "1.0.3.1", "1.0.8.0", "2.0.0.0"):
        assert expected.lookup(address) == table.lookup(address), address
    if name == "GeoIPASNum2":
        assert table.name(13335) == "Cloudflare, Inc."


def test_decimal_addresses_of_ipv6(tmp_path):
    """Numbers past 32 bits are IPv6."""
    first = 0x20010DB8 << 96
    path = tmp_path / "table"
    path.write_text(f'"{first}","{first + (1 << 96) - 1}","2001:db8::/32","64500","X"\n')

    assert AsnTable.from_csv(path).lookup("2001:db8::1") == 64500


def test_names_as_asn_txt_has_them(tmp_path):
    """`asn name` with a blank, commas and quotes in it."""
    table, names = tmp_path / "table", tmp_path / "asn.txt"
    table.write_text(PLAIN)
    names.write_text('13335 CLOUDFLARENET - Cloudflare, Inc., US\n38803 "GTELECOM" - X, AU\n')
    found = AsnTable.from_csv(table, names)

    assert found.name(13335) == "CLOUDFLARENET - Cloudflare, Inc., US"
    assert found.name(38803) == '"GTELECOM" - X, AU'


@pytest.mark.parametrize("text", ["13335,Cloudflare\n", "asn,name\n1,x\n", "1\tx\n", ""])
def test_other_lists_of_names_stay(text):
    """A list with columns is left alone."""
    assert plain_names(text.encode()) == text.encode()


@pytest.mark.parametrize(
    "text", [PLAIN, "1.0.0.0,1.0.0.255,13335\n", "prefix,asn\n1.0.0.0/24,1\n", "", "#\n", "64500,x\n"]
)
def test_a_plain_table_stays(text):
    """What is read as it is, is not rewritten."""
    assert plain_table(text.encode()) == text.encode()


def test_a_bad_row_of_another_form_is_told_with_its_line(tmp_path):
    """Lines keep their numbers."""
    path = tmp_path / "table"
    path.write_text(FORMS["bgp.tools jsonl"] + '{"CIDR":"nothing","ASN":1}\n')
    with pytest.raises(RuleError, match=":3:"):
        AsnTable.from_csv(path)


@pytest.mark.parametrize(("record", "expected"), [
    ({"asn": {"asn": "AS64500", "name": "X"}}, (64500, "X")),
    ({"asn": {"number": 64500, "organization": "X"}}, (64500, "X")),
    ({"as": {"number": 64500, "name": "X", "domain": "x.example"}}, (64500, "X")),
    ({"autonomous_system_number": 64500, "organization": {"name": "X"}}, (64500, "X")),
    ({"asn": 64500, "as_name": "Y", "organization": {"name": "X"}}, (64500, "Y")),
    ({"country": {"iso_code": "NL"}}, (0, "")),
    ({"asn": {"asn": {"asn": 5}}}, (0, "")),
])  # fmt: skip
def test_nested_fields_of_mmdb_records(record, expected):
    """Number and name are found one step deeper; what is written at the top wins."""
    from collections import Counter

    fields = Counter()
    assert origin(record, fields) == expected
    if expected == (0, "") and "country" in record:
        assert list(fields) == ["country.iso_code"]
    assert isinstance(nested(record), dict)
