"""Ready-made feeds: where well-known lists are published, and how they are read. `use: NAME` takes one."""

from __future__ import annotations

from typing import Any

READY: dict[str, dict[str, Any]] = {
    # blocklists; FireHOL's level 1 has the bogons in it, private space among them, which `special: skip` leaves out
    **{
        f"firehol-level{level}": {
            "url": f"https://raw.githubusercontent.com/firehol/blocklist-ipsets/master/firehol_level{level}.netset",
            "special": "skip",
            "every": "6h",
        }
        for level in (1, 2, 3)
    },
    "spamhaus-drop": {"url": "https://www.spamhaus.org/drop/drop_v4.json", "format": "jsonl", "every": "12h"},
    "spamhaus-drop6": {"url": "https://www.spamhaus.org/drop/drop_v6.json", "format": "jsonl", "every": "12h"},
    "spamhaus-asndrop": {
        "url": "https://www.spamhaus.org/drop/asndrop.json", "format": "jsonl", "kind": "asn", "path": "asn",
        "every": "12h",
    },
    "dshield": {"url": "https://feeds.dshield.org/block.txt", "every": "6h"},
    "tor-exits": {"url": "https://check.torproject.org/torbulkexitlist", "every": "1h", "any_size": True},
    # clouds, content networks, relays
    "aws": {"url": "https://ip-ranges.amazonaws.com/ip-ranges.json"},
    "google-cloud": {"url": "https://www.gstatic.com/ipranges/cloud.json"},
    "cloudflare": {"url": "https://api.cloudflare.com/client/v4/ips"},
    "fastly": {"url": "https://api.fastly.com/public-ip-list"},
    "oracle-cloud": {"url": "https://docs.oracle.com/en-us/iaas/tools/public_ip_ranges.json"},
    "azure": {"format": "json", "path": "values[].properties.addressPrefixes[]"},  # its address changes each week
    "apple-relay": {"url": "https://mask-api.icloud.com/egress-ip-ranges.csv"},
    "github-hooks": {"url": "https://api.github.com/meta", "format": "json", "path": "hooks[]"},
    "github-actions": {"url": "https://api.github.com/meta", "format": "json", "path": "actions[]"},
    # crawlers
    "googlebot": {"url": "https://developers.google.com/static/search/apis/ipranges/googlebot.json"},
    "bingbot": {"url": "https://www.bing.com/toolbox/bingbot.json"},
    "applebot": {"url": "https://search.developer.apple.com/applebot.json"},
    "duckduckbot": {"url": "https://duckduckgo.com/duckduckbot.json"},
    # AS tables
    "iptoasn": {"url": "https://iptoasn.com/data/ip2asn-combined.tsv.gz", "kind": "table", "every": "1d"},
    "ipinfo-lite": {
        "url": "https://ipinfo.io/data/ipinfo_lite.mmdb", "kind": "table", "every": "1d", "key": "IPINFO_TOKEN",
        "max_bytes": 256 << 20,
    },
    "geolite2-asn": {
        "url": "https://download.maxmind.com/geoip/databases/GeoLite2-ASN/download?suffix=tar.gz", "kind": "table",
        "every": "1d", "key": "MAXMIND_KEY", "auth": "basic",
        "checksum": "https://download.maxmind.com/geoip/databases/GeoLite2-ASN/download?suffix=tar.gz.sha256",
    },
}  # fmt: skip
