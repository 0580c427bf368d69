"""Request targets: the path in one, and its readings, which are the paths that a server may serve for it.

Everything that has a target calls this module. Engine, frontends and log readers hand over the path as it was sent
(percent-encoded); what servers decode before we see it is encoded again where that matters (`encoded`).
Source: csrc/DESIGN.md, "Readings of a path"; RFC 9112 section 3.2, RFC 3986 sections 2.1 and 5.2.4.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

MOST = 16
"""Readings of one path; with more it is malformed."""
MOST_STATES = 1 << 15
MOST_BYTES = 1 << 14
"""Bytes that are looked at to find the readings of one path, and bytes of several readings; with more it is malformed,
so that a path of 64 KB costs little more than a plain one of that length."""

_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#\\]*")  # a scheme and an authority
_ODD = re.compile(rb"[%\\;#]|//|/\.")  # without one of these a path has one reading
_HARMLESS = re.compile(rb"(?<!%)(?<!%[0-9A-Fa-f])%(?!2[35eEfF]|3[bBfF]|5[cC]|7[fF]|[01])[0-9A-Fa-f]{2}")
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_HIGH = re.compile(rb"[\x80-\xff]")
_SLASH = re.compile(rb"%(2f)", re.IGNORECASE)
_SLASHES = re.compile(rb"//+")
_PARAMETERS = re.compile(rb";[^/]*")
_END = re.compile(rb"[?#]")
_ENCODED = str.maketrans({"%": "%25", "?": "%3F", "#": "%23"})


def read_target(target: str | bytes) -> str:
    """The path in a request target, in the form that `Engine.decide(path=)` and the `:path` of headers want.

    It stays as it was sent, and nothing is merged or removed, because the engine finds its readings itself; only
    escapes that have one meaning are decoded (`/a%20b`, not `%2e`, `%2f`, `%25` and the like). What is taken away is
    the query and, of the absolute form (`http://host/admin`), scheme and authority; an empty path there is `/`. `*` is
    itself. What has no path (`host:443` of CONNECT, an empty text, one with a line break) comes back as it is, and the
    engine calls it malformed. Bytes that are no UTF-8 come back percent-encoded.
    Never raises, whatever the target; cost is a microsecond.
    """
    if isinstance(target, bytes):
        target = _text(target)
    scheme = None if target.startswith("/") else _ABSOLUTE.match(target)
    if scheme is not None and target[scheme.end() : scheme.end() + 1] != "\\":
        target = target[scheme.end() :]
        if not target.startswith("/"):
            target = "/" + target
    target = target.partition("?")[0]
    return target if "%" not in target else _decoded(target)


def _decoded(target: str) -> str:
    """A target without the escapes that make no difference: what is neither a character with a meaning in a path nor
    a control character nor part of another escape. Bytes that are no UTF-8 stay escaped."""
    try:
        plain = _HARMLESS.sub(lambda found: bytes.fromhex(found[0][1:].decode()), target.encode())
        return plain.decode()
    except UnicodeError:
        return target


def encoded(path: str | bytes) -> str:
    """A path that somebody has decoded once, as the target that it comes from: `%`, `?` and `#` in it are characters of
    the path, and bytes that are no UTF-8 are what they are. `str` is text, as ASGI has it; WSGI's is
    `path.encode("latin-1")`."""
    if isinstance(path, bytes):
        try:
            return path.decode().translate(_ENCODED)
        except UnicodeDecodeError:
            return _ascii(path.replace(b"%", b"%25").replace(b"?", b"%3F").replace(b"#", b"%23"))
    return path.translate(_ENCODED)


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return _ascii(data)


def _ascii(data: bytes) -> str:
    return _HIGH.sub(lambda found: b"%%%02X" % found[0][0], data).decode()


def is_odd(target: str) -> bool:
    """Whether a target may have several readings. Seven looks for a text, a fourth of what a regex costs here."""
    return (
        "%" in target or "//" in target or "/." in target or "\\" in target or ";" in target or "#" in target
        or "?" in target
    )  # fmt: skip


class Readings(NamedTuple):
    """The readings of one path.

    Attributes:
        every: with the mount and without it, whole or in part; and each that ends in a slash without it, since file
            servers serve `/secret.txt` for `/secret.txt/`. A restrictive rule holds when one of them satisfies it.
        full: with the mount. inner: without it. A permissive rule holds when all of one or all of the other do.
    """

    every: tuple[str, ...]
    full: tuple[str, ...]
    inner: tuple[str, ...]


def readings(target: bytes, mount: bytes = b"") -> Readings | None:
    """What servers may serve for a path as it was sent, without its query; None when it is malformed.

    The first decoding is always done. Besides, in any order and any number: `#` and what follows is dropped, a
    backslash becomes a slash, `;parameters` are removed, slashes are merged, dot segments are removed, `%2f` stays or
    becomes a slash, and a second decoding is done (after a decoding, `?` ends a path too).

    Args:
        target: begins with "/", or is "*".
        mount: the prefix under which clients reach the application, "" for none; the path may begin with it or not.
    Cost: 1 us for a path with nothing odd in it, 3 to 200 for others.
    """
    mount = _mount(mount)
    if target == b"*":
        return Readings(("*",), ("*",), ("*",))
    if not mount:
        plain = [target] if _ODD.search(target) is None else _closure([(target, 0)])
        if plain is None:
            return None
        texts = _texts(plain)
        return Readings(_without_slash(texts), texts, texts)
    whole, rest = _apart(target, mount)
    full, inner = _closure([(whole, 0)]), _closure(rest)
    own = full if whole == target else _closure([(target or b"/", 0)])
    if full is None or inner is None or own is None:
        return None
    found = dict.fromkeys([*full, *inner, *own])
    for text in tuple(found):
        found.update(dict.fromkeys(_cuts(text, unquote_to_bytes(mount))))
    return Readings(_without_slash(_texts(found)), _texts(full), _texts(inner))


def joined(mount: str, path: str) -> str:
    """The full path, as the client asked: `mount` and `path`, which may have it already; `/` for two empty ones."""
    below = path.startswith(mount) and path[len(mount) : len(mount) + 1] in {"", "/"}
    return (path if below or path == "*" else mount + path) or "/"


def mounts(option: str, served: str) -> str:
    """The mount of an application whose server says `served` and whose frontend's option says `option`: the longer one
    where one begins the other, else both, as behind a proxy that takes the option's part away."""
    served = "/" + served.strip("/") if served.strip("/") else ""
    if joined(option, served) == served or not option:
        return served
    return option if not served or joined(served, option) == option else option + served


def checked_mount(mount: str) -> str:
    """An option `mount=` in the form that everything else takes. Raises ValueError for what is no path."""
    if not isinstance(mount, str) or (mount and not mount.startswith("/")) or is_odd(mount):
        raise ValueError(f"mount {mount!r} is not the plain path of a folder; write /api, or '' for none")
    return mount.rstrip("/")


def asgi_target(path: str, raw: bytes | None, mount: str = "") -> str:
    """The target of an ASGI request, from `path`, which is decoded, and `raw_path`, which servers may leave out.

    `raw` counts where it decodes to `path`, with or without the mount; a middleware may have changed one of them.
    """
    if raw is not None:
        sent = read_target(_ascii(raw.partition(b"?")[0]))
        plain = unquote_to_bytes(sent)
        decoded = {plain.decode("utf-8", "replace"), plain.decode("latin-1")}
        if path in decoded:
            return joined(mount, sent)
        if mount and path in {mount + text for text in decoded}:
            return encoded(mount) + sent
    return joined(mount, _reduced(encoded(path)))


def environ_target(environ: Mapping[str, Any], option: str | None = None) -> tuple[str | None, str | None]:
    """(target, mount) of a WSGI environ; no target where it has no PATH_INFO, no mount where there is none."""
    info, script = environ.get("PATH_INFO"), environ.get("SCRIPT_NAME") or ""
    if not isinstance(info, str):
        return None, option
    return placed(info.encode("latin-1", "replace"), script.encode("latin-1", "replace"), option or "")


def placed(info: str | bytes, script: str | bytes, option: str = "") -> tuple[str, str | None]:
    """(target, mount) for the two decoded parts of a path that WSGI has. An empty one is the root."""
    path, served = _reduced(encoded(info)), encoded(script).rstrip("/")
    mount = mounts(option, served)
    return joined(mount, (served + path if path != "*" else path) if served else path), mount or None


def _reduced(path: str) -> str:
    return path if path.startswith("/") else read_target(path)


def _mount(mount: bytes) -> bytes:
    inside = mount.strip(b"/")
    return b"/" + inside if inside else b""


def _apart(target: bytes, mount: bytes) -> tuple[bytes, list[tuple[bytes, int]]]:
    """The path with the mount, and what comes after the mount: texts, and how often they were decoded."""
    if _below(target, mount):
        return target, [(target[len(mount) :] or b"/", 0)]
    plain = unquote_to_bytes(mount)
    decoded = [text for text in _decodings(target) if _below(text, plain)]
    if decoded:
        return target, [(text[len(plain) :] or b"/", 1) for text in decoded]
    return mount + target, [(target or b"/", 0)]


def _below(text: bytes, mount: bytes) -> bool:
    return text.startswith(mount) and text[len(mount) : len(mount) + 1] in {b"", b"/"}


def _cuts(text: bytes, mount: bytes) -> Iterator[bytes]:
    """`text` without what it begins with of the mount: all of it, its first segments, its last ones."""
    whole = _below(text, mount)
    at = 0
    for _ in range(min(mount.count(b"/"), MOST)):
        if _below(text, mount[at:]):
            yield text[len(mount) - at :] or b"/"
        at = mount.find(b"/", at + 1)
        if at < 0:
            return
        if whole:
            yield text[at:]


def _closure(starts: Iterable[tuple[bytes, int]]) -> list[bytes] | None:
    """Every text that some order of the steps makes of `starts`, decoded at least once; None: too many, or one whose
    first decoding has a control character."""
    todo = list(starts)
    seen = set(todo)
    found: dict[bytes, None] = {}
    looked = nbytes = 0
    for text, decodings in todo:  # grows meanwhile
        looked += len(text)
        if decodings and text not in found:
            if decodings == 1 and _CONTROL.search(text):
                return None
            found[text] = None
            nbytes += len(text)
        if len(found) > MOST or looked > MOST_STATES or (nbytes > MOST_BYTES and len(found) > 1):
            return None
        for state in _steps(text, decodings):
            if state not in seen:
                seen.add(state)
                todo.append(state)
    return list(found)


def _steps(text: bytes, decodings: int) -> Iterator[tuple[bytes, int]]:
    if decodings < 2:
        for decoded in _decodings(text):
            if decoded != text or not decodings:
                yield decoded, decodings + 1
    if decodings:
        end = _END.search(text)
        if end is not None:
            yield text[: end.start()], decodings
    elif b"#" in text:
        yield text[: text.index(b"#")], decodings
    if b"\\" in text:
        yield text.replace(b"\\", b"/"), decodings
    if b";" in text:
        yield _PARAMETERS.sub(b"", text), decodings
    if b"//" in text:
        yield _SLASHES.sub(b"/", text), decodings
    if b"/." in text:
        yield without_dots(text), decodings


def _decodings(text: bytes) -> tuple[bytes, ...]:
    """The text decoded, and with `%2f` left as it is."""
    if b"%" not in text:
        return (text,)
    whole = unquote_to_bytes(text)
    return (whole,) if _SLASH.search(text) is None else (whole, unquote_to_bytes(_SLASH.sub(rb"%25\1", text)))


def without_dots(text: bytes) -> bytes:
    """A path without its dot segments, RFC 3986 section 5.2.4."""
    kept: list[bytes] = []
    segments = text.split(b"/")[1:]
    for segment in segments:
        if segment == b"..":
            del kept[-1:]
        elif segment != b".":
            kept.append(segment)
    if segments[-1] in {b".", b".."}:
        kept.append(b"")
    return b"/" + b"/".join(kept)


def _texts(found: Iterable[bytes]) -> tuple[str, ...]:
    """Bytes as text: UTF-8; what is none as servers show it (U+FFFD) and as Latin-1."""
    texts: dict[str, None] = {}
    for text in found:
        try:
            texts[text.decode()] = None
        except UnicodeDecodeError:
            texts[text.decode("utf-8", "replace")] = None
            texts[text.decode("latin-1")] = None
    return tuple(texts)


def _without_slash(texts: tuple[str, ...]) -> tuple[str, ...]:
    more = [text[:-1] for text in texts if len(text) > 1 and text[-1] == "/"]
    return tuple(dict.fromkeys([*texts, *more])) if more else texts
