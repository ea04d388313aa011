# SPDX-License-Identifier: MIT
"""What can be found out about a guest that stands still: in the kernel, in its processors, and in QEMU itself.

Three answers tell who is at fault. The kernel answers to sysrq while it takes interrupts, and then names the tasks that
are blocked. QEMU answers on its monitor while its main loop runs, and then gives the processors' registers: looked at
twice, they show whether a processor still executes. The host's kernel tells the state of QEMU's threads in any case.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable
from pathlib import Path

from pyuio.vm.monitor import Monitor, MonitorError
from pyuio.vm.process import Lines

KERNEL_TIME = 3.0  # seconds for the kernel to print
_CONSOLE_LINES = 300


def collect(
    monitor: Monitor, pid: int, console: Lines, press: Callable[[bytes], None], drain: Callable[[float], None]
) -> str:
    """Return a report for people.

    Args:
        monitor: QEMU's monitor.
        pid: QEMU's process id.
        console: The kernel's last lines.
        press: Called with a key for the kernel's console.
        drain: Called with a number of seconds; lets `console` grow for so long.
    """
    parts = ["threads of QEMU, 0.5 s apart:", _threads(pid)]
    time.sleep(0.5)
    parts.append(_threads(pid))
    try:
        for key in (b"w", b"l"):  # the kernel prints the tasks that are blocked (w), and what each processor does (l)
            monitor.ask("chardev-send-break", id="pyuio-console")  # a break on a serial line is the key sysrq
            press(key)
            drain(KERNEL_TIME)
        processors = len(monitor.ask("query-cpus-fast"))
        # Interrupts that are in service (ISR) and never end keep all others from their processor.
        controllers = [f"info lapic {number}" for number in range(processors)]
        registers = ["info registers -a"] * 2
        for text in ("info status", "info cpus", *registers, *controllers, "info pic", "info irq"):
            parts += [f"QEMU, {text}:", monitor.ask("human-monitor-command", command_line=text).replace("\r", "")]
    except (MonitorError, OSError) as error:
        parts.append(f"QEMU's monitor: {error}")
    drain(0.1)
    return "\n".join([*parts, "the kernel's last lines:", *console.last(_CONSOLE_LINES)])


def _threads(pid: int) -> str:
    """Return a line for each thread of QEMU: state, processor time in ticks, and where it sleeps in the kernel."""
    lines = []
    for task in sorted(Path(f"/proc/{pid}/task").glob("*")):
        with contextlib.suppress(OSError):
            found = re.fullmatch(r"\d+ \((.*)\) (.*)", (task / "stat").read_text().strip())
            assert found is not None
            fields = found[2].split()
            where = (task / "wchan").read_text().strip()
            lines.append(f"  {task.name} {found[1]}: {fields[0]}, {fields[11]} + {fields[12]} ticks, {where}")
    return "\n".join(lines)
