# SPDX-License-Identifier: MIT
"""Cards that go while they are in use, in a guest: by QEMU's device_del, by sysfs remove, and by unbinding.

removal_guest.py runs in the guest, and asks for commands of QEMU's monitor (qmp.py).
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.run import ARCHITECTURE, EDU, WITH_IOMMU

from .conftest import Vm
from .qmp import converse

GUEST = "tests.vm.removal_guest"
# Without this q35 unplugs by ACPI, also behind a root port; with it the kernel's driver of the root port unplugs. That
# takes 5 s, and QEMU's machine for arm64 knows nothing else.
NATIVE = "--qemu=-global ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"
ON_ARM64 = ARCHITECTURE.name == "arm64"
DEVICES = [
    *(f"pcie-root-port,id=slot{n},chassis={n + 1},slot={n + 1},addr={0x10 + n:x}" for n in range(3)),
    *(f"{EDU},bus=slot{n},id=card{n}" for n in range(3)),
    *(f"{EDU},id=root{n},addr={0x18 + n:x}" for n in range(3)),
]


def run_guest(directory: Path, *parts: str, options: Sequence[str] = (), limit: float = 250) -> dict[str, Any]:
    """Run parts of removal_guest.py in a guest with these options more, and return their results."""
    vm = Vm()
    path = directory / "qmp"
    words = [f"--qemu=-qmp unix:{path},server=on,wait=off", *options, *(f"--device={device}" for device in DEVICES)]
    command = [*vm.command(*words), "--", sys.executable, "-m", GUEST, *parts]
    found = asyncio.run(asyncio.wait_for(converse(command, path), limit))
    if report := os.environ.get("REMOVAL_REPORT"):
        Path(report).write_text(json.dumps(found, indent=2))
    assert "failed" not in found, found["failed"]
    assert not vm.left()
    return found


WAITS = {
    "read",
    "poll",
    "read_async",
    "wait",
    "poll32",
    "DMA to the card",
    "service",
    "poll by name",
    "DMA from the card",
    "DMA to the card by interrupt",
    "poll32 besides",
}
PORT_ENDS = ("ports, device_del", "ports, remove", "ports, unbind")
BUS_ENDS = ("root bus, remove", "root bus, unbind")


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the results of a guest that unplugs by ACPI, where there is ACPI."""
    return run_guest(tmp_path_factory.mktemp("acpi"), "ports", "some unnoticed", "example", "3")


def check_losing_in_use(found: dict[str, Any]) -> None:
    assert found["waits"] == dict.fromkeys(WAITS, "removed")
    for name, unrefused in found["unrefused"].items():
        assert unrefused == [], name
    assert found["after close"] == ["ClosedError ClosedError"] * 3


def check_losing_unnoticed(found: dict[str, str]) -> None:
    assert found
    assert found == {name: "" if name.startswith("after ") else "removed" for name in found}


def check_cycles(found: dict[str, Any]) -> None:
    assert found["after"] == found["before"]
    # Mappings of devices are counted separately; the mappings that malloc and Python make come and go.
    assert found["mappings after"] - found["mappings before"] < 8


@pytest.mark.parametrize("end", PORT_ENDS)
def test_every_wait_ends_and_nothing_works_afterwards(guest: dict[str, Any], end: str) -> None:
    check_losing_in_use(guest[end])


def test_an_unbound_card_does_no_dma(guest: dict[str, Any]) -> None:
    assert guest["ports, unbind"]["bus mastering"] == [False, False, False]


@pytest.mark.long  # the same by the same calls of the kernel, where no port is
def test_the_root_bus(tmp_path: Path) -> None:
    found = run_guest(tmp_path, "root bus")
    for end in BUS_ENDS:
        check_losing_in_use(found[end])
    assert found["root bus, unbind"]["bus mastering"] == [False, False, False]
    assert "Bus 'pcie.0' does not support hotplugging" in found["root bus, device_del"]
    assert found["held after"] == found["held before"]


@pytest.mark.parametrize("end", ["device_del", "remove", "unbind"])
def test_the_first_use_notices(guest: dict[str, Any], end: str) -> None:
    """Some uses here; every use as the first one is in test_a_hundred_plug_cycles."""
    check_losing_unnoticed(guest[f"unnoticed, {end}"])


def test_nothing_is_left(guest: dict[str, Any]) -> None:
    assert guest["held after"] == guest["held before"]


def test_a_few_plug_cycles(guest: dict[str, Any]) -> None:
    check_cycles(guest["cycles"])


def test_the_example_takes_the_card_up_again(guest: dict[str, Any]) -> None:
    assert guest["example"].splitlines() == [
        "0000:01:00.0: open, 5! = 120",
        "0000:01:00.0: gone while its interrupt was waited for",
        "remove 0000:01:00.0 1234:11e8",
        "add 0000:01:00.0 1234:11e8",
        "0000:01:00.0: open, 5! = 120",
    ]


@pytest.mark.long
@pytest.mark.timeout(500)
def test_a_hundred_plug_cycles(tmp_path: Path) -> None:
    found = run_guest(tmp_path, "unnoticed", "100", limit=450)
    for end in ("device_del", "remove", "unbind"):
        check_losing_unnoticed(found[f"unnoticed, {end}"])
    check_cycles(found["cycles"])
    assert found["held after"] == found["held before"]


@pytest.mark.timeout(700)
@pytest.mark.parametrize("number", ["3" if ON_ARM64 else pytest.param("100", marks=pytest.mark.long)])
def test_plug_cycles_through_vfio(tmp_path: Path, number: str) -> None:
    """The kernel waits until the program has let go of a card, and the thread that unplugs cannot be killed."""
    check_cycles(run_guest(tmp_path, number, options=WITH_IOMMU, limit=650)["cycles"])


@pytest.mark.long  # 5 s for each card, in which a person could still cancel it
def test_native_hotplug_and_a_card_that_is_pulled_out(tmp_path: Path) -> None:
    found = run_guest(tmp_path, "ports", "2", "pulled", options=(NATIVE,))
    for end in PORT_ENDS:
        check_losing_in_use(found[end])
    check_cycles(found["cycles"])
    assert found["pulled"] == {
        "poll32": "removed",
        "poll by name": "removed",
        "afterwards": "",
        "the kernel": "did not notice",
    }
    assert found["held after"] == found["held before"]
