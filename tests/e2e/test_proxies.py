"""The example configurations run by the proxies they are for: nginx, Caddy, Traefik and Envoy that ask the decision
service, and nginx before HAProxy before an application."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from pathlib import Path

import pytest

from servers import WAIT, program
from stores_fakes import eventually
from test_http_servers import BANNED, FAILING, GOOD, SERVERS, connected, free_port, get, python, spawned

EXAMPLES = Path(__file__).parents[2] / "examples"


def written(folder, name, changes):
    """The example with other ports, as a file of this test."""
    text = (EXAMPLES / name).read_text()
    for old, new in changes.items():
        assert old in text, f"{name} has no {old!r}"
        text = text.replace(old, new)
    path = folder / name
    path.write_text(text)
    return path


@contextmanager
def nginx(folder, changes):
    """Port of nginx with the example configuration."""
    path, port = program("nginx"), free_port()
    user = "user root;" if os.geteuid() == 0 else ""  # for a folder that is ours alone
    own = {"worker_processes auto;": f"{user} daemon off; pid {folder}/pid; error_log {folder}/error.log;",
           "http {": f"http {{ access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; "
           f"fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;",
           "listen 8080;": f"listen 127.0.0.1:{port};"}  # fmt: skip
    file = written(folder, "nginx.conf", own | changes)
    with spawned(path, "-p", str(folder), "-c", str(file), "-e", f"{folder}/error.log", port=port):
        yield port


@contextmanager
def application():
    port = free_port()
    with spawned(*SERVERS["uvicorn"](port), port=port, trust=["127.0.0.1"]):
        yield port


@contextmanager
def decision_service():
    port = free_port()
    command = python("-m", "uvicorn", "http_app:service", "--port", f"{port}", "--no-proxy-headers")
    with spawned(*command, port=port, trust=["127.0.0.1"]):
        yield port


@contextmanager
def caddy(folder, changes):
    """Port of Caddy with the example configuration."""
    path, port = program("caddy"), free_port()
    own = {
        "# Caddy asks": "{\n\tadmin off\n\tauto_https off\n}\n# Caddy asks",
        ":8080 {": f":{port} {{\n\tbind 127.0.0.1",
    }
    file = written(folder, "Caddyfile", own | changes)
    command = ["env", f"HOME={folder}", path, "run", "--adapter", "caddyfile", "--config", str(file)]
    with spawned(*command, port=port):
        yield port


@contextmanager
def traefik(folder, changes):
    """Port of Traefik with the example as its dynamic configuration."""
    path, port, api = program("traefik"), free_port(), free_port()
    file = written(folder, "traefik.yaml", changes)
    command = [path, f"--entrypoints.web.address=127.0.0.1:{port}", f"--providers.file.filename={file}"]
    command += ["--api.insecure=true", f"--entrypoints.traefik.address=127.0.0.1:{api}", "--log.level=ERROR"]
    command += ["--global.checknewversion=false", "--global.sendanonymoususage=false"]
    with spawned(*command, port=port):
        assert eventually(lambda: get(api, "/api/http/routers/application@file")[0] == 200)  # it listens before that
        yield port


@contextmanager
def envoy(folder, changes):
    """Port of Envoy with the example configuration."""
    path, port = program("envoy"), free_port()
    own = {"{address: 0.0.0.0, port_value: 8080}": f"{{address: 127.0.0.1, port_value: {port}}}"}
    apart = {f"127.0.0.1, port_value: {old.partition(':')[2]}": new.replace(":", ", port_value: ")
             for old, new in changes.items()}  # fmt: skip
    service = "http://127.0.0.1:8787"
    file = written(
        folder, "envoy.yaml", own | apart | {service: service.replace("127.0.0.1:8787", changes["127.0.0.1:8787"])}
    )
    command = [path, "-c", str(file), "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
    with spawned(*command, port=port):
        yield port


PROXIES = [nginx, caddy, traefik, envoy]


@pytest.fixture(scope="module", params=PROXIES, ids=lambda proxy: proxy.__name__)
def asking(request, tmp_path_factory):
    """Port of a proxy that asks the decision service and hands on to the application."""
    with application() as app, decision_service() as service:
        changes = {"127.0.0.1:8787": f"127.0.0.1:{service}", "127.0.0.1:8000": f"127.0.0.1:{app}"}
        with request.param(tmp_path_factory.mktemp("proxy"), changes) as port:
            yield port


def test_proxy_asks_for_every_request(asking):
    """Through the proxy a good client reaches the application with one id, a banned one the reason in its own form."""
    status, headers, body = get(asking, "/page?x=1", method="POST", body=b"x" * 100_000)
    banned = get(asking, source=BANNED, method="POST", body=b"x" * 100_000)
    page = get(asking, source=BANNED, Accept="text/html")

    told = json.loads(body)
    assert (200, GOOD, "ok", 100_000) == (status, told["address"], told["status"], told["length"])
    assert told["request_id"] == headers["x-request-id"]
    assert (403, "<probing>") == (banned[0], json.loads(banned[2])["reason"])
    assert (403, True) == (page[0], page[2].startswith(b"<!doctype html>"))


def test_proxy_hands_on_no_forged_words(asking):
    """What a client writes into forwarding headers, request ids and the service's own headers changes nothing."""
    forged = {"X-Forwarded-For": GOOD, "X-Real-IP": GOOD, "Forwarded": f"for={GOOD}", "X-Original-URI": "/health",
              "X-Forwarded-Uri": "/health", "X-Forwarded-Method": "GET", "X-Request-ID": "mine"}  # fmt: skip

    assert 403 == get(asking, source=BANNED, **forged)[0]
    status, headers, _ = get(asking, source=GOOD, **forged | {"X-Forwarded-For": BANNED})
    assert (200, False) == (status, headers["x-request-id"] == "mine")


def test_proxy_answers_for_a_failing_service(asking, request):
    """Where deciding fails the request does not go on, and the client is told so; Traefik knows 403 alone."""
    assert (403 if "traefik" in request.node.name else 503) == get(asking, source=FAILING)[0]


RULES = """
version: 1
rules:
- {id: secret-id, when: {prefix: 127.0.0.66/32}, action: ban, reason: secret-reason}
- {id: rented, when: {prefix: 127.0.0.77/32}, action: challenge, reason: secret-reason}
"""


@pytest.fixture(scope="module", params=PROXIES, ids=lambda proxy: proxy.__name__)
def counting(request, tmp_path_factory):
    """(port of the proxy, of the service, path of its log): `gobanfast serve` as the examples have it."""
    folder, port = tmp_path_factory.mktemp("serve"), free_port()
    (folder / "rules.yaml").write_text(RULES)
    (folder / "keys").write_text("k" * 16)
    command = python("-m", "gobanfast", "serve", "--rules", str(folder / "rules.yaml"), "--port", f"{port}")
    command += ["--log", f"file:{folder}/log", "--challenge-keys", str(folder / "keys"), "--trust", "127.0.0.1"]
    with application() as app, spawned(*command, port=port):
        changes = {"127.0.0.1:8787": f"127.0.0.1:{port}", "127.0.0.1:8000": f"127.0.0.1:{app}"}
        with request.param(tmp_path_factory.mktemp("proxy"), changes) as edge:
            yield edge, port, folder / "log"


def test_a_refusal_is_one_decision(counting):
    """Of each refused request there is one decision, one line in the log with the client's request id, and one count;
    the page says what /check decided, and nothing of rules, causes and reasons."""
    edge, service, log = counting
    browser = {"Accept": "text/html"}
    answers = [get(edge, f"/{number}", source=BANNED) for number in range(3)]
    answers += [get(edge, source="127.0.0.77", **browser), get(edge, source="127.0.0.77")]
    forged = get(edge, source=BANNED, X_Gobanfast_Refusal="e30.0", X_Gobanfast_Action="allow")

    def lines():
        return [json.loads(line) for line in log.read_text().splitlines()]

    assert eventually(lambda: log.exists() and len(lines()) >= 6)
    metrics = get(service, "/metrics", source="127.0.0.1")[2].decode()
    assert [403] * 6 == [status for status, _, _ in [*answers, forged]]
    assert [headers["x-request-id"] for _, headers, _ in [*answers, forged]] == [line["request"] for line in lines()]
    assert [None] * 3 + ["challenged", "refused", None] == [line["outcome"] for line in lines()]
    assert "ban_total 4.0" in metrics.splitlines()
    assert 'gobanfast_decisions_total{action="challenge",cause="rule"} 2.0' in metrics.splitlines()
    for _, headers, body in [*answers, forged]:
        assert not [name for name in headers if name.lower().startswith("x-gobanfast")]
        assert b"secret" not in body
        assert not {"code", "reason"} & (set() if body.startswith(b"<!") else json.loads(body).keys())
    assert (b"data-task" in answers[3][2], "urn:gobanfast:challenge") == (True, json.loads(answers[4][2])["type"])


def test_a_task_solved_behind_a_proxy_lets_in(counting):
    """The page that the proxy shows has a task whose solution lets this client in; the log says so. The pass reaches
    the browser as a cookie of its own, and lets in without the solution."""
    from gobanfast.frontends.http.refusal import HttpResponse
    from test_challenge import solve

    edge, _, log = counting
    browser = {"source": "127.0.0.77", "Accept": "text/html"}
    page = get(edge, "/page", **browser)
    status, headers, _ = get(edge, "/page", **browser, Cookie=solve(HttpResponse(403, [], page[2])))
    passes = [text for text in headers.get_all("set-cookie", []) if text.startswith("gobanfast-pass=")]

    assert (200, 1) == (status, len(passes))
    assert {"Max-Age=43200", "Path=/", "HttpOnly", "SameSite=Lax"} == set(passes[0].split("; ")[1:])
    assert 200 == get(edge, "/page", **browser, Cookie=passes[0].partition(";")[0])[0]
    assert 403 == get(edge, "/page", source="127.0.0.77")[0]
    assert eventually(lambda: '"outcome":"solved"' in log.read_text())
    assert eventually(lambda: '"outcome":"passed"' in log.read_text())


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """(nginx port, HAProxy port): nginx before HAProxy before the application, which asks its own engine."""
    folder = tmp_path_factory.mktemp("chain")
    with (
        application() as app,
        haproxy(folder, {"127.0.0.1:8000": f"127.0.0.1:{app}"}) as edge,
        decision_service() as service,
        nginx(folder, {"127.0.0.1:8787": f"127.0.0.1:{service}", "127.0.0.1:8000": f"127.0.0.1:{edge}"}) as port,
    ):
        yield port, edge


def test_chain_keeps_one_id_and_the_true_client(chain):
    """nginx, HAProxy and the application say one request id, and the application sees the client that nginx saw."""
    port, edge = chain

    status, headers, body = get(port, X_Forwarded_For="203.0.113.9")
    told = json.loads(body)
    straight = json.loads(get(edge, x_forwarded_for="203.0.113.9", x_request_id="mine")[2])

    assert (200, GOOD, "ok") == (status, told["address"], told["status"])
    assert [told["request_id"]] == headers.get_all("x-request-id")
    assert (GOOD, False) == (straight["address"], straight["request_id"] == "mine")
    assert 403 == get(edge, source=BANNED)[0]


SHARE = """
version: 1
trust: {prefix: [127.0.0.1/32], host: x-forwarded-host}
share:
- {id: rebind, when: {not: {host: [api.example.com]}}, action: refuse}
- id: events
  when: {path: /events/**, origin: "https://app.example.com"}
  action: grant
  credentials: true
  methods: [PUT]
  headers: [x-a]
  expose: [x-b]
"""
PAGE = "https://app.example.com"


@contextmanager
def haproxy(folder, changes):
    """Port of HAProxy with the example configuration."""
    path, port = program("haproxy"), free_port()
    own = {"bind :8081": f"bind 127.0.0.1:{port}"}
    file = written(folder, "haproxy.cfg", own | {old: new for old, new in changes.items() if old.endswith(":8000")})
    with spawned(path, "-db", "-f", str(file), port=port):
        yield port


@contextmanager
def share_application(rules):
    """Port of an application that says itself who may read; with the middleware where there are rules."""
    port = free_port()
    which = ("share_app:plain",) if rules is None else ("share_app:guarded", "--factory")
    command = python("-m", "uvicorn", *which, "--port", f"{port}", "--no-proxy-headers")
    with spawned("env", f"TEST_RULES={rules}", *command, port=port):
        yield port


@pytest.fixture(scope="module", params=[*PROXIES, haproxy], ids=lambda proxy: proxy.__name__)
def sharing(request, tmp_path_factory):
    """(name, port) of a proxy that carries out share rules. HAProxy leaves them to the application's middleware,
    Traefik what goes on an answer."""
    folder, port = tmp_path_factory.mktemp("share"), free_port()
    rules = folder / "rules.yaml"
    rules.write_text(SHARE)
    command = python("-m", "gobanfast", "serve", "--rules", str(rules), "--port", f"{port}")
    with (
        share_application(rules if request.param in {haproxy, traefik} else None) as app,
        spawned(*command, port=port),
        request.param(folder, {"127.0.0.1:8787": f"127.0.0.1:{port}", "127.0.0.1:8000": f"127.0.0.1:{app}"}) as edge,
    ):
        yield request.param.__name__, edge


def asked_by(edge, origin, path="/events/1", host="api.example.com", **more):
    """(status, access-control-* of the answer, names in Vary, body) of a page's request."""
    own = {} if origin is None else {"Origin": origin}
    status, headers, body = get(edge, path, Host=host, **own, **more)
    cors = sorted((name.lower(), value) for name, value in headers.items() if name.lower().startswith("access-control"))
    vary = {name.strip().lower() for line in headers.get_all("vary", []) for name in line.split(",")}
    return status, cors, vary, body


def test_proxy_gives_the_grant_and_nothing_else(sharing):
    """A page that may read gets the grant, once, others none, whatever the application says; all get what the answer
    varies by, beside what the application says of it."""
    _, edge = sharing
    granted = [("access-control-allow-credentials", "true"), ("access-control-allow-origin", PAGE),
               ("access-control-expose-headers", "x-b")]  # fmt: skip

    for origin, expected in ((PAGE, granted), ("https://evil.example", []), (None, []), (PAGE, granted)):
        status, cors, vary, _ = asked_by(edge, origin)
        assert (200, expected) == (status, cors)
        assert {"origin", "accept-encoding"} <= vary


def test_proxy_has_preflights_answered(sharing):
    """A preflight that is granted gets 204 and the grant, another one 403 and none; the application sees neither."""
    _, edge = sharing
    asks = {"method": "OPTIONS", "Access_Control_Request_Method": "PUT", "Access_Control_Request_Headers": "x-a"}
    status, cors, _, body = asked_by(edge, PAGE, **asks)
    refused = [asked_by(edge, "https://evil.example", **asks),
               asked_by(edge, PAGE, **asks | {"Access_Control_Request_Method": "DELETE"})]  # fmt: skip
    plain = asked_by(edge, PAGE, method="OPTIONS")

    assert (204, b"", {"credentials", "headers", "methods", "origin"}) == (
        status, body, {name.removeprefix("access-control-allow-") for name, _ in cors})  # fmt: skip
    assert [(403, [])] * 2 == [answer[:2] for answer in refused]
    assert (200, True) == (plain[0], b"headers" in plain[3])  # no preflight: the application's


def test_proxy_refuses_foreign_hosts(sharing):
    """A host that is not served is refused with 421 (by Traefik with 403), whatever host a page's script writes beside
    it; the application is told the host that was asked for."""
    name, edge = sharing
    for more in ({}, {"X_Forwarded_Host": "api.example.com"}):
        assert (403 if name == "traefik" else 421) == asked_by(edge, None, host="evil.example", **more)[0]
    status, _, _, body = asked_by(edge, None, X_Forwarded_Host="evil.example")
    handed = dict(json.loads(body)["headers"])

    assert (200, "api.example.com") == (status, handed["host"])
    assert handed["x-forwarded-host"] == "api.example.com"


def test_proxy_hands_on_no_words_of_proxies(sharing):
    """What only proxies say to each other does not reach the application from a client."""
    _, edge = sharing
    body = asked_by(edge, None, X_Envoy_Attempt_Count="7", X_Envoy_External_Address="203.0.113.1")[3]

    assert not {"7", "203.0.113.1"} & {value for _, value in json.loads(body)["headers"]}


def test_proxy_opens_sockets_of_granted_pages_alone(sharing):
    """A page that may read with credentials, and a program, open a WebSocket; another page does not."""
    from websockets.exceptions import InvalidStatus
    from websockets.sync.client import connect

    _, edge = sharing

    def opened(origin):
        with connect(
            "ws://api.example.com/events/1", sock=connected(edge, ""), origin=origin, open_timeout=WAIT
        ) as client:
            return client.recv(WAIT)

    assert ["open"] * 2 == [opened(PAGE), opened(None)]
    with pytest.raises(InvalidStatus) as refused:
        opened("https://evil.example")
    assert 403 == refused.value.response.status_code
