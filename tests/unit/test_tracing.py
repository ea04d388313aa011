# SPDX-License-Identifier: MIT
"""Traced regions, on a file in memory: each access works as without tracing, and is logged by name."""

from __future__ import annotations

import functools
import logging
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MethodDescriptorType
from typing import Any

import pytest

import pyuio.device  # noqa: F401  (it renews the locks of ports in children)
from pyuio import Field, Register, RegisterMap
from pyuio.region import Region
from pyuio.region.tracing import Recording, TracedPortRegion, TracedRegion, begin
from tests.unit.support import ports


class Control(Register):
    enable = Field(0)
    mode = Field(7, 4)


class Registers(RegisterMap):
    control = Control(0x10)
    status = Register(0x14, access="ro")
    acknowledge = Register(0x14, access="wo")


Lines = Callable[[], list[str]]


@pytest.fixture(params=[TracedRegion, functools.partial(ports, kind=TracedPortRegion)])
def region(request: pytest.FixtureRequest) -> Iterator[Any]:
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        file.truncate(4096)
        with request.param(Path(file.name), 4096, name="BAR 0 of a file") as made:
            begin(made, "0000:00:04.0", "bar0", Registers)
            yield made


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    caplog.set_level(logging.DEBUG, "pyuio.tracing")
    return lambda: [record.getMessage().removeprefix("0000:00:04.0: bar0 ") for record in caplog.records]


def test_plain_accesses(region: Any, lines: Lines) -> None:
    region.write32(0x20, 0xABCD)
    assert region.read16(0x20) == 0xABCD
    region.set8(0x20, 0x12)
    region.clear32(0x20, 0xFF00)
    region.update32(0x20, 0xF0, 0x50)
    region.write32(0x24, 1, endian="big")
    assert region.read32(0x24) == 0x01000000
    region.write(0x30, b"\x01\x02\x03\x04\x05\x06\x07\x08")
    assert region.read(0x30, 8) == b"\x01\x02\x03\x04\x05\x06\x07\x08"
    assert region.read32(0x20) == 0x5F
    assert lines() == [
        "write32 0x020 = 0x0000abcd",
        "read16 0x020 = 0xabcd",
        "set8 0x020 |= 0x12",
        "clear32 0x020 &= ~0x0000ff00",
        "update32 0x020 mask, value 0x000000f0, 0x00000050",
        "write32 0x024 = 0x00000001",
        "read32 0x024 = 0x01000000",
        "write 0x030 8 bytes: 01020304 05060708",
        "read 0x030 8 bytes: 01020304 05060708",
        "read32 0x020 = 0x0000005f",
    ]


def test_named_registers(region: Any, lines: Lines) -> None:
    registers = Registers(region)
    registers.control.write(0x31)
    registers.control.mode = 7
    assert registers.control.enable == 1
    registers.acknowledge.write(5)
    assert registers.status.read() == 5
    assert lines() == [
        "write32 0x010 control = 0x00000031",
        "update32 0x010 control mask, value 0x000000f0, 0x00000070",
        "read32 0x010 control = 0x00000071",
        "write32 0x014 acknowledge = 0x00000005",
        "read32 0x014 status = 0x00000005",
    ]


def test_what_is_wrong_is_refused_as_without(region: Any) -> None:
    for wrong in ((1, 0), (4096, 0), (-4, 0), (0, 1 << 32)):
        with pytest.raises(ValueError, match="BAR 0 of a file"):
            region.write32(*wrong)
    for arguments in (("0", 0), (0, "0"), (0,), ()):
        with pytest.raises(TypeError):
            region.write32(*arguments)
    with pytest.raises(TypeError):
        region.write(0, "text")


def test_a_poll_shows_its_looks(region: Any, lines: Lines) -> None:
    region.write32(0x14, 2)
    assert region.poll32(0x14, 2, 2, 1.0) == 2
    assert lines()[1:] == ["read32 0x014 status = 0x00000002"]


class Interposed(Recording):
    """A recording amid whose next line something else happens."""

    meanwhile: Callable[[], object] | None = None

    def line(self, text: str) -> None:
        super().line(text)
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()


@pytest.fixture
def recording(region: Any, tmp_path: Path) -> Iterator[Interposed]:
    made = Interposed(tmp_path / "trace")
    begin(region, "0000:00:04.0", "bar0", Registers, made)
    yield made
    made.close()


@pytest.mark.parametrize(
    "other",
    [
        lambda region: region.set32(0x20, 2),
        lambda region: region.write32(0x20, 2),
        lambda region: region.write(0x20, b"\2\0\0\0"),
    ],
    ids=["set32", "write32", "write"],
)
def test_a_change_that_is_recorded_is_whole(region: Any, recording: Interposed, other: Callable[[Any], None]) -> None:
    """Of two threads that change a register at once, none takes the other's change back."""
    second = threading.Thread(target=other, args=(region,))

    def meanwhile() -> None:
        second.start()
        second.join(0.1)

    recording.meanwhile = meanwhile
    region.set32(0x20, 1)
    second.join()
    assert region.read32(0x20) & 2


def test_a_child_that_is_forked_amid_a_change_can_record(region: Any, recording: Interposed) -> None:
    amid, forked = threading.Event(), threading.Event()

    def meanwhile() -> None:
        amid.set()
        forked.wait()

    recording.meanwhile = meanwhile
    changing = threading.Thread(target=region.set32, args=(0x20, 1))
    changing.start()
    amid.wait()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(10)  # ends a child that waits for the parent's thread
        status = 1
        try:
            region.set32(0x24, 2)
            status = int(region.read32(0x24) != 2)
        finally:
            os._exit(status)
    forked.set()
    changing.join()
    assert os.waitpid(child, 0)[1] == 0


def test_nothing_is_in_the_way_of_who_does_not_ask() -> None:
    """A plain region has the methods of C; named registers check for them to use their fast path."""
    for name in ("read32", "write32", "update32", "set32", "clear32", "read", "write"):
        assert isinstance(getattr(Region, name), MethodDescriptorType)
        assert not isinstance(getattr(TracedRegion, name), MethodDescriptorType)
