# SPDX-License-Identifier: MIT
"""A driver for a 16550 serial port on PCI, such as QEMU's ``-device pci-serial``: a file-like object, as pyserial's is.

The data sheet is National Semiconductor's PC16550D, June 1995; a "section" named below is in it. A `pyuio.Service`, in
C, takes received bytes out of the port's FIFO of 16 bytes, however busy Python is.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import threading
import weakref
from collections.abc import Iterator
from itertools import zip_longest
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar

from pyuio_drivers.serial16550_registers import (
    FIFO_SIZE,
    InterruptEnable,
    InterruptId,
    InterruptIdentification,
    LineStatus,
    Serial16550Registers,
    Trigger,
)
from pyuio_drivers.serial_line import Line
from pyuio_drivers.serial_received import Received

from pyuio import (
    ClosedError,
    Device,
    DeviceTimeoutError,
    Driver,
    Event,
    OverrunError,
    Service,
    UnsupportedDeviceError,
    wait,
)
from pyuio.program import Append, Operation, Read, When, While, Write

if TYPE_CHECKING:
    from typing_extensions import Buffer

# The service's ring holds so many interrupts, of 1 to 16 bytes each, whose bytes nobody has read yet.
RECEIVED_INTERRUPTS = 4096

_ENABLE_ALL = (
    InterruptEnable.erbfi.mask | InterruptEnable.etbei.mask | InterruptEnable.elsi.mask | InterruptEnable.edssi.mask
)
_THR = Serial16550Registers.thr.info.offset


class WriteTimeoutError(DeviceTimeoutError):
    """The data could not all be written in time; `written` bytes of it were."""

    written = 0


class Serial16550(Line, Driver, io.RawIOBase):
    """A serial port on an open device, at first with 9600 baud, 8 bits, no parity, 1 stop bit, RTS and DTR on.

    One thread may read while another one writes. Methods and attributes are those of pyserial's ``Serial``.

    Attributes:
        timeout: seconds that `read` waits, None for ever, 0 not at all.
        write_timeout: seconds that `write` and `flush` wait, None for ever.
        rtscts: send only while CTS is on, by which the other end says that it is ready.

    Raises:
        UnsupportedDeviceError: the device is of another kind, or has no FIFOs.
    """

    ids = ("1b36:0002",)  # QEMU's, docs/specs/pci-serial in its sources
    register_maps: ClassVar = {0: Serial16550Registers}

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self._clock = device.clock
        self.timeout: float | None = None
        self.write_timeout: float | None = None
        self.rtscts = False
        self.bar = device.bar(0)
        self.registers = Serial16550Registers(self.bar)
        self._service: Service | None = None
        self._changed = threading.Condition()
        self._reader: int | None = None  # the thread that reads the service's events, for all that wait
        self._stopping = False
        self._received = Received(device.name)
        self._cancelled = 0  # how often
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)  # ends the wait of the reader
        self._close_wake = weakref.finalize(self, os.close, self._wake)
        self._filled = 0  # bytes last put into the transmitter's FIFO; 0 once it has been empty
        self.quiet()
        with self.registers.lcr.change(0) as lcr:
            lcr.wls = 8 - 5
        self._reset_fifos(receiver=True, transmitter=True)
        if self.registers.iir.snapshot().fifos_enabled != 3:
            raise UnsupportedDeviceError(f"{device.name} has no FIFOs that work: it is older than the 16550A")
        self._set_divisor(self._baudrate)
        with self.registers.mcr.change(0) as mcr:
            mcr.dtr = mcr.rts = mcr.out2 = True
        self._start()

    # ---- Interrupts ----

    def _program(self) -> list[Operation]:
        """Return what C does at each interrupt: acknowledge it, and take received bytes, with the status of each."""
        registers = self.registers
        # LSR has the status of a byte until the byte is read, and reading LSR clears it, section 8.4. So the status is
        # read before each byte, and not after the last one that is taken here.
        status, byte = Append("status", registers.lsr), Append("byte", registers.rbr)
        take = [
            status,
            While("status", LineStatus.dr, True, [byte, status], most=FIFO_SIZE - 1),
            When("status", LineStatus.dr, True, [byte]),
        ]
        identify = Read("identification", registers.iir)
        modem = Read("modem", registers.msr)
        changed = When("identification", InterruptIdentification.interrupt_id, InterruptId.MODEM_STATUS, [modem])
        return [identify, changed, *take]

    def _start(self) -> None:
        # The FIFO counts as full until the interrupt of an empty one, which comes at once if it is empty already.
        self._filled = FIFO_SIZE
        self._service = Service(self.device.interrupt, self._program(), capacity=RECEIVED_INTERRUPTS)
        self.registers.ier.write(_ENABLE_ALL)

    def _stop(self) -> None:
        """Stop the service, and take the bytes that came until then. The caller holds the condition."""
        service = self._service
        if service is None:
            return
        self._stopping = True
        try:
            service.stop()
            # In a signal handler the reader is this thread, which must not wait for itself.
            while self._reader not in (None, threading.get_ident()):
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
        """Keep the service from the registers in the block."""
        with self._changed:
            self._require_service()
            self.registers.ier.write(0)
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
        """Wait for an event, with the condition held; return whether one came before the deadline."""
        service = self._require_service()
        left = None if deadline is None else max(0.0, deadline - self._clock.monotonic())
        if self._reader is not None or self._stopping:
            return self._changed.wait(left)
        self._reader = threading.get_ident()
        self._changed.release()
        ready: list[object] = []
        try:
            ready = wait([service, self._wake], left)
            if self._wake in ready:
                os.eventfd_read(self._wake)
            events: list[Event] | OverrunError = service.read(0)
        except OverrunError as error:
            events = error
        except DeviceTimeoutError:
            return bool(ready)
        except ClosedError:
            if self.device.closed:
                raise
            return True  # stopped by another thread
        except ValueError:
            if not service.closed:
                raise
            return True  # closed by a signal handler, during the wait for its descriptor
        finally:
            self._changed.acquire()
            self._reader = None
            self._changed.notify_all()
        self._note(events)
        if isinstance(events, OverrunError) and self._filled and service is self._service and not self._stopping:
            # Maybe the interrupt of the empty transmitter was lost. A new service gets it again, and no old one.
            with self._stopped():
                pass
        # A port that interrupts again and again must not keep the caller for ever.
        return deadline is None or self._clock.monotonic() < deadline

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
            if InterruptIdentification.interrupt_id.extract(values["identification"]) == InterruptId.THR_EMPTY:
                self._filled = 0
            # After the last byte there is a status without one.
            self._received.add(zip_longest(event.lists["status"], event.lists["byte"], fillvalue=0))

    # ---- Reading ----

    def read(self, size: int = 1, /) -> bytes:
        """Return `size` bytes; fewer if `timeout` has passed, or if an error follows them, which the next call raises.

        Raises:
            LineError: the port reported an error at this place among the bytes; the next call goes on after it.
            ClosedError: the port was closed, before the call or during it.
            DeviceRemovedError: the device is gone.
            ValueError: the size is negative.
        """
        if size < 0:
            raise ValueError(f"a serial port has no end: the size is 0 or more, not {size}")
        return self._take(size)

    def read_until(self, expected: bytes = b"\n", size: int | None = None) -> bytes:
        """Return the bytes up to and including `expected`; fewer as `read` does.

        Args:
            expected: at least one byte.
            size: the most bytes to return; None for no limit.

        Raises:
            ValueError: `expected` is empty, or the size is negative.
            LineError, ClosedError, DeviceRemovedError: as for `read`.
        """
        if not expected or (size is not None and size < 0):
            raise ValueError(f"there is a byte to expect, and a size of 0 or more: not {expected!r} and {size}")
        return self._take(size, bytes(expected))

    def _take(self, size: int | None, expected: bytes = b"") -> bytes:
        """Return `size` bytes, or those up to `expected`, or fewer: see `read`."""
        deadline = None if self.timeout is None else self._clock.monotonic() + self.timeout
        taken = bytearray()
        late = False
        with self._changed:
            self._require_service()
            cancelled = self._cancelled
            while size is None or len(taken) < size:
                before = len(taken)
                self._received.take(taken, before + 1 if expected or size is None else size)
                if expected and len(taken) > before:
                    if taken.endswith(expected):
                        break
                    continue
                if len(taken) == size or (taken and self._received.error_next) or late or cancelled != self._cancelled:
                    break
                late = not self._wait(deadline)
        return bytes(taken)

    def cancel_read(self) -> None:
        """End the `read` or `read_until` of another thread now: it returns what it has got. Harmless without one."""
        with self._changed:
            if self.closed or self._service is None:
                return
            self._cancelled += 1
            os.eventfd_write(self._wake, 1)
            self._changed.notify_all()

    def readinto(self, buffer: Buffer, /) -> int:
        """Read into a buffer, as `read` does, and return the number of bytes."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def read_all(self) -> bytes:
        """Return all bytes received so far, without waiting."""
        return self.read(self.in_waiting)

    @property
    def in_waiting(self) -> int:
        """Number of bytes that were received and not read yet."""
        with self._changed:
            self._wait(0)
            return self._received.waiting

    def reset_input_buffer(self) -> None:
        """Drop the bytes that were received, and errors."""
        with self._stopped():
            self._reset_fifos(receiver=True)
            self._received.clear()

    # ---- Writing ----

    def write(self, data: Buffer, /) -> int:
        """Write all of `data`, and return its length. The last 16 bytes may not be sent yet: see `flush`.

        Raises:
            WriteTimeoutError: it took longer than `write_timeout`, because nobody at the other end takes the bytes.
            ClosedError, DeviceRemovedError: as for `read`.
        """
        view = memoryview(data).cast("B")
        deadline = self._write_deadline()
        done = 0
        with self._changed:
            self._require_service()
            while done < len(view):
                self._wait_for_room(deadline, done, len(view))
                done += self._fill(view[done : done + FIFO_SIZE])
        return done

    def _write_deadline(self) -> float | None:
        return None if self.write_timeout is None else self._clock.monotonic() + self.write_timeout

    def _wait_for_room(self, deadline: float | None, done: int, size: int) -> None:
        while why := self._held_up():
            if not self._wait(deadline) and (why := self._held_up()):
                raise self._late(done, size, why)

    def _late(self, done: int, size: int, why: str) -> WriteTimeoutError:
        reason = f"{self.device.name}: {done} of {size} bytes written in {self.write_timeout} s: {why}"
        error = WriteTimeoutError(errno.ETIMEDOUT, f"{reason}; is there anyone at the other end who reads?")
        error.written = done
        return error

    def _held_up(self) -> str:
        if self._filled:
            return "the port has not sent the last ones yet"
        return "CTS is off" if self.rtscts and not self.cts else ""

    def _fill(self, data: memoryview) -> int:
        # The interrupt of an empty transmitter is off meanwhile, or it could come after the first byte. When it is on
        # again, it comes when the FIFO is empty, or at once if it is empty by then (section 8.11).
        write = self.bar.write8  # by offset, as this is done for each byte
        try:
            self.registers.ier.write(_ENABLE_ALL & ~InterruptEnable.etbei.mask)
            self._filled = len(data)
            for byte in data:
                write(_THR, byte)
        finally:  # also after Ctrl-C, or the FIFO would count as full for ever
            self.registers.ier.write(_ENABLE_ALL)
        return len(data)

    def flush(self) -> None:
        """Wait until the port has sent all bytes. WriteTimeoutError: it took longer than `write_timeout`."""
        deadline = self._write_deadline()
        with self._changed:
            self._require_service()
            filled = self._filled
            while self._filled:
                if not self._wait(deadline) and self._filled:
                    reason = f"{self.device.name}: up to {filled} bytes were not sent in {self.write_timeout} s"
                    raise WriteTimeoutError(errno.ETIMEDOUT, f"{reason}; reset_output_buffer() drops them")
        self._clock.sleep(self.character_time())  # the last byte is still in the shift register

    @property
    def out_waiting(self) -> int:
        """Number of bytes that may not have been sent yet, at most 16."""
        with self._changed:
            self._wait(0)
            return self._filled

    def send_break(self, duration: float = 0.25) -> None:
        """Wait until all bytes are sent, and then send a break of `duration` seconds."""
        self.flush()
        self.break_condition = True
        try:
            self._clock.sleep(duration)
        finally:
            self.unless_gone(self._end_break)

    def _end_break(self) -> None:
        self.break_condition = False

    def reset_output_buffer(self) -> None:
        """Drop the bytes that have not been sent yet."""
        with self._stopped():
            self._reset_fifos(transmitter=True)

    def _reset_fifos(self, *, receiver: bool = False, transmitter: bool = False) -> None:
        with self.registers.fcr.change(0) as fcr:
            fcr.fifo_enable = True
            fcr.rcvr_fifo_reset = receiver
            fcr.xmit_fifo_reset = transmitter
            fcr.rcvr_trigger = Trigger.BYTES_14

    # ---- As a card, and as a file ----

    def trigger(self) -> None:
        """Raise the interrupt of an empty transmitter, which the port raises when it is enabled in IER."""
        self.registers.ier.write(0)
        self.registers.ier.write(InterruptEnable.etbei.mask)

    def trigger_program(self) -> list[Operation]:
        """Return the program of a `pyuio.Service` that raises that interrupt."""
        return [Write(self.registers.ier, 0), Write(self.registers.ier, InterruptEnable.etbei.mask)]

    def acknowledge(self) -> None:
        """Acknowledge it by reading IIR, section 8.6, table IV."""
        self.registers.iir.read()

    def acknowledge_program(self) -> list[Operation]:
        """Return the program of a `pyuio.Service` that acknowledges it."""
        return [Read("identification", self.registers.iir)]

    def quiet(self) -> None:
        """Disable all interrupts, end a break, and switch RTS and DTR off. The port still sends what is in the FIFO."""
        with self._changed:
            try:
                with self.registers.lcr.change() as lcr:
                    lcr.set_break = lcr.dlab = False
                self.registers.ier.write(0)
                self.registers.mcr.write(0)
            finally:
                self._stop()

    def close(self) -> None:
        """Leave the port quiet, and close the device; again is harmless."""
        if not self.closed:
            super().close()
            with self._changed:
                self._close_wake()

    @property
    def closed(self) -> bool:
        """Whether the port is closed."""
        return not hasattr(self, "device") or self.device.closed

    @property
    def is_open(self) -> bool:
        """Whether the port is open."""
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
