# SPDX-License-Identifier: MIT
"""What a declaration of registers needs around it: `Accesses`, `RegisterInfo`, and what its names may be.

`pyuio.registers` is where to import from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, SupportsIndex

from pyuio.errors import RegisterAccessError
from pyuio.register_fields import Access, Bits, Layout

if TYPE_CHECKING:
    from pyuio.named_register import Register


class Accesses(Protocol):
    """What registers need of what they are in; a `Region` and a `PortRegion` have it.

    If it has ``update8`` to ``update64``, too, these are used, so that a change of a field is whole as they are.
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
    """The names in the body of a class, of which none that declares something may come twice."""

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


@dataclass(frozen=True)
class RegisterInfo:
    """Where a register, or one field of it, is: what `RegisterMap.find` returns, and ``info`` of a register."""

    path: str
    """Its name in the map: ``status``, ``dma.channel[2].count``, ``status.computing``."""
    offset: int
    """Of the register, in bytes from the start of the region, if the map starts there."""
    register: Register = field(repr=False)
    """The declaration."""
    field: Bits | None = None
    """The field, or None for the whole register."""

    @property
    def layout(self) -> Layout:
        """What may be done with each bit of the register."""
        return self.register._layout

    @property
    def width(self) -> int:
        """Width of the register in bits: 8, 16, 32 or 64."""
        return self.layout.width

    @property
    def access(self) -> Access:
        """What may be done with the field, or the register; one whose fields differ is ``rw`` if any can be written."""
        if self.field is not None and self.field.access is not None:
            return self.field.access
        return self.layout.whole(self.register._access) if self.field is None else self.register._access

    @property
    def doc(self) -> str:
        """What the declaration says about it."""
        return self.register._doc if self.field is None else self.field.doc

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
        """Whether a read of the register does something, such as clearing it."""
        return bool(self.layout.read_effect)

    def bind(self, region: Accesses) -> Register:
        """Return the register in a region: of one field, the register that it is in."""
        path = self.path if self.field is None else self.path.rpartition(".")[0]
        return self.register._bound(region, self.offset, path)

    def read(self, region: Accesses) -> int:
        """Read the register, by one access, whatever effect that has; return its value, or the field's.

        Raises:
            RegisterAccessError: it is write-only.
            UnknownValueError: the field's enumeration has no name for its value.
        """
        if not self.readable:
            raise RegisterAccessError(f"{self.path} is write-only")
        if self.field is None:
            return self.bind(region).read()
        value: int = getattr(self.bind(region).snapshot(), self.field.name)
        return value

    def write(self, region: Accesses, value: int) -> None:
        """Write the register, by one access, or the field, by the access or two that setting it by name makes.

        Raises:
            RegisterAccessError: it is read-only, or a field that is not to be set without the rest.
            ValueError: the value does not fit.
        """
        if self.field is None:
            self.bind(region).write(value)
        else:
            setattr(self.bind(region), self.field.name, value)

    def text(self, value: int) -> str:
        """Return the fields in a value of the register as people read them: ``computing=1 mode=2 (FAST)``."""
        readable = [one for one in self.fields.values() if one.mask & self.layout.readable]
        return " ".join(f"{one.name}={one.text(value)}" for one in readable)
