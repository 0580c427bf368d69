"""HEAD of a stream without end on each server: the headers, and nothing that runs on behind them."""

from __future__ import annotations

import http.client
import time
from importlib.util import find_spec

import pytest

from gobanfast.sse import TEXT_HEADERS
from servers import WAIT
from test_http_servers import free_port, python, spawned

SERVERS = {
    "uvicorn": ["uvicorn", "head_app:asgi", "--port", "{}"],
    "hypercorn": ["hypercorn", "head_app:asgi", "--bind", "127.0.0.1:{}"],
    "granian asgi": ["granian", "--interface", "asgi", "--port", "{}", "head_app:asgi"],
    "granian wsgi": ["granian", "--interface", "wsgi", "--port", "{}", "head_app:wsgi"],
    "gunicorn": ["gunicorn", "head_app:wsgi", "--bind", "127.0.0.1:{}"],  # one request at a time: a stream would be all
}


@pytest.mark.parametrize("name", SERVERS)
def test_head_of_a_stream(name):
    """Twice, and then another request is answered, which says that no stream runs."""
    command, port = SERVERS[name], free_port()
    if find_spec(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")

    def ask(method, path):
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=3 * WAIT)
        client.request(method, path)
        answer = client.getresponse()
        found = answer.status, {key.lower(): value for key, value in answer.headers.items()}, answer.read()
        client.close()
        return found

    with spawned(*python("-m", *(part.format(port) for part in command)), port=port):
        for _ in range(2):
            status, headers, body = ask("HEAD", "/events")
            assert (200, b"") == (status, body)
            assert set(TEXT_HEADERS) <= set(headers.items())
        until = time.monotonic() + 3 * WAIT
        while (body := ask("GET", "/running")[2]) != b"0" and time.monotonic() < until:
            time.sleep(0.05)
        assert b"0" == body
