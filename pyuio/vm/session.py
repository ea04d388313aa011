# SPDX-License-Identifier: MIT
"""One run of a guest: moves bytes, follows COMMAND's progress, and reports how the run ended."""

from __future__ import annotations

import re
import select
import socket
import time
from collections.abc import Callable, Sequence

from pyuio.vm import hang_report, terminal
from pyuio.vm.cards import Cards
from pyuio.vm.errors import GuestExitError, GuestHangError, GuestPanicError, GuestStartError, GuestTimeoutError
from pyuio.vm.monitor import Monitor
from pyuio.vm.process import Lines, Process
from pyuio.vm.streams import Incoming, Outgoing, Pending

# In these two limits, time in which a thread of QEMU waited for a processor that others had counts `LEAST_SHARE`.
BOOT_TIME_LIMIT = 60.0  # seconds until COMMAND starts; a slow emulation takes 10
HEARTBEAT = 5  # seconds between two signs of life
SILENCE_LIMIT = 30.0  # seconds without one, until the guest is said to stand still
LEAST_SHARE = 0.2
DRAIN_TIME_LIMIT = 5.0  # seconds of silence, after COMMAND ended, until its output is given up
PANIC_TIME_LIMIT = 2.0  # seconds for the last lines to arrive
TICK = 0.2  # seconds that a turn waits at most
_READ = select.POLLIN
_BROKEN = select.POLLERR | select.POLLHUP | select.POLLNVAL
PANIC = "Kernel panic - not syncing"


class Clock:
    """The time in which a guest could have run: it goes slower while others have the processors."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._looked = time.monotonic()
        self._delays = process.delays()

    def passed(self) -> float:
        """Return the seconds of this clock since the last call that returned any; 0.0 until a second is over."""
        now = time.monotonic()
        wall = now - self._looked
        if wall < 1.0:
            return 0.0
        delays = self._process.delays()
        waited = max((delay - self._delays.get(thread, delay) for thread, delay in delays.items()), default=0.0)
        self._looked, self._delays = now, delays
        # While this program itself was stopped, heartbeats wait to be read: count a moment only.
        return max(min(wall, 2.0) - waited, min(wall, 2.0) * LEAST_SHARE)


class Session:
    """One run of QEMU.

    Args:
        process: QEMU.
        sockets: The sockets to QEMU's console, monitor and ports, by name.
        monitor: QEMU's monitor.
        configuration: Called when the guest asks for its configuration; returns that.
        restored: Whether the guest starts from a saved state; it asked before that was saved.
        incoming: The stream to COMMAND.
        outgoing: The streams from COMMAND.
        console: Keeps the kernel's last lines.
        deadline: When the run must be over, by the monotonic clock; None for never.
        started: Called when COMMAND starts.
        show: Called with each line of the kernel and of QEMU.
        cards: The guest's cards in Python; None if it has none.

    Attributes:
        running: Whether COMMAND has started.
    """

    def __init__(
        self,
        process: Process,
        sockets: dict[str, socket.socket],
        monitor: Monitor,
        configuration: Callable[[], bytes],
        restored: bool,
        incoming: Incoming,
        outgoing: Sequence[Outgoing],
        console: Lines,
        deadline: float | None,
        started: Callable[[], None],
        show: Callable[[str], None],
        cards: Cards | None,
    ) -> None:
        self._process = process
        self._cards = cards
        self._monitor = monitor
        self._configuration = configuration
        self._answer = Pending(sockets["control"])
        self._incoming = incoming
        self._outgoing = outgoing
        self._deadline = deadline
        self._started = started
        self._show = show
        self._console = console
        self._messages = Lines()
        self._press = sockets["console"].sendall
        self._control = Lines()
        self._restored = restored
        self.running = False
        self._status: int | None = None
        self._clock = Clock(process)
        self._booting = 0.0  # seconds of that clock since the start
        self._silence = 0.0  # seconds of it since the last heartbeat
        self._beats = False
        self._stopped = False
        self._inputs: dict[int, Callable[[], None]] = {
            sockets["control"].fileno(): lambda: self._listen(sockets["control"], self._obey),
            sockets["console"].fileno(): lambda: self._listen(sockets["console"], self._record),
            sockets["heartbeat"].fileno(): lambda: self._listen(sockets["heartbeat"], self._beat),
            sockets["monitor"].fileno(): lambda: self._listen(sockets["monitor"], self._hear),
            process.messages.fileno(): lambda: self._listen(process.messages, self._note),
        }
        self._requests = Lines()
        self._answers = Pending(sockets["cards"])
        if cards is not None:
            cards.attach(monitor, self._answers)
            self._inputs[sockets["cards"].fileno()] = lambda: self._listen(sockets["cards"], self._ask_cards)

    def run(self, progress: terminal.Progress) -> int:
        """Run until COMMAND has ended and all its output was passed on.

        Returns:
            COMMAND's exit status.

        Raises:
            GuestError: The run failed before; the subclass says why.
        """
        quiet_since = time.monotonic()
        panic: float | None = None
        while True:
            busy = self._turn()
            now = time.monotonic()
            if not self.running:
                progress.tick()
            over = all(stream.done for stream in self._outgoing)
            if self._cards is not None:
                ended = over and (self._status is not None or not self._inputs)
                self._cards.check(over=ended or not self.running)
            if over:
                if self._status is not None:
                    return self._status
                if not self._inputs:
                    raise self._ending()
            if self._deadline is not None and now >= self._deadline:
                raise GuestTimeoutError("the time limit of the run passed")
            passed = self._clock.passed()
            if not self._stopped:
                self._booting += passed
                self._silence += passed
            if not self.running and self._booting >= BOOT_TIME_LIMIT:
                raise self._hang(f"the guest did not reach COMMAND within {BOOT_TIME_LIMIT:.0f} s")
            if self._beats and self._silence >= SILENCE_LIMIT:
                raise self._hang(f"the guest stood still for {SILENCE_LIMIT:.0f} s")
            if panic is None and PANIC in self._console:
                panic = now
            if panic is not None and now >= panic + PANIC_TIME_LIMIT:
                raise self._panic()
            if busy or self._status is None:
                quiet_since = now
            elif now >= quiet_since + DRAIN_TIME_LIMIT:
                self._show("COMMAND ended, but the end of its output did not come")
                return self._status

    def _turn(self) -> bool:
        """Wait a moment for something to do, and do it; return whether output moved or waits for its reader."""
        wanted: list[tuple[int, int, Callable[[], None]]] = [(fd, _READ, take) for fd, take in self._inputs.items()]
        cards = self._cards.inputs() if self._cards is not None else {}
        wanted += [(fd, _READ, take) for fd, take in cards.items()]
        streams: list[Incoming | Outgoing | Pending] = [self._answer, self._answers, self._incoming, *self._outgoing]
        for stream in streams:
            if interest := stream.interest():
                wanted.append((*interest, stream.advance))
        masks: dict[int, int] = {}  # the descriptor of the terminal's port is polled for reading and for writing
        for fd, mask, _ in wanted:
            masks[fd] = masks.get(fd, 0) | mask
        poller = select.poll()
        for fd, mask in masks.items():
            poller.register(fd, mask)
        limit = TICK
        if self._deadline is not None:
            limit = min(limit, max(0.0, self._deadline - time.monotonic()))
        events = dict(poller.poll(limit * 1000))
        ready = [(fd, act) for fd, mask, act in wanted if events.get(fd, 0) & (mask | _BROKEN)]
        for _, act in ready:
            act()
        return any(stream.waiting for stream in self._outgoing) or any(
            fd not in self._inputs and fd not in cards for fd, _ in ready
        )

    def _listen(self, source: socket.socket, take: Callable[[bytes], None]) -> None:
        """Read from an input, on which QEMU or the guest speaks, and drop the input when it ends."""
        try:
            data = source.recv(65536)
        except ConnectionError:
            data = b""
        if data:
            take(data)
        else:
            del self._inputs[source.fileno()]

    def _record(self, data: bytes) -> None:
        for line in self._console.feed(data):
            self._show(line)

    def _note(self, data: bytes) -> None:
        for line in self._messages.feed(data):
            self._show(line)

    def _obey(self, data: bytes) -> None:
        for line in self._control.feed(data):
            word, _, value = line.partition(" ")
            if word == "ready":
                self._answer.add(self._configuration())
            elif word == "started":
                self.running = True
                self._started()
            elif word == "status" and re.fullmatch("[0-9]{1,3}", value):
                self._status = int(value)

    def _ask_cards(self, data: bytes) -> None:
        for line in self._requests.feed(data):
            if self._cards is not None:
                self._cards.obey(line)

    def _beat(self, _: bytes) -> None:
        self._silence = 0.0
        self._beats = self._status is None

    def _hear(self, data: bytes) -> None:
        """Hear what QEMU's monitor says."""
        for message in self._monitor.take(data):
            if self._cards is not None and self._cards.hear(message):
                continue
            facts = message.get("data", {})
            if "error" in message:
                text = f"QEMU's monitor: {message['error'].get('desc')}"
                self._show(text)
                if not self.running:
                    raise GuestStartError(text)
            if message.get("event") in ("STOP", "RESUME"):  # a debugger, or a person at another monitor
                self._stopped = message["event"] == "STOP"
            if self._restored and message.get("event") == "MIGRATION" and facts.get("status") == "completed":
                self._monitor.send("cont")
                self._answer.add(self._configuration())
            if message.get("event") == "VSERPORT_CHANGE" and facts.get("id") == "pyuio-port-heartbeat":
                # COMMAND may kill every process it can: without its heart the guest does not stand still.
                self._beats = self._beats and bool(facts.get("open"))

    def _hang(self, text: str) -> GuestHangError:
        report = hang_report.collect(self._monitor, self._process.pid, self._console, self._press, self._drain)
        return GuestHangError(text, report)

    def _drain(self, limit: float) -> None:
        """Take what the guest's console says within `limit` seconds."""
        end = time.monotonic() + limit
        while time.monotonic() < end and self._inputs:
            self._turn()

    def _panic(self) -> GuestPanicError:
        line = next((line for line in self._console.last(1000) if PANIC in line), PANIC)
        return GuestPanicError(f"the guest's kernel panicked{line.partition(PANIC)[2]}")

    def _ending(self) -> Exception:
        """Return the error that says why QEMU ended before COMMAND did."""
        lines = self._messages.last(1000)
        # When QEMU aborts, it also prints every register: take its own lines if there are any.
        said = "; ".join([line for line in lines if line.startswith("qemu")][-3:] or lines[-3:])
        lines = self._console.last(1000)
        if PANIC in self._console:
            return self._panic()
        status = self._process.wait()
        own = [line.removeprefix("pyuio: ") for line in lines if line.startswith("pyuio: ")]
        if own and not self.running:
            return GuestStartError(own[-1])
        if status > 0 and not lines:
            return GuestStartError(said or f"QEMU ended with status {status} and said nothing")
        if status < 0:
            return GuestExitError(f"QEMU was ended by signal {-status}" + (f": {said}" if said else ""))
        if status > 0:
            return GuestExitError(f"QEMU ended with status {status}" + (f": {said}" if said else ""))
        return GuestExitError("the guest switched itself off before COMMAND ended" + (f" ({said})" if said else ""))
