"""The current trace context: where it is in force, where Python carries it by itself, and where `bind` has to."""

from __future__ import annotations

import asyncio
import contextvars
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import pytest

from gobanfast import trace
from gobanfast.trace import ContextExecutor, TraceContext, bind, continued, current, inject, linked, use

ONE = TraceContext("0" * 31 + "1", "0" * 15 + "1", sampled=True)
TWO = TraceContext("0" * 31 + "2", "0" * 15 + "2")


def seen() -> TraceContext | None:
    """What is current where this runs; a function that a process can be asked for."""
    return current()


def test_use_is_put_back() -> None:
    """Nested, with None, and after an error; one that is in force cannot be entered again."""
    assert current() is None
    with use(ONE) as one:
        assert one is ONE is current()
        with use(TWO):
            assert TWO is current()
            with use(None):
                assert current() is None
        with pytest.raises(LookupError), use(TWO):
            raise LookupError
        assert ONE is current()
        again = use(TWO)
        with again, pytest.raises(RuntimeError, match="in force already"):
            again.__enter__()
        with again:
            assert TWO is current()
    assert current() is None
    with pytest.raises(TypeError, match="context is 'x', not a TraceContext"):
        use("x")  # type: ignore[arg-type]


def test_tasks_and_to_thread_carry_it() -> None:
    """By themselves; a task does not change that of another."""

    async def work(context: TraceContext, go: asyncio.Event) -> list[TraceContext | None]:
        with use(context):
            await go.wait()
            inner = await asyncio.create_task(asyncio.sleep(0, current()))
            found = [current(), inner, await asyncio.to_thread(seen)]
            loop, called = asyncio.get_running_loop(), asyncio.Event()
            loop.call_later(0, lambda: (found.append(current()), called.set()))
            await called.wait()
            return found

    async def both() -> list[list[TraceContext | None]]:
        go = asyncio.Event()
        tasks = [asyncio.create_task(work(context, go)) for context in (ONE, TWO)]
        go.set()
        return await asyncio.gather(*tasks)

    assert [[ONE] * 4, [TWO] * 4] == asyncio.run(both())


def test_threads_and_executors_need_bind() -> None:
    """A worker that was started before knows nothing; bound, it has the context, and none afterwards."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(seen).result()
        with use(ONE):
            assert pool.submit(seen).result() is None
            assert ONE is pool.submit(bind(seen)).result()
            assert [ONE] == list(pool.map(lambda call: call(), [bind(seen)]))
            bound = bind(seen)
        assert current() is None
        assert pool.submit(seen).result() is None
        assert [ONE, ONE] == [pool.submit(bound).result(), bound()]

        async def in_executor() -> TraceContext | None:
            with use(TWO):
                return await asyncio.get_running_loop().run_in_executor(ContextExecutor(pool), seen)

        assert TWO is asyncio.run(in_executor())

    found: list[TraceContext | None] = []
    with use(ONE):
        thread = threading.Thread(target=bind(lambda: found.append(current())))
        timer = threading.Timer(0, bind(lambda: found.append(current())))
    for each in (thread, timer):
        each.start()
        each.join()
    assert [ONE, ONE] == found


def test_bind_is_of_functions() -> None:
    """It keeps name and arguments; two threads may run one at once; an async def is told what carries it."""

    def add(one: int, *, two: int) -> int:
        return one + two

    bound = bind(add)
    assert ("add", 5) == (bound.__name__, bound(2, two=3))
    with pytest.raises(TypeError, match="a task carries the context"):
        bind(asyncio.sleep)
    with pytest.raises(TypeError, match="is not a plain function"):
        bind(3)  # type: ignore[arg-type]
    start = threading.Barrier(2, timeout=30)
    with use(ONE):
        meet = bind(start.wait)
    with ThreadPoolExecutor(2) as pool:
        assert {0, 1} == {future.result() for future in [pool.submit(meet), pool.submit(meet)]}


def test_executor_carries_it() -> None:
    """Each call has the context of where it was submitted; the executor inside is shut down with it."""
    inner = ThreadPoolExecutor(2)
    with ContextExecutor(inner) as pool:
        with use(ONE):
            one = pool.submit(seen)
            many = pool.map(lambda _: current(), range(3))
        with use(TWO):
            two = pool.submit(seen)
        assert (ONE, TWO, None, [ONE] * 3) == (one.result(), two.result(), pool.submit(seen).result(), list(many))
    with pytest.raises(RuntimeError, match="shutdown"):
        inner.submit(seen)


def test_processes_carry_it() -> None:
    """A bound function is pickled with its context."""
    with use(ONE):
        assert ONE == pickle.loads(pickle.dumps(bind(seen)))()  # noqa: S301
        with ContextExecutor(ProcessPoolExecutor(1, get_context("spawn"))) as pool:
            assert ONE == pool.submit(current).result(timeout=60)


def test_another_context_of_python_is_another_one() -> None:
    """What is set in a copied context stays there."""
    other = contextvars.copy_context()
    other.run(use(ONE).__enter__)

    assert current() is None
    assert ONE is other.run(current)


def test_linked_has_a_trace_of_its_own() -> None:
    """A consumer's span is linked to the traces of its messages, is no child of them, and sampled if one of them is."""
    messages = [inject([], ONE), [], inject([], TWO), [("traceparent", "junk")], [("b3", "0")]]
    with linked(*messages) as batch:
        assert batch.context is current()
        assert [ONE.trace_id, TWO.trace_id] == [link.trace_id for link in batch.links]
        assert batch.context.trace_id not in {ONE.trace_id, TWO.trace_id}
        assert (None, True) == (batch.context.parent_id, batch.context.sampled)
    assert current() is None
    with linked(inject([], TWO)) as batch:
        assert batch.context.sampled is False
    with linked() as batch:
        assert () == batch.links


def test_continued_is_a_child() -> None:
    """A message's work has a span of its own in the trace that came; none where none came, whatever was current."""
    carrier = inject({}, ONE, baggage=True)
    with use(TWO):
        with continued(carrier) as context:
            assert context is not None
            assert context is current()
            assert (ONE.trace_id, carrier["traceparent"][36:52], True) == (
                context.trace_id, context.parent_id, context.sampled,
            )  # fmt: skip
        for none in (None, (), {}, [("traceparent", "junk")]):
            with continued(none) as context:
                assert context is None is current()
        assert TWO is current()
        with continued({"b3": f"{ONE.trace_id}-{ONE.span_id}-0"}, ("tracecontext",)) as context:
            assert context is None
    with continued([("b3", "0")]) as context:
        assert context is not None
        assert (context.sampled, context.parent_id, context.trace_id is None) == (False, None, False)
    with pytest.raises(TypeError, match="carrier is str"):
        continued("traceparent")


def test_module_is_light() -> None:
    """Importing it brings in no executor, no JSON, no asyncio, no logging, and nothing from outside."""
    code = "import sys; before = set(sys.modules); import gobanfast.trace; print(*sorted(set(sys.modules) - before))"
    run = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, timeout=60, check=True,
                         cwd=str(trace.__file__).rpartition("/gobanfast/")[0])  # fmt: skip
    heavy = {"asyncio", "json", "logging", "concurrent.futures", "inspect", "dataclasses", "numpy", "yaml"}

    assert "gobanfast.trace" in run.stdout.split()
    assert set() == heavy & set(run.stdout.split())


def test_public_names() -> None:
    """The surface of the module, each with a docstring."""
    assert [
        "EXTRACTED", "INJECTED", "PROPAGATORS", "ContextExecutor", "TraceContext", "bind", "continued", "current",
        "envelope", "extract", "inject", "kafka_setter", "linked", "read_envelope", "use",
    ] == trace.__all__  # fmt: skip
    assert [] == [name for name in trace.__all__ if name[1].islower() and not getattr(trace, name).__doc__]
