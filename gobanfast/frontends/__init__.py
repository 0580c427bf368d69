"""Adapters from one layer (TLS handshake, TCP accept, HTTP server) to the engine."""
