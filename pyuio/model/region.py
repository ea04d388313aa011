# SPDX-License-Identifier: MIT
"""A BAR of a card in this process: each access calls the card."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, NoReturn, SupportsIndex

from pyuio.errors import ClosedError
from pyuio.model.clock import clock
from pyuio.region.common import checked_endian
from pyuio.region.ports import PortRegion
from pyuio.region.tracing import Traced

if TYPE_CHECKING:
    from pyuio._native._access import Endian, Presence
    from pyuio.model.pci_function import PciFunction


class ModelRegion(PortRegion):
    """A BAR of a card in this process. It has the methods of `Region`, and no mapping.

    Args:
        function: the PCI side of the card.
        index: of the BAR.
        address: what the BAR's register holds.
        name: in error messages.
        endian: byte order of registers wider than a byte.
        width: bits of the widest access that the device takes.
        presence: of the device.
    """

    __slots__ = ("_answer", "_index", "_open", "_take", "_usual")
    clock = clock

    def __init__(
        self,
        function: PciFunction,
        index: int,
        *,
        address: int,
        name: str,
        endian: Endian,
        width: int,
        presence: Presence,
    ) -> None:
        self._index = index
        self._answer, self._take = function.handlers(index)
        self._open = True
        self._fd = None
        self._inherited = self._native = False
        self._lock = clock.lock
        self._path = self._name = name
        self._size = function.bars[index].size
        self._endian = checked_endian(endian)
        self._width = width
        self._address = address
        self._presence: Presence = presence
        # The offsets of accesses of so many bytes that need no further check.
        usual = endian == "little"
        self._usual = {
            size: range(self._size - size + 1 if usual and 8 * size <= width else 0) for size in (1, 2, 4, 8)
        }

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return not self._open

    def close(self) -> None:
        """Let accesses raise `ClosedError` from now on. A second close does nothing."""
        self._open = False
        self._usual = dict.fromkeys(self._usual, range(0))

    def reach(self, offset: int, stack: ExitStack) -> NoReturn:
        """Raise TypeError: native code cannot reach a card in Python."""
        raise TypeError(f"{self._name} is a card in Python, which native code cannot reach")

    def let_go(self) -> None:
        """Do nothing: there is no file."""

    def forget(self) -> None:
        """In a forked child: close it."""
        self.close()

    def __del__(self) -> None:
        """Do nothing: there is no file."""

    def _transfer(self, offset: int, width: int, data: bytes | None) -> bytes:
        with clock.lock:
            clock.access()
            if not self._open:
                raise ClosedError(f"{self._name} is closed")
            if self._presence.gone:
                self._presence.require()
            if data is not None:
                self._presence.note_write()
                self._take(self._index, offset, width, int.from_bytes(data, "little"))
                return data
            value = self._answer(self._index, offset, width)
            if value == (1 << 8 * width) - 1:
                self._presence.require()
            return value.to_bytes(width, "little")


def _reader(bits: int) -> Callable[..., int]:
    width, ones, low, general = bits // 8, (1 << bits) - 1, bits // 8 - 1, getattr(PortRegion, f"read{bits}")
    lock, access = clock.lock, clock.access

    def read(self: ModelRegion, offset: SupportsIndex, /, *, endian: Endian | None = None) -> int:
        # What drivers do most often takes this shorter way.
        if type(offset) is int and offset in self._usual[width] and not offset & low and endian is None:
            with lock:
                access()
                if self._presence.gone:
                    self._presence.require()
                value = self._answer(self._index, offset, width)
                if value == ones:
                    self._presence.require()
            return value
        whatever: int = general(self, offset, endian=endian)
        return whatever

    return read


def _writer(bits: int) -> Callable[..., None]:
    width, low, general = bits // 8, bits // 8 - 1, getattr(PortRegion, f"write{bits}")
    lock, access = clock.lock, clock.access

    def write(
        self: ModelRegion, offset: SupportsIndex, value: SupportsIndex, /, *, endian: Endian | None = None
    ) -> None:
        if (
            type(offset) is int
            and offset in self._usual[width]
            and not offset & low
            and endian is None
            and type(value) is int
            and not value >> bits
        ):
            with lock:
                access()
                if self._presence.gone:
                    self._presence.require()
                self._presence.note_write()
                self._take(self._index, offset, width, value)
            return
        general(self, offset, value, endian=endian)

    return write


for _bits in (8, 16, 32, 64):
    setattr(ModelRegion, f"read{_bits}", _reader(_bits))
    setattr(ModelRegion, f"write{_bits}", _writer(_bits))


class TracedModelRegion(Traced, ModelRegion):
    """A BAR of a card in this process whose accesses are logged; see `pyuio.region.tracing`."""
