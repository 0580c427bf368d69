"""Who may come in, by address and AS, server name and headers: rules compiled into one engine."""

from __future__ import annotations

from gobanfast._bans import BanTable
from gobanfast._decision import Decision
from gobanfast._errors import FormatError, GobanError, Problem, RuleError
from gobanfast._headers import fingerprint
from gobanfast._kernels import kernels
from gobanfast._names import NameTable
from gobanfast._prefix import PrefixTable
from gobanfast._set import PrefixSet
from gobanfast._tls import ClientHello, parse_client_hello
from gobanfast.asn import AsnTable
from gobanfast.bans import Ban
from gobanfast.engine import Engine
from gobanfast.headers import Headers, normalize_headers
from gobanfast.rules import Rule, Ruleset

__all__ = [
    "AsnTable",
    "Ban",
    "BanTable",
    "ClientHello",
    "Decision",
    "Engine",
    "FormatError",
    "GobanError",
    "Headers",
    "NameTable",
    "PrefixSet",
    "PrefixTable",
    "Problem",
    "Rule",
    "RuleError",
    "Ruleset",
    "fingerprint",
    "kernels",
    "normalize_headers",
    "parse_client_hello",
]
__version__ = "0.1.0"
