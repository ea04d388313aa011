# SPDX-License-Identifier: MIT
"""Cards in Python in a guest: the process that runs them, and their way into QEMU and out of it.

A card is given as ``MODULE:CLASS``. It takes the first free slot of the bus. ``MODULE:CLASS,hotplug`` is behind a PCI
Express root port in that slot, and the guest can have it unplugged and plugged in again (`pyuio.vm.plugging`).

All cards of a guest run in one process, `pyuio.model.serve`, because their interrupt lines may lead to one pin. It is a
child of this one, has its rights, and imports as ``python -m`` does, from the current directory first; but not from one
that another user can write to. How it speaks with QEMU depends on QEMU's version: by sockets that both inherit
(`pyuio.model.proxy`), or by one in a directory of this user's (`pyuio.model.vfio_user`).
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import re
import select
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from pyuio.kernel.trusted_directory import temporary
from pyuio.model.loop import CALL_LIMIT
from pyuio.process import python_module
from pyuio.vm import machine
from pyuio.vm.errors import CardError, GuestStartError
from pyuio.vm.monitor import Message, Monitor
from pyuio.vm.process import Lines, on_processor, start
from pyuio.vm.streams import Pending

START_TIME_LIMIT = 60.0  # seconds for the modules to be imported
GRACE = 20.0  # seconds after a card failed, in which COMMAND may say what happened to it
END_TIME_LIMIT = 5.0  # seconds for the process to end by itself, once its last words have come
_LAST_SLOT = 24  # the interrupts of higher slots of q35 go other ways
_FIRST_GSI = 20  # INTA of slot 4 and every fourth; those between follow (QEMU, hw/isa/lpc_ich9.c)
_ADDRESS = re.compile(r'\baddr"?\s*[=:]\s*"?(?:0x)?([0-9A-Fa-f]+)')


PROXY, VFIO_USER = "proxy", "vfio-user"


def _transport(qemu: str, kind: str) -> str:
    """Return how a card reaches this QEMU, whose machine is of a kind.

    Raises:
        GuestStartError: not at all.
    """
    version = machine.qemu_version(qemu)
    has = "of an unknown version" if version is None else "{}.{}".format(*version)
    if version is not None and version >= (10, 1):
        return VFIO_USER
    if version is None or not (6, 2) <= version < (8, 2):
        raise GuestStartError(
            f"this QEMU is {has}, and a card in Python needs 6.2 to 8.1, as Debian 12 has, or 10.1 or later: "
            f"those between end when such a card is plugged in"
        )
    if kind != "q35":
        raise GuestStartError(
            f"this QEMU is {has}, which takes a card in Python by its proxy; pyuio knows the interrupts of that on "
            f"the machine q35 only: not on {kind}; QEMU 10.1 and later take it on any (vfio-user)"
        )
    return PROXY


class _Card:
    """One card and its place.

    Attributes:
        pluggable: whether it is behind a root port.
        plugged: whether QEMU has it.
        slot: of the card, or of its root port.
        pin: 1 to 4 for INTA to INTD; 0 for none.
    """

    def __init__(self, number: int, text: str, slot: int) -> None:
        self.name, _, flag = text.partition(",")
        self.id, self.port = f"pyuio-card-{number}", f"pyuio-slot-{number}"
        self.pluggable = bool(flag)
        self.plugged = False
        self.slot = slot
        self.pin = 0

    @property
    def gsi(self) -> int:
        """The input of the interrupt controller to which its line leads, also through a root port."""
        return _FIRST_GSI + (self.slot + self.pin - 1) % 4

    def root_port(self, number: int) -> list[str]:
        """Return QEMU's arguments for its root port, if it has one."""
        if not self.pluggable:
            return []
        chassis = 128 + number  # a user's own count from 1
        return ["-device", f"pcie-root-port,id={self.port},chassis={chassis},slot={chassis},addr={self.slot:#x}"]


class Cards:
    """The cards of one guest, and their process. A context manager, which ends that.

    Args:
        options: the guest's options.
        qemu: QEMU's path.
        tell: called with each line that the cards print.

    Attributes:
        transport: `PROXY` or `VFIO_USER`.
        failure: why the run must end; None as long as all cards work.
        processor: the only processor that the cards use. QEMU does best on the same: an access is a message to the
            other process and back, and takes a quarter of the time without a wake-up of another processor.

    Raises:
        GuestStartError: this QEMU takes no card, or there is no room.
    """

    def __init__(self, options: machine.Options, qemu: str, tell: Callable[[str], None]) -> None:
        self.transport = _transport(qemu, options.machine.split(",")[0])
        taken = {int(found, 16) for text in (*options.devices, *options.qemu) for found in _ADDRESS.findall(text)}
        free = [slot for slot in range(1, _LAST_SLOT + 1) if slot not in taken]
        if len(options.cards) > len(free):
            raise GuestStartError(f"there are {len(free)} free slots for {len(options.cards)} cards in Python")
        self._cards = [_Card(number, text, free[number]) for number, text in enumerate(options.cards)]
        self._tell = tell
        self._lines = Lines()
        self.failure: CardError | None = None
        self._failed_at = 0.0
        self._monitor: Monitor | None = None
        self._answers: Pending | None = None
        self._asked: dict[int, str] = {}  # what the guest was promised, by the number of the command to QEMU
        self._leaving = ""  # the id of the card for whose end the guest waits
        self.processor = random.choice(sorted(os.sched_getaffinity(0)))
        # QEMU connects to vfio-user by a path only. Nobody else can enter this directory.
        self._directory = temporary("pyuio-cards-") if self.transport == VFIO_USER else None
        self._paths = itertools.count()
        self._control, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._messages, messages = socket.socketpair()
        names = [card.name for card in self._cards]
        try:
            command = [*python_module.command("pyuio.model.serve"), self.transport, str(control.fileno()), *names]
            with on_processor(self.processor):
                self._child = start(command, messages.fileno(), [control.fileno()])
        finally:
            control.close()
            messages.close()

    def __enter__(self) -> Cards:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._child.poll() is None:
            self._child.kill()
            self._child.wait()
        self._control.close()
        self._messages.close()
        if self._directory is not None:
            self._directory.cleanup()

    def wait_until_ready(self) -> None:
        """Wait until the modules are imported and the cards known.

        Raises:
            GuestStartError: a module does not import, or has no such card, or takes too long.
        """
        deadline = time.monotonic() + START_TIME_LIMIT
        while (left := deadline - time.monotonic()) > 0:
            inputs = self.inputs()
            ready = select.select(inputs, [], [], left)[0]
            if self._control.fileno() not in ready:
                for fd in ready:
                    inputs[fd]()
            else:
                message = self._receive()
                if message is None:
                    raise GuestStartError(str(self.failure).removeprefix("the card failed: "))
                for card, pin in zip(self._cards, message["ready"], strict=True):
                    card.pin = pin
                return
        raise GuestStartError(f"the cards' modules were not imported within {START_TIME_LIMIT:.0f} s")

    # ---- QEMU ----

    def arguments(self, stack: ExitStack) -> tuple[list[str], list[int]]:
        """Return QEMU's arguments for the cards, and the descriptors that it must inherit; `stack` closes them."""
        line, descriptors = [], []
        if self.transport == PROXY:
            descriptors.append(self._pair(stack, qtest=True))
            line += ["-chardev", f"socket,id=pyuio-qtest,fd={descriptors[0]}"]
            line += ["-object", "qtest,id=pyuio-qtest-server,chardev=pyuio-qtest,log=none"]
        for number, card in enumerate(self._cards):
            line += card.root_port(number)
            if self.transport == PROXY:
                descriptors.append(self._pair(stack, proxy=number, gsi=card.gsi))
                place = f"bus={card.port}" if card.pluggable else f"addr={card.slot:#x}"
                line += ["-device", f"x-pci-proxy-dev,id={card.id},fd={descriptors[-1]},{place}"]
            else:
                # QEMU makes what is given as JSON last, when others may have the slot. It knows the pin of any slot.
                bus = {"bus": card.port} if card.pluggable else {}
                line += ["-device", json.dumps({**self._listen(number), "id": card.id, **bus})]
            card.plugged = True
        return line, descriptors

    def _listen(self, number: int) -> dict[str, Any]:
        """Have the cards' process wait for QEMU at a path, and return the properties of QEMU's device."""
        assert self._directory is not None
        path = f"{self._directory.name}/{next(self._paths)}"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(1)
            self._give(listener, {"vfio-user": number})
        return {
            "driver": "vfio-user-pci",
            "socket": {"type": "unix", "path": path},
            "x-msg-timeout": 2000 * CALL_LIMIT,  # ms; the card's own limit comes first
        }

    def _pair(self, stack: ExitStack, **message: Any) -> int:
        """Give the cards' process a socket, with a message, and return QEMU's end, which `stack` closes."""
        ours, theirs = socket.socketpair()
        stack.enter_context(theirs)
        with ours:
            self._give(ours, message)
        return theirs.fileno()

    def _give(self, connection: socket.socket, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # the process has ended, which its end of the control socket tells
            socket.send_fds(self._control, [json.dumps(message).encode()], [connection.fileno()])

    def attach(self, monitor: Monitor, answers: Pending) -> None:
        """Take QEMU's monitor, and the way of answers to the guest."""
        self._monitor, self._answers = monitor, answers

    # ---- The cards' process ----

    def inputs(self) -> dict[int, Callable[[], None]]:
        """Return what to call when there is something to read, by descriptor."""
        found = {self._messages.fileno(): self.take_messages}
        if self.failure is None:
            found[self._control.fileno()] = self.take_control
        return {fd: call for fd, call in found.items() if fd >= 0}

    def take_messages(self) -> None:
        """Pass on what the cards print."""
        data = self._messages.recv(65536)
        for line in self._lines.feed(data):
            self._tell(line)
        if not data:
            self._messages.close()

    def take_control(self) -> None:
        """Hear from the process."""
        message = self._receive()
        if message is not None and "removed" in message:
            card = self._cards[message["removed"]]
            if card.pluggable and card.plugged:
                self._command("device_del", "", id=card.id)

    def _receive(self) -> dict[str, Any] | None:
        """Return a message of the process; None if the cards have failed."""
        data = self._control.recv(65536)
        message: dict[str, Any] = json.loads(data) if data else {}
        if data and "failed" not in message:
            return message
        text = message.get("failed", "")
        if not data:
            status = self._child.wait(END_TIME_LIMIT)
            how = f"signal {-status}" if status < 0 else f"status {status}"
            text = f"the card failed: its process ended with {how}"
        while self._messages.fileno() >= 0 and select.select([self._messages], [], [], 0)[0]:
            self.take_messages()
        self.failure = CardError(text)
        self._failed_at = time.monotonic()
        return None

    def check(self, *, over: bool) -> None:
        """Raise the failure of a card, if there is one, and COMMAND does not run (`over`), or had time to end."""
        if over and self.failure is None and select.select([self._control], [], [], 0)[0]:
            self.take_control()
        if self.failure is not None and (over or time.monotonic() >= self._failed_at + GRACE):
            raise self.failure

    # ---- Coming and going ----

    def obey(self, line: str) -> None:
        """Do what the guest asks for: ``plug N`` or ``unplug N``. It gets one line: ``done``, or what went wrong."""
        assert self._answers is not None
        if self._answers.interest() is not None:
            return  # it does not read its answers
        verb, _, word = line.partition(" ")
        number = int(word) if word.isdecimal() and len(word) < 4 else -1
        if verb not in ("plug", "unplug") or not 0 <= number < len(self._cards):
            self._answer(f"there is no card {word}: there are {len(self._cards)}, counted from 0")
            return
        card = self._cards[number]
        if not card.pluggable:
            self._answer(f"card {number} is on the root bus, which has no hot plug: --card {card.name},hotplug")
        elif card.plugged == (verb == "plug"):
            self._answer(f"card {number} is {'plugged in' if card.plugged else 'unplugged'} already")
        elif verb == "unplug":
            self._leaving = card.id
            self._command("device_del", "", id=card.id)
        else:
            card.plugged = True
            assert self._monitor is not None
            if self.transport == PROXY:
                with ExitStack() as stack:
                    fd = self._pair(stack, proxy=number, gsi=card.gsi)
                    self._monitor.send("getfd", descriptor=fd, fdname=card.id)
                device: dict[str, Any] = {"driver": "x-pci-proxy-dev", "fd": card.id}
            else:
                device = self._listen(number)
            self._command("device_add", "done", id=card.id, bus=card.port, **device)

    def hear(self, message: Message) -> bool:
        """Hear what QEMU's monitor says; return whether it was an answer to a command from here."""
        facts = message.get("data", {})
        if message.get("event") == "DEVICE_DELETED":
            for card in self._cards:
                if facts.get("device") == card.id:
                    card.plugged = False
            if facts.get("device") == self._leaving:
                self._leaving = ""
                self._answer("done")
        if message.get("id") not in self._asked:
            return False
        promised = self._asked.pop(message["id"])
        if "error" in message:
            self._answer(f"QEMU: {message['error'].get('desc')}")
        elif promised:
            self._answer(promised)
        return True

    def _command(self, name: str, promised: str, **arguments: Any) -> None:
        assert self._monitor is not None
        self._asked[self._monitor.send(name, descriptor=None, **arguments)] = promised

    def _answer(self, text: str) -> None:
        assert self._answers is not None
        self._answers.add(text.encode() + b"\n")
