# SPDX-License-Identifier: MIT
"""A card that captures without end into a cyclic buffer: which periods are ready, and was I late?

Sound cards, cameras and streaming FPGA cards work like this. The card here is a model in Python, in this process, so
its time is virtual: it captures a period each millisecond, and asks nobody whether there is room. Anywhere::

    $ pyuio vm run -- python examples/capture.py
    period 0, which begins with 0x00
    period 1, which begins with 0x01
    ... 2.5 ms pass
    period 2, which begins with 0x02
    period 3, which begins with 0x03
    ... 7.0 ms pass
    4 periods were lost
    period 8, which begins with 0x08
    period 9, which begins with 0x09
    period 10, which begins with 0x0a
"""

from __future__ import annotations

from typing import ClassVar

import pyuio
import pyuio.model

PERIODS, PERIOD_SIZE = 4, 1024


class Registers(pyuio.RegisterMap):
    """The card's registers."""

    address = pyuio.Register(0x00)
    run = pyuio.Register(0x04)
    position = pyuio.Register(0x08, access="ro")  # bytes from the start of the buffer
    acknowledge = pyuio.Register(0x0C, access="wo")


class CaptureCard(pyuio.model.Card):
    """It fills each period with its number, and interrupts."""

    vendor, device, bars = 0x1234, 0xCA97, {0: 0x1000}
    registers: ClassVar = {0: Registers}

    def reset(self) -> None:
        """Begin with the first period."""
        super().reset()
        self.count = 0

    def on_write_run(self, value: int) -> None:
        """Begin to capture."""
        self.after(1e-3, self.capture)

    def on_write_acknowledge(self, value: int) -> None:
        """Lower the interrupt."""
        self.lower_interrupt()

    def capture(self) -> None:
        """End a period."""
        at = self.count % PERIODS * PERIOD_SIZE
        self.memory.write(self.regs.address.read() + at, bytes([self.count % 256]) * PERIOD_SIZE)
        self.count += 1
        self.regs.position.write(self.count % PERIODS * PERIOD_SIZE)
        self.raise_interrupt()
        self.after(1e-3, self.capture)


def main() -> None:
    """Capture, and be late now and then."""
    with pyuio.model.open(CaptureCard()) as device:
        registers = Registers(device.bar(0))
        buffer = device.dma.alloc(PERIODS * PERIOD_SIZE)
        cyclic = pyuio.CyclicBuffer(
            buffer, periods=PERIODS, position=registers.position.read, period_time=1e-3, clock=device.clock
        )
        registers.address.write(buffer.address)
        registers.run.write(1)
        for pause in (0, 0, 2.5e-3, 7e-3):
            if pause:
                print(f"... {1e3 * pause} ms pass")
                device.clock.sleep(pause)
            count = device.interrupt.read(timeout=1)  # several that merged count as one
            registers.acknowledge.write(1)
            lost = cyclic.lost
            cyclic.update(count)
            if cyclic.lost > lost:
                print(f"{cyclic.lost - lost} periods were lost")
            for period in cyclic.ready():
                print(f"period {cyclic.handled}, which begins with {period[0]:#04x}")


if __name__ == "__main__":
    main()
