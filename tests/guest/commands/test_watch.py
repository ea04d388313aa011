# SPDX-License-Identifier: MIT
"""``pyuio watch`` on an edu card: what the kernel counts, and the screen on a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import sys
import termios
import time
from pathlib import Path

import pytest
from pyuio_drivers.edu import Edu

import pyuio
from pyuio.inspect.health import health, interrupt_count
from pyuio.inspect.inspection import Inspection
from pyuio.kernel.drivers import UIO_PCI_GENERIC, bound_driver
from pyuio.kernel.irq import parse_line
from pyuio.pci.discovery import find
from tests.guest.support import PCI_SERIAL, Cards, keep_bound, pyuio_command, wait_until

LOOK = 120  # seconds until the screen shows something: Python alone takes 5 under emulation
SOURCE = 0x80


def test_interrupts_are_counted_and_none_is_taken_from_the_driver(edu: str) -> None:
    keep_bound(edu, UIO_PCI_GENERIC)
    with Inspection(find(edu)) as inspection, pyuio.open(edu) as device:
        card = Edu(device)
        before = health(find(edu), inspection)
        assert before.driver == UIO_PCI_GENERIC
        assert before.interrupts is not None
        assert before.interrupts.source == find(edu).uio
        for number in range(3):
            assert card.factorial_by_interrupt(number, timeout=10) >= 1
            after = interrupt_count(find(edu), UIO_PCI_GENERIC)
            assert after is not None
            assert after.since(before.interrupts) == number + 1
        assert device.irq is not None
        line = parse_line(Path("/proc/interrupts").read_text(), device.irq)
        assert line is not None
        assert line.count >= 3
        assert UIO_PCI_GENERIC in line.handlers


def test_a_card_without_a_driver_has_no_count(edu: str) -> None:
    assert bound_driver(edu) is None
    with Inspection(find(edu)) as inspection:
        found = health(find(edu), inspection)
    assert (found.driver, found.interrupts, found.link) == (None, None, None)


def test_the_line_of_a_kernel_driver_is_counted_while_it_has_a_handler(cards: Cards) -> None:
    (serial,) = cards(PCI_SERIAL)
    found = find(serial)
    (port,) = found.directory.glob("**/tty/ttyS*")  # directly below it, or in devices below it since Linux 6.8
    file = os.open(Path("/dev", port.name), os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        before = interrupt_count(found, "serial")
        assert before is not None
        assert re.match(r"interrupt [0-9]+", before.source)
        os.write(file, b"12345678")

        def came() -> bool:
            now = interrupt_count(found, "serial")
            return now is not None and (now.since(before) or 0) > 0

        wait_until(came)
    finally:
        os.close(file)


def test_it_needs_a_terminal(edu: str) -> None:
    done = pyuio_command("watch", edu)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("pyuio: pyuio watch needs a terminal")


class Terminal:
    """``pyuio watch`` on a terminal of 80 columns and 24 lines."""

    def __init__(self, *words: str) -> None:
        self.process, self.file = pty.fork()
        if self.process == 0:
            os.environ["TERM"] = "xterm-256color"
            os.execv(sys.executable, [sys.executable, "-m", "pyuio.cli", "watch", *words])
        fcntl.ioctl(self.file, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.written = ""

    def wait_for(self, text: str) -> None:
        """Wait until the command writes a text, after what was waited for before."""
        deadline = time.monotonic() + LOOK
        while text not in self.written:
            assert time.monotonic() < deadline, f"no {text!r} in {self.written!r}"
            if select.select([self.file], [], [], 1)[0]:
                self.written += os.read(self.file, 65536).decode(errors="replace")
        self.written = self.written.partition(text)[2]

    def type(self, keys: str) -> None:
        os.write(self.file, keys.encode())

    def status(self) -> int:
        """Read all that is still written, and return the exit status."""
        while True:
            try:
                self.written += os.read(self.file, 65536).decode(errors="replace")
            except OSError:  # the other side is closed
                break
        os.close(self.file)
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])


@pytest.mark.long
def test_the_screen_on_a_terminal(edu: str) -> None:
    keep_bound(edu, UIO_PCI_GENERIC)
    with Inspection(find(edu)) as inspection:
        bar = inspection.bar(0)
        bar.write64(SOURCE, 0)
        screen = Terminal(edu, "--interval", "2")
        screen.wait_for("bar0.dma_source")
        screen.type("\x1b[B" * 7)  # down
        screen.wait_for("bar0.dma_source at 0x80")
        screen.type("w")
        screen.wait_for("bar0.dma_source = ")
        screen.type("0x1234")
        screen.wait_for("0x1234")
        screen.type("\r")
        screen.wait_for("Write 0x0000000000001234 to bar0.dma_source?")
        assert bar.read64(SOURCE) == 0
        screen.type("y")
        # What is on the screen does not tell: the question, with the same number, may be drawn again.
        wait_until(lambda: bar.read64(SOURCE) == 0x1234)
        bar.write64(SOURCE, 0x777)
        screen.wait_for("0x0000000000000777")
    Path("/sys/bus/pci/devices", edu, "remove").write_text("1")
    try:
        screen.wait_for("Press a key to leave")
        screen.type("x")
        assert screen.status() == 1
        assert "pyuio: " in screen.written
    finally:
        Path("/sys/bus/pci/rescan").write_text("1")


@pytest.mark.long
def test_ctrl_c_leaves(edu: str) -> None:
    screen = Terminal(edu, "config")
    screen.wait_for("config.vendor_id")
    screen.type("\x03")
    assert screen.status() == 130
