# SPDX-License-Identifier: MIT
"""The settings of `pyuio.realtime`: they are made one after the other, reported, and restored."""

from __future__ import annotations

import atexit
import errno
import logging
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from pyuio.errors import ClosedError, RealTimeDeniedError, RealTimeError
from pyuio.kernel import irq, irq_record, processors, scheduling
from pyuio.kernel.memory_use import locked_size, room_to_lock
from pyuio.kernel.scheduling import Scheduling, Thread
from pyuio.process.fork import Owned
from pyuio.rt import memory_lock, pm_qos
from pyuio.rt.pm_qos import LatencyRequest
from pyuio.rt.report import Report, Setting
from pyuio.rt.setting_stack import SettingStack
from pyuio.rt.throttling import ThrottlingWatch

_stack = SettingStack()
_log = logging.getLogger("pyuio.realtime_settings")


class Wanted(NamedTuple):
    """The checked arguments of `realtime`, which explains them. 0, None, False and () ask for nothing."""

    freeze_garbage: bool
    heap: int
    stack: int
    lock_memory: bool
    cpu_dma_latency: int | None
    interrupt: int | None
    interrupt_cpus: tuple[int, ...]
    interrupt_priority: int
    cpus: tuple[int, ...]
    scheduling: Scheduling | None


class RealTime(Owned):
    """Settings in force, and their report; `realtime` makes it.

    A context manager; `close` restores everything. Without `close`, all settings stay until the process ends.

    Args:
        wanted: the settings to make.
        strict: as for `realtime`, whose errors this raises.
    """

    def __init__(self, wanted: Wanted, strict: bool) -> None:
        self._strict = strict
        self._closed = False
        self._process = os.getpid()
        self._thread = Thread.current()
        self._settings: list[Setting] = []
        self._watch = ThrottlingWatch(self._thread)
        self._objects: list[bytes] = []
        try:
            self._set(wanted)
        except BaseException as error:
            if refused := _restore(self):
                reason = f"{error}; and restoring was refused: {'; '.join(map(str, refused))}"
                raise RealTimeError(refused[0].errno, reason) from error
            raise

    def _set(self, wanted: Wanted) -> None:
        """Make all settings: the slow ones first, the policy last."""
        # Memory must grow before it is locked: if the limit is low, a locked stack that grows ends the process.
        if wanted.freeze_garbage:
            self._try("freeze_garbage", "yes", self._freeze_garbage, _memory_remedy)
        if size := wanted.heap:
            self._try("heap", f"{size // 1024} KiB", lambda: self._ready_heap(size), _memory_remedy)
        if depth := wanted.stack:
            self._try("stack", f"{depth // 1024} KiB", lambda: self._ready_stack(depth), _memory_remedy)
        if wanted.lock_memory:
            self._try("lock_memory", "yes", self._lock_memory, lambda _: memory_lock.lock_remedy())
        if (latency := wanted.cpu_dma_latency) is not None:
            remedy = pm_qos.remedy
            self._try("cpu_dma_latency", f"{latency} us", lambda: self._request_latency(latency), remedy)
        if (line := wanted.interrupt) is not None:
            self._set_interrupt(line, wanted)
        if wanted.scheduling is not None and wanted.scheduling.policy != scheduling.DEADLINE:
            self._watch_throttling()  # before `cpus`, so that the watching thread may run on any processor
        if cpus := wanted.cpus:
            self._try("cpus", processors.format_list(cpus), lambda: self._set_cpus(cpus), _cpus_remedy)
        if (policy := wanted.scheduling) is not None:
            explain = partial(scheduling.remedy, wanted=policy)
            self._try("policy", str(policy), lambda: self._set_policy(policy), explain)

    def _set_interrupt(self, line: int, wanted: Wanted) -> None:
        irq_record.put_back(line)  # otherwise, what a killed driver has left would be restored at the end
        if cpus := wanted.interrupt_cpus:
            asked = f"interrupt {line} on {processors.format_list(cpus)}"
            self._try("interrupt_cpu", asked, lambda: self._steer(line, cpus), irq.steer_remedy)
        if wanted.interrupt_priority:
            thread = Scheduling(scheduling.FIFO, wanted.interrupt_priority, flags=0)
            explain = partial(scheduling.remedy, wanted=thread)
            asked = f"interrupt {line}: {thread}"
            self._try("interrupt_priority", asked, lambda: self._raise_threads(line, thread), explain)

    def _try(self, name: str, asked: str, do: Callable[[], str], remedy: Callable[[OSError], str]) -> None:
        """Make one setting and record the result. RealTimeError: it was refused, and `strict` is set."""
        try:
            self._settings.append(Setting(name, asked, do()))
            _log.info("thread %d: real time, %s: %s", self._thread.id, name, self._settings[-1].got)
        except OSError as error:
            setting = Setting(name, asked, missing=error.strerror or str(error), remedy=remedy(error))
            if self._strict:
                reason = f"real time, {name} {asked}: {setting.missing}; {setting.remedy}; strict=False goes on without"
                raise _error(error, reason) from error
            self._settings.append(setting)
            _log.info("thread %d: real time, %s %s: refused: %s", self._thread.id, name, asked, setting.missing)

    def _freeze_garbage(self) -> str:
        read, write = memory_lock.garbage, memory_lock.set_garbage
        _stack.change(self, "garbage", (False, True), read=read, write=write, in_child=write)
        return "collected, frozen, and collected no more"

    def _ready_heap(self, size: int) -> str:
        def touch(size: int) -> None:
            self._objects = memory_lock.touch_heap(size) if size else []

        read, write = memory_lock.keeps_heap, memory_lock.keep_heap
        _stack.change(self, "heap", True, read=read, write=write, in_child=write)
        _stack.change(self, ("objects", self), size, read=lambda: 0, write=touch, in_child=touch)
        return f"{size // 1024} KiB for C, as much for Python, kept when freed"

    def _ready_stack(self, size: int) -> str:
        touched = memory_lock.touch_stack(size)
        return f"{touched // 1024} KiB" + (", all that the thread has" if touched < size else "")

    def _lock_memory(self) -> str:
        read, write = memory_lock.locked, memory_lock.lock
        _stack.change(self, "lock", memory_lock.EVERYTHING, read=read, write=write)
        room = room_to_lock()
        more = "and all that is added" if room is None else f"the limit leaves {room // 1024} KiB for more"
        return f"{locked_size() // 1024} KiB, {more}"

    def _request_latency(self, microseconds: int) -> str:
        request = LatencyRequest()
        _stack.change(
            self, request, microseconds, read=lambda: None, write=request.write, in_child=lambda _: request.write(None)
        )
        return f"{request.answer} us"

    def _steer(self, number: int, cpus: tuple[int, ...]) -> str:
        _stack.change(
            self,
            ("interrupt", number),
            frozenset(cpus),
            read=lambda: irq.affinity(number),
            write=lambda wanted: irq_record.steer(number, wanted),
        )
        now = irq.effective_affinity(number)
        late = f" (from the next one on; still {processors.format_list(now)})" if now != set(cpus) else ""
        return f"interrupt {number} on {processors.format_list(irq.affinity(number))}{late}"

    def _raise_threads(self, number: int, wanted: Scheduling) -> str:
        threads = irq.threads(number)
        for thread in threads:
            self._schedule(thread, wanted, number)
        has = ", ".join(f"thread {thread.id} {Scheduling.of(thread)}" for thread in threads)
        return f"interrupt {number}: {has or 'handled without a thread'}"

    def _schedule(self, thread: Thread, wanted: Scheduling, interrupt: int | None = None) -> None:
        def write(value: Scheduling) -> None:
            give = value.give if value is wanted else value.give_back
            if interrupt is None:
                give(thread)
            else:
                irq_record.schedule(interrupt, thread, value, lambda: give(thread))

        _stack.change(self, ("scheduling", thread), wanted, read=lambda: Scheduling.of(thread), write=write)

    def _set_cpus(self, cpus: tuple[int, ...]) -> str:
        thread = self._thread

        def write(wanted: Iterable[int]) -> None:
            if thread.alive:
                with suppress(ProcessLookupError):  # it ends at this moment
                    os.sched_setaffinity(thread.id, wanted)

        def in_child(before: Iterable[int]) -> None:
            # A child has the processors of the thread that forked it.
            if _stack.forking == thread.id:
                os.sched_setaffinity(0, before)

        def read() -> frozenset[int]:
            return frozenset(os.sched_getaffinity(thread.id))

        _stack.change(self, ("cpus", thread), frozenset(cpus), read=read, write=write, in_child=in_child)
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
            _stack.change(self, watch, True, read=lambda: False, write=watch.write, in_child=watch.forget)

    @property
    def report(self) -> Report:
        """The settings asked for, and their results; after `close`, as they were at the end."""
        return Report(self._thread.id, tuple(self._settings), self._watch.result())

    @property
    def missing(self) -> tuple[Setting, ...]:
        """The settings that were refused: () if there are none."""
        return self.report.missing

    def throttled(self) -> int:
        """Return the number of periods in which the kernel held the thread back because it had run too long.

        The result is 0, too, if the thread is not watched: `Report.throttling` tells whether it is.
        """
        return self._watch.result().times

    def as_dict(self) -> dict[str, Any]:
        """Return the report for JSON; see `Report.as_dict`."""
        return self.report.as_dict()

    def close(self) -> None:
        """Restore everything, in reverse order. Any thread may call it, again and again.

        A setting that another `RealTime` has made since stays. In a forked process this does nothing.

        Raises:
            RealTimeError: the kernel refused to restore something; all the rest is restored. With strict=False nothing
                is raised, and `missing` has it.
        """
        if self._process != os.getpid():
            return
        if not self._closed:
            _log.info("thread %d: real time ends", self._thread.id)
        self._closed = True
        refused = _restore(self)
        for error in refused:
            self._settings.append(
                Setting("close", "what was before", missing=error.strerror or str(error), remedy="set it by hand")
            )
        if refused and self._strict:
            raise _error(refused[0], f"real time, restoring what was before: {'; '.join(map(str, refused))}")

    @property
    def closed(self) -> bool:
        """Whether it was closed, or is the copy in a forked process."""
        return self._closed or self._process != os.getpid()

    def __enter__(self) -> RealTime:
        """Return itself; leaving the block closes it. ClosedError: it is closed."""
        if self.closed:
            raise ClosedError("this RealTime is closed: call realtime() again")
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


def _restore(owner: object) -> list[OSError]:
    """Restore every setting of `owner`, and return the kernel's refusals.

    If Ctrl-C comes in the middle, this still restores the rest.
    """
    try:
        return _stack.restore(owner)
    except BaseException:
        _stack.restore(owner)
        raise


@atexit.register
def _close_all() -> None:
    """Restore what the kernel does not restore when a process ends: interrupts' CPUs and their threads' priorities."""
    for owner in _stack.owners():
        _restore(owner)


def _cpus_remedy(_error: OSError) -> str:
    return "the cpuset of this process, its service or its container leaves others out (taskset -p shows which)"


def _memory_remedy(error: OSError) -> str:
    return f"ask for less, or lift the limit on locked memory: {memory_lock.lock_remedy()}"
