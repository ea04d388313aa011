# SPDX-License-Identifier: MIT
"""A driver for a 16550 serial port on PCI, such as QEMU's ``-device pci-serial``: a file-like object, as pyserial's is.

The data sheet is National Semiconductor's PC16550D, June 1995; "section" below is one of its. What is received is taken
out of the port's FIFO of 16 bytes by a `pyuio.Service`, in C, however busy Python is.
"""

from __future__ import annotations

import contextlib
import errno
import io
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING

from pyuio_drivers import serial16550_registers as uart
from pyuio_drivers.serial_received import Received

from pyuio import ClosedError, Device, DeviceTimeoutError, Driver, Event, OverrunError, Service
from pyuio.program import Operation, Read, When, Write

if TYPE_CHECKING:
    from typing_extensions import Buffer

# Interrupts whose bytes nobody has read yet, of 1 to 16 bytes each.
RECEIVED_INTERRUPTS = 4096

# What an event calls the bytes of one interrupt, and the status of each.
_NAMES = [(f"status {number}", f"byte {number}") for number in range(uart.FIFO_SIZE)]


class WriteTimeoutError(DeviceTimeoutError):
    """Not all could be written in time; `written` bytes of it were."""

    written = 0


class Serial16550(uart.Line, Driver, io.RawIOBase):
    """A serial port on an open device: 9600 baud, 8 bits, no parity, 1 stop bit at first; RTS and DTR on.

    One thread may read while another one writes. Methods and attributes are those of pyserial's ``Serial``.

    Attributes:
        timeout: seconds that `read` waits, None for ever, 0 not at all.
        write_timeout: seconds that `write` and `flush` wait, None for ever.
        rtscts: send only while the other end says, by CTS, that it is ready.

    Raises:
        ValueError: the device is another one, or has no FIFOs.
    """

    ids = ("1b36:0002",)  # QEMU's, docs/specs/pci-serial in its sources

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self.timeout: float | None = None
        self.write_timeout: float | None = None
        self.rtscts = False
        self.registers = device.bar(0)
        self._service: Service | None = None
        self._changed = threading.Condition()
        self._reader: int | None = None  # the thread that reads the events, for all
        self._stopping = False
        self._received = Received(device.name)
        self._filled = 0  # bytes last put into the transmitter's FIFO, if it has not been empty since
        self.quiet()
        self.registers.write8(uart.LINE_CONTROL, 8 - 5)
        self._reset_fifos(uart.FIFO_RESET_RECEIVER | uart.FIFO_RESET_TRANSMITTER)
        if self.registers.read8(uart.INTERRUPT_IDENTIFICATION) & uart.FIFOS_ENABLED != uart.FIFOS_ENABLED:
            raise ValueError(f"{device.name} has no FIFOs that work: it is older than the 16550A")
        self._set_divisor(self._baudrate)
        self.registers.write8(uart.MODEM_CONTROL, uart.MODEM_DTR | uart.MODEM_RTS | uart.MODEM_OUT2)
        self._start()

    # ---- Interrupts ----

    def _program(self) -> list[Operation]:
        """What C does at each interrupt: acknowledge it, and take what was received with the status of each byte."""
        operations: list[Operation] = []
        for status_name, byte_name in reversed(_NAMES):
            # The status of a byte is there until the byte is read, section 8.4.
            status = Read(status_name, self.registers, uart.LINE_STATUS, 8)
            byte = Read(byte_name, self.registers, uart.RECEIVER_BUFFER, 8)
            operations = [status, When(status_name, uart.DATA_READY, uart.DATA_READY, [byte, *operations])]
        identification = Read("identification", self.registers, uart.INTERRUPT_IDENTIFICATION, 8)
        modem = Read("modem", self.registers, uart.MODEM_STATUS, 8)
        changed = When("identification", uart.IDENTIFIED, uart.IDENTIFIED_MODEM_STATUS, [modem])
        return [identification, changed, *operations]

    def _start(self) -> None:
        self._filled = uart.FIFO_SIZE  # until the interrupt, which comes at once where it is empty, says otherwise
        self._service = Service(self.device.interrupt, self._program(), capacity=RECEIVED_INTERRUPTS)
        self.registers.write8(uart.INTERRUPT_ENABLE, uart.ENABLE_ALL)

    def _stop(self) -> None:
        """Stop the interrupts, and take what came until then. The condition is held."""
        service = self._service
        if service is None:
            return
        self._stopping = True
        try:
            service.stop()
            while self._reader not in (None, threading.get_ident()):  # not for itself, as in a signal handler
                self._changed.wait()
            with contextlib.suppress(ClosedError):
                while True:
                    self._read_events(service)
        finally:
            self._stopping = False
            self._service = None
            service.close()
            self._changed.notify_all()

    @contextlib.contextmanager
    def _stopped(self) -> Iterator[None]:
        """Keeps C from the registers meanwhile."""
        with self._changed:
            self._require_service()
            self.registers.write8(uart.INTERRUPT_ENABLE, 0)
            self._stop()
            try:
                yield
            finally:
                self._start()

    def _require_service(self) -> Service:
        if self._service is None:
            raise ClosedError(f"{self.device.name}: the serial port is closed")
        return self._service

    def _wait(self, deadline: float | None) -> bool:
        """Wait for something to happen, with the condition held; return whether it did before the deadline."""
        service = self._require_service()
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if self._reader is not None or self._stopping:
            return self._changed.wait(left)
        self._reader = threading.get_ident()
        self._changed.release()
        try:
            events: list[Event] | OverrunError = service.read(left)
        except OverrunError as error:
            events = error
        except DeviceTimeoutError:
            return False
        except ClosedError:
            if self.device.closed:
                raise
            return True  # stopped by another thread
        finally:
            self._changed.acquire()
            self._reader = None
            self._changed.notify_all()
        self._note(events)
        return True

    def _read_events(self, service: Service) -> None:
        try:
            self._note(service.read(0))
        except OverrunError as error:
            self._note(error)

    def _note(self, events: list[Event] | OverrunError) -> None:
        if isinstance(events, OverrunError):
            self._received.lost(str(events))
            return
        for event in events:
            values = event.values
            if values["identification"] & uart.IDENTIFIED == uart.IDENTIFIED_TRANSMITTER_EMPTY:
                self._filled = 0
            self._received.add((values[status], values[byte]) for status, byte in _NAMES)

    # ---- Reading ----

    def read(self, size: int = 1, /) -> bytes:
        """Return `size` bytes; fewer when `timeout` has passed, or when an error follows them, which is raised next.

        Raises:
            LineError: the port reports an error at this place of what was received; the next call goes on after it.
            ClosedError: the port is closed, before or meanwhile.
            DeviceRemovedError: the device is gone.
            ValueError: a negative size.
        """
        if size < 0:
            raise ValueError(f"a serial port has no end: the size is 0 or more, not {size}")
        deadline = None if self.timeout is None else time.monotonic() + self.timeout
        taken = bytearray()
        late = False
        with self._changed:
            self._require_service()
            while size:
                self._received.take(taken, size)
                if len(taken) == size or (taken and self._received.error_next) or late:
                    break
                late = not self._wait(deadline)
        return bytes(taken)

    def readinto(self, buffer: Buffer, /) -> int:
        """Read into a buffer, as `read` does, and return how many bytes."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def read_all(self) -> bytes:
        """Return what has been received, without waiting."""
        return self.read(self.in_waiting)

    @property
    def in_waiting(self) -> int:
        """Bytes that were received and not read yet."""
        with self._changed:
            self._wait(0)
            return self._received.waiting

    def reset_input_buffer(self) -> None:
        """Drop what was received, errors included."""
        with self._stopped():
            self._reset_fifos(uart.FIFO_RESET_RECEIVER)
            self._received.clear()

    # ---- Writing ----

    def write(self, data: Buffer, /) -> int:
        """Write all of `data`, and return its length; the last 16 bytes may still be on their way.

        Raises:
            WriteTimeoutError: it took longer than `write_timeout`; nobody takes the bytes at the other end.
            ClosedError, DeviceRemovedError: as for `read`.
        """
        view = memoryview(data).cast("B")
        deadline = self._write_deadline()
        done = 0
        with self._changed:
            self._require_service()
            while done < len(view):
                self._wait_for_room(deadline, done, len(view))
                done += self._fill(view[done : done + uart.FIFO_SIZE])
        return done

    def _write_deadline(self) -> float | None:
        return None if self.write_timeout is None else time.monotonic() + self.write_timeout

    def _wait_for_room(self, deadline: float | None, done: int, size: int) -> None:
        while why := self._held_up():
            if not self._wait(deadline) and (why := self._held_up()):
                reason = f"{self.device.name}: {done} of {size} bytes written in {self.write_timeout} s: {why}"
                error = WriteTimeoutError(errno.ETIMEDOUT, f"{reason}; is there anyone at the other end who reads?")
                error.written = done
                raise error

    def _held_up(self) -> str:
        if self._filled:
            return "the port has not sent the last ones yet"
        return "CTS is off" if self.rtscts and not self.cts else ""

    def _fill(self, data: memoryview) -> int:
        # The interrupt of an empty transmitter is off meanwhile, or it could come after the first byte. Switched on, it
        # comes when the FIFO is empty, or at once if it is by then (section 8.11).
        write = self.registers.write8
        write(uart.INTERRUPT_ENABLE, uart.ENABLE_ALL & ~uart.ENABLE_TRANSMITTER_EMPTY)
        self._filled = len(data)
        for byte in data:
            write(uart.TRANSMITTER_HOLDING, byte)
        write(uart.INTERRUPT_ENABLE, uart.ENABLE_ALL)
        return len(data)

    def flush(self) -> None:
        """Wait until all that was written has left the port. WriteTimeoutError: it took longer than `write_timeout`."""
        deadline = self._write_deadline()
        with self._changed:
            self._require_service()
            filled = self._filled
            while self._filled:
                if not self._wait(deadline) and self._filled:
                    reason = f"{self.device.name}: up to {filled} bytes were not sent in {self.write_timeout} s"
                    raise WriteTimeoutError(errno.ETIMEDOUT, f"{reason}; reset_output_buffer() drops them")
        time.sleep(self.character_time())  # the last byte is still in the shift register

    @property
    def out_waiting(self) -> int:
        """Bytes that may not have been sent yet, at most 16."""
        with self._changed:
            self._wait(0)
            return self._filled

    def send_break(self, duration: float = 0.25) -> None:
        """Send what was written, and then a break of `duration` seconds."""
        self.flush()
        self.break_condition = True
        try:
            time.sleep(duration)
        finally:
            self.break_condition = False

    def reset_output_buffer(self) -> None:
        """Drop what has not been sent yet."""
        with self._stopped():
            self._reset_fifos(uart.FIFO_RESET_TRANSMITTER)

    def _reset_fifos(self, which: int) -> None:
        self.registers.write8(uart.FIFO_CONTROL, uart.FIFO_ENABLE | uart.FIFO_TRIGGER_14 | which)

    # ---- As a card, and as a file ----

    def trigger(self) -> None:
        """Raise the interrupt of an empty transmitter: it comes when it is enabled and the transmitter is empty."""
        self.registers.write8(uart.INTERRUPT_ENABLE, 0)
        self.registers.write8(uart.INTERRUPT_ENABLE, uart.ENABLE_TRANSMITTER_EMPTY)

    def trigger_program(self) -> list[Operation]:
        """Return what a `pyuio.Service` does to raise that interrupt."""
        values = (0, uart.ENABLE_TRANSMITTER_EMPTY)
        return [Write(self.registers, uart.INTERRUPT_ENABLE, value, 8) for value in values]

    def acknowledge(self) -> None:
        """Acknowledge it: reading the identification does that, section 8.6, table IV."""
        self.registers.read8(uart.INTERRUPT_IDENTIFICATION)

    def acknowledge_program(self) -> list[Operation]:
        """Return what a `pyuio.Service` does to acknowledge it."""
        return [Read("identification", self.registers, uart.INTERRUPT_IDENTIFICATION, 8)]

    def quiet(self) -> None:
        """Disable all interrupts, end a break, and switch RTS and DTR off; what is in the FIFO is still sent."""
        with self._changed:
            try:
                self.registers.write8(
                    uart.LINE_CONTROL, self.registers.read8(uart.LINE_CONTROL) & ~uart.LINE_BREAK & 0x7F
                )
                self.registers.write8(uart.INTERRUPT_ENABLE, 0)
                self.registers.write8(uart.MODEM_CONTROL, 0)
            finally:
                self._stop()

    def close(self) -> None:
        """Leave the port quiet, and close the device; again is harmless."""
        if not self.closed:
            super().close()

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return not hasattr(self, "device") or self.device.closed

    @property
    def is_open(self) -> bool:
        """Whether it was not closed."""
        return not self.closed

    def readable(self) -> bool:
        """Return True."""
        return True

    def writable(self) -> bool:
        """Return True."""
        return True

    def __enter__(self) -> Serial16550:
        """Return itself; leaving the block closes it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
