# SPDX-License-Identifier: MIT
"""The opcodes of NVMe commands, and the data structures that the controller returns.

Names and numbers are those of the NVM Express Base Specification 1.4, whose sections the comments give. The registers
are in `pyuio_drivers.nvme_registers`, the queue entries in `pyuio_drivers.nvme_rings`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from pyuio_drivers.nvme_registers import ControllerCapabilities, Version

CLASS_CODE = 0x010802
"""Mass storage, non-volatile memory, NVM Express I/O controller (section 2.1.5)."""

# Admin commands, section 5.
DELETE_IO_SUBMISSION_QUEUE = 0x00  # section 5.6
CREATE_IO_SUBMISSION_QUEUE = 0x01  # section 5.4
GET_LOG_PAGE = 0x02  # section 5.14
DELETE_IO_COMPLETION_QUEUE = 0x04  # section 5.5
CREATE_IO_COMPLETION_QUEUE = 0x05  # section 5.3
IDENTIFY = 0x06  # section 5.15
ABORT = 0x08  # section 5.1
SET_FEATURES = 0x09  # section 5.21

# Dword 11 of the commands that create queues, sections 5.3 and 5.4.
PHYSICALLY_CONTIGUOUS = 1 << 0
INTERRUPTS_ENABLED = 1 << 1
# Of Identify, section 5.15.1.
CNS_NAMESPACE, CNS_CONTROLLER, CNS_ACTIVE_NAMESPACES, CNS_NAMESPACE_DESCRIPTORS = 0x00, 0x01, 0x02, 0x03
FEATURE_NUMBER_OF_QUEUES = 0x07  # section 5.21.1.7
LOG_SMART = 0x02  # section 5.14.1.2
ALL_NAMESPACES = 0xFFFFFFFF  # section 6.1.2

# Commands of the NVM command set, section 6.
FLUSH = 0x00  # section 6.8
WRITE = 0x01  # section 6.15
READ = 0x02  # section 6.9

COMMAND_NAMES = {FLUSH: "flushing", WRITE: "writing", READ: "reading"}
ADMIN_NAMES = {
    DELETE_IO_SUBMISSION_QUEUE: "Delete I/O Submission Queue",
    CREATE_IO_SUBMISSION_QUEUE: "Create I/O Submission Queue",
    GET_LOG_PAGE: "Get Log Page",
    DELETE_IO_COMPLETION_QUEUE: "Delete I/O Completion Queue",
    CREATE_IO_COMPLETION_QUEUE: "Create I/O Completion Queue",
    IDENTIFY: "Identify",
    ABORT: "Abort",
    SET_FEATURES: "Set Features",
}

_KELVIN = 273  # the specification converts its own thresholds with this


@dataclass(frozen=True)
class Capabilities:
    """What the controller can do, from CAP (section 3.1.1) and VS (section 3.1.2).

    Attributes:
        version: the version of the specification: major, minor and tertiary.
        queue_entries: the most entries that a queue can have (MQES).
        ready_timeout: how long the controller may take to become ready, or to stop, in seconds (TO); at least 0.5.
        doorbell_stride: bytes from one doorbell to the next (DSTRD).
        page_size: the smallest memory page that the controller supports, in bytes (MPSMIN).
        nvm_command_set: whether the controller has the commands that read and write blocks (CSS).
        other_command_sets: whether namespaces may have other commands (CSS, bit 6: revision 2.0, section 3.1.3.1).
    """

    version: tuple[int, int, int]
    queue_entries: int
    ready_timeout: float
    doorbell_stride: int
    page_size: int
    nvm_command_set: bool
    other_command_sets: bool = False

    @classmethod
    def of(cls, capabilities: int, version: int) -> Capabilities:
        """Decode the values of CAP (64 bits) and VS (32 bits). ValueError: one has more bits."""
        cap, vs = ControllerCapabilities.of(capabilities), Version.of(version)
        return cls(
            version=(vs.mjr, vs.mnr, vs.ter),
            queue_entries=cap.mqes + 1,
            ready_timeout=max(1, cap.to) * 0.5,
            doorbell_stride=4 << cap.dstrd,
            page_size=1 << (12 + cap.mpsmin),
            nvm_command_set=bool(cap.css & 1),
            other_command_sets=bool(cap.css >> 6 & 1),
        )


@dataclass(frozen=True)
class Controller:
    """The Identify Controller data structure, section 5.15.2.2.

    Attributes:
        vendor_id: the PCI vendor id of the manufacturer (VID).
        serial, model, firmware: texts without the blanks that pad them (SN, MN, FR).
        largest_transfer: the most bytes that one command can transfer (MDTS); None for no limit.
        namespaces: the highest number that a namespace can have (NN).
        volatile_write_cache: whether the controller has one, so that `flush` has an effect (VWC).
        shutdown_latency: how long a shutdown usually takes, in seconds; 0.0 if the controller does not say (RTD3E).
        emulated: whether the controller is software: it has the command Doorbell Buffer Config, which only an emulated
            one needs (section 5.7).
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
        """Decode 4096 bytes; MDTS counts in pages of `page_size` bytes, the controller's smallest."""
        mdts = data[77]
        return cls(
            vendor_id=int.from_bytes(data[0:2], "little"),
            serial=_text(data[4:24]),
            model=_text(data[24:64]),
            firmware=_text(data[64:72]),
            largest_transfer=page_size << mdts if mdts else None,
            namespaces=int.from_bytes(data[516:520], "little"),
            volatile_write_cache=bool(data[525] & 1),
            shutdown_latency=int.from_bytes(data[88:92], "little") / 1e6,
            emulated=bool(data[257] & 1),  # OACS, bit 8
        )


@dataclass(frozen=True)
class Namespace:
    """The Identify Namespace data structure, section 5.15.2.1.

    Attributes:
        number: its identifier, from 1 (NSID).
        blocks: how many logical blocks it has (NSZE).
        used: how many of them are allocated (NUSE).
        block_size: bytes of data in a block (LBADS).
        metadata_size: bytes of metadata with each block (MS).
    """

    number: int
    blocks: int
    used: int
    block_size: int
    metadata_size: int

    @property
    def size(self) -> int:
        """Bytes of data in all its blocks."""
        return self.blocks * self.block_size

    @classmethod
    def parse(cls, number: int, data: bytes) -> Namespace:
        """Decode 4096 bytes."""
        blocks, _capacity, used = struct.unpack_from("<QQQ", data, 0)
        # FLBAS is the index of its format. Revision 2.0 added bits 5 and 6, for more than 16 formats (NLBAF).
        index = (data[26] & 0xF) | (data[26] >> 1 & 0x30 if data[25] > 16 else 0)
        metadata_size, exponent = struct.unpack_from("<HB", data, 128 + 4 * index)
        return cls(number, blocks, used, 1 << exponent, metadata_size)


NVM_COMMAND_SET = 0
COMMAND_SETS = {NVM_COMMAND_SET: "NVM", 1: "Key Value", 2: "Zoned Namespace"}
"""The command sets of namespaces: NVM Express Base Specification 2.0, section 5.17.2.21 (CSI)."""
_COMMAND_SET_DESCRIPTOR = 4


def command_set(descriptors: bytes) -> int:
    """Return a namespace's command set from its Identification Descriptors (revision 2.0, section 5.17.2.3).

    Each has its type, its length and two reserved bytes before the data; one of the length 0 ends the list.
    """
    offset = 0
    while offset + 4 < len(descriptors) and (length := descriptors[offset + 1]):
        if descriptors[offset] == _COMMAND_SET_DESCRIPTOR:
            return descriptors[offset + 4]
        offset += 4 + length
    return NVM_COMMAND_SET


@dataclass(frozen=True)
class Smart:
    """The SMART / Health Information log, section 5.14.1.2.

    Attributes:
        warnings: the critical warnings, in words; empty when there is none.
        temperature: the composite temperature in degrees Celsius.
        available_spare: percent of the spare capacity that is left.
        spare_threshold: the percentage of spare capacity below which the controller warns.
        percentage_used: percent of its life that is used, as the vendor estimates; may exceed 100.
        bytes_read, bytes_written: how much the host has read and written, in steps of 512,000 bytes.
        read_commands, write_commands: how many commands the controller has completed.
        busy_minutes: how long commands have been outstanding.
        power_cycles, power_on_hours: over its life.
        unsafe_shutdowns: how often power was lost without a shutdown before.
        media_errors: how often data could not be read, or did not compare.
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
