# SPDX-License-Identifier: MIT
"""The doctor's facts from the kernel's texts: recorded texts, and texts that are cut short or absurd."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyuio.doctor import facts
from pyuio.doctor.facts import find_preemption

RT = "#1 SMP PREEMPT_RT Debian 6.1.192-2 (2026-10-01)"
DYNAMIC = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2 (2026-10-01)"


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("0-3,8", (0, 1, 2, 3, 8)), ("", ()), ("(null)", ()), (" (null)\n", ()), ("5", (5,)), ("1,0", (0, 1))],
)
def test_lists_of_cpus(text: str, cpus: tuple[int, ...]) -> None:
    assert facts.parse_cpus(text) == cpus


@pytest.mark.parametrize("text", ["0-", "-1", "3-1", "0-99999999999", "a", "0,,1", "0 1", "managed_irq,1", "٣"])
def test_lists_of_cpus_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="not a list of CPUs"):
        facts.parse_cpus(text)


@given(st.sets(st.tuples(st.integers(0, 5000), st.integers(0, 64)), min_size=1))
def test_lists_of_cpus_round_trip(ranges: set[tuple[int, int]]) -> None:
    text = ",".join(f"{first}-{first + more}" for first, more in ranges)
    expected = {cpu for first, more in ranges for cpu in range(first, first + more + 1)}
    assert facts.parse_cpus(text) == tuple(sorted(expected))


def test_parameters() -> None:
    line = 'root=/dev/sda1 quiet isolcpus=1 rcu-nocbs=2 isolcpus=managed_irq,domain,3 a="b" -- nohz_full=9'
    assert facts.parse_parameters(line) == {
        "root": "/dev/sda1",
        "quiet": "",
        "isolcpus": "managed_irq,domain,3",
        "rcu_nocbs": "2",
        "a": "b",
    }


def test_configuration() -> None:
    text = 'CONFIG_UIO=m\n# CONFIG_HZ_100 is not set\nCONFIG_LSM="a,b"\nCONFIG_CUT\nCONFIG_'
    assert facts.parse_config(text) == {"CONFIG_UIO": "m", "CONFIG_LSM": "a,b"}


@pytest.mark.parametrize(
    ("version", "debug", "line", "config", "model"),
    [
        (RT, None, "", {}, "PREEMPT_RT"),
        ("#1 SMP PREEMPT RT Debian 4.19", None, "", {}, "PREEMPT_RT"),
        ("#1 SMP", None, "", {"CONFIG_PREEMPT_RT": "y"}, "PREEMPT_RT"),
        (DYNAMIC, "none (voluntary) full", "preempt=full", {"CONFIG_PREEMPT_NONE": "y"}, "voluntary"),
        (DYNAMIC, "none voluntary full (lazy)", "", {}, "lazy"),
        (DYNAMIC, None, "quiet preempt=full", {"CONFIG_PREEMPT_VOLUNTARY": "y"}, "full"),
        (DYNAMIC, None, "preempt=", {"CONFIG_PREEMPT_VOLUNTARY": "y"}, "voluntary"),
        (DYNAMIC, "none volunt", "", {"CONFIG_PREEMPT_LAZY": "y"}, "lazy"),
        (DYNAMIC, "(absurd)", "", {}, None),
        (DYNAMIC, None, "", {}, None),
        # Without PREEMPT_DYNAMIC the parameter has no effect.
        ("#1 SMP", None, "preempt=full", {"CONFIG_PREEMPT_VOLUNTARY": "y"}, "voluntary"),
        ("#1 SMP PREEMPT Fri", None, "", {}, "full"),
        ("#1 SMP", None, "", {}, None),
        ("", "", "", {}, None),
    ],
)
def test_preemption(version: str, debug: str | None, line: str, config: dict[str, str], model: str | None) -> None:
    assert find_preemption(version, debug, line, config) == model


def test_processor_names() -> None:
    text = "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel\t\t: 2\nmodel name\t: AMD EPYC\nstepping\t: 1\n"
    assert facts.parse_cpu_model(text) == "AMD EPYC"
    assert facts.parse_cpu_model("processor\t: 0\nmodel name\t:\nflags\t: fpu") is None
    assert facts.parse_cpu_model("") is None


@given(st.text())
def test_no_text_is_too_odd(text: str) -> None:
    facts.parse_parameters(text)
    facts.parse_config(text)
    facts.parse_cpu_model(text)
    find_preemption(text, text, text, facts.parse_config(text))
    with contextlib.suppress(ValueError):
        facts.parse_cpus(text)


def test_files_that_are_not_there_or_no_files() -> None:
    assert facts.text_of(Path("/nowhere")) is None
    assert facts.text_of(Path("/proc")) is None
    assert facts.text_of(Path("/proc/self/mem")) is None  # EIO at its start


def test_this_box() -> None:
    assert facts.kernel_release() == os.uname().release
    assert set(os.sched_getaffinity(0)) <= set(facts.online_cpus())
    assert facts.command_line() == Path("/proc/cmdline").read_text().strip()
