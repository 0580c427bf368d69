"""Every program that README and docs show is a whole file, guards under a server, and passes mypy --strict."""

from __future__ import annotations

import ast
import asyncio
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import gobanfast
from test_http_servers import free_port, get, python, spawned

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OURS = {
    "Challenge", "CrawlerCheck", "DecisionLog", "DecisionService", "Doctor", "Engine", "Gobanfast", "Listener",
    "Metrics", "Ruleset", "Trust", "WsgiDoctor", "attach", "guard", "open_store",
}  # fmt: skip


def blocks():
    """(page, text) of every Python block."""
    for page in PAGES:
        for text in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
            yield page.name, text


def file_name(text):
    """The file that a block says it is, else None."""
    found = re.match(r"# (\w+\.py)\n", text)
    return found[1] if found else None


PROGRAMS = {f"{page} {file_name(text)}": text for page, text in blocks() if file_name(text)}

# ---- under servers

RULES = """
rules:
  - {id: probes, when: {path: /.env}, action: ban, for: 1h, reason: path probe}
  - {id: nobody, when: {header: {user-agent: {contains: nobody/}}}, action: challenge}
"""
SECRETS = {"CHALLENGE_KEY": "k" * 16, "CHALLENGE_KEYS": f"{'n' * 16} {'o' * 16}", "GOBANFAST_TOKEN": "t" * 16}
GUNICORN = {  # uvicorn runs the others
    "flask_app.py": ["flask_app:app"],
    "settings.py": ["project:application"],
    "share_flask.py": ["share_flask:app"],
    "share_settings.py": ["project:application"],
    "aiohttp_app.py": ["aiohttp_app:app", "-k", "aiohttp.GunicornWebWorker"],
}
PROJECT = """
import os
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path
os.environ["DJANGO_SETTINGS_MODULE"] = "project"
from settings import *
SECRET_KEY, ALLOWED_HOSTS, ROOT_URLCONF = "secret of a test", ["*"], "project"
urlpatterns = [path("", lambda request: HttpResponse(request.gobanfast.action))]
application = get_wsgi_application()
"""


@pytest.mark.parametrize("program", [program for program in PROGRAMS if not program.endswith(" listening.py")])
def test_program_guards(program, tmp_path, monkeypatch):
    """The file as the page has it, beside a rules file, under a server: a visitor gets to the application, and a probe
    and a client that is to be challenged do not."""
    name, text, port = program.split()[1], PROGRAMS[program], free_port()
    for module in re.findall(r"^from (fastapi|flask|aiohttp) import", text, re.MULTILINE):
        pytest.importorskip(module)
    (tmp_path / "rules.yaml").write_text(RULES)
    (tmp_path / name).write_text(text)
    (tmp_path / "project.py").write_text(PROJECT.replace("settings", name.removesuffix(".py"), 1))
    for variable, value in SECRETS.items():
        monkeypatch.setenv(variable, value)
    if name in GUNICORN:
        command = ["gunicorn", *GUNICORN[name], "-w", "2", "--bind", f"127.0.0.1:{port}"]
    else:
        command = ["uvicorn", f"{name.removesuffix('.py')}:app", "--port", f"{port}"]
    pytest.importorskip(command[0])

    with spawned(*python("-m", *command), port=port, cwd=tmp_path):
        visitor, probe = get(port), get(port, "/.env", source="127.0.0.7")
        challenged = get(port, source="127.0.0.8", user_agent="nobody/1")

    has_index = "@app.get" in text or name in {"settings.py", "share_settings.py", "aiohttp_app.py"}
    assert (200 if has_index else 404) == visitor[0]  # which is the application's, too
    assert (403, 403) == (probe[0], challenged[0])
    assert visitor[1]["x-request-id"] != probe[1]["x-request-id"]


def test_the_listening_program_lets_in_and_refuses(tmp_path, monkeypatch):
    """The Listener of docs/http.md reads the PROXY header of a proxy that `trust` names: a client gets its answer, a
    banned one the end of the connection."""
    (tmp_path / "rules.yaml").write_text("rules: [{id: bad, when: {prefix: 198.51.100.0/24}, action: ban}]\n")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(PROGRAMS["http.md listening.py"], names)  # noqa: S102
    target = names["listener"].getsockname()

    async def ask(address):
        reader, writer = await asyncio.open_connection(*target)
        writer.write(f"PROXY TCP4 {address} 192.0.2.1 1000 80\r\n".encode())
        try:
            return await reader.read()
        finally:
            writer.close()

    async def main():
        server = asyncio.create_task(names["serve"]())
        try:
            return [await ask(address) for address in ("203.0.113.9", "198.51.100.7", "203.0.113.9")]
        finally:
            server.cancel()

    try:
        assert [b"hello\n", b"", b"hello\n"] == asyncio.run(main())
    finally:
        names["listener"].close()


# ---- under a type checker

WRONG = """
from fastapi import FastAPI
from gobanfast import Engine
from gobanfast.frontends import asgi, doctor, wsgi

def application(environ: wsgi.Environ, start_response: wsgi.StartResponse) -> list[bytes]:
    return []

engine = Engine.load("rules.yaml")
app = FastAPI()
app.add_middleware(asgi.Gobanfast, engine=engine, contct="x")  # wrong
app.add_middleware(asgi.Gobanfast, engine="rules.yaml")  # wrong
app.add_middleware(doctor.Doctor, engine=engine, tokn="t")  # wrong
asgi.Gobanfast(app, engine, contct="x")  # wrong
asgi.Gobanfast(app, engine, on_error="ignore")  # wrong
wsgi.Gobanfast(application, engine, contct="x")  # wrong
wsgi.Gobanfast(application, engine, routes={"/": "never"})  # wrong
asgi.Gobanfast(app, engine, trust=["10.0.0.0/8"], log="file:decisions.jsonl")
if engine.decide("192.0.2.1").action == "deny":  # wrong
    pass
if engine.decide("192.0.2.1").cause == "blocklist":  # wrong
    pass
"""


@pytest.mark.skipif(
    not all(map(find_spec, ("mypy", "fastapi", "flask", "aiohttp"))), reason="mypy or a framework is absent"
)
def test_programs_pass_a_strict_type_checker(tmp_path):
    """mypy --strict finds nothing in what the pages show, as files of a user's own project; a misspelt option, a value
    that an option does not take and an action that there is not are errors, and nothing else is."""
    for program, text in PROGRAMS.items():
        (tmp_path / program.replace(".md ", "_").replace("-", "_")).write_text(text)
    (tmp_path / "wrong.py").write_text(WRONG)
    expected = {number for number, line in enumerate(WRONG.splitlines(), 1) if line.endswith("# wrong")}
    environ = dict(os.environ)
    package = Path(gobanfast.__file__).parents[1]
    if (package / "setup.py").exists():  # an editable install, which mypy does not follow
        environ["MYPYPATH"] = str(package)
    files = sorted(path.name for path in tmp_path.glob("*.py"))
    command = [
        sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--config-file", os.devnull,
        "--python-executable", sys.executable, *files,
    ]  # fmt: skip

    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)

    errors = re.findall(r"^(\w+\.py):(\d+): error", done.stdout, re.MULTILINE)
    assert {("wrong.py", str(number)) for number in expected} == set(errors), done.stdout + done.stderr
    assert len(files) == len(PROGRAMS) + 1


def test_every_name_has_an_import():
    """No block of a page uses a class or function of ours that neither it nor a block before it on the page imports."""
    missing = []
    seen: dict[str, set[str]] = {}
    for page, text in blocks():
        imported = seen.setdefault(page, set())
        nodes = list(ast.walk(ast.parse(text)))
        imported |= {alias.asname or alias.name for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom))
                     for alias in node.names}  # fmt: skip
        used = {node.id for node in nodes if isinstance(node, ast.Name)} & OURS
        missing += [(page, name) for name in sorted(used - imported)]

    assert [] == missing
