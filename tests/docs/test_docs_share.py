"""docs/share.md: its programs share what its rules say, and no more."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gobanfast import Engine, RuleError, Ruleset
from gobanfast.frontends.asgi import Gobanfast
from gobanfast.rules.presets import presets
from share_forms import Plan, Server, asgi_app, ask_asgi, environ_of
from share_forms import ask as ask_form

PAGE = (Path(__file__).parents[2] / "docs" / "share.md").read_text()
BLOCKS = dict(re.findall(r"^```\w+\n# (\w+\.\w+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))
APP, FOREIGN = "https://app.example.com", "https://evil.example"
ASKS = {"access-control-request-method": "PUT", "access-control-request-headers": "authorization,content-type"}


def test_the_tests_of_the_rules_pass(tmp_path):
    """And they are asked: the same rules with a wrong test do not load."""
    (tmp_path / "rules.yaml").write_text(BLOCKS["rules.yaml"])
    (tmp_path / "wrong.yaml").write_text(BLOCKS["rules.yaml"].replace("share: withheld", "share: granted"))

    Engine.load(tmp_path / "rules.yaml")
    with pytest.raises(RuleError, match="withheld"):
        Engine.load(tmp_path / "wrong.yaml")


@pytest.fixture(params=["share_fastapi.py", "share_flask.py", "share_settings.py"])
def asked(request, tmp_path, monkeypatch):
    """A function that asks the program of the page."""
    name, names = request.param, {"__name__": "page"}
    if name == "share_settings.py":
        django = pytest.importorskip("django")
    else:
        pytest.importorskip(name.removeprefix("share_").removesuffix(".py"))
    (tmp_path / "rules.yaml").write_text(BLOCKS["rules.yaml"])
    monkeypatch.chdir(tmp_path)
    exec(BLOCKS[name], names)  # noqa: S102
    if name != "share_settings.py":
        app = names["app"]
        yield lambda *what: ask(app, *what, is_asgi=name == "share_fastapi.py")
        return
    from django.core.wsgi import get_wsgi_application
    from django.http import JsonResponse
    from django.test import override_settings
    from django.urls import path

    import test_frontend_django  # noqa: F401 - configures Django
    from gobanfast.frontends.django import guard

    assert django
    urls = type("Urls", (), {"urlpatterns": [path("api/me", lambda request: JsonResponse({"name": "me"}))]})
    given = {key: names[key] for key in ("INSTALLED_APPS", "MIDDLEWARE", "GOBANFAST")}
    guard.cache_clear()
    with override_settings(ROOT_URLCONF=urls, **given):
        app = get_wsgi_application()
        yield lambda *what: ask(app, *what, is_asgi=False)
    guard.cache_clear()


def ask(app, method, headers, *, is_asgi):
    pairs = [("host", "api.example.com"), *headers.items()]
    if is_asgi:
        return ask_asgi(app, "/api/me", method, pairs)
    return Server().run(app, environ_of("/api/me", method, pairs))


def test_a_program_shares_what_the_rules_say(asked):
    """A page of ours reads and asks first; a foreign one neither reads nor writes."""
    granted, preflight = asked("GET", {"origin": APP}), asked("OPTIONS", {"origin": APP} | ASKS)
    withheld, written = (asked(method, {"origin": FOREIGN}) for method in ("GET", "POST"))

    shared = {"access-control-allow-origin": [APP], "access-control-allow-credentials": ["true"]}
    assert (200, shared) == (granted.status, granted.shared)
    assert b"me" in granted.body
    assert (204, ["PUT"], ["600"]) == (
        preflight.status, preflight.lines("access-control-allow-methods"), preflight.lines("access-control-max-age"),
    )  # fmt: skip
    assert (200, {}, 403, {}) == (withheld.status, withheld.shared, written.status, written.shared)


def test_a_500_page_of_the_application():
    """Kept, and readable, where the application is wrapped; a bare one, readable, too, where a middleware is added."""
    fastapi = pytest.importorskip("fastapi")
    engine = Engine(Ruleset.from_text(BLOCKS["rules.yaml"]))
    answers = []
    for wraps in (True, False):
        app = fastapi.FastAPI()

        @app.exception_handler(Exception)
        async def page(request, error):
            return fastapi.Response(b"our page", 500)

        @app.get("/api/me")
        async def fails():
            raise OSError("the application is broken")

        if not wraps:
            app.add_middleware(Gobanfast, engine=engine)
        answers.append(ask(Gobanfast(app, engine) if wraps else app, "GET", {"origin": APP}, is_asgi=True))

    assert [500, 500] == [answer.status for answer in answers]
    assert [b"our page", b"Internal Server Error"] == [answer.body for answer in answers]
    assert [[APP]] * 2 == [answer.lines("access-control-allow-origin") for answer in answers]
    assert [OSError] * 2 == [type(answer.error) for answer in answers]


RECIPES = [name for name in BLOCKS if name.endswith(".yaml")]


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_load_and_pass_their_tests(name):
    """Each with tests of both kinds: what is shared, and what is not."""
    ruleset = Ruleset.from_text(BLOCKS[name])

    assert [] == ruleset.failures()
    shared = {case.share for case in ruleset.tests}
    assert len(shared) > 1 or name == "fetch_events.yaml"


def test_what_answers_mean_to_a_page():
    """Statuses, header lines, and whether the application ran, as the table has them."""
    plan = Plan()
    rules = BLOCKS["cookies.yaml"] + "rules: [{id: bad, when: {header: {user-agent: bad}}, action: ban}]\n"
    app = Gobanfast(asgi_app(plan), Engine(Ruleset.from_text(rules)))
    found = []
    for method, headers in (
        ("GET", {"origin": APP}), ("GET", {"origin": FOREIGN}), ("POST", {"origin": FOREIGN}),
        ("OPTIONS", {"origin": APP} | ASKS),
        ("OPTIONS", {"origin": APP} | ASKS | {"access-control-request-headers": "content-type"}),
        ("OPTIONS", {"origin": FOREIGN} | ASKS), ("GET", {"origin": APP, "user-agent": "bad"}),
    ):  # fmt: skip
        before = plan.calls
        answer = ask(app, method, headers, is_asgi=True)
        found.append((answer.status, bool(answer.lines("access-control-allow-origin")), plan.calls - before))

    assert [
        (200, True, 1), (200, False, 1), (403, False, 0), (403, False, 0), (204, True, 0), (403, False, 0),
        (403, True, 0),
    ] == found  # fmt: skip


@pytest.mark.parametrize(("origin", "status"), [(APP, 200), (None, 200), (FOREIGN, 403)])
def test_sockets(origin, status):
    """A page that is listed and a program open one, another page does not; the grant alone says so, too."""
    text, headers = BLOCKS["sockets.yaml"], {} if origin is None else {"origin": origin}
    alone = "\n".join(line for line in text.splitlines() if "browsers" not in line)
    for rules in (text, alone):
        engine = Engine(Ruleset.from_text(rules))
        pairs = {"host": "api.example.com", "upgrade": "websocket", "connection": "upgrade"} | headers
        answer = ask_form("wsgi", Plan(), "/ws", headers=pairs, engine=engine)

        assert status == answer.status


def test_links_lead_somewhere():
    """Other pages of this folder, and their presets."""
    assert len(links := set(re.findall(r"\]\(([\w./-]+\.md)", PAGE))) > 1
    assert [] == [link for link in links if not (Path(__file__).parents[2] / "docs" / link).exists()]
    assert set(re.findall(r"--preset ([a-z]+)", PAGE)) <= set(presets())
