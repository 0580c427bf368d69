"""HTTP client for sources that are not trusted: one resolution, checked addresses, caps on time, size and redirects.

The name is resolved once, every address is checked, and the connection is made to that very address, so that a second
answer of DNS changes nothing. No proxy is taken from the environment. Keys go to the first host alone.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from urllib.parse import urljoin, urlsplit

from gobanfast._errors import GobanError

REDIRECTS = 3
PIECE = 1 << 16
AGENT = "gobanfast (+https://pypi.org/project/gobanfast/)"
CONNECTS = 4  # addresses of a name that are tried

Resolve = Callable[[str, int], list[str]]


class DownloadError(GobanError):
    """A source that gives nothing that can be used; says which and why. `again`: seconds that it asks to wait."""

    def __init__(self, message: str, again: float | None = None) -> None:
        super().__init__(message)
        self.again = again


@dataclass(slots=True)
class Limits:
    """What one download may take, and where it may go."""

    seconds: float = 60.0
    nbytes: int = 64 << 20  # as it comes, and unpacked
    private: bool = False  # addresses that are not global
    insecure: bool = False  # http:


@dataclass(slots=True)
class Answer:
    """What came back. `status` is 200 or 304; `body` is empty with 304."""

    status: int
    body: bytes
    headers: Mapping[str, str]
    url: str  # after redirects


@dataclass(slots=True)
class Call:
    """One download under way, which another thread may `abort`."""

    opened: socket.socket | None = None
    aborted: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def use(self, opened: socket.socket) -> None:
        with self.lock:
            self.opened = opened
            aborted = self.aborted
        if aborted:
            self.abort()

    def abort(self) -> None:
        """Ends it: what waits for the network fails at once."""
        with self.lock:
            self.aborted = True
            if self.opened is not None:
                with contextlib.suppress(OSError):
                    self.opened.shutdown(socket.SHUT_RDWR)


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a name, in the order that the system prefers."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_global(address: str) -> bool:
    """Whether an address is of the public Internet, also the IPv4 address that an IPv6 one holds."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        inside = parsed.ipv4_mapped or parsed.sixtofour or (parsed.teredo or (None, None))[1]
        if parsed in ipaddress.ip_network("64:ff9b::/96"):
            inside = ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)
        if inside is not None:
            return is_global(str(inside))
        if parsed not in ipaddress.ip_network("2000::/3"):  # all that is given out; site-local, translated and the like
            return False
    return parsed.is_global and not parsed.is_multicast


def download(
    url: str,
    limits: Limits,
    *,
    headers: Mapping[str, str] | None = None,
    secret: Mapping[str, str] | None = None,
    method: str = "GET",
    body: bytes | None = None,
    call: Call | None = None,
    resolver: Resolve = resolve,
    context: ssl.SSLContext | None = None,
) -> Answer:
    """The answer at `url`, after at most three redirects, each of which is checked like the first address.

    Args:
        headers: sent to whoever is asked; `secret` to the first scheme, host and port alone.
        call: lets another thread end it.
        resolver, context: other than the system's.
    Raises:
        DownloadError: for all that can go wrong; 429 and 503 with the seconds of Retry-After.
    """
    call = Call() if call is None else call
    deadline = time.monotonic() + limits.seconds
    timer = threading.Timer(limits.seconds, call.abort)  # a header a byte at a time would outlast any time-out
    timer.daemon = True
    timer.start()
    try:
        return _follow(url, limits, headers or {}, secret or {}, method, body, call, deadline, resolver, context)
    except (OSError, http.client.HTTPException, ValueError, zlib.error) as error:
        if time.monotonic() >= deadline:
            raise DownloadError(f"{shown(url)}: took over {limits.seconds:g} s") from None
        raise DownloadError(f"{shown(url)}: {_reason(error)}") from None
    finally:
        timer.cancel()


def _follow(
    url: str, limits: Limits, headers: Mapping[str, str], secret: Mapping[str, str], method: str, body: bytes | None,
    call: Call, deadline: float, resolver: Resolve, context: ssl.SSLContext | None,
) -> Answer:  # fmt: skip
    first = origin(url)
    for _ in range(REDIRECTS + 1):
        sent = {"user-agent": AGENT, "accept": "*/*", "accept-encoding": "gzip", **headers}
        if origin(url) == first:
            sent |= secret
        with contextlib.ExitStack() as closing:
            connection = closing.enter_context(
                contextlib.closing(_connect(url, limits, call, deadline, resolver, context))
            )
            parts = urlsplit(url)
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request(method, target, body=body, headers=sent)
            response = closing.enter_context(connection.getresponse())
            if response.status in {301, 302, 303, 307, 308} and method == "GET":
                place = response.getheader("location")
                if not place:
                    raise DownloadError(f"{shown(url)}: status {response.status} without a location")
                url = urljoin(url, place)
                continue
            return _read(url, response, limits, call, deadline)
    raise DownloadError(f"{shown(url)}: more than {REDIRECTS} redirects")


def _read(url: str, response: http.client.HTTPResponse, limits: Limits, call: Call, deadline: float) -> Answer:
    headers = {name.lower(): value for name, value in response.getheaders()}
    if response.status == 304:
        return Answer(304, b"", headers, url)
    if response.status not in {200, 201}:
        again = _retry_after(headers.get("retry-after")) if response.status in {429, 503} else None
        raise DownloadError(f"{shown(url)}: status {response.status}", again)
    told = headers.get("content-length", "")
    if told.isdigit() and int(told) > limits.nbytes:
        raise DownloadError(f"{shown(url)}: {int(told):,} bytes, more than max_bytes: {limits.nbytes}")
    data, total = bytearray(), 0
    while piece := response.read(PIECE):
        total += len(piece)
        if total > limits.nbytes:
            raise DownloadError(f"{shown(url)}: more than max_bytes: {limits.nbytes}")
        if time.monotonic() >= deadline or call.aborted:
            raise TimeoutError
        data += piece
    if call.aborted:  # shut down, the rest looks like an end
        raise TimeoutError
    if told.isdigit() and len(data) != int(told):
        raise DownloadError(f"{shown(url)}: {len(data):,} of {int(told):,} bytes came")
    coding = headers.get("content-encoding", "identity").lower()
    if coding in {"gzip", "x-gzip"}:
        return Answer(response.status, gunzip(bytes(data), limits.nbytes), headers, url)
    if coding != "identity":
        raise DownloadError(f"{shown(url)}: content-encoding {coding[:40]!r} was not asked for")
    return Answer(response.status, bytes(data), headers, url)


def gunzip(data: bytes, most: int) -> bytes:
    """Unpacked gzip data of one member or several. Raises ValueError when it is cut short, damaged, or over `most`."""
    made, total = [], 0
    while data:
        reader = zlib.decompressobj(16 + zlib.MAX_WBITS)
        try:
            while not reader.eof:
                piece = reader.decompress(data, PIECE)
                data = reader.unconsumed_tail
                total += len(piece)
                if total > most:
                    raise ValueError(f"gzip data unpacks to more than max_bytes: {most}")
                made.append(piece)
                if not piece and not data and not reader.eof:
                    raise ValueError("gzip data is cut short")
        except zlib.error:
            raise ValueError("gzip data is damaged") from None
        data = reader.unused_data
        if data and not data.startswith(b"\x1f\x8b"):
            break  # padding
    return b"".join(made)


def _connect(
    url: str, limits: Limits, call: Call, deadline: float, resolver: Resolve, context: ssl.SSLContext | None
) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    scheme, host = parts.scheme.lower(), parts.hostname
    if scheme not in {"https", "http"} or not host or parts.username is not None:
        raise DownloadError(f"{shown(url)}: not an https: address")
    if scheme == "http" and not limits.insecure:
        raise DownloadError(f"{shown(url)}: not https, which is asked for unless insecure: true")
    port = parts.port or (443 if scheme == "https" else 80)
    addresses = resolver(host, port)
    if not addresses:
        raise DownloadError(f"{shown(url)}: no address of {host}")
    for address in addresses:
        if not limits.private and not is_global(address):
            raise DownloadError(
                f"{shown(url)}: {host} has the address {address}, which is not global; if that is meant, private: true"
            )
    failure: OSError | None = None
    for address in addresses[:CONNECTS]:
        try:
            left = deadline - time.monotonic()
            if left <= 0 or call.aborted:
                raise TimeoutError
            plain = socket.create_connection((address, port), timeout=max(0.01, left))
        except OSError as error:
            failure = error
            continue
        call.use(plain)
        break
    else:
        raise failure or TimeoutError()
    if scheme == "http":
        connection = http.client.HTTPConnection(host, port)
        connection.sock = plain
        return connection
    context = context or ssl.create_default_context()
    connection = http.client.HTTPSConnection(host, port, context=context)
    connection.sock = plain  # so that it is closed, whatever happens
    try:
        wrapped = context.wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False)
        connection.sock = wrapped
        call.use(wrapped)
        wrapped.do_handshake()
    except BaseException:
        connection.close()
        raise
    return connection


def shown(url: str) -> str:
    """A URL as messages show it: without its query, which may hold a key, and without a password."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "an address that is none"
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"[:200]


def origin(url: str) -> tuple[str, str | None, int | None]:
    """Scheme, host and port, which a key is for."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


def _retry_after(text: str | None) -> float | None:
    if text is None:
        return None
    if text.strip().isdigit():
        return min(float(text), 86400.0)
    try:
        return min(max(0.0, parsedate_to_datetime(text).timestamp() - time.time()), 86400.0)
    except (ValueError, TypeError):
        return None


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate is refused: {error.verify_message}"
    if isinstance(error, http.client.InvalidURL):  # whose text has the query, which may hold a key
        return "blanks or control characters in the address"
    if isinstance(error, http.client.IncompleteRead):
        return f"cut short after {len(error.partial):,} bytes"
    if isinstance(error, TimeoutError):
        return "took too long"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error)[:200] or type(error).__name__
