"""Message brokers of a test's own: processes on free ports of this machine, with all that they write in a folder."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from servers import listening
from stores_fakes import Redis, eventually

RABBITMQ = "/usr/lib/rabbitmq/bin/rabbitmq-server"  # that of PATH changes the user, and the folder
SECONDS = 60  # RabbitMQ takes 4 on an idle machine


def free_ports(count):
    sockets = [listening() for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


def server(*names):
    """Path of a broker, which Debian may keep beside what is on PATH; skips where there is none."""
    for name in names:
        if path := shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/local/sbin"):
            return path
    return pytest.skip(f"{names[0]} is not on PATH")


def takes_connections(port):
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@contextmanager
def running(command, port, folder, **environ):
    """A broker in a session of its own, once it takes connections; ended with all its children. Skips where it ends by
    itself, as one may that is not allowed what it needs."""
    log = Path(folder, "output")
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=os.environ | environ, stdin=subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        eventually(lambda: takes_connections(port) or process.poll() is not None, SECONDS)
        if process.poll() is not None:
            pytest.skip(f"{command[0]} ends at its start: {log.read_text(errors='replace')[-500:]}")
        assert takes_connections(port), log.read_text(errors="replace")[-2000:]
        yield port
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(SECONDS)


@contextmanager
def redis(folder):
    """Port of a Redis."""
    server("redis-server")
    started = Redis(folder)
    try:
        yield started.port
    finally:
        started.kill()


@contextmanager
def mosquitto(folder):
    """Port of a mosquitto, which speaks MQTT 3.1.1 and 5."""
    (port,) = free_ports(1)
    user = "user root\n" if os.geteuid() == 0 else ""
    config = Path(folder, "mosquitto.conf")
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n{user}")
    with running([server("mosquitto"), "-c", str(config)], port, folder):
        yield port


@contextmanager
def nats(folder):
    """Port of a nats-server with JetStream."""
    (port,) = free_ports(1)
    kept = ["--jetstream", "--store_dir", str(folder)]
    with running([server("nats-server"), "--addr", "127.0.0.1", "--port", str(port), *kept], port, folder):
        yield port


@contextmanager
def rabbitmq(folder):
    """Port of a RabbitMQ with one scheduler and no plug-ins, and a name server of Erlang of its own."""
    if not Path(RABBITMQ).exists() or shutil.which("epmd") is None:
        pytest.skip(f"{RABBITMQ} is not installed")
    port, names, between = free_ports(3)
    home = Path(folder, "home")
    home.mkdir()
    config = home / "rabbitmq.conf"
    config.write_text(f"listeners.tcp.local = 127.0.0.1:{port}\nlog.console = true\nlog.file = false\n")
    (home / "none").write_text("[].\n")
    (home / "none.conf").touch()
    environ = {
        "HOME": str(home), "ERL_EPMD_PORT": str(names), "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": "carriers@localhost", "RABBITMQ_CONF_ENV_FILE": str(home / "none.conf"),
        "RABBITMQ_CONFIG_FILE": str(config), "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "none"),
        "RABBITMQ_MNESIA_BASE": str(home), "RABBITMQ_LOG_BASE": str(home), "RABBITMQ_DIST_PORT": str(between),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none +P 65536",
    }  # fmt: skip
    names_folder = Path(folder, "names")
    names_folder.mkdir()
    with (
        running([shutil.which("epmd"), "-port", str(names), "-address", "127.0.0.1"], names, names_folder),
        running([RABBITMQ], port, home, **environ),
    ):
        yield port
