# SPDX-License-Identifier: MIT
"""The commands on devices that VFIO hands out. test_vfio_commands.py runs pytest on this in a guest with an IOMMU."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import pyuio
from pyuio.claim import binding
from pyuio.kernel import vfio
from pyuio.kernel.drivers import bound_driver, load_driver
from pyuio.kernel.sysfs import PCI_DEVICES, PCI_DRIVERS
from tests.guest.support import PATIENCE, Beside, command_in_a_fork, load_drive, pyuio_command, wait_until

EDU, NETWORK = "1234:11e8", "8086:10d3"
ICH9 = "0000:00:1f.0", "0000:00:1f.2", "0000:00:1f.3"  # an ISA bridge, AHCI, SMBus: one IOMMU group
MOMENT = 30  # seconds within which a command under emulation ends, and one that hangs does not


def addresses(ids: str) -> list[str]:
    return sorted(str(one.address) for one in pyuio.devices() if one.ids == ids)


@pytest.fixture(scope="module")
def edu() -> str:
    return addresses(EDU)[0]


@pytest.fixture
def card(edu: str) -> Iterator[str]:
    """An edu card that vfio-pci has; it has no driver before and afterwards."""
    undo = binding.bind(edu, "vfio-pci")
    yield edu
    if bound_driver(edu) == "vfio-pci":
        undo.undo()
    assert bound_driver(edu) is None


def group_of(address: str) -> int:
    number = vfio.group_of(PCI_DEVICES / address)
    assert number is not None
    return number


def until_killed(begin: Callable[[], object]) -> Callable[[], None]:
    """Return a program that begins something, says so, and then does nothing until it is killed."""

    def program() -> None:
        kept = begin()
        print("begun", flush=True)
        while kept is not program:
            time.sleep(1000)

    return program


def hold(address: str) -> object:
    """Open a function by VFIO as a program does that does not listen when the kernel wants it back."""
    group, container = vfio.Group(group_of(address)), vfio.Container()
    group.join(container)
    return group, container, group.open_device(address)


@contextlib.contextmanager
def held(address: str) -> Iterator[Beside]:
    """A process that has a function open."""
    with Beside(until_killed(lambda: hold(address)), "holder") as process:
        assert process.stdout.readline() == "begun\n", process.stderr.read()
        yield process
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE)


def command(*words: str) -> tuple[int, str, str]:
    """Run a command of pyuio's that may hang; return its status and what it prints."""
    load_drive()
    with Beside(command_in_a_fork, "pyuio", *words) as process:
        output, errors = process.communicate(MOMENT)
        assert process.returncode is not None
        return process.returncode, output, errors


def refused(*words: str) -> str:
    status, output, errors = command(*words)
    assert (status, output) == (1, ""), (words, status, output, errors)
    return errors


def test_what_open_would_bind_is_bound(edu: str) -> None:
    done = pyuio_command("bind", edu)
    assert done.returncode == 0, done.stderr
    path = vfio.group_path(group_of(edu))
    assert done.stdout == (
        f"{edu} is bound to vfio-pci as {path}, because an IOMMU translates for the device; "
        f"pyuio unbind {edu} leaves it without a driver, as it was\n"
    )
    assert pyuio_command("bind", edu).stdout == f"{edu} is bound to vfio-pci already as {path}: nothing to do\n"
    assert pyuio_command("unbind", edu).stdout == f"{edu} is released from vfio-pci, and has no driver\n"


def test_a_holder_is_named_at_once(card: str) -> None:
    path = vfio.group_path(group_of(card))
    with held(card) as holder:
        wanted = f"process {holder.pid} (", f"has its IOMMU group, {path}, open"
        for words in (
            ("bind", card, "--driver", "uio_pci_generic"),
            ("bind", card, "--driver", "uio_pci_generic", "--force"),
            ("unbind", card),
            ("unbind", card, "--force"),
            ("setup", card, "--driver", "uio_pci_generic"),
            ("irq", card),
        ):
            errors = refused(*words)
            assert all(part in errors for part in wanted), (words, errors)
        with pytest.raises(pyuio.DeviceBusyError, match=f"process {holder.pid} "):
            pyuio.open(card, bind="uio_pci_generic")
        assert bound_driver(card) == "vfio-pci"
    assert command("unbind", card)[0] == 0


def test_nothing_hangs_while_an_unbind_waits(card: str) -> None:
    """Whoever reads an attribute under the function's lock would wait with it, and could not be killed."""
    with held(card) as holder:

        def unbind() -> None:
            print("begun", flush=True)
            (PCI_DRIVERS / "vfio-pci/unbind").write_text(card)

        with Beside(unbind, "unbinder") as waiting, contextlib.ExitStack() as stack:
            stack.callback(holder.send_signal, signal.SIGKILL)  # or the unbinder could not be killed
            wait_until(lambda: bound_driver(card) is None)
            named = f"process {holder.pid} ("
            for words in (
                ("bind", card),
                ("bind", card, "--driver", "vfio-pci"),
                ("bind", card, "--force"),
                ("unbind", card),
                ("unbind", card, "--force"),
                ("setup", card),
                ("irq", card),
            ):
                assert named in refused(*words), words
            for bind in (False, True, "uio_pci_generic", "vfio-pci"):
                with pytest.raises(pyuio.DeviceBusyError, match=f"process {holder.pid} "):
                    pyuio.open(card, bind=bind)
            status, output, _errors = command("info", card)
            assert status == 0
            assert f"it is being taken from vfio-pci, which waits for process {holder.pid} (" in output
            status, output, _errors = command("list")
            assert (status, card in output) == (0, True)
            status, output, _errors = command("doctor", card)
            assert named in output, output
            assert command("dump", card)[0] == 0
            assert command("read", card, "config+0", "--width", "32")[1].startswith("0x11e81234")
            assert command("probe")[0] == 0
            assert waiting.poll() is None
            holder.send_signal(signal.SIGKILL)
            assert waiting.wait(PATIENCE) == 0
    assert bound_driver(card) is None


def test_a_group_with_functions_of_other_drivers() -> None:
    """All that is in the way is named, and nothing is left half-way."""
    for driver in ("ahci", "i801_smbus"):
        with contextlib.suppress(pyuio.PyuioError):
            load_driver({"i801_smbus": "i2c-i801"}.get(driver, driver))
    bridge, disks, bus = ICH9
    wait_until(lambda: bound_driver(bus) == "i801_smbus" and bound_driver(disks) == "ahci")
    before = {address: bound_driver(address) for address in ICH9}

    def unchanged() -> bool:
        return {address: bound_driver(address) for address in ICH9} == before

    errors = refused("bind", bus, "--driver", "vfio-pci")
    assert f"{disks} (ahci)" in errors
    assert f"pyuio bind --driver vfio-pci --whole-group {bus}" in errors
    with pytest.raises(pyuio.DeviceBusyError, match=f"--whole-group {bus}"):
        pyuio.open(bus, bind="vfio-pci")
    assert "VFIO is out: kernel drivers have functions of its IOMMU group" in command("info", bus)[1]
    assert unchanged()
    for address in (disks, bus):
        # The driver does not come back to a function whose group is used: so all must be VFIO's, or none.
        (PCI_DEVICES / address / "driver_override").read_text()
    done = pyuio_command("bind", bus, "--driver", "vfio-pci", "--whole-group", *(["--force"] if before[bridge] else []))
    assert done.returncode == 0, done.stderr
    taken = [address for address in ICH9 if before[address]]
    assert [bound_driver(address) for address in taken] == ["vfio-pci"] * len(taken)
    for address in taken:
        assert f"pyuio unbind {address} gives it back to {before[address]}" in done.stdout
    with pyuio.open(bus) as device:
        assert device.config.vendor_id == 0x8086
    for address in taken:
        assert pyuio_command("unbind", address).returncode == 0
    assert unchanged()
