"""CORS as the Fetch standard writes it, byte by byte and step by step,
on bytes; nothing shared with gobanfast.wire.fetch."""

from __future__ import annotations

DIGITS = frozenset(b"0123456789")
LETTERS = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
TOKEN = DIGITS | LETTERS | frozenset(b"!#$%&'*+-.^_`|~")
UNSAFE = {
    *range(0x20), 0x22, 0x28, 0x29, 0x3A, 0x3C, 0x3E, 0x3F, 0x40, 0x5B, 0x5C, 0x5D, 0x7B, 0x7D, 0x7F,
} - {0x09}  # fmt: skip
LANGUAGE = DIGITS | LETTERS | {0x20, 0x2A, 0x2C, 0x2D, 0x2E, 0x3B, 0x3D}
FORMS = [b"application/x-www-form-urlencoded", b"multipart/form-data", b"text/plain"]


def strip(value):
    while value[:1] in (b"\t", b"\n", b"\r", b" "):
        value = value[1:]
    while value[-1:] in (b"\t", b"\n", b"\r", b" "):
        value = value[:-1]
    return value


def is_token(value):
    return len(value) > 0 and all(byte in TOKEN for byte in value)


def essence(value):
    value = strip(value)
    if b"/" not in value:
        return None
    kind, rest = value.split(b"/", 1)
    subtype = strip_end(rest.split(b";", 1)[0])
    return (kind + b"/" + subtype).lower() if is_token(kind) and is_token(subtype) else None


def strip_end(value):
    while value[-1:] in (b"\t", b"\n", b"\r", b" "):
        value = value[:-1]
    return value


def single_range(value):
    """None for a failure, else (start, end), each None where it is left out."""
    if not value.startswith(b"bytes="):
        return None
    at = 6
    start = end = b""
    while at < len(value) and value[at] in DIGITS:
        start += value[at : at + 1]
        at += 1
    if value[at : at + 1] != b"-":
        return None
    at += 1
    while at < len(value) and value[at] in DIGITS:
        end += value[at : at + 1]
        at += 1
    if at != len(value) or (not start and not end):
        return None
    if start and end and int(start) > int(end):
        return None
    return (int(start) if start else None, int(end) if end else None)


def is_safelisted(name, value):
    if len(value) > 128:
        return False
    name = name.lower()
    if name == b"accept":
        return not any(byte in UNSAFE for byte in value)
    if name in (b"accept-language", b"content-language"):
        return all(byte in LANGUAGE for byte in value)
    if name == b"content-type":
        return not any(byte in UNSAFE for byte in value) and essence(value) in FORMS
    if name == b"range":
        found = single_range(value)
        return found is not None and found[0] is not None
    return False


def preflight_headers(pairs):
    unsafe, potentially, size = [], [], 0
    for name, value in pairs:
        if not is_safelisted(name, value):
            unsafe.append(name)
        else:
            potentially.append(name)
            size += len(value)
    if size > 1024:
        unsafe += potentially
    return sorted({name.lower() for name in unsafe})


def get(pairs, name):
    values = [strip(value) for key, value in pairs if key.lower() == name.lower()]
    if not values:
        return None
    joined = values[0]
    for value in values[1:]:
        joined += b", " + value
    return joined


def extract(pairs, name):
    """ "failure", None for null, or the values."""
    if all(key.lower() != name.lower() for key, _ in pairs):
        return None
    values = []
    for key, line in pairs:
        if key.lower() != name.lower():
            continue
        for part in strip(line).split(b","):
            element = part
            while element[:1] in (b"\t", b" "):
                element = element[1:]
            while element[-1:] in (b"\t", b" "):
                element = element[:-1]
            if element == b"":
                continue
            if not is_token(element):
                return "failure"
            values.append(element)
    return values


def cors_check(origin, mode, pairs):
    allowed = get(pairs, b"Access-Control-Allow-Origin")
    if allowed is None:
        return "acao-missing"
    if mode != "include" and allowed == b"*":
        return None
    if allowed != origin:
        return "acao-mismatch"
    if mode != "include":
        return None
    return None if get(pairs, b"Access-Control-Allow-Credentials") == b"true" else "acac"


def preflight_check(origin, mode, method, names, status, pairs):
    step = cors_check(origin, mode, pairs)
    if step is not None:
        return step
    if status not in range(200, 300):
        return "status"
    methods = extract(pairs, b"Access-Control-Allow-Methods")
    allowed = extract(pairs, b"Access-Control-Allow-Headers")
    if methods == "failure" or allowed == "failure":
        return "parse"
    methods, allowed = methods or [], [name.lower() for name in allowed or []]
    if method not in methods and method not in (b"GET", b"HEAD", b"POST"):  # noqa: SIM102 - as the standard has it
        if mode == "include" or b"*" not in methods:
            return "method"
    for name in names:
        if name.lower() == b"authorization" and b"authorization" not in allowed:
            return "header:" + name.decode()
    for name in names:
        if name.lower() not in allowed and (mode == "include" or b"*" not in allowed):
            return "header:" + name.decode()
    return None
