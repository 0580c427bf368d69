"""Compiler of log formats, as nginx (`log_format`) and Apache (`LogFormat`) write them, to a reader of lines."""

from __future__ import annotations

import re
from functools import lru_cache

_VARIABLE = re.compile(
    r"\$\{?(?P<nginx>\w+)\}?|%(?:[<>]|!?[\d,]+)*(?:\{(?P<what>[^}]*)\})?(?P<apache>\^?[a-zA-Z]{1,2}|%)"
)
_NGINX = {
    "remote_addr": "address", "realip_remote_addr": "address", "http_x_forwarded_for": "forwarded",
    "proxy_add_x_forwarded_for": "forwarded", "proxy_protocol_addr": "address", "request": "request",
    "request_method": ":method", "request_uri": ":path", "uri": ":path", "http_user_agent": "user-agent",
    "http_referer": "referer", "host": "host", "http_host": "host", "time_local": "time", "time_iso8601": "time",
    "msec": "time",
}  # fmt: skip
_APACHE = {"h": "address", "a": "address", "r": "request", "m": ":method", "U": ":path", "t": "time", "V": "host"}
_HEADERS = {"user-agent": "user-agent", "referer": "referer", "host": "host", "x-forwarded-for": "forwarded"}


def is_format(text: str) -> bool:
    """Whether it is a format, and no name of a layout."""
    return "$" in text or "%" in text


class LineFormat:
    """Reader of lines of one format: texts by name (address, request, :method, :path, user-agent, referer, host, time),
    the first of equal names; None where a line is of another form. `X-Forwarded-For` counts as the address where the
    format has no other."""

    def __init__(self, pattern: re.Pattern[str], names: list[str]) -> None:
        self._pattern, self._names = pattern, names
        self.names = frozenset(names)
        self.has_address = bool(self.names & {"address", "forwarded"})

    def __call__(self, line: str) -> dict[str, str] | None:
        found = self._pattern.fullmatch(line)
        if found is None:
            return None
        said: dict[str, str] = {}
        for name, text in zip(self._names, found.groups(), strict=True):
            said.setdefault(name, text)
        said.setdefault("address", said.get("forwarded", ""))
        return said


@lru_cache(16)
def compiled_format(text: str) -> LineFormat:
    """The reader of a format. What follows a variable ends it; in quotes a backslash escapes."""
    text = text.strip().strip("'").replace('\\"', '"')
    parts, names, at = [], [], 0
    variables = [*_VARIABLE.finditer(text)]
    for found in variables:
        parts.append(re.escape(text[at : found.start()]))
        at = found.end()
        if found["apache"] == "%":
            parts.append("%")
            continue
        after = text[at : at + 1]
        name = _name(found)
        if found["apache"] == "t":
            parts.append(r"\[([^\]]*)\]" if name else r"\[[^\]]*\]")
        else:
            if text[found.start() - 1 : found.start()] == '"' and after == '"':
                what = r'(?:[^"\\]|\\.)*'
            else:
                what = rf"[^{re.escape(after)}]*?" if after and not after.isalnum() else r".*?"
            parts.append(f"({what})" if name else f"(?:{what})")
        if name:
            names.append(name)
    parts.append(re.escape(text[at:]))
    return LineFormat(re.compile("".join(parts), re.DOTALL), names)


def _name(found: re.Match[str]) -> str | None:
    if found["nginx"] is not None:
        return _NGINX.get(found["nginx"])
    if found["what"] is None:
        return _APACHE.get(found["apache"])
    if found["apache"] == "i":
        return _HEADERS.get(found["what"].lower())
    return "address" if found["apache"] == "a" else None
