# SPDX-License-Identifier: MIT
"""The bits of a register: `Field`, one of its fields, `Access`, and `Layout`, the access of all its bits.

Import them from `pyuio.registers`.
"""

from __future__ import annotations

import enum
import operator
from collections.abc import Mapping
from typing import ClassVar, Literal, NamedTuple, Protocol, SupportsIndex, TypeAlias, TypeVar, get_args, overload

from pyuio._native import _registers
from pyuio.errors import RegisterAccessError, UnknownValueError

Access: TypeAlias = Literal["ro", "wo", "rw", "w1c", "w1s", "w1t", "rc", "special"]
"""What software may do with a register, or a field of one:

* ``ro``, ``wo``, ``rw``: read, write, both. pyuio assumes that writing 0 to a wo field beside others has no effect.
* ``w1c``, ``w1s``, ``w1t``: reading has no effect; writing 1 to a bit clears, sets or toggles it, writing 0 does not.
* ``rc``: read-only, and reading has an effect: it clears the bits, or takes an entry from a queue.
* ``special``: read and write, with effects that none of the above describes.
"""
ACCESSES: tuple[Access, ...] = get_args(Access)

_READABLE = frozenset({"ro", "rw", "w1c", "w1s", "w1t", "rc", "special"})
_WRITABLE = frozenset({"wo", "rw", "w1c", "w1s", "w1t", "special"})
_ONES = frozenset({"w1c", "w1s", "w1t"})
_READ_EFFECT = frozenset({"rc", "special"})
_LARGEST_TABLE = 8  # bits of the largest field whose enumeration is looked up by position

_Value = TypeVar("_Value")
_Given = TypeVar("_Given")
_Enum = TypeVar("_Enum", bound=enum.IntEnum)


def checked_access(access: str, what: str) -> Access:
    """Return `access`, or raise ValueError."""
    for known in ACCESSES:
        if access == known:
            return known
    raise ValueError(f"{what}: access is one of {', '.join(ACCESSES)}, not {access!r}")


class Bits:
    """The description of a field: its name, place, access, enumeration and documentation."""

    __slots__ = ()
    name: str
    high: int
    """The highest bit."""
    low: int
    """The lowest bit."""
    mask: int
    """Its bits in the register."""
    access: Access | None
    """What software may do with it; None if that is the register's access."""
    enum: type[enum.IntEnum] | None
    """Names of the values."""
    doc: str

    @property
    def bits(self) -> str:
        """Its place, as data sheets write it: ``[7]``, ``[6:4]``."""
        return f"[{self.high}]" if self.high == self.low else f"[{self.high}:{self.low}]"

    @property
    def largest(self) -> int:
        """The largest value that fits."""
        return self.mask >> self.low

    def extract(self, value: int) -> int:
        """Return the field's part of a register's value."""
        return (value & self.mask) >> self.low

    def text(self, value: int) -> str:
        """Return the field's part of a register's value as text for people; never raises."""
        part = self.extract(value)
        if self.enum is not None:
            name = next((member.name for member in self.enum if member == part), "not named")
            return f"{part} ({name})"
        return f"{part}" if part < 10 else f"{part:#x}"

    def __repr__(self) -> str:
        named = "" if self.enum is None else f", {self.enum.__name__}"
        return f"<Field {self.name}{self.bits}{named}>"


class HasFields(Protocol):
    """The part of a `Register` that its `Field` uses."""

    _path: str
    _access: Access
    _layout: Layout
    _held: object | None

    def _value_for(self, field: Bits) -> int: ...
    def _set_field(self, field: Bits, bits: int) -> None: ...


class Field(_registers.Field[_Value, _Given], Bits):
    """Bits of a register, declared in its class and used as an attribute of the register.

    ``Field(7)`` is one bit, which reads as a bool; ``Field(6, 4)`` is bits 6 to 4, which read as an int; with an
    enumeration, as in ``Field(6, 4, Speed)``, they read as its members. Each can be set to any int that fits.

    Args:
        high: the highest bit, from 0.
        low: the lowest bit; by default `high`.
        enum: names of the values.
        access: what software may do with the field; None for the register's access.
        doc: a sentence of the data sheet.

    Raises:
        ValueError: the bits do not exist, or the enumeration has values that do not fit them.
        TypeError: a wrong type.
    """

    __slots__ = ("access", "doc", "enum", "high", "is_bool", "low", "mask", "name")
    __declares__: ClassVar[bool] = True

    @overload
    def __init__(self: Field[bool, int], high: int, /, *, access: Access | None = ..., doc: str = ...) -> None: ...
    @overload
    def __init__(
        self: Field[int, int], high: int, low: int, /, *, access: Access | None = ..., doc: str = ...
    ) -> None: ...
    @overload
    def __init__(
        self: Field[_Enum, _Enum],
        high: int,
        low: int,
        /,
        enum: type[_Enum],
        *,
        access: Access | None = ...,
        doc: str = ...,
    ) -> None: ...
    @overload
    def __init__(
        self: Field[_Enum, _Enum], high: int, /, *, enum: type[_Enum], access: Access | None = ..., doc: str = ...
    ) -> None: ...
    def __init__(
        self,
        high: int,
        low: int | None = None,
        /,
        enum: type[enum.IntEnum] | None = None,
        *,
        access: Access | None = None,
        doc: str = "",
    ) -> None:
        self.name = ""
        self.high = operator.index(high)
        self.low = self.high if low is None else operator.index(low)
        if not 0 <= self.low <= self.high < 64:
            raise ValueError(f"a field is given by its highest and its lowest bit, 63 to 0, not by {high} and {low}")
        self.mask = (1 << self.high + 1) - (1 << self.low)
        self.access = None if access is None else checked_access(access, f"field {self.bits}")
        self.doc = doc
        self.enum = enum
        self.is_bool = low is None and enum is None
        self._place(self.low, self.mask, self.is_bool, self._table())

    def _table(self) -> tuple[object, ...] | None:
        """Return the enumeration's members by value: only those below 2^8, as others are looked up when needed."""
        if self.enum is None:
            return None
        if not (isinstance(self.enum, type) and issubclass(self.enum, enum.IntEnum)):
            raise TypeError(f"the enumeration of field {self.bits} must be an enum.IntEnum, not {self.enum!r}")
        for member in self.enum:
            if not 0 <= member <= self.largest:
                raise ValueError(f"{member!r} does not fit field {self.bits}, whose values are 0 to {self.largest:#x}")
        members = {int(member): member for member in self.enum}
        return tuple(members.get(value) for value in range(min(self.largest + 1, 1 << _LARGEST_TABLE)))

    # ---- Cases that the compiled part leaves to Python ----

    def _get_slowly(self, register: HasFields) -> object:
        return self._convert_slowly(register, self.extract(register._value_for(self)))

    def _convert_slowly(self, register: HasFields, part: int) -> object:
        if self.enum is None:
            return bool(part) if self.is_bool else part
        try:
            return self.enum(part)
        except ValueError:
            raise UnknownValueError(
                f"{register._path}.{self.name} is {part:#x}, which {self.enum.__name__} has no name for; "
                "read() gives the register's value as an int"
            ) from None

    def _set_slowly(self, register: HasFields, given: SupportsIndex) -> None:
        part, layout = operator.index(given), register._layout
        if self.mask & ~layout.writable:
            raise RegisterAccessError(f"{register._path}.{self.name} is read-only")
        if not 0 <= part <= self.largest:
            raise ValueError(
                f"{register._path}.{self.name}: {part:#x} does not fit bits {self.bits}, which take 0 to "
                f"{self.largest:#x}"
            )
        if not part and self.mask & layout.ones and register._held is None:
            access = self.access or register._access
            raise ValueError(
                f"{register._path}.{self.name}: writing 0 does nothing here; write 1 to what is to change ({access})"
            )
        register._set_field(self, part << self.low)


class Layout(NamedTuple):
    """What software may do with each bit of a register. All attributes but `width` are masks.

    Raises:
        ValueError: two fields overlap, or one is outside of the register.
    """

    width: int
    readable: int
    writable: int
    ones: int
    """Writing 1 has an effect, writing 0 has none."""
    read_effect: int
    special: int

    @property
    def full(self) -> int:
        """All bits."""
        return (1 << self.width) - 1

    @property
    def unkept(self) -> int:
        """Bits that a change of another field writes as 0: they cannot be read, or writing back a 1 has an effect."""
        return self.ones | (self.writable & ~self.readable)

    @property
    def needed(self) -> int:
        """Bits that a change of another field must read, to write them back unchanged."""
        return self.writable & self.readable & ~self.ones

    def whole(self, declared: Access) -> Access:
        """Return the access of the register: the declared one, unless its fields allow something else."""
        readable, writable = bool(self.readable), bool(self.writable)
        if (declared in _READABLE, declared in _WRITABLE) == (readable, writable):
            return declared
        return "rw" if readable and writable else "ro" if readable else "wo"

    @property
    def updatable(self) -> bool:
        """Whether the register can be read and written back without a side effect."""
        return bool(self.readable) and not self.read_effect and not self.special

    @classmethod
    def of(cls, name: str, width: int, access: Access, fields: Mapping[str, Bits]) -> Layout:
        """Return the layout of a register with these fields; bits outside of them have the register's `access`."""
        full = (1 << width) - 1
        bits: dict[str, int] = {}
        taken = 0
        for field in fields.values():
            if field.mask & ~full:
                raise ValueError(f"{name}: field {field.name}{field.bits} is outside of its {width} bits")
            if field.mask & taken:
                other = next(other for other in fields.values() if other.mask & field.mask)
                raise ValueError(f"{name}: fields {other.name}{other.bits} and {field.name}{field.bits} overlap")
            taken |= field.mask
            bits[field.access or access] = bits.get(field.access or access, 0) | field.mask
        bits[access] = bits.get(access, 0) | (full & ~taken)

        def union(kinds: frozenset[str]) -> int:
            return sum(mask for kind, mask in bits.items() if kind in kinds)

        return cls(
            width,
            readable=union(_READABLE),
            writable=union(_WRITABLE),
            ones=union(_ONES),
            read_effect=union(_READ_EFFECT),
            special=union(frozenset({"special"})),
        )
