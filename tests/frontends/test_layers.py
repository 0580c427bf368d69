"""Tracers of others around and inside an application: found by their modules, and what the doctor says of them."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gobanfast import Engine, Ruleset
from gobanfast.frontends import asgi, wsgi
from gobanfast.frontends.doctor import Doctor, examine_tracers
from gobanfast.frontends.http.layers import layers, tracers
from gobanfast.telemetry.other_trace import current_span

TOKEN = "a token of the doctor"  # noqa: S105


def engine() -> Engine:
    return Engine(Ruleset.from_text("{version: 1, rules: []}"))


def module(name: str) -> Any:
    return pytest.importorskip(name)


def starlette_own() -> tuple[Any, str]:
    """As Starlette's users add it."""
    own = module("starlette.middleware.opentelemetry")
    app = module("starlette.applications").Starlette()
    app.add_middleware(own.OpenTelemetryMiddleware)
    return asgi.Gobanfast(app, engine()), "starlette.middleware.opentelemetry.OpenTelemetryMiddleware"


def starlette_own_around() -> tuple[Any, str]:
    """Around an application, and ours around it."""
    own = module("starlette.middleware.opentelemetry")
    return (
        asgi.Gobanfast(own.OpenTelemetryMiddleware(module("starlette.applications").Starlette()), engine()),
        "starlette.middleware.opentelemetry.OpenTelemetryMiddleware",
    )


def contrib_asgi() -> tuple[Any, str]:
    """Contrib's for any ASGI application."""
    contrib = module("opentelemetry.instrumentation.asgi")
    return (
        asgi.Gobanfast(contrib.OpenTelemetryMiddleware(module("starlette.applications").Starlette()), engine()),
        "opentelemetry.instrumentation.asgi.OpenTelemetryMiddleware",
    )


def contrib_fastapi() -> tuple[Any, str]:
    """Contrib's for FastAPI, which appears in the stack with the first request; of a class of one's own, too."""
    contrib = module("opentelemetry.instrumentation.fastapi")

    class App(module("fastapi").FastAPI):  # type: ignore[misc]
        pass

    app = App()
    contrib.FastAPIInstrumentor.instrument_app(app)
    return asgi.Gobanfast(app, engine()), "opentelemetry.instrumentation.fastapi"


def contrib_wsgi() -> tuple[Any, str]:
    """Contrib's for any WSGI application, in Flask's place for it."""
    contrib = module("opentelemetry.instrumentation.wsgi")
    app = module("flask").Flask("test")
    app.wsgi_app = contrib.OpenTelemetryMiddleware(app.wsgi_app)
    return wsgi.Gobanfast(app, engine()), "opentelemetry.instrumentation.wsgi.OpenTelemetryMiddleware"


@pytest.mark.parametrize("make", [starlette_own, starlette_own_around, contrib_asgi, contrib_fastapi, contrib_wsgi])
def test_tracers_inside(make: Callable[[], tuple[Any, str]]) -> None:
    """Each by its dotted name, once."""
    app, name = make()

    assert [name] == tracers(app)


def test_tracer_in_a_setting_of_django() -> None:
    """As contrib's instrumentor leaves it there."""
    pytest.importorskip("django")
    from django.conf import settings

    if not settings.configured:
        settings.configure()
    from django.core.handlers.wsgi import WSGIHandler
    from django.test import override_settings

    pytest.importorskip("opentelemetry.instrumentation.django")
    name = "opentelemetry.instrumentation.django.middleware.otel_middleware._DjangoMiddleware"
    with override_settings(MIDDLEWARE=[name]):
        assert [name] == tracers(WSGIHandler())
    with override_settings(MIDDLEWARE=["django.middleware.common.CommonMiddleware"]):
        assert [] == tracers(WSGIHandler())


def test_nothing_inside() -> None:
    """No tracer, no application, and layers in a circle."""

    class Layer:
        app: Any = None

    first, second = Layer(), Layer()
    first.app, second.app = second, first

    app: Any = first
    assert [] == tracers(asgi.Gobanfast(app, engine())) == tracers(None)
    assert [] == examine_tracers(first)
    assert [first, second] == list(layers(first))


@pytest.fixture
def plugged() -> Iterator[None]:
    """Our plug-ins in OpenTelemetry's global places; as it was afterwards."""
    trace = module("opentelemetry.trace")
    propagate, sdk = module("opentelemetry.propagate"), module("opentelemetry.sdk.trace")
    plugs = importlib.import_module("gobanfast.telemetry.otel")
    before, provider = propagate.get_global_textmap(), trace._TRACER_PROVIDER
    propagate.set_global_textmap(plugs.GobanfastPropagator())
    trace._TRACER_PROVIDER = sdk.TracerProvider(sampler=plugs.GobanfastSampler(0.1), shutdown_on_exit=False)
    yield
    propagate.set_global_textmap(before)
    trace._TRACER_PROVIDER = provider


def test_doctor_tells_of_a_tracer_without_our_plug_ins() -> None:
    """What is missing, by the variable that would set it."""
    app, name = contrib_asgi()
    (finding,) = examine_tracers(app)

    assert ("tracer-inside", "warning") == (finding.code, finding.severity)
    assert f"{name} makes the spans, so gobanfast opens no trace of its own" in finding.what
    assert "OTEL_PROPAGATORS=gobanfast and OTEL_TRACES_SAMPLER=gobanfast" in finding.advice


@pytest.mark.usefixtures("plugged")
def test_doctor_tells_of_a_tracer_with_our_plug_ins() -> None:
    """A note: nothing is wrong."""
    app, _ = contrib_asgi()
    (finding,) = examine_tracers(app)

    assert "note" == finding.severity
    assert "its propagator is in use, its sampler is in use" in finding.what


@pytest.mark.usefixtures("plugged")
def test_doctor_sees_a_tracer_around() -> None:
    """A span is current when requests arrive at the doctor; between requests, none is."""
    contrib = module("opentelemetry.instrumentation.asgi")

    async def page(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    doctor = Doctor(asgi.Gobanfast(page, engine()), engine(), token=TOKEN)
    app = contrib.OpenTelemetryMiddleware(doctor)

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        pass

    scope = {
        "type": "http", "method": "GET", "path": "/", "raw_path": b"/", "query_string": b"", "scheme": "http",
        "client": ("192.0.2.1", 4000), "server": ("test", 80), "http_version": "1.1", "headers": [],
    }  # fmt: skip
    assert "tracer-inside" not in {finding["code"] for finding in doctor.report(None)["findings"]}
    asyncio.run(app(scope, receive, send))

    assert current_span() is None
    (found,) = [each for each in doctor.report(None)["findings"] if each["code"] == "tracer-inside"]
    assert "a tracer around the application" in found["what"]
