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
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeAlias, TypeVar

from pyuio.errors import RegisterNotFoundError
from pyuio.registers.fields import Access, Field
from pyuio.registers.register import Accesses, Names, Register, RegisterInfo, checked_name, is_declaration

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Access", "Accesses", "Array", "Field", "Register", "RegisterInfo", "RegisterMap"]

_Element = TypeVar("_Element", bound="Declared")


class RegisterMapType(type):
    """The metaclass of `RegisterMap`, which collects and checks the declarations of a class."""

    @classmethod
    def __prepare__(cls, name: str, bases: tuple[type, ...], /, **keywords: object) -> Names:
        """Return the mapping for the names in the class's body."""
        return Names()

    def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> RegisterMapType:
        """Make a class of maps. ValueError: registers overlap, are misaligned, or have names that are not allowed."""
        own = {}
        for key, value in namespace.items():
            if not is_declaration(value):
                continue
            checked_name(key, bases, name)
            if isinstance(value, Field):
                raise ValueError(f"{name}: {key} is a field; declare it in a class that derives from Register")
            if value._region is not None:
                raise ValueError(f"{name}: {key} is in a region already; declare it with at(offset)")
            own[key] = value._bound(None, value._offset, key)  # now that its name is known
        # A slot for each register: Python finds it faster than an attribute of the class.
        rest = {key: value for key, value in namespace.items() if key not in own}
        slots = (*rest.get("__slots__", ()), *own)
        made: Any = super().__new__(cls, name, bases, {**rest, "__slots__": slots})
        made._declared = {**getattr(made, "_declared", {}), **own}
        placed = list(made.walk())
        _check_overlaps(name, placed)
        made._size = max((info.offset + info.width // 8 for info in placed), default=0)
        made._alignment = max((info.width // 8 for info in placed), default=1)
        kind: RegisterMapType = made
        return kind

    def __getattribute__(cls, name: str) -> Any:
        """Return the declaration of a register, for which Python would return the slot's descriptor."""
        found = super().__getattribute__(name)
        return super().__getattribute__("_declared")[name] if isinstance(found, MemberDescriptorType) else found


def _check_overlaps(name: str, placed: list[RegisterInfo]) -> None:
    """Raise ValueError if two registers overlap, unless one is read-only and the other is write-only."""
    before: list[RegisterInfo] = []
    for one in placed:
        before = [other for other in before if other.offset + other.width // 8 > one.offset]
        for other in before:
            if not (one.readable ^ other.readable and one.writable ^ other.writable):
                raise ValueError(
                    f"{name}: {one.path} at {one.offset:#x} overlaps {other.path} at {other.offset:#x}, "
                    f"{other.width // 8} bytes; only one that is read-only and one that is write-only may"
                )
        before.append(one)


class RegisterMap(metaclass=RegisterMapType):
    """The registers of a region: a class with a `Register`, an `Array` or another map for each name.

    Args:
        region: a `Region`, a `PortRegion`, or another object with their methods ``read8`` to ``write64``.
        offset: where the map starts in the region, in bytes.

    Raises:
        ValueError: the offset is negative, or misaligned for one of the registers. Also raised when the class is made,
            if registers overlap, are misaligned, or have the same name. A read-only and a write-only register may
            overlap.
    """

    __slots__ = ("_offset", "_path", "_region")
    __declares__: ClassVar[bool] = True
    _declared: ClassVar[Mapping[str, Declared]]
    _size: ClassVar[int]
    _alignment: ClassVar[int]
    _region: Accesses | None
    _offset: int
    _path: str

    def __init__(self, region: Accesses, *, offset: int = 0) -> None:
        self._place(region, offset, "")

    @classmethod
    def at(cls, offset: int) -> Self:
        """Declare this map as a part of another map, `offset` bytes from the start of the other.

        Raises:
            ValueError: the offset is negative, or misaligned for one of the registers.
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
        at: Register | RegisterMap | Array[Any] | None = None
        offset, done = 0, ""
        words = re.findall(r"\[[^\]]*\]?|\.?[^.\[]+", path)
        if "".join(words) != path or path.startswith("."):
            raise RegisterNotFoundError(
                f"{cls.__name__}: {path!r} is not the name of a register, as in dma.channel[2].count"
            )
        for word in (word.removeprefix(".") for word in words):
            if isinstance(at, Array):
                index = at._index(word, f"{cls.__name__}: {path!r}", done)
                offset, done = offset + index * at._stride, f"{done}[{index}]"
                at = at._element
                continue
            names: Mapping[str, Any] = at._fields if isinstance(at, Register) else (at or cls)._declared
            if word not in names:
                what = "field" if isinstance(at, Register) else "register"
                raise RegisterNotFoundError(
                    f"{cls.__name__}: {path!r}: {done or 'the map'} has no {what} {word}{_similar(word, names)}"
                )
            done = f"{done}.{word}" if done else word
            if isinstance(at, Register):
                if done != path:
                    raise RegisterNotFoundError(f"{cls.__name__}: there is no {path!r}; {done} is a field")
                return RegisterInfo(done, offset, at, names[word])
            at = names[word]
            offset += at._offset
        if not isinstance(at, Register):
            inside = f"[0] to [{at._count - 1}]" if isinstance(at, Array) else ", ".join((at or cls)._declared)
            raise RegisterNotFoundError(f"{cls.__name__}: {path!r} is no register; {done or 'the map'} has {inside}")
        return RegisterInfo(done, offset, at)

    @classmethod
    def walk(cls) -> Iterator[RegisterInfo]:
        """Yield all registers, those in arrays one by one, in the order of their offsets."""
        yield from sorted(cls._walk(0, ""), key=lambda info: info.offset)

    # ---- Made from the declaration ----

    def _place(self, region: Accesses | None, offset: int, path: str) -> None:
        kind, offset = type(self), operator.index(offset)
        if offset < 0 or offset % kind._alignment:
            raise ValueError(f"{kind.__name__} at {offset:#x}: the offset is a multiple of {kind._alignment} from 0")
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
        raise AttributeError(f"{type(self).__name__} has no register {name}{_similar(name, type(self)._declared)}")

    def __str__(self) -> str:
        """Return a line for each register; read each register once, unless reading is refused or has an effect."""
        if self._region is None:
            return repr(self)
        lines = []
        for info in sorted(type(self)._walk(self._offset, ""), key=lambda info: info.offset):
            if not info.readable:
                value = "write-only"
            elif info.read_effect:
                value = "not read, as that has an effect"
            else:
                number = info.register._bound(self._region, info.offset, info.path).read()
                value = f"{number:#0{info.width // 4 + 2}x} {info.text(number)}".rstrip()
            lines.append(f"{info.offset:#06x} {info.path} = {value}")
        return "\n".join(lines)

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
        ValueError: there is no element, or the stride is less than an element or misaligned for it.
    """

    __declares__ = True
    _region: Accesses | None
    _element: Declared
    _count: int
    _stride: int
    _path: str

    def __new__(cls, element: _Element, count: int, *, stride: int | None = None) -> Self:
        """Declare the array."""
        if not isinstance(element, (Register, RegisterMap, Array)):
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

    def _index(self, word: str, wanted: str, done: str) -> int:
        number = re.fullmatch(r"\[(?:0x([0-9a-fA-F]{1,16})|([0-9]{1,20}))\]", word)
        index = self._count if number is None else int(number[1], 16) if number[1] else int(number[2])
        if index >= self._count:
            raise RegisterNotFoundError(
                f"{wanted} does not exist; {done} is an array, of {done}[0] to {done}[{self._count - 1}]"
            )
        return index

    def __repr__(self) -> str:
        """Return name, element and stride, without an access."""
        return f"<Array {self._path}[{self._count}] of {self._element!r}, {self._stride:#x} bytes apart>"


Declared: TypeAlias = "Register | RegisterMap | Array[Any]"


def _similar(name: str, names: Mapping[str, object]) -> str:
    """Return the end of a message: similar names, or the first of all names if none is similar."""
    import difflib

    by_case = {one.casefold(): one for one in names}
    like = [by_case[one] for one in difflib.get_close_matches(name.casefold(), by_case)]
    if like:
        return f"; there is {', '.join(like)}"
    shown = list(names)[:8]
    return f"; there is {', '.join(shown)}{' and more' * (len(names) > 8)}" if names else ", and none at all"
