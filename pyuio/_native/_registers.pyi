# SPDX-License-Identifier: MIT
"""The short way of `pyuio.registers`: accesses that need no Python code, because there is nothing to refuse.

Each call is one access, like those of `pyuio._native._access.Window`, and keeps the global interpreter lock.
"""

from typing import Generic, SupportsIndex, TypeVar, overload

from typing_extensions import Self

from pyuio._native._access import Window

_Value = TypeVar("_Value")
_Given = TypeVar("_Given")

class Register:
    """A register of a window. Without a window, the derived class in Python decides what a call does."""

    def read(self) -> int:
        """Read the whole register: one access; but return a held value (`snapshot`, `change`, `of`) without one.

        Raises:
            RegisterAccessError: the register is write-only.
            ClosedError: the region was closed.
            ValueError: the register is not inside the region.
        """

    def write(self, value: SupportsIndex, /) -> None:
        """Write the whole register: one access.

        Raises:
            RegisterAccessError: the register is read-only.
            ValueError: the value does not fit its width.
            TypeError: the value is not an integer.
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
    """Bits of a `Register`, as an attribute of it. It reads as a `_Value` and takes a `_Given`."""

    @overload
    def __get__(self, register: None, owner: type, /) -> Self: ...
    @overload
    def __get__(self, register: Register, owner: type | None = None, /) -> _Value: ...
    def __set__(self, register: Register, value: _Given, /) -> None: ...
    def _place(self, low: int, mask: int, is_bool: bool, table: tuple[object, ...] | None, /) -> None: ...
