"""Admission decisions for requests by address, AS, server name and headers: rules compiled into one engine."""

from __future__ import annotations

TYPE_CHECKING = False  # typing itself takes longer to import than all of this
if TYPE_CHECKING:
    from gobanfast._core.ban_table import BanTable
    from gobanfast._core.client_hello import ClientHello, parse_client_hello
    from gobanfast._core.decision import Decision
    from gobanfast._core.headers import fingerprint
    from gobanfast._core.kernels import kernels
    from gobanfast._core.name_table import NameTable
    from gobanfast._core.origin_set import OriginSet
    from gobanfast._core.prefix_set import PrefixSet
    from gobanfast._core.prefix_table import PrefixTable
    from gobanfast._errors import FormatError, GobanError, Problem, RuleError
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
    "OriginSet",
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

# Where each name is defined. A name is imported when it is first asked for: `import gobanfast` costs next to nothing.
_HOMES = {
    "AsnTable": "asn",
    "Ban": "bans",
    "BanTable": "_core.ban_table",
    "ClientHello": "_core.client_hello",
    "Decision": "_core.decision",
    "Engine": "engine",
    "FormatError": "_errors",
    "GobanError": "_errors",
    "Headers": "headers",
    "NameTable": "_core.name_table",
    "OriginSet": "_core.origin_set",
    "PrefixSet": "_core.prefix_set",
    "PrefixTable": "_core.prefix_table",
    "Problem": "_errors",
    "Rule": "rules",
    "RuleError": "_errors",
    "Ruleset": "rules",
    "fingerprint": "_core.headers",
    "kernels": "_core.kernels",
    "normalize_headers": "headers",
    "parse_client_hello": "_core.client_hello",
}

if not TYPE_CHECKING:  # or type checkers would believe in any name

    def __getattr__(name: str) -> object:
        """A public name, or a module that one is defined in, at its first use."""
        from importlib import import_module

        if name in _HOMES:
            value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        elif name in _HOMES.values():
            value = import_module(f"{__name__}.{name}")
        else:
            raise import_module(f"{__name__}.frontends").missing(__name__, name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
