# SPDX-License-Identifier: MIT
"""A driver for ARM's real-time clock PL031, on a system on chip that gives it to user space by ``uio_pdrv_genirq``.

The data sheet is ARM DDI 0224, "ARM PrimeCell Real Time Clock (PL031) Technical Reference Manual"; a "section" named
below is in it. The clock counts seconds. docs/platform.md shows how a device tree gives it to this driver.
"""

from __future__ import annotations

from typing import ClassVar

from pyuio import Device, Driver, Field, Register, RegisterMap, UnsupportedDeviceError


class Control(Register):
    """Section 3.3.4, RTCCR."""

    enable = Field(0, doc="the clock runs; only a reset ends that")


class Alarm(Register):
    """One bit: the time is that of the match register."""

    alarm = Field(0)


class Pl031Registers(RegisterMap, width=32):
    """Section 3.2, "Summary of registers"."""

    data = Register(0x00, access="ro", doc="RTCDR, the time in seconds")
    match = Register(0x04, doc="RTCMR, the time of the alarm")
    load = Register(0x08, doc="RTCLR, a time to set the clock to")
    control = Control(0x0C)
    mask = Alarm(0x10, doc="RTCIMSC, whether the alarm interrupts")
    raw_status = Alarm(0x14, access="ro", doc="RTCRIS, whether the alarm has come")
    status = Alarm(0x18, access="ro", doc="RTCMIS, whether it interrupts")
    clear = Alarm(0x1C, access="wo", doc="RTCICR, acknowledges it")
    part_low = Register(0xFE0, access="ro", doc="RTCPERIPHID0, 0x31")
    part_high = Register(0xFE4, access="ro", doc="RTCPERIPHID1, 0x10: the lower half belongs to the part number")


class Pl031(Driver):
    """Driver of the clock, on an open device.

    Raises:
        UnsupportedDeviceError: the device is no PL031.
    """

    compatible = ("arm,pl031",)
    register_maps: ClassVar = {"map0": Pl031Registers}

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self.registers = Pl031Registers(device.map(0))
        """The registers by name."""
        part = (self.registers.part_high.read() & 0xF) << 8 | self.registers.part_low.read() & 0xFF
        if part != 0x031:
            raise UnsupportedDeviceError(f"{device.name} says that it is part {part:#05x}, not 0x031")
        self.quiet()

    @property
    def time(self) -> int:
        """The time in seconds since 1970, if whoever set the clock meant that."""
        return self.registers.data.read()

    def set_alarm(self, when: int) -> None:
        """Have the clock interrupt at a time, once.

        Args:
            when: seconds, 0 to 2^32 - 1.

        Raises:
            ValueError: it is out of range.
        """
        self.registers.match.write(when)
        self.acknowledge()  # an alarm that came meanwhile
        self.registers.mask.alarm = True

    def wait(self, timeout: float | None = None) -> int:
        """Sleep until the alarm comes; return the time then, in seconds.

        Args:
            timeout: seconds; None for no limit.

        Raises:
            TimeoutError: it did not come in time.
        """
        self.device.interrupt.read(timeout)
        self.registers.mask.alarm = False
        self.acknowledge()
        return self.time

    def acknowledge(self) -> None:
        """Take back the interrupt."""
        self.registers.clear.write(1)

    def quiet(self) -> None:
        """Leave the clock without an alarm; it goes on."""
        self.registers.mask.alarm = False
        self.acknowledge()
