# SPDX-License-Identifier: MIT
"""What a class of cards declares by its attributes and hooks, checked when the class is made.

Every error is a `TypeError` or a `ValueError` that names the class and the attribute.
"""

from __future__ import annotations

import difflib
import inspect
import operator
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from pyuio.model.pci_function import BarSpace, Capability
from pyuio.model.register_file import RegisterFile, Slot

if TYPE_CHECKING:
    Kind: TypeAlias = type[Any]  # a class of cards

_NUMBERS = {"vendor": 16, "device": 16, "revision": 8, "class_code": 24, "dma_mask": 64}  # bits
_SMALLEST = {False: 16, True: 4}  # bytes of a BAR in memory, and in ports (PCI 3.0, section 6.2.5.1)
_LARGEST = {False: 1 << 30, True: 256}  # with addresses of 32 bits
_LARGEST_CONFIGURATION = 256 - 0x40  # bytes, from the first capability on


def check(cls: Kind, known: Sequence[str]) -> None:
    """Check a class of cards.

    Args:
        cls: the class.
        known: the names of the attributes that say what the card is.

    Raises:
        TypeError, ValueError: its attributes or hooks are not those of a card.
    """
    _check_spelling(cls, known)
    files = register_files(cls, checked_bars(cls))
    _check_hooks(cls, [slot for file in files.values() for slot in file.slots])


def like(name: str, names: Iterable[str]) -> str:
    """Return "; did you mean ...?" with the nearest of `names`, or "" if none is near."""
    close = difflib.get_close_matches(name, list(names), 1)
    return f"; did you mean {close[0]}?" if close else ""


def _is_number(value: object, largest: int) -> bool:
    return isinstance(value, int) and 0 <= value <= largest


def _mapping(cls: Kind, name: str, of: str) -> Mapping[Any, Any]:
    value = getattr(cls, name)
    if not isinstance(value, Mapping):
        raise TypeError(f"{cls.__name__}.{name} is a dict {of}, not {value!r}")
    return value


def _check_spelling(cls: Kind, known: Sequence[str]) -> None:
    """Find a misspelt attribute: the card would be without it, and nobody would say so."""
    for name, value in vars(cls).items():
        if name in known or name.startswith("_") or not isinstance(value, (int, tuple, list, Mapping)):
            continue
        if close := difflib.get_close_matches(name, known, 1, cutoff=0.85):
            raise ValueError(f"{cls.__name__}.{name} says nothing of the card; did you mean {close[0]}?")


# ---- The PCI side ----


def checked_bars(cls: Kind) -> dict[int, BarSpace]:
    """Return what stands behind each BAR of a class of cards. TypeError, ValueError: what it says of PCI is wrong."""
    for name, bits in _NUMBERS.items():
        if not _is_number(getattr(cls, name), (1 << bits) - 1):
            raise ValueError(f"{cls.__name__}.{name} is a number of {bits} bits, not {getattr(cls, name)!r}")
    if cls.dma_mask & (cls.dma_mask + 1):
        raise ValueError(f"{cls.__name__}.dma_mask is 2^n - 1, not {cls.dma_mask:#x}")
    if cls.subsystem is not None and not (
        isinstance(cls.subsystem, tuple)
        and len(cls.subsystem) == 2
        and all(_is_number(n, 0xFFFF) for n in cls.subsystem)
    ):
        raise ValueError(f"{cls.__name__}.subsystem is a pair of numbers of 16 bits, or None, not {cls.subsystem!r}")
    if not _is_number(cls.interrupt_pin, 4):
        raise ValueError(f"{cls.__name__}.interrupt_pin is 0 to 4, not {cls.interrupt_pin!r}")
    if cls.msi_vectors not in (0, 1, 2, 4, 8, 16, 32):
        raise ValueError(f"{cls.__name__}.msi_vectors is 0, or a power of two up to 32, not {cls.msi_vectors!r}")
    if not _is_number(cls.msix_vectors, 128):
        raise ValueError(f"{cls.__name__}.msix_vectors is 0 to 128, not {cls.msix_vectors!r}")
    _check_capabilities(cls)
    spaces = {index: _bar(cls, index, given) for index, given in _mapping(cls, "bars", "of BAR to size").items()}
    for index, bar in spaces.items():
        if bar.width == 64 and (bar.ports or index == 5 or index + 1 in spaces):
            where = f"{cls.__name__}.bars[{index}]"
            raise ValueError(f"{where}: an address of 64 bits is for memory, and takes the next BAR's place, too")
    if cls.msix_vectors:
        msix_bar(cls, spaces)
    return spaces


def _bar(cls: Kind, index: object, given: object) -> BarSpace:
    where = f"{cls.__name__}.bars[{index!r}]"
    if not _is_number(index, 5):
        raise ValueError(f"{where}: a card has BARs 0 to 5")
    if not isinstance(given, (int, BarSpace)):
        raise TypeError(f"{where} is a size in bytes, or a BarSpace, not {given!r}")
    bar = given if isinstance(given, BarSpace) else BarSpace(given)
    least = _SMALLEST[bool(bar.ports)]
    if not isinstance(bar.size, int) or bar.size < least or bar.size & (bar.size - 1):
        size = f"{bar.size:#x}" if isinstance(bar.size, int) else repr(bar.size)
        raise ValueError(f"{where}: the size of a BAR is a power of two from {least} on, not {size}")
    if bar.width not in (32, 64):
        raise ValueError(f"{where}: an address has 32 or 64 bits, not {bar.width!r}")
    if bar.width == 32 and bar.size > _LARGEST[bool(bar.ports)]:
        raise ValueError(f"{where}: a BAR of {bar.size:#x} bytes is too large for addresses of 32 bits, or for ports")
    return bar


def msix_bar(cls: Kind, spaces: Mapping[int, BarSpace]) -> int:
    """Return the first free BAR, for the table of MSI-X. ValueError: there is none."""
    taken = set(spaces) | {index + 1 for index, bar in spaces.items() if bar.width == 64}
    free = [index for index in range(6) if index not in taken]
    if not free:
        raise ValueError(f"{cls.__name__}.msix_vectors: the table of MSI-X needs a BAR, and all six are taken")
    return free[0]


def _check_capabilities(cls: Kind) -> None:
    where = f"{cls.__name__}.capabilities"
    size = 0
    if not isinstance(cls.capabilities, (tuple, list)):
        raise TypeError(f"{where} is a tuple of Capability, not {cls.capabilities!r}")
    for one in cls.capabilities:
        if not isinstance(one, Capability):
            raise TypeError(f"{where} are of type Capability, not {one!r}")
        if not (isinstance(one.body, bytes) and isinstance(one.writable, bytes)):
            raise TypeError(f"{where}: `body` and `writable` are bytes, not those of {one!r}")
        if not _is_number(one.id, 0xFF):
            raise ValueError(f"{where}: an ID has 8 bits, not {one.id!r}")
        if len(one.writable) > len(one.body):
            raise ValueError(f"{where}: `writable` of {one!r} is longer than its body")
        size += -(-(2 + len(one.body)) // 4) * 4
    size += 16 * bool(cls.msi_vectors) + 12 * bool(cls.msix_vectors)
    if size > _LARGEST_CONFIGURATION:
        raise ValueError(f"{where}, with those of the interrupts, take {size} bytes of {_LARGEST_CONFIGURATION}")


# ---- Registers ----


def register_files(cls: Kind, spaces: Mapping[int, BarSpace]) -> dict[int, RegisterFile]:
    """Return new registers for each BAR that has some. TypeError, ValueError: what the class says of them is wrong."""
    files: dict[int, RegisterFile] = {}
    owners: dict[str, int] = {}
    for index, kind in _mapping(cls, "registers", "of BAR to RegisterMap").items():
        where = f"{cls.__name__}.registers[{index!r}]"
        if index not in spaces:
            raise ValueError(f"{where}: the card has no such BAR; see bars")
        try:
            file = files[index] = RegisterFile(kind)
        except TypeError as error:
            raise TypeError(f"{where}: {error}") from error
        for slot in file.slots:
            if slot.offset + slot.size > spaces[index].size:
                size = spaces[index].size
                raise ValueError(f"{where}: {slot.name} at {slot.offset:#x} is beyond BAR {index}, of {size:#x} bytes")
        for name in kind._declared:
            if name in owners:
                raise ValueError(f"{cls.__name__}: BARs {owners[name]} and {index} both have a register {name}")
            owners[name] = index
    _check_named(cls, {slot.name: slot for file in files.values() for slot in file.slots})
    return files


def _check_named(cls: Kind, slots: Mapping[str, Slot]) -> None:
    for name, value in _mapping(cls, "reset_values", "of register to value").items():
        where = f"{cls.__name__}.reset_values"
        if name not in slots:
            raise ValueError(f"{where}: no register is called {name}{like(name, slots)}")
        try:
            number = operator.index(value)
        except TypeError:
            raise TypeError(f"{where}[{name!r}] is a number, not {value!r}") from None
        if not _is_number(number, (1 << 8 * slots[name].word) - 1):
            raise ValueError(f"{where}[{name!r}]: {number:#x} does not fit the register's {8 * slots[name].word} bits")
    if isinstance(cls.narrow, str) or not isinstance(cls.narrow, Collection):
        raise TypeError(f"{cls.__name__}.narrow is a tuple of names of registers, not {cls.narrow!r}")
    names = {name for slot in slots.values() for name in (slot.name, slot.hook)}
    for name in cls.narrow:
        if name not in names:
            raise ValueError(f"{cls.__name__}.narrow: no register is called {name}{like(name, slots)}")


# ---- Hooks ----


def _check_hooks(cls: Kind, slots: list[Slot]) -> None:
    registers: dict[str, list[Slot]] = {}
    for slot in slots:
        registers.setdefault(slot.hook, []).append(slot)
    for attribute in dir(cls):
        for start in ("on_read_", "on_write_"):
            if attribute.startswith(start):
                name, where = attribute.removeprefix(start), f"{cls.__name__}.{attribute}"
                if name not in registers:
                    raise ValueError(f"{where}: no register is called {name}{like(name, registers)}")
                hook = inspect.getattr_static(cls, attribute)
                _check_hook(hook, where, registers[name], writing=start == "on_write_")


def _check_hook(hook: Any, where: str, slots: list[Slot], *, writing: bool) -> None:
    slot = slots[0]
    if not any(one.writable if writing else one.readable for one in slots):
        only, verb = ("read", "writes") if writing else ("write", "reads")
        raise ValueError(f"{where} is never called: {slot.name} is {only}-only, so no driver {verb} it")
    if not inspect.isfunction(hook):
        raise TypeError(f"{where} is a method, not {hook!r}")
    if inspect.iscoroutinefunction(hook) or inspect.isgeneratorfunction(hook) or inspect.isasyncgenfunction(hook):
        raise TypeError(f"{where} is an ordinary method: as `async def`, or with `yield`, its lines would never run")
    words = ["index"] * (len(slot.indices) + slot.is_memory) + ["value"] * writing
    try:
        inspect.signature(hook).bind(None, *words)
    except TypeError as error:
        takes = ", ".join(["self", *words])
        raise TypeError(f"{where} is called as {where.rpartition('.')[2]}({takes}): {error}") from error
