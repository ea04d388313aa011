# SPDX-License-Identifier: MIT
"""Fixtures that the guest tests share.

The tests run in the guest of ``make test-guest``, and on a real box. ``pytest tests/guest --device 0000:03:00.0`` runs
test_any_card.py on that card and leaves the card as it was. If the card is an edu, it runs all tests that need an edu.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pyuio_drivers.edu import Edu

import pyuio
from pyuio.claim import binding
from pyuio.kernel import programs
from pyuio.kernel.drivers import IGB_UIO, UIO_PCI_GENERIC, VFIO_PCI
from pyuio.kernel.hugepages import hugepages
from pyuio.kernel.memory_use import available
from pyuio.pci.discovery import find
from tests.guest import compiler, kernel_module
from tests.guest.support import (
    DRIVER,
    E1000E,
    EDU,
    PATIENCE,
    PCI_SERIAL,
    Cards,
    Later,
    attribute,
    current_drivers,
    keep_bound,
    kept,
    let_go,
    rebind,
    set_aside_what_the_card_reaches,
)

OVER_VFIO = ["test_vfio.py", "test_dma_vfio.py", "test_iommufd.py", "commands/test_vfio.py"]
collect_ignore = [] if DRIVER == VFIO_PCI else OVER_VFIO
if DRIVER == VFIO_PCI:
    # Debian's kernels have no iommufd; make test-iommufd builds one that has. VFIO loads it, after tests are chosen.
    subprocess.run(["modprobe", "--quiet", "iommufd"], check=False)
NEED_HUGEPAGES = ("test_dma", "test_crashes")  # beginnings of files' names


# What is imported and collected stays: to look for garbage in it again and again takes a second under emulation.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", metavar="ADDRESS", help="run on this PCI function only, which is not in use")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.geteuid() != 0:
        pytest.exit("the guest tests need root; in a guest they have it: make test-guest", returncode=3)
    if named := config.getoption("--device"):
        # Other tests would load modules and change the whole box before they notice that the card is not theirs.
        wanted = {"any_card", "cards"} if find(named).ids == EDU else {"any_card"}
        kept = [item for item in items if wanted & set(getattr(item, "fixturenames", ()))]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept
    if DRIVER == VFIO_PCI:
        without = {"test_iommufd.py"} if not Path("/dev/iommu").exists() else set()
        kept = [item for item in items if item.get_closest_marker("uio") is None and item.path.name not in without]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept
    # A kernel that has run for a while moves much memory to find a hugepage, and more so for one that the card reaches.
    items.sort(key=lambda item: not item.path.name.startswith(NEED_HUGEPAGES))
    # Its last test locks the kernel down, until it ends.
    items.sort(key=lambda item: item.path == Path(__file__).with_name("commands") / "test_vfio.py")


@pytest.fixture(scope="session")
def cards(request: pytest.FixtureRequest) -> Cards:
    """Addresses of the cards with an id pair that the tests may use; the test is skipped if there is none."""
    only = request.config.getoption("--device")

    @functools.cache  # under emulation it takes a quarter of a second
    def find_all(ids: str) -> list[str]:
        # A device that has several nodes comes several times.
        found = sorted({str(device.address) for device in pyuio.devices() if device.ids == ids})
        found = [address for address in found if only in (None, address)]
        if not found:
            pytest.skip(f"no card {ids} here")
        return found

    return find_all


@pytest.fixture(scope="session", autouse=True)
def loaded_driver(request: pytest.FixtureRequest) -> None:
    """Load igb_uio if it is what the tests drive cards by: with messages, where a card has them."""
    if DRIVER == IGB_UIO:
        load_uio()
        subprocess.run(["insmod", request.getfixturevalue("igb_uio"), "intr_mode=msi"], check=True)


@pytest.fixture(scope="session", autouse=True)
def compiled_beforehand() -> None:
    """Put the compiler of `tests.guest.compiler` before the others, if it is there.

    Root looks only where only root can write. So this becomes such a place.
    """
    if compiler.KEPT.exists():
        programs.SYSTEM_PATH = f"{compiler.KEPT}:{programs.SYSTEM_PATH}"


@pytest.fixture
def any_card(request: pytest.FixtureRequest) -> str:
    """The address of the card that ``--device`` names, of whatever kind; without it, of an edu card."""
    named: str | None = request.config.getoption("--device")
    return named or str(request.getfixturevalue("edu"))


@pytest.fixture
def edu(cards: Cards) -> str:
    """The address of an edu card."""
    return cards(EDU)[0]


@pytest.fixture(scope="session", autouse=True)
def in_the_end_nothing_is_bound() -> Iterator[None]:
    yield
    let_go()


@pytest.fixture(scope="session")
def network_cards(cards: Cards) -> list[str]:
    """The addresses of two Intel 82574L cards that a cable, or QEMU's hub, joins."""
    found = cards(E1000E)
    if len(found) < 2:
        pytest.skip("there are no two cards here")
    return found[-2:]


@pytest.fixture
def device(edu: str) -> Iterator[pyuio.Device]:
    """An open edu card, closed afterwards."""
    keep_bound(edu)
    with pyuio.open(edu, bind=True) as opened:
        yield opened


@pytest.fixture
def card(device: pyuio.Device) -> Edu:
    """The edu driver on an open card."""
    return Edu(device)


@pytest.fixture
def reachable(edu: str) -> None:
    """Make one hugepage free that an edu card reaches; it stays free for the next test."""
    with pyuio.open(edu, bind=True):
        set_aside_what_the_card_reaches()


@pytest.fixture
def little_to_search(reachable: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a search for memory take 32 MiB: it would look everywhere for what there is not. `reachable` takes more."""
    left = available() - (32 << 20)
    for module in ("low_memory", "sieve"):
        monkeypatch.setattr(f"pyuio.dma.{module}.spare", lambda: max(0, available() - left))


@pytest.fixture
def no_hugepages(reachable: None) -> None:
    """Make no hugepage set aside and none in use, whatever there was before."""
    size = hugepages()[0]
    size.change(-size.total)
    assert size.total == 0


@pytest.fixture
def serial(cards: Cards) -> Iterator[str]:
    """The address of a serial port, taken from the kernel's driver until the test ends."""
    bound = binding.bind(cards(PCI_SERIAL)[0], DRIVER)
    yield bound.address
    bound.undo()


@pytest.fixture
def later() -> Iterator[Later]:
    """Run functions in other threads; the fixture joins them all at the end of the test."""
    threads = []

    def start(what: Callable[[], object]) -> threading.Thread:
        thread = threading.Thread(target=what)
        threads.append(thread)
        thread.start()
        return thread

    yield start
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def built_module(name: str) -> Path:
    """Return a module for this kernel that `tests.run` built on the host; skip the test if it did not."""
    module = kernel_module.path(os.uname().release, Path(__file__).resolve().parents[2] / "build/modules", name)
    if not module.exists():
        pytest.skip(f"no {module}: make test-guest builds it for Debian's kernels")
    return module


@pytest.fixture(scope="session")
def igb_uio() -> Path:
    """The module igb_uio for this kernel."""
    return built_module("igb_uio")


def load_uio() -> None:
    """Load the module that the modules here need: insmod, unlike modprobe, does not."""
    if not Path("/sys/module/uio").exists():  # to look takes less time than to run modprobe, before so many tests
        subprocess.run(["modprobe", "uio"], check=True)


@pytest.fixture
def several_nodes() -> Iterator[None]:
    """Load several_nodes.c, whose devices have several UIO nodes each, until the test ends."""
    module = built_module("several_nodes")
    load_uio()
    subprocess.run(["insmod", module], check=True)
    yield
    subprocess.run(["rmmod", "several_nodes"], check=True)


@pytest.fixture
def edu_board() -> Iterator[None]:
    """Load edu_board.c, which makes platform devices of an edu card, with the driver in it, until the test ends."""
    with board_loaded("own"):
        yield


@contextlib.contextmanager
def board_loaded(kind: str) -> Iterator[None]:
    """Load edu_board.c in a ``with`` block; `kind` says who drives the board."""
    module = built_module("edu_board")
    load_uio()
    for card in pyuio.devices():
        # On arm64 a card has an interrupt only once a driver was bound to it.
        if card.ids == EDU and card.address and attribute(card.address, "irq") == "0":
            binding.bind(card.address, UIO_PCI_GENERIC).undo()
    subprocess.run(["insmod", module, f"kind={kind}"], check=True)
    try:
        yield
    finally:
        subprocess.run(["rmmod", "edu_board"], check=True)


@pytest.fixture(autouse=True)
def drivers_stay(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a function with another kernel driver, and restore the driver for the next tests."""
    if not {"device", "bound"} & set(request.fixturenames):
        let_go()
    before = current_drivers()
    yield
    after = current_drivers()
    for one in kept:
        before.pop(one.address, None)
        after.pop(one.address, None)
    for address in before.keys() & after.keys():
        if after[address] != before[address]:
            rebind(address, before[address])
    assert after == before
