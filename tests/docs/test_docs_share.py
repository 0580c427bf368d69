"""docs/share.md: its programs share what its rules say, and no more."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gobanfast import Engine, RuleError, Ruleset
from gobanfast.frontends.asgi import Gobanfast
from share_forms import Server, ask_asgi, environ_of

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
