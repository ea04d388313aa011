# SPDX-License-Identifier: MIT
"""The registers and the descriptors of the DMA engine that Xilinx calls XDMA, by name.

The data sheet is the "DMA/Bridge Subsystem for PCI Express Product Guide" (PG195), version 4.2. A "section" is one of
it, and has the name that the comment gives. Names of registers and fields are the guide's, in lower case. H2C is
host to card, C2H card to host.
"""

from __future__ import annotations

import enum

from pyuio import Array, Field, FieldArray, Register, RegisterMap

SUBSYSTEM = 0x1FC
"""The upper 12 bits of each identifier."""
CHANNELS = 4
"""How many channels each direction has at most."""
USER_INTERRUPTS = 16
"""How many user interrupts there are at most: the width of usr_irq_req."""
SMALLEST_BAR = 0x8000
"""Bytes that the BAR has at least. It has 64 KiB where MSI-X has its table in it, at 0x8000."""

# What follows is in memory. Section "Descriptors", table "Descriptor Format".
DESCRIPTOR_SIZE = 32
DESCRIPTOR_FIELDS = {
    "control": (0x00, 32),  # magic, nxt_adj and control
    "len": (0x04, 32),  # bytes, 28 bits
    "src_adr": (0x08, 64),
    "dst_adr": (0x10, 64),
    "nxt_adr": (0x18, 64),
}
DESCRIPTOR_MAGIC = 0xAD4B << 16
LARGEST_LENGTH = (1 << 28) - 1
ADJACENT_DESCRIPTORS = 64
"""How many descriptors one fetch can take: nxt_adj and dsc_adj say in 6 bits how many follow the first."""
PAGE = 4096
"""Adjacent descriptors do not cross a multiple of this address."""

# Section "Poll Mode", table "Completed Descriptor Count Writeback Fields". Bit 31 is set if there was an error.
WRITE_BACK_COUNT = (1 << 24) - 1

# Section "DMA C2H Stream", table "C2H Stream Writeback Fields": two words of 32 bits.
STREAM_MAGIC = 0x52B4 << 16
STREAM_END_OF_PACKET = 1 << 0


class DescriptorControl(enum.IntFlag):
    """The control bits of a descriptor."""

    STOP = 1 << 0  # the engine stops after it
    COMPLETED = 1 << 1  # its completion sets descriptor_completed, and writes the count back
    END_OF_PACKET = 1 << 4  # H2C streams: the packet ends with it


class Target(enum.IntEnum):
    """A part of the register space: section "PCIe to DMA Address Format"."""

    H2C = 0
    C2H = 1
    IRQ = 2
    CONFIG = 3
    H2C_SGDMA = 4
    C2H_SGDMA = 5
    SGDMA_COMMON = 6


class Identifier(Register, access="ro"):
    """Who answers: "H2C Channel Identifier (0x00)", and 0x00 of each other part."""

    subsystem = Field(31, 20, doc="0x1fc")
    target = Field(19, 16, doc="which part it is: Target")
    stream = Field(15, doc="1: AXI4-Stream; 0: AXI4 memory mapped; of channels only")
    channel = Field(11, 8, doc="number of the channel; of channels only")
    version = Field(7, 0, doc="6 is 2017.1 and later")


class ChannelControl(Register):
    """Sections "H2C Channel Control (0x04)", "C2H Channel Control (0x04)".

    What has an ie bit is logged in the status only where that is set.
    """

    run = Field(0, doc="1 starts the engine; 0 stops it when the current descriptor is complete")
    ie_descriptor_stopped = Field(1)
    ie_descriptor_completed = Field(2)
    ie_align_mismatch = Field(3)
    ie_magic_stopped = Field(4)
    ie_invalid_length = Field(5)
    ie_idle_stopped = Field(6)
    ie_read_error = Field(13, 9, doc="all 1: log it, and stop the engine")
    ie_write_error = Field(18, 14, doc="H2C only")
    ie_descr_error = Field(23, 19)
    non_inc_mode = Field(25, doc="do not increment the address on the card")
    pollmode_wb_enable = Field(26, doc="write the count of completed descriptors to memory")
    stream_wb_disable = Field(27, doc="C2H streams: no write-back of length and end of packet")


class ChannelStatus(Register, access="w1c"):
    """Sections "H2C Channel Status (0x40)", "C2H Channel Status (0x40)". Setting control.run clears all but busy."""

    busy = Field(0, access="ro")
    descriptor_stopped = Field(1, doc="a descriptor with STOP is complete")
    descriptor_completed = Field(2, doc="a descriptor with COMPLETED is complete")
    align_mismatch = Field(3, doc="source and destination are not aligned to each other")
    magic_stopped = Field(4, doc="a descriptor without the magic number")
    invalid_length = Field(5, doc="streams: the length is no multiple of the data width")
    idle_stopped = Field(6, doc="the engine is idle after control.run was cleared")
    read_error = Field(13, 9, doc="see pyuio_drivers.xdma_errors")
    write_error = Field(18, 14, doc="H2C only")
    descr_error = Field(23, 19, doc="of the fetch of a descriptor")


class Alignments(Register, access="ro"):
    """Section "H2C Channel Alignments (0x4C)". 0 as a whole stands for no restriction."""

    addr_alignment = Field(23, 16, doc="bytes to which source and destination are aligned")
    len_granularity = Field(15, 8, doc="bytes that a length is a multiple of")
    address_bits = Field(7, 0)


class ChannelRegisters(RegisterMap, width=32):
    """One channel: sections "H2C Channel Registers (0x0)", "C2H Channel Registers (0x1)"."""

    identifier = Identifier(0x00)
    control = ChannelControl(0x04)
    control_w1s = ChannelControl(0x08, access="wo1s", doc="sets bits of control")
    control_w1c = ChannelControl(0x0C, access="wo1c", doc="clears bits of control")
    status = ChannelStatus(0x40)
    status_rc = ChannelStatus(0x44, access="rc", doc="status, cleared by reading")
    completed_descriptor_count = Register(0x48, access="ro", doc="since control.run was set")
    alignments = Alignments(0x4C)
    poll_mode_write_back = Register(0x88, width=64, access_width=32, doc="address of the count, aligned to 32 bits")
    interrupt_enable = ChannelStatus(0x90, access="rw", doc="bits of the status that interrupt")
    interrupt_enable_w1s = ChannelStatus(0x94, access="wo1s")
    interrupt_enable_w1c = ChannelStatus(0x98, access="wo1c")
    performance_control = Register(0xC0)
    performance_cycles = Register(0xC4, width=64, access_width=32, access="ro")
    performance_data = Register(0xCC, width=64, access_width=32, access="ro", doc="beats of data")


class SgdmaRegisters(RegisterMap, width=32):
    """A channel's descriptors: sections "H2C SGDMA Registers (0x4)", "C2H SGDMA Registers (0x5)"."""

    identifier = Identifier(0x00)
    descriptor_address = Register(0x80, width=64, access_width=32, doc="of the first descriptor")
    descriptor_adjacent = Register(0x88, doc="how many descriptors follow the first at once, 0 to 63")
    descriptor_credits = Register(0x8C)


class VectorNumbers(Register):
    """Four vector numbers: "IRQ Block User Vector Number (0x80)", "IRQ Block Channel Vector Number (0xA0)"."""

    vector = FieldArray(Field(4, 0), 4, stride=8)


class IrqBlock(RegisterMap, width=32):
    """Section "IRQ Block Registers (0x2)". The bits of H2C channels begin at 0; C2H's follow the last of them."""

    identifier = Identifier(0x00)
    user_enable = Register(0x04, doc="a bit for each user interrupt")
    user_enable_w1s = Register(0x08, access="wo1s")
    user_enable_w1c = Register(0x0C, access="wo1c")
    channel_enable = Register(0x10, doc="a bit for each channel")
    channel_enable_w1s = Register(0x14, access="wo1s")
    channel_enable_w1c = Register(0x18, access="wo1c")
    user_request = Register(0x40, access="ro", doc="usr_irq_req, where enabled")
    channel_request = Register(0x44, access="ro", doc="channels that request an interrupt, where enabled")
    user_pending = Register(0x48, access="ro", doc="events, until the user's logic takes their cause away")
    channel_pending = Register(0x4C, access="ro")
    user_vector = Array(VectorNumbers(0x80), 4)
    channel_vector = Array(VectorNumbers(0xA0), 2)


class MsiEnable(Register, access="ro"):
    """Section "Config Block MSI Enable (0x14)"."""

    msi = Field(0)
    msix = Field(1)


class PcieControl(Register):
    """Section "Config PCIE Control (0x1C)"."""

    relaxed_ordering = Field(0)


class ConfigBlock(RegisterMap, width=32):
    """Section "Config Block Registers (0x3)"."""

    identifier = Identifier(0x00)
    bus_dev = Register(0x04, access="ro", doc="bus, device and function")
    pcie_max_payload = Register(0x08, access="ro", doc="128 << n bytes")
    pcie_max_read_request = Register(0x0C, access="ro", doc="128 << n bytes")
    system_id = Register(0x10, access="ro")
    msi_enable = MsiEnable(0x14)
    pcie_data_width = Register(0x18, access="ro", doc="64 << n bits")
    pcie_control = PcieControl(0x1C)
    user_max_payload = Register(0x40)
    user_max_read_request = Register(0x44)
    write_flush_timeout = Register(0x60)


class SgdmaCommon(RegisterMap, width=32):
    """Section "SGDMA Common Registers (0x6)": a bit for each H2C channel, and from bit 16 on for each C2H channel."""

    identifier = Identifier(0x00)
    descriptor_control = Register(0x10, doc="halts the fetching of descriptors")
    descriptor_control_w1s = Register(0x14, access="wo1s")
    descriptor_control_w1c = Register(0x18, access="wo1c")
    credit_mode_enable = Register(0x20)
    credit_mode_enable_w1s = Register(0x24, access="wo1s")
    credit_mode_enable_w1c = Register(0x28, access="wo1c")


class XdmaRegisters(RegisterMap, width=32):
    """The BAR of the engine: section "PCIe to DMA Address Format". All registers take accesses of 32 bits."""

    h2c = Array(ChannelRegisters.at(0x0000), CHANNELS, stride=0x100)
    c2h = Array(ChannelRegisters.at(0x1000), CHANNELS, stride=0x100)
    irq = IrqBlock.at(0x2000)
    config = ConfigBlock.at(0x3000)
    h2c_sgdma = Array(SgdmaRegisters.at(0x4000), CHANNELS, stride=0x100)
    c2h_sgdma = Array(SgdmaRegisters.at(0x5000), CHANNELS, stride=0x100)
    sgdma_common = SgdmaCommon.at(0x6000)
