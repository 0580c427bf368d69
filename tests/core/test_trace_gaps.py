"""Where a trace context is lost, or stays too long: each kind of concurrency as it is, and what closes the gap."""

from __future__ import annotations

import asyncio
import contextvars
import sched
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from gobanfast.trace import ContextExecutor, TraceContext, bind, continued, current, inject, linked, use

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

WAIT = 30
ONE = TraceContext("0" * 31 + "1", "0" * 15 + "1", sampled=True)
TWO = TraceContext("0" * 31 + "2", "0" * 15 + "2")
INHERITED = bool(getattr(sys.flags, "thread_inherit_context", False))  # the default without a GIL, from 3.14 on


async def in_task() -> Any:
    return await asyncio.create_task(asyncio.sleep(0, current()))


async def in_task_group() -> Any:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(asyncio.sleep(0, current()))
    return task.result()


async def in_gather() -> Any:
    async def seen() -> TraceContext | None:
        return current()

    return (await asyncio.gather(asyncio.wait_for(seen(), WAIT), seen()))[0]


async def in_generator() -> Any:
    async def steps() -> AsyncIterator[TraceContext | None]:
        await asyncio.sleep(0)
        yield current()

    return await anext(steps())


async def in_thread() -> Any:
    return await asyncio.to_thread(current)


async def called(arrange: Callable[[Callable[[], object]], object]) -> Any:
    """What is current in a callback that is arranged for."""
    found: asyncio.Future[TraceContext | None] = asyncio.get_running_loop().create_future()
    arrange(lambda: found.set_result(current()))
    return await asyncio.wait_for(found, WAIT)


async def in_call_soon() -> Any:
    return await called(asyncio.get_running_loop().call_soon)


async def in_call_later() -> Any:
    return await called(lambda call: asyncio.get_running_loop().call_later(0.001, call))


async def in_callback_of_a_future() -> Any:
    task = asyncio.create_task(asyncio.sleep(0))
    return await called(lambda call: task.add_done_callback(lambda _: call()))


@pytest.mark.parametrize(
    "way", [in_task, in_task_group, in_gather, in_generator, in_thread, in_call_soon, in_call_later,
            in_callback_of_a_future],
)  # fmt: skip
def test_asyncio_carries_it(way: Callable[[], Any]) -> None:
    """By itself; and none where there is none."""

    async def main() -> list[TraceContext | None]:
        with use(ONE):
            first = await way()
            with use(TWO):
                second = await way()
        return [first, second, current(), await way()]

    assert [ONE, TWO, None, None] == asyncio.run(main())


def in_executor(pool: ThreadPoolExecutor, function: Callable[[], Any]) -> Any:
    async def main() -> Any:
        return await asyncio.get_running_loop().run_in_executor(pool, function)

    return asyncio.run(main())


def in_default_executor(_: ThreadPoolExecutor, function: Callable[[], Any]) -> Any:
    return in_executor(None, function)  # type: ignore[arg-type]


def in_submit(pool: ThreadPoolExecutor, function: Callable[[], Any]) -> Any:
    return pool.submit(function).result(WAIT)


def in_new_thread(_: ThreadPoolExecutor, function: Callable[[], Any]) -> Any:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join(WAIT)
    return found[0]


def in_timer(_: ThreadPoolExecutor, function: Callable[[], Any]) -> Any:
    found: list[Any] = []
    timer = threading.Timer(0.001, lambda: found.append(function()))
    timer.start()
    timer.join(WAIT)
    return found[0]


def in_call_of_another_thread(_: ThreadPoolExecutor, function: Callable[[], Any]) -> Any:
    """call_soon_threadsafe takes the context of the thread that calls it."""

    async def main() -> Any:
        loop, found = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()
        threading.Thread(target=loop.call_soon_threadsafe, args=(lambda: found.set_result(function()),)).start()
        return await asyncio.wait_for(found, WAIT)

    return asyncio.run(main())


@pytest.mark.parametrize(
    "way", [in_executor, in_default_executor, in_submit, in_new_thread, in_timer, in_call_of_another_thread]
)
def test_threads_need_bind(way: Callable[[ThreadPoolExecutor, Callable[[], Any]], Any]) -> None:
    """They know no context; what is bound has it, and leaves none behind in the thread."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(current).result(WAIT)  # its thread is there before a context is
        with use(ONE):
            fresh = way in {in_new_thread, in_timer, in_call_of_another_thread, in_default_executor}
            assert way(pool, current) is (ONE if INHERITED and fresh else None)
            assert ONE is way(pool, bind(current))
            with use(TWO):
                assert TWO is way(pool, bind(current))
        assert pool.submit(current).result(WAIT) is None


def test_executor_of_a_loop() -> None:
    """ContextExecutor carries it through run_in_executor, as that of one call or as default of the loop."""

    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as pool, use(ONE):
            return await asyncio.gather(*[loop.run_in_executor(ContextExecutor(pool), current) for _ in range(3)])

    assert [ONE] * 3 == asyncio.run(main())


def test_greenlets_start_without() -> None:
    """A greenlet has a contextvars.Context of its own, empty at its start; its switches keep them apart."""
    greenlet = pytest.importorskip("greenlet")
    found = []

    def work(name: str) -> None:
        found.append((name, current()))
        hub.switch()
        found.append((name, current()))

    hub = greenlet.getcurrent()
    with use(ONE):
        plain, bound = greenlet.greenlet(work), greenlet.greenlet(bind(work))
        copied = greenlet.greenlet(work)
        copied.gr_context = contextvars.copy_context()
    with use(TWO):
        for each, name in ((plain, "plain"), (bound, "bound"), (copied, "copied")):
            each.switch(name)
            assert TWO is current()
        for each in (bound, plain, copied):
            each.switch()
            assert TWO is current()

    assert [("plain", None), ("bound", ONE), ("copied", ONE), ("bound", ONE), ("plain", None), ("copied", ONE)] == found


def test_a_scheduler_runs_jobs_bound() -> None:
    """Jobs of a scheduler with a thread and workers of its own, once and repeated: each that was bound has the context
    of where it was added; the others none, whatever ran before them in the worker."""
    clock, found, done = sched.scheduler(time.monotonic, time.sleep), [], threading.Event()

    with ThreadPoolExecutor(1) as pool:

        def add(job: Callable[[], object], times: int) -> None:
            def fire(left: int) -> None:
                pool.submit(job)
                if left > 1:
                    clock.enter(0.002, 1, fire, (left - 1,))

            clock.enter(0.001, 1, fire, (times,))

        def job(name: str) -> Callable[[], object]:
            return lambda: found.append((name, current()))

        with use(ONE):
            add(bind(job("one")), 3)
        with use(TWO):
            add(bind(job("two")), 2)
            add(job("plain"), 2)
        clock.enter(0.05, 1, lambda: pool.submit(done.set))
        runner = threading.Thread(target=clock.run)
        runner.start()
        assert done.wait(WAIT)
        runner.join(WAIT)

    assert {("one", ONE), ("two", TWO), ("plain", None)} == set(found)
    assert 7 == len(found)


def test_what_outlives_a_request_keeps_its_context() -> None:
    """A worker that the first request starts has that request's context for good; started under `use(None)` it has
    none, and takes that of each message."""

    async def worker(messages: asyncio.Queue[Any], found: list[Any]) -> None:
        while (carrier := await messages.get()) is not None:
            before = current()
            with continued(carrier) as context:
                found.append((before, context and context.trace_id))

    async def main(start_under: TraceContext | None) -> list[Any]:
        messages: asyncio.Queue[Any] = asyncio.Queue()
        found: list[Any] = []
        with use(ONE), use(start_under):
            task = asyncio.create_task(worker(messages, found))
        for context in (TWO, ONE):
            messages.put_nowait(inject({}, context))
        messages.put_nowait({"other": "1"})
        messages.put_nowait(None)
        await asyncio.wait_for(task, WAIT)
        return found

    assert [(None, TWO.trace_id), (None, ONE.trace_id), (None, None)] == asyncio.run(main(None))
    assert [(ONE, TWO.trace_id), (ONE, ONE.trace_id), (ONE, None)] == asyncio.run(main(ONE))


def test_batches_of_a_consumer() -> None:
    """Each batch has a trace of its own with links in the order of its messages; work in threads and tasks for one of
    them goes on under it; what they send is of the batch's trace."""
    messages = [inject({}, TraceContext(f"{number:032x}", f"{number:016x}")) for number in range(1, 11)]
    traces, links, sent = [], [], []

    async def consume(pool: ContextExecutor) -> None:
        loop = asyncio.get_running_loop()
        for start in range(0, 10, 4):
            with linked(*messages[start : start + 4]) as batch:
                links.append([int(link.trace_id or "", 16) for link in batch.links])
                below = await asyncio.gather(in_task(), asyncio.to_thread(current), loop.run_in_executor(pool, current))
                assert [batch.context] * 3 == below
                traces.append(batch.context.trace_id)
                sent.append(inject({})["traceparent"][3:35])

    with ThreadPoolExecutor(1) as threads:
        asyncio.run(consume(ContextExecutor(threads)))

    assert [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10]] == links
    assert 3 == len(set(traces))
    assert traces == sent
