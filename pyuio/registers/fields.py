# SPDX-License-Identifier: MIT
"""The bits of a register: `Field`, `FieldArray`, `Access`, and `Layout`, the access of all its bits.

Import them from `pyuio.registers`.
"""

from __future__ import annotations

import enum
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Generic,
    Literal,
    NamedTuple,
    Protocol,
    SupportsIndex,
    TypeAlias,
    TypeVar,
    cast,
    get_args,
    overload,
)

from pyuio._native import _registers
from pyuio.errors import RegisterAccessError, UnknownValueError

if TYPE_CHECKING:
    from typing_extensions import Self

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
_Other = TypeVar("_Other")
_Enum = TypeVar("_Enum", bound=enum.IntEnum)


def checked_access(access: str, what: str) -> Access:
    """Return `access`, or raise ValueError."""
    for known in ACCESSES:
        if access == known:
            return known
    raise ValueError(f"{what}: access is one of {', '.join(ACCESSES)}, not {access!r}")


def similar(name: str, names: Iterable[str]) -> str:
    """Return the end of a message: similar names, or the first of all names if none is similar."""
    import difflib

    shown = list(names)
    by_case = {one.casefold(): one for one in shown}
    like = [by_case[one] for one in difflib.get_close_matches(name.casefold(), by_case)]
    if like:
        return f"; there is {', '.join(like)}"
    return f"; there is {', '.join(shown[:8])}{' and more' * (len(shown) > 8)}" if shown else ", and none at all"


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

    def insert(self, value: int, given: SupportsIndex) -> int:
        """Return a register's value with `given` in the field. ValueError: it does not fit the field."""
        part = operator.index(given)
        if not 0 <= part <= self.largest:
            raise ValueError(f"{self.name}: {part:#x} does not fit bits {self.bits}, which take 0 to {self.largest:#x}")
        return value & ~self.mask | part << self.low

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
        bits = self._checked(register, part)
        if not part and self.mask & layout.ones and register._held is None:
            access = self.access or register._access
            raise ValueError(
                f"{register._path}.{self.name}: writing 0 does nothing here; write 1 to what is to change ({access})"
            )
        register._set_field(self, bits)

    def _checked(self, register: HasFields, given: SupportsIndex) -> int:
        """Return `given` in the field's place, or raise an error if it cannot be written there."""
        if self.mask & ~register._layout.writable:
            raise RegisterAccessError(f"{register._path}.{self.name} is read-only")
        try:
            return self.insert(0, given)
        except ValueError as error:
            raise ValueError(f"{register._path}.{error}") from None

    def _moved(self, name: str, bits: int) -> Field[_Value, _Given]:
        """Return the same field under another name, so many bits higher."""
        make: Any = type(self)
        low = None if self.is_bool else self.low + bits
        made: Field[_Value, _Given] = make(self.high + bits, low, enum=self.enum, access=self.access, doc=self.doc)
        made.name = name
        return made


class _Together(Bits):
    """The bits of all fields of an array."""

    __slots__ = ("mask", "name")


class FieldArray(Generic[_Value, _Given]):
    """Equal fields of one register: ``digit = FieldArray(Field(3, 0), 8)`` are eight of four bits, from bit 0 up.

    ``register.digit[2]`` reads one, ``register.digit[2] = 7`` sets one, as a field of that place does. ``list(
    register.digit)`` reads the register once, and ``register.digit = [1, 2, 3, 4, 5, 6, 7, 8]`` sets all at once. By
    text their names are ``digit[0]``, ``digit[1]`` and so on.

    Args:
        field: the first, that with the lowest bits.
        count: the number of fields, at least 1.
        stride: bits from the lowest bit of one to the lowest bit of the next; None for the width of the field.

    Raises:
        TypeError: `field` is no `Field`.
        ValueError: there is no field, they overlap, or the last one lies beyond bit 63.
    """

    __declares__: ClassVar[bool] = True

    def __init__(self, field: Field[_Value, _Given], count: int, *, stride: int | None = None) -> None:
        if not isinstance(field, Field):
            raise TypeError(f"an array of fields repeats a Field, not a {type(field).__name__}")
        width = field.high - field.low + 1
        self._stride = width if stride is None else operator.index(stride)
        self._count = operator.index(count)
        if self._count < 1:
            raise ValueError(f"an array of fields has at least 1, not {count}")
        if self._stride < width:
            raise ValueError(f"the stride of field {field.bits} is at least its {width} bits, not {stride}")
        self._first = field
        self._fields: tuple[Field[_Value, _Given], ...] = ()
        self._together = _Together()
        self.named("")

    def named(self, name: str) -> dict[str, Field[_Value, _Given]]:
        """Give the array its name, and return its fields by theirs."""
        self._fields = tuple(
            self._first._moved(f"{name}[{index}]", index * self._stride) for index in range(self._count)
        )
        self._together.name = name
        self._together.mask = sum(field.mask for field in self._fields)
        return {field.name: field for field in self._fields}

    @property
    def name(self) -> str:
        """Its name in the register; "" before it has one."""
        return self._together.name

    @property
    def mask(self) -> int:
        """The bits of all its fields in the register."""
        return self._together.mask

    def __len__(self) -> int:
        return len(self._fields)

    def __getitem__(self, index: int) -> Field[_Value, _Given]:
        return self._fields[index]

    def insert(self, value: int, given: Iterable[SupportsIndex]) -> int:
        """Return a register's value with these in the fields. ValueError: not so many fields, or one does not fit."""
        for field, one in zip(self._fields, self._all(given), strict=True):
            value = field.insert(value, one)
        return value

    def _all(self, given: Iterable[_Other]) -> tuple[_Other, ...]:
        values = tuple(given)
        if len(values) != len(self._fields):
            raise ValueError(f"{self.name} has {len(self._fields)} fields, and takes as many values, not {len(values)}")
        return values

    @overload
    def __get__(self, register: None, owner: type, /) -> Self: ...
    @overload
    def __get__(
        self, register: _registers.Register, owner: type | None = None, /
    ) -> FieldsOfRegister[_Value, _Given]: ...
    def __get__(self, register: _registers.Register | None, owner: type | None = None, /) -> object:
        """Return the fields of a register; in the class, the array itself."""
        return self if register is None else FieldsOfRegister(register, self._fields, self._together)

    def __set__(self, register: _registers.Register, given: Iterable[_Given], /) -> None:
        """Set all fields at once, with the accesses of a single field that has all their bits."""
        of, pairs = cast("HasFields", register), zip(self._fields, self._all(given), strict=True)
        of._set_field(self._together, sum(field._checked(of, cast("Any", one)) for field, one in pairs))

    def __repr__(self) -> str:
        return f"<FieldArray {self.name}[{self._count}] of {self._first.bits}, {self._stride} bits apart>"


class FieldsOfRegister(Sequence[_Value], Generic[_Value, _Given]):
    """The fields of a `FieldArray` in one register. An index accesses one; a loop or slice reads the register once."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, register: Any, fields: tuple[Field[_Value, _Given], ...], together: Bits) -> None:
        self._register = register
        self._fields = fields
        self._together = together

    def __len__(self) -> int:
        return len(self._fields)

    @overload
    def __getitem__(self, index: SupportsIndex) -> _Value: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[_Value, ...]: ...
    def __getitem__(self, index: SupportsIndex | slice) -> object:
        """Read one field; or those of a slice, by one read. IndexError: there is no such field."""
        if isinstance(index, slice):
            return tuple(self)[index]
        return self._fields[index].__get__(self._register)

    def __setitem__(self, index: SupportsIndex, value: _Given) -> None:
        """Set one field, as an assignment to a field does. IndexError: there is no such field."""
        self._fields[index].__set__(self._register, value)

    def __iter__(self) -> Iterator[_Value]:
        """Read the register once, and yield each field of the value read."""
        value = self._register._value_for(self._together)
        return iter([cast("_Value", one._convert_slowly(self._register, one.extract(value))) for one in self._fields])

    def __eq__(self, other: object) -> bool:
        """Read the register once, and compare its fields with a sequence of values."""
        if not isinstance(other, Sequence):
            return NotImplemented
        return tuple(self) == tuple(other)

    def __repr__(self) -> str:
        return f"<{len(self._fields)} fields of {self._register!r}>"


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
