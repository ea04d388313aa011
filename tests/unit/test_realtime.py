# SPDX-License-Identifier: MIT
"""`pyuio.realtime` as far as it needs no privilege, and the checks of its arguments. tests/guest has the rest."""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pyuio
from pyuio._native._realtime import lib
from pyuio.kernel import processors
from pyuio.rt import memory_lock
from pyuio.rt.report import Report, Setting, Throttling

MIB = 1 << 20
# Settings that need no privilege.
ANYONE: dict[str, Any] = {"policy": None, "lock_memory": False, "cpu_dma_latency": None}
NOTHING: dict[str, Any] = {**ANYONE, "stack": 0, "heap": 0, "freeze_garbage": False}
PACKAGE = str(Path(pyuio.__file__).parent)
CPUS = frozenset(os.sched_getaffinity(0))


def frozen() -> bool:
    """Return whether objects are frozen beside CPython 3.12's immortal ones, of which there are some 400."""
    return gc.get_freeze_count() > 1000


def state() -> tuple[object, ...]:
    return os.sched_getscheduler(0), os.sched_getaffinity(0), gc.isenabled(), frozen()


@pytest.fixture(autouse=True)
def all_is_as_before() -> Iterator[None]:
    before = state()
    yield
    assert state() == before


@pytest.mark.parametrize(
    ("arguments", "kind", "match"),
    [
        ({"priority": 0}, ValueError, "priority is 1 to 99, not 0"),
        ({"priority": 100}, ValueError, "1 to 99"),
        ({"priority": -1, "policy": "rr"}, ValueError, "1 to 99"),
        ({"priority": 50.0}, TypeError, "priority is an int"),
        ({"priority": True}, TypeError, "priority is an int"),
        ({"priority": "high"}, TypeError, "priority is an int"),
        ({"policy": "batch"}, ValueError, "fifo, rr, deadline"),
        ({"policy": None, "priority": 3}, ValueError, "priority needs a policy"),
        ({"policy": "deadline"}, ValueError, "needs a runtime"),
        ({"policy": "deadline", "runtime": 0.001}, ValueError, "a deadline or a period"),
        ({"policy": "deadline", "runtime": 0.001, "period": 0.01, "priority": 5}, ValueError, "no priority"),
        ({"policy": "deadline", "runtime": 0.02, "period": 0.01}, ValueError, "runtime <= deadline <= period"),
        ({"policy": "deadline", "runtime": 0.01, "deadline": 0.02, "period": 0.015}, ValueError, "deadline <= period"),
        ({"policy": "deadline", "runtime": 1e-7, "period": 0.01}, ValueError, "1024 ns <="),
        ({"policy": "deadline", "runtime": 0.0, "period": 0.01}, ValueError, "more than 0"),
        ({"policy": "deadline", "runtime": float("nan"), "period": 0.01}, ValueError, "more than 0"),
        ({"policy": "deadline", "runtime": 0.001, "period": float("inf")}, ValueError, "2\\^32 seconds"),
        ({"policy": "deadline", "runtime": "1", "period": 0.01}, TypeError, "number of seconds"),
        ({"runtime": 0.001}, ValueError, "runtime belongs to the policy deadline"),
        ({"period": 0.001, "policy": "rr"}, ValueError, "period belongs to the policy deadline"),
        ({"cpus": []}, ValueError, "no processor"),
        ({"cpus": 99999}, ValueError, "are online, and not 99999"),
        ({"cpus": [-1]}, ValueError, "are online"),
        ({"cpus": "0"}, TypeError, "number of a processor or several"),
        ({"cpus": 0.5}, TypeError, "number of a processor or several"),
        ({"cpus": [0.5]}, TypeError, "a processor is an int"),
        ({"stack": -1}, ValueError, "stack is 0 or more bytes"),
        ({"stack": 1 << 47}, ValueError, "less than 2\\^47"),
        ({"heap": 1.5}, TypeError, "heap is a number of bytes"),
        ({"cpu_dma_latency": -1}, ValueError, "0 to 2\\^31 - 1 microseconds"),
        ({"cpu_dma_latency": 1 << 31}, ValueError, "0 to 2\\^31 - 1 microseconds"),
        ({"cpu_dma_latency": 0.1}, TypeError, "int in microseconds"),
        ({"interrupt_cpu": 0}, ValueError, "need an interrupt"),
        ({"interrupt_priority": 50}, ValueError, "need an interrupt"),
        ({"interrupt": 1 << 20}, ValueError, "there is no interrupt 1048576"),
        ({"interrupt": -1}, ValueError, "there is no interrupt -1"),
        ({"interrupt": "uio0"}, TypeError, "an open device or a number"),
        ({"interrupt": 0, "interrupt_cpu": [0]}, TypeError, "number of a processor"),
        ({"interrupt": 0, "interrupt_cpu": 99999}, ValueError, "are online"),
        ({"interrupt": 0, "interrupt_priority": 100}, ValueError, "interrupt_priority is 0 to 99"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], kind: type[Exception], match: str) -> None:
    for strict in (True, False):
        with pytest.raises(kind, match=match):
            pyuio.realtime(**arguments, strict=strict)


def test_garbage_is_frozen_and_not_collected_inside() -> None:
    with pyuio.realtime(**ANYONE) as tuned:
        assert not gc.isenabled()
        assert frozen()
        assert tuned.missing == ()
        assert not tuned.closed
    assert tuned.closed
    tuned.close()
    with pytest.raises(pyuio.ClosedError), tuned:
        pass


def test_what_the_program_froze_stays_frozen() -> None:
    gc.freeze()
    try:
        gc.disable()
        before = gc.get_freeze_count()
        with pyuio.realtime(**ANYONE):
            pass
        assert gc.get_freeze_count() == before
        assert not gc.isenabled()
    finally:
        gc.enable()
        gc.unfreeze()


def test_it_is_a_function_too() -> None:
    tuned = pyuio.realtime(**ANYONE)
    assert not gc.isenabled()
    tuned.close()
    assert gc.isenabled()


def test_nothing_asked() -> None:
    with pyuio.realtime(**NOTHING) as tuned:
        assert tuned.report.settings == ()
        assert gc.isenabled()


def test_restored_after_an_exception() -> None:
    with pytest.raises(RuntimeError, match="inside"), pyuio.realtime(**ANYONE, cpus=min(CPUS)):
        raise RuntimeError("inside")


def test_processors() -> None:
    with pyuio.realtime(**NOTHING, cpus=max(CPUS)) as tuned:
        assert os.sched_getaffinity(0) == {max(CPUS)}
        assert tuned.report.settings == (Setting("cpus", str(max(CPUS)), str(max(CPUS))),)


def test_nested_and_closed_in_any_order() -> None:
    a = pyuio.realtime(**ANYONE, cpus=min(CPUS))
    b = pyuio.realtime(**ANYONE, cpus=max(CPUS))
    a.close()
    assert os.sched_getaffinity(0) == {max(CPUS)}
    assert not gc.isenabled()
    b.close()
    assert os.sched_getaffinity(0) == CPUS
    assert gc.isenabled()


def in_thread(work: Callable[[], Any]) -> Any:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    thread.join()
    return results[0]


def test_closed_by_another_thread() -> None:
    tuned = pyuio.realtime(**ANYONE, cpus=min(CPUS))
    in_thread(tuned.close)
    assert os.sched_getaffinity(0) == CPUS


def test_closed_when_its_thread_has_ended() -> None:
    tuned = in_thread(lambda: pyuio.realtime(**ANYONE, cpus=min(CPUS)))
    assert not gc.isenabled()
    tuned.close()
    assert gc.isenabled()


def faults(work: Callable[[], object]) -> int:
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    work()
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before


def test_the_heap_is_there() -> None:
    """Count page faults while 4 MiB of C's heap, and of Python's, are allocated: in real time there are hardly any."""
    script = """if True:
        import gc, sys, pyuio
        from tests.unit.test_realtime import ANYONE, MIB, faults
        works = [lambda: [bytearray(4 * MIB) for _ in range(2)], lambda: [bytes(400) for _ in range(4 * MIB // 512)]]
        with pyuio.realtime(**{**ANYONE, "heap": 0}):
            before = [[faults(work) for _ in range(3)][-1] for work in works]
        with pyuio.realtime(**ANYONE, heap=16 * MIB):
            inside = [[faults(work) for _ in range(3)][-1] for work in works]
        print(before, inside)
        assert min(before) > 500 and max(inside) < 20
    """
    subprocess.run([sys.executable, "-c", script], check=True, timeout=100)


def test_the_stack_is_there() -> None:
    def inside() -> tuple[int, str]:
        with pyuio.realtime(**{**ANYONE, "stack": 512 * 1024}) as tuned:
            got = next(setting.got for setting in tuned.report.settings if setting.name == "stack")
            return faults(lambda: lib.pyuio_touch_stack(512 * 1024)), got

    assert in_thread(lambda: faults(lambda: lib.pyuio_touch_stack(512 * 1024))) > 100
    found, got = in_thread(inside)
    assert found < 10
    assert got == "512 KiB"


def test_no_more_stack_than_the_thread_has() -> None:
    size = threading.stack_size(256 * 1024)
    try:
        tuned = in_thread(lambda: pyuio.realtime(**{**ANYONE, "stack": 1 << 40}))
    finally:
        threading.stack_size(size)
    tuned.close()
    assert tuned.missing == ()
    assert "all that the thread has" in str(tuned)


def test_more_heap_than_there_is() -> None:
    with pytest.raises(pyuio.RealTimeError, match=r"heap .*KiB: touching .* are free.*strict=False"):
        pyuio.realtime(**ANYONE, heap=1 << 46)
    with pyuio.realtime(**ANYONE, heap=1 << 46, strict=False) as tuned:
        assert [setting.name for setting in tuned.missing] == ["heap"]


def test_a_forked_process_is_outside() -> None:
    with pyuio.realtime(**ANYONE, cpus=min(CPUS)) as tuned:
        child = os.fork()
        if child == 0:
            outside = tuned.closed and gc.isenabled() and not frozen() and os.sched_getaffinity(0) == CPUS
            tuned.close()
            tuned.throttled()
            os._exit(0 if outside and gc.isenabled() else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert not gc.isenabled()
        assert os.sched_getaffinity(0) == {min(CPUS)}


def functions(frame: FrameType | None) -> set[str]:
    """Return the names of a function and its callers."""
    names = set()
    while frame is not None:
        names.add(frame.f_code.co_name)
        frame = frame.f_back
    return names


def test_ctrl_c_at_every_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise it before each line of pyuio in turn, while real time begins and while it ends: everything is restored.

    In the few lines at which `close` has not begun yet, a second `close` restores it.
    """
    before = state()
    monkeypatch.setattr(gc, "collect", lambda: 0)  # no line of pyuio, but it takes nine tenths of the time
    remaining = 0
    reached = leaving = False
    tuned: pyuio.RealTime | None

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal remaining, reached, leaving

        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line":
            remaining -= 1
            if remaining == 0:
                reached = True
                leaving = "leave" in functions(frame)
                raise KeyboardInterrupt
        return trace

    for number in range(1, 5000):
        tuned, reached, leaving, remaining = None, False, False, number
        sys.settrace(trace)
        try:
            tuned = pyuio.realtime(**NOTHING | {"freeze_garbage": True, "heap": 65536}, cpus=min(CPUS))
            tuned.close()
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        if tuned is not None and not leaving:
            tuned.close()
        assert state() == before, f"line {number}"
        if not reached:
            break
    assert number > 100


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_refused_to_an_ordinary_user() -> None:
    child = os.fork()
    if child == 0:
        try:
            resource.setrlimit(resource.RLIMIT_RTPRIO, (0, 0))
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            before = state()
            for arguments in ({"policy": "fifo"}, {"policy": "deadline", "runtime": 0.001, "period": 0.01}):
                with pytest.raises(PermissionError, match="CAP_SYS_NICE") as caught:
                    pyuio.realtime(**{**ANYONE, **arguments})
                assert isinstance(caught.value, pyuio.RealTimeDeniedError)
                assert state() == before
            with pyuio.realtime(**{**ANYONE, "policy": "fifo"}, strict=False) as tuned:
                assert [setting.name for setting in tuned.missing] == ["policy"]
                assert not tuned.report.throttling.watched
                assert "MISSING" in str(tuned)
            assert state() == before
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


def test_the_report() -> None:
    granted = Setting("policy", "fifo 89", "fifo 89")
    refused = Setting("lock_memory", "yes", "", "mlockall: Operation not permitted", "run as root")
    report = Report(7, (granted, refused), Throttling(950000, 1000000, True, 2, 51_000_000))
    assert report.missing == (refused,)
    assert json.loads(json.dumps(report.as_dict()))["settings"][1]["remedy"] == "run as root"
    assert str(report).splitlines() == [
        "real time of thread 7:",
        "  policy             fifo 89",
        "  lock_memory        MISSING, asked yes: mlockall: Operation not permitted; run as root",
        "  throttling         real-time threads may run 950000 us in 1000000; THIS ONE WAS HELD BACK in 2 periods, "
        "for 51 ms at worst",
    ]
    assert "switched off" in str(Throttling(-1, 1000000))
    assert "not watched" in str(Throttling(950000, 1000000))


@given(st.frozensets(st.integers(0, 300)))
def test_lists_of_processors(numbers: frozenset[int]) -> None:
    assert processors.parse_list(processors.format_list(numbers)) == numbers


def test_lists_of_processors_as_the_kernel_writes_them() -> None:
    assert processors.parse_list("0-3,5\n") == {0, 1, 2, 3, 5}
    assert processors.parse_list("\n") == frozenset()
    assert processors.format_list([5, 0, 1, 3, 2]) == "0-3,5"


class InTheEnd:
    """Garbage that only the collector finds; Ctrl-C arrives in its finalizer."""

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def test_ctrl_c_is_not_lost_in_a_finalizer() -> None:
    before = memory_lock.garbage()
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        InTheEnd()
        with pytest.raises(KeyboardInterrupt):
            memory_lock.set_garbage((False, before[1]))
    finally:
        signal.signal(signal.SIGINT, handler)
        memory_lock.set_garbage(before)
