# SPDX-License-Identifier: MIT
"""The program that runs the cards of one guest, beside QEMU.

    python -m pyuio.model.serve TRANSPORT CONTROL MODULE:CLASS...

`pyuio.vm.cards` starts it. TRANSPORT is proxy or vfio-user. CONTROL is the descriptor of a socket on which each message
is a line of JSON. The program first says ``{"ready": [...]}``, with the INTx pin of each card. It is told

- ``{"qtest": true}`` with the qtest socket of a QEMU, which is for the proxies of that QEMU,
- ``{"proxy": N, "gsi": G}`` with a socket, at which it drives a new card of the N-th class,
- ``{"vfio-user": N}`` with a socket that listens, which does the same for the first who connects to it.

It says ``{"removed": N}`` when a card pulls itself out. If a card fails, it prints the traceback on standard error and
says ``{"failed": TEXT}``; for QEMU the card was pulled out then. It ends when the other program does.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import socket
import sys
from pathlib import Path
from typing import Any

from pyuio.kernel import trusted_import
from pyuio.kernel.trusted_directory import stranger
from pyuio.model.card import Card
from pyuio.model.failure import describe
from pyuio.model.loop import Loop
from pyuio.model.proxy import Proxy, unfit
from pyuio.model.qtest import Qtest
from pyuio.model.vfio_user import VfioUser

MESSAGE_LIMIT = 65536  # bytes


class CardTextError(Exception):
    """MODULE:CLASS names no card."""


def look_in_current_directory() -> None:
    """Import from the current directory first, as by ``python -m``, unless another user can put modules there.

    A module there that another user can write to is refused.
    """
    if _replaceable() is None and not getattr(sys.flags, "safe_path", False):  # Python 3.11 and later have -P
        trusted_import.import_from(Path.cwd(), first=True)


def _replaceable() -> Path | None:
    return stranger(Path.cwd(), open_to_new_files=False)


def _where() -> str:
    """Return where modules are looked for."""
    if (place := _replaceable()) is not None:
        return (
            f"modules are not looked for in the current directory, because another user can write to {place}; if you "
            "trust what is there, set PYTHONPATH=."
        )
    return "modules are looked for in the current directory first, as by python -m"


def load(text: str) -> type[Card]:
    """Return the class that MODULE:CLASS names.

    Raises:
        CardTextError: there is no such module, or no such card in it; or another user can write to it.
        Exception: whatever the module raises.
    """
    name, _, path = text.partition(":")
    try:
        module = importlib.import_module(name)
    except trusted_import.StrangersModuleError as error:
        raise CardTextError(str(error)) from None
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise CardTextError(f"there is no module {error.name}: {_where()}") from None
    found: Any = module
    for part in path.split("."):
        if not hasattr(found, part):
            cards = [name for name, one in vars(module).items() if _is_card(one)]
            has = f"its cards: {', '.join(cards)}" if cards else "there is no card in it"
            raise CardTextError(f"{name} has no {path}; {has}")
        found = getattr(found, part)
    if not _is_card(found):
        raise CardTextError(f"{path} in {name} is no class that derives from pyuio.model.Card: {found!r}")
    checked: type[Card] = found
    return checked


def _is_card(found: object) -> bool:
    return isinstance(found, type) and issubclass(found, Card) and found is not Card


class Server:
    """The cards of one guest.

    Args:
        control: the socket to the program that started this one.
        classes: the cards by number.
    """

    def __init__(self, control: socket.socket, classes: list[type[Card]]) -> None:
        self._control = control
        self._classes = classes
        self._loop = Loop()
        self._qtest: Qtest | None = None
        self._loop.watch(control, self._obey)

    def run(self) -> None:
        """Run until the other program and QEMU have ended."""
        self._loop.run()

    def say(self, **message: Any) -> None:
        """Tell the other program."""
        with contextlib.suppress(OSError):  # it has ended, and `_obey` sees it
            self._control.send(json.dumps(message).encode())

    def fail(self, what: str, error: BaseException) -> None:
        """Print a traceback, and tell the other program."""
        text, trace = describe(error)
        print(trace, end="", file=sys.stderr, flush=True)
        self.say(failed=f"{what}: {text}")

    def _obey(self) -> None:
        data, descriptors, _, _ = socket.recv_fds(self._control, MESSAGE_LIMIT, 4)
        if not data:
            sys.exit(0)
        message = json.loads(data)
        (connection,) = (socket.socket(fileno=descriptor) for descriptor in descriptors)
        if "qtest" in message:
            self._qtest = Qtest(connection, self._loop)
        elif "proxy" in message:
            assert self._qtest is not None
            number = message["proxy"]
            card = self._classes[number]()
            Proxy(card, connection, self._loop, _Watcher(self, number), self._qtest, message["gsi"])
        else:
            self._loop.watch(connection, lambda: self._accept(connection, message["vfio-user"]))

    def _accept(self, listener: socket.socket, number: int) -> None:
        connection, _ = listener.accept()
        self._loop.leave(listener)
        listener.close()
        VfioUser(self._classes[number](), connection, self._loop, _Watcher(self, number))


class _Watcher:
    """Tells the other program of a card."""

    def __init__(self, server: Server, number: int) -> None:
        self._server = server
        self._number = number

    def removed(self) -> None:
        self._server.say(removed=self._number)

    def failed(self, error: BaseException) -> None:
        self._server.fail("the card failed", error)


def main() -> None:
    """Load the cards, and run them."""
    transport, descriptor, *texts = sys.argv[1:]
    control = socket.socket(fileno=int(descriptor))
    classes: list[type[Card]] = []
    server = Server(control, classes)
    text = ""
    try:
        look_in_current_directory()
        for text in texts:
            classes.append(load(text))
            if transport == "proxy" and (reason := unfit(classes[-1])):
                raise CardTextError(reason)
        server.say(ready=[card.interrupt_pin for card in classes])
        text = ""
        server.run()
    except CardTextError as error:
        server.say(failed=f"--card {text}: {error}")
        sys.exit(1)
    except BaseException as error:
        if isinstance(error, SystemExit) and not text:
            raise  # the other program has ended
        server.fail(f"--card {text}" if text else "the cards' process failed", error)
        sys.exit(1)


if __name__ == "__main__":
    main()
