# SPDX-License-Identifier: MIT
"""How the kernel schedules a thread (policy, priority, processors), and why it refuses a request.

Sources: sched(7), sched_setattr(2); kernel/sched/core.c (syscalls.c since Linux 6.12) for the refusals.
"""

from __future__ import annotations

import errno
import os
import resource
import threading
from pathlib import Path
from typing import NamedTuple

from pyuio._native._realtime import ffi as _ffi
from pyuio._native._realtime import lib as _lib
from pyuio.kernel import privilege

# include/uapi/linux/sched.h. Python has no name for SCHED_DEADLINE.
FIFO, ROUND_ROBIN, DEADLINE = os.SCHED_FIFO, os.SCHED_RR, 6
POLICIES = {"fifo": FIFO, "rr": ROUND_ROBIN, "deadline": DEADLINE}
_NAMES = {os.SCHED_OTHER: "other", os.SCHED_BATCH: "batch", os.SCHED_IDLE: "idle"}
_NAMES.update({number: name for name, number in POLICIES.items()})
RESET_ON_FORK = 1  # SCHED_FLAG_RESET_ON_FORK

KERNEL = Path("/proc/sys/kernel")


class Thread(NamedTuple):
    """A thread of any process. The time of its start distinguishes it from a later thread with the same id."""

    id: int
    started: str

    @classmethod
    def find(cls, thread: int) -> Thread | None:
        """Return the thread with this native id, or None if there is none any more."""
        try:
            # Field 22 (proc(5)), counted from the end of the name, because the name may contain anything.
            return cls(thread, Path(f"/proc/{thread}/stat").read_text(errors="replace").rpartition(")")[2].split()[19])
        except (OSError, IndexError):
            return None

    @classmethod
    def current(cls) -> Thread:
        """Return the calling thread."""
        thread = cls.find(threading.get_native_id())
        if thread is None:
            raise OSError(errno.ENOENT, "/proc does not show this process; it must be mounted")
        return thread

    @property
    def alive(self) -> bool:
        """Whether it is still there."""
        return self == Thread.find(self.id)


class Scheduling(NamedTuple):
    """The scheduling policy of a thread, and the policy's parameters.

    Attributes:
        policy: a number from sched.h.
        priority: 1 to 99 for fifo and rr, else 0.
        runtime, deadline, period: nanoseconds, for deadline; else 0.
        nice: -20 to 19, for the ordinary policies.
        flags: of sched_setattr(2).
    """

    policy: int
    priority: int = 0
    runtime: int = 0
    deadline: int = 0
    period: int = 0
    nice: int = 0
    flags: int = RESET_ON_FORK

    @classmethod
    def of(cls, thread: Thread) -> Scheduling:
        """Return the scheduling of a thread. OSError: the kernel refused to tell."""
        native = _ffi.new("pyuio_scheduling *")
        _checked(_lib.pyuio_scheduling_of(thread.id, native), f"reading the scheduling of thread {thread.id}")
        numbers = (native.policy, native.priority, native.runtime, native.deadline, native.period)
        return cls(*map(int, (*numbers, native.nice, native.flags)))

    def give(self, thread: Thread) -> None:
        """Give this scheduling to a thread. OSError: the kernel refused."""
        native = _ffi.new("pyuio_scheduling *")
        for name, value in self._asdict().items():
            setattr(native, name, value)
        _checked(_lib.pyuio_schedule(thread.id, native), f"sched_setattr of thread {thread.id} to {self}")

    def give_back(self, thread: Thread) -> None:
        """Give this scheduling back to a thread that had it before; do nothing if the thread has ended."""
        if not thread.alive:
            return
        try:
            self.give(thread)
        except ProcessLookupError:
            pass
        except PermissionError:
            if self.flags & RESET_ON_FORK:
                raise
            # Only CAP_SYS_NICE may clear the flag. The flag has no effect on an ordinary thread.
            self._replace(flags=self.flags | RESET_ON_FORK).give(thread)

    def __str__(self) -> str:
        """Return "fifo 89" or the like."""
        name = _NAMES.get(self.policy, f"policy {self.policy}")
        if self.policy == DEADLINE:
            times = (self.runtime, self.deadline, self.period)
            return "{} {:g} us by {:g} us in {:g} us".format(name, *(time / 1000 for time in times))
        return f"{name} {self.priority if self.priority else ''}".rstrip()


def _checked(result: int, doing: str) -> None:
    if result < 0:
        raise OSError(-result, f"{doing}: {os.strerror(-result)}")


def kernel_number(name: str) -> int | None:
    """Return the number in a file of ``/proc/sys/kernel``, or None if this kernel does not have the file."""
    try:
        return int((KERNEL / name).read_text())
    except (OSError, ValueError):
        return None


def remedy(error: OSError, wanted: Scheduling) -> str:
    """Return what to do after the kernel refused the `wanted` scheduling for a thread of this process."""
    runtime = kernel_number("sched_rt_runtime_us")
    if error.errno == errno.EBUSY:
        return (
            f"the deadline threads together would take more of the processors than sched_rt_runtime_us ({runtime}) "
            "allows: a shorter runtime or a longer period, or, as root: sysctl kernel.sched_rt_runtime_us=-1"
        )
    if error.errno != errno.EPERM:
        return "sched_setattr(2) says what this answer means"
    if not privilege.has(privilege.CAP_SYS_NICE):
        if wanted.policy == DEADLINE:
            return f"the policy deadline needs CAP_SYS_NICE: {privilege.remedy(privilege.CAP_SYS_NICE)}"
        limit = resource.getrlimit(resource.RLIMIT_RTPRIO)[0]
        may = "no real-time priority" if limit == 0 else f"real-time priorities up to {limit}"
        more = privilege.remedy(privilege.CAP_SYS_NICE, "rtprio", str(wanted.priority))
        return f"this user may use {may} (ulimit -r): {more}"
    if wanted.policy == DEADLINE:
        if runtime == 0:
            return "sched_rt_runtime_us is 0: as root: sysctl kernel.sched_rt_runtime_us=950000"
        return (
            "a deadline thread must be allowed on every processor: leave cpus out (and taskset, cpuset, isolcpus), or "
            "give it processors by a cpuset partition, or, as root: sysctl kernel.sched_rt_runtime_us=-1"
        )
    if group := _group_without_real_time():
        return (
            f"RT group scheduling gives this cgroup no real time: as root: echo 950000 > {group} (its parents first), "
            "or sysctl kernel.sched_rt_runtime_us=-1"
        )
    return (
        "this process has CAP_SYS_NICE, so it is RT group scheduling (CONFIG_RT_GROUP_SCHED; as root: sysctl "
        "kernel.sched_rt_runtime_us=-1) or the seccomp filter of a container that forbids it"
    )


def _group_without_real_time() -> Path | None:
    """Return the file that denies real time to this process's cgroup, or None; cgroup v1 only (sched-rt-group.rst)."""
    for line in Path("/proc/self/cgroup").read_text(errors="surrogateescape").split("\n")[:-1]:
        _, controllers, path = line.split(":", 2)
        if "cpu" in controllers.split(","):
            for root in (f"/sys/fs/cgroup/{controllers}", "/sys/fs/cgroup/cpu"):
                file = Path(root + path, "cpu.rt_runtime_us")
                if file.exists() and int(file.read_text()) == 0:
                    return file
    return None


def checked(
    policy: str | None,
    priority: int | None,
    runtime: float | None,
    deadline: float | None,
    period: float | None,
) -> Scheduling | None:
    """Return the scheduling that these arguments of `realtime` ask for, or None if they ask for none.

    Raises:
        TypeError, ValueError: as `realtime`.
    """
    times = {"runtime": runtime, "deadline": deadline, "period": period}
    given = [name for name, value in {"priority": priority, **times}.items() if value is not None]
    if policy is None:
        if given:
            raise ValueError(f"{given[0]} needs a policy")
        return None
    if policy not in POLICIES:
        raise ValueError(f"the policy is one of {', '.join(POLICIES)} or None, not {policy!r}")
    if policy != "deadline":
        if wrong := [name for name in given if name != "priority"]:
            raise ValueError(f"{wrong[0]} belongs to the policy deadline, not to {policy}")
        number = POLICIES[policy]
        if priority is None:
            priority = os.sched_get_priority_max(number) - 10
        return Scheduling(number, checked_priority("priority", priority))
    if priority is not None:
        raise ValueError("the policy deadline has no priority; its threads come before all of the other policies")
    if runtime is None or (deadline is None and period is None):
        raise ValueError("the policy deadline needs a runtime, and a deadline or a period")
    nanoseconds = {name: _nanoseconds(name, value) for name, value in times.items() if value is not None}
    return _checked_deadline(
        nanoseconds["runtime"],
        nanoseconds.get("deadline", nanoseconds.get("period", 0)),
        nanoseconds.get("period", nanoseconds.get("deadline", 0)),
    )


def _checked_deadline(runtime: int, deadline: int, period: int) -> Scheduling:
    # __checkparam_dl in kernel/sched/deadline.c; the limits of the period came with Linux 5.5.
    if not 1024 <= runtime <= deadline <= period:
        raise ValueError(f"1024 ns <= runtime <= deadline <= period must hold, not {runtime}, {deadline}, {period} ns")
    shortest = kernel_number("sched_deadline_period_min_us") or 1
    longest = kernel_number("sched_deadline_period_max_us") or (1 << 63) // 1000
    if not shortest * 1000 <= period <= longest * 1000:
        raise ValueError(f"the period is {shortest} to {longest} us (sched_deadline_period_*_us), not {period / 1000}")
    return Scheduling(DEADLINE, 0, runtime, deadline, period)


def checked_priority(name: str, priority: int, lowest: int = 1) -> int:
    """Return a priority of fifo or rr. TypeError: it is not an int. ValueError: it is not `lowest` to 99."""
    if not isinstance(priority, int) or isinstance(priority, bool):
        raise TypeError(f"{name} is an int, not {type(priority).__name__}")
    highest = os.sched_get_priority_max(FIFO)
    if not lowest <= priority <= highest:
        raise ValueError(f"{name} is {lowest} to {highest}, not {priority}")
    return priority


def _nanoseconds(name: str, seconds: float) -> int:
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool):
        raise TypeError(f"{name} is a number of seconds, not {type(seconds).__name__}")
    if not 0 < seconds < 1 << 32:  # false for NaN, too
        raise ValueError(f"{name} is more than 0 and less than 2^32 seconds, not {seconds}")
    return round(seconds * 1_000_000_000)
