"""Field types of labels and sessions: conditions, and where the rules file says that a session is."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import PlainValidator

from gobanfast.bans import label_word
from gobanfast.rules.text.fields import OneOrMany, one_of, schema, text_of, validator

SESSION_WORDS = ("absent", "present", "malformed")
MOST_KEYS = 8
_COOKIE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}", re.ASCII)  # RFC 6265 cookie-name, an RFC 9110 token
_PARAMETER = re.compile(r"[A-Za-z0-9._~-]{1,64}", re.ASCII)
_ENVIRONMENT = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


def word(value: Any) -> str:
    return label_word(text_of("label", value))


def cookie_name(value: Any) -> str:
    if not isinstance(value, str) or not _COOKIE.fullmatch(value):
        raise ValueError(f"cookie {str(value)[:80]!r} is not the name of a cookie; write sid or __Host-session")
    return value


def parameter_name(value: Any) -> str:
    if not isinstance(value, str) or not _PARAMETER.fullmatch(value):
        raise ValueError(f"query {str(value)[:80]!r} is not the name of a parameter; write ticket or the like")
    return value


def session_header(value: Any) -> str:
    text = value.lower() if isinstance(value, str) else ""
    if not _COOKIE.fullmatch(text) or text in ("cookie", "host"):
        raise ValueError(
            f"header {str(value)[:80]!r} is not one with a session in it; write x-session or authorization"
        )
    return text


def secret_place(value: Any) -> str:
    """Where a secret is; the secret itself is not for a file that is reviewed, diffed and shipped."""
    if not isinstance(value, str) or not (_ENVIRONMENT.fullmatch(value) or (value.startswith("file:") and value[5:])):
        raise ValueError(
            "key is no place of a secret; write env:GOBANFAST_SESSION_KEY or file:/run/secrets/session_key"
        )
    return value


def secret_places(value: Any) -> tuple[str, ...]:
    places = tuple(map(secret_place, [value] if isinstance(value, str) else value or ()))
    if not 1 <= len(places) <= MOST_KEYS or len(set(places)) < len(places):
        raise ValueError(f"keys has {len(places)} places, or one twice; write 1 to {MOST_KEYS}, the newest first")
    return places


LabelWords = Annotated[
    list[Annotated[str, PlainValidator(validator(word))]],
    OneOrMany,
    schema("words, one of which a key of the request must carry as a label: revoked"),
]
SessionWords = Annotated[
    list[Annotated[str, PlainValidator(validator(one_of("session", SESSION_WORDS)))]],
    OneOrMany,
    schema("whether the request has a session", {"enum": list(SESSION_WORDS)}),
]
Cookies = Annotated[list[Annotated[str, PlainValidator(validator(cookie_name))]], OneOrMany, schema("names of cookies")]
SessionHeaders = Annotated[
    list[Annotated[str, PlainValidator(validator(session_header))]], OneOrMany, schema("names of headers")
]
Parameters = Annotated[
    list[Annotated[str, PlainValidator(validator(parameter_name))]], OneOrMany, schema("names of query parameters")
]
SecretPlaces = Annotated[
    tuple[str, ...],
    PlainValidator(validator(secret_places)),
    schema("env:NAME or file:PATH of the secrets that values are hashed under, the newest first"),
]
