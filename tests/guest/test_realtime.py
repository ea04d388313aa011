# SPDX-License-Identifier: MIT
"""Real time on a real kernel: the tests read from the kernel, without pyuio, what was set and what was restored."""

from __future__ import annotations

import _thread
import contextlib
import ctypes
import gc
import mmap
import os
import platform
import random
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from pyuio_drivers.edu import Edu

import pyuio
from pyuio.doctor.scheduling import parse_release
from pyuio.kernel.processors import format_list
from pyuio.kernel.sysfs import link_name
from pyuio.rt import setting_stack, settings, throttling
from tests.guest.marks import on_x86
from tests.guest.support import (
    PATIENCE,
    PCI_TESTDEV,
    PROGRAM_LIMIT,
    attribute,
    interrupt_threads,
    leaves_a_with,
    signals_come,
    wait_until,
)

KERNEL = Path("/proc/sys/kernel")
LATENCY = Path("/dev/cpu_dma_latency")
FORK = os.SCHED_RESET_ON_FORK
CPUS = set(os.sched_getaffinity(0))
MASK = int(Path("/proc/irq/default_smp_affinity").read_text().replace(",", ""), 16)
ALL = format_list(bit for bit in range(MASK.bit_length()) if MASK >> bit & 1)
# In make test these run without a priority: tests/unit/test_realtime.py.
of_pyuio_alone = pytest.mark.long
# Switches off defaults, for tests of other settings.
QUICK: dict[str, Any] = {"heap": 0, "freeze_garbage": False}
POLICY: dict[str, Any] = {**QUICK, "lock_memory": False, "stack": 0, "cpu_dma_latency": None}


def policy(thread: int = 0) -> tuple[int, int]:
    return os.sched_getscheduler(thread), os.sched_getparam(thread).sched_priority


def locked() -> int:
    """Return how many KiB are locked in memory."""
    return int(re.findall(r"VmLck:\s*(\d+)", Path("/proc/self/status").read_text())[0])


def latency() -> int:
    """Return the latency that the kernel keeps, in microseconds; opening the file to read it requests any latency."""
    with LATENCY.open("rb", buffering=0) as file:
        return int.from_bytes(file.read(4), sys.byteorder)


def steered() -> dict[str, str]:
    # A file of /proc/irq beside the directories is the default.
    names = [name for name in os.listdir("/proc/irq") if name.isdigit()]  # noqa: PTH208 - before and after each test
    return {name: Path("/proc/irq", name, "smp_affinity_list").read_text().strip() for name in names}


def frozen() -> bool:
    """Return whether objects are frozen beside CPython 3.12's immortal ones, of which there are some 400."""
    return gc.get_freeze_count() > 1000


def state() -> dict[str, object]:
    return {
        "policy": policy(),
        "cpus": os.sched_getaffinity(0),
        "locked": locked(),
        "garbage": (gc.isenabled(), frozen()),
        "latency": latency(),
        # The cards' threads come and go with their drivers.
        "interrupts": {number: cpus for number, cpus in steered().items() if cpus != ALL},
        "threads": interrupt_threads(),
        "requests": [str(path) for path in Path("/proc/self/fd").iterdir() if link_name(path) == LATENCY.name],
        "tasks": sorted(path.name for path in Path("/proc/self/task").iterdir()),
    }


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left_from_before() -> None:
    """Collect what other modules' tests left, or it may be collected amid a test: a service's ring is locked memory."""
    gc.collect()


@pytest.fixture(autouse=True)
def all_is_as_before(request: pytest.FixtureRequest) -> Iterator[None]:
    """Set up last, so that what a test opens is open before, and closed after."""
    # The kernel lists a joined thread for a moment longer.
    wait_until(lambda: len(list(Path("/proc/self/task").iterdir())) == threading.active_count())
    for name in ("device", "card"):
        if name in request.fixturenames:
            request.getfixturevalue(name)
    before = state()
    yield
    after: dict[str, object] = {}

    def as_before() -> bool:
        after.update(state())
        return after == before

    with contextlib.suppress(AssertionError):
        wait_until(as_before)
    assert after == before


@pytest.fixture
def line(device: pyuio.Device) -> str:
    """Return the number of the card's interrupt, from sysfs."""
    return attribute(str(device.address), "irq")


def in_thread(work: Callable[[], Any]) -> Any:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    thread.join()
    return results[0]


def in_child(work: Callable[[], object]) -> None:
    """Run `work` in a forked process, and fail if it fails."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            print(f"in the forked process: {error!r}", file=sys.stderr, flush=True)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


def ordinary_user(**limits: int) -> None:
    """Become nobody, with some of the limits `rtprio` and `memlock`."""
    names = {"rtprio": resource.RLIMIT_RTPRIO, "memlock": resource.RLIMIT_MEMLOCK}
    for name, limit in limits.items():
        resource.setrlimit(names[name], (limit, limit))
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)


def test_everything_at_once(device: pyuio.Device, line: str) -> None:
    cpu = max(CPUS)
    with pyuio.realtime(interrupt=device, cpus=cpu) as tuned:
        assert tuned.missing == ()
        assert policy() == (os.SCHED_FIFO | FORK, 89)
        assert os.sched_getaffinity(0) == {cpu}
        assert not gc.isenabled()
        assert frozen()
        assert latency() == 0
        assert steered()[line] == str(cpu)
        before = locked()
        assert before > 1024
        with mmap.mmap(-1, 1 << 20):
            assert locked() >= before + 1024
        names = [setting.name for setting in tuned.report.settings]
        assert names == [
            *("freeze_garbage", "heap", "stack", "lock_memory", "cpu_dma_latency"),
            *("interrupt_cpu", "interrupt_priority", "cpus", "policy"),
        ]
        assert "fifo 89" in str(tuned)
    assert policy() == (os.SCHED_OTHER, 0)
    assert "fifo 89" in str(tuned)


def test_the_interrupt_comes_in_real_time(card: Edu) -> None:
    with pyuio.realtime(interrupt=card.device, interrupt_cpu=max(CPUS), **QUICK):
        for _ in range(20):
            card.raise_interrupt()
            assert card.device.interrupt.read(timeout=5) == 1
            card.acknowledge()


def test_the_thread_of_the_interrupt(device: pyuio.Device, line: str) -> None:
    before = interrupt_threads(line)
    if not before:
        pytest.skip("this kernel handles interrupts without threads: debian-rt has them")
    for arguments, priority in (
        ({}, 95),
        ({"priority": 97}, 98),
        ({"priority": 99}, 99),
        ({"interrupt_priority": 60}, 60),
        ({"policy": None}, 95),
    ):
        with pyuio.realtime(interrupt=device, **{**POLICY, **arguments}):
            raised = interrupt_threads(line)
            assert raised.keys() == before.keys()
            assert {now for _, now in raised.values()} == {priority}
        assert interrupt_threads(line) == before
    with pyuio.realtime(interrupt=int(line), interrupt_priority=0, **POLICY):
        assert interrupt_threads(line) == before


def test_a_realtime_kernel_has_such_threads(device: pyuio.Device, line: str) -> None:
    if not Path("/sys/kernel/realtime").exists():
        pytest.skip("not a PREEMPT_RT kernel")
    assert interrupt_threads(line)


@on_x86  # arm64's interrupt controller takes the affinity of a line that has lost its handler
def test_the_interrupt_of_a_device_that_is_closed_meanwhile(edu: str) -> None:
    """Its line is gone or, if others share it, has lost a handler: then the kernel ignores what is to be restored."""
    device = pyuio.open(edu, bind=True)
    affinity = Path(f"/proc/irq/{device.irq}/smp_affinity_list")
    before = affinity.read_text()
    tuned = pyuio.realtime(interrupt=device, cpus=max(CPUS), **POLICY)
    device.close()
    if affinity.exists():
        with pytest.raises(pyuio.RealTimeError, match="accepted it, but the file still has"):
            tuned.close()
        with pyuio.open(edu, bind=True):
            affinity.write_text(before)
    tuned.close()
    assert policy() == (os.SCHED_OTHER, 0)
    with pytest.raises(pyuio.ClosedError):
        pyuio.realtime(interrupt=device)


def test_a_device_without_an_interrupt(cards: Callable[[str], list[str]]) -> None:
    with pyuio.open(cards(PCI_TESTDEV)[0], bind=True) as device:
        assert device.irq is None
        with pytest.raises(pyuio.InterruptUnavailableError, match="does not tell its interrupt"):
            pyuio.realtime(interrupt=device)


def test_an_interrupt_that_cannot_be_steered() -> None:
    """Use the timer's interrupt: its handler forbids moving it (IRQF_NOBALANCING)."""
    for number in ("0", "2"):
        if number in steered():
            with pytest.raises(pyuio.RealTimeError, match="cannot be steered"):
                pyuio.realtime(interrupt=int(number), interrupt_cpu=max(CPUS), **POLICY)
            return
    pytest.skip("no such interrupt here")


@pytest.mark.parametrize(("name", "number", "priority"), [("fifo", os.SCHED_FIFO, 99), ("rr", os.SCHED_RR, 1)])
def test_policies(name: Any, number: int, priority: int) -> None:
    with pyuio.realtime(priority, policy=name, **POLICY):
        assert policy() == (number | FORK, priority)


def test_deadline() -> None:
    with pyuio.realtime(policy="deadline", runtime=0.002, deadline=0.005, period=0.01, **POLICY) as tuned:
        assert os.sched_getscheduler(0) & ~FORK == 6
        shown = Path("/proc/thread-self/sched").read_text()
        assert [int(number) for number in re.findall(r"dl\.\w+\s*:\s*(\d+)", shown)][:1] != []
        assert tuned.report.settings[0].got == "deadline 2000 us by 5000 us in 10000 us"
        thread = threading.Thread(target=lambda: None)  # a thread, which may not have that policy
        thread.start()
        thread.join()
    assert policy() == (os.SCHED_OTHER, 0)


def test_what_was_before_comes_back() -> None:
    def work() -> tuple[object, ...]:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(7))
        with pyuio.realtime(**POLICY):
            assert policy() == (os.SCHED_FIFO | FORK, 89)
        rr = policy()
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 5)
        with pyuio.realtime(**POLICY):
            pass
        return rr, policy(), os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    assert in_thread(work) == ((os.SCHED_RR, 7), (os.SCHED_BATCH, 0), 5)


def test_nested() -> None:
    with pyuio.realtime(40, **QUICK):
        with pyuio.realtime(60, cpus=min(CPUS), cpu_dma_latency=10, **QUICK):
            assert policy()[1] == 60
            assert latency() == 0
        assert policy()[1] == 40
        assert os.sched_getaffinity(0) == CPUS
        assert locked() > 0


@of_pyuio_alone
def test_closed_in_another_order() -> None:
    first = pyuio.realtime(40, **QUICK)
    second = pyuio.realtime(60, **QUICK)
    first.close()
    assert policy()[1] == 60
    assert locked() > 0
    assert latency() == 0
    second.close()
    assert policy() == (os.SCHED_OTHER, 0)


def test_several_threads() -> None:
    ready, done = threading.Barrier(3), threading.Event()
    seen = []

    def work(priority: int) -> None:
        with pyuio.realtime(priority, heap=0):
            ready.wait(30)
            done.wait(30)
            seen.append(policy()[1])

    threads = [threading.Thread(target=work, args=(priority,)) for priority in (30, 40)]
    for thread in threads:
        thread.start()
    ready.wait(30)
    assert policy() == (os.SCHED_OTHER, 0)
    assert locked() > 0
    assert latency() == 0
    assert not gc.isenabled()
    done.set()
    for thread in threads:
        thread.join()
    assert sorted(seen) == [30, 40]


@of_pyuio_alone
def test_closed_by_another_thread() -> None:
    tuned = pyuio.realtime(cpus=max(CPUS), **QUICK)
    in_thread(tuned.close)
    assert policy() == (os.SCHED_OTHER, 0)
    assert tuned.closed


@of_pyuio_alone
def test_closed_when_its_thread_has_ended() -> None:
    tuned = in_thread(lambda: pyuio.realtime(cpus=max(CPUS), **QUICK))
    assert locked() > 0
    tuned.close()


def test_threads_and_processes_do_not_inherit() -> None:
    cpu = max(CPUS)
    with pyuio.realtime(cpus=cpu, heap=0) as tuned:
        assert in_thread(policy) == (os.SCHED_OTHER, 0)
        assert in_thread(lambda: os.sched_getaffinity(0)) == {cpu}

        def child() -> None:
            for _ in range(2):
                assert policy() == (os.SCHED_OTHER, 0)
                assert (locked(), os.sched_getaffinity(0), gc.isenabled()) == (0, CPUS, True)
                tuned.close()

        in_child(child)
        assert policy() == (os.SCHED_FIFO | FORK, 89)
        assert locked() > 0
        assert latency() == 0
        assert not gc.isenabled()
        assert os.sched_getaffinity(0) == {cpu}


def test_a_forked_process_keeps_no_request() -> None:
    """The child inherits the file that holds the request."""
    reader, writer = os.pipe()
    runs, running = os.pipe()
    before = latency()
    with pyuio.realtime(**QUICK):
        child = os.fork()
        if child == 0:
            os.close(writer)
            os.write(running, b"x")
            os.read(reader, 1)  # until the other end is closed
            os._exit(0)
        assert os.read(runs, 1) == b"x"
        assert latency() == 0
    assert latency() == before
    for end in (reader, writer, runs, running):
        os.close(end)
    assert os.waitpid(child, 0)[1] == 0


def test_memory_that_the_program_locked_stays_locked() -> None:
    def work() -> None:
        for flags in (1, 3):  # MCL_CURRENT, and with MCL_FUTURE
            assert ctypes.CDLL(None).mlockall(flags) == 0
            with pyuio.realtime(**QUICK):
                pass
            before = locked()
            assert before > 1024
            with contextlib.closing(mmap.mmap(-1, 1 << 20)):
                assert (locked() > before + 512) == (flags == 3)

    in_child(work)


def test_a_range_that_was_locked_stays_so_and_nothing_else(device: pyuio.Device) -> None:
    with pyuio.Service(device.interrupt):  # its ring
        before = locked()
        assert 0 < before < 1024
        with pyuio.realtime(**QUICK):
            assert locked() > before + 1024
        assert locked() == before
        with contextlib.closing(mmap.mmap(-1, 1 << 20)):
            assert locked() == before


def test_the_end_of_the_process_gives_the_interrupt_back(device: pyuio.Device, line: str) -> None:
    script = f"import pyuio; pyuio.realtime(interrupt={line}, cpus={max(CPUS)}, heap=0, lock_memory=False)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=PROGRAM_LIMIT)


def test_refused_to_an_ordinary_user(line: str) -> None:
    def work() -> None:
        ordinary_user(rtprio=0, memlock=65536)
        before = state_of_user()
        for arguments, match in (
            ({**POLICY}, r"no real-time priority .*setcap cap_sys_nice.*nobody - rtprio 89.*limits.conf"),
            ({**POLICY, "policy": "deadline", "runtime": 0.001, "period": 0.01}, "deadline needs CAP_SYS_NICE"),
            ({**POLICY, "policy": None, "lock_memory": True}, r"may lock 64 .*nobody - memlock unlimited"),
            ({**POLICY, "policy": None, "cpu_dma_latency": 0}, r"cpu_dma_latency.*udev rule"),
            ({**POLICY, "policy": None, "interrupt": int(line), "interrupt_cpu": 0}, "smp_affinity_list.*run as root"),
            ({}, "strict=False goes on without"),
        ):
            with pytest.raises(pyuio.RealTimeError, match=match) as caught:
                pyuio.realtime(**arguments)
            assert isinstance(caught.value, (PermissionError, OSError))
            assert caught.value.errno
            assert state_of_user() == before
        with pyuio.realtime(interrupt=int(line), cpus=0, strict=False, heap=0) as tuned:
            missing = {setting.name for setting in tuned.missing}
            assert missing - {"interrupt_priority"} == {"lock_memory", "cpu_dma_latency", "interrupt_cpu", "policy"}
            assert all(setting.remedy for setting in tuned.missing)
            assert not gc.isenabled()
            assert os.sched_getaffinity(0) == {0}
        assert state_of_user() == before

    in_child(work)


def state_of_user() -> tuple[object, ...]:
    return policy(), os.sched_getaffinity(0), locked(), gc.isenabled(), frozen(), steered()


def test_what_limits_grant() -> None:
    def work() -> None:
        ordinary_user(rtprio=50, memlock=resource.RLIM_INFINITY)
        with pyuio.realtime(50, cpu_dma_latency=None, **QUICK):
            assert policy() == (os.SCHED_FIFO | FORK, 50)
            assert locked() > 0
        # Only CAP_SYS_NICE takes the flag away.
        assert policy() == (os.SCHED_OTHER | FORK, 0)
        assert locked() == 0
        with pytest.raises(PermissionError, match="priorities up to 50"):
            pyuio.realtime(51, **POLICY)
        with pyuio.realtime(50, **POLICY):
            assert policy() == (os.SCHED_FIFO | FORK, 50)
        assert policy() == (os.SCHED_OTHER | FORK, 0)

    in_child(work)


def test_little_may_be_locked_more() -> None:
    """A stack that grows beyond the limit would end the process; so a setting that needs more is refused."""

    def work() -> None:
        size = int(re.findall(r"VmSize:\s*(\d+)", Path("/proc/self/status").read_text())[0]) * 1024
        ordinary_user(memlock=size + (24 << 20))
        with pyuio.realtime(policy=None, cpu_dma_latency=None) as tuned:
            assert "KiB for more" in str(tuned)
            for stack, heap in ((64 << 20, 0), (0, 64 << 20)):
                with pytest.raises(pyuio.RealTimeError, match="more may be locked"):
                    pyuio.realtime(policy=None, cpu_dma_latency=None, stack=stack, heap=heap)
        assert locked() == 0

    in_child(work)


@pytest.fixture
def runtime() -> Iterator[Callable[[int], object]]:
    """Yield a function that sets sched_rt_runtime_us, and restore it afterwards."""
    path = KERNEL / "sched_rt_runtime_us"
    before = path.read_text()
    yield lambda value: path.write_text(str(value))
    path.write_text(before)


def test_deadline_refused(runtime: Callable[[int], object]) -> None:
    times: dict[str, Any] = {"policy": "deadline", "runtime": 0.005, "period": 0.01}
    with pytest.raises(pyuio.RealTimeDeniedError, match="every processor: leave cpus out"):
        pyuio.realtime(**POLICY, **times, cpus=max(CPUS))
    runtime(50000)
    with pytest.raises(pyuio.RealTimeError, match=r"would take more .*50000.* allows") as caught:
        pyuio.realtime(**POLICY, **times)
    assert caught.value.errno == 16
    runtime(0)
    with pytest.raises(pyuio.RealTimeDeniedError, match="sched_rt_runtime_us is 0"):
        pyuio.realtime(**POLICY, **times)
    with pyuio.realtime(**POLICY, **times, strict=False) as tuned:
        assert [setting.name for setting in tuned.missing] == ["policy"]


def run_for(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


@pytest.fixture
def ordinary_work() -> Iterator[None]:
    """Keep the last processor busy with an ordinary process, for which Linux 6.12 and later stop real-time threads."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        os.sched_setaffinity(process.pid, {max(CPUS)})
        yield
        process.kill()


@pytest.mark.usefixtures("ordinary_work")
def test_throttling_is_noticed() -> None:
    """Kernels before 6.12 log it, once per boot; the report says it every time."""
    with pyuio.realtime(cpus=max(CPUS), **QUICK) as tuned:
        run_for(0.3)
        assert tuned.throttled() == 0
        deadline = time.monotonic() + PATIENCE
        while tuned.throttled() < 1:  # once in each period of 1 s, unless the host took the processor away in it
            assert time.monotonic() < deadline
            run_for(0.5)
    throttling = tuned.report.throttling
    assert throttling.watched
    assert throttling.times >= 1
    assert throttling.longest >= 40_000_000
    assert "HELD BACK" in str(tuned)
    assert tuned.as_dict()["throttling"]["times"] == throttling.times
    log = subprocess.run(["dmesg"], capture_output=True, text=True, check=True).stdout
    assert ("RT throttling activated" in log) == (parse_release(platform.release()) < (6, 12))


@pytest.mark.long
def test_a_thread_that_sleeps_is_not_throttled() -> None:
    with pyuio.realtime(cpus=max(CPUS), **QUICK) as tuned:
        for _ in range(15):  # for more than a period of 1 s
            run_for(0.03)
            time.sleep(0.05)
    assert tuned.report.throttling.watched
    assert tuned.throttled() == 0


@pytest.mark.long
def test_throttling_switched_off(runtime: Callable[[int], object]) -> None:
    runtime(-1)
    with pyuio.realtime(cpus=max(CPUS), **QUICK) as tuned:
        run_for(1.2)
        assert not tuned.report.throttling.watched
        assert "switched off" in str(tuned)
    assert tuned.throttled() == 0


def sleep_for_ever() -> None:
    while True:
        time.sleep(0.01)


@pytest.mark.parametrize("step", [97, pytest.param(1, marks=pytest.mark.long)])
def test_ctrl_c_while_it_is_set_up_leaves_nothing(step: int) -> None:
    """Raise it before every ninety-seventh line of setting up and of what that calls, each time from another one."""
    files = {str(module.__file__) for module in (settings, throttling, setting_stack)}
    lines = left = 0

    def trace(frame: FrameType, _event: str, _argument: object) -> Any:
        return trace_lines() if frame.f_code.co_filename in files else None

    def trace_lines() -> Any:
        entered: set[int] = set()

        def trace(frame: FrameType, event: str, _argument: object) -> Any:
            nonlocal lines, left
            if event == "line" and signals_come(frame) and not leaves_a_with(frame, entered):
                lines += 1
                left -= 1
                if left == 0:
                    signal.raise_signal(signal.SIGINT)
            return trace

        return trace

    def set_up() -> None:
        sys.settrace(trace)
        try:
            tuned = pyuio.realtime(**QUICK, cpus=max(CPUS))
        finally:
            sys.settrace(None)
        tuned.close()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        set_up()
        for line in range(random.randint(1, step), lines + 1, step):
            left = line
            with pytest.raises(KeyboardInterrupt):
                set_up()
            assert policy() == (os.SCHED_OTHER, 0), line
        in_thread(lambda: pyuio.realtime(**POLICY).close())  # no lock is left that another thread would wait for
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_inside(card: Edu) -> None:
    threading.Timer(0.3, _thread.interrupt_main).start()
    with pytest.raises(KeyboardInterrupt), pyuio.realtime(interrupt=card.device, cpus=max(CPUS), **QUICK):
        sleep_for_ever()
