"""The trace that an exchange opens, in what the application starts: tasks, threads, timers, and after the response."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from gobanfast import Engine, Ruleset
from gobanfast.frontends.asgi import Gobanfast
from gobanfast.trace import TraceContext, bind, current, inject

WAIT = 30
RULES = """
record: [{id: all, when: {path: /**}, action: rate, class: all, probability: 50%}]
trace: {from_untrusted: continue}
"""
PARENT = TraceContext(
    "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", sampled=True, tracestate="a=1", baggage={"u": "v" * 300}
)
ENGINE = Engine(Ruleset.from_text(RULES))


def received():
    """Headers of a request, in bytes that nobody else holds."""
    return [(name.encode(), value.encode()) for name, value in inject({}, PARENT, baggage=True).items()]


async def asked(application, headers):
    """A request to a guarded application."""

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message["type"])

    async def answering(scope, receive, send):
        await application()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    sent = []
    scope = {"type": "http", "http_version": "1.1", "scheme": "http", "method": "GET", "path": "/", "raw_path": b"/",
             "query_string": b"", "root_path": "", "headers": headers, "client": ("192.0.2.7", 1),
             "server": ("127.0.0.1", 80)}  # fmt: skip
    await Gobanfast(answering, ENGINE)(scope, receive, send)
    assert ["http.response.start", "http.response.body"] == sent
    assert current() is None


def whole(context):
    return context.trace_id, context.span_id, context.parent_id, context.sampled, context.tracestate, context.baggage


@pytest.mark.parametrize("known", [False, True])
def test_what_runs_beside_the_application(known):
    """One span everywhere, whoever asks first."""
    found = []

    async def application():
        def bound():
            found.append(current())

        loop, called = asyncio.get_running_loop(), asyncio.Event()
        call = bind(bound) if known else None
        with ThreadPoolExecutor(1) as pool:
            found.append(await asyncio.create_task(asyncio.to_thread(current)))
            loop.call_later(0.001, lambda: (found.append(current()), called.set()))
            await asyncio.wait_for(called.wait(), WAIT)
            await loop.run_in_executor(pool, call or bind(bound))
        thread = threading.Thread(target=call or bind(bound))
        thread.start()
        thread.join(WAIT)

    asyncio.run(asked(application, received() if known else []))

    assert 4 == len(found)
    assert 1 == len({whole(context) for context in found})
    if known:
        assert (PARENT.trace_id, True, "a=1", PARENT.baggage) == (
            found[0].trace_id, found[0].sampled, found[0].tracestate, found[0].baggage,
        )  # fmt: skip


@pytest.mark.parametrize("looked", [False, True])
@pytest.mark.parametrize("known", [False, True])
def test_what_outlives_the_request(known, looked):
    """A task that first asks when the response is long gone, and the request with it, has the trace of the request."""
    found, tasks = [], []

    async def late(go):
        await go.wait()
        found.append(current())

    async def main():
        go = asyncio.Event()

        async def application():
            tasks.append(asyncio.create_task(late(go)))
            if looked:
                found.append(current())

        await asked(application, received() if known else [])
        gc.collect()
        _overwritten = [bytes(40 + number % 300) for number in range(10_000)]
        go.set()
        await asyncio.wait_for(asyncio.gather(*tasks), WAIT)

    asyncio.run(main())
    assert 1 + looked == len(found)
    assert 1 == len({whole(context) for context in found})
    if known:
        assert (PARENT.trace_id, True, "a=1", PARENT.baggage) == whole(found[0])[:1] + whole(found[0])[3:]


def test_threads_that_ask_first_at_once():
    """Ids are drawn once, however many ask."""
    found = []

    async def application():
        start = threading.Barrier(8, timeout=WAIT)

        def ask():
            start.wait()
            found.append(current())

        threads = [threading.Thread(target=contextvars.copy_context().run, args=(ask,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)

    for headers in ([], received()) * 10:
        asyncio.run(asked(application, headers))

    assert 160 == len(found)
    assert 20 == len({whole(context) for context in found})
