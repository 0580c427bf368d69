"""Share rules carried out by every HTTP frontend: whose header lines a client gets, and who answers."""

from __future__ import annotations

import json
from contextlib import closing
from types import SimpleNamespace

import pytest

from gobanfast import Engine, Ruleset
from gobanfast.frontends import asgi
from gobanfast.frontends.challenge import Challenge
from gobanfast.telemetry.log import DecisionLog
from http_fakes import FakeEngine
from share_forms import (
    ASKS,
    FOREIGN,
    FORMS,
    FROM_PAGE,
    OWN,
    PAGE,
    PREFLIGHT,
    RULES,
    TENANT,
    WRITTEN,
    Plan,
    asgi_app,
    ask,
    ask_asgi,
)
from test_challenge import solve

pytest.importorskip("django", reason="one table for all frontends")
pytest.importorskip("aiohttp", reason="one table for all frontends")

forms = pytest.mark.parametrize("form", FORMS)


# ---- whose lines


@forms
@pytest.mark.parametrize("written", WRITTEN)
def test_lines_are_ours_alone(form, written):
    """Whatever the application wrote, in whatever case and how often; other headers stay."""
    plan = Plan(headers=[*WRITTEN[written], ("X-B", "1")])

    granted, withheld, unasked = (ask(form, plan, headers=headers) for headers in (FROM_PAGE, {"origin": FOREIGN}, {}))

    assert (OWN, {}, {}) == (granted.shared, withheld.shared, unasked.shared)
    assert [["origin"]] * 3 == [answer.vary for answer in (granted, withheld, unasked)]
    assert [["1"]] * 3 == [answer.lines("x-b") for answer in (granted, withheld, unasked)]
    assert [b"onetwo"] * 3 == [answer.body for answer in (granted, withheld, unasked)]
    assert 3 == plan.calls


@forms
def test_a_static_star_needs_no_origin_and_varies_by_nothing(form):
    """Any origin: `*` to everyone, and never credentials."""
    for headers in (FROM_PAGE, {"origin": FOREIGN}, {"origin": "null"}, {}):
        answer = ask(form, Plan(headers=WRITTEN["all"]), "/public", headers=headers)

        assert {"access-control-allow-origin": ["*"]} == answer.shared
        assert [] == answer.vary


@forms
def test_a_grant_without_credentials(form):
    """The page's own origin, below a wildcard too, and nothing about cookies."""
    for origin in (PAGE, TENANT):
        answer = ask(form, Plan(), "/plain", headers={"origin": origin, "cookie": "a=b"})

        assert {"access-control-allow-origin": [origin]} == answer.shared


@forms
@pytest.mark.parametrize("path", ["/elsewhere", "/trial"])
def test_what_is_not_owned_is_not_touched(form, path):
    """No rule, or a shadow rule: the lines of the application stay as they are, and our id is all that is new."""
    written = [*WRITTEN["two"], ("Vary", "*"), ("x-Odd", "1"), ("Vary", "accept")]
    if form.startswith("django"):  # one line a header
        written = [*WRITTEN["one"], ("Vary", "*"), ("x-Odd", "1")]

    answer = ask(form, Plan(headers=written), path, headers=FROM_PAGE)

    names = {name for name, _ in written}
    assert written == [pair for pair in answer.pairs if pair[0] in names]
    assert 1 == len(answer.lines("x-request-id"))


VARY = {
    "absent": ([], ["origin", "sec-fetch-site"]),
    "empty": ([""], ["origin", "sec-fetch-site"]),
    "list": (["Accept, accept-encoding"], ["accept", "accept-encoding", "origin", "sec-fetch-site"]),
    "star": (["*"], ["*"]),
    "star in a list": (["accept, *"], ["accept", "*"]),
    "has one": (["ORIGIN"], ["origin", "sec-fetch-site"]),
    "has both": (["sec-fetch-SITE ,\tOrigin"], ["sec-fetch-site", "origin"]),
    "alike": (["x-origin"], ["x-origin", "origin", "sec-fetch-site"]),
    "lines": (["accept", "origin, cookie"], ["accept", "origin", "cookie", "sec-fetch-site"]),
    "lines, one empty": (["", "cookie"], ["", "cookie", "origin", "sec-fetch-site"]),
    "lines and a star": (["accept", "*"], ["accept", "*"]),
}


@forms
@pytest.mark.parametrize("case", VARY)
def test_vary_is_merged(form, case):
    """What the application said stays, ours is added once, on one line."""
    lines, expected = VARY[case]
    if len(lines) > 1 and form.startswith("django"):
        pytest.skip("Django has one line a header")

    answer = ask(form, Plan(headers=[("vAry", line) for line in lines]), "/site", headers=FROM_PAGE)

    assert expected == answer.vary


@forms
@pytest.mark.parametrize("status", [206, 304, 400, 404, 405, 500, 503])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_every_status_of_the_application(form, status, method):
    """Errors, parts and what is not modified are as readable as a page."""
    plan = Plan(status=status, parts=() if status == 304 else (b"one",))

    answer = ask(form, plan, method=method, headers=FROM_PAGE)

    assert (status, OWN, ["origin"]) == (answer.status, answer.shared, answer.vary)


@forms
def test_an_id_of_the_application_stays(form):
    """Also where other lines are replaced."""
    plan = Plan(headers=[("x-request-ID", "mine"), *WRITTEN["two"][:1]])

    assert ["mine"] == ask(form, plan, headers=FROM_PAGE).lines("x-request-id")


@pytest.mark.parametrize("path", ["//own", "/x/../own", "/own;a", "/%6fwn", "/own%3Ba"])
def test_every_reading_of_a_path_is_owned(path):
    """A server may serve the resource under any of them; to grant, all must agree."""
    written = Plan(headers=WRITTEN["two"])

    answer = ask("asgi", written, path, headers={"origin": FOREIGN})
    preflight = ask("asgi", written, path, "OPTIONS", ASKS | {"origin": FOREIGN})

    assert ({}, ["origin"]) == (answer.shared, answer.vary)
    assert (403, {}) == (preflight.status, preflight.shared)


def test_lines_that_are_replaced_are_counted():
    """So that a second CORS middleware is found."""
    engine = Engine(Ruleset.from_text(RULES))
    middleware = asgi.Gobanfast(asgi_app(Plan(headers=WRITTEN["all"])), engine)
    for path, count in (("/own", 5), ("/own", 10), ("/elsewhere", 10)):
        ask_asgi(middleware, path, "GET", FROM_PAGE.items())
        assert count == middleware.guard.foreign_headers


# ---- answers of ours


@forms
def test_our_own_answers_carry_the_grant(form):
    """A ban, a refused challenge and a task are readable for a page that may read, and for no other."""
    challenge = Challenge(["k" * 16], difficulty=4)
    cases = {"bad": {}, "odd": {}, "odd html": {"challenge": challenge}}
    for agent, options in cases.items():
        asked = {"user-agent": agent, "accept": "text/html" if options else "*/*"}
        plan = Plan()

        granted = ask(form, plan, headers=asked | FROM_PAGE, **options)
        withheld = ask(form, plan, headers=asked | {"origin": FOREIGN}, **options)

        assert (403, OWN) == (granted.status, granted.shared), agent
        assert (403, {}) == (withheld.status, withheld.shared), agent
        assert ["accept", "origin"] == granted.vary == withheld.vary
        assert 0 == plan.calls
    assert b"<script" in granted.body


@forms
def test_a_solved_challenge_keeps_its_cookies(form):
    """Set-Cookie of the pass goes out beside the grant, once."""
    challenge = Challenge(["k" * 16], difficulty=4)
    asked = {"user-agent": "odd", "accept": "text/html"} | FROM_PAGE
    address = "127.0.0.1" if form == "aiohttp" else "203.0.113.9"
    plan = Plan(headers=[("Set-Cookie", "theirs=1"), *WRITTEN["one"]])
    cookie = solve(challenge.response(address, None, request_id="r-1", contact=None))

    answer = ask(form, plan, headers=asked | {"cookie": cookie}, challenge=challenge)

    assert (200, OWN, 1) == (answer.status, answer.shared, plan.calls)
    names = [line.partition("=")[0].strip() for line in answer.lines("set-cookie")]
    assert len(names) == len(set(names)) == 3
    assert "theirs" in names


@forms
@pytest.mark.parametrize("on_error", ["refuse", "allow"])
def test_an_observer_that_raises(form, on_error):
    """503 that a page can read, or the application's answer with the grant on it."""
    plan = Plan(headers=WRITTEN["two"][:1])

    answer = ask(form, plan, headers=FROM_PAGE, on_error=on_error, on_decision=lambda *_: 1 // 0)

    expected = (503, 0) if on_error == "refuse" else (200, 1)
    assert expected == (answer.status, plan.calls)
    assert OWN == answer.shared


@forms
def test_refusals(form):
    """A write of a foreign page is 403, a foreign host 421; neither reaches the application, neither is shared."""
    plan = Plan()

    foreign = ask(form, plan, "/writes", "POST", {"origin": FOREIGN, "sec-fetch-site": "cross-site"})
    own = ask(form, plan, "/writes", "POST", {"origin": PAGE, "sec-fetch-site": "cross-site"})
    rules = RULES.replace("host: api.example", "host: other.example")
    rebound = ask(form, plan, "/hosts", rules=rules)

    assert [(403, {}), (200, {}), (421, {})] == [(it.status, it.shared) for it in (foreign, own, rebound)]
    assert 1 == plan.calls
    assert "urn:gobanfast:misdirected" == json.loads(rebound.body)["type"]


# ---- preflights


@forms
def test_a_preflight_is_answered_here(form):
    """204 with the grant, before the application; 403 without CORS headers for what is not granted."""
    plan = Plan()
    cases = {
        "granted": ({}, 204, PREFLIGHT),
        "foreign": ({"origin": FOREIGN}, 403, {}),
        "method": ({"access-control-request-method": "DELETE"}, 403, {}),
        "case of the method": ({"access-control-request-method": "put"}, 403, {}),
        "header": ({"access-control-request-headers": "x-b"}, 403, {}),
        "one of two headers": ({"access-control-request-headers": "x-a,x-b"}, 403, {}),
        "junk": ({"access-control-request-headers": "x-a,,,,,,,,,,,,,,,,,,,,,,,"}, 403, {}),
        "null": ({"origin": "null"}, 403, {}),
    }
    for case, (more, status, shared) in cases.items():
        answer = ask(form, plan, method="OPTIONS", headers=ASKS | more)

        assert (status, shared) == (answer.status, answer.shared), case
        assert "origin" in answer.vary
        assert status == 403 or b"" == answer.body
    assert 0 == plan.calls


@forms
def test_a_star_of_methods_and_headers_is_answered_with_what_was_asked(form):
    """Never with a star, and never for authorization."""
    asked = ASKS | {"access-control-request-method": "PATCH", "access-control-request-headers": "x-a,x-b"}
    answer = ask(form, Plan(), "/public", "OPTIONS", asked)

    assert (["PATCH"], ["x-a,x-b"]) == tuple(
        answer.lines(f"access-control-allow-{name}") for name in ("methods", "headers")
    )
    refused = ask(form, Plan(), "/public", "OPTIONS", asked | {"access-control-request-headers": "authorization"})
    assert (403, {}) == (refused.status, refused.shared)


@forms
def test_a_preflight_of_a_banned_client_and_no_visit(form):
    """A ban is 403 without CORS headers; rules that ban or challenge, limit and score do not see it."""
    plan, counted = Plan(), "trackers: {request_rate: {limit: 2, window: 60s, action: ban, for: 1h}}\nscore: {}\n"
    engine = Engine(Ruleset.from_text(counted + RULES))

    for agent in ["bad", "odd", *["any"] * 5]:
        answer = ask(form, plan, method="OPTIONS", headers=ASKS | {"user-agent": agent}, engine=engine)
        assert (204, PREFLIGHT) == (answer.status, answer.shared), agent
    assert (0, 200) == (plan.calls, ask(form, plan, headers=FROM_PAGE, engine=engine).status)
    engine.ban("127.0.0.1" if form == "aiohttp" else "203.0.113.9", duration="1h")
    banned = ask(form, plan, method="OPTIONS", headers=ASKS, engine=engine)
    assert (403, {}, 1) == (banned.status, banned.shared, plan.calls)


@pytest.mark.parametrize(("more", "lines"), [({}, 0), ({"origin": FOREIGN}, 1), ({"user-agent": "odd"}, 0)])
def test_a_preflight_that_is_granted_is_no_line_of_a_log(more, lines):
    """One that is not is, because somebody will ask why."""
    written = []
    sink = SimpleNamespace(write=written.extend, close=lambda: None)
    with closing(DecisionLog(sink)) as log:
        ask("asgi", Plan(), method="OPTIONS", headers=ASKS | more, log=log)
        assert log.flush(10)

    told = [json.loads(line) for line in written]
    assert [("withheld", True, "refused")] * lines == [(it["share"], it["preflight"], it["outcome"]) for it in told]


@forms
def test_other_options_are_requests(form):
    """Without Origin, without the method it announces, or of what is not owned: the application's."""
    plan = Plan(status=405)
    cases = [("/own", {"origin": PAGE}), ("/own", {"access-control-request-method": "PUT"}), ("/elsewhere", ASKS)]

    assert [405] * 3 == [ask(form, plan, path, "OPTIONS", headers).status for path, headers in cases]
    assert 3 == plan.calls


@forms
def test_a_preflight_comes_before_authentication(form):
    """A middleware that asks for a login stands behind us: it never sees a preflight."""
    if form.startswith("django"):
        pytest.skip("its middleware is listed first, as a check asks for (gobanfast.W001)")
    plan = Plan(status=401)

    assert (204, 0) == (ask(form, plan, method="OPTIONS", headers=ASKS).status, plan.calls)
    answer = ask(form, plan, headers=FROM_PAGE)
    assert (401, OWN) == (answer.status, answer.shared)


# ---- modes, and engines of another make


@forms
@pytest.mark.parametrize("mode", ["observe", "off"])
def test_modes_that_change_nothing(form, mode):
    """Neither lines nor answers: preflights, writes and hosts go to the application."""
    written = [*WRITTEN["one"], ("Vary", "accept")]
    options = {"routes": {"/": mode}}
    cases = [
        ("/own", "GET", FROM_PAGE), ("/own", "OPTIONS", ASKS), ("/hosts", "GET", {}),
        ("/writes", "POST", {"origin": FOREIGN, "sec-fetch-site": "cross-site"}),
    ]  # fmt: skip
    plan = Plan(headers=written)

    for path, method, headers in cases:
        rules = RULES.replace("host: api.example", "host: other.example")
        answer = ask(form, plan, path, method, headers, rules=rules, **options)
        assert (200, {"access-control-allow-origin": ["*"]}, ["accept"]) == (answer.status, answer.shared, answer.vary)
    assert len(cases) == plan.calls


@forms
def test_an_engine_of_another_make(form):
    """It shares nothing, so nothing is touched."""
    plan = Plan(headers=WRITTEN["one"])

    answer = ask(form, plan, headers=ASKS, method="OPTIONS", engine=FakeEngine())

    assert (200, {"access-control-allow-origin": ["*"]}, 1) == (answer.status, answer.shared, plan.calls)


class Counting(Engine):
    """Our engine, with a `decide` that adds to it."""

    asked = 0

    def decide(self, address, /, **signals):
        self.asked += 1
        return super().decide(address, **signals)


class Around:
    """An engine of another make that asks ours."""

    def __init__(self, engine):
        self._engine = engine

    def decide(self, address, /, **signals):
        return self._engine.decide(address, **signals)

    def __getattr__(self, name):
        return getattr(self._engine, name)


@forms
@pytest.mark.parametrize("wrap", [Counting, lambda rules: Around(Engine(rules))])
def test_an_engine_around_ours_shares_as_ours_does(form, wrap):
    """Who adds to `decide` loses no share rule: a write is refused, a preflight answered, a grant given."""
    cases = [
        ("/own", "GET", FROM_PAGE), ("/own", "GET", {"origin": FOREIGN}), ("/own", "OPTIONS", ASKS),
        ("/own", "OPTIONS", ASKS | {"origin": FOREIGN}), ("/hosts", "GET", {"host": "rebound.example"}),
        ("/writes", "POST", {"origin": FOREIGN, "sec-fetch-site": "cross-site"}),
    ]  # fmt: skip
    for path, method, headers in cases:
        answers = []
        for engine in (None, wrap(Ruleset.from_text(RULES))):
            plan = Plan(headers=WRITTEN["one"])
            answer = ask(form, plan, path, method, headers, engine=engine)
            answers.append((answer.status, answer.shared, answer.vary, plan.calls))
        assert answers[0] == answers[1], (path, method, headers)


@forms
def test_rules_that_are_swapped_while_the_application_answers(form):
    """The answer is that of the rules that decided."""
    engine = Engine(Ruleset.from_text(RULES))

    class Swapping(Plan):
        @property
        def raises(self):
            engine.swap(Ruleset.from_text("rules: []"))

        @raises.setter
        def raises(self, value):
            pass

    assert OWN == ask(form, Swapping(headers=WRITTEN["one"]), headers=FROM_PAGE, engine=engine).shared
    assert {"access-control-allow-origin": ["*"]} == ask(form, Swapping(headers=WRITTEN["one"]), engine=engine).shared


def test_own_pages_are_no_news() -> None:
    """A service's own page sends an Origin with what it writes: it needs no grant, and nobody is told of it."""

    from gobanfast._core.decision import is_plain

    rules = '{version: 1, share: [{id: apps, when: {origin: "https://app.example"}, action: grant}]}'
    engine = Engine(Ruleset.from_text(rules))

    def decide(origin: bytes):
        return engine.decide("192.0.2.1", headers=[(b"host", b"api.example"), (b"origin", origin)], method="POST")

    own, foreign = decide(b"https://api.example"), decide(b"https://evil.example")
    assert ("withheld", True, True) == (own.share, own.own_page, is_plain(own))
    assert ("withheld", False, False) == (foreign.share, foreign.own_page, is_plain(foreign))


# ---- header lines that were replaced


@forms
def test_the_first_line_of_the_application_that_is_replaced_is_told(form):
    """Once a guard, with the path; nothing where the application writes none, or where no rule owns the resource."""
    told = []
    for written, path in ((WRITTEN["one"], "/own"), (WRITTEN["none"], "/own"), (WRITTEN["one"], "/elsewhere")):
        answer = ask(form, Plan(headers=written), path, headers=FROM_PAGE)
        told.append([it.getMessage() for it in answer.logged if "access-control-*" in it.getMessage()])

    assert [1, 0, 0] == [len(lines) for lines in told]
    assert "first at /own" in told[0][0]


def test_lines_that_were_replaced_are_counted_and_told_once(caplog):
    """Each line counts, in the guard and in its metrics; the log has the first."""
    from gobanfast.telemetry.metrics import Metrics

    engine = Engine(Ruleset.from_text(RULES))
    metrics = Metrics(engine)
    middleware = asgi.Gobanfast(asgi_app(Plan(headers=WRITTEN["two"])), engine, metrics=metrics)
    for _ in range(3):
        ask_asgi(middleware, "/own", "GET", [("host", "api.example"), ("origin", PAGE)])

    assert 6 == middleware.guard.foreign_headers
    assert 6 == metrics.total()["counts"]["gobanfast_foreign_headers"]
    assert 1 == sum("access-control-*" in record.getMessage() for record in caplog.records)
