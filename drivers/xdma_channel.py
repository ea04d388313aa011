# SPDX-License-Identifier: MIT
"""The channels of an XDMA engine: H2C writes to the card, C2H reads from it.

A channel is memory mapped (AXI-MM), where data has an address on the card, or a stream (AXI-ST), where it comes and
goes in packets. The bitstream decides that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar, overload

from pyuio_drivers.xdma_engine import Engine, Piece, Steps
from pyuio_drivers.xdma_errors import AlignmentError, ChannelError, ChannelNotFoundError, ChannelTimeoutError, XdmaError
from pyuio_drivers.xdma_registers import LARGEST_LENGTH, PAGE, STREAM_END_OF_PACKET, STREAM_MAGIC

from pyuio import DmaBuffer, ScatterBuffer

if TYPE_CHECKING:
    from typing_extensions import Buffer

_STAGING = 1 << 20  # bytes of other memory that are copied at once
_LARGEST_PIECE = LARGEST_LENGTH + 1 - PAGE  # bytes of a descriptor, so that the next begins as aligned as the first


class Received(NamedTuple):
    """What came from a stream.

    Attributes:
        data: the bytes.
        end_of_packet: whether the packet ends with them; otherwise the next `receive` has more of it.
    """

    data: bytes
    end_of_packet: bool


class Channel:
    """One channel. One thread or task may use it at a time; other channels work meanwhile.

    Args:
        engine: its engine.
        timeout: seconds for each call that does not say it, above 0.

    Attributes:
        name: "H2C 0", "C2H 1" and so on, after the device's name.
        is_stream: whether it is an AXI4-Stream; else it is memory mapped.
        alignment: what an address in memory and one on the card are a multiple of, in bytes.
        granularity: what the size of a transfer is a multiple of, in bytes.
    """

    def __init__(self, engine: Engine, timeout: float) -> None:
        alignments = engine.registers.alignments.snapshot()
        self.name = engine.name
        self.is_stream = engine.is_stream
        self.alignment = max(1, alignments.addr_alignment)
        self.granularity = max(1, alignments.len_granularity)
        self._engine = engine
        self._timeout = timeout
        self._staging: DmaBuffer | None = None

    def _deadline(self, timeout: float | None) -> float:
        return self._engine.deadline(self._timeout if timeout is None else timeout)

    def _require(self, *, stream: bool) -> None:
        if self.is_stream and not stream:
            raise XdmaError(f"{self.name} is a stream, without addresses: use send() and receive()")
        if stream and not self.is_stream:
            raise XdmaError(f"{self.name} is memory mapped, and no stream: use write() and read()")

    def _stage(self, size: int) -> DmaBuffer:
        """Return memory of the channel's own for `size` bytes, or for what is copied at once of them."""
        size = -(-min(size, _STAGING) // PAGE) * PAGE
        if self._staging is None or self._staging.closed or self._staging.size < size:
            new = self._engine.device.dma.alloc(size)
            if self._staging is not None:
                self._staging.close()
            self._staging = new
        return self._staging

    def _pieces(self, buffer: DmaBuffer, card_address: int, size: int) -> Iterator[Piece]:
        """Yield what descriptors have: the first `size` bytes of a buffer, or all segments of one that has several."""
        segments: Iterable[tuple[int, int]]
        segments = buffer.segments if isinstance(buffer, ScatterBuffer) else ((buffer.address, size),)
        for host, length in segments:
            for start in range(0, length, _LARGEST_PIECE):
                piece = Piece(host + start, card_address, min(length - start, _LARGEST_PIECE))
                self._require_aligned(piece)
                yield piece
                if not self.is_stream:
                    card_address += piece.size

    def _require_aligned(self, piece: Piece) -> None:
        if (piece.host | piece.card) % self.alignment or piece.size % self.granularity:
            needs = f"addresses at multiples of {self.alignment} and sizes of {self.granularity} bytes"
            raise AlignmentError(
                f"{self.name} takes {needs}, not {piece.size} bytes at {piece.card:#x} on the card and "
                f"{piece.host:#x} in memory"
            )

    def _require_own(self, buffer: DmaBuffer) -> None:
        if not self._engine.device.dma.owns(buffer):
            raise ValueError(f"{buffer!r} is closed, or another device's, which this card may not be able to reach")

    def _check_range(self, card_address: int, size: int) -> None:
        if not 0 <= card_address <= card_address + size <= 1 << 64:
            raise ValueError(f"an address on the card has 64 bits: {size} bytes at {card_address:#x} do not fit")


class H2cChannel(Channel):
    """A channel from the host to the card."""

    def write(self, card_address: int, data: Buffer, *, timeout: float | None = None) -> int:
        """Write any number of bytes to the card, and return how many.

        Args:
            card_address: where, on the card's AXI bus.
            data: the engine reads a `DmaBuffer` of this device directly, of one segment or of many
                (`Dma.scatter`); other data is copied to memory of the channel first.
            timeout: seconds for all of it, above 0; None for the driver's.

        Raises:
            ChannelError: the engine stopped with an error; `status` has the register's fields.
            ChannelTimeoutError: it was not done in time.
            DeviceBusyError: the channel has a transfer under way.
            DeviceRemovedError: the card is gone.
            AlignmentError: the channel cannot transfer from or to these addresses, or so many bytes; none was.
            XdmaError: the channel is a stream.
            DmaMemoryError, DmaUnavailableError: there is no memory to copy to.
            ValueError: an address or the timeout is out of range; a `DmaBuffer` is another device's.
            ClosedError: the driver is closed.
        """
        return self._engine.run(self._write(card_address, data, timeout, stream=False))

    async def write_async(self, card_address: int, data: Buffer, *, timeout: float | None = None) -> int:
        """Do what `write` does while other asyncio tasks run.

        InterruptUnavailableError: the driver polls. Other errors are those of `write`.
        """
        return await self._engine.run_async(self._write(card_address, data, timeout, stream=False))

    def send(self, data: Buffer, *, timeout: float | None = None) -> int:
        """Send a packet to the stream, and return its size.

        After `ChannelError` or `ChannelTimeoutError` a part of it may have gone. Your logic takes the next packet for
        the rest.

        XdmaError: the channel is memory mapped. ValueError: the packet has no bytes. Other arguments and errors are
        those of `write`.
        """
        return self._engine.run(self._write(0, data, timeout, stream=True))

    async def send_async(self, data: Buffer, *, timeout: float | None = None) -> int:
        """Do what `send` does while other asyncio tasks run; errors as of `write_async`."""
        return await self._engine.run_async(self._write(0, data, timeout, stream=True))

    def _write(self, card_address: int, data: Buffer, timeout: float | None, *, stream: bool) -> Steps[int]:
        self._require(stream=stream)
        deadline = self._deadline(timeout)
        with self._engine.use(), memoryview(data) as view, view.cast("B") as octets:
            size = len(octets)
            self._check_range(card_address, size)
            if stream and not size:
                raise ValueError("a packet has at least one byte")
            if isinstance(data, DmaBuffer):
                self._require_own(data)
                yield from self._engine.transfer(self._pieces(data, card_address, size), deadline)
                return size
            if size:  # all of it, before the first part goes
                self._require_aligned(Piece(self._stage(size).address, card_address, size))
            for start in range(0, size, _STAGING):
                part = octets[start : start + _STAGING]
                staging = self._stage(len(part))
                staging[: len(part)] = part
                pieces = self._pieces(staging, 0 if stream else card_address + start, len(part))
                is_last = start + len(part) == size
                yield from self._engine.transfer(pieces, deadline, end_of_packet=is_last)
        return size


class C2hChannel(Channel):
    """A channel from the card to the host."""

    _receiving = 0  # bytes of the staging memory that the engine fills from the stream

    def read(self, card_address: int, count: int, *, timeout: float | None = None) -> bytes:
        """Return `count` bytes from an address on the card. Errors are those of `readinto`."""
        data = bytearray(_checked_count(count))
        self.readinto(card_address, data, timeout=timeout)
        return bytes(data)

    async def read_async(self, card_address: int, count: int, *, timeout: float | None = None) -> bytes:
        """Do what `read` does while other asyncio tasks run; errors as of `readinto_async`."""
        data = bytearray(_checked_count(count))
        await self.readinto_async(card_address, data, timeout=timeout)
        return bytes(data)

    def readinto(self, card_address: int, buffer: Buffer, *, timeout: float | None = None) -> int:
        """Fill a buffer from an address on the card, and return its size.

        Args:
            card_address: where, on the card's AXI bus.
            buffer: writable. The engine writes to a `DmaBuffer` of this device directly; for others the data is
                copied from memory of the channel.
            timeout: seconds for all of it, above 0; None for the driver's.

        Raises:
            TypeError: the buffer is not writable.
        Other errors are those of `H2cChannel.write`; they leave the content of the buffer undefined.
        """
        return self._engine.run(self._readinto(card_address, buffer, timeout))

    async def readinto_async(self, card_address: int, buffer: Buffer, *, timeout: float | None = None) -> int:
        """Do what `readinto` does while other asyncio tasks run.

        InterruptUnavailableError: the driver polls. Other errors are those of `readinto`.
        """
        return await self._engine.run_async(self._readinto(card_address, buffer, timeout))

    def _readinto(self, card_address: int, buffer: Buffer, timeout: float | None) -> Steps[int]:
        self._require(stream=False)
        deadline = self._deadline(timeout)
        with self._engine.use(), memoryview(buffer) as view, view.cast("B") as octets:
            size = len(octets)
            self._check_range(card_address, size)
            if octets.readonly:
                raise TypeError("the buffer cannot be written to")
            if isinstance(buffer, DmaBuffer):
                self._require_own(buffer)
                yield from self._engine.transfer(self._pieces(buffer, card_address, size), deadline)
                return size
            if size:  # all of it, before the first part comes
                self._require_aligned(Piece(self._stage(size).address, card_address, size))
            for start in range(0, size, _STAGING):
                part = min(_STAGING, size - start)
                staging = self._stage(part)
                yield from self._engine.transfer(self._pieces(staging, card_address + start, part), deadline)
                octets[start : start + part] = memoryview(staging)[:part]
        return size

    def receive(self, size: int, *, timeout: float | None = None) -> Received:
        """Return what comes from the stream: a packet, or the first `size` bytes of a longer one.

        A `receive` that timed out, or was broken off, goes on in the engine. The next one takes what came for it,
        whatever `size` it asks for, so that nothing is lost.

        Args:
            size: the most bytes, 1 to 1 MiB.
            timeout: seconds until the packet's end, above 0; None for the driver's.

        Raises:
            ChannelTimeoutError: not enough came in time.
            XdmaError: the channel is memory mapped.
            ValueError: `size` or the timeout is out of range.
        Other errors are those of `H2cChannel.write`.
        """
        return self._engine.run(self._receive(size, timeout))

    async def receive_async(self, size: int, *, timeout: float | None = None) -> Received:
        """Do what `receive` does while other asyncio tasks run.

        InterruptUnavailableError: the driver polls. Other errors are those of `receive`.
        """
        return await self._engine.run_async(self._receive(size, timeout))

    def _receive(self, size: int, timeout: float | None) -> Steps[Received]:
        self._require(stream=True)
        deadline = self._deadline(timeout)
        if not 1 <= size <= _STAGING:
            raise ValueError(f"a receive takes 1 to {_STAGING} bytes, not {size}")
        with self._engine.use():
            if not self._receiving:
                pieces = list(self._pieces(self._stage(size), 0, size))
                self._receiving = size
                self._engine.start(pieces)
            if not (yield from self._engine.ended(deadline)):
                if not self._engine.registers.status.busy:  # it does not wait for data any more: the card was reset
                    self._receiving = 0
                raise ChannelTimeoutError(f"{self.name}: no end of a packet, nor {self._receiving} bytes, in time")
            most, self._receiving = self._receiving, 0
            self._engine.check(1)
            word, length = self._engine.stream_result()
            if word & 0xFFFF0000 != STREAM_MAGIC or length > most:
                status = self._engine.registers.status.snapshot()
                raise ChannelError(self.name, f"wrote back {word:#x}, {length:#x}, which is no length", status, 1)
            return Received(bytes(memoryview(self._stage(most))[:length]), bool(word & STREAM_END_OF_PACKET))


_C = TypeVar("_C", bound=Channel)


class Channels(Sequence[_C]):
    """The channels of one direction, by number. ChannelNotFoundError, an `IndexError`: there is no such channel.

    Args:
        channels: the channels.
        what: they are, for messages.
    """

    def __init__(self, channels: Iterable[_C], what: str) -> None:
        self._channels = tuple(channels)
        self._what = what

    def __len__(self) -> int:
        return len(self._channels)

    @overload
    def __getitem__(self, number: int) -> _C: ...
    @overload
    def __getitem__(self, number: slice) -> tuple[_C, ...]: ...
    def __getitem__(self, number: int | slice) -> _C | tuple[_C, ...]:
        try:
            return self._channels[number]
        except IndexError:
            raise ChannelNotFoundError(f"{self._what}: there are {len(self)}, and none has number {number}") from None


def _checked_count(count: int) -> int:
    if count < 0:
        raise ValueError(f"the count of bytes is at least 0, not {count}")
    return count
