# SPDX-License-Identifier: MIT
"""The tests of reading and masking that run on each of the kernel's ways, on a card in Python: the same functions."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pyuio_drivers.edu import Edu
from pyuio_drivers.models.edu import EduCard

import pyuio
import pyuio.model
from pyuio.interrupt import Interrupt
from tests.guest import support
from tests.guest.masking import test_conformance, test_endings
from tests.guest.support import PATIENCE, Later

# These are about the kernel: which driver offers what, how it gives a device back, and whose descriptor it is.
OF_THE_KERNEL = (
    "test_it_says_what_it_is_and_uio_has_one_vector_at_most",
    "test_losing_the_device_ends_the_wait",
    "test_a_descriptor_closed_under_it",
)
for module in (test_conformance, test_endings):
    for name, function in vars(module).items():
        if name.startswith("test_") and name not in OF_THE_KERNEL:
            globals()[name] = function


class Opened:
    """The card, and the device that is open on it."""

    def __init__(self, kind: str) -> None:
        self.card = EduCard()
        self.kind = kind
        self.device: pyuio.Device | None = None

    def open(self, *_: object) -> pyuio.Device:
        device = pyuio.model.open(self.card)
        if self.kind == "model-msi":
            device.vectors(1)
        self.device = device
        return device

    def count(self, *_: object) -> int:
        """Return how many interrupts the model of a kernel has counted."""
        assert self.device is not None
        interrupt: Any = self.device.interrupt
        return int(interrupt.came)


@pytest.fixture(params=["model-intx", "model-msi"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def bound(kind: str, monkeypatch: pytest.MonkeyPatch) -> Opened:
    """A card; what asks the kernel about it asks the model."""
    opened = Opened(kind)
    monkeypatch.setattr(pyuio, "open", opened.open)
    for module in (support, test_conformance, test_endings):
        for name, answer in {
            "kernel_count": opened.count,
            "interrupts_of_line": opened.count,
            "command_register": lambda _: opened.card.function.command,
        }.items():
            monkeypatch.setattr(module, name, answer, raising=False)
    return opened


@pytest.fixture
def opened(bound: Opened) -> Callable[[], pyuio.Device]:
    return bound.open


@pytest.fixture
def card(bound: Opened) -> Iterator[Edu]:
    with bound.open() as device:
        yield Edu(device)


@pytest.fixture
def interrupt(card: Edu) -> Interrupt:
    return card.device.interrupt


@pytest.fixture
def is_masked(kind: str, bound: Opened) -> Callable[[], bool] | None:
    if kind == "model-msi":
        return None
    return lambda: bound.device is None or bound.device.closed or bound.device.interrupt.masked


@pytest.fixture
def later() -> Iterator[Later]:
    """Run functions in other threads, as the fixture of the guest's tests does."""
    threads = []

    def start(what: Callable[[], object]) -> threading.Thread:
        threads.append(threading.Thread(target=what))
        threads[-1].start()
        return threads[-1]

    yield start
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
