"""Browser challenge: a proof of work that the browser solves by itself, then a signed cookie.

A challenged browser gets a page (403) with a task: find a number whose SHA-256 together with the task's signature
starts with `difficulty` zero bits. The page's script, plain JavaScript without any other service, puts the solution
into a cookie and loads the page anew; that request goes through and takes a pass with it, a cookie signed by us.

Both signatures cover whom they are for (`bind`): a pass or a solution shown by another client is worth nothing.
A solution may be shown again within five minutes by the client it was made for, which gains it another pass; a pass
holds until it expires or its key is removed. Neither lifts a ban or a limit: a tracker that challenges wants a solution
that was not shown before. Programs are not asked to work: they get a problem
document.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from gobanfast._core.address import client_of
from gobanfast.frontends.http.refusal import TITLES, HttpResponse, details, html_response, page

Bind = Literal["client", "fingerprint", "client_fingerprint"]
Outcome = Literal["passed", "solved"]

PASS, WORK = "gobanfast-pass", "gobanfast-work"  # names of the two cookies
TASK_SECONDS = 300
KEY_BYTES = 16
COOKIES_LIMIT = 16384  # bytes of a Cookie header that are looked at
SPENT_LIMIT = 10_000
TRIES = 4  # cookies of one name that are looked at
NUMBER_LIMIT = 12  # digits of a solution: signature and number fit one block of SHA-256


class Challenge:
    """Makes and checks tasks and passes.

    Args:
        keys: secrets of at least 16 bytes, the newest first: that one signs, all are accepted. Servers that share
            clients share keys.
        difficulty: zero bits asked for, 1 to 30; each one doubles the work. 15 takes a phone about a second.
        seconds: how long a pass holds.
        bind: what a pass is good for: "client" (the address, of IPv6 its /64), "fingerprint", or both. The
            fingerprint of a browser is the same for a page and what it loads; many browsers share one.
        clock: unix seconds.
    Raises:
        ValueError: no keys, a short key, or another argument that is none of these.
    """

    def __init__(
        self,
        keys: Sequence[str | bytes],
        *,
        difficulty: int = 15,
        seconds: float = 12 * 3600,
        bind: Bind = "client",
        clock: Callable[[], float] = time.time,
    ) -> None:
        if isinstance(keys, (str, bytes)) or not keys:
            raise ValueError("challenge keys must be a list of at least one; write Challenge([key])")
        self._keys = [key.encode() if isinstance(key, str) else key for key in keys]
        short = [index for index, key in enumerate(self._keys) if len(key) < KEY_BYTES]
        if short:
            raise ValueError(f"challenge key number {short[0] + 1} is shorter than {KEY_BYTES} bytes")
        if not 1 <= difficulty <= 30:
            raise ValueError(f"challenge difficulty {difficulty!r} is not 1 to 30")
        if seconds <= 0:
            raise ValueError(f"challenge seconds {seconds!r} must be positive")
        if bind not in {"client", "fingerprint", "client_fingerprint"}:
            raise ValueError(f"challenge bind {bind!r} is not one of client, fingerprint, client_fingerprint")
        self.difficulty, self.seconds, self.bind = difficulty, seconds, bind
        self._clock = clock
        self._spent: dict[str, float] = {}  # task -> when it ends

    def __repr__(self) -> str:
        """Says nothing of the keys, which are secret."""
        return f"<Challenge of {self.difficulty} bits, passes of {self.seconds} s for a {self.bind}>"

    def signature(self, purpose: str, text: str) -> str:
        """A signature of the first key, for another use than passes and tasks."""
        return sign(self._keys[0], purpose, text, "")

    def check(self, cookies: str, address: str | None, fingerprint: str | None) -> Outcome | None:
        """ "passed" if a Cookie header holds a pass of this client, "solved" if a solution, else None."""
        if PASS not in cookies and WORK not in cookies:
            return None
        holder = self._holder(address, fingerprint)
        if any(self._is_pass(value, holder) for value in cookie_values(cookies, PASS)):
            return "passed"
        if any(self._is_solution(value, holder) for value in cookie_values(cookies, WORK)):
            return "solved"
        return None

    def spend(self, cookies: str, address: str | None, fingerprint: str | None) -> bool:
        """Whether a Cookie header holds a solution of this client that was not spent before; now it is.

        What a tracker asks: a pass, and a solution shown again, would lift a limit for all that comes with them. Each
        process remembers by itself, up to 10,000 solutions; while that is full, none is good.
        """
        if WORK not in cookies:
            return False
        holder, now = self._holder(address, fingerprint), self._clock()
        for value in cookie_values(cookies, WORK):
            task = value.partition(".")[0]
            if task in self._spent or not self._is_solution(value, holder):
                continue
            if len(self._spent) >= SPENT_LIMIT:
                self._spent = {other: until for other, until in self._spent.copy().items() if until > now}
            if len(self._spent) < SPENT_LIMIT:
                return self._spent.setdefault(task, now + TASK_SECONDS) == now + TASK_SECONDS
        return False

    def cookies(self, address: str | None, fingerprint: str | None, *, secure: bool) -> list[tuple[bytes, bytes]]:
        """Response headers that give this client a pass, and take its solution back."""
        until = f"{int(self._clock() + self.seconds):x}"
        signature = sign(self._keys[0], PASS, until, self._holder(address, fingerprint))
        rest = "; Path=/; SameSite=Lax; HttpOnly" + ("; Secure" if secure else "")
        return [
            (b"set-cookie", f"{PASS}={until}.{signature}; Max-Age={int(self.seconds)}{rest}".encode()),
            (b"set-cookie", f"{WORK}=; Max-Age=0; Path=/; SameSite=Strict".encode()),
        ]

    def response(
        self, address: str | None, fingerprint: str | None, *, request_id: str, contact: str | None = None
    ) -> HttpResponse:
        """The page that gives a browser its task."""
        task = f"{self.difficulty}-{int(self._clock()) + TASK_SECONDS:x}-{secrets.token_hex(8)}"
        signature = sign(self._keys[0], WORK, task, self._holder(address, fingerprint))
        facts = {"request_id": request_id} | ({"contact": contact} if contact else {})
        body = (
            f'<p id="state" data-task="{task}" data-signature="{signature}" data-bits="{self.difficulty}" '
            f'data-cookie="{WORK}">Your browser is being checked. This takes a moment, once.</p>'
            "<noscript><p>The check needs JavaScript. Switch it on for this site, or write to the contact below with "
            f"the request number.</p></noscript>{details(facts)}<script>{SCRIPT}</script>"
        )
        return html_response(403, None, page(TITLES["challenge"], body), script=SCRIPT)._replace(kind="task")

    def _holder(self, address: str | None, fingerprint: str | None) -> str:
        client = client_of(address) or "" if address is not None and self.bind != "fingerprint" else ""
        return f"{client}|{fingerprint if fingerprint is not None and self.bind != 'client' else ''}"

    def _signed(self, signature: str, purpose: str, text: str, holder: str) -> bool:
        valid = False
        for key in self._keys:
            valid |= hmac.compare_digest(sign(key, purpose, text, holder), signature)
        return valid

    def _is_pass(self, value: str, holder: str) -> bool:
        until, _, signature = value.partition(".")
        return self._signed(signature, PASS, until, holder) and self._clock() < int(until, 16)

    def _is_solution(self, value: str, holder: str) -> bool:
        task, _, rest = value.partition(".")
        signature, _, number = rest.partition(".")
        if not (number.isdigit() and len(number) <= NUMBER_LIMIT and self._signed(signature, WORK, task, holder)):
            return False
        bits, until, _ = task.split("-")
        done = hashlib.sha256((signature + number).encode()).digest()
        return int.from_bytes(done) >> (256 - int(bits)) == 0 and self._clock() < int(until, 16)


def sign(key: bytes, purpose: str, text: str, holder: str) -> str:
    """43 characters of HMAC-SHA-256 over what is signed, for what use, and for whom."""
    made = hmac.digest(key, f"{purpose} 1\n{text}\n{holder}".encode(), "sha256")
    return base64.urlsafe_b64encode(made).rstrip(b"=").decode()


def cookie_values(cookies: str, name: str) -> Iterator[str]:
    """The first few values of cookies called `name`; only ASCII ones, as ours are."""
    left = TRIES
    for pair in cookies[:COOKIES_LIMIT].split(";"):
        found, _, value = pair.strip(" \t").partition("=")
        if found == name and value.isascii():
            yield value
            left -= 1
            if not left:
                return


# SHA-256 by FIPS 180-4, for messages of one block; a page on plain HTTP has no SubtleCrypto. Works in slices of time,
# so that the page stays alive, and gives up where cookies do not stay.
SCRIPT = """
(function () {
  var state = document.getElementById("state"), data = state.dataset, K = [], H = [];
  for (var p = 2; K.length < 64; p++) {
    for (var q = 2; q * q <= p && p % q; q++);
    if (q * q > p) {
      if (H.length < 8) H.push((Math.sqrt(p) % 1) * 4294967296 | 0);
      K.push((Math.cbrt(p) % 1) * 4294967296 | 0);
    }
  }
  var W = new Int32Array(64), text = data.signature, bits = +data.bits;
  function rot(x, n) { return (x >>> n) | (x << (32 - n)); }
  function first(message) {
    for (var i = 0; i < 16; i++) W[i] = 0;
    for (i = 0; i < message.length; i++) W[i >> 2] |= message.charCodeAt(i) << (24 - 8 * (i & 3));
    W[i >> 2] |= 128 << (24 - 8 * (i & 3));
    W[15] = 8 * message.length;
    for (i = 16; i < 64; i++) {
      var x = W[i - 15], y = W[i - 2];
      W[i] = W[i - 16] + (rot(x, 7) ^ rot(x, 18) ^ (x >>> 3)) + W[i - 7] + (rot(y, 17) ^ rot(y, 19) ^ (y >>> 10));
    }
    var a = H[0], b = H[1], c = H[2], d = H[3], e = H[4], f = H[5], g = H[6], h = H[7];
    for (i = 0; i < 64; i++) {
      var s = h + (rot(e, 6) ^ rot(e, 11) ^ rot(e, 25)) + ((e & f) ^ (~e & g)) + K[i] + W[i] | 0;
      var t = (rot(a, 2) ^ rot(a, 13) ^ rot(a, 22)) + ((a & b) ^ (a & c) ^ (b & c)) | 0;
      h = g; g = f; f = e; e = d + s | 0; d = c; c = b; b = a; a = s + t | 0;
    }
    return (a + H[0]) >>> 0;
  }
  function stop(why) { state.textContent = why; }
  function finish(number) {
    var value = data.cookie + "=" + data.task + "." + text + "." + number, tries = 0;
    document.cookie = value + ";path=/;max-age=60;samesite=strict" + (location.protocol === "https:" ? ";secure" : "");
    try {
      var last = (sessionStorage.getItem("gobanfast") || "0 0").split(" ");
      tries = Date.now() - last[1] < 60000 ? +last[0] : 0;
      sessionStorage.setItem("gobanfast", tries + 1 + " " + Date.now());
    } catch (error) { tries = 0; }
    if (document.cookie.indexOf(value) < 0) stop("The check needs cookies. Allow them and load this page again.");
    else if (tries > 4) stop("The check did not pass. Close this page, or write to the contact below.");
    else location.reload();
  }
  var number = 0;
  function work() {
    var end = Date.now() + 50;
    do {
      for (var last = number + 500; number < last; number++) {
        if (first(text + number) >>> (32 - bits) === 0) return finish(number);
      }
    } while (Date.now() < end);
    setTimeout(work, 0);
  }
  setTimeout(work, 0);
})();
"""
