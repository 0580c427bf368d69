"""Options of the HTTP frontends, routes, and the responses to decisions other than "allow"."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, Self, cast

from gobanfast._core.enums import LIMITS
from gobanfast._core.exchange import Exchange, GuardCore
from gobanfast.frontends.challenge import Challenge
from gobanfast.frontends.http.cors import preflight_response, refusal, stream_end
from gobanfast.frontends.http.rate_limits import WHEN, When, exposed, limit_fields, wait_of
from gobanfast.frontends.http.refusal import HttpResponse, Kind, Refused, denial_response
from gobanfast.frontends.trust import REQUEST_IDS, Trust, as_trust, trust_from_rules
from gobanfast.wire.hosts import agreement
from gobanfast.wire.target import checked_mount, is_odd, read_target, readings

if TYPE_CHECKING:
    from gobanfast import Decision
    from gobanfast.engine import Engine
    from gobanfast.rules import Ruleset
    from gobanfast.telemetry.log import DecisionLog
    from gobanfast.telemetry.metrics import Metrics

logger = logging.getLogger("gobanfast.http")

Mode = Literal["enforce", "observe", "off"]
Outcome = Literal["challenged", "solved", "passed", "refused"]
SHOWN = 5  # rules that a warning names
MODES: tuple[Mode, ...] = ("enforce", "observe", "off")

ADDRESS_START = frozenset("0123456789abcdefABCDEF:")


class HttpGuard(GuardCore):
    """Options of an HTTP frontend, checked, and what becomes of decisions; an Exchange asks it.

    Args:
        engine: decides.
        trust: whose forwarding headers are used, a Trust or the prefixes of one; None: those whom the rules name
            (`trust:`), also after a swap.
        routes: path -> "enforce" (as without it), "observe" (decide, note, never refuse) or "off" (do not even ask). A
            path that ends in a slash stands for all below it; the longest one that fits counts. A path that has several
            readings (docs/rules.md) is never an exception.
        mount: prefix under which clients reach the application; None: what the server says (root_path, SCRIPT_NAME),
            or the application (`root_path` of FastAPI). Rules and routes see paths with it and without.
        challenge: what becomes of clients that are to be challenged: a Challenge checks browsers and refuses programs;
            "refuse" refuses all; "allow" leaves them to the application, which finds the decision in its scope.
        names: DNS names of the certificate, where the client's TLS ends here: a request for a host that neither the SNI
            nor these names cover is answered 421, which makes an honest client open another connection; None: any
            host.
        contact: whom refused people may ask, a mail address or URL.
        show_reason: whether they are told what decided and the rule's reason, which are written for operators.
        rate_limit_headers: on which responses clients are told where they stand with the limits that are about a
            request (RateLimit, RateLimit-Policy): "refused" (429), "all" or "never".
        old_rate_limit_headers: X-RateLimit-Limit, -Remaining and -Reset beside them.
        log: where decisions are written, with the request id: a DecisionLog or the URI of one.
        metrics: counts what the engine does not: bans by AS, matches of shadow and log rules.
        on_decision: called with the decision and the request id before the application is; one that has a method
            `on_exchange` gets the Exchange there instead. One that has a method `finish` gets it when the response is
            over.
        on_error: what an exception in one of those does: "refuse" (503) or "allow". It is always logged.
    Raises:
        ValueError: an argument that is none of these.
    """

    challenge: Challenge | Literal["refuse", "allow"]
    mount: str
    routes: tuple[tuple[str, Mode], ...]
    contact: str | None
    show_reason: bool
    log: DecisionLog | None
    metrics: Metrics | None
    on_decision: Callable[[Decision, str], object] | None
    on_error: Literal["refuse", "allow"]
    rate_limit_headers: When
    old_rate_limit_headers: bool
    _on_exchange: Callable[[Exchange], object] | None

    def __new__(
        cls,
        engine: Engine,
        *,
        trust: Trust | Iterable[str] | None = None,
        routes: Mapping[str, Mode] | None = None,
        challenge: Challenge | Literal["refuse", "allow"] = "refuse",
        names: Iterable[str] | None = None,
        mount: str | None = None,
        contact: str | None = None,
        show_reason: bool = False,
        rate_limit_headers: When = "refused",
        old_rate_limit_headers: bool = False,
        log: DecisionLog | str | None = None,
        metrics: Metrics | None = None,
        on_decision: Callable[[Decision, str], object] | None = None,
        on_error: Literal["refuse", "allow"] = "refuse",
    ) -> Self:
        if isinstance(engine, (str, PathLike)):
            raise ValueError(f"engine={engine!r} is not an Engine; write Engine.load({engine!r})")
        if isinstance(names, str):
            raise ValueError(f"names={names!r} is one text; write a list of names")
        if not isinstance(challenge, Challenge) and challenge not in ("refuse", "allow"):
            given = repr(challenge) if isinstance(challenge, str) else f"of type {type(challenge).__name__}"
            raise ValueError(f"challenge {given} is not a Challenge, 'refuse' or 'allow'; write Challenge([key])")
        if on_error not in ("refuse", "allow"):
            raise ValueError(f"on_error={on_error!r} is not one of refuse, allow")
        if rate_limit_headers not in WHEN:
            raise ValueError(f"rate_limit_headers={rate_limit_headers!r} is not one of {', '.join(WHEN)}")
        mount = "" if mount is None else checked_mount(mount)
        for path, mode in (routes or {}).items():
            if not path.startswith("/") or mode not in MODES:
                raise ValueError(f"route {path!r}: {mode!r} is not a path from / on, and one of {', '.join(MODES)}")
        if isinstance(log, str):
            from gobanfast.telemetry.log import DecisionLog

            log = DecisionLog(log)
        observers = [observer for observer in (log, metrics, on_decision) if observer is not None]
        self = super().__new__(
            cls,
            engine,
            ids=REQUEST_IDS,
            own_trust=None if trust is None else as_trust(trust),
            names=None if names is None else tuple(names),
            has_observers=bool(observers),
            finishers=tuple(observer.finish for observer in observers if hasattr(observer, "finish")),
            logs="none" if log is None else "all" if getattr(log, "samples_allow", True) else "some",
            binds=isinstance(challenge, Challenge) and challenge.bind != "client",
            tells_limits=rate_limit_headers == "all",
            skips=log is not None and len(observers) == 1 and not getattr(log, "samples_allow", True),
        )
        self.challenge, self.mount = challenge, mount
        self.contact, self.show_reason = contact, show_reason
        self.log, self.metrics, self.on_decision, self.on_error = log, metrics, on_decision, on_error
        self.rate_limit_headers, self.old_rate_limit_headers = rate_limit_headers, old_rate_limit_headers
        self._on_exchange = getattr(on_decision, "on_exchange", None)
        attach = getattr(metrics, "attach", None)
        if attach is not None:
            attach(self)
        challenging = challengers(engine.ruleset) if challenge == "refuse" else []
        if challenging:
            logger.warning(
                "no challenge is configured, so these refuse whom they challenge: %s; write challenge=Challenge([key])",
                ", ".join(challenging[:SHOWN]),
            )
        self.routes = tuple(sorted((routes or {}).items(), key=lambda route: -len(route[0])))
        return self

    @property
    def trust(self) -> Trust:
        """The Trust given, or that of the rules in force."""
        return self.trust_of(self.engine.snapshot) if self.own_trust is None else self.own_trust

    def trust_of(self, snapshot: Any) -> Trust:
        """The Trust that the rules of a snapshot ask for."""
        return trust_from_rules(snapshot)

    def mode(self, target: str, mount: str = "") -> Mode:
        """What `routes` say of a path as it was sent, with the mount or without it."""
        if not mount and not is_odd(target):
            return self._route(target)
        found = readings(read_target(target).encode("utf-8", "replace"), mount.encode("utf-8", "replace"))
        if found is None or len(found.full) > 1 or len(found.inner) > 1:
            return "enforce"
        return max(map(self._route, (found.full[0], found.inner[0])), key=MODES.index)

    def _route(self, path: str) -> Mode:
        for route, mode in self.routes:
            if path.startswith(route) if route.endswith("/") else path == route:
                return mode
        return "enforce"

    def notify(self, exchange: Exchange, outcome: Outcome | None = None) -> None:
        """Pass a decision, and what became of a challenge, to the log, the metrics and the callback, where configured
        (`has_observers`)."""
        decision, request_id = exchange.decision, exchange.request_id
        if self.log is not None and outcome is not None:
            self.log.observe(decision, request_id=request_id, outcome=outcome)
        elif self.log is not None:
            self.log.observe(decision, request_id=request_id)
        if self.metrics is not None:
            self.metrics.observe(decision)
        if self._on_exchange is not None:
            self._on_exchange(exchange)
        elif self.on_decision is not None:
            self.on_decision(decision, request_id)

    def undecided(self, exchange: Exchange, error: Exception) -> str | None:
        """Logs what went wrong when a stream was decided again; why it ends, None: it goes on, by `on_error`."""
        logger.error(
            "stream %s: deciding again failed, on_error=%s", exchange.request_id, self.on_error, exc_info=error
        )
        return None if self.on_error == "allow" else "refused"

    def lease_lost(self, exchange: Exchange) -> None:
        """Tells the log that a stream ends."""
        logger.info("stream %s ends: its request is %s now", exchange.request_id, exchange.lost)

    def control_rates(self) -> None:
        """Starts what controls the rate classes, with the first request that has one."""
        from gobanfast.telemetry.controllers import control_rates

        control_rates(self.engine)

    def tell_foreign(self, path: str) -> None:
        """Warns of the first `access-control-*` header of the application that was replaced."""
        logger.warning(
            "the application writes access-control-* headers where share rules decide (first at %s), and they are "
            "replaced: take its CORS code or middleware out",
            path,
        )

    def respond(self, exchange: Exchange) -> HttpResponse | None:
        """The response to a decision other than "allow", None to let in; observers are notified."""
        decision = exchange.decision
        outcome: Outcome | None = None
        response: HttpResponse | None = None
        if decision.action == "ban":
            response = stream_end(exchange) or self.denial(exchange, "banned")
        elif decision.action == "limit":
            response = self.limited(exchange)
        elif self.challenge != "allow":
            outcome = self._judge(exchange)
            if outcome is not None:
                exchange.judged("passed")
            if outcome is None and self.gives_task(exchange):
                outcome = "challenged"
                response = self.task(decision.address, self._fingerprint(decision), exchange.request_id)
            elif outcome is None:
                limited = decision.cause == "tracker" and isinstance(self.challenge, Challenge)
                response = self.limited(exchange) if limited else self.denial(exchange, "challenge")
                outcome = "refused"
        if self.has_observers:
            self.notify(exchange, None if exchange.mode == "observe" else outcome)
        return response

    def limited(self, exchange: Exchange) -> HttpResponse:
        """The 429 for a client that is over a limit."""
        decision = exchange.decision
        wait = wait_of(decision, self.engine.snapshot.settings)
        response = self.denial_of("limited", exchange.request_id, exchange.accept, decision, wait=wait)
        if self.rate_limit_headers != "never" and decision.limit is not None:
            response.headers.extend(limit_fields(decision.limit, old=self.old_rate_limit_headers))
        return response

    def limit_fields(self, decision: Decision) -> list[tuple[bytes, bytes]]:
        """What a response that is let in says of the limits that are about it."""
        return [] if decision.limit is None else limit_fields(decision.limit, old=self.old_rate_limit_headers)

    def expose_limits(self, fields: tuple[tuple[bytes, bytes], ...]) -> tuple[tuple[bytes, bytes], ...]:
        """The fields of a grant, of a response that says something of limits."""
        return exposed(fields, self.old_rate_limit_headers)

    def share(self, exchange: Exchange) -> HttpResponse | None:
        """The response for a page of another origin that is not let in, or to its preflight; observers are notified."""
        decision = exchange.decision
        if decision.action == "ban":
            return self.respond(exchange)
        response = preflight_response(exchange) if decision.preflight and decision.share != "refused" else None
        if response is None:
            exchange.judged("refused")
        if self.has_observers:
            self.notify(exchange, "refused" if response is None else None)
        if response is None:
            response = self.denial(exchange, refusal(decision), told=False)
        return response

    def withheld(self, exchange: Exchange) -> HttpResponse | None:
        """The response to an EventSource of a page that may not read the stream; None: let the application answer."""
        return stream_end(exchange)

    def _judge(self, exchange: Exchange) -> Outcome | None:
        """What a client shows that is to be challenged, None: nothing; a solution gains it a pass."""
        if not isinstance(self.challenge, Challenge):
            return None
        decision = exchange.decision
        address, fingerprint = decision.address, self._fingerprint(decision)
        if decision.cause == "tracker":
            shown: Outcome | None = "solved" if self.challenge.spend(exchange.cookies, address, fingerprint) else None
            if shown is not None:
                self.engine.pardon(decision)
        else:
            shown = self.challenge.check(exchange.cookies, address, fingerprint)
        if shown == "solved":
            self.engine.vouch(decision)  # what was only new to the score becomes usual
            exchange.set_cookies(self.challenge.cookies(address, fingerprint, secure=exchange.is_secure))
        return shown

    def _fingerprint(self, decision: Decision) -> str | None:
        """The fingerprint, where the challenge is bound to it."""
        bound = isinstance(self.challenge, Challenge) and self.challenge.bind != "client"
        return decision.fingerprint if bound else None

    def gives_task(self, exchange: Exchange) -> bool:
        """Whether a challenged client that asks so gets a task: a browser, where a Challenge is configured."""
        return (
            isinstance(self.challenge, Challenge)
            and exchange.method == "GET"
            and not exchange.is_websocket
            and "text/html" in exchange.accept
        )

    def task(self, address: str | None, fingerprint: str | None, request_id: str) -> HttpResponse:
        """The page with a task for this client; there is a Challenge."""
        return cast("Challenge", self.challenge).response(
            address, fingerprint, request_id=request_id, contact=self.contact
        )

    def misdirected(self, exchange: Exchange) -> HttpResponse | None:
        """The response to a request for a host that this TLS connection was not opened for; None if it may go on."""
        handshake = exchange.handshake
        if handshake is None or self.names is None:
            return None
        if agreement(handshake.sni, exchange.host, self.names) != "differ":
            return None
        exchange.set_cookies(None)
        exchange.judged("refused")
        return self.denial(exchange, "misdirected", told=False)

    def denial(self, exchange: Exchange, kind: Kind, *, told: bool = True) -> HttpResponse:
        """The response of this kind, as the options have it.

        Args:
            told: whether it says what the decision was.
        """
        decision = exchange.decision if told else None
        return self.denial_of(kind, exchange.request_id, exchange.accept, decision)

    def denial_of(
        self,
        kind: Kind,
        request_id: str,
        accept: str,
        decision: Decision | Refused | None = None,
        *,
        wait: int | None = None,
    ) -> HttpResponse:
        """The same of a decision that may have been made elsewhere."""
        return denial_response(
            kind,
            request_id=request_id,
            accept=accept,
            decision=decision,
            contact=self.contact,
            show_reason=self.show_reason,
            checks=isinstance(self.challenge, Challenge),
            wait=wait,
        )

    def failed(self, exchange: Exchange, error: Exception) -> HttpResponse | None:
        """Logs what went wrong; the response to refuse with, or None to let in."""
        logger.error("request %s: deciding failed, on_error=%s", exchange.request_id, self.on_error, exc_info=error)
        if self.on_error == "allow":
            return None
        return self.denial(exchange, "unavailable", told=False)

    def failure(self) -> HttpResponse:
        """What a server says when the application raises."""
        body = b"Internal Server Error"
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))]
        return HttpResponse(500, headers, body)

    def unfinished(self, exchange: Exchange, error: Exception) -> None:
        """Logs what an observer's `finish` raised."""
        logger.error("request %s: noting its end failed", exchange.request_id, exc_info=error)


def challengers(ruleset: Ruleset) -> list[str]:
    """What challenges clients by these rules: rules, trackers, the score."""
    found = [f"rule {rule.id}" for rule in ruleset.rules if rule.action == "challenge" and rule.mode == "enforce"]
    trackers, score = ruleset.settings.trackers, ruleset.settings.score
    for name in LIMITS:
        limit = getattr(trackers, name, None)
        if limit is not None and limit.action == "challenge":
            found.append(f"tracker {name}")
    return found if score is None or score.mode != "enforce" else [*found, "the score"]
