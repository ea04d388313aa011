"""The driver."""

from __future__ import annotations

from typing import ClassVar

from pyuio import Device, DeviceTimeoutError, Driver, UnsupportedDeviceError

from sampler.registers import Control, Registers, Status

KIND = 0xADC0
FULL_SCALE = 4.095
"""Volts that the largest sample, 4095, stands for."""


class Sampler(Driver):
    """A 12-bit analogue-to-digital converter.

    Raises:
        UnsupportedDeviceError: the device is another card.
    """

    ids = ("1234:adc0",)  # those of your card: lspci -n shows them
    register_maps: ClassVar = {0: Registers}  # pyuio read 1234:adc0 bar0.sample

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self.registers = Registers(device.bar(0))
        if self.registers.identification.kind != KIND:
            found = self.registers.identification.snapshot()
            raise UnsupportedDeviceError(f"{device.name} is another card: {found}")
        self.quiet()  # the driver before this one may have been killed

    def sample(self, timeout: float = 0.1) -> int:
        """Convert once, and return the sample, 0 to 4095. The thread sleeps until the card's interrupt.

        Args:
            timeout: in seconds.

        Raises:
            DeviceTimeoutError: the conversion was not done in time.
        """
        clock = self.device.clock  # of the machine; on a model, virtual time
        deadline = clock.monotonic() + timeout
        self.registers.status.write(Status.value(done=True))  # forget an earlier conversion that nobody waited for
        self.registers.control.write(Control.value(start=True, interrupt_enable=True))
        while not self.registers.status.done:
            left = deadline - clock.monotonic()
            if left <= 0:  # also where interrupts keep coming
                raise DeviceTimeoutError(f"{self.device.name}: no sample in {timeout:g} s")
            self.device.interrupt.read(left)
        self.registers.status.write(Status.value(done=True))  # ends the interrupt; else it would come again
        return self.registers.sample.read()

    def volts(self, timeout: float = 0.1) -> float:
        """Convert once, and return the voltage, 0 to `FULL_SCALE`. The errors are those of `sample`."""
        return self.sample(timeout) * FULL_SCALE / 4095

    def quiet(self) -> None:
        """Leave the card without an interrupt. `close` calls this."""
        self.registers.control.write(Control.value(interrupt_enable=False))
        self.registers.status.write(Status.value(done=True))
