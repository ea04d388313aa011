# SPDX-License-Identifier: MIT
"""Configuration spaces recorded from QEMU's devices (tests/unit/data), and damaged ones."""

from __future__ import annotations

import errno
import os
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyuio._native._interrupt import ffi, lib
from pyuio.errors import ClosedError, DeviceRemovedError
from pyuio.pci import Command, ConfigImage, Status, parse_address
from pyuio.pci.bars import Bar, parse_resources
from pyuio.pci.capabilities import Capability
from pyuio.pci.config_space import ConfigSpace

DATA = Path(__file__).parent / "data"


def recorded(name: str) -> tuple[bytes, str]:
    """The configuration space and the resource file of a device."""
    dump, resource = (DATA / f"{name}.txt").read_text().split("resource\n")
    size = re.search(r"^size (\d+)$", dump, re.MULTILINE)
    assert size is not None
    image = bytearray(int(size[1]))
    for offset, row in re.findall(r"^([0-9a-f]{3}): (.*)$", dump, re.MULTILINE):
        image[int(offset, 16) : int(offset, 16) + 16] = bytes.fromhex(row)
    return bytes(image), resource


def image(name: str) -> ConfigImage:
    return ConfigImage(recorded(name)[0])


def test_edu() -> None:
    edu = image("edu")
    assert (edu.vendor_id, edu.device_id, edu.revision_id, edu.class_code) == (0x1234, 0x11E8, 0x10, 0x00FF00)
    assert (edu.subsystem_vendor_id, edu.subsystem_id) == (0x1AF4, 0x1100)
    assert (edu.header_type, edu.multi_function, edu.interrupt_pin) == (0, False, 1)
    assert edu.command == Command.IO_SPACE | Command.MEMORY_SPACE | Command.SERR_ENABLE
    assert str(edu.command) == "IO_SPACE|MEMORY_SPACE|SERR_ENABLE"
    assert str(Command(0)) == "0"
    assert edu.status == Status.CAPABILITIES_LIST
    assert edu.capabilities() == [Capability(0x05, "MSI", 0x40)]
    assert edu.extended_capabilities() == []
    assert parse_resources(recorded("edu")[1]) == (Bar(0, "memory", 32, False, 0xFE600000, 0x100000),)


def test_e1000e() -> None:
    """Intel 82574 data sheet, section 9.1 (configuration space): the capabilities and where they are."""
    card = image("e1000e")
    names = {item.offset: item.name for item in card.capabilities()}
    assert names == {0xC8: "Power Management", 0xD0: "MSI", 0xE0: "Express", 0xA0: "MSI-X"}
    extended = {item.offset: (item.name, item.version) for item in card.extended_capabilities()}
    assert extended == {0x100: ("Advanced Error Reporting", 2), 0x140: ("Device Serial Number", 1)}
    kinds = [(bar.index, bar.kind, bar.size) for bar in parse_resources(recorded("e1000e")[1])]
    assert kinds == [(0, "memory", 0x20000), (1, "memory", 0x20000), (2, "io", 0x20), (3, "memory", 0x4000)]


def test_64_bit_and_port_bars() -> None:
    (memory,) = parse_resources(recorded("xhci")[1])
    assert (memory.kind, memory.width, memory.size) == ("memory", 64, 0x4000)
    assert "64-bit" in str(memory)
    (ports,) = parse_resources(recorded("pci-serial")[1])
    assert (ports.kind, ports.width, ports.size) == ("io", 32, 8)


def test_a_bridge_has_its_subsystem_in_a_capability_and_its_windows_are_no_bars() -> None:
    port = image("pcie-root-port")
    assert port.header_type == 1
    assert (port.subsystem_vendor_id, port.subsystem_id) == (0x1B36, 0)
    assert [bar.index for bar in parse_resources(recorded("pcie-root-port")[1])] == [0]
    assert "Express" in [item.name for item in port.capabilities()]


@pytest.mark.parametrize("length", [0, 1, 63, 65, 255, 4095, 4097])
def test_an_image_cut_short(length: int) -> None:
    with pytest.raises(ValueError, match=f"has {length} bytes"):
        ConfigImage(bytes(length))


@given(st.sampled_from([64, 256, 4096]).flatmap(lambda size: st.binary(min_size=size, max_size=size)))
def test_no_image_whatever_loops_or_leaves_it(content: bytes) -> None:
    config = ConfigImage(content)
    for item in config.capabilities() + config.extended_capabilities():
        assert 0x40 <= item.offset < config.size
    offsets = [item.offset for item in config.capabilities()]
    assert len(offsets) == len(set(offsets))
    assert 0 <= config.class_code < 1 << 24
    assert config.command & ~sum(Command) == 0


def test_lists_that_come_back_on_themselves() -> None:
    content = bytearray(4096)
    content[0x06] = Status.CAPABILITIES_LIST
    content[0x34] = 0x40
    content[0x40:0x42] = 0x01, 0x50
    content[0x50:0x52] = 0x10, 0x40
    content[0x100:0x104] = (0x0001 | 1 << 16 | 0x100 << 20).to_bytes(4, "little")
    config = ConfigImage(bytes(content))
    assert [item.offset for item in config.capabilities()] == [0x40, 0x50]
    assert [item.offset for item in config.extended_capabilities()] == [0x100]
    content[0x50] = 0x05
    assert ConfigImage(bytes(content)).extended_capabilities() == [], "what no PCI Express function has there"


def test_a_card_bus_bridge_has_its_list_elsewhere() -> None:
    content = bytearray(256)
    content[0x06], content[0x0E], content[0x14] = Status.CAPABILITIES_LIST, 0x82, 0xA0
    content[0x34] = 0x44  # the limit of a window
    content[0x40:0x44] = 0x43, 0x10, 0x2A, 0x81
    content[0xA0] = 0x01
    bridge = ConfigImage(bytes(content))
    assert bridge.capabilities() == [Capability(0x01, "Power Management", 0xA0)]
    assert (bridge.subsystem_vendor_id, bridge.subsystem_id) == (0x1043, 0x812A)
    assert ConfigImage(bytes(content[:64])).subsystem_id is None


def test_an_unknown_capability_keeps_its_id() -> None:
    content = bytearray(256)
    content[0x06] = Status.CAPABILITIES_LIST
    content[0x34] = 0x40
    content[0x40:0x42] = 0x7E, 0
    assert ConfigImage(bytes(content)).capabilities() == [Capability(0x7E, "unknown", 0x40)]


@given(st.integers(), st.integers(min_value=-8, max_value=5000))
def test_reads_are_checked(offset: int, length: int) -> None:
    config = image("edu")
    inside = offset >= 0 and length >= 0 and offset + length <= 256
    if inside:
        assert config.read(offset, length) == recorded("edu")[0][offset : offset + length]
    else:
        with pytest.raises(ValueError, match="not within"):
            config.read(offset, length)
    for width, read in ((1, config.read8), (2, config.read16), (4, config.read32)):
        if offset % width == 0 and 0 <= offset <= 256 - width:
            assert read(offset) == int.from_bytes(recorded("edu")[0][offset : offset + width], "little")
        else:
            with pytest.raises(ValueError, match=r"not within|not a multiple"):
                read(offset)


def test_addresses() -> None:
    assert parse_address("0000:00:04.0") == "0000:00:04.0"
    assert parse_address("00:1F.7") == "0000:00:1f.7"
    assert parse_address("10000:E1:00.0") == "10000:e1:00.0"
    for wrong in (
        "",
        "00:04",
        "00:20.0",
        "00:04.8",
        "1234:11e8",
        "0000:00:04.0 ",
        "0:00:04.0",
        "000g:00:04.0",
        "00:04.0\n",
    ):
        assert parse_address(wrong) is None


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFF), st.integers(0, 0x1F), st.integers(0, 7))
def test_every_address_is_its_own_form(domain: int, bus: int, device: int, function: int) -> None:
    address = f"{domain:04x}:{bus:02x}:{device:02x}.{function}"
    assert parse_address(address) == address == parse_address(address.upper())


@given(st.text())
def test_no_text_whatever_breaks_the_address_parser(text: str) -> None:
    parse_address(text)


@given(st.text())
def test_a_resource_file_is_parsed_or_refused(text: str) -> None:
    try:
        bars = parse_resources(text)
    except ValueError:
        return
    assert all(0 <= bar.index <= 5 and bar.size > 0 for bar in bars)


def test_a_resource_file_cut_short_is_refused() -> None:
    text = recorded("edu")[1]
    with pytest.raises(ValueError, match="line 1 of a resource file"):
        parse_resources(text[:30])


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A function's directory as plain files, which suffice for code that never reaches a device."""
    content, resource = recorded("edu")
    (tmp_path / "config").write_bytes(content)
    (tmp_path / "resource").write_text(resource)
    return tmp_path


def test_a_closed_configuration_space(directory: Path) -> None:
    config = ConfigSpace(directory)
    assert config.vendor_id == 0x1234
    assert config.bars()[0].size == 0x100000
    config.close()
    config.close()
    for use in (
        lambda: config.vendor_id,
        lambda: config.write8(0x3C, 1),
        config.bars,
        config.fileno,
        config.capabilities,
    ):
        with pytest.raises(ClosedError, match="is closed"):
            use()


def test_a_function_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DeviceRemovedError, match="there is no such device"):
        ConfigSpace(tmp_path / "0000:00:09.0")


def test_masking_and_the_owner_keep_each_others_bits(directory: Path) -> None:
    def register() -> Command:
        return Command(int.from_bytes((directory / "config").read_bytes()[4:6], "little"))

    config = ConfigSpace(directory)
    reader, writer = os.pipe()

    def free(native: Any, _kept: object = config.command_register) -> None:  # freeing masks by it
        lib.pyuio_interrupt_free(native)

    native = ffi.gc(lib.pyuio_interrupt_new(reader, 0), free)  # owns the reader from here on
    lib.pyuio_interrupt_mask_by_command(native, config.command_register.native)
    before = register()
    assert lib.pyuio_interrupt_mask(native) == 0
    assert register() == before | Command.INTERRUPT_DISABLE
    config.change_command(set=Command.BUS_MASTER)
    assert register() == before | Command.INTERRUPT_DISABLE | Command.BUS_MASTER
    assert lib.pyuio_interrupt_unmask(native) == 0
    assert register() == before | Command.BUS_MASTER
    with config.unlocked():
        config.write16(0x04, Command.MEMORY_SPACE)
    assert lib.pyuio_interrupt_mask(native) == 0
    assert register() == Command.MEMORY_SPACE | Command.INTERRUPT_DISABLE
    config.change_command(clear=Command.INTERRUPT_DISABLE)
    assert not lib.pyuio_interrupt_is_masked(native)
    config.close()
    assert lib.pyuio_interrupt_mask(native) == 0, "masking outlives the owner's file"
    assert Command.INTERRUPT_DISABLE in register()
    config.command_register.close()
    config.command_register.close()
    assert lib.pyuio_interrupt_unmask(native) == -errno.ENODEV
    assert Command.INTERRUPT_DISABLE in register(), "nothing is written any more"
    os.close(writer)


def test_closing_and_writing_never_touch_another_file(directory: Path, tmp_path: Path) -> None:
    """A descriptor's number is soon somebody else's: a write must not come after the close."""
    victim = tmp_path / "victim"
    for _ in range(100):
        config = ConfigSpace(directory)
        done = threading.Event()

        def write(config: ConfigSpace = config, done: threading.Event = done) -> None:
            try:
                with config.unlocked():
                    while True:
                        config.write8(0x3C, 0x5A)
            except ClosedError:
                done.set()

        thread = threading.Thread(target=write)
        thread.start()
        config.close()
        with victim.open("wb", buffering=0):
            thread.join(10)
        assert done.is_set()
        assert victim.read_bytes() == b""


def test_bits_of_a_register_are_printed_by_name_and_as_a_number() -> None:
    both = Command.IO_SPACE | Command.MEMORY_SPACE
    assert f"{both}" == str(both) == "IO_SPACE|MEMORY_SPACE"
    assert f"{both:#06x}" == "0x0003"
    assert f"{Command(0)}" == "0"
