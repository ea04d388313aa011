# SPDX-License-Identifier: MIT
from __future__ import annotations

import ctypes
import gc
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from pyuio_drivers.edu import Edu
from pyuio_drivers.serial16550 import Serial16550

import pyuio
from pyuio import device as device_module
from pyuio.claim import binding, in_use
from pyuio.kernel.drivers import bound_driver, load_driver
from tests.guest.support import EDU, PCI_SERIAL, Cards, attribute, forked, signals_come

CLONE_NEWNS = 0x20000  # include/uapi/linux/sched.h


@pytest.fixture
def bound(edu: str) -> Iterator[str]:
    """An edu card that uio_pci_generic has already."""
    done = binding.bind(edu)
    yield edu
    done.undo()


def test_takes_every_form_of_name(bound: str) -> None:
    entry = next(device for device in pyuio.devices() if device.address == bound)
    assert entry.uio is not None
    names: list[str | Path | pyuio.FoundDevice] = [
        bound,
        bound.upper(),
        bound.removeprefix("0000:"),
        entry,
        entry.uio,
        f"/dev/{entry.uio}",
        Path("/dev", entry.uio),
    ]
    for name in names:
        with pyuio.open(name) as device:
            assert device.address == bound
            assert device.ids == EDU
            assert device.uio.name == entry.uio


def test_takes_an_id_pair_that_one_card_has(cards: Cards) -> None:
    (address,) = cards(PCI_SERIAL)
    with pyuio.open(PCI_SERIAL.upper(), bind=True) as device:
        assert device.address == address


def test_a_driver_takes_a_card_from_the_kernels_only_when_told_to(cards: Cards) -> None:
    (address,) = cards(PCI_SERIAL)
    before = bound_driver(address)
    assert before == "serial"
    with pytest.raises(pyuio.DeviceBusyError, match="held by the kernel driver serial"):
        Serial16550.open(address)
    with Serial16550.open(address, bind=True) as port:
        assert port.device.driver != before
    assert bound_driver(address) == before


def test_lists_what_there_is_when_nothing_matches(edu: str) -> None:
    for name in ("dead:beef", "0000:1f:1f.7", "uio99", "/dev/uio99"):
        with pytest.raises(pyuio.DeviceNotFoundError, match=rf"{name}.*\n(.*\n)*.*{edu} {EDU}") as caught:
            pyuio.open(name)
        assert isinstance(caught.value, LookupError)


def test_lists_the_candidates_when_several_match(cards: Cards) -> None:
    if len(cards(EDU)) < 2:
        pytest.skip("one edu card only")
    for open_any in (lambda: pyuio.open(EDU, bind=True), Edu.open):
        with pytest.raises(pyuio.AmbiguousDeviceError) as caught:
            open_any()
        assert all(address in str(caught.value) for address in cards(EDU))


def test_never_takes_a_held_device_silently(cards: Cards) -> None:
    (address,) = cards(PCI_SERIAL)
    advice = rf"pyuio\.open\('{address}', bind=True\), or as root: pyuio bind {address}$"
    for open_it in (pyuio.open, Serial16550.open):
        with pytest.raises(pyuio.DeviceBusyError, match=f"held by the kernel driver serial; .*{advice}"):
            open_it(address)
    assert bound_driver(address) == "serial"


def test_gives_back_to_the_driver_it_had(cards: Cards) -> None:
    (address,) = cards(PCI_SERIAL)
    with pyuio.open(address, bind=True):
        assert bound_driver(address) == "uio_pci_generic"
    assert bound_driver(address) == "serial"
    assert attribute(address, "driver_override") == "(null)"


def test_leaves_unbound_what_was_unbound(edu: str) -> None:
    with pyuio.open(edu, bind=True):
        pass
    assert bound_driver(edu) is None
    assert attribute(edu, "driver_override") == "(null)"


def test_leaves_bound_what_was_bound(bound: str) -> None:
    with pyuio.open(bound, bind=True):
        pass
    assert bound_driver(bound) == "uio_pci_generic"


def test_gives_back_when_opening_fails_half_way(cards: Cards, monkeypatch: pytest.MonkeyPatch) -> None:
    (address,) = cards(PCI_SERIAL)

    def fail(node: object) -> int:
        raise pyuio.DeviceRemovedError(19, "no node")

    monkeypatch.setattr("pyuio.kernel.uio.UioNode.open", fail)
    with pytest.raises(pyuio.DeviceRemovedError):
        pyuio.open(address, bind=True)
    assert bound_driver(address) == "serial"


def test_a_driver_that_does_not_take_the_device(edu: str) -> None:
    with pytest.raises(pyuio.BindingError, match=f"serial did not take {edu}"):
        binding.bind(edu, "serial")
    assert attribute(edu, "driver_override") == "(null)"


def test_a_second_opener_in_this_process_is_refused(device: pyuio.Device) -> None:
    with pytest.raises(pyuio.DeviceBusyError, match="is open already"):
        pyuio.open(str(device.address))
    device.close()
    pyuio.open(str(device.address), bind=True).close()


def test_a_second_opener_in_another_process_is_refused(bound: str) -> None:
    told, tell = os.pipe()
    holder = os.fork()
    if holder == 0:
        try:
            device = pyuio.open(bound)
            os.write(tell, device.name.encode())
            signal.pause()
        finally:
            os._exit(1)
    os.close(tell)
    with os.fdopen(told, "rb", buffering=0) as file:
        assert file.read(100).decode() == bound
        with pytest.raises(pyuio.DeviceBusyError, match="is open already"):
            pyuio.open(bound)
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
    pyuio.open(bound).close()


def refusal(which: str, *, bind: bool) -> str:
    """Return what opening raises in a child process of an ordinary user."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        try:
            pyuio.open(which, bind=bind)
        except PermissionError as error:
            os.write(writer, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        text = file.read()
    os.waitpid(child, 0)
    return text


def test_an_ordinary_user_is_told_what_is_refused(bound: str) -> None:
    assert re.match(
        r"PermissionDeniedError: .*opening /dev/uio\d+: Permission denied; .*root", refusal(bound, bind=False)
    )


def test_an_ordinary_user_cannot_bind(edu: str) -> None:
    load_driver("uio_pci_generic")
    assert re.match(rf"PermissionDeniedError: .*{edu}/driver_override.*; .*root", refusal(edu, bind=True))


def test_a_kernel_without_uio(edu: str) -> None:
    """Hide and unload the modules, so that this kernel has no uio_pci_generic."""
    subprocess.run(["modprobe", "-r", "uio_pci_generic"], check=True)

    def program() -> None:
        assert ctypes.CDLL(None).unshare(CLONE_NEWNS) == 0
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "none", f"/lib/modules/{os.uname().release}"], check=True)
        try:
            pyuio.open(edu, bind=True)
        except pyuio.KernelSupportError as error:
            print(isinstance(error, OSError), error)

    done = forked(program)
    assert re.match(r"True .*this kernel has no driver uio_pci_generic", done.stdout), done.stderr
    assert "CONFIG_UIO_PCI_GENERIC" in done.stdout
    pyuio.open(edu, bind=True).close()


def test_close_twice_and_in_any_order(edu: str) -> None:
    device = pyuio.open(edu, bind=True)
    config, interrupt, bar = device.config, device.interrupt, device.bar(0)
    device.close()
    device.close()
    uses = (
        lambda: bar.read32(0),
        lambda: interrupt.read(0),
        lambda: interrupt.fileno(),
        lambda: interrupt.mask(),
        lambda: interrupt.masked,
        lambda: interrupt.pending,
        lambda: config.read32(0),
        lambda: config.bars(),
        lambda: device.config,
        lambda: device.interrupt,
        lambda: device.bar(0),
    )
    for use in uses:
        with pytest.raises(pyuio.ClosedError):
            use()
    for part in (bar, interrupt, config):
        part.close()


def test_parts_closed_before_the_device(edu: str) -> None:
    device = pyuio.open(edu, bind=True)
    interrupt = device.interrupt
    device.bar(0).close()
    assert device.bar(0).read32(0) & 0xFF == 0xED
    device.config.close()
    interrupt.unmask()
    interrupt.close()
    device.close()
    assert bound_driver(edu) is None


def test_a_guest_without_the_card(cards: Cards) -> None:
    gone = cards(EDU)
    for address in gone:
        Path("/sys/bus/pci/devices", address, "remove").write_text("1")
    try:
        with pytest.raises(pyuio.DeviceNotFoundError, match=r"there is no Edu card \(1234:11e8\)"):
            Edu.open()
        with pytest.raises(pyuio.DeviceNotFoundError, match=f"there is no device {EDU}"):
            pyuio.open(EDU, bind=True)
        with pytest.raises(pyuio.DeviceNotFoundError):
            pyuio.open(gone[0], bind=True)
    finally:
        Path("/sys/bus/pci/rescan").write_text("1")


def test_the_wrong_card_for_a_driver(cards: Cards) -> None:
    (address,) = cards(PCI_SERIAL)
    with pytest.raises(ValueError, match=f"Edu serves 1234:11e8; {address} is {PCI_SERIAL}"):
        Edu.open(address)


def test_a_device_that_was_forgotten_is_closed(edu: str) -> None:
    forgotten = [pyuio.open(edu, bind=True)]

    def forget() -> None:
        forgotten.clear()
        gc.collect()

    with pytest.warns(ResourceWarning, match=f"{edu}.* was not closed"):
        forget()
    assert bound_driver(edu) is None
    pyuio.open(edu, bind=True).close()


def test_a_forked_child_that_ends_leaves_the_device_alone(device: pyuio.Device) -> None:
    card = Edu(device)
    with pytest.raises(BlockingIOError):
        device.interrupt.read(0)
    child = os.fork()
    if child == 0:
        try:
            device.close()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert bound_driver(str(device.address)) == "uio_pci_generic"
    with pytest.raises(pyuio.DeviceBusyError):
        pyuio.open(str(device.address))
    card.raise_interrupt()
    assert device.interrupt.read(5) == 1
    card.acknowledge()


def test_a_closed_device_is_not_entered(edu: str) -> None:
    device = pyuio.open(edu, bind=True)
    interrupt = device.interrupt
    device.close()
    for closed in (device, interrupt):
        with pytest.raises(pyuio.ClosedError), closed:
            pass


def open_and_close(address: str) -> None:
    device = pyuio.open(address, bind=True)
    try:
        device.bar(0)
    finally:
        device.close()


def trace_lines(at_line: Callable[[], None], address: str) -> None:
    """Open and close, calling `at_line` before each line of the modules that change what is bound."""
    files = {binding.__file__, device_module.__file__}

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        if event == "line" and signals_come(frame):
            at_line()
        # Python prints what __del__ raises, and the program never sees it.
        return trace if frame.f_code.co_filename in files and frame.f_code.co_name != "__del__" else None

    sys.settrace(trace)
    try:
        open_and_close(address)
    finally:
        sys.settrace(None)


# If `close` is interrupted before it does anything, the device is closed when Python collects it.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("step", [40, pytest.param(1, marks=pytest.mark.long)])
def test_ctrl_c_never_leaves_the_card_taken(cards: Cards, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Interrupted before any line (the short run: one in forty), opening and closing give the former driver back."""
    # The check of who uses the card takes longer than all the rest, and changes nothing.
    monkeypatch.setattr(in_use, "uses", lambda _address: [])
    (address,) = cards(PCI_SERIAL)
    lines = left = 0

    def count() -> None:
        nonlocal lines
        lines += 1

    def interrupt() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            signal.raise_signal(signal.SIGINT)

    trace_lines(count, address)
    assert lines > 50
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        for line in range(random.randint(1, step), lines + 1, step):
            left = line
            with pytest.raises(KeyboardInterrupt):
                trace_lines(interrupt, address)
            gc.collect()
            assert bound_driver(address) == "serial", f"interrupted before line {line} of {lines}"
            assert attribute(address, "driver_override") == "(null)", f"interrupted before line {line} of {lines}"
    finally:
        signal.signal(signal.SIGINT, before)
