"""Replay of a decision log line against an engine."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gobanfast._errors import FormatError, GobanError

if TYPE_CHECKING:
    from gobanfast._core.decision import Decision
    from gobanfast.rules import Ruleset

SHARING = ("share", "share_rule", "share_shadow", "preflight")
COMPARED = ("action", "rule", "reason", "asn", "fingerprint", "shape", "shadow", "logged", *SHARING)


@dataclass(frozen=True)
class Replay:
    """What came of deciding a line again.

    Attributes:
        line: the members of the line.
        decision: the decision now.
        differences: member -> (as logged, now); empty when the decision is reproduced.
        notes: what had to be taken from the line, because it was live state then.
    """

    line: dict[str, Any]
    decision: Decision
    differences: dict[str, tuple[Any, Any]]
    notes: tuple[str, ...]


def find_line(lines: Iterable[str], id: str, source: str = "log") -> dict[str, Any]:  # noqa: A002 - its name in the log
    """The line with this id, or of the request with it.

    Raises:
        FormatError: the line with it is not one of a decision, or of another version.
        GobanError: there is none.
    """
    offset, objects = 0, 0
    for text in lines:
        objects += text.startswith("{")
        if id in text:
            try:
                line = json.loads(text)
            except ValueError as error:
                raise FormatError(source, offset, f"line is not JSON ({error})") from None
            if isinstance(line, dict) and id in {line.get("id"), line.get("request")}:
                if line.get("v") != 1 or line.get("kind") != "decision":
                    raise FormatError(source, offset, f"line of version {line.get('v')!r}, this release reads 1")
                return line
        offset += len(text.encode("utf-8", "surrogateescape"))
    if offset and not objects:
        raise GobanError(f"{source}: no line is JSON; give a decision log, or what to explain: ADDRESS --path ...")
    raise GobanError(f"{source}: no decision has the id {id!r}")


def replay(line: dict[str, Any], ruleset: Ruleset) -> Replay:
    """Decides a line again, by the rules it was decided by.

    Raises:
        GobanError: the line has pseudonyms in place of signals, or was decided by other rules.
    """
    from gobanfast._core.client_hello import parse_handshake
    from gobanfast.bans import Ban
    from gobanfast.engine import Engine

    if line["pseudonyms"] is not None:
        raise GobanError(f"decision {line['id']} was logged with pseudonyms; what it was made of is not in the log")
    if line["ruleset"] != ruleset.content_hash:
        raise GobanError(
            f"decision {line['id']} was made by ruleset {line['ruleset']}, {ruleset.source} is "
            f"{ruleset.content_hash}; give the rules of that time"
        )
    signals, cause, notes = line["signals"], line["cause"], []
    given: dict[str, Any] = {"sni": signals["sni"]}
    if signals["hello"] is not None:
        given["hello"] = parse_handshake(base64.b64decode(signals["hello"]))
        if given["sni"] == given["hello"].sni:
            del given["sni"]
    elif signals["ja4"] is not None:
        given["ja4"] = signals["ja4"]
    for name in ("method", "path", "http"):
        if signals[name] is not None:
            given[name] = signals[name]
    given |= {name: signals[name] for name in ("mount", "scheme", "host") if signals.get(name)}
    if signals["headers"] is not None and signals["environ"]:
        given["headers"] = {_environ_name(name): value for name, value in signals["headers"]}
    elif signals["headers"] is not None:
        given["headers"] = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in signals["headers"]]
    if signals.get("cut"):
        notes.append(f"the log has {', '.join(signals['cut'])} cut short; decided is by what is left")
    engine = Engine(ruleset.without_secrets())
    if line.get("session") is not None:
        given["session"] = "as logged"  # its value is in no log
    if line.get("labels"):
        notes.append(f"that it carried {', '.join(line['labels'])} is taken from the log")
        given["uid"] = "as logged"
        for word in line["labels"]:
            engine.label("uid:as logged", word, duration=None)
    if cause == "ban":
        notes.append(f"the ban of {line['ban']} is taken from the log")
        engine.ban_table.put(Ban(line["ban"], line["reason"] or "", line["rule"], 0.0, None))
        if line["ban"].startswith("uid:"):
            engine.ban_table.put(Ban("uid:as logged", line["reason"] or "", line["rule"], 0.0, None))
            given["uid"] = "as logged"
    if cause == "outage":
        notes.append("that the store did not answer, and policy 'closed', is taken from the log")
        engine.ban_table.closed = True
    decision = engine.peek(signals["address"], **given)
    compared: tuple[str, ...] = COMPARED
    if cause in {"tracker", "score"}:
        notes.append(f"the state of the {cause} then is not in the log; compared is what the rules say")
        compared = ("asn", "shadow", "logged", *SHARING)
        if cause == "score" and not line["score"] >= line["threshold"]:
            raise GobanError(f"decision {line['id']} says score {line['score']} under threshold {line['threshold']}")
    differences = {}
    for name in compared:
        now = getattr(decision, name)
        now = list(now) if isinstance(now, tuple) else now
        if name in line and now != line[name]:  # lines of earlier releases say nothing of sharing
            differences[name] = (line[name], now)
    return Replay(line, decision, differences, tuple(notes))


def _environ_name(name: str) -> str:
    upper = name.upper().replace("-", "_")
    return upper if upper in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{upper}"
