# SPDX-License-Identifier: MIT
"""The errors of the NVMe driver, and the name of each status that a controller can return.

Numbers and names are those of the NVM Express Base Specification 1.4, section 4.6.1.
"""

from __future__ import annotations

import errno
import io

from pyuio import DeviceNotFoundError, DeviceTimeoutError, PyuioError


class NvmeError(PyuioError, OSError):
    """The base class of the driver's errors about a controller or a command (errno EIO)."""

    def __init__(self, message: str) -> None:
        super().__init__(errno.EIO, message)


class CommandError(NvmeError):
    """The controller completed a command with an error. The disk remains usable.

    Attributes:
        status_code_type: 0 to 7, section 4.6.1.1.
        status_code: 0 to 255, section 4.6.1.2.
        status_name: the specification's name for the two.
        do_not_retry: the controller expects the same command to fail again (DNR).
        more: the Error Information log has more about this error (M).
        block: the first block of the command; None for an admin command, or a flush.
    """

    def __init__(self, doing: str, status: int, block: int | None = None) -> None:
        self.status_code = status & 0xFF
        self.status_code_type = status >> 8 & 0x7
        self.more = bool(status >> 13 & 1)
        self.do_not_retry = bool(status >> 14 & 1)
        self.status_name = status_name(self.status_code_type, self.status_code)
        self.block = block
        advice = "; it will not succeed again" if self.do_not_retry else ""
        numbers = f"status code type {self.status_code_type:x}h, status code {self.status_code:02x}h"
        super().__init__(f"{doing}: {self.status_name} ({numbers}{advice})")


class CommandTimeoutError(NvmeError, DeviceTimeoutError):
    """The controller did not complete a command in time.

    The message says what became of the command. A write may have been done or not. The driver does not abort a command
    of the admin queue, which the controller may still do; `Nvme.reset` ends it.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.errno = errno.ETIMEDOUT


class ControllerFatalError(NvmeError):
    """The controller stopped with a fatal error (CSTS.CFS, section 9.5), or is disabled; `Nvme.reset` may revive it."""


class ControllerResetError(NvmeError):
    """The controller was reset while the command was outstanding; a write may have been done or not."""


class NamespaceNotFoundError(DeviceNotFoundError):
    """The controller has no such namespace; the message lists the namespaces that it has."""


class NotWritableError(PyuioError, io.UnsupportedOperation):
    """A write to a disk that was opened for reading only."""


def status_name(status_code_type: int, status_code: int) -> str:
    """Return the specification's name of a status; of an unknown status, its type."""
    name = _NAMES.get((status_code_type, status_code))
    if name is not None:
        return name
    if status_code_type == 7 or status_code >= 0xC0:
        return "Vendor Specific"
    kind = _TYPES.get(status_code_type, "Reserved")
    return f"Unknown {kind} status"


_TYPES = {
    0x0: "Generic Command",
    0x1: "Command Specific",
    0x2: "Media and Data Integrity",
    0x3: "Path Related",
}

# Section 4.6.1.2.1: generic command status.
_GENERIC = {
    0x00: "Successful Completion",
    0x01: "Invalid Command Opcode",
    0x02: "Invalid Field in Command",
    0x03: "Command ID Conflict",
    0x04: "Data Transfer Error",
    0x05: "Commands Aborted due to Power Loss Notification",
    0x06: "Internal Error",
    0x07: "Command Abort Requested",
    0x08: "Command Aborted due to SQ Deletion",
    0x09: "Command Aborted due to Failed Fused Command",
    0x0A: "Command Aborted due to Missing Fused Command",
    0x0B: "Invalid Namespace or Format",
    0x0C: "Command Sequence Error",
    0x0D: "Invalid SGL Segment Descriptor",
    0x0E: "Invalid Number of SGL Descriptors",
    0x0F: "Data SGL Length Invalid",
    0x10: "Metadata SGL Length Invalid",
    0x11: "SGL Descriptor Type Invalid",
    0x12: "Invalid Use of Controller Memory Buffer",
    0x13: "PRP Offset Invalid",
    0x14: "Atomic Write Unit Exceeded",
    0x15: "Operation Denied",
    0x16: "SGL Offset Invalid",
    0x18: "Host Identifier Inconsistent Format",
    0x19: "Keep Alive Timer Expired",
    0x1A: "Keep Alive Timeout Invalid",
    0x1B: "Command Aborted due to Preempt and Abort",
    0x1C: "Sanitize Failed",
    0x1D: "Sanitize In Progress",
    0x1E: "SGL Data Block Granularity Invalid",
    0x1F: "Command Not Supported for Queue in CMB",
    0x20: "Namespace is Write Protected",
    0x21: "Command Interrupted",
    0x22: "Transient Transport Error",
    # of revision 2.0
    0x23: "Command Prohibited by Command and Feature Lockdown",
    0x24: "Admin Command Media Not Ready",
    # of the NVM command set
    0x80: "LBA Out of Range",
    0x81: "Capacity Exceeded",
    0x82: "Namespace Not Ready",
    0x83: "Reservation Conflict",
    0x84: "Format In Progress",
}

# Section 4.6.1.2.2: command specific status.
_COMMAND_SPECIFIC = {
    0x00: "Completion Queue Invalid",
    0x01: "Invalid Queue Identifier",
    0x02: "Invalid Queue Size",
    0x03: "Abort Command Limit Exceeded",
    0x05: "Asynchronous Event Request Limit Exceeded",
    0x06: "Invalid Firmware Slot",
    0x07: "Invalid Firmware Image",
    0x08: "Invalid Interrupt Vector",
    0x09: "Invalid Log Page",
    0x0A: "Invalid Format",
    0x0B: "Firmware Activation Requires Conventional Reset",
    0x0C: "Invalid Queue Deletion",
    0x0D: "Feature Identifier Not Saveable",
    0x0E: "Feature Not Changeable",
    0x0F: "Feature Not Namespace Specific",
    0x10: "Firmware Activation Requires NVM Subsystem Reset",
    0x11: "Firmware Activation Requires Controller Level Reset",
    0x12: "Firmware Activation Requires Maximum Time Violation",
    0x13: "Firmware Activation Prohibited",
    0x14: "Overlapping Range",
    0x15: "Namespace Insufficient Capacity",
    0x16: "Namespace Identifier Unavailable",
    0x18: "Namespace Already Attached",
    0x19: "Namespace Is Private",
    0x1A: "Namespace Not Attached",
    0x1B: "Thin Provisioning Not Supported",
    0x1C: "Controller List Invalid",
    0x1D: "Device Self-test In Progress",
    0x1E: "Boot Partition Write Prohibited",
    0x1F: "Invalid Controller Identifier",
    0x20: "Invalid Secondary Controller State",
    0x21: "Invalid Number of Controller Resources",
    0x22: "Invalid Resource Identifier",
    0x23: "Sanitize Prohibited While Persistent Memory Region is Enabled",
    0x24: "ANA Group Identifier Invalid",
    0x25: "ANA Attach Failed",
    # of revision 2.0
    0x26: "Insufficient Capacity",
    0x27: "Namespace Attachment Limit Exceeded",
    0x28: "Prohibition of Command Execution Not Supported",
    0x29: "I/O Command Set Not Supported",
    0x2A: "I/O Command Set Not Enabled",
    0x2B: "I/O Command Set Combination Rejected",
    0x2C: "Invalid I/O Command Set",
    0x2D: "Identifier Unavailable",
    # of the NVM command set
    0x80: "Conflicting Attributes",
    0x81: "Invalid Protection Information",
    0x82: "Attempted Write to Read Only Range",
    # of the Zoned Namespace command set, revision 1.1, section 4.1.1
    0xB8: "Zone Boundary Error",
    0xB9: "Zone Is Full",
    0xBA: "Zone Is Read Only",
    0xBB: "Zone Is Offline",
    0xBC: "Zone Invalid Write",
    0xBD: "Too Many Active Zones",
    0xBE: "Too Many Open Zones",
    0xBF: "Invalid Zone State Transition",
}

# Section 4.6.1.2.3: media and data integrity errors.
_MEDIA = {
    0x80: "Write Fault",
    0x81: "Unrecovered Read Error",
    0x82: "End-to-end Guard Check Error",
    0x83: "End-to-end Application Tag Check Error",
    0x84: "End-to-end Reference Tag Check Error",
    0x85: "Compare Failure",
    0x86: "Access Denied",
    0x87: "Deallocated or Unwritten Logical Block",
}

# Section 4.6.1.2.4: path related status.
_PATH = {
    0x00: "Internal Path Error",
    0x01: "Asymmetric Access Persistent Loss",
    0x02: "Asymmetric Access Inaccessible",
    0x03: "Asymmetric Access Transition",
    0x60: "Controller Pathing Error",
    0x70: "Host Pathing Error",
    0x71: "Command Aborted By Host",
}

_NAMES = {
    (status_code_type, code): name
    for status_code_type, names in enumerate((_GENERIC, _COMMAND_SPECIFIC, _MEDIA, _PATH))
    for code, name in names.items()
}
