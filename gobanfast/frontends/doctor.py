"""Checks of a deployment for faults that make decisions by address wrong, each with a remedy.

`examine` looks at a configuration. A `Doctor` watches requests as they reach the application (outermost, before the
middleware), and answers at a path of its own, behind a token:

    app = Doctor(Gobanfast(app, engine), engine, token=os.environ["DOCTOR_TOKEN"])  # WsgiDoctor for WSGI

`gobanfast doctor --url http://127.0.0.1:8000/gobanfast-doctor` fetches that report, after it has tried with a forged
header whether the server lets strangers name the client.
"""

from __future__ import annotations

import hmac
import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gobanfast.asn.source import default_path
from gobanfast.frontends.authz import TOKEN_BYTES, answer_json, plain
from gobanfast.frontends.http.guard import ADDRESS_START, challengers
from gobanfast.frontends.http.layers import CORS, middleware, tracers
from gobanfast.frontends.tls import CURRENT, handshake_of
from gobanfast.frontends.trust import Trust, as_trust, trust_from_rules
from gobanfast.frontends.wsgi import native, socket_of, status_line
from gobanfast.telemetry.other_trace import current_span
from gobanfast.wire.forwarded import read_for, read_forwarded

if TYPE_CHECKING:
    from gobanfast.engine import Engine
    from gobanfast.frontends.asgi import Receive, Scope, Send
    from gobanfast.frontends.http.refusal import HttpResponse
    from gobanfast.frontends.wsgi import Environ, StartResponse

Severity = Literal["problem", "warning", "note"]

ASN_DAYS = 30  # age of AS data that is reported
JUMP_SECONDS = 5.0
FEW, MANY = 20, 100  # requests before a fraction of them, and before their spread, means anything
PEERS_LIMIT = 256
CHAIN_FIELDS = (b"x-forwarded-for", b"forwarded")
OTHER_FIELDS = (b"x-real-ip", b"cf-connecting-ip", b"true-client-ip", b"fastly-client-ip", b"x-client-ip")
OTEL = "gobanfast.telemetry.otel"  # where our plug-ins are
WORKERS = re.compile(r"(?:--workers|-w)[ =]?(\d+)")


PATH = "/gobanfast-doctor"  # where a report is


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know: "problem" makes decisions wrong, "warning" may, "note" is only worth knowing."""

    code: str
    severity: Severity
    what: str
    advice: str


def examine(
    engine: Engine,
    *,
    trust: Trust | None = None,
    asn_file: Path | None = None,
    challenge: bool = False,
    shared: bool = False,
    workers: int | None = None,
    environ: Mapping[str, str] = os.environ,
    now: Callable[[], float] = time.time,
) -> list[Finding]:
    """What is wrong or doubtful in a configuration, worst first.

    Args:
        trust: as given to the frontend; None: that of the rules.
        asn_file: where the AS data comes from; None: as for `Engine.load`.
        challenge: whether a Challenge is configured.
        shared: whether a store shares bans between processes.
        workers: processes that serve; None: as the environment says.
    """
    found = []
    trust = trust_from_rules(engine.snapshot) if trust is None else trust
    if not len(trust.peers) and not trust.unix:
        found.append(
            Finding(
                "no-trust",
                "note",
                "no proxy is trusted: the peer of the connection is the client",
                "right for a server that clients reach directly; behind a proxy, name its prefixes in trust:",
            )
        )
    challenging = challengers(engine.ruleset)
    if challenging and not challenge:
        found.append(
            Finding(
                "no-challenge",
                "warning",
                f"no challenge is configured, so these refuse whom they challenge: {', '.join(challenging[:5])}",
                "give the frontend a Challenge, or challenge='allow' to leave it to the application",
            )
        )
    status = engine.status()
    if status["stale"]:
        found.append(
            Finding(
                "rules-stale",
                "problem",
                f"the rules in force are not those on disk: {'; '.join(map(str, status['problems'][:3]))}",
                "mend the file; gobanfast rules lint says what is wrong with it",
            )
        )
    if asn_file is None and (named := default_path(engine.ruleset.source)) is not None:
        asn_file = Path(named)
    found += examine_asn(asn_file, now())
    if environ.get("FORWARDED_ALLOW_IPS", "").strip() == "*":
        found.append(
            Finding(
                "server-believes-everyone",
                "problem",
                "FORWARDED_ALLOW_IPS=* lets every client name its own address to the server",
                "unset it, run uvicorn with --no-proxy-headers, and name the proxies in trust:",
            )
        )
    workers = workers_of(environ) if workers is None else workers
    if workers > 1 and not shared and engine.sync is None:
        found.append(
            Finding(
                "workers-do-not-share",
                "warning",
                f"{workers} processes each count and ban on their own: limits are up to {workers} times what rules say",
                "give the engine a store that all of them share",
            )
        )
    from gobanfast.frontends import tls

    checked = tls.self_check()
    if " no" in checked:
        found.append(
            Finding("tls-signals-missing", "warning", checked, "rules that ask for what is missing see it as absent")
        )
    return ranked(found)


def examine_asn(path: Path | None, now: float) -> list[Finding]:
    if path is None:
        return [
            Finding(
                "asn-starter",
                "note",
                "the AS data is the starter table: a few large networks only",
                "build a full one: gobanfast asn build FILE -o asn.gbf",
            )
        ]
    days = (now - path.stat().st_mtime) / 86400
    if days <= ASN_DAYS:
        return []
    return [
        Finding(
            "asn-stale",
            "warning",
            f"{path} is {days:.0f} days old: addresses change hands",
            "build it anew every week or month, and reload",
        )
    ]


def workers_of(environ: Mapping[str, str]) -> int:
    """How many processes the environment asks servers to start."""
    asked = environ.get("WEB_CONCURRENCY") or environ.get("UVICORN_WORKERS") or environ.get("GRANIAN_WORKERS") or "1"
    found = WORKERS.search(environ.get("GUNICORN_CMD_ARGS", ""))
    return int(found[1]) if found else int(asked) if asked.isdigit() else 1


def examine_cors(app: Any, engine: Engine) -> list[Finding]:
    """A middleware for CORS inside `app`, where share rules grant or withhold: both cannot be right."""
    owning = [
        rule.id for rule in engine.ruleset.rules if rule.action in ("grant", "withhold") and rule.mode == "enforce"
    ]
    names = middleware(app, CORS) if owning else []
    if not names:
        return []
    return [
        Finding(
            "cors-twice",
            "warning",
            f"{', '.join(names)} is inside, and the share rules {', '.join(owning[:5])} replace its headers and answer "
            "its preflights",
            "take it out; what it grants beyond those rules is a grant under share: (gobanfast rules import reads its "
            "settings)",
        )
    ]


def examine_tracers(app: Any, *, around: bool = False) -> list[Finding]:
    """A middleware that makes OpenTelemetry's spans: the trace is its own, and ours to sample and to pass on.

    Args:
        around: whether a span was current when requests arrived, so that it is outside.
    """
    names = tracers(app) + (["a tracer around the application"] if around else [])
    if not names:
        return []
    propagates, samples = plugged()
    missing = [
        f"{variable}=gobanfast"
        for variable, there in (("OTEL_PROPAGATORS", propagates), ("OTEL_TRACES_SAMPLER", samples))
        if not there
    ]
    return [
        Finding(
            "tracer-inside",
            "warning" if missing else "note",
            f"{', '.join(names)} makes the spans, so gobanfast opens no trace of its own; its propagator is "
            f"{'' if propagates else 'not '}in use, its sampler is {'' if samples else 'not '}in use",
            f"set {' and '.join(missing)}, or give set_global_textmap and TracerProvider those of "
            "gobanfast.telemetry.otel"
            if missing
            else "right as it is; take the other out to have traces without spans",
        )
    ]


def plugged() -> tuple[bool, bool]:
    """Whether OpenTelemetry's propagators, and the sampler of its provider, have ours among them."""
    propagate, trace = sys.modules.get("opentelemetry.propagate"), sys.modules.get("opentelemetry.trace")
    if propagate is None or trace is None:
        return False, False
    textmap = propagate.get_global_textmap()
    spoken = [type(each).__module__ for each in getattr(textmap, "_propagators", (textmap,))]
    sampler = getattr(trace.get_tracer_provider(), "sampler", None)
    return OTEL in spoken, sampler is not None and "Gobanfast" in sampler.get_description()


def ranked(found: list[Finding]) -> list[Finding]:
    order = ("problem", "warning", "note")
    return sorted(found, key=lambda finding: order.index(finding.severity))


class Watch:
    """Counts of what requests look like on arrival; fixed memory, not for concurrent use."""

    def __init__(
        self,
        trust: Trust,
        *,
        wsgi: bool = False,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self.trust, self.wsgi = trust, wsgi
        self.peers: Counter[str | None] = Counter()
        self.counts: Counter[str] = Counter()
        self.others: Counter[str] = Counter()
        self._wall, self._steady = wall, steady
        self._offset = wall() - steady()
        self.jumps = 0
        self.traced_around = False

    def see(self, peer: str | None, headers: Any, *, unshaken: bool = False) -> None:
        """Takes one request in: its peer as the server gives it (None: no address), header pairs, and whether it came
        over TLS of which nobody knows the handshake."""
        counts = self.counts
        counts["requests"] += 1
        self.traced_around = self.traced_around or current_span() is not None
        if unshaken and not self.trust.believes(peer):
            counts["handshakes unknown"] += 1
        offset = self._wall() - self._steady()
        if abs(offset - self._offset) > JUMP_SECONDS:
            self.jumps += 1
        self._offset = offset
        if peer in self.peers or len(self.peers) < PEERS_LIMIT:
            self.peers[peer] += 1
        else:
            counts["other peers"] += 1
        chains = {name: value for name, value in headers if name in CHAIN_FIELDS}
        for name, _ in headers:
            if name in OTHER_FIELDS:
                self.others[name.decode()] += 1
        if chains:
            counts["chains"] += 1
        if peer is not None and any(
            hop.address is not None and hop.address == peer
            for name, value in chains.items()
            for hop in (read_for if name == CHAIN_FIELDS[0] else read_forwarded)(value.decode("latin-1"))
        ):
            counts["rewritten"] += 1
        if peer is None:
            counts["no address"] += 1
        if self.trust.believes(peer):
            counts["believed"] += 1
            counts[self.trust.resolve(peer, headers, wsgi=self.wsgi).status] += 1
        elif chains:
            counts["chains from strangers"] += 1

    def findings(self) -> list[Finding]:
        """What the requests so far say, worst first."""
        counts, found = self.counts, []
        requests = counts["requests"]
        if counts["rewritten"]:
            found.append(
                Finding(
                    "server-rewrote-client",
                    "warning",
                    f"in {counts['rewritten']} of {requests} requests the peer stands in its own forwarding header: "
                    "the server has put the client in the proxy's place already",
                    "let one place decide: uvicorn --no-proxy-headers, no ProxyFix, and the proxies in trust:",
                )
            )
        if counts["no address"] and not self.trust.unix:
            found.append(
                Finding(
                    "unix-socket",
                    "problem" if counts["no address"] == requests else "warning",
                    f"{counts['no address']} of {requests} requests came from a peer without an address, such as a "
                    "UNIX socket",
                    "put unix in trust, if only your proxy can reach that socket",
                )
            )
        busiest, most = (self.peers.most_common(1) or [(None, 0)])[0]
        if requests >= MANY and most >= 0.99 * requests and busiest is not None and not self.trust.believes(busiest):
            found.append(
                Finding(
                    "one-peer",
                    "problem" if counts["chains from strangers"] else "warning",
                    f"{most} of {requests} requests come from {busiest}, which is not trusted: a ban of it bans all",
                    f"if {busiest} is your proxy, put it in trust:",
                )
            )
        elif requests >= FEW and counts["chains from strangers"] > 0.5 * requests:
            found.append(
                Finding(
                    "chains-from-strangers",
                    "warning",
                    f"{counts['chains from strangers']} of {requests} requests have a forwarding header from a peer "
                    "that is not trusted",
                    "if those peers are your proxies, put them in trust:",
                )
            )
        if counts["believed"] >= FEW and counts["trusted"] + counts["unknown"] > 0.5 * counts["believed"]:
            hint = ", ".join(name for name, _ in self.others.most_common(3))
            found.append(
                Finding(
                    "proxy-says-nothing",
                    "problem",
                    f"{counts['trusted'] + counts['unknown']} of {counts['believed']} requests of trusted proxies name "
                    "no client: they are decided as the proxy's own, and a ban would be one of the proxy",
                    "have the proxy write X-Forwarded-For, or say which header it writes"
                    + (f"; seen here: {hint}" if hint else ""),
                )
            )
        if counts["believed"] >= FEW and counts["missing"]:
            found.append(
                Finding(
                    "chain-missing",
                    "problem" if counts["missing"] > 0.5 * counts["believed"] else "warning",
                    f"{counts['missing']} of {counts['believed']} requests of trusted proxies have no header that says "
                    "the client: the policy `unparsable` answers them",
                    "have the proxy write X-Forwarded-For; for its own probes write an allow rule for their path, or "
                    "trust: {chain: optional}",
                )
            )
        bad = counts["malformed"] + counts["conflict"] + counts["too-many-hops"]
        if counts["believed"] >= FEW and bad > 0.01 * counts["believed"]:
            found.append(
                Finding(
                    "chains-malformed",
                    "warning",
                    f"{bad} of {counts['believed']} forwarding headers of trusted proxies cannot be read",
                    "have the proxy replace what clients send, and name in `chain` only headers that it writes",
                )
            )
        if counts["handshakes unknown"]:
            found.append(
                Finding(
                    "handshake-unknown",
                    "note",
                    f"{counts['handshakes unknown']} of {requests} requests came over TLS that ends here, unguarded: "
                    "for them rules see neither server name nor JA4",
                    "frontends.tls.guard(context, engine); uvloop and granian hide it: run uvicorn --loop asyncio",
                )
            )
        if self.jumps:
            found.append(
                Finding(
                    "clock-jumps",
                    "warning",
                    f"the clock jumped {self.jumps} times by more than {JUMP_SECONDS:.0f} s",
                    "slew it (chrony, systemd-timesyncd); bans of other hosts end at times of their clocks",
                )
            )
        return ranked(found)


class Report:
    """Findings about live requests, and the report of them for callers with the token."""

    wsgi = False

    def __init__(
        self,
        app: Any,
        engine: Engine,
        *,
        token: str,
        path: str = PATH,
        trust: Trust | Iterable[str] | None = None,
        asn_file: Path | None = None,
        challenge: bool = False,
        shared: bool = False,
        workers: int | None = None,
    ) -> None:
        if len(token) < TOKEN_BYTES:
            raise ValueError(f"the token of the doctor is shorter than {TOKEN_BYTES} characters")
        self.app, self.path = app, path
        self._from_rules = trust is None
        self.watch = Watch(trust_from_rules(engine.snapshot) if trust is None else as_trust(trust), wsgi=self.wsgi)
        self._engine = engine
        self._examine = partial(examine, engine, asn_file=asn_file, challenge=challenge, shared=shared, workers=workers)
        self._token = b"Bearer " + token.encode()

    def see(
        self, peer: str | None, path: str, headers: list[tuple[bytes, bytes]], unshaken: bool
    ) -> HttpResponse | None:
        """The answer to a request for the report; None for others, which are watched."""
        if self._from_rules:
            self.watch.trust = trust_from_rules(self._engine.snapshot)
        if path != self.path:
            self.watch.see(peer, headers, unshaken=unshaken)
            return None
        given = [value for name, value in headers if name == b"authorization"]
        if len(given) == 1 and hmac.compare_digest(given[0], self._token):
            return answer_json(200, self.report(peer))
        return plain(401, "a bearer token is needed")

    def report(self, peer: str | None) -> dict[str, Any]:
        """Findings and counts, and the peer that asks, as the server gives it."""
        found = ranked(
            self._examine(trust=self.watch.trust)
            + examine_cors(self.app, self._engine)
            + examine_tracers(self.app, around=self.watch.traced_around)
            + self.watch.findings()
        )
        return {
            "peer": peer,
            "requests": self.watch.counts["requests"],
            "counts": dict(self.watch.counts),
            "findings": [asdict(finding) for finding in found],
        }


class Doctor(Report):
    """ASGI middleware that watches every request and answers one path with what it found.

    Args:
        token: bearer token for the report, at least 16 characters.
        path: where the report is.
        trust: as given to the frontend; None: that of the rules.
        asn_file, challenge, shared, workers: what else is known of the configuration, as for `examine`.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Watches, and answers the one path."""
        answer = None
        if scope["type"] == "http":
            client = scope.get("client")
            peer = address_of(client and client[0])
            unshaken = scope.get("scheme") == "https" and CURRENT.get() is None
            answer = self.see(peer, scope["path"], list(scope["headers"]), unshaken)
        if answer is None:
            await self.app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
        await send({"type": "http.response.body", "body": answer.body})


class WsgiDoctor(Report):
    """The same for WSGI: outermost, before werkzeug's ProxyFix and the middleware."""

    wsgi = True

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Watches, and answers the one path."""
        headers = [
            (name[5:].replace("_", "-").lower().encode(), value.encode("latin-1"))
            for name, value in environ.items()
            if name.startswith("HTTP_")
        ]
        unshaken = environ["wsgi.url_scheme"] == "https" and handshake_of(socket_of(environ)) is None
        peer = address_of(environ.get("REMOTE_ADDR"))
        answer = self.see(peer, environ.get("PATH_INFO", ""), headers, unshaken)
        if answer is None:
            return self.app(environ, start_response)  # type: ignore[no-any-return]
        start_response(status_line(answer), native(answer.headers))
        return [answer.body]


def address_of(peer: str | None) -> str | None:
    """A peer that is an address; servers put other things there, too."""
    return peer if peer and peer[0] in ADDRESS_START else None


FORGED = "192.0.2.254"  # TEST-NET-1: no client ever has it


def consult(url: str, token: str, *, timeout: float = 10.0) -> list[Finding]:
    """Findings of the Doctor at `url`, and whether its server lets us name our own address. A URL without a path means
    the Doctor's usual one.

    Raises:
        OSError: nobody answers there, or not with a report.
    """
    url = report_url(url)
    report = fetch(url, token, timeout, {})
    forged = fetch(url, token, timeout, {"X-Forwarded-For": FORGED, "Forwarded": f"for={FORGED}"})
    found = [Finding(**finding) for finding in report["findings"]]
    if forged["peer"] == FORGED:
        found.append(
            Finding(
                "server-believes-us",
                "problem",
                f"the server took the header of this command for the truth: the client became {FORGED}",
                "run uvicorn with --no-proxy-headers, take ProxyFix out, and name the proxies in trust:",
            )
        )
    return ranked(found)


def consulted(url: str, token: str, *, timeout: float = 10.0) -> dict[str, int]:
    """What the Doctor at `url` has counted: "requests", and "believed", those that came from trusted proxies. Raises
    OSError as `consult` does."""
    counts = fetch(report_url(url), token, timeout, {})["counts"]
    return {str(name): int(count) for name, count in counts.items()}


def report_url(url: str) -> str:
    """`url`, with the Doctor's usual path where it has none."""
    scheme, separator, rest = url.partition("://")
    host, _, path = rest.partition("/")
    return f"{scheme}://{host}{PATH}" if separator and not path and "?" not in host else url


def fetch(url: str, token: str, timeout: float, headers: Mapping[str, str]) -> dict[str, Any]:
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    if not url.startswith(("http://", "https://")):
        raise OSError(f"{url} is not a http:// or https:// URL")
    request = Request(url, headers={"Authorization": f"Bearer {token}", **headers})  # noqa: S310 - checked above
    try:
        with urlopen(request, timeout=timeout) as answered:  # noqa: S310
            report = json.load(answered)
    except HTTPError as error:
        if error.code == 404:
            raise OSError(f"{url} has no Doctor; wrap the application in gobanfast.frontends.doctor.Doctor") from None
        raise
    if not isinstance(report, dict) or "findings" not in report:
        raise OSError(f"{url} does not answer with a report")
    return report
