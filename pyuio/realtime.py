# SPDX-License-Identifier: MIT
"""Real time: the recipe of Peter Chubb's user-mode-driver patch in one call, with a report of what it got.

The patch's recipe is mlockall, SCHED_FIFO at the highest priority less ten, and a loop that reads. ``docs/realtime.md``
says what each setting is for and what it may cost.
"""

from __future__ import annotations

import atexit
import errno
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, Literal

from pyuio import interrupt_line, process_memory, processor_latency, processors, scheduling
from pyuio.errors import ClosedError, RealTimeDeniedError, RealTimeError
from pyuio.interrupt_line import HasIrq
from pyuio.layers import Layers
from pyuio.processor_latency import LatencyRequest
from pyuio.realtime_report import Report, Setting
from pyuio.scheduling import Scheduling, Thread
from pyuio.throttling import ThrottlingWatch

# Above the reader, below the kernel's own highest threads (migration), which are at 99.
_INTERRUPT_PRIORITY = 95

_layers = Layers()


class RealTime:
    """Settings in force, and the report of them; `realtime` makes it.

    A context manager; `close` restores everything. Without that, everything stays until the process ends.
    """

    def __init__(self, strict: bool) -> None:
        self._strict = strict
        self._closed = False
        self._process = os.getpid()
        self._thread = Thread.current()
        self._settings: list[Setting] = []
        self._watch = ThrottlingWatch(self._thread)
        self._objects: list[bytes] = []

    def _try(self, name: str, asked: str, do: Callable[[], str], remedy: Callable[[OSError], str]) -> None:
        """Do one thing and put down what came of it. RealTimeError: it was refused, and that matters."""
        try:
            self._settings.append(Setting(name, asked, do()))
        except OSError as error:
            setting = Setting(name, asked, missing=error.strerror or str(error), remedy=remedy(error))
            if self._strict:
                reason = f"real time, {name} {asked}: {setting.missing}; {setting.remedy}; strict=False goes on without"
                raise _error(error, reason) from error
            self._settings.append(setting)

    def _freeze_garbage(self) -> str:
        read, write = process_memory.garbage, process_memory.set_garbage
        _layers.change(self, "garbage", (False, True), read=read, write=write, in_child=write)
        return "collected, frozen, and collected no more"

    def _ready_heap(self, size: int) -> str:
        def touch(size: int) -> None:
            self._objects = process_memory.touch_heap(size) if size else []

        read, write = process_memory.keeps_heap, process_memory.keep_heap
        _layers.change(self, "heap", True, read=read, write=write, in_child=write)
        _layers.change(self, ("objects", self), size, read=lambda: 0, write=touch, in_child=touch)
        return f"{size // 1024} KiB for C, as much for Python, kept when freed"

    def _ready_stack(self, size: int) -> str:
        touched = process_memory.touch_stack(size)
        return f"{touched // 1024} KiB" + (", all that the thread has" if touched < size else "")

    def _lock_memory(self) -> str:
        _layers.change(self, "lock", True, read=process_memory.is_locked, write=process_memory.lock)
        room = process_memory.room_to_lock()
        more = "and all that is added" if room is None else f"the limit leaves {room // 1024} KiB for more"
        return f"{process_memory.locked_size() // 1024} KiB, {more}"

    def _request_latency(self, microseconds: int) -> str:
        request = LatencyRequest()
        _layers.change(
            self, request, microseconds, read=lambda: None, write=request.write, in_child=lambda _: request.write(None)
        )
        return f"{request.answer} us"

    def _steer(self, number: int, cpu: int) -> str:
        _layers.change(
            self,
            ("interrupt", number),
            frozenset({cpu}),
            read=lambda: interrupt_line.affinity(number),
            write=lambda cpus: interrupt_line.steer(number, cpus),
        )
        now = interrupt_line.effective_affinity(number)
        late = f" (from the next one on; still {processors.format_list(now)})" if now != {cpu} else ""
        return f"interrupt {number} on {processors.format_list(interrupt_line.affinity(number))}{late}"

    def _raise_threads(self, number: int, wanted: Scheduling) -> str:
        threads = interrupt_line.threads(number)
        for thread in threads:
            self._schedule(thread, wanted)
        has = ", ".join(f"thread {thread.id} {Scheduling.of(thread)}" for thread in threads)
        return f"interrupt {number}: {has or 'handled without a thread'}"

    def _schedule(self, thread: Thread, wanted: Scheduling) -> None:
        _layers.change(
            self,
            ("scheduling", thread),
            wanted,
            read=lambda: Scheduling.of(thread),
            write=lambda value: value.give(thread) if value is wanted else value.give_back(thread),
        )

    def _set_cpus(self, cpus: tuple[int, ...]) -> str:
        thread = self._thread

        def write(wanted: Iterable[int]) -> None:
            if thread.alive:
                os.sched_setaffinity(thread.id, wanted)

        def in_child(before: Iterable[int]) -> None:
            # A child has the processors of the thread that forked it.
            if _layers.forking == thread.id:
                os.sched_setaffinity(0, before)

        def read() -> frozenset[int]:
            return frozenset(os.sched_getaffinity(thread.id))

        _layers.change(self, ("cpus", thread), frozenset(cpus), read=read, write=write, in_child=in_child)
        got = processors.format_list(read())
        if read() != set(cpus):
            raise OSError(errno.EINVAL, f"sched_setaffinity gave processors {got} only")
        return got

    def _set_policy(self, wanted: Scheduling) -> str:
        try:
            self._schedule(self._thread, wanted)
        except OSError:
            self._watch.write(False)
            self._watch = ThrottlingWatch(self._thread)
            raise
        return str(Scheduling.of(self._thread))

    def _watch_throttling(self) -> None:
        watch = self._watch
        with suppress(OSError):  # a kernel without schedstat: the report says that it is not watched
            _layers.change(self, watch, True, read=lambda: False, write=watch.write, in_child=watch.forget)

    @property
    def report(self) -> Report:
        """What was asked for, and what came of it; once closed, how it was to the end."""
        return Report(self._thread.id, tuple(self._settings), self._watch.result())

    @property
    def missing(self) -> tuple[Setting, ...]:
        """What was asked for and refused: () when all is well."""
        return self.report.missing

    def throttled(self) -> int:
        """Return in how many periods the kernel was found to have held the thread back for having run too long.

        0 also where that is not watched: `Report.throttling` tells.
        """
        return self._watch.result().times

    def as_dict(self) -> dict[str, Any]:
        """Return the report as json takes it; see `Report.as_dict`."""
        return self.report.as_dict()

    def close(self) -> None:
        """Restore everything, in reverse order, for the thread it was made for, from any thread. Again is harmless.

        What another `RealTime` has set since is left to that one. In a forked process this does nothing.

        Raises:
            RealTimeError: the kernel refused to take something back; all the rest is restored. Not with strict=False:
                then `missing` has it.
        """
        if self._process != os.getpid():
            return
        self._closed = True
        refused = _leave(self)
        for error in refused:
            self._settings.append(
                Setting("close", "what was before", missing=error.strerror or str(error), remedy="set it by hand")
            )
        if refused and self._strict:
            raise _error(refused[0], f"real time, putting back what was before: {'; '.join(map(str, refused))}")

    @property
    def closed(self) -> bool:
        """Whether it was closed, or is a forked process's copy."""
        return self._closed or self._process != os.getpid()

    def __enter__(self) -> RealTime:
        """Return itself; leaving the block closes it. ClosedError: it is closed."""
        if self.closed:
            raise ClosedError("this real time is closed: ask for another")
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __str__(self) -> str:
        """Return the report, in several lines."""
        return str(self.report)

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{len(self.missing)} missing"
        return f"<pyuio.RealTime of thread {self._thread.id}: {state}>"


def _error(error: OSError, reason: str) -> RealTimeError:
    kind = RealTimeDeniedError if isinstance(error, PermissionError) else RealTimeError
    return kind(error.errno, reason)


def _leave(owner: object) -> list[OSError]:
    """Have the layers put everything back, and return what was refused.

    Ctrl-C in its middle must not leave it half done.
    """
    try:
        return _layers.leave(owner)
    except BaseException:
        _layers.leave(owner)
        raise


@atexit.register
def _close_all() -> None:
    """Restore at the end of the process what the kernel would not: where interrupts go, their threads' priority."""
    for owner in _layers.owners():
        _leave(owner)


def _cpus_remedy(_error: OSError) -> str:
    return "the cpuset of this process, its service or its container leaves others out (taskset -p shows which)"


def _memory_remedy(error: OSError) -> str:
    return f"ask for less, or lift the limit on locked memory: {process_memory.lock_remedy()}"


def realtime(
    priority: int | None = None,
    *,
    policy: Literal["fifo", "rr", "deadline"] | None = "fifo",
    runtime: float | None = None,
    deadline: float | None = None,
    period: float | None = None,
    cpus: int | Iterable[int] | None = None,
    lock_memory: bool = True,
    stack: int = 256 * 1024,
    heap: int = 8 * 1024 * 1024,
    freeze_garbage: bool = True,
    cpu_dma_latency: int | None = 0,
    interrupt: int | HasIrq | None = None,
    interrupt_cpu: int | None = None,
    interrupt_priority: int | None = None,
    strict: bool = True,
) -> RealTime:
    """Make the calling thread a real-time thread, and its process fit for that, until the result is closed.

    Use it as ``with pyuio.realtime() as tuned:``, or call it and keep what it returns. Threads and processes that are
    started meanwhile have neither the policy nor, if processes, the locks; threads do have `cpus`.

    Args:
        priority: 1 to 99, for fifo and rr; by default 89, the highest less ten.
        policy: "fifo" runs until it sleeps; "rr" takes turns with its equals; "deadline" gets `runtime` in each
            `period`; None leaves the policy alone.
        runtime: seconds of processor time in each period, for deadline.
        deadline: seconds from the start of a period until which it has had them; by default `period`.
        period: seconds; by default `deadline`.
        cpus: the processor or processors to run on; None for those it may run on now.
        lock_memory: keep all memory of the process, present and future, from being paged out.
        stack: bytes of the thread's stack to have in memory now, at most all that it has.
        heap: bytes to have in memory now for C's allocations, and as many again for Python's objects.
        freeze_garbage: collect garbage now, and then no more.
        cpu_dma_latency: microseconds that a processor may take to wake up, None for any time.
        interrupt: an open device, or a number of /proc/interrupts, that the thread waits for.
        interrupt_cpu: the processor to handle it; by default the first of `cpus`, without those wherever it goes now.
        interrupt_priority: 1 to 99, of its thread in the kernel where it has one, as on PREEMPT_RT; by default 95, or
            one more than `priority` where that is not less; 0 leaves it alone.
        strict: take everything back and raise when something is refused; else go on without, and tell in the report.

    Raises:
        RealTimeDeniedError: a `PermissionError`; this process may not. The message says what would grant it.
        RealTimeError: an `OSError`; the kernel refused for another reason, which the message gives with the remedy.
        InterruptUnavailableError: the device has no interrupt that the kernel tells.
        ClosedError: the device is closed.
        TypeError, ValueError: an argument is of a wrong type, out of range, or does not go with the others. Nothing was
            changed.
    """
    wanted = scheduling.checked(policy, priority, runtime, deadline, period)
    cpu_numbers = () if cpus is None else processors.checked("cpus", cpus)
    stack, heap = process_memory.checked_size("stack", stack), process_memory.checked_size("heap", heap)
    latency = processor_latency.checked(cpu_dma_latency)
    steer_to = cpu_numbers[:1]
    if interrupt_cpu is not None:
        if not isinstance(interrupt_cpu, int):
            raise TypeError(f"interrupt_cpu is the number of a processor, not {type(interrupt_cpu).__name__}")
        steer_to = processors.checked("interrupt_cpu", interrupt_cpu)
    raised = min(99, max(_INTERRUPT_PRIORITY, wanted.priority + 1 if wanted else 0))
    if interrupt_priority is not None:
        raised = scheduling.checked_priority("interrupt_priority", interrupt_priority, 0)
    if interrupt is None and (interrupt_cpu is not None or interrupt_priority is not None):
        raise ValueError("interrupt_cpu and interrupt_priority need an interrupt")
    line = None if interrupt is None else interrupt_line.checked(interrupt)

    tuned = RealTime(strict)
    attempt = tuned._try
    try:
        # The slow things first, the policy last. What grows memory comes before it is locked: where little may be
        # locked, a locked stack that grows ends the process.
        if freeze_garbage:
            attempt("freeze_garbage", "yes", tuned._freeze_garbage, _memory_remedy)
        if heap:
            attempt("heap", f"{heap // 1024} KiB", lambda: tuned._ready_heap(heap), _memory_remedy)
        if stack:
            attempt("stack", f"{stack // 1024} KiB", lambda: tuned._ready_stack(stack), _memory_remedy)
        if lock_memory:
            attempt("lock_memory", "yes", tuned._lock_memory, lambda _: process_memory.lock_remedy())
        if latency is not None:
            name, asked = "cpu_dma_latency", f"{latency} us"
            attempt(name, asked, lambda: tuned._request_latency(latency), processor_latency.remedy)
        if line is not None and steer_to:
            asked = f"interrupt {line} on {steer_to[0]}"
            attempt("interrupt_cpu", asked, lambda: tuned._steer(line, steer_to[0]), interrupt_line.steer_remedy)
        if line is not None and raised:
            asked, thread = f"interrupt {line}: fifo {raised}", Scheduling(scheduling.FIFO, raised, flags=0)
            explain = partial(scheduling.remedy, wanted=thread)
            attempt("interrupt_priority", asked, lambda: tuned._raise_threads(line, thread), explain)
        if wanted is not None and wanted.policy != scheduling.DEADLINE:
            tuned._watch_throttling()  # before `cpus`: what watches may run anywhere
        if cpu_numbers:
            asked = processors.format_list(cpu_numbers)
            attempt("cpus", asked, lambda: tuned._set_cpus(cpu_numbers), _cpus_remedy)
        if wanted is not None:
            explain = partial(scheduling.remedy, wanted=wanted)
            attempt("policy", str(wanted), lambda: tuned._set_policy(wanted), explain)
        return tuned  # in here, so that Ctrl-C at this very place is caught, too
    except BaseException as error:
        if refused := _leave(tuned):
            reason = f"{error}; and restoring was refused: {'; '.join(map(str, refused))}"
            raise RealTimeError(refused[0].errno, reason) from error
        raise
