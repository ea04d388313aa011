# SPDX-License-Identifier: MIT
"""Registers by name: declare them once, as a data sheet lists them, and use them through any region.

.. code-block:: python

    class Status(Register):
        computing = Field(0, access="ro", doc="a factorial is being computed")
        interrupt = Field(7, doc="raise an interrupt when it is done")

    class Registers(RegisterMap):
        identification = Register(0x00, access="ro")
        status = Status(0x20)

    registers = Registers(device.bar(0))
    registers.identification.read()      # one 32-bit load
    registers.status.interrupt = 1       # one load, one store
    if registers.status.computing: ...   # one load
    print(registers.status)              # its value and fields
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterator, Mapping
from types import MemberDescriptorType
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, SupportsIndex, TypeAlias, TypeVar, cast

from pyuio._native._access import Window
from pyuio.errors import RegisterAccessError, RegisterNotFoundError
from pyuio.region.ports import PortRegion
from pyuio.registers.access import Access
from pyuio.registers.bank import Bank
from pyuio.registers.fields import Field, FieldArray, Layout, similar
from pyuio.registers.memory import Memory
from pyuio.registers.register import (
    WIDTHS,
    Accesses,
    Names,
    Register,
    RegisterInfo,
    checked_name,
    checked_run,
    checked_width,
    is_declaration,
    require_region,
)

if TYPE_CHECKING:
    from typing_extensions import Buffer, Self

    from pyuio._native._access import Endian
    from pyuio.registers.bank import Selection
    from pyuio.registers.snapshot import Snapshot

__all__ = ["Access", "Accesses", "Array", "Field", "FieldArray", "Memory", "Register", "RegisterInfo", "RegisterMap"]

_Element = TypeVar("_Element", bound="Declared")
_MOST_SHOWN = 500  # registers of a map in a notebook: a page with more is of no use, and each costs an access


class RegisterMapType(type):
    """The metaclass of `RegisterMap`, which collects and checks the declarations of a class."""

    @classmethod
    def __prepare__(cls, name: str, bases: tuple[type, ...], /, **keywords: object) -> Names:
        """Return the mapping for the names in the class's body."""
        return Names()

    def __new__(
        cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], *, width: int | None = None
    ) -> RegisterMapType:
        """Make a class of maps. ValueError: registers overlap, are misaligned, or have names that are not allowed."""
        own = {}
        for key, value in namespace.items():
            if not is_declaration(value):
                continue
            checked_name(key, bases, name)
            if isinstance(value, (Field, FieldArray)):
                raise ValueError(f"{name}: {key} is a field; declare it in a class that derives from Register")
            if value._region is not None:
                raise ValueError(f"{name}: {key} is in a region already; declare it with at(offset)")
            own[key] = value._bound(None, value._offset, key)  # now that its name is known
        # A slot for each register: Python finds it faster than an attribute of the class.
        rest = {key: value for key, value in namespace.items() if key not in own}
        slots = (*rest.get("__slots__", ()), *own)
        made: Any = super().__new__(cls, name, bases, {**rest, "__slots__": slots})
        made._declared = {**getattr(made, "_declared", {}), **own}
        for key, one in own.items():
            if isinstance(one, Bank):
                one.resolve(made, key)
        placed = list(made.walk())
        _check_overlaps(name, placed)
        made._size = max((one._offset + one._span for one in made._declared.values()), default=0)
        made._alignment, made._phase = _placing(name, made._declared)
        made._widest = getattr(made, "_widest", 64) if width is None else checked_width(width, None, name)
        for path, layout in [*((info.path, info.layout) for info in placed), *_memories(made._declared)]:
            if layout.access_width > made._widest:
                raise ValueError(
                    f"{name}: {path} has {layout.width} bits, and the widest access of the map has {made._widest}; "
                    "give its access_width"
                )
        kind: RegisterMapType = made
        return kind

    def __getattribute__(cls, name: str) -> Any:
        """Return the declaration of a register, for which Python would return the slot's descriptor."""
        found = super().__getattribute__(name)
        return super().__getattribute__("_declared")[name] if isinstance(found, MemberDescriptorType) else found


def _memories(declared: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Layout]]:
    """Yield the name and the words' layout of each `Memory`, which `RegisterMap.walk` leaves out."""
    for key, given in declared.items():
        one, name = given, f"{path}{key}"
        while isinstance(one, (Array, Bank)):
            one = one._element
        if isinstance(one, Memory):
            yield name, one._element._layout
        elif isinstance(one, RegisterMap):
            yield from _memories(type(one)._declared, f"{name}.")


def _check_overlaps(name: str, placed: list[RegisterInfo]) -> None:
    """Raise ValueError if two registers overlap, unless one is read-only and the other is write-only."""
    before: list[RegisterInfo] = []
    for one in placed:
        before = [other for other in before if other.offset + other.width // 8 > one.offset]
        for other in before:
            if one.bank is not None and one.bank.excludes(other.bank):
                continue
            if not (one.readable ^ other.readable and one.writable ^ other.writable):
                raise ValueError(
                    f"{name}: {one.path} at {one.offset:#x} overlaps {other.path} at {other.offset:#x}, "
                    f"{other.width // 8} bytes; only one that is read-only and one that is write-only may"
                )
        before.append(one)


def _placing(name: str, declared: Mapping[str, Declared]) -> tuple[int, int]:
    """Return the alignment of a map, and what is left when the place of the map is divided by it.

    A register is aligned by its place in the region, not in the map.
    """
    alignment, phase, first = 1, 0, ""
    for key, one in declared.items():
        its = (one._phase - one._offset) % one._alignment
        if (phase - its) % min(alignment, one._alignment):
            raise ValueError(
                f"{name}: {key} at {one._offset:#x} is misaligned wherever the map is, as a place that is right for "
                f"{first} is not right for it; the offset of a register is a multiple of its width"
            )
        if one._alignment > alignment:
            alignment, phase, first = one._alignment, its, key
    return alignment, phase


def _accesses(region: Any, endian: Endian | None, name: str) -> Accesses:
    """Return a region as it is, and for a buffer what accesses its memory."""
    if any(hasattr(region, f"read{width}") for width in WIDTHS):
        if endian is not None:
            raise TypeError(f"{name}: a region has its own byte order: device.bar(0, endian={endian!r})")
        return cast("Accesses", region)
    if hasattr(region, "window"):  # a DmaBuffer, which closes it
        return cast("Accesses", region.window(endian or "little"))
    try:
        size = memoryview(region).nbytes
        what = f"{type(region).__name__} of {size} bytes"
        return Window(region, offset=0, size=size, name=what, endian=endian or "little")
    except TypeError:
        raise TypeError(
            f"{name} is made on a region, such as device.bar(0), or on a buffer, not on a {type(region).__name__}"
        ) from None
    except BufferError:
        why = "read-only" if memoryview(region).readonly else "not in one piece"
        raise TypeError(f"{name}: the buffer is {why}; copy it first: bytearray(data)") from None


class RegisterMap(metaclass=RegisterMapType):
    """The registers of a region: a class with a `Register`, an `Array`, a `Memory` or another map for each name.

    ``class Registers(RegisterMap, width=32)`` says that the device takes accesses of up to 32 bits: a wider register is
    refused, and a driver that has the map in `Driver.register_maps` gets its BAR without wider accesses.

    Args:
        region: a `Region`, a `PortRegion`, or another object with their methods ``read8`` to ``write64``; or memory:
            a `DmaBuffer`, a bytearray, or another writable buffer. The map keeps a buffer's memory.
        offset: where the map starts in the region, in bytes.
        endian: byte order of the registers in a buffer, "little" if None; a region has its own.

    Raises:
        TypeError: no region, and no writable buffer; a byte order for a region.
        ValueError: the offset is negative, or misaligned for one of the registers. Also raised when the class is made,
            if registers overlap, cannot all be aligned, or have the same name. A read-only and a write-only register
            may overlap.
    """

    __slots__ = ("_offset", "_path", "_region")
    __declares__: ClassVar[bool] = True
    _declared: ClassVar[Mapping[str, Declared]]
    _size: ClassVar[int]
    _alignment: ClassVar[int]
    _phase: ClassVar[int]
    _widest: ClassVar[int]
    _region: Accesses | None
    _offset: int
    _path: str

    def __init__(self, region: Accesses | Buffer, *, offset: int = 0, endian: Endian | None = None) -> None:
        self._place(_accesses(region, endian, type(self).__name__), offset, "")

    @classmethod
    def at(cls, offset: int) -> Self:
        """Declare this map as a part of another map, `offset` bytes from the start of the other.

        Raises:
            ValueError: the offset is negative.
        """
        made = cls.__new__(cls)
        made._place(None, offset, cls.__name__)
        return made

    @classmethod
    def find(cls, path: str) -> RegisterInfo:
        """Return the place of a register or field: ``status``, ``status.computing``, ``dma.channel[2].count``.

        Raises:
            RegisterNotFoundError: there is no such register or field; the message lists similar names.
        """
        at: Any = None
        bank: Selection | None = None
        fields: FieldArray[Any, Any] | None = None
        offset, done = 0, ""
        words = re.findall(r"\[[^\]]*\]?|\.?[^.\[]+", path)
        if "".join(words) != path or path.startswith("."):
            raise RegisterNotFoundError(
                f"{cls.__name__}: {path!r} is not the name of a register, as in dma.channel[2].count"
            )
        for number, word in enumerate((word.removeprefix(".") for word in words), 1):
            is_last = number == len(words)
            if isinstance(at, (Array, Memory)):
                index = _index(at._count, word, f"{cls.__name__}: {path!r}", done)
                offset, done = offset + index * at._stride, f"{done}[{index}]"
                at = at._element
                continue
            if isinstance(at, Register) and fields is not None:
                index = _index(len(fields), word, f"{cls.__name__}: {path!r}", done)
                if is_last:
                    return RegisterInfo(f"{done}[{index}]", offset, at, fields[index], bank)
                raise RegisterNotFoundError(f"{cls.__name__}: there is no {path!r}; {done}[{index}] is a field")
            if isinstance(at, Register) and word in at._arrays:
                fields, done = at._arrays[word], f"{done}.{word}"
                continue
            names: Mapping[str, Any] = at._fields if isinstance(at, Register) else (at or cls)._declared
            if word not in names:
                what = "field" if isinstance(at, Register) else "register"
                raise RegisterNotFoundError(
                    f"{cls.__name__}: {path!r}: {done or 'the map'} has no {what} {word}{similar(word, names)}"
                )
            done = f"{done}.{word}" if done else word
            if isinstance(at, Register):
                if not is_last:
                    raise RegisterNotFoundError(f"{cls.__name__}: there is no {path!r}; {done} is a field")
                return RegisterInfo(done, offset, at, names[word], bank)
            at, placed = names[word], offset
            offset += at._offset
            if isinstance(at, Bank):
                bank = None if at._selection is None else at._placed(placed)
                at = at._element
        if fields is not None:
            last = len(fields) - 1
            raise RegisterNotFoundError(f"{cls.__name__}: {path!r} is no field; there is {done}[0] to [{last}]")
        if not isinstance(at, Register):
            inside = (
                f"[0] to [{at._count - 1}]" if isinstance(at, (Array, Memory)) else ", ".join((at or cls)._declared)
            )
            raise RegisterNotFoundError(f"{cls.__name__}: {path!r} is no register; {done or 'the map'} has {inside}")
        return RegisterInfo(done, offset, at, None, bank)

    @classmethod
    def walk(cls) -> Iterator[RegisterInfo]:
        """Yield all registers, those in arrays one by one, in the order of their offsets."""
        yield from sorted(cls._walk(0, ""), key=lambda info: info.offset)

    def snapshot(self, *, every: bool = False) -> Snapshot:
        """Read each register once, in the order of offsets, and return the values by name.

        ``before.diff(registers.snapshot())`` says what has changed, by field.

        Args:
            every: also read registers when reading them has an effect. Those that are write-only are left out.

        Raises:
            TypeError: the map is a declaration.
            DeviceRemovedError, ClosedError: as `Register.read`.
        """
        from pyuio.registers.snapshot import Snapshot

        region = require_region(self._region, self._path or type(self).__name__)
        infos = sorted(type(self)._walk(self._offset, ""), key=lambda info: info.offset)
        wanted = [info for info in infos if info.readable and (every or not info.read_effect)]
        return Snapshot({info: info.bind(region).read() for info in wanted})

    # ---- Made from the declaration ----

    def _place(self, region: Accesses | None, offset: int, path: str) -> None:
        kind, offset = type(self), operator.index(offset)
        if offset < 0:
            raise ValueError(f"{kind.__name__} at {offset:#x}: the offset is from 0")
        if region is not None and offset % kind._alignment != kind._phase:
            more = f", plus {kind._phase}" * bool(kind._phase)
            raise ValueError(
                f"{kind.__name__} at {offset:#x}: the offset is a multiple of {kind._alignment} from 0{more}"
            )
        values: dict[str, object] = {"_region": region, "_offset": offset, "_path": path}
        prefix = f"{path}." if path else ""
        for name, one in kind._declared.items():
            values[name] = one._bound(region, offset + one._offset, prefix + name)
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _bound(self, region: Accesses | None, offset: int, path: str) -> Self:
        made = type(self).__new__(type(self))
        made._place(region, offset, path)
        return made

    @classmethod
    def _walk(cls, offset: int, prefix: str) -> Iterator[RegisterInfo]:
        for name, declared in cls._declared.items():
            yield from declared._infos(offset, prefix + name)

    def _infos(self, offset: int, path: str) -> Iterator[RegisterInfo]:
        return type(self)._walk(offset + self._offset, f"{path}.")

    @property
    def _span(self) -> int:
        return type(self)._size

    def __setattr__(self, name: str, value: object) -> NoReturn:
        """Raise AttributeError."""
        if name in type(self)._declared:
            raise AttributeError(f"{name} is a register; write to it with {name}.write(value), or set a field of it")
        raise AttributeError(f"{type(self).__name__} has no register {name}{similar(name, type(self)._declared)}")

    def __str__(self) -> str:
        """Return a line for each register; read each register once, unless reading is refused or has an effect."""
        if self._region is None:
            return repr(self)
        lines = []
        for info in self._in_order():
            value = " ".join(info.shown(self._region)).rstrip()
            lines.append(f"{info.offset:#06x} {info.path} = {value}")
        return "\n".join(lines)

    def _in_order(self) -> list[RegisterInfo]:
        """Return its registers by their offsets in the region."""
        return sorted(type(self)._walk(self._offset, ""), key=lambda info: info.offset)

    def _repr_html_(self) -> str:
        """Return what a notebook shows: a table of the registers, with the values that `str` would read."""
        from pyuio.process.html import table

        where = "declared" if self._region is None else f"in {getattr(self._region, 'name', repr(self._region))}"
        infos = self._in_order()
        rows = [
            (f"{info.offset:#06x}", info.path, *info.shown(self._region), info.access, info.doc)
            for info in infos[:_MOST_SHOWN]
        ]
        left = len(infos) - len(rows)
        note = f"and {left} more registers, which were not read" if left else ""
        headings = ("offset", "register", "value", "fields", "access", "description")
        return table(f"{type(self).__name__} {where}", rows, headings, note)

    def __repr__(self) -> str:
        """Return place and size, without an access."""
        where = "declared" if self._region is None else f"in {self._region!r}"
        return f"<{type(self).__name__} {where} at {self._offset:#x}, {type(self)._size:#x} bytes>"


class Array(tuple[_Element, ...]):
    """Registers, or maps, that repeat: ``channel = Array(Channel.at(0x100), 4, stride=0x20)``.

    In a map made on a region it is a tuple of them: ``regs.channel[2].count.read()``, ``for one in regs.channel``. The
    map makes them when it is made itself.

    Args:
        element: the first element, at its offset: a register, a map or another array.
        count: the number of elements, at least 1.
        stride: bytes from the start of one element to the start of the next; None for the size of an element.

    Raises:
        TypeError: a wrong type.
        ValueError: there is no element, the stride is less than an element or misaligned for it, or the array ends
            beyond 64 bits.
    """

    __declares__ = True
    _region: Accesses | None
    _element: Declared
    _count: int
    _stride: int
    _path: str

    def __new__(cls, element: _Element, count: int, *, stride: int | None = None) -> Self:
        """Declare the array."""
        if not isinstance(element, (Register, RegisterMap, Array, Memory)):
            raise TypeError(f"an array has registers, maps or arrays as elements, not {type(element).__name__}")
        made = tuple.__new__(cls)
        made._region = None
        made._element = element
        made._count = operator.index(count)
        made._stride = element._span if stride is None else operator.index(stride)
        made._path = ""
        if made._count < 1:
            raise ValueError(f"an array of registers has at least 1, not {count}")
        if made._stride < element._span or made._stride % element._alignment:
            raise ValueError(
                f"the stride of {element!r} is a multiple of {element._alignment}, and at least {element._span}, not "
                f"{made._stride}"
            )
        if made._offset + made._span > 1 << 64:
            raise ValueError(f"an array of {count} elements ends beyond the addresses of 64 bits")
        return made

    @property
    def _offset(self) -> int:
        return self._element._offset

    @property
    def _span(self) -> int:
        return (self._count - 1) * self._stride + self._element._span

    @property
    def _alignment(self) -> int:
        return self._element._alignment

    @property
    def _phase(self) -> int:
        return self._element._phase

    def _bound(self, region: Accesses | None, offset: int, path: str) -> Self:
        elements = (
            self._element._bound(region, offset + index * self._stride, f"{path}[{index}]")
            for index in range(self._count)
        )
        made = tuple.__new__(type(self), elements)
        vars(made).update(vars(self), _region=region, _path=path)
        return made

    def _infos(self, offset: int, path: str) -> Iterator[RegisterInfo]:
        for index in range(self._count):
            yield from self._element._infos(offset + index * self._stride, f"{path}[{index}]")

    def read(self, first: SupportsIndex = 0, count: SupportsIndex | None = None) -> bytes:
        """Read registers of the array in a row, each by one access, and return their bytes in memory order.

        Args:
            first: index of the first register.
            count: the number of registers; None for all from `first` on.

        Raises:
            RegisterAccessError: they are write-only.
            ValueError: they are not inside the array; or as `Register.read`.
            TypeError: the elements are no registers; the array is a declaration.
        """
        row, start = self._row(), operator.index(first)
        one = row[0]
        number = len(self) - start if count is None else operator.index(count)
        self._check_inside(start, number)
        if not one._layout.readable:
            raise RegisterAccessError(f"{self._path} is write-only")
        if self._stride == one._span == one._alignment and isinstance(one._region, (Window, PortRegion)):
            return one._region.read(one._offset + start * self._stride, number * self._stride, self._stride)
        return b"".join([each.read_run(1) for each in row[start : start + number]])

    def write(self, data: Buffer, first: SupportsIndex = 0) -> None:
        """Write bytes to registers of the array in a row, from register `first` on, each by one access.

        Args:
            data: bytes, in memory order; or an array of elements of a register's width.
            first: index of the first register.

        Raises:
            RegisterAccessError: they are read-only.
            ValueError: the data is not a whole number of registers, or not inside the array; or as `Register.write`.
            TypeError: as for `read`, and for other data.
        """
        row, start = self._row(), operator.index(first)
        one, width = row[0], row[0]._span
        view = checked_run(data, width, self._path)
        self._check_inside(start, len(view) // width)
        if not one._layout.writable:
            raise RegisterAccessError(f"{self._path} is read-only")
        if self._stride == width == one._alignment and isinstance(one._region, (Window, PortRegion)):
            one._region.write(one._offset + start * width, view, width)
            return
        for index in range(len(view) // width):
            row[start + index].write_run(view[index * width : (index + 1) * width])

    def _row(self) -> tuple[Register, ...]:
        """Return the registers."""
        require_region(self._region, self._path)
        if not isinstance(self[0], Register):
            kind = type(self[0]).__name__
            raise TypeError(f"{self._path} is an array of {kind}; read or write the registers in its elements")
        return cast("tuple[Register, ...]", self)

    def _check_inside(self, first: int, number: int) -> None:
        if first < 0 or number < 0 or first + number > len(self):
            raise ValueError(f"{self._path}: {number} registers from {first} on are not inside its {len(self)}")

    def __repr__(self) -> str:
        """Return name, element and stride, without an access."""
        return f"<Array {self._path}[{self._count}] of {self._element!r}, {self._stride:#x} bytes apart>"


def _index(count: int, word: str, wanted: str, done: str) -> int:
    number = re.fullmatch(r"\[(?:0x([0-9a-fA-F]{1,16})|([0-9]{1,20}))\]", word)
    index = count if number is None else int(number[1], 16) if number[1] else int(number[2])
    if index >= count:
        raise RegisterNotFoundError(f"{wanted} does not exist; {done} is an array, of {done}[0] to {done}[{count - 1}]")
    return index


Declared: TypeAlias = "Register | RegisterMap | Array[Any] | Memory[Any] | Bank"
