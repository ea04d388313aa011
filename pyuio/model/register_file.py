# SPDX-License-Identifier: MIT
"""The registers of a card: what each access does to them, by the `access` that the register map declares.

A `RegisterFile` is made from the driver's own `RegisterMap`. Each register has its own storage, also one that shares
its offset with another, as a read-only and a write-only register may. The card has a view of that storage
(`RegisterFile.view`): the same map with the same names, in which every register and field can be read and written, and
no access has an effect.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from pyuio._native._access import Window
from pyuio.registers import Field, FieldArray, Memory, Register, RegisterMap
from pyuio.registers.access import EFFECTS
from pyuio.registers.bank import Bank
from pyuio.registers.register_map import Array

_READ_EFFECTS = {"rc": "clear", "rs": "set", "ru": "other"}


def _write_effect(access: str) -> str:
    """Return what a write does to the bits: "value", "1c", "0t", "c", "s", "u", "first", or "" if it is refused."""
    effect = EFFECTS[access].write
    if effect == "none":
        return ""
    if effect == "value":
        return "value"
    if access == "special":
        return "u"
    name = access
    if name[-2:] in _READ_EFFECTS and name not in ("wrc", "wrs", "wru"):
        name = name[:-2]
    name = re.sub("^(wo|rw|w)", "", name)
    return "first" if name == "1" else name


def _read_effect(access: str) -> str:
    """Return what a read does to the bits: "clear", "set", "other", or "" for nothing."""
    return _READ_EFFECTS.get(access[-2:], "") if EFFECTS[access].read_effect else ""


class _Effects(NamedTuple):
    """Masks of the bits on which an access has one effect each."""

    value: int = 0
    ones_clear: int = 0
    ones_set: int = 0
    ones_toggle: int = 0
    zeros_clear: int = 0
    zeros_set: int = 0
    zeros_toggle: int = 0
    any_clear: int = 0
    any_set: int = 0
    first: int = 0
    read_clear: int = 0
    read_set: int = 0

    @property
    def plain(self) -> bool:
        """Whether a write stores its value in all bits that can be written, and does nothing else."""
        return not any(self[1:10])


_WRITE_MASKS = {
    "value": "value",
    "1c": "ones_clear",
    "1s": "ones_set",
    "1t": "ones_toggle",
    "0c": "zeros_clear",
    "0s": "zeros_set",
    "0t": "zeros_toggle",
    "c": "any_clear",
    "s": "any_set",
    "first": "first",
}
_READ_MASKS = {"clear": "read_clear", "set": "read_set"}


def _effects(register: Register) -> _Effects:
    layout = register._layout
    masks: dict[str, int] = {}
    rest = layout.full
    fields: list[tuple[str, int]] = [(one.access or layout.access, one.mask) for one in register._fields.values()]
    for _, mask in fields:
        rest &= ~mask
    for access, mask in (*fields, (layout.access, rest)):
        # What is written to bits that a read-only field shares goes to the hook; what is read there is that field's.
        written = (_WRITE_MASKS.get(_write_effect(access)), mask & ~layout.shared)
        for name, bits in (written, (_READ_MASKS.get(_read_effect(access)), mask)):
            if name is not None:
                masks[name] = masks.get(name, 0) | bits
    return _Effects(**masks)


class Slot:
    """One register of a card, or the words of a memory: its place for the driver, and its place in the storage.

    Attributes:
        name: of the register in the map, with a place for each index: ``channel[{}].count``.
        hook: the part of a hook's name: ``channel_count``.
        offset: for the driver, in the BAR, in bytes.
        size: of all its words, in bytes.
        word: bytes of a register, or of a word of a memory.
        place: in the storage, in bytes.
        bank: where in the storage what selects its bank is: offset and size in bytes, the bits, and their value when it
            is selected; None if it is in no bank.
        readable: whether the driver may read it.
        writable: whether the driver may write it.
        narrow: whether it takes accesses of fewer bytes than `access_size`, too.
        access_size: bytes of the access that it is made for.
        first_part, last_part: the bits of a word that the first and the last of its accesses reach, in bytes from the
            least significant.
        turned: whether the most significant of these parts lies at the lowest address.
        gathered: what was written to the parts of a word, so far.
        shown: the word that is read in parts, and what a hook lets the driver read there; None for what is stored.
        is_memory: whether it is a memory, whose hooks get the number of the word.
    """

    __slots__ = (
        "access_size",
        "bank",
        "effects",
        "first_part",
        "gathered",
        "hook",
        "indices",
        "is_memory",
        "last_part",
        "name",
        "narrow",
        "offset",
        "on_read",
        "on_write",
        "place",
        "plain",
        "readable",
        "reads_change",
        "shown",
        "size",
        "turned",
        "word",
        "writable",
        "written",
    )

    def __init__(self, path: str, offset: int, place: int, register: Register, words: int | None = None) -> None:
        self.name = path
        self.hook, self.indices = hook_name(path)
        self.offset, self.place = offset, place
        self.word = register._layout.width // 8
        self.is_memory = words is not None
        self.size = self.word * (1 if words is None else words)
        self.access_size = register._layout.access_width // 8
        self.readable = bool(register._layout.readable)
        self.writable = bool(register._layout.writable)
        self.effects = _effects(register)
        self.reads_change = bool(self.effects.read_clear | self.effects.read_set)
        last = self.word - self.access_size
        self.first_part, self.last_part = (last, 0) if register._layout.high_first else (0, last)
        self.turned = register._layout.word_order == "big"
        self.gathered = 0
        self.shown: tuple[int, int | None] = 0, None
        self.plain = self.effects.plain and self.effects.value == register._layout.full
        self.narrow = False
        self.bank: tuple[int, int, int, int] | None = None
        self.written = False  # since the last reset, for "rw1"
        self.on_read: Callable[..., int | None] | None = None
        self.on_write: Callable[..., object] | None = None

    def within(self, offset: int) -> tuple[int, int]:
        """Return which word an access at `offset` of the BAR reaches, and from which of its bytes on.

        Bytes of a word count from the least significant.
        """
        word, inside = divmod(offset - self.offset, self.word)
        if self.turned:
            part, rest = divmod(inside, self.access_size)
            inside = self.word - (part + 1) * self.access_size + rest
        return word, inside

    def after_read(self, value: int) -> int:
        """Return the register's value after the driver read `value`."""
        return value & ~self.effects.read_clear | self.effects.read_set


def hook_name(path: str) -> tuple[str, tuple[int, ...]]:
    """Return the part of a hook's name for a register, and its indices: ``channel[2].count`` has channel_count, 2."""
    indices = tuple(int(number) for number in re.findall(r"\[(\d+)\]", path))
    return re.sub(r"\[\d+\]", "", path).replace(".", "_"), indices


class RegisterFile:
    """The registers behind one BAR.

    Args:
        registers: the register map; it starts at the start of the BAR.

    Raises:
        TypeError: `registers` is no class of register maps.
    """

    def __init__(self, registers: type[RegisterMap]) -> None:
        if not (isinstance(registers, type) and issubclass(registers, RegisterMap)):
            raise TypeError(f"the registers behind a BAR are a class that derives from RegisterMap, not {registers!r}")
        self.kind = registers
        made, size = _view_of(registers)
        self.slots = sorted(_slots(registers.at(0), made.at(0), "", 0, 0), key=lambda slot: slot.offset)
        self._storage = bytearray(max(size, 8))
        self.window = Window(self._storage, offset=0, size=len(self._storage), name=registers.__name__, endian="little")
        self.view: RegisterMap = made(self.window)
        alone = [slot for slot in self.slots if not slot.is_memory and slot.bank is None]
        self.reads = {slot.offset: slot for slot in alone if slot.readable}
        self.writes = {slot.offset: slot for slot in alone if slot.writable}
        window = self.window
        self.loads = {1: window.read8, 2: window.read16, 4: window.read32, 8: window.read64}
        self.stores = {1: window.write8, 2: window.write16, 4: window.write32, 8: window.write64}
        self._offsets = [slot.offset for slot in self.slots]
        self._ends = list(itertools.accumulate((slot.offset + slot.size for slot in self.slots), max))

    def find(self, offset: int, *, writing: bool) -> Slot | None:
        """Return the register that the driver reaches at `offset`, or None."""
        slot = (self.writes if writing else self.reads).get(offset)
        if slot is not None:
            return slot
        found = None
        at = bisect.bisect_right(self._offsets, offset) - 1
        while at >= 0 and self._ends[at] > offset:  # one of those up to here may reach as far
            one = self.slots[at]
            if offset < one.offset + one.size and self._is_selected(one):
                if one.writable if writing else one.readable:
                    return one
                found = found or one
            at -= 1
        return found

    def _is_selected(self, slot: Slot) -> bool:
        """Return whether a register is in no bank, or in the one that is selected."""
        if slot.bank is None:
            return True
        place, size, mask, value = slot.bank
        return self.load(place, size) & mask == value

    def reset(self) -> None:
        """Make all registers 0."""
        self._storage[:] = bytes(len(self._storage))
        for slot in self.slots:
            slot.written, slot.gathered, slot.shown = False, 0, (0, None)

    def load(self, place: int, size: int) -> int:
        """Return a value of the storage."""
        return int.from_bytes(self._storage[place : place + size], "little")

    def store(self, place: int, size: int, value: int) -> None:
        """Change a value in the storage."""
        self._storage[place : place + size] = value.to_bytes(size, "little")


def changed_by_write(slot: Slot, old: int, data: int, mask: int = -1) -> int:
    """Return the value of a register after a write of `data` to the bits in `mask`; the access of each bit says how."""
    value, one_c, one_s, one_t, zero_c, zero_s, zero_t, any_c, any_s, first, _, _ = slot.effects
    new = old & ~value | data & value
    new &= ~(one_c & data | zero_c & ~data | any_c)
    new |= one_s & data | zero_s & ~data | any_s
    new ^= one_t & data | zero_t & ~data
    if first and not slot.written:
        new = new & ~first | data & first
    return old & ~mask | new & mask


# ---- The card's view ----


def _rw_field(field: Any) -> Any:
    if isinstance(field, FieldArray):
        return FieldArray(_rw_field(field._fields[0]), len(field), stride=_stride(field))
    low: Any = None if field.is_bool else field.low
    return Field(field.high, low, enum=field.enum, doc=field.doc, msb0=field.msb0)


def _stride(array: FieldArray[Any, Any]) -> int | None:
    return array[1].low - array[0].low if len(array) > 1 else None


@functools.cache
def _rw_kind(kind: type[Register], access: str) -> type[Register]:
    """Return a class of registers with the same fields, all of which can be read and written."""
    elements = {id(one) for array in kind._arrays.values() for one in array._fields}
    fields: dict[str, Any] = {}
    taken = 0
    # Of two fields on the same bits, one read-only and one write-only, the card has the one that the driver reads.
    named: list[tuple[str, Any]] = list(kind._arrays.items())
    named += [(name, one) for name, one in kind._fields.items() if id(one) not in elements]

    def is_hidden(item: tuple[str, Any]) -> bool:
        field = item[1]._fields[0] if isinstance(item[1], FieldArray) else item[1]
        return not EFFECTS[field.access or access].readable

    ordered = sorted(named, key=is_hidden)
    for name, one in ordered:
        if not one.mask & taken:
            fields[name] = _rw_field(one)
            taken |= one.mask
    make: Any = type(Register)
    made: type[Register] = make(
        kind.__name__,
        (Register,),
        {"__doc__": kind.__doc__, **fields},
        width=kind._kind_width,
        access="rw",
        access_width=kind._kind_access_width,
    )
    return made


def _rw_register(register: Register, place: int) -> Register:
    layout = register._layout
    access_width = next(width for width in (64, 32, 16, 8) if layout.width % width == 0)
    kind = _rw_kind(type(register), layout.access)
    return kind(place, width=layout.width, access="rw", access_width=access_width)


def _viewed(declared: Any, place: int) -> tuple[Any, int]:
    """Return the card's view of a declaration, at this place of the storage, and its size in bytes."""
    if isinstance(declared, Register):
        return _rw_register(declared, place), declared._span
    if isinstance(declared, Bank):
        return _viewed(declared._element, place)
    if isinstance(declared, Memory):
        return Memory(_rw_register(declared._element, place), len(declared)), declared._span
    if isinstance(declared, Array):
        element, size = _viewed(declared._element, place)
        stride = _rounded(size)
        return Array(element, declared._count, stride=stride), stride * declared._count
    kind: type[RegisterMap] = type(declared)
    view, size = _view_of(kind)
    return view.at(place), size


@functools.lru_cache(maxsize=256)  # a class takes as long to make as the rest of a card
def _view_of(kind: type[RegisterMap]) -> tuple[type[RegisterMap], int]:
    """Return a map with the names of `kind`, whose registers lie one after the other, and its size in bytes."""
    names: dict[str, Any] = {}
    place = 0
    for name, one in kind._declared.items():
        names[name], size = _viewed(one, place)
        place += _rounded(size)
    make: Any = type(RegisterMap)
    return make(kind.__name__, (RegisterMap,), names), place


def _rounded(size: int) -> int:
    return -(-size // 8) * 8


def _slots(declared: Any, view: Any, path: str, offset: int, place: int) -> Iterator[Slot]:
    """Yield the registers of a declaration.

    Args:
        declared: the driver's.
        view: the card's.
        path: the name of the declaration.
        offset: of what it is a part of, in the BAR.
        place: of what it is a part of, in the storage.
    """
    if isinstance(declared, Array):
        for index in range(declared._count):
            start, there = offset + index * declared._stride, place + index * view._stride
            yield from _slots(declared._element, view._element, f"{path}[{index}]", start, there)
        return
    if isinstance(declared, Bank):
        yield from _slots(declared._element, view, path, offset, place)
        return
    offset, place = offset + declared._offset, place + view._offset
    if isinstance(declared, Register):
        yield Slot(path, offset, place, declared)
    elif isinstance(declared, Memory):
        yield Slot(path, offset, place, declared._element, len(declared))
    else:
        kind, there = type(declared), type(view)
        for name, one in kind._declared.items():
            for slot in _slots(one, there._declared[name], f"{path}.{name}" if path else name, offset, place):
                if isinstance(one, Bank):
                    slot.bank = _selector(one, there, place)
                yield slot


def _selector(bank: Bank, view: type[RegisterMap], place: int) -> tuple[int, int, int, int]:
    """Return where in the storage what selects a bank is, as `Slot.bank` has it; `place` is that of the map."""
    assert bank._selection is not None
    selector, value = bank._selection
    path = selector.path if selector.field is None else selector.path.rpartition(".")[0]
    word = selector.width // 8
    bits = selector.mask if selector.field is None else selector.field.mask
    return place + view.find(path).offset, word, bits, value if selector.field is None else selector.field.place(value)
