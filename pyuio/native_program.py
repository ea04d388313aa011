# SPDX-License-Identifier: MIT
"""A program (see `pyuio.program`) as the array of C operations that a native service runs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from pyuio._native._waiting import ffi as _ffi
from pyuio._native._waiting import lib as _lib
from pyuio.interrupt import timeout_nanoseconds
from pyuio.program import Count, Operation, Poll, Read, Stamp, Unmask, When, Write, WriteBack, flatten


class NativeProgram:
    """Operations as C has them.

    Args:
        operations: as in `pyuio.program`.
        stack: what they touch stays until this is undone.

    Attributes:
        array, length: the operations in C.
        names: of the values that they keep, by slot.
        counters: of what they count, by slot.

    Raises:
        TypeError: something is no operation.
        ClosedError: a region is closed.
    """

    def __init__(self, operations: Sequence[Operation], stack: ExitStack) -> None:
        flat = list(flatten(operations))
        self._stack = stack
        self.names: list[str] = []
        self.counters: list[str] = []
        self.array = _ffi.new("pyuio_operation[]", len(flat) or 1)
        self.length = len(flat)
        for native, (operation, inside) in zip(self.array, flat, strict=False):
            self._fill(native, operation, inside)

    def _fill(self, native: Any, operation: Operation, inside: int) -> None:
        if isinstance(operation, (Read, Poll, Write, WriteBack)):
            self._place(native, operation)
        if isinstance(operation, (Read, Poll, Stamp, WriteBack, When)):
            native.slot = _index(self.names, operation.name)
        if isinstance(operation, Read):
            native.kind = _lib.PYUIO_READ
        elif isinstance(operation, Write):
            native.kind, native.value = _lib.PYUIO_WRITE, operation.value
        elif isinstance(operation, WriteBack):
            native.kind = _lib.PYUIO_WRITE_BACK
            native.mask = (1 << operation.bits) - 1 if operation.mask is None else operation.mask
        elif isinstance(operation, When):
            native.kind, native.skip = _lib.PYUIO_TEST, inside
            native.mask, native.value = operation.mask, operation.value
        elif isinstance(operation, Poll):
            native.kind, native.limit = _lib.PYUIO_POLL, timeout_nanoseconds(operation.timeout)
            native.mask, native.value = operation.mask, operation.value
        elif isinstance(operation, Stamp):
            native.kind = _lib.PYUIO_STAMP
        elif isinstance(operation, Unmask):
            native.kind = _lib.PYUIO_UNMASK
        elif isinstance(operation, Count):
            native.kind, native.slot = _lib.PYUIO_COUNT, _index(self.counters, operation.counter)
        else:
            raise TypeError(f"a native service does not know {type(operation).__name__}")

    def _place(self, native: Any, operation: Read | Poll | Write | WriteBack) -> None:
        native.bits = operation.bits
        native.file, native.address = operation.region.reach(operation.offset, self._stack)
        # What is in the processor's order when it was read: of a port, its bytes are put together as little-endian.
        native.swap = operation.region.endian == "big"


def _index(names: list[str], name: str) -> int:
    if name not in names:
        names.append(name)
    return names.index(name)
