# SPDX-License-Identifier: MIT
"""Runs each test in this directory once for every kind of masking: two kernel drivers, one of them in two modes.

make test runs those of test_conformance.py on every kind, and the others on `KINDS[0]`; make test-long the rest.
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
from tests.guest.support import INTERRUPT_DISABLE, command_register, keep_bound, let_go

KINDS = ("uio_pci_generic", "igb_uio-legacy", "igb_uio-msi")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        if parameters.get("kind", KINDS[0]) != KINDS[0] and item.path.stem != "test_conformance":
            item.add_marker(pytest.mark.long)


@pytest.fixture(params=KINDS, scope="module")
def kind(request: pytest.FixtureRequest) -> Iterator[str]:
    """A loaded kernel driver, and the way in which it delivers interrupts."""
    driver, _, mode = str(request.param).partition("-")
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


@pytest.fixture
def bound(kind: str, edu: str) -> str:
    """An edu card bound to the kernel driver."""
    keep_bound(edu, kind.partition("-")[0])
    return edu


@pytest.fixture
def card(bound: str) -> Iterator[Edu]:
    with pyuio.open(bound) as device:
        yield Edu(device)


@pytest.fixture
def interrupt(card: Edu) -> Interrupt:
    return card.device.interrupt


@pytest.fixture
def is_masked(kind: str, bound: str) -> Callable[[], bool] | None:
    """Whether the line is masked, as seen from outside pyuio; None where the kernel driver cannot mask (edu's MSI)."""
    if kind == "igb_uio-msi":
        return None
    return lambda: bool(command_register(bound) & INTERRUPT_DISABLE)
