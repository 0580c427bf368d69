"""The readings of a path, found by trying every order of the steps a server may take, one character at a time."""

from __future__ import annotations

from collections.abc import Callable

HEX = "0123456789abcdefABCDEF"


def unescape(text: str, keep_slash: bool) -> str:
    """One decoding of text whose characters are bytes."""
    out, at = "", 0
    while at < len(text):
        pair = text[at + 1 : at + 3]
        if text[at] == "%" and len(pair) == 2 and pair[0] in HEX and pair[1] in HEX:
            out += text[at : at + 3] if keep_slash and int(pair, 16) == 0x2F else chr(int(pair, 16))
            at += 3
        else:
            out, at = out + text[at], at + 1
    return out


def dots(text: str) -> str:
    """The loop of RFC 3986 section 5.2.4 as it is written there, for a path from "/" on."""
    left, out = text, ""
    while left:
        if left.startswith("/./") or left == "/.":
            left = "/" + left[3:]
        elif left.startswith("/../") or left == "/..":
            left = "/" + left[4:]
            out = out[: out.rindex("/")] if "/" in out else ""
        else:
            end = left.find("/", 1)
            end = len(left) if end < 0 else end
            out, left = out + left[:end], left[end:]
    return out


def merged(text: str) -> str:
    while "//" in text:
        text = text.replace("//", "/")
    return text


def without_parameters(text: str) -> str:
    return "/".join(segment.split(";")[0] for segment in text.split("/"))


def until(text: str, ends: str) -> str:
    for end in ends:
        text = text.split(end, maxsplit=1)[0]
    return text


def reached(start: tuple[str, int], found: set[tuple[str, int]]) -> None:
    """Adds everything that steps make of (text, number of decodings)."""
    if start in found or len(found) > 2000:
        return
    found.add(start)
    text, decodings = start
    for step in (dots, merged, without_parameters, lambda t: t.replace("\\", "/")):
        reached((step(text), decodings), found)
    reached((until(text, "?#" if decodings else "#"), decodings), found)
    for keep in (False, True):
        if decodings < 2:
            reached((unescape(text, keep), decodings + 1), found)


def closure(starts: list[tuple[str, int]]) -> set[str] | None:
    """The readings; None when there are more than 16, or a control character is in one."""
    found: set[tuple[str, int]] = set()
    for start in starts:
        reached(start, found)
    texts = {text for text, decodings in found if decodings}
    control = any(ord(char) < 32 or ord(char) == 127 for text, decodings in found if decodings == 1 for char in text)
    return None if len(texts) > 16 or control else texts


def shown(texts: set[str]) -> set[str]:
    """Texts whose characters are bytes as the text they are."""
    out = set()
    for text in texts:
        data = text.encode("latin-1")
        try:
            out.add(data.decode())
        except UnicodeDecodeError:
            out |= {data.decode("utf-8", "replace"), text}
    return out


def below(text: str, mount: str) -> bool:
    return text == mount or text.startswith(mount + "/")


def hold(path: str, mount: str, permissive: bool, holds: Callable[[str], bool]) -> bool:
    """Whether a rule with this test on the path holds for a path as sent, under a mount."""
    sent, prefix = path.encode().decode("latin-1"), mount.strip("/").encode().decode("latin-1")
    if path == "*":
        return holds("*")
    prefix = "/" + prefix if prefix else ""
    plain = unescape(prefix, False)
    once = [text for text in dict.fromkeys((unescape(sent, False), unescape(sent, True))) if below(text, plain)]
    if not prefix or below(sent, prefix):
        whole, rest = sent, [(sent[len(prefix) :] or "/", 0)]
    elif once:
        whole, rest = sent, [(text[len(plain) :] or "/", 1) for text in once]
    else:
        whole, rest = prefix + sent, [(sent, 0)]
    full, inner, own = closure([(whole, 0)]), closure(rest), closure([(sent, 0)])
    if full is None or inner is None or own is None:
        return False
    if permissive:
        return all(map(holds, shown(full))) or all(map(holds, shown(inner)))
    every = full | inner | own
    parts = plain.split("/")[1:]
    for text in full | inner | own:
        for count in range(1, len(parts) + 1):
            begin, end = "/" + "/".join(parts[:count]), "/" + "/".join(parts[-count:])
            if prefix and below(text, plain):
                every.add(text[len(begin) :] or "/")
            if prefix and below(text, end):
                every.add(text[len(end) :] or "/")
    texts = shown(every)
    return any(map(holds, texts)) or any(holds(text[:-1]) for text in texts if len(text) > 1 and text.endswith("/"))
