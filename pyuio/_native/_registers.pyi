# SPDX-License-Identifier: MIT
"""The short way of `pyuio.registers`: what needs no Python code, as nothing is to be refused.

Each call is one access, as it is with `pyuio._native._access.Window`, and keeps the global interpreter lock.
"""

from typing import Generic, SupportsIndex, TypeVar, overload

from typing_extensions import Self

from pyuio._native._access import Window

_Value = TypeVar("_Value")
_Given = TypeVar("_Given")

class Register:
    """A register of a window, or, without one, whatever the Python class that derives from it makes of it."""

    def read(self) -> int:
        """Read the whole register: one access. Of a held value (`snapshot`, `change`, `of`): the value, and no access.

        Raises:
            RegisterAccessError: it is write-only.
            ClosedError: the region was closed.
            ValueError: it is not inside the region.
        """

    def write(self, value: SupportsIndex, /) -> None:
        """Write the whole register: one access.

        Raises:
            RegisterAccessError: it is read-only.
            ValueError: the value does not fit its width.
            TypeError: the value is no integer.
            ClosedError: the region was closed.
        """

    def _attach(
        self,
        window: Window,
        offset: int,
        bits: int,
        readable: bool,
        writable: bool,
        gettable: int,
        settable: int,
        unkept: int,
        needed: int,
        ones: int,
        /,
    ) -> None: ...

class Field(Generic[_Value, _Given]):
    """Bits of a `Register`, as an attribute of it that reads as a `_Value` and takes a `_Given`."""

    @overload
    def __get__(self, register: None, owner: type, /) -> Self: ...
    @overload
    def __get__(self, register: Register, owner: type | None = None, /) -> _Value: ...
    def __set__(self, register: Register, value: _Given, /) -> None: ...
    def _place(self, low: int, mask: int, is_bool: bool, table: tuple[object, ...] | None, /) -> None: ...
