"""Ids of traces and spans: unique over threads and forks, never zero; an error where the system has no random bytes."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading

import pytest

from gobanfast.trace import TraceContext, inject

#: Makes getrandom fail with EPERM from here on: a seccomp filter over the number of the system call.
NO_RANDOM = """
import ctypes, errno, struct, sys
from gobanfast.trace import TraceContext, inject
TraceContext.start()
number = {"x86_64": 318, "aarch64": 278}[sys.argv[1]]
def step(code, yes, no, value):
    return struct.pack("HBBI", code, yes, no, value)
program = step(0x20, 0, 0, 0) + step(0x15, 0, 1, number)  # load the number; another one: skip the next
program += step(6, 0, 0, 0x50000 | errno.EPERM) + step(6, 0, 0, 0x7FFF0000)
steps = ctypes.create_string_buffer(program, len(program))
head = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(steps))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.c_char_p(head), 0, 0):
    print("no seccomp"); sys.exit()
parent = TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
made = set()
try:
    for _ in range(10_000):
        made.add(inject({}, parent)["traceparent"])
except OSError as error:
    print(error.errno == errno.EPERM, len(made) < 600, error)
for call in (TraceContext.start, parent.child, lambda: inject({}, parent)):
    try:
        print("made", call())
    except OSError:
        print("refused")
"""


def draw(count: int) -> list[str]:
    """`count` trace ids, and the ids of as many spans."""
    ids = []
    for _ in range(count):
        context = TraceContext.start()
        ids += [str(context.trace_id), str(context.span_id)]
    return ids


def test_ids_are_random_where_the_flag_says_so() -> None:
    """Never zero; every bit is set in about half of them, and the flag says that they are random."""
    contexts = [TraceContext.start() for _ in range(4000)]
    values = [int(str(context.trace_id), 16) for context in contexts]

    assert all(context.random and int(str(context.span_id), 16) for context in contexts)
    assert 4000 == len(set(values))
    for bit in range(128):  # eight standard deviations of 4,000 coins
        assert 2000 - 8 * 32 < sum(value >> bit & 1 for value in values) < 2000 + 8 * 32


def test_every_injection_is_another_parent() -> None:
    """The ids that are sent are never one's own, nor one another's."""
    context = TraceContext.start()
    sent = {inject({}, context)["traceparent"][36:52] for _ in range(5000)}

    assert 5000 == len(sent - {context.span_id})


def test_forks_draw_other_ids() -> None:
    """Eight processes forked with one pool, and their parent, draw no id twice."""
    draw(5)  # the pool is filled, and partly used
    readers = []
    for _ in range(8):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                with os.fdopen(writer, "w") as out:
                    out.write(" ".join(draw(10_000)))
            finally:
                os._exit(0)
        os.close(writer)
        readers.append((reader, child))
    ids = draw(10_000)
    for reader, child in readers:
        with os.fdopen(reader) as pipe:
            ids += pipe.read().split()
        os.waitpid(child, 0)

    assert 9 * 20_000 == len(ids) == len(set(ids))


def test_fork_between_the_ids_of_a_span() -> None:
    """Parent and children go on from the same trace id; the span ids that follow are each one's own."""
    from gobanfast._core.trace_context import random_span_id, random_trace_id

    trace, readers = random_trace_id(), []
    for _ in range(4):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.write(writer, f"{random_span_id()} {random_trace_id()}".encode())
            finally:
                os._exit(0)
        os.close(writer)
        readers.append((reader, child))
    ids = [f"{random_span_id()}", f"{random_trace_id()}", f"{trace}"]
    for reader, child in readers:
        with os.fdopen(reader) as pipe:
            ids += pipe.read().split()
        os.waitpid(child, 0)

    assert 11 == len(ids) == len(set(ids))


def test_child_of_a_child_draws_other_ids() -> None:
    """A pool that a child filled is thrown away by its own child, too; so is that of a thread which forks."""
    code = (
        "import os, threading\n"
        "from gobanfast.trace import TraceContext\n"
        "def line(): os.write(1, (TraceContext.start().trace_id + '\\n').encode())\n"
        "def tree(depth):\n"
        "    line()\n"
        "    if depth and os.fork() == 0:\n"
        "        tree(depth - 1); os._exit(0)\n"
        "    if depth: os.wait()\n"
        "    line()\n"
        "tree(4)\n"
        "thread = threading.Thread(target=tree, args=(2,)); thread.start(); thread.join()\n"
    )
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    ids = run.stdout.split()

    assert 16 == len(ids) == len(set(ids))


def test_threads_draw_other_ids() -> None:
    """Each thread has a pool of its own."""
    drawn: list[list[str]] = []
    start = threading.Barrier(8)

    def work() -> None:
        start.wait()
        drawn.append(draw(5000))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ids = [one for each in drawn for one in each]

    assert 8 * 10_000 == len(ids) == len(set(ids))


@pytest.mark.skipif(platform.machine() not in {"x86_64", "aarch64"}, reason="the number of getrandom is not known here")
def test_no_random_bytes_is_an_error() -> None:
    """What is left in the pool is used up; then it is OSError, at every call, and never an id from elsewhere."""
    run = subprocess.run(
        [sys.executable, "-c", NO_RANDOM, platform.machine()], capture_output=True, text=True, timeout=60, check=True
    )  # fmt: skip
    if run.stdout == "no seccomp\n":
        pytest.skip("the kernel takes no seccomp filter here")
    first, *others = run.stdout.splitlines()

    assert (
        "True True [Errno 1] the system gives no random bytes for trace ids (getrandom: Operation not permitted)"
        == first
    )
    assert ["refused"] * 3 == others
