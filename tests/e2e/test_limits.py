"""Limits under real servers and clients: one count over eight workers, 429 as clients read it, logins that lock."""

from __future__ import annotations

import http.client
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from shutil import which

import httpx
import pytest
import tenacity

from test_http_servers import WAIT, free_port, spawned

CURL = which("curl") or ""
LOGIN = """
limits:
- {id: login, when: {path: /login, method: POST}, limit: 5, window: 15m, on_status: [401, 403], clear_on: [2xx, 3xx]}
"""


@contextmanager
def served(folder, rules, code, *command):
    """The base URL of the application in `code`, served by `command`, whose {port} is filled in."""
    (folder / "rules.yaml").write_text(rules)
    (folder / "shop.py").write_text(textwrap.dedent(code))
    port = free_port()
    filled = [part.format(port=port) for part in command]
    with spawned(sys.executable, "-m", *filled, port=port, cwd=folder):
        yield f"http://127.0.0.1:{port}"


WSGI = """
    from gobanfast import Engine
    from gobanfast.frontends.wsgi import Gobanfast

    def site(environ, start_response):
        start_response("200 OK", [("content-length", "2")])
        return [b"ok"]

    application = Gobanfast(site, Engine.load("rules.yaml"))
"""
GUNICORN = ("gunicorn", "shop:application", "-w", "{workers}", "-b", "127.0.0.1:{{port}}", "--log-level", "error")


def gunicorn(workers):
    return [part.format(workers=workers) for part in GUNICORN]


def test_fifty_over_eight_workers_is_fifty(tmp_path):
    """Eight workers load the rules each for itself, and let in together what the limit says."""
    rules = "limits: [{id: all, when: any, limit: 50, window: 1h}]"
    with served(tmp_path, rules, WSGI, *gunicorn(8)) as url:

        def ask(_):
            # eight workers may still be starting
            connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
            try:
                connection.request("GET", "/")
                return connection.getresponse().status
            finally:
                connection.close()

        with ThreadPoolExecutor(16) as pool:
            statuses = list(pool.map(ask, range(200)))

    assert (50, 150) == (statuses.count(200), statuses.count(429))


@pytest.mark.skipif(not CURL, reason="needs curl")
def test_a_429_as_curl_sees_it(tmp_path):
    rules = "limits: [{id: all, when: any, limit: 1, window: 1h}]"
    with served(tmp_path, rules, WSGI, *gunicorn(1)) as url:
        subprocess.run([CURL, "-s", url], check=True, capture_output=True)
        said = subprocess.run([CURL, "-si", url], check=True, capture_output=True, text=True).stdout

    head, _, body = said.partition("\n\n" if "\r" not in said else "\r\n\r\n")
    lines = head.lower().splitlines()
    assert lines[0].startswith("http/1.1 429")
    assert 'ratelimit-policy: "all";q=1;w=3600' in lines
    assert any(line.startswith('ratelimit: "all";r=0;t=3') for line in lines)
    assert any(line.startswith("retry-after: 3") for line in lines)
    assert '"title": "Too many requests"' in body


def test_a_client_that_waits_as_it_is_told_gets_in(tmp_path):
    rules = "limits: [{id: all, when: any, limit: 1, window: 1s}]"
    with served(tmp_path, rules, WSGI, *gunicorn(1)) as url:
        told = []

        @tenacity.retry(
            retry=tenacity.retry_if_result(lambda response: response.status_code == 429),
            wait=lambda state: float(state.outcome.result().headers["retry-after"]),
            stop=tenacity.stop_after_attempt(4),
        )
        def ask():
            told.append(httpx.get(url))
            return told[-1]

        statuses = [ask().status_code for _ in range(2)]

    assert [200, 200] == statuses
    assert 429 in [response.status_code for response in told]


FASTAPI = """
    from fastapi import FastAPI, HTTPException
    from gobanfast import Engine
    from gobanfast.frontends.asgi import Gobanfast

    app = FastAPI()

    @app.post("/login")
    def login(password: str):
        if password != "right":
            raise HTTPException(401)
        return {"welcome": True}

    app.add_middleware(Gobanfast, engine=Engine.load("rules.yaml"))
"""
DJANGO = """
    from django.conf import settings
    from django.core.wsgi import get_wsgi_application
    from django.http import HttpResponse
    from django.urls import path

    def login(request):
        return HttpResponse(status=200 if request.GET["password"] == "right" else 403)

    urlpatterns = [path("login", login)]
    settings.configure(
        ROOT_URLCONF="shop", ALLOWED_HOSTS=["*"], SECRET_KEY="only a test",
        MIDDLEWARE=["gobanfast.frontends.django.GobanfastMiddleware"], GOBANFAST={"rules": "rules.yaml"},
    )
    application = get_wsgi_application()
"""


@pytest.mark.parametrize(
    ("code", "command", "failed"),
    [
        (FASTAPI, ["uvicorn", "shop:app", "--port", "{port}", "--log-level", "error"], 401),
        (DJANGO, ["gunicorn", "shop:application", "-w", "2", "-b", "127.0.0.1:{port}", "--log-level", "error"], 403),
    ],
    ids=["fastapi", "django"],
)
def test_five_failed_logins_lock_the_sixth_and_a_success_clears(tmp_path, code, command, failed):
    with served(tmp_path, LOGIN, code, *command) as url:

        def login(password):
            return httpx.post(f"{url}/login", params={"password": password}, timeout=WAIT).status_code

        assert [failed] * 4 + [200] == [login("wrong") for _ in range(4)] + [login("right")]
        assert [failed] * 5 == [login("wrong") for _ in range(5)]
        assert [429, 429] == [login("wrong"), login("right")]
