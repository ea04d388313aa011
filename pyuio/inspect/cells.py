# SPDX-License-Identifier: MIT
"""Registers of a BAR, map or configuration space, found by place and width or by name, as tools read and write them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from pyuio.driver import Driver
from pyuio.errors import RegisterNotFoundError
from pyuio.inspect.inspection import Inspection
from pyuio.inspect.location import Location, parse_number
from pyuio.kernel.uio import UioMap
from pyuio.region import Region
from pyuio.region.map_mapping import of_map
from pyuio.registers.fields import Bits
from pyuio.registers.register import Accesses
from pyuio.registers.register_map import RegisterInfo, RegisterMap

WIDTHS = (8, 16, 32, 64)


def _no_fields(_value: int) -> dict[str, int]:
    return {}


def _parse_value(text: str) -> int:
    return parse_number(text, "the value")


@dataclass(frozen=True)
class Cell:
    """One register, or one field of a register.

    Attributes:
        place: where it is.
        width: in bits.
        read: reads it by one access of the register's width.
        write: writes it. A register takes one access; a field may take a read and a write of its register.
        parse: returns the value that a text stands for; raises ValueError.
        meaning: returns what a value means to people. `text` prints it after the digits of a register, and instead of
            the digits of a field.
        fields: returns the values of the register's fields.
        is_field: whether it is a field of a register.
        harmless: whether it can be read without an effect, as far as a declaration says.
        set_fields: returns what the fields that are not 0 mean to people.
    """

    place: Location
    width: int
    read: Callable[[], int]
    write: Callable[[int], None]
    parse: Callable[[str], int] = _parse_value
    meaning: Callable[[int], str] | None = None
    fields: Callable[[int], dict[str, int]] = _no_fields
    is_field: bool = False
    harmless: bool = True
    set_fields: Callable[[int], str] | None = None

    @property
    def ones(self) -> int:
        """The value that a register reads as if the device does not answer."""
        return (1 << self.width) - 1

    def parse_fitting(self, text: str) -> int:
        """Return the value that a text stands for. ValueError: it is no value, or does not fit the register."""
        number = self.parse(text)
        if number > self.ones:
            raise ValueError(f"the value {number:#x} does not fit the {self.width} bits of {self.place}")
        return number

    def text(self, value: int, *, only_set: bool = False) -> str:
        """Return a value as text for people; `only_set`: without the fields of a register that are 0."""
        meaning = self.set_fields if only_set else self.meaning
        if self.is_field and meaning is not None:
            return meaning(value)
        digits = f"{value:#0{2 + self.width // 4}x}"
        return digits if meaning is None else f"{digits}  {meaning(value)}".rstrip()

    def data(self, value: int) -> dict[str, Any]:
        """Return a value as data for JSON."""
        found = {"place": str(self.place), "width": self.width, "value": value}
        return {**found, "fields": fields} if (fields := self.fields(value)) else found


def checked_width(width: int) -> int:
    """Return a width in bits, or raise ValueError."""
    if width not in WIDTHS:
        raise ValueError(f"the width is 8, 16, 32 or 64 bits, not {width}")
    return width


def cells(inspection: Inspection, place: Location, width: int, count: int = 1) -> list[Cell]:
    """Return `count` adjacent registers, without reading or writing them.

    Args:
        inspection: the device.
        place: of the first register, by its offset.
        width: of each register, in bits.
        count: at least 1.

    Raises:
        ValueError: the registers are not inside the BAR, map or configuration space, or do not admit this width.
        MappingError, DeviceRemovedError, PermissionDeniedError: as `Inspection.space`.
    """
    step = checked_width(width) // 8
    space = inspection.space(place)
    last = place.offset + count * step
    if count < 1:
        raise ValueError(f"the count is at least 1, not {count}")
    if place.offset % step:
        fitting = max(option for option in WIDTHS if place.offset % (option // 8) == 0)
        raise ValueError(f"{place}: the offset is not a multiple of {step}; give --width {fitting}, or another offset")
    if last > space.size:
        raise ValueError(f"{place}: {count} of {width} bits end at {last:#x}, and {place.space} at {space.size:#x}")
    if width == 64 and not isinstance(space, Region):
        raise ValueError(
            f"{place}: {'configuration space has' if place.is_config else 'I/O ports have'} no 64-bit access"
        )
    read = cast("Callable[[int], int]", getattr(space, f"read{width}"))
    write = cast("Callable[[int, int], None]", getattr(space, f"write{width}"))

    def cell(offset: int) -> Cell:
        return Cell(place.at(offset), width, lambda: read(offset), lambda value: write(offset, value))

    return [cell(place.offset + number * step) for number in range(count)]


def register_map(driver: type[Driver], where: int | UioMap) -> type[RegisterMap]:
    """Return the register map of a BAR or of a node's map, as a device's driver declares it.

    Args:
        driver: the driver's class, from `pyuio.inspect.chosen_driver`.
        where: the BAR, 0 to 5; or the map.

    Raises:
        RegisterNotFoundError: the driver names no registers of this BAR or map.
    """
    maps = driver.register_maps
    found = maps.get(where) if isinstance(where, int) else of_map(maps, where)
    if found is None:
        asked = f"bar{where}" if isinstance(where, int) else where.label
        has = ", ".join(f"bar{key}" if isinstance(key, int) else key for key in maps) or "none"
        raise RegisterNotFoundError(f"{driver.__name__} has no names for {asked}; it has names for: {has}")
    return found


def registers_within(registers: type[RegisterMap], name: str) -> list[RegisterInfo]:
    """Return the register or field called `name`, or all registers of the map or array called so, by their offsets.

    Args:
        registers: the register map.
        name: as `RegisterMap.find` takes it; "" for the whole map.

    Raises:
        RegisterNotFoundError: there is none; the message lists similar names.
    """
    within = re.compile(re.escape(re.sub(r"\[0+(?=[0-9])", "[", name)) + r"[.\[]") if name else re.compile("")
    return [info for info in registers.walk() if within.match(info.path)] or [registers.find(name)]


def is_harmless(info: RegisterInfo, *, driven: bool) -> bool:
    """Return whether a register can be read without an effect, as far as its declaration says.

    Args:
        info: the declaration.
        driven: whether somebody else drives the device, who is disturbed if another bank is selected.
    """
    return info.readable and not info.read_effect and not (driven and info.bank is not None)


def named_cell(region: Accesses, where: Location, info: RegisterInfo, *, driven: bool = False) -> Cell:
    """Return a register, or a field of a register, by its declaration, without reading or writing it.

    Args:
        region: the BAR, the map, or the configuration space.
        where: any place in it.
        info: the declaration.
        driven: as for `is_harmless`.
    """
    register = info.bind(region)
    place = where.at(info.offset, info.path)
    if info.field is not None:
        return _field_cell(place, info, info.field, register.read, lambda value: info.write(region, value))
    return Cell(
        place,
        info.width,
        register.read,
        register.write,
        meaning=info.text,
        fields=lambda value: {name: field.extract(value) for name, field in info.fields.items()},
        harmless=is_harmless(info, driven=driven),
        set_fields=lambda value: info.text(value, only_set=True),
    )


def _field_cell(
    place: Location, info: RegisterInfo, field: Bits, read: Callable[[], int], write: Callable[[int], None]
) -> Cell:
    names = {} if field.enum is None else {member.name.casefold(): int(member) for member in field.enum}

    def parse(text: str) -> int:
        if text.casefold() in names:
            return names[text.casefold()]
        try:
            return parse_number(text, f"the value of {info.path}")
        except ValueError as error:
            raise ValueError(f"{error}; or one of {', '.join(names)}" if names else str(error)) from None

    return Cell(
        place,
        field.high - field.low + 1,
        lambda: field.extract(read()),
        write,
        parse,
        meaning=lambda value: field.text(field.place(value)),
        is_field=True,
    )
