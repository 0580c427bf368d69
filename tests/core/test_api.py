"""The public surface, written down: a name that comes, goes or changes its members fails here first."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from importlib.resources import files
from importlib.util import find_spec

import pytest

import gobanfast

# Public name -> its public members on the class (not inherited ones; instance attributes are in the docstrings).
SURFACE: dict[str, set[str]] = {
    "AsnTable": {"asns", "describe", "from_arrays", "from_csv", "from_mmdb", "ranges", "starter"},
    "Ban": {"by", "count", "created", "expires", "key", "reason", "rule"},
    "BanTable": {
        "after_fork",
        "ban",
        "bans",
        "before_fork",
        "capacity",
        "changes",
        "closed",
        "configure",
        "extend",
        "get",
        "labels",
        "lookup",
        "nbytes",
        "offset",
        "packed",
        "purge",
        "put",
        "saturated",
        "stats",
        "unban",
        "wait",
        "wake",
    },
    "ClientHello": {
        "alpn",
        "ciphers",
        "early_data",
        "ech",
        "extensions",
        "fragmented",
        "grease",
        "groups",
        "ja3",
        "ja3_text",
        "ja4",
        "ja4_r",
        "legacy_version",
        "message",
        "nbytes",
        "need",
        "offset",
        "point_formats",
        "problem",
        "psk",
        "retry",
        "session_id",
        "session_ticket",
        "signature_algorithms",
        "sni",
        "sni_bytes",
        "sni_flags",
        "status",
        "version",
        "versions",
    },
    "Decision": {
        "action",
        "address",
        "asn",
        "ban",
        "cause",
        "compiled",
        "coverage",
        "duration",
        "expires",
        "fingerprint",
        "headers",
        "hello",
        "host",
        "http",
        "ja4",
        "labels",
        "logged",
        "matched",
        "method",
        "mount",
        "origin",
        "outcome",
        "own_page",
        "path",
        "preflight",
        "reason",
        "record",
        "record_matched",
        "record_rule",
        "record_shadow",
        "rule",
        "rule_index",
        "sampling_probability",
        "scheme",
        "score",
        "shadow",
        "shape",
        "session",
        "session_state",
        "share",
        "share_headers",
        "share_matched",
        "share_rule",
        "share_shadow",
        "sni",
        "threshold",
        "to_dict",
        "span_id",
        "trace",
        "trace_flags",
        "trace_id",
        "trace_link",
        "uid",
        "ungranted",
        "varies",
        "limit",
    },
    "Engine": {
        "ban",
        "bans",
        "decide_many",
        "decide_packed",
        "explain",
        "label",
        "label_table",
        "labels",
        "load",
        "rate_control",
        "replay",
        "revoke_session",
        "ruleset",
        "session_key",
        "status",
        "swap",
        "sync",
        "unban",
        "unlabel",
        "watch",
        "watcher",
        "others_in",
        "climb",
        "spares",
        "count",
    },
    "FormatError": set(),
    "GobanError": set(),
    "Headers": {
        "authority",
        "case_known",
        "fingerprint",
        "has_cookie",
        "method",
        "order_known",
        "pairs",
        "path",
        "problem",
        "protocol",
        "pseudo_known",
        "repeated",
        "scheme",
        "shape",
        "ua_family",
    },
    "NameTable": {
        "content_hash",
        "from_bytes",
        "kernel",
        "load",
        "lookup",
        "lookup_all",
        "lookup_many",
        "nbytes",
        "save",
        "verify",
    },
    "OriginSet": {"content_hash", "from_bytes", "kernel", "load", "lookup", "nbytes", "save", "verify"},
    "PrefixSet": {
        "contains_many",
        "content_hash",
        "from_bytes",
        "from_packed",
        "kernel",
        "load",
        "nbytes",
        "save",
        "verify",
    },
    "PrefixTable": {
        "content_hash",
        "from_bytes",
        "from_packed",
        "get",
        "kernel",
        "load",
        "lookup",
        "lookup_many",
        "lookup_prefix",
        "nbytes",
        "save",
        "verify",
    },
    "Problem": {"code", "column", "hint", "line", "message", "severity", "source"},
    "Rule": {
        "action",
        "column",
        "duration",
        "effect",
        "grant",
        "id",
        "key",
        "line",
        "mode",
        "order",
        "priority",
        "rate",
        "reason",
        "source",
        "weigh",
        "when",
        "limit",
    },
    "RuleError": set(),
    "Ruleset": {"content_hash", "failures", "from_text", "load", "nbytes", "save", "without_secrets"},
    "fingerprint": set(),
    "kernels": set(),
    "normalize_headers": set(),
    "parse_client_hello": set(),
}


def test_public_names_are_the_frozen_ones():
    """`gobanfast.__all__` is the surface, sorted."""
    assert sorted(SURFACE) == list(gobanfast.__all__)


@pytest.mark.parametrize("name", sorted(SURFACE))
def test_public_members_are_the_frozen_ones(name):
    """A public class has the frozen public members and no others; a function has none."""
    members = {member for member in getattr(getattr(gobanfast, name), "__dict__", ()) if not member.startswith("_")}

    assert SURFACE[name] == members


@pytest.mark.parametrize("name", sorted(SURFACE))
def test_public_names_have_docstrings(name):
    """What is public says what it is."""
    assert getattr(gobanfast, name).__doc__


@pytest.mark.parametrize("name", sorted(SURFACE))
def test_public_functions_have_signatures(name):
    """`help` and editors can show what a public function or method takes, compiled or not."""
    public = getattr(gobanfast, name)
    members = [getattr(public, member) for member in SURFACE[name] if hasattr(public, member)]

    for member in [public, *members]:
        if callable(member) and not isinstance(member, type):
            assert inspect.signature(member)


@pytest.mark.parametrize("name", ["BanTable", "NameTable", "OriginSet", "PrefixSet", "PrefixTable"])
def test_compiled_classes_have_the_signature_of_their_stub(name):
    """What a compiled class is made from is told by `help`, too; it is written by hand there, so it is compared."""
    public = getattr(gobanfast, name)
    stub = ast.parse((files("gobanfast._core") / f"{public.__module__.rpartition('.')[2]}.pyi").read_text())
    (made,) = [
        method.args
        for node in stub.body
        if isinstance(node, ast.ClassDef) and node.name == name
        for method in node.body
        if isinstance(method, ast.FunctionDef) and method.name == "__new__"
    ]
    defaults = [ast.literal_eval(default) for default in (*made.defaults, *made.kw_defaults) if default is not None]
    told = inspect.signature(public).parameters.values()

    assert [arg.arg for arg in (*made.posonlyargs[1:], *made.args[1:], *made.kwonlyargs)] == [arg.name for arg in told]
    assert defaults == [arg.default for arg in told]


@pytest.mark.parametrize("name", ["FormatError", "RuleError"])
def test_errors_raised_on_purpose_share_a_base(name):
    """One `except` clause catches every error raised on purpose; each is a ValueError too."""
    error = getattr(gobanfast, name)

    assert issubclass(error, gobanfast.GobanError)
    assert issubclass(error, ValueError)


@pytest.mark.parametrize("module", ["gobanfast", "gobanfast.frontends"])
def test_names_that_are_elsewhere_say_where(module):
    """`from gobanfast import Gobanfast` and the like name the modules to import from, and those have the name; other
    names are missing as in any module."""
    from gobanfast.frontends import ELSEWHERE

    for name, where in ELSEWHERE.items():
        with pytest.raises(ImportError, match=f"^{name} is not in {module}; import it from gobanfast"):
            exec(f"from {module} import {name}", {})  # noqa: S102
        for home in re.findall(r"gobanfast\.\w+(?:\.[a-z]+)?", where):
            if home == "gobanfast.frontends.aiohttp":
                assert find_spec("aiohttp") is None or callable(importlib.import_module(home).setup)
            elif home != "gobanfast.frontends.django":  # which needs settings
                assert hasattr(importlib.import_module(home), name)
    with pytest.raises(ImportError, match="cannot import name 'Nothing'"):
        exec(f"from {module} import Nothing", {})  # noqa: S102
    assert not hasattr(importlib.import_module(module), "nothing")
