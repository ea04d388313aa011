# SPDX-License-Identifier: MIT
"""The configuration space of a card in this process, as its driver sees it."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from pyuio._native._access import Presence
from pyuio.model.clock import clock
from pyuio.model.pci_function import CONFIG_SIZE, PciFunction
from pyuio.pci.bars import Bar
from pyuio.pci.config_guard import ConfigGuard
from pyuio.pci.config_image import Command
from pyuio.pci.config_space import ConfigSpace


class ModelCommandRegister:
    """The command register of a card; it has the methods of `pyuio.pci.command_register.CommandRegister`."""

    native: Any = None

    def __init__(self, function: PciFunction) -> None:
        self._function = function

    def change(self, *, set: int = 0, clear: int = 0) -> None:
        """Set and clear bits."""
        with clock.lock:
            self._function.config_write(4, 2, self._function.config_read(4, 2) & ~clear | set)

    def write(self, offset: int, data: bytes) -> None:
        """Write part of the configuration space that is, or may be, part of the register."""
        with clock.lock:
            self._function.config_write(offset, len(data), int.from_bytes(data, "little"))

    def close(self) -> None:
        """Do nothing: there is no file."""

    def forget(self) -> None:
        """Do nothing: a forked child has a card of its own."""

    def abandon(self, *, driven: bool) -> None:
        """Do nothing: the card is gone."""


class ModelConfigSpace(ConfigSpace):
    """The configuration space of a card in this process. See `ConfigSpace`.

    Args:
        function: the PCI side of the card.
        directory: what its directory in sysfs would be called.
        presence: the device's presence.
    """

    def __init__(self, function: PciFunction, directory: Path, presence: Presence) -> None:
        self._function = function
        self.directory = directory
        self._presence = presence
        self.name = f"configuration space of {directory.name}"
        self._lock = threading.RLock()
        self._guard = ConfigGuard(self, directory.name)
        self._writable = True
        self._file = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)  # so that it can be closed
        self.size = CONFIG_SIZE
        register: Any = ModelCommandRegister(function)
        self.command_register = register

    def _load(self, file: int, offset: int, length: int) -> bytes:
        with clock.lock:
            clock.access()
            self._require_open()
            return self._function.config_read(offset, length).to_bytes(length, "little")

    def _store(self, file: int, offset: int, data: bytes) -> None:
        with clock.lock:
            clock.access()
            self._function.config_write(offset, len(data), int.from_bytes(data, "little"))

    def bars(self) -> tuple[Bar, ...]:
        """Return the BARs that the card has, by index."""
        self._require_open()
        return tuple(
            Bar(
                index=index,
                kind="io" if bar.ports else "memory",
                width=bar.width,
                prefetchable=bar.prefetchable,
                address=self._function.bar_address(index),
                size=bar.size,
            )
            for index, bar in sorted(self._function.bars.items())
        )

    def abandon(self) -> None:
        """Write nothing more: the card is gone."""

    def is_set(self, bit: Command) -> bool:
        """Return whether a bit of the command register is set."""
        return bool(self._function.command & bit)
