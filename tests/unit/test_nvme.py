# SPDX-License-Identifier: MIT
"""The NVMe driver's registers, data structures and statuses, without a device."""

from __future__ import annotations

import errno
import io

import pytest
from pyuio_drivers.nvme_errors import CommandError, CommandTimeoutError, NotWritableError, status_name
from pyuio_drivers.nvme_registers import (
    QUEUE_PAIRS,
    ControllerConfiguration,
    ControllerStatus,
    NvmeRegisters,
    ShutdownStatus,
    doorbell_offsets,
)
from pyuio_drivers.nvme_structures import Capabilities, Controller, Namespace, Smart

import pyuio


def test_registers() -> None:
    """Offsets and bits of section 3.1."""
    infos = {info.path: info for info in NvmeRegisters.walk()}
    offsets = {"cap": 0x0, "vs": 0x8, "intms": 0xC, "intmc": 0x10, "cc": 0x14, "csts": 0x1C, "aqa": 0x24, "asq": 0x28}
    assert {name: infos[name].offset for name in offsets} == offsets
    assert {path for path, info in infos.items() if info.width == 64} == {"cap", "asq", "acq"}
    assert {path for path, info in infos.items() if not info.readable} == {
        f"doorbells[{number}].{name}" for number in range(QUEUE_PAIRS) for name in ("sqtdbl", "cqhdbl")
    }
    assert ControllerConfiguration.shn.mask == 0b11 << 14
    configuration = ControllerConfiguration.of(6 << 16 | 4 << 20 | 1 << 7 | 1)
    assert (configuration.iosqes, configuration.iocqes, configuration.mps, configuration.en) == (6, 4, 1, True)
    status = ControllerStatus.of(0b1001)
    assert (status.rdy, status.cfs, status.shst) == (True, False, ShutdownStatus.COMPLETE)


@pytest.mark.parametrize("queue_id", [0, 1, QUEUE_PAIRS - 1])
def test_doorbells(queue_id: int) -> None:
    """Sections 3.1.24 and 3.1.25."""
    tail, head = (NvmeRegisters.find(f"doorbells[{queue_id}].{name}").offset for name in ("sqtdbl", "cqhdbl"))
    assert doorbell_offsets(queue_id, 4) == (tail, head)
    assert doorbell_offsets(queue_id, 16) == (0x1000 + queue_id * 32, 0x1000 + queue_id * 32 + 16)


def test_capabilities() -> None:
    # CAP of QEMU 7.2's controller, and one that differs in every field.
    qemu = Capabilities.of(0x0040_0020_0F01_07FF, 0x00010400)
    assert qemu == Capabilities((1, 4, 0), 2048, 7.5, 4, 4096, nvm_command_set=True)
    other = Capabilities.of(1 << 48 | 2 << 32 | 0xFF << 24 | 0xFFFF, 0x00020001)
    assert other == Capabilities((2, 0, 1), 65536, 127.5, 16, 8192, nvm_command_set=False)
    assert Capabilities.of(0, 0).ready_timeout > 0


def test_controller() -> None:
    data = bytearray(4096)
    data[0:2] = b"\x36\x1b"
    data[4:24] = b"S1".ljust(20)
    data[24:64] = b"A disk".ljust(40)
    data[64:72] = b"1.0\0\0\0\0\0"
    data[77] = 5
    data[88:92] = (2_500_000).to_bytes(4, "little")
    data[516:520] = (256).to_bytes(4, "little")
    data[525] = 1
    expected = Controller(0x1B36, "S1", "A disk", "1.0", 128 << 10, 256, True, 2.5, emulated=False)
    assert Controller.parse(bytes(data), 4096) == expected
    data[77] = data[525] = 0
    data[257] = 1
    assert Controller.parse(bytes(data), 4096).largest_transfer is None
    assert Controller.parse(bytes(data), 4096).emulated


@pytest.mark.parametrize(
    ("formats", "flbas", "block_size", "metadata_size"), [(2, 1, 4096, 8), (2, 0xF0, 512, 0), (40, 1 | 1 << 5, 8192, 0)]
)
def test_namespace(formats: int, flbas: int, block_size: int, metadata_size: int) -> None:
    data = bytearray(4096)
    data[0:8] = (1000).to_bytes(8, "little")
    data[16:24] = (10).to_bytes(8, "little")
    data[25], data[26] = formats - 1, flbas
    data[128:132] = bytes((0, 0, 9, 0))
    data[132:136] = bytes((8, 0, 12, 0))
    data[128 + 17 * 4 : 132 + 17 * 4] = bytes((0, 0, 13, 0))
    found = Namespace.parse(3, bytes(data))
    assert found == Namespace(3, 1000, 10, block_size, metadata_size)
    assert found.size == 1000 * block_size


def test_smart() -> None:
    data = bytearray(512)
    data[0] = 0b1010
    data[1:3] = (300).to_bytes(2, "little")
    data[3:6] = bytes((90, 10, 101))
    for index in range(10):
        data[32 + 16 * index] = index + 1
    data[32 + 15] = 1  # counts have 128 bits
    smart = Smart.parse(bytes(data))
    assert smart.warnings == ("temperature beyond threshold", "media read-only")
    assert (smart.temperature, smart.available_spare, smart.spare_threshold, smart.percentage_used) == (27, 90, 10, 101)
    assert smart.bytes_read == (1 + (1 << 120)) * 512_000
    assert smart.bytes_written == 2 * 512_000
    assert (smart.read_commands, smart.write_commands, smart.busy_minutes) == (3, 4, 5)
    assert (smart.power_cycles, smart.power_on_hours, smart.unsafe_shutdowns) == (6, 7, 8)
    assert (smart.media_errors, smart.error_log_entries) == (9, 10)


@pytest.mark.parametrize(
    ("kind", "code", "name"),
    [
        (0, 0x80, "LBA Out of Range"),
        (0, 0x0B, "Invalid Namespace or Format"),
        (1, 0x02, "Invalid Queue Size"),
        (2, 0x81, "Unrecovered Read Error"),
        (3, 0x70, "Host Pathing Error"),
        (7, 0x00, "Vendor Specific"),
        (0, 0xC0, "Vendor Specific"),
        (2, 0x00, "Unknown Media and Data Integrity status"),
        (5, 0x01, "Unknown Reserved status"),
    ],
)
def test_status_names(kind: int, code: int, name: str) -> None:
    assert status_name(kind, code) == name


def test_command_error() -> None:
    error = CommandError("reading", 0x4281, block=7)
    assert (error.status_code_type, error.status_code, error.status_name) == (2, 0x81, "Unrecovered Read Error")
    assert (error.do_not_retry, error.more, error.block, error.errno) == (True, False, 7, errno.EIO)
    assert "reading: Unrecovered Read Error (status code type 2h, status code 81h" in str(error)
    assert isinstance(error, pyuio.PyuioError)
    assert isinstance(error, OSError)
    assert CommandError("", 0x2002).more
    assert not CommandError("", 0x2002).do_not_retry


def test_errors_are_what_a_programmer_would_catch() -> None:
    late = CommandTimeoutError("late")
    assert isinstance(late, TimeoutError)
    assert isinstance(late, pyuio.DeviceTimeoutError)
    assert late.errno == errno.ETIMEDOUT
    assert issubclass(NotWritableError, io.UnsupportedOperation)
