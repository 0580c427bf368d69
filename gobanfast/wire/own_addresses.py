"""Addresses that a ban must not keep out: this host's own, its gateways, and the peers of sessions logged in to it.

Read from the Linux kernel's /proc/net, from logind and utmp, and from what sshd tells the process; elsewhere, and in a
sandbox that shows none of it, fewer are found and nothing is raised. A peer of a TCP connection alone is nobody: only
who has logged in counts.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address

Address = IPv4Address | IPv6Address

PROC = "/proc"
UTMP = ("/run/utmp", "/var/run/utmp")
LOGIND_SECONDS = 2.0
_UTMP = struct.Struct("<hxxi32s4s32s256shhiii4I20x")  # glibc, the same on 32 and 64 bits where it matters
_USER_PROCESS = 7
_LOCAL = 0x80000000  # RTF_LOCAL of an IPv6 route
_GATEWAY = 0x0002  # RTF_GATEWAY


def protected_addresses(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Canonical address -> what it is, for an error message: "an address of this host", "its gateway" or the like.

    Args:
        environ: where sshd says who is at the other end of the operator's own session; None: that of the process.
    Cost: milliseconds, most of it for asking logind: keep the answer for seconds or minutes.
    """
    found: dict[str, str] = {}
    for address in own_addresses():
        found.setdefault(str(address), "an address of this host")
    for address in gateways():
        found.setdefault(str(address), "the gateway of this host")
    for address, session in session_peers(os.environ if environ is None else environ).items():
        found.setdefault(str(address), session)
    return found


def own_addresses() -> tuple[Address, ...]:
    """Addresses of this host's interfaces; without loopback, link-local ones included."""
    found = [*_local4(_text("net/fib_trie")), *_local6(_text("net/if_inet6"))]
    return tuple(dict.fromkeys(address for address in found if not address.is_loopback))


def gateways() -> tuple[Address, ...]:
    """Next hops of this host's routes."""
    return tuple(dict.fromkeys([*_routes4(_text("net/route")), *_routes6(_text("net/ipv6_route"))]))


def session_peers(environ: Mapping[str, str]) -> dict[Address, str]:
    """Remote addresses of the sessions that are logged in to this host -> whose session it is."""
    found: dict[Address, str] = {}
    for variable in ("SSH_CONNECTION", "SSH_CLIENT"):
        address = _address(environ.get(variable, "").partition(" ")[0])
        if address is not None:
            found.setdefault(address, "the other end of this session")
    for host, user in [*_logind(), *_utmp()]:
        address = _address(host)
        if address is not None and not address.is_loopback:
            found.setdefault(address, f"where {user} is logged in from")
    return found


def _text(name: str) -> str:
    try:
        with open(os.path.join(PROC, name), encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _address(text: str) -> Address | None:
    """The address in a text; an IPv4 one that is mapped into IPv6 as itself, a zone left out."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _local4(trie: str) -> Iterator[Address]:
    """The /32 local entries of fib_trie: the line after an address says what it is."""
    at = ""
    for line in map(str.strip, trie.splitlines()):
        if line.startswith("|-- "):
            at = line[4:]
        elif line == "/32 host LOCAL" and (address := _address(at)) is not None:
            yield address


def _local6(table: str) -> Iterator[Address]:
    for line in table.splitlines():
        address = _packed6(line.partition(" ")[0])
        if address is not None:
            yield address


def _routes4(table: str) -> Iterator[Address]:
    """Gateways in /proc/net/route, whose addresses are hex of words in the host's order."""
    for line in table.splitlines()[1:]:
        fields = line.split()
        try:
            if int(fields[3], 16) & _GATEWAY:
                yield IPv4Address(struct.pack("=I", int(fields[2], 16)))
        except (IndexError, ValueError, struct.error):
            continue


def _routes6(table: str) -> Iterator[Address]:
    for line in table.splitlines():
        fields = line.split()
        try:
            flags = int(fields[8], 16)
        except (IndexError, ValueError):
            continue
        address = _packed6(fields[4])
        if address is not None and flags & _GATEWAY and not flags & _LOCAL:
            yield address


def _packed6(text: str) -> IPv6Address | None:
    try:
        packed = bytes.fromhex(text)
    except ValueError:
        return None
    return IPv6Address(packed) if len(packed) == 16 else None


def _logind() -> list[tuple[str, str]]:
    """(remote host, user) of the sessions that logind knows."""
    sessions = []
    for session in _loginctl("list-sessions", "--no-legend", "--no-pager").splitlines():
        number = session.split()[0] if session.split() else ""
        if not number.isalnum():
            continue
        shown = _loginctl("show-session", number, "--property=RemoteHost", "--property=Name", "--property=State")
        facts = dict(line.partition("=")[::2] for line in shown.splitlines())
        if facts.get("RemoteHost") and facts.get("State") != "closing":
            sessions.append((facts["RemoteHost"], facts.get("Name", "")))
    return sessions


def _loginctl(*arguments: str) -> str:
    command = shutil.which("loginctl", path="/usr/bin:/bin")
    if command is None or not os.path.isdir("/run/systemd/sessions"):
        return ""
    try:
        done = subprocess.run(  # noqa: S603 - no shell, a path of the system, and a number of logind's own
            [command, *arguments], capture_output=True, text=True, timeout=LOGIND_SECONDS, check=False
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _utmp() -> list[tuple[str, str]]:
    """(remote host, user) of the login records whose process lives."""
    for path in UTMP:
        try:
            with open(path, "rb") as file:
                return list(_records(file.read()))
        except OSError:
            continue
    return []


def _records(data: bytes) -> Iterator[tuple[str, str]]:
    for at in range(0, len(data) - _UTMP.size + 1, _UTMP.size):
        kind, pid, _, _, user, host, *_, a, b, c, d = _UTMP.unpack_from(data, at)
        if kind != _USER_PROCESS or not os.path.isdir(os.path.join(PROC, str(pid))):
            continue
        words = struct.pack("<4I", a, b, c, d)
        if not any(words):
            text = host.split(b"\0")[0].decode("ascii", "replace")
        else:
            text = str(IPv6Address(words) if any(words[4:]) else IPv4Address(words[:4]))
        yield text, user.split(b"\0")[0].decode("utf-8", "replace")
