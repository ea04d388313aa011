# SPDX-License-Identifier: MIT
"""One register by name: `Register`, and `RegisterInfo`, which tells its place and access."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Number
from types import MethodDescriptorType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, SupportsIndex

from pyuio._native import _registers
from pyuio._native._access import Window
from pyuio.errors import RegisterAccessError
from pyuio.process.timeouts import timeout_error
from pyuio.region.common import Pace
from pyuio.region.ports import PortRegion
from pyuio.registers.access import Access, checked_access
from pyuio.registers.fields import Bits, Field, FieldArray, Layout, similar

if TYPE_CHECKING:
    from typing_extensions import Buffer, Self

WIDTHS = (8, 16, 32, 64)
_READS = {width: f"read{width}" for width in WIDTHS}
_WRITES = {width: f"write{width}" for width in WIDTHS}


class Accesses(Protocol):
    """The methods of a region that registers use; `Region` and `PortRegion` have them.

    If the region also has ``update8`` to ``update64``, registers use these, so that other threads see a change of a
    field as a whole.
    """

    # ruff: noqa: D102
    def read8(self, offset: SupportsIndex, /) -> int: ...
    def read16(self, offset: SupportsIndex, /) -> int: ...
    def read32(self, offset: SupportsIndex, /) -> int: ...
    def read64(self, offset: SupportsIndex, /) -> int: ...
    def write8(self, offset: SupportsIndex, value: SupportsIndex, /) -> object: ...
    def write16(self, offset: SupportsIndex, value: SupportsIndex, /) -> object: ...
    def write32(self, offset: SupportsIndex, value: SupportsIndex, /) -> object: ...
    def write64(self, offset: SupportsIndex, value: SupportsIndex, /) -> object: ...


class SelectsBank(Protocol):
    """What `pyuio.registers.bank.Selection` has."""

    def of(self, region: Accesses) -> Accesses:
        """Return a region as registers in the bank see it."""

    def excludes(self, other: Any) -> bool:
        """Return whether this bank and another are never there at once."""


def is_declaration(value: object) -> bool:
    """Return whether this is a `Field`, a `Register`, a map or an array, and not a class of them."""
    return hasattr(value, "__declares__") and not isinstance(value, type)


class Names(dict[str, object]):
    """The names in the body of a class; a name that declares something may not come twice."""

    def __setitem__(self, name: str, value: object) -> None:
        if name in self and (is_declaration(self[name]) or is_declaration(value)):
            raise ValueError(f"{name} is declared twice")
        super().__setitem__(name, value)


def checked_name(name: str, bases: tuple[type, ...], what: str) -> None:
    """Raise ValueError for a name that a declaration may not have."""
    if name.startswith("_") and not name[1:2].isdigit():
        raise ValueError(f"{what}: a name that starts with an underscore is not for a register or field: {name}")
    if is_taken(name, bases):
        raise ValueError(f"{what}: {name} is taken by {bases[0].__name__}; call it {name}_")


def is_taken(name: str, bases: Iterable[type]) -> bool:
    """Return whether a class or its instances have an attribute of this name; that of its metaclass does not count."""
    return any(name in vars(kind) for base in bases for kind in base.__mro__)


_BY_ITSELF = "a value by itself"


class _Held:
    """A copy of a register's value: read from the hardware, to be written to it, or by itself."""

    __slots__ = ("assigned", "over", "value", "written")

    def __init__(self, value: int, written: int = 0, over: str = "") -> None:
        self.value = value  # what its fields read as
        self.written = written
        self.over = over  # why no field of it may be set; "" if fields may be set
        self.assigned = False


def _inherited(bases: tuple[type, ...], name: str) -> dict[str, Any]:
    return {key: one for base in reversed(bases) for key, one in getattr(base, name, {}).items()}


class RegisterType(type):
    """The metaclass of `Register`, which collects the fields of a class."""

    _fields: Mapping[str, Bits]
    _arrays: Mapping[str, FieldArray[Any, Any]]
    _kind_width: int
    _kind_access: Access
    _kind_layout: Layout
    _kind_access_width: int | None
    _kind_first: Literal["low", "high"]
    _kind_word_order: Literal["little", "big"] | None
    _kind_doc: str

    @classmethod
    def __prepare__(cls, name: str, bases: tuple[type, ...], /, **keywords: object) -> Names:
        """Return the mapping for the names in the class's body."""
        return Names()

    def __new__(
        cls,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        width: int | None = None,
        access: Access | None = None,
        access_width: int | None = None,
        first: Literal["low", "high"] | None = None,
        word_order: Literal["little", "big"] | None = None,
    ) -> RegisterType:
        """Make a class of registers. ValueError: its fields, width or access are invalid."""
        namespace.setdefault("__slots__", ())
        own: dict[str, Any] = {}
        arrays = {}
        for key, one in namespace.items():
            if not isinstance(one, (Field, FieldArray)):
                continue
            checked_name(key, bases, name)
            if one.name:
                raise ValueError(
                    f"{name}: {key} is field {one.name} by another name; declare each with its own Field()"
                )
            if isinstance(one, FieldArray):
                arrays[key] = one
                own.update(one.named(key))
            else:
                own[key] = one
                one.name = key
        made = super().__new__(cls, name, bases, dict(namespace))
        # Those of all bases; the first base goes before the others, as for all attributes.
        made._fields = {**_inherited(bases, "_fields"), **own}
        made._arrays = {**_inherited(bases, "_arrays"), **arrays}
        made._kind_access_width = getattr(made, "_kind_access_width", None) if access_width is None else access_width
        made._kind_first = getattr(made, "_kind_first", "low") if first is None else checked_first(first, name)
        order = getattr(made, "_kind_word_order", None)
        made._kind_word_order = order if word_order is None else checked_order(word_order, name)
        width = getattr(made, "_kind_width", 32) if width is None else width
        made._kind_width = checked_width(width, made._kind_access_width, name)
        made._kind_access = getattr(made, "_kind_access", "rw") if access is None else checked_access(access, name)
        made._kind_doc = (namespace.get("__doc__") or "") if bases != (_registers.Register,) else ""
        made._kind_layout = Layout.of(
            name,
            made._kind_width,
            made._kind_access,
            made._fields,
            access_width=made._kind_access_width,
            first=made._kind_first,
            word_order=made._kind_word_order,
        )
        return made

    # These are methods of the metaclass, so that a field may have their names: Register.of serves there.

    def value(cls, **fields: Any) -> int:
        """Return the value of such a register with these fields: ``Format.value(length=3, extended=True)``. No access.

        Args:
            fields: values by the names of fields, a sequence of them for a `FieldArray`. The other bits are 0.

        Raises:
            TypeError: there is no such field, or a wrong type.
            ValueError: a value does not fit its field.
        """
        return cls._composed(0, fields)

    def mask(cls, *fields: str | Bits | FieldArray[Any, Any]) -> int:
        """Return the bits of one or several fields: ``Format.mask("length", "extended")``.

        Args:
            fields: their names, ``digit[2]`` and ``digit`` of a `FieldArray`; or the fields, as in ``Format.length``.

        Raises:
            TypeError: there is no such field, or none is given; another register has the field.
        """
        if not fields:
            raise TypeError(f"{cls.__name__}: name at least one field")
        bits = 0
        for one in fields:
            if not isinstance(one, (str, Bits, FieldArray)):
                raise TypeError(f"{cls.__name__}: a field or its name is needed, not {one!r}")
            found = cls._field(one if isinstance(one, str) else one.name)
            if not isinstance(one, str) and found is not one:
                raise TypeError(f"{cls.__name__}: {one!r} is of another register, and not {found!r}")
            bits |= found.mask
        return bits

    def _field(cls, name: str) -> Bits | FieldArray[Any, Any]:
        found = cls._arrays.get(name) or cls._fields.get(name)
        if found is None:
            raise TypeError(f"{cls.__name__} has no field {name}{similar(name, [*cls._fields, *cls._arrays])}")
        return found

    def _composed(cls, value: int, fields: Mapping[str, Any]) -> int:
        for name, given in fields.items():
            try:
                value = cls._field(name).insert(value, given)
            except ValueError as error:
                raise ValueError(f"{cls.__name__}.{error}") from None
        return value


def checked_width(width: int, access_width: int | None, what: str) -> int:
    """Return the width, or raise ValueError."""
    if access_width is None:
        if width not in WIDTHS:
            raise ValueError(
                f"{what}: the width is 8, 16, 32 or 64 bits, not {width!r}; give the access_width of a wider register"
            )
    elif access_width not in WIDTHS:
        raise ValueError(f"{what}: one access has a width of 8, 16, 32 or 64 bits, not {access_width!r}")
    elif width not in WIDTHS and (width < 8 or width % access_width):
        raise ValueError(f"{what}: the width is a multiple of the access_width, {access_width}, not {width!r}")
    return width


def checked_first(first: str, what: str) -> Literal["low", "high"]:
    """Return which part is first, or raise ValueError."""
    if first not in ("low", "high"):
        raise ValueError(f'{what}: the first of several accesses is "low" or "high", not {first!r}')
    return "low" if first == "low" else "high"


def checked_order(order: str, what: str) -> Literal["little", "big"]:
    """Return the order of words, or raise ValueError."""
    if order not in ("little", "big"):
        raise ValueError(f'{what}: the order of words is "little" or "big", not {order!r}')
    return "little" if order == "little" else "big"


def require_region(region: Accesses | None, path: str) -> Accesses:
    """Return the region of what is called `path`. TypeError: there is none, as it is a declaration."""
    if region is None:
        raise TypeError(f"{path} is a declaration; make its map on a region: Registers(device.bar(0))")
    return region


def _byte_order(region: Accesses) -> Literal["little", "big"]:
    order: Literal["little", "big"] = getattr(region, "endian", "little")
    return order


def checked_run(data: Buffer, width: int, path: str) -> memoryview:
    """Return the bytes of a run of elements of `width` bytes, or raise TypeError or ValueError."""
    view = memoryview(data)
    if view.itemsize not in (1, width):
        raise TypeError(f"{path}: a run consists of bytes, or of elements of {width} bytes, not of {view.itemsize}")
    octets = view.cast("B")
    if len(octets) % width:
        raise ValueError(f"{path}: {len(octets)} bytes are not a whole number of elements of {width}")
    return octets


class Register(_registers.Register, metaclass=RegisterType):
    """A register: declared in a `RegisterMap`, and used as an attribute of the map made on a region.

    To declare a register with fields, derive a class from this one, with a `Field` for each field. ``class
    Control(Register, width=16, access="ro")`` sets width and access for all registers of the class, and the class's
    docstring becomes their `doc`.

    `read` and `write` make one access each; so does reading a field, as in ``regs.status.computing``. Setting a field,
    as in ``regs.control.enable = 1``, makes one read and one write, or only the write if no other bit has to be kept.
    An access that is not allowed raises an error before it touches the hardware.

    Args:
        offset: in bytes from the start of the map. The place in the region must be a multiple of the width.
        width: 8, 16, 32 (the default) or 64 bits; with `access_width`, any multiple of it.
        access: what software may do with the register, with fields that do not have an access of their own, and with
            the bits outside of fields. See `pyuio.registers.Access`.
        doc: a sentence of the data sheet.
        access_width: bits of the widest access that the card understands: 8, 16, 32 or 64. A wider register takes
            several accesses for each read and write, one after the other. They are not one to the card: it may count on
            between them, unless it latches the value at the first.
        first: which of several accesses comes first: that of the least significant bits, "low" (the default), or
            "high".
        word_order: what lies at the lowest address of a register that takes several accesses: "little" for the part
            with the least significant bits, "big" for that with the most significant ones. None (the default) for the
            byte order of the region. The bytes within each part are always in the region's order.

    Raises:
        ValueError: there is no such width, access or order, the offset is negative, or a field is outside of the width.
    """

    _fields: ClassVar[Mapping[str, Bits]]
    _arrays: ClassVar[Mapping[str, FieldArray[Any, Any]]]
    __slots__ = ("_access", "_doc", "_held", "_layout", "_offset", "_path", "_region")
    __declares__: ClassVar[bool] = True

    def __init__(
        self,
        offset: int,
        *,
        width: int | None = None,
        access: Access | None = None,
        doc: str | None = None,
        access_width: int | None = None,
        first: Literal["low", "high"] | None = None,
        word_order: Literal["little", "big"] | None = None,
    ) -> None:
        kind = type(self)
        self._path = kind.__name__
        self._offset = operator.index(offset)
        self._access: Access = kind._kind_access if access is None else checked_access(access, self._path)
        self._layout = kind._kind_layout
        if any(given is not None for given in (width, access, access_width, first, word_order)):
            access_width = kind._kind_access_width if access_width is None else access_width
            width = checked_width(kind._kind_width if width is None else width, access_width, self._path)
            first = kind._kind_first if first is None else checked_first(first, self._path)
            order = kind._kind_word_order if word_order is None else checked_order(word_order, self._path)
            self._layout = Layout.of(
                self._path,
                width,
                self._access,
                kind._fields,
                access_width=access_width,
                first=first,
                word_order=order,
            )
        if self._offset < 0:
            raise ValueError(f"{self._path} at {self._offset:#x}: the offset of a register is from 0")
        self._doc = doc
        self._region: Accesses | None = None
        self._held: _Held | None = None

    @property
    def info(self) -> RegisterInfo:
        """Its name, offset in the region, width, access, fields and documentation. No access."""
        return RegisterInfo(self._path, self._offset, self)

    # ---- Made from the declaration ----

    def _copy(self, region: Accesses | None, offset: int, path: str, held: _Held | None = None) -> Self:
        made = type(self).__new__(type(self))
        made._path, made._offset, made._region, made._held = path, offset, region, held
        made._access, made._doc, made._layout = self._access, self._doc, self._layout
        return made

    def _bound(self, region: Accesses | None, offset: int, path: str) -> Self:
        """Return the register in a region, at this offset from its start."""
        made, layout = self._copy(region, offset, path), self._layout
        methods = [getattr(type(region), f"{verb}{layout.width}", None) for verb in ("read", "write", "update")]
        # The compiled path would bypass methods that a subclass overrides, and the check of the region's width.
        if (
            isinstance(region, Window)
            and layout.width == layout.access_width <= region.width
            and all(isinstance(method, MethodDescriptorType) for method in methods)
        ):
            made._attach(
                region,
                offset,
                layout.width,
                bool(layout.readable),
                bool(layout.writable),
                layout.readable & ~layout.uncompiled if not layout.read_effect else 0,
                layout.writable & ~layout.uncompiled if layout.updatable and not layout.zeros else 0,
                layout.unkept,
                layout.needed,
                layout.ones,
            )
        return made

    def _infos(self, offset: int, path: str) -> Iterator[RegisterInfo]:
        yield RegisterInfo(path, offset + self._offset, self)

    @property
    def _span(self) -> int:
        return self._layout.width // 8

    _phase = 0

    @property
    def _alignment(self) -> int:
        return self._layout.access_width // 8

    # ---- Several fields at once ----

    @classmethod
    def of(cls, value: SupportsIndex = 0, /, **fields: Any) -> Self:
        """Return a register that holds a value and belongs to no region. No access.

        Its fields can be read. It stands for its value: it equals that int, can be ordered, formatted and written, and
        ``int`` returns it. It never changes; `replace` makes another.

        Args:
            value: the whole value.
            fields: values of fields that replace those in `value`: ``Format.of(0x12, extended=True)``.

        Raises:
            ValueError: a value does not fit.
            TypeError: there is no such field, or a wrong type.
        """
        register = cls(0)
        register._held = _Held(cls._composed(register._checked(value), fields), over=_BY_ITSELF)
        return register

    def replace(self, **fields: Any) -> Self:
        """Return the value held by this `snapshot`, or made by `of`, with other values in some fields. No access.

        Raises:
            RegisterAccessError: this is a register in a region.
            ValueError: a value does not fit its field.
            TypeError: there is no such field, or a wrong type.
        """
        if self._held is None:
            raise RegisterAccessError(
                f"{self._path} is a register: change it (with ...change() as it), or replace fields of its snapshot()"
            )
        held = _Held(type(self)._composed(self._held.value, fields), over=_BY_ITSELF)
        return self._copy(None, self._offset, self._path, held)

    # ---- As a number: a value that is held is one; a register in a region is not, as its value has to be read ----

    def __index__(self) -> int:
        """Return the value that is held. TypeError: the register is in a region, or a declaration."""
        return self._number("not a value")

    def _number(self, what: str) -> int:
        if self._held is not None:
            return self._held.value
        self._require_region()
        one = next(iter(type(self)._fields), None)
        field = "" if one is None else f", or a field of it, ...{self._path}.{one}"
        raise TypeError(f"{self._path} is a register, {what}: write ...{self._path}.read(){field}")

    __int__ = __index__

    def __bool__(self) -> bool:
        """Return whether the value that is held is not 0. TypeError: as `int`; always true would be a trap."""
        return self._number("neither true nor false") != 0

    def _compared(self, other: object, compare: Callable[[Any, Any], bool]) -> bool:
        if not isinstance(other, (Register, Number)):
            return NotImplemented  # type: ignore[no-any-return]
        return bool(compare(self.__index__(), other.__index__() if isinstance(other, Register) else other))

    def __eq__(self, other: object) -> bool:
        """Compare the value that is held with a number. TypeError: as `int`."""
        if isinstance(other, Register) and self._is_declaration and other._is_declaration:
            return self is other
        return self._compared(other, operator.eq)

    def __lt__(self, other: object) -> bool:
        return self._compared(other, operator.lt)

    def __le__(self, other: object) -> bool:
        return self._compared(other, operator.le)

    def __gt__(self, other: object) -> bool:
        return self._compared(other, operator.gt)

    def __ge__(self, other: object) -> bool:
        return self._compared(other, operator.ge)

    @property
    def _is_declaration(self) -> bool:
        return self._region is None and self._held is None

    def __hash__(self) -> int:
        """Return the hash of the value that is held; TypeError: as `int`, or for a value that a block changes."""
        if self._is_declaration:
            return object.__hash__(self)
        if self._held is not None and not self._held.over:
            raise TypeError(f"{self._path} is being changed, and has no hash")
        return hash(self.__index__())

    def __format__(self, spec: str) -> str:
        """Format the value that is held; without a format, return `str`. TypeError: as `int`."""
        return format(self.__index__(), spec) if spec else str(self)

    # ---- Runs ----

    def read_run(self, count: SupportsIndex) -> bytes:
        """Read the register `count` times, as the data register of a queue, and return the bytes in memory order.

        Raises:
            RegisterAccessError: the register is write-only, or this is a value.
            ValueError: the count is negative; or as `read`.
        """
        number, width, region = operator.index(count), self._layout.width // 8, self._run_region()
        if not self._layout.readable:
            raise RegisterAccessError(f"{self._path} is write-only")
        if number < 0:
            raise ValueError(f"{self._path}: the number of reads is 0 or more, not {number}")
        if isinstance(region, (Window, PortRegion)) and self._alignment == width:
            return region.read(self._offset, number * width, width, fixed=True)
        return b"".join([self._to_memory(region, self.read()) for _ in range(number)])

    def write_run(self, data: Buffer) -> None:
        """Write bytes to the register, one access for each element of its width, as to the data register of a queue.

        Args:
            data: bytes, in memory order; or an array of elements of the register's width.

        Raises:
            RegisterAccessError: the register is read-only, or this is a value.
            ValueError: the length is not a whole number of elements; or as `write`.
            TypeError: not bytes, nor an array of such elements.
        """
        width, region = self._layout.width // 8, self._run_region()
        if not self._layout.writable:
            raise RegisterAccessError(f"{self._path} is read-only")
        view = checked_run(data, width, self._path)
        if isinstance(region, (Window, PortRegion)) and self._alignment == width:
            region.write(self._offset, view, width, fixed=True)
            return
        for start in range(0, len(view), width):
            self.write(self._from_memory(region, view[start : start + width]))

    def _run_region(self) -> Accesses:
        if self._held is not None:
            raise RegisterAccessError(f"{self._path} is {self._held.over or 'being changed'}; use the register itself")
        return self._require_region()

    def snapshot(self) -> Self:
        """Read the register once, and return a copy that holds the value; reading its fields makes no further access.

        Use it to read the fields of a register whose reading has an effect (access ``rc``, ``special``).
        """
        return self._copy(None, self._offset, self._path, _Held(self.read(), over="a value that was read"))

    @contextmanager
    def change(self, value: int | None = None) -> Iterator[Self]:
        """Make several changes by one read and one write: ``with regs.control.change() as control: ...``.

        When the block starts, it reads the register into a copy. The block sets and reads fields of the copy. When the
        block ends, it writes the copy to the register. It writes nothing if the block raises, or sets no field. To bits
        that a written 1 clears (``w1c``), it writes 1 only if the block sets them to 1. Unlike the change of a single
        field, another thread's access may come between the read and the write.

        Args:
            value: the whole value to start from, instead of reading the register; it is written even if the block sets
                nothing. A register that is write-only, or whose reading has an effect, needs it.

        Raises:
            RegisterAccessError: the register is read-only; or it cannot be read without an effect, and no value was
                given.
            ValueError: the value does not fit.
        """
        layout = self._layout
        if not layout.writable:
            raise RegisterAccessError(f"{self._path} is read-only")
        if self._held is not None:
            raise RegisterAccessError(f"{self._path} is {self._held.over}; change the register itself")
        if value is None:
            self._require_updatable(self._path)
            read = self.read()
            held = _Held(read, read & ~layout.unkept | layout.zeros)
        else:
            whole = self._checked(value)
            held = _Held(whole, whole)
        try:
            yield self._copy(None, self._offset, self._path, held)
        finally:
            held.over = "the value of a change that is over"
        if held.assigned or value is not None:
            self.write(held.written)

    def poll(self, condition: Callable[[Self], object], timeout: float | None) -> Self:
        """Read the register until a condition holds: ``regs.status.poll(lambda status: not status.computing, 1.0)``.

        The pauses between reads are those of `Region.poll32`.

        Args:
            condition: called with a `snapshot`.
            timeout: in seconds, from 0; 0 reads once, None waits for ever.

        Returns:
            The snapshot for which the condition held.

        Raises:
            DeviceTimeoutError: the condition did not hold in time; for a timeout of 0 it is its subclass
                `WouldBlockError`.
            DeviceRemovedError: the device was removed or unbound, before or meanwhile.
            RegisterAccessError: the register is write-only.
        """
        pace = Pace(timeout, getattr(self._region, "presence", None), getattr(self._region, "clock", time))
        while True:
            last = self.snapshot()
            if condition(last):
                return last
            if not pace.goes_on():
                where = getattr(self._region, "name", "")
                raise timeout_error(
                    timeout,
                    f"{where}{': ' * bool(where)}the condition did not hold within {pace.elapsed:.6f} s; "
                    f"last read: {last!r}",
                )

    # ---- Cases that the compiled part leaves to Python ----

    def _checked(self, value: SupportsIndex) -> int:
        number = operator.index(value)
        if not 0 <= number <= self._layout.full:
            raise ValueError(f"{self._path}: {number:#x} does not fit its {self._layout.width} bits")
        return number

    def _require_region(self) -> Accesses:
        return require_region(self._region, self._path)

    def _require_updatable(self, name: str) -> None:
        if not self._layout.updatable:
            effect = "cannot be read, or written back, without an effect"
            why = effect if self._layout.readable else "is write-only"
            raise RegisterAccessError(
                f"{name} cannot be changed by itself, as {self._path} {why}; give the whole value: "
                "with ...change(value) as register, or write(value)"
            )

    @property
    def _is_by_itself(self) -> bool:
        return self._held is not None and self._held.over == _BY_ITSELF

    def _read_slowly(self) -> int:
        if not self._layout.readable and not self._is_by_itself:
            raise RegisterAccessError(f"{self._path} is write-only")
        if self._held is not None:
            return self._held.value
        region, width = self._require_region(), self._layout.access_width
        if width == self._layout.width:
            whole: int = getattr(region, _READS[width])(self._offset)
            return whole
        value = 0
        for offset, shift in self._parts(region):
            value |= getattr(region, f"read{width}")(offset) << shift
        return value

    def _write_slowly(self, value: SupportsIndex) -> None:
        if not self._layout.writable:
            raise RegisterAccessError(f"{self._path} is read-only")
        number = self._checked(value)
        if self._held is not None:
            raise RegisterAccessError(
                f"{self._path} is {self._held.over or 'being changed'}; write the register itself"
            )
        self._store(self._require_region(), number)

    def _store(self, region: Accesses, value: int) -> None:
        width = self._layout.access_width
        if width == self._layout.width:
            getattr(region, _WRITES[width])(self._offset, value)
            return
        for offset, shift in self._parts(region):
            getattr(region, f"write{width}")(offset, value >> shift & (1 << width) - 1)

    def _parts(self, region: Accesses) -> list[tuple[int, int]]:
        """Return the offset of each access, and the lowest of the register's bits in it, in the order to make them."""
        layout = self._layout
        shifts = range(0, layout.width, layout.access_width)
        offsets = [self._offset + shift // 8 for shift in shifts]
        if (layout.word_order or _byte_order(region)) == "big":
            offsets.reverse()
        parts = list(zip(offsets, shifts, strict=True))
        return parts[::-1] if layout.high_first else parts

    def _to_memory(self, region: Accesses, value: int) -> bytes:
        """Return the bytes of a value as they lie in the device's memory."""
        width, order = self._layout.access_width, _byte_order(region)
        parts = [value >> shift & (1 << width) - 1 for _, shift in sorted(self._parts(region))]
        return b"".join([part.to_bytes(width // 8, order) for part in parts])

    def _from_memory(self, region: Accesses, data: memoryview) -> int:
        """Return the value whose bytes lie so in the device's memory."""
        size, order = self._layout.access_width // 8, _byte_order(region)
        value = 0
        for place, (_, shift) in enumerate(sorted(self._parts(region))):
            value |= int.from_bytes(data[size * place : size * (place + 1)], order) << shift
        return value

    def _value_for(self, field: Bits) -> int:
        """Return the register's value, to extract a field."""
        if not self._layout.reads(field) and not self._is_by_itself:
            raise RegisterAccessError(f"{self._path}.{field.name} is write-only")
        if self._held is None and self._layout.read_effect:
            raise RegisterAccessError(
                f"reading {self._path} has an effect, so its fields cannot be read one by one; "
                f"take a snapshot() of it, and read {field.name} from that"
            )
        return self._read_slowly()

    def _set_field(self, field: Bits, bits: int) -> None:
        """Set a field to `bits`, which are shifted to its place, fit it and are writable."""
        layout, held, mask = self._layout, self._held, field.mask
        if held is not None:
            if held.over:
                raise RegisterAccessError(f"{self._path}.{field.name}: this is {held.over}, and cannot be changed")
            held.assigned = True
            held.written = held.written & ~mask | bits
            seen = mask & ~layout.apart
            held.value = held.value & ~seen | bits & seen
            return
        region, width = self._require_region(), layout.width
        kept = layout.needed & ~mask
        blind = 0 if layout.readable else layout.blind & ~mask  # beside bits that can be read, writing 0 does nothing
        if blind or layout.acts & ~mask or (kept and layout.read_effect):
            self._require_updatable(f"{self._path}.{field.name}")
        bits |= layout.zeros & ~mask
        mask |= layout.unkept
        update = getattr(region, f"update{width}", None) if layout.access_width == width else None
        if not kept:
            self._store(region, bits)
        elif update is not None:
            update(self._offset, mask, bits)
        else:
            self._store(region, self._read_slowly() & ~mask | bits)

    # ---- For people ----

    def __str__(self) -> str:
        """Read the register once and return name, value and fields; do not read if that has an effect or is refused."""
        if self._held is None and self._region is None:
            return repr(self)
        value, why = self._value_shown()
        if value is None:
            return f"{self._path} {why}"
        info = self.info
        shown = [one for one in info.fields.values() if self._layout.reads(one) or self._is_by_itself]
        names = [f"{one.name}{one.bits}" for one in shown]
        longest = max(map(len, names), default=0)
        lines = [f"{self._path} = {value:#0{self._layout.width // 4 + 2}x}"]
        lines += [f"  {name:{longest}} = {one.text(value)}" for name, one in zip(names, shown, strict=True)]
        return "\n".join(lines)

    def _value_shown(self) -> tuple[int | None, str]:
        """Return the value, by one access at most, or None and why people are not shown it."""
        if self._held is None and self._region is None:
            return None, "is a declaration"
        if not self._layout.readable and not self._is_by_itself:
            return None, "is write-only"
        if self._held is None and self._layout.read_effect:
            return None, "was not read, as that has an effect; print(...snapshot())"
        return self.read(), ""

    def _repr_html_(self) -> str:
        """Return what a notebook shows: a table of the fields, with the value that `str` would read."""
        from pyuio.process.html import table

        info, (value, why) = self.info, self._value_shown()
        title = f"{info.path} at {info.offset:#x}, {info.width} bits, {info.access}"
        title += f": {why}" if value is None else f" = {value:#0{info.width // 4 + 2}x}"
        rows = []
        for one in info.fields.values():
            seen = value is not None and (info.layout.reads(one) or self._is_by_itself)
            shown = one.text(value) if value is not None and seen else ""
            rows.append((one.bits, one.name, shown, one.access or self._access, one.doc))
        return table(title, rows, ("bits", "field", "value", "access", "description") if rows else (), info.doc)

    def __repr__(self) -> str:
        """Return name, place and fields, without an access."""
        kind, layout = type(self).__name__, self._layout
        if self._held is not None and (layout.readable or self._is_by_itself):
            value = self._held.value
            return f"<{kind} {self._path} = {value:#0{layout.width // 4 + 2}x} {self.info.text(value)}".rstrip() + ">"
        fields = "".join(f" {one.name}{one.bits}" for one in type(self)._fields.values())
        place = f"{self._path} at {self._offset:#x}"
        return f"<{kind} {place}, {layout.width} bits, {self.info.access}{':' * bool(fields)}{fields}>"


class RegisterInfo(NamedTuple):
    """Place and access of a register, or of one field of it: from `RegisterMap.find`, or a register's ``info``."""

    path: str
    """Its name in the map: ``status``, ``dma.channel[2].count``, ``status.computing``."""
    offset: int
    """The register's offset in bytes from the start of the region, if the map starts there."""
    register: Register
    """The declaration, or the register whose ``info`` this is."""
    field: Bits | None = None
    """The field, or None for the whole register."""
    bank: SelectsBank | None = None
    """What selects the bank in which it is, or None: see `pyuio.registers.bank`."""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RegisterInfo):
            return NotImplemented
        same = self.register is other.register and self.field is other.field
        return same and self.path == other.path and self.offset == other.offset and self.bank == other.bank

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash((self.path, self.offset))

    def __repr__(self) -> str:
        return f"RegisterInfo(path={self.path!r}, offset={self.offset!r}, field={self.field!r})"

    @property
    def region(self) -> Accesses | None:
        """The region of the register; None for a declaration, and for a register that only holds a value."""
        return self.register._region

    @property
    def layout(self) -> Layout:
        """The layout, which tells what software may do with each bit of the register."""
        return self.register._layout

    @property
    def width(self) -> int:
        """Width of the register in bits."""
        return self.layout.width

    @property
    def access(self) -> Access:
        """The access of the field, or of the register; if its fields differ, it is ``rw`` if any can be written."""
        if self.field is not None and self.field.access is not None:
            return self.field.access
        return self.layout.whole if self.field is None else self.layout.access

    @property
    def doc(self) -> str:
        """The documentation in the declaration."""
        from inspect import cleandoc

        if self.field is not None:
            return self.field.doc
        own = self.register._doc
        return cleandoc(type(self.register)._kind_doc) if own is None else own

    @property
    def fields(self) -> Mapping[str, Bits]:
        """All fields of the register by name."""
        return self.register._fields

    @property
    def mask(self) -> int:
        """The bits of the field, or all."""
        return self.layout.full if self.field is None else self.field.mask

    @property
    def readable(self) -> bool:
        """Whether it may be read."""
        return bool(self.layout.readable) if self.field is None else self.layout.reads(self.field)

    @property
    def writable(self) -> bool:
        """Whether it may be written."""
        return bool(self.layout.writable) if self.field is None else self.layout.writes(self.field)

    @property
    def read_effect(self) -> bool:
        """Whether reading the register has an effect, such as clearing it."""
        return bool(self.layout.read_effect)

    def bind(self, region: Accesses) -> Register:
        """Return the register in a region; for a field, the register that it belongs to."""
        path = self.path if self.field is None else self.path.rpartition(".")[0]
        return self.register._bound(region if self.bank is None else self.bank.of(region), self.offset, path)

    def read(self, region: Accesses) -> int:
        """Read the register by one access, whatever effect that has, and return its value, or the field's.

        Raises:
            RegisterAccessError: the register is write-only.
            UnknownValueError: the field's enumeration has no name for its value.
        """
        if not self.readable:
            raise RegisterAccessError(f"{self.path} is write-only")
        if self.field is None:
            return self.bind(region).read()
        field: Any = self.field  # its name may be that of an element of a FieldArray, which is no attribute
        value: int = field.__get__(self.bind(region).snapshot())
        return value

    def write(self, region: Accesses, value: int) -> None:
        """Write the register by one access, or set the field by one write, or one read and one write.

        Raises:
            RegisterAccessError: the register is read-only, or the field cannot be set without the other fields.
            ValueError: the value does not fit.
        """
        if self.field is None:
            self.bind(region).write(value)
        else:
            field: Any = self.field
            field.__set__(self.bind(region), value)

    def shown(self, region: Accesses | None) -> tuple[str, str]:
        """Return the value and the fields as text for people.

        It reads the register once, unless reading is refused or has an effect, or there is no region.
        """
        if region is None:
            return "", " ".join(f"{one.name}{one.bits}" for one in self.fields.values())
        if not self.readable:
            return "write-only", ""
        if self.read_effect:
            return "not read, as that has an effect", ""
        number = self.bind(region).read()
        return f"{number:#0{self.width // 4 + 2}x}", self.text(number)

    def text(self, value: int, *, only_set: bool = False) -> str:
        """Return the fields in a value of the register as text for people: ``computing=1 mode=2 (FAST)``.

        Args:
            value: the register's.
            only_set: leave out the fields that are 0.
        """
        seen = value if only_set else -1
        readable = [one for one in self.fields.values() if self.layout.reads(one) and one.mask & seen]
        return " ".join(f"{one.name}={one.text(value)}" for one in readable)
