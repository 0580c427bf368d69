"""BLAKE2b digests without `hashlib`, which loads OpenSSL and so takes longer than loading compiled rules."""

from __future__ import annotations

import os

try:
    from _blake2 import blake2b  # what `hashlib` has under this name
except ImportError:
    from hashlib import blake2b

__all__ = ["blake2b", "secret"]


def secret(key: bytes | None) -> bytes:
    """32 random bytes, or those that `key` stands for."""
    if key is None:
        return os.urandom(32)
    from hashlib import shake_256

    return shake_256(key).digest(32)
