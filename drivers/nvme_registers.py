# SPDX-License-Identifier: MIT
"""The registers of an NVMe controller by name: BAR 0, NVM Express Base Specification 1.4, section 3.1.

Registers and fields have the specification's abbreviations in lower case: ``registers.csts.rdy`` is CSTS.RDY.
"""

from __future__ import annotations

import enum

from pyuio import Array, Field, Register, RegisterMap

ALL_ONES = 0xFFFFFFFF
"""What a 32-bit read gives when no device answers it."""
QUEUE_PAIRS = 17
"""How many queue pairs have named doorbells: the admin queue, and as many I/O queues as the driver creates."""


class ControllerCapabilities(Register, width=64, access="ro"):
    """Controller Capabilities, section 3.1.1."""

    mqes = Field(15, 0, doc="Maximum Queue Entries Supported, less 1")
    cqr = Field(16, doc="Contiguous Queues Required")
    ams = Field(18, 17, doc="Arbitration Mechanism Supported")
    to = Field(31, 24, doc="Timeout: how long CSTS.RDY may take to follow CC.EN, in units of 500 ms")
    dstrd = Field(35, 32, doc="Doorbell Stride: 2^(2 + DSTRD) bytes")
    nssrs = Field(36, doc="NVM Subsystem Reset Supported")
    css = Field(44, 37, doc="Command Sets Supported; bit 0: the NVM command set")
    bps = Field(45, doc="Boot Partition Support")
    mpsmin = Field(51, 48, doc="Memory Page Size Minimum: 2^(12 + MPSMIN) bytes")
    mpsmax = Field(55, 52, doc="Memory Page Size Maximum: 2^(12 + MPSMAX) bytes")
    pmrs = Field(56, doc="Persistent Memory Region Supported")
    cmbs = Field(57, doc="Controller Memory Buffer Supported")


class Version(Register, access="ro"):
    """Version of the specification, section 3.1.2."""

    mjr = Field(31, 16, doc="Major Version Number")
    mnr = Field(15, 8, doc="Minor Version Number")
    ter = Field(7, 0, doc="Tertiary Version Number")


class ShutdownNotification(enum.IntEnum):
    """CC.SHN: how the software shuts the controller down."""

    NONE = 0
    NORMAL = 1
    ABRUPT = 2
    RESERVED = 3


class ShutdownStatus(enum.IntEnum):
    """CSTS.SHST: how far the shutdown is."""

    NORMAL_OPERATION = 0
    OCCURRING = 1
    COMPLETE = 2
    RESERVED = 3


class ControllerConfiguration(Register):
    """Controller Configuration, section 3.1.5."""

    en = Field(0, doc="Enable; clearing it resets the controller")
    css = Field(6, 4, doc="I/O Command Set Selected; 0: the NVM command set")
    mps = Field(10, 7, doc="Memory Page Size: 2^(12 + MPS) bytes")
    ams = Field(13, 11, doc="Arbitration Mechanism Selected; 0: round robin")
    shn = Field(15, 14, ShutdownNotification, doc="Shutdown Notification")
    iosqes = Field(19, 16, doc="I/O Submission Queue Entry Size: 2^IOSQES bytes")
    iocqes = Field(23, 20, doc="I/O Completion Queue Entry Size: 2^IOCQES bytes")


class ControllerStatus(Register, access="ro"):
    """Controller Status, section 3.1.6."""

    rdy = Field(0, doc="Ready")
    cfs = Field(1, doc="Controller Fatal Status")
    shst = Field(3, 2, ShutdownStatus, doc="Shutdown Status")
    nssro = Field(4, access="w1c", doc="NVM Subsystem Reset Occurred")
    pp = Field(5, doc="Processing Paused")


class AdminQueueAttributes(Register):
    """Admin Queue Attributes, section 3.1.8."""

    asqs = Field(11, 0, doc="Admin Submission Queue Size in entries, less 1")
    acqs = Field(27, 16, doc="Admin Completion Queue Size in entries, less 1")


class SubmissionQueueTailDoorbell(Register, access="wo"):
    """Submission Queue y Tail Doorbell, section 3.1.24."""

    sqt = Field(15, 0, doc="Submission Queue Tail: the entry after the last one that was submitted")


class CompletionQueueHeadDoorbell(Register, access="wo"):
    """Completion Queue y Head Doorbell, section 3.1.25."""

    cqh = Field(15, 0, doc="Completion Queue Head: the entry after the last one that the software has read")


class Doorbells(RegisterMap):
    """The doorbells of one queue pair, where CAP.DSTRD is 0."""

    sqtdbl = SubmissionQueueTailDoorbell(0x0)
    cqhdbl = CompletionQueueHeadDoorbell(0x4)


class NvmeRegisters(RegisterMap):
    """BAR 0, section 3.1. CAP, ASQ and ACQ take 64-bit accesses.

    The doorbells are where they are named only if CAP.DSTRD is 0, as in nearly every controller; `doorbell_offsets`
    knows the others.
    """

    cap = ControllerCapabilities(0x00)
    vs = Version(0x08)
    intms = Register(0x0C, access="w1s", doc="Interrupt Mask Set, a bit for each vector, section 3.1.3")
    intmc = Register(0x10, access="w1c", doc="Interrupt Mask Clear, a bit for each vector, section 3.1.4")
    cc = ControllerConfiguration(0x14)
    csts = ControllerStatus(0x1C)
    aqa = AdminQueueAttributes(0x24)
    asq = Register(0x28, width=64, doc="Admin Submission Queue Base Address, section 3.1.9")
    acq = Register(0x30, width=64, doc="Admin Completion Queue Base Address, section 3.1.10")
    doorbells = Array(Doorbells.at(0x1000), QUEUE_PAIRS)


def doorbell_offsets(queue_id: int, stride: int) -> tuple[int, int]:
    """Return where a queue pair's doorbells are in BAR 0, in bytes: SQyTDBL (section 3.1.24), CQyHDBL (3.1.25).

    Args:
        queue_id: y; 0 is the admin queue.
        stride: bytes from one doorbell to the next, 4 << CAP.DSTRD.
    """
    return 0x1000 + 2 * queue_id * stride, 0x1000 + (2 * queue_id + 1) * stride
