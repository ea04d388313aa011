# SPDX-License-Identifier: MIT
"""The registers of the Intel 82574L by name: BAR 0, data sheet 317694, chapter 10.

Registers and fields have the data sheet's abbreviations in lower case: ``registers.status.lu`` is STATUS.LU. All are 32
bits wide, and take accesses of 32 bits only (section 10.1).
"""

from __future__ import annotations

import enum

from pyuio import Array, Field, Register, RegisterMap

ALL_ONES = 0xFFFFFFFF
"""What a 32-bit read gives when no device answers it."""


class Speed(enum.IntEnum):
    """STATUS.SPEED; both last values are 1000 Mb/s."""

    MBPS_10 = 0
    MBPS_100 = 1
    MBPS_1000 = 2
    MBPS_1000_TOO = 3


class DeviceControl(Register):
    """Device Control, section 10.2.2.1."""

    fd = Field(0, doc="Full Duplex")
    gio_master_disable = Field(2, doc="no more requests to memory")
    slu = Field(6, doc="Set Link Up: let the MAC see the PHY's link")
    frcspd = Field(11, doc="Force Speed")
    frcdplx = Field(12, doc="Force Duplex")
    rst = Field(26, doc="Device Reset; clears itself")
    rfce = Field(27, doc="Receive Flow Control Enable")
    tfce = Field(28, doc="Transmit Flow Control Enable")
    vme = Field(30, doc="VLAN Mode Enable: strip tags of received frames, and insert them where a descriptor says so")
    phy_rst = Field(31, doc="PHY Reset")


class DeviceStatus(Register, access="ro"):
    """Device Status, section 10.2.2.2."""

    fd = Field(0, doc="Full Duplex")
    lu = Field(1, doc="Link Up")
    txoff = Field(4, doc="Transmission Paused, by flow control")
    speed = Field(7, 6, Speed)
    phyra = Field(10, doc="PHY Reset Asserted")
    gio_master_enable = Field(19, doc="requests to memory may still come")


class EepromRead(Register):
    """EEPROM Read, section 10.2.2.4."""

    start = Field(0)
    done = Field(1, access="ro")
    addr = Field(15, 2, doc="of a word of 16 bits")
    data = Field(31, 16, access="ro")


class ExtendedDeviceControl(Register):
    """Extended Device Control, section 10.2.2.5."""

    eiame = Field(24, doc="Extended Interrupt Auto Mask Enable")
    iame = Field(27, doc="Interrupt Acknowledge Auto-mask Enable")
    drv_load = Field(28, doc="Driver Loaded: for the management firmware")
    int_timers_clear_ena = Field(29, doc="Interrupt Timers Clear Enable")
    pba_support = Field(31, doc="Pending Bit Array Support")


class MdiOperation(enum.IntEnum):
    """MDIC.OP."""

    NONE = 0
    WRITE = 1
    READ = 2
    RESERVED = 3


class MdiControl(Register):
    """MDI Control, through which the PHY's registers are reached: section 10.2.2.7."""

    data = Field(15, 0)
    regadd = Field(20, 16, doc="PHY Register Address")
    phyadd = Field(25, 21, doc="PHY Address")
    op = Field(27, 26, MdiOperation)
    r = Field(28, doc="Ready")
    i = Field(29, doc="Interrupt Enable")
    e = Field(30, doc="Error")


class InterruptCauses(Register):
    """The causes of an interrupt: ICR, ICS, IMS and IMC, section 10.2.4.1."""

    txdw = Field(0, doc="Transmit Descriptor Written Back")
    txqe = Field(1, doc="Transmit Queue Empty")
    lsc = Field(2, doc="Link Status Change")
    rxdmt0 = Field(4, doc="Receive Descriptor Minimum Threshold Reached")
    rxo = Field(6, doc="Receiver Overrun")
    rxt0 = Field(7, doc="Receiver Timer: frames were received")
    mdac = Field(9, doc="MDI/O Access Complete")
    srpd = Field(16, doc="Small Receive Packet Detected")
    ack = Field(17, doc="Receive ACK Frame Detected")
    mng = Field(18, doc="Manageability Event Detected")
    rxq0 = Field(20, doc="Receive Queue 0, with MSI-X")
    rxq1 = Field(21, doc="Receive Queue 1, with MSI-X")
    txq0 = Field(22, doc="Transmit Queue 0, with MSI-X")
    txq1 = Field(23, doc="Transmit Queue 1, with MSI-X")
    other = Field(24, doc="any other cause, with MSI-X")
    int_asserted = Field(31)


class InterruptThrottling(Register):
    """Interrupt Throttling, sections 10.2.4.2 and 10.2.4.3."""

    interval = Field(15, 0, doc="between interrupts, in units of 256 ns; 0: none")


class InterruptVectorAllocation(Register):
    """Interrupt Vector Allocation, section 10.2.4.9; valid with MSI-X only."""

    rxq0 = Field(2, 0, doc="vector of receive queue 0")
    rxq0_valid = Field(3)
    rxq1 = Field(6, 4, doc="vector of receive queue 1")
    rxq1_valid = Field(7)
    txq0 = Field(10, 8, doc="vector of transmit queue 0")
    txq0_valid = Field(11)
    txq1 = Field(14, 12, doc="vector of transmit queue 1")
    txq1_valid = Field(15)
    other = Field(18, 16, doc="vector of other causes")
    other_valid = Field(19)
    int_on_all_wb = Field(31, doc="interrupt with each write-back of a transmit descriptor")


class ReceiveControl(Register):
    """Receive Control, section 10.2.5.1."""

    en = Field(1, doc="Receiver Enable")
    sbp = Field(2, doc="Store Bad Packets")
    upe = Field(3, doc="Unicast Promiscuous Enable")
    mpe = Field(4, doc="Multicast Promiscuous Enable")
    lpe = Field(5, doc="Long Packet Enable: receive frames of more than 1522 bytes")
    lbm = Field(7, 6, doc="Loopback Mode")
    rdmts = Field(9, 8, doc="Receive Descriptor Minimum Threshold Size")
    dtyp = Field(11, 10, doc="Descriptor Type; 0: one buffer each")
    mo = Field(13, 12, doc="Multicast Offset: which bits of an address MTA is looked up by")
    bam = Field(15, doc="Broadcast Accept Mode")
    bsize = Field(17, 16, doc="Receive Buffer Size; 0: 2048 bytes, without BSEX")
    vfe = Field(18, doc="VLAN Filter Enable")
    bsex = Field(25, doc="Buffer Size Extension")
    secrc = Field(26, doc="Strip the Ethernet CRC")


class ReceiveChecksumControl(Register):
    """Receive Checksum Control, section 10.2.5.15."""

    pcss = Field(7, 0, doc="Packet Checksum Start")
    ipofld = Field(8, doc="IP Checksum Offload Enable")
    tuofld = Field(9, doc="TCP/UDP Checksum Offload Enable")
    pcsd = Field(13, doc="Packet Checksum Disable: the descriptor has the RSS hash in its place")


class ReceiveFilterControl(Register):
    """Receive Filter Control, section 10.2.5.16."""

    iscsi_dis = Field(0)
    nfsw_dis = Field(6)
    nfsr_dis = Field(7)
    ipv6_dis = Field(10, doc="IPv6 Disable")
    ipv6_xsum_dis = Field(11, doc="IPv6 XSUM Disable")
    ackdis = Field(12, doc="ACK Accelerate Disable")
    exsten = Field(15, doc="Extended Status Enable: extended receive descriptors, section 7.1.4")


class ReceiveAddressHigh(Register):
    """Receive Address High, section 10.2.5.23."""

    rah = Field(15, 0, doc="bytes 4 and 5 of the address")
    asel = Field(17, 16, doc="Address Select; 0: destination")
    av = Field(31, doc="Address Valid")


class ReceiveAddress(RegisterMap):
    """One address whose frames are received, byte 0 in the lowest byte of RAL."""

    ral = Register(0x0, doc="bytes 0 to 3 of the address, section 10.2.5.22")
    rah = ReceiveAddressHigh(0x4)


class TransmitControl(Register):
    """Transmit Control, section 10.2.6.1."""

    en = Field(1, doc="Transmit Enable")
    psp = Field(3, doc="Pad Short Packets, to 64 bytes with the CRC")
    ct = Field(11, 4, doc="Collision Threshold")
    cold = Field(21, 12, doc="Collision Distance")
    rtlc = Field(24, doc="Re-transmit on Late Collision")


class TransmitInterPacketGap(Register):
    """Transmit Inter-Packet Gap, section 10.2.6.2."""

    ipgt = Field(9, 0)
    ipgr1 = Field(19, 10)
    ipgr2 = Field(29, 20)


class DescriptorControl(Register):
    """Transmit and Receive Descriptor Control: when descriptors are fetched and written back, section 10.2.6.10."""

    pthresh = Field(5, 0, doc="Prefetch Threshold")
    hthresh = Field(13, 8, doc="Host Threshold")
    wthresh = Field(21, 16, doc="Write-back Threshold")
    gran = Field(24, doc="Granularity of the thresholds; 1: descriptors")


class Statistics(RegisterMap):
    """Counters, which a read clears, and which stay at their highest value: section 10.2.7."""

    crcerrs = Register(0x00, access="rc", doc="CRC Errors")
    rxerrc = Register(0x0C, access="rc", doc="Receive Errors: the PHY saw a bad symbol")
    mpc = Register(0x10, access="rc", doc="Missed Packets: there was no room in the card's memory")
    colc = Register(0x28, access="rc", doc="Collisions")
    rlec = Register(0x40, access="rc", doc="Receive Length Errors")
    gprc = Register(0x74, access="rc", doc="Good Packets Received")
    bprc = Register(0x78, access="rc", doc="Broadcast Packets Received")
    mprc = Register(0x7C, access="rc", doc="Multicast Packets Received")
    gptc = Register(0x80, access="rc", doc="Good Packets Transmitted")
    gorcl = Register(0x88, access="rc", doc="Good Octets Received, lower half")
    gorch = Register(0x8C, access="rc", doc="Good Octets Received, upper half")
    gotcl = Register(0x90, access="rc", doc="Good Octets Transmitted, lower half")
    gotch = Register(0x94, access="rc", doc="Good Octets Transmitted, upper half")
    rnbc = Register(0xA0, access="rc", doc="Receive No Buffers: there was no descriptor")
    ruc = Register(0xA4, access="rc", doc="Receive Undersize")
    roc = Register(0xAC, access="rc", doc="Receive Oversize")
    rjc = Register(0xB0, access="rc", doc="Receive Jabber: too long, and a bad CRC")
    tpr = Register(0xD0, access="rc", doc="Total Packets Received, also those that no filter let pass")
    tpt = Register(0xD4, access="rc", doc="Total Packets Transmitted")


class E1000eRegisters(RegisterMap, width=32):
    """BAR 0, section 10.2, as far as the driver uses it."""

    ctrl = DeviceControl(0x00000)
    status = DeviceStatus(0x00008)
    eerd = EepromRead(0x00014)
    ctrl_ext = ExtendedDeviceControl(0x00018)
    mdic = MdiControl(0x00020)
    vet = Register(0x00038, doc="VLAN Ether Type, section 10.2.2.11")
    icr = InterruptCauses(0x000C0, access="special", doc="Interrupt Cause Read; writing 1 clears")
    itr = InterruptThrottling(0x000C4)
    ics = InterruptCauses(0x000C8, access="wo", doc="Interrupt Cause Set, section 10.2.4.4")
    ims = InterruptCauses(0x000D0, access="w1s", doc="Interrupt Mask Set/Read, section 10.2.4.5")
    imc = InterruptCauses(0x000D8, access="wo", doc="Interrupt Mask Clear, section 10.2.4.6")
    eiac = InterruptCauses(0x000DC, doc="Extended Interrupt Auto Clear, section 10.2.4.7")
    iam = InterruptCauses(0x000E0, doc="Interrupt Acknowledge Auto Mask, section 10.2.4.8")
    ivar = InterruptVectorAllocation(0x000E4)
    eitr = Array(InterruptThrottling(0x000E8), 5)
    rctl = ReceiveControl(0x00100)
    tctl = TransmitControl(0x00400)
    tipg = TransmitInterPacketGap(0x00410)
    eewr = EepromRead(0x0102C, access="rw", doc="EEPROM Write: START, ADDR and DATA as in EERD")
    rdbal = Register(0x02800, doc="Receive Descriptor Base Address, lower half, section 10.2.5.5")
    rdbah = Register(0x02804, doc="Receive Descriptor Base Address, upper half, section 10.2.5.6")
    rdlen = Register(0x02808, doc="Receive Descriptor Length, bytes of the ring, section 10.2.5.7")
    rdh = Register(0x02810, doc="Receive Descriptor Head, section 10.2.5.8")
    rdt = Register(0x02818, doc="Receive Descriptor Tail, section 10.2.5.9")
    rdtr = Register(0x02820, doc="Receive Interrupt Delay Timer, section 10.2.5.10")
    rxdctl = DescriptorControl(0x02828)
    radv = Register(0x0282C, doc="Receive Interrupt Absolute Delay Timer, section 10.2.5.12")
    tdbal = Register(0x03800, doc="Transmit Descriptor Base Address, lower half, section 10.2.6.4")
    tdbah = Register(0x03804, doc="Transmit Descriptor Base Address, upper half, section 10.2.6.5")
    tdlen = Register(0x03808, doc="Transmit Descriptor Length, bytes of the ring, section 10.2.6.6")
    tdh = Register(0x03810, doc="Transmit Descriptor Head, section 10.2.6.7")
    tdt = Register(0x03818, doc="Transmit Descriptor Tail, section 10.2.6.8")
    tidv = Register(0x03820, doc="Transmit Interrupt Delay Value, section 10.2.6.9")
    txdctl = DescriptorControl(0x03828)
    statistics = Statistics.at(0x04000)
    rxcsum = ReceiveChecksumControl(0x05000)
    rfctl = ReceiveFilterControl(0x05008)
    mta = Array(Register(0x05200, doc="Multicast Table Array, section 10.2.5.21"), 128)
    ra = Array(ReceiveAddress.at(0x05400), 16)
    vfta = Array(Register(0x05600, doc="VLAN Filter Table Array, section 10.2.5.24"), 128)
