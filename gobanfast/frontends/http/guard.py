"""What the HTTP frontends share: their options, which paths they leave alone, and what becomes of a decision."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, cast

from gobanfast._core.enums import LIMITS
from gobanfast.frontends.challenge import Challenge
from gobanfast.frontends.http.refusal import Answer, Kind, Refused, refuse
from gobanfast.frontends.trust import Origin, Trust, as_trust, trust_from_rules
from gobanfast.wire.hosts import agreement
from gobanfast.wire.target import checked_mount, is_odd, read_target, readings

if TYPE_CHECKING:
    from gobanfast import Decision
    from gobanfast.engine import Engine
    from gobanfast.frontends.tls import Handshake
    from gobanfast.rules import Ruleset
    from gobanfast.telemetry.log import DecisionLog
    from gobanfast.telemetry.metrics import Metrics

logger = logging.getLogger("gobanfast.http")

Mode = Literal["enforce", "observe", "off"]
Outcome = Literal["challenged", "solved", "passed", "refused"]
SHOWN = 5  # rules that a warning names
MODES: tuple[Mode, ...] = ("enforce", "observe", "off")
Extra = list[tuple[bytes, bytes]]

ADDRESS_START = frozenset("0123456789abcdefABCDEF:")


class Gate:
    """Options of an HTTP frontend, checked, and the slow half of its work.

    Args:
        engine: decides.
        trust: whose forwarding headers are believed, a Trust or the prefixes of one; None: those whom the rules name
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
        log: where decisions are written, with the request id: a DecisionLog or the URI of one.
        metrics: counts what the engine does not: bans by AS, matches of shadow and log rules.
        on_decision: called with the decision and the request id before the application is.
        on_error: what an exception in one of those does: "refuse" (503) or "allow". It is always logged.
    Raises:
        ValueError: an argument that is none of these.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        trust: Trust | Iterable[str] | None = None,
        routes: Mapping[str, Mode] | None = None,
        challenge: Challenge | Literal["refuse", "allow"] = "refuse",
        names: Iterable[str] | None = None,
        mount: str | None = None,
        contact: str | None = None,
        show_reason: bool = False,
        log: DecisionLog | str | None = None,
        metrics: Metrics | None = None,
        on_decision: Callable[[Decision, str], object] | None = None,
        on_error: Literal["refuse", "allow"] = "refuse",
    ) -> None:
        if isinstance(engine, (str, PathLike)):
            raise ValueError(f"engine={engine!r} is not an Engine; write Engine.load({engine!r})")
        if isinstance(names, str):
            raise ValueError(f"names={names!r} is one text; write a list of names")
        if not isinstance(challenge, Challenge) and challenge not in {"refuse", "allow"}:
            raise ValueError(f"challenge={challenge!r} is not a Challenge, 'refuse' or 'allow'")
        if on_error not in {"refuse", "allow"}:
            raise ValueError(f"on_error={on_error!r} is not one of refuse, allow")
        self.mount = "" if mount is None else checked_mount(mount)
        for path, mode in (routes or {}).items():
            if not path.startswith("/") or mode not in MODES:
                raise ValueError(f"route {path!r}: {mode!r} is not a path from / on, and one of {', '.join(MODES)}")
        if isinstance(log, str):
            from gobanfast.telemetry.log import DecisionLog

            log = DecisionLog(log)
        self.engine, self.challenge = engine, challenge
        self.own_trust = None if trust is None else as_trust(trust)  # None: that of the rules in force
        self.names = None if names is None else tuple(names)
        self.contact, self.show_reason = contact, show_reason
        self.log, self.metrics, self.on_decision, self.on_error = log, metrics, on_decision, on_error
        self.told = log is not None or metrics is not None or on_decision is not None
        challenging = challengers(engine.ruleset) if challenge == "refuse" else []
        if challenging:
            logger.warning(
                "%s challenge, and no challenge is configured, so whom they challenge is refused; "
                "write challenge=Challenge([key])",
                ", ".join(challenging[:SHOWN]),
            )
        self.routes = tuple(sorted((routes or {}).items(), key=lambda route: -len(route[0])))

    @property
    def trust(self) -> Trust:
        """The Trust given, or that of the rules in force."""
        return trust_from_rules(self.engine.snapshot) if self.own_trust is None else self.own_trust

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

    def tell(self, decision: Decision, request_id: str, outcome: Outcome | None = None) -> None:
        """Passes a decision, and what became of a challenge, to the log, the metrics and the callback (`told`: there is
        one of them). For decisions other than "allow" `settle` does."""
        if self.log is not None and outcome is not None:
            self.log.record(decision, request_id=request_id, outcome=outcome)
        elif self.log is not None:
            self.log.record(decision, request_id=request_id)
        if self.metrics is not None:
            self.metrics.record(decision)
        if self.on_decision is not None:
            self.on_decision(decision, request_id)

    def settle(
        self,
        decision: Decision,
        *,
        request_id: str,
        method: str,
        secure: bool,
        accept: str,
        cookies: str,
        mode: Mode = "enforce",
    ) -> tuple[Answer | None, Extra]:
        """(answer to refuse with, or None to let in; headers to add to the application's response) for a decision
        other than "allow", which is told to whom it may concern."""
        outcome: Outcome | None = None
        answer: Answer | None = None
        extra: Extra = []
        if decision.action == "ban":
            answer = self.refusal("banned", request_id, accept, decision)
        elif self.challenge != "allow":
            outcome, extra = self._judge(decision, secure, cookies)
            if outcome is None and self.gives_task(method, accept):
                outcome, answer = "challenged", self.task(decision.address, decision.fingerprint, request_id)
            elif outcome is None:
                outcome, answer = "refused", self.refusal("challenge", request_id, accept, decision)
        if self.told:
            self.tell(decision, request_id, None if mode == "observe" else outcome)
        return answer, extra

    def _judge(self, decision: Decision, secure: bool, cookies: str) -> tuple[Outcome | None, Extra]:
        """(what a client shows that is to be challenged, None: nothing; headers to add)."""
        if not isinstance(self.challenge, Challenge):
            return None, []
        shown = self.challenge.check(cookies, decision.address, decision.fingerprint)
        if shown != "solved":
            return shown, []
        self.engine.vouch(decision)  # what was only new to the score becomes usual
        return shown, self.challenge.cookies(decision.address, decision.fingerprint, secure=secure)

    def gives_task(self, method: str, accept: str) -> bool:
        """Whether a challenged client that asks so gets a task: a browser, where a Challenge is configured."""
        return isinstance(self.challenge, Challenge) and method == "GET" and "text/html" in accept

    def task(self, address: str | None, fingerprint: str | None, request_id: str) -> Answer:
        """The page with a task for this client; there is a Challenge."""
        return cast("Challenge", self.challenge).answer(
            address, fingerprint, request_id=request_id, contact=self.contact
        )

    def misdirected(self, handshake: Handshake, host: str, request_id: str, accept: str) -> Answer | None:
        """The answer to a request for a host that this TLS connection was not opened for; None if it may go on."""
        if self.names is None or agreement(handshake.sni, host, self.names) != "differ":
            return None
        return self.refusal("misdirected", request_id, accept)

    def refusal(self, kind: Kind, request_id: str, accept: str, decision: Decision | Refused | None = None) -> Answer:
        """The answer of this kind, as the options have it."""
        return refuse(
            kind,
            request_id=request_id,
            accept=accept,
            decision=decision,
            contact=self.contact,
            show_reason=self.show_reason,
            checks=isinstance(self.challenge, Challenge),
        )

    def failed(self, error: Exception, request_id: str, accept: str) -> Answer | None:
        """Logs what went wrong; the answer to refuse with, or None to let in."""
        logger.error("request %s: deciding failed, on_error=%s", request_id, self.on_error, exc_info=error)
        if self.on_error == "allow":
            return None
        return self.refusal("unavailable", request_id, accept)


def challengers(ruleset: Ruleset) -> list[str]:
    """What challenges clients by these rules: rules, trackers, the score."""
    found = [f"rule {rule.id}" for rule in ruleset.rules if rule.action == "challenge" and rule.mode == "enforce"]
    trackers, score = ruleset.settings.trackers, ruleset.settings.score
    for name in LIMITS:
        limit = getattr(trackers, name, None)
        if limit is not None and limit.action == "challenge":
            found.append(f"tracker {name}")
    return found if score is None or score.mode != "enforce" else [*found, "the score"]


def under(mount: str | None) -> dict[str, Any]:
    """The argument of `decide` for a mount."""
    return {"mount": mount} if mount else {}


def is_secure(scheme: str, origin: Origin | None) -> bool:
    """Whether the client came over TLS: a trusted peer knows better than the socket."""
    return (origin.scheme if origin is not None and origin.scheme is not None else scheme) in {"https", "wss"}
