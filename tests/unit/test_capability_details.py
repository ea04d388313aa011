# SPDX-License-Identifier: MIT
"""The decoded registers of capabilities, in recorded configuration spaces and in damaged ones."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pyuio.pci import ConfigImage, Status
from pyuio.pci.capabilities import Capability
from pyuio.pci.capability_details import details
from pyuio.pci.virtualised import virtualised
from tests.unit.test_pci import image


def all_details(config: ConfigImage) -> dict[str, object]:
    found = (*config.capabilities(), *config.extended_capabilities())
    return {capability.name: details(config, capability) for capability in found}


def test_e1000e() -> None:
    """Intel 82574 data sheet, section 9.1."""
    assert all_details(image("e1000e")) == {
        "Power Management": {"version": 2, "state": "D0"},
        "MSI": {"enabled": False, "messages": 1, "messages_enabled": 1, "address_bits": 64, "maskable": False},
        "Express": {
            "version": 1,
            "port": "Endpoint",
            "payload": 128,
            "maximum_payload": 128,
            "read_request": 128,
            "function_level_reset": False,
        },
        "MSI-X": {
            "enabled": False,
            "masked": False,
            "messages": 5,
            "table_bar": 3,
            "table_offset": 0,
            "pending_bar": 3,
            "pending_offset": 0x2000,
        },
        "Advanced Error Reporting": {},
        "Device Serial Number": {"serial_number": "52-54-00-ff-ff-12-34-56"},
    }


def test_a_root_port() -> None:
    found = all_details(image("pcie-root-port"))
    express = found["Express"]
    assert isinstance(express, dict)
    assert express["port"] == "Root Port"
    assert found["Subsystem"] == {"ids": "1b36:0000"}


def with_capability(offset: int, content: bytes, size: int = 256) -> ConfigImage:
    image = bytearray(size)
    image[0x06] = Status.CAPABILITIES_LIST
    image[0x34] = offset
    image[offset : offset + len(content)] = content[: size - offset]
    return ConfigImage(bytes(image))


def test_msi_with_all_it_can_have() -> None:
    config = with_capability(0x40, bytes([0x05, 0, 0b0101_1011, 0b1]))
    (capability,) = config.capabilities()
    assert details(config, capability) == {
        "enabled": True,
        "messages": 32,
        "messages_enabled": 32,
        "address_bits": 32,
        "maskable": True,
    }


def test_msi_x_with_all_it_can_have() -> None:
    config = with_capability(0x40, bytes([0x11, 0, 0xFF, 0xC7]) + (0x1005).to_bytes(4, "little") + b"\xfa\xff\xff\xff")
    (capability,) = config.capabilities()
    assert details(config, capability) == {
        "enabled": True,
        "masked": True,
        "messages": 2048,
        "table_bar": 5,
        "table_offset": 0x1000,
        "pending_bar": 2,
        "pending_offset": 0xFFFFFFF8,
    }


def test_virtual_functions_and_vendor_specific() -> None:
    content = bytearray(4096)
    content[0x06], content[0x34], content[0x40] = Status.CAPABILITIES_LIST, 0x40, 0x10  # PCI Express
    content[0x100:0x114] = (
        (0x0010 | 1 << 16 | 0x200 << 20).to_bytes(4, "little") + bytes(4) + b"\1\0\0\0" + b"\7\0\x08\0" + b"\3\0\0\0"
    )
    content[0x200:0x208] = (0x000B | 1 << 16).to_bytes(4, "little") + (0x1234 | 2 << 16 | 0x18 << 20).to_bytes(
        4, "little"
    )
    config = ConfigImage(bytes(content))
    assert [details(config, capability) for capability in config.extended_capabilities()] == [
        {"enabled": True, "initial": 7, "total": 8, "number": 3},
        {"vendor_specific_id": 0x1234, "revision": 2, "length": 0x18},
    ]


def test_a_capability_that_the_image_cuts_off_has_no_details() -> None:
    config = with_capability(0xFC, bytes([0x11, 0, 0, 0]))
    (capability,) = config.capabilities()
    assert (capability.name, details(config, capability)) == ("MSI-X", {})


def test_an_unknown_capability_has_no_details() -> None:
    assert details(image("edu"), Capability(0x7E, "unknown", 0x40)) == {}


@given(st.sampled_from([64, 256, 4096]), st.randoms(use_true_random=False), st.binary(max_size=64))
def test_no_content_whatever_breaks_the_decoders(size: int, random: object, start: bytes) -> None:
    noise = random.randbytes(size)  # type: ignore[attr-defined]
    content = bytearray(start + noise[len(start) :])
    content[0x06] |= Status.CAPABILITIES_LIST
    config = ConfigImage(bytes(content))
    for capability in (*config.capabilities(), *config.extended_capabilities()):
        details(config, capability)


@given(st.integers(0, 0xFF), st.integers(0x40, 0xFC), st.binary(min_size=16, max_size=16))
def test_every_capability_at_every_place(identity: int, offset: int, content: bytes) -> None:
    config = with_capability(offset & 0xFC, bytes([identity, 0]) + content)
    for capability in config.capabilities():
        assert set(map(type, details(config, capability).values())) <= {int, str, bool}


def test_what_vfio_virtualises() -> None:
    """The parts that VFIO has a rule for (vfio_pci_config.c), and nothing of what the function does not have."""
    places = {each.place: each.what for each in virtualised(image("e1000e"))}
    assert list(places)[:3] == ["BARs, expansion ROM", "command", "interrupt line and pin"]
    assert {"Power Management", "MSI", "MSI-X", "Express"} < set(places)
    assert not {"Vital Product Data", "Vendor Specific Information", "Subsystem"} & set(places)
    assert "hidden" not in places.values()
