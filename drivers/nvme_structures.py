# SPDX-License-Identifier: MIT
"""What an NVMe controller and its driver hand each other: registers, queue entries, commands, and what is reported.

Names and numbers are those of the NVM Express Base Specification, revision 1.4; "section" below is one of its.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

CLASS_CODE = 0x010802
"""Mass storage, non-volatile memory, NVM Express I/O controller (section 2.1.5)."""

# Registers of BAR 0, section 3.1.
CAP = 0x00  # 64 bits: controller capabilities, section 3.1.1
VS = 0x08  # version, section 3.1.2
INTMS = 0x0C  # interrupt mask set, section 3.1.3
INTMC = 0x10  # interrupt mask clear, section 3.1.4
CC = 0x14  # controller configuration, section 3.1.5
CSTS = 0x1C  # controller status, section 3.1.6
AQA = 0x24  # admin queue attributes, section 3.1.8
ASQ = 0x28  # 64 bits: address of the admin submission queue, section 3.1.9
ACQ = 0x30  # 64 bits: address of the admin completion queue, section 3.1.10
DOORBELLS = 0x1000  # sections 3.1.24 and 3.1.25

# Bits of CC.
CC_EN = 1 << 0
CC_SHN = 0b11 << 14
CC_SHN_NORMAL = 0b01 << 14
CC_IOSQES = 6 << 16  # entries of 2^6 bytes
CC_IOCQES = 4 << 20

# Bits of CSTS.
CSTS_RDY = 1 << 0
CSTS_CFS = 1 << 1
CSTS_SHST = 0b11 << 2
CSTS_SHST_COMPLETE = 0b10 << 2

ALL_ONES = 0xFFFFFFFF  # what a device that is gone reads as

# Entries of a submission queue, section 4.2, figure 105. Two of its dwords are one field: addresses of blocks have 64
# bits, and the device looks at no entry before it is told to, so no field is the owner.
SUBMISSION_ENTRY = 64
SUBMISSION_FIELDS = {
    "opcode": (0, 8),
    "flags": (1, 8),
    "command_id": (2, 16),
    "namespace_id": (4, 32),
    "prp1": (24, 64),
    "prp2": (32, 64),
    "cdw10_11": (40, 64),
    "cdw12": (48, 32),
    "cdw13": (52, 32),
    "cdw14": (56, 32),
    "cdw15": (60, 32),
}

# Entries of a completion queue, section 4.6. The last dword is one field: the id of the command, the phase tag, which
# the controller inverts with each pass through the queue, and above it the status.
COMPLETION_ENTRY = 16
COMPLETION_FIELDS = {
    "dw0": (0, 32),
    "dw1": (4, 32),
    "submission_head": (8, 16),
    "submission_queue": (10, 16),
    "answer": (12, 32),
}
ANSWER_COMMAND_ID = 0xFFFF
ANSWER_PHASE = 1 << 16
ANSWER_STATUS_SHIFT = 17

# Admin commands, section 5.
DELETE_SUBMISSION_QUEUE = 0x00  # section 5.6
CREATE_SUBMISSION_QUEUE = 0x01  # section 5.4
GET_LOG_PAGE = 0x02  # section 5.14
DELETE_COMPLETION_QUEUE = 0x04  # section 5.5
CREATE_COMPLETION_QUEUE = 0x05  # section 5.3
IDENTIFY = 0x06  # section 5.15
ABORT = 0x08  # section 5.1
SET_FEATURES = 0x09  # section 5.21

QUEUE_PHYSICALLY_CONTIGUOUS = 1 << 0
QUEUE_INTERRUPTS_ENABLED = 1 << 1
IDENTIFY_NAMESPACE, IDENTIFY_CONTROLLER, IDENTIFY_ACTIVE_NAMESPACES = 0x00, 0x01, 0x02  # CNS, section 5.15.1
FEATURE_NUMBER_OF_QUEUES = 0x07  # section 5.21.1.7
LOG_SMART = 0x02  # section 5.14.1.2
ALL_NAMESPACES = 0xFFFFFFFF

# Commands of the NVM command set, section 6.
FLUSH = 0x00  # section 6.8
WRITE = 0x01  # section 6.15
READ = 0x02  # section 6.9

COMMAND_NAMES = {FLUSH: "flushing", WRITE: "writing", READ: "reading"}
ADMIN_NAMES = {
    DELETE_SUBMISSION_QUEUE: "Delete I/O Submission Queue",
    CREATE_SUBMISSION_QUEUE: "Create I/O Submission Queue",
    GET_LOG_PAGE: "Get Log Page",
    DELETE_COMPLETION_QUEUE: "Delete I/O Completion Queue",
    CREATE_COMPLETION_QUEUE: "Create I/O Completion Queue",
    IDENTIFY: "Identify",
    ABORT: "Abort",
    SET_FEATURES: "Set Features",
}

_KELVIN = 273  # what the specification's own thresholds are converted with


@dataclass(frozen=True)
class Capabilities:
    """What the controller can do, from CAP (section 3.1.1) and VS (section 3.1.2).

    Attributes:
        version: of the specification, major, minor and tertiary.
        queue_entries: the most that a queue can have.
        ready_timeout: how long it may take to become ready, or to stop, in seconds.
        doorbell_stride: bytes from one doorbell to the next.
        page_size: the smallest memory page that it can be set to, in bytes.
        nvm_command_set: whether it has the commands to read and write blocks.
    """

    version: tuple[int, int, int]
    queue_entries: int
    ready_timeout: float
    doorbell_stride: int
    page_size: int
    nvm_command_set: bool

    @classmethod
    def of(cls, capabilities: int, version: int) -> Capabilities:
        """Decode the two registers."""
        return cls(
            version=(version >> 16, version >> 8 & 0xFF, version & 0xFF),
            queue_entries=(capabilities & 0xFFFF) + 1,
            ready_timeout=max(1, capabilities >> 24 & 0xFF) * 0.5,
            doorbell_stride=4 << (capabilities >> 32 & 0xF),
            page_size=1 << (12 + (capabilities >> 48 & 0xF)),
            nvm_command_set=bool(capabilities >> 37 & 1),
        )


@dataclass(frozen=True)
class Controller:
    """What a controller says of itself: Identify Controller, section 5.15.2.2.

    Attributes:
        vendor_id: PCI vendor id of who made it.
        serial, model, firmware: texts without the blanks that fill them up.
        largest_transfer: in bytes, of one command; None for no limit.
        namespaces: the highest number that a namespace can have.
        volatile_write_cache: whether it has one, so that `flush` does something.
        shutdown_latency: how long it usually takes to shut down, in seconds; 0.0 if it does not say.
        emulated: whether it is software: it has the command Doorbell Buffer Config, which is for such (section 5.7).
    """

    vendor_id: int
    serial: str
    model: str
    firmware: str
    largest_transfer: int | None
    namespaces: int
    volatile_write_cache: bool
    shutdown_latency: float
    emulated: bool

    @classmethod
    def parse(cls, data: bytes, page_size: int) -> Controller:
        """Decode 4096 bytes; `page_size` is the controller's smallest, in which it counts (MDTS)."""
        maximum = data[77]
        return cls(
            vendor_id=int.from_bytes(data[0:2], "little"),
            serial=_text(data[4:24]),
            model=_text(data[24:64]),
            firmware=_text(data[64:72]),
            largest_transfer=page_size << maximum if maximum else None,
            namespaces=int.from_bytes(data[516:520], "little"),
            volatile_write_cache=bool(data[525] & 1),
            shutdown_latency=int.from_bytes(data[88:92], "little") / 1e6,
            emulated=bool(data[257] & 1),  # OACS, bit 8
        )


@dataclass(frozen=True)
class Namespace:
    """What a controller says of a namespace: Identify Namespace, section 5.15.2.1.

    Attributes:
        number: its id, from 1.
        blocks: how many it has.
        used: how many of them are allocated.
        block_size: of their data, in bytes.
        metadata_size: bytes of metadata with each.
    """

    number: int
    blocks: int
    used: int
    block_size: int
    metadata_size: int

    @property
    def size(self) -> int:
        """Of all its blocks' data, in bytes."""
        return self.blocks * self.block_size

    @classmethod
    def parse(cls, number: int, data: bytes) -> Namespace:
        """Decode 4096 bytes."""
        blocks, _capacity, used = struct.unpack_from("<QQQ", data, 0)
        # FLBAS says which of the formats it has; bits 5 and 6 came with revision 2.0.
        index = (data[26] & 0xF) | (data[26] >> 1 & 0x30 if data[25] > 16 else 0)
        metadata_size, exponent = struct.unpack_from("<HB", data, 128 + 4 * index)
        return cls(number, blocks, used, 1 << exponent, metadata_size)


@dataclass(frozen=True)
class Smart:
    """The SMART / Health Information log, section 5.14.1.2.

    Attributes:
        warnings: what is critical, in words; empty when nothing is.
        temperature: in degrees Celsius, of the whole.
        available_spare, spare_threshold: percent of the spare capacity, and below how many there is a warning.
        percentage_used: of its life, as the vendor estimates; may exceed 100.
        bytes_read, bytes_written: by the host, in steps of 512,000.
        read_commands, write_commands: completed.
        busy_minutes: with commands outstanding.
        power_cycles, power_on_hours: so far.
        unsafe_shutdowns: losses of power that no shutdown came before.
        media_errors: data that could not be read or did not compare.
        error_log_entries: over its life.
    """

    warnings: tuple[str, ...]
    temperature: int
    available_spare: int
    spare_threshold: int
    percentage_used: int
    bytes_read: int
    bytes_written: int
    read_commands: int
    write_commands: int
    busy_minutes: int
    power_cycles: int
    power_on_hours: int
    unsafe_shutdowns: int
    media_errors: int
    error_log_entries: int

    @classmethod
    def parse(cls, data: bytes) -> Smart:
        """Decode 512 bytes."""
        warning, kelvin, spare, threshold, used = struct.unpack_from("<BHBBB", data, 0)
        read, written, *counts = (int.from_bytes(data[at : at + 16], "little") for at in range(32, 192, 16))
        warnings = tuple(text for bit, text in enumerate(_WARNINGS) if warning >> bit & 1)
        return cls(warnings, kelvin - _KELVIN, spare, threshold, used, read * 512_000, written * 512_000, *counts)


_WARNINGS = (
    "available spare below threshold",
    "temperature beyond threshold",
    "reliability degraded",
    "media read-only",
    "volatile memory backup failed",
    "persistent memory region read-only",
)


def _text(data: bytes) -> str:
    return data.decode("ascii", "replace").strip(" \0")
