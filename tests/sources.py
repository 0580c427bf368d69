"""A local HTTP server that stands for public sources: answers by path, and a count of what was asked."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Source:
    """What a server answers, by path without the query, and the requests that came."""

    def __init__(self):
        self.answers = {}
        self.requests = []
        self.lock = threading.Lock()
        self.port = 0

    def url(self, path, host="127.0.0.1"):
        return f"http://{host}:{self.port}{path}"

    def count(self, path):
        with self.lock:
            return sum(asked[1].partition("?")[0] == path for asked in self.requests)

    def put(self, path, body=b"", status=200, **headers):
        """Answers `path` with this; a callable gets the request and answers itself."""
        self.answers[path] = body if callable(body) else (status, body, headers)


def handler(source):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self):
            size = int(self.headers.get("content-length") or 0)
            self.body = self.rfile.read(size)
            with source.lock:
                source.requests.append((self.command, self.path, dict(self.headers.items()), self.body))
            found = source.answers.get(self.path) or source.answers.get(self.path.partition("?")[0], (404, b"", {}))
            if callable(found):
                found = found(self)
                if found is None:
                    self.close_connection = True
                    return
            status, body, headers = found
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            if not any(name.lower() == "content_length" for name in headers):
                self.send_header("content-length", str(len(body)))
            self.send_header("connection", "close")
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = True

        do_GET = do_POST = do_HEAD = answer  # noqa: N815 - names of the base class

        def log_message(self, *_):
            pass

    return Handler


class Server(ThreadingHTTPServer):
    """A server whose handlers may hang without keeping the tests."""

    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, *_):
        pass


@contextmanager
def serving(source=None, context=None):
    """A `Source` that is served on a port of 127.0.0.1, with TLS where there is a context."""
    source = Source() if source is None else source
    server = Server(("127.0.0.1", 0), handler(source))
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    source.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield source
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
