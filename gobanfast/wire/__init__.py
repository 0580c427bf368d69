"""Parsers of what comes over the wire, without an engine: PROXY protocol, QUIC Initials, request targets, hosts."""
