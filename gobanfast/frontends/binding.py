"""Context binding of tokens: a keyed hash of where a token was issued to, compared where it is shown. docs/binding.md.

    binding = Binding([key])
    token = encode_jwt({"sub": "42"}, jwt_key, binding, request.headers)            # extra `jwt`
    payload, match = decode_jwt(token, jwt_key, binding, request.headers, algorithms=["HS256"])

A signal against tokens that were carried off carelessly and against requests of foreign pages. It proves nothing: who
takes a token can take the headers that go with it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

from gobanfast.frontends.challenge import cookie_values

Policy = Literal["require", "if-present", "flag", "ignore"]
Answer = Literal["absent", "matches", "flagged", "differs"]
Pairs: TypeAlias = "Iterable[tuple[bytes, bytes]] | Mapping[str, Any]"

FIELDS = ("origin", "fetch_site", "referer", "user_agent")
"""What is bound, in the order of its numbers in a claim, from 1 on."""

CLAIM = "ctx"
"""The claim of a JWT that holds the binding."""

POLICIES = ("require", "if-present", "flag", "ignore")
HEADERS = ("origin", "referer", "sec-fetch-dest", "sec-fetch-mode", "sec-fetch-site", "user-agent")
HOLDERS = ("authorization", "cookie")  # of tokens
NAMES: dict[Any, str] = {form: name for name in (*HEADERS, *HOLDERS) for form in (name, name.encode())}
CGI_NAMES: dict[Any, str] = {"HTTP_" + name.upper().replace("-", "_"): name for name in (*HEADERS, *HOLDERS)}
KEY_BYTES = 16
MAC_BYTES = 16
CLAIM_LIMIT = 128  # characters: a key id and four hashes are 92
VALUE_LIMIT = 1024  # characters of a header's value that count
HOLDER_LIMIT = 16384  # of one that holds a token
OWN = ("same-origin", "same-site", "none")  # of Sec-Fetch-Site: no foreign page made the request
LEGACY = {"origin": "origin", "referer": "referer", "ua_hash": "user_agent"}


class Match(NamedTuple):
    """What became of a comparison.

    Attributes:
        answer: "differs" where a field did that its policy does not allow; "flagged" where only fields did that are
            flagged; "matches"; "absent" without a claim.
        differs: those fields, of `FIELDS`; "claim" for a claim that cannot be read, or whose key is no longer there.
        flagged: those fields.
    """

    answer: Answer
    differs: tuple[str, ...] = ()
    flagged: tuple[str, ...] = ()


class BindingError(ValueError):
    """A token is shown elsewhere than where it was issued to; `match` says which fields differ."""

    def __init__(self, match: Match) -> None:
        super().__init__(f"the token's context is not this request's: {', '.join(match.differs) or 'no claim'}")
        self.match = match


class Binding:
    """Makes and compares context claims.

    Args:
        keys: secrets of at least 16 bytes, the newest first: that one makes claims, all are compared with. Servers that
            share tokens share keys.
        origin, fetch_site, referer, user_agent: what absence and difference of a field mean. "require": it has to be
            there, and as it was; "if-present": as it was, where it is there now and was then; "flag": the same, but a
            difference is only told; "ignore": not looked at.
    Raises:
        ValueError: no keys, a short key, or a policy that is none.

    A request without Origin that Sec-Fetch-Site calls same-origin satisfies `origin="require"`: a browser sends no
    Origin with a GET of the own page, an EventSource's, too.
    """

    def __init__(
        self,
        keys: Sequence[str | bytes],
        *,
        origin: Policy = "if-present",
        fetch_site: Policy = "if-present",
        referer: Policy = "ignore",
        user_agent: Policy = "flag",
    ) -> None:
        if isinstance(keys, (str, bytes)) or not keys:
            raise ValueError("binding keys must be a list of at least one; write Binding([key])")
        given = [key.encode() if isinstance(key, str) else bytes(key) for key in keys]
        short = [index for index, key in enumerate(given) if len(key) < KEY_BYTES]
        if short:
            raise ValueError(f"binding key number {short[0] + 1} is shorter than {KEY_BYTES} bytes")
        self._policies = {"origin": origin, "fetch_site": fetch_site, "referer": referer, "user_agent": user_agent}
        for name, policy in self._policies.items():
            if policy not in POLICIES:
                raise ValueError(f"binding {name}={policy!r} is not one of {', '.join(POLICIES)}")
        # BLAKE2s takes 32 bytes of key; the first byte of another hash of it is its id.
        self._keys = [hashlib.blake2s(key, person=b"gbf key").digest() for key in given]
        self._ids = [hashlib.blake2s(key, person=b"gbf id").digest()[:1] for key in given]

    def __repr__(self) -> str:
        """Says nothing of the keys, which are secret."""
        return f"<Binding of {', '.join(f'{name}: {policy}' for name, policy in self._policies.items())}>"

    def make(self, headers: Pairs) -> str:
        """The claim for whoever sent these headers: a key's id, and of each field that is there the number and hash."""
        found = context_of(headers)
        packed = bytearray(self._ids[0])
        for number, name in enumerate(FIELDS, 1):
            value = found[name]
            if value is not None and self._policies[name] != "ignore":
                packed.append(number)
                packed += mac(self._keys[0], name, value)
        return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()

    def check(self, claim: object, headers: Pairs) -> Match:
        """Compares a claim with the headers that came with it. The claim must come out of what was signed.

        Args:
            claim: what `make` made; a mapping `{origin, referer, ua_hash}` is the older form, in plain text.
        """
        if claim is None:
            return Match("absent")
        found = context_of(headers)
        equal = equal_legacy(claim, found) if isinstance(claim, Mapping) else self._equal(claim, found)
        if equal is None:
            return Match("differs", ("claim",))
        differs: list[str] = []
        flagged: list[str] = []
        for name in FIELDS:
            if not self._allows(name, found, equal.get(name)):
                (flagged if self._policies[name] == "flag" else differs).append(name)
        answer: Answer = "differs" if differs else "flagged" if flagged else "matches"
        return Match(answer, tuple(differs), tuple(flagged))

    def _allows(self, name: str, found: Mapping[str, str | None], equal: bool | None) -> bool:
        """Whether a field is as its policy wants it; `equal` is None where the claim does not bind it."""
        policy = self._policies[name]
        if policy == "ignore":
            return True
        if name == "fetch_site" and found[name] == "own":
            return True
        if policy == "require":
            return bool(equal) or (name == "origin" and found["origin"] is None and found["same_origin"] is not None)
        return equal is not False or found[name] is None

    def _equal(self, claim: object, found: Mapping[str, str | None]) -> dict[str, bool] | None:
        """By field that a claim binds, whether it is as it was; None for a claim that is none of ours."""
        packed = unpacked(claim)
        if packed is None:
            return None
        equal: dict[str, bool] | None = None
        for key, key_id in zip(self._keys, self._ids, strict=True):
            if key_id != packed[0]:
                continue
            by_name = {}
            for name, bound in packed[1].items():
                value = found[name]
                same = hmac.compare_digest(bound, mac(key, name, value or ""))
                by_name[name] = same and value is not None
            if equal is None or sum(by_name.values()) > sum(equal.values()):  # two keys may have one id
                equal = by_name
        return equal


def mac(key: bytes, name: str, value: str) -> bytes:
    """Keyed BLAKE2s of one field, 128 bits."""
    data = value.encode("utf-8", "surrogatepass")
    return hashlib.blake2s(data, digest_size=MAC_BYTES, key=key, person=b"gbf bind", salt=name[:8].encode()).digest()


def unpacked(claim: object) -> tuple[bytes, dict[str, bytes]] | None:
    """(key id, hash by field) of a claim's text; None for anything else."""
    if not isinstance(claim, str) or not re.fullmatch(rf"[A-Za-z0-9_-]{{2,{CLAIM_LIMIT}}}", claim):
        return None
    try:
        packed = base64.urlsafe_b64decode(claim + "=" * (-len(claim) % 4))
    except ValueError:
        return None
    bound: dict[str, bytes] = {}
    for at in range(1, len(packed), 1 + MAC_BYTES):
        number, digest = packed[at], packed[at + 1 : at + 1 + MAC_BYTES]
        if not 1 <= number <= len(FIELDS) or len(digest) != MAC_BYTES or FIELDS[number - 1] in bound:
            return None
        bound[FIELDS[number - 1]] = digest
    return packed[:1], bound


def equal_legacy(claim: Mapping[Any, Any], found: Mapping[str, str | None]) -> dict[str, bool] | None:
    """The same of a claim in plain text: the origin, a referer's URL, and the SHA-256 of the user agent in hex, 16
    bytes of it or more, behind `sha256:` or bare."""
    equal: dict[str, bool] = {}
    for key, name in LEGACY.items():
        bound = claim.get(key)
        if bound is None:
            continue
        if not isinstance(bound, str):
            return None
        now = found[name]
        if key == "ua_hash":
            digits = bound.removeprefix("sha256:").lower()
            if not re.fullmatch(r"[0-9a-f]{32,64}", digits):
                return None
            agent = found["whole_user_agent"]
            digest = hashlib.sha256((agent or "").encode("utf-8", "surrogatepass")).hexdigest()
            bound, now = digits, None if agent is None else digest[: len(digits)]
        elif key == "referer":
            bound = referer_origin(bound)
        same = hmac.compare_digest(bound.encode("utf-8", "replace"), (now or "").encode("utf-8", "replace"))
        equal[name] = same and now is not None
    return equal


def context_of(headers: Pairs) -> dict[str, str | None]:
    """By field the canonical text of its value, None where the header is not there. Beside them the user agent as it
    came, and whether the request is one of the own page."""
    sent = sent_values(headers)
    site, agent, referer = sent["sec-fetch-site"], sent["user-agent"], sent["referer"]
    # A link to us on a foreign page: that page reads nothing of it. A form that it sends has an Origin.
    is_link = (sent["sec-fetch-mode"], sent["sec-fetch-dest"], sent["origin"]) == ("navigate", "document", None)
    return {
        "origin": sent["origin"],
        "fetch_site": None if site is None else "own" if site in OWN or is_link else "foreign",
        "referer": None if referer is None else referer_origin(referer),
        "user_agent": None if agent is None else re.sub(r"[0-9][0-9._]*", "#", agent),
        "whole_user_agent": agent,
        "same_origin": site if site == "same-origin" else None,
    }


def referer_origin(url: str) -> str:
    """The origin of a URL, without the default port; "malformed" for what has none."""
    found = re.match(r"(https?)://([a-z0-9._\-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?(?=[/?#]|$)", url.lower())
    if found is None:
        return "malformed"
    scheme, host, port = found.groups(default="")
    return f"{scheme}://{host}{'' if port == {'http': ':80', 'https': ':443'}[scheme] else port}"


def sent_values(headers: Pairs, names: Sequence[str] = HEADERS, limit: int = VALUE_LIMIT) -> dict[str, str | None]:
    """By name the value of each header that is asked for; lines of one name are joined, so that two are not one."""
    found: dict[str, str | None] = dict.fromkeys(names)
    environ = isinstance(headers, Mapping) and "REQUEST_METHOD" in headers
    for name, value in headers.items() if isinstance(headers, Mapping) else headers:
        key = CGI_NAMES.get(name) if environ else NAMES.get(name.lower())
        if key in found:
            line = (value.decode("latin-1") if isinstance(value, bytes) else str(value)).strip(" \t")
            before = found[key]
            comma = "; " if key == "cookie" else ", "  # HTTP/2 cuts cookies into crumbs
            found[key] = (line if before is None else before + comma + line)[:limit]
    return found


class BoundToken(NamedTuple):
    """A JWT that was shown where it was issued to."""

    payload: dict[str, Any]
    match: Match


def encode_jwt(
    payload: Mapping[str, Any], key: Any, binding: Binding, headers: Pairs, *, algorithm: str = "HS256", **options: Any
) -> str:
    """A JWT of PyJWT that is bound to whoever sent these headers. Options are those of `jwt.encode`."""
    import jwt

    return jwt.encode({**payload, CLAIM: binding.make(headers)}, key, algorithm=algorithm, **options)


def decode_jwt(
    token: str | bytes, key: Any, binding: Binding, headers: Pairs, *, algorithms: Sequence[str], **options: Any
) -> BoundToken:
    """The payload of a JWT, verified by PyJWT and then compared with the headers that came with it.

    Raises:
        jwt.InvalidTokenError: of PyJWT, whose options are taken.
        BindingError: the claim is absent or differs; its `match` names the fields.
    """
    import jwt

    payload = jwt.decode(token, key, algorithms=list(algorithms), **options)
    match = binding.check(payload.get(CLAIM), headers)
    if match.answer in {"absent", "differs"}:
        raise BindingError(match)
    return BoundToken(payload, match)


class BoundRequests:
    """Compares the JWT that a request carries with the request: one answer for any frontend, without exceptions.

    Args:
        binding: the Binding of the tokens.
        key, algorithms, options: what PyJWT verifies tokens with.
        cookie: name of the cookie that holds the token; None: `Authorization: Bearer`, which no EventSource can send.
    """

    def __init__(
        self, binding: Binding, key: Any, *, algorithms: Sequence[str], cookie: str | None = None, **options: Any
    ) -> None:
        self._binding, self._key, self._cookie = binding, key, cookie
        self._algorithms, self._options = list(algorithms), options

    def __call__(self, headers: Pairs) -> Match:
        """The Match; "absent" without a token, and with one that PyJWT refuses: that one says nothing about anybody."""
        import jwt

        held = sent_values(headers, HOLDERS, HOLDER_LIMIT)
        if self._cookie is None:
            scheme, _, token = (held["authorization"] or "").partition(" ")
            tokens = [token.strip(" ")] if scheme.lower() == "bearer" else []
        else:
            tokens = list(cookie_values(held["cookie"] or "", self._cookie))
        if len(tokens) != 1:
            return Match("absent")
        try:
            payload = jwt.decode(tokens[0], self._key, algorithms=self._algorithms, **self._options)
        except (jwt.InvalidTokenError, ValueError):
            return Match("absent")
        return self._binding.check(payload.get(CLAIM), headers)
