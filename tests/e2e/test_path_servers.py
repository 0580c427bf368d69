"""What servers, proxies and frameworks serve is what was decided: odd targets sent as they are, under real servers."""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager
from importlib.util import find_spec

import pytest

from path_app import fill
from servers import WAIT, program
from test_http_servers import free_port, python, spawned
from test_proxies import caddy, nginx, written

# ruff: noqa: E501 - a list of targets
ODD = [
    "/{}", "//{}", "///{}", "/./{}", "/x/../{}", "/../{}", "/x/../../{}", "/%2e/{}", "/x/%2e%2e/{}", "/x/.%2E/{}",
    "/%2f{}", "/%2F%2f{}", "/x%2f..%2f{}", "/x%2f../{}", "/\\{}", "/x\\..\\{}", "/%5c{}", "/x%5c..%5c{}", "/;a/{}", "/;/{}",
    "/..;/{}", "/x/..;/{}", "/x/..;a=b/{}", "/%3b/{}", "/%252e%252e/{}", "/x/%252e%252e/{}", "/%252f{}", "/x%252f..%252f{}",
    "http://h/{}", "http://h//{}", "http://h/./{}", "http://h/x/../{}", "http://h/%2e%2e/{}", "/{}?a", "/{}?/../open", "/{}#a",
    "/x#/../{}", "/x?/../{}", "/x%3f/../{}", "/x%23/../{}", "/{}/", "/{}//", "/{}/.", "/{}/x/..", "/{}/../{}", "/{};a=b",
    "/{}%3fa", "/{}%23a", "/{}%00", "/{}%0a", "/x//../{}", "/x//..//../{}", "/x/./../{}", "/health/../{}", "/health//../{}",
    "/health%2f..%2f{}", "/health;/../{}", "/health%3f/../{}", "/health#/../{}", "/health/%2e%2e/{}", "/health\\..\\{}",
    "/health/%252e%252e/{}", "/health/..;/{}", "/%u002f{}", "/%c0%af{}", "/%c0%ae%c0%ae/{}", "/%ef%bc%8f{}", "/%2e%2e%2f{}",
    "/x/%%32e%%32e/{}", "/..%c0%af{}", "/ /../{}", "/%20/../{}", "/x/..%00/{}", "/.//{}", "/././/{}", "*/../{}",
]  # fmt: skip
SECRETS = ["admin/x", "%61dmin/x", "admin//x", "admin%2fx", "admin/./x", "admin/y/../x", "secret.txt", "secret%2etxt"]
TARGETS = list(dict.fromkeys([odd.format(*["admin/x"] * 2) for odd in ODD] +
                             [odd.format(*[secret] * 2) for secret in SECRETS[1:] for odd in ODD[:14]] +
                             [odd.format(*["secret.txt"] * 2) for odd in ODD[36:60]]))  # fmt: skip


class Client:
    """One connection after the other to a server, for requests that no library would send."""

    def __init__(self, port):
        self.port, self.sock = port, None

    def ask(self, host, target, rules=""):
        """The whole answer, b"" where there is none."""
        head = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nX-Rules: {rules}\r\n\r\n".encode("latin-1")
        for _ in range(2):
            if self.sock is None:
                self.sock = socket.create_connection(("127.0.0.1", self.port), WAIT)
            try:
                self.sock.sendall(head)
                found = self.read()
            except ConnectionError:
                found = b""
            if found:
                return found
            self.close()
        return b""

    def read(self):
        data = b""
        while b"\r\n\r\n" not in data:
            more = self.sock.recv(65536)
            if not more:
                return data
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        fields = dict(line.lower().partition(b": ")[::2] for line in head.split(b"\r\n")[1:])
        length = int(fields.get(b"content-length", -1))
        while length < 0 and fields.get(b"transfer-encoding") == b"chunked" and not body.endswith(b"0\r\n\r\n"):
            more = self.sock.recv(65536)
            body += more
            if not more:
                break
        while len(body) < length:
            more = self.sock.recv(65536)
            body += more
            if not more:
                break
        if length < 0 or fields.get(b"connection") == b"close" or head.startswith(b"HTTP/1.0"):
            self.close()
        return head + b"\r\n\r\n" + body

    def close(self):
        if self.sock is not None:
            self.sock.close()
            self.sock = None


SERVERS = {
    "uvicorn": ("uvicorn", "path_app:asgi", "--port", "{}", "--http", "h11", "--lifespan", "off"),
    "uvicorn httptools": ("uvicorn", "path_app:asgi", "--port", "{}", "--http", "httptools", "--lifespan", "off"),
    "uvicorn --root-path": ("uvicorn", "path_app:asgi", "--port", "{}", "--root-path", "/app", "--lifespan", "off"),
    "hypercorn": ("hypercorn", "path_app:asgi", "--bind", "127.0.0.1:{}"),
    "granian": ("granian", "--interface", "asgi", "path_app:asgi", "--port", "{}"),
    "gunicorn": ("gunicorn", "path_app:wsgi", "--bind", "127.0.0.1:{}", "--worker-class", "gthread"),
    "granian wsgi": ("granian", "--interface", "wsgi", "path_app:wsgi", "--port", "{}"),
}
APPS = {
    "path_app:asgi": {"static": "", "starlette": "", "fastapi": "/v1", "sub": "/sub", "django": ""},
    "path_app:wsgi": {"flask": "", "sub": "/sub", "django": ""},
}


@contextmanager
def running(name, folder):
    port = free_port()
    command = [part.format(port) for part in SERVERS[name]]
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TEST_FOLDER", str(folder))
        with spawned(*python("-m", *command), port=port):
            yield port


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    fill(folder)
    return folder


def agree(port, host, mount=""):
    """Asks for every target with no rules, under a ban of the secrets, and where only /health is let in; how many
    targets gave the secret away to those whom nobody guards."""
    client = Client(port)
    told, wrong = set(), []
    for target in [*TARGETS, *(mount + target for target in TARGETS if mount and target.startswith("/"))]:
        if b"SECRET" in client.ask(host, target):
            told.add(target)
        elif not mount:
            continue  # what is not served needs no decision
        asked = [(rules, target) for rules in ("ban", "allow")]
        wrong += [one for one in asked if b"SECRET" in client.ask(host, target, one[0])]
    for rules in ("ban", "allow"):
        assert b" 200 " in client.ask(host, mount + "/health", rules).partition(b"\r\n")[0] + b" ", (host, rules)
    assert b" 200 " in client.ask(host, mount + "/open", "ban").partition(b"\r\n")[0] + b" ", host
    assert b" 403 " in client.ask(host, mount + "/open", "allow").partition(b"\r\n")[0] + b" ", host
    client.close()
    assert [] == wrong, host
    return told


@pytest.mark.parametrize("name", SERVERS)
def test_what_is_served_was_decided(name, files):
    """No odd target gets what is banned, or what is not let in, from any framework under any server."""
    if find_spec(name.split()[0]) is None:
        pytest.skip(f"{name.split()[0]} is not installed")
    pytest.importorskip("fastapi")
    pytest.importorskip("flask")

    with running(name, files) as port:
        for host, mount in APPS["path_app:wsgi" if "path_app:wsgi" in SERVERS[name] else "path_app:asgi"].items():
            if "--root-path" in name and host == "fastapi":
                continue  # it has a root path of its own, and finds nothing under another
            told = agree(port, host, mount)
            assert told, (name, host)  # the corpus reaches the secrets where nobody guards them
            if host in {"static", "flask"}:
                assert len(told) > 20, (name, host, told)


EXAMPLE_PORT = "127.0.0.1:8000"


@pytest.mark.parametrize("proxy", [nginx, caddy], ids=lambda proxy: proxy.__name__)
@pytest.mark.parametrize("behind", ["files", "static"])
def test_what_proxies_serve_was_decided(proxy, behind, files, tmp_path):
    """nginx and Caddy that ask the decision service: files of their own, and an application that reads paths freely."""
    os.chmod(tmp_path, 0o755)  # noqa: S103 - nginx's workers read there
    with running("uvicorn httptools", files) as app:
        service = free_port()
        command = python("-m", "uvicorn", "path_app:service", "--port", f"{service}", "--no-proxy-headers")
        changes = {"127.0.0.1:8787": f"127.0.0.1:{service}", EXAMPLE_PORT: f"127.0.0.1:{app}"}
        if behind == "files":
            del changes[EXAMPLE_PORT]
            changes |= (
                {f"proxy_pass http://{EXAMPLE_PORT};": f"root {files};"}
                if proxy is nginx
                else {f"reverse_proxy {EXAMPLE_PORT} {{": f"root * {files}\n\tfile_server {{", "header_down ": "# "}
            )
        with spawned(*command, port=service), proxy(tmp_path, changes) as port:
            assert len(agree(port, f"127.0.0.1:{port}")) > 10


def test_haproxy_before_a_guarded_application(files, tmp_path):
    """HAProxy hands targets on as they came, and the application's guard decides."""
    haproxy, port = program("haproxy"), free_port()
    with running("uvicorn", files) as app:
        file = written(
            tmp_path, "haproxy.cfg", {"bind :8081": f"bind 127.0.0.1:{port}", EXAMPLE_PORT: f"127.0.0.1:{app}"}
        )
        with spawned(haproxy, "-db", "-f", str(file), port=port):
            assert len(agree(port, f"127.0.0.1:{port}")) > 10
