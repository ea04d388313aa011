# SPDX-License-Identifier: MIT
"""The operations of a native service, and the ways in which it ends."""

from __future__ import annotations

import contextlib
import gc
import math
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pyuio_drivers.edu import Edu, EduRegisters, Status

import pyuio
from pyuio.kernel.drivers import VFIO_PCI
from pyuio.program import Append, Count, Poll, Read, Stamp, Unmask, When, While, Write, WriteBack
from tests.guest import service_handler
from tests.guest.support import DRIVER, PATIENCE, PCI_SERIAL, PCI_TESTDEV, PROGRAM_LIMIT, Cards, attribute, wait_until


def raise_interrupt(card: Edu, bits: int) -> None:
    """Raise an interrupt, and wait until the service has acknowledged it."""
    card.raise_interrupt(bits)
    wait_until(lambda: card.interrupt_status() == 0)


def service_threads() -> int:
    return sum(thread.name.startswith("service of") for thread in threading.enumerate())


def test_every_operation(card: Edu) -> None:
    registers, bar = card.registers, card.bar
    program = [
        Read("status", registers.interrupt_status),
        Stamp("read"),
        When("status", 0xF, 0x1, [Count("ones"), Write(registers.liveness, 0x1234), Read("alive", bar, 4)]),
        When(
            "status",
            0xF,
            0x2,
            [
                Write(bar, 0x08, 5),
                Poll("computing", bar, 0x20, 0x01, 0, 1.0),
                Read("factorial", registers.factorial),
                When("factorial", 0xFFFFFFFF, 0, [Write(bar, 0x04, 1)]),
            ],
        ),
        When("status", 0xF, 0x4, [Poll("never", registers.status, mask=Status.computing, value=1, timeout=0.001)]),
        WriteBack("status", registers.acknowledge_interrupt, mask=0xF),
        WriteBack("status", bar, 0x64),
        Unmask(),
        Count("all"),
        Stamp("done"),
    ]
    with pyuio.Service(card.device.interrupt, program) as service:
        for bits in (1, 2, 4, 8):
            raise_interrupt(card, bits)
        events: list[pyuio.Event] = []
        while len(events) < 4:
            events += service.read(5)
        assert service.counters == {"ones": 1, "all": 4}
    one, two, four, eight = (event.values for event in events)
    assert [event.late for event in events] == [False, False, True, False]
    assert (one["status"], two["status"], four["status"], eight["status"]) == (1, 2, 4, 8)
    assert one["alive"] == 0x1234 ^ 0xFFFFFFFF
    assert two["alive"] == 0 == one["factorial"]
    assert two["factorial"] == math.factorial(5)
    assert two["computing"] & Status.computing.mask == 0
    for event in events:
        assert event.time <= event.values["read"] < event.values["done"]


def test_write_back_with_a_mask(card: Edu) -> None:
    registers = card.registers
    program = [
        Read("status", registers.interrupt_status),
        WriteBack("status", registers.liveness, mask=0xFF),
        Write(registers.acknowledge_interrupt, 0xFFFFFFFF),
    ]
    with pyuio.Service(card.device.interrupt, program) as service:
        raise_interrupt(card, 0xABCD)
        assert service.read(5)[0].values == {"status": 0xABCD}
    assert registers.liveness.read() == 0xCD ^ 0xFFFFFFFF


def test_registers_of_the_other_byte_order(device: pyuio.Device) -> None:
    little, big = EduRegisters(device.bar(0)), EduRegisters(device.bar(0, endian="big"))
    program = [
        Write(big.liveness, 0x12345678),
        Read("big", big.liveness),
        Read("little", little.liveness),
        Write(little.acknowledge_interrupt, 0xFFFFFFFF),
    ]
    with pyuio.Service(device.interrupt, program) as service:
        raise_interrupt(Edu(device), 1)
        assert service.read(5)[0].values == {"big": 0x12345678 ^ 0xFFFFFFFF, "little": 0x78563412 ^ 0xFFFFFFFF}


def test_registers_in_io_ports(cards: Cards) -> None:
    """A 16550 raises its interrupt when its transmitter is empty and that is enabled: bit 1 of IER at offset 1."""
    with pyuio.open(cards(PCI_SERIAL)[0], bind=True) as device:
        port = device.bar(0)
        assert isinstance(port, pyuio.region.PortRegion)
        program = [Read("iir", port, 2, bits=8), Write(port, 7, 0xA5, bits=8), Write(port, 1, 0, bits=8)]
        with pyuio.Service(device.interrupt, program) as service:
            for _ in range(10):
                port.write8(7, 0)
                port.write8(1, 2)
                (event,) = service.read(5)
                assert event.values["iir"] & 0xF == 2
                assert port.read8(7) == 0xA5


def test_a_ring_that_is_full_says_what_it_lost(card: Edu) -> None:
    with pyuio.Service(card.device.interrupt, card.acknowledge_program(), capacity=4) as service:
        for number in range(10):
            raise_interrupt(card, 1 << number)
        assert service.lost == 6
        assert [event.values["status"] for event in service.read(5)] == [1, 2, 4, 8]
        raise_interrupt(card, 1 << 20)
        with pytest.raises(pyuio.OverrunError, match="6 events") as caught:
            service.read(5)
        assert caught.value.lost == 6
        assert "writes to no register" not in str(caught.value)
        (event,) = service.read(5)
        assert event.values["status"] == 1 << 20
        with pytest.raises(TimeoutError):
            service.read(0)
        for number in range(6):
            raise_interrupt(card, 1 << number)
        for expected in (1, 2):
            assert service.read(5, most=1)[0].values["status"] == expected
        for event in service:
            assert event.values["status"] == 4
            break
        assert pyuio.wait([service], 0) == [service], "for the fourth"
        assert [event.values["status"] for event in service.read(5)] == [8]
        assert pyuio.wait([service], 0) == [service], "for the error"
        with pytest.raises(pyuio.OverrunError, match="2 events"):  # the ring is empty, and no event came since
            service.read(0)
        assert pyuio.wait([service], 0) == []
        with pytest.raises(TimeoutError):
            service.read(0)
    assert card.device.interrupt.total == 17


def test_more_events_than_are_taken_at_once(card: Edu) -> None:
    with pyuio.Service(card.device.interrupt, card.acknowledge_program()) as service:
        for number in range(600):
            raise_interrupt(card, number + 1)
        assert len(service.read(5, most=10)) == 10
        events = service.read(5)
        while len(events) < 590:
            events += service.read(5)
    assert [event.values["status"] for event in events] == list(range(11, 601))


def test_events_that_come_faster_than_they_are_taken(card: Edu) -> None:
    """The program itself raises the next interrupt: each read ends, and reports the events that did not fit."""
    program = [*card.acknowledge_program(), *card.trigger_program()]
    with pyuio.Service(card.device.interrupt, program, capacity=64) as service:
        card.raise_interrupt()
        taken = lost = 0
        while lost == 0 or taken < 100:
            try:
                events = service.read(5)
            except pyuio.OverrunError as error:
                lost += error.lost
            else:
                assert 1 <= len(events) <= 64 + 256
                taken += len(events)
            if taken >= 100:
                time.sleep(0.05)  # in which more come than fit
    card.acknowledge()


def test_it_can_be_waited_for_with_other_things(card: Edu) -> None:
    reading, writing = os.pipe()
    with pyuio.Service(card.device.interrupt, card.acknowledge_program()) as service:
        assert pyuio.wait([service, reading], 0.01) == []
        card.raise_interrupt(7)
        assert pyuio.wait([service, reading], 5) == [service]
        assert service.read(0)[0].values == {"status": 7}
        assert pyuio.wait([service, reading], 0.01) == []
    os.close(reading)
    os.close(writing)


def test_a_function_in_place_of_the_program(card: Edu, tmp_path: Path) -> None:
    library, function = service_handler.load(tmp_path)
    stack = contextlib.ExitStack()
    _, base, _ = card.bar.reach(0, stack)
    names = ("status", "sum")
    with pyuio.Service(card.device.interrupt, handler=function, context=base, names=names) as service:
        raise_interrupt(card, 3)
        (event,) = service.read(5)
    stack.close()
    assert event.values == {"status": 3, "sum": 41}
    assert event.late
    del library  # the function's code had to live until here


def test_removal_ends_it_after_what_came_before(edu: str) -> None:
    with pyuio.open(edu, bind=True) as device:
        card = Edu(device)
        service = pyuio.Service(device.interrupt, card.acknowledge_program())
        raise_interrupt(card, 5)
        Path("/sys/bus/pci/devices", edu, "driver/unbind").write_text(edu)
        wait_until(lambda: service_threads() == 0)
        assert service.read(5)[0].values == {"status": 5}
        for _ in range(2):
            with pytest.raises(pyuio.DeviceRemovedError):
                service.read(5)
        service.close()


def test_ctrl_c_ends_the_read_and_the_service_goes_on(card: Edu) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pyuio.Service(card.device.interrupt, card.acknowledge_program()) as service:
            timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
            timer.start()
            with pytest.raises(KeyboardInterrupt):
                service.read()
            timer.join()
            raise_interrupt(card, 1)
            assert len(service.read(5)) == 1
    finally:
        signal.signal(signal.SIGINT, before)


def test_one_that_is_forgotten_ends(card: Edu) -> None:
    service = pyuio.Service(card.device.interrupt, card.acknowledge_program())
    assert service_threads() == 1
    del service
    gc.collect()
    wait_until(lambda: service_threads() == 0)
    card.raise_interrupt()
    assert card.device.interrupt.read(5) == 1
    card.acknowledge()


def test_a_forked_child_leaves_it_alone(card: Edu) -> None:
    with pyuio.Service(card.device.interrupt, card.acknowledge_program()) as service:
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                service.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        raise_interrupt(card, 9)
        assert service.read(5)[0].values == {"status": 9}


def test_around_is_entered_in_the_thread_that_serves(card: Edu) -> None:
    seen: list[str] = []

    @contextlib.contextmanager
    def around() -> Iterator[None]:
        seen.append(threading.current_thread().name)
        yield
        seen.append("left")

    with pyuio.Service(card.device.interrupt, card.acknowledge_program(), around=around):
        raise_interrupt(card, 1)
    assert seen == [f"service of {card.device.name}", "left"]


def test_what_around_raises_is_raised_and_nothing_is_left(card: Edu) -> None:
    def refuse() -> contextlib.AbstractContextManager[None]:
        raise PermissionError("no")

    with pytest.raises(PermissionError, match="no"):
        pyuio.Service(card.device.interrupt, card.acknowledge_program(), around=refuse)
    card.raise_interrupt()
    assert card.device.interrupt.read(5) == 1
    card.acknowledge()


def test_no_thread_to_be_had_leaves_the_interrupt_free(card: Edu, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start"):
            pyuio.Service(card.device.interrupt, card.acknowledge_program())
    card.raise_interrupt()
    assert card.device.interrupt.read(5) == 1
    card.acknowledge()


def test_a_bar_that_is_closed_meanwhile_stays_mapped_for_it(card: Edu) -> None:
    with pyuio.Service(card.device.interrupt, card.acknowledge_program()) as service:
        card.bar.close()
        again = Edu(card.device)
        raise_interrupt(again, 2)
        assert service.read(5)[0].values == {"status": 2}
    assert ("vfio" if DRIVER == VFIO_PCI else "resource0") in Path("/proc/self/maps").read_text()
    with pytest.raises(pyuio.ClosedError):
        pyuio.Service(card.device.interrupt, card.acknowledge_program())
    assert card.device.interrupt.pending is False


def test_no_interrupt_no_service(cards: Cards) -> None:
    with pyuio.open(cards(PCI_TESTDEV)[0], bind=True) as device, pytest.raises(pyuio.InterruptUnavailableError):
        pyuio.Service(device.interrupt)


def test_programs_that_are_none(card: Edu) -> None:
    bar, interrupt = card.bar, card.device.interrupt
    wrong: tuple[tuple[type[Exception], Callable[[], object]], ...] = (
        (ValueError, lambda: pyuio.Service(interrupt, [WriteBack("status", bar, 0)])),
        (ValueError, lambda: pyuio.Service(interrupt, [When("status", 1, 1, [])])),
        (TypeError, lambda: pyuio.Service(interrupt, [print])),  # type: ignore[list-item]
        (TypeError, lambda: pyuio.Service(interrupt, handler="no")),
        (ValueError, lambda: pyuio.Service(interrupt, [Unmask()], handler=1)),
        (ValueError, lambda: pyuio.Service(interrupt, names=("a",))),
        (ValueError, lambda: pyuio.Service(interrupt, capacity=0)),
        (ValueError, lambda: pyuio.Service(interrupt, capacity=1 << 21)),
    )
    for error, make in wrong:
        with pytest.raises(error):
            make()
    assert attribute(card.device.name, "enable")
    card.raise_interrupt()
    assert interrupt.read(5) == 1  # none of these services has the interrupt
    card.acknowledge()


def test_no_timer_left_to_end_it_with(device: pyuio.Device) -> None:
    pending = 11  # RLIMIT_SIGPENDING; the module resource has no name for it
    before = resource.getrlimit(pending)
    resource.setrlimit(pending, (0, before[1]))
    try:
        with pyuio.Service(device.interrupt) as service, pytest.raises(pyuio.PermissionDeniedError, match="ulimit -i"):
            service.read(5)
    finally:
        resource.setrlimit(pending, before)
    with pyuio.Service(device.interrupt) as service:
        Edu(device).raise_interrupt()
        assert service.read(5)[0].count == 1


def test_the_signal_that_ends_it_and_the_end_of_the_interpreter(edu: str) -> None:
    """The signal is the highest real-time signal without a handler, and it does not end the process.

    One program for both, as Python takes seconds to start: in the end its interpreter ends with a service running.
    """
    program = textwrap.dedent("""
        import signal, sys
        import pyuio
        from pyuio_drivers.edu import Edu

        signal.signal(signal.SIGRTMAX, lambda *_: sys.exit("somebody else's signal"))
        card = Edu.open(sys.argv[1])
        for _ in range(5):
            pyuio.Service(card.device.interrupt).close()
        signal.raise_signal(signal.SIGRTMAX - 1)
        service = pyuio.Service(card.device.interrupt, card.acknowledge_program())
        card.raise_interrupt()
        print(service.read(5)[0].values)
    """)
    done = subprocess.run([sys.executable, "-c", program, edu], capture_output=True, text=True, timeout=PROGRAM_LIMIT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "{'status': 1}\n", "")


def test_one_that_was_stopped_still_has_its_events(card: Edu) -> None:
    with pyuio.Service(card.device.interrupt, card.acknowledge_program()) as service:
        for bits in (1, 2, 4):
            raise_interrupt(card, bits)
        service.stop()
        service.stop()
        assert service_threads() == 0
        assert card.device.interrupt.masked
        assert [event.values["status"] for event in service.read(0)] == [1, 2, 4]
        with pytest.raises(pyuio.ClosedError, match="was stopped"):
            service.read()
        with pytest.raises(BlockingIOError):
            card.device.interrupt.read(0)


def test_the_end_of_a_stopped_one_leaves_the_next_one_alone(card: Edu) -> None:
    first = pyuio.Service(card.device.interrupt, card.acknowledge_program())
    first.stop()
    with pyuio.Service(card.device.interrupt, card.acknowledge_program()) as second:
        first.close()
        raise_interrupt(card, 8)
        assert [event.values["status"] for event in second.read(5)] == [8]


def test_stopping_ends_a_read(card: Edu, later: Callable[[Callable[[], object]], threading.Thread]) -> None:
    with pyuio.Service(card.device.interrupt, card.acknowledge_program()) as service:
        errors: list[BaseException] = []

        def read() -> None:
            try:
                service.read()
            except BaseException as error:
                errors.append(error)

        thread = later(read)
        service.stop()
        thread.join(PATIENCE)
        assert [type(error) for error in errors] == [pyuio.ClosedError]


def test_loops(card: Edu) -> None:
    """They end when the test fails, or after as many rounds as the program says; each event has lists of its own."""
    registers = card.registers
    program = [
        Append("status", registers.interrupt_status),
        # Each round acknowledges the lowest bit of two, so that the rounds depend on what was raised.
        While(
            "status",
            0x1,
            0x1,
            [
                Write(registers.acknowledge_interrupt, 0x1),
                Append("status", registers.interrupt_status),
            ],
            most=4,
        ),
        Read("identity", registers.identification),
        While("identity", 0xFF, 0x00, [Append("identity", registers.identification)], most=9),
        Stamp("now"),
        Write(registers.liveness, 0xFF),
        Read("alive", registers.liveness),
        While(
            "alive",
            0xFF,
            0x00,
            [
                Append("alive", registers.liveness),
                While("alive", 0xFF, 0x00, [Read("alive", registers.liveness), Count("inner")], most=3),
            ],
            most=2,
        ),
        Read("last", registers.interrupt_status),
        WriteBack("last", registers.acknowledge_interrupt),
    ]
    with pyuio.Service(card.device.interrupt, program) as service:
        raise_interrupt(card, 0x3)
        raise_interrupt(card, 0x2)
        events: list[pyuio.Event] = []
        while len(events) < 2:
            events += service.read(5)
        assert service.counters == {"inner": 12}
    one, two = events
    assert one.lists["status"] == (3, 2)
    assert two.lists["status"] == (2,)
    assert (one.values["status"], one.values["last"]) == (2, 2)
    for event in events:
        assert event.lists["identity"] == ()
        assert event.lists["alive"] == (0xFFFFFF00, 0xFFFFFF00)
        assert event.values["alive"] == 0xFFFFFF00
        assert set(event.values) == {"status", "identity", "now", "alive", "last"}


def test_a_service_that_nothing_was_sent_to_in_time(card: Edu) -> None:
    with pyuio.Service(card.device.interrupt) as service:
        with pytest.raises(pyuio.WouldBlockError, match=f"{card.device.name}: no event came within 0 s"):
            service.read(0)
        with pytest.raises(pyuio.DeviceTimeoutError) as error:
            service.read(0.01)
        assert not isinstance(error.value, BlockingIOError)
