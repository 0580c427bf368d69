"""The Django middleware under WSGI and ASGI, its setting, and its system checks."""

from __future__ import annotations

import asyncio
import textwrap
import threading
from contextlib import closing
from pathlib import Path

import pytest

import gobanfast
from gobanfast.frontends.tls import CURRENT, Handshake
from gobanfast.frontends.trust import Trust
from http_fakes import FakeEngine
from test_frontend_asgi import ask

django = pytest.importorskip("django")

from django.conf import settings  # noqa: E402

RULES = Path(gobanfast.__file__).with_name("demo") / "rules.yaml"
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
from django.http import HttpResponse, JsonResponse  # noqa: E402
from django.test import AsyncClient, AsyncRequestFactory, Client, RequestFactory, override_settings  # noqa: E402
from django.urls import path  # noqa: E402

from gobanfast.frontends.django import check_settings, guard, serving_guard  # noqa: E402


def told(request):
    return JsonResponse(
        {"action": request.gobanfast.action, "address": request.gobanfast.address, "id": request.gobanfast_request_id}
    )


def view(request):
    return told(request)


async def async_view(request):
    return told(request)


def headed(request):
    environ = getattr(request, "environ", None)
    own = None if environ is None else "HTTP_X_ENVOY_INTERNAL" in environ
    name = "HTTP_X_ENVOY_INTERNAL"
    return JsonResponse([name in request.META, name[5:] in request.headers, request.headers["x-a"], own], safe=False)


urlpatterns = [
    path("headers", headed),
    path("", view),
    path("async", async_view),
    path("timed", lambda request: HttpResponse("", headers={"Server-Timing": "db;dur=1"})),
    path("health", lambda request: JsonResponse({})),
]


@pytest.fixture
def configured(request):
    """Settings for one test."""
    guard.cache_clear()
    with override_settings(GOBANFAST={"engine": FakeEngine} | getattr(request, "param", {})):
        yield
    guard.cache_clear()


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


def edge_engine():
    from gobanfast import Engine, Ruleset

    return Engine(Ruleset.from_text(
        "edge_headers: {strip: [x-envoy-*]}\nrules: [{id: a, when: {prefix: 192.0.2.0/24}, action: ban}]"
    ))  # fmt: skip


@both_forms
@pytest.mark.parametrize(
    "configured",
    [{"engine": edge_engine}, {"engine": edge_engine, "trust": ["127.0.0.0/8", GOOD]}],
    indirect=True,
)
def test_a_view_does_not_see_what_only_proxies_say(configured, form):
    """Of an untrusted peer `edge_headers` are gone from META and headers, not from the server's own environ."""
    answered = get(form, "/headers", x_envoy_internal="true", x_a="b", x_forwarded_for="203.0.113.5").json()
    believed = bool(settings.GOBANFAST.get("trust"))

    assert [believed, believed, "b"] == answered[:3]
    assert answered[3] in {form == "wsgi", None}


@both_forms
@pytest.mark.parametrize("configured", [{"trust": ["127.0.0.0/8", GOOD], "show_reason": True}], indirect=True)
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
    from gobanfast.frontends.http.refusal import HttpResponse

    return HttpResponse(response.status_code, [], response.content)


def found():
    guard.cache_clear()
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
        ({"GOBANFAST": {"engine": FakeEngine, "store": "memory:"}}, ["gobanfast.E001"]),
        ({"GOBANFAST": {"rules": RULES, "store": "bans.db"}}, ["gobanfast.E001"]),
        ({"GOBANFAST": {"rules": RULES, "store": Path("bans.db")}}, ["gobanfast.E001"]),
        ({"GOBANFAST": {"rules": RULES, "watch": "yes"}}, ["gobanfast.E001"]),
        ({"GOBANFAST": {"rules": RULES, "asn": "/nowhere/asn.gbf"}}, ["gobanfast.E001"]),
        ({"GOBANFAST": {"rules": RULES, "store": "sqlite:bans.db", "watch": True}}, []),
    ],
)
def test_checks_name_what_is_wrong(configured, setting, expected):
    """Each way in which the guard would not work has a message."""
    with override_settings(**setting):
        assert expected == found()
    guard.cache_clear()


def test_checks_touch_nothing(configured, tmp_path):
    """A check reads the settings: it makes no store's file and starts no thread, which commands would leave behind."""
    before = set(threading.enumerate())
    store = tmp_path / "bans.db"

    with override_settings(GOBANFAST={"rules": RULES, "store": f"sqlite:{store}", "watch": True}):
        assert [] == found()
    guard.cache_clear()

    assert (False, before) == (store.exists(), set(threading.enumerate()))


@pytest.mark.parametrize(
    ("workers", "setting", "expected"),
    [
        ("4", {"rules": RULES}, ["gobanfast.W004"]),
        ("1", {"rules": RULES}, []),
        ("4", {"rules": RULES, "store": "sqlite:bans.db"}, []),
        ("4", {"engine": FakeEngine}, ["gobanfast.W004"]),
    ],
)
def test_several_workers_without_a_store(configured, monkeypatch, workers, setting, expected):
    """Where the environment asks for several workers, bans that stay in each are a warning; with --deploy always."""
    monkeypatch.setenv("WEB_CONCURRENCY", workers)
    with override_settings(GOBANFAST=setting):
        assert expected == found()
        deployed = [message.id for message in checks.run_checks(include_deployment_checks=True)]
    guard.cache_clear()

    assert ("store" not in setting) == ("gobanfast.W004" in deployed)


def test_files_are_followed_and_bans_are_kept(configured, tmp_path):
    """With `watch` and `store` the middleware's engine takes changed rules and writes its bans to the store."""
    from gobanfast.stores import open_store
    from stores_fakes import eventually

    rules, store = tmp_path / "rules.yaml", f"sqlite:{tmp_path / 'bans.db'}"
    rules.write_text("rules: [{id: probes, when: {path: /health}, action: ban, for: 1h}]\n")
    with override_settings(GOBANFAST={"rules": rules, "store": store, "watch": True}):
        guard.cache_clear()
        engine = serving_guard().engine
        try:
            assert serving_guard().engine.watcher is engine.watcher
            engine.decide("203.0.113.7", path="/health")
            assert engine.sync.flush()
            rules.write_text("rules: [{id: other, when: {prefix: 192.0.2.1/32}, action: ban}]\n")
            assert eventually(lambda: "ban" == engine.decide("192.0.2.1").action)
        finally:
            engine.watcher.close()
            engine.sync.close()
    guard.cache_clear()

    with closing(open_store(store)) as kept:
        assert ["203.0.113.7"] == [ban.key for ban in kept.scan()]


PROJECT = """
    from pathlib import Path

    import django
    from django.conf import settings
    from django.core.wsgi import get_wsgi_application
    from django.http import HttpResponse
    from django.urls import re_path

    BASE_DIR = Path(__file__).parent
    settings.configure(
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        MIDDLEWARE=["gobanfast.frontends.django.GobanfastMiddleware"],
        GOBANFAST={"rules": BASE_DIR / "rules.yaml", "store": f"sqlite:{BASE_DIR / 'bans.db'}", "watch": True},
    )
    urlpatterns = [re_path("", lambda request: HttpResponse("fine"))]
    application = get_wsgi_application()
    """


@pytest.mark.parametrize("preload", [[], ["--preload"]])
def test_a_ban_holds_in_every_worker(tmp_path, preload):
    """Two gunicorn workers, the project imported before the fork or after it: whom one has banned, no one serves."""
    pytest.importorskip("gunicorn")
    from stores_fakes import eventually
    from test_http_servers import free_port, get, python, spawned

    (tmp_path / "rules.yaml").write_text("rules: [{id: probes, when: {path: /.env}, action: ban, for: 1h}]\n")
    (tmp_path / "project.py").write_text(textwrap.dedent(PROJECT))
    port = free_port()
    command = python("-m", "gunicorn", "project:application", "-w", "2", "--bind", f"127.0.0.1:{port}", *preload)

    with spawned(*command, port=port, cwd=tmp_path):
        assert 200 == get(port)[0]
        assert 403 == get(port, "/.env")[0]
        assert eventually(lambda: {403} == {get(port)[0] for _ in range(20)})
        assert 200 == get(port, source="127.0.0.10")[0]


@both_forms
@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_head_of_a_stream_ends(configured, form, method):
    """The headers of an endless stream and no part of it; GET has its parts."""
    from django.http import StreamingHttpResponse

    from gobanfast.frontends.django import GobanfastMiddleware

    async def endless():
        while True:
            yield b": x\n\n"

    def streamed(request):
        parts = iter(lambda: b": x\n\n", None) if form == "wsgi" else endless()
        return StreamingHttpResponse(parts, content_type="text/event-stream")

    async def streamed_later(request):
        return streamed(request)

    async def ask_later():
        request = AsyncRequestFactory().generic(method, "/")
        answered = await GobanfastMiddleware(streamed_later)(request)
        parts = answered.streaming_content
        return answered, await anext(parts, None)

    if form == "wsgi":
        answered = GobanfastMiddleware(streamed)(RequestFactory().generic(method, "/", REMOTE_ADDR=GOOD))
        first = next(answered.streaming_content, None)
    else:
        answered, first = asyncio.run(ask_later())

    assert (200, "text/event-stream") == (answered.status_code, answered["Content-Type"])
    assert (None if method == "HEAD" else b": x\n\n") == first


def timing_engine():
    return gobanfast.Engine(gobanfast.Ruleset.from_text("trace: {server_timing: true}"))


@pytest.mark.parametrize("configured", [{"engine": timing_engine}], indirect=True)
def test_what_a_view_times_is_told_beside_its_trace(configured):
    told = Client().get("/timed").headers["Server-Timing"]
    assert told.startswith('db;dur=1, traceparent;desc="00-')
