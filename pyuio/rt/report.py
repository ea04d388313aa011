# SPDX-License-Identifier: MIT
"""The report of real time: what was asked for and what was granted, for people and for files."""

from __future__ import annotations

from typing import Any, NamedTuple


class Setting(NamedTuple):
    """One setting that was asked for.

    Attributes:
        name: the name of `realtime`'s argument.
        asked: the value asked for, such as "fifo 89".
        got: the value that the kernel reports now; "" if the setting was refused.
        missing: what was tried and how the kernel refused it; "" if the setting was granted.
        remedy: how to get it granted; "" if it was granted.
    """

    name: str
    asked: str
    got: str = ""
    missing: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        """Return one line: the name, and the value granted or what is missing."""
        if self.missing:
            return f"{self.name:<18} MISSING, asked {self.asked}: {self.missing}; {self.remedy}"
        return f"{self.name:<18} {self.got}"


class Throttling(NamedTuple):
    """How long the kernel lets real-time threads run, and whether it has cut this one short.

    Since Linux 6.12 the kernel holds real-time threads back only if other threads wait (the "fair server"); pyuio
    notices that in the same way.

    Attributes:
        runtime: microseconds in each period, ``/proc/sys/kernel/sched_rt_runtime_us``; negative for no limit.
        period: microseconds, ``/proc/sys/kernel/sched_rt_period_us``.
        watched: whether this thread was watched; it is if its policy is fifo or rr, and there is a limit.
        times: the number of periods in which the thread was seen to be held back.
        longest: nanoseconds that it was held back in the worst period.
    """

    runtime: int
    period: int
    watched: bool = False
    times: int = 0
    longest: int = 0

    def __str__(self) -> str:
        """Return one line."""
        if self.runtime < 0 or self.runtime >= self.period:
            return "switched off (sched_rt_runtime_us): a thread that never sleeps may never let others run"
        limit = f"real-time threads may run {self.runtime} us in {self.period}"
        if not self.watched:
            return f"{limit}; not watched"
        if not self.times:
            return f"{limit}; this one was not held back"
        return f"{limit}; THIS ONE WAS HELD BACK in {self.times} periods, for {self.longest // 1_000_000} ms at worst"


class Report(NamedTuple):
    """The settings asked for, in the order in which they were made, and their results.

    Attributes:
        thread: the thread's native id, as in ``/proc/PID/task``.
        settings: one for each setting asked for.
        throttling: how long real-time threads may run.
    """

    thread: int
    settings: tuple[Setting, ...]
    throttling: Throttling

    @property
    def missing(self) -> tuple[Setting, ...]:
        """The settings that were refused."""
        return tuple(setting for setting in self.settings if setting.missing)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as dictionaries, lists, strings, numbers and booleans, as json takes them."""
        return {
            "thread": self.thread,
            "settings": [setting._asdict() for setting in self.settings],
            "throttling": self.throttling._asdict(),
        }

    def __str__(self) -> str:
        """Return several lines for a terminal."""
        lines = [f"real time of thread {self.thread}:", *map(str, self.settings)]
        lines.append(f"{'throttling':<18} {self.throttling}")
        return "\n  ".join(lines)
