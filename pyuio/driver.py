# SPDX-License-Identifier: MIT
"""The base class of drivers: it matches cards, opens one, and leaves it quiet."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from pyuio.device import Device
from pyuio.errors import (
    AmbiguousDeviceError,
    ClosedError,
    DeviceNotFoundError,
    DeviceRemovedError,
    UnsupportedByDriverError,
    UnsupportedDeviceError,
)
from pyuio.pci.discovery import FoundDevice, devices, find
from pyuio.registers.register_map import RegisterMap

if TYPE_CHECKING:
    from pyuio.program import Operation

_Driver = TypeVar("_Driver", bound="Driver")


class Driver:
    """A driver for one kind of card, on an open device.

    A driver names the ids, the class codes, the UIO nodes or the compatible devices that it serves, sets its card up in
    ``__init__``, and leaves the card quiet in `quiet`. It is a context manager, and closes the device at the end. By
    convention ``self.bar`` is a BAR, and ``self.registers`` the map of its named registers.

    If software can make the card raise its interrupt, `trigger`, `acknowledge`, `acknowledge_program` and, where
    possible, `trigger_program` let ``pyuio bench`` measure on the card. It calls them only on a card that is quiet.

    Args:
        device: an open device that the class serves.

    Attributes:
        device: the open device.
        interrupts: the message interrupts, as many as `vectors` says.

    Raises:
        TypeError: `device` is no device.
        UnsupportedDeviceError: the device is of another kind.
        InterruptUnavailableError: the device, or its kernel driver, does not have so many message interrupts.
    """

    ids: ClassVar[tuple[str, ...]] = ()
    """Vendor and device ids of the cards that it serves, as in ``("1234:11e8",)``."""
    class_codes: ClassVar[tuple[int, ...]] = ()
    """Class codes of the cards that it serves, of any vendor: 24 bits, base class first; ``(0x010802,)`` is NVMe."""
    uio_names: ClassVar[tuple[str, ...]] = ()
    """Names of the UIO nodes that it serves, as ``/sys/class/uio/uioN/name`` says them, as in ``("fpga-regs",)``."""
    compatible: ClassVar[tuple[str, ...]] = ()
    """What the device tree says its devices are compatible with, as in ``("arm,pl031",)``: any of them."""
    dma_mask: ClassVar[int | None] = None
    """The highest bus address that its cards can use, 2^n - 1; None for 64 bits."""
    vectors: ClassVar[int] = 0
    """How many message interrupts (MSI-X, or MSI) it needs, as `interrupts`; 0 for none, as with the interrupt line."""
    register_maps: ClassVar[Mapping[int | str, type[RegisterMap]]] = {}
    """Register map of each BAR by its number, as in ``{0: Registers}``, for the command line and for tracing.

    Of a UIO node's map it is by the map's name, as in ``{"regset": Registers}``, or ``map0`` and so on if it has none.
    A register map's widest access, ``class Registers(RegisterMap, width=32)``, becomes that of the BAR or map:
    `Device.bar`, `Device.map`.
    """

    def __init__(self, device: Device) -> None:
        if not hasattr(device, "ids"):
            how = "open() finds a card and opens it, and pyuio.model.open() opens a card in Python"
            raise TypeError(f"{type(self).__name__} takes an open Device, not {device!r}; {how}")
        self._require_served(device)
        self.device = device
        widths = {bar: kind._widest for bar, kind in self.register_maps.items() if kind._widest < 64}
        if widths:
            device.limit_widths(widths)
        if self.dma_mask is not None:
            device.dma.mask = self.dma_mask
        self.interrupts = device.vectors(self.vectors) if self.vectors else ()

    @classmethod
    def serves(cls, device: Device | FoundDevice) -> bool:
        """Return whether the driver serves a device, by its ids, its class code, its UIO node or the device tree."""
        if device.ids in cls.ids or device.class_code in cls.class_codes:
            return True
        if cls.uio_names and device.uio_name in cls.uio_names:
            return True
        return bool(cls.compatible) and not set(cls.compatible).isdisjoint(device.compatible)

    @classmethod
    def open(
        cls: type[_Driver],
        which: str | os.PathLike[str] | FoundDevice | None = None,
        *,
        bind: bool | str = False,
        trace: bool | str | os.PathLike[str] = False,
        **options: Any,
    ) -> _Driver:
        """Open the only card that the driver serves, or the one named, and return the driver on it.

        If no kernel driver has the card, this binds the one that `pyuio.open` with ``bind=True`` takes, and closing
        releases it. It takes a card from another kernel driver only with `bind`.

        Args:
            which: as for `pyuio.open`, or None for the only card.
            bind: as for `pyuio.open`: True takes the card from a kernel driver that does not serve user space, and
                closing gives it back.
            trace: log each access to the registers, by name: `Device.trace_registers`; a path: also in a file.
            options: arguments of the driver's class besides the device.

        Raises:
            DeviceNotFoundError: there is no such card.
            AmbiguousDeviceError: there are several, and `which` is None.
            UnsupportedDeviceError: the card named is of another kind.
            DeviceBusyError: it is open already, or another kernel driver has it and `bind` is False;
                or the machine uses it.
            PermissionDeniedError: this user may not open it.
        """
        found = cls._only_card() if which is None else find(which)
        cls._require_served(found)
        device = Device(found, bind=bind or found.driver is None)
        try:
            if trace:
                device.trace_registers(cls.register_maps, file=None if isinstance(trace, bool) else trace)
            return cls(device, **options)
        except BaseException:
            device.close()
            raise

    @classmethod
    def _kind(cls) -> str:
        codes = (f"class {code:06x}" for code in cls.class_codes)
        nodes = (f"the node {name}" for name in cls.uio_names)
        return ", ".join([*cls.ids, *codes, *nodes, *(f"what is compatible with {name}" for name in cls.compatible)])

    @classmethod
    def _require_served(cls, device: Device | FoundDevice) -> None:
        if not cls.serves(device):
            code = "" if device.class_code is None or not cls.class_codes else f" of class {device.class_code:06x}"
            what = f"{device.ids}{code}" if device.address else f"the node {device.uio_name}"
            raise UnsupportedDeviceError(f"{cls.__name__} serves {cls._kind()}; {device.name} is {what}")

    @classmethod
    def _only_card(cls) -> FoundDevice:
        present = [device for device in devices() if cls.serves(device)]
        if len(present) == 1:
            return present[0]
        kind = f"{cls.__name__} card ({cls._kind()})"
        if not present:
            raise DeviceNotFoundError(f"there is no {kind} in this machine")
        listing = "".join(f"\n  {device}" for device in present)
        raise AmbiguousDeviceError(f"there are {len(present)} of {kind}; name one by address or node:{listing}")

    def quiet(self) -> None:
        """Make the card stop all interrupts and transfers. `close` calls it on a device that is open.

        If it raises, `close` closes the device and raises the same. A driver also calls it in ``__init__``, because
        the previous driver may have been killed.
        """

    def trigger(self) -> None:
        """Make the card raise its interrupt once. It may be called in a forked process, on another CPU.

        Raises:
            UnsupportedByDriverError: this driver does not supply it. The three methods below raise it, too.
        """
        raise self._unsupported("trigger()")

    def acknowledge(self) -> None:
        """Make the card lower the interrupt that `trigger` raised; without one it does nothing."""
        raise self._unsupported("acknowledge()")

    def acknowledge_program(self) -> list[Operation]:
        """Return the program of a `pyuio.Service` that acknowledges the interrupt that `trigger` raised."""
        raise self._unsupported("acknowledge_program()")

    def trigger_program(self) -> list[Operation]:
        """Return the program of a `pyuio.Service` that raises the card's interrupt, as `trigger` does."""
        raise self._unsupported("trigger_program()")

    @classmethod
    def supplies(cls, *names: str) -> bool:
        """Return whether the class overrides all of these optional methods."""
        return all(getattr(cls, name) is not getattr(Driver, name) for name in names)

    def _unsupported(self, what: str) -> UnsupportedByDriverError:
        reason = f"{type(self).__name__} supplies no {what}, and only a card's driver knows how to do it"
        return UnsupportedByDriverError(reason)

    def unless_gone(self, stop: Callable[[], object]) -> None:
        """Call what stops the card, unless the device is closed or was removed: then nothing is there to stop.

        It is for a ``finally``. There `ClosedError` or `DeviceRemovedError` of a register would hide the error that
        ended the block, which says what was interrupted. Other errors of `stop` are raised.

        Args:
            stop: stops the card, as `quiet` does; takes no arguments.
        """
        if self.device.closed:
            return
        try:
            stop()
        except DeviceRemovedError:
            pass
        except ClosedError:
            if not self.device.closed:
                raise

    def close(self) -> None:
        """Leave the card quiet and close the device. A second call does nothing. It raises what `quiet` raises.

        `quiet` is not called for a card that was removed, and its `DeviceRemovedError` is ignored.
        Errors of `Device.close` are raised, too.
        """
        if self.device.closed:
            return
        try:
            if not self.device.removed:
                self.unless_gone(self.quiet)
        finally:
            self.device.close()

    def __enter__(self: _Driver) -> _Driver:
        """Return the driver, which the end of the block closes."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
