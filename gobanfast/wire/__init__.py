"""Parsers of wire formats, without an engine: PROXY protocol, QUIC Initials, request targets, hosts."""
