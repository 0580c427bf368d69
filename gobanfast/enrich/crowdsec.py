"""CrowdSec bouncer: follows the decision stream of a Local API (LAPI), and bans by it beside decisions.

Decisions are kept by id, so that several about one address do not undo each other: the ban of a key ends with its last
decision. Each ends by its own duration too, whatever becomes of the LAPI. A LAPI remembers for each key how far it was
read, so one process of a host follows the stream, and the store tells the others; a lock, which its end frees, says
which.
"""

from __future__ import annotations

import atexit
import fcntl
import hashlib
import json
import logging
import os
import platform
import re
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlencode, urlsplit

from gobanfast._errors import GobanError
from gobanfast._fork import watch_forks
from gobanfast.bans import Ban, ban_key, too_wide, without_host_bits
from gobanfast.enrich.download import DownloadError, Limits, download
from gobanfast.stores.breaker import Breaker

if TYPE_CHECKING:
    from gobanfast.engine import Engine

log = logging.getLogger("gobanfast.crowdsec")

RULE = "crowdsec"  # `rule` of the bans made by decisions
OF_LABEL = "crowdsec: "  # the beginning of the reason of labels
WORDS = ("captcha", "throttle")  # types of decisions that are labels
ORIGIN = "gobanfast"  # origin of the decisions that we push
SCOPES = "ip,range,as,country"
STREAM_BYTES = 512 << 20
START_SECONDS, SECONDS = 60.0, 10.0  # for the first answer, and for each after it
METRICS_EVERY = 900.0
ALERTS_EVERY = 2.0
ALERTS = 500  # in one request
LOST_SHOWN = 60.0  # seconds between lines in the log that the LAPI does not answer
VERSION = "v0.1.0"
AGENT = f"gobanfast/{VERSION}"  # of this form, or a LAPI refuses a machine
YIELD = 256  # decisions between chances for other threads

_BLANKS = re.compile(r"[ \t\r\n]*")

_STEP = re.compile(r"([0-9.]+)(ns|us|\u00b5s|ms|h|m|s|d)")
_UNITS = {"ns": 1e-9, "us": 1e-6, "\u00b5s": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PLAIN = re.compile(r"(-?)(?:([0-9]+)h)?(?:([0-9]+)m)?([0-9]+(?:\.[0-9]+)?)s")

OnOutage = Literal["local", "open", "closed"]


def seconds_of(duration: str) -> float:
    """Seconds of a duration as Go writes it ("3h59m59.5s", "-1m0s"). ValueError for another text."""
    if found := _PLAIN.fullmatch(duration):
        sign, hours, minutes, seconds = found.groups()
        total = float(seconds) + 60.0 * int(minutes or 0) + 3600.0 * int(hours or 0)
        return -total if sign else total
    text = duration.removeprefix("-")
    steps = _STEP.findall(text)
    if not steps or "".join(number + unit for number, unit in steps) != text:
        raise ValueError(f"duration {duration[:80]!r} is not valid; expected for example 3h59m59.5s")
    total = sum(float(number) * _UNITS[unit] for number, unit in steps)
    return -total if duration.startswith("-") else total


class CrowdSec:
    """Follows the decisions of a LAPI for one engine; `start` begins.

        CrowdSec(engine, key=os.environ["CROWDSEC_KEY"]).start()

    Args:
        engine: where bans are made. Their rule is "crowdsec", their reason the scenario.
        key: of `cscli bouncers add`.
        url: of the LAPI, which may be this host or another, http: or https:.
        every: seconds between looks at the stream.
        captcha: what a captcha decision is: a "label" `captcha` on the key, which a rule `{when: {label: captcha},
            action: challenge}` answers, a "ban", or nothing: "ignore". A ban of the same key comes first. A throttle
            decision is the label `throttle`.
        on_outage: as for `gobanfast.stores.attach`. "local": bans known here go on until they end; "open": bans of
            decisions are lifted until the LAPI answers; "closed": everyone is banned whom no rule allows.
        machine, password: of `cscli machines add`; with them our own bans are pushed as alerts.
        metrics: whether usage is told to the LAPI (1.6.3 or later; others are told once, and not again).
    Threads: one that looks, and one that pushes alerts. A forked child starts its own.
    """

    def __init__(
        self, engine: Engine, *, key: str, url: str = "http://127.0.0.1:8080", every: float = 5.0,
        captcha: Literal["label", "ban", "ignore"] = "label", on_outage: OnOutage = "local", machine: str | None = None,
        password: str | None = None, metrics: bool = True,
    ) -> None:  # fmt: skip
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username:
            raise ValueError(
                f"url {url.rpartition('@')[2]!r} is not the address of a LAPI; write http://127.0.0.1:8080"
            )
        if not key or not key.isascii() or not key.isprintable():
            raise ValueError("key is not that of a bouncer; cscli bouncers add gobanfast prints one")
        if on_outage not in {"local", "open", "closed"}:
            raise ValueError(f"on_outage={on_outage!r} is not one of local, open, closed")
        if captcha not in {"label", "ban", "ignore"}:
            raise ValueError(f"captcha={captcha!r} is not one of label, ban, ignore")
        if (machine is None) != (password is None):
            raise ValueError("machine and password go together; cscli machines add prints both")
        self._engine, self._key, self._url = engine, key, url.rstrip("/")
        self._every, self._captcha, self.on_outage = every, captcha, on_outage
        self._machine, self._password, self._metrics = machine, password, metrics
        self._began = time.time()
        self._fresh()
        watch_forks(self)

    def _fresh(self) -> None:
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._leads = -1  # descriptor of the lock
        self._lock = threading.Lock()  # over all below
        self.breaker = Breaker()
        self.outage = False
        self._decisions: dict[int, tuple[str, float, str]] = {}  # by id: key, end in Unix seconds, origin
        self._of_key: dict[str, tuple[int, ...]] = {}
        self._displaced: dict[str, Ban] = {}  # of another maker, that a decision outlasts
        self._started_stream = False
        self._told: set[str] = set()
        self._logged = 0.0
        self._token, self._token_ends = "", 0.0
        self._cursor = 0  # of the ban table's feed, from which on bans are pushed
        self.counts: Counter[str] = Counter()
        self._reported: Counter[str] = Counter()
        self._reported_at = time.time()

    # ---- life

    def start(self) -> None:
        """Starts the threads of this process, unless they run."""
        if self._threads or self._stop.is_set():
            return
        _, self._cursor = self._engine.ban_table.changes()
        loops = [self._look] if self._machine is None else [self._look, self._push]
        self._threads = [threading.Thread(target=loop, name="gobanfast-crowdsec", daemon=True) for loop in loops]
        atexit.register(self.close)
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Ends the threads. Bans stay until they end."""
        self._stop.set()
        threads, self._threads = self._threads, []
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(2.0)
        self._release()
        if self.outage and self.on_outage == "closed":
            self._engine.ban_table.closed = False
        atexit.unregister(self.close)

    def before_fork(self) -> None:
        """See `ForkAware`."""
        self._lock.acquire()

    def after_fork(self, child: bool) -> None:
        """See `ForkAware`."""
        if not child:
            self._lock.release()
            return
        running, descriptor = bool(self._threads), self._leads
        if descriptor >= 0:
            os.close(descriptor)  # the parent has it
        self._fresh()
        if running:
            self.start()

    def health(self) -> dict[str, Any]:
        """State as JSON values."""
        with self._lock:
            return {
                "url": self._url, "leads": self._leads >= 0, "outage": self.outage, "error": self.breaker.error,
                "decisions": len(self._decisions), "keys": len(self._of_key), **self.counts,
            }  # fmt: skip

    # ---- the stream

    def _look(self) -> None:
        while not self._stop.is_set():
            try:
                if self._may_lead():
                    self.look()
                self._tell_usage()
            except Exception:
                log.exception("crowdsec: following the stream failed")
            self._stop.wait(max(self._every, self.breaker.wait()))

    def look(self) -> bool:
        """Whether the LAPI answered: asks once for what is new, and puts it in force."""
        if self.breaker.wait() > 0:
            return False
        start = not self._started_stream
        query = urlencode({"startup": str(start).lower(), "scopes": SCOPES, "dedup": "false"})
        begun = time.monotonic()
        try:
            limits = Limits(START_SECONDS if start else SECONDS, STREAM_BYTES, private=True, insecure=True)
            answer = download(f"{self._url}/v1/decisions/stream?{query}", limits, headers=self._headers())
            took = 0.0 if start else time.monotonic() - begun
            text = answer.body.decode("utf-8", "replace")
            del answer  # a start is long
            with self._lock:
                self._apply(elements(text), start=start)
                self._started_stream = True
        except (DownloadError, ValueError, RecursionError) as error:
            self._lost(str(error))
            return False
        self.breaker.success(took)
        self._back()
        return True

    def _headers(self) -> dict[str, str]:
        return {"x-api-key": self._key, "user-agent": AGENT, "accept": "application/json"}

    def _apply(self, changes: Iterable[tuple[str, Any]], *, start: bool) -> None:
        now = time.time()
        before = self._of_key if start else {}
        if start:
            self._decisions, self._of_key = {}, {}
        ours = None
        if start:  # those of an earlier run, or of another worker that followed before
            stored = chain(self._engine.ban_table.bans(), self._engine.label_table.stored())
            ours = {ban.key for ban in stored if _is_ours(ban)} | set(before)
        touched: dict[str, None] = {}
        reasons: dict[str, str] = {}
        for count, (change, decision) in enumerate(changes):
            if change == "new":
                self._add(decision, now, touched, reasons)
            elif change == "deleted":
                self._delete(decision, touched)
            if count % YIELD == 0:
                time.sleep(0)  # requests of other threads go first
        for count, key in enumerate([*touched, *((ours or set()) - touched.keys())]):
            self._settle(key, now, reasons.get(key, RULE))
            if count % YIELD == 0:
                time.sleep(0)

    def _add(self, decision: Any, now: float, touched: dict[str, None], reasons: dict[str, str]) -> None:
        try:
            number, kind, text = int(decision["id"]), str(decision["type"]).lower(), str(decision["value"])
            if decision.get("simulated"):
                self.counts["simulated"] += 1
                return
            if kind == "captcha":
                kind = {"label": kind, "ban": "ban", "ignore": "ignored captcha"}[self._captcha]
            if kind != "ban" and kind not in WORDS:
                self._pass_over(f"type {kind[:40]}")
                return
            seconds = seconds_of(str(decision["duration"]))
            key = self._key_of(str(decision.get("scope", "ip")).lower(), text)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            self.counts["unreadable"] += 1
            self._tell(f"unreadable {type(error).__name__}", f"a decision cannot be read: {str(error)[:200]}")
            return
        if key is None:
            return
        if kind != "ban":
            key = f"label:{kind}:{key}"
        if seconds <= 0:
            self._forget(number, touched)
            return
        self.counts["received"] += 1
        self._decisions[number] = (key, now + seconds, sys.intern(str(decision.get("origin", ""))[:80]))
        known = self._of_key.get(key, ())
        if number not in known:
            self._of_key[key] = (*known, number)
        touched[key] = None
        reasons[key] = sys.intern(str(decision.get("scenario") or RULE)[:200])

    def _key_of(self, scope: str, value: str) -> str | None:
        """The ban key of a decision; None for one that is passed over, which is counted."""
        if scope == "country":
            self._pass_over("scope country: the AS table says no country")
            return None
        if scope == "as":
            key = ban_key(f"AS{value.upper().removeprefix('AS')}")
        elif scope == "ip":
            key = ban_key(value)
        elif scope == "range":
            key = ban_key(without_host_bits(value))
        else:
            self._pass_over(f"scope {scope[:40]}")
            return None
        trust = self._engine.ruleset.trust
        if ("/" in key or len(trust)) and (problem := too_wide(key, trusted=trust)) is not None:
            self.counts["refused"] += 1
            self._tell(f"refused {key}", f"decision on {key} is not enforced: {problem}")
            return None
        return key

    def _delete(self, decision: Any, touched: dict[str, None]) -> None:
        try:
            number = int(decision["id"])
        except (ValueError, TypeError, KeyError):
            self.counts["unreadable"] += 1
            return
        self.counts["deleted"] += 1
        self._forget(number, touched)

    def _forget(self, number: int, touched: dict[str, None]) -> None:
        known = self._decisions.pop(number, None)
        if known is None:
            return
        key = known[0]
        left = tuple(other for other in self._of_key.get(key, ()) if other != number)
        if left:
            self._of_key[key] = left
        else:
            self._of_key.pop(key, None)
        touched[key] = None

    def _settle(self, key: str, now: float, reason: str) -> None:
        """Makes the ban or the label of a key what its decisions say."""
        is_label = key.startswith("label:")
        table = self._engine.label_table if is_label else self._engine.ban_table
        numbers = self._of_key.get(key, ())
        ends = max((self._decisions[number][1] for number in numbers), default=0.0)
        there = table.get(key)
        if ends > now:
            if there is not None and _is_ours(there) and there.expires is not None and there.expires > ends + 1:
                table.unban(key, maker="import")  # a longer decision ended
            elif there is not None and not _is_ours(there):
                if there.expires is None or there.expires >= ends:
                    return
                self._displaced[key] = there
                table.unban(key, maker="import")
            made = Ban(
                key, OF_LABEL + reason if is_label else reason, None if is_label else RULE, now, ends, 1, "import"
            )
            if not table.put(made, maker="import"):
                self.counts["no_room"] += 1
                self._tell("full", "the table is full; raise bans: or labels: capacity")
            return
        displaced = self._displaced.pop(key, None)
        if there is not None and (_is_ours(there) or self._was_pushed(there)):
            if is_label:
                table.unban(key, maker="import")
            else:
                self._engine.unban(key)
            if displaced is not None and (displaced.expires is None or displaced.expires > now):
                table.put(displaced, maker="import")

    def _was_pushed(self, ban: Ban) -> bool:
        """Whether a ban of ours was told to the LAPI, so that its end there is the end of it."""
        return self._machine is not None and ban.rule != RULE and ban.by in {"rule", "tracker"}

    def _pass_over(self, what: str) -> None:
        self.counts["passed_over"] += 1
        self._tell(what, f"decisions of {what} are not enforced")

    def _tell(self, what: str, text: str) -> None:
        """Logs once what will be again and again."""
        if what not in self._told and len(self._told) < 100:
            self._told.add(what)
            log.warning("crowdsec: %s: %s", self._url, text)

    # ---- outages

    def _lost(self, error: str) -> None:
        self.breaker.failure(error)
        self.counts["failures"] += 1
        now = time.monotonic()
        if now - self._logged > LOST_SHOWN or not self._logged:
            self._logged = now
            log.error("crowdsec: %s", error)
        if self.breaker.state != "open" or self.outage:
            return
        self.outage = True
        self.counts["outages"] += 1
        if self.on_outage == "closed":
            self._engine.ban_table.closed = True
        elif self.on_outage == "open":
            with self._lock:
                keys, self._of_key, self._decisions = list(self._of_key), {}, {}
                self._started_stream = False  # all of it again, once there is an answer
                for key in keys:
                    self._settle(key, time.time(), RULE)

    def _back(self) -> None:
        self._logged = 0.0
        if self.outage:
            self.outage = False
            log.warning("crowdsec: %s answers again", self._url)
            if self.on_outage == "closed":
                self._engine.ban_table.closed = False

    # ---- one follower a host

    def _may_lead(self) -> bool:
        """Whether this process is the one of the host that follows the stream with this key."""
        if self._leads >= 0:
            return True
        name = hashlib.sha256(f"{self._url}\0{self._key}".encode()).hexdigest()[:24]
        path = os.path.join(tempfile.gettempdir(), f"gobanfast-crowdsec-{os.getuid()}-{name}.lock")
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            self._tell("lock", f"{path} cannot be opened ({error.strerror}); let one process alone follow")
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            sync = self._engine.sync
            if sync is None or not sync.store.shared:
                text = "another process follows with this key, and without a store it cannot tell this one; "
                self._tell("store", text + "give the engine a store, such as store='sqlite:bans.db'")
            return False
        self._leads = descriptor
        return True

    def _release(self) -> None:
        if self._leads >= 0:
            os.close(self._leads)
            self._leads = -1

    # ---- what is told to the LAPI

    def _tell_usage(self) -> None:
        now = time.time()
        if not self._metrics or now - self._reported_at < METRICS_EVERY:
            return
        try:
            self.tell_usage(now)
        except DownloadError as error:
            if "status 404" in str(error):
                self._metrics = False
                log.info("crowdsec: %s takes no usage metrics", self._url)
            self._reported_at = now

    def tell_usage(self, now: float) -> None:
        """Tells the LAPI how many requests this process decided and banned since the last time. DownloadError."""
        decided: Counter[str] = Counter()
        for (cause, action), count in self._engine.decided().items():
            decided["processed"] += count
            decided["dropped"] += count if action == "ban" and cause == "ban" else 0
        usage = decided - self._reported
        items = [{"name": name, "value": usage[name], "unit": "request", "labels": {}} for name in ("processed",)]
        items.append(
            {"name": "dropped", "value": usage["dropped"], "unit": "request", "labels": {"remediation": "ban"}}
        )
        with self._lock:
            active = Counter(origin for _, _, origin in self._decisions.values())
        items += [
            {"name": "active_decisions", "value": count, "unit": "ip", "labels": {"origin": origin}}
            for origin, count in active.most_common(20)
        ]
        component = {
            "type": "gobanfast", "version": VERSION, "feature_flags": [], "utc_startup_timestamp": int(self._began),
            "os": {"name": platform.system().lower(), "version": platform.release()},
            "metrics": [{
                "meta": {"window_size_seconds": max(1, int(now - self._reported_at)), "utc_now_timestamp": int(now)},
                "items": items,
            }],
        }  # fmt: skip
        self._post("/v1/usage-metrics", {"remediation_components": [component], "log_processors": []}, self._headers())
        self._reported, self._reported_at = decided, now
        self.counts["usage_told"] += 1

    def _post(self, path: str, body: object, headers: dict[str, str]) -> Any:
        answer = download(
            self._url + path, Limits(SECONDS, 1 << 20, private=True, insecure=True), method="POST",
            headers={**headers, "content-type": "application/json"}, body=json.dumps(body).encode(),
        )  # fmt: skip
        return json.loads(answer.body) if answer.body else None

    # ---- alerts

    def _push(self) -> None:
        table, cursor = self._engine.ban_table, self._cursor
        while not self._stop.is_set():
            try:
                changes, cursor = table.changes(cursor, limit=ALERTS)
                bans = {
                    change.ban.key: change.ban
                    for change in changes or ()
                    if change.event in {"add", "extend"} and change.maker in {"rule", "tracker", "manual"}
                }
                while bans and not self._stop.is_set() and not self.push(list(bans.values())):
                    self._stop.wait(ALERTS_EVERY)
            except Exception:
                log.exception("crowdsec: pushing alerts failed")
            self._stop.wait(0.0 if changes else ALERTS_EVERY)

    def push(self, bans: list[Ban]) -> bool:
        """Whether the LAPI took an alert for each of these bans; those that no scope can say are left out."""
        now = time.time()
        alerts = [alert for ban in bans if (alert := alert_of(ban, now)) is not None]
        if not alerts:
            return True
        try:
            self._post("/v1/alerts", alerts, {"authorization": f"Bearer {self._login(now)}", "user-agent": AGENT})
        except (DownloadError, ValueError) as error:
            if "status 401" in str(error) or "status 403" in str(error):
                self._token_ends = 0.0
            self.counts["alert_failures"] += 1
            self._tell("alerts", f"alerts are not taken: {error}")
            return False
        self.counts["alerts"] += len(alerts)
        return True

    def _login(self, now: float) -> str:
        if now >= self._token_ends:
            body: dict[str, Any] = {"machine_id": self._machine, "password": self._password, "scenarios": []}
            answer = self._post("/v1/watchers/login", body, {"user-agent": AGENT})
            token = answer.get("token") if isinstance(answer, dict) else None
            if not isinstance(token, str):
                raise GobanError("the LAPI gave no token")
            self._token, self._token_ends = token, now + 1800.0
        return self._token


def _is_ours(ban: Ban) -> bool:
    """Whether a decision made a ban or a label, of which only the reason says it."""
    return ban.rule == RULE or ban.reason.startswith(OF_LABEL)


def alert_of(ban: Ban, now: float) -> dict[str, Any] | None:
    """The alert that tells of a ban; None for one of a fingerprint, which no scope can say, or that is over."""
    if ban.key.startswith(("gh2:", "uid:")):
        return None
    scope, value = ("Range" if "/" in ban.key else "Ip"), ban.key
    if ban.key.startswith("AS"):
        scope, value = "AS", ban.key[2:]
    seconds = 100 * 366 * 86400.0 if ban.expires is None else ban.expires - now
    if seconds <= 0:
        return None
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ban.created or now))
    scenario = f"gobanfast/{ban.rule or ban.by}"
    return {
        "capacity": 0, "events": [], "events_count": 1, "leakspeed": "0", "message": ban.reason or scenario,
        "scenario": scenario, "scenario_hash": "", "scenario_version": "", "simulated": False,
        "source": {"scope": scope, "value": value, **({"ip": value} if scope == "Ip" else {}),
                   **({"range": value} if scope == "Range" else {})},
        "start_at": moment, "stop_at": moment,
        "decisions": [{
            "duration": f"{max(1, round(seconds))}s", "origin": ORIGIN, "scenario": scenario, "scope": scope,
            "type": "ban", "value": value, "simulated": False,
        }],
    }  # fmt: skip


def elements(text: str) -> Iterator[tuple[str, Any]]:
    """Key and element of every list in the JSON object `text`, one at a time, so that a long one is never held whole.

    A null is a list without elements. Raises ValueError where it is no such object.
    """
    decode = json.JSONDecoder().raw_decode

    def past(at: int, mark: str = "") -> int:
        found = _BLANKS.match(text, at)
        at = found.end() if found is not None else at
        if not mark:
            return at
        if not text.startswith(mark, at):
            raise ValueError(f"answer has no {mark!r} at character {at}")
        return past(at + 1)

    at = past(0, "{")
    while not text.startswith("}", at):
        key, at = decode(text, at)
        at = past(at, ":")
        if not text.startswith("[", at):
            _, at = decode(text, at)
        else:
            at = past(at, "[")
            while not text.startswith("]", at):
                value, at = decode(text, at)
                yield str(key), value
                at = past(at)
                if not text.startswith("]", at):
                    at = past(at, ",")
            at += 1
        at = past(at)
        if not text.startswith("}", at):
            at = past(at, ",")
