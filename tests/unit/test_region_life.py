# SPDX-License-Identifier: MIT
"""Opening, closing, dropping and sharing regions."""

from __future__ import annotations

import copy
import errno
import gc
import mmap
import os
import pickle
import sys
import weakref
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pyuio import errors
from pyuio.region import PortRegion, Region
from tests.unit.support import NAME, SIZE, VERBS, call, widths


def test_properties(path: Path) -> None:
    for kind in (Region, PortRegion):
        bar = kind(path, SIZE, address=0xFEBF0000, name=NAME)
        assert (bar.size, bar.address, bar.name, bar.endian, bar.closed) == (SIZE, 0xFEBF0000, NAME, "little", False)
        assert repr(bar) == f"<{kind.__name__} {NAME}: 0x100 bytes at 0xfebf0000>"
        bar.close()
        assert (bar.size, bar.address, bar.name, bar.closed) == (SIZE, 0xFEBF0000, NAME, True)
        assert repr(bar).endswith(", closed>")
        bar = kind(str(path), SIZE)
        assert (bar.name, bar.address) == (str(path), None)
        bar.close()
        for size, error in ((0, ValueError), (-4, ValueError), (4.0, TypeError), ("4", TypeError)):
            with pytest.raises(error):
                kind(path, size)  # type: ignore[arg-type]
        for name in ("size", "address", "name", "endian", "closed", "mmio"):
            with pytest.raises(AttributeError):
                setattr(bar, name, 1)


def test_another_thread_closes_it_while_native_code_gets_its_address(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unmapped = mmap.mmap(-1, SIZE)
    unmapped.close()
    with Region(path, SIZE, name=NAME) as bar:
        for left in (unmapped, None):  # as periphery leaves it, before its last line and after
            with monkeypatch.context() as patch, ExitStack() as stack:
                patch.setattr(bar, "_mmio", SimpleNamespace(mapping=left))
                with pytest.raises(errors.ClosedError, match=f"{NAME} is closed"):
                    bar.reach(0, stack)


def test_a_file_of_its_own_is_no_part_of_a_devices(path: Path) -> None:
    with Region(path, SIZE, name=NAME) as bar, pytest.raises(AttributeError, match=f"{NAME} is no part of a device's"):
        bar.file_and_offset  # noqa: B018


def test_closed(bar: Region | PortRegion) -> None:
    with bar:
        bar.read32(0)
    assert bar.closed
    bar.close()
    for bits in widths(bar):
        for verb in VERBS:
            with pytest.raises(errors.ClosedError, match=f"^{NAME} is closed$"):
                call(bar, verb, bits, 0)
    for use in (
        lambda: bar.read(0, 4),
        lambda: bar.write(0, bytes(4)),
        lambda: bar.read(0, 4, 3),
        lambda: bar.read32(1 << 900),
        lambda: bar.poll32(0, 0, 0, 0),
        lambda: bar.__enter__(),
    ):
        with pytest.raises(errors.ClosedError):
            use()
    with pytest.raises(TypeError):
        bar.read32("0")  # type: ignore[arg-type]


def test_cannot_be_pickled_or_copied(bar: Region | PortRegion) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(bar, protocol)
    for how in (copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled or copied"):
            how(bar)


def test_the_mapping_cannot_be_closed_under_the_region(path: Path) -> None:
    bar = Region(path, SIZE)
    mmio: Any = bar.mmio
    assert mmio.read32(4) == bar.read32(4, endian=sys.byteorder)
    with pytest.raises(BufferError):
        mmio.close()
    mapping = mmio.mapping
    for harm in (mapping.close, lambda: mapping.resize(4096)):
        with pytest.raises((BufferError, ValueError)):
            harm()
    assert bar.read32(4) == 0x07060504
    view = memoryview(mapping)
    bar.close()
    assert view[4] == 4, "a view outlives the region"
    with pytest.raises(errors.ClosedError):
        bar.mmio  # noqa: B018
    view.release()
    mapping.close()


def mappings(path: Path) -> int:
    return Path("/proc/self/maps").read_text().count(str(path))


def test_memory_and_files_are_given_back(path: Path, recwarn: pytest.WarningsRecorder) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = descriptors()
    for kind in (Region, PortRegion):
        bar = kind(path, SIZE)
        bar.close()
        assert (mappings(path), descriptors()) == (0, before)
        bar = kind(path, SIZE)
        del bar  # dropped without close()
        assert (mappings(path), descriptors()) == (0, before)
        for wrong in ({"endian": "middle"}, {"page_offset": 4096}):
            with pytest.raises((ValueError, TypeError)):
                kind(path, SIZE, **wrong)
        gc.collect()
        assert (mappings(path), descriptors()) == (0, before)
    assert not recwarn.list


def test_a_region_in_a_cycle_is_collected(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Holder(Region):
        itself: Any

    bar = Holder(path, SIZE)
    bar.itself = bar
    gone = weakref.ref(bar)
    del bar
    gc.collect()
    assert gone() is None
    assert mappings(path) == 0
    assert capsys.readouterr().err == ""


def test_a_bar_in_the_middle_of_its_page(path: Path) -> None:
    os.truncate(path, 16)
    bar = Region(path, 16, page_offset=16, name=NAME)  # the rest of the file's last page can be accessed
    neighbour = Region(path, 16)
    bar.write32(0, 0x12345678)
    bar.write64(8, 0x1122334455667788)
    assert neighbour.read(0, 16) == bytes(range(16))
    assert bar.read(0, 16) == bytes.fromhex("7856341200000000 8877665544332211")
    with pytest.raises(ValueError, match=r"size 0x10\): 32-bit read at offset 0x10"):
        bar.read32(16)
    with pytest.raises(errors.MappingError, match="starts 0x10 bytes into its page") as caught:
        bar.mmio  # noqa: B018
    assert isinstance(caught.value, OSError)
    bar.close()
    neighbour.close()
    with Region(path, 16, page_offset=mmap.PAGESIZE - 16) as bar:
        bar.read32(12)
    with pytest.raises(errors.MappingError, match="greater than file size"):
        Region(path, 16, page_offset=mmap.PAGESIZE - 12)
    for wrong in (mmap.PAGESIZE, -16):
        with pytest.raises(ValueError, match="page_offset is 0 to"):
            Region(path, 16, page_offset=wrong)


def test_a_map_that_starts_in_one_page_and_ends_in_another(path: Path) -> None:
    os.truncate(path, 3 * mmap.PAGESIZE)
    with Region(path, mmap.PAGESIZE, page_offset=mmap.PAGESIZE - 16, file_offset=mmap.PAGESIZE) as region:
        region.write32(16, 0x12345678)
        region.write32(mmap.PAGESIZE - 4, 0x9ABCDEF0)
    data = path.read_bytes()
    assert data[2 * mmap.PAGESIZE :][:4] == bytes.fromhex("78563412")
    assert data[3 * mmap.PAGESIZE - 20 :][:4] == bytes.fromhex("f0debc9a")


def test_a_region_that_is_not_aligned_refuses_wide_accesses(path: Path) -> None:
    with Region(path, 128, page_offset=4) as bar:
        assert bar.read32(0) == 0x07060504
        with pytest.raises(ValueError, match="does not start at a multiple of 8"):
            bar.read64(0)


def test_files_that_cannot_be_mapped(path: Path, tmp_path: Path) -> None:
    for kind in (Region, PortRegion):
        with pytest.raises(errors.MappingError, match="no such BAR") as missing:
            kind(tmp_path / "resource5", 4096, name=NAME)
        assert missing.value.errno == errno.ENOENT
        assert NAME in str(missing.value)
        with pytest.raises(errors.DeviceRemovedError):
            kind(tmp_path / "0000:00:04.0" / "resource0", 4096)
    for size in (SIZE + 1, 1 << 40, 1 << 70):
        with pytest.raises(errors.MappingError, match="give the BAR's size") as caught:
            Region(path, size)
        assert caught.value.errno == errno.EINVAL
    with pytest.raises(errors.MappingError, match="use PortRegion"):
        Region("/dev/null", SIZE)  # mmap fails with ENODEV, as for the file of an I/O port BAR
    with pytest.raises(errors.MappingError, match="moved 0 of 4 bytes"):
        PortRegion(path, 2 * SIZE).read32(SIZE)


def test_files_that_may_not_be_opened(path: Path) -> None:
    path.chmod(0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)  # root may open everything
    try:
        for kind in (Region, PortRegion):
            with pytest.raises(errors.PermissionDeniedError, match=str(path)):
                kind(path, SIZE)
    finally:
        if root:
            os.seteuid(0)


def test_a_fork_shares_the_registers(path: Path) -> None:
    for kind in (Region, PortRegion):
        with kind(path, SIZE) as bar:
            child = os.fork()
            if child == 0:
                try:
                    bar.write32(8, 0xC0FFEE)
                    bar.close()
                finally:
                    os._exit(0)
            os.waitpid(child, 0)
            assert bar.read32(8) == 0xC0FFEE
            bar.write32(8, 0)
