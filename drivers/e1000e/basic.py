# SPDX-License-Identifier: MIT
"""The Intel 82574L at its simplest: a frame out, a frame in, by polling.

Read this file first, from top to bottom: it resets the card, reads its address, gives it two rings of descriptors, and
passes single frames to it and from it. `pyuio_drivers.e1000e` says what to read next. "Section" is one of the data
sheet 317694.

``with BasicE1000e.open() as nic: nic.send_frame(frame)``
"""

from __future__ import annotations

import errno
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar

from pyuio_drivers.e1000e import descriptors
from pyuio_drivers.e1000e.registers import ALL_ONES, E1000eRegisters

from pyuio import DescriptorRing, Device, DeviceRemovedError, DeviceTimeoutError, Driver

if TYPE_CHECKING:
    from typing_extensions import Buffer

ENTRIES = 512  # descriptors of a ring; a multiple of 8, because RDLEN and TDLEN are multiples of 128 bytes
BUFFER_SIZE = 2048  # bytes for each descriptor, RCTL.BSIZE
SHORTEST, LONGEST = 14, 1518  # bytes of a frame without its CRC: a header alone; with a VLAN tag
SHORTEST_TO_PAD = 17  # bytes of a frame that the card can pad to 64: TCTL.PSP, section 10.2.6.1
PAUSE = 20e-6  # seconds between looks at a descriptor


class BasicE1000e(Driver):
    """An Intel 82574L that sends and receives one frame at a time.

    One thread may use it at a time.

    Args:
        device: an open device.

    Attributes:
        registers: BAR 0 by name.
        mac: the card's own address, 6 bytes.
        transmit_ring, receive_ring: the rings of descriptors.
        transmit_memory, receive_memory: a buffer for each of their descriptors.

    Raises:
        DeviceRemovedError: the card does not answer.
        DeviceTimeoutError: the card did not finish its reset.
        DmaMemoryError: there is not enough memory.
        UnsupportedDeviceError: the device is of another kind.
    """

    ids = ("8086:10d3", "8086:10f6")
    register_maps: ClassVar = {0: E1000eRegisters}

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self.registers = E1000eRegisters(device.bar(0))
        self.reset()  # before there is memory for transfers, because a killed driver may have left some
        self.mac = self.read_mac()
        self.transmit_ring = descriptors.allocate_ring(device, ENTRIES, descriptors.TRANSMIT_FIELDS)
        self.receive_ring = descriptors.allocate_ring(device, ENTRIES, descriptors.RECEIVE_FIELDS)
        self.transmit_memory = device.dma.alloc(ENTRIES * BUFFER_SIZE)
        self.receive_memory = device.dma.alloc(ENTRIES * BUFFER_SIZE)
        self.start()

    # -- reset, and the end --

    def reset(self) -> None:
        """Reset the card (section 4.6). It is quiet until `start`, and what is in its rings is lost."""
        self.quiet()
        with self.registers.ctrl.change() as ctrl:
            ctrl.rst = True
        self.device.clock.sleep(2e-6)  # section 10.2.2.1: no access within 1 us
        try:
            self.registers.ctrl.poll(lambda ctrl: not ctrl.rst, 0.1)
        except DeviceTimeoutError:
            raise DeviceTimeoutError(
                errno.ETIMEDOUT, f"{self.device.name}: it did not end its reset in 0.1 s"
            ) from None
        self.registers.imc.write(ALL_ONES)  # section 4.6.1: again
        self.registers.ctrl.gio_master_disable = False

    def quiet(self) -> None:
        """Stop all interrupts, and all transfers (section 3.1.3.10)."""
        if self.registers.status.read() == ALL_ONES:
            reason = "its registers read as all ones: it was removed, lost power, or its memory decoding is off"
            raise DeviceRemovedError(errno.ENODEV, f"{self.device.name}: {reason}")
        self.registers.imc.write(ALL_ONES)
        self.registers.rctl.en = False
        self.registers.tctl.en = False
        self.registers.icr.write(ALL_ONES)
        self.registers.ctrl.gio_master_disable = True
        with suppress(DeviceTimeoutError):  # the section allows to go on after a while
            self.registers.status.poll(lambda status: not status.gio_master_enable, 0.1)

    def read_mac(self) -> bytes:
        """Return the address that the card has loaded from its EEPROM (section 10.2.5.23)."""
        address = self.registers.ra[0]
        return address.ral.read().to_bytes(4, "little") + address.rah.rah.to_bytes(2, "little")

    def start(self) -> None:
        """Let the card use the rings, and see the link (sections 4.6.3 to 4.6.6)."""
        self._start_receiving()
        self._start_transmitting()
        with self.registers.ctrl.change() as ctrl:
            ctrl.slu = True
            ctrl.frcspd = ctrl.frcdplx = False

    def _start_receiving(self) -> None:
        """Give the card the receive buffers, and enable it to receive (section 4.6.5)."""
        registers, ring = self.registers, self.receive_ring
        for index in range(ENTRIES):
            self._give_buffer(index)
        registers.mta.write(bytes(4 * len(registers.mta)))
        registers.rfctl.exsten = True
        registers.rdbal.write(ring.buffer.address & ALL_ONES)
        registers.rdbah.write(ring.buffer.address >> 32)
        registers.rdlen.write(ring.buffer.size)
        registers.rdh.write(0)
        registers.rdt.write(0)
        with registers.rctl.change(0) as rctl:
            rctl.en = rctl.bam = rctl.secrc = True
        self._received = 0  # the descriptor that the card fills next
        registers.rdt.write(ENTRIES - 1)  # the card has the descriptors before the tail: section 7.1.8

    def _give_buffer(self, index: int) -> None:
        """Fill in a receive descriptor, which is new or was written over by the card."""
        self.receive_ring.publish(index, address=self.receive_memory.address + index * BUFFER_SIZE, status=0)

    def _start_transmitting(self) -> None:
        """Enable the card to transmit, with the values of section 4.6.6."""
        registers, ring = self.registers, self.transmit_ring
        for index in range(ENTRIES):
            ring.publish(index, address=0, command=descriptors.TRANSMIT_DONE)  # for `send_frame`: there is room
        registers.tdbal.write(ring.buffer.address & ALL_ONES)
        registers.tdbah.write(ring.buffer.address >> 32)
        registers.tdlen.write(ring.buffer.size)
        registers.tdh.write(0)
        registers.tdt.write(0)
        with registers.tipg.change(0) as tipg:
            tipg.ipgt, tipg.ipgr1, tipg.ipgr2 = 8, 2, 10
        with registers.tctl.change(0) as tctl:
            tctl.en = tctl.psp = True
            tctl.ct, tctl.cold = 0x0F, 0x3F
        self._sent = 0  # the descriptor that the driver fills in next

    # -- frames --

    def send_frame(self, frame: Buffer, timeout: float = 1.0) -> None:
        """Send one frame, without its CRC, and wait until the card has fetched it.

        Args:
            frame: 14 to 1518 bytes. The card pads it to 60.
            timeout: seconds.

        Raises:
            DeviceTimeoutError: the card did not fetch it in time. It may do so later, unless 511 frames before this one
                wait already.
            DeviceRemovedError: the card is gone.
            ValueError: the frame is too short or too long.
        """
        octets = bytes(frame)
        if not SHORTEST <= len(octets) <= LONGEST:
            raise ValueError(f"a frame has {SHORTEST} to {LONGEST} bytes, not {len(octets)}")
        octets = octets.ljust(SHORTEST_TO_PAD, b"\0")
        begin, doing = self.device.clock.monotonic(), "sending a frame"
        index, after = self._sent, (self._sent + 1) % ENTRIES
        # After time-outs the ring may be full, and with one more it would look empty: section 7.2.4.
        self._wait_until_done(self.transmit_ring, after, descriptors.TRANSMIT_DONE, begin, timeout, doing)
        self._sent = after
        start = index * BUFFER_SIZE
        self.transmit_memory[start : start + len(octets)] = octets
        command = descriptors.EOP | descriptors.IFCS | descriptors.RS | len(octets)
        self.transmit_ring.publish(index, address=self.transmit_memory.address + start, command=command)
        self.registers.tdt.write(self._sent)
        self._wait_until_done(self.transmit_ring, index, descriptors.TRANSMIT_DONE, begin, timeout, doing)

    def receive_frame(self, timeout: float = 1.0) -> bytes:
        """Wait for a frame, and return it without its CRC.

        Args:
            timeout: seconds.

        Raises:
            DeviceTimeoutError: none came in time.
            DeviceRemovedError: the card is gone.
        """
        index, begin, doing = self._received, self.device.clock.monotonic(), "receiving a frame"
        status = self._wait_until_done(self.receive_ring, index, descriptors.DONE, begin, timeout, doing)
        start, size = index * BUFFER_SIZE, status >> descriptors.LENGTH_SHIFT & 0xFFFF
        frame = bytes(self.receive_memory[start : start + size])
        self._give_buffer(index)
        self.registers.rdt.write(index)
        self._received = (index + 1) % ENTRIES
        return frame

    def _wait_until_done(
        self, ring: DescriptorRing, index: int, done: int, begin: float, timeout: float, doing: str
    ) -> int:
        """Wait until the card has set a bit in a descriptor's second half, and return that half."""
        clock, deadline = self.device.clock, begin + timeout
        while not (word := ring.owner(index)) & done:
            if self.device.removed:
                raise DeviceRemovedError(errno.ENODEV, f"{self.device.name}: {doing}: the card was removed or unbound")
            if clock.monotonic() >= deadline:
                raise DeviceTimeoutError(errno.ETIMEDOUT, f"{self.device.name}: {doing}: {timeout:g} s are over")
            clock.sleep(PAUSE)
        return word
