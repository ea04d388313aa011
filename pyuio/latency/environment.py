# SPDX-License-Identifier: MIT
"""The facts about a box that decide its latency. Every result keeps them, so that boxes can be compared."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import Any

from pyuio.doctor import facts
from pyuio.kernel.preempt_rt import is_realtime

_VULNERABILITIES = Path("/sys/devices/system/cpu/vulnerabilities")


def read(*, hostname: bool = False) -> dict[str, Any]:
    """Return everything needed to compare this box's results with another's, for JSON; an unknown value is None.

    Args:
        hostname: whether to add the box's name, which does not belong in a file that is passed on.
    """
    found: dict[str, Any] = {
        "kernel release": facts.kernel_release(),
        "kernel version": facts.kernel_version(),
        "PREEMPT_RT": is_realtime(),
        "preemption": facts.preemption(),
        # The kernel hands the words after -- to the first program, and does not use them itself.
        "command line": (facts.command_line() or "").split(" -- ")[0] or None,
        "architecture": platform.machine(),
        "CPU model": facts.cpu_model(),
        "CPUs online": len(facts.online_cpus()),
        "CPUs allowed": sorted(os.sched_getaffinity(0)),
        "CPUs isolated": _list(facts.isolated_cpus()),
        "CPUs tickless": _list(facts.tickless_cpus()),
        "governors": sorted(set(facts.governors().values())),
        "clock source": facts.clock_source(),
        "hypervisor": facts.hypervisor(),
        "mitigations": _mitigations(),
        "Python": platform.python_version(),
        "Python implementation": platform.python_implementation(),
        "Python without the GIL": not getattr(sys, "_is_gil_enabled", lambda: True)(),
        "switch interval": sys.getswitchinterval(),
        "pyuio": importlib.metadata.version("pyuio-framework"),
    }
    if hostname:
        found["hostname"] = platform.node()
    return found


def _list(cpus: tuple[int, ...] | None) -> list[int] | None:
    return None if cpus is None else list(cpus)


def _mitigations() -> dict[str, str]:
    """Return what the kernel does about each of the processor's weaknesses; those that do not exist are left out."""
    try:
        names = sorted(entry.name for entry in _VULNERABILITIES.iterdir())
    except OSError:
        return {}
    states = {name: facts.text_of(_VULNERABILITIES / name) or "" for name in names}
    return {name: state for name, state in states.items() if state not in ("", "Not affected")}


def title(environment: dict[str, Any]) -> str:
    """Return kernel, preemption model and processor in one line, for a heading."""
    preemption = environment.get("preemption")
    kernel = f"Linux {environment.get('kernel release') or '?'}" + (f" ({preemption})" if preemption else "")
    processor = str(environment.get("CPU model") or "unknown CPU")
    count = environment.get("CPUs online")
    parts = [kernel, processor + (f" x {count}" if count else "")]
    if environment.get("hypervisor"):
        parts.append(f"on {environment['hypervisor']}")
    return ", ".join(parts)
