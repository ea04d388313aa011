# SPDX-License-Identifier: MIT
"""Real time: the recipe of Peter Chubb's user-mode-driver patch in one call, with a report of the result.

The patch's recipe is mlockall, SCHED_FIFO at the highest priority less ten, and a loop that reads. ``docs/realtime.md``
says what each setting is for and what it may cost.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pyuio.kernel.irq import HasIrq
    from pyuio.rt.settings import RealTime

# Above the reader, below the kernel's own highest threads (migration), which are at 99.
_INTERRUPT_PRIORITY = 95


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
    """Make the calling thread a real-time thread, and prepare its process for that, until the result is closed.

    Use it as ``with pyuio.realtime() as tuned:``, or call it and keep what it returns. Threads that are started
    meanwhile inherit `cpus` but not the policy; processes inherit neither the policy nor the locks.

    Args:
        priority: 1 to 99, for fifo and rr; by default 89, the highest less ten.
        policy: "fifo" runs until it sleeps; "rr" takes turns with threads of its priority; "deadline" gets `runtime` in
            each `period`; None leaves the policy alone.
        runtime: seconds of processor time in each period, for deadline.
        deadline: seconds from the start of a period within which the thread gets its `runtime`; by default `period`.
        period: length of a period in seconds; by default `deadline`.
        cpus: the processor or processors to run on; None for those it may run on now.
        lock_memory: keep the kernel from paging out memory of the process, present and future.
        stack: bytes of the thread's stack to bring into memory now, at most its whole stack.
        heap: bytes to bring into memory now for C's allocations, and as many again for Python's objects.
        freeze_garbage: collect garbage now, and not any more afterwards.
        cpu_dma_latency: microseconds that a processor may take to wake up, None for any time.
        interrupt: the interrupt that the thread waits for: an open device, or a number of /proc/interrupts.
        interrupt_cpu: the processor that handles the interrupt; by default the first of `cpus`; without `cpus` it is
            left where it is.
        interrupt_priority: 1 to 99, of the interrupt's thread in the kernel if it has one, as on PREEMPT_RT or Linux
            6.12; by default 95, or `priority` + 1 if that is more; 0 leaves it alone.
        strict: if a setting is refused, undo all settings and raise; otherwise go on without it, and say so in the
            report.

    Raises:
        RealTimeDeniedError: a `PermissionError`; this process may not do it. The message says what would permit it.
        RealTimeError: an `OSError`; the kernel refused for another reason. The message gives the reason and the remedy.
        InterruptUnavailableError: the kernel does not tell of an interrupt of the device.
        ClosedError: the device is closed.
        TypeError, ValueError: an argument is of a wrong type, out of range, or does not go with the others. Nothing was
            changed.
    """
    # Imported here, so that `import pyuio` stays fast for programs without real time.
    from pyuio.kernel import irq, processors, scheduling
    from pyuio.rt import memory_lock, pm_qos
    from pyuio.rt.settings import RealTime, Wanted

    wanted = scheduling.checked(policy, priority, runtime, deadline, period)
    cpu_numbers = () if cpus is None else processors.checked("cpus", cpus)
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
    line = None if interrupt is None else irq.checked(interrupt)
    asked = Wanted(
        freeze_garbage=freeze_garbage,
        heap=memory_lock.checked_size("heap", heap),
        stack=memory_lock.checked_size("stack", stack),
        lock_memory=lock_memory,
        cpu_dma_latency=pm_qos.checked(cpu_dma_latency),
        interrupt=line,
        interrupt_cpus=steer_to if line is not None else (),
        interrupt_priority=raised if line is not None else 0,
        cpus=cpu_numbers,
        scheduling=wanted,
    )
    return RealTime(asked, strict)
