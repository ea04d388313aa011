# SPDX-License-Identifier: MIT
"""A `Region` for the register layer that PeakRDL-python makes, which leaves each access to callbacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyuio.registers.register import Register, RegisterInfo

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyuio.registers.register import Accesses

_COMMON = 32  # bits that each bus of a card can access at once


def callbacks(region: Accesses, *, bus_width: int | None = None) -> dict[str, Callable[..., Any]]:
    """Return the arguments of the ``NormalCallbackSet`` of a package that PeakRDL-python made.

    .. code-block:: python

        card = card_cls(callbacks=NormalCallbackSet(**callbacks(device.bar(0))))

    A register is read or written by one access of exactly its width. One that is wider than the bus takes several, as
    in `pyuio.systemrdl.load`, the least significant first. There are no block callbacks: without them PeakRDL-python
    makes the accesses of a block one by one, each with the register's width.

    Args:
        region: a `Region`, or another object with its methods; its start is the address 0.
        bus_width: bits of the widest access that the card understands: 8, 16, 32 or 64. None for the ``accesswidth``
            of each register, but at least 32.

    Raises:
        ValueError: there is no such width. The callbacks raise it for an address that is misaligned or outside of the
            region, and for a value that does not fit.
    """
    if bus_width not in (None, 8, 16, 32, 64):
        raise ValueError(f"the width of a bus is 8, 16, 32 or 64 bits, not {bus_width!r}")

    def register(addr: int, width: int, accesswidth: int) -> Register:
        access_width = min(width, bus_width or max(accesswidth, _COMMON), 64)
        declared = Register(addr, width=width, access_width=access_width)
        return RegisterInfo(f"register at {addr:#x}", addr, declared).bind(region)

    def read(addr: int, width: int, accesswidth: int) -> int:
        return register(addr, width, accesswidth).read()

    def write(addr: int, width: int, accesswidth: int, data: int) -> None:
        register(addr, width, accesswidth).write(data)

    return {"read_callback": read, "write_callback": write}
