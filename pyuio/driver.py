# SPDX-License-Identifier: MIT
"""The base of a driver: which cards it serves, how one is opened, and that it is left quiet."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from types import TracebackType
from typing import Any, ClassVar, TypeVar

from pyuio.device import Device
from pyuio.errors import AmbiguousDeviceError, DeviceNotFoundError, DeviceRemovedError, UnsupportedByDriverError
from pyuio.pci.discovery import FoundDevice, devices, find
from pyuio.program import Operation
from pyuio.registers.register_map import RegisterMap

_Driver = TypeVar("_Driver", bound="Driver")


class Driver:
    """A driver for one kind of card, on an open device.

    A driver names the ids it serves, or the class codes, sets its card up in ``__init__`` and leaves it quiet in
    `quiet`. It is a context manager, and closes the device.

    Where the card can be made to raise its interrupt, `trigger`, `acknowledge`, `acknowledge_program` and perhaps
    `trigger_program` let ``pyuio bench`` measure on it. They are used on a card that is quiet, and on nothing else.

    Args:
        device: an open device that it serves.

    Raises:
        ValueError: the device is of another kind.
    """

    ids: ClassVar[tuple[str, ...]] = ()
    """The id pairs it serves, as in ``("1234:11e8",)``."""
    class_codes: ClassVar[tuple[int, ...]] = ()
    """The class codes it serves, whoever made the card: 24 bits, base class first, as in ``(0x010802,)`` for NVMe."""
    dma_mask: ClassVar[int | None] = None
    """The highest bus address that its cards can use, 2^n - 1; None for all of 64 bits."""
    register_maps: ClassVar[Mapping[int, type[RegisterMap]]] = {}
    """The registers by name, by number of the BAR, as in ``{0: Registers}``; ``pyuio read`` and its like use them."""

    def __init__(self, device: Device) -> None:
        self._require_served(device)
        self.device = device
        if self.dma_mask is not None:
            device.dma.mask = self.dma_mask

    @classmethod
    def serves(cls, device: Device | FoundDevice) -> bool:
        """Return whether a device is of the driver's kind, by its ids or its class code."""
        return device.ids in cls.ids or device.class_code in cls.class_codes

    @classmethod
    def open(
        cls: type[_Driver],
        which: str | os.PathLike[str] | FoundDevice | None = None,
        *,
        trace: bool = False,
        **options: Any,
    ) -> _Driver:
        """Open the only card of the driver's kind, or the one named, and return the driver on it.

        A card that no kernel driver has is bound to ``uio_pci_generic``; closing releases it. One that another kernel
        driver has is not taken.

        Args:
            which: what `pyuio.open` takes, or None for the only card.
            trace: log each access to its registers, by name: `Device.trace_registers`.
            options: what the driver's class takes besides the device.

        Raises:
            DeviceNotFoundError: there is no such card.
            AmbiguousDeviceError: there are several, and `which` is None.
            ValueError: the card named is of another kind.
            DeviceBusyError: it is open already, or another kernel driver has it.
            PermissionDeniedError: this user may not.
        """
        found = cls._only_card() if which is None else find(which)
        cls._require_served(found)
        device = Device(found, bind=found.driver is None)
        try:
            if trace:
                device.trace_registers(cls.register_maps)
            return cls(device, **options)
        except BaseException:
            device.close()
            raise

    @classmethod
    def _kind(cls) -> str:
        return ", ".join([*cls.ids, *(f"class {code:06x}" for code in cls.class_codes)])

    @classmethod
    def _require_served(cls, device: Device | FoundDevice) -> None:
        if not cls.serves(device):
            code = "" if device.class_code is None or not cls.class_codes else f" of class {device.class_code:06x}"
            raise ValueError(f"{cls.__name__} serves {cls._kind()}; {device.name} is {device.ids}{code}")

    @classmethod
    def _only_card(cls) -> FoundDevice:
        present = [device for device in devices() if cls.serves(device)]
        if len(present) == 1:
            return present[0]
        kind = f"{cls.__name__} card ({cls._kind()})"
        if not present:
            raise DeviceNotFoundError(f"there is no {kind} in this machine")
        listing = "".join(f"\n  {device}" for device in present)
        raise AmbiguousDeviceError(f"there are {len(present)} of {kind}; name one by address:{listing}")

    def quiet(self) -> None:
        """Make the card stop what it does: no interrupt, no transfer. Called by `close` on a device that is open.

        What it raises, `close` raises after it has closed the device. A driver calls it in ``__init__``, too: the one
        before may have been killed.
        """

    def trigger(self) -> None:
        """Make the card raise its interrupt once. May be called in a forked process, on another CPU.

        Raises:
            UnsupportedByDriverError: this driver does not supply it; so do the three below.
        """
        raise self._unsupported("trigger()")

    def acknowledge(self) -> None:
        """Make the card lower the interrupt that `trigger` raised; harmless when there is none."""
        raise self._unsupported("acknowledge()")

    def acknowledge_program(self) -> list[Operation]:
        """Return what a `pyuio.Service` does to acknowledge the interrupt that `trigger` raised."""
        raise self._unsupported("acknowledge_program()")

    def trigger_program(self) -> list[Operation]:
        """Return what a `pyuio.Service` does to raise the card's interrupt, as `trigger` does."""
        raise self._unsupported("trigger_program()")

    @classmethod
    def supplies(cls, *names: str) -> bool:
        """Return whether this driver has methods of its own in place of all of these, which are optional."""
        return all(getattr(cls, name) is not getattr(Driver, name) for name in names)

    def _unsupported(self, what: str) -> UnsupportedByDriverError:
        reason = f"{type(self).__name__} supplies no {what}, and only a card's driver knows how it does that"
        return UnsupportedByDriverError(reason)

    def close(self) -> None:
        """Leave the card quiet and close the device; again is harmless. Raises what `quiet` and `Device.close` do.

        A card that was removed, before or meanwhile, is quiet as it is.
        """
        if self.device.closed:
            return
        try:
            with contextlib.suppress(DeviceRemovedError):
                if not self.device.removed:
                    self.quiet()
        finally:
            self.device.close()

    def __enter__(self: _Driver) -> _Driver:
        """Return itself; leaving the block closes it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
