# SPDX-License-Identifier: MIT
"""The bits of a register: `Field`, `FieldArray`, and `Layout`, the access of all its bits.

Import them from `pyuio.registers`.
"""

from __future__ import annotations

import enum
import functools
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Generic,
    Literal,
    NamedTuple,
    Protocol,
    SupportsIndex,
    TypeVar,
    cast,
    overload,
)

from pyuio._native import _registers
from pyuio.errors import RegisterAccessError, UnknownValueError
from pyuio.registers.access import EFFECTS, Access, Effect, checked_access

if TYPE_CHECKING:
    from typing_extensions import Self

_HIGHEST_BIT = 0xFFFF
_LARGEST_TABLE = 8  # bits of the largest field whose enumeration is looked up by position

_Value = TypeVar("_Value")
_Given = TypeVar("_Given")
_Other = TypeVar("_Other")
_Enum = TypeVar("_Enum", bound=enum.IntEnum)


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
    msb0: bool
    """Its lowest bit is the most significant of its value."""

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
        return self._turned((value & self.mask) >> self.low)

    def place(self, part: int) -> int:
        """Return the bits of a register's value for this value of the field, which fits it."""
        return self._turned(part) << self.low

    def _turned(self, part: int) -> int:
        return int(f"{part:0{self.high - self.low + 1}b}"[::-1], 2) if self.msb0 else part

    def insert(self, value: int, given: SupportsIndex) -> int:
        """Return a register's value with `given` in the field. ValueError: it does not fit the field."""
        part = operator.index(given)
        if not 0 <= part <= self.largest:
            raise ValueError(f"{self.name}: {part:#x} does not fit bits {self.bits}, which take 0 to {self.largest:#x}")
        return value & ~self.mask | self.place(part)

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
        msb0: the lowest of these bits is the most significant of the value.

    Raises:
        ValueError: the bits do not exist, or the enumeration has values that do not fit them.
        TypeError: a wrong type.
    """

    __slots__ = ("access", "doc", "enum", "high", "is_bool", "low", "mask", "msb0", "name")
    __declares__: ClassVar[bool] = True

    @overload
    def __init__(self: Field[bool, int], high: int, /, *, access: Access | None = ..., doc: str = ...) -> None: ...
    @overload
    def __init__(
        self: Field[int, int], high: int, low: int, /, *, access: Access | None = ..., doc: str = ..., msb0: bool = ...
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
        msb0: bool = ...,
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
        msb0: bool = False,
    ) -> None:
        self.name = ""
        self.high = operator.index(high)
        self.low = self.high if low is None else operator.index(low)
        if not 0 <= self.low <= self.high <= _HIGHEST_BIT:
            raise ValueError(f"a field is given by its highest and its lowest bit, from 0, not by {high} and {low}")
        self.mask = (1 << self.high + 1) - (1 << self.low)
        self.access = None if access is None else checked_access(access, f"field {self.bits}")
        self.doc = doc
        self.msb0 = msb0
        self.enum = enum
        self.is_bool = low is None and enum is None
        # A register of more than 64 bits never takes the compiled way.
        place = (self.low, self.mask) if self.high < 64 else (0, (1 << 64) - 1)
        self._place(*place, self.is_bool, self._table())

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
        part = operator.index(given)
        bits = self._checked(register, part)
        access = self.access or register._access
        if part == (idle := self._idle(register)):
            raise ValueError(
                f"{register._path}.{self.name}: writing {hex(idle) if idle > 9 else idle} does nothing here; "
                f"write {0 if idle else 1} to what is to change ({access})"
            )
        register._set_field(self, bits)

    def _idle(self, register: HasFields) -> int | None:
        """Return the value whose writing does nothing; None if every one has an effect, or is only held for later."""
        if register._held is not None:
            return None
        return {"ones": 0, "zeros": self.largest}.get(EFFECTS[self.access or register._access].write)

    def _checked(self, register: HasFields, given: SupportsIndex) -> int:
        """Return `given` in the field's place, or raise an error if it cannot be written there."""
        if not register._layout.writes(self):
            raise RegisterAccessError(f"{register._path}.{self.name} is read-only")
        try:
            return self.insert(0, given)
        except ValueError as error:
            raise ValueError(f"{register._path}.{error}") from None

    def _moved(self, name: str, bits: int) -> Field[_Value, _Given]:
        """Return the same field under another name, so many bits higher."""
        make: Any = type(self)
        low = None if self.is_bool else self.low + bits
        made: Field[_Value, _Given] = make(
            self.high + bits, low, enum=self.enum, access=self.access, doc=self.doc, msb0=self.msb0
        )
        made.name = name
        return made


class _Together(Bits):
    """The bits of all fields of an array."""

    __slots__ = ("access", "mask", "name")


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
        ValueError: there is no field, or they overlap.
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
        self._together.access = self._first.access
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
        if not isinstance(given, Iterable):
            raise TypeError(f"{self.name} has {len(self._fields)} fields, and takes as many values, not {given!r}")
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
        of, values = cast("HasFields", register), self._all(cast("Iterable[Any]", given))
        bits = sum(field._checked(of, one) for field, one in zip(self._fields, values, strict=True))
        if all(operator.index(one) == self._first._idle(of) for one in values):
            raise ValueError(f"{of._path}.{self.name}: writing {[*values]} does nothing here")
        of._set_field(self._together, bits)

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
        """Set one field, as an assignment to a field does. IndexError: there is no such field. TypeError: a slice."""
        if isinstance(index, slice):
            raise TypeError("fields are set one by one, or all at once: register.digit[2] = 1, register.digit = values")
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
    """What software may do with each bit of a register. Those that are not explained here are masks.

    Raises:
        ValueError: two fields overlap, or one is outside of the register.
    """

    width: int
    access: Access
    """The access of fields that declare none, and of the bits outside of fields."""
    readable: int
    writable: int
    needed: int
    """Bits that a change of another field must read, to write them back unchanged."""
    ones: int
    """Writing 1 has an effect, writing 0 has none."""
    zeros: int
    """Writing 0 has an effect, writing 1 has none."""
    acts: int
    """Any write has an effect. Bits outside of fields do not count here, nor among the next."""
    blind: int
    """They hold what is written, and cannot be read."""
    read_effect: int
    shared: int
    """Bits of two fields, of which one can only be read and the other can only be written."""
    uncompiled: int
    """Bits of fields that the compiled way does not take apart."""
    access_width: int
    """Bits that one access reads or writes; less than the width if it takes several."""
    high_first: bool
    """Of several accesses, the one of the most significant bits comes first."""
    word_order: Literal["little", "big"] | None
    """Where the parts lie that several accesses reach; None for the region's byte order."""

    @property
    def full(self) -> int:
        """All bits."""
        return (1 << self.width) - 1

    @property
    def unkept(self) -> int:
        """Bits that a change of another field writes as 0, or as 1 if they are `zeros`."""
        return self.writable & ~self.needed

    @property
    def apart(self) -> int:
        """Bits in which what is written does not tell what is read."""
        return self.ones | self.zeros | self.shared

    @property
    def updatable(self) -> bool:
        """Whether the register can be read and written back without a side effect."""
        return bool(self.readable) and not self.read_effect and not self.acts

    def reads(self, field: Bits) -> bool:
        """Return whether this field may be read."""
        return EFFECTS[field.access or self.access].readable

    def writes(self, field: Bits) -> bool:
        """Return whether this field may be written."""
        return EFFECTS[field.access or self.access].writable

    @property
    def whole(self) -> Access:
        """The access of the register: the declared one, unless its fields allow something else."""
        readable, writable, declared = bool(self.readable), bool(self.writable), EFFECTS[self.access]
        if (declared.readable, declared.writable) == (readable, writable):
            return self.access
        return "rw" if readable and writable else "ro" if readable else "wo"

    @classmethod
    def of(
        cls,
        name: str,
        width: int,
        access: Access,
        fields: Mapping[str, Bits],
        *,
        access_width: int | None = None,
        first: Literal["low", "high"] = "low",
        word_order: Literal["little", "big"] | None = None,
    ) -> Layout:
        """Return the layout of a register with these fields; bits outside of them have the register's `access`."""
        full = (1 << width) - 1
        bits: dict[str, int] = {}
        taken = shared = 0
        for field in fields.values():
            effect = EFFECTS[field.access or access]
            if field.mask & ~full:
                raise ValueError(f"{name}: field {field.name}{field.bits} is outside of its {width} bits")
            for other in fields.values() if field.mask & taken else ():
                if other is field:
                    break
                others = EFFECTS[other.access or access]
                if not other.mask & field.mask:
                    continue
                if effect.readable & others.readable or effect.writable & others.writable:
                    raise ValueError(
                        f"{name}: fields {other.name}{other.bits} and {field.name}{field.bits} overlap; only one that "
                        "is read-only and one that is write-only may"
                    )
                shared |= other.mask & field.mask
            taken |= field.mask
            bits[field.access or access] = bits.get(field.access or access, 0) | field.mask
        named: dict[str, int] = bits if fields else {access: full}
        bits = {**bits, access: bits.get(access, 0) | (full & ~taken)}

        def union(chosen: Callable[[Effect], bool], bits: Mapping[str, int] = bits) -> int:
            return functools.reduce(operator.or_, (mask for kind, mask in bits.items() if chosen(EFFECTS[kind])), 0)

        return cls(
            width,
            access,
            readable=union(lambda effect: effect.readable),
            writable=union(lambda effect: effect.writable),
            needed=union(lambda effect: effect.readable and effect.write == "value"),
            ones=union(lambda effect: effect.write == "ones"),
            zeros=union(lambda effect: effect.write == "zeros"),
            acts=union(lambda effect: effect.write == "any", named),
            blind=union(lambda effect: effect.write == "value" and not effect.readable, named),
            read_effect=union(lambda effect: effect.read_effect),
            shared=shared,
            uncompiled=functools.reduce(operator.or_, (one.mask for one in fields.values() if one.msb0), shared),
            access_width=min(width, access_width or width),
            high_first=first == "high",
            word_order=word_order,
        )
