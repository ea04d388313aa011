# SPDX-License-Identifier: MIT
"""What real-time settings a measurement had, as a result file keeps it."""

from __future__ import annotations

from typing import Any

from pyuio.rt.report import Report


def of(report: Report) -> dict[str, Any]:
    """Return the tuning of one thread: by setting, what was asked for, what it got, and what the kernel refused."""
    settings: dict[str, Any] = {
        setting.name: {"asked": setting.asked, "got": setting.got, "missing": setting.missing}
        for setting in report.settings
    }
    throttling = report.throttling
    limit = "none" if throttling.runtime < 0 else f"{throttling.runtime} us in {throttling.period}"
    settings["throttling"] = {"limit": limit, "held back": throttling.times}
    return settings


def missing(tuning: dict[str, Any]) -> list[str]:
    """Return in words what was refused, of a run's tuning as `of` made it; [] when nothing was."""
    words = []
    for name, setting in tuning.items():
        if isinstance(setting, dict) and setting.get("missing"):
            words.append(f"{name}: {setting['missing']}")
        if isinstance(setting, dict) and setting.get("held back"):
            words.append(f"{name}: the kernel held the thread back {setting['held back']} times")
    return words
