# SPDX-License-Identifier: MIT
"""Make the memory of this process ready for real time: no page faults, no garbage collection.

Each setting has a function that reads its state and one that sets it, for `pyuio.rt.setting_stack`. They use
mlockall(2), mallopt(3), and CPython's module gc and allocator pymalloc.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import mmap
import os
import re
from pathlib import Path
from typing import Literal, TypeAlias

from pyuio._native._realtime import lib as _lib
from pyuio.kernel import privilege
from pyuio.kernel.memory_use import available, lock_limit, locked_size, mapped_size, room_to_lock
from pyuio.process.signals import postponed_signals

# CPython takes objects of up to 512 bytes from arenas of 1 MiB (Objects/obmalloc.c, from 3.10 on), and returns an empty
# arena to the kernel. So `touch_heap` makes objects of that size, and keeps one of so many.
_OBJECT = 512
_EMPTY_BYTES = b"".__sizeof__()
_OBJECTS_FOR_ONE_KEPT = 1024
_IMMORTAL = (
    1000  # objects, at most: CPython 3.12 counts its immortal ones, some 400, as frozen; gc.freeze adds thousands
)

_PROBE = 1 << 20  # bytes: more than other threads map meanwhile
# The header of a mapping, and below it its flags: "lo" is VM_LOCKED (fs/proc/task_mmu.c, show_smap_vma_flags).
_LOCKED_RANGE = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (?:(?!^VmFlags:)[^\n]*\n)+^VmFlags:[^\n]* lo\b", re.MULTILINE)

_keeps_heap = False


def checked_size(name: str, size: int) -> int:
    """Return a size in bytes. TypeError: it is not an int. ValueError: it is negative, or too large for any process."""
    if not isinstance(size, int) or isinstance(size, bool):
        raise TypeError(f"{name} is a number of bytes, not {type(size).__name__}")
    if not 0 <= size < 1 << 47:
        raise ValueError(f"{name} is 0 or more bytes and less than 2^47, not {size}")
    return size


def lock_remedy() -> str:
    """Return the advice that lets this process lock its memory."""
    more = privilege.remedy(privilege.CAP_IPC_LOCK, "memlock", "unlimited")
    size, limit = mapped_size() // 1024, lock_limit() // 1024
    return f"this process has {size} KiB of memory and may lock {limit} (ulimit -l): {more}"


def is_locked() -> bool:
    """Return whether any memory is locked: by this module, or by the program itself."""
    return locked_size() > 0


EVERYTHING: Literal["everything"] = "everything"
Locked: TypeAlias = Literal["everything"] | tuple[tuple[int, int], ...]
"""The locked memory: all of it, present and future, or ranges of addresses, each as start and end."""


def locked() -> Locked:
    """Return which memory is locked now, by this module or by the program itself.

    The kernel does not tell whether it locks future mappings; so this makes a mapping and looks whether it is locked.
    """
    before = locked_size()
    if not before:
        return ()
    try:
        with contextlib.closing(mmap.mmap(-1, _PROBE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)):
            if locked_size() >= before + _PROBE:
                return EVERYTHING
    except OSError:  # EAGAIN: no more may be locked
        return EVERYTHING
    found = _LOCKED_RANGE.finditer(Path("/proc/self/smaps").read_text())
    return tuple((int(match[1], 16), int(match[2], 16)) for match in found)


def lock(wanted: Locked) -> None:
    """Lock the memory that is wanted, and unlock all other. OSError: the kernel refused."""
    if isinstance(wanted, str):
        _checked(_lib.pyuio_lock_memory(), "mlockall")
        return
    _checked(_lib.pyuio_unlock_memory(), "munlockall")
    for start, end in wanted:
        result = _lib.pyuio_lock_range(start, end - start)
        if result != -errno.ENOMEM:  # ENOMEM: the range was unmapped meanwhile
            _checked(result, f"mlock of {end - start} bytes")


def _checked(result: int, doing: str) -> int:
    if result < 0:
        raise OSError(-result, f"{doing}: {os.strerror(-result)}")
    return result


def keeps_heap() -> bool:
    """Return whether memory that C frees stays with the process."""
    return _keeps_heap


def keep_heap(keep: bool) -> None:
    """Keep memory that C frees with the process, or stop that. OSError: this C library has no mallopt (musl)."""
    global _keeps_heap
    _checked(_lib.pyuio_keep_heap(keep), "mallopt")
    _keeps_heap = keep


def touch_heap(size: int) -> list[bytes]:
    """Touch `size` bytes of C's heap, and as many for Python's objects, so that they are in memory.

    Returns:
        Objects that keep the memory for Python's objects with the process as long as they exist.

    Raises:
        OSError: so much memory is not free, or may not be locked.
    """
    free = available()
    if 2 * size > free:
        raise OSError(errno.ENOMEM, f"touching 2 * {size} bytes of heap: {free} are free")
    _require_room("heap", 2 * size)
    _checked(_lib.pyuio_touch_heap(size), f"touching {size} bytes of heap")
    objects = [bytes(_OBJECT - _EMPTY_BYTES) for _ in range(size // _OBJECT)]
    return objects[::_OBJECTS_FOR_ONE_KEPT]


def touch_stack(size: int) -> int:
    """Touch the next `size` bytes of this thread's stack, or all that it has left, so that they are in memory.

    Returns:
        How many bytes were touched.

    Raises:
        OSError: so much memory may not be locked.
    """
    _require_room("stack", size)
    return _checked(_lib.pyuio_touch_stack(size), f"touching {size} bytes of stack")


def _require_room(name: str, size: int) -> None:
    # This matters only while memory is locked: then a stack that cannot grow ends the process with SIGSEGV.
    if is_locked() and (room := room_to_lock()) is not None and size > room:
        raise OSError(errno.ENOMEM, f"touching {size} bytes of {name}: {room} more may be locked")


def garbage() -> tuple[bool, bool]:
    """Return whether garbage is collected, and whether the program's objects are frozen."""
    return gc.isenabled(), gc.get_freeze_count() > _IMMORTAL


def set_garbage(state: tuple[bool, bool]) -> None:
    """Enable or disable the collection of garbage, and freeze objects or not; disabling collects garbage first."""
    enabled, frozen = state
    if not enabled:
        gc.disable()
        with postponed_signals():  # a finalizer in Python would swallow the exception of Ctrl-C
            gc.collect()
    if not frozen:
        gc.unfreeze()
    elif gc.get_freeze_count() <= _IMMORTAL:
        gc.freeze()
    if enabled:
        gc.enable()
