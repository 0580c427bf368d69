"""Adapters from the tables of right answers to the public API: one callable a table, spellings translated.

Whoever has other rows of the same families runs them through this module. Functions import what they need themselves,
so that a part that is missing fails its own table alone.
"""

from __future__ import annotations
