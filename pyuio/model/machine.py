# SPDX-License-Identifier: MIT
"""The machine around a card in this process: its memory, its interrupts, and its end of the bus."""

from __future__ import annotations

import bisect
import ctypes
import itertools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pyuio._native._access import Window
from pyuio.dma.address_space import AddressSpace
from pyuio.dma.iommu_memory import IommuMemory, OwnMemory
from pyuio.model.clock import clock
from pyuio.model.host import MasterAbortError
from pyuio.pci.config_image import Command

if TYPE_CHECKING:
    from pyuio.dma.allocator import Dma
    from pyuio.model.card import Card

_log = logging.getLogger("pyuio.model")

_DOMAIN = 0xFFFF  # no machine has it: the address is nobody's
_slots = itertools.count(1)

_MESSAGES = 0xFEE0_0000  # where messages go on x86, and memory is not
# Where BARs begin: in ports, in memory with addresses of 32 bits, and of 64 bits.
_PORTS, _LOW, _HIGH = 0x1000, 0x8000_0000, 1 << 40
# Bus addresses begin neither at 0 nor at a round number, and are the same in each run.
_START = 0x345


class Mappings:
    """The memory that a card reaches, by bus address: a container like VFIO's, without an IOMMU."""

    ranges = ((0, _MESSAGES - 1), (_MESSAGES + 0x10_0000, (1 << 64) - 1))
    page_sizes = (4096,)

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._pieces: dict[int, memoryview] = {}

    def over_limit(self, size: int) -> None:
        """Return None: nothing is locked."""

    def map(self, memory: int, address: int, size: int) -> None:
        """Let the card read and write memory of this process, from `memory` on, at a bus address."""
        with clock.lock:
            bisect.insort(self._starts, address)
            self._pieces[address] = memoryview((ctypes.c_ubyte * size).from_address(memory)).cast("B")

    def unmap(self, address: int, size: int) -> None:
        """End what `map` did with the same bus address and size."""
        with clock.lock:
            self._starts.remove(address)
            del self._pieces[address]

    def find(self, address: int, size: int) -> memoryview:
        """Return the memory at a bus address. MasterAbortError: there is none."""
        at = bisect.bisect_right(self._starts, address) - 1
        if at >= 0:
            start = self._starts[at]
            piece = self._pieces[start][address - start : address - start + size]
            if len(piece) == size:
                return piece
        raise MasterAbortError("the driver has no memory for the card there")

    @property
    def empty(self) -> bool:
        """Whether the card reaches no memory."""
        return not self._starts

    def close(self) -> None:
        """Forget all."""
        self._starts.clear()
        self._pieces.clear()


class ModelWindow(Window):
    """The registers of a DMA buffer that a card in this process reaches: polling them lets its time pass."""

    clock = clock


class ModelPage(OwnMemory):
    """Memory for DMA of a card in this process."""

    window_class = ModelWindow


class Machine:
    """What a card in this process is plugged into: `pyuio.model.host.Host`.

    Args:
        card: a card that is plugged in nowhere yet.

    Attributes:
        address: the PCI address of the card.
        directory: what its directory in sysfs would be called.
        dma: the memory that its driver has, as long as the device is open.
        removed: whether the card was pulled out.
    """

    def __init__(self, card: Card) -> None:
        self.card = card
        bus, slot = divmod(next(_slots), 32)
        self.address = f"{_DOMAIN:04x}:{bus % 256:02x}:{slot:02x}.0"
        self.directory = Path("/sys/bus/pci/devices") / self.address
        self.dma: Dma | None = None
        self.is_open = False
        self.removed = False
        self.asserted = False
        self.mappings = Mappings()
        self.on_line: Callable[[], object] | None = None
        self.on_message: Callable[[int], object] | None = None
        self.on_removal: Callable[[], object] | None = None
        card.function.host = self
        self.configure()

    def configure(self) -> None:
        """Give the BARs addresses and switch them on, as firmware does."""
        function = self.card.function
        free = {_PORTS: _PORTS, _LOW: _LOW, _HIGH: _HIGH}
        for index, bar in sorted(function.bars.items(), key=lambda item: -item[1].size):
            where = _PORTS if bar.ports else _HIGH if bar.width == 64 else _LOW
            address = -(-free[where] // bar.size) * bar.size
            if where == _LOW and address + bar.size > _MESSAGES:
                raise ValueError(f"{self.card.name}: its BARs take more than a machine has below 4 GiB; use width=64")
            function.config_write(0x10 + 4 * index, bar.width // 8, address)
            free[where] = address + bar.size
        function.config_write(4, 2, function.command | Command.MEMORY_SPACE | Command.IO_SPACE)

    def source(self) -> IommuMemory:
        """Return the source of memory for DMA."""
        return ModelMemory(self.card.name, AddressSpace(self.mappings, _START))

    def now(self) -> float:
        """Return the virtual time in seconds."""
        return clock.monotonic()

    def after(self, seconds: float, call: Callable[[], object]) -> None:
        """Call `call` in `seconds` of virtual time. Its errors are logged if the device is closed by then."""

        def go() -> None:
            try:
                call()
            except Exception as error:
                if self.is_open:
                    raise
                _log.warning("%s, whose device is closed: %s", self.card.name, error)

        clock.after(seconds, go)

    def set_line(self, asserted: bool) -> None:
        """Assert the INTx line, or deassert it."""
        self.asserted = asserted
        if self.on_line is not None:
            self.on_line()

    @staticmethod
    def message(vector: int) -> tuple[int, int]:
        """Return address and data of the message that stands for a vector."""
        return _MESSAGES, vector

    def send_message(self, address: int, data: int) -> None:
        """Deliver a message, if somebody waits for messages at its address."""
        if address == _MESSAGES and self.on_message is not None:
            self.on_message(data)

    def _memory(self, address: int, length: int) -> memoryview:
        piece = self.mappings.find(address, length)
        if length and self.dma is not None and not self.dma.covers(address, length):
            raise MasterAbortError("this is not inside one buffer of the driver")
        return piece

    def read_memory(self, address: int, length: int) -> bytes:
        """Return bytes of a buffer of the driver. MasterAbortError: they are not inside one."""
        return bytes(self._memory(address, length))

    def write_memory(self, address: int, data: bytes) -> None:
        """Write bytes to a buffer of the driver. MasterAbortError: they are not inside one."""
        self._memory(address, len(data))[:] = data

    def remove(self) -> None:
        """Tell the driver that the card was pulled out."""
        self.removed = True
        if self.on_removal is not None:
            self.on_removal()
        clock.changed()


class ModelMemory(IommuMemory):
    """The memory for DMA of a card in this process."""

    own_memory = ModelPage
