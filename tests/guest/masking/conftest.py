# SPDX-License-Identifier: MIT
"""Runs each test in this directory once for every kind of masking.

The kinds are two UIO drivers, one of them in two modes; or, where an IOMMU is on, VFIO's two kinds of interrupt.

make test runs those of test_conformance.py on every kind, and the others on `KINDS[0]`; make test-long the rest. Of the
endings, make test leaves out over VFIO those that the kernel has no part in, and that it runs over UIO; and there it
takes one way of waiting, as all ways run on a model (tests/model/test_masking.py).
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pyuio_drivers.edu import Edu

import pyuio
from pyuio.interrupt import Interrupt
from pyuio.kernel import preempt_rt
from pyuio.kernel.drivers import GENERIC_DRIVERS, IGB_UIO, VFIO_PCI
from tests.guest.support import DRIVER, INTERRUPT_DISABLE, command_register, keep_bound, let_go

UIO_KINDS = ("uio_pci_generic", "igb_uio-legacy", "igb_uio-msi")
VFIO_KINDS = ("vfio-pci-intx", "vfio-pci-msi")
ENDINGS_OF_THE_KERNEL = ("test_losing_", "test_close_", "test_a_descriptor_")  # beginnings of tests' names
KINDS = VFIO_KINDS if DRIVER == VFIO_PCI else UIO_KINDS


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent != Path(__file__).parent:  # pytest calls this for all tests
            continue
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        by_another_kind = parameters.get("kind", KINDS[0]) != KINDS[0] and item.path.stem != "test_conformance"
        of_pyuio_alone = item.path.stem == "test_endings" and not item.name.startswith(ENDINGS_OF_THE_KERNEL)
        another_way = parameters.get("how", "read") != "read" and "end" not in parameters
        if by_another_kind or another_way or (of_pyuio_alone and DRIVER == VFIO_PCI):
            item.add_marker(pytest.mark.long)


@pytest.fixture(params=KINDS, scope="module")
def kind(request: pytest.FixtureRequest) -> Iterator[str]:
    """A loaded kernel driver, and the way in which it delivers interrupts."""
    driver = driver_of(str(request.param))
    mode = str(request.param).rpartition("-")[2] if driver == IGB_UIO else ""
    if driver == preempt_rt.FREEZES and preempt_rt.is_realtime():
        pytest.skip(preempt_rt.WHY)
    if mode:
        subprocess.run(["modprobe", "uio"], check=True)
        module: Path = request.getfixturevalue("igb_uio")
        subprocess.run(["insmod", module, f"intr_mode={mode}"], check=True)
    yield str(request.param)
    let_go()
    if mode:
        subprocess.run(["rmmod", driver], check=True)


def driver_of(kind: str) -> str:
    """Return the kernel driver of a kind."""
    return next(driver for driver in GENERIC_DRIVERS if kind.startswith(driver))


@pytest.fixture
def bound(kind: str, edu: str) -> str:
    """An edu card bound to the kernel driver."""
    keep_bound(edu, driver_of(kind))
    return edu


@pytest.fixture
def opened(kind: str, edu: str) -> Callable[[], pyuio.Device]:
    """Opens the card, which is bound, with interrupts of the kind."""

    def open_it() -> pyuio.Device:
        device = pyuio.open(edu)
        if kind == "vfio-pci-msi":
            device.vectors(1)
        return device

    return open_it


@pytest.fixture
def card(bound: str, opened: Callable[[], pyuio.Device]) -> Iterator[Edu]:
    with opened() as device:
        yield Edu(device)


@pytest.fixture
def interrupt(card: Edu) -> Interrupt:
    return card.device.interrupt


@pytest.fixture
def is_masked(kind: str, bound: str) -> Callable[[], bool] | None:
    """Whether the line is masked, as seen from outside pyuio; None where the kernel driver cannot mask (edu's MSI)."""
    if kind.endswith("-msi"):
        return None
    return lambda: bool(command_register(bound) & INTERRUPT_DISABLE)
