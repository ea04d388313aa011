# SPDX-License-Identifier: MIT
"""The real-time settings of a measurement, as a result file keeps them."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from pyuio.errors import PermissionDeniedError

if TYPE_CHECKING:
    from pyuio.rt.report import Report
    from pyuio.rt.settings import RealTime


def of(report: Report) -> dict[str, Any]:
    """Return the tuning of one thread: what was asked for, what it got, and why the kernel refused, by setting."""
    settings: dict[str, Any] = {
        setting.name: {"asked": setting.asked, "got": setting.got, "missing": setting.missing}
        for setting in report.settings
    }
    throttling = report.throttling
    limit = "none" if throttling.runtime < 0 else f"{throttling.runtime} us in {throttling.period}"
    settings["throttling"] = {"limit": limit, "held back": throttling.times}
    return settings


def require_priority(tuned: RealTime, priority: int) -> None:
    """Raise PermissionDeniedError if the kernel refused the thread this priority: what is measured then says little."""
    for denied in tuned.missing:
        if denied.name == "policy":
            reason = f"SCHED_FIFO, priority {priority}: {denied.missing}; {denied.remedy}"
            raise PermissionDeniedError(errno.EPERM, f"{reason}; or measure ordinary scheduling with --priority 0")


def missing(tuning: dict[str, Any]) -> list[str]:
    """Return as text what was refused in a run's tuning, which `of` made, and throttling; [] if there was neither."""
    words = []
    for name, setting in tuning.items():
        if isinstance(setting, dict) and setting.get("missing"):
            words.append(f"{name}: {setting['missing']}")
        if isinstance(setting, dict) and setting.get("held back"):
            words.append(f"{name}: the kernel held the thread back {setting['held back']} times")
    return words
