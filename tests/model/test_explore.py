# SPDX-License-Identifier: MIT
"""`pyuio.model.explore`: what it tries, what it finds, and what it lets pass."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

import pyuio
import pyuio.model
from pyuio import DeviceRemovedError, PyuioError
from pyuio.model import Card, clock, explore
from pyuio.model.explore import Fault
from pyuio.pci.config_image import Command
from pyuio.registers import Field, Register, RegisterMap

module = sys.modules["pyuio.model.explore"]  # in the package, its function has the name


class Status(Register, width=8, access="ro"):
    done = Field(0)
    error = Field(1)


class Registers(RegisterMap):
    address = Register(0x00, width=64)
    go = Register(0x08, access="wo")
    status = Status(0x0C)
    clear = Register(0x10, access="wo")


class Sum(Card):
    """Adds the bytes of a buffer."""

    vendor, device = 0x1234, 0x0002
    bars: ClassVar = {0: 4096, 1: 4096}
    registers: ClassVar = {0: Registers}

    def on_write_go(self, count: int) -> None:
        self.after(1e-5, lambda: self.add(count))

    def add(self, count: int) -> None:
        address = self.regs.address.read()
        try:
            data = self.memory.read(address, count)
            self.memory.write(address, bytes([sum(data) & 0xFF]))
        except pyuio.model.TransferError:
            self.regs.status.error = True
        self.regs.status.done = True
        self.raise_interrupt()

    def on_write_clear(self, value: int) -> None:
        self.regs.status.write(0)
        self.lower_interrupt()


class SumError(PyuioError):
    pass


class Driver(pyuio.Driver):
    """Does all that it should."""

    ids = ("1234:0002",)
    sum_timeout: ClassVar[float | None] = 0.01

    def __init__(self, device: pyuio.Device) -> None:
        super().__init__(device)
        self.registers = Registers(device.bar(0))
        self.buffer = device.dma.alloc(64)

    def start(self, data: bytes) -> None:
        self.buffer[: len(data)] = data
        self.registers.address.write(self.buffer.address)
        self.registers.go.write(len(data))

    def sum(self, data: bytes) -> int:
        self.start(data)
        late = self.device.clock.monotonic() + (self.sum_timeout or 1)
        self.device.interrupt.read(self.sum_timeout)
        while not (status := self.registers.status.snapshot()).done:
            self.device.interrupt.read(self.sum_timeout)
            if self.device.clock.monotonic() > late:
                raise SumError("the card interrupts and is never done")
        if status.error:
            raise SumError("the card could not read the data")
        return self.buffer[0]

    def quiet(self) -> None:
        self.registers.clear.write(1)


def scenario(device: pyuio.Device) -> list[int]:
    with Driver(device) as driver:
        result = [driver.sum(bytes([1, 2, 3, 4]))]
        driver.registers.clear.write(1)
        return [*result, driver.sum(bytes(range(16)))]


def check(result: list[int], fault: Fault) -> None:
    assert fault.misleads or result == [10, 120]


def test_a_good_driver() -> None:
    found = explore(scenario, Sum, check=check).check()
    assert [(one.verb, one.register) for one in found.accesses] == [
        *[("write", "address"), ("write", "go"), ("read", "status"), ("write", "clear")],
        *[("write", "address"), ("write", "go"), ("read", "status"), ("write", "clear")],
    ]
    line = inspect.getsourcelines(Driver.start)[1] + 3
    assert found.accesses[1].line == f"test_explore.py:{line}, in start: self.registers.go.write(len(data))"
    assert (found.interrupts, found.transfers) == (2, 4)
    # Three faults at each access, all ones at two reads, 8 bits at the first of them and 1 at the second; 4 faults of
    # each interrupt, and 3 of each transfer.
    assert found.runs == 3 * 8 + 2 + 8 + 1 + 4 * 2 + 3 * 4
    assert set(found.errors) == {"SumError", "DeviceRemovedError", "DeviceTimeoutError"}
    assert found.errors["DeviceRemovedError"] == 7  # and before the last access, which `close` does not mind
    lines = str(found).splitlines()
    assert lines[0] == "8 accesses, 2 interrupts, 4 transfers: 55 runs, 0 failed"
    assert lines[2].split() == ["removal", "8", "1", "7", "0"]


def test_it_is_the_same_each_time() -> None:
    first, second = (str(explore(scenario, Sum, check=check, every=3)) for _ in range(2))
    clock.sleep(1.23456789e4)
    assert first == second == str(explore(scenario, Sum, check=check, every=3))


def test_the_clock_goes_on_afterwards() -> None:
    came: list[float] = []
    start = clock.monotonic()
    clock.after(5, lambda: came.append(clock.monotonic() - start))
    explore(scenario, Sum, every=10)
    assert clock.monotonic() == start
    clock.sleep(6)
    assert came == [pytest.approx(5)]


def test_some_of_the_faults() -> None:
    found = explore(scenario, Sum, kinds=["removal", "late interrupt"], every=3)
    assert found.runs == 3 + 2
    assert explore(scenario, lambda: Sum(), kinds=["reset"]).runs == 8


def failures(of: Callable[[pyuio.Device], Any], **keywords: Any) -> list[str]:
    """Return what went wrong, once each."""
    found = explore(of, Sum, **keywords)
    if found.failures:
        with pytest.raises(AssertionError, match=rf"{found.runs} runs, {len(found.failures)} failed"):
            found.check()
    return sorted({problem for failure in found.failures for problem in failure.problems})


def test_an_error_of_python_is_none_of_the_driver() -> None:
    def careless(device: pyuio.Device) -> None:
        with Driver(device) as driver:
            try:
                driver.sum(b"123")
            except SumError:
                raise IndexError("of a table") from None

    found = explore(careless, Sum, kinds=["failed transfer"])
    (failure, _) = found.failures
    assert failure.problems == ("IndexError is not a proper error",)
    assert failure.happened == "at access 2: transfer 1 fails"
    assert failure.access == found.accesses[1]
    assert "raise IndexError" in failure.traceback
    text = str(found)
    assert "failed transfer at transfer 1: IndexError is not a proper error" in text
    assert "write of go, test_explore.py:" in text
    assert text.count("Traceback") == 1, "the same one is shown once"
    explore(careless, Sum, kinds=["failed transfer"], allowed=(PyuioError, IndexError)).check()


def test_a_wrong_result() -> None:
    class Hasty(Driver):
        def sum(self, data: bytes) -> int:
            self.start(data)
            self.device.interrupt.read(1)
            return self.buffer[0]

    def hasty(device: pyuio.Device) -> list[int]:
        with Hasty(device) as driver:
            return [driver.sum(bytes([1, 2, 3, 4]))]

    def right(result: list[int], fault: Fault) -> None:
        assert fault.misleads or result == [10]

    found = explore(hasty, Sum, check=right)
    kinds = {failure.fault.kind for failure in found.failures}
    assert kinds == {"spurious interrupt", "failed transfer", "cut transfer"}
    assert {failure.problems[0] for failure in found.failures} == {"the result is wrong"}
    # It closes the device while the card works.
    assert any("reads 4 bytes at 0x400000 while bus mastering is off" in str(failure) for failure in found.failures)


def test_what_is_left() -> None:
    kept: list[Any] = []

    def leaves(thing: Callable[[pyuio.Device], object], only_errors: bool = True) -> Callable[[pyuio.Device], None]:
        def run(device: pyuio.Device) -> None:
            try:
                scenario(device)
            except PyuioError:
                if only_errors:
                    kept.append(thing(device))
                raise

        return run

    def thread(device: pyuio.Device) -> threading.Thread:
        started = threading.Thread(target=gate.wait, name="helper")
        started.start()
        return started

    gate = threading.Event()
    try:
        found = failures(leaves(thread), kinds=["failed transfer"], every=4)
    finally:
        gate.set()
        for one in kept:
            one.join()
    assert found == ["the thread helper is left"]
    kept.clear()
    found = failures(leaves(lambda device: os.open("/dev/null", os.O_RDONLY)), kinds=["removal"])
    assert found == ["1 descriptors of /dev/null are left"]
    for file in kept:
        os.close(file)


def test_what_is_left_without_a_fault() -> None:
    """What each run leaves is told; what the first run makes, and keeps for all, is not."""
    gate = threading.Event()
    kept: list[threading.Thread] = []
    files: list[int] = []

    def keeps(device: pyuio.Device) -> None:
        scenario(device)
        if not files:
            files.append(os.open("/dev/null", os.O_RDONLY))

    def leaves(device: pyuio.Device) -> None:
        scenario(device)
        kept.append(threading.Thread(target=gate.wait, name="reader", daemon=True))
        kept[-1].start()

    assert failures(keeps, kinds=["removal"]) == []
    os.close(*files)
    try:
        with pytest.raises(AssertionError, match="without any fault: the thread reader is left"):
            explore(leaves, Sum, kinds=["removal"])
    finally:
        gate.set()
        for one in kept:
            one.join()
    assert len(kept) == 2


@pytest.mark.parametrize("order", ["little", "big"])
def test_each_bit_of_a_wide_register_is_stuck(order: Literal["little", "big"]) -> None:
    class Wide(RegisterMap):
        time = Register(0x00, width=64, access_width=32, access="ro", word_order=order)

    class Clock(Card):
        vendor, device = 0x1234, 0x0003
        bars: ClassVar = {0: 4096}
        registers: ClassVar = {0: Wide}
        reset_values: ClassVar = {"time": 1 << 32}

    def look(device: pyuio.Device) -> int:
        with device:
            return Wide(device.bar(0)).time.read()

    def check(time: int, fault: Fault) -> None:
        different.append(time ^ 1 << 32)

    different: list[int] = []
    explore(look, Clock, kinds=["stuck bit"], check=check).check()
    assert sorted(different) == [0, *(1 << bit for bit in range(64))], "0 without a fault"


def test_what_is_left_in_the_card() -> None:
    class Loud(Driver):
        def quiet(self) -> None:
            pass

    def loud(device: pyuio.Device) -> None:
        with Loud(device) as driver:
            driver.sum(b"1")
            driver.registers.clear.write(1)

    found = failures(loud)
    assert "the interrupt line is asserted" in found

    def master(device: pyuio.Device) -> None:
        config = device.config
        try:
            scenario(device)
        except PyuioError:
            command = config.command_register  # not by the driver's means, which see to it
            command.change(set=int(Command.BUS_MASTER))
            raise

    assert failures(master, kinds=["failed transfer"]) == ["bus mastering is on"]


def test_a_device_that_stays_open() -> None:
    def open_after_an_error(device: pyuio.Device) -> None:
        driver = Driver(device)
        driver.sum(b"1")
        driver.close()

    found = failures(open_after_an_error, kinds=["failed transfer"])
    assert found == ["the device is not closed", "the interrupt line is asserted"]

    class Broken(Driver):
        def __init__(self, device: pyuio.Device) -> None:
            super().__init__(device)
            self.registers.clear.write(1)
            if self.registers.status.snapshot().done:
                raise SumError("it is done already")

    def in_the_constructor(device: pyuio.Device) -> None:
        with Broken(device):
            pass

    explore(in_the_constructor, Sum).check()  # as of `Driver.open`, which closes it


def test_what_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    class Patient(Driver):
        sum_timeout = None

    def patient(device: pyuio.Device) -> None:
        with Patient(device) as driver:
            driver.sum(b"1")

    assert failures(patient, kinds=["lost interrupt"]) == ["it waits for ever"]

    def polls(device: pyuio.Device) -> None:
        with Driver(device) as driver:
            driver.start(b"1")
            while not driver.registers.status.done:
                pass

    monkeypatch.setattr(module, "_MOST", 1000)
    found = failures(polls, kinds=["stuck bit"])
    assert len(found) == 1
    assert found[0].startswith("it has not ended after 1")

    def spins(device: pyuio.Device) -> None:
        with Driver(device) as driver:
            driver.start(b"\1\1")
            driver.device.clock.sleep(1)
            while driver.buffer[0] != 2:
                pass

    # On a slow machine, the time is over before the device is open: then more is wrong.
    assert "it has not ended after 0.2 s" in failures(spins, kinds=["failed transfer"], seconds=0.2)


def test_it_stops_when_many_runs_do_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def waits(device: pyuio.Device) -> None:
        with device:
            registers = Registers(device.bar(0))
            while registers.status.read():
                pass

    monkeypatch.setattr(module, "_MOST", 1000)
    found = explore(waits, Sum, kinds=["stuck bit", "removal"])
    assert found.stopped
    assert found.errors == {"DeviceRemovedError": 1, "no end": 5}
    assert "\n5 runs did not end, so other faults were not tried: mend these first\n" in str(found)
    assert [failure.happened for failure in found.failures][:2] == [
        "at access 1: status has bit 0 stuck",
        "at access 1: status has bit 1 stuck",
    ]


def test_a_scenario_that_never_ends_by_itself() -> None:
    def spins(device: pyuio.Device) -> None:
        while True:
            pass

    with pytest.raises(AssertionError, match=r"without any fault: it has not ended after 0\.1 s"):
        explore(spins, Sum, seconds=0.1)


def catches_once(device: pyuio.Device) -> None:
    with Driver(device) as driver, contextlib.suppress(BaseException):
        driver.start(b"1")
        while not driver.registers.status.done:
            pass


def raises_another(device: pyuio.Device) -> None:
    try:
        with Driver(device) as driver:
            driver.start(b"1")
            while not driver.registers.status.done:
                pass
    except BaseException as error:
        raise SumError("as usual") from error


def catches_all(device: pyuio.Device) -> None:
    with Driver(device) as driver:
        driver.start(b"1")
        while True:
            try:
                if driver.registers.status.done:
                    break
            except BaseException:
                continue


def catches_all_twice(device: pyuio.Device) -> None:
    with Driver(device) as driver:
        driver.start(b"1")
        driver.device.clock.sleep(1)
        while device:
            with contextlib.suppress(BaseException):
                while True:
                    try:
                        if driver.registers.status.done:
                            return
                        time.sleep(1)
                    except BaseException as error:
                        str(error)


@pytest.mark.parametrize(
    ("swallows", "most", "seconds", "problem"),
    [
        (catches_once, 1000, 20.0, "it has not ended in time, and has caught the BaseException that told it to end"),
        pytest.param(catches_once, 10**9, 1.0, "it has not ended in time, and has caught", marks=pytest.mark.long),
        pytest.param(raises_another, 1000, 20.0, "it has not ended in time, and has caught", marks=pytest.mark.long),
        (catches_all, 1000, 20.0, "accesses, and has caught the BaseException that tells it to end, and gone on"),
        pytest.param(catches_all_twice, 10**9, 1.0, "and gone on: test_explore.py:", marks=pytest.mark.long),
    ],
)
def test_a_scenario_that_catches_its_end(
    swallows: Callable[[pyuio.Device], object], most: int, seconds: float, problem: str
) -> None:
    """It is told again until it ends, and the failure names the line that went on."""
    # In a Python of its own, as an exception that ends an exception's handler can stay the present one in CPython.
    call = f"test_explore.print_problem(test_explore.{swallows.__name__}, {most}, {seconds})"
    command = [sys.executable, "-c", f"from tests.model import test_explore; {call}"]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert problem in done.stdout


def print_problem(swallows: Callable[[pyuio.Device], object], most: int, seconds: float) -> None:
    sys.unraisablehook = lambda _: None  # one may come in a finaliser, which cannot raise it
    vars(module)["_MOST"] = most
    if swallows in (catches_all, catches_all_twice):  # the others end by themselves, within the time that they get
        vars(module)["_GRACE"] = 0.01
    traces = sys.gettrace()
    (failure,) = explore(swallows, Sum, kinds=["stuck bit"], seconds=seconds).failures
    assert sys.gettrace() is traces
    print(failure.problems[0])


def test_the_timer_of_others_goes_on() -> None:
    fired: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda *_: fired.append(1))
    left = signal.setitimer(signal.ITIMER_REAL, 0.5)
    start = time.monotonic()
    try:
        explore(scenario, Sum, every=10)
        assert fired == []
        while not fired and time.monotonic() < start + 10:
            time.sleep(0.01)
        assert fired == [1]
    finally:
        signal.setitimer(signal.ITIMER_REAL, *left)
        signal.signal(signal.SIGALRM, before)


def test_a_transfer_that_goes_on_after_the_end() -> None:
    class Slow(Sum):
        def on_write_go(self, count: int) -> None:
            self.after(1, lambda: self.add(count))

    def leaves_early(device: pyuio.Device) -> None:
        with Driver(device) as driver:
            driver.start(b"1")

    with pytest.raises(AssertionError, match=r"without any fault: the card complains: .* while bus mastering is off"):
        explore(leaves_early, Slow)


def test_without_a_fault_all_is_well() -> None:
    def wrong(device: pyuio.Device) -> None:
        with Driver(device):
            raise KeyError("at once")

    def never(result: object, fault: object) -> None:
        raise AssertionError("1 == 2")

    with pytest.raises(KeyError, match="at once"):
        explore(wrong, Sum)
    with pytest.raises(AssertionError, match="without any fault: the device is not closed"):
        explore(lambda device: None, Sum)
    with pytest.raises(AssertionError, match="without any fault: the scenario makes no access to the card"):
        explore(lambda device: device.close(), Sum)
    with pytest.raises(AssertionError, match="1 == 2"):
        explore(scenario, Sum, check=never)


def test_a_scenario_that_is_different_each_time() -> None:
    numbers = itertools.count()

    def changes(device: pyuio.Device) -> None:
        with Driver(device) as driver:
            if next(numbers) == 0:
                driver.sum(b"1")

    found = failures(changes, kinds=["removal"])
    assert found == ["the fault did not come: the scenario does not do the same in each run"]


def test_memory_behind_a_bar() -> None:
    def writes(device: pyuio.Device) -> int:
        with device:
            device.bar(1).write32(8, 5)
            return device.bar(1).read32(8)

    found = explore(writes, Sum, check=lambda result, fault: None).check()
    assert [one.register for one in found.accesses] == ["BAR 1 + 0x8"] * 2
    assert found.errors == {DeviceRemovedError.__name__: 2}


def test_bad_arguments() -> None:
    card: Any = Sum()
    with pytest.raises(TypeError, match="explore takes a class of cards"):
        explore(scenario, card)
    with pytest.raises(TypeError, match="not one of 5"):
        explore(scenario, lambda: 5)  # type: ignore[arg-type,return-value]
    with pytest.raises(TypeError, match="the scenario is a function that takes a device, not 5"):
        explore(5, Sum)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"kinds of faults, as in \['removal'\], not 'removal' itself"):
        explore(scenario, Sum, kinds="removal")
    with pytest.raises(ValueError, match="no faults called flood"):
        explore(scenario, Sum, kinds=["flood"])
    with pytest.raises(ValueError, match="every is 1 or more"):
        explore(scenario, Sum, every=0)
