# SPDX-License-Identifier: MIT
"""Every fault at every access: `explore` runs a driver against them all, and says what did not end well.

.. code-block:: python

    def scenario(device):
        with Edu(device) as edu:
            return edu.factorial(5)

    def test_faults():
        explore(scenario, card=EduCard).check()

docs/explore.md says how to read what it prints.
"""

from __future__ import annotations

import contextlib
import gc
import inspect
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from pyuio.driver import Driver
from pyuio.errors import PyuioError
from pyuio.model import backend
from pyuio.model.card import Card
from pyuio.model.clock import NothingPlannedError, clock
from pyuio.model.complaint import Complaint, driver_line, line_of
from pyuio.model.faults import Faults
from pyuio.model.machine import Machine

if TYPE_CHECKING:
    from types import FrameType

    from typing_extensions import Self

    from pyuio.device import Device

AFTERWARDS = 10.0
"""Virtual seconds for which a card goes on after a run, in which it must do nothing that it complains about."""

_LATE = (1e-3, 2.0)  # seconds: within the patience of most drivers, and beyond it
_SPURIOUS = 5e-6  # seconds for which a line is asserted without a cause; an access takes 1 us
_MOST_HANGS = 5  # runs; one may take as long as all others together, and they often have one cause
_HANG = "no end"  # stands for the name of an error
_MOST = 1_000_000  # accesses of a run, and twenty times those of the run without a fault; then it hangs
# A run that is to end has so many accesses and seconds to close what it has opened. If it goes on after that, it has
# caught what should end it, and is told again after pauses of up to so many seconds. They differ, or each would end at
# the same place.
_MORE = 1000
_GRACE = 1.0
_LONGEST_PAUSE = 1e-3


class Access(NamedTuple):
    """An access of the driver to a BAR, in the run without a fault.

    Attributes:
        verb: "read" or "write".
        register: its name; "BAR 2 + 0x10" for a place in memory.
        line: the driver's, as in a `Complaint`.
    """

    verb: str
    register: str
    line: str


class Fault(NamedTuple):
    """A fault, and when it comes.

    Attributes:
        kind: one of `KINDS`; "none" in the run without a fault.
        number: of the access, the interrupt or the transfer at which it comes, from 1.
        detail: which bit, which vector, how late; or "".
        misleads: whether it tells driver or card something false. Without a checksum, say, nobody can know better: a
            wrong result is no fault of the driver.
    """

    kind: str
    number: int
    detail: str
    misleads: bool

    def __str__(self) -> str:
        where = f"{_COUNTED.get(self.kind, 'access')} {self.number}"
        return " ".join(filter(None, [self.kind, self.detail, f"at {where}"]))


NONE = Fault("none", 0, "", misleads=False)
"""Stands for no fault, in the first run."""

_COUNTED = {
    "lost interrupt": "interrupt",
    "doubled interrupt": "interrupt",
    "late interrupt": "interrupt",
    "failed transfer": "transfer",
    "cut transfer": "transfer",
    "corrupt transfer": "transfer",
}
KINDS = ("removal", "reset", "reads ones", "stuck bit", "spurious interrupt", *_COUNTED)
"""The kinds of faults, those of `Faults`."""

_PYUIO, _LIBRARY = (
    str(path / "_").removesuffix("_") for path in (Path(__file__).parent.parent, Path(os.__file__).parent)
)

_Plan = tuple[Fault, Callable[[Faults], None]]


class Failure(NamedTuple):
    """A run that did not end well.

    Attributes:
        fault: what went wrong with the card.
        problems: what was not as it should be at the end, in words.
        happened: what the fault did, in words.
        access: the access at which that began; None if there was none yet.
        traceback: of the error that ended the scenario; "" if there was none.
    """

    fault: Fault
    problems: tuple[str, ...]
    happened: str
    access: Access | None
    traceback: str

    @property
    def headline(self) -> str:
        """All but the traceback, as text."""
        lines = [f"{self.fault}: {'; '.join(self.problems)}", f"  {self.happened}"]
        if self.access is not None:
            lines += [f"  {self.access.verb} of {self.access.register}, {self.access.line or 'not by the driver'}"]
        return "\n".join(lines)

    def __str__(self) -> str:
        return "\n".join([self.headline, *(f"    {line}" for line in self.traceback.splitlines())])


class Exploration:
    """What `explore` found; as text, a table and the failures.

    Attributes:
        accesses: those of the run without a fault, in order.
        interrupts: how many interrupts the card raised in it.
        transfers: how many times the card read or wrote memory in it.
        runs: how many runs with a fault there were.
        errors: how many of them ended with each kind of error, by its name.
        failures: those that did not end well.
        stopped: whether it was left at that because too many runs did not end.
    """

    def __init__(self, accesses: Sequence[Access], interrupts: int, transfers: int) -> None:
        self.accesses, self.interrupts, self.transfers = tuple(accesses), interrupts, transfers
        self.failures: list[Failure] = []
        self.stopped = False
        self.errors: Counter[str] = Counter()
        self._ends: Counter[tuple[str, str]] = Counter()

    @property
    def runs(self) -> int:
        """How many runs with a fault there were."""
        return sum(self._ends.values())

    def note(self, fault: Fault, error: str, failure: Failure | None) -> None:
        """Add a run, which ended with an error of this name, or with none: ""."""
        self._ends[fault.kind, "failed" if failure else "error" if error else "success"] += 1
        if failure is not None:
            self.failures.append(failure)
        if error:
            self.errors[error] += 1

    def check(self) -> Self:
        """Return itself. AssertionError: there are failures, which it lists."""
        if self.failures:
            raise AssertionError(str(self))
        return self

    def __str__(self) -> str:
        counts = f"{len(self.accesses)} accesses, {self.interrupts} interrupts, {self.transfers} transfers"
        lines = [f"{counts}: {self.runs} runs, {len(self.failures)} failed"]
        lines += [f"{'fault':20}{'runs':>8}{'success':>10}{'error':>8}{'failed':>8}"]
        for kind in KINDS:
            ends = [self._ends[kind, end] for end in ("success", "error", "failed")]
            if any(ends):
                lines += [f"{kind:20}{sum(ends):8}{ends[0]:10}{ends[1]:8}{ends[2]:8}"]
        lines += [f"{name}: {number}" for name, number in self.errors.most_common()]
        if self.stopped:
            lines += ["", f"{_MOST_HANGS} runs did not end, so other faults were not tried: mend these first"]
        shown: set[str] = set()
        for failure in self.failures:  # a traceback is shown once
            place = failure.traceback.rpartition("\n  File")[2].partition("\n")[0]
            lines += ["", failure.headline if place in shown else str(failure)]
            shown.add(place)
        return "\n".join(lines)


def explore(
    scenario: Callable[[Device], Any],
    card: Callable[[], Card],
    *,
    check: Callable[[Any, Fault], object] | None = None,
    kinds: Collection[str] = KINDS,
    every: int = 1,
    allowed: tuple[type[Exception], ...] = (PyuioError,),
    seconds: float = 20.0,
) -> Exploration:
    """Run a scenario once, then again with each fault at each access, interrupt and transfer of the card.

    Each run has a new card, and a time that begins at 0. These are the faults:

    - before each access: the card is pulled out; it resets, as after a loss of power; a spurious interrupt.
    - from each read on: the register reads as all ones; one of its bits is stuck at what it just was not. At the first
      read of a register that is each of its bits in turn, later each that has changed since the read before, and
      another one each time.
    - each interrupt is lost, sent twice, or late, by 1 ms and by 2 s.
    - each transfer fails, stops half way, or moves one wrong bit.

    A run ends well if all of this is true:

    - The scenario returned, or raised one of `allowed`. Anything else is a failure: an AssertionError of the scenario
      or of `check`, an error of Python such as IndexError, and also ValueError and OSError themselves, as a program
      that catches PyuioError must catch all that a card can do to it.
    - It waited for nothing that can never come (`NothingPlannedError`), and ended within `seconds`, and within
      twenty times the accesses of the first run and a million more. What ends it then is a BaseException; it did not
      catch that and go on.
    - `check` did not object to what it returned. A fault that misleads (`Fault.misleads`) may lead to a wrong result,
      unless the scenario asserts otherwise.
    - The device is closed. If the driver's constructor raised, closing is left to who opened the device, as in
      `Driver.open`; then `explore` does it.
    - Nothing is left, ten virtual seconds later: no memory for DMA, and, unless the card is gone, no bus mastering, no
      message interrupts enabled, no line asserted. There are no threads and no file descriptors that were not there
      before.
    - The card has not complained, neither during the run nor in those ten seconds: about a transfer to memory that is
      the program's again, say.

    After five runs that did not end, no more are made (`Exploration.stopped`).

    What a fault misleads the driver to is not held against it: a card that has reset, or lies, does not complain
    (`Faults.misleading`), and may have its line asserted at the end, as when it seemed to be ready and was not.

    Args:
        scenario: called with an open device. It does the same each time: no random numbers, no real time, no threads of
            its own. It closes the device, as ``with Driver(device)`` does.
        card: a class of cards, or a function that returns a new one.
        check: called with what the scenario returned, and the fault. It raises AssertionError if the result is wrong.
        kinds: which faults, of `KINDS`.
        every: take every n-th of each kind only.
        allowed: the errors that are proper.
        seconds: of real time that one run may take. It needs the main thread, and SIGALRM.

    Returns:
        What was found. `Exploration.check` raises if a run did not end well.

    Raises:
        Exception: what the scenario, or `check`, raised without a fault.
        AssertionError: without a fault, something was left, the scenario did not end, or it made no access to the card.
        ValueError: there are no such faults.
        TypeError: `card` is a card itself, which would be used up after one run, or `scenario` is no function, or a
            coroutine's.
    """
    if isinstance(card, Card) or not callable(card):
        raise TypeError(f"explore takes a class of cards, or a function that makes one, for each run, not {card!r}")
    if not callable(scenario) or inspect.iscoroutinefunction(scenario):
        raise TypeError(f"the scenario is a function that takes a device, not {scenario!r}; call asyncio.run() in one")
    if isinstance(kinds, str):
        raise TypeError(f"kinds holds kinds of faults, as in [{kinds!r}], not {kinds!r} itself")
    if unknown := sorted(set(kinds) - set(KINDS)):
        raise ValueError(f"there are no faults called {', '.join(unknown)}; there are {', '.join(KINDS)}")
    if every < 1:
        raise ValueError(f"every is 1 or more, not {every}")
    runner = _Runner(scenario, card, check, allowed, seconds)
    with runner.watching():
        plans, found = runner.rehearse()
        for kind in KINDS:
            if kind in kinds:
                for fault, set_fault in [plan for plan in plans if plan[0].kind == kind][::every]:
                    runner.explore(found, fault, set_fault)
                    if found.errors[_HANG] == _MOST_HANGS:
                        found.stopped = True
                        return found
    return found


class _HangError(BaseException):
    """A run takes too long. It passes by what a driver should catch."""


class _Rehearsal:
    """The run without a fault: it records the accesses, and what can go wrong at each."""

    def __init__(self, card: Card) -> None:
        self._card = card
        self.accesses: list[Access] = []
        self.plans: list[_Plan] = []
        # By name, and by the first bit that the access reaches: the words of a memory count as one register.
        self._reads: Counter[tuple[str, int]] = Counter()
        self._values: dict[tuple[str, int], int] = {}
        function = card.function
        self._read, self._write = function._read, function._write
        function._read, function._write = self.read, self.write

    def read(self, bar: int, offset: int, width: int) -> int:
        """Read, record, and plan the faults of a register that is read."""
        value = self._read(bar, offset, width)
        number = self._note("read", bar, offset)
        slot = self._card.slot_at(bar, offset, writing=False)
        if slot is not None:
            name, bits = slot.name, 8 * width
            first = 8 * slot.within(offset)[1]
            self._plan(Fault("reads ones", number, name, misleads=True), Faults.read_ones, name, at_access=number)
            reads = self._reads[name, first]
            self._reads[name, first] += 1
            before, self._values[name, first] = self._values.get((name, first), ~value), value
            for bit in [one for one in range(bits) if one == reads % bits or (before ^ value) >> one & 1]:
                stuck = ~value >> bit & 1
                fault = Fault("stuck bit", number, f"{name}[{first + bit}] = {stuck}", misleads=True)
                self._plan(fault, Faults.stick, name, first + bit, stuck, at_access=number)
        return value

    def write(self, bar: int, offset: int, width: int, value: int) -> None:
        """Write, and record."""
        self._note("write", bar, offset)
        self._write(bar, offset, width, value)

    def _note(self, verb: str, bar: int, offset: int) -> int:
        slot = self._card.slot_at(bar, offset, writing=verb == "write")
        self.accesses.append(Access(verb, slot.name if slot else f"BAR {bar} + {offset:#x}", driver_line()))
        return len(self.accesses)

    def _plan(self, fault: Fault, method: Callable[..., None], *arguments: Any, **keywords: Any) -> None:
        self.plans.append((fault, lambda faults: method(faults, *arguments, **keywords)))

    def complete(self) -> None:
        """Plan the other faults."""
        faults = self._card.faults
        vectors = sorted(faults.vectors or {0})
        for number in range(1, len(self.accesses) + 1):
            vector = vectors[number % len(vectors)]
            self._plan(Fault("removal", number, "", misleads=False), Faults.remove, at_access=number)
            self._plan(Fault("reset", number, "", misleads=True), Faults.reset, at_access=number)
            fault = Fault("spurious interrupt", number, f"of vector {vector}" if vector else "", misleads=False)
            self._plan(fault, Faults.spurious_interrupt, at_access=number, vector=vector, seconds=_SPURIOUS)
        for number in range(1, faults.interrupts + 1):
            self._plan(Fault("lost interrupt", number, "", misleads=False), Faults.lose_interrupt, number)
            self._plan(Fault("doubled interrupt", number, "", misleads=False), Faults.double_interrupt, number)
            for late in _LATE:
                fault = Fault("late interrupt", number, f"by {late:g} s", misleads=False)
                self._plan(fault, Faults.delay_interrupt, number, late)
        for number in range(1, faults.transfers + 1):
            self._plan(Fault("failed transfer", number, "", misleads=False), Faults.fail_transfer, number)
            self._plan(Fault("cut transfer", number, "", misleads=False), Faults.cut_transfer, number)
            self._plan(Fault("corrupt transfer", number, "", misleads=True), Faults.corrupt_transfer, number)


class _Runner:
    """Runs a scenario, and judges how it ended. The arguments are those of `explore`."""

    def __init__(
        self,
        scenario: Callable[[Device], Any],
        card: Callable[[], Card],
        check: Callable[[Any, Fault], object] | None,
        allowed: tuple[type[Exception], ...],
        seconds: float,
    ) -> None:
        self._scenario, self._make, self._check = scenario, card, check
        self._allowed, self._seconds = allowed, seconds
        self._watches = False
        self._runs = self._ending = False
        self._told = 0  # how often the present run was told to end
        self._why = self._line = ""
        self._trace_before: Any = None
        self._random = random.Random(0)
        self._most = 0

    # ---- The real time that a run may take ----

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the time of runs in the block; the timer of others, such as pytest-timeout, goes on after it."""
        if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
            yield
            return
        start = time.monotonic()
        before = signal.signal(signal.SIGALRM, self._hang)
        left, interval = signal.setitimer(signal.ITIMER_REAL, 0)
        self._watches = True
        try:
            yield
        finally:
            self._watch(0)
            signal.signal(signal.SIGALRM, before)
            if left:
                signal.setitimer(signal.ITIMER_REAL, max(0.001, left - (time.monotonic() - start)), interval)

    def _watch(self, seconds: float) -> None:
        if self._watches:
            signal.setitimer(signal.ITIMER_REAL, seconds)

    def _within_time(self, call: Callable[[], Any]) -> Any:
        """Return what a part of a run returns. _HangError: it took too long."""
        self._told, self._line = 0, ""
        self._runs = True
        self._watch(self._seconds)
        try:
            return call()
        finally:
            self._stop()

    def _stop(self) -> None:
        self._runs = False  # first: from here on, a signal that is late does nothing
        self._watch(0)
        if self._told > 1:
            sys.settrace(self._trace_before)

    def _hang(self, number: int, frame: FrameType | None) -> None:
        if self._ending:  # on a slow machine: without this, no telling would come to its end before the next
            self._watch(_LONGEST_PAUSE)
        elif self._runs:
            self._end(f"it has not ended after {self._seconds:g} s", frame)

    def _too_many(self, faults: Faults) -> None:
        faults.at(faults.accesses + _MORE, partial(self._too_many, faults))
        self._end(f"it has not ended after {self._most} accesses", sys._getframe())

    def _end(self, why: str, frame: FrameType | None) -> NoReturn:
        """Tell the run to end. If it was told before, say which line went on nevertheless, and tell the next, too."""
        self._ending = True
        try:
            self._told += 1
            frames = list(self._frames_of_scenario(frame))
            if frames:
                self._line = f": {line_of(frames[0])}"
            if self._told == 1:
                self._why = why
            else:
                if self._told == 2:
                    self._trace_before = sys.gettrace()
                why = f"{self._why}, and has caught the BaseException that tells it to end, and gone on{self._line}"
                self._end_at_next_line(_HangError(why), frames)
            self._watch(_GRACE if self._told == 1 else self._random.uniform(1e-5, _LONGEST_PAUSE))
            raise _HangError(why)
        finally:
            self._ending = False

    @staticmethod
    def _frames_of_scenario(frame: FrameType | None) -> Iterator[FrameType]:
        """Yield the frames of the run, the innermost first, without those of pyuio and of Python's library."""
        while frame is not None and frame.f_code is not _Runner._within_time.__code__:
            if _is_of_scenario(frame):
                yield frame
            frame = frame.f_back

    def _end_at_next_line(self, error: _HangError, frames: list[FrameType]) -> None:
        """Let the next line of the scenario raise an error, too: if it is that of a handler, this does not catch it.

        Lines of pyuio and of Python's library raise nothing: their locks would stay locked.
        """

        def trace(frame: FrameType, event: str, argument: object) -> Callable[..., Any] | None:
            if not _is_of_scenario(frame):
                return None
            if event == "line" and self._runs:
                raise error  # this ends the tracing
            return trace

        for frame in frames:
            frame.f_trace = trace
        sys.settrace(trace)

    # ---- Runs ----

    def rehearse(self) -> tuple[list[_Plan], Exploration]:
        """Run without a fault; return what can go wrong, and what is to be filled in."""
        plans, found, left = self._rehearse()
        if left:  # made at the first use, and kept; or left at each run
            plans, found, left = self._rehearse()
        if left:
            raise AssertionError(f"without any fault: {'; '.join(left)}")
        return plans, found

    def _rehearse(self) -> tuple[list[_Plan], Exploration, list[str]]:
        """Run without a fault; return what can go wrong, what is to be filled in, and what is left."""
        before = _held()
        with clock.anew():
            card = self._make()
            if not isinstance(card, Card):
                raise TypeError(f"explore takes a class of cards, or a function that makes one, not one of {card!r}")
            rehearsal = _Rehearsal(card)
            error, problems = self._run(card, NONE)
            if isinstance(error, _HangError):
                raise AssertionError(f"without any fault: {error}") from error
            if error is not None:
                raise error
            if problems:
                raise AssertionError(f"without any fault: {'; '.join(problems)}")
            if not rehearsal.accesses:
                raise AssertionError("without any fault: the scenario makes no access to the card, so none can fail")
            rehearsal.complete()
            self._most = 20 * len(rehearsal.accesses) + _MOST
            found = Exploration(rehearsal.accesses, card.faults.interrupts, card.faults.transfers)
        return rehearsal.plans, found, _left(before)

    def explore(self, found: Exploration, fault: Fault, set_fault: Callable[[Faults], None]) -> None:
        """Run with one fault, and add what it led to."""
        before = _held()
        with clock.anew():
            card = self._make()
            set_fault(card.faults)
            card.faults.at(self._most, partial(self._too_many, card.faults))
            error, problems = self._run(card, fault)
        if not card.faults.happened:
            problems.append("the fault did not come: the scenario does not do the same in each run")
        text = name = ""
        if error is not None:
            name = _HANG if isinstance(error, _HangError) else type(error).__name__
            trace = error.__traceback__ and error.__traceback__.tb_next  # without the frame of this file
            text = "".join(traceback.format_exception(type(error), error, trace))
            _clear(error)
            error = None
        problems += _left(before)
        failure = None
        if problems:
            began = card.faults.began
            access = found.accesses[began - 1] if 0 < began <= len(found.accesses) else None
            failure = Failure(fault, tuple(problems), "; ".join(card.faults.happened), access, text)
        found.note(fault, name, failure)

    def _run(self, card: Card, fault: Fault) -> tuple[BaseException | None, list[str]]:
        """Run once; return the error that the scenario raised, and what is wrong."""
        problems: list[str] = []
        error: BaseException | None = None
        device = backend.open(card)
        threads = threading.active_count()

        def run() -> None:
            result = self._scenario(device)
            if self._check is not None:
                self._check(result, fault)

        def end() -> None:
            if not device.closed:
                if error is None or not _in_constructor(error):
                    problems.append("the device is not closed")
                device.close()
            if threading.active_count() <= threads:  # with another one, it would sleep in real time
                clock.sleep(AFTERWARDS)

        try:
            self._within_time(run)
        except BaseException as caught:
            self._stop()  # again, as a signal may have come there
            if isinstance(caught, (KeyboardInterrupt, SystemExit)):
                raise
            error = caught
        if self._told and not isinstance(error, _HangError):
            hang = _HangError("it has not ended in time, and has caught the BaseException that told it to end")
            hang.__cause__, error = error, hang
        if error is not None:
            problems += self._judged(error)
        try:
            self._within_time(end)
        except BaseException as caught:
            self._stop()
            if isinstance(caught, (KeyboardInterrupt, SystemExit)):
                raise
            problems.append(f"afterwards: {type(caught).__name__}: {caught}")
            error = error or caught
        return error, problems + _remains(card, fault)

    def _judged(self, error: BaseException) -> list[str]:
        """Return what is wrong with an error that ended the scenario."""
        if isinstance(error, _HangError):
            return [str(error)]
        if isinstance(error, NothingPlannedError):
            return ["it waits for ever"]
        if isinstance(error, Complaint):
            return []  # it is one of the card's, which `_remains` has
        if isinstance(error, AssertionError):
            return ["the result is wrong"]
        if isinstance(error, self._allowed):
            return []
        return [f"{type(error).__name__} is not a proper error"]


def _is_of_scenario(frame: FrameType) -> bool:
    """Return whether a frame is the scenario's or the driver's: neither pyuio's nor that of Python's library."""
    name = frame.f_code.co_filename
    if name.startswith((_PYUIO, "<")):
        return False
    return not name.startswith(_LIBRARY) or "-packages" in name  # site-packages, Debian's dist-packages


def _in_constructor(error: BaseException) -> bool:
    """Return whether the constructor of a driver raised the error."""
    codes = {frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)}
    return any(getattr(kind.__init__, "__code__", None) in codes for kind in _kinds_of(Driver))


def _kinds_of(kind: type[Driver]) -> Iterator[type[Driver]]:
    yield kind
    for derived in kind.__subclasses__():
        yield from _kinds_of(derived)


def _remains(card: Card, fault: Fault) -> list[str]:
    """Return what is left of a device that is closed, and what the card complained about, in words."""
    machine, function = card.function.host, card.function
    assert isinstance(machine, Machine)
    left = [f"the card complains: {complaint}" for complaint in card.complaints]
    if not machine.mappings.empty:
        left.append("memory for DMA is left")
    if not card.removed:
        left += ["bus mastering is on"] if function.is_master else []
        left += ["message interrupts are enabled"] if function.messages else []
        left += ["the interrupt line is asserted"] if machine.asserted and not fault.misleads else []
    return left


def _clear(error: BaseException | None) -> None:
    """Let go of what the frames of an error hold."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _held() -> tuple[set[threading.Thread], Counter[str]]:
    """Return the threads, and what the file descriptors lead to, with the number of each."""
    files: Counter[str] = Counter()
    for name in os.listdir("/dev/fd"):  # noqa: PTH208 - done for each run
        with contextlib.suppress(OSError):
            files[os.readlink(f"/dev/fd/{name}")] += 1  # noqa: PTH115
    return set(threading.enumerate()), files


def _left(before: tuple[set[threading.Thread], Counter[str]]) -> list[str]:
    """Return the threads and files that are left of a run, in words."""
    now = _held()
    if now != before:
        gc.collect()  # some are freed with an object in a cycle
        now = _held()
    threads, files = now[0] - before[0], now[1] - before[1]
    left = [f"the thread {name} is left" for name in sorted(thread.name for thread in threads)]
    return left + [f"{number} descriptors of {path} are left" for path, number in sorted(files.items())]
