# SPDX-License-Identifier: MIT
"""Which bytes of a configuration space a driver may write without unlocking; on plain files, without any device."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyuio.errors import ConfigLockedError
from pyuio.pci import ConfigImage
from pyuio.pci.config_guard import owned, what_is_at
from pyuio.pci.config_space import ConfigSpace
from tests.unit.test_pci import recorded

STANDARD, EXPRESS, EXTENDED = 0x50, 0x60, 0x180


def with_vendor_specific(standard_length: int = 0x10, extended_length: int = 0x20) -> bytes:
    """An edu's configuration space, but of PCI Express, with one vendor-specific capability of each kind."""
    image = bytearray(4096)
    image[:256] = recorded("edu")[0][:256]
    following = image[0x41]
    image[0x41] = STANDARD  # after MSI at 0x40
    image[STANDARD : STANDARD + 3] = bytes([0x09, EXPRESS, standard_length])
    image[EXPRESS : EXPRESS + 2] = bytes([0x10, following])
    image[0x100:0x104] = (0x0001 | 2 << 16 | EXTENDED << 20).to_bytes(4, "little")
    image[EXTENDED : EXTENDED + 4] = (0x000B | 1 << 16).to_bytes(4, "little")
    image[EXTENDED + 4 : EXTENDED + 8] = (0x1234 | extended_length << 20).to_bytes(4, "little")
    return bytes(image)


@pytest.fixture
def config(tmp_path: Path) -> ConfigSpace:
    (tmp_path / "config").write_bytes(with_vendor_specific())
    return ConfigSpace(tmp_path)


def test_a_driver_owns_vendor_specific_capabilities(config: ConfigSpace) -> None:
    assert owned(config) == [range(0x53, 0x60), range(0x188, 0x1A0)]
    config.write8(0x53, 0xA5)
    config.write32(0x5C, 0x12345678)
    config.write16(0x19E, 0xBEEF)
    assert (config.read8(0x53), config.read32(0x5C), config.read16(0x19E)) == (0xA5, 0x12345678, 0xBEEF)
    for offset in (0x50, 0x52, 0x60, 0x180, 0x184, 0x1A0):
        with pytest.raises(ConfigLockedError, match="would change"):
            config.write16(offset, 0)


@pytest.mark.parametrize(
    ("offset", "width", "what"),
    [
        (0x04, 2, r"the command register; .*change_command\(\)"),
        (0x04, 4, "the command register"),
        (0x06, 2, "the status register"),
        (0x10, 4, "a BAR"),
        (0x24, 1, "a BAR"),
        (0x30, 4, "expansion ROM"),
        (0x3C, 1, "the header"),
        (0x44, 4, "before them is MSI at 0x40"),
    ],
)
def test_what_it_would_change_is_named(config: ConfigSpace, offset: int, width: int, what: str) -> None:
    before = config.read(0, config.size)
    write = {1: config.write8, 2: config.write16, 4: config.write32}[width]
    with pytest.raises(ConfigLockedError, match=rf"{what}.*with config\.unlocked\(\)"):
        write(offset, 0)
    assert config.read(0, config.size) == before
    with config.unlocked() as unlocked:
        assert unlocked is config
    with pytest.raises(ConfigLockedError):
        write(offset, 0)


def test_unlocked_is_for_one_thread_and_nests(config: ConfigSpace) -> None:
    refused: list[BaseException] = []

    def write_elsewhere() -> None:
        try:
            config.write32(0x10, 0)
        except ConfigLockedError as error:
            refused.append(error)

    with config.unlocked():
        with config.unlocked():
            pass
        config.write32(0x10, 0xFEB00000)
        thread = threading.Thread(target=write_elsewhere)
        thread.start()
        thread.join()
    assert len(refused) == 1
    assert config.read32(0x10) == 0xFEB00000


def test_a_bridge_has_no_six_bars() -> None:
    bridge = ConfigImage(recorded("pcie-root-port")[0])
    assert what_is_at(bridge, 0x18, 4) == ("the header, which is the kernel's", "")  # bus numbers
    assert what_is_at(bridge, 0x04, 2)[0] == "the command register"


@given(st.integers(0, 255), st.integers(0, 0xFFF))
def test_absurd_lengths_own_nothing_outside(standard: int, extended: int) -> None:
    image = ConfigImage(with_vendor_specific(standard, extended))
    for one in owned(image):
        assert one.stop <= image.size
        assert all(offset >= 0x53 for offset in one)


@given(st.binary(min_size=256, max_size=256) | st.binary(min_size=64, max_size=64))
def test_no_content_breaks_it(content: bytes) -> None:
    image = ConfigImage(content)
    assert all(one.stop <= image.size for one in owned(image))
    for offset in range(0, image.size, 4):
        assert what_is_at(image, offset, 4)[0]
