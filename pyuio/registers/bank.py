# SPDX-License-Identifier: MIT
"""Banks: registers that share a window, and of which a page register selects those that are there.

Import `bank` from `pyuio.registers`.
"""

from __future__ import annotations

import operator
import os
import threading
import time
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, SupportsIndex, TypeVar

from pyuio.errors import RegisterNotFoundError
from pyuio.process.timeouts import TimeSource
from pyuio.registers.register import WIDTHS, Accesses, RegisterInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pyuio._native._access import Presence

_Element = TypeVar("_Element")


def bank(element: _Element, *, select: str, value: SupportsIndex) -> _Element:
    """Declare registers that are there only while another register selects them.

    .. code-block:: python

        class Registers(RegisterMap):
            page = Register(0x0C)
            dac = bank(DacFrame.at(0x38), select="page", value=0xC)
            adc = bank(AdcFrame.at(0x38), select="page", value=0xD)

    Each access to ``registers.dac.address`` first writes `value` to the register, or the field, that selects. No other
    thread comes between the two, and a signal handler that uses another bank puts this one back. Another process, as
    ``pyuio read``, may come between them.

    Args:
        element: a register, a map, an array or a memory, at its offset. Those of several banks may overlap.
        select: the name of the register or field that selects, in the map in which the bank is declared. To select by a
            field, the register is read and written.
        value: what selects this bank.

    Returns:
        The declaration. In a map on a region, it is the element.

    Raises:
        TypeError: a wrong type.
        ValueError: the value is negative. When the class of the map is made: there is no such register; it cannot
            select, because it is read-only, or a field of it cannot be changed by itself, or it is in a bank itself;
            the value does not fit; or registers of one bank, or of a bank and none, overlap.
    """
    made: Any = Bank(element, select, operator.index(value))
    return made  # type: ignore[no-any-return]


class Selection(NamedTuple):
    """What selects a bank.

    Attributes:
        selector: the register, or the field; its offset is from the start of the region.
        value: what is written to it.
    """

    selector: RegisterInfo
    value: int

    def of(self, region: Accesses) -> BankedRegion:
        """Return a region as registers in this bank see it."""
        return BankedRegion(region, self)

    def excludes(self, other: Selection | None) -> bool:
        """Return whether this bank and another are never there at once."""
        if other is None or self.value == other.value:
            return False
        one, two = self.selector, other.selector
        return (one.offset, one.register, one.field) == (two.offset, two.register, two.field)


class Bank:
    """A declaration that `bank` made."""

    __declares__: ClassVar[bool] = True
    _region = None

    def __init__(self, element: Any, select: str, value: int) -> None:
        if not getattr(element, "__declares__", False) or isinstance(element, (type, Bank)):
            what = element.__name__ if isinstance(element, type) else type(element).__name__
            raise TypeError(f"a bank has a register, a map, an array or a memory, not {what}")
        if not isinstance(select, str):
            raise TypeError(f"a bank is selected by the name of a register or field, not by {select!r}")
        if value < 0:
            raise ValueError(f"a bank is selected by a value from 0, not {value}")
        self._element = element
        self._select = select
        self._value = value
        self._path = ""
        self._selection: Selection | None = None  # relative to the map in which the bank is declared

    @property
    def _offset(self) -> int:
        return int(self._element._offset)

    @property
    def _span(self) -> int:
        return int(self._element._span)

    @property
    def _alignment(self) -> int:
        return int(self._element._alignment)

    @property
    def _phase(self) -> int:
        return int(self._element._phase)

    def resolve(self, owner: Any, name: str) -> None:
        """Look the selecting register up in the map that declares the bank, and check it. ValueError: see `bank`."""
        where = f"{owner.__name__}.{name}"
        try:
            found: RegisterInfo = owner.find(self._select)
        except RegisterNotFoundError as error:
            raise ValueError(f"{where} is selected by {self._select}: {error}") from None
        layout = found.layout
        if found.bank is not None:
            raise ValueError(f"{where} is selected by {found.path}, which is in a bank itself")
        if not found.writable:
            raise ValueError(f"{where} is selected by {found.path}, which is read-only")
        if found.field is not None and (not layout.updatable or layout.ones or layout.zeros):
            reason = "cannot be changed without its register's other fields; select by the whole register"
            raise ValueError(f"{where} is selected by {found.path}, which {reason}")
        most = found.layout.full if found.field is None else found.field.largest
        if self._value > most:
            raise ValueError(f"{where} is selected by {self._value:#x} in {found.path}, which holds {most:#x} at most")
        self._selection = Selection(found, self._value)

    def _placed(self, base: int) -> Selection:
        """Return what selects it if the map that declares it is at `base` in the region."""
        assert self._selection is not None
        selector = self._selection.selector
        return self._selection._replace(selector=selector._replace(offset=selector.offset + base))

    def _bound(self, region: Accesses | None, offset: int, path: str) -> Any:
        if region is None:  # still a declaration
            made = Bank(self._element, self._select, self._value)
            made._path, made._selection = path, self._selection
            return made
        return self._element._bound(self._placed(offset - self._offset).of(region), offset, path)

    def _infos(self, offset: int, path: str) -> Iterator[RegisterInfo]:
        selection = self._placed(offset) if self._selection is not None else None
        for info in self._element._infos(offset, path):
            if info.bank is not None:
                raise ValueError(f"{path} is a bank, and {info.path} in it is in another: there are no banks in banks")
            yield info._replace(bank=selection)

    def __repr__(self) -> str:
        return f"<Bank {self._path}: {self._element!r} while {self._select} is {self._value:#x}>"


class _Selected(threading.local):
    """The bank in which a thread is making an access; a signal handler may make another in the midst of it."""

    bank: BankedRegion | None = None


_lock = threading.RLock()  # one for all: an access takes a microsecond
_selected = _Selected()


class BankedRegion:
    """A region as the registers in a bank see it: each access selects the bank first. See `Accesses`.

    Args:
        region: the region.
        selection: what selects the bank.
    """

    __slots__ = ("_field", "_region", "_selector", "_value")

    # Those of `Accesses`, which are made below.
    read8: Callable[[SupportsIndex], int]
    read16: Callable[[SupportsIndex], int]
    read32: Callable[[SupportsIndex], int]
    read64: Callable[[SupportsIndex], int]
    write8: Callable[[SupportsIndex, SupportsIndex], object]
    write16: Callable[[SupportsIndex, SupportsIndex], object]
    write32: Callable[[SupportsIndex, SupportsIndex], object]
    write64: Callable[[SupportsIndex, SupportsIndex], object]

    def __init__(self, region: Accesses, selection: Selection) -> None:
        self._region: Any = region
        self._selector = selection.selector.bind(region)
        self._field: Any = selection.selector.field
        self._value = selection.value

    @property
    def name(self) -> str:
        """The name of the region."""
        return str(getattr(self._region, "name", ""))

    @property
    def endian(self) -> str:
        """The byte order of the region."""
        return str(getattr(self._region, "endian", "little"))

    @property
    def presence(self) -> Presence | None:
        """What tells whether the device is there, if the region has it."""
        return getattr(self._region, "presence", None)

    @property
    def clock(self) -> TimeSource:
        """The time of the region."""
        found: TimeSource = getattr(self._region, "clock", time)
        return found

    def read(self, offset: SupportsIndex, length: SupportsIndex, width: SupportsIndex = 4) -> bytes:
        """Read a run of registers; the bank is selected once."""
        data: bytes = self._access("read", offset, length, width)
        return data

    def write(self, offset: SupportsIndex, data: Any, width: SupportsIndex = 4) -> None:
        """Write a run of registers; the bank is selected once."""
        self._access("write", offset, data, width)

    def _choose(self) -> None:
        if self._field is None:
            self._selector.write(self._value)
        else:
            self._field.__set__(self._selector, self._value)

    def _access(self, method: str, *arguments: Any) -> Any:
        access = getattr(self._region, method)
        with _lock:
            outer, _selected.bank = _selected.bank, self
            try:
                self._choose()
                return access(*arguments)
            finally:
                _selected.bank = outer
                if outer is not None:  # this is a signal handler, amid an access to another bank
                    outer._choose()

    def __repr__(self) -> str:
        return f"<{self._selector!r} = {self._value:#x} in {self._region!r}>"


def _accessor(method: str) -> Any:
    def access(self: BankedRegion, *arguments: Any) -> Any:
        return self._access(method, *arguments)

    return access


def _updater(width: int) -> Any:
    def update(self: BankedRegion, offset: int, mask: int, value: int) -> None:
        if hasattr(self._region, f"update{width}"):
            self._access(f"update{width}", offset, mask, value)
            return
        with _lock:
            old = self._access(f"read{width}", offset)
            self._access(f"write{width}", offset, old & ~mask | value)

    return update


for _width in WIDTHS:
    for _verb in ("read", "write"):
        setattr(BankedRegion, f"{_verb}{_width}", _accessor(f"{_verb}{_width}"))
    setattr(BankedRegion, f"update{_width}", _updater(_width))


def _renew_lock() -> None:
    """In a forked child: a thread of the parent may have held the lock."""
    global _lock
    _lock = threading.RLock()
    _selected.bank = None


os.register_at_fork(after_in_child=_renew_lock)
