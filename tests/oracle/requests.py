"""Whether the conditions of a rule on headers, method, path and hashes hold, one by one as they are written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import Any

from oracle import headers as oracle
from oracle import paths

WORDS = ("absent", "present", "malformed")
CRAWLERS = {
    "googlebot": "googlebot", "googlebot-image": "googlebot", "bingbot": "bingbot", "applebot": "applebot",
    "yandexbot": "yandexbot", "yandeximages": "yandexbot", "duckduckbot": "duckduckbot",
}  # fmt: skip


@dataclass(frozen=True)
class OracleRequest:
    """What a request says; None where nobody knows. Pseudo headers in `headers` say method and path, too."""

    headers: tuple[tuple[bytes, bytes], ...] | None = None
    method: str | None = None
    path: str | None = None
    mount: str = ""
    known: tuple[str, ...] | None = None  # the headers of which it is known whether they are there; None: all
    scheme: str | None = None
    host: str | None = None  # in place of the header


NOTHING = OracleRequest()


def text_of(value: bytes) -> str:
    """UTF-8, else Latin-1."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def read(request: OracleRequest) -> oracle.Read | None:
    """The headers, None when they are not known."""
    return None if request.headers is None else oracle.read(list(request.headers))


def method_of(request: OracleRequest) -> str | None:
    """The method; None when it is not known or none."""
    found, method = read(request), request.method
    if method is None and found is not None and found.problem is None:
        method = None if ":method" not in found.values else text_of(found.values[":method"][0])
    return method if method is not None and re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}", method) else None


def path_of(request: OracleRequest) -> str | None:
    """The path without query; None when it is not known or none."""
    found, path = read(request), request.path
    if path is None and found is not None and found.problem is None:
        path = None if ":path" not in found.values else text_of(found.values[":path"][0])
    if path == "" and request.mount:
        path = request.mount
    if path is None or re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", path):
        return None
    absolute = re.match(r"[A-Za-z][!#$%&'*+.^_`|~0-9A-Za-z-]*://[^/?#\\]*(?!\\)", path)
    if absolute:
        path = path[absolute.end() :]
        path = path if path.startswith("/") else "/" + path
    return path.split("?")[0] if path.startswith("/") or path == "*" else None


def glob(pattern: str, path: str) -> bool:
    """Whether the pattern covers the whole path."""
    if not pattern:
        return not path
    if pattern.startswith("**"):
        return any(glob(pattern[2:], path[n:]) for n in range(len(path) + 1))
    if pattern[0] == "*":
        most = len(path.split("/", maxsplit=1)[0])
        return any(glob(pattern[1:], path[n:]) for n in range(most + 1))
    if not path or (path[0] != pattern[0] and (pattern[0] != "?" or path[0] == "/")):
        return False
    return glob(pattern[1:], path[1:])


def value_holds(operator: str, listed: Any, value: str, ignore_case: bool) -> bool:
    """Whether the value satisfies one operator of a condition."""
    several = listed if isinstance(listed, (list, tuple)) else [listed]
    for item in several:
        text, wanted = (value.lower(), item.lower()) if ignore_case and operator != "regex" else (value, item)
        if operator == "regex" and re.search(item, value, re.IGNORECASE if ignore_case else 0):
            return True
        if operator == "glob" and glob(wanted, text):
            return True
        if operator == "contains" and wanted in text:
            return True
        if operator == "prefix" and text[: len(wanted)] == wanted:
            return True
        if operator == "suffix" and text[len(text) - len(wanted) :] == wanted and len(text) >= len(wanted):
            return True
        if operator == "equals" and text == wanted:
            return True
    return False


def header_holds(written: Any, state: str, value: str | None) -> bool:
    """Whether a header that is "absent", "malformed" or "present" with a value is as written."""
    if isinstance(written, str):
        written = [written]
    if isinstance(written, list):
        words = [item for item in written if item in WORDS]
        texts = [item for item in written if item not in WORDS]
        return state in words or (state == "present" and value_holds("equals", texts, value or "", True))
    for operator, listed in written.items():
        if operator in ("absent", "present"):
            wanted = "absent" if (operator == "absent") == listed else "present"
            if state != wanted:
                return False
        elif state != "present" or not value_holds(operator, listed, value or "", True):
            return False
    return True


def hold(rule: Any, request: OracleRequest) -> bool:
    """Whether every condition of `rule` on the request holds."""
    found = read(request)
    if (rule.header or rule.ua_family or rule.crawler or rule.fingerprint or rule.shape) and found is None:
        return False
    for name, written in (rule.header or {}).items():
        assert found is not None
        value = found.value(name.lower())
        state = "malformed" if found.problem else "absent" if value is None else "present"
        if not header_holds(written, state, None if value is None else text_of(value)):
            return False
    if rule.ua_family is not None:
        agent = None if found is None or found.problem else found.value("user-agent")
        if agent is None or oracle.ua_family(agent.decode("latin-1")) not in rule.ua_family:
            return False
    if rule.crawler is not None:
        agent = None if found is None or found.problem else found.value("user-agent")
        words = re.split(r"[^\w./-]", text_of(agent or b"").lower())
        products = {word.split("/")[0] for word in words}
        said = [name for token, name in CRAWLERS.items() if token in products]
        if not said or ("any" not in rule.crawler and said[0] not in rule.crawler):
            return False
    if rule.fingerprint is not None and oracle.gh2(list(request.headers or ())) not in rule.fingerprint:
        return False
    if rule.shape is not None and oracle.gs1(list(request.headers or ())) not in rule.shape:
        return False
    if rule.method is not None and method_of(request) not in rule.method:
        return False
    if rule.path is None:
        return True
    path = path_of(request)
    return path is not None and paths.hold(path, request.mount, rule.action == "allow", partial(path_holds, rule.path))


def path_holds(written: Any, path: str) -> bool:
    """Whether one reading satisfies what is written of the path."""
    if not isinstance(written, dict):
        return value_holds("glob", written, path, False)
    return all(value_holds(operator, listed, path, False) for operator, listed in written.items())
