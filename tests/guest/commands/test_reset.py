# SPDX-License-Identifier: MIT
"""``pyuio reset``, ``remove`` and ``rescan``, and `Device.reset`, on QEMU's cards behind bridges."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import pyuio
from pyuio.claim import binding_record
from pyuio.cli import reset as command
from pyuio.kernel.drivers import UIO_PCI_GENERIC, bound_driver, load_driver
from pyuio.kernel.sysfs import PCI_DEVICES
from pyuio.pci import reset
from pyuio.pci.config_image import Command
from tests.guest.commands.in_process import command_here
from tests.guest.support import (
    BUS_MASTER,
    INTERRUPT_DISABLE,
    PATIENCE,
    PCI_SERIAL,
    Cards,
    Later,
    attribute,
    command_register,
    keep_bound,
    pyuio_command,
    rebind,
    wait_until,
)

NETWORK = "8086:10d3"  # e1000e; 82574 GbE Controller Family Datasheet, section 10.2
CTRL, ICR, ICS, IMS, RDTR = 0x0000, 0x00C0, 0x00C8, 0x00D0, 0x2820
LINK_CHANGE = 1 << 2
NVME = "1b36:0010"
CARRIER = "1498:30c8"  # tpci200, two functions on one bus


def config_of(address: str) -> bytes:
    """Return the configuration space, read without pyuio, but for the status register and Interrupt Disable."""
    data = bytearray((PCI_DEVICES / address / "config").read_bytes())
    data[5] &= ~(INTERRUPT_DISABLE >> 8)
    data[6:8] = bytes(2)
    return bytes(data)


@pytest.fixture
def network(cards: Cards) -> str:
    """A card that is alone on its bus, and that no driver has."""
    address = next(one for one in cards(NETWORK) if reset.bridge_above(PCI_DEVICES / one))
    rebind(address, None)
    return address


@pytest.mark.parametrize("method", [None, pytest.param("pm", marks=pytest.mark.long), "bus"])
def test_a_device_stays_open(network: str, later: Later, method: str | None) -> None:
    """The registers are lost; the configuration space is as before, and whoever waits for an interrupt goes on."""
    keep_bound(network, UIO_PCI_GENERIC)
    with pyuio.open(network) as device:
        bar = device.bar(0)
        device.config.change_command(set=Command.BUS_MASTER)
        bar.write32(RDTR, 0x77)
        assert bar.read32(RDTR) == 0x77
        before, counts = config_of(network), []
        order = attribute(network, "reset_method")
        waiting = later(lambda: counts.append(device.interrupt.read(PATIENCE)))
        wait_until(lambda: not command_register(network) & INTERRUPT_DISABLE)
        device.reset(method)
        if method == "bus":  # QEMU's card keeps its registers in D3hot
            assert bar.read32(RDTR) == 0
        assert not command_register(network) & INTERRUPT_DISABLE, "still unmasked for the waiting thread"
        assert command_register(network) & BUS_MASTER
        assert not counts
        bar.write32(IMS, LINK_CHANGE)
        bar.write32(ICS, LINK_CHANGE)
        waiting.join(PATIENCE)
        assert counts == [1]
        bar.read32(ICR)  # acknowledges
        device.interrupt.mask()
        device.reset(method)
        assert device.interrupt.masked
        with pytest.raises(BlockingIOError):
            device.interrupt.read(0)
        device.interrupt.mask()
        assert config_of(network) == before
        assert attribute(network, "reset_method") == order
        with pytest.raises(pyuio.ResetUnavailableError, match=f"no reset by 'flr': it has {', '.join(order.split())}"):
            device.reset("flr")


def test_no_unmasking_is_lost_in_a_reset(network: str, later: Later) -> None:
    """The kernel puts the command register back as it was; a thread that unmasks meanwhile would wait for ever."""
    keep_bound(network, UIO_PCI_GENERIC)
    with pyuio.open(network) as device:
        bar = device.bar(0)
        counts: list[int] = []
        resetting = later(lambda: device.reset("bus"))
        time.sleep(0.01)  # the kernel takes more than a second to reset a bus
        waiting = later(lambda: counts.append(device.interrupt.read(PATIENCE)))
        resetting.join(PATIENCE)
        wait_until(lambda: not command_register(network) & INTERRUPT_DISABLE)
        bar.write32(IMS, LINK_CHANGE)
        bar.write32(ICS, LINK_CHANGE)
        waiting.join(PATIENCE)
        assert counts == [1]
        bar.read32(ICR)


def test_the_command(network: str) -> None:
    before = config_of(network)
    for words, how in (
        ((), "the first of pm, bus that works"),
        (("--method", "bus"), "bus"),
    ):
        done = command_here("reset", network, *words)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{network} is reset by {how}\n", "")
    assert config_of(network) == before


@pytest.mark.long
def test_what_the_command_refuses(network: str) -> None:
    done = command_here("reset", network, "--method", "flr")
    assert (done.returncode, "has no reset by 'flr': it has pm, bus" in done.stderr) == (1, True)
    done = command_here("reset", network, "--method", "../flr\n")
    assert (done.returncode, "has no reset by" in done.stderr) == (1, True)
    done = command_here("reset", network, "--method", "bus", "--whole-bus")
    assert done.returncode == 2


def test_nobody_opens_it_meanwhile(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_bound(network, UIO_PCI_GENERIC)
    by_the_kernel, done = reset.reset_function, []

    def resetting(directory: Path, method: str | None, name: str) -> str:
        with pytest.raises(pyuio.DeviceBusyError, match="is open already"):
            pyuio.open(network)
        done.append(method)
        return by_the_kernel(directory, method, name)

    monkeypatch.setattr(reset, "reset_function", resetting)
    command.reset(network, method="pm")
    assert done == ["pm"]
    pyuio.open(network).close()


def test_another_user_cannot_make_the_choice_wait(network: str, later: Later) -> None:
    """Whoever can read a file can lock it."""
    program = """
import fcntl, os, sys
os.setgid(65534), os.setuid(65534)
file = os.open(sys.argv[1], os.O_RDONLY)
fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
print("held", flush=True)
sys.stdin.read()
"""
    words = [sys.executable, "-S", "-c", program, str(PCI_DEVICES / network / "reset_method")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as attacker:
        assert attacker.stdin is not None
        assert attacker.stdout is not None
        assert attacker.stdout.readline() == "held\n"
        resetting = later(lambda: reset.reset_function(PCI_DEVICES / network, "pm", network))
        resetting.join(PATIENCE)
        assert not resetting.is_alive()
        attacker.stdin.close()


@pytest.mark.parametrize("command", ["reset", pytest.param("remove", marks=pytest.mark.long)])
def test_who_has_it_is_named(network: str, command: str) -> None:
    keep_bound(network, UIO_PCI_GENERIC)
    with pyuio.open(network) as device:
        device.bar(0).write32(RDTR, 0x77)
        done = pyuio_command(command, network)
        assert (done.returncode, done.stdout) == (1, "")
        assert f"process {os.getpid()} (" in done.stderr
        assert f"pyuio {command} {network} --force" in done.stderr
        assert device.bar(0).read32(RDTR) == 0x77


@pytest.mark.long
def test_force_resets_it_all_the_same(network: str) -> None:
    keep_bound(network, UIO_PCI_GENERIC)
    with pyuio.open(network) as device:
        bar = device.bar(0)
        bar.write32(RDTR, 0x77)
        done = pyuio_command("reset", network, "--force", "--method", "bus")
        assert (done.returncode, "taken all the same" in done.stderr) == (0, True)
        assert bar.read32(RDTR) == 0


@pytest.mark.long
def test_what_the_kernel_needs_is_not_reset(cards: Cards) -> None:
    (serial,) = cards(PCI_SERIAL)
    done = command_here("reset", serial)
    assert (done.returncode, "the kernel driver serial has it, and may not expect a reset" in done.stderr) == (1, True)
    bridge = next(str(one.address) for one in pyuio.devices() if one.class_code == 0x060400)
    for word in ("reset", "remove"):
        done = command_here(word, bridge)
        assert (done.returncode, "it is a bridge" in done.stderr) == (1, True)


def test_what_else_is_on_the_bus_is_named_and_protected(cards: Cards) -> None:
    one, two = cards(CARRIER)
    assert reset.neighbours(PCI_DEVICES / one) == [two]
    for address in (one, two):
        rebind(address, None)
        (PCI_DEVICES / address / "enable").write_text("1")
    places = {address: config_of(address) for address in (one, two)}
    done = pyuio_command("reset", one, "--method", "bus")
    assert done.returncode == 1
    assert f"a reset of its bus would also reset {two}" in done.stderr
    with pyuio.open(two, bind=UIO_PCI_GENERIC) as device:
        device.config.change_command(set=Command.BUS_MASTER)
        done = pyuio_command("reset", one, "--whole-bus", "--force")
        assert (done.returncode, done.stdout) == (1, "")
        assert f"{two} is in use:\n  process {os.getpid()} (" in done.stderr
    done = pyuio_command("reset", one, "--whole-bus")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{one} is reset by the bus, with {two}\n", "")
    assert {address: config_of(address) for address in (one, two)} == places


@pytest.mark.parametrize(
    "words", [(), *(pytest.param(words, marks=pytest.mark.long) for words in (("--method", "bus"), ("--whole-bus",)))]
)
def test_a_device_without_a_reset(edu: str, words: tuple[str, ...]) -> None:
    done = command_here("reset", edu, *words)
    assert (done.returncode, "root bus, which no bridge resets" in done.stderr) == (1, True)
    with pyuio.open(edu, bind=UIO_PCI_GENERIC) as device, pytest.raises(pyuio.ResetUnavailableError, match="root bus"):
        device.reset()


def test_a_device_that_is_removed_comes_back(network: str, cards: Cards) -> None:
    without = [one for one in cards(NETWORK) if bound_driver(one) is None]
    load_driver("e1000e")  # udev does it when the card comes back; the driver takes each card that has none
    for one in without:
        rebind(one, None)
    assert command_here("bind", network).returncode == 0
    assert bound_driver(network) == UIO_PCI_GENERIC
    done = command_here("remove", network)
    assert (done.returncode, done.stdout) == (0, f"{network} is removed; pyuio rescan finds it again\n")
    assert not (PCI_DEVICES / network).exists()
    assert not (binding_record.DIRECTORY / f"{network}.json").exists()
    done = command_here("rescan")
    assert (done.returncode, done.stdout.startswith(f"{network} {NETWORK} (driver: ")) == (0, True)
    rebind(network, None)


@pytest.mark.long
def test_nothing_to_remove_and_nothing_new() -> None:
    done = command_here("remove", "00:1e.7")
    assert (done.returncode, "there is no device" in done.stderr) == (1, True)
    assert command_here("rescan").stdout == "no new device\n"
