# SPDX-License-Identifier: MIT
"""Checks of scheduling: the preemption model, and the limits on real-time threads.

Sources: Documentation/scheduler/sched-rt-group.rst and sched-deadline.rst, Documentation/admin-guide/cgroup-v2.rst and
kernel-parameters.txt.
"""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Iterable
from pathlib import Path

from pyuio.doctor import facts
from pyuio.doctor.finding import Answer, Check, advice, box, good, unknown
from pyuio.kernel import privilege
from pyuio.kernel.scheduling import kernel_number
from pyuio.kernel.sysfs import read_optional, read_text

SUBJECT = "scheduling"
RT_RUNTIME = Path("/proc/sys/kernel/sched_rt_runtime_us")
RT_PERIOD = Path("/proc/sys/kernel/sched_rt_period_us")
FAIR_SERVER = Path("/sys/kernel/debug/sched/fair_server")
NO_BUDGETS = (
    "sysctl -w kernel.sched_rt_runtime_us=-1, or, since Linux 6.16, rt_group_sched=0 on the kernel's command line"
)
# The highest priority, 99, less ten: the recipe of the user-mode-driver patch asks for it.
WANTED_PRIORITY = 89

REALTIME_KERNEL = (
    "a PREEMPT_RT kernel: apt install linux-image-rt-amd64 (Debian), pro enable realtime-kernel (Ubuntu Pro), "
    "CONFIG_PREEMPT_RT=y in a kernel of your own (Fedora; in the kernel's own source since Linux 6.12)"
)
FULL_PREEMPTION = f"; short of that, with PREEMPT_DYNAMIC: preempt=full, or, as root: echo full > {facts.PREEMPT_DEBUG}"


# -- preemption --


def judge_preemption(model: str | None, version: str) -> Answer:
    """Judge the preemption model.

    Args:
        model: as `pyuio.doctor.facts.preemption` returns it.
        version: what ``uname -v`` prints.
    """
    if model == "PREEMPT_RT":
        return good("PREEMPT_RT")
    if model == "full":
        return advice("full preemption, without PREEMPT_RT", REALTIME_KERNEL)
    if model is not None:
        return advice(f"{model}, without PREEMPT_RT", REALTIME_KERNEL + FULL_PREEMPTION)
    return unknown(
        f"neither {facts.PREEMPT_DEBUG} nor the kernel's configuration can be read; not PREEMPT_RT ({version})",
        "run pyuio doctor as root, with debugfs mounted (mount -t debugfs none /sys/kernel/debug)",
    )


def look_at_preemption() -> Answer:
    """Check the preemption model in force."""
    return judge_preemption(facts.preemption(), facts.kernel_version())


# -- limits --


def judge_priority(limit: int, unlimited: bool) -> Answer:
    """Judge the limit on real-time priorities.

    Args:
        limit: 0 to 99.
        unlimited: whether a capability lifts the limit.
    """
    if unlimited:
        return good("no limit for this user, who has CAP_SYS_NICE")
    if limit >= WANTED_PRIORITY:
        return good(f"this user may take real-time priorities up to {limit}")
    found = f"this user may take real-time priorities up to {limit}" if limit else "this user may take none"
    return advice(found, privilege.remedy(privilege.CAP_SYS_NICE, "rtprio", "98"))


def look_at_priority() -> Answer:
    """Check which real-time priority this user may take."""
    limit = resource.getrlimit(resource.RLIMIT_RTPRIO)[0]
    highest = os.sched_get_priority_max(os.SCHED_FIFO)
    may = highest if limit == resource.RLIM_INFINITY else min(limit, highest)
    return judge_priority(may, privilege.has(privilege.CAP_SYS_NICE))


# -- throttling --


def judge_throttling(runtime: str, period: str) -> Answer:
    """Judge the texts of sched_rt_runtime_us and sched_rt_period_us, up to Linux 6.11."""
    allowed, of = int(runtime), int(period)
    if allowed < 0 or allowed >= of:
        return good("off")
    return advice(
        f"real-time threads together get {allowed} of each {of} us of a CPU, then stop until the period is over",
        "for threads that spin: sysctl -w kernel.sched_rt_runtime_us=-1, as root, but always leave a CPU for the other "
        "threads; not needed for threads that sleep until an interrupt",
    )


def judge_fair_servers(runtimes: Iterable[tuple[int, str, str]]) -> Answer:
    """Judge the fair servers.

    Args:
        runtimes: for each fair server, its CPU, and the texts of its runtime and its period, in nanoseconds.
    """
    running = [(cpu, int(runtime), int(period)) for cpu, runtime, period in runtimes if int(runtime) > 0]
    if not running:
        return good("off: no CPU has a fair server with a runtime")
    _, runtime, period = max(running, key=lambda server: server[1])
    return advice(
        f"on {len(running)} CPUs starving ordinary threads get up to {runtime // 1000} of each {period // 1000} us",
        f"for threads that spin, as root: echo 0 > {FAIR_SERVER}/cpuN/runtime, for their CPUs N (if it says busy, "
        "switch a CPU off and on first); not needed for threads that sleep until an interrupt",
    )


def parse_release(release: str) -> tuple[int, int]:
    """Return the first two numbers of a kernel's release: (6, 1) for "6.1.0-56-amd64". ValueError: it lacks them."""
    match = re.match(r"(\d+)\.(\d+)", release)
    if match is None:
        raise ValueError(f"a kernel's release begins with two numbers, not {release[:80]!r}")
    return int(match[1]), int(match[2])


def look_at_throttling() -> Answer:
    """Check whether the kernel stops a real-time thread so that others can run."""
    if parse_release(facts.kernel_release()) < (6, 12):
        return judge_throttling(read_text(RT_RUNTIME), read_text(RT_PERIOD))
    servers = []
    for cpu in facts.online_cpus():
        directory = FAIR_SERVER / f"cpu{cpu}"
        runtime = read_optional(directory / "runtime")
        if runtime is not None:
            servers.append((cpu, runtime, read_text(directory / "period")))
    if not servers:
        return unknown(
            f"since Linux 6.12 the fair server decides, but there is no {FAIR_SERVER}",
            "mount -t debugfs none /sys/kernel/debug, as root; it needs CONFIG_SCHED_DEBUG up to Linux 6.14",
        )
    return judge_fair_servers(servers)


# -- groups --


def parse_group(text: str, controller: str) -> str | None:
    """Return the group that a process is in; None if it is in none.

    Args:
        text: of its ``/proc/PID/cgroup``.
        controller: of cgroup v1, "cpu" for example; "" for the group of cgroup v2.
    """
    for line in text.splitlines():
        fields = line.split(":", 2)
        if len(fields) == 3 and controller in fields[1].split(","):
            return fields[2]
    return None


def parse_group_mount(text: str, controller: str) -> Path | None:
    """Return the mount point of a controller's groups; None if they are not mounted.

    Args:
        text: of ``/proc/self/mountinfo``.
        controller: of cgroup v1, "cpu" for example; "" for cgroup v2.
    """
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        words, kind = before.split(), after.split()
        if len(words) >= 5 and len(kind) >= 3:
            version_1 = kind[0] == "cgroup" and bool(controller) and controller in kind[2].split(",")
            if version_1 or (kind[0] == "cgroup2" and not controller):
                return Path(words[4])
    return None


def own_group(controller: str) -> Path | None:
    """Return the directory of this process's group of a controller ("" for cgroup v2); None if there is none."""
    group = parse_group(read_optional(Path("/proc/self/cgroup")) or "", controller)
    mount = parse_group_mount(read_optional(Path("/proc/self/mountinfo")) or "", controller)
    return None if group is None or mount is None else mount / group.lstrip("/")


def judge_runtime(runtime: str, where: Path) -> Answer:
    """Judge the budget of a group of cgroup v1.

    Args:
        runtime: the text of the group's ``cpu.rt_runtime_us``.
        where: the path of that file.
    """
    if int(runtime) != 0:
        return good(f"{where}: {runtime} us")
    return advice(
        f"{where} is 0: this process's group gets no real-time scheduling (EPERM, even for root)",
        f"as root, the groups above it first: echo 100000 > {where}; or, for all groups: {NO_BUDGETS}",
    )


def judge_unified(config: dict[str, str] | None, parameters: dict[str, str], group: Path) -> Answer:
    """Judge group scheduling in a group of cgroup v2 that has the cpu controller; such a group never has a budget.

    Args:
        config: the kernel's configuration; None if it is not known.
        parameters: of the kernel's command line.
        group: the directory of the group.
    """
    if config is None:
        return unknown("no readable file tells whether this kernel has CONFIG_RT_GROUP_SCHED")
    if config.get("CONFIG_RT_GROUP_SCHED") != "y" or parameters.get("rt_group_sched") == "0":
        return good("this kernel does not schedule real-time threads by group")
    return advice(
        f"CONFIG_RT_GROUP_SCHED, and {group} is a group of cgroup v2, which gets no real-time scheduling",
        f"as root: {NO_BUDGETS}",
    )


def look_at_group() -> Answer:
    """Check whether this process's control group may have real-time scheduling."""
    answer = _look_at_budget()
    # Last, and only if it matters: when a program reads this file, Linux 6.12 forgets what its fair servers take, and
    # then refuses to switch them off (kernel/sched/rt.c: sched_rt_handler rebuilds the scheduling domains).
    if answer.state != "good" and (kernel_number("sched_rt_runtime_us") or 0) < 0:
        return good("sched_rt_runtime_us is -1: no group has a budget")
    return answer


def _look_at_budget() -> Answer:
    group = own_group("cpu")
    if group is not None and (runtime := read_optional(group / "cpu.rt_runtime_us")) is not None:
        return judge_runtime(runtime, group / "cpu.rt_runtime_us")
    group = own_group("")
    # The root group has neither a file cgroup.type nor a limit.
    limited = group is not None and (group / "cgroup.type").exists()
    if group is not None and limited and "cpu" in (read_optional(group / "cgroup.controllers") or "").split():
        parameters = facts.parse_parameters(facts.command_line() or "")
        return judge_unified(facts.kernel_config(), parameters, group)
    return good("no control group limits real-time threads of this process")


CHECKS = (
    Check(
        "preemption",
        SUBJECT,
        "The longest stretch of kernel code that cannot be preempted bounds how late the handler starts, and only "
        "PREEMPT_RT makes nearly all kernel code preemptible.",
        box(look_at_preemption),
    ),
    Check(
        "rtprio",
        SUBJECT,
        "Without a real-time policy (SCHED_FIFO) the handler shares the CPU with every other thread and waits for its "
        "turn.",
        box(look_at_priority),
    ),
    Check(
        "rt_throttling",
        SUBJECT,
        "The kernel stops a real-time thread that never sleeps, as in polling, for the rest of each period so that "
        "others can run.",
        box(look_at_throttling),
    ),
    Check(
        "rt_group",
        SUBJECT,
        "With CONFIG_RT_GROUP_SCHED a control group has a budget of real-time scheduling, and a budget of 0, the "
        "default of a new group, refuses it.",
        box(look_at_group),
    ),
)
