# SPDX-License-Identifier: MIT
"""One register by name: `Register`, and `RegisterInfo`, which tells its place and access."""

from __future__ import annotations

import errno
import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MethodDescriptorType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, NoReturn, Protocol, SupportsIndex

from pyuio._native import _registers
from pyuio._native._access import Window
from pyuio.errors import DeviceTimeoutError, RegisterAccessError
from pyuio.region.common import Pace
from pyuio.registers.fields import Access, Bits, Field, Layout, checked_access

if TYPE_CHECKING:
    from typing_extensions import Self

WIDTHS = (8, 16, 32, 64)


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
    if name.startswith("_"):
        raise ValueError(f"{what}: a name that starts with an underscore is not for a register or field: {name}")
    if any(hasattr(base, name) for base in bases):
        raise ValueError(f"{what}: {name} is taken by {bases[0].__name__}; call it {name}_")


class _Held:
    """A copy of a register's value: read from the hardware, or to be written to it."""

    __slots__ = ("assigned", "ones", "over", "value")

    def __init__(self, value: int, ones: int = 0, over: str = "") -> None:
        self.value = value
        self.ones = ones  # what to write to the bits in which only a written 1 has an effect
        self.over = over  # why no field of it may be set; "" if fields may be set
        self.assigned = False


class RegisterType(type):
    """The metaclass of `Register`, which collects the fields of a class."""

    _fields: Mapping[str, Bits]
    _kind_width: int
    _kind_access: Access
    _kind_layout: Layout
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
    ) -> RegisterType:
        """Make a class of registers. ValueError: its fields, width or access are invalid."""
        namespace.setdefault("__slots__", ())
        own = {key: value for key, value in namespace.items() if isinstance(value, Field)}
        for key, one in own.items():
            checked_name(key, bases, name)
            if one.name:
                raise ValueError(
                    f"{name}: {key} is field {one.name} by another name; declare each with its own Field()"
                )
            one.name = key
        made = super().__new__(cls, name, bases, dict(namespace))
        made._fields = {**getattr(made, "_fields", {}), **own}
        made._kind_width = getattr(made, "_kind_width", 32) if width is None else checked_width(width, name)
        made._kind_access = getattr(made, "_kind_access", "rw") if access is None else checked_access(access, name)
        made._kind_doc = (namespace.get("__doc__") or "") if bases != (_registers.Register,) else ""
        made._kind_layout = Layout.of(name, made._kind_width, made._kind_access, made._fields)
        return made


def checked_width(width: int, what: str) -> int:
    """Return the width, or raise ValueError."""
    if width not in WIDTHS:
        raise ValueError(f"{what}: the width is 8, 16, 32 or 64 bits, not {width!r}")
    return width


class Register(_registers.Register, metaclass=RegisterType):
    """A register: declared in a `RegisterMap`, and used as an attribute of the map made on a region.

    To declare a register with fields, derive a class from this one, with a `Field` for each field. ``class
    Control(Register, width=16, access="ro")`` sets width and access for all registers of the class, and the class's
    docstring becomes their `doc`.

    `read` and `write` make one access each; so does reading a field, as in ``regs.status.computing``. Setting a field,
    as in ``regs.control.enable = 1``, makes one read and one write, or only the write if no other bit has to be kept.
    An access that is not allowed raises an error before it touches the hardware.

    Args:
        offset: in bytes from the start of the map, a multiple of the width.
        width: 8, 16, 32 (the default) or 64 bits.
        access: what software may do with the register, with fields that do not have an access of their own, and with
            the bits outside of fields. See `pyuio.registers.Access`.
        doc: a sentence of the data sheet.

    Raises:
        ValueError: there is no such width or access, the offset is misaligned, or a field is outside of the width.
    """

    _fields: ClassVar[Mapping[str, Bits]]
    __slots__ = ("_access", "_doc", "_held", "_layout", "_offset", "_path", "_region")
    __declares__: ClassVar[bool] = True

    def __init__(
        self, offset: int, *, width: int | None = None, access: Access | None = None, doc: str | None = None
    ) -> None:
        kind = type(self)
        self._path = kind.__name__
        self._offset = operator.index(offset)
        self._access: Access = kind._kind_access if access is None else checked_access(access, self._path)
        self._layout = kind._kind_layout
        if width is not None or access is not None:
            width = kind._kind_width if width is None else checked_width(width, self._path)
            self._layout = Layout.of(self._path, width, self._access, kind._fields)
        if self._offset < 0 or self._offset % (self._layout.width // 8):
            raise ValueError(
                f"{self._path} at {self._offset:#x}: the offset of a register of {self._layout.width} bits is a "
                f"multiple of {self._layout.width // 8} from 0"
            )
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
        # The compiled path would bypass methods that a subclass overrides.
        if isinstance(region, Window) and all(isinstance(method, MethodDescriptorType) for method in methods):
            made._attach(
                region,
                offset,
                layout.width,
                bool(layout.readable),
                bool(layout.writable),
                layout.readable if not layout.read_effect else 0,
                layout.writable if layout.updatable else 0,
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

    _alignment = _span

    # ---- Several fields at once ----

    @classmethod
    def of(cls, value: int) -> Self:
        """Return a register that holds `value` and belongs to no region, to read fields from the value. No access.

        Raises:
            ValueError: the value does not fit the width.
        """
        register = cls(0)
        register._held = _Held(register._checked(value), over="a value by itself")
        return register

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
            held = _Held(self.read() & (layout.readable | ~layout.writable))
        else:
            whole = self._checked(value)
            held = _Held(whole, whole & layout.ones)
        try:
            yield self._copy(None, self._offset, self._path, held)
        finally:
            held.over = "the value of a change that is over"
        if held.assigned or value is not None:
            self.write(held.value & ~layout.ones | held.ones)

    def poll(self, condition: Callable[[Self], object], timeout: float | None) -> Self:
        """Read the register until a condition holds: ``regs.status.poll(lambda status: not status.computing, 1.0)``.

        The pauses between reads are those of `Region.poll32`.

        Args:
            condition: called with a `snapshot`.
            timeout: in seconds, from 0; 0 reads once, None waits for ever.

        Returns:
            The snapshot for which the condition held.

        Raises:
            DeviceTimeoutError: the condition did not hold in time.
            DeviceRemovedError: the device was removed or unbound, before or meanwhile.
            RegisterAccessError: the register is write-only.
        """
        pace = Pace(timeout, getattr(self._region, "presence", None))
        while True:
            last = self.snapshot()
            if condition(last):
                return last
            if not pace.goes_on():
                raise DeviceTimeoutError(
                    errno.ETIMEDOUT, f"the condition did not hold within {pace.elapsed:.6f} s; last read: {last!r}"
                )

    # ---- Cases that the compiled part leaves to Python ----

    def _checked(self, value: SupportsIndex) -> int:
        number = operator.index(value)
        if not 0 <= number <= self._layout.full:
            raise ValueError(f"{self._path}: {number:#x} does not fit its {self._layout.width} bits")
        return number

    def _require_region(self) -> Accesses:
        if self._region is None:
            raise TypeError(f"{self._path} is a declaration; make its map on a region: Registers(device.bar(0))")
        return self._region

    def _require_updatable(self, name: str) -> None:
        if not self._layout.updatable:
            effect = "cannot be read, or written back, without an effect"
            why = effect if self._layout.readable else "is write-only"
            raise RegisterAccessError(
                f"{name} cannot be changed by itself, as {self._path} {why}; give the whole value: "
                "with ...change(value) as register, or write(value)"
            )

    def _read_slowly(self) -> int:
        if not self._layout.readable:
            raise RegisterAccessError(f"{self._path} is write-only")
        if self._held is not None:
            return self._held.value
        value: int = getattr(self._require_region(), f"read{self._layout.width}")(self._offset)
        return value

    def _write_slowly(self, value: SupportsIndex) -> None:
        if not self._layout.writable:
            raise RegisterAccessError(f"{self._path} is read-only")
        number = self._checked(value)
        if self._held is not None:
            raise RegisterAccessError(
                f"{self._path} is {self._held.over or 'being changed'}; write the register itself"
            )
        getattr(self._require_region(), f"write{self._layout.width}")(self._offset, number)

    def _value_for(self, field: Bits) -> int:
        """Return the register's value, to extract a field."""
        if field.mask & ~self._layout.readable:
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
            if mask & layout.ones:
                held.ones = held.ones & ~mask | bits
            else:
                held.value = held.value & ~mask | bits
            return
        region, width = self._require_region(), layout.width
        # In a register that cannot be read at all, the other bits have no value that is safe to write.
        blind = layout.writable & ~mask if not layout.readable else 0
        if blind or layout.special & ~mask or (layout.needed & ~mask and not layout.updatable):
            self._require_updatable(f"{self._path}.{field.name}")
        if not layout.needed & ~mask:
            getattr(region, f"write{width}")(self._offset, bits)
            return
        mask |= layout.unkept
        update = getattr(region, f"update{width}", None)
        if update is not None:
            update(self._offset, mask, bits)
        else:
            old = getattr(region, f"read{width}")(self._offset)
            getattr(region, f"write{width}")(self._offset, old & ~mask | bits)

    # ---- For people ----

    def __bool__(self) -> NoReturn:
        """Raise TypeError: a register that is always true would be a trap."""
        raise TypeError(f"{self._path} is a register, neither true nor false; read it, or a field of it")

    def __str__(self) -> str:
        """Read the register once and return name, value and fields; do not read if that has an effect or is refused."""
        if self._held is None and self._region is None:
            return repr(self)
        if not self._layout.readable:
            return f"{self._path} is write-only"
        if self._held is None and self._layout.read_effect:
            return f"{self._path} was not read, as that has an effect; print(...snapshot())"
        value, info = self.read(), self.info
        shown = [one for one in info.fields.values() if one.mask & self._layout.readable]
        names = [f"{one.name}{one.bits}" for one in shown]
        longest = max(map(len, names), default=0)
        lines = [f"{self._path} = {value:#0{self._layout.width // 4 + 2}x}"]
        lines += [f"  {name:{longest}} = {one.text(value)}" for name, one in zip(names, shown, strict=True)]
        return "\n".join(lines)

    def __repr__(self) -> str:
        """Return name, place and fields, without an access."""
        kind, layout = type(self).__name__, self._layout
        if self._held is not None and layout.readable:
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
        """Width of the register in bits: 8, 16, 32 or 64."""
        return self.layout.width

    @property
    def access(self) -> Access:
        """The access of the field, or of the register; if its fields differ, it is ``rw`` if any can be written."""
        if self.field is not None and self.field.access is not None:
            return self.field.access
        return self.layout.whole(self.register._access) if self.field is None else self.register._access

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
        return bool(self.mask & self.layout.readable)

    @property
    def writable(self) -> bool:
        """Whether it may be written."""
        return bool(self.mask & self.layout.writable)

    @property
    def read_effect(self) -> bool:
        """Whether reading the register has an effect, such as clearing it."""
        return bool(self.layout.read_effect)

    def bind(self, region: Accesses) -> Register:
        """Return the register in a region; for a field, the register that it belongs to."""
        path = self.path if self.field is None else self.path.rpartition(".")[0]
        return self.register._bound(region, self.offset, path)

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
        value: int = getattr(self.bind(region).snapshot(), self.field.name)
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
            setattr(self.bind(region), self.field.name, value)

    def text(self, value: int, *, only_set: bool = False) -> str:
        """Return the fields in a value of the register as text for people: ``computing=1 mode=2 (FAST)``.

        Args:
            value: the register's.
            only_set: leave out the fields that are 0.
        """
        seen = value if only_set else -1
        readable = [one for one in self.fields.values() if one.mask & self.layout.readable and one.mask & seen]
        return " ".join(f"{one.name}={one.text(value)}" for one in readable)
