# SPDX-License-Identifier: MIT
"""The compiled type under Region: any sequence of accesses compared with a model, and calls that could crash it."""

from __future__ import annotations

import contextlib
import gc
import mmap
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyuio import errors
from pyuio._native._access import Window
from tests.unit.support import SIZE, VERBS, WIDTHS


def call(bar: Any, verb: str, bits: int, offset: Any, **keywords: Any) -> Any:
    """Call any method that makes one access, with valid arguments except for the offset."""
    arguments = {"read": (), "write": (1,), "update": (1, 1), "set": (1,), "clear": (1,)}[verb]
    return getattr(bar, f"{verb}{bits}")(offset, *arguments, **keywords)


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(VERBS),
        st.sampled_from(WIDTHS),
        st.integers(0, SIZE // 8 - 1),
        st.integers(0, 2**64 - 1),
        st.integers(0, 2**64 - 1),
        st.sampled_from(["little", "big", None]),
    ),
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(OPERATIONS, st.sampled_from(["little", "big"]))
def test_any_sequence_does_to_memory_what_it_does_to_a_model(operations: Any, endian: Any) -> None:
    memory = mmap.mmap(-1, SIZE)
    model = bytearray(SIZE)
    window = Window(memory, offset=0, size=SIZE, name="window", endian=endian)
    for verb, bits, slot, mask, value, order in operations:
        width, full = bits // 8, (1 << bits) - 1
        offset, mask, value = slot * 8 + (8 - width), mask & full, value & full
        order = order or endian
        old = int.from_bytes(model[offset : offset + width], order)
        method = getattr(window, f"{verb}{bits}")
        if verb == "read":
            assert method(offset, endian=order) == old
            continue
        if verb == "write":
            method(offset, value, endian=order)
            new = value
        elif verb == "update":
            method(offset, mask, value & mask, endian=order)
            new = old & ~mask | value & mask
        else:
            method(offset, mask, endian=order)
            new = old | mask if verb == "set" else old & ~mask
        model[offset : offset + width] = new.to_bytes(width, order)
        assert memory[:] == model
    assert window.read(0, SIZE, 8) == window.read(0, SIZE, 1) == model
    window.close()
    memory.close()


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 64), st.integers(-80, 80), st.sampled_from(WIDTHS), st.integers(-1, 80))
def test_an_access_is_made_exactly_when_it_is_inside_and_aligned(
    size: int, offset: int, bits: int, length: int
) -> None:
    window = Window(mmap.mmap(-1, 4096), offset=8, size=size, name="window", endian="little")
    width = bits // 8
    if 0 <= offset <= size - width and offset % width == 0:
        call(window, "update", bits, offset)
    else:
        with pytest.raises(ValueError, match=r"^window"):
            call(window, "update", bits, offset)
    if 0 <= offset <= size - max(length, width) and offset % width == 0 and length % width == 0 and length >= 0:
        assert len(window.read(offset, length, width)) == length
    else:
        with pytest.raises(ValueError, match=r"^window"):
            window.read(offset, length, width)


def test_window_construction() -> None:
    memory = bytearray(64)
    window = Window(memory, offset=16, size=32, name="w", endian="little")
    window.write8(31, 7)
    assert memory[47] == 7
    with pytest.raises(BufferError):
        memory.append(0)  # would move the memory away
    with pytest.raises(TypeError, match="twice"):
        Window.__init__(window, memory, offset=0, size=8, name="w", endian="little")
    for offset, size in ((0, 65), (64, 1), (-1, 4), (0, 0), (0, -1), (65, 1), (sys.maxsize, sys.maxsize)):
        with pytest.raises(ValueError, match="not inside the mapping of 64 bytes"):
            Window(memory, offset=offset, size=size, name="w", endian="little")
    with pytest.raises(BufferError):
        Window(b"read-only", offset=0, size=4, name="w", endian="little")
    with pytest.raises(TypeError):
        Window(12, offset=0, size=4, name="w", endian="little")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Window(memory)  # type: ignore[call-arg]
    window.close()
    memory.append(0)


class Claims(bytearray):
    """Says that it is a mapping, of which whole pages could be reached."""

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return mmap.mmap


def test_only_a_mapping_is_as_long_as_its_pages() -> None:
    with pytest.raises(ValueError, match="not inside the mapping of 100 bytes"):
        Window(Claims(100), offset=0, size=4096, name="bar", endian="little")
    if sys.version_info >= (3, 12):  # PEP 688

        class Lends(mmap.mmap):
            def __buffer__(self, _flags: int) -> memoryview:
                return memoryview(bytearray(100))

        with Lends(-1, 4096) as lends, pytest.raises(ValueError, match="not inside the mapping of 100 bytes"):
            Window(lends, offset=0, size=4096, name="bar", endian="little")


def test_a_window_never_initialised_is_closed() -> None:
    window = Window.__new__(Window)
    assert (window.closed, window.size, window.name) == (True, 0, "the window")
    for verb in VERBS:
        with pytest.raises(errors.ClosedError):
            call(window, verb, 32, 0)
    with pytest.raises(errors.ClosedError):
        window.read(0, 4)
    window.close()


class Closes:
    """An integer that closes a window when it is converted."""

    def __init__(self, window: Window) -> None:
        self.window = window

    def __index__(self) -> int:
        self.window.close()
        return 0


class Fails:
    def __index__(self) -> int:
        raise KeyError("own")


@pytest.mark.parametrize(
    "use",
    [
        lambda window, index: window.read32(index),
        lambda window, index: window.write32(index, 0),
        lambda window, index: window.write32(0, index),
        lambda window, index: window.update32(0, 0, index),
        lambda window, index: window.update32(0, index, 0),
        lambda window, index: window.set64(0, index),
        lambda window, index: window.read(index, 4),
        lambda window, index: window.read(0, index),
        lambda window, index: window.read(0, 4, index),
        lambda window, index: window.write(0, b"1234", index),
    ],
)
def test_closing_while_an_argument_is_converted(use: Any) -> None:
    """Python code that runs during a call can close the window; the call must notice that."""
    window = Window(mmap.mmap(-1, 4096), offset=0, size=4096, name="w", endian="little")
    with pytest.raises(KeyError, match="own"):
        use(window, Fails())
    with pytest.raises(errors.ClosedError):
        use(window, Closes(window))


def test_an_override_holds_in_subclasses_of_the_subclass() -> None:
    class Override(Window):
        def read32(self, offset: Any, /, *, endian: Any = None) -> int:
            return 42

    class Below(Override):
        pass

    assert "read32" not in vars(Below)
    assert "write32" in vars(Below)
    below = Below(bytearray(8), offset=0, size=8, name="w", endian="little")
    below.write32(0, 1)
    assert (below.read32(0), below.read8(0)) == (42, 1)
    with pytest.raises(TypeError):
        Below.write32(Window.__new__(Window), 0, 1)


def test_no_reference_is_lost_or_kept() -> None:
    """No call, valid or not, changes the number of references."""
    memory = mmap.mmap(-1, 4096)
    window = Window(memory, offset=0, size=4096, name="window of no other name", endian="little")
    big, huge, huge_offset, data = 0x12345678, 1 << 900, 1 << 899, bytes(range(256))
    objects = [memory, window, window.name, big, huge, huge_offset, data, None, errors.ClosedError, Window]

    def use(offset: int, value: int) -> None:
        for bits in WIDTHS:
            for verb, arguments in (
                ("read", ()),
                ("write", (value & 0xFF,)),
                ("write", (value,)),
                ("update", (value, value)),
                ("update", (1, value)),
                ("set", (value,)),
                ("clear", (value,)),
            ):
                for keywords in ({}, {"endian": "big"}, {"endian": "middle"}, {"endian": None}):
                    with contextlib.suppress(ValueError):
                        getattr(window, f"{verb}{bits}")(offset, *arguments, **keywords)
        for run in (
            lambda: window.read(offset, value),
            lambda: window.write(offset, data),
            lambda: window.read(0, 256),
        ):
            with contextlib.suppress(ValueError):
                run()

    def counts() -> list[int]:
        gc.collect()
        return [sys.getrefcount(one) for one in objects]

    for rounds in (1, 50):
        before = counts()
        for _ in range(rounds):
            for offset in (0, 1, huge_offset):
                for value in (big, huge, -huge):
                    use(offset, value)
    # None is shared by the whole interpreter, and never dies in later versions.
    assert [b - a for a, b in zip(before, counts(), strict=True) if abs(b - a) > 20] == []
