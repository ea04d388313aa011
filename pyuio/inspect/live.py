# SPDX-License-Identifier: MIT
"""Registers that are looked at again and again: values, and what changed since the last look."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

from pyuio.errors import RegisterAccessError
from pyuio.inspect.cells import Cell, is_harmless, named_cell
from pyuio.inspect.config_header import header_of
from pyuio.inspect.health import Health
from pyuio.inspect.inspection import Inspection
from pyuio.inspect.location import Location, parse_location
from pyuio.inspect.state import Maps
from pyuio.pci.aer import LinkErrors
from pyuio.pci.config_image import HEADER_LENGTH
from pyuio.registers.register import Accesses, RegisterInfo
from pyuio.registers.snapshot import Change


class Watched(NamedTuple):
    """A register that is looked at.

    Attributes:
        cell: reads and writes it.
        info: its declaration.
    """

    cell: Cell
    info: RegisterInfo


def watched(inspection: Inspection, place: Location, infos: Sequence[RegisterInfo]) -> list[Watched]:
    """Return registers of a BAR or map, without reading them.

    Args:
        inspection: the device.
        place: the BAR or map.
        infos: the registers, from `registers_within`.

    Raises:
        MappingError, DeviceRemovedError, PermissionDeniedError: as `Inspection.registers`.
    """
    region = inspection.registers(place)
    return [Watched(named_cell(region, place, info), info) for info in infos]


def watched_header(inspection: Inspection) -> list[Watched]:
    """Return the registers of the header of configuration space, which can only be read.

    Raises:
        MappingError: the device has no configuration space.
    """
    place, config = parse_location("config"), cast("Accesses", inspection.config)  # it has no access of 64 bits
    kind = header_of(inspection.config.read(0, HEADER_LENGTH))
    return [Watched(named_cell(config, place, info), info) for info in kind.walk()]


class LiveView:
    """The registers of a device at the last look.

    Args:
        inspection: the device.
        registers: those to look at; a look leaves out those that cannot be read without an effect.
        maps: the named registers that `parse_write` knows, by space.
        health: returns what else is told of the device.
        clock: returns seconds.

    Attributes:
        registers: those given.
        values: for each, its value; None if it was never read.
        changes: by the index of the register, those that the last look found changed.
        health: at the last look; None before the first.
        rate: interrupts a second between the last two looks; None if it is not known.
        link_errors: those that came on its link between the last two looks; None if it is not known.
        doubt: a sentence if the values may not be the device's, or "".
    """

    def __init__(
        self,
        inspection: Inspection,
        registers: Sequence[Watched],
        maps: Maps,
        health: Callable[[], Health],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.inspection = inspection
        self.registers = tuple(registers)
        self.values: list[int | None] = [None] * len(self.registers)
        self.changes: dict[int, Change] = {}
        self.health: Health | None = None
        self.rate: float | None = None
        self.link_errors: LinkErrors | None = None
        self.doubt = ""
        self._maps = maps
        self._has_banks = any(one.info.bank is not None for one in self.registers)
        self._ask, self._clock, self._time = health, clock, 0.0

    def look(self) -> None:
        """Read the registers that can be read without an effect, and ask what else is told.

        Raises:
            DeviceRemovedError: the device is gone.
            MappingError: a BAR does not answer, as it was switched off; values are those of the look before.
        """
        self._count()
        self.changes = {}
        for place in {one.cell.place.at(0) for one in self.registers}:
            self.inspection.require_decoding(place)
        driven = self._has_banks and self.inspection.is_driven_now()
        read = [at for at, one in enumerate(self.registers) if is_harmless(one.info, driven=driven)]
        for at in read:
            self.read(at)
        self.doubt = self._doubt(read)

    def read(self, at: int) -> None:
        """Read one register, whatever effect that has."""
        register = self.registers[at]
        before, value = self.values[at], register.cell.read()
        if before is not None and (before ^ value) & register.info.layout.readable:
            self.changes[at] = Change(register.info, before, value)
        self.values[at] = value

    def parse_write(self, text: str) -> tuple[Cell, int]:
        """Return the register or field, and the value, that a text as ``bar0.control.enable = 1`` names.

        Raises:
            ValueError: the text has another form, or the value does not fit.
            RegisterNotFoundError: there is no such register or field in the spaces that are looked at.
            RegisterAccessError: it is read-only.
        """
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"a write is NAME = VALUE, as in {self.registers[0].cell.place} = 0x80; not {text!r}")
        place = parse_location(name)
        kind = self._maps.get(place.space)
        if kind is None or not place.name:
            raise ValueError(f"{name.strip()!r} is no register of {' or '.join(self._maps) or 'a driver'}")
        info = kind.find(place.name)
        if not info.writable:
            raise RegisterAccessError(f"{place} is read-only")
        cell = named_cell(self.inspection.registers(place), place, info)
        return cell, cell.parse_fitting(value.strip())

    def _count(self) -> None:
        before, then = self.health, self._time
        self.health, self._time = self._ask(), self._clock()
        self.rate = self.link_errors = None
        if self.health.link_errors is not None and before is not None and before.link_errors is not None:
            self.link_errors = self.health.link_errors.since(before.link_errors)
        if self.health.interrupts is not None and before is not None and self._time > then:
            came = self.health.interrupts.since(before.interrupts)
            self.rate = None if came is None else came / (self._time - then)

    def _doubt(self, read: Sequence[int]) -> str:
        cells = [(self.registers[at].cell, self.values[at]) for at in read]
        if cells and all(value == cell.ones for cell, value in cells):
            return self.inspection.doubt_of_ones()
        if cells and not any(value for _, value in cells):
            return self.inspection.doubt_of_zeros()
        return ""
