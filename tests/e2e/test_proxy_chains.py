"""Several proxies in a row, and caches, before an application with the middleware: one request id, the right client,
and no grant for another page than the one that asked."""

from __future__ import annotations

import json
import os
import re
from contextlib import contextmanager

import pytest

from servers import program, run
from test_http_servers import GOOD, free_port, get, python, spawned
from test_proxies import haproxy, nginx, share_application

PAGES = "https://app.example.com", "https://other.example.com"
RULES = """
version: 1
trust: {prefix: [127.0.0.1/32], host: x-forwarded-host}
share:
- {id: rebind, when: {not: {host: [api.example.com]}}, action: refuse}
- {id: pages, when: {path: /events/**, origin: ["https://app.example.com", "https://other.example.com"]}, action: grant}
"""
# As many write it, but for the key: any text of a client's would be kept.
INNER = r"""
map $http_x_request_id $id { default $request_id; "~^[A-Za-z0-9._-]{8,128}$" $http_x_request_id; }
server {
    listen 127.0.0.1:PORT;
    location / {
        proxy_set_header Host $http_host;
        proxy_set_header X-Request-ID $id;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_pass http://127.0.0.1:APPLICATION;
    }
}
"""
CACHE = """
proxy_cache_path FOLDER/cache keys_zone=pages:1m;
server {
    listen 127.0.0.1:PORT;
    location / {
        proxy_cache pages;
        IGNORE
        proxy_set_header Host $http_host;
        proxy_set_header X-Forwarded-Host $http_host;
        proxy_set_header X-Forwarded-For $remote_addr;
        add_header X-Cache $upstream_cache_status always;
        proxy_pass http://127.0.0.1:APPLICATION;
    }
}
"""
VCL = """
vcl 4.1;
backend application { .host = "127.0.0.1"; .port = "APPLICATION"; }
sub vcl_recv { set req.http.X-Forwarded-Host = req.http.Host; }
sub vcl_backend_response { IGNORE }
sub vcl_deliver { if (obj.hits > 0) { set resp.http.X-Cache = "HIT"; } else { set resp.http.X-Cache = "MISS"; } }
"""


@contextmanager
def own_nginx(folder, text, app):
    """Port of nginx with these servers."""
    path, port = program("nginx"), free_port()
    folder.mkdir()
    user = "user root;" if os.geteuid() == 0 else ""
    kept = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
    text = text.replace("PORT", f"{port}").replace("APPLICATION", f"{app}").replace("FOLDER", str(folder))
    file = folder / "nginx.conf"
    file.write_text(
        f"{user} daemon off; pid {folder}/pid; error_log {folder}/error.log; events {{}} "
        f"http {{ access_log off; client_body_temp_path {folder}/body; {kept} {text} }}"
    )
    with spawned(path, "-p", str(folder), "-c", str(file), "-e", f"{folder}/error.log", port=port):
        yield port


@pytest.fixture(scope="module")
def rules(tmp_path_factory):
    path = tmp_path_factory.mktemp("rules") / "rules.yaml"
    path.write_text(RULES)
    return path


@pytest.fixture(scope="module")
def application(rules):
    """Port of the application."""
    with share_application(rules) as port:
        yield port


@pytest.fixture(scope="module")
def chain(rules, application, tmp_path_factory):
    """(port of the edge, the same for cleartext HTTP/2, port of the nginx before the application): nginx, which asks
    the decision service, HAProxy, nginx, application."""
    folder, service, h2 = tmp_path_factory.mktemp("chain"), free_port(), free_port()
    command = python("-m", "gobanfast", "serve", "--rules", str(rules), "--port", f"{service}")
    with (
        spawned(*command, port=service),
        own_nginx(folder / "inner", INNER, application) as inner,
        haproxy(folder, {"127.0.0.1:8000": f"127.0.0.1:{inner}"}) as middle,
        nginx(folder, {"127.0.0.1:8787": f"127.0.0.1:{service}", "127.0.0.1:8000": f"127.0.0.1:{middle}",
                       "location / {": f"listen 127.0.0.1:{h2} http2; location / {{"}) as edge,
    ):  # fmt: skip
        yield edge, h2, inner


def curl(version, port, **headers):
    """(response headers, what the application was handed) over this version of HTTP."""
    given = [word for name, value in headers.items() for word in ("-H", f"{name.replace('_', '-')}: {value}")]
    command = [program("curl"), "-sSi", version, "--interface", GOOD, "-H", "Host: api.example.com", *given]
    head, _, body = run(*command, f"http://127.0.0.1:{port}/events/1").stdout.decode().partition("\r\n\r\n")
    return re.findall(r"(?m)^([^:\r\n]+): ?([^\r\n]*)", head.lower()), json.loads(body)


HOSTILE = ["mine", "a" * 129, "a" * 4000, "'; drop table x", "${jndi:ldap://evil.example/}", "0af7651916cd43dd-1"]


@pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])
def test_a_chain_keeps_one_id_and_the_true_client(chain, version):
    """Whatever a client writes, all proxies, the application and the response say one id, which is not the client's;
    the client is the one that the edge saw, and no word of proxies comes through."""
    edge, h2, _ = chain
    port = edge if version == "--http1.1" else h2
    ids = set()
    for sent in HOSTILE:
        headers, told = curl(version, port, X_Request_ID=sent, X_Forwarded_For="203.0.113.9",
                             X_Envoy_Attempt_Count="7", Forwarded="for=203.0.113.9")  # fmt: skip
        handed = {name: [value for key, value in told["headers"] if key == name] for name, _ in told["headers"]}
        assert [told["request_id"]] == handed["x-request-id"]
        assert [told["request_id"]] == [value for name, value in headers if name == "x-request-id"]
        assert re.fullmatch("[a-z0-9-]{8,64}", told["request_id"])
        assert (GOOD, ["127.0.0.9, 127.0.0.1, 127.0.0.1"]) == (told["address"], handed["x-forwarded-for"])
        assert not {"x-envoy-attempt-count", "forwarded"} & handed.keys()
        ids.add(told["request_id"])
    assert (len(HOSTILE), set()) == (len(ids), ids & set(HOSTILE))


@pytest.mark.parametrize("sent", ["a" * 129, "a b", "", "\u00e9" * 9])
def test_an_id_of_a_trusted_proxy_is_kept_only_if_it_is_one(chain, application, sent):
    """Also from a trusted peer, an id that is too long or no id is replaced, by nginx or the middleware; a good one is
    kept."""
    _, _, inner = chain
    for port in (inner, application):
        own = {"Host": "api.example.com", "X-Forwarded-For": GOOD, "source": "127.0.0.1"}
        replaced = json.loads(get(port, "/events/1", **own, X_Request_ID=sent)[2])
        kept = json.loads(get(port, "/events/1", **own, X_Request_ID="0af76519-16cd")[2])

        assert (GOOD, GOOD) == (replaced["address"], kept["address"])
        assert ("0af76519-16cd", True) == (kept["request_id"], len(replaced["request_id"]) >= 8)
        assert replaced["request_id"] != sent


@contextmanager
def nginx_cache(folder, app, *, varies):
    ignored = "" if varies else "proxy_ignore_headers Vary;"
    with own_nginx(folder / "cache", CACHE.replace("IGNORE", ignored), app) as port:
        yield port


@contextmanager
def varnish(folder, app, *, varies):
    path, port = program("varnishd"), free_port()
    file = folder / "cache.vcl"
    file.write_text(VCL.replace("APPLICATION", f"{app}").replace("IGNORE", "" if varies else "unset beresp.http.Vary;"))
    jail = ["-j", "none"] if os.geteuid() == 0 else []
    command = [path, "-F", *jail, "-n", str(folder / "varnish"), "-a", f"127.0.0.1:{port}", "-s", "malloc,16m"]
    with spawned(*command, "-f", str(file), port=port):
        yield port


@pytest.mark.parametrize("varies", [True, False], ids=["vary", "no vary"])
@pytest.mark.parametrize("cache", [nginx_cache, varnish], ids=lambda cache: cache.__name__)
def test_a_cache_serves_each_page_its_own_grant(application, tmp_path, cache, varies):
    """A shared cache keeps the answer for each page apart, and serves it again; the same cache without Vary serves the
    first page's grant to the others."""
    with cache(tmp_path, application, varies=varies) as port:

        def ask(origin):
            own = {} if origin is None else {"Origin": origin}
            _, headers, _ = get(port, "/events/1", Host="api.example.com", **own)
            return headers.get("access-control-allow-origin"), headers["x-cache"]

        first, *others = [ask(origin) for origin in (PAGES[0], PAGES[1], None, "https://evil.example")]
        again = [ask(origin) for origin in PAGES]

    assert (PAGES[0], "MISS") == first
    if varies:
        assert [(PAGES[1], "MISS"), (None, "MISS"), (None, "MISS")] == others
        assert [(origin, "HIT") for origin in PAGES] == again
    else:
        assert [(PAGES[0], "HIT")] * 5 == [*others, *again]
