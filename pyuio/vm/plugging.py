# SPDX-License-Identifier: MIT
"""Inside a guest: have one of its cards in Python unplugged or plugged in, by whoever runs the guest."""

from __future__ import annotations

from pathlib import Path

from pyuio.vm.errors import GuestError

PORT = Path("/run/pyuio/port.cards")


class PluggingError(GuestError):
    """The card was neither plugged in nor unplugged."""

    status = 1


def plug(number: int) -> None:
    """Plug in a card, which is new: it has forgotten everything. The kernel finds it a moment later.

    Args:
        number: of the card, from 0, in the order of ``--card``.

    Raises:
        PluggingError: this is no guest of `pyuio.vm`; there is no such card; it has no root port; it is plugged in.
    """
    _ask(f"plug {number}")


def unplug(number: int) -> None:
    """Have a card unplugged, and wait until the kernel has let go of it. The errors are those of `plug`."""
    _ask(f"unplug {number}")


def _ask(line: str) -> None:
    try:
        with PORT.open("r+b", buffering=0) as port:
            port.write(line.encode() + b"\n")
            answer = port.readline().decode().strip()
    except FileNotFoundError as error:
        raise PluggingError(f"this is no guest of pyuio vm: there is no {PORT}") from error
    except OSError as error:
        raise PluggingError(f"{PORT}: {error.strerror}") from error
    if answer != "done":
        raise PluggingError(answer)
