# SPDX-License-Identifier: MIT
"""The driver of the Intel 82574L: many frames at once, by polling or by interrupt.

Read `pyuio_drivers.e1000e.basic` first, which has the reset and the rings. "Section" is one of the data sheet 317694.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any, TypeVar

from pyuio_drivers.e1000e import eeprom
from pyuio_drivers.e1000e.basic import ENTRIES, LONGEST, BasicE1000e
from pyuio_drivers.e1000e.errors import E1000eError
from pyuio_drivers.e1000e.filters import Filters
from pyuio_drivers.e1000e.interrupts import Interrupts
from pyuio_drivers.e1000e.phy import Link, Phy
from pyuio_drivers.e1000e.receive import ReceiveCounts, Received, ReceiveQueue
from pyuio_drivers.e1000e.registers import ReceiveChecksumControl
from pyuio_drivers.e1000e.statistics import StatisticsCounter
from pyuio_drivers.e1000e.transmit import TransmitQueue

from pyuio import Device, DeviceRemovedError, DeviceTimeoutError

if TYPE_CHECKING:
    from pyuio_drivers.e1000e.offload import InsertChecksums
    from typing_extensions import Buffer

    from pyuio.interrupt.wait import HasFileno

_LONGEST_OF_ALL = 9018  # bytes of a frame without its CRC: section 10.2.5.1, RCTL.LPE
_ETHERTYPE_VLAN = 0x8100
_TAG = 4  # bytes of a VLAN tag
SPINS = 200  # looks at a descriptor without a pause
_PAUSE = 50e-6  # seconds between looks, when nothing has come for long
_IDLE_LOOKS = 1024  # looks in vain without waiting, until one asks whether the card is still there

_Frame = TypeVar("_Frame", memoryview, Received)


class E1000e(BasicE1000e):
    """An Intel 82574L that sends and receives many frames at once.

    One thread may send while another receives; more than one of a kind need a lock.

    Args:
        device: an open device.
        mac: an address of 6 bytes to use in place of the card's own. Then the EEPROM is not needed, and not read.
        by_interrupt: whether waits sleep until the card interrupts, instead of polling. Through VFIO, frames that were
            received, frames that were sent, and the link have a message of their own (MSI-X); elsewhere all share the
            interrupt line.
        longest: bytes of the longest frame without its CRC, 1518 to 9018; both sides of a cable must agree.
        vlan: whether the card handles VLAN tags (section 7.5): it takes them out of received frames, for
            `receive_described`, and inserts those that `send` is given.

    Attributes:
        filters: which frames are received.
        phy: the registers of the PHY.
        statistics: what the card counts.
        irqs: how it interrupts; None when it polls.

    Raises:
        EepromError: the EEPROM is damaged, or does not answer.
        ValueError: an argument is out of range.
    Other errors are those of `BasicE1000e`.
    """

    def __init__(
        self,
        device: Device,
        *,
        mac: bytes | None = None,
        by_interrupt: bool = False,
        longest: int = LONGEST,
        vlan: bool = False,
    ) -> None:
        if mac is not None and (len(mac) != 6 or mac[0] & 1):
            raise ValueError(f"a card's address has 6 bytes and is no multicast address, not {mac!r}")
        if not LONGEST <= longest <= _LONGEST_OF_ALL:
            raise ValueError(f"the longest frame has {LONGEST} to {_LONGEST_OF_ALL} bytes, not {longest}")
        # `read_mac` and `start` need these, which the base's constructor calls.
        self._given_mac = mac
        self._by_interrupt, self.longest, self._vlan = by_interrupt, longest, vlan
        self._queues: tuple[TransmitQueue, ReceiveQueue] | None = None
        self._idle = 0
        self.irqs: Interrupts | None = None
        super().__init__(device)

    def read_mac(self) -> bytes:
        """Return the address that the caller gave, or that of the EEPROM."""
        if self._given_mac is not None:
            return bytes(self._given_mac)
        return eeprom.mac(eeprom.read_checked(self.registers, self.device.name))

    def start(self) -> None:
        """Let the card use the rings, and apply all settings; `reset` comes before."""
        registers = self.registers
        if self._queues is None:
            self.filters, self.phy = Filters(registers), Phy(registers, self.device.name)
            self.statistics = StatisticsCounter(registers.statistics)
            self.irqs = Interrupts(self.device, registers) if self._by_interrupt else None
            self._queues = (
                TransmitQueue(self.transmit_ring, self.transmit_memory, registers.tdt.write, self._wait_for_room),
                ReceiveQueue(self.receive_ring, self.receive_memory, registers.rdt.write),
            )
            self._transmit, self._receive = self._queues
        self._transmit.restart()
        self._receive.restart()
        registers.vet.write(_ETHERTYPE_VLAN)
        registers.rxcsum.write(ReceiveChecksumControl.value(ipofld=True, tuofld=True))
        registers.ctrl.vme = self._vlan
        super().start()
        registers.rctl.lpe = self.longest > LONGEST
        self.filters.restore(self.mac)
        if self.irqs:
            self.irqs.start()

    # -- sending --

    def send(
        self,
        frames: Sequence[Buffer],
        *,
        checksums: InsertChecksums | None = None,
        vlan: int | None = None,
        timeout: float = 1.0,
    ) -> None:
        """Give frames to the card, without their CRC. It sends them in this order; `flush` waits until it has.

        The frames are copied. If there is no room for them, this waits until the card has fetched others.

        Args:
            frames: of 14 to `longest` bytes. The card pads short ones to 60.
            checksums: which checksums the card inserts into all of them.
            vlan: a VLAN tag that the card inserts: 0 to 65535, the VLAN's number in the lower 12 bits. The card must
                have been opened with ``vlan=True``. The tag makes the frames 4 bytes longer, so they have up to
                `longest` - 4.
            timeout: seconds for each half of the ring: 256 frames, or fewer if some have more than 2048 bytes, as such
                a frame takes the place of 2 to 5.

        Raises:
            DeviceTimeoutError: the card did not fetch frames in time. The frames of earlier halves were given to it.
            DeviceRemovedError: the card is gone.
            ValueError: a frame is too short or too long, and its half of the ring was not sent; or no such tag; or the
                offsets of `checksums` are wrong.
            ClosedError: the card is closed.
        """
        longest = self.longest
        if vlan is not None:
            self._check_tag(vlan)
            longest -= _TAG
        if self.device.closed:
            raise self.device.closed_error(self.device.name)
        self._transmit.send(frames, longest, timeout, checksums, vlan)

    def _check_tag(self, vlan: int) -> None:
        if not self._vlan:
            raise ValueError(f"{self.device.name} inserts no VLAN tags (CTRL.VME): open it with vlan=True")
        if not 0 <= vlan < 1 << 16:
            raise ValueError(f"a VLAN tag is 0 to 65535, not {vlan}")

    def send_frame(self, frame: Buffer, timeout: float = 1.0) -> None:
        """Send one frame, and wait until the card has fetched it. Errors are those of `send`."""
        clock = self.device.clock
        deadline = clock.monotonic() + timeout
        self.send([frame], timeout=timeout)
        self.flush(max(0.0, deadline - clock.monotonic()))

    def flush(self, timeout: float = 1.0) -> None:
        """Wait until the card has fetched all frames. Errors are those of `send`."""
        if self.device.closed:
            raise self.device.closed_error(self.device.name)
        self._transmit.flush(timeout)

    def _wait_for_room(self, condition: Callable[[], bool], timeout: float) -> None:
        wait = self.irqs.wait_for_room if self.irqs else self._poll
        if not wait(condition, timeout):
            self._require_present("sending")
            link = "" if self.link().up else "; the link is down"
            raise DeviceTimeoutError(errno.ETIMEDOUT, f"{self.device.name}: sending: {timeout:g} s are over{link}")

    # -- receiving --

    def receive(self, most: int = 64, timeout: float | None = 1.0) -> list[memoryview]:
        """Return frames that have come, without their CRC, waiting for one if there is none.

        Frames that are damaged, or have a wrong IP, TCP or UDP checksum, are counted in `receive_counts`, and not
        returned.

        Args:
            most: how many at most, at least 1.
            timeout: seconds to wait; None waits for ever, 0 does not wait.

        Returns:
            Views of the card's own memory, or [] if none came in time. The next call gives that memory back to the
            card, so copy what you want to keep. A frame of more than 2048 bytes is a copy.

        Raises:
            DeviceRemovedError: the card is gone.
            ClosedError: the card is closed, maybe by another thread while this waits.
            ValueError: `most` is below 1.
        """
        return self._receive_by(self._receive.take, most, timeout)

    def receive_described(self, most: int = 64, timeout: float | None = 1.0) -> list[Received]:
        """Return frames as `receive` does, with what the card found out about each, whatever their checksums."""
        return self._receive_by(self._receive.take_described, most, timeout)

    def _receive_by(self, take: Callable[[int], list[_Frame]], most: int, timeout: float | None) -> list[_Frame]:
        if self.device.closed:
            raise self.device.closed_error(self.device.name)
        if most < 1:
            raise ValueError(f"receive takes at least 1 frame, not {most}")
        if frames := take(most):
            return frames
        clock, left, late = self.device.clock, timeout, 0
        deadline = None if timeout is None else clock.monotonic() + timeout
        wait = self.irqs.wait_for_frames if self.irqs else self._poll
        # What the ring holds when the time is over is in time; those that come after it may come without end.
        while late < ENTRIES and (self._receive.has_frames() or (left != 0 and wait(self._receive.has_frames, left))):
            if frames := take(most):
                return frames
            if deadline is not None:  # they were damaged, or the beginning of a long one
                left = max(0.0, deadline - clock.monotonic())
                late += left == 0
        self._idle += 1
        if timeout or self._idle % _IDLE_LOOKS == 0:
            self._require_present("receiving")
        return []

    def receive_frame(self, timeout: float = 1.0) -> bytes:
        """Wait for a frame, and return it. DeviceTimeoutError: none came in time. Other errors: those of `receive`."""
        frames = self.receive(1, timeout)
        if not frames:
            raise DeviceTimeoutError(errno.ETIMEDOUT, f"{self.device.name}: receiving a frame: {timeout:g} s are over")
        return bytes(frames[0])

    def wait(self, objects: Iterable[int | HasFileno] = (), timeout: float | None = None) -> list[Any]:
        """Sleep until frames have come, or one of several things can be read, as `pyuio.wait` does.

        It may also return for no reason, so call `receive` with a timeout of 0 afterwards.

        Args:
            objects: sockets, files, anything with a ``fileno()``, and file descriptors.
            timeout: seconds; None waits for ever.

        Returns:
            Those of `objects` that are ready.

        Raises:
            E1000eError: the card was not opened `by_interrupt`.
        Other errors are those of `pyuio.wait`.
        """
        return self._required_irqs().wait_for_frames_or(objects, self._receive.has_frames, timeout)

    def _required_irqs(self) -> Interrupts:
        if self.irqs is None:
            raise E1000eError(
                f"{self.device.name}: it polls, and this needs interrupts: open it with by_interrupt=True"
            )
        return self.irqs

    async def receive_async(self, most: int = 64, timeout: float | None = None) -> list[memoryview]:
        """Do what `receive` does, while other asyncio tasks run. The card must have been opened `by_interrupt`.

        E1000eError: it polls.
        """
        irqs, clock, left = self._required_irqs(), self.device.clock, timeout
        deadline = None if timeout is None else clock.monotonic() + timeout
        while not (frames := self.receive(most, 0)):
            if not await irqs.wait_for_frames_async(self._receive.has_frames, left):
                return []
            if left == 0:
                return self.receive(most, 0)
            if deadline is not None:  # what came was damaged, or the beginning of a long one
                left = max(0.0, deadline - clock.monotonic())
        return frames

    @property
    def receive_counts(self) -> ReceiveCounts:
        """What `receive` did not return."""
        return self._receive.counts

    def _poll(self, condition: Callable[[], bool], timeout: float | None) -> bool:
        """Look until a condition holds, or the time is over; return whether it holds."""
        for _ in repeat(None, SPINS):
            if condition():
                return True
        clock = self.device.clock
        deadline = None if timeout is None else clock.monotonic() + timeout
        while not condition():
            if deadline is not None and clock.monotonic() >= deadline:
                return False
            self._require_present("waiting for the card")
            clock.sleep(_PAUSE)
        return True

    def _require_present(self, doing: str) -> None:
        if self.device.closed:  # by another thread
            raise self.device.closed_error(self.device.name)
        if self.device.removed:
            raise DeviceRemovedError(errno.ENODEV, f"{self.device.name}: {doing}: the card was removed or unbound")

    # -- the link --

    def link(self) -> Link:
        """Return what the link is like now."""
        return Link.of(self.registers.status.snapshot())

    def wait_for_link(self, timeout: float | None = 5.0, *, up: bool = True) -> bool:
        """Wait until the link is up, or down; return whether it is. DeviceRemovedError: the card is gone."""

        def holds() -> bool:
            return self.link().up == up

        return (self.irqs.wait_for_link if self.irqs else self._poll)(holds, timeout)
