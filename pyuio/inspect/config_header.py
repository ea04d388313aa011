# SPDX-License-Identifier: MIT
"""The header of a configuration space as named registers, for tools that compare configuration spaces.

Source: PCI Local Bus Specification 3.0, section 6.1 and appendix D (the type 0 header).
"""

from __future__ import annotations

from pyuio.registers.fields import Field
from pyuio.registers.register import Register
from pyuio.registers.register_map import Array, RegisterMap


class CommandRegister(Register, width=16, access="ro"):
    """Section 6.2.2."""

    io_space = Field(0)
    memory_space = Field(1)
    bus_master = Field(2)
    special_cycles = Field(3)
    memory_write_and_invalidate = Field(4)
    vga_palette_snoop = Field(5)
    parity_error_response = Field(6)
    serr_enable = Field(8)
    fast_back_to_back_enable = Field(9)
    interrupt_disable = Field(10)


class StatusRegister(Register, width=16, access="ro"):
    """Section 6.2.3."""

    interrupt_status = Field(3)
    capabilities_list = Field(4)
    mhz_66_capable = Field(5)
    fast_back_to_back_capable = Field(7)
    master_data_parity_error = Field(8)
    devsel_timing = Field(10, 9)
    signaled_target_abort = Field(11)
    received_target_abort = Field(12)
    received_master_abort = Field(13)
    signaled_system_error = Field(14)
    detected_parity_error = Field(15)


class CommonHeader(RegisterMap):
    """The first 16 bytes, which all headers share."""

    vendor_id = Register(0x00, width=16, access="ro")
    device_id = Register(0x02, width=16, access="ro")
    command = CommandRegister(0x04)
    status = StatusRegister(0x06)
    revision_id = Register(0x08, width=8, access="ro")
    interface = Register(0x09, width=8, access="ro")
    subclass = Register(0x0A, width=8, access="ro")
    base_class = Register(0x0B, width=8, access="ro")
    cache_line_size = Register(0x0C, width=8, access="ro")
    latency_timer = Register(0x0D, width=8, access="ro")
    header_type = Register(0x0E, width=8, access="ro")
    bist = Register(0x0F, width=8, access="ro")


class DeviceHeader(CommonHeader):
    """The type 0 header, 64 bytes, of all functions but bridges."""

    bar = Array(Register(0x10, width=32, access="ro"), 6)
    cardbus_cis_pointer = Register(0x28, access="ro")
    subsystem_vendor_id = Register(0x2C, width=16, access="ro")
    subsystem_id = Register(0x2E, width=16, access="ro")
    expansion_rom = Register(0x30, access="ro")
    capabilities_pointer = Register(0x34, width=8, access="ro")
    interrupt_line = Register(0x3C, width=8, access="ro")
    interrupt_pin = Register(0x3D, width=8, access="ro")
    min_gnt = Register(0x3E, width=8, access="ro")
    max_lat = Register(0x3F, width=8, access="ro")


def header_of(image: bytes) -> type[RegisterMap]:
    """Return the registers that a configuration space has at its beginning, by its header type."""
    return DeviceHeader if image[0x0E] & 0x7F == 0 else CommonHeader
