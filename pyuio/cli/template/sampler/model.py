"""The card in Python, for the driver's tests."""

from __future__ import annotations

from typing import ClassVar

from pyuio.model import Card

from sampler.driver import FULL_SCALE, KIND
from sampler.registers import Identification, Registers

CONVERSION_TIME = 10e-6
"""Seconds that a conversion takes."""


class SamplerCard(Card):
    """A 12-bit analogue-to-digital converter.

    Attributes:
        input: volts at its input, 1 at first.
    """

    vendor, device, class_code = 0x1234, 0xADC0, 0x118000  # the class is "other signal processing controller"
    bars: ClassVar = {0: 4096}
    registers: ClassVar = {0: Registers}
    reset_values: ClassVar = {"identification": Identification.value(kind=KIND, version=1)}

    def __init__(self) -> None:
        super().__init__()
        self.input = 1.0

    def on_write_control(self, value: int) -> None:
        """Begin a conversion, if the driver wrote 1 to start."""
        if self.regs.control.start:
            self.after(CONVERSION_TIME, self.finish)
        self.drive_line()

    def finish(self) -> None:
        """End a conversion."""
        sample = round(self.input / FULL_SCALE * 4095)
        self.regs.sample.write(min(max(sample, 0), 4095))
        self.regs.control.start = False
        self.regs.status.done = True
        self.drive_line()

    def on_write_status(self, value: int) -> None:
        """Lower the interrupt if the driver cleared its cause. `access` in the register map cleared the bit."""
        self.drive_line()

    def drive_line(self) -> None:
        """Let the interrupt line say what the registers say."""
        if self.regs.status.done and self.regs.control.interrupt_enable:
            self.raise_interrupt()
        else:
            self.lower_interrupt()
