# SPDX-License-Identifier: MIT
"""Facts about this box that decide its latency, read from the kernel's files.

If a file is not there, may not be read or has an unexpected form, no function here raises: it returns None, or an empty
result where the docstring says so. The ``parse_`` functions take the text of such a file; the docstrings say which of
them raise.
"""

from __future__ import annotations

import gzip
import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path

from pyuio.errors import PyuioError
from pyuio.kernel.preempt_rt import is_realtime, says_realtime
from pyuio.kernel.sysfs import read_text

CPUS = Path("/sys/devices/system/cpu")
CLOCK_SOURCE = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
PREEMPT_DEBUG = Path("/sys/kernel/debug/sched/preempt")

_HIGHEST_CPU = 0xFFFF  # far more than CONFIG_NR_CPUS allows
_CPU_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_CONFIG_LINE = re.compile(r"(CONFIG_\w+)=(.*)")


def text_of(path: Path) -> str | None:
    """Return a file's text without the white space around it, or None if it is not there or cannot be read."""
    try:
        return read_text(path)
    except (OSError, PyuioError):
        return None


# -- the kernel --


def kernel_release() -> str:
    """Return what ``uname -r`` prints: "6.1.0-56-amd64"."""
    return os.uname().release


def kernel_version() -> str:
    """Return what ``uname -v`` prints: "#1 SMP PREEMPT_DYNAMIC Debian 6.1.176-1"."""
    return os.uname().version


def command_line() -> str | None:
    """Return the parameters that this kernel was booted with (``/proc/cmdline``)."""
    return text_of(Path("/proc/cmdline"))


def parse_parameters(line: str) -> dict[str, str]:
    """Return the parameters in a kernel's command line, by name.

    A parameter without a value has the value "". Of several with one name, the last counts. Words after ``--`` are not
    the kernel's. A dash in a name becomes an underscore, because the kernel treats the two as equal.
    """
    parameters = {}
    for word in line.split():
        if word == "--":
            break
        name, _, value = word.partition("=")
        parameters[name.replace("-", "_")] = value.strip('"')
    return parameters


def kernel_config() -> dict[str, str] | None:
    """Return this kernel's configuration by name, as in ``{"CONFIG_UIO": "m"}``, or None if no file has it."""
    try:
        return parse_config(gzip.decompress(Path("/proc/config.gz").read_bytes()).decode(errors="replace"))
    except (OSError, EOFError, zlib.error):
        pass
    release = kernel_release()
    for path in (f"/boot/config-{release}", f"/lib/modules/{release}/config", f"/usr/lib/modules/{release}/config"):
        if (text := text_of(Path(path))) is not None:
            return parse_config(text)
    return None


def parse_config(text: str) -> dict[str, str]:
    """Return the options that a kernel's ``.config`` sets. It leaves out options that are not set, and other lines."""
    matches = (_CONFIG_LINE.fullmatch(line.strip()) for line in text.splitlines())
    return {match[1]: match[2].strip('"') for match in matches if match}


def preemption() -> str | None:
    """Return the preemption model in force: "PREEMPT_RT", "full", "lazy", "voluntary" or "none"; None if unknown."""
    if is_realtime():
        return "PREEMPT_RT"
    return find_preemption(kernel_version(), text_of(PREEMPT_DEBUG), command_line() or "", kernel_config() or {})


def find_preemption(version: str, debug: str | None, line: str, config: Mapping[str, str]) -> str | None:
    """Return the preemption model, from the first of these sources that tells it; see `preemption`.

    Args:
        version: what ``uname -v`` prints.
        debug: the text of ``/sys/kernel/debug/sched/preempt`` ("none (voluntary) full"); None if it cannot be read.
        line: the kernel's command line; its ``preempt=`` counts if the kernel has PREEMPT_DYNAMIC.
        config: the kernel's configuration; {} if it is not known.
    """
    if says_realtime(version) or config.get("CONFIG_PREEMPT_RT") == "y":
        return "PREEMPT_RT"
    models = ("none", "voluntary", "full", "lazy")
    chosen = re.search(r"\((\w+)\)", debug or "")
    if chosen and chosen[1] in models:
        return chosen[1]
    dynamic = "PREEMPT_DYNAMIC" in version or config.get("CONFIG_PREEMPT_DYNAMIC") == "y"
    if dynamic and (asked := parse_parameters(line).get("preempt")) in models:
        return asked
    for option, model in (
        ("CONFIG_PREEMPT_NONE", "none"),
        ("CONFIG_PREEMPT_VOLUNTARY", "voluntary"),
        ("CONFIG_PREEMPT", "full"),
        ("CONFIG_PREEMPT_LAZY", "lazy"),
    ):
        if config.get(option) == "y":
            return model
    # Without a configuration only the version is left. It names full preemption, but no model of PREEMPT_DYNAMIC.
    return "full" if re.search(r"\bPREEMPT\b", version) else None


# -- the processors --


def parse_cpus(text: str) -> tuple[int, ...]:
    """Return the CPUs in a list such as "0-3,8"; () for an empty list, and for the "(null)" of some kernels.

    Raises:
        ValueError: the text does not have that form.
    """
    text = text.strip()
    found: set[int] = set()
    if text in ("", "(null)"):
        return ()
    for part in text.split(","):
        match = _CPU_RANGE.fullmatch(part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last <= _HIGHEST_CPU:
            raise ValueError(f"not a list of CPUs: {text[:80]!r}")
        found.update(range(first, last + 1))
    return tuple(sorted(found))


def _cpus(path: Path) -> tuple[int, ...] | None:
    text = text_of(path)
    try:
        return None if text is None else parse_cpus(text)
    except ValueError:
        return None


def online_cpus() -> tuple[int, ...]:
    """Return the CPUs that are online; if the kernel does not tell, the CPUs that this process may use."""
    return _cpus(CPUS / "online") or tuple(sorted(os.sched_getaffinity(0)))


def isolated_cpus() -> tuple[int, ...] | None:
    """Return the CPUs that the scheduler leaves alone (``isolcpus=``); () for none."""
    return _cpus(CPUS / "isolated")


def tickless_cpus() -> tuple[int, ...] | None:
    """Return the CPUs of ``nohz_full=``; () for none, None for a kernel without CONFIG_NO_HZ_FULL."""
    return _cpus(CPUS / "nohz_full")


def cpu_model() -> str | None:
    """Return the processor's name as ``/proc/cpuinfo`` has it: "AMD EPYC 9654 96-Core Processor"."""
    return parse_cpu_model(text_of(Path("/proc/cpuinfo")) or "")


def parse_cpu_model(text: str) -> str | None:
    """Return the first processor's name in the text of ``/proc/cpuinfo``; None if the architecture gives none there."""
    match = re.search(r"^(?:model name|Processor|cpu model|cpu)[ \t]*:[ \t]*(\S.*)$", text, re.MULTILINE)
    return match[1].strip() if match else None


def governors() -> dict[int, str]:
    """Return the frequency governor of each CPU that has one: {0: "powersave"}; {} if no CPU has one."""
    found = {cpu: text_of(CPUS / f"cpu{cpu}/cpufreq/scaling_governor") for cpu in online_cpus()}
    return {cpu: governor for cpu, governor in found.items() if governor}


def clock_source() -> str | None:
    """Return the clock source in use: "tsc", "hpet", "kvm-clock", "acpi_pm", "arch_sys_counter"."""
    return text_of(CLOCK_SOURCE) or None


def hypervisor() -> str | None:
    """Return the hypervisor that this kernel runs on, "QEMU" for example; None for hardware.

    x86 processors have a flag for it. On other processors the device tree or the firmware's DMI table may tell, so None
    is not certain there.
    """
    vendor = text_of(Path("/sys/class/dmi/id/sys_vendor")) or None
    if re.search(r"^flags[ \t]*:.*\bhypervisor\b", text_of(Path("/proc/cpuinfo")) or "", re.MULTILINE):
        return text_of(Path("/sys/hypervisor/type")) or vendor or "a hypervisor"
    # A device tree's strings end with a zero byte.
    tree = (text_of(Path("/proc/device-tree/hypervisor/compatible")) or "").split("\0")[0]
    return tree or (vendor if vendor in ("QEMU", "Red Hat KVM") else None)
