# SPDX-License-Identifier: MIT
"""Checks of the processors: how many, hardware or virtual, how fast they wake, and what else runs on them.

Sources: Documentation/admin-guide/kernel-parameters.txt, kernel-per-CPU-kthreads.rst and pm/cpuidle.rst,
Documentation/timers/no_hz.rst, Documentation/ABI/testing/sysfs-devices-system-cpu.
"""

from __future__ import annotations

from dataclasses import dataclass

from pyuio.doctor import facts
from pyuio.doctor.facts import CPUS
from pyuio.doctor.finding import Answer, Check, advice, box, counted, good, unknown
from pyuio.kernel.processors import format_list
from pyuio.kernel.sysfs import read_optional, read_text

SUBJECT = "processors"
SLOW_CLOCKS = ("hpet", "acpi_pm", "jiffies", "refined-jiffies", "pit")
LONG_EXIT = 10  # microseconds; a CPU leaves the shallow states of x86 and arm64 in less


# -- number, hypervisor, clock, cores --


def judge_count(online: tuple[int, ...]) -> Answer:
    """Judge the number of CPUs."""
    if len(online) > 1:
        return good(f"{len(online)} CPUs online")
    return advice(
        "1 CPU online", "a second CPU: in the firmware's setup, without nosmp or maxcpus=1, or the guest's -smp"
    )


def judge_hypervisor(name: str | None) -> Answer:
    """Judge the hypervisor; None for hardware."""
    if name is None:
        return good("none: this machine does not say that it is virtual")
    return advice(
        f"this is a virtual machine ({name})",
        "measure on hardware; or pin each virtual CPU to an isolated CPU of the host, and give the device to the guest "
        "(vfio-pci)",
    )


def judge_clock(source: str | None, available: str | None) -> Answer:
    """Judge the clock source.

    Args:
        source: the clock source in use; None if it cannot be read.
        available: the text of the list of available clock sources; None if it cannot be read.
    """
    if source is None:
        return unknown(f"{facts.CLOCK_SOURCE} cannot be read")
    if source not in SLOW_CLOCKS:
        return good(source)
    return advice(
        f"{source}; available: {available or 'unknown'}",
        "dmesg | grep -i tsc says why the kernel does not use the TSC; if the TSC is known to be sound: "
        "clocksource=tsc tsc=reliable on the kernel's command line",
    )


def look_at_clock() -> Answer:
    """Check the clock source."""
    return judge_clock(facts.clock_source(), facts.text_of(facts.CLOCK_SOURCE.with_name("available_clocksource")))


def judge_smt(active: str | None) -> Answer:
    """Judge the text of ``smt/active``; None if there is no such file."""
    if active not in (None, "0", "1"):
        return unknown(f"{CPUS}/smt/active has an unexpected form: {active[:80]!r}")
    if active != "1":
        return good("no CPU shares its core")
    return advice(
        "CPUs share cores (SMT, Hyper-Threading)",
        f"nosmt on the kernel's command line, or, as root: echo off > {CPUS}/smt/control; or leave the sibling of the "
        "handler's CPU idle",
    )


# -- frequency and idle states --


def judge_governors(governors: dict[int, str]) -> Answer:
    """Judge the frequency governors of the CPUs; {} if the kernel does not scale the frequency."""
    if not governors:
        return good("this kernel does not scale the frequency (usual in a virtual machine)")
    others = sorted({governor for governor in governors.values() if governor != "performance"})
    if not others:
        return good("performance")
    count = sum(governor != "performance" for governor in governors.values())
    return advice(
        f"{', '.join(others)} on {count} of {len(governors)} CPUs",
        "cpupower frequency-set -g performance, as root (Debian: linux-cpupower, Ubuntu: linux-tools-generic, Fedora: "
        "kernel-tools)",
    )


@dataclass(frozen=True)
class IdleState:
    """A state in which a CPU sleeps.

    Attributes:
        name: "C6".
        exit_latency: how many microseconds a CPU takes to leave it, according to the kernel's driver.
        disabled: whether the kernel does not use the state.
    """

    name: str
    exit_latency: int
    disabled: bool


def judge_idle(driver: str | None, states: dict[int, list[IdleState]]) -> Answer:
    """Judge the idle states of the CPUs.

    Args:
        driver: the text of ``cpuidle/current_driver``; None if there is no such file.
        states: the idle states of each CPU.
    """
    if not any(states.values()):
        return good(f"this kernel has no idle states to choose from (driver: {driver or 'none'})")
    slow: dict[str, int] = {}
    for of_cpu in states.values():
        slow |= {
            state.name: state.exit_latency for state in of_cpu if state.exit_latency >= LONG_EXIT and not state.disabled
        }
    if not slow:
        return good(f"{driver or 'cpuidle'}: a CPU leaves every state that is on in less than {LONG_EXIT} us")
    found = counted(
        [f"{name} takes {latency} us to leave" for name, latency in sorted(slow.items(), key=lambda x: x[1])]
    )
    limit = "intel_idle.max_cstate=1 processor.max_cstate=1" if driver == "intel_idle" else "processor.max_cstate=1"
    return advice(
        f"{driver or 'cpuidle'}: {found}",
        f"while a program runs: the program writes 0 to /dev/cpu_dma_latency and keeps it open; until the next boot, "
        f"as root: cpupower idle-set -D {LONG_EXIT}; permanently: {limit} (x86), or cpuidle.off=1, on the "
        "kernel's command line",
    )


def look_at_idle() -> Answer:
    """Check the idle states that are on, and how long a CPU takes to leave them."""
    states: dict[int, list[IdleState]] = {}
    for cpu in facts.online_cpus():
        states[cpu] = [
            IdleState(read_text(state / "name"), int(read_text(state / "latency")), read_text(state / "disable") != "0")
            for state in (CPUS / f"cpu{cpu}/cpuidle").glob("state*")
        ]
    return judge_idle(read_optional(CPUS / "cpuidle/current_driver"), states)


# -- isolation --


def example_cpu(online: tuple[int, ...], isolated: tuple[int, ...] | None) -> str:
    """Return the CPUs to name in a remedy: the isolated CPUs, or the last CPU if none is isolated."""
    return format_list(isolated or online[-1:])


def judge_isolation(online: tuple[int, ...], isolated: tuple[int, ...] | None) -> Answer | None:
    """Judge the isolated CPUs.

    Args:
        online: the CPUs that are online.
        isolated: the CPUs that the scheduler leaves alone; None if the kernel does not tell.

    Returns:
        The answer; None on a box with one CPU.
    """
    if len(online) < 2:
        return None
    if isolated is None:
        return unknown(f"{CPUS}/isolated cannot be read")
    if isolated:
        return good(f"isolated: {format_list(isolated)}")
    return advice(
        "none", f"isolcpus=managed_irq,domain,{online[-1]} on the kernel's command line, for CPU {online[-1]}"
    )


def judge_ticks(
    online: tuple[int, ...], isolated: tuple[int, ...] | None, tickless: tuple[int, ...] | None
) -> Answer | None:
    """Judge ``nohz_full=``.

    Args:
        online: the CPUs that are online.
        isolated: the CPUs that the scheduler leaves alone; None if the kernel does not tell.
        tickless: the CPUs of ``nohz_full=``; None if the kernel does not support it.

    Returns:
        The answer; None on a box with one CPU.
    """
    if len(online) < 2:
        return None
    if tickless is None:
        return advice(
            "this kernel cannot do it (CONFIG_NO_HZ_FULL)",
            "boot a kernel with CONFIG_NO_HZ_FULL=y, as Debian's and Fedora's",
        )
    left = sorted(set(isolated or ()) - set(tickless))
    cpus = example_cpu(online, isolated)
    remedy = f"nohz_full={cpus} on the kernel's command line, the same CPUs as in isolcpus="
    if not tickless:
        return advice("every CPU keeps its tick", remedy)
    found = f"without a tick while one thread runs: {format_list(tickless)}"
    if left:
        return advice(f"{found}; isolated, but with a tick: {format_list(left)}", remedy)
    return good(found)


def judge_callbacks(
    online: tuple[int, ...], isolated: tuple[int, ...] | None, tickless: tuple[int, ...] | None, line: str
) -> Answer | None:
    """Judge ``rcu_nocbs=``, which ``nohz_full=`` implies for its CPUs.

    Args:
        online: the CPUs that are online.
        isolated: the CPUs that the scheduler leaves alone; None if the kernel does not tell.
        tickless: the CPUs of ``nohz_full=``; None if the kernel does not support it.
        line: the kernel's command line.

    Returns:
        The answer; None on a box with one CPU.
    """
    if len(online) < 2:
        return None
    asked = facts.parse_parameters(line).get("rcu_nocbs")
    if asked is not None:
        return good(f"rcu_nocbs={asked}" if asked else "rcu_nocbs: every CPU")
    if tickless and set(isolated or ()) <= set(tickless):
        return good("nohz_full= moves RCU callbacks away from its CPUs")
    return advice(
        "every CPU runs its own RCU callbacks",
        f"rcu_nocbs={example_cpu(online, isolated)} on the kernel's command line (it needs CONFIG_RCU_NOCB_CPU)",
    )


CHECKS = (
    Check(
        "cpu_count",
        SUBJECT,
        "On one CPU the handler waits for everything else that runs, and a polling thread starves what it waits for.",
        box(lambda: judge_count(facts.online_cpus())),
    ),
    Check(
        "virtual_machine",
        SUBJECT,
        "In a virtual machine a latency figure includes the hypervisor, which can stop the CPU at any time and which "
        "most interrupts pass through.",
        box(lambda: judge_hypervisor(facts.hypervisor())),
    ),
    Check(
        "clock_source",
        SUBJECT,
        "Reading a clock outside of the processor (hpet, acpi_pm) needs a system call and takes a microsecond or more, "
        "which spoils every time stamp.",
        box(look_at_clock),
    ),
    Check(
        "governor",
        SUBJECT,
        "A CPU that slowed down while idle handles an interrupt slowly until the governor speeds it up.",
        box(lambda: judge_governors(facts.governors())),
    ),
    Check(
        "idle_states",
        SUBJECT,
        "An interrupt that finds its CPU in a deep idle state (C-state) waits until the CPU has left it.",
        box(look_at_idle),
    ),
    Check(
        "smt",
        SUBJECT,
        "Two CPUs of one core share its execution units and caches, so a thread on the sibling slows the handler.",
        box(lambda: judge_smt(facts.text_of(CPUS / "smt/active"))),
    ),
    Check(
        "isolated_cpus",
        SUBJECT,
        "On a CPU that is not isolated the scheduler runs any thread, and balances the load.",
        box(lambda: judge_isolation(facts.online_cpus(), facts.isolated_cpus())),
    ),
    Check(
        "tickless_cpus",
        SUBJECT,
        "The scheduler's tick interrupts the handler 100 to 1000 times a second; with nohz_full= a CPU that runs one "
        "thread has no tick.",
        box(lambda: judge_ticks(facts.online_cpus(), facts.isolated_cpus(), facts.tickless_cpus())),
    ),
    Check(
        "rcu_callbacks",
        SUBJECT,
        "RCU callbacks free the kernel's memory in bursts, in softirq context, on the CPU that queued them.",
        box(
            lambda: judge_callbacks(
                facts.online_cpus(), facts.isolated_cpus(), facts.tickless_cpus(), facts.command_line() or ""
            )
        ),
    ),
)
