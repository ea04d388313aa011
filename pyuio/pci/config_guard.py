# SPDX-License-Identifier: MIT
"""The guard against accidental writes to configuration space: which bytes a driver owns, and what the others are.

A driver owns what its card's vendor defined: the vendor-specific capabilities. The header and the other capabilities
belong to the kernel, which has set them up and does not expect them to change.

Sources: PCI Local Bus Specification 3.0, chapter 6 and appendix H (capability 09h); PCI Express Base Specification 5.0,
sections 7.9.5 (vendor-specific) and 7.9.6 (designated vendor-specific extended capabilities).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from pyuio.errors import ConfigLockedError

if TYPE_CHECKING:
    from pyuio.pci.config_image import ConfigImage

    _Config = TypeVar("_Config", bound=ConfigImage)

HEADER_LENGTH = 0x40

_log = logging.getLogger("pyuio.config_guard")

_VENDOR_SPECIFIC = 0x09
_EXTENDED_VENDOR_SPECIFIC = 0x000B
_DESIGNATED_VENDOR_SPECIFIC = 0x0023
# The offset of the first byte that the vendor defines; the specification defines those before it.
_BODY = {_EXTENDED_VENDOR_SPECIFIC: 0x08, _DESIGNATED_VENDOR_SPECIFIC: 0x0A}

_COMMAND_ADVICE = "change its bits with change_command(); bus mastering is device.dma's, masking device.interrupt's"
_HEADER = (
    # first byte, last byte, what it is, what to do instead
    (0x04, 0x05, "the command register", _COMMAND_ADVICE),
    (0x06, 0x07, "the status register", ""),
    (0x10, 0x27, "a BAR, which would answer at another address than the kernel and every mapping of it expect", ""),
    (0x30, 0x33, "the address of the expansion ROM", ""),
)


def owned(config: ConfigImage) -> list[range]:
    """Return the offsets that a driver owns: the bodies of the vendor-specific capabilities."""
    found = []
    for capability in config.capabilities():
        if capability.id == _VENDOR_SPECIFIC and capability.offset + 3 <= config.size:
            length = config.read8(capability.offset + 2)
            found.append(range(capability.offset + 3, min(capability.offset + length, config.size)))
    for capability in config.extended_capabilities():
        if capability.id in _BODY and capability.offset + 8 <= config.size:
            length = config.read32(capability.offset + 4) >> 20
            end = min(capability.offset + length, config.size)
            found.append(range(capability.offset + _BODY[capability.id], end))
    return found


def what_is_at(config: ConfigImage, offset: int, width: int) -> tuple[str, str]:
    """Return what a write of `width` bytes would change, and what to use instead; "" if there is no substitute."""
    if offset < HEADER_LENGTH:
        # A bridge has other registers there (PCI-to-PCI Bridge Architecture Specification 1.2, section 3.2).
        known = _HEADER if config.header_type == 0 else _HEADER[:2]
        for first, last, name, advice in known:
            if offset <= last and first < offset + width:
                return name, advice
        return "the header, which is the kernel's", ""
    before = [one for one in config.capabilities() + config.extended_capabilities() if one.offset <= offset]
    if before:
        nearest = max(before, key=lambda one: one.offset)
        place = f"the nearest capability before them is {nearest.name} at {nearest.offset:#x}"
        return f"bytes outside of the vendor-specific capabilities; {place}", ""
    return "bytes outside of the vendor-specific capabilities", ""


class ConfigGuard:
    """Refuses accidental writes to a configuration space; each thread unlocks it for itself.

    Args:
        config: the configuration space.
        name: of the device, for messages.
    """

    def __init__(self, config: ConfigImage, name: str) -> None:
        self._config = config
        self._name = name
        self._owned: list[range] | None = None  # determined at the first need
        self._unlocked = threading.local()

    def reason(self, offset: int, width: int) -> str:
        """Return why a driver should not write `width` bytes at `offset`; "" if a driver owns all of them."""
        if offset >= HEADER_LENGTH:
            if self._owned is None:
                self._owned = owned(self._config)
            if any(offset in one and offset + width - 1 in one for one in self._owned):
                return ""
        what, advice = what_is_at(self._config, offset, width)
        write = f"{self._name}: writing {8 * width} bits of configuration space at {offset:#x} would change {what}"
        return f"{write}; {advice}" if advice else write

    def require(self, offset: int, width: int) -> None:
        """Raise ConfigLockedError unless this thread may write `width` bytes at `offset`."""
        if not getattr(self._unlocked, "depth", 0) and (reason := self.reason(offset, width)):
            raise ConfigLockedError(f"{reason}; to do it on purpose, write in a block: with config.unlocked(): ...")

    @contextmanager
    def unlocked(self, config: _Config) -> Iterator[_Config]:
        """Let this thread write the whole configuration space in a ``with`` block, which gets `config`."""
        _log.info("%s: configuration space unlocked", self._name)
        self._unlocked.depth = getattr(self._unlocked, "depth", 0) + 1
        try:
            yield config
        finally:
            self._unlocked.depth -= 1
