"""Readable view of the headers of a request, in one form for every protocol and server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gobanfast._core.headers import HeaderPlan, PartialHeaders

if TYPE_CHECKING:
    from gobanfast._core.headers import HeaderPairs

HTTP_VERSIONS = ("1.0", "1.1", "2", "3")

_PLAN = HeaderPlan(("host", "cookie"))


@dataclass(frozen=True, slots=True)
class Headers:
    """A request's headers, normalised; HTTP/1, HTTP/2 and HTTP/3 forms of one request are equal but for what is known.

    Attributes:
        method, path, scheme, protocol: of the request, from pseudo headers or the environ; None where unknown. The path
            is without its query.
        authority: `:authority`, else the Host header.
        pairs: lower-case names and trimmed values in the order received, without pseudo headers and Host. Cookie crumbs
            are one header, and the last: where clients put it differs by version. Sorted when order is not known.
        repeated: names that came more than once.
        has_cookie: whether there is a cookie.
        ua_family: what the user agent claims to be, one of `UA_FAMILIES`; None without one.
        fingerprint: the gh2 fingerprint, of the client; None when there is a problem.
        shape: the gs1 shape, of this request; None when there is a problem.
        problem: why the headers cannot be read, or None. Then only `pairs` is filled, as far as it can be.
        order_known, case_known, pseudo_known: what the source keeps; a list of lower-case names may have had others.
    """

    method: str | None
    path: str | None
    scheme: str | None
    protocol: str | None
    authority: str | None
    pairs: tuple[tuple[bytes, bytes], ...]
    repeated: tuple[bytes, ...]
    has_cookie: bool
    ua_family: str | None
    fingerprint: str | None
    shape: str | None
    problem: str | None
    order_known: bool
    case_known: bool
    pseudo_known: bool


def normalize_headers(headers: HeaderPairs, http: str | None = None) -> Headers:
    """The headers in one form, whatever they came through.

    Args:
        headers: list of (name, value) bytes, as ASGI and HTTP/2 libraries have them, or a WSGI environ.
        http: the version, "1.0", "1.1", "2" or "3"; what it forbids is then a problem. None forbids nothing.
    Raises:
        TypeError: headers of another type. ValueError: another version.
    Cost: microseconds; for people and tests. `fingerprint` and the engine read headers without making this object.
    """
    if http is not None and http not in HTTP_VERSIONS:
        raise ValueError(f"http={http!r} is not one of {', '.join(HTTP_VERSIONS)}")
    if isinstance(headers, PartialHeaders):
        headers = headers.pairs
    facts = _PLAN.facts(headers, http)
    for text in ("method", "path", "scheme", "protocol", "authority"):
        facts[text] = None if facts[text] is None else facts[text].decode("latin-1")
    received: Iterable[Sequence[bytes]] = headers if not isinstance(headers, Mapping) else _environ_pairs(headers)
    pairs: list[tuple[bytes, bytes]] = []
    crumbs: list[bytes] = []
    seen: set[bytes] = set()
    repeated: dict[bytes, None] = {}
    for item in received:
        name, value = item[0].lower(), item[1].strip(b" \t")
        if name == b"cookie":
            crumbs.append(value)
        elif name != b"host" and not name.startswith(b":"):
            if name in seen:
                repeated[name] = None
            seen.add(name)
            pairs.append((name, value))
    if crumbs:
        pairs.append((b"cookie", b"; ".join(crumbs)))
    return Headers(pairs=tuple(pairs), repeated=tuple(repeated), **facts)


def _environ_pairs(environ: Mapping[str, object]) -> list[tuple[bytes, bytes]]:
    pairs = []
    for key, value in environ.items():
        if not isinstance(value, str) or not isinstance(key, str):
            continue
        if key.startswith("HTTP_") and len(key) > len("HTTP_"):
            name = key[len("HTTP_") :]
        elif key in ("CONTENT_TYPE", "CONTENT_LENGTH") and value:
            name = key
        else:
            continue
        text = name.lower().replace("_", "-")
        pairs.append((text.encode("latin-1", "replace"), value.encode("latin-1", "replace")))
    return sorted(pairs)
