# SPDX-License-Identifier: MIT
"""Memory of a card by name: `Memory`, an array of registers that are made when they are used.

Import it from `pyuio.registers`.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, SupportsIndex, TypeVar, overload

from pyuio.errors import RegisterAccessError
from pyuio.registers.register import Accesses, Register, RegisterInfo, require_region

if TYPE_CHECKING:
    from typing_extensions import Buffer

_Element = TypeVar("_Element", bound=Register)


class _Runs(Protocol):
    """The methods of a region that read and write a run of accesses."""

    def read(self, offset: int, length: int, /, width: int) -> bytes: ...
    def write(self, offset: int, data: Buffer, /, width: int) -> object: ...


class Memory(Generic[_Element]):
    """Words of memory, declared in a `RegisterMap`: ``table = Memory(Register(0x1000), 1024)``.

    ``card.table[5].read()`` reads a word, as in an `Array`; `read` and `write` copy bytes. The words are no part of
    `RegisterMap.walk` and of what `print` shows, and cost nothing until they are used. `RegisterMap.find` finds each.

    Args:
        word: the first word, at its offset.
        count: the number of words, at least 1.

    Raises:
        TypeError: a wrong type.
        ValueError: there is no word.
    """

    __slots__ = ("_at", "_count", "_element", "_path", "_region")
    __declares__: ClassVar[bool] = True

    def __init__(self, word: _Element, count: int) -> None:
        if not isinstance(word, Register):
            raise TypeError(f"the words of a memory are registers, not {type(word).__name__}")
        self._element = word
        self._count = operator.index(count)
        self._region: Accesses | None = None
        self._at = word._offset
        self._path = ""
        if self._count < 1:
            raise ValueError(f"a memory has at least 1 word, not {count}")

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: SupportsIndex) -> _Element: ...
    @overload
    def __getitem__(self, index: slice) -> list[_Element]: ...
    def __getitem__(self, index: SupportsIndex | slice) -> _Element | list[_Element]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(self._count))]
        number = range(self._count)[operator.index(index)]
        return self._element._bound(self._region, self._at + number * self._stride, f"{self._path}[{number}]")

    def __iter__(self) -> Iterator[_Element]:
        return (self[index] for index in range(self._count))

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes of the memory, which are read by accesses of a word's width.

        Args:
            offset: from the start of the memory in bytes.
            length: in bytes.

        Raises:
            ValueError: this is not inside the memory, or not a whole number of accesses.
            RegisterAccessError: the memory is write-only.
            TypeError: the region cannot do that.
        """
        if not self._element._layout.readable:
            raise RegisterAccessError(f"{self._path} is write-only")
        return self._runs(offset, length).read(self._at + offset, length, width=self._element._alignment)

    def write(self, offset: int, data: Buffer) -> None:
        """Write bytes to the memory by accesses of a word's width.

        Args:
            offset: from the start of the memory in bytes.
            data: the bytes.

        Raises:
            ValueError: this is not inside the memory, or not a whole number of accesses.
            RegisterAccessError: the memory is read-only.
            TypeError: the region cannot do that.
        """
        if not self._element._layout.writable:
            raise RegisterAccessError(f"{self._path} is read-only")
        length = memoryview(data).nbytes
        self._runs(offset, length).write(self._at + offset, data, width=self._element._alignment)

    def _runs(self, offset: int, length: int) -> _Runs:
        region: Any = self._region
        if not 0 <= offset <= offset + length <= self._span:
            raise ValueError(
                f"{self._path}: {length:#x} bytes at {offset:#x} are not inside the memory's {self._span:#x} bytes"
            )
        require_region(region, self._path)
        if not hasattr(region, "read"):
            raise TypeError(f"{self._path}: {region!r} reads and writes no runs; use the words")
        runs: _Runs = region
        return runs

    # ---- Made from the declaration ----

    @property
    def _offset(self) -> int:
        return self._element._offset

    @property
    def _stride(self) -> int:
        return self._element._span

    @property
    def _span(self) -> int:
        return self._count * self._stride

    @property
    def _alignment(self) -> int:
        return self._element._alignment

    @property
    def _phase(self) -> int:
        return self._element._phase

    def _bound(self, region: Accesses | None, offset: int, path: str) -> Memory[_Element]:
        made = type(self)(self._element, self._count)
        made._region, made._at, made._path = region, offset, path
        return made

    def _infos(self, offset: int, path: str) -> Iterator[RegisterInfo]:
        return iter(())

    def __repr__(self) -> str:
        """Return name, place and size, without an access."""
        return f"<Memory {self._path}[{self._count}] at {self._at:#x}, {self._span:#x} bytes>"
