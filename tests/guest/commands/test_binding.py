# SPDX-License-Identifier: MIT
"""``pyuio bind`` and ``pyuio unbind``; tests/vm/test_in_use.py has devices that the machine uses."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import pyuio
from pyuio.claim import binding, binding_record
from pyuio.kernel.drivers import bound_driver
from tests.guest.commands.in_process import command_here
from tests.guest.support import PATIENCE, PCI_SERIAL, Beside, Cards, attribute, pyuio_command


@pytest.fixture
def serial(cards: Cards) -> Iterator[str]:
    """The address of a serial port; the fixture gives it back to its kernel driver, whatever the test left."""
    (address,) = cards(PCI_SERIAL)
    yield address
    if bound_driver(address) != "serial":
        override = Path("/sys/bus/pci/devices", address, "driver_override")
        override.write_text("\n")
        if bound_driver(address) is not None:
            override.with_name("driver").joinpath("unbind").write_text(address)
        Path("/sys/bus/pci/drivers/serial/bind").write_text(address)
    binding_record.forget(address)


def record_of(address: str) -> Path:
    return binding_record.DIRECTORY / f"{address}.json"


def test_what_had_no_driver(edu: str) -> None:
    done = command_here("bind", edu)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{edu} is bound to uio_pci_generic as /dev/uio")
    assert "leaves it without a driver" in done.stdout
    assert bound_driver(edu) == "uio_pci_generic"
    again = command_here("bind", edu.removeprefix("0000:"))
    assert (again.returncode, "bound to uio_pci_generic already as /dev/uio" in again.stdout) == (0, True)
    node = again.stdout.split(" as ")[1].split(":")[0]
    done = command_here("unbind", node)
    assert done.stdout == f"{edu} is released from uio_pci_generic, and has no driver\n"
    assert (done.returncode, bound_driver(edu), attribute(edu, "driver_override")) == (0, None, "(null)")
    again = command_here("unbind", edu)
    assert (again.returncode, again.stdout) == (0, f"{edu} has no driver: nothing to undo\n")
    assert not record_of(edu).exists()


@pytest.mark.parametrize(
    "more", [[], pytest.param([["bind", "--whole-group"], ["bind", "--force"]], marks=pytest.mark.long)]
)
def test_vfio_without_an_iommu_is_refused_before_anything_changes(edu: str, more: list[list[str]]) -> None:
    if Path("/sys/bus/pci/devices", edu, "iommu_group").exists():
        pytest.skip("there is an IOMMU")
    for words in (["bind"], ["setup"], *more):
        done = command_here(*words, edu, "--driver", "vfio-pci")
        assert (done.returncode, done.stdout) == (1, "")
        assert f"{edu} has no IOMMU group" in done.stderr
        assert "intel_iommu=on" in done.stderr
    with pytest.raises(pyuio.KernelSupportError, match="has no IOMMU group"):
        pyuio.open(edu, bind="vfio-pci")
    assert (bound_driver(edu), attribute(edu, "driver_override")) == (None, "(null)")
    assert not record_of(edu).exists()
    assert not Path("/etc/udev/rules.d", f"70-pyuio-{edu}.rules").exists()
    assert "open binds uio_pci_generic: VFIO is out: no IOMMU has the device" in re.sub(
        " +", " ", command_here("info", edu).stdout
    )


def test_a_bridge_is_taken_by_nobody() -> None:
    bridge = next(str(one.address) for one in pyuio.devices() if one.class_code == 0x060400)
    driver = bound_driver(bridge)
    assert driver == "pcieport"
    done = command_here("bind", bridge)
    assert (done.returncode, "it is a bridge" in done.stderr) == (1, True)
    with pytest.raises(pyuio.DeviceBusyError, match="it is a bridge"):
        pyuio.open(bridge, bind=True)
    assert bound_driver(bridge) == driver


def test_what_had_a_driver(serial: str) -> None:
    done = command_here("bind", serial)
    assert (done.returncode, f"pyuio unbind {serial} gives it back to serial\n" in done.stdout) == (0, True)
    # Bound to another driver in between: the function goes back to the first.
    assert command_here("bind", serial, "--driver", "pci-stub").returncode == 0
    assert bound_driver(serial) == "pci-stub"
    done = command_here("unbind", serial)
    assert (done.returncode, done.stdout) == (
        0,
        f"{serial} is released from pci-stub, and has its kernel driver serial\n",
    )
    assert (bound_driver(serial), attribute(serial, "driver_override")) == ("serial", "(null)")


def test_what_was_released_by_hand_is_given_back(serial: str) -> None:
    assert command_here("bind", serial).returncode == 0
    Path("/sys/bus/pci/devices", serial, "driver/unbind").write_text(serial)
    done = command_here("unbind", serial)
    assert (done.returncode, done.stdout) == (0, f"{serial} has its kernel driver serial again\n")


def test_what_a_killed_driver_had_is_given_back(serial: str) -> None:
    def open_and_wait() -> None:
        opened = pyuio.open(serial, bind=True)
        print("open", flush=True)
        time.sleep(60)
        opened.close()

    with Beside(open_and_wait) as driver:
        assert driver.stdout.readline() == "open\n"
        refused = command_here("unbind", serial)
        assert refused.returncode == 1
        assert f"process {driver.pid} (python" in refused.stderr
        driver.send_signal(signal.SIGKILL)
        driver.wait(PATIENCE)
    assert bound_driver(serial) == "uio_pci_generic"
    assert command_here("unbind", serial).returncode == 0
    assert bound_driver(serial) == "serial"


def test_opening_what_is_bound_forgets_nothing(serial: str) -> None:
    assert command_here("bind", serial).returncode == 0
    before = record_of(serial).read_text()
    undo = binding.bind(serial, "pci-stub")
    assert json.loads(record_of(serial).read_text())["driver"] == "pci-stub"
    undo.undo()
    assert bound_driver(serial) == "uio_pci_generic"
    assert record_of(serial).read_text() == before
    assert command_here("unbind", serial).returncode == 0
    assert bound_driver(serial) == "serial"


@pytest.mark.parametrize(
    "spoil", [*(pytest.param(way, marks=pytest.mark.long) for way in ("boot", "text")), "writable"]
)
def test_a_record_that_is_not_to_be_believed(serial: str, spoil: str) -> None:
    assert command_here("bind", serial).returncode == 0
    path = record_of(serial)
    if spoil == "boot":
        path.write_text(json.dumps({**json.loads(path.read_text()), "boot_id": "another"}))
    elif spoil == "text":
        path.write_text("{")
    else:
        path.chmod(0o666)
    done = pyuio_command("unbind", serial)  # in a fork, what is logged goes to the standard error
    assert done.returncode == 0
    assert "what it had before is not known" in done.stdout
    assert (str(path) in done.stderr) == (spoil != "boot")
    assert bound_driver(serial) is None
    subprocess.run(["sh", "-c", done.stdout.split("choose: ")[1]], check=True)
    assert bound_driver(serial) == "serial"


def test_a_driver_that_is_not_there(serial: str) -> None:
    done = command_here("bind", serial, "--driver", "no_such_driver")
    assert done.returncode == 1
    assert "this kernel has no driver no_such_driver (modprobe: " in done.stderr
    assert "it is not among this kernel's modules" in done.stderr
    done = command_here("bind", serial, "--driver", "../../devices")
    assert (done.returncode, "cannot be a kernel driver's name" in done.stderr) == (2, True)
    assert bound_driver(serial) == "serial"


def test_a_driver_that_does_not_take_the_device(serial: str) -> None:
    done = command_here("bind", serial, "--driver", "shpchp", "--force")
    assert done.returncode == 1
    assert "no driver shpchp" in done.stderr or f"shpchp did not take {serial}" in done.stderr
    assert (bound_driver(serial), attribute(serial, "driver_override")) == ("serial", "(null)")
    assert not record_of(serial).exists()


@pytest.mark.long
def test_wrong_usage(edu: str) -> None:
    for command, words, status in (
        ("bind", [], 2),
        ("bind", ["/card"], 2),
        ("bind", ["card"], 1),
        ("unbind", ["dead:beef"], 1),
        ("bind", [edu, "--driver"], 2),
    ):
        done = command_here(command, *words)
        assert (done.returncode, "Traceback" in done.stderr) == (status, False), done.stderr


def test_verbose_shows_what_is_logged(edu: str) -> None:
    done = pyuio_command("-v", "bind", edu)
    try:
        assert f" pyuio.binding: {edu}: bound to uio_pci_generic, taken from no driver\n" in done.stderr
        assert done.stdout.startswith(f"{edu} is bound to uio_pci_generic as /dev/uio")
    finally:
        quiet = pyuio_command("unbind", edu)
    assert (quiet.returncode, quiet.stderr) == (0, "")


def test_open_names_the_command_that_would_bind(edu: str) -> None:
    with pytest.raises(pyuio.DriverNotBoundError) as caught:
        pyuio.open(edu)
    name, *words = str(caught.value).split("as root: ")[1].split()
    assert name == "pyuio"
    try:
        assert command_here(*words).returncode == 0
        with pyuio.open(edu) as device:
            assert device.uio.driver_name == "uio_pci_generic"
    finally:
        assert command_here("unbind", edu).returncode == 0
