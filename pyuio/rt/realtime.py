# SPDX-License-Identifier: MIT
"""Real time: the recipe of Peter Chubb's user-mode-driver patch in one call, with a report of what it got.

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
    # Here, so that `import pyuio` takes no longer for those who need none of it.
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
