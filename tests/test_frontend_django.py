"""The Django middleware under WSGI and ASGI, its setting, and its system checks."""

from __future__ import annotations

import asyncio

import pytest

from gobanfast.frontends.tls import CURRENT, Handshake
from gobanfast.frontends.trust import Trust
from http_fakes import FakeEngine
from test_frontend_asgi import ask

django = pytest.importorskip("django")

from django.conf import settings  # noqa: E402

BANNED, FAILING, GOOD = "203.0.113.66", "203.0.113.99", "203.0.113.9"
MIDDLEWARE = "gobanfast.frontends.django.GobanfastMiddleware"

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        SECRET_KEY="secret of a test",  # noqa: S106
        MIDDLEWARE=[MIDDLEWARE],
        INSTALLED_APPS=["gobanfast.frontends.django.GobanfastConfig"],
        GOBANFAST={"engine": FakeEngine},
        USE_TZ=True,
    )
    django.setup()

from django.core import checks  # noqa: E402
from django.core.asgi import get_asgi_application  # noqa: E402
from django.http import JsonResponse  # noqa: E402
from django.test import AsyncClient, Client, override_settings  # noqa: E402
from django.urls import path  # noqa: E402

from gobanfast.frontends.django import check_settings, gate  # noqa: E402


def told(request):
    return JsonResponse(
        {"action": request.gobanfast.action, "address": request.gobanfast.address, "id": request.gobanfast_request_id}
    )


def view(request):
    return told(request)


async def async_view(request):
    return told(request)


urlpatterns = [path("", view), path("async", async_view), path("health", lambda request: JsonResponse({}))]


@pytest.fixture
def configured(request):
    """Settings for one test."""
    gate.cache_clear()
    with override_settings(GOBANFAST={"engine": FakeEngine} | getattr(request, "param", {})):
        yield
    gate.cache_clear()


def get(form, url="/", client=GOOD, **headers):
    if form == "wsgi":
        return Client().get(url, REMOTE_ADDR=client, headers=headers)

    async def ask():
        return await AsyncClient().get(url, headers=headers)

    return asyncio.run(ask())


both_forms = pytest.mark.parametrize("form", ["wsgi", "asgi"])


@both_forms
@pytest.mark.parametrize("url", ["/", "/async"])
def test_view_finds_the_decision(configured, form, url):
    """A view, sync or async, under either interface, reads the decision; the response carries the request id."""
    answered = get(form, url, client=GOOD)

    expected = GOOD if form == "wsgi" else "127.0.0.1"  # Django's async test client has one address for all
    assert {"action": "allow", "address": expected, "id": answered["X-Request-ID"]} == answered.json()


@both_forms
@pytest.mark.parametrize("configured", [{"trust": ["127.0.0.0/8", GOOD]}], indirect=True)
def test_banned_client_reaches_no_view(configured, form):
    """Behind a trusted proxy a banned client gets 403 and the reason, another one the view."""
    banned = get(form, **{"X-Forwarded-For": BANNED})
    good = get(form, **{"X-Forwarded-For": "203.0.113.8"})

    assert (403, "application/problem+json") == (banned.status_code, banned["Content-Type"])
    assert ("<probing>", banned["X-Request-Id"]) == (banned.json()["reason"], banned.json()["request_id"])
    assert "203.0.113.8" == good.json()["address"]


@pytest.mark.parametrize("configured", [{"routes": {"/health": "off"}}], indirect=True)
def test_routes_and_errors(configured, caplog):
    """A path named in `routes` is left alone; an engine that fails is answered 503."""
    assert 200 == get("wsgi", "/health", client=BANNED).status_code
    assert 503 == get("wsgi", client=FAILING).status_code
    assert "the engine is broken" in caplog.text


@pytest.mark.parametrize("configured", [{"challenge": {"keys": ["k" * 16], "difficulty": 4}}], indirect=True)
def test_challenge_gives_a_cookie(configured):
    """A solved challenge lets the request through to the view, with a pass in the response."""
    from test_challenge import solve

    client = Client(REMOTE_ADDR="203.0.113.77")
    page = client.get("/", headers={"Accept": "text/html"})
    name, _, value = solve(page_answer(page)).partition("=")
    client.cookies[name] = value
    answered = client.get("/", headers={"Accept": "text/html"})
    again = client.get("/")

    assert [403, 200, 200] == [page.status_code, answered.status_code, again.status_code]
    assert answered.cookies["gobanfast-pass"]["httponly"]
    assert "" == answered.cookies["gobanfast-work"].value


SEEN: list[str] = []


@pytest.mark.parametrize(
    ("host", "status"), [("a.example", 200), ("www.b.example", 200), ("c.example", 421), ("a.example:443", 200)]
)
@pytest.mark.parametrize(
    "configured",
    [
        {
            "names": ["a.example", "*.b.example"],
            "on_decision": lambda decision, request_id: SEEN.append(request_id),
        }
    ],
    indirect=True,
)
def test_misdirected_request_under_asgi(configured, host, status):
    """With `names`, a request for a host that the certificate does not cover is answered 421; hooks are told."""
    token = CURRENT.set(Handshake(None, "a.example", None, None, False))
    try:
        sent = ask(get_asgi_application(), GOOD, scheme="https", headers=[(b"host", host.encode())], query_string=b"")
    finally:
        CURRENT.reset(token)

    assert status == sent[0]["status"]
    assert [SEEN[-1].encode()] == [value for name, value in sent[0]["headers"] if name.lower() == b"x-request-id"]


def page_answer(response):
    from gobanfast.frontends.refusal import Answer

    return Answer(response.status_code, [], response.content)


def found():
    gate.cache_clear()
    return [message.id for message in check_settings()]


def test_checks_pass_when_nothing_is_wrong(configured):
    """Good settings: no message, also from Django's own run of all checks."""
    assert [] == found()
    assert [] == [message for message in checks.run_checks() if "gobanfast" in str(message.id)]


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ({"GOBANFAST": {}}, ["gobanfast.E001"]),
        ({"GOBANFAST": {"rules": "/nowhere/rules.yaml"}}, ["gobanfast.E001"]),
        ({"GOBANFAST": {"engine": FakeEngine, "trust": ["*"]}}, ["gobanfast.E001"]),
        ({"GOBANFAST": {"engine": FakeEngine, "tryst": []}}, ["gobanfast.E001"]),
        ({"GOBANFAST": {"engine": "http_fakes.NoSuchEngine"}}, ["gobanfast.E001"]),
        ({"GOBANFAST": {"engine": "http_fakes.FakeEngine", "trust": {"peers": ["unix"]}}}, []),
        ({"GOBANFAST": {"engine": FakeEngine, "trust": Trust(["unix"])}, "USE_X_FORWARDED_HOST": True}, []),
        ({"USE_X_FORWARDED_HOST": True}, ["gobanfast.W003"]),
        ({"MIDDLEWARE": ["django.middleware.common.CommonMiddleware", MIDDLEWARE]}, ["gobanfast.W001"]),
        ({"MIDDLEWARE": []}, ["gobanfast.W002"]),
    ],
)
def test_checks_name_what_is_wrong(configured, setting, expected):
    """Each way in which the guard would not work has a message."""
    with override_settings(**setting):
        assert expected == found()
    gate.cache_clear()
